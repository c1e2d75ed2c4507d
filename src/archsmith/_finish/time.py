"""How long a finish takes, from what the search's own trainings cost, and how many final epochs fit a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from archsmith._search import Run
from archsmith.core.evaluator import DescribesData
from archsmith.core.finish import FinishPlan

SPARE = (
    0.85  # of the time: starting workers, testing, and a hand-designed network that may be slower than what was found
)
MOST_EPOCHS = 300


def within(plan: FinishPlan, runs: Sequence[Run], *, seconds: float, workers: int) -> FinishPlan:
    """The plan with as many final epochs as `seconds` on so many workers allow, and no fewer than the search's.

    Where that is fewer than the plan asks for, `full_epochs` of the plan says how many those were.

    `runs` are those that are finished beside each other; a hand-designed network joins them. An epoch costs in
    proportion to what it trains on, as the dearest of the candidates' epochs did.
    """
    evaluator: Any = runs[0].evaluator
    plan = plan.fitting(evaluator)
    items = _items(evaluator)
    final_items = _items(replace(evaluator, **plan.final))
    costs = [t.result.cost for run in runs for t in run.top(plan.top) if t.result and t.result.cost.epochs]
    if not costs or not items or not final_items:
        return plan
    epoch_seconds = max(cost.seconds / cost.epochs for cost in costs)
    networks = len(runs) + 1
    tunings = len(runs) * (plan.top - 1) + networks * len(plan.points(evaluator))
    tuning_seconds = tunings * (plan.tuning_epochs or evaluator.epochs) * epoch_seconds
    final_epoch_seconds = networks * plan.seeds * epoch_seconds * final_items / items
    epochs = math.floor((SPARE * seconds * workers - tuning_seconds) / final_epoch_seconds)
    fitted = min(max(epochs, evaluator.epochs), MOST_EPOCHS)
    asked = plan.epochs if plan.epochs is not None else 3 * evaluator.epochs
    return replace(plan, epochs=fitted, full_epochs=asked if asked > fitted else None)


def _items(evaluator: object) -> int:
    """The number of images or words that an epoch trains on, or 0 if the evaluator does not say."""
    return int(evaluator.describe_data().get("train", 0)) if isinstance(evaluator, DescribesData) else 0
