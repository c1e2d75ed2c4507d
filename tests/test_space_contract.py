"""The contract of spaces: every variant of the chain of convolutions keeps it, and a space that breaks a promise fails."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from archsmith.core.child import Task, TextTask, TranslationTask
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import ArchsmithError, IllegalGenotype
from archsmith.core.genotype import Genotype
from archsmith.core.space import FunctionSpace
from archsmith.spaces import ConvChain, RecurrentCell
from archsmith.spaces.chain_plan import LAYER_TYPES
from archsmith.spaces.conv_chain import LEARNING_RATES
from archsmith.testing import SpaceContract

SMALL = {"filters": (2, 3), "filter_heights": (1, 3), "filter_widths": (1, 5)}


class TestConvChain(SpaceContract):
    def space(self) -> Any:
        return ConvChain(layers=4, **SMALL)

    def wrong_architectures(self) -> Any:
        return (None, [], {}, {"kind": "cell"}, {"kind": "conv_chain", "layers": []})


class TestStrides(SpaceContract):
    def space(self) -> Any:
        return ConvChain(layers=4, strides=(1, 2, 3), **SMALL)


class TestBlocksAndPools(SpaceContract):
    samples = 3

    def space(self) -> Any:
        return ConvChain(layers=3, block=3, pools=(1, 2), extra_filters=1, **SMALL)


class TestLayerTypes(SpaceContract):
    def space(self) -> Any:
        return ConvChain(layers=5, strides=(1, 2), layer_types=LAYER_TYPES, learning_rates=LEARNING_RATES, **SMALL)


class TestDepths(SpaceContract):
    samples = 3

    def space(self) -> Any:
        return ConvChain(depths=(2, 4), skips=False, **SMALL)


class TestRecurrentCell(SpaceContract):
    def space(self) -> Any:
        return RecurrentCell.enlarged(4)

    def tasks(self) -> Any:
        return (
            TextTask(7, hidden=3),
            TextTask(5, parameters=400, layers=1, tied=True),
            TextTask(9, hidden=2, embedding=4),
            TranslationTask(6, 7, hidden=3),
        )

    def wrong_architectures(self) -> Any:
        return (None, [], {}, {"kind": "cell"}, {"kind": "recurrent_cell", "nodes": []})


def plain(choose: Any) -> list[Any]:
    return [choose(f"{i}.size", (1, 3)) for i in range(2)]


class TestPlainFunction(SpaceContract):
    builds = False

    def space(self) -> Any:
        return FunctionSpace(plain)


# --- spaces that break one promise each -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sound:
    """Two linear layers; what the broken ones below differ from."""

    def architecture(self, choose: Any) -> Any:
        return {"widths": [choose(f"{i}.width", (4, 8)) for i in range(2)]}

    def build(self, architecture: Any, task: Task) -> Any:
        import math

        from torch import nn

        first, second = architecture["widths"]
        inputs = math.prod(task.input_shape)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, first), nn.Linear(first, second), nn.Linear(second, task.num_classes)
        )

    def diagram(self, architecture: Any) -> Diagram:
        return Diagram("two", (Node("a", "a", role="input"), Node("b", "b", role="output")), (Edge("a", "b"),))


class SoundContract(SpaceContract):
    samples = 3
    broken: type[Any] = Sound

    def space(self) -> Any:
        return self.broken()


class TestSound(SoundContract):
    pass


class AsksTwice(Sound):
    def architecture(self, choose):
        return [choose("width", (4, 8)), choose("width", (4, 8))]


class OffersNothing(Sound):
    def architecture(self, choose):
        return {"widths": [4, 8]}


_calls = itertools.count()


class Remembers(Sound):
    def architecture(self, choose):
        return {**super().architecture(choose), "call": next(_calls)}


class HoldsTuples(Sound):
    def architecture(self, choose):
        return {"widths": tuple(super().architecture(choose)["widths"])}


class KeepsAnObject(Sound):
    def architecture(self, choose):
        return {"widths": [choose("0.width", (4, float("nan"))), 8]}


class HoldsALock(Sound):
    def __init__(self) -> None:
        object.__setattr__(self, "function", lambda: None)


@dataclass(frozen=True)
class AddressInOptions(Sound):
    thing: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thing", object())


class Guesses(Sound):
    def architecture(self, choose):
        try:
            return super().architecture(choose)
        except IllegalGenotype:
            return {"widths": [4, 4]}


class MutatesToItself(Sound):
    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        return genotype


class MutatesOutside(Sound):
    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        return Genotype(genotype.space, {**genotype.answers, "0.width": 5})


class MutatesItsParent(Sound):
    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        genotype.answers["0.width"] = 12 - genotype.answers["0.width"]  # type: ignore[index]
        return Genotype(genotype.space, {**genotype.answers, "1.width": 12 - genotype.answers["1.width"]})


class MutatesAsItLikes(Sound):
    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        name = f"{next(_calls) % 2}.width"
        return Genotype(genotype.space, {**genotype.answers, name: 12 - genotype.answers[name]})


class OneClassTooMany(Sound):
    def build(self, architecture, task):
        return super().build(architecture, Task(task.input_shape, task.num_classes + 1))


class Infinite(Sound):
    def build(self, architecture, task):
        import torch

        model = super().build(architecture, task)
        torch.nn.init.constant_(model[-1].bias, float("inf"))
        return model


class DeadParts(Sound):
    def build(self, architecture, task):
        import torch

        model = super().build(architecture, task)
        model[1].unused = torch.nn.Linear(2, 2)
        return model


class OtherNames(Sound):
    def build(self, architecture, task):
        import torch

        model = super().build(architecture, task)
        return torch.nn.Sequential(*[torch.nn.Identity()] * (next(_calls) % 2), model)


class SeedsItself(Sound):
    def build(self, architecture, task):
        import torch

        torch.manual_seed(7)
        return super().build(architecture, task)


class IgnoresTheSeed(Sound):
    def build(self, architecture, task):
        import torch

        torch.manual_seed(next(_calls))
        return super().build(architecture, task)


class ChangesTheArchitecture(Sound):
    def build(self, architecture, task):
        model = super().build(architecture, task)
        architecture["widths"].append(0)
        return model


class BuildsAnything(Sound):
    def build(self, architecture, task):
        return super().build(architecture or {"widths": [4, 4]}, task)


class DrawsNoOutput(Sound):
    def diagram(self, architecture):
        return Diagram("two", (Node("a", "a"), Node("b", "b")), (Edge("a", "b"),))


class DrawsALooseEnd(Sound):
    def diagram(self, architecture):
        return Diagram("two", (Node("a", "a"), Node("b", "b", role="output")), ())


class DrawsDifferently(Sound):
    def diagram(self, architecture):
        return Diagram(f"{next(_calls)}", (Node("a", "a"), Node("b", "b", role="output")), (Edge("a", "b"),))


BREAKERS = [
    (AsksTwice, "test_questions_are_well_formed"),
    (OffersNothing, "test_questions_are_well_formed"),
    (KeepsAnObject, "test_questions_are_well_formed"),
    (Remembers, "test_the_same_answers_give_the_same_questions_and_architecture"),
    (HoldsTuples, "test_an_architecture_is_plain_json"),
    (KeepsAnObject, "test_a_genotype_survives_json"),
    (HoldsALock, "test_the_space_can_be_sent_to_another_process"),
    (AddressInOptions, "test_equal_spaces_have_equal_identities"),
    (Guesses, "test_wrong_answers_are_refused"),
    (MutatesToItself, "test_mutants_are_legal_and_differ"),
    (MutatesOutside, "test_mutants_are_legal_and_differ"),
    (MutatesItsParent, "test_mutants_are_legal_and_differ"),
    (MutatesAsItLikes, "test_mutants_are_legal_and_differ"),
    (OneClassTooMany, "test_children_give_finite_logits"),
    (Infinite, "test_children_give_finite_logits"),
    (DeadParts, "test_every_parameter_learns"),
    (OtherNames, "test_a_rebuilt_child_takes_the_weights"),
    (SeedsItself, "test_weights_are_drawn_from_the_current_seed"),
    (IgnoresTheSeed, "test_weights_are_drawn_from_the_current_seed"),
    (ChangesTheArchitecture, "test_weights_are_drawn_from_the_current_seed"),
    (BuildsAnything, "test_wrong_architectures_are_refused"),
    (DrawsNoOutput, "test_the_drawing_is_well_formed"),
    (DrawsALooseEnd, "test_the_drawing_is_well_formed"),
    (DrawsDifferently, "test_the_drawing_is_well_formed"),
]


class BrokenContract(SoundContract):
    def __init__(self, broken: type[Any]) -> None:
        self.broken = broken

    def wrong_architectures(self) -> Any:
        return (None,)


@pytest.mark.parametrize(("broken", "promise"), BREAKERS, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_promise_fails_its_test(broken: type[Any], promise: str) -> None:
    failures = (
        AssertionError,
        ArchsmithError,
        ValueError,
        RuntimeError,
        AttributeError,
        TypeError,
        pytest.fail.Exception,
    )
    with pytest.raises(failures):
        getattr(BrokenContract(broken), promise)()


def test_every_promise_is_broken_by_someone() -> None:
    promises = {name for name in dir(SpaceContract) if name.startswith("test_")}
    assert promises == {promise for _, promise in BREAKERS}


def test_a_contract_without_a_space_says_so() -> None:
    with pytest.raises(NotImplementedError, match="override space"):
        SpaceContract().test_questions_are_well_formed()
