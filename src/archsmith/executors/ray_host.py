"""Parts of searchers as Ray actors: a parameter-server shard, a controller replica, each in a process of its own.

See `core.hosting`. Calls of one actor are carried out in the order they were made; what a call gives is handed on as a
reference, so it goes from the actor that made it to the one that needs it without passing through the driver.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cloudpickle

from archsmith.core.hosting import Part, PartLost, Pending
from archsmith.executors.ray_cluster import user_paths


class RayHost:
    """A `core.hosting.Host` on the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._parts: list[_RayPart] = []

    def start(self, make: Callable[..., Any], *args: Any) -> Part:
        """A part in a process of its own, spread over the machines; it takes no CPU of those that children are given."""
        import ray

        kind = ray.remote(_Held)
        # In order, also where an argument of an earlier call is not there yet; a part that died is not started again,
        # since its state would be that of its beginning.
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        actor = kind.options(**options).remote(user_paths(), cloudpickle.dumps((make, args)))
        part = _RayPart(actor, getattr(make, "__name__", type(make).__name__))
        self._parts.append(part)
        return part

    def close(self) -> None:
        """End all parts."""
        while self._parts:
            self._parts.pop().end()


class _Held:
    """The actor: whatever was made, and its methods by name. Where it could not be made, each call raises why."""

    def __init__(self, paths: list[str], making: bytes) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        self._error: Exception | None = None
        try:
            make, args = cloudpickle.loads(making)
            self._thing = make(*args)
        except Exception as error:
            self._error = error

    def call(self, method: str, *args: Any) -> Any:
        if self._error is not None:
            raise self._error
        return getattr(self._thing, method)(*args)


class _RayPending:
    def __init__(self, reference: Any, what: str) -> None:
        self.reference = reference
        self._what = what

    def result(self) -> Any:
        import ray

        try:
            return ray.get(self.reference)
        except ray.exceptions.RayTaskError as error:
            raise _raised(error, self._what) from None
        except ray.exceptions.RayError as error:
            raise PartLost(f"{self._what} is lost with the process it lived in: {error}") from None


def _raised(error: Any, what: str) -> BaseException:
    """What a call raised, as it was raised; a call that was given what is lost is lost as well."""
    import ray

    cause = error.cause
    while isinstance(cause, ray.exceptions.RayTaskError):
        cause = cause.cause
    if isinstance(cause, ray.exceptions.RayError):
        return PartLost(f"{what} was given what is lost: {cause}")
    if not isinstance(cause, Exception):
        return PartLost(f"{what} ended with {cause!r}")
    cause.add_note(str(error))
    return cause


class _RayPart:
    def __init__(self, actor: Any, name: str) -> None:
        self._actor = actor
        self._name = name

    def call(self, method: str, *args: Any) -> Pending:
        if self._actor is None:
            return _Lost(f"{self._name}.{method} was called on a part that was ended")
        for arg in args:
            if isinstance(arg, _Lost):
                return arg
        given = [arg.reference if isinstance(arg, _RayPending) else arg for arg in args]
        return _RayPending(self._actor.call.remote(method, *given), f"{self._name}.{method}")

    def end(self) -> None:
        import ray

        actor, self._actor = self._actor, None  # a call without a connection would have Ray start a cluster
        with suppress(Exception):  # it is gone, or the cluster is
            ray.kill(actor, no_restart=True)


class _Lost:
    def __init__(self, message: str) -> None:
        self._message = message

    def result(self) -> Any:
        raise PartLost(self._message)
