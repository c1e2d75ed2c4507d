"""What a correlation of search and transfer found, as data, as a table and as a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from archsmith.core.correlation import Coefficient, Correlation
from archsmith.core.final import Final
from archsmith.core.finish import ACCURACY
from archsmith.core.shown import in_columns


@dataclass(frozen=True)
class DataSet:
    """Where models were carried to.

    Args:
        name: what it is called.
        test_count: how many test images there are.
        epochs: of each training.
        described: what is known of it, as JSON.
    """

    name: str
    test_count: int
    epochs: int
    described: Mapping[str, Any]


@dataclass(frozen=True)
class CorrelatedModel:
    """An architecture, in the search and elsewhere.

    Args:
        name: by its first trial.
        key: of its genotype.
        reward: in the search, the mean over its trials.
        searched: what is correlated: the validation accuracy, or the reward.
        parameters: on the last data set.
        finals: its trainings, by data set.
    """

    name: str
    key: str
    reward: float
    searched: float
    parameters: int
    finals: Mapping[str, Sequence[Final]]

    def mean(self, data: str) -> float | None:
        """The mean test accuracy on a data set; None where no training came to its end."""
        scores = [f.score for f in self.finals.get(data, ()) if f.score is not None]
        return fmean(scores) if scores else None

    def with_finals(self, data: str, finals: Sequence[Final], parameters: int) -> CorrelatedModel:
        """The same with its trainings on one more data set."""
        return replace(self, finals={**self.finals, data: list(finals)}, parameters=parameters)


@dataclass(frozen=True)
class Correlated:
    """What `correlate` gives.

    Args:
        run: the run's name.
        at: when the test sets were looked at, UTC, ISO 8601.
        chosen: which of its architectures, for a person.
        searched_by: what they had in the search: "validation accuracy" or "reward".
        data: the other data sets.
        models: best in the search first.
        correlation: over all data sets.
        by_data: for each of them alone.
        notes: what a reader should know.
    """

    run: str
    at: str
    chosen: str
    searched_by: str
    data: Sequence[DataSet]
    models: Sequence[CorrelatedModel]
    correlation: Correlation
    by_data: Mapping[str, Correlation]
    notes: Sequence[str]

    @property
    def sentences(self) -> list[str]:
        """What may be said, one thing each."""
        found = self.correlation
        on = self.data[0].name if len(self.data) == 1 else f"{len(self.data)} other data sets"
        which = f"{self.searched_by} in the search and accuracy on {on}"
        r, rho = found.pearson, found.spearman
        if r.value is None:
            said = [f"No correlation of {which} can be told (n = {found.n}): {r.why}."]
        else:
            about = f"Of {which}, n = {found.n}: r = {r.value:.2f}{_interval(r)}"
            about += f"; Spearman's rho = {rho.value:.2f}{_interval(rho)}" if rho.value is not None else ""
            said = [f"{about}.", _verdict(r, found.n)]
        if found.left_out:
            left = ", ".join(found.left_out)
            said.append(f"Left out, for want of a training that came to its end: {left}.")
        return [*said, *self.notes]

    @property
    def claim(self) -> str:
        """The same as one text."""
        return " ".join(self.sentences)

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head: the models, then what is correlated."""
        head = ("model", "parameters", f"search {self.searched_by}", *(d.name for d in self.data), "mean log odds")
        left = dict(zip(self.correlation.models, self.correlation.y, strict=True))
        rows: list[tuple[str, ...]] = [head]
        for m in self.models:
            means = [m.mean(d.name) for d in self.data]
            rows.append(
                (
                    m.name,
                    f"{m.parameters:,}",
                    ACCURACY.text(m.searched) if self.searched_by != "reward" else f"{m.searched:.4g}",
                    *("failed" if mean is None else ACCURACY.text(mean) for mean in means),
                    f"{left[m.name]:+.3f}" if m.name in left else "left out",
                )
            )
        return rows

    def coefficients(self) -> list[tuple[str, ...]]:
        """Rows of text with a head: r and rho over all data sets, and of each alone."""
        rows: list[tuple[str, ...]] = [("data", "n", "r", "95 % (Fisher)", "95 % (bootstrap)", "rho", "95 % (Fisher)")]
        alone = list(self.by_data.items()) if len(self.by_data) > 1 else []
        for name, found in [("all" if alone else self.data[0].name, self.correlation), *alone]:
            r, rho = found.pearson, found.spearman
            rows.append(
                (
                    name,
                    str(found.n),
                    _number(r.value),
                    _range(r.interval),
                    _range(r.bootstrap),
                    _number(rho.value),
                    _range(rho.interval),
                )
            )
        return rows

    def with_notes(self, notes: Sequence[str], at: str) -> Correlated:
        """The same with what a reader should know, and when the test sets were looked at."""
        return replace(self, notes=list(notes), at=at)

    def page(self, path: Path, *, force: bool = False) -> Path:
        """Write its page, one HTML file that works offline, and give its path.

        An earlier page there is replaced, another file only with `force`. Raises UsageError when it cannot be written.
        """
        from archsmith._page.document import check_place, write
        from archsmith._transfer.page import page

        check_place(path, "correlation", force=force)
        write(path, page(self), "correlation", force=force)
        return path

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            **dataclasses.asdict(self),
            "correlation": self.correlation.to_json(),
            "by_data": {name: found.to_json() for name, found in self.by_data.items()},
            "claim": self.claim,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Correlated:
        """What `to_json` wrote."""
        models = [
            CorrelatedModel(
                **{**m, "finals": {name: [Final.from_json(f) for f in finals] for name, finals in m["finals"].items()}}
            )
            for m in value["models"]
        ]
        made: dict[str, Any] = {
            "models": models,
            "data": [DataSet(**d) for d in value["data"]],
            "correlation": _correlation(value["correlation"]),
            "by_data": {name: _correlation(found) for name, found in value["by_data"].items()},
        }
        return cls(**{f.name: value[f.name] for f in dataclasses.fields(cls)} | made)

    def __str__(self) -> str:
        return "\n".join([in_columns(self.table()), "", in_columns(self.coefficients()), "", *self.sentences])


def _correlation(value: Mapping[str, Any]) -> Correlation:
    found = {name: tuple(value[name]) for name in ("models", "x", "y", "left_out")}
    return Correlation(**found, pearson=_coefficient(value["pearson"]), spearman=_coefficient(value["spearman"]))


def _coefficient(value: Mapping[str, Any]) -> Coefficient:
    pairs = {name: tuple(value[name]) if value[name] else None for name in ("interval", "bootstrap")}
    return Coefficient(value["value"], why=value["why"], **pairs)


def _interval(found: Coefficient) -> str:
    return "" if found.interval is None else f" (95 % interval {_range(found.interval)})"


def _verdict(r: Coefficient, n: int) -> str:
    if r.interval is None:
        return f"With {n} models there is no interval, so nothing is shown."
    low, high = r.interval
    if low <= 0 <= high:
        return "The interval includes zero: that the one foretells the other is not shown."
    good = "The better in the search, the better there" if low > 0 else "The better in the search, the worse there"
    wide = r.bootstrap is not None and r.bootstrap[0] <= 0 <= r.bootstrap[1]
    return f"{good}; resampling the models, though, the interval includes zero." if wide else f"{good}."


def _range(interval: tuple[float, float] | None) -> str:
    return "none" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
