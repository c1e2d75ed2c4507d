"""The expression language: reading, writing, simplifying and computing, on a language of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.errors import IllegalExpression, UsageError
from archsmith.core.expression import MAX_DEPTH, Expression, Symbol
from archsmith.core.language import Language

TOY = Language(
    "toy sums",
    1,
    [
        Symbol("x", 0, "x", "x", "x"),
        Symbol("tenth", 0, "0.1x", r"\frac{x}{10}", "(0.1 * x)"),
        Symbol("noise", 0, "noise", r"\epsilon", "torch.randn_like(x)", fresh=True),
        Symbol("negative", 1, "-", "-{0}", "-{0}", value=lambda a: -a),
        Symbol("exp", 1, "exp", "e^{{{0}}}", "torch.exp({0})", value=math.exp),
        Symbol("log", 1, "log", r"\log {0}", "torch.log({0})", value=math.log),
        Symbol("clip_1e-5", 1, "clip", r"\mathrm{{clip}}({0})", "torch.clamp({0}, -1e-5, 1e-5)", ("1e-5",)),
        Symbol("clip_1e-3", 1, "clip", r"\mathrm{{clip}}({0})", "torch.clamp({0}, -1e-3, 1e-3)", ("1e-3",)),
        Symbol("add", 2, "+", "{0} + {1}", "{0} + {1}", value=lambda a, b: a + b, commutative=True),
        Symbol("sub", 2, "-", "{0} - {1}", "{0} - {1}", value=lambda a, b: a - b),
        Symbol("mul", 2, "*", r"{0} \cdot {1}", "{0} * {1}", value=lambda a, b: a * b, commutative=True),
        Symbol("div", 2, "/", r"\frac{{{0}}}{{{1}}}", "{0} / ({1} + 1e-8)", value=lambda a, b: a / (b + 1e-8)),
        Symbol("pow", 2, "^", "{0}^{{{1}}}", "{0} ** {1}", value=math.pow),
        Symbol("max", 2, "max", r"\max({0}, {1})", "torch.maximum({0}, {1})", commutative=True),
    ],
    rules=[
        ("--A", "A"),
        ("A * 1", "A"),
        ("A * 0", "0"),
        ("A + 0", "A"),
        ("A - A", "0"),
        ("max(A, A)", "A"),
        ("A + -B", "A - B"),
    ],
)

leaves = st.one_of(
    st.sampled_from(["x", "tenth", "noise"]).map(Expression),
    st.integers(-3, 3).map(Expression),
    st.sampled_from([0.5, 1e-5, -0.25, 1e30]).map(Expression),
)
expressions = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.tuples(st.sampled_from([s.name for s in TOY.symbols.values() if s.arity == 1]), parts).map(
            lambda made: Expression(made[0], made[1:])
        ),
        st.tuples(st.sampled_from([s.name for s in TOY.symbols.values() if s.arity == 2]), parts, parts).map(
            lambda made: Expression(made[0], made[1:])
        ),
    ),
    max_leaves=12,
)


def value(expression: Expression, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    lines, name = TOY.statements(expression)
    known: dict[str, Any] = {"torch": torch, "x": x}
    exec("\n".join(lines), known)
    return torch.as_tensor(eval(name, known), dtype=x.dtype).expand_as(x)


@given(expressions)
@settings(max_examples=400, deadline=None)
def test_what_was_printed_parses_to_the_same(expression: Expression) -> None:
    assert TOY.parse(TOY.show(expression)) == expression
    assert TOY.from_json(expression.to_json()) == expression


@given(expressions)
@settings(max_examples=400, deadline=None)
def test_simplifying_keeps_the_function_and_is_done_at_once(expression: Expression) -> None:
    simple = TOY.simplify(expression)
    assert TOY.simplify(simple) == simple
    assert simple.nodes <= expression.nodes
    if not TOY.is_fresh(expression):
        x = torch.linspace(0.1, 1.5, 7, dtype=torch.float64)
        before, after = value(expression, x), value(simple, x)
        same = torch.isfinite(before) & (before.abs() < 1e12)
        torch.testing.assert_close(after[same], before[same], rtol=1e-6, atol=1e-6)


@given(expressions)
@settings(max_examples=100, deadline=None)
def test_latex_has_as_many_braces_open_as_closed(expression: Expression) -> None:
    text = TOY.latex(expression)
    assert text.count("{") == text.count("}")
    assert text.count(r"\left(") == text.count(r"\right)")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("x+x*x", "x + x * x"),
        ("(x + x) * x", "(x + x) * x"),
        ("x - (x - x)", "x - (x - x)"),
        ("(x - x) - x", "x - x - x"),
        ("x ^ x ^ x", "x ^ x ^ x"),
        ("(x ^ x) ^ x", "(x ^ x) ^ x"),
        ("-x ^ 2", "-x ^ 2"),
        ("(-2) ^ x", "(-2) ^ x"),
        ("-(2)", "-(2)"),
        ("--x", "--x"),
        ("2 * -3", "2 * -3"),
        ("0.1x * 0.1", "0.1x * 0.1"),
        ("clip(x + 1, 1e-5)", "clip(x + 1, 1e-5)"),
        ("max( exp(x) ,0.1x)", "max(exp(x), 0.1x)"),
    ],
)
def test_text_as_people_write_it(text: str, printed: str) -> None:
    assert TOY.show(TOY.parse(text)) == printed


def test_a_power_binds_more_than_a_sign() -> None:
    assert TOY.parse("-x ^ 2") == Expression("negative", (TOY.parse("x ^ 2"),))
    assert TOY.parse("-2 ^ x") == Expression("negative", (TOY.parse("2 ^ x"),))
    assert TOY.parse("-2") == Expression(-2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x + exp(x)", "exp(x) + x"),
        ("x * (2 - 1)", "x"),
        ("x - x", "0"),
        ("exp(0) * x", "x"),
        ("max(x + 1, 1 + x)", "x + 1"),
        ("x + -exp(x)", "x - exp(x)"),
        ("x * (x - x) + 0.1x", "0.1x"),
    ],
)
def test_equal_functions_have_one_form(one: str, other: str) -> None:
    assert TOY.simplify(TOY.parse(one)) == TOY.simplify(TOY.parse(other))


def test_what_is_fresh_is_never_merged() -> None:
    assert TOY.simplify(TOY.parse("noise - noise")) != Expression(0)
    lines, _ = TOY.statements(TOY.parse("exp(x) + exp(x) + noise * noise"))
    assert sum("randn" in line for line in lines) == 2
    assert sum("exp" in line for line in lines) == 1


def test_a_number_without_a_value_stays() -> None:
    assert TOY.simplify(TOY.parse("exp(1000)")) == TOY.parse("exp(1000)")
    assert torch.isinf(value(TOY.parse("exp(1000) + x"), torch.ones(3))).all()
    assert TOY.simplify(TOY.parse("log(0)")) == TOY.parse("log(0)")


circular: list[Any] = ["exp"]
circular.append(circular)
deep: Any = "x"
for _ in range(MAX_DEPTH):
    deep = ["exp", deep]
wide: Any = "x"
for _ in range(11):
    wide = ["add", wide, wide]


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (["sinh", "x"], "sinh"),
        (["exp", "x", "x"], "exp takes one operand, got 2"),
        ("exp", "exp takes one operand, got 0"),
        (["x"], "list of one"),
        ([], "begins with"),
        ([["exp"], "x"], "begins with"),
        (["add", 1, 2, 3], "one or two"),
        (True, "a name, a number"),
        (None, "a name, a number"),
        ({"exp": "x"}, "a name, a number"),
        (math.nan, "finite"),
        (10**400, "finite"),
        (circular, "depth"),
        (deep, "depth"),
        (wide, "nodes"),
    ],
)
def test_bad_json_is_refused(bad: Any, named: str) -> None:
    with pytest.raises(IllegalExpression, match=named):
        TOY.from_json(bad)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ("", "character 1"),
        ("x +", "character 4"),
        ("x x", "character 3"),
        ("exp(x", r"'\)'"),
        ("clip(x, 1e-4)", "character 1"),
        ("sin(x)", "character 1"),
        ("xx", "character 1"),
        ("(" * 5000, "depth"),
        ("-" * 300 + "x", "depth"),
        ("1e999", "finite"),
        ("x ** x", "character 4"),
        ("x; import os", "character 2"),
    ],
)
def test_bad_text_is_refused_with_the_place(bad: str, named: str) -> None:
    with pytest.raises(IllegalExpression, match=named):
        TOY.parse(bad)


def test_a_language_that_cannot_be_read_back_is_refused() -> None:
    x = Symbol("x", 0, "x", "x", "x")
    with pytest.raises(UsageError, match="of their own"):
        Language("twice", 1, [x, Symbol("y", 0, "x", "y", "y")])
    with pytest.raises(UsageError, match="smaller"):
        Language("endless", 1, [x, Symbol("exp", 1, "exp", "", "")], rules=[("exp(A)", "exp(exp(A))")])


def test_what_is_no_text_is_not_parsed() -> None:
    values: tuple[Any, ...] = (None, 3, ["x"])
    for value in values:
        with pytest.raises(IllegalExpression, match="from a text"):
            TOY.parse(value)
