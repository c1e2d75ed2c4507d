"""A cell as generated PyTorch: the same numbers, gradients and weights as the module that trained it, and no archsmith."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from archsmith._export.cell_source import cell_file, cell_source, step_source
from archsmith.core.errors import UsageError
from archsmith.nn.cell_graph import ACTIVATIONS, C_PREV, COMBINATIONS, CellGraph, Leaf, Node, lstm, tree
from archsmith.nn.recurrent import GraphCell, GraphRNN

NAS = tree(
    [
        *(("add", "sigmoid"), ("add", "relu"), ("add", "sigmoid"), ("elem_mult", "relu")),
        *(("add", "tanh"), ("add", "sigmoid"), ("add", "tanh"), ("add", "sigmoid")),
        *(("elem_mult", "tanh"), ("add", "tanh"), ("elem_mult", "tanh"), ("add", "sigmoid")),
        *(("elem_mult", "identity"), ("add", "tanh"), ("elem_mult", "tanh")),
    ],
    ("add", "tanh"),
    c_out=12,
    c_in=8,
)

operations = st.tuples(st.sampled_from(COMBINATIONS), st.sampled_from(ACTIVATIONS))


@st.composite
def trees(draw: st.DrawFn) -> CellGraph:
    count = 2 * draw(st.sampled_from((2, 4, 8, 16))) - 1
    nodes = draw(st.lists(operations, min_size=count, max_size=count))
    index = st.integers(0, count - 1)
    return tree(nodes, draw(operations), draw(index), draw(index))


@st.composite
def graphs(draw: st.DrawFn) -> CellGraph:
    """Any graph at all: values read often or never, c_{t-1} many times or nowhere."""
    leaves = tuple(Leaf(*draw(operations)) for _ in range(draw(st.integers(1, 4))))
    nodes: list[Node] = []
    for _ in range(draw(st.integers(0, 8))):
        operand = st.integers(C_PREV, len(leaves) + len(nodes) - 1)
        nodes.append(Node(*draw(operations), draw(operand), draw(operand)))
    value = st.integers(0, len(leaves) + len(nodes) - 1)
    return CellGraph(leaves, tuple(nodes), h=draw(value), c=draw(value))


def written(graph: CellGraph, name: str = "Found") -> dict[str, Any]:
    """What a file with the cell defines."""
    scope: dict[str, Any] = {"__name__": "written"}
    exec(compile(cell_file(graph, name, "A cell.", "Of a test."), "cell.py", "exec"), scope)
    return scope


def agree(ours: torch.nn.Module, theirs: torch.nn.Module, *inputs: Any) -> None:
    """Both give the same, in double precision, forward and backward, from the same weights."""
    theirs.load_state_dict(ours.state_dict(), strict=True)
    results = []
    for module in (ours, theirs):
        module.zero_grad()
        out, (h, c) = module(*inputs)
        loss = out.sin().sum() + (h * 0.5).sum() + c.cos().sum()
        if loss.requires_grad:  # else it is made of c_{t-1} alone
            loss.backward()
        results.append([out, h, c, *(p.grad for p in module.parameters() if p.grad is not None and p.grad.any())])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(graph=st.one_of(trees(), graphs()), data=st.data())
def test_the_layers_equal_the_module_that_trained_them(graph: CellGraph, data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 99)))
    options: dict[str, Any] = {
        "num_layers": data.draw(st.integers(1, 3)),
        "bias": data.draw(st.booleans()),
        "batch_first": data.draw(st.booleans()),
        "bidirectional": data.draw(st.booleans()),
        "proj_size": data.draw(st.sampled_from((0, 3))),
    }
    ours = GraphRNN(graph, 5, 4, **options).double()
    theirs = written(graph)["FoundRNN"](5, 4, **options).double()
    directions = options["num_layers"] * (2 if options["bidirectional"] else 1)
    h0 = torch.randn(directions, 2, options["proj_size"] or 4, dtype=torch.float64)
    c0 = torch.randn(directions, 2, 4, dtype=torch.float64)
    x = torch.randn(*((2, 3) if options["batch_first"] else (3, 2)), 5, dtype=torch.float64)
    for inputs in ((x,), (x, (h0, c0)), (x[0],)):
        agree(ours, theirs, *inputs)


@settings(max_examples=30, deadline=None)
@given(graph=st.one_of(trees(), graphs()), bias=st.booleans(), proj_size=st.sampled_from((0, 3)))
def test_one_step_equals_the_module_that_trained_it(graph: CellGraph, bias: bool, proj_size: int) -> None:
    torch.manual_seed(0)
    ours = GraphCell(graph, 5, 4, bias, proj_size=proj_size).double()
    theirs = written(graph)["FoundCell"](5, 4, bias, proj_size=proj_size).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, h = torch.randn(2, 5).double(), torch.randn(2, proj_size or 4).double()
    c = torch.randn(2, 4).double()
    for inputs in ((x, (h, c)), (x,), (x[0],), (x[0], (h[0], c[0]))):
        torch.testing.assert_close(theirs(*inputs), ours(*inputs), rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_are_read_as_lstm_reads_them(bidirectional: bool) -> None:
    torch.manual_seed(0)
    scope = written(lstm())
    theirs = scope["FoundRNN"](5, 4, 2, True, bidirectional=bidirectional)
    library = torch.nn.LSTM(5, 4, 2, bidirectional=bidirectional)
    for name, parameter in library.named_parameters():  # two biases, of which ours is the sum
        if not name.startswith("bias"):
            theirs.get_parameter(name).data.copy_(parameter)
        elif name.startswith("bias_ih"):
            other = library.get_parameter(name.replace("bias_ih", "bias_hh"))
            theirs.get_parameter(name.replace("bias_ih", "bias")).data.copy_(parameter + other)
    packed = pack_padded_sequence(torch.randn(6, 3, 5), torch.tensor([3, 6, 1]), enforce_sorted=False)
    (expected, state), (found, own) = library(packed), theirs(packed)
    torch.testing.assert_close(own, state)
    torch.testing.assert_close(pad_packed_sequence(found)[0], pad_packed_sequence(expected)[0])


def test_the_step_reads_like_one_that_a_person_wrote() -> None:
    assert step_source(NAS).endswith(
        """\
    x, h = from_input.chunk(8, -1), from_state.chunk(8, -1)
    a0 = torch.sigmoid(x[0] + h[0])
    a1 = torch.relu(x[1] + h[1])
    a2 = torch.sigmoid(x[2] + h[2])
    a3 = torch.relu(x[3] * h[3])
    a4 = torch.tanh(x[4] + h[4])
    a5 = torch.sigmoid(x[5] + h[5])
    a6 = torch.tanh(x[6] + h[6])
    a7 = torch.sigmoid(x[7] + h[7])
    a8 = torch.tanh(a0 * a1)
    a8 = torch.tanh(a8 + c)  # c_{t-1} comes in
    a9 = torch.tanh(a2 + a3)
    a10 = torch.tanh(a4 * a5)
    a11 = torch.sigmoid(a6 + a7)
    c_new = a8 * a9
    a13 = torch.tanh(a10 + a11)
    a14 = torch.tanh(c_new * a13)
    return a14, c_new
