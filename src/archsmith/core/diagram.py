"""Diagrams as data: boxes and arrows, so that any space can be drawn by one renderer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """A box.

    Args:
        id: unique in its diagram.
        label: the first line, such as "5×7 conv".
        detail: a second, smaller line, such as "36 filters".
        role: what it is, for its colour: "input", "conv", "pool", "norm", "dense", "activation", "combine", "output".
        group: boxes of one group stand in a frame of that name; "" is no group.
    """

    id: str
    label: str
    detail: str = ""
    role: str = "conv"
    group: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow from one node's id to another's. `skip` marks one that jumps over nodes of the main path."""

    source: str
    target: str
    skip: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a plot: its name, and points (x, y). Where y is NaN there is a gap."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over one axis, of the name `label`."""

    label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Diagram:
    """A drawing of an architecture. Nodes stand in topological order: every edge points forward.

    Args:
        title: what it is of.
        nodes: the boxes, in order along the main path.
        edges: the arrows.
        layout: "chain" (one column, skips as arcs) or "graph" (layers by longest path).
        plot: curves that stand below the boxes.
    """

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    layout: str = "chain"
    plot: Plot | None = None

    def __post_init__(self) -> None:
        order = {node.id: i for i, node in enumerate(self.nodes)}
        if len(order) != len(self.nodes):
            raise ValueError("the nodes of a diagram need ids of their own")
        for edge in self.edges:
            if edge.source not in order or edge.target not in order:
                raise ValueError(f"the edge {edge.source} -> {edge.target} names a node that is not there")
            if order[edge.source] >= order[edge.target]:
                raise ValueError(f"the edge {edge.source} -> {edge.target} points backward")
