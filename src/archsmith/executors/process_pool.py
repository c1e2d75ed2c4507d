"""Jobs side by side in worker processes of this machine, each with its own threads: the fast way on CPU cores.

One process with one thread per core trains small children about twice as fast as one process with all the cores.
A child is isolated: whatever it does to its process is a failed trial, and limits are enforced from outside.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from archsmith.core.checks import whole_number
from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.executor import Completed, Event, Job, Progress, Started
from archsmith.core.trial import Cost, Failure, Result, TrialState
from archsmith.executors.run_job import memory_message
from archsmith.executors.worker import OWN, READY, SHARED
from archsmith.executors.worker_process import Work, WorkerProcess

START_ATTEMPTS = 3  # workers in a row that may end by themselves as they start
_TICK = 0.5  # seconds between two looks at memory, and at whether a silent worker still lives


class ProcessPool:
    """Runs up to `workers` jobs at once, each in a process that lives on for the next job.

    Workers are fresh interpreters, started when there is work for them: scripts need no `if __name__ == "__main__"`, and
    functions from notebooks, lambdas and closures work. A job's space, evaluator and reward are sent to a worker
    once, as they are at the first `submit`. What children print is kept from the terminal; its end is shown in the
    traceback of a child that failed. A process that a child leaves behind is ended with its job.

    A worker that dies under a child (a segfault, a kill) is replaced, and the child begins again in a fresh one,
    `retries` times; then it has failed with the reason "worker". A child over its limits is not tried again.

    Use it from one thread. Needs Linux or macOS.

    Args:
        workers: how many processes; None: the machine's physical cores that this process may use. On a machine with
            GPUs say how many children are to share them.
        threads: of torch, OpenMP and BLAS in each worker.
        device: "auto" (the CUDA devices in turn where torch sees any, else the CPU) or a torch device.
        retries: how often a child begins again when its worker died under it.
        start_timeout: seconds for a new worker to come up.
        kill_grace: seconds for a child that is over its time, or cancelled, to end by itself before its worker is
            killed.
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
        self._sent: tuple[Job, bytes] | None = None  # the last job whose shared fields were pickled, and those
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
        self._queue.append(Work(job, self._shared(job), pickled(job, OWN)))
        self._dispatch()

    def cancel(self, trial: int) -> None:
        """End a job: a queued one never begins, a running one is told by `report` and killed after `kill_grace`."""
        for work in self._queue:
            if work.job.trial == trial:
                self._queue.remove(work)
                self._finish(work, TrialState.STOPPED, Result())
                return
        for worker in self._workers:
            running = worker.work
            if running is not None and running.job.trial == trial and not running.cancelled:
                running.cancelled = True
                worker.kill_at = min(worker.kill_at, time.monotonic() + self.kill_grace)
                with suppress(OSError):  # it has just died: the next `completed` sees that
                    worker.control.send(trial)

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        """What happened since the last call, in order; waits for it.

        Raises ArchsmithError, with what it printed, when no worker can be started.
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
        """End all workers and what their children started. What was not finished is forgotten."""
        self._queue.clear()
        self._events.clear()
        self._end()

    # --- from the queue to the workers --------------------------------------------------------------------------------

    def _unfinished(self) -> list[Work]:
        return [*self._queue, *(worker.work for worker in self._workers if worker.work is not None)]

    def _any_ready(self) -> bool:
        return any(worker.ready for worker in self._workers)

    def _shared(self, job: Job) -> bytes:
        """The pickled fields that jobs have in common; the same bytes as long as they are the same objects."""
        if self._sent is not None:
            last, shared = self._sent
            if all(getattr(last, name) is getattr(job, name) for name in SHARED):
                return shared
        self._sent = job, pickled(job, SHARED)
        return self._sent[1]

    def _dispatch(self) -> None:
        """Give queued jobs to idle workers, and start workers while there are more jobs than those."""
        for worker in [worker for worker in self._workers if worker.ready and worker.work is None]:
            if not self._queue:
                return
            work = self._queue[0]
            try:
                worker.begin(work, self.kill_grace)
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
                self._workers.append(WorkerProcess.start(index, self.device, self.threads))
            except OSError as error:  # such as too many processes
                if not self._workers:
                    raise ArchsmithError(f"no worker process can be started: {error}") from error
                return

    # --- from the workers ---------------------------------------------------------------------------------------------

    def _next_look(self, now: float) -> float:
        """Seconds until something must be done even if no worker says a word."""
        alarms = [w.kill_at if w.ready else w.began_at + self.start_timeout for w in self._workers]
        return min([_TICK, *(alarm - now for alarm in alarms)])

    def _wait(self, seconds: float) -> None:
        """Wait for workers to speak, print or die, and take note."""
        channels = {worker.channel.fileno(): worker for worker in self._workers}
        outputs = {worker.output: worker for worker in self._workers if worker.output >= 0}
        for ready in wait([*channels, *outputs], seconds):
            assert isinstance(ready, int)
            if ready in channels:
                self._hear(channels[ready])
            else:
                outputs[ready].drain()

    def _hear(self, worker: WorkerProcess) -> None:
        """Take everything a worker has said."""
        try:
            while worker in self._workers and worker.channel.poll():
                message = worker.channel.recv()
                work = worker.work
                if message == READY:
                    worker.ready = True
                    self._failed_starts, self._failing_since = 0, float("inf")
                elif isinstance(message, Progress) and work is not None:
                    work.curve.append({"epoch": message.epoch, **message.metrics})
                    self._events.append(message)
                elif isinstance(message, Completed) and work is not None:
                    worker.work, worker.kill_at = None, float("inf")
                    result = message.result
                    if result.failure is not None:
                        result = worker.with_output(result)
                    self._finish(work, message.state, result, message.reward)
        except Exception:  # the end of the channel, or something on it that is no message: either way it is lost
            self._bury(worker)

    def _finish(self, work: Work, state: TrialState, result: Result, reward: float | None = None) -> None:
        if work.lost_seconds:
            result = replace(result, cost=replace(result.cost, lost_seconds=work.lost_seconds))
        self._events.append(Completed(work.job.trial, state, result, reward))

    # --- limits and deaths --------------------------------------------------------------------------------------------

    def _enforce(self) -> None:
        """End the workers that died in silence, did not start, or whose child is over its limits."""
        now = time.monotonic()
        for worker in list(self._workers):
            if not worker.ready:
                if now >= worker.began_at + self.start_timeout:
                    self._bury(worker)
            elif worker.work is not None and now >= worker.kill_at:
                limit = worker.work.job.limits.seconds  # None for a child that was only cancelled, which is no failure
                self._bury(
                    worker,
                    Failure("seconds", f"the child took longer than its limit of {limit} seconds and was killed"),
                )
            elif now >= worker.looked_at + _TICK:
                worker.looked_at = now
                if worker.is_gone():  # while a fork of the child holds its channel open
                    self._bury(worker)
                elif worker.work is not None and (most := worker.work.job.limits.memory_bytes) is not None:
                    used = worker.memory_used(most)
                    if used > most:
                        self._bury(worker, Failure("memory", memory_message(used, most) + " and was killed"))

    def _bury(self, worker: WorkerProcess, verdict: Failure | None = None) -> None:
        """End a worker for good, and decide about its job: `verdict` says why it was ended, None that it died."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        status = worker.end()
        work = worker.work
        if not worker.ready:
            self._failed_starts += not worker.was_killed()
            self._failing_since = min(self._failing_since, worker.began_at)
            seconds = time.monotonic() - self._failing_since
            hopeless = self._failed_starts >= START_ATTEMPTS or seconds >= self.start_timeout
            if hopeless and not self._any_ready():
                raise ArchsmithError(
                    f"no worker process has come up in {seconds:.1f} seconds (start_timeout={self.start_timeout:g}); "
                    f"the last one {status}, and printed: {worker.printed() or 'nothing'}"
                ) from None
        if work is None:
            return
        so_far = Result(curve=work.curve, cost=Cost(time.monotonic() - worker.began_at, float(len(work.curve))))
        if work.cancelled:
            self._finish(work, TrialState.STOPPED, so_far)
        elif verdict is None and work.attempt <= self.retries:
            lost = work.lost_seconds + so_far.cost.seconds
            self._queue.appendleft(Work(work.job, work.shared, work.own, work.attempt + 1, lost_seconds=lost))
        else:
            times = "" if work.attempt == 1 else f", {work.attempt} times in a row"
            failure = verdict or Failure("worker", f"the child's process {status}{times}")
            result = Result(curve=so_far.curve, cost=so_far.cost, failure=failure)
            self._finish(work, TrialState.FAILED, worker.with_output(result))


