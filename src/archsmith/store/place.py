"""Where a store keeps its weights: an address that the store itself remembers, so that all who open it find the same."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection, insert, select

from archsmith.core.artifacts import SUFFIX, artifact_address, is_same_address
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
        self.given = None if given is None else artifact_address(given)
        self._kept: str | None = None

    def address(self) -> str | None:
        """The address. Raises UsageError when the one given is not the store's."""
        if self._kept is None and self._database.is_there():
            self._kept = self._database.read(_kept)
        self._check(self._kept)
        return self._kept or self.given or self._linked() or self._database.beside

    def remember(self, connection: Connection) -> None:
        """Have the store remember the address that was given, within a transaction. Raises UsageError as above."""
        kept = _kept(connection)
        self._check(kept)
        address = self.given or self._linked()
        if kept is None and address is not None:
            connection.execute(insert(meta), {"key": "artifacts", "value": address})

    def _linked(self) -> str | None:
        """The folder next to the link that the store was opened by, if an earlier version kept its weights there."""
        linked, beside = self._database.linked, self._database.beside
        return linked if linked and beside and _has_weights(linked) and not _has_weights(beside) else None

    def _check(self, kept: str | None) -> None:
        given, beside = self.given, self._database.beside
        if kept is None and beside is not None and _has_weights(beside):
            kept = beside  # nobody ever named another, and weights are there that trials refer to
        if given is not None and kept is not None and not is_same_address(given, kept):
            raise UsageError(
                f"the store {self._database} keeps its weights in {kept}, and its trials refer to them there; got "
                f"artifacts={given!r}. Leave artifacts out, or use another store"
            )


def _kept(connection: Connection) -> str | None:
    found: str | None = connection.scalar(select(meta.c.value).where(meta.c.key == "artifacts"))
    return found


def _has_weights(folder: str) -> bool:
    return any(Path(folder).glob(f"*{SUFFIX}"))
