"""An exponential moving average of a model's weights and buffers, which is often better than the last weights (Polyak and Juditsky
1992; with this warm-up, Tan and Le 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model's parameters and floating-point buffers, one step after the other.

    The model must be on its device and in its memory layout already, and stay there.

    Args:
        model: the model that is trained.
        decay: how much of the average stays in each step; after t steps at most (1 + t) / (10 + t).
        state: what `state()` gave, to go on from; None: begins with the weights as they are.
    """

    def __init__(self, model: nn.Module, decay: float, state: Mapping[str, Any] | None = None) -> None:
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._decay = decay
        self._current: list[Tensor] = [*model.parameters(), *buffers]
        self._averages = [tensor.detach().clone() for tensor in self._current]
        self._steps = 0
        if state is not None:
            self._steps = int(state["steps"])
            for average, value in zip(self._averages, state["values"], strict=True):
                average.copy_(value)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more step of the training."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._averages, self._current, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it lasts, the model has the average. Copies nothing."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the model's values and the average."""
        for position, tensor in enumerate(self._current):
            own = tensor.data
            tensor.data = self._averages[position]
            self._averages[position] = own

    def state(self) -> dict[str, Any]:
        """The average and the number of steps, for a checkpoint."""
        return {"values": list(self._averages), "steps": self._steps}
