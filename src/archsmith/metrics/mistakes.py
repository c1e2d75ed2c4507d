"""The worst mistakes of a classifier: those that it is surest of."""

from __future__ import annotations

import numpy as np

from archsmith.metrics.predictions import Predictions


def worst_mistakes(predictions: Predictions, most: int = 24) -> list[int]:
    """Positions of the wrong predictions, those of the highest confidence first; of equals the earlier, at most `most`."""
    wrong = np.flatnonzero(~predictions.right)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return [int(position) for position in wrong[order][:most]]
