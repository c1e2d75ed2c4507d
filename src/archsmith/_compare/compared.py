"""Runs beside each other: groups of seeds, what each group came to at equal cost, and what may be said of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archsmith._compare.difference import Difference, difference
from archsmith._compare.searched import (
    Searched,
    checkpoints,
    top_k_unique_means,
)
from archsmith.core.errors import UsageError
from archsmith.core.finish import Measure
from archsmith.core.genotype import canonical_json

TOPS = (1, 5, 15)  # figure 6 of the paper


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, which differ in their seeds alone.

    Args:
        label: what it is called: its searcher, with the run's name where that does not tell it from another.
        runs: as they were recorded.
        equal: the same, ended where all runs of the comparison had cost as much.
    """

    label: str
    runs: Sequence[Searched]
    equal: Sequence[Searched]

    @property
    def config(self) -> Mapping[str, Any]:
        """What they are searches of."""
        return self.runs[0].summary.config


@dataclass(frozen=True)
class Compared:
    """What `compare` gives.

    Args:
        measure: what children are judged by.
        groups: the runs, by configuration, in the order they were named.
        baseline: the label of the group that the others are held against, or None with a single group.
        differences: of each other group's best model, and of the means of its top 5 and top 15, from the baseline's.
        notes: what limits the comparison.
    """

    measure: Measure
    groups: Sequence[Group]
    baseline: str | None
    differences: Sequence[Difference]
    notes: Sequence[str]

    def group(self, label: str) -> Group:
        """The group of that label."""
        return next(g for g in self.groups if g.label == label)

    @property
    def claim(self) -> str:
        """What may be said, made by rule: see `archsmith._compare.difference`."""
        return " ".join([*(d.sentence for d in self.differences), *self.notes])

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head, a row for each group: means over its runs, with sample standard deviations."""
        tops = ("best", *(f"mean of top {k}" for k in TOPS[1:]))
        head = ("searcher", "seeds", "trials", "failed", "epochs", "seconds", *tops, "late mean reward")
        rows: list[tuple[str, ...]] = [head]
        for group in self.groups:
            each = [self.outcomes(run) for run in group.runs]
            rows.append(
                (
                    group.label,
                    str(len(group.runs)),
                    mean_text([len(run) for run in group.runs], "{:,.0f}"),
                    str(sum(run.summary.counts.get("failed", 0) for run in group.runs)),
                    mean_text([run.summary.epochs for run in group.runs], "{:,.0f}"),
                    mean_text([run.summary.seconds for run in group.runs], "{:,.0f}"),
                    *(mean_text([o[name] for o in each], self.measure) for name in tops),
                    mean_text([o["late mean reward"] for o in each], "{:.4g}"),
                )
            )
        return rows

    def outcomes(self, run: Searched) -> dict[str, float]:
        """What a run came to, NaN where it has too little for it. Models count as in `top_k_unique_means`."""
        means = top_k_unique_means(
            run.value, run.keys, TOPS, [len(run)], higher_is_better=self.measure.higher_is_better
        )
        rewards = run.reward[~np.isnan(run.reward)]  # a budget in seconds ends with trials that were stopped
        late = rewards[-max(1, len(rewards) // 4) :]
        return {
            "best": float(means[0, 0]),
            **{f"mean of top {k}": float(mean) for k, mean in zip(TOPS[1:], means[1:, 0], strict=True)},
            "late mean reward": float(late.mean()) if len(late) else float("nan"),
        }

    def improvements(self, label: str) -> tuple[list[int], dict[int, np.ndarray[Any, np.dtype[np.float64]]]]:
        """Figure 6 of the paper for a group: after how many models, and for each k the mean of its k best different
        models, less that of the baseline's, positive where the group's is better; means over the runs of each.

        Where fewer than k models have a value in any of the runs, NaN. Raises UsageError for the baseline itself.
        """
        if self.baseline is None or label == self.baseline:
            raise UsageError(f"an improvement is over a baseline, and {label!r} has none but itself")
        sides = [self.group(label), self.group(self.baseline)]
        at = checkpoints(min(len(run) for group in sides for run in group.runs))
        higher = self.measure.higher_is_better
        mine, other = (
            np.mean(
                [top_k_unique_means(r.value, r.keys, TOPS, at, higher_is_better=higher) for r in group.runs], axis=0
            )
            for group in sides
        )
        better = mine - other if higher else other - mine
        return at, {k: better[row] for row, k in enumerate(TOPS)}

    def report(self, path: str | Path) -> Path:
        """Write the comparison as one self-contained HTML page, and give its path.

        Raises UsageError when the path cannot be written.
        """
        from archsmith._compare.page import page
        from archsmith._page.document import check_place, write

        path = Path(path)
        check_place(path, "comparison")
        write(path, page(self), "comparison")
        return path

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; None for what there is not."""
        groups = [
            {
                "label": group.label,
                "searcher": group.config.get("searcher"),
                "runs": [
                    {
                        "name": run.name,
                        "seed": run.summary.config.get("seed"),
                        "status": run.summary.status,
                        "trials": len(run),
                        "failed": run.summary.counts.get("failed", 0),
                        "epochs": run.summary.epochs,
                        "seconds": run.summary.seconds,
                        **{name.replace(" ", "_"): _plain(v) for name, v in self.outcomes(run).items()},
                    }
                    for run in group.runs
                ],
            }
            for group in self.groups
        ]
        improvements = {}
        for group in self.groups:
            if self.baseline is not None and group.label != self.baseline:
                at, by_k = self.improvements(group.label)
                improvements[group.label] = {
                    "models": at,
                    **{f"top_{k}": [_plain(float(v)) for v in values] for k, values in by_k.items()},
                }
        return {
            "measure": self.measure.name,
            "higher_is_better": self.measure.higher_is_better,
            "groups": groups,
            "baseline": self.baseline,
            "improvements": improvements,
            "differences": [dataclasses.asdict(d) for d in self.differences],
            "notes": list(self.notes),
        }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def mean_text(values: Sequence[float], form: str | Measure) -> str:
    """ "97.22 %", "101.4 ± 2.1": the mean with the sample standard deviation; a dash where any is missing."""
    if not values or np.isnan(values).any():
        return "–"
    mean = float(np.mean(values))
    text = form.text(mean) if isinstance(form, Measure) else form.format(mean)
    if len(values) < 2:
        return text
    deviation = float(np.std(values, ddof=1))
    spread = form.text(deviation) if isinstance(form, Measure) else form.format(deviation)
    return text if float(spread.removesuffix(" %").replace(",", "")) == 0 else f"{text.removesuffix(' %')} ± {spread}"


