"""Suspected wrong labels by confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels").

A class's threshold is the mean probability that the classifier gives it among the items with its label. An item that reaches
the threshold of another class than its label's counts as that class: it is off the diagonal of the paper's confident joint.

The probabilities must be of a classifier that did not learn from the items, or it has learned the wrong labels too. So the
labels of a validation set can be checked after any training, and those of training images after a cross-validation alone. A
weak classifier's own mistakes are listed too, so the first of the list are the ones to look at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsmith.metrics.predictions import Floats, Integers, Predictions


@dataclass(frozen=True)
class LabelError:
    """An item whose label is probably wrong.

    Args:
        index: its position in the predictions.
        label: the label that it has.
        suggested: the more likely class.
        label_probability, suggested_probability: the probabilities of both.
    """

    index: int
    label: int
    suggested: int
    label_probability: float
    suggested_probability: float


def label_errors(predictions: Predictions) -> list[LabelError]:
    """The items whose labels are probably wrong, the most suspicious first: those whose suggested class is the most probable
    in comparison with their label's.

    The confident joint says how many items of each label are of each other class. As many are listed: those with the largest
    margin between the two probabilities (the paper's pruning by noise rate).

    Args:
        predictions: of a classifier that did not learn from these items.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    errors = []
    for label, suggested in np.argwhere(expected := _expected_errors(predictions)):
        rows = np.flatnonzero(labels == label)
        margins = probabilities[rows, suggested] - probabilities[rows, label]
        first = np.argsort(-margins, kind="stable")[: expected[label, suggested]]
        errors += [
            LabelError(
                int(row),
                int(label),
                int(suggested),
                float(probabilities[row, label]),
                float(probabilities[row, suggested]),
            )
            for row in rows[first[margins[first] > 0]]
            if probabilities[row].argmax() == suggested
        ]
    return sorted(errors, key=lambda error: (error.label_probability - error.suggested_probability, error.index))


def _expected_errors(predictions: Predictions) -> Integers:
    """How many items with a label (row) are of another class (column), by the confident joint; 0 on the diagonal."""
    classes = predictions.classes
    joint = np.zeros((classes, classes))
    if len(predictions) == 0:
        return joint.astype(np.int64)
    reached = np.where(predictions.probabilities >= _thresholds(predictions), predictions.probabilities, -1.0)
    confident = reached.argmax(1)  # of several classes that reach their thresholds, the most probable
    counted = reached.max(1) >= 0
    np.add.at(joint, (predictions.labels[counted], confident[counted]), 1)
    counts = np.bincount(predictions.labels, minlength=classes)
    joint *= (counts / np.maximum(joint.sum(1), 1))[
        :, None
    ]  # items that reach no threshold are distributed as the others
    np.fill_diagonal(joint, 0)
    return np.rint(joint).astype(np.int64)


def _thresholds(predictions: Predictions) -> Floats:
    """The mean probability of each class among the items with its label; above 1, and so never reached, without items."""
    counts = np.bincount(predictions.labels, minlength=predictions.classes)
    own = predictions.probabilities[np.arange(len(predictions)), predictions.labels]
    sums = np.bincount(predictions.labels, weights=own, minlength=predictions.classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 2.0).astype(np.float32)
