"""An update rule as one plain PyTorch file: a class like those of torch.optim, which needs no archsmith.

The state is called and shaped as `archsmith.nn.update_rule.RuleOptimizer` has it, so that a `state_dict` fits both.
"""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from archsmith import __version__
from archsmith._describe import Thing, find
from archsmith._export.cell import MARK, place_file
from archsmith._export.source import one_line
from archsmith._search import Run
from archsmith.core.errors import UsageError
from archsmith.core.expression import Expression
from archsmith.core.space import decode
from archsmith.discovered import NETWORKS, Discovered
from archsmith.nn.update_language import AVERAGES, RESTARTS, SCHEDULED, UPDATE_RULES
from archsmith.nn.update_rule import RuleOptimizer, arguments_of, rule_of, source_of
from archsmith.spaces import UpdateRule

_FILE = '''\
"""{title}

{about}
"""

{imports}import torch


{update}

class {name}(torch.optim.Optimizer):
    """w <- w - lr * ({formula}).

{words}    Args:
        params: parameters or groups, real and dense.
        lr: the learning rate{rate}.
        weight_decay: of the weights, so much is added to the gradient.
{arguments}    """

    def __init__(self, params, lr={lr}, *, weight_decay=0.0{signature}):
        if not 0 <= lr or not 0 <= weight_decay:
            raise ValueError(f"lr and weight_decay must be at least 0, got {{lr}} and {{weight_decay}}")
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, {defaults}step=0))

    @torch.no_grad()
    def step(self, closure=None):
        """Change every parameter that has a gradient; gives what `closure`, called first, gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
{decays}            group["step"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
{state}                p.add_(update({call}), alpha=-float(group["lr"]))
        return loss
'''

_AVERAGE = {
    "m": "state[{name!r}].lerp_(g, 1 - betas[0])",
    "v": "state[{name!r}].mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])",
    "gamma": "state[{name!r}].mul_(betas[2]).add_(g**3, alpha=1 - betas[2])",
}
_DECAY = {
    "linear_decay": "1 - done",
    "cosine_decay": "0.5 * (1 + math.cos(math.pi * done))",
    "restart_decay": f"0.5 * (1 + math.cos(math.pi * max(({RESTARTS} * done + 1e-9) % 1 - 1e-9, 0)))",
    "annealing": 'torch.tensor((1 + group["step"]) ** -0.275, dtype=torch.float64)',
}
_NAMES = {"power_sign": "PowerSign", "add_sign": "AddSign"}


def is_rule(architecture: Any) -> bool:
    """Whether an architecture is one of update rules."""
    return isinstance(architecture, dict) and architecture.get("kind") == UpdateRule.kind


def write_optimizer(thing: Run | Thing, path: Path | None, *, force: bool = False) -> Path:
    """Write the optimizer of a run's best rule, or of a rule, as a file; run it, compare it, and give its path.

    A path that does not end with .py is a folder, and the file in it is called optimizer.py. An earlier export there is
    replaced. Raises UsageError when there is no rule, or the place is taken.
    """
    name, title, rate = "FoundOptimizer", "An update rule as plain PyTorch.", None
    if isinstance(thing, Run):
        best = thing.needed_best("there is nothing to export")
        architecture = decode(thing.space, best.genotype)
        title = f"The update rule of trial {best.number} of the search {one_line(thing.name)!r}, as plain PyTorch."
        rate = best.result.metrics.get("learning_rate") if best.result is not None else None
        default = Path(f"{thing.name}-source")
    else:
        if isinstance(thing, str) and thing in NETWORKS:
            thing = NETWORKS[thing]()
        architecture, default = find(thing).architecture, Path("optimizer.py")
        if isinstance(thing, Discovered):
            name, title, default = _NAMES[thing.name], f"{thing.summary}, as plain PyTorch.", Path(f"{thing.name}.py")
    written = UpdateRule().expression(architecture)
    rule = rule_of(written)
    about = [f"{MARK}{__version__}, from the rule (Bello et al. 2017, section 3):"]
    about += [f"    {line}" for line in textwrap.wrap(UPDATE_RULES.show(written), 112)]
    text = optimizer_file(rule, name, title, "\n".join(about), rate)
    _check(rule, text, name)
    path = default if path is None else path
    path = path if path.suffix == ".py" else path / "optimizer.py"
    place_file(text, path, force=force)
    return path


