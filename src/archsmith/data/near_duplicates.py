"""Finds pictures that are the same photograph, also scaled, compressed anew, lit otherwise or mirrored.

A picture is compared with the one that is closest to it at 8 x 8 pixels, by the correlation of their texture: their differences from
the mean of their neighbours at 16 x 16 pixels. Two photographs of similar things have similar shapes and different textures.
Where all pictures of a data set are alike, such as silhouettes of clothes, only what is closer than is usual there is the same.
About half of the copies of which 3 % are cut off at each side are found, and none that are turned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archsmith.data.images import Bytes, Labels

SAME = 0.8  # correlation of the textures of two copies, at least
USUAL = 4.0  # robust standard deviations above the usual correlation of neighbours
COARSE, FINE = 8, 16  # pixels a side
STRUCTURE = 2.0  # grey levels by which the parts of a picture deviate, at least
TEXTURE = 0.5  # the same, of its texture
_SAMPLE = 1000  # pictures that tell what is usual
_BLOCK = 512

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What pictures are compared by; 0 for those without structure, which are like no other.

    Args:
        shapes: [pictures, height, width] at 8 x 8 pixels or fewer, with mean 0 and length 1.
        textures: the same of their texture at 16 x 16 pixels or fewer.
    """

    shapes: Floats
    textures: Floats

    def __len__(self) -> int:
        return len(self.shapes)

    def mirrored(self) -> Fingerprints:
        """Those of the pictures' mirror images."""
        return Fingerprints(self.shapes[:, :, ::-1], self.textures[:, :, ::-1])


def fingerprints(images: Bytes, positions: Labels | None = None) -> Fingerprints:
    """The fingerprints of images [count, height, width, channels], or of those at some positions."""
    positions = np.arange(len(images)) if positions is None else positions
    height, width = images.shape[1:3]
    fine, coarse = (min(FINE, height), min(FINE, width)), (min(COARSE, height), min(COARSE, width))
    shapes, textures = np.empty((len(positions), *coarse), np.float32), np.empty((len(positions), *fine), np.float32)
    for start in range(0, len(positions), _BLOCK):  # all at once may be more than the memory holds
        part = slice(start, start + _BLOCK)
        grey = images[positions[part]].mean(3, dtype=np.float32)
        small = _reduced(grey, fine)
        around = np.pad(small, ((0, 0), (1, 1), (1, 1)), "reflect", reflect_type="odd")  # slopes are no texture
        neighbours = around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
        shapes[part] = _unit(_reduced(grey, coarse), STRUCTURE)
        textures[part] = _unit(np.asarray(small - neighbours / 4, np.float32), TEXTURE)
    return Fingerprints(shapes, textures)


def near_duplicates(images_a: Bytes | Fingerprints, images_b: Bytes | Fingerprints) -> list[tuple[int, int, float]]:
    """The pairs of pictures that are the same, or nearly: a position in `a`, one in `b`, and their likeness, from 0.8 to 1.

    Each picture of `b` is in one pair at most, with the picture of `a` that is closest to it. Equal pictures are among them.

    Args:
        images_a, images_b: uint8 [count, height, width, channels], or their fingerprints.
    """
    a, b = (each if isinstance(each, Fingerprints) else fingerprints(each) for each in (images_a, images_b))
    if not len(a) or not len(b):
        return []
    likeness, closest = np.full(len(b), -1, np.float32), np.zeros(len(b), np.int64)
    for turned in (b, b.mirrored()):
        for start in range(0, len(b), _BLOCK):
            part = slice(start, start + _BLOCK)
            nearest = (_flat(turned.shapes[part]) @ _flat(a.shapes).T).argmax(1)
            alike = (turned.textures[part] * a.textures[nearest]).sum((1, 2))
            better = alike > likeness[part]
            likeness[part], closest[part] = (
                np.where(better, alike, likeness[part]),
                np.where(better, nearest, closest[part]),
            )
    least = max(SAME, min(_least(a), _least(b)))
    return [(int(closest[k]), k, min(1.0, float(likeness[k]))) for k in np.flatnonzero(likeness >= least).tolist()]


def _least(prints: Fingerprints) -> float:
    """The correlation from which pictures of a data set are more alike than neighbours in it usually are."""
    if len(prints) < 2:
        return SAME
    chosen = np.linspace(0, len(prints) - 1, min(len(prints), _SAMPLE)).astype(np.int64)
    products = _flat(prints.shapes[chosen]) @ _flat(prints.shapes).T
    products[np.arange(len(chosen)), chosen] = -np.inf
    alike = (prints.textures[chosen] * prints.textures[products.argmax(1)]).sum((1, 2))
    normal = np.arctanh(np.clip(alike, -0.999, 0.999))  # Fisher's transformation
    usual = np.median(normal)
    return float(np.tanh(usual + USUAL * 1.4826 * np.median(np.abs(normal - usual))))


def _flat(rows: Floats) -> Floats:
    return rows.reshape(len(rows), -1)


def _unit(rows: Floats, least: float) -> Floats:
    """Each moved to mean 0 and scaled to length 1; 0 where it deviates too little."""
    moved = rows - rows.mean((1, 2), keepdims=True)
    length = np.sqrt((moved**2).sum((1, 2), keepdims=True))
    enough = length >= least * np.sqrt(moved[0].size)
    scaled: Floats = np.where(enough, moved / np.maximum(length, 1e-6), 0)
    return scaled


def _reduced(grey: Floats, size: tuple[int, int]) -> Floats:
    """Pictures [count, height, width] reduced by the means of areas."""
    rows, columns = (_areas(have, want) for have, want in zip(grey.shape[1:], size, strict=True))
    return np.asarray(rows @ grey @ columns.T, np.float32)


def _areas(have: int, want: int) -> Floats:
    """The matrix that averages `have` pixels to `want`."""
    edges, pixel = np.linspace(0, have, want + 1), np.arange(have)
    share = np.clip(np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel), 0, None)
    return np.asarray(share / share.sum(1, keepdims=True), np.float32)
