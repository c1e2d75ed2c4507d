"""Spaces: what can be chosen, asked through one callback, `choose(name, options)`.

The same function of `choose` serves random search (answer at random), a controller (answer from an LSTM), evolution
(replay the parent's answers, change one), enumeration, and loading (answer from JSON). A space holds no values.
`archsmith.core.grown` has the second shape of a space, which asks nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random
from types import FunctionType
from typing import Any, Protocol, cast, runtime_checkable

from archsmith.core.checks import PLAIN, Array, python_scalar
from archsmith.core.child import AnyTask, Child, Task, as_child, decided_by
from archsmith.core.config import is_recorded
from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype, Scalar, same_json
from archsmith.core.grown import GrownSpace, edited, wander
from archsmith.core.shown import shown
from archsmith.core.walk import Choose, Question, RandomWalk, RecordingWalk, ReplayWalk, option_index


@runtime_checkable
class Space(Protocol):
    """A definition of what can be chosen, and how an answer becomes a child."""

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe, as plain data."""
        ...

    def build(self, architecture: Architecture, task: Any) -> Any:
        """The child (a `Child`, or a bare `torch.nn.Module`) for a task: a `Task` of images, a `TextTask`,
        a `TranslationTask`, or what a user's evaluator has. UsageError when it has no networks for that."""
        ...


@runtime_checkable
class LocatesArchitectures(Protocol):
    """A space that finds the answers for a given architecture, so that known networks can be points of it."""

    def genotype(self, architecture: Architecture) -> Genotype:
        """The genotype of an architecture. Raises UsageError when the architecture is not a point of the space."""
        ...


@dataclass(frozen=True)
class FunctionSpace:
    """A plain function of `choose` as a space, with `build` beside it or with an evaluator that takes architectures."""

    function: Callable[..., Architecture]
    builder: Callable[[Architecture, Any], Any] | None = None

    def architecture(self, choose: Choose) -> Architecture:
        return self.function(choose)

    def build(self, architecture: Architecture, task: Any) -> Any:
        if self.builder is None:
            name = identity(self)["name"]
            raise UsageError(
                f"space {name!r} is a plain function, so nothing builds its children; give search(..., build=...)"
            )
        return self.builder(architecture, task)


def as_space(
    space: Space | Callable[..., Architecture], build: Callable[[Architecture, Any], Any] | None = None
) -> Space:
    """A space object as it is, or a function of `choose` wrapped as one.

    Raises UsageError for anything else, and for a `build` beside a space that has its own.
    """
    if isinstance(space, type):
        raise UsageError(f"space must be a value, got the class {space.__name__}; write {space.__name__}(...)")
    if isinstance(space, Space):
        if build is not None:
            raise UsageError(
                f"build= is for a space that is a plain function; {type(space).__name__} builds its own children"
            )
        return space
    if callable(space):
        return FunctionSpace(space, build)
    raise UsageError(f"a space must be one of archsmith.spaces, or a function of choose, got {shown(space)}")


def identity(space: Space) -> dict[str, Any]:
    """The space's name, version and options, as a genotype carries them. Shared between calls: do not change it."""
    known = _identities.get(id(space))
    if known is not None and known[0]() is space:
        return known[1]
    made = _identity(space)
    if _is_constant(space):
        key = id(space)
        with contextlib.suppress(TypeError):  # an object without room for weak references
            _identities[key] = weakref.ref(space, lambda _: _identities.pop(key, None)), made
    return made


# Of spaces that cannot change, by the object: spaces that are equal, such as S(1) and S(True), have other identities.
_identities: dict[int, tuple[weakref.ref[Space], dict[str, Any]]] = {}


def _identity(space: Space) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if isinstance(space, FunctionSpace):
        function = space.function
        while isinstance(function, functools.partial):
            options = {**function.keywords, **options}
            function = function.func
        name = getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]
        return {"name": name, "version": 1, "options": _plain(options)}
    if dataclasses.is_dataclass(space):
        options = {f.name: getattr(space, f.name) for f in dataclasses.fields(space) if is_recorded(f, space)}
    return {"name": type(space).__name__, "version": getattr(space, "version", 1), "options": _plain(options)}


