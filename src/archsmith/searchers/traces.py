"""Traces: a genotype as the decisions that a controller takes, one softmax or one coin at a time.

A *head* is what decides: a form ("choice", "forced", "subset" or "anchor") and a kind of question. A trace is a layout
(which head decides what at which step) and one whole number per decision: the index of the option that a choice took,
or 0 or 1 for each option of a subset. Traces of equal layout are scored as one array, traces of others beside them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from archsmith.core.genotype import Answer
from archsmith.core.walk import Question

Ints: TypeAlias = npt.NDArray[np.int64]
Head: TypeAlias = tuple[str, str]


def head_of(question: Question, forced: str | None = None) -> Head:
    """The head that answers a question; the choice named `forced` is answered for it."""
    if question.subset:
        return ("anchor" if question.refers else "subset", question.kind)
    return ("forced" if question.name == forced else "choice", question.kind)


def head_width(question: Question) -> int:
    """How many options the question's head must know: for an anchor, how far back its options reach."""
    return max(cast(tuple[int, ...], question.options), default=-1) + 1 if question.refers else len(question.options)


@dataclass(frozen=True, eq=False, slots=True)
class Slots:
    """Where the decisions of one head lie in a trace; arrays with one entry per decision.

    Args:
        column: the decision's place among the trace's decisions.
        step: the controller's step at which it is taken.
        option: for a member of a subset its place in the head: the option's index, or the anchor it refers to.
        width: for a choice the number of options.
        target: for an anchor the step that it refers to.
    """

    column: Ints
    step: Ints
    option: Ints
    width: Ints
    target: Ints


class Layout:
    """What the decisions of a trace are about, worked out once for all traces with the same questions.

    Args:
        questions: as the space asked them.
        forced: the name of the choice that is answered by a depth schedule, or None.
    """

    def __init__(self, questions: tuple[Question, ...], forced: str | None) -> None:
        self.questions = questions
        self.num_steps = len(questions)
        self.widths: dict[Head, int] = {}
        self.sets: dict[Head, Ints] = {}  # the steps of subsets, those without options included
        rows: dict[Head, list[tuple[int, int, int, int, int]]] = {}
        sets: dict[Head, list[int]] = {}
        anchors: dict[str, list[int]] = {}  # by kind: the steps of its subset questions so far
        column = 0
        for step, question in enumerate(questions):
            head = head_of(question, forced)
            self.widths[head] = max(self.widths.get(head, 0), head_width(question))
            slots = rows.setdefault(head, [])
            if not question.subset:
                slots.append((column, step, 0, len(question.options), 0))
                column += 1
                continue
            sets.setdefault(head, []).append(step)
            earlier = anchors.setdefault(question.kind, [])
            for index, option in enumerate(question.options):
                place = cast(int, option) if question.refers else index
                slots.append((column, step, place, 0, earlier[place] if question.refers else 0))
                column += 1
            earlier.append(step)
        self.num_decisions = column
        self.slots = {head: Slots(*np.array(s, np.int64).reshape(-1, 5).T.copy()) for head, s in rows.items()}
        self.sets = {head: np.array(steps, np.int64) for head, steps in sets.items()}
        # By type and value, since True is not 1.
        self._index: list[dict[tuple[type, Any], int]] = [
            {(type(o), o): i for i, o in enumerate(q.options)} for q in questions
        ]

    def encode(self, answers: Mapping[str, Answer]) -> Ints:
        """The decisions [num_decisions] that the answers stand for.

        Raises KeyError when an answer is missing, and ValueError when one is no option.
        """
        decisions: list[int] = []
        for question, index in zip(self.questions, self._index, strict=True):
            answer: Any = answers[question.name]
            if question.subset:
                taken = [0] * len(index)
                for member in answer:
                    place = index.get((type(member), member))
                    taken[question.options.index(member) if place is None else place] = 1
                decisions += taken
            else:
                place = index.get((type(answer), answer))
                decisions.append(question.options.index(answer) if place is None else place)  # 1 for the option 1.0
        return np.array(decisions, np.int64)


layout_of = functools.lru_cache(maxsize=1024)(Layout)
Trace: TypeAlias = tuple[Layout, Ints]


class Batch:
    """Traces as flat arrays: those of equal layout are one block."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        rows: dict[Layout, list[int]] = {}
        for row, (layout, _) in enumerate(traces):
            rows.setdefault(layout, []).append(row)
        self.num_traces = len(traces)
        self.num_steps = max(layout.num_steps for layout in rows)
        self.groups = [(layout, np.array(r), np.stack([traces[i][1] for i in r])) for layout, r in rows.items()]
        self.heads = sorted({head for layout in rows for head in layout.slots})

    def gather(self, head: Head, stride: int) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """A head's decisions: step, answer, option, width, target; step and target as row * stride + step."""
        blocks = []
        for layout, rows, decisions in self.groups:
            if (slots := layout.slots.get(head)) is not None:
                base = (rows * stride)[:, None]
                block = np.empty((5, len(rows), len(slots.step)), np.int64)
                block[0], block[1], block[2] = base + slots.step, decisions[:, slots.column], slots.option
                block[3], block[4] = slots.width, base + slots.target
                blocks.append(block.reshape(5, -1))
        step, taken, option, width, target = np.concatenate(blocks, axis=1)
        return step, taken, option, width, target

    def sets(self, head: Head, stride: int) -> Ints:
        """The steps of a head's subsets, as row * stride + step."""
        blocks = [
            ((rows * stride)[:, None] + layout.sets[head]).ravel()
            for layout, rows, _ in self.groups
            if head in layout.sets
        ]
        return np.concatenate(blocks)
