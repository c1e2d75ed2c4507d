"""What inheriting weights is worth: a mutated child trained from its parent's weights for fewer epochs, and from the beginning.

    python benchmarks/inheritance.py                                   on digits; minutes on one core
    python benchmarks/inheritance.py --data FOLDER --out TABLE.md      on pictures, read at 32 pixels

For each seed a random network is trained, mutated as evolution does it, and the child is trained from the beginning for as
many epochs, and from the weights of its parent for two thirds and a third of them, each with a whole schedule of its own. By
validation accuracy; half of the images are for validation. The test set is not looked at.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path
from random import Random

import archsmith as smith
from archsmith.core.space import Space, mutate, sample
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

EPOCHS = 9
SHARES = {"2/3": 6, "1/3": 3}  # of the epochs, for a child that inherits
SEEDS = 5
SPACES: dict[str, tuple[Space, int]] = {  # and how many pairs of parent and child for each seed
    "ConvChain": (smith.spaces.ConvChain(layers=4, filters=(8, 12, 16, 24)), 3),
    "ResidualNetwork.desk()": (smith.spaces.ResidualNetwork.desk(), 1),
}


def evaluator(data: str, **settings: object) -> ImageClassification:
    desk = ImageClassification.desk(data, epochs=EPOCHS)
    return dataclasses.replace(desk, schedule="cosine", validation=0.5, precision="fp32", **settings)  # type: ignore[arg-type]


def one_pair(train: ImageClassification, space: Space, seed: int) -> dict[str, list[float]]:
    """Validation accuracy by epoch: of the parent, the child from the beginning, and the child with inherited weights."""
    rng = Random(seed)
    parent = sample(space, rng)
    child = mutate(space, parent, rng)
    context = RecordingContext(seed=seed)
    keeping = dataclasses.replace(train, keep_weights=True)
    kept = keeping.evaluate(space, parent, context)
    curves = {"parent": [row["accuracy"] for row in kept.curve]}
    alone = train.evaluate(space, child, RecordingContext(seed=seed + 1000))
    curves["scratch"] = [row["accuracy"] for row in alone.curve]
    for name, epochs in SHARES.items():
        heir = dataclasses.replace(keeping, epochs=epochs, inherit_weights=True)
        with_parent = RecordingContext(
            seed=seed + 1000, parent=0, parent_genotype=parent, earlier={0: context.kept[kept.artifact or ""]}
        )
        result = heir.evaluate(space, child, with_parent)
        assert result.metrics["inherited_parameters"] > 0
        curves[name] = [row["accuracy"] for row in result.curve]
    return curves


def percent(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def table(data: str, name: str, pairs: list[list[dict[str, list[float]]]]) -> list[str]:
    """The rows of one space on some data; `pairs` by seed."""
    flat = [pair for seed in pairs for pair in seed]
    rows = []
    for share, epochs in SHARES.items():
        differences = [statistics.mean(p[share][-1] - p["scratch"][-1] for p in seed) for seed in pairs]
        reached = [next((k + 1 for k, a in enumerate(p[share]) if a >= p["scratch"][-1]), None) for p in flat]
        wins = sum(p[share][-1] >= p["scratch"][-1] for p in flat)
        first = statistics.median(epochs + 1 if k is None else k for k in reached)
        rows.append(
            f"| {data} | {name} | {len(flat)} | {percent([p['scratch'][-1] for p in flat])} | {epochs} "
            f"| {percent([p[share][0] for p in flat])} | {percent([p[share][-1] for p in flat])} "
            f"| {100 * statistics.mean(differences):+.1f} ± {100 * statistics.stdev(differences):.1f} "
            f"| {wins} of {len(flat)} | {f'above {epochs}' if first > epochs else f'{first:g}'} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a folder or an archive of pictures, read at 32 pixels")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = Path(options.data).name.partition(".")[0]
    train = evaluator(options.data, max_train=800, size=None if data == "digits" else 32)
    began, rows, curves = time.process_time(), list[str](), list[str]()
    for name, (space, number) in SPACES.items():
        pairs = [[one_pair(train, space, 10 * seed + k) for k in range(number)] for seed in range(SEEDS)]
        rows += table(data, name, pairs)
        for arm in ("scratch", *SHARES):
            by_epoch = zip(*(pair[arm] for seed in pairs for pair in seed), strict=True)
            curves.append(f"{name:24} {arm:8} {' '.join(f'{100 * statistics.mean(epoch):.1f}' for epoch in by_epoch)}")
        print(*rows[-2:], *curves[-3:], sep="\n", file=sys.stderr, flush=True)
    columns = (
        "data", "space", "pairs", "from scratch", "epochs", "after the first", "at the end", "difference",
        "at least as good", "median first epoch that is",
    )  # fmt: skip
    lines = [
        f"# Inherited weights: {data}",
        "",
        f"`python benchmarks/inheritance.py --data {data}`, {machine()}. {time.process_time() - began:.0f} seconds of one core.",
        "",
        f"Validation accuracy in %, mean ± standard deviation over all pairs, of the difference over {SEEDS} seeds. Parents are",
        f'random networks trained for {EPOCHS} epochs, children are their mutations. "From scratch" is a child trained for',
        f"{EPOCHS} epochs. The others start from the parent's weights and train for the epochs given, each with a whole cosine",
        "schedule. The difference is paired.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *rows,
        "",
        "By epoch, means:",
        "",
        "```",
        *curves,
        "```",
        "",
    ]
    tell("\n".join(lines), options.out)


if __name__ == "__main__":
    main()
