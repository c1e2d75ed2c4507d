"""An attempt at a job as its pool tracks it: the messages of the child, and how its process ended."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass, field, replace

import psutil

from archsmith.core.executor import Job
from archsmith.core.trial import Failure, Result
from archsmith.executors.child_report import ChildReport

_OUTPUT = 8_192  # bytes kept of what a child printed


@dataclass(eq=False)
class Work:
    """A job on its way to a worker.

    Args:
        job: the job.
        shared: its pickled space, evaluator and reward.
        own: its other fields, pickled.
        attempt: counted from 1; a job begins again if its worker died.
        lost_seconds: the time that earlier attempts took.
    """

    job: Job
    shared: bytes
    own: bytes
    attempt: int = 1
    lost_seconds: float = 0.0


class Output:
    """The output that a process prints into a pipe, of which the end is kept."""

    def __init__(self, end: int) -> None:
        os.set_blocking(end, False)
        self.end = end  # -1 once it is closed
        self._tail = bytearray()

    def drain(self) -> None:
        """Read the printed output, so that the process never waits for the pipe."""
        for _ in range(64):  # a child that prints without pause must not hold us here
            if self.end < 0:
                return
            try:
                printed = os.read(self.end, 65_536)
            except BlockingIOError:
                return
            if not printed:
                self.close()
            self._tail += printed
            del self._tail[:-_OUTPUT]

    def text(self) -> str:
        """The end of the printed output."""
        self.drain()
        return self._tail.decode(errors="replace").strip()

    def close(self) -> None:
        """Read no more."""
        if self.end >= 0:
            os.close(self.end)
            self.end = -1


@dataclass(eq=False)
class Attempt:
    """A job that a worker was given, and its state.

    Args:
        work: the job.
        channel: our end of the socket through which the child sends messages.
        output: the output of the child.
        began_at: when it began.
        pid: of the child's process, once it exists.
        cancelled: whether it was told to stop.
        verdict: why it is ended from outside.
        kill_at: when it is to be killed.
        killed_at: when it was killed.
        silent_since: when it sent its result, or closed its channel.
        stopped_since: when it was first seen to be stopped by a signal.
    """

    work: Work
    channel: socket.socket
    output: Output
    began_at: float = field(default_factory=time.monotonic)
    pid: int | None = None
    cancelled: bool = False
    verdict: Failure | None = None
    kill_at: float = float("inf")
    killed_at: float | None = None
    silent_since: float | None = None
    stopped_since: float | None = None

    def __post_init__(self) -> None:
        self.report = ChildReport(self.work.job.trial, self.channel)

    def is_stopped(self) -> bool:
        """Whether a signal has stopped its process."""
        if self.pid is None:
            return False
        try:
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        except psutil.Error:
            return False

    def close(self) -> None:
        """Close its channel and its output."""
        self.channel.close()
        self.output.close()


def with_printed(result: Result, printed: str) -> Result:
    """A failed result with the last output of the child added to its traceback."""
    failure = result.failure
    if failure is None or not printed:
        return result
    lines = f"{failure.traceback}\nThe child printed last:\n{printed}\n".lstrip()
    return replace(result, failure=Failure(failure.reason, failure.message, lines))


def how_it_ended(status: int | None) -> str:
    """How a process ended, for a message."""
    if status is None:
        return "does not end"
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}" + (", perhaps by the system, for want of memory" if -status == signal.SIGKILL else "")
