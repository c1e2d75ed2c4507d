"""Where the data of `ImageClassification` are: names, paths and arrays, checked before anything is read."""

from __future__ import annotations

import os

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.training.arrays import Arrays
from archsmith.training.settings import located


def located_images(data: object) -> str | Arrays:
    """The data as a name, an absolute path, or `Arrays`. Raises UsageError for anything else."""
    if isinstance(data, Arrays):
        return data
    if isinstance(data, str | os.PathLike):
        return located(os.fspath(data), _is_name)
    from archsmith.training.array_input import arrays_of

    return arrays_of(data)


def _is_name(name: str) -> bool:
    from archsmith.data.images import is_name

    return is_name(name)


def located_labels(labels: object, pattern: object, data: object) -> str | None:
    """The path of the CSV: relative if it is inside the data, so that both can be moved together, else absolute.

    Raises UsageError for anything but a path, and for an invalid pattern.
    """
    for name, value in (("labels", labels), ("label_pattern", pattern)):
        if value is not None and isinstance(data, Arrays):
            raise UsageError(
                f"{name} is for folders and archives of pictures, and data is arrays, which have their labels"
            )
    if labels is not None and pattern is not None:
        raise UsageError("give either labels, a CSV, or label_pattern, for the names of files")
    if pattern is not None:
        from archsmith.data.label_pattern import checked_pattern

        if not isinstance(pattern, str):
            raise UsageError(f"label_pattern must be a regular expression, got {shown(pattern)}")
        checked_pattern(pattern)
    if labels is None:
        return None
    if not isinstance(labels, str | os.PathLike) or not os.fspath(labels):
        raise UsageError(f"labels must be the path of a CSV, got {shown(labels)}")
    path, root = os.path.expanduser(os.fspath(labels)), str(data)
    if not os.path.isfile(path):
        return path
    below = os.path.relpath(os.path.abspath(path), root)
    return os.path.abspath(path) if below.startswith(os.pardir) or not os.path.isdir(root) else below
