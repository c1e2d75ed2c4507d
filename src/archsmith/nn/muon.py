"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").

The momentum of each filter, as a matrix [outputs, inputs * height * width], is replaced by the nearest orthogonal matrix,
which a few Newton-Schulz steps approximate, so that all directions are learned at one rate. As in the authors' networks for
CIFAR-10 (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"), the norm of each filter is kept fixed: a norm layer
follows, so that the norm changes nothing but the size of steps. All other parameters are learned by SGD with Nesterov's momentum.

`torch.optim.Muon` takes matrices only, no filters, and does not keep their norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial that the authors tuned


class Muon(torch.optim.Optimizer):
    """The optimizer. A group with `filters` true is learned by Muon, any other by SGD.

    Args:
        groups: parameter groups, as `muon_groups` makes them.
        lr: the learning rate of all groups.
        momentum: of the filters.
        others_momentum: of all other parameters.
        weight_decay: of parameters that are no filters, whose group does not say otherwise.
        steps: Newton-Schulz steps.
        precision: in which the steps are computed: torch.bfloat16 suffices, where the processor multiplies in it.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.6,
        others_momentum: float = 0.9,
        weight_decay: float = 0.0,
        steps: int = 3,
        precision: torch.dtype = torch.float32,
    ) -> None:
        defaults = {
            "lr": lr,
            "filters": False,
            "momentum": momentum,
            "others_momentum": others_momentum,
            "weight_decay": weight_decay,
            "steps": steps,
        }
        self._precision = precision
        super().__init__(groups, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; gives the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients: list[Any] = [p.grad for p in parameters]
            momenta = [self._momentum_of(p) for p in parameters]
            if group["filters"]:
                self._learn_filters(group, parameters, gradients, momenta)
            else:
                _learn_by_sgd(group, parameters, gradients, momenta)
        return loss

    def _momentum_of(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum

    def _learn_filters(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]
    ) -> None:
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        directions = torch._foreach_add(gradients, momenta, alpha=group["momentum"])  # Nesterov's
        norms = torch._foreach_norm(parameters)
        for parameter, direction, norm in zip(parameters, directions, norms, strict=True):
            matrix = direction.reshape(len(direction), -1)
            update = orthogonal(matrix, group["steps"], self._precision).view_as(parameter)
            parameter.mul_(len(parameter) ** 0.5 / norm.clamp_min(1e-7)).add_(update, alpha=-group["lr"])


def _learn_by_sgd(
    group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]
) -> None:
    if group["weight_decay"]:
        gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
    torch._foreach_mul_(momenta, group["others_momentum"])
    torch._foreach_add_(momenta, gradients)
    directions = torch._foreach_add(gradients, momenta, alpha=group["others_momentum"])
    torch._foreach_add_(parameters, directions, alpha=-group["lr"])


def orthogonal(matrix: Tensor, steps: int, precision: torch.dtype = torch.float32) -> Tensor:
    """About the orthogonal matrix nearest to `matrix` [rows, columns]: singular values near 1, from 0.7 to 1.2 after 5 steps.

    Newton-Schulz: x becomes a x + b (x x') x + c (x x')^2 x.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(precision)
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


def muon_groups(model: nn.Module, *, decay_norms: bool = False) -> list[dict[str, Any]]:
    """The parameter groups of a model: the filters that Muon learns, and the others.

    Filters are those of convolutions without groups and without a bias: a norm layer follows these.

    Args:
        model: the model.
        decay_norms: whether weight decay holds for parameters of fewer than two dimensions.
    """
    filters = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.bias is None
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    others = [p for p in parameters if id(p) not in filters]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) in filters], "filters": True},
        {"params": [p for p in others if decay_norms or p.dim() > 1]},
        {"params": [p for p in others if not decay_norms and p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
