"""Whether a space asks what it asked when a run was begun, and what changed where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.questions import DOCUMENT, edits_since
from archsmith.core.space import Space, decode
from archsmith.core.trial import Trial

if TYPE_CHECKING:
    from archsmith._search.run import Run


def check_same_space(run: Run, space: Space, *, trials: bool = False) -> None:
    """Raises UsageError, which names what changed and says how to go on, where a space is not the one that a run searched.

    Args:
        run, space: what is compared. A run from before questions were recorded is known by its trials alone.
        trials: whether every trial of the run is read by the space as well, which finds edits that the questions miss.
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
    """Why the space cannot read a trial that was legal; None where it can."""
    failure = trial.result.failure if trial.result is not None else None
    if failure is not None and failure.reason == "genotype":
        return None
    try:
        decode(space, trial.genotype)
    except IllegalGenotype as error:
        return f"trial {trial.number} does not fit it any more: {error}"
    return None
