"""Conversion of metrics, curves, costs and rewards to Python numbers, also from scalars of array libraries."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Protocol, SupportsFloat, runtime_checkable

from archsmith.core.checks import Array
from archsmith.core.errors import ChildFailed

MAX_NAME = 1_000
"""Characters of a metric's name."""


@runtime_checkable
class MaskedArray(Array, Protocol):
    """A scalar or an array of `numpy.ma`, whose `item()` is the value behind the mask."""

    mask: object


def as_number(value: object, what: str, reason: str = "error") -> float:
    """The value as a Python number; an int of up to 64 bits stays one.

    Takes int, float, bool, Fraction and Decimal, and arrays and tensors that have one element, of any type and on any
    device, whether or not they require a gradient.

    Args:
        value: what should be a number.
        what: its name for the message, such as "the metric 'accuracy'".
        reason: the reason of the failure.

    Raises ChildFailed for anything else: text, complex numbers, None, dicts, arrays of several elements.
    """
    if type(value) is float or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    said = type(value).__name__ if value is not None else "None"
    plain = value
    if isinstance(value, Array):
        try:
            if isinstance(value, MaskedArray) and value.mask:
                raise ValueError("it is masked")
            plain = value.item()
        except Exception as error:  # it has several elements, or none, or no values at all
            raise ChildFailed(f"{what} must be a number, got {said}: {error}", reason=reason) from None
        if type(plain) is int or type(plain) is float:
            return as_number(plain, what, reason)
    is_complex = isinstance(plain, numbers.Complex) and not isinstance(plain, numbers.Real)
    if isinstance(plain, SupportsFloat) and not is_complex:
        try:
            return float(plain)
        except OverflowError:
            kind = "a whole number " if isinstance(plain, int) else ""
            raise ChildFailed(f"{what} is {kind}beyond what a float can hold", reason=reason) from None
        except (TypeError, ValueError) as error:
            raise ChildFailed(f"{what} must be a number, got {said}: {error}", reason=reason) from None
    hint = "; give each number a name of its own" if isinstance(plain, Mapping | list | tuple) else ""
    raise ChildFailed(f"{what} must be a number, got {said}{hint}", reason=reason)


def as_integer(value: object, what: str) -> int:
    """The value as an int, also where it is a float without a fraction. Raises ChildFailed for any other value."""
    number = as_number(value, what)
    if not (float(number).is_integer() and abs(number) < 2**63):
        raise ChildFailed(f"{what} must be a whole number, got {number}")
    return int(number)


def numbers_by_name(values: object, what: str) -> dict[str, float]:
    """A dict of numbers by name, such as the metrics of an epoch, as plain Python. Raises ChildFailed for anything else."""
    if not isinstance(values, Mapping):
        raise ChildFailed(f"{what} must be a dict of numbers by name, got {type(values).__name__}")
    return {_name(name): as_number(value, f"the metric {name!r:.100}") for name, value in values.items()}


def _name(name: object) -> str:
    text = str(name)
    if len(text) > MAX_NAME:
        raise ChildFailed(
            f"the name of a metric may have {MAX_NAME:,} characters, and {text[:40]!r}... has {len(text):,}"
        )
    return text
