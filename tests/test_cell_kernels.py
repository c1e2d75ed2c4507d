"""The native kernels of recurrent cells against the plain loop, which is torch's own arithmetic and gradients."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from archsmith.core.errors import UsageError
from archsmith.nn import cell_kernels
from archsmith.nn.cell_graph import ACTIVATIONS, C_PREV, COMBINATIONS, CellGraph, Leaf, Node, lstm, tree
from archsmith.nn.cell_kernels import library
from archsmith.nn.cell_kernels.generated import source_of
from archsmith.nn.cell_kernels.native import run_layer_native
from archsmith.nn.cell_kernels.plan import Kind, plan_of
from archsmith.nn.cell_kernels.reference import run_layer_plainly
from archsmith.nn.recurrent import GraphRNN

compiler = pytest.mark.compiler
SMOOTH = ("identity", "tanh", "sigmoid", "sin")
EXACT = ("identity", "relu")  # of whole numbers they are whole numbers
NASCELL = tree(
    [
        *[("add", "sigmoid"), ("add", "relu"), ("add", "sigmoid"), ("elem_mult", "relu"), ("add", "tanh")],
        *[("add", "sigmoid"), ("add", "tanh"), ("add", "sigmoid"), ("elem_mult", "tanh"), ("add", "tanh")],
        *[("elem_mult", "tanh"), ("add", "sigmoid"), ("elem_mult", "identity"), ("add", "tanh"), ("elem_mult", "tanh")],
    ],
    ("add", "tanh"),
    12,
    8,
)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def native() -> library.Library:
    return library.load()


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:  # not "threads": a parameter of that name would take its place
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def inputs_of(
    graph: CellGraph, steps: int, batch: int, n: int, d: int, *, seed: int = 0, whole: bool = False, bias: bool = False
) -> list[Tensor | None]:
    """x, both weights, h0, c0, the bias, with a spread that neither dies out nor explodes."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(graph.leaves) * n

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        if whole:
            return torch.randint(-1, 2, shape, generator=generator).float()
        return torch.randn(shape, generator=generator) * scale

    return [
        draw(steps, batch, d),
        draw(rows, d, scale=d**-0.5),
        draw(rows, n, scale=n**-0.5),
        draw(batch, n, scale=0.5),
        draw(batch, n, scale=0.5),
        draw(rows, scale=0.3) if bias else None,
    ]


def mask_of(batch: int, n: int, seed: int = 0) -> Tensor:
    return torch.bernoulli(torch.full((batch, n), 0.5), generator=torch.Generator().manual_seed(seed)) * 2


def trained(
    run: Callable[..., tuple[Tensor, Tensor]],
    graph: CellGraph,
    inputs: list[Tensor | None],
    *,
    mask: Tensor | None = None,
    whole: bool = False,
    **more: Any,
) -> list[Tensor]:
    """h, c and all gradients, for some gradients of h and c."""
    leaves = [None if tensor is None else tensor.clone().requires_grad_() for tensor in inputs]
    *five, bias = leaves
    hs, cs = run(graph, *five, bias=bias, h_mask=mask, **more)
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randint(-2, 3, hs.shape, generator=generator).float() * (1 if whole else 0.5) for _ in range(2)]
    torch.autograd.backward((hs, cs), gradients)
    found = [tensor.grad for tensor in leaves if tensor is not None]
    return [hs.detach(), cs.detach(), *(torch.zeros(()) if grad is None else grad for grad in found)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 2e-5) -> None:
    assert len(found) == len(expected)
    for i, (mine, reference) in enumerate(zip(found, expected, strict=True)):
        scale = reference.abs().max().clamp_min(1e-3)
        assert ((mine - reference).abs().max() / scale).item() <= tolerance, f"result {i}"


