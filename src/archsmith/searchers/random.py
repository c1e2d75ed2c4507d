"""Random search: every choice answered uniformly at random (the baseline of Zoph and Le 2017, section 4.2).

Whoever claims that a searcher learns shows it beside this one, at equal budget. The shortest example of a searcher.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, sample
from archsmith.core.trial import Proposal, Trial
from archsmith.core.walk import RandomWalk
from archsmith.searchers.depth_schedule import DepthSchedule, Forced

__all__ = ["Random"]


@dataclass(frozen=True)
class Random:
    """Proposes genotypes at random: each option of a choice alike, each member of a subset by a fair coin; of a grown
    space, what a walk of edits from the seed comes to.

    Args:
        depth_schedule: forces the depth, so that a controller with a schedule is compared at equal depths.
    """

    depth_schedule: DepthSchedule | None = None

    def start(self, space: Space, seed: int) -> LiveRandom:
        """A live random search. Raises UsageError when there is a depth schedule that the space has no choice for."""
        return LiveRandom(space, seed, self.depth_schedule)


class LiveRandom:
    """Random search at work. Proposal s depends on the seed and s alone, so its state is how many it has made."""

    def __init__(self, space: Space, seed: int, schedule: DepthSchedule | None) -> None:
        self._space = space
        self._seed = seed
        self._schedule = schedule
        self._depths = schedule.options(space) if schedule else ()
        self._rng = random.Random()
        self._asked = 0

    @property
    def version(self) -> int:
        return 0  # it learns nothing

    def ask(self, n: int) -> list[Proposal]:
        space = identity(self._space)
        proposals = []
        for number in range(self._asked, self._asked + n):
            self._rng.seed(derive_seed(self._seed, "proposal", number))
            if self._schedule is None:
                proposals.append(Proposal(sample(self._space, self._rng)))
                continue
            walk = RandomWalk(self._rng)
            depth = self._schedule.depth(number, self._depths)
            self._space.architecture(Forced(walk, self._schedule.choice, depth))
            proposals.append(Proposal(Genotype(space, walk.answers)))
        self._asked += n
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        pass

    def diagnostics(self) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> State:
        return {"seed": self._seed, "asked": self._asked}

    def load_state_dict(self, state: State) -> None:
        self._seed = int(state["seed"])
        self._asked = int(state["asked"])
