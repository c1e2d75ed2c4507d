"""What stopping children early is worth: the best found after equally many epochs, with and without, over many seeds.

    python benchmarks/early_stopping.py                         the tables on stdout; minutes on one core
    python benchmarks/early_stopping.py --out benchmarks/results/early_stopping.md

First every network of a small space is trained on scikit-learn's digits, epoch by epoch: a table of real learning curves, in
which whole searches then take no time, so that there can be many of them. Then some real searches, whose children are
really put aside and taken up again. All by validation accuracy: the test set is not looked at.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import archsmith as smith
from archsmith._search.saved import saved
from archsmith.core.child import Child
from archsmith.core.correlation import spearman
from archsmith.core.space import FunctionSpace
from archsmith.core.stopping import Rule
from archsmith.searchers import BayesianOptimization, Exhaustive, Random, RegularizedEvolution, Reinforce
from archsmith.stopping import ASHA, Median
from archsmith.training import ImageClassification, Tabular

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

EPOCHS = 18
RULES: dict[str, Rule | None] = {
    "none": None,
    "ASHA()": ASHA(),
    "ASHA(eta=2, minimum=2)": ASHA(eta=2, minimum=2),
    "Median()": Median(),
    "Median(grace=6)": Median(grace=6),
}
SEARCHERS: dict[str, Any] = {
    "Random()": Random(),
    "RegularizedEvolution.small()": RegularizedEvolution.small(),
    "Reinforce.small()": Reinforce.small(),
    "BayesianOptimization()": BayesianOptimization(),
}
BUDGETS = (5, 10, 20)  # in whole trainings


def network(choose: Any) -> dict[str, Any]:
    return {
        "layers": choose("layers", (1, 2, 3)),
        "filters": choose("filters", (4, 8, 16)),
        "kernel": choose("kernel", (1, 3)),
        "norm": choose("norm", ("none", "batch")),
        "rate": choose("rate", (0.003, 0.01, 0.03, 0.1)),
    }


def built(architecture: dict[str, Any], task: Any) -> Child:
    from torch import nn

    layers: list[nn.Module] = []
    channels, kernel = task.input_shape[0], architecture["kernel"]
    for _ in range(architecture["layers"]):
        layers.append(nn.Conv2d(channels, architecture["filters"], kernel, padding=kernel // 2))
        layers += [nn.BatchNorm2d(architecture["filters"])] if architecture["norm"] == "batch" else []
        layers.append(nn.ReLU())
        channels = architecture["filters"]
    head = nn.Linear(4 * channels, task.num_classes)
    return Child(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), head), learning_rate=architecture["rate"]
    )


def good(choose: Any) -> dict[str, Any]:
    """Those alone that train well: with batch norm, at the larger rates. Their curves lie close together."""
    return {
        "layers": choose("layers", (1, 2, 3)),
        "filters": choose("filters", (4, 8, 16)),
        "kernel": choose("kernel", (1, 3)),
        "norm": choose("norm", ("batch",)),
        "rate": choose("rate", (0.03, 0.1)),
    }


SPACE, GOOD = FunctionSpace(network, built), FunctionSpace(good, built)
DIGITS = dataclasses.replace(
    ImageClassification.desk("digits", EPOCHS), validation=0.3, schedule="cosine", precision="fp32", batch_size=64
)


def columns() -> tuple[str, ...]:
    return tuple(f"accuracy {epoch}" for epoch in range(1, EPOCHS + 1))


def trained(path: Path) -> float:
    """Train every network of the space and write its curve; gives the seconds that it took."""
    began = time.perf_counter()
    run = smith.search(SPACE, DIGITS, searcher=Exhaustive(), trials=10_000, store="memory://")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layers", "filters", "kernel", "norm", "rate", *columns(), "took"])
        for trial in run.trials():
            assert trial.result is not None
            curve = [row["accuracy"] for row in trial.result.curve]
            curve += [curve[-1] if curve else 0.0] * (EPOCHS - len(curve))  # of one that diverged
            writer.writerow([*trial.genotype.answers.values(), *curve, trial.result.cost.seconds])
    return time.perf_counter() - began


def searched(table: Tabular, searcher: Any, rule: Rule | None, budget: float, seed: int) -> smith.Run:
    return smith.search(
        SPACE, table, searcher=searcher, stopping=rule, trials=None, epochs=budget, seed=seed, store="memory://"
    )


def spread(values: Sequence[float], factor: float = 100.0) -> str:
    return f"{factor * statistics.mean(values):.2f} ({factor * statistics.stdev(values):.2f})"


def replayed(table: Tabular, seeds: int) -> list[str]:
    """Searches of the table, side by side over seeds: each budget is a search of its own."""
    budgets = " | ".join(f"{n * EPOCHS} epochs" for n in BUDGETS)
    lines = [
        f"| searcher | rule | {budgets} | children begun | fewer epochs than whole |",
        "|---|---|" + "---|" * (len(BUDGETS) + 2),
    ]
    for name, searcher in SEARCHERS.items():
        for label, rule in RULES.items():
            cells, begun, fewer = [], 0.0, 0.0
            for budget in BUDGETS:
                runs = [searched(table, searcher, rule, budget * EPOCHS, seed) for seed in range(seeds)]
                cells.append(spread([run.best.reward if run.best and run.best.reward else 0.0 for run in runs]))
                begun = statistics.mean(sum(run.summary.counts.values()) for run in runs)
                found = [saved(run.reader) for run in runs]
                fewer = statistics.mean(one.share if one is not None else 0.0 for one in found)
            lines.append(f"| {name} | {label} | {' | '.join(cells)} | {begun:.0f} | {100 * fewer:.0f} % |")
            print(lines[-1], file=sys.stderr)
    return lines


def same_children(space: FunctionSpace, table: Tabular, seeds: int, trials: int) -> list[str]:
    """What a rule loses: random search proposes the same children under each."""
    lines = ["| rule | best accuracy | seeds whose winner was lost | epochs |", "|---|---|---|---|"]
    whole: list[float] = []
    for label, rule in RULES.items():
        settings: dict[str, Any] = {"stopping": rule, "trials": trials, "store": "memory://"}
        runs = [smith.search(space, table, seed=seed, **settings) for seed in range(seeds)]
        best = [run.best.reward or 0.0 if run.best is not None else 0.0 for run in runs]
        whole = whole or best
        lost = sum(one < other for one, other in zip(best, whole, strict=True))
        epochs = statistics.mean(run.summary.epochs for run in runs)
        lines.append(f"| {label} | {spread(best)} | {lost} of {seeds} | {epochs:.0f} |")
    return lines


def curves(table: Tabular) -> list[str]:
    """How well an early epoch tells how a training ends: rank correlation over the whole table."""
    final = [float(value) for value in table.column_of(table.curve[-1])]
    told = []
    for epoch in (1, 2, 3, 6, 9, 12):
        early = [float(value) for value in table.column_of(table.curve[epoch - 1])]
        best = max(range(len(final)), key=final.__getitem__)
        rank = sum(value > early[best] for value in early) / len(early)
        told.append(f"| {epoch} | {spearman(early, final):.2f} | {100 * rank:.0f} % |")
    head = "| after epoch | rank correlation with the end | of all, ahead of the one that ends best |"
    return [head, "|---|---|---|", *told]


def real(seeds: int, trainings: int, folder: Path) -> list[str]:
    """Real searches of real trainings, with checkpoints in real files."""
    lines = [
        "| rule | best accuracy | children begun | trained to their end | epochs | seconds of processor | checkpoints, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, rule in RULES.items():
        best, begun, done, epochs, seconds, size = [], [], [], [], [], []
        for seed in range(seeds):
            store = f"sqlite:///{folder / f'{len(lines)}-{seed}.db'}"
            at = time.process_time()
            run = smith.search(
                SPACE, DIGITS, stopping=rule, trials=None, epochs=trainings * EPOCHS, seed=seed, store=store
            )
            seconds.append(time.process_time() - at)
            assert run.best is not None
            assert run.best.reward is not None
            assert run.best.result is not None
            best.append(run.best.result.metrics["accuracy"])
            begun.append(sum(run.summary.counts.values()))
            done.append(run.summary.counts["done"])
            epochs.append(run.summary.epochs)
            kept = Path(run.store.artifacts or "")
            size.append(sum(file.stat().st_size for file in kept.glob("*.safetensors")) / 1e6 if kept.is_dir() else 0.0)
        means = [statistics.mean(values) for values in (begun, done, epochs)]
        lines.append(
            f"| {label} | {spread(best)} | {means[0]:.0f} | {means[1]:.0f} | {means[2]:.0f} | {spread(seconds, 1.0)} | "
            f"{statistics.mean(size):.1f} |"
        )
        print(lines[-1], file=sys.stderr)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="where to keep the table of curves, and to find it again")
    parser.add_argument("--seeds", type=int, default=20, help="of searches of the table")
    parser.add_argument("--real", type=int, default=5, help="seeds of real searches")
    parser.add_argument("--trainings", type=int, default=10, help="the budget of a real search, in whole trainings")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.table or Path(folder) / "curves.csv"
        seconds = None if path.exists() else trained(path)
        table = Tabular(
            str(path),
            f"accuracy {EPOCHS}",
            seconds="took",
            curve=columns(),
        )
        took = "" if seconds is None else f" The table took {seconds:.0f} seconds."
        rows = table.describe_data()["rows"]
        text = [
            "# Early stopping",
            "",
            f"`python benchmarks/early_stopping.py --seeds {arguments.seeds} --real {arguments.real}`; {machine()}; one thread.",
            "",
            f"## Searches of a table of {rows} real trainings",
            "",
            f"Networks of one to three convolutions on scikit-learn's digits, {EPOCHS} epochs each on a cosine, 30 % held out for"
            f" validation.{took} Best validation accuracy after the last epoch, per cent, of the children that were trained to"
            f" their end; mean (deviation) of {arguments.seeds} seeds, one worker. The best there is has"
            f" {100 * table.best(SPACE)[1]:.2f}. The last two columns are of the largest budget.",
            "",
            *replayed(table, arguments.seeds),
            "",
            "The same 40 children of random search under each rule, so that what is lost by stopping shows:",
            "",
            *same_children(SPACE, table, arguments.seeds, 40),
            "",
            "And 20 children of the part of the space that trains well (batch norm, rates of 0.03 and 0.1):",
            "",
            *same_children(GOOD, table, arguments.seeds, 20),
            "",
            "How soon the end can be told:",
            "",
            *curves(table),
            "",
            f"## Real searches: {arguments.trainings * EPOCHS} epochs, {arguments.real} seeds",
            "",
            "`Random()` on the same space, each child really trained; checkpoints in files beside an SQLite store.",
            "",
            *real(arguments.real, arguments.trainings, Path(folder)),
            "",
        ]
    tell("\n".join(text), arguments.out)


if __name__ == "__main__":
    main()
