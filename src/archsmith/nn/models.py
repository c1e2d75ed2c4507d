"""Networks designed by hand, by name: what spaces of parts (an activation, an update rule, an augmentation) are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from archsmith.core.child import Task
from archsmith.core.errors import UnknownName
from archsmith.nn.resnet import resnet20
from archsmith.nn.wide_resnet import WideResNet, wrn_28_10, wrn_40_2


def _wrn_16_1(task: Task) -> WideResNet:
    """A wide residual network that trains at a desk: 16 layers, 16 to 64 channels."""
    return WideResNet(task, 16, 1)


MODELS: Mapping[str, Callable[[Task], nn.Module]] = {
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
