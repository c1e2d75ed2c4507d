"""Networks that grow edit by edit: the published facts of the DNA and its mutations, and what a child inherits."""

from __future__ import annotations

import math
from graphlib import TopologicalSorter
from random import Random
from statistics import fmean, variance

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import archsmith as smith
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import IllegalGenotype, LimitExceeded, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.grown import LONGEST_WALK, wander
from archsmith.core.space import build, decode, identity, mutate, sample, space_size
from archsmith.nn.grown import fitted
from archsmith.nn.inheritance import inherit
from archsmith.searchers import PPO, DepthSchedule, QLearning, RegularizedEvolution, Reinforce
from archsmith.searchers import Random as RandomSearch
from archsmith.spaces import GrownGraph
from archsmith.testing import GrownSpaceContract, SearcherContract
from archsmith.training import Landscape

SPACE = GrownGraph()
CIFAR = Task((3, 32, 32), 10)
MUTATIONS = [
    "alter_learning_rate",
    "identity",
    "reset_weights",
    "insert_convolution",
    "remove_convolution",
    "alter_stride",
    "alter_number_of_channels",
    "filter_size",
    "insert_one_to_one",
    "add_skip",
    "remove_skip",
]


class TestContract(GrownSpaceContract):
    def space(self):
        return GrownGraph()

    def wrong_architectures(self):
        whole = decode(SPACE, grown(5))
        edges = [{**edge, "to": edge["from"]} for edge in whole["edges"]]
        return ({}, [], "v0", {**whole, "edges": []}, {**whole, "edges": edges}, {**whole, "vertices": [1]})


class TestContractWithStem(GrownSpaceContract):
    def space(self):
        return GrownGraph(stem=4.0, flatten=False, learning_rate=0.05)


class TestRandomOnIt(SearcherContract):
    learns_from_others = False

    def searcher(self):
        return RandomSearch()

    def space(self):
        return SPACE

    def wrong(self):
        return (lambda: RandomSearch(depth_schedule=DepthSchedule(start=2, step=1, every=1)).start(SPACE, 0),)


class TestRegularizedEvolutionOnIt(SearcherContract):
    def searcher(self):
        return RegularizedEvolution(population=6, sample=2)

    def space(self):
        return GrownGraph(stem=2.0)


def grown(seed: int, edits: int = 60, space: GrownGraph = SPACE) -> Genotype:
    """A genotype some edits away from the seed."""
    rng, genotype = Random(seed), space.seed()
    for _ in range(edits):
        genotype = mutate(space, genotype, rng)
    return genotype


def edited(genotype: Genotype, name: str, seed: int = 0, space: GrownGraph = SPACE) -> Genotype | None:
    return space.edits[name](genotype, Random(seed))


def after(*names: str, seed: int = 0, space: GrownGraph = SPACE) -> Genotype:
    """The seed after edits that all succeed."""
    genotype = space.seed()
    for i, name in enumerate(names):
        changed = edited(genotype, name, seed + i, space)
        assert changed is not None, name
        genotype = changed
    return genotype


def edges_of(genotype: Genotype) -> list[dict]:
    return decode(SPACE if genotype.space == identity(SPACE) else GrownGraph(**genotype.space["options"]), genotype)[
        "edges"
    ]


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- the seed ---------------------------------------------------------------------------------------------------------


def test_the_seed_is_one_linear_layer_over_all_pixels_with_the_papers_learning_rate() -> None:
    child = build(SPACE, SPACE.seed(), CIFAR)
    assert parameters(child.model) == 30_730
    assert child.learning_rate == 0.1
    assert not child.inherits
    assert smith.describe(SPACE.seed()).parameters == 30_730
    assert parameters(build(SPACE, SPACE.seed(), Task((1, 8, 8), 4)).model) == 64 * 4 + 4


def test_without_flattening_the_seed_sees_the_mean_of_each_channel() -> None:
    space = GrownGraph(flatten=False)
    assert parameters(build(space, space.seed(), CIFAR).model) == 40


