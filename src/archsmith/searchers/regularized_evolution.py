"""Regularized (aging) evolution (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search").

Algorithm 1 of the paper: P models with random architectures are the first population. Then, cycle by cycle, S of the
population are drawn uniformly with replacement, the best of them is the parent, a mutated copy of it is trained and
joins at the right end, and the oldest leaves at the left, however good it is.

Details, and where this departs from the paper:

- As in the paper's parallel version, cycles overlap: a parent is drawn from those whose result is in, and age is the order in
  which results came in.
- The control of the paper is `aging=False`: the worst of another S leaves, in place of the oldest.
- A failed trial joins nothing: it cannot be a parent. A stopped one likewise.
- `unique=True`, which the paper does not have, draws again what was proposed before, up to 100 times: training the same
  architecture twice teaches nothing where rewards are looked up, or when a budget is small.
- What a mutation is, the space says (`archsmith.core.space.mutate`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.errors import UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, mutator, sample
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.searchers.reward_range import mean

__all__ = ["RegularizedEvolution"]

_TRIES = 100


@dataclass(frozen=True)
class RegularizedEvolution:
    """Aging evolution. The defaults are the paper's.

    Args:
        population: P, how many models are alive.
        sample: S, how many are drawn to find a parent. 1 is a random walk; the more, the greedier.
        aging: whether the oldest leaves; otherwise the worst of `sample` drawn ones.
        unique: whether proposals that were made before are drawn again.
    """

    population: int = 100
    sample: int = 25
    aging: bool = True
    unique: bool = False

    def __post_init__(self) -> None:
        plain_fields(self)
        for name in ("population", "sample"):
            whole_number(getattr(self, name), f"{name} of RegularizedEvolution", 1)
        for name in ("aging", "unique"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} of RegularizedEvolution must be True or False, got {getattr(self, name)!r}")

    @classmethod
    def small(cls) -> RegularizedEvolution:
        """Settings for some hundred trials, greedier than the paper's: tuned on NAS-Bench-201's columns of CIFAR-100 and
        ImageNet16-120, looked at on made landscapes of 6 and 20 choices."""
        return cls(population=40, sample=20, unique=True)

    def random_trials(self, space: Space) -> int:
        """The trials of the first population, which is drawn at random."""
        return self.population

    def start(self, space: Space, seed: int) -> LiveRegularizedEvolution:
        """A live evolution, with nobody alive yet."""
        return LiveRegularizedEvolution(self, space, seed)


class LiveRegularizedEvolution:
    """Evolution at work. Each proposal has a generator of its own, from the seed and the proposal's number."""

    def __init__(self, config: RegularizedEvolution, space: Space, seed: int) -> None:
        self._config = config
        self._space = space
        self._mutate = mutator(space)
        self._seed = seed
        self._rng = random.Random()
        self._asked = 0
        self._removed = 0
        self._alive: deque[tuple[int, Genotype, float]] = deque()  # trial, genotype, reward; the oldest at the left
        self._seen: set[str] = set()  # keys of what was proposed, where that matters

    @property
    def version(self) -> int:
        return 0  # a snapshot every so many events is enough: the log holds the rest

    def ask(self, n: int) -> list[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        self._rng.seed(derive_seed(self._seed, "proposal", self._asked))
        begins = self._asked < self._config.population or not self._alive
        self._asked += 1
        for _ in range(_TRIES):
            if begins:
                proposal = Proposal(sample(self._space, self._rng))
            else:
                number, genotype, _ = max(self._draw(), key=lambda member: member[2])
                proposal = Proposal(self._mutate(genotype, self._rng), parent=number)
            if not self._config.unique or proposal.genotype.key not in self._seen:
                break
        if self._config.unique:
            self._seen.add(proposal.genotype.key)
        return proposal

    def _draw(self) -> list[tuple[int, Genotype, float]]:
        """S of those alive, with replacement."""
        return self._rng.choices(self._alive, k=self._config.sample)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if self._config.unique:
                self._seen.add(trial.genotype.key)  # also of what others proposed
            if trial.state is not TrialState.DONE or trial.reward is None:
                continue
            self._alive.append((trial.number, trial.genotype, trial.reward))
            if len(self._alive) <= self._config.population:
                continue
            if self._config.aging:
                self._alive.popleft()
            else:
                self._rng.seed(derive_seed(self._seed, "removal", self._removed))
                self._alive.remove(min(self._draw(), key=lambda member: member[2]))
                self._removed += 1

    def needs(self) -> set[int]:
        """The trials that are alive: any of them may become a parent, whose weights a child may inherit."""
        return {number for number, _, _ in self._alive}

    def diagnostics(self) -> Mapping[str, float]:
        """How many are alive, and their mean and best reward; empty before the first."""
        if not self._alive:
            return {}
        rewards = [reward for _, _, reward in self._alive]
        return {"alive": float(len(rewards)), "mean_reward": mean(rewards), "best_reward": max(rewards)}

    def state_dict(self) -> State:
        return {
            "seed": self._seed,
            "asked": self._asked,
            "removed": self._removed,
            "alive": [{"trial": n, "answers": dict(g.answers), "reward": r} for n, g, r in self._alive],
            "seen": sorted(self._seen),
        }

    def load_state_dict(self, state: State) -> None:
        space = identity(self._space)
        self._seed, self._asked, self._removed = int(state["seed"]), int(state["asked"]), int(state["removed"])
        self._alive = deque(
            (int(m["trial"]), Genotype(space, m["answers"]), float(m["reward"])) for m in state["alive"]
        )
        self._seen = set(state["seen"])
