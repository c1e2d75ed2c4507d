"""What `auto` tells while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from archsmith._search.trainings import TrainingProgress
from archsmith.automl.pictures import Pictures
from archsmith.automl.plan import TimePlan
from archsmith.core.executor import Progress
from archsmith.core.trial import Trial


@dataclass(frozen=True)
class StageStarted:
    """What `auto` tells when a stage begins.

    Args:
        name: "search", "control", "choosing", "baseline", "final", "faster" or "closing".
        seconds: how long it will take, about.
        plan: the whole plan.
        epochs: passes over the training pictures that the stage's time is enough for, about; None: not measured yet.
    """

    name: str
    seconds: float
    plan: TimePlan
    epochs: float | None = None


@dataclass(frozen=True)
class DataRead:
    """What `auto` tells once the data are read.

    Args:
        description: plain JSON: counts, classes, splits, remarks.
        pictures: their sizes, and those that are used.
    """

    description: Mapping[str, Any]
    pictures: Pictures


@dataclass(frozen=True)
class WrapUpStarted:
    """What `auto` tells at the first Ctrl-C, from the signal handler."""


Event: TypeAlias = DataRead | StageStarted | WrapUpStarted | Trial | Progress | TrainingProgress
Watch: TypeAlias = Callable[[Event], None]
