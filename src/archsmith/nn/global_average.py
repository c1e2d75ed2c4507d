"""The mean of each channel over a map."""

from __future__ import annotations

from torch import Tensor, nn


class GlobalAverage(nn.Module):
    """The mean over height and width.

    Written so because children are trained channels-last: `x.mean((2, 3))` hands a contiguous gradient back, and
    ReLU's backward pass is many times slower on mixed layouts. In a contiguous network it is this form that mixes
    them, and a step takes a quarter longer and more (benchmarks/global_average.py).
    """

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c]."""
        return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)
