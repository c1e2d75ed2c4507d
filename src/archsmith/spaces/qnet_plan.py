"""From the architecture of a network of MetaQNN's to the shapes of what will be built, in plain Python.

Whatever can be refused is refused here, before torch is loaded and memory is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.core.child import Task
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.shown import shown
from archsmith.spaces.chain_plan import MAX_ACTIVATIONS, MAX_PARAMETERS, whole

KIND = "qnet"
HEADS = ("softmax", "gap")
MAX_LAYERS = 256
FIELDS = {
    "conv": {"filters", "filter_size"},
    "max_pool": {"pool_size", "pool_stride"},
    "fc": {"units"},
}


def pooled(size: int, pool_size: int, pool_stride: int) -> int:
    """The side of a map after pooling: ceil((n - k + 1) / s), windows that lie inside alone (paper's code).

    A window that is larger than the map is cut to it: 1.
    """
    return max(0, size - pool_size) // pool_stride + 1


@dataclass(frozen=True, slots=True)
class Step:
    """One layer with the shape of what it reads, and the dropout behind it (0: none)."""

    layer: Mapping[str, Any]
    channels: int
    size: tuple[int, int]
    dropout: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The layers of a child and the shape of what the classifier reads. After a fully connected layer a map is 1x1."""

    steps: tuple[Step, ...]
    channels: int
    size: tuple[int, int]
    parameters: int


def plan_of(architecture: Architecture, task: Task) -> Plan:
    """The child that an architecture describes, as shapes. Raises UsageError and LimitExceeded."""
    check_architecture(architecture)
    if len(task.input_shape) != 3:
        raise UsageError(f"QNet reads images, [channels, height, width], and input_shape is {task.input_shape}")
    channels, *sides = task.input_shape
    size, parameters, activations = (sides[0], sides[1]), 0, 0
    norm, dense_side = architecture["batch_norm"], architecture["dense_side"]
    layers, steps = architecture["layers"], []
    drops = len(layers) // 2  # n, the dropout layers: one after every two
    for i, layer in enumerate(layers, 1):
        dropout = architecture["dropout"] * (i // 2) / drops if i % 2 == 0 else 0.0
        steps.append(Step(layer, channels, size, dropout))
        activations += channels * size[0] * size[1]
        match layer["type"]:
            case "conv":
                parameters += layer["filters"] * (channels * layer["filter_size"] ** 2 + (2 if norm else 1))
                channels = layer["filters"]
            case "fc":
                parameters += layer["units"] * (dense_inputs(channels, size, dense_side) + 1)
                channels, size = layer["units"], (1, 1)
            case _:
                height, width = (pooled(n, layer["pool_size"], layer["pool_stride"]) for n in size)
                size = (height, width)
        _limit(i, parameters, activations)
    inputs = channels if architecture["head"] == "gap" else dense_inputs(channels, size, dense_side)
    parameters += (inputs + 1) * task.num_classes
    _limit(len(layers) + 1, parameters, activations)
    return Plan(tuple(steps), channels, size, parameters)


def dense_inputs(channels: int, size: tuple[int, int], dense_side: int | None) -> int:
    """How many numbers of a map a fully connected layer or the softmax reads."""
    height, width = (n if dense_side is None else min(n, dense_side) for n in size)
    return channels * height * width


def _limit(layer: int, parameters: int, activations: int) -> None:
    for reason, number, limit, what in (
        ("parameters", parameters, MAX_PARAMETERS, "numbers to train"),
        ("memory", activations, MAX_ACTIVATIONS, "numbers that its layers read for each image"),
    ):
        if number > limit:
            raise LimitExceeded(
                f"the architecture is too large to be built: by its layer {layer} it has {number:.2g} {what}, and at "
                f"most {limit:.0g} are allowed; use fewer layers, filters or units, or smaller images",
                reason=reason,
            )


# --- what is refused --------------------------------------------------------------------------------------------------


def check_architecture(architecture: Architecture) -> None:
    """Raise UsageError unless this is the architecture of a network of MetaQNN's, as the space's docstring has it."""
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'an architecture of QNet is an object with "kind": "qnet", got {shown(architecture)}')
    keys = {"kind", "layers", "head", "dropout", "batch_norm", "dense_side"}
    if set(architecture) != keys:
        raise UsageError(
            f"an architecture of QNet has the keys {', '.join(sorted(keys))}, got {shown(list(architecture))}"
        )
    layers, head = architecture["layers"], architecture["head"]
    if not isinstance(layers, Sequence) or isinstance(layers, str) or len(layers) > MAX_LAYERS:
        raise UsageError(f"the layers of an architecture must be a list of at most {MAX_LAYERS}, got {shown(layers)}")
    if head not in HEADS:
        raise UsageError(f"the head of an architecture must be one of {', '.join(HEADS)}, got {shown(head)}")
    check_training(architecture["dropout"], architecture["batch_norm"], architecture["dense_side"])
    dense = False
    for i, layer in enumerate(layers):
        _check_layer(i, layer)
        if dense and layer["type"] != "fc":
            raise UsageError(f"layer {i} follows a fully connected layer, so it must be one too, got {shown(layer)}")
        dense = layer["type"] == "fc"
    if dense and head == "gap":
        raise UsageError(
            'an architecture that ends in a fully connected layer has no map to average: head is "softmax"'
        )


def check_training(dropout: Any, batch_norm: Any, dense_side: Any) -> None:
    """Raise UsageError unless these options of a space, or fields of an architecture, make sense."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UsageError(f"dropout of QNet must be a number at least 0 and below 1, got {shown(dropout)}")
    if not isinstance(batch_norm, bool):
        raise UsageError(f"batch_norm of QNet must be True or False, got {shown(batch_norm)}")
    if dense_side is not None:
        whole("dense_side of QNet", dense_side, 1)


def _check_layer(i: int, layer: Any) -> None:
    kind = layer.get("type") if isinstance(layer, Mapping) else None
    if not isinstance(kind, str) or kind not in FIELDS:
        raise UsageError(f'layer {i} must be an object with a "type" of {", ".join(FIELDS)}, got {shown(layer)}')
    if set(layer) != (keys := FIELDS[kind] | {"type"}):
        raise UsageError(f"layer {i}, a {kind}, has the keys {', '.join(sorted(keys))}, got {shown(list(layer))}")
    for key in sorted(FIELDS[kind]):
        whole(f"{key} of layer {i}", layer[key], 1)
    if kind == "conv" and layer["filter_size"] % 2 == 0:
        raise UsageError(f"filter_size of layer {i} must be odd, got {layer['filter_size']}")
