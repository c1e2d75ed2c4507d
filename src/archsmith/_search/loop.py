"""The loop: a searcher proposes, an executor has the child trained, a reward is made of the result, the searcher is told.

This is the only place where searcher, executor, store and reward meet. Two rules make a run safe to kill at any
moment: every proposal is in the store before it is submitted, and a result is in the store before the next proposal
is made. Resuming is the searcher's last snapshot plus a replay of the log since then. A rule that stops children early
is asked here too; what it does with them is in `aside`.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from archsmith._search.aside import Aside, what_is_left
from archsmith._search.first_trials import FirstTrials
from archsmith._search.parents import Parents
from archsmith._search.twins import Twins
from archsmith.core.budget import Budget
from archsmith.core.errors import ReplayMismatch, StoreError, UsageError
from archsmith.core.evaluator import Evaluator, Limits
from archsmith.core.executor import Completed, Executor, Job, Progress, Reward, Started, derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import LiveSearcher, WaitsForResults, diagnostics_of
from archsmith.core.space import Space
from archsmith.core.stopping import LiveRule
from archsmith.core.store import Asked, RunWriter
from archsmith.core.trial import Proposal, Trial, TrialState, joined

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
    rule: LiveRule | None = None  # stops hopeless children early
    first: Sequence[Genotype] = ()  # known points, proposed before the searcher is asked

    _parents: Parents = field(init=False)
    _aside: Aside = field(init=False)
    _first: FirstTrials = field(init=False)
    _waits: WaitsForResults | None = field(default=None, init=False)
    _watch_error: Exception | None = field(default=None, init=False)
    _running: dict[int, Trial] = field(default_factory=dict, init=False)
    _version: int = field(default=0, init=False)
    _events: int = field(default=0, init=False)
    _kept: int = field(default=0, init=False)
    _snapshot_at: float = field(default_factory=time.monotonic, init=False)
    _snapshot_cost: float = field(default=0.0, init=False)

    def go(self) -> None:
        """Propose, train, tell, until the budget ends. Raises what the searcher, the store or the watch raises.

        Raises AllTrialsFailed, NoReward or UsageError, once the children that run have ended, where going on would be
        in vain; see `FirstTrials`.
        """
        self._version = self.searcher.version
        self._waits = self.searcher if isinstance(self.searcher, WaitsForResults) else None
        self._aside = aside = Aside(self.rule, self.run)
        summary = self.run.summary()
        proposed, epochs = sum(summary.counts.values()), summary.epochs + aside.epochs
        self._parents = Parents(self.run, self.searcher, proposed)
        self._first = FirstTrials(self.run, self.reward, self.budget)
        # What a kill interrupted runs again, as the same trial.
        waiting = deque(trial for trial in self.run.unfinished() if trial.state is not TrialState.PAUSED)
        twins = Twins(self.space, self.run.trials())
        exhausted = False  # the searcher has nothing left to propose
        while True:
            ended: list[Trial] = []
            error = self._watch_error or self._first.verdict()
            free = self.executor.slots - len(self._running) - twins.waiting
            seconds = self.run.elapsed()
            open_for_more = error is None and self.budget.allows(trials=proposed, seconds=seconds, epochs=epochs)
            # A budget of trials counts children.
            goes_on = error is None and self.budget.allows(trials=0, seconds=seconds, epochs=epochs)
            while goes_on and free > len(waiting) and (paused := aside.going_on()) is not None:
                waiting.append(paused)
            if open_for_more and free > len(waiting) and not exhausted:
                n = free - len(waiting)
                if self.budget.trials is not None:
                    n = min(n, self.budget.trials - proposed)
                asked, exhausted = self._ask(n, proposed)
                if asked:
                    waiting.extend(self.run.propose(asked))
                proposed += len(asked)
                self._events += len(asked)
            if error is None and not self._out_of_time():
                for trial in [waiting.popleft() for _ in range(min(free, len(waiting)))]:
                    admitted = twins.admit(trial)
                    if isinstance(admitted, Trial):  # the same child as an earlier one
                        self._show(self.run.start(trial.number))
                        ended.append(admitted)
                    elif admitted:
                        self._submit(trial)
            if not self._running and not ended:
                if error is not None:
                    raise error
                waits = open_for_more and not exhausted  # the searcher, for results: none comes of those that are aside
                last = None if waits or self._out_of_time() else aside.last()
                if last is not None and twins.admit(last):
                    self._submit(last)
                    continue
                ended = aside.stopped("rule")
                if not ended:
                    self._first.check_end()
                    return
            trouble: StoreError | None = None
            for event in () if ended else self.executor.completed(self._timeout()):
                if isinstance(event, Completed):
                    if (not_kept := _not_kept(event)) is not None:
                        trouble = not_kept
                        continue
                    epochs += event.result.cost.epochs
                    trial = self._ended(event)
                    if trial.state is TrialState.PAUSED:
                        waiting.extendleft(reversed(twins.told(self._put_aside(trial))))
                    else:
                        ended.append(trial)
                elif isinstance(event, Started):
                    self._show(self.run.start(event.trial, event.attempt))
                else:
                    self.progress(event)
            if ended:
                for trial in self._tell(ended):
                    waiting.extendleft(reversed(twins.told(trial)))
            if trouble is not None:
                raise trouble
            if self._out_of_time():  # running children are stopped, and complete as such
                for number in self._running:
                    self._stop(number, "time")

    def _ask(self, n: int, proposed: int) -> tuple[list[Proposal], bool]:
        """Up to n proposals, and whether there are no more, ever. Known points come first, then the searcher is asked."""
        known = [Proposal(genotype) for genotype in self.first[proposed : proposed + n]]
        n -= len(known)
        if self._waits is not None:
            n = min(n, self._waits.capacity())
        asked = self.searcher.ask(n) if n else []
        return [*known, *asked], len(asked) < n

    def progress(self, event: Progress) -> None:
        """An epoch of a child, also while `completed` runs it in this process: the moment to stop it."""
        self._show(event)
        if self._aside.hopeless(event):
            self._stop(event.trial, "rule")
        if self._out_of_time():
            self._stop(event.trial, "time")

    def _stop(self, number: int, by: str) -> None:
        self._aside.stopping(number, by)
        self.executor.cancel(number)

    def _ended(self, event: Completed) -> Trial:
        """A child that ran, with what came of it in all its pieces."""
        trial, by = self._running.pop(event.trial), self._aside.ended_by(event.trial)
        result = joined(trial.result, event.result)
        if event.state is TrialState.STOPPED:
            result = replace(result, stopped_by=by)
        return replace(trial, state=event.state, reward=event.reward, result=result)

    def _put_aside(self, trial: Trial) -> Trial:
        recorded = self._aside.put(trial)
        self._first.ended(recorded)
        self._show(recorded)
        self._kept += recorded.result is not None and recorded.result.checkpoint is not None
        self._collect()
        return recorded

    def _submit(self, trial: Trial) -> None:
        self._running[trial.number] = trial
        self._first.began(trial)
        self.executor.submit(
            Job(
                trial=trial.number,
                space=self.space,
                genotype=trial.genotype,
                evaluator=self.evaluator,
                reward=self.reward,
                seed=derive_seed(self.seed, "trial", trial.number),
                limits=what_is_left(self.limits, trial.result),
                artifacts=self.artifacts,
                earlier={} if self.artifacts is None else self._parents.of(trial),
                # One that goes on does so from now: no worker could have begun before it was decided.
                proposed_at=trial.proposed_at if trial.result is None else self.run.elapsed(),
                parent=trial.parent,
                parent_genotype=None if self.artifacts is None else self._parents.genotype_of(trial),
                until=self._aside.until(trial),
                resume=trial.result,
            )
        )

    def _tell(self, trials: list[Trial]) -> list[Trial]:
        """Tell the searcher and record it; gives the trials as they were recorded."""
        self._events += len(trials)
        learned = snapshot = None
        try:
            self.searcher.tell(trials)
            if self.searcher.version != self._version:
                learned = diagnostics_of(self.searcher)
            if self._snapshot_due():
                began = time.monotonic()
                snapshot = self.searcher.state_dict()
        except BaseException:
            self.run.finish(trials)  # a searcher that errs loses no result
            raise
        try:
            recorded = self.run.finish(trials, snapshot=snapshot, learned=learned or None)
        except UsageError:  # the searcher's state is no plain data
            self.run.finish(trials)
            raise
        self._version = self.searcher.version
        if snapshot is not None:
            self._events, self._snapshot_at = 0, time.monotonic()
            self._snapshot_cost = self._snapshot_at - began
        for trial in recorded:
            self._show(trial)
            self._aside.told(trial)
            self._first.ended(trial)
            self._kept += self._parents.told(trial)
        self._collect()
        return recorded

    def _collect(self) -> None:
        if self.collect is not None and self._kept >= ARTIFACTS_PER_COLLECTION:
            self._kept = 0
            self._parents.note()
            self.collect()

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

    def _show(self, event: Trial | Progress) -> None:
        """Call the watch. What it raises ends the search, and no training: the children that run end first."""
        if self.watch is None or self._watch_error is not None:
            return
        try:
            self.watch(event)
        except Exception as error:
            self._watch_error = error
            warnings.warn(
                f"watch raised {type(error).__name__}: {error}; it is called no more, and the search ends when the children "
                "that run have ended",
                stacklevel=2,
            )


def _not_kept(event: Completed) -> StoreError | None:
    """Why a child's weights could not be kept, or None. It was trained in vain, and so would be the next ones."""
    failure = event.result.failure
    if failure is None or failure.reason != "store":
        return None
    return StoreError(f"{failure.message}. What was recorded is kept: resume, and trial {event.trial} is trained again")


def replay(run: RunWriter, searcher: LiveSearcher, known: int = 0) -> None:
    """Bring a fresh searcher to where the run's log ends. The searcher was not asked for the first `known` trials.

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
        asked = [trial for trial in trials if trial.number >= known]
        for proposal, trial in zip(searcher.ask(len(asked)) if asked else [], asked, strict=True):
            if proposal.genotype != trial.genotype:
                raise ReplayMismatch(
                    f"the searcher of run {run.summary().name!r} does not repeat what it proposed as trial {trial.number}: "
                    "it was resumed with other versions of torch or numpy, or with another searcher. "
                    "Every finished trial is kept; resume with the versions that `archsmith show` lists"
                )
