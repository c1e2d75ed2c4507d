"""Pickles parts of a job for another process."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle

from archsmith.core.errors import UsageError
from archsmith.core.executor import Job


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle that also sends cached functions which the other process cannot import, with an empty cache."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, functools._lru_cache_wrapper) and not _importable(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    cached: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return cached


def _importable(thing: Any) -> bool:
    """Whether another process can import it by its module and name: not if a script or a notebook defines it."""
    found: Any = sys.modules.get(thing.__module__) if thing.__module__ != "__main__" else None
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


def _dumps(value: Any) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


def fields_of(job: Job, names: Sequence[str]) -> dict[str, object]:
    """Fields of a job by name."""
    return {name: getattr(job, name) for name in names}


def pickled(parts: Mapping[str, object]) -> bytes:
    """The pickled list of parts of a job, given by name. Raises UsageError naming the part that cannot be pickled."""
    try:
        return _dumps([*parts.values()])
    except (Exception, SystemExit):  # a part may say how it is pickled
        for name, part in parts.items():
            try:
                _dumps(part)
            except (Exception, SystemExit) as error:
                raise UsageError(
                    f"the {name} cannot be sent to another process: {error}; leave out what holds a lock, a file or a "
                    "connection, or run with workers=1"
                ) from error
        raise
