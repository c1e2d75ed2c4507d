"""The former name of `archsmith.data.image_folder`."""

from __future__ import annotations

import warnings
from typing import Any

from archsmith.data import image_folder


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "archsmith.training.image_folder is now archsmith.data.image_folder", DeprecationWarning, stacklevel=2
    )
    return getattr(image_folder, name)
