"""What the store asks of a database, and what is the same in all of them: the version of their tables.

`sqlite.py` and `postgres.py` are the two there are. Each says in its own way how a transaction is begun and, where a
server can go away, begun again; how a run's one writer is known; and what went wrong, in words.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Select, insert, select

import archsmith
from archsmith.core.errors import CorruptStore, NewerStore
from archsmith.store.migrations import migrate
from archsmith.store.tables import SCHEMA, meta, metadata

T = TypeVar("T")


class Writing(Protocol):
    """A connection that writes, used by one thread."""

    def transact(self, work: Callable[[Connection], T], landed: Callable[[Connection], T | None] | None = None) -> T:
        """Do the work in one transaction and give what it gives. An error changes nothing.

        Where a connection is lost, the work is done again on another. `landed` is asked first then, in the same
        transaction: whether the first time was committed after all, and only the word of it was lost. It gives what
        the work would have given, or None when it has to be done.
        """
        ...

    def close(self) -> None:
        """Let the connection go. Safe to call twice."""
        ...


class Claim(Protocol):
    """The right to write one run, which one writer has at a time.

    Args:
        token: drawn for this writer alone. The run's row carries it, and each transaction checks that it still does.
    """

    token: str

    def take(self, row: Any | None) -> dict[str, Any]:
        """Take the right, within the transaction that read the run's row (None: of a run that is being made).

        Gives what the row has to say while it is held. Raises RunLocked.
        """
        ...

    def keep(self, run: int) -> None:
        """From now on keep it, for the run of this number, until it is let go."""
        ...

    def let_go(self) -> None:
        """Stop keeping it. Safe to call twice, and when it was never taken."""
        ...


class Database(Protocol):
    """Where the tables are. Making one touches nothing."""

    @property
    def url(self) -> str:
        """How to open it again; never with a password."""
        ...

    @property
    def beside(self) -> str | None:
        """Where weights are kept when nobody said where; None: nowhere."""
        ...

    @property
    def linked(self) -> str | None:
        """The folder that `beside` would be next to the link that the store was opened by; None if it was opened by its own name."""
        ...

    def is_there(self) -> bool:
        """Whether there is a store to read; false for one that is still to be made."""
        ...

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read, and give what the work gives. Each statement sees what was committed when it began."""
        ...

    def runs(self) -> Select[Any]:
        """The rows of runs: the columns that a store of this version has, and `clock`, where leases have one.

        To be asked within `read`, or while writing.
        """
        ...

    def writing(self, *, create: bool = False) -> Writing:
        """A connection that writes, to tables of today's version: older ones are brought up to it, and with `create`
        missing ones are made."""
        ...

    def claim(self, name: str) -> Claim:
        """The right to write the run of this name, yet to be taken."""
        ...

    def is_held(self, row: Any) -> bool:
        """Whether a writer holds the run of this row."""
        ...

    def origin(self, connection: Connection) -> str:
        """Distinguishes this database from its copies, also after a move."""
        ...


def version_of(connection: Connection, where: str) -> int:
    """The version of the tables, one that we know. Raises CorruptStore and NewerStore."""
    found = {row.key: row.value for row in connection.execute(select(meta))}
    version = found.get("schema")
    if not isinstance(version, str) or not version.isdecimal() or len(version) > 9 or int(version) < 1:
        raise CorruptStore(f"the store {where} is damaged: its version is {version!r:.100}")
    if int(version) > SCHEMA:
        raise NewerStore(
            f"the store {where} is of version {int(version)}, written by a later archsmith; archsmith "
            f"{archsmith.__version__} knows versions up to {SCHEMA}. Upgrade it: pip install --upgrade archsmith"
        )
    return int(version)


def make_tables(connection: Connection) -> None:
    """Make the tables, of today's version."""
    metadata.create_all(connection)
    rows = {"schema": str(SCHEMA), "created_by": f"archsmith {archsmith.__version__}"}
    connection.execute(insert(meta), [{"key": key, "value": value} for key, value in rows.items()])
    make_id(connection)


def id_of(connection: Connection) -> str | None:
    """The id of the store and of all its copies; None if no recent version has written to it."""
    found: str | None = connection.scalar(select(meta.c.value).where(meta.c.key == "id"))
    return found


def make_id(connection: Connection) -> str:
    """The id of the store, drawn where it has none, within a transaction."""
    connection.execute(select(meta).where(meta.c.key == "schema").with_for_update())  # one at a time
    found = id_of(connection)
    if found is None:
        found = uuid.uuid4().hex
        connection.execute(insert(meta), {"key": "id", "value": found})
    return found


def bring_up(connection: Connection, where: str) -> None:
    """Bring older tables up to today's version, within the transaction that is open."""
    migrate(connection, version_of(connection, where))
