r"""The language of update rules (Bello et al. 2017, "Neural Optimizer Search with Reinforcement Learning", section 3).

An expression is the step that is taken, times the learning rate, off the weights: w <- w - learning rate * expression.

    UPDATE_RULES.parse("exp(sign(g) * sign(m)) * g")     PowerSign
    UPDATE_RULES.parse("m / sqrt(v)")                    Adam: a division adds 1e-8 to what it divides by

`OPERANDS`, `UNARY` and `BINARY` are the options of the paper's space, as expressions. Few of them need symbols of their own:
"adam" is m / sqrt(v), and "keep left" is its first operand; so equal rules are found equal, whatever options made them.
`log` and `sqrt` are of the absolute value. docs/decisions/0018-update-rules.md has what the paper leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product

from archsmith.core.expression import Expression, Symbol
from archsmith.core.language import ARITHMETIC, Language

CLIPS = ("1e-5", "1e-4", "1e-3")
DROPS = ("0.1", "0.3", "0.5")
RESTARTS = 10
"""How often restart_decay begins again in a training."""


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def _clip(limit: str) -> Symbol:
    bound = float(limit)
    return Symbol(
        f"clip_{limit}",
        1,
        "clip",
        rf"\mathrm{{{{clip}}}}({{0}}, 10^{{{{{limit[2:]}}}}})",
        f"torch.clamp({{0}}, -{limit}, {limit})",
        (limit,),
        value=lambda x: min(max(x, -bound), bound),
    )


def _drop(probability: str) -> Symbol:
    return Symbol(
        f"drop_{probability}",
        1,
        "drop",
        rf"\mathrm{{{{drop}}}}({{0}}, {probability})",
        f"{{0}} * (torch.rand_like(g) >= {probability}).to(g.dtype)",
        (probability,),
        fresh=True,
    )


SYMBOLS = (
    # Operands: the gradient, running averages of it, of its square and its cube, the weights, noise of variance 0.01.
    Symbol("g", 0, "g", "g", "g"),
    Symbol("m", 0, "m", r"\hat m", "m"),
    Symbol("v", 0, "v", r"\hat v", "v"),
    Symbol("gamma", 0, "gamma", r"\hat\gamma", "gamma"),
    Symbol("w", 0, "w", "w", "w"),
    Symbol("noise", 0, "noise", r"\epsilon", "torch.randn_like(g) * 0.1", fresh=True),
    # Decays of the step t of T: 1 - t/T; (1 + cos(pi t/T)) / 2; the same with restarts; noise of variance (1 + t)^-0.55.
    Symbol("linear_decay", 0, "linear_decay", r"\mathrm{ld}", "linear_decay"),
    Symbol("cosine_decay", 0, "cosine_decay", r"\mathrm{cd}", "cosine_decay"),
    Symbol("restart_decay", 0, "restart_decay", r"\mathrm{rd}", "restart_decay"),
    Symbol("annealed_noise", 0, "annealed_noise", r"\epsilon_t", "torch.randn_like(g) * annealing", fresh=True),
    # Functions of one expression.
    Symbol("negative", 1, "-", "-{0}", "-{0}", value=lambda x: -x),
    Symbol("exp", 1, "exp", "e^{{{0}}}", "torch.exp({0})", value=math.exp),
    Symbol("log", 1, "log", r"\log \left|{0}\right|", "torch.log(torch.abs({0}))", value=lambda x: math.log(abs(x))),
    Symbol(
        "sqrt", 1, "sqrt", r"\sqrt{{\left|{0}\right|}}", "torch.sqrt(torch.abs({0}))", value=lambda x: math.sqrt(abs(x))
    ),
    *map(_clip, CLIPS),
    *map(_drop, DROPS),
    Symbol("sign", 1, "sign", r"\mathrm{{sign}}({0})", "torch.sign({0})", value=_sign),
    # Functions of two.
    *ARITHMETIC,
)

# True for all real numbers within the range of floats. Past it they are not: exp overflows above 88 (in float32), so log(exp(A))
# would be infinite where A is not; infinity less itself, or times 0, is NaN; exp of less than -104 has the sign of 0.
# Optimizers compute the simplified form, so that two rules of one canonical form are trained alike to the bit.
# Not here, since floats fall short of them at gradients that occur: sign(A) * sign(B) is not sign(A * B), where the
# product of two small numbers is 0; and A / A is not 1 beside the 1e-8.
_CLIPPED = [
    (f"clip(clip(A, {inner}), {outer})", f"clip(A, {min(inner, outer, key=float)})")
    for inner, outer in product(CLIPS, repeat=2)
]
_ODD = ("sign({})", *(f"clip({{}}, {limit})" for limit in CLIPS), *(f"drop({{}}, {p})" for p in DROPS))
RULES = (
    # A sign goes outwards, as far as it can.
    *(("--A", "A"), ("-(A - B)", "B - A"), ("-A - B", "-(A + B)"), ("-A * B", "-(A * B)"), ("-A / B", "-(A / B)")),
    *((f.format("-A"), "-" + f.format("A")) for f in _ODD),
    *(("A + 0", "A"), ("A - 0", "A"), ("0 - A", "-A"), ("A - A", "0"), ("A + -A", "0")),
    *(("A + -B", "A - B"), ("A - -B", "A + B"), ("(A - B) + B", "A"), ("(A + B) - B", "A"), ("A - (A - B)", "B")),
    *(("A * 1", "A"), ("A * 0", "0"), ("0 / A", "0"), ("A * A", "A ^ 2"), ("A ^ 2 * A", "A ^ 3")),
    *(("A ^ 3 * A", "(A ^ 2) ^ 2"), ("A ^ 1", "A"), ("A ^ 0", "1"), ("1 ^ A", "1")),
    *(("(-A) ^ 2", "A ^ 2"), ("(-A) ^ 3", "-A ^ 3")),
    *(("log(exp(A))", "A"), ("log(-A)", "log(A)"), ("sqrt(-A)", "sqrt(A)"), ("exp(A) * exp(B)", "exp(A + B)")),
    *(("sign(sign(A))", "sign(A)"), ("sign(exp(A))", "1"), ("sign(A ^ 3)", "sign(A)")),
    *((f"sign(clip(A, {limit}))", "sign(A)") for limit in CLIPS),
    *_CLIPPED,
    *((f"drop(0, {probability})", "0") for probability in DROPS),
)

UPDATE_RULES = Language("update rules", 1, SYMBOLS, RULES)

GRADIENT = frozenset({"g", "m", "v", "gamma"})
"""The symbols that the gradient is in. A rule without any of them learns nothing."""
AVERAGES = ("m", "v", "gamma")
"""The running averages, of the first to the third power of the gradient."""
SCHEDULED = ("linear_decay", "cosine_decay", "restart_decay")
"""The symbols that depend on how long the whole training is."""


def _operands(*texts: str) -> Mapping[str, Expression]:
    return {text: UPDATE_RULES.parse(text) for text in texts}


OPERANDS: Mapping[str, Expression] = {
    **_operands("g", "g^2", "g^3", "m", "v", "gamma", "sign(g)", "sign(m)", "1", "2", "noise"),
    **{f"{factor}w": UPDATE_RULES.parse(f"{factor} * w") for factor in ("1e-4", "1e-3", "1e-2", "1e-1")},
    "adam": UPDATE_RULES.parse("m / sqrt(v)"),
    "rmsprop": UPDATE_RULES.parse("g / sqrt(v)"),
}
"""The 17 operands of the paper's space."""
DECAYS: Mapping[str, Expression] = _operands("linear_decay", "cosine_decay", "restart_decay", "annealed_noise")
"""Further operands, which make a rule depend on time."""


