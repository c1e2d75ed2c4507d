"""Checkpoints, from which a paused training continues as if it had never been interrupted.

A checkpoint has the weights and buffers, the optimizer's state, the state of every random generator, and what the training
loop itself counts. It is one artifact without any code.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.core.evaluator import Context

_STRUCTURE = "structure"


@dataclass(frozen=True)
class Checkpoint:
    """A training that was paused after an epoch, as returned by `load_checkpoint`.

    Args:
        extra: the further values that were saved, such as the curve so far.
        state: everything that was saved.
        device: where the training continues.
    """

    extra: Mapping[str, Any]
    state: Mapping[str, Any]
    device: torch.device

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator | None = None
    ) -> None:
        """Restore the state in which a training was paused. The model must be on its device and in its memory layout already.
        `generator` is the one that was given to `save_checkpoint`, if any."""
        model.load_state_dict(self.state["model"])
        optimizer.load_state_dict(self.state["optimizer"])
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if (
                    isinstance(value, Tensor)
                    and value.shape == parameter.shape
                    and value.stride() != parameter.stride()
                ):
                    # Fused optimizers read both as one line of numbers, so their layouts must be the same.
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if generator is not None:
            generator.set_state(self.state["draws"])
        _set_random_states(self.state["random"], self.device)


def save_checkpoint(
    context: Context,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None = None,
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Save a training that `context.report` has paused. Does nothing if the child is not paused, so a training loop may
    call it after every report.

    Args:
        context: the child's.
        model, optimizer: what is trained. If the optimizer's state has more than tensors and scalars, nothing is saved and
            the child starts again.
        generator: the training's own generator, if it has one. The global generators of random, NumPy and PyTorch are
            always saved.
        extra: any further state of the training: scalars, strings, tensors, and lists, tuples and dicts of them, such as a
            scheduler's `state_dict()`.

    Raises TypeError for anything else in `extra`.
    """
    if not context.paused:
        return
    packed(extra or {})
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": _random_states(torch.device(context.device)),
        "draws": None if generator is None else generator.get_state(),
        "loop": dict(extra or {}),
    }
    with suppress(TypeError):
        context.pause(packed(state))


def load_checkpoint(context: Context) -> Checkpoint | None:
    """The checkpoint that `save_checkpoint` wrote for this child; None if it starts at its first epoch."""
    tensors = context.resume
    if not tensors:
        return None
    state = unpacked(tensors)
    return Checkpoint(state["loop"], state, torch.device(context.device))


def packed(state: Any) -> dict[str, Tensor]:
    """A structure of dicts, lists, tuples, tensors and scalars as named tensors, one of which is the structure as JSON.

    Raises TypeError for anything else.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[name := f"{len(tensors)}"] = value.detach()
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"dict": [[plain(key), plain(entry)] for key, entry in value.items()]}
        if type(value) in (tuple, list):
            return {type(value).__name__: [plain(entry) for entry in value]}
        if value is None or type(value) in (str, int, float, bool):
            return value
        raise TypeError(
            f"a checkpoint cannot keep a {type(value).__name__}: it holds scalars, texts, tensors, lists, tuples and dicts"
        )

    text = json.dumps(plain(state)).encode()
    return {**tensors, _STRUCTURE: torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def unpacked(tensors: Mapping[str, Tensor]) -> Any:
    """The structure that `packed` took apart."""

    def made(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "dict":
            return {made(key): made(entry) for key, entry in content}
        return [made(entry) for entry in content] if kind == "list" else tuple(made(entry) for entry in content)

    return made(json.loads(bytes(tensors[_STRUCTURE].numpy())))


def _random_states(device: torch.device) -> dict[str, Any]:
    name, words, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (str(name), torch.from_numpy(np.asarray(words).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def _set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if states["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    name, words, *rest = states["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
