"""A genotype looked up instead of trained: a search over a table of real trainings takes seconds.

A table has a row for each genotype, a column for each choice of the space, under the choice's name, and columns of
numbers: what its training gave, and what it took. It is an .npz of equally long arrays, a .csv or a .parquet file;
the arrays of NAS-Bench-201 (Dong and Yang 2020; NATS-Bench, Dong et al. 2021) are recognised as they are published.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.errors import ChildFailed, DataError, UnknownName, UsageError
from archsmith.core.evaluator import Context
from archsmith.core.genotype import Answer, Genotype
from archsmith.core.shown import spelled
from archsmith.core.space import Space, as_space, decode, script
from archsmith.core.trial import Cost, Result
from archsmith.data.table_cells import NOT_ASKED, Reader, check_options, choice_column, number_column
from archsmith.data.table_files import ReadTable, current, digest, key_of, read_table, version_of
from archsmith.rewards import value

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Tabular"]

DEVICES = ("edgegpu", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga")
"""Whose latencies NAS-Bench-201's cells have."""


@dataclass(frozen=True)
class Tabular:
    """An evaluator that looks results up.

    Args:
        table: the path of an .npz, .csv or .parquet file; one that is not there is looked for in the folder that
            ARCHSMITH_DATA names.
        column: the column of the number to be searched for, which is reported as the metric "value".
        scale: is multiplied into it: 0.01 makes a fraction of a percentage, -1 turns a loss around.
        metrics: further columns to report, under their own names; or, as a dict or as pairs, columns with the names to
            report them under: {"hw/cifar10/pixel3_latency": "latency"}. Leave what was measured on test data out.
        seconds: how long the training of a row took: a column, or a number for all rows.
        epochs: how many epochs it took.
        choices: the columns that are choices of the space. Empty: those the space asks, which is known only where its
            questions do not depend on answers.
        called: a second name that the number is reported under, such as "accuracy", for rewards that read it by that.
        seconds_scale: is multiplied into `seconds`: 3600 for a column of hours.
        judge: the column by which `regret` judges, such as accuracy on test data (default: `column` itself). No result has
            it, so that nothing can be chosen by it.
        curve: the columns of the number after each epoch, in order, so that a rule may stop a child before its end, and the
            rest of its time is spared. `epochs` is then as many.
    """

    table: str
    column: str
    scale: float = 1.0
    metrics: tuple[str | tuple[str, str], ...] | Mapping[str, str] = ()
    seconds: str | float = 0.0
    epochs: float = 1.0
    choices: tuple[str, ...] = ()
    called: str | None = None
    seconds_scale: float = 1.0
    judge: str | None = None
    curve: tuple[str, ...] = ()

    pure: ClassVar[bool] = True
    default_reward = staticmethod(value)

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "table", _found(str(self.table)))
        object.__setattr__(self, "metrics", _named(self.metrics))
        names = [name for _, name in _pairs(self)]
        taken = ["value", *([self.called] if self.called is not None else []), *names]
        if not all(isinstance(name, str) and name for name in taken) or len(set(taken)) != len(taken):
            raise UsageError(
                f"the metrics of Tabular must have names of their own, and one is called value; got {', '.join(map(repr, taken))}"
            )
        object.__setattr__(self, "choices", tuple(self.choices))
        if isinstance(self.curve, str):
            raise UsageError(f"curve of Tabular must be a tuple of columns, one an epoch, got the text {self.curve!r}")
        object.__setattr__(self, "curve", tuple(self.curve))
        if self.curve and self.epochs == 1.0:
            object.__setattr__(self, "epochs", float(len(self.curve)))
        if self.curve and self.epochs != len(self.curve):
            raise UsageError(
                f"curve of Tabular has a column for each epoch, got {len(self.curve)} columns and epochs={self.epochs:g}"
            )
        for name in ("scale", "epochs", "seconds_scale"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise UsageError(f"{name} of Tabular must be a finite number, got {number!r}")
        for name in ("epochs", "seconds_scale"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} of Tabular must be at least 0, got {getattr(self, name)!r}")
        if not isinstance(self.seconds, str) and not 0 <= self.seconds < math.inf:
            raise UsageError(f"seconds of Tabular must be a column or a number of at least 0, got {self.seconds!r}")

    @classmethod
    def nasbench201(
        cls,
        table: str | os.PathLike[str],
        dataset: str = "cifar10",
        *,
        epochs: int = 200,
        metrics: tuple[str | tuple[str, str], ...] | Mapping[str, str] = (),
        latency: str | None = None,
    ) -> Tabular:
        """The validation accuracy, as a fraction, of the cells of `archsmith.spaces.NASBench201`.

        Args:
            table: the .npz file with NAS-Bench-201's arrays.
            dataset: "cifar10", "cifar100" or "ImageNet16-120".
            epochs: of the trainings: 200 or 12.
            metrics: further columns, such as "hw/cifar10/edgegpu_energy"; as in `Tabular`.
            latency: a device whose measured latency is reported as the metric "latency", in milliseconds: "edgegpu",
                "raspi4", "edgetpu", "pixel3", "eyeriss" or "fpga" (HW-NAS-Bench, Li et al. 2021). The accuracy is then
                reported as "accuracy" as well, so that `archsmith.rewards.latency_weighted` reads both.
        """
        path, column = os.fspath(table), f"acc{epochs}_val/{dataset}"
        if latency is None:
            return cls(path, column, scale=0.01, metrics=metrics, epochs=float(epochs))
        if latency not in DEVICES:
            raise UnknownName("device of NAS-Bench-201", str(latency), DEVICES)
        named = (*_named(metrics), (f"hw/{dataset}/{latency}_latency", "latency"))
        return cls(path, column, scale=0.01, metrics=named, epochs=float(epochs), called="accuracy")

    # --- looking up ---------------------------------------------------------------------------------------------------

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        """The genotype's row. Raises IllegalGenotype, DataError for a table that cannot be used, and ChildFailed when
        it has no such row, or no number there."""
        decode(space, genotype)
        try:
            index = self._index(space, genotype)
        except UsageError:  # where the questions depend on answers, that is what is to be said
            index = self._index(space)
        row = self._row(index, genotype)
        number, took = index.values[row], index.seconds[row]
        if number != number or number in (math.inf, -math.inf):
            raise ChildFailed(f"the table {self.table} has no number in {self.column!r} for this row", reason="table")
        if not 0 <= took < math.inf:
            raise ChildFailed(f"the table {self.table} has no time in {self.seconds!r} for this row", reason="table")
        metrics = {"value": number} | ({self.called: number} if self.called is not None else {})
        for column, name in _pairs(self):
            metrics[name] = index.metrics[column][row]
        if self.curve:
            return self._by_epoch(index, row, metrics, took * self.seconds_scale, context)
        return Result(metrics, cost=Cost(took * self.seconds_scale, self.epochs))

    def _by_epoch(self, index: _Index, row: int, metrics: Mapping[str, float], took: float, context: Context) -> Result:
        """The row told epoch by epoch, from where it was put aside to where it is stopped."""
        curve: list[dict[str, float]] = []
        for epoch, column in enumerate(self.curve[context.epochs_done :], context.epochs_done + 1):
            number = index.metrics[column][row] * self.scale
            told = {"value": number} | ({self.called: number} if self.called is not None else {})
            curve.append({"epoch": epoch, **told})
            if not context.report(epoch, told):
                if context.paused:
                    context.pause({})  # there is nothing to keep
                metrics = {**metrics, **told}
                break
        share = len(curve) / len(self.curve)
        return Result(metrics, curve, Cost(took * share, float(len(curve))))

    @property
    def reported_metrics(self) -> tuple[str, ...]:
        """The number as "value", and further columns by their names."""
        return ("value", *([self.called] if self.called is not None else []), *(name for _, name in _pairs(self)))

    @property
    def reported_epochs(self) -> int:
        """How many epochs are told: those of `curve`."""
        return len(self.curve)

    def check_space(self, space: Space) -> None:
        """Raise, before a search begins, what would fail each of its trials: DataError for a table that cannot be used or
        has none of a choice's options, UnknownName for a column that it does not have."""
        index = self._index(space)
        for question in script(space) or ():
            if not question.subset and question.name in index.choices:
                place = index.choices.index(question.name)
                check_options(self.table, question.name, index.cells[place], index.readers[place], question.options)

    def best(self, space: Space) -> tuple[dict[str, Any], float]:
        """The answers and the value of the best row: what regret is measured against.

        Answers are the space's own, 3 where a .csv has "3"; texts where its questions depend on answers, or it has none
        that is meant.
        """
        space = as_space(space)
        index = self._index(space)
        row = max(range(len(index.values)), key=lambda i: _orderly(index.values[i]))
        key = next(key for key, at in index.rows.items() if at == row)
        asked = {question.name: question.options for question in script(space) or () if not question.subset}
        answers: dict[str, Any] = {}
        for name, cell, read in zip(index.choices, key, index.readers, strict=True):
            answers[name] = next((option for option in asked.get(name, ()) if read(option) == cell), cell)
        return answers, index.values[row]

    def regret(self, space: Space, genotype: Genotype) -> float:
        """How far a genotype is from the best there is, by the column that judges; 0 for the best.

        For telling how a search went, once it is over. Raises ChildFailed when the table has no such row, or no number
        there, and UnknownName for a column that it does not have.
        """
        row = self.row_of(space, genotype)
        values, best = _judged(self.table, version_of(self.table), self.judge or self.column, float(self.scale))
        if not math.isfinite(values[row]):
            raise ChildFailed(f"the table {self.table} has no number to judge {genotype.key} by", reason="table")
        return best - values[row]

    def column_of(self, name: str) -> npt.NDArray[Any]:
        """A column of the table, row by row. Raises UnknownName."""
        columns = read_table(self.table, version_of(self.table))
        if name not in columns:
            raise UnknownName("column of the table", name, columns)
        return columns[name]

    def row_of(self, space: Space, genotype: Genotype) -> int:
        """The number of a genotype's row. Raises ChildFailed when there is none."""
        return self._row(self._index(space), genotype)

    def _row(self, index: _Index, genotype: Genotype) -> int:
        row = index.rows.get(index.key(genotype.answers))
        if row is None or not index.asked.issuperset(genotype.answers):
            raise ChildFailed(f"the table {self.table} has no row for the genotype {genotype.key}", reason="table")
        return row

    def loaded(self) -> dict[Hashable, ReadTable]:
        """The table, for processes that may not see the file; see `archsmith.core.loaded`."""
        return {key_of(self.table): current(self.table)}

    def fingerprint(self) -> str:
        """Identifies the content of the table, wherever it lies."""
        return digest(self.table, version_of(self.table))

    def data_contents(self) -> Mapping[str, str]:
        """The digest of the table, by its name."""
        return {Path(self.table).name: self.fingerprint()[:16]}

    def describe_data(self) -> dict[str, Any]:
        """Plain JSON of what the table is, for the record."""
        columns = read_table(self.table, version_of(self.table))
        return {
            "name": spelled(Path(self.table).name),
            "rows": len(next(iter(columns.values()))),
            "columns": len(columns),
            "sha256": self.fingerprint(),
        }

    def _index(self, space: Space, genotype: Genotype | None = None) -> _Index:
        """The table by the space's choices; where a legal genotype is given, by those that it answers, which takes no time."""
        choices = self.choices or (tuple(genotype.answers) if genotype is not None else ())
        if not choices:
            questions = script(space)
            if questions is None:
                raise UsageError(
                    "the questions of this space depend on answers: name the table's columns that are choices, "
                    "Tabular(..., choices=(...))"
                )
            choices = tuple(question.name for question in questions)
        return _indexed(
            self.table,
            version_of(self.table),
            choices,
            self.column,
            float(self.scale),
            tuple(dict.fromkeys([*(column for column, _ in _pairs(self)), *self.curve])),
            self.seconds,
        )


def _named(metrics: Any) -> tuple[str | tuple[str, str], ...]:
    """Columns, and pairs of a column and its name, as a configuration keeps them: it is hashed, and a dict is not."""
    if isinstance(metrics, Mapping):
        return tuple((str(column), name) for column, name in metrics.items())
    if isinstance(metrics, str):
        raise UsageError(f"metrics of Tabular must be a tuple of columns, got the text {metrics!r}")
    for entry in metrics:
        if not isinstance(entry, str) and (not isinstance(entry, list | tuple) or len(entry) != 2):
            raise UsageError(f"metrics of Tabular must be columns, or pairs of a column and a name, got {entry!r}")
    return tuple(entry if isinstance(entry, str) else (entry[0], entry[1]) for entry in metrics)


def _pairs(config: Tabular) -> list[tuple[str, str]]:
    """Column and name of each further metric."""
    return [(entry, entry) if isinstance(entry, str) else entry for entry in _named(config.metrics)]


def _orderly(number: float) -> float:
    return number if math.isfinite(number) else -math.inf


def _found(table: str) -> str:
    """The whole path of a table: where it is said to be, else in the data folder; as it was said where it is in neither."""
    path = os.path.expanduser(table)
    for folder in ("", os.environ.get("ARCHSMITH_DATA", "")):
        if os.path.exists(os.path.join(folder, path)):
            return os.path.abspath(os.path.join(folder, path))
    return path


# --- the table by its choices -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Index:
    choices: tuple[str, ...]
    readers: list[Reader]
    cells: list[frozenset[str]]  # the different ones of each choice
    rows: dict[tuple[str, ...], int]
    values: list[float]
    metrics: dict[str, list[float]]
    seconds: list[float]
    asked: frozenset[str]  # the choices

    def key(self, answers: Mapping[str, Answer]) -> tuple[str, ...]:
        """What stands in the columns of the choices; nothing where a choice was not asked."""
        return tuple(
            read(answers[name]) if name in answers else NOT_ASKED
            for name, read in zip(self.choices, self.readers, strict=True)
        )


@functools.lru_cache(maxsize=8)
def _indexed(
    table: str,
    version: int,
    choices: tuple[str, ...],
    column: str,
    scale: float,
    metrics: tuple[str, ...],
    seconds: str | float,
) -> _Index:
    columns = read_table(table, version)
    for name in (*choices, column, *metrics, *([seconds] if isinstance(seconds, str) else [])):
        if name not in columns:
            raise UnknownName(f"column of {Path(table).name}", name, columns)
    answered = [choice_column(columns[name]) for name in choices]
    rows: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(zip(*(cells for cells, _ in answered), strict=True)):
        if key in rows:
            raise DataError(
                f"rows {rows[key] + 1} and {row + 1} of {table} have the same choices {key}; a genotype has one row"
            )
        rows[key] = row
    if isinstance(seconds, str):
        took = number_column(table, seconds, columns[seconds]).tolist()
    else:
        took = [float(seconds)] * len(rows)
    return _Index(
        choices,
        [reader for _, reader in answered],
        [frozenset(cells) for cells, _ in answered],
        rows,
        (number_column(table, column, columns[column]) * scale).tolist(),
        {name: number_column(table, name, columns[name]).tolist() for name in metrics},
        took,
        frozenset(choices),
    )


@functools.lru_cache(maxsize=8)
def _judged(table: str, version: int, column: str, scale: float) -> tuple[list[float], float]:
    """What every row is judged by, and the best of it."""
    columns = read_table(table, version)
    if column not in columns:
        raise UnknownName(f"column of {Path(table).name}", column, columns)
    values = (number_column(table, column, columns[column]) * scale).tolist()
    return values, max(map(_orderly, values))
