"""Residual networks (He et al. 2016, "Deep Residual Learning for Image Recognition" and "Identity Mappings in Deep Residual
Networks"; Zagoruyko and Komodakis 2016; Sandler et al. 2018) as one module.

Images are [batch, channels, height, width] of any size; a stride of s gives ceil(height / s) by ceil(width / s). The
architecture as plain data is described in `archsmith.spaces.residual_network.architecture`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.channels import Groups, NetworkChannels
from archsmith.core.child import Task
from archsmith.nn.channel_trace import ChannelTrace
from archsmith.nn.conv import GlobalAverage, initialise
from archsmith.nn.squeeze_excite import SqueezeExcite

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
}


class Subsample(nn.Module):
    """A shortcut without parameters: every stride-th pixel, and channels of zeros up to the width."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.pick = nn.MaxPool2d(1, stride, ceil_mode=True)
        self.extra = width - channels  # below zero: the last channels are cut off

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, width, ceil(h / stride), ceil(w / stride)]."""
        return F.pad(self.pick(x), (0, 0, 0, 0, 0, self.extra))


class Block(nn.Module):
    """One block of a stage: [n, channels, h, w] -> [n, width, ceil(h / stride), ceil(w / stride)].

    Args:
        stage: of the architecture.
        channels: that the block reads.
        stride: of its k×k convolution (the first one of a basic block).
        activation: of the architecture, as are `preactivation` and `shortcut`.
    """

    def __init__(
        self,
        stage: Mapping[str, Any],
        channels: int,
        stride: int,
        *,
        activation: str,
        preactivation: bool,
        shortcut: str,
    ) -> None:
        super().__init__()
        self.kind, self.width = stage["block"], stage["width"]
        width, inverted = stage["width"], stage["block"] == "inverted"
        before = preactivation and not inverted
        convolutions = _convolutions(stage, channels, stride)
        body: list[nn.Module] = []
        for k, convolution in enumerate(convolutions):
            last = k == len(convolutions) - 1
            if last and inverted and stage["se_ratio"]:  # between the depthwise convolution and the last one
                body.append(SqueezeExcite(convolution.in_channels, max(1, int(stage["se_ratio"] * channels))))
            if before:
                body += [nn.BatchNorm2d(convolution.in_channels), _ACTIVATIONS[activation](), convolution]
            else:
                body += [convolution, nn.BatchNorm2d(convolution.out_channels)]
                body += [] if last else [_ACTIVATIONS[activation]()]
        if stage["se_ratio"] and not inverted:
            body.append(SqueezeExcite(width, max(1, int(stage["se_ratio"] * width))))
        same = stride == 1 and channels == width
        # A pre-activation block that changes the shape feeds its shortcut with what its first convolution reads.
        shared = before and not same and shortcut != "pad"
        self.first = nn.Sequential(*body[:2]) if shared else nn.Identity()
        self.body = nn.Sequential(*body[2 * shared :])
        self.adds = same or not inverted
        self.shortcut = (
            nn.Identity() if same or inverted else _shortcut(shortcut, channels, width, stride, normalised=not before)
        )
        self.activation = nn.Identity() if before or inverted else _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, width, ceil(h / stride), ceil(w / stride)]."""
        x = self.first(x)
        out: Tensor = self.body(x)
        if self.adds:
            out = out + self.shortcut(x)
        activated: Tensor = self.activation(out)
        return activated

    def trace(self, trace: ChannelTrace, module: str, stage: str, name: str, reads: Groups) -> Groups:
        """Add its layers, which are part of a stage; gives the channels that come out."""
        gives = reads
        if isinstance(self.shortcut, Subsample) and self.shortcut.extra >= 0:
            extra = trace.group(f"{stage} extra", self.shortcut.extra) if self.shortcut.extra else ()
            gives = (*reads, *extra)
        elif not (self.adds and isinstance(self.shortcut, nn.Identity)):
            gives = trace.group(stage, self.width)
        if isinstance(self.shortcut, nn.Sequential):
            trace.path(self.shortcut, f"{stage} shortcut", reads, gives, module=f"{module}.shortcut", start="identity")
        parts = chain.from_iterable(
            part.named_modules(prefix=f"{module}.{of}") for of, part in (("first", self.first), ("body", self.body))
        )
        trace.path(parts, f"{name} {self.kind}", reads, gives, start="zero" if self.adds else "drawn")
        return gives