def _is_constant(value: Any) -> bool:
    """Whether a value cannot change: a scalar, a function, a tuple or a frozen dataclass of such."""
    if type(value) in PLAIN or isinstance(value, FunctionType | range):
        return True
    if type(value) is tuple:
        return all(map(_is_constant, value))
    parameters = getattr(type(value), "__dataclass_params__", None)
    frozen = parameters is not None and parameters.frozen
    return frozen and all(_is_constant(getattr(value, f.name)) for f in dataclasses.fields(value))


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists and nested spaces as their identities, all the way down: what JSON would give back."""
    value = python_scalar(value)
    if type(value) in PLAIN:
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range | Array):
        return [_plain(v) for v in cast(Iterable[Any], value)]
    if isinstance(value, str | int | float):
        return json.loads(json.dumps(value))  # a member of an enumeration of such
    return identity(value) if isinstance(value, Space) else repr(value)


def sample(space: Space, rng: Random) -> Genotype:
    """A genotype with every choice answered uniformly at random; of a grown space, one after a walk of edits."""
    if isinstance(space, GrownSpace):
        return wander(space, rng)
    walk = RandomWalk(rng)
    space.architecture(walk)
    return Genotype(identity(space), walk.answers)


def decode(space: Space, genotype: Genotype) -> Architecture:
    """The architecture that a genotype describes.

    Raises IllegalGenotype when it belongs to another space, or has an unknown, missing or illegal answer.
    """
    own = identity(space)
    if genotype.space is not own and not same_json(genotype.space, own):
        for field in ("name", "version", "options"):
            what, given, needed = field, genotype.space.get(field), own[field]
            if same_json(given, needed):
                continue
            if isinstance(given, Mapping) and isinstance(needed, Mapping) and given.keys() == needed.keys():
                option = next(
                    name for name in needed if not same_json(given[name], needed[name])
                )  # the rest would bury it
                what, given, needed = f"option {option}", given[option], needed[option]
            raise IllegalGenotype(
                f"this genotype is of another space: its {what} is {shown(given)}, "
                f"and that of the space {own['name']} is {shown(needed)}"
            )
        raise IllegalGenotype(
            f"the space of a genotype has name, version and options only, got {shown(list(genotype.space))}"
        )
    if isinstance(space, GrownSpace):
        return space.read(genotype.answers)
    walk = ReplayWalk(genotype.answers)
    architecture = space.architecture(walk)
    if len(walk.answers) != len(genotype.answers):
        unknown = next(name for name in genotype.answers if name not in walk.answers)
        known = ", ".join(list(walk.answers)[:12]) + (", ..." if len(walk.answers) > 12 else "")
        raise IllegalGenotype(
            f"the space {own['name']} has no choice {shown(unknown)} here; with the other answers it asks: {known}"
        )
    return architecture


def build(space: Space, genotype: Genotype | Architecture, task: AnyTask) -> Child:
    """The child of a genotype, or of an architecture, for a task."""
    architecture = decode(space, genotype) if isinstance(genotype, Genotype) else genotype
    return as_child(space.build(architecture, task))


def build_decided(
    space: Space,
    genotype: Genotype | Architecture,
    evaluator: Any,
    *,
    seeding: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[Any, Child]:
    """The evaluator with the settings that a genotype decides, and its child, built for the task of that evaluator.

    Whatever trains, tests or exports a child needs both. Raises ChildFailed for settings that the evaluator does not take.

    Args:
        space, genotype: of the child.
        evaluator: with its own settings.
        seeding: gives a context in which a child is built, and which seeds its initialisation; it is entered anew where a child
            of another task is built.
    """
    task = evaluator.task()
    with seeding():
        child = build(space, genotype, task)
    decided = decided_by(child, evaluator)
    if decided.task() == task:
        return decided, child
    with seeding():  # what it decides may depend on the task, such as parts of a size
        child = build(space, genotype, decided.task())
    return decided_by(child, evaluator), child


def default_task(space: Space) -> AnyTask:
    """What a space's children are built for where nobody says: its attribute `task`, else small images of 10 classes."""
    return cast(AnyTask, getattr(space, "task", Task()))


def mutate(space: Space, genotype: Genotype, rng: Random, questions: Sequence[Question] | None = None) -> Genotype:
    """A copy with one choice, uniformly drawn, changed to another value (a subset: one member flipped).

    Answers that are still legal stay, new questions are answered at random, orphans go. A space with a `mutate` of
    its own is asked instead. A genotype whose every choice has one option comes back unchanged. Of a grown space: one
    edit, drawn until one succeeds.

    Args:
        questions: those of `script(space)`, where the caller has them: several times faster than a trace.
    """
    own = getattr(space, "mutate", None)
    if own is not None:
        return cast(Genotype, own(genotype, rng))
    if isinstance(space, GrownSpace):
        return edited(space, genotype, rng)
    if questions is None or not _fits(questions, genotype.answers):
        questions = trace(space, genotype.answers)
    changeable = [q for q in questions if (q.options if q.subset else len(q.options) > 1)]
    if not changeable:
        return genotype
    question = changeable[int(rng.random() * len(changeable))]
    answers = dict(genotype.answers)
    options, old = question.options, answers[question.name]
    if question.subset:
        assert isinstance(old, list)
        taken = {option_index(options, member) for member in old}
        taken ^= {int(rng.random() * len(options))}
        answers[question.name] = [o for i, o in enumerate(options) if i in taken]
    else:
        others = [o for i, o in enumerate(options) if i != option_index(options, old)]
        answers[question.name] = others[int(rng.random() * len(others))]
    walk = ReplayWalk(answers, rng)
    space.architecture(walk)
    return Genotype(genotype.space, walk.answers)


