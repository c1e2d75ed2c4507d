"""NASNet and AmoebaNet as modules: the published sizes, each part against its definition, training and export."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import archsmith as smith
from archsmith._export.network_source import network_source
from archsmith.core.child import Child, Task
from archsmith.core.errors import UsageError
from archsmith.core.space import build, decode, identity, sample
from archsmith.discovered import (
    NETWORKS,
    Discovered,
    amoebanet_a,
    amoebanet_a_large,
    amoebanet_b,
    amoebanet_c,
    amoebanet_d,
    nas_conv_v1,
    nasnet_a,
    nasnet_a_large,
    nasnet_a_mobile,
)
from archsmith.nn.count import count, count_parameters
from archsmith.nn.nasnet import Cell, DropPath, FactorisedReduction, NASNet, path
from archsmith.nn.nasnet_architecture import CELLS
from archsmith.nn.nasnet_layers import OPERATIONS, Chain, Shape, halve, operation
from archsmith.nn.nasnet_plan import plan_of, reductions
from archsmith.spaces import NASNetCell
from archsmith.spaces.nasnet_cell import scaled
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification

CIFAR = Task((3, 32, 32), 10)


def outline(network: Discovered, task: Task | None = None) -> NASNet:
    """The module without its memory."""
    with torch.device("meta"):
        model = network.build(task=task)
    assert isinstance(model, NASNet)
    return model


# --- the published sizes ----------------------------------------------------------------------------------------------

SIZES: list[tuple[Callable[[], Discovered], tuple[int, ...], int, int | None]] = [
    (nasnet_a, (3, 32, 32), 3_346_538, 544_333_312),
    (nasnet_a_mobile, (3, 224, 224), 5_289_978, 563_638_816),
    (lambda: nasnet_a(4, 44, "imagenet"), (3, 224, 224), 5_289_978, 563_638_816),
    (nasnet_a_large, (3, 331, 331), 88_753_150, 23_783_414_658),  # published 88.9M, 23.8B
    (lambda: amoebanet_a(6, 32), (3, 32, 32), 2_567_754, None),
    (amoebanet_a, (3, 32, 32), 3_218_266, None),
    (amoebanet_a_large, (3, 331, 331), 86_718_797, 23_133_663_507),  # published 86.7M, 23.1B
]
ROUNDED: list[tuple[Callable[[], Discovered], tuple[int, ...], str, str | None]] = [
    (lambda: nasnet_a(7, 96), (3, 32, 32), "32.6M", None),
    (lambda: nasnet_a(5, 64, "imagenet"), (3, 299, 299), "12.3M", None),
    (lambda: nasnet_a(7, 80, "imagenet"), (3, 299, 299), "24.6M", None),
    (lambda: amoebanet_a(6, 448, "imagenet"), (3, 299, 299), "468.2M", "104B"),
    (lambda: amoebanet_c(6, 228, "imagenet"), (3, 331, 331), "155.3M", "41B"),
]


@pytest.mark.parametrize(("network", "shape", "parameters", "multiply_adds"), SIZES)
def test_published_networks_have_their_size(
    network: Callable[[], Discovered], shape: tuple[int, ...], parameters: int, multiply_adds: int | None
) -> None:
    found = network()
    assert found.task.input_shape == shape  # type: ignore[union-attr]
    counts = count(outline(found), shape)
    assert counts.parameters == parameters
    assert multiply_adds is None or counts.multiply_adds == multiply_adds


@pytest.mark.parametrize(("network", "shape", "parameters", "multiply_adds"), ROUNDED)
def test_other_published_sizes_to_the_digits_given(
    network: Callable[[], Discovered], shape: tuple[int, ...], parameters: str, multiply_adds: str | None
) -> None:
    plan = plan_of(network().architecture, Task(shape, 10 if shape[1] == 32 else 1000))
    assert f"{plan.parameters / 1e6:.1f}M" == parameters
    assert multiply_adds is None or f"{plan.multiply_adds / 1e9:.0f}B" == multiply_adds


def test_without_the_older_input_nasnet_has_fewer_parameters() -> None:
    """What a widely copied genotype leaves out (3.1M in place of the published 3.3M)."""
    architecture = nasnet_a().architecture
    architecture["normal"]["concatenated"].remove(1)
    assert plan_of(architecture, CIFAR).parameters == 3_117_866


def test_the_auxiliary_head_is_counted_beside_the_network() -> None:
    model = outline(nasnet_a(auxiliary=0.4))
    assert sum(p.numel() for p in model.parameters()) == 3_346_538 + 1_631_498
    assert count_parameters(model) == 3_346_538
    assert plan_of(nasnet_a(auxiliary=0.4).architecture, CIFAR).auxiliary_parameters == 1_631_498
    assert model.auxiliary_weight == 0.4
    assert smith.describe(nasnet_a(auxiliary=0.4)).parameters == 3_346_538


def test_running_statistics_are_as_many_as_scales_and_shifts() -> None:
    model = outline(nasnet_a_mobile())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(p.numel() for m in norms for p in m.parameters()) == 2 * 36_738 // 2
    assert sum(m.running_mean.numel() + m.running_var.numel() for m in norms) == 36_738  # type: ignore[union-attr]


@settings(deadline=None, max_examples=10)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["cifar", "imagenet"]),
    st.booleans(),
    st.sampled_from([(3, 32, 32), (1, 9, 14)]),
)
def test_the_plan_counts_what_is_built(seed: int, form: str, bottleneck: bool, shape: tuple[int, ...]) -> None:
    rng = Random(seed)
    space = NASNetCell(
        blocks=rng.randint(1, 4),
        operations=OPERATIONS,
        form=form,
        cells=rng.randint(1, 2),
        filters=rng.randint(8, 13),
        bottleneck=bottleneck,
        skip_reduction_input=rng.random() < 0.5,
        auxiliary=0.4,
    )
    architecture, task = decode(space, sample(space, rng)), Task(shape, 7)
    with torch.device("meta"):
        model = build(space, architecture, task).model
    plan, counts = plan_of(architecture, task), count(model, shape)
    assert (plan.parameters, plan.multiply_adds) == (counts.parameters, counts.multiply_adds)
    assert plan.auxiliary_parameters == sum(p.numel() for p in model.auxiliary.parameters())  # type: ignore[union-attr]
    assert isinstance(model, NASNet)
    outputs = model.endpoints(torch.zeros(2, *shape, device="meta"))
    assert [tuple(x.shape[1:]) for x in outputs[1:]] == [tuple(cell.out) for cell in plan.cells]
    layers, depth = plan.depth()
    assert layers == sum(isinstance(m, nn.Conv2d) for n, m in model.named_modules() if not n.startswith("auxiliary"))
    assert 1 < depth <= layers


# --- the skeleton -----------------------------------------------------------------------------------------------------


def shapes(network: Discovered) -> dict[str, tuple[int, ...]]:
    assert isinstance(network.task, Task)
    outputs = outline(network).endpoints(torch.zeros(1, *network.task.input_shape, device="meta"))
    names = ["stem", *(cell.name for cell in plan_of(network.architecture, network.task).cells)]
    return {name: tuple(x.shape[1:]) for name, x in zip(names, outputs, strict=True)}


def test_the_outputs_of_the_mobile_network() -> None:
    found = shapes(nasnet_a_mobile())
    assert found["stem 1"] == (88, 28, 28)
    assert {found[f"cell {k}"] for k in range(4)} == {(264, 28, 28)}
    assert found["reduction 0"] == (352, 14, 14)
    assert {found[f"cell {k}"] for k in range(4, 8)} == {(528, 14, 14)}
    assert found["reduction 1"] == (704, 7, 7)
    assert {found[f"cell {k}"] for k in range(8, 12)} == {(1056, 7, 7)}


def test_the_outputs_of_the_cifar_network() -> None:
    found = shapes(nasnet_a())
    assert found["stem"] == (96, 32, 32)
    assert [found[name][0] for name in ("cell 0", "reduction 0", "cell 6", "reduction 1", "cell 17")] == [
        192, 256, 384, 512, 768,
    ]  # fmt: skip
    assert [found[name][1] for name in ("cell 5", "reduction 0", "cell 11", "reduction 1", "cell 17")] == [
        32, 16, 16, 8, 8,
    ]  # fmt: skip


def test_the_outputs_of_the_large_network() -> None:
    found = shapes(nasnet_a_large())
    expected = {
        "stem 1": (336, 42, 42), "cell 0": (1008, 42, 42), "reduction 0": (1344, 21, 21), "cell 6": (2016, 21, 21),
        "reduction 1": (2688, 11, 11), "cell 17": (4032, 11, 11),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_where_reductions_stand() -> None:
    assert [reductions(n) for n in (6, 4, 2)] == [(6, 12), (4, 8), (2, 4)]
    names = [cell.name for cell in plan_of(nasnet_a(2, 8).architecture, CIFAR).cells]
    assert names == [
        "cell 0", "cell 1", "reduction 0", "cell 2", "cell 3", "reduction 1", "cell 4", "cell 5",
    ]  # fmt: skip


@pytest.mark.parametrize("skips", [False, True])
def test_what_the_cell_after_a_reduction_reads(skips: bool) -> None:
    """With `skip_reduction_input` the older input of the reduction cell itself, else its main one; no other changes."""
    network = nasnet_a(2, 8, skip_reduction_input=skips)
    cells = plan_of(network.architecture, CIFAR).cells
    reads = {cell.name: (cell.current, cell.older) for cell in cells}
    # Output 0 is the stem's, and k + 1 that of the k-th cell.
    assert reads["cell 0"] == (0, 0)
    assert reads["cell 1"] == (1, 0)
    assert reads["reduction 0"] == (2, 1)
    assert reads["cell 2"] == (3, 1 if skips else 2)
    assert reads["cell 3"] == (4, 3)
    assert reads["reduction 1"] == (5, 4)
    assert reads["cell 4"] == (6, 4 if skips else 5)
    assert reads["cell 5"] == (7, 6)
    assert plan_of(network.architecture, CIFAR).parameters == plan_of(nasnet_a(2, 8).architecture, CIFAR).parameters


def test_the_stem_of_the_imagenet_form() -> None:
    plan = plan_of(nasnet_a_mobile().architecture, Task((3, 224, 224), 1000))
    convolution, norm = plan.stem
    assert (convolution.out, convolution.stride, convolution.pads) == ((32, 111, 111), (2, 2), (0, 0, 0, 0))
    assert norm.kind == "norm"
    assert [(cell.name, cell.current, cell.older) for cell in plan.cells[:3]] == [
        ("stem 0", 0, 0), ("stem 1", 1, 0), ("cell 0", 2, 1),
    ]  # fmt: skip
    assert plan_of(nasnet_a_large().architecture, Task((3, 331, 331), 1000)).stem[0].out == (96, 165, 165)


def test_batch_norm_and_dropout_are_those_of_the_form() -> None:
    for network, momentum, epsilon, dropout in ((nasnet_a(), 0.1, 1e-5, 0), (nasnet_a_mobile(), 0.0003, 1e-3, 0.5)):
        model = outline(network)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(m.momentum, m.eps, m.affine) for m in norms} == {(momentum, epsilon, True)}
        assert getattr(model.dropout, "p", 0) == dropout
        assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_weights_are_drawn_by_fan_out() -> None:
    torch.manual_seed(0)
    model = nasnet_a(2, 16).build()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d) or module.weight.numel() < 2_000:
            continue
        fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
        deviation = math.sqrt(2.6 / fan_out)
        assert module.weight.abs().max() <= 2 * deviation + 1e-6, name
        # Variance scaling with factor 2 is what is left of 2.6 after the cut at two deviations.
        assert module.weight.var().item() * fan_out == pytest.approx(2, rel=0.15), name


def test_maps_smaller_than_the_auxiliary_window() -> None:
    network = nasnet_a(1, 4, auxiliary=0.4)
    model = network.build(input_shape=(1, 8, 8), num_classes=3).train()
    logits, auxiliary = model.forward_with_auxiliary(torch.rand(4, 1, 8, 8))
    assert logits.shape == auxiliary.shape == (4, 3)


# --- the operations, each against its definition ----------------------------------------------------------------------


def same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: int = 1, value: float = 0.0) -> Tensor:
    """TensorFlow's SAME padding, written out."""
    pads: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max((math.ceil(size / s) - 1) * s + (k - 1) * dilation + 1 - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([("avg", 3), ("max", 2), ("max", 3), ("max", 5), ("max", 7)]),
    st.sampled_from([1, 2]),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_pooling_is_over_what_lies_in_the_map(window: tuple[str, int], stride: int, height: int, width: int) -> None:
    kind, size = window
    chain = Chain(Shape(2, height, width)).pool(kind, (size, size), (stride, stride))
    x = torch.randn(3, 2, height, width, dtype=torch.float64)
    found = path(chain.path())(x)
    if kind == "max":
        expected = F.max_pool2d(same(x, (size, size), (stride, stride), value=-math.inf), size, stride)
    else:
        inside = same(torch.ones_like(x), (size, size), (stride, stride))
        expected = F.avg_pool2d(same(x, (size, size), (stride, stride)), size, stride) / F.avg_pool2d(
            inside, size, stride
        )
    assert torch.allclose(found, expected)
    assert tuple(found.shape[1:]) == chain.shape == (2, -(-height // stride), -(-width // stride))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 7), (7, 1)]),
    st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1)]),
    st.sampled_from([1, 2]),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_convolutions_are_padded_as_tensorflow_does(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: int, height: int, width: int
) -> None:
    chain = Chain(Shape(2, height, width)).conv(4, kernel, stride, dilation=dilation)
    module = path(chain.path()).double()
    x = torch.randn(2, 2, height, width, dtype=torch.float64)
    weight = next(module.parameters())
    expected = F.conv2d(same(x, kernel, stride, dilation), weight, stride=stride, dilation=dilation)
    assert torch.allclose(module(x), expected)
    assert tuple(expected.shape[1:]) == chain.shape


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (8, 5), (1, 1), (2, 1)])
def test_a_factorised_reduction_reads_every_other_pixel_twice(height: int, width: int) -> None:
    module = FactorisedReduction(halve(Shape(3, height, width), 5, relu=False)).eval().double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    first, second = (next(m.weight for m in half if isinstance(m, nn.Conv2d)) for half in (module.first, module.second))  # type: ignore[union-attr]
    assert (len(first), len(second)) == (2, 3)  # an odd one goes to the second, as released
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    parts = [F.conv2d(x[:, :, ::2, ::2], first), F.conv2d(shifted[:, :, ::2, ::2], second)]
    assert torch.allclose(module(x), module.norm(torch.cat(parts, 1)))


