"""Names what changed in a data set, from a digest of each file or part before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

LISTED = 3  # names shown for each kind of change
MOST_FILES = 20_000  # the most files that a record names one by one; above that it names folders

DOCUMENT = "data-contents"
"""The document of a run with the digests of the data it began with."""


@runtime_checkable
class HasContents(Protocol):
    """An evaluator that lists the parts of its data."""

    def data_contents(self) -> Mapping[str, str]:
        """A short digest of each file, or of each array or part of a text, by name."""
        ...


def contents_of(evaluator: object) -> dict[str, str]:
    """The digests of an evaluator's data, few enough for a record; empty if it does not list them."""
    contents = evaluator.data_contents() if isinstance(evaluator, HasContents) else {}
    if len(contents) <= MOST_FILES:
        return dict(contents)
    folders: dict[str, list[str]] = {}
    for name in sorted(contents):
        folders.setdefault(name.rpartition("/")[0], []).append(f"{name} {contents[name]}")
    return {
        f"{folder}/": f"{len(lines):,} files, {hashlib.sha256('|'.join(lines).encode()).hexdigest()[:16]}"
        for folder, lines in folders.items()
    }


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The names that were added, removed and changed: "2 added (a.png, b.png), 1 changed (c.png)"; "" for none."""
    kinds = {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in before.keys() & after.keys() if before[name] != after[name]),
    }
    return ", ".join(f"{len(names):,} {kind} ({_listed(names)})" for kind, names in kinds.items() if names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
