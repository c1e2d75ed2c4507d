"""Residual networks: the published sizes, the points of the space, what is refused, what a child computes."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from archsmith import build, describe, discovered, export, search, searchers
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.space import decode, sample
from archsmith.nn.count import count
from archsmith.nn.resnet import resnet20
from archsmith.nn.wide_resnet import wrn_40_2
from archsmith.spaces import ResidualNetwork
from archsmith.spaces.residual_network.network import Block, Network
from archsmith.testing.space import SpaceContract
from archsmith.training import ImageClassification

SMALL = ResidualNetwork(
    stages=(1, 2), depths=(1, 2), widths=(2, 4), kernels=(3, 5), stem_filters=(2, 4), bottlenecks=(0.5, 1.0)
)
STAGE = {"block": "basic", "depth": 1, "width": 4, "kernel": 3, "stride": 1, "expansion": 1.0, "se_ratio": 0.0}


def architecture(**changed: Any) -> dict[str, Any]:
    """A network of one stage, with parts of the stage changed, or of the whole where it has such a key."""
    stage = dict(STAGE)
    whole: dict[str, Any] = {
        "kind": "residual_network",
        "activation": "relu",
        "preactivation": False,
        "shortcut": "conv",
        "dropout": 0.0,
        "stem": {"filters": 2, "kernel": 3, "stride": 1, "pool": False},
        "head": 0,
        "stages": [stage],
    }
    for name, value in changed.items():
        (stage if name in stage else whole)[name] = value
    return whole


WRONG: dict[str, Any] = {
    "another kind": architecture(kind="mobile_blocks"),
    "a list": [1, 2],
    "a key more": architecture(name="mine"),
    "no stages": architecture(stages=[]),
    "stages that are a number": architecture(stages=3),
    "a stage that is a list": architecture(stages=[[1, 2]]),
    "an unknown block": architecture(block="dense"),
    "a block that is a list": architecture(block=["basic"]),
    "no depth": architecture(depth=0),
    "a width that is a fraction": architecture(width=4.0),
    "an even kernel": architecture(kernel=4),
    "a stride that is true": architecture(stride=True),
    "an expansion of 0": architecture(expansion=0),
    "a ratio above 1": architecture(se_ratio=1.5),
    "an unknown activation": architecture(activation="tanh"),
    "a preactivation that is 1": architecture(preactivation=1),
    "an unknown shortcut": architecture(shortcut="none"),
    "a dropout of 1": architecture(dropout=1.0),
    "a head below 0": architecture(head=-1),
    "a stem without a stride": architecture(stem={"filters": 2, "kernel": 3, "pool": False}),
    "a pool that is 0": architecture(stem={"filters": 2, "kernel": 3, "stride": 1, "pool": 0}),
}


class TestResidualNetwork(SpaceContract):
    samples = 8

    def space(self) -> ResidualNetwork:
        return SMALL

    def wrong_architectures(self) -> list[Any]:
        return list(WRONG.values())


# --- networks that people know ----------------------------------------------------------------------------------------

PARAMETERS = {
    "resnet8": 78_042,
    "resnet20": 272_474,
    "resnet20_pad": 269_722,
    "resnet56": 855_770,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "wide_resnet50_2": 68_883_240,
    "se_resnet50": 28_088_024,
    "wrn_16_8": 10_961_370,
    "wrn_28_10": 36_479_194,
    "wrn_40_2": 2_243_546,
    "mobilenet_v2": 3_504_872,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_networks_have_their_published_sizes(name: str) -> None:
    network = discovered.NETWORKS[name]()
    with torch.device("meta"):
        model = Network(network.architecture, network.task)
    assert count(model, network.task.input_shape).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in discovered.RESIDUAL if name != "mobilenet_v2"])
def test_known_networks_are_points_of_the_default_space(name: str) -> None:
    network = discovered.NETWORKS[name]()
    assert network.genotype is not None
    assert decode(ResidualNetwork(), network.genotype) == network.architecture


@pytest.mark.parametrize("name", ["resnet10_narrow", "resnet18_narrow"])
def test_networks_for_a_desk_are_points_of_the_space_for_a_desk(name: str) -> None:
    space, network = ResidualNetwork.desk(), discovered.NETWORKS[name]()
    assert decode(space, space.genotype(network.architecture)) == network.architecture


@pytest.mark.parametrize("name", ["resnet20", "wrn_40_2"])
def test_a_point_computes_what_the_network_written_by_hand_computes(name: str) -> None:
    torch.manual_seed(0)
    task = Task()
    ours = Network(discovered.NETWORKS[name]().architecture, task)
    by_hand = {"resnet20": resnet20, "wrn_40_2": wrn_40_2}[name](task)

    # Both list their layers in order, but for shortcuts: pair the weights by order within each kind.
    def ordered(model: nn.Module) -> list[nn.Module]:
        modules = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
        return [m for n, m in modules if "shortcut" not in n] + [m for n, m in modules if "shortcut" in n]

    for mine, theirs in zip(ordered(ours), ordered(by_hand), strict=True):
        assert type(mine) is type(theirs)
        if isinstance(theirs, nn.BatchNorm2d):
            nn.init.uniform_(theirs.weight, 0.5, 1.5)
        mine.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), by_hand.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_network_outside_the_space_is_refused_by_the_name_of_the_choice() -> None:
    resnet50 = discovered.NETWORKS["resnet50"]().architecture
    with pytest.raises(UsageError, match=r"no point of the space: stem\.kernel is 7"):
        replace(ResidualNetwork(), stem_kernels=(3,)).genotype(resnet50)
    with pytest.raises(UsageError, match=r"stages is 7, not one of 3, 4"):
        ResidualNetwork().genotype(discovered.NETWORKS["mobilenet_v2"]().architecture)
    with pytest.raises(UsageError, match=r"dropout is 0\.5, and the space has 0\.0"):
        ResidualNetwork().genotype({**resnet50, "dropout": 0.5})


@pytest.mark.parametrize("seed", range(8))
def test_every_point_is_found_again_from_its_architecture(seed: int) -> None:
    space = ResidualNetwork()
    genotype = sample(space, Random(seed))
    assert space.genotype(json.loads(json.dumps(decode(space, genotype)))) == genotype


# --- what a child computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["basic", "bottleneck", "inverted"])
@pytest.mark.parametrize("se_ratio", [0.0, 0.5])
def test_a_block_starts_as_its_shortcut(block: str, se_ratio: float) -> None:
    torch.manual_seed(0)
    stage = {**STAGE, "block": block, "se_ratio": se_ratio, "depth": 2}
    network = Network(architecture(stages=[stage]), Task((3, 8, 8), 10)).eval()
    second = network.blocks[1]  # the shape stays
    assert isinstance(second, Block)
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(second(x), x)


@pytest.mark.parametrize("shortcut", ["conv", "pool", "pad"])
@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("side", [1, 7, 8])
def test_strides_round_up(shortcut: str, preactivation: bool, side: int) -> None:
    stages = [{**STAGE, "block": block, "stride": 2} for block in ("basic", "bottleneck", "inverted")]
    network = Network(
        architecture(stages=stages, shortcut=shortcut, preactivation=preactivation), Task((3, side, side), 10)
    ).eval()
    sizes = []
    for block in network.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[2]))
    network(torch.rand(1, 3, side, side))
    expected = [-(-side // 2), -(-side // 4), -(-side // 8)]
    assert sizes == expected


def test_other_tasks_and_networks_that_are_too_large_are_refused() -> None:
    with pytest.raises(UsageError, match="the task is a TextTask"):
        ResidualNetwork().build(architecture(), TextTask(10, hidden=4))
    with pytest.raises(UsageError, match=r"\[channels, height, width\]"):
        ResidualNetwork().build(architecture(), Task((3,), 10))
    with pytest.raises(LimitExceeded, match="parameters"):
        ResidualNetwork().build(architecture(width=8192, depth=100), Task())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ()}, "stages of ResidualNetwork must be a tuple of different values"),
        ({"widths": (8, 8)}, "widths of ResidualNetwork must be a tuple of different values"),
        ({"depths": (0,)}, "depths of ResidualNetwork must be a whole number"),
        ({"kernels": (2,)}, "must be odd"),
        ({"blocks": ("dense",)}, "blocks of ResidualNetwork must be one of basic, bottleneck, inverted"),
        ({"expansions": (0.0,)}, "must be a number above 0"),
        ({"widths": (4096,)}, "the width of the last stage"),
        ({"stem_pools": (1,)}, "stem_pools of ResidualNetwork must be one of False, True"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ResidualNetwork(**options)


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_a_search_describes_draws_and_exports(tmp_path: Any) -> None:
    run = search(
        SMALL,
        replace(ImageClassification.desk("digits", epochs=1, max_train=128), keep_weights=True),
        searcher=searchers.RegularizedEvolution.small(),
        trials=3,
        store=f"sqlite:///{tmp_path}/runs.db",
        name="residual",
    )
    assert run.best is not None, [t.result and t.result.failure for t in run.trials()]
    assert run.report(tmp_path / "page.html").exists()
    for form in ("pytorch", "source", "onnx"):
        export(run, path=tmp_path / form, format=form)  # every export compares its outputs before it is written


def test_a_known_network_is_described_by_name() -> None:
    described = describe("resnet50")
    assert described.parameters == 25_557_032
    assert described.layers == 49
    assert describe("resnet20").layers == 19


def test_an_architecture_builds_from_json() -> None:
    genotype = sample(SMALL, Random(1))
    model = build(SMALL, json.loads(genotype.canonical), input_shape=(1, 9, 7), num_classes=3)
    assert model(torch.rand(2, 1, 9, 7)).shape == (2, 3)
    before = copy.deepcopy(decode(SMALL, genotype))
    SMALL.build(before, Task())
    assert before == decode(SMALL, genotype)
