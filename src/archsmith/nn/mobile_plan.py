"""What the architecture of a mobile network holds, what of it is refused, and the shapes of its layers, in plain Python.

    {"kind": "mobile_blocks", "stem": {"filters": 32, "stride": 2}, "head": 1280,
     "dropout": 0.2, "batch_norm_decay": 0.99, "batch_norm_epsilon": 0.001, "blocks": [
        {"operation": "mbconv6", "kernel": 3, "stride": 2, "se_ratio": 0.25, "skip": "identity", "filters": 24,
         "layers": 2}, ...]}

The layers of a block are identical, but that only the first may have a stride. Operations are "conv", "depthwise_conv"
(with a 1x1 convolution behind it) and "mbconvN", the inverted bottleneck that expands its input N times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsmith.core.child import Task
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.shown import shown

KIND = "mobile_blocks"
SKIPS = ("pooling", "identity", "none")
KEYS = ("kind", "stem", "blocks", "head", "dropout", "batch_norm_decay", "batch_norm_epsilon")
BLOCK = ("operation", "kernel", "stride", "se_ratio", "skip", "filters", "layers")

MAX_BLOCKS, MAX_LAYERS, MAX_FILTERS, MAX_EXPANSION, MAX_KERNEL, MAX_STRIDE = 64, 64, 8192, 16, 15, 8
MAX_PARAMETERS = 10**9
MAX_ACTIVATIONS = 10**9  # numbers that all convolutions give, for one image


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a block.

    Args:
        block: the number of its block.
        operation: "conv", "depthwise_conv" or "mbconv".
        kernel, stride: of its largest convolution.
        channels: that it reads, `filters` that it gives, and `hidden` between the two.
        squeeze: width of squeeze-and-excitation; 0: there is none.
        skip: what is added to its output: "pooling", "identity" or "none".
        size: height and width of its output.
    """

    block: int
    operation: str
    kernel: int
    stride: int
    channels: int
    hidden: int
    filters: int
    squeeze: int
    skip: str
    size: tuple[int, int]

    @property
    def parameters(self) -> int:
        """Its numbers to train: weights, two for each channel of a batch norm, biases of squeeze-and-excitation."""
        hidden, squares = self.hidden, self.kernel**2
        gate = 2 * self.squeeze * hidden + self.squeeze + hidden if self.squeeze else 0
        if self.operation == "conv":
            return squares * self.channels * self.filters + 2 * self.filters + gate
        expand = (self.channels + 2) * hidden if self.operation == "mbconv" else 0
        return expand + (squares + 2) * hidden + (hidden + 2) * self.filters + gate

    @property
    def convolutions(self) -> int:
        """How many convolutions it has; those of squeeze-and-excitation are two."""
        return {"conv": 1, "depthwise_conv": 2, "mbconv": 3}[self.operation] + 2 * (self.squeeze > 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """All layers with their shapes.

    Args:
        image: channels of the images.
        stem: filters and stride of the first convolution.
        layers: of all blocks, in order.
        head: filters of the last convolution, which is 1x1.
        num_classes: of the classifier.
    """

    image: int
    stem: tuple[int, int]
    layers: tuple[Layer, ...]
    head: int
    num_classes: int

    @property
    def parameters(self) -> int:
        """All numbers to train."""
        ends = (9 * self.image + 2) * self.stem[0] + (self.layers[-1].filters + 2) * self.head
        return ends + sum(layer.parameters for layer in self.layers) + (self.head + 1) * self.num_classes


def expansion(operation: str) -> int | None:
    """How many times an operation expands what it reads: 6 for "mbconv6"; None for what is no inverted bottleneck."""
    digits = operation.removeprefix("mbconv")
    return int(digits) if digits != operation and digits.isascii() and digits.isdigit() else None


def plan_of(architecture: Any, task: Task) -> Plan:
    """The shapes of a network for a task.

    Raises UsageError for what is no architecture of this kind or no image, and LimitExceeded for what is too large.
    """
    check_architecture(architecture)
    if len(task.input_shape) != 3:
        raise UsageError(f"a mobile network reads images [channels, height, width], got {task.input_shape}")
    stem = architecture["stem"]
    size = _strided((task.input_shape[1], task.input_shape[2]), stem["stride"])
    channels, layers = stem["filters"], []
    numbers = channels * size[0] * size[1]
    for number, block in enumerate(architecture["blocks"]):
        times = expansion(block["operation"])
        operation = block["operation"] if times is None else "mbconv"
        for k in range(block["layers"]):
            stride, filters = block["stride"] if k == 0 else 1, block["filters"]
            hidden = filters if operation == "conv" else channels * (times or 1)
            squeeze = max(1, int(block["se_ratio"] * channels)) if block["se_ratio"] else 0
            skip = block["skip"]
            if channels != filters or (skip == "identity" and stride > 1):
                skip = "none"
            read, size = size, _strided(size, stride)
            layer = Layer(number, operation, block["kernel"], stride, channels, hidden, filters, squeeze, skip, size)
            layers.append(layer)
            numbers += hidden * (read[0] * read[1] * (operation == "mbconv") + size[0] * size[1])
            numbers += filters * size[0] * size[1]
            channels = filters
    numbers += architecture["head"] * size[0] * size[1]
    plan = Plan(
        task.input_shape[0], (stem["filters"], stem["stride"]), tuple(layers), architecture["head"], task.num_classes
    )
    if plan.parameters > MAX_PARAMETERS:
        raise LimitExceeded(
            f"this network has {plan.parameters:,} parameters, and at most {MAX_PARAMETERS:,} can be built; use fewer filters",
            reason="parameters",
        )
    if numbers > MAX_ACTIVATIONS:
        raise LimitExceeded(
            f"this network's convolutions give {numbers:,} numbers for each image, and at most {MAX_ACTIVATIONS:,} can be "
            "kept; use fewer filters or smaller images",
            reason="memory",
        )
    return plan


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def check_architecture(architecture: Any) -> None:
    """Raise UsageError unless this is the architecture of a mobile network, as the module's docstring has it."""
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'an architecture of this space is an object with "kind": "{KIND}", got {shown(architecture)}')
    check_keys("an architecture", architecture, KEYS)
    check_keys("the stem of an architecture", architecture["stem"], ("filters", "stride"))
    check_ends(
        architecture["stem"]["filters"],
        architecture["stem"]["stride"],
        architecture["head"],
        architecture["dropout"],
        architecture["batch_norm_decay"],
        architecture["batch_norm_epsilon"],
        "an architecture",
    )
    blocks = architecture["blocks"]
    if not isinstance(blocks, list | tuple) or not 1 <= len(blocks) <= MAX_BLOCKS:
        raise UsageError(f"blocks of an architecture must be a list of 1 to {MAX_BLOCKS}, got {shown(blocks)}")
    for number, block in enumerate(blocks):
        what = f"block {number}"
        check_keys(what, block, BLOCK)
        check_operation(what, block["operation"])
        check_kernel(what, block["kernel"])
        check_ratio(what, block["se_ratio"])
        if block["skip"] not in SKIPS:
            raise UsageError(f"skip of {what} must be one of {', '.join(SKIPS)}, got {shown(block['skip'])}")
        whole(f"stride of {what}", block["stride"], 1, MAX_STRIDE)
        whole(f"filters of {what}", block["filters"], 1, MAX_FILTERS)
        whole(f"layers of {what}", block["layers"], 1, MAX_LAYERS)


