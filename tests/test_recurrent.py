"""Recurrent cells: the paper's golden values, NASCell against its equations, and the interface of torch's LSTM."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from archsmith.core.child import Task, TextTask
from archsmith.core.errors import IllegalGenotype, LimitExceeded, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import decode, enumerate_genotypes, sample, space_size, trace
from archsmith.discovered import NASRNN, NASCell, nas_cell
from archsmith.nn.cell_graph import CellGraph, lstm
from archsmith.nn.recurrent import GraphCell, GraphRNN
from archsmith.searchers import RegularizedEvolution
from archsmith.spaces import RecurrentCell

BASE_2 = "Add,Tanh | ElemMult,ReLU | ElemMult,Sigmoid | Add,ReLU | 1, 0"
"""The worked example of the paper's figure 5."""

NAS_CELL = """
    add,sigmoid add,relu add,sigmoid elem_mult,relu add,tanh add,sigmoid add,tanh add,sigmoid
    elem_mult,tanh add,tanh elem_mult,tanh add,sigmoid   elem_mult,identity add,tanh   elem_mult,tanh   add,tanh   12 8
"""


def halves(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)
    return module


# --- the space --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (RecurrentCell(), 63_331_869_759_897_600),
        (RecurrentCell(2), 36_864),
        (RecurrentCell.enlarged(), 15**16 * 225),
        (RecurrentCell(16), 8**32 * 31**2),
    ],
)
def test_the_size_of_the_space(space: RecurrentCell, size: int) -> None:
    assert space_size(space) == size
    questions = trace(space, sample(space, Random(0)).answers)
    assert len(questions) == 4 * space.base + 2
    assert [len(q.options) for q in questions[-2:]] == [2 * space.base - 1] * 2


def test_a_tiny_space_is_enumerated() -> None:
    space = RecurrentCell(2, ("add",), ("tanh", "relu"))
    genotypes = set(enumerate_genotypes(space))
    assert len(genotypes) == space_size(space) == 2**4 * 3**2


def test_questions_come_in_the_papers_order() -> None:
    names = [q.name for q in trace(RecurrentCell(2), sample(RecurrentCell(2), Random(0)).answers)]
    nodes = [f"{k}.{what}" for k in (0, 1, 2, "inject") for what in ("combination", "activation")]
    assert names == [*nodes, "c_out", "c_in"]


def test_the_worked_example_is_the_architecture_that_the_docstring_shows() -> None:
    space = RecurrentCell(2)
    assert decode(space, space.from_tokens(BASE_2)) == {
        "kind": "recurrent_cell",
        "nodes": [
            {"combination": "add", "activation": "tanh"},
            {"combination": "elem_mult", "activation": "relu"},
            {"combination": "elem_mult", "activation": "sigmoid"},
        ],
        "inject": {"combination": "add", "activation": "relu"},
        "c_out": 1,
        "c_in": 0,
    }


