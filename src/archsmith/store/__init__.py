"""Stores: what has happened. SQLite by default; in memory for tests and quick loops."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from archsmith.core.errors import UsageError
from archsmith.core.store import Store
from archsmith.store.memory import MemoryStore

if TYPE_CHECKING:
    from archsmith.store.sql import SQLStore

__all__ = ["MemoryStore", "SQLStore", "open_store"]

_SUPPORTED = 'a store is "sqlite:///runs.db", the path of a file ending in .db or .sqlite, or "memory://"'


def open_store(where: str | os.PathLike[str] | Store | None = None) -> Store:
    """The store at a URL or a path; a store is given back as it is, and None is a fresh one in memory.

    Opening touches nothing: the file appears with the first run. "sqlite:///runs.db" is relative to the current
    folder, "sqlite:////home/me/runs.db" (four slashes) is absolute. Raises UsageError for anything else.
    """
    if where is None:
        return MemoryStore()
    if not isinstance(where, str | os.PathLike):
        if not all(hasattr(where, name) for name in ("create", "write", "read", "runs")):
            raise UsageError(f"{_SUPPORTED}; got {where!r}")
        return where
    text = os.fspath(where)
    if text == "memory://":
        return MemoryStore()
    if text.startswith(("postgresql:", "postgresql+", "postgres:")):
        raise UsageError(f"PostgreSQL stores are not available in this version; {_SUPPORTED}")
    path = text.removeprefix("sqlite:///") if text.startswith("sqlite:///") else text
    if "://" in path or path.startswith("sqlite:") or (path == text and not path.endswith((".db", ".sqlite"))):
        raise UsageError(f"{_SUPPORTED}; got {text!r}")
    if path in ("", ":memory:"):
        raise UsageError(f'a store in memory is "memory://"; {_SUPPORTED}; got {text!r}')
    from archsmith.store.sql import SQLStore  # SQLAlchemy takes a fifth of a second to import

    return SQLStore(path)


def __getattr__(name: str) -> object:
    if name == "SQLStore":
        from archsmith.store.sql import SQLStore

        return SQLStore
    raise AttributeError(f"module 'archsmith.store' has no attribute {name!r}")
