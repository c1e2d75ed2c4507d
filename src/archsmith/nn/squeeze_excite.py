"""Squeeze-and-excitation (Hu et al. 2018, "Squeeze-and-Excitation Networks")."""

from __future__ import annotations

from torch import Tensor, nn

from archsmith.nn.global_average import GlobalAverage


class SqueezeExcite(nn.Module):
    """Each channel times a number from 0 to 1 that is made of the means of all.

    Linear layers stand for the 1x1 convolutions of the released code, which see one pixel.

    Args:
        channels: of the map.
        squeeze: units between the two linear layers.
    """

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.average = GlobalAverage()
        self.reduce = nn.Linear(channels, squeeze)
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Linear(squeeze, channels)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> the same."""
        gate: Tensor = self.gate(self.expand(self.relu(self.reduce(self.average(x)))))
        return x * gate.unsqueeze(2).unsqueeze(3)
