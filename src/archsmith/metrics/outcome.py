"""What `auto` delivered, as plain data: the network, its baseline, its test, and where the time went.

`automl` writes it as the run's document `DOCUMENT`; the page and the command line read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsmith.core.errors import UsageError
from archsmith.core.plain_records import from_plain
from archsmith.metrics import mcnemar, paired_difference, wilson
from archsmith.metrics.calibration import Bin
from archsmith.metrics.confusion import ClassScores

DOCUMENT = "auto"
FOUND, BASELINE = "found", "baseline"


@dataclass(frozen=True)
class Score:
    """How many pictures were recognised, of how many."""

    correct: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.count:
            raise UsageError(f"correct must be from 0 to the count {self.count}, got {self.correct}")

    @property
    def accuracy(self) -> float | None:
        """The share of the pictures that were recognised; None without pictures."""
        return self.correct / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy that this number of pictures allows (Wilson)."""
        return wilson.interval(self.correct, self.count)


@dataclass(frozen=True)
class DeliveredNetwork:
    """The network that is written to disk.

    Args:
        source: "found" by the search, or the "baseline".
        name: what a person calls it, such as "a residual network with 3 stages" or "ResNet-18".
        training: how its weights came about: "continued from trial 7", "from the beginning".
        seconds: how long its weights were trained, continued trainings of the search included.
        epochs: the same in passes over the training pictures.
        validation, test: its scores.
        parameters: how many it has.
        file_bytes: the size of the exported file.
        latency: milliseconds that the exported network takes for one picture on this machine; the median.
        size: the side of the pictures that it takes, in pixels.
        trial: the number of the trial that proposed it; None for the baseline.
        engine: what the latency was measured with, and those of faster networks: "pytorch" or "onnxruntime", with one thread.
    """

    source: str
    name: str
    training: str
    seconds: float
    epochs: float
    validation: Score | None = None
    test: Score | None = None
    parameters: int | None = None
    file_bytes: int | None = None
    latency: float | None = None
    size: int | None = None
    trial: int | None = None
    engine: str = "pytorch"


@dataclass(frozen=True)
class OtherNetwork:
    """A network that was trained for comparison, and is not delivered.

    Args:
        name: what a person calls it.
        seconds: for how long it was trained; of the search's best network, what the search took as well.
        equal_time: whether it had as much time as the delivered network and its search together.
        validation: its score on validation pictures.
        test: its score on test pictures; None if it was not tested.
        parameters: how many it has.
        epochs: passes over the training pictures.
    """

    name: str
    seconds: float
    equal_time: bool
    validation: Score | None = None
    test: Score | None = None
    parameters: int | None = None
    epochs: float | None = None


ENGINE_NAMES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime"}
"""What people call the engines that latencies are measured with."""


@dataclass(frozen=True)
class FasterNetwork:
    """A network that was trained on from the delivered one, for inputs that take it less time.

    Args:
        network: what `export --network` calls it.
        name: what a person calls it.
        latency: milliseconds for a picture, measured on the machine that trained it.
        size: the side of its input in pixels.
        parameters: how many it has.
        validation, test: its scores.
    """

    network: str
    name: str
    latency: float
    size: int
    parameters: int
    validation: Score
    test: Score


@dataclass(frozen=True)
class PairedCounts:
    """Two networks on the same test pictures: how many both recognised, only one of them, and neither."""

    both: int
    delivered_only: int
    baseline_only: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.delivered_only, self.baseline_only, self.neither) < 0:
            raise UsageError("the counts of a paired comparison must be zero or more")

    @property
    def count(self) -> int:
        """How many test pictures there are."""
        return self.both + self.delivered_only + self.baseline_only + self.neither

    @property
    def difference(self) -> float:
        """The delivered network's accuracy minus the baseline's; 0 without pictures."""
        return (self.delivered_only - self.baseline_only) / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference (Newcombe)."""
        return paired_difference.interval(self.both, self.delivered_only, self.baseline_only, self.neither)

    @property
    def p(self) -> float:
        """The two-sided p of McNemar's exact test."""
        return mcnemar.p_value(self.delivered_only, self.baseline_only)


@dataclass(frozen=True)
class Mistake:
    """A test picture that was taken for another class.

    Args:
        file: its path below the data; empty for arrays.
        label: its class.
        predicted: the class that it was taken for.
        confidence: how sure the network was, from 0 to 1.
        picture: a small JPEG as a `data:` address; empty if there is none.
    """

    file: str
    label: str
    predicted: str
    confidence: float
    picture: str = ""


