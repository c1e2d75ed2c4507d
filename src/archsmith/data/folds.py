"""Folds for cross-validation (Stone 1974, "Cross-validatory choice and assessment of statistical predictions"), in proportion to
the classes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from statistics import median

import numpy as np

from archsmith.core.errors import DataError
from archsmith.data.images import ImageSplits, Labels

FEW = 30
"""A class of fewer images to learn from and validate with is small."""

MOST_FOLDS = 5


def folds_for(counts_per_class: Sequence[int]) -> int | None:
    """How many folds to choose networks by; None if a validation split is enough.

    Cross-validation is for data whose classes typically (in the median) have fewer than `FEW` images: 10 % of those are too
    few to compare networks by, and training several times is cheap. It takes 5 folds, or as many as a typical class has
    images. One small class among large ones is no reason: it would change little and cost five times as much.

    Args:
        counts_per_class: the images of each class to learn from and validate with, without the test images.
    """
    if not counts_per_class:
        return None
    typical = median(counts_per_class)
    return max(2, min(MOST_FOLDS, int(typical))) if typical < FEW else None


def stratified_folds(labels: Labels, folds: int, seed: int, among: Labels | None = None) -> list[Labels]:
    """The positions of each fold, ascending. The sizes of the folds differ by at most 1, and so do a class's shares of them.

    A class with fewer items than folds is missing from some. The only item of a class is in no fold, so that every class is
    learned from whatever fold is left out. As in `stratified`, one seed gives one division everywhere.

    Args:
        labels: of all items.
        folds: how many.
        seed: decides which item is in which fold.
        among: the positions that are divided; None: all.
    """
    pool = np.arange(len(labels)) if among is None else among
    order = pool[np.argsort(np.random.PCG64(seed).random_raw(len(pool)), kind="stable")]
    dealt: list[int] = []  # class by class, so that dealing them in turn gives each fold its share of each
    for label in np.unique(labels[pool]):
        members = order[labels[order] == label]
        dealt += members.tolist() if len(members) > 1 else []
    return [np.array(sorted(dealt[fold::folds]), np.int64) for fold in range(folds)]


def fold_counts(splits: ImageSplits) -> list[int]:
    """The images of each class to learn from and validate with, for `folds_for`."""
    pool = np.concatenate([splits.train, splits.validation])
    counts: list[int] = np.bincount(splits.data.labels[pool], minlength=len(splits.data.class_names)).tolist()
    return counts


@functools.lru_cache(maxsize=16)
def fold_splits(splits: ImageSplits, folds: int, seed: int, fold: int) -> ImageSplits:
    """The splits in which one fold of the training and validation images is validated with, and all others learned from.

    Raises DataError if there are fewer images than folds.
    """
    pool = np.sort(np.concatenate([splits.train, splits.validation]))
    parts = stratified_folds(splits.data.labels, folds, seed, pool)
    if not all(len(part) for part in parts):
        raise DataError(
            f"folds={folds} needs at least as many images to learn from and validate with, and {splits.data.name} has "
            f"{sum(map(len, parts))} in classes of more than one; use fewer folds"
        )
    validation = parts[fold]
    train = np.setdiff1d(pool, validation)
    digest = hashlib.sha256(f"{splits.split_digest} fold {fold} of {folds}, seed {seed}".encode()).hexdigest()
    origin = f"fold {fold + 1} of {folds}, seed {seed}"
    return dataclasses.replace(splits, train=train, validation=validation, split_digest=digest, validation_split=origin)
