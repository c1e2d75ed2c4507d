"""Networks designed by hand, by name: what spaces of parts (an activation, an update rule, an augmentation) are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from archsmith.core.child import Task
from archsmith.core.errors import UnknownName
from archsmith.nn.convnet import convnet2, convnet2_small
from archsmith.nn.densenet import densenet_100_12
from archsmith.nn.preact_resnet import preact_resnet164
from archsmith.nn.resnet import resnet8, resnet20
from archsmith.nn.wide_resnet import WideResNet, wrn_28_10, wrn_40_2


def _wrn_16_1(task: Task) -> WideResNet:
    """A wide residual network that trains at a desk: 16 layers, 16 to 64 channels."""
    return WideResNet(task, 16, 1)


MODELS: Mapping[str, Callable[[Task], nn.Module]] = {
    "convnet2": convnet2,
    "convnet2_small": convnet2_small,
    "densenet_100_12": densenet_100_12,
    "preact_resnet164": preact_resnet164,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "wrn_16_1": _wrn_16_1,
    "wrn_28_10": wrn_28_10,
    "wrn_40_2": wrn_40_2,
}


def model_named(name: str, task: Task) -> nn.Module:
    """The network of that name for a task, freshly initialised. Raises UnknownName, with the nearest names."""
    if name not in MODELS:
        raise UnknownName("model", name, MODELS)
    return MODELS[name](task)


def layers_and_depth(name: str, task: Task) -> tuple[int, int]:
    """How many convolutions and linear layers a network has, its classifier not counted, and the most on one way through
    it: without those of shortcuts, which lie beside longer ways."""
    with torch.device("meta"):
        modules = list(model_named(name, task).named_modules())
    layers = [path for path, module in modules if isinstance(module, nn.Conv2d | nn.Linear)]
    return len(layers) - 1, sum("shortcut" not in path for path in layers) - 1
