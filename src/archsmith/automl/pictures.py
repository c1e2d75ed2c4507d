"""What the pictures are, and the trainer that suits them: how large they are read, and how large a network sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from archsmith.core.errors import UsageError
from archsmith.data.folds import fold_counts, folds_for
from archsmith.data.picture_size import PictureSize
from archsmith.recipes.residual import PictureKind
from archsmith.training import ImageClassification
from archsmith.training.picture_sides import SMALL, sides, with_sides

# Sides of a pretrained network's input that are tried, and bytes that the pictures in memory may have for it.
PRETRAINED_SIDES, MOST_BYTES = (64, 96, 128, 160, 192, 224), 2e9
TESTED_PER_SECOND = 600.0  # pictures, roughly, before anything is measured


@dataclass(frozen=True)
class Pictures:
    """Facts on a data set of pictures, and sizes that follow from them.

    Args:
        train, validation, test: how many there are.
        classes: how many classes.
        channels: 1 or 3.
        own: the pictures' own side in pixels.
        detail: the side that holds all their detail.
        source: the side at which training pictures are held.
        size: the side of a network's input.
        training: the side of training pictures at the end of a training.
        first: the side at its beginning.
        mirrored: whether a mirrored picture shows the same thing, as far as is known.
        sizes: sides of the input that are tried; empty: `size` alone.
        folds: of the cross-validation that compares networks; None: there are enough pictures for a validation split.
    """

    train: int
    validation: int
    test: int
    classes: int
    channels: int
    own: int
    detail: int
    source: int
    size: int
    training: int
    first: int
    mirrored: bool = True
    sizes: tuple[int, ...] = ()
    folds: int | None = None

    @property
    def small(self) -> bool:
        """Whether they are so small that crops would take away too much."""
        return self.size <= SMALL

    @property
    def kind(self) -> PictureKind:
        """What the known networks depend on."""
        return PictureKind(self.train, self.channels, self.small, self.mirrored)

    @property
    def testing_seconds(self) -> float:
        """How long testing takes, about: two networks, and reading the pictures."""
        return 2 * self.test / TESTED_PER_SECOND


def pictures_of(
    trainer: ImageClassification, found: PictureSize, asked: int | None, *, pretrained: bool = False
) -> Pictures:
    """Facts on the trainer's pictures, which are read, and the sizes that follow.

    Args:
        trainer: with the data.
        found: how large they are.
        asked: the side of the input, if a person has said it.
        pretrained: whether the networks have pretrained weights.
    """
    choices: tuple[int, ...] = ()
    if pretrained:
        source, size, choices = pretrained_sides(found.own, found.count, asked)
        training = first = size
    else:
        source, size, training, first = sides(found.own, found.detail, asked, cropped=found.colour)
    read = replace(trainer, size=size, source_size=source if source != size else None)
    splits = read.splits()
    read.test_images()  # reading belongs to the beginning
    if (channels := int(splits.data.images.shape[3])) not in (1, 3):
        raise UsageError(f"auto is for grey or colour pictures, with 1 or 3 channels; these have {channels}")
    return Pictures(
        train=len(splits.train),
        validation=len(splits.validation),
        test=len(splits.test_labels),
        classes=len(splits.data.class_names),
        channels=channels,
        own=found.own,
        detail=found.detail,
        source=source,
        size=size,
        training=training,
        first=first,
        mirrored=splits.data.mirrored_is_same,
        sizes=choices,
        folds=folds_for(fold_counts(splits)),
    )


def trainer_for(trainer: ImageClassification, pictures: Pictures) -> ImageClassification:
    """The trainer with the pictures' sizes. What a genotype does not decide is set here."""
    sized = with_sides(trainer, pictures.source, pictures.size, pictures.training, pictures.first)
    return replace(sized, fixed=("schedule", "warmup_share", "train_size", "first_size"))


def pretrained_sides(own: int, count: int, asked: int | None = None) -> tuple[int, int, tuple[int, ...]]:
    """The side of source and input, and the sides of inputs that are tried.

    Args:
        own: the pictures' own side.
        count: how many there are.
        asked: the input's side, if a person has said it.
    """
    if asked is not None:
        return max(asked, min(own, round(1.2 * asked))), asked, (asked,)
    largest = min(own, PRETRAINED_SIDES[-1], int((MOST_BYTES / (3 * count)) ** 0.5))
    choices = tuple(side for side in PRETRAINED_SIDES if side <= max(largest, PRETRAINED_SIDES[1]))
    return max(largest, choices[-1]), min(128, choices[-1]), choices
