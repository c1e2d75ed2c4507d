"""Stops a search in vain, judged by its first trials.

A mistake in the evaluator, the reward or the budget shows at once: every child fails, no reward can be computed, or
nothing counts towards a budget in epochs. The search then stops with an error that gives the reason. It first waits for the
running children, and continues if one of them succeeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from archsmith.core.budget import Budget
from archsmith.core.errors import AllTrialsFailed, ArchsmithError, MissingMetric, NoReward, UsageError
from archsmith.core.executor import Reward
from archsmith.core.store import RunWriter
from archsmith.core.trial import Failure, Trial, TrialState
from archsmith.executors.run_job import reward_of

FIRST = 10
"""The search stops after this many trials of a session if all of them have failed, or none reported an epoch."""

IN_A_ROW = 1_000
"""The most trials in a row that may report no epoch if the budget is in epochs alone."""

_REASONS_SHOWN = 5
_TRACEBACK_LINES = 12


class FirstTrials:
    """The first trials of one session of a run.

    Args:
        run: the run. If it has a trial that was trained, failing children never stop it.
        reward: the run's reward.
        budget: the run's budget.
    """

    def __init__(self, run: RunWriter, reward: Reward, budget: Budget) -> None:
        summary = run.summary()
        self._run, self._name, self._reward, self._budget = run, summary.name, reward, budget
        self._trained = summary.counts["done"] + summary.counts["paused"] > 0
        self._first: set[int] = set()  # those that began first, and have not failed yet
        self._began = 0
        self._failed: list[Trial] = []  # of the first
        self._no_reward: NoReward | None = None
        self._epochs = summary.epochs > 0
        self._ended = self._without_epochs = 0

    def began(self, trial: Trial) -> None:
        """A trial is about to be trained."""
        if self._began < FIRST:
            self._began += 1
            self._first.add(trial.number)

    def ended(self, trial: Trial) -> None:
        """A trial has finished, or was paused."""
        self._ended += 1
        epochs = trial.result is not None and trial.result.cost.epochs > 0
        self._without_epochs = 0 if epochs else self._without_epochs + 1
        self._epochs = self._epochs or epochs
        if trial.state is TrialState.FAILED:
            if trial.number in self._first:
                self._first.remove(trial.number)
                self._failed.append(trial)
            if self._no_reward is None and not self._trained:
                self._no_reward = no_reward(self._name, self._reward, [trial])
        elif trial.state is not TrialState.STOPPED:
            self._trained = True

    def verdict(self) -> ArchsmithError | None:
        """The error to raise once the running children have ended; None if the search may go on."""
        if not self._trained:
            if self._no_reward is not None:
                return self._no_reward
            if self._began == FIRST and not self._first:
                return all_failed(self._name, self._failed, f"all of the first {FIRST} trials")
        if self._budget.epochs is not None:
            never = not self._epochs and self._ended >= FIRST
            alone = self._budget.trials is None and self._budget.seconds is None
            if never or (alone and self._without_epochs >= IN_A_ROW):
                which = f"none of its first {FIRST}" if never else f"none of its last {IN_A_ROW:,}"
                return UsageError(
                    f"the budget of run {self._name!r} is {self._budget}, and {which} trials reported an epoch, "
                    "so it would never be used up. Have the evaluator call context.report(epoch, metrics) after each epoch, "
                    "or state Cost(epochs=...) in its results; or go on with another budget: "
                    f"open_run(STORE, {self._name!r}).resume(trials=...)"
                )
        return None

    def check_end(self) -> None:
        """Raise AllTrialsFailed if the whole budget was spent on trials that failed."""
        counts = self._run.summary().counts
        if 0 < counts["failed"] == sum(counts.values()):
            failed = [trial for trial in self._run.trials() if trial.state is TrialState.FAILED]
            which = f"all {len(failed):,} trials" if len(failed) > 1 else "the only trial"
            more = None if self._budget.trials is None else 2 * len(failed)
            raise all_failed(self._name, failed, which, trials=more)


def no_reward(name: str, reward: Reward, trials: Iterable[Trial]) -> NoReward | None:
    """The error for the first trial that lacks a metric which the reward needs; None if there is none."""
    for trial in trials:
        result = trial.result
        if result is None or result.failure is None or result.failure.reason != "reward":
            continue
        try:
            reward_of(reward, result)
        except MissingMetric as error:
            why = f"no reward can be made of the results of run {name!r}: the reward needs the metric {error.name!r}, and they"
            if not error.metrics:
                return NoReward(f"{why} have none. Have the evaluator return a number, or a dict with that metric")
            example = "accuracy" if "accuracy" in error.metrics else error.metrics[0]
            return NoReward(
                f"{why} have: {', '.join(error.metrics)}. Give a reward of those, of which larger is better, such as "
                f"reward=lambda result: result.metrics[{example!r}]. What was trained is kept: open_run(STORE, {name!r})"
                ".resume(reward=...) makes its reward and goes on",
                error.metrics,
            )
        except Exception:
            continue  # the trial says why
    return None


def all_failed(name: str, failed: Iterable[Trial], which: str, *, trials: int | None = None) -> AllTrialsFailed:
    """The error for trials that all failed: the number of trials by reason, and the end of the first traceback.

    Args:
        name: the run's name.
        failed: the trials.
        which: the subject of the message, such as "all 10 trials".
        trials: a budget to go on with, if the run's is used up.
    """
    failed = sorted(failed, key=lambda trial: trial.number)
    failures = [_failure(trial) for trial in failed]
    reasons = Counter(f"{failure.reason}: {failure.message}" for failure in failures)
    listed = [f"  {count} x {reason}" for reason, count in reasons.most_common(_REASONS_SHOWN)]
    if len(reasons) > _REASONS_SHOWN:
        listed.append(f"  and {len(reasons) - _REASONS_SHOWN} more reasons")
    lines = failures[0].traceback.rstrip().splitlines()[-_TRACEBACK_LINES:]
    if lines and lines[-1].startswith("archsmith."):  # its message says all
        lines = []
    excerpt = (
        [f"The end of the traceback of trial {failed[0].number}:", *(f"  {line}" for line in lines)] if lines else []
    )
    budget = "" if trials is None else f"trials={trials}, "
    step = (
        f"What was trained is kept. Correct the reward, then go on: open_run(STORE, {name!r}).resume(reward=...) makes the "
        "rewards of these trials, and trains none again"
        if all(trial.lacks_reward for trial in failed)
        else f"Correct the cause, then go on: open_run(STORE, {name!r}).resume({budget}...), with the space=, evaluator= or "
        "reward= that you changed. Failed trials are not tried again"
    )
    return AllTrialsFailed("\n".join([f"{which} of run {name!r} failed:", *listed, *excerpt, step]), reasons)


def _failure(trial: Trial) -> Failure:
    failure = trial.result.failure if trial.result is not None else None
    return failure if failure is not None else Failure("unknown", "no reason was recorded")
