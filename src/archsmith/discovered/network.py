"""What a discovered network is: an architecture, as a genotype where its space has one for it, with its paper."""

from __future__ import annotations

import copy
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
        space: the space it was found in, which builds it.
        task: what it was published for.
        genotype: the answers that describe it in its space. None where the published network does not lie in it.
        data: its architecture, where there is no genotype.
    """

    name: str
    summary: str
    space: Space
    task: AnyTask
    genotype: Genotype | None = None
    data: Architecture = None

    def __post_init__(self) -> None:
        if (self.genotype is None) == (self.data is None):
            raise UsageError(
                f"a discovered network has a genotype or an architecture, and {self.name} has not one of them"
            )

    @property
    def architecture(self) -> Architecture:
        """What the genotype describes, as plain data."""
        return copy.deepcopy(self.data) if self.genotype is None else decode(self.space, self.genotype)

    def build(
        self,
        *,
        input_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        task: AnyTask | None = None,
    ) -> torch.nn.Module:
        """The network, by default for what it was published for: with its published weights where it has such, else untrained.

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
        child = build(self.space, self.architecture, task)
        if child.start is not None:
            child.model.load_state_dict(child.start(), strict=False)
        return child.model
