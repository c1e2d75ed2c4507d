"""Whether a searcher can learn anything within a budget, said before the search begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.core.budget import Budget
from archsmith.core.searcher import Searcher, StartsAtRandom
from archsmith.core.space import Space


def random_trials(searcher: Searcher, space: Space) -> int | None:
    """How many of its first trials are a random search; None of one that does not say."""
    return searcher.random_trials(space) if isinstance(searcher, StartsAtRandom) else None


def cannot_learn(searcher: str, first: int | None, budget: Budget, child_epochs: int | None) -> str | None:
    """A sentence where a budget ends before the searcher learns from a result; None where it does not.

    Args:
        searcher: its name.
        first: how many of its first trials are a random search.
        budget: of the run.
        child_epochs: how many epochs a child takes, where that is known.
    """
    trials = budget.trials
    if budget.epochs is not None and child_epochs:
        of_epochs = int(budget.epochs / child_epochs)
        trials = of_epochs if trials is None else min(trials, of_epochs)
    if first is None or trials is None or trials > first:
        return None
    return (
        f"{searcher} proposes its first {first:,} trials before it learns from a result, and the budget is {trials:,} trials: "
        "it cannot yet beat random search. Give a larger budget, or a searcher with a smaller start, such as "
        "BayesianOptimization() or Reinforce.small()"
    )


def learned_nothing(config: Mapping[str, Any], trials: int) -> str | None:
    """A sentence for a run of so many trials that were all before its searcher learned anything; None for any other."""
    first = config.get("random_trials")
    if not isinstance(first, int) or isinstance(first, bool) or not 0 < trials <= first:
        return None
    return (
        f"the searcher proposes its first {first:,} trials before it learns from a result, so this was a random search"
    )
