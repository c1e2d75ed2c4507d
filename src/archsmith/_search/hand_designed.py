"""What is designed by hand and stands beside what was found: a network, or the usual choice of a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from archsmith.core.child import AnyTask, Task
from archsmith.core.finish import Finishable
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.parts import PartSpace
from archsmith.core.space import identity
from archsmith.core.walk import Choose


class HandDesigned:
    """The network that a person would have picked, as a space in which there is one thing to choose.

    Not a dataclass, so that the evaluator is no part of its identity.

    Args:
        parameters: about how many it shall have.
        by: the evaluator, whose `baseline(parameters, task)` is asked where it has one.
    """

    def __init__(self, parameters: int, by: Finishable) -> None:
        self.parameters = parameters
        self.by = by

    def architecture(self, choose: Choose) -> Architecture:
        return {"network": "hand-designed", "parameters": choose("parameters", (self.parameters,))}

    def build(self, architecture: Architecture, task: AnyTask) -> Any:
        """The evaluator's own baseline, or the residual network for images (He et al. 2016)."""
        own = getattr(self.by, "baseline", None)
        if own is not None:
            return own(self.parameters, task)
        from archsmith.nn.resnet import resnet_of_size

        assert isinstance(task, Task)
        return resnet_of_size(self.parameters, task)

    @property
    def genotype(self) -> Genotype:
        """The only one."""
        return Genotype(identity(self), {"parameters": self.parameters})


@dataclass(frozen=True)
class Standard:
    """What a person would take for a part without a search, such as Adam for an update rule, as a space of one thing.

    Args:
        part: the space that knows it, whose `standards` are asked.
        name: which of them.
    """

    part: PartSpace
    name: str

    def architecture(self, choose: Choose) -> Architecture:
        return {"standard": choose("standard", (self.name,))}

    def build(self, architecture: Architecture, task: AnyTask) -> Any:
        """The part's hand-designed network with it."""
        own = self.part.standards()[self.name]
        return self.part.baseline(task) if own is None else self.part.build(own, task)

    @property
    def genotype(self) -> Genotype:
        """The only one."""
        return Genotype(identity(self), {"standard": self.name})


def baseline_name(evaluator: Finishable) -> str | None:
    """What a person calls the network that `HandDesigned` builds; None where nobody says what that is."""
    own, task = hasattr(evaluator, "baseline"), evaluator.task()
    if not own and not (isinstance(task, Task) and len(task.input_shape) == 3):
        return None
    return str(getattr(evaluator, "baseline_name", "hand-designed network" if own else "residual network"))
