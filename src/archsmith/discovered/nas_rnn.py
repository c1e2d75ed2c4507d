"""NASCell as a module (Zoph and Le 2017, figure 8, top right), as TensorFlow shipped it in contrib and in Addons.

The equations are written out here. Through the general builder, the same cell is `nas_cell().genotype` in
`archsmith.spaces.RecurrentCell`; the two have the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from archsmith.discovered.nas_recurrent import nas_cell
from archsmith.nn.recurrent import GraphCell, GraphRNN
from archsmith.spaces.recurrent_cell import graph_of


class NASCell(GraphCell):
    """One step of NASCell, with the interface of `torch.nn.LSTMCell`.

    TensorFlow's kernels, (inputs, 8 n), are the transposed `weight_ih`, `weight_hh` and `weight_hr`; its state is (c, h).

    Args:
        input_size, hidden_size: numbers in x_t, and in h_t and c_t.
        bias: whether there is a bias (one, on the recurrent product).
        proj_size: h_t is projected to so many numbers; 0 is no projection.
        device, dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = False,
        *,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        graph = graph_of(nas_cell().architecture)
        super().__init__(graph, input_size, hidden_size, bias, proj_size=proj_size, device=device, dtype=dtype)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """h_t and c_t, from x_t, h_{t-1} and c_{t-1}, all with the batch dimension."""
        x0, x1, x2, x3, x4, x5, x6, x7 = F.linear(x, self.weight_ih).chunk(8, -1)
        h0, h1, h2, h3, h4, h5, h6, h7 = F.linear(h, self.weight_hh, self.bias).chunk(8, -1)
        # The first layer: what the leaves of the tree give.
        l0, l1, l2, l3 = torch.sigmoid(x0 + h0), torch.relu(x1 + h1), torch.sigmoid(x2 + h2), torch.relu(x3 * h3)
        l4, l5, l6, l7 = torch.tanh(x4 + h4), torch.sigmoid(x5 + h5), torch.tanh(x6 + h6), torch.sigmoid(x7 + h7)
        # The second layer; c_{t-1} comes in at its first node.
        q0, q1, q2, q3 = torch.tanh(l0 * l1), torch.tanh(l2 + l3), torch.tanh(l4 * l5), torch.sigmoid(l6 + l7)
        q0 = torch.tanh(q0 + c)
        new_c = q0 * q1
        new_h = torch.tanh(new_c * torch.tanh(q2 + q3))
        return (new_h if self.weight_hr is None else F.linear(new_h, self.weight_hr)), new_c


class NASRNN(GraphRNN):
    """NASCell over sequences, in layers, with the interface of `torch.nn.LSTM`; by the kernels that any cell has.

    Layer l's weights are those of a `NASCell`, with `_l{l}` behind their names (`_l{l}_reverse` for one that reads
    backwards).

    Args:
        input_size, hidden_size: numbers in x_t, and in h_t and c_t.
        num_layers: layers, each reading the one below.
        bias: whether there is a bias (one, on the recurrent product).
        batch_first: whether sequences are [batch, steps, ...] and not [steps, batch, ...].
        dropout: of what a layer gives to the next.
        bidirectional: whether each layer also reads backwards; outputs are concatenated.
        proj_size: h_t is projected to so many numbers; 0 is no projection.
        recurrent_dropout: of h_{t-1} in the recurrent product, one mask for all steps (Gal and Ghahramani 2016).
        variational: whether `dropout` uses one mask for all steps too.
        device, dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            graph_of(nas_cell().architecture),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            recurrent_dropout=recurrent_dropout,
            variational=variational,
            device=device,
            dtype=dtype,
        )
