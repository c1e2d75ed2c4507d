"""Trials: one proposal each, with its state.

    proposed ──> running ──> done      the child was trained and has a reward
        │           ├──────> failed    it could not be trained, for a reason
        │           ├──────> stopped   it was ended on purpose: by a budget, by a rule or by the searcher's owner
        │           └──────> paused    trained for some epochs and put aside: it runs on, or is stopped for good
        └──────────────────> failed, stopped (before it began)

A run that resumes moves what was running back to proposed, or to paused where that was its state before: the only ways
back. A trial that failed only because no reward could be made of its result becomes done once there is one.
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
        epochs_again: those of `epochs` that were trained a second time, since a child that had been put aside began anew.
    """

    seconds: float = 0.0
    epochs: float = 0.0
    lost_seconds: float = 0.0
    epochs_again: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.epochs + other.epochs,
            self.lost_seconds + other.lost_seconds,
            self.epochs_again + other.epochs_again,
        )

    def to_json(self) -> dict[str, float]:
        """Plain JSON; what was lost, or done again, only where something was."""
        more = {name: getattr(self, name) for name in ("lost_seconds", "epochs_again") if getattr(self, name)}
        return {"seconds": self.seconds, "epochs": self.epochs, **more}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a child was not trained to its end.

    Args:
        reason: one word: "error", "diverged", "seconds", "parameters", "memory", "genotype", "worker", "reward", "store".
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
        checkpoint: the digest of the state of the training, from which it can go on; None where it would begin anew.
        stopped_by: of a stopped trial, what ended it: "rule" or "time"; None where that is not known.
        settings: the fields of the evaluator that the child decided, with their values.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    cost: Cost = Cost()
    failure: Failure | None = None
    artifact: str | None = None
    copied_from: int | None = None
    checkpoint: str | None = None
    stopped_by: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

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
            **({"stopped_by": self.stopped_by} if self.stopped_by is not None else {}),
            **({"settings": dict(self.settings)} if self.settings else {}),
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
            stopped_by=value.get("stopped_by"),
            settings=value.get("settings", {}),
        )


NEEDS_NOTHING = "0" * 64
"""The checkpoint of a paused training that can go on and had nothing to keep for that."""


def joined(before: Result | None, after: Result) -> Result:
    """The result of a whole training, of which `before` is what it had come to when it was put aside and `after` the rest.

    The curve has each epoch once, as it was trained last, and those of a child that began anew count as trained again.
    Costs are added. All else is of the end.
    """
    if before is None:
        return after
    later = {row.get("epoch", place) for place, row in enumerate(after.curve, 1)}
    kept = [row for place, row in enumerate(before.curve, 1) if row.get("epoch", place) not in later]
    again = Cost(epochs_again=float(len(before.curve) - len(kept)))
    curve = sorted([*kept, *after.curve], key=lambda row: row.get("epoch", math.inf)) if kept else after.curve
    metrics = after.metrics if after.metrics or after.failure else before.metrics  # one may end before it goes on
    return dataclasses.replace(after, metrics=metrics, curve=curve, cost=before.cost + after.cost + again)


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

    @property
    def lacks_reward(self) -> bool:
        """Whether it was trained, and failed only because no reward could be made of its metrics and its curve."""
        result = self.result
        if self.state is not TrialState.FAILED or result is None or result.failure is None:
            return False
        return result.failure.reason == "reward" and bool(result.metrics or result.curve)
