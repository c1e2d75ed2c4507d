"""What no weight of a batch norm records: its epsilon, and how fast its running averages forget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

SPANS = 30  # of a training that a running average must have room for: at the beginning it knows nothing


def set_epsilon(model: nn.Module, epsilon: float | None) -> nn.Module:
    """The same model, every batch norm of it with this epsilon; None: each keeps its own."""
    for module in model.modules():
        if epsilon is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = epsilon
    return model


@contextmanager
def forgetting_within(model: nn.Module, steps: int) -> Iterator[float | None]:
    """While it lasts, running averages reach back over a thirtieth of so many steps of training, or 10 steps where that is
    less, and no further; then all are as they were.

    An average with decay 0.9997, that of NASNet's ImageNet networks, is after 200 steps still 94 % what it began with,
    and a network that is evaluated by it seems to have learned nothing. Trainings of 100,000 steps keep that decay.

    Gives the decay that was put in place of slower ones, or None where none was slower.
    """
    momentum = min(0.1, SPANS / max(1, steps))
    slow = {
        module: module.momentum
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.momentum is not None
        and module.momentum < momentum - 1e-9  # 1 - 0.9 is a little less than 0.1
    }
    for module in slow:
        module.momentum = momentum
    try:
        yield 1 - momentum if slow else None
    finally:
        for module, own in slow.items():
            module.momentum = own
