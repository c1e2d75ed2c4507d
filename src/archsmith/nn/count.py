"""Exact sizes of a network: its parameters, and the multiply-adds of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from archsmith.nn.recurrent import GraphCell, GraphRNN

RULE = (
    "multiply-adds of convolutions and linear layers, padding included, for one input; "
    "biases, normalisation, activations and pooling are not counted"
)
RULE_OF_TEXT = (
    "multiply-adds of the matrix products of recurrent layers and softmax, for one symbol; "
    "the embedding, biases and elementwise operations are not counted"
)
RULE_OF_TRANSLATION = (
    "multiply-adds of the matrix products of recurrent layers, attention and softmax, for one symbol of the source and "
    "one of the target; embeddings, biases and elementwise operations are not counted"
)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RECURRENT = (GraphCell, GraphRNN, nn.RNNBase, nn.RNNCellBase)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Counts:
    """How large a network is.

    Args:
        parameters: the numbers that training may change, by `count_parameters`.
        multiply_adds: of one forward pass of one input, by `RULE` (of text: `RULE_OF_TEXT`).
    """

    parameters: int
    multiply_adds: int


def count_parameters(module: nn.Module) -> int:
    """How many numbers training may change; one that is used twice counts once.

    Those of an auxiliary head, the attribute `auxiliary` of a network, are left out: it is there in training alone.
    """
    head = getattr(module, "auxiliary", None)
    beside = sum(p.numel() for p in head.parameters()) if isinstance(head, nn.Module) else 0
    return sum(p.numel() for p in module.parameters()) - beside


def count(module: nn.Module, one_input: Sequence[int] | Tensor) -> Counts:
    """Count the parameters and multiply-adds of a network for one input.

    Args:
        module: the network. It is left as it was.
        one_input: the shape of an input without the batch; or an input as the network takes it, a batch of one.

    Runs one forward pass in evaluation mode where the parameters are, which may be the meta device: nothing is
    computed or allocated there.
    """
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features
        elif isinstance(layer, _RECURRENT):
            steps = inputs[0].data.numel() // layer.input_size  # a packed sequence has data, and so has a tensor
            total += steps * sum(p.numel() for p in layer.parameters() if p.dim() == 2)
        elif isinstance(layer, _TRANSPOSED):
            total += inputs[0].numel() * layer.weight.numel() // layer.in_channels
        elif isinstance(layer, _CONVOLUTIONS):
            total += output.numel() * layer.weight.numel() // layer.out_channels

    kinds = (nn.Linear, *_RECURRENT, *_CONVOLUTIONS, *_TRANSPOSED)
    hooks = [m.register_forward_hook(add) for m in module.modules() if isinstance(m, kinds)]
    training = {m: m.training for m in module.modules()}
    some = next(module.parameters(), torch.empty(0))
    if not isinstance(one_input, Tensor):
        one_input = torch.zeros(1, *one_input, device=some.device, dtype=some.dtype)
    try:
        module.eval()
        with torch.no_grad():
            module(one_input.to(some.device))
    finally:
        for hook in hooks:
            hook.remove()
        for m, was in training.items():
            m.training = was
    return Counts(count_parameters(module), total)
