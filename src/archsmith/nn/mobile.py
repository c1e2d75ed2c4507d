"""Mobile networks (Tan et al. 2019, "MnasNet: Platform-Aware Neural Architecture Search for Mobile", section 4.1) as modules:
inverted bottlenecks (Sandler et al. 2018, MobileNetV2), depthwise separable and plain convolutions, squeeze-and-excitation
(Hu et al. 2018).

Images are [batch, channels, height, width] of any size. Padding is the same on both sides, as in the PyTorch versions of
these networks; the released code pads as TensorFlow does, which for even sizes and a stride of 2 lies one pixel off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from archsmith.core.channels import NetworkChannels, Start
from archsmith.nn.channel_trace import ChannelTrace
from archsmith.nn.conv import GlobalAverage
from archsmith.nn.mobile_plan import Layer, Plan
from archsmith.nn.squeeze_excite import SqueezeExcite as SqueezeExcite


class MobileLayer(nn.Module):
    """One layer of a block. The last convolution of a bottleneck has no activation behind it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        hidden = layer.hidden
        if layer.operation == "conv":
            parts += _conv(layer.channels, hidden, layer.kernel, layer.stride)
        else:
            if layer.operation == "mbconv":
                parts += _conv(layer.channels, hidden, 1)
            parts += _conv(hidden, hidden, layer.kernel, layer.stride, groups=hidden)
        if layer.squeeze:
            parts.append(SqueezeExcite(hidden, layer.squeeze))
        if layer.operation != "conv":
            parts += _conv(hidden, layer.filters, 1)[:-1]
        self.body = nn.Sequential(*parts)
        self.operation = layer.operation
        self.adds = layer.skip != "none"
        self.skip = (
            nn.AvgPool2d(3, layer.stride, padding=1, count_include_pad=False)
            if layer.skip == "pooling"
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, filters, h / stride, w / stride], rounded up."""
        out: Tensor = self.body(x)
        return out + self.skip(x) if self.adds else out


class MobileNetwork(nn.Module):
    """A 3x3 convolution, the blocks, a 1x1 convolution, the mean over the map, dropout, a linear classifier.

    Args:
        plan: all layers with their shapes.
        training: of the architecture: "dropout", "batch_norm_decay" and "batch_norm_epsilon".
    """

    def __init__(self, plan: Plan, training: Mapping[str, Any]) -> None:
        super().__init__()
        filters, stride = plan.stem
        self.stem = nn.Sequential(*_conv(plan.image, filters, 3, stride))
        self.layers = nn.Sequential(*(MobileLayer(layer) for layer in plan.layers))
        self.blocks = [layer.block for layer in plan.layers]
        self.head = nn.Sequential(*_conv(plan.layers[-1].filters, plan.head, 1))
        self.average = GlobalAverage()
        self.dropout = nn.Dropout(training["dropout"]) if training["dropout"] else nn.Identity()
        self.classifier = nn.Linear(plan.head, plan.num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = round(1 - training["batch_norm_decay"], 12)
                module.eps = training["batch_norm_epsilon"]
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        features = self.average(self.head(self.layers(self.stem(image))))
        logits: Tensor = self.classifier(self.dropout(features))
        return logits

    def channel_groups(self) -> NetworkChannels:
        """Its layers and their channels. The layers of a block are counted from its beginning."""
        trace = ChannelTrace()
        image = trace.group("image", self.stem[0].in_channels)  # type: ignore[arg-type]
        state = trace.state("stem", trace.path(self.stem, "stem", image, module="stem"))
        for at, layer in enumerate(self.layers):
            assert isinstance(layer, MobileLayer)
            name = f"block {self.blocks[at]} layer {at - self.blocks.index(self.blocks[at])}"
            start: Start = "zero" if layer.adds else "identity" if layer.operation == "conv" else "drawn"
            # A residual branch gives the channels that it is added to.
            width = next(part.out_channels for part in reversed(layer.body) if isinstance(part, nn.Conv2d))
            gives = state if layer.adds else trace.group(name, width)
            trace.path(layer.body, f"{name} {layer.operation}", state, gives, module=f"layers.{at}.body", start=start)
            state = trace.state(name, gives)
        trace.linear("classifier", "classifier", trace.path(self.head, "head", state, module="head"), self.classifier)
        return trace.channels()


def _conv(channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]


def initialise(network: nn.Module) -> None:
    """Draw weights as the released code does: of convolutions normal with variance 2 / fan-out, where that of a depthwise
    filter is its own size; of the classifier uniform within 1 / sqrt(outputs). Biases are zero.

    The gates of squeeze-and-excitation are convolutions there, and are drawn as such.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, SqueezeExcite):
            for linear in (module.reduce, module.expand):
                nn.init.normal_(linear.weight, std=math.sqrt(2 / linear.out_features))
                nn.init.zeros_(linear.bias)
    if isinstance(network, MobileNetwork):
        bound = 1 / math.sqrt(network.classifier.out_features)
        nn.init.uniform_(network.classifier.weight, -bound, bound)
        nn.init.zeros_(network.classifier.bias)
