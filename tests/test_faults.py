"""Faults on the simulated clock: exact against a simulation of another kind, in the mean against theory, and across kills."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Completed, Event, Progress, Started
from archsmith.core.space import as_space
from archsmith.core.trial import Cost, TrialState
from archsmith.executors import Faults, Simulated
from archsmith.executors.faults import Attempt, attempts
from test_simulated import EVALUATOR, EVOLUTION, Reports, heard, job, killed_run, number, story

HARSH = Faults(
    failures_per_hour=120,
    straggler_share=0.2,
    straggler_slowdown=4,
    spot_lifetime_seconds=50,
    spot_return_seconds=7,
    seed=3,
)


def ticked(took: list[int], workers: int, faults: Faults) -> dict[int, tuple[int, int, bool]]:
    """The same cluster by another way: a clock that ticks, and machines that count their seconds down.

    Gives when each trial ended, how many attempts it had and whether it was lost. All times must be whole.
    """
    waiting = list(range(len(took)))
    machines: list[Machine | None] = [None] * workers
    ended: dict[int, tuple[int, int, bool]] = {}
    for now in range(10**6):
        for at, machine in enumerate(machines):
            if machine is not None and (lost := machine.ticks(took, faults)) is not None:
                ended[machine.trial] = (now, machine.attempt, lost)
                machines[at] = None
        for at, machine in enumerate(machines):
            if machine is None and waiting:
                machines[at] = Machine(waiting.pop(0), 0).begins(took, faults)
        if len(ended) == len(took):
            return ended
    raise AssertionError("the ticking clock does not come to an end")


@dataclass
class Machine:
    trial: int
    attempt: int
    work: float = 0.0
    dies: bool = False
    away: float = 0.0

    def begins(self, took: list[int], faults: Faults) -> Machine:
        self.attempt += 1
        fate = faults.fate(self.trial, self.attempt)
        needs = took[self.trial] * fate.slowdown
        self.dies = fate.dies_after < needs
        self.work, self.away = min(needs, fate.dies_after), fate.replaced_after if self.dies else 0.0
        return self

    def ticks(self, took: list[int], faults: Faults) -> bool | None:
        """A second passes; whether the trial was lost, where it ended."""
        if self.work > 0:
            self.work -= 1
        else:
            self.away -= 1
        if self.work > 0 or self.away > 0:
            return None
        if not self.dies:
            return False
        if self.attempt > faults.retries:
            return True
        self.begins(took, faults)
        return None


class Whole(Faults):
    """Faults at whole seconds, so that a clock that ticks meets them exactly."""

    def fate(self, trial: int, attempt: int, epochs_done: int = 0) -> Any:
        fate = super().fate(trial, attempt, epochs_done)
        return replace(fate, dies_after=float(math.ceil(fate.dies_after)) if fate.dies_after < math.inf else math.inf)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=25), st.integers(1, 5), st.integers(0, 3), st.integers(0, 999))
def test_machines_fail_as_in_a_simulation_that_ticks(took: list[int], workers: int, retries: int, seed: int) -> None:
    faults = Whole(200, 0.3, 3.0, 30.0, 5.0, retries, seed)
    executor = Simulated(workers, faults=faults)
    for trial, seconds in enumerate(took):
        executor.submit(job(trial, seconds))
    begins, ended = dict.fromkeys(range(len(took)), 0), {}
    for at, event in heard(executor):
        if isinstance(event, Started):
            begins[event.trial] += 1
            assert event.attempt == begins[event.trial]
        elif isinstance(event, Completed):
            ended[event.trial] = (at, begins[event.trial], event.state is TrialState.FAILED)
    assert ended == ticked(took, workers, faults)


# --- in the mean ------------------------------------------------------------------------------------------------------


def spent(faults: Faults, seconds: float, trials: int) -> list[list[Attempt]]:
    return [list(attempts(faults, trial, seconds, math.inf)) for trial in range(trials)]


@pytest.mark.parametrize(
    ("faults", "rate", "back"),
    [
        (Faults(failures_per_hour=1.0, retries=10_000), 1 / 3600, 0.0),
        (Faults(spot_lifetime_seconds=1800, spot_return_seconds=300, retries=10_000, seed=5), 1 / 1800, 300.0),
    ],
)
def test_workers_are_used_as_theory_says(faults: Faults, rate: float, back: float) -> None:
    """A job of c seconds on machines that are lost at a rate r, and replaced after b seconds, takes (1/r + b)(e^(rc) - 1)
    seconds in the mean: what each of its e^(rc) - 1 losses costs, and the time that is left."""
    seconds, trials = 2400.0, 4000
    ends = [tries[-1].free for tries in spent(faults, seconds, trials)]
    expected = (1 / rate + back) * math.expm1(rate * seconds)
    error = statistics.stdev(ends) / math.sqrt(trials)
    assert abs(statistics.mean(ends) - expected) < 4 * error
    assert error < 0.05 * expected, "the bound means something"
    losses = sum(len(tries) - 1 for tries in spent(faults, seconds, trials)) / trials
    assert losses == pytest.approx(math.expm1(rate * seconds), rel=0.1)


def test_both_ways_to_be_lost_come_as_often_as_they_should() -> None:
    """Of two exponential clocks the one of rate a rings first with probability a / (a + b)."""
    faults = Faults(failures_per_hour=2.0, spot_lifetime_seconds=900, spot_return_seconds=60)
    fates = [faults.fate(trial, 1) for trial in range(4000)]
    taken = statistics.mean(fate.replaced_after == 60 for fate in fates)
    assert taken == pytest.approx(4 / 6, abs=0.03)
    assert statistics.mean(fate.dies_after for fate in fates) == pytest.approx(600, rel=0.06)
    slow = Faults(straggler_share=0.1, straggler_slowdown=5)
    assert statistics.mean(slow.fate(trial, 2).slowdown == 5 for trial in range(4000)) == pytest.approx(0.1, abs=0.02)
    assert all(slow.fate(trial, 1).dies_after == math.inf for trial in range(100))


# --- what a trial says of it ------------------------------------------------------------------------------------------


def first_with(lost: int, faults: Faults = HARSH, seconds: float = 30.0) -> int:
    """A trial that loses so many workers and is then done."""
    return next(
        trial
        for trial in range(10_000)
        if len(tries := list(attempts(faults, trial, seconds, math.inf))) == lost + 1 and not tries[-1].lost
    )


def test_what_was_lost_stands_beside_what_it_took() -> None:
    trial = first_with(2)
    executor = Simulated(1, faults=HARSH)
    executor.submit(job(trial, 30.0))
    seen = heard(executor)
    tries = list(attempts(HARSH, trial, 30.0, math.inf))
    assert [(at, event) for at, event in seen[:-1]] == [
        (0.0, Started(trial)),
        (tries[1].begins, Started(trial, 2)),
        (tries[2].begins, Started(trial, 3)),
    ]
    at, done = seen[-1]
    assert done.result.cost == Cost(tries[2].whole, 1.0, tries[2].begins)
    assert at == tries[2].begins + tries[2].whole


def test_one_that_loses_its_worker_too_often_has_failed() -> None:
    faults = replace(HARSH, retries=1, failures_per_hour=36_000)
    executor = Simulated(2, faults=faults)
    executor.submit(job(0, 30.0))
    seen = heard(executor)
    at, done = seen[-1]
    assert [event.attempt for _, event in seen[:-1]] == [1, 2]
    assert (done.state, done.reward) == (TrialState.FAILED, None)
    assert done.result.failure.reason == "worker"
    assert "2 times" in done.result.failure.message
    assert done.result.cost == Cost(0.0, 0.0, at), "all that it took was for nothing"


def test_epochs_of_a_lost_attempt_are_heard_again() -> None:
    faults = Faults(failures_per_hour=60, seed=1)
    trial = first_with(1, faults, 50.0)
    executor = Simulated(1, faults=faults)
    executor.submit(replace(job(trial, 1.0), evaluator=Reports(5, 10.0)))
    told: list[Event] = [event for _, event in heard(executor)]
    again = next(n for n, event in enumerate(told) if isinstance(event, Started) and event.attempt == 2)
    lost = int(next(iter(attempts(faults, trial, 50.0, math.inf))).took // 10)
    assert [e.epoch for e in told[:again] if isinstance(e, Progress)] == list(range(1, lost + 1))
    assert [e.epoch for e in told[again:] if isinstance(e, Progress)] == [1, 2, 3, 4, 5]


def test_one_cancelled_after_a_loss_counts_what_was_lost() -> None:
    trial = first_with(1)
    first, second = attempts(HARSH, trial, 30.0, math.inf)
    executor = Simulated(1, faults=HARSH)
    executor.submit(job(trial, 30.0))
    executor.completed()
    while executor.clock.seconds < second.begins:
        executor.completed(second.begins - executor.clock.seconds)
    executor.completed(second.whole / 4)
    executor.cancel(trial)
    [done] = executor.completed()
    assert isinstance(done, Completed)
    assert done.state is TrialState.STOPPED
    assert done.result.cost.seconds == pytest.approx(second.whole / 4)
    assert done.result.cost.epochs == pytest.approx(0.25)
    assert done.result.cost.lost_seconds == first.free


def test_a_straggler_meets_its_limit() -> None:
    faults = Faults(straggler_share=1.0, straggler_slowdown=3.0)
    executor = Simulated(1, faults=faults)
    executor.submit(job(0, 10.0, limits=Limits(seconds=20.0)))
    executor.submit(job(1, 5.0, limits=Limits(seconds=20.0)))
    ended = [event for _, event in heard(executor) if isinstance(event, Completed)]
    assert [(e.state, e.result.cost.seconds) for e in ended] == [(TrialState.FAILED, 20.0), (TrialState.DONE, 15.0)]
    assert ended[0].result.failure is not None
    assert ended[0].result.failure.reason == "seconds"


def test_pieces_of_one_training_have_fates_of_their_own() -> None:
    assert len({HARSH.fate(trial, attempt, done) for trial in (1, 2) for attempt in (1, 2) for done in (0, 3)}) == 8
    assert HARSH.fate(1, 1, 3) == HARSH.fate(1, 1, 3)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_on_machines_that_fail_repeats_and_adds_up() -> None:
    def searched(faults: Faults | None) -> smith.Run:
        executor = Simulated(7, faults=faults)
        return smith.search(number, EVALUATOR, searcher=EVOLUTION, trials=80, store="memory://", executor=executor)

    run = searched(HARSH)
    assert Faults.of(run.config["clock"]["faults"]) == HARSH
    assert story(searched(HARSH)) == story(run)
    assert story(searched(replace(HARSH, seed=4))) != story(run)
    trials = list(run.trials())
    for trial in trials:
        assert trial.result is not None
        assert trial.finished_at is not None
        cost = trial.result.cost
        assert trial.finished_at - trial.proposed_at == pytest.approx(cost.seconds + cost.lost_seconds)
        assert trial.attempts == len(
            list(attempts(HARSH, trial.number, EVALUATOR.seconds(trial.genotype.answers["x"]), math.inf))
        )
    assert max(trial.attempts for trial in trials) > 1
    assert run.summary.seconds > searched(None).summary.seconds


def test_a_run_on_machines_that_fail_is_the_same_when_it_is_killed_and_goes_on(tmp_path: Path) -> None:
    whole = story(
        smith.search(
            number, EVALUATOR, searcher=EVOLUTION, trials=20, store="memory://", executor=Simulated(4, faults=HARSH)
        )
    )
    for cut in range(3, 118, 19):
        run = killed_run(tmp_path / f"cut{cut}.db", cut, HARSH)
        resumed = run.resume(space=as_space(number), evaluator=EVALUATOR)  # on such machines as before, by the record
        assert story(resumed) == whole, f"killed at moment {cut}"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_faults_are_remade_from_their_record() -> None:
    assert to_config(HARSH)["type"] == "executors.Faults"
    assert Faults.of(to_config(HARSH)) == HARSH
    assert Faults.of(json.loads(json.dumps(to_config(HARSH)))) == HARSH
    assert Faults.of(None) is None


@pytest.mark.parametrize(
    "record", [{"type": "executors.Ray"}, {"type": "executors.Faults", "rate": 3}, [1], "Faults", {"retries": 2}]
)
def test_a_record_of_anything_else_is_refused(record: Any) -> None:
    with pytest.raises(UsageError):
        Faults.of(record)


@pytest.mark.parametrize(
    "setting",
    [
        {"failures_per_hour": -1},
        {"failures_per_hour": math.inf},
        {"failures_per_hour": True},
        {"straggler_share": 1.5},
        {"straggler_share": math.nan},
        {"straggler_slowdown": 0.5},
        {"spot_lifetime_seconds": 0},
        {"spot_return_seconds": "2"},
        {"retries": -1},
        {"retries": 1.5},
        {"seed": 0.5},
    ],
)
def test_bad_faults_are_refused_by_name(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        Faults(**setting)


def test_faults_must_be_faults() -> None:
    with pytest.raises(UsageError, match="must be a Faults"):
        Simulated(2, faults=0.1)  # type: ignore[arg-type]