@given(st.integers(0, 10**6), st.sampled_from([RecurrentCell(2), RecurrentCell(8), RecurrentCell.enlarged(16)]))
@settings(max_examples=40, deadline=None)
def test_tokens_are_another_spelling_of_a_genotype(seed: int, space: RecurrentCell) -> None:
    genotype = sample(space, Random(seed))
    tokens = space.tokens(genotype)
    assert len(tokens) == 4 * space.base + 2
    assert space.from_tokens(tokens) == genotype
    assert space.from_tokens(" | ".join(map(str, tokens))) == genotype


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ("", "base 2 has 10 tokens, got 0"),
        (BASE_2 + ", 0", "has 10 tokens, got 11"),
        (BASE_2.replace("Tanh", "Tan"), r"'0.activation' must be one of 'identity', .*, got 'Tan'"),
        (BASE_2.replace("Tanh", "sin"), r"'0.activation' must be one of"),
        (BASE_2.replace("1, 0", "1, 3"), r"'c_in' must be one of 0, 1, 2, got 3"),
        (BASE_2.replace("1, 0", "1, -1"), "'c_in' must be one of 0, 1, 2, got '-1'"),
        (BASE_2.replace("1, 0", "1, " + "9" * 5000), r"'c_in' must be one of 0, 1, 2, got"),
        (["add", "tanh", "add", "tanh", "add", "tanh", "add", "tanh", "1", 0], "'c_out' must be one of"),
        (["add", "tanh", "add", "tanh", "add", "tanh", "add", "tanh", True, 0], "'c_out' must be one of"),
        ([1, "tanh", "add", "tanh", "add", "tanh", "add", "tanh", 1, 0], r"'0.combination' must be one of"),
        ([["add"]] * 10, r"'0.combination' must be one of"),
        (3, "has 10 tokens, got int"),
        (None, "got NoneType"),
    ],
)
def test_wrong_tokens_are_refused(tokens: Any, words: str) -> None:
    with pytest.raises(IllegalGenotype, match=words):
        RecurrentCell(2).from_tokens(tokens)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": 3}, "base of RecurrentCell must be a power of two from 2 to 64, got 3"),
        ({"base": 1}, "power of two"),
        ({"base": 128}, "power of two"),
        ({"base": "8"}, "power of two"),
        ({"base": 8.0}, "power of two"),
        ({"base": True}, "power of two"),
        ({"base": 2**70}, "more than 64 bits"),
        ({"combinations": ()}, "combinations of RecurrentCell must be a tuple of at least one"),
        ({"combinations": "add"}, "must be a tuple"),
        ({"combinations": ("mul",)}, "of add, elem_mult, max, got 'mul'"),
        ({"combinations": (["add"],)}, "of add, elem_mult, max"),
        ({"activations": ("tanh", "tanh")}, "must differ"),
        ({"activations": (None,)}, "got None"),
    ],
)
def test_options_that_make_no_space_are_refused(options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RecurrentCell(**options)


def wrong_architectures() -> dict[str, Any]:
    right = nas_cell().architecture
    deep: Any = "add"
    for _ in range(100_000):
        deep = [deep]
    node = right["nodes"][0]
    nodes = right["nodes"]
    return {
        "an index out of the tree": right | {"c_out": 15},
        "a negative index": right | {"c_in": -1},
        "a boolean index": right | {"c_in": True},
        "a textual index": right | {"c_in": "3"},
        "a fractional index": right | {"c_in": 3.0},
        "a huge index": right | {"c_in": 10**5000},
        "no index": {k: v for k, v in right.items() if k != "c_in"},
        "a field too many": right | {"bias": True},
        "14 nodes": right | {"nodes": nodes[:-1]},
        "13 nodes": right | {"nodes": nodes[:-2]},
        "one node": right | {"nodes": nodes[:1]},
        "no nodes": right | {"nodes": []},
        "text for nodes": right | {"nodes": "add tanh"},
        "an object of nodes": right | {"nodes": dict(enumerate(nodes))},
        "too many nodes": right | {"nodes": [node] * 255},
        "an unknown activation": right | {"nodes": [node | {"activation": "swish"}, *nodes[1:]]},
        "a number for an activation": right | {"nodes": [node | {"activation": 1}, *nodes[1:]]},
        "a node with a field too many": right | {"nodes": [node | {"left": 0}, *nodes[1:]]},
        "a node that is text": right | {"nodes": ["add", *nodes[1:]]},
        "an inject without activation": right | {"inject": {"combination": "add"}},
        "deep nesting in a node": right | {"nodes": [node | {"combination": deep}, *nodes[1:]]},
        "deep nesting for an index": right | {"c_out": deep},
        "another kind": right | {"kind": "conv_chain"},
        "a list": [right],
    }


@pytest.mark.parametrize("name", sorted(wrong_architectures()))
def test_what_is_no_cell_is_refused_in_a_line(name: str) -> None:
    architecture = wrong_architectures()[name]
    for use in (
        lambda: RecurrentCell().build(architecture, TextTask(5, hidden=2)),
        lambda: RecurrentCell().cell(architecture, 2, 3),
        lambda: RecurrentCell().diagram(architecture),
    ):
        with pytest.raises(UsageError) as caught:
            use()
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)


def test_a_cell_is_no_network_for_images() -> None:
    with pytest.raises(UsageError, match="for images there is"):
        RecurrentCell().build(nas_cell().architecture, Task())


def test_a_network_too_large_takes_no_memory() -> None:
    with pytest.raises(LimitExceeded, match="parameters may be at most"):
        RecurrentCell().build(nas_cell().architecture, TextTask(10_000, hidden=50_000))


def test_evolution_searches_cells() -> None:
    searcher = RegularizedEvolution(population=4, sample=2).start(RecurrentCell(), 0)
    proposals = searcher.ask(4)
    assert len({p.genotype for p in proposals}) == 4


# --- golden values ----------------------------------------------------------------------------------------------------


