"""Describing and drawing a network by name, genotype or architecture; and the discovered networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

import archsmith as smith
from archsmith._describe import diagram_of, find, space_of
from archsmith.core.errors import IllegalGenotype, LimitExceeded, UnknownName, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import as_space, decode, identity, sample
from archsmith.discovered import NETWORKS, nas_cell, nas_conv_v1
from archsmith.nn.count import RULE, RULE_OF_TEXT
from archsmith.spaces import ConvChain, RecurrentCell

GOLDEN = Path(__file__).parent / "golden"


def test_the_published_network_by_name() -> None:
    description = smith.describe("nas_conv_v1")
    assert description.to_json() == {
        "name": "nas_conv_v1",
        "input_shape": [3, 32, 32],
        "num_classes": 10,
        "parameters": 4_201_630,
        "multiply_adds": 4_300_665_312,
        "rule": RULE,
        "layers": 15,
        "depth": 15,
        "genotype": "45d69a552edc",
        "learning_rate": None,
    }
    json.dumps(description.to_json())


def test_the_forms_a_network_comes_in_are_one(tmp_path: Path) -> None:
    network = nas_conv_v1()
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(network.genotype.to_json(), indent=2))
    forms = [network, network.genotype, network.genotype.to_json(), network.genotype.canonical, str(file), file]
    for form in (*forms, network.architecture, json.dumps(network.architecture)):
        found = smith.describe(form)
        assert (found.parameters, found.multiply_adds, found.depth) == (4_201_630, 4_300_665_312, 15)
        assert diagram_of(form) == network.space.diagram(network.architecture)
    assert smith.describe(network.genotype).genotype == network.genotype.key
    assert smith.describe(network.architecture).genotype is None


def test_a_golden_genotype_file_keeps_its_meaning() -> None:
    """Written by version 1 of the space; genotypes stay loadable."""
    for path, parameters in ((GOLDEN / "nas_conv_v1.json", 4_201_630), (GOLDEN / "chain_of_types.json", 3_796)):
        genotype = Genotype.from_json(path.read_text(encoding="utf-8"))
        assert smith.describe(path).parameters == parameters
        assert json.loads(path.read_text(encoding="utf-8")) == genotype.to_json()
    assert Genotype.from_json((GOLDEN / "nas_conv_v1.json").read_text(encoding="utf-8")) == nas_conv_v1().genotype


def test_another_task_may_be_given() -> None:
    description = smith.describe("nas_conv_v1", input_shape=(1, 8, 8), num_classes=3)
    assert description.task == smith.Task((1, 8, 8), 3)
    first_layer, classifier = 2 * 9 * 36, 7 * 49
    assert description.parameters == 4_201_630 - first_layer - classifier


def test_depth_is_the_longest_way_and_layers_are_all() -> None:
    answers = {}
    for i, inputs in enumerate(([], [], [0, 1], [0])):
        answers |= {f"{i}.filter_height": 3, f"{i}.filter_width": 3, f"{i}.filters": 24, f"{i}.inputs": inputs}
    description = smith.describe(Genotype(identity(ConvChain(layers=4)), answers))
    assert (description.layers, description.depth) == (4, 2)
    v3 = smith.describe(sample(ConvChain.v3(), Random(0)))
    assert v3.layers == 39
    assert 3 < v3.depth <= 39


def test_normalisation_and_pooling_are_no_layers_with_weights() -> None:
    answers = {
        "0.type": "bn",
        "0.inputs": [],
        "1.type": "max_pool",
        "1.pool_size": 2,
        "1.pool_stride": 2,
        "1.inputs": [0],
    }
    space = ConvChain(layers=2, layer_types=("bn", "max_pool"))
    description = smith.describe(Genotype(identity(space), answers))
    assert (description.layers, description.depth) == (0, 0)
    assert description.parameters == 2 * 3 + 3 * 10 + 10


def test_a_chosen_learning_rate_is_told() -> None:
    space = ConvChain(layers=1, learning_rates=(0.05,))
    assert smith.describe(sample(space, Random(0))).learning_rate == 0.05


def test_describing_takes_no_memory_and_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    huge = {
        "kind": "conv_chain", "learning_rate": None, "block": 1, "pools": [],
        "layers": [{"type": "conv", "filter_height": 7, "filter_width": 7, "filters": 3000, "stride": [1, 1], "inputs": [0] * i} for i in range(2)],
    }  # fmt: skip
    assert smith.describe(huge).parameters == 3000 * (49 * 3 + 2) + 3000 * (49 * 3000 + 2) + 30_010
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("thing", "error", "words"),
    [
        ("nas_conv_v2", UnknownName, "did you mean 'nas_conv_v1'"),
        ("NASCell", UnknownName, "did you mean 'nas_cell'"),
        ("no/such/file.json", UnknownName, "there are: .*mnasnet_a1, mnasnet_b1"),
        ("", UnknownName, "no discovered network or file"),
        ("{}", IllegalGenotype, "a genotype must be an object with the keys"),
        ("{", UsageError, "a genotype must be JSON"),
        ("[1]", UsageError, "holds a list"),
        ("[" * 100_000, UsageError, "must be JSON"),
        ('{"kind": "conv_chains"}', UnknownName, "did you mean 'conv_chain'"),
        ('{"kind": 3}', UnknownName, "'3'"),
        ('{"kind": "conv_chain"}', UsageError, "has the keys"),
        (
            '{"space": {"name": "ConvChian", "version": 1, "options": {}}, "answers": {}}',
            UnknownName,
            "did you mean 'ConvChain'",
        ),
        ('{"space": {"name": "os", "version": 1, "options": {}}, "answers": {}}', UnknownName, "a space of your own"),
        ('{"space": {"name": "ConvChain", "version": 1}, "answers": {}}', UsageError, '"options"'),
        ('{"space": {"name": "ConvChain", "version": 1, "options": {"depth": 3}}, "answers": {}}', UsageError, "depth"),
        (
            '{"space": {"name": "ConvChain", "version": 1, "options": {"layers": 0}}, "answers": {}}',
            UsageError,
            "from 1",
        ),
        (3, UsageError, "got int"),
        (b"{}", UsageError, "got bytes"),
        (None, UsageError, "got NoneType"),
    ],
)
def test_what_is_no_network_is_refused(thing: Any, error: type[Exception], words: str) -> None:
    for function in (smith.describe, diagram_of):
        with pytest.raises(error, match=words):
            function(thing)


def test_genotypes_that_do_not_fit_their_space_are_refused() -> None:
    value = json.loads(nas_conv_v1().genotype.canonical)
    for change, words in (
        ({"3.filters": 25}, "'3.filters' must be one of 24, 36, 48, 64, got 25"),
        ({"3.inputs": [5]}, "'3.inputs'"),
        ({"15.filters": 24}, "no choice '15.filters'"),
    ):
        with pytest.raises(IllegalGenotype, match=words):
            smith.describe({**value, "answers": {**value["answers"], **change}})
    with pytest.raises(IllegalGenotype, match="its version is 2"):
        smith.describe({**value, "space": {**value["space"], "version": 2}})


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no discovered network or file"):
        smith.describe(str(tmp_path))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read"):
        smith.describe(binary)
    empty = tmp_path / "empty.json"
    empty.touch()
    with pytest.raises(UsageError, match="must be JSON"):
        smith.describe(empty)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shape": (3, 32)}, "reads images"),
        ({"input_shape": (0, 8, 8)}, "positive"),
        ({"input_shape": ("3", 8, 8)}, "positive"),
        ({"num_classes": 1}, "at least 2"),
        ({"num_classes": 0}, "at least 2"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        smith.describe("nas_conv_v1", **options)


def test_too_large_a_network_is_told_and_not_drawn() -> None:
    with pytest.raises(LimitExceeded, match="too large to be built"):
        smith.describe("nas_conv_v1", input_shape=(3, 100_000, 100_000))
    layers = [{"type": "max_pool", "pool_size": 2, "pool_stride": 1, "inputs": list(range(i))} for i in range(60)]
    with pytest.raises(LimitExceeded):
        diagram_of({"kind": "conv_chain", "learning_rate": None, "block": 1, "pools": [], "layers": layers})


def test_a_space_comes_back_from_its_genotype() -> None:
    for space in (
        ConvChain.v1(),
        ConvChain.v2(),
        ConvChain.v3(more_filters=True),
        ConvChain(depths=(2, 4), learning_rates=(0.1,)),
    ):
        genotype = Genotype.from_json(sample(space, Random(0)).canonical)
        assert space_of(genotype) == space


def test_discovered_networks_build_for_any_task() -> None:
    assert all(network().name == name for name, network in NETWORKS.items())
    images, cell = nas_conv_v1(), nas_cell()
    assert images.build(input_shape=(1, 8, 8), num_classes=3)(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    assert images.build().classifier.out_features == images.task.num_classes
    tokens = torch.zeros(4, 2, dtype=torch.int64)
    assert cell.build(task=smith.TextTask(7, hidden=3))(tokens)[0].shape == (4, 2, 7)
    with pytest.raises(UsageError, match="reads no images"):
        cell.build(num_classes=3)


# --- recurrent cells --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [
        ({}, 31_997_200),
        ({"hidden": 741, "tied": True}, 24_990_592),
        ({"hidden": 1152, "tied": True}, 53_997_328),
        ({"hidden": 537}, 19_977_808),
    ],
)
def test_nas_cell_has_the_published_sizes(sizes: dict[str, Any], parameters: int) -> None:
    description = smith.describe("nas_cell", **sizes)
    assert description.parameters == parameters
    assert (description.layers, description.depth) == (2, 2)
    assert description.task == smith.TextTask(**({"vocabulary": 10_000, "hidden": 735} | sizes))


def test_the_multiply_adds_of_a_cell_are_its_weights_once_a_symbol() -> None:
    description = smith.describe("nas_cell", vocabulary=50, hidden=6, layers=3)
    assert description.multiply_adds == 3 * 8 * 6 * (6 + 6) + 50 * 6
    assert description.rule == RULE_OF_TEXT
    assert description.parameters == description.multiply_adds + 50 * 6 + 50


def test_a_cell_from_a_search_is_of_20_million_parameters() -> None:
    for base in (2, 8, 16):
        genotype = sample(RecurrentCell(base), Random(base))
        for form in (genotype, genotype.canonical, decode(RecurrentCell(base), genotype)):
            description = smith.describe(form)
            one_more = smith.describe(form, hidden=description.task.hidden + 1)
            assert description.parameters <= 20_000_000 < one_more.parameters
        assert space_of(genotype) == RecurrentCell(base)
        assert json.dumps(description.to_json())


def test_a_cell_may_be_described_as_a_translator() -> None:
    task = smith.TranslationTask(50, 40, layers=2, hidden=6)
    description = smith.describe("nas_cell", task=task)
    assert description.task == task
    assert description.layers == 4
    # The matrices that a symbol of the source meets, those of the target, and the attention of one over the other.
    encoder, decoder = 2 * 48 * 12 + 48 * 18, 48 * 12 + 48 * 18
    assert description.multiply_adds == encoder + 6 * 6 + decoder + 6 * 6 + 40 * 6 + 2 * 6


def test_describing_a_cell_takes_no_memory() -> None:
    assert smith.describe("nas_cell", hidden=4000, vocabulary=50_000).parameters > 900_000_000


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_classes": 3}, UsageError, "nas_cell reads text, and num_classes is of another task"),
        ({"hidden": 0}, UsageError, "hidden must be a whole number of at least 1, got 0"),
        ({"vocabulary": "many"}, UsageError, "vocabulary must be a whole number"),
        ({"vocabulary": 10**30}, LimitExceeded, "vocabulary may be at most 16,777,216, got a number of more than"),
        ({"layers": 10**8, "hidden": 1}, LimitExceeded, "layers may be at most 256"),
        ({"hidden": 100_000}, LimitExceeded, "parameters may be at most 1,000,000,000, got 322000010000"),
        ({"task": smith.Task()}, UsageError, "for text and translation, and the task is a Task"),
        ({"task": smith.TextTask(9, hidden=2), "hidden": 3}, UsageError, "either a task or its fields"),
        ({"task": smith.TextTask(9, hidden=2, embedding=3, tied=True)}, UsageError, "tied"),
        ({"task": smith.TextTask(9, parameters=10**10)}, LimitExceeded, "parameters may be at most"),
        ({"task": smith.TextTask(10_000, parameters=10)}, UsageError, "allow more, or cap the vocabulary"),
    ],
)
def test_sizes_that_no_cell_can_have_are_refused(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        smith.describe("nas_cell", **options)


def test_the_command_line_describes_and_draws_cells(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from archsmith.cli.main import app

    run = CliRunner().invoke
    told = run(app, ["describe", "nas_cell", "--hidden", "741", "--tied", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == smith.describe("nas_cell", hidden=741, tied=True).to_json()
    table = run(app, ["describe", "nas_cell", "--vocabulary", "50", "--hidden", "6", "--layers", "3"]).stdout
    assert "vocabulary           50\n" in table
    assert "tied                 False\n" in table
    architecture = tmp_path / "cell.json"
    architecture.write_text(json.dumps(nas_cell().architecture))
    assert "None" not in table
    for thing in ("nas_cell", str(architecture), nas_cell().genotype.canonical):
        assert run(app, ["draw", thing]).stdout == (GOLDEN / "nas_cell.svg").read_text(encoding="utf-8") + "\n"


def test_a_run_stands_for_its_best_network_or_for_that_of_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from archsmith.cli.main import app

    store = f"sqlite:///{tmp_path / 'runs.db'}"
    run = smith.search(
        smith.spaces.ConvChain(layers=2), smith.training.Landscape(), trials=2, store=store, name="first"
    )
    assert run.best is not None
    monkeypatch.setenv("ARCHSMITH_STORE", store)
    assert run.best.genotype.key in CliRunner().invoke(app, ["describe", "first"]).stdout
    other = run.reader.trial(1 - run.best.number)
    assert other.genotype.key in CliRunner().invoke(app, ["describe", "first", "--trial", str(other.number)]).stdout
    assert "<svg" in CliRunner().invoke(app, ["draw", "first"]).stdout
    assert smith.describe(run) == smith.describe(run.best.genotype)
    with pytest.raises(UsageError, match="--trial is for a run"):
        CliRunner().invoke(app, ["describe", "nas_conv_v1", "--trial", "1"], catch_exceptions=False)


def test_a_space_of_ones_own_is_described_and_drawn() -> None:
    def space(choose: Any) -> Any:
        return {"width": choose("width", (4, 8))}

    def net(architecture: Any, task: Any) -> nn.Module:
        return Joined(architecture["width"], task)

    genotype = sample(as_space(space), Random(0))
    told = smith.describe(genotype, space=space, build=net, input_shape=(1, 8, 8), num_classes=3)
    width = genotype.answers["width"]
    assert isinstance(width, int)
    assert told.multiply_adds == 64 * 9 * width + 64 * width * width + 3 * width
    assert (told.layers, told.depth) == (None, None)
    diagram = diagram_of(find(genotype, None, space, net))
    assert [(node.label, node.role) for node in diagram.nodes] == [
        ("input", "input"), ("3×3 conv", "conv"), ("1×1 conv", "conv"), ("add", "combine"),
        ("AdaptiveAvgPool2d", "pool"), ("dense", "dense"), ("output", "output"),
    ]  # fmt: skip
    assert sum(edge.skip for edge in diagram.edges) == 1
    for wrong in ({"build": net}, {"space": space, "build": net, "cells": 3}):
        with pytest.raises(UsageError):
            smith.describe(genotype, **wrong)


class Joined(nn.Module):
    """Two convolutions, the second one skipped."""

    def __init__(self, width: int, task: Any) -> None:
        super().__init__()
        self.first = nn.Conv2d(task.input_shape[0], width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.out = nn.Linear(width, task.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.out(self.pool(x + self.second(x)).flatten(1))


def test_names_of_networks_need_no_torch() -> None:
    code = "import sys, archsmith.discovered as d; d.nas_cell().architecture; print('torch' in sys.modules, d.NASCell.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False NASCell\n"


def test_text_is_no_option_of_networks_for_images() -> None:
    with pytest.raises(UsageError, match="nas_conv_v1 reads images, and vocabulary is of another task"):
        smith.describe("nas_conv_v1", vocabulary=3)


def test_build_takes_a_task_or_images_or_neither() -> None:
    space, genotype = RecurrentCell(2), sample(RecurrentCell(2), Random(0))
    small = smith.build(space, genotype, task=smith.TextTask(7, hidden=3, layers=1))
    assert sum(p.numel() for p in small.parameters()) == 2 * 3 * 6 + 7 * 3 + 7 * 3 + 7
    as_json = smith.build(space, genotype.to_json(), task=smith.TextTask(7, hidden=3, layers=1))
    assert as_json.state_dict().keys() == small.state_dict().keys()
    with pytest.raises(UsageError, match="either a task or input_shape"):
        smith.build(space, genotype, num_classes=3, task=smith.TextTask(7, hidden=3))
    with pytest.raises(UsageError, match=r"give a TextTask; for images there is spaces\.ConvChain"):
        smith.build(space, genotype, num_classes=3)
    with torch.device("meta"):  # the default is large
        assert smith.build(space, genotype).hidden > 537
    assert smith.build(ConvChain(layers=1), sample(ConvChain(layers=1), Random(0)), num_classes=3)(
        torch.rand(1, 3, 32, 32)
    ).shape == (1, 3)
