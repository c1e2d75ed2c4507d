"""The drawing of a residual network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.core.diagram import Diagram, Edge, Node


def diagram_of(architecture: Mapping[str, Any]) -> Diagram:
    """The network block by block, each stage in a frame of its own; arcs are shortcuts. The architecture has been checked."""
    stem, stages = architecture["stem"], architecture["stages"]
    detail = f"{stem['filters']} filters" + (", 3×3 max pool / 2" if stem["pool"] else "")
    nodes = [
        Node("image", "image", role="input"),
        Node("stem", f"{stem['kernel']}×{stem['kernel']} conv{_over(stem['stride'])}", detail),
    ]
    edges = [Edge("image", "stem")]
    shortcuts: list[str] = []  # blocks whose input is added to their output
    channels = stem["filters"]
    for i, stage in enumerate(stages):
        for k in range(stage["depth"]):
            stride = stage["stride"] if k == 0 else 1
            name = f"{i}.{k}"
            label = f"{stage['block']} {stage['kernel']}×{stage['kernel']}{_over(stride)}"
            edges.append(Edge(nodes[-1].id, name))
            nodes.append(Node(name, label, _detail(stage), group=f"stage {i}"))
            if stage["block"] != "inverted" or (stride == 1 and channels == stage["width"]):
                shortcuts.append(name)
            channels = stage["width"]
    if architecture["head"]:
        edges.append(Edge(nodes[-1].id, "head"))
        nodes.append(Node("head", "1×1 conv", f"{architecture['head']} filters"))
    edges.append(Edge(nodes[-1].id, "classifier"))
    nodes.append(Node("classifier", "classifier", "global average, linear", "output"))
    order = [node.id for node in nodes]
    for name in shortcuts:  # from what the block reads to what reads the block
        at = order.index(name)
        edges.append(Edge(order[at - 1], order[at + 1], skip=True))
    depth = sum(stage["depth"] for stage in stages)
    form = "pre-activation, " if architecture["preactivation"] else ""
    title = f"A residual network of {_many(depth, 'block')} in {_many(len(stages), 'stage')} ({form}{architecture['activation']})"
    return Diagram(title, tuple(nodes), tuple(edges), "chain")


def _detail(stage: Mapping[str, Any]) -> str:
    detail = f"{stage['width']} channels"
    if stage["block"] != "basic":
        detail += f", expansion {stage['expansion']:g}"
    return detail + (f", SE {stage['se_ratio']:g}" if stage["se_ratio"] else "")


def _over(stride: int) -> str:
    return f" / {stride}" if stride > 1 else ""


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"
