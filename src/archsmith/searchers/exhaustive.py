"""Exhaustive search of a small space: every genotype once (Ramachandran et al. 2017, section 2, for one core unit).

It learns nothing and ends by itself. In an order of chance, whatever budget ends it first has had a fair sample.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import State
from archsmith.core.shown import shown
from archsmith.core.space import Space, enumerate_genotypes, identity, script
from archsmith.core.trial import Proposal, Trial
from archsmith.core.walk import Question

LARGEST = 200_000
"""The most genotypes of a space that is searched exhaustively."""


@dataclass(frozen=True)
class Exhaustive:
    """Proposes every genotype of a space once, and then nothing more.

    Args:
        shuffle: whether they come in an order that the run's seed decides; otherwise in the space's own order, the last
            question's options first.
    """

    shuffle: bool = True

    def __post_init__(self) -> None:
        plain_fields(self)
        if not isinstance(self.shuffle, bool):
            raise UsageError(f"shuffle of Exhaustive must be True or False, got {shown(self.shuffle)}")

    def start(self, space: Space, seed: int) -> LiveExhaustive:
        """A live search. Raises UsageError for a grown space, and for one of more than LARGEST genotypes."""
        return LiveExhaustive(space, seed, self.shuffle)


class LiveExhaustive:
    """Exhaustive search at work. Its state is how many it has proposed: the order follows from the seed."""

    def __init__(self, space: Space, seed: int, shuffle: bool) -> None:
        self._space, self._shuffle = space, shuffle
        self._listed = _listed(space)
        self._asked = 0
        self._order_by(seed)

    @property
    def version(self) -> int:
        return 0  # it learns nothing

    def ask(self, n: int) -> list[Proposal]:
        """`n` proposals, fewer at the end, and none from then on."""
        own = identity(self._space)
        places = self._order[self._asked : self._asked + n]
        self._asked += len(places)
        return [Proposal(Genotype(own, self._listed.answers(place))) for place in places]

    def tell(self, trials: Sequence[Trial]) -> None:
        pass

    def diagnostics(self) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> State:
        return {"seed": self._seed, "asked": self._asked}

    def load_state_dict(self, state: State) -> None:
        self._asked = int(state["asked"])
        self._order_by(int(state["seed"]))

    def _order_by(self, seed: int) -> None:
        self._seed = seed
        self._order: Sequence[int] = range(self._listed.size)
        if self._shuffle:
            self._order = random.Random(seed).sample(self._order, len(self._order))


class _Questions:
    """The genotypes of a space whose questions are always the same, by number: the last question turns fastest."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        self._sizes = [2 ** len(q.options) if q.subset else len(q.options) for q in questions]
        self.size = math.prod(self._sizes)

    def answers(self, place: int) -> dict[str, Any]:
        digits = []
        for size in reversed(self._sizes):
            place, digit = divmod(place, size)
            digits.append(digit)
        found: dict[str, Any] = {}
        for question, digit in zip(self._questions, reversed(digits), strict=True):
            options = question.options
            found[question.name] = (
                [o for i, o in enumerate(options) if digit >> i & 1] if question.subset else options[digit]
            )
        return found


class _List:
    """The genotypes of a space whose questions depend on answers: all of them, walked once."""

    def __init__(self, genotypes: Iterator[Genotype]) -> None:
        self._answers: list[Mapping[str, Any]] = []
        for genotype in genotypes:
            if len(self._answers) == LARGEST:
                raise _too_large(f"more than {LARGEST:,}")
            self._answers.append(genotype.answers)
        self.size = len(self._answers)

    def answers(self, place: int) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, list) else v for k, v in self._answers[place].items()}


def _listed(space: Space) -> _Questions | _List:
    questions = script(space)
    if questions is not None:
        listed = _Questions(questions)
        if listed.size > LARGEST:
            raise _too_large(f"{listed.size:,}")
        return listed
    return _List(enumerate_genotypes(space))


def _too_large(size: str) -> UsageError:
    return UsageError(
        f"Exhaustive is for spaces of at most {LARGEST:,} genotypes, and this one has {size}; "
        "search it with another searcher, or offer fewer options"
    )
