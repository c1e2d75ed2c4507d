"""Spaces inside a space: distinct names for them, and a `choose` that prefixes every choice with such a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import TypeVar

from archsmith.core.space import Space, identity
from archsmith.core.walk import Choose, kind_of

T = TypeVar("T")


def distinct_names(spaces: Sequence[Space]) -> tuple[str, ...]:
    """The name of each space, with a number if an earlier one has the same."""
    kinds = [str(identity(space)["name"]) for space in spaces]
    names: list[str] = []
    for kind in kinds:
        numbered = (f"{kind}{number}" for number in count(2))
        names.append(kind if kind not in names else next(name for name in numbered if name not in (*names, *kinds)))
    return tuple(names)


class Prefixed:
    """`choose` for one of the spaces: names and kinds begin with the space's name, so that a controller learns separately for
    each space."""

    def __init__(self, choose: Choose, prefix: str) -> None:
        self._choose, self._prefix = choose, prefix

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        return self._choose(f"{self._prefix}.{name}", options, kind=f"{self._prefix}.{kind or kind_of(name)}")

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        return self._choose.subset(f"{self._prefix}.{name}", options, kind=f"{self._prefix}.{kind or kind_of(name)}")
