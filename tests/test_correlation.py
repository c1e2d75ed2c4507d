"""Correlation of search and transfer: the facts of Kornblith et al.'s analysis, and what has no correlation."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from archsmith.core.correlation import correlate, fisher_interval, logit, pearson, ranks, spearman
from archsmith.core.errors import UsageError


def expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def planted(n: int, data: int, noise: float, seed: int = 0) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """n models whose log odds elsewhere are linear in those of the search, but for noise, on data sets of all difficulties."""
    rng = Random(seed)
    odds = {f"m{k}": rng.gauss(1.0, 0.6) for k in range(n)}
    used = {f"d{j}": {m: expit(0.7 * x + rng.gauss(0, noise) - j) for m, x in odds.items()} for j in range(data)}
    return {m: expit(x) for m, x in odds.items()}, used


# --- the facts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "data"), [(3, 1), (4, 2), (16, 12), (50, 3)])
def test_a_planted_linear_relation_of_log_odds_is_one(n: int, data: int) -> None:
    searched, used = planted(n, data, noise=0.0)
    found = correlate(searched, used)
    assert found.pearson.value == pytest.approx(1.0, abs=1e-9)
    assert found.spearman.value == pytest.approx(1.0)
    accuracies = [sum(scores[m] for scores in used.values()) for m in searched]
    if n > 4:
        assert pearson(list(searched.values()), accuracies) != pytest.approx(1.0, abs=1e-5), (
            "without the logit it is not"
        )


@pytest.mark.parametrize("n", [4, 7, 16, 40])
@pytest.mark.parametrize("data", [1, 2, 12])
def test_any_number_of_models_and_data_sets(n: int, data: int) -> None:
    found = correlate(*planted(n, data, noise=0.4))
    assert found.n == n
    assert len(found.y) == n
    for coefficient in (found.pearson, found.spearman):
        assert coefficient.value is not None
        assert coefficient.interval is not None
        assert coefficient.bootstrap is not None
        assert -1 <= coefficient.interval[0] <= coefficient.value <= coefficient.interval[1] <= 1
        assert coefficient.bootstrap[0] <= coefficient.bootstrap[1]


@pytest.mark.parametrize("seed", range(5))
def test_a_model_twice_changes_r_within_the_interval_only(seed: int) -> None:
    searched, used = planted(16, 12, noise=0.5, seed=seed)
    found = correlate(searched, used)
    assert found.pearson.interval is not None
    for model in searched:
        twice = correlate(
            {**searched, "again": searched[model]}, {d: {**s, "again": s[model]} for d, s in used.items()}
        )
        assert twice.n == 17
        assert twice.pearson.value is not None
        assert found.pearson.interval[0] <= twice.pearson.value <= found.pearson.interval[1]


def test_a_data_sets_mean_counts_for_nothing() -> None:
    """Each data set is as hard as it is: only what a model has above the others counts."""
    searched, used = planted(10, 2, noise=0.3)
    harder = {"d0": used["d0"], "d1": {m: expit(logit(p) - 2.5) for m, p in used["d1"].items()}}
    assert correlate(searched, harder).y == pytest.approx(correlate(searched, used).y)


# --- against other ways to the same numbers -----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=3, max_size=30))
def test_coefficients_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert pearson(x, y) is None
        assert spearman(x, y) is None
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert ranks(x) == list(stats.rankdata(x))


def test_fishers_interval_is_that_of_scipy() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 7.0, 5.0]
    theirs = stats.pearsonr(x, y)
    r = pearson(x, y)
    assert r is not None
    assert fisher_interval(r, 6) == pytest.approx(tuple(theirs.confidence_interval()), abs=1e-9)
    assert fisher_interval(r, 3) is None
    assert fisher_interval(1.0, 5) == (1.0, 1.0)
    low, high = fisher_interval(r, 6, ranked=True) or (0, 0)
    assert low < (fisher_interval(r, 6) or (0, 0))[0], "an interval of ranks is wider"
    assert high > (fisher_interval(r, 6) or (0, 0))[1]


@given(st.floats(0.01, 100), st.floats(-5, 5), st.lists(st.floats(-3, 3), min_size=4, max_size=12, unique=True))
def test_a_coefficient_knows_no_units(factor: float, offset: float, values: list[float]) -> None:
    other = [math.sin(3 * v) + v for v in values]
    mine, scaled = pearson(values, other), pearson([factor * v + offset for v in values], other)
    if mine is not None and scaled is not None and max(values) - min(values) > 1e-3:
        assert scaled == pytest.approx(mine, abs=1e-5)


def test_very_small_numbers_are_no_constant() -> None:
    assert pearson([1e-200, 2e-200, 3e-200], [1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert pearson([1e200, 2e200, 3e200], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)


def test_the_bootstrap_is_the_same_each_time() -> None:
    searched, used = planted(9, 2, noise=0.5)
    assert correlate(searched, used, seed=3) == correlate(searched, used, seed=3)
    assert correlate(searched, used, seed=3).pearson.bootstrap != correlate(searched, used, seed=4).pearson.bootstrap


# --- what has no correlation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_models(n: int) -> None:
    found = correlate(*planted(n, 2, noise=0.1))
    assert found.pearson.value is None
    assert found.pearson.why == f"a correlation needs at least 3 models, and there are {n}"
    assert found.pearson.interval is None


def test_three_models_have_a_coefficient_and_no_interval() -> None:
    found = correlate(*planted(3, 1, noise=0.1))
    assert found.pearson.value is not None
    assert found.pearson.interval is None
    assert found.pearson.bootstrap is None


def test_what_is_constant() -> None:
    searched, used = planted(6, 2, noise=0.3)
    found = correlate(dict.fromkeys(searched, 0.7), used)
    assert found.pearson.value is None
    assert found.spearman.value is None
    assert found.pearson.why is not None
    assert "equally good in the search" in found.pearson.why
    same = correlate(searched, {d: dict.fromkeys(s, 0.1 + 0.2) for d, s in used.items()})
    assert same.pearson.why is not None
    assert "equally good on the other data" in same.pearson.why


def test_accuracies_of_0_and_1_are_half_an_item_away() -> None:
    assert logit(1.0, 100) == pytest.approx(math.log(0.995 / 0.005))
    assert logit(0.0, 100) == pytest.approx(-logit(1.0, 100))
    assert logit(0.99, 100) < logit(1.0, 100), "a hundred right is more than ninety-nine"
    searched, used = {"a": 0.5, "b": 0.6, "c": 0.9}, {"d": {"a": 0.0, "b": 0.5, "c": 1.0}}
    assert correlate(searched, used, counts={"d": 40}).pearson.value is not None
    with pytest.raises(UsageError, match="the accuracy of a on d is 0, which has no log odds; give how many items"):
        correlate(searched, used)
    with pytest.raises(UsageError, match="c in the search"):
        correlate({**searched, "c": 1.0}, {"d": {"a": 0.1, "b": 0.5, "c": 0.7}})


@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan, math.inf])
def test_what_is_no_accuracy(wrong: float) -> None:
    with pytest.raises(UsageError, match="an accuracy must be from 0 to 1, and that of b in the search"):
        correlate({"a": 0.4, "b": wrong, "c": 0.5}, {"d": {"a": 0.1, "b": 0.5, "c": 0.7}})


def test_rewards_are_taken_as_they_are() -> None:
    used = {"d": {"a": 0.1, "b": 0.5, "c": 0.7, "e": 0.8}}
    searched = {"a": -3.0, "b": 0.0, "c": 12.0, "e": 100.0}
    found = correlate(searched, used, is_accuracy=False)
    assert found.x == (-3.0, 0.0, 12.0, 100.0)
    assert found.spearman.value == 1.0
    with pytest.raises(UsageError, match="must be finite"):
        correlate({**searched, "a": math.inf}, used, is_accuracy=False)


def test_models_that_lack_a_number_are_left_out() -> None:
    searched, used = planted(6, 2, noise=0.3)
    del used["d1"]["m2"]
    used["d0"]["stranger"] = 0.5
    found = correlate(searched, used)
    assert found.left_out == ("m2", "stranger")
    assert found.n == 5
    with pytest.raises(UsageError, match="at least one data set"):
        correlate(searched, {})
