"""A trained network with all that others need to use it, and what stands before it when it is deployed."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.child import Task
from archsmith.core.errors import UsageError

FORMAT, VERSION = "archsmith model", 1
CARD, README = "model.json", "README.md"
CHECKED_BATCHES = (1, 7)
MOST_UPSAMPLE = 4  # what ImageClassification allows; a stranger's card could ask for any memory by it
MOST_INPUTS = 10**8


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network and its card. Everything but the network and the examples is plain JSON in `model.json`.

    Args:
        name: what it is called, such as the run's name.
        network: from preprocessed images to logits; on the CPU, in evaluation mode.
        task: the shape of one input, and how many classes.
        class_names: by logit.
        preprocessing: what stands between pixels and the network, as `ImageClassification.preprocessing` has it;
            empty for none.
        space: the space's record, as `core.config.to_config` writes it.
        genotype: its genotype, or None where there is only an architecture.
        architecture: the architecture, as plain data.
        batch_norm_epsilon: of every batch norm, or None for PyTorch's own.
        card: data, metrics, cost, versions, command.
        examples: some real inputs, [count, channels, height, width] from 0 to 1, for checks; never written.
    """

    name: str
    network: nn.Module
    task: Task
    class_names: Sequence[str]
    preprocessing: Mapping[str, Any]
    space: Mapping[str, Any]
    genotype: Mapping[str, Any] | None
    architecture: Any
    batch_norm_epsilon: float | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    examples: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.class_names) != self.task.num_classes:
            raise UsageError(f"a model of {self.task.num_classes} classes needs as many names, got {self.class_names}")
        network = copy.deepcopy(self.network).to(
            device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format
        )  # type: ignore[call-overload]
        object.__setattr__(self, "network", network.eval().requires_grad_(False))

    @property
    def parameters(self) -> int:
        """How many trainable numbers it has."""
        return sum(p.numel() for p in self.network.parameters())

    def deployed(self) -> nn.Module:
        """From pixels to logits: see `Deployed`."""
        return Deployed(self.network, self.preprocessing).eval()

    def inputs(self) -> list[Tensor]:
        """What an exported file is checked on: random pixels and, where there are any, real ones; batches of 1 and 7."""
        generator = torch.Generator().manual_seed(0)
        batches = [torch.rand(n, *self.task.input_shape, generator=generator) for n in CHECKED_BATCHES]
        if self.examples is not None:
            batches += [self.examples[:n] for n in CHECKED_BATCHES]
        return batches

    def to_json(self, kind: str) -> dict[str, Any]:
        """The content of `model.json`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": kind,
            "name": self.name,
            "parameters": self.parameters,
            "task": {"input_shape": list(self.task.input_shape), "num_classes": self.task.num_classes},
            "class_names": list(self.class_names),
            "preprocessing": dict(self.preprocessing),
            "batch_norm_epsilon": self.batch_norm_epsilon,
            "space": dict(self.space),
            "genotype": self.genotype,
            "architecture": self.architecture,
            "card": dict(self.card),
        }

    def with_card(self, **entries: Any) -> Model:
        """The same model with more on its card."""
        return replace(self, card={**self.card, **entries})


class Deployed(nn.Module):
    """A network behind its preprocessing: pixels [n, channels, height, width] from 0 to 1 -> logits [n, classes].

    It does what validation and test did, so that an exported file gives the answers that were measured.
    """

    def __init__(self, network: nn.Module, preprocessing: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        known = {"height", "width", "channels", "scale", "whiten", "upsample", "crop"}
        if unknown := sorted(set(preprocessing) - known):
            raise UsageError(f"the preprocessing has {unknown[0]!r}, which this archsmith does not know")
        height, width = (int(preprocessing.get(k, 0)) for k in ("height", "width"))
        factor = float(preprocessing.get("upsample", 1.0))
        self.whiten = bool(preprocessing.get("whiten", False))
        # The least deviation: nn.augment.whiten says why.
        self.least = 1.0 / (255.0 * max(1, height * width * int(preprocessing.get("channels", 1))) ** 0.5)
        self.larger = (round(factor * height), round(factor * width)) if factor != 1.0 else None
        self.size = (height, width)

    def forward(self, images: Tensor) -> Tensor:
        """Logits for a batch of any size."""
        x = images
        if self.whiten:
            mean = x.mean((1, 2, 3), keepdim=True)
            deviation = x.std((1, 2, 3), correction=0, keepdim=True).clamp_min(self.least)
            x = (x - mean) / deviation
        if self.larger is not None:
            x = F.interpolate(x, size=self.larger, mode="bilinear", align_corners=False)
            top, left = ((big - small) // 2 for big, small in zip(self.larger, self.size, strict=True))
            x = x[:, :, top : top + self.size[0], left : left + self.size[1]]
        logits: Tensor = self.network(x)
        return logits


def write_json(path: Path, value: Any) -> None:
    """Readable JSON, NaN refused."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """The content of a folder's `model.json`. Raises UsageError when it is none of ours, or of a later version."""
    path = folder / CARD
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} has no {CARD}: it is not what `archsmith export` writes") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    return checked_card(value, path)


