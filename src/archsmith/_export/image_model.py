"""A trained image classifier, and what stands before it when it is deployed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith._export.model import Model
from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.nn.batch_norm import set_epsilon

CHECKED_BATCHES = (1, 7)
MOST_UPSAMPLE = 4  # what ImageClassification allows; a stranger's card could ask for any memory by it
MOST_INPUTS = 10**8


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """Pictures of a run, [count, channels, height, width] from 0 to 1.

    Args:
        training: that ranges are taken from.
        validation, labels: that the file is judged by, before and after.
    """

    training: Tensor
    validation: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageModel(Model):
    """A trained image classifier: a `Model` with these as well.

    Args:
        network: from preprocessed images to logits.
        task: the shape of one input, and how many classes.
        class_names: by logit.
        preprocessing: what stands between pixels and the network, as `ImageClassification.preprocessing` has it;
            empty for none.
        batch_norm_epsilon: of every batch norm, or None for PyTorch's own.
        temperature: what the logits are divided by, so that their softmax is calibrated (temperature scaling, Guo et al.
            2017). The likeliest class stays the same.
        examples: some real inputs, [count, channels, height, width] from 0 to 1, for checks; never written.
        pictures: gives pictures of the run that an export in 8 bits is calibrated by; None where the data are not there.
    """

    takes: ClassVar[str] = "images"
    input_name: ClassVar[str] = "images"  # of an exported graph

    task: Task
    class_names: Sequence[str]
    preprocessing: Mapping[str, Any]
    batch_norm_epsilon: float | None = None
    temperature: float = 1.0
    examples: Tensor | None = None
    pictures: Callable[[], KnownPictures] | None = None

    def __post_init__(self) -> None:
        if len(self.class_names) != self.task.num_classes:
            raise UsageError(f"a model of {self.task.num_classes} classes needs as many names, got {self.class_names}")
        if not _is_temperature(self.temperature):
            raise UsageError(f"temperature of a model must be a number above 0, got {self.temperature!r}")
        super().__post_init__()

    def deployed(self) -> nn.Module:
        """From pixels to logits: see `Deployed`."""
        return Deployed(self.network, self.preprocessing, self.temperature).eval()

    def inputs(self) -> list[Tensor]:
        """What an exported file is checked on: random pixels and, where there are any, real ones; batches of 1 and 7."""
        generator = torch.Generator().manual_seed(0)
        batches = [torch.rand(n, *self.task.input_shape, generator=generator) for n in CHECKED_BATCHES]
        if self.examples is not None:
            batches += [self.examples[:n] for n in CHECKED_BATCHES]
        return batches

    def answer(self, given: Tensor) -> Tensor:
        """The logits for pixels."""
        with torch.inference_mode():
            logits: Tensor = self.deployed()(given)
        return logits

    def own_json(self) -> dict[str, Any]:
        """Task, class names, preprocessing, the batch norms' epsilon, and the temperature unless it is 1."""
        return {
            "task": {"input_shape": list(self.task.input_shape), "num_classes": self.task.num_classes},
            "class_names": list(self.class_names),
            "preprocessing": dict(self.preprocessing),
            "batch_norm_epsilon": self.batch_norm_epsilon,
            **({} if self.temperature == 1.0 else {"temperature": self.temperature}),
        }

    @classmethod
    def check(cls, card: Mapping[str, Any]) -> None:
        """Raise KeyError, TypeError or ValueError unless these entries fit each other."""
        task = cls.task_of(card)
        named = [str(name) for name in card["class_names"]]
        if len(named) != task.num_classes:
            raise ValueError(f"{len(named)} class names for {task.num_classes} classes")
        _check_preprocessing(card["preprocessing"], task)
        epsilon = card["batch_norm_epsilon"]
        if epsilon is not None and not (_is_number(epsilon) and 0 < epsilon < math.inf):
            raise ValueError(f"batch_norm_epsilon must be a number above 0 or null, got {epsilon!r}")
        if not _is_temperature(temperature := card.get("temperature", 1.0)):
            raise ValueError(f"temperature must be a number above 0, got {temperature!r}")

    @classmethod
    def task_of(cls, card: Mapping[str, Any]) -> Task:
        """The shape of one input, and how many classes."""
        return Task(tuple(card["task"]["input_shape"]), card["task"]["num_classes"])

    @classmethod
    def from_card(cls, card: Mapping[str, Any], network: nn.Module, folder: Path) -> ImageModel:
        """The model of a `model.json` that was checked, given its trained network."""
        epsilon = card["batch_norm_epsilon"]
        if epsilon is not None:
            set_epsilon(network, float(epsilon))
        return cls(
            name=card["name"],
            network=network,
            task=cls.task_of(card),
            class_names=[str(name) for name in card["class_names"]],
            preprocessing=card["preprocessing"],
            space=card["space"],
            genotype=card["genotype"],
            architecture=card["architecture"],
            batch_norm_epsilon=epsilon,
            temperature=float(card.get("temperature", 1.0)),
            card=card["card"],
        )


