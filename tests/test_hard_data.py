"""Hard data: tiny and uneven classes, wrong labels, and choosing by cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from archsmith.core.errors import DataError
from archsmith.core.temperatures import FittedTemperature, temperature_of, with_temperature_of
from archsmith.data import images as data
from archsmith.data.image_files import checked
from archsmith.metrics.fitted_temperature import LEAST, fitted_temperature
from archsmith.metrics.label_errors import label_errors
from archsmith.metrics.predictions import Predictions


def data_of(sizes: list[int], **fields: object) -> data.ImageData:
    """Different pictures of noise, `sizes[k]` of them in class k."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 6, 6, 1), dtype=np.uint8)
    names = tuple(f"class {k}" for k in range(len(sizes)))
    made = checked("pictures", pixels, labels, None, None, names)
    return data.ImageData(**{**vars(made), **fields})


def counts(splits: data.ImageSplits) -> list[tuple[int, int, int]]:
    """Of each class: how many pictures are learned from, validated with and tested."""
    classes = len(splits.data.class_names)
    each = (splits.data.labels[splits.train], splits.data.labels[splits.validation], splits.test_labels)
    return list(zip(*(np.bincount(labels, minlength=classes).tolist() for labels in each), strict=True))


# --- splits of tiny and uneven classes ---


def test_a_class_of_three_pictures_has_one_in_each_split_and_larger_ones_learn_from_the_rest():
    found = counts(data.split(data_of([3, 4, 5, 6, 10, 30, 1000]), 0.1, 0))
    assert found[:5] == [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1), (7, 1, 2)]
    assert [sum(parts) for parts in found] == [3, 4, 5, 6, 10, 30, 1000]
    assert found[-1][2] == pytest.approx(200, abs=4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(3, 9) | st.integers(50, 400), min_size=2, max_size=6),
    st.floats(0.02, 0.6),
    st.integers(0, 99),
    st.none() | st.integers(12, 300),
)
def test_every_split_has_every_class_however_uneven(sizes: list[int], share: float, seed: int, most: int | None):
    found = counts(data.split(data_of(sizes), share, seed, most))
    assert min(min(parts) for parts in found) >= 1
    if most is not None:
        assert sum(train + validation for train, validation, _ in found) <= max(most, 2 * len(sizes))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([500, 1], r"needs at least 3 images .*'class 1' has 1\. Add images of this class, or leave it out"),
        ([500, 2, 1], r"'class 1' has 2, 'class 2' has 1\. Add images of these classes, or leave them out"),
        ([2, 2], "'class 0' has 2, 'class 1' has 2"),
    ],
)
def test_a_class_with_too_few_pictures_for_every_split_is_named(sizes: list[int], words: str):
    with pytest.raises(DataError, match=words):
        data.split(data_of(sizes), 0.1, 0)


def test_a_sample_of_uneven_classes_has_two_of_the_smallest_and_is_not_larger_than_asked():
    # The smallest class's share of the sample is less than one picture.
    found = counts(data.split(data_of([1000, 8]), 0.1, 0, 100))
    assert found[1][:2] == (1, 1)
    assert sum(train + validation for train, validation, _ in found) == 100


def test_a_class_that_the_sources_validation_split_lacks_is_named_and_is_trained_on():
    source = data_of([20, 20, 1, 1])
    splits = data.split(
        data.ImageData(**{**vars(source), "validation": np.arange(5, 15), "test_images": source.images[:4],
                          "test_labels": source.labels[:4]}), 0.1, 0)  # fmt: skip
    assert [parts[:2] for parts in counts(splits)] == [(10, 10), (20, 0), (1, 0), (1, 0)]
    assert "no validation image of pictures is of the classes 'class 1', 'class 2', 'class 3'" in splits.data.remarks


# --- suspected wrong labels ---


def out_of_fold(pixels: np.ndarray, labels: np.ndarray) -> Predictions:
    """What logistic regression, trained on four fifths, says of the last."""
    model = LogisticRegression(C=0.1, max_iter=200)
    return Predictions(cross_val_predict(model, pixels, labels, cv=5, method="predict_proba"), labels)


def test_flipped_labels_of_digits_are_listed_first_with_their_true_class():
    # Measured over three seeds: precision 0.94, recall 0.80, the true class suggested for 97 %.
    pixels, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    flipped = rng.permutation(len(true))[:180]
    labels = true.copy()
    labels[flipped] = (true[flipped] + rng.integers(1, 10, len(flipped))) % 10
    errors = label_errors(out_of_fold(pixels / 16, labels))
    caught = [error for error in errors if error.index in set(flipped)]
    assert len(caught) / len(errors) > 0.8
    assert len(caught) / len(flipped) > 0.65
    assert all(error.index in set(flipped) for error in errors[:50])
    assert np.mean([error.suggested == true[error.index] for error in caught]) > 0.9
    assert all(error.label == labels[error.index] != error.suggested for error in errors)
    margins = [error.suggested_probability - error.label_probability for error in errors]
    assert margins == sorted(margins, reverse=True)


def test_right_labels_raise_little_suspicion():
    pixels, labels = load_digits(return_X_y=True)
    assert len(label_errors(out_of_fold(pixels / 16, labels))) < 0.01 * len(labels)


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.zeros((0, 3)), []),
        (np.full((4, 2), 0.5), [0, 1, 0, 1]),  # an answer that says nothing
        (np.eye(3), [0, 1, 2]),
        (np.eye(3)[[0, 0]], [0, 0]),  # two classes without items
    ],
)
def test_nothing_is_suspected_without_a_reason(probabilities: np.ndarray, labels: list[int]):
    assert label_errors(Predictions(probabilities, np.array(labels, np.int64))) == []


# --- the temperature of a network, for the record ---


def test_a_temperature_is_fitted_recorded_and_read_again():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(2000, 4))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) > rng.random((2000, 1))).argmax(1)
    sharp = np.exp(2.5 * logits) / np.exp(2.5 * logits).sum(1, keepdims=True)
    fitted = fitted_temperature(Predictions(sharp, labels))
    assert fitted is not None
    assert fitted.temperature == pytest.approx(2.5, rel=0.1)
    assert fitted.error_with < 0.03 < fitted.error
    document = with_temperature_of({"x": 1}, "weights", fitted)
    assert temperature_of(document, "weights") == fitted
    assert f"temperature {fitted.temperature:.3g}, fitted on 2,000 validation images" in str(fitted)
    few = Predictions(sharp[: LEAST - 1], labels[: LEAST - 1])
    assert fitted_temperature(few) is None


@pytest.mark.parametrize("value", [None, 3, "x", {}, {"weights": 3}, {"weights": {"temperature": 2.0}}])
def test_a_record_that_is_no_temperature_is_none(value: object):
    assert temperature_of(value, "weights") is None
    record = FittedTemperature(2.0, "x", 30, 0.1, 0.05).to_json()
    for wrong in (0, -1, float("nan"), True, "2", None):
        assert temperature_of({"weights": {**record, "temperature": wrong}}, "weights") is None
