"""Densely connected networks (Huang et al. 2017, section 3), without bottlenecks and compression: DenseNet-L-k.

A 3x3 convolution to 16 channels, three dense blocks of (L - 4) / 3 layers, batch norm, ReLU, global average, linear. A layer is
batch norm, ReLU and a 3x3 convolution to k channels, which are joined to what it read. Between blocks: batch norm, ReLU, a
1x1 convolution that keeps the channels, and 2x2 average pooling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.nn.preactivated import STEM_CHANNELS, PreActivated
from archsmith.nn.resnet import strides_of


class DenseLayer(nn.Module):
    """Joins `growth` channels to what it reads: [n, c, h, w] -> [n, c + growth, h, w]."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_channels, h, w] -> [n, in_channels + growth, h, w]."""
        return torch.cat((x, self.conv(self.relu(self.norm(x)))), 1)


class Transition(nn.Sequential):
    """Between two blocks: [n, c, h, w] -> [n, c, h / stride, w / stride]."""

    def __init__(self, channels: int, stride: int) -> None:
        pool = [nn.AvgPool2d(stride)] if stride > 1 else []
        super().__init__(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1, bias=False), *pool
        )


class DenseNet(PreActivated):
    """The network.

    Args:
        task: the images and classes.
        depth: L, 3n + 4 layers.
        growth: k, the channels that each layer adds.

    Raises UsageError for another depth.
    """

    def __init__(self, task: Task, depth: int, growth: int) -> None:
        if depth < 7 or (depth - 4) % 3:
            raise UsageError(f"a dense network has 3n + 4 layers (7, 10, ..., 40, ..., 100), got depth={depth}")
        stem, *strides = strides_of(task)
        channels = STEM_CHANNELS
        layers: list[nn.Module] = []
        for stage, stride in enumerate(strides):
            if stage > 0:
                layers.append(Transition(channels, stride))
            for _ in range((depth - 4) // 3):
                layers.append(DenseLayer(channels, growth))
                channels += growth
        super().__init__(task, stem, layers, channels)


def densenet_100_12(task: Task) -> DenseNet:
    """DenseNet-100-12: 6,979,642 parameters for ten classes of 3x32x32; the paper has 7.0 million."""
    return DenseNet(task, 100, 12)
