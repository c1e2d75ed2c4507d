"""Evaluators: what trains a child and returns a result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from archsmith.core.checks import plain_fields
from archsmith.core.errors import ChildFailed, Diverged, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.number import as_number
from archsmith.core.space import Space, decode
from archsmith.core.trial import Cost, Result


@dataclass(frozen=True)
class Limits:
    """What one child may use; None is no limit. Going over one is a failed trial with that reason.

    Args:
        seconds: wall clock of one training.
        parameters: trainable numbers in the model.
        memory_bytes: resident memory of the process that trains it, above what it had before.
    """

    seconds: float | None = None
    parameters: int | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        for name in ("seconds", "parameters", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"the limit {name} must be above zero or None, got {value!r}")


class Context(Protocol):
    """What an executor gives an evaluator beside the child's genotype."""

    @property
    def seed(self) -> int:
        """The child's own seed, from the run's seed and the trial's number."""
        ...

    @property
    def device(self) -> str:
        """Where to train: "cpu", "cuda:0", ..."""
        ...

    @property
    def threads(self) -> int:
        """How many threads the training may use."""
        ...

    @property
    def limits(self) -> Limits:
        """What it may use."""
        ...

    @property
    def parent(self) -> int | None:
        """The trial that the child's genotype was made from, or None; `artifact(parent)` has its weights."""
        ...

    @property
    def parent_genotype(self) -> Genotype | None:
        """The genotype of `parent`, if that trial kept weights; None otherwise."""
        ...

    @property
    def resume(self) -> Mapping[str, Any] | None:
        """The tensors that this child kept by `pause`, to go on from; empty where it needed none, None where it begins at
        its first epoch."""
        ...

    @property
    def epochs_done(self) -> int:
        """How many epochs are in `resume`; 0 where it begins."""
        ...

    @property
    def paused(self) -> bool:
        """Whether `report` said to stop because the child is put aside, and may go on later."""
        ...

    def pause(self, tensors: Mapping[str, Any]) -> None:
        """Keep what a child that is put aside needs to go on exactly as if it had not been; nothing, `{}`, where it needs
        none. One that does not call this begins anew if it goes on.

        When it goes on, the curve and the cost of its result are those of the rest alone, its metrics those of the whole.
        """
        ...

    def report(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Tell how it goes after an epoch (counted from 1); whether to go on.

        Raises LimitExceeded when the child is over its time or memory.
        """
        ...

    def check(self) -> None:
        """Raise LimitExceeded when the child is over its time or memory; cheap, for use between batches."""
        ...

    def checkpoint(self, tensors: Mapping[str, Any]) -> str:
        """Keep named tensors; gives their digest, for `Result.artifact`."""
        ...

    def artifact(self, trial: int) -> Mapping[str, Any] | None:
        """The tensors that an earlier trial kept, or None: those of the parent alone are at hand.

        Raises StoreError when they were kept and are gone.
        """
        ...


@runtime_checkable
class MayEndEarly(Protocol):
    """A context whose training may be asked, while it runs, to come to its end by a moment. A training whose length is a time
    looks at it before each step, and lets its schedules reach their end by then."""

    @property
    def ends_at(self) -> float | None:
        """The moment, by `time.monotonic`; None while nobody asked."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Trains a child and returns a result. A frozen dataclass; it may also offer:

    - `default_reward`: the reward of a search that is given none (`HasDefaultReward`).
    - `fingerprint() -> str`: identifies the data it trains on (`IdentifiesData`).
    - `describe_data()`: the name and the size of the data, as plain JSON (`DescribesData`).
    - `loaded()`: the data it has read, for other processes (`core.loaded.ReadsData`).
    - `data_contents()`: a digest of each file, to name those that change (`core.data_changes.HasContents`).
    - `data_record()` and `recorded_data()`: for an export without the data (`core.data_records.RecordsData`).
    - `epoch_cost`: the passes over the data that one reported epoch costs, as `Cost.epochs` counts them (`DeclaresEpochCost`).
    - `check_space(space)`: raises an error that would fail every child, before the search begins (`ChecksSpace`).
    - `reported_epochs`: the epochs that a whole training reports, 0 for none. Default: its field `epochs`.
    - `pure = True`: nothing is isolated or seeded for it (`DeclaresPure`).
    - `reported_metrics`: the names of the metrics in its results (`DeclaresMetrics`).
    - `nonrepeating`: the names of the metrics that differ between trainings with the same seed (`DeclaresNonrepeating`).
    - `regret(space, genotype) -> float`, where the best there is is known: how far a genotype is from it, for telling how a
      search went once it is over.
    """

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        """Train the genotype's child. Whatever it raises makes a failed trial."""
        ...


@runtime_checkable
class IdentifiesData(Protocol):
    """An evaluator that trains on data which may change between two sessions of a run."""

    def fingerprint(self) -> str:
        """A text that is equal for equal data."""
        ...


@runtime_checkable
class DescribesData(Protocol):
    """An evaluator that says what its data are."""

    def describe_data(self) -> Mapping[str, Any]:
        """The data's name and numbers of examples, as plain JSON."""
        ...


@runtime_checkable
class ChecksSpace(Protocol):
    """An evaluator that cannot train the children of every space."""

    def check_space(self, space: Space) -> None:
        """Raise UsageError if every child of the space would fail."""
        ...


@runtime_checkable
class DeclaresPure(Protocol):
    """An evaluator that may say that it is pure: its results follow from its arguments alone, it draws from no global
    generator and leaves the process as it was, such as one that looks results up. Nothing is seeded or put back for it."""

    @property
    def pure(self) -> bool:
        """Whether it is."""
        ...


def is_pure(evaluator: object) -> bool:
    """Whether an evaluator says that it is pure."""
    return (
        getattr(evaluator, "pure", False) is True
    )  # isinstance of a protocol takes 20 microseconds, twice for each trial


@runtime_checkable
class HasDefaultReward(Protocol):
    """An evaluator with a reward of its own."""

    @property
    def default_reward(self) -> Callable[[Result], float]:
        """The reward of a search that is given none."""
        ...


@runtime_checkable
class DeclaresMetrics(Protocol):
    """An evaluator that declares the metrics of its results, so that a reward which needs another metric is refused before a
    child is trained."""

    @property
    def reported_metrics(self) -> Sequence[str]:
        """The names of the metrics of every result."""
        ...


@runtime_checkable
class DeclaresEpochCost(Protocol):
    """An evaluator that trains several networks for a child, such as one for each fold of a cross-validation."""

    @property
    def epoch_cost(self) -> int:
        """How many passes over the data one reported epoch costs."""
        ...


def epoch_cost(evaluator: object) -> int:
    """How many passes over the data a reported epoch costs: 1 unless the evaluator declares more."""
    return evaluator.epoch_cost if isinstance(evaluator, DeclaresEpochCost) else 1


@runtime_checkable
class DeclaresNonrepeating(Protocol):
    """An evaluator with measured metrics, such as a latency, which differ each time."""

    @property
    def nonrepeating(self) -> Sequence[str]:
        """Their names, in metrics and in curves."""
        ...


def repeatable(evaluator: object, result: Result) -> Result:
    """The part of a result that the same training gives again, for comparisons: without seconds, without metrics whose names
    end in "seconds" or "per_second", and without those that the evaluator declares as `nonrepeating`."""
    declared = frozenset(evaluator.nonrepeating) if isinstance(evaluator, DeclaresNonrepeating) else frozenset()

    def repeating(row: Mapping[str, float]) -> dict[str, float]:
        return {k: v for k, v in row.items() if k not in declared and not k.endswith(("seconds", "per_second"))}

    return dataclasses.replace(
        result,
        metrics=repeating(result.metrics),
        curve=[repeating(row) for row in result.curve],
        cost=Cost(epochs=result.cost.epochs, epochs_again=result.cost.epochs_again),
    )


DATA_FIELDS = ("data", "table")
"""The fields of an evaluator that say where its data are."""


def without_data(config: Any) -> Any:
    """The recorded configuration of an evaluator without the place of its data, which are identified by their content."""
    return {k: v for k, v in config.items() if k not in DATA_FIELDS} if isinstance(config, Mapping) else config


def with_data(evaluator: Evaluator, data: Any) -> Evaluator | None:
    """The evaluator with its field `data`, or `table`, replaced; None if it has neither."""
    for name in DATA_FIELDS:
        if dataclasses.is_dataclass(evaluator) and hasattr(evaluator, name):
            return dataclasses.replace(evaluator, **{name: data})
    return None


def epochs_of(evaluator: Evaluator) -> int | None:
    """How many epochs a whole training of the evaluator reports, 0 for none; None if it does not say."""
    said = getattr(evaluator, "reported_epochs", getattr(evaluator, "epochs", None))
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else None


def counts_epochs(evaluator: Evaluator) -> bool | None:
    """Whether the results of an evaluator count towards a budget in epochs; None if it does not say.

    An evaluator whose `epochs` is above 0 may state them as the cost of a result, even if its children report none.
    """
    said = [getattr(evaluator, name, None) for name in ("reported_epochs", "epochs")]
    numbers = [number for number in said if isinstance(number, int | float)]
    return any(numbers) if numbers else None


@dataclass(frozen=True)
class FunctionEvaluator:
    """Any callable of an architecture that returns a number (metric "value") or a dict of metrics."""

    function: Callable[[Any], float | Mapping[str, float]]
    reported_epochs: ClassVar[int] = 0

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        value = self.function(decode(space, genotype))
        if isinstance(value, Result):
            return value
        if isinstance(value, Mapping):
            return Result(metrics=value)
        try:
            number = as_number(value, "what it returned")
        except ChildFailed as error:
            raise ChildFailed(f"an evaluator function must return a number or a dict of metrics: {error}") from None
        if not math.isfinite(number):
            raise Diverged(f"the evaluator returned {number}")
        return Result(metrics={"value": float(number)})


def as_evaluator(evaluator: Evaluator | Callable[[Any], Any]) -> Evaluator:
    """An evaluator as it is, or a callable of an architecture wrapped as one."""
    if isinstance(evaluator, type):
        raise UsageError(
            f"evaluator must be a value, got the class {evaluator.__name__}; write {evaluator.__name__}(...)"
        )
    if isinstance(evaluator, Evaluator):
        return evaluator
    if callable(evaluator):
        return FunctionEvaluator(evaluator)
    raise UsageError(
        f"an evaluator must be one of archsmith.training, or a callable of an architecture, got {evaluator!r}"
    )
