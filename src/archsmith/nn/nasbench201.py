"""The networks of NAS-Bench-201 (Dong and Yang 2020): a cell of four nodes and six edges, stacked fifteen times."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From node to node, in the order of a cell's operations."""


def _relu_conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels_out))


def _operation(name: str, channels: int) -> nn.Module | None:
    """The module of an edge; None for "none", which passes nothing on."""
    match name:
        case "none":
            return None
        case "skip_connect":
            return nn.Identity()
        case "nor_conv_1x1":
            return _relu_conv_bn(channels, channels, 1)
        case "nor_conv_3x3":
            return _relu_conv_bn(channels, channels, 3)
        case _:
            return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


class Cell(nn.Module):
    """Four nodes; each is the sum of the operations of its incoming edges, and the last is the output."""

    def __init__(self, operations: Sequence[str], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        for (source, target), name in zip(EDGES, operations, strict=True):
            if (operation := _operation(name, channels)) is not None:
                self.edges[f"{source}-{target}"] = operation

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for target in (1, 2, 3):
            total = torch.zeros_like(x)
            for source in range(target):
                if (key := f"{source}-{target}") in self.edges:
                    total = total + self.edges[key](nodes[source])
            nodes.append(total)
        return nodes[3]


class Reduction(nn.Module):
    """A residual block of stride 2 between stacks (He et al. 2016), with an average pool in its shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            _relu_conv_bn(channels_in, channels_out, 3, 2), _relu_conv_bn(channels_out, channels_out, 3)
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(channels_in, channels_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x) + self.shortcut(x)
        return out


class NASBench201Network(nn.Module):
    """The network of a cell: a stem, three stacks of `repeats` cells with 1, 2 and 4 times `channels`, a classifier.

    Args:
        operations: of the six edges, in the order of `EDGES`.
        channels_in: of the images.
        num_classes: how many classes.
        channels: C, of the first stack; the benchmark's networks have 16.
        repeats: N, the cells of a stack; the benchmark's networks have 5.
    """

    def __init__(
        self, operations: Sequence[str], channels_in: int, num_classes: int, *, channels: int = 16, repeats: int = 5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
        for stack in range(3):
            if stack:
                layers.append(Reduction(channels, 2 * channels))
                channels *= 2
            layers += [Cell(operations, channels) for _ in range(repeats)]
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, channels, height, width]."""
        features = self.body(images)
        # As a mean over positions in the channels-last order, whose gradient keeps that layout.
        out: Tensor = self.classifier(features.permute(0, 2, 3, 1).flatten(1, 2).mean(1))
        return out
