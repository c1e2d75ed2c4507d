"""A recurrent cell as the text of plain PyTorch: a function of one step, a line for each value of the cell's graph,
and two classes on top of it, with the interfaces of `torch.nn.LSTMCell` and `torch.nn.LSTM`.

Parameters are called and laid out as `archsmith.nn.recurrent` has them, so that a `state_dict` fits both.
"""

from __future__ import annotations

import keyword

from archsmith.core.errors import UsageError
from archsmith.nn.cell_graph import C_PREV, CellGraph, Leaf, Node

IMPORTS = """\
import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
"""

_STEP = '''\
def step(from_input: Tensor, from_state: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h_t and c_t, [batch, n] each, from W_x x_t and W_h h_{{t-1}}, [batch, {blocks} n] each, and c_{{t-1}}, [batch, n]."""
    x, h = from_input.chunk({blocks}, -1), from_state.chunk({blocks}, -1)
{lines}
    return {h}, c_new
'''

_CLASSES = '''\
class {name}Cell(nn.Module):
    """One step, with the interface of torch.nn.LSTMCell.

    Args:
        input_size, hidden_size: numbers in x_t, and in h_t and c_t.
        bias: whether there is a bias (one, on the recurrent product).
        proj_size: h_t is projected to so many numbers; 0 is no projection.
        device, dtype: of the weights.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = False, *, proj_size: int = 0, device=None, dtype=None
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.proj_size = input_size, hidden_size, proj_size
        rows, new = {blocks} * hidden_size, partial(torch.empty, device=device, dtype=dtype)
        self.weight_ih = nn.Parameter(new(rows, input_size))
        self.weight_hh = nn.Parameter(new(rows, proj_size or hidden_size))
        self.bias = nn.Parameter(new(rows)) if bias else None
        self.weight_hr = nn.Parameter(new(proj_size, hidden_size)) if proj_size else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights; the bias is zero."""
        reset(self)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """h_t and c_t from x_t [batch, input_size] and (h_{{t-1}}, c_{{t-1}}), zeros if not given; also without a batch."""
        shape = input.shape[:-1]
        if hx is None:
            hx = input.new_zeros(*shape, self.proj_size or self.hidden_size), input.new_zeros(*shape, self.hidden_size)
        h, c = step(F.linear(input, self.weight_ih), F.linear(hx[0], self.weight_hh, self.bias), hx[1])
        return (h if self.weight_hr is None else F.linear(h, self.weight_hr)), c


class {name}RNN(nn.Module):
    """The cell over sequences, in layers, with the interface of torch.nn.LSTM.

    Args:
        input_size, hidden_size: numbers in x_t, and in h_t and c_t.
        num_layers: layers, each reading the one below.
        bias: whether there is a bias (one in each layer and direction, on the recurrent product).
        batch_first: whether sequences are [batch, steps, ...] and not [steps, batch, ...].
        dropout: of what a layer gives to the next.
        bidirectional: whether each layer also reads backwards; outputs are concatenated.
        proj_size: h_t is projected to so many numbers; 0 is no projection.
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
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self.suffixes = [
            [f"_l{{layer}}", f"_l{{layer}}_reverse"] if bidirectional else [f"_l{{layer}}"] for layer in range(num_layers)
        ]
        rows, outputs, inputs = {blocks} * hidden_size, proj_size or hidden_size, input_size
        new = partial(torch.empty, device=device, dtype=dtype)
        for suffixes in self.suffixes:
            for suffix in suffixes:
                self.register_parameter(f"weight_ih{{suffix}}", nn.Parameter(new(rows, inputs)))
                self.register_parameter(f"weight_hh{{suffix}}", nn.Parameter(new(rows, outputs)))
                if bias:
                    self.register_parameter(f"bias{{suffix}}", nn.Parameter(new(rows)))
                if proj_size:
                    self.register_parameter(f"weight_hr{{suffix}}", nn.Parameter(new(proj_size, hidden_size)))
            inputs = outputs * len(suffixes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights; biases are zero."""
        reset(self)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """The last layer's outputs at every step, and (h_T, c_T) of every layer.

        Args:
            input: [steps, batch, input_size] ([batch, steps, input_size] with batch_first), without the batch
                dimension, or packed.
            hx: (h_0, c_0), [num_layers * directions, batch, n] each; zeros if not given.
        """
        if isinstance(input, PackedSequence):
            padded, lengths = pad_packed_sequence(input)
            outputs, state = self.layers(padded, hx, lengths)
            packed = pack_padded_sequence(outputs, lengths, enforce_sorted=False)
            return PackedSequence(packed.data, *input[1:]), state
        x, swap = input, input.dim() == 3 and self.batch_first
        if input.dim() == 2:  # without the batch
            x = input[:, None]
            hx = None if hx is None else (hx[0][:, None], hx[1][:, None])
        outputs, state = self.layers(x.transpose(0, 1) if swap else x, hx)
        if input.dim() == 2:
            return outputs[:, 0], (state[0][:, 0], state[1][:, 0])
        return (outputs.transpose(0, 1) if swap else outputs), state

    def layers(
        self, x: Tensor, hx: tuple[Tensor, Tensor] | None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The same for [steps, batch, input_size]; steps beyond a sequence's length count for nothing."""
        count, batch = sum(map(len, self.suffixes)), x.shape[1]
        expected = [(count, batch, self.proj_size or self.hidden_size), (count, batch, self.hidden_size)]
        h_0, c_0 = hx if hx is not None else [x.new_zeros(shape) for shape in expected]
        if [tuple(h_0.shape), tuple(c_0.shape)] != expected:
            raise ValueError(f"h_0 and c_0 must be of shapes {{expected}}, got {{[tuple(h_0.shape), tuple(c_0.shape)]}}")
        last_h: list[Tensor] = []
        last_c: list[Tensor] = []
        for layer, suffixes in enumerate(self.suffixes):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            directions = []
            for suffix in suffixes:
                k, backwards = len(last_h), suffix.endswith("_reverse")
                hs, cs = self.one_layer(reversed_in_time(x, lengths) if backwards else x, h_0[k], c_0[k], suffix)
                last_h.append(at_the_end(hs, lengths))
                last_c.append(at_the_end(cs, lengths))
                directions.append(reversed_in_time(hs, lengths) if backwards else hs)
            x = directions[0] if len(directions) == 1 else torch.cat(directions, -1)
        return x, (torch.stack(last_h), torch.stack(last_c))

    def one_layer(self, x: Tensor, h: Tensor, c: Tensor, suffix: str) -> tuple[Tensor, Tensor]:
        """h_1..h_T and c_1..c_T of one layer in one direction."""
        weight_hh, bias = getattr(self, f"weight_hh{{suffix}}"), getattr(self, f"bias{{suffix}}", None)
        weight_hr = getattr(self, f"weight_hr{{suffix}}", None)
        hs, cs = [], []
        for from_input in F.linear(x, getattr(self, f"weight_ih{{suffix}}")).unbind(0):  # one product for all steps
            h, c = step(from_input, F.linear(h, weight_hh, bias), c)
            if weight_hr is not None:
                h = F.linear(h, weight_hr)
            hs.append(h)
            cs.append(c)
        return torch.stack(hs), torch.stack(cs)


def reset(module: {name}Cell | {name}RNN) -> None:
    """Weights uniform in ±1/sqrt(n), as torch.nn.LSTM has them; biases zero."""
    bound = 1 / math.sqrt(module.hidden_size)
    for name, parameter in module.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.uniform_(parameter, -bound, bound)


def reversed_in_time(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence from its own end to its beginning; what stands behind it stays there."""
    if lengths is None:
        return values.flip(0)
    steps, ends = torch.arange(len(values), device=values.device)[:, None], lengths.to(values.device)[None]
    index = torch.where(steps < ends, ends - 1 - steps, steps)
    return values.gather(0, index[..., None].expand_as(values))


def at_the_end(values: Tensor, lengths: Tensor | None) -> Tensor:
    """The values at each sequence's last step."""
    if lengths is None:
        return values[-1]
    return values[lengths.to(values.device) - 1, torch.arange(values.shape[1], device=values.device)]
'''