def test_once_there_is_a_convolution_the_classifier_sees_means() -> None:
    for flatten in (True, False):
        space = GrownGraph(flatten=flatten)
        genotype = after("insert_convolution", space=space)
        model = build(space, genotype, CIFAR).model
        normed = "bn_relu" in genotype.answers.values()
        assert parameters(model) == 3 * 3 * 9 + (6 if normed else 3) + 3 * 10 + 10


def test_a_stem_is_a_convolution_of_that_depth_factor() -> None:
    space = GrownGraph(stem=8.0)
    # 24 filters of 3x3 over 3 channels, batch norm, and the classifier.
    assert parameters(build(space, space.seed(), CIFAR).model) == 24 * 27 + 48 + 24 * 10 + 10


# --- the mutations ----------------------------------------------------------------------------------------------------


def test_the_mutations_are_the_papers_eleven_in_its_order() -> None:
    assert list(SPACE.edits) == MUTATIONS


def test_the_learning_rate_is_altered_by_a_log_uniform_factor_from_half_to_double() -> None:
    seed, logs = SPACE.seed(), []
    for i in range(4000):
        changed = edited(seed, "alter_learning_rate", i)
        assert changed is not None
        logs.append(math.log2(changed.answers["learning_rate"] / 0.1))
    assert -1 <= min(logs) < -0.99
    assert 0.99 < max(logs) <= 1
    assert abs(fmean(logs)) < 0.04  # four standard errors
    assert abs(variance(logs) - 1 / 3) < 0.02
    assert abs(fmean(x < -0.5 for x in logs) - 0.25) < 0.03


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 120))
def test_whatever_is_mutated_stays_a_legal_graph(seed: int, length: int) -> None:
    architecture = decode(SPACE, Genotype.from_json(grown(seed, length).canonical))
    into: dict[str, set[str]] = {vertex["id"]: set() for vertex in architecture["vertices"]}
    for edge in architecture["edges"]:
        assert edge["from"] not in into[edge["to"]], "two edges between the same vertices"
        into[edge["to"]].add(edge["from"])
        if edge["type"] == "conv":
            for half in ("half_height", "half_width"):
                assert (2 * edge[half] + 1) % 2 == 1
                assert edge[half] >= 0
            assert math.log2(2 ** edge["stride_scale"]) % 1 == 0
            assert edge["stride_scale"] >= 0
            assert not edge["skip"]
    order = list(TopologicalSorter(into).static_order())  # raises CycleError for a cycle
    assert len(order) == len(architecture["vertices"])
    primary = [edge["to"] for edge in architecture["edges"] if not edge["skip"]]
    assert sorted(primary) == sorted(set(into) - {"v0"}), "each vertex but the input has one primary edge"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([Task((1, 8, 8), 3), Task((3, 13, 9), 5), Task((2, 1, 1), 2)]))
def test_whatever_is_mutated_can_be_built_and_computes(seed: int, task: Task) -> None:
    child = build(SPACE, grown(seed, 60), task)
    logits = child.model(torch.rand(2, *task.input_shape))
    assert logits.shape == (2, task.num_classes)
    strides = [c.stride for c in child.model.modules() if isinstance(c, torch.nn.Conv2d)]
    assert all(n & (n - 1) == 0 for stride in strides for n in stride), "a stride is no power of two"


def test_a_convolution_is_inserted_as_the_paper_has_it() -> None:
    seen = set()
    for seed in range(40):
        genotype = edited(SPACE.seed(), "insert_convolution", seed)
        assert genotype is not None
        first, last = edges_of(genotype)
        assert (first["half_height"], first["half_width"], first["depth_factor"]) == (1, 1, 1.0)
        assert (first["from"], first["to"], last["from"], last["to"]) == ("v0", "v2", "v2", "v1")
        seen.add((first["stride_scale"], decode(SPACE, genotype)["vertices"][1]["type"]))
    assert seen == {(scale, kind) for scale in (0, 1) for kind in ("linear", "bn_relu")}


