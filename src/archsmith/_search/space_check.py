"""Compares the space of a resumed run with the one that it began with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.questions import DOCUMENT, edits_since
from archsmith.core.space import Space, decode
from archsmith.core.trial import Trial

if TYPE_CHECKING:
    from archsmith._search.run import Run


def check_same_space(run: Run, space: Space, *, trials: bool = False) -> None:
    """Raise UsageError, naming the edits, unless a space is the one that a run searched.

    Args:
        run: the run. If it is older than the record of questions, only its trials are compared.
        space: the space.
        trials: whether the space must also be able to read every trial, which finds edits that the questions miss.
    """
    recorded = run.reader.document(DOCUMENT)
    changes = edits_since(recorded, space) if recorded else []
    if not changes and (trials or not recorded):
        unread = next(filter(None, (_unread(space, trial) for trial in run.trials())), None)
        changes = [unread] if unread else []
    if changes:
        raise UsageError(
            f"run {run.name!r} was begun with another space: {'; '.join(changes)}. Give the space as it was, such as the "
            "file before the edit, or begin a new run under another name"
        )


def _unread(space: Space, trial: Trial) -> str | None:
    """Why the space cannot read a trial that was legal, or None."""
    failure = trial.result.failure if trial.result is not None else None
    if failure is not None and failure.reason == "genotype":
        return None
    try:
        decode(space, trial.genotype)
    except IllegalGenotype as error:
        return f"trial {trial.number} does not fit it any more: {error}"
    return None
