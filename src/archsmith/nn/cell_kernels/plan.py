"""A cell as programs of the virtual machine (machine.h): what is computed in which order, and where it lies.

Forward, an instruction is one value of the cell. Its a is kept for the backward pass, over the product that it came
from where nothing else needs that. Backward, an instruction takes a value's gradient to those of what it combines;
gradients live in scratch blocks, which are used again as soon as they are free.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache

from archsmith.nn.cell_graph import ACTIVATIONS, C_PREV, COMBINATIONS, CellGraph, Leaf, Node

SUM, COPY = 15, 16
_NONE = -1


class Kind(IntEnum):
    """Where a block lies. The order is that of `Kind` in layer.cpp."""

    XP = 0
    """Products W_x x_t."""
    HP = 1
    """Products W_h h_{t-1}."""
    VALUE = 2
    H = 3
    C = 4
    C_PREV = 5
    SCRATCH = 6
    GRADIENT_H = 7
    GRADIENT_C = 8
    GRADIENT_C_PREV = 9
    DHP = 10
    DXP = 11
    NOTHING = 12
    """Zeros."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation on blocks, by their numbers among `Program.slots`; -1 is none. The layout is machine.h's.

    Args:
        code: combination * 5 + activation, as both are numbered in cell_graph.py; or SUM or COPY.
        left, right: what is combined.
        out, p_out: forward, where a and p go; backward, where the gradients of left and right go.
        gradient: backward, of a.
        extra: backward, what is added to the gradient of p: that of c_t.
        kept: backward, a, or p where the activation is sin.
    """

    code: int
    left: int = _NONE
    right: int = _NONE
    out: int = _NONE
    p_out: int = _NONE
    gradient: int = _NONE
    extra: int = _NONE
    kept: int = _NONE


@dataclass(frozen=True)
class Program:
    """Instructions, and the kind and index of every block that they name."""

    instructions: tuple[Instruction, ...]
    slots: tuple[tuple[Kind, int], ...]

    @cached_property
    def slot_array(self) -> ctypes.Array[ctypes.c_int32]:
        """The slots as the library reads them."""
        return _integers(number for kind, index in self.slots for number in (int(kind), index))

    @cached_property
    def instruction_array(self) -> ctypes.Array[ctypes.c_int32]:
        """The instructions as the library reads them."""
        return _integers(
            number
            for at in self.instructions
            for number in (at.code, at.left, at.right, at.out, at.p_out, at.gradient, at.extra, at.kept)
        )


@dataclass(frozen=True)
class Plan:
    """Both programs of a cell.

    Args:
        forward, backward: the programs.
        values: how many values are kept beside the products.
        adds: whether every leaf adds, so that both products have the same gradient.
        unused: the leaves that neither h_t nor c_t depends on, whose gradients are zero.
    """

    forward: Program
    backward: Program
    values: int
    adds: bool
    unused: tuple[int, ...]


@lru_cache(maxsize=4096)
def plan_of(graph: CellGraph) -> Plan:
    """The programs of a cell."""
    values: tuple[Leaf | Node, ...] = (*graph.leaves, *graph.nodes)
    live, read = _live(graph, values)
    after, before, count = _places(graph, values, read)
    forward = _Writer()
    for v in sorted(live):
        left, right = _operands(graph, values, after, v)
        forward.write(
            _code(values[v]),
            left=left,
            right=right,
            out=after[v] if v in read else None,
            p_out=before.get(v),
        )
    adds = all(leaf.combination == "add" for leaf in graph.leaves)
    unused = tuple(k for k in range(len(graph.leaves)) if k not in live)
    backward = _backward(graph, values, live, after, before, adds)
    return Plan(forward.program(), backward, count, adds, unused)


Slot = tuple[Kind, int]


def _integers(numbers: Iterable[int]) -> ctypes.Array[ctypes.c_int32]:
    listed = list(numbers)
    return (ctypes.c_int32 * len(listed))(*listed)


class _Writer:
    """Instructions by the names of their blocks."""

    def __init__(self) -> None:
        self._slots: dict[Slot, int] = {}
        self._instructions: list[Instruction] = []

    def write(self, code: int, **operands: Slot | None) -> None:
        numbers = {
            name: _NONE if slot is None else self._slots.setdefault(slot, len(self._slots))
            for name, slot in operands.items()
        }
        self._instructions.append(Instruction(code, **numbers))

    def program(self) -> Program:
        return Program(tuple(self._instructions), tuple(self._slots))


def _code(value: Leaf | Node, activation: str | None = None) -> int:
    return COMBINATIONS.index(value.combination) * len(ACTIVATIONS) + ACTIVATIONS.index(activation or value.activation)


def _live(graph: CellGraph, values: tuple[Leaf | Node, ...]) -> tuple[set[int], set[int]]:
    """The values that h_t and c_t depend on, and those of them whose a is read."""
    live, read, open_ = {graph.h, graph.c}, {graph.h}, [graph.h, graph.c]
    while open_:
        value = values[open_.pop()]
        for operand in (value.left, value.right) if isinstance(value, Node) else ():
            if operand != C_PREV:
                read.add(operand)
                if operand not in live:
                    live.add(operand)
                    open_.append(operand)
    return live, read


def _places(
    graph: CellGraph, values: tuple[Leaf | Node, ...], read: Iterable[int]
) -> tuple[dict[int, Slot], dict[int, Slot], int]:
    """Where each a and, where someone wants it, each p lies, and how many lie among the values that are kept."""
    after: dict[int, Slot] = {C_PREV: (Kind.C_PREV, 0)}
    before: dict[int, Slot] = {}
    count = 0
    for v, value in enumerate(values):
        product = (Kind.HP, v) if isinstance(value, Leaf) and value.combination == "add" else None
        if v == graph.c:
            before[v] = (Kind.C, 0)
        elif value.activation == "sin":  # whose derivative is not a function of a
            before[v] = product or (Kind.VALUE, count)
            count, product = count + (product is None), None
        if v not in read:
            continue
        if v == graph.h:
            after[v] = (Kind.H, 0)
        elif v == graph.c and value.activation == "identity":
            after[v] = before.pop(v)
        elif product is not None:
            after[v] = product
        else:
            after[v] = (Kind.VALUE, count)
            count += 1
    return after, before, count


def _operands(graph: CellGraph, values: tuple[Leaf | Node, ...], after: dict[int, Slot], v: int) -> tuple[Slot, Slot]:
    value = values[v]
    if isinstance(value, Leaf):
        return (Kind.XP, v), (Kind.HP, v)
    return after[value.left], after[value.right]


def _backward(
    graph: CellGraph,
    values: tuple[Leaf | Node, ...],
    live: set[int],
    after: dict[int, Slot],
    before: dict[int, Slot],
    adds: bool,
) -> Program:
    writer = _Writer()
    scratch = _Scratch()
    gradients: dict[int, Slot] = {graph.h: (Kind.GRADIENT_H, 0)}
    uses_of_c = sum(
        operand == C_PREV for v in live if isinstance(node := values[v], Node) for operand in (node.left, node.right)
    )

    def contribute(v: int, slot: Slot) -> None:
        if v not in gradients:
            gradients[v] = slot
            return
        total = scratch.take()
        writer.write(SUM, left=gradients[v], right=slot, out=total)
        scratch.give(gradients[v])
        scratch.give(slot)
        gradients[v] = total

    for v in sorted(live, reverse=True):
        value = values[v]
        extra: Slot | None = (Kind.GRADIENT_C, 0) if v == graph.c else None
        gradient = gradients.pop(v, None)
        if gradient is None:  # c_t alone reads it, before its activation
            assert extra is not None
            code, gradient, extra, kept = _code(value, "identity"), extra, None, None
        else:
            code = _code(value)
            kept = {"identity": None, "sin": before.get(v)}.get(value.activation, after.get(v))
        left, right = _operands(graph, values, after, v)
        if value.combination == "add":
            operands: tuple[Slot | None, Slot | None] = (None, None)
        else:
            operands = (left, right)
        scratch.give(gradient)
        shared: tuple[int, ...] = ()
        outs: tuple[Slot | None, Slot | None]
        if isinstance(value, Leaf):
            outs = (None if adds else (Kind.DXP, v), (Kind.DHP, v))
        else:
            sides = (value.left, value.right)
            direct = [side == C_PREV and uses_of_c == 1 for side in sides]
            if value.combination == "add":  # one gradient for both
                shared = tuple(side for side, straight in zip(sides, direct, strict=True) if not straight)
                common = scratch.take(len(shared)) if shared else None
                outs = (common, (Kind.GRADIENT_C_PREV, 0) if any(direct) else None)
            else:
                outs = tuple(  # type: ignore[assignment]
                    (Kind.GRADIENT_C_PREV, 0) if straight else scratch.take() for straight in direct
                )
        writer.write(
            code,
            left=operands[0],
            right=operands[1],
            out=outs[0],
            p_out=outs[1],
            gradient=gradient,
            extra=extra,
            kept=kept,
        )
        if isinstance(value, Node):
            for side, out in zip((value.left, value.right), outs, strict=True):
                if value.combination != "add" and out is not None and out[0] == Kind.SCRATCH:
                    contribute(side, out)
            for side in shared:
                assert outs[0] is not None
                contribute(side, outs[0])
    if uses_of_c != 1:
        writer.write(COPY, left=gradients.get(C_PREV, (Kind.NOTHING, 0)), out=(Kind.GRADIENT_C_PREV, 0))
    return writer.program()


class _Scratch:
    """Blocks that are used again once all who read them have done so."""

    def __init__(self) -> None:
        self._readers: dict[Slot, int] = {}
        self._free: list[Slot] = []

    def take(self, readers: int = 1) -> Slot:
        slot = self._free.pop() if self._free else (Kind.SCRATCH, len(self._readers))
        self._readers[slot] = readers
        return slot

    def give(self, slot: Slot) -> None:
        if slot[0] == Kind.SCRATCH:
            self._readers[slot] -= 1
            if not self._readers[slot]:
                self._free.append(slot)
