"""What a run's writer keeps in its head, whatever the store: the legal moves of trials, the counts, the clock.

Everything here is computed before a transaction and assigned after it, so that a commit that fails changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from archsmith.core.errors import StoreError
from archsmith.core.executor import Clock
from archsmith.core.trial import Proposal, Trial, TrialState

_PROPOSED, _RUNNING, _DONE, _PAUSED = TrialState.PROPOSED, TrialState.RUNNING, TrialState.DONE, TrialState.PAUSED

_STATES = tuple(state.value for state in TrialState)

# The diagram at the top of core/trial.py. Running to running is another attempt, after the worker of one died.
_MOVES = {
    _PROPOSED: {_RUNNING, TrialState.FAILED, TrialState.STOPPED},
    _RUNNING: {_RUNNING, _PAUSED, _DONE, TrialState.FAILED, TrialState.STOPPED},
    _PAUSED: {_RUNNING, TrialState.STOPPED},
}


@dataclass(frozen=True, slots=True)
class Tally:
    """A run in numbers, kept up to date with each trial so that nothing is ever counted over."""

    proposed: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    stopped: int = 0
    paused: int = 0
    best: int | None = None
    best_reward: float | None = None
    epochs: float = 0.0

    @property
    def trials(self) -> int:
        """All trials, which is also the next one's number."""
        return self.proposed + self.running + self.done + self.failed + self.stopped + self.paused

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return {state: getattr(self, state) for state in _STATES}


