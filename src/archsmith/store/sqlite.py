"""SQLite's own side of the store: opening files, saying what is wrong with them, and the lock of a run's writer.

Files are written in WAL mode with synchronous=NORMAL: a crash of the process loses nothing that was committed; a power
failure may lose the last commits, and resuming then runs those trials again. Readers do not block the writer.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, insert, select
from sqlalchemy.pool import NullPool, QueuePool

import archsmith
from archsmith.core.errors import CorruptStore, NewerStore, StoreError
from archsmith.store.tables import APPLICATION_ID, SCHEMA, meta, metadata


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

    def is_there(self) -> bool:
        """Whether there is a file with something in it; an empty one is a store that is about to be created."""
        try:
            return self.path.stat().st_size > 0
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot read the store {self.path}: {error.strerror or error}") from None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that reads; each statement sees what was committed when it began."""
        with self.plain_errors():
            if self._engine is None:
                self._check_file()
                engine = create_engine("sqlite://", creator=self._open_to_read, poolclass=QueuePool)
                with engine.connect() as connection:
                    self._check(connection)
                self._engine = engine
            with self._engine.connect() as connection:
                yield connection

    def writer(self, *, create: bool = False) -> Connection:
        """A connection that writes, whose transactions begin at once as writing ones. The caller closes it."""
        if not self.path.parent.is_dir():
            raise StoreError(f"cannot create the store {self.path}: the folder {self.path.parent} does not exist")
        with self.plain_errors():
            self._check_file()
            engine = create_engine("sqlite://", creator=lambda: self._open_to_write(create=create), poolclass=NullPool)

            @event.listens_for(engine, "begin")
            def begin(connection: Connection) -> None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")

            connection = engine.connect()
            try:
                with connection.begin():
                    if not self._check(connection):
                        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                        metadata.create_all(connection)
                        rows = {"schema": str(SCHEMA), "created_by": f"archsmith {archsmith.__version__}"}
                        connection.execute(insert(meta), [{"key": k, "value": v} for k, v in rows.items()])
            except BaseException:
                connection.close()
                raise
            return connection

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
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

    def _check_file(self) -> None:
        """Refuse what SQLite would take for an empty database, or pad with zeros. Raises CorruptStore."""
        try:
            with open(self.path, "rb") as file:
                header = file.read(100)
                size = os.fstat(file.fileno()).st_size
        except OSError:  # not there yet, or SQLite will say what it is
            return
        if size == 0:
            return
        if len(header) < 100 or not header.startswith(b"SQLite format 3\x00"):
            raise CorruptStore(f"the store {self.path} is damaged, or is no archsmith store: it has no SQLite header")
        if any(Path(f"{self.path}{end}").exists() for end in ("-wal", "-journal")):
            return  # what the file lacks is in these
        page_size, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
        if size < page_size * pages:
            raise CorruptStore(
                f"the store {self.path} is damaged: {size} of its {page_size * pages} bytes are there. Restore a copy, "
                "or save what can be read: sqlite3 FILE .recover"
            )

    def _check(self, connection: Connection) -> bool:
        """Whether the file holds our tables, of a version we know; False when it holds nothing at all."""
        if not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar():
            return False
        if connection.exec_driver_sql("PRAGMA application_id").scalar() != APPLICATION_ID:
            raise CorruptStore(f"{self.path} is an SQLite database of another program, no archsmith store")
        found = {row.key: row.value for row in connection.execute(select(meta))}
        version = found.get("schema")
        if not isinstance(version, str) or not version.isdecimal() or len(version) > 9 or int(version) < 1:
            raise CorruptStore(f"the store {self.path} is damaged: its version is {version!r:.100}")
        if int(version) > SCHEMA:
            raise NewerStore(
                f"the store {self.path} is of version {int(version)}, written by a later archsmith; archsmith "
                f"{archsmith.__version__} knows versions up to {SCHEMA}. Upgrade it: pip install --upgrade archsmith"
            )
        return True

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

    def _open_to_write(self, *, create: bool) -> sqlite3.Connection:
        connection = self._connect("mode=rwc" if create else "mode=rw")
        try:
            give_up = time.monotonic() + self.busy_seconds
            while True:  # the change to WAL does not wait by itself for another process that makes it too
                try:
                    connection.execute("PRAGMA journal_mode = WAL")
                    break
                except sqlite3.OperationalError as error:
                    if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > give_up:
                        raise
                    time.sleep(0.01)
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        # The pool hands a connection from thread to thread, one at a time, which is what SQLite asks for.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{mode}",
            uri=True,
            timeout=self.busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA trusted_schema = OFF")  # a stranger's file may hold triggers and views
        return connection


class RunLock:
    """The lock of a run's writer: a file beside the database that the kernel lets go when its process ends."""

    def __init__(self, database: Path, run: str) -> None:
        self.path = Path(f"{database}.{hashlib.sha256(run.encode()).hexdigest()[:12]}.lock")
        self._lock: Any = None

    def take(self) -> bool:
        """Whether the lock is now held by this object."""
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

    def let_go(self) -> None:
        """Release the lock, if it is held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def is_taken(self) -> bool:
        """Whether any process holds the lock; needs no right to write."""
        if not self.path.exists():
            return False
        try:
            import fcntl
        except ImportError:  # Windows
            probe = RunLock.__new__(RunLock)
            probe.path, probe._lock = self.path, None
            free = probe.take()
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
