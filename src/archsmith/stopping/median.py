"""The median stopping rule (Golovin et al. 2017, "Google Vizier: A Service for Black-Box Optimization", section 3.2.2).

A child is stopped after an epoch when the best it has shown until then is strictly worse than the median of the running
averages, up to the same epoch, of the children that were trained before it. It assumes no form of the curves.

What the paper leaves to the reader:

- "All completed trials" are those that have finished, trained to their end or not, and got as far as this epoch. To leave
  out those that were stopped would be to compare with the good ones alone: the median would rise and rise.
- No child is stopped in its first `grace` epochs, nor before so many others as `trials` say have got as far: the first few
  of a search know nothing of what is usual.
- A value that is NaN or infinite is the worst there is.

It needs no checkpoint: a child that is stopped never goes on. It is told to the searcher as stopped, without a reward, as soon
as it ends; a policy learns nothing from it, and evolution never has it as a parent. So both know the better half alone,
and a policy that hears nothing of the worse one learns more slowly to avoid it. And early is not late: what learns slowly
and ends well is lost.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UsageError
from archsmith.core.finish import Measure
from archsmith.core.stopping import Verdict
from archsmith.core.trial import Trial
from archsmith.stopping.compared import Compared, compared, reports, whole


@dataclass(frozen=True)
class Median:
    """A rule: what is worse than the median of those before is stopped.

    Args:
        grace: how many epochs every child has.
        trials: how many others must have got as far.
        metric: what is compared, as the epochs report it (default: the evaluator's measure, else "value").
        higher_is_better: whether more of it is better (default: as the measure has it, else True).
    """

    grace: int = 1
    trials: int = 5
    metric: str | None = None
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        whole("Median", "grace", self.grace, 0)
        whole("Median", "trials", self.trials, 1)
        compared("Median", self.metric, self.higher_is_better, None)

    def start(self, measure: Measure | None, epochs: int | None) -> LiveMedian:
        """A live rule. Raises UsageError where the evaluator reports no epochs, or no more than all children have."""
        reports("Median", epochs)
        if epochs is not None and epochs <= self.grace + 1:
            raise UsageError(
                f"Median leaves every child grace={self.grace} epochs, and a whole training has {epochs}: nothing would be "
                "saved; give a smaller grace"
            )
        last = epochs or math.inf
        return LiveMedian(
            self.grace, self.trials, last, compared("Median", self.metric, self.higher_is_better, measure)
        )


class LiveMedian:
    """The running averages of one run.

    Args:
        grace: how many epochs every child has.
        trials: how many others must have got as far.
        last: the epoch with which a training ends: there is nothing left to save.
        by: what is compared.
    """

    def __init__(self, grace: int, trials: int, last: float, by: Compared) -> None:
        self._grace = grace
        self._trials = trials
        self._last = last
        self._by = by
        self._averages: dict[int, list[float]] = {}  # by epoch, sorted
        self._best: dict[int, float] = {}  # of each running child

    def until(self, number: int) -> int | None:
        """None: nothing is put aside."""
        return None

    def reported(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Verdict:
        """Whether the best until now is no worse than the median."""
        self._by.check(metrics)
        value = self._by.value(metrics)
        if epoch > 1:
            value = max(value, self._best.get(number, -math.inf))
        self._best[number] = value
        others = self._averages.get(epoch, [])
        if epoch <= self._grace or epoch >= self._last or len(others) < self._trials:
            return Verdict.GO_ON
        return Verdict.STOP if value < _median(others) else Verdict.GO_ON

    def told(self, trial: Trial) -> None:
        """Take in the running averages of a trial that has finished."""
        self._best.pop(trial.number, None)
        if trial.result is None or trial.result.copied_from is not None or not trial.state.is_finished:
            return
        total = 0.0
        for count, (epoch, value) in enumerate(sorted(self._by.by_epoch(trial.result.curve).items()), 1):
            total += value
            insort(self._averages.setdefault(epoch, []), total / count)

    def promoted(self) -> int | None:
        """None: nothing is put aside."""
        return None

    def favourite(self) -> int | None:
        """None: nothing is put aside."""
        return None


def _median(ordered: list[float]) -> float:
    """Of sorted numbers; where their count is even, the mean of the two in the middle."""
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2
