"""Temperature scaling (Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks").

"A single scalar parameter T > 0 for all classes": the logits are divided by T, which minimises the log loss on validation
data. The predicted classes stay the same.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from archsmith.metrics.predictions import Floats, Integers, Predictions

COLDEST, HOTTEST = 0.05, 20.0
_LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 has no logarithm


def fit_temperature(predictions: Predictions) -> float:
    """The temperature, from 0.05 to 20, that minimises the log loss of validation predictions.

    It is 1 where there is no minimum: without items, and where every item is right, since the log loss falls with the
    temperature then. Logits are recovered from the probabilities, up to a constant that does not matter.
    """
    if len(predictions) == 0 or predictions.correct == len(predictions):
        return 1.0
    logits, labels = _logits(predictions.probabilities), predictions.labels
    cold, hot = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(60):  # the log loss is convex in 1/T, so its slope changes sign once
        middle = (cold + hot) / 2
        if _slope(logits, labels, math.exp(-middle)) > 0:
            cold = middle
        else:
            hot = middle
    return math.exp((cold + hot) / 2)


def with_temperature(probabilities: npt.ArrayLike, temperature: float) -> Floats:
    """The probabilities [..., classes] that the same logits have at a temperature."""
    given = np.asarray(probabilities, dtype=np.float32)
    if temperature == 1.0:
        return given
    return _softmax(_logits(given) / temperature).astype(np.float32)


def log_loss(predictions: Predictions) -> float:
    """The mean negative logarithm of the probability of the true class."""
    chosen = predictions.probabilities[np.arange(len(predictions)), predictions.labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, _LEAST)).mean())


def _logits(probabilities: Floats) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST))


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return shares


def _slope(logits: npt.NDArray[np.float64], labels: Integers, inverse: float) -> float:
    """The derivative of the log loss by 1/T."""
    expected = (_softmax(logits * inverse) * logits).sum(1)
    return float((expected - logits[np.arange(len(labels)), labels]).mean())
