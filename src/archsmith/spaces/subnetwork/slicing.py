"""The weights of a subnetwork, cut from those of the whole network.

Of a block with fewer inner channels those stay whose depthwise outputs count most: by the norm of the weights that read them
(Li et al. 2017, "Pruning Filters for Efficient ConvNets", ranks filters by norms; Cai et al. 2020, "Once-for-All", channels).
Smaller kernels are the middle of larger ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from archsmith.spaces.subnetwork.known import Block, MobileNetwork


def sliced(
    tensors: Mapping[str, Tensor], whole: MobileNetwork, part: MobileNetwork, channels: int
) -> dict[str, Tensor]:
    """The tensors of `part` by name, but for the classifier's.

    Args:
        tensors: of the whole network, by name.
        whole, part: the networks.
        channels: of the pictures. The first convolution sees a grey picture as three equal channels; for other numbers than
            1 and 3 its weights are left out.
    """
    found = {name: tensor for name, tensor in tensors.items() if name.startswith("bn1.")}
    stem = tensors["conv_stem.weight"]
    if channels in (1, 3):
        found["conv_stem.weight"] = stem if channels == 3 else stem.sum(1, keepdim=True)
    for i, blocks in enumerate(part.stages):
        for k, block in enumerate(blocks):
            name = f"blocks.{i}.{k}."
            of_block = {key.removeprefix(name): tensor for key, tensor in tensors.items() if key.startswith(name)}
            kept = _kept_channels(of_block, block, whole.stages[i][k])
            found |= {name + key: _cut(key, tensor, block, kept) for key, tensor in of_block.items()}
    if part.head:
        found |= {name: tensor for name, tensor in tensors.items() if name.startswith(("conv_head.", "bn2."))}
    return {name: tensor.clone() for name, tensor in found.items()}


def _kept_channels(of_block: Mapping[str, Tensor], block: Block, whole: Block) -> Tensor | None:
    """Which inner channels stay, in their order; None: all."""
    if block.hidden == whole.hidden:
        return None
    norms = of_block["conv_pwl.weight"].float().flatten(1).norm(dim=0) * of_block["bn2.weight"].float().abs()
    kept: Tensor = norms.topk(block.hidden).indices.sort().values
    return kept


def _cut(key: str, tensor: Tensor, block: Block, kept: Tensor | None) -> Tensor:
    module, _, parameter = key.rpartition(".")
    if module == "conv_dw" and tensor.shape[-1] > block.kernel:
        edge = (tensor.shape[-1] - block.kernel) // 2
        tensor = tensor[:, :, edge : edge + block.kernel, edge : edge + block.kernel]
    if kept is None or parameter == "num_batches_tracked":
        return tensor
    if module in ("conv_pwl", "se.conv_reduce") and parameter == "weight":
        return tensor[:, kept]
    if module in ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_expand"):
        return tensor[kept]
    return tensor


def missing(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> list[str]:
    """What is wrong with the tensors of a file for a network with such shapes: names that are missing, shapes that differ."""
    wrong = [name for name in shapes if name not in tensors and not name.endswith("num_batches_tracked")]
    wrong += [
        f"{name} {list(tensors[name].shape)} for {list(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    return wrong
