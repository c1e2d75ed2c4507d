"""SQLite's own side of the store: opening files, and saying what is wrong with them.

Files are written in WAL mode with synchronous=NORMAL: a crash of the process loses nothing that was committed; a power
failure may lose the last commits, and resuming then runs those trials again. Readers do not block the writer.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, create_engine, delete, event, exc, insert, null, select
from sqlalchemy.pool import NullPool, QueuePool

from archsmith.core.errors import CorruptStore, StoreError
from archsmith.store.database import T, bring_up, id_of, make_id, make_tables, version_of
from archsmith.store.migrations import columns_of_runs
from archsmith.store.run_lock import RunLock
from archsmith.store.sqlite_writing import SQLiteWriting
from archsmith.store.stray_log import check_log
from archsmith.store.tables import APPLICATION_ID, SCHEMA, meta

OWN_NAME = "path"
"""The row of `meta` with the path by which the file was last written."""

_NAME = f"SELECT value FROM meta WHERE key = '{OWN_NAME}'"
_OURS = "PRAGMA application_id"


class SQLiteFile:
    """One database file. Making one touches nothing.

    Args:
        path: the file. Links are followed, so that the file has one lock and one folder of weights under all its names.
        busy_seconds: how long a transaction waits for another process's before it gives up.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_seconds: float) -> None:
        self._given = Path(os.path.expanduser(path)).absolute()
        self.path = _own_name(Path(os.path.realpath(self._given)))
        self.busy_seconds = busy_seconds
        self._engine: Engine | None = None
        self._inode = 0  # of the file that the engine has open
        self._version = 0  # of the file when it was last looked at; one that is older may be brought up meanwhile

    def __str__(self) -> str:
        return str(self.path)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def beside(self) -> str | None:
        return str(self.path.with_suffix(".artifacts"))

    @property
    def linked(self) -> str | None:
        folder = str(self._given.with_suffix(".artifacts"))
        return None if folder == self.beside else folder

    def is_there(self) -> bool:
        return self._has_content() and self.read(lambda _: self._version > 0)

    def read(self, work: Callable[[Connection], T]) -> T:
        with self._plain_errors():
            if self._engine is not None and _inode(self.path) != self._inode:  # another file took its place
                self._engine.dispose()
                self._engine = None
            if self._engine is None or self._version < SCHEMA:
                if self._engine is None:
                    check_log(self.path)
                engine = self._engine or create_engine("sqlite://", creator=self._open_to_read, poolclass=QueuePool)
                inode = _inode(self.path)
                with engine.connect() as connection:
                    self._version = self._check(connection)
                self._engine, self._inode = engine, inode
            with self._engine.connect() as connection:
                return work(connection)

    def runs(self) -> Select[Any]:
        return select(*columns_of_runs(self._version or SCHEMA), null().label("clock"))

    def writing(self, *, create: bool = False) -> SQLiteWriting:
        with self._plain_errors():
            if create and not self._has_content():
                self._make()
            check_log(self.path)
            inode = _inode(self.path)
            connection = _writing_engine(self._open_to_write).connect()
            try:
                with connection.begin():
                    if not self._check(connection):
                        raise CorruptStore(f"the store {self.path} is damaged: it has no tables")
                    bring_up(connection, str(self.path))
                    self._remember(connection)
            except BaseException:
                connection.close()
                raise
            self._version = SCHEMA
            return SQLiteWriting(connection, self.path, inode, self._plain_errors)

    def _remember(self, connection: Connection) -> None:
        """Write the store's id and path into the file, within a transaction."""
        known = connection.scalar(select(meta.c.value).where(meta.c.key == OWN_NAME))
        if id_of(connection) is not None and known == str(self.path):
            return
        if known != str(self.path) and self.path.stat().st_nlink > 1:
            file, copy = shlex.quote(str(self.path)), shlex.quote(f"{self.path}.copy")
            raise StoreError(
                f"the store {self.path} is a file with several names (hard links), and SQLite keeps its log beside one of "
                f"them. Make it a file of its own: cp {file} {copy} && mv {copy} {file}"
            )
        make_id(connection)
        connection.execute(delete(meta).where(meta.c.key == OWN_NAME))
        connection.execute(insert(meta), {"key": OWN_NAME, "value": str(self.path)})

    def claim(self, name: str) -> RunLock:
        return RunLock(self.path, name)

    def is_held(self, row: Any) -> bool:
        return RunLock(self.path, row.name).is_taken()

    def origin(self, connection: Connection) -> str:
        return str(_inode(self.path))

    def _has_content(self) -> bool:
        """Whether there is a file with something in it; an empty one is a store that is about to be created."""
        try:
            return self.path.stat().st_size > 0
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot read the store {self.path}: {error.strerror or error}") from None

    def _make(self) -> None:
        """Make the file aside and move it into place, so that nobody ever meets one that is half made."""
        from filelock import FileLock

        if not self.path.parent.is_dir():
            raise StoreError(f"cannot create the store {self.path}: the folder {self.path.parent} does not exist")
        aside = Path(f"{self.path}.{uuid.uuid4().hex}.new")
        lock = FileLock(f"{self.path}.lock", timeout=self.busy_seconds, thread_local=False)
        try:
            with lock:
                if not self._has_content():  # another process may have been faster
                    _set_aside_logs(self.path)
                    engine = _writing_engine(lambda: self._open_to_write(aside))
                    with contextlib.closing(engine.connect()) as connection, connection.begin():
                        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                        make_tables(connection)
                        connection.execute(insert(meta), {"key": OWN_NAME, "value": str(self.path)})
                    os.replace(aside, self.path)
                Path(lock.lock_file).unlink(missing_ok=True)  # whoever waits for it finds the store made
        except OSError as error:  # filelock's Timeout is one
            raise StoreError(f"cannot create the store {self.path}: {error.strerror or error}") from None

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Errors of SQLite as errors of the store, in words."""
        try:
            yield
        except exc.DBAPIError as error:
            raise self._in_words(error.orig) from error.orig
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._in_words(error) from error

    def _in_words(self, error: BaseException | None) -> StoreError:
        name, text = getattr(error, "sqlite_errorname", None) or "", str(error)
        if name.startswith("SQLITE_FULL"):
            return StoreError(
                f"the disk that holds {self.path} is full. What was recorded is kept: free some space, then resume"
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreError(
                f"the store {self.path} stayed locked by another process for {self.busy_seconds:g} seconds, so this was "
                "not recorded. End what holds it (a backup, or a database browser with an open transaction), then resume"
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "decode" in text:  # not UTF-8
            return CorruptStore(
                f"the store {self.path} is damaged, or is no archsmith store ({text}). Restore a copy, or save what can "
                "be read: sqlite3 FILE .recover"
            )
        if text.startswith(("no such table", "no such column")) or "has no column" in text:
            return CorruptStore(f"the store {self.path} is damaged: {text}")
        if name.startswith("SQLITE_READONLY"):
            return StoreError(f"cannot write the store {self.path}: the file or its folder is read-only")
        if name.startswith("SQLITE_CANTOPEN"):
            return StoreError(
                f"cannot open the store {self.path}: there is no such file, or its folder does not allow it"
            )
        if name.startswith("SQLITE_IOERR"):
            return StoreError(
                f"the disk failed under the store {self.path} ({text}); it may be full. What was recorded is kept"
            )
        return StoreError(f"the store {self.path} cannot be used: {text}")

    def _check(self, connection: Connection) -> int:
        """The version of our tables in the file, one that we know; 0 when it holds nothing at all."""
        # SQLite pads a last page that was cut off with zeros. The file is only looked at from outside: to open and close
        # it here would drop this process's locks on it, as POSIX has it, and with them what SQLite rests on.
        page_size = connection.exec_driver_sql("PRAGMA page_size").scalar() or 1
        size, wal = self.path.stat().st_size, Path(f"{self.path}-wal")
        if size % page_size and not (wal.exists() and wal.stat().st_size):
            raise CorruptStore(
                f"the store {self.path} is damaged, or is no archsmith store: its last page is cut off. Restore a copy, or "
                "save what can be read: sqlite3 FILE .recover"
            )
        if not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar():
            return 0
        if connection.exec_driver_sql("PRAGMA application_id").scalar() != APPLICATION_ID:
            raise CorruptStore(f"{self.path} is an SQLite database of another program, no archsmith store")
        return version_of(connection, str(self.path))

    def _open_to_read(self) -> sqlite3.Connection:
        folder = self.path.parent
        if os.access(self.path, os.W_OK) and os.access(folder, os.W_OK):
            mode = "mode=rw"  # the last connection to close then cleans up the files of the WAL
        elif Path(f"{self.path}-wal").exists():
            mode = "mode=ro"  # another user's, who may be writing: the files of the WAL are there to be read
        else:
            mode = "immutable=1"  # nobody writes, and the WAL's files cannot be made here
        connection = self._connect(mode)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _open_to_write(self, new: Path | None = None) -> sqlite3.Connection:
        connection = self._connect("mode=rw") if new is None else self._connect("mode=rwc", new)
        if new is not None:
            connection.execute("PRAGMA journal_mode = WAL")  # the file remembers it
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _connect(self, mode: str, path: Path | None = None) -> sqlite3.Connection:
        # The pool hands a connection from thread to thread, one at a time, which is what SQLite asks for.
        connection = sqlite3.connect(
            f"{(path or self.path).as_uri()}?{mode}",
            uri=True,
            timeout=self.busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA trusted_schema = OFF")  # a stranger's file may hold triggers and views
        return connection


def stores_in(folder: Path, pattern: str) -> list[Path]:
    """The archsmith stores among the files of a folder."""
    return [file for file in sorted(folder.glob(pattern)) if file.is_file() and _says(file, _OURS) == APPLICATION_ID]


def _own_name(path: Path) -> Path:
    """The path by which the file was made, if that is another hard link to the same file."""
    with contextlib.suppress(OSError):
        if path.stat().st_nlink > 1 and isinstance(name := _says(path, _NAME), str) and os.path.samefile(path, name):
            return Path(name)
    return path


def _says(path: Path, statement: str) -> object:
    """The value of a query on the file itself, without its log; None if it is no database, or there is no value."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            found = connection.execute(statement).fetchone()
    except sqlite3.Error:
        return None
    return None if found is None else found[0]


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _set_aside_logs(path: Path) -> None:
    """Rename the logs of a file that is gone: SQLite would read them into the new one, and they may hold results of the old."""
    for log in (Path(f"{path}-wal"), Path(f"{path}-journal")):
        if log.exists() and log.stat().st_size:
            number = 1
            while (aside := Path(f"{log}.old-{number}")).exists():
                number += 1
            log.rename(aside)
            warnings.warn(
                f"the store {path} is gone and a new one is made; the log of the old one, which may hold its last results, "
                f"is kept as {aside}",
                stacklevel=2,
            )
        log.unlink(missing_ok=True)
    Path(f"{path}-shm").unlink(missing_ok=True)


def _writing_engine(creator: Callable[[], sqlite3.Connection]) -> Engine:
    engine = create_engine("sqlite://", creator=creator, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
