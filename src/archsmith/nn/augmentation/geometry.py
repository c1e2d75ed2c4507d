"""Shears, translations, rotations, flips, crops and cutouts of whole batches: which pixel comes from where.

Equal to Pillow's `Image.transform` by an affine matrix with the nearest pixel, which computes in 16.16 fixed point.
"""

from __future__ import annotations

import torch
from torch import Tensor

AFFINE = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
LONGEST_SIDE = 16384  # of an image: beyond about twice that Pillow no longer computes in fixed point


def affine(images: Tensor, operation: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Each image sheared, moved or rotated; what it does not cover has the colour `fill`.

    Args:
        images: uint8 [n, c, h, w].
        operation: which of `AFFINE` for each image, int64 [n].
        magnitude: float64 [n]: a slope, pixels, or degrees anticlockwise.
        fill: uint8 [c].
    """
    height, width = images.shape[2:]
    xin, yin = _sources(_matrices(operation, magnitude, height, width), height, width)
    return pick(images, xin, yin, fill)


def pick(images: Tensor, xin: Tensor, yin: Tensor, fill: Tensor) -> Tensor:
    """The pixels at column `xin` and row `yin`, whole numbers that broadcast to [n, h, w]; outside of the image `fill`.

    The image is given a rim of one pixel of that colour, and places outside become places on the rim.
    """
    count, channels, height, width = images.shape
    rimmed = fill[:, None, None].expand(count, -1, height + 2, width + 2).contiguous()
    rimmed[:, :, 1:-1, 1:-1] = images
    places = yin.clamp(-1, height).add(1).mul(width + 2) + xin.clamp(-1, width).add(1)
    places = places.expand(count, height, width).reshape(count, 1, -1).to(torch.int64)
    return rimmed.view(count, channels, -1).gather(2, places.expand(-1, channels, -1)).view_as(images)


def cut_out(images: Tensor, size: Tensor, centre: Tensor, fill: Tensor) -> Tensor:
    """Each image with a square of `size` pixels a side painted over, as much of it as lies inside (DeVries and Taylor 2017).

    Args:
        size: int64 [n].
        centre: row and column of its middle, int64 [n, 2]; the square begins size // 2 before it.
    """
    covered = []
    for k in (0, 1):
        start = (centre[:, k] - size // 2)[:, None]
        at = torch.arange(images.shape[2 + k], device=images.device)
        covered.append(
            ((at >= start) & (at < start + size[:, None])).view(torch.uint8).neg()
        )  # 255 where it is covered
    mask = (covered[0][:, :, None] & covered[1][:, None])[:, None]
    # Bitwise, which is many times faster on bytes than torch.where.
    return (images & ~mask).bitwise_or_(fill[:, None, None] & mask)


def flip_and_move(images: Tensor, mirrored: Tensor, down: Tensor, right: Tensor, fill: Tensor) -> Tensor:
    """Each image mirrored where `mirrored` (bool [n]) says so, then the window that begins `down` rows and `right` columns
    off, int64 [n]: a crop of the padded image."""
    height, width = images.shape[2:]
    columns = torch.arange(width, device=images.device) + right[:, None]
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    rows = torch.arange(height, device=images.device) + down[:, None]
    return pick(images, columns[:, None, :], rows[:, :, None], fill)


def _matrices(operation: Tensor, magnitude: Tensor, height: int, width: int) -> Tensor:
    """Pillow's (a, b, c, d, e, f), float64 [6, n]: the pixel at (x, y) comes from (a x + b y + c, d x + e y + f)."""
    kinds = torch.arange(5, device=operation.device)[:, None]
    turn, shear_x, shear_y, move_x, move_y = ((operation == kinds) * magnitude).roll(1, 0)
    # As Image.rotate has it, centre and rounding included. Where nothing turns, the angle is 0 and the cosine 1.
    angle = torch.deg2rad(-turn)
    cos, sin = torch.stack([angle.cos(), angle.sin()]).round(decimals=15)
    x, y = width / 2, height / 2
    turned_c, turned_f = (cos * -x + sin * -y) + x, (-sin * -x + cos * -y) + y
    return torch.stack([cos, shear_x + sin, move_x + turned_c, shear_y - sin, cos, move_y + turned_f])


def _sources(matrices: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Column and row of the nearest source pixel, int32 [n, h, w]: of pixel centres, in 16.16 fixed point, rounded down."""
    matrices[2::3].add_(matrices[0::3] * 0.5).add_(matrices[1::3] * 0.5)
    fixed = matrices.mul_(65536.0).add_(0.5).floor_().to(torch.int32)[:, :, None, None]
    x = torch.arange(width, dtype=torch.int32, device=matrices.device)
    y = torch.arange(height, dtype=torch.int32, device=matrices.device)[:, None]
    a, b, c, d, e, f = fixed
    column, row = (a * x) + (b * y + c), (d * x) + (e * y + f)
    return column.bitwise_right_shift_(16), row.bitwise_right_shift_(16)
