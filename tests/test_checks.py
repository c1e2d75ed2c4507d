"""Arguments in the types that people have: numpy's and torch's numbers count as Python's, and what is none is named."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import archsmith as smith
from archsmith.core.checks import whole_number
from archsmith.core.errors import UsageError
from archsmith.core.space import FunctionSpace, decode, identity, mutate, sample, script, trace

OPTIONS: dict[str, Callable[[], Any]] = {
    "tuple": lambda: (1, 2, 4),
    "list": lambda: [1, 2, 4],
    "range": lambda: range(1, 4),
    "dict": lambda: {1: "a", 2: "b", 4: "c"},
    "keys": lambda: {1: "a", 2: "b", 4: "c"}.keys(),
    "values": lambda: {"a": 1, "b": 2, "c": 4}.values(),
    "generator": lambda: (2**i for i in range(3)),
    "map": lambda: map(int, "124"),
    "array": lambda: np.array([1, 2, 4]),
    "array of floats": lambda: np.array([0.5, 1.0, 2.0], np.float32),
    "array of texts": lambda: np.array(["a", "b"]),
    "array of bools": lambda: np.array([True, False]),
    "tensor": lambda: torch.tensor([1, 2, 4]),
    "scalars": lambda: (np.int64(1), np.int32(2), torch.tensor(4), np.float64(0.5), np.bool_(True), np.str_("x"), None),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_may_be_any_ordered_collection(kind: str) -> None:
    def space(choose: Any) -> dict[str, Any]:
        return {
            "one": choose("one", OPTIONS[kind]()),
            "some": choose.subset("some", OPTIONS[kind]()),
            "after": choose("after", (True, 1)),
        }

    live, rng = FunctionSpace(space), Random(0)
    questions = script(live)
    assert questions is not None
    for _ in range(8):
        genotype = sample(live, rng)
        genotype = mutate(live, genotype, rng, questions)
        assert tuple(trace(live, genotype.answers)) == questions
        read = smith.Genotype.from_json(genotype.canonical)
        assert decode(live, read) == decode(live, genotype) == dict(genotype.answers)
        plain = [genotype.answers["one"], *genotype.answers["some"]]  # type: ignore[misc]
        assert {type(answer) for answer in plain} <= {int, float, str, bool, type(None)}
    for searcher in (smith.searchers.Reinforce(minibatch=2), smith.searchers.RegularizedEvolution(population=2)):
        run = smith.search(space, lambda a: float(len(a["some"])), searcher=searcher, trials=6, store="memory://")
        assert run.summary.counts["done"] == 6


USED = (i for i in (1, 2))
MAPPED = map(int, "12")
REFUSED: dict[str, tuple[Any, str]] = {
    "a set": ({1, 2}, "set, which has no order"),
    "a frozen set": (frozenset("ab"), "frozenset, which has no order"),
    "a number": (5, r"must be a sequence such as \(8, 16\), got 5; write \(value,\)"),
    "nothing": (None, "must be a sequence .* got None"),
    "a text": ("relu", r"sequence of letters; write \('relu',\) for a single option"),
    "an array without dimensions": (np.array(3), "must be a sequence"),
    "rows": (np.eye(2), "must be text, finite numbers"),
    "a read generator": (USED, "generator that was read before"),
    "a read map": (MAPPED, "map that was read before"),
    "an enumeration": (enum.Enum("Colour", "RED GREEN"), "must be text, finite numbers"),
    "no options": (np.array([]), "has no options"),
    "too many": (range(10**9), "more than 1,000,000 options"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_list_of_options_is_refused_with_a_sentence(kind: str) -> None:
    options, words = REFUSED[kind]
    for searcher in (None, smith.searchers.Exhaustive(), smith.searchers.Reinforce()):
        with pytest.raises(UsageError, match=words):
            smith.search(lambda c: c("a", options), lambda a: 1.0, searcher=searcher, trials=2, store="memory://")


def test_numbers_of_numpy_and_torch_count_as_numbers(tmp_path: Path) -> None:
    space = smith.spaces.ConvChain(layers=np.int64(3), filters=(np.int64(8), 16))  # type: ignore[arg-type]
    assert identity(space) == identity(smith.spaces.ConvChain(layers=3, filters=(8, 16)))
    run = smith.search(
        space,
        smith.training.Landscape(),
        searcher=smith.searchers.RegularizedEvolution(population=torch.tensor(3), sample=np.int8(2)),  # type: ignore[arg-type]
        trials=np.int64(5),  # type: ignore[arg-type]
        workers=np.int32(1),  # type: ignore[arg-type]
        seed=np.uint8(7),  # type: ignore[arg-type]
        store=tmp_path / "r.db",
    )
    assert run.summary.counts["done"] == 5
    assert run.config["searcher"]["population"] == 3
    assert run.resume(trials=np.int64(6), workers=np.int64(1), space=space).summary.counts["done"] == 6  # type: ignore[arg-type]
    plain = smith.searchers.RegularizedEvolution(population=3, sample=2)
    same = smith.search(
        smith.spaces.ConvChain(layers=3, filters=(8, 16)),
        smith.training.Landscape(),
        searcher=plain,
        trials=6,
        seed=7,
        store="memory://",
    )
    assert [t.genotype for t in same.trials()] == [t.genotype for t in run.trials()]
    assert len(run.top(np.int64(2))) == 2  # type: ignore[arg-type]


WRONG: Sequence[Any] = (True, np.bool_(True), 2.0, np.float32(2), "2", None, [2], np.array([2]), 0, np.int64(0), 2 + 0j)


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="n must be a whole number of at least 1, got"):
        whole_number(value, "n", 1)


def test_a_whole_number_has_a_range() -> None:
    assert whole_number(np.int64(3), "n", 1, 3) == 3
    with pytest.raises(UsageError, match="n must be a whole number from 1 to 3, got 4"):
        whole_number(4, "n", 1, 3)
    with pytest.raises(UsageError, match="seed must be a whole number, got 'x'"):
        whole_number("x", "seed")
