"""Runs one layer of any recurrent cell over a sequence, forward and backward, by the fastest way at hand.

On the CPU, in float32, that is the native library, which a C++ compiler builds at first use (`library`); nothing is
compiled for a cell. On a CUDA device it is `cuda`. Everything else, and any machine without a compiler, takes the plain
loop (`reference`), which gives the same numbers, slower.

For long training there are two options, for what is run inside:

    with cell_kernels.compiled(), cell_kernels.precision("bf16"):
        train(model)

The environment variable ARCHSMITH_KERNELS forces a way on the CPU: "plain", "native", or "compiled". Where the plain loop
alone can run a layer (another number type than float32, a projection, while a graph is traced), it runs in any case.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor

from archsmith.core.errors import UsageError
from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.cell_kernels import cuda, library
from archsmith.nn.cell_kernels.generated import kernels_of
from archsmith.nn.cell_kernels.native import run_layer_native
from archsmith.nn.cell_kernels.plan import Plan, plan_of
from archsmith.nn.cell_kernels.reference import run_layer_plainly

__all__ = ["compiled", "precision", "run_layer"]

_PRECISIONS = ("fp32", "bf16")
_BRIEF = 3  # steps times rows, below which the plain loop is as fast
_compiled: ContextVar[bool] = ContextVar("compiled", default=False)
_precision: ContextVar[str] = ContextVar("precision", default="fp32")


@contextmanager
def compiled() -> Iterator[None]:
    """Cells that run inside have their elementwise part compiled, about a second for each cell that was never compiled
    on this machine before. Without a compiler nothing changes."""
    token = _compiled.set(True)
    try:
        yield
    finally:
        _compiled.reset(token)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """What the matrix products are taken in by the native library inside, both passes alike.

    Args:
        name: "fp32", or "bf16": factors are rounded to 8 bits of mantissa, sums and all else stay in float32. On a
            processor without instructions for it (AVX-512 BF16), and in the plain loop, that is "fp32" as well.

    Under `torch.autocast("cpu", torch.bfloat16)` it is "bf16" without this; h and c are then float32 all the same.

    Raises UsageError for another name.
    """
    if name not in _PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(_PRECISIONS)}, got {name!r}")
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


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
    if x.is_cuda and weight_hr is None and cuda.available(x):
        return cuda.run_layer_cuda(graph, x, weight_ih, weight_hh, h0, c0, bias=bias, h_mask=h_mask)
    way = library.asked_way()
    tensors: tuple[Tensor | None, ...] = (x, weight_ih, weight_hh, h0, c0, bias, h_mask)
    bf16 = _precision.get() == "bf16"
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        bf16 = torch.get_autocast_dtype("cpu") == torch.bfloat16
        tensors = tuple(_widened(tensor) for tensor in tensors)
    # One pass over the weights takes less than packing them.
    brief = len(x) * x.shape[1] < _BRIEF if x.dim() == 3 else True
    if (
        weight_hr is None
        and not (brief and not way)
        and _native_can(graph, tensors)
        and (native := _library(way)) is not None
    ):
        *five, bias, h_mask = tensors
        return run_layer_native(
            native,
            graph,
            *(tensor for tensor in five if tensor is not None),
            bias=bias,
            h_mask=h_mask,
            bf16=bf16,
            compiled=(way == "compiled" or (not way and _compiled.get())) and _compiles(plan_of(graph), way),
        )
    return run_layer_plainly(graph, x, weight_ih, weight_hh, h0, c0, bias=bias, weight_hr=weight_hr, h_mask=h_mask)


def _widened(tensor: Tensor | None) -> Tensor | None:
    return tensor.float() if tensor is not None and tensor.dtype == torch.bfloat16 else tensor


def _native_can(graph: CellGraph, tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether these are plain float32 tensors on the CPU of the shapes that belong together."""
    if (
        torch._C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    ):
        return False
    for tensor in tensors:
        if tensor is not None and not (
            type(tensor) in (Tensor, torch.nn.Parameter)
            and tensor.dtype == torch.float32
            and tensor.device.type == "cpu"
            and tensor.layout == torch.strided
            and tensor.numel() > 0
        ):
            return False
    x, *_, c0, _, mask = tensors
    assert x is not None
    assert c0 is not None
    if x.dim() != 3 or c0.dim() != 2 or (mask is not None and mask.requires_grad and torch.is_grad_enabled()):
        return False
    (_, batch, inputs), n, leaves = x.shape, c0.shape[1], len(graph.leaves)
    shapes = ((leaves * n, inputs), (leaves * n, n), (batch, n), (batch, n), (leaves * n,), (batch, n))
    return all(tensor is None or tensor.shape == shape for tensor, shape in zip(tensors[1:], shapes, strict=True))


@lru_cache(maxsize=8)
def _library(way: str) -> library.Library | None:
    """The native library, or None where the plain loop is to run; that is said once, unless it was asked for."""
    if way == "plain":
        return None
    try:
        return library.load()
    except library.NoLibrary as reason:
        if way:
            raise UsageError(f"ARCHSMITH_KERNELS={way}: {reason}") from None
        warnings.warn(f"recurrent cells run as a plain loop, several times slower: {reason}", stacklevel=4)
        return None


@lru_cache(maxsize=1024)
def _compiles(plan: Plan, way: str) -> bool:
    try:
        kernels_of(plan)
    except library.NoLibrary as reason:
        if way:
            raise UsageError(f"ARCHSMITH_KERNELS={way}: {reason}") from None
        return False
    return True