class Ledger:
    """The open trials of a run and its tally. Used by the one writer.

    Args:
        tally: where the run stands.
        open_trials: those that are proposed, running or paused.
        seconds: what the run's clock shows.
    """

    def __init__(self, tally: Tally, open_trials: dict[int, Trial], seconds: float) -> None:
        self.tally = tally
        self.open = open_trials
        self._seconds = seconds
        self._opened = time.monotonic()  # never the wall clock, which may jump
        self._clock: Clock | None = None

    def elapsed(self) -> float:
        """Seconds of the run's own clock."""
        if self._clock is not None:
            return self._clock.seconds
        return self._seconds + (time.monotonic() - self._opened)

    def keep_time(self, clock: Clock) -> None:
        """Take the time from this clock, set to where the record ends."""
        clock.seconds = self._seconds
        self._clock = clock

    def proposed(self, proposals: Sequence[Proposal], at: float) -> tuple[list[Trial], Tally]:
        """The proposals as trials, numbered on."""
        first, tally = self.tally.trials, self.tally
        trials = [
            Trial(first + i, p.genotype, p.parent, proposed_at=at, replica=p.replica, version=p.version)
            for i, p in enumerate(proposals)
        ]
        return trials, replace(tally, proposed=tally.proposed + len(trials))

    def started(self, number: int, at: float) -> tuple[Trial, Tally]:
        """An open trial as running, once more."""
        trial, tally = self._movable(number, _RUNNING), self.tally
        if trial.state is not _RUNNING:
            tally = _moved(tally, trial.state, _RUNNING)
        return replace(trial, state=_RUNNING, started_at=at, attempts=trial.attempts + 1), tally

    def paused(self, trial: Trial) -> tuple[Trial, Tally]:
        """A running trial as put aside, with its result so far. Its epochs count when it is finished."""
        known = self._movable(trial.number, _PAUSED)
        if trial.result is None:
            raise StoreError(f"trial {trial.number} is paused, so it needs its result so far")
        return replace(known, state=_PAUSED, result=trial.result), _moved(self.tally, _RUNNING, _PAUSED)

    def finished(self, trials: Sequence[Trial], at: float) -> tuple[list[Trial], Tally]:
        """The trials as finished, with what only the record knows filled in. Raises StoreError for an illegal move."""
        finished: dict[int, Trial] = {}
        change = dict.fromkeys(_STATES, 0)
        best, best_reward, epochs = self.tally.best, self.tally.best_reward, self.tally.epochs
        for given in trials:
            number, state, reward, result = given.number, given.state, given.reward, given.result
            if not state.is_finished:
                raise StoreError(f"trial {number} cannot be finished as {state}: it must be done, failed or stopped")
            known = self._movable(number, state)
            if number in finished:
                raise StoreError(f"trial {number} is given twice in one call")
            if state is _DONE:
                if result is None or reward is None or not math.isfinite(reward):
                    raise StoreError(f"trial {number} is done, so it needs a result and a finite reward, got {reward}")
                if best_reward is None or reward > best_reward or (reward == best_reward and number < (best or 0)):
                    best, best_reward = number, float(reward)
            elif reward is not None:
                raise StoreError(f"trial {number} is {state}, so it has no reward, got {reward}")
            if result is not None:
                epochs += result.cost.epochs
            change[known.state] -= 1
            change[state] += 1
            finished[number] = Trial(
                number,
                given.genotype,
                known.parent,
                state,
                reward,
                result,
                known.proposed_at,
                known.started_at,
                at,
                known.attempts,
                known.replica,
                known.version,
            )
        counts = {state: getattr(self.tally, state) + more for state, more in change.items()}
        tally = Tally(**counts, best=best, best_reward=best_reward, epochs=epochs)
        return list(finished.values()), tally

    def rewarded(self, trials: Sequence[Trial], rewards: Mapping[int, float]) -> tuple[list[Trial], Tally]:
        """Finished trials that lacked a reward, as done with the one that they are given. Raises StoreError for others."""
        best, best_reward = self.tally.best, self.tally.best_reward
        done = []
        for trial in trials:
            reward = float(rewards[trial.number])
            if not trial.lacks_reward or trial.result is None:
                raise StoreError(
                    f"trial {trial.number} is {trial.state} and lacks no reward; results are never overwritten"
                )
            if not math.isfinite(reward):
                raise StoreError(f"trial {trial.number} needs a finite reward, got {reward}")
            if best is None or best_reward is None or (reward, -trial.number) > (best_reward, -best):
                best, best_reward = trial.number, reward
            done.append(replace(trial, state=_DONE, reward=reward, result=replace(trial.result, failure=None)))
        counts = {"failed": self.tally.failed - len(done), "done": self.tally.done + len(done)}
        return done, replace(self.tally, best=best, best_reward=best_reward, **counts)

    def settle(self, trials: Sequence[Trial], tally: Tally) -> None:
        """Take over what was committed."""
        self.tally = tally
        for trial in trials:
            if trial.state.is_finished:
                self.open.pop(trial.number, None)  # not there where it has only been given its reward
            else:
                self.open[trial.number] = trial

    def unfinished(self) -> list[Trial]:
        """The open trials, by number."""
        return [self.open[number] for number in sorted(self.open)]

    def _movable(self, number: int, to: TrialState) -> Trial:
        trial = self.open.get(number)
        if trial is None:
            if isinstance(number, int) and 0 <= number < self.tally.trials:
                raise StoreError(f"trial {number} is finished already; results are never overwritten")
            raise StoreError(f"there is no trial {number}; the run has {self.tally.trials}")
        if to not in _MOVES[trial.state]:
            raise StoreError(f"trial {number} is {trial.state} and cannot become {to} before it runs")
        return trial


def reopened(trial: Trial) -> Trial:
    """A trial that a kill interrupted: proposed again, or paused if it was, its attempts kept. The only ways back."""
    return replace(trial, state=_PROPOSED if trial.result is None else _PAUSED, started_at=None)


def _moved(tally: Tally, before: TrialState, after: TrialState) -> Tally:
    change = {before.value: getattr(tally, before) - 1, after.value: getattr(tally, after) + 1}
    return replace(tally, **change)


def check_status(status: str) -> None:
    """Refuse a status that no run can be closed with, with StoreError."""
    if status not in ("finished", "interrupted"):
        raise StoreError(f"a run is closed as finished or interrupted, not as {status!r}")
