"""Recognises the split of a data set from a folder's name."""

from __future__ import annotations

import re
from dataclasses import dataclass

TRAIN, VALIDATION, TEST, UNLABELLED = "train", "validation", "test", "unlabelled"

_WORDS = {
    TRAIN: ("train", "training", "trn", "trainval"),
    VALIDATION: ("val", "valid", "validation", "validate", "dev", "devel", "development", "eval", "evaluation"),
    TEST: ("test", "testing", "tst"),
    UNLABELLED: ("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "inference"),
}
_NOT_PICTURES = {
    "mask",
    "masks",
    "label",
    "labels",
    "annotation",
    "annotations",
    "segmentation",
    "segmentations",
    "depth",
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_FILLER = r"(?:sets?|data|images?|imgs?|pics|pictures|photos|split|folder)"
_FILLED = re.compile(rf"{_FILLER}?({'|'.join(_SPLITS)}){_FILLER}?", re.IGNORECASE)
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of train_images, TrainImages and TRAIN-2


@dataclass(frozen=True)
class SplitName:
    """The split that a folder's name stands for.

    Args:
        split: "train", "validation", "test", or "unlabelled" (for predictions).
        word: the part of the name that says so, as written.
    """

    split: str
    word: str


def split_name(name: str) -> SplitName | None:
    """Which split a folder's name stands for, if any: `train`, `VAL`, `images_train`, `test-set`, `seg_pred`, `TestData`.

    `train_val` is for training. A name with any other two, such as `train_test`, stands for none, and so does `train_masks`.
    """
    return None if any(part.lower() in _NOT_PICTURES for part in _PART.findall(name)) else _said(name)


def table_split(name: str) -> SplitName | None:
    """Which split a table's name stands for, if any: `train.csv`, `train_labels.csv`, `annotations-val.tsv`."""
    return _said(name.rpartition("/")[2].rpartition(".")[0])


def _said(name: str) -> SplitName | None:
    found = [SplitName(_SPLITS[m[1].lower()], m[1]) for part in _PART.findall(name) if (m := _FILLED.fullmatch(part))]
    splits = {each.split for each in found}
    if splits <= {TRAIN, VALIDATION} or len(splits) == 1:
        return min(found, key=lambda each: each.split, default=None)  # "train" comes before "validation"
    return next(each for each in found if each.split == UNLABELLED) if UNLABELLED in splits else None
