"""A folder of a child's own on the machine it runs on, for weights that travel. What killed children leave, the next removes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PREFIX = "archsmith-child-"


@contextmanager
def own_folder() -> Iterator[str]:
    """An empty folder, which goes with the block. It is locked meanwhile: the kernel lets go of the lock when the process
    is killed, and whoever makes the next one on this machine takes the folder away."""
    _remove_left()
    folder, lock = _make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _make() -> tuple[str, int | None]:
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        try:
            lock = _lock(folder, wait=True)
        except FileNotFoundError:  # another took it for one that was left
            continue
        if os.path.isdir(folder):
            return folder, lock
        if lock is not None:
            os.close(lock)


def _remove_left() -> None:
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [entry for entry in entries if entry.name.startswith(_PREFIX)]
    for entry in found:
        with suppress(OSError):  # such as one that a living process holds
            if entry.is_dir(follow_symlinks=False) and _is_ours(entry):
                lock = _lock(entry.path, wait=False)
                if lock is not None:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    os.close(lock)


def _is_ours(entry: os.DirEntry[str]) -> bool:
    return not hasattr(os, "geteuid") or entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def _lock(folder: str, *, wait: bool) -> int | None:
    """The lock on a folder; None where there are no such locks. Raises OSError when it is held and is not waited for."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        if not wait:
            raise
        return None  # a file system without locks: then none is ever taken away either
    return descriptor
