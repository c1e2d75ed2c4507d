"""Rewards: a number made from a result. Plain functions of a `Result`; write your own likewise."""

from __future__ import annotations

import math

from archsmith.core.errors import ChildFailed
from archsmith.core.trial import Result

__all__ = ["accuracy", "bleu", "cubed_accuracy", "scaled_perplexity", "squared_accuracy", "value"]


def accuracy(result: Result) -> float:
    """The highest validation accuracy of the last five epochs (Zoph and Le 2017, section 4.1, before the exponent)."""
    last = [row["accuracy"] for row in result.curve[-5:] if "accuracy" in row]
    return max(last) if last else _metric(result, "accuracy")


def cubed_accuracy(result: Result) -> float:
    """The highest validation accuracy of the last five epochs, cubed: the reward of the paper (section 4.1)."""
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


def value(result: Result) -> float:
    """The number an evaluator function returned; the default for such functions. A dict's key "reward" serves too."""
    return result.metrics["value"] if "value" in result.metrics else _metric(result, "reward")


def _metric(result: Result, name: str) -> float:
    if name not in result.metrics:
        have = ", ".join(sorted(result.metrics)) or "none"
        raise ChildFailed(
            f"the reward needs the metric {name!r}, and the result has: {have}; give search(..., reward=...)",
            reason="reward",
        )
    return result.metrics[name]
