"""The store in memory: for tests, quick loops and simulations. It keeps the promises of the others, within a process."""

from __future__ import annotations

import copy
import heapq
import os
import socket
import time
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from archsmith.core.artifact_registry import Registration, not_registered
from archsmith.core.artifacts import artifact_address, digests_in, open_artifacts
from archsmith.core.errors import RunExists, RunLocked, StoreError, UnknownName, UsageError
from archsmith.core.executor import Clock
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import State
from archsmith.core.store import Asked, Learned, LogEntry, RunReader, RunSummary, RunWriter, Told
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.store.holder import this_process
from archsmith.store.ledger import Ledger, Tally, check_status, reopened
from archsmith.store.payload import (
    check_key,
    check_name,
    config_text,
    from_text,
    genotype,
    numbers_from_text,
    numbers_to_text,
    object_from_text,
    result,
    to_text,
)
from archsmith.store.snapshot import dump_state, load_state


@dataclass(slots=True)
class _Run:
    """A run's record: text, numbers and tuples of them. So nothing in it is shared with a caller, and there is nothing
    for the garbage collector to walk through, which would make each trial cost more than the one before."""

    name: str
    config: str
    created: float
    updated: float
    status: str = "running"
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    locked: bool = False
    spaces: dict[str, int] = field(default_factory=dict)  # the identity's JSON -> its place
    genotypes: list[tuple[int, str]] = field(default_factory=list)  # by trial: place of the space, answers as JSON
    open: dict[int, Trial] = field(default_factory=dict)
    finished: dict[int, tuple[Any, ...]] = field(default_factory=dict)  # the fields after the genotype
    rewards: list[tuple[float, int]] = field(default_factory=list)  # (-reward, number), as they came
    log: list[tuple[bool, tuple[int, ...]]] = field(default_factory=list)  # (asked rather than told, trials)
    learned: list[tuple[int, float, str]] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)
    snapshot: tuple[int, bytes] | None = None  # how much of the log it covers, and the state


OPEN: weakref.WeakValueDictionary[str, MemoryStore] = weakref.WeakValueDictionary()
"""The stores in the memory of this process, by id."""


class MemoryStore:
    """Runs that live as long as the process. One thread writes a run; others may read it meanwhile.

    Args:
        artifacts: where weights are kept, a folder or an address; None: nowhere.
    """

    def __init__(self, *, artifacts: str | os.PathLike[str] | None = None) -> None:
        self._artifacts = None if artifacts is None else artifact_address(artifacts)
        self._runs: dict[str, _Run] = {}
        self._registration = Registration("memory://", socket.gethostname(), uuid.uuid4().hex, this_process())
        OPEN[self._registration.id] = self

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def artifacts(self) -> str | None:
        return self._artifacts

    def create(self, name: str, config: Mapping[str, Any]) -> RunWriter:
        if check_name(name) in self._runs:
            raise RunExists(f"a run named {name!r} is in this store already; resume it, or choose another name")
        text, now = config_text(config), time.time()
        run = self._runs[name] = _Run(name, text, now, now)
        return _MemoryWriter(run, self.register)

    def write(self, name: str) -> RunWriter:
        return _MemoryWriter(self._unlocked(name), self.register)

    def registration(self) -> Registration:
        return self._registration

    def register(self) -> None:
        if self._artifacts is not None:
            try:
                open_artifacts(self._artifacts).register(self._registration)
            except (StoreError, UsageError) as error:
                warnings.warn(not_registered("in memory", error), stacklevel=2)

    def read(self, name: str) -> RunReader:
        return _MemoryReader(self._run(name))

    def runs(self) -> list[RunSummary]:
        return [_MemoryReader(run).summary() for run in reversed(self._runs.values())]

    def delete(self, name: str) -> None:
        self._unlocked(name)
        del self._runs[name]

    def _run(self, name: str) -> _Run:
        if name not in self._runs:
            raise UnknownName("run", name, self._runs)
        return self._runs[name]

    def _unlocked(self, name: str) -> _Run:
        run = self._run(name)
        if run.locked:
            raise RunLocked(f"run {name!r} is being written in this process already; close that writer first")
        return run


