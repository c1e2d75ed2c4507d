"""The cell space of NAS-Bench-201 (Dong and Yang 2020): 5 operations on each of 6 edges, 15,625 cells.

All of them have been trained, so that a search can look results up (`archsmith.training.Tabular`) and searchers be
compared over many seeds; and each can be built and trained again.

    {"kind": "nasbench201", "edges": {"0->1": "nor_conv_3x3", "0->2": "skip_connect", ...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.walk import Choose

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3")
_LABELS = {
    "skip_connect": ("identity", "combine"),
    "nor_conv_1x1": ("1×1 conv", "conv"),
    "nor_conv_3x3": ("3×3 conv", "conv"),
    "avg_pool_3x3": ("3×3 average pool", "pool"),
}


@dataclass(frozen=True)
class NASBench201:
    """The space. The defaults are the networks of the benchmark.

    Args:
        channels: of the first stack of cells; each of the two reductions doubles them.
        repeats: how many cells a stack has.
    """

    channels: int = 16
    repeats: int = 5

    version: ClassVar[int] = 1
    kind: ClassVar[str] = "nasbench201"

    def __post_init__(self) -> None:
        plain_fields(self)
        for name in ("channels", "repeats"):
            whole_number(getattr(self, name), f"{name} of NASBench201", 1, 4096)

    def architecture(self, choose: Choose) -> Architecture:
        """An operation for each edge, in the benchmark's order."""
        return {"kind": self.kind, "edges": {edge: choose(edge, OPERATIONS, kind="operation") for edge in EDGES}}

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The network for images of any size. Raises UsageError when the architecture is none of this space."""
        operations = _operations(architecture)
        if not isinstance(task, Task):
            raise UsageError(f"NASBench201 builds networks for images, and the task is a {type(task).__name__}")
        from archsmith.nn.nasbench201 import NASBench201Network

        return Child(
            NASBench201Network(
                operations, task.input_shape[0], task.num_classes, channels=self.channels, repeats=self.repeats
            )
        )

    def diagram(self, architecture: Architecture) -> Diagram:
        """The cell: its nodes as sums, and the operations between them."""
        operations = _operations(architecture)
        nodes = [Node("0", "input", role="input")]
        edges = []
        for target in "123":
            into = [(e[0], op) for e, op in zip(EDGES, operations, strict=True) if e[-1] == target and op != "none"]
            for source, op in into:
                label, role = _LABELS[op]
                nodes.append(Node(f"{source}->{target}", label, role=role))
                edges.append(Edge(source, f"{source}->{target}"))
                edges.append(Edge(f"{source}->{target}", target))
            label, role = ("output", "output") if target == "3" else (f"node {target}", "combine")
            nodes.append(Node(target, label, "" if into else "nothing comes in", role))
        return Diagram("A cell of NAS-Bench-201", tuple(nodes), tuple(edges), "graph")


def _operations(architecture: Any) -> list[str]:
    """The operations in order. Raises UsageError when that is no architecture of this space."""
    edges = architecture.get("edges") if isinstance(architecture, Mapping) else None
    if not isinstance(edges, Mapping) or set(edges) != set(EDGES):
        raise UsageError(f'a cell of NAS-Bench-201 has "edges" with an operation for each of {", ".join(EDGES)}')
    for edge in EDGES:
        if edges[edge] not in OPERATIONS:
            raise UsageError(f"edge {edge} must be one of {', '.join(OPERATIONS)}, got {str(edges[edge])[:80]!r}")
    return [edges[edge] for edge in EDGES]
