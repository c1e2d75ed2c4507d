"""Checkpoints, from which a paused training continues as if it had never been interrupted.

A checkpoint has the weights and buffers, the optimizer's state, the state of every random generator, and what the training
loop itself counts. It is one artifact without any code.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.core.errors import ChildFailed
from archsmith.core.evaluator import Context

_STRUCTURE = "structure"


@dataclass(frozen=True)
class Checkpoint:
    """A training that was paused after an epoch, or ended and was kept, as returned by `load_checkpoint`.

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
        optimizer.load_state_dict(copy.deepcopy(self.state["optimizer"]))  # which would go on with the same tensors
        self._restore_rest(optimizer, generator)

    def restore_under(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator | None = None
    ) -> None:
        """The same for a training that goes on with other settings: those of `optimizer`, such as its weight decay, stay.

        The optimizer's state is assigned to parameters by their names, since other settings may group them otherwise.
        Raises ChildFailed where the model has other weights, or the optimizer is of another kind.
        """
        before, now = self.state["optimizer_kind"], type(optimizer).__name__
        if before != now:
            raise ChildFailed(
                f"the training that is to be continued used the optimizer {before}, and its settings now say {now}, which "
                "cannot use its state; keep the optimizer, or train anew"
            )
        try:
            model.load_state_dict(self.state["model"])
        except RuntimeError as error:
            detail = str(error).splitlines()[1:2] or [str(error)]
            raise ChildFailed(
                "the weights of the training that is to be continued do not fit the network of its settings now "
                f"({detail[0].strip()[:300]}); keep the size of the pictures, or search networks that take any size"
            ) from None
        saved, fresh = self.state["optimizer"], optimizer.state_dict()
        place = {name: position for position, name in enumerate(_parameter_names(model, optimizer))}
        states = {
            place[name]: copy.deepcopy(saved["state"][position])
            for position, name in enumerate(self.state["parameters"])
            if position in saved["state"]
        }
        groups = fresh["param_groups"]
        for group, earlier in zip(groups, saved["param_groups"], strict=False):
            if "step" in earlier:  # a count, and no setting
                group["step"] = earlier["step"]
        optimizer.load_state_dict({"state": states, "param_groups": groups})
        self._restore_rest(optimizer, generator)

    def _restore_rest(self, optimizer: torch.optim.Optimizer, generator: torch.Generator | None) -> None:
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
    with suppress(TypeError):
        context.pause(packed(_state_of(context, model, optimizer, generator, extra)))


def keep_checkpoint(
    context: Context,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None = None,
    *,
    extra: Mapping[str, Any] | None = None,
) -> str | None:
    """Keep the state of a training that has ended, so that it can be continued with other settings.

    The arguments are those of `save_checkpoint`. Returns the digest for `Result.checkpoint`, or None if the optimizer's state
    has more than tensors and scalars. Raises TypeError for anything else in `extra`.
    """
    packed(extra or {})
    try:
        tensors = packed(_state_of(context, model, optimizer, generator, extra))
    except TypeError:
        return None
    return context.checkpoint(tensors)


def _state_of(
    context: Context,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "optimizer_kind": type(optimizer).__name__,
        "parameters": _parameter_names(model, optimizer),
        "random": _random_states(torch.device(context.device)),
        "draws": None if generator is None else generator.get_state(),
        "loop": dict(extra or {}),
    }


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of the optimizer's parameters, in the order in which its state counts them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    listed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [names.get(parameter, f"parameter {position}") for position, parameter in enumerate(listed)]


def load_checkpoint(context: Context) -> Checkpoint | None:
    """The checkpoint that `save_checkpoint` or `keep_checkpoint` wrote for this child; None if it starts at its first epoch."""
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
