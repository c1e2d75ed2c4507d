"""The elementwise part of one cell as C++ of its own: for long training, where a second of compiling is nothing.

The machine (machine.h) writes every value to a block and reads it again. Here a cell's values stay in registers, and
only what the backward pass needs is written. Same programs, same driver, same numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

from archsmith.nn.cell_graph import ACTIVATIONS
from archsmith.nn.cell_kernels.library import built, opened
from archsmith.nn.cell_kernels.plan import COPY, SUM, Instruction, Kind, Plan, Program

_COMBINATIONS = ("ADD", "MULTIPLY", "MAX", "ALONE")  # as vectors.h has them
_HEAD = '#include "vectors.h"\nusing namespace archsmith;\n'


class Kernels:
    """The compiled programs of a cell.

    Attributes:
        forward, backward: their addresses, for the library.
    """

    def __init__(self, plan: Plan) -> None:
        source = source_of(plan).encode()
        self._library = opened(built("cell", source), "cell_forward", "cell_backward")
        functions = (self._library.cell_forward, self._library.cell_backward)
        self.forward, self.backward = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)


@lru_cache(maxsize=256)
def kernels_of(plan: Plan) -> Kernels:
    """The compiled programs of a cell, from the cache or compiled in about a second. Raises `library.NoLibrary`."""
    return Kernels(plan)


def source_of(plan: Plan) -> str:
    """The C++ source of both programs."""
    return (
        _HEAD
        + _function("cell_forward", plan.forward, _forward_lines)
        + _function("cell_backward", plan.backward, _backward_lines)
    )


class _Values:
    """Blocks by number, each held in a variable once it is read or written; scratch is never stored."""

    def __init__(self, program: Program) -> None:
        self._slots = program.slots
        self._held: dict[int, str] = {}
        self.lines: list[str] = []

    def read(self, slot: int) -> str:
        if slot not in self._held:
            if self._slots[slot][0] == Kind.NOTHING:
                return "V{}"
            self._name(slot, f"get(b{slot} + i)")
        return self._held[slot]

    def write(self, slot: int, value: str) -> None:
        if slot >= 0:
            self._name(slot, value)
            if self._slots[slot][0] != Kind.SCRATCH:
                self.lines.append(f"put(b{slot} + i, {self._held[slot]});")

    def name(self, value: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"const V {name} = {value};")
        return name

    def _name(self, slot: int, value: str) -> None:
        self._held[slot] = self.name(value)


def _function(name: str, program: Program, lines_of: Callable[[_Values, Instruction], None]) -> str:
    values = _Values(program)
    for at in program.instructions:
        lines_of(values, at)
    blocks = "".join(f"    float* const b{k} = blocks[{k}];\n" for k in range(len(program.slots)))
    body = "".join(f"        {line}\n" for line in values.lines)
    return (
        f'extern "C" void {name}(float* const* blocks, long count) {{\n{blocks}'
        f"    auto step = [&](long i, auto get, auto put) {{\n{body}    }};\n"
        "    long i = 0;\n"
        "    for (; i + WIDTH <= count; i += WIDTH)\n"
        "        step(i, [](const float* from) { return load(from); }, [](float* to, V x) { store(to, x); });\n"
        "    if (long rest = count - i)\n"
        "        step(i, [=](const float* from) { return load(from, rest); },\n"
        "             [=](float* to, V x) { store(to, x, rest); });\n"
        "}\n"
    )


def _forward_lines(values: _Values, at: Instruction) -> None:
    combination, activation = divmod(at.code, len(ACTIVATIONS))
    left = values.read(at.left)
    right = values.read(at.right) if at.right >= 0 else left
    p = values.name(f"combine<{_COMBINATIONS[combination]}>({left}, {right})")
    values.write(at.p_out, p)
    if at.out >= 0:
        values.write(at.out, f"activate<{ACTIVATIONS[activation].upper()}>({p})")


def _backward_lines(values: _Values, at: Instruction) -> None:
    if at.code == SUM:
        values.write(at.out, f"{values.read(at.left)} + {values.read(at.right)}")
        return
    if at.code == COPY:
        values.write(at.out, values.read(at.left))
        return
    combination, activation = divmod(at.code, len(ACTIVATIONS))
    kept = values.read(at.kept) if at.kept >= 0 else "V{}"
    slope = f"derive<{ACTIVATIONS[activation].upper()}>({values.read(at.gradient)}, {kept})"
    dp = values.name(slope + (f" + {values.read(at.extra)}" if at.extra >= 0 else ""))
    gradients = [dp, dp]
    if _COMBINATIONS[combination] in ("MULTIPLY", "MAX"):
        left, right = values.read(at.left), values.read(at.right)
        times = _COMBINATIONS[combination] == "MULTIPLY"
        gradients = [
            f"{dp} * {right}" if times else f"larger({dp}, {left}, {right})",
            f"{dp} * {left}" if times else f"larger({dp}, {right}, {left})",
        ]
    values.write(at.out, gradients[0])
    values.write(at.p_out, gradients[1])
