"""Executors: where evaluators run. An executor owns devices, processes, time limits and retries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from archsmith.core.evaluator import Evaluator, Limits
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.core.trial import Result, TrialState

Reward: TypeAlias = Callable[[Result], float]
"""A number made from a result; larger is better."""


@dataclass(frozen=True)
class Job:
    """One trial, ready to run anywhere.

    Args:
        trial: its number.
        space, genotype, evaluator, reward: what to run.
        seed: the child's own.
        limits: what it may use.
        artifacts: the folder for weights that are kept, or None where nothing can be kept.
        earlier: the digests of artifacts that earlier trials kept, by trial number: the parent's, if it kept one.
        proposed_at: when it was proposed, in seconds of the run's clock; None where nobody counts.
        parent: the trial that its genotype was made from, or None.
        parent_genotype: the genotype of that trial, if it kept weights that this one may start from.
        until: the epoch after which it is to be put aside, or None: it is trained to its end.
        resume: what it had come to when it was put aside, or None; its checkpoint, where there is one, is where to go on.
    """

    trial: int
    space: Space
    genotype: Genotype
    evaluator: Evaluator
    reward: Reward
    seed: int
    limits: Limits = Limits()
    artifacts: str | None = None
    earlier: Mapping[int, str] = field(default_factory=dict)
    proposed_at: float | None = None
    parent: int | None = None
    until: int | None = None
    resume: Result | None = None
    parent_genotype: Genotype | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A job began. `attempt` counts from 1: a job whose worker died begins again."""

    trial: int
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """A job finished an epoch. `heard` where an earlier session of the run heard of it and had the job go on, which no
    rule decides anew: on a clock of its own a run that goes on comes to moments that it has been at."""

    trial: int
    epoch: int
    metrics: Mapping[str, float]
    heard: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """A job ended: done with a reward, failed with `result.failure`, stopped because it was cancelled, or paused after
    `Job.until` epochs."""

    trial: int
    state: TrialState
    result: Result
    reward: float | None = None


Event: TypeAlias = Started | Progress | Completed


@dataclass
class Clock:
    """A clock that an executor keeps in place of the wall's: what it shows is the run's time.

    Args:
        seconds: what it shows. A run sets it to where its record ends; from there the executor alone moves it on.
    """

    seconds: float = 0.0


@runtime_checkable
class Executor(Protocol):
    """Runs jobs. Used by one thread; nothing it is given or does raises because of a child.

    An executor may also be a `TrainsInCompleted`, a `HasClock`, or a `core.hosting.HasHost`.
    """

    @property
    def slots(self) -> int:
        """How many jobs it can run at once."""
        ...

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once. Raises UsageError for one that cannot be sent to where it would run."""
        ...

    def cancel(self, trial: int) -> None:
        """End a job soon; it completes as stopped, unless it ends before it hears of it.

        Unknown and finished trials are ignored.
        """
        ...

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        """What happened since the last call, in order; waits up to `timeout` seconds (None: until something does).

        Gives an empty sequence when the time is up, or when nothing is submitted. Each job completes exactly once, after
        its `Started`, unless it was cancelled before it began. Raises ArchsmithError when nothing can run at all.
        """
        ...

    def close(self) -> None:
        """End everything, running jobs included. Safe to call twice."""
        ...


@runtime_checkable
class TrainsInCompleted(Protocol):
    """An executor that trains while `completed` runs."""

    on_progress: Callable[[Progress], None] | None
    """Called with each `Progress` during the training; it may cancel the job. `completed` does not return it again."""


@runtime_checkable
class HasClock(Protocol):
    """An executor with its own clock, in whose seconds the run's times, its budget and the timeout of `completed` are.

    It returns each `Progress` when the clock reaches it, which is after the training.
    """

    @property
    def clock(self) -> Clock:
        """The clock."""
        ...


def derive_seed(seed: int, *path: str | int) -> int:
    """A seed for one part of a run, such as `derive_seed(run_seed, "trial", 7)`: independent of all the others."""
    digest = hashlib.sha256("/".join([str(seed), *map(str, path)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits: what torch and SQL integers hold
