"""The simulated clock: workers side by side on it, budgets in its seconds, and a resume after a kill at any moment."""

from __future__ import annotations

import heapq
import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.errors import AllTrialsFailed, UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Completed, Executor, Job, Progress, Started
from archsmith.core.space import as_space, sample
from archsmith.core.trial import Cost, Result, TrialState
from archsmith.executors import Faults, Simulated
from archsmith.searchers import Random, RegularizedEvolution
from archsmith.store import open_store
from archsmith.testing import ExecutorContract
from dying_store import dying_store
from test_cli import archsmith


class TestSimulated(ExecutorContract):
    steps = 20

    def executor(self) -> Executor:
        return Simulated(3, seconds=0.5, device="cpu")


class Timed:
    """Looks a number up, and what its training took."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds = seconds

    def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
        x = genotype.answers["x"]
        return Result({"value": x / 100}, cost=Cost(self.seconds(x), 1.0))


def number(choose: Any) -> Any:
    return choose("x", tuple(range(100)))


SPACE = as_space(number)
EVALUATOR = Timed(lambda x: 1.0 + (x * 37 % 11))


def job(trial: int, seconds: float, *, proposed_at: float | None = None, limits: Limits = Limits()) -> Job:  # noqa: B008
    import random

    genotype = sample(SPACE, random.Random(trial))
    return Job(
        trial,
        SPACE,
        genotype,
        Timed(lambda _: seconds),
        lambda r: r.metrics["value"],
        trial,
        limits=limits,
        proposed_at=proposed_at,
    )


def drained(executor: Simulated) -> list[tuple[int, float]]:
    """Which trial completed when, by the clock."""
    seen = []
    while events := executor.completed():
        seen += [(event.trial, executor.clock.seconds) for event in events if isinstance(event, Completed)]
    return seen


# --- the clock --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 5))
def test_jobs_complete_as_that_many_machines_would_have_completed_them(took: list[int], workers: int) -> None:
    executor = Simulated(workers)
    for trial, seconds in enumerate(took):
        executor.submit(job(trial, seconds))
    free, expected = [0] * workers, []
    for trial, seconds in enumerate(took):  # a queue before so many machines, reckoned by hand
        ends = heapq.heappop(free) + seconds
        heapq.heappush(free, ends)
        expected.append((ends, trial))
    assert drained(executor) == [(trial, ends) for ends, trial in sorted(expected)]


def test_ties_complete_in_the_order_submitted_and_one_by_one() -> None:
    executor = Simulated(4)
    for trial in (3, 1, 2):
        executor.submit(job(trial, 5.0))
    assert [event.trial for event in executor.completed() if isinstance(event, Started)] == [3, 1, 2]
    assert [[event.trial for event in executor.completed()] for _ in range(3)] == [[3], [1], [2]]
    assert executor.clock.seconds == 5.0


def test_a_timeout_is_of_the_clock() -> None:
    executor = Simulated(1)
    executor.submit(job(0, 10.0))
    executor.completed()
    assert executor.completed(4.0) == []
    assert executor.clock.seconds == 4.0
    [done] = executor.completed(6.0)
    assert (done.trial, executor.clock.seconds) == (0, 10.0)


def test_what_is_cancelled_took_as_long_as_it_ran_and_its_worker_is_free() -> None:
    executor = Simulated(1)
    executor.submit(job(0, 10.0))
    executor.submit(job(1, 3.0))
    executor.completed()
    executor.completed(4.0)
    executor.cancel(0)
    events = [*executor.completed(), *executor.completed()]
    assert events[:2] == [Completed(0, TrialState.STOPPED, Result(cost=Cost(4.0, 0.4))), Started(1)]
    assert events[2].trial == 1
    assert executor.clock.seconds == 7.0


def test_what_ends_at_the_moment_of_its_cancelling_has_its_result() -> None:
    executor = Simulated(3)
    for trial, seconds in enumerate((4.0, 4.0, 4.5)):
        executor.submit(job(trial, seconds))
    while not any(isinstance(event, Completed) for event in executor.completed()):
        pass
    assert executor.clock.seconds == 4
    executor.cancel(1)
    executor.cancel(2)
    ended = [event for event in executor.completed() if isinstance(event, Completed)]
    assert [(e.trial, e.state) for e in ended] == [(1, TrialState.DONE), (2, TrialState.STOPPED)]
    executor.close()


def test_a_child_is_cut_off_at_its_limit() -> None:
    executor = Simulated(1)
    executor.submit(job(0, 10.0, limits=Limits(seconds=4.0)))
    executor.completed()
    [done] = executor.completed()
    assert isinstance(done, Completed)
    assert (done.state, done.result.cost) == (TrialState.FAILED, Cost(4.0, 0.4))
    assert done.result.failure is not None
    assert done.result.failure.reason == "seconds"
    assert executor.clock.seconds == 4.0


def test_a_job_of_before_began_when_it_was_proposed() -> None:
    executor = Simulated(2)
    executor.clock.seconds = 100.0
    executor.submit(job(0, 30.0, proposed_at=90.0))
    executor.submit(job(1, 1.0, proposed_at=95.0))
    executor.submit(job(2, 10.0, proposed_at=99.0))  # waits for a worker; that of trial 1 was free from 96 on
    assert drained(executor) == [(1, 100.0), (2, 109.0), (0, 120.0)]


class Reports:
    """Looks a curve of so many epochs up, each of which took as long."""

    def __init__(self, epochs: int, epoch_seconds: float) -> None:
        self.epochs, self.epoch_seconds = epochs, epoch_seconds

    def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
        curve, before = [], context.epochs_done
        for epoch in range(before + 1, self.epochs + 1):
            curve.append({"epoch": epoch, "value": epoch / self.epochs})
            if not context.report(epoch, {"value": epoch / self.epochs}):
                break
        if context.paused:
            context.pause({"epoch": numpy.array([curve[-1]["epoch"]], dtype="float32")})
        cost = Cost(self.epoch_seconds * len(curve), float(len(curve)))
        return Result({"value": curve[-1]["value"]}, curve, cost)


def heard(executor: Simulated) -> list[tuple[float, Any]]:
    """All that is heard, each with what the clock shows then."""
    seen: list[tuple[float, Any]] = []
    while events := executor.completed():
        seen += [(executor.clock.seconds, event) for event in events]
    return seen


def test_epochs_are_heard_of_when_they_would_have_ended() -> None:
    executor = Simulated(2)
    executor.submit(replace(job(0, 1.0), evaluator=Reports(3, 10.0)))
    executor.submit(replace(job(1, 1.0), evaluator=Reports(2, 12.0)))
    seen = [(at, type(event), event.trial) for at, event in heard(executor)]
    assert seen == [
        (0.0, Started, 0),
        (0.0, Started, 1),
        (10.0, Progress, 0),
        (12.0, Progress, 1),
        (20.0, Progress, 0),
        (24.0, Progress, 1),
        (24.0, Completed, 1),
        (30.0, Progress, 0),
        (30.0, Completed, 0),
    ]


def test_a_child_stopped_after_an_epoch_took_until_then_and_keeps_its_curve() -> None:
    executor = Simulated(1)
    executor.submit(replace(job(0, 1.0), evaluator=Reports(5, 10.0)))
    executor.submit(job(1, 3.0))
    done = []
    while events := executor.completed():
        for event in events:
            if isinstance(event, Progress) and event.epoch == 2:
                executor.cancel(0)
            if isinstance(event, Completed):
                done.append((executor.clock.seconds, event))
    stopped = Result(curve=({"epoch": 1, "value": 0.2}, {"epoch": 2, "value": 0.4}), cost=Cost(20.0, 2.0))
    assert done[0] == (20.0, Completed(0, TrialState.STOPPED, stopped))
    assert [(at, event.trial) for at, event in done] == [(20.0, 0), (23.0, 1)]


def test_a_child_that_is_put_aside_goes_on_from_there_and_takes_its_share_each_time(tmp_path: Path) -> None:
    executor = Simulated(1)
    first = replace(job(0, 1.0, proposed_at=0.0), evaluator=Reports(6, 10.0), artifacts=str(tmp_path))
    executor.submit(replace(first, until=2))
    [*_, (at, paused)] = heard(executor)
    assert isinstance(paused, Completed)
    assert (at, paused.state, paused.result.cost) == (20.0, TrialState.PAUSED, Cost(20.0, 2.0))
    executor.submit(replace(job(1, 7.0)))
    drained(executor)
    executor.submit(replace(first, until=None, resume=paused.result))
    [*_, (at, done)] = heard(executor)
    assert isinstance(done, Completed)
    assert (at, done.state, done.result.cost) == (67.0, TrialState.DONE, Cost(40.0, 4.0))


def test_pieces_share_a_default_time_by_their_epochs() -> None:
    class Counts(Reports):
        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            result = super().evaluate(space, genotype, context)
            return replace(result, cost=Cost(0.0, result.cost.epochs))

    executor = Simulated(1, seconds=60.0)
    executor.submit(replace(job(0, 1.0), evaluator=Counts(6, 1.0), until=2))
    [*_, (at, paused)] = heard(executor)
    assert (at, paused.result.cost) == (20.0, Cost(20.0, 2.0))
    executor.submit(replace(job(1, 1.0), evaluator=Counts(6, 1.0)))
    assert drained(executor) == [(1, 80.0)]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_result_without_a_cost_in_seconds_is_refused_and_a_default_helps() -> None:
    with pytest.raises(UsageError, match=r"trial 0 has no cost in seconds.*seconds="):
        smith.search(number, lambda x: x / 100, trials=5, store="memory://", executor=Simulated(2))
    run = smith.search(number, lambda x: x / 100, trials=6, store="memory://", executor=Simulated(2, seconds=10))
    assert run.summary.seconds == 30.0
    assert [t.finished_at for t in run.trials()] == [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1.0])
def test_a_child_whose_cost_is_no_time_has_failed(cost: float) -> None:
    store = open_store("memory://")
    with pytest.raises(AllTrialsFailed, match="the cost of a child in seconds must be finite"):
        smith.search(number, Timed(lambda _: cost), trials=5, store=store, name="r", executor=Simulated(2))
    run = smith.open_run(store, "r")
    assert run.summary.counts["failed"] == 5
    assert run.summary.seconds == 0.0, "the clock shows nothing that is no time"


def test_a_clock_that_stands_still_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archsmith.executors.simulated.MOST_IN_NO_TIME", 50)

    class Fails:
        """All but the first two children."""

        def __init__(self) -> None:
            self.before = 0

        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            self.before += 1
            if self.before <= 2:
                return Result({"value": 0.0}, cost=Cost(2.0))
            raise ValueError("no such row")

    with pytest.raises(UsageError, match="took no time on the simulated clock"):
        smith.search(number, Fails(), trials=None, seconds=10, store="memory://", executor=Simulated(2))
    run = smith.search(number, Fails(), trials=None, seconds=10, store="memory://", executor=Simulated(2, seconds=2))
    assert run.summary.counts["failed"] == 8
    assert run.summary.counts["stopped"] == 0, "of two that end with the budget, neither is too late"


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "2"])
def test_bad_workers_are_refused(workers: Any) -> None:
    with pytest.raises(UsageError, match="workers must be"):
        Simulated(workers)


@pytest.mark.parametrize("seconds", [0, -1, True, float("inf"), "2"])
def test_bad_seconds_are_refused(seconds: Any) -> None:
    with pytest.raises(UsageError, match="seconds must be"):
        Simulated(seconds=seconds)


def test_a_run_keeps_the_kind_of_clock_that_it_began_with() -> None:
    store = open_store("memory://")
    run = smith.search(number, EVALUATOR, trials=5, store=store, name="a", executor=Simulated(2))
    with pytest.raises(UsageError, match=r"a simulated one, and InProcess goes by the wall's"):
        run.resume(trials=9, executor=smith.executors.InProcess())
    run = smith.search(number, EVALUATOR, trials=5, store=store, name="b")
    with pytest.raises(UsageError, match=r"the wall's, and Simulated goes by a simulated one"):
        run.resume(trials=9, executor=Simulated(2))


# --- runs -------------------------------------------------------------------------------------------------------------


def story(run: smith.Run) -> list[tuple[Any, ...]]:
    """All that a simulated run says, but when and how often a process began a trial."""
    return [(t.number, t.genotype.key, t.parent, t.state, t.reward, t.proposed_at, t.finished_at) for t in run.trials()]


EVOLUTION = RegularizedEvolution(population=6, sample=3)


@pytest.mark.parametrize("workers", [1, 7, 50])
def test_the_times_of_a_run_are_those_of_its_clock(workers: int) -> None:
    run = smith.search(
        number, EVALUATOR, searcher=EVOLUTION, trials=60, store="memory://", executor=Simulated(workers), seed=4
    )
    trials = list(run.trials())
    for trial in trials:
        assert trial.result is not None
        assert trial.started_at == trial.proposed_at
        assert trial.finished_at == trial.proposed_at + trial.result.cost.seconds
    busy = sum(t.result.cost.seconds for t in trials if t.result is not None)
    assert run.summary.seconds == max(t.finished_at or 0.0 for t in trials)
    assert run.summary.seconds * workers >= busy
    assert workers > 1 or run.summary.seconds == busy
    again = smith.search(
        number, EVALUATOR, searcher=EVOLUTION, trials=60, store="memory://", executor=Simulated(workers), seed=4
    )
    assert story(again) == story(run)


def test_evolution_meets_results_in_the_order_of_the_clock() -> None:
    """With several workers a parent may only be one whose result was in when the child was proposed."""
    run = smith.search(
        number, EVALUATOR, searcher=EVOLUTION, trials=60, store="memory://", executor=Simulated(9), seed=1
    )
    trials = list(run.trials())
    children = [t for t in trials if t.parent is not None]
    assert children
    assert all((trials[t.parent].finished_at or 0.0) <= t.proposed_at for t in children if t.parent is not None)


def test_a_budget_in_seconds_is_of_the_clock_and_stops_what_runs() -> None:
    run = smith.search(
        number, EVALUATOR, trials=None, seconds=40.0, store="memory://", executor=Simulated(3, seconds=1), seed=2
    )
    assert run.summary.seconds == 40.0
    trials = list(run.trials())
    stopped = [t for t in trials if t.state is TrialState.STOPPED]
    assert len(trials) > 12
    assert all((t.finished_at or 0.0) <= 40.0 for t in trials)
    assert all(t.finished_at == 40.0 and t.result and t.result.cost.seconds == 40 - t.proposed_at for t in stopped)
    assert 1 <= len(stopped) <= 3
    further = run.resume(seconds=55.0)
    assert further.summary.seconds == 55.0


def _killed_after(moments: int, store: str, faults: Faults | None) -> None:
    """Runs in a forked process and kills itself with SIGKILL before or after some write."""
    executor, dying = Simulated(4, faults=faults), dying_store(store, moments)
    smith.search(number, EVALUATOR, searcher=EVOLUTION, trials=20, store=dying, name="k", executor=executor)


def killed_run(path: Path, moments: int, faults: Faults | None = None) -> smith.Run:
    """A run of 20 trials on 4 simulated workers whose process was killed before or after its so many-th write."""
    store = f"sqlite:///{path}"
    process = multiprocessing.get_context("fork").Process(target=_killed_after, args=(moments, store, faults))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run = smith.open_run(store, "k")
    assert run.summary.status == "interrupted"
    return run


def test_a_run_killed_at_any_moment_and_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    whole = story(
        smith.search(number, EVALUATOR, searcher=EVOLUTION, trials=20, store="memory://", executor=Simulated(4))
    )
    for cut in range(2, 112, 6):
        run = killed_run(tmp_path / f"cut{cut}.db", cut)
        resumed = run.resume(space=as_space(number), evaluator=EVALUATOR)  # as many workers as before, by the record
        assert story(resumed) == whole, f"killed at moment {cut}"


def test_raising_a_budget_goes_on_by_the_clock() -> None:
    whole = smith.search(number, EVALUATOR, searcher=Random(), trials=30, store="memory://", executor=Simulated(1))
    run = smith.search(number, EVALUATOR, searcher=Random(), trials=12, store="memory://", executor=Simulated(1))
    assert story(run.resume(trials=30)) == story(whole)


def test_the_command_line_simulates(tmp_path: Path) -> None:
    rows = "".join(f"{x},{x / 100},{60 * (1 + x % 7)}\n" for x in range(100))
    (tmp_path / "table.csv").write_text("x,accuracy,took\n" + rows)
    (tmp_path / "mine.py").write_text(
        "import archsmith as smith\nfrom archsmith.core.budget import Budget\nfrom archsmith.core.space import as_space\n"
        "recipe = smith.recipes.Recipe('mine', 'a table', as_space(lambda choose: choose('x', tuple(range(100)))),\n"
        "    smith.training.Tabular('table.csv', 'accuracy', seconds='took'), smith.searchers.Random(), Budget(trials=40))\n"
    )
    options = ("--executor", "simulated", "--workers", "8", "--no-control")
    done = archsmith("search", "mine.py", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run = smith.open_run(f"sqlite:///{tmp_path / 'runs.db'}", "mine")
    assert run.config["workers"] == 8
    assert run.summary.seconds > 40 * 60 / 8
    assert "Simulated time" in run.report(tmp_path / "page.html").read_text()
    done = archsmith("resume", "mine", "mine.py", "--trials", "50", folder=tmp_path)
    assert done.returncode == 0, done.stderr
