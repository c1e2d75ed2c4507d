"""Rules that stop hopeless children early, so that the time goes to the others. One algorithm, one file.

    smith.search(space, evaluator, stopping=smith.stopping.ASHA())

Off by default. Loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.stopping.asha import ASHA
    from archsmith.stopping.median import Median

__all__ = ["ASHA", "Median"]

_HOME = {"ASHA": "asha", "Median": "median"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"archsmith.stopping.{_HOME[name]}"), name)
    raise AttributeError(f"module 'archsmith.stopping' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