def physical_cores() -> int:
    """The machine's cores, without the second thread of each, that this process may use."""
    count = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):  # a container's share of the machine; "max" is no share
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, round(int(quota) / int(period)))
    return max(1, count)


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle, which also sends a cached function that the other process cannot import: as one with an empty cache."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, functools._lru_cache_wrapper) and not _importable(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    cached: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return cached


def _importable(thing: Any) -> bool:
    """Whether another process finds it by its module and name; what a script or a notebook defines it does not."""
    found: Any = sys.modules.get(thing.__module__) if thing.__module__ != "__main__" else None
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


def _dumps(value: Any) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


def pickled(job: Job, names: Sequence[str]) -> bytes:
    """Fields of a job as bytes. Raises UsageError naming the one that cannot be sent."""
    try:
        return _dumps([getattr(job, name) for name in names])
    except Exception:
        for name in names:
            try:
                _dumps(getattr(job, name))
            except Exception as error:
                raise UsageError(
                    f"the {name} cannot be sent to another process: {error}; leave out what holds a lock, a file or a "
                    "connection, or run with workers=1"
                ) from error
        raise


def _end_all(workers: list[WorkerProcess], owner: int) -> None:
    """End every worker, in the process that started them: a fork of that has no say."""
    while workers and os.getpid() == owner:
        workers.pop().end()
