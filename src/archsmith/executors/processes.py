"""Finds, measures and ends the processes that a child starts.

On Linux a worker adopts the descendants whose parent has ended, so that its process tree contains all of them, also daemons
and processes in other sessions. On other systems, and if the worker itself has ended, they are found by a variable in their
environment. There, a process that clears its environment and leaves the tree is not found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

import psutil

MARK = "ARCHSMITH_WORKER"
"""The environment variable of a worker's processes; its value identifies the worker."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_WAIT = 5.0  # seconds for killed processes to end


def adopt_orphans() -> None:
    """On Linux: become the parent of every descendant whose parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """On Linux: have this process killed when its parent, of that process id, ends; kill it now if the parent has ended."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def descendants(pid: int, mark: str | None = None) -> list[psutil.Process]:
    """The living descendants of a process, and with a `mark` also all processes that have it."""
    found: dict[int, psutil.Process] = {}
    with suppress(psutil.Error):
        found = {process.pid: process for process in psutil.Process(pid).children(recursive=True)}
    if mark is not None:
        for process in psutil.process_iter():
            if process.pid not in (pid, os.getpid()):
                with suppress(psutil.Error, OSError):
                    if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                        found[process.pid] = process
    return list(found.values())


def end_descendants() -> None:
    """End all descendants of this process and wait for them. Costs one system call if there are none."""
    mark = None if sys.platform == "linux" else os.environ.get(MARK)
    if mark is None and hasattr(os, "waitid"):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
    kill_all(os.getpid(), mark)


def kill_all(pid: int, mark: str | None = None) -> None:
    """Kill the descendants of a process until none is left: orphans are adopted only after their parent has ended."""
    while left := descendants(pid, mark):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(left, timeout=_WAIT)
        if alive:
            return


def memory_used(child: int, before: int, others: list[psutil.Process], limit: int) -> int:
    """Resident bytes of a child above those it began with, plus those of all processes that it started.

    Forks share pages with their parent, which are counted twice. If the sum is over `limit`, only the unique bytes of the
    other processes are counted, which takes longer.
    """
    own = shared = 0
    with suppress(psutil.Error):
        own = psutil.Process(child).memory_info().rss - before
    others = [process for process in others if process.pid != child]
    for process in others:
        with suppress(psutil.Error):
            shared += process.memory_info().rss
    if own + shared > limit and others:
        shared = unique_bytes(others)
    return own + shared


def unique_bytes(processes: list[psutil.Process]) -> int:
    """The sum of the unique bytes of these processes."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += int(process.memory_full_info().uss)
    return total


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)
