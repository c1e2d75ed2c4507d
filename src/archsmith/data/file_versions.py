"""Detects whether files have changed since they were read, so that caches of data never serve stale content.

A scan compares names, sizes, times and inodes, and opens no file. Some file systems store times with a resolution of only two
seconds, so two writes in that time may look the same. The content of files that were written so recently is compared too.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from archsmith.core.errors import DataError

RESOLUTION = 2_000_000_000  # nanoseconds; FAT has the coarsest times
_SCANS = 16  # paths whose last scan is remembered

State = tuple[int, int, int, int]
"""A file's size, time of modification, time of change, and inode."""


@dataclass
class _Scan:
    version: int
    states: dict[str, State]
    recent: dict[str, bytes]  # digests of the files that were written shortly before the scan


_scans: OrderedDict[tuple[tuple[str, ...], bool], _Scan] = OrderedDict()
_versions = itertools.count(secrets.randbits(60))  # no two processes give the same number


def _nothing(name: str, is_folder: bool) -> bool:
    return False


def version(*paths: Path, nested: bool = True, skipped: Callable[[str, bool], bool] = _nothing) -> int:
    """A number that stays the same as long as the files at some paths do.

    Args:
        paths: files and folders.
        nested: whether the folders in a folder count as well.
        skipped: whether to ignore an entry, given its name and whether it is a folder.

    Raises DataError if a path cannot be read.
    """
    key = (tuple(map(str, paths)), nested)
    now = time.time_ns()
    try:
        states = {file: state for path in paths for file, state in _states(path, nested, skipped)}
    except OSError as error:
        raise DataError(f"{error.filename or paths[0]} cannot be read: {error.strerror or error}") from None
    before = _scans.get(key)
    if (
        before is not None
        and before.states == states
        and all(_digest(file) == digest for file, digest in before.recent.items())
    ):
        before.recent = {file: digest for file, digest in before.recent.items() if _is_recent(states[file], now)}
        _scans.move_to_end(key)
        return before.version
    recent = {file: _digest(file) for file, state in states.items() if _is_recent(state, now)}
    _scans[key] = _Scan(next(_versions), states, recent)
    _scans.move_to_end(key)
    while len(_scans) > _SCANS:
        _scans.popitem(last=False)
    return _scans[key].version


def _states(path: Path, nested: bool, skipped: Callable[[str, bool], bool]) -> Iterator[tuple[str, State]]:
    """The state of each file and folder below a path, links followed. Folders count, as an empty one may be a class."""
    status = path.stat()
    yield str(path), _state(status)
    if not stat.S_ISDIR(status.st_mode):
        return
    folders, seen = [str(path)], {(status.st_dev, status.st_ino)}
    while folders:
        with suppress(PermissionError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing, such as an editor's lock, stands for itself
                    status = entry.stat(follow_symlinks=False)
                if skipped(entry.name, stat.S_ISDIR(status.st_mode)):
                    continue
                yield entry.path, _state(status)
                if nested and stat.S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    folders.append(entry.path)


def _state(status: os.stat_result) -> State:
    if stat.S_ISDIR(status.st_mode):  # its times change with files that are skipped
        return 0, 0, 0, status.st_ino
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_recent(state: State, now: int) -> bool:
    _, modified, changed, _ = state
    return now - max(changed, min(modified, now)) < RESOLUTION and changed > 0


def _digest(file: str) -> bytes:
    """The digest of a file's content; empty for anything but a readable regular file."""
    with suppress(OSError):
        if stat.S_ISREG(os.stat(file).st_mode):
            with open(file, "rb") as opened:
                return hashlib.file_digest(opened, "blake2b").digest()
    return b""
