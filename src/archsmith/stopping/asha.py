"""Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2).

Children are trained for a few epochs and put aside; whenever a worker is free, one that is in the best 1/eta of those that
came as far goes on to eta times as many, the furthest first; where there is none, a new child begins. Nobody ever waits
for a rung to be full.

What the paper leaves to the reader:

- A search ends with children that were trained to their end, since only those have a reward. So the last rung is a whole
  training of R epochs, whether or not R is r * eta^k; the paper's is the largest r * eta^k that fits.
- Equal values go by the number of the trial.
- A child whose loss became NaN or infinite counts in the rung that it would have reached next, as the worst. One that
  failed for any other reason says nothing of its architecture, and does not count.
- Promoted children go on from their checkpoint, so a rung costs what lies between it and the one below.

A child that does not go on is told to the searcher as stopped and without a reward, when the run ends or when the searcher
has to wait for it. So a policy learns from the children alone that were trained to their end, and hears nothing of those
that fell behind: what they have in common becomes less likely only as the others become more so. Evolution never has one
as a parent, and its population fills more slowly. And early is not late: an architecture that learns slowly and ends well
is lost, the more of them the smaller the first rung.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UsageError
from archsmith.core.finish import Measure
from archsmith.core.stopping import Verdict
from archsmith.core.trial import Trial, TrialState
from archsmith.stopping.compared import Compared, compared, reports, whole

_Entry = tuple[float, int]  # minus the value, and the trial: in order of rank


@dataclass(frozen=True)
class ASHA:
    """A rule: the best 1/eta of each rung go on to eta times as many epochs.

    Args:
        eta: one in so many is promoted; the paper has 4, Hyperband's authors 3 or 4.
        minimum: the epochs of the first rung (r in the paper).
        maximum: of a whole training (R), where the evaluator does not say.
        metric: what is compared, as the epochs report it (default: the evaluator's measure, else "value").
        higher_is_better: whether more of it is better (default: as the measure has it, else True).
    """

    eta: int = 3
    minimum: int = 1
    maximum: int | None = None
    metric: str | None = None
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        whole("ASHA", "eta", self.eta, 2)
        whole("ASHA", "minimum", self.minimum, 1)
        if self.maximum is not None:
            whole("ASHA", "maximum", self.maximum, 2)
        compared("ASHA", self.metric, self.higher_is_better, None)

    def start(self, measure: Measure | None, epochs: int | None) -> LiveASHA:
        """A live rule. Raises UsageError where the evaluator's epochs are not known, or leave room for one rung alone."""
        reports("ASHA", epochs)
        if epochs is None:
            epochs = self.maximum
        elif self.maximum not in (None, epochs):
            raise UsageError(
                f"the evaluator trains for {epochs} epochs, and ASHA has maximum={self.maximum}; leave maximum out"
            )
        if epochs is None:
            raise UsageError(
                "the evaluator does not say for how many epochs it trains (a field `epochs`); give ASHA(maximum=...)"
            )
        if self.minimum >= epochs:
            raise UsageError(
                f"the first rung of ASHA is after minimum={self.minimum} epochs, and a whole training has {epochs}: nothing "
                "would ever be stopped; give a smaller minimum"
            )
        return LiveASHA(self.eta, self.rungs(epochs), compared("ASHA", self.metric, self.higher_is_better, measure))

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs after which children are put aside, below a whole training of so many: r, r eta, r eta^2, ..."""
        found, at = [], self.minimum
        while at < epochs:
            found.append(at)
            at *= self.eta
        return tuple(found)


@dataclass
class _Rung:
    """What came as far: `ranked` all, best first; `paused` those of them that are put aside here."""

    epochs: int
    ranked: list[_Entry] = field(default_factory=list)
    paused: list[_Entry] = field(default_factory=list)


class LiveASHA:
    """The rungs of one run. Its calls take the time of a look into a sorted list.

    Args:
        eta: one in so many is promoted.
        rungs: in epochs.
        by: what is compared.
    """

    def __init__(self, eta: int, rungs: tuple[int, ...], by: Compared) -> None:
        self._eta = eta
        self._by = by
        self._rungs = [_Rung(epochs) for epochs in rungs]
        self._reached: dict[int, int] = {}  # how many rungs each trial has an entry in
        self._aside: dict[int, tuple[_Rung, _Entry]] = {}  # where each paused trial is
        self._to: dict[int, int] = {}  # the rung that each promoted trial goes on to, until it is told

    def until(self, number: int) -> int | None:
        """The epochs of the next rung; None where that is a whole training."""
        to = self._to.get(number, 0)
        return self._rungs[to].epochs if to < len(self._rungs) else None

    def reported(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Verdict:
        """Goes on: children are put aside at rungs, and nowhere else."""
        self._by.check(metrics)
        return Verdict.GO_ON

    def told(self, trial: Trial) -> None:
        """Enter a trial into the rungs that it reached."""
        result = trial.result
        if result is None or result.copied_from is not None:
            return
        self._to.pop(trial.number, None)
        self._forget(trial.number)
        values = self._by.by_epoch(result.curve)
        entries: list[tuple[_Rung, _Entry]] = []
        for rung in self._rungs:
            # As the epochs are counted; of an evaluator that reports every fifth, say, the next one.
            at = min((epoch for epoch in values if epoch >= rung.epochs), default=None)
            if at is None:
                break
            entries.append((rung, (-values[at], trial.number)))
        last = entries[-1] if entries else None
        if result.failure is not None and result.failure.reason == "diverged" and len(entries) < len(self._rungs):
            entries.append((self._rungs[len(entries)], (math.inf, trial.number)))
        for rung, entry in entries[self._reached.get(trial.number, 0) :]:
            insort(rung.ranked, entry)
        self._reached[trial.number] = len(entries)
        if trial.state is TrialState.PAUSED and last is not None:
            self._aside[trial.number] = last
            insort(last[0].paused, last[1])

    def promoted(self) -> int | None:
        """The best that is put aside in the highest rung where it is in the best 1/eta."""
        for level in range(len(self._rungs) - 1, -1, -1):
            rung = self._rungs[level]
            if rung.paused and bisect_left(rung.ranked, rung.paused[0]) < len(rung.ranked) // self._eta:
                return self._goes_on(rung.paused[0][1], level + 1)
        return None

    def favourite(self) -> int | None:
        """The best of the highest rung where any is put aside."""
        best = next((rung.paused[0][1] for rung in reversed(self._rungs) if rung.paused), None)
        return None if best is None else self._goes_on(best, len(self._rungs))

    def _goes_on(self, number: int, to: int) -> int:
        self._forget(number)
        self._to[number] = to
        return number

    def _forget(self, number: int) -> None:
        if (found := self._aside.pop(number, None)) is not None:
            rung, entry = found
            del rung.paused[bisect_left(rung.paused, entry)]
