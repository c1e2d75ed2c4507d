"""Detects a write-ahead log that does not belong to its database: left by a killed writer, before the file was replaced.

SQLite does not detect this. It would take the pages in the log for those of the file, and write them there.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from archsmith.core.errors import CorruptStore

_CANNOT_TELL = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR")


def check_log(path: Path) -> None:
    """Raise CorruptStore if the log next to a file belongs to another one. Changes neither."""
    log = Path(f"{path}-wal")
    if not (log.exists() and log.stat().st_size) or _is_one_store(path, "mode=ro"):
        return
    if _is_one_store(path, "mode=ro&immutable=1"):  # without the log
        raise CorruptStore(
            f"the log {log} is not that of the store {path}: the file was replaced, or restored from a copy, after its last "
            f"writer was killed. Move the log away ({log.name} to {log.name}.old), then run the command again"
        )


def _is_one_store(path: Path, mode: str) -> bool:
    """Whether all runs were written to this store and have all their events; also True if that cannot be told."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            store = connection.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
            writers = connection.execute("SELECT writer FROM runs").fetchall()
            counts = "SELECT max(seq), count(*) FROM events GROUP BY run"
            if any(last != number for last, number in connection.execute(counts)):
                return False
    except sqlite3.Error as error:
        return (error.sqlite_errorname or "").startswith(_CANNOT_TELL)
    return all(_store_of(writer) in (None, store and store[0]) for (writer,) in writers)


def _store_of(writer: object) -> object:
    """The id of the store that a run was written to, from the JSON of its writer, or None."""
    try:
        found = json.loads(writer) if isinstance(writer, str) else None
    except (ValueError, RecursionError):
        return None
    return found.get("store") if isinstance(found, dict) else None
