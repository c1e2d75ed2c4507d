"""A trained network with all that others need to use it: what every kind of model has, and the folder it is written to."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from archsmith._export.card import readme
from archsmith._export.export_folder import CARD, FORMAT, write_json
from archsmith.core.child import AnyTask
from archsmith.core.space import Space
from archsmith.nn.count import count_parameters

VERSION = 1
README, WEIGHTS = "README.md", "model.safetensors"


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A trained network and its card. Everything but the network and examples is plain JSON in `model.json`.

    `ImageModel` and `TextModel` are the kinds there are.

    Args:
        name: what it is called, such as the run's name.
        network: on the CPU, in evaluation mode.
        space: the space's record, as `core.config.to_config` writes it.
        genotype: its genotype, or None where there is only an architecture.
        architecture: the architecture, as plain data.
        card: data, metrics, cost, versions, command.
        built_by: the space object, if it is available; it is not written.
    """

    takes: ClassVar[str]  # what it reads, which names its kind in `model.json`

    name: str
    network: nn.Module
    space: Mapping[str, Any]
    genotype: Mapping[str, Any] | None
    architecture: Any
    card: Mapping[str, Any] = field(default_factory=dict)
    built_by: Space | None = None

    def __post_init__(self) -> None:
        network = copy.deepcopy(self.network).to(
            device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format
        )  # type: ignore[call-overload]
        object.__setattr__(self, "network", network.eval().requires_grad_(False))

    @property
    def parameters(self) -> int:
        """How many trainable numbers it has."""
        return count_parameters(self.network)

    def to_json(self, format: str) -> dict[str, Any]:
        """The content of `model.json`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": format,
            "takes": self.takes,
            "name": self.name,
            "parameters": self.parameters,
            **self.own_json(),
            "space": dict(self.space),
            "genotype": self.genotype,
            "architecture": self.architecture,
            "card": dict(self.card),
        }

    def with_card(self, **entries: Any) -> Self:
        """The same model with more on its card."""
        return replace(self, card={**self.card, **entries})

    # --- what each kind has its own way of ----------------------------------------------------------------------------

    def deployed(self) -> nn.Module:
        """The network as others use it."""
        raise NotImplementedError

    def own_json(self) -> dict[str, Any]:
        """The entries of `model.json` that only models of this kind have, "task" among them."""
        raise NotImplementedError

    def own_files(self) -> dict[str, str]:
        """The texts of the files that only models of this kind have, by name."""
        return {}

    def inputs(self) -> list[Any]:
        """What an exported file is checked on."""
        raise NotImplementedError

    def answer(self, given: Any) -> Tensor:
        """What it says of one of the `inputs()`."""
        raise NotImplementedError

    @classmethod
    def check(cls, card: Mapping[str, Any]) -> None:
        """Raise KeyError, TypeError or ValueError unless the entries of this kind are right."""
        raise NotImplementedError

    @classmethod
    def task_of(cls, card: Mapping[str, Any]) -> AnyTask:
        """What its network is built for, from a `model.json` that was checked."""
        raise NotImplementedError

    @classmethod
    def from_card(cls, card: Mapping[str, Any], network: nn.Module, folder: Path) -> Model:
        """The model of a `model.json` that was checked, given its trained network and the folder of its own files."""
        raise NotImplementedError


def state_of(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors as a file keeps them: on the CPU, contiguous, each with memory of its own."""
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def write_weights(tensors: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write `model.safetensors`, and give the entry "weights" of `model.json`."""
    from safetensors.torch import save_file

    file = folder / WEIGHTS
    save_file(state_of(tensors), file, metadata={"format": "pt"})
    os.chmod(file, 0o644)  # safetensors makes it private
    return {"file": WEIGHTS, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def write_documents(model: Model, folder: Path, card: Mapping[str, Any]) -> None:
    """Write `model.json`, the README, and the files that only models of this kind have."""
    for name, text in model.own_files().items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    write_json(folder / CARD, card)
    (folder / README).write_text(readme(card), encoding="utf-8")
