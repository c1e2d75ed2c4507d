"""Jobs side by side in processes of this machine, each with its own threads: the fast way on CPU cores.

One process with one thread per core trains small children about twice as fast as one process with all the cores.
A child is isolated: it has its own process, limits are enforced from outside, and whatever it does or sends is a failed
trial at worst. See docs/decisions/0034-workers.md.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import psutil

from archsmith.core.checks import whole_number
from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.executor import Completed, Event, Job, Started
from archsmith.core.trial import Cost, Failure, Result, TrialState
from archsmith.executors.attempt import Attempt, Work, how_it_ended, with_printed
from archsmith.executors.messages import BadMessage
from archsmith.executors.run_job import memory_message
from archsmith.executors.sending import fields_of, pickled
from archsmith.executors.shared_data import SharedData
from archsmith.executors.worker import OWN, SHARED
from archsmith.executors.worker_process import Surroundings, WorkerProcess

START_ATTEMPTS = 3  # the most workers in a row that may end by themselves as they start
_TICK = 0.5  # seconds between two checks of a child's memory, and of whether it is stopped
_LAST_WORD = 10.0  # seconds for a child's process to end after it has sent its result or closed its channel
_KILLED = 5.0  # seconds for a killed child to end, before its worker is ended too
_STOPPED = 30.0  # seconds for a child that was stopped by a signal to continue


class ProcessPool:
    """Runs up to `workers` jobs at once, each in a process of its own.

    Workers are fresh interpreters, started when there is work for them: scripts need no `if __name__ == "__main__"`, and
    functions from notebooks, lambdas and closures work. A job's space, evaluator and reward are sent to a worker
    once, as they are at the first `submit`, with the evaluator's data, which are read once, in this process. The worker
    forks a process for each child. So all children start in the same state, and a result does not depend on which worker
    ran the child. Caches that an evaluator fills while it trains are lost with the child. The output of children is not
    shown on the terminal; the traceback of a failed child ends with the last lines.

    Limits apply to a child together with all processes that it starts, including daemons, and those are ended with it. (On
    macOS a process that clears its environment and leaves the child's process tree escapes both.)

    A child whose process dies (a segfault, a kill) begins again, up to `retries` times; after that it has failed with the
    reason "worker". A child that writes into the channel of its process, or leaves a message incomplete, fails with that
    reason at once. A child over its limits is not tried again.

    Use it from one thread. Needs Linux or macOS.

    Args:
        workers: how many processes; None: the machine's physical cores that this process may use. On a machine with
            GPUs say how many children are to share them.
        threads: of torch, OpenMP and BLAS in each worker.
        device: "auto" (the CUDA devices in turn where torch sees any, else the CPU) or a torch device.
        retries: how often a child begins again when its worker died under it.
        start_timeout: seconds for a new worker to come up.
        kill_grace: seconds that a cancelled child, or one over its time, has to end by itself before it is killed.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        threads: int = 1,
        device: str = "auto",
        retries: int = 1,
        start_timeout: float = 60.0,
        kill_grace: float = 5.0,
    ) -> None:
        if sys.platform == "win32":
            raise UsageError("ProcessPool needs Linux or macOS; on Windows use InProcess(), or run inside WSL")
        workers = physical_cores() if workers is None else workers
        for name, value, least in (("workers", workers, 1), ("threads", threads, 1), ("retries", retries, 0)):
            whole_number(value, name, least)
        for name, seconds in (("start_timeout", start_timeout), ("kill_grace", kill_grace)):
            if not seconds >= 0:
                raise UsageError(f"{name} must be a number of seconds of at least 0, got {seconds!r}")
        self._slots = int(workers)
        self.threads = int(threads)
        self.device = device
        self.retries = int(retries)
        self.start_timeout = start_timeout
        self.kill_grace = kill_grace
        self._workers: list[WorkerProcess] = []
        self._queue: deque[Work] = deque()
        self._events: list[Event] = []
        self._failed_starts = 0  # in a row
        self._failing_since = float("inf")
        self._imports: dict[str, None] = {}  # modules that children have imported, in order; workers import them too
        self._surroundings: Surroundings | None = None
        self._sent: tuple[Job, bytes] | None = None  # the last job whose shared fields were pickled, and those
        self._data = SharedData()
        self._end = weakref.finalize(self, _end_all, self._workers, os.getpid())

    @property
    def slots(self) -> int:
        """How many workers there may be."""
        return self._slots

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises UsageError for a trial that is queued or running already, for a job that cannot be sent to another
        process, and after `close`.
        """
        if not self._end.alive:
            raise UsageError("this pool is closed; make a new one")
        if any(work.job.trial == job.trial for work in self._unfinished()):
            raise UsageError(f"trial {job.trial} was submitted and is not finished; a trial runs once")
        self._queue.append(Work(job, self._shared(job), pickled(fields_of(job, OWN))))
        self._dispatch()

    def cancel(self, trial: int) -> None:
        """End a job: a queued one never begins, a running one is told by `report` and killed after `kill_grace`."""
        for work in self._queue:
            if work.job.trial == trial:
                self._queue.remove(work)
                self._finish(work, TrialState.STOPPED, Result())
                return
        for worker in self._workers:
            attempt = worker.attempt
            if attempt is not None and attempt.work.job.trial == trial and not attempt.cancelled:
                attempt.cancelled = True
                attempt.kill_at = min(attempt.kill_at, time.monotonic() + self.kill_grace)
                with suppress(OSError):  # it has just died: the next `completed` sees that
                    attempt.channel.send(b"c")

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        """The events since the last call, in order; waits for the first one.

        Raises ArchsmithError, with the worker's output, if no worker can be started.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            self._dispatch()
            if self._events or not self._unfinished():
                break
            now = time.monotonic()
            self._wait(max(0.0, min(deadline - now, self._next_look(now))))
            self._enforce()
            if not self._events and time.monotonic() >= deadline:
                break
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End all workers and all processes of their children. Unfinished jobs are dropped."""
        self._queue.clear()
        self._events.clear()
        self._end()

    # --- from the queue to the workers --------------------------------------------------------------------------------

    def _unfinished(self) -> list[Work]:
        return [*self._queue, *(worker.attempt.work for worker in self._workers if worker.attempt is not None)]

    def _any_ready(self) -> bool:
        return any(worker.ready for worker in self._workers)

    def _shared(self, job: Job) -> bytes:
        """The pickled fields that jobs share; the same bytes as long as the fields are the same objects."""
        if self._sent is not None:
            last, shared = self._sent
            if all(getattr(last, name) is getattr(job, name) for name in SHARED):
                return shared
        self._sent = job, self._data.with_data(job.evaluator, lambda: pickled(fields_of(job, SHARED)))
        return self._sent[1]

    def _dispatch(self) -> None:
        """Give queued jobs to idle workers, and start workers while there are more jobs than those."""
        for worker in [worker for worker in self._workers if worker.ready and worker.attempt is None]:
            if not self._queue:
                return
            work = self._queue[0]
            try:
                worker.begin(work, list(self._imports), self._kill_at(work.job.limits.seconds, self.start_timeout))
            except OSError:  # it died while idle; the job is none the worse
                self._bury(worker)
                continue
            self._queue.popleft()
            self._events.append(Started(work.job.trial, work.attempt))
        if self._failed_starts >= START_ATTEMPTS and self._any_ready():
            return  # go on with those there are
        starting = sum(not worker.ready for worker in self._workers)
        for _ in range(min(len(self._queue) - starting, self._slots - len(self._workers))):
            taken = {worker.index for worker in self._workers}
            index = next(i for i in range(self._slots) if i not in taken)
            try:
                self._surroundings = self._surroundings or Surroundings.here(self.threads)
                self._workers.append(WorkerProcess.start(index, self.device, self.threads, self._surroundings))
            except OSError as error:  # such as too many processes
                if not self._workers:
                    raise ArchsmithError(f"no worker process can be started: {error}") from error
                return

    # --- from the workers ---------------------------------------------------------------------------------------------

    def _next_look(self, now: float) -> float:
        """Seconds until something must be done even if no message arrives."""
        alarms = [_TICK]
        for worker in self._workers:
            if not worker.ready:
                alarms.append(worker.began_at + self.start_timeout - now)
            elif worker.attempt is not None and worker.attempt.killed_at is None:
                alarms.append(worker.attempt.kill_at - now)
        return min(alarms)

    def _wait(self, seconds: float) -> None:
        """Wait for messages, output and the end of workers and children, and process them."""
        ends: dict[int, tuple[WorkerProcess, Attempt | None]] = {}
        outputs = {}
        for worker in self._workers:
            ends[worker.control.fileno()] = worker, None
            outputs[worker.output.end] = worker.output
            if (attempt := worker.attempt) is not None:
                outputs[attempt.output.end] = attempt.output
                if not attempt.report.messages.ended and attempt.verdict is None:
                    ends[attempt.channel.fileno()] = worker, attempt
        outputs.pop(-1, None)
        ready = wait([*ends, *outputs], seconds)
        for end in ready:
            assert isinstance(end, int)
            if end in outputs:
                outputs[end].drain()
            elif (attempt := ends[end][1]) is not None and ends[end][0].attempt is attempt:
                self._hear_child(ends[end][0], attempt)
        for end in ready:  # last: the messages of a child are older than its end
            if end in ends and ends[end][1] is None:
                self._hear(ends[end][0])

    def _hear(self, worker: WorkerProcess) -> None:
        """Process the messages of a worker."""
        try:
            for message in worker.messages.read():
                attempt = worker.attempt
                if message["kind"] == "ready":
                    worker.ready = True
                    self._failed_starts, self._failing_since = 0, float("inf")
                elif message["kind"] == "forked" and attempt is not None:
                    attempt.pid = int(message["pid"])
                    if not attempt.cancelled:  # its time begins when its worker has read the data
                        attempt.kill_at = self._kill_at(attempt.work.job.limits.seconds)
                elif message["kind"] == "ended" and attempt is not None:
                    self._take(attempt, everything=True)
                    worker.attempt = None
                    self._decide(attempt, how_it_ended(int(message["status"])))
                    attempt.close()
        except (BadMessage, KeyError, TypeError, ValueError):  # a child got hold of its worker
            self._bury(worker)
        else:
            if worker.messages.ended:
                self._bury(worker)

    def _hear_child(self, worker: WorkerProcess, attempt: Attempt) -> None:
        """Process the messages of a child; kill it if one is invalid."""
        self._take(attempt)
        if attempt.verdict is not None:
            worker.kill_child()
        elif attempt.silent_since is None and (attempt.report.messages.ended or attempt.report.completed is not None):
            attempt.silent_since = time.monotonic()

    def _kill_at(self, limit: float | None, more: float = 0.0) -> float:
        """When a child that begins now, or `more` seconds later, is to be killed."""
        return float("inf") if limit is None else time.monotonic() + limit + self.kill_grace + more

    def _take(self, attempt: Attempt, *, everything: bool = False) -> None:
        report = attempt.report
        self._events += report.take(everything=everything)
        self._imports.update(dict.fromkeys(report.imported))
        attempt.verdict = attempt.verdict or report.broken

    def _finish(self, work: Work, state: TrialState, result: Result, reward: float | None = None) -> None:
        if work.lost_seconds:
            result = replace(result, cost=replace(result.cost, lost_seconds=work.lost_seconds))
        self._events.append(Completed(work.job.trial, state, result, reward))

    # --- limits and deaths --------------------------------------------------------------------------------------------

    def _enforce(self) -> None:
        """End workers that did not start, and children that are over their limits or do not end."""
        now = time.monotonic()
        for worker in list(self._workers):
            attempt = worker.attempt
            if not worker.ready:
                if now >= worker.began_at + self.start_timeout:
                    self._bury(worker)
            elif attempt is None:
                continue
            elif attempt.killed_at is not None:
                if now >= attempt.killed_at + _KILLED:  # its worker does not say that it is gone
                    self._bury(worker)
            elif now >= attempt.kill_at:
                limit = attempt.work.job.limits.seconds
                if limit is not None and not attempt.cancelled:
                    attempt.verdict = Failure(
                        "seconds", f"the child took longer than its limit of {limit} seconds and was killed"
                    )
                worker.kill_child()
            elif attempt.silent_since is not None and now >= attempt.silent_since + _LAST_WORD:
                if attempt.report.completed is None:
                    attempt.verdict = Failure(
                        "worker",
                        f"the child closed its channel, did not end in the {_LAST_WORD:g} seconds after that and was killed",
                    )
                worker.kill_child()
            elif now >= worker.looked_at + _TICK:
                worker.looked_at = now
                attempt.verdict = self._looked_at(worker, attempt, now)
                if attempt.verdict is not None:
                    worker.kill_child()

    def _looked_at(self, worker: WorkerProcess, attempt: Attempt, now: float) -> Failure | None:
        """Why a child must be ended, judged from outside; None if it may go on."""
        most = attempt.work.job.limits.memory_bytes
        if most is not None and (used := worker.memory_used(most)) > most:
            return Failure("memory", memory_message(used, most) + " and was killed")
        self._take(attempt)
        if attempt.verdict is not None:
            return attempt.verdict
        if not attempt.is_stopped():
            attempt.stopped_since = None
        elif attempt.stopped_since is None:
            attempt.stopped_since = now
        elif now >= attempt.stopped_since + _STOPPED:
            return Failure(
                "worker",
                f"the child's process was stopped by a signal, did not go on for {_STOPPED:g} seconds and was killed",
            )
        return None

    def _bury(self, worker: WorkerProcess) -> None:
        """End a worker and decide about its job."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        attempt = worker.attempt
        if attempt is not None:
            self._take(attempt, everything=True)
        status = worker.end()
        if not worker.ready:
            self._failed_starts += not worker.was_killed()
            self._failing_since = min(self._failing_since, worker.began_at)
            seconds = time.monotonic() - self._failing_since
            hopeless = self._failed_starts >= START_ATTEMPTS or seconds >= self.start_timeout
            if hopeless and not self._any_ready():
                raise ArchsmithError(
                    f"no worker process has come up in {seconds:.1f} seconds (start_timeout={self.start_timeout:g}); "
                    f"the last one {status}, and printed: {worker.output.text() or 'nothing'}"
                ) from None
        if attempt is not None:
            self._decide(attempt, status)

    def _decide(self, attempt: Attempt, status: str) -> None:
        """Finish or requeue a job whose process has ended; `status` says how it ended."""
        work, completed, verdict = attempt.work, attempt.report.completed, attempt.verdict
        if completed is not None and (verdict is None or verdict.reason == "seconds"):
            result = completed.result
            if result.failure is not None:
                result = with_printed(result, attempt.output.text())
            self._finish(work, completed.state, result, completed.reward)
            return
        so_far = Result(
            curve=attempt.report.curve, cost=Cost(time.monotonic() - attempt.began_at, float(len(attempt.report.curve)))
        )
        if attempt.cancelled:
            self._finish(work, TrialState.STOPPED, so_far)
        elif verdict is None and work.attempt <= self.retries:
            lost = work.lost_seconds + so_far.cost.seconds
            self._queue.appendleft(replace(work, attempt=work.attempt + 1, lost_seconds=lost))
        else:
            times = "" if work.attempt == 1 else f", {work.attempt} times in a row"
            failure = verdict or Failure("worker", f"the child's process {status}{times}")
            result = Result(curve=so_far.curve, cost=so_far.cost, failure=failure)
            self._finish(work, TrialState.FAILED, with_printed(result, attempt.output.text()))


def physical_cores() -> int:
    """The number of physical cores that this process may use."""
    count = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):  # a container's share of the machine; "max" is no share
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, round(int(quota) / int(period)))
    return max(1, count)


def _end_all(workers: list[WorkerProcess], owner: int) -> None:
    """End every worker. Does nothing in a fork of the process that started them."""
    while workers and os.getpid() == owner:
        workers.pop().end()