def mutator(space: Space) -> Callable[[Genotype, Random], Genotype]:
    """`mutate` for one run of that space, whose questions are worked out once."""
    known: list[Sequence[Question] | None] = []

    def mutated(genotype: Genotype, rng: Random) -> Genotype:
        if not known:
            asks = not isinstance(space, GrownSpace) and getattr(space, "mutate", None) is None
            known.append(script(space) if asks else None)
        return mutate(space, genotype, rng, known[0])

    return mutated


def _fits(questions: Sequence[Question], answers: Mapping[str, Answer]) -> bool:
    """Whether these can be the questions behind the answers.

    A dependence that has escaped the script costs a mutation that is another than was drawn, not a legal genotype:
    mutations are replayed.
    """
    if len(questions) != len(answers):
        return False
    for question in questions:
        answer = answers.get(question.name, _MISSING)
        members = answer if question.subset and isinstance(answer, list) else (answer,)
        if any(member not in question.options for member in members):
            return False
    return True


_MISSING: Any = object()


def trace(space: Space, answers: Mapping[str, Answer]) -> list[Question]:
    """The questions that a space asks when it is given these answers, in order; none of a grown space."""
    if isinstance(space, GrownSpace):
        return []

    def answer(question: Question) -> int | list[int]:
        given = answers[question.name]
        if question.subset:
            return [option_index(question.options, member) for member in cast(list[Scalar], given)]
        return option_index(question.options, given)

    walk = RecordingWalk(answer)
    space.architecture(walk)
    return walk.questions


class _Unanswered(Exception):
    def __init__(self, question: Question) -> None:
        self.question = question


def next_question(space: Space, prefix: Sequence[int | Sequence[int]]) -> tuple[Question | None, RecordingWalk]:
    """The question a space asks after `prefix` was answered (option indices, in order), or None at the end.

    For spaces whose questions depend on answers: a plain callback cannot be suspended, so the walk is run again from
    the start, which is quadratic in the number of questions and still below a millisecond at sixty.
    """
    position = 0

    def answer(question: Question) -> int | Sequence[int]:
        nonlocal position
        if position == len(prefix):
            raise _Unanswered(question)
        position += 1
        return prefix[position - 1]

    walk = RecordingWalk(answer)
    try:
        space.architecture(walk)
    except _Unanswered as stop:
        return stop.question, walk
    return None, walk


def enumerate_genotypes(space: Space) -> Iterator[Genotype]:
    """Every genotype of a space once, depth first. For small spaces: the count grows with every choice."""
    own = identity(space)
    pending: list[list[int | tuple[int, ...]]] = [[]]
    while pending:
        prefix = pending.pop()
        question, walk = next_question(space, prefix)
        if question is None:
            yield Genotype(own, walk.answers)
        elif question.subset:
            size = len(question.options)
            members = [tuple(i for i in range(size) if mask >> i & 1) for mask in range(2**size)]
            pending.extend([*prefix, m] for m in reversed(members))
        else:
            pending.extend([*prefix, i] for i in reversed(range(len(question.options))))


def script(space: Space, probes: int = 16) -> tuple[Question, ...] | None:
    """The questions of a space whose questions do not depend on answers, or None when they do.

    Worked out by trying every option of every question beside random answers to the others. A dependence on a rare
    combination can escape that, so whoever samples by the script checks each sample with `decode`.

    It is worked out anew by each call, since a space may read what changes, such as a global: who needs it often
    keeps it for as long as one run lasts.
    """
    rng = Random(0)
    script: tuple[Question, ...] | None = None

    def asked(answer: Callable[[Question], int | Sequence[int]]) -> bool:
        nonlocal script
        walk = RecordingWalk(answer)
        space.architecture(walk)
        if script is None:
            script = tuple(walk.questions)
        return script == tuple(walk.questions)

    def at_random(question: Question) -> int | list[int]:
        if question.subset:
            return [i for i in range(len(question.options)) if rng.random() < 0.5]
        return int(rng.random() * len(question.options))

    if not asked(lambda q: () if q.subset else 0) or not all(asked(at_random) for _ in range(probes)):
        return None
    assert script is not None
    for probed in script:  # every option of every question once, the others at random
        for option in range(len(probed.options)):

            def forced(question: Question, probed: Question = probed, option: int = option) -> int | list[int]:
                if question.name != probed.name:
                    return at_random(question)
                return [option] if question.subset else option

            if not asked(forced):
                return None
    return script


def space_size(space: Space) -> int | None:
    """How many genotypes a space has, exactly, or None when its questions depend on answers, or it is grown."""
    if isinstance(space, GrownSpace):
        return None
    questions = script(space)
    if questions is None:
        return None
    return math.prod(2 ** len(q.options) if q.subset else len(q.options) for q in questions)
