"""A made landscape over any space: a reward without training, to watch a searcher learn and to test one.

Every answer is worth a fixed random amount, as is every member of a subset and every pair of neighbouring choices; the
share of the pairs is the ruggedness. It says how well a searcher exploits structure that is known to be there, and nothing about networks.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Context
from archsmith.core.genotype import Genotype, Scalar
from archsmith.core.space import Space, decode
from archsmith.core.trial import Cost, Result
from archsmith.core.walk import kind_of
from archsmith.rewards import value


@dataclass(frozen=True)
class Landscape:
    """The metric "value", between 0 and 1, as a function of the answers alone.

    Args:
        seed: which landscape.
        ruggedness: the share of the value that comes from pairs of neighbouring choices, from 0 to 1.
        noise: standard deviation of what is added to each evaluation, from the child's own seed.
    """

    seed: int = 0
    ruggedness: float = 0.3
    noise: float = 0.0

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 <= self.ruggedness <= 1:
            raise UsageError(f"ruggedness must be between 0 and 1, got {self.ruggedness!r}")
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise UsageError(f"noise must be zero or above, got {self.noise!r}")

    pure: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[str, ...]] = ("value",)

    @property
    def default_reward(self) -> Callable[[Result], float]:
        """The value itself."""
        return value

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        """Look the value up; refuses an illegal genotype as any evaluator does."""
        began = time.perf_counter()
        decode(space, genotype)
        height = self.height(genotype)
        if self.noise:
            height += Random(context.seed).gauss(0.0, self.noise)
        return Result(metrics={"value": height}, cost=Cost(seconds=time.perf_counter() - began, epochs=1.0))

    def height(self, genotype: Genotype) -> float:
        """The value without noise."""
        single, chosen = [], []
        for name, answer in genotype.answers.items():
            if isinstance(answer, list):  # each member is worth something of its own; an empty subset is average
                members = [self._taste(name, member) for member in answer]
                single.append(sum(members) / len(members) if members else 0.5)
            else:
                single.append(self._taste(name, answer))
                chosen.append((name, answer))
        pairs = [self._worth(*a, *b) for a, b in pairwise(chosen)] or single
        return (1 - self.ruggedness) * sum(single) / len(single) + self.ruggedness * sum(pairs) / len(pairs)

    def _taste(self, name: str, answer: Scalar) -> float:
        """Half of it is shared by all choices of a kind: what suits one layer mostly suits its neighbours."""
        return 0.5 * self._worth(kind_of(name), answer) + 0.5 * self._worth(name, answer)

    def _worth(self, *what: Scalar) -> float:
        digest = hashlib.blake2b(repr((self.seed, what)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
