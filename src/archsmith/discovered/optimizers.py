"""PowerSign and AddSign, the optimizers of Bello et al. 2017, "Neural Optimizer Search with Reinforcement Learning", section 4.3.

Both take a larger step where the gradient has the sign of its running average m, and a smaller one where it has not:

    PowerSign   base ^ (f(t) sign(g) sign(m)) g         e times the gradient or 1/e of it
    AddSign     (alpha + f(t) sign(g) sign(m)) g        twice the gradient or nothing

m <- beta m + (1 - beta) g, and f is 1 or a decay of step t (the first is 0) of T:

    "linear"    1 - t/T
    "cosine"    (1 + cos(2 pi n t/T)) / 2               n periods, 0.5 unless said: from 1 to 0
    "restart"   (1 + cos(pi ((n t) mod T)/T)) / 2       n times from 1 to 0, once unless said

The equations and defaults are those of TensorFlow's PowerSignOptimizer and AddSignOptimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.shown import shown
from archsmith.nn.update_rule import RuleOptimizer

DECAYS = ("none", "linear", "cosine", "restart")


class _SignAgreement(RuleOptimizer):
    """What both have in common; `factor` is the rule's text with {} for f(t) sign(g) sign(m)."""

    def __init__(
        self,
        params: Iterable[Any],
        factor: str,
        lr: float | Tensor,
        beta: float,
        decay: str,
        periods: float | None,
        total_steps: int | None,
        weight_decay: float,
        foreach: bool,
        compile: bool,
    ) -> None:
        if decay not in DECAYS:
            raise UnknownName("decay", str(decay), DECAYS)
        if periods is not None and not (isinstance(periods, int | float) and 0 < periods < 1e6):
            raise UsageError(f"periods must be a number above 0, got {shown(periods)}")
        if periods is not None and decay not in ("cosine", "restart"):
            raise UsageError(f"periods are of the decays cosine and restart, and this one is {decay!r}")
        if decay == "cosine":
            self._cycles = {"periods": 0.5 if periods is None else periods}
        elif decay == "restart":
            self._cycles = {"restarts": 1.0 if periods is None else periods}
        agreement = "sign(g) * sign(m)" if decay == "none" else f"{decay}_decay * (sign(g) * sign(m))"
        super().__init__(
            params,
            f"{factor.format(agreement)} * g",
            lr,
            weight_decay=weight_decay,
            betas=(beta, 0.999, 0.999),
            total_steps=total_steps,
            foreach=foreach,
            compile=compile,
        )


class PowerSign(_SignAgreement):
    """w <- w - lr * base ^ (f(t) sign(g) sign(m)) g.

    Args:
        params: parameters or groups, real and dense.
        lr: the learning rate.
        beta: how much of the average of g stays at each step.
        base: of the power, above 0.
        decay: f, "none" (1 always), "linear", "cosine" or "restart".
        periods: n of the decays "cosine" and "restart".
        total_steps: T, for a decay; `set_progress(done)`, called before each step, may tell it instead.
        weight_decay: of the weights, so much is added to the gradient.
        foreach: whether many parameters are computed at once.
        compile: whether it is compiled by `torch.compile`.

    Raises UsageError for settings out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.1,
        beta: float = 0.9,
        *,
        base: float = math.e,
        decay: str = "none",
        periods: float | None = None,
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        foreach: bool = True,
        compile: bool = False,
    ) -> None:
        if isinstance(base, bool) or not isinstance(base, int | float) or not 0 < base < math.inf or base == 1:
            raise UsageError(f"base must be a number above 0 and not 1, got {shown(base)}")
        log = repr(math.log(base))
        factor = "exp({})" if base == math.e else f"exp({log} * ({{}}))"
        super().__init__(params, factor, lr, beta, decay, periods, total_steps, weight_decay, foreach, compile)


class AddSign(_SignAgreement):
    """w <- w - lr * (alpha + f(t) sign(g) sign(m)) g. With alpha 1 and no decay, disagreement gives no step at all.

    Args:
        params: parameters or groups, real and dense.
        lr: the learning rate.
        beta: how much of the average of g stays at each step.
        alpha: what the signs are added to.
        decay: f, "none" (1 always), "linear", "cosine" or "restart".
        periods: n of the decays "cosine" and "restart".
        total_steps: T, for a decay; `set_progress(done)`, called before each step, may tell it instead.
        weight_decay: of the weights, so much is added to the gradient.
        foreach: whether many parameters are computed at once.
        compile: whether it is compiled by `torch.compile`.

    Raises UsageError for settings out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.1,
        beta: float = 0.9,
        *,
        alpha: float = 1.0,
        decay: str = "none",
        periods: float | None = None,
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        foreach: bool = True,
        compile: bool = False,
    ) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not -math.inf < alpha < math.inf:
            raise UsageError(f"alpha must be a finite number, got {shown(alpha)}")
        factor = f"({float(alpha)!r} + {{}})"
        super().__init__(params, factor, lr, beta, decay, periods, total_steps, weight_decay, foreach, compile)
