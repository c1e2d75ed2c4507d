"""Statistics of predictions: against published values, other implementations, and what must hold for any predictions."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.errors import UsageError
from archsmith.metrics import mcnemar, paired_difference, wilson
from archsmith.metrics.assessment import assess, calibration_report, paired_counts, score
from archsmith.metrics.calibration import calibration_bins, calibration_error
from archsmith.metrics.confusion import balanced_accuracy, class_scores, confusion_matrix
from archsmith.metrics.mistakes import worst_mistakes
from archsmith.metrics.outcome import PairedCounts
from archsmith.metrics.predictions import Predictions
from archsmith.metrics.temperature import COLDEST, HOTTEST, fit_temperature, log_loss, with_temperature


def made(seed: int, n: int, classes: int = 3, sharpness: float = 1.0, noise: float = 2.0) -> Predictions:
    """Predictions whose true temperature is `sharpness`: labels are drawn from the probabilities before it sharpens them."""
    rng = np.random.default_rng(seed)
    logits = noise * rng.normal(size=(n, classes))
    true = np.exp(logits - logits.max(1, keepdims=True))
    true /= true.sum(1, keepdims=True)
    labels = (true.cumsum(1) > rng.random((n, 1))).argmax(1)
    sharp = np.exp(sharpness * (logits - logits.max(1, keepdims=True)))
    return Predictions(sharp / sharp.sum(1, keepdims=True), labels)


some = st.builds(made, st.integers(0, 1000), st.integers(0, 60), st.integers(1, 6), st.sampled_from((0.3, 1.0, 5.0)))
counts = st.integers(0, 40)


# --- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_come_back_from_an_artifact(tmp_path: Path) -> None:
    names = ("cats/é.png", "dogs/<b>\n.jpg", "\udce9.png")
    given = Predictions([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]], np.array([1, 1, 0]), names)
    folder = ArtifactFolder(tmp_path)
    back = Predictions.from_tensors(folder.get(folder.put(given.tensors(), {"split": "test"})))
    assert (back.probabilities == given.probabilities).all()
    assert (back.labels == given.labels).all()
    assert back.files == names
    assert back.predicted.tolist() == [1, 0, 0]  # of equals the first
    assert (len(back), back.classes, back.correct, back.accuracy) == (3, 2, 2, 2 / 3)


def test_no_predictions_are_predictions() -> None:
    none = Predictions(np.zeros((0, 4)), np.zeros(0, np.int64))
    assert (none.accuracy, none.correct, calibration_error(none), fit_temperature(none)) == (None, 0, None, 1.0)
    assert balanced_accuracy(confusion_matrix(none)) is None
    assert assess(none, "abcd").score.interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("probabilities", "labels", "files", "said"),
    [
        ([0.5, 0.5], [0, 1], (), "must be \\[items, classes\\]"),
        ([[0.5, 0.5]], [0, 1], (), "one for each of the 1"),
        ([[0.5, 0.5]], [2], (), "from 0 to 1"),
        ([[0.5, 0.5]], [-1], (), "from 0 to 1"),
        ([[0.5, 0.5]], [0.5], (), "whole numbers"),
        ([[0.5, 0.5]], [0], ("a", "b"), "one for each of the 1 predictions or none, got 2"),
        ([[float("nan"), 0.5]], [0], (), "finite"),
        ([[3.0, -2.0]], [0], (), "from 0 to 1"),
        (np.zeros((1, 0)), [0], (), "must be"),
    ],
)
def test_what_is_no_predictions_is_refused(probabilities: Any, labels: Any, files: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Predictions(np.array(probabilities), np.array(labels), files)


@pytest.mark.parametrize("tensors", [{}, {"probabilities": 1, "labels": 2, "files": np.frombuffer(b"{", np.uint8)}])
def test_other_tensors_are_no_predictions(tensors: Any) -> None:
    with pytest.raises(UsageError, match="no predictions"):
        Predictions.from_tensors(tensors)


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    (
        "correct",
        "count",
        "low",
        "high",
    ),  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_has_the_published_values(correct: int, count: int, low: float, high: float) -> None:
    assert [round(end, 4) for end in wilson.interval(correct, count)] == [low, high]
    mirrored = wilson.interval(count - correct, count)
    assert [round(1 - end, 4) for end in reversed(mirrored)] == [low, high]


@given(counts, counts)
def test_wilsons_interval_solves_the_score_equation(correct: int, wrong: int) -> None:
    n = correct + wrong
    low, high = wilson.interval(correct, n)
    assert 0 <= low <= high <= 1
    if n:
        share = correct / n
        assert low <= share <= high
        for end in {low, high} - {0.0, 1.0}:
            assert abs(share - end) == pytest.approx(wilson.Z95 * math.sqrt(end * (1 - end) / n))


def test_a_share_above_one_has_no_interval() -> None:
    with pytest.raises(ValueError, match="from 0 to 3"):
        wilson.interval(4, 3)


def test_the_paired_interval_has_the_published_values() -> None:
    # Fagerland, Lydersen and Laake 2014, "Recommended tests and confidence intervals for paired binomial proportions".
    low, high = paired_difference.interval(1, 1, 7, 12)
    assert (round(low, 3), round(high, 3)) == (-0.507, -0.026)
    assert mcnemar.p_value(1, 7) == pytest.approx(0.0703, abs=5e-5)


@given(counts, counts, counts, counts)
def test_the_paired_interval_contains_the_difference_and_turns_with_the_networks(
    a: int, b: int, c: int, d: int
) -> None:
    low, high = paired_difference.interval(a, b, c, d)
    assert -1 <= low <= high <= 1
    if n := a + b + c + d:
        assert low - 1e-12 <= (b - c) / n <= high + 1e-12
    assert paired_difference.interval(a, c, b, d) == pytest.approx((-high, -low))
    assert paired_difference.interval(d, b, c, a) == pytest.approx((low, high))  # wrong for right


@given(counts, counts)
def test_mcnemars_p_is_that_of_the_binomial_test(first: int, second: int) -> None:
    from scipy.stats import binomtest

    n = first + second
    assert mcnemar.p_value(first, second) == pytest.approx(binomtest(first, n).pvalue if n else 1.0)


def test_mcnemars_p_of_many_differences_is_no_nan() -> None:
    assert mcnemar.p_value(5000, 5000) == 1.0
    assert 0 <= mcnemar.p_value(0, 5000) < 1e-300


# --- confusions -------------------------------------------------------------------------------------------------------


@given(some)
def test_confusions_are_those_of_scikit_learn(p: Predictions) -> None:
    matrix = confusion_matrix(p)
    assert matrix.sum() == len(p)
    if len(p):
        assert (matrix == sklearn_confusion(p.labels, p.predicted, labels=range(p.classes))).all()
        there = np.unique(p.labels)
        kept = np.isin(p.predicted, there)
        if kept.all() and len(there) > 1:  # scikit-learn warns about classes that are only predicted
            assert balanced_accuracy(matrix) == pytest.approx(balanced_accuracy_score(p.labels, p.predicted))
    scores = class_scores(matrix)
    assert sum(s.count for s in scores) == sum(s.predicted for s in scores) == len(p)
    assert sum(s.correct for s in scores) == p.correct
    for s in scores:
        assert (s.recall is None) == (s.count == 0)
        assert (s.precision is None) == (s.predicted == 0)
        if s.recall is not None:
            assert s.recall_interval[0] <= s.recall <= s.recall_interval[1]
        if s.precision is not None:
            assert s.precision_interval[0] <= s.precision <= s.precision_interval[1]


@given(some)
def test_the_worst_mistakes_are_wrong_and_the_surest(p: Predictions) -> None:
    positions = worst_mistakes(p, 5)
    assert len(positions) == min(5, len(p) - p.correct)
    sure = [float(p.confidence[k]) for k in positions]
    assert sure == sorted(sure, reverse=True)
    others = [float(p.confidence[k]) for k in np.flatnonzero(~p.right) if k not in positions]
    assert not others or not sure or max(others) <= min(sure)
    assert not p.right[positions].any()


@given(some)
def test_an_assessment_is_plain_and_adds_up(p: Predictions) -> None:
    names = [f"class {k}" for k in range(p.classes)]
    a = assess(p, names, picture=lambda k: f"picture {k}")
    assert (a.score.correct, a.score.count) == (p.correct, len(p)) == (score(p).correct, score(p).count)
    assert sum(n for _, _, n in a.confusions) == len(p) - p.correct
    assert a.balanced_accuracy == pytest.approx(balanced_accuracy(confusion_matrix(p)))
    assert all(m.label != m.predicted and m.picture.startswith("picture ") for m in a.mistakes)
    json.dumps([vars(m) for m in a.mistakes])


def test_too_few_names_of_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="3 classes, and 2 names"):
        assess(made(0, 5), ("a", "b"))


# --- calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_that_sharpened_is_found_and_calibrates(sharpness: float) -> None:
    validation, test = made(1, 20_000, sharpness=sharpness), made(2, 20_000, sharpness=sharpness)
    c = calibration_report(fit_temperature(validation), test)
    assert c.error_before is not None
    assert c.error_after is not None
    assert c.temperature == pytest.approx(sharpness, rel=0.05)
    assert c.error_after < 0.015
    assert c.error_before < 0.015 if sharpness == 1 else c.error_before > 3 * c.error_after
    assert sum(b.count for b in c.after) == len(test)


@settings(deadline=None)
@given(some)
def test_no_other_temperature_has_a_smaller_log_loss(p: Predictions) -> None:
    t = fit_temperature(p)
    assert COLDEST <= t <= HOTTEST
    if len(p) and p.correct < len(p):
        least = log_loss(Predictions(with_temperature(p.probabilities, t), p.labels))
        for other in (COLDEST, t / 1.05, 1.0, t * 1.05, HOTTEST):
            if COLDEST <= other <= HOTTEST:
                assert least <= log_loss(Predictions(with_temperature(p.probabilities, other), p.labels)) + 1e-5


@given(some, st.sampled_from((0.05, 0.7, 3.0, 20.0)))
def test_a_temperature_changes_no_order_of_two_classes(p: Predictions, temperature: float) -> None:
    scaled = with_temperature(p.probabilities, temperature)
    assert np.allclose(scaled.sum(1), 1, atol=1e-5)
    for i, j in product(range(p.classes), repeat=2):
        higher = p.probabilities[:, i] > p.probabilities[:, j]
        assert (scaled[higher, i] >= scaled[higher, j]).all()


def test_all_right_and_probabilities_of_zero_have_a_temperature() -> None:
    sure = np.eye(3, dtype=np.float32)
    assert fit_temperature(Predictions(sure, np.arange(3))) == 1.0
    t = fit_temperature(Predictions(sure, np.array([0, 1, 1])))
    assert 1 < t <= HOTTEST
    assert np.isfinite(with_temperature(sure, t)).all()


@given(some, st.integers(0, 99))
def test_the_calibration_error_does_not_depend_on_the_order(p: Predictions, seed: int) -> None:
    error = calibration_error(p)
    assert (error is None) == (len(p) == 0)
    if error is not None:
        order = np.random.default_rng(seed).permutation(len(p))
        assert 0 <= error <= 1
        assert calibration_error(Predictions(p.probabilities[order], p.labels[order])) == pytest.approx(error)


def test_the_calibration_error_by_hand() -> None:
    # Two groups: confidence 0.6 with one of two right, confidence 0.9 with none of two right.
    p = Predictions([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]], np.array([0, 1, 1, 1]))
    assert calibration_error(p, bins=2) == pytest.approx((2 * 0.1 + 2 * 0.9) / 4)
    assert [b.count for b in calibration_bins(made(0, 100))] == [7] * 10 + [6] * 5  # 15 groups of equal mass


# --- pairs ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 99))
def test_paired_counts_are_those_of_each_network(seed: int) -> None:
    one = made(seed, 50)
    other = Predictions(made(seed + 1, 50).probabilities, one.labels)
    pair = paired_counts(one, other)
    assert pair.count == 50
    assert pair.both + pair.delivered_only == one.correct
    assert pair.both + pair.baseline_only == other.correct
    assert pair.difference == pytest.approx((one.correct - other.correct) / 50)


def test_other_items_make_no_pairs() -> None:
    one = made(0, 5)
    with pytest.raises(UsageError, match="same items"):
        paired_counts(one, made(1, 6))
    with pytest.raises(UsageError, match="same items"):
        paired_counts(one, Predictions(one.probabilities, one.labels, ("a",) * 5))
    with pytest.raises(UsageError, match="zero or more"):
        PairedCounts(1, 2, -1, 0)
