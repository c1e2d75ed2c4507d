"""Walks: one pass over a space's questions, each kind of walk with its own source of answers.

The same space is walked at random, by replaying given answers, and by whoever wants to see each question first: a
controller, an enumeration, a trace.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from types import GeneratorType
from typing import Any, Protocol, TypeVar, cast

from archsmith.core.checks import PLAIN, python_scalar
from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Answer, Scalar, same_json
from archsmith.core.shown import shown

T = TypeVar("T")
MOST_OPTIONS = 1_000_000
"""The most options of a choice."""


class Choose(Protocol):
    """The callback a space asks its choices through. A name is asked once.

    Options are JSON scalars in an order: a tuple, a list, a range, the keys of a dict, an array. Numbers of numpy or torch
    are answered as the Python numbers that they are.
    """

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        """One of `options`. `kind` groups choices that share a softmax (default: the name without its numbers)."""
        ...

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        """Any number of `options`, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """One choice as it was asked. Two are equal when their answers are the same JSON: True is not 1, and 1.0 is not 1.

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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Question):
            return NotImplemented
        return (
            self.name == other.name
            and same_json(self.options, other.options)
            and self.kind == other.kind
            and self.subset == other.subset
            and self.refers == other.refers
        )


def as_options(name: str, options: Any) -> tuple[Any, ...]:
    """The options of a choice as a tuple of Python values, also for scalars of array libraries.

    Raises UsageError for anything that is no ordered collection, and for more than MOST_OPTIONS.
    """
    if type(options) in _LISTS and len(options) <= MOST_OPTIONS and PLAIN.issuperset(map(type, options)):
        return tuple(options)
    if isinstance(options, str | bytes | bytearray):
        raise UsageError(
            f"the options of choice {name!r} must be a sequence such as (8, 16), got the text {shown(options)}, which "
            f"is a sequence of letters; write ({shown(options)},) for a single option"
        )
    if isinstance(options, set | frozenset):
        raise UsageError(
            f"the options of choice {name!r} are a {type(options).__name__}, which has no order, and a run must be able "
            "to repeat them; write them as a tuple, such as tuple(sorted(...))"
        )
    once = isinstance(options, Iterator)
    if isinstance(options, GeneratorType) and options.gi_frame is None:
        raise _used_up(name, options)
    try:
        items = iter(options)
    except TypeError:
        raise UsageError(
            f"the options of choice {name!r} must be a sequence such as (8, 16), got {shown(options)}; "
            "write (value,) for a single option"
        ) from None
    listed = tuple(python_scalar(option) for option in islice(items, MOST_OPTIONS + 1))
    if len(listed) > MOST_OPTIONS:
        raise UsageError(f"choice {name!r} has more than {MOST_OPTIONS:,} options; offer fewer, or ask in two choices")
    if once and not listed and not isinstance(options, GeneratorType):
        raise _used_up(name, options)
    return listed


def _used_up(name: str, options: Any) -> UsageError:
    return UsageError(
        f"the options of choice {name!r} are a {type(options).__name__} that was read before: it gives its items once, "
        "and a space is asked many times; write tuple(...) where it is made"
    )


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

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        listed: Sequence[T] = options if type(options) in _LISTS else as_options(name, options)  # type: ignore[assignment]
        if name in self.answers or not listed:
            raise _bad_question(name, self.answers)
        value = listed[int(self._draw() * len(listed))]
        if type(value) not in PLAIN:
            value = python_scalar(value)
        self.answers[name] = value
        return value

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        listed: Sequence[T] = options if type(options) in _LISTS else as_options(name, options)  # type: ignore[assignment]
        if name in self.answers:
            raise _bad_question(name, self.answers)
        draw = self._draw
        value = [option if type(option) in PLAIN else python_scalar(option) for option in listed if draw() < 0.5]
        self.answers[name] = value
        return list(value)


class ReplayWalk:
    """Answers from given answers; refuses an illegal one, and with `rng` answers a missing or illegal one at random."""

    __slots__ = ("_given", "_rng", "answers")

    def __init__(self, given: Mapping[str, Answer], rng: Random | None = None) -> None:
        self._given = given
        self._rng = rng
        self.answers: dict[str, Any] = {}

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        listed: Sequence[T] = options if type(options) in _LISTS else as_options(name, options)  # type: ignore[assignment]
        if name in self.answers or not listed:
            raise _bad_question(name, self.answers)
        try:
            index = listed.index(self._given[name])
            value = listed[index]
            if type(value) is not type(self._given[name]):
                listed = as_options(name, listed)
                value = listed[option_index(listed, self._given[name])]
        except (KeyError, ValueError):
            if self._rng is None:
                raise _refusal(name, listed, self._given, "one of") from None
            value = python_scalar(listed[int(self._rng.random() * len(listed))])
        self.answers[name] = value
        return value

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        if name in self.answers:
            raise _bad_question(name, self.answers)
        listed: Sequence[T] = tuple(options) if type(options) in _LISTS else as_options(name, options)
        given = self._given.get(name, _MISSING)
        if isinstance(given, list | tuple):
            start, chosen = 0, list[T]()
            for member in given:
                try:
                    index = listed.index(member, start)
                    if type(listed[index]) is not type(member):
                        listed = as_options(name, listed)
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
            raise _refusal(name, listed, self._given, "a list, in option order, of any of")
        value = [python_scalar(o) for o in listed if self._rng.random() < 0.5]
        self.answers[name] = value
        return list(value)


def choose_known(values: Mapping[str, Any], answers: dict[str, Any]) -> Callable[[str, Sequence[Any]], Any]:
    """A `choose` without subsets that answers by name what is known of a network, and adds each answer to `answers`.

    It raises UsageError for a value that is none of the options.
    """

    def choose(name: str, options: Sequence[Any]) -> Any:
        if values[name] not in options:
            allowed = ", ".join(map(str, options))
            raise UsageError(f"this network is no point of the space: {name} is {values[name]}, not one of {allowed}")
        answers[name] = next(option for option in options if option == values[name])
        return answers[name]

    return choose


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

    def _ask(self, name: str, options: Iterable[Any], kind: str | None, subset: bool) -> tuple[Question, Any]:
        if not isinstance(name, str):
            raise UsageError(f"the name of a choice must be text, got {name!r}")
        listed = as_options(name, options)
        if name in self.answers or not (listed or subset):
            raise _bad_question(name, self.answers)
        for option in listed:
            if type(option) not in PLAIN or (isinstance(option, float) and not math.isfinite(option)):
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

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        question, index = self._ask(name, options, kind, subset=False)
        value: Any = question.options[index]
        self.answers[name] = value
        return cast(T, value)

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        question, indices = self._ask(name, options, kind, subset=True)
        value: list[Any] = [question.options[i] for i in indices]
        self.answers[name] = value
        return list(value)


_MISSING: Any = object()
_LISTS = frozenset({tuple, list, range})  # of which an option can be taken as they are


def option_index(options: Sequence[Any], given: Any) -> int:
    """The index of the option that equals an answer. True does not equal 1, but 1.0 does.

    Raises ValueError if there is none.
    """
    for index, option in enumerate(options):
        if option == given and (type(option) is type(given) or {type(option), type(given)} == {int, float}):
            return index
    raise ValueError(given)


def _bad_question(name: str, answers: Mapping[str, Answer]) -> UsageError:
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