def checked_card(value: Any, path: Path) -> dict[str, Any]:
    """The content of a `model.json`, once it has the shape of one."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UsageError(f'{path} is not the card of an archsmith model: it has no "format": "{FORMAT}"')
    if value.get("version") != VERSION:
        raise UsageError(f"{path} is of version {value.get('version')!r}; this archsmith reads {VERSION}")
    try:
        task = Task(tuple(value["task"]["input_shape"]), value["task"]["num_classes"])
        named = [str(name) for name in value["class_names"]]
        if len(named) != task.num_classes:
            raise ValueError(f"{len(named)} class names for {task.num_classes} classes")
        _check_preprocessing(value["preprocessing"], task)
        epsilon = value["batch_norm_epsilon"]
        if epsilon is not None and not (_is_number(epsilon) and 0 < epsilon < math.inf):
            raise ValueError(f"batch_norm_epsilon must be a number above 0 or null, got {epsilon!r}")
        if not isinstance(value["name"], str):
            raise ValueError(f"name must be text, got {value['name']!r}")
        if not isinstance(value["card"], dict):
            raise ValueError(f"card must be an object, got {type(value['card']).__name__}")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    return value


def _check_preprocessing(value: Any, task: Task) -> None:
    """Raise ValueError unless it fits the task and asks for no more memory than images take."""
    if math.prod(task.input_shape) > MOST_INPUTS:
        raise ValueError(f"one input may have at most {MOST_INPUTS:,} numbers, and input_shape is {task.input_shape}")
    if not isinstance(value, dict):
        raise ValueError(f"preprocessing must be an object, got {type(value).__name__}")
    factor = value.get("upsample", 1.0)
    if not (_is_number(factor) and 1 <= factor <= MOST_UPSAMPLE):
        raise ValueError(f"upsample must be a number from 1 to {MOST_UPSAMPLE}, got {factor!r}")
    if value:
        for name, size in zip(("channels", "height", "width"), task.input_shape, strict=True):
            if value.get(name) != size:
                raise ValueError(f"preprocessing's {name} must be {size}, as in input_shape, got {value.get(name)!r}")
    Deployed(nn.Identity(), value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder to write an export into, which takes its place when the block ends well, and goes when it does not.

    An earlier export is replaced. Raises UsageError when anything else is there, or the place cannot be written.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / CARD).is_file()):
        raise UsageError(f"{path} is there already and is no earlier export; name another place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise UsageError(f"cannot write to {path.parent}: {error.strerror or error}") from None
    try:
        os.chmod(made, 0o755)  # mkdtemp makes it private
        yield made
        if path.exists():
            shutil.rmtree(path)
        os.replace(made, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)
