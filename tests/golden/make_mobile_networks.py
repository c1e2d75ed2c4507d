"""Writes mobile_networks.json: what PyTorch Image Models (timm 1.0.31) computes with weights and pictures from a generator.

pip install timm==1.0.31 torchvision && python tests/golden/make_mobile_networks.py
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

NAMES = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_b0": "efficientnet_b0",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mnasnet_100": "mnasnet_100",
}


def drawn(seed: int, shape: Sequence[int], low: float, high: float) -> torch.Tensor:
    """Uniform numbers, from NumPy's generator, whose stream does not change."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).uniform(low, high, shape).astype(np.float32))


def fill(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Values for every tensor of a network. Filters keep the size of what they read."""
    filled = {}
    for number, (name, tensor) in enumerate(state.items()):
        if name.endswith("num_batches_tracked"):
            filled[name] = tensor
        elif tensor.dim() > 1:
            edge = (6 / tensor[0].numel()) ** 0.5
            filled[name] = drawn(number, tensor.shape, -edge, edge)
        else:
            low, high = (0.8, 1.2) if name.endswith(("running_var", "weight")) else (-0.1, 0.1)
            filled[name] = drawn(number, tensor.shape, low, high)
    return filled


def pictures(side: int) -> torch.Tensor:
    """Two pictures of noise."""
    return drawn(side, (2, 3, side, side), 0, 1)


if __name__ == "__main__":
    import timm

    golden = {}
    torch.set_num_threads(1)
    for ours, theirs in NAMES.items():
        model = timm.create_model(theirs, pretrained=False).eval()
        model.load_state_dict(fill(model.state_dict()))
        with torch.no_grad():
            golden[ours] = {str(side): model(pictures(side))[:, :6].tolist() for side in (64, 97)}
    Path(__file__).with_name("mobile_networks.json").write_text(json.dumps(golden, indent=1) + "\n")
