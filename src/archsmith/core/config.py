"""Frozen dataclasses as JSON and back: how a run remembers what it is a search of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from archsmith.core.errors import UsageError


def to_config(value: Any) -> Any:
    """Plain JSON for a configuration: a dataclass as `{"type": "spaces.ConvChain", field: ...}`.

    A function is recorded by name ("module:function"), for people to read; only what archsmith ships can be made
    again from the record.
    """
    if isinstance(value, str | int | float | bool | type(None)):
        return value
    if isinstance(value, Mapping):
        return {str(k): to_config(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [to_config(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_config(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
        return {"type": type_name(type(value)), **fields}
    if isinstance(value, functools.partial):
        return {"type": type_name(value.func), "args": to_config(value.args), **to_config(value.keywords)}
    if callable(value):
        return {"type": type_name(value)}
    return {"type": type_name(type(value))}


def type_name(thing: Any) -> str:
    """ "spaces.ConvChain" for what archsmith ships, "module:name" for anything else."""
    module = getattr(thing, "__module__", "?")
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    parts = module.split(".")
    if parts[0] == "archsmith" and len(parts) > 1 and "<" not in name:
        return f"{parts[1]}.{name}"
    return f"{module}:{name}"


def from_config(config: Any, resolve: Callable[[str], Any]) -> Any:
    """The value that `to_config` wrote. `resolve` maps a type's name to the class or function, and decides what may
    be made at all: a store from a stranger is data, so it must know only what archsmith ships.

    Raises UsageError when the fields do not fit the class, or the record is nested without end.
    """
    try:
        return _made(config, resolve)
    except RecursionError:
        raise UsageError("the record of a configuration is nested too deep to be one") from None


def _made(config: Any, resolve: Callable[[str], Any]) -> Any:
    if isinstance(config, list):
        return tuple(_made(v, resolve) for v in config)
    if not isinstance(config, Mapping):
        return config
    if "type" not in config:
        return {k: _made(v, resolve) for k, v in config.items()}
    target = resolve(str(config["type"]))
    if not isinstance(target, type):
        return target
    fields = {k: _made(v, resolve) for k, v in config.items() if k != "type"}
    known = {f.name for f in dataclasses.fields(target)} if dataclasses.is_dataclass(target) else set()
    if unknown := sorted(set(fields) - known):
        raise UsageError(f"{config['type']} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
    try:
        return target(**fields)
    except TypeError as error:
        raise UsageError(f"cannot make {config['type']} from its record: {error}") from None
