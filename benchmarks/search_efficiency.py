"""How many trainings does a search need? Each searcher on NAS-Bench-201's table, over many seeds.

    python benchmarks/search_efficiency.py --table nb201.npz              the tables on stdout
    python benchmarks/search_efficiency.py --table nb201.npz --out benchmarks/results/search_efficiency.md

A trial's reward is the validation accuracy on CIFAR-10 after 200 epochs. What a search has found after n evaluations is the
best by validation of them, judged by its test accuracy. "Within 0.3" is the number of evaluations after which this first lies
within 0.3 points of the best test accuracy of all cells and stays there to the budget; a seed that does not come there
counts as the budget. Everything that a searcher evaluates counts, duplicates too.

The settings of `small()` and of `BayesianOptimization` were chosen on the columns of CIFAR-100 and ImageNet16-120,
never on CIFAR-10's.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from archsmith.core.searcher import Searcher
from archsmith.core.space import Space
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.searchers import PPO, BayesianOptimization, Optuna, QLearning, Random, RegularizedEvolution, Reinforce
from archsmith.spaces import NASBench201
from archsmith.training import Tabular

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

Floats = npt.NDArray[np.float64]
MARGINS = (1.0, 0.3, 0.1)
ELSEWHERE = (
    "Measured elsewhere on CIFAR-10's column, until first within it, with other seeds: Optuna's TPE 50 and 115 for 0.3 and 0.1 "
    "(10 seeds of 500), Syne Tune's REA 129 and 179 (20 seeds of 500), Optuna's NSGA-II 201 and 337 (10 seeds of 500). "
    "`benchmarks/peers` drives them."
)
RANDOM, EVOLUTION = "Random()", "RegularizedEvolution()"
SEARCHERS: dict[str, Searcher] = {
    RANDOM: Random(),
    EVOLUTION: RegularizedEvolution(),
    "RegularizedEvolution.small()": RegularizedEvolution.small(),
    "Reinforce()": Reinforce(),
    "Reinforce.small()": Reinforce.small(),
    "PPO()": PPO(),
    "PPO.small()": PPO.small(),
    "QLearning.for_models(1000)": QLearning.for_models(1000),
    "BayesianOptimization()": BayesianOptimization(),
    "Optuna('tpe')": Optuna("tpe"),
    "Optuna('nsga2')": Optuna("nsga2"),
    "Optuna('cmaes')": Optuna("cmaes"),
    "Optuna('gp')": Optuna("gp"),
}


@dataclass(frozen=True)
class Problem:
    """A table to search: rewards, and what the found is judged by."""

    space: Space
    rewards: Tabular
    tests: Floats  # by row, in points
    best: float  # of all rewards

    def play(self, searcher: Searcher, seed: int, budget: int) -> tuple[Floats, Floats]:
        """Rewards and test accuracies [budget] in the order evaluated, one at a time.

        It ends where the best of all rewards is found, and the rest is filled up with it: nothing can take its place.
        """
        live = searcher.start(self.space, seed)
        rewards, tests = np.empty(budget), np.empty(budget)
        for number in range(budget):
            (proposal,) = live.ask(1)
            row = self.rewards.row_of(self.space, proposal.genotype)
            result = self.rewards.evaluate(self.space, proposal.genotype, None)  # type: ignore[arg-type]
            rewards[number], tests[number] = result.metrics["value"], self.tests[row]
            trial = Trial(number, proposal.genotype, proposal.parent, TrialState.DONE, float(rewards[number]), Result())
            live.tell([trial])
            if rewards[number] == self.best:
                rewards[number:], tests[number:] = rewards[number], tests[number]
                break
        return rewards, tests


def found(rewards: Floats, tests: Floats) -> Floats:
    """The test accuracy of the best by reward so far, after each evaluation; the first of equal ones stays."""
    best, curve = 0, np.empty(len(rewards))
    for number, reward in enumerate(rewards):
        if reward > rewards[best]:
            best = number
        curve[number] = tests[best]
    return curve


def evaluations(curve: Floats, optimum: float, margin: float, budget: int) -> tuple[int, bool]:
    """After how many evaluations the curve comes within the margin and stays there to the budget, and whether it does."""
    outside = np.flatnonzero(curve[:budget] < optimum - margin - 1e-9)
    first = int(outside[-1]) + 2 if len(outside) else 1
    return (first, True) if first <= budget else (budget, False)


def first_arrival(curve: Floats, optimum: float, margin: float, budget: int) -> tuple[int, bool]:
    """The same without staying there: the peers' figures count so."""
    inside = np.flatnonzero(curve[:budget] >= optimum - margin - 1e-9)
    return (int(inside[0]) + 1, True) if len(inside) else (budget, False)


def difference_of_medians(a: Sequence[float], b: Sequence[float], draws: int = 10_000) -> tuple[float, float, float]:
    """median(a) - median(b) with its 95 % interval by bootstrap over seeds."""
    rng = np.random.default_rng(0)
    x, y = np.asarray(a, float), np.asarray(b, float)
    drawn = np.median(rng.choice(x, (draws, len(x))), axis=1) - np.median(rng.choice(y, (draws, len(y))), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.median(x) - np.median(y)), float(low), float(high)


