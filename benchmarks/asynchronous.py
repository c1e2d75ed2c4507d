"""Asynchronous training of the controller: what staleness costs in learning, and what the scheme costs in time.

    python benchmarks/asynchronous.py                 the tables on stdout
    python benchmarks/asynchronous.py --out benchmarks/results/asynchronous.md

Learning: a chain of six convolutional layers on a made landscape of its own for each seed, K replicas of m=8 children all
at work, each child for a time drawn from a lognormal distribution (a deviation of 0.5 of its logarithm). What is
compared is the mean reward of the last 500 children of equal budgets: what the policy came to. A landscape shows that the
machinery learns, not that it finds better networks.

Cost: NAS-Bench-201's table, the paper's S=20, K=100, m=8, in this process; trials a second of ask and tell alone, and what a
snapshot of the searcher takes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import heapq
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.core.searcher import Searcher
from archsmith.core.space import Space
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.searchers import Asynchronous, Random, Reinforce
from archsmith.spaces import ConvChain, NASBench201
from archsmith.store.snapshot import dump_state
from archsmith.training import Landscape

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

LAST = 500


def play(searcher: Searcher, space: Space, landscape: Landscape, trials: int, seed: int, workers: int) -> Any:
    """Rewards in the order told, and the live searcher."""
    live: Any = searcher.start(space, seed)
    rng, ends, asked, now, rewards = np.random.default_rng(seed), list[Any](), 0, 0.0, list[float]()
    while len(rewards) < trials:
        free = workers - len(ends)
        for proposal in live.ask(min(free, live.capacity()) if hasattr(live, "capacity") else free):
            heapq.heappush(ends, (now + rng.lognormal(0.0, 0.5), asked, proposal.genotype))
            asked += 1
        now, number, genotype = heapq.heappop(ends)
        rewards.append(landscape.height(genotype))
        live.tell([Trial(number, genotype, state=TrialState.DONE, reward=rewards[-1], result=Result())])
    return rewards, live


def learning(trials: int, seeds: int, rate: float) -> list[str]:
    space, learner = ConvChain(layers=6), Reinforce(learning_rate=rate)
    schemes: dict[str, tuple[Searcher, int]] = {
        "random search": (Random(), 8),
        "Reinforce, one child at a time": (learner, 1),
        "Reinforce, 800 at a time": (learner, 800),
        **{f"K={k}": (Asynchronous(learner, replicas=k), 8 * k) for k in (1, 10, 100)},
        "K=100, accumulate=10": (Asynchronous(learner, replicas=100, accumulate=10), 800),
    }
    lines = [
        f"## Learning: {trials:,} children, {seeds} seeds, learning rate {rate:g}",
        "",
        f"| | mean of the last {LAST} (deviation over seeds) | best | staleness of the last update | updates |",
        "|---|---|---|---|---|",
    ]
    for name, (searcher, workers) in schemes.items():
        last, best, stale, updates = [], [], list[float](), list[float]()
        for seed in range(seeds):
            rewards, live = play(searcher, space, Landscape(seed), trials, seed, workers)
            last.append(np.mean(rewards[-LAST:]))
            best.append(max(rewards))
            shown = live.diagnostics()
            stale += [shown["mean_staleness"]] if "mean_staleness" in shown else []
            updates += [shown["updates"]] if shown else []
        lines.append(
            f"| {name} | {np.mean(last):.3f} ({np.std(last):.3f}) | {np.mean(best):.3f} ({np.std(best):.3f}) "
            f"| {f'{np.mean(stale):.1f}' if stale else ''} | {f'{np.mean(updates):.0f}' if updates else ''} |"
        )
        print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def cost() -> list[str]:
    lines = [
        "## Cost: S=20, K=100, m=8 in one process",
        "",
        "| space | until 800 proposals are there, s | trials a second of processor time | of wall clock | snapshot, MB "
        "| takes, ms of processor time | largest memory of the process, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    spaces: dict[str, Space] = {"NAS-Bench-201, 6 choices": NASBench201(), "ConvChain(), 75 choices": ConvChain()}
    for name, space in spaces.items():
        began = time.perf_counter()
        searcher, landscape = Asynchronous(), Landscape()
        searcher.start(space, 0).ask(800)
        start = time.perf_counter() - began
        at = time.process_time(), time.perf_counter()
        rewards, live = play(searcher, space, landscape, 2400, 0, 800)
        took = time.process_time() - at[0], time.perf_counter() - at[1]
        at = time.process_time(), 0.0
        size = len(dump_state(live.state_dict()))
        snapshot = time.process_time() - at[0]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        lines.append(
            f"| {name} | {start:.2f} | {len(rewards) / took[0]:,.0f} | {len(rewards) / took[1]:,.0f} "
            f"| {size / 1e6:.1f} | {snapshot * 1e3:.0f} | {memory:.0f} |"
        )
        print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = ["# Asynchronous training of the controller", "", f"{machine()}; one thread.", ""]
    lines += cost() + learning(arguments.trials, arguments.seeds, arguments.rate)
    tell("\n".join(lines), arguments.out)


if __name__ == "__main__":
    main()
