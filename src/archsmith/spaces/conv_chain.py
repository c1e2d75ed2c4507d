"""Chains of convolutions with skip connections (Zoph and Le 2017, "Neural Architecture Search with Reinforcement
Learning", sections 3.1, 3.3 and 4.1).

Layer by layer the space asks for filter height, filter width, strides, number of filters, and which earlier layers
feed it. The genotype's names and the architecture count layers from 0; the paper's figures count them from 1.

An architecture is plain data, complete without the space it came from:

    {"kind": "conv_chain", "learning_rate": null, "block": 1, "pools": [], "layers": [
        {"type": "conv", "filter_height": 3, "filter_width": 5, "filters": 36, "stride": [1, 1], "inputs": []},
        {"type": "max_pool", "pool_size": 2, "pool_stride": 1, "inputs": [0]},
        {"type": "lcn", "inputs": [0, 1]}, {"type": "bn", "inputs": [2]}, {"type": "fc", "filters": 48, "inputs": [3]}]}

The three repair rules of section 3.3 belong to building: a layer without inputs reads the image, inputs of different
sizes are zero-padded, and what no layer has read goes to the classifier. docs/decisions/0002-conv-chain.md has what
the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.shown import shown
from archsmith.core.walk import Choose
from archsmith.spaces.chain_plan import (
    FULLY_CONNECTED_SIDE,
    KIND,
    LAYER_TYPES,
    MAX_LAYERS,
    Step,
    check_architecture,
    plan_of,
    unread,
    whole,
)

LEARNING_RATES = (0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class ConvChain:
    """The space. The defaults are the paper's first experiment; `v1()`, `v2()` and `v3()` are all of them.

    Args:
        layers: how many layers are predicted (default: 15); None where `depths` are given.
        depths: depths to choose from; the first question is then "layers", which a depth schedule may force.
        filter_heights, filter_widths: the options of each layer.
        filters: how many filters a layer may have.
        strides: options of stride height and of stride width; asked only when there are several.
        skips: whether each layer chooses its inputs among all earlier ones; otherwise it reads the one before it.
        layer_types: types to choose from, of "conv", "max_pool", "avg_pool", "lcn" (local contrast normalisation),
            "bn" (batch norm) and "fc" (fully connected); questions that do not apply to a type are skipped. Empty:
            every layer is a convolution, and none is asked.
        pool_sizes, pool_strides: the options of a pooling layer.
        learning_rates: peak learning rates to choose from; empty: the evaluator's own.
        block: how many convolutions each predicted layer stands for; they share what was predicted, and each reads
            the block's inputs and the convolutions before it in the block.
        pools: after how many predicted layers every state is max-pooled, 2x2 with stride 2.
        extra_filters: added to the filters of every layer.
    """

    layers: int | None = None
    depths: tuple[int, ...] = ()
    filter_heights: tuple[int, ...] = (1, 3, 5, 7)
    filter_widths: tuple[int, ...] = (1, 3, 5, 7)
    filters: tuple[int, ...] = (24, 36, 48, 64)
    strides: tuple[int, ...] = (1,)
    skips: bool = True
    layer_types: tuple[str, ...] = ()
    pool_sizes: tuple[int, ...] = (2, 3)
    pool_strides: tuple[int, ...] = (1, 2)
    learning_rates: tuple[float, ...] = ()
    block: int = 1
    pools: tuple[int, ...] = ()
    extra_filters: int = 0

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        _check_space(self)

    @classmethod
    def v1(cls) -> ConvChain:
        """The paper's first experiment: 15 layers, no stride or pooling."""
        return cls(layers=15)

    @classmethod
    def v2(cls) -> ConvChain:
        """Strides are predicted as well: 20 layers."""
        return cls(layers=20, strides=(1, 2, 3))

    @classmethod
    def v3(cls, *, more_filters: bool = False) -> ConvChain:
        """13 predictions, each a block of three convolutions, with two pools; `more_filters` adds 40 to each layer."""
        extra = 40 if more_filters else 0
        return cls(layers=13, filters=(6, 12, 24, 36), block=3, pools=(4, 8), extra_filters=extra)

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe."""
        learning_rate = choose("learning_rate", self.learning_rates) if self.learning_rates else None
        layers = choose("layers", self.depths) if self.depths else self.layers
        assert layers is not None
        return {
            "kind": self.kind,
            "learning_rate": learning_rate,
            "block": self.block,
            "pools": list(self.pools),
            "layers": [self._layer(choose, i) for i in range(layers)],
        }

    def _layer(self, choose: Choose, i: int) -> dict[str, Any]:
        kind = choose(f"{i}.type", self.layer_types) if self.layer_types else "conv"
        layer: dict[str, Any] = {"type": kind}
        if kind == "conv":
            layer["filter_height"] = choose(f"{i}.filter_height", self.filter_heights)
            layer["filter_width"] = choose(f"{i}.filter_width", self.filter_widths)
            stride = [self.strides[0], self.strides[0]]
            if len(self.strides) > 1:
                stride = [choose(f"{i}.stride_height", self.strides), choose(f"{i}.stride_width", self.strides)]
            layer["stride"] = stride
        if kind in ("conv", "fc"):
            layer["filters"] = choose(f"{i}.filters", self.filters) + self.extra_filters
        if kind in ("max_pool", "avg_pool"):
            layer["pool_size"] = choose(f"{i}.pool_size", self.pool_sizes)
            layer["pool_stride"] = choose(f"{i}.pool_stride", self.pool_strides)
        # The anchor: asked even of the first layer, where it is empty, so that step j is layer j.
        layer["inputs"] = choose.subset(f"{i}.inputs", range(i)) if self.skips else list(range(max(i - 1, 0), i))
        return layer

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child of any architecture of this kind, for images [channels, height, width] of any size.

        Raises UsageError when the architecture is not one or the task is not of images, and LimitExceeded when it is
        too large to be made.
        """
        if not isinstance(task, Task):
            raise UsageError(f"ConvChain builds networks for images, and the task is a {type(task).__name__}")
        plan = plan_of(architecture, task)  # everything is refused here that can be, before memory is taken
        from torch import nn

        from archsmith.nn.conv import ConvLayer, FullyConnected, LocalContrastNorm, Pool, WiredNetwork

        def operation(step: Step) -> nn.Module:
            layer, channels = step.layer, step.in_channels
            match layer["type"]:
                case "conv":
                    kernel = (layer["filter_height"], layer["filter_width"])
                    return ConvLayer(channels, layer["filters"], kernel, tuple(layer["stride"]))
                case "max_pool" | "avg_pool":
                    return Pool(layer["type"].partition("_")[0], layer["pool_size"], layer["pool_stride"])
                case "lcn":
                    return LocalContrastNorm(step.in_size)
                case "bn":
                    return nn.BatchNorm2d(channels)
                case _:
                    return FullyConnected(channels, layer["filters"], step.in_size, FULLY_CONNECTED_SIDE)

        model = WiredNetwork(
            [operation(step) for step in plan.steps],
            [step.inputs for step in plan.steps],
            plan.outputs,
            [size for _, size in plan.states],
            plan.channels(plan.outputs),
            task.num_classes,
            [step.name for step in plan.steps],
            task.input_shape[0],
        )
        return Child(model, learning_rate=architecture.get("learning_rate"))

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """The architecture as boxes and arrows. The arrows to a block are drawn to its first layer."""
        check_architecture(architecture)
        layers, block, pools = architecture["layers"], architecture["block"], architecture["pools"]
        nodes = [Node("image", "image", role="input")]
        edges: list[Edge] = []
        last = {-1: "image"}  # the box of a predicted layer's output; -1 stands for the image
        above: str = "image"  # what stands directly above on the main path
        for i, layer in enumerate(layers):
            if i in pools:
                nodes.append(Node(f"pool {i}", "max pool 2×2", "every state", "pool"))
                if i - 1 in (layer["inputs"] or [-1]):
                    edges.append(Edge(above, nodes[-1].id))
                above = nodes[-1].id
            group = f"block {i}" if block > 1 else ""
            names = [f"{i}.{k}" for k in range(block)] if block > 1 else [str(i)]
            label, detail, role = _caption(layer)
            nodes += [Node(name, label, detail, role, group) for name in names]
            for j in layer["inputs"] or [-1]:
                straight = j == i - 1
                edges.append(Edge(above if straight else last[j], names[0], skip=not straight))
            edges += [Edge(names[k], names[m], skip=m > k + 1) for m in range(block) for k in range(m)]
            last[i] = above = names[-1]
        nodes.append(Node("classifier", "classifier", "global average, linear", "output"))
        for j in unread(layers):
            edges.append(Edge(last[j], "classifier", skip=j != len(layers) - 1))
        number = len(layers) * block
        title = f"A chain of {number} layer{'s' if number > 1 else ''}" + (
            f" in {len(layers)} blocks" if block > 1 else ""
        )
        if (rate := architecture["learning_rate"]) is not None:
            title += f", learning rate {rate}"
        return Diagram(title, tuple(nodes), tuple(edges), "chain")


