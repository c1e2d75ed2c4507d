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

_ALONE = 3  # a combination of one operand, which the machine has beside those of cells
SUM, COPY = 20, 21
_NONE = -1


class Kind(IntEnum):
    """Where a block lies. The order is that of `Kind` in layer.h."""

    XP = 0
    """Products W_x x_t; the index counts leaves in `Plan.order`. Where the leaf adds, W_h h_{t-1} is in them as well."""
    HP = 1
    """Products W_h h_{t-1} of the leaves that do not add; the index counts these."""
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
    """Gradients of the inputs' products, where they are others than those of W_h h_{t-1}; the index is HP's."""
    NOTHING = 12
    """Zeros."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation on blocks, by their numbers among `Program.slots`; -1 is none. The layout is machine.h's.

    Args:
        code: combination * 5 + activation, as both are numbered in cell_graph.py; or SUM or COPY. A combination beside
            those takes `left` as it is.
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


@dataclass(frozen=True, eq=False)
class Plan:
    """Both programs of a cell. There is one for each cell, which is its own key.

    Args:
        forward, backward: the programs.
        values: how many values are kept beside the products.
        order: the leaves, those that add first.
        adds: how many add. Their two products are summed as they are taken, and have the same gradient.
        unused: the leaves that neither h_t nor c_t depends on, whose gradients are zero.
    """

    forward: Program
    backward: Program
    values: int
    order: tuple[int, ...]
    adds: int
    unused: tuple[int, ...]

    @cached_property
    def order_array(self) -> ctypes.Array[ctypes.c_int32]:
        """The order as the library reads it."""
        return _integers(self.order)


@lru_cache(maxsize=4096)
def plan_of(graph: CellGraph) -> Plan:
    """The programs of a cell."""
    return _Planner(graph).plan()


Slot = tuple[Kind, int]


class _Planner:
    def __init__(self, graph: CellGraph) -> None:
        self.graph = graph
        self.values: tuple[Leaf | Node, ...] = (*graph.leaves, *graph.nodes)
        adding = [k for k, leaf in enumerate(graph.leaves) if leaf.combination == "add"]
        self.adds = len(adding)
        self.order = (*adding, *(k for k in range(len(graph.leaves)) if k not in adding))
        self.live, self.read = self._live()
        self.kept_values = 0
        self.after: dict[int, Slot] = {C_PREV: (Kind.C_PREV, 0)}  # where each a lies
        self.before: dict[int, Slot] = {}  # and each p that someone wants
        for v in range(len(self.values)):
            self._place(v)

    def plan(self) -> Plan:
        forward = _Writer()
        for v in sorted(self.live):
            left, right = self._operands(v)
            out, p_out = (self.after[v] if v in self.read else None), self.before.get(v)
            p_out = None if p_out == left else p_out
            alone = right is None and self.values[v].activation == "identity" and out == left and p_out is None
            if not alone:
                forward.write(self._code(v), left=left, right=right, out=out, p_out=p_out)
        unused = tuple(k for k in range(len(self.graph.leaves)) if k not in self.live)
        return Plan(forward.program(), self._backward(), self.kept_values, self.order, self.adds, unused)

    def _live(self) -> tuple[set[int], set[int]]:
        """The values that h_t and c_t depend on, and those of them whose a is read."""
        live, read, open_ = {self.graph.h, self.graph.c}, {self.graph.h}, [self.graph.h, self.graph.c]
        while open_:
            value = self.values[open_.pop()]
            for operand in (value.left, value.right) if isinstance(value, Node) else ():
                if operand != C_PREV:
                    read.add(operand)
                    if operand not in live:
                        live.add(operand)
                        open_.append(operand)
        return live, read

    def _place(self, v: int) -> None:
        """Decides where a value's a and p lie: where its product was, if that is needed no more."""
        value = self.values[v]
        sums = isinstance(value, Leaf) and value.combination == "add"
        product: Slot | None = (Kind.XP, self.order.index(v)) if sums else None
        if v == self.graph.c:
            self.before[v] = (Kind.C, 0)
        elif value.activation == "sin":  # whose derivative is not a function of a
            self.before[v] = product or self._new()
            product = None
        if v not in self.read:
            return
        if v == self.graph.h:
            self.after[v] = (Kind.H, 0)
        elif v == self.graph.c and value.activation == "identity":
            self.after[v] = self.before.pop(v)
        else:
            self.after[v] = product or self._new()

    def _new(self) -> Slot:
        self.kept_values += 1
        return Kind.VALUE, self.kept_values - 1

    def _operands(self, v: int) -> tuple[Slot, Slot | None]:
        value = self.values[v]
        if isinstance(value, Node):
            return self.after[value.left], self.after[value.right]
        at = self.order.index(v)
        return (Kind.XP, at), (None if value.combination == "add" else (Kind.HP, at - self.adds))

    def _code(self, v: int, activation: str | None = None) -> int:
        value = self.values[v]
        sums = isinstance(value, Leaf) and value.combination == "add"
        combination = _ALONE if sums else COMBINATIONS.index(value.combination)
        return combination * len(ACTIVATIONS) + ACTIVATIONS.index(activation or value.activation)

    # --- backward -----------------------------------------------------------------------------------------------------

    def _backward(self) -> Program:
        """From the last value to the first: the gradient of each, known by then, goes to what it combines."""
        writer, scratch = _Writer(), _Scratch()
        gradients: dict[int, Slot] = {self.graph.h: (Kind.GRADIENT_H, 0)}
        nodes = [node for v in self.live if isinstance(node := self.values[v], Node)]
        straight = sum((node.left == C_PREV) + (node.right == C_PREV) for node in nodes) == 1

        def contribute(v: int, slot: Slot) -> None:
            if v in gradients:
                total = scratch.take()
                writer.write(SUM, left=gradients[v], right=slot, out=total)
                scratch.give(gradients[v])
                scratch.give(slot)
                slot = total
            gradients[v] = slot

        for v in sorted(self.live, reverse=True):
            value = self.values[v]
            gradient, extra = gradients.pop(v, None), (Kind.GRADIENT_C, 0) if v == self.graph.c else None
            code, kept = self._code(v), self.before.get(v) if value.activation == "sin" else self.after.get(v)
            if gradient is None:  # c_t alone reads it, before its activation
                code, gradient, extra = self._code(v, "identity"), extra, None
                assert gradient is not None
            if code % len(ACTIVATIONS) == ACTIVATIONS.index("identity"):
                kept = None
            scratch.give(gradient)
            outs: list[Slot | None]
            to: list[tuple[int, Slot]] = []
            if isinstance(value, Leaf):
                outs = self._leaf_gradients(v)
            else:
                sides = (value.left, value.right)
                direct = [straight and side == C_PREV for side in sides]
                outs = [(Kind.GRADIENT_C_PREV, 0) if d else None for d in direct]
                others = [i for i in (0, 1) if not direct[i]]
                if value.combination == "add":  # one gradient for both
                    common = scratch.take(len(others)) if others else None
                    for i in others:
                        outs[i] = common if i == others[0] else None
                        assert common is not None
                        to.append((sides[i], common))
                else:
                    for i in others:
                        outs[i] = taken = scratch.take()
                        to.append((sides[i], taken))
            left, right = self._operands(v) if value.combination != "add" else (None, None)
            writer.write(
                code, left=left, right=right, out=outs[0], p_out=outs[1], gradient=gradient, extra=extra, kept=kept
            )
            for side, slot in to:
                contribute(side, slot)
        if not straight:
            writer.write(COPY, left=gradients.get(C_PREV, (Kind.NOTHING, 0)), out=(Kind.GRADIENT_C_PREV, 0))
        return writer.program()

    def _leaf_gradients(self, v: int) -> list[Slot | None]:
        at = self.order.index(v) - self.adds
        return [None if at < 0 else (Kind.DXP, at), (Kind.DHP, v)]


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


def _integers(numbers: Iterable[int]) -> ctypes.Array[ctypes.c_int32]:
    listed = list(numbers)
    return (ctypes.c_int32 * len(listed))(*listed)
