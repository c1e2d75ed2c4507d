"""What a trained classifier of images gives on the validation and the test pictures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.errors import Diverged, UnknownName
from archsmith.core.evaluator import Context
from archsmith.nn.augment import as_floats, centre_crop
from archsmith.training.image_batches import Pixels, Sides, validation_bytes
from archsmith.training.isolation import autocast

if TYPE_CHECKING:
    from archsmith.data.images import ImageSplits
    from archsmith.training.image_classification import ImageClassification

_MOST_AT_ONCE, _PIXELS_AT_ONCE = 500, 500 * 64 * 64  # pictures of a batch, and pixels of all its pictures
SPLITS = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures that a network is evaluated on.

    Args:
        read: gives the uncropped floats [n, height, width, channels] of a part of the positions 0 to `len(labels)`.
        labels: the class of each.
        size: height and width of the network's input.
    """

    read: Callable[[Tensor], Tensor]
    labels: Tensor
    size: Sides


def validation_pictures(
    config: ImageClassification, splits: ImageSplits, pixels: Pixels, device: torch.device
) -> Pictures:
    """The validation pictures: from the training pool where its pictures have the size of the input, else resized to it."""
    positions = torch.from_numpy(splits.validation).to(device)
    labels = pixels.labels[positions]
    size = config.task().input_shape[1:]
    sides = (size[0], size[1])
    if splits.data.images.shape[1:3] == sides:
        return Pictures(functools.partial(pixels.middle, positions), labels, sides)
    return Pictures(_reader(config, validation_bytes(splits, sides), device), labels, sides)


def pictures_of(config: ImageClassification, split: str, device: torch.device) -> Pictures:
    """The pictures of the split "validation" or "test", as an exported network is given them."""
    splits = config.splits()
    if split == "test":
        images = torch.from_numpy(config.test_images())
        labels = torch.from_numpy(splits.test_labels).to(device)
        return Pictures(_reader(config, images, device), labels, (images.shape[1], images.shape[2]))
    if split != "validation":
        raise UnknownName("split", split, SPLITS)
    labels = torch.from_numpy(splits.data.labels[splits.validation]).to(device)
    shape = config.task().input_shape
    return Pictures(
        _reader(config, validation_bytes(splits, (shape[1], shape[2])), device), labels, (shape[1], shape[2])
    )


def _reader(config: ImageClassification, images: Tensor, device: torch.device) -> Callable[[Tensor], Tensor]:
    floats = functools.partial(as_floats, whitened=config.whiten, upsample=config.enlargement)
    return lambda part: floats(images[part.cpu()].to(device))


def measure(model: nn.Module, pictures: Pictures, precision: str, context: Context | None) -> tuple[float, float]:
    """Accuracy and mean loss of the model in evaluation mode. Raises Diverged unless the loss is finite."""
    right, total = 0.0, 0.0
    for part, outputs in _outputs(model, pictures, precision, context):
        labels = pictures.labels[part]
        total += F.cross_entropy(outputs, labels, reduction="sum").item()
        right += (outputs.argmax(1) == labels).sum().item()
    count = len(pictures.labels)
    if not math.isfinite(total):
        raise Diverged(f"the validation loss became {total / count}")
    return right / count, total / count


def test(config: ImageClassification, model: nn.Module, device: str) -> dict[str, float]:
    """See `ImageClassification.test`."""
    pictures = pictures_of(config, "test", torch.device(device))
    was_training = model.training
    model.to(device).eval()
    try:
        right, loss = measure(model, pictures, "fp32", None)
    except Diverged:  # the others were looked at too, and what they gave must not be lost
        right = loss = math.nan
    model.train(was_training)
    return {"accuracy": right, "loss": loss, "count": float(len(pictures.labels))}


def probabilities(config: ImageClassification, model: nn.Module, split: str, device: str) -> Tensor:
    """See `ImageClassification.probabilities`."""
    pictures = pictures_of(config, split, torch.device(device))
    was_training = model.training
    model.to(device).eval()
    rows = [outputs.softmax(1).cpu() for _, outputs in _outputs(model, pictures, "fp32", None)]
    model.train(was_training)
    return torch.cat(rows)


def _outputs(
    model: nn.Module, pictures: Pictures, precision: str, context: Context | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The positions of each batch with the network's outputs in fp32."""
    model.eval()
    device = pictures.labels.device
    height, width = pictures.size
    batch = max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // (height * width)))
    for part in torch.arange(len(pictures.labels), device=device).split(batch):  # type: ignore[no-untyped-call]
        if context is not None:
            context.check()
        with torch.inference_mode(), autocast(device, precision):
            images = centre_crop(pictures.read(part), *pictures.size).permute(0, 3, 1, 2)
            outputs = model(images).float()
        yield part, outputs
