"""The confusion matrix of a classifier, and what each of its rows and columns says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsmith.metrics import wilson
from archsmith.metrics.predictions import Integers, Predictions


@dataclass(frozen=True)
class ClassScores:
    """One class among the others.

    Args:
        count: how many items have this label.
        predicted: how many items were taken for it.
        correct: how many are both.
    """

    count: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float | None:
        """The share of the items of this class that were recognised; None without items."""
        return self.correct / self.count if self.count else None

    @property
    def precision(self) -> float | None:
        """The share of the items taken for this class that are of it; None if none were."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def recall_interval(self) -> tuple[float, float]:
        """The 95 % interval of the recall (Wilson)."""
        return wilson.interval(self.correct, self.count)

    @property
    def precision_interval(self) -> tuple[float, float]:
        """The 95 % interval of the precision (Wilson)."""
        return wilson.interval(self.correct, self.predicted)


def confusion_matrix(predictions: Predictions) -> Integers:
    """How many items of each true class (row) were taken for each class (column)."""
    k = predictions.classes
    pairs = np.bincount(predictions.labels * k + predictions.predicted, minlength=k * k)
    return pairs.reshape(k, k).astype(np.int64)


def class_scores(matrix: Integers) -> tuple[ClassScores, ...]:
    """The scores of each class, in the order of the matrix."""
    rows = zip(matrix.sum(1).tolist(), matrix.sum(0).tolist(), matrix.diagonal().tolist(), strict=True)
    return tuple(ClassScores(count, predicted, correct) for count, predicted, correct in rows)


def balanced_accuracy(matrix: Integers) -> float | None:
    """The mean recall of the classes that have items; None without any."""
    counts = matrix.sum(1)
    there = counts > 0
    return float((matrix.diagonal()[there] / counts[there]).mean()) if there.any() else None