def test_inserting_reaches_every_place_of_the_backbone() -> None:
    genotype, places = after("insert_one_to_one", "insert_one_to_one"), set()
    for seed in range(60):
        changed = edited(genotype, "insert_convolution", seed)
        assert changed is not None
        places.add([edge["type"] for edge in edges_of(changed)].index("conv"))
    assert places == {0, 1, 2}


def test_removing_undoes_inserting() -> None:
    seed = after("identity")
    inserted = edited(seed, "insert_convolution", 3)
    assert inserted is not None
    assert edited(inserted, "remove_convolution", 5) == seed


def test_a_removed_convolution_takes_its_skips_along_and_leaves_no_double() -> None:
    genotype = after("insert_convolution", "insert_one_to_one")
    answers = dict(genotype.answers)
    (conv,) = [edge for edge in edges_of(genotype) if edge["type"] == "conv"]
    onward = next(edge for edge in edges_of(genotype) if edge["from"] == conv["to"])
    skip = {"type": "identity", "from": conv["from"], "to": onward["to"], "skip": True}
    answers |= {f"edge.9.{name}": value for name, value in skip.items()}
    removed = edited(Genotype(genotype.space, answers), "remove_convolution")
    assert removed is not None
    assert not any(edge["skip"] or edge["type"] == "conv" for edge in edges_of(removed))
    decode(SPACE, removed)


@pytest.mark.parametrize(
    "name", ["remove_convolution", "alter_stride", "alter_number_of_channels", "filter_size", "remove_skip"]
)
def test_a_mutation_that_finds_nothing_to_change_fails(name: str) -> None:
    assert edited(SPACE.seed(), name) is None


def test_a_mutation_that_fails_is_drawn_again() -> None:
    # Five of the eleven cannot be made on the seed, nor can a skip: its one pair of vertices is joined.
    assert edited(SPACE.seed(), "add_skip") is None
    genotype = after("identity")
    counts = [mutate(SPACE, genotype, Random(seed)) == genotype for seed in range(2000)]
    assert abs(fmean(counts) - 1 / 5) < 0.04, "the identity is drawn as often as each of the five that can be made"


def test_strides_channels_and_filters_change_within_half_and_double() -> None:
    genotype = after("insert_convolution", seed=2)
    (conv, _) = edges_of(genotype)
    scales, factors, sizes = set(), [], set()
    for seed in range(300):
        for name in ("alter_stride", "alter_number_of_channels", "filter_size"):
            changed = edited(genotype, name, seed)
            assert changed is not None
            (now, _) = edges_of(changed)
            if name == "alter_stride":
                scales.add(now["stride_scale"] - conv["stride_scale"])
            elif name == "alter_number_of_channels":
                factors.append(now["depth_factor"] / conv["depth_factor"])
            else:
                sizes.add((2 * now["half_height"] + 1, 2 * now["half_width"] + 1))
    assert scales <= {-1, 1}
    assert 0.5 <= min(factors) < 0.55
    assert 1.9 < max(factors) <= 2
    assert sizes == {(5, 3), (3, 5)}  # of the odd sizes from 1.5 to 6 the other than 3


def test_skips_join_what_is_not_joined_until_all_is() -> None:
    genotype = after("insert_convolution", "insert_one_to_one", "insert_convolution")
    pairs = set()
    for seed in range(20):
        changed = edited(genotype, "add_skip", seed)
        if changed is None:
            break
        genotype = changed
    joined = [(edge["from"], edge["to"]) for edge in edges_of(genotype)]
    pairs.update(joined)
    assert len(joined) == len(pairs) == 5 * 4 // 2, "every pair in order, once"
    assert edited(genotype, "add_skip", 99) is None
    fewer = edited(genotype, "remove_skip")
    assert fewer is not None
    assert len(edges_of(fewer)) == len(joined) - 1


