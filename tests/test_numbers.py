"""What counts as a number in results, curves, reports and rewards, and what is said of what does not."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import archsmith as smith
from archsmith.core.errors import ChildFailed, MissingMetric
from archsmith.core.number import as_number
from archsmith.core.trial import Cost, Result

HALVES = [
    0.5,
    np.float16(0.5),
    np.float64(0.5),
    np.longdouble(0.5),
    np.array(0.5),
    np.array([[0.5]]),
    np.array(0.5, dtype=object),
    np.ma.array(0.5),
    Decimal("0.5"),
    Fraction(1, 2),
    torch.tensor(0.5),
    torch.tensor([0.5]),
    torch.tensor(0.5, requires_grad=True),
    torch.nn.Parameter(torch.tensor(0.5)),
    torch.tensor(0.5, dtype=torch.bfloat16),
]
ONES = [True, 1, np.bool_(True), np.int8(1), np.uint64(1), np.array(1), torch.tensor(True), torch.tensor(1)]
NO_NUMBERS: list[tuple[Any, str]] = [
    ("0.5", "got str"),
    (None, "got None"),
    (1j, "got complex"),
    (np.complex64(1), "got complex64"),
    (torch.tensor(1j), "got Tensor"),
    (np.str_("0.5"), "got str_"),
    (np.array(None), "got ndarray"),
    (np.ma.masked, "got MaskedConstant: it is masked"),
    (np.ma.array(0.5, mask=True), "got MaskedArray: it is masked"),
    (np.array([0.5, 0.5]), "got ndarray: .*size 1"),
    (torch.tensor([0.5, 0.5]), "got Tensor: .*2 elements"),
    (torch.empty(0), "got Tensor"),
    (torch.tensor(0.5, device="meta"), "got Tensor: .*meta"),
    (Decimal("sNaN"), "got Decimal"),
    ({"top1": 0.5}, "got dict; give each number a name of its own"),
    ([0.5], "got list; give each number"),
    (torch.Tensor, "got _TensorMeta"),
]


def space(choose: Any) -> int:
    return choose("a", (1, 2, 3))


def label(value: Any) -> str:
    return f"{type(value).__name__}-{getattr(value, 'dtype', '')}"


@pytest.mark.parametrize("value", HALVES + ONES, ids=label)
def test_scalars_of_any_library_are_numbers(value: Any) -> None:
    expected = 0.5 if any(value is half for half in HALVES) else 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        number = as_number(value, "x")
    assert (number, type(number) in (int, float)) == (expected, True)


@pytest.mark.parametrize(("value", "said"), NO_NUMBERS, ids=[label(value) for value, _ in NO_NUMBERS])
def test_what_is_no_number_is_said_by_name(value: Any, said: str) -> None:
    with pytest.raises(ChildFailed, match=f"^accuracy must be a number, {said}"):
        as_number(value, "accuracy")


def test_numbers_beyond_a_float_are_refused() -> None:
    assert as_number(10**30, "x") == 1e30
    for huge in (10**400, Fraction(10**400)):
        with pytest.raises(ChildFailed, match="beyond what a float can hold"):
            as_number(huge, "x")


@pytest.mark.parametrize("value", [torch.tensor(0.5, requires_grad=True), np.array([0.5]), Decimal("0.5")], ids=label)
def test_a_search_takes_them_everywhere(value: Any) -> None:
    class Everywhere:
        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            context.report(np.int64(1), {"loss": value})
            return Result({"value": value}, [{"epoch": torch.tensor(1), "loss": value}], Cost(value, value))

    for evaluator in (lambda _: value, lambda _: {"value": value}, Everywhere()):
        run = smith.search(space, evaluator, reward=lambda _: value, trials=1, store="memory://")
        assert (run.best.reward, type(run.best.reward)) == (0.5, float)
        assert run.best.result.metrics == {"value": 0.5}
    assert run.best.result.curve == [{"epoch": 1, "loss": 0.5}]
    assert (run.best.result.cost.seconds, run.summary.epochs) == (0.5, 1.0)


def test_a_missing_metric_is_named_and_can_be_caught_as_a_key_error() -> None:
    def careful(result: Result) -> float:
        try:
            return result.metrics["top5"]
        except KeyError:
            return result.metrics.get("top5", result.metrics["top1"])

    run = smith.search(space, lambda _: {"top1": 0.5}, reward=careful, trials=1, store="memory://")
    assert run.best.reward == 0.5
    error = MissingMetric("top5", ["top1", "loss"])
    assert (
        str(error) == "the reward needs the metric 'top5', and the result has: loss, top1; give search(..., reward=...)"
    )
    assert not math.isnan(as_number(True, "x"))