def kinds(name: str, shape: Shape, filters: int, stride: int = 1, bottleneck: bool = False) -> list[str]:
    """The layers of an operation: "conv 3x3 dw" and the like."""
    found = []
    for layer in operation(name, shape, filters, stride, bottleneck):
        text = layer.kind
        if layer.kind == "conv":
            text = "{}x{}".format(*layer.kernel) + (" dw" if layer.groups > 1 else "")
            text += f" rate {layer.dilation}" if layer.dilation > 1 else ""
            text += " / {}x{}".format(*layer.stride) if layer.stride != (1, 1) else ""
            text += f" {layer.out.channels}" if bottleneck else ""
        found.append(text)
    return found


def test_the_order_of_layers() -> None:
    same_shape, wide = Shape(8, 6, 6), Shape(12, 6, 6)
    assert kinds("identity", same_shape, 8) == []
    assert kinds("identity", same_shape, 8, stride=2) == ["relu", "1x1 / 2x2", "norm"]
    assert kinds("identity", wide, 8) == ["relu", "1x1", "norm"]
    assert kinds("sep_conv_5x5", wide, 8, stride=2) == [
        "relu", "5x5 dw / 2x2", "1x1", "norm", "relu", "5x5 dw", "1x1", "norm",
    ]  # fmt: skip
    assert kinds("dil_sep_conv_3x3", same_shape, 8) == [
        "relu", "3x3 dw rate 2", "1x1", "norm", "relu", "3x3 dw rate 2", "1x1", "norm",
    ]  # fmt: skip
    assert kinds("conv_1x7_7x1", same_shape, 8, stride=2) == ["relu", "1x7 / 1x2", "norm", "relu", "7x1 / 2x1", "norm"]
    assert kinds("dil_conv_3x3", same_shape, 8) == ["relu", "3x3 rate 2", "norm"]
    assert kinds("conv_1x1", same_shape, 8) == ["relu", "1x1", "norm"]
    assert kinds("max_pool_3x3", same_shape, 8) == ["max_pool"]
    assert kinds("avg_pool_3x3", wide, 8) == ["avg_pool", "1x1", "norm"]