@st.composite
def graphs(draw: st.DrawFn, activations: tuple[str, ...] = ACTIVATIONS) -> CellGraph:
    """Any cell: not a tree alone, but values read often or never, c_{t-1} as well, h and c anywhere."""
    pairs = st.tuples(st.sampled_from(COMBINATIONS), st.sampled_from(activations))
    leaves = [Leaf(*pair) for pair in draw(st.lists(pairs, min_size=1, max_size=5))]
    nodes: list[Node] = []
    for pair in draw(st.lists(pairs, max_size=7)):
        operand = st.integers(C_PREV, len(leaves) + len(nodes) - 1)
        nodes.append(Node(*pair, draw(operand), draw(operand)))
    value = st.integers(0, len(leaves) + len(nodes) - 1)
    return CellGraph(tuple(leaves), tuple(nodes), draw(value), draw(value))


@st.composite
def trees(draw: st.DrawFn, activations: tuple[str, ...] = ACTIVATIONS, bases: tuple[int, ...] = (2, 4, 8)) -> CellGraph:
    count = 2 * draw(st.sampled_from(bases)) - 1
    pair = st.tuples(st.sampled_from(COMBINATIONS), st.sampled_from(activations))
    index = st.integers(0, count - 1)
    nodes = draw(st.lists(pair, min_size=count, max_size=count))
    return tree(nodes, draw(pair), draw(index), draw(index))


sizes = st.tuples(st.integers(1, 4), st.integers(1, 21), st.integers(1, 40), st.integers(1, 20))


# --- the same numbers -------------------------------------------------------------------------------------------------


@compiler
@quick
@given(
    st.one_of(graphs(EXACT), trees(EXACT)), sizes, st.booleans(), st.booleans(), st.integers(1, 4), st.integers(0, 99)
)
def test_whole_numbers_come_out_exactly_with_every_tie_and_kink(
    native: library.Library, graph: CellGraph, size: tuple[int, ...], bias: bool, masked: bool, threads: int, seed: int
) -> None:
    torch.set_num_threads(threads)
    steps, batch, n, d = min(size[0], 2), min(size[1], 9), min(size[2], 20), min(size[3], 3)
    inputs = inputs_of(graph, steps, batch, n, d, seed=seed, whole=True, bias=bias)
    mask = mask_of(batch, n) if masked else None
    expected = trained(run_layer_plainly, graph, inputs, mask=mask, whole=True)
    # Beyond, float32 would round, and the order of a sum would show; halves at ties take a few of the bits.
    assume(all(tensor.abs().max() < 2**12 for tensor in expected))
    found = trained(native_of(native), graph, inputs, mask=mask, whole=True)
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference.expand_as(mine), rtol=0, atol=0)


@compiler
@quick
@given(
    st.one_of(graphs(SMOOTH), trees(SMOOTH)), sizes, st.booleans(), st.booleans(), st.integers(1, 4), st.integers(0, 99)
)
def test_any_cell_gives_the_numbers_and_gradients_of_the_plain_loop(
    native: library.Library, graph: CellGraph, size: tuple[int, ...], bias: bool, masked: bool, threads: int, seed: int
) -> None:
    torch.set_num_threads(threads)
    steps, batch, n, d = size
    inputs = inputs_of(graph, steps, batch, n, d, seed=seed, bias=bias)
    mask = mask_of(batch, n) if masked else None
    double = [None if tensor is None else tensor.double() for tensor in inputs]
    exact = trained(run_layer_plainly, graph, double, mask=None if mask is None else mask.double())
    expected = trained(run_layer_plainly, graph, inputs, mask=mask)
    assume(all(tensor.isfinite().all() and tensor.abs().max() < 1e6 for tensor in exact))
    found = trained(native_of(native), graph, inputs, mask=mask)
    for mine, plain, reference in zip(found, expected, exact, strict=True):
        # As near to the exact numbers as the plain loop, up to a factor: a cell may be badly conditioned, or have a
        # maximum near a tie.
        scale = reference.abs().max().clamp_min(1e-3)
        error, allowed = ((tensor.double() - reference).abs().max() / scale for tensor in (mine, plain))
        if any(value.combination == "max" for value in (*graph.leaves, *graph.nodes)):
            assert ((mine - plain).abs() / scale < 1e-4).double().mean() > 0.9
        else:
            assert error <= 1e-5 + 20 * allowed


