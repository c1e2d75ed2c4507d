"""Checks of the settings of an evaluator, with messages that name the setting, the rule and the value."""

from __future__ import annotations

import os
from collections.abc import Callable

from archsmith.core.errors import UsageError


def whole(name: str, value: object, least: int) -> None:
    """Raises UsageError when the value is no whole number of at least that."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")


def number(name: str, value: object, low: float, high: float, rule: str, *, open_below: bool = False) -> None:
    """Raises UsageError, with the rule in words, when the value is no number from `low` to below `high`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value < high or (open_below and value == low):  # type: ignore[operator]
        raise UsageError(f"{name} must be a number {rule}, got {value!r}")


def distinct(name: str, values: object) -> None:
    """Raises UsageError when the values are no tuple or list, or one is there twice."""
    if not isinstance(values, tuple | list) or len(set(map(repr, values))) != len(values):
        raise UsageError(f"{name} must be a tuple of values that differ from each other, got {values!r}")


def located(data: str, is_name: Callable[[str], bool]) -> str:
    """A data set's name as it is, and a path that is there as an absolute one: a run may go on in another folder.

    Raises UsageError for an empty text.
    """
    if not data.strip():
        raise UsageError("data must name a data set or a path, got an empty text")
    path = os.path.expanduser(data)
    return data if not os.path.exists(path) or is_name(data) else os.path.abspath(path)
