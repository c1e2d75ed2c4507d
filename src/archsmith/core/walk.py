"""Walks: one pass over a space's questions, each kind of walk with its own source of answers.

The same space is walked at random, by replaying given answers, and by whoever wants to see each question first: a
controller, an enumeration, a trace.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Answer, Scalar
from archsmith.core.shown import shown

T = TypeVar("T")


class Choose(Protocol):
    """The callback a space asks its choices through. A name is asked once; options are JSON scalars."""

    def __call__(self, name: str, options: Sequence[T], *, kind: str | None = None) -> T:
        """One of `options`. `kind` groups choices that share a softmax (default: the name without its numbers)."""
        ...

    def subset(self, name: str, options: Sequence[T], *, kind: str | None = None) -> list[T]:
        """Any number of `options`, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """One choice as it was asked.

    Args:
        name: the author's name for it, unique within a genotype.
        options: what may be answered.
        kind: questions of one kind share a softmax and an embedding in a controller.
        subset: whether any number of options may be taken.
        refers: for a subset, whether option j means the j-th earlier subset question of the same kind, so that a
            controller answers by attention over those steps; otherwise each option is an independent Bernoulli.
    """

    name: str
    options: tuple[Scalar, ...]
    kind: str
    subset: bool = False
    refers: bool = False


@functools.lru_cache(maxsize=65536)
def kind_of(name: str) -> str:
    """The kind of a choice: its name without the segments that are numbers ("3.filters" -> "filters")."""
    return ".".join(part for part in name.split(".") if not part.isdigit()) or "choice"


class RandomWalk:
    """Answers every question uniformly at random: each option of a choice, each member of a subset by a fair coin.

    This is the hot path of random search and evolution, so it keeps no `Question`s.
    """

    __slots__ = ("_draw", "answers")

    def __init__(self, rng: Random) -> None:
        self._draw = rng.random
        self.answers: dict[str, Any] = {}

    def __call__(self, name: str, options: Sequence[T], *, kind: str | None = None) -> T:
        if name in self.answers or not options:
            raise _bad_question(name, options, self.answers)
        value = options[int(self._draw() * len(options))]
        self.answers[name] = value
        return value

    def subset(self, name: str, options: Sequence[T], *, kind: str | None = None) -> list[T]:
        if name in self.answers:
            raise _bad_question(name, options, self.answers)
        draw = self._draw
        value = [option for option in options if draw() < 0.5]
        self.answers[name] = value
        return list(value)


class ReplayWalk:
    """Answers from given answers; refuses an illegal one, and with `rng` answers a missing or illegal one at random."""

    __slots__ = ("_given", "_rng", "answers")

    def __init__(self, given: Mapping[str, Answer], rng: Random | None = None) -> None:
        self._given = given
        self._rng = rng
        self.answers: dict[str, Any] = {}

    def __call__(self, name: str, options: Sequence[T], *, kind: str | None = None) -> T:
        if name in self.answers or not options:
            raise _bad_question(name, options, self.answers)
        try:
            index = options.index(self._given[name])
            value = options[index]
            if type(value) is not type(self._given[name]):
                value = options[option_index(options, self._given[name])]
        except (KeyError, ValueError):
            if self._rng is None:
                raise _refusal(name, options, self._given, "one of") from None
            value = options[int(self._rng.random() * len(options))]
        self.answers[name] = value
        return value

    def subset(self, name: str, options: Sequence[T], *, kind: str | None = None) -> list[T]:
        if name in self.answers:
            raise _bad_question(name, options, self.answers)
        given = self._given.get(name, _MISSING)
        if isinstance(given, list | tuple):
            listed, start, chosen = tuple(options), 0, []
            for member in given:
                try:
                    index = listed.index(member, start)
                    if type(listed[index]) is not type(member):
                        index = option_index(listed, member)
                except ValueError:
                    continue
                if index >= start:
                    chosen.append(listed[index])
                    start = index + 1
            if len(chosen) == len(given) or self._rng is not None:  # with rng, members that are still legal stay
                self.answers[name] = chosen
                return list(chosen)
        if self._rng is None:
            raise _refusal(name, options, self._given, "a list, in option order, of any of")
        value = [o for o in options if self._rng.random() < 0.5]
        self.answers[name] = value
        return list(value)