"""
    )


def test_the_cell_of_tensorflow_gives_its_numbers() -> None:
    """The golden values of TensorFlow Addons' own test: units 6, all weights 0.5, four inputs of 1, states of 0.1."""
    for proj_size, out, new in ((0, 0.5767508, 0.7157977), (5, 1.6974180, 0.6985521)):
        cell = written(NAS, "NAS")["NASCell"](4, 6, proj_size=proj_size)
        for parameter in cell.parameters():
            torch.nn.init.constant_(parameter, 0.5)
        h, c = cell(torch.ones(2, 4), (torch.full((2, proj_size or 6), 0.1), torch.full((2, 6), 0.1)))
        torch.testing.assert_close(h, torch.full_like(h, out), rtol=0, atol=1e-6)
        torch.testing.assert_close(c, torch.full_like(c, new), rtol=0, atol=1e-6)


def test_states_of_a_wrong_shape_are_refused_rather_than_broadcast() -> None:
    rnn, x = written(NAS)["FoundRNN"](5, 4, 2), torch.randn(3, 2, 5)
    for h, c in ((torch.zeros(2, 1, 4), torch.zeros(2, 1, 4)), (torch.zeros(3, 2, 4), torch.zeros(3, 2, 4))):
        with pytest.raises(ValueError, match="h_0 and c_0 must be of shapes"):
            rnn(x, (h, c))


def test_dropout_falls_between_layers_in_training_alone() -> None:
    torch.manual_seed(0)
    rnn = written(NAS)["FoundRNN"](5, 4, 2, dropout=0.5)
    x = torch.randn(3, 2, 5)
    assert not torch.equal(rnn(x)[0], rnn(x)[0])
    rnn.eval()
    assert torch.equal(rnn(x)[0], rnn(x)[0])


def test_the_file_passes_the_usual_checks_and_needs_no_archsmith(tmp_path: Path) -> None:
    wide = tree([("max", "sin")] * 31, ("max", "sin"), 30, 30)
    files = []
    for k, graph in enumerate((NAS, wide, lstm(), CellGraph((Leaf("add", "identity"),), (), 0, 0))):
        path = tmp_path / f"cell{k}.py"
        path.write_text(cell_file(graph, "Found", "A cell.", "Of a test."))
        files.append(str(path))
    select = "--select=E,F,W,I,UP,B,C4,SIM,D1,N,RET"
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", select, "--ignore=N812,D107,D105"]
    checked = subprocess.run([*ruff, *files], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    code = "import sys; sys.modules['archsmith'] = None; sys.path.insert(0, sys.argv[1]); import cell0, cell1, cell3"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_none_is_refused() -> None:
    for name in ("my cell", "1", "class", "-"):
        with pytest.raises(UsageError, match="is no such name"):
            cell_source(NAS, name)
