"""A published network in sizes of a person's choice, and as a space that a run can be of."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsmith.core.child import AnyTask, Child
from archsmith.core.diagram import Diagram
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.shown import shown
from archsmith.core.walk import Choose
from archsmith.discovered.network import Discovered

SIZES = ("cells", "filters", "form", "width")


def published(name: str, size: Mapping[str, Any] | None = None) -> Discovered:
    """The discovered network of that name, in another size where it comes in several.

    Args:
        name: one of `archsmith.discovered.NETWORKS`.
        size: arguments of its function, such as `{"cells": 6, "filters": 168, "form": "imagenet"}`; None ones are left out.

    Raises UnknownName, and UsageError for a size that it does not come in.
    """
    from archsmith.discovered import NETWORKS

    if name not in NETWORKS:
        raise UnknownName("discovered network", name, NETWORKS)
    given = {option: value for option, value in (size or {}).items() if value is not None}
    takes = list(inspect.signature(NETWORKS[name]).parameters)
    for option in given:
        if option not in takes:
            sizes = [name for name in takes if name in SIZES]
            has = (
                f"it has {', '.join(sizes)}" if sizes else "it comes in one size; others of its family may have several"
            )
            raise UsageError(f"{name} has no {option} to choose: {has}")
    return NETWORKS[name](**given)


@dataclass(frozen=True)
class Published:
    """A published network as a space with one thing in it, so that it can be trained and finished as what a search found.

    What is None is as published.

    Args:
        network: its name, one of `archsmith.discovered.NETWORKS`.
        cells, filters, form: of NASNet-A and AmoebaNet.
        width: of MnasNet.
        auxiliary: the weight of the auxiliary loss in training, of NASNet-A and AmoebaNet.
    """

    network: str
    cells: int | None = None
    filters: int | None = None
    form: str | None = None
    width: float | None = None
    auxiliary: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.network, str):
            raise UsageError(f"network of Published must be a name, got {shown(self.network)}")
        self.discovered()

    def discovered(self) -> Discovered:
        """The network itself. Raises UnknownName and UsageError as `published` does."""
        return published(self.network, {name: value for name, value in vars(self).items() if name != "network"})

    @property
    def task(self) -> AnyTask:
        """What it was published for."""
        return self.discovered().task

    def architecture(self, choose: Choose) -> Architecture:
        """The published one: the only question has one answer."""
        choose("network", (self.network,))
        return self.discovered().architecture

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child, as its own space builds it."""
        child: Child = self.discovered().space.build(architecture, task)
        return child

    def diagram(self, architecture: Architecture) -> Diagram:
        """As its own space draws it."""
        space: Any = self.discovered().space
        diagram: Diagram = space.diagram(architecture)
        return diagram
