"""The operations of convolutional children, and a network of layers that read any earlier ones.

Every size that padding depends on is known when a child is built, so a forward pass has no branches: torch.fx traces
it, and ONNX and the source export follow it. Images are [batch, channels, height, width].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.channels import Groups, NetworkChannels
from archsmith.nn.channel_trace import ChannelTrace
from archsmith.nn.global_average import GlobalAverage as GlobalAverage


class ConvLayer(nn.Module):
    """Convolution, batch norm, ReLU, with "same" padding: a stride s gives ceil(height / s) by ceil(width / s).

    The convolution has no bias: batch norm's own shift would undo it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, int], stride: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        (top, bottom), (left, right) = (((k - 1) // 2, k // 2) for k in kernel_size)
        # A filter of odd size has equal padding on both sides, which the convolution does itself.
        even = (top, left) != (bottom, right)
        self.pads = (left, right, top, bottom) if even else None
        padding = 0 if even else (top, left)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_channels, h, w] -> [n, out_channels, ceil(h / stride), ceil(w / stride)]."""
        if self.pads is not None:
            x = F.pad(x, self.pads)
        out: Tensor = self.relu(self.norm(self.conv(x)))
        return out


class Pool(nn.Module):
    """Max or average pooling with "same" padding: a stride s gives ceil(height / s) by ceil(width / s).

    Windows that reach over the edge see the edge repeated, which for the maximum is as if they ended there.
    """

    def __init__(self, kind: str, size: int, stride: int) -> None:
        super().__init__()
        before, after = (size - 1) // 2, size // 2
        # Windows that tile the map need no padding: the last one may be cut off.
        tiled = size == stride
        self.pads = None if tiled or size == 1 else (before, after, before, after)
        pool = nn.MaxPool2d if kind == "max" else nn.AvgPool2d
        self.pool = pool(size, stride, ceil_mode=tiled)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, ceil(h / stride), ceil(w / stride)]."""
        if self.pads is not None:
            x = F.pad(x, self.pads, mode="replicate")
        out: Tensor = self.pool(x)
        return out


class LocalContrastNorm(nn.Module):
    """Local contrast normalisation (Jarrett et al. 2009, section 3.1): nothing in it is learned.

    From each value the weighted mean of its neighbourhood over all channels is subtracted, and the result divided by
    the neighbourhood's standard deviation where that is above its mean over the map. A window over the edge counts
    what lies inside. The paper's window is 9x9 for maps of 140x140; ours is 5x5, for maps of 8x8 to 32x32.
    """

    window: Tensor
    coverage: Tensor

    def __init__(self, size: tuple[int, int], window: int = 5) -> None:
        super().__init__()
        position = torch.arange(window, dtype=torch.float32) - (window - 1) / 2
        bell = torch.exp(-0.5 * (position / (window / 4)) ** 2)
        weights = torch.outer(bell, bell)
        weights = (weights / weights.sum())[None, None]
        self.pad = window // 2
        self.register_buffer("window", weights, persistent=False)
        inside = F.conv2d(torch.ones(1, 1, *size), weights, padding=self.pad)
        self.register_buffer("coverage", inside, persistent=False)  # the share of a window that lies in the map

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> the same."""
        v = x - self._local_mean(x)
        sigma = torch.sqrt(self._local_mean(v * v) + 1e-5)
        return v / torch.maximum(sigma, sigma.mean((2, 3), keepdim=True))

    def _local_mean(self, x: Tensor) -> Tensor:
        return F.conv2d(x.mean(1, keepdim=True), self.window, padding=self.pad) / self.coverage


class FullyConnected(nn.Module):
    """A fully connected layer, batch norm and ReLU over a whole map: [n, in_channels, h, w] -> [n, units, 1, 1].

    Its weights would number h * w * in_channels * units, which at 32x32 is ten million for one layer, so the map is
    averaged down to at most `side` by `side` first.
    """

    def __init__(self, in_channels: int, units: int, size: tuple[int, int], side: int) -> None:
        super().__init__()
        cell, kernel = reduction(size, side)
        self.reduce = nn.AvgPool2d(cell, cell, ceil_mode=True) if max(cell) > 1 else nn.Identity()
        self.conv = nn.Conv2d(in_channels, units, kernel, bias=False)  # a window as large as the map
        self.norm = nn.BatchNorm2d(units)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_channels, h, w] -> [n, units, 1, 1]."""
        out: Tensor = self.relu(self.norm(self.conv(self.reduce(x))))
        return out


