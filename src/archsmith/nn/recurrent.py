"""Recurrent cells as modules with the interfaces of `torch.nn.LSTMCell` and `torch.nn.LSTM`.

Any cell graph becomes one: the trees that a search found, NASCell (`archsmith.discovered`), and the LSTM itself, which
is so trained by the same code as they are. Weights keep torch's names and layout, [blocks n, inputs], except that there
is one bias, which is added to the recurrent product (as TensorFlow's NASCell has it).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from archsmith.core.errors import UsageError
from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.cell_kernels import run_layer


class GraphCell(nn.Module):
    """One step of a cell, with the interface of `torch.nn.LSTMCell`.

    Args:
        graph: the cell.
        input_size, hidden_size: numbers in x_t, and in h_t and c_t.
        bias: whether there is a bias (one, on the recurrent product).
        proj_size: h_t is projected to so many numbers; 0 is no projection.
        device, dtype: of the weights.
    """

    def __init__(
        self,
        graph: CellGraph,
        input_size: int,
        hidden_size: int,
        bias: bool = False,
        *,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.graph, self.input_size, self.hidden_size, self.proj_size = graph, input_size, hidden_size, proj_size
        _check_sizes(input_size, hidden_size, proj_size)
        rows, outputs = len(graph.leaves) * hidden_size, proj_size or hidden_size
        new = partial(torch.empty, device=device, dtype=dtype)
        self.weight_ih = nn.Parameter(new(rows, input_size))
        self.weight_hh = nn.Parameter(new(rows, outputs))
        self.bias = nn.Parameter(new(rows)) if bias else None
        self.weight_hr = nn.Parameter(new(proj_size, hidden_size)) if proj_size else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights uniform in ±1/√n, as torch has them; the bias zero, as TensorFlow has it."""
        _reset(self)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """h_t and c_t, from x_t [batch, input_size] and (h_{t-1}, c_{t-1}), which are zeros if not given. Without the
        batch dimension: likewise without it."""
        if input.dim() not in (1, 2):
            raise UsageError(f"the input of a cell must have 1 or 2 dimensions, got {tuple(input.shape)}")
        batched = input.dim() == 2
        x = input if batched else input[None]
        _check_input(x, self.input_size, self.weight_ih)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        h, c = _state(x, hx, [(len(x), n) if batched else (n,) for n in sizes])
        h, c = self.step(x, h, c) if batched else self.step(x, h[None], c[None])
        return (h, c) if batched else (h[0], c[0])

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """h_t and c_t, from x_t, h_{t-1} and c_{t-1}, all with the batch dimension."""
        hs, cs = run_layer(
            self.graph, x[None], self.weight_ih, self.weight_hh, h, c, bias=self.bias, weight_hr=self.weight_hr
        )
        return hs[0], cs[0]

    def extra_repr(self) -> str:
        return _repr(self.input_size, self.hidden_size, self.bias is not None, self.proj_size)


