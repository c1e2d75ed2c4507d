"""What a recipe is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from archsmith.core.budget import Budget
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Evaluator, Limits
from archsmith.core.executor import Reward
from archsmith.core.finish import FinishPlan
from archsmith.core.searcher import Searcher
from archsmith.core.space import Space
from archsmith.core.stopping import Rule


@dataclass(frozen=True)
class Recipe:
    """A run, but for its seed and its place.

    Args:
        name: what the command line calls it.
        summary: one line for a person.
        space, evaluator, searcher: the parts.
        budget: how much it may spend; its random-search control gets as many trials.
        scale: "paper" (the paper's own numbers) or "desk" (minutes to an hour on two cores, and claims no more).
        reward: what is made of a result (None: the evaluator's own).
        limits: what one child may use.
        workers: children trained side by side (None: one for each core).
        control: whether random search is run beside it.
        control_searcher: the random search, where it needs settings too (None: `Random()`).
        finish: how it is finished.
        stopping: the rule that ends hopeless children early; None: all are trained to their end, as in the papers.
        first: known points of the space, which are proposed before the searcher is asked; see `search`.
        file: where it was loaded from, where that is a file of the user's, as a run's record keeps it.
        suited_by: gives the recipe as its data want it, once they can be read, such as with another size of pictures; None:
            nothing of it depends on the data.
    """

    name: str
    summary: str
    space: Space
    evaluator: Evaluator
    searcher: Searcher
    budget: Budget
    scale: str = "desk"
    reward: Reward | None = None
    limits: Limits = Limits()
    workers: int | None = None
    control: bool = True
    control_searcher: Searcher | None = None
    finish: FinishPlan | None = None
    stopping: Rule | None = None
    file: Mapping[str, Any] | None = None
    first: Sequence[Any] = ()
    suited_by: Callable[[Recipe], Recipe] | None = None

    def __post_init__(self) -> None:
        if self.scale not in ("paper", "desk"):
            raise UsageError(f"the scale of recipe {self.name!r} must be 'paper' or 'desk', got {self.scale!r}")

    def suited(self) -> Recipe:
        """The recipe as its data want it. Reads them, where anything depends on them."""
        return self if self.suited_by is None else replace(self.suited_by(self), suited_by=None)
