"""Grown spaces: the second shape of a space, without choices: a seed, and named edits that grow it (Real et al. 2017).

A genotype is whatever the seed's answers became edit by edit; no list of options holds all that it may be. So random
search walks from the seed by edits, evolution mutates by one edit, and whoever needs choices is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NoReturn, TypeAlias

from archsmith.core.errors import UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype
from archsmith.core.walk import Choose

Edit: TypeAlias = Callable[[Genotype, Random], Genotype | None]
"""A change: from a genotype to another one, or None where it cannot be made there. It leaves its argument alone."""

LONGEST_WALK = 32
"""How many edits a genotype drawn at random is away from the seed at most; their number is uniform from 0."""


class GrownSpace(ABC):
    """A space of genotypes that grow by edits. Inherit from it, as a frozen dataclass, for one of your own."""

    @abstractmethod
    def seed(self) -> Genotype:
        """Where all begins: the same each time."""

    @property
    @abstractmethod
    def edits(self) -> Mapping[str, Edit]:
        """The edits by name, in an order that stays the same."""

    @abstractmethod
    def read(self, answers: Mapping[str, Answer]) -> Architecture:
        """The architecture that answers describe, as plain data.

        Raises IllegalGenotype, which names the answer, the rule and the value, for any that no edit could have made.
        """

    @abstractmethod
    def build(self, architecture: Architecture, task: Any) -> Any:
        """The child for a task, as any space gives it."""

    def architecture(self, choose: Choose) -> NoReturn:
        """Raises UsageError: there are no choices, so a controller, Q-learning or a list of all genotypes does not fit."""
        raise UsageError(
            f"the space {type(self).__name__} is grown by edits and asks no choices, which controllers and Q-learning "
            "learn from; searchers that fit: Random, RegularizedEvolution, LargeScaleEvolution"
        )


def edited(space: GrownSpace, genotype: Genotype, rng: Random) -> Genotype:
    """The genotype after one edit, drawn uniformly among those that succeed; itself when none does.

    After one that fails another is drawn, none twice, which gives each of those that can be made the same chance.
    """
    names = list(space.edits)
    while names:
        edit = space.edits[names.pop(int(rng.random() * len(names)))]
        if (changed := edit(genotype, rng)) is not None:
            return changed
    return genotype


def wander(space: GrownSpace, rng: Random, longest: int = LONGEST_WALK) -> Genotype:
    """A genotype at random: a walk of 0 to `longest` edits from the seed, each length alike."""
    genotype = space.seed()
    for _ in range(int(rng.random() * (longest + 1))):
        genotype = edited(space, genotype, rng)
    return genotype
