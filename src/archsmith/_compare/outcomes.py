"""What a run came to, as numbers: one of each run, so that runs of several seeds can be tested for a difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsmith._compare.searched import REWARD, Searched, best_so_far, top_k_unique_means
from archsmith.core.finish import Measure

TOPS = (1, 5, 15)  # figure 6 of Zoph and Le (2017)
BY_VALUE = ("best", *(f"mean of top {k}" for k in TOPS[1:]))
MULTIPLY_ADDS = Measure("multiply_adds", "million multiply-adds", higher_is_better=False, items="", digits=1)


@dataclass(frozen=True)
class Outcome:
    """A number of each run.

    Args:
        name: its key.
        said: what a sentence calls it.
        measure: what it is measured by.
    """

    name: str
    said: str
    measure: Measure


def outcome(name: str, measure: Measure) -> Outcome:
    """The outcome of that name, for runs that are judged by the measure."""
    if name == "late mean reward":
        return Outcome(name, "the late mean reward", REWARD)
    if name == "regret":
        return Outcome(name, "the regret of the best model", regret_of(measure))
    if name == "multiply-adds of the best":
        return Outcome(name, "the million multiply-adds of the best model", MULTIPLY_ADDS)
    if name == "mean of the best so far":
        return Outcome(name, "the mean over the search of the best so far", measure)
    return Outcome(name, "the best model" if name == "best" else f"the {name} models", measure)


def regret_of(measure: Measure) -> Measure:
    """How regret is shown: in the unit of the measure, and always the less the better."""
    return Measure("regret", "regret", False, measure.items, percent=measure.percent, digits=max(2, measure.digits))


def outcomes(run: Searched, measure: Measure) -> dict[str, float]:
    """What a run came to, NaN where it has too little for it. Models count as in `top_k_unique_means`."""
    higher = measure.higher_is_better
    means = top_k_unique_means(run.value, run.keys, TOPS, [len(run)], higher_is_better=higher)
    rewards = run.reward[~np.isnan(run.reward)]  # a budget in seconds ends with trials that were stopped
    late = rewards[-max(1, len(rewards) // 4) :]
    so_far = best_so_far(run.value, higher_is_better=higher)
    so_far = so_far[~np.isnan(so_far)]
    any_value = bool(len(so_far))
    best = int(np.nanargmax(run.value if higher else -run.value)) if any_value else -1
    return {
        **{name: float(mean) for name, mean in zip(BY_VALUE, means[:, 0], strict=True)},
        "mean of the best so far": float(so_far.mean()) if any_value else float("nan"),
        "late mean reward": float(late.mean()) if len(late) else float("nan"),
        "regret": float(run.regret[-1]) if len(run.regret) else float("nan"),
        "multiply-adds of the best": float(run.multiply_adds[best]) / 1e6 if any_value else float("nan"),
    }
