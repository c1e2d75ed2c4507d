"""Reads labels from file names, such as `cat.1.jpg` and `dog_23.png`, by a pattern that says which part is the label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from archsmith.core.errors import DataError, UsageError
from archsmith.data.label_csv import folder_splits, labelled_layout
from archsmith.data.layout import Layout, Parts, label_of, path_text
from archsmith.data.split_names import TRAIN, VALIDATION

USUAL = r"^(?P<label>[\W\d]*[^\W\d].*?)[ ._-]*\(?\d+\)?\."
"""A label that contains a letter, followed by a number: `cat.1.jpg`, `golden retriever (7).png`, `dog_23.png`."""

_CLEAR = 0.9  # of the names that must fit the usual pattern for it to be suggested


def checked_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled pattern. Raises UsageError if it is invalid or has no group for the label."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"label_pattern must be a regular expression, got {pattern!r}: {error}") from None
    if "label" not in compiled.groupindex and compiled.groups != 1:
        raise UsageError(
            f"label_pattern must have a group for the label, such as '(?P<label>[a-z]+)', got {pattern!r} with "
            f"{compiled.groups} groups and none of that name"
        )
    return compiled


def layout_by_pattern(pattern: str, paths: Sequence[Parts]) -> Layout:
    """The layout of pictures with labels in their file names, or in their paths if the pattern contains a slash.

    Raises DataError if no name fits.
    """
    compiled = checked_pattern(pattern)
    group: str | int = "label" if "label" in compiled.groupindex else 1
    labels: dict[Parts, str] = {}
    splits, left_out = folder_splits(paths), {}
    for path in paths:
        found = compiled.search("/".join(path) if "/" in pattern else path[-1])
        label = found[group].strip() if found and found[group] else ""
        if label:
            labels[path] = label_of(label)
        elif splits[path] in (TRAIN, VALIDATION):
            left_out[path_text(path)] = "its name does not fit the label pattern"
    if not labels:
        such = f", such as {path_text(paths[0])}" if paths else ""
        raise DataError(f"label_pattern {pattern!r} fits the name of none of the {len(paths):,} pictures{such}")
    others = [path for path in paths if path in labels or splits[path] not in (TRAIN, VALIDATION)]
    return labelled_layout(labels, splits, others, left_out, "the names of the files", "without a label in its name")


def suggestion(paths: Iterable[Parts]) -> str:
    """Advice for pictures that are not in folders of classes, if their names seem to contain labels; else ""."""
    names = [path[-1] for path in paths]
    found = [match["label"].strip() for name in names if (match := re.match(USUAL, name))]
    different = sorted(set(found))
    if len(found) < _CLEAR * max(1, len(names)) or not 2 <= len(different) <= len(found) / 2:
        return ""
    listed = ", ".join(map(repr, different[:3])) + (", ..." if len(different) > 3 else "")
    return (
        f"The file names seem to begin with labels ({listed}): to read those, give label_pattern={USUAL!r} "
        f"(--label-pattern '{USUAL}')"
    )
