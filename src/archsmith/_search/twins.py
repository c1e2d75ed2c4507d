"""Proposals that are a child which was trained already: told at once with its result, and not trained twice.

Only of spaces that say which of their architectures are the same child (`core.parts.canonical`): two formulas for one
function, for instance. A twin counts as a trial, costs nothing, and names the trial whose result it has. The twin of a
child that a rule put aside is stopped with what that one has come to: to wait for it could be to wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from archsmith.core.errors import IllegalGenotype
from archsmith.core.genotype import Genotype
from archsmith.core.parts import canonical
from archsmith.core.space import Space, decode
from archsmith.core.trial import Cost, Trial, TrialState


class Twins:
    """What was trained and what is being trained, by canonical form, for one session of a run.

    Args:
        space: of the run.
        trials: those of the run, so far as it has come.
    """

    def __init__(self, space: Space, trials: Iterable[Trial]) -> None:
        self._space = space
        self._watches = getattr(space, "canonical", None) is not None
        self._trained: dict[str, Trial] = {}
        self._aside: dict[str, Trial] = {}
        self._training: dict[str, int] = {}
        self._waiting: dict[int, list[Trial]] = {}
        if self._watches:
            for trial in trials:
                self._learn(trial)

    def admit(self, trial: Trial) -> Trial | bool:
        """Whether a proposed trial shall be trained: True; or the trial as it ended, since it was trained already; or False:
        it waits for a twin in training, and comes back from `told`."""
        form = self._form(trial.genotype)
        if form is None:
            return True
        if trial.state is TrialState.PAUSED:  # it goes on
            self._aside.pop(form, None)
        elif (known := self._trained.get(form) or self._aside.get(form)) is not None:
            return _copy(trial, known)
        if (first := self._training.get(form)) is not None:
            self._waiting.setdefault(first, []).append(trial)
            return False
        self._training[form] = trial.number
        return True

    def told(self, trial: Trial) -> list[Trial]:
        """Take in a finished or paused trial; gives those that waited for it, to be admitted again."""
        if not self._watches:
            return []
        form = self._form(trial.genotype)
        if form is not None and self._training.get(form) == trial.number:
            del self._training[form]
        if form is not None and (known := self._aside.get(form)) is not None and known.number == trial.number:
            del self._aside[form]
        self._learn(trial)
        return self._waiting.pop(trial.number, [])

    @property
    def waiting(self) -> int:
        """How many wait for a twin."""
        return sum(map(len, self._waiting.values()))

    def _learn(self, trial: Trial) -> None:
        if trial.result is None or trial.result.copied_from is not None:
            return
        known = {TrialState.DONE: self._trained, TrialState.PAUSED: self._aside}.get(trial.state)
        if known is not None and (form := self._form(trial.genotype)) is not None:
            known.setdefault(form, trial)

    def _form(self, genotype: Genotype) -> str | None:
        if not self._watches:
            return None
        try:
            return canonical(self._space, decode(self._space, genotype))
        except IllegalGenotype:
            return None  # the child's own failure will say why


def _copy(trial: Trial, known: Trial) -> Trial:
    assert known.result is not None
    # The weights stay the first one's: they are kept, and collected, for it.
    result = replace(known.result, cost=Cost(), artifact=None, checkpoint=None, copied_from=known.number)
    if known.state is TrialState.PAUSED:
        return replace(trial, state=TrialState.STOPPED, result=replace(result, stopped_by="rule"))
    return replace(trial, state=TrialState.DONE, reward=known.reward, result=result)
