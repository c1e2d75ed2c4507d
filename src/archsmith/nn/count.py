"""Exact sizes of a network: its parameters, and the multiply-adds of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

RULE = (
    "multiply-adds of convolutions and linear layers, padding included, for one input; "
    "biases, normalisation, activations and pooling are not counted"
)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Counts:
    """How large a network is.

    Args:
        parameters: the numbers that training may change; one that is used twice counts once.
        multiply_adds: of one forward pass of one input, by `RULE`.
    """

    parameters: int
    multiply_adds: int


def count_parameters(module: nn.Module) -> int:
    """How many numbers training may change; one that is used twice counts once."""
    return sum(p.numel() for p in module.parameters())


def count(module: nn.Module, input_shape: Sequence[int]) -> Counts:
    """Count the parameters and multiply-adds of a network for one input of `input_shape` (without the batch).

    Runs one forward pass in evaluation mode where the parameters are, which may be the meta device: nothing is
    computed or allocated there. The module is left as it was.
    """
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features
        elif isinstance(layer, _TRANSPOSED):
            total += inputs[0].numel() * layer.weight.numel() // layer.in_channels
        elif isinstance(layer, _CONVOLUTIONS):
            total += output.numel() * layer.weight.numel() // layer.out_channels

    counted = [m for m in module.modules() if isinstance(m, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED))]
    hooks = [m.register_forward_hook(add) for m in counted]
    training = {m: m.training for m in module.modules()}
    some = next(module.parameters(), torch.empty(0))
    try:
        module.eval()
        with torch.no_grad():
            module(torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for m, was in training.items():
            m.training = was
    return Counts(count_parameters(module), total)
