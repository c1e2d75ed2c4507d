"""The drawing of any network that torch.fx can trace: a box for each layer and each operation that joins several."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UsageError

_ROLES: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    ("conv", (nn.modules.conv._ConvNd,)),
    ("norm", (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)),
    ("pool", tuple(getattr(nn, name) for name in dir(nn) if "Pool" in name)),
    ("dense", (nn.Linear, nn.Bilinear, nn.Embedding, nn.RNNBase, nn.RNNCellBase)),
)
_UNSEEN = (nn.Identity, nn.Dropout, nn.Flatten)  # these change at most the shape


def module_diagram(module: nn.Module, title: str) -> Diagram:
    """The layers of a module and how they are connected. Raises UsageError when its forward pass cannot be traced."""
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:
        raise UsageError(
            f"{title} has no diagram, and its forward pass cannot be traced to make one: {error}. Give the space a "
            "method diagram(architecture), which returns an archsmith.core.diagram.Diagram"
        ) from error
    nodes: list[Node] = []
    edges: dict[tuple[str, str], None] = {}
    sources: dict[fx.Node, tuple[str, ...]] = {}  # of each traced node, the boxes whose values it has
    for traced in graph.nodes:
        given = tuple(dict.fromkeys(s for node in traced.all_input_nodes for s in sources[node]))
        node = _box(traced, module, joins=len(given) > 1)
        if node is None:
            sources[traced] = given
            continue
        nodes.append(node)
        edges |= dict.fromkeys((source, node.id) for source in given)
        sources[traced] = (node.id,)
    order = {node.id: i for i, node in enumerate(nodes)}
    arrows = tuple(Edge(a, b, skip=order[b] - order[a] > 1) for a, b in edges)
    return Diagram(title, tuple(nodes), arrows, layout="graph" if any(edge.skip for edge in arrows) else "chain")


def _box(traced: fx.Node, module: nn.Module, *, joins: bool) -> Node | None:
    """The box of one traced operation; None if it is not drawn."""
    if traced.op == "placeholder":
        return Node(traced.name, "input", role="input")
    if traced.op == "output":
        return Node(traced.name, "output", role="output")
    if traced.op == "call_module":
        layer = module.get_submodule(str(traced.target))
        if isinstance(layer, _UNSEEN):
            return None
        role = next((role for role, kinds in _ROLES if isinstance(layer, kinds)), "activation")
        return Node(traced.name, *_label(layer), role=role)
    name = str(getattr(traced.target, "__name__", traced.target))
    return Node(traced.name, name, role="combine") if joins else None


def _label(layer: nn.Module) -> tuple[str, str]:
    """A layer's kind and size."""
    own: Any = layer
    name = type(layer).__name__
    if isinstance(layer, nn.modules.conv._ConvNd):
        size = "×".join(str(n) for n in own.kernel_size)
        groups = f", {own.groups} groups" if own.groups > 1 else ""
        return (
            f"{size} {'conv' if 'Transpose' not in name else 'transposed conv'}",
            f"{own.out_channels} filters{groups}",
        )
    if isinstance(layer, nn.Linear):
        return "dense", f"{own.out_features} units"
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return name, f"{own.hidden_size} units"
    return name, ""
