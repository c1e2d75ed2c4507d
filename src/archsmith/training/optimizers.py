"""The optimizers that a configuration of `ImageClassification` may name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from archsmith.core.child import Child
from archsmith.nn.muon import Muon, muon_groups
from archsmith.training.isolation import resolve_precision

if TYPE_CHECKING:
    from archsmith.training.image_classification import ImageClassification


def optimizer_of(config: ImageClassification, child: Child, learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer that a child brings, or else that of the configuration."""
    if child.optimizer is not None:
        return child.optimizer(child.model.parameters(), learning_rate)
    if config.optimizer == "muon":
        device = next(child.model.parameters()).device
        return Muon(
            muon_groups(child.model, decay_norms=config.decay_norms),
            learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            precision=torch.bfloat16 if resolve_precision(config.precision, device) == "bf16" else torch.float32,
        )
    parameters = _groups(config, child.model)
    if config.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, learning_rate, weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "rmsprop":
        # TensorFlow, which the paper used, has the epsilon inside of the root.
        return torch.optim.RMSprop(
            parameters,
            learning_rate,
            alpha=0.9,
            eps=1e-3,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.SGD(
        parameters,
        learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _groups(config: ImageClassification, model: nn.Module) -> Any:
    """All parameters, or those that decay and those that do not."""
    if config.decay_norms:
        return model.parameters()
    parameters = list(model.parameters())
    decaying = [parameter for parameter in parameters if parameter.dim() > 1]
    others = {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0}
    return [group for group in ({"params": decaying}, others) if group["params"]]