def _caption(layer: Mapping[str, Any]) -> tuple[str, str, str]:
    """Label, detail and role of a layer's box."""
    match layer["type"]:
        case "conv":
            stride = "" if layer["stride"] == [1, 1] else " / {}×{}".format(*layer["stride"])
            label = f"{layer['filter_height']}×{layer['filter_width']} conv{stride}"
            return label, f"{layer['filters']} filters", "conv"
        case "max_pool" | "avg_pool":
            size, stride = layer["pool_size"], layer["pool_stride"]
            return f"{size}×{size} {layer['type'].replace('_', ' ')}", f"stride {stride}", "pool"
        case "lcn":
            return "local contrast norm", "", "norm"
        case "bn":
            return "batch norm", "", "norm"
        case _:
            return "fully connected", f"{layer['filters']} units", "dense"


# --- options that make no sense ---------------------------------------------------------------------------------------


def _check_space(space: ConvChain) -> None:
    """Raise UsageError unless the options make sense together; lists, as JSON has them, become tuples."""
    for name in (
        "depths",
        "filter_heights",
        "filter_widths",
        "filters",
        "strides",
        "pool_sizes",
        "pool_strides",
        "pools",
    ):
        values = _options(space, name, empty=name in ("depths", "pools"))
        for value in values:
            whole(f"{name} of ConvChain", value, 1)
    if list(space.pools) != sorted(space.pools):
        raise UsageError(f"pools of ConvChain must be in ascending order, got {space.pools}")
    for value in _options(space, "learning_rates", empty=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise UsageError(f"learning_rates of ConvChain must be numbers above 0, got {shown(value)}")
    for kind in _options(space, "layer_types", empty=True):
        if kind not in LAYER_TYPES:
            raise UsageError(f"layer_types of ConvChain must be of {', '.join(LAYER_TYPES)}, got {shown(kind)}")
    if not isinstance(space.skips, bool):
        raise UsageError(f"skips of ConvChain must be True or False, got {shown(space.skips)}")
    whole("block of ConvChain", space.block, 1)
    whole("extra_filters of ConvChain", space.extra_filters, 0)
    if space.depths and space.layers is not None:
        raise UsageError(f"give ConvChain either layers or depths, got layers={space.layers} and depths={space.depths}")
    if not space.depths and space.layers is None:
        object.__setattr__(space, "layers", 15)
    for depth in space.depths or (space.layers,):
        whole("layers of ConvChain", depth, 1)
        assert depth is not None
        if depth * space.block > MAX_LAYERS:
            raise UsageError(f"ConvChain may have at most {MAX_LAYERS:,} layers, got {depth * space.block:,}")
        for position in space.pools:
            whole("pools of ConvChain (after how many layers)", position, 1, depth - 1)
    if space.block > 1 and (space.layer_types or space.strides != (1,)):
        raise UsageError(
            f"block={space.block} of ConvChain repeats a convolution with stride 1; leave layer_types and strides "
            f"as they are, got layer_types={space.layer_types} and strides={space.strides}"
        )


def _options(space: ConvChain, name: str, *, empty: bool) -> tuple[Any, ...]:
    values = getattr(space, name)
    if not isinstance(values, Sequence) or isinstance(values, str) or not (values or empty):
        raise UsageError(
            f"{name} of ConvChain must be a tuple{'' if empty else ' of at least one'}, got {shown(values)}"
        )
    if len(set(map(repr, values))) != len(values):
        raise UsageError(f"{name} of ConvChain must differ from each other, got {shown(values)}")
    object.__setattr__(space, name, tuple(values))
    return tuple(values)
