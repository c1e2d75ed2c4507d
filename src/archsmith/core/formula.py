"""Expressions as text for people: read by precedence climbing, written with no more parentheses than needed, and for TeX.

A sum's parts are products, a product's are negatives, a negative's are powers: `-a ^ 2 * b + c` is `((-(a ^ 2)) * b) + c`. Powers
group to the right, all else to the left. `clip(x, 1e-5)` is a function of x, with a literal that belongs to its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from archsmith.core.errors import IllegalExpression
from archsmith.core.expression import MAX_DEPTH, MAX_NODES, Expression, Symbol, counted, number, too_large
from archsmith.core.shown import shown

# How tightly each is bound; what binds less within what binds more stands in parentheses.
_SUM, _PRODUCT, _NEGATIVE, _POWER, _ATOM = 1, 2, 3, 4, 5
INFIX = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "^": _POWER}
_NUMBER = re.compile(r"\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"\w+")
VARIABLES = ("A", "B")  # of a language's rules


def show(symbols: Mapping[str, Symbol], expression: Expression) -> str:
    """The expression as text, with no more parentheses than needed: `exp(sign(g) * sign(m)) * g`."""
    return _show(symbols, expression)[0]


def _show(symbols: Mapping[str, Symbol], expression: Expression) -> tuple[str, int]:
    if isinstance(expression.name, int | float):
        return repr(expression.name), _NEGATIVE if expression.name < 0 else _ATOM
    if expression.name in VARIABLES and not expression.operands:
        return str(expression.name), _ATOM
    symbol = symbols[expression.name]
    parts = [_show(symbols, operand) for operand in expression.operands]
    if symbol.arity == 2 and symbol.text in INFIX:
        bound = INFIX[symbol.text]
        power = symbol.text == "^"  # groups to the right, the others to the left
        left = _enclosed(parts[0], bound + power)
        right = _enclosed(parts[1], bound + (not power))
        return f"{left} {symbol.text} {right}", bound
    if symbol.arity == 1 and symbol.text == "-":
        number = isinstance(expression.operands[0].name, int | float)  # -(2) is not the number -2
        return "-" + _enclosed(parts[0], 9 if number else _NEGATIVE), _NEGATIVE
    if symbol.arity == 0:
        return symbol.text, _ATOM
    return f"{symbol.text}({', '.join([*(part for part, _ in parts), *symbol.literals])})", _ATOM


def latex(symbols: Mapping[str, Symbol], expression: Expression) -> str:
    r"""The expression for TeX: `e^{\mathrm{sign}(g) \cdot \mathrm{sign}(\hat m)} \cdot g`."""
    return _latex(symbols, expression)[0]


def _latex(symbols: Mapping[str, Symbol], expression: Expression) -> tuple[str, int]:
    if isinstance(expression.name, int | float):
        return repr(expression.name), _NEGATIVE if expression.name < 0 else _ATOM
    symbol = symbols[expression.name]
    if symbol.arity == 0:
        return symbol.latex, _ATOM
    parts = [_latex(symbols, operand) for operand in expression.operands]
    bound = _NEGATIVE if (symbol.text, symbol.arity) == ("-", 1) else INFIX.get(symbol.text, _ATOM)
    if symbol.arity == 2 and symbol.text == "/":  # a fraction's bar and a raised exponent enclose what they hold
        return symbol.latex.format(parts[0][0], parts[1][0]), _ATOM
    if symbol.arity == 2 and symbol.text in INFIX:
        right = parts[1][0] if symbol.text == "^" else _enclosed(parts[1], bound + 1, r"\left(", r"\right)")
        return symbol.latex.format(
            _enclosed(parts[0], bound + (symbol.text == "^"), r"\left(", r"\right)"), right
        ), bound
    if bound == _NEGATIVE:
        return symbol.latex.format(_enclosed(parts[0], _PRODUCT, r"\left(", r"\right)")), _NEGATIVE
    return symbol.latex.format(*(part for part, _ in parts)), _ATOM


def _enclosed(part: tuple[str, int], bound: int, left: str = "(", right: str = ")") -> str:
    return part[0] if part[1] >= bound else f"{left}{part[0]}{right}"


def parse(symbols: Mapping[str, Symbol], text: str, variables: tuple[str, ...] = ()) -> Expression:
    """The expression that a text describes; `variables` are further operands, of rules.

    Raises IllegalExpression, with the place, for what the symbols do not have, and for one that is too large.
    """
    found = _Parser(symbols, text, variables).whole()
    if found.depth > MAX_DEPTH or found.nodes > MAX_NODES:
        raise too_large()
    return found


class _Parser:
    """Precedence climbing over a text: sums of products of negatives of powers."""

    def __init__(self, symbols: Mapping[str, Symbol], text: str, variables: tuple[str, ...]) -> None:
        self.text, self.at, self.depth = text, 0, 0
        self.written = {(s.text, s.arity, s.literals): s.name for s in symbols.values()}
        operands = {s.text: s.name for s in symbols.values() if s.arity == 0} | {v: v for v in variables}
        self.operands = dict(sorted(operands.items(), key=lambda item: -len(item[0])))  # the longest first
        self.known = list(dict.fromkeys(s.text for s in symbols.values()))

    def whole(self) -> Expression:
        found = self._infix(_SUM)
        if self._peek():
            raise self._wrong("the end, or one of + - * / ^")
        return found

    def _infix(self, least: int) -> Expression:
        self.depth += 1
        if self.depth > 4 * MAX_DEPTH:
            raise too_large()
        left = self._prefix()
        while (sign := self._peek()) in INFIX and INFIX[sign] >= least:
            if (name := self.written.get((sign, 2, ()))) is None:
                raise self._wrong("something else: this language has no such function")
            self.at += 1
            right = self._infix(INFIX[sign] + (sign != "^"))
            left = Expression(name, (left, right))
            if left.depth > MAX_DEPTH:  # asked at each step, a long chain of sums is never walked to its end at once
                raise too_large()
        self.depth -= 1
        return left

    def _prefix(self) -> Expression:
        if self._peek() != "-":
            return self._atom()
        self.at += 1
        self._peek()
        digits = _NUMBER.match(self.text, self.at)
        if digits and self._operand() is None:  # -2 is a number, but -2 ^ x is the negative of a power
            self.at = digits.end()
            if self._peek() != "^":
                return number(-float(digits[0]))
            self.at = digits.start()
        if (name := self.written.get(("-", 1, ()))) is None:
            raise self._wrong("an operand: this language has no negative")
        return Expression(name, (self._infix(_NEGATIVE),))

    def _atom(self) -> Expression:
        if self._peek() == "(":
            self.at += 1
            found = self._infix(_SUM)
            self._expect(")")
            return found
        if (operand := self._operand()) is not None:
            self.at += len(operand)
            return Expression(self.operands[operand])
        if digits := _NUMBER.match(self.text, self.at):
            self.at = digits.end()
            return number(float(digits[0]))
        word, start = _WORD.match(self.text, self.at), self.at
        if word:
            self.at = word.end()
            if self._peek() == "(":
                return self._call(word[0], start)
        self.at = start
        raise self._wrong("an operand or a function")

    def _call(self, name: str, start: int) -> Expression:
        self._expect("(")
        operands: list[Expression] = []
        texts: list[str] = []
        while not operands or self._peek() == ",":
            self.at += bool(operands)
            begin = self.at
            operands.append(self._infix(_SUM))
            texts.append(self.text[begin : self.at].strip())
        self._expect(")")
        for arity in range(len(operands), 0, -1):
            symbol = self.written.get((name, arity, tuple(texts[arity:])))
            if symbol is not None:
                return Expression(symbol, tuple(operands[:arity]))
        self.at = start
        raise self._wrong(f"a function that takes {counted(len(operands))}")

    def _operand(self) -> str | None:
        """The operand that stands here, unless it is the beginning of a longer word or of a function's call."""
        for operand in self.operands:
            end = self.at + len(operand)
            longer = _WORD.match(self.text[end : end + 1]) or self.text[end:].lstrip().startswith("(")
            if self.text.startswith(operand, self.at) and not longer:
                return operand
        return None

    def _peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _expect(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._wrong(repr(sign))
        self.at += 1

    def _wrong(self, wanted: str) -> IllegalExpression:
        found = self.text[self.at : self.at + 20]
        return IllegalExpression(
            f"at character {self.at + 1} of the expression there should be {wanted}, and there is "
            f"{shown(found) if found else 'nothing'}; what there is: {', '.join(self.known)}"
        )