class GraphRNN(nn.Module):
    """A cell over sequences, in layers, with the interface of `torch.nn.LSTM`.

    Args:
        graph: the cell.
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
        graph: CellGraph,
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
        super().__init__()
        _check_sizes(input_size, hidden_size, proj_size)
        if isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 1:
            raise UsageError(f"num_layers must be a whole number of at least 1, got {num_layers!r}")
        for name, value in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise UsageError(f"{name} must be at least 0 and below 1, got {value!r}")
        if dropout and num_layers == 1:  # as torch.nn.LSTM says it
            warnings.warn(
                f"dropout={dropout} is between layers, and there is one; give num_layers of 2 or more", stacklevel=2
            )
        self.graph, self.input_size, self.hidden_size, self.num_layers = graph, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        self.proj_size, self.recurrent_dropout, self.variational = proj_size, recurrent_dropout, variational
        rows, outputs = len(graph.leaves) * hidden_size, proj_size or hidden_size
        inputs, new = input_size, partial(torch.empty, device=device, dtype=dtype)
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                self.register_parameter(f"weight_ih{suffix}", nn.Parameter(new(rows, inputs)))
                self.register_parameter(f"weight_hh{suffix}", nn.Parameter(new(rows, outputs)))
                if bias:
                    self.register_parameter(f"bias{suffix}", nn.Parameter(new(rows)))
                if proj_size:
                    self.register_parameter(f"weight_hr{suffix}", nn.Parameter(new(proj_size, hidden_size)))
            inputs = outputs * (2 if bidirectional else 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights uniform in ±1/√n, as torch has them; biases zero, as TensorFlow has them."""
        _reset(self)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """The outputs of the last layer at every step, and (h_T, c_T) of every layer.

        Args:
            input: [steps, batch, input_size] ([batch, steps, input_size] with `batch_first`), without the batch
                dimension, or packed.
            hx: (h_0, c_0), [layers * directions, batch, n] each; zeros if not given.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.dim() not in (2, 3):
            raise UsageError(f"the input must have 2 or 3 dimensions, got {tuple(input.shape)}")
        batched = input.dim() == 3
        x = input if batched else input[:, None]
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        state = self._state(x, hx, batched)
        outputs, (h, c) = self._layers(x, state, None)
        if not batched:
            return outputs[:, 0], (h[:, 0], c[:, 0])
        return (outputs.transpose(0, 1) if self.batch_first else outputs), (h, c)

    def _packed(
        self, packed: PackedSequence, hx: tuple[Tensor, Tensor] | None
    ) -> tuple[PackedSequence, tuple[Tensor, Tensor]]:
        """As forward. Inside, sequences stand in the packed order, by descending length; a state, in the caller's."""
        x, lengths = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes))
        h, c = self._state(x, hx, batched=True)
        if packed.sorted_indices is not None:
            h, c = h.index_select(1, packed.sorted_indices), c.index_select(1, packed.sorted_indices)
        outputs, (h, c) = self._layers(x, (h, c), lengths)
        if packed.unsorted_indices is not None:
            h, c = h.index_select(1, packed.unsorted_indices), c.index_select(1, packed.unsorted_indices)
        data = pack_padded_sequence(outputs, lengths).data
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), (h, c)

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The weights of each layer and direction, as `torch.nn.LSTM` lists them."""
        return [
            [p for name, p in self.named_parameters() if name.endswith(suffix)]
            for layer in range(self.num_layers)
            for suffix in self._suffixes(layer)
        ]

    def flatten_parameters(self) -> None:
        """Nothing: cuDNN wants the LSTM's weights in one piece, and code written for `torch.nn.LSTM` asks for that."""

    # --- the layers ---------------------------------------------------------------------------------------------------

    def _layers(
        self, x: Tensor, state: tuple[Tensor, Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As forward, with [steps, batch, ...] alone. With lengths, steps beyond a sequence's own change nothing."""
        last_h: list[Tensor] = []
        last_c: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout:
                shape = (1, *x.shape[1:]) if self.variational else x.shape
                x = x * _mask(x, shape, self.dropout)
            directions = []
            for suffix in self._suffixes(layer):
                k = len(last_h)
                backward = suffix.endswith("_reverse")
                read = _reversed(x, lengths) if backward else x
                mask = None
                if self.training and self.recurrent_dropout:
                    mask = _mask(x, (x.shape[1], self.proj_size or self.hidden_size), self.recurrent_dropout)
                run = partial(
                    _run,
                    self.graph,
                    getattr(self, f"weight_ih{suffix}"),
                    getattr(self, f"weight_hh{suffix}"),
                    getattr(self, f"bias{suffix}", None),
                    getattr(self, f"weight_hr{suffix}", None),
                )
                h, c = state[0][k], state[1][k]
                hs, cs = run(mask, read, h, c)
                if lengths is not None and not (_is_tame(hs) and _is_tame(cs)):
                    hs, cs = _within_lengths(run, mask, read, h, c, lengths)
                last_h.append(_last(hs, lengths))
                last_c.append(_last(cs, lengths))
                directions.append(_reversed(hs, lengths) if backward else hs)
            x = directions[0] if len(directions) == 1 else torch.cat(directions, -1)
        return x, (torch.stack(last_h), torch.stack(last_c))

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"_l{layer}", f"_l{layer}_reverse") if self.bidirectional else (f"_l{layer}",)

    def _state(self, x: Tensor, hx: tuple[Tensor, Tensor] | None, batched: bool) -> tuple[Tensor, Tensor]:
        """The initial state with the batch dimension; input [steps, batch, ...] and state are checked."""
        _check_input(x, self.input_size, self.get_parameter("weight_ih_l0"))
        if not len(x):
            raise UsageError("a sequence must have at least one step, got none")
        count = self.num_layers * (2 if self.bidirectional else 1)
        batch = (x.shape[1],) if batched else ()
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        h, c = _state(x, hx, [(count, *batch, n) for n in sizes])
        return (h, c) if batched else (h[:, None], c[:, None])

    def extra_repr(self) -> str:
        given = [f"num_layers={self.num_layers}"] if self.num_layers > 1 else []
        given += [f"{name}=True" for name in ("batch_first", "bidirectional") if getattr(self, name)]
        given += [f"{name}={getattr(self, name)}" for name in ("dropout", "recurrent_dropout") if getattr(self, name)]
        return ", ".join([_repr(self.input_size, self.hidden_size, self.bias, self.proj_size), *given])


def _check_sizes(input_size: int, hidden_size: int, proj_size: int) -> None:
    for name, value, least in (
        ("input_size", input_size, 1),
        ("hidden_size", hidden_size, 1),
        ("proj_size", proj_size, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _check_input(x: Tensor, input_size: int, weight: Tensor) -> None:
    if x.shape[-1] != input_size:
        raise UsageError(f"the input must have {input_size} numbers a step (input_size), got {x.shape[-1]}")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise UsageError(f"the input must be of the type of the weights, {weight.dtype}, got {x.dtype}")


def _state(x: Tensor, hx: tuple[Tensor, Tensor] | None, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """(h, c) as given, checked, or zeros of these shapes."""
    if hx is None:
        return x.new_zeros(shapes[0]), x.new_zeros(shapes[1])
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        raise UsageError(f"the state must be the pair (h, c), got {type(hx).__name__}")
    for name, given, shape in zip(("h", "c"), hx, shapes, strict=True):
        if tuple(given.shape) != shape:
            raise UsageError(f"{name} of the state must be of shape {shape}, got {tuple(given.shape)}")
        if given.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise UsageError(f"{name} of the state must be of the type of the input, {x.dtype}, got {given.dtype}")
    return hx[0], hx[1]


def _reset(module: GraphCell | GraphRNN) -> None:
    bound = 1 / math.sqrt(module.hidden_size)
    for name, parameter in module.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.uniform_(parameter, -bound, bound)


def _mask(like: Tensor, shape: tuple[int, ...] | torch.Size, dropout: float) -> Tensor:
    return torch.empty(shape, device=like.device, dtype=like.dtype).bernoulli_(1 - dropout).div_(1 - dropout)


def _run(
    graph: CellGraph,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    weight_hr: Tensor | None,
    h_mask: Tensor | None,
    x: Tensor,
    h: Tensor,
    c: Tensor,
) -> tuple[Tensor, Tensor]:
    return run_layer(graph, x, weight_ih, weight_hh, h, c, bias=bias, weight_hr=weight_hr, h_mask=h_mask)


def _is_tame(values: Tensor) -> bool:
    """Whether a step that goes on from these cannot overflow inside."""
    return bool(values.detach().abs().amax() < 100)


def _within_lengths(
    run: Callable[..., tuple[Tensor, Tensor]], mask: Tensor | None, x: Tensor, h: Tensor, c: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """As `run`, with no step behind a sequence's end; lengths descend.

    A step there changes nothing, and one product over all steps is faster than many. But c_t may grow without bound in
    a cell that a search found, overflow behind the end, and make gradients NaN, as 0 times infinity is.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    batch, begin = len(h), 0
    for end in sorted(set(lengths.tolist())):
        rows = int((lengths >= end).sum())  # the sequences that go on to there
        h, c = h[:rows], c[:rows]
        hs, cs = run(None if mask is None else mask[:rows], x[begin:end, :rows], h, c)
        h, c, begin = hs[-1], cs[-1], end
        behind = (0, 0, 0, batch - rows)
        parts.append((nn.functional.pad(hs, behind), nn.functional.pad(cs, behind)))
    return torch.cat([hs for hs, _ in parts]), torch.cat([cs for _, cs in parts])


def _last(values: Tensor, lengths: Tensor | None) -> Tensor:
    """The value at the end of each sequence."""
    if lengths is None:
        return values[-1]
    return values[lengths.to(values.device) - 1, torch.arange(values.shape[1], device=values.device)]


def _reversed(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence from its own end to its beginning; what stands behind it stays there."""
    if lengths is None:
        return values.flip(0)
    steps = torch.arange(len(values), device=values.device)[:, None]
    ends = lengths.to(values.device)[None, :]
    index = torch.where(steps < ends, ends - 1 - steps, steps)
    return values.gather(0, index[..., None].expand_as(values))


def _repr(input_size: int, hidden_size: int, bias: bool, proj_size: int) -> str:
    return (
        f"{input_size}, {hidden_size}"
        + (", bias=True" if bias else "")
        + (f", proj_size={proj_size}" if proj_size else "")
    )
