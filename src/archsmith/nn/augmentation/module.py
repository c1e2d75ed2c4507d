"""An augmentation as a transform for anybody's PyTorch pipeline: batches of bytes, single images, Pillow's images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture
from archsmith.nn.augmentation.operations import CODES, NOTHING, Drawn, check_images, fill_of, move_, operate_
from archsmith.nn.augmentation.policy import OPERATIONS, check_architecture, magnitude, said

if TYPE_CHECKING:
    from PIL.Image import Image

Images = TypeVar("Images", Tensor, "Image")


class AugmentationPolicy(nn.Module):
    """Flips and crops, then the policy, then a cutout, as an architecture of `policy` has them (Cubuk et al. 2019, section 4.1).

    It takes and gives bytes: a batch uint8 [n, c, h, w], one image uint8 [c, h, w], or a Pillow image of mode L or RGB.
    All of a batch is done at once. What is drawn comes from torch's global generator, which a DataLoader seeds in each of its
    workers, or from the one that is given. Always the same number of draws is made, on the CPU.

    SamplePairing mixes in another image of the batch, as it came, so that a single image is left as it is.

    Args:
        architecture: as `policy.architecture_of` makes it.

    Raises UsageError for what is no architecture of an augmentation.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        check_architecture(architecture)
        self.architecture: dict[str, Any] = dict(architecture)
        self._tables: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def forward(self, images: Images, generator: torch.Generator | None = None) -> Images:
        """New images of the same shape and kind. Raises UsageError for images that are no bytes, or of other modes."""
        if isinstance(images, Tensor):
            single = images.dim() == 3
            batch = images[None] if single else images
            check_images(batch)
            with torch.inference_mode():  # a fifth less of the time of small operations
                changed = self._changed(batch, generator)
            changed = changed.clone()  # a tensor like any other again
            return changed[0] if single else changed
        changed_image: Image = self._of_pillow(images, generator)
        return changed_image

    def _changed(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        count, height, width = len(images), images.shape[2], images.shape[3]
        if not count:
            return images.clone()
        its, fill = self.architecture, fill_of(tuple(self.architecture["fill"]), images)
        out = images.clone(memory_format=torch.contiguous_format)
        if its["flip"] or its["pad"]:
            mirrored = (torch.rand(count, generator=generator) < 0.5) & its["flip"]
            down, right = (_moves(side, its["pad"], count, generator) for side in (height, width))
            move_(out, mirrored, down, right, fill)
        if its["sub_policies"]:
            steps = self._draw(count, height, width, generator)
            pairs = any(bool((drawn.code == CODES["SamplePairing"]).any()) for drawn in steps)
            others = out.clone() if pairs else images
            for drawn in steps:
                operate_(out, drawn, others, fill)
        side = round(its["cutout"] * min(height, width))
        if side:
            code = torch.full((count,), CODES["Cutout"])
            size, centre = torch.full((count,), side, dtype=torch.float64), _places(count, height, width, generator)
            operate_(out, Drawn(code, size, centre, torch.zeros_like(code)), out, fill)
        return out

    def _draw(self, count: int, height: int, width: int, generator: torch.Generator | None) -> list[Drawn]:
        """What is done to each image: the first operation of its sub-policy, the second, ..."""
        codes, probabilities, magnitudes = self._table(height, width)
        which = torch.randint(len(codes), (count,), generator=generator)
        luck = torch.rand(5, count, codes.shape[1], generator=generator, dtype=torch.float64)
        own = codes[which]
        amount = magnitudes[which] * torch.where((luck[1] < 0.5) & _SIGNED[own], -1.0, 1.0)
        own = torch.where(luck[0] < probabilities[which], own, NOTHING)
        centres = torch.stack([luck[2] * height, luck[3] * width], -1).to(torch.int64)
        # Another image than itself, where there is one.
        off = (luck[4] * max(count - 1, 1)).to(torch.int64) + 1
        partners = (torch.arange(count)[:, None] + off) % count
        return [Drawn(own[:, k], amount[:, k], centres[:, k], partners[:, k]) for k in range(codes.shape[1])]

    def _table(self, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, probabilities and magnitudes [sub-policies, operations] for images of that size."""
        if (height, width) not in self._tables:
            sub_policies = self.architecture["sub_policies"]
            shape = len(sub_policies), max(1, *map(len, sub_policies), 1)
            codes, probabilities = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.float64)
            magnitudes = torch.zeros(shape, dtype=torch.float64)
            for i, sub_policy in enumerate(sub_policies):
                for k, entry in enumerate(sub_policy):
                    name, level = entry["operation"], entry.get("magnitude", 0)
                    codes[i, k], probabilities[i, k] = CODES[name], entry["probability"]
                    magnitudes[i, k] = magnitude(name, level, height, width, self.architecture["reading"])
            if len(self._tables) > 64:  # images of many sizes: what they need is made again
                self._tables.clear()
            self._tables[height, width] = codes, probabilities, magnitudes
        return self._tables[height, width]

    def _of_pillow(self, image: Any, generator: torch.Generator | None) -> Any:
        import numpy as np
        from PIL import Image

        if not isinstance(image, Image.Image):
            raise UsageError(
                f"an augmentation takes a tensor of bytes or a Pillow image, got {type(image).__name__}; of a numpy array "
                "[h, w, c] it is torch.from_numpy(array).permute(2, 0, 1)"
            )
        if image.mode not in ("L", "RGB"):
            grey = "L" if image.mode in ("1", "LA", "La", "I", "F") or image.mode.startswith("I;") else "RGB"
            raise UsageError(
                f"an augmentation takes Pillow images of mode L or RGB, got {image.mode}; convert it first, to bytes: "
                f"image.convert({grey!r}){' of values 0 to 255' if image.mode.startswith(('I', 'F')) else ''}"
            )
        pixels = torch.from_numpy(np.array(image))
        planes = pixels[None] if image.mode == "L" else pixels.permute(2, 0, 1)
        changed = self(planes, generator)
        return Image.fromarray(
            changed[0].numpy() if image.mode == "L" else changed.permute(1, 2, 0).contiguous().numpy()
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def extra_repr(self) -> str:
        """The sub-policies, one a line."""
        return "\n".join(said(sub_policy) for sub_policy in self.architecture["sub_policies"])


_SIGNED = torch.zeros(len(OPERATIONS) + 1, dtype=torch.bool)
for _name, _operation in OPERATIONS.items():
    _SIGNED[CODES[_name]] = _operation.signed


def _moves(side: int, pad: float, count: int, generator: torch.Generator | None) -> Tensor:
    """How far a crop of a padded image is from its middle, in whole pixels."""
    most = round(pad * side)
    return torch.randint(-most, most + 1, (count,), generator=generator)


def _places(count: int, height: int, width: int, generator: torch.Generator | None) -> Tensor:
    """Pixels, uniformly drawn: row and column [count, 2]."""
    rows = torch.randint(height, (count,), generator=generator)
    return torch.stack([rows, torch.randint(width, (count,), generator=generator)], 1)
