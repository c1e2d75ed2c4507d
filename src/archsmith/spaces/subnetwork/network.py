"""Mobile networks as modules, with the parameter names of PyTorch Image Models (timm), so that files of its weights fit."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.nn.conv import GlobalAverage
from archsmith.pretrained import Preparation
from archsmith.spaces.subnetwork.known import Block, MobileNetwork

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hardswish": nn.Hardswish}
_GATES = {"sigmoid": nn.Sigmoid, "hardsigmoid": nn.Hardsigmoid}


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow does: the output has ceil(input / stride) pixels a side, and an odd number of padded
    pixels has one more below and right. The kernel is at least as large as the stride."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, filters, ceil(h / stride), ceil(w / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        # Plain arithmetic, so that torch.fx can trace it.
        below = (x.size(2) + stride - 1) // stride * stride - stride + kernel - x.size(2)
        right = (x.size(3) + stride - 1) // stride * stride - stride + kernel - x.size(3)
        x = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))
        return F.conv2d(x, self.weight, None, stride, 0, 1, self.groups)


class Whiten(nn.Module):
    """Pictures from 0 to 1 as the weights were trained on them. Grey ones have the mean of the three channels' values."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, preparation: Preparation, channels: int) -> None:
        super().__init__()
        for name in ("mean", "deviation"):
            values = torch.tensor(getattr(preparation, name))
            values = values if channels == len(values) else values.mean().expand(channels)
            self.register_buffer(name, values.reshape(1, channels, 1, 1).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> the same."""
        return (x - self.mean) / self.deviation


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) by 1×1 convolutions."""

    def __init__(self, network: MobileNetwork, channels: int, squeeze: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeeze, 1)
        self.act1 = _ACTIVATIONS[network.squeeze_activation]()
        self.conv_expand = nn.Conv2d(squeeze, channels, 1)
        self.gate = _GATES[network.gate]()

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> the same."""
        gate: Tensor = self.gate(self.conv_expand(self.act1(self.conv_reduce(x.mean((2, 3), keepdim=True)))))
        return x * gate


class InvertedBottleneck(nn.Module):
    """1×1, depthwise and 1×1 convolution; there is no activation behind the last."""

    def __init__(self, network: MobileNetwork, block: Block) -> None:
        super().__init__()
        self.conv_pw = nn.Conv2d(block.channels, block.hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(block.hidden, network.epsilon)
        self.conv_dw = _conv(network, block.hidden, block.hidden, block.kernel, block.stride, groups=block.hidden)
        self.bn2 = nn.BatchNorm2d(block.hidden, network.epsilon)
        self.se = SqueezeExcite(network, block.hidden, block.squeeze) if block.squeeze else nn.Identity()
        self.conv_pwl = nn.Conv2d(block.hidden, block.filters, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(block.filters, network.epsilon)
        self.act = _ACTIVATIONS[block.activation]()
        self.adds = block.adds

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, filters, h / stride, w / stride]."""
        out: Tensor = self.act(self.bn1(self.conv_pw(x)))
        out = self.se(self.act(self.bn2(self.conv_dw(out))))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.adds else out


class Separable(nn.Module):
    """Depthwise and 1×1 convolution; there is no activation behind the last."""

    def __init__(self, network: MobileNetwork, block: Block) -> None:
        super().__init__()
        self.conv_dw = _conv(network, block.channels, block.channels, block.kernel, block.stride, groups=block.channels)
        self.bn1 = nn.BatchNorm2d(block.channels, network.epsilon)
        self.se = SqueezeExcite(network, block.channels, block.squeeze) if block.squeeze else nn.Identity()
        self.conv_pw = nn.Conv2d(block.channels, block.filters, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(block.filters, network.epsilon)
        self.act = _ACTIVATIONS[block.activation]()
        self.adds = block.adds

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, filters, h / stride, w / stride]."""
        out: Tensor = self.se(self.act(self.bn1(self.conv_dw(x))))
        out = self.bn2(self.conv_pw(out))
        return out + x if self.adds else out


class PlainConv(nn.Module):
    """1×1 convolution, batch norm, activation."""

    def __init__(self, network: MobileNetwork, block: Block) -> None:
        super().__init__()
        self.conv = nn.Conv2d(block.channels, block.filters, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(block.filters, network.epsilon)
        self.act = _ACTIVATIONS[block.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, filters, h, w]."""
        out: Tensor = self.act(self.bn1(self.conv(x)))
        return out


_BLOCKS = {"inverted": InvertedBottleneck, "separable": Separable, "conv": PlainConv}


class Network(nn.Module):
    """The whole network for pictures [n, channels, height, width] of any size.

    Args:
        network: its blocks.
        num_classes: of the classifier.
        channels: of the pictures.
        preparation: by which pictures are whitened; None: they are taken as they are.
        frozen: how many stages are not trained, with the stem. Their batch norms keep their averages.
    """

    def __init__(
        self,
        network: MobileNetwork,
        num_classes: int,
        channels: int = 3,
        preparation: Preparation | None = None,
        frozen: int = 0,
    ) -> None:
        super().__init__()
        self.whiten = nn.Identity() if preparation is None else Whiten(preparation, channels)
        self.conv_stem = _conv(network, channels, network.stem, 3, 2)
        self.bn1 = nn.BatchNorm2d(network.stem, network.epsilon)
        self.act = _ACTIVATIONS[network.activation]()
        self.blocks = nn.Sequential(
            *(nn.Sequential(*(_BLOCKS[block.operation](network, block) for block in stage)) for stage in network.stages)
        )
        width = network.stages[-1][-1].filters
        self.pools_first = network.pools_first
        self.average = GlobalAverage()
        self.has_head = bool(network.head)
        if self.has_head:
            self.conv_head = nn.Conv2d(width, network.head, 1, bias=network.pools_first)
            self.bn2 = nn.Identity() if network.pools_first else nn.BatchNorm2d(network.head, network.epsilon)
            width = network.head
        self.dropout = nn.Dropout(network.dropout)
        self.classifier = nn.Linear(width, num_classes)
        self.frozen = frozen
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        return [self.conv_stem, self.bn1, *list(self.blocks)[: self.frozen]] if self.frozen else []

    def train(self, mode: bool = True) -> Self:
        """In training, what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def stages(self, x: Tensor) -> list[Tensor]:
        """The maps after the stem and after each stage."""
        maps = [self.act(self.bn1(self.conv_stem(self.whiten(x))))]
        for stage in self.blocks:
            maps.append(stage(maps[-1]))
        return maps

    def features(self, last: Tensor) -> Tensor:
        """What is classified, [n, width], from the map after the last stage."""
        if not self.has_head:
            features: Tensor = self.average(last)
        elif self.pools_first:
            features = self.act(self.conv_head(last.mean((2, 3), keepdim=True))).flatten(1)
        else:
            features = self.average(self.act(self.bn2(self.conv_head(last))))
        return features

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        logits: Tensor = self.classifier(self.dropout(self.features(self.stages(image)[-1])))
        return logits


def _conv(
    network: MobileNetwork, channels: int, filters: int, kernel: int, stride: int, *, groups: int = 1
) -> nn.Conv2d:
    if network.same_padding and stride > 1:
        return SameConv2d(channels, filters, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