def native_of(native: library.Library) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(graph: CellGraph, *tensors: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        return run_layer_native(native, graph, *tensors, **more)

    return run


@compiler
@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compiled", [False, True])
def test_every_operation_at_a_leaf_at_a_node_and_where_c_comes_in(
    native: library.Library, combination: str, activation: str, compiled: bool
) -> None:
    if compiled and (combination, activation) not in {("max", "sin"), ("elem_mult", "tanh"), ("add", "sigmoid")}:
        pytest.skip("three kernels are compiled")
    pair = (combination, activation)
    for c_out in (0, 2):
        graph = tree([pair, ("add", "tanh"), pair], pair, c_out, 1)
        inputs = inputs_of(graph, 3, 2, 19, 3, bias=True)
        expected = trained(run_layer_plainly, graph, inputs)
        assert_close(trained(native_of(native), graph, inputs, compiled=compiled), expected)
        if compiled:
            break


@compiler
@pytest.mark.parametrize(
    ("steps", "batch", "n", "d"), [(1, 1, 1, 1), (3, 1, 257, 5), (2, 33, 31, 64), (35, 20, 24, 24)]
)
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_nascell_at_odd_sizes_and_any_number_of_threads(
    native: library.Library, steps: int, batch: int, n: int, d: int, threads: int
) -> None:
    torch.set_num_threads(threads)
    inputs = inputs_of(NASCELL, steps, batch, n, d, bias=True)
    mask = mask_of(batch, n)
    found = trained(native_of(native), NASCELL, inputs, mask=mask)
    assert_close(found, trained(run_layer_plainly, NASCELL, inputs, mask=mask))
    again = trained(native_of(native), NASCELL, inputs, mask=mask)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@compiler
def test_large_cells_are_worked_on_in_blocks(native: library.Library) -> None:
    inputs = inputs_of(NASCELL, 2, 3, 650, 40)
    assert_close(trained(native_of(native), NASCELL, inputs), trained(run_layer_plainly, NASCELL, inputs))
    deep = inputs_of(lstm(), 60, 20, 8, 4)  # more rows than a product takes at a time
    assert_close(trained(native_of(native), lstm(), deep), trained(run_layer_plainly, lstm(), deep))


@compiler
def test_base_64_runs(native: library.Library) -> None:
    graph = tree([("add", "tanh"), ("elem_mult", "sigmoid")] * 63 + [("add", "tanh")], ("add", "sin"), 100, 3)
    inputs = inputs_of(graph, 3, 4, 9, 5)
    assert_close(trained(native_of(native), graph, inputs), trained(run_layer_plainly, graph, inputs))


@compiler
def test_the_lstm_is_torchs(native: library.Library) -> None:
    torch.manual_seed(0)
    mine, theirs = GraphRNN(lstm(), 7, 11, 2, bias=True), torch.nn.LSTM(7, 11, 2)
    with torch.no_grad():
        for name, parameter in mine.named_parameters():
            layer = name[-1]
            if name.startswith("bias"):
                parameter.copy_(getattr(theirs, f"bias_ih_l{layer}") + getattr(theirs, f"bias_hh_l{layer}"))
            else:
                parameter.copy_(getattr(theirs, name))
    x = torch.randn(5, 3, 7)
    torch.testing.assert_close(mine(x)[0], theirs(x)[0])


# --- numbers that are none, or large ----------------------------------------------------------------------------------


@compiler
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_infinities_and_nan_go_where_torch_has_them_go(
    native: library.Library, combination: str, activation: str
) -> None:
    graph = CellGraph((Leaf(combination, activation),), (), 0, 0)
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 100.0, -100.0, 3e5, 1e30, -1e-30])
    x = special.repeat(4)[None, :, None]  # 40 rows, one unit
    inputs = [x, torch.ones(1, 1), torch.ones(1, 1), torch.tensor([[0.5]]).repeat(40, 1), torch.zeros(40, 1), None]
    found, expected = (trained(run, graph, list(inputs)) for run in (native_of(native), run_layer_plainly))
    # Gradients of the weights mix all rows; those of the rows are what counts.
    for i in (0, 1, 2, 5):
        torch.testing.assert_close(found[i], expected[i], rtol=1e-5, atol=2e-6, equal_nan=True)


