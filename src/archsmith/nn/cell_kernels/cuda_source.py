"""The text of a cell's two Triton kernels: all its elementwise operations at one step, forward and backward.

One program works on `BLOCK` of the B n numbers of a step; number (row, j) of block k stands at row L n + k n + j of the
two products. Everything is computed in float32 and kept in registers, whatever the products are stored in. The backward
kernel computes the values again from the products and c_{t-1}, which are cheaper to read than to store.
"""

from __future__ import annotations

from archsmith.nn.cell_graph import C_PREV, CellGraph, Leaf, Node

_HEAD = '''\
import triton
import triton.language as tl


@triton.jit
def _tanh(p):
    """Within 3e-7 of it, relatively: 1 - e loses digits near 0, where a polynomial has them."""
    s = p * p
    near = p + p * (s * (((0.01643758 * s - 0.05267181) * s + 0.1332072) * s - 0.33332947))
    e = tl.exp(-2.0 * tl.abs(p))
    far = (1.0 - e) / (1.0 + e)
    return tl.where(tl.abs(p) < 0.55, near, tl.where(p < 0.0, -far, far))


@triton.jit
def _sigmoid(p):
    e = tl.exp(-tl.abs(p))
    return tl.where(p < 0.0, e, 1.0) / (1.0 + e)
'''

_ACTIVATE = {
    "identity": "{p}",
    "tanh": "_tanh({p})",
    "sigmoid": "_sigmoid({p})",
    "relu": "tl.where({p} <= 0.0, 0.0, {p})",  # so written that NaN stays NaN, as it does in torch
    "sin": "tl.sin({p})",
}
_COMBINE = {
    "add": "{left} + {right}",
    "elem_mult": "{left} * {right}",
    "max": "tl.where(({left} >= {right}) | ({left} != {left}), {left}, {right})",  # NaN stays NaN, from either side
}
_SLOPE = {
    "identity": "{g}",
    "tanh": "({g}) * (1.0 - {a} * {a})",
    "sigmoid": "({g}) * ({a} * (1.0 - {a}))",
    "relu": "tl.where({p} <= 0.0, 0.0, {g})",
    "sin": "({g}) * tl.cos({p})",
}


def kernel_source(graph: CellGraph) -> str:
    """The module of a cell's two kernels, `forward` and `backward`, as Python with Triton.

    Both take flat pointers, a step and the sizes:

        forward(from_inputs, from_state, c, h, read, mask, step, size, n, MASKED, BLOCK)
        backward(from_inputs, from_state, c, mask, grad_h, grad_c, dh, dc, d_inputs, d_state, step, size, n, MASKED, BLOCK)

    from_inputs, from_state: [T, B, L n], the two products; c: [T + 1, B, n] in float32, from c_0; h: [T, B, n], written
    with a mask only; read: [T + 1, B, n], what the next product reads, which is h_t times the mask; mask: [B, n]; grad_h,
    grad_c: [T, B, n], the gradients that arrive from above; dh, dc: [B, n], those that arrive from the step after, of
    which dc is replaced by what goes to the step before; d_inputs, d_state: [T, B, L n], the results. `size` is B n.
    """
    live = _live(graph)
    blocks = [k for k in range(len(graph.leaves)) if k in live]
    load = [
        *(f"x{k} = tl.load(from_inputs + at{_plus(k)}, mask=inside, other=0.0).to(tl.float32)" for k in blocks),
        *(f"s{k} = tl.load(from_state + at{_plus(k)}, mask=inside, other=0.0).to(tl.float32)" for k in blocks),
        "c_prev = tl.load(c + here, mask=inside, other=0.0)",
    ]
    values = [line for k in sorted(live) for line in _value(graph, k)]
    forward = [
        *_indices(len(graph.leaves)),
        *load,
        *values,
        f"tl.store(c + here + size, p{graph.c}, mask=inside)",
        "if MASKED:",
        f"    tl.store(h + here, a{graph.h}, mask=inside)",
        "    kept = tl.load(mask + index, mask=inside, other=0.0).to(tl.float32)",
        f"    tl.store(read + here + size, a{graph.h} * kept, mask=inside)",
        "else:",
        f"    tl.store(read + here + size, a{graph.h}, mask=inside)",
    ]
    backward = [
        *_indices(len(graph.leaves)),
        *load,
        *values,
        "g_next = tl.load(dh + index, mask=inside, other=0.0).to(tl.float32)",
        "if MASKED:",
        "    g_next = g_next * tl.load(mask + index, mask=inside, other=0.0).to(tl.float32)",
        "g_h = tl.load(grad_h + here, mask=inside, other=0.0).to(tl.float32) + g_next",
        "g_c = tl.load(grad_c + here, mask=inside, other=0.0) + tl.load(dc + index, mask=inside, other=0.0)",
        *_gradients(graph),
    ]
    inputs = ("c", "h", "read", "mask")
    outputs = ("c", "mask", "grad_h", "grad_c", "dh", "dc", "d_inputs", "d_state")
    return "\n\n".join((_HEAD, _kernel("forward", inputs, forward), _kernel("backward", outputs, backward)))


