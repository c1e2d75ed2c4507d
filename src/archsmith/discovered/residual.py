"""Residual networks that people choose by hand, as architectures of the space `ResidualNetwork`: starting points for a search,
and the networks that it has to beat.

The sizes are those that were published, exact to the parameter (tests/test_residual_network.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial

from archsmith.core.child import Task
from archsmith.discovered.network import Discovered
from archsmith.spaces.residual_network import ResidualNetwork
from archsmith.spaces.residual_network.known import KNOWN

_SMALL = Task((3, 64, 64), 10)
_IMAGENET = Task((3, 224, 224), 1000)
_SPACE = ResidualNetwork()

# By name: the title with the paper, and what it was published for.
_NETWORKS: Mapping[str, tuple[str, Task]] = {
    "resnet8": ("ResNet-8, which trains at a desk", Task()),
    "resnet10_narrow": ("ResNet-10 with 32 filters and a 3×3 stem, for small pictures and few minutes", _SMALL),
    "resnet18_narrow": ("ResNet-18 with 40 filters and a 3×3 stem, for small pictures and few minutes", _SMALL),
    "resnet20": ("ResNet-20 with 1×1 convolutions as shortcuts (He et al. 2016)", Task()),
    "resnet20_pad": ("ResNet-20 as published for CIFAR-10 (He et al. 2016)", Task()),
    "resnet56": ("ResNet-56 with 1×1 convolutions as shortcuts (He et al. 2016)", Task()),
    "resnet18": ("ResNet-18 (He et al. 2016)", _IMAGENET),
    "resnet34": ("ResNet-34 (He et al. 2016)", _IMAGENET),
    "resnet50": ("ResNet-50 (He et al. 2016)", _IMAGENET),
    "resnet101": ("ResNet-101 (He et al. 2016)", _IMAGENET),
    "wide_resnet50_2": ("WRN-50-2-bottleneck (Zagoruyko and Komodakis 2016)", _IMAGENET),
    "se_resnet50": ("SE-ResNet-50 (Hu et al. 2018)", _IMAGENET),
    "wrn_16_8": ("WRN-16-8 (Zagoruyko and Komodakis 2016)", Task()),
    "wrn_28_10": ("WRN-28-10 (Zagoruyko and Komodakis 2016)", Task()),
    "wrn_40_2": ("WRN-40-2 (Zagoruyko and Komodakis 2016)", Task()),
    "mobilenet_v2": ("MobileNetV2 with ReLU (Sandler et al. 2018)", _IMAGENET),
}


def _discovered(name: str) -> Discovered:
    summary, task = _NETWORKS[name]
    architecture = copy.deepcopy(KNOWN[name])
    if name == "mobilenet_v2":  # seven stages with a head are no point of the default space
        return Discovered(name=name, summary=summary, space=_SPACE, task=task, data=architecture)
    return Discovered(name=name, summary=summary, space=_SPACE, task=task, genotype=_SPACE.genotype(architecture))


RESIDUAL: Mapping[str, Callable[[], Discovered]] = {name: partial(_discovered, name) for name in _NETWORKS}
"""The networks by name, as functions. They were designed by hand, not discovered by a search."""
