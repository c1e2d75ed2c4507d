"""The operations of NASNet cells as layers with all their shapes, in plain Python (Zoph et al. 2018, "Learning
Transferable Architectures for Scalable Image Recognition", appendix A.4).

An operation is a path: ReLU, convolution and batch norm in this order, 1x1 convolutions where channels differ,
separable convolutions applied twice, nothing between their depthwise and their pointwise half. Padding is TensorFlow's
SAME, so that released weights would compute here what they computed there: a stride s gives ceil(size / s), and where
the padding is odd, the bottom and the right get one more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Shape(NamedTuple):
    """Of one image's state."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a path.

    Args:
        kind: "relu", "conv", "norm", "avg_pool", "max_pool", or "shift": by a pixel to the top left, zeros come in.
        shape: of what it reads.
        out: of what it gives.
        kernel, stride: height and width.
        dilation, groups: of a convolution.
        pads: left, right, top, bottom.
    """

    kind: str
    shape: Shape
    out: Shape
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: int = 1
    groups: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def parameters(self) -> int:
        """Weights of a convolution; scale and shift of a batch norm."""
        if self.kind == "norm":
            return 2 * self.out.channels
        if self.kind != "conv":
            return 0
        return self.out.channels * (self.shape.channels // self.groups) * self.kernel[0] * self.kernel[1]

    @property
    def multiply_adds(self) -> int:
        """Of a convolution, padding included."""
        return self.parameters * self.out.height * self.out.width if self.kind == "conv" else 0


Path: TypeAlias = tuple[Layer, ...]
"""Layers in order. An empty path changes nothing."""


@dataclass(frozen=True, slots=True)
class Halving:
    """A factorised reduction: two strided 1x1 convolutions, the second a pixel further, concatenated and normalised.

    Args:
        relu: whether a ReLU comes first.
        paths: the two halves.
        norm: of both.
    """

    relu: bool
    paths: tuple[Path, Path]
    norm: Layer

    @property
    def out(self) -> Shape:
        """The shape of what it gives."""
        return self.norm.out


Step: TypeAlias = Path | Halving


def layers_of(step: Step) -> Path:
    """All layers of a path or of a factorised reduction."""
    return (*step.paths[0], *step.paths[1], step.norm) if isinstance(step, Halving) else step


def depth_of(step: Step) -> int:
    """The most convolutions on one way through it."""
    if isinstance(step, Halving):
        return 1
    return sum(layer.kind == "conv" for layer in step)


class Chain:
    """A path in the making: each call adds a layer."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.layers: list[Layer] = []

    def _add(self, layer: Layer) -> Chain:
        self.layers.append(layer)
        self.shape = layer.out
        return self

    def relu(self) -> Chain:
        """ReLU."""
        return self._add(Layer("relu", self.shape, self.shape))

    def norm(self) -> Chain:
        """Batch norm with scale and shift."""
        return self._add(Layer("norm", self.shape, self.shape))

    def conv(
        self,
        filters: int,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        *,
        dilation: int = 1,
        groups: int = 1,
        same: bool = True,
    ) -> Chain:
        """A convolution without bias, SAME or VALID."""
        return self._window("conv", filters, kernel, stride, dilation, groups, same)

    def pool(self, kind: str, size: tuple[int, int], stride: tuple[int, int], *, same: bool = True) -> Chain:
        """Pooling; an average is over what lies inside of the map."""
        return self._window(f"{kind}_pool", self.shape.channels, size, stride, 1, 1, same)

    def _window(
        self,
        kind: str,
        channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: int,
        groups: int,
        same: bool,
    ) -> Chain:
        sizes, pads = [], []
        for size, window, step in zip(self.shape[1:], kernel, stride, strict=True):
            reach = (window - 1) * dilation + 1
            sizes.append(-(-size // step) if same else (size - reach) // step + 1)
            total = max((sizes[-1] - 1) * step + reach - size, 0) if same else 0
            pads.append((total // 2, total - total // 2))
        (top, bottom), (left, right) = pads
        out = Shape(channels, sizes[0], sizes[1])
        return self._add(Layer(kind, self.shape, out, kernel, stride, dilation, groups, (left, right, top, bottom)))

    def shift(self) -> Chain:
        """Everything a pixel to the top left; zeros come in at the bottom and the right."""
        return self._add(Layer("shift", self.shape, self.shape, pads=(-1, 1, -1, 1)))

    def separable(self, filters: int, size: int, stride: int, dilation: int) -> Chain:
        """ReLU, a depthwise and a pointwise convolution, batch norm."""
        self.relu().conv(
            self.shape.channels, (size, size), (stride, stride), dilation=dilation, groups=self.shape.channels
        )
        return self.conv(filters).norm()

    def path(self) -> Path:
        """What was added."""
        return tuple(self.layers)


# --- the operations ---------------------------------------------------------------------------------------------------

_SEPARABLE = {  # kernel, dilation
    "sep_conv_3x3": (3, 1),
    "sep_conv_5x5": (5, 1),
    "sep_conv_7x7": (7, 1),
    "dil_sep_conv_3x3": (3, 2),
    "dil_sep_conv_5x5": (5, 2),
}
_PLAIN = {  # kernels one after the other, dilation, the part of the filters that a bottleneck has
    "conv_1x1": (((1, 1),), 1, None),
    "conv_3x3": (((3, 3),), 1, (1, 4)),
    "conv_1x3_3x1": (((1, 3), (3, 1)), 1, (3, 8)),
    "conv_1x7_7x1": (((1, 7), (7, 1)), 1, (1, 4)),
    "dil_conv_3x3": (((3, 3),), 2, (1, 4)),
}
_POOLS = {
    "avg_pool_3x3": ("avg", 3),
    "max_pool_2x2": ("max", 2),
    "max_pool_3x3": ("max", 3),
    "max_pool_5x5": ("max", 5),
    "max_pool_7x7": ("max", 7),
}
OPERATIONS = ("identity", *_PLAIN, *_SEPARABLE, *_POOLS)
"""Every operation that a cell may have."""


def operation(name: str, shape: Shape, filters: int, stride: int, bottleneck: bool) -> Path:
    """The path of an operation on a state of this shape, to so many filters. An empty path: the state as it is."""
    chain = Chain(shape)
    if name == "identity":
        if stride > 1 or shape.channels != filters:
            chain.relu().conv(filters, stride=(stride, stride)).norm()
    elif name in _SEPARABLE:
        size, dilation = _SEPARABLE[name]
        chain.separable(filters, size, stride, dilation).separable(filters, size, 1, dilation)
    elif name in _POOLS:
        kind, size = _POOLS[name]
        chain.pool(kind, (size, size), (stride, stride))
        if shape.channels != filters:
            chain.conv(filters).norm()
    else:
        kernels, dilation, part = _PLAIN[name]
        narrow = part[0] * filters // part[1] if bottleneck and part else 0
        if narrow:
            chain.relu().conv(narrow).norm()
        for height, width in kernels:  # of 1x7 and 7x1 each strides along its filter
            strides = (stride if height >= width else 1, stride if width >= height else 1)
            chain.relu().conv(narrow or filters, (height, width), strides, dilation=dilation).norm()
        if narrow:
            chain.relu().conv(filters).norm()
    return chain.path()


def project(shape: Shape, filters: int, *, relu: bool = True) -> Path:
    """ReLU, 1x1 convolution, batch norm."""
    chain = Chain(shape)
    if relu:
        chain.relu()
    return chain.conv(filters).norm().path()


def halve(shape: Shape, filters: int, *, relu: bool) -> Halving:
    """The factorised reduction of a state to half its size.

    Of an odd number of filters the second half gets one more, as in the released code.
    """
    first = Chain(shape).conv(filters // 2, stride=(2, 2))
    second = Chain(shape).shift().conv(filters - filters // 2, stride=(2, 2))
    joined = Shape(filters, *first.shape[1:])
    return Halving(relu, (first.path(), second.path()), Layer("norm", joined, joined))