def _kernel(name: str, pointers: tuple[str, ...], body: list[str]) -> str:
    # Without a special version for each alignment of the three numbers: all sizes share what was compiled first.
    arguments = ", ".join(("from_inputs", "from_state", *pointers))
    return "\n".join(
        (
            '@triton.jit(do_not_specialize=["step", "size", "n"])',
            f"def {name}(",
            f"    {arguments},",
            "    step, size, n, MASKED: tl.constexpr, BLOCK: tl.constexpr,",
            "):",
            *(f"    {line}" for line in body),
            "",
        )
    )


def _indices(leaves: int) -> list[str]:
    return [
        "index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)",
        "inside = index < size",
        "before = step.to(tl.int64) * size",  # whole sequences may have more than 2^31 numbers, one step has not
        "here = before + index",
        f"at = before * {leaves} + index + (index // n) * (n * {leaves - 1})",
    ]


def _plus(block: int) -> str:
    return f" + {block} * n" if block else ""


def _live(graph: CellGraph) -> set[int]:
    """The values that h_t and c_t are made of. A tree's are all live; a graph may have others."""
    live: set[int] = set()
    waiting = [graph.h, graph.c]
    while waiting:
        k = waiting.pop()
        if k not in live:
            live.add(k)
            waiting += [operand for operand in _reads(graph, k) if operand != C_PREV]
    return live


def _values(graph: CellGraph) -> tuple[Leaf | Node, ...]:
    return (*graph.leaves, *graph.nodes)


def _reads(graph: CellGraph, k: int) -> tuple[int, ...]:
    value = _values(graph)[k]
    return (value.left, value.right) if isinstance(value, Node) else ()


def _operands(graph: CellGraph, k: int) -> tuple[str, str]:
    reads = _reads(graph, k)
    if not reads:
        return f"x{k}", f"s{k}"
    left, right = ("c_prev" if operand == C_PREV else f"a{operand}" for operand in reads)
    return left, right


def _value(graph: CellGraph, k: int) -> list[str]:
    value, (left, right) = _values(graph)[k], _operands(graph, k)
    return [
        f"p{k} = " + _COMBINE[value.combination].format(left=left, right=right),
        f"a{k} = " + _ACTIVATE[value.activation].format(p=f"p{k}"),
    ]


def _gradients(graph: CellGraph) -> list[str]:
    """From the gradients of h_t and c_t, `g_h` and `g_c`, to those of the products and of c_{t-1}: the chain rule from
    the last value to the first. `g{k}` is the gradient of p_k."""
    lines: list[str] = []
    arriving: dict[str, list[str]] = {f"a{graph.h}": ["g_h"]}
    for k in sorted(_live(graph), reverse=True):
        value, (left, right) = _values(graph)[k], _operands(graph, k)
        above = arriving.get(f"a{k}")
        terms = [_SLOPE[value.activation].format(g=" + ".join(above), a=f"a{k}", p=f"p{k}")] if above else []
        if k == graph.c:
            terms.append("g_c")
        lines.append(f"g{k} = " + " + ".join(terms))
        for operand, other, side in ((left, right, "l"), (right, left, "r")):
            if value.combination == "add":
                part = f"g{k}"
            elif value.combination == "elem_mult":
                part = f"g{k} * {other}"
            else:  # the larger takes it; equals take half each, as in torch
                part = f"g{k}{side}"
                lines.append(
                    f"{part} = tl.where({operand} < {other}, 0.0, tl.where({operand} == {other}, 0.5 * g{k}, g{k}))"
                )
            arriving.setdefault(operand, []).append(part)
    lines.append("tl.store(dc + index, " + _sum(arriving.get("c_prev")) + ", mask=inside)")
    for k in range(len(graph.leaves)):
        for to, name in (("d_inputs", "x"), ("d_state", "s")):
            lines.append(f"tl.store({to} + at{_plus(k)}, {_sum(arriving.get(f'{name}{k}'))}, mask=inside)")
    return lines


def _sum(terms: list[str] | None) -> str:
    return " + ".join(terms) if terms else "tl.full([BLOCK], 0.0, tl.float32)"
