"""The drawing of a subnetwork."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.spaces.subnetwork.architecture import network_called, network_of
from archsmith.spaces.subnetwork.known import Block


def diagram_of(architecture: Mapping[str, Any]) -> Diagram:
    """The network block by block, each stage in a frame of its own; arcs are shortcuts. The architecture has been checked."""
    network, whole = network_of(architecture), network_called(architecture["of"])
    size = architecture.get("size")
    side = "" if size is None else f"{size} × {size} pixels"
    nodes = [Node("image", "image", side, role="input"), Node("stem", "3×3 conv / 2", f"{network.stem} filters")]
    edges, shortcuts = [Edge("image", "stem")], []
    for i, (blocks, all_blocks) in enumerate(zip(network.stages, whole.stages, strict=False)):
        frozen = ", frozen" if i < architecture["frozen"] else ""
        for k, block in enumerate(blocks):
            name = f"{i}.{k}"
            edges.append(Edge(nodes[-1].id, name))
            nodes.append(Node(name, _label(block), _detail(block, all_blocks[k]), group=f"stage {i}{frozen}"))
            if block.adds:
                shortcuts.append(name)
    if network.head:
        edges.append(Edge(nodes[-1].id, "head"))
        nodes.append(Node("head", "1×1 conv", f"{network.head} filters"))
    edges.append(Edge(nodes[-1].id, "classifier"))
    nodes.append(Node("classifier", "classifier", "global average, linear", "output"))
    order = [node.id for node in nodes]
    for name in shortcuts:
        at = order.index(name)
        edges.append(Edge(order[at - 1], order[at + 1], skip=True))
    kept, of = (sum(map(len, each.stages)) for each in (network, whole))
    return Diagram(f"{kept} of the {of} blocks of {whole.name}", tuple(nodes), tuple(edges), "chain")


def _label(block: Block) -> str:
    kernel = f"{block.kernel}×{block.kernel}" if block.operation != "conv" else "1×1 conv"
    name = {"inverted": "inverted ", "separable": "separable ", "conv": ""}[block.operation]
    return f"{name}{kernel}" + (f" / {block.stride}" if block.stride > 1 else "")


def _detail(block: Block, whole: Block) -> str:
    inner = f", {block.hidden} of {whole.hidden} inner" if block.hidden < whole.hidden else ""
    return f"{block.filters} channels{inner}" + (f", SE {block.squeeze}" if block.squeeze else "")
