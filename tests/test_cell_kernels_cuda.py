"""Recurrent cells on CUDA: the generated kernels against the plain loop, on whatever there is to run them.

They run everywhere on a stand-in of Triton, as the text that they are; by Triton's interpreter where Triton is
installed; and on a CUDA device where there is one, which alone shows the capture and the speed.
"""

from __future__ import annotations

import gc
import importlib.util
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from archsmith.discovered import nas_cell
from archsmith.nn.cell_graph import (
    ACTIVATIONS,
    C_PREV,
    COMBINATIONS,
    CellGraph,
    Leaf,
    Node,
    from_architecture,
    lstm,
    tree,
)
from archsmith.nn.cell_kernels import cuda, cuda_tape
from archsmith.nn.cell_kernels.cuda_source import kernel_source
from archsmith.nn.cell_kernels.reference import run_layer_plainly
from triton_stand_in import modules

GOLDEN = Path(__file__).parent / "golden" / "nas_cell_triton.txt"
NAS_CELL = from_architecture(nas_cell().architecture)
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed; torch's builds for CUDA bring it")


@pytest.fixture(params=["stand-in", pytest.param("interpreter", marks=needs_triton)])
def triton(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _triton(request.param, monkeypatch)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _triton("stand-in", monkeypatch)


def _triton(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if kind == "interpreter":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    else:
        for name, module in modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    _forget()
    yield
    monkeypatch.undo()  # before the caches are cleared, of which a test may have put something in place
    gc.collect()
    _forget()


def _forget() -> None:
    cuda_tape.kernels.cache_clear()
    cuda._compiles.cache_clear()
    cuda.release()
    for memory in (cuda_tape._runs, cuda_tape._unfit, cuda_tape._warned):
        memory.clear()


# --- what is compared -------------------------------------------------------------------------------------------------


def random_tree(rng: random.Random, base: int) -> CellGraph:
    nodes = [(rng.choice(COMBINATIONS), rng.choice(ACTIVATIONS)) for _ in range(2 * base)]
    return tree(nodes[:-1], nodes[-1], rng.randrange(2 * base - 1), rng.randrange(2 * base - 1))


def random_graph(rng: random.Random) -> CellGraph:
    """Not a tree: values that nobody reads, that several read, that one reads twice; h and c anywhere."""
    pick = lambda: (rng.choice(COMBINATIONS), rng.choice(ACTIVATIONS))  # noqa: E731
    leaves = tuple(Leaf(*pick()) for _ in range(rng.randint(1, 5)))
    nodes = [
        Node(*pick(), rng.randrange(C_PREV, len(leaves) + i), rng.randrange(C_PREV, len(leaves) + i))
        for i in range(rng.randint(0, 7))
    ]
    values = len(leaves) + len(nodes)
    return CellGraph(leaves, tuple(nodes), h=rng.randrange(values), c=rng.randrange(values))


class Layer:
    """Random weights, inputs and states of a layer, and gradients that arrive for all of h_t and c_t."""

    def __init__(
        self,
        graph: CellGraph,
        seed: int = 0,
        *,
        steps: int = 3,
        batch: int = 2,
        inputs: int = 3,
        width: int = 5,
        bias: bool = True,
        masked: bool = False,
        device: str = "cpu",
        grid: float | None = None,
    ) -> None:
        rng = torch.Generator().manual_seed(seed)

        def numbers(*shape: int, scale: float = 1.0) -> Tensor:
            drawn = torch.randn(shape, generator=rng) * scale
            return (drawn if grid is None else (drawn / grid).round() * grid).to(device)

        rows, scale = len(graph.leaves) * width, width**-0.5
        self.graph = graph
        self.arguments = [
            numbers(steps, batch, inputs),
            numbers(rows, inputs, scale=scale),
            numbers(rows, width, scale=scale),
            numbers(batch, width),
            numbers(batch, width),
        ]
        self.bias = numbers(rows, scale=0.3) if bias else None
        self.mask = (torch.rand(batch, width, generator=rng) < 0.7).to(device).float() / 0.7 if masked else None
        self.above = numbers(steps, batch, width), numbers(steps, batch, width)

    def run(self, run: Callable[..., tuple[Tensor, Tensor]]) -> list[Tensor]:
        """h, c, and the gradients of x, both weights, both states and the bias."""
        leaves = [
            t.clone().requires_grad_() for t in (*self.arguments, *([self.bias] if self.bias is not None else []))
        ]
        hs, cs = run(self.graph, *leaves[:5], bias=leaves[5] if self.bias is not None else None, h_mask=self.mask)
        grads = torch.autograd.grad((hs, cs), leaves, (self.above[0].to(hs), self.above[1].to(cs)), allow_unused=True)
        return [
            hs.detach(),
            cs.detach(),
            *(torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves, strict=True)),
        ]


def assert_same(got: list[Tensor], expected: list[Tensor], tolerance: float = 2e-5) -> None:
    names = ("h", "c", "x", "weight_ih", "weight_hh", "h0", "c0", "bias")
    for name, a, b in zip(names, got, expected, strict=False):
        assert a.shape == b.shape, name
        size = max(1.0, float(b[b.isfinite()].abs().max())) if b.isfinite().any() else 1.0
        torch.testing.assert_close(
            a.to(b), b, rtol=tolerance, atol=tolerance * size, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}"
        )


