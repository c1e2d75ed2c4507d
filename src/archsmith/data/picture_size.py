"""How large the pictures of a data set are, and how many of their pixels hold detail: what an input size is chosen from.

A picture that was enlarged, blurred or compressed has more pixels than detail. Its spectrum shows it: reducing a picture to m
pixels a side removes the frequencies above m / 2 cycles a side. The detail of a picture is the smallest m that leaves all of
its energy but `SHARE`. Compression and the noise of sensors are no detail: `LEVELS` is their energy after the usual
compression, and what is equally strong at all frequencies is subtracted.
"""

from __future__ import annotations

import os
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn  # type: ignore[import-untyped]  # scikit-learn brings scipy

from archsmith.core.errors import DataError
from archsmith.data.images import Bytes, ImageData, open_data
from archsmith.data.labelling import no_pictures
from archsmith.data.picture_decoding import PictureError, decode_picture, open_picture, resize_arrays, tags_of

LARGEST = 512  # pixels a side; larger pictures are looked at in this size
SHARE = 0.0025  # of a picture's energy may be lost
LEVELS = 2.0  # squared grey levels of 255 that may be lost in any case
QUARTILE = 0.75  # of the pictures hold no more detail than is reported
SAMPLE = 64  # pictures
_PIXELS, _LEAST = 40_000_000, 8  # at most so many pixels are decoded, but so many pictures at least
_GREY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")  # of Pillow
_ORIENTATION = 0x0112  # the tag of EXIF; above 4, height and width are exchanged
_FLAT = 0.2  # of the differences between neighbours may lie inside the blocks of an enlarged pixel
_SMALLEST = 32  # pixels a side of the pictures whose noise is estimated
_MEDIAN_OF_SQUARES = 0.455  # of a normal distribution with variance 1


@dataclass(frozen=True)
class PictureSize:
    """The size of the pictures of a data set.

    Args:
        own: the median of their shorter sides, in pixels, as they are stored.
        detail: how many pixels a side hold their detail, at most 512; see `detail`.
        pictures: how many were looked at.
        count: how many there are.
        colour: whether any of them may have colours.
    """

    own: int
    detail: int
    pictures: int
    count: int
    colour: bool


def picture_size(
    data: str | ImageData, *, labels: str | None = None, label_pattern: str | None = None, seed: int = 0
) -> PictureSize:
    """The size of the pictures of a data set, from a sample of them. It takes about a second.

    Args:
        data: a name, a path, or a data set that was read from arrays. (Pictures read from files have lost their own size.)
        labels, label_pattern: where the labels are; see `ImageClassification`.
        seed: draws the sample.

    Raises UnknownName for an unknown name, and DataError for data that cannot be used.
    """
    source = data if isinstance(data, ImageData) else open_data(data, labels=labels, label_pattern=label_pattern)
    if isinstance(source, ImageData):
        images = source.images[_sample(len(source.images), seed)]
        colour = source.images.shape[3] == 3
        return PictureSize(min(images.shape[1:3]), detail(images), len(images), len(source.images), colour)
    listing, pictures = source.listing, source.layout.pictures
    files = sorted({listing.files[pictures[k].path].source for k in _sample(len(pictures), seed)})
    measured = _measured(read for _, _, read in source.contents(files))
    if not measured:
        if not files:
            raise no_pictures(source.name, listing)
        raise DataError(f"{source.name}: none of the {len(files)} pictures that were tried can be read")
    return PictureSize(
        round(statistics.median(each.side for each in measured)),
        detail([each.grey for each in measured if each.grey is not None]),
        len(measured),
        len(pictures),
        any(each.colour for each in measured),
    )


def _sample(count: int, seed: int) -> NDArray[np.int64]:
    order = np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
    return np.sort(order[:SAMPLE])


@dataclass(frozen=True, eq=False)
class _Measured:
    """A picture: its shorter side, whether it may have colours, and its grey levels; None once enough pixels are decoded."""

    side: int
    colour: bool
    grey: Bytes | None


