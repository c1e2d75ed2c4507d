"""The order of classes: by number if all names are whole numbers, else by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WHOLE = re.compile(r"[+-]?\d+")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The different names, in order: "2" before "10", and "ant" before "bee"."""
    different = set(names)
    if all(_WHOLE.fullmatch(name) for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))