def reduction(size: tuple[int, int], side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The windows that average a map of this size down to at most `side` by `side`, and the size that results."""
    height, width = (-(-n // side) for n in size)
    return (height, width), (-(-size[0] // height), -(-size[1] // width))


class Join(nn.Module):
    """States of any sizes as one: zero-padded up to the largest, then concatenated along the channels.

    The padding is symmetric, with the odd row or column at the bottom or right.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
        self.pads: list[tuple[int, int, int, int] | None] = []
        for h, w in sizes:
            top, left = (height - h) // 2, (width - w) // 2
            pads = (left, width - w - left, top, height - h - top)
            self.pads.append(pads if any(pads) else None)

    def forward(self, *states: Tensor) -> Tensor:
        """[n, c_k, h_k, w_k] for each k -> [n, sum of c_k, max of h_k, max of w_k]."""
        padded = [x if pads is None else F.pad(x, pads) for x, pads in zip(states, self.pads, strict=True)]
        return padded[0] if len(padded) == 1 else torch.cat(padded, 1)


class WiredNetwork(nn.Module):
    """Layers in order, each of which reads the join of any earlier states, and a linear classifier.

    State 0 is the image and state k + 1 the output of layer k.

    Args:
        layers: the layers.
        inputs: for each layer the states it reads.
        outputs: the states that the classifier reads.
        sizes: height and width of each state.
        channels: of all the states that the classifier reads, together.
        num_classes: how many logits it gives.
        names: of the layers, the same for corresponding layers of two networks. Empty: their numbers.
        image_channels: of an image.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        inputs: Sequence[Sequence[int]],
        outputs: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        channels: int,
        num_classes: int,
        names: Sequence[str] = (),
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.layers = nn.ModuleList(layers)
        self.names = list(names) or [str(k) for k in range(len(layers))]
        self.inputs = [tuple(states) for states in (*inputs, outputs)]
        self.joins = nn.ModuleList(Join([sizes[k] for k in states]) for states in self.inputs)
        self.pool = GlobalAverage()
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        states = [image]
        for layer, join, inputs in zip(self.layers, self.joins, self.inputs, strict=False):
            states.append(layer(join(*[states[k] for k in inputs])))
        last = self.joins[-1](*[states[k] for k in self.inputs[-1]])
        logits: Tensor = self.classifier(self.pool(last))
        return logits

    def channel_groups(self) -> NetworkChannels:
        """Its layers and their channels. A convolution that is new behind the others starts as the identity."""
        trace = ChannelTrace()
        states: list[Groups] = [trace.group("image", self.image_channels)]
        for k, (layer, name) in enumerate(zip(self.layers, self.names, strict=True)):
            reads = tuple(group for state in self.inputs[k] for group in states[state])
            name = f"layer {name} {type(layer).__name__}"
            match layer:
                case ConvLayer():
                    states.append(trace.path(layer, name, reads, module=f"layers.{k}", start="identity"))
                case FullyConnected():
                    states.append(trace.path(layer, name, reads, module=f"layers.{k}"))
                case nn.BatchNorm2d():
                    states.append(trace.norm(f"layers.{k}", name, trace.version(name, reads), "identity"))
                case _:
                    states.append(trace.version(name, reads))
        last = tuple(group for state in self.inputs[-1] for group in states[state])
        trace.linear("classifier", "classifier", last, self.classifier)
        return trace.channels()


def initialise(network: nn.Module) -> None:
    """Draw the convolutions' weights as He et al. (2015) do, for layers that end in ReLU; the rest keep torch's own."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