class _MemoryReader:
    def __init__(self, run: _Run) -> None:
        self._run = run

    def summary(self) -> RunSummary:
        run = self._run
        return RunSummary(
            run.name,
            _iso(run.created),
            _iso(run.updated),
            run.status if run.locked or run.status != "running" else "interrupted",
            run.tally.counts(),
            run.tally.best,
            run.tally.best_reward,
            run.seconds,
            run.tally.epochs,
            object_from_text(run.config, "a run's configuration"),
        )

    def trial(self, number: int) -> Trial:
        if not 0 <= number < len(self._run.genotypes):
            raise UnknownName("trial", str(number), [], f"(run {self._run.name!r} has {len(self._run.genotypes)})")
        what = f"trial {number}"
        space, answers = self._run.genotypes[number]
        identity = object_from_text(list(self._run.spaces)[space], "a space")
        found = genotype(identity, object_from_text(answers, what), what)
        record = self._run.finished.get(number)
        if record is None:
            trial = self._run.open[number]
            return replace(trial, genotype=found, result=copy.deepcopy(trial.result))
        parent, state, reward, text, *times_and_attempts = record
        outcome = None if text is None else result(from_text(text, what), what)
        return Trial(number, found, parent, TrialState(state), reward, outcome, *times_and_attempts)

    def trials(self, start: int = 0) -> Iterator[Trial]:
        for number in range(max(start, 0), len(self._run.genotypes)):
            yield self.trial(number)

    def top(self, k: int) -> list[Trial]:
        return [self.trial(number) for _, number in heapq.nsmallest(k, self._run.rewards)]

    def learned(self) -> list[Learned]:
        return [Learned(trial, at, numbers_from_text(text, "learned")) for trial, at, text in self._run.learned]

    def document(self, key: str) -> Any | None:
        text = self._run.documents.get(key)
        return None if text is None else from_text(text, f"document {key!r}")

    def documents(self) -> list[str]:
        return sorted(self._run.documents)