def check_ends(stem: Any, stride: Any, head: Any, dropout: Any, decay: Any, epsilon: Any, of: str) -> None:
    """Raise UsageError unless what stands around the blocks, and how it is trained, makes sense."""
    whole(f"stem filters of {of}", stem, 1, MAX_FILTERS)
    whole(f"stem stride of {of}", stride, 1, MAX_STRIDE)
    whole(f"head of {of}", head, 1, MAX_FILTERS)
    fraction(f"dropout of {of}", dropout, 0.0, 1.0)
    fraction(f"batch_norm_decay of {of}", decay, 0.0, 1.0)
    fraction(f"batch_norm_epsilon of {of}", epsilon, 1e-12, 1.0)


def check_operation(of: str, value: Any) -> None:
    """Raise UsageError unless it is an operation."""
    times = expansion(value) if isinstance(value, str) else None
    if value not in ("conv", "depthwise_conv") and not (times and times <= MAX_EXPANSION):
        raise UsageError(
            f"operation of {of} must be conv, depthwise_conv or mbconvN with N from 1 to {MAX_EXPANSION}, got {shown(value)}"
        )


def check_kernel(of: str, value: Any) -> None:
    """Raise UsageError unless it is an odd number that a kernel may have."""
    whole(f"kernel of {of}", value, 1, MAX_KERNEL)
    if value % 2 == 0:
        raise UsageError(f"kernel of {of} must be odd, so that padding is equal on both sides, got {value}")


def check_ratio(of: str, value: Any) -> None:
    """Raise UsageError unless it is a squeeze-and-excitation ratio."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"se_ratio of {of} must be a number from 0 (none) to 1, got {shown(value)}")


def fraction(what: str, value: Any, low: float, high: float) -> None:
    """Raise UsageError unless `value` is a number from `low` to below `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
        raise UsageError(f"{what} must be a number from {low:g} to below {high:g}, got {shown(value)}")


def whole(what: str, value: Any, least: int, most: int) -> None:
    """Raise UsageError unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{what} must be a whole number from {least} to {most}, got {shown(value)}")


def check_keys(what: str, value: Any, keys: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is an object with exactly these keys."""
    if not isinstance(value, Mapping) or set(value) != set(keys):
        got = list(value) if isinstance(value, Mapping) else value
        raise UsageError(f"{what} must be an object with the keys {', '.join(keys)}, got {shown(got)}")
