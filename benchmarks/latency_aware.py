"""What a reward with latency in it changes: the networks found, on a table of real trainings and measured latencies.

    ARCHSMITH_DATA=... python benchmarks/latency_aware.py [--seeds 20] [--trials 500] [--target 5]

NAS-Bench-201's cells on CIFAR-10, latency of a Pixel 3 (HW-NAS-Bench). Three searchers, each with the accuracy alone, the
soft reward (w = -0.07) and the hard one (0, -1). Told are, as medians over seeds: accuracy and latency of the best
by its own reward; the highest accuracy among the trials that are no slower than the target; and the area under the front:
the mean over latencies from a fifth of the target to four times the target, on a logarithmic axis, of the best
accuracy that is no slower.
"""

from __future__ import annotations

import argparse
import bisect
import math
import os
import statistics

import archsmith as smith
from archsmith.core.executor import Reward
from archsmith.core.searcher import Searcher
from archsmith.rewards import latency_weighted
from archsmith.searchers import PPO, Random, RegularizedEvolution
from archsmith.spaces import NASBench201
from archsmith.training import Tabular


def area(points: list[tuple[float, float]], target: float, steps: int = 200) -> float:
    """The mean best accuracy over latencies, of (latency, accuracy) in order of latency; 0 where none is as fast."""
    latencies = [latency for latency, _ in points]
    total = 0.0
    for k in range(steps):
        at = target / 5 * 20 ** (k / (steps - 1))
        index = bisect.bisect_right(latencies, at)
        total += points[index - 1][1] if index else 0.0
    return total / steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--target", type=float, default=5.0)
    options = parser.parse_args()
    table = os.path.join(os.environ["ARCHSMITH_DATA"], "nb201.npz")
    evaluator = Tabular.nasbench201(table, latency="pixel3")
    searchers: dict[str, Searcher] = {
        "random": Random(),
        "evolution": RegularizedEvolution(population=50, sample=10),
        "PPO": PPO(learning_rate=1e-2, minibatch=10),
    }
    rewards: dict[str, Reward | None] = {
        "accuracy": None,
        "soft": latency_weighted(options.target),
        "hard": latency_weighted(options.target, alpha=0, beta=-1),
    }
    print(f"{options.seeds} seeds, {options.trials} trials each, target {options.target:g} ms; medians")
    print(f"{'searcher':<10} {'reward':<9} {'accuracy':>9} {'ms':>7} {'within target':>14} {'area':>8} {'late ms':>8}")
    for name, searcher in searchers.items():
        for kind, reward in rewards.items():
            rows = []
            for seed in range(options.seeds):
                run = smith.search(
                    NASBench201(),
                    evaluator,
                    searcher=searcher,
                    reward=reward,
                    trials=options.trials,
                    store="memory://",
                    seed=seed,
                )
                assert run.best is not None
                assert run.best.result is not None
                best = run.best.result.metrics
                front = [t.result.metrics for t in run.pareto("accuracy", "latency") if t.result is not None]
                within = max((m["accuracy"] for m in front if m["latency"] <= options.target), default=math.nan)
                points = [(m["latency"], m["accuracy"]) for m in front]
                late = [
                    t.result.metrics["latency"] for t in run.trials() if t.result and t.number >= 0.8 * options.trials
                ]
                rows.append(
                    (best["accuracy"], best["latency"], within, area(points, options.target), statistics.fmean(late))
                )
            a, ms, within, under, late_ms = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{name:<10} {kind:<9} {a:9.4f} {ms:7.2f} {within:14.4f} {under:8.4f} {late_ms:8.2f}", flush=True)


if __name__ == "__main__":
    main()
