"""Spaces and genotypes: walks, refusals, mutation, enumeration, scripts, kinds, and keys that stay."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.child import Child, Task
from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Genotype, canonical_json
from archsmith.core.space import (
    FunctionSpace,
    as_space,
    build,
    decode,
    enumerate_genotypes,
    identity,
    mutate,
    next_question,
    sample,
    script,
    space_size,
    trace,
)
from archsmith.core.walk import RandomWalk, RecordingWalk, ReplayWalk, kind_of
from archsmith.spaces import ConvChain

GOLDEN = Path(__file__).parent / "golden" / "genotype_keys.json"


def mixed(choose: Any, layers: int = 3) -> list[dict[str, Any]]:
    """A function with everything: conditions, references, a plain subset, options of several types."""
    out = []
    for i in range(layers):
        layer = {"type": choose(f"{i}.type", ("conv", "pool"))}
        if layer["type"] == "conv":
            layer["size"] = choose(f"{i}.size", (1, 3, 5))
        layer["inputs"] = choose.subset(f"{i}.inputs", range(i))
        out.append(layer)
    return [*out, {"rate": choose("rate", (0.1, 1, True, None, "auto")), "extras": choose.subset("extras", ("a", "b"))}]


def tiny(choose: Any) -> tuple[Any, ...]:
    return (
        choose("0.size", (1, 3)),
        choose.subset("0.inputs", ()),
        choose("1.size", (1, 3)),
        choose.subset("1.inputs", range(1)),
    )


MIXED, TINY = FunctionSpace(mixed), FunctionSpace(tiny)


# --- genotypes --------------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
genotypes = st.builds(
    Genotype,
    st.fixed_dictionaries(
        {"name": st.text(), "version": st.integers(), "options": st.dictionaries(st.text(), scalars)}
    ),
    st.dictionaries(st.text(), scalars | st.lists(scalars)),
)


@given(genotypes)
def test_any_genotype_survives_json(genotype: Genotype) -> None:
    again = Genotype.from_json(json.loads(json.dumps(genotype.to_json())))
    assert again == genotype
    assert (again.key, hash(again), again.canonical) == (genotype.key, hash(genotype), genotype.canonical)
    assert Genotype.from_json(genotype.canonical) == genotype
    assert list(again.answers) == list(genotype.answers)  # the order asked is kept for people to read


@given(genotypes, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(genotype: Genotype, random: Random) -> None:
    names = list(genotype.answers)
    random.shuffle(names)
    assert Genotype(genotype.space, {name: genotype.answers[name] for name in names}) == genotype


@pytest.mark.parametrize(
    "value",
    [None, 3, [], "", "{", "[]", "3", {}, {"space": {}}, {"space": {}, "answers": {}}, {"space": {"name": 3}, "answers": {}},
     {"space": {"name": "x"}, "answers": []}, {"space": {"name": "x"}, "answers": {}, "more": 1}, "[" * 10**5, "1" * 5000],
)  # fmt: skip
def test_what_is_no_genotype_is_refused(value: object) -> None:
    with pytest.raises(IllegalGenotype, match="a genotype"):
        Genotype.from_json(value)


def test_answers_of_array_libraries_are_plain_json() -> None:
    """As a searcher that draws with NumPy proposes them."""
    answers = {"n": np.int64(3), "f": np.bool_(True), "k": np.str_("a"), "s": np.array([0, 2]), "t": (np.int8(1),)}
    genotype = Genotype({"name": "x"}, answers)  # type: ignore[arg-type]
    plain = Genotype({"name": "x"}, {"n": 3, "f": True, "k": "a", "s": [0, 2], "t": [1]})
    assert (genotype.answers, genotype.key) == (plain.answers, plain.key)
    assert {type(answer) for answer in genotype.answers.values()} == {int, bool, str, list}


def test_nan_has_no_canonical_text() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": math.nan})


def test_keys_stay_what_they_were() -> None:
    """Stores refer to genotypes by key. Only a new version of a space may change these."""
    found = {
        name: [sample(space, Random(seed)).key for seed in range(3)]
        for name, space in (("v1", ConvChain.v1()), ("v2", ConvChain.v2()), ("v3", ConvChain.v3()), ("mixed", MIXED))
    }
    assert found == json.loads(GOLDEN.read_text())


# --- walks and refusals -----------------------------------------------------------------------------------------------


def test_a_random_walk_is_uniform() -> None:
    rng = Random(0)
    counts: Counter[Any] = Counter()
    for _ in range(4000):
        answers = sample(TINY, rng).answers
        counts[answers["0.size"]] += 1
        counts[tuple(answers["1.inputs"])] += 1  # type: ignore[arg-type]
    assert all(abs(counts[value] - 2000) < 150 for value in (1, 3, (), (0,)))


def test_a_replay_gives_back_what_was_answered() -> None:
    for seed in range(20):
        genotype = sample(MIXED, Random(seed))
        architecture = decode(MIXED, genotype)
        assert MIXED.architecture(ReplayWalk(genotype.answers)) == architecture
        assert [q.name for q in trace(MIXED, genotype.answers)] == list(genotype.answers)


ANSWERS = {
    "0.type": "conv", "0.size": 3, "0.inputs": [], "1.type": "pool", "1.inputs": [0], "2.type": "conv", "2.size": 1,
    "2.inputs": [0, 1], "rate": 0.1, "extras": ["a"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.size": 4}, "choice '0.size' must be one of 1, 3, 5, got 4"),
        ({"0.size": "3"}, "'0.size' must be one of 1, 3, 5, got '3'"),
        ({"0.size": True}, "'0.size' must be one of 1, 3, 5, got True"),
        ({"0.size": [3]}, "got [3]"),
        ({"0.size": None}, "got None"),
        ({"2.inputs": [1, 0]}, "'2.inputs' must be a list, in option order, of any of 0, 1, got [1, 0]"),
        ({"2.inputs": [0, 0]}, "got [0, 0]"),
        ({"2.inputs": [2]}, "got [2]"),
        ({"2.inputs": [True]}, "got [True]"),
        ({"2.inputs": 1}, "got 1"),
        ({"2.inputs": None}, "got None"),
        ({"2.inputs": "01"}, "got '01'"),
        ({"0.inputs": [0]}, "nothing (an empty list), got [0]"),
        ({"rate": False}, "got False"),
        ({"3.type": "conv"}, "no choice '3.type' here"),
        ({"1.size": 3}, "no choice '1.size' here"),
        ({"0.size": ...}, "the genotype has no answer to choice '0.size'; it must be one of 1, 3, 5"),
        ({"2.inputs": ...}, "no answer to choice '2.inputs'"),
    ],
)
def test_an_answer_that_is_not_allowed_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    answers = {name: value for name, value in {**ANSWERS, **change}.items() if value is not ...}
    with pytest.raises(IllegalGenotype) as refusal:
        decode(MIXED, Genotype(identity(MIXED), answers))
    assert words in str(refusal.value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [nested(100_000), [10**5000], "x" * 10**6, list(range(10**5))])
def test_what_is_refused_fits_in_its_message(value: Any) -> None:
    asked = identity(MIXED)
    for space, answers in (
        (asked, {**ANSWERS, "0.size": value}),
        ({**asked, "version": value}, ANSWERS),
        ({**asked, "options": {"a": value}}, ANSWERS),
    ):
        with pytest.raises(IllegalGenotype) as refusal:
            decode(MIXED, Genotype.from_json({"space": space, "answers": answers}))
        assert len(str(refusal.value)) < 500


def test_an_answer_keeps_its_type() -> None:
    for value in (0.1, 1, True, None, "auto"):
        (*_, last) = decode(MIXED, Genotype(identity(MIXED), {**ANSWERS, "rate": value}))
        assert last["rate"] is value or (last["rate"] == value and type(last["rate"]) is type(value))
    (first, *_) = decode(MIXED, Genotype(identity(MIXED), {**ANSWERS, "0.size": 3.0}))
    assert type(first["size"]) is int  # JSON of another language may write 3.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other"}, "its name is 'other'"),
        ({"version": 2}, "its version is 2"),
        ({"options": {"a": 1}}, "its options is"),
        ({"more": 1}, "name, version and options only"),
    ],
)
def test_a_genotype_of_another_space_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(IllegalGenotype, match=words):
        decode(MIXED, Genotype({**identity(MIXED), **change}, ANSWERS))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda c: [c("a", (1, 2)), c("a", (1, 2))], "asked choice 'a' twice"),
        (lambda c: [c("a", (1, 2)), c.subset("a", (1, 2))], "asked choice 'a' twice"),
        (lambda c: c("a", ()), "'a' has no options"),
    ],
)
def test_a_space_that_asks_wrongly_is_told_so_by_every_walk(function: Any, words: str) -> None:
    for walk in (RandomWalk(Random(0)), ReplayWalk({"a": 1}), RecordingWalk(lambda q: () if q.subset else 0)):
        with pytest.raises(UsageError, match=words):
            function(walk)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a", (1, 1), "differ"),
        ("a", (1, 1.0), "differ"),  # JSON may write one as the other
        ("a", (math.nan,), "finite"),
        ("a", ((1, 2),), "must be text"),
        ("a", ({},), "must be text"),
        (3, (1, 2), "must be text, got 3"),
    ],
)
def test_recording_checks_the_options(name: Any, options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RecordingWalk(lambda q: 0)(name, options)


def test_true_and_one_are_options_of_their_own() -> None:
    walk = RecordingWalk(lambda q: 1)
    assert walk("a", (1, True, 2.0)) is True

    def space(choose: Any) -> list[Any]:
        some = choose.subset("some", (1, True, 2))
        return [some, "more", choose("b", (5, 6))] if choose("a", (1, True)) is True else [some]

    both = as_space(space)
    for genotype in enumerate_genotypes(both):
        architecture = decode(both, genotype)
        asked = [question.name for question in trace(both, genotype.answers)]
        assert repr(architecture[0]) == repr(genotype.answers["some"])
        assert asked == list(genotype.answers) == (["some", "a", "b"] if "more" in architecture else ["some", "a"])
    seen = {repr(mutate(both, genotype, Random(k)).answers) for k in range(200)}
    assert genotype.answers == {"some": [1, True, 2], "a": True, "b": 6}
    assert seen == {
        "{'some': [True, 2], 'a': True, 'b': 6}",
        "{'some': [1, 2], 'a': True, 'b': 6}",
        "{'some': [1, True], 'a': True, 'b': 6}",
        "{'some': [1, True, 2], 'a': 1}",
        "{'some': [1, True, 2], 'a': True, 'b': 5}",
    }


# --- kinds and references ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("3.filters", "filters"),
        ("filters", "filters"),
        ("normal.3.op.1", "normal.op"),
        ("10", "choice"),
        ("a1.b", "a1.b"),
    ],
)
def test_the_kind_of_a_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_kind_may_be_given() -> None:
    walk = RecordingWalk(lambda q: 0)
    walk("a.3", (1, 2), kind="mine")
    assert walk.questions[0].kind == "mine"


def test_a_subset_refers_to_earlier_steps_of_its_kind_or_stands_alone() -> None:
    walk = RecordingWalk(lambda q: ())
    for i in range(3):
        walk.subset(f"{i}.inputs", range(i))
    walk.subset("extras", ("a", "b"))
    walk.subset("0.others", (0, 1))  # numbers, but no step of this kind came before
    walk.subset("3.inputs", (0, 2))
    assert [q.refers for q in walk.questions] == [True, True, True, False, False, True]


# --- mutation ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_a_mutant_differs_in_one_choice_and_what_follows_from_it(seed: int) -> None:
    parent = sample(MIXED, Random(seed))
    mutant = mutate(MIXED, parent, Random(seed + 1))
    decode(MIXED, mutant)
    both = parent.answers.keys() & mutant.answers.keys()
    changed = [
        name
        for name in both
        if parent.answers[name] != mutant.answers[name] or type(parent.answers[name]) is not type(mutant.answers[name])
    ]
    assert len(changed) == 1
    for name in parent.answers.keys() ^ mutant.answers.keys():
        assert name == changed[0].replace("type", "size")  # asked anew, or gone, because the type changed
    if isinstance(parent.answers[changed[0]], list):
        assert len(set(parent.answers[changed[0]]) ^ set(mutant.answers[changed[0]])) == 1  # type: ignore[arg-type]


def test_every_choice_that_can_change_changes_equally_often() -> None:
    parent = sample(TINY, Random(0))
    counts: Counter[str] = Counter()
    for seed in range(3000):
        mutant = mutate(TINY, parent, Random(seed))
        counts.update(name for name in parent.answers if parent.answers[name] != mutant.answers[name])
    assert set(counts) == {"0.size", "1.size", "1.inputs"}  # 0.inputs has nothing to choose
    assert all(abs(count - 1000) < 120 for count in counts.values())


def test_a_space_without_a_choice_gives_the_parent_back() -> None:
    only = FunctionSpace(lambda choose: choose("a", (1,)))
    parent = sample(only, Random(0))
    assert mutate(only, parent, Random(0)) is parent


def test_a_space_may_mutate_in_its_own_way() -> None:
    @dataclass(frozen=True)
    class Own:
        def architecture(self, choose: Any) -> Any:
            return choose("a", (1, 2, 3))

        def build(self, architecture: Any, task: Task) -> Any:
            raise NotImplementedError

        def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
            return Genotype(genotype.space, {"a": 3})

    assert mutate(Own(), Genotype(identity(Own()), {"a": 1}), Random(0)).answers == {"a": 3}


# --- enumeration, scripts and size ------------------------------------------------------------------------------------


def test_enumeration_gives_each_genotype_once() -> None:
    small = FunctionSpace(partial(mixed, layers=2))
    found = list(enumerate_genotypes(small))
    assert len(found) == len(set(found)) == (3 + 1) * (3 + 1) * 2 * 5 * 4
    for genotype in found[::7]:
        decode(small, genotype)
    assert {sample(small, Random(seed)) for seed in range(300)} <= set(found)


def test_enumeration_of_a_scripted_space_has_its_size() -> None:
    space = ConvChain(layers=2, filter_heights=(1, 3), filter_widths=(1,), filters=(4, 8, 16))
    assert len(list(enumerate_genotypes(space))) == space_size(space) == (2 * 3) ** 2 * 2


def test_a_script_is_found_where_questions_do_not_depend_on_answers() -> None:
    questions = script(TINY)
    assert questions is not None
    assert [q.name for q in questions] == ["0.size", "0.inputs", "1.size", "1.inputs"]
    assert script(MIXED) is None
    assert space_size(MIXED) is None
    assert space_size(TINY) == 8


@pytest.mark.parametrize(
    "function",
    [
        lambda c: c("a", (1, 2)) == 2 and c("b", (1, 2)),  # one more question
        lambda c: [c("a", (1, 2, 3)), c("b", (1, 2) if c("c", range(50)) != 37 else (1, 2, 3))],  # rare: other options
        lambda c: c.subset("a", ("x", "y", "z")) == ["y"] and c("b", (1, 2)),  # depends on one member alone
    ],
)
def test_a_dependence_on_one_answer_is_always_noticed(function: Any) -> None:
    assert script(FunctionSpace(function)) is None


def test_the_next_question_after_a_prefix() -> None:
    question, walk = next_question(MIXED, [])
    assert question is not None
    assert question.name == "0.type"
    assert walk.answers == {}
    question, _ = next_question(MIXED, [1])
    assert question is not None
    assert question.name == "0.inputs"
    question, walk = next_question(TINY, [0, (), 1, (0,)])
    assert question is None
    assert walk.answers == {"0.size": 1, "0.inputs": [], "1.size": 3, "1.inputs": [0]}


# --- what a space is called, and building -----------------------------------------------------------------------------


def test_identities() -> None:
    assert identity(ConvChain(layers=2))["name"] == "ConvChain"
    assert identity(ConvChain(layers=2))["options"]["layers"] == 2
    assert identity(MIXED) == {"name": "mixed", "version": 1, "options": {}}
    assert identity(FunctionSpace(partial(partial(mixed, layers=2)))) == {
        "name": "mixed",
        "version": 1,
        "options": {"layers": 2},
    }
    assert identity(ConvChain(layers=2)) == identity(ConvChain(layers=2)) != identity(ConvChain(layers=3))


def test_what_is_a_space() -> None:
    assert as_space(ConvChain(layers=2)) == ConvChain(layers=2)
    assert isinstance(as_space(tiny), FunctionSpace)
    with pytest.raises(UsageError, match="got the class ConvChain"):
        as_space(ConvChain)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="builds its own children"):
        as_space(ConvChain(), build=lambda a, t: None)
    with pytest.raises(UsageError, match="or a function of choose"):
        as_space(3)  # type: ignore[arg-type]


def test_a_function_builds_with_what_it_was_given() -> None:
    import torch

    space = as_space(tiny, build=lambda architecture, task: torch.nn.Linear(architecture[0], task.num_classes))
    child = build(space, Genotype(identity(space), {"0.size": 3, "0.inputs": [], "1.size": 1, "1.inputs": []}), Task())
    assert isinstance(child, Child)
    assert child.model.in_features == 3
    assert build(space, (1, [], 1, []), Task()).model.in_features == 1
    with pytest.raises(UsageError, match="nothing builds its children"):
        build(TINY, (1, [], 1, []), Task())
