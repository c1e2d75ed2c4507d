"""Trials: one proposal each, with its state.

    proposed ──> running ──> done      the child was trained and has a reward
        │           ├──────> failed    it could not be trained, for a reason
        │           ├──────> stopped   it was ended on purpose: by a budget, by a rule or by the searcher's owner
        │           └──────> paused    trained for some epochs and put aside: it runs on, or is stopped for good
        └──────────────────> failed, stopped (before it began)

A run that resumes moves what was running back to proposed, or to paused where that was its state before: the only ways
back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from archsmith.core.genotype import Genotype


class TrialState(StrEnum):
    """Where a trial stands."""

    PROPOSED = "proposed"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    PAUSED = "paused"

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self in _FINISHED


_FINISHED = frozenset({TrialState.DONE, TrialState.FAILED, TrialState.STOPPED})


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a searcher would have tried.

    Args:
        genotype: the answers.
        parent: the number of the trial it was made from, where a searcher works that way.
        replica: which of the searcher's replicas drew it, where there are several.
        version: of the parameters that it was drawn with, where that is not simply the searcher's.
    """

    genotype: Genotype
    parent: int | None = None
    replica: int | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What an evaluation took. Those of the pieces of one training can be added.

    Args:
        seconds: of training.
        epochs: passes over the training set, whole or in part.
        lost_seconds: of workers beside that: attempts that came to nothing since their worker died, and the wait for
            another one.
    """

    seconds: float = 0.0
    epochs: float = 0.0
    lost_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.epochs + other.epochs, self.lost_seconds + other.lost_seconds)

    def to_json(self) -> dict[str, float]:
        """Plain JSON; what was lost only where something was."""
        lost = {"lost_seconds": self.lost_seconds} if self.lost_seconds else {}
        return {"seconds": self.seconds, "epochs": self.epochs, **lost}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a child was not trained to its end.

    Args:
        reason: one word: "error", "diverged", "seconds", "parameters", "memory", "genotype", "worker", "reward".
        message: one sentence for a person.
        traceback: where it came from, if it was an exception.
    """

    reason: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluator returns.

    Args:
        metrics: named numbers, such as "accuracy" (validation, as a fraction) and "parameters".
        curve: the metrics of each epoch, in order; each has "epoch", counted from 1.
        cost: what it took.
        failure: why it failed, or None.
        artifact: the digest of the weights that were kept, or None.
        copied_from: the trial that was the same child, whose result this is; None where the child was trained.
        checkpoint: the digest of a paused training, from which it can go on; None where it would begin anew.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    cost: Cost = Cost()
    failure: Failure | None = None
    artifact: str | None = None
    copied_from: int | None = None
    checkpoint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; NaN and infinities as text, since JSON has no numbers for them."""
        return {
            "metrics": {k: _number(v) for k, v in self.metrics.items()},
            "curve": [{k: _number(v) for k, v in row.items()} for row in self.curve],
            "cost": self.cost.to_json(),
            "failure": dataclasses.asdict(self.failure) if self.failure else None,
            "artifact": self.artifact,
            "copied_from": self.copied_from,
            "checkpoint": self.checkpoint,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """The result that `to_json` wrote."""
        failure = value.get("failure")
        return cls(
            metrics={k: float(v) if isinstance(v, str) else v for k, v in value["metrics"].items()},
            curve=[{k: float(v) if isinstance(v, str) else v for k, v in row.items()} for row in value["curve"]],
            cost=Cost(**value["cost"]),
            failure=Failure(**failure) if failure else None,
            artifact=value.get("artifact"),
            copied_from=value.get("copied_from"),
            checkpoint=value.get("checkpoint"),
        )


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else repr(float(value))


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposal with its state. Times are seconds of the run's own clock, which stands still between sessions.

    Args:
        number: counted from 0 in the order proposed.
        genotype: what is tried.
        parent: the trial it was made from, or None.
        state: where it stands.
        reward: the number the searcher learns from; None unless done.
        result: what the evaluator returned; None unless finished (a stopped trial may have none). Of one that is paused, or
            was and runs on, what there was when it was put aside.
        proposed_at, started_at, finished_at: when, or None.
        attempts: how often it was started.
        replica, version: as it was proposed; see `Proposal`.
    """

    number: int
    genotype: Genotype
    parent: int | None = None
    state: TrialState = TrialState.PROPOSED
    reward: float | None = None
    result: Result | None = None
    proposed_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    replica: int | None = None
    version: int | None = None