def test_bottlenecks_are_those_of_the_released_code() -> None:
    shape = Shape(16, 6, 6)
    three = ["relu", "1x1 4", "norm", "relu", "3x3 4", "norm", "relu", "1x1 16", "norm"]
    assert kinds("conv_3x3", shape, 16, bottleneck=True) == three
    assert kinds("conv_1x7_7x1", shape, 16, bottleneck=True)[4:8] == ["1x7 4", "norm", "relu", "7x1 4"]
    assert kinds("conv_1x3_3x1", shape, 16, bottleneck=True)[1] == "1x1 6"  # 3 F / 8
    assert kinds("conv_1x1", shape, 16, bottleneck=True) == ["relu", "1x1 16", "norm"]
    assert kinds("conv_3x3", Shape(3, 6, 6), 3, bottleneck=True) == ["relu", "3x3 3", "norm"]  # too narrow for one


def test_a_cell_computes_its_blocks() -> None:
    """Against the same modules put together by hand."""
    architecture = nasnet_a(1, 4).architecture
    for kind in ("normal", "reduction"):
        architecture[kind] = {
            "blocks": [
                {"inputs": [0, 1], "operations": ["sep_conv_3x3", "conv_1x1"], "combination": "concat"},
                {"inputs": [2, 0], "operations": ["identity", "max_pool_3x3"], "combination": "add"},
            ],
            "concatenated": [1, 2, 3],
        }
    plan = plan_of(architecture, Task((3, 8, 8), 2)).cells[2]
    assert plan.name == "cell 1"
    cell = Cell(plan, 1.0).eval()
    # A cell of f filters gives 4 f: state 1, two times f, f. The one before is a reduction to 8, the older one of 4.
    current, older = (torch.randn(2, *shape) for shape in ((32, 4, 4), (16, 8, 8)))
    assert plan.prepared[1] == halve(Shape(16, 8, 8), 8, relu=True)
    relu, (a, b, c, d) = F.relu, [m for pair in cell.operations for m in pair]  # type: ignore[attr-defined]
    s0, s1 = cell.prepared[0](current), cell.prepared[1](older)
    s2 = torch.cat([a(relu(s0)), b(relu(s1))], 1)
    s3 = c(relu(s2)) + d(s0)  # the identity has to bring 16 channels to 8
    assert torch.allclose(cell(current, older), torch.cat([s1, s2, s3], 1))


