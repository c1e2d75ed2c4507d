"""The loop's throughput on a table: trials a second, whole searches with everything recorded, in memory.

    python benchmarks/tabular.py --table nb201.npz              the table on stdout
    python benchmarks/tabular.py --table nb201.npz --out benchmarks/results/tabular.md

Each searcher searches NAS-Bench-201 through `archsmith.search`. Beside it, in the same process, a plain Python loop: regularized
evolution on lists of numbers and a dict, which records nothing and checks nothing. Processor time, since other work on the
machine adds to the wall clock; the best of several rounds, since it adds a little to processor time too.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import archsmith as smith
from archsmith.core.searcher import Searcher
from archsmith.searchers import PPO, BayesianOptimization, Random, RegularizedEvolution, Reinforce
from archsmith.spaces import NASBench201
from archsmith.spaces.nasbench201 import EDGES, OPERATIONS
from archsmith.training import Tabular

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

# How many trials each is timed over: enough to be past its start, few enough to be done in a minute.
SEARCHERS: dict[str, tuple[Searcher, int]] = {
    "Random()": (Random(), 3000),
    "RegularizedEvolution()": (RegularizedEvolution(), 4000),
    "Reinforce(minibatch=32)": (Reinforce(minibatch=32), 3200),
    "PPO(minibatch=32)": (PPO(minibatch=32), 1600),
    "BayesianOptimization()": (BayesianOptimization(), 200),
}
TARGETS = {"RegularizedEvolution()": 5000, "Reinforce(minibatch=32)": 1500, "PPO(minibatch=32)": 1500}


def plain(rewards: dict[tuple[int, ...], float], trials: int, seed: int = 0) -> float:
    """Regularized evolution with P=100 and S=25, as few lines as it takes; the best reward."""
    rng, alive, best = random.Random(seed), deque[tuple[tuple[int, ...], float]](), 0.0
    for _ in range(trials):
        if len(alive) < 100:
            child = tuple(rng.randrange(5) for _ in range(6))
        else:
            parent = max(rng.choices(alive, k=25), key=lambda member: member[1])[0]
            edge, other = rng.randrange(6), rng.randrange(4)
            child = (*parent[:edge], other + (other >= parent[edge]), *parent[edge + 1 :])
        reward = rewards[child]
        best = max(best, reward)
        alive.append((child, reward))
        if len(alive) > 100:
            alive.popleft()
    return best


def rate(search: Callable[[], object], trials: int, rounds: int) -> tuple[float, float]:
    """Trials a second of processor time and of wall clock, the best round of each."""
    processor, wall = 0.0, 0.0
    for _ in range(rounds):
        at = time.process_time(), time.perf_counter()
        search()
        processor = max(processor, trials / (time.process_time() - at[0]))
        wall = max(wall, trials / (time.perf_counter() - at[1]))
    return processor, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("ARCHSMITH_DATA", "."), "nb201.npz")
    parser.add_argument("--table", type=Path, default=default, help="NAS-Bench-201's arrays")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    space, table = NASBench201(), Tabular.nasbench201(arguments.table)
    columns = [table.column_of(edge).tolist() for edge in EDGES]
    values = table.column_of(table.column).tolist()
    rewards = {tuple(OPERATIONS.index(op) for op in ops): value for *ops, value in zip(*columns, values, strict=True)}
    floor, floor_wall = rate(lambda: plain(rewards, 20_000), 20_000, arguments.rounds)
    lines = [
        "# Throughput of the loop on a table",
        "",
        f"`python benchmarks/tabular.py --rounds {arguments.rounds}`; {machine()}; one thread.",
        "",
        'Whole searches of NAS-Bench-201 with `store="memory://"`. Trials a second, the best round.',
        "",
        "| what | trials | a second of processor time | a second of wall clock | times the plain loop's time | target |",
        "|---|---|---|---|---|---|",
        f"| plain Python evolution, nothing recorded | 20000 | {floor:,.0f} | {floor_wall:,.0f} | 1.0 | |",
    ]
    for name, (searcher, trials) in SEARCHERS.items():

        def search(searcher: Searcher = searcher, trials: int = trials) -> None:
            smith.search(space, table, searcher=searcher, trials=trials, store="memory://")

        search(trials=64)  # what is imported and allocated once
        processor, wall = rate(search, trials, arguments.rounds)
        target = f"{TARGETS[name]:,}" if name in TARGETS else ""
        lines.append(f"| {name} | {trials} | {processor:,.0f} | {wall:,.0f} | {floor / processor:.1f} | {target} |")
    text = "\n".join([*lines, ""])
    tell(text, arguments.out)


if __name__ == "__main__":
    main()
