"""The fault campaign in its short form: a few faults of each kind. `make campaign` does hundreds."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fault_runs
from fault_runs import Driver, Search
from postgres_server import Server
from run_record import Record, check
from s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def driver(s3: S3Server) -> Iterator[Driver]:  # its environment says where the server is
    with fault_runs.driver() as process:
        yield process


def files() -> Callable[[Path], str]:
    """A new SQLite file each time."""
    numbers = itertools.count()
    return lambda folder: f"sqlite:///{folder}/runs{next(numbers)}.db"


@pytest.mark.parametrize("searcher", ["reinforce", "evolution", "asha"])
def test_a_search_whose_driver_is_killed_comes_to_the_same(driver: Driver, tmp_path: Path, searcher: str) -> None:
    tally = fault_runs.kill_the_driver(driver, tmp_path, 1, 3, files(), searcher, trials=150)
    assert tally.faults == 3
    assert tally.trials >= 150


@pytest.mark.postgres
def test_so_it_does_on_postgresql(driver: Driver, tmp_path: Path, postgres: Server) -> None:
    fault_runs.kill_the_driver(driver, tmp_path, 2, 3, lambda _: postgres.fresh(), "reinforce", trials=150)


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["restart", "end"])
def test_a_search_whose_postgresql_goes_away_notices_nothing(
    driver: Driver,
    tmp_path: Path,
    postgres: Server,
    how: str,
) -> None:
    fault_runs.shake_postgres(driver, tmp_path, 3, 2, postgres, how=how, trials=250)


@pytest.mark.parametrize("of", ["driver", "worker"])
def test_a_pool_whose_processes_are_killed_loses_nothing(driver: Driver, tmp_path: Path, of: str) -> None:
    tally = fault_runs.kill_around_a_pool(driver, tmp_path, 4, 3, files(), of=of, trials=80)
    assert tally.faults == 3


def test_a_full_disk_is_told_and_costs_nothing(driver: Driver, tmp_path: Path) -> None:
    assert fault_runs.fill_the_disk(driver, tmp_path, 5, 2).faults == 2


def test_a_store_that_others_lock_is_waited_for(driver: Driver, tmp_path: Path) -> None:
    fault_runs.lock_the_store(driver, tmp_path, 6, 2)


def test_a_clock_that_jumps_changes_nothing(driver: Driver, tmp_path: Path) -> None:
    fault_runs.jump_the_clock(driver, tmp_path, 7, 1, files())


def test_weights_are_kept_though_their_server_is_away(driver: Driver, tmp_path: Path, s3: S3Server) -> None:
    fault_runs.take_the_weights_away(driver, tmp_path, 8, 1, s3, s3.make_bucket("faults"))


@pytest.mark.parametrize("in_process", [True, False], ids=["in process", "pool"])
def test_whatever_children_do_the_others_are_trained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], in_process: bool
) -> None:
    fault_runs.bear_with_children(tmp_path, 9, in_process=in_process)


# --- the checker itself -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("whole")
    spec = {"searcher": "asha", "executor": "here", "seed": 1, "trials": 30}
    return fault_runs.expected(driver, spec, folder / "run")


def lose_the_last_event(record: Record) -> None:
    record.events.pop()


def lose_one_in_the_middle(record: Record) -> None:
    del record.events[10]


def change_a_reward(record: Record) -> None:
    told = next(e for e in record.events if e["kind"] == "told" and json.loads(e["payload"])["reward"] is not None)
    told["payload"] = json.dumps({**json.loads(told["payload"]), "reward": 0.123})


def tell_one_twice(record: Record) -> None:
    told = next(e for e in record.events if e["kind"] == "told")
    last = record.events[-1]["seq"] + 1
    record.events.append({**told, "seq": last, "entry": last, "at": record.events[-1]["at"]})


def have_the_clock_go_back(record: Record) -> None:
    record.events[5]["at"] = record.events[4]["at"] - 1.0


def forget_a_start(record: Record) -> None:
    record.trials[3]["attempts"] -= 1


def count_one_more(record: Record) -> None:
    record.run["done"] += 1


def name_another_best(record: Record) -> None:
    record.run["best"] += 1


def spend_more(record: Record) -> None:
    record.run["epochs"] += 1


def learn_from_half_a_tell(record: Record) -> None:
    record.snapshots.append({"seq": next(e["seq"] for e in record.events if e["kind"] == "asked"), "state": b""})


TAMPERING = [
    lose_the_last_event,
    lose_one_in_the_middle,
    change_a_reward,
    tell_one_twice,
    have_the_clock_go_back,
    forget_a_start,
    count_one_more,
    name_another_best,
    spend_more,
    learn_from_half_a_tell,
]


@pytest.mark.parametrize("tamper", TAMPERING)
def test_the_checker_sees(whole: Search, tamper: Callable[[Record], None]) -> None:
    assert whole.record is not None
    check(whole.record)
    tampered = copy.deepcopy(whole.record)
    tamper(tampered)
    with pytest.raises(AssertionError):
        check(tampered)


def test_the_checker_sees_what_was_lost_since_the_last_look(whole: Search) -> None:
    record: Any = whole.record
    check(record, record)
    later = copy.deepcopy(record)
    later.events.append({**later.events[-1], "payload": "{}"})
    with pytest.raises(AssertionError, match="lost or rewritten"):
        check(record, later)
    with pytest.raises(AssertionError, match="lost or rewritten"):
        check(record, replace(record, events=[{**record.events[0], "at": 0.0}, *record.events[1:]]))
