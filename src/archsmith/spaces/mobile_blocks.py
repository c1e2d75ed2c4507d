"""Blocks of mobile networks relative to MobileNetV2's (Tan et al. 2019, "MnasNet: Platform-Aware Neural Architecture Search
for Mobile", section 4.1).

A network is a row of blocks that each have their place: what size of map they read, and where a stride is, is fixed. Block
by block the space asks for the operation, the kernel, the ratio of squeeze-and-excitation, the skip, and relative to
MobileNetV2's block for the filters and the layers. The layers of a block are identical. So there are S^B networks of B
blocks with S ways each in place of S^(BN), and they may differ from block to block, which cells that repeat may not.

The architecture as plain data is described in `archsmith.nn.mobile_plan`, and what the paper leaves open in
docs/decisions/0011-mobile-blocks.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.shown import shown
from archsmith.core.walk import Choose
from archsmith.nn.mobile_plan import (
    KIND,
    MAX_BLOCKS,
    MAX_FILTERS,
    MAX_LAYERS,
    MAX_STRIDE,
    SKIPS,
    check_architecture,
    check_ends,
    check_kernel,
    check_operation,
    check_ratio,
    plan_of,
    whole,
)

MOBILENET_V2 = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Filters, layers and stride of MobileNetV2's seven blocks."""

OPERATIONS = ("conv", "depthwise_conv", "mbconv3", "mbconv6")
"""The paper's three operations, the inverted bottleneck with both expansions that its networks have."""

DIVISOR = 8  # scaled filters are multiples of it
_ASKED = ("operations", "kernels", "se_ratios", "skips", "filter_factors", "layer_changes")


@dataclass(frozen=True)
class MobileBlocks:
    """The space. The defaults are the paper's, for images of 224 x 224 pixels; `desk()` is for small ones.

    Options that are one alone are not asked.

    Args:
        blocks: filters, layers and stride of each block, which the options are relative to.
        operations: of "conv", "depthwise_conv" and "mbconvN", an inverted bottleneck that expands N times.
        kernels: sides of the largest convolution of a layer, odd numbers.
        se_ratios: the width of squeeze-and-excitation as a part of what the layer reads; 0: none.
        skips: of "pooling", "identity" and "none": what a layer that gives as many channels as it reads adds of its
            input. An identity is for layers without stride.
        filter_factors: what the block's filters are multiplied by, rounded to whole numbers.
        layer_changes: what is added to its layers; a block has at least one.
        stem, stem_stride: filters and stride of the first convolution, 3x3.
        head: filters of the last one, 1x1.
        dropout: before the classifier.
        batch_norm_decay: of the running averages. The paper's 0.99 needs many hundred steps; `desk()` has 0.9.
        batch_norm_epsilon: the released code's. An evaluator may have its own.
    """

    blocks: tuple[tuple[int, int, int], ...] = MOBILENET_V2
    operations: tuple[str, ...] = OPERATIONS
    kernels: tuple[int, ...] = (3, 5)
    se_ratios: tuple[float, ...] = (0.0, 0.25)
    skips: tuple[str, ...] = SKIPS
    filter_factors: tuple[float, ...] = (0.75, 1.0, 1.25)
    layer_changes: tuple[int, ...] = (0, 1, -1)
    stem: int = 32
    stem_stride: int = 2
    head: int = 1280
    dropout: float = 0.2
    batch_norm_decay: float = 0.99
    batch_norm_epsilon: float = 1e-3

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        _check_space(self)

    @classmethod
    def desk(cls) -> MobileBlocks:
        """Narrow networks of four blocks for images of about 28 pixels a side, trained in seconds; three strides lead to 4.

        Batch norm averages over some ten steps: a training of two short epochs has a hundred and forty, after which an
        average over a hundred still has a quarter of the untrained network in it.
        """
        return cls(
            blocks=((8, 1, 1), (16, 2, 2), (24, 2, 2), (32, 1, 1)),
            stem=8,
            head=128,
            dropout=0.0,
            batch_norm_decay=0.9,
            batch_norm_epsilon=1e-5,
        )

    @property
    def task(self) -> Task:
        """What its networks are built for where nobody says: ImageNet where their strides leave 7 of 224 pixels, else
        small images."""
        strides = math.prod(stride for _, _, stride in self.blocks) * self.stem_stride
        return Task((3, 224, 224), 1000) if strides >= 32 else Task()

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe."""
        return {
            "kind": self.kind,
            "stem": {"filters": self.stem, "stride": self.stem_stride},
            "blocks": [self._block(choose, i) for i in range(len(self.blocks))],
            "head": self.head,
            "dropout": self.dropout,
            "batch_norm_decay": self.batch_norm_decay,
            "batch_norm_epsilon": self.batch_norm_epsilon,
        }

    def _block(self, choose: Choose, i: int) -> dict[str, Any]:
        def ask(name: str, options: Sequence[Any]) -> Any:
            return choose(f"{i}.{name}", options) if len(options) > 1 else options[0]

        filters, layers, stride = self.blocks[i]
        return {
            "operation": ask("operation", self.operations),
            "kernel": ask("kernel", self.kernels),
            "stride": stride,
            "se_ratio": ask("se_ratio", self.se_ratios),
            "skip": ask("skip", self.skips),
            "filters": max(1, int(filters * ask("filters", self.filter_factors) + 0.5)),
            "layers": max(1, layers + ask("layers", self.layer_changes)),
        }

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child of any architecture of this kind, for images [channels, height, width] of any size.

        Raises UsageError when the architecture is not one or the task is not of images, and LimitExceeded when it is
        too large to be made.
        """
        if not isinstance(task, Task):
            raise UsageError(f"MobileBlocks builds networks for images, and the task is a {type(task).__name__}")
        plan = plan_of(architecture, task)
        from archsmith.nn.mobile import MobileNetwork

        return Child(MobileNetwork(plan, architecture))

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """How many convolutions the network has, and the most of them on one way; they all stand in one row."""
        number = 2 + sum(layer.convolutions for layer in plan_of(architecture, task).layers)
        return number, number

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """The network layer by layer, each block in a frame of its own; arcs are skips."""
        check_architecture(architecture)
        stem, blocks = architecture["stem"], architecture["blocks"]
        nodes = [Node("image", "image", role="input")]
        nodes.append(Node("stem", f"3×3 conv{_over(stem['stride'])}", f"{stem['filters']} filters"))
        edges = [Edge("image", "stem")]
        layers = plan_of(architecture, Task()).layers
        for k, layer in enumerate(layers):
            block, before = blocks[layer.block], nodes[-1].id
            gate = f", SE {block['se_ratio']:g}" if block["se_ratio"] else ""
            label = f"{_LABELS.get(block['operation'], block['operation'].replace('mbconv', 'MBConv'))} {layer.kernel}×{layer.kernel}"
            nodes.append(
                Node(
                    str(k), label + _over(layer.stride), f"{layer.filters} filters{gate}", group=f"block {layer.block}"
                )
            )
            edges.append(Edge(before, str(k)))
            if layer.skip != "none":  # what it reads is added to what it gives, and so read by what comes next
                after = str(k + 1) if k + 1 < len(layers) else "head"
                edges.append(Edge(before, after, skip=True, label="pooling" if layer.skip == "pooling" else ""))
        nodes.append(Node("head", "1×1 conv", f"{architecture['head']} filters"))
        nodes.append(Node("classifier", "classifier", "global average, linear", "output"))
        edges += [Edge(nodes[-3].id, "head"), Edge("head", "classifier")]
        title = f"A mobile network of {len(layers)} layer{'s' * (len(layers) > 1)} in {len(blocks)} block{'s' * (len(blocks) > 1)}"
        return Diagram(title, tuple(nodes), tuple(edges), "chain")


