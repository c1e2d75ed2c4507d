"""The child: what is trained. A space builds it; an evaluator fills in what the space leaves open."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """What a child is built for: the shape of one input and the number of classes.

    Args:
        input_shape: channels, height and width of one image.
        num_classes: how many classes the child tells apart.
    """

    input_shape: tuple[int, ...] = (3, 32, 32)
    num_classes: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        if not self.input_shape or any(not isinstance(n, int) or n < 1 for n in self.input_shape):
            raise ValueError(f"input_shape must be positive whole numbers, got {self.input_shape}")
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")


@dataclass(frozen=True)
class Child:
    """A model with what else its genotype decided. `None` means: as the evaluator has it.

    Args:
        model: the network, on the CPU, freshly initialised from the current seed.
        learning_rate: the peak learning rate.
        optimizer: from parameters and a learning rate to an optimizer.
        augmentation: from a batch of training images to a batch of the same shape.
    """

    model: torch.nn.Module
    learning_rate: float | None = None
    optimizer: Callable[[Iterable[Any], float], torch.optim.Optimizer] | None = None
    augmentation: Callable[[torch.Tensor], torch.Tensor] | None = None


def as_child(built: Child | torch.nn.Module) -> Child:
    """A bare model as a child with everything else left to the evaluator."""
    return built if isinstance(built, Child) else Child(built)
