"""The controller's own cost: architectures sampled, and learned from, in a second.

    python benchmarks/controller.py              the table on stdout
    python benchmarks/controller.py --out benchmarks/results/controller.md

Twenty layers of three questions each: filter height, filters, and the inputs (an anchor). One thread. "Sampled" counts
genotypes ready to be built, each walked through its space; "learned" adds telling them: one teacher-forced pass with
gradients and one step of Adam. Each figure is the best of several rounds, since other work on the machine only adds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from archsmith.core.space import FunctionSpace
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.searchers import Random, Reinforce

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

LAYERS = 20


def static(choose: Any) -> list[Any]:
    return [
        {
            "filter_height": choose(f"{i}.filter_height", (1, 3, 5, 7)),
            "filters": choose(f"{i}.filters", (24, 36, 48, 64)),
            "inputs": choose.subset(f"{i}.inputs", range(i)),
        }
        for i in range(LAYERS)
    ]


def conditional(choose: Any) -> list[Any]:
    """As many questions, of which some depend on answers."""
    layers = []
    for i in range(LAYERS):
        kind = choose(f"{i}.type", ("conv", "pool"))
        size = choose(f"{i}.size", (1, 3, 5, 7)) if kind == "conv" else choose(f"{i}.pool", (2, 3))
        layers.append({"type": kind, "size": size, "inputs": choose.subset(f"{i}.inputs", range(i))})
    return layers


def seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def row(label: str, config: Any, space: Any, m: int, rounds: int) -> str:
    live = config.start(FunctionSpace(space), 0)
    proposals: list[Any] = []

    def ask() -> None:
        proposals[:] = live.ask(m)

    def tell() -> None:
        live.tell(
            [
                Trial(number, proposal.genotype, state=TrialState.DONE, reward=0.01 * (number % 7), result=Result())
                for number, proposal in enumerate(proposals)
            ]
        )

    def both() -> None:
        ask()
        tell()

    asked = seconds(ask, rounds)
    learned = seconds(both, rounds)
    return f"| {label} | {m} | {m / asked:,.0f} | {m / learned:,.0f} | {1e3 * learned:.1f} | {1e3 * learned / m:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# The controller's throughput, one thread, 60 choices",
        "",
        f"`python benchmarks/controller.py --rounds {args.rounds}`",
        "",
        machine(),
        "",
        "| what | m | sampled a second | learned a second | ms a minibatch, sampled and learned | ms a trial |",
        "|---|---|---|---|---|---|",
    ]
    for m in (1, 8, 64, 256):
        lines.append(row("questions fixed", Reinforce(minibatch=m), static, m, args.rounds))
    for m in (8, 64):
        lines.append(row("questions depend on answers", Reinforce(minibatch=m), conditional, m, args.rounds))
    for m in (8, 64):
        lines.append(
            row('anchor_input="hidden"', Reinforce(minibatch=m, anchor_input="hidden"), static, m, args.rounds)
        )
    lines.append(row("random search", Random(), static, 256, args.rounds))
    text = "\n".join(lines) + "\n"
    tell(text, args.out)


if __name__ == "__main__":
    main()
