"""How long networks take for a picture on this machine, and how long the delivered one may take."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.metrics.outcome import ENGINE_NAMES
from archsmith.training import Latency

_OF_ONNX = ("onnx", "onnxruntime", "onnxscript")  # the extra


def usual_engine() -> str:
    """What latencies are measured with if nobody says: ONNX Runtime if it is installed, else PyTorch.

    One picture at a time, PyTorch is several times slower, and mostly busy with other things than the network.
    """
    installed = all(importlib.util.find_spec(package) is not None for package in _OF_ONNX)
    return "onnxruntime" if installed else "pytorch"


def measured(model: nn.Module, input_shape: Sequence[int], engine: str) -> tuple[float, str]:
    """Milliseconds for a picture, with one thread, and what they were measured with: PyTorch if the engine cannot run the model."""
    model = model.cpu().eval()
    try:
        return Latency(engine=engine).measure(model, input_shape).median, engine
    except Exception:  # of ONNX Runtime, or of a module of the user's
        return Latency().measure(model, input_shape).median, "pytorch"


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

    def sentence(self, latency: float, engine: str) -> str:
        """Whether the delivered network meets it, which takes so many milliseconds when that engine runs it."""
        taken = f"{latency:.3g} ms for a picture, measured with {ENGINE_NAMES[engine]} with one thread on this machine"
        if latency <= self.milliseconds:
            return f"The network meets the target of {self.milliseconds:g} ms: it takes {taken}."
        over = latency - self.milliseconds
        return f"The network misses the target of {self.milliseconds:g} ms by {over:.2g} ms: it takes {taken}."