# --- drop-path --------------------------------------------------------------------------------------------------------


def test_drop_path_drops_whole_examples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.6).train()
    x = torch.ones(20_000, 2, 1, 1)
    assert torch.equal(drop(x), x)  # before training has begun
    drop.keep = 0.6
    y = drop(x)
    assert torch.equal(y[:, 0], y[:, 1])
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert y.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(drop.eval()(x), x)


def test_the_schedule_of_drop_path() -> None:
    """v3: 1 - min(1, step / total) (1 - keep of the cell), which is 1 - (cell + 1) / cells (1 - k)."""
    for network, number in ((nasnet_a(2, 8), 3 * 2 + 2), (nasnet_a(2, 8, "imagenet", drop_path_keep=0.7), 3 * 2 + 4)):
        model = network.build(input_shape=(3, 32, 32))
        k = network.architecture["skeleton"]["drop_path_keep"]
        for done in (0.0, 0.25, 1.0, 1.5):
            model.set_progress(done)  # type: ignore[operator]
            for index, cell in enumerate(model.cells):  # type: ignore[arg-type]
                of_cell = 1 - (index + 1) / number * (1 - k)
                keeps = {m.keep for m in cell.modules() if isinstance(m, DropPath)}
                assert list(keeps) == [pytest.approx(1 - min(1, done) * (1 - of_cell))]
    assert k == 0.7


