"""The reward of a run, also of one that goes on, and the rewards of trained trials that lack one."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from archsmith._search.run import Run
from archsmith.core.config import same_config, to_config
from archsmith.core.errors import ArchsmithError, MissingMetric, UsageError
from archsmith.core.evaluator import DeclaresMetrics, Evaluator
from archsmith.core.executor import Reward
from archsmith.core.searcher import LiveSearcher
from archsmith.core.store import RunWriter
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.executors.run_job import reward_of
from archsmith.rewards import default_reward, value

_COMPARED = 3  # of the best trials, whose rewards are computed again


def reward_for(evaluator: Evaluator, reward: Reward | None) -> Reward:
    """The reward of a search: the one given, or that of the evaluator, or the metric "value".

    Raises UsageError, before a child is trained, if it is no function of a result, or if it is one of archsmith's and needs a
    metric that the evaluator does not declare.
    """
    chosen: Any = reward if reward is not None else default_reward(evaluator)
    if isinstance(chosen, type) or not callable(chosen) or not _takes_a_result(chosen):
        raise UsageError(
            f"reward must be a function of a result, such as archsmith.rewards.accuracy, got {to_config(chosen)!r:.200}"
        )
    if isinstance(evaluator, DeclaresMetrics) and _is_ours(chosen):
        declared = tuple(evaluator.reported_metrics)
        try:
            reward_of(chosen, Result(dict.fromkeys(declared, 1.0)))
        except MissingMetric as error:
            raise UsageError(
                f"the reward needs the metric {error.name!r}, and {type(evaluator).__name__} reports: {', '.join(declared)}; "
                "give another reward=, or set the evaluator to report that metric"
            ) from None
        except ArchsmithError:
            pass
    return chosen  # type: ignore[no-any-return]


def reward_to_go_on_with(run: Run, evaluator: Evaluator, given: Reward | None) -> Reward:
    """The reward that a run goes on with: the recorded one, or any other while none of its trials has a reward.

    Raises UsageError for another reward once a trial has one: a searcher cannot compare rewards of two kinds.
    """
    recorded = run.config["reward"]
    default = reward_for(evaluator, None)
    if given is None and run.best is None:
        given = run.recipe_reward()  # it may have one by now
    if given is not None:
        reward = reward_for(evaluator, given)
        if run.best is not None:
            _check_same(run, reward, recorded)
        return reward
    if same_config(recorded, to_config(default), any_module=True):
        return default
    if run.best is None and recorded == to_config(value):
        return default  # the evaluator had no reward of its own when the run began
    return reward_for(evaluator, run.made("reward", recorded))


def missing_rewards(run: Run, reward: Reward) -> dict[int, float]:
    """The rewards of trials that lack one, by trial number. A warning counts the trials whose reward cannot be computed; the
    search may still go on with a corrected evaluator."""
    if not run.summary.counts["failed"]:
        return {}
    rewards: dict[int, float] = {}
    failures: list[str] = []
    for trial in run.trials():
        if trial.lacks_reward and trial.result is not None:
            try:
                rewards[trial.number] = reward_of(reward, trial.result)
            except Exception as error:
                failures.append(f"trial {trial.number}: {type(error).__name__}: {error}")
    if failures:
        warnings.warn(
            f"{len(failures):,} trials of run {run.name!r} were trained, and no reward can be made of their metrics; "
            f"{failures[0]}",
            stacklevel=2,
        )
    return rewards


def record_rewards(run: RunWriter, searcher: LiveSearcher, rewards: Mapping[int, float]) -> None:
    """Record rewards that were computed later, and tell the searcher of those trials."""
    trials = [run.trial(number) for number in sorted(rewards)]
    searcher.tell(
        [
            replace(t, state=TrialState.DONE, reward=rewards[t.number], result=replace(t.result, failure=None))
            for t in trials
            if t.result is not None
        ]
    )
    run.set_rewards(rewards, snapshot=searcher.state_dict())


def _check_same(run: Run, reward: Reward, recorded: Any) -> None:
    """Raise UsageError if a reward differs from the run's, by its name or by its values."""
    step = "A run has one reward, since its searcher compares them: begin a new run for another one"
    if not same_config(recorded, to_config(reward), any_module=True):
        raise UsageError(
            f"run {run.name!r} was begun with another reward: recorded {recorded}, given {to_config(reward)}. {step}"
        )
    if _is_ours(reward):
        return
    differing = [trial for trial in run.top(_COMPARED) if not _gives(reward, trial)]
    if len(differing) == len(run.top(_COMPARED)):
        raise UsageError(
            f"the reward that is given makes another number than {differing[0].reward!r} of trial {differing[0].number}, "
            f"which run {run.name!r} has recorded. {step}"
        )


def _gives(reward: Reward, trial: Trial) -> bool:
    """Whether a reward gives the recorded number for a trial; True for one that gives another number each time."""
    if trial.result is None or trial.reward is None:
        return True
    try:
        made, again = reward_of(reward, trial.result), reward_of(reward, trial.result)
    except Exception:
        return False
    return made != again or math.isclose(made, trial.reward, rel_tol=1e-9)


def _is_ours(reward: Reward) -> bool:
    return str(to_config(reward).get("type", "")).startswith("rewards.")


def _takes_a_result(reward: Any) -> bool:
    try:
        inspect.signature(reward).bind(Result())
    except ValueError:  # a function of C's, which does not say what it takes
        return True
    except TypeError:
        return False
    return True
