"""How large the pictures of a data set are read, and how large a network sees them: the sides that suit what they show."""

from __future__ import annotations

from dataclasses import replace

from archsmith.data.picture_size import PictureSize, picture_size
from archsmith.training.arrays import Arrays
from archsmith.training.image_classification import ImageClassification

# Pixels a side: pictures that hold no more are shifted, not cropped and resized.
SMALL = 40
# Pixels a side of the pictures in memory, from which crops are cut, and of a network's input.
SOURCE_SIDE, INPUT_SIDE = 128, 80
# What a random part of a picture shows is larger than in the whole, so networks that learn from such parts do better on larger
# pictures (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"): the side of training pictures, as a part of the
# input's. And the side at the beginning of a training, as a part of that.
TRAINING_PART, FIRST_PART = 0.8, 0.5


def size_of(trainer: ImageClassification) -> PictureSize:
    """How large the trainer's pictures are, from a sample of them."""
    if isinstance(trainer.data, Arrays):
        return picture_size(trainer.splits().data)
    labels = None if trainer.labels is None else str(trainer.labels)
    return picture_size(str(trainer.data), labels=labels, label_pattern=trainer.label_pattern)


def sides(own: int, detail: int, asked: int | None = None, *, cropped: bool = True) -> tuple[int, int, int, int]:
    """The sides of source, input, training pictures, and of training pictures at first.

    Args:
        own: the pictures' own side.
        detail: the side that holds all their detail.
        asked: the input's side, if a person has said it.
        cropped: whether networks learn from random parts of the pictures, as of photographs, and not from whole ones.
    """
    useful = min(own, max(detail, 32))
    if asked is None and useful <= SMALL:
        return useful, useful, useful, useful
    size = asked if asked is not None else min(INPUT_SIDE, _step(own))
    if size <= SMALL:
        return size, size, size, size
    training = max(32, _step(TRAINING_PART * size)) if cropped else size
    source = max(size, min(own, round(SOURCE_SIDE / INPUT_SIDE * size)))
    return source, size, training, max(24, _step(FIRST_PART * training))


def with_sides(trainer: ImageClassification, source: int, size: int, training: int, first: int) -> ImageClassification:
    """The trainer with the sides that `sides` gives. A picture is moved by what is added around it, and not enlarged."""
    return replace(
        trainer,
        size=size,
        source_size=source if source != size else None,
        train_size=training if training != size else None,
        first_size=first if first != training else None,
        upsample=1.0,
        pad=0.125,
    )


def _step(side: float) -> int:
    """The nearest multiple of 8 pixels."""
    return max(8, round(side / 8) * 8)
