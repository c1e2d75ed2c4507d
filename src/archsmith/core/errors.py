"""Every error archsmith raises on purpose, as one tree.

    ArchsmithError
    ├── UsageError (a ValueError)     the caller asked for something that cannot be: exit status 2 in the CLI
    │   ├── UnknownName               no recipe, space, option, data set or run of that name; suggests the nearest
    │   ├── IllegalGenotype           answers that the space does not allow
    │   ├── IllegalExpression         a formula that its language does not have
    │   └── DataError                 a data set that cannot be used
    ├── StoreError                    the record of a run cannot be read or written
    │   ├── RunExists
    │   ├── RunLocked                 another process is writing this run
    │   ├── StoreLost                 its file was deleted, moved or replaced while it was written
    │   ├── NewerStore                written by a later archsmith
    │   └── CorruptStore
    ├── ReplayMismatch                a resumed searcher did not repeat what the log says it did
    ├── SearcherDiverged              a controller's weights are no longer finite numbers
    ├── AllTrialsFailed               no child of a search could be trained
    ├── NoReward                      children were trained, and no reward can be made of their results
    └── ChildFailed                   a child cannot be trained; becomes a failed trial, never a crash
        ├── Diverged
        ├── LimitExceeded
        └── MissingMetric             the reward reads a metric that the result does not have

A message names the thing, the rule, the value and the next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches


class ArchsmithError(Exception):
    """What archsmith raises when something outside its own code is wrong."""


class UsageError(ArchsmithError, ValueError):
    """The caller asked for something that cannot be."""


class UnknownName(UsageError):
    """A name that nothing answers to; the message offers the nearest ones that exist."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names, name = sorted(known), name if len(name) <= 100 else f"{name[:97]}..."
        plain = {n.lower(): n for n in names}  # NASCell is near to nas_cell, not to what has as many capitals
        near = [plain[n] for n in get_close_matches(name.lower(), plain, n=3, cutoff=0.5)]
        if near:
            offer = "did you mean " + " or ".join(repr(n) for n in near) + "?"
        elif names:
            offer = "there are: " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        else:
            offer = "there are none"
        super().__init__(f"no {what} is named {name!r}; {offer}{' ' + hint if hint else ''}")


class IllegalGenotype(UsageError):
    """Answers that their space does not allow: unknown, missing, or outside the options."""


class IllegalExpression(UsageError):
    """A formula that its language does not have: an unknown symbol, a wrong number of operands, or one too large."""


class DataError(UsageError):
    """A data set that cannot be used: missing, unreadable, too small, or inconsistent."""


class StoreError(ArchsmithError):
    """The record of a run cannot be read or written."""


class RunExists(StoreError, ValueError):
    """A new run was given the name of one that is already in the store."""


class RunLocked(StoreError):
    """Another process is writing this run; a run has one writer."""


class StoreLost(StoreError):
    """The store's file was deleted, moved, replaced or written over during a run; the message says where its content is now."""


class NewerStore(StoreError):
    """The store was written by a later version of archsmith."""


class CorruptStore(StoreError):
    """The store's file is damaged or is no archsmith store."""


class ReplayMismatch(ArchsmithError):
    """A resumed searcher proposed something else than the log says it did."""


class AllTrialsFailed(ArchsmithError):
    """The first children of a search all failed, or all children of its budget.

    Args:
        message: the message.
        reasons: the number of failed children, by reason and message.
    """

    def __init__(self, message: str, reasons: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class NoReward(ArchsmithError):
    """The results of a search lack a metric that its reward reads. Their metrics are in the store: `resume(reward=...)`
    computes the rewards of the trained children.

    Args:
        message: the message.
        metrics: the names of the metrics in the results.
    """

    def __init__(self, message: str, metrics: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.metrics = tuple(metrics)


class SearcherDiverged(ArchsmithError):
    """The weights of a searcher's controller are NaN or infinite, so that it cannot propose genotypes."""

    def __init__(self, searcher: str, updates: int, learning_rate: float) -> None:
        super().__init__(searcher, updates, learning_rate)  # so that it can be sent between processes
        self.searcher, self.updates, self.learning_rate = searcher, updates, learning_rate

    def __str__(self) -> str:
        return (
            f"the controller of {self.searcher} has weights that are no finite numbers after {self.updates:,} updates, so it "
            "cannot propose any more. Every finished trial is kept. Begin a new run with a learning_rate below "
            f"{self.learning_rate:g}, or with ranks=100, which learns from the ranks of rewards"
        )


class ChildFailed(ArchsmithError):
    """A child that cannot be trained. An executor turns it into a failed trial with this reason."""

    reason = "error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class Diverged(ChildFailed):
    """The child's loss became NaN or infinite."""

    reason = "diverged"


class LimitExceeded(ChildFailed):
    """The child went over one of its limits; `reason` says which: "seconds", "parameters" or "memory"."""

    reason = "limit"


class MissingMetric(ChildFailed, KeyError):
    """A reward reads a metric that the result does not have. Also a KeyError, as for any mapping."""

    reason = "reward"

    def __init__(self, name: str, metrics: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.metrics = tuple(sorted(metrics))

    def __reduce__(self) -> tuple[type[MissingMetric], tuple[str, tuple[str, ...]]]:
        return MissingMetric, (self.name, self.metrics)

    def __str__(self) -> str:
        have = ", ".join(self.metrics) or "none"
        return f"the reward needs the metric {self.name!r}, and the result has: {have}; give search(..., reward=...)"
