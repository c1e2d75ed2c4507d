"""Does the controller learn? REINFORCE against random search on synthetic landscapes, at equal budgets, over many seeds.

    python benchmarks/landscape.py                 the table on stdout
    python benchmarks/landscape.py --out benchmarks/results/landscape.md

Each seed draws a landscape of its own over a chain of six convolutional layers (64^6 * 2^15, or 2.3e15 architectures): the
best filter height, width and count of each layer wander with depth, as they do in networks, neighbouring layers count
extra when both are right, and each pair of layers is better connected or not. What a trial returns has noise, as a short
training has. All searchers meet the same landscapes and the same noise; random search sees as many trials. A landscape
shows that the machinery learns, not that it finds better networks.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from archsmith.core.space import FunctionSpace
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.searchers import Random, Reinforce

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

LAYERS, NOISE = 6, 0.01
OPTIONS = {"filter_height": (1, 3, 5, 7), "filter_width": (1, 3, 5, 7), "filters": (24, 36, 48, 64)}


def chain(choose: Any) -> list[Any]:
    return [
        {
            **{name: choose(f"{i}.{name}", options) for name, options in OPTIONS.items()},
            "inputs": choose.subset(f"{i}.inputs", range(i)),
        }
        for i in range(LAYERS)
    ]


class Landscape:
    """A made-up accuracy from 0.5 to 1 for each genotype; rewards are its cube."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        steps = rng.integers(-1, 2, (LAYERS, len(OPTIONS)))
        self.target = np.clip(rng.integers(0, 4, len(OPTIONS)) + steps.cumsum(0), 0, 3)
        self.wanted = rng.random((LAYERS, LAYERS)) < 0.5

    def accuracy(self, answers: Any) -> float:
        found = np.array(
            [[options.index(answers[f"{i}.{name}"]) for name, options in OPTIONS.items()] for i in range(LAYERS)]
        )
        near = 1 - np.abs(found - self.target) / 3
        right = (found == self.target).mean(axis=1)
        pairs = (right[:-1] * right[1:]).mean()
        joined = np.mean([(j in answers[f"{i}.inputs"]) == self.wanted[i, j] for i in range(LAYERS) for j in range(i)])
        return float(0.5 + 0.5 * (0.4 * near.mean() + 0.3 * pairs + 0.3 * joined))


def run(config: Any, seed: int, trials: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """The true reward of each trial, and of the best so far by what was observed."""
    landscape, noise = Landscape(seed), np.random.default_rng([seed, 2]).normal(0, NOISE, trials)
    live = config.start(FunctionSpace(chain), seed)
    true, best, observed = np.empty(trials), np.empty(trials), -math.inf
    for number in range(0, trials, workers):
        told = []
        for k, proposal in enumerate(live.ask(min(workers, trials - number))):
            accuracy = landscape.accuracy(proposal.genotype.answers)
            reward = (accuracy + noise[number + k]) ** 3
            true[number + k] = accuracy**3
            if reward > observed:
                observed, kept = reward, true[number + k]
            best[number + k] = kept
            told.append(Trial(number + k, proposal.genotype, state=TrialState.DONE, reward=reward, result=Result()))
        live.tell(told[::-1])
    return true, best


def interval(values: np.ndarray) -> str:
    """Mean with the half width of its 95 % interval over seeds, by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=3200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    searchers = {
        "Random()": (Random(), 1),
        "Reinforce(), the paper's settings": (Reinforce(), 1),
        "Reinforce(), 13 results at a time, in reverse": (Reinforce(), 13),
        "Reinforce(learning_rate=3.5e-3)": (Reinforce(learning_rate=3.5e-3), 1),
        "Reinforce(learning_rate=1e-2)": (Reinforce(learning_rate=1e-2), 1),
        'Reinforce(learning_rate=3.5e-3, anchor_input="hidden")': (
            Reinforce(learning_rate=3.5e-3, anchor_input="hidden"),
            1,
        ),
    }
    marks = [n for n in (100, 200, 400, 800, 1600, 3200, 6400, 12800) if n <= args.trials]
    results, took = {}, {}
    for name, (config, workers) in searchers.items():
        began = time.perf_counter()
        results[name] = [run(config, seed, args.trials, workers) for seed in range(args.seeds)]
        took[name] = time.perf_counter() - began
        print(f"{name}: {took[name]:.0f} s", file=sys.stderr)
    lines = [
        "# Learning on synthetic landscapes",
        "",
        f"`python benchmarks/landscape.py --seeds {args.seeds} --trials {args.trials}`",
        "",
        machine(),
        "",
        f"Mean over {args.seeds} seeds, each a landscape of its own, with the 95 % interval of the mean.",
    ]
    for title, pick in (
        ("Mean reward of the last 100 trials, after as many trials", lambda r, n: r[0][n - 100 : n].mean()),
        ("Reward of the best so far (chosen by what was observed, without its noise)", lambda r, n: r[1][n - 1]),
    ):
        lines += ["", f"## {title}", "", f"| searcher | {' | '.join(map(str, marks))} | ahead of random |"]
        lines += ["|---|" + "---|" * (len(marks) + 1)]
        for name, runs in results.items():
            cells = [interval(np.array([pick(r, n) for r in runs])) for n in marks]
            ahead = sum(pick(a, marks[-1]) > pick(b, marks[-1]) for a, b in zip(runs, results["Random()"], strict=True))
            lines.append(f"| {name} | {' | '.join(cells)} | {ahead} of {args.seeds} |")
    lines += ["", "Seconds a run: " + ", ".join(f"{n}: {s / args.seeds:.1f}" for n, s in took.items()) + "."]
    text = "\n".join(lines) + "\n"
    tell(text, args.out)


if __name__ == "__main__":
    main()
