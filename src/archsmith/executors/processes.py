"""The processes that a child starts: who they are, what memory they take, and how they are ended.

On Linux a worker becomes the parent of descendants whose own parent has ended, so that its process tree has all of them,
those in a session of their own and daemons too. Elsewhere, and where the worker itself is gone, they are known by a mark
in their environment; there a process that clears its environment and leaves the tree gets away.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

import psutil

MARK = "ARCHSMITH_WORKER"
"""The environment variable that processes of a worker have; its value names the worker."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_WAIT = 5.0  # seconds for killed processes to end


def adopt_orphans() -> None:
    """On Linux: become the parent of descendants whose own parent ended, so that none gets away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """On Linux: have this process killed when its parent ends, which has that number; at once where it has."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def descendants(pid: int, mark: str | None = None) -> list[psutil.Process]:
    """The processes that a process started, and those started, as far as they live; with those marked, where a mark is
    given."""
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
    """End what processes of this one's are left, and wait for them. Costs a system call when there is nothing."""
    mark = None if sys.platform == "linux" else os.environ.get(MARK)
    if mark is None and hasattr(os, "waitid"):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
    kill_all(os.getpid(), mark)


def kill_all(pid: int, mark: str | None = None) -> None:
    """Kill the descendants of a process until none is left: an orphan comes to its heir only when its parent has ended."""
    while left := descendants(pid, mark):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(left, timeout=_WAIT)
        if alive:
            return


def memory_used(child: int, before: int, others: list[psutil.Process], limit: int) -> int:
    """Resident bytes of a child above those it began with, and all of the processes that it started.

    Forks share pages with their parent and count them again, so when the sum is over `limit` their own (unique) bytes
    are counted instead, which takes longer to find out.
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
    """The bytes that nothing but these processes hold, each on its own."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += int(process.memory_full_info().uss)
    return total


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)
