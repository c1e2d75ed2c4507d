"""A depth that grows as a search goes on (Zoph and Le 2017, section 4.1: from 6 layers, two more every 1,600 samples)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture, Scalar
from archsmith.core.space import Space
from archsmith.core.walk import Choose, Question, RecordingWalk

T = TypeVar("T")


@dataclass(frozen=True)
class DepthSchedule:
    """Forces the answer to the space's choice of depth, by how many proposals were made before.

    Proposal s (counted from 0) has depth `start + step * (s // every)`, and the largest option from there on: with
    the options 6, 8, ..., 20 these are the paper's eight stages. A searcher takes it as `depth_schedule=`. A forced
    answer is no decision: it adds no term to the log-probability of a proposal.

    Args:
        start: the depth of the first proposal; one of the options.
        step: how much deeper each stage is; the depths it leads to must be options, up to the largest.
        every: how many proposals a stage lasts.
        choice: the name of the choice that is forced.
    """

    start: int = 6
    step: int = 2
    every: int = 1600
    choice: str = "layers"

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.start < 1:
            raise UsageError(f"the start of a depth schedule must be at least 1 layer, got {self.start}")
        if self.step < 0:
            raise UsageError(f"the step of a depth schedule must not be below 0, got {self.step}")
        if self.every < 1:
            raise UsageError(f"a stage of a depth schedule must last at least 1 proposal, got every={self.every}")

    def options(self, space: Space) -> tuple[int, ...]:
        """The depths that the space offers.

        Raises UsageError when it has no such choice, or does not offer a depth of the schedule.
        """
        found: list[Question] = []

        def answer(question: Question) -> int | tuple[int, ...]:
            if question.name == self.choice and not question.subset:
                found.append(question)
            return () if question.subset else 0

        space.architecture(RecordingWalk(answer))
        if not found:
            raise UsageError(
                f"a depth schedule needs a space with a choice named {self.choice!r}, and this space asks none; "
                f"give the space a choice of depth, such as ConvChain(depths=(6, 8, 10)), or drop depth_schedule"
            )
        depths = tuple(option for option in found[0].options if type(option) is int)
        if len(depths) != len(found[0].options):
            raise UsageError(
                f"a depth schedule needs whole numbers as options of {self.choice!r}, got {found[0].options}"
            )
        needed = range(self.start, max(max(depths), self.start) + 1, self.step) if self.step else (self.start,)
        for depth in needed:
            if depth not in depths:
                raise UsageError(
                    f"a depth schedule from {self.start} in steps of {self.step} comes to {depth} layers, and the "
                    f"options of choice {self.choice!r} are {', '.join(map(str, depths))}"
                )
        return depths

    def depth(self, number: int, options: Sequence[int]) -> int:
        """The depth of proposal `number`, counted from 0, where the space offers `options`."""
        return min(self.start + self.step * (number // self.every), max(options))


class Forced:
    """A walk that is left no choice where `name` is asked: `value` is the only option it sees."""

    __slots__ = ("_name", "_value", "_walk")

    def __init__(self, walk: Choose, name: str, value: Scalar) -> None:
        self._walk = walk
        self._name = name
        self._value = value

    def __call__(self, name: str, options: Iterable[T], *, kind: str | None = None) -> T:
        if name == self._name:
            options = [option for option in options if option == self._value]
        return self._walk(name, options, kind=kind)

    def subset(self, name: str, options: Iterable[T], *, kind: str | None = None) -> list[T]:
        return self._walk.subset(name, options, kind=kind)


@dataclass(frozen=True)
class AtDepth:
    """A space seen at one value of its choice of depth; its questions may no longer depend on answers there."""

    space: Space
    choice: str
    depth: int

    def architecture(self, choose: Choose) -> Architecture:
        return self.space.architecture(Forced(choose, self.choice, self.depth))

    def build(self, architecture: Architecture, task: Any) -> Any:
        return self.space.build(architecture, task)
