"""A worker process as its pool controls it: starts it, sends jobs, measures memory, ends it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from archsmith.executors.attempt import Attempt, Output, Work, how_it_ended
from archsmith.executors.child_process import THREADS
from archsmith.executors.messages import MessageReader
from archsmith.executors.processes import MARK, descendants, kill_all, memory_used
from archsmith.executors.worker import KILL, LENGTH, RUN

_SEND = 60.0  # seconds for a worker to take a job
_BOOT = (  # sys.path comes first: the worker finds the modules that this process finds, also those beside a script
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from archsmith.executors.worker import main; "
    "main(*sys.argv[1:])"
)


@dataclass(frozen=True)
class Surroundings:
    """The state of this process that workers start with. It is read once, so that late workers equal the first ones.

    Args:
        folder: the working directory; None: the current one of this process.
        environment: the environment variables.
        path: `sys.path`.
    """

    folder: str | None
    environment: dict[str, str]
    path: list[str]

    @classmethod
    def here(cls, threads: int) -> Surroundings:
        """The state of this process. All workers have the same hash seed, so that sets have the same order."""
        folder = None
        with suppress(OSError):  # it was removed
            folder = os.getcwd()
        fixed = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0")}
        # One thread, and no look at CUDA's runtime, before children are forked; they have the threads that they may use.
        before_fork = {**dict.fromkeys(THREADS, "1"), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        return cls(folder, {**os.environ, **fixed, **before_fork}, [str(path) for path in sys.path])


@dataclass(eq=False)
class WorkerProcess:
    """A worker process."""

    index: int
    process: subprocess.Popen[bytes]
    mark: str
    control: socket.socket
    output: Output
    began_at: float = field(default_factory=time.monotonic)
    ready: bool = False
    shared: bytes | None = None  # the shared fields that were sent last
    attempt: Attempt | None = None
    looked_at: float = 0.0

    def __post_init__(self) -> None:
        self.messages = MessageReader(self.control)

    @classmethod
    def start(cls, index: int, device: str, threads: int, surroundings: Surroundings) -> WorkerProcess:
        """Start a process, which sends a message when it is ready. Raises OSError if it cannot be started."""
        ours, theirs = socket.socketpair()
        output, printing = os.pipe()
        mark = uuid.uuid4().hex
        try:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _BOOT),
                    *map(str, (theirs.fileno(), index, device, threads, json.dumps(surroundings.path))),
                ],
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=printing,
                pass_fds=[theirs.fileno()],
                cwd=surroundings.folder,
                env={**surroundings.environment, MARK: mark},
                start_new_session=True,
            )
        except OSError:
            os.close(output)
            ours.close()
            raise
        finally:
            os.close(printing)
            theirs.close()
        ours.settimeout(_SEND)
        return cls(index, process, mark, ours, Output(output))

    def begin(self, work: Work, imports: Sequence[str], kill_at: float) -> None:
        """Send a job, and the modules to import before the fork. Raises OSError if the worker has ended."""
        ours, theirs = socket.socketpair()
        reading, printing = os.pipe()
        attempt = Attempt(work, ours, Output(reading))
        try:
            shared = None if self.shared is work.shared else work.shared
            content = pickle.dumps((work.job.trial, shared, work.own, list(imports)))
            socket.send_fds(self.control, [RUN], [theirs.fileno(), printing])
            self.control.sendall(LENGTH.pack(len(content)))
            self.control.sendall(content)
        except OSError:
            attempt.close()
            raise
        finally:
            theirs.close()
            os.close(printing)
        self.shared, self.attempt = work.shared, attempt
        self.looked_at = attempt.began_at
        attempt.kill_at = kill_at

    def kill_child(self) -> None:
        """Tell the worker to kill the child. It sends a message when the child has ended."""
        assert self.attempt is not None
        self.attempt.killed_at = time.monotonic()
        with suppress(OSError):  # it has just died: the pool sees that
            self.control.sendall(KILL)

    def was_killed(self) -> bool:
        """Whether it was ended from outside: by a person, the system, or this pool."""
        return self.process.returncode in (-signal.SIGKILL, -signal.SIGTERM)

    def memory_used(self, limit: int) -> int:
        """Resident bytes of the child above those it began with, with all processes that it started."""
        attempt = self.attempt
        if attempt is None or attempt.pid is None or attempt.report.memory_before is None:
            return 0
        others = descendants(self.process.pid, None if sys.platform == "linux" else self.mark)
        return memory_used(attempt.pid, attempt.report.memory_before, others, limit)

    def end(self) -> str:
        """Kill the process and all that it started; returns how it ended, for a message."""
        started = descendants(self.process.pid) if self.attempt is not None else []
        # The group is killed before its leader is waited for: until then no other process can have its number. A
        # process that is ending already keeps its own status.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in started:
            with suppress(Exception):
                process.kill()
        with suppress(subprocess.TimeoutExpired):  # one that hangs in a system call dies when that returns
            self.process.wait(timeout=5)
        if self.attempt is not None:  # what left the tree
            kill_all(self.process.pid, self.mark)
            self.attempt.close()
        self.output.drain()
        self.output.close()
        self.control.close()
        return how_it_ended(self.process.returncode)