def test_the_worked_example_has_the_papers_value() -> None:
    space = RecurrentCell(2)
    cell = halves(space.cell(space.from_tokens(BASE_2), 1, 1, dtype=torch.float64))
    double = torch.float64
    h, c = cell(torch.ones(1, dtype=double), (torch.tensor([2.0], dtype=double), torch.tensor([0.25], dtype=double)))
    assert c.item() == pytest.approx(0.5)
    assert h.item() == pytest.approx(0.6405090221, abs=1e-10)


def general(input_size: int, hidden_size: int, **options: Any) -> GraphCell:
    """NASCell from its tokens, through the general builder."""
    space = RecurrentCell()
    return space.cell(space.from_tokens(NAS_CELL), input_size, hidden_size, **options)


@pytest.mark.parametrize("make", [NASCell, general])
@pytest.mark.parametrize(("proj_size", "h", "c"), [(0, 0.5767508, 0.7157977), (5, 1.6974180, 0.6985521)])
def test_nas_cell_has_tensorflows_values(make: Any, proj_size: int, h: float, c: float) -> None:
    cell = halves(make(4, 6, proj_size=proj_size))
    state = (torch.full((1, proj_size or 6), 0.1), torch.full((1, 6), 0.1))
    new_h, new_c = cell(torch.ones(1, 4), state)
    assert new_h.shape == (1, proj_size or 6)
    torch.testing.assert_close(new_h, torch.full_like(new_h, h), atol=1e-6, rtol=0)
    torch.testing.assert_close(new_c, torch.full_like(new_c, c), atol=1e-6, rtol=0)


def test_nas_cell_has_tensorflows_sizes() -> None:
    assert sum(p.numel() for p in NASCell(9, 4).parameters()) == 416
    assert sum(p.numel() for p in NASCell(9, 4, bias=True).parameters()) == 448
    assert sum(p.numel() for p in NASCell(9, 4, proj_size=3).parameters()) == 8 * 4 * (9 + 3) + 4 * 3


def test_the_figures_tokens_are_the_discovered_genotype() -> None:
    network = nas_cell()
    assert network.genotype == network.space.from_tokens(NAS_CELL)
    assert network.genotype.key == "b2474e9a4452"  # genotypes stay loadable


# --- NASCell against its equations ------------------------------------------------------------------------------------