class Network(nn.Module):
    """Stem, stages, a 1×1 convolution where the architecture has a head, the mean over the map, dropout, a linear classifier.

    Args:
        architecture: of a residual network; it has been checked.
        task: the images and classes.
    """

    def __init__(self, architecture: Mapping[str, Any], task: Task) -> None:
        super().__init__()
        activation, preactivation = architecture["activation"], architecture["preactivation"]
        stem = architecture["stem"]
        channels = stem["filters"]
        first: list[nn.Module] = [_convolution(task.input_shape[0], channels, stem["kernel"], stem["stride"])]
        blocks: list[nn.Module] = []
        for stage in architecture["stages"]:
            for k in range(stage["depth"]):
                blocks.append(
                    Block(
                        stage,
                        channels,
                        stage["stride"] if k == 0 else 1,
                        activation=activation,
                        preactivation=preactivation,
                        shortcut=architecture["shortcut"],
                    )
                )
                channels = stage["width"]
        self.depths = [stage["depth"] for stage in architecture["stages"]]
        opens = architecture["stages"][0]["block"] == "inverted"  # such a block has no activation in front
        closes = architecture["stages"][-1]["block"] == "inverted"  # nor behind
        if not preactivation or opens:
            first += [nn.BatchNorm2d(stem["filters"]), _ACTIVATIONS[activation]()]
        if stem["pool"]:
            first.append(nn.MaxPool2d(3, 2, padding=1))
        last: list[nn.Module] = []
        if preactivation and not closes:
            last += [nn.BatchNorm2d(channels), _ACTIVATIONS[activation]()]
        if architecture["head"]:
            last += [_convolution(channels, architecture["head"], 1), nn.BatchNorm2d(architecture["head"])]
            last.append(_ACTIVATIONS[activation]())
            channels = architecture["head"]
        self.stem = nn.Sequential(*first)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*last)
        self.pool = GlobalAverage()
        self.dropout = nn.Dropout(architecture["dropout"]) if architecture["dropout"] else nn.Identity()
        self.classifier = nn.Linear(channels, task.num_classes)
        initialise(self)
        start_at_identity(self)

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        features = self.pool(self.head(self.blocks(self.stem(image))))
        logits: Tensor = self.classifier(self.dropout(features))
        return logits

    def channel_groups(self) -> NetworkChannels:
        """Its layers and their channels. The blocks of a stage are counted from its beginning."""
        trace = ChannelTrace()
        image = trace.group("image", self.stem[0].in_channels)  # type: ignore[arg-type]
        state = trace.state("stem", trace.path(self.stem, "stem", image, module="stem"))
        places = [(i, k) for i, depth in enumerate(self.depths) for k in range(depth)]
        for at, (block, (i, k)) in enumerate(zip(self.blocks, places, strict=True)):
            assert isinstance(block, Block)
            state = block.trace(trace, f"blocks.{at}", f"stage {i}", f"stage {i} block {k}", state)
            trace.state(f"stage {i}", state)
        state = trace.path(self.head, "head", state, module="head")
        trace.linear("classifier", "classifier", state, self.classifier)
        return trace.channels()


def start_at_identity(network: nn.Module) -> None:
    """Set the scale of the last batch norm of each residual branch to zero, so that a block starts as its shortcut (Goyal
    et al. 2017, section 5.1). Branches that end in a convolution (pre-activation) or that add to nothing stay as they are.
    """
    for block in network.modules():
        if isinstance(block, Block) and block.adds:
            ends = [m for m in block.body if not isinstance(m, SqueezeExcite)]
            if isinstance(ends[-1], nn.BatchNorm2d):
                nn.init.zeros_(ends[-1].weight)


def _convolutions(stage: Mapping[str, Any], channels: int, stride: int) -> list[nn.Conv2d]:
    """The convolutions of a block, in order."""
    width, kernel, expansion = stage["width"], stage["kernel"], stage["expansion"]
    if stage["block"] == "basic":
        return [_convolution(channels, width, kernel, stride), _convolution(width, width, kernel)]
    if stage["block"] == "bottleneck":
        inner = max(1, round(expansion * width))
        return [
            _convolution(channels, inner, 1),
            _convolution(inner, inner, kernel, stride),
            _convolution(inner, width, 1),
        ]
    inner = max(1, round(expansion * channels))
    depthwise = _convolution(inner, inner, kernel, stride, groups=inner)
    expand = [] if inner == channels else [_convolution(channels, inner, 1)]
    return [*expand, depthwise, _convolution(inner, width, 1)]


def _shortcut(kind: str, channels: int, width: int, stride: int, *, normalised: bool) -> nn.Module:
    """What a block that changes the shape adds of its input."""
    if kind == "pad":
        return Subsample(channels, width, stride)
    parts: list[nn.Module] = []
    if kind == "pool" and stride > 1:
        parts.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        stride = 1
    parts.append(_convolution(channels, width, 1, stride))
    if normalised:
        parts.append(nn.BatchNorm2d(width))
    return nn.Sequential(*parts)


def _convolution(channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
