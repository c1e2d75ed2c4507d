"""Training of recurrent cells on the CPU, forward and backward, against torch's LSTM with as many parameters.

    python benchmarks/recurrent.py                          tables on stdout; some minutes
    python benchmarks/recurrent.py --sizes 200 --threads 1 --rounds 10
    python benchmarks/recurrent.py --out benchmarks/results/recurrent.md

One layer, batch 20, 35 steps, as many inputs as units, for the LSTM too: then both have as many weights and take as many
multiplications. In each round every case runs once, one after the other, in an
order that changes from round to round; a ratio is the median of the rounds' own. With one thread, times are processor time, to
which other work on the machine adds little; with several they are wall time, and need a machine with nothing else to do.

"the bound": the six matrix products of the cell alone, by torch: three large ones, and one of 20 rows for each step and
direction. "libraries" is what a cell would take if torch took the products and nothing else took any time.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn

from archsmith.core.space import decode, sample
from archsmith.discovered import NASCell
from archsmith.nn import cell_kernels
from archsmith.nn.cell_graph import CellGraph, from_architecture, lstm
from archsmith.nn.recurrent import GraphRNN
from archsmith.spaces import RecurrentCell

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

STEPS, BATCH, LEAVES = 35, 20, 8
RANDOM_CELLS = 6


def cells() -> dict[str, CellGraph]:
    """NASCell and random cells of both spaces."""
    found = {"NASCell": NASCell(1, 1).graph}
    for i in range(RANDOM_CELLS):
        space = RecurrentCell(base=8) if i < RANDOM_CELLS - 2 else RecurrentCell.enlarged(base=8)
        name = f"random cell {i + 1}" if i < RANDOM_CELLS - 2 else f"random cell {i + 1}, with max and sin"
        found[name] = from_architecture(decode(space, sample(space, random.Random(i))))
    return found


def equal_lstm(n: int) -> int:
    """The units of the LSTM, with as many inputs, that has as many weights as a cell of eight leaves."""
    return round((LEAVES * n * 2 * n / 8) ** 0.5)


def trainer(module: nn.Module, inputs: int, around: Callable[[], AbstractContextManager[None]]) -> Callable[[], None]:
    x = torch.randn(STEPS, BATCH, inputs)

    def run() -> None:
        module.zero_grad(set_to_none=True)
        with around():
            outputs, _ = module(x)
        outputs.sum().backward()

    return run


def bound(n: int) -> Callable[[], None]:
    rows = LEAVES * n
    w, x, h = torch.randn(rows, n), torch.randn(STEPS * BATCH, n), torch.randn(BATCH, n)
    gradients, gradient = torch.randn(STEPS * BATCH, rows), torch.randn(BATCH, rows)

    def run() -> None:
        x @ w.t()
        gradients @ w
        gradients.t() @ x
        gradients.t() @ x
        for _ in range(STEPS):
            h @ w.t()
            gradient @ w

    return run


def plain() -> AbstractContextManager[None]:
    return _Way("plain")


class _Way(AbstractContextManager[None]):
    def __init__(self, way: str) -> None:
        self.way = way

    def __enter__(self) -> None:
        os.environ["ARCHSMITH_KERNELS"] = self.way

    def __exit__(self, *error: object) -> None:
        del os.environ["ARCHSMITH_KERNELS"]


def cases(n: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    units, named = equal_lstm(n), cells()
    nascell = named["NASCell"]
    found = {
        f"nn.LSTM, {units} units": trainer(nn.LSTM(units, units), units, nullcontext),
        f"nn.LSTM, {units} units, {n} inputs (fewer weights)": trainer(nn.LSTM(n, units), n, nullcontext),
        f"the LSTM as a graph, {units} units": trainer(GraphRNN(lstm(), units, units, bias=True), units, nullcontext),
        "NASCell, plain loop": trainer(GraphRNN(nascell, n, n), n, plain),
    }
    for name, graph in named.items():
        found[name] = trainer(GraphRNN(graph, n, n), n, nullcontext)
    found["NASCell, compiled"] = trainer(GraphRNN(nascell, n, n), n, cell_kernels.compiled)
    found["NASCell, bf16"] = trainer(GraphRNN(nascell, n, n), n, lambda: cell_kernels.precision("bf16"))
    found["libraries (the bound)"] = bound(n)
    return found


def measure(n: int, threads: int, rounds: int) -> list[str]:
    torch.set_num_threads(threads)
    runs = cases(n)
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for round_ in range(rounds + 1):
        random.Random(round_).shuffle(order)
        for name in order:
            began = clock()
            runs[name]()
            if round_:  # the first one compiles, and finds memory
                seconds[name].append(clock() - began)
    first = seconds[next(iter(runs))]
    nascell, limit = seconds["NASCell"], seconds["libraries (the bound)"]

    def ratio(base: list[float], own: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(base, own, strict=True))

    kind = "processor" if threads == 1 else "wall"
    lines = [
        f"### {n} units, {threads} thread{'s' if threads > 1 else ''}",
        "",
        f"{rounds} rounds, {kind} time.",
        "",
        "| | ms | tokens/s | of nn.LSTM | of NASCell | of the bound |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, own in seconds.items():
        middle = statistics.median(own)
        lines.append(
            f"| {name} | {middle * 1e3:.1f} | {STEPS * BATCH / middle:,.0f} | {ratio(first, own):.2f} "
            f"| {ratio(nascell, own):.2f} | {ratio(limit, own):.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 650])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = ["# Recurrent cells", "", machine(), "", "`python benchmarks/recurrent.py`", ""]
    load = os.getloadavg()[0]
    lines += [f"One layer, batch {BATCH}, {STEPS} steps. Load of the machine as it began: {load:.1f}.", ""]
    for threads in options.threads:
        for n in options.sizes:
            lines += measure(n, threads, options.rounds)
            print("\n".join(lines[-12:]), file=sys.stderr)
    text = "\n".join(lines)
    if options.out:
        options.out.write_text(text.rstrip() + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
