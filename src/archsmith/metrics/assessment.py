"""What predictions say of a network, as the plain data of `outcome`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from archsmith.core.errors import UsageError
from archsmith.metrics.calibration import calibration_bins, calibration_error
from archsmith.metrics.confusion import class_scores, confusion_matrix
from archsmith.metrics.mistakes import worst_mistakes
from archsmith.metrics.outcome import Assessment, CalibrationReport, Mistake, PairedCounts, Score
from archsmith.metrics.predictions import Predictions
from archsmith.metrics.temperature import with_temperature

MOST_MISTAKES = 24


def score(predictions: Predictions) -> Score:
    """How many predictions are right, of how many."""
    return Score(predictions.correct, len(predictions))


def assess(
    predictions: Predictions,
    classes: Sequence[str],
    *,
    picture: Callable[[int], str] | None = None,
    most: int = MOST_MISTAKES,
) -> Assessment:
    """Confusions, the scores of each class and the worst mistakes of test predictions.

    Args:
        predictions: with the probabilities that the exported network gives.
        classes: their names.
        picture: the picture at a position of the predictions as a `data:` address, for the mistakes.
        most: how many mistakes are listed.

    Raises UsageError if the number of names is not that of the classes.
    """
    if len(classes) != predictions.classes:
        raise UsageError(f"predictions have {predictions.classes} classes, and {len(classes)} names were given")
    matrix = confusion_matrix(predictions)
    rows, columns = np.nonzero(matrix - np.diag(matrix.diagonal()))
    predicted, confidence = predictions.predicted, predictions.confidence
    return Assessment(
        classes=tuple(map(str, classes)),
        scores=class_scores(matrix),
        confusions=tuple((int(i), int(j), int(matrix[i, j])) for i, j in zip(rows, columns, strict=True)),
        mistakes=tuple(
            Mistake(
                file=predictions.files[k] if predictions.files else "",
                label=str(classes[int(predictions.labels[k])]),
                predicted=str(classes[int(predicted[k])]),
                confidence=float(confidence[k]),
                picture=picture(k) if picture is not None else "",
            )
            for k in worst_mistakes(predictions, most)
        ),
    )


def paired_counts(delivered: Predictions, baseline: Predictions) -> PairedCounts:
    """Two networks on the same items. Raises UsageError if the items are not the same."""
    if not np.array_equal(delivered.labels, baseline.labels) or delivered.files != baseline.files:
        raise UsageError("a paired comparison needs predictions of the same items in the same order")
    first, second = delivered.right, baseline.right
    parts = (first & second, first & ~second, ~first & second, ~first & ~second)
    return PairedCounts(*(int(part.sum()) for part in parts))


def calibration_report(temperature: float, test: Predictions) -> CalibrationReport:
    """What a temperature does to test predictions.

    Args:
        temperature: chosen on other items, see `fit_temperature`.
        test: predictions of the network as trained, without a temperature.
    """
    scaled = Predictions(with_temperature(test.probabilities, temperature), test.labels, test.files)
    return CalibrationReport(
        temperature,
        calibration_error(test),
        calibration_error(scaled),
        calibration_bins(test),
        calibration_bins(scaled),
    )
