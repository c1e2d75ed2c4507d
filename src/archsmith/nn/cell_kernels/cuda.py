"""One layer of any recurrent cell on a CUDA device, forward and backward: products by cuBLAS, the rest by Triton.

The product of the inputs is taken for all steps at once. A step is then one product with the state and one kernel,
which is generated for the cell (`cuda_source`); backward likewise, and the gradient of the weights is one product at
the end. At the sizes of language models a step takes some microseconds, less than it takes to launch it from Python:
when the same shapes come again, the whole loop is captured into a CUDA graph, which is launched at once.

Triton 3.9 takes 0.6 s of processor time to compile the two kernels of NASCell, and 0.9 s for a cell of base 8 with seven
sines, once in all, for it keeps them on disk: little beside the training of a child.

What has been checked: the kernels by Triton's interpreter on a processor, against the plain loop, and that they compile
for devices of the capabilities 8.0 and 9.0. What has not: any run on a device, so neither the capture nor any speed.
`tests/test_cell_kernels_cuda.py` and `benchmarks/recurrent_cuda.py` do both where there is a device.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.cell_kernels.cuda_tape import Layout, Lease, Tape, release, warn
from archsmith.nn.cell_kernels.reference import run_layer_plainly

__all__ = ["available", "release", "run_layer_cuda"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LARGEST = 2**31 - 1  # numbers in one step's product: within it, indices are of 32 bits


def available(x: Tensor) -> bool:
    """Whether `run_layer_cuda` can run on this input: on a CUDA device of capability 7.0 or later, in float32 or less,
    with Triton, which PyTorch's builds for CUDA bring. Cheap."""
    return x.is_cuda and x.dtype in _DTYPES and _fits(x.device)


def run_layer_cuda(
    graph: CellGraph,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    *,
    bias: Tensor | None = None,
    h_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `archsmith.nn.cell_kernels.run_layer`, without a projection.

    Products follow torch's settings, for TF32 and under autocast; what stands between them is computed in float32, and
    c_t is carried in it. h_t is given in the type of the products, c_t in that of c_0. Second derivatives are refused.

    With an empty input, in float64, or where a gradient of the mask is asked for, it is the plain loop; likewise,
    after a warning, where Triton cannot compile (it needs a C compiler for the code that launches its kernels).

    Memory: a run keeps the two products, their gradients and a copy of the recurrent weights until the last of its
    results is let go. Up to 12 captured runs, and an eighth of the device's memory, are kept for the next ones;
    `release()` frees them.
    """
    asked = torch.is_grad_enabled()
    steps, batch, width = len(x), x.shape[1], c0.shape[-1]
    plain = (
        0 in (steps, batch, width)
        or batch * len(weight_hh) > _LARGEST
        or x.dtype not in _DTYPES
        or (asked and h_mask is not None and h_mask.requires_grad)
    )
    if not plain:
        from_inputs = torch.nn.functional.linear(x, weight_ih)
        tensors = (from_inputs, weight_hh, bias, h0, c0)
        layout = Layout(
            graph,
            steps,
            batch,
            width,
            from_inputs.dtype,
            x.device,
            biased=bias is not None,
            masked=h_mask is not None,
            trained=asked and any(tensor is not None and tensor.requires_grad for tensor in tensors),
            stream=torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0,
            precision=_precision(),
        )
        if _compiles(graph, from_inputs.dtype, x.device, h_mask is not None):
            h0, c0 = h0.expand(batch, width), c0.expand(batch, width)
            hs, cs = _Layer.apply(layout, from_inputs, weight_hh, bias, h0, c0, h_mask)  # type: ignore[no-untyped-call]
            return hs, cs
    return run_layer_plainly(graph, x, weight_ih, weight_hh, h0, c0, bias=bias, h_mask=h_mask)


class _Layer(torch.autograd.Function):
    """All steps after the product of the inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        from_inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        h0: Tensor,
        c0: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        with _on(layout.device):
            ctx.lease = Lease(layout)
            tape: Tape = ctx.lease.tape
            tape.from_inputs.copy_(from_inputs)
            tape.weight.copy_(weight)
            if tape.bias is not None and bias is not None:
                tape.bias.copy_(bias)
            tape.c[0].copy_(c0)
            tape.read[0].copy_(h0)
            if mask is not None:
                tape.mask.copy_(mask)
                tape.read[0].mul_(tape.mask)
            tape.run_forward()
            ctx.dtypes = (weight.dtype, bias.dtype if bias is not None else None, h0.dtype, c0.dtype)
            hs = tape.h if layout.masked else tape.read[1:]
            # Copies: the tape goes on to other runs, and a change of the results in place must not reach backward.
            return hs.clone(), tape.c[1:].to(c0.dtype, copy=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor | None, ...]:
        tape: Tape = ctx.lease.tape
        _, _, needs_weight, needs_bias, needs_h0, needs_c0, _ = ctx.needs_input_grad
        weight_dtype, bias_dtype, h_dtype, c_dtype = ctx.dtypes
        with _on(tape.layout.device):
            tape.grad_h.copy_(grad_h)
            tape.grad_c.copy_(grad_c)
            tape.run_backward()
            d_weight = d_bias = d_h0 = d_c0 = None
            if needs_weight:
                rows = tape.d_state.flatten(0, 1)
                d_weight = torch.mm(rows.t(), tape.read[:-1].flatten(0, 1)).to(weight_dtype)
            if needs_bias:
                d_bias = tape.d_state.sum((0, 1), dtype=torch.float32).to(bias_dtype)
            if needs_h0:
                d_h0 = (tape.dh * tape.mask if tape.layout.masked else tape.dh).to(h_dtype, copy=True)
            if needs_c0:
                d_c0 = tape.dc.to(c_dtype, copy=True)
            # No copy: the product of the inputs, its only reader, reads it at once and on the same stream.
            return None, tape.d_inputs, d_weight, d_bias, d_h0, d_c0, None


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """On this device, and with products in the types of their factors."""
    with (
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


def _precision() -> str:
    """Torch's settings of products in float32, which a captured product keeps."""
    settings = torch.backends.cuda.matmul
    if hasattr(torch.backends, "fp32_precision"):
        return f"{torch.backends.fp32_precision} {settings.fp32_precision}"
    return str(settings.allow_tf32)  # torch before 2.9


# --- kernels ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _compiles(graph: CellGraph, dtype: torch.dtype, device: torch.device, masked: bool) -> bool:
    """Whether both kernels can be had, which a run over one number shows. They are then there before a capture begins."""
    layout = Layout(graph, 1, 1, 1, dtype, device, False, masked, True, 0, "")
    try:
        with torch.inference_mode(False), torch.no_grad(), _on(device):
            tape = Tape(layout)
            tape.run_forward()
            tape.run_backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever Triton and the compiler that it calls may raise
        warn(f"cells run as a plain loop on {device}, slower: Triton gave {type(error).__name__}: {error}")
        return False
    return True


@lru_cache(maxsize=64)
def _fits(device: torch.device) -> bool:
    triton = torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
    return triton and torch.cuda.get_device_capability(device) >= (7, 0)
