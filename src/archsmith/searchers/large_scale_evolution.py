"""Large-scale evolution (Real et al. 2017, "Large-Scale Evolution of Image Classifiers", section 3.1).

Each worker, again and again, draws two individuals of the population at random and compares them; the worse is killed at
once, and the better is the parent of a mutated copy, which is trained and joins. All begin as copies of the seed.

Details, and where this departs from the paper:

- The paper's workers share nothing but a folder, in which the names of folders tell who is alive; a worker that finds
  its individual gone gives up. Here one process draws for all, so nobody's individual is ever gone, and nothing is
  locked while a child is trained: any number of children may be in training, and they join in any order.
- A pair kills only while the population, those in training included, is at its size; otherwise it just reproduces.
  So the population keeps its size, and grows back where children fail: a failed or stopped child joins nothing.
- More workers than individuals: the first of them train further seeds, and the population is brought down to its size
  by pairs that fight without reproducing, so that two are left at least.
- Of a pair with equal fitness the one drawn second dies; the paper does not say.
- On a space of choices the first population is drawn at random, since such a space has no seed.
- What a mutation is, the space says. That a child inherits weights is between the space and the evaluator: see
  `archsmith.spaces.GrownGraph`; here it is only told whose weights are still needed (`needs`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.grown import GrownSpace
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, mutator, sample
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.searchers.reward_range import mean

__all__ = ["LargeScaleEvolution"]


@dataclass(frozen=True)
class LargeScaleEvolution:
    """Evolution by pairwise tournaments. The default is the paper's.

    Args:
        population: how many individuals there are, those in training included; at least 2. A small one is easily
            trapped: the paper's own comparison has 2 at the bottom.
    """

    population: int = 1000

    def __post_init__(self) -> None:
        plain_fields(self)
        whole_number(self.population, "population of LargeScaleEvolution", 2)

    def random_trials(self, space: Space) -> int:
        """The trials of the first population, which are the seed or drawn at random."""
        return self.population

    def start(self, space: Space, seed: int) -> LiveLargeScaleEvolution:
        """A live evolution, with nobody alive yet."""
        return LiveLargeScaleEvolution(self, space, seed)


class LiveLargeScaleEvolution:
    """Evolution at work. Each proposal has a generator of its own, from the seed and the proposal's number."""

    def __init__(self, config: LargeScaleEvolution, space: Space, seed: int) -> None:
        self._config = config
        self._space = space
        self._mutate = mutator(space)
        self._seed = seed
        self._rng = random.Random()
        self._asked = 0
        self._training = 0
        self._killed = 0
        self._alive: list[tuple[int, Genotype, float]] = []  # trial, genotype, fitness; in the order they joined

    @property
    def version(self) -> int:
        return (
            self._killed // self._config.population
        )  # as many deaths as individuals: a generation, to show how it goes

    def ask(self, n: int) -> list[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        self._rng.seed(derive_seed(self._seed, "proposal", self._asked))
        if self._asked < self._config.population or not self._alive:
            first = self._space.seed() if isinstance(self._space, GrownSpace) else sample(self._space, self._rng)
            proposal = Proposal(first)
        else:
            while self._members() > self._config.population and len(self._alive) > 2:
                self._tournament()
            number, genotype, _ = self._tournament()
            proposal = Proposal(self._mutate(genotype, self._rng), parent=number)
        self._asked += 1
        self._training += 1
        return proposal

    def _members(self) -> int:
        return len(self._alive) + self._training

    def _tournament(self) -> tuple[int, Genotype, float]:
        """The better of two individuals; the worse one is killed while the population is at its size."""
        if len(self._alive) < 2:
            return self._alive[0]
        first, second = self._rng.sample(range(len(self._alive)), 2)
        if self._alive[second][2] > self._alive[first][2]:
            first, second = second, first
        better = self._alive[first]
        if self._members() >= self._config.population:
            del self._alive[second]
            self._killed += 1
        return better

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._training = max(0, self._training - 1)
            if trial.state is TrialState.DONE and trial.reward is not None:
                self._alive.append((trial.number, trial.genotype, trial.reward))

    def needs(self) -> set[int]:
        """The trials that are alive: any of them may become a parent."""
        return {number for number, _, _ in self._alive}

    def diagnostics(self) -> Mapping[str, float]:
        """How many are alive, their mean and best fitness, and how many were killed; empty before the first."""
        if not self._alive:
            return {}
        fitness = [reward for _, _, reward in self._alive]
        return {
            "alive": float(len(fitness)),
            "mean_reward": mean(fitness),
            "best_reward": max(fitness),
            "killed": float(self._killed),
        }

    def state_dict(self) -> State:
        return {
            "seed": self._seed,
            "asked": self._asked,
            "training": self._training,
            "killed": self._killed,
            "alive": [{"trial": n, "answers": dict(g.answers), "reward": r} for n, g, r in self._alive],
        }

    def load_state_dict(self, state: State) -> None:
        space = identity(self._space)
        self._seed, self._asked = int(state["seed"]), int(state["asked"])
        self._training, self._killed = int(state["training"]), int(state["killed"])
        self._alive = [(int(m["trial"]), Genotype(space, m["answers"]), float(m["reward"])) for m in state["alive"]]
