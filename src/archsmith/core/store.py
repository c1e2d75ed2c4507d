"""The store: what has happened. One writer per run, an ordered log that is the truth, and readers at any time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from archsmith.core.artifact_registry import Registration
from archsmith.core.executor import Clock
from archsmith.core.searcher import State
from archsmith.core.trial import Proposal, Trial


@dataclass(frozen=True, slots=True)
class Asked:
    """The log says: the searcher was asked for these trials, in one `ask(len(trials))`."""

    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """The log says: the searcher was told these trials, in one `tell`."""

    trials: tuple[int, ...]


LogEntry: TypeAlias = Asked | Told


@dataclass(frozen=True, slots=True)
class Learned:
    """What the searcher showed of its learning, after the trial `trial` was told, at `at` seconds of the run's clock."""

    trial: int
    at: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line about a run, kept up to date by its writer so that it costs nothing to read.

    Args:
        name: unique in the store.
        created: UTC, ISO 8601.
        updated: UTC, ISO 8601: the last write.
        status: "running" while a writer holds it, "finished" when its budget was used up, else "interrupted".
        counts: trials by state.
        best: the number of the trial with the highest reward, or None.
        best_reward: its reward.
        seconds: wall clock summed over its sessions.
        epochs: the cost in epochs summed over its trials.
        config: what it is a search of: space, searcher, evaluator, reward, budget, seed, versions, command.
    """

    name: str
    created: str
    updated: str
    status: str
    counts: Mapping[str, int]
    best: int | None
    best_reward: float | None
    seconds: float
    epochs: float
    config: Mapping[str, Any]


class RunReader(Protocol):
    """Reads one run, also while another process writes it."""

    def summary(self) -> RunSummary: ...

    def trial(self, number: int) -> Trial:
        """Raises UnknownName when there is none of that number."""
        ...

    def trials(self, start: int = 0) -> Iterator[Trial]:
        """All trials from number `start` on, by number; streamed, so that a million are no burden."""
        ...

    def top(self, k: int) -> list[Trial]:
        """The k trials with the highest rewards, best first; of equals the earlier."""
        ...

    def learned(self) -> list[Learned]:
        """What the searcher showed of its learning, in order."""
        ...

    def document(self, key: str) -> Any | None:
        """A JSON document kept with the run, such as what `finish` found; None if there is none."""
        ...

    def documents(self) -> list[str]:
        """The keys of all documents, sorted."""
        ...


class RunWriter(RunReader, Protocol):
    """Writes one run; the only one that does, from opening to `close`. Every method is one transaction."""

    def propose(self, proposals: Sequence[Proposal]) -> list[Trial]:
        """Record one `ask`: the proposals as trials, numbered on from the last."""
        ...

    def start(self, number: int, attempt: int = 1) -> Trial:
        """Record that a trial is running. `attempt` is the executor's count; `Trial.attempts` counts over all sessions."""
        ...

    def finish(
        self,
        trials: Sequence[Trial],
        *,
        snapshot: State | None = None,
        learned: Mapping[str, float] | None = None,
    ) -> list[Trial]:
        """Record one `tell`: finished trials, with the searcher's state after it if it is worth keeping.

        A trial that is finished already is refused with StoreError: results are never overwritten.
        Gives the trials with their times filled in.
        """
        ...

    def set_rewards(self, rewards: Mapping[int, float], *, snapshot: State) -> list[Trial]:
        """Record the rewards of finished trials that lacked one (`Trial.lacks_reward`), and change their state to done.

        Args:
            rewards: by trial number; finite.
            snapshot: the searcher's state after it was told. The log before it is not replayed any more, since these trials
                failed there.

        Raises StoreError for any other trial: results are never overwritten. Returns the changed trials.
        """
        ...

    def pause(self, trial: Trial) -> Trial:
        """Record that a running trial was put aside, with its result so far. It starts again, or is finished as stopped.

        A run that is opened again has it paused still, also when it had started again and was interrupted: its result
        is that of the pause.
        """
        ...

    def save_snapshot(self, state: State) -> None:
        """Keep the searcher's state as of the last log entry; earlier snapshots go."""
        ...

    def snapshot(self) -> State | None:
        """The last state kept."""
        ...

    def tail(self) -> list[LogEntry]:
        """The log since the snapshot (all of it when there is none), oldest first."""
        ...

    def unfinished(self) -> list[Trial]:
        """The trials that are proposed, running or paused, by number."""
        ...

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Replace keys of the run's configuration, such as a budget that was raised."""
        ...

    def put_document(self, key: str, value: Any) -> None:
        """Keep a JSON document with the run; replaces one of the same key."""
        ...

    def elapsed(self) -> float:
        """Seconds of the run's own clock: wall time summed over its sessions, or what the clock of `keep_time` shows."""
        ...

    def keep_time(self, clock: Clock) -> None:
        """From now on the run's time is what this clock shows, and no longer the wall's. Sets it to where the record
        ends."""
        ...

    def close(self, status: str = "interrupted") -> None:
        """Let the run go: "finished" or "interrupted". Safe to call twice.

        A writer that recorded no trial leaves the status as it was, so that a document can be added to a finished run.
        """
        ...


@runtime_checkable
class Registered(Protocol):
    """A store that registers in the place of its weights, so that other stores' collections keep them."""

    def registration(self) -> Registration | None:
        """The store's registration; None if the store does not exist yet, or no recent version has written to it."""
        ...

    def register(self) -> None:
        """Register, if the store exists and keeps weights. Warns if that place cannot be written to."""
        ...


class Store(Protocol):
    """Where runs are kept."""

    @property
    def url(self) -> str:
        """How to open it again."""
        ...

    @property
    def artifacts(self) -> str | None:
        """The folder for weights, or None when the store keeps nothing on disk."""
        ...

    def create(self, name: str, config: Mapping[str, Any]) -> RunWriter:
        """A new run. Raises RunExists."""
        ...

    def write(self, name: str) -> RunWriter:
        """Go on with a run. Raises UnknownName, and RunLocked while another writer holds it."""
        ...

    def read(self, name: str) -> RunReader:
        """Raises UnknownName."""
        ...

    def runs(self) -> list[RunSummary]:
        """All runs, the latest first."""
        ...

    def delete(self, name: str) -> None:
        """Remove a run and its record. Raises UnknownName, and RunLocked while a writer holds it."""
        ...
