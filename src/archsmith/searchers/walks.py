"""Walks: how a controller reads a space, many genotypes at once, question by question.

Where the questions never depend on answers they are known beforehand (a script) and one array answers each; elsewhere
the walks go in lockstep, and equal questions are answered together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, decode, identity, script, trace
from archsmith.core.walk import Question, RecordingWalk
from archsmith.searchers.depth_schedule import AtDepth, DepthSchedule
from archsmith.searchers.traces import Ints, Layout, Trace, layout_of

T = TypeVar("T")
Rows: TypeAlias = slice | Ints


class Walk(Protocol):
    """Several walks through a space in step, to be answered by a controller."""

    count: int

    def asked(self) -> list[tuple[Rows, Question, int | None]]:
        """The next question of each walk, equal ones together, with the index of a forced answer; empty at the end."""
        ...

    def answer(self, rows: Rows, question: Question, taken: npt.NDArray[Any]) -> None:
        """Answer the question of these walks: option indices [rows], or for a subset memberships [rows, options]."""
        ...

    def genotypes(self) -> list[Genotype]:
        """What was answered."""
        ...


class OffScript(Exception):
    """A space that was taken for one whose questions never change has asked something else."""


class ScriptedWalk:
    """Walks through a space whose questions are known: one answer array per question, checked at the end."""

    def __init__(self, space: Space, layout: Layout, count: int, forced: tuple[str, int] | None) -> None:
        self.count = count
        self._space = space
        self._layout = layout
        self._forced = forced
        self._columns: list[list[Any]] = []

    def asked(self) -> list[tuple[Rows, Question, int | None]]:
        step = len(self._columns)
        if step == self._layout.num_steps:
            return []
        question = self._layout.questions[step]
        return [(slice(None), question, _forced_index(question, self._forced))]

    def answer(self, rows: Rows, question: Question, taken: npt.NDArray[Any]) -> None:
        options = question.options
        if question.subset:
            self._columns.append([list(compress(options, row)) for row in taken.tolist()])
        else:
            self._columns.append([options[index] for index in taken.tolist()])

    def genotypes(self) -> list[Genotype]:
        own = identity(self._space)
        names = [question.name for question in self._layout.questions]
        found = []
        for values in zip(*self._columns, strict=True):
            rehearsal = _Rehearsal(self._layout.questions, values)
            self._space.architecture(rehearsal)
            rehearsal.end()
            found.append(Genotype(own, dict(zip(names, values, strict=True))))
        return found


class _Rehearsal:
    """Answers from known answers, and raises OffScript when the questions are not the known ones, in order.

    A script is found by probing, which a rare combination of answers can escape; this is why each sample is walked.
    """

    __slots__ = ("_lines",)

    def __init__(self, questions: tuple[Question, ...], values: Sequence[Any]) -> None:
        self._lines: Iterator[tuple[Question, Any]] = iter(zip(questions, values, strict=True))

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        question, value = next(self._lines, (None, None))
        if question is None or name != question.name or question.subset or tuple(options) != question.options:
            raise OffScript(name)
        return cast(T, value)

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        question, value = next(self._lines, (None, None))
        if question is None or name != question.name or not question.subset or tuple(options) != question.options:
            raise OffScript(name)
        return list(cast(list[T], value))

    def end(self) -> None:
        if next(self._lines, None) is not None:
            raise OffScript("the end")


class LockstepWalk:
    """Walks through a space whose questions depend on answers; equal questions at a step are answered together."""

    def __init__(self, space: Space, count: int, forced: tuple[str, int] | None) -> None:
        self.count = count
        self._forced = forced
        self._space = space
        self._walks = [_PausedWalk(space) for _ in range(count)]

    def asked(self) -> list[tuple[Rows, Question, int | None]]:
        groups: dict[Question, list[int]] = {}
        for row, walk in enumerate(self._walks):
            if walk.question is not None:
                groups.setdefault(walk.question, []).append(row)
        return [(np.array(rows), q, _forced_index(q, self._forced)) for q, rows in groups.items()]

    def answer(self, rows: Rows, question: Question, taken: npt.NDArray[Any]) -> None:
        assert not isinstance(rows, slice)
        options = question.options
        for row, answer in zip(rows.tolist(), taken.tolist(), strict=True):
            self._walks[row].answer(list(compress(options, answer)) if question.subset else options[answer])

    def genotypes(self) -> list[Genotype]:
        own = identity(self._space)
        return [Genotype(own, walk.answers) for walk in self._walks]


class _Pause(Exception):
    pass


class _PausedWalk:
    """A walk that stops at each question. A callback cannot be suspended, so the space is run again from its start,
    with what is answered already given back unlooked at: quadratic in the number of questions, with a small factor."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._recording = RecordingWalk(self._pause)
        self._given: list[Any] = []
        self._step = 0
        self.question: Question | None = None  # None at the end
        self._go_on()

    @property
    def answers(self) -> dict[str, Any]:
        return self._recording.answers

    def answer(self, value: Any) -> None:
        assert self.question is not None
        self._recording.answers[self.question.name] = value
        self._given.append(value)
        self._go_on()

    def _go_on(self) -> None:
        self.question, self._step = None, 0
        try:
            self._space.architecture(self)
        except _Pause:
            self.question = self._recording.questions[-1]

    def _pause(self, question: Question) -> int:
        raise _Pause

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        if self._step == len(self._given):
            return self._recording(name, options, kind=kind)
        self._step += 1
        return cast(T, self._given[self._step - 1])

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        if self._step == len(self._given):
            return self._recording.subset(name, options, kind=kind)
        self._step += 1
        return list(cast(list[T], self._given[self._step - 1]))


