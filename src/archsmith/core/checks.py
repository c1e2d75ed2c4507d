"""Checks of arguments, with messages that name the argument, the rule and the value.

Scalars of numpy and torch count as Python numbers. They are recognised by their methods, so that no library is imported.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, Protocol, SupportsIndex, runtime_checkable

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown

PLAIN = frozenset({str, int, float, bool, type(None)})
"""The types of JSON's scalars."""


@runtime_checkable
class Array(Protocol):
    """An array or a scalar of an array library, such as numpy's `ndarray` and `int64`, and torch's `Tensor`."""

    @property
    def ndim(self) -> int:
        """How many dimensions it has; a scalar has none."""
        ...

    def item(self) -> Any:
        """The only element as a Python object."""
        ...


def python_scalar(value: Any) -> Any:
    """The Python number, text or bool of an array library's scalar; any other value as it is."""
    if type(value) in PLAIN or isinstance(value, type) or not isinstance(value, Array) or value.ndim != 0:
        return value
    return value.item()


def whole_number(value: Any, what: str, least: int | None = None, most: int | None = None) -> int:
    """The value as an int, if it is a whole number of any type and in range.

    Raises UsageError, naming `what`, for anything else, such as 3.0, "3" or True.
    """
    number = python_scalar(value)
    if not isinstance(number, bool | Array) and isinstance(number, SupportsIndex):
        found = operator.index(number)
        if (least is None or found >= least) and (most is None or found <= most):
            return found
    rule = "" if least is None else f" of at least {least}" if most is None else f" from {least} to {most}"
    raise UsageError(f"{what} must be a whole number{rule}, got {shown(value)}")


def plain_fields(config: Any) -> None:
    """Replace scalars of array libraries in a dataclass by Python numbers, also in fields that are tuples or lists.

    Call it in `__post_init__`, before the fields are checked: the record of a run is JSON, and a seed must be an int.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if type(value) not in PLAIN and (plain := _plain(value)) is not value:
            object.__setattr__(config, field.name, plain)


def _plain(value: Any) -> Any:
    if type(value) in (tuple, list):
        items = [_plain(item) for item in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        return type(value)(items) if changed else value
    return python_scalar(value)
