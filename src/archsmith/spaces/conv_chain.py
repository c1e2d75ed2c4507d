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
from dataclasses import dataclass, field
from typing import Any, ClassVar

from archsmith.core.child import Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.space import Choose

LAYER_TYPES = ("conv", "max_pool", "avg_pool", "lcn", "bn", "fc")
LEARNING_RATES = (0.2, 0.1, 0.05, 0.02, 0.01)
FULLY_CONNECTED_SIDE = 4  # a fully connected layer sees a map of at most 4x4

MAX_LAYERS = 4096
MAX_PARAMETERS = 10**9  # 4 GB of weights
MAX_ACTIVATIONS = 10**9  # numbers that all layers read, for one image


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
    kind: ClassVar[str] = "conv_chain"

    def __post_init__(self) -> None:
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

    def build(self, architecture: Architecture, task: Task) -> Child:
        """The child of any architecture of this kind, for images [channels, height, width] of any size.

        Raises UsageError when the architecture is not one, and LimitExceeded when it is too large to be made.
        """
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
        for j in _unread(layers):
            edges.append(Edge(last[j], "classifier", skip=j != len(layers) - 1))
        title = f"A chain of {len(layers) * block} layers" + (f" in {len(layers)} blocks" if block > 1 else "")
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


# --- from an architecture to the shapes of what will be built, without torch ------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One module of a child: it reads states, and its output is the next one."""

    layer: Mapping[str, Any]
    inputs: tuple[int, ...]
    in_channels: int
    in_size: tuple[int, int]


