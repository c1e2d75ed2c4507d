"""The chain of convolutions: the paper's facts, the repair rules, every variant, every size, and what is refused."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx

from archsmith.core.child import Task
from archsmith.core.errors import IllegalGenotype, LimitExceeded, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import (
    FunctionSpace,
    build,
    decode,
    enumerate_genotypes,
    identity,
    mutate,
    sample,
    script,
    space_size,
    trace,
)
from archsmith.discovered import nas_conv_v1
from archsmith.nn.count import count
from archsmith.searchers.depth_schedule import Forced
from archsmith.spaces import ConvChain
from archsmith.spaces.chain_plan import LAYER_TYPES, MAX_PARAMETERS, plan_of
from archsmith.spaces.conv_chain import LEARNING_RATES

CIFAR = Task((3, 32, 32), 10)
TASKS = [Task((1, 8, 8), 10), Task((2, 7, 5), 3), Task((1, 28, 28), 10), Task((3, 96, 64), 4), Task((4, 1, 1), 2)]
SMALL = {"filters": (2, 3)}

VARIANTS = {
    "skips": ConvChain(layers=5, **SMALL),
    "strides": ConvChain(layers=5, strides=(1, 2, 3), **SMALL),
    "blocks and pools": ConvChain(layers=4, block=3, pools=(1, 3), **SMALL),
    "more filters": ConvChain(layers=4, block=3, pools=(1, 3), extra_filters=4, **SMALL),
    "learning rate": ConvChain(layers=3, learning_rates=LEARNING_RATES, **SMALL),
    "types": ConvChain(layers=7, strides=(1, 2), layer_types=LAYER_TYPES, pools=(2,), **SMALL),
    "depths": ConvChain(depths=(2, 4, 6), **SMALL),
    "no skips": ConvChain(layers=4, skips=False, **SMALL),
}


def conv(
    *inputs: int, size: tuple[int, int] = (3, 3), filters: int = 4, stride: tuple[int, int] = (1, 1)
) -> dict[str, Any]:
    return {
        "type": "conv", "filter_height": size[0], "filter_width": size[1], "filters": filters,
        "stride": list(stride), "inputs": list(inputs),
    }  # fmt: skip


def chain(*layers: dict[str, Any], block: int = 1, pools: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"kind": "conv_chain", "learning_rate": None, "block": block, "pools": list(pools), "layers": list(layers)}


def built(architecture: dict[str, Any], task: Task = CIFAR) -> torch.nn.Module:
    return ConvChain().build(architecture, task).model


# --- the paper's facts ------------------------------------------------------------------------------------------------


def test_the_published_network_has_exactly_its_size() -> None:
    network = nas_conv_v1()
    counts = count(network.build(), (3, 32, 32))
    assert counts.parameters == 4_201_630
    assert round(counts.multiply_adds / 1e9, 2) == 4.30


def test_the_published_network_is_as_the_figure_has_it() -> None:
    layers = nas_conv_v1().architecture["layers"]
    assert sum(len(layer["inputs"]) for layer in layers) == 65
    plan = plan_of(nas_conv_v1().architecture, CIFAR)
    assert plan.outputs == (15,)  # only the last layer is unread
    assert plan.channels(plan.outputs) == 48
    assert nas_conv_v1().build().classifier.in_features == 48


def test_the_published_network_lies_in_the_first_space() -> None:
    network = nas_conv_v1()
    assert network.space == ConvChain.v1() == ConvChain() == ConvChain(layers=15)
    assert Genotype.from_json(network.genotype.canonical) == network.genotype
    decode(ConvChain.v1(), network.genotype)
    with pytest.raises(IllegalGenotype, match=r"another space: its option layers is 15, and that .* is 20"):
        decode(ConvChain.v2(), network.genotype)


@pytest.mark.parametrize(("layers", "size"), [(6, 2.25e15), (15, 5.02e58), (20, 2.09e93)])
def test_the_size_of_the_space(layers: int, size: float) -> None:
    exact = 64**layers * 2 ** (layers * (layers - 1) // 2)
    assert space_size(ConvChain(layers=layers)) == exact
    assert float(f"{exact:.2e}") == size
    assert space_size(ConvChain(layers=layers, strides=(1, 2, 3))) == exact * 9**layers


def test_the_variants_of_the_paper() -> None:
    assert len(trace(ConvChain.v1(), sample(ConvChain.v1(), Random(0)).answers)) == 15 * 4
    assert len(trace(ConvChain.v2(), sample(ConvChain.v2(), Random(0)).answers)) == 20 * 6
    v3, more = ConvChain.v3(), ConvChain.v3(more_filters=True)
    plan = plan_of(decode(v3, sample(v3, Random(0))), CIFAR)
    assert sum(step.layer["type"] == "conv" for step in plan.steps) == 39
    assert {size for _, size in plan.states} == {(32, 32), (16, 16), (8, 8)}
    widths = {layer["filters"] for layer in decode(more, sample(more, Random(0)))["layers"]}
    assert widths <= {46, 52, 64, 76}
    assert [layer["filters"] + 40 for layer in decode(v3, sample(v3, Random(5)))["layers"]] == [
        layer["filters"] for layer in decode(more, sample(more, Random(5)))["layers"]
    ]


def test_the_order_of_questions() -> None:
    def names(space: ConvChain) -> list[str]:
        return [q.name for q in trace(space, sample(space, Random(0)).answers)]

    full = ["filter_height", "filter_width", "stride_height", "stride_width", "filters", "inputs"]
    assert names(ConvChain(layers=2, strides=(1, 2))) == [f"{i}.{n}" for i in range(2) for n in full]
    assert names(ConvChain(depths=(1,), learning_rates=(0.1,)))[:2] == ["learning_rate", "layers"]
    assert names(ConvChain(layers=1, skips=False)) == ["0.filter_height", "0.filter_width", "0.filters"]


def test_anchors_refer_to_layers() -> None:
    anchors = [q for q in trace(ConvChain(layers=3), sample(ConvChain(layers=3), Random(0)).answers) if q.subset]
    assert [(q.kind, q.options, q.refers) for q in anchors] == [
        ("inputs", (), True),
        ("inputs", (0,), True),
        ("inputs", (0, 1), True),
    ]


def test_questions_depend_on_answers_only_where_types_or_depths_are_asked() -> None:
    for name, space in VARIANTS.items():
        assert (script(space) is None) == (name in ("types", "depths")), name


def test_at_a_depth_that_is_forced_the_questions_are_a_script() -> None:
    space = ConvChain(depths=(2, 4), **SMALL)
    at_four = FunctionSpace(lambda choose: space.architecture(Forced(choose, "layers", 4)))
    questions = script(at_four)
    assert questions is not None
    assert (questions[0].name, questions[0].options) == ("layers", (4,))
    assert len(questions) == 1 + 4 * 4
    decode(space, Genotype(identity(space), sample(at_four, Random(0)).answers))


def test_types_skip_the_questions_that_do_not_apply() -> None:
    space = ConvChain(layers=1, layer_types=LAYER_TYPES, strides=(1, 2))
    asked = {
        g.answers["0.type"]: {n.partition(".")[2] for n in g.answers} - {"type", "inputs"}
        for g in enumerate_genotypes(ConvChain(layers=1, layer_types=LAYER_TYPES, strides=(1, 2), filter_heights=(1,)))
    }
    assert set(asked) == set(LAYER_TYPES)
    assert asked["conv"] == {"filter_height", "filter_width", "stride_height", "stride_width", "filters"}
    assert asked["max_pool"] == asked["avg_pool"] == {"pool_size", "pool_stride"}
    assert asked["lcn"] == asked["bn"] == set()
    assert asked["fc"] == {"filters"}
    assert sum(1 for _ in enumerate_genotypes(space)) == 4 * 4 * 2 * 2 * 4 + 4 + 4 + 1 + 1 + 4


def test_a_chosen_learning_rate_is_the_childs() -> None:
    space = ConvChain(layers=1, learning_rates=LEARNING_RATES)
    genotype = sample(space, Random(0))
    assert build(space, genotype, CIFAR).learning_rate == genotype.answers["learning_rate"]
    assert build(ConvChain(layers=1), sample(ConvChain(layers=1), Random(0)), CIFAR).learning_rate is None


# --- the repair rules -------------------------------------------------------------------------------------------------


def test_rule_1_a_layer_without_inputs_reads_the_image() -> None:
    network = built(chain(conv(), conv(), conv(0)))
    assert [layer.conv.in_channels for layer in network.layers] == [3, 3, 4]


def test_rule_2_what_nothing_read_goes_to_the_classifier() -> None:
    network = built(chain(conv(filters=4), conv(filters=5), conv(0, filters=6), conv(0, filters=7)))
    assert network.inputs[-1] == (2, 3, 4)
    assert network.classifier.in_features == 5 + 6 + 7


def test_rule_3_smaller_inputs_are_zero_padded() -> None:
    # 7x5 by strides (2, 3) is 4x2, which stands one row and one column in; two more below and at the right.
    architecture = chain(conv(filters=1, stride=(2, 3)), conv(filters=1), conv(0, 1, filters=1))
    network = built(architecture, Task((2, 7, 5), 3)).eval()
    seen = {}
    network.layers[2].register_forward_hook(lambda m, inputs, out: seen.update(x=inputs[0]))
    network.layers[0].register_forward_hook(lambda m, inputs, out: seen.update(small=out))
    network(torch.rand(1, 2, 7, 5))
    assert seen["x"].shape == (1, 2, 7, 5)
    padded = torch.zeros(7, 5)
    padded[1:5, 1:3] = seen["small"][0, 0]
    assert torch.equal(seen["x"][0, 0], padded)


def test_inputs_are_concatenated_in_order() -> None:
    network = built(chain(conv(filters=2), conv(filters=3), conv(0, 1, filters=1))).eval()
    seen = {}
    for k in (0, 1):
        network.layers[k].register_forward_hook(lambda m, i, out, k=k: seen.update({k: out}))
    network.layers[2].register_forward_hook(lambda m, inputs, out: seen.update(x=inputs[0]))
    network(torch.rand(1, 3, 32, 32))
    assert torch.equal(seen["x"], torch.cat([seen[0], seen[1]], 1))


# --- blocks and pools -------------------------------------------------------------------------------------------------


def test_a_block_is_densely_connected() -> None:
    network = built(chain(conv(filters=2), conv(filters=3), conv(0, 1, filters=5), block=3))
    assert [layer.conv.in_channels for layer in network.layers] == [3, 5, 7, 3, 6, 9, 5, 10, 15]
    assert network.classifier.in_features == 5


def test_a_pool_applies_to_every_state_that_is_read_later() -> None:
    layers = (conv(filters=2), conv(0, filters=3), conv(filters=4), conv(0, 2, filters=5))
    network = built(chain(*layers, pools=(2,)), Task((3, 9, 9), 10))
    pools = [layer for layer in network.layers if not hasattr(layer, "conv")]
    # The image (layer 2 reads it), layer 0 (layer 3 reads it) and layer 1 (the classifier reads it).
    assert len(pools) == 3
    sizes = plan_of(chain(*layers, pools=(2,)), Task((3, 9, 9), 10)).states
    assert [size for _, size in sizes[-2:]] == [(5, 5), (5, 5)]
    assert network.classifier.in_features == 3 + 5
    assert all(pads is None for join in network.joins for pads in join.pads)


# --- any variant, any size --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("task", TASKS, ids=lambda t: "x".join(map(str, t.input_shape)))
def test_any_variant_at_any_size(name: str, task: Task) -> None:
    space = VARIANTS[name]
    for seed in range(3):
        genotype = sample(space, Random(seed))
        model = build(space, genotype, task).model
        logits = model(torch.rand(2, *task.input_shape))
        assert logits.shape == (2, task.num_classes)
        logits.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        assert plan_of(decode(space, genotype), task).parameters == count(model, task.input_shape).parameters


@given(
    seed=st.integers(0, 10_000),
    variant=st.sampled_from(sorted(VARIANTS)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
@settings(max_examples=25, deadline=None)
def test_the_plan_foretells_every_shape(seed: int, variant: str, height: int, width: int) -> None:
    space, task = VARIANTS[variant], Task((2, height, width), 3)
    architecture = decode(space, sample(space, Random(seed)))
    plan = plan_of(architecture, task)
    with torch.device("meta"):
        model = space.build(architecture, task).model
        shapes = []
        for layer in model.layers:
            layer.register_forward_hook(lambda m, inputs, out: shapes.append((out.shape[1], tuple(out.shape[2:]))))
        model(torch.rand(2, *task.input_shape))
    assert shapes == plan.states[1:]
    assert sum(p.numel() for p in model.parameters()) == plan.parameters


@pytest.mark.parametrize("name", VARIANTS)
def test_children_can_be_traced(name: str) -> None:
    space, task = VARIANTS[name], Task((2, 9, 6), 3)
    model = build(space, sample(space, Random(1)), task).model.eval()
    traced = fx.symbolic_trace(model)
    for batch in (1, 5):
        images = torch.rand(batch, *task.input_shape)
        assert torch.equal(traced(images), model(images))


def test_children_export_to_onnx_with_any_batch(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    space, task = VARIANTS["types"], Task((2, 9, 6), 3)  # pools of states included
    model = build(space, sample(space, Random(1)), task).model.eval()
    path = tmp_path / "child.onnx"
    example = (torch.rand(2, *task.input_shape),)
    torch.onnx.export(model, example, path, dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
    session = onnxruntime.InferenceSession(path)
    for batch in (1, 3):
        images = torch.rand(batch, *task.input_shape)
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert torch.allclose(torch.from_numpy(logits), model(images), atol=1e-4)


def test_the_layout_does_not_change_the_logits() -> None:
    space = VARIANTS["types"]
    model = build(space, sample(space, Random(1)), Task((3, 12, 10), 4)).model.eval()
    images = torch.rand(2, 3, 12, 10)
    with torch.no_grad():
        contiguous = model(images)
        model = model.to(memory_format=torch.channels_last)
        assert torch.allclose(model(images.to(memory_format=torch.channels_last)), contiguous, atol=1e-4)


def test_mutants_build() -> None:
    space = VARIANTS["types"]
    genotype = sample(space, Random(0))
    rng = Random(1)
    for _ in range(50):
        genotype = mutate(space, genotype, rng)
        plan_of(decode(space, genotype), CIFAR)


# --- the drawing ------------------------------------------------------------------------------------------------------


def test_the_diagram_has_a_box_a_layer_and_an_arrow_a_connection() -> None:
    architecture = nas_conv_v1().architecture
    diagram = ConvChain().diagram(architecture)
    assert len(diagram.nodes) == 15 + 2
    assert len(diagram.edges) == 65 + 2  # from the image, and to the classifier
    assert sum(edge.skip for edge in diagram.edges) == 65 + 2 - 16
    assert ("4", "3×7 conv", "48 filters") in [(n.id, n.label, n.detail) for n in diagram.nodes]


def test_the_diagram_of_blocks_has_frames_and_pools() -> None:
    space = ConvChain.v3()
    diagram = space.diagram(decode(space, sample(space, Random(0))))
    assert sum(node.role == "conv" for node in diagram.nodes) == 39
    assert sum(node.role == "pool" for node in diagram.nodes) == 2
    assert len({node.group for node in diagram.nodes if node.group}) == 13


def test_a_diagram_is_titled() -> None:
    space = ConvChain(layers=1, learning_rates=(0.05,))
    assert space.diagram(decode(space, sample(space, Random(0)))).title == "A chain of 1 layer, learning rate 0.05"
    assert ConvChain().diagram(chain(conv(), conv(0), block=3)).title == "A chain of 6 layers in 2 blocks"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers of ConvChain must be a whole number from 1"),
        ({"layers": -3}, "got -3"),
        ({"layers": "4"}, "got '4'"),
        ({"layers": 2.5}, "got 2.5"),
        ({"layers": True}, "got True"),
        ({"layers": 10**6}, "at most 4,096"),
        ({"layers": 4, "depths": (6, 8)}, "either layers or depths"),
        ({"depths": (6, 6)}, "differ"),
        ({"filters": ()}, "filters of ConvChain must be a tuple of at least one"),
        ({"filters": (0,)}, "got 0"),
        ({"filters": "24"}, "must be a tuple"),
        ({"filters": 24}, "must be a tuple"),
        ({"strides": (0, 1)}, "strides"),
        ({"layer_types": ("conv", "dropout")}, "'dropout'"),
        ({"learning_rates": (0.1, -1.0)}, "-1.0"),
        ({"learning_rates": (math.nan,)}, "nan"),
        ({"block": 0}, "block"),
        ({"block": 3, "strides": (1, 2)}, "leave layer_types and strides"),
        ({"block": 3, "layer_types": ("conv", "bn")}, "leave layer_types and strides"),
        ({"layers": 4, "pools": (4,)}, "from 1 to 3"),
        ({"depths": (4, 8), "pools": (5,)}, "from 1 to 3"),
        ({"layers": 4, "pools": (2, 1)}, "ascending"),
        ({"extra_filters": -1}, "extra_filters"),
        ({"skips": 1}, "skips"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ConvChain(**options)


def test_lists_are_as_good_as_tuples() -> None:
    again = ConvChain(**identity(ConvChain.v3())["options"])
    assert again == ConvChain.v3()
    assert hash(again) == hash(ConvChain.v3())


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    architecture = copy.deepcopy(chain(conv(), conv(0)))
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
        (None, '"kind": "conv_chain", got None'),
        ([], "got \\[\\]"),
        ("conv", "got 'conv'"),
        ({"kind": "conv_chain"}, "has the keys"),
        (changed(("kind",), "cell"), "conv_chain"),
        (changed(("extra",), 1), "has the keys"),
        (changed(("layers",), []), "at least one"),
        (changed(("layers",), "abc"), "must be a list"),
        (changed(("layers",), {}), "must be a list"),
        (changed(("layers", 1), None), "layer 1 must be an object"),
        (changed(("layers", 1, "type"), "dropout"), "layer 1 must be an object"),
        (changed(("layers", 1, "type"), ["conv"]), "layer 1 must be an object"),
        (changed(("layers", 1, "filters"), KeyError), "layer 1, a conv, has the keys"),
        (changed(("layers", 1, "filters"), 0), "filters of layer 1"),
        (changed(("layers", 1, "filters"), True), "filters of layer 1"),
        (changed(("layers", 1, "filters"), "36"), "filters of layer 1"),
        (changed(("layers", 1, "filters"), 10**5000), "more than 64 bits"),
        (changed(("layers", 1, "filter_height"), 2.0), "filter_height of layer 1"),
        (changed(("layers", 1, "stride"), [1]), "stride of layer 1"),
        (changed(("layers", 1, "stride"), [1, -1]), "a stride of layer 1"),
        (changed(("layers", 1, "inputs"), [1]), "earlier layers"),
        (changed(("layers", 1, "inputs"), [-1]), "earlier layers"),
        (changed(("layers", 1, "inputs"), [0, 0]), "ascending"),
        (changed(("layers", 1, "inputs"), None), "list of earlier layers"),
        (changed(("pools",), [2]), "from 1 to 1"),
        (changed(("pools",), None), "must be a list"),
        (changed(("pools",), [1, 1]), "ascending"),
        (changed(("block",), 0), "block"),
        (changed(("block",), 10**6), "at most 4,096"),
        (changed(("learning_rate",), -1), "learning_rate"),
        (changed(("learning_rate",), math.nan), "learning_rate"),
        (chain({"type": "bn", "inputs": []}, block=2), "must be a convolution"),
    ],
)
def test_architectures_that_are_none_are_refused(architecture: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ConvChain().build(architecture, CIFAR)
    with pytest.raises(UsageError, match=words):
        ConvChain().diagram(architecture)


def test_only_images_are_read() -> None:
    with pytest.raises(UsageError, match="reads images"):
        built(chain(conv()), Task((10,), 2))


def test_too_large_a_network_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(LimitExceeded, match="too large to be built") as refusal:
        built(chain(conv(filters=100_000), conv(0, filters=100_000)))
    assert refusal.value.reason == "parameters"
    doubling = [{"type": "max_pool", "pool_size": 3, "pool_stride": 1, "inputs": list(range(i))} for i in range(64)]
    with pytest.raises(LimitExceeded, match="for each image") as refusal:
        built(chain(*doubling))
    assert refusal.value.reason == "memory"
    flat = [conv(filters=1, size=(1, 1)) for _ in range(300)]
    with pytest.raises(LimitExceeded, match="modules"):  # each pool is one of every state
        built(chain(*flat, pools=tuple(range(1, 300))), Task((1, 1, 1), 2))
    plan = plan_of(ConvChain.v3(more_filters=True).architecture(_most), CIFAR)
    assert plan.parameters < MAX_PARAMETERS / 10  # the largest network of the paper's spaces is far from the limit


class _Most:
    """Answers every question with the largest option, and every subset with all."""

    def __call__(self, name: str, options: Any, *, kind: str | None = None) -> Any:
        return max(options)

    def subset(self, name: str, options: Any, *, kind: str | None = None) -> Any:
        return list(options)


_most = _Most()


def test_planning_and_refusing_need_no_torch() -> None:
    code = """
import sys
from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.discovered import nas_conv_v1
from archsmith.spaces.chain_plan import plan_of
assert plan_of(nas_conv_v1().architecture, Task()).parameters == 4_201_630
try:
    nas_conv_v1().space.build({}, Task())
except UsageError:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "False"


@pytest.mark.cuda
def test_a_child_trains_on_a_gpu() -> None:
    space = VARIANTS["types"]
    model = build(space, sample(space, Random(1)), Task((3, 12, 10), 4)).model.cuda()
    model(torch.rand(2, 3, 12, 10, device="cuda")).sum().backward()
    assert all(p.grad is not None and p.grad.is_cuda for p in model.parameters())
