"""Runs a child in a process that is forked for it, so that nothing that it does to its process remains.

The parent has imported the libraries, bound the evaluator and read the data, and has one thread. So every child begins in
the same state. A child reports through a socket, with the messages of `messages`, and is told there to stop. The socket is
closed in every process that the child starts.
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

THREADS = (  # read by OpenMP, BLAS and torch when they are loaded
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
LIBRARIES = frozenset({"archsmith", "torch", "torchvision", "numpy", "scipy", "sklearn", "PIL", "pandas", "triton"})
"""The libraries that a worker imports before its next child if a child has imported them."""

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
    """Fork a process that runs a job; returns its process id.

    Args:
        job: makes the job, in the new process. If it raises, the child has failed.
        trial: of the job.
        channel: the child's end of its socket.
        output: a file descriptor for the child's stdout and stderr; None: those of this process.
        device, threads, index: as for `JobContext`.
        own_session: whether the process leads a new session.
        close: called in the new process; closes the resources that belong to this one.
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
    """Set up the signals, the output and the threads of a forked process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with_parent(parent)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))  # for libraries that are loaded from here on
    set_threads(threads)


def _let_go_of_others(channel: int) -> None:
    """Redirect the parent's sockets and pipes to the null device: the child must not write to them.

    The descriptors stay open, since objects that hold them may yet close them.
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
    """Limit the threads of the loaded libraries."""
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
    """The child's end of its channel. The number of its descriptor is high, so that the child's code does not hit it by chance,
    and no other process has it."""

    def __init__(self, connection: socket.socket) -> None:
        self._cancelled = False
        self._connection = _moved(connection)
        self.number = self._connection.fileno()
        os.register_at_fork(after_in_child=self._connection.close)

    def send(self, content: bytes) -> None:
        """Send a message. Ends this process if the other side is closed."""
        try:
            self._connection.sendall(content)
        except OSError as error:
            with suppress(Exception):
                print(f"the child's channel is lost: {error}", file=sys.stderr, flush=True)
            _exit(1)

    def is_cancelled(self) -> bool:
        """Whether the child was told to stop."""
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
    """Exclude all current objects from garbage collection, so that children share the pages that hold them."""
    gc.collect()
    gc.freeze()


def flush() -> None:
    """Flush stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