def gradients(module: nn.Module, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    total = sum((output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum() for output in outputs)
    return list(torch.autograd.grad(total, [*inputs, *module.parameters()]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("proj_size", [0, 3])
def test_the_general_builder_equals_the_equations(bias: bool, proj_size: int) -> None:
    torch.manual_seed(1)
    written = NASCell(4, 6, bias, proj_size=proj_size)
    for p in written.parameters():
        nn.init.normal_(p)
    built = general(4, 6, bias=bias, proj_size=proj_size)
    built.load_state_dict(written.state_dict())
    inputs = [torch.randn(5, n, requires_grad=True) for n in (4, proj_size or 6, 6)]
    one, other = (cell(inputs[0], (inputs[1], inputs[2])) for cell in (written, built))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    for a, b in zip(gradients(written, one, inputs), gradients(built, other, inputs), strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("proj_size", [0, 3])
def test_the_sequence_module_equals_a_loop_of_cells(bias: bool, proj_size: int) -> None:
    torch.manual_seed(2)
    cell, rnn = NASCell(4, 6, bias, proj_size=proj_size), NASRNN(4, 6, bias=bias, proj_size=proj_size)
    rnn.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    inputs = [torch.randn(7, 5, 4, requires_grad=True), torch.randn(5, proj_size or 6), torch.randn(5, 6)]
    h, c = inputs[1:]
    looped = []
    for x in inputs[0]:
        h, c = cell(x, (h, c))
        looped.append(h)
    outputs, state = rnn(inputs[0], (inputs[1][None], inputs[2][None]))
    torch.testing.assert_close(outputs, torch.stack(looped))
    torch.testing.assert_close(state, (h[None], c[None]))
    loss = [torch.stack(looped), h, c], [outputs, *state]
    for a, b in zip(gradients(cell, loss[0], inputs[:1]), gradients(rnn, loss[1], inputs[:1]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_c_of_nas_cell_is_a_product_of_a_tanh_and_a_tanh(seed: int) -> None:
    torch.manual_seed(seed)
    cell = NASCell(3, 4)
    h, c = cell(1e3 * torch.randn(2, 3), (torch.randn(2, 4), 1e3 * torch.randn(2, 4)))
    assert c.abs().max() <= 1  # below 1, but for rounding
    assert h.abs().max() <= 1


# --- the interface of torch.nn.LSTM -----------------------------------------------------------------------------------
# The LSTM is a graph too, so that every shape and number can be held against torch's own.


def pair(*arguments: Any, bias: bool = True, **options: Any) -> tuple[nn.LSTM, GraphRNN]:
    """torch's LSTM, and ours with its weights."""
    theirs = nn.LSTM(*arguments, bias=bias, **options)
    ours = GraphRNN(lstm(), *arguments, bias=bias, **options)
    weights = dict(theirs.state_dict())
    for name in list(weights):
        if name.startswith("bias_hh"):
            weights[name.replace("bias_hh", "bias")] = weights.pop(name) + weights.pop(name.replace("_hh", "_ih"))
    ours.load_state_dict(weights)
    return theirs, ours


def same(one: Any, other: Any) -> None:
    if isinstance(one, PackedSequence):
        assert isinstance(other, PackedSequence)
        for field in PackedSequence._fields:
            a, b = getattr(one, field), getattr(other, field)
            assert (a is None) == (b is None)
            if a is not None:
                same(a, b)
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


SHAPES = [
    {},
    {"bias": False},
    {"num_layers": 3},
    {"batch_first": True},
    {"bidirectional": True},
    {"proj_size": 2},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "proj_size": 3},
]


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_every_shape_is_torchs(options: dict[str, Any], with_state: bool, batched: bool) -> None:
    torch.manual_seed(0)
    theirs, ours = pair(3, 5, **options)
    x = torch.randn(6, 4, 3) if batched else torch.randn(6, 3)
    state = None
    if with_state:
        count = theirs.num_layers * (2 if theirs.bidirectional else 1)
        rows = (x.shape[0] if theirs.batch_first else x.shape[1],) if batched else ()
        state = (torch.randn(count, *rows, theirs.proj_size or 5), torch.randn(count, *rows, 5))
    same(theirs(x, state), ours(x, state))


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    options=st.sampled_from(SHAPES),
    enforce_sorted=st.booleans(),
    with_state=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_packed_sequences_are_torchs(
    lengths: list[int], options: dict[str, Any], enforce_sorted: bool, with_state: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    theirs, ours = pair(3, 5, **options)
    lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
    packed = pack_sequence([torch.randn(n, 3) for n in lengths], enforce_sorted=enforce_sorted)
    state = None
    if with_state:
        count, rows = theirs.num_layers * (2 if theirs.bidirectional else 1), len(lengths)
        state = (torch.randn(count, rows, theirs.proj_size or 5), torch.randn(count, rows, 5))
    same(theirs(packed, state), ours(packed, state))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_cell_that_overflows_behind_the_end_of_a_sequence_learns_all_the_same(bidirectional: bool) -> None:
    """c_t is about (c_{t-1} + h_{t-1})^2: small sequences stay small, and large ones soon exceed float32."""
    space = RecurrentCell(2)
    squaring = space.from_tokens("add,identity add,identity elem_mult,identity add,identity 2 0")
    rnn = space.rnn(squaring, 2, 3, bidirectional=bidirectional)
    for p in rnn.parameters():
        nn.init.constant_(p, 0.5)
    sequences = [torch.full((3, 2), 1.5), torch.full((60, 2), 0.01), torch.full((2, 2), 1.5)]
    padded = nn.utils.rnn.pad_sequence(sequences)
    behind, _ = rnn(padded)
    assert not torch.isfinite(behind).all()  # what must not be reached

    def learned(sequences: list[Tensor]) -> list[Tensor]:
        outputs, state = rnn(pack_sequence(sequences, enforce_sorted=False))
        loss = outputs.data.sum() + state[0].sum() + state[1].sum()
        return list(torch.autograd.grad(loss, list(rnn.parameters())))

    together = learned(sequences)
    alone = [sum(parts) for parts in zip(*(learned([s]) for s in sequences), strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("batched", [False, True])
def test_the_cell_is_torchs_lstm_cell(batched: bool) -> None:
    torch.manual_seed(0)
    theirs, ours = nn.LSTMCell(3, 5), GraphCell(lstm(), 3, 5, True)
    ours.load_state_dict(
        {
            "weight_ih": theirs.weight_ih.data,
            "weight_hh": theirs.weight_hh.data,
            "bias": (theirs.bias_ih + theirs.bias_hh).data,
        }
    )
    x, h, c = (torch.randn(4, n) if batched else torch.randn(n) for n in (3, 5, 5))
    same(theirs(x), ours(x))
    same(theirs(x, (h, c)), ours(x, (h, c)))


class Tagger(nn.Module):
    """What a user's model may look like: every feature of an LSTM that one meets."""

    def __init__(self, recurrent: type[nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.rnn = recurrent(4, 6, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        self.rnn.flatten_parameters()
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        outputs, (h, _) = self.rnn(packed)
        unpacked, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
        return self.head(unpacked) + self.head(torch.cat((h[-2], h[-1]), -1))[:, None]


def found(*arguments: Any, **options: Any) -> GraphRNN:
    """A cell that a search may find."""
    space = RecurrentCell(4)
    return space.rnn(sample(space, Random(6)), *arguments, **options)


@pytest.mark.parametrize("recurrent", [nn.LSTM, NASRNN, found])
def test_a_found_cell_drops_into_a_users_model(recurrent: Any) -> None:
    torch.manual_seed(0)
    model = Tagger(recurrent)
    tokens, lengths = torch.randint(11, (3, 7)), torch.tensor([5, 7, 2])
    labels = tokens % 3
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(40):
        scores = model(tokens, lengths)
        assert scores.shape == (3, 7, 3)
        inside = torch.arange(7)[None] < lengths[:, None]
        loss = nn.functional.cross_entropy(scores[inside], labels[inside])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.eval()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = Tagger(recurrent).eval()
    again.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(tokens, lengths)
        for other in (again, copied):
            assert torch.equal(other(tokens, lengths), expected)
        double = copied.double()(tokens, lengths)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, atol=1e-5, rtol=1e-4)


def test_a_whole_module_can_be_saved_and_moved() -> None:
    rnn = NASRNN(3, 4)
    file = io.BytesIO()
    torch.save(rnn, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    x = torch.randn(5, 2, 3)
    assert torch.equal(again(x)[0], rnn(x)[0])
    meta = rnn.to("meta")
    assert meta(x.to("meta"))[0].shape == (5, 2, 4)


@pytest.mark.parametrize("make", [NASCell, NASRNN, found])
def test_weights_are_made_where_and_as_asked(make: Any) -> None:
    for name, p in make(3, 4, device="meta", dtype=torch.bfloat16).named_parameters():
        assert p.device.type == "meta", name
        assert p.dtype == torch.bfloat16, name


def test_all_weights_are_listed_as_torch_lists_them() -> None:
    theirs, ours = pair(3, 5, 2, bidirectional=True, proj_size=2)
    assert [len(group) for group in theirs.all_weights] == [5] * 4  # torch has a second bias
    assert [len(group) for group in ours.all_weights] == [4] * 4
    for one, other in zip(theirs.all_weights, ours.all_weights, strict=True):
        assert one[0].shape == other[0].shape
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[4], other[3])


def test_dropout_is_between_layers_and_only_in_training() -> None:
    torch.manual_seed(0)
    rnn = NASRNN(3, 4, 2, dropout=0.6)
    x = torch.randn(5, 2, 3)
    assert not torch.equal(rnn(x)[0], rnn(x)[0])
    rnn.eval()
    assert torch.equal(rnn(x)[0], rnn(x)[0])
    with pytest.warns(UserWarning, match="between layers, and there is one"):
        single = NASRNN(3, 4, dropout=0.6)
    assert torch.equal(single(x)[0], single(x)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NASRNN(3, 4, 2, dropout=0.6)


def test_recurrent_dropout_is_one_mask_for_all_steps_rescaled() -> None:
    """A cell that adds x_t to half of h_{t-1}, kept or not: each unit's sequence is one of the two, never a mixture."""
    space = RecurrentCell(2)
    adding = space.from_tokens("add,identity add,identity add,identity add,identity 0 0")
    rnn = space.rnn(adding, 1, 1)
    rnn.recurrent_dropout = 0.5
    for p in rnn.parameters():
        nn.init.constant_(p, 0.25)
    torch.manual_seed(0)
    x = torch.ones(6, 200, 1)
    kept = []
    for column in rnn(x)[0][:, :, 0].t():
        h, ways = [0.0, 0.0], [0.0, 0.0]
        seen: list[list[float]] = [[], []]
        for _ in range(6):
            for k, factor in enumerate((0.0, 2.0)):
                first = 0.25 + 0.25 * factor * h[k]
                h[k] = first + ways[k] + (0.25 + 0.25 * factor * h[k])
                ways[k] = first
                seen[k].append(h[k])
        matches = [k for k in (0, 1) if torch.allclose(column, torch.tensor(seen[k]), rtol=1e-4)]
        assert len(matches) == 1
        kept += matches
    assert 60 < sum(kept) < 140


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "state", "words"),
    [
        (torch.zeros(3), None, "must have 2 or 3 dimensions"),
        (torch.zeros(2, 3, 4, 5), None, "must have 2 or 3 dimensions"),
        (torch.zeros(5, 2, 4), None, r"must have 3 numbers a step \(input_size\), got 4"),
        (torch.zeros(0, 2, 3), None, "at least one step"),
        (torch.zeros(5, 2, 3).double(), None, "type of the weights, torch.float32, got torch.float64"),
        (torch.zeros(5, 2, 3).long(), None, "type of the weights"),
        (torch.zeros(5, 2, 3), (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)), r"h of the state must be of shape \(1, 2"),
        (torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 5)), "c of the state must be of shape"),
        (torch.zeros(5, 2, 3), (torch.zeros(2, 4), torch.zeros(2, 4)), r"must be of shape \(1, 2, 4\), got \(2, 4\)"),
        (torch.zeros(5, 3), (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)), r"must be of shape \(1, 4\)"),
        (torch.zeros(5, 2, 3), torch.zeros(1, 2, 4), "must be the pair"),
        (torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4),), "must be the pair"),
        (torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4).double()), "type of the input"),
    ],
)
def test_wrong_sequences_are_refused(x: Tensor, state: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        NASRNN(3, 4)(x, state)


@pytest.mark.parametrize(
    ("x", "state", "words"),
    [
        (torch.zeros(2, 2, 3), None, "must have 1 or 2 dimensions"),
        (torch.zeros(()), None, "must have 1 or 2 dimensions"),
        (torch.zeros(2, 4), None, "must have 3 numbers"),
        (torch.zeros(2, 3), (torch.zeros(1, 4), torch.zeros(2, 4)), r"h of the state must be of shape \(2, 4\)"),
        (torch.zeros(3), (torch.zeros(1, 4), torch.zeros(1, 4)), r"must be of shape \(4,\)"),
        (torch.zeros(2, 3).half(), None, "type of the weights"),
    ],
)
def test_wrong_steps_are_refused(x: Tensor, state: Any, words: str) -> None:
    for cell in (NASCell(3, 4), general(3, 4)):
        with pytest.raises(UsageError, match=words):
            cell(x, state)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 4), "input_size must be a whole number of at least 1, got 0"),
        ((3, True), "hidden_size"),
        ((3, 4.0), "hidden_size"),
        ((3, 4, 0), "num_layers"),
        ((3, 4, 2, False, False, 1.0), "dropout must be at least 0 and below 1"),
        ((3, 4, 2, False, False, "0.5"), "dropout"),
        ((3, 4, 2, False, False, math.nan), "dropout"),
        ((3, 4, 1, False, False, 0.0, False, -1), "proj_size"),
    ],
)
def test_wrong_sizes_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        NASRNN(*arguments)


def test_a_batch_of_none_is_one() -> None:
    theirs, ours = pair(3, 5, 2, bidirectional=True)
    x = torch.zeros(4, 0, 3)
    same(theirs(x), ours(x))


def test_autocast_is_no_wrong_type() -> None:
    rnn = NASRNN(3, 4, 2)
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        lower = rnn(x.bfloat16())[0]
    torch.testing.assert_close(lower.float(), rnn(x)[0], atol=0.05, rtol=0.1)


def test_a_cells_space_gives_its_modules_from_every_form() -> None:
    network = nas_cell()
    graphs: set[CellGraph] = {
        network.space.graph(form) for form in (network.genotype, network.genotype.to_json(), network.architecture)
    }
    assert graphs == {NASCell(2, 2).graph}
    with pytest.raises(IllegalGenotype, match="another space"):
        RecurrentCell(4).graph(network.genotype)
    with pytest.raises(IllegalGenotype, match="must be one of"):
        network.space.graph(Genotype(network.genotype.space, {**network.genotype.answers, "c_in": 15}))
