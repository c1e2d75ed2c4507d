"""The former name of `archsmith.data.images`."""

from __future__ import annotations

import warnings
from typing import Any

from archsmith.data import images


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("archsmith.training.data is now archsmith.data.images", DeprecationWarning, stacklevel=2)
    return getattr(images, name)
