"""Hosting: where the parts of a searcher live that work side by side, such as parameter-server shards and replicas.

A searcher calls its parts in an order of its own, and the results of calls may be handed on to other calls before they are
there. So what comes out does not depend on where the parts live, nor on how fast they are: in this process each call is
made at once; on a cluster they run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from archsmith.core.errors import ArchsmithError


class PartLost(ArchsmithError):
    """The process of a part ended, and its state with it. Its owner starts another one from the last state it has."""


class Pending(Protocol):
    """What a call will give."""

    def result(self) -> Any:
        """Wait for it. Raises what the call raised, and PartLost when the part, or what it gave, is gone."""
        ...


class Part(Protocol):
    """An object that lives on a host. Calls are carried out one after the other, in the order they were made."""

    def call(self, method: str, *args: Any) -> Pending:
        """Call a method; returns at once. A `Pending` among the arguments is replaced by its result."""
        ...

    def end(self) -> None:
        """End it. Safe to call twice, and when it is gone."""
        ...


@runtime_checkable
class Host(Protocol):
    """Where parts live."""

    def start(self, make: Callable[..., Any], *args: Any) -> Part:
        """Start a part, the object that `make(*args)` gives there; returns at once."""
        ...


@runtime_checkable
class HasHost(Protocol):
    """An executor that can run the parts of a searcher next to the children."""

    @property
    def host(self) -> Host:
        """Where the parts run."""
        ...


class _Given:
    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        return self._value


class _Raised:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self) -> Any:
        raise self._error


class _Here:
    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def call(self, method: str, *args: Any) -> Pending:
        try:
            given = [arg.result() if isinstance(arg, _Given | _Raised) else arg for arg in args]
            return _Given(getattr(self._thing, method)(*given))
        except Exception as error:
            return _Raised(error)

    def end(self) -> None:
        self._thing = None


class Here:
    """This process: each call is carried out at once."""

    def start(self, make: Callable[..., Any], *args: Any) -> Part:
        """The object itself, behind the interface of a part."""
        return _Here(make(*args))
