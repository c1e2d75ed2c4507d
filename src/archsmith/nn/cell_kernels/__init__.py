"""Runs one layer of any recurrent cell over a sequence, forward and backward, by the fastest way at hand."""

from __future__ import annotations

from torch import Tensor

from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.cell_kernels.reference import run_layer_plainly

__all__ = ["run_layer"]


def run_layer(
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
    """One layer over a sequence: h_1..h_T and c_1..c_T.

    Args:
        graph: the cell, of L leaves.
        x: [T, B, inputs].
        weight_ih: [L n, inputs], a block of n rows for each leaf.
        weight_hh: [L n, m], likewise.
        h0, c0: [B, m] and [B, n].
        bias: [L n], added to the recurrent product.
        weight_hr: [m, n], which projects each h_t from n to m numbers; None: m is n.
        h_mask: [B, m], multiplied into h_{t-1} before the recurrent product at every step (Gal and Ghahramani 2016).

    Returns [T, B, m] and [T, B, n].
    """
    return run_layer_plainly(graph, x, weight_ih, weight_hh, h0, c0, bias=bias, weight_hr=weight_hr, h_mask=h_mask)