@compiler
def test_sin_stays_right_for_large_arguments(native: library.Library) -> None:
    graph = CellGraph((Leaf("add", "sin"),), (), 0, 0)
    x = torch.cat([torch.logspace(0, 8, 100), -torch.logspace(0, 8, 100)])[None, :, None]
    inputs = [x, torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(200, 1), torch.zeros(200, 1), None]
    found, expected = (trained(run, graph, list(inputs)) for run in (native_of(native), run_layer_plainly))
    for i in (0, 2):
        torch.testing.assert_close(found[i], expected[i], rtol=0, atol=1e-6)


# --- gradients as PyTorch has them ------------------------------------------------------------------------------------


@compiler
def test_only_the_gradients_that_are_asked_for(native: library.Library) -> None:
    inputs = inputs_of(NASCELL, 4, 5, 12, 6, bias=True)
    full = trained(run_layer_plainly, NASCELL, inputs)[2:]
    for which in range(6):
        leaves = [tensor.clone().requires_grad_(i == which) for i, tensor in enumerate(inputs) if tensor is not None]
        hs, cs = run_layer_native(native, NASCELL, *leaves[:5], bias=leaves[5])
        generator = torch.Generator().manual_seed(1)
        torch.autograd.backward((hs, cs), [torch.randint(-2, 3, hs.shape, generator=generator) * 0.5 for _ in range(2)])
        for i, leaf in enumerate(leaves):
            if i == which:
                assert leaf.grad is not None
                assert_close([leaf.grad], [full[i]])
            else:
                assert leaf.grad is None


@compiler
@pytest.mark.parametrize("of", ["h", "c", "last h", "last c", "expanded"])
def test_gradients_of_some_results_alone(native: library.Library, of: str) -> None:
    results = []
    for run in (run_layer_plainly, native_of(native)):
        leaves = [t.clone().requires_grad_() for t in inputs_of(NASCELL, 4, 5, 12, 6) if t is not None]
        hs, cs = run(NASCELL, *leaves)
        loss = {"h": (hs**2).sum(), "c": (cs**2).sum(), "last h": (hs[-1] ** 2).sum(), "last c": (cs[-1] ** 2).sum()}
        loss.get(of, hs.sum() + cs.mean()).backward()
        results.append([leaf.grad for leaf in leaves])
    assert_close(results[1], results[0])


@compiler
def test_backward_twice_adds_the_same_gradients_and_changes_nothing(native: library.Library) -> None:
    leaves = [t.clone().requires_grad_() for t in inputs_of(NASCELL, 4, 5, 12, 6) if t is not None]
    before = [leaf.detach().clone() for leaf in leaves]
    hs, cs = run_layer_native(native, NASCELL, *leaves)
    loss = hs.sum() + cs.sum()
    loss.backward(retain_graph=True)
    once = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
    loss.backward()
    assert all(torch.equal(leaf.grad, 2 * one) for leaf, one in zip(leaves, once, strict=True))
    assert all(torch.equal(leaf, one) for leaf, one in zip(leaves, before, strict=True))


@compiler
def test_second_derivatives_are_refused(native: library.Library) -> None:
    leaves = [t.clone().requires_grad_() for t in inputs_of(NASCELL, 2, 2, 3, 2) if t is not None]
    hs, _ = run_layer_native(native, NASCELL, *leaves)
    with pytest.raises(UsageError, match="no second derivatives; set ARCHSMITH_KERNELS=plain"):
        torch.autograd.grad(hs.sum(), leaves[0], create_graph=True)


