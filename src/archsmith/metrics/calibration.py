"""The expected calibration error with bins of equal mass (Nguyen and O'Connor 2015, "Posterior calibration and exploratory
analysis for natural language processing models"; the error itself: Naeini, Cooper and Hauskrecht 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsmith.metrics.predictions import Predictions

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Items of about equal confidence: how many, their mean confidence, and the share of them that is right."""

    count: int
    confidence: float
    accuracy: float


def calibration_bins(predictions: Predictions, bins: int = BINS) -> tuple[Bin, ...]:
    """The items in order of confidence, in as many groups of about equal size; fewer where there are fewer items.

    Items of equal confidence count with their common accuracy, so that their order does not matter.
    """
    n = len(predictions)
    if n == 0:
        return ()
    confidence = predictions.confidence.astype(np.float64)
    _, inverse, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    right = (np.bincount(inverse, weights=predictions.right) / counts)[inverse]
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(bins, n))
    return tuple(Bin(len(g), float(confidence[g].mean()), float(right[g].mean())) for g in groups)


def calibration_error(predictions: Predictions, bins: int = BINS) -> float | None:
    """How far confidence is from accuracy on average over the bins, from 0 to 1; None without items."""
    groups = calibration_bins(predictions, bins)
    n = sum(group.count for group in groups)
    return sum(g.count * abs(g.confidence - g.accuracy) for g in groups) / n if n else None