# --- the source -------------------------------------------------------------------------------------------------------


def test_the_source_of_nas_cell_is_the_golden_one() -> None:
    assert kernel_source(NAS_CELL) == GOLDEN.read_text(), "if that is meant, write it there anew"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([0, 2, 4, 8, 16, 32]))
def test_every_cell_has_a_source_that_is_python_and_writes_every_result(seed: int, base: int) -> None:
    rng = random.Random(seed)
    graph = random_tree(rng, base) if base else random_graph(rng)
    source = kernel_source(graph)
    compile(source, "a cell", "exec")
    assert source.count("tl.store(d_inputs") == source.count("tl.store(d_state") == len(graph.leaves)
    assert source.count("tl.store(dc") == 1


def test_equal_cells_share_their_kernels(stand_in: None) -> None:
    assert cuda_tape.kernels(lstm()) is cuda_tape.kernels(lstm())
    assert cuda_tape.kernels(lstm()) is not cuda_tape.kernels(NAS_CELL)


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_triton_compiles_both_kernels_for_devices(
    dtype: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No device is needed to compile for one. The cell has every combination and activation."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    _forget()
    every = [(COMBINATIONS[k % 3], ACTIVATIONS[k % 5]) for k in range(16)]
    for kernel in cuda_tape.kernels(tree(every[:15], every[15], 12, 8)):
        kinds = dict.fromkeys(kernel.arg_names, f"*{dtype}")
        kinds |= dict.fromkeys({"c", "grad_c", "dc"} & set(kinds), "*fp32")
        kinds |= dict.fromkeys(("step", "size", "n"), "i32") | dict.fromkeys(("MASKED", "BLOCK"), "constexpr")
        source = ASTSource(kernel, kinds, {"MASKED": True, "BLOCK": cuda_tape.BLOCK})
        began = time.perf_counter()
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        print(f"\n{kernel.__name__}, {dtype}, sm_{capability}: {time.perf_counter() - began:.2f} s to compile")
        assert len(compiled.asm["cubin"]) > 1000
    _forget()


# --- the same numbers as the plain loop -------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("graph", [lstm(), NAS_CELL], ids=["lstm", "nas_cell"])
def test_it_equals_the_plain_loop(triton: None, graph: CellGraph, bias: bool, masked: bool) -> None:
    layer = Layer(graph, bias=bias, masked=masked)
    assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly))