@compiler
def test_inputs_in_any_layout(native: library.Library) -> None:
    inputs = inputs_of(NASCELL, 4, 5, 12, 6)
    twisted = [None if t is None else t.transpose(0, -1).contiguous().transpose(0, -1) for t in inputs]
    assert not any(t.is_contiguous() for t in twisted if t is not None)
    assert_close(trained(native_of(native), NASCELL, twisted), trained(run_layer_plainly, NASCELL, inputs))


@compiler
def test_without_gradients_the_numbers_are_the_same_and_no_step_is_kept(native: library.Library) -> None:
    inputs = inputs_of(NASCELL, 6, 5, 12, 6)
    with_gradients = run_layer_native(native, NASCELL, *(t.requires_grad_() for t in inputs if t is not None))
    with torch.no_grad():
        without = run_layer_native(native, NASCELL, *(t for t in inputs if t is not None))
    for one, other in zip(with_gradients, without, strict=True):
        assert one.grad_fn is not None
        assert other.grad_fn is None
        assert torch.equal(one, other)


# --- options ----------------------------------------------------------------------------------------------------------


@compiler
def test_a_compiled_cell_gives_the_machines_numbers(native: library.Library) -> None:
    for graph in (NASCELL, lstm()):
        inputs = inputs_of(graph, 5, 6, 37, 8, bias=True)
        machine, compiled = (trained(native_of(native), graph, inputs, compiled=way) for way in (False, True))
        assert_close(compiled, machine, 2e-6)


@compiler
@pytest.mark.parametrize("graph", [lstm(), tree([("add", "tanh")] * 7, ("elem_mult", "sigmoid"), 5, 1)])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_bf16_rounds_factors_alone(native: library.Library, graph: CellGraph, threads: int) -> None:
    torch.set_num_threads(threads)
    inputs = inputs_of(graph, 6, 9, 33, 17, bias=True)
    exact = trained(run_layer_plainly, graph, inputs)
    with cell_kernels.precision("bf16"):
        found = trained(cell_kernels.run_layer, graph, inputs)
    assert_close(found, exact, 3e-2)
    same = all(torch.equal(a, b) for a, b in zip(found, trained(native_of(native), graph, inputs), strict=True))
    assert same != native.bf16
    # Whole numbers of up to 8 bits are the same in bf16.
    chain = CellGraph((Leaf("add", "relu"), Leaf("max", "identity")), (Node("add", "identity", 0, 1),), 2, 1)
    whole = inputs_of(chain, 1, 9, 33, 17, whole=True)
    plain = trained(run_layer_plainly, chain, whole, whole=True)
    with cell_kernels.precision("bf16"):
        assert all(
            torch.equal(a, b.expand_as(a))
            for a, b in zip(trained(cell_kernels.run_layer, chain, whole, whole=True), plain, strict=True)
        )


@compiler
def test_autocast_is_bf16_and_keeps_the_state_in_float32(native: library.Library) -> None:
    inputs = inputs_of(lstm(), 6, 9, 33, 17, bias=True)
    with cell_kernels.precision("bf16"):
        expected = trained(cell_kernels.run_layer, lstm(), inputs)
    x, *others = inputs
    assert x is not None
    with torch.autocast("cpu", torch.bfloat16):
        found = trained(cell_kernels.run_layer, lstm(), [x.to(torch.bfloat16), *others])
    assert found[0].dtype == found[1].dtype == torch.float32
    assert found[2].dtype == torch.bfloat16
    assert_close([found[0], found[3]], [expected[0], expected[3]], 0 if native.bf16 else 1e-2)


def test_a_precision_that_is_none_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="precision must be one of fp32, bf16, got 'fp8'"),
        cell_kernels.precision("fp8"),
    ):
        pass


