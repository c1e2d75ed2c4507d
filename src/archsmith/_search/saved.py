"""What a rule that stops children early has saved, counted from the record alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsmith.core.store import RunReader
from archsmith.core.trial import Trial, TrialState


@dataclass(frozen=True)
class Saved:
    """Epochs that were trained, and those that the same children would have taken to their ends.

    Children that failed, or that a budget in seconds cut off, would have ended as they did without a rule; copies of earlier
    children took nothing. So neither saves anything.

    Args:
        rule: its name.
        children: how many were trained, for one epoch at least.
        stopped: those of them that the rule stopped.
        aside: those that it put aside and that may still go on.
        epochs: that were trained.
        again: those of them that were trained a second time, as a child began anew.
        whole: that the children would have taken without the rule.
    """

    rule: str
    children: int
    stopped: int
    aside: int
    epochs: float
    again: float
    whole: float

    @property
    def share(self) -> float:
        """Of the epochs without the rule, how many were saved; below 0 where more were trained again than saved."""
        return 1 - self.epochs / self.whole if self.whole else 0.0

    def __str__(self) -> str:
        stopped = f"{self.stopped:,} of {self.children:,} children stopped by {self.rule}"
        aside = f", {self.aside:,} put aside" if self.aside else ""
        again = f", {self.again:,g} of them a second time" if self.again else ""
        fewer = f"{abs(100 * self.share):.0f} % {'fewer' if self.share >= 0 else 'more'}"
        return f"{stopped}{aside}: {self.epochs:,g} epochs trained{again} in place of {self.whole:,g} ({fewer})"


class Savings:
    """Counts what is saved, trial by trial.

    Args:
        config: the run's configuration.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        rule = config.get("stopping")
        self._rule = rule if isinstance(rule, Mapping) else None
        known = (config.get("child_epochs"), (self._rule or {}).get("maximum"))
        self._child_epochs = next((n for n in known if isinstance(n, int) and n > 0), None)
        cost = config.get("epoch_cost")
        self._epoch_cost = (
            cost if isinstance(cost, int) and cost > 0 else 1
        )  # passes over the data, for a cross-validation
        self._children = self._stopped = self._aside = self._cut = self._short = self._longest = 0
        self._epochs = self._again = self._done = 0.0

    def count(self, trial: Trial) -> None:
        """Take in one trial of the run."""
        result = trial.result
        if self._rule is None or result is None or result.copied_from is not None:
            return
        length = len(result.curve)
        took = max(result.cost.epochs, self._epoch_cost * length + result.cost.epochs_again)
        self._children += took > 0
        self._epochs += took
        self._again += result.cost.epochs_again
        self._done += took - result.cost.epochs_again
        self._longest = max(self._longest, length)
        stopped = trial.state is TrialState.STOPPED and result.stopped_by == "rule"
        if stopped or not trial.state.is_finished:  # it was put aside, or goes on from there
            self._stopped += stopped
            self._aside += trial.state is TrialState.PAUSED
            self._cut += 1
            self._short += length

    def saved(self) -> Saved | None:
        """What was saved until now; None where no rule was asked."""
        if self._rule is None:
            return None
        rule = str(self._rule.get("type", "")).replace(":", ".").rpartition(".")[2]
        child_epochs = self._child_epochs or self._longest  # of an evaluator that does not say, as far as one came
        whole = self._done + self._epoch_cost * (self._cut * child_epochs - self._short)
        return Saved(rule, self._children, self._stopped, self._aside, self._epochs, self._again, whole)


def saved(run: RunReader) -> Saved | None:
    """What the run's rule has saved; None where it has none."""
    config = run.summary().config
    if not config.get("stopping"):
        return None
    savings = Savings(config)
    for trial in run.trials():
        savings.count(trial)
    return savings.saved()
