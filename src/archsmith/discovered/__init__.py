"""Networks and functions that the papers found, ready to use.

network = discovered.nas_conv_v1()
module = network.build()
"""

from __future__ import annotations

from archsmith.discovered.nas_conv import nas_conv_v1
from archsmith.discovered.network import Discovered

__all__ = ["NETWORKS", "Discovered", "nas_conv_v1"]

NETWORKS = {"nas_conv_v1": nas_conv_v1}
"""The networks by name, as functions: what the command line knows."""
