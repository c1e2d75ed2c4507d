"""The classifier of a trained network: found, replaced by one for other classes, and read before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from archsmith.core.errors import UsageError

AUXILIARY = "auxiliary"


def classifier_of(model: nn.Module, input_shape: Sequence[int]) -> tuple[str, nn.Linear]:
    """The linear layer whose output is the network's own, with its name.

    It is found by running the network on one blank image, so that it works for any network that ends in one. Raises
    UsageError for one that does not.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and not _is_auxiliary(n)]
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> object:
        return lambda _module, _given, out: outputs.__setitem__(name, out)

    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]  # type: ignore[arg-type]
    was_training = model.training
    try:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            logits = model.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    for name, layer in reversed(layers):
        if name in outputs and outputs[name] is logits:
            return name, layer
    raise UsageError(
        f"the classifier of a {type(model).__name__} cannot be replaced: the network does not end in a linear layer, "
        "so there are no features before one; carry it over from scratch"
    )


def replace_classifier(model: nn.Module, input_shape: Sequence[int], num_classes: int) -> str:
    """Put a fresh linear layer for so many classes where the network's own was, and give its name.

    An auxiliary classifier goes: it knows the old classes, and a new one would stand on features that are trained already.
    """
    name, old = classifier_of(model, input_shape)
    new = nn.Linear(old.in_features, num_classes, device=old.weight.device)
    parent, _, last = name.rpartition(".")
    owner = model.get_submodule(parent)
    if last.isdigit() and isinstance(owner, nn.Sequential):
        owner[int(last)] = new
    else:
        setattr(owner, last, new)
    if isinstance(getattr(model, AUXILIARY, None), nn.Module):
        setattr(model, AUXILIARY, None)
    return name


def load_body(model: nn.Module, tensors: Mapping[str, Tensor], classifier: str) -> None:
    """Load trained weights into all of a network but its classifier; those of an auxiliary head are left.

    Raises UsageError as `check_body` does.
    """
    model.load_state_dict(check_body(model, tensors, classifier), strict=False)


def check_body(model: nn.Module, tensors: Mapping[str, Tensor], classifier: str) -> dict[str, Tensor]:
    """Those of the weights that `load_body` loads.

    Raises UsageError when they are of another network, or of one for images of another size.
    """
    own = model.state_dict()
    body = {k: v for k, v in own.items() if not _of(k, classifier)}
    given = {k: v for k, v in tensors.items() if not _of(k, classifier) and not _is_auxiliary(k)}
    for name in sorted(body.keys() | given.keys()):
        ours, theirs = (tuple(d[name].shape) if name in d else None for d in (body, given))
        if ours != theirs:
            raise UsageError(
                f"the finished weights do not fit the network that is to begin with them: {name} is {theirs or 'missing'} "
                f"and should be {ours or 'absent'}; give images the size and channels that they were trained on"
            )
    return given


@contextmanager
def reading_features(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """Collects what a classifier is given, [n, features], each time the network runs."""
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _module, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()


def set_batch_norm_decay(model: nn.Module, decay: float) -> nn.Module:
    """The same model, every batch norm of it keeping that part of its running averages a step."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = round(1 - decay, 12)
    return model


def slowest_batch_norm(model: nn.Module) -> float | None:
    """The largest part of its running averages that a batch norm keeps a step; None where there is no batch norm."""
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [1 - m for m in momenta if m is not None]
    return max(kept) if kept else None


def _of(key: str, module: str) -> bool:
    return key.startswith(f"{module}.")


def _is_auxiliary(name: str) -> bool:
    return name == AUXILIARY or name.startswith(f"{AUXILIARY}.")
