"""An optimizer that takes the steps of any update rule (Bello et al. 2017, section 3).

A rule is one formula of elementwise functions, so parameters need not be told apart: those of a group are laid end to end
in flat buffers, and the formula is computed once for each. Buffers are small enough for a processor's cache and a
parameter larger than one is computed in pieces, so that what lies between the formula's steps never goes to memory;
on a GPU they are large, and there are few. benchmarks/results/optimizers.md has what that gives, beside a loop over
the parameters (`foreach=False`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from archsmith.core.errors import UsageError
from archsmith.core.expression import Expression
from archsmith.core.shown import shown
from archsmith.nn.update_language import AVERAGES, RESTARTS, SCHEDULED, UPDATE_RULES, follows_gradient, uses

# Elements of a flat buffer: on a processor the handful of values of a formula stay in the cache of a core; on a GPU the
# start of a kernel no longer counts.
_CPU_BUFFER, _GPU_BUFFER = 1 << 16, 1 << 24


def rule_of(rule: Expression | str) -> Expression:
    """The simplified form of a rule, or of its text: what is computed.

    Raises IllegalExpression for what the language does not have, and UsageError for a rule without the gradient.
    """
    found = UPDATE_RULES.parse(rule) if isinstance(rule, str) else UPDATE_RULES.from_json(rule.to_json())
    if not follows_gradient(found):
        raise UsageError(
            f"the rule {UPDATE_RULES.show(found)} does not follow the gradient, so nothing is learned by it"
        )
    return UPDATE_RULES.simplify(found)


def arguments_of(rule: Expression) -> list[str]:
    """What the formula is computed from, in order: g, w, the averages and the decays that it uses."""
    used = uses(rule)
    names = ["g", *(name for name in ("w", *AVERAGES, *SCHEDULED) if name in used)]
    return [*names, "annealing"] if "annealed_noise" in used else names


def source_of(rule: Expression, name: str = "update") -> str:
    """The formula as a Python function of flat tensors."""
    lines, result = UPDATE_RULES.statements(rule)
    body = "".join(f"    {line}\n" for line in [*lines, f"return {result}"])
    return f"def {name}({', '.join(arguments_of(rule))}):\n{body}"


def decays_at(done: float, steps: int, *, periods: float = 0.5, restarts: float = RESTARTS) -> dict[str, float]:
    """The decays when a part of the training, from 0 to 1, and so many steps are done (section 3.2 of the paper).

    `periods` is how often the cosine goes down and up again, `restarts` how often that which restarts goes down.
    """
    done = min(max(done, 0.0), 1.0)
    tiny = 1e-9  # a restart is at the step that it falls on, however its part of the whole is rounded
    since = max((restarts * done + tiny) % 1.0 - tiny, 0.0)
    return {
        "linear_decay": 1.0 - done,
        "cosine_decay": 0.5 * (1.0 + math.cos(2 * math.pi * periods * done)),
        "restart_decay": 0.5 * (1.0 + math.cos(math.pi * since)),
        "annealing": (1.0 + steps) ** (-0.55 / 2),  # a deviation, and the paper's are variances
    }


def only_signs_of(rule: Expression) -> frozenset[str]:
    """The averages of which nothing but the sign is read: those need no correction for their start at zero."""
    inside = [part for whole in rule.walk() if whole.name != "sign" for part in whole.operands]
    return frozenset(AVERAGES) - {str(part.name) for part in [*inside, rule]}


class RuleOptimizer(torch.optim.Optimizer):
    """w <- w - lr * rule, for any rule of the language; it keeps the running averages that the rule uses, and no others.

    The averages are corrected for their start at zero, as in Adam. Noise and dropout are drawn from torch's seed. A rule
    may give NaN or infinity: then so are the weights, and whoever watches the loss sees it.

    Args:
        params: parameters or groups, real and dense.
        rule: an expression of `UPDATE_RULES`, or its text, such as "exp(sign(g) * sign(m)) * g".
        lr: the learning rate, a number or a tensor of one.
        weight_decay: of the weights, so much is added to the gradient, as `torch.optim.SGD` does.
        betas: how much of the averages of g, g^2 and g^3 stays at each step.
        total_steps: how long the training is, for rules with a decay; what `set_progress` tells goes before it.
        foreach: whether many parameters are computed at once. False: one by one, which random rules draw for in another
            order.
        compile: whether the formula is compiled by `torch.compile`, which needs a compiler.

    Raises UsageError for settings out of range, and IllegalExpression for a rule that is none.
    """

    _cycles: Mapping[str, float] = {}
    """How often decays go round, where that is not what the language says."""

    def __init__(
        self,
        params: Iterable[Any],
        rule: Expression | str,
        lr: float | Tensor = 0.1,
        *,
        weight_decay: float = 0.0,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.999),
        total_steps: int | None = None,
        foreach: bool = True,
        compile: bool = False,
    ) -> None:
        self.rule, self._foreach, self._compile = rule_of(rule), foreach, compile
        self._prepare()
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "total_steps": total_steps, "step": 0}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's. Raises UsageError for settings out of range, and for parameters that are not real."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except UsageError:
            self.param_groups.pop()
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({UPDATE_RULES.show(self.rule)!r})"

    def set_progress(self, done: float) -> None:
        """Tell, before a step, which part of the training is done, from 0 to 1: what decays follow."""
        self._done: float | None = float(done)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change every parameter that has a gradient; gives what `closure`, called first, gives.

        Raises UsageError for a sparse gradient, and for a rule with a decay where nobody says how long the training is.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            decays = self._decays(group)
            group["step"] += 1
            parameters = [p for p in group["params"] if p.grad is not None]
            for buffer in self._buffers_of(index, parameters):
                buffer.step += 1
                for p in buffer.parameters:
                    self.state[p]["step"] = buffer.step
                self._update(group, buffer, decays)
        return loss

    # --- one step -----------------------------------------------------------------------------------------------------

    def _update(self, group: dict[str, Any], buffer: _Buffer, decays: dict[str, Tensor]) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        scale = -float(lr) if not isinstance(lr, Tensor) else -1.0
        for at, (g, w, averages) in enumerate(buffer.pieces(self._reads_weights or decay != 0)):
            if decay != 0:
                g = g.add(w, alpha=decay)
            values = {"g": g, "w": w, **decays}
            for name, average in zip(self._averages, averages, strict=True):
                power = AVERAGES.index(name) + 1
                beta = group["betas"][power - 1]
                if power == 1:
                    average.lerp_(g, 1 - beta)
                elif power == 2:
                    average.mul_(beta).addcmul_(g, g, value=1 - beta)
                else:
                    average.mul_(beta).add_(g**3, alpha=1 - beta)
                values[name] = average if name in self._only_signs else average / (1 - beta**buffer.step)
            update = self._function(*(values[name] for name in self._arguments))
            if isinstance(lr, Tensor):
                update = update * lr
            buffer.take(at, update, w, scale)
        buffer.write(scale)

    def _decays(self, group: dict[str, Any]) -> dict[str, Tensor]:
        if not self._timed:
            return {}
        done, steps, total = self._done, group["step"], group["total_steps"]
        if done is None and total is not None:
            done = steps / total
        if done is None and set(SCHEDULED) & set(self._arguments):
            raise UsageError(
                f"the rule {UPDATE_RULES.show(self.rule)} has a decay over the whole training, and nobody says how long "
                "that is; give total_steps, or call set_progress before each step"
            )
        values = decays_at(done or 0.0, steps, **self._cycles)
        return {name: torch.tensor(values[name], dtype=torch.float64) for name in self._timed}

    # --- the layout in memory -----------------------------------------------------------------------------------------

    def _buffers_of(self, index: int, parameters: list[Tensor]) -> list[_Buffer]:
        key = [p.data_ptr() for p in parameters]  # and not what they are: a model may be moved, or laid out anew
        known = self._layouts.get(index)
        if known is None or known[0] != key:
            known = self._layouts[index] = key, self._lay_out(parameters)
        for p in parameters:
            assert p.grad is not None
            if p.grad.layout != torch.strided:
                raise UsageError(f"{type(self).__name__} needs dense gradients, and one of {tuple(p.shape)} is sparse")
        return known[1]

    def _lay_out(self, parameters: list[Tensor]) -> list[_Buffer]:
        """Buffers of parameters of one device, type and age, with their averages in them."""
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        alone: list[list[Tensor]] = []
        for p in parameters:
            room = _CPU_BUFFER if p.device.type == "cpu" else _GPU_BUFFER
            if not self._foreach or p.numel() >= room:
                alone.append([p])
            else:
                alike.setdefault((p.device, p.dtype, self.state[p].get("step", 0), room), []).append(p)
        together: list[list[Tensor]] = []
        for (_, _, _, room), members in alike.items():
            filled = room + 1  # the first begins a buffer
            for p in members:
                if filled + p.numel() > room:
                    together.append([])
                    filled = 0
                together[-1].append(p)
                filled += p.numel()
        return [self._buffer(members, len(members) == 1) for members in [*together, *alone]]

    def _buffer(self, members: list[Tensor], alone: bool) -> _Buffer:
        age = self.state[members[0]].get("step", 0)
        averages: list[Tensor] = []
        for name in self._averages:
            before = [self.state[p].get(name) for p in members]
            if alone:
                average = torch.zeros_like(members[0])
                views: Sequence[Tensor] = [average]
            else:
                average = members[0].new_zeros(sum(p.numel() for p in members))
                views = _views(average, members)
            for p, view, old in zip(members, views, before, strict=True):
                if old is not None:
                    view.copy_(old)
                self.state[p][name] = view
            averages.append(average)
        return _Buffer(members, age, alone, averages, self._foreach)

    # --- what is made from the rule, and never saved ------------------------------------------------------------------

    def _prepare(self) -> None:
        self._arguments = arguments_of(self.rule)
        self._averages = [name for name in AVERAGES if name in self._arguments]
        self._only_signs = only_signs_of(self.rule)
        self._reads_weights = "w" in self._arguments
        self._timed = [name for name in (*SCHEDULED, "annealing") if name in self._arguments]
        self._done = None
        self._layouts: dict[int, tuple[list[int], list[_Buffer]]] = {}
        scope: dict[str, Any] = {"torch": torch}
        exec(source_of(self.rule), scope)  # text of the language's own symbols and of numbers, of nothing else
        function = scope["update"]
        self._function: Callable[..., Tensor] = torch.compile(function, dynamic=True) if self._compile else function

    def __getstate__(self) -> dict[str, Any]:
        own = {"rule": self.rule, "_foreach": self._foreach, "_compile": self._compile, "_cycles": self._cycles}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()  # states that were loaded lie in no buffer yet


def _check(group: dict[str, Any]) -> None:
    rules: dict[str, tuple[Any, bool, str]] = {
        "lr": (group["lr"], _at_least(group["lr"], 0), "a number of at least 0"),
        "weight_decay": (group["weight_decay"], _at_least(group["weight_decay"], 0), "a number of at least 0"),
        "betas": (
            group["betas"],
            len(group["betas"]) == 3 and all(_at_least(b, 0) and b < 1 for b in group["betas"]),
            "three numbers from 0 to below 1",
        ),
        "total_steps": (
            group["total_steps"],
            group["total_steps"] is None or (type(group["total_steps"]) is int and group["total_steps"] >= 1),
            "a whole number of at least 1, or None",
        ),
    }
    for name, (value, holds, rule) in rules.items():
        if not holds:
            raise UsageError(f"{name} must be {rule}, got {shown(value)}")
    for p in group["params"]:
        if not p.is_floating_point():
            raise UsageError(f"an update rule is of real numbers, and a parameter of {tuple(p.shape)} is {p.dtype}")


def _at_least(value: Any, least: float) -> bool:
    return isinstance(value, int | float | Tensor) and not isinstance(value, bool) and bool(least <= value < math.inf)


def _views(flat: Tensor, members: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([p.numel() for p in members])  # type: ignore[no-untyped-call]
    return [part.view(p.shape) for part, p in zip(parts, members, strict=True)]


@dataclass
class _Buffer:
    """Parameters that are computed at once: small ones copied end to end, or a large one where it lies, in pieces."""

    parameters: list[Tensor]
    step: int
    alone: bool
    averages: list[Tensor]
    in_pieces: bool

    def __post_init__(self) -> None:
        first = self.parameters[0]
        # Dense memory in any order of dimensions, such as channels last, is one line of numbers.
        self.order = sorted(range(first.dim()), key=lambda d: first.stride()[d], reverse=True)
        self.flat = self.in_pieces and self.alone and first.permute(self.order).is_contiguous()
        if not self.alone:
            size = sum(p.numel() for p in self.parameters)
            self.gradients, self.weights = first.new_empty(size), first.new_empty(0)
            self.gradient_views, self.weight_views = _views(self.gradients, self.parameters), list[Tensor]()

    def pieces(self, with_weights: bool) -> Iterable[tuple[Tensor, Tensor, list[Tensor]]]:
        """Gradient, weights (if they are read, or changed in place) and averages of each piece, as flat tensors."""
        if self.alone:
            (p,) = self.parameters
            g = p.grad
            assert g is not None
            if not self.flat:
                return [(g, p.detach(), self.averages)]
            room = _CPU_BUFFER if p.device.type == "cpu" else _GPU_BUFFER
            lines = [g.permute(self.order).reshape(-1)]  # a copy, where the gradient lies in another order
            lines += [t.permute(self.order).view(-1) for t in (p.detach(), *self.averages)]
            pieces = zip(*(line.split(room) for line in lines), strict=True)  # type: ignore[no-untyped-call]
            return [(piece[0], piece[1], list(piece[2:])) for piece in pieces]
        torch._foreach_copy_(self.gradient_views, [p.grad for p in self.parameters if p.grad is not None])
        if with_weights:
            if not self.weight_views:
                self.weights = torch.empty_like(self.gradients)
                self.weight_views = _views(self.weights, self.parameters)
            torch._foreach_copy_(self.weight_views, [p.detach() for p in self.parameters])
        return [(self.gradients, self.weights, self.averages)]

    def take(self, at: int, update: Tensor, w: Tensor, scale: float) -> None:
        """Take the update of a piece: at once of a large parameter, kept for `write` of small ones."""
        if self.alone:
            w.add_(update, alpha=scale)
        elif update is not self.gradients:
            self.gradients.copy_(update)

    def write(self, scale: float) -> None:
        """Change small parameters by the update that was kept."""
        if not self.alone:
            torch._foreach_add_([p.detach() for p in self.parameters], self.gradient_views, alpha=scale)