def test_identities_are_never_dropped() -> None:
    model = nasnet_a(1, 4).build()
    for cell, kind in zip(model.cells, "nrnrn", strict=True):  # type: ignore[arg-type]
        dropped = [any(isinstance(m, DropPath) for m in op.modules()) for pair in cell.operations for op in pair]
        blocks = nasnet_a().architecture["normal" if kind == "n" else "reduction"]["blocks"]
        assert dropped == [name != "identity" for block in blocks for name in block["operations"]]


def test_a_network_without_drop_path_has_none() -> None:
    model = nasnet_a(1, 4, drop_path_keep=1.0).build()
    assert not [m for m in model.modules() if isinstance(m, DropPath)]


# --- training ---------------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """Records what the loop tells a model. Its auxiliary head is a bias alone."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.auxiliary = nn.Linear(64, 10)
        self.auxiliary_weight = 0.4
        self.told: list[float] = []

    def set_progress(self, done: float) -> None:
        self.told.append(done)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.features(x)
        return logits

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self(x), None if self.auxiliary_weight == 0 else self.auxiliary(x.flatten(1))


def test_the_loop_tells_how_far_training_is_and_trains_the_head() -> None:
    config = replace(ImageClassification.desk("digits", epochs=2, max_train=200), precision="fp32")
    torch.manual_seed(0)
    model = Watched()
    before = copy.deepcopy(model.auxiliary.state_dict())
    result = config.train(Child(model), RecordingContext())
    steps = math.ceil(len(config.splits().train) / config.batch_size)
    assert model.told == pytest.approx([k / (2 * steps) for k in range(2 * steps)])
    assert not torch.equal(model.auxiliary.weight, before["weight"])
    assert result.metrics["parameters"] == 650
    torch.manual_seed(0)
    alone = Watched()
    alone.auxiliary_weight = 0
    other = config.train(Child(alone), RecordingContext())
    # The head shares nothing with the rest here, so the rest learns the same, and the loss told is that of the rest.
    assert other.metrics["train_loss"] == result.metrics["train_loss"]
    assert torch.equal(alone.auxiliary.weight, before["weight"])


