"""Frozen dataclasses as JSON and back: how a run remembers what it is a search of."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archsmith.core.checks import python_scalar
from archsmith.core.errors import UsageError

ADDED_LATER = "added later"


def to_config(value: Any) -> Any:
    """Plain JSON for a configuration: a dataclass as `{"type": "spaces.ConvChain", field: ...}`.

    A function is recorded by name ("module:function"), for people to read; only what archsmith ships can be made
    again from the record.
    """
    value = python_scalar(value)
    if isinstance(value, str | int | float | bool | type(None)):
        return value
    if isinstance(value, Mapping):
        return {str(k): to_config(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [to_config(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_config(getattr(value, f.name)) for f in dataclasses.fields(value) if is_recorded(f, value)}
        return {"type": type_name(type(value)), **fields}
    if isinstance(value, functools.partial):
        return {"type": type_name(value.func), "args": to_config(value.args), **to_config(value.keywords)}
    if callable(value):
        return {"type": type_name(value)}
    return {"type": type_name(type(value))}


def added_later(default: Any) -> Any:
    """A dataclass field that older records and genotypes lack. It is not recorded at its default, so that equal configurations
    of earlier versions and of today are equal."""
    return dataclasses.field(default=default, metadata={ADDED_LATER: True})


def is_recorded(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field of a dataclass is part of its record, and of the identity of a space."""
    return field.repr and not (ADDED_LATER in field.metadata and getattr(value, field.name) == field.default)


def type_name(thing: Any) -> str:
    """ "spaces.ConvChain" for what archsmith ships, "module:name" for anything else.

    The module of what was defined in a script is the name under which the script would be imported.
    """
    module = getattr(thing, "__module__", "?")
    if module == "__main__":
        module = _main_name()
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    parts = module.split(".")
    if parts[0] == "archsmith" and len(parts) > 1 and "<" not in name:
        return f"{parts[1]}.{name}"
    return f"{module}:{name}"


def _main_name() -> str:
    """The name by which the module `__main__` would be imported; "__main__" for a notebook or an interactive session."""
    main = sys.modules.get("__main__")
    if (spec := getattr(main, "__spec__", None)) is not None:  # python -m package.module
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if isinstance(file, str) and file.endswith(".py") else "__main__"


def same_config(recorded: Any, given: Any, *, any_module: bool = False) -> bool:
    """Whether two configurations of `to_config` describe the same object.

    A user's function or class is the same if its qualified name and the last part of its module's name are. The module of a
    notebook has no name, so it matches any.

    Args:
        recorded, given: the configurations.
        any_module: whether to ignore the module, since the user may have renamed the file.
    """
    if isinstance(recorded, Mapping) and isinstance(given, Mapping):
        return recorded.keys() == given.keys() and all(
            _same_type(recorded[key], given[key], any_module)
            if key == "type"
            else same_config(recorded[key], given[key], any_module=any_module)
            for key in recorded
        )
    if isinstance(recorded, list | tuple) and isinstance(given, list | tuple):
        return len(recorded) == len(given) and all(
            same_config(one, other, any_module=any_module) for one, other in zip(recorded, given, strict=True)
        )
    return isinstance(recorded, bool) == isinstance(given, bool) and bool(recorded == given)


def own_name(recorded: Any) -> str:
    """The name of a user's function or class in a record: "module:name"."""
    while isinstance(recorded, Mapping):
        inner = recorded.get("function")
        recorded = inner if isinstance(inner, Mapping) else str(recorded.get("type"))
    return str(recorded)[:200]


def _same_type(recorded: Any, given: Any, any_module: bool) -> bool:
    if recorded == given or not isinstance(recorded, str) or not isinstance(given, str):
        return bool(recorded == given)
    (module, colon, name), (other_module, other_colon, other_name) = recorded.partition(":"), given.partition(":")
    if not (colon and other_colon) or name != other_name:
        return False
    last, other_last = module.rpartition(".")[2], other_module.rpartition(".")[2]
    return any_module or "__main__" in (module, other_module) or last == other_last


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
