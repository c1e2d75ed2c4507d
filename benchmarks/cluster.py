"""A cluster on a simulated clock: how replicas, their children and the workers trade staleness against speed.

    python benchmarks/cluster.py replicas --keep found.jsonl     one part of the study; what is in the file is not run again
    python benchmarks/cluster.py replicas faults workers cost --keep found.jsonl --out benchmarks/results/cluster.md

NAS-Bench-201's cells with their 200 epochs on CIFAR-10 looked up; how long each takes is reckoned from its multiply-adds
(archsmith/recipes/nasbench201.py): 48 minutes in the mean. A run is one driver process and one simulated cluster.

Every number is of the cluster's clock except "driver s", the processor time that the driver took for the whole run, and the
part `cost`. "to 0.90": hours until the mean reward of the last 256 children reached 0.90; a random cell has 0.83 in the mean,
the best 0.916. "late": mean reward of the last tenth of the children. "staleness": updates since the pull when a gradient is
applied; the mean, that of the last tenth of the updates, and the largest. "regret": test accuracy of the best there is less that
of the cell with the highest reward. "in use": share of the workers' time that had a child, until the last was proposed.
Mean of the seeds, deviation in brackets.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import archsmith as smith
from archsmith.core.store import RunReader
from archsmith.core.trial import Trial
from archsmith.executors import Faults, Simulated
from archsmith.recipes.nasbench201 import table
from archsmith.report.cluster import cluster
from archsmith.searchers import Asynchronous, Random, RegularizedEvolution, Reinforce

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

TRIALS, WORKERS, SEEDS = 12_800, 800, 3
TARGET, WINDOW = 0.90, 256
STEP = 6e-4  # the paper's, for m=8
"""Adam's step is about the learning rate whatever the gradient's size, so that fewer updates of larger batches learn less at one
rate. Some arms are run with the paper's rate and with one scaled by the root of the batch's size against 8, as is usual for Adam."""

FAULTY = Faults(
    failures_per_hour=0.01,
    straggler_share=0.02,
    straggler_slowdown=3.0,
    spot_lifetime_seconds=6 * 3600,
    spot_return_seconds=180,
)


@dataclass(frozen=True)
class Arm:
    """One row of a table."""

    name: str
    searcher: Any
    workers: int = WORKERS
    faults: Faults | None = None
    trials: int = TRIALS


def policy(replicas: int, children: int, *, accumulate: int = 1, scaled: bool = False) -> Asynchronous:
    rate = STEP * math.sqrt(children * accumulate / 8) if scaled else STEP
    return Asynchronous(
        Reinforce(minibatch=children, learning_rate=rate), shards=20, replicas=replicas, accumulate=accumulate
    )


def others(**more: Any) -> list[Arm]:
    """What the policies are held against: the controller without replicas, evolution, chance."""
    return [
        Arm("no replicas, m=8", Reinforce(), **more),
        Arm("evolution, P=100, S=25", RegularizedEvolution(100, 25), **more),
        Arm("random search", Random(), **more),
    ]


def replicas() -> list[Arm]:
    """K and m at 800 workers; all at once and waiting for all; more replicas than workers serve."""
    grid = ((800, 1), (200, 4), (100, 8), (50, 16), (25, 32), (10, 80))
    arms = [Arm(f"K={k}, m={m}", policy(k, m)) for k, m in grid]
    arms += [
        Arm(f"K={k}, m={m}, rate x {math.sqrt(m / 8):.2g}", policy(k, m, scaled=True)) for k, m in ((25, 32), (10, 80))
    ]
    arms += [
        Arm("K=100, m=8, n=10", policy(100, 8, accumulate=10)),
        Arm("K=100, m=8, n=10, rate x 3.2", policy(100, 8, accumulate=10, scaled=True)),
        Arm("synchronous: K=1, m=800", policy(1, 800)),
        Arm("synchronous, rate x 10", policy(1, 800, scaled=True)),
        Arm("K=150, m=8", policy(150, 8)),
        Arm("K=200, m=8", policy(200, 8)),
    ]
    return arms + others()


def rates() -> list[Arm]:
    """The same at ten times the paper's rate, where parameters go further while a gradient is under way."""
    return [
        Arm(f"K={k}, m={m}, rate x 10", replace(policy(k, m), learner=Reinforce(minibatch=m, learning_rate=10 * STEP)))
        for k, m in ((200, 4), (100, 8), (25, 32), (10, 80))
    ]


def faults() -> list[Arm]:
    """Crashes, stragglers and spot losses for some of them."""
    arms = [
        Arm("K=100, m=8", policy(100, 8)),
        Arm("K=150, m=8", policy(150, 8)),
        Arm("K=200, m=8", policy(200, 8)),
        Arm("K=25, m=32, rate x 2", policy(25, 32, scaled=True)),
        Arm("synchronous, rate x 10", policy(1, 800, scaled=True)),
        *others(),
    ]
    return [replace(arm, faults=FAULTY) for arm in arms]


