"""Products of spaces: several parts in one genotype, for every searcher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import archsmith as smith
from archsmith import searchers
from archsmith._describe import diagram_of, space_of
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import IllegalGenotype, UnknownName, UsageError
from archsmith.core.finish import FinishPlan
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.parts import canonical
from archsmith.core.space import decode, identity, mutate, sample, script, space_size, trace
from archsmith.core.walk import Choose
from archsmith.nn.count import count_parameters
from archsmith.nn.models import model_named
from archsmith.spaces import (
    Activation,
    Augmentation,
    ConvChain,
    GrownGraph,
    GrownProduct,
    MobileBlocks,
    NASNetCell,
    Product,
    UpdateRule,
)
from archsmith.testing.space import SpaceContract


@dataclass(frozen=True)
class Rate:
    """A part: how fast the child learns."""

    model: str = "resnet20"

    def architecture(self, choose: Choose) -> Architecture:
        return {"mantissa": choose("mantissa", (1, 2, 5)), "exponent": choose("exponent", (-3, -2, -1))}

    def baseline(self, task: AnyTask) -> Child:
        assert isinstance(task, Task)
        return Child(model_named(self.model, task))

    def edit(self, architecture: Architecture, child: Child, task: AnyTask) -> Child:
        return replace(child, learning_rate=architecture["mantissa"] * 10.0 ** architecture["exponent"])

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        return self.edit(architecture, self.baseline(task), task)

    def standards(self) -> Mapping[str, Architecture | None]:
        return {"0.1": None}

    def canonical(self, architecture: Architecture) -> Any:
        return architecture["mantissa"] * 10.0 ** architecture["exponent"]


@dataclass(frozen=True)
class Warp(Rate):
    """Another part, of the same network: whether ReLUs are cut off at 6."""

    def architecture(self, choose: Choose) -> Architecture:
        return {"capped": choose("capped", (False, True))}

    def edit(self, architecture: Architecture, child: Child, task: AnyTask) -> Child:
        if architecture["capped"]:
            for module in child.model.modules():
                for name, inner in module.named_children():
                    if isinstance(inner, nn.ReLU):
                        setattr(module, name, nn.ReLU6())
        return child

    def canonical(self, architecture: Architecture) -> Any:
        return None


CHAIN = ConvChain(layers=3, filter_heights=(1, 3), filter_widths=(1, 3), filters=(4, 8))
MIXED = Product(CHAIN, Warp(), Rate())


class TestMixed(SpaceContract):
    def space(self) -> Product:
        return MIXED


class TestWithItsOwnMutations(SpaceContract):
    samples = 3

    def space(self) -> Product:
        return Product(Rate(), NASNetCell(blocks=2, cells=1, filters=2))


class TestOfPartsAlone(SpaceContract):
    samples = 3

    def space(self) -> Product:
        return Product(Warp(), Rate())


def test_each_part_is_asked_as_by_itself() -> None:
    questions = script(MIXED)
    assert questions is not None
    own = script(CHAIN)
    assert own is not None
    assert [q.name for q in questions[: len(own)]] == [f"ConvChain.{q.name}" for q in own]
    assert [q.kind for q in questions[: len(own)]] == [f"ConvChain.{q.kind}" for q in own]
    assert [q.refers for q in questions[: len(own)]] == [q.refers for q in own]
    size = space_size(CHAIN)
    assert size is not None
    assert space_size(MIXED) == size * 2 * 9


def test_the_child_has_every_part() -> None:
    genotype = sample(MIXED, Random(4))
    architecture = decode(MIXED, genotype)
    architecture["parts"]["Warp"]["capped"] = True
    child = MIXED.build(architecture, Task((1, 8, 8), 3))
    rate = architecture["parts"]["Rate"]
    assert child.learning_rate == pytest.approx(rate["mantissa"] * 10.0 ** rate["exponent"])
    kinds = {type(module) for module in child.model.modules()}
    assert nn.ReLU6 in kinds
    assert nn.ReLU not in kinds
    alone = Product(Rate(), Warp()).build(
        {"kind": "product", "parts": {"Rate": rate, "Warp": {"capped": False}}}, Task((1, 8, 8), 3)
    )
    assert alone.learning_rate == child.learning_rate
    assert nn.ReLU in {type(module) for module in alone.model.modules()}


def test_two_parts_of_one_kind_have_names_of_their_own() -> None:
    twice = Product(CHAIN, Rate(), Rate())
    assert twice.names == ("ConvChain", "Rate", "Rate2")
    names = [q.name for q in trace(twice, sample(twice, Random(0)).answers)]
    assert len(set(names)) == len(names)


def test_a_mutation_changes_one_part_and_every_part_in_time() -> None:
    genotype = sample(MIXED, Random(0))
    changed = set()
    for seed in range(200):
        other = mutate(MIXED, genotype, Random(seed))
        differ = {n.partition(".")[0] for n in genotype.answers if genotype.answers[n] != other.answers.get(n)}
        assert len(differ) == 1
        changed |= differ
    assert changed == {"ConvChain", "Warp", "Rate"}


def test_the_record_of_a_product_makes_it_again() -> None:
    record = json.loads(json.dumps(to_config(Product(CHAIN, CHAIN_PART))))
    assert from_config(
        record, lambda name: {"spaces.Product": Product, "spaces.ConvChain": ConvChain}.get(name, Rate)
    ) == (Product(CHAIN, CHAIN_PART))


CHAIN_PART = Rate("wrn_16_1")


def test_equal_children_have_one_canonical_form() -> None:
    architecture = decode(MIXED, sample(MIXED, Random(1)))
    other = json.loads(json.dumps(architecture))
    assert canonical(MIXED, architecture) == canonical(MIXED, other)
    other["parts"]["Warp"]["capped"] = not other["parts"]["Warp"]["capped"]
    assert canonical(MIXED, architecture) != canonical(MIXED, other)
    two = Product(CHAIN, Warp())
    assert canonical(two, decode(two, sample(two, Random(0)))) is None


@pytest.mark.parametrize("searcher", ["Random", "Reinforce", "PPO", "RegularizedEvolution", "QLearning"])
def test_every_searcher_takes_it(searcher: str) -> None:
    def reward(architecture: Architecture) -> float:
        return float(architecture["parts"]["Rate"]["mantissa"]) - len(json.dumps(architecture)) / 1e4

    run = smith.search(MIXED, reward, searcher=getattr(searchers, searcher)(), trials=40, store="memory://")
    assert run.best is not None
    assert run.best.reward == max(t.reward for t in run.trials() if t.reward is not None)


def test_a_finish_holds_a_found_part_against_its_standards_on_a_bigger_network(tmp_path: Path) -> None:
    run = smith.search(
        Rate("resnet20"),
        smith.training.ImageClassification.desk("digits", epochs=1, max_train=120),
        trials=2,
        store=f"sqlite:///{tmp_path / 'runs.db'}",
        name="rate",
    )
    plan = FinishPlan(top=1, space={"model": "wrn_16_1"}, epochs=1, seeds=2)
    done = smith.finish(run, plan=plan)
    assert [network.name for network in done.networks] == ["found", "0.1"]
    task = Task((1, 8, 8), 10)
    assert {network.parameters for network in done.networks} == {count_parameters(model_named("wrn_16_1", task))}
    assert [c.other for c in done.comparisons] == ["0.1"]
    assert "the 0.1" not in done.claim
    assert smith.finish(run, plan=plan).to_json() == done.to_json()
    with pytest.raises(UnknownName, match="did you mean 'rate'"):
        smith.finish("rates", store=run.store.url)


def test_the_diagram_shows_each_part_in_a_frame() -> None:
    drawn = MIXED.diagram(decode(MIXED, sample(MIXED, Random(0))))
    assert {node.group for node in drawn.nodes} == {"ConvChain", "Warp", "Rate"}


GROWN = Product(Rate(), GrownGraph())


@pytest.mark.parametrize("searcher", ["Random", "RegularizedEvolution", "LargeScaleEvolution"])
def test_a_product_with_a_grown_space_is_a_grown_space(searcher: str) -> None:
    run = smith.search(
        GROWN, lambda a: len(json.dumps(a)) / 1e4, searcher=getattr(searchers, searcher)(), trials=60, store="memory://"
    )
    assert {trial.state for trial in run.trials()} == {"done"}
    child = GROWN.build(decode(GROWN, list(run.trials())[-1].genotype), Task((1, 8, 8), 3))
    assert child.learning_rate is not None


def test_the_edits_of_a_grown_product_change_each_part() -> None:
    assert isinstance(GROWN, GrownProduct)
    seed = GROWN.seed()
    assert GROWN.seed() == seed
    assert decode(GROWN, seed) == decode(GROWN, Genotype.from_json(seed.to_json()))
    changed = {name: edit(seed, Random(0)) for name, edit in GROWN.edits.items()}
    assert {name.partition(".")[0] for name, made in changed.items() if made is not None} == {"Rate", "GrownGraph"}
    for name, made in changed.items():
        if made is not None:
            decode(GROWN, made)
            differ = {n for n in {*made.answers, *seed.answers} if made.answers.get(n) != seed.answers.get(n)}
            assert {n.partition(".")[0] for n in differ} <= {name.partition(".")[0]}


@pytest.mark.parametrize("searcher", ["Reinforce", "PPO", "QLearning"])
def test_a_controller_refuses_a_grown_product(searcher: str) -> None:
    with pytest.raises(UsageError, match="LargeScaleEvolution"):
        smith.search(GROWN, lambda a: 0.0, searcher=getattr(searchers, searcher)(), trials=4, store="memory://")


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ((), "two spaces or more"),
        ((CHAIN,), "two spaces or more"),
        ((CHAIN, CHAIN), "would each build one"),
        ((Rate(), Warp("wrn_16_1")), "resnet20 and wrn_16_1"),
        ((CHAIN, Rate), "spaces that build or edit"),
        ((CHAIN, "Rate"), "spaces that build or edit"),
        ((CHAIN, Product(CHAIN, Rate())), "no products themselves"),
    ],
)
def test_what_makes_no_child_is_refused(parts: tuple[Any, ...], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Product(*parts)


def test_answers_and_architectures_of_no_part_are_refused() -> None:
    genotype = sample(MIXED, Random(0))
    with pytest.raises(IllegalGenotype, match="Other"):
        mutate(MIXED, Genotype(identity(MIXED), {**genotype.answers, "Other.x": 1}), Random(0))
    wrongs: list[Any] = [{}, [], {"kind": "product", "parts": {"ConvChain": {}}}, {"kind": "chain", "parts": {}}]
    for wrong in wrongs:
        with pytest.raises(UsageError, match="architecture of"):
            MIXED.build(wrong, Task())


class Rectified(TorchFunctionMode):
    """Counts what a forward pass computes by ReLU, as a module or as a function."""

    times = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.times += "relu" in getattr(function, "__name__", "")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "space",
    [
        CHAIN,
        NASNetCell(cells=1, filters=4),
        NASNetCell(cells=1, filters=4, auxiliary=0.4),
        MobileBlocks(),
        GrownGraph(stem=4.0),
    ],
    ids=["chain", "cells", "cells with an auxiliary head", "mobile", "grown"],
)
def test_no_relu_of_a_searched_network_stays_beside_a_searched_activation(space: Any) -> None:
    product, sine = Product(space, Activation()), Activation().from_expression("sin(x) + x")
    architecture = decode(product, sample(product, Random(1)))
    architecture["parts"]["Activation"] = sine
    child = product.build(architecture, Task((3, 32, 32), 10))
    model = child.model.eval()
    with Rectified() as seen, torch.no_grad():
        getattr(model, "forward_with_auxiliary", model)(torch.randn(1, 3, 32, 32))
    assert seen.times == 0


def test_a_grown_network_without_a_relu_has_no_activation_yet() -> None:
    product = Product(GrownGraph(), Activation())
    assert isinstance(product, GrownProduct)
    child = product.build(decode(product, product.seed()), Task((3, 32, 32), 10))
    assert count_parameters(child.model) == 30_730


@pytest.mark.parametrize("builder", [CHAIN, GrownGraph(stem=4.0)], ids=lambda s: type(s).__name__)
def test_a_genotype_of_parts_is_described_and_drawn_from_its_json(builder: Any, tmp_path: Path) -> None:
    product = Product(builder, Activation(), UpdateRule(), Augmentation(sub_policies=2))
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps(sample(product, Random(3)).to_json()))
    assert space_of(Genotype.from_json(json.loads(path.read_text()))) == product
    assert smith.describe(path).parameters > 0
    assert {node.group for node in diagram_of(path).nodes} == set(product.names)


def test_every_sub_policy_of_a_product_is_drawn_between_what_is_before_and_after() -> None:
    product = Product(CHAIN, Augmentation(sub_policies=4))
    drawn = product.diagram(decode(product, sample(product, Random(0))))
    edges = {(edge.source.partition(".")[2], edge.target.partition(".")[2]) for edge in drawn.edges}
    for i in range(4):
        assert {("first", f"sub-policy {i}"), (f"sub-policy {i}", "cutout")} <= edges
    assert len(edges & {(f"sub-policy {i}", f"sub-policy {k}") for i in range(4) for k in range(4)}) == 0


def test_a_product_has_the_formulas_of_its_parts() -> None:
    product = Product(CHAIN, Activation(), UpdateRule())
    architecture = decode(product, sample(product, Random(0)))
    architecture["parts"]["Activation"] = Activation().from_expression("sin(x) + x")
    architecture["parts"]["UpdateRule"] = UpdateRule().from_expression("sign(g)")
    assert product.formula(architecture) == "Activation: sin(x) + x\nUpdateRule: sign(g)"
    latex = product.latex(architecture)
    assert latex is not None
    assert latex.count("\\\\") == 1
    without = Product(CHAIN, Rate())
    assert without.formula(decode(without, sample(without, Random(0)))) is None
    assert "formula" not in smith.describe(sample(Product(CHAIN, Augmentation()), Random(0))).to_json()
