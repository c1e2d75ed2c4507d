"""A worker process as its pool sees it: started, given a job, read, measured and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

import psutil

from archsmith.core.executor import Job
from archsmith.core.trial import Failure, Result

_OUTPUT = 8_192  # bytes kept of what a child printed
THREADS = (  # what OpenMP, BLAS and torch read when they are loaded
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_BOOT = (  # sys.path comes first: the worker finds the modules that this process finds, also those beside a script
    "import json, sys; sys.path[:] = json.loads(sys.argv[6]); "
    "from archsmith.executors.worker import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))"
)


@dataclass(eq=False)
class Work:
    """A job on its way to a worker, and what was heard of it.

    Args:
        job: what is run.
        shared: its pickled space, evaluator and reward.
        own: its other fields, pickled.
        attempt: counted from 1; a job whose worker died begins again.
        cancelled: whether it was told to stop.
        curve: the epochs it reported.
        lost_seconds: what earlier attempts took.
    """

    job: Job
    shared: bytes
    own: bytes
    attempt: int = 1
    cancelled: bool = False
    curve: list[dict[str, float]] = field(default_factory=list)
    lost_seconds: float = 0.0


@dataclass(eq=False)
class WorkerProcess:
    """A worker process as seen from here."""

    index: int
    process: subprocess.Popen[bytes]
    channel: Connection
    control: Connection
    output: int  # our end of the pipe it prints to; -1 when its own end is closed
    began_at: float = field(default_factory=time.monotonic)  # its start, then its job's
    ready: bool = False
    shared: bytes | None = None  # what it was sent last
    work: Work | None = None
    kill_at: float = float("inf")
    looked_at: float = 0.0
    memory_before: int = 0
    tail: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, index: int, device: str, threads: int) -> WorkerProcess:
        """A new process; it says READY when it is up. Raises OSError when the system gives none."""
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        output, printing = os.pipe()
        fds = [end.fileno() for end in theirs]
        arguments = [*fds, index, device, threads, json.dumps([str(path) for path in sys.path])]
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=printing,
                pass_fds=fds,
                env={**os.environ, **dict.fromkeys(THREADS, str(threads))},
                start_new_session=True,
            )
        except OSError:
            os.close(output)
            for end in ours:
                end.close()
            raise
        finally:
            os.close(printing)
            for end in theirs:
                end.close()
        os.set_blocking(output, False)
        channel, control = (Connection(end.detach()) for end in ours)
        return cls(index, process, channel, control, output)

    def begin(self, work: Work, kill_grace: float) -> None:
        """Send a job. Raises OSError when the worker is gone."""
        self.drain()
        self.tail.clear()
        limits = work.job.limits
        if limits.memory_bytes is not None:
            with suppress(psutil.Error):
                self.memory_before = psutil.Process(self.process.pid).memory_info().rss
        self.channel.send((work.job.trial, None if self.shared is work.shared else work.shared, work.own))
        self.shared, self.work = work.shared, work
        self.began_at = self.looked_at = time.monotonic()
        if limits.seconds is not None:
            self.kill_at = self.began_at + limits.seconds + kill_grace

    def drain(self) -> None:
        """Read what was printed, so that it never has to wait, and keep the end of it."""
        for _ in range(64):  # a child that prints without pause must not hold us here
            if self.output < 0:
                return
            try:
                printed = os.read(self.output, 65_536)
            except BlockingIOError:
                return
            if not printed:
                os.close(self.output)
                self.output = -1
            self.tail += printed
            del self.tail[:-_OUTPUT]

    def printed(self) -> str:
        """The end of what was printed since the job began."""
        self.drain()
        return self.tail.decode(errors="replace").strip()

    def with_output(self, result: Result) -> Result:
        """A failed result whose traceback shows what the child printed last."""
        return result if result.failure is None else with_printed(result, self.printed())

    def is_gone(self) -> bool:
        """Whether the process has ended."""
        try:
            return bool(psutil.Process(self.process.pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def was_killed(self) -> bool:
        """Whether it was ended from outside: by a person, the system, or this pool."""
        return self.process.returncode in (-signal.SIGKILL, -signal.SIGTERM)

    def memory_used(self, limit: int) -> int:
        """Resident bytes above those before the job, with all processes of the child.

        Forks share pages with their parent and count them again, so when the sum is over `limit` their own
        (unique) bytes are counted instead, which takes longer to find out.
        """
        own = others = 0
        forks = []
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                if os.getsid(pid) == self.process.pid:
                    resident = psutil.Process(pid).memory_info().rss
                    if pid == self.process.pid:
                        own = resident - self.memory_before
                    else:
                        forks.append(pid)
                        others += resident
        if own + others > limit and forks:
            others = 0
            for pid in forks:
                with suppress(psutil.Error):
                    others += psutil.Process(pid).memory_full_info().uss
        return own + others

    def end(self) -> str:
        """Kill the process and all it started; how it ended, in words."""
        descendants: list[psutil.Process] = []
        if self.work is not None:  # an idle worker has ended what its children left
            with suppress(psutil.Error):
                descendants = psutil.Process(self.process.pid).children(recursive=True)
        # The group is killed before its leader is waited for: until then no other process can have its number. A
        # process that is ending already keeps its own status.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in descendants:  # those that made a session of their own
            with suppress(psutil.Error):
                process.kill()
        with suppress(subprocess.TimeoutExpired):  # one that hangs in a system call dies when that returns
            self.process.wait(timeout=5)
        self.drain()
        for connection in (self.channel, self.control):
            connection.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1
        return _ending(self.process.returncode)


def with_printed(result: Result, printed: str) -> Result:
    """A failed result whose traceback shows what the child printed last."""
    failure = result.failure
    if failure is None or not printed:
        return result
    lines = f"{failure.traceback}\nThe child printed last:\n{printed}\n".lstrip()
    return replace(result, failure=Failure(failure.reason, failure.message, lines))


def _ending(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None:
        return "does not end"
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}" + (", perhaps by the system, for want of memory" if -status == signal.SIGKILL else "")
