"""What goes wrong with machines, for the simulated clock: crashes, stragglers, spot instances that are taken away.

Each attempt of a trial has a fate of its own, drawn from the seed, the trial and the attempt alone. So a run that is killed
and goes on meets the same faults at the same times, and two searchers under one seed are treated alike, trial by trial.
Crashes and losses come at a constant rate (Young 1974 and most of the checkpointing literature after it reckon so): how
long a machine has been up says nothing about how long it will be.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.config import from_config
from archsmith.core.errors import UsageError

__all__ = ["Faults"]


@dataclass(frozen=True)
class Faults:
    """How often simulated machines fail.

    A worker that dies under a child is lost with all that the child had come to. The child begins again on the machine that
    takes its place: at once after a crash, after `spot_return_seconds` where a spot instance was taken away.

    Args:
        failures_per_hour: of one worker at work: how often it crashes, on average.
        straggler_share: of all attempts, from 0 to 1: how many are on a slow machine.
        straggler_slowdown: how many times as long those take.
        spot_lifetime_seconds: how long a worker at work is kept on average, before it is taken away; None: for ever.
        spot_return_seconds: how long it takes until another one is in its place.
        retries: how often a child begins again; then it has failed with the reason "worker".
        seed: all of this comes from it. Faults are the cluster's, so the seed is not the run's.
    """

    failures_per_hour: float = 0.0
    straggler_share: float = 0.0
    straggler_slowdown: float = 3.0
    spot_lifetime_seconds: float | None = None
    spot_return_seconds: float = 120.0
    retries: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        plain_fields(self)
        _check("failures_per_hour", self.failures_per_hour, 0, "at least 0")
        _check("straggler_share", self.straggler_share, 0, "from 0 to 1", most=1)
        _check("straggler_slowdown", self.straggler_slowdown, 1, "at least 1")
        _check("spot_return_seconds", self.spot_return_seconds, 0, "at least 0")
        if self.spot_lifetime_seconds is not None:
            _check("spot_lifetime_seconds", self.spot_lifetime_seconds, 0, "above 0, or None")
            if not self.spot_lifetime_seconds > 0:
                raise UsageError(
                    f"spot_lifetime_seconds of Faults must be above 0, or None, got {self.spot_lifetime_seconds!r}"
                )
        whole_number(self.retries, "retries of Faults", 0)
        whole_number(self.seed, "seed of Faults")

    @classmethod
    def of(cls, record: Any) -> Faults | None:
        """The faults that a run's configuration tells of, as `core.config.to_config` wrote them; None where it has none."""
        if record is None:
            return None

        def only(name: str) -> type[Faults]:  # a record may come from a stranger
            if name != "executors.Faults":
                raise UsageError(f"the faults of a simulated clock are recorded as executors.Faults, not as {name!r}")
            return cls

        made = from_config(record, only)
        if not isinstance(made, cls):
            raise UsageError(
                f"the faults of a simulated clock are recorded as executors.Faults, not as {record!r:.100}"
            )
        return made

    def fate(self, trial: int, attempt: int, epochs_done: int = 0) -> Fate:
        """What becomes of one attempt, counted from 1, of a trial that goes on after so many epochs (0: it begins)."""
        digest = hashlib.sha256(f"{self.seed}/{trial}/{epochs_done}/{attempt}".encode()).digest()
        slow, crash, taken = (
            (int.from_bytes(digest[at : at + 8], "big") >> 11) / 2**53 for at in (0, 8, 16)
        )  # each uniform in [0, 1)
        crashes = _exponential(crash, 3600 / self.failures_per_hour if self.failures_per_hour else math.inf)
        goes = _exponential(taken, self.spot_lifetime_seconds or math.inf)
        return Fate(
            slowdown=self.straggler_slowdown if slow < self.straggler_share else 1.0,
            dies_after=min(crashes, goes),
            replaced_after=self.spot_return_seconds if goes < crashes else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one attempt.

    Args:
        slowdown: how many times as long it takes.
        dies_after: so many seconds at work its worker is gone, if the child is not done by then; infinite: never.
        replaced_after: so many seconds later there is another one.
    """

    slowdown: float = 1.0
    dies_after: float = math.inf
    replaced_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as it goes, in seconds since the child was given a worker.

    Args:
        begins: when.
        whole: how long it takes to the end of the child.
        took: how long it goes on; less than `whole` where its worker is lost, or the child over its limit.
        free: when there is a worker again, for the next attempt or for another child.
        lost: whether its worker was lost.
    """

    begins: float
    whole: float
    took: float
    free: float
    lost: bool


def attempts(
    faults: Faults | None, trial: int, seconds: float, limit: float, epochs_done: int = 0
) -> Iterator[Attempt]:
    """The attempts of a child that takes `seconds` on a machine that does not fail, and may take `limit`.

    The last one is the one that is not lost, or the last that there may be.
    """
    begins = 0.0
    for attempt in range(1, 2 + (faults.retries if faults is not None else 0)):
        fate = faults.fate(trial, attempt, epochs_done) if faults is not None else Fate()
        whole = seconds * fate.slowdown
        lost = fate.dies_after < min(whole, limit)
        took = fate.dies_after if lost else min(whole, limit)
        free = begins + took + (fate.replaced_after if lost else 0.0)
        yield Attempt(begins, whole, took, free, lost)
        if not lost:
            return
        begins = free


def _exponential(uniform: float, mean: float) -> float:
    return math.inf if mean == math.inf else -mean * math.log1p(-uniform)


def _check(name: str, number: object, least: float, rule: str, *, most: float = math.inf) -> None:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not least <= number <= most or number == math.inf:  # type: ignore[operator]
        raise UsageError(f"{name} of Faults must be a finite number, {rule}, got {number!r}")
