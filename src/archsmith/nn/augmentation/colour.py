"""What changes colours and leaves pixels where they are: AutoContrast, Equalize, Invert, Solarize, Posterize, and the blends
Contrast, Color, Brightness, Sharpness and SamplePairing.

Equal to Pillow's ImageOps and ImageEnhance to the bit, their rounding and clipping included.
"""

from __future__ import annotations

import torch
from torch import Tensor


def invert(images: Tensor) -> Tensor:
    """ImageOps.invert."""
    return ~images


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """ImageOps.solarize: values not below the threshold, 0 to 256, float64 [n], are inverted."""
    # The sign of a difference, spread over 16 bits: several times faster on bytes than a comparison and a choice.
    least = threshold.ceil().to(torch.int16)[:, None, None, None]
    stays = images.to(torch.int16).sub_(least).bitwise_right_shift_(15).to(torch.uint8)
    return stays.bitwise_not_().bitwise_xor_(images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """ImageOps.posterize: so many upper bits stay, 1 to 8, float64 [n]."""
    mask = (256 - 2 ** (8 - bits)).to(torch.uint8)
    return images & mask[:, None, None, None]


def equalize(images: Tensor) -> Tensor:
    """ImageOps.equalize: each channel of each image so that its values are about equally frequent."""
    places, planes = _places_in_tables(images), images.shape[0] * images.shape[1]
    counts = torch.bincount(places, minlength=planes * 256).view(planes, 256)
    highest = images.reshape(planes, -1).amax(1, keepdim=True).to(torch.int64)
    return _by_tables(images, places, _equalizing(counts, highest))


def autocontrast(images: Tensor) -> Tensor:
    """ImageOps.autocontrast: each channel of each image stretched to 0..255."""
    planes = images.reshape(images.shape[0] * images.shape[1], -1)
    return _by_tables(images, _places_in_tables(images), _contrasting(planes.amin(1), planes.amax(1)))


def _places_in_tables(images: Tensor) -> Tensor:
    """Where each value stands in tables of 256 values, one for each channel of each image: int32, flat."""
    planes = images.shape[0] * images.shape[1]
    start = torch.arange(planes, dtype=torch.int32, device=images.device).mul_(256)
    return images.reshape(planes, -1).to(torch.int32).add_(start[:, None]).view(-1)


def _by_tables(images: Tensor, places: Tensor, tables: Tensor) -> Tensor:
    return tables.view(-1).index_select(0, places).view_as(images)


def _equalizing(counts: Tensor, highest: Tensor) -> Tensor:
    """Tables [planes, 256] from how often each value is there, and the highest value that is there, [planes, 1]."""
    ramp = torch.arange(256, dtype=torch.float64, device=counts.device)
    below = counts.cumsum(1).sub_(counts)
    others = below.gather(1, highest)  # pixels without the highest value
    step = (others // 255).to(torch.float64)
    stays = (step == 0).to(torch.float64)  # too few differ: each value stays
    start = (step / 2).floor() * (1 - stays)
    # Quotients of whole numbers below 2^52: rounding never lifts one to the next whole number.
    table = below.to(torch.float64).mul_(1 - stays).add_(start).addcmul_(stays, ramp).div_(step.clamp_(min=1))
    return table.clamp_(max=255).to(torch.uint8)


def _contrasting(lowest: Tensor, highest: Tensor) -> Tensor:
    """Tables [planes, 256] from the extreme values. In double precision, as Python computes."""
    ramp = torch.arange(256, dtype=torch.float64, device=lowest.device)
    low, span = lowest.to(torch.float64)[:, None], (highest - lowest).to(torch.float64)[:, None]
    # A tensor over a tensor: a number over a tensor is the number times the reciprocal to torch, which rounds twice.
    scale = torch.where(span > 0, torch.full_like(span, 255.0) / span.clamp(min=1), 1.0)
    offset = torch.where(span > 0, -low * scale, 0.0)
    return (ramp * scale).add_(offset).clamp_(0, 255).to(torch.uint8)


# --- blends -----------------------------------------------------------------------------------------------------------

BLENDS = ("Brightness", "Contrast", "Color", "Sharpness", "SamplePairing")


def blend(images: Tensor, name: str, weight: Tensor, others: Tensor | None = None) -> Tensor:
    """Image.blend(first, second, weight) = first + weight (second - first), in single precision, cut to 0..255.

    For all but SamplePairing the second is the image, and the first what it would be without the property: black, its mean
    grey, its grey picture, a smoothed one. SamplePairing goes from the image towards another (Inoue 2018).

    Args:
        images: uint8 [n, c, h, w].
        name: one of `BLENDS`.
        weight: float64 [n]; 1 leaves an image as it is, of SamplePairing 0.
        others: uint8 [n, c, h, w], what SamplePairing mixes in.
    """
    factor, second = weight.to(torch.float32)[:, None, None, None], images.to(torch.float32)
    if name == "Brightness":
        return _cut(second.mul_(factor))
    if name == "Contrast":
        first = _mean_grey(images)
    elif name == "Color":
        first = grey(images).to(torch.float32)
    elif name == "Sharpness":
        first = _smoothed(second)
    else:
        assert others is not None
        first, second = second, others.to(torch.float32)
    return _cut(second.sub_(first).mul_(factor).add_(first))


def _cut(values: Tensor) -> Tensor:
    """Floats as bytes, rounded down. By way of 16 bits, since torch's own conversion takes three times as long."""
    return values.clamp_(0, 255).to(torch.int16).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """The luma of ITU-R 601-2 as Pillow rounds it, int32 [n, 1, h, w]; of grey images themselves."""
    if images.shape[1] == 1:
        return images.to(torch.int32)
    red, green, blue = (images[:, k : k + 1].to(torch.int32) for k in range(3))
    return red.mul_(19595).add_(green.mul_(38470)).add_(blue.mul_(7471)).add_(32768).bitwise_right_shift_(16)


def _mean_grey(images: Tensor) -> Tensor:
    """The mean of the luma, rounded to the nearest whole number, half upwards: float32 [n, 1, 1, 1]."""
    luma = grey(images)
    total = luma.sum((1, 2, 3), keepdim=True, dtype=torch.int64)
    return ((2 * total + luma[0].numel()) // (2 * luma[0].numel())).to(torch.float32)


def _smoothed(images: Tensor) -> Tensor:
    """ImageFilter.SMOOTH of float32 [n, c, h, w]: thirteenths of the neighbours, five of them the pixel's own; the rim stays.

    Pillow leaves images of fewer than 3 pixels a side as they are. A sum of thirteenths is never half way between two
    whole numbers, so that rounding is the same in any order of adding.
    """
    out = images.clone()
    if min(images.shape[2:]) < 3:
        return out
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = images[:, :, 1:-1, 1:-1]
    out[:, :, 1:-1, 1:-1] = around.add_(inner, alpha=4).div_(13).add_(0.5).floor_()
    return out
