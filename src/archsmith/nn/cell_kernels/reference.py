"""Any cell as a plain loop of PyTorch operations: what the kernels are checked against, and what runs without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from archsmith.nn.cell_graph import CellGraph

_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "elem_mult": torch.mul,
    "max": torch.maximum,
}
_ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda p: p,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "sin": torch.sin,
}


def step(graph: CellGraph, x_blocks: Sequence[Tensor], h_blocks: Sequence[Tensor], c: Tensor) -> tuple[Tensor, Tensor]:
    """h_t and c_t, [B, n] each, from the blocks of both products and c_{t-1}."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    operands = [(leaf, x, h) for leaf, x, h in zip(graph.leaves, x_blocks, h_blocks, strict=True)]
    for value, left, right in operands:
        before.append(_COMBINE[value.combination](left, right))
        after.append(_ACTIVATE[value.activation](before[-1]))
    for node in graph.nodes:
        left, right = (c if k < 0 else after[k] for k in (node.left, node.right))
        before.append(_COMBINE[node.combination](left, right))
        after.append(_ACTIVATE[node.activation](before[-1]))
    return after[graph.h], before[graph.c]


def run_layer_plainly(
    graph: CellGraph,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    *,
    bias: Tensor | None = None,
    weight_hr: Tensor | None = None,
    h_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `archsmith.nn.cell_kernels.run_layer`, with the product of the inputs hoisted out of the loop."""
    blocks = len(graph.leaves)
    from_inputs = x @ weight_ih.t()
    h, c, outputs, cells = h0, c0, [], []
    for t in range(len(x)):
        recurrent = torch.nn.functional.linear(h if h_mask is None else h * h_mask, weight_hh, bias)
        h, c = step(graph, from_inputs[t].chunk(blocks, -1), recurrent.chunk(blocks, -1), c)
        if weight_hr is not None:
            h = h @ weight_hr.t()
        outputs.append(h)
        cells.append(c)
    return torch.stack(outputs), torch.stack(cells)
