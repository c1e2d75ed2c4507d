"""The loop's own cost per trial: ask, record, tell; the evaluation is a constant.

    python benchmarks/loop.py                    the table on stdout
    python benchmarks/loop.py --out benchmarks/results/loop.md

Sixty choices of five options, random search, in this process. For each store, the mean cost of a trial within a
window of the run, so that growth with the number of trials would show; beside it, in the same run, what the bare
minimum costs: sampling the answers and decoding them again, twice over (once for the searcher, once for the
evaluator).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from random import Random as Rng
from typing import Any

import archsmith as smith
from archsmith.core.space import as_space, decode, sample
from archsmith.core.trial import TrialState

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

CHOICES = 60


def space(choose: Any) -> list[Any]:
    return [choose(f"{i}.option", (1, 2, 3, 4, 5)) for i in range(CHOICES)]


def constant(architecture: Any) -> float:
    return 1.0


def floor_us(n: int = 3000) -> float:
    """Microseconds to sample and decode one genotype."""
    rng, own = Rng(0), as_space(space)
    began = time.perf_counter()
    for _ in range(n):
        decode(own, sample(own, rng))
    return (time.perf_counter() - began) / n * 1e6


def windows(store: str, trials: int, marks: list[int]) -> list[float]:
    """Mean milliseconds per trial within each window between two marks."""
    stamps: list[float] = []
    done = 0

    def watch(event: Any) -> None:
        nonlocal done
        if isinstance(event, smith.Trial) and event.state is TrialState.DONE:
            done += 1
            if done in marks:
                stamps.append(time.perf_counter())

    smith.search(space, constant, trials=trials, store=store, name="bench", watch=watch)
    spans = zip(marks, marks[1:], stamps, stamps[1:], strict=False)
    return [(t1 - t0) / (m1 - m0) * 1e3 for m0, m1, t0, t1 in spans]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    marks = [m for m in (100, 1_000, 10_000, 50_000, 100_000) if m <= arguments.trials]
    lines = [
        "# The loop's own cost per trial",
        "",
        f"`python benchmarks/loop.py --trials {arguments.trials}`; {machine()}. Milliseconds per trial of {CHOICES} choices.",
        "SQLite: write-ahead log, `synchronous=NORMAL`, one commit for each event (proposed, running, finished).",
        "",
        "| store | " + " | ".join(f"trials {a:,}-{b:,}" for a, b in pairwise(marks)) + " |",
        "|---" * len(marks) + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, url in (("memory", "memory://"), ("SQLite", f"sqlite:///{folder}/runs.db")):
            spans = windows(url, arguments.trials, marks)
            lines.append(f"| {name} | " + " | ".join(f"{ms:.3f}" for ms in spans) + " |")
    lines += [
        "",
        f"Sampling and decoding one genotype, the floor of it: {floor_us() / 1e3:.3f} ms in the same run.",
        "",
    ]
    text = "\n".join(lines)
    tell(text, arguments.out)


if __name__ == "__main__":
    main()
