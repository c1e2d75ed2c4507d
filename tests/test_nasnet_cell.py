"""NASNet's cells as a space: the questions, the papers' mutations, scaling, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith import searchers
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import IllegalGenotype, LimitExceeded, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import decode, identity, mutate, sample, script, space_size, trace
from archsmith.discovered import NETWORKS, amoebanet_a, nasnet_a, nasnet_a_mobile
from archsmith.nn.nasnet_layers import OPERATIONS as ALL_OPERATIONS
from archsmith.nn.nasnet_plan import plan_of
from archsmith.spaces import NASNetCell
from archsmith.spaces.nasnet_cell import AMOEBA_OPERATIONS, OPERATIONS, channels, scaled, scaled_to
from archsmith.testing.space import SpaceContract

CIFAR = Task((3, 32, 32), 10)


def cell(*blocks: tuple[int, int, str, str], out: list[int], combination: str = "add") -> dict[str, Any]:
    return {
        "blocks": [
            {"inputs": [a, b], "operations": [one, other], "combination": combination} for a, b, one, other in blocks
        ],
        "concatenated": out,
    }


def architecture(**changed: Any) -> dict[str, Any]:
    """A network of two plain cells, with parts of it changed."""
    whole = scaled(nasnet_a().architecture, cells=1, filters=4)
    plain = cell((0, 1, "conv_3x3", "identity"), out=[2])
    return {**whole, "normal": plain, "reduction": copy.deepcopy(plain), **changed}


BAD = {
    "no blocks": architecture(normal={"blocks": [], "concatenated": [0]}),
    "a later state": architecture(normal=cell((0, 2, "identity", "identity"), out=[2])),
    "a state that is no number": architecture(normal=cell((0, True, "identity", "identity"), out=[2])),
    "an unknown operation": architecture(normal=cell((0, 1, "conv_9x9", "identity"), out=[2])),
    "an operation that is a list": architecture(normal=cell((0, 1, ["identity"], "identity"), out=[2])),  # type: ignore[arg-type]
    "an unknown combination": architecture(normal=cell((0, 1, "identity", "identity"), out=[2], combination="mean")),
    "a lost state": architecture(normal=cell((0, 1, "identity", "identity"), (0, 1, "identity", "identity"), out=[3])),
    "nothing concatenated": architecture(normal=cell((0, 1, "identity", "identity"), out=[])),
    "concatenated twice": architecture(normal=cell((0, 1, "identity", "identity"), out=[2, 2])),
    "no cells": architecture(cells=0),
    "filters that are a fraction": architecture(filters=4.0),
    "too few filters for ImageNet": architecture(form="imagenet"),
    "another form": architecture(form="svhn"),
    "no skeleton": architecture(skeleton=None),
    "an option more": architecture(skeleton={**architecture()["skeleton"], "width": 2}),
    "a keep probability of 0": architecture(skeleton={**architecture()["skeleton"], "drop_path_keep": 0}),
    "NaN": architecture(skeleton={**architecture()["skeleton"], "auxiliary": math.nan}),
    "a key more": architecture(name="mine"),
    "another kind": {"kind": "conv_chain"},
    "a list": [1, 2],
}


class TestNASNetCell(SpaceContract):
    samples = 4

    def space(self) -> NASNetCell:
        return NASNetCell(blocks=3, cells=1, filters=2)

    def wrong_architectures(self) -> list[Any]:
        return list(BAD.values())


class TestAmoeba(SpaceContract):
    samples = 3

    def space(self) -> NASNetCell:
        return NASNetCell.amoeba(cells=1, filters=4)


class TestImageNetForm(SpaceContract):
    samples = 3

    def space(self) -> NASNetCell:
        return NASNetCell(blocks=2, cells=1, filters=8, form="imagenet", drop_path_keep=0.5, skip_reduction_input=True)


# --- the questions ----------------------------------------------------------------------------------------------------


def test_a_controller_takes_fifty_decisions() -> None:
    questions = script(NASNetCell())
    assert questions is not None
    assert len(questions) == 50  # 2 x 5 B
    assert [q.name for q in questions[:5]] == [
        f"normal.0.{what}" for what in ("hidden_state_1", "hidden_state_2", "operation_1", "operation_2", "combination")
    ]
    assert all(q.name.startswith("normal.") for q in questions[:25])
    assert all(q.name.startswith("reduction.") for q in questions[25:])
    assert Counter(q.kind for q in questions) == {"hidden_state": 20, "operation": 20, "combination": 10}
    assert [len(q.options) for q in questions if q.kind == "hidden_state"] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6] * 2


def test_the_sizes_of_both_spaces() -> None:
    one = math.prod((b + 2) ** 2 * 13**2 * 2 for b in range(5))
    assert space_size(NASNetCell()) == one**2
    assert f"{one:.4g}" == "2.287e+18"
    assert f"{one**2:.3g}" == "5.23e+36"
    one = math.prod((b + 2) ** 2 * 8**2 for b in range(5))
    assert space_size(NASNetCell.amoeba()) == one**2
    assert f"{one:.4g}" == "5.566e+14"
    assert f"{one**2:.4g}" == "3.098e+29"


def test_the_operations_are_the_papers() -> None:
    assert len(OPERATIONS) == 13
    assert len(AMOEBA_OPERATIONS) == 8
    assert set(OPERATIONS) | set(AMOEBA_OPERATIONS) < set(ALL_OPERATIONS)
    amoeba = NASNetCell.amoeba()
    assert (amoeba.blocks, amoeba.cells, amoeba.filters, amoeba.combinations) == (5, 3, 24, ("add",))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_what_nothing_reads_is_concatenated(seed: int, blocks: int) -> None:
    space = NASNetCell(blocks=blocks)
    found = decode(space, sample(space, Random(seed)))
    for kind in ("normal", "reduction"):
        read = {k for block in found[kind]["blocks"] for k in block["inputs"]}
        assert sorted({*read, *found[kind]["concatenated"]}) == list(range(blocks + 2))
        assert not read & set(found[kind]["concatenated"])


def test_a_genotype_of_another_stack_is_another_spaces() -> None:
    genotype = sample(NASNetCell(cells=2), Random(0))
    with pytest.raises(IllegalGenotype, match="option cells is 2, and that of the space NASNetCell is 6"):
        decode(NASNetCell(cells=6), genotype)


@pytest.mark.parametrize(
    "searcher", [searchers.PPO(), searchers.Reinforce(), searchers.RegularizedEvolution(population=2)]
)
def test_searchers_propose_cells(searcher: Any) -> None:
    space = NASNetCell()
    for proposal in searcher.start(space, 3).ask(4):
        assert len(proposal.genotype.answers) == 50
        decode(space, proposal.genotype)


# --- mutation ---------------------------------------------------------------------------------------------------------


def changes(space: NASNetCell, count: int) -> tuple[Counter[str], int]:
    """How often each slot of a genotype changed in so many mutations, and how often none did."""
    parent, rng = sample(space, Random(1)), Random(2)
    slots: Counter[str] = Counter()
    for _ in range(count):
        child = mutate(space, parent, rng)
        decode(space, child)  # which has no loops
        changed = [name for name, answer in child.answers.items() if answer != parent.answers[name]]
        assert len(changed) <= 1
        assert list(child.answers) == list(parent.answers)
        slots.update(changed)
    return slots, count - slots.total()


def test_mutations_are_those_of_the_paper() -> None:
    count = 20_000
    slots, none = changes(NASNetCell.amoeba(), count)
    assert abs(none / count - 0.05) < 4 * math.sqrt(0.05 * 0.95 / count)
    hidden = sum(n for name, n in slots.items() if "hidden_state" in name)
    assert abs(hidden / count - 0.475) < 4 * math.sqrt(0.475 * 0.525 / count)
    assert len(slots) == 40  # both cells, all blocks, both elements of each, alike
    for number in slots.values():
        assert abs(number - 0.95 * count / 40) < 5 * math.sqrt(0.95 * count / 40)


def test_combinations_mutate_where_they_are_chosen() -> None:
    count = 6_000
    slots, _ = changes(NASNetCell(), count)
    combined = sum(n for name, n in slots.items() if name.endswith("combination"))
    assert abs(combined / count - 0.95 / 3) < 0.03
    assert len(slots) == 50


def test_a_hidden_state_becomes_any_other_one() -> None:
    space = NASNetCell.amoeba()
    parent, rng = sample(space, Random(5)), Random(6)
    seen = set()
    for _ in range(4_000):
        child = mutate(space, parent, rng)
        seen.add(child.answers["normal.4.hidden_state_2"])
        if child == parent:
            assert child is parent
    assert seen == set(range(6))


def test_a_space_of_one_operation_still_mutates() -> None:
    space = NASNetCell(operations=("identity",), combinations=("add",), blocks=1)
    slots, none = changes(space, 400)
    assert set(slots) == {f"{c}.0.hidden_state_{k}" for c in ("normal", "reduction") for k in (1, 2)}
    assert none > 150  # half of the mutations find no other operation


def test_a_mutation_repeats_itself_from_its_seed() -> None:
    space = NASNetCell()
    parent = sample(space, Random(0))
    assert [mutate(space, parent, Random(k)) for k in range(20)] == [
        mutate(space, parent, Random(k)) for k in range(20)
    ]


# --- scaling ----------------------------------------------------------------------------------------------------------


def test_a_found_cell_moves_to_other_networks() -> None:
    space = NASNetCell(cells=2, filters=8)
    found = decode(space, sample(space, Random(3)))
    before = copy.deepcopy(found)
    large = scaled(found, cells=6, filters=64, form="imagenet", skeleton={"drop_path_keep": 0.7, "auxiliary": 0.4})
    assert found == before
    assert (large["normal"], large["reduction"]) == (found["normal"], found["reduction"])
    assert (large["cells"], large["filters"], large["form"]) == (6, 64, "imagenet")
    assert (
        large["skeleton"]
        == NASNetCell(form="imagenet", cells=6, filters=64, drop_path_keep=0.7, auxiliary=0.4).skeleton()
    )
    assert scaled(large, form="cifar", cells=2, filters=8, skeleton={"drop_path_keep": 1.0, "auxiliary": 0.0}) == found
    assert scaled(found) == found
    assert json.loads(json.dumps(large)) == large


def test_the_papers_name_of_a_size() -> None:
    assert channels(nasnet_a(6, 32).architecture) == 768
    assert channels(nasnet_a_mobile().architecture) == 1056
    assert channels(amoebanet_a(6, 190, "imagenet").architecture) == 3040


def test_the_mobile_budget_gives_the_mobile_network() -> None:
    mobile = nasnet_a_mobile().architecture
    wide = scaled(mobile, filters=100)
    assert scaled_to(wide, multiply_adds=563_638_816, input_shape=(3, 224, 224), num_classes=1000) == mobile
    narrower = scaled_to(wide, multiply_adds=563_638_815, input_shape=(3, 224, 224), num_classes=1000)
    assert narrower["filters"] == 40


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(10**6, 10**10), st.sampled_from(["cifar", "imagenet"]))
def test_no_wider_network_is_within_the_budget(seed: int, budget: int, form: str) -> None:
    space = NASNetCell(form=form, cells=1, filters=8)
    found = decode(space, sample(space, Random(seed)))
    task = Task((3, 40, 40), 10)
    try:
        fitted = scaled_to(found, multiply_adds=budget, input_shape=task.input_shape, num_classes=10)
    except UsageError:
        assert plan_of(scaled(found, filters=8), task).multiply_adds > budget
        return
    assert plan_of(fitted, task).multiply_adds <= budget
    wider = fitted["filters"] + (4 if form == "imagenet" else 1)
    assert wider > 8192 or plan_of(scaled(fitted, filters=wider), task).multiply_adds > budget


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cells": 0}, "cells of the scaled network must be a whole number from 1 to 64, got 0"),
        ({"filters": 4, "form": "imagenet"}, "in the form imagenet must be a whole number from 8"),
        ({"form": "large"}, "must be one of cifar, imagenet, got 'large'"),
        ({"skeleton": {"dropout": 0.5}}, "the skeleton of an architecture has the keys"),
        (
            {"skeleton": {"batch_norm_decay": 1.0}},
            "batch_norm_decay of an architecture must be a number at least 0 and below 1",
        ),
    ],
)
def test_networks_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scaled(architecture(), **change)


@pytest.mark.parametrize("budget", [0, -1, 1.5e9, True, "600M", 1000])
def test_budgets_that_no_network_has_are_refused(budget: Any) -> None:
    with pytest.raises(UsageError, match="multiply_adds must be a whole number of at least"):
        scaled_to(nasnet_a().architecture, multiply_adds=budget, input_shape=(3, 32, 32), num_classes=10)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": 0}, "blocks of NASNetCell must be a whole number from 1 to 32, got 0"),
        ({"operations": ()}, "operations of NASNetCell must be a tuple of different names"),
        ({"operations": "identity"}, "operations of NASNetCell must be a tuple"),
        ({"operations": ("identity", "identity")}, "different names"),
        ({"operations": ("sep_conv_9x9",)}, "operations of NASNetCell must be of identity, .*got 'sep_conv_9x9'"),
        ({"combinations": ("multiply",)}, "combinations of NASNetCell must be of add, concat, got 'multiply'"),
        ({"form": "mobile"}, "form of NASNetCell must be one of cifar, imagenet, got 'mobile'"),
        ({"cells": True}, "cells of NASNetCell must be a whole number from 1 to 64, got True"),
        ({"filters": 0}, "filters of NASNetCell"),
        ({"stem_multiplier": 0}, "stem_multiplier of NASNetCell"),
        ({"bottleneck": 1}, "bottleneck of NASNetCell must be true or false, got 1"),
        ({"drop_path_keep": 1.1}, "drop_path_keep of NASNetCell must be a number above 0 and at most 1, got 1.1"),
        ({"auxiliary": -0.1}, "auxiliary of NASNetCell must be a number from 0"),
        ({"auxiliary_scale": 0}, "auxiliary_scale of NASNetCell"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        NASNetCell(**options)


def test_lists_from_json_are_the_same_space() -> None:
    space = NASNetCell(operations=("identity", "conv_1x1"))
    assert NASNetCell(**json.loads(json.dumps(identity(space)["options"]))) == space
    assert replace(space, cells=3).skeleton() == space.skeleton()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (TextTask(vocabulary=10, hidden=4), "NASNetCell builds networks for images, and the task is a TextTask"),
        (Task((3,), 10), "NASNet reads images"),
    ],
)
def test_tasks_without_images_are_refused(task: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        NASNetCell().build(architecture(), task)


def test_images_that_the_form_cannot_read_are_refused() -> None:
    with pytest.raises(UsageError, match="the form imagenet needs images of at least 3x3, got 2x9; use cifar"):
        NASNetCell().build(architecture(form="imagenet", filters=8), Task((3, 2, 9), 2))


@pytest.mark.parametrize("changed", [{"filters": 8192}, {"cells": 64, "filters": 900}])
def test_what_is_too_large_is_refused_before_memory_is_taken(changed: dict[str, int]) -> None:
    with pytest.raises(LimitExceeded, match="numbers to train, and at most 2e"):
        NASNetCell().build(scaled(nasnet_a().architecture, **changed), CIFAR)


def test_images_that_are_too_large_are_refused() -> None:
    with pytest.raises(LimitExceeded, match="numbers that its convolutions give for each image") as refusal:
        NASNetCell().build(nasnet_a().architecture, Task((3, 4096, 4096), 10))
    assert refusal.value.reason == "memory"


# --- the drawing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith(("nasnet", "amoebanet"))])
def test_both_cells_are_drawn(name: str) -> None:
    network = NETWORKS[name]()
    diagram = network.space.diagram(network.architecture)  # type: ignore[attr-defined]
    assert {node.group for node in diagram.nodes} == {"normal cell", "reduction cell"}
    for kind in ("normal", "reduction"):
        into = sorted(int(e.source.split()[1]) for e in diagram.edges if e.target == f"{kind} output")
        assert into == network.architecture[kind]["concatenated"]
        operations = [node for node in diagram.nodes if node.group == f"{kind} cell" and node.id[-1] in "ab"]
        assert len(operations) == 10
    strided = {node.id.split()[0] for node in diagram.nodes if node.detail == "/ 2"}
    assert strided == {"reduction"}


def test_every_operation_has_a_caption() -> None:
    from archsmith.spaces.nasnet_diagram import caption

    captions = {caption(name)[0] for name in ALL_OPERATIONS}
    assert len(captions) == len(ALL_OPERATIONS)
    assert caption("conv_1x7_7x1") == ("1×7 7×1 conv", "conv")
    assert caption("dil_sep_conv_5x5") == ("5×5 dilated sep conv", "conv")


def test_questions_never_depend_on_answers() -> None:
    space = NASNetCell(blocks=3)
    known = script(space)
    ask: Callable[[int], Any] = lambda seed: trace(space, sample(space, Random(seed)).answers)  # noqa: E731
    assert all(tuple(ask(seed)) == known for seed in range(20))
    assert isinstance(sample(space, Random(0)), Genotype)
