"""Mobile networks whose weights are published: EfficientNet-Lite0 and EfficientNet-B0 (Tan and Le 2019, "EfficientNet: Rethinking
Model Scaling for Convolutional Neural Networks"), MobileNetV3-Large (Howard et al. 2019, "Searching for MobileNetV3") and
MnasNet-B1 (Tan et al. 2019), block by block, in the sizes in which PyTorch Image Models (timm) has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted bottleneck, depthwise separable convolution or plain 1×1 convolution.

    Args:
        operation: "inverted" (1×1, depthwise, 1×1), "separable" (depthwise, 1×1) or "conv" (1×1).
        kernel, stride: of the depthwise convolution.
        channels, hidden, filters: channels that it reads, that the depthwise convolution has, and that it gives.
        squeeze: units of squeeze-and-excitation; 0: none.
        activation: "relu", "relu6", "silu" or "hardswish".
        adds: whether its input is added to its output.
    """

    operation: str
    kernel: int
    stride: int
    channels: int
    hidden: int
    filters: int
    squeeze: int
    activation: str
    adds: bool


@dataclass(frozen=True, slots=True)
class MobileNetwork:
    """A whole network.

    Args:
        name: as `archsmith.discovered` has it.
        stem: filters of the first convolution, which is 3×3 with a stride of 2.
        activation: behind the stem and the head.
        stages: rows of blocks; the first block of a row may change the size of the map.
        head: filters of the last 1×1 convolution; 0: none, and the mean of the last map is classified.
        pools_first: whether the mean is taken before that convolution, which then has a bias and no batch norm (MobileNetV3).
        gate: "sigmoid" or "hardsigmoid", of squeeze-and-excitation.
        squeeze_activation: behind its first layer.
        same_padding: whether padding is TensorFlow's: for strides, one more pixel below and right than above and left.
        epsilon: of batch norms.
        dropout: before the classifier.
    """

    name: str
    stem: int
    activation: str
    stages: tuple[tuple[Block, ...], ...]
    head: int
    pools_first: bool = False
    gate: str = "sigmoid"
    squeeze_activation: str = "relu"
    same_padding: bool = False
    epsilon: float = 1e-5
    dropout: float = 0.2


def _divisible(value: float, by: int = 8) -> int:
    """The nearest multiple, and not less than nine tenths of the value, as the released code rounds."""
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


# Of each stage: operation, repeats, kernel, stride, expansion, filters, ratio of squeeze-and-excitation to the block's input.
_EFFICIENTNET = (
    ("separable", 1, 3, 1, 1, 16, 0.25),
    ("inverted", 2, 3, 2, 6, 24, 0.25),
    ("inverted", 2, 5, 2, 6, 40, 0.25),
    ("inverted", 3, 3, 2, 6, 80, 0.25),
    ("inverted", 3, 5, 1, 6, 112, 0.25),
    ("inverted", 4, 5, 2, 6, 192, 0.25),
    ("inverted", 1, 3, 1, 6, 320, 0.25),
)
_MNASNET_B1 = (
    ("separable", 1, 3, 1, 1, 16, 0),
    ("inverted", 3, 3, 2, 3, 24, 0),
    ("inverted", 3, 5, 2, 3, 40, 0),
    ("inverted", 3, 5, 2, 6, 80, 0),
    ("inverted", 2, 3, 1, 6, 96, 0),
    ("inverted", 4, 5, 2, 6, 192, 0),
    ("inverted", 1, 3, 1, 6, 320, 0),
)
# Kernel, stride, hidden channels, filters, whether it squeezes, activation (Howard et al. 2019, table 1).
_MOBILENET_V3_LARGE = (
    ((3, 1, 16, 16, False, "relu"),),
    ((3, 2, 64, 24, False, "relu"), (3, 1, 72, 24, False, "relu")),
    ((5, 2, 72, 40, True, "relu"), (5, 1, 120, 40, True, "relu"), (5, 1, 120, 40, True, "relu")),
    (
        (3, 2, 240, 80, False, "hardswish"),
        (3, 1, 200, 80, False, "hardswish"),
        (3, 1, 184, 80, False, "hardswish"),
        (3, 1, 184, 80, False, "hardswish"),
    ),
    ((3, 1, 480, 112, True, "hardswish"), (3, 1, 672, 112, True, "hardswish")),
    ((5, 2, 672, 160, True, "hardswish"), (5, 1, 960, 160, True, "hardswish"), (5, 1, 960, 160, True, "hardswish")),
)


def _scaled(
    rows: tuple[tuple[str, int, int, int, int, int, float], ...], stem: int, activation: str, *, squeezes: bool = True
) -> tuple[tuple[Block, ...], ...]:
    stages, channels = [], stem
    for operation, repeats, kernel, stride, expansion, filters, ratio in rows:
        blocks = []
        for i in range(repeats):
            squeeze = int(ratio * channels) if squeezes else 0
            adds = channels == filters and (stride == 1 or i > 0)
            hidden = channels * expansion
            blocks.append(
                Block(operation, kernel, stride if i == 0 else 1, channels, hidden, filters, squeeze, activation, adds)
            )
            channels = filters
        stages.append(tuple(blocks))
    return tuple(stages)


def _mobilenet_v3_large() -> MobileNetwork:
    stages: list[tuple[Block, ...]] = []
    channels = 16
    for rows in _MOBILENET_V3_LARGE:
        blocks = []
        for kernel, stride, hidden, filters, squeezes, activation in rows:
            operation = "inverted" if stages else "separable"
            squeeze = _divisible(hidden / 4) if squeezes else 0
            adds = channels == filters and stride == 1
            blocks.append(Block(operation, kernel, stride, channels, hidden, filters, squeeze, activation, adds))
            channels = filters
        stages.append(tuple(blocks))
    stages.append((Block("conv", 1, 1, channels, 960, 960, 0, "hardswish", False),))
    return MobileNetwork(
        "mobilenet_v3_large", 16, "hardswish", tuple(stages), 1280, pools_first=True, gate="hardsigmoid"
    )


_B0 = MobileNetwork("efficientnet_b0", 32, "silu", _scaled(_EFFICIENTNET, 32, "silu"), 1280, squeeze_activation="silu")
_LITE0 = replace(
    _B0,
    name="efficientnet_lite0",
    activation="relu6",
    stages=_scaled(_EFFICIENTNET, 32, "relu6", squeezes=False),
    same_padding=True,
    epsilon=1e-3,
)
_B1 = MobileNetwork("mnasnet_100", 32, "relu", _scaled(_MNASNET_B1, 32, "relu"), 1280)

KNOWN: Mapping[str, MobileNetwork] = {network.name: network for network in (_LITE0, _B0, _mobilenet_v3_large(), _B1)}
"""The networks by name."""
