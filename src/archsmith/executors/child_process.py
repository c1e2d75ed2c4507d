"""A child in a process of its own, forked for it and ended with it: nothing that it does to its process is left behind.

The process that forks has imported the libraries, bound the evaluator and read the data, and has one thread, so that
each child begins with all of it, and as every other child does. A child says how it goes through a socket, as
`messages` has them, and hears there that it is to stop; the socket is closed in every process that the child starts.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress

from archsmith.core.executor import Completed, Job, Progress
from archsmith.core.trial import Result, TrialState
from archsmith.executors.messages import MessageTooLong, completed_message, framed, progress_message
from archsmith.executors.processes import end_with_parent
from archsmith.executors.run_job import JobContext, failure_of, resident_bytes, run_job

THREADS = (  # what OpenMP, BLAS and torch read when they are loaded
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
LIBRARIES = frozenset({"archsmith", "torch", "torchvision", "numpy", "scipy", "sklearn", "PIL", "pandas", "triton"})
"""What a worker imports before its next child, when a child has."""

_MOST_IMPORTS = 5_000
_HIGH = 64  # a child's channel has a number this far below the highest that its process may have
_exit, _getpid = os._exit, os.getpid  # a child may put others in their place


def fork_child(
    job: Callable[[], Job],
    trial: int,
    channel: socket.socket,
    output: int | None,
    *,
    device: str,
    threads: int,
    index: int = 0,
    own_session: bool = True,
    close: Callable[[], None] = lambda: None,
) -> int:
    """Fork a process that runs a job; gives its number.

    Args:
        job: makes the job, in the new process; what it raises is the child's failure.
        trial: the job's.
        channel: where the child says how it goes.
        output: what it prints to, and its errors; None: where this process does.
        device, threads, index: as for `JobContext`.
        own_session: whether the process has a session and a group of its own.
        close: closes what is this process's alone, in the new one.
    """
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: BLAS has some, and brings them back itself
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        close()
        if own_session:
            os.setsid()
        _become_child(parent, output, threads)
        ours = _Channel(channel)
        _let_go_of_others(ours.number)
        _run(job, trial, ours, device, threads, index)
        status = 0
    finally:
        while True:  # whatever was raised: nothing of the parent's code may run here
            _exit(status)


def _become_child(parent: int, output: int | None, threads: int) -> None:
    """Leave what this process has of its parent's: its signals, its output, its single thread."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with_parent(parent)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))  # for libraries that are loaded from here on
    set_threads(threads)


def _let_go_of_others(channel: int) -> None:
    """Have the sockets and pipes of the parent's lead nowhere: what is written there must not come to it.

    Their numbers stay taken, since objects that know them may yet close them.
    """
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir(folder)):
        with suppress(OSError):
            mode = os.fstat(number).st_mode
            if number > 2 and number != channel and (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
                os.dup2(nowhere, number, inheritable=False)
    os.close(nowhere)


def set_threads(threads: int) -> None:
    """How many threads the libraries that are loaded may use."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    if threads > 1 and "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads, user_api="blas")


def _run(job: Callable[[], Job], trial: int, channel: _Channel, device: str, threads: int, index: int) -> None:
    pid, imported = _getpid(), set(sys.modules)
    try:
        made = job()
    except BaseException as error:  # such as a module that only the other process can import
        completed = Completed(trial, TrialState.FAILED, Result(failure=failure_of(error)))
    else:
        channel.send(framed({"kind": "began", "memory": resident_bytes() if made.limits.memory_bytes else 0}))

        def tell(progress: Progress) -> bool:
            if _getpid() != pid:  # a fork of the child has no voice
                return True
            flush()
            channel.send(framed(progress_message(progress)))
            return not channel.is_cancelled()

        context = JobContext(made, device=device, threads=threads, tell=tell, index=index)
        completed = run_job(made, context)
    if _getpid() != pid:
        _exit(0)  # the child forked, and its fork came back from the evaluator
    new = [name for name in set(sys.modules) - imported if name.partition(".")[0] in LIBRARIES]
    flush()
    try:
        message = framed(completed_message(completed) | {"imported": sorted(new)[:_MOST_IMPORTS]})
    except MessageTooLong as error:
        failure = failure_of(ValueError(f"the child's result has {error}"))
        message = framed(completed_message(Completed(trial, TrialState.FAILED, Result(failure=failure))))
    channel.send(message)


class _Channel:
    """The child's end of its channel, which its code does not come upon: its number is high, and no other process has it."""

    def __init__(self, connection: socket.socket) -> None:
        self._cancelled = False
        self._connection = _moved(connection)
        self.number = self._connection.fileno()
        os.register_at_fork(after_in_child=self._connection.close)

    def send(self, content: bytes) -> None:
        """Say something; ends this process where nobody listens."""
        try:
            self._connection.sendall(content)
        except OSError as error:
            with suppress(Exception):
                print(f"the child's channel is lost: {error}", file=sys.stderr, flush=True)
            _exit(1)

    def is_cancelled(self) -> bool:
        """Whether it was said that the child is to stop."""
        try:
            if not self._connection.recv(1, socket.MSG_DONTWAIT):
                _exit(1)
            self._cancelled = True
        except BlockingIOError:
            pass
        except OSError:
            _exit(1)
        return self._cancelled


def _moved(connection: socket.socket) -> socket.socket:
    """The same socket under a high number, closed in programs that this process starts."""
    import fcntl
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    least = max(3, (min(limit, 2**16) if limit > 0 else 1_024) - _HIGH)
    try:
        number = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, least)
    except OSError:
        return connection
    connection.close()
    return socket.socket(fileno=number)


def keep_memory_shared() -> None:
    """Have the garbage collector leave alone what there is, so that children do not copy the pages it lies in."""
    gc.collect()
    gc.freeze()


def flush() -> None:
    """Have what was printed leave this process."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