class _MemoryWriter(_MemoryReader):
    def __init__(self, run: _Run, register: Callable[[], None] | None = None) -> None:
        super().__init__(run)
        self._register = register
        run.locked = True
        for number, trial in run.open.items():
            if trial.state is TrialState.RUNNING:
                again = run.open[number] = reopened(trial)
                tally = replace(run.tally, running=run.tally.running - 1)
                run.tally = replace(tally, **{again.state.value: getattr(tally, again.state) + 1})
        self._ledger = Ledger(run.tally, run.open, run.seconds)
        self._begun = not run.genotypes and run.status == "running"  # a run that was just made
        self._closed = False
        self._last_space: tuple[Mapping[str, Any] | None, int] = (None, 0)

    def propose(self, proposals: Sequence[Proposal]) -> list[Trial]:
        run, at = self._writable(), self._ledger.elapsed()
        trials, tally = self._ledger.proposed(proposals, at)
        genotypes = [(self._place(t.genotype), to_text(t.genotype.answers, f"trial {t.number}")) for t in trials]
        run.genotypes += genotypes
        run.log.append((True, tuple([trial.number for trial in trials])))
        self._settle(trials, tally, at)
        return trials

    def start(self, number: int, attempt: int = 1) -> Trial:
        self._writable()
        at = self._ledger.elapsed()
        trial, tally = self._ledger.started(number, at)
        self._settle([trial], tally, at)
        return trial

    def finish(
        self,
        trials: Sequence[Trial],
        *,
        snapshot: State | None = None,
        learned: Mapping[str, float] | None = None,
    ) -> list[Trial]:
        run, at = self._writable(), self._ledger.elapsed()
        finished, tally = self._ledger.finished(trials, at)
        self._refers_to(digest for t in finished if t.result for digest in (t.result.artifact, t.result.checkpoint))
        results = [None if t.result is None else to_text(t.result.to_json(), f"trial {t.number}") for t in finished]
        blob = None if snapshot is None else dump_state(snapshot)
        shown = None if not learned else numbers_to_text(learned, "what the searcher learned")
        self._record(finished, results)
        if shown is not None:
            run.learned.append((max((t.number for t in finished), default=-1), at, shown))
        if blob is not None:
            run.snapshot = (len(run.log), blob)
        self._settle(finished, tally, at)
        return finished

    def set_rewards(self, rewards: Mapping[int, float], *, snapshot: State) -> list[Trial]:
        run, at = self._writable(), self._ledger.elapsed()
        done, tally = self._ledger.rewarded([self.trial(number) for number in sorted(rewards)], rewards)
        if not done:
            return []
        results = [to_text(t.result.to_json(), f"trial {t.number}") for t in done if t.result is not None]
        blob = dump_state(snapshot)
        self._record(done, results)
        run.snapshot = (len(run.log), blob)
        self._settle(done, tally, at)
        return done

    def pause(self, trial: Trial) -> Trial:
        self._writable()
        at = self._ledger.elapsed()
        paused, tally = self._ledger.paused(trial)
        assert paused.result is not None
        self._refers_to([paused.result.checkpoint])
        text = to_text(paused.result.to_json(), f"trial {trial.number}")
        so_far = result(from_text(text, "a result"), "a result")  # nothing shared with the caller
        paused = replace(paused, result=so_far)
        self._settle([paused], tally, at)
        return paused

    def save_snapshot(self, state: State) -> None:
        self._writable().snapshot = (len(self._run.log), dump_state(state))

    def snapshot(self) -> State | None:
        return None if self._run.snapshot is None else load_state(self._run.snapshot[1])

    def tail(self) -> list[LogEntry]:
        since = self._run.snapshot[0] if self._run.snapshot else 0
        return [Asked(trials) if asked else Told(trials) for asked, trials in self._run.log[since:]]

    def unfinished(self) -> list[Trial]:
        return [self.trial(number) for number in sorted(self._run.open)]

    def configure(self, changes: Mapping[str, Any]) -> None:
        run = self._writable()
        run.config = config_text({**self.summary().config, **changes})

    def put_document(self, key: str, value: Any) -> None:
        text = to_text(value, f"document {key!r}")
        self._refers_to(digests_in(value))
        self._writable().documents[check_key(key)] = text

    def elapsed(self) -> float:
        return self._ledger.elapsed()

    def keep_time(self, clock: Clock) -> None:
        self._ledger.keep_time(clock)

    def close(self, status: str = "interrupted") -> None:
        check_status(status)
        if self._closed:
            return
        run, self._closed = self._run, True
        run.seconds, run.locked = self._ledger.elapsed(), False
        if status == "finished" or self._begun:
            run.status = status

    def _refers_to(self, digests: Iterable[str | None]) -> None:
        """Register the store before it first refers to weights, so that no other store's collection removes them."""
        if self._register is not None and any(digests):
            self._register()
            self._register = None

    def _writable(self) -> _Run:
        if self._closed:
            raise StoreError(f"run {self._run.name!r} was closed; open it again to write")
        return self._run

    def _record(self, finished: Sequence[Trial], results: Sequence[str | None]) -> None:
        """Record finished trials with their results as text, and that the searcher was told."""
        run = self._run
        for t, text in zip(finished, results, strict=True):
            times = (t.proposed_at, t.started_at, t.finished_at, t.attempts, t.replica, t.version)
            run.finished[t.number] = (t.parent, t.state.value, t.reward, text, *times)
            if t.reward is not None:
                run.rewards.append((-t.reward, t.number))
        run.log.append((False, tuple([trial.number for trial in finished])))

    def _settle(self, trials: Sequence[Trial], tally: Tally, at: float) -> None:
        run = self._run
        self._ledger.settle(trials, tally)
        self._begun, run.status = True, "running"
        run.tally, run.seconds, run.updated = tally, at, time.time()

    def _place(self, genotype: Genotype) -> int:
        if genotype.space is not self._last_space[0]:  # the trials of a run share one
            spaces = self._run.spaces
            place = spaces.setdefault(to_text(genotype.space, "the identity of a space"), len(spaces))
            self._last_space = genotype.space, place
        return self._last_space[1]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
