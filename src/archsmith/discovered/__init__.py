"""Networks, cells and functions that the papers found, and the networks that people pick, ready to use.

network = discovered.nas_conv_v1()
module = network.build()
rnn = discovered.NASRNN(128, 256, num_layers=2)     # in place of torch.nn.LSTM

Modules load when first used: the names of networks need no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archsmith.discovered.activations import ACTIVATIONS, activation
from archsmith.discovered.autoaugment import (
    POLICIES,
    autoaugment,
    autoaugment_cifar10,
    autoaugment_imagenet,
    autoaugment_svhn,
)
from archsmith.discovered.metaqnn import metaqnn_top
from archsmith.discovered.mnasnet import mnasnet_a1, mnasnet_b1, mnasnet_small
from archsmith.discovered.mobile import efficientnet_b0, efficientnet_lite0, mnasnet_100, mobilenet_v3_large
from archsmith.discovered.nas_conv import nas_conv_v1
from archsmith.discovered.nas_recurrent import nas_cell
from archsmith.discovered.nasnet import (
    amoebanet_a,
    amoebanet_a_large,
    amoebanet_b,
    amoebanet_c,
    amoebanet_d,
    nasnet_a,
    nasnet_a_large,
    nasnet_a_mobile,
)
from archsmith.discovered.network import Discovered
from archsmith.discovered.published import Published, published
from archsmith.discovered.residual import RESIDUAL
from archsmith.discovered.update_rules import add_sign, power_sign

if TYPE_CHECKING:
    from archsmith.discovered.nas_rnn import NASRNN, NASCell
    from archsmith.discovered.optimizers import AddSign, PowerSign
    from archsmith.discovered.swish import Swish

__all__ = [
    "ACTIVATIONS",
    "NASRNN",
    "NETWORKS",
    "RESIDUAL",
    "AddSign",
    "Discovered",
    "NASCell",
    "PowerSign",
    "Published",
    "Swish",
    "activation",
    "add_sign",
    "amoebanet_a",
    "amoebanet_a_large",
    "amoebanet_b",
    "amoebanet_c",
    "amoebanet_d",
    "autoaugment",
    "autoaugment_cifar10",
    "autoaugment_imagenet",
    "autoaugment_svhn",
    "efficientnet_b0",
    "efficientnet_lite0",
    "metaqnn_top",
    "mnasnet_100",
    "mnasnet_a1",
    "mnasnet_b1",
    "mnasnet_small",
    "mobilenet_v3_large",
    "nas_cell",
    "nas_conv_v1",
    "nasnet_a",
    "nasnet_a_large",
    "nasnet_a_mobile",
    "power_sign",
    "published",
]

NETWORKS: dict[str, Callable[..., Discovered]] = {
    "add_sign": add_sign,
    "amoebanet_a": amoebanet_a,
    "amoebanet_a_large": amoebanet_a_large,
    "amoebanet_b": amoebanet_b,
    "amoebanet_c": amoebanet_c,
    "amoebanet_d": amoebanet_d,
    **POLICIES,
    **ACTIVATIONS,
    "efficientnet_b0": efficientnet_b0,
    "efficientnet_lite0": efficientnet_lite0,
    "metaqnn_top": metaqnn_top,
    "mnasnet_100": mnasnet_100,
    "mnasnet_a1": mnasnet_a1,
    "mnasnet_b1": mnasnet_b1,
    "mnasnet_small": mnasnet_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "nas_cell": nas_cell,
    "nas_conv_v1": nas_conv_v1,
    "nasnet_a": nasnet_a,
    "nasnet_a_large": nasnet_a_large,
    "nasnet_a_mobile": nasnet_a_mobile,
    "power_sign": power_sign,
    **RESIDUAL,
}
"""The networks by name, as functions: what the command line knows."""


def __getattr__(name: str) -> Any:
    if name in ("AddSign", "PowerSign"):
        from archsmith.discovered import optimizers

        return getattr(optimizers, name)
    if name == "Swish":
        from archsmith.discovered import swish

        return swish.Swish
    if name in ("NASCell", "NASRNN"):
        from archsmith.discovered import nas_rnn

        return getattr(nas_rnn, name)
    raise AttributeError(f"module 'archsmith.discovered' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
