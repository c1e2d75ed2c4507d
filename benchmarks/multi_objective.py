"""Fronts of accuracy and latency on a table of real trainings: NSGA2, Optuna's NSGA-II and TPE, and random search.

    ARCHSMITH_DATA=... python benchmarks/multi_objective.py [--seeds 50] [--trials 200] [--dataset cifar10] [--device pixel3]

NAS-Bench-201's cells, with their validation accuracy after 200 epochs and the latency of a device (HW-NAS-Bench). Told is the
hypervolume: the share of the rectangle between the worst and the best values of the table that the front of a search covers,
as a part of what the front of the whole table covers. Each seed's random search is what a searcher's seed is paired with.
benchmarks/README.md explains it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from machine import machine, tell

import archsmith as smith
from archsmith.core.pareto import pareto
from archsmith.searchers import NSGA2, Optuna, Random
from archsmith.spaces import NASBench201
from archsmith.training import Tabular

OUT = Path(__file__).resolve().parent / "results" / "multi_objective.md"
OBJECTIVES = ("value", "latency")


def hypervolume(points: list[tuple[float, float]], worst: tuple[float, float], best: tuple[float, float]) -> float:
    """The share of the rectangle that points of (value, latency) dominate. More value and less latency are better."""
    covered, height = 0.0, 0.0
    for value, latency in sorted(points, key=lambda point: point[1]):
        gain = (value - worst[0]) / (best[0] - worst[0])
        if gain > height:
            covered += (gain - height) * max(0.0, (worst[1] - latency) / (worst[1] - best[1]))
            height = gain
    return covered


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean, by bootstrap."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (10_000, len(differences)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--device", default="pixel3")
    parser.add_argument("--population", type=int, nargs="*", help="other populations of NSGA2, to choose one")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    table = Path(os.environ["ARCHSMITH_DATA"]) / "nb201.npz"
    evaluator = Tabular.nasbench201(table, options.dataset, latency=options.device)
    space = NASBench201()

    def points(searcher: object, seed: int, trials: int) -> list[tuple[float, float]]:
        run = smith.search(
            space, evaluator, searcher=searcher, trials=trials, seed=seed, store="memory://", name="run",
            executor=smith.executors.InProcess(),
        )  # fmt: skip
        front = pareto(run.trials(), OBJECTIVES)
        return [(t.result.metrics["value"], t.result.metrics["latency"]) for t in front if t.result is not None]

    whole = smith.search(
        space, evaluator, searcher=smith.searchers.Exhaustive(), store="memory://", name="all", trials=15_625,
        executor=smith.executors.InProcess(),
    )  # fmt: skip
    metrics = [t.result.metrics for t in whole.trials() if t.result is not None]
    values, latencies = ([each[name] for each in metrics] for name in OBJECTIVES)
    worst, best = (min(values), max(latencies)), (max(values), min(latencies))
    most = hypervolume(list(zip(values, latencies, strict=True)), worst, best)

    searchers: dict[str, object] = {"Random": Random(), "NSGA2": NSGA2(OBJECTIVES)}
    if options.population:
        searchers |= {f"NSGA2({n})": NSGA2(OBJECTIVES, population=n) for n in options.population}
    searchers |= {
        "Optuna NSGA-II": Optuna("nsga2", objectives=OBJECTIVES),
        "Optuna NSGA-II, population 20": Optuna("nsga2", population_size=20, objectives=OBJECTIVES),
        "Optuna TPE": Optuna("tpe", objectives=OBJECTIVES),
    }
    found: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name, searcher in searchers.items():
        began = time.process_time()
        found[name] = np.array(
            [hypervolume(points(searcher, seed, options.trials), worst, best) / most for seed in range(options.seeds)]
        )
        seconds[name] = time.process_time() - began
        print(f"{name}: {100 * found[name].mean():.2f}", flush=True)
    lines = [
        f"# Fronts of accuracy and latency: {options.dataset}, {options.device}",
        "",
        f"`python benchmarks/multi_objective.py --seeds {options.seeds} --trials {options.trials} --dataset {options.dataset} "
        f"--device {options.device}`, {machine()}.",
        "",
        "Hypervolume in % of that of the table's front; intervals are of the mean difference of pairs of seeds (95 %, bootstrap).",
        "",
        "| searcher | hypervolume (sd) | above Random | above Optuna's NSGA-II | processor seconds a search |",
        "|---|---|---|---|---|",
    ]
    for name, shares in found.items():
        cells = []
        for other in ("Random", "Optuna NSGA-II"):
            low, high = interval(100 * (shares - found[other]))
            cells.append(
                "" if name == other else f"{100 * (shares - found[other]).mean():+.2f} ({low:+.2f} to {high:+.2f})"
            )
        lines.append(
            f"| {name} | {100 * shares.mean():.2f} ({100 * shares.std(ddof=1):.2f}) | {cells[0]} | {cells[1]} | "
            f"{seconds[name] / options.seeds:.2f} |"
        )
    tell("\n".join(lines) + "\n", options.out)


if __name__ == "__main__":
    main()