@dataclass(slots=True)
class Plan:
    """The modules of a child and the shapes of its states. State 0 is the image, state k + 1 the output of step k."""

    states: list[tuple[int, tuple[int, int]]]
    steps: list[Step] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    parameters: int = 0
    activations: int = 0

    def channels(self, states: Sequence[int]) -> int:
        """Of several states after they are concatenated."""
        return sum(self.states[k][0] for k in states)

    def add(self, layer: Mapping[str, Any], inputs: Sequence[int]) -> int:
        """One more module; gives the number of its state."""
        sizes = [self.states[k][1] for k in inputs]
        channels, size = self.channels(inputs), (max(h for h, _ in sizes), max(w for _, w in sizes))
        self.steps.append(Step(layer, tuple(inputs), channels, size))
        self.states.append(self._output(layer, channels, size))
        self.activations += channels * size[0] * size[1]
        limits = (
            ("parameters", self.parameters, MAX_PARAMETERS, "numbers to train"),
            ("memory", self.activations, MAX_ACTIVATIONS, "numbers that its layers read for each image"),
        )
        for reason, number, limit, what in limits:
            if number > limit:
                raise LimitExceeded(
                    f"the architecture is too large to be built: by its module {len(self.steps)} it has "
                    f"{number:.2g} {what}, and at most {limit:.0g} are allowed; use fewer layers, filters or inputs",
                    reason=reason,
                )
        return len(self.states) - 1

    def _output(self, layer: Mapping[str, Any], channels: int, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """The shape of a layer's output; its parameters are counted on the way."""
        height, width = size
        match layer["type"]:
            case "conv":
                filters = layer["filters"]
                self.parameters += filters * (layer["filter_height"] * layer["filter_width"] * channels + 2)
                down, right = layer["stride"]
                return filters, (-(-height // down), -(-width // right))
            case "fc":
                # As nn.conv.reduction: the map is averaged over windows that bring it to at most the side.
                rows, columns = (-(-n // -(-n // FULLY_CONNECTED_SIDE)) for n in size)
                self.parameters += layer["filters"] * (rows * columns * channels + 2)
                return layer["filters"], (1, 1)
            case "max_pool" | "avg_pool":
                stride = layer["pool_stride"]
                return channels, (-(-height // stride), -(-width // stride))
            case "bn":
                self.parameters += 2 * channels
        return channels, size


_POOL = {"type": "max_pool", "pool_size": 2, "pool_stride": 2}


def plan_of(architecture: Architecture, task: Task) -> Plan:
    """The child that an architecture describes, as shapes: the three repair rules of section 3.3, blocks and pools."""
    check_architecture(architecture)
    if len(task.input_shape) != 3:
        raise UsageError(
            f"a chain of convolutions reads images, [channels, height, width], and input_shape is {task.input_shape}"
        )
    layers, block, pools = architecture["layers"], architecture["block"], architecture["pools"]
    channels, height, width = task.input_shape
    plan = Plan([(channels, (height, width))])
    unread = _unread(layers)
    last_reader = {j: len(layers) for j in unread}  # of each layer's output; -1 stands for the image
    for i, layer in enumerate(layers):
        last_reader |= {j: max(i, last_reader.get(j, i)) for j in layer["inputs"] or [-1]}
    state = {-1: 0}  # where a layer's output is now: pooling moves it
    for i, layer in enumerate(layers):
        if i in pools:
            for j in [j for j in state if last_reader.get(j, -1) >= i]:
                state[j] = plan.add(_POOL, [state[j]])
        inputs = [state[j] for j in layer["inputs"] or [-1]]  # rule 1: with no input a layer reads the image
        for _ in range(block):
            output = plan.add(layer, inputs)
            inputs = [*inputs, output]
        state[i] = output
    plan.outputs = tuple(state[j] for j in unread)  # rule 2: what no layer has read, the classifier reads
    plan.parameters += (plan.channels(plan.outputs) + 1) * task.num_classes
    return plan


def _unread(layers: Sequence[Mapping[str, Any]]) -> list[int]:
    """The layers that no later one reads; the last is always among them."""
    read = {j for layer in layers for j in layer["inputs"]}
    return [i for i in range(len(layers)) if i not in read]


# --- what is refused --------------------------------------------------------------------------------------------------

_FIELDS = {
    "conv": {"filter_height", "filter_width", "filters", "stride"},
    "max_pool": {"pool_size", "pool_stride"},
    "avg_pool": {"pool_size", "pool_stride"},
    "lcn": set[str](),
    "bn": set[str](),
    "fc": {"filters"},
}


def check_architecture(architecture: Architecture) -> None:
    """Raise UsageError unless this is the architecture of a chain of convolutions, as the module's docstring has it."""
    keys = {"kind", "learning_rate", "block", "pools", "layers"}
    if not isinstance(architecture, Mapping) or architecture.get("kind") != ConvChain.kind:
        raise UsageError(
            f'an architecture of this space is an object with "kind": "conv_chain", got {_shown(architecture)}'
        )
    if set(architecture) != keys:
        raise UsageError(f"an architecture has the keys {', '.join(sorted(keys))}, got {_shown(list(architecture))}")
    rate, block, pools, layers = (architecture[key] for key in ("learning_rate", "block", "pools", "layers"))
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e6):
        raise UsageError(f"the learning_rate of an architecture must be a number above 0 or null, got {_shown(rate)}")
    _whole("the block of an architecture", block, 1)
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise UsageError(f"the layers of an architecture must be a list of at least one, got {_shown(layers)}")
    if len(layers) * block > MAX_LAYERS:
        raise UsageError(f"an architecture may have at most {MAX_LAYERS:,} layers, got {len(layers) * block:,}")
    if not isinstance(pools, Sequence) or isinstance(pools, str):
        raise UsageError(f"the pools of an architecture must be a list, got {_shown(pools)}")
    for position in pools:
        _whole("a pool of an architecture (after how many layers)", position, 1, len(layers) - 1)
    for i, layer in enumerate(layers):
        _check_layer(i, layer)
        if block > 1 and (layer["type"] != "conv" or list(layer["stride"]) != [1, 1]):
            raise UsageError(f"layer {i} of blocks of {block} must be a convolution with stride 1, got {_shown(layer)}")


def _check_layer(i: int, layer: Any) -> None:
    kind = layer.get("type") if isinstance(layer, Mapping) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise UsageError(f'layer {i} must be an object with a "type" of {", ".join(LAYER_TYPES)}, got {_shown(layer)}')
    if set(layer) != (keys := _FIELDS[kind] | {"type", "inputs"}):
        raise UsageError(f"layer {i}, a {kind}, has the keys {', '.join(sorted(keys))}, got {_shown(list(layer))}")
    for key in sorted(_FIELDS[kind] - {"stride"}):
        _whole(f"{key} of layer {i}", layer[key], 1)
    if kind == "conv":
        if not isinstance(layer["stride"], Sequence) or len(layer["stride"]) != 2:
            raise UsageError(f"stride of layer {i} must be [height, width], got {_shown(layer['stride'])}")
        for stride in layer["stride"]:
            _whole(f"a stride of layer {i}", stride, 1)
    inputs = layer["inputs"]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str):
        raise UsageError(f"inputs of layer {i} must be a list of earlier layers, got {_shown(inputs)}")
    before = -1
    for j in inputs:
        if isinstance(j, bool) or not isinstance(j, int) or not before < j < i:
            raise UsageError(
                f"inputs of layer {i} must be earlier layers, counted from 0, in ascending order, got {_shown(inputs)}"
            )
        before = j


def _whole(what: str, value: Any, least: int, most: int = 2**20) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{what} must be a whole number from {least} to {most}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A value for a message, not longer than a line."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 64 bits"
    if isinstance(value, Mapping | list | tuple) and len(value) > 8:
        return f"{type(value).__name__} of {len(value):,}"
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


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
            _whole(f"{name} of ConvChain", value, 1)
    for value in _options(space, "learning_rates", empty=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise UsageError(f"learning_rates of ConvChain must be numbers above 0, got {_shown(value)}")
    for kind in _options(space, "layer_types", empty=True):
        if kind not in LAYER_TYPES:
            raise UsageError(f"layer_types of ConvChain must be of {', '.join(LAYER_TYPES)}, got {_shown(kind)}")
    if not isinstance(space.skips, bool):
        raise UsageError(f"skips of ConvChain must be True or False, got {_shown(space.skips)}")
    _whole("block of ConvChain", space.block, 1)
    _whole("extra_filters of ConvChain", space.extra_filters, 0)
    if space.depths and space.layers is not None:
        raise UsageError(f"give ConvChain either layers or depths, got layers={space.layers} and depths={space.depths}")
    if not space.depths and space.layers is None:
        object.__setattr__(space, "layers", 15)
    for depth in space.depths or (space.layers,):
        _whole("layers of ConvChain", depth, 1)
        assert depth is not None
        if depth * space.block > MAX_LAYERS:
            raise UsageError(f"ConvChain may have at most {MAX_LAYERS:,} layers, got {depth * space.block:,}")
        for position in space.pools:
            _whole("pools of ConvChain (after how many layers)", position, 1, depth - 1)
    if space.block > 1 and (space.layer_types or space.strides != (1,)):
        raise UsageError(
            f"block={space.block} of ConvChain repeats a convolution with stride 1; leave layer_types and strides "
            f"as they are, got layer_types={space.layer_types} and strides={space.strides}"
        )


def _options(space: ConvChain, name: str, *, empty: bool) -> tuple[Any, ...]:
    values = getattr(space, name)
    if not isinstance(values, Sequence) or isinstance(values, str) or not (values or empty):
        raise UsageError(
            f"{name} of ConvChain must be a tuple{'' if empty else ' of at least one'}, got {_shown(values)}"
        )
    if len(set(map(repr, values))) != len(values):
        raise UsageError(f"{name} of ConvChain must differ from each other, got {_shown(values)}")
    object.__setattr__(space, name, tuple(values))
    return tuple(values)
