"""Writes an SQLite file, and detects that it was deleted, moved, replaced or written over meanwhile.

SQLite itself does not detect this: it goes on writing to a file that nobody can open any more. So each transaction checks the
file. If its content can still be read, it is saved: in the file under its new name, or in a new file next to the old one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from sqlalchemy import Connection

from archsmith.core.errors import StoreLost
from archsmith.store.database import T

_STILL, _PAUSE, _PATIENCE = 20, 0.02, 60.0
"""A checkpoint of another process may leave the file half written for a while. The file counts as written over only if it was
unchanged for _STILL checks, _PAUSE seconds apart, or after _PATIENCE seconds."""


class SQLiteWriting:
    """A connection whose transactions take the write lock when they begin, so that nobody writes between their reads and writes.

    Args:
        connection: a connection to the file.
        path: the file.
        inode: the inode of the file that the connection has open.
        plain_errors: turns errors of SQLite into errors of the store.
    """

    def __init__(
        self,
        connection: Connection,
        path: Path,
        inode: int,
        plain_errors: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self.connection = connection
        self._path = path
        self._inode = inode
        self._plain_errors = plain_errors
        self._lost: StoreLost | None = None
        with contextlib.suppress(sqlite3.Error):
            self._raw().execute("PRAGMA wal_checkpoint")  # writes the id into the file itself, which is read below
        self._stamp = _stamp(path)
        content = _content(path)
        self._content = content if isinstance(content, tuple) else None

    def transact(self, work: Callable[[Connection], T], landed: Callable[[Connection], T | None] | None = None) -> T:
        """See `Writing`. Raises StoreLost if the file is no longer the one that was opened. All that was recorded, including this
        transaction, is saved first if possible."""
        if self._lost is not None:
            raise self._lost
        lost = self._what_happened()
        if lost == "written over":  # a checkpoint would write into what is another's file
            self._raw().execute("PRAGMA wal_autocheckpoint = 0")
        try:
            with self._plain_errors(), self.connection.begin():
                result = work(self.connection)
        except Exception as error:
            if lost := lost or self._what_happened():
                raise self._saved(lost) from error
            raise
        if lost := lost or self._what_happened():
            raise self._saved(lost)
        return result

    def close(self) -> None:
        """Let the connection go, with all that was recorded in the file itself, so that a copy of it is complete."""
        if not self.connection.closed and self._lost is None and not self._what_happened():
            with contextlib.suppress(sqlite3.Error):  # others are reading: what is left stays in the log
                self._raw().execute("PRAGMA busy_timeout = 0")
                self._raw().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()

    def _raw(self) -> sqlite3.Connection:
        raw = self.connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        return raw

    def _what_happened(self) -> str:
        """What happened to the file: "deleted or moved", "replaced", "written over", or "" for nothing."""
        try:
            stamp = _stamp(self._path)
        except OSError:
            return "deleted or moved"
        if stamp[0] != self._inode:
            return "replaced"
        if stamp == self._stamp:
            return ""
        # A checkpoint, ours or another's, changes the file as well; and it may be under way.
        still, deadline = 0, time.monotonic() + _PATIENCE
        while still < _STILL and time.monotonic() < deadline:
            found = _content(self._path, self._content)
            if found is _INCONSISTENT and stamp[1] >= self._stamp[1]:
                self._stamp = stamp  # compare again once a checkpoint has been completed
                return ""
            if isinstance(found, tuple) and (self._content is None or _goes_on(self._content, found)):
                self._stamp, self._content = stamp, found
                return ""
            time.sleep(_PAUSE)
            try:
                before, stamp = stamp, _stamp(self._path)
            except OSError:
                return "deleted or moved"
            if stamp[0] != self._inode:
                return "replaced"
            still = still + 1 if stamp == before else 0
        return "written over"

    def _saved(self, what: str) -> StoreLost:
        """Save the record; returns the error that says where it is."""
        try:
            self._lost = self._written_over() if what == "written over" else self._taken_away(what)
        except (sqlite3.Error, OSError) as error:
            self._lost = StoreLost(
                f"the store {self._path} was {what} while it was written, and what was recorded could not be saved "
                f"({error}). Restore a copy of it"
            )
        return self._lost

    def _taken_away(self, what: str) -> StoreLost:
        raw = self._raw()
        raw.execute("PRAGMA busy_timeout = 2000")
        raw.execute(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        )  # into the file, wherever it is; nothing is left for a new one here
        moved = _where_is(self._inode)
        if moved is None:
            return StoreLost(f"the store {self._path} was {what} while it was written. {self._next_step(self._copy())}")
        weights, there = (path.with_suffix(".artifacts") for path in (self._path, moved))
        along = f" Move its weights along: {weights} to {there}." if weights.is_dir() and weights != there else ""
        return StoreLost(
            f"the store {self._path} was moved to {moved} while it was written. All that was recorded is in it.{along} "
            f"Resume from there: --store {_option(moved)}"
        )

    def _written_over(self) -> StoreLost:
        """Save the content that this connection still has in memory and in the log, if it is complete."""
        copy: Path | None = self._copy()
        assert copy is not None
        if not _is_whole(copy, self._raw()):
            copy.unlink()
            copy = None
        with contextlib.suppress(OSError):
            os.truncate(f"{self._path}-wal", 0)  # what it holds belongs to the content that is gone
        step = "What was recorded is lost: restore a copy of the store" if copy is None else self._next_step(copy)
        return StoreLost(f"the store {self._path} was written over by another file while it was written. {step}")

    def _next_step(self, copy: Path) -> str:
        saved = f"All that was recorded is saved in {copy}: "
        if self._path.exists() or not self._path.parent.is_dir():
            return f"{saved}resume from there: --store {_option(copy)}"
        return f"{saved}move it to {self._path}, then resume"

    def _copy(self) -> Path:
        """A copy of the database in a new file, next to the old one if its folder can be written to."""
        for folder in (self._path.parent, Path.home(), Path(tempfile.gettempdir())):
            with contextlib.suppress(OSError):
                copy = _new_file(folder / self._path.stem)
                break
        else:
            raise OSError("no folder can be written to")
        try:
            with contextlib.closing(sqlite3.connect(copy)) as target:
                self._raw().backup(target)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        return copy


def _option(path: Path) -> str:
    """The file as an argument of --store, for any suffix."""
    return shlex.quote(f"sqlite:///{path}")


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """Changes when anybody writes the file, or another file or a link replaces it."""
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


_Content: TypeAlias = tuple[str | None, dict[int, int]]
_INCONSISTENT = "inconsistent"
"""What the file holds without its log after a checkpoint that readers kept from being completed. Pages that changed again
are not copied then, so the file may be shorter than its header says, or have new pages next to old ones. It never shrinks."""


def _content(path: Path, before: _Content | None = None) -> _Content | str | None:
    """The store's id and the last event of each run, as they are in the file itself, without the write-ahead log.

    `_INCONSISTENT` if the file is a database whose pages do not fit together, None if it is no store. Through SQLite: opening
    and closing the file in any other way would drop this process's locks on it. `before` is what it held last.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
            last = "SELECT id, (SELECT max(seq) FROM events WHERE run = runs.id) FROM runs"
            content = None if found is None else found[0], {run: seq or 0 for run, seq in connection.execute(last)}
            if before is None or content[0] != before[0] or _goes_on(before, content):
                return content
            # An older copy of the store, or pages that do not fit together: the check reads the whole file.
            sound = connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
            return content if sound else _INCONSISTENT
    except sqlite3.Error as error:
        return _INCONSISTENT if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT else None


