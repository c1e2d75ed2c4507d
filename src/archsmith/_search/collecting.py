"""Removes weights, the oldest first, while a folder is over its cap.

Never removed are, for every store that keeps weights there: those of each run's best trials, of trials that lack a reward,
of trials that a searcher may still use as parents, the checkpoints of paused trials, and those that `finish` trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress

from archsmith._search.parents import DOCUMENT, since
from archsmith.core.artifacts import digests_in, open_artifacts
from archsmith.core.errors import ArchsmithError, UnknownName
from archsmith.core.store import Registered, RunReader, Store
from archsmith.store.registered import open_registered

BEST_PER_RUN = 25


def collect(store: Store) -> list[str]:
    """Remove weights that no store needs from the store's folder while it is over its cap; returns their digests.

    If one of the stores that keep weights there cannot be read, none is removed, and a warning names that store.
    """
    if store.artifacts is None:
        return []
    artifacts = open_artifacts(store.artifacts)
    if artifacts.size() <= artifacts.cap_bytes:
        return artifacts.collect(None)
    if isinstance(store, Registered):
        store.register()
    registry = artifacts.registry()
    opened = open_registered(store.artifacts, registry, store)
    missing, keep, recorded = list(opened.missing), set[str](), set[str]()
    for other in opened.stores:
        try:
            keep |= needed(other)
            if registry.earlier:
                recorded |= set(_recorded(other))
        except ArchsmithError as error:
            if other is store:
                raise
            missing.append(f"the store {other.url} cannot be read: {error}")
    if missing:
        warnings.warn(
            f"the weights in {store.artifacts} take more than {artifacts.cap_bytes / 2**30:.3g} GiB, and none is removed, "
            f"since they may be those of a store that cannot be asked: {'; '.join(missing)}. Make it readable again, or, "
            "if it is gone for good, delete the file of its registration",
            stacklevel=2,
        )
        return artifacts.collect(None)
    return artifacts.collect(keep | (registry.earlier - recorded), registry=registry)


def needed(store: Store) -> set[str]:
    """The digests that the best trials, the unfinished trials and the documents of each run refer to."""
    digests: set[str] = set()
    for summary in store.runs():
        reader = store.read(summary.name)
        for trial in reader.top(BEST_PER_RUN):
            if trial.result is not None:
                digests.update(filter(None, (trial.result.artifact, trial.result.checkpoint)))
        if any(summary.counts.get(state) for state in ("proposed", "running", "paused", "failed")):
            digests.update(_of_unfinished(reader))
        for key in reader.documents():
            document = reader.document(key)
            digests.update(digests_in(document))
            if key == DOCUMENT:
                digests.update(since(reader, document))
    return digests


def _of_unfinished(reader: RunReader) -> Iterator[str]:
    """The checkpoints of paused trials, the weights that unfinished trials may read of their parents, and those of trials
    that lack a reward."""
    parents = set[int]()
    for trial in reader.trials():
        if trial.parent is not None and not trial.state.is_finished:
            parents.add(trial.parent)
        if trial.result is None:
            continue
        if trial.result.checkpoint and not trial.state.is_finished:
            yield trial.result.checkpoint
        if trial.result.artifact and trial.lacks_reward:
            yield trial.result.artifact
    for number in parents:
        with suppress(UnknownName):  # a searcher may name any number
            result = reader.trial(number).result
            if result is not None and result.artifact:
                yield result.artifact


def _recorded(store: Store) -> Iterator[str]:
    """All digests in a store's record, needed or not."""
    for summary in store.runs():
        reader: RunReader = store.read(summary.name)
        for trial in reader.trials():
            if trial.result is not None:
                yield from filter(None, (trial.result.artifact, trial.result.checkpoint))
        for key in reader.documents():
            yield from digests_in(reader.document(key))
