"""What a discovered network is: a genotype of a space, with the paper it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsmith.core.child import Task
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.space import Space, build, decode

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Discovered:
    """A network that a search of the papers found.

    Args:
        name: what `archsmith describe` and `archsmith transfer` call it.
        summary: one line for a person, with the paper.
        space: the space it was found in.
        genotype: the answers that describe it there.
        task: what it was published for.
    """

    name: str
    summary: str
    space: Space
    genotype: Genotype
    task: Task

    @property
    def architecture(self) -> Architecture:
        """What the genotype describes, as plain data."""
        return decode(self.space, self.genotype)

    def build(self, *, input_shape: tuple[int, ...] | None = None, num_classes: int | None = None) -> torch.nn.Module:
        """The network, untrained; by default for the images and classes it was published for."""
        task = Task(input_shape or self.task.input_shape, num_classes or self.task.num_classes)
        return build(self.space, self.genotype, task).model
