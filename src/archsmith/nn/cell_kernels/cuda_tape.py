"""The memory of runs over a sequence on a CUDA device, the loops over it, and their capture into CUDA graphs.

A graph finds its numbers where they were when it was captured. So each run has a tape: the memory of one run of one
layout. A captured tape is used by one run at a time, from its start until nobody can ask for its gradients any more;
then the next run of that layout takes it.
"""

from __future__ import annotations

import linecache
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.cell_kernels.cuda_source import kernel_source

BLOCK = 128  # numbers a program works on; a step of 20 x 650 then occupies 102 of a device's 100-odd processors
_EAGER_RUNS = 2  # of a layout, before it is captured: a batch of a length that never comes again is not worth it
_IDLE_TAPES = 12  # kept for the next run: two layers with a second forward before the first is let go, and evaluation
_LAYOUTS = 256  # whose runs are counted


@dataclass(frozen=True, slots=True)
class Layout:
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


class Tape:
    """The memory of one run, and the loops over it: what is captured must find everything where it was."""

    def __init__(self, layout: Layout) -> None:
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
        self.forward_kernel, self.backward_kernel = kernels(layout.graph)
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
        return (-(-self.layout.batch * self.layout.width // BLOCK),)

    @property
    def _sizes(self) -> tuple[int, int, bool, int]:
        return self.layout.batch * self.layout.width, self.layout.width, self.layout.masked, BLOCK

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


class Lease:
    """A tape in use. When the last who might ask for a gradient is gone, a captured one is free for the next run."""

    def __init__(self, layout: Layout) -> None:
        self.tape = _take(layout)

    def __del__(self) -> None:
        tape = getattr(self, "tape", None)
        if tape is not None and tape.captured is not None and _idle is not None:
            _idle.append(tape)  # without the lock, which this very thread may hold: appending is atomic


def release() -> None:
    """Frees the memory of the captured runs that are kept for the next ones."""
    with _lock:
        _idle.clear()


# --- tapes, captured and kept -----------------------------------------------------------------------------------------

_lock = threading.Lock()
_idle: list[Tape] = []
_runs: OrderedDict[Layout, int] = OrderedDict()
_unfit: set[torch.device] = set()


def _take(layout: Layout) -> Tape:
    """A tape that nobody uses: a captured one, or a new one, which is captured if its layout has come before."""
    if _within_capture(layout.device):
        return Tape(layout)  # its steps become part of somebody else's graph, so that no other run may have its memory
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
        try:
            tape = Tape(layout)
        except torch.OutOfMemoryError:
            release()
            tape = Tape(layout)
        if runs > _EAGER_RUNS and _may_capture(layout.device):
            try:
                tape.capture()
            except RuntimeError as error:
                _unfit.add(layout.device)
                warn(f"cells run step by step on {layout.device}, slower: no CUDA graph could be captured: {error}")
                tape = Tape(layout)
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


@lru_cache(maxsize=512)
def kernels(graph: CellGraph) -> tuple[Any, Any]:
    """The two kernels of a cell. Triton compiles each at its first launch, and keeps the result on disk."""
    source = kernel_source(graph)
    name = f"<cell {abs(hash(graph)):x}>"
    # Triton reads the source of a function through `inspect`, which finds it there.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module: dict[str, Any] = {"__name__": "archsmith_cell"}
    exec(compile(source, name, "exec"), module)
    return module["forward"], module["backward"]


_warned: set[str] = set()


def warn(message: str) -> None:
    """Once for each beginning: what follows may differ from cell to cell."""
    key = message.split(":", 1)[0]
    if key not in _warned:
        _warned.add(key)
        warnings.warn(message[:500], stacklevel=4)
