"""Which weights stay: those of each run's best trials, those that a searcher may still hand on to children, those that
children which were put aside go on from, and those that `finish` trained. The rest go, oldest first, once the folder is
over its cap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archsmith._search.parents import DOCUMENT, since
from archsmith.core.artifacts import open_artifacts
from archsmith.core.store import Store

BEST_PER_RUN = 25


def collect(store: Store) -> list[str]:
    """Remove weights that nothing needs from the store's folder while it is over its cap; gives their digests."""
    if store.artifacts is None:
        return []
    return open_artifacts(store.artifacts).collect(needed(store))


def needed(store: Store) -> set[str]:
    """The digests that a run's best trials, those that are not finished, and its documents name."""
    digests: set[str] = set()
    for summary in store.runs():
        reader = store.read(summary.name)
        digests.update(t.result.artifact for t in reader.top(BEST_PER_RUN) if t.result and t.result.artifact)
        if summary.config.get("stopping") and any(summary.counts.get(state) for state in ("paused", "running")):
            unfinished = (trial.result for trial in reader.trials() if not trial.state.is_finished)
            digests.update(result.checkpoint for result in unfinished if result is not None and result.checkpoint)
        for key in reader.documents():
            document = reader.document(key)
            digests.update(_named(document))
            if key == DOCUMENT:
                digests.update(since(reader, document))
    return digests


def _named(document: Any) -> Iterator[str]:
    """Every value of a key "artifact", at any depth."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "artifact" and isinstance(value, str):
                yield value
            else:
                yield from _named(value)
    elif isinstance(document, list):
        for value in document:
            yield from _named(value)
