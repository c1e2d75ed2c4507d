"""Rewards: a number made from a result. Plain functions of a `Result`; write your own likewise. One with settings is a
frozen dataclass that can be called, so that a run's record can make it again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from archsmith.core.errors import ChildFailed, MissingMetric, UsageError
from archsmith.core.evaluator import HasDefaultReward
from archsmith.core.trial import Result

__all__ = [
    "LatencyWeighted",
    "accuracy",
    "bleu",
    "cubed_accuracy",
    "final_accuracy",
    "latency_weighted",
    "scaled_perplexity",
    "squared_accuracy",
    "value",
]


def accuracy(result: Result) -> float:
    """The metric "accuracy", the number that pages and tables show.

    `ImageClassification` makes it the highest validation accuracy of the last five epochs (Zoph and Le 2017, section 4.1,
    before the exponent). Of a result without that metric it is the same of its curve.
    """
    last = [row["accuracy"] for row in result.curve[-5:] if "accuracy" in row]
    return max(last) if last and "accuracy" not in result.metrics else _metric(result, "accuracy")


def final_accuracy(result: Result) -> float:
    """The metric "final_accuracy": the validation accuracy of the weights that a training ends with."""
    return _metric(result, "final_accuracy")


def cubed_accuracy(result: Result) -> float:
    """`accuracy`, cubed: the reward of the paper (section 4.1)."""
    return accuracy(result) ** 3


def squared_accuracy(result: Result) -> float:
    """The same, squared: the reward that the authors' slides give instead of the paper's cube."""
    return accuracy(result) ** 2


def scaled_perplexity(result: Result) -> float:
    """80 / perplexity^2 on the validation text, c = 80 (Zoph and Le 2017, section 4.2): 0.0125 at a perplexity of 80.

    Raises ChildFailed for what is no perplexity: one that is not finite, or not above 0.
    """
    perplexity = _metric(result, "perplexity")
    if not 0 < perplexity < math.inf:
        raise ChildFailed(f"a perplexity is a finite number above 0, got {perplexity!r}", reason="reward")
    return 80.0 / perplexity**2 if perplexity < 1e150 else 0.0  # a float has no square of more


def bleu(result: Result) -> float:
    """The validation BLEU as a fraction: 0.25 at a BLEU of 25."""
    return _metric(result, "bleu") / 100


@dataclass(frozen=True)
class LatencyWeighted:
    """Accuracy x (latency / target)^w (Tan et al. 2019, section 3): w is `alpha` up to the target and `beta` above it.

    Make one with `latency_weighted`. Called with a result it gives the reward, at the target the accuracy itself.

    Args:
        target: T, in the unit of the latency (milliseconds where archsmith measures it).
        alpha, beta: at most 0 each: a positive one would pay for being slow.
        accuracy, latency: the metrics that are read.
    """

    target: float
    alpha: float = -0.07
    beta: float = -0.07
    accuracy: str = "accuracy"
    latency: str = "latency"

    def __post_init__(self) -> None:
        for name, rule in (("target", "above 0"), ("alpha", "at most 0"), ("beta", "at most 0")):
            number = getattr(self, name)
            is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
            if not is_number or (number <= 0 if name == "target" else number > 0):
                raise UsageError(f"{name} of latency_weighted must be a finite number {rule}, got {number!r}")
            object.__setattr__(self, name, float(number))
        for name in ("accuracy", "latency"):
            metric = getattr(self, name)
            if not isinstance(metric, str) or not metric:
                raise UsageError(f"{name} of latency_weighted must be the name of a metric, got {metric!r}")

    def __call__(self, result: Result) -> float:
        """The reward. Raises ChildFailed when a metric is missing, the accuracy is not a finite number of at least 0 or
        the latency not one above 0."""
        accuracy, latency = _metric(result, self.accuracy), _metric(result, self.latency)
        if not 0 <= accuracy < math.inf:
            raise ChildFailed(
                f"the metric {self.accuracy!r} must be a finite number of at least 0 to be weighted by latency, "
                f"got {accuracy!r}",
                reason="reward",
            )
        if not 0 < latency < math.inf:
            raise ChildFailed(
                f"the metric {self.latency!r} must be a finite number above 0, got {latency!r}", reason="reward"
            )
        w = self.alpha if latency <= self.target else self.beta
        try:
            return float(accuracy * (latency / self.target) ** w)
        except (OverflowError, ZeroDivisionError):  # as many times faster than the target as no float can say
            return math.inf


def latency_weighted(
    target: float,
    w: float = -0.07,
    *,
    alpha: float | None = None,
    beta: float | None = None,
    accuracy: str = "accuracy",
    latency: str = "latency",
) -> LatencyWeighted:
    """A reward for networks under a latency target (Tan et al. 2019, section 3): accuracy x (latency / target)^w.

    With the default, twice the latency is worth 5 % more accuracy: the soft constraint. `alpha=0, beta=-1` is the hard
    one: below the target latency does not matter, above it the reward falls as fast as latency grows.

    Args:
        target: the latency wanted, in the unit of the metric: milliseconds where archsmith measures it.
        w: the exponent on both sides of the target.
        alpha, beta: in place of `w` up to the target, and above it.
        accuracy, latency: the metrics that are read.

    Raises UsageError for a target that is not above 0, or an exponent above 0.
    """
    return LatencyWeighted(target, w if alpha is None else alpha, w if beta is None else beta, accuracy, latency)


def value(result: Result) -> float:
    """The number an evaluator function returned; the default for such functions. A dict's key "reward" serves too."""
    only_reward = "reward" in result.metrics and "value" not in result.metrics
    return _metric(result, "reward" if only_reward else "value")


def default_reward(evaluator: object) -> Callable[[Result], float]:
    """The reward of a search that is given none: the evaluator's `default_reward`, or `value` for one without."""
    return evaluator.default_reward if isinstance(evaluator, HasDefaultReward) else value


def _metric(result: Result, name: str) -> float:
    if name not in result.metrics:
        raise MissingMetric(name, result.metrics)
    return result.metrics[name]
