"""MetaQNN's space: the paper's facts, every constraint over many walks, every size, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import math
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from archsmith.core.child import Task, TextTask
from archsmith.core.errors import IllegalGenotype, LimitExceeded, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import build, decode, identity, mutate, sample, trace
from archsmith.discovered import metaqnn_top
from archsmith.nn.count import count
from archsmith.nn.qnet import Dense
from archsmith.recipes import get_recipe
from archsmith.rewards import accuracy
from archsmith.spaces import QNet
from archsmith.spaces.qnet_plan import plan_of, pooled
from archsmith.testing import SpaceContract
from archsmith.testing.evaluator import RecordingContext
from archsmith.training.schedules import learning_rate_factor

CIFAR = Task((3, 32, 32), 10)
SMALL = QNet(image_size=12, max_layers=6, filters=(2, 3), fc_widths=(6, 4))
VARIANTS = {
    "plain": SMALL,
    "batch norm": QNet(image_size=12, max_layers=6, filters=(2, 3), fc_widths=(6, 4), batch_norm=True),
    "dense side": QNet(image_size=12, max_layers=6, filters=(2, 3), fc_widths=(6, 4), dense_side=2, dropout=0.0),
}
TOP = ("C(512,5,1)", "C(256,3,1)", "C(256,5,1)", "C(256,3,1)", "P(5,3)", "C(512,3,1)", "C(512,5,1)", "P(2,2)", "SM")


class TestContract(SpaceContract):
    samples = 8

    def space(self):
        return SMALL

    def wrong_architectures(self):
        good = decode(SMALL, SMALL.from_layers(["C(2,3,1)", "SM"]))
        return [None, "C(2,3,1)", {}, {"kind": "qnet"}, {**good, "kind": "chain"}, {**good, "layers": None}]


class TestContractWithBatchNorm(SpaceContract):
    def space(self):
        return VARIANTS["batch norm"]


# --- the paper's facts ------------------------------------------------------------------------------------------------


def test_the_top_model_has_the_published_size_where_its_last_map_is_4x4() -> None:
    # ceil((n - k + 1) / s) leads from 28 to 8 to 4, and from 32 to 10 to 5.
    genotype = QNet.cifar10().from_layers(TOP)
    at_28 = build(QNet.cifar10(), genotype, Task((3, 28, 28), 10)).model
    assert count(at_28, (3, 28, 28)).parameters == 11_263_754
    at_32 = build(QNet.cifar10(), genotype, CIFAR).model
    assert count(at_32, (3, 32, 32)).parameters == 11_263_754 + 512 * 10 * (5 * 5 - 4 * 4)
    space = QNet(max_layers=18, dense_side=4)
    assert count(build(space, space.from_layers(TOP), CIFAR).model, (3, 32, 32)).parameters == 11_263_754


def test_the_size_after_a_pool_is_that_of_the_paper() -> None:
    for n in range(1, 70):
        for k in range(1, n + 1):
            for s in range(1, 6):
                assert pooled(n, k, s) == math.ceil((n - k + 1) / s)


def test_the_defaults_are_table_1() -> None:
    space = QNet()
    first = trace(space, space.from_layers(["SM"]).answers)[0]
    convolutions = {f"C({n},{size},1)" for n in (64, 128, 256, 512) for size in (1, 3, 5)}
    assert set(first.options) == convolutions | {"GAP", "SM"}
    assert (space.max_layers, QNet.cifar10().max_layers) == (12, 18)
    second = trace(space, space.from_layers(["C(64,3,1)", "SM"]).answers)[1]
    assert set(second.options) == convolutions | {"P(5,3)", "P(3,2)", "P(2,2)", "GAP", "SM"}
    fourth = trace(space, space.from_layers(["C(64,3,1)", "P(5,3)", "C(64,1,1)", "P(2,2)", "SM"]).answers)[4]
    assert {o for o in fourth.options if o.startswith("FC")} == {"FC(512)", "FC(256)", "FC(128)"}


@pytest.mark.parametrize(
    "space", [QNet(), QNet.cifar10(), QNet(image_size=28, max_layers=7, max_fc=3), QNet(image_size=9)]
)
def test_no_network_breaks_a_constraint(space: QNet) -> None:
    """10,000 walks over the four: every rule of sections 4.1 and 4.2, on the true sizes."""
    kinds = set()
    for seed in range(2500):
        architecture = decode(space, sample(space, Random(seed)))
        layers, size, dense, last = architecture["layers"], space.image_size, [], "start"
        assert len(layers) <= space.max_layers
        for layer in layers:
            kind = layer["type"]
            kinds.add((last, kind))
            if kind == "conv":
                assert last != "fc"
                assert layer["filters"] in space.filters
                assert layer["filter_size"] in space.filter_sizes
                assert layer["filter_size"] <= size
            elif kind == "max_pool":
                assert last == "conv", "a pool follows a convolution, so never a pool and never the image"
                assert (layer["pool_size"], layer["pool_stride"]) in space.pools
                assert layer["pool_size"] <= size
                size = math.ceil((size - layer["pool_size"] + 1) / layer["pool_stride"])
                assert size >= 1
            else:
                assert last in ("conv", "max_pool", "fc", "start")
                assert size <= 7, "from the two smaller bins alone"
                assert layer["units"] in space.fc_widths
                dense.append(layer["units"])
            last = kind
        assert dense == sorted(dense, reverse=True)
        assert len(dense) <= space.max_fc
        assert architecture["head"] == "softmax" or not dense
        kinds.add((last, architecture["head"]))
    assert {("conv", "max_pool"), ("max_pool", "fc"), ("conv", "fc"), ("fc", "fc")} <= kinds
    assert {("start", "softmax"), ("conv", "gap"), ("max_pool", "softmax"), ("fc", "softmax")} <= kinds


# --- states -----------------------------------------------------------------------------------------------------------


def test_the_state_is_the_papers() -> None:
    space = QNet.cifar10()
    layers = ["C(512,5,1)", "P(5,3)", "C(64,1,1)", "P(3,2)", "FC(256)", "FC(128)", "SM"]
    answers = space.from_layers(layers).answers
    states = [space.state(dict(list(answers.items())[:i])) for i in range(len(layers))]
    assert states == [
        ("start", 0, 0, 0, 0, 8, 0),
        ("conv", 1, 512, 5, 1, 8, 0),  # 32
        ("pool", 2, 0, 5, 3, 8, 0),  # 10
        ("conv", 3, 64, 1, 1, 8, 0),
        ("pool", 4, 0, 3, 2, 4, 0),  # 4
        ("fc", 5, 1, 0, 0, 1, 256),
        ("fc", 6, 2, 0, 0, 1, 128),
    ]


def test_a_pool_may_or_may_not_change_the_bin() -> None:
    space = QNet()
    ways = [["C(64,3,1)", "P(2,2)", "C(64,3,1)", "P(2,2)"], ["C(64,3,1)", "P(5,3)", "C(64,3,1)", "P(2,2)"]]  # 8 and 5
    states = [space.state({f"{i}.layer": layer for i, layer in enumerate(way)}) for way in ways]
    assert [state[5] for state in states] == [8, 4]
    assert states[0][:5] == states[1][:5]


def test_the_options_are_a_function_of_the_state() -> None:
    known: dict[Any, Any] = {}
    space = QNet(image_size=23, max_layers=9)
    for seed in range(600):
        answers = sample(space, Random(seed)).answers
        for i, question in enumerate(trace(space, answers)):
            state = space.state(dict(list(answers.items())[:i]))
            assert known.setdefault(state, question.options) == question.options
    assert len(known) > 200


# --- the child --------------------------------------------------------------------------------------------------------


def dropouts(space: QNet, layers: list[str]) -> list[tuple[int, float]]:
    """After how many layers dropout stands, and of which probability."""
    model = build(space, space.from_layers(layers), CIFAR).model
    found, before = [], 0
    for module in model.layers:
        if isinstance(module, nn.Dropout):
            found.append((before, round(module.p, 6)))
        else:
            before += 1
    return found


def test_dropout_follows_every_two_layers_and_rises_to_a_half() -> None:
    space = QNet(filters=(4, 8))
    conv = "C(4,3,1)"
    assert dropouts(space, [*[conv] * 8, "SM"]) == [(2, 0.125), (4, 0.25), (6, 0.375), (8, 0.5)]
    assert dropouts(space, [*[conv] * 7, "GAP"]) == [(2, 0.166667), (4, 0.333333), (6, 0.5)]
    assert dropouts(space, [conv, "SM"]) == []
    assert dropouts(space, ["SM"]) == []
    assert dropouts(QNet(filters=(4, 8), dropout=0.0), [conv, conv, "SM"]) == []


def test_weights_are_xaviers() -> None:
    torch.manual_seed(0)
    space = QNet(image_size=16)
    layers = ["C(64,3,1)", "C(128,5,1)", "P(5,3)", "FC(512)", "SM"]
    model = build(space, space.from_layers(layers), Task((3, 16, 16), 10)).model
    seen = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            window = module.weight[0, 0].numel() if module.weight.dim() == 4 else 1
            bound = math.sqrt(6 / (window * (module.weight.shape[0] + module.weight.shape[1])))
            assert bound * 0.98 < module.weight.abs().max() <= bound
            assert module.bias is not None
            assert not module.bias.any()
            seen += 1
    assert seen == 4


def test_batch_norm_stands_between_convolution_and_relu() -> None:
    space = VARIANTS["batch norm"]
    model = build(space, space.from_layers(["C(2,3,1)", "SM"]), CIFAR).model
    assert [type(m) for m in model.layers[0]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert model.layers[0][0].bias is None
    assert not [
        m
        for m in build(SMALL, SMALL.from_layers(["C(2,3,1)", "SM"]), CIFAR).model.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]


def test_global_average_pooling_is_a_one_by_one_convolution_averaged() -> None:
    model = build(SMALL, SMALL.from_layers(["C(3,3,1)", "GAP"]), Task((2, 6, 5), 4)).model.eval()
    images = torch.rand(3, 2, 6, 5)
    linear = model.classifier[1]
    as_convolution = nn.functional.conv2d(model.layers(images), linear.weight[:, :, None, None], linear.bias)
    assert torch.allclose(model(images), as_convolution.mean((2, 3)), atol=1e-6)


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), side=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_a_map_is_averaged_down_to_the_side_and_no_further(rows: int, columns: int, side: int) -> None:
    dense = Dense(2, (rows, columns), 3, side)
    flat = torch.full((1, 2, rows, columns), 5.0)
    reduced = dense.reduce(flat)
    assert reduced.shape == (1, 2, min(rows, side), min(columns, side))
    assert torch.allclose(reduced, torch.tensor(5.0)), "windows of an average lie inside"
    ramp = torch.arange(rows, dtype=torch.float32)[:, None].expand(1, 2, rows, columns)
    assert torch.allclose(dense.reduce(ramp).mean(), ramp.mean(), atol=1e-3), (
        "the whole map is read, the middle in the middle"
    )
    assert dense(flat).shape == (1, 3)


@pytest.mark.parametrize("name", VARIANTS)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_any_network_at_any_size(name: str, seed: int, height: int, width: int) -> None:
    """The space counts sizes from its own images; what it gives is built for smaller and larger ones, square or not."""
    space, task = VARIANTS[name], Task((2, height, width), 3)
    architecture = decode(space, sample(space, Random(seed)))
    model = space.build(architecture, task).model
    assert model(torch.rand(2, *task.input_shape)).shape == (2, 3)
    plan = plan_of(architecture, task)
    assert plan.parameters == count(model, task.input_shape).parameters
    convolutions = [step.channels for step in plan.steps if step.layer["type"] == "conv"]
    assert convolutions == [m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("name", VARIANTS)
def test_children_can_be_traced(name: str) -> None:
    space, task = VARIANTS[name], Task((2, 12, 9), 3)
    for seed in range(6):
        model = build(space, sample(space, Random(seed)), task).model.eval()
        traced = fx.symbolic_trace(model)
        images = torch.rand(4, *task.input_shape)
        assert torch.equal(traced(images), model(images))


def test_a_task_that_is_not_of_images_is_refused() -> None:
    with pytest.raises(UsageError, match="QNet builds networks for images, and the task is a TextTask"):
        build(SMALL, sample(SMALL, Random(0)), TextTask(vocabulary=10, hidden=4))


def test_what_is_too_large_is_refused_before_memory_is_taken() -> None:
    space = QNet(filters=(512,), image_size=2048)
    genotype = space.from_layers(["C(512,5,1)", "SM"])
    with pytest.raises(LimitExceeded, match="too large to be built: by its layer"):
        build(space, genotype, Task((3, 2048, 2048), 1000))


# --- the paper's words ------------------------------------------------------------------------------------------------


def test_the_papers_words_are_read() -> None:
    assert QNet().from_layers([" C(64, 3, 1)", "SM"]) == Genotype(
        identity(QNet()), {"0.layer": "C(64,3,1)", "1.layer": "SM"}
    )
    with pytest.raises(IllegalGenotype, match=r"'1\.layer' must be one of .*, got 'C\(65,3,1\)'"):
        QNet().from_layers(["C(64,3,1)", "C(65,3,1)", "SM"])
    with pytest.raises(IllegalGenotype, match=r"no answer to choice '1\.layer'"):
        QNet().from_layers(["C(64,3,1)"])
    with pytest.raises(IllegalGenotype, match=r"no choice '1\.layer'"):
        QNet().from_layers(["SM", "SM"])
    with pytest.raises(IllegalGenotype, match=r"'2\.layer' must be one of"):
        QNet().from_layers(["C(64,3,1)", "P(2,2)", "P(2,2)", "SM"])


def test_mutants_stay_in_the_space() -> None:
    genotype, rng = sample(QNet(), Random(0)), Random(1)
    for _ in range(300):
        genotype = mutate(QNet(), genotype, rng)
        decode(QNet(), Genotype.from_json(genotype.canonical))


def test_the_drawing_has_a_box_for_every_layer() -> None:
    space = QNet.cifar10()
    diagram = space.diagram(decode(space, space.from_layers(TOP)))
    assert [(n.label, n.detail, n.role) for n in diagram.nodes[:6]] == [
        ("image", "", "input"),
        ("5×5 conv", "512 filters", "conv"),
        ("3×3 conv", "256 filters, dropout 0.125", "conv"),
        ("5×5 conv", "256 filters", "conv"),
        ("3×3 conv", "256 filters, dropout 0.25", "conv"),
        ("5×5 max pool", "stride 3", "pool"),
    ]
    assert diagram.nodes[-1].detail == "linear"
    assert len(diagram.edges) == len(diagram.nodes) - 1 == 9
    assert diagram.title == "A network of 8 layers of MetaQNN's space"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 0}, "image_size of QNet must be a whole number from 1"),
        ({"image_size": 32.0}, "got 32.0"),
        ({"max_layers": 0}, "max_layers"),
        ({"max_layers": 10**4}, "from 1 to 256"),
        ({"max_fc": -1}, "max_fc"),
        ({"filters": ()}, "filters of QNet must be a tuple of at least one"),
        ({"filters": (64, 64)}, "differ"),
        ({"filters": (True,)}, "got True"),
        ({"filters": "64"}, "must be a tuple"),
        ({"filter_sizes": (2,)}, "must be odd"),
        ({"pools": ((2, 2), (2, 2))}, "differ"),
        ({"pools": (2,)}, "pairs of size and stride"),
        ({"pools": ((2, 0),)}, "got 0"),
        ({"pools": ((2, 2, 2),)}, "pairs of size and stride"),
        ({"fc_widths": (0,)}, "got 0"),
        ({"dropout": 1.0}, "dropout of QNet must be a number at least 0 and below 1"),
        ({"dropout": "0.5"}, "got '0.5'"),
        ({"batch_norm": 1}, "batch_norm"),
        ({"dense_side": 0}, "dense_side"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        QNet(**options)


def test_lists_are_as_good_as_tuples() -> None:
    again = QNet(**identity(QNet())["options"])
    assert again == QNet()
    assert hash(again) == hash(QNet())


def test_a_space_without_pools_or_fully_connected_layers() -> None:
    space = QNet(image_size=6, max_layers=3, filters=(2,), pools=(), fc_widths=(), max_fc=0)
    for seed in range(50):
        assert {layer["type"] for layer in decode(space, sample(space, Random(seed)))["layers"]} <= {"conv"}


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    layers = ["C(2,3,1)", "P(2,2)", "FC(6)", "SM"]
    architecture = copy.deepcopy(decode(SMALL, SMALL.from_layers(layers)))
    at: Any = architecture
    for key in path[:-1]:
        at = at[key]
    if value is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return architecture


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (None, '"kind": "qnet", got None'),
        (changed(("kind",), "cell"), "qnet"),
        (changed(("extra",), 1), "has the keys"),
        (changed(("layers",), "abc"), "must be a list"),
        (changed(("layers",), [{}] * 300), "at most 256"),
        (changed(("layers", 0), None), "layer 0 must be an object"),
        (changed(("layers", 0, "type"), "lcn"), "layer 0 must be an object"),
        (changed(("layers", 0, "filters"), KeyError), "layer 0, a conv, has the keys"),
        (changed(("layers", 0, "filters"), 10**5000), "more than 64 bits"),
        (changed(("layers", 0, "filter_size"), 4), "must be odd"),
        (changed(("layers", 1, "pool_stride"), 0), "pool_stride of layer 1"),
        (changed(("layers", 0), {"type": "fc", "units": 3}), "layer 1 follows a fully connected layer"),
        (changed(("head",), "gap"), "no map to average"),
        (changed(("head",), "svm"), "head of an architecture"),
        (changed(("dropout",), -0.1), "dropout"),
        (changed(("dropout",), math.nan), "dropout"),
        (changed(("dense_side",), 2.0), "dense_side"),
    ],
)
def test_wrong_architectures_are_refused(architecture: Any, words: str) -> None:
    for use in (lambda: SMALL.build(architecture, CIFAR), lambda: SMALL.diagram(architecture)):
        with pytest.raises(UsageError, match=words):
            use()


# --- the published network and the recipes ----------------------------------------------------------------------------


def test_the_discovered_network_has_the_published_size() -> None:
    network = metaqnn_top()
    counts = count(network.build(), (3, 32, 32))
    assert counts.parameters == 11_263_754
    assert round(counts.parameters / 1e6, 2) == 11.26
    assert [layer["type"] for layer in network.architecture["layers"]].count("conv") == 6
    assert network.genotype == network.space.from_layers(TOP)


def test_the_paper_scale_recipe_has_the_papers_numbers() -> None:
    recipe = get_recipe("metaqnn")
    assert recipe.scale == "paper"
    assert recipe.space == QNet.cifar10()
    assert recipe.budget.trials == sum(count for _, count in recipe.searcher.schedule) == 2700
    searcher = recipe.searcher
    assert (searcher.learning_rate, searcher.discount, searcher.initial, searcher.replay) == (0.01, 1.0, 0.5, 100)
    evaluator = recipe.evaluator
    assert (evaluator.epochs, evaluator.batch_size, evaluator.optimizer, evaluator.learning_rate) == (
        20,
        128,
        "adam",
        0.001,
    )
    rates = [0.001 * learning_rate_factor(evaluator, epoch) for epoch in range(20)]
    assert rates == pytest.approx([0.001] * 5 + [0.0002] * 5 + [0.00004] * 5 + [0.000008] * 5)
    assert recipe.reward is accuracy
    assert (recipe.finish.top, recipe.finish.epochs) == (10, 300)


def test_the_last_training_on_mnist_falls_every_five_epochs() -> None:
    recipe = get_recipe("metaqnn-mnist")
    final = dataclasses.replace(recipe.evaluator, epochs=recipe.finish.epochs, **recipe.finish.final)
    rates = [learning_rate_factor(final, epoch) for epoch in range(40)]
    assert rates == pytest.approx([0.2 ** (epoch // 5) for epoch in range(40)])
    assert round(recipe.evaluator.validation * 60_000) == 5000


@pytest.mark.parametrize("name", ["metaqnn", "metaqnn-mnist", "metaqnn-desk"])
def test_the_final_settings_of_a_recipe_are_settings(name: str) -> None:
    recipe = get_recipe(name)
    dataclasses.replace(recipe.evaluator, epochs=recipe.finish.epochs, **recipe.finish.final)
    recipe.finish.points(recipe.evaluator)


def test_the_desk_recipe_is_as_small_as_it_says() -> None:
    recipe = get_recipe("metaqnn-desk")
    assert recipe.scale == "desk"
    assert recipe.evaluator.max_train <= 5000
    assert recipe.evaluator.epochs == 2
    assert sum(count for _, count in recipe.searcher.schedule) == recipe.budget.trials


def test_a_child_of_the_papers_training_takes_a_step() -> None:
    """One epoch of the paper's settings on few small images: Adam, dropout, every type of layer."""
    recipe = get_recipe("metaqnn")
    evaluator = dataclasses.replace(recipe.evaluator, data="digits", epochs=1, max_train=60, batch_size=16, decay_at=())
    layers = [
        "C(64,3,1)",
        "C(64,1,1)",
        "P(3,2)",
        "C(64,3,1)",
        "P(2,2)",
        "C(64,1,1)",
        "P(2,2)",
        "FC(256)",
        "FC(128)",
        "SM",
    ]
    genotype = recipe.space.from_layers(layers)
    result = evaluator.evaluate(recipe.space, genotype, RecordingContext())
    assert math.isfinite(result.metrics["train_loss"])
    assert 0 <= recipe.reward(result) <= 1
