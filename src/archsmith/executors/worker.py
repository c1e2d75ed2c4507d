"""The main of a worker process: takes jobs from a channel, gives back progress and results.

It runs in a session of its own, so that Ctrl-C in a terminal does not reach it and everything it starts can be ended
with it. It holds two sockets to the process that started it: `channel`, where jobs come and results go, and `control`,
where a second thread hears of cancelled trials and, by its end, that the other side is gone: then this process and its
children end at once, in the middle of a training too.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import fields
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import cloudpickle
import psutil

from archsmith.core.executor import Completed, Job, Progress
from archsmith.core.trial import Result, TrialState
from archsmith.executors.run_job import JobContext, failure_of, run_job

READY = "ready"
"""What a worker says first."""

SHARED = ("space", "evaluator", "reward")
"""The fields of a job that are sent once, and again only when they change: an evaluator may hold a data set."""

OWN = tuple(field.name for field in fields(Job) if field.name not in SHARED)
"""The fields that each job brings."""


def main(channel_fd: int, control_fd: int, index: int, device: str, threads: int) -> None:
    """Run jobs until the other side closes the channel."""
    channel, control = Connection(channel_fd), Connection(control_fd)
    pid = os.getpid()
    faulthandler.enable()  # a segfault says where, on stderr, which the pool keeps
    os.nice(5)  # the searcher and the person at the machine come first
    adopt_orphans()
    for connection in (channel, control):
        os.set_inheritable(connection.fileno(), False)
        # A child's forks must not hold the sockets open, or the pool would not see this process end.
        os.register_at_fork(after_in_child=connection.close)
    cancelled: set[int] = set()
    threading.Thread(target=_listen, args=(control, cancelled), daemon=True).start()
    channel.send(READY)
    sending = threading.Lock()

    def tell(progress: Progress) -> bool:
        flush()
        with sending:
            channel.send(progress)
        return progress.trial not in cancelled

    shared: bytes = b""
    bound: dict[str, Any] | None = None
    while True:
        try:
            trial, new_shared, own = channel.recv()
        except (EOFError, OSError):
            _end()
        reset_threads(threads)
        try:
            if new_shared is not None:
                shared, bound = new_shared, None
            if bound is None:
                bound = dict(zip(SHARED, cloudpickle.loads(shared), strict=True))
            job = Job(**bound, **dict(zip(OWN, cloudpickle.loads(own), strict=True)))
        except BaseException as error:  # such as a module that only the other process can import
            completed = Completed(trial, TrialState.FAILED, Result(failure=failure_of(error)))
        else:
            completed = run_job(job, JobContext(job, device=device, threads=threads, tell=tell, index=index))
        if os.getpid() != pid:
            os._exit(0)  # the child forked, and its fork came back from the evaluator
        end_descendants()
        flush()
        with sending:
            channel.send(completed)


def _listen(control: Connection, cancelled: set[int]) -> None:
    """Hear of cancelled trials; end everything when the other side is gone."""
    while True:
        try:
            cancelled.add(control.recv())
        except (EOFError, OSError):
            _end()


def _end() -> NoReturn:
    """End this process with its whole group, at once."""
    os.killpg(0, signal.SIGKILL)
    os._exit(1)


def adopt_orphans() -> None:
    """On Linux: become the parent of descendants whose own parent ended, so that none gets away."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def end_descendants() -> None:
    """End what a child started and left behind. Costs a system call when there is nothing."""
    if hasattr(os, "waitid"):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
    # Again until none is left: an orphan comes to this process only when its parent has ended.
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(left, timeout=5)
        if alive:
            return


def reset_threads(threads: int) -> None:
    """The number of threads that an earlier child may have changed; for a torch yet to come the environment says it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


def flush() -> None:
    """Have what was printed leave this process."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
