"""Pictures on the device, and the batches that a training makes of them: whole batches at once, no picture by itself.

Random shifts of pictures that are held as floats are one gather, which chooses, crops and mirrors. Everything else begins with
bytes: a policy, a crop that is resized, colours, and then each picture is standardised. All draws are made on the CPU, so that
every device sees the same batches.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from archsmith.core.child import Child
from archsmith.core.errors import ChildFailed
from archsmith.nn.augment import as_floats, centre_crop, from_unit, gather_crops, whiten
from archsmith.nn.batch_augmentation import affine_views, colour_jitter, cutmix, mixup, resized_crops, trivial_augment

if TYPE_CHECKING:
    from archsmith.data.images import ImageData, ImageSplits
    from archsmith.nn.augmentation.module import AugmentationPolicy
    from archsmith.training.image_classification import ImageClassification

FLOATS_CAP = 1 << 26  # bytes of images that are kept as floats; more are kept as bytes and converted batch by batch
MIXUP_ALPHA = 0.2
CUTMIX_ALPHA = 1.0
_AT_ONCE = 256  # pictures that are resized at once

Sides = tuple[int, int]
"""Height and width."""

Positions = NDArray[np.int64]
"""Which pictures of a data set."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pictures on a device: as floats when they are few, as bytes that become floats batch by batch otherwise.

    Args:
        images: [count, height, width, channels]; floats are whitened, enlarged and padded.
        labels: [count].
        shape: height and width of the uncropped floats.
        whiten: whether each picture is standardised.
        upsample: the factor by which pictures are enlarged.
        pad: rows and columns of zeros on each side.
    """

    images: Tensor
    labels: Tensor
    shape: Sides
    whiten: bool
    upsample: float
    pad: Sides

    def floats(self, images: Tensor) -> Tensor:
        """Uncropped floats of bytes, or floats as they are."""
        if images.dtype != torch.uint8:
            return images
        return self.padded(as_floats(images, whitened=self.whiten, upsample=self.upsample))

    def padded(self, images: Tensor) -> Tensor:
        """The floats within zeros."""
        rows, columns = self.pad
        return F.pad(images, (0, 0, columns, columns, rows, rows)) if any(self.pad) else images

    def crops(self, chosen: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: Sides) -> Tensor:
        """Windows of the pictures at some positions, as `gather_crops` takes them."""
        if self.images.dtype == torch.uint8:
            return self.windows(self.floats(self.images[chosen]), top, left, mirrored, size)
        return gather_crops(self.images, chosen, top, left, mirrored, size)

    def windows(self, floats: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: Sides) -> Tensor:
        """Windows of uncropped floats, one of each."""
        return gather_crops(floats, torch.arange(len(floats), device=floats.device), top, left, mirrored, size)

    def middle(self, positions: Tensor, part: Tensor) -> Tensor:
        """The uncropped floats of a part of some positions."""
        return self.floats(self.images[positions[part]])


@functools.lru_cache(maxsize=2)
def pixels_of(data: ImageData, whiten: bool, upsample: float, pad: float, device: str, as_bytes: bool) -> Pixels:
    """The training pool on a device; `as_bytes` where floats are of no use."""
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    rows, columns = (round(pad * n) for n in images.shape[1:3])
    height, width = round(upsample * images.shape[1]) + 2 * rows, round(upsample * images.shape[2]) + 2 * columns
    pixels = Pixels(images.to(device), labels.to(device), (height, width), whiten, upsample, (rows, columns))
    if as_bytes or len(images) * height * width * images.shape[3] * 4 > FLOATS_CAP:
        return pixels
    return dataclasses.replace(pixels, images=pixels.floats(pixels.images))


@functools.lru_cache(maxsize=2)
def validation_bytes(splits: ImageSplits, size: Sides) -> Tensor:
    """The validation pictures, uint8 [count, height, width, channels], in the size of the network's input."""
    return held_bytes(splits, splits.validation, size)


