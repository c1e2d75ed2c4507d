"""Warns, before a search begins, if its searcher cannot learn anything within the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.core.budget import Budget
from archsmith.core.searcher import Searcher, StartsAtRandom
from archsmith.core.space import Space

_SMALL_START = 10  # BayesianOptimization's


def random_trials(searcher: Searcher, space: Space) -> int | None:
    """How many of its first trials are a random search; None if it does not say."""
    return searcher.random_trials(space) if isinstance(searcher, StartsAtRandom) else None


def cannot_learn(searcher: str, first: int | None, budget: Budget, child_epochs: float | None) -> str | None:
    """The warning if a budget ends before the searcher learns from a result, or None.

    Args:
        searcher: its name.
        first: how many of its first trials are a random search; None if unknown.
        budget: the run's budget.
        child_epochs: the epochs that one child costs; None if unknown.
    """
    trials = budget.trials
    if budget.epochs is not None and child_epochs:
        of_epochs = int(budget.epochs / child_epochs)
        trials = of_epochs if trials is None else min(trials, of_epochs)
    if first is None or trials is None or trials > first:
        return None
    smaller = (
        ", or a searcher with a smaller start, such as BayesianOptimization()" if trials > _SMALL_START < first else ""
    )
    return (
        f"{searcher} proposes its first {first:,} trials before it learns from a result, and the budget is {trials:,} trials: "
        f"it cannot yet beat random search. Give a larger budget{smaller}"
    )


def learned_nothing(config: Mapping[str, Any], trials: int) -> str | None:
    """The sentence for a run whose trials all came before its searcher learned anything, or None."""
    first = config.get("random_trials")
    if not isinstance(first, int) or isinstance(first, bool) or not 0 < trials <= first:
        return None
    return (
        f"the searcher proposes its first {first:,} trials before it learns from a result, so this was a random search"
    )
