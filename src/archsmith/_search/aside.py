"""Early stopping in the loop: which children a rule has put aside, which of them goes on, and what becomes of the others.

A child that is put aside is not told to the searcher: it is neither good nor bad yet. It goes on when the rule promotes
it, before anything new is proposed. When nothing can be proposed, and the rule promotes none, those that are still aside
are stopped with what they came to, and told. The rule knows nothing but what is in the record, so that a run which was
killed goes on as it would have gone on.
"""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.errors import StoreError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Progress
from archsmith.core.stopping import LiveRule, Verdict
from archsmith.core.store import RunWriter
from archsmith.core.trial import Result, Trial, TrialState

LEAST_SECONDS = 1e-3  # of a limit that its earlier pieces used up: it ends at its first look


class Aside:
    """The children that a rule put aside, for one session of a run.

    Args:
        rule: what decides; None: all are trained to their end.
        run: whose record says what there is.
    """

    def __init__(self, rule: LiveRule | None, run: RunWriter) -> None:
        self._rule = rule
        self._run = run
        self._paused = {trial.number: trial for trial in run.unfinished() if trial.state is TrialState.PAUSED}
        self._stopping: dict[int, str] = {}  # what ended it, by trial
        self._done = run.summary().counts["done"]
        if rule is not None:
            for trial in run.trials():
                if trial.state.is_finished or trial.state is TrialState.PAUSED:
                    rule.told(trial)

    @property
    def epochs(self) -> float:
        """What those have taken that are aside: the record counts it when they are finished."""
        return sum(trial.result.cost.epochs for trial in self._paused.values() if trial.result is not None)

    def until(self, trial: Trial) -> int | None:
        """After how many epochs the trial is put aside if it begins, or goes on, now."""
        return None if self._rule is None else self._rule.until(trial.number)

    def going_on(self) -> Trial | None:
        """A child that the rule promotes: it is no longer aside."""
        number = None if self._rule is None or not self._paused else self._rule.promoted()
        return None if number is None else self._taken(number)

    def last(self) -> Trial | None:
        """The child that promises most, where no other was trained to its end: a search shall have a winner."""
        number = None if self._rule is None or self._done or not self._paused else self._rule.favourite()
        return None if number is None else self._taken(number)

    def put(self, trial: Trial) -> Trial:
        """Put a child aside that ran; gives it as it was recorded."""
        recorded = self._paused[trial.number] = self._run.pause(trial)
        if self._rule is not None:
            self._rule.told(recorded)
        return recorded

    def stopped(self, by: str) -> list[Trial]:
        """All that are aside, as stopped with what they came to, by number; none is aside then. While no child runs."""
        self._paused.clear()
        return [
            replace(t, state=TrialState.STOPPED, result=replace(t.result or Result(), checkpoint=None, stopped_by=by))
            for t in self._run.unfinished()
            if t.state is TrialState.PAUSED
        ]

    def told(self, trial: Trial) -> None:
        """A trial has finished."""
        self._done += trial.state is TrialState.DONE
        if self._rule is not None:
            self._rule.told(trial)

    def hopeless(self, event: Progress) -> bool:
        """Whether a running child shall be stopped after this epoch."""
        if self._rule is None or event.trial in self._stopping:
            return False
        verdict = self._rule.reported(event.trial, event.epoch, event.metrics)
        return verdict is Verdict.STOP and not event.heard

    def stopping(self, number: int, by: str) -> None:
        """A running child is being stopped; the first reason counts."""
        self._stopping.setdefault(number, by)

    def ended_by(self, number: int) -> str | None:
        """What stopped a child that ended now."""
        return self._stopping.pop(number, None)

    def _taken(self, number: int) -> Trial:
        trial = self._paused.pop(number, None)
        if trial is None:
            raise StoreError(f"the rule promoted trial {number}, which was not put aside")
        return trial


def what_is_left(limits: Limits, before: Result | None) -> Limits:
    """The limits of a child that goes on: the seconds of its earlier pieces count, unless it begins anew."""
    if limits.seconds is None or before is None or before.checkpoint is None:
        return limits
    return replace(limits, seconds=max(LEAST_SECONDS, limits.seconds - before.cost.seconds))
