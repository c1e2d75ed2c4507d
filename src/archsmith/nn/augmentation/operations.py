"""The 16 operations of AutoAugment on whole batches: by the native library (`native`) where it can, else by torch.

For torch the images are grouped by operation, and no image is touched alone. Both give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.shown import shown
from archsmith.nn.augmentation import native
from archsmith.nn.augmentation.colour import BLENDS, autocontrast, blend, equalize, invert, posterize, solarize
from archsmith.nn.augmentation.geometry import AFFINE, LONGEST_SIDE, affine, cut_out, flip_and_move
from archsmith.nn.augmentation.policy import FILL, OPERATIONS

NOTHING = 0
_ORDER = ("", *AFFINE, "Invert", "Solarize", "Posterize", "Equalize", "AutoContrast", *BLENDS, "Cutout")
CODES = {name: code for code, name in enumerate(_ORDER) if name}
"""The numbers of the operations, those of a family beside each other; 0 is no operation."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn for each image of a batch, on the CPU, so that every device sees the same.

    Args:
        code: which operation, of `CODES`, or `NOTHING`; int64 [n].
        magnitude: as `policy.magnitude` has it, with its sign; float64 [n].
        centre: the row and the column of a cutout's middle, int64 [n, 2].
        partner: the image of the batch that SamplePairing mixes in, int64 [n].
    """

    code: Tensor
    magnitude: Tensor
    centre: Tensor
    partner: Tensor


def operate(
    images: Tensor,
    operation: str,
    magnitude: Tensor | float = 0.0,
    where: Tensor | None = None,
    *,
    fill: tuple[int, ...] = FILL,
    centre: Tensor | None = None,
    partner: Tensor | None = None,
) -> Tensor:
    """One operation on a batch: a new tensor of the same shape.

    Args:
        images: uint8 [n, c, h, w], grey or colour, of any size.
        operation: one of `policy.OPERATIONS`.
        magnitude: one number, or one for each image [n]; what it means `policy.magnitude` says.
        where: which images are changed, bool [n]. None: all.
        fill: the colour of what is uncovered or cut out; grey images have its luma.
        centre: of Cutout, int64 [n, 2]. None: the middle.
        partner: of SamplePairing, int64 [n]. None: the next image.

    Raises UsageError for other images, or magnitudes that the operation does not have.
    """
    check_images(images)
    if operation not in OPERATIONS:
        raise UnknownName("augmentation operation", str(operation)[:80], OPERATIONS)
    count = len(images)
    given = torch.as_tensor(magnitude, dtype=torch.float64, device="cpu").expand(count)
    _check_magnitude(operation, given)
    fires = torch.ones(count, dtype=torch.bool) if where is None else where.cpu()
    middle = torch.tensor([[images.shape[2] // 2, images.shape[3] // 2]]).expand(count, 2)
    drawn = Drawn(
        code=torch.where(fires, CODES[operation], NOTHING),
        magnitude=given,
        centre=middle if centre is None else centre.cpu(),
        partner=(torch.arange(count) + 1) % max(count, 1) if partner is None else partner.cpu(),
    )
    changed = images.clone(memory_format=torch.contiguous_format)
    operate_(changed, drawn, images, fill_of(fill, images))
    return changed


def operate_(images: Tensor, drawn: Drawn, others: Tensor, fill: Tensor) -> None:
    """Each image of a batch with its own operation, in place.

    Args:
        images: uint8 [n, c, h, w], contiguous.
        others: the batch that partners are taken from; not `images` itself where one is mixed in.
        fill: uint8 [c], where the images are.
    """
    if native.augment_(images, drawn.code, drawn.magnitude, drawn.centre, drawn.partner, others, fill):
        return
    code, order = torch.sort(drawn.code, stable=True)
    counts = torch.bincount(code, minlength=len(_ORDER)).tolist()
    if counts[NOTHING] == len(order):
        return
    device = images.device
    code, magnitude = code.to(device), drawn.magnitude.index_select(0, order).to(device)
    picked = images.index_select(0, order.to(device))
    # What is computed on the way fits into a processor's cache, and its memory is used again and again.
    most = max(1, _AT_ONCE // images[0].numel()) if device.type == "cpu" else len(order)
    stop = counts[NOTHING]
    for name, count in _groups(counts):
        begin, stop = stop, stop + count
        for start in range(begin, stop, most):
            part = slice(start, min(start + most, stop))
            group, amount = picked[part], magnitude[part]
            if name in AFFINE:
                group.copy_(affine(group, code[part] - CODES[AFFINE[0]], amount, fill))
            elif name in _PLAIN:
                group.copy_(_PLAIN[name](group))
            elif name in _BY_AMOUNT:
                group.copy_(_BY_AMOUNT[name](group, amount))
            elif name == "Cutout":
                group.copy_(cut_out(group, amount.to(torch.int64), drawn.centre[order[part]].to(device), fill))
            else:
                paired = name == "SamplePairing"
                mixed_in = others.index_select(0, drawn.partner[order[part]].to(device)) if paired else None
                group.copy_(blend(group, name, amount, mixed_in))
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    torch.index_select(picked, 0, back.to(device), out=images)


_AT_ONCE = 1 << 18  # values of images that are computed with at once
_PLAIN = {"Invert": invert, "Equalize": equalize, "AutoContrast": autocontrast}
_BY_AMOUNT = {"Solarize": solarize, "Posterize": posterize}


def move_(images: Tensor, mirrored: Tensor, down: Tensor, right: Tensor, fill: Tensor) -> None:
    """As `geometry.flip_and_move`, in place; what was drawn is on the CPU."""
    code = native.MOVED + mirrored.to(torch.int64)
    nothing, none = torch.zeros(len(images), dtype=torch.float64), torch.zeros_like(code)
    if not native.augment_(images, code, nothing, torch.stack([down, right], 1), none, images, fill):
        to = images.device
        images.copy_(flip_and_move(images, mirrored.to(to), down.to(to), right.to(to), fill))


def _groups(counts: list[int]) -> list[tuple[str, int]]:
    """The operations that are there, with their numbers of images, in the order of their codes; `AFFINE` is one group."""
    geometry = sum(counts[CODES[name]] for name in AFFINE)
    rest = [(name, counts[code]) for name, code in CODES.items() if name not in AFFINE]
    return [(name, count) for name, count in [(AFFINE[0], geometry), *rest] if count]


def fill_of(fill: tuple[int, ...], images: Tensor) -> Tensor:
    """The colour, uint8 [c], on the images' device; of grey images its luma."""
    if images.shape[1] == 1 and len(fill) == 3:
        fill = ((fill[0] * 19595 + fill[1] * 38470 + fill[2] * 7471 + 32768) >> 16,)
    return torch.tensor(fill, dtype=torch.uint8, device=images.device)


