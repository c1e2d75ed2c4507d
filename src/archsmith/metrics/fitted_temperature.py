"""The temperature of a trained network, for the record of its run: fitted on images that the network did not learn from."""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.temperatures import VALIDATION, FittedTemperature
from archsmith.metrics.calibration import calibration_error
from archsmith.metrics.predictions import Predictions
from archsmith.metrics.temperature import fit_temperature, with_temperature

LEAST = 20
"""The fewest predictions that a temperature is fitted on: fewer say too little of it."""


def fitted_temperature(predictions: Predictions, source: str = VALIDATION) -> FittedTemperature | None:
    """The temperature of a network from its predictions; None if there are fewer than `LEAST`.

    Args:
        predictions: of images that the network did not learn from, without a temperature.
        source: what these images are, in words: `VALIDATION` or `OUT_OF_FOLD`.
    """
    if len(predictions) < LEAST:
        return None
    temperature = fit_temperature(predictions)
    scaled = replace(predictions, probabilities=with_temperature(predictions.probabilities, temperature))
    error, error_with = calibration_error(predictions), calibration_error(scaled)
    assert error is not None
    assert error_with is not None
    return FittedTemperature(temperature, source, len(predictions), error, error_with)
