"""From the architecture of a chain of convolutions to the shapes of what will be built, in plain Python.

Whatever can be refused is refused here, before torch is loaded and memory is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archsmith.core.child import Task
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.shown import shown

KIND = "conv_chain"
LAYER_TYPES = ("conv", "max_pool", "avg_pool", "lcn", "bn", "fc")
FULLY_CONNECTED_SIDE = 4  # a fully connected layer sees a map of at most 4x4

MAX_LAYERS = 4096
MAX_PARAMETERS = 10**9  # 4 GB of weights
MAX_ACTIVATIONS = 10**9  # numbers that all layers read, for one image
MAX_MODULES = 4 * MAX_LAYERS  # pools of single states included


@dataclass(frozen=True, slots=True)
class Step:
    """One module of a child: it reads states, and its output is the next one. `name` does not depend on how many states
    are pooled before it."""

    name: str
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

    def add(self, name: str, layer: Mapping[str, Any], inputs: Sequence[int]) -> int:
        """One more module; gives the number of its state."""
        sizes = [self.states[k][1] for k in inputs]
        channels, size = self.channels(inputs), (max(h for h, _ in sizes), max(w for _, w in sizes))
        self.steps.append(Step(name, layer, tuple(inputs), channels, size))
        self.states.append(self._output(layer, channels, size))
        self.activations += channels * size[0] * size[1]
        limits = (
            ("parameters", self.parameters, MAX_PARAMETERS, "numbers to train"),
            ("memory", self.activations, MAX_ACTIVATIONS, "numbers that its layers read for each image"),
            ("memory", len(self.steps), MAX_MODULES, "modules, pools of single states included"),
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
    last = unread(layers)
    last_reader = {j: len(layers) for j in last}  # of each layer's output; -1 stands for the image
    for i, layer in enumerate(layers):
        last_reader |= {j: max(i, last_reader.get(j, i)) for j in layer["inputs"] or [-1]}
    state = {-1: 0}  # where a layer's output is now: pooling moves it
    for i, layer in enumerate(layers):
        if i in pools:
            for j in [j for j in state if last_reader.get(j, -1) >= i]:
                state[j] = plan.add(f"pool before {i}", _POOL, [state[j]])
        inputs = [state[j] for j in layer["inputs"] or [-1]]  # rule 1: with no input a layer reads the image
        for k in range(block):
            output = plan.add(f"{i}.{k}", layer, inputs)
            inputs = [*inputs, output]
        state[i] = output
    plan.outputs = tuple(state[j] for j in last)  # rule 2: what no layer has read, the classifier reads
    plan.parameters += (plan.channels(plan.outputs) + 1) * task.num_classes
    return plan


def unread(layers: Sequence[Mapping[str, Any]]) -> list[int]:
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
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(
            f'an architecture of this space is an object with "kind": "conv_chain", got {shown(architecture)}'
        )
    if set(architecture) != keys:
        raise UsageError(f"an architecture has the keys {', '.join(sorted(keys))}, got {shown(list(architecture))}")
    rate, block, pools, layers = (architecture[key] for key in ("learning_rate", "block", "pools", "layers"))
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e6):
        raise UsageError(f"the learning_rate of an architecture must be a number above 0 or null, got {shown(rate)}")
    whole("the block of an architecture", block, 1)
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise UsageError(f"the layers of an architecture must be a list of at least one, got {shown(layers)}")
    if len(layers) * block > MAX_LAYERS:
        raise UsageError(f"an architecture may have at most {MAX_LAYERS:,} layers, got {len(layers) * block:,}")
    if not isinstance(pools, Sequence) or isinstance(pools, str):
        raise UsageError(f"the pools of an architecture must be a list, got {shown(pools)}")
    for position in pools:
        whole("a pool of an architecture (after how many layers)", position, 1, len(layers) - 1)
    if list(pools) != sorted(set(pools)):
        raise UsageError(f"the pools of an architecture must be in ascending order, got {shown(pools)}")
    for i, layer in enumerate(layers):
        _check_layer(i, layer)
        if block > 1 and (layer["type"] != "conv" or list(layer["stride"]) != [1, 1]):
            raise UsageError(f"layer {i} of blocks of {block} must be a convolution with stride 1, got {shown(layer)}")


def _check_layer(i: int, layer: Any) -> None:
    kind = layer.get("type") if isinstance(layer, Mapping) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise UsageError(f'layer {i} must be an object with a "type" of {", ".join(LAYER_TYPES)}, got {shown(layer)}')
    if set(layer) != (keys := _FIELDS[kind] | {"type", "inputs"}):
        raise UsageError(f"layer {i}, a {kind}, has the keys {', '.join(sorted(keys))}, got {shown(list(layer))}")
    for key in sorted(_FIELDS[kind] - {"stride"}):
        whole(f"{key} of layer {i}", layer[key], 1)
    if kind == "conv":
        if not isinstance(layer["stride"], Sequence) or len(layer["stride"]) != 2:
            raise UsageError(f"stride of layer {i} must be [height, width], got {shown(layer['stride'])}")
        for stride in layer["stride"]:
            whole(f"a stride of layer {i}", stride, 1)
    inputs = layer["inputs"]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str):
        raise UsageError(f"inputs of layer {i} must be a list of earlier layers, got {shown(inputs)}")
    before = -1
    for j in inputs:
        if isinstance(j, bool) or not isinstance(j, int) or not before < j < i:
            raise UsageError(
                f"inputs of layer {i} must be earlier layers, counted from 0, in ascending order, got {shown(inputs)}"
            )
        before = j


def whole(what: str, value: Any, least: int, most: int = 2**20) -> None:
    """Raise UsageError unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{what} must be a whole number from {least} to {most}, got {shown(value)}")
