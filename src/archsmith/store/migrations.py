"""Steps from one version of the tables to the next, run inside the transaction of the first writer that meets an older store.

Readers never write: they read an older store as it is, by the columns that it has (`columns_of_runs`). A process of an
older archsmith that is writing meanwhile goes on unharmed as long as steps only add what may be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Connection, update

from archsmith.store.tables import ADDED, SCHEMA, meta, runs


def migrate(connection: Connection, version: int) -> None:
    """Bring a store of this version up to `SCHEMA`, within the transaction that is open."""
    for step in range(version + 1, SCHEMA + 1):
        STEPS[step](connection)
    if version < SCHEMA:
        connection.execute(update(meta).where(meta.c.key == "schema").values(value=str(SCHEMA)))


def columns_of_runs(version: int) -> list[Column[Any]]:
    """The columns of `runs` that a store of this version has."""
    return [column for column in runs.c if ADDED.get(column.name, 1) <= version]


def _to_2(connection: Connection) -> None:
    """Trials that are paused, and who may write a run."""
    _add_to_runs(connection, "paused INTEGER NOT NULL DEFAULT 0", "token TEXT", "lease_until FLOAT")


def _add_to_runs(connection: Connection, *columns: str) -> None:
    schema = connection.get_execution_options().get("schema_translate_map", {}).get(None)
    table = "runs" if schema is None else f"{schema}.runs"
    for column in columns:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")


STEPS: dict[int, Callable[[Connection], None]] = {2: _to_2}
"""By the version that a step leads to."""