def test_an_unknown_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSMITH_KERNELS", "fast")
    with pytest.raises(
        UsageError, match="ARCHSMITH_KERNELS must be one of plain, native, compiled or not set, got 'fast'"
    ):
        GraphRNN(lstm(), 2, 3)(torch.zeros(1, 1, 2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("case", ["float64", "projection", "empty", "traced"])
def test_what_the_library_cannot_do_takes_the_plain_loop(case: str) -> None:
    torch.manual_seed(0)
    network = GraphRNN(lstm(), 4, 6, bias=True, proj_size=2 if case == "projection" else 0)
    x = torch.randn(3, 0 if case == "empty" else 2, 4)
    if case == "float64":
        network, x = network.double(), x.double()
    outputs, _ = torch.jit.trace(network, x)(x) if case == "traced" else network(x)
    assert outputs.dtype == x.dtype
    assert outputs.shape == (3, x.shape[1], 2 if case == "projection" else 6)


def test_shapes_that_do_not_belong_together_are_refused_and_never_read() -> None:
    x, weight_ih, weight_hh, h0, c0, _ = inputs_of(lstm(), 3, 2, 5, 4)
    with pytest.raises(RuntimeError):
        cell_kernels.run_layer(lstm(), x, weight_ih[:-1], weight_hh, h0, c0)
    with pytest.raises(RuntimeError):
        cell_kernels.run_layer(lstm(), x, weight_ih, weight_hh[:, :-1], h0, c0)


# --- the plan, without a compiler -------------------------------------------------------------------------------------


@given(st.one_of(graphs(), trees()))
def test_a_program_reads_only_what_is_there(graph: CellGraph) -> None:
    plan = plan_of(graph)
    assert sorted(plan.order) == list(range(len(graph.leaves)))
    written = {Kind.XP, Kind.HP, Kind.C_PREV, Kind.NOTHING, Kind.GRADIENT_H, Kind.GRADIENT_C}
    for program, known in ((plan.forward, set()), (plan.backward, set(plan.forward.slots))):
        there = {i for i, slot in enumerate(program.slots) if slot[0] in written or slot in known}
        for at in program.instructions:
            reads = {at.left, at.right, at.gradient, at.extra, at.kept} - {-1}
            assert reads <= there
            there |= {at.out, at.p_out}
    results = {slot for slot in plan.backward.slots if slot[0] == Kind.DHP}
    assert results == {(Kind.DHP, k) for k in range(len(graph.leaves)) if k not in plan.unused}
    assert (Kind.GRADIENT_C_PREV, 0) in plan.backward.slots
    assert source_of(plan).count("{") == source_of(plan).count("}")


def test_a_chain_of_nascell_needs_few_scratch_blocks() -> None:
    scratch = [slot for slot in plan_of(NASCELL).backward.slots if slot[0] == Kind.SCRATCH]
    assert len(scratch) <= 8  # those of a level of the tree


# --- where the library comes from -------------------------------------------------------------------------------------

TINY = b'extern "C" int answer() { return 42; }\n'
RUN = """
import sys, warnings
import torch
from archsmith.nn.cell_graph import lstm
from archsmith.nn.recurrent import GraphRNN
torch.manual_seed(0)
network, x = GraphRNN(lstm(), 4, 6), torch.ones(2, 3, 4)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(3):
        total = network(x)[0].sum()
        total.backward()
print(f"{total.item():.6f}", len(seen), *(w.message for w in seen))
"""


def run_script(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path))
    return tmp_path / "cells"


@compiler
def test_a_library_is_built_once(cache: Path) -> None:
    path = library.built("tiny", TINY)
    assert path.parent == cache
    made = path.stat().st_mtime_ns
    assert library.built("tiny", TINY) == path
    assert path.stat().st_mtime_ns == made
    assert library.built("tiny", TINY.replace(b"42", b"43")) != path
    assert not list(cache.glob("*.tmp"))


@compiler
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "writable by others", "a link"])
def test_a_file_that_may_not_be_ours_is_built_again(cache: Path, tmp_path: Path, damage: str) -> None:
    path = library.built("tiny", TINY)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "writable by others":
        path.chmod(0o777)
    else:
        path.rename(tmp_path / "elsewhere.so")
        path.symlink_to(tmp_path / "elsewhere.so")
    assert library.built("tiny", TINY) == path
    assert len(path.read_bytes()) == len(content)
    assert not path.is_symlink()
    assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@compiler
