"""Recognises the arrays of a data set by name: `x_train`, `train_images`, `X_val`, `labels`, `y_test`, ...

Names without a split, such as `images` and `labels`, are for training.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from archsmith.core.errors import DataError

CLASS_NAMES = "class_names"
KEYS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")

_WHATS = {"x": ("x", "images", "image", "data"), "y": ("y", "labels", "label", "targets", "target")}
_PARTS = {
    "train": ("train", "training", ""),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_CLASS_NAMES = ("class_names", "classes", "label_names")


def key_of(name: str) -> str | None:
    """The one of `KEYS` or `CLASS_NAMES` that an array of that name is; None for any other."""
    plain = re.sub(r"[\s._-]+", "_", name.strip().lower())
    if plain in _CLASS_NAMES:
        return CLASS_NAMES
    for what, whats in _WHATS.items():
        for part, parts in _PARTS.items():
            for first in whats:
                for second in parts:
                    spelled = (f"{first}_{second}", f"{second}_{first}") if second else (first,)
                    if plain in (*spelled, f"{first}{second}", f"{second}{first}"):
                        return f"{what}_{part}"
    return None


def by_key(source: str, names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The name of each array that is one of `KEYS` or `CLASS_NAMES`, and the names of the others.

    Raises DataError, which names the arrays of `source`, where one is missing or two are the same.
    """
    found: dict[str, str] = {}
    others = []
    for name in names:
        key = key_of(name)
        if key is None:
            others.append(name)
        elif key in found:
            raise DataError(f"{source} has {found[key]!r} and {name!r}, which are both {_described(key)}; keep one")
        else:
            found[key] = name
    for key in ("x_train", "y_train"):
        if key not in found:
            raise DataError(
                f"{source} has no array {key!r}; it has {', '.join(map(repr, names)) or 'none'}. Save the images as "
                "x_train and their labels as y_train; optionally also x_val, y_val, x_test and y_test"
            )
    for part in ("val", "test"):
        if (f"x_{part}" in found) != (f"y_{part}" in found):
            there, missing = (f"x_{part}", f"y_{part}") if f"x_{part}" in found else (f"y_{part}", f"x_{part}")
            raise DataError(
                f"{source} has only one of x_{part} and y_{part}: {found[there]!r}, and no {missing!r}; give both, or neither"
            )
    return found, others


def _described(key: str) -> str:
    if key == CLASS_NAMES:
        return "the names of the classes"
    part = {"train": "training", "val": "validation", "test": "test"}[key[2:]]
    return f"the {part} {'images' if key[0] == 'x' else 'labels'}"
