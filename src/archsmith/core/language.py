"""A language of expressions: which symbols there are, how each is computed, and when two expressions are one function.

    rule = UPDATE_RULES.parse("exp(sign(g) * sign(m)) * g")

Parsing what was printed gives the same expression; equal canonical forms mean the same function.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archsmith.core import formula
from archsmith.core.errors import IllegalExpression, UsageError
from archsmith.core.expression import MAX_DEPTH, MAX_NODES, Expression, Symbol, counted, number, too_large
from archsmith.core.shown import shown

EPSILON = 1e-8
"""What a division of `ARITHMETIC` adds to what it divides by."""
ARITHMETIC = (
    Symbol("add", 2, "+", "{0} + {1}", "{0} + {1}", value=lambda a, b: a + b, commutative=True),
    Symbol("sub", 2, "-", "{0} - {1}", "{0} - {1}", value=lambda a, b: a - b),
    Symbol("mul", 2, "*", r"{0} \cdot {1}", "{0} * {1}", value=lambda a, b: a * b, commutative=True),
    Symbol(
        "div", 2, "/", r"\frac{{{0}}}{{{1} + 10^{{-8}}}}", "{0} / ({1} + 1e-08)", value=lambda a, b: a / (b + EPSILON)
    ),
    Symbol("pow", 2, "^", "{0}^{{{1}}}", "{0} ** {1}", value=math.pow),
)
"""The functions of two that every language writes by a sign."""


class Language:
    """The symbols of a family of expressions, and the rules by which two of them are one.

    Args:
        name: what it is the language of; stands in saved expressions.
        version: raised when a symbol changes its meaning.
        symbols: the operands and functions.
        rules: pairs of texts, `("A * 1", "A")`: what matches the first is the second. Each makes an expression smaller; or
            as large, with what is negative less deep in it (`("-A * B", "-(A * B)")`) or with fewer commutative functions
            (`("A * A", "A ^ 2")`), so that simplifying ends. A repeated A matches equal parts without anything fresh in
            them, and -A also a number below 0.

    Raises UsageError for two symbols of one name or one form of writing, and for a rule that does not make smaller.
    """

    def __init__(
        self, name: str, version: int, symbols: Sequence[Symbol], rules: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.name, self.version = name, version
        self.symbols: Mapping[str, Symbol] = {symbol.name: symbol for symbol in symbols}
        if not len(self.symbols) == len({(s.text, s.arity, s.literals) for s in symbols}) == len(symbols):
            raise UsageError(f"the symbols of the language {name!r} must have names and forms of their own")
        self._rules = [
            (
                formula.parse(self.symbols, left, formula.VARIABLES),
                formula.parse(self.symbols, right, formula.VARIABLES),
            )
            for left, right in rules
        ]
        for left, right in self._rules:
            if self._size(right) >= self._size(left):
                raise UsageError(f"rule {self.show(left)} -> {self.show(right)} must make an expression smaller")
        # The parts of a canonical form are canonical, so each is simplified once; bounded, since searches are long.
        self._simplified = functools.lru_cache(maxsize=65536)(self._simplify)

    def __repr__(self) -> str:
        return f"Language({self.name!r}, version={self.version}, {len(self.symbols)} symbols)"

    def __reduce__(self) -> str:
        raise TypeError(f"the language {self.name!r} is code; send expressions as JSON")

    # --- making and reading -------------------------------------------------------------------------------------------

    def make(self, name: str, *operands: Expression) -> Expression:
        """The expression of a symbol and its operands. Raises IllegalExpression for an unknown name or a wrong count."""
        return Expression(self._symbol(name, len(operands)).name, operands)

    def from_json(self, value: Any) -> Expression:
        """The expression that `to_json` wrote.

        Raises IllegalExpression for another shape, an unknown symbol, a wrong number of operands, a number that is
        not finite, or more depth or nodes than MAX_DEPTH and MAX_NODES (so also for a list that contains itself).
        """
        room = MAX_NODES

        def read(value: Any, depth: int) -> Expression:
            nonlocal room
            room -= 1
            if depth > MAX_DEPTH or room < 0:
                raise too_large()
            if isinstance(value, bool) or not isinstance(value, int | float | str | list | tuple):
                raise IllegalExpression(
                    f"an expression is a name, a number, or a list of a name and operands, got {shown(value)}"
                )
            if isinstance(value, int | float):
                return number(value)
            if isinstance(value, str):
                return self.make(value)
            if not value or not isinstance(value[0], str):
                raise IllegalExpression(f"an expression's list begins with the name of a function, got {shown(value)}")
            if len(value) == 1:
                raise IllegalExpression(f"an operand is written as a name, {value[0]!r}, and not as a list of one")
            if len(value) > 3:
                raise IllegalExpression(f"a function takes one or two operands, got {len(value) - 1:,}")
            return self.make(value[0], *(read(part, depth + 1) for part in value[1:]))

        return read(value, 1)

    def parse(self, text: str) -> Expression:
        """The expression that `show` wrote, or that a person did. Raises IllegalExpression, with the place."""
        if not isinstance(text, str):
            raise IllegalExpression(f"an expression is parsed from a text, got {shown(text)}")
        return formula.parse(self.symbols, text)

    def show(self, expression: Expression) -> str:
        """The expression as text, with no more parentheses than needed: `exp(sign(g) * sign(m)) * g`."""
        return formula.show(self.symbols, expression)

    def latex(self, expression: Expression) -> str:
        r"""The expression for TeX: `e^{\mathrm{sign}(g) \cdot \mathrm{sign}(m)} \cdot g`."""
        return formula.latex(self.symbols, expression)

    # --- simplifying --------------------------------------------------------------------------------------------------

    def simplify(self, expression: Expression) -> Expression:
        """The canonical form: constants computed, rules applied, operands of commutative functions in one order.

        Two expressions with equal canonical forms are the same function of their operands wherever that is finite.
        """
        return self._simplified(expression)

    def _simplify(self, expression: Expression) -> Expression:
        if not expression.operands:
            return expression
        operands = tuple(self._simplified(operand) for operand in expression.operands)
        symbol = self.symbols[str(expression.name)]
        if symbol.value is not None and all(operand.is_number for operand in operands):
            try:
                value = symbol.value(*(operand.name for operand in operands))
            except (ArithmeticError, ValueError):
                value = math.nan
            if math.isfinite(value):
                return number(value)
        if symbol.commutative:
            operands = tuple(sorted(operands, key=_order))
        whole = Expression(expression.name, operands)
        for left, right in self._rules:
            for turned in self._orders(whole):
                found: dict[str, Expression] = {}
                if self._matches(left, turned, found):
                    return self._simplified(_filled(right, found))
        return whole

    def _size(self, pattern: Expression) -> tuple[int, int, int]:
        own = (self.symbols.get(str(part.name)) for part in pattern.walk())
        commutative = sum(symbol is not None and symbol.commutative for symbol in own)
        return pattern.nodes, _negatives_below(pattern, 0), commutative

    def _orders(self, expression: Expression) -> Iterator[Expression]:
        yield expression
        if len(expression.operands) == 2 and self.symbols[str(expression.name)].commutative:
            yield Expression(expression.name, expression.operands[::-1])

    def _matches(self, pattern: Expression, expression: Expression, found: dict[str, Expression]) -> bool:
        if pattern.name in formula.VARIABLES and not pattern.operands:
            name = str(pattern.name)
            if name in found:
                return found[name] == expression and not self.is_fresh(expression)
            found[name] = expression
            return True
        if pattern.name == "negative" and expression.is_number and float(expression.name) < 0:
            return self._matches(pattern.operands[0], number(-float(expression.name)), found)
        return (
            pattern.name == expression.name
            and len(pattern.operands) == len(expression.operands)
            and all(self._matches(p, e, found) for p, e in zip(pattern.operands, expression.operands, strict=True))
        )

    def is_fresh(self, expression: Expression) -> bool:
        """Whether computing it twice may give two values: noise, dropout, or a parameter of its own are in it."""
        return any(isinstance(part.name, str) and self.symbols[part.name].fresh for part in expression.walk())

    # --- computing ----------------------------------------------------------------------------------------------------

    def statements(self, expression: Expression) -> tuple[list[str], str]:
        """Python that computes it on tensors: assignments to `t0`, `t1`, ... in order, and the name of the result.

        Equal parts are computed once, but for fresh ones. Operands appear as their symbol's `torch` text.
        """
        lines: list[str] = []
        known: dict[Expression, str] = {}

        def name_of(part: Expression) -> str:
            if part in known:
                return known[part]
            if isinstance(part.name, int | float):
                return f"({part.name!r})" if part.name < 0 else repr(part.name)
            symbol = self.symbols[part.name]
            names = [name_of(operand) for operand in part.operands]
            numbers = [operand.is_number for operand in part.operands]
            if symbol.text not in formula.INFIX or all(numbers):  # torch's functions take tensors, and no numbers
                for i in (i for i, is_number in enumerate(numbers) if is_number):
                    names[i] = f"torch.tensor({names[i]}, dtype=torch.float64)"
            code = symbol.torch.format(*names) if names else symbol.torch
            if symbol.arity == 0 and not symbol.fresh:
                return code
            lines.append(f"t{len(lines)} = {code}")
            name = f"t{len(lines) - 1}"
            if not self.is_fresh(part):
                known[part] = name
            return name

        return lines, name_of(expression)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _symbol(self, name: str, arity: int) -> Symbol:
        symbol = self.symbols.get(name)
        if symbol is None:
            raise IllegalExpression(
                f"the language of {self.name} (version {self.version}) has no {shown(name)}; it has: "
                + ", ".join(self.symbols)
            )
        if symbol.arity != arity:
            raise IllegalExpression(f"{name} takes {counted(symbol.arity)}, got {arity}")
        return symbol


def _filled(pattern: Expression, found: Mapping[str, Expression]) -> Expression:
    if pattern.name in found and not pattern.operands:
        return found[str(pattern.name)]
    return Expression(pattern.name, tuple(_filled(part, found) for part in pattern.operands))


def _negatives_below(pattern: Expression, above: int) -> int:
    """How many other functions stand above the negatives of a pattern, together."""
    negative = pattern.name == "negative"
    below = sum(_negatives_below(operand, above + (not negative)) for operand in pattern.operands)
    return below + (above if negative else 0)


def _order(expression: Expression) -> tuple[int, str]:
    return expression.nodes, repr(expression.to_json())
