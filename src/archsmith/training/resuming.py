"""A training that is put aside, as named tensors, and taken up again as if it had never been interrupted.

What decides the rest of a training: the weights and buffers, the optimizer's state, every generator of random numbers, and
what the loop itself counts. All of it goes into one artifact; nothing of it is code.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.core.evaluator import Context

_STRUCTURE = "structure"


def keep(
    context: Context,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    draws: torch.Generator | None,
    loop: Mapping[str, Any],
) -> None:
    """Keep a training that is put aside after an epoch, with what its loop counts: scalars, tensors, and lists and dicts
    of them. One with a state of other things is not kept, and will begin anew. Does nothing where none is put aside."""
    if not context.paused:
        return
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": _random_states(torch.device(context.device)),
        "draws": None if draws is None else draws.get_state(),
        "loop": loop,
    }
    with suppress(TypeError):
        context.pause(packed(state))


def kept(context: Context) -> dict[str, Any] | None:
    """What `keep` kept of this child; None where it begins at its first epoch."""
    tensors = context.resume
    return None if not tensors else unpacked(tensors)


def restore(
    state: Mapping[str, Any],
    context: Context,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    draws: torch.Generator | None,
) -> None:
    """Bring a training to where `keep` left it; the model is on its device and in its layout already."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                # Fused optimizers read both as one line of numbers, so their layouts must be the same.
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    if draws is not None:
        draws.set_state(state["draws"])
    _set_random_states(state["random"], torch.device(context.device))


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
        raise TypeError(f"a training that is put aside cannot keep a {type(value).__name__}")

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
