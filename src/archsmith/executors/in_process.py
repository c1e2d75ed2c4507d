"""Jobs one after the other in this process: repeatable, nothing between you and a debugger."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from archsmith.core.checks import whole_number
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import is_pure
from archsmith.core.executor import Completed, Event, Job, Progress, Started
from archsmith.core.global_state import GeneratorStates, global_state_kept
from archsmith.core.trial import Result, TrialState
from archsmith.executors.run_job import JobContext, run_job


class InProcess:
    """Runs one job at a time, in the thread that calls `completed`.

    `completed` gives `Started` as soon as there is a job; the next call trains it to its end, whatever its timeout,
    and gives the rest. A KeyboardInterrupt during a job leaves `completed`; the job is then unfinished, and begins again if
    `completed` is called again.

    A child is not isolated: one that segfaults takes the process along. Limits on seconds and memory end a child where
    its evaluator calls `context.report` or `context.check`; one that calls neither goes on, and has failed once it returns. What
    a child does to the global state of the process is put back as it ends, as far as it can be: the global generators,
    the working directory, the environment, torch's settings and others (`core.global_state` lists them). Threads
    and processes that it started, attributes of modules that it replaced, and what the evaluator keeps in itself stay.

    Args:
        device: "auto" (the first CUDA device where torch sees one, else the CPU) or a torch device.
        threads: torch's number of threads while this executor is used (`close` restores it); None leaves it alone.
        on_progress: called with each epoch as the child reports it, in the middle of `completed`, which then does not
            give it again; it may call `cancel`. What it raises ends the child and leaves `completed`.
    """

    def __init__(
        self,
        device: str = "auto",
        threads: int | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.device = device
        self.threads = None if threads is None else whole_number(threads, "threads", 1)
        self.on_progress = on_progress
        self._queue: deque[Job] = deque()
        self._events: list[Event] = []
        self._attempts = 0  # of the first job in the queue
        self._started = False  # whether its Started was given
        self._cancelled = False  # whether it was cancelled while it runs
        self._callback_error: BaseException | None = None
        self._threads_before: int | None = None
        self._generators: GeneratorStates | None = None  # the caller's, while a child runs that may draw from them
        self._closed = False
        self._ends_at: float | None = None

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def submit(self, job: Job) -> None:
        """Queue a job. Raises UsageError for a trial that is queued already, or after `close`."""
        if self._closed:
            raise UsageError("this executor is closed; make a new one")
        if any(queued.trial == job.trial for queued in self._queue):
            raise UsageError(f"trial {job.trial} was submitted and is not finished; a trial runs once")
        self._queue.append(job)

    def cancel(self, trial: int) -> None:
        """End a job: a queued one never begins; for the one that runs, `context.report` says to stop."""
        for position, job in enumerate(self._queue):
            if job.trial == trial:
                if position == 0 and self._started:
                    self._cancelled = True
                else:
                    del self._queue[position]
                    self._events.append(Completed(trial, TrialState.STOPPED, Result()))
                return

    def end_within(self, seconds: float) -> None:
        """Ask the training that runs to end by then, as if its time had been planned so. Safe in a signal handler.

        Only trainings whose length is a time heed it; see `core.evaluator.MayEndEarly`.
        """
        self._ends_at = time.monotonic() + seconds

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        """What happened, in order. Trains the next job, however long it takes."""
        if self._queue and not self._started:
            self._started = True
            self._attempts += 1
            self._events.append(Started(self._queue[0].trial, self._attempts))
        elif self._queue:
            self._run(self._queue[0])
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Forget what is queued, and give torch its threads back."""
        self._closed = True
        self._queue.clear()
        self._events.clear()
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)
            self._threads_before = None

    def _run(self, job: Job) -> None:
        if self._cancelled:  # between Started and the training
            done = Completed(job.trial, TrialState.STOPPED, Result())
        else:
            if self.threads is not None and self._threads_before is None:
                import torch

                self._threads_before = torch.get_num_threads()
                torch.set_num_threads(self.threads)
            context = JobContext(
                job, device=self.device, threads=self.threads, tell=self._tell, ends_at=lambda: self._ends_at
            )
            pure = is_pure(job.evaluator)
            self._generators = None if pure else GeneratorStates.now()
            try:
                with nullcontext() if pure else global_state_kept():
                    done = run_job(job, context, interruptible=True)
            except BaseException:
                self._started = self._cancelled = False
                raise
            finally:
                if self._generators is not None:
                    self._generators.restore()
        if self._queue:  # the callback may have closed this executor
            self._queue.popleft()
        self._attempts, self._started, self._cancelled, self._ends_at = 0, False, False, None
        self._events.append(done)
        if self._callback_error is not None:
            error, self._callback_error = self._callback_error, None
            raise error

    def _tell(self, progress: Progress) -> bool:
        if self.on_progress is None:
            self._events.append(progress)
        elif self._callback_error is None:
            try:
                with self._callers_generators():
                    self.on_progress(progress)
            except Exception as error:  # the loop's own trouble, not the child's
                self._callback_error = error
                self._cancelled = True
        return not self._cancelled

    @contextmanager
    def _callers_generators(self) -> Iterator[None]:
        """Have the global generators be the caller's in the body: what a callback draws is not the child's."""
        if self._generators is None:
            yield
            return
        childs = GeneratorStates.now()
        self._generators.restore()
        try:
            yield
        finally:
            self._generators = GeneratorStates.now()
            childs.restore()
