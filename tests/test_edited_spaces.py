"""A run goes on with the space that it began with: every searcher refuses an edited one and is told what changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import pytest

import archsmith as smith
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Answer, Genotype
from archsmith.core.grown import Edit, GrownSpace
from archsmith.core.questions import edits_since, questions_of
from archsmith.core.space import FunctionSpace, identity, script
from archsmith.searchers import (
    PPO,
    Asynchronous,
    BayesianOptimization,
    Exhaustive,
    LargeScaleEvolution,
    Optuna,
    QLearning,
    Random,
    RegularizedEvolution,
    Reinforce,
)
from archsmith.store import open_store

SEARCHERS: dict[str, Callable[[], Any]] = {
    "random": Random,
    "exhaustive": Exhaustive,
    "reinforce": lambda: Reinforce(minibatch=2),
    "ppo": lambda: PPO(minibatch=2, epochs=1),
    "asynchronous": lambda: Asynchronous(Reinforce(minibatch=2), shards=2, replicas=2),
    "evolution": lambda: RegularizedEvolution(population=3, sample=2),
    "large scale evolution": lambda: LargeScaleEvolution(population=3),
    "q-learning": lambda: QLearning.for_models(6),
    "bayesian optimization": lambda: BayesianOptimization(initial=3),
    "tpe": lambda: Optuna("tpe"),
    "nsga2": lambda: Optuna("nsga2"),
    "cmaes": lambda: Optuna("cmaes"),
}


def spaces(edited: bool) -> Callable[[Any], Any]:
    """A function of one name, as a file has it before and after an edit."""

    def space(choose: Any) -> Any:
        if edited:
            return {"f": choose("f", (8, 32)), "g": choose("g", (1, 2, 3)), "h": choose("h", ("a", "b"))}
        return {"f": choose("f", (8, 16)), "g": choose("g", (1, 2, 3))}

    return space


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_searcher_refuses_an_edited_space_and_names_the_edits(searcher: str) -> None:
    store = open_store("memory://")
    make = SEARCHERS[searcher]
    smith.search(spaces(False), lambda a: float(a["f"]), searcher=make(), trials=4, store=store, name="r")
    run, words = smith.open_run(store, "r"), r"choice 'f': options were \(8, 16\), now \(8, 32\); new choice 'h'\. Give"
    with pytest.raises(UsageError, match=words):
        run.resume(space=spaces(True), evaluator=lambda a: 1.0, searcher=make(), trials=6)
    with pytest.raises(UsageError, match=words):
        smith.open_run(store, "r", space=spaces(True))
    assert run.summary.counts["done"] == 4
    run.resume(space=spaces(False), evaluator=lambda a: float(a["f"]), searcher=make(), trials=6)
    assert run.summary.counts["done"] == 6


def branches(choose: Any, size: tuple[Any, ...] = (1, 3), when: str = "conv", last: str = "z") -> Any:
    kind = choose("kind", ("conv", "pool", "none"))
    if kind == when:
        inner = choose("size", size)
        if inner == size[-1]:
            choose.subset("extras", ("a", "b"), kind="more")
    return [kind, choose(last, (0, 1))]


def plain(choose: Any) -> Any:
    return [choose("a", (1, 2)), choose.subset("b", ("x", "y")), choose("0.c", (0.5, 0.25)), choose("1.c", (0.5, 0.25))]


def of(function: Callable[..., Any], **changes: Any) -> FunctionSpace:
    return FunctionSpace(lambda choose: function(choose, **changes))


def asked(*questions: Any) -> FunctionSpace:
    def space(choose: Any) -> Any:
        return [choose.subset(n, o, **more) if s else choose(n, o, **more) for n, o, s, more in questions]

    return FunctionSpace(space)


A, B = ("a", (1, 2), False, {}), ("b", ("x", "y"), True, {})
EDITS: dict[str, tuple[Any, Any, str]] = {
    "an option more": (
        asked(A, B),
        asked(("a", (1, 2, 3), False, {}), B),
        r"'a': options were \(1, 2\), now \(1, 2, 3\)",
    ),
    "an option less": (asked(A, B), asked(("a", (1,), False, {}), B), r"'a': options were \(1, 2\), now \(1,\)"),
    "another order of options": (asked(A), asked(("a", (2, 1), False, {})), r"options were \(1, 2\), now \(2, 1\)"),
    "true for one": (asked(A), asked(("a", (True, 2), False, {})), r"options were \(1, 2\), now \(True, 2\)"),
    "1.0 for one": (asked(A), asked(("a", (1.0, 2), False, {})), r"options were \(1, 2\), now \(1\.0, 2\)"),
    "minus zero": (asked(("a", (0.0, 2), False, {})), asked(("a", (-0.0, 2), False, {})), r"now \(-0\.0, 2\)"),
    "a text for a number": (asked(A), asked(("a", ("1", 2), False, {})), r"now \('1', 2\)"),
    "a new name": (asked(A, B), asked(("c", (1, 2), False, {}), B), "choice 'a' is gone; new choice 'c'"),
    "a choice less": (asked(A, B), asked(A), "choice 'b' is gone"),
    "another order": (asked(A, B), asked(B, A), "choice 'b' is now asked before choice 'a'"),
    "a subset for a choice": (
        asked(A),
        asked(("a", (1, 2), True, {})),
        "'a': its answer was one option, now any number",
    ),
    "another kind": (asked(A), asked(("a", (1, 2), False, {"kind": "k"})), "'a': kind was 'a', now 'k'"),
    "a long list": (
        asked(("a", range(1000), False, {})),
        asked(("a", range(1, 1001), False, {})),
        "'a': options were 1,000 options with the digest .*, now 1,000",
    ),
    "an option of a branch": (of(branches), of(branches, size=(1, 5)), r"'size': options were \(1, 3\), now \(1, 5\)"),
    "a condition": (of(branches), of(branches, when="pool"), "its choices follow on other answers than before"),
    "a choice after a branch": (of(branches), of(branches, last="y"), "choice 'z' is gone; new choice 'y'"),
    "many": (
        asked(*((f"c{i}", (1, 2), False, {}) for i in range(20))),
        asked(*((f"d{i}", (1, 2), False, {}) for i in range(20))),
        "and 34 more changes",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_named(edit: str) -> None:
    before, after, words = EDITS[edit]
    recorded = questions_of(before)
    assert edits_since(recorded, before) == []
    changes = "; ".join(edits_since(recorded, after))
    with pytest.raises(UsageError, match=words):
        raise UsageError(changes)


def test_what_changes_no_question_is_no_edit() -> None:
    def documented(choose: Any) -> Any:
        """The same, written in another way."""
        answers = {"a": choose(name="a", options=[1, 2])}  # a list
        return {
            **answers,
            "b": choose.subset("b", tuple("xy")),
            "c": [choose(f"{i}.c", (0.5, 1 / 4)) for i in range(2)],
        }

    assert edits_since(questions_of(FunctionSpace(plain)), FunctionSpace(documented)) == []
    assert edits_since(questions_of(smith.spaces.NASBench201()), smith.spaces.NASBench201(channels=8)) == []


@dataclass(frozen=True)
class Towers(GrownSpace):
    """Towers of bricks, as high as evolution builds them."""

    first: int = 1
    names: tuple[str, ...] = ("taller", "lower")
    step: int = 1

    def seed(self) -> Genotype:
        return Genotype(identity(self), {"height": self.first})

    @property
    def edits(self) -> Mapping[str, Edit]:
        def by(n: int) -> Edit:
            return lambda genotype, rng: Genotype(identity(self), {"height": int(genotype.answers["height"]) + n})  # type: ignore[arg-type]

        return {name: by(-self.step if name == "lower" else self.step) for name in self.names}

    def read(self, answers: Mapping[str, Answer]) -> Any:
        return dict(answers)

    def build(self, architecture: Any, task: Any) -> Any:
        raise NotImplementedError


def test_a_grown_space_is_known_by_its_seed_and_edits() -> None:
    recorded = questions_of(Towers())
    assert edits_since(recorded, Towers()) == []
    assert edits_since(recorded, Towers(first=2)) == ["its seed is another"]
    assert edits_since(recorded, Towers(names=("taller", "wider"))) == ["edit 'lower' is gone", "new edit 'wider'"]
    assert edits_since(recorded, Towers(names=("lower", "taller"))) == ["its edits are in another order"]
    assert edits_since(recorded, Towers(step=2)) == ["its edits give other genotypes"]
    assert edits_since(recorded, of(plain)) == ["it grew by edits, and now asks choices"]
    assert edits_since(questions_of(of(plain)), Towers()) == ["it asked choices, and now grows by edits"]


def test_a_run_from_before_questions_were_recorded_is_known_by_its_trials(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    score = {8: 1.0, 16: 0.5, 32: 0.0}
    smith.search(spaces(False), lambda a: score[a["f"]], trials=6, store=path, name="r")
    with sqlite3.connect(path) as connection:
        assert connection.execute("DELETE FROM documents WHERE key = 'questions'").rowcount == 1
    run = smith.open_run(path, "r")
    with pytest.raises(UsageError, match=r"another space: trial 0 does not fit it any more: .*'h'"):
        run.resume(space=spaces(True), evaluator=lambda a: 1.0, trials=8)
    assert run.resume(space=spaces(False), evaluator=lambda a: score[a["f"]], trials=8).summary.counts["done"] == 8


# --- spaces that look equal -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class First:
    """Two spaces of this class are equal when their options are, and 1 == True == 1.0."""

    options: Any

    def architecture(self, choose: Any) -> Any:
        found = [option[0] if isinstance(option, tuple) else option for option in self.options]
        return choose("a", [option.value if isinstance(option, Enum) else option for option in found])

    def build(self, architecture: Any, task: Any) -> Any:
        raise NotImplementedError


class Whole(IntEnum):
    ONE = 1


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_spaces_that_compare_equal_are_not_confused(searcher: str) -> None:
    for one in ((1, 5), (True, 5), (1.0, 5), ((1,), 5), ((True,), 5), (Whole.ONE, 5), (0.0, 5), (-0.0, 5)):
        space = First(one)
        run = smith.search(space, lambda a: 1.0, searcher=SEARCHERS[searcher](), trials=8, store="memory://")
        assert run.summary.counts["failed"] == 0
        options = [option[0] if isinstance(option, tuple) else option for option in one]
        plain = [option.value if isinstance(option, Enum) else option for option in options]
        assert {repr(t.genotype.answers["a"]) for t in run.trials()} <= {repr(option) for option in plain}
        assert next(run.trials()).genotype.space["options"]["options"] == [
            list(o) if isinstance(o, tuple) else o for o in one
        ]
    assert repr(identity(First((True, 5)))) != repr(identity(First((1, 5))))


OPTIONS: tuple[int, ...] = (8, 16)


def reads_a_global(choose: Any, more: list[int] = []) -> Any:  # noqa: B006
    return choose("f", (*OPTIONS, *more))


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_what_a_space_reads_may_change_between_searches(searcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def closure(choose: Any) -> Any:
        return choose("f", (1, *held))

    class Held:
        def architecture(self, choose: Any) -> Any:
            return choose("f", (*OPTIONS, *held))

        def build(self, architecture: Any, task: Any) -> Any:
            raise NotImplementedError

    kept = Held()
    tried: dict[str, set[Any]] = {}

    def search(space: Any) -> set[Any]:
        run = smith.search(space, lambda a: 1.0, searcher=SEARCHERS[searcher](), trials=10, store="memory://")
        assert run.summary.counts["failed"] == 0
        return {t.genotype.answers["f"] for t in run.trials()}

    for space in (reads_a_global, closure, kept):
        tried[str(space)] = search(space)
    monkeypatch.setattr(f"{__name__}.OPTIONS", (32, 64))
    held.append(2)
    reads_a_global.__defaults__[0].append(128)  # type: ignore[index]
    try:
        assert search(reads_a_global) <= {32, 64, 128}
        assert search(closure) == {1, 2}
        assert search(kept) <= {32, 64, 2}
    finally:
        reads_a_global.__defaults__[0].clear()  # type: ignore[index]


def test_questions_that_turn_from_one_to_true_depend_on_answers() -> None:
    def space(choose: Any) -> Any:
        return [(choose("first", ("a", "b")) == "a" and choose("x", (0, 1))) or choose("y", (1,))]

    def turned(choose: Any) -> Any:
        return choose("x", (0, 1) if choose("first", ("a", "b")) == "a" else (False, True))

    assert script(FunctionSpace(space)) is None
    assert script(FunctionSpace(turned)) is None
    run = smith.search(turned, lambda a: 1.0, searcher=Reinforce(minibatch=2), trials=20, store="memory://")
    for trial in run.trials():
        assert type(trial.genotype.answers["x"]) is (int if trial.genotype.answers["first"] == "a" else bool)
