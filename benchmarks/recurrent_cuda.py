"""NASCell on a CUDA device against cuDNN's LSTM with the same number of parameters: forward and backward of one layer.

    python benchmarks/recurrent_cuda.py                  the table on stdout
    python benchmarks/recurrent_cuda.py --out benchmarks/results/recurrent_cuda.md

- captured: the kernels of `archsmith.nn.cell_kernels.cuda`, the loop over the steps as a CUDA graph.
- launched: the same, step by step. - plain: the loop of PyTorch operations that every cell can be run by.

All of them take turns, several times over, and each number is the median of what the turns gave; a ratio is of tokens a
second, so that more is better. Without a device it says so and is done.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from archsmith.discovered import nas_cell
from archsmith.nn.cell_graph import from_architecture
from archsmith.nn.cell_kernels import cuda, cuda_tape
from archsmith.nn.cell_kernels.reference import run_layer_plainly

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

STEPS = 35
GRAPH = from_architecture(nas_cell().architecture)
TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def ways(n: int, batch: int, dtype: torch.dtype, device: torch.device) -> dict[str, Callable[[], None]]:
    """By name: forward and backward once. Layers read as many numbers as they give, as those of a language model do."""
    torch.manual_seed(0)

    def numbers(*shape: int, size: float = 1.0) -> Tensor:
        return (torch.randn(shape, device=device) * size).to(dtype).requires_grad_()

    x, h0, c0 = numbers(STEPS, batch, n), numbers(batch, n).detach(), numbers(batch, n).detach()
    weights = numbers(8 * n, n, size=n**-0.5), numbers(8 * n, n, size=n**-0.5)
    above = torch.randn_like(x)
    run = cuda.run_layer_cuda

    def kernels() -> None:
        torch.autograd.grad(run(GRAPH, x, *weights, h0, c0)[0], (x, *weights), above)

    def launched() -> None:
        cuda_tape._unfit.add(device)  # as where a capture has failed
        held, cuda_tape._idle[:] = list(cuda_tape._idle), []
        kernels()
        cuda_tape._idle[:] = held
        cuda_tape._unfit.discard(device)

    def plain() -> None:
        torch.autograd.grad(run_layer_plainly(GRAPH, x, *weights, h0, c0)[0], (x, *weights), above)

    hidden = equal_hidden(n)
    lstm = nn.LSTM(hidden, hidden, bias=False, device=device, dtype=dtype)
    wide, above_wide = numbers(STEPS, batch, hidden), torch.randn(STEPS, batch, hidden, device=device, dtype=dtype)

    def cudnn() -> None:
        torch.autograd.grad(lstm(wide)[0], (wide, *lstm.parameters()), above_wide)

    return {"cudnn": cudnn, "captured": kernels, "launched": launched, "plain": plain}


def equal_hidden(n: int) -> int:
    """The hidden size of the LSTM with as many parameters: 8 m^2 = 16 n^2, to the nearest multiple of 8 from 200 on, as
    suits cuDNN."""
    exact = 2**0.5 * n
    return round(exact / 8) * 8 if n >= 200 else round(exact)


def seconds(way: Callable[[], None], times: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(times):
        way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / times


def rows(
    sizes: Sequence[int], batches: Sequence[int], types: Sequence[str], device: torch.device, rounds: int, times: int
) -> Iterator[str]:
    yield "| n | batch | type | LSTM of | cuDNN, tokens/s | NASCell, tokens/s | captured / cuDNN | launched / cuDNN | plain / cuDNN |"
    yield "| --- " * 9 + "|"
    for kind in types:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
        for n in sizes:
            for batch in batches:
                ran = ways(n, batch, TYPES[kind], device)
                for way in ran.values():
                    seconds(way, 4, device)  # compiles, chooses its products, captures
                took: dict[str, list[float]] = {name: [] for name in ran}
                for _ in range(rounds):
                    for name, way in ran.items():
                        took[name].append(seconds(way, max(1, times // 5) if name == "plain" else times, device))
                tokens = STEPS * batch
                ratio = {
                    name: statistics.median(a / b for a, b in zip(took["cudnn"], took[name], strict=True))
                    for name in ran
                }
                yield (
                    f"| {n} | {batch} | {kind} | {equal_hidden(n)} "
                    f"| {tokens / statistics.median(took['cudnn']):,.0f} "
                    f"| {tokens / statistics.median(took['captured']):,.0f} "
                    + "".join(f"| {ratio[name]:.2f} " for name in ("captured", "launched", "plain"))
                    + "|"
                )
                del ran
                gc.collect()
                cuda.release()


def compile_seconds(device: torch.device) -> float:
    """For both kernels of a cell that no cache has. (The first of a process takes longer: Triton itself begins.)"""
    cuda._compiles(GRAPH, torch.float32, device, False)
    began = time.perf_counter()
    cuda._compiles(GRAPH, torch.float32, device, True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a file for the table as well")
    out = parser.parse_args().out
    if not torch.cuda.is_available() or not cuda.available(torch.zeros(1, device="cuda")):
        print("nothing to measure: this needs a CUDA device of capability 7.0 or later, and Triton")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TRITON_CACHE_DIR"] = empty
        compiled = compile_seconds(device)
        lines = [
            f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}; {machine()}",
            "",
            f"Both kernels of a cell compile in {compiled:.2f} s. {STEPS} steps.",
            "",
        ]
        print("\n".join(lines))
        for row in rows((200, 650, 1152), (20, 64), tuple(TYPES), device, rounds=7, times=20):
            print(row, flush=True)
            lines.append(row)
    if out is not None:
        out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
