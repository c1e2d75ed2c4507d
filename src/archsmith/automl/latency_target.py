"""How long the delivered network may take for a picture on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.training import Latency

ENGINE_NAMES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime"}


@dataclass(frozen=True)
class LatencyTarget:
    """How long a network may take for a picture.

    Args:
        milliseconds: at most.
        engine: "pytorch", or "onnxruntime" for the network as `export --format onnx` writes it; with one thread.

    Raises UsageError for other values.
    """

    milliseconds: float
    engine: str = "pytorch"

    def __post_init__(self) -> None:
        value = self.milliseconds
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UsageError(f"a latency is a number of milliseconds above 0, got {shown(value)}")
        self.latency()

    def latency(self) -> Latency:
        """What it is measured with."""
        return Latency(engine=self.engine)

    def allows(self, model: nn.Module, input_shape: Sequence[int]) -> bool:
        """Whether the network takes no longer, measured now."""
        return self.latency().measure(model, input_shape).median <= self.milliseconds

    def sentence(self, measured: float) -> str:
        """Whether the delivered network meets it."""
        engine = f"{ENGINE_NAMES[self.engine]} with one thread"
        taken = f"{measured:.3g} ms for a picture, measured with {engine} on this machine"
        if measured <= self.milliseconds:
            return f"The network meets the target of {self.milliseconds:g} ms: it takes {taken}."
        over = measured - self.milliseconds
        return (
            f"The network misses the target of {self.milliseconds:g} ms by {over:.2g} ms: it takes {taken}. "
            "A smaller --size may help."
        )