def test_what_is_not_mutable_is_left_alone() -> None:
    genotype = after("insert_convolution", "insert_one_to_one")
    for flag in ("outputs_mutable", "inputs_mutable"):
        fixed = {name: False if name.endswith(flag) else value for name, value in genotype.answers.items()}
        frozen = Genotype(genotype.space, fixed)
        for name in ("insert_convolution", "insert_one_to_one", "add_skip"):
            assert edited(frozen, name) is None
    fixed = {name: False if name.endswith("properties_mutable") else v for name, v in genotype.answers.items()}
    assert edited(Genotype(genotype.space, fixed), "remove_convolution") is None


# --- what a network computes ------------------------------------------------------------------------------------------


def test_what_a_skip_brings_is_made_to_fit() -> None:
    x = torch.arange(2 * 2 * 2, dtype=torch.float32).reshape(1, 2, 2, 2)
    wide = fitted(x, (2, 2, 2), (3, 4, 4))
    assert torch.equal(wide[0, 0], torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]))
    assert torch.equal(wide[0, 2], torch.zeros(4, 4))
    assert torch.equal(fitted(wide, (3, 4, 4), (1, 2, 2)), x[:, :1])
    assert fitted(x, (2, 2, 2), (2, 2, 2)) is x


def test_a_network_computes_what_its_graph_says() -> None:
    """A convolution of stride 2 with batch norm and ReLU, and a skip around it, written out."""
    space = GrownGraph(stem=2.0)
    answers = dict(space.seed().answers)
    answers |= {"edge.1.stride_scale": 1, "edge.1.half_width": 2}
    answers |= {"edge.2.type": "identity", "edge.2.from": "v0", "edge.2.to": "v1", "edge.2.skip": True}
    model = build(space, Genotype(identity(space), answers), Task((3, 7, 6), 4)).model.eval()
    weights = dict(model.named_parameters())
    images = torch.rand(2, 3, 7, 6)
    conv = F.conv2d(images, weights["convolutions.e1.weight"], stride=2, padding=(1, 2))
    assert conv.shape == (2, 6, 4, 3)
    body = F.relu(conv / math.sqrt(1 + 1e-5))
    skip = torch.cat([images[:, :, [0, 1, 3, 5]][:, :, :, [0, 2, 4]], torch.zeros(2, 3, 4, 3)], 1)
    expected = (body + skip).mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(model(images), expected)


def test_too_large_a_network_is_refused_before_it_is_built() -> None:
    space = GrownGraph(stem=1024.0)
    genotype = space.seed()
    for seed in range(3):
        genotype = edited(genotype, "insert_convolution", seed, space) or genotype
    wide = {n: 1024.0 if n.endswith("depth_factor") else v for n, v in genotype.answers.items()}
    with pytest.raises(LimitExceeded, match="depth factors"):
        build(space, Genotype(genotype.space, wide), CIFAR)


# --- inheritance ------------------------------------------------------------------------------------------------------


def trained(space: GrownGraph, genotype: Genotype, task: Task, seed: int = 0) -> torch.nn.Module:
    """A network whose weights and statistics are none that it is made with."""
    torch.manual_seed(seed)
    model = build(space, genotype, task).model
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand_like(tensor.float()) + 0.5)
    return model


@pytest.mark.parametrize("name", ["identity", "insert_one_to_one"])
def test_a_mutation_that_changes_no_function_leaves_it_bit_identical(name: str) -> None:
    task, kept = Task((3, 8, 8), 5), 0
    for seed in range(12):
        genotype = grown(seed, 30)
        child = edited(genotype, name, seed)
        assert child is not None
        if [v["type"] for v in decode(SPACE, child)["vertices"]].count("bn_relu") != [
            v["type"] for v in decode(SPACE, genotype)["vertices"]
        ].count("bn_relu"):
            continue  # a one-to-one connection with batch norm and ReLU
        parent = trained(SPACE, genotype, task)
        built = build(SPACE, child, task)
        assert built.inherits
        assert inherit(built.model, parent.state_dict()) == parameters(parent)
        images = torch.rand(2, 3, 8, 8)
        for training in (False, True):
            assert torch.equal(built.model.train(training)(images), parent.train(training)(images))
        kept += 1
    assert kept >= 4


