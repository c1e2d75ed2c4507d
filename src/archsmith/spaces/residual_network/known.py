"""Residual networks that people choose by hand, as architectures, in the sizes that were published.

`discovered.RESIDUAL` has them with their papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archsmith.core.genotype import Architecture
from archsmith.spaces.residual_network.architecture import KIND

SMALL_IMAGE_STEM = {"kernel": 3, "stride": 1, "pool": False}
IMAGENET_STEM = {"kernel": 7, "stride": 2, "pool": True}
STRIDED_STEM = {"kernel": 3, "stride": 2, "pool": False}


def _network(
    stem: Mapping[str, Any],
    filters: int,
    block: str,
    depths: Sequence[int],
    widths: Sequence[int],
    *,
    strides: Sequence[int] = (1, 2, 2, 2),
    expansions: Sequence[float] = (1.0,),
    se_ratio: float = 0.0,
    preactivation: bool = False,
    shortcut: str = "conv",
    head: int = 0,
    dropout: float = 0.0,
) -> Architecture:
    """A network whose stages have one kind of block; one expansion alone is that of all stages."""
    expansions = list(expansions) * len(depths) if len(expansions) == 1 else expansions
    stages = [
        {
            "block": block,
            "depth": depth,
            "width": width,
            "kernel": 3,
            "stride": stride,
            "expansion": expansion,
            "se_ratio": se_ratio,
        }
        for depth, width, stride, expansion in zip(depths, widths, strides, expansions, strict=False)
    ]
    return {
        "kind": KIND,
        "activation": "relu",
        "preactivation": preactivation,
        "shortcut": shortcut,
        "dropout": dropout,
        "stem": {"filters": filters, **stem},
        "head": head,
        "stages": stages,
    }


def _small_images(depth: int, shortcut: str = "conv") -> Architecture:
    """He et al. 2016, section 4.2: 6n + 2 layers."""
    return _network(SMALL_IMAGE_STEM, 16, "basic", [(depth - 2) // 6] * 3, (16, 32, 64), shortcut=shortcut)


def _wide(depth: int, widen: int) -> Architecture:
    """Zagoruyko and Komodakis 2016: 6n + 4 layers."""
    widths = [widen * 16 * 2**stage for stage in range(3)]
    return _network(SMALL_IMAGE_STEM, 16, "basic", [(depth - 4) // 6] * 3, widths, preactivation=True)


def _imagenet(block: str, depths: Sequence[int], *, expansion: float = 1.0, se_ratio: float = 0.0) -> Architecture:
    """He et al. 2016, table 1."""
    widths = [(64 if block == "basic" else 256) * 2**stage for stage in range(4)]
    return _network(IMAGENET_STEM, 64, block, depths, widths, expansions=(expansion,), se_ratio=se_ratio)


KNOWN: Mapping[str, Architecture] = {
    "resnet8": _small_images(8),
    "resnet10_narrow": _network(STRIDED_STEM, 32, "basic", (1, 1, 1, 1), (32, 64, 128, 256), shortcut="pool"),
    "resnet18_narrow": _network(STRIDED_STEM, 40, "basic", (2, 2, 2, 2), (40, 80, 160, 320), shortcut="pool"),
    "resnet20": _small_images(20),
    "resnet20_pad": _small_images(20, "pad"),
    "resnet56": _small_images(56),
    "resnet18": _imagenet("basic", (2, 2, 2, 2)),
    "resnet34": _imagenet("basic", (3, 4, 6, 3)),
    "resnet50": _imagenet("bottleneck", (3, 4, 6, 3), expansion=0.25),
    "resnet101": _imagenet("bottleneck", (3, 4, 23, 3), expansion=0.25),
    "wide_resnet50_2": _imagenet("bottleneck", (3, 4, 6, 3), expansion=0.5),
    "se_resnet50": _imagenet("bottleneck", (3, 4, 6, 3), expansion=0.25, se_ratio=1 / 16),
    "wrn_16_8": _wide(16, 8),
    "wrn_28_10": _wide(28, 10),
    "wrn_40_2": _wide(40, 2),
    "mobilenet_v2": _network(
        STRIDED_STEM,
        32,
        "inverted",
        (1, 2, 3, 4, 3, 3, 1),
        (16, 24, 32, 64, 96, 160, 320),
        strides=(1, 2, 2, 2, 1, 2, 1),
        expansions=(1.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0),
        head=1280,
        dropout=0.2,
    ),
}
"""The networks by name. MobileNetV2, of seven stages with a head, is no point of the default space."""
