"""Results of children as plain Python numbers within bounds, which any process and any store can take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from archsmith.core.artifacts import check_digest
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.genotype import canonical_json
from archsmith.core.number import as_number, numbers_by_name
from archsmith.core.trial import Cost, Failure, Result

MAX_NUMBERS = 1_000_000
"""The most numbers in a result, which the store keeps as JSON. Tensors belong in `context.checkpoint`."""

MAX_REASON, MAX_MESSAGE, MAX_TRACEBACK = 100, 2_000, 20_000
"""The most characters of a failure that are kept."""


MAX_SETTINGS = 20_000
"""The most characters of the settings that a child decided, as JSON."""


def plain_result(result: Any) -> Result:
    """The result with Python numbers. Raises ChildFailed for anything that is not a valid result."""
    if not isinstance(result, Result):
        _refuse(f"an evaluator must return a Result, got {type(result).__name__}")
    if not isinstance(result.cost, Cost):
        _refuse(f"a result's cost must be a Cost, got {type(result.cost).__name__}")
    if not isinstance(result.curve, Sequence) or not all(isinstance(row, Mapping) for row in result.curve):
        _refuse("a result's curve must be a list with a dict of numbers for each epoch")
    metrics = numbers_by_name(result.metrics, "a result's metrics")
    count = len(metrics) + sum(map(len, result.curve))
    if count > MAX_NUMBERS:
        _refuse(
            f"the result holds {count:,} numbers and may hold {MAX_NUMBERS:,}; keep tensors with context.checkpoint()"
        )
    for name in ("artifact", "checkpoint"):
        digest = getattr(result, name)
        try:
            if digest is not None:
                check_digest(digest)
        except UsageError as error:  # recorded, it would be damage to whoever reads the run
            _refuse(f"a result's {name} must be a digest or None: {error}")
    try:
        text = canonical_json(dict(result.settings))
        if len(text) > MAX_SETTINGS:
            raise ValueError(f"they have {len(text):,}")
    except (TypeError, ValueError, RecursionError) as error:
        _refuse(f"a result's settings must be plain JSON by name, of at most {MAX_SETTINGS:,} characters: {error}")
    failure = result.failure
    if not isinstance(failure, Failure | None):
        _refuse(f"a result's failure must be a Failure or None, got {type(failure).__name__}")
    settings = json.loads(text)
    return Result(
        metrics=metrics,
        curve=[numbers_by_name(row, "a row of a result's curve") for row in result.curve],
        cost=Cost(_amount("seconds", result.cost.seconds), _amount("epochs", result.cost.epochs)),
        failure=failure
        and Failure(
            str(failure.reason)[:MAX_REASON],
            str(failure.message)[:MAX_MESSAGE],
            str(failure.traceback)[-MAX_TRACEBACK:],
        ),
        artifact=result.artifact,
        checkpoint=result.checkpoint,
        settings=settings,
    )


def readable_metrics(given: Any) -> dict[str, float]:
    """Those metrics of an invalid result that are numbers."""
    metrics: dict[str, float] = {}
    for name, value in given.metrics.items() if isinstance(given, Result) and isinstance(given.metrics, dict) else ():
        with suppress(ChildFailed):
            metrics |= numbers_by_name({name: value}, "metrics")
    return metrics


def _refuse(message: str) -> NoReturn:
    raise ChildFailed(message)


def _amount(name: str, value: Any) -> float:
    """A part of a cost, which counts towards the budget of the run."""
    number = as_number(value, f"the cost of a child in {name}")
    if not 0 <= number < math.inf:
        _refuse(f"the cost of a child in {name} must be finite and at least 0, got {number}")
    return number


def finite_reward(reward: Any) -> float:
    """A reward as a float. Raises ChildFailed unless it is a finite number."""
    number = float(as_number(reward, "a reward", reason="reward"))
    if not math.isfinite(number):
        raise ChildFailed(f"a reward must be finite, got {number}", reason="reward")
    return number
