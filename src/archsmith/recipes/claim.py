"""What a claim is: a sentence of a paper about searchers, as searches that anyone can run and hold against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archsmith.core.errors import UsageError
from archsmith.recipes.recipe import Recipe

OUTCOMES = (
    "best",
    "mean of top 5",
    "mean of top 15",
    "mean of the best so far",
    "late mean reward",
    "regret",
    "multiply-adds of the best",
)
"""What may be taken of a run as one number: see `archsmith._compare.outcomes`."""


@dataclass(frozen=True)
class Expected:
    """That one searcher comes out ahead of another.

    Args:
        ahead, behind: their names among the claim's arms.
        outcome: by which number of each run, one of `OUTCOMES`.
    """

    ahead: str
    behind: str
    outcome: str = "best"


@dataclass(frozen=True)
class Claim:
    """A paper's claim, to be run over many seeds by `archsmith compare NAME`.

    Args:
        name: what the command line calls it.
        summary: one line for a person.
        paper: where it is claimed, and what is said there.
        arms: what is run, by name: recipes alike in all that the claim is not about, with a budget in trials.
        expected: what ought to come out if the claim holds here.
        seeds: how many runs of each arm, unless the user says otherwise.
        limits: how what is run differs from the paper's experiment.
        within: a metric and a limit: only models at or below it count as found.
    """

    name: str
    summary: str
    paper: str
    arms: Mapping[str, Recipe]
    expected: tuple[Expected, ...]
    seeds: int = 20
    limits: str = ""
    within: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        if len(self.arms) < 2 or not self.expected:
            raise UsageError(f"the claim {self.name!r} needs two arms at least, and what is expected of them")
        for one in self.expected:
            for arm in (one.ahead, one.behind):
                if arm not in self.arms:
                    raise UsageError(f"the claim {self.name!r} expects something of {arm!r}, which is none of its arms")
            if one.outcome not in OUTCOMES:
                raise UsageError(f"an outcome is one of {', '.join(OUTCOMES)}, got {one.outcome!r}")
        if len({recipe.budget for recipe in self.arms.values()}) > 1:
            raise UsageError(f"the arms of the claim {self.name!r} must have equal budgets")