def test_a_small_network_learns_with_all_of_it() -> None:
    config = replace(ImageClassification.desk("digits", epochs=3), precision="fp32")
    network = nasnet_a(1, 4, drop_path_keep=0.7, auxiliary=0.4)
    torch.manual_seed(0)
    child = build(network.space, network.architecture, config.task())
    result = config.train(child, RecordingContext())
    assert result.metrics["accuracy"] > 0.6
    head = child.model.auxiliary
    assert isinstance(head, nn.Module)
    assert head.classifier.bias.abs().max() > 0  # type: ignore[union-attr, operator]
    assert not child.model.training


def test_channels_last_stays_channels_last() -> None:
    model = nasnet_a(1, 4).build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for output in model.endpoints(image):
        assert output.is_contiguous(memory_format=torch.channels_last)


# --- export -----------------------------------------------------------------------------------------------------------


def trained(model: nn.Module) -> nn.Module:
    """With running statistics that are not those of the beginning."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.eval()


@pytest.mark.parametrize("network", [nasnet_a, amoebanet_b, amoebanet_c, amoebanet_d])
@pytest.mark.parametrize("form", ["cifar", "imagenet"])
def test_the_source_computes_the_same(network: Callable[..., Discovered], form: str) -> None:
    model = trained(network(1, 8, form, auxiliary=0.4).build(input_shape=(3, 17, 20), num_classes=3))
    text, state = network_source(model, "A network.")
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": F}
    exec(text, scope)
    written = scope["Network"]().eval()
    written.load_state_dict(state)
    images = torch.rand(2, 3, 17, 20)
    with torch.no_grad():
        assert torch.equal(written(images), model(images))
    assert "auxiliary" not in text
    assert "drop" not in text or form == "imagenet"  # the dropout before the classifier


def test_onnx_computes_the_same() -> None:
    runtime = pytest.importorskip("onnxruntime")
    from archsmith.nn.onnx_program import to_onnx

    model = trained(amoebanet_c(1, 4).build(input_shape=(3, 11, 8), num_classes=3))
    images = torch.rand(2, 3, 11, 8)
    proto = to_onnx(model, (images,), ({0: torch.export.Dim("batch", min=1)},), ["images"], ["logits"])
    session = runtime.InferenceSession(proto.SerializeToString())
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)
    assert torch.allclose(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_weights_move_to_another_size_of_images() -> None:
    network = nasnet_a(1, 4, auxiliary=0.4)
    small, large = network.build(), network.build(input_shape=(3, 49, 64))
    weights = {k: v for k, v in small.state_dict().items() if not k.startswith("auxiliary.")}
    missing, unexpected = large.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("auxiliary.") for name in missing)


# --- as discovered networks -------------------------------------------------------------------------------------------

NAMES = [name for name in NETWORKS if name.startswith(("nasnet", "amoebanet"))]


def test_all_are_there_by_name() -> None:
    assert NAMES == [
        "amoebanet_a", "amoebanet_a_large", "amoebanet_b", "amoebanet_c", "amoebanet_d", "nasnet_a", "nasnet_a_large",
        "nasnet_a_mobile",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_gives_is_an_architecture_for_anyone(name: str) -> None:
    network = NETWORKS[name]()
    assert network.name == name
    assert network.genotype is None  # it concatenates what it reads as well, which no genotype says
    architecture = network.architecture
    assert json.loads(json.dumps(architecture, allow_nan=False)) == architecture
    assert any(
        k in architecture[kind]["concatenated"]
        for kind in ("normal", "reduction")
        for block in architecture[kind]["blocks"]
        for k in block["inputs"]
    )
    architecture["normal"]["concatenated"].clear()
    assert network.architecture["normal"]["concatenated"]  # each call gives its own
    task = network.task
    by_name = smith.describe(name)
    as_data = smith.describe(network.architecture, input_shape=task.input_shape, num_classes=task.num_classes)  # type: ignore[union-attr]
    assert (by_name.parameters, by_name.multiply_adds) == (as_data.parameters, as_data.multiply_adds)
    assert by_name.genotype is None
    assert (by_name.layers, by_name.depth) == plan_of(network.architecture, task).depth()  # type: ignore[arg-type]


def test_the_mobile_network_lies_in_the_mobile_space_but_for_what_it_concatenates() -> None:
    """Its answers are a genotype; decoded, only the lists differ: it reads states 1 and 3 there as well."""
    network = nasnet_a_mobile()
    architecture = network.architecture
    answers: dict[str, Any] = {}
    for kind in ("normal", "reduction"):
        for b, block in enumerate(architecture[kind]["blocks"]):
            for k in (0, 1):
                answers[f"{kind}.{b}.hidden_state_{k + 1}"] = block["inputs"][k]
                answers[f"{kind}.{b}.operation_{k + 1}"] = block["operations"][k]
            answers[f"{kind}.{b}.combination"] = block["combination"]
    found = decode(network.space, smith.Genotype(identity(network.space), answers))
    lists = {kind: (found[kind].pop("concatenated"), architecture[kind].pop("concatenated")) for kind in CELLS}
    assert lists == {
        "normal": ([2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        "reduction": ([4, 5, 6], [3, 4, 5, 6]),
    }
    assert found == architecture


def test_a_network_for_other_images() -> None:
    model = nasnet_a(1, 4).build(input_shape=(1, 28, 28), num_classes=5)
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 5)
    assert smith.build(nasnet_a().space, scaled(nasnet_a().architecture, cells=1, filters=2))(
        torch.rand(2, 3, 32, 32)
    ).shape == (2, 10)


@pytest.mark.parametrize("form", ["mobile", None])
def test_other_forms_are_refused(form: Any) -> None:
    for network in (nasnet_a, amoebanet_a):
        with pytest.raises(UsageError, match="form of NASNetCell must be one of cifar, imagenet"):
            network(6, 32, form)


def test_a_discovered_network_has_one_description() -> None:
    network = nas_conv_v1()
    for wrong in ({"genotype": None}, {"data": {"kind": "conv_chain"}}):
        with pytest.raises(UsageError, match="a genotype or an architecture"):
            replace(network, **wrong)
