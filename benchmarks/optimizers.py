"""PowerSign and a found rule beside torch's own optimizers: milliseconds a step, for a small model and a large one.

    python benchmarks/optimizers.py                       the table on stdout
    python benchmarks/optimizers.py --device cuda
    python benchmarks/optimizers.py --out benchmarks/results/optimizers.md

Every optimizer steps on parameters and gradients of its own, in turn, round after round; ratios are medians of what the
rounds gave. "one by one" is our reference, a loop over the parameters.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from archsmith.core.child import Task
from archsmith.discovered import PowerSign
from archsmith.nn.models import model_named
from archsmith.nn.update_rule import RuleOptimizer

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

RULE = "drop(m, 0.1) / exp(g ^ 2) + 1e-4 * w"
MAKERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD with momentum, foreach": lambda p: torch.optim.SGD(p, 1e-4, momentum=0.9, foreach=True),
    "SGD with momentum, fused": lambda p: torch.optim.SGD(p, 1e-4, momentum=0.9, fused=True),
    "Adam, foreach": lambda p: torch.optim.Adam(p, 1e-4, foreach=True),
    "Adam, fused": lambda p: torch.optim.Adam(p, 1e-4, fused=True),
    "m / sqrt(v), which is Adam": lambda p: RuleOptimizer(p, "m / sqrt(v)", 1e-4),
    "PowerSign": lambda p: PowerSign(p, 1e-4),
    "PowerSign, one by one": lambda p: PowerSign(p, 1e-4, foreach=False),
    RULE: lambda p: RuleOptimizer(p, RULE, 1e-4),
    f"{RULE}, one by one": lambda p: RuleOptimizer(p, RULE, 1e-4, foreach=False),
}
COMPILED = {"PowerSign, compiled": lambda p: PowerSign(p, 1e-4, compile=True)}


def parameters(shapes: list[torch.Size], device: str) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for p in made:
        p.grad = torch.randn_like(p) * 1e-2
    return made


def milliseconds(optimizer: torch.optim.Optimizer, steps: int, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps * 1e3


def compare(
    model: str, makers: dict[str, Callable[..., torch.optim.Optimizer]], rounds: int, steps: int, device: str
) -> str:
    shapes = [p.shape for p in model_named(model, Task()).parameters()]
    optimizers = {}
    for name, make in makers.items():
        optimizers[name] = make(parameters(shapes, device))
        milliseconds(optimizers[name], 3, device)
    took: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, optimizer in optimizers.items():
            took[name].append(milliseconds(optimizer, steps, device))
    lines = [
        f"### {model}",
        "",
        f"{len(shapes)} parameters, {sum(s.numel() for s in shapes):,} numbers; {rounds} rounds of {steps} steps.",
        "",
        "| optimizer | ms a step | over SGD, foreach | over Adam, foreach |",
        "| --- | --- | --- | --- |",
    ]
    for name, times in took.items():
        over = [
            statistics.median(mine / theirs for mine, theirs in zip(times, took[other], strict=True))
            for other in ("SGD with momentum, foreach", "Adam, foreach")
        ]
        lines.append(f"| {name} | {statistics.median(times):.3f} | {over[0]:.2f} | {over[1]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as well; needs a compiler")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers = {**MAKERS, **COMPILED} if options.compiled else MAKERS
    where = torch.cuda.get_device_name() if options.device == "cuda" else "one thread of the processor"
    command = f"`python benchmarks/optimizers.py{' --device cuda' if options.device == 'cuda' else ''}`"
    parts = [f"# Optimizers: {where}", "", machine(), "", command, ""]
    parts.append(compare("resnet20", makers, options.rounds, 50, options.device))
    parts.append(compare("wrn_28_10", makers, options.rounds, 20 if options.device == "cuda" else 1, options.device))
    text = "\n".join(parts)
    tell(text, options.out)


if __name__ == "__main__":
    main()
