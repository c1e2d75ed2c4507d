"""Which channels the layers of a network read and give: what a child needs to take over the weights of another network.

A network that implements `DescribesChannels` lists its layers. Layers and groups of channels of two networks correspond if
they have the same name, so a space says with its names what corresponds. `archsmith.nn.net2net` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

Groups: TypeAlias = tuple[str, ...]
"""The names of groups of channels, concatenated in this order."""

Start: TypeAlias = Literal["drawn", "zero", "identity"]


@dataclass(frozen=True, slots=True)
class LayerChannels:
    """One layer with weights.

    Args:
        module: the name of its module in the network.
        name: the same for the corresponding layer of another network.
        reads: the channels that it reads.
        gives: the channels that it gives.
        channelwise: whether it computes each channel by itself, as batch norm and depthwise convolutions do.
        start: how the layer starts if the other network has no such layer. "zero": as a residual branch that adds nothing;
            "identity": it passes the channels on that it reads; "drawn": with the weights that it was built with.
        gates: for a layer that makes gates from 0 to 1 which the other network does not have: the module whose output is
            doubled in return, since a new gate starts at one half.
    """

    module: str
    name: str
    reads: Groups
    gives: Groups
    channelwise: bool = False
    start: Start = "drawn"
    gates: str = ""


@dataclass(frozen=True, slots=True)
class NetworkChannels:
    """All layers of a network with weights, and its groups of channels.

    Args:
        layers: in an order in which each layer reads what earlier ones give.
        sizes: the number of channels of each group.
        states: other names of channels. If two states are added to each other, they are the same groups under two names.
        versions: of groups that are made from another one channel by channel, such as by pooling, that one and how: group k
            made by "pool" is called "k after pool".
    """

    layers: tuple[LayerChannels, ...]
    sizes: Mapping[str, int]
    states: Mapping[str, Groups]
    versions: Mapping[str, tuple[str, str]]


def version_of(group: str, made_by: str) -> str:
    """The name of a group that is made from another one channel by channel."""
    return f"{group} after {made_by}"


@runtime_checkable
class DescribesChannels(Protocol):
    """A network whose weights fit networks of other widths and depths."""

    def channel_groups(self) -> NetworkChannels:
        """Its layers and their channels."""
        ...
