"""The stores that keep their artifacts at one address. Each has a small file there, and a collection asks all of them.

stores/<key>.json       a store: how to open and identify it
stores/earlier.json     the digests of the artifacts that are older than the first registration
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

FOLDER = "stores"
EARLIER = "earlier.json"


@dataclass(frozen=True, slots=True)
class Registration:
    """A store that keeps artifacts at an address.

    Args:
        url: how to open the store on `host`; without a password.
        host: the machine that registered it.
        id: drawn at random when the store was made. Copies of a store have the same id.
        origin: distinguishes a store from its copies, also after a move: the inode of its file, or the server and database.
        folder: distinguishes the folder of artifacts from its copies: its inode; empty for a remote address.
        relative: the path of the store's file from that folder; empty unless both are local.
    """

    url: str
    host: str
    id: str
    origin: str
    folder: str = ""
    relative: str = ""

    @property
    def key(self) -> str:
        """The name of its file. It stays the same when the store moves, which then replaces its earlier registration."""
        return hashlib.sha256(f"{self.id}\n{self.origin}".encode()).hexdigest()[:16] + ".json"

    def is_same_store(self, other: Registration) -> bool:
        """Whether both are one store, under any name."""
        return (self.id, self.origin) == (other.id, other.origin)

    def is_same_name(self, other: Registration) -> bool:
        """Whether both have one name and one id: a store before and after it was restored from a copy."""
        return (self.id, self.url, self.host) == (other.id, other.url, other.host)

    def supersedes(self, earlier: Registration | None) -> bool:
        """Whether an earlier registration is of this store before it was restored from a copy."""
        return earlier is not None and self.is_same_name(earlier) and not self.is_same_store(earlier)

    def in_folder(self, folder: Path) -> Registration:
        """The same with the fields that a local folder of artifacts fills in. The folder must exist."""
        file = self.url.removeprefix("sqlite:///")
        relative = "" if file == self.url else os.path.relpath(file, os.path.realpath(folder))
        return replace(self, folder=str(folder.stat().st_ino), relative=relative)

    def to_bytes(self) -> bytes:
        """The content of its file."""
        return json.dumps(asdict(self), indent=1).encode()


@dataclass(frozen=True, slots=True)
class Registry:
    """The stores at an address.

    Args:
        stores: by the name of the file; None for a file that cannot be read.
        earlier: the digests of the artifacts that are older than the first registration.
    """

    stores: Mapping[str, Registration | None]
    earlier: frozenset[str] = frozenset()


def registry_of(files: Mapping[str, bytes | None]) -> Registry:
    """The registry in these files, by name; None for the content of a file that cannot be read."""
    stores = {name: None if content is None else _registration(content) for name, content in files.items()}
    stores.pop(EARLIER, None)
    return Registry(stores, _digests(files.get(EARLIER)))


def earlier_to_bytes(digests: Collection[str]) -> bytes:
    """The content of `earlier.json`."""
    return json.dumps(sorted(digests)).encode()


def _registration(content: bytes) -> Registration | None:
    try:
        record = json.loads(content)
        texts = {field.name: record[field.name] for field in fields(Registration)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Registration(**texts) if all(isinstance(text, str) for text in texts.values()) else None


def _digests(content: bytes | None) -> frozenset[str]:
    try:
        listed = json.loads(content or b"[]")
    except (ValueError, RecursionError):
        return frozenset()
    return (
        frozenset(digest for digest in listed if isinstance(digest, str)) if isinstance(listed, list) else frozenset()
    )


def not_registered(store: str, error: Exception) -> str:
    """The warning about a store that could not be registered."""
    return (
        f"the store {store} could not be registered where its weights are, so another store that keeps weights there may "
        f"remove them: {error}"
    )