def workers() -> list[Arm]:
    """As many replicas as the workers can serve, m=8."""
    arms = []
    for count in (1, 10, 100, 3_200, 10_000):  # 800 are above
        k = max(1, count // 8)
        arms.append(Arm(f"{count:,} workers: K={k:,}, m=8", policy(k, 8), workers=count))
        arms.append(Arm(f"{count:,} workers: evolution", RegularizedEvolution(100, 25), workers=count))
    return arms


# --- one run ----------------------------------------------------------------------------------------------------------


def measured(arm: Arm, seed: int, store: Any = "memory://") -> dict[str, float | None]:
    """A run of an arm, in numbers."""
    faulty = None if arm.faults is None else replace(arm.faults, seed=seed)
    began, began_at = time.process_time(), time.perf_counter()
    run = smith.search(
        smith.spaces.NASBench201(),
        table(),
        searcher=arm.searcher,
        trials=arm.trials,
        store=store,
        executor=Simulated(arm.workers, faults=faulty),
        seed=seed,
    )
    took, wall = time.process_time() - began, time.perf_counter() - began_at
    trials = sorted(run.trials(), key=lambda trial: (trial.finished_at or 0.0, trial.number))
    rewards = [trial.reward for trial in trials if trial.reward is not None]
    last = max(trial.proposed_at for trial in trials)
    best = run.best
    assert best is not None
    c, staleness = cluster(run.reader), _staleness(run.reader)
    return {
        "hours": run.summary.seconds / 3600,
        "to_target": _reached(trials),
        "late": statistics.mean(rewards[-len(rewards) // 10 :]),
        "best": best.reward,
        "regret": 100 * table().regret(smith.spaces.NASBench201(), best.genotype),
        "in_use": _in_use(trials, arm.workers, last) if last > 0 else 1.0,
        "lost": c.share(c.lost) if c is not None else 0.0,
        "again": c.again / c.attempts if c is not None else 0.0,
        "stale": staleness[0],
        "stale_last": staleness[1],
        "stale_most": staleness[2],
        "driver_s": took,
        "driver_us": 1e6 * took / len(trials),
        "wall_us": 1e6 * wall / len(trials),
    }


def _reached(trials: list[Trial]) -> float | None:
    """Hours of the clock until the mean of the last children reached the target."""
    window: deque[float] = deque(maxlen=WINDOW)
    for trial in trials:
        if trial.reward is not None and trial.finished_at is not None:
            window.append(trial.reward)
            if len(window) == WINDOW and statistics.fmean(window) >= TARGET:
                return trial.finished_at / 3600
    return None


def _in_use(trials: list[Trial], workers: int, until: float) -> float:
    spans = (max(0.0, min(until, t.finished_at or until) - t.proposed_at) for t in trials)
    return math.fsum(spans) / (workers * until)


def _staleness(run: RunReader) -> tuple[float | None, float | None, float | None]:
    rows = [row.values for row in run.learned() if "mean_staleness" in row.values]
    if not rows:
        return None, None, None
    means = [row["mean_staleness"] for row in rows]
    most = max(row["largest_staleness"] for row in rows)
    return statistics.fmean(means), statistics.fmean(means[-max(1, len(means) // 10) :]), most


# --- what a trial costs the driver ------------------------------------------------------------------------------------

COSTLY: dict[str, tuple[Any, int]] = {
    "random search": (Random(), 4000),
    "evolution, P=100, S=25": (RegularizedEvolution(100, 25), 4000),
    "K=100, m=8, S=20": (policy(100, 8), 4000),
    "no replicas, m=8": (Reinforce(), 4000),
}


def costs(postgres: str | None) -> Iterator[tuple[str, Callable[[], dict[str, float | None]]]]:
    """The driver's processor time per trial, by searcher and by store."""
    for name, (searcher, trials) in COSTLY.items():
        for store, url in (("memory", "memory://"), ("SQLite", ""), ("PostgreSQL", postgres)):
            if url is not None:
                yield f"{name}; {store}", lambda s=searcher, n=trials, u=url: _cost(s, n, u)  # type: ignore[misc]


def _cost(searcher: Any, trials: int, url: str) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory() as folder:
        return measured(Arm("", searcher, trials=trials), 0, url or f"sqlite:///{folder}/runs.db")


# --- the study --------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], list[Arm]]] = {"replicas": replicas, "rates": rates, "faults": faults, "workers": workers}


def kept(path: Path | None) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What was found before."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["part"], row["arm"], row["seed"]): row for row in rows}


def study(
    parts: list[str], seeds: int, keep: Path | None, seconds: float, postgres: str | None
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Run what has not been run, for so many seconds of the processor; gives all that there is."""
    found = kept(keep)
    todo: list[tuple[str, str, int, Callable[[], dict[str, float | None]]]] = []
    for part in parts:
        if part == "cost":
            todo += [(part, name, 0, run) for name, run in costs(postgres)]
            continue
        for seed in range(seeds):
            todo += [(part, arm.name, seed, lambda a=arm, s=seed: measured(a, s)) for arm in PARTS[part]()]  # type: ignore[misc]
    for part, name, seed, run in todo:
        if (part, name, seed) in found:
            continue
        if time.process_time() > seconds:
            print(f"after {seconds:g} seconds: again with the same --keep for what is left", file=sys.stderr)
            break
        row = {"part": part, "arm": name, "seed": seed, **run()}
        found[part, name, seed] = row
        print(f"{part}; {name}; seed {seed}: {row['driver_s']:.1f} s", file=sys.stderr, flush=True)
        if keep is not None:
            with keep.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
    return found


COLUMNS: dict[str, tuple[str, float, int]] = {  # head, factor, digits
    "hours": ("hours in all", 1, 1),
    "to_target": ("hours to 0.90", 1, 1),
    "late": ("late", 1, 4),
    "regret": ("regret, points", 1, 2),
    "in_use": ("in use, %", 100, 1),
    "lost": ("lost, %", 100, 1),
    "stale": ("staleness", 1, 1),
    "stale_last": ("at last", 1, 1),
    "stale_most": ("at most", 1, 0),
    "driver_s": ("driver s", 1, 1),
}


def shown(part: str, found: dict[tuple[str, str, int], dict[str, Any]]) -> list[str]:
    """A table of a part."""
    names = [name for name in COLUMNS if name != "lost" or part == "faults"]
    lines = ["| | " + " | ".join(COLUMNS[name][0] for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for arm in PARTS[part]():
        rows = [row for (p, name, _), row in found.items() if (p, name) == (part, arm.name)]
        if rows:
            cells = [
                _cell([row[name] for row in rows], *COLUMNS[name][1:], none="never" if name == "to_target" else "-")
                for name in names
            ]
            lines.append(f"| {arm.name} | " + " | ".join(cells) + " |")
    return lines


def _cell(values: list[float | None], factor: float, digits: int, *, none: str) -> str:
    there = [factor * value for value in values if value is not None]
    if not there:
        return none
    text = f"{statistics.mean(there):.{digits}f}"
    if len(there) > 1:
        text += f" ({statistics.stdev(there):.{digits}f})"
    return text if len(there) == len(values) else f"{text}, {len(there)} of {len(values)}"


def shown_costs(found: dict[tuple[str, str, int], dict[str, Any]]) -> list[str]:
    """What a trial costs, and how large a cluster one driver can feed."""
    minutes = (1, 10, 60)
    head = [f"10,000 workers, {m} min: share of a core" for m in minutes] + [
        "most workers at 1 min, by the processor",
        "by the wall",
    ]
    lines = [
        "A driver is one thread that waits for the store, so the wall's time bounds it as the processor's does; the wall's was "
        "measured on a machine shared with other work. PostgreSQL: on the same machine, by a socket, fsync on.",
        "",
    ]
    lines.append("| searcher; store | processor, us a trial | wall, us a trial | " + " | ".join(head) + " |")
    lines.append("|---" * (len(head) + 3) + "|")
    for (part, name, _), row in found.items():
        if part == "cost":
            us = row["driver_us"]
            loads = [f"{100 * 10_000 * us / 1e6 / (60 * m):.1f} %" for m in minutes]
            lines.append(
                f"| {name} | {us:.0f} | {row['wall_us']:.0f} | {' | '.join(loads)} | {60e6 / us:,.0f} | {60e6 / row['wall_us']:,.0f} |"
            )
    return lines


TITLES = {
    "replicas": "K replicas of m children, 800 workers, 12,800 children, no faults",
    "rates": "Ten times the learning rate",
    "faults": "The same on machines that fail",
    "workers": "From 1 to 10,000 workers, 12,800 children",
    "cost": "What a trial costs the driver",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "cost"], default=[*PARTS, "cost"])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--keep", type=Path, help="a file of lines of JSON: what was found before, and what is found")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no further run after so much processor time"
    )
    parser.add_argument("--postgres", metavar="URL", help="an empty PostgreSQL database, for what a trial costs there")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = study(arguments.parts, arguments.seeds, arguments.keep, arguments.seconds, arguments.postgres)
    lines = ["# A cluster on a simulated clock", "", f"`python benchmarks/cluster.py`; {machine()}.", ""]
    lines += [(__doc__ or "").partition("\n\n")[2].partition("\n\n")[2].strip(), ""]
    for part in arguments.parts:
        lines += [f"## {TITLES[part]}", ""]
        if part == "faults":
            lines += [f"`{FAULTY}`, another seed for each run.", ""]
        seeds = sorted({seed for part_, _, seed in found if part_ == part})
        lines += [f"Seeds {', '.join(map(str, seeds))}.", ""]
        lines += [*(shown_costs(found) if part == "cost" else shown(part, found)), ""]
    tell("\n".join(lines), arguments.out)


if __name__ == "__main__":
    main()