def _forced_index(question: Question, forced: tuple[str, int] | None) -> int | None:
    if forced is None or question.name != forced[0] or question.subset:
        return None
    return question.options.index(forced[1])


# --- a space, as a controller reads it --------------------------------------------------------------------------------


class Reader:
    """Gives walks to sample a space with, and the traces of its genotypes.

    Args:
        space: any space of choices.
        schedule: forces the depth, or None. Raises UsageError when the space has no choice for it.
    """

    def __init__(self, space: Space, schedule: DepthSchedule | None) -> None:
        self.space = space
        self.scripted = True  # whether scripts are believed; one that proves wrong ends that for good
        self._schedule = schedule
        self._forced = schedule.choice if schedule else None
        self._depths = schedule.options(space) if schedule else ()
        self._layouts: dict[int | None, Layout | None] = {}  # by depth

    def layout(self, depth: int | None) -> Layout | None:
        """The layout of all genotypes (of that depth), or None when the questions depend on answers."""
        if not self.scripted:
            return None
        if depth not in self._layouts:
            self._layouts[depth] = self._script(depth)
        return self._layouts[depth]

    def _script(self, depth: int | None) -> Layout | None:
        if depth is None or self._forced is None:
            questions = script(self.space)
        else:
            questions = script(AtDepth(self.space, self._forced, depth))
            if questions is not None:  # the head of the forced choice still knows all its options
                questions = tuple(
                    Question(q.name, self._depths, q.kind) if q.name == self._forced else q for q in questions
                )
        return None if questions is None else layout_of(questions, self._forced)

    def walks(self, first: int, count: int) -> list[Walk]:
        """Walks for the proposals numbered from `first`, those of equal depth together, in order."""
        depths: dict[int | None, int] = {}
        for number in range(first, first + count):
            depth = self._schedule.depth(number, self._depths) if self._schedule else None
            depths[depth] = depths.get(depth, 0) + 1
        found: list[Walk] = []
        for depth, rows in depths.items():
            forced = (self._forced, depth) if self._forced is not None and depth is not None else None
            layout = self.layout(depth)
            if layout is None:
                found.append(LockstepWalk(self.space, rows, forced))
            else:
                found.append(ScriptedWalk(self.space, layout, rows, forced))
        return found

    def trace(self, genotype: Genotype) -> Trace:
        """The genotype's trace. Raises IllegalGenotype when it is not of this space."""
        own = identity(self.space)
        depth = genotype.answers.get(self._forced) if self._forced is not None else None
        layout = self.layout(depth if type(depth) is int and depth in self._depths else None)
        if layout is not None and len(genotype.answers) == layout.num_steps and genotype.space == own:
            try:
                return layout, layout.encode(genotype.answers)
            except (KeyError, TypeError, ValueError):
                pass  # illegal, which decode says better, or off the script
        decode(self.space, genotype)
        layout = layout_of(tuple(trace(self.space, genotype.answers)), self._forced)
        return layout, layout.encode(genotype.answers)
