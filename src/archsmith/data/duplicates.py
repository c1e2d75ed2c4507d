"""Duplicate images: copies within a split, across the splits, and with different labels."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from archsmith.data.images import Bytes, ImageData, Labels

_NAMED = 3  # examples of copies under another class


def identities(images: Bytes) -> NDArray[np.uint64]:
    """A number for each image, made from its pixels: equal for copies, different otherwise."""
    digests = b"".join(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(digests, np.uint64)


def remarks_on(
    data: ImageData, learned: Labels, validation: Labels, test_images: Bytes, test_labels: Labels
) -> list[str]:
    """Remarks about copies, with a warning for those that make an accuracy too high.

    Args:
        data: the data set.
        learned: positions of the images that may be learned from, in training and in validation.
        validation: positions of those that are validated with.
        test_images, test_labels: the test split.
    """
    known, tested = identities(data.images), identities(test_images)
    remarks = []
    if shared := int(np.isin(tested, known[learned]).sum()):
        remarks.append(
            f"{shared:,} of the {len(tested):,} test images of {data.name} are also among those learned from"
        )
        warnings.warn(f"{remarks[-1]}; they make the test accuracy too high", stacklevel=3)
    train = np.setdiff1d(learned, validation)
    if shared := int(np.isin(known[validation], known[train]).sum()):
        remarks.append(
            f"{shared:,} of the {len(validation):,} validation images of {data.name} are also among those trained on"
        )
        if data.validation is not None:
            warnings.warn(f"{remarks[-1]}; they make the validation accuracy too high", stacklevel=3)
    for images, what in ((known[learned], "images learned from"), (tested, "test images")):
        if copies := len(images) - len(np.unique(images)):
            remarks.append(f"{copies:,} of the {len(images):,} {what} of {data.name} are exact copies of others")
    everything = np.concatenate([known[learned], tested])
    contradicting = _contradicting(everything, np.concatenate([data.labels[learned], test_labels]))
    if contradicting:
        count = sum(map(len, contradicting))
        remarks.append(
            f"{count:,} images of {data.name} have exact copies in another class"
            + _examples(data, learned, contradicting)
        )
        warnings.warn(f"{remarks[-1]}; no classifier can tell these apart: correct their labels", stacklevel=3)
    return remarks


def _contradicting(images: NDArray[np.uint64], labels: Labels) -> list[list[int]]:
    """Positions of copies with different labels, grouped by image."""
    pairs = np.unique(np.stack([images, labels.astype(np.uint64)], 1), axis=0)
    seen, counts = np.unique(pairs[:, 0], return_counts=True)
    groups: dict[int, list[int]] = defaultdict(list)
    for position in np.flatnonzero(np.isin(images, seen[counts > 1])).tolist():
        groups[int(images[position])].append(position)
    return list(groups.values())


def _examples(data: ImageData, learned: Labels, groups: Sequence[Sequence[int]]) -> str:
    """Some of the copies by their file names, if these are known."""
    files = [data.files[k] for k in learned.tolist()] + list(data.test_files) if data.files else []
    listed = [" and ".join(files[k] for k in group[:2]) for group in groups[:_NAMED] if max(group[:2]) < len(files)]
    more = " ..." if len(groups) > _NAMED else ""
    return f" ({'; '.join(listed)}{more})" if listed else ""
