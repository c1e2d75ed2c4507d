"""Stores: what has happened. SQLite by default, PostgreSQL for a team; in memory for tests and quick loops."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from archsmith.core.artifacts import artifact_address, is_same_address
from archsmith.core.errors import UsageError
from archsmith.core.shown import without_passwords
from archsmith.core.store import Store
from archsmith.store.memory import MemoryStore

if TYPE_CHECKING:
    from archsmith.store.sql import SQLStore

__all__ = ["MemoryStore", "SQLStore", "open_store"]

_SUPPORTED = (
    'a store is "sqlite:///runs.db", the path of a file ending in .db or .sqlite, "postgresql://user@host/database", or '
    '"memory://"'
)


def open_store(
    where: str | os.PathLike[str] | Store | None = None, *, artifacts: str | os.PathLike[str] | None = None
) -> Store:
    """The store at a URL or a path; a store is given back as it is, and None is a fresh one in memory.

    Opening touches nothing: the file, or the tables in a database, appear with the first run. "sqlite:///runs.db" is
    relative to the current folder, "sqlite:////home/me/runs.db" (four slashes) is absolute. What follows a ? in the URL
    of a database goes to libpq, such as ?sslmode=require; leave the password out of it, and put it into PGPASSWORD or
    ~/.pgpass.

    Args:
        where: the URL, the path or the store.
        artifacts: where weights are kept: a folder, or an address such as "s3://bucket/folder". The first writer that is
            given one has the store remember it. None: what the store remembers; a file that remembers none has the
            folder beside it, and a database has none.

    Raises:
        UsageError: for anything else, and for a store given whose weights are elsewhere.
    """
    if where is None:
        return MemoryStore(artifacts=artifacts)
    if not isinstance(where, str | os.PathLike):
        if not all(hasattr(where, name) for name in ("create", "write", "read", "runs")):
            raise UsageError(f"{_SUPPORTED}; got {where!r}")
        if artifacts is not None:
            given, own = artifact_address(artifacts), where.artifacts
            if own is None or not is_same_address(own, given):
                raise UsageError(f"the store that was given keeps its weights in {own}; got {artifacts=}")
        return where
    text = os.fspath(where)
    if text == "memory://":
        return MemoryStore(artifacts=artifacts)
    if not text.startswith(("postgresql:", "postgresql+", "postgres:")):
        text = _path(text)
    from archsmith.store.sql import SQLStore  # SQLAlchemy takes a fifth of a second to import

    return SQLStore(text, artifacts=artifacts)


def _path(text: str) -> str:
    path = text.removeprefix("sqlite:///") if text.startswith("sqlite:///") else text
    if "://" in path or path.startswith("sqlite:") or (path == text and not path.endswith((".db", ".sqlite"))):
        raise UsageError(f"{_SUPPORTED}; got {without_passwords(text)!r}")
    if path in ("", ":memory:"):
        raise UsageError(f'a store in memory is "memory://"; {_SUPPORTED}; got {text!r}')
    return path


def __getattr__(name: str) -> object:
    if name == "SQLStore":
        from archsmith.store.sql import SQLStore

        return SQLStore
    raise AttributeError(f"module 'archsmith.store' has no attribute {name!r}")
