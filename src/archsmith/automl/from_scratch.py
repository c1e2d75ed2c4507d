"""From scratch: known residual networks that train within minutes, each with a training recipe, and the space around them.

`archsmith.recipes.residual` has them. The first known point is the baseline: what a competent person would have picked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.pictures import Pictures, trainer_for
from archsmith.core.genotype import Architecture
from archsmith.recipes.residual import known_points, networks, search_space
from archsmith.spaces import Product
from archsmith.training import ImageClassification


@dataclass(frozen=True)
class FromScratch:
    """The strategy whose networks begin with random weights; see `Strategy`."""

    pictures: Pictures
    largest: int = 0  # of `networks`: the first that may be used
    passes: float = 15.0
    probed: int = 0
    origin: str = ""

    @cached_property
    def space(self) -> Product:
        """Residual networks and recipes for them."""
        return search_space(self.pictures.kind)

    def trainer(self, asked: ImageClassification) -> ImageClassification:
        """The evaluator with the pictures' sizes."""
        return trainer_for(asked, self.pictures)

    def points(self) -> Sequence[Sequence[Architecture]]:
        """Known points around each of four networks."""
        kind = self.pictures.kind
        return [known_points(kind, size, self.largest) for size in range(self.largest, len(networks(kind)))]

    def probe_seconds(self, point: Architecture, baseline: Architecture, speed: float) -> float:
        """Nothing: its networks are trained."""
        return 0.0

    def within(self, target: LatencyTarget, trainer: ImageClassification) -> FromScratch:
        """The strategy with the networks that take no longer."""
        task, kind = trainer.task(), self.pictures.kind
        smallest = len(networks(kind)) - 1

        def allowed(size: int) -> bool:
            model = self.space.build(known_points(kind, size)[0], task).model
            return target.allows(model, task.input_shape)

        return replace(self, largest=bisect_left(range(smallest), True, key=allowed))
