"""What a rule compares children by, epoch by epoch: the evaluator's own measure, unless another metric is named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsmith.core.checks import whole_number
from archsmith.core.errors import UsageError
from archsmith.core.finish import Measure


@dataclass(frozen=True)
class Compared:
    """A metric of each epoch, as a number of which more is better.

    Args:
        rule: who compares, for messages.
        metric: its name among the metrics.
        higher_is_better: whether more of it is better; else its sign is turned.
    """

    rule: str
    metric: str
    higher_is_better: bool

    def value(self, metrics: Mapping[str, float]) -> float:
        """The number; minus infinity where it is not there, or is not finite."""
        found = metrics.get(self.metric, math.nan)
        return -math.inf if not math.isfinite(found) else found if self.higher_is_better else -found

    def check(self, metrics: Mapping[str, float]) -> None:
        """Raise UsageError where the metric is not among them."""
        if self.metric not in metrics:
            raise UsageError(
                f"{self.rule} compares children by {self.metric!r} of each epoch, and this evaluator reports "
                f"{', '.join(sorted(metrics)) or 'nothing'}; name one: {self.rule}(metric=..., higher_is_better=...)"
            )

    def by_epoch(self, curve: Sequence[Mapping[str, float]]) -> dict[int, float]:
        """The number after each epoch of a curve."""
        return {int(row.get("epoch", place)): self.value(row) for place, row in enumerate(curve, 1)}


def compared(rule: str, metric: str | None, higher_is_better: bool | None, measure: Measure | None) -> Compared:
    """What a rule is to compare by: the metric named, else the evaluator's measure, else "value".

    Raises UsageError for a metric that is no name.
    """
    if metric is not None and (not isinstance(metric, str) or not metric):
        raise UsageError(f"metric of {rule} must be the name of a metric, or None for the evaluator's, got {metric!r}")
    if metric is None or (measure is not None and metric == measure.name):
        name = "value" if measure is None else measure.name
        better = True if measure is None else measure.higher_is_better
    else:
        name, better = metric, True
    return Compared(rule, name, better if higher_is_better is None else bool(higher_is_better))


def whole(rule: str, name: str, value: object, least: int) -> None:
    """Raise UsageError for what is not a whole number of at least so much."""
    whole_number(value, f"{name} of {rule}", least)


def reports(rule: str, epochs: int | None) -> None:
    """Raise UsageError where the evaluator reports no epochs: there is nothing to compare before the end."""
    if epochs == 0:
        raise UsageError(
            f"{rule} compares children while they are trained, and this evaluator reports no epochs: a function gives one "
            "value, and a table has none between unless Tabular(curve=...) names their columns; leave stopping out"
        )
