"""NASNet's and AmoebaNet's recipes, their finish in larger networks, published networks without a search; and their sizes,
counted a second time from the papers' text, by nothing of archsmith."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import archsmith as smith
from archsmith import discovered
from archsmith._export import load, model_of
from archsmith._finish.published import evaluator_for, plan_for
from archsmith._search.run import resolve
from archsmith.core.child import Child, Task
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.finish import FinishPlan
from archsmith.core.space import build, decode, sample
from archsmith.discovered import NETWORKS, Published, published
from archsmith.nn.batch_norm import forgetting_within
from archsmith.nn.nasnet_plan import plan_of
from archsmith.recipes import get_recipe
from archsmith.searchers import PPO, RegularizedEvolution
from archsmith.searchers import Random as RandomSearch
from archsmith.spaces import NASNetCell
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification

# --- the sizes, counted again ------------------------------------------------------------------------------------------

# As the papers' code lists them: operation and state, twice a block; then what is concatenated.
TABLES = {
    "nasnet_a": (
        "sep5 0 sep3 1, sep5 1 sep3 1, pool 0 id 1, pool 1 pool 1, sep3 0 id 0 > 1 2 3 4 5 6",
        "sep5 0 sep7 1, pool 0 sep7 1, pool 0 sep5 1, id 3 pool 2, sep3 2 pool 0 > 3 4 5 6",
    ),
    "amoebanet_a": (
        "pool 0 pool 0, sep3 1 id 1, id 0 pool 1, sep3 0 sep5 2, pool 5 sep3 0 > 1 3 4 6",
        "sep3 1 pool 0, pool 0 sep7 2, pool 1 pool 0, sep3 4 17 0, pool 1 sep7 0 > 2 3 4 5 6",
    ),
    "amoebanet_b": (
        "one 1 pool 1, id 1 sep3 0, one 1 sep3 0, one 2 id 2, pool 1 one 5 > 0 3 4 6",
        "pool 0 pool 0, id 2 33 1, sep5 2 pool 2, id 3 sep3 1, pool 4 one 3 > 5 6",
    ),
    "amoebanet_c": (
        "pool 0 sep3 0, id 0 sep3 0, pool 2 sep3 1, id 0 sep3 1, pool 3 sep3 0 > 1 2 4 5 6",
        "pool 0 pool 0, sep7 2 sep3 0, sep7 0 pool 1, sep5 4 sep5 4, pool 1 sep3 1 > 0 2 3 4 5 6",
    ),
    "amoebanet_d": (
        "one 1 pool 1, id 1 17 0, one 0 17 0, pool 2 id 2, pool 1 one 5 > 0 3 4 6",
        "pool 0 pool 0, id 2 33 1, 17 2 pool 2, id 3 pool 1, pool 2 one 3 > 4 5 6",
    ),
}


class Counter:
    """Weights and multiply-adds of square images, layer by layer, from the text of SLIM's skeleton."""

    def __init__(
        self, name: str, cells: int, filters: int, form: str, side: int, classes: int, multiplier: int
    ) -> None:
        self.weights = self.multiply_adds = 0
        self.quarter = name.startswith("amoebanet")
        normal, reduction = (self.parsed(text) for text in TABLES[name])
        if form == "imagenet":
            channels, side = 32 * multiplier, (side - 3) // 2 + 1
        else:
            channels = multiplier * filters
        self.conv(3, channels, 9, side * side)
        outputs = [(channels, side)]
        if form == "imagenet":
            outputs.append(self.cell(reduction, filters // 4, outputs[-1], None, 2))
            outputs.append(self.cell(reduction, filters // 2, outputs[-1], outputs[-2], 2))
        # The large network's cell after a reduction reads what stood before the reduction's own input; of stacks of two
        # cells and more that has the same shape.
        skips = form == "imagenet" and name == "nasnet_a" and multiplier == 3
        for number in range(3 * cells):
            older = outputs[-2] if len(outputs) > 1 else None
            if number in (cells, 2 * cells):
                filters *= 2
                outputs.append(self.cell(reduction, filters, outputs[-1], older, 2))
                older = older if skips else outputs[-2]
            outputs.append(self.cell(normal, filters, outputs[-1], older, 1))
        self.weights += (outputs[-1][0] + 1) * classes
        self.multiply_adds += outputs[-1][0] * classes

    @staticmethod
    def parsed(text: str) -> tuple[list[list[str]], list[int]]:
        blocks, joined = text.split(" > ")
        return [block.split() for block in blocks.split(", ")], [int(k) for k in joined.split()]

    def conv(self, channels: int, filters: int, window: int, places: int) -> None:
        """A convolution and its batch norm."""
        self.weights += channels * filters * window + 2 * filters
        self.multiply_adds += channels * filters * window * places

    def cell(
        self,
        definition: tuple[list[list[str]], list[int]],
        filters: int,
        now: tuple[int, int],
        past: tuple[int, int] | None,
        stride: int,
    ) -> tuple[int, int]:
        blocks, joined = definition
        side = now[1]
        self.conv(now[0], filters, 1, side * side)
        states = [(filters, side)]
        if past is None:
            states.append(now)
        elif past[1] != side or past[0] != filters:  # two halves of F/2, or one projection: as many weights
            self.conv(past[0], filters, 1, side * side)
            states.append((filters, side))
        else:
            states.append(past)
        end = -(-side // stride)
        for one, left, other, right in blocks:
            for operation, k in ((one, int(left)), (other, int(right))):
                self.operation(operation, states[k], filters, stride if k < 2 else 1)
            states.append((filters, end))
        for k in joined:
            if k < 2 and states[k] != (filters, end):
                self.conv(states[k][0], filters, 1, end * end)
        return filters * len(joined), end

    def operation(self, name: str, state: tuple[int, int], filters: int, stride: int) -> None:
        channels, side = state
        end = -(-side // stride)
        places = end * end
        if name in ("pool", "id"):
            if channels != filters or (name == "id" and stride > 1):
                self.conv(channels, filters, 1, places)
        elif name == "one":
            self.conv(channels, filters, 1, places)
        elif name.startswith("sep"):
            window = int(name[3]) ** 2
            for depth in (channels, filters):
                self.weights += depth * window
                self.multiply_adds += depth * window * places
                self.conv(depth, filters, 1, places)
        else:
            assert self.quarter
            narrow = filters // 4
            self.conv(channels, narrow, 1, side * side)
            if name == "33":
                self.conv(narrow, narrow, 9, places)
            else:
                self.conv(narrow, narrow, 7, side * end)
                self.conv(narrow, narrow, 7, places)
            self.conv(narrow, filters, 1, places)


@pytest.mark.parametrize(
    ("counted", "weights", "multiply_adds"),
    [
        (("nasnet_a", 6, 32, "cifar", 32, 10, 3), 3_346_538, 544_333_312),
        (("nasnet_a", 4, 44, "imagenet", 224, 1000, 1), 5_289_978, 563_638_816),
        (("amoebanet_a", 6, 32, "cifar", 32, 10, 3), 2_567_754, None),
        (("amoebanet_a", 6, 36, "cifar", 32, 10, 3), 3_218_266, None),
    ],
)
def test_the_second_count_gives_the_published_sizes(counted: Any, weights: int, multiply_adds: int | None) -> None:
    count = Counter(*counted)
    assert count.weights == weights
    assert multiply_adds in (None, count.multiply_adds)


@pytest.mark.parametrize("name", sorted(TABLES))
@pytest.mark.parametrize(
    ("cells", "filters", "form", "side", "classes"),
    [
        (6, 36, "cifar", 32, 10),
        (4, 44, "cifar", 32, 100),
        (7, 96, "cifar", 32, 10),
        (2, 12, "cifar", 27, 5),
        (4, 48, "imagenet", 224, 1000),
        (4, 44, "imagenet", 224, 1000),
        (6, 190, "imagenet", 331, 1000),
        (6, 228, "imagenet", 331, 1000),
        (3, 64, "imagenet", 299, 17),
    ],
)
def test_every_size_is_that_of_the_second_count(
    name: str, cells: int, filters: int, form: str, side: int, classes: int
) -> None:
    network = published(name, {"cells": cells, "filters": filters, "form": form})
    plan = plan_of(network.architecture, Task((3, side, side), classes))
    multiplier = network.architecture["skeleton"]["stem_multiplier"]
    if form == "cifar":
        assert multiplier == 3
    else:
        assert multiplier == (3 if name == "nasnet_a" and filters > 44 else 1)
    count = Counter(name, cells, filters, form, side, classes, multiplier)
    assert (plan.parameters, plan.multiply_adds) == (count.weights, count.multiply_adds)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(sorted(TABLES)),
    st.integers(1, 4),
    st.integers(4, 30).map(lambda k: 4 * k),  # below 16 the narrowest stem has no quarter of its filters
    st.sampled_from(["cifar", "imagenet"]),
    st.integers(20, 80),
)
def test_and_so_is_any_other(name: str, cells: int, filters: int, form: str, side: int) -> None:
    network = published(name, {"cells": cells, "filters": filters, "form": form})
    plan = plan_of(network.architecture, Task((3, side, side), 7))
    multiplier = network.architecture["skeleton"]["stem_multiplier"]
    count = Counter(name, cells, filters, form, side, 7, multiplier)
    assert (plan.parameters, plan.multiply_adds) == (count.weights, count.multiply_adds)


# --- the recipes --------------------------------------------------------------------------------------------------------

NAMES = ("nasnet", "nasnet-desk", "amoebanet", "amoebanet-non-aging", "amoebanet-desk")


def test_the_papers_numbers() -> None:
    nasnet, amoebanet, control = (get_recipe(name) for name in ("nasnet", "amoebanet", "amoebanet-non-aging"))
    assert (nasnet.budget.trials, nasnet.evaluator.epochs, nasnet.space.cells) == (20_000, 20, 2)  # type: ignore[attr-defined]
    assert nasnet.searcher == PPO(learning_rate=3.5e-4, minibatch=20, hidden=100, layers=1, entropy_weight=1e-5)
    assert nasnet.finish is not None
    assert nasnet.finish.top == 250
    assert nasnet.finish.epochs * 50_000 / nasnet.evaluator.batch_size == 937_500  # type: ignore[attr-defined,operator]
    space: Any = amoebanet.space
    assert (amoebanet.budget.trials, amoebanet.evaluator.epochs) == (20_000, 25)  # type: ignore[attr-defined]
    assert (space.cells, space.filters, len(space.operations), space.combinations) == (3, 24, 8, ("add",))
    assert amoebanet.searcher == RegularizedEvolution(population=100, sample=25)
    assert control.searcher == RegularizedEvolution(population=100, sample=25, aging=False)
    assert replace(control, name=amoebanet.name, summary=amoebanet.summary, searcher=amoebanet.searcher) == amoebanet


def test_what_finishing_builds_is_the_published_skeleton() -> None:
    """The found cells in networks of the published depth and width, with their auxiliary head and drop-path."""
    for name, network in (
        ("nasnet", discovered.nasnet_a(auxiliary=0.4)),
        ("amoebanet", discovered.amoebanet_a(auxiliary=0.5)),
    ):
        recipe = get_recipe(name)
        assert recipe.finish is not None
        space: Any = recipe.finish.stacked(recipe.space)
        assert (space.cells, space.filters) == (network.architecture["cells"], network.architecture["filters"])
        assert space.skeleton() == network.architecture["skeleton"]


@pytest.mark.parametrize("name", NAMES)
def test_a_child_of_each_recipe_takes_its_steps(name: str) -> None:
    """Its own settings, on a few small images in narrow networks; in the search and in the finish."""
    recipe = get_recipe(name)
    assert recipe.finish is not None
    evaluator: Any = replace(recipe.evaluator, data="digits", epochs=1, max_train=40, batch_size=18, size=None)  # type: ignore[type-var]
    for space in (recipe.space, recipe.finish.stacked(recipe.space)):
        space = replace(space, cells=1, filters=4)  # type: ignore[type-var]
        result = evaluator.evaluate(space, sample(space, Random(1)), RecordingContext())
        assert math.isfinite(result.metrics["train_loss"])
        assert 0 <= recipe.reward(result) <= 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["nasnet-desk", "amoebanet-desk"])
def test_a_desk_is_as_small_as_it_says(name: str) -> None:
    recipe: Any = get_recipe(name)
    assert recipe.scale == "desk"
    assert recipe.evaluator.max_train == 5000
    assert recipe.evaluator.epochs == 2
    assert f"{recipe.budget.trials} children of 2 epochs" in recipe.summary
    assert f"N={recipe.space.cells} F={recipe.space.filters}" in recipe.summary
    assert recipe.space.blocks == 5  # nothing of the papers' choices is left out
    assert len(recipe.space.operations) == len(get_recipe(name.removesuffix("-desk")).space.operations)  # type: ignore[attr-defined]


# --- a finish in larger networks ----------------------------------------------------------------------------------------

TINY = replace(ImageClassification.desk("digits", epochs=1), max_train=120, precision="fp32", clip=5.0)
SPACE = NASNetCell(blocks=1, cells=1, filters=2)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search of two children, finished in wider networks with an auxiliary head."""
    store = f"sqlite:///{tmp_path_factory.mktemp('stacked') / 'runs.db'}"
    run = smith.search(SPACE, TINY, searcher=RandomSearch(), trials=2, store=store, name="cells")
    plan = FinishPlan(top=2, epochs=1, seeds=1, space={"filters": 6, "auxiliary": 0.4, "drop_path_keep": 0.8})
    return run, smith.finish(run, plan=plan)


def test_a_finish_stacks_what_was_searched_into_larger_networks(stacked: Any, tmp_path: Path) -> None:
    run, finished = stacked
    found = smith.Genotype.from_json(finished.found.genotype)
    assert found.space["options"]["filters"] == 6
    assert found.space["options"]["auxiliary"] == 0.4
    assert found.answers in [trial.genotype.answers for trial in run.trials()]
    assert finished.found.parameters == smith.describe(found, input_shape=(1, 8, 8)).parameters
    assert finished.found.parameters > max(t.result.metrics["parameters"] for t in run.trials())
    assert "The networks differ from those of the search: " in finished.claim
    model = load(smith.export(run, path=tmp_path / "model"))
    assert model.parameters == finished.found.parameters
    assert model.space["filters"] == 6
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.deployed()(x), model_of(run).deployed()(x))


def test_what_was_stacked_is_carried_over_as_it_was_finished(stacked: Any) -> None:
    from archsmith._transfer.found import source_of

    run, finished = stacked
    source = source_of(run)
    assert source.architecture["filters"] == 6
    assert source.candidates[0].weights == (finished.model.artifact,)


def test_a_plan_that_does_not_fit_the_space_is_refused(stacked: Any) -> None:
    run, _ = stacked
    for options, message in (
        ({"colour": 3}, "changes 'colour' of the space, and NASNetCell has no such option"),
        ({"blocks": 2}, "does not take what was searched"),
        ({"filters": 0}, "filters of NASNetCell"),
    ):
        with pytest.raises(UsageError, match=message):
            smith.finish(run, plan=FinishPlan(space=options), again=True)
    with pytest.raises(UsageError, match="must map options of the space"):
        FinishPlan(space=("cells", 6))  # type: ignore[arg-type]


def test_a_plan_survives_its_record() -> None:
    plan = get_recipe("nasnet").finish
    again = from_config(json.loads(json.dumps(to_config(plan))), {"core.FinishPlan": FinishPlan}.__getitem__)
    assert to_config(again) == to_config(plan)
    assert again.stacked(SPACE) == plan.stacked(SPACE)  # type: ignore[union-attr]


# --- clipping, and averages that forget in time -------------------------------------------------------------------------


class Seen(torch.optim.SGD):
    """Keeps the norm of the gradients that it is given."""

    norms: list[float] = []  # noqa: RUF012

    def step(self, closure: Any = None) -> Any:
        grads = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        Seen.norms.append(float(torch.stack(grads).norm()))
        return super().step(closure)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_gradients_are_clipped_by_the_norm_of_all_of_them(clip: float | None) -> None:
    Seen.norms.clear()
    torch.manual_seed(0)
    model = build(SPACE, sample(SPACE, Random(0)), TINY.task()).model
    replace(TINY, clip=clip).train(Child(model, optimizer=Seen), RecordingContext())
    assert Seen.norms
    if clip is None:
        assert min(Seen.norms) > 0.01
    else:
        assert max(Seen.norms) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, "5", True])
def test_a_clip_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="clip"):
        replace(TINY, clip=value)


def norms(decay: float) -> Iterator[torch.nn.BatchNorm2d]:
    yield torch.nn.BatchNorm2d(2, momentum=1 - decay)


@pytest.mark.parametrize(
    ("decay", "steps", "expected"),
    [(0.9997, 300, 0.9), (0.9997, 3000, 0.99), (0.9997, 250_000, None), (0.9, 10, None), (0.99, 10, 0.9)],
)
def test_averages_forget_within_a_thirtieth_of_a_training(decay: float, steps: int, expected: float | None) -> None:
    model = torch.nn.Sequential(*norms(decay), torch.nn.BatchNorm2d(2, momentum=None))
    with forgetting_within(model, steps) as used:
        assert used is None if expected is None else used == pytest.approx(expected)
        assert model[0].momentum == pytest.approx(1 - (expected or decay))
        assert model[1].momentum is None
    assert model[0].momentum == pytest.approx(1 - decay)


def test_a_short_training_with_the_decay_of_imagenet_is_measured_by_what_it_learned() -> None:
    """With a decay of 0.9997 as it is, the averages would still be those of no data at all."""
    evaluator = replace(ImageClassification.desk("digits", epochs=6), precision="fp32", learning_rate=0.05, flip=False)
    space = NASNetCell(blocks=1, cells=1, filters=6, batch_norm_decay=0.9997)
    torch.manual_seed(0)
    model = build(space, sample(space, Random(3)), evaluator.task()).model
    own = [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    result = evaluator.train(Child(model), RecordingContext())
    assert result.metrics["batch_norm_decay"] == pytest.approx(0.9)  # 126 steps
    assert result.metrics["accuracy"] > 0.5 * result.curve[-1]["train_accuracy"] > 0.25  # chance is 0.1
    assert own == [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


# --- published networks without a search --------------------------------------------------------------------------------


def test_a_published_network_comes_in_other_sizes() -> None:
    described = smith.describe("nasnet_a", cells=6, filters=168, form="imagenet")
    assert (described.parameters, described.multiply_adds) == (88_753_150, 23_783_414_658)
    assert described.task == Task((3, 331, 331), 1000)
    assert smith.describe("amoebanet_a", filters=32).parameters == 2_567_754
    genotype = sample(NASNetCell(cells=1, filters=4), Random(0))
    wide = smith.describe(genotype, cells=2, filters=8)
    assert wide.parameters == smith.describe(replace_space(genotype, cells=2, filters=8)).parameters
    assert wide.genotype is None


def replace_space(genotype: smith.Genotype, **options: Any) -> smith.Genotype:
    space = {**genotype.space, "options": {**genotype.space["options"], **options}}
    return smith.Genotype(space, genotype.answers)


def test_sizes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="nasnet_a has no width to choose"):
        published("nasnet_a", {"width": 2.0})
    with pytest.raises(UsageError, match="nasnet_a_mobile has no cells to choose"):
        smith.describe("nasnet_a_mobile", cells=3)
    with pytest.raises(UsageError, match="cells cannot be chosen of ConvChain"):
        smith.describe(sample(smith.spaces.ConvChain(layers=2), Random(0)), cells=3)
    with pytest.raises(UnknownName, match="nasnet_b"):
        published("nasnet_b")
    with pytest.raises(UsageError, match="cells of NASNetCell"):
        Published("nasnet_a", cells=0)


def test_a_published_space_has_one_network_and_survives_its_record() -> None:
    space = Published("nasnet_a", cells=1, filters=4, auxiliary=0.4)
    first, second = (sample(space, Random(k)) for k in (0, 1))
    assert first == second
    assert decode(space, first) == discovered.nasnet_a(1, 4, auxiliary=0.4).architecture
    assert from_config(json.loads(json.dumps(to_config(space))), resolve) == space
    assert smith.describe(first).parameters == smith.describe("nasnet_a", cells=1, filters=4).parameters


def test_a_published_network_is_finished_on_ones_own_data(tmp_path: Path) -> None:
    """Chosen by validation, the hand-designed network beside it, tested once; then exported like any other."""
    space, store = Published("nasnet_a", cells=1, filters=2), f"sqlite:///{tmp_path / 'runs.db'}"
    data = str(tmp_path / "mine.npz")
    draws = np.random.default_rng(0)
    np.savez(data, x_train=draws.integers(0, 256, (60, 8, 8), np.uint8), y_train=np.arange(60) % 3)
    finished = smith.finish(space, data=data, store=store, epochs=1, seeds=1)
    assert finished.run == "nasnet_a-mine"
    assert [n.name for n in finished.networks] == ["found", "residual network"]
    assert "Nothing was searched: nasnet_a was published" in finished.claim
    assert finished.looks == 1
    assert smith.finish(space, data=data, store=store, epochs=1, seeds=1).to_json() == finished.to_json()
    run = smith.open_run(store, "nasnet_a-mine")
    model = load(smith.export(run, path=tmp_path / "model"))
    assert model.space["type"] == "spaces.NASNetCell"
    assert model.genotype is None
    assert model.architecture["filters"] == 2
    with pytest.raises(UsageError, match="of another network, seed or settings"):
        smith.finish(Published("nasnet_a", cells=1, filters=3), data=data, store=store, epochs=1)


def test_what_a_published_network_is_trained_by() -> None:
    assert plan_for(Published("nasnet_a_mobile")).space == {"auxiliary": 0.4}
    assert plan_for(Published("metaqnn_top")).space == {}
    assert evaluator_for(Published("nasnet_a"), "digits").size is None
    assert evaluator_for(Published("nasnet_a_mobile"), "digits").size == 224
    assert evaluator_for(Published("nasnet_a_mobile"), "digits", size=96).size == 96
    with pytest.raises(UsageError, match="nas_cell reads no images"):
        evaluator_for(Published("nas_cell"), "ptb")
    with pytest.raises(UsageError, match="is trained on your data"):
        smith.finish("nasnet_a")


SMALL = {"cells": 1, "filters": 2, "input_shape": (3, 9, 9), "num_classes": 4}


@pytest.mark.parametrize("format", ["pytorch", "source"])
def test_an_untrained_network_is_written_from_a_seed_and_says_so(format: str, tmp_path: Path) -> None:
    from archsmith._export.source import load_source

    places = [tmp_path / str(k) for k in range(3)]
    for place, seed in zip(places, (3, 3, 4), strict=True):
        smith.export("nasnet_a", format=format, path=place, seed=seed, **SMALL)  # type: ignore[arg-type]
    networks = [load_source(p) if format == "source" else load(p).deployed() for p in places]
    x = torch.rand(2, 3, 9, 9)
    first, same, other = (network(x) for network in networks)
    assert first.shape == (2, 4)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert (
        "Nothing was trained: these weights were drawn at random from seed 3." in (places[0] / "README.md").read_text()
    )
    if format == "source":
        assert "import archsmith" not in (places[0] / "model.py").read_text()
        assert "Nothing was trained" in (places[0] / "model.py").read_text()


def test_an_untrained_network_as_onnx_gives_what_torch_gives(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    genotype = sample(NASNetCell(blocks=2, cells=1, filters=4), Random(2))
    place = smith.export(genotype, format="onnx", path=tmp_path / "net", input_shape=(3, 9, 9), num_classes=4)
    card = json.loads((place / "model.json").read_text())
    assert card["checked"]["largest_relative_difference"] < 1e-4
    assert card["card"]["untrained"] == {"seed": 0}


def test_what_cannot_be_written_untrained_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="filters is of a network of images"):
        smith.export("nas_cell", format="source", filters=3)
    with pytest.raises(UsageError, match="seed of an export"):
        smith.export("nasnet_a", seed=-1)
    with pytest.raises(UsageError, match="num_classes must be at least 2"):
        smith.export("nasnet_a", num_classes=1)
    smith.export("nasnet_a", path="net", **SMALL)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cells cannot be chosen of a network that was trained"):
        smith.export("net", cells=2)


@pytest.mark.parametrize(
    "name", [n for n in sorted(NETWORKS) if n.startswith(("nas", "amoebanet", "metaqnn", "mnasnet"))]
)
def test_every_published_network_has_a_drawing_and_a_description(name: str) -> None:
    from archsmith._describe import diagram_of

    assert diagram_of(name).nodes
    assert smith.describe(name).parameters > 1_000_000