@pytest.mark.parametrize("folder", ["a file", "writable by others"])
def test_without_a_folder_of_our_own_a_temporary_one_serves(cache: Path, folder: str) -> None:
    if folder == "a file":
        cache.write_text("")
    else:
        cache.mkdir()
        cache.chmod(0o777)
    path = library.built("tiny", TINY)
    assert path.exists()
    assert path.parent != cache


@compiler
def test_a_library_that_is_there_needs_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = library.built("tiny", TINY)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert library.built("tiny", TINY) == path
    with pytest.raises(library.NoLibrary, match=r"install g\+\+ or clang\+\+"):
        library.built("other", TINY)


@compiler
def test_what_a_compiler_says_is_passed_on(cache: Path) -> None:
    with pytest.raises(library.NoLibrary, match=r"failed: .*error"):
        library.built("wrong", b"this is no C++")
    assert not list(cache.glob("*.so")) + list(cache.glob("*.tmp"))


@compiler
def test_several_processes_that_begin_at_once_build_one_library(cache: Path) -> None:
    script = (
        "import ctypes; from archsmith.nn.cell_kernels import library\n"
        f"print(ctypes.CDLL(str(library.built('tiny', {TINY!r}))).answer())"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    assert [run.communicate(timeout=120)[0].strip() for run in runs] == ["42"] * 3
    assert len(list(cache.glob("*.so"))) == 1
    assert not list(cache.glob("*.tmp"))


def test_without_a_compiler_it_works_and_says_so_once(tmp_path: Path) -> None:
    plain = run_script(RUN, ARCHSMITH_KERNELS="plain")
    without = run_script(RUN, PATH="", CXX="", ARCHSMITH_CACHE=str(tmp_path))
    assert plain.stdout.split()[1:] == ["0"], plain.stderr
    number, count, *message = without.stdout.split()
    assert (number, count) == (plain.stdout.split()[0], "1")
    assert "install g++ or clang++" in " ".join(message)
    forced = run_script(RUN, PATH="", CXX="", ARCHSMITH_CACHE=str(tmp_path), ARCHSMITH_KERNELS="native")
    assert "UsageError: ARCHSMITH_KERNELS=native: there is no C++ compiler" in forced.stderr


@compiler
def test_a_forked_process_goes_on_by_itself(native: library.Library) -> None:
    script = """
import os, torch
from archsmith.nn.cell_kernels import library
from archsmith.nn.cell_kernels.native import run_layer_native
from archsmith.nn.cell_graph import lstm
torch.set_num_threads(2)
tensors = [torch.ones(5, 20, 7), torch.ones(24, 7) / 9, torch.ones(24, 6) / 9, torch.zeros(20, 6), torch.zeros(20, 6)]
native = library.load()
run = lambda: run_layer_native(native, lstm(), *(t.requires_grad_() for t in tensors))[0].sum()
before = run()
before.backward()
child = os.fork()
if not child:
    after = run()
    after.backward()
    os._exit(0 if after.item() == before.item() else 1)
print(os.waitpid(child, 0)[1])
"""
    result = run_script(script)
    assert result.stdout.strip() == "0", result.stderr


@compiler
def test_without_an_openmp_runtime_threads_are_started(
    native: library.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(3)
    inputs = inputs_of(NASCELL, 4, 20, 12, 6)
    expected = trained(native_of(native), NASCELL, inputs)
    monkeypatch.setattr(native, "parallel", 0)
    found = trained(native_of(native), NASCELL, inputs)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@compiler
def test_compiled_inside_a_context_changes_no_number(native: library.Library) -> None:
    torch.manual_seed(0)
    network, x = GraphRNN(NASCELL, 5, 9), torch.randn(4, 3, 5)
    machine = network(x)[0]
    with cell_kernels.compiled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = network(x)[0]
    torch.testing.assert_close(machine, compiled, rtol=1e-6, atol=1e-6)
