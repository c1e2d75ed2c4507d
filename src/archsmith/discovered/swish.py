"""Swish, x * sigmoid(beta * x) (Ramachandran, Zoph and Le 2017, "Searching for Activation Functions", section 4)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from archsmith.nn.activation import ActivationFunction


class Swish(ActivationFunction):
    """x * sigmoid(beta * x), with a beta that is trained, for each channel or one for all.

    With beta 1 it is SiLU, with 0 it is x / 2, and the greater beta is, the nearer it comes to ReLU. The paper advises batch
    norms that scale, and a learning rate somewhat below that for ReLU.

    Args:
        channels: how many channels have a beta of their own: [n, channels, ...]. None: all share one, any shape.
        beta: what it is at first.
        trainable: whether it is trained. A fixed beta of 1 is torch's own SiLU, as fast.
        dims, compile: as in `archsmith.nn.activation.ActivationFunction`.

    Raises UsageError for settings out of range.
    """

    def __init__(
        self,
        channels: int | None = None,
        beta: float = 1.0,
        *,
        trainable: bool = True,
        dims: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__("x * sigmoid(beta * x)", channels, dims=dims, beta=beta, trainable=trainable, compile=compile)
        self._is_silu = not trainable and beta == 1

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, ...] -> the same shape; any shape where one beta is for all."""
        return F.silu(x) if self._is_silu else super().forward(x)
