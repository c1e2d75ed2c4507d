"""The loop: a searcher proposes, an executor has the child trained, a reward is made of the result, the searcher is told.

This is the only place where searcher, executor, store and reward meet. Two rules make a run safe to kill at any
moment: every proposal is in the store before it is submitted, and a result is in the store before the next proposal
is made. Resuming is the searcher's last snapshot plus a replay of the log since then.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from archsmith._search.parents import Parents
from archsmith._search.twins import Twins
from archsmith.core.budget import Budget
from archsmith.core.errors import ReplayMismatch
from archsmith.core.evaluator import Evaluator, Limits
from archsmith.core.executor import Completed, Executor, Job, Progress, Reward, Started, derive_seed
from archsmith.core.searcher import LiveSearcher
from archsmith.core.space import Space
from archsmith.core.store import Asked, RunWriter
from archsmith.core.trial import Trial

Watch: TypeAlias = Callable[[Trial | Progress], None]
"""Called with each trial whenever its state changes, and with each epoch that a child reports."""

EVENTS_PER_SNAPSHOT = 256
ARTIFACTS_PER_COLLECTION = 64
SNAPSHOT_SHARE = 0.02  # of the time since the last one: what a snapshot may cost to be taken at every update


@dataclass
class Loop:
    """One session of a run. `go` returns when the budget is used up."""

    space: Space
    evaluator: Evaluator
    reward: Reward
    searcher: LiveSearcher
    executor: Executor
    run: RunWriter
    budget: Budget
    seed: int
    limits: Limits = Limits()
    artifacts: str | None = None
    watch: Watch | None = None
    collect: Callable[[], object] | None = None  # removes weights that nothing needs

    _parents: Parents = field(init=False)
    _running: dict[int, Trial] = field(default_factory=dict, init=False)
    _version: int = field(default=0, init=False)
    _events: int = field(default=0, init=False)
    _kept: int = field(default=0, init=False)
    _snapshot_at: float = field(default_factory=time.monotonic, init=False)
    _snapshot_cost: float = field(default=0.0, init=False)

    def go(self) -> None:
        """Propose, train, tell, until the budget ends. Raises what the searcher or the store raises."""
        self._version = self.searcher.version
        summary = self.run.summary()
        proposed, epochs = sum(summary.counts.values()), summary.epochs
        self._parents = Parents(self.run, self.searcher, proposed)
        waiting = deque(self.run.unfinished())  # what a kill interrupted runs again, as the same trial
        twins = Twins(self.space, self.run.trials())
        exhausted = False  # the searcher has nothing left to propose
        while True:
            ended: list[Trial] = []
            free = self.executor.slots - len(self._running) - twins.waiting
            open_for_more = self.budget.allows(trials=proposed, seconds=self.run.elapsed(), epochs=epochs)
            if open_for_more and free > len(waiting) and not exhausted:
                n = free - len(waiting)
                if self.budget.trials is not None:
                    n = min(n, self.budget.trials - proposed)
                n = min(n, self._capacity())
                asked = self.searcher.ask(n) if n else []
                exhausted = len(asked) < n
                if asked:
                    waiting.extend(self.run.propose(asked))
                proposed += len(asked)
                self._events += len(asked)
            if not self._out_of_time():
                for trial in [waiting.popleft() for _ in range(min(free, len(waiting)))]:
                    admitted = twins.admit(trial)
                    if isinstance(admitted, Trial):  # the same child as an earlier one
                        self._show(self.run.start(trial.number))
                        ended.append(admitted)
                    elif admitted:
                        self._submit(trial)
            if not self._running and not ended:
                return
            for event in () if ended else self.executor.completed(self._timeout()):
                if isinstance(event, Completed):
                    trial = self._running.pop(event.trial)
                    ended.append(replace(trial, state=event.state, reward=event.reward, result=event.result))
                elif isinstance(event, Started):
                    self._show(self.run.start(event.trial, event.attempt))
                else:
                    self.progress(event)
            if ended:
                epochs += sum(trial.result.cost.epochs for trial in ended if trial.result is not None)
                for trial in self._tell(ended):
                    waiting.extendleft(reversed(twins.told(trial)))
            if self._out_of_time():  # running children are stopped, and complete as such
                for number in self._running:
                    self.executor.cancel(number)

    def progress(self, event: Progress) -> None:
        """An epoch of a child, also while `completed` runs it in this process: the moment to stop for time."""
        if self.watch is not None:
            self.watch(event)
        if self._out_of_time():
            self.executor.cancel(event.trial)

    def _submit(self, trial: Trial) -> None:
        self._running[trial.number] = trial
        self.executor.submit(
            Job(
                trial=trial.number,
                space=self.space,
                genotype=trial.genotype,
                evaluator=self.evaluator,
                reward=self.reward,
                seed=derive_seed(self.seed, "trial", trial.number),
                limits=self.limits,
                artifacts=self.artifacts,
                earlier={} if self.artifacts is None else self._parents.of(trial),
                proposed_at=trial.proposed_at,
                parent=trial.parent,
            )
        )

    def _tell(self, trials: list[Trial]) -> list[Trial]:
        """Tell the searcher and record it; gives the trials as they were recorded."""
        self._events += len(trials)
        try:
            self.searcher.tell(trials)
        except BaseException:
            self.run.finish(trials)  # a searcher that errs loses no result
            raise
        learned = snapshot = None
        if self.searcher.version != self._version:
            learned = self.searcher.diagnostics()
        if self._snapshot_due():
            began = time.monotonic()
            snapshot = self.searcher.state_dict()
        recorded = self.run.finish(trials, snapshot=snapshot, learned=learned or None)
        self._version = self.searcher.version
        if snapshot is not None:
            self._events, self._snapshot_at = 0, time.monotonic()
            self._snapshot_cost = self._snapshot_at - began
        for trial in recorded:
            self._show(trial)
            self._kept += self._parents.told(trial)
        if self.collect is not None and self._kept >= ARTIFACTS_PER_COLLECTION:
            self._kept = 0
            self._parents.note()
            self.collect()
        return recorded

    def _capacity(self) -> int:
        """How many proposals the searcher can make before it is told of any that run."""
        capacity = getattr(self.searcher, "capacity", None)
        return sys.maxsize if capacity is None else int(capacity())

    def _snapshot_due(self) -> bool:
        """When the parameters changed and a snapshot is cheap, or every 256 events."""
        if self._events >= EVENTS_PER_SNAPSHOT:
            return True
        cheap = self._snapshot_cost < SNAPSHOT_SHARE * (time.monotonic() - self._snapshot_at)
        return self.searcher.version != self._version and cheap

    def _out_of_time(self) -> bool:
        return self.budget.seconds is not None and self.run.elapsed() >= self.budget.seconds

    def _timeout(self) -> float | None:
        if self.budget.seconds is None or self._out_of_time():
            return None
        return max(0.0, self.budget.seconds - self.run.elapsed())

    def _show(self, trial: Trial) -> None:
        if self.watch is not None:
            self.watch(trial)


def replay(run: RunWriter, searcher: LiveSearcher) -> None:
    """Bring a fresh searcher to where the run's log ends.

    Raises ReplayMismatch when it proposes anything else than the log says it did: other versions of the libraries,
    or another searcher.
    """
    state = run.snapshot()
    if state is not None:
        searcher.load_state_dict(state)
    for entry in run.tail():
        trials = [run.trial(number) for number in entry.trials]
        if not isinstance(entry, Asked):
            searcher.tell(trials)
            continue
        for proposal, trial in zip(searcher.ask(len(trials)), trials, strict=True):
            if proposal.genotype != trial.genotype:
                raise ReplayMismatch(
                    f"the searcher of run {run.summary().name!r} does not repeat what it proposed as trial {trial.number}: "
                    "it was resumed with other versions of torch or numpy, or with another searcher. "
                    "Every finished trial is kept; resume with the versions that `archsmith show` lists"
                )
