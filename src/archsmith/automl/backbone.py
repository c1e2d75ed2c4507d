"""A module of the user's as the body of a classifier: it is fine-tuned, or only its classifier is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from archsmith.automl.fine_tuning import (
    PROBE_STARTING,
    RATE,
    READING_SPEED,
    fine_tuning_trainer,
    known_recipe,
    probed_pictures,
    recipes,
)
from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.pictures import Pictures
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture
from archsmith.spaces import Backbone, Product
from archsmith.training import ImageClassification

# Networks without batch norms, such as vision transformers, are fine-tuned at lower rates: what they know is soon lost otherwise.
LOW_RATE = 7e-5


@dataclass(frozen=True)
class BackboneTuning:
    """The strategy whose networks begin with a module of the user's; see `Strategy`.

    Args:
        pictures: in the size that the module takes. Grey ones are given to it as colour pictures.
        backbone: the module.
    """

    pictures: Pictures
    backbone: Backbone
    passes: float = 12.0
    probed: int = 1000

    @cached_property
    def space(self) -> Product:
        """Whether the body is trained, and recipes for fine-tuning."""
        return Product(self.backbone, recipes((LOW_RATE, RATE / 2, RATE)))

    @property
    def origin(self) -> str:
        """Whose weights training begins with, and what its model needs."""
        return (
            f"Training begins with the weights of the backbone {self.backbone.name} that was given. The model is loaded with that "
            "module: archsmith.load(FOLDER, space=Backbone(MODULE, ...))."
        )

    def trainer(self, asked: ImageClassification) -> ImageClassification:
        """The evaluator. A module of the user's may not compute in mixed precision, so on processors it computes in fp32."""
        return replace(fine_tuning_trainer(asked, self.pictures), channels=3)

    def within(self, target: LatencyTarget, trainer: ImageClassification) -> BackboneTuning:
        """The same: there is no faster network. Raises UsageError if the target's engine cannot run it, so that no child fails by it."""
        task = trainer.task()
        model = self.backbone.build(self.backbone.known(frozen=True), task).model
        try:
            target.allows(model, task.input_shape)
        except UsageError as error:
            raise UsageError(
                f"the latency of the backbone {self.backbone.name!r} cannot be measured with {target.engine}, which cannot run it; give "
                'runtime="pytorch", or no latency'
            ) from error
        return self

    def probe_seconds(self, point: Architecture, baseline: Architecture, speed: float) -> float:
        """The seconds of a probe by one thread, when that learns from `speed` pictures of the baseline a second. A frozen body reads
        pictures also where it learns."""
        reading = 1.0 if baseline["parts"]["Backbone"]["frozen"] else READING_SPEED
        return PROBE_STARTING + probed_pictures(self.pictures, self.probed) / (reading * speed)

    def points(self) -> Sequence[Sequence[Architecture]]:
        """The body trained, and the body frozen, which takes less time for a picture."""
        trained, frozen = self._point(frozen=False), self._point(frozen=True)
        return [[trained, frozen], [frozen, trained]]

    def _point(self, *, frozen: bool) -> Architecture:
        rate = RATE if frozen else self._rate()
        parts = {"Backbone": self.backbone.known(frozen=frozen), "TrainingRecipe": known_recipe(self.pictures, rate)}
        return {"kind": "product", "parts": parts}

    def _rate(self) -> float:
        """The learning rate of the body."""
        assert self.backbone.module is not None
        norms = (isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.backbone.module.modules())
        return RATE if any(norms) else LOW_RATE
