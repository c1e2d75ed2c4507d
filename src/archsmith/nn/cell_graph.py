"""Recurrent cells as graphs of elementwise operations, as plain data: what the kernels run and the drawings show.

A cell has leaves, which own the weights, and nodes, which own none. Leaf k combines the k-th blocks of the two
matrix products, W_x x_t and W_h h_{t-1}; a node combines two values that stand before it, or one of them and c_{t-1}:

    p = combination(left, right)        a = activation(p)

h_t is one value's a; c_t is one value's p, before its activation. Every tree of Zoph and Le (2017, section 3.4) is such
a graph, and so is the LSTM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.core.errors import UsageError

COMBINATIONS = ("add", "elem_mult", "max")
ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu", "sin")
C_PREV = -1
"""The number of c_{t-1} as an operand."""
MAX_VALUES = 512
"""The most leaves and nodes of a graph: far more than any cell has, so that a stranger's file asks for no memory."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value made of two products with weights: activation(combination(W_x x_t, W_h h_{t-1}))."""

    combination: str
    activation: str


@dataclass(frozen=True, slots=True)
class Node:
    """A value made of two values: activation(combination(left, right)).

    Args:
        combination, activation: of `COMBINATIONS` and `ACTIVATIONS`.
        left, right: numbers of values before this one, or `C_PREV`.
    """

    combination: str
    activation: str
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class CellGraph:
    """A cell. Values are numbered: leaves from 0, then nodes in order. Hashable: a kernel is cached by it.

    Args:
        leaves: in the order of the blocks of the weights.
        nodes: each after what it reads.
        h: the value that is h_t.
        c: the value whose p, before its activation, is c_t.

    Raises UsageError when it is none.
    """

    leaves: tuple[Leaf, ...]
    nodes: tuple[Node, ...]
    h: int
    c: int

    def __post_init__(self) -> None:
        count = len(self.leaves) + len(self.nodes)
        if not self.leaves or count > MAX_VALUES:
            raise UsageError(
                f"a cell has 1 to {MAX_VALUES} leaves and nodes, got {len(self.leaves)} and {count} in all"
            )
        values: tuple[Leaf | Node, ...] = (*self.leaves, *self.nodes)
        for i, value in enumerate(values):
            if value.combination not in COMBINATIONS:
                raise UsageError(f"a combination must be of {', '.join(COMBINATIONS)}, got {value.combination!r}")
            if value.activation not in ACTIVATIONS:
                raise UsageError(f"an activation must be of {', '.join(ACTIVATIONS)}, got {value.activation!r}")
            if isinstance(value, Node) and not all(C_PREV <= operand < i for operand in (value.left, value.right)):
                raise UsageError(f"node {i} of a cell reads values before it, got {value.left} and {value.right}")
        for name in ("h", "c"):
            if not 0 <= getattr(self, name) < count:
                raise UsageError(f"{name} of a cell must be a value from 0 to {count - 1}, got {getattr(self, name)}")


def tree(nodes: Sequence[tuple[str, str]], inject: tuple[str, str], c_out: int, c_in: int) -> CellGraph:
    """The graph of a complete binary tree (Zoph and Le 2017, section 3.4 and figure 5).

    Args:
        nodes: combination and activation of the 2N - 1 nodes; N is a power of two. Nodes 0 to N - 1 are the leaves,
            node N joins 0 and 1, node N + 1 joins 2 and 3, and so on; the last is the root, h_t.
        inject: combination and activation by which c_{t-1} comes in, after the activation of node `c_in`; what reads
            that node reads the result.
        c_out: the node whose value before its activation is c_t.
        c_in: the node at which c_{t-1} comes in.

    Raises UsageError when the numbers fit no tree.
    """
    count = len(nodes)
    base = (count + 1) // 2
    if count % 2 == 0 or base < 2 or base & (base - 1):
        raise UsageError(f"a tree has 2N - 1 nodes for a power of two N from 2, got {count}")
    for name, index in (("c_out", c_out), ("c_in", c_in)):
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise UsageError(f"{name} must be a node of the tree, from 0 to {count - 1}, got {index!r}")
    leaves = tuple(Leaf(*node) for node in nodes[:base])
    inner: list[Node] = []
    value = list(range(base))  # by the tree's node: the number of its p
    current = list(range(base))  # by the tree's node: the number of what its parent reads
    for k, (combination, activation) in enumerate(nodes):
        if k >= base:
            left, right = current[2 * (k - base)], current[2 * (k - base) + 1]
            value.append(base + len(inner))
            current.append(value[k])
            inner.append(Node(combination, activation, left, right))
        if k == c_in:
            current[k] = base + len(inner)
            inner.append(Node(*inject, value[k], C_PREV))
    return CellGraph(leaves, tuple(inner), h=current[-1], c=value[c_out])


def lstm() -> CellGraph:
    """The LSTM without peepholes (Hochreiter and Schmidhuber 1997; Gers et al. 2000), with blocks in the order of
    `torch.nn.LSTM`: input, forget, new cell, output."""
    gates = (Leaf("add", "sigmoid"), Leaf("add", "sigmoid"), Leaf("add", "tanh"), Leaf("add", "sigmoid"))
    kept, written = Node("elem_mult", "identity", 1, C_PREV), Node("elem_mult", "identity", 0, 2)
    return CellGraph(gates, (kept, written, Node("add", "tanh", 4, 5), Node("elem_mult", "identity", 3, 6)), h=7, c=6)


def from_architecture(architecture: Mapping[str, Any]) -> CellGraph:
    """The graph of an architecture of `archsmith.spaces.RecurrentCell`. Raises UsageError when it is none.

    {"kind": "recurrent_cell", "nodes": [{"combination": "add", "activation": "tanh"}, ...],
     "inject": {"combination": "add", "activation": "relu"}, "c_out": 1, "c_in": 0}
    """
    if not isinstance(architecture, Mapping) or architecture.get("kind") != "recurrent_cell":
        kind = architecture.get("kind") if isinstance(architecture, Mapping) else type(architecture).__name__
        raise UsageError(f'a recurrent cell has the kind "recurrent_cell", got {str(kind)[:80]!r}')
    try:
        nodes = [
            (str(node["combination"]), str(node["activation"])) for node in architecture["nodes"][: MAX_VALUES + 1]
        ]
        inject = (str(architecture["inject"]["combination"]), str(architecture["inject"]["activation"]))
        c_out, c_in = architecture["c_out"], architecture["c_in"]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "a recurrent cell has nodes and inject, each with combination and activation, and c_out and c_in; "
            f"this one lacks {error}"
        ) from None
    return tree(nodes, inject, c_out, c_in)
