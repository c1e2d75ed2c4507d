"""The searcher's two verbs: `ask` proposes genotypes, `tell` learns from finished trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.hosting import Host
from archsmith.core.number import numbers_by_name
from archsmith.core.space import Space
from archsmith.core.trial import Proposal, Trial

State: TypeAlias = Mapping[str, Any]
"""A searcher's whole state: nested dicts and lists of JSON scalars, with numpy arrays where there are many numbers."""


@runtime_checkable
class LiveSearcher(Protocol):
    """A searcher at work on one space.

    Deterministic: the same seed and the same sequence of `ask(n)` and `tell(trials)` give the same proposals. That is
    what resuming a run rests on.

    A searcher may also be a `NeedsParents`, a `WaitsForResults`, a `HostedSearcher` or a `ClosableSearcher`.
    """

    @property
    def version(self) -> int:
        """How often its learned parameters have changed; a run keeps a snapshot when this grows."""
        ...

    def ask(self, n: int) -> list[Proposal]:
        """Exactly `n` proposals, whatever has been told so far: the others may still be running.

        Fewer mean that there are no more, ever: the search ends when what runs has ended.
        """
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from finished trials: done, failed or stopped, in any order, each told once; some never come.

        A trial that failed only because it lacked a reward is told again, as done, once it has one.
        """
        ...

    def diagnostics(self) -> Mapping[str, float]:
        """What it would show of its learning (such as "entropy", "baseline"); empty if nothing."""
        ...

    def state_dict(self) -> State:
        """Everything that decides what it will propose."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go on from what `state_dict` gave."""
        ...


def diagnostics_of(searcher: LiveSearcher) -> dict[str, float]:
    """The searcher's diagnostics as Python numbers. Raises UsageError for values that are not numbers."""
    try:
        return numbers_by_name(searcher.diagnostics(), "what it returns")
    except ChildFailed as error:
        raise UsageError(f"{type(searcher).__name__}.diagnostics() must return numbers by name: {error}") from None


@runtime_checkable
class Searcher(Protocol):
    """A searcher's configuration: a frozen dataclass, usable for any number of runs."""

    def start(self, space: Space, seed: int) -> LiveSearcher:
        """A live searcher. Raises UsageError when the searcher does not fit the space."""
        ...


@runtime_checkable
class NeedsParents(Protocol):
    """A live searcher whose proposals have parents."""

    def needs(self) -> set[int]:
        """The trials that may still become parents. Their weights are not removed."""
        ...


@runtime_checkable
class WaitsForResults(Protocol):
    """A live searcher that has to wait for results before it can propose more."""

    def capacity(self) -> int:
        """How many genotypes it can propose now. A run asks for no more, and asks again after the next `tell`."""
        ...


@runtime_checkable
class HostedSearcher(Protocol):
    """A live searcher whose parts can run elsewhere, with the same proposals."""

    def place(self, host: Host) -> None:
        """Start the parts on a host. Called once, before the first `ask` or `load_state_dict`."""
        ...


@runtime_checkable
class ClosableSearcher(Protocol):
    """A live searcher that holds resources, such as hosted parts."""

    def close(self) -> None:
        """Release them. Called when the session of the run ends."""
        ...


@runtime_checkable
class StartsAtRandom(Protocol):
    """A searcher whose first proposals are random, such as one that fills a population first."""

    def random_trials(self, space: Space) -> int:
        """The number of its first proposals that depend on no result. With a budget up to this, it is a random search."""
        ...
