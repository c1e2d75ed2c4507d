"""Runs into groups of seeds, ended at equal cost, held against a baseline; and what limits such a comparison."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archsmith._compare.compared import Compared, Group
from archsmith._compare.difference import difference
from archsmith._compare.outcomes import BY_VALUE, outcome
from archsmith._compare.searched import Searched
from archsmith._compare.verdict import verdicts
from archsmith.core.config import same_config
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import without_data
from archsmith.core.finish import Measure
from archsmith.core.genotype import canonical_json

if TYPE_CHECKING:
    from archsmith.recipes.claim import Claim


def compared(runs: Sequence[Searched], measure: Measure, baseline: str | None, claim: Claim | None = None) -> Compared:
    """Group the runs, find a baseline, hold the others against it at equal cost. `baseline` names one of the runs, or the
    label of a group; by default it is random search where there is one, else the first. `claim` is what was run."""
    groups_of = _members(runs)
    notes = [] if claim is not None else _unlike([runs[indices[0]] for indices in groups_of])
    by_epochs = all(len(run) and run.epochs[-1] > 0 for run in runs)
    spent = [float(run.epochs[-1]) if by_epochs else float(len(run)) for run in runs]
    least = min(spent)
    equal = [run.until(epochs=least) if by_epochs else run.until(trials=int(least)) for run in runs]
    if max(spent) > 1.01 * least:
        notes.append(_unequal(runs, spent, "epochs" if by_epochs else "trials"))
    for run in runs:
        if run.summary.status != "finished":
            notes.append(f"Run {run.name!r} is {run.summary.status}: this is what there is so far.")
    groups = _groups(runs, equal, groups_of)
    for group in groups:
        seeds = Counter(run.summary.config.get("seed") for run in group.runs)
        if len(seeds) < len(group.runs):
            notes.append(f"Runs of {group.label} have the same seed, so they are not independent of each other.")
        notes += _not_begun(group)
    held = _baseline(groups, baseline)
    cost = f"{least:,.0f} {'epoch' if by_epochs else 'trial'}{'s' * (least != 1)}"
    made = Compared(measure, groups, held.label if held is not None else None, cost, (), ())
    differences = []
    for group in groups:
        if held is None or group is held:
            continue
        for name in (*BY_VALUE, "regret"):
            mine, others = ([came[name] for came in made.results[g.label]] for g in (group, held))
            if np.isnan([*mine, *others]).any():
                continue
            of = outcome(name, measure)
            differences.append(
                difference(mine, others, of.measure, group=group.label, baseline=held.label, outcome=of.said)
            )
    tested = sum(d.p is not None for d in differences)
    if tested > 1:
        notes.append(
            f"{tested} differences were tested, each at 5 %, and none is corrected for there being several: of twenty "
            "between equals, one is expected to show."
        )
    if claim is None:
        return dataclasses.replace(made, differences=differences, notes=notes)
    seen = verdicts(claim, made.results, measure)
    notes += [claim.limits] if claim.limits else []
    return dataclasses.replace(made, differences=differences, notes=notes, verdicts=seen, claimed=claim.paper)


def _not_begun(group: Group) -> list[str]:
    """That a population was not full before the budget was spent: until then nothing is learned from rewards."""
    searcher = group.runs[0].summary.config.get("searcher")
    population = searcher.get("population") if isinstance(searcher, Mapping) else None
    trials = max(map(len, group.runs))
    if not isinstance(population, int) or trials > population:
        return []
    return [
        f"{group.label} fills a population of {population:,} before it selects, and had {trials:,} trials, so nothing has "
        "evolved: give it more trials, or a smaller population."
    ]


def _unequal(runs: Sequence[Searched], spent: Sequence[float], unit: str) -> str:
    """That some runs had more, and why."""
    each = sorted(zip(spent, (run.name for run in runs), strict=True))
    (least, fewest), (most, greatest) = each[0], each[-1]
    had = f"from {least:,.0f} {unit} ({fewest}) to {most:,.0f} ({greatest})"
    taken = f"so the table and the differences are taken after {least:,.0f} {unit} of each"
    if unit == "epochs" and len(set(map(len, runs))) == 1:
        return f"Each run had {len(runs[0]):,} trials, but children that failed or were stopped early cost less: {had}, {taken}."
    return f"The budgets are not equal: {had}, {taken}."


def _parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two runs the same experiment: all but seed, budget and place. Data are told by their content, and how
    many workers there are matters where they are simulated, since then they decide what a searcher knows when."""
    parts = {name: config.get(name) for name in ("space", "evaluator", "reward", "searcher", "limits", "data")}
    if parts["data"] is not None and isinstance(parts["evaluator"], Mapping):
        parts["evaluator"] = without_data(parts["evaluator"])
    if config.get("clock") is not None:
        parts["workers"] = config.get("workers")
    return parts