# --- making one -------------------------------------------------------------------------------------------------------


def compared(runs: Sequence[Searched], measure: Measure, baseline: str | None) -> Compared:
    """Group the runs, find a baseline, hold the others against it at equal cost. `baseline` names one of the runs;
    by default it is random search where there is one, else the first."""
    notes = _unlike(runs)
    by_epochs = all(run.epochs[-1] > 0 for run in runs)
    spent = [float(run.epochs[-1]) if by_epochs else float(len(run)) for run in runs]
    least = min(spent)
    equal = [run.until(epochs=least) if by_epochs else run.until(trials=int(least)) for run in runs]
    if max(spent) > 1.01 * least:
        notes.append(_unequal(runs, spent, "epochs" if by_epochs else "trials"))
    for run in runs:
        if run.summary.status != "finished":
            notes.append(f"Run {run.name!r} is {run.summary.status}: this is what there is so far.")
    groups = _groups(runs, equal)
    for group in groups:
        seeds = Counter(run.summary.config.get("seed") for run in group.runs)
        if len(seeds) < len(group.runs):
            notes.append(f"Runs of {group.label} have the same seed, so they are not independent of each other.")
    held = _baseline(groups, baseline)
    made = Compared(measure, groups, held.label if held is not None else None, (), ())
    differences = []
    for group in groups:
        if held is None or group is held:
            continue
        for outcome in ("best", *(f"mean of top {k}" for k in TOPS[1:])):
            mine, others = ([made.outcomes(run)[outcome] for run in g.equal] for g in (group, held))
            if np.isnan([*mine, *others]).any():
                continue
            name = "the best model" if outcome == "best" else f"the {outcome} models"
            differences.append(difference(mine, others, measure, group=group.label, baseline=held.label, outcome=name))
    return dataclasses.replace(made, differences=differences, notes=notes)


