"""Random crops, colours and mixtures of whole batches, without touching single images.

All draws come from one `torch.Generator` on the CPU, always equally many for a batch of the same size, so that a seed gives
the same pictures on every device. Each function returns a new tensor.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.nn.augmentation.operations import CODES, NOTHING, Drawn, check_images, fill_of, operate_
from archsmith.nn.augmentation.policy import FILL, LEVELS, OPERATIONS, magnitude

ASPECTS = (3 / 4, 4 / 3)
"""The range of a random crop's width over its height (Szegedy et al. 2015, "Going Deeper with Convolutions")."""

TURN, SCALE, MOVE = math.pi / 18, 0.15, 0.1
"""How far an affine view is turned, scaled, and moved as a part of the sides, at most."""

_LUMA = (0.299, 0.587, 0.114)
_AT_ONCE = 1 << 18  # values that a thread resizes at once: what is computed on the way fits into its cache


def resized_crops(images: Tensor, size: int, *, area: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Random resized crops (Szegedy et al. 2015): each image's own part, resized bilinearly to `size` pixels a side.

    A crop is axis-aligned, so rows are interpolated first, then columns. That takes about half the time of `grid_sample`,
    whose values it gives. Images of more than twice `size` are first reduced to that, against aliasing.

    Args:
        images: uint8 [n, channels, height, width], in any memory format.
        size: pixels a side of the crops.
        area: the smallest part of the image's area that a crop has. The part is uniform in `area`..1, the width over the height
            log-uniform in `ASPECTS` as far as the crop fits into the image. 1: the whole image.
        flip: whether half of the crops are mirrored.

    Returns float32 [n, channels, size, size], values 0 to 1.

    Raises UsageError for other images, sizes or areas.
    """
    check_images(images)
    if size < 1:
        raise UsageError(f"the size of random crops must be at least 1 pixel, got {shown(size)}")
    if not 0 < area <= 1:
        raise UsageError(f"the area of random crops must be more than 0 and at most 1, got {shown(area)}")
    luck = torch.rand(5, len(images), generator=generator, dtype=torch.float64)
    source = _reduced(images, size).contiguous()
    height, width = source.shape[2:]
    part = area + (1 - area) * luck[0]
    # A crop fits if its width over its height is at least part * width / height, and at most width / height / part.
    least, most = (part * width / height).log(), (width / height / part).log()
    low, high = (torch.full_like(part, math.log(aspect)).clamp(least, most) for aspect in ASPECTS)
    aspect = torch.exp(low + (high - low) * luck[1])
    across = (part * aspect * height / width).sqrt().clamp(max=1)
    down = (part / aspect * width / height).sqrt().clamp(max=1)
    mirrored = (luck[4] < 0.5) & flip
    row, below = _positions(luck[2] * (1 - down), down, height, size)
    column, right = _positions(luck[3] * (1 - across), across, width, size)
    column, right = (torch.where(mirrored[:, None], own.flip(1), own) for own in (column, right))
    row, below, column, right = (own.to(images.device) for own in (row, below, column, right))
    out = torch.empty(len(images), images.shape[1], size, size, device=images.device)
    fits = torch.get_num_threads() * _AT_ONCE // (images.shape[1] * size * width)
    at_once = max(1, fits if images.device.type == "cpu" else len(images))
    for start in range(0, len(images), at_once):
        some = slice(start, start + at_once)
        _resize(source[some], row[some], below[some], column[some], right[some], out[some])
    return out.mul_(1 / 255)


def affine_views(images: Tensor, size: int, *, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 10 degrees, made up to 15 % larger or smaller and moved by up to a tenth of its sides, resized
    bilinearly to `size` pixels a side. What comes in from outside repeats the edge.

    For things that are always seen at about one size and upright, such as letters, of which a crop may cut off what matters.

    Args:
        images: uint8 [n, channels, height, width].
        size: pixels a side.
        flip: whether half of the images are mirrored.

    Returns float32 [n, channels, size, size], values 0 to 1.

    Raises UsageError for other images or sizes.
    """
    check_images(images)
    if size < 1:
        raise UsageError(f"the size of affine views must be at least 1 pixel, got {shown(size)}")
    luck = torch.rand(5, len(images), generator=generator)
    angle, scale = (2 * luck[0] - 1) * TURN, 1 + (2 * luck[1] - 1) * SCALE
    across, down = 2 * MOVE * (2 * luck[2] - 1), 2 * MOVE * (2 * luck[3] - 1)  # coordinates go from -1 to 1
    sign = torch.where((luck[4] < 0.5) & flip, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack((cos * sign, -sin, across), 1), torch.stack((sin * sign, cos, down), 1)
    source = _reduced(images, size).float()
    grid = F.affine_grid(torch.stack(rows, 1).to(source), [*source.shape[:2], size, size], align_corners=False)
    return F.grid_sample(source, grid, padding_mode="border", align_corners=False).mul_(1 / 255)


def _reduced(images: Tensor, size: int) -> Tensor:
    """Images whose smaller side is at most twice `size`, resized as Pillow resizes where it is longer: without aliasing."""
    sides = images.shape[2:]
    shrinks = min(sides) / (2 * size)
    if shrinks <= 1:
        return images
    source = images if images.device.type == "cpu" else images.float()  # only the CPU resizes bytes
    reduced = [round(side / shrinks) for side in sides]
    return F.interpolate(source, reduced, mode="bilinear", antialias=True, align_corners=False)


def _positions(start: Tensor, length: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Where a crop's pixel centres lie between the image's: the lower pixel, int64 [n, size], and how far beyond it."""
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    at = ((start[:, None] + length[:, None] * centres) * side - 0.5).clamp(0, side - 1)
    lower = at.floor().clamp(max=max(side - 2, 0))
    return lower.to(torch.int64), (at - lower).float()


def _resize(images: Tensor, row: Tensor, below: Tensor, column: Tensor, right: Tensor, out: Tensor) -> None:
    count, channels, height, width = images.shape
    size = out.shape[2]
    rows = (
        torch.arange(count * channels, device=images.device).view(count, channels, 1) * height + row[:, None]
    ).flatten()
    flat = images.view(-1, width)
    upper, lower = flat.index_select(0, rows).float(), flat.index_select(0, rows + (height > 1)).float()
    upper.lerp_(lower, below[:, None].expand(count, channels, size).reshape(-1, 1))
    lines, columns = upper.view(count, channels * size, width), column[:, None].expand(count, channels * size, size)
    left = lines.gather(2, columns)
    left.lerp_(lines.gather(2, columns + (width > 1)), right[:, None])
    out.copy_(left.view_as(out))


def colour_jitter(images: Tensor, strength: float, *, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each times an own factor of 1 - `strength` to 1 + `strength` for each image.

    Brightness is changed first, then the contrast about the mean grey, then the saturation about the grey picture. Together
    they are one linear map of a pixel's channels. Values are cut to 0..1 once, at the end. Grey images have no saturation.

    Args:
        images: float [n, channels, height, width], values 0 to 1, one channel or three.
        strength: 0 (nothing changes) to 1.

    Raises UsageError for other images or strengths.
    """
    _check_floats(images)
    if not 0 <= strength <= 1:
        raise UsageError(f"the strength of a colour jitter must be 0 to 1, got {shown(strength)}")
    count, channels = images.shape[:2]
    factors = 1 - strength + 2 * strength * torch.rand(3, count, 1, generator=generator)
    brightness, contrast, saturation = factors.to(images)
    weights = torch.tensor(_LUMA if channels == 3 else (1.0,)).to(images)
    grey = images.mean((2, 3)) @ weights
    same, towards_grey = (brightness * contrast * own for own in (saturation, 1 - saturation))
    mixing = same[..., None] * torch.eye(channels).to(images) + towards_grey[..., None] * weights
    offset = (1 - contrast) * brightness * grey[:, None]
    changed = torch.baddbmm(offset[..., None], mixing, images.flatten(2))
    return changed.clamp_(0, 1).view(images.shape)


def mixup(
    images: Tensor, labels: Tensor, *, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Each image blended with another of the batch (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization").

    One weight is drawn for the batch from Beta(alpha, alpha), as in the authors' code. The loss is
    weight * loss(labels_a) + (1 - weight) * loss(labels_b).

    Returns (images, labels_a, labels_b, weight of labels_a). Raises UsageError for other images, or an alpha that is not positive.
    """
    _check_floats(images)
    weight, partner = _beta(alpha, generator), torch.randperm(len(images), generator=generator).to(images.device)
    return images[partner].lerp_(images, weight), labels, labels[partner.to(labels.device)], weight


def cutmix(
    images: Tensor, labels: Tensor, *, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, float]:
    """A rectangle of each image replaced by that of another (Yun et al. 2019, "CutMix: Regularization Strategy...").

    One rectangle is drawn for the batch, as in the authors' code: its area is 1 minus a weight from Beta(alpha, alpha), its
    middle uniform. What lies outside of the image is cut off, and the weight is the part of the image that stays.

    Returns (images, labels_a, labels_b, weight of labels_a). Raises UsageError for other images, or an alpha that is not positive.
    """
    _check_floats(images)
    height, width = images.shape[2:]
    cut = math.sqrt(1 - _beta(alpha, generator))
    partner, middle = (
        torch.randperm(len(images), generator=generator).to(images.device),
        torch.rand(2, generator=generator),
    )
    (top, bottom), (left, right) = (
        (max(at - half, 0), min(at + half, side))
        for side, at, half in (
            (side, int(place * side), int(cut * side) // 2)
            for side, place in zip((height, width), middle.tolist(), strict=True)
        )
    )
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, labels, labels[partner.to(labels.device)], weight


def _beta(alpha: float, generator: torch.Generator) -> float:
    if not alpha > 0 or math.isinf(alpha):
        raise UsageError(f"alpha of mixup and cutmix must be a positive number, got {shown(alpha)}")
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _check_floats(images: Tensor) -> None:
    if not images.is_floating_point() or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise UsageError(
            "images that are mixed or coloured are floats [count, channels, height, width] with 1 channel (grey) or 3 (colour), "
            f"got {images.dtype} {tuple(images.shape)}"
        )


# --- TrivialAugment ---------------------------------------------------------------------------------------------------

TRIVIAL = (
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "AutoContrast", "Equalize", "Solarize", "Posterize"),
    *("Contrast", "Color", "Brightness", "Sharpness"),
)
"""The operations of TrivialAugment; the fourteenth leaves the image as it is."""

_STRENGTHS = 31


def trivial_augment(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """One operation for each image, uniform over `TRIVIAL` and none, at a uniform strength of 0 to 30.

    Müller & Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", with the ranges of
    AutoAugment's operations (`augmentation.policy.OPERATIONS`). The direction of shears, moves and rotations is random.

    Args:
        images: uint8 [n, channels, height, width], one channel or three.

    Raises UsageError for other images.
    """
    check_images(images)
    count = len(images)
    which = torch.randint(len(TRIVIAL) + 1, (count,), generator=generator)
    strength = torch.randint(_STRENGTHS, (count,), generator=generator)
    turned = torch.rand(count, generator=generator) < 0.5
    codes, magnitudes, signed = _trivial_table(*images.shape[2:])
    amount = magnitudes[which, strength]
    amount = torch.where(turned & signed[which], -amount, amount)
    nowhere = torch.zeros(count, 2, dtype=torch.int64)
    changed = images.clone(memory_format=torch.contiguous_format)
    if count:
        operate_(changed, Drawn(codes[which], amount, nowhere, nowhere[:, 0]), images, fill_of(FILL, images))
    return changed


@lru_cache(maxsize=64)
def _trivial_table(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes and signs [operations], and magnitudes [operations, strengths], for images of that size."""
    levels = [(LEVELS - 1) * k / (_STRENGTHS - 1) for k in range(_STRENGTHS)]
    amounts = [[0.0] * _STRENGTHS] + [[magnitude(name, level, height, width) for level in levels] for name in TRIVIAL]
    codes = torch.tensor([NOTHING, *(CODES[name] for name in TRIVIAL)])
    signed = torch.tensor([False, *(OPERATIONS[name].signed for name in TRIVIAL)])
    return codes, torch.tensor(amounts, dtype=torch.float64), signed
