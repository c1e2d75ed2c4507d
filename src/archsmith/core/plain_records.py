"""Frozen dataclasses as plain JSON and back, checked field by field: a document of a store may hold anything."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown

Record = TypeVar("Record")


def from_plain(cls: type[Record], value: object) -> Record:
    """The dataclass that `dataclasses.asdict` and JSON made `value` of.

    Fields may be texts, numbers, booleans, None, tuples of these, and dataclasses of such fields. A field that is missing has
    its default, and one that the class does not have is ignored, so that versions read each other's records.

    Raises UsageError that names the field if a value has another type, or is no finite number.
    """
    made: Record = _record(cls, value, cls.__name__)
    return made


def _record(cls: Any, value: object, what: str) -> Any:
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} must be a mapping of fields, got {shown(value)}")
    kinds = typing.get_type_hints(cls)
    fields = {
        f.name: _value(kinds[f.name], value[f.name], f"{what}.{f.name}")
        for f in dataclasses.fields(cls)
        if f.name in value
    }
    try:
        return cls(**fields)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} cannot be made from its record: {error}") from None


def _value(kind: Any, value: object, what: str) -> Any:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return _value(kind, value, what)
    if typing.get_origin(kind) is tuple:
        return _tuple(arguments, value, what)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, what)
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(typing.cast(float, value))):
        raise UsageError(f"{what} must be {'a finite number' if kind is float else kind.__name__}, got {shown(value)}")
    return value


def _tuple(kinds: tuple[Any, ...], value: object, what: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{what} must be a list, got {shown(value)}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_value(kinds[0], item, f"{what}[{i}]") for i, item in enumerate(value))
    if len(kinds) != len(value):
        raise UsageError(f"{what} must have {len(kinds)} values, got {len(value)}")
    return tuple(_value(kind, item, f"{what}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))