def optimizer_file(rule: Expression, name: str, title: str, about: str, rate: float | None = None) -> str:
    """The text of the file, of a rule in its simplified form."""
    inputs = arguments_of(rule)
    averages = [a for a in AVERAGES if a in inputs]
    timed = [d for d in (*SCHEDULED, "annealing") if d in inputs]
    scheduled = [d for d in SCHEDULED if d in inputs]
    words, arguments, signature, defaults, decays, state = "", "", "", "", "", ""
    if averages:
        kept = ", ".join(f"{a} of g{('', '^2', '^3')[AVERAGES.index(a)]}" for a in averages)
        words += _wrapped(f"Running averages, corrected for their start at zero: {kept}.", 4)
        arguments += "        betas: how much of the averages of g, g^2 and g^3 stays at each step.\n"
        signature += ", betas=(0.9, 0.999, 0.999)"
        defaults += "betas=betas, "
        lines = ["state, betas = self.state[p], group['betas']", "state['step'] = state.get('step', 0) + 1"]
        for a in averages:
            beta = f"betas[{AVERAGES.index(a)}]"
            lines.append(f"if {a!r} not in state:\n    state[{a!r}] = torch.zeros_like(p)")
            lines.append(_AVERAGE[a].format(name=a))
            lines.append(f"{a} = state[{a!r}] / (1 - {beta} ** state['step'])")
        state = textwrap.indent("\n".join(lines) + "\n", " " * 16).replace("'", '"')
    if UPDATE_RULES.is_fresh(rule):
        words += _wrapped("Noise and dropout are drawn from torch's seed.", 4)
    if timed:
        if scheduled:
            arguments += "        total_steps: how long the training is, which a decay follows.\n"
            signature += ", total_steps"
            defaults += "total_steps=total_steps, "
            decays += 'done = min(group["step"] / group["total_steps"], 1)\n'
        for d in timed:
            value = _DECAY[d] if d == "annealing" else f"torch.tensor({_DECAY[d]}, dtype=torch.float64)"
            decays += f"{d} = {value}\n"
        decays = textwrap.indent(decays, " " * 12)
    return _FILE.format(
        title=one_line(title),
        about=about,
        imports="import math\n\n" if {"cosine_decay", "restart_decay"} & set(timed) else "",
        update=source_of(rule),
        name=name,
        formula=UPDATE_RULES.show(rule),
        words=words + ("\n" if words else ""),
        rate="" if rate is None else "; the search found this one best",
        lr=repr(float(rate if rate is not None else 0.1)),
        arguments=arguments,
        signature=signature,
        defaults=defaults,
        decays=decays,
        state=state,
        call=", ".join("p" if name == "w" else name for name in inputs),
    )


def _wrapped(text: str, indent: int) -> str:
    return textwrap.indent(textwrap.fill(text, 116 - indent), " " * indent) + "\n"


def _check(rule: Expression, text: str, name: str) -> None:
    """Raise UsageError unless the text takes the optimizer's steps, random ones from the same seed."""
    scope: dict[str, Any] = {"__name__": "written"}
    exec(compile(text, "optimizer.py", "exec"), scope)
    draws = torch.Generator().manual_seed(0)
    fresh = [torch.randn(shape, dtype=torch.float64, generator=draws) for shape in ((3, 4), (5,))]
    gradients = [[torch.randn(p.shape, dtype=torch.float64, generator=draws) for p in fresh] for _ in range(4)]
    total: dict[str, Any] = {"total_steps": 5} if set(SCHEDULED) & set(arguments_of(rule)) else {}

    def stepped(make: Any) -> Iterable[torch.Tensor]:
        params = [torch.nn.Parameter(copy.deepcopy(p)) for p in fresh]
        optimizer = make(params)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for step in gradients:
                for p, g in zip(params, step, strict=True):
                    p.grad = g.clone()
                optimizer.step()
        return params

    ours = stepped(lambda p: RuleOptimizer(p, rule, 0.01, weight_decay=0.1, foreach=False, **total))
    theirs = stepped(lambda p: scope[name](p, lr=0.01, weight_decay=0.1, **total))
    for a, b in zip(ours, theirs, strict=True):
        if not torch.allclose(a, b, 1e-9, 1e-9, equal_nan=True):
            raise UsageError(
                "the written file does not repeat the optimizer's steps; this is a fault of archsmith's, please report it "
                f"with the rule {UPDATE_RULES.show(rule)}"
            )
