"""Children a minute, by how they are placed on a machine's cores, by precision and by memory layout; and whether the
faster precision keeps the ranking of children.

    python benchmarks/placement.py                  the tables on stdout
    python benchmarks/placement.py --out benchmarks/results/placement.md

Every child is trained by `ImageClassification` in workers of `ProcessPool`, as a search does it; the clock runs from
the first submit to the last result, with workers up and data loaded. Ranks are compared over random children: fp32
with bf16 from the same seeds, and fp32 with itself from other seeds, which is what no precision can exceed.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from archsmith.core.executor import Completed, Job
from archsmith.core.genotype import Genotype
from archsmith.core.space import sample
from archsmith.core.trial import TrialState
from archsmith.executors import ProcessPool
from archsmith.rewards import accuracy
from archsmith.spaces import ConvChain
from archsmith.training import ImageClassification

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

SPACE = ConvChain(layers=4, filter_heights=(1, 3, 5), filter_widths=(1, 3, 5), filters=(16, 24, 36))


def train(
    pool: ProcessPool, evaluator: ImageClassification, genotypes: Sequence[Genotype], seed: int = 0
) -> tuple[list[dict[str, float]], float]:
    """The metrics of each child, in order, and the seconds for all."""
    began = time.perf_counter()
    for i, genotype in enumerate(genotypes):
        pool.submit(Job(i, SPACE, genotype, evaluator, accuracy, seed=seed * 1000 + i))
    done: dict[int, dict[str, float]] = {}
    while len(done) < len(genotypes):
        for event in pool.completed():
            if isinstance(event, Completed):
                if event.state is not TrialState.DONE:
                    raise SystemExit(f"a child failed: {event.result.failure}")
                done[event.trial] = dict(event.result.metrics)
    return [done[i] for i in range(len(genotypes))], time.perf_counter() - began


def children(count: int, least: int, most: int) -> list[Genotype]:
    """Random genotypes with between `least` and `most` parameters for digits."""
    from archsmith.core.space import build
    from archsmith.nn.count import count_parameters

    task, found, seed = ImageClassification().task(), [], 0
    while len(found) < count:
        genotype = sample(SPACE, random.Random(seed))
        if least <= count_parameters(build(SPACE, genotype, task).model) <= most:
            found.append(genotype)
        seed += 1
    return found


# --- rank correlation -------------------------------------------------------------------------------------------------


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 0; equal values share the mean of theirs."""
    return [sum(v < w for v in values) + (sum(v == w for v in values) - 1) / 2 for w in values]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.correlation(ranks(a), ranks(b))


def ranking(evaluator: ImageClassification, count: int, workers: int) -> list[str]:
    genotypes = children(count, 5_000, 90_000)
    runs = {
        "fp32": ("fp32", 0),
        "fp32, other seeds": ("fp32", 1),
        "bf16": ("bf16", 0),
        "bf16, other seeds": ("bf16", 1),
    }
    found: dict[str, list[dict[str, float]]] = {}
    pool = ProcessPool(workers)
    for name, (precision, seed) in runs.items():
        found[name], _ = train(pool, dataclasses.replace(evaluator, precision=precision), genotypes, seed)
        print(f"ranking: {name} done", file=sys.stderr, flush=True)
    pool.close()
    lines = [
        f"{count} random children of 5,000 to 90,000 parameters, {evaluator.epochs} epochs of digits, validation on "
        f"{len(evaluator.splits().validation)} images. Spearman's rank correlation:",
        "",
        "| compared | of accuracy | of loss | mean accuracy |",
        "| --- | --- | --- | --- |",
    ]
    pairs = [
        ("fp32", "fp32, other seeds"),
        ("fp32", "bf16"),
        ("fp32, other seeds", "bf16, other seeds"),
        ("fp32", "bf16, other seeds"),
    ]
    for a, b in pairs:
        rho = [spearman([m[k] for m in found[a]], [m[k] for m in found[b]]) for k in ("accuracy", "loss")]
        means = [statistics.mean(m["accuracy"] for m in found[name]) for name in (a, b)]
        lines.append(f"| {a} with {b} | {rho[0]:.3f} | {rho[1]:.3f} | {means[0]:.4f}, {means[1]:.4f} |")
    return [*lines, ""]


# --- placement --------------------------------------------------------------------------------------------------------


def placement(evaluator: ImageClassification, count: int, rounds: int) -> list[str]:
    genotypes = children(1, 45_000, 55_000) * count
    quick = dataclasses.replace(evaluator, epochs=1)
    cases = {
        (workers, threads, precision, last): ProcessPool(workers, threads=threads)
        for workers, threads, precision, last in (
            (1, 1, "auto", True),
            (1, 2, "auto", True),
            (2, 1, "auto", True),
            (3, 1, "auto", True),
            (2, 1, "fp32", False),
            (2, 1, "fp32", True),
            (2, 1, "bf16", False),
            (2, 1, "bf16", True),
        )
    }
    minutes: dict[tuple[int, int, str, bool], list[float]] = {case: [] for case in cases}
    for (workers, _, precision, last), pool in cases.items():  # workers up, data loaded, kernels chosen
        train(
            pool, dataclasses.replace(quick, precision=precision, channels_last=last), genotypes[: max(2 * workers, 2)]
        )
    for _ in range(rounds):
        for (workers, threads, precision, last), pool in cases.items():
            config = dataclasses.replace(evaluator, precision=precision, channels_last=last)
            _, seconds = train(pool, config, genotypes)
            minutes[workers, threads, precision, last].append(60 * count / seconds)
            print(f"{workers} x {threads}, {precision}, {last}: {seconds:.1f} s", file=sys.stderr, flush=True)
    for pool in cases.values():
        pool.close()
    base = minutes[1, 1, "auto", True]
    lines = [
        f"{count} children of about 50,000 parameters a round, {evaluator.epochs} epochs of digits, {rounds} rounds.",
        "",
        "| processes x threads | precision | layout | children a minute | against 1 x 1, auto |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (workers, threads, precision, last), rates in minutes.items():
        ratio = statistics.median(r / b for r, b in zip(rates, base, strict=True))
        layout = "channels-last" if last else "contiguous"
        lines.append(
            f"| {workers} x {threads} | {precision} | {layout} | {statistics.median(rates):.1f} | {ratio:.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--count", type=int, default=6, help="children a round")
    parser.add_argument("--ranked", type=int, default=24, help="children whose ranks are compared")
    parser.add_argument("--workers", type=int, default=2, help="for the ranking, which takes no times")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    desk = ImageClassification.desk(epochs=options.epochs)
    parts = ["# Placement, layout and precision", "", machine(), "", "`python benchmarks/placement.py`", ""]
    if options.rounds:
        parts += ["## Children a minute", "", *placement(desk, options.count, options.rounds)]
    if options.ranked:
        # More validation images than a search sets aside: with 144, accuracies of children tie.
        parts += [
            "## Ranking",
            "",
            *ranking(dataclasses.replace(desk, validation=0.4), options.ranked, options.workers),
        ]
    text = "\n".join(parts)
    tell(text, options.out)


if __name__ == "__main__":
    main()
