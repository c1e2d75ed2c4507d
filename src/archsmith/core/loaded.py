"""What evaluators have read from files, handed on to processes that may not see the files.

An evaluator that reads data offers `loaded() -> Mapping[key, value]`: what it has read, under keys of its own that say
what it is. Where it reads, it asks `given(key)` first. An executor carries the values to its workers, where their arrays
may be shared by several processes: nothing may be written to them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

_given: dict[Hashable, Any] = {}


def of(evaluator: object) -> Mapping[Hashable, Any]:
    """What an evaluator has read, or reads now; nothing where it offers nothing. Raises what reading raises."""
    found: Mapping[Hashable, Any] = evaluator.loaded() if hasattr(evaluator, "loaded") else {}
    return found


def give(values: Mapping[Hashable, Any]) -> None:
    """Have `given` find these from here on, and what was given before no more."""
    _given.clear()
    _given.update(values)


def given(key: Hashable) -> Any | None:
    """What this process was given under a key, or None: then it is to be read."""
    return _given.get(key)
