r"""The language of activation functions (Ramachandran, Zoph and Le 2017, "Searching for Activation Functions", section 2).

    ACTIVATIONS.parse("x * sigmoid(beta * x)")     Swish
    ACTIVATIONS.parse("relu(x)")                   max(x, 0)

`UNARY` and `BINARY` are the options of the paper's space, as expressions. Few of them need symbols of their own: exp(-x^2) is
made of three, and sigma(x1) * x2 of two; so equal functions are found equal, whatever options made them.

beta is a number for each channel that is trained with the network. Each place where it stands is one of its own, 1 at first;
`mix(a, b)` is beta a + (1 - beta) b of one beta. `sqrt` is of the absolute value, sinc(x) is sin(x) / x and 1 at 0.
docs/decisions/0020-activations.md has what the paper leaves open.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping

from archsmith.core.expression import Expression, Symbol
from archsmith.core.language import ARITHMETIC, EPSILON, Language


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _function(name: str, latex: str, torch: str, value: Callable[[float], float]) -> Symbol:
    return Symbol(name, 1, name, latex, torch, value=value)


def _named(name: str, torch: str, value: Callable[[float], float], latex: str = "") -> Symbol:
    return _function(name, (latex or rf"\mathrm{{{{{name}}}}}") + r"\left({0}\right)", torch, value)


SYMBOLS = (
    Symbol("x", 0, "x", "x", "x"),
    Symbol("beta", 0, "beta", r"\beta", "beta", fresh=True),
    # Functions of one expression.
    Symbol("negative", 1, "-", "-{0}", "-{0}", value=lambda x: -x),
    _function("abs", r"\left|{0}\right|", "torch.abs({0})", abs),
    _function("sqrt", r"\sqrt{{\left|{0}\right|}}", "torch.sqrt(torch.abs({0}))", lambda x: math.sqrt(abs(x))),
    _function(
        "log",
        r"\log\left(\left|{0}\right| + 10^{{-8}}\right)",
        "torch.log(torch.abs({0}) + 1e-08)",
        lambda x: math.log(abs(x) + EPSILON),
    ),
    _function("exp", "e^{{{0}}}", "torch.exp({0})", math.exp),
    _named("sin", "torch.sin({0})", math.sin, r"\sin"),
    _named("cos", "torch.cos({0})", math.cos, r"\cos"),
    _named("sinh", "torch.sinh({0})", math.sinh, r"\sinh"),
    _named("cosh", "torch.cosh({0})", math.cosh, r"\cosh"),
    _named("tanh", "torch.tanh({0})", math.tanh, r"\tanh"),
    _named("asinh", "torch.asinh({0})", math.asinh),
    _named("atan", "torch.atan({0})", math.atan, r"\arctan"),
    # torch's sinc is that of pi x.
    _named("sinc", f"torch.sinc({{0}} * {1 / math.pi!r})", lambda x: math.sin(x) / x if x else 1.0),
    _function("relu", r"\max\left({0}, 0\right)", "torch.relu({0})", lambda x: max(x, 0.0)),
    _function("min0", r"\min\left({0}, 0\right)", "torch.clamp({0}, max=0)", lambda x: min(x, 0.0)),
    _named("sigmoid", "torch.sigmoid({0})", _sigmoid, r"\sigma"),
    _function(
        "softplus",
        r"\log\left(1 + e^{{{0}}}\right)",
        "torch.nn.functional.softplus({0})",
        lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    ),
    _named("erf", "torch.erf({0})", math.erf),
    # Functions of two.
    *ARITHMETIC,
    Symbol("max", 2, "max", r"\max\left({0}, {1}\right)", "torch.maximum({0}, {1})", value=max, commutative=True),
    Symbol("min", 2, "min", r"\min\left({0}, {1}\right)", "torch.minimum({0}, {1})", value=min, commutative=True),
    Symbol("mix", 2, "mix", r"\mathrm{{mix}}_\beta\left({0}, {1}\right)", "{1} + beta * ({0} - {1})", fresh=True),
)

# True for all real numbers within the range of floats; beyond it (exp overflows above 88 in float32) one side may be infinite
# or NaN where the other is not. Networks compute the simplified form, so that two formulas of one canonical form are trained
# alike to the bit.
_EVEN = ("abs", "sqrt", "log", "cos", "cosh", "sinc")
_ODD = ("sin", "sinh", "tanh", "asinh", "atan", "erf")
_BELOW_ONE = ("sin(A)", "cos(A)", "tanh(A)", "erf(A)", "sigmoid(A)", "sinc(A)", "exp(-A ^ 2)")
# What is never less than each of the others.
_ABOVE = {
    "cosh(A)": ("abs(A)", "sinh(A)", "softplus(A)", "sqrt(A)", *_BELOW_ONE),
    "exp(A)": ("softplus(A)", "sinh(A)", "erf(A)"),
    "softplus(A)": ("relu(A)", "sigmoid(A)", "erf(A)"),
    "sqrt(A)": ("log(A)", "min0(A)", "sin(A)", "tanh(A)", "atan(A)", "erf(A)"),
    "abs(A)": ("relu(A)", "-A", "sin(A)", "log(A)"),
    "relu(A)": ("A", "atan(A)", "asinh(A)", "tanh(A)"),
    "A": ("min0(A)",),
    **{f"{f}(A)": ("min0(A)",) for f in ("tanh", "atan", "asinh")},
    "A ^ 2": ("log(A)", "min0(A)"),
    "exp(-A ^ 2)": ("min0(A)",),
    "sigmoid(A)": ("min0(A)",),
}


def _all_below(greater: str) -> frozenset[str]:
    own = _ABOVE.get(greater, ())
    return frozenset(own).union(*map(_all_below, own))


_FROM_ZERO = ("exp(A)", "cosh(A)", "sigmoid(A)", "softplus(A)", "abs(A)", "sqrt(A)", "A ^ 2")  # at least 0
RULES = (
    # A sign goes outwards, as far as it can.
    *(("--A", "A"), ("-(A - B)", "B - A"), ("-A - B", "-(A + B)"), ("-A * B", "-(A * B)"), ("-A / B", "-(A / B)")),
    *(("A + 0", "A"), ("A - 0", "A"), ("0 - A", "-A"), ("A - A", "0"), ("A + -A", "0")),
    *(("A + -B", "A - B"), ("A - -B", "A + B"), ("(A - B) + B", "A"), ("(A + B) - B", "A"), ("A - (A - B)", "B")),
    *(("A * 1", "A"), ("A * 0", "0"), ("0 / A", "0"), ("A * A", "A ^ 2")),
    *(("A ^ 1", "A"), ("A ^ 0", "1"), ("1 ^ A", "1"), ("A ^ 2 * A", "A ^ 3"), ("A ^ 3 * A", "(A ^ 2) ^ 2")),
    # Even functions do not see the sign; odd ones hand it on.
    *((f"{f}(-A)", f"{f}(A)") for f in _EVEN),
    *((f"{f}(abs(A))", f"{f}(A)") for f in _EVEN),
    *((f"{f}(-A)", f"-{f}(A)") for f in _ODD),
    *(("(-A) ^ 2", "A ^ 2"), ("abs(A) ^ 2", "A ^ 2"), ("sqrt(A) ^ 2", "abs(A)"), ("(-A) ^ 3", "-A ^ 3")),
    *(("sqrt(A ^ 2)", "abs(A)"), ("sinh(asinh(A))", "A"), ("asinh(sinh(A))", "A")),
    # What is above 0 and what is below.
    *((f"abs({f})", f) for f in (*(f for f in _FROM_ZERO if f != "abs(A)"), "relu(A)")),
    *((f"relu({f})", f) for f in (*_FROM_ZERO, "relu(A)")),
    *((f"min0({f})", "0") for f in (*_FROM_ZERO, "relu(A)")),
    *(("min0(min0(A))", "min0(A)"), ("relu(min0(A))", "0"), ("relu(A) * min0(A)", "0")),
    *(("-min0(-A)", "relu(A)"), ("-relu(-A)", "min0(A)"), ("relu(A) + min0(A)", "A"), ("A - relu(A)", "min0(A)")),
    *(("A - min0(A)", "relu(A)"), ("relu(A) - A", "relu(-A)"), ("min0(A) - A", "-relu(A)")),
    *(("relu(A) - min0(A)", "abs(A)"), ("min0(A) - relu(A)", "-abs(A)"), ("abs(A) - relu(A)", "relu(-A)")),
    *(("relu(A) - abs(A)", "min0(A)"), ("abs(A) + min0(A)", "relu(A)")),
    *(("relu(A) + relu(A)", "A + abs(A)"), ("min0(A) + min0(A)", "A - abs(A)")),
    *(("A * relu(A)", "relu(A) ^ 2"), ("abs(A) * relu(A)", "relu(A) ^ 2"), ("A * min0(A)", "min0(A) ^ 2")),
    # Greater and less.
    *(("max(A, A)", "A"), ("min(A, A)", "A"), ("max(A, 0)", "relu(A)"), ("min(A, 0)", "min0(A)"), ("mix(A, A)", "A")),
    *(("max(A, max(A, B))", "max(A, B)"), ("min(A, min(A, B))", "min(A, B)")),
    *(("max(A, min(A, B))", "A"), ("min(A, max(A, B))", "A"), ("max(A, -A)", "abs(A)"), ("min(A, -A)", "-abs(A)")),
    *((f"max({one}, {other})", one) for one in _ABOVE for other in sorted(_all_below(one))),
    *((f"min({one}, {other})", other) for one in _ABOVE for other in sorted(_all_below(one))),
    *((f"max(relu(A), {f})", f"max(A, {f})") for f in (*_FROM_ZERO, "exp(-A ^ 2)")),
    *(("max(-A, relu(A))", "abs(A)"), ("max(min0(A), -A)", "relu(-A)"), ("min(min0(A), -A)", "-abs(A)")),
    ("min(-A, relu(A))", "-relu(A)"),
    # Exponentials.
    *(("exp(A) * exp(B)", "exp(A + B)"), ("softplus(A) - softplus(-A)", "A"), ("softplus(-A) - softplus(A)", "-A")),
    *(("sigmoid(A) + sigmoid(-A)", "1"), ("exp(A) * sigmoid(-A)", "sigmoid(A)"), ("tanh(A) * cosh(A)", "sinh(A)")),
    *(("cosh(A) + sinh(A)", "exp(A)"), ("cosh(A) - sinh(A)", "exp(-A)"), ("sinh(A) - cosh(A)", "-exp(-A)")),
    *(("exp(A) - sinh(A)", "cosh(A)"), ("exp(A) - cosh(A)", "sinh(A)")),
    *(("sinc(A) * A", "sin(A)"), ("sinc(A) * A ^ 2", "sin(A) * A")),
)

ACTIVATIONS = Language("activation functions", 1, SYMBOLS, RULES)


def _options(*pairs: tuple[str, str]) -> Mapping[str, Callable[[Expression], Expression]]:
    """Functions of one expression, from texts in which x stands for it."""
    return {name: functools.partial(_put, ACTIVATIONS.parse(text)) for name, text in pairs}


def _put(pattern: Expression, given: Expression) -> Expression:
    if pattern.name == "x":
        return given
    return Expression(pattern.name, tuple(_put(part, given) for part in pattern.operands))


UNARY: Mapping[str, Callable[[Expression], Expression]] = _options(
    ("x", "x"),
    ("-x", "-x"),
    ("abs", "abs(x)"),
    ("x^2", "x ^ 2"),
    ("x^3", "x ^ 3"),
    ("sqrt", "sqrt(x)"),
    ("beta*x", "beta * x"),
    ("x+beta", "x + beta"),
    ("log", "log(x)"),
    ("exp", "exp(x)"),
    ("sin", "sin(x)"),
    ("cos", "cos(x)"),
    ("sinh", "sinh(x)"),
    ("cosh", "cosh(x)"),
    ("tanh", "tanh(x)"),
    ("asinh", "asinh(x)"),
    ("atan", "atan(x)"),
    ("sinc", "sinc(x)"),
    ("max(x,0)", "relu(x)"),
    ("min(x,0)", "min0(x)"),
    ("sigmoid", "sigmoid(x)"),
    ("softplus", "softplus(x)"),
    ("exp(-x^2)", "exp(-x ^ 2)"),
    ("erf", "erf(x)"),
    ("beta", "beta"),
)
"""The 25 functions of one expression."""


def _made(name: str) -> Callable[..., Expression]:
    return functools.partial(ACTIVATIONS.make, name)


_BETA = ACTIVATIONS.make("beta")
_times, _less, _minus, _exp = _made("mul"), _made("sub"), _made("negative"), _made("exp")

BINARY: Mapping[str, Callable[[Expression, Expression], Expression]] = {
    "x+y": _made("add"),
    "x*y": _times,
    "x-y": _less,
    "x/y": _made("div"),
    "max": _made("max"),
    "min": _made("min"),
    "sigmoid(x)*y": lambda a, b: _times(b, ACTIVATIONS.make("sigmoid", a)),
    "exp(-beta(x-y)^2)": lambda a, b: _exp(_minus(_times(_BETA, ACTIVATIONS.make("pow", _less(a, b), Expression(2))))),
    "exp(-beta|x-y|)": lambda a, b: _exp(_minus(_times(_BETA, ACTIVATIONS.make("abs", _less(a, b))))),
    "beta*x+(1-beta)*y": _made("mix"),
}
"""The 10 functions of two expressions."""


def value_at(expression: Expression, x: float, beta: float | Callable[[], float] = 1.0) -> float:
    """The function at a point, in plain Python; NaN where it is not finite. `beta` is one for all, or gives them in turn."""
    if isinstance(expression.name, int | float):
        return float(expression.name)
    draw = beta if callable(beta) else lambda: beta
    if expression.name == "x":
        return x
    if expression.name == "beta":
        return draw()
    operands = [value_at(part, x, draw) for part in expression.operands]
    try:
        if expression.name == "mix":
            return operands[1] + draw() * (operands[0] - operands[1])
        value = ACTIVATIONS.symbols[expression.name].value
        assert value is not None
        found = float(value(*operands))
    except (ArithmeticError, ValueError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def slope_at(expression: Expression, x: float, beta: float = 1.0) -> float:
    """The derivative at a point, by a central difference: for drawings. Networks have it from autograd."""
    step = 1e-5
    return (value_at(expression, x + step, beta) - value_at(expression, x - step, beta)) / (2 * step)


_POINTS = (-3.7, -2.2, -1.3, -0.6, -0.25, 0.1, 0.4, 0.9, 1.7, 2.6, 4.1)


@functools.lru_cache(maxsize=65536)
def is_constant(expression: Expression) -> bool:
    """Whether it is the same for every x, so that a network with it has nothing to tell images apart by."""
    simple = ACTIVATIONS.simplify(expression)
    if not any(part.name == "x" for part in simple.walk()):
        return True
    return _is_flat(simple, 1.0, 0.0) and _is_flat(simple, 0.3, 0.17)


def _is_flat(expression: Expression, first: float, apart: float) -> bool:
    """Whether all values that are finite are equal, with betas from `first` on, so far apart."""
    found = []
    for x in _POINTS:
        betas = itertools.count(first, apart)
        found.append(value_at(expression, x, betas.__next__))
    known = [value for value in found if not math.isnan(value)]
    return bool(known) and max(known) - min(known) <= 1e-9 * max(1.0, *map(abs, known))


def count_betas(expression: Expression) -> int:
    """How many trained numbers a channel has."""
    return sum(part.name in ("beta", "mix") for part in expression.walk())
