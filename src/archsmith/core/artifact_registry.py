"""Which stores keep their artifacts at one address: each has a small file there, and none is collected without asking all.

stores/<key>.json       a store: how to open it, and what it is known by
stores/earlier.json     the digests that were there before the first store registered
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
        id: drawn when the store was made. A copy of it has the same.
        origin: what tells a store from its copies, wherever it is moved: the inode of its file, or the server and database.
        folder: what tells the folder of artifacts from its copies, its inode; empty for an address that is no folder.
        relative: the path of the store's file from that folder; empty where either is no local file.
    """

    url: str
    host: str
    id: str
    origin: str
    folder: str = ""
    relative: str = ""

    @property
    def key(self) -> str:
        """The name of its file: a store that moved replaces its earlier registration."""
        return hashlib.sha256(f"{self.id}\n{self.origin}".encode()).hexdigest()[:16] + ".json"

    def is_same_store(self, other: Registration) -> bool:
        """Whether both are one store, whatever it is called."""
        return (self.id, self.origin) == (other.id, other.origin)

    def is_same_name(self, other: Registration) -> bool:
        """Whether both are of one name and one history: a store, and what it became when it was restored from a copy."""
        return (self.id, self.url, self.host) == (other.id, other.url, other.host)

    def supersedes(self, earlier: Registration | None) -> bool:
        """Whether an earlier registration is of this store, before it was restored from a copy."""
        return earlier is not None and self.is_same_name(earlier) and not self.is_same_store(earlier)

    def in_folder(self, folder: Path) -> Registration:
        """The same with what a local folder of artifacts adds; the folder is there."""
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
        earlier: the digests of artifacts that were there before the first store registered.
    """

    stores: Mapping[str, Registration | None]
    earlier: frozenset[str] = frozenset()


def registry_of(files: Mapping[str, bytes | None]) -> Registry:
    """The registry that these files say, by name; None is a file that cannot be read."""
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
