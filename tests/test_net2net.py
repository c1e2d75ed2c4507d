"""Weights from a parent: what only grows computes the same, and anything else takes over what fits."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import archsmith as smith
from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.core.searcher import NeedsParents
from archsmith.core.space import Space, build, decode, sample
from archsmith.nn.net2net import inherit_grown
from archsmith.searchers import BayesianOptimization, RegularizedEvolution
from archsmith.training import ImageClassification

TASK = Task((3, 10, 10), 4)
SPACES: dict[str, Space] = {
    "chain": smith.spaces.ConvChain(layers=4, filters=(4, 6, 8, 12)),
    "chain of types": smith.spaces.ConvChain(
        layers=5, filters=(4, 6), strides=(1, 2), layer_types=("conv", "max_pool", "avg_pool", "lcn", "bn", "fc")
    ),
    "chain of blocks": smith.spaces.ConvChain(layers=4, filters=(4, 6, 8), block=2, pools=(2,)),
    "residual": smith.spaces.ResidualNetwork(
        depths=(1, 2, 3), widths=(4, 6, 8, 12), stem_filters=(4, 6, 8), bottlenecks=(0.5, 1.0), expansions=(1.0, 2.0, 3.0)
    ),
    "mobile": smith.spaces.MobileBlocks(
        blocks=((4, 1, 1), (6, 2, 2), (8, 1, 1)), stem=4, head=12, stem_stride=1, dropout=0.0
    ),
    "cell": smith.spaces.NASNetCell(blocks=3, cells=1, filters=4),
    "amoeba": smith.spaces.NASNetCell.amoeba(cells=1, filters=4, auxiliary=0.4),
}  # fmt: skip


def trained(space: Space, architecture: Any, seed: int = 0) -> nn.Module:
    """A network whose weights and statistics are none that it is made with."""
    torch.manual_seed(seed)
    model = build(space, architecture, TASK).model
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 0.7
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(8, *TASK.input_shape))
    return model.eval()


def inherited(
    space: Space, parent: Any, child: Any, seed: int = 0, noise: float = 0.0
) -> tuple[nn.Module, nn.Module, int]:
    """A trained parent, its child, and how many parameters the child has from it."""
    one = trained(space, parent, seed)
    torch.manual_seed(seed + 1)
    other = build(space, child, TASK).model
    with torch.device("meta"):
        shapes = build(space, parent, TASK).model
    count = inherit_grown(other, shapes, one.state_dict(), noise=noise)
    return one, other.eval(), count


def difference(one: nn.Module, other: nn.Module) -> float:
    """The largest between two networks, relative to what they give where that is above 1."""
    torch.manual_seed(9)
    with torch.no_grad():
        images = torch.randn(3, *TASK.input_shape)
        first, second = one(images), other(images)
    return float((first - second).abs().max() / max(1.0, float(first.abs().max())))


# --- networks that only grow ------------------------------------------------------------------------------------------


def grown_chain(architecture: Any, rng: Random) -> Any:
    child = copy.deepcopy(architecture)
    layers = child["layers"]
    layer = rng.choice(layers)
    match rng.choice(("wider", "kernel", "input", "deeper")):
        case "wider":
            layer["filters"] += rng.randrange(1, 12)
        case "kernel":
            layer[rng.choice(("filter_height", "filter_width"))] += rng.choice((2, 4))
        case "input":  # one that another layer reads too, so that the classifier reads what it read
            read = {j for other in layers for j in other["inputs"]}
            at = rng.randrange(len(layers))
            more = [j for j in read if j < at and j not in layers[at]["inputs"] and layers[at]["inputs"]]
            layers[at]["inputs"] = sorted([*layers[at]["inputs"], *more[:1]])
        case _:
            filters = layers[-1]["filters"] + rng.choice((0, 3))
            size = {"filter_height": rng.choice((1, 2, 3, 4)), "filter_width": rng.choice((1, 3, 5)), "stride": [1, 1]}
            layers.append({"type": "conv", "filters": filters, "inputs": [len(layers) - 1], **size})
    return child


def shapes_of_blocks(space: Space, architecture: Any) -> list[Any]:
    """Which blocks change the shape of what they read."""
    with torch.device("meta"):
        model: Any = build(space, architecture, TASK).model
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Module):
        firsts = [sum(model.depths[:i]) for i in range(len(model.depths))]
        return [(blocks[k].adds, [type(m).__name__ for m in blocks[k].shortcut.modules()]) for k in firsts]
    firsts = [k for k, block in enumerate(model.blocks) if k == 0 or model.blocks[k - 1] != block]
    return [model.layers[k].adds for k in firsts]


def grown_residual(architecture: Any, rng: Random) -> Any:
    child = copy.deepcopy(architecture)
    stage = rng.choice(child["stages"])
    match rng.choice(("wider", "stem", "kernel", "deeper", "gate", "expansion", "stem kernel")):
        case "wider":
            stage["width"] += rng.randrange(1, 12)
        case "stem":
            child["stem"]["filters"] += rng.randrange(1, 9)
        case "kernel":
            stage["kernel"] += 2
        case "deeper" if stage["block"] == "inverted" or child["preactivation"] or child["activation"] == "relu":
            stage["depth"] += rng.choice((1, 2))
        case "gate":
            stage["se_ratio"] = {0.0: 0.25, 0.0625: 0.25}.get(stage["se_ratio"], 0.5)
        case "expansion" if stage["block"] == "bottleneck" or stage["expansion"] > 1:
            stage["expansion"] *= 1.5
        case _:
            child["stem"]["kernel"] += 2
    if shapes_of_blocks(SPACES["residual"], child) != shapes_of_blocks(SPACES["residual"], architecture):
        return architecture
    widths = [[a["stem"]["filters"], *(s["width"] for s in a["stages"])] for a in (architecture, child)]
    more = [[b - a for a, b in itertools.pairwise(w)] for w in widths]
    if child["shortcut"] == "pad" and any(not 0 <= a <= b for a, b in zip(*more, strict=True)):
        return architecture  # channels of zeros have become those of a convolution, or the other way around
    return child


def grown_mobile(architecture: Any, rng: Random) -> Any:
    child = copy.deepcopy(architecture)
    block = rng.choice(child["blocks"])
    match rng.choice(("wider", "kernel", "gate", "expansion", "deeper")):
        case "wider":
            block["filters"] += rng.randrange(1, 9)
        case "kernel":
            block["kernel"] += 2
        case "gate":
            block["se_ratio"] += 0.25
        case "expansion" if block["operation"] == "mbconv3":
            block["operation"] = "mbconv6"
        case _ if block["skip"] == "identity" or (block["skip"] == "none" and block["operation"] == "conv"):
            block["layers"] += 1
    same = shapes_of_blocks(SPACES["mobile"], child) == shapes_of_blocks(SPACES["mobile"], architecture)
    return child if same else architecture


LARGER = {
    "sep_conv_3x3": "sep_conv_5x5", "sep_conv_5x5": "sep_conv_7x7", "dil_sep_conv_3x3": "dil_sep_conv_5x5",
    "conv_1x3_3x1": "conv_1x7_7x1", "conv_1x1": "conv_3x3",
}  # fmt: skip


def grown_cell(architecture: Any, rng: Random) -> Any:
    child = copy.deepcopy(architecture)
    for cell in ("normal", "reduction"):
        for block in child[cell]["blocks"]:
            larger = [LARGER.get(name, name) for name in block["operations"]]
            strided = cell == "reduction" and "conv_1x1" in block["operations"]  # its one pixel is not in the middle
            if rng.random() < 0.5 and not strided:
                block["operations"] = larger
    return child


GROWTH: dict[str, Callable[[Any, Random], Any]] = {
    "chain": grown_chain,
    "chain of blocks": grown_chain,
    "residual": grown_residual,
    "mobile": grown_mobile,
    "cell": grown_cell,
    "amoeba": grown_cell,
}


@pytest.mark.parametrize("name", GROWTH)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_a_child_that_only_grows_computes_what_its_parent_computes(name: str, seed: int) -> None:
    space, rng = SPACES[name], Random(seed)
    parent = child = decode(space, sample(space, rng))
    for _ in range(rng.randrange(1, 5)):
        child = GROWTH[name](child, rng)
    one, other, count = inherited(space, parent, child, seed)
    assert difference(one, other) < 1e-4
    assert count > 0


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_any_child_takes_over_what_fits(name: str, seed: int) -> None:
    space, rng = SPACES[name], Random(seed)
    one, other = (decode(space, sample(space, rng)) for _ in range(2))
    _, child, count = inherited(space, one, other, seed, noise=0.1)
    assert 0 < count <= sum(p.numel() for p in child.parameters())
    assert all(bool(torch.isfinite(t.float()).all()) for t in child.state_dict().values())
    parent, same, count = inherited(space, one, one, seed)
    assert difference(parent, same) == 0
    assert count == sum(p.numel() for p in same.parameters()), "all layers are described"


def test_repeated_channels_share_what_is_read_of_them_and_noise_tells_them_apart() -> None:
    space = SPACES["chain"]
    parent = decode(space, sample(space, Random(3)))
    child = copy.deepcopy(parent)
    child["layers"][0]["filters"] *= 2
    for noise in (0.0, 0.1):
        _, model, _ = inherited(space, parent, child, noise=noise)
        one, other = model.layers[0].conv.weight.detach().chunk(2)
        assert torch.equal(one, other) == (noise == 0)
        assert torch.allclose(one, other, atol=0.6 * float(one.std()))


def test_fewer_channels_are_those_that_are_read_most() -> None:
    space = SPACES["chain"]
    parent = decode(space, sample(space, Random(3)))
    parent["layers"] = [{**parent["layers"][0], "filters": 6}]
    child = {**parent, "layers": [{**parent["layers"][0], "filters": 4}]}
    one, other, _ = inherited(space, parent, child)
    read = one.classifier.weight.detach().abs().sum(0)
    best = sorted(read.argsort(descending=True)[:4].tolist())
    assert torch.equal(other.layers[0].conv.weight, one.layers[0].conv.weight[best])
    assert torch.equal(other.classifier.weight, one.classifier.weight[:, best])


def test_a_new_identity_passes_its_input_on_in_training_too() -> None:
    space = SPACES["chain"]
    parent = decode(space, sample(space, Random(4)))
    child = copy.deepcopy(parent)
    child["layers"].append({**parent["layers"][-1], "filter_height": 3, "filter_width": 3, "inputs": [3]})
    one = trained(space, parent)
    other = build(space, child, TASK).model
    images = torch.randn(64, *TASK.input_shape)
    inherit_grown(other, one, one.state_dict(), images=lambda: images)
    assert difference(one, other.eval()) < 1e-4
    read: list[torch.Tensor] = []
    new = other.layers[-1]
    new.register_forward_hook(lambda _, args, out: read.extend((args[0], out)))
    other.train()(images)
    assert float((read[0] - read[1]).detach().abs().mean()) < 0.2 * float(read[0].detach().std())


# --- in a search ------------------------------------------------------------------------------------------------------

DIGITS = ImageClassification.desk("digits", epochs=1, max_train=100)
INHERITING = dataclasses.replace(DIGITS, keep_weights=True, inherit_weights=True)


def evolved(store: str, trials: int = 6, **options: Any) -> smith.Run:
    space = (
        smith.spaces.Product(
            smith.spaces.OneOf(
                smith.spaces.ConvChain(layers=2, filters=(4, 6)), smith.spaces.ConvChain(layers=3, filters=(4, 6))
            ),
            smith.spaces.Augmentation(sub_policies=1),
        )
        if options.pop("product", False)
        else smith.spaces.ConvChain(layers=2, filters=(4, 6, 8))
    )
    searcher = options.pop("searcher", RegularizedEvolution(population=3, sample=2))
    return smith.search(
        space,
        options.pop("evaluator", INHERITING),
        searcher=searcher,
        trials=trials,
        store=store,
        name="run",
        seed=1,
        **options,
    )


def lines(run: smith.Run) -> list[Any]:
    return [
        (t.number, t.parent, t.reward, t.result.artifact, t.result.metrics.get("inherited_parameters"))
        for t in run.trials()
        if t.result
    ]


def test_children_of_evolution_start_from_their_parents(tmp_path: Path) -> None:
    whole = evolved(f"sqlite:///{tmp_path / 'whole.db'}")
    for number, parent, _, artifact, parameters in lines(whole):
        assert artifact
        assert (parameters is None) == (parent is None), number
    evolved(f"sqlite:///{tmp_path / 'parts.db'}", trials=4)
    parts = smith.open_run(f"sqlite:///{tmp_path / 'parts.db'}", "run").resume(trials=6)
    assert lines(parts) == lines(whole)


def test_spaces_of_spaces_inherit_and_so_does_bayesian_optimization(tmp_path: Path) -> None:
    product = evolved(f"sqlite:///{tmp_path / 'product.db'}", trials=5, product=True)
    assert all(parameters for _, parent, *_, parameters in lines(product) if parent is not None)
    searcher = BayesianOptimization(initial=3)
    run = evolved(f"sqlite:///{tmp_path / 'bayes.db'}", trials=5, searcher=searcher)
    assert all(parameters for _, parent, *_, parameters in lines(run) if parent is not None)
    live = searcher.start(run.space, 0)
    live.tell(list(run.trials()))
    assert isinstance(live, NeedsParents)
    assert live.needs() == set(range(5))


def test_weights_are_inherited_only_where_they_are_kept() -> None:
    with pytest.raises(UsageError, match="keep_weights=True"):
        dataclasses.replace(DIGITS, inherit_weights=True)
    with pytest.raises(UsageError, match="inherit_weights must be"):
        dataclasses.replace(DIGITS, inherit_weights="yes")  # type: ignore[arg-type]