def test_every_layer_whose_shape_stays_is_inherited_and_no_other() -> None:
    task, layers = Task((3, 8, 8), 5), 0
    for seed in range(40):
        genotype = grown(seed, 40)
        child = mutate(SPACE, genotype, Random(seed))
        parent, built = trained(SPACE, genotype, task), build(SPACE, child, task).model
        before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
        inherit(built, parent.state_dict())
        theirs = parent.state_dict()
        for name, layer in built.named_modules():
            own = {f"{name}.{key}" for key in layer.state_dict() if "." not in key}
            if not own:
                continue
            same = all(key in theirs and theirs[key].shape == before[key].shape for key in own)
            source = theirs if same else before
            assert all(torch.equal(built.state_dict()[key], source[key]) for key in own), name
            layers += same
    assert layers > 40


def test_a_layer_inherits_all_of_its_tensors_or_none() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.BatchNorm2d(4))
    bias = model[0].bias.detach().clone()
    assert inherit(model, other.state_dict()) == 8  # the scale and the shift of batch norm
    assert torch.equal(model[0].bias, bias), "the bias of another convolution"
    assert inherit(model, {}) == 0


def test_resetting_weights_is_for_one_child_alone() -> None:
    reset = edited(grown(1), "reset_weights")
    assert reset is not None
    assert not build(SPACE, reset, CIFAR).inherits
    for name in MUTATIONS:
        child = edited(reset, name)
        if child is not None and name != "reset_weights":
            assert build(SPACE, child, CIFAR).inherits, name


# --- as a space among spaces ------------------------------------------------------------------------------------------


def test_random_search_walks_from_the_seed() -> None:
    lengths = {len(wander(SPACE, Random(seed)).answers) for seed in range(50)}
    assert len(lengths) > 10
    assert sample(SPACE, Random(3)) == wander(SPACE, Random(3))
    first = RandomSearch().start(SPACE, 4).ask(30)
    assert len({p.genotype for p in first}) > 20
    assert LONGEST_WALK == 32


@pytest.mark.parametrize("searcher", [Reinforce(), PPO(), QLearning()])
def test_who_learns_from_choices_refuses_at_the_start_and_says_who_fits(searcher) -> None:
    with pytest.raises(UsageError, match="Random, RegularizedEvolution, LargeScaleEvolution"):
        smith.search(SPACE, Landscape(), searcher=searcher, trials=1, store="memory://")


def test_it_has_no_size() -> None:
    assert space_size(SPACE) is None


def test_it_is_described_and_drawn_from_its_genotype_alone() -> None:
    from archsmith._describe import diagram_of
    from archsmith.report.draw import draw

    genotype = grown(3, 80)
    described = smith.describe(genotype.canonical)
    assert described.learning_rate == genotype.answers["learning_rate"]
    assert described.layers == sum(edge["type"] == "conv" for edge in edges_of(genotype)) == described.depth
    assert "conv" in draw(diagram_of(genotype))
    again = smith.describe(decode(SPACE, genotype))
    assert again.parameters == described.parameters


def test_it_builds_for_images_alone() -> None:
    with pytest.raises(UsageError, match="images"):
        build(SPACE, SPACE.seed(), TextTask(10, hidden=4))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0}, "'learning_rate' must be a finite number above 0, got 0"),
        ({"learning_rate": True}, "'learning_rate' must be a finite number above 0"),
        ({"learning_rate": float("inf")}, "above 0"),
        ({"inherits": 1}, "'inherits' must be true or false, got 1"),
        ({"vertex.0.type": "relu"}, "'vertex.0.type' must be one of linear, bn_relu, got 'relu'"),
        ({"edge.0.to": "v7"}, "'edge.0.to' must be the id of a vertex, got 'v7'"),
        ({"edge.0.half_height": 1}, "no choice 'edge.0.half_height' here"),
        ({"edge.1.type": "identity"}, "no answer to choice 'edge.1.from'"),
        ({"vertex.01.type": "linear"}, "no choice 'vertex.01.type'"),
        ({"vertex.2.type": "linear"}, "no answer to choice 'vertex.2.inputs_mutable'"),
        ({"edge.0.from": "v1"}, "one chain from v0"),
        ({"edge.0.skip": True}, "one chain from v0"),
    ],
)
def test_an_illegal_genotype_is_refused_by_name_rule_and_value(change, said) -> None:
    answers = {**SPACE.seed().answers, **change}
    with pytest.raises(IllegalGenotype) as caught:
        decode(SPACE, Genotype(identity(SPACE), answers))
    assert said in str(caught.value)