def _goes_on(before: _Content, after: _Content) -> bool:
    """Whether `after` continues `before`: the same store, and no run has fewer events."""
    same = before[0] in (None, after[0])
    return same and all(after[1].get(run, seq) >= seq for run, seq in before[1].items())


def _is_whole(copy: Path, source: sqlite3.Connection) -> bool:
    """Whether a copy is an intact database with all events of the source."""
    last = "SELECT run, max(seq), count(*) FROM events GROUP BY run ORDER BY run"
    try:
        with contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            sound = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            events = connection.execute(last).fetchall()
        return sound and events == source.execute(last).fetchall() and all(seq == n for _, seq, n in events)
    except sqlite3.Error:
        return False


def _where_is(inode: int) -> Path | None:
    """The current path of a file that this process has open; None if it was deleted, or the system does not tell."""
    with contextlib.suppress(OSError):
        for descriptor in os.scandir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                path = Path(os.readlink(descriptor.path))
                found = os.stat(descriptor.path)
                if found.st_ino == inode and os.path.samestat(found, path.stat()):
                    return path
    return None


def _new_file(stem: Path) -> Path:
    """A new, empty file that has the same folder of weights as a store of this stem."""
    number = 1
    while True:
        path = stem.with_name(f"{stem.name}.rescued{'' if number == 1 else f'-{number}'}")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path
