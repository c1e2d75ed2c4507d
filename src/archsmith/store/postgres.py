"""PostgreSQL's own side of the store: connecting, beginning again when the server goes away, and where the tables are.

The tables stand in a schema of their own, "archsmith", so that they share a database with others in peace. A search path
in the URL (`?options=-csearch_path%3Dteam`) is respected instead: the tables then stand in its first schema.

Nothing rests on a session of the server: what a transaction must know, it looks up. So a connection may be lost at any
moment, and whatever was not confirmed is looked for on another one before it is done again.
"""

from __future__ import annotations

import contextlib
import math
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, Float, Select, cast, create_engine, exc, func, select, text
from sqlalchemy.pool import QueuePool

from archsmith.core.errors import StoreError, UsageError
from archsmith.store.database import T, bring_up, make_tables, version_of
from archsmith.store.holder import is_dead
from archsmith.store.lease import Lease
from archsmith.store.migrations import columns_of_runs
from archsmith.store.postgres_words import in_words, is_lost, is_passing, public_url
from archsmith.store.tables import APPLICATION_ID, SCHEMA

OWN_SCHEMA = "archsmith"
CLOCK = cast(func.extract("epoch", func.clock_timestamp()), Float)
"""Seconds since 1970 by the server's clock, which is the only one that leases go by."""


class PostgreSQL:
    """A PostgreSQL database. Making one touches nothing.

    Args:
        url: as libpq takes it; "postgresql+psycopg:" and "postgres:" mean the same.
        busy_seconds: how long to wait for another's transaction, and for a server that went away.
        lease_seconds: how long a writer holds its run after it was last heard of.
    """

    def __init__(self, url: str, *, busy_seconds: float, lease_seconds: float) -> None:
        if lease_seconds <= 0:
            raise UsageError(f"lease_seconds must be above 0, got {lease_seconds}")
        self.busy_seconds = busy_seconds
        self.lease_seconds = lease_seconds
        self._parameters = _parameters(url)
        self._url = public_url(self._parameters)
        searches = "search_path" in str(self._parameters.get("options", ""))
        self.schema = None if searches else OWN_SCHEMA
        self._engine = self._make_engine()
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._version = 0
        self._was_there = False  # whether the server ever answered: one that did is waited for

    def __str__(self) -> str:
        return self._url

    @property
    def url(self) -> str:
        return self._url

    @property
    def beside(self) -> str | None:
        return None

    @property
    def linked(self) -> str | None:
        return None

    def is_there(self) -> bool:
        return self._version > 0 or self.read(self._is_made)

    def read(self, work: Callable[[Connection], T]) -> T:
        def look() -> T:
            with self._reading.connect() as connection:
                if self._version < SCHEMA and self._is_made(connection):
                    self._version = version_of(connection, self._url)
                return work(connection)

        return self._again(look)

    def runs(self) -> Select[Any]:
        return select(*columns_of_runs(self._version or SCHEMA), CLOCK.label("clock"))

    def writing(self, *, create: bool = False) -> PostgreSQLWriting:
        def make(connection: Connection) -> None:
            # One at a time, be it that the tables are made or brought up; let go with the transaction.
            connection.execute(select(func.pg_advisory_xact_lock(APPLICATION_ID)))
            if create and not self._is_made(connection):
                self._make_schema(connection)
                make_tables(connection)
            bring_up(connection, self._url)

        if self._version < SCHEMA:
            self._again(lambda: _transaction(self._engine, make))
            self._version = SCHEMA
        return PostgreSQLWriting(self._engine.connect, self._again)

    def claim(self, name: str) -> Lease:
        return Lease(self._renew, CLOCK, self.lease_seconds, self.is_held)

    def is_held(self, row: Any) -> bool:
        return (
            row.token is not None
            and row.lease_until is not None
            and row.clock < row.lease_until
            and not is_dead(row.writer)
        )

    def origin(self, connection: Connection) -> str:
        query = (
            "SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), "
            "coalesce(CAST(:schema AS text), current_schema()) FROM pg_control_system()"
        )
        return " ".join(map(str, connection.execute(text(query), {"schema": self.schema}).one()))

    def _renew(self, statement: Any) -> int:
        """Commit one statement without waiting for a server that is away; gives how many rows it changed."""
        with self._reading.connect() as connection:
            return connection.execute(statement).rowcount

    def _is_made(self, connection: Connection) -> bool:
        # By the catalogue, since naming a table in a schema that one may not use is an error already.
        found = connection.execute(
            text(
                "SELECT 1 FROM pg_catalog.pg_tables WHERE tablename = 'meta' AND schemaname = "
                "coalesce(CAST(:schema AS text), current_schema())"
            ),
            {"schema": self.schema},
        )
        return found.first() is not None

    def _make_schema(self, connection: Connection) -> None:
        if self.schema is None:
            if connection.scalar(text("SELECT current_schema()")) is None:
                options = self._parameters["options"]
                raise StoreError(
                    f"the store {self._url} has no place for its tables: no schema of its search path ({options}) exists. "
                    "Make it: CREATE SCHEMA ..."
                )
        elif connection.scalar(text("SELECT to_regnamespace(:schema)"), {"schema": self.schema}) is None:
            connection.execute(text(f"CREATE SCHEMA {self.schema}"))  # IF NOT EXISTS asks for a right even if it does

    def _make_engine(self) -> Engine:
        engine = create_engine(
            "postgresql+psycopg://",
            creator=_connecting(self._parameters, self.busy_seconds, self.lease_seconds),
            poolclass=QueuePool,
            pool_size=2,  # those that idle: one to read, one to renew a lease
            max_overflow=-1,
            use_native_hstore=False,  # it would ask the server about a type that there is none of here
        )
        weakref.finalize(self, engine.dispose)
        return engine.execution_options(schema_translate_map={None: self.schema}) if self.schema else engine

    def _again(self, act: Callable[[], T]) -> T:
        """Do it, and where a connection is lost or the server is not ready, do it again for up to `busy_seconds`."""
        deadline, pause = math.inf, 0.05
        while True:
            try:
                with plain_errors(self):
                    found = act()
                self._was_there = True
                return found
            except Passing as passing:
                # Since it first failed: who slept in the middle of it has not tried yet.
                deadline = min(deadline, time.monotonic() + self.busy_seconds)
                left = deadline - time.monotonic()
                if left <= 0 or not (self._was_there or passing.from_server):
                    raise passing.told from passing.__cause__
                time.sleep(min(pause, left))
                pause = min(2 * pause, 1.0)


