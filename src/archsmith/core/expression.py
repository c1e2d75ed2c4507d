"""Expressions: trees of operands, unary and binary functions, which update rules and activation functions are made of.

Bello et al. (2017, section 3) and Ramachandran et al. (2017, section 2). What the names of a tree mean, its `Language` says
(core/language.py); how it is read and written as text, core/formula.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from archsmith.core.errors import IllegalExpression
from archsmith.core.shown import shown

MAX_DEPTH = 40
"""The deepest expression that is read. The searches of the papers make expressions of about 20."""
MAX_NODES = 2_000
"""The most nodes of an expression that is read."""


@dataclass(frozen=True)
class Expression:
    """A tree: a symbol's name, or a number, with what it is applied to. Equal when the trees are."""

    name: str | float
    operands: tuple[Expression, ...] = ()

    @functools.cached_property
    def depth(self) -> int:
        """Nodes on the longest way from the root to a leaf."""
        return 1 + max((operand.depth for operand in self.operands), default=0)

    @functools.cached_property
    def nodes(self) -> int:
        """How many nodes the tree has, repeated parts counted each time."""
        return 1 + sum(operand.nodes for operand in self.operands)

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.name, self.operands))

    def __hash__(self) -> int:  # kept, since large trees are looked up often
        return self._hash

    @property
    def is_number(self) -> bool:
        """Whether it is a number and not a symbol."""
        return isinstance(self.name, int | float)

    def walk(self) -> Iterator[Expression]:
        """Every node, parts before what they are part of."""
        for operand in self.operands:
            yield from operand.walk()
        yield self

    def to_json(self) -> Any:
        """Plain JSON: a name, a number, or `[name, operand, ...]`."""
        return [self.name, *(operand.to_json() for operand in self.operands)] if self.operands else self.name


@dataclass(frozen=True)
class Symbol:
    """An operand (arity 0) or a function of one or two expressions.

    Args:
        name: what JSON calls it; unique in its language.
        arity: 0, 1 or 2.
        text: how it is written: an operand's name, a function's, or one of + - * / ^.
        latex: how it is set, with {0} and {1} for the operands of a function.
        torch: how it is computed, as Python of tensors, with {0} and {1} for the operands of a function.
        literals: further arguments that are part of the symbol, as in clip(x, 1e-5).
        value: the same of plain numbers, so that constants are computed once; None where that makes no sense.
        commutative: whether the order of two operands does not matter.
        fresh: whether each occurrence is a value of its own: noise, dropout, a trainable parameter.
    """

    name: str
    arity: int
    text: str
    latex: str
    torch: str
    literals: tuple[str, ...] = ()
    value: Callable[..., float] | None = None
    commutative: bool = False
    fresh: bool = False


def number(value: float) -> Expression:
    """A number as an expression, a whole one as such. Raises IllegalExpression when it is not finite."""
    try:
        exact = float(value)
    except OverflowError:
        exact = math.inf
    if not math.isfinite(exact):
        raise IllegalExpression(f"a number of an expression must be finite, got {shown(value)}")
    return Expression(int(exact) if exact.is_integer() and abs(exact) < 2**53 else exact)


def too_large() -> IllegalExpression:
    """What to raise for an expression beyond MAX_DEPTH or MAX_NODES."""
    return IllegalExpression(
        f"an expression may have {MAX_NODES:,} nodes and a depth of {MAX_DEPTH}, and this has more"
    )


def counted(operands: int) -> str:
    """How many operands, for a message."""
    return ("no operands", "one operand", "two operands")[operands] if operands < 3 else f"{operands:,} operands"