class RecordingWalk:
    """Puts each question to `answer` and keeps the questions: how spaces are traced and controllers walk them.

    `answer(question)` gives the index of an option, or for a subset the indices of the members, ascending.
    Options are checked in full here: JSON scalars, no duplicates.
    """

    __slots__ = ("_answer", "_subsets", "answers", "questions")

    def __init__(self, answer: Callable[[Question], int | Sequence[int]]) -> None:
        self._answer = answer
        self._subsets: dict[str, int] = {}
        self.answers: dict[str, Any] = {}
        self.questions: list[Question] = []

    def _ask(self, name: str, options: Sequence[Any], kind: str | None, subset: bool) -> tuple[Question, Any]:
        if name in self.answers or not (options or subset):
            raise _bad_question(name, options, self.answers)
        if not isinstance(name, str):
            raise UsageError(f"the name of a choice must be text, got {name!r}")
        listed = tuple(options)
        for option in listed:
            if type(option) not in _SCALARS or (isinstance(option, float) and not math.isfinite(option)):
                raise UsageError(
                    f"the options of choice {name!r} must be text, finite numbers, true, false or null, got {option!r}"
                )
        if len({(type(o) is bool, o) for o in listed}) != len(listed):  # True is not 1, but 1.0 is, to JSON
            raise UsageError(f"the options of choice {name!r} must differ from each other, got {listed}")
        kind = kind_of(name) if kind is None else kind
        refers = False
        if subset:
            earlier = self._subsets.get(kind, 0)
            self._subsets[kind] = earlier + 1
            # Option j refers to the j-th earlier step: all options are whole numbers of steps already taken.
            refers = all(type(o) is int and 0 <= o < earlier for o in listed)
        question = Question(name, listed, kind, subset, refers)
        self.questions.append(question)
        return question, self._answer(question)

    def __call__(self, name: str, options: Sequence[T], *, kind: str | None = None) -> T:
        _, index = self._ask(name, options, kind, subset=False)
        value: T = options[index]
        self.answers[name] = value
        return value

    def subset(self, name: str, options: Sequence[T], *, kind: str | None = None) -> list[T]:
        _, indices = self._ask(name, options, kind, subset=True)
        value = [options[i] for i in indices]
        self.answers[name] = value
        return list(value)


_MISSING: Any = object()
_SCALARS = frozenset({str, int, float, bool, type(None)})


def option_index(options: Sequence[Any], given: Any) -> int:
    """Which option an answer means: the one that is equal to it, where True is not 1, and 1.0 is.

    Raises ValueError when there is none.
    """
    for index, option in enumerate(options):
        if option == given and (type(option) is type(given) or {type(option), type(given)} == {int, float}):
            return index
    raise ValueError(given)


def _bad_question(name: str, options: Sequence[Any], answers: Mapping[str, Answer]) -> UsageError:
    if name in answers:
        return UsageError(f"the space asked choice {name!r} twice; every choice needs a name of its own")
    return UsageError(f"choice {name!r} has no options; a space must offer at least one")


def _refusal(name: str, options: Sequence[Any], given: Mapping[str, Answer], rule: str) -> IllegalGenotype:
    allowed = ", ".join(repr(o) for o in list(options)[:24]) + (", ..." if len(options) > 24 else "")
    if name not in given:
        return IllegalGenotype(
            f"the genotype has no answer to choice {name!r}; it must be {rule} {allowed or 'nothing'}"
        )
    return IllegalGenotype(
        f"choice {name!r} must be {rule} {allowed or 'nothing (an empty list)'}, got {shown(given[name])}"
    )