@pytest.mark.parametrize("base", [2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(4))
def test_random_trees_equal_the_plain_loop(triton: None, base: int, seed: int) -> None:
    graph = random_tree(random.Random(100 * base + seed), base)
    layer = Layer(graph, seed, steps=2, batch=seed + 1, width=2 * seed + 1, masked=seed % 2 == 1)
    assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    base=st.sampled_from([0, 2, 4, 8, 16]),
    batch=st.integers(1, 4),
    width=st.sampled_from([1, 2, 7, 33, 130]),
    coarse=st.booleans(),
    masked=st.booleans(),
)
def test_any_cell_equals_the_plain_loop(
    stand_in: None, seed: int, base: int, batch: int, width: int, coarse: bool, masked: bool
) -> None:
    """Sizes that fill no block, or several. On a coarse grid of numbers many are equal, or 0."""
    rng = random.Random(seed)
    graph = random_tree(rng, base) if base else random_graph(rng)
    layer = Layer(graph, seed, steps=2, batch=batch, width=width, masked=masked, grid=0.5 if coarse else None)
    assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly), 1e-4)


def test_equals_share_a_gradient_zero_has_none_and_nan_stays(triton: None) -> None:
    """As in torch: of max, both sides take half where they are equal; relu passes nothing at 0."""
    pair = (Leaf("max", "identity"), Leaf("add", "relu"))
    graph = CellGraph(pair, (Node("max", "identity", 0, 1), Node("add", "relu", 2, C_PREV)), h=3, c=2)
    layer = Layer(graph, steps=1, batch=1, inputs=1, width=4, bias=False)
    layer.arguments[0] = torch.ones(1, 1, 1)
    layer.arguments[1] = torch.tensor([[1.0], [2.0], [float("nan")], [0.0], [0.0], [2.0], [1.0], [0.0]])
    layer.arguments[2] = torch.eye(4).repeat(2, 1)
    layer.arguments[3] = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    layer.arguments[4] = torch.tensor([[-1.0, -1.0, 1.0, float("nan")]])
    got, expected = layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly)
    assert expected[0].isnan().sum() == 2
    assert_same(got, expected, 0.0)


def test_tanh_keeps_its_digits_near_zero_and_large_numbers_are_finite(triton: None) -> None:
    graph = CellGraph((Leaf("add", "tanh"), Leaf("add", "sigmoid")), (Node("add", "identity", 0, 0),), h=0, c=1)
    wide = torch.tensor([0.0, 1e-30, 1e-8, 1e-4, 0.01, 0.54, 0.56, 3.0, 20.0, 200.0, 1e30])
    x = torch.cat([wide, -wide])
    zeros = torch.zeros(len(x), 1)
    one = torch.ones(2, 1)
    h, c = cuda.run_layer_cuda(graph, x[None, :, None], one, torch.zeros(2, 1), zeros, zeros)
    torch.testing.assert_close(h[0, :, 0], torch.tanh(x), rtol=1e-6, atol=0)
    torch.testing.assert_close(c[0, :, 0], x, rtol=0, atol=0)


def test_half_the_digits_are_computed_with_all_of_them_between_the_products(triton: None) -> None:
    """In bfloat16 only what is stored is rounded: nearer to float32 than 3 in 100."""
    layer = Layer(NAS_CELL, steps=4)
    exact = layer.run(run_layer_plainly)
    layer.arguments = [t.bfloat16() for t in layer.arguments]
    layer.bias = layer.bias.bfloat16() if layer.bias is not None else None
    got = layer.run(cuda.run_layer_cuda)
    assert {t.dtype for t in got} == {torch.bfloat16}
    for a, b in zip(got, exact, strict=True):
        assert (a.float() - b).abs().max() < 0.03 * b.abs().max()


