"""The update rules that Bello et al. 2017, "Neural Optimizer Search with Reinforcement Learning", named, as genotypes.

The optimizers are `PowerSign` and `AddSign`.
"""

from __future__ import annotations

from archsmith.core.child import Task
from archsmith.core.genotype import Genotype
from archsmith.core.space import identity
from archsmith.discovered.network import Discovered
from archsmith.spaces.update_rule import UpdateRule

_QUESTIONS = ("op1", "op2", "u1", "u2", "binary")


def _discovered(name: str, summary: str, *groups: tuple[str, str, str, str, str]) -> Discovered:
    space = UpdateRule(groups=len(groups))
    answers = {
        f"{i}.{question}": answer
        for i, group in enumerate(groups)
        for question, answer in zip(_QUESTIONS, group, strict=True)
    }
    return Discovered(
        name=name,
        summary=summary,
        space=space,
        genotype=Genotype(identity(space), dict(answers)),
        task=Task((3, 32, 32), 10),
    )


def power_sign() -> Discovered:
    """exp(sign(g) * sign(m)) * g: e times the gradient where it agrees with its average, 1/e of it elsewhere."""
    return _discovered(
        "power_sign",
        "PowerSign without a decay (Bello et al. 2017, section 4.3)",
        ("sign(g)", "sign(m)", "x", "x", "x*y"),
        ("group 0", "g", "exp", "x", "x*y"),
    )


def add_sign() -> Discovered:
    """(1 + sign(g) * sign(m)) * g: twice the gradient where it agrees with its average, nothing elsewhere."""
    return _discovered(
        "add_sign",
        "AddSign without a decay (Bello et al. 2017, section 4.3)",
        ("sign(g)", "sign(m)", "x", "x", "x*y"),
        ("1", "group 0", "x", "x", "x+y"),
        ("group 1", "g", "x", "x", "x*y"),
    )