def check_images(images: object) -> None:
    """Raise UsageError unless these are bytes [n, c, h, w] of grey or colour images."""
    if not isinstance(images, Tensor):
        raise UsageError(f"a batch of images is a tensor of bytes, got {type(images).__name__}")
    if images.dtype != torch.uint8:
        more = (
            "; of floats from 0 to 1 these are images.mul(255).round().to(torch.uint8)"
            if images.is_floating_point()
            else ""
        )
        raise UsageError(f"the operations are defined on bytes (torch.uint8), got {images.dtype}{more}")
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise UsageError(
            f"a batch is [count, channels, height, width] with 1 channel (grey) or 3 (colour), got {tuple(images.shape)}"
        )
    if min(images.shape[2:]) < 1 or max(images.shape[2:]) > LONGEST_SIDE:
        raise UsageError(f"an image has 1 to {LONGEST_SIDE:,} pixels a side, got {tuple(images.shape[2:])}")


_ALLOWED = {
    "ShearX": (-1, 1), "ShearY": (-1, 1), "Rotate": (-45, 45), "Solarize": (0, 256), "Posterize": (1, 8),
    "TranslateX": (-LONGEST_SIDE, LONGEST_SIDE), "TranslateY": (-LONGEST_SIDE, LONGEST_SIDE), "Cutout": (0, LONGEST_SIDE),
    **dict.fromkeys(BLENDS, (-1e6, 1e6)),
}  # fmt: skip
_WHOLE = ("TranslateX", "TranslateY", "Posterize", "Cutout")


def _check_magnitude(operation: str, magnitude: Tensor) -> None:
    if operation not in _ALLOWED or not len(magnitude):
        return
    low, high = _ALLOWED[operation]
    bad = ~((magnitude >= low) & (magnitude <= high))
    if operation in _WHOLE:
        bad |= magnitude != magnitude.floor()
    if bad.any():
        what = "whole numbers" if operation in _WHOLE else "numbers"
        raise UsageError(
            f"magnitudes of {operation} are {what} from {low:g} to {high:g}, got {shown(float(magnitude[bad][0]))}"
        )
