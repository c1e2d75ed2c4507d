"""The space of training recipes: its questions, the settings that follow, known recipes, and a search together with a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import archsmith as smith
from archsmith import searchers
from archsmith._describe import diagram_of
from archsmith.core.child import Child, Task, TextTask
from archsmith.core.errors import ArchsmithError, UnknownName, UsageError
from archsmith.core.finish import FinishPlan
from archsmith.core.parts import PartSpace, canonical
from archsmith.core.space import LocatesArchitectures, decode, identity, sample, space_size, trace
from archsmith.discovered import RESIDUAL
from archsmith.nn.augmentation.autoaugment_tables import TABLES
from archsmith.nn.models import model_named
from archsmith.spaces import Activation, ConvChain, OneOf, Product, ResidualNetwork, TrainingRecipe
from archsmith.spaces.training_recipe.architecture import POLICIES
from archsmith.testing import SpaceContract

SPACE, DESK = TrainingRecipe(), TrainingRecipe.desk()
MODERN = DESK.standards()["modern"]
TASK = Task((3, 64, 64), 5)
SMALL = ResidualNetwork(
    stages=(1, 2), blocks=("basic",), depths=(1,), widths=(8,), kernels=(3,), stem_filters=(8,), stem_kernels=(3,)
)


class TestSpace(SpaceContract):
    samples = 3

    def space(self) -> TrainingRecipe:
        return TrainingRecipe(model="resnet8")

    def wrong_architectures(self) -> Any:
        return (None, [], {}, {"kind": "cell"}, {"kind": "training_recipe"}, recipe(optimizer={"name": "sgd"}))


class TestWithANetwork(SpaceContract):
    samples = 2

    def tasks(self) -> Any:
        return (Task((3, 16, 16), 4), Task((1, 8, 8), 2))

    def space(self) -> Product:
        return Product(SMALL, DESK)


def recipe(**changes: Any) -> dict[str, Any]:
    assert MODERN is not None
    return {**MODERN, **changes}


def settings(architecture: Any, task: Task = TASK) -> dict[str, Any]:
    return dict(SPACE.edit(architecture, Child(torch.nn.Identity()), task).settings)


# --- the questions ----------------------------------------------------------------------------------------------------


def test_it_is_a_space_of_a_part_that_locates_architectures() -> None:
    assert isinstance(SPACE, PartSpace)
    assert isinstance(SPACE, LocatesArchitectures)
    assert space_size(SPACE) is None, "what is asked depends on the optimizer and the crops"


@pytest.mark.parametrize("space", [SPACE, DESK], ids=["full", "desk"])
def test_only_what_applies_is_asked(space: TrainingRecipe) -> None:
    for seed in range(40):
        genotype = sample(space, Random(seed))
        names = {question.name for question in trace(space, genotype.answers)}
        optimizer = genotype.answers["optimizer.name"]
        assert {f"{optimizer}.learning_rate"} == {name for name in names if name.endswith("learning_rate")}
        assert "sgd.momentum" not in names, "one option is not asked"
        architecture = decode(space, genotype)
        assert ("momentum" in architecture["optimizer"]) == (optimizer in ("sgd", "muon"))
        area = architecture["augmentation"]["crop"] == "resized"
        assert ("crop_area" in architecture["augmentation"]) == area
        assert ("augmentation.crop_area" in names) == (area and space is SPACE)
        assert space.genotype(architecture) == genotype
        assert json.loads(json.dumps(architecture)) == architecture


def test_momentum_is_asked_of_sgd_alone() -> None:
    space = TrainingRecipe(sgd_momentums=(0.0, 0.9))
    asked = {sample(space, Random(seed)).answers.get("sgd.momentum") for seed in range(30)}
    assert asked == {0.0, 0.9, None}
    plain = recipe(optimizer={**recipe()["optimizer"], "momentum": 0.0})
    assert settings(plain)["nesterov"] is False


def test_the_same_recipe_is_one_child() -> None:
    assert canonical(SPACE, recipe()) == canonical(SPACE, json.loads(json.dumps(recipe())))
    assert canonical(SPACE, recipe()) != canonical(SPACE, recipe(average=0.0))


# --- the settings -----------------------------------------------------------------------------------------------------


def test_a_recipe_decides_the_settings_and_keeps_the_rest_of_the_child() -> None:
    model = torch.nn.Identity()
    child = SPACE.edit(recipe(), Child(model, inherits=True, settings={"clip": 5.0, "average": 0.5}), TASK)
    assert child.model is model
    assert child.inherits
    assert child.learning_rate == pytest.approx(0.1)
    assert dict(child.settings) == {
        "optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "decay_norms": False,
        "batch_size": 64, "label_smoothing": 0.1, "crop": "resized", "crop_area": 0.35, "flip": None, "colour": 0.3,
        "policy": None, "mix": None, "pad": 0.0, "upsample": 1.0, "average": 0.998, "schedule": "cosine", "warmup": 0.0,
        "warmup_share": 0.15, "train_size": None, "first_size": None, "clip": 5.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("side", "train", "first", "sides"),
    [
        (64, 1.0, 1.0, (None, None)),
        (64, 0.75, 1.0, (48, None)),
        (64, 1.0, 0.5, (None, 32)),
        (96, 0.75, 0.5, (72, 32)),
        (28, 1.0, 1.0, (None, None)),
        (28, 0.75, 1.0, (24, None)),
        (28, 1.0, 0.5, (None, 16)),
        (8, 0.75, 0.5, (None, None)),
        (5, 0.75, 0.5, (None, None)),
        (224, 0.75, 0.5, (168, 80)),
    ],
)
def test_sizes_are_parts_of_the_evaluators_in_steps_of_8(side: int, train: float, first: float, sides: Any) -> None:
    its = settings(recipe(size={"train": train, "first": first}), Task((3, side, side + 3), 2))
    assert (its["train_size"], its["first_size"]) == sides


def test_the_learning_rate_follows_the_batch_size() -> None:
    def rate(optimizer: str, batch: int) -> float | None:
        own = {"name": optimizer, "learning_rate": 0.01, "weight_decay": 0.0, "decay_norms": False}
        own |= {"momentum": 0.9} if optimizer == "sgd" else {}
        architecture = recipe(optimizer=own, batch_size=batch)
        return SPACE.edit(architecture, Child(torch.nn.Identity()), TASK).learning_rate

    assert [rate("sgd", batch) for batch in (16, 64, 256)] == pytest.approx([0.0025, 0.01, 0.04])
    assert [rate("adamw", batch) for batch in (16, 64, 256)] == pytest.approx([0.005, 0.01, 0.02])


def test_a_network_that_is_trained_alone_is_the_named_one() -> None:
    child = smith.spaces.TrainingRecipe(model="resnet8").build(recipe(), TASK)
    assert type(child.model) is type(model_named("resnet8", TASK))
    with pytest.raises(UsageError, match="networks for images"):
        SPACE.build(recipe(), TextTask(10, hidden=4))
    with pytest.raises(UsageError, match="is for images"):
        SPACE.edit(recipe(), Child(torch.nn.Identity()), Task((7,), 2))


# --- known recipes ----------------------------------------------------------------------------------------------------


def test_known_recipes_are_points_and_have_the_published_settings() -> None:
    for name, architecture in SPACE.standards().items():
        assert decode(SPACE, SPACE.genotype(architecture)) == architecture, name
    assert decode(DESK, DESK.genotype(MODERN)) == MODERN
    plain, autoaugment = (
        SPACE.edit(SPACE.standards()[name], Child(torch.nn.Identity()), TASK) for name in ("plain", "autoaugment")
    )
    assert plain.learning_rate == autoaugment.learning_rate == pytest.approx(0.1)
    of = {
        "batch_size": 128,
        "weight_decay": 1e-4,
        "crop": "shift",
        "pad": 0.125,
        "schedule": "step",
        "decay_norms": True,
    }
    assert {name: plain.settings[name] for name in of} == of
    assert plain.settings["decay_at"] == [0.5, 0.75]
    assert autoaugment.settings["policy"] == "cifar10"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 96}, "batch_size is 96, not one of 32, 64, 128"),
        ({"average": 0.9}, "average is 0.9, not one of 0.0, 0.99, 0.998"),
        ({"schedule": {"name": "constant", "warmup": 0.0}}, "schedule.name is 'constant', not one of 'step'"),
    ],
)
def test_a_recipe_outside_of_the_space_is_refused_with_the_first_value_that_is_no_option(
    change: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        SPACE.genotype(recipe(**change))


def test_what_is_not_asked_must_fit_too() -> None:
    with pytest.raises(UsageError, match=r"schedule.warmup is 0.0, not one of 0.15"):
        DESK.genotype(recipe(schedule={"name": "cosine", "warmup": 0.0}))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": True}, {"batch_size": 1}, {"label_smoothing": 1.0}, {"label_smoothing": "x"}, {"average": -0.1},
        {"size": {"train": 0.0, "first": 1.0}}, {"size": {"train": 1.0}}, {"schedule": {"name": "cos", "warmup": 0.0}},
        {"schedule": {"name": "cosine", "warmup": 1.0}}, {"schedule": None}, {"optimizer": []}, {"augmentation": "none"},
        {"optimizer": {"name": "sgd", "learning_rate": 0.0, "weight_decay": 0.0, "decay_norms": True, "momentum": 0.9}},
        {"optimizer": {"name": "adamw", "learning_rate": 0.1, "weight_decay": 0.0, "decay_norms": True, "momentum": 0.9}},
        {"optimizer": {"name": "adamw", "learning_rate": float("inf"), "weight_decay": 0.0, "decay_norms": True}},
        {"augmentation": {"crop": "shift", "crop_area": 0.3, "flip": None, "colour": 0.0, "policy": None, "mix": None}},
        {"augmentation": {"crop": "shift", "flip": 1, "colour": 0.0, "policy": None, "mix": None}},
        {"augmentation": {"crop": "shift", "flip": None, "colour": None, "policy": None, "mix": None}},
        {"augmentation": {"crop": "shift", "flip": None, "colour": 0.0, "policy": "cifar", "mix": None}},
        {"other": 1},
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(change: Any) -> None:
    for use in (SPACE.genotype, SPACE.formula, SPACE.diagram, SPACE.canonical, lambda a: SPACE.build(a, TASK)):
        with pytest.raises(ArchsmithError):
            use(recipe(**change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizers": ("adagrad",)}, "adagrad"),
        ({"optimizers": ()}, "tuple of different values"),
        ({"crops": "shift"}, "tuple of different values"),
        ({"batch_sizes": (64, 64)}, "tuple of different values"),
        ({"batch_sizes": (64.0,)}, "whole number"),
        ({"flips": (1,)}, "true or false or null"),
        ({"decay_norms": (None,)}, "true or false, got"),
        ({"policies": ("none",)}, "none"),
        ({"train_sizes": (1.5,)}, "at most 1"),
        ({"colours": (2.0,)}, "from 0 to 1"),
        ({"averages": (1.0,)}, "below 1"),
        ({"model": 3}, "name of a network"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, message: str) -> None:
    with pytest.raises((UsageError, UnknownName), match=message):
        TrainingRecipe(**options)


# --- to be read -------------------------------------------------------------------------------------------------------


def test_a_recipe_is_said_and_drawn(tmp_path: Path) -> None:
    said = SPACE.formula(recipe())
    assert said == (
        "resized crops from 35 % of the area, flips where the data allow them, colour 0.3; SGD with Nesterov momentum 0.9, "
        "batches of 64, weight decay 0.0005 (not of norms and biases), label smoothing 0.1; learning rate 0.1, cosine, "
        "warm-up over 15 %; moving average 0.998 of the weights"
    )
    for seed in range(30):
        architecture = decode(SPACE, sample(SPACE, Random(seed)))
        assert SPACE.formula(architecture)
        assert len(SPACE.diagram(architecture).nodes) >= 5
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(SPACE.genotype(MODERN).to_json()))
    assert smith.describe(path).learning_rate == pytest.approx(0.1)
    assert smith.describe(path).formula == said
    assert any("resized crops" in node.label for node in diagram_of(path).nodes)
    assert smith.describe(MODERN).formula == said


# --- together with a network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["resnet10_narrow", "resnet18_narrow"])
def test_a_known_network_is_a_point_of_a_product_with_the_modern_recipe(network: str) -> None:
    space = Product(ResidualNetwork.desk(), DESK)
    architecture = RESIDUAL[network]().architecture
    parts = {"ResidualNetwork": architecture, "TrainingRecipe": MODERN}
    genotype = space.genotype(architecture)
    assert decode(space, genotype) == {"kind": "product", "parts": parts}
    assert space.genotype({"kind": "product", "parts": parts}) == genotype
    either = Product(OneOf(ConvChain(layers=2), ResidualNetwork.desk()), DESK)
    assert decode(either, either.genotype(architecture))["parts"]["OneOf"]["architecture"] == architecture


def test_every_point_of_a_product_is_located() -> None:
    space = Product(SMALL, DESK)
    for seed in range(20):
        genotype = sample(space, Random(seed))
        assert space.genotype(decode(space, genotype)) == genotype


def test_a_product_refuses_what_it_cannot_locate() -> None:
    architecture = RESIDUAL["resnet50"]().architecture
    with pytest.raises(UsageError, match="ResidualNetwork: this network is no point of the space"):
        Product(ResidualNetwork.desk(), DESK).genotype(architecture)
    with pytest.raises(UsageError, match="does not say what Activation is"):
        Product(ResidualNetwork(), Activation()).genotype(architecture)
    chain = Product(ConvChain(layers=2), DESK)
    with pytest.raises(UsageError, match="part ConvChain cannot tell which answers"):
        chain.genotype(decode(chain, sample(chain, Random(0))))
    with pytest.raises(UsageError, match="the architecture of a product must be"):
        Product(Activation("wrn_16_1"), DESK).genotype(MODERN)


def test_the_best_network_of_an_earlier_search_is_a_first_point_of_a_product() -> None:
    space = Product(SMALL, DESK)
    networks = smith.search(SMALL, lambda a: float(len(a["stages"])), trials=3, store="memory://")
    run = smith.search(space, lambda a: 1.0, first=[networks], trials=1, store="memory://")
    parts = decode(space, next(run.trials()).genotype)["parts"]
    assert networks.best is not None
    assert parts == {"ResidualNetwork": decode(SMALL, networks.best.genotype), "TrainingRecipe": MODERN}


SEARCHERS: dict[str, Callable[[], Any]] = {
    "random": searchers.Random,
    "exhaustive": searchers.Exhaustive,
    "reinforce": lambda: searchers.Reinforce(minibatch=2),
    "ppo": lambda: searchers.PPO(minibatch=2, epochs=1),
    "evolution": lambda: searchers.RegularizedEvolution(population=3, sample=2),
    "bayesian optimization": lambda: searchers.BayesianOptimization(initial=3),
    "q-learning": lambda: searchers.QLearning.for_models(6),
    "tpe": lambda: searchers.Optuna("tpe"),
}
TINY = Product(
    ResidualNetwork(
        stages=(1,), blocks=("basic",), depths=(1,), widths=(8,), kernels=(3,), strides=(1,), se_ratios=(0.0,),
        stem_filters=(8,), stem_kernels=(3,), stem_strides=(1,), stem_pools=(False,), activations=("relu", "silu"),
        preactivations=(False,), shortcuts=("conv",),
    ),
    TrainingRecipe(
        sgd_learning_rates=(0.05, 0.1), adamw_learning_rates=(2e-3,), sgd_weight_decays=(5e-4,), adamw_weight_decays=(0.05,),
        decay_norms=(False,), batch_sizes=(16, 32), label_smoothings=(0.1,), crops=("shift", "resized"), crop_areas=(0.35,),
        flips=(None,), colours=(0.0,), policies=(None, "trivial"), mixes=(None,), train_sizes=(1.0,), first_sizes=(1.0,),
        averages=(0.9,), schedules=("cosine",), warmups=(0.2,),
    ),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.* before it learns from a result")
@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_searcher_searches_a_network_with_its_training(searcher: str) -> None:
    digits = smith.training.ImageClassification.desk("digits", epochs=1, max_train=60)
    run = smith.search(TINY, digits, searcher=SEARCHERS[searcher](), trials=2, store="memory://", name="r")
    assert run.summary.counts["done"] == 2
    run.resume(trials=3)
    trials = list(run.trials())
    assert len(trials) == 3
    for trial in trials:
        assert trial.result is not None
        assert trial.result.failure is None
        of = decode(TINY, trial.genotype)["parts"]["TrainingRecipe"]
        assert trial.result.settings["batch_size"] == of["batch_size"]
        assert trial.result.settings["policy"] == of["augmentation"]["policy"]


def test_policies_are_those_of_the_library() -> None:
    assert set(POLICIES) == {None, "trivial", *TABLES}
    assert identity(SPACE)["options"]["policies"] == list(POLICIES)


def test_recipes_alone_are_finished_beside_those_that_people_know_and_exported(tmp_path: Path) -> None:
    digits = smith.training.ImageClassification.desk("digits", epochs=1, max_train=60)
    space = TrainingRecipe(model="resnet8", batch_sizes=(16, 32))
    store = str(tmp_path / "runs.db")
    run = smith.search(space, digits, first=[MODERN | {"batch_size": 32}], trials=1, store=store, name="r")
    plan = FinishPlan(top=1, scale={"learning_rate": (0.5,), "weight_decay": (5.0,)}, epochs=1, seeds=1)
    finished = smith.finish(run, plan=plan)
    assert [network.name for network in finished.networks] == ["found", "modern", "muon", "plain", "autoaugment"]
    assert all(network.mean is not None for network in finished.networks)
    assert any("decides weight_decay" in note for note in finished.notes)
    page = run.report(tmp_path / "page.html").read_text()
    assert "resized crops from 35 % of the area" in page
    images = torch.rand(2, 1, 8, 8)
    for network in ("found", "modern"):
        model = smith.load(smith.export(run, tmp_path / network, network=network))
        assert model.deployed()(images).shape == (2, 10)
