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
import linecache
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.cell_kernels.cuda_source import kernel_source
from archsmith.nn.cell_kernels.reference import run_layer_plainly

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_BLOCK = 128  # numbers a program works on; a step of 20 x 650 then occupies 102 of a device's 100-odd processors
_LARGEST = 2**31 - 1  # numbers in one step's product: within it, indices are of 32 bits
_EAGER_RUNS = 2  # of a layout, before it is captured: a batch of a length that never comes again is not worth it
_IDLE_TAPES = 12  # kept for the next run: two layers with a second forward before the first is let go, and evaluation
_LAYOUTS = 256  # whose runs are counted


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
    results is let go. Up to 12 captured runs, and an eighth of the device's memory, are kept
    for the next ones; `release()` frees them.
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
        layout = _Layout(
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


def release() -> None:
    """Frees the memory of the captured runs that are kept for the next ones."""
    with _lock:
        _idle.clear()


# --- one run over a sequence ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """All that a captured run depends on, but for the numbers."""

    graph: CellGraph
    steps: int
    batch: int
    width: int
    dtype: torch.dtype
    device: torch.device
    biased: bool
    masked: bool
    trained: bool
    stream: int
    precision: str


class _Tape:
    """The memory of one run, and the loops over it: what is captured must find everything where it was."""

    def __init__(self, layout: _Layout) -> None:
        self.layout = layout
        T, B, n, blocks = layout.steps, layout.batch, layout.width, len(layout.graph.leaves)

        def memory(*shape: int, dtype: torch.dtype = layout.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=layout.device)

        self.from_inputs, self.from_state = memory(T, B, blocks * n), memory(T, B, blocks * n)
        self.weight = memory(blocks * n, n)
        self.bias = memory(blocks * n) if layout.biased else None
        self.c = memory(T + 1, B, n, dtype=torch.float32)
        self.read = memory(T + 1, B, n)  # what the product reads: h_{t-1}, times the mask
        # Without a mask the kernels are given other memory for it, which they leave alone.
        self.mask = memory(B, n) if layout.masked else self.read
        self.h = memory(T, B, n) if layout.masked else self.read
        if layout.trained:
            self.grad_h, self.grad_c = memory(T, B, n), memory(T, B, n, dtype=torch.float32)
            self.dh, self.dc = memory(B, n), memory(B, n, dtype=torch.float32)
            self.d_inputs, self.d_state = memory(T, B, blocks * n), memory(T, B, blocks * n)
        self.bytes = sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))
        self.forward_kernel, self.backward_kernel = _kernels(layout.graph)
        self.captured: tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph | None] | None = None

    def run_forward(self) -> None:
        """All steps, from `from_inputs`, `weight`, `bias`, `mask`, and the first of `read` and `c`."""
        if self.captured is None:
            self._forward()
        else:
            self.captured[0].replay()

    def run_backward(self) -> None:
        """The gradients of both products, and `dh` and `dc` of the initial state, from `grad_h` and `grad_c`."""
        if self.captured is None or self.captured[1] is None:
            self._backward()
        else:
            self.captured[1].replay()

    def _forward(self) -> None:
        product = self.weight.t()
        for t in range(self.layout.steps):
            if self.bias is None:
                torch.mm(self.read[t], product, out=self.from_state[t])
            else:
                torch.addmm(self.bias, self.read[t], product, out=self.from_state[t])
            self.forward_kernel[self._grid](
                self.from_inputs, self.from_state, self.c, self.h, self.read, self.mask, t, *self._sizes
            )

    def _backward(self) -> None:
        self.dh.zero_()
        self.dc.zero_()
        for t in reversed(range(self.layout.steps)):
            self.backward_kernel[self._grid](
                self.from_inputs,
                self.from_state,
                self.c,
                self.mask,
                self.grad_h,
                self.grad_c,
                self.dh,
                self.dc,
                self.d_inputs,
                self.d_state,
                t,
                *self._sizes,
            )
            torch.mm(self.d_state[t], self.weight, out=self.dh)

    @property
    def _grid(self) -> tuple[int]:
        return (-(-self.layout.batch * self.layout.width // _BLOCK),)

    @property
    def _sizes(self) -> tuple[int, int, bool, int]:
        return self.layout.batch * self.layout.width, self.layout.width, self.layout.masked, _BLOCK

    def capture(self) -> None:
        """Records both loops. Raises RuntimeError where that cannot be."""
        stream = _capture_stream(self.layout.device, self.layout.stream)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # cuBLAS makes itself ready for a stream at its first product there
            torch.mm(self.read[0], self.weight.t(), out=self.from_state[0])
        torch.cuda.current_stream().wait_stream(stream)
        graphs = []
        for loop in (self._forward, self._backward) if self.layout.trained else (self._forward,):
            graphs.append(torch.cuda.CUDAGraph())
            # "thread_local": what other threads do meanwhile, such as pinning memory for the next batch, does no harm.
            with torch.cuda.graph(graphs[-1], stream=stream, capture_error_mode="thread_local"):
                loop()
        self.captured = (graphs[0], graphs[1] if self.layout.trained else None)


class _Lease:
    """A tape in use. When the last who might ask for a gradient is gone, a captured one is free for the next run."""

    def __init__(self, layout: _Layout) -> None:
        self.tape = _take(layout)

    def __del__(self) -> None:
        tape = getattr(self, "tape", None)
        if tape is not None and tape.captured is not None and _idle is not None:
            _idle.append(tape)  # without the lock, which this very thread may hold: appending is atomic


class _Layer(torch.autograd.Function):
    """All steps after the product of the inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        layout: _Layout,
        from_inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        h0: Tensor,
        c0: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        with _on(layout.device):
            ctx.lease = _Lease(layout)
            tape: _Tape = ctx.lease.tape
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
        tape: _Tape = ctx.lease.tape
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


# --- tapes, captured and kept -----------------------------------------------------------------------------------------

_lock = threading.Lock()
_idle: list[_Tape] = []
_runs: OrderedDict[_Layout, int] = OrderedDict()
_unfit: set[torch.device] = set()


def _take(layout: _Layout) -> _Tape:
    """A tape that nobody uses: a captured one, or a new one, which is captured if its layout has come before."""
    if _within_capture(layout.device):
        return _Tape(layout)  # its steps become part of somebody else's graph, so that no other run may have its memory
    with _lock:
        for k, tape in enumerate(_idle):
            if tape.layout == layout:
                return _idle.pop(k)
        while len(_idle) > _IDLE_TAPES or (_idle and sum(tape.bytes for tape in _idle) > _idle_bytes(layout.device)):
            del _idle[0]
        runs = _runs[layout] = _runs.pop(layout, 0) + 1
        if len(_runs) > _LAYOUTS:
            _runs.popitem(last=False)
    with torch.inference_mode(False), torch.no_grad():  # or its memory could be used within inference mode only
        tape = _Tape(layout)
        if runs > _EAGER_RUNS and _may_capture(layout.device):
            try:
                tape.capture()
            except RuntimeError as error:
                _unfit.add(layout.device)
                _warn(f"cells run step by step on {layout.device}, slower: no CUDA graph could be captured: {error}")
                tape = _Tape(layout)
    return tape


def _within_capture(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _may_capture(device: torch.device) -> bool:
    return device.type == "cuda" and device not in _unfit


def _idle_bytes(device: torch.device) -> float:
    """How much memory tapes may hold that nobody uses."""
    return torch.cuda.get_device_properties(device).total_memory / 8 if device.type == "cuda" else float("inf")


@lru_cache(maxsize=64)
def _capture_stream(device: torch.device, stream: int) -> torch.cuda.Stream:
    """One for each stream that runs are replayed on, since cuBLAS has one memory to work in for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


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


@lru_cache(maxsize=512)
def _kernels(graph: CellGraph) -> tuple[Any, Any]:
    """The two kernels of a cell. Triton compiles each at its first launch, and keeps the result on disk."""
    source = kernel_source(graph)
    name = f"<cell {abs(hash(graph)):x}>"
    # Triton reads the source of a function through `inspect`, which finds it there.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module: dict[str, Any] = {"__name__": "archsmith_cell"}
    exec(compile(source, name, "exec"), module)
    return module["forward"], module["backward"]


@lru_cache(maxsize=1024)
def _compiles(graph: CellGraph, dtype: torch.dtype, device: torch.device, masked: bool) -> bool:
    """Whether both kernels can be had, which a run over one number shows. They are then there before a capture begins."""
    layout = _Layout(graph, 1, 1, 1, dtype, device, False, masked, True, 0, "")
    try:
        with torch.inference_mode(False), torch.no_grad(), _on(device):
            tape = _Tape(layout)
            tape.run_forward()
            tape.run_backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever Triton and the compiler that it calls may raise
        _warn(f"cells run as a plain loop on {device}, slower: Triton gave {type(error).__name__}: {error}")
        return False
    return True


@lru_cache(maxsize=64)
def _fits(device: torch.device) -> bool:
    triton = torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
    return triton and torch.cuda.get_device_capability(device) >= (7, 0)


_warned: set[str] = set()


def _warn(message: str) -> None:
    """Once for each beginning: what follows may differ from cell to cell."""
    key = message.split(":", 1)[0]
    if key not in _warned:
        _warned.add(key)
        warnings.warn(message[:500], stacklevel=4)