def _function(name: str) -> Callable[..., Expression]:
    return lambda *operands: UPDATE_RULES.make(name, *operands)


UNARY: Mapping[str, Callable[[Expression], Expression]] = {
    "x": lambda x: x,
    "-x": _function("negative"),
    "exp": _function("exp"),
    "log": _function("log"),
    "sqrt": _function("sqrt"),
    **{f"clip {limit}": _function(f"clip_{limit}") for limit in CLIPS},
    **{f"drop {probability}": _function(f"drop_{probability}") for probability in DROPS},
    "sign": _function("sign"),
}
"""The 12 functions of one operand."""
BINARY: Mapping[str, Callable[[Expression, Expression], Expression]] = {
    "x+y": _function("add"),
    "x-y": _function("sub"),
    "x*y": _function("mul"),
    "x/y": _function("div"),
    "x^y": _function("pow"),
    "keep left": lambda left, right: left,
}
"""The 6 functions of two operands."""


def uses(expression: Expression) -> frozenset[str]:
    """The names of the operands and functions that an expression is made of."""
    return frozenset(str(part.name) for part in expression.walk() if not part.is_number)


def follows_gradient(expression: Expression) -> bool:
    """Whether the gradient is in what is computed; a constant, say, or w alone, learns nothing."""
    return bool(GRADIENT & uses(UPDATE_RULES.simplify(expression)))
