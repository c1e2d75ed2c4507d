"""A trained classifier of arrays other than images, such as rows of a table or signals."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from archsmith._export.card import told
from archsmith._export.export_folder import fresh_folder
from archsmith._export.image_model import ImageModel
from archsmith._export.model import write_documents, write_weights
from archsmith._export.network_source import network_source
from archsmith._export.source import FILE, one_line, run_source
from archsmith.core.errors import UsageError

_TEMPLATE = '''\
"""{title}

{about}

    from model import load
    logits = load()(inputs)  # float32 [count, {shape}]

Needs torch and safetensors.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).with_name("model.safetensors")


{network}

def load(path=WEIGHTS, device="cpu") -> Network:
    """The network with its weights, in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(path))
    return network.to(device).eval()
'''


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorModel(ImageModel):
    """A trained classifier of arrays other than images: from inputs to logits, without preprocessing."""

    takes: ClassVar[str] = "tensors"
    input_name: ClassVar[str] = "inputs"

    @classmethod
    def check(cls, card: Mapping[str, Any]) -> None:
        """Raise KeyError, TypeError or ValueError unless these entries fit each other."""
        super().check(card)
        if card["preprocessing"]:
            raise ValueError("a model of arrays has no preprocessing")


def write_tensor_source(model: TensorModel, path: Path) -> Path:
    """Write the folder and run the file: its outputs must equal the module's, to the bit.

    Raises UsageError when the network cannot be followed, or the file does not repeat it.
    """
    deployed, shape = model.deployed(), ", ".join(map(str, model.task.input_shape))
    docstring = f"{model.parameters:,} parameters.\n\n[n, {shape}] -> logits [n, {model.task.num_classes}]."
    network, state = network_source(deployed, docstring, root="network")
    title = one_line(f"{model.name}: a classifier found by neural architecture search.")
    about = [part for line in told(model.card) for part in textwrap.wrap(one_line(line), 118)]
    text = _TEMPLATE.format(
        title="\n".join(textwrap.wrap(title, 110)), about="\n".join(about), shape=shape, network=network
    )
    with fresh_folder(path) as folder:
        (folder / FILE).write_text(text, encoding="utf-8")
        write_documents(model, folder, model.to_json("source") | {"weights": write_weights(state, folder)})
        again = run_source(folder).load()
        with torch.inference_mode():
            if not all(torch.equal(again(inputs), deployed(inputs)) for inputs in model.inputs()):
                raise UsageError(
                    f"the written file does not repeat {type(model.network).__name__} to the bit; this is a fault of "
                    "archsmith's, please report it with the architecture"
                )
    return path