def test_under_autocast_products_are_in_its_type_and_c_stays_in_its_own(stand_in: None) -> None:
    layer = Layer(NAS_CELL)
    exact = layer.run(run_layer_plainly)

    def under_autocast(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return cuda.run_layer_cuda(*args, **options)

    got = layer.run(under_autocast)
    assert [t.dtype for t in got] == [torch.bfloat16, *[torch.float32] * 7]
    for a, b in zip(got, exact, strict=True):
        assert (a.float() - b).abs().max() < 0.03 * b.abs().max()


# --- what else a caller may do ----------------------------------------------------------------------------------------


def test_a_batch_of_one_state_is_for_all(stand_in: None) -> None:
    layer = Layer(lstm(), batch=3)
    layer.arguments[3], layer.arguments[4] = layer.arguments[3][:1], layer.arguments[4][:1]
    assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly))
    layer.arguments[3] = torch.zeros(2, 5)
    with pytest.raises(RuntimeError, match="size"):
        layer.run(cuda.run_layer_cuda)


def test_results_may_be_changed_and_a_gradient_asked_for_twice(stand_in: None) -> None:
    layer = Layer(NAS_CELL)
    weight = layer.arguments[2].clone().requires_grad_()
    arguments = (*layer.arguments[:2], weight, *layer.arguments[3:])

    def gradient(change: bool) -> Tensor:
        hs, cs = cuda.run_layer_cuda(NAS_CELL, *arguments, bias=layer.bias)
        if change:
            hs.mul_(2)
            weight.data.add_(1)  # as an optimizer would, too early
        first = torch.autograd.grad(hs.sum() + cs.sum(), weight, retain_graph=True)[0].clone()
        assert torch.equal(first, torch.autograd.grad(hs.sum() + cs.sum(), weight)[0])
        if change:
            weight.data.sub_(1)
        return first

    def expected(factor: float) -> Tensor:
        hs, cs = run_layer_plainly(NAS_CELL, *arguments, bias=layer.bias)
        return torch.autograd.grad(factor * hs.sum() + cs.sum(), weight)[0]

    torch.testing.assert_close(gradient(False), expected(1.0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient(True), expected(2.0), rtol=1e-4, atol=1e-5)


def test_second_derivatives_are_refused(stand_in: None) -> None:
    layer = Layer(lstm())
    weight = layer.arguments[2].requires_grad_()
    hs, _ = cuda.run_layer_cuda(lstm(), *layer.arguments)
    (first,) = torch.autograd.grad(hs.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        first.sum().backward()


def test_what_it_cannot_do_is_the_plain_loop(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    plain: list[int] = []

    def counted(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        plain.append(1)
        return run_layer_plainly(*args, **options)

    monkeypatch.setattr(cuda, "run_layer_plainly", counted)
    layer = Layer(lstm(), masked=True)
    layer.run(cuda.run_layer_cuda)
    assert not plain
    assert layer.mask is not None
    mask = layer.mask.clone().requires_grad_()
    arguments = [t.clone() for t in layer.arguments]
    hs, _ = cuda.run_layer_cuda(lstm(), *arguments, h_mask=mask)
    assert torch.autograd.grad(hs.sum(), mask)[0].abs().sum() > 0
    cuda.run_layer_cuda(lstm(), *(t.double() for t in arguments))
    hs, cs = cuda.run_layer_cuda(lstm(), arguments[0][:, :0], *arguments[1:3], arguments[3][:0], arguments[4][:0])
    assert hs.shape == cs.shape == (3, 0, 5)
    assert len(plain) == 3


def test_where_triton_cannot_compile_it_is_the_plain_loop_and_says_so_once(
    stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise FileNotFoundError("no C compiler")

    monkeypatch.setattr(cuda_tape, "kernels", broken)
    for graph in (lstm(), NAS_CELL):
        layer = Layer(graph)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            got = layer.run(cuda.run_layer_cuda)
        assert [("slower" in str(w.message), "no C compiler" in str(w.message)) for w in said] == (
            [(True, True)] if graph == lstm() else []
        )
        assert_same(got, layer.run(run_layer_plainly), 0.0)


def test_it_is_not_for_processors_nor_for_float64() -> None:
    assert not cuda.available(torch.zeros(2))


# --- runs that are captured and used again ----------------------------------------------------------------------------


class Replay:
    """A captured loop, in place of a CUDA graph: it runs over the memory that it was captured over."""

    def __init__(self, loop: Callable[[], None]) -> None:
        self.replay = loop


@pytest.fixture
def captures(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tapes that were captured. The whole bookkeeping of captures runs as on a device."""
    tapes: list[Any] = []

    def capture(self: Any) -> None:
        tapes.append(self.layout)
        self.captured = (Replay(self._forward), Replay(self._backward) if self.layout.trained else None)

    monkeypatch.setattr(cuda_tape.Tape, "capture", capture)
    monkeypatch.setattr(cuda_tape, "_may_capture", lambda device: device not in cuda_tape._unfit)
    return tapes


def test_the_third_run_of_a_layout_is_captured_and_later_ones_use_it_again(captures: list[Any]) -> None:
    for seed in range(6):
        layer = Layer(NAS_CELL, seed, masked=True)
        assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly))
        assert len(captures) == (seed >= 2)
    Layer(NAS_CELL, steps=4, masked=True).run(cuda.run_layer_cuda)  # another layout: its own first run
    assert len(captures) == 1


def test_a_run_whose_gradient_may_yet_be_asked_for_is_left_alone(captures: list[Any]) -> None:
    for seed in range(4):
        Layer(lstm(), seed).run(cuda.run_layer_cuda)
    layers = [Layer(lstm(), seed) for seed in range(4)]
    runs = []
    for layer in layers:  # all forward, then all backward: of two layers, or of a loss made of several windows
        weight = layer.arguments[2].requires_grad_()
        runs.append((weight, *cuda.run_layer_cuda(lstm(), *layer.arguments, bias=layer.bias)))
    assert len(captures) == 4
    for layer, (weight, hs, cs) in zip(layers, runs, strict=True):
        h, c = run_layer_plainly(lstm(), *layer.arguments, bias=layer.bias)
        torch.testing.assert_close(hs, h)
        torch.testing.assert_close(cs, c)
        ours = torch.autograd.grad(hs.sum() + cs.sum(), weight)[0]
        torch.testing.assert_close(ours, torch.autograd.grad(h.sum() + c.sum(), weight)[0], rtol=1e-4, atol=1e-5)
    del runs, hs, cs, ours
    gc.collect()
    assert len(cuda_tape._idle) == 4


def test_a_run_without_gradients_frees_its_tape_at_once_and_keeps_its_results(captures: list[Any]) -> None:
    kept = []
    for seed in range(6):
        layer = Layer(lstm(), seed)
        with torch.inference_mode() if seed % 2 else torch.no_grad():
            kept.append((layer, *cuda.run_layer_cuda(lstm(), *layer.arguments)))
    assert len(captures) == 1
    for layer, hs, cs in kept:
        h, c = run_layer_plainly(lstm(), *layer.arguments)
        torch.testing.assert_close(hs, h)
        torch.testing.assert_close(cs, c)


def test_a_run_within_somebody_elses_capture_has_memory_of_its_own(
    captures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        Layer(lstm(), seed).run(cuda.run_layer_cuda)
    assert len(cuda_tape._idle) == 1
    used: list[Any] = []
    monkeypatch.setattr(cuda_tape.Tape, "run_forward", lambda self: (used.append(self.captured), self._forward()))
    monkeypatch.setattr(cuda_tape, "_within_capture", lambda device: True)
    layer = Layer(lstm(), 5)
    assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly))
    assert used == [None]
    assert len(captures) == len(cuda_tape._idle) == 1


def test_few_idle_tapes_are_kept_and_all_can_be_let_go(captures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for width in range(1, 20):
        for _ in range(3):
            Layer(lstm(), width=width).run(cuda.run_layer_cuda)
    assert len(captures) == 19
    assert len(cuda_tape._idle) == cuda_tape._IDLE_TAPES + 1  # the newest came after the others were counted
    monkeypatch.setattr(cuda_tape, "_idle_bytes", lambda device: 0.0)
    Layer(lstm(), width=30).run(cuda.run_layer_cuda)
    assert not cuda_tape._idle
    Layer(lstm(), width=30).run(cuda.run_layer_cuda)
    Layer(lstm(), width=30).run(cuda.run_layer_cuda)
    assert len(cuda_tape._idle) == 1
    cuda.release()
    assert not cuda_tape._idle


def test_idle_tapes_are_let_go_where_memory_runs_out(captures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        Layer(lstm(), seed).run(cuda.run_layer_cuda)
    Layer(lstm(), width=7).run(cuda.run_layer_cuda)  # its kernels are then there
    begin = cuda_tape.Tape.__init__

    def scarce(self: Any, layout: Any) -> None:
        if cuda_tape._idle:
            raise torch.OutOfMemoryError("CUDA out of memory")
        begin(self, layout)

    monkeypatch.setattr(cuda_tape.Tape, "__init__", scarce)
    layer = Layer(lstm(), width=7)
    assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly))


def test_where_nothing_can_be_captured_steps_are_launched_and_it_says_so_once(
    captures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_tape.Tape, "capture", refuse)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for seed in range(6):
            layer = Layer(lstm(), seed)
            assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly))
    assert ["no CUDA graph could be captured" in str(w.message) for w in said] == [True]
    assert not cuda_tape._idle


# --- on a device ------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("base", [0, 2, 8, 16])
def test_on_a_device_runs_equal_the_plain_loop_captured_or_not(base: int, masked: bool) -> None:
    _forget()
    graph = random_tree(random.Random(base), base) if base else NAS_CELL
    for seed in range(5):  # two launched step by step, then captured, then used again
        layer = Layer(graph, seed, steps=5, batch=4, width=37, masked=masked, device="cuda")
        assert cuda.available(layer.arguments[0])
        assert_same(layer.run(cuda.run_layer_cuda), layer.run(run_layer_plainly), 1e-3)
    gc.collect()
    assert not cuda_tape._unfit
    assert [tape.captured is not None for tape in cuda_tape._idle] == [True]
    _forget()


@pytest.mark.cuda
def test_on_a_device_autocast_gives_the_numbers_of_float32_roughly() -> None:
    layer = Layer(NAS_CELL, steps=8, batch=4, width=64, device="cuda")
    exact = layer.run(run_layer_plainly)

    def under_autocast(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            return cuda.run_layer_cuda(*args, **options)

    for _ in range(4):
        got = layer.run(under_autocast)
        for a, b in zip(got, exact, strict=True):
            assert (a.float() - b).abs().max() < 0.05 * b.abs().max()


@pytest.mark.cuda
def test_on_a_device_a_run_may_be_part_of_somebody_elses_capture() -> None:
    layer = Layer(lstm(), device="cuda")
    with torch.no_grad():
        for _ in range(4):
            expected, _ = cuda.run_layer_cuda(lstm(), *layer.arguments)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            hs, _ = cuda.run_layer_cuda(lstm(), *layer.arguments)
        hs.zero_()
        graph.replay()
    torch.testing.assert_close(hs, expected)


@pytest.mark.cuda
def test_on_a_device_throughput_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The plain loop beside it. Nothing is asserted of the time: `benchmarks/recurrent_cuda.py` measures it."""
    layer = Layer(NAS_CELL, steps=35, batch=20, inputs=650, width=650, device="cuda")
    seconds = {}
    for name, run in (("kernels", cuda.run_layer_cuda), ("plain loop", run_layer_plainly)):
        for _ in range(4):
            results = layer.run(run)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            results = layer.run(run)
        torch.cuda.synchronize()
        seconds[name] = (time.perf_counter() - began) / 10
        assert all(t.isfinite().all() for t in results)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {20 * 35 / s:,.0f} tokens/s" for name, s in seconds.items()))
