"""The fault campaign in full: which scenario, how often, from which seeds. `make campaign` and benchmarks/faults.py do it."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fault_runs
from fault_runs import SEARCHERS, Driver, Tally
from postgres_server import running
from s3_server import s3_server


class Stage(contextlib.ExitStack):
    """What scenarios run on, each begun when it is first asked for and ended with the block."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._numbers = itertools.count()

    @cached_property
    def driver(self) -> Driver:
        assert self.s3 is not None  # its environment says where that server is
        return self.enter_context(fault_runs.driver())

    @cached_property
    def s3(self) -> Any:
        server = self.enter_context(s3_server())
        server.make_bucket("faults")
        return server

    @cached_property
    def postgres(self) -> Any:
        return self.enter_context(running())

    @cached_property
    def machines(self) -> Any:
        from ray_machines import machines

        return self.enter_context(machines(2))

    def fresh(self) -> Path:
        """A new folder."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        return folder

    def sqlite(self, folder: Path) -> str:
        """A new SQLite file."""
        return f"sqlite:///{folder}/runs{next(self._numbers)}.db"

    def postgresql(self, _: Path) -> str:
        """A new schema on the server."""
        return str(self.postgres.fresh())


@dataclass(frozen=True)
class Scenario:
    """A row of the table.

    Args:
        name: what happens.
        store: where the record is.
        kills: whether its faults are counted among the kills.
        do: given a stage and a seed, does it all.
        seeds: for each it is done once.
    """

    name: str
    store: str
    kills: bool
    do: Callable[[Stage, int], Tally]
    seeds: tuple[int, ...]

    def run(self, stage: Stage) -> Tally:
        """Every seed, one after the other."""
        return sum((self.do(stage, seed) for seed in self.seeds), Tally())


def _driver(searcher: str, store: str) -> Callable[[Stage, int], Tally]:
    return lambda stage, seed: fault_runs.kill_the_driver(
        stage.driver, stage.fresh(), seed, 15, getattr(stage, store), searcher
    )


def _pool(of: str, kills: int) -> Callable[[Stage, int], Tally]:
    return lambda stage, seed: fault_runs.kill_around_a_pool(
        stage.driver, stage.fresh(), seed, kills, stage.sqlite, of=of
    )


def _ray(of: str, kills: int) -> Callable[[Stage, int], Tally]:
    return lambda stage, seed: fault_runs.kill_around_ray(
        stage.driver, stage.fresh(), seed, kills, stage.sqlite, stage.machines, of=of
    )


def _postgres(how: str, faults: int) -> Callable[[Stage, int], Tally]:
    return lambda stage, seed: fault_runs.shake_postgres(
        stage.driver, stage.fresh(), seed, faults, stage.postgres, how=how
    )


CAMPAIGN = (
    *(Scenario(f"driver killed: {s}", "SQLite", True, _driver(s, "sqlite"), (k,)) for k, s in enumerate(SEARCHERS)),
    *(
        Scenario(f"driver killed: {s}", "PostgreSQL", True, _driver(s, "postgresql"), (10 + k,))
        for k, s in enumerate(("reinforce", "asha"))
    ),
    Scenario("driver of a pool killed", "SQLite", True, _pool("driver", 20), (20,)),
    Scenario("worker of a pool killed", "SQLite", True, _pool("worker", 30), (21,)),
    Scenario("driver on a Ray cluster killed", "SQLite", True, _ray("driver", 8), (30,)),
    Scenario("worker of a Ray cluster killed", "SQLite", True, _ray("worker", 15), (31,)),
    Scenario("machine of a Ray cluster lost", "SQLite", True, _ray("machine", 7), (32,)),
    Scenario("server restarted (pg_ctl -m immediate)", "PostgreSQL", False, _postgres("restart", 12), (40,)),
    Scenario("all connections ended", "PostgreSQL", False, _postgres("end", 25), (41,)),
    Scenario(
        "files may not grow",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.fill_the_disk(stage.driver, stage.fresh(), seed, 8),
        (50,),
    ),
    Scenario(
        "disk full",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.fill_the_disk(stage.driver, stage.fresh(), seed, 8, mounted=True),
        (51, 53),
    ),
    Scenario(
        "store locked by another program",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.lock_the_store(stage.driver, stage.fresh(), seed, 20),
        (52,),
    ),
    Scenario(
        "wall clock jumps at every look, driver killed",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.jump_the_clock(stage.driver, stage.fresh(), seed, 5, stage.sqlite),
        (60, 61),
    ),
    Scenario(
        "wall clock jumps at every look, driver killed",
        "PostgreSQL",
        False,
        lambda stage, seed: fault_runs.jump_the_clock(stage.driver, stage.fresh(), seed, 5, stage.postgresql),
        (62,),
    ),
    Scenario(
        "wall clock jumps at every look, driver of a pool killed",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.jump_the_clock(
            stage.driver, stage.fresh(), seed, 5, stage.sqlite, executor="pool"
        ),
        (63,),
    ),
    Scenario(
        "S3 server of the weights away",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.take_the_weights_away(
            stage.driver, stage.fresh(), seed, 4, stage.s3, f"s3://faults/{uuid.uuid4().hex}"
        ),
        (70, 71),
    ),
    Scenario(
        "children that misbehave, in a pool",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.bear_with_children(stage.fresh(), seed),
        (80, 81, 82),
    ),
    Scenario(
        "children that misbehave, in the driver",
        "SQLite",
        False,
        lambda stage, seed: fault_runs.bear_with_children(stage.fresh(), seed, in_process=True),
        (83, 84, 85),
    ),
)
