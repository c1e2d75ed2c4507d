"""Weights that a child reads of the trial it was made from: where they are, and whose are still needed.

A record of whose are needed stands among the run's documents, since another run of the same store may be the one that
collects. It is renewed before each collection, and what was trained since then is needed as well, so that a kill at any
moment loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from archsmith.core.genotype import Genotype
from archsmith.core.searcher import LiveSearcher, NeedsParents
from archsmith.core.store import RunReader, RunWriter
from archsmith.core.trial import Trial

DOCUMENT = "needed-weights"


class Parents:
    """The weights of a run's trials, for one session of it.

    Args:
        run: the run.
        searcher: whose `needs()`, if it has it, says which trials may still become parents.
        proposed: how many trials there are when the session begins.
    """

    def __init__(self, run: RunWriter, searcher: LiveSearcher, proposed: int) -> None:
        self._run = run
        self._needs = searcher.needs if isinstance(searcher, NeedsParents) else None
        self._before = proposed
        self._kept: dict[int, str | None] = {}
        self._noted = False

    def of(self, trial: Trial) -> dict[int, str]:
        """The digest of what the trial's parent kept, by the parent's number; empty where there is none."""
        parent = trial.parent
        digest = None if parent is None else self._digest(parent)
        return {} if parent is None or digest is None else {parent: digest}

    def genotype_of(self, trial: Trial) -> Genotype | None:
        """The genotype of the trial's parent, if that kept weights."""
        parent = trial.parent
        return None if parent is None or self._digest(parent) is None else self._run.trial(parent).genotype

    def told(self, trial: Trial) -> bool:
        """Take in a finished trial, after the searcher has; whether it kept weights."""
        if trial.result is None or trial.result.artifact is None:
            return False
        self._kept[trial.number] = trial.result.artifact
        if not self._noted:
            self.note()
        return True

    def note(self) -> None:
        """Renew the record of what is needed."""
        if self._needs is None:
            return
        self._noted = True
        self._before = sum(self._run.summary().counts.values())  # all up to here can be looked up
        unfinished = self._run.unfinished()
        needed = self._needs() | {t.parent for t in unfinished if t.parent is not None}
        digests = {number: digest for number in sorted(needed) if (digest := self._digest(number)) is not None}
        self._kept = dict(digests)
        self._run.put_document(
            DOCUMENT,
            {
                "trials": self._before,
                "open": [trial.number for trial in unfinished],
                "weights": [{"trial": number, "artifact": digest} for number, digest in digests.items()],
            },
        )

    def _digest(self, number: int) -> str | None:
        if number not in self._kept:
            if number >= self._before:
                return None  # of this session, so it would be here
            result = self._run.trial(number).result
            self._kept[number] = None if result is None else result.artifact
        return self._kept[number]


def since(run: RunReader, document: Any) -> Iterator[str]:
    """The digests of what was kept after a record of what is needed was made."""
    if not isinstance(document, Mapping):
        return
    trials, unfinished = document.get("trials"), document.get("open")
    if type(trials) is not int or not isinstance(unfinished, list):
        return
    open_then = [run.trial(number) for number in unfinished if type(number) is int and 0 <= number < trials]
    for trial in [*open_then, *run.trials(trials)]:
        if trial.result is not None and trial.result.artifact is not None:
            yield trial.result.artifact
