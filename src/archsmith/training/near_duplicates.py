"""Finds the same picture in two splits, also where it was changed; `data.near_duplicates` tells which are the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from archsmith.data.duplicates import identities
from archsmith.data.images import Bytes, ImageSplits, Labels
from archsmith.data.near_duplicates import Fingerprints, fingerprints, near_duplicates
from archsmith.metrics.outcome import DuplicatePair

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Split:
    """The pictures of a split: positions in an array of images, with their labels, and files if they are from files."""

    name: str
    images: Bytes
    positions: Labels
    labels: Labels
    files: Sequence[str]

    def blocks(self) -> Iterator[Bytes]:
        """The pictures, some at a time: all at once may be more than the memory holds."""
        for start in range(0, len(self.positions), _BLOCK):
            yield self.images[self.positions[start : start + _BLOCK]]

    def file(self, k: int) -> str:
        """The file of the picture number `k` of the split; empty if there is none."""
        return self.files[self.positions[k]] if self.files else ""

    @functools.cached_property
    def identities(self) -> list[int]:
        """Equal for equal pixels."""
        return [int(identity) for block in self.blocks() for identity in identities(block)]

    @functools.cached_property
    def fingerprints(self) -> Fingerprints:
        """What the pictures are compared by."""
        return fingerprints(self.images, self.positions)


def splits_of(splits: ImageSplits) -> tuple[Split, Split, Split]:
    """Training, validation and test."""
    data, tested = splits.data, np.arange(len(splits.test_labels))
    return (
        Split("training", data.images, splits.train, data.labels, data.files),
        Split("validation", data.images, splits.validation, data.labels, data.files),
        Split("test", splits.test_images, tested, splits.test_labels, splits.test_files),
    )


def duplicates_across(
    splits: ImageSplits, picture: Callable[[Bytes], str] | None = None, most: int = 24
) -> tuple[tuple[DuplicatePair, ...], int]:
    """The pairs of the same picture in two splits, the closest first, at most `most`; and how many there are.

    A picture of the validation or the test split is in one pair with each earlier split at most, with the closest picture there.

    Args:
        splits: the data.
        picture: gives the `data:` address of an image [height, width, channels]; None: pairs have no pictures.
        most: how many pairs are listed.
    """
    train, validation, test = splits_of(splits)
    found = [
        (distance, one, i, other, j)
        for one, other in ((train, test), (validation, test), (train, validation))
        for distance, i, j in _same(one, other)
    ]
    found.sort(key=lambda pair: pair[0])
    pairs = tuple(_pair(*pair, picture) for pair in found[:most])
    return pairs, len(found)


def _pair(
    distance: float, one: Split, i: int, other: Split, j: int, picture: Callable[[Bytes], str] | None
) -> DuplicatePair:
    first, second = one.positions[i], other.positions[j]
    return DuplicatePair(
        first=one.file(i),
        second=other.file(j),
        splits=(one.name, other.name),
        exact=distance < 0,
        same_label=bool(one.labels[first] == other.labels[second]),
        pictures=("", "") if picture is None else (picture(one.images[first]), picture(other.images[second])),
    )


def _same(one: Split, other: Split) -> Iterator[tuple[float, int, int]]:
    """The pictures of `other` that are also in `one`: distance, number there and here; a distance of -1 for equal pixels."""
    if not len(one.positions) or not len(other.positions):
        return
    known = {identity: k for k, identity in reversed(list(enumerate(one.identities)))}
    equal = {j: known[identity] for j, identity in enumerate(other.identities) if identity in known}
    yield from ((-1.0, i, j) for j, i in equal.items())
    for i, j, likeness in near_duplicates(one.fingerprints, other.fingerprints):
        if j not in equal:
            yield 1 - likeness, i, j
