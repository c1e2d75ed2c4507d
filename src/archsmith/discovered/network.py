"""What a discovered network is: a genotype of a space, with the paper it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsmith.core.child import AnyTask, Task
from archsmith.core.errors import UsageError
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
    task: AnyTask

    @property
    def architecture(self) -> Architecture:
        """What the genotype describes, as plain data."""
        return decode(self.space, self.genotype)

    def build(
        self,
        *,
        input_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        task: AnyTask | None = None,
    ) -> torch.nn.Module:
        """The network, untrained; by default for what it was published for.

        Args:
            input_shape, num_classes: other images, for a network that reads them.
            task: another task.
        """
        task = self.task if task is None else task
        if input_shape is not None or num_classes is not None:
            if not isinstance(task, Task):
                raise UsageError(
                    f"{self.name} reads no images, so input_shape and num_classes do not fit; give task=TextTask(...)"
                )
            task = Task(input_shape or task.input_shape, num_classes if num_classes is not None else task.num_classes)
        return build(self.space, self.genotype, task).model
