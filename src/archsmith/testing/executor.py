"""The contract of executors: inherit `ExecutorContract`, return yours from `executor()`, and run pytest.

class TestMine(ExecutorContract):
    def executor(self):
        return MyExecutor(...)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from archsmith.core.errors import Diverged, IllegalGenotype, LimitExceeded
from archsmith.core.evaluator import Context, Limits
from archsmith.core.executor import Completed, Event, Executor, Job, Progress, Started, TrainsInCompleted
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, as_space, decode, sample
from archsmith.core.trial import Cost, Result, TrialState, joined

_SPACE = as_space(lambda choose: choose("x", (1, 2, 3)))


class ExecutorContract:
    """What every executor promises. Children are small functions, sent by value; none needs torch but one's tensors.

    Override `executor`. Raise `patience` for an executor that takes long to start.
    """

    patience: float = 60.0
    """Seconds after which a job that has not completed counts as lost."""

    steps: int = 300
    """Of a child that waits to be told to stop, 10 ms each: what it lasts if nobody does. 20 will do for an executor that
    trains children to their end before their time has come."""

    def executor(self) -> Executor:
        """A new executor; the suite closes it."""
        raise NotImplementedError("override executor() to return a new executor")

    # --- jobs and results ---------------------------------------------------------------------------------------------

    def test_more_jobs_than_slots_complete_once_each(self) -> None:
        with self._opened() as executor:
            assert executor.slots >= 1
            events = self._run(executor, [_job(n, lambda _: {"n": 1}) for n in range(2 * executor.slots + 3)])
            again = self._run(executor, [_job(100, lambda _: {"n": 1})])
        completed = [event.trial for event in events if isinstance(event, Completed)]
        assert sorted(completed) == list(range(len(completed))), "each job completes exactly once"
        assert [event.trial for event in again] == [100, 100], "an executor takes new jobs after the first are done"

    def test_events_come_in_order(self) -> None:
        with self._opened() as executor:
            events = self._run(executor, [_job(n, _three_epochs()) for n in range(3)])
        for n in range(3):
            kinds = [type(event) for event in events if event.trial == n]
            assert kinds == [Started, Progress, Progress, Progress, Completed], f"trial {n}: {kinds}"

    def test_progress_arrives_with_its_metrics(self) -> None:
        with self._opened() as executor:
            events = self._run(executor, [_job(5, _three_epochs())])
        progress = [event for event in events if isinstance(event, Progress)]
        assert progress == [Progress(5, epoch, {"accuracy": epoch / 4}) for epoch in (1, 2, 3)]

    def test_the_result_and_its_reward_arrive(self) -> None:
        result = Result({"accuracy": 0.5}, [{"epoch": 1, "accuracy": 0.5}], Cost(seconds=2.0, epochs=1.0))
        with self._opened() as executor:
            done = self._complete(executor, _job(0, lambda _: result, reward=lambda r: r.metrics["accuracy"] ** 3))
        assert done == Completed(0, TrialState.DONE, result, 0.125)

    def test_a_large_result_survives(self) -> None:
        curve = [{"epoch": n, **{f"metric{m}": n / (m + 1) for m in range(10)}} for n in range(5000)]
        with self._opened() as executor:
            done = self._complete(executor, _job(0, lambda _: Result({"n": 1.0}, curve)))
        assert list(done.result.curve) == curve

    def test_the_child_gets_its_architecture_seed_and_limits(self) -> None:
        genotype = sample(_SPACE, random.Random(3))
        limits = Limits(seconds=50, parameters=70)

        def look(context: Context) -> dict[str, float]:
            return {
                "seed": context.seed % 1000,
                "threads": context.threads,
                "seconds": context.limits.seconds or 0,
                "parameters": context.limits.parameters or 0,
            }

        with self._opened() as executor:
            jobs = [_job(n, look, seed=600 + n, genotype=genotype, limits=limits) for n in range(3)]
            events = self._run(executor, jobs)
        for event in events:
            if isinstance(event, Completed):
                seen = event.result.metrics
                assert seen["seed"] == 600 + event.trial
                assert (seen["seconds"], seen["parameters"]) == (50, 70)
                assert seen["threads"] >= 1
                assert seen["x"] == decode(_SPACE, genotype)

    def test_equal_jobs_have_equal_results(self) -> None:
        def draw(_: Context) -> dict[str, float]:
            return {"drawn": random.random()}

        with self._opened() as executor:
            events = self._run(executor, [_job(n, draw, seed=11) for n in range(4)])
        drawn = {event.result.metrics["drawn"] for event in events if isinstance(event, Completed)}
        assert len(drawn) == 1, "the global generator of random is seeded with the job's seed"

    def test_tensors_are_kept_and_read(self, tmp_path: Path) -> None:
        def keep(context: Context) -> Result:
            import numpy

            return Result({"n": 1.0}, artifact=context.checkpoint({"weights": numpy.arange(3, dtype="float32")}))

        def read(context: Context) -> dict[str, float]:
            kept = context.artifact(0)
            assert kept is not None
            return {"sum": float(kept["weights"].sum()), "unknown": float(context.artifact(7) is None)}

        with self._opened() as executor:
            first = self._complete(executor, _job(0, keep, artifacts=str(tmp_path)))
            assert first.result.artifact, first.result.failure
            earlier = {0: first.result.artifact}
            second = self._complete(executor, _job(1, read, artifacts=str(tmp_path), earlier=earlier))
            nowhere = self._complete(executor, _job(2, keep))
        assert second.result.metrics == {"sum": 3.0, "unknown": 1.0, "x": second.result.metrics["x"]}
        assert nowhere.state is TrialState.FAILED, "a child that cannot keep what it would has failed"

    def test_a_job_is_put_aside_and_goes_on(self, tmp_path: Path) -> None:
        def train(context: Context) -> Result:
            import numpy

            kept = context.resume
            total = 0.0 if kept is None else float(kept["total"][0])
            curve: list[dict[str, float]] = []
            for epoch in range(context.epochs_done + 1, 5):
                total += epoch
                curve.append({"epoch": epoch, "total": total})
                if not context.report(epoch, {"total": total}):
                    if context.paused:
                        context.pause({"total": numpy.array([total])})
                    break
            return Result({"total": total}, curve, Cost(float(len(curve)), float(len(curve))))

        job = _job(0, train, artifacts=str(tmp_path), reward=lambda result: float(len(result.curve)))
        with self._opened() as executor:
            whole = self._complete(executor, job)
            first = self._complete(executor, replace(job, until=2))
            rest = self._complete(executor, replace(job, resume=first.result))
            nowhere = self._complete(executor, replace(job, until=2, artifacts=None))
        assert (first.state, first.reward, len(first.result.curve)) == (TrialState.PAUSED, None, 2)
        assert first.result.checkpoint is not None, "what it kept by context.pause() is not in its result"
        assert (rest.state, len(rest.result.curve)) == (TrialState.DONE, 2), "it did not go on where it was put aside"
        assert joined(first.result, rest.result) == whole.result
        assert rest.reward == whole.reward == 4.0, "the reward is made of the whole training"
        assert (nowhere.state, nowhere.result.checkpoint) == (TrialState.PAUSED, None), "it will begin anew"

    # --- children that fail -------------------------------------------------------------------------------------------

    def test_failures_are_results(self) -> None:
        nan = float("nan")
        failing: dict[str, tuple[str, Callable[[Context], Any], Callable[[Result], Any] | None]] = {
            "an exception": ("error", _raising(ValueError("no such layer")), None),
            "sys.exit": ("error", _raising(SystemExit(3)), None),
            "divergence": ("diverged", _raising(Diverged("the loss is NaN")), None),
            "too many parameters": ("parameters", _raising(LimitExceeded("too many", reason="parameters")), None),
            "no memory": ("memory", _raising(MemoryError()), None),
            "an illegal genotype": ("genotype", _raising(IllegalGenotype("choice 'x' must be ...")), None),
            "no Result": ("error", lambda _: 3, None),
            "a name without end": ("error", lambda _: {"n" * 100_000: 1}, None),
            "a reward that raises": ("reward", lambda _: {"n": 1}, _raising(KeyError("accuracy"))),
            "a reward that is NaN": ("reward", lambda _: {"n": 1}, lambda _: nan),
            "a reward that is text": ("reward", lambda _: {"n": 1}, lambda _: "0.5"),
        }
        jobs = [_job(n, child, reward=reward) for n, (_, child, reward) in enumerate(failing.values())]
        with self._opened() as executor:
            events = self._run(executor, [*jobs, _job(len(jobs), lambda _: {"n": 1})])
        completed = {event.trial: event for event in events if isinstance(event, Completed)}
        assert completed.pop(len(jobs)).state is TrialState.DONE, "the next child is none the worse"
        for (what, (reason, _, _)), (_, event) in zip(failing.items(), sorted(completed.items()), strict=True):
            assert event.state is TrialState.FAILED, what
            assert event.reward is None, what
            failure = event.result.failure
            assert failure is not None, what
            assert failure.reason == reason, f"{what}: {failure}"
            assert failure.message, what
            assert "Traceback" in failure.traceback, what

    def test_what_a_failed_child_reported_is_kept(self) -> None:
        def fail(context: Context) -> Any:
            context.report(1, {"accuracy": 0.25})
            raise Diverged("the loss is NaN")

        with self._opened() as executor:
            done = self._complete(executor, _job(0, fail))
        assert list(done.result.curve) == [{"epoch": 1, "accuracy": 0.25}]
        assert done.result.cost.epochs == 1

    def test_seconds_are_enforced_on_children_that_check(self) -> None:
        steps = self.steps

        def check(context: Context) -> dict[str, float]:
            for _ in range(steps):
                time.sleep(0.01)
                context.check()
            return {"n": 1}

        def report(context: Context) -> dict[str, float]:
            for epoch in range(1, steps):
                time.sleep(0.01)
                context.report(epoch, {})
            return {"n": 1}

        with self._opened() as executor:
            jobs = [_job(n, child, limits=Limits(seconds=0.1)) for n, child in enumerate((check, report))]
            events = self._run(executor, jobs)
        for event in events:
            if isinstance(event, Completed):
                assert event.state is TrialState.FAILED
                assert event.result.failure is not None
                assert event.result.failure.reason == "seconds"

    def test_a_child_over_its_seconds_has_failed_though_it_never_checks(self) -> None:
        def sleep(_: Context) -> Result:
            time.sleep(0.1)
            return Result({"n": 1.0}, cost=Cost(seconds=0.1))

        with self._opened() as executor:
            done = self._complete(executor, _job(0, sleep, limits=Limits(seconds=0.02)))
        assert done.state is TrialState.FAILED, "a child that took longer than it may is no result"
        assert done.result.failure is not None
        assert done.result.failure.reason == "seconds"

    def test_nothing_that_a_child_does_to_its_process_is_left_for_the_next(self) -> None:
        def look(_: Context) -> dict[str, float]:
            import gc
            import os
            import sys
            import warnings

            return {
                "folder": hash(os.getcwd()) % 1e9,
                "variables": len(os.environ),
                "spoiled": float("ARCHSMITH_SPOILED" in os.environ),
                "paths": len(sys.path),
                "recursion": sys.getrecursionlimit(),
                "collects": float(gc.isenabled()),
                "filters": len(warnings.filters),
                "stdout": float(sys.stdout is None),
                "drawn": random.random(),
            }

        def spoil(context: Context) -> dict[str, float]:
            import gc
            import os
            import sys
            import tempfile
            import warnings

            before = look(context)
            os.chdir(tempfile.gettempdir())
            os.environ["ARCHSMITH_SPOILED"] = "yes"
            sys.path.insert(0, "nowhere")
            sys.setrecursionlimit(sys.getrecursionlimit() + 1000)
            gc.disable()
            warnings.simplefilter("error")
            random.seed(0)
            sys.stdout = None
            return before

        with self._opened() as executor:
            first, second = (self._complete(executor, _job(n, child, seed=5)) for n, child in enumerate((spoil, look)))
        assert first.state is TrialState.DONE, first.result.failure
        assert _without_x(second) == _without_x(first), "what an earlier child did decides what a later one finds"

    # --- ending jobs --------------------------------------------------------------------------------------------------

    def test_a_cancelled_job_stops(self) -> None:
        with self._opened() as executor:

            def cancel(event: Event) -> None:
                if isinstance(event, Progress):
                    executor.cancel(event.trial)

            events = self._run(executor, [_job(0, _waiting_to_stop(self.steps))], cancel)
        done = events[-1]
        assert isinstance(done, Completed)
        assert done.state is TrialState.STOPPED
        assert done.reward is None
        assert done.result.failure is None
        assert len(done.result.curve) >= 1, "the epochs that it reported are kept"

    def test_a_queued_job_can_be_cancelled(self) -> None:
        with self._opened() as executor:
            jobs = [_job(n, _waiting_to_stop(self.steps)) for n in range(executor.slots + 2)]

            def cancel(event: Event) -> None:
                if isinstance(event, Progress):
                    executor.cancel(event.trial)

            # The last waits for a slot; it is cancelled before the first event is read.
            events = self._run(executor, jobs, cancel, at_once=lambda: executor.cancel(len(jobs) - 1))
        completed = {event.trial: event.state for event in events if isinstance(event, Completed)}
        assert completed == dict.fromkeys(range(len(jobs)), TrialState.STOPPED)
        assert Started(len(jobs) - 1) not in events, "a job that was cancelled in the queue never begins"

    def test_cancelling_what_is_not_there_is_ignored(self) -> None:
        with self._opened() as executor:
            executor.cancel(12)
            done = self._complete(executor, _job(0, lambda _: {"n": 1}))
            executor.cancel(0)
            assert not executor.completed(0.0), "a finished trial completes no second time"
        assert done.state is TrialState.DONE

    def test_with_nothing_to_do_it_gives_nothing(self) -> None:
        with self._opened() as executor:
            assert not executor.completed(), "without a timeout too: there is nothing to wait for"
            self._complete(executor, _job(0, lambda _: {"n": 1}))
            assert not executor.completed(0.0)

    def test_close_ends_everything_and_may_be_called_twice(self) -> None:
        executor = self.executor()
        for n in range(executor.slots + 1):
            executor.submit(_job(n, _waiting_to_stop(self.steps)))
        executor.completed(0.0)
        executor.close()
        executor.close()

    # --- how the suite runs jobs --------------------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[Executor]:
        executor = self.executor()
        with closing(executor):
            yield executor

    def _complete(self, executor: Executor, job: Job) -> Completed:
        done = self._run(executor, [job])[-1]
        assert isinstance(done, Completed)
        return done

    def _run(
        self,
        executor: Executor,
        jobs: Sequence[Job],
        watch: Callable[[Event], None] = lambda _: None,
        at_once: Callable[[], None] = lambda: None,
    ) -> list[Event]:
        """Submit all jobs, then read events until each has completed; every event is shown to `watch`."""
        events: list[Event] = []

        def take(event: Event) -> None:
            events.append(event)
            watch(event)

        if isinstance(executor, TrainsInCompleted):
            executor.on_progress = take
        for job in jobs:
            executor.submit(job)
        at_once()
        waiting = {job.trial for job in jobs}
        deadline = time.monotonic() + self.patience
        while waiting:
            for event in executor.completed(timeout=0.2):
                take(event)
                if isinstance(event, Completed):
                    assert event.trial in waiting, f"trial {event.trial} completed, and was not running"
                    waiting.remove(event.trial)
            assert not waiting or time.monotonic() < deadline, (
                f"trials {sorted(waiting)} have not completed after {self.patience:g} seconds"
            )
        return events


def _job(
    trial: int,
    child: Callable[[Context], Any],
    *,
    reward: Callable[[Result], Any] | None = None,
    seed: int = 0,
    genotype: Genotype | None = None,
    limits: Limits | None = None,
    artifacts: str | None = None,
    earlier: dict[int, str] | None = None,
) -> Job:
    # The class stands in here so that it is sent by value: a worker then need not import this module.
    class Calls:
        def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Any:
            value = child(context)
            if not isinstance(value, dict):
                return value
            return Result({**value, "x": float(decode(space, genotype))})

    return Job(
        trial=trial,
        space=_SPACE,
        genotype=genotype or sample(_SPACE, random.Random(trial)),
        evaluator=Calls(),
        reward=reward or (lambda result: 1.0),
        seed=seed,
        limits=limits or Limits(),
        artifacts=artifacts,
        earlier=earlier or {},
    )


def _without_x(done: Completed) -> dict[str, float]:
    """The metrics that the child itself gave."""
    return {name: value for name, value in done.result.metrics.items() if name != "x"}


def _three_epochs() -> Callable[[Context], dict[str, float]]:
    def child(context: Context) -> dict[str, float]:
        for epoch in (1, 2, 3):
            assert context.report(epoch, {"accuracy": epoch / 4})
        return {"n": 1}

    return child


def _waiting_to_stop(steps: int) -> Callable[[Context], Result]:

    def child(context: Context) -> Result:
        curve = []
        for epoch in range(1, steps):
            time.sleep(0.01)
            curve.append({"epoch": epoch, "loss": 1.0})
            if not context.report(epoch, {"loss": 1.0}):
                break
        return Result({"n": 1.0}, curve)

    return child


def _raising(error: BaseException) -> Callable[[Any], Any]:
    def child(_: Any) -> Any:
        raise error

    return child
