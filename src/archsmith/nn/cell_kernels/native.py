"""One layer of any recurrent cell on the CPU by the native library: the other half of layer.cpp's contract."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archsmith.core.errors import UsageError
from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.cell_kernels.generated import kernels_of
from archsmith.nn.cell_kernels.library import Library
from archsmith.nn.cell_kernels.plan import Program, plan_of

_FIELDS = (
    *("steps", "batch", "units", "inputs", "leaves", "adds", "threads", "row_parts", "pairs", "order"),
    *("parallel", "team_size"),
    *("x", "weight_ih", "weight_hh", "h0", "c0", "bias", "mask"),
    *("hs", "cs", "xp", "hp", "values", "value_count", "keep", "masked"),
    *("slots", "slot_count", "program", "length", "compiled"),
    *("grad_hs", "grad_cs", "dhp", "dxp", "dx", "dweight_ih", "dweight_hh", "dh0", "dc0"),
)


class _Layer(ctypes.Structure):
    """`Layer` of layer.h: numbers and addresses, all of 8 bytes."""

    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS]


def run_layer_native(
    library: Library,
    graph: CellGraph,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    *,
    bias: Tensor | None = None,
    h_mask: Tensor | None = None,
    bf16: bool = False,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `archsmith.nn.cell_kernels.run_layer`, without a projection, for float32 tensors on the CPU of the shapes that
    it names, none of them empty.

    Args:
        bf16: take the products in bf16, summed in float32, where the processor can; all else stays in float32.
        compiled: run the elementwise part compiled for the cell, and not by the machine.

    Raises MemoryError, and `library.NoLibrary` where the cell cannot be compiled.
    """
    tensors = (x, weight_ih, weight_hh, h0, c0, bias)
    x, weight_ih, weight_hh, h0, c0 = (tensor.contiguous() for tensor in tensors[:5] if tensor is not None)
    bias, h_mask = (None if tensor is None else tensor.contiguous() for tensor in (bias, h_mask))
    run = _Run(library, graph, bf16 and library.bf16, compiled)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        hs, cs = _Function.apply(run, x, weight_ih, weight_hh, h0, c0, bias, h_mask)  # type: ignore[no-untyped-call]
        return hs, cs
    return run.forward(x, weight_ih, weight_hh, h0, c0, bias, h_mask, keep=False)[:2]


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        run: _Run,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        h0: Tensor,
        c0: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        hs, cs, xp, hp, values, masked = run.forward(x, weight_ih, weight_hh, h0, c0, bias, mask, keep=True)
        ctx.run = run
        ctx.threads = run.threads
        ctx.save_for_backward(x, weight_ih, weight_hh, h0, c0, bias, mask, hs, cs, xp, hp, values, masked)
        ctx.set_materialize_grads(False)
        return hs, cs

    @staticmethod
    def backward(ctx: Any, grad_hs: Tensor | None, grad_cs: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph
            raise UsageError(
                "the kernels of recurrent cells have no second derivatives; set ARCHSMITH_KERNELS=plain for the plain loop, "
                "which has them"
            )
        if grad_hs is None and grad_cs is None:
            return (None,) * 8
        gradients = ctx.run.backward(ctx.saved_tensors, grad_hs, grad_cs, ctx.threads, ctx.needs_input_grad[1:7])
        return (None, *gradients, None)


class _Run:
    """What is the same in the forward and the backward pass of a layer."""

    def __init__(self, library: Library, graph: CellGraph, bf16: bool, compiled: bool) -> None:
        self.library = library
        self.plan = plan_of(graph)
        self.kernels = kernels_of(self.plan) if compiled else None
        self.leaves = len(graph.leaves)
        self.bf16 = bf16
        self.threads = torch.get_num_threads()

    def forward(
        self,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        h0: Tensor,
        c0: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        *,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """h, c, both products (overwritten where they are not needed), the values that are kept, and h_{t-1} under the
        mask."""
        steps, batch, n = len(x), x.shape[1], c0.shape[1]
        hs, cs = x.new_empty(steps, batch, n), x.new_empty(steps, batch, n)
        xp = x.new_empty(steps, batch, self.leaves * n)
        hp = x.new_empty(steps if keep else 1, batch, (self.leaves - self.plan.adds) * n)
        values = x.new_empty(steps if keep else 1, self.plan.values, batch, n)
        masked = None if mask is None else x.new_empty(steps, batch, n)
        call = self._call(x, n, self.plan.forward, self.kernels.forward if self.kernels else 0, self.threads, keep)
        _fill(
            call,
            {"x": x, "weight_ih": weight_ih, "weight_hh": weight_hh, "h0": h0, "c0": c0, "bias": bias, "mask": mask}
            | {"hs": hs, "cs": cs, "xp": xp, "hp": hp, "values": values, "masked": masked},
        )
        self.library.forward(call)
        return hs, cs, xp, hp, values, masked

    def backward(
        self,
        saved: tuple[Any, ...],
        grad_hs: Tensor | None,
        grad_cs: Tensor | None,
        threads: int,
        needed: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """The gradients of x, both weights, h_0, c_0 and the bias; None where one is not needed."""
        x, weight_ih, weight_hh, h0, c0, _, mask, hs, cs, xp, hp, values, masked = saved
        n = c0.shape[1]
        dhp = x.new_empty(len(x), x.shape[1], self.leaves * n)
        dxp = x.new_empty(len(x), x.shape[1], (self.leaves - self.plan.adds) * n)
        for leaf in self.plan.unused:
            dhp[..., leaf * n : (leaf + 1) * n] = 0
            if (other := self.plan.order.index(leaf) - self.plan.adds) >= 0:
                dxp[..., other * n : (other + 1) * n] = 0
        results = [
            torch.empty_like(tensor) if need else None
            for tensor, need in zip((x, weight_ih, weight_hh, h0, c0), needed[:5], strict=True)
        ]
        grad_hs, grad_cs = (None if g is None else g.to(torch.float32).contiguous() for g in (grad_hs, grad_cs))
        call = self._call(x, n, self.plan.backward, self.kernels.backward if self.kernels else 0, threads, True)
        _fill(
            call,
            {"x": x, "weight_ih": weight_ih, "weight_hh": weight_hh, "h0": h0, "c0": c0, "mask": mask}
            | {"hs": hs, "cs": cs, "xp": xp, "hp": hp, "values": values, "masked": masked}
            | {"grad_hs": grad_hs, "grad_cs": grad_cs, "dhp": dhp, "dxp": dxp}
            | dict(zip(("dx", "dweight_ih", "dweight_hh", "dh0", "dc0"), results, strict=True)),
        )
        self.library.backward(call)
        return (*results, dhp.sum((0, 1)) if needed[5] else None)

    def _call(self, x: Tensor, n: int, program: Program, compiled: int, threads: int, keep: bool) -> _Layer:
        return _Layer(
            steps=len(x),
            batch=x.shape[1],
            units=n,
            inputs=x.shape[2],
            leaves=self.leaves,
            adds=self.plan.adds,
            order=ctypes.addressof(self.plan.order_array),
            threads=threads,
            row_parts=0,
            pairs=int(self.bf16),
            parallel=self.library.parallel,
            team_size=self.library.team_size,
            value_count=self.plan.values,
            keep=int(keep),
            slots=ctypes.addressof(program.slot_array),
            slot_count=len(program.slots),
            program=ctypes.addressof(program.instruction_array),
            length=len(program.instructions),
            compiled=compiled,
        )


def _fill(call: _Layer, tensors: Mapping[str, Tensor | None]) -> None:
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(call, name, tensor.data_ptr())
