"""Runs beside each other: groups of seeds, what each group came to at equal cost, and what may be said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from archsmith._compare.difference import Difference
from archsmith._compare.outcomes import BY_VALUE, TOPS, outcomes, regret_of
from archsmith._compare.searched import Searched, checkpoints, top_k_unique_means
from archsmith._compare.verdict import Verdict, told
from archsmith.core.errors import UsageError
from archsmith.core.finish import Measure


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
        cost: what every run had cost where the table and the differences are taken, such as "384 epochs".
        differences: of each other group's best model, of the means of its top 5 and top 15, and of its regret where the
            best there is is known, from the baseline's.
        notes: what limits the comparison.
        verdicts: where a claim of a paper was run, what came of each thing that it leads one to expect.
        claimed: the claim, in a sentence or two; empty where none was run.
    """

    measure: Measure
    groups: Sequence[Group]
    baseline: str | None
    cost: str
    differences: Sequence[Difference]
    notes: Sequence[str]
    verdicts: Sequence[Verdict] = ()
    claimed: str = ""

    def group(self, label: str) -> Group:
        """The group of that label."""
        return next(g for g in self.groups if g.label == label)

    @property
    def claim(self) -> str:
        """What may be said, made by rule: see `archsmith._compare.difference`."""
        agreed = [told(self.verdicts)] if self.verdicts else []
        return " ".join([*agreed, *(d.sentence for d in self.differences), *self.notes])

    @cached_property
    def results(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """By label, what each run of the group came to at equal cost: see `archsmith._compare.outcomes`."""
        return {group.label: [outcomes(run, self.measure) for run in group.equal] for group in self.groups}

    @property
    def has_regret(self) -> bool:
        """Whether the best there is is known to every run."""
        return all(len(run.regret) for group in self.groups for run in group.equal)

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head, a row for each group: means over its runs, with sample standard deviations, where
        every run had cost as much as the cheapest."""
        regret = ("regret",) if self.has_regret else ()
        rows = [("searcher", "seeds", "trials", "failed", "epochs", "seconds", *BY_VALUE, *regret, "late mean reward")]
        for group in self.groups:
            each = self.results[group.label]
            rows.append(
                (
                    group.label,
                    str(len(group.runs)),
                    mean_text([len(run) for run in group.equal], "{:,.0f}"),
                    f"{sum(run.failed.sum() for run in group.equal):,.0f}",
                    mean_text([run.epochs[-1] if len(run) else 0.0 for run in group.equal], "{:,.0f}"),
                    mean_text([run.at[-1] if len(run) else 0.0 for run in group.equal], "{:,.0f}"),
                    *(mean_text([o[name] for o in each], self.measure) for name in BY_VALUE),
                    *(mean_text([o[name] for o in each], regret_of(self.measure)) for name in regret),
                    mean_text([o["late mean reward"] for o in each], "{:.4g}"),
                )
            )
        return rows

    def outcomes(self, run: Searched) -> dict[str, float]:
        """What a run came to, NaN where it has too little for it."""
        return outcomes(run, self.measure)

    def improvements(self, label: str) -> tuple[list[int], dict[int, np.ndarray[Any, np.dtype[np.float64]]]]:
        """Figure 6 of the paper for a group: after how many models, and for each k the mean of its k best different
        models, less that of the baseline's, positive where the group's is better; means over the runs of each.

        Where fewer than k models have a value in any of the runs, NaN. Raises UsageError for the baseline itself.
        """
        if self.baseline is None or label == self.baseline:
            raise UsageError(f"an improvement is over a baseline, and {label!r} has none but itself")
        at = checkpoints(min(len(run) for group in self.groups for run in group.runs))
        mine, other = (self._tops(group, at) for group in (self.group(label), self.group(self.baseline)))
        better = mine - other if self.measure.higher_is_better else other - mine
        return at, {k: better[row] for row, k in enumerate(TOPS)}

    def _tops(self, group: Group, at: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        kept = self._kept
        if group.label not in kept:
            higher = self.measure.higher_is_better
            each = [top_k_unique_means(r.value, r.keys, TOPS, at, higher_is_better=higher) for r in group.runs]
            kept[group.label] = np.mean(each, axis=0)
        return kept[group.label]

    @cached_property
    def _kept(self) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """The curves of figure 6: every other group is held against the baseline's."""
        return {}

    def report(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the comparison as one self-contained HTML page, and give its path.

        An earlier page there is replaced, another file only with `force`, and a database never. Raises UsageError when
        the path cannot be written.
        """
        from archsmith._compare.page import page
        from archsmith._page.document import check_place, write

        path = Path(path)
        check_place(path, "comparison", force=force)
        write(path, page(self), "comparison", force=force)
        return path

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; None for what there is not. Of each run what it came to in all, and at equal cost."""
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
                        **_keyed(self.outcomes(run)),
                        "at_equal_cost": {"trials": len(equal), **_keyed(at_equal)},
                    }
                    for run, equal, at_equal in zip(group.runs, group.equal, self.results[group.label], strict=True)
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
            "equal_cost": self.cost,
            "groups": groups,
            "baseline": self.baseline,
            "improvements": improvements,
            "differences": [dataclasses.asdict(d) for d in self.differences],
            "claim": self.claimed or None,
            "verdicts": [
                {"verdict": v.verdict, "expected": v.expected, "difference": dataclasses.asdict(v.difference)}
                for v in self.verdicts
            ],
            "notes": list(self.notes),
        }


def _keyed(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name.replace(" ", "_").replace("-", "_"): _plain(value) for name, value in values.items()}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def mean_text(values: Sequence[float], form: str | Measure) -> str:
    """ "97.22 %", "101.4 ± 2.1": the mean with the sample standard deviation; a dash where any is missing."""
    if not len(values) or np.isnan(values).any():
        return "–"
    mean = float(np.mean(values))
    text = form.text(mean) if isinstance(form, Measure) else form.format(mean)
    if len(values) < 2:
        return text
    deviation = float(np.std(values, ddof=1))
    spread = form.text(deviation) if isinstance(form, Measure) else form.format(deviation)
    return text if float(spread.removesuffix(" %").replace(",", "")) == 0 else f"{text.removesuffix(' %')} ± {spread}"