def _measured(reads: Iterable[Callable[[], bytes]]) -> list[_Measured]:
    """Those pictures that can be read."""
    pixels = 0
    measured: list[_Measured] = []
    waiting: list[Future[_Measured | None]] = []
    # Filters of warnings belong to the whole process, so they are set here and not in the threads. Dark pictures, of which decoding
    # warns, are reported where all are read.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")
        for read in reads:
            try:
                content = read()
                picture = open_picture(content)
            except (OSError, DataError, PictureError):
                continue
            (width, height), fast = picture.size, picture.format in ("JPEG", "MPO")
            turned = tags_of(picture).get(_ORIENTATION, 1) > 4
            scale = min(1.0, LARGEST / min(width, height))
            pixels += int(width * height * (scale if fast else 1))
            side, colour = min(width, height), picture.mode not in _GREY_MODES
            if pixels > _PIXELS and len(waiting) >= _LEAST:
                measured.append(_Measured(side, colour, None))
                continue
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            # Pillow decodes without the interpreter's lock.
            waiting.append(pool.submit(_grey, content, size[::-1] if turned else size, side, colour))
    return [done for each in waiting if (done := each.result()) is not None] + measured


def _grey(content: bytes, size: tuple[int, int], side: int, colour: bool) -> _Measured | None:
    """A picture with its grey levels; None if it cannot be decoded."""
    try:
        return _Measured(side, colour, decode_picture(content, *size, channels=1))
    except PictureError:
        return None


def detail(images: Iterable[Bytes]) -> int:
    """How many pixels a side hold the detail of pictures, from 1 to 512: three quarters of them hold no more.

    Args:
        images: uint8 [height, width, channels] each, of any size; a sample is enough.
    """
    squares = [_central_square(image) for image in images]
    repeated = {side: _blocks([each for each in squares if len(each) == side]) for side in {*map(len, squares)}}
    details = [min(each, repeated[len(square)]) for square in squares if (each := _detail_of(square)) is not None]
    return round(float(np.quantile(details, QUARTILE))) if details else 1


def _central_square(image: Bytes) -> NDArray[np.float32]:
    """The grey levels of the square in the middle, at most 512 pixels a side."""
    if min(image.shape[:2]) > LARGEST:
        image = resize_arrays(image[None], LARGEST, None)[0]
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square: NDArray[np.float32] = image[top : top + side, left : left + side].mean(2, dtype=np.float32)
    return square


def _detail_of(grey: NDArray[np.float32]) -> int | None:
    """The detail of one picture; None for one of a single colour."""
    side = len(grey)
    energies = dctn(grey - grey.mean(), norm="ortho") ** 2
    if energies.sum() < side * side / 12:  # what rounding to whole grey levels leaves
        return None
    frequency = np.maximum(*np.indices(energies.shape))
    by_frequency = np.bincount(frequency.ravel(), energies.ravel(), side)
    if side >= _SMALLEST:
        noise = float(np.median(energies[frequency >= 0.9 * side])) / _MEDIAN_OF_SQUARES
        if noise * side * side > by_frequency.sum() / 2:
            return side  # a picture of noise, if it is one
        by_frequency = by_frequency - noise * np.bincount(frequency.ravel(), minlength=side)
    lost = np.cumsum(by_frequency[::-1])[::-1]
    allowed = max(SHARE * float(lost[0]), LEVELS * side * side)
    return int(np.flatnonzero(lost > allowed)[-1]) + 1 if lost[0] > allowed else 1


def _blocks(squares: Sequence[NDArray[np.float32]]) -> int:
    """The side of the pictures that these were enlarged from by repeating pixels; their own side if they were not."""
    side = len(squares[0])
    changes = sum((np.diff(grey, axis=axis) ** 2).sum(1 - axis) for grey in squares for axis in (0, 1))
    for smaller in range(2, side // 2 + 1):
        inside = np.diff((np.arange(side) + 0.5) * smaller // side) == 0
        if np.sum(changes, where=inside) <= _FLAT * np.sum(changes):
            return smaller
    return side
