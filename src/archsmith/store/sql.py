"""The store in a database, through SQLAlchemy Core. What one run reads and writes is in `sql_reader.py` and `sql_writer.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from archsmith.core.errors import RunExists, RunLocked, UnknownName
from archsmith.core.store import RunReader, RunSummary, RunWriter
from archsmith.store.ledger import Tally
from archsmith.store.payload import check_name, object_from_text, to_text
from archsmith.store.sql_reader import SQLReader, summary_of
from archsmith.store.sqlite import RunLock, SQLiteFile
from archsmith.store.tables import PARTS, runs


class SQLStore:
    """Runs in an SQLite file. Any number of processes read; each run has one writer.

    Args:
        path: the file; it appears with the first run.
        busy_seconds: how long to wait for another process's transaction. Those of archsmith take milliseconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_seconds: float = 30.0) -> None:
        self._file = SQLiteFile(path, busy_seconds=busy_seconds)

    @property
    def url(self) -> str:
        return f"sqlite:///{self._file.path}"

    @property
    def artifacts(self) -> str | None:
        return str(self._file.path.with_suffix(".artifacts"))

    def create(self, name: str, config: Mapping[str, Any]) -> RunWriter:
        from archsmith.store.sql_writer import SQLWriter, now, this_process  # what only looks does not load it

        check_name(name)
        text = to_text(dict(config), "a run's configuration")
        lock = RunLock(self._file.path, name)
        connection = self._file.writer(create=True)
        try:
            if self._row(name) is not None:
                raise _exists(name)
            self._take(lock, name)
            row = {**asdict(Tally()), "name": name, "created": now(), "updated": now(), "status": "running"}
            row |= {"writer": to_text(this_process(), "writer"), "config": text, "seconds": 0.0}
            with self._file.plain_errors(), connection.begin():
                if connection.scalar(select(runs.c.id).where(runs.c.name == name)) is not None:
                    raise _exists(name)  # another process was faster
                connection.execute(insert(runs), row)
            return SQLWriter(self._file, name, connection, lock, is_new=True)
        except BaseException:
            connection.close()
            lock.let_go()
            raise

    def write(self, name: str) -> RunWriter:
        from archsmith.store.sql_writer import SQLWriter

        self._known(name)
        lock = RunLock(self._file.path, name)
        self._take(lock, name)
        try:
            self._known(name)  # it may have been deleted just before the lock was ours
            connection = self._file.writer()
        except BaseException:
            lock.let_go()
            raise
        try:
            return SQLWriter(self._file, name, connection, lock, is_new=False)
        except BaseException:
            connection.close()
            lock.let_go()
            raise

    def read(self, name: str) -> RunReader:
        return SQLReader(self._file, name, self._known(name))

    def runs(self) -> list[RunSummary]:
        if not self._file.is_there():
            return []
        with self._file.reading() as connection:
            rows = (
                connection.execute(self._file.runs().order_by(runs.c.id.desc())).all()
                if _has_tables(connection)
                else []
            )
        return [summary_of(self._file, row) for row in rows]

    def delete(self, name: str) -> None:
        number = self._known(name)
        lock = RunLock(self._file.path, name)
        self._take(lock, name)
        try:
            connection = self._file.writer()
            with self._file.plain_errors(), connection, connection.begin():
                for table in PARTS:
                    connection.execute(delete(table).where(table.c.run == number))
                connection.execute(delete(runs).where(runs.c.id == number))
        finally:
            lock.let_go()

    def _row(self, name: str) -> int | None:
        if not self._file.is_there():
            return None
        with self._file.reading() as connection:
            if not _has_tables(connection):
                return None
            found: int | None = connection.scalar(select(runs.c.id).where(runs.c.name == name))
            return found

    def _known(self, name: str) -> int:
        number = self._row(name)
        if number is None:
            raise UnknownName("run", str(name), [run.name for run in self.runs()], f"(in {self._file.path})")
        return number

    def _take(self, lock: RunLock, name: str) -> None:
        if lock.take():
            return
        who = "another process"
        if (number := self._row(name)) is not None:
            with self._file.reading() as connection:
                writer = object_from_text(connection.scalar(select(runs.c.writer).where(runs.c.id == number)), "writer")
            who = f"process {writer.get('pid')} on {writer.get('host')} (since {writer.get('since')})"
        raise RunLocked(
            f"run {name!r} is being written by {who}, and a run has one writer. Wait for it, or end it with Ctrl-C; "
            "list, show and report work meanwhile"
        )


def _has_tables(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar())


def _exists(name: str) -> RunExists:
    return RunExists(f"a run named {name!r} is in this store already; resume it, or choose another name")
