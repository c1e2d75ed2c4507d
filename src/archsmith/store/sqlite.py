"""SQLite's own side of the store: opening files, saying what is wrong with them, and the lock of a run's writer.

Files are written in WAL mode with synchronous=NORMAL: a crash of the process loses nothing that was committed; a power
failure may lose the last commits, and resuming then runs those trials again. Readers do not block the writer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, create_engine, event, exc, null, select
from sqlalchemy.pool import NullPool, QueuePool

from archsmith.core.errors import CorruptStore, StoreError
from archsmith.store.database import T, bring_up, make_tables, version_of
from archsmith.store.holder import refused
from archsmith.store.migrations import columns_of_runs
from archsmith.store.tables import APPLICATION_ID, SCHEMA


class SQLiteFile:
    """One database file. Making one touches nothing.

    Args:
        path: the file.
        busy_seconds: how long a transaction waits for another process's before it gives up.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_seconds: float) -> None:
        self.path = Path(path).expanduser().absolute()
        self.busy_seconds = busy_seconds
        self._engine: Engine | None = None
        self._version = 0  # of the file when it was last looked at; one that is older may be brought up meanwhile

    def __str__(self) -> str:
        return str(self.path)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def beside(self) -> str | None:
        return str(self.path.with_suffix(".artifacts"))

    def is_there(self) -> bool:
        return self._has_content() and self.read(lambda _: self._version > 0)

    def read(self, work: Callable[[Connection], T]) -> T:
        with self._plain_errors():
            if self._engine is None or self._version < SCHEMA:
                engine = self._engine or create_engine("sqlite://", creator=self._open_to_read, poolclass=QueuePool)
                with engine.connect() as connection:
                    self._version = self._check(connection)
                self._engine = engine
            with self._engine.connect() as connection:
                return work(connection)

    def runs(self) -> Select[Any]:
        return select(*columns_of_runs(self._version or SCHEMA), null().label("clock"))

    def writing(self, *, create: bool = False) -> SQLiteWriting:
        with self._plain_errors():
            if create and not self._has_content():
                self._make()
            connection = _writing_engine(self._open_to_write).connect()
            try:
                with connection.begin():
                    if not self._check(connection):
                        raise CorruptStore(f"the store {self.path} is damaged: it has no tables")
                    bring_up(connection, str(self.path))
            except BaseException:
                connection.close()
                raise
            self._version = SCHEMA
            return SQLiteWriting(connection, self._plain_errors)

    def claim(self, name: str) -> RunLock:
        return RunLock(self.path, name)

    def is_held(self, row: Any) -> bool:
        return RunLock(self.path, row.name).is_taken()

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
        aside = Path(f"{self.path}.new")
        lock = FileLock(f"{self.path}.lock", timeout=self.busy_seconds, thread_local=False)
        try:
            with lock:
                if not self._has_content():  # another process may have been faster
                    for leftover in (aside, Path(f"{aside}-wal"), Path(f"{aside}-shm"), Path(f"{aside}-journal")):
                        leftover.unlink(missing_ok=True)
                    engine = _writing_engine(lambda: self._open_to_write(aside))
                    with contextlib.closing(engine.connect()) as connection, connection.begin():
                        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                        make_tables(connection)
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


class SQLiteWriting:
    """A connection that writes, whose transactions begin at once as writing ones: nobody writes between their looking and
    their writing."""

    def __init__(
        self, connection: Connection, plain_errors: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self.connection = connection
        self._plain_errors = plain_errors

    def transact(self, work: Callable[[Connection], T], landed: Callable[[Connection], T | None] | None = None) -> T:
        with self._plain_errors(), self.connection.begin():
            return work(self.connection)

    def close(self) -> None:
        self.connection.close()


def _writing_engine(creator: Callable[[], sqlite3.Connection]) -> Engine:
    engine = create_engine("sqlite://", creator=creator, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class RunLock:
    """The claim on a run: a lock on a file beside the database, which the kernel lets go when its process ends."""

    def __init__(self, database: Path, run: str) -> None:
        self.token = secrets.token_hex(16)
        self.path = Path(f"{database}.{hashlib.sha256(run.encode()).hexdigest()[:12]}.lock")
        self._lock: Any = None

    def take(self, row: Any | None) -> dict[str, Any]:
        if not self._locked():
            raise refused(row)
        return {"token": self.token}

    def keep(self, run: int) -> None:
        """Nothing to do: the kernel keeps a lock."""

    def let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _locked(self) -> bool:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path, timeout=0.2, thread_local=False)  # longer than a reader's look at it
        try:
            lock.acquire(poll_interval=0.02)
        except Timeout:
            return False
        except OSError as error:
            raise StoreError(f"cannot make the lock file {self.path}: {error.strerror or error}") from None
        self._lock = lock
        return True

    def is_taken(self) -> bool:
        """Whether any process holds the lock; needs no right to write."""
        if not self.path.exists():
            return False
        try:
            import fcntl
        except ImportError:  # Windows
            probe = RunLock.__new__(RunLock)
            probe.path, probe._lock = self.path, None
            free = probe._locked()
            probe.let_go()
            return not free
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