def held_bytes(splits: ImageSplits, positions: Positions, size: Sides) -> Tensor:
    """Pictures that are held for training and validation, uint8 [count, height, width, channels], resized with antialiasing.

    Args:
        splits: with the data.
        positions: which pictures.
        size: height and width.
    """
    images, at = torch.from_numpy(splits.data.images), torch.from_numpy(positions)
    if images.shape[1:3] == size:
        return images[at]
    parts = [
        F.interpolate(images[part].permute(0, 3, 1, 2), size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
        for part in at.split(_AT_ONCE)  # type: ignore[no-untyped-call]
    ]
    return torch.cat(parts).contiguous()


class TrainingBatches:
    """The training pictures of one training, changed at random as its settings or its child say.

    Args:
        config: the settings.
        child: what is trained; its own augmentation comes in place of the settings' policy, crops, flips and colours.
        splits: the data.
        device: where the batches are wanted.
        draws: the generator of all that is random here, on the CPU.
    """

    def __init__(
        self,
        config: ImageClassification,
        child: Child,
        splits: ImageSplits,
        device: torch.device,
        draws: torch.Generator,
    ) -> None:
        self._config, self._child, self._device, self._draws = config, child, device, draws
        self._moves = config.crop == "shift"
        self._changes_pixels = bool(config.colour or config.policy)
        pad, as_bytes = (config.pad, self._changes_pixels) if self._moves else (0.0, True)
        self.pixels = pixels_of(splits.data, config.whiten, config.enlargement, pad, str(device), as_bytes)
        self._source = torch.from_numpy(splits.data.images)
        self._held: Sides = (splits.data.images.shape[1], splits.data.images.shape[2])
        self._flip = splits.data.mirrored_is_same if config.flip is None else config.flip
        self._policy = _policy_named(config.policy)

    def drawn(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """For each picture of an epoch where its window begins, from the top and from the left, and whether it is mirrored."""
        slack = [self.pixels.shape[k] - self._held[k] for k in (0, 1)]
        top, left = (torch.randint(0, s + 1, (count,), generator=self._draws).to(self._device) for s in slack)
        mirrored = torch.rand(count, generator=self._draws) < 0.5 if self._flip else torch.zeros(count) > 0
        return top, left, mirrored.to(self._device)

    def batch(self, chosen: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: Sides) -> Tensor:
        """The pictures at some positions as the network learns from them: floats [count, channels, height, width].

        `top`, `left` and `mirrored` are a part of what `drawn` gave. Memory is channels-last where the settings have it so.
        """
        if self._child.augmentation is not None:
            images = self._by_child(chosen)
        elif not self._moves:
            images = self._resized(chosen, mirrored, size)
        elif self._changes_pixels:
            floats = self._coloured(self._bytes(chosen).float() / 255)
            unpadded = from_unit(_channels_last(floats), whitened=self._config.whiten, upsample=self._config.upsample)
            images = self.pixels.windows(self.pixels.padded(unpadded), top, left, mirrored, self._held).permute(
                0, 3, 1, 2
            )
        else:
            images = self.pixels.crops(chosen, top, left, mirrored, self._held).permute(0, 3, 1, 2)
        images = _at(images, size)
        layout = torch.channels_last if self._config.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """The batch blended with itself, both labels of each picture, and the weight of the first."""
        blend, alpha = (mixup, MIXUP_ALPHA) if self._config.mix == "mixup" else (cutmix, CUTMIX_ALPHA)
        return blend(images, labels, alpha=alpha, generator=self._draws)

    def _bytes(self, chosen: Tensor) -> Tensor:
        """The pictures as bytes [count, channels, height, width], changed by the policy."""
        images = self.pixels.images[chosen].permute(0, 3, 1, 2)
        if self._config.policy == "trivial":
            return trivial_augment(images, generator=self._draws)
        return images if self._policy is None else self._policy(images, self._draws)

    def _coloured(self, images: Tensor) -> Tensor:
        return colour_jitter(images, self._config.colour, generator=self._draws) if self._config.colour else images

    def _resized(self, chosen: Tensor, mirrored: Tensor, size: Sides) -> Tensor:
        """The whole pictures, random parts of them, or views of them, resized."""
        images = self._bytes(chosen)
        if self._config.crop == "resized":
            area = self._config.crop_area
            floats = resized_crops(images, size[0], area=area, flip=self._flip, generator=self._draws)
        elif self._config.crop == "affine":
            floats = affine_views(images, size[0], flip=self._flip, generator=self._draws)
        else:
            floats = _at(images.float() / 255, size)
            floats = torch.where(mirrored[:, None, None, None], floats.flip(3), floats)
        floats = self._coloured(floats)
        return whiten(floats) if self._config.whiten else floats

    def _by_child(self, chosen: Tensor) -> Tensor:
        """A batch as the child would have it. Its augmentation sees bytes, or pixels from 0 to 1 that are not whitened,
        [count, channels, height, width]."""
        augmentation = self._child.augmentation
        assert augmentation is not None
        raw = self._source[chosen.cpu()].to(self._device).permute(0, 3, 1, 2)
        raw = raw if self._child.augments_bytes else raw.float() / 255.0
        changed = augmentation(raw)
        if changed.shape != raw.shape or changed.dtype != raw.dtype:
            raise ChildFailed(
                f"the child's augmentation turned {tuple(raw.shape)} of {raw.dtype} into {tuple(changed.shape)} of "
                f"{changed.dtype}; the shape must stay, and the type"
            )
        to_floats = as_floats if self._child.augments_bytes else from_unit
        floats = to_floats(_channels_last(changed), whitened=self._config.whiten, upsample=self._config.enlargement)
        return centre_crop(floats, *self._held).permute(0, 3, 1, 2)


def _channels_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)


def _at(images: Tensor, size: Sides) -> Tensor:
    """Floats [count, channels, height, width] at another size, with antialiasing."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


@functools.cache
def _policy_named(name: str | None) -> AugmentationPolicy | None:
    """AutoAugment's policy of that name; None for TrivialAugment and for none."""
    from archsmith.nn.augmentation.autoaugment_tables import TABLES, sub_policies
    from archsmith.nn.augmentation.module import AugmentationPolicy
    from archsmith.nn.augmentation.policy import architecture_of

    table: Any = TABLES.get((name or "").removeprefix("autoaugment_"))
    return None if table is None else AugmentationPolicy(architecture_of(sub_policies(table)))