_FILE = '''\
"""{title}

{about}

    rnn = {name}RNN(input_size=200, hidden_size=200, num_layers=2)  # in place of torch.nn.LSTM
    outputs, (h, c) = rnn(inputs)  # [steps, batch, 200]

    cell = {name}Cell(input_size=200, hidden_size=200)  # in place of torch.nn.LSTMCell
    h, c = cell(x, (h, c))  # [batch, 200]

Needs torch alone.
"""

{imports}

{code}'''


def cell_source(graph: CellGraph, name: str = "Found") -> str:
    """The classes `<name>Cell` and `<name>RNN` of a cell, with the function `step`; `IMPORTS` must stand before them.

    Raises UsageError when the name is no beginning of a class name.
    """
    if not f"{name}Cell".isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"the classes of a cell are called <name>Cell and <name>RNN, and {name!r} is no such name")
    return f"{step_source(graph)}\n\n{_CLASSES.format(name=name, blocks=len(graph.leaves))}"


def cell_file(graph: CellGraph, name: str, title: str, about: str) -> str:
    """A whole file of them. `title` and `about` are plain text for its docstring."""
    code = cell_source(graph, name)
    return _FILE.format(title=title, about=about, name=name, imports=IMPORTS, code=code)


def step_source(graph: CellGraph) -> str:
    """The function `step` of a cell.

    Values are called a0, a1, ... in the order of the graph. What has c_{t-1} come into a value that nothing else reads
    keeps that value's name, so that the nodes of a tree have the paper's numbers (Zoph and Le 2017, figure 5).
    """
    blocks, needed = len(graph.leaves), _needed(graph)
    label: list[str] = []  # by value: the variable of its a
    held = {C_PREV: "c"}  # by value: the variable that holds its a, which is c_new where a is p
    lines: list[str] = []
    values: tuple[Leaf | Node, ...] = (*graph.leaves, *graph.nodes)
    for k, value in enumerate(values):
        into = None if isinstance(value, Leaf) else _injected_into(graph, value)
        label.append(f"a{len(set(label))}" if into is None else label[into])
        if k not in needed:
            continue
        note = "" if into is None else "  # c_{t-1} comes in"
        left, right = (f"x[{k}]", f"h[{k}]") if isinstance(value, Leaf) else (held[value.left], held[value.right])
        before = _COMBINE[value.combination].format(left=left, right=right)
        held[k] = label[k]
        if k == graph.c:
            lines.append(f"c_new = {before}{note}")
            before, note = "c_new", ""
            if value.activation == "identity":
                held[k] = "c_new"
                continue
        lines.append(f"{label[k]} = {_ACTIVATE[value.activation].format(before)}{note}")
    body = "\n".join(f"    {line}" for line in lines)
    return _STEP.format(blocks=blocks, lines=body, h=held[graph.h])


_COMBINE = {"add": "{left} + {right}", "elem_mult": "{left} * {right}", "max": "torch.maximum({left}, {right})"}
_ACTIVATE = {
    "identity": "{}",
    "tanh": "torch.tanh({})",
    "sigmoid": "torch.sigmoid({})",
    "relu": "torch.relu({})",
    "sin": "torch.sin({})",
}


def _needed(graph: CellGraph) -> set[int]:
    """The values that h_t or c_t is made of."""
    blocks, needed = len(graph.leaves), {graph.h, graph.c}
    for k in range(blocks + len(graph.nodes) - 1, blocks - 1, -1):
        if k in needed:
            needed |= {graph.nodes[k - blocks].left, graph.nodes[k - blocks].right}
    return needed


def _injected_into(graph: CellGraph, node: Node) -> int | None:
    """The value that a node has c_{t-1} come into, where nothing but the node reads that value."""
    into = max(node.left, node.right)
    readers = sum((other.left == into) + (other.right == into) for other in graph.nodes)
    if min(node.left, node.right) != C_PREV or into == C_PREV or readers != 1 or into == graph.h:
        return None
    return into
