"""Whitening, enlarging, and random crops and flips of whole batches (Zoph and Le 2017, section 4.1).

Batches are [count, height, width, channels]: gathering rows of channels is fast, and the permuted view that a network
is given is channels-last in memory for nothing. No image is touched one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def whiten(images: Tensor) -> Tensor:
    """Float images with each its own mean 0 and standard deviation 1 (over all pixels and channels).

    The deviation is taken to be at least one grey level in 255 over the square root of the number of values, so that a
    blank image becomes zeros. Which whitening the paper means it does not say; this is per-image standardisation.
    """
    values = images.flatten(1)
    deviation, mean = torch.std_mean(values, dim=1, correction=0, keepdim=True)
    least = 1.0 / (255.0 * values.shape[1] ** 0.5)
    return ((values - mean) / deviation.clamp_min(least)).view_as(images)


def enlarge(images: Tensor, factor: float) -> Tensor:
    """Images with round(factor * side) pixels a side, interpolated bilinearly; 1.25 takes 32 to 40."""
    if factor == 1.0:
        return images
    height, width = (round(factor * side) for side in images.shape[1:3])
    planes = images.permute(0, 3, 1, 2)
    larger = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)
    return larger.permute(0, 2, 3, 1).contiguous()


def as_floats(images: Tensor, *, whitened: bool, upsample: float) -> Tensor:
    """Bytes 0 to 255 as the floats a network learns from, still uncropped: scaled to 0..1, whitened, enlarged."""
    return from_unit(images.to(torch.float32) / 255.0, whitened=whitened, upsample=upsample)


def from_unit(images: Tensor, *, whitened: bool, upsample: float) -> Tensor:
    """The same from floats 0 to 1."""
    return enlarge(whiten(images) if whitened else images, upsample)


def centre_crop(images: Tensor, height: int, width: int) -> Tensor:
    """The middle of each image."""
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def gather_crops(
    images: Tensor, chosen: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: tuple[int, int]
) -> Tensor:
    """Of the images at positions `chosen`, the windows of `size` at (top, left), mirrored where `mirrored` says so.

    One gather does the choosing, the cropping and the flipping. All index tensors are [count]; `mirrored` is boolean.
    """
    height, width = size
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + left[:, None]
    rows = torch.arange(height, device=images.device) + top[:, None]
    places = ((chosen[:, None] * images.shape[1] + rows) * images.shape[2])[:, :, None] + columns[:, None, :]
    return (
        images.reshape(-1, images.shape[3])[places] if images.shape[3] > 1 else images.reshape(-1)[places].unsqueeze(-1)
    )


def preprocess(images: Tensor, preprocessing: Mapping[str, Any]) -> Tensor:
    """Bytes [count, height, width, channels] as what a trained network is given: floats [count, channels, height, width].

    What validation and test do, and so what `predict` must: `preprocessing` is `ImageClassification.preprocessing`.
    """
    floats = as_floats(images, whitened=preprocessing["whiten"], upsample=preprocessing["upsample"])
    return centre_crop(floats, preprocessing["height"], preprocessing["width"]).permute(0, 3, 1, 2)
