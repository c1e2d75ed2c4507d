"""NSGA-II (Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II") over the choices of a space.

It searches a front: networks that no other beats in every objective. Parents are drawn by tournaments of two, in which the lower
front wins, and within a front the less crowded. A child takes each answer from one of its two parents, and is then mutated.

Details, and where this departs from the paper:

- One individual leaves for each that joins (steady state), in place of whole generations. In the same number of trainings that
  comes closer to the front (Nebro and Durillo 2009, "On the Effect of the Steady-State Selection Scheme in Multi-Objective
  Genetic Algorithms"), and trainings may overlap and end in any order.
- Answers are drawn from the parents at random (uniform crossover), and one is mutated as the space has it. Questions that
  neither parent was asked are answered at random. Of spaces that grow by edits there is no crossover.
- What was proposed before is drawn again, up to 100 times: it would be no new point of the front.
- A failed or stopped trial joins nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.errors import UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.grown import GrownSpace
from archsmith.core.pareto import check_objectives, objectives_of, signed_metric
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, mutator, sample
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.core.walk import ReplayWalk

__all__ = ["NSGA2"]

_TRIES = 100


@dataclass(frozen=True)
class NSGA2:
    """NSGA-II.

    Args:
        objectives: two metrics or more of a trial's result, or "reward". Which way is better is known of archsmith's own
            metrics; of others a sign says it: "+recall", "-energy".
        population: how many individuals may become parents.
        crossover: the chance that a child has two parents.
    """

    objectives: tuple[str, ...] = ("reward", "latency")
    population: int = 20
    crossover: float = 0.9

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "objectives", check_objectives("NSGA2", self.objectives))
        whole_number(self.population, "population of NSGA2", 2)
        if (
            isinstance(self.crossover, bool)
            or not isinstance(self.crossover, int | float)
            or not 0 <= self.crossover <= 1
        ):
            raise UsageError(f"crossover of NSGA2 must be a number from 0 to 1, got {self.crossover!r}")

    def random_trials(self, space: Space) -> int:
        """The trials of the first population, which is drawn at random."""
        return self.population

    def start(self, space: Space, seed: int) -> LiveNSGA2:
        """A live one, with nobody in the population yet."""
        return LiveNSGA2(self, space, seed)


@dataclass(frozen=True)
class _Individual:
    """A trial that may become a parent. Its values are smaller where they are better."""

    trial: int
    genotype: Genotype
    values: tuple[float, ...]


class LiveNSGA2:
    """NSGA-II at work. Each proposal has a generator of its own, from the seed and the proposal's number."""

    def __init__(self, config: NSGA2, space: Space, seed: int) -> None:
        self._config = config
        self._space = space
        self._mutate = mutator(space)
        self._crosses = not isinstance(space, GrownSpace)
        self._objectives = [signed_metric(metric) for metric in config.objectives]
        self._seed = seed
        self._asked = 0
        self._population: list[_Individual] = []
        self._seen: set[str] = set()  # keys of what was proposed
        self._order: list[tuple[int, float]] = []  # of each individual: its front, and how close others are, negated

    @property
    def version(self) -> int:
        return 0  # a snapshot every so many events is enough: the log holds the rest

    def ask(self, n: int) -> list[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        rng = random.Random(derive_seed(self._seed, "proposal", self._asked))
        begins = self._asked < self._config.population or not self._population
        self._asked += 1
        for _ in range(_TRIES):
            proposal = Proposal(sample(self._space, rng)) if begins else self._child(rng)
            if proposal.genotype.key not in self._seen:
                break
        self._seen.add(proposal.genotype.key)
        return proposal

    def _child(self, rng: random.Random) -> Proposal:
        parent = self._parent(rng)
        genotype = parent.genotype
        if self._crosses and len(self._population) > 1 and rng.random() < self._config.crossover:
            genotype = self._crossed(genotype, self._parent(rng).genotype, rng)
        return Proposal(self._mutate(genotype, rng), parent=parent.trial)

    def _parent(self, rng: random.Random) -> _Individual:
        """The better of two."""
        pair = rng.sample(range(len(self._population)), k=min(2, len(self._population)))
        return self._population[min(pair, key=lambda i: self._order[i])]

    def _crossed(self, one: Genotype, other: Genotype, rng: random.Random) -> Genotype:
        """Each answer from one of the two; what is not legal beside the answers before it is drawn anew."""
        answers = {**other.answers, **one.answers}
        for name in one.answers.keys() & other.answers.keys():
            if rng.random() < 0.5:
                answers[name] = other.answers[name]
        walk = ReplayWalk(answers, rng)
        self._space.architecture(walk)
        return Genotype(one.space, walk.answers)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._seen.add(trial.genotype.key)  # also of what others proposed
            if trial.state is not TrialState.DONE:
                continue
            values = objectives_of("NSGA2", trial, self._objectives)
            self._population.append(_Individual(trial.number, trial.genotype, values))
            self._order = ordered([each.values for each in self._population])
            if len(self._population) > self._config.population:
                del self._population[max(range(len(self._order)), key=lambda i: (self._order[i], i))]
                self._order = ordered([each.values for each in self._population])

    def needs(self) -> set[int]:
        """The trials that may become parents."""
        return {each.trial for each in self._population}

    def diagnostics(self) -> Mapping[str, float]:
        """How many individuals there are, and how many of them no other dominates; empty before the first."""
        if not self._population:
            return {}
        return {"population": float(len(self._order)), "front": float(sum(front == 0 for front, _ in self._order))}

    def state_dict(self) -> State:
        return {
            "seed": self._seed,
            "asked": self._asked,
            "population": [
                {"trial": each.trial, "answers": dict(each.genotype.answers), "values": list(each.values)}
                for each in self._population
            ],
            "seen": sorted(self._seen),
        }

    def load_state_dict(self, state: State) -> None:
        space = identity(self._space)
        self._seed, self._asked = int(state["seed"]), int(state["asked"])
        self._population = [
            _Individual(int(each["trial"]), Genotype(space, each["answers"]), tuple(map(float, each["values"])))
            for each in state["population"]
        ]
        self._order = ordered([each.values for each in self._population])
        self._seen = set(state["seen"])


def ordered(points: Sequence[tuple[float, ...]]) -> list[tuple[int, float]]:
    """For each point its front, counted from 0, and its crowding distance, negated: smaller is better in both.

    Args:
        points: of which smaller values are better.
    """
    fronts = [0] * len(points)
    left, front = list(range(len(points))), 0
    while left:
        best = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        for i in best:
            fronts[i] = front
        left = [i for i in left if fronts[i] == front and i not in set(best)]
        for i in left:
            fronts[i] = front + 1
        front += 1
    distances = [0.0] * len(points)
    for number in range(front):
        members = [i for i in range(len(points)) if fronts[i] == number]
        for k in range(len(points[0])):
            members.sort(key=lambda i: points[i][k])
            low, high = points[members[0]][k], points[members[-1]][k]
            distances[members[0]] = distances[members[-1]] = math.inf
            for before, i, after in zip(members, members[1:], members[2:], strict=False):
                if high > low:
                    distances[i] += (points[after][k] - points[before][k]) / (high - low)
    return [(fronts[i], -distances[i]) for i in range(len(points))]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one point is at least as good in every value, and better in one. Smaller is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))
