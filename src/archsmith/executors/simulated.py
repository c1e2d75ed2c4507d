"""Workers on a simulated clock: a day's search on hundreds of them replays in seconds, where results are looked up.

A job is evaluated at once, in this process, and completes when its result's `cost.seconds` have passed on the clock. So
an asynchronous search meets its results in the order and at the times at which that many machines would have given them.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from archsmith.core.checks import python_scalar, whole_number
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import is_pure
from archsmith.core.executor import Clock, Completed, Event, Job, Progress, Started
from archsmith.core.global_state import process_kept
from archsmith.core.trial import Cost, Failure, Result, TrialState
from archsmith.executors.faults import Attempt, Faults, attempts
from archsmith.executors.run_job import JobContext, run_job

MOST_IN_NO_TIME = 100_000
"""Jobs in a row that take no time before it is said that the clock stands still."""


class Simulated:
    """Runs jobs side by side on a clock of its own, which moves from one event to the next.

    What a job takes is its result's cost in seconds; those that end at the same time complete in the order submitted. The
    epochs that a child reports are spread evenly over that time, so a rule that stops children hears of them when they
    would have ended; a child that is put aside takes what its result says it took until then. The run's times and its
    budget in seconds are of this clock. A child's limit in seconds holds on both clocks.

    A job that was interrupted with the process, and is submitted again when the run goes on, began when it was proposed: no
    machine of the simulation was killed, and what it reported until then was `heard`. Those that are killed are a matter of
    `faults`.

    Args:
        workers: how many jobs run at once.
        seconds: what a child takes whose result has no cost in seconds; a piece of one its share of the evaluator's
            epochs. None: such a result is refused, and a child that fails without one takes no time.
        device: for evaluators that train: "auto" or a torch device.
        faults: crashes, stragglers and spot instances that are taken away; None: nothing ever fails.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        seconds: float | None = None,
        device: str = "auto",
        faults: Faults | None = None,
    ) -> None:
        workers, seconds = whole_number(workers, "workers", 1), python_scalar(seconds)
        if seconds is not None and (
            isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf")
        ):
            raise UsageError(f"seconds must be a finite number above 0, or None, got {seconds!r}")
        if not isinstance(faults, Faults | None):
            raise UsageError(f"faults must be a Faults(...), or None, got {faults!r}")
        self.clock = Clock()
        self.seconds = seconds
        self.device = device
        self.faults = faults
        self._workers = workers
        self._idle = [float("-inf")] * workers  # since when each idle worker has been; a heap
        self._queue: dict[int, Job] = {}  # submitted and not begun, in that order
        self._begun: deque[_Running] = deque()  # told as started, and not evaluated
        self._running: dict[int, _Running] = {}  # by trial
        self._next: list[
            tuple[float, int, int]
        ] = []  # of each job the next event: when, in which order begun, which trial
        self._events: list[Event] = []
        self._order = 0
        self._in_no_time = 0
        self._since: float | None = None  # when this session of the run began
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
        if self._since is None:
            self._since = self.clock.seconds

    def cancel(self, trial: int) -> None:
        """End a job now, by the clock: what it would have come to is never known, unless it ends at this very moment."""
        if self._queue.pop(trial, None) is not None:
            self._events.append(Completed(trial, TrialState.STOPPED, Result()))
        elif (running := self._running.get(trial)) is not None:
            ended = running.done if running.ends <= self.clock.seconds else None
            self._events.append(self._let_go(running, ended or running.stopped(self.clock.seconds)))

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        """What happened, in order; moves the clock to the next event, `timeout` seconds at most.

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
        for held in (self._queue, self._begun, self._running, self._next, self._events):
            held.clear()

    def _begin(self) -> None:
        """Give idle workers the first jobs of the queue."""
        while self._queue and self._idle:
            trial = next(iter(self._queue))
            job, idle_since = self._queue.pop(trial), heapq.heappop(self._idle)
            now = self.clock.seconds
            # One that was put aside goes on now; when it was proposed is long ago.
            proposed_at = now if job.proposed_at is None or job.resume is not None else job.proposed_at
            running = _Running(job, max(idle_since, min(now, proposed_at)), self._order)
            self._order += 1
            self._running[trial] = running
            self._begun.append(running)
            self._events.append(Started(trial))

    def _evaluate(self, running: _Running) -> None:
        """Find out what a job that began will come to, and when."""
        job = running.job
        if self._running.get(job.trial) is not running:  # cancelled since
            return
        reported: list[Progress] = []

        def tell(progress: Progress) -> bool:
            reported.append(progress)
            return True

        context = _Context(job, device=self.device, threads=None, tell=tell)
        try:
            with nullcontext() if is_pure(job.evaluator) else process_kept():
                done = run_job(job, context, interruptible=True)
        except BaseException:
            self._begun.appendleft(running)
            raise
        cost = self._cost(done, job)
        limit = math.inf if job.limits.seconds is None or done.state is TrialState.FAILED else job.limits.seconds
        epochs_done = len(job.resume.curve) if job.resume is not None else 0
        running.attempts = list(attempts(self.faults, job.trial, cost.seconds, limit, epochs_done))
        running.reported = reported
        running.cost = cost
        running.done = running.outcome(done)
        running.ends = running.began + running.attempts[-1].free
        running.events = running.timed()
        self._expect(running)

    def _cost(self, done: Completed, job: Job) -> Cost:
        """What it takes on a machine that does not fail, in seconds that a clock can show."""
        cost = done.result.cost  # a finite number of at least 0, or `run_job` had made it a failure
        if cost.seconds == 0 and self.seconds is not None:
            return replace(cost, seconds=self.seconds * _share(cost.epochs, job))
        if cost.seconds == 0 and done.state is not TrialState.FAILED:
            raise UsageError(
                f"the result of trial {job.trial} has no cost in seconds, so a simulated clock cannot tell when it would "
                "have come: name the table's column of times, Tabular(..., seconds='...'), or give all the same, "
                "Simulated(..., seconds=...)"
            )
        return cost

    def _expect(self, running: _Running) -> None:
        """Put the next event of a job where the clock will come to it."""
        if (coming := next(running.events, None)) is not None:
            at, running.coming = coming
            heapq.heappush(self._next, (at, running.order, running.job.trial))

    def _move(self, until: float) -> None:
        """To the next event, or to `until` where none comes before."""
        while self._next:
            at, order, trial = self._next[0]
            running = self._running.get(trial)
            if running is None or running.order != order:  # cancelled since
                heapq.heappop(self._next)
                continue
            if at > until:
                self.clock.seconds = until
                return
            heapq.heappop(self._next)
            event = running.coming
            assert event is not None
            if isinstance(event, Completed):
                self._in_no_time = 0 if at > self.clock.seconds else self._in_no_time + 1
                if self._in_no_time > MOST_IN_NO_TIME:
                    raise UsageError(
                        f"{MOST_IN_NO_TIME:,} trials in a row took no time on the simulated clock: no budget in seconds will "
                        "ever end; look at why they fail, or give Simulated(..., seconds=...)"
                    )
            self.clock.seconds = max(self.clock.seconds, at)
            if isinstance(event, Completed):
                self._events.append(self._let_go(running, event))
            else:
                if isinstance(event, Progress) and self._since is not None and at < self._since:
                    event = replace(event, heard=True)
                self._events.append(event)
                self._expect(running)
            return

    def _let_go(self, running: _Running, done: Completed) -> Completed:
        del self._running[running.job.trial]
        heapq.heappush(self._idle, min(running.ends, self.clock.seconds))
        return done


@dataclass
class _Running:
    """A job that has a worker: when it began, and, once it was evaluated, what comes of it and when."""

    job: Job
    began: float
    order: int
    cost: Cost = Cost()  # on a machine that does not fail
    attempts: list[Attempt] = field(default_factory=list)
    reported: list[Progress] = field(default_factory=list)  # its epochs, one after the other
    done: Completed | None = None
    ends: float = float("inf")
    events: Iterator[tuple[float, Event]] = iter(())
    coming: Event | None = None

    def outcome(self, done: Completed) -> Completed:
        """What comes of it in the end, on machines that fail, and under its limit."""
        trial, last, cost = self.job.trial, self.attempts[-1], self.cost
        if last.lost:
            times = f", {len(self.attempts)} times" if len(self.attempts) > 1 else ""
            failure = Failure("worker", f"the machine that trained the child was lost{times}")
            return Completed(trial, TrialState.FAILED, Result(cost=Cost(lost_seconds=last.free), failure=failure))
        if last.took < last.whole:
            failure = Failure("seconds", f"the child took longer than its limit of {last.took:g} seconds")
            cut = Cost(last.took, cost.epochs * last.took / last.whole, last.begins)
            return Completed(trial, TrialState.FAILED, Result(cost=cut, failure=failure))
        return replace(done, result=replace(done.result, cost=Cost(last.whole, cost.epochs, last.begins)))

    def timed(self) -> Iterator[tuple[float, Event]]:
        """All that is heard of it after it began, each at its time."""
        assert self.done is not None
        for number, attempt in enumerate(self.attempts, 1):
            if number > 1:
                yield self.began + attempt.begins, Started(self.job.trial, number)
            yield from self._epochs(attempt)
        yield self.ends, self.done

    def stopped(self, now: float) -> Completed:
        """Ended by `now`: it took as long as it ran, and its share of the epochs; what it reported until then is kept."""
        took = max(0.0, now - self.began)
        begun = [attempt for attempt in self.attempts if attempt.begins <= took]
        if not begun:
            return Completed(self.job.trial, TrialState.STOPPED, Result(cost=Cost(took)))
        attempt = begun[-1]
        if attempt.lost and took >= attempt.begins + attempt.took:  # it waits for another worker
            return Completed(self.job.trial, TrialState.STOPPED, Result(cost=Cost(lost_seconds=took)))
        ran = took - attempt.begins
        share = min(1.0, ran / attempt.whole) if attempt.whole > 0 else 0.0
        curve = tuple({"epoch": p.epoch, **p.metrics} for at, p in self._epochs(attempt) if at <= now)
        cost = Cost(ran, share * self.cost.epochs, attempt.begins)
        return Completed(self.job.trial, TrialState.STOPPED, Result(curve=curve, cost=cost))

    def _epochs(self, attempt: Attempt) -> Iterator[tuple[float, Progress]]:
        """The epochs that end in an attempt, each at its time."""
        for k, progress in enumerate(self.reported, 1):
            ends = attempt.whole * (k / len(self.reported))
            if ends > attempt.took:
                return
            yield self.began + (attempt.begins + ends), progress


def _share(epochs: float, job: Job) -> float:
    """What part of a whole training a piece of so many epochs is; 1 of one that is not cut in pieces."""
    whole = getattr(job.evaluator, "epochs", None)
    if (job.until is None and job.resume is None) or not isinstance(whole, int | float) or not 0 < epochs < whole:
        return 1.0
    return epochs / whole


class _Context(JobContext):
    """The time that looking up takes is no cost: one that fails without a cost of its own has none, and none is over its
    limit, which is one of the clock's seconds."""

    @property
    def cost(self) -> Cost:
        return Cost(0.0, super().cost.epochs)

    def check_end(self) -> None:
        """Nothing: limits are looked at by the clock."""