_LABELS = {"conv": "conv", "depthwise_conv": "depthwise separable"}


def _over(stride: int) -> str:
    return f" / {stride}" if stride > 1 else ""


# --- a network of another width ---------------------------------------------------------------------------------------


def rounded(filters: int, factor: float) -> int:
    """Filters times a factor as the released code rounds them: to the nearest multiple of 8, at least 8, and to the next
    one where more than a tenth would be lost."""
    wanted = filters * factor
    nearest = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return nearest + DIVISOR if nearest < 0.9 * wanted else nearest


def scaled(architecture: Architecture, width: float) -> Architecture:
    """The same network with as many times the filters in stem and blocks: the paper's depth multiplier. The head stays.

    Raises UsageError when that is no architecture, or no such width.
    """
    check_architecture(architecture)
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 64:
        raise UsageError(f"width must be a number above 0 and at most 64, got {shown(width)}")
    found: dict[str, Any] = copy.deepcopy(dict(architecture))
    if width != 1:  # the released code leaves the filters as they are then
        for part in (found["stem"], *found["blocks"]):
            part["filters"] = rounded(part["filters"], width)
    check_architecture(found)
    return found


# --- options that make no sense ---------------------------------------------------------------------------------------


def _check_space(space: MobileBlocks) -> None:
    """Raise UsageError unless the options make sense; lists, as JSON has them, become tuples."""
    of = "MobileBlocks"
    blocks = space.blocks
    if not isinstance(blocks, list | tuple) or not 1 <= len(blocks) <= MAX_BLOCKS:
        raise UsageError(f"blocks of {of} must be a tuple of 1 to {MAX_BLOCKS}, got {shown(blocks)}")
    for block in blocks:
        if not isinstance(block, list | tuple) or len(block) != 3:
            raise UsageError(
                f"a block of {of} is its filters, layers and stride, such as (24, 2, 2), got {shown(block)}"
            )
        for name, value, most in zip(
            ("filters", "layers", "stride"), block, (MAX_FILTERS, MAX_LAYERS, MAX_STRIDE), strict=True
        ):
            whole(f"{name} of a block of {of}", value, 1, most)
    object.__setattr__(space, "blocks", tuple(map(tuple, blocks)))
    for name in _ASKED:
        values = getattr(space, name)
        if not isinstance(values, list | tuple) or not values or len(set(map(repr, values))) != len(values):
            raise UsageError(f"{name} of {of} must be a tuple of different values, got {shown(values)}")
        object.__setattr__(space, name, tuple(values))
    for operation in space.operations:
        check_operation(of, operation)
    for kernel in space.kernels:
        check_kernel(of, kernel)
    for ratio in space.se_ratios:
        check_ratio(of, ratio)
    for skip in space.skips:
        if skip not in SKIPS:
            raise UsageError(f"skips of {of} must be of {', '.join(SKIPS)}, got {shown(skip)}")
    for factor in space.filter_factors:
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 64:
            raise UsageError(f"filter_factors of {of} must be numbers above 0 and at most 64, got {shown(factor)}")
    for change in space.layer_changes:
        whole(f"layer_changes of {of}", change, -MAX_LAYERS, MAX_LAYERS)
    most_filters = max(block[0] for block in blocks) * max(space.filter_factors)
    most_layers = max(block[1] for block in blocks) + max(space.layer_changes)
    whole(f"the filters of the widest block of {of}", int(most_filters + 0.5), 1, MAX_FILTERS)
    whole(f"the layers of the deepest block of {of}", max(1, most_layers), 1, MAX_LAYERS)
    check_ends(
        space.stem, space.stem_stride, space.head, space.dropout, space.batch_norm_decay, space.batch_norm_epsilon, of
    )