def _unlike(runs: Sequence[Searched]) -> list[str]:
    """What differs between runs, one of each group, besides their searchers. Raises UsageError for different data, or columns."""
    notes, first = [], _parts(runs[0].summary.config)
    for run in runs[1:]:
        parts = _parts(run.summary.config)
        if parts["data"] != first["data"]:
            raise UsageError(
                f"runs {runs[0].name!r} and {run.name!r} were made on different data (fingerprints {first['data']} and "
                f"{parts['data']}), so their numbers cannot be compared; compare runs on the same data"
            )
        if (mine := _looked_up(first)) != (other := _looked_up(parts)):
            raise UsageError(
                f"runs {runs[0].name!r} and {run.name!r} are judged by different columns of their table, {mine} and {other}, "
                "so their numbers cannot be compared; compare runs of one column"
            )
        names = ("space", "evaluator", "reward", "workers")
        differ = [name for name in names if not same_config(parts.get(name), first.get(name))]
        if differ:
            notes.append(
                f"Runs {runs[0].name!r} and {run.name!r} differ in their {' and '.join(differ)} as well, "
                "so a difference between them need not come from their searchers."
            )
    return notes


def _looked_up(parts: Mapping[str, Any]) -> str | None:
    """Which number of a table is a run's, where results are looked up."""
    evaluator = parts["evaluator"]
    if not isinstance(evaluator, Mapping) or evaluator.get("type") != "training.Tabular":
        return None
    scale = evaluator.get("scale", 1.0)
    return f"{evaluator.get('column')!r}" + (f" times {scale:g}" if scale != 1 else "")


def _members(runs: Sequence[Searched]) -> list[list[int]]:
    """The places of the runs of each configuration, in the order they were named."""
    members: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        members.setdefault(canonical_json(_parts(run.summary.config)), []).append(i)
    return list(members.values())


def _groups(runs: Sequence[Searched], equal: Sequence[Searched], members: Sequence[Sequence[int]]) -> list[Group]:
    names = Counter(label_of(runs[indices[0]].summary.config) for indices in members)
    groups = []
    for indices in members:
        run = runs[indices[0]]
        label = label_of(run.summary.config)
        if names[label] > 1:
            label = f"{label} ({run.name})"
        groups.append(Group(label, [runs[i] for i in indices], [equal[i] for i in indices]))
    return groups


def label_of(config: Mapping[str, Any]) -> str:
    """What a searcher is called: as it was named when several were compared, else "random search", or its class."""
    note, searcher = config.get("note"), config.get("searcher")
    if isinstance(note, Mapping) and isinstance(arm := note.get("arm"), str):
        return arm
    name = str(searcher.get("type", "")) if isinstance(searcher, Mapping) else ""
    return "random search" if name == "searchers.Random" else name.rpartition(":")[2].rpartition(".")[2] or "unknown"


def _baseline(groups: Sequence[Group], named: str | None) -> Group | None:
    if len(groups) < 2:
        return None
    if named is not None:
        return next(g for g in groups if g.label == named or any(run.name == named for run in g.runs))
    return next((g for g in groups if _is_random(g.config)), groups[0])


def _is_random(config: Mapping[str, Any]) -> bool:
    searcher = config.get("searcher")
    return isinstance(searcher, Mapping) and searcher.get("type") == "searchers.Random"
