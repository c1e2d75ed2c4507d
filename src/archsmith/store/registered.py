"""Opens all stores that keep weights at one address: registered ones, and older ones next to the folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from archsmith.core.artifact_registry import FOLDER, Registration, Registry
from archsmith.core.artifacts import artifact_address
from archsmith.core.errors import ArchsmithError
from archsmith.core.store import Registered, Store
from archsmith.store import open_store
from archsmith.store.holder import is_dead, is_this_process
from archsmith.store.memory import OPEN

_FILE = "sqlite:///"


@dataclass
class OpenedStores:
    """The stores at an address.

    Args:
        stores: those that could be opened.
        missing: a text for each of the others: which store, why, and the file of its registration.
    """

    stores: list[Store] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    _known: list[Registration] = field(default_factory=list, init=False)

    def add(self, store: Store) -> Registration | None:
        """Add an open store; returns its registration."""
        known = store.registration() if isinstance(store, Registered) else None
        if known is None or known not in self._known:
            self.stores.append(store)
        if known is not None and known not in self._known:
            self._known.append(known)
        return known

    def has(self, registration: Registration) -> bool:
        """Whether the registered store was opened, under any name."""
        return any(known.is_same_store(registration) for known in self._known)


def open_registered(address: str, registry: Registry, mine: Store) -> OpenedStores:
    """Open all stores that keep weights at an address.

    Args:
        address: a folder, or another address of artifacts.
        registry: the stores that registered there.
        mine: the store that asks, which need not be registered.
    """
    opened, place = OpenedStores(), artifact_address(address)
    folder = None if "://" in place else Path(os.path.realpath(place))
    opened.add(mine)
    for store in _never_registered(folder):
        opened.add(store)
    for name, registration in registry.stores.items():
        file = f"{place}/{FOLDER}/{name}"
        if registration is None:
            opened.missing.append(f"the registration {file} cannot be read")
        elif why := _opened(registration, folder, opened):
            opened.missing.append(f"the store {registration.url} on {registration.host} {why} (registered in {file})")
    return opened


def _opened(registration: Registration, folder: Path | None, opened: OpenedStores) -> str | None:
    """Open a registered store, also if it was moved; returns why it cannot be opened, or None."""
    if opened.has(registration):
        return None
    if registration.url == "memory://":
        return _opened_in_memory(registration, opened)
    here, why = registration.host == socket.gethostname(), "is not there any more"
    for url, is_it in _names(registration, folder, here):
        try:
            store = open_store(url)
            known = store.registration() if isinstance(store, Registered) else None
            if known is None or known.id != registration.id:
                continue
            if is_it or known.is_same_store(registration):
                opened.add(store)
        except (ArchsmithError, OSError) as error:
            why = f"cannot be opened: {error}"
            continue
        if is_it or opened.has(registration):
            return None
    return None if opened.has(registration) else why


def _names(registration: Registration, folder: Path | None, here: bool) -> Iterator[tuple[str, bool]]:
    """The URLs where a store may be, and whether a copy there counts as the store, since it was restored or moved along."""
    yield registration.url, here
    if folder is None or not registration.relative:
        return
    yield f"{_FILE}{os.path.normpath(folder / registration.relative)}", registration.folder != str(folder.stat().st_ino)
    for path in (Path(registration.url.removeprefix(_FILE)), folder / registration.relative):
        for file in _stores_in(path.parent, "*"):
            yield f"{_FILE}{file}", False


def _opened_in_memory(registration: Registration, opened: OpenedStores) -> str | None:
    store = OPEN.get(registration.id)
    if store is not None:
        opened.add(store)
        return None
    if is_dead(registration.origin) or is_this_process(registration.origin):  # its owner let it go
        return None
    return "is the memory of another process"


def _never_registered(folder: Path | None) -> Iterator[Store]:
    """The stores whose default folder this is. Earlier versions did not register them."""
    if folder is not None and folder.suffix == ".artifacts":
        for file in _stores_in(folder.parent, f"{folder.stem}.*"):
            if file.with_suffix(".artifacts") == folder:
                yield open_store(f"{_FILE}{file}")


def _stores_in(folder: Path, pattern: str) -> list[Path]:
    from archsmith.store.sqlite import stores_in

    return stores_in(folder, pattern)
