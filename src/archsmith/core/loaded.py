"""The data that evaluators have read from files, for processes that may not see the files.

An evaluator that reads data is a `ReadsData`. Before it reads, it asks `given(key)`. An executor carries the values to its
workers, where several processes may share their arrays: nothing may be written to them. A search pins the values in its own
process, so that all of its children learn from the same data even if a file changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

_along: ContextVar[frozenset[Hashable]] = ContextVar("sent along", default=frozenset())  # it is immutable
_given: dict[Hashable, list[Any]] = {}  # what was given last comes last


@runtime_checkable
class ReadsData(Protocol):
    """An evaluator that reads data from files."""

    def loaded(self) -> Mapping[Hashable, Any]:
        """The data it has read, under keys that identify them."""
        ...


def of(evaluator: object) -> Mapping[Hashable, Any]:
    """The data of an evaluator, which are read if they were not; empty for one that reads none. Raises what reading raises."""
    return evaluator.loaded() if isinstance(evaluator, ReadsData) else {}


def give(values: Mapping[Hashable, Any]) -> None:
    """Install values for `given`, in place of all earlier ones."""
    _given.clear()
    _given.update({key: [value] for key, value in values.items()})


@contextmanager
def sent_along(values: Mapping[Hashable, Any]) -> Iterator[None]:
    """Declare that these values are sent separately, so that what is pickled in the block need not contain them."""
    token = _along.set(frozenset(values))
    try:
        yield
    finally:
        _along.reset(token)


def is_sent_along(key: Hashable) -> bool:
    """Whether the value of a key is sent separately to the other process."""
    return key in _along.get()


def pinned(evaluator: object) -> AbstractContextManager[None]:
    """Install the data of an evaluator until the block ends. Raises what reading raises."""
    return installed(of(evaluator))


@contextmanager
def installed(values: Mapping[Hashable, Any]) -> Iterator[None]:
    """Install values for `given` until the block ends. They hide earlier ones of the same keys."""
    for key, value in values.items():
        _given.setdefault(key, []).append(value)
    try:
        yield
    finally:
        for key, value in values.items():
            left = _given.get(key, [])
            at = next((k for k in reversed(range(len(left))) if left[k] is value), None)
            if at is not None:
                del left[at]
            if not left:
                _given.pop(key, None)


def given(key: Hashable) -> Any | None:
    """The installed value of a key, or None: then the caller must read it."""
    values = _given.get(key)
    return values[-1] if values else None
