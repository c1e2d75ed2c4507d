"""Mobile networks whose weights are published: EfficientNet-Lite0 and EfficientNet-B0 (Tan and Le 2019), MobileNetV3-Large (Howard et
al. 2019) and MnasNet-B1 (Tan et al. 2019). Their outputs equal those of PyTorch Image Models (timm) to the bit.
"""

from __future__ import annotations

from archsmith.core.child import Task
from archsmith.discovered.network import Discovered
from archsmith.spaces.subnetwork import Subnetwork

_IMAGENET = Task((3, 224, 224), 1000)


def efficientnet_lite0(weights: str | None = None) -> Discovered:
    """EfficientNet-Lite0, EfficientNet-B0 without squeeze-and-excitation and with ReLU6: 4,652,008 parameters.

    Args:
        weights: "imagenet" (from the package of the extra `pretrained`), or a safetensors file with the names of timm's
            `tf_efficientnet_lite0`; None: untrained.
    """
    return _network("efficientnet_lite0", "EfficientNet-Lite0 (Tan and Le 2019)", weights)


def efficientnet_b0(weights: str | None = None) -> Discovered:
    """EfficientNet-B0: 5,288,548 parameters. `weights`: a safetensors file with the names of timm's `efficientnet_b0`."""
    return _network("efficientnet_b0", "EfficientNet-B0 (Tan and Le 2019)", weights)


def mobilenet_v3_large(weights: str | None = None) -> Discovered:
    """MobileNetV3-Large: 5,483,032 parameters. `weights`: a safetensors file with the names of timm's `mobilenetv3_large_100`."""
    return _network("mobilenet_v3_large", "MobileNetV3-Large (Howard et al. 2019)", weights)


def mnasnet_100(weights: str | None = None) -> Discovered:
    """MnasNet-B1 as timm has it: 4,383,312 parameters. `weights`: a safetensors file with the names of timm's `mnasnet_100`."""
    return _network("mnasnet_100", "MnasNet-B1 (Tan et al. 2019), as PyTorch Image Models has it", weights)


def _network(name: str, summary: str, weights: str | None) -> Discovered:
    space = Subnetwork(name, weights)
    return Discovered(name=name, summary=summary, space=space, task=_IMAGENET, genotype=space.genotype(space.whole()))
