"""Where a store keeps its weights: an address that the store itself remembers, so that all who open it find the same."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection, insert, select

from archsmith.core.errors import UsageError
from archsmith.store.database import Database
from archsmith.store.tables import meta


class Place:
    """The address of a store's weights.

    Args:
        database: the store's.
        given: a folder or an address, as the caller gave it; None: whatever the store says.
    """

    def __init__(self, database: Database, given: str | os.PathLike[str] | None) -> None:
        self._database = database
        self.given = None if given is None else as_address(given)
        self._kept: str | None = None

    def address(self) -> str | None:
        """The address. Raises UsageError when the one given is not the store's."""
        if self._kept is None and self._database.is_there():
            self._kept = self._database.read(_kept)
        self._check(self._kept)
        return self._kept or self.given or self._database.beside

    def remember(self, connection: Connection) -> None:
        """Have the store remember the address that was given, within a transaction. Raises UsageError as above."""
        if self.given is None:
            return
        kept = _kept(connection)
        self._check(kept)
        if kept is None:
            connection.execute(insert(meta), {"key": "artifacts", "value": self.given})

    def _check(self, kept: str | None) -> None:
        given, beside = self.given, self._database.beside
        if kept is None and beside is not None and given != beside and _has_weights(beside):
            kept = beside  # nobody ever named another, and weights are there that trials refer to
        if given is not None and kept is not None and given != kept:
            raise UsageError(
                f"the store {self._database} keeps its weights in {kept}, and its trials refer to them there; got "
                f"artifacts={given!r}. Leave artifacts out, or use another store"
            )


def as_address(given: str | os.PathLike[str]) -> str:
    """A folder as its absolute path, another address as it is. Raises UsageError for one with a password in it."""
    text = os.fspath(given)
    if not isinstance(text, str) or not text or not text.isprintable():
        raise UsageError(f"artifacts is a folder or an address such as s3://bucket/folder, got {given!r}")
    if "://" not in text:
        return str(Path(text).expanduser().absolute())
    if urlsplit(text).password is not None:
        raise UsageError(
            "the address of artifacts has a password in it, and it would be kept in the store for all to read; give "
            "credentials in the environment, or in the files of your cloud's tools"
        )
    return text.rstrip("/")


def _kept(connection: Connection) -> str | None:
    found: str | None = connection.scalar(select(meta.c.value).where(meta.c.key == "artifacts"))
    return found


def _has_weights(folder: str) -> bool:
    return any(Path(folder).glob("*.safetensors"))
