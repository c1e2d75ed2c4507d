"""Does the controller find better recurrent cells than random search? Real children, tiny ones, over several seeds.

    python benchmarks/cell_search.py                                       the tables on stdout
    python benchmarks/cell_search.py --out benchmarks/results/cell_search.md
    python benchmarks/cell_search.py --store cells.db --page cells.html    keeps the runs, and goes on with them

Each trial trains a language model of one layer of 32 units for some 200 steps on the text that Python carries (500
words, 20,000 of them), about half a second of one core. The space is the paper's with 4 leaves: 822 million cells. What
is compared are validation perplexities of such short trainings, at as many epochs of training; a cell that is best here
need not be best at another size.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import archsmith as smith
from archsmith._compare.compared import Compared
from archsmith.core.errors import UnknownName

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

SPACE = smith.spaces.RecurrentCell(base=4)
EVALUATOR = replace(
    smith.training.LanguageModel.desk("python-docs", epochs=4, max_train=20_000),
    hidden=32,
    vocabulary=500,
    unroll=20,
    max_validation=4_000,
)
SEARCHERS = {
    "random": smith.searchers.Random(),
    "paper": smith.searchers.Reinforce(learning_rate=5e-4, minibatch=10),
    "quick": smith.searchers.Reinforce(learning_rate=1e-2, minibatch=4),
}
CALLED = {
    "paper": "Reinforce(learning_rate=5e-4, minibatch=10), the paper's",
    "quick": "Reinforce(learning_rate=1e-2, minibatch=4), for short runs",
}


def run(name: str, seed: int, trials: int, workers: int, store: str) -> smith.Run:
    """A search, begun or gone on with."""
    try:
        begun = smith.open_run(store, f"{name}-{seed}")
    except UnknownName:
        return smith.search(
            SPACE,
            EVALUATOR,
            searcher=SEARCHERS[name],
            trials=trials,
            workers=workers,
            store=store,
            name=f"{name}-{seed}",
            seed=seed,
        )
    return begun.resume(trials=trials, workers=workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    parser.add_argument("--page", type=Path, help="write the comparison's page here")
    parser.add_argument("--store", help="keep the runs in this SQLite file (default: nowhere)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{args.store or Path(folder, 'runs.db')}"
        runs, began = [], time.perf_counter()
        for seed in range(args.seeds):
            for name in SEARCHERS:  # interleaved: what slows the machine for a while slows all
                runs.append(run(name, seed, args.trials, args.workers, store))
                print(f"{runs[-1].name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        text = told(smith.compare(runs, baseline="random-0"), args, time.perf_counter() - began)
        if args.page:
            smith.compare(runs, baseline="random-0").report(args.page)
    tell(text, args.out)


def told(compared: Compared, args: argparse.Namespace, seconds: float) -> str:
    """The result as Markdown."""
    head, *rows = compared.table()
    lines = [
        "# The controller against random search on recurrent cells",
        "",
        f"`python benchmarks/cell_search.py --seeds {args.seeds} --trials {args.trials}`",
        "",
        machine(),
        "",
        f"{args.trials} cells a run, {args.seeds} runs of each searcher, {args.workers} children at a time: "
        f"{seconds / 60:.0f} minutes in all. Validation perplexity, lower is better; means with sample standard deviations. "
        "The mean reward is that of the last quarter of the trials.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join((_called(row[0]), *row[1:]))} |" for row in rows),
    ]
    for group in compared.groups:
        if group.label == compared.baseline:
            continue
        at, by_k = compared.improvements(group.label)
        shown = sorted(
            {min(range(len(at)), key=lambda i: abs(at[i] - part * at[-1])) for part in (0.2, 0.4, 0.6, 0.8, 1)}
        )
        lines += [
            "",
            f"## {_called(group.label)}: perplexity less than random search's, after as many models",
            "",
            f"| mean of the best | {' | '.join(str(at[i]) for i in shown)} |",
            "|---" * (len(shown) + 1) + "|",
            *(f"| {k} | {' | '.join(_signed(values[i]) for i in shown)} |" for k, values in by_k.items()),
            "",
            *(f"- {d.sentence}" for d in compared.differences if d.group == group.label),
        ]
    return "\n".join([*lines, "", *compared.notes]).rstrip() + "\n"


def _signed(value: float) -> str:
    return "–" if value != value else f"{value:+.2f}"


def _called(label: str) -> str:
    """A group's label in words: a controller is named by its first run there."""
    name = label.rpartition("(")[2].rpartition("-")[0]
    return CALLED.get(name, label)


if __name__ == "__main__":
    main()