class PostgreSQLWriting:
    """A connection that writes. When it is lost, there is another."""

    def __init__(self, connect: Callable[[], Connection], again: Callable[[Callable[[], T]], T]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._again: Any = again

    def transact(self, work: Callable[[Connection], T], landed: Callable[[Connection], T | None] | None = None) -> T:
        tried = False

        def act() -> T:
            nonlocal tried
            again, tried = tried, True
            connection = self._connection
            if connection is None or connection.invalidated or connection.in_transaction():
                self.close()
                connection = self._connection = self._connect()
            with connection.begin():
                found = landed(connection) if again and landed is not None else None
                return work(connection) if found is None else found

        result: T = self._again(act)
        return result

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


class Passing(Exception):
    """An error that may be gone in a moment: a connection that was lost, a server that starts.

    Args:
        told: the error for the caller, if it stays.
        from_server: whether there is a server at all.
    """

    def __init__(self, told: StoreError, *, from_server: bool) -> None:
        super().__init__(str(told))
        self.told = told
        self.from_server = from_server


@contextlib.contextmanager
def plain_errors(database: PostgreSQL) -> Iterator[None]:
    """Errors of PostgreSQL as errors of the store, in words; those that may pass as `Passing`."""
    import psycopg

    try:
        yield
    except (exc.DBAPIError, psycopg.Error) as error:
        original = error.orig if isinstance(error, exc.DBAPIError) else error
        told = in_words(original, database.url, database.busy_seconds)
        if is_lost(original) or is_passing(original):
            raise Passing(told, from_server=is_passing(original)) from original
        raise told from original
    except exc.TimeoutError as error:
        raise StoreError(f"the store {database.url} cannot be used: {error}") from error


def _transaction(engine: Engine, work: Callable[[Connection], None]) -> None:
    with engine.begin() as connection:
        work(connection)


def _parameters(url: str) -> dict[str, Any]:
    """What the URL says, in libpq's terms. Raises UsageError."""
    scheme, colon, rest = url.partition(":")
    if scheme not in ("postgresql", "postgresql+psycopg", "postgres") or not rest.startswith("//"):
        raise UsageError(
            f'a store on PostgreSQL is "postgresql://user@host/database"; got {scheme + colon}//... '
            "(psycopg is the driver, whatever is named)"
        )
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise UsageError("a store on PostgreSQL needs psycopg: pip install 'archsmith[postgres]'") from None
    try:
        return dict(conninfo_to_dict(f"postgresql:{rest}"))
    except ProgrammingError as error:
        # What it quotes may be a part of the password, but for the name of an option.
        option = (
            str(error).strip() if "query parameter" in str(error) else "write %, @, : and / in a password as %25, ..."
        )
        raise UsageError(f"the URL of a PostgreSQL store is not one that libpq takes: {option}") from None


def _connecting(parameters: dict[str, Any], busy_seconds: float, lease_seconds: float) -> Callable[[], Any]:
    """What opens a connection. A cable that is cut is noticed in less than a minute, unless the URL says otherwise.

    The server notices as well: whoever is silent in the middle of a transaction, be it asleep or gone with its machine,
    would hold the run's row from its next writer. It is cut off when its lease is out.
    """
    wait = max(1, round(busy_seconds))
    patience = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    patience |= {"tcp_user_timeout": 1000 * wait}

    def connect() -> Any:
        import psycopg

        connection = psycopg.connect(
            **{"application_name": "archsmith", **patience, **parameters, "client_encoding": "utf8"}, autocommit=True
        )
        # Never less than a busy driver itself takes between two statements.
        silence = min(max(3000, round(1000 * lease_seconds)), 2**31 - 1)
        connection.execute(f"SET lock_timeout = {1000 * wait}; SET idle_in_transaction_session_timeout = {silence}")
        connection.autocommit = False
        return connection

    return connect
