"""The drawing of a NASNet's two cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.nn.nasnet_architecture import CELLS

_WORDS = {"conv": "conv", "dil_conv": "dilated conv", "sep_conv": "sep conv", "dil_sep_conv": "dilated sep conv"}


def drawn(architecture: Mapping[str, Any]) -> Diagram:
    """Both cells as boxes and arrows, each in a frame of its own. The architecture has been checked."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    for kind in CELLS:
        for part in _cell(kind, architecture[kind]["blocks"], architecture[kind]["concatenated"]):
            if isinstance(part, Node):
                nodes.append(part)
            else:
                edges.append(part)
    cells, filters, form = (architecture[key] for key in ("cells", "filters", "form"))
    title = (
        f"The cells of a network with N = {cells} and F = {filters}, {'CIFAR' if form == 'cifar' else 'ImageNet'} form"
    )
    return Diagram(title, tuple(nodes), tuple(edges), "graph")


def _cell(kind: str, blocks: list[Mapping[str, Any]], concatenated: list[int]) -> list[Node | Edge]:
    group = f"{kind} cell"
    read = {k for block in blocks for k in block["inputs"]} | set(concatenated)
    parts: list[Node | Edge] = [
        Node(f"{kind} {k}", label, detail, "input", group)
        for k, (label, detail) in enumerate((("h[i]", "the cell before"), ("h[i-1]", "the one before that")))
        if k in read
    ]
    for b, block in enumerate(blocks):
        state = f"{kind} {b + 2}"
        for side, source, name in zip("ab", block["inputs"], block["operations"], strict=True):
            label, role = caption(name)
            halves = "/ 2" if kind == "reduction" and source < 2 else ""
            parts.append(Node(f"{state}{side}", label, halves, role, group))
            parts.append(Edge(f"{kind} {source}", f"{state}{side}"))
        parts.append(Node(state, block["combination"], "", "combine", group))
        parts += [Edge(f"{state}{side}", state) for side in "ab"]
    parts.append(Node(f"{kind} output", "concat" if len(concatenated) > 1 else "output", "", "output", group))
    return [*parts, *(Edge(f"{kind} {k}", f"{kind} output") for k in concatenated)]


def caption(operation: str) -> tuple[str, str]:
    """Label and role of an operation's box."""
    if operation == "identity":
        return "identity", "combine"
    if "pool" in operation:
        kind, _, size = operation.split("_")
        return f"{size.replace('x', '×')} {kind} pool", "pool"
    name, _, size = operation.partition("conv_")
    return f"{size.replace('x', '×').replace('_', ' ')} {_WORDS[name + 'conv']}", "conv"
