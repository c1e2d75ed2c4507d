"""Workers on a simulated clock: a day's search on hundreds of them replays in seconds, where results are looked up.

A job is evaluated at once, in this process, and completes when its result's `cost.seconds` have passed on the clock. So
an asynchronous search meets its results in the order and at the times at which that many machines would have given them.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from archsmith.core.errors import UsageError
from archsmith.core.executor import Clock, Completed, Event, Job, Progress, Started
from archsmith.core.trial import Cost, Failure, Result, TrialState
from archsmith.executors.run_job import JobContext, run_job

MOST_IN_NO_TIME = 100_000
"""Jobs in a row that take no time before it is said that the clock stands still."""


class Simulated:
    """Runs jobs side by side on a clock of its own, which moves from one completion to the next.

    What a job takes is its result's cost in seconds; those that end at the same time complete in the order submitted. The
    run's times and its budget in seconds are of this clock. A job that was interrupted with the process, and is
    submitted again when the run goes on, began when it was proposed: no machine of the simulation was killed. A child's
    limit in seconds holds on both clocks.

    Args:
        workers: how many jobs run at once.
        seconds: what a child takes whose result has no cost in seconds. None: such a result is refused, and a child that
            fails without one takes no time.
        device: for evaluators that train: "auto" or a torch device.
        on_progress: called with each epoch as the child reports it, in the middle of `completed`, when the child begins
            on the clock; it may call `cancel`. What it raises ends the child and leaves `completed`.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        seconds: float | None = None,
        device: str = "auto",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise UsageError(f"workers must be a whole number of at least 1, got {workers!r}")
        if seconds is not None and (
            isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf")
        ):
            raise UsageError(f"seconds must be a finite number above 0, or None, got {seconds!r}")
        self.clock = Clock()
        self.seconds = seconds
        self.device = device
        self.on_progress = on_progress
        self._workers = workers
        self._idle = [float("-inf")] * workers  # since when each idle worker has been; a heap
        self._queue: dict[int, Job] = {}  # submitted and not begun, in that order
        self._begun: deque[_Running] = deque()  # told as started, and not evaluated
        self._running: dict[int, _Running] = {}  # by trial
        self._ends: list[tuple[float, int, int]] = []  # when, in which order begun, which trial; a heap
        self._events: list[Event] = []
        self._order = 0
        self._in_no_time = 0
        self._callback_error: Exception | None = None
        self._evaluated: int | None = None  # the trial that is being evaluated
        self._closed = False

    @property
    def slots(self) -> int:
        """The workers."""
        return self._workers

    def submit(self, job: Job) -> None:
        """Queue a job. Raises UsageError for a trial that was submitted and has not completed, or after `close`."""
        if self._closed:
            raise UsageError("this executor is closed; make a new one")
        if job.trial in self._queue or job.trial in self._running:
            raise UsageError(f"trial {job.trial} was submitted and is not finished; a trial runs once")
        self._queue[job.trial] = job

    def cancel(self, trial: int) -> None:
        """End a job now, by the clock: what it would have come to is never known, unless it ends at this very moment."""
        if self._queue.pop(trial, None) is not None:
            self._events.append(Completed(trial, TrialState.STOPPED, Result()))
        elif trial == self._evaluated:
            self._running[trial].cancelled = True  # its evaluator hears of it when it reports
        elif (running := self._running.get(trial)) is not None:
            ended = running.done if running.ends <= self.clock.seconds else None
            self._events.append(self._let_go(running, ended or running.stopped(self.clock.seconds)))

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        """What happened, in order; moves the clock to the next completion, `timeout` seconds at most.

        Raises UsageError for a result without a cost in seconds, unless there is a default.
        """
        self._begin()
        if not self._events:
            until = float("inf") if timeout is None else self.clock.seconds + timeout
            while self._begun:
                self._evaluate(self._begun.popleft())
            self._move(until)
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Forget everything. The clock stands where it stood."""
        self._closed = True
        for held in (self._queue, self._begun, self._running, self._ends, self._events):
            held.clear()

    def _begin(self) -> None:
        """Give idle workers the first jobs of the queue."""
        while self._queue and self._idle:
            trial = next(iter(self._queue))
            job, idle_since = self._queue.pop(trial), heapq.heappop(self._idle)
            now = self.clock.seconds
            began = max(idle_since, min(now, now if job.proposed_at is None else job.proposed_at))
            running = _Running(job, began, self._order)
            self._order += 1
            self._running[trial] = running
            self._begun.append(running)
            self._events.append(Started(trial))

    def _evaluate(self, running: _Running) -> None:
        """Find out what a job that began will come to, and when."""
        job = running.job
        if job.trial not in self._running:  # cancelled since
            return
        context = _Context(job, device=self.device, threads=None, tell=self._tell)
        self._evaluated = job.trial
        try:
            done = run_job(job, context, interruptible=True)
        except BaseException:
            self._begun.appendleft(running)
            raise
        finally:
            self._evaluated = None
        if job.trial not in self._running:  # the callback closed this executor
            return
        running.done = done = self._timed(done, job)
        running.ends = running.began + done.result.cost.seconds
        heapq.heappush(self._ends, (running.ends, running.order, job.trial))
        if self._callback_error is not None:
            error, self._callback_error = self._callback_error, None
            raise error

    def _timed(self, done: Completed, job: Job) -> Completed:
        """With what it takes in seconds, cut off at the child's limit."""
        cost, failed = done.result.cost, done.state is not TrialState.DONE
        if not 0 <= cost.seconds < float("inf"):
            raise UsageError(
                f"trial {job.trial} took {cost.seconds!r} seconds, and a simulated clock needs a finite number of at least 0"
            )
        if cost.seconds == 0 and self.seconds is not None:
            cost = replace(cost, seconds=float(self.seconds))
        if cost.seconds == 0 and not failed:
            raise UsageError(
                f"the result of trial {job.trial} has no cost in seconds, so a simulated clock cannot tell when it would "
                "have come: name the table's column of times, Tabular(..., seconds='...'), or give all the same, "
                "Simulated(..., seconds=...)"
            )
        limit = job.limits.seconds
        if limit is not None and cost.seconds > limit and not failed:
            told = Failure("seconds", f"the child took longer than its limit of {limit:g} seconds")
            result = Result(cost=Cost(limit, cost.epochs * limit / cost.seconds), failure=told)
            return Completed(job.trial, TrialState.FAILED, result)
        return replace(done, result=replace(done.result, cost=cost))

    def _move(self, until: float) -> None:
        """To the next completion, or to `until` where none comes before."""
        while self._ends:
            ends, order, trial = self._ends[0]
            running = self._running.get(trial)
            if running is None or running.order != order:  # cancelled since
                heapq.heappop(self._ends)
                continue
            if ends > until:
                self.clock.seconds = until
                return
            heapq.heappop(self._ends)
            self._in_no_time = 0 if ends > self.clock.seconds else self._in_no_time + 1
            if self._in_no_time > MOST_IN_NO_TIME:
                raise UsageError(
                    f"{MOST_IN_NO_TIME:,} trials in a row took no time on the simulated clock: no budget in seconds will "
                    "ever end; look at why they fail, or give Simulated(..., seconds=...)"
                )
            self.clock.seconds = max(self.clock.seconds, ends)
            assert running.done is not None
            self._events.append(self._let_go(running, running.done))
            return

    def _let_go(self, running: _Running, done: Completed) -> Completed:
        del self._running[running.job.trial]
        heapq.heappush(self._idle, min(running.ends, self.clock.seconds))
        return done

    def _tell(self, progress: Progress) -> bool:
        running = self._running.get(progress.trial)
        if running is None:
            return False
        if self.on_progress is None:
            self._events.append(progress)
        elif self._callback_error is None:
            try:
                self.on_progress(progress)
            except Exception as error:  # the loop's own trouble, not the child's
                self._callback_error = error
                running.cancelled = True
        return not running.cancelled


@dataclass
class _Running:
    """A job that has a worker: when it began, and, once it was evaluated, what comes of it and when."""

    job: Job
    began: float
    order: int
    done: Completed | None = None
    ends: float = float("inf")
    cancelled: bool = False

    def stopped(self, now: float) -> Completed:
        """Ended by `now`: it took as long as it ran, and its share of the epochs."""
        took, cost = max(0.0, now - self.began), self.done.result.cost if self.done is not None else Cost()
        share = min(1.0, took / cost.seconds) if cost.seconds > 0 else 0.0
        return Completed(self.job.trial, TrialState.STOPPED, Result(cost=Cost(took, share * cost.epochs)))


class _Context(JobContext):
    """The time that looking up takes is no cost: one that fails without a cost of its own has none."""

    @property
    def cost(self) -> Cost:
        return Cost(0.0, super().cost.epochs)
