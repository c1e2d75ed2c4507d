"""MnasNet (Tan et al. 2019, "MnasNet: Platform-Aware Neural Architecture Search for Mobile").

The networks are those of the released code. Filters such as 112 and 192 are none of the multiples of MobileNetV2's that
the paper's space has, so these networks are architectures of its kind and no genotypes.
"""

from __future__ import annotations

from typing import Any

from archsmith.core.child import Task
from archsmith.core.genotype import Architecture
from archsmith.discovered.network import Discovered
from archsmith.nn.mobile_plan import KIND
from archsmith.spaces.mobile_blocks import MobileBlocks, scaled

_IMAGENET = Task((3, 224, 224), 1000)
_SE = 0.25

# Layers, kernel, stride, expansion, filters, ratio of squeeze-and-excitation.
_A1 = (
    (1, 3, 1, 1, 16, 0), (2, 3, 2, 6, 24, 0), (3, 5, 2, 3, 40, _SE), (4, 3, 2, 6, 80, 0), (2, 3, 1, 6, 112, _SE),
    (3, 5, 2, 6, 160, _SE), (1, 3, 1, 6, 320, 0),
)  # fmt: skip
_B1 = (
    (1, 3, 1, 1, 16, 0), (3, 3, 2, 3, 24, 0), (3, 5, 2, 3, 40, 0), (3, 5, 2, 6, 80, 0), (2, 3, 1, 6, 96, 0),
    (4, 5, 2, 6, 192, 0), (1, 3, 1, 6, 320, 0),
)  # fmt: skip
_SMALL = (
    (1, 3, 1, 1, 8, 0), (1, 3, 2, 3, 16, 0), (2, 3, 2, 6, 16, 0), (4, 5, 2, 6, 32, _SE), (3, 3, 1, 6, 32, _SE),
    (3, 5, 2, 6, 88, _SE), (1, 3, 1, 6, 144, 0),
)  # fmt: skip


def mnasnet_a1(width: float = 1.0) -> Discovered:
    """MnasNet-A1, published at 75.2 % top-1 on ImageNet and 78 ms on a Pixel 1: 3,887,038 parameters and 311,579,072
    multiply-adds.

    Args:
        width: the paper's depth multiplier: 1.4, 0.75, 0.5 and 0.35 are published as well.
    """
    return _network("mnasnet_a1", "MnasNet-A1", _A1, 32, width)


def mnasnet_b1(width: float = 1.0) -> Discovered:
    """MnasNet-B1, found without squeeze-and-excitation, with 4.4 million parameters; `width` as of `mnasnet_a1`."""
    return _network("mnasnet_b1", "MnasNet-B1", _B1, 32, width)


def mnasnet_small(width: float = 1.0) -> Discovered:
    """The small variant of the released code: 2,030,264 parameters and 68,339,184 multiply-adds; `width` as of
    `mnasnet_a1`."""
    return _network("mnasnet_small", "MnasNet-small", _SMALL, 8, width)


def _network(name: str, title: str, rows: tuple[tuple[Any, ...], ...], stem: int, width: float) -> Discovered:
    space = MobileBlocks(stem=stem)
    blocks = []
    for number, (layers, kernel, stride, expansion, filters, ratio) in enumerate(rows):
        blocks.append(
            {
                "operation": "depthwise_conv" if expansion == 1 else f"mbconv{expansion}",
                "kernel": kernel,
                "stride": stride,
                "se_ratio": ratio,
                "skip": "identity" if number else "none",
                "filters": filters,
                "layers": layers,
            }
        )
    data: Architecture = {
        "kind": KIND,
        "stem": {"filters": stem, "stride": space.stem_stride},
        "blocks": blocks,
        "head": space.head,
        "dropout": space.dropout,
        "batch_norm_decay": space.batch_norm_decay,
        "batch_norm_epsilon": space.batch_norm_epsilon,
    }
    scale = "" if width == 1 else f", {width:g} times as wide"
    return Discovered(
        name=name,
        summary=f"{title}{scale}, for ImageNet on phones (Tan et al. 2019)",
        space=space,
        task=_IMAGENET,
        data=scaled(data, width),
    )
