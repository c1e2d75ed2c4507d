"""Mobile blocks: the space, its exact sizes, the published networks, what is refused."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith import build, describe, search, searchers
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.space import decode, sample, script, space_size
from archsmith.discovered import NETWORKS, mnasnet_a1, mnasnet_b1, mnasnet_small
from archsmith.nn.count import count
from archsmith.nn.mobile import MobileLayer, SqueezeExcite
from archsmith.nn.mobile_plan import expansion, plan_of
from archsmith.recipes import get_recipe
from archsmith.rewards import LatencyWeighted
from archsmith.spaces import MobileBlocks
from archsmith.spaces.mobile_blocks import MOBILENET_V2, rounded, scaled
from archsmith.testing.space import SpaceContract
from archsmith.training import ImageClassification, Latency

SMALL = MobileBlocks(blocks=((6, 1, 1), (8, 2, 2)), stem=4, head=16, dropout=0.0, batch_norm_decay=0.9)
IMAGES = Task((3, 32, 32), 10)


def architecture(**changed: Any) -> dict[str, Any]:
    """A network of one block, with parts of the block changed, or of the whole where it has such a key."""
    block = {
        "operation": "mbconv6",
        "kernel": 3,
        "stride": 1,
        "se_ratio": 0,
        "skip": "identity",
        "filters": 4,
        "layers": 2,
    }
    whole: dict[str, Any] = {
        "kind": "mobile_blocks",
        "stem": {"filters": 4, "stride": 1},
        "blocks": [block],
        "head": 8,
        "dropout": 0.0,
        "batch_norm_decay": 0.9,
        "batch_norm_epsilon": 1e-5,
    }
    for name, value in changed.items():
        (block if name in block else whole)[name] = value
    return whole


BAD: dict[str, Any] = {
    "another kind": architecture(kind="nasnet_cell"),
    "a list": [1, 2],
    "a key more": architecture(name="mine"),
    "no blocks": architecture(blocks=[]),
    "blocks that are a number": architecture(blocks=3),
    "a block that is a list": architecture(blocks=[[4, 1, 1]]),
    "an unknown operation": architecture(operation="conv3"),
    "an expansion of 0": architecture(operation="mbconv0"),
    "an expansion of too much": architecture(operation="mbconv17"),
    "an expansion that is no number": architecture(operation="mbconv²"),
    "an operation that is a list": architecture(operation=["conv"]),
    "an even kernel": architecture(kernel=4),
    "a kernel that is true": architecture(kernel=True),
    "a stride of 0": architecture(stride=0),
    "a ratio above 1": architecture(se_ratio=1.5),
    "a ratio that is NaN": architecture(se_ratio=math.nan),
    "an unknown skip": architecture(skip="add"),
    "no filters": architecture(filters=0),
    "filters that are a fraction": architecture(filters=4.0),
    "no layers": architecture(layers=0),
    "too many layers": architecture(layers=65),
    "a stem without stride": architecture(stem={"filters": 4}),
    "no head": architecture(head=0),
    "a dropout of 1": architecture(dropout=1.0),
    "a decay of 1": architecture(batch_norm_decay=1.0),
    "an epsilon of 0": architecture(batch_norm_epsilon=0),
}


class TestMobileBlocks(SpaceContract):
    samples = 4

    def space(self) -> MobileBlocks:
        return SMALL

    def wrong_architectures(self) -> list[Any]:
        return list(BAD.values())


# --- how many there are -----------------------------------------------------------------------------------------------


def test_the_paper_counts_its_space_right() -> None:
    assert space_size(MobileBlocks(blocks=MOBILENET_V2[:5])) == 432**5 == 15_045_919_506_432
    listed = ("conv", "depthwise_conv", "mbconv6")  # the options as the section lists them, with one expansion
    assert space_size(MobileBlocks(blocks=MOBILENET_V2[:1], operations=listed)) == 324
    assert space_size(MobileBlocks()) == 432**7


def test_the_questions_do_not_depend_on_answers() -> None:
    questions = script(MobileBlocks())
    assert questions is not None
    assert len(questions) == 7 * 6
    assert {q.kind for q in questions} == {"operation", "kernel", "se_ratio", "skip", "filters", "layers"}


def test_one_option_alone_is_not_asked() -> None:
    questions = script(MobileBlocks(skips=("identity",), se_ratios=(0.25,)))
    assert questions is not None
    assert {q.kind for q in questions} == {"operation", "kernel", "filters", "layers"}
    assert decode_blocks(MobileBlocks(skips=("identity",), se_ratios=(0.25,)), 3)[0]["se_ratio"] == 0.25


def decode_blocks(space: MobileBlocks, seed: int) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = decode(space, sample(space, Random(seed)))["blocks"]
    return blocks


def test_filters_and_layers_are_relative_to_mobilenet_v2() -> None:
    seen: set[tuple[int, int, int]] = set()
    for seed in range(60):
        for number, block in enumerate(decode_blocks(MobileBlocks(), seed)):
            filters, layers, stride = MOBILENET_V2[number]
            assert block["filters"] in {filters * 3 // 4, filters, filters * 5 // 4}
            assert block["layers"] in {max(1, layers - 1), layers, layers + 1}
            assert block["stride"] == stride
            seen.add((number, block["filters"], block["layers"]))
    assert len(seen) == 5 * 9 + 2 * 6  # of one layer, one fewer is still one


@pytest.mark.parametrize(
    "searcher", [searchers.PPO(minibatch=2), searchers.RegularizedEvolution(population=3, sample=2)]
)
def test_searchers_search_it(searcher: Any) -> None:
    live = searcher.start(SMALL, 0)
    for proposal in live.ask(4):
        decode(SMALL, proposal.genotype)


# --- the published networks -------------------------------------------------------------------------------------------

PUBLISHED = [
    (mnasnet_a1, 3_887_038, 311_579_072),
    (mnasnet_b1, 4_383_312, 314_415_872),
    (mnasnet_small, 2_030_264, 68_339_184),
]


@pytest.mark.parametrize(("network", "parameters", "multiply_adds"), PUBLISHED)
def test_published_networks_are_exact(network: Any, parameters: int, multiply_adds: int) -> None:
    found = network()
    description = describe(found)
    assert (description.parameters, description.multiply_adds) == (parameters, multiply_adds)
    assert NETWORKS[found.name]().architecture == found.architecture
    assert plan_of(found.architecture, found.task).parameters == parameters


def test_depth_multipliers_round_as_the_released_code_does() -> None:
    assert [rounded(n, 1.4) for n in (32, 16, 24, 40, 80, 112, 160, 320)] == [48, 24, 32, 56, 112, 160, 224, 448]
    assert [rounded(n, 0.35) for n in (32, 16, 24)] == [16, 8, 8]  # 11.2 to 8 would lose more than a tenth
    wide = describe(mnasnet_a1(1.4))
    assert round(wide.parameters / 1e6, 1) == 6.1
    assert describe(mnasnet_a1(0.35)).parameters == 1_747_018
    assert mnasnet_a1(1.4).architecture["head"] == 1280


@given(st.integers(1, 2000), st.floats(0.05, 4))
def test_rounding_stays_near(filters: int, factor: float) -> None:
    got = rounded(filters, factor)
    assert got % 8 == 0
    assert got >= max(8, 0.9 * filters * factor)
    assert got <= max(8, filters * factor + 8)


@pytest.mark.parametrize("width", [0, -1, math.nan, True, "1"])
def test_no_such_width(width: Any) -> None:
    with pytest.raises(UsageError, match="width must be a number above 0"):
        scaled(mnasnet_a1().architecture, width)


def test_scaling_by_one_changes_nothing_and_leaves_the_original() -> None:
    small = mnasnet_small().architecture
    before = copy.deepcopy(small)
    assert scaled(small, 1) == small
    scaled(small, 2)
    assert small == before


# --- the layers -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 20), st.integers(1, 20))
def test_the_plan_counts_what_torch_counts(seed: int, channels: int, height: int, width: int) -> None:
    task = Task((channels, height, width), 7)
    found = decode(SMALL, sample(SMALL, Random(seed)))
    plan = plan_of(found, task)
    with torch.device("meta"):
        model = SMALL.build(found, task).model
        counts = count(model, task.input_shape)
    assert plan.parameters == counts.parameters
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    gates = sum(2 * isinstance(m, SqueezeExcite) for m in model.modules())
    assert SMALL.layers_and_depth(found, task) == (len(layers) + gates, len(layers) + gates)


def layers_of(**changed: Any) -> list[MobileLayer]:
    model = SMALL.build(architecture(**changed), IMAGES).model
    return [m for m in model.modules() if isinstance(m, MobileLayer)]


def test_a_bottleneck_expands_and_ends_linearly() -> None:
    layer = layers_of(operation="mbconv6", se_ratio=0.25)[0]
    convolutions = [m for m in layer.body if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.groups, c.kernel_size[0]) for c in convolutions] == [
        (4, 24, 1, 1),
        (24, 24, 24, 3),
        (24, 4, 1, 1),
    ]
    assert isinstance(layer.body[-1], torch.nn.BatchNorm2d)
    (gate,) = (m for m in layer.body if isinstance(m, SqueezeExcite))
    assert gate.reduce.out_features == 1  # a quarter of what the layer reads, not of the 24
    assert expansion("mbconv6") == 6
    assert expansion("conv") is None


def test_skips_add_what_they_say() -> None:
    x = torch.rand(2, 4, 8, 8)
    for skip, stride in (("identity", 1), ("pooling", 1), ("pooling", 2), ("none", 1), ("identity", 2)):
        layer = layers_of(skip=skip, stride=stride)[0].eval()
        added = layer(x) - layer.body(x)
        wanted = torch.zeros_like(added)
        if skip == "pooling":
            wanted = torch.nn.functional.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        elif skip == "identity" and stride == 1:  # an identity of another size is none
            wanted = x
        torch.testing.assert_close(added, wanted)
    assert not layers_of(skip="pooling", filters=6)[0].adds  # nor one of other channels
    assert layers_of(skip="pooling", filters=6)[1].adds


def test_a_gate_is_between_zero_and_one() -> None:
    gate = SqueezeExcite(5, 2)
    x = torch.rand(3, 5, 4, 4) + 0.5
    ratio = gate(x) / x
    assert bool(((ratio > 0) & (ratio < 1)).all())
    torch.testing.assert_close(ratio, ratio.mean((2, 3), keepdim=True).expand_as(ratio))  # one number for a channel


def test_batch_norm_is_as_the_architecture_has_it() -> None:
    for network, momentum, epsilon in ((mnasnet_small().architecture, 0.01, 1e-3), (architecture(), 0.1, 1e-5)):
        model = MobileBlocks().build(network, IMAGES).model
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert {(n.momentum, n.eps) for n in norms} == {(momentum, epsilon)}


def test_weights_are_drawn_with_the_variances_of_the_released_code() -> None:
    torch.manual_seed(0)
    model = mnasnet_a1().build()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 4000:
            fan_out = module.weight.numel() / module.in_channels if module.groups == 1 else module.kernel_size[0] ** 2
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.06)
    bound = 1 / math.sqrt(1000)
    weight = model.get_submodule("classifier").weight
    assert isinstance(weight, torch.Tensor)
    assert 0.99 * bound < float(weight.detach().abs().max()) <= bound


def test_it_learns_in_a_few_steps() -> None:
    torch.manual_seed(0)
    model = build(MobileBlocks.desk(), sample(MobileBlocks.desk(), Random(1)), input_shape=(1, 28, 28), num_classes=2)
    labels = torch.arange(32) % 2
    images = torch.rand(32, 1, 28, 28) + labels[:, None, None, None] * torch.linspace(0, 1, 28)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    right = (model.eval()(images).argmax(1) == labels).float().mean()
    assert right > 0.9  # in evaluation mode, so the running averages have followed


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": ()}, "blocks of MobileBlocks must be a tuple of 1 to 64"),
        ({"blocks": ((16, 1),)}, "a block of MobileBlocks is its filters, layers and stride"),
        ({"blocks": ((16, 0, 1),)}, "layers of a block of MobileBlocks must be a whole number from 1 to 64, got 0"),
        ({"operations": ("mbconv",)}, "operation of MobileBlocks must be conv, depthwise_conv or mbconvN"),
        ({"operations": "conv"}, "operations of MobileBlocks must be a tuple"),
        ({"kernels": (3, 3)}, "kernels of MobileBlocks must be a tuple of different values"),
        ({"kernels": (2,)}, "kernel of MobileBlocks must be odd"),
        ({"se_ratios": (2,)}, "se_ratio of MobileBlocks must be a number from 0"),
        ({"skips": ("max",)}, "skips of MobileBlocks must be of pooling, identity, none, got 'max'"),
        ({"filter_factors": (0,)}, "filter_factors of MobileBlocks must be numbers above 0"),
        ({"filter_factors": (64.0,), "blocks": ((1000, 1, 1),)}, "the widest block of MobileBlocks"),
        ({"layer_changes": (0.5,)}, "layer_changes of MobileBlocks must be a whole number"),
        ({"stem": 0}, "stem filters of MobileBlocks"),
        ({"stem_stride": 9}, "stem stride of MobileBlocks"),
        ({"dropout": -0.1}, "dropout of MobileBlocks must be a number from 0 to below 1"),
        ({"batch_norm_decay": 1}, "batch_norm_decay of MobileBlocks"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MobileBlocks(**options)


def test_lists_of_json_are_the_same_space() -> None:
    assert MobileBlocks(**json.loads(json.dumps({"blocks": SMALL.blocks, "kernels": (3, 5)}))) == MobileBlocks(
        blocks=SMALL.blocks
    )


def test_a_task_without_images_is_refused() -> None:
    with pytest.raises(UsageError, match="MobileBlocks builds networks for images, and the task is a TextTask"):
        SMALL.build(architecture(), TextTask(10, parameters=1000))
    with pytest.raises(UsageError, match=r"reads images \[channels, height, width\], got \(8,\)"):
        SMALL.build(architecture(), Task((8,), 2))


def test_what_is_too_large_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(LimitExceeded, match="parameters, and at most 1,000,000,000 can be built"):
        SMALL.build(architecture(filters=8192, operation="mbconv16"), IMAGES)
    with pytest.raises(LimitExceeded, match="numbers for each image") as refusal:
        SMALL.build(mnasnet_a1().architecture, Task((3, 8192, 8192), 10))
    assert refusal.value.reason == "memory"


# --- what else can be done with it ------------------------------------------------------------------------------------


def test_the_drawing_has_a_frame_for_each_block_and_an_arc_for_each_skip() -> None:
    network = mnasnet_a1()
    diagram = network.space.diagram(network.architecture)  # type: ignore[attr-defined]
    assert [node.group for node in diagram.nodes].count("block 3") == 4
    assert sum(node.role == "conv" and bool(node.group) for node in diagram.nodes) == 16
    skips = [(edge.source, edge.target) for edge in diagram.edges if edge.skip]
    assert len(skips) == sum(block["layers"] - 1 for block in network.architecture["blocks"]) == 9
    assert "MBConv6 3×3 / 2" in {node.label for node in diagram.nodes}
    assert "40 filters, SE 0.25" in {node.detail for node in diagram.nodes}


def test_where_it_is_for_is_said_by_its_strides() -> None:
    assert MobileBlocks().task == Task((3, 224, 224), 1000)
    assert MobileBlocks.desk().task == replace(MobileBlocks.desk(), head=1280).task == Task()


def test_it_is_written_as_source_that_computes_the_same() -> None:
    from archsmith._export.network_source import network_source

    torch.manual_seed(0)
    found = architecture(operation="mbconv3", se_ratio=0.25, skip="pooling")
    model = SMALL.build(found, Task((1, 9, 7), 3)).model.eval()
    text, state = network_source(model, "A mobile network.")
    scope: dict[str, Any] = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    exec(text, scope)
    again = scope["Network"]().eval()
    again.load_state_dict(state)
    images = torch.rand(2, 1, 9, 7)
    assert torch.equal(again(images), model(images))


# --- the recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnasnet", "mnasnet-hard"])
def test_the_recipe_has_the_papers_numbers(name: str) -> None:
    recipe = get_recipe(name)
    assert (recipe.scale, recipe.budget.trials, space_size(recipe.space)) == ("paper", 8000, 432**7)
    assert isinstance(recipe.evaluator, ImageClassification)
    assert (recipe.evaluator.epochs, recipe.evaluator.size, recipe.evaluator.optimizer) == (5, 224, "rmsprop")
    assert recipe.searcher == searchers.PPO()
    exponents = (0.0, -1.0) if name.endswith("hard") else (-0.07, -0.07)
    assert recipe.reward == LatencyWeighted(75, *exponents)
    assert recipe.finish is not None
    assert recipe.finish.top == 15
    last = replace(recipe.evaluator, epochs=recipe.finish.epochs or 0, **recipe.finish.final)
    falls = sum(at * last.epochs < last.epochs for at in last.decay_at)
    assert 0.97**falls < 0.014  # by 3 % every 2.4 epochs, from the sixth on
    assert last.decay_at[0] * last.epochs == pytest.approx(5 + 2.4)


@pytest.mark.parametrize("name", ["mnasnet", "mnasnet-desk"])
def test_a_child_of_the_recipe_takes_its_steps(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels)
    recipe = get_recipe(name)
    assert isinstance(recipe.evaluator, ImageClassification)
    few: dict[str, Any] = {
        "data": str(tmp_path / "few.npz"),
        "epochs": 2,
        "batch_size": 8,
        "validation": 0.25,
        "max_train": None,
    }
    if name == "mnasnet":
        few["size"] = 32  # as ImageNet's are, but for the size
    evaluator = replace(recipe.evaluator, **few, latency=Latency(repeats=3))
    run = search(recipe.space, evaluator, searcher=recipe.searcher, reward=recipe.reward, trials=1, store="memory://")
    assert run.best is not None
    assert run.best.result is not None
    assert {"accuracy", "latency", "parameters"} <= set(run.best.result.metrics)
    assert run.best.reward is not None
    assert run.best.reward >= 0
