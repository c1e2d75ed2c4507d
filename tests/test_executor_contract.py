"""Our executors keep the contract, and the contract fails on executors that break it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from archsmith.core.evaluator import Limits
from archsmith.core.executor import Completed, Executor, Progress, Started
from archsmith.core.trial import Result, TrialState
from archsmith.executors import InProcess, ProcessPool
from archsmith.testing import ExecutorContract


class TestInProcess(ExecutorContract):
    def executor(self) -> Executor:
        return InProcess(device="cpu")


class TestProcessPool(ExecutorContract):
    def executor(self) -> Executor:
        return ProcessPool(2, device="cpu", kill_grace=20)


class Wrapped:
    """An executor that works, for others to break."""

    def __init__(self) -> None:
        self.inner = InProcess(device="cpu")
        self.on_progress = None

    @property
    def slots(self):
        return self.inner.slots

    def submit(self, job):
        self.inner.submit(job)

    def cancel(self, trial):
        self.inner.cancel(trial)

    def completed(self, timeout=None):
        self.inner.on_progress = self.on_progress
        return self.inner.completed(timeout)

    def close(self):
        self.inner.close()


class LosesAJob(Wrapped):
    def completed(self, timeout=None):
        return [e for e in super().completed(timeout) if not (isinstance(e, Completed) and e.trial == 2)]


class CompletesTwice(Wrapped):
    def completed(self, timeout=None):
        return [e for event in super().completed(timeout) for e in [event] * (1 + isinstance(event, Completed))]


class SaysNothingOfStarts(Wrapped):
    def completed(self, timeout=None):
        events = super().completed(timeout)
        return [e for e in events if not isinstance(e, Started)] or (super().completed(timeout) if events else [])


class SwallowsProgress(Wrapped):
    def completed(self, timeout=None):
        self.inner.on_progress = lambda progress: None
        return self.inner.completed(timeout)


class RoundsProgress(Wrapped):
    def completed(self, timeout=None):
        def rounded(progress):
            self.on_progress(
                Progress(progress.trial, progress.epoch, {k: round(v) for k, v in progress.metrics.items()})
            )

        self.inner.on_progress = rounded
        return self.inner.completed(timeout)


class Changes(Wrapped):
    """Changes each job on its way in."""

    def submit(self, job):
        super().submit(self.changed(job))

    def changed(self, job):
        raise NotImplementedError


class ForgetsTheReward(Changes):
    def changed(self, job):
        return replace(job, reward=lambda result: 1.0)


class ShortensResults(Wrapped):
    def completed(self, timeout=None):
        return [
            replace(e, result=replace(e.result, curve=e.result.curve[:1000])) if isinstance(e, Completed) else e
            for e in super().completed(timeout)
        ]


class MixesUpSeeds(Changes):
    def changed(self, job):
        return replace(job, seed=0)


class SeedsByOrder(Changes):
    numbers = count()

    def changed(self, job):
        return replace(job, seed=next(self.numbers))


class KeepsNoTensors(Changes):
    def changed(self, job):
        return replace(job, artifacts=None)


class TrainsToTheEnd(Changes):
    def changed(self, job):
        return replace(job, until=None)


class BeginsAnew(Changes):
    def changed(self, job):
        return replace(job, resume=None)


class RaisesFailures(Wrapped):
    def completed(self, timeout=None):
        events = super().completed(timeout)
        for event in events:
            if isinstance(event, Completed) and event.result.failure:
                raise RuntimeError(event.result.failure.message)
        return events


class CallsFailuresDone(Wrapped):
    def completed(self, timeout=None):
        return [
            replace(e, state=TrialState.DONE, reward=0.0) if isinstance(e, Completed) else e
            for e in super().completed(timeout)
        ]


class ForgetsTheCurveOfFailures(Wrapped):
    def completed(self, timeout=None):
        return [
            replace(e, result=Result(failure=e.result.failure)) if isinstance(e, Completed) and e.result.failure else e
            for e in super().completed(timeout)
        ]


class HasNoLimits(Changes):
    def changed(self, job):
        return replace(job, limits=Limits())


class DoesNotCancel(Wrapped):
    def cancel(self, trial):
        pass


class CancelsOnlyWhatRuns(Wrapped):
    running = None

    def completed(self, timeout=None):
        events = super().completed(timeout)
        for event in events:
            self.running = event.trial if isinstance(event, Started) else None
        return events

    def cancel(self, trial):
        if trial == self.running:
            super().cancel(trial)


class RaisesOnUnknown(Wrapped):
    def cancel(self, trial):
        raise KeyError(trial)


class InventsEvents(Wrapped):
    def completed(self, timeout=None):
        return super().completed(timeout) or [Started(0)]


class LeavesWhatChildrenDid(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.limit = sys.getrecursionlimit()

    def completed(self, timeout=None):
        events = super().completed(timeout)
        if any(isinstance(event, Completed) for event in events):
            sys.setrecursionlimit(self.limit + 1000)
        return events

    def close(self):
        super().close()
        sys.setrecursionlimit(self.limit)


class ClosesOnce(Wrapped):
    closed = False

    def close(self):
        assert not self.closed
        self.closed = True


BROKEN: list[tuple[type[Wrapped], str]] = [
    (LosesAJob, "test_more_jobs_than_slots_complete_once_each"),
    (CompletesTwice, "test_more_jobs_than_slots_complete_once_each"),
    (SaysNothingOfStarts, "test_events_come_in_order"),
    (SwallowsProgress, "test_events_come_in_order"),
    (RoundsProgress, "test_progress_arrives_with_its_metrics"),
    (ForgetsTheReward, "test_the_result_and_its_reward_arrive"),
    (ShortensResults, "test_a_large_result_survives"),
    (MixesUpSeeds, "test_the_child_gets_its_architecture_seed_and_limits"),
    (HasNoLimits, "test_the_child_gets_its_architecture_seed_and_limits"),
    (SeedsByOrder, "test_equal_jobs_have_equal_results"),
    (KeepsNoTensors, "test_tensors_are_kept_and_read"),
    (KeepsNoTensors, "test_a_job_is_put_aside_and_goes_on"),
    (TrainsToTheEnd, "test_a_job_is_put_aside_and_goes_on"),
    (BeginsAnew, "test_a_job_is_put_aside_and_goes_on"),
    (RaisesFailures, "test_failures_are_results"),
    (CallsFailuresDone, "test_failures_are_results"),
    (ForgetsTheCurveOfFailures, "test_what_a_failed_child_reported_is_kept"),
    (HasNoLimits, "test_seconds_are_enforced_on_children_that_check"),
    (HasNoLimits, "test_a_child_over_its_seconds_has_failed_though_it_never_checks"),
    (LeavesWhatChildrenDid, "test_nothing_that_a_child_does_to_its_process_is_left_for_the_next"),
    (DoesNotCancel, "test_a_cancelled_job_stops"),
    (CancelsOnlyWhatRuns, "test_a_queued_job_can_be_cancelled"),
    (RaisesOnUnknown, "test_cancelling_what_is_not_there_is_ignored"),
    (InventsEvents, "test_with_nothing_to_do_it_gives_nothing"),
    (ClosesOnce, "test_close_ends_everything_and_may_be_called_twice"),
]


def checked(name: str, executor: Callable[[], Executor], patience: float, tmp_path: Path) -> None:
    suite = ExecutorContract()
    suite.executor = executor  # type: ignore[method-assign]
    suite.patience, suite.steps = patience, 20
    test = getattr(suite, name)
    test(**dict.fromkeys(inspect.signature(test).parameters, tmp_path))


@pytest.mark.parametrize(("broken", "name"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_the_contract_fails_on(broken: type[Wrapped], name: str, tmp_path: Path) -> None:
    checked(name, Wrapped, 5.0, tmp_path)  # it is the breaking that fails
    with pytest.raises((AssertionError, RuntimeError, KeyError)):
        checked(name, broken, 0.3, tmp_path)


def test_each_promise_is_proven_able_to_fail() -> None:
    promises = {name for name in dir(ExecutorContract) if name.startswith("test_")}
    assert promises == {name for _, name in BROKEN}
