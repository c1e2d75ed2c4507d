"""The record of the temperatures that calibrate a run's trained networks: one for each set of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

DOCUMENT = "temperatures"
"""The document of a run that maps artifacts, which are weights, to their `FittedTemperature` as JSON."""

VALIDATION = "validation images"
OUT_OF_FOLD = "images of a cross-validation"


@runtime_checkable
class GivesPredictions(Protocol):
    """An evaluator of classifiers whose probabilities can be calibrated."""

    def predictions(self, model: torch.nn.Module, split: str, device: str = "cpu") -> Any:
        """The `archsmith.metrics.predictions.Predictions` of a trained model for the split "validation" or "test"."""
        ...


@dataclass(frozen=True)
class FittedTemperature:
    """The temperature that a network's logits are divided by, and what it changes.

    Args:
        temperature: above 0; 1 changes nothing.
        source: what it was fitted on, in words: `VALIDATION` or `OUT_OF_FOLD`.
        count: how many images that were.
        error: the expected calibration error on them without the temperature, from 0 to 1.
        error_with: the same with the temperature.
    """

    temperature: float
    source: str
    count: int
    error: float
    error_with: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> FittedTemperature | None:
        """What `to_json` wrote; None for anything else, since a store may come from anywhere."""
        if not isinstance(value, Mapping):
            return None
        numbers = [value.get(name) for name in ("temperature", "error", "error_with", "count")]
        if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
            return None
        fitted = cls(
            temperature=float(value["temperature"]),
            source=str(value.get("source", VALIDATION)),
            count=int(value["count"]),
            error=float(value["error"]),
            error_with=float(value["error_with"]),
        )
        return fitted if fitted.temperature > 0 else None

    def __str__(self) -> str:
        return (
            f"The probabilities are calibrated: logits are divided by the temperature {self.temperature:.3g}, fitted on "
            f"{self.count:,} {self.source}. The expected calibration error there is {100 * self.error:.1f} % without it and "
            f"{100 * self.error_with:.1f} % with it."
        )


def temperature_of(document: object, artifact: str) -> FittedTemperature | None:
    """The temperature of weights in a run's document `DOCUMENT`; None if the run has recorded none."""
    return FittedTemperature.from_json(document.get(artifact)) if isinstance(document, Mapping) else None


def with_temperature_of(document: object, artifact: str, fitted: FittedTemperature) -> dict[str, Any]:
    """The document `DOCUMENT` with that of some weights added."""
    earlier = dict(document) if isinstance(document, Mapping) else {}
    return {**earlier, artifact: fitted.to_json()}
