"""The layers of MetaQNN's networks (Baker et al. 2017): plain convolutions, pools and fully connected layers.

Images are [batch, channels, height, width]. Every size that pooling depends on is known when a child is built, so a
forward pass has no branches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from archsmith.nn.conv import GlobalAverage


def conv(in_channels: int, filters: int, filter_size: int, batch_norm: bool) -> nn.Sequential:
    """Convolution with stride 1 and "same" padding, batch norm if asked for, ReLU: the size of the map stays."""
    layers: list[nn.Module] = [
        # Batch norm's own shift would undo a bias.
        nn.Conv2d(in_channels, filters, filter_size, padding=filter_size // 2, bias=not batch_norm)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(filters))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def max_pool(size: tuple[int, int], pool_size: int, stride: int) -> nn.MaxPool2d:
    """Max pooling of a map of this size, without padding; a window that is larger than the map is cut to it."""
    height, width = size
    return nn.MaxPool2d((min(pool_size, height), min(pool_size, width)), stride)


class Dense(nn.Module):
    """A linear layer over a whole map: [n, channels, height, width] (or [n, channels]) -> [n, units].

    Args:
        channels, size: of the map that it reads.
        units: how many numbers it gives.
        side: the map is averaged down to so many rows and columns where it has more. None: it is read as it is.
    """

    def __init__(self, channels: int, size: tuple[int, int], units: int, side: int | None) -> None:
        super().__init__()
        rows, columns = (n if side is None else min(n, side) for n in size)
        self.reduce = nn.Identity() if (rows, columns) == size else _average(size, (rows, columns))
        self.linear = nn.Linear(channels * rows * columns, units)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] -> [n, units]."""
        out: Tensor = self.linear(torch.flatten(self.reduce(x), 1))
        return out


def _average(size: tuple[int, int], to: tuple[int, int]) -> nn.AvgPool2d:
    """The average pooling that gives exactly that size: windows of equal size, which may overlap (5 to 4: 2, stride 1)."""
    strides = [n // m for n, m in zip(size, to, strict=True)]
    windows = [n - (m - 1) * s for n, m, s in zip(size, to, strides, strict=True)]
    return nn.AvgPool2d((windows[0], windows[1]), (strides[0], strides[1]))


class QNetwork(nn.Module):
    """A chain of layers and a linear classifier.

    Args:
        layers: in order.
        classifier: from what the last layer gives to logits.
    """

    def __init__(self, layers: Sequence[nn.Module], classifier: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.classifier = classifier
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, classes]."""
        out: Tensor = self.classifier(self.layers(images))
        return out


def average_classifier(channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling, then linear: a 1x1 convolution to the classes and its average are the same function."""
    return nn.Sequential(GlobalAverage(), nn.Linear(channels, num_classes))