def report(curves: dict[str, list[Floats]], optimum: float, budgets: Sequence[int]) -> list[str]:
    """The tables: evaluations by searcher and budget, and the controllers against evolution and random search."""
    lines = []
    for budget in budgets:
        lines += [f"## Budget {budget}", ""]
        for measure, how in (
            (evaluations, "until within the margin for good"),
            (first_arrival, "until first within it"),
        ):
            lines += [
                f"Median evaluations {how} (share of seeds that got there; the slowest seed).",
                "",
                f"| searcher | {' | '.join(f'{margin}' for margin in MARGINS)} | test accuracy in the end, mean (sd) |",
                "|---" * (len(MARGINS) + 2) + "|",
            ]
            for name, runs in curves.items():
                cells = []
                for margin in MARGINS:
                    counts, arrived = zip(*(measure(run, optimum, margin, budget) for run in runs), strict=True)
                    share = sum(arrived) / len(runs)
                    cells.append(f"{np.median(counts):.0f} ({share:.0%}; {max(counts) if share == 1 else '-'})")
                last = np.array([run[budget - 1] for run in runs])
                lines.append(f"| {name} | {' | '.join(cells)} | {last.mean():.2f} ({last.std(ddof=1):.2f}) |")
            lines.append("")
        for against in (EVOLUTION, RANDOM):
            if against not in curves:
                continue
            lines += [
                f"Fewer evaluations than `{against}` within {budget}: difference of medians with its 95 % interval "
                "(below zero is better).",
                "",
                f"| searcher | {' | '.join(f'{margin}' for margin in MARGINS)} |",
                "|---" * (len(MARGINS) + 1) + "|",
            ]
            for name in curves:
                if name in (RANDOM, EVOLUTION):
                    continue
                cells = []
                for margin in MARGINS:
                    a, b = (
                        [evaluations(r, optimum, margin, budget)[0] for r in curves[who]] for who in (name, against)
                    )
                    cells.append("{:+.0f} [{:+.0f}, {:+.0f}]".format(*difference_of_medians(a, b)))
                lines.append(f"| {name} | {' | '.join(cells)} |")
            lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("ARCHSMITH_DATA", "."), "nb201.npz")
    parser.add_argument("--table", type=Path, default=default, help="NAS-Bench-201's arrays")
    parser.add_argument("--dataset", default="cifar10", help="cifar10, cifar100 or ImageNet16-120")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--budgets", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--only", nargs="+", default=[], help="searchers whose names contain one of these")
    parser.add_argument("--keep", type=Path, help="a JSON file of curves to go on from, and to write")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rewards = Tabular.nasbench201(arguments.table, arguments.dataset)
    tests = rewards.column_of(f"acc200_test/{arguments.dataset}").astype(float)
    space, budget = NASBench201(), max(arguments.budgets)
    problem = Problem(space, rewards, tests, rewards.best(space)[1])
    kept: dict[str, Any] = {}
    if arguments.keep and arguments.keep.exists():
        kept = json.loads(arguments.keep.read_text())
    curves: dict[str, list[Floats]] = {}
    took: dict[str, float] = {}
    for name, searcher in SEARCHERS.items():
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        key = f"{arguments.dataset} {searcher!r} {budget}"
        runs = [np.array(run) for run in kept.get(key, [])][: arguments.seeds]
        began, done = time.process_time(), len(runs)
        runs += [found(*problem.play(searcher, seed, budget)) for seed in range(done, arguments.seeds)]
        curves[name] = runs
        if done < arguments.seeds:
            took[name] = (time.process_time() - began) / (arguments.seeds - done)
            print(f"{name}: {took[name]:.2f} s a run", file=sys.stderr, flush=True)
        if arguments.keep:
            kept[key] = [[round(float(v), 6) for v in run] for run in runs]
            arguments.keep.write_text(json.dumps(kept))
    lines = [
        "# Search efficiency on NAS-Bench-201",
        "",
        f"`python benchmarks/search_efficiency.py --dataset {arguments.dataset} --seeds {arguments.seeds} "
        f"--budgets {' '.join(map(str, arguments.budgets))}`; seeds 0 to {arguments.seeds - 1}; {machine()}.",
        "",
        f"Reward: validation accuracy after 200 epochs. Best test accuracy of all 15,625 cells: {tests.max():.2f}.",
        "",
        "`small()` and `BayesianOptimization` were tuned on the columns of CIFAR-100 and ImageNet16-120.",
        "",
        *report(curves, float(tests.max()), sorted(arguments.budgets)),
    ]
    if took:
        spent = ", ".join(f"{name} {seconds:.2f}" for name, seconds in took.items())
        lines += ["", f"Processor seconds of a run, which ends where the best of all cells is found: {spent}.", ""]
    lines += [ELSEWHERE, ""]
    text = "\n".join(lines)
    tell(text, arguments.out)


if __name__ == "__main__":
    main()
