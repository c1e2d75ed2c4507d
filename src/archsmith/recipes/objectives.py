"""A recipe that searches a front of several metrics in place of one reward."""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.errors import UsageError
from archsmith.core.evaluator import DeclaresMetrics
from archsmith.recipes.recipe import Recipe
from archsmith.searchers import NSGA2, Optuna
from archsmith.training import ImageClassification, Latency


def with_objectives(recipe: Recipe, objectives: str | None) -> Recipe:
    """The recipe with a searcher of several objectives; None leaves it.

    The recipe's searcher is told them if it is `NSGA2` or `Optuna`; others give way to `NSGA2`. Latency is measured if it is an
    objective, and weights are kept, so that every network of the front can be exported.

    Args:
        recipe: the recipe.
        objectives: metrics with commas, such as "accuracy,latency", in which a sign says which way is better where that is
            not known: "+recall".

    Raises UsageError for fewer than two, and for a metric that the evaluator does not report.
    """
    if objectives is None:
        return recipe
    names = tuple(part.strip() for part in objectives.split(",") if part.strip())
    searcher = recipe.searcher
    searcher = replace(searcher, objectives=names) if isinstance(searcher, NSGA2 | Optuna) else NSGA2(names)
    evaluator = recipe.evaluator
    if isinstance(evaluator, ImageClassification):
        measured = Latency() if "latency" in {name.lstrip("+-") for name in names} else evaluator.latency
        evaluator = replace(evaluator, latency=evaluator.latency or measured, keep_weights=True)
    known = ("reward", *(evaluator.reported_metrics if isinstance(evaluator, DeclaresMetrics) else names))
    for name in names:
        if name.lstrip("+-") not in known:
            raise UsageError(
                f"--objectives has {name!r}, which {type(evaluator).__name__} does not report; it reports {', '.join(known)}"
            )
    return replace(recipe, searcher=searcher, evaluator=evaluator)
