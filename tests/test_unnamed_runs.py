"""Runs without a name that begin at the same moment, in several processes, in one store."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import archsmith as smith
from archsmith.cli import main
from archsmith.core.errors import RunExists
from archsmith.store import open_store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forked, so that they begin at the same moment")

PROCESSES, RUNS, TRIALS = 3, 2, 2


def pick(choose: Any) -> Any:
    return choose("x", (1, 2, 3))


def by_search(store: Path) -> None:
    smith.search(pick, lambda x: x, trials=TRIALS, store=store)


def by_command(store: Path) -> None:
    command = ["search", "landscape", "--trials", str(TRIALS), "--no-control", "--store", str(store)]
    assert main(command) == 0


def begin(search: Callable[[Path], None], store: Path, barrier: Any, said: Any) -> None:
    for _ in range(RUNS):
        barrier.wait()
        try:
            search(store)
        except BaseException as error:
            said.put(repr(error))
            barrier.abort()
            raise


@pytest.mark.parametrize(("search", "stem"), [(by_search, "pick-random-"), (by_command, "landscape")])
def test_each_has_a_name_of_its_own(tmp_path: Path, search: Callable[[Path], None], stem: str) -> None:
    context = multiprocessing.get_context("fork")
    barrier, said = context.Barrier(PROCESSES), context.SimpleQueue()
    arguments = (search, tmp_path / "runs.db", barrier, said)
    processes = [context.Process(target=begin, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert said.empty(), said.get()
    runs = open_store(tmp_path / "runs.db").runs()
    assert len({run.name for run in runs}) == PROCESSES * RUNS
    assert all(run.name.startswith(stem) for run in runs)
    assert {(run.status, run.counts["done"]) for run in runs} == {("finished", TRIALS)}, "none went on with another's"


def test_a_name_that_is_given_is_never_changed(tmp_path: Path) -> None:
    smith.search(pick, lambda x: x, trials=1, store=tmp_path / "runs.db", name="mine")
    with pytest.raises(RunExists, match="mine"):
        smith.search(pick, lambda x: x, trials=1, store=tmp_path / "runs.db", name="mine")