def test_wrong_graphs_are_refused() -> None:
    space = GrownGraph(stem=2.0)
    seed = dict(space.seed().answers)
    backward = {"edge.5.type": "identity", "edge.5.from": "v1", "edge.5.to": "v2", "edge.5.skip": True}
    double = {"edge.5.type": "identity", "edge.5.from": "v0", "edge.5.to": "v2", "edge.5.skip": True}
    for change, said in (
        (backward, "closes a cycle"),
        (double, "join the same two vertices"),
        ({"edge.1.skip": True}, "edge.1.type must be identity"),
        ({"edge.1.half_width": 16}, "'edge.1.half_width' must be a whole number from 0 to 15, got 16"),
        ({"edge.1.half_width": 1.0}, "whole number"),
        ({"edge.1.stride_scale": -1}, "from 0 to 5, got -1"),
        ({"edge.1.depth_factor": 10**400}, "a number from"),
        ({"edge.1.from": "v2"}, "one chain"),
    ):
        with pytest.raises(IllegalGenotype) as caught:
            decode(space, Genotype(identity(space), {**seed, **change}))
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GrownGraph(learning_rate=0),
        lambda: GrownGraph(learning_rate=float("nan")),
        lambda: GrownGraph(stem=True),
        lambda: GrownGraph(stem=1e-9),
        lambda: GrownGraph(flatten=1),
    ],
)
def test_wrong_options_are_refused(make) -> None:
    with pytest.raises(UsageError):
        make()


# --- exports ----------------------------------------------------------------------------------------------------------


def every_kind_of_skip() -> Genotype:
    """Skips that widen, narrow, and thin out what they bring."""
    space = GrownGraph(stem=2.0)
    answers = dict(space.seed().answers)
    flags = {"inputs_mutable": True, "outputs_mutable": True, "properties_mutable": True}
    for name, kind in (("vertex.3", "linear"), ("vertex.4", "bn_relu")):
        answers |= {f"{name}.{field}": value for field, value in {"type": kind, **flags}.items()}
    conv = {"half_height": 0, "half_width": 3, "stride_scale": 1, "depth_factor": 0.5}
    for name, (kind, source, target, skip, more) in {
        "edge.0": ("identity", "v3", "v1", False, {}),
        "edge.2": ("conv", "v4", "v3", False, conv),
        "edge.3": ("identity", "v0", "v4", True, {}),
        "edge.4": ("identity", "v0", "v3", True, {}),
        "edge.5": ("identity", "v2", "v1", True, {}),
        "edge.6": ("identity", "v2", "v4", False, {}),
    }.items():
        edge = {"type": kind, "from": source, "to": target, "skip": skip, **more}
        answers |= {f"{name}.{field}": value for field, value in edge.items()}
    return Genotype(identity(space), answers)


def test_its_source_computes_the_same() -> None:
    from archsmith._export.network_source import network_source

    genotype = every_kind_of_skip()
    model = trained(GrownGraph(stem=2.0), genotype, Task((3, 15, 10), 4)).eval()
    text, state = network_source(model, "A grown network.")
    names = {"torch": torch, "nn": torch.nn, "F": F, "math": math}
    exec(text, names)
    plain = names["Network"]()
    plain.load_state_dict(state)
    images = torch.rand(2, 3, 15, 10)
    torch.testing.assert_close(plain.eval()(images), model(images))
