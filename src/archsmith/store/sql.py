"""The store in a database, through SQLAlchemy Core. What one run reads and writes is in `sql_reader.py` and `sql_writer.py`."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from archsmith.core.artifact_registry import Registration, not_registered
from archsmith.core.artifacts import open_artifacts
from archsmith.core.errors import RunExists, StoreError, UnknownName, UsageError
from archsmith.core.store import RunReader, RunSummary, RunWriter
from archsmith.store.database import Database, Writing, id_of, make_id
from archsmith.store.ledger import Tally
from archsmith.store.payload import check_name, config_text
from archsmith.store.place import Place
from archsmith.store.sql_reader import SQLReader, summary_of
from archsmith.store.tables import PARTS, meta, runs


class SQLStore:
    """Runs in an SQLite file, or in a PostgreSQL database. Any number of processes read; each run has one writer.

    Args:
        where: the file, which appears with the first run; or the URL of a database, whose tables do.
        busy_seconds: how long to wait for another process's transaction (those of archsmith take milliseconds), and for
            a server that went away.
        lease_seconds: for how long a writer holds its run after it was last heard of; PostgreSQL only. A file's writer
            holds a lock, which ends with its process.
        artifacts: where weights are kept: a folder, or an address such as "s3://bucket/folder". The first writer that is
            given one has the store remember it. None: what the store remembers, or else the folder beside the file.

    Raises:
        UsageError: from `artifacts`, and from what writes, when the store keeps its weights elsewhere.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        busy_seconds: float = 30.0,
        lease_seconds: float = 30.0,
        artifacts: str | os.PathLike[str] | None = None,
    ) -> None:
        self._database = _database(os.fspath(where), busy_seconds, lease_seconds)
        self._place = Place(self._database, artifacts)

    @property
    def url(self) -> str:
        return self._database.url

    @property
    def artifacts(self) -> str | None:
        return self._place.address()

    def create(self, name: str, config: Mapping[str, Any]) -> RunWriter:
        from archsmith.store.holder import now, this_process
        from archsmith.store.sql_writer import SQLWriter  # what only looks does not load it

        check_name(name)
        text = config_text(config)
        claim = self._database.claim(name)
        writing = self._database.writing(create=True)

        def make(connection: Connection) -> int:
            connection.execute(select(meta).where(meta.c.key == "schema").with_for_update())  # one at a time
            if connection.scalar(select(runs.c.id).where(runs.c.name == name)) is not None:
                raise RunExists(f"a run named {name!r} is in this store already; resume it, or choose another name")
            self._place.remember(connection)
            row = {**asdict(Tally()), "name": name, "created": now(), "updated": now(), "status": "running"}
            row |= {"writer": this_process(id_of(connection)), "config": text, "seconds": 0.0, **claim.take(None)}
            made: int = connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
            return made

        def made_before(connection: Connection) -> int | None:
            found: int | None = connection.scalar(
                select(runs.c.id).where(runs.c.name == name, runs.c.token == claim.token)
            )
            return found

        try:
            writing.transact(make, made_before)
            return SQLWriter(
                self._database, name, writing, claim, is_new=True, register=partial(self._register, writing)
            )
        except BaseException:
            claim.let_go()
            writing.close()
            raise

    def write(self, name: str) -> RunWriter:
        from archsmith.store.sql_writer import SQLWriter

        self._known(name)
        claim = self._database.claim(name)
        writing = self._database.writing()
        try:
            writing.transact(self._place.remember)
            return SQLWriter(
                self._database, name, writing, claim, is_new=False, register=partial(self._register, writing)
            )
        except BaseException:
            claim.let_go()
            writing.close()
            raise

    def read(self, name: str) -> RunReader:
        number, store = self._known(name)
        return SQLReader(self._database, name, number, store)

    def runs(self) -> list[RunSummary]:
        if not self._database.is_there():
            return []
        query = self._database.runs
        rows = self._database.read(lambda c: c.execute(query().order_by(runs.c.id.desc())).all())
        return [summary_of(self._database, row) for row in rows]

    def delete(self, name: str) -> None:
        self._known(name)
        claim = self._database.claim(name)

        def remove(connection: Connection) -> None:
            query = self._database.runs().where(runs.c.name == name).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                return  # another process was faster
            claim.take(row)
            for table in PARTS:
                connection.execute(delete(table).where(table.c.run == row.id))
            connection.execute(delete(runs).where(runs.c.id == row.id))

        try:
            with closing(self._database.writing()) as writing:
                writing.transact(remove)
        finally:
            claim.let_go()

    def registration(self) -> Registration | None:
        if not self._database.is_there():
            return None
        store, origin = self._database.read(lambda c: (id_of(c), self._database.origin(c)))
        return None if store is None else Registration(self.url, socket.gethostname(), store, origin)

    def register(self) -> None:
        if self._database.is_there():
            with closing(self._database.writing()) as writing:
                self._register(writing)

    def _register(self, writing: Writing) -> None:
        address = self.artifacts
        if address is None:
            return
        try:
            writing.transact(make_id)
            registration = self.registration()
            if registration is not None:
                open_artifacts(address).register(registration)
        except (StoreError, UsageError) as error:
            warnings.warn(not_registered(str(self._database), error), stacklevel=2)

    def _known(self, name: str) -> tuple[int, str | None]:
        """The number of a run, and the id of the store that it is in."""
        number, store = None, None
        if self._database.is_there():
            query = select(runs.c.id).where(runs.c.name == name)
            number, store = self._database.read(lambda c: (c.scalar(query), id_of(c)))
        if number is None:
            raise UnknownName("run", str(name), [run.name for run in self.runs()], f"(in {self._database})")
        return number, store


def _database(where: str, busy_seconds: float, lease_seconds: float) -> Database:
    if where.startswith(("postgresql:", "postgresql+", "postgres:")):
        from archsmith.store.postgres import PostgreSQL

        return PostgreSQL(where, busy_seconds=busy_seconds, lease_seconds=lease_seconds)
    from archsmith.store.sqlite import SQLiteFile

    return SQLiteFile(where, busy_seconds=busy_seconds)
