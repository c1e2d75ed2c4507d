"""Fine-tuning: networks whose weights were trained on ImageNet. How much of one, and which size of pictures, is searched by probes."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from archsmith.automl.faster import LEAST_SIDE, SIDE_STEP
from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.pictures import Pictures
from archsmith.core.genotype import Architecture
from archsmith.spaces import Product, Subnetwork, TrainingRecipe
from archsmith.training import ImageClassification

NETWORK = "efficientnet_lite0"  # whose ImageNet weights the extra `pretrained` has
BATCH = 32  # pictures a step
RATE = 7e-4  # the learning rate
# Of a probe: seconds until it begins, and how many pictures are read in the time in which one is learned from.
PROBE_STARTING, READING_SPEED = 1.0, 2.5


@dataclass(frozen=True)
class FineTuning:
    """The strategy whose networks begin with published weights; see `Strategy`.

    Args:
        pictures: with `sizes`, from which the input's size is chosen.
        of, weights: as of `Subnetwork`.
    """

    pictures: Pictures
    of: str = NETWORK
    weights: str = "imagenet"
    passes: float = 12.0
    probed: int = 1000

    @cached_property
    def space(self) -> Product:
        """Parts of the network, sizes of pictures, and recipes for fine-tuning."""
        networks = Subnetwork(
            self.of,
            self.weights,
            expansions=(1.0,),
            frozen=(0,),
            sizes=tuple(sorted({*range(LEAST_SIDE, self.largest + 1, SIDE_STEP), *self.pictures.sizes})),
        )
        return Product(networks, recipes((RATE / 2, RATE, RATE * 2)))

    @property
    def largest(self) -> int:
        """The largest side of an input."""
        return max(self.pictures.sizes)

    @property
    def origin(self) -> str:
        """Whose weights training begins with."""
        source = "that were trained on ImageNet" if self.weights == "imagenet" else f"in {self.weights}"
        return f"Training begins with the weights of {NAMES[self.of]} {source}."

    def trainer(self, asked: ImageClassification) -> ImageClassification:
        """The evaluator: bf16 makes depthwise convolutions no faster on processors, so these compute in fp32."""
        return fine_tuning_trainer(asked, self.pictures)

    def within(self, target: LatencyTarget, trainer: ImageClassification) -> FineTuning:
        """The strategy with sizes at which the whole network takes no longer."""
        task, sides = trainer.task(), range(self.largest, LEAST_SIDE, -SIDE_STEP)
        networks = Subnetwork(self.of, weights=None)
        model = networks.build(networks.whole(), task).model
        allowed = bisect_left(sides, True, key=lambda side: target.allows(model, (task.input_shape[0], side, side)))
        largest = self.largest - SIDE_STEP * allowed
        sizes = (*(side for side in self.pictures.sizes if side < largest), largest)
        return replace(self, pictures=replace(self.pictures, sizes=sizes, size=min(self.pictures.size, largest)))

    def probe_seconds(self, point: Architecture, baseline: Architecture, speed: float) -> float:
        """The seconds of a probe by one thread, when it learns from `speed` pictures of the baseline's size a second."""
        side, base = (each["parts"]["Subnetwork"]["size"] for each in (point, baseline))
        pictures = probed_pictures(self.pictures, self.probed)
        return float(PROBE_STARTING + pictures * (side / base) ** 2 / (READING_SPEED * speed))

    def points(self) -> Sequence[Sequence[Architecture]]:
        """The whole network at each size, the largest first; around it the other sizes, the nearest first, and parts of it."""
        sizes = sorted(self.pictures.sizes, reverse=True)
        return [self._around(size, sorted(sizes, key=lambda other: abs(other - size))) for size in sizes]

    def _around(self, size: int, sizes: Sequence[int]) -> list[Architecture]:
        networks = self.space.parts[0]
        assert isinstance(networks, Subnetwork)
        wholes = [networks.whole(side) for side in sizes]
        most = len(wholes[0]["stages"])
        cuts = [_cut(whole, most - k) for k in (0, 1, 2) for whole in wholes]
        return [
            {"kind": "product", "parts": {"Subnetwork": network, "TrainingRecipe": known_recipe(self.pictures)}}
            for network in wholes + cuts
        ]


def fine_tuning_trainer(asked: ImageClassification, pictures: Pictures) -> ImageClassification:
    """The evaluator for networks that are pretrained, with the pictures' sizes. What a genotype does not decide is set here."""
    return replace(
        asked,
        size=pictures.size,
        source_size=pictures.source if pictures.source != pictures.size else None,
        upsample=1.0,
        precision="auto" if torch.cuda.is_available() else "fp32",
        fixed=("schedule", "warmup_share"),
    )


def probed_pictures(pictures: Pictures, most: int) -> int:
    """How many pictures a probe reads that is fitted to `most` training pictures; those of all folds count."""
    return (min(most, pictures.train) + min(most, pictures.validation)) * (pictures.folds or 1)


def recipes(learning_rates: tuple[float, ...]) -> TrainingRecipe:
    """Recipes for fine-tuning."""
    return TrainingRecipe(
        optimizers=("adamw",),
        adamw_learning_rates=learning_rates,
        adamw_weight_decays=(0.02,),
        decay_norms=(True,),
        batch_sizes=(BATCH,),
        label_smoothings=(0.1,),
        crops=("resized",),
        crop_areas=(0.35, 0.6),
        flips=(True, False),
        colours=(0.0, 0.3),
        policies=(None, "trivial"),
        mixes=(None, "cutmix"),
        train_sizes=(1.0,),
        first_sizes=(1.0,),
        averages=(0.99,),
        schedules=("trapezoid",),
        warmups=(0.15,),
    )


def known_recipe(pictures: Pictures, learning_rate: float = RATE) -> Architecture:
    """What a competent person would take; one of `recipes`."""
    return {
        "kind": "training_recipe",
        "optimizer": {"name": "adamw", "learning_rate": learning_rate, "weight_decay": 0.02, "decay_norms": True},
        "batch_size": BATCH,
        "label_smoothing": 0.1,
        "augmentation": {
            "crop": "resized",
            "crop_area": 0.35,
            "flip": pictures.mirrored,
            "colour": 0.0,
            "policy": None,
            "mix": None,
        },
        "size": {"train": 1.0, "first": 1.0},
        "average": 0.99,
        "schedule": {"name": "trapezoid", "warmup": 0.15},
    }


def _cut(whole: Architecture, stages: int) -> Architecture:
    """The first stages of a network, without its head."""
    cut = copy.deepcopy(whole)
    return {**cut, "stages": cut["stages"][:stages], "head": False}


NAMES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "efficientnet_b0": "EfficientNet-B0",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "mnasnet_100": "MnasNet-B1",
}
"""What people call the networks."""