@dataclass(frozen=True)
class SuspectedLabel:
    """A picture whose label may be wrong.

    Args:
        file, label, picture: as of a `Mistake`.
        likely: the class that the network takes it for.
        probability: of that class, from a network that did not learn from the picture.
        split: "training", "validation" or "test".
    """

    file: str
    label: str
    likely: str
    probability: float
    split: str = ""
    picture: str = ""


@dataclass(frozen=True)
class DuplicatePair:
    """The same picture in two splits.

    Args:
        first, second: the files.
        splits: where they are, such as ("training", "test").
        exact: whether their pixels are equal; otherwise they look the same.
        same_label: whether they are in the same class.
        pictures: of both, as of a `Mistake`.
    """

    first: str
    second: str
    splits: tuple[str, str]
    exact: bool
    same_label: bool = True
    pictures: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class CalibrationReport:
    """Whether the network's confidence can be trusted.

    Args:
        temperature: what the logits are divided by, chosen on pictures that the network did not learn from; the exported
            network does it.
        error_before, error_after: the expected calibration error on test pictures, without the temperature and with it.
        before, after: the groups of test pictures of about equal confidence that these come from.
    """

    temperature: float
    error_before: float | None = None
    error_after: float | None = None
    before: tuple[Bin, ...] = ()
    after: tuple[Bin, ...] = ()


@dataclass(frozen=True)
class Assessment:
    """The delivered network on the test pictures.

    Args:
        classes: the names of the classes.
        scores: of each class, in the same order.
        confusions: (true class, predicted class, pictures), by index, for each pair of different classes that occurs.
        mistakes: the worst: wrong with the highest confidence, which comes first.
    """

    classes: tuple[str, ...]
    scores: tuple[ClassScores, ...]
    confusions: tuple[tuple[int, int, int], ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    def __post_init__(self) -> None:
        k = len(self.classes)
        if len(self.scores) != k:
            raise UsageError(f"scores must be one for each of the {k} classes, got {len(self.scores)}")
        if any(not (0 <= i < k and 0 <= j < k and n > 0) for i, j, n in self.confusions):
            raise UsageError(f"confusions must name two of the {k} classes and a number above zero")

    @property
    def score(self) -> Score:
        """Over all classes."""
        return Score(sum(s.correct for s in self.scores), sum(s.count for s in self.scores))

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean recall of the classes that have pictures; None without any."""
        recalls = [s.recall for s in self.scores if s.recall is not None]
        return sum(recalls) / len(recalls) if recalls else None


@dataclass(frozen=True)
class Stage:
    """A part of the work: the seconds that it was planned to take (None: not planned) and took (None: not reached)."""

    name: str
    planned: float | None
    used: float | None


@dataclass(frozen=True)
class AutoOutcome:
    """What `auto` delivered, and all that its page says of it.

    Args:
        delivered: the network on disk.
        baseline: the hand-designed network as it was trained for comparison; None if there is none.
        found: the search's best network, if the baseline is delivered.
        faster: networks made from it that take less time, the slowest first.
        assessment: the delivered network on the test pictures; None if it was not tested.
        paired: the delivered network and the baseline on the same test pictures; None if not both were tested.
        stages: the plan of the time, and what became of it.
        time_budget: the seconds that all of it could take; None without a budget.
        children: how many networks the search trained.
        epochs: the passes over the training pictures of all trainings.
        calibration: None if no temperature was chosen.
        suspects, suspects_found: suspected wrong labels, the most suspicious first, and how many there are in all.
        duplicates, duplicates_found: the same pictures in two splits, and how many pairs there are in all.
        notes: what else a reader should know, in sentences.
        validation_predictions, test_predictions, baseline_test_predictions: the artifacts with the `Predictions`.
    """

    delivered: DeliveredNetwork
    baseline: OtherNetwork | None = None
    found: OtherNetwork | None = None
    assessment: Assessment | None = None
    paired: PairedCounts | None = None
    stages: tuple[Stage, ...] = ()
    time_budget: float | None = None
    children: int = 0
    epochs: float = 0.0
    calibration: CalibrationReport | None = None
    suspects: tuple[SuspectedLabel, ...] = ()
    suspects_found: int = 0
    duplicates: tuple[DuplicatePair, ...] = ()
    duplicates_found: int = 0
    notes: tuple[str, ...] = ()
    validation_predictions: str | None = None
    test_predictions: str | None = None
    baseline_test_predictions: str | None = None
    faster: tuple[FasterNetwork, ...] = ()

    def __post_init__(self) -> None:
        if self.delivered.source not in (FOUND, BASELINE):
            raise UsageError(f"the source of a delivered network is found or baseline, got {self.delivered.source!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for the run's document."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AutoOutcome:
        """What `to_json` wrote, by this or another version. Raises UsageError for anything else."""
        return from_plain(cls, value)
