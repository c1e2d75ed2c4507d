"""Rewards of results, those of strangers' evaluators among them."""

from __future__ import annotations

import math

import pytest

from archsmith.core.errors import ChildFailed
from archsmith.core.trial import Cost, Result
from archsmith.rewards import accuracy, cubed_accuracy, scaled_perplexity


def result_of(perplexity: float) -> Result:
    return Result({"perplexity": perplexity}, [], Cost(0.0, 0.0))


def test_the_reward_of_a_perplexity_is_the_papers() -> None:
    assert scaled_perplexity(result_of(80.0)) == 0.0125
    assert scaled_perplexity(result_of(62.4)) == pytest.approx(0.020546, abs=5e-7)
    assert scaled_perplexity(result_of(1e300)) == 0.0


@pytest.mark.parametrize("perplexity", [math.nan, math.inf, 0.0, -5.0])
def test_what_is_no_perplexity_has_no_reward(perplexity: float) -> None:
    with pytest.raises(ChildFailed, match="a perplexity is a finite number above 0"):
        scaled_perplexity(result_of(perplexity))


def test_the_reward_of_accuracy_is_the_metric_that_pages_show() -> None:
    curve = [{"epoch": n + 1, "accuracy": value} for n, value in enumerate((0.9, 0.5, 0.8, 0.6, 0.7, 0.65))]
    assert accuracy(Result({"accuracy": 0.65}, curve)) == 0.65
    assert accuracy(Result({}, curve)) == 0.8, "the highest of the last five epochs"
    assert cubed_accuracy(Result({"accuracy": 0.5}, curve)) == 0.125
    with pytest.raises(ChildFailed, match="needs the metric 'accuracy'"):
        accuracy(Result({"top1": 0.5}))
