"""Proposals that are the same child as an earlier one: told with its result, and not trained twice."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import archsmith as smith
from archsmith import searchers
from archsmith.core.errors import ChildFailed
from archsmith.core.evaluator import Context
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.space import Space, decode
from archsmith.core.trial import Cost, Result
from archsmith.core.walk import Choose
from archsmith.executors import ProcessPool, Simulated
from archsmith.store import open_store


@dataclass(frozen=True)
class Sums:
    """Pairs of numbers, of which the order does not matter."""

    largest: int = 4

    def architecture(self, choose: Choose) -> Architecture:
        return [choose("first", range(self.largest)), choose("second", range(self.largest))]

    def build(self, architecture: Architecture, task: Any) -> Any:
        raise NotImplementedError

    def canonical(self, architecture: Architecture) -> Any:
        return sorted(architecture)


@dataclass(frozen=True)
class Training:
    """Notes each training in a file, so that those of other processes count too."""

    notes: str
    fails: int = -1
    seconds: float = 1.0

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        architecture = decode(space, genotype)
        with Path(self.notes).open("a") as file:
            file.write(f"{sorted(architecture)}\n")
        if sum(architecture) == self.fails:
            raise ChildFailed("this sum fails", reason="error")
        return Result({"value": float(sum(architecture))}, cost=Cost(self.seconds, 2.0))

    def trained(self) -> Counter[str]:
        return Counter(Path(self.notes).read_text().split("\n")[:-1])


def search(training: Training, store: Any = "memory://", **changed: Any) -> smith.Run:
    settings = {"trials": 60, "name": "sums", "searcher": searchers.Random(), **changed}
    return smith.search(Sums(), training, store=store, **settings)


def check(run: smith.Run, training: Training) -> None:
    """Every child was trained once, and each copy is what its original was."""
    assert max(training.trained().values()) == 1
    trials = list(run.trials())
    originals = [t for t in trials if t.result is not None and t.result.copied_from is None]
    assert len(originals) == len(training.trained())
    assert run.summary.epochs == 2.0 * len(originals)
    for trial in trials:
        assert trial.result is not None
        if (number := trial.result.copied_from) is None:
            continue
        original = trials[number]
        assert original in originals
        assert sorted(decode(Sums(), original.genotype)) == sorted(decode(Sums(), trial.genotype))
        assert (trial.reward, trial.result.metrics) == (original.reward, original.result.metrics)  # type: ignore[union-attr]
        assert trial.result.cost == Cost()


def test_a_twin_has_the_result_of_the_first_and_costs_nothing(tmp_path: Path) -> None:
    training = Training(str(tmp_path / "notes"))
    run = search(training)
    check(run, training)
    assert len(training.trained()) == 10  # 4 numbers in pairs, without order
    assert run.summary.counts["done"] == 60


@pytest.mark.parametrize("searcher", [searchers.Reinforce(minibatch=4), searchers.RegularizedEvolution(8, 3)])
def test_the_searcher_is_told_of_twins_as_of_others(tmp_path: Path, searcher: Any) -> None:
    training = Training(str(tmp_path / "notes"))
    check(search(training, searcher=searcher), training)


def test_side_by_side_a_twin_waits_for_the_first(tmp_path: Path) -> None:
    training = Training(str(tmp_path / "notes"))
    check(search(training, executor=Simulated(workers=8)), training)


def test_in_a_pool_of_processes(tmp_path: Path) -> None:
    training = Training(str(tmp_path / "notes"))
    check(search(training, trials=24, executor=ProcessPool(2)), training)
    assert not multiprocessing.active_children()


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    training = Training(str(tmp_path / "notes"), fails=0)
    run = search(training, executor=Simulated(workers=4, seconds=1.0))
    trained = training.trained()
    zeros = [t for t in run.trials() if sum(decode(Sums(), t.genotype)) == 0]
    assert len(zeros) > 1
    assert trained["[0, 0]"] == len(zeros)
    assert all(t.state == "failed" for t in zeros)
    assert max(count for pair, count in trained.items() if pair != "[0, 0]") == 1


def test_a_resumed_run_knows_what_was_trained_before(tmp_path: Path) -> None:
    training = Training(str(tmp_path / "notes"))
    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}")
    search(training, store, trials=20)
    run = smith.open_run(store, "sums").resume(trials=60, space=Sums(), evaluator=training)
    check(run, training)
    whole = search(Training(str(tmp_path / "others")))
    assert [(t.genotype, t.reward) for t in run.trials()] == [(t.genotype, t.reward) for t in whole.trials()]
    assert [t.result.copied_from for t in run.trials() if t.result] == [  # read back from the database
        t.result.copied_from for t in whole.trials() if t.result
    ]


def test_when_time_runs_out_those_that_wait_are_left_for_the_next_session(tmp_path: Path) -> None:
    training = Training(str(tmp_path / "notes"), seconds=10.0)
    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}")
    run = search(training, store, trials=60, seconds=15.0, executor=Simulated(workers=8))
    assert run.summary.counts["proposed"] + run.summary.counts["stopped"] > 0
    run = smith.open_run(store, "sums").resume(trials=60, seconds=1000.0, space=Sums(), evaluator=training)
    assert run.summary.counts["proposed"] + run.summary.counts["running"] == 0
    assert run.summary.counts["done"] + run.summary.counts["stopped"] == 60


def test_people_are_told_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from archsmith.cli.looking import show

    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}")
    run = search(Training(str(tmp_path / "notes")), store)
    assert run.twins == 50
    show("sums", store=store.url)
    assert "60 done (50 the same as an earlier one, not trained again); 20 epochs" in capsys.readouterr().out
    page = run.report(tmp_path / "page.html").read_text()
    assert "50 were the same as an earlier one and not trained again" in page
