"""Weights handed on: a layer keeps its weights when its shape is unchanged (Real et al. 2017, on weight inheritance)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def inherit(model: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Copy a parent's weights into every layer of `model` that has one of the same name and shapes; gives how many
    parameters were copied.

    A layer takes all its tensors or none: a bias is of no use with another weight, nor batch norm's scale without its
    statistics. What is not copied stays as it was drawn.
    """
    copied = 0
    for name, layer in model.named_modules():
        prefix = f"{name}." if name else ""
        own = {
            prefix + key: tensor
            for key, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
            if key not in layer._non_persistent_buffers_set
        }
        theirs = {key for key in weights if key.startswith(prefix) and "." not in key[len(prefix) :]}
        if not own or set(own) != theirs or any(own[key].shape != weights[key].shape for key in own):
            continue
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(weights[key])
        copied += sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    return copied