def _unequal(runs: Sequence[Searched], spent: Sequence[float], unit: str) -> str:
    """That some runs had more, and why."""
    each = sorted(zip(spent, (run.name for run in runs), strict=True))
    (least, fewest), (most, greatest) = each[0], each[-1]
    had = f"from {least:,.0f} {unit} ({fewest}) to {most:,.0f} ({greatest})"
    taken = f"so differences are taken after {least:,.0f} {unit} of each"
    if unit == "epochs" and len(set(map(len, runs))) == 1:
        return f"Each run had {len(runs[0]):,} trials, but children that fail cost less: {had}, {taken}."
    return f"The budgets are not equal: {had}, {taken}."


def _parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two runs the same experiment: all but seed, budget and place. Data are told by their content."""
    parts = {name: config.get(name) for name in ("space", "evaluator", "reward", "searcher", "limits", "data")}
    if parts["data"] is not None and isinstance(parts["evaluator"], Mapping):
        parts["evaluator"] = {k: v for k, v in parts["evaluator"].items() if k != "data"}
    return parts


def _unlike(runs: Sequence[Searched]) -> list[str]:
    """What differs between the runs besides their searchers. Raises UsageError for different data."""
    notes, first = [], _parts(runs[0].summary.config)
    for run in runs[1:]:
        parts = _parts(run.summary.config)
        if parts["data"] != first["data"]:
            raise UsageError(
                f"runs {runs[0].name!r} and {run.name!r} were made on different data (fingerprints {first['data']} and "
                f"{parts['data']}), so their numbers cannot be compared; compare runs on the same data"
            )
        differ = [name for name in ("space", "evaluator", "reward") if parts[name] != first[name]]
        if differ:
            notes.append(
                f"Runs {runs[0].name!r} and {run.name!r} differ in their {' and '.join(differ)} as well, "
                "so a difference between them need not come from their searchers."
            )
    return notes


def _groups(runs: Sequence[Searched], equal: Sequence[Searched]) -> list[Group]:
    members: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        members.setdefault(canonical_json(_parts(run.summary.config)), []).append(i)
    first = [runs[indices[0]] for indices in members.values()]
    names = Counter(label_of(run.summary.config) for run in first)
    groups = []
    for run, indices in zip(first, members.values(), strict=True):
        label = label_of(run.summary.config)
        if names[label] > 1:
            label = f"{label} ({run.name})"
        groups.append(Group(label, [runs[i] for i in indices], [equal[i] for i in indices]))
    return groups


def label_of(config: Mapping[str, Any]) -> str:
    """What a searcher is called: "random search", or its class."""
    searcher = config.get("searcher")
    name = str(searcher.get("type", "")) if isinstance(searcher, Mapping) else ""
    return "random search" if name == "searchers.Random" else name.rpartition(":")[2].rpartition(".")[2] or "unknown"


def _baseline(groups: Sequence[Group], named: str | None) -> Group | None:
    if len(groups) < 2:
        return None
    if named is not None:
        return next(g for g in groups if any(run.name == named for run in g.runs))
    return next((g for g in groups if g.label.startswith("random search")), groups[0])