class Deployed(nn.Module):
    """A network behind its preprocessing: pixels [n, channels, height, width] from 0 to 1 -> logits [n, classes].

    It does what validation and test did, so that an exported file gives the answers that were measured. The logits are
    divided by the temperature.
    """

    def __init__(self, network: nn.Module, preprocessing: Mapping[str, Any], temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        known = {"height", "width", "channels", "scale", "whiten", "upsample", "crop"}
        if unknown := sorted(set(preprocessing) - known):
            raise UsageError(f"the preprocessing has {unknown[0]!r}, which this archsmith does not know")
        height, width = (int(preprocessing.get(k, 0)) for k in ("height", "width"))
        factor = float(preprocessing.get("upsample", 1.0))
        self.whiten = bool(preprocessing.get("whiten", False))
        # The least deviation: nn.augment.whiten says why.
        self.least = 1.0 / (255.0 * max(1, height * width * int(preprocessing.get("channels", 1))) ** 0.5)
        self.larger = (round(factor * height), round(factor * width)) if factor != 1.0 else None
        self.size = (height, width)

    def forward(self, images: Tensor) -> Tensor:
        """Logits for a batch of any size."""
        x = images
        if self.whiten:
            mean = x.mean((1, 2, 3), keepdim=True)
            deviation = x.std((1, 2, 3), correction=0, keepdim=True).clamp_min(self.least)
            x = (x - mean) / deviation
        if self.larger is not None:
            x = F.interpolate(x, size=self.larger, mode="bilinear", align_corners=False)
            top, left = ((big - small) // 2 for big, small in zip(self.larger, self.size, strict=True))
            x = x[:, :, top : top + self.size[0], left : left + self.size[1]]
        logits: Tensor = self.network(x)
        return logits if self.temperature == 1.0 else logits / self.temperature


def _is_temperature(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _check_preprocessing(value: Any, task: Task) -> None:
    """Raise ValueError unless it fits the task and asks for no more memory than images take."""
    if math.prod(task.input_shape) > MOST_INPUTS:
        raise ValueError(f"one input may have at most {MOST_INPUTS:,} numbers, and input_shape is {task.input_shape}")
    if not isinstance(value, dict):
        raise ValueError(f"preprocessing must be an object, got {type(value).__name__}")
    factor = value.get("upsample", 1.0)
    if not (_is_number(factor) and 1 <= factor <= MOST_UPSAMPLE):
        raise ValueError(f"upsample must be a number from 1 to {MOST_UPSAMPLE}, got {factor!r}")
    if value:
        for name, size in zip(("channels", "height", "width"), task.input_shape, strict=True):
            if value.get(name) != size:
                raise ValueError(f"preprocessing's {name} must be {size}, as in input_shape, got {value.get(name)!r}")
    Deployed(nn.Identity(), value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
