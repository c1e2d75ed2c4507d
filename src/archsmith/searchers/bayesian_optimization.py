"""Bayesian optimization over choices (Oh et al. 2019, "Combinatorial Bayesian Optimization using the Graph Cartesian
Product", COMBO), for budgets of tens or hundreds of trials.

A Gaussian process says of each genotype what reward is expected, and how uncertain that is; the next proposal is the one
whose expected improvement on the best is highest, found by sampling and by climbing from the best samples. It needs far
fewer trials than evolution where one is worth hours, and takes milliseconds to find each.

Details, and where this departs from the paper:

- The kernel is the paper's, with another beside it that counts options; its weights are fitted, where the paper samples
  them (`archsmith.searchers.gaussian_process`): when results are a seventh more than they were at the last fit.
- Rewards go in twice, by rank and by distance from the median, added: ranks keep a child that failed to learn
  from hiding the differences among good ones, distances keep what the best are ahead by. Scales do not matter, and what is far
  from all others is clipped before, as `archsmith.searchers.reward_range` says.
- The best is the highest expected reward among results, not the highest reward, which noise may have made.
- Candidates are random genotypes and mutations of the best results, one mutation or more; the best of them is climbed from,
  over mutations of it, as in the paper over neighbours.
- No genotype is proposed twice until no other is found: its reward is known. Those told before it started count.
- Trials that are running count as if their rewards were as expected, so that several at once spread out.
- A failed trial counts as the worst reward so far; before any reward was seen, and where it was stopped or its worker died,
  it says nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.errors import UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, mutator, next_question, sample, trace
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.searchers.blas import one_blas_thread
from archsmith.searchers.gaussian_process import Belief, Columns, Encoder, Floats, GaussianProcess
from archsmith.searchers.reward_range import within_range

__all__ = ["BayesianOptimization"]

_FITTED, _RUNNING = 200, 100  # how many results weights are fitted to; how many running trials count
_CLIMBS = 8  # how often the best candidate is climbed from, at most
_PARENTS = 10

_Told: TypeAlias = tuple[int, Genotype, Columns, float]
"""A result: the trial's number, its genotype, that as columns, and its reward."""


@dataclass(frozen=True)
class BayesianOptimization:
    """Bayesian optimization by a Gaussian process over answers.

    Args:
        initial: how many proposals are random before the first that is not.
        candidates: how many genotypes each proposal is chosen from; from the best, a quarter as many more are tried as
            often as that finds a better one, at most 8 times.
        memory: at most so many results are believed in: the best half, and the latest. The time of a proposal grows
            with its cube.
    """

    initial: int = 10
    candidates: int = 100
    memory: int = 400

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, least in (("initial", 2), ("candidates", 1), ("memory", 10)):
            whole_number(getattr(self, name), f"{name} of BayesianOptimization", least)

    def random_trials(self, space: Space) -> int:
        """The initial trials."""
        return self.initial

    def start(self, space: Space, seed: int) -> LiveBayesianOptimization:
        """A live one that believes nothing yet. Raises UsageError when the space asks nothing."""
        if not hasattr(space, "architecture"):
            raise UsageError(
                f"BayesianOptimization answers the choices of a space, and {type(space).__name__} asks none; evolution "
                "fits it: RegularizedEvolution"
            )
        if next_question(space, [])[0] is None:
            raise UsageError(f"the space {identity(space)['name']!r} asks no choices, so there is nothing to choose")
        return LiveBayesianOptimization(self, space, seed)


class LiveBayesianOptimization:
    """The search at work. Each proposal has a generator of its own, from the seed and the proposal's number."""

    def __init__(self, config: BayesianOptimization, space: Space, seed: int) -> None:
        self._config = config
        self._space = space
        self._mutate = mutator(space)
        self._seed = seed
        self._asked = 0
        self._encoder = Encoder()
        self._process = GaussianProcess(self._encoder)
        self._results: list[_Told] = []
        self._running: dict[Columns, Genotype] = {}
        self._known: set[Columns] = set()  # what has a result
        self._worst: float | None = None
        self._fitted = 0  # how many results the last fit had before it
        self._fits = 0
        self._belief: tuple[int, Belief, float] | None = None  # see _believed; None when it must be made anew

    @property
    def version(self) -> int:
        return self._fits

    # --- proposing

    def ask(self, n: int) -> list[Proposal]:
        with one_blas_thread():
            return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        rng = random.Random(derive_seed(self._seed, "proposal", self._asked))
        begins = self._asked < self._config.initial or len(self._results) < 2
        self._asked += 1

        def at_random() -> Proposal:
            return Proposal(sample(self._space, rng))

        best = None if begins else self._most_promising(at_random, rng)
        if best is None:
            found = list(self._new(at_random, 1, tries=100).items())
            proposal = at_random()  # where the space is used up, or as good as
            best = found[0] if found else (self._columns(proposal.genotype), proposal)
        columns, proposal = best
        self._running.pop(columns, None)
        self._running[columns] = proposal.genotype
        self._belief = None
        return proposal

    def _new(self, make: Callable[[], Proposal], wanted: int, *, tries: int) -> dict[Columns, Proposal]:
        """Different proposals that were not made before: as many as wanted, or as were found."""
        found: dict[Columns, Proposal] = {}
        for _ in range(tries):
            proposal = make()
            columns = self._columns(proposal.genotype)
            if columns not in self._known and columns not in self._running:
                found.setdefault(columns, proposal)
            if len(found) == wanted:
                break
        return found

    def _columns(self, genotype: Genotype) -> Columns:
        kinds = self._encoder.kinds
        if any(name not in kinds for name in genotype.answers):
            kinds.update((question.name, question.kind) for question in trace(self._space, genotype.answers))
        return self._encoder.encode(genotype.answers)

    def _most_promising(self, at_random: Callable[[], Proposal], rng: random.Random) -> tuple[Columns, Proposal] | None:
        """The candidate of the highest expected improvement; None when there is none."""
        parents = self._parents()

        def mutated() -> Proposal:
            if rng.random() < 0.1:
                return at_random()
            number, genotype, _, _ = parents[int(rng.random() * len(parents))]
            child = self._mutate(genotype, rng)
            while rng.random() < 0.5:
                child = self._mutate(child, rng)
            return Proposal(child, parent=number)

        wanted = self._config.candidates
        found = self._new(mutated, wanted, tries=3 * wanted)
        best: tuple[Columns, Proposal] | None = None
        promised = (-1.0, -math.inf)
        self._fit_if_due()
        for _ in range(1 + _CLIMBS):
            if not found:
                break
            improvement, mean = self._promise(list(found))
            at = max(range(len(found)), key=lambda i: (improvement[i], mean[i]))
            if (improvement[at], mean[at]) <= promised:
                break
            best, promised = list(found.items())[at], (improvement[at], mean[at])
            top = best[1]
            found = self._new(
                lambda top=top: Proposal(self._mutate(top.genotype, rng), top.parent),  # type: ignore[misc]
                1 + wanted // 4,
                tries=1 + wanted // 2,
            )
        return best

    def _parents(self) -> list[_Told]:
        """The results whose genotypes are mutated: the best."""
        return sorted(self._results, key=lambda result: result[3], reverse=True)[:_PARENTS]

    def needs(self) -> set[int]:
        """The trials that may become parents, whose weights a child may inherit."""
        return {number for number, *_ in self._parents()}

    def _promise(self, rows: Sequence[Columns]) -> tuple[list[float], list[float]]:
        """Expected improvement and mean of genotypes; the first is zero where it is beyond all numbers."""
        belief, best = self._believed()
        mean, deviation = belief(self._encoder.table(rows))
        improvement = [
            s * (z * 0.5 * math.erfc(-z / math.sqrt(2)) + math.exp(-z * z / 2) / math.sqrt(2 * math.pi))
            for z, s in zip(((mean - best) / deviation).tolist(), deviation.tolist(), strict=True)
        ]
        return improvement, mean.tolist()

    # --- believing

    def _believed(self) -> tuple[Belief, float]:
        """What results and running trials say, and the highest mean among results."""
        width = len(self._encoder.columns)
        if self._belief is None or self._belief[0] != width:
            results = self._worth(self._config.memory)
            x, y = self._encoder.table([columns for _, _, columns, _ in results]), spread([r for *_, r in results])
            belief = self._process.believe(x, y)
            best = float(belief.mean(x).max())
            if self._running:
                running = self._encoder.table(list(self._running)[-_RUNNING:])
                as_expected = np.concatenate([y, belief.mean(running)])
                belief = self._process.believe(np.concatenate([x, running]), as_expected)
            self._belief = width, belief, best
        return self._belief[1:]

    def _fit_if_due(self) -> None:
        if len(self._results) * 7 < self._fitted * 8:
            return
        results = self._worth(_FITTED)
        x = self._encoder.table([columns for _, _, columns, _ in results])
        self._process.fit(x, spread([reward for *_, reward in results]))
        self._fitted = len(self._results)
        self._fits += 1
        self._belief = None

    def _worth(self, most: int) -> list[_Told]:
        """The results to learn from: all, or the best half and the latest of the others."""
        if len(self._results) <= most:
            return self._results
        order = sorted(range(len(self._results)), key=lambda i: self._results[i][3], reverse=True)
        kept = set(order[: most // 2])
        latest = [i for i in range(len(self._results) - 1, -1, -1) if i not in kept]
        return [self._results[i] for i in sorted(kept | set(latest[: most - len(kept)]))]

    # --- learning

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            columns = self._columns(trial.genotype)
            self._running.pop(columns, None)
            self._belief = None
            failure = trial.result.failure if trial.result else None
            if trial.state is TrialState.DONE and trial.reward is not None:
                reward: float | None = trial.reward
                self._worst = trial.reward if self._worst is None else min(self._worst, trial.reward)
            elif trial.state is TrialState.FAILED and not (failure and failure.reason == "worker"):
                reward = self._worst
            else:
                continue
            self._known.add(columns)
            if reward is not None:
                self._results.append((trial.number, trial.genotype, columns, reward))

    def diagnostics(self) -> Mapping[str, float]:
        """Of the last fit: the noise expected of a result, as a share of what rewards vary by; how many fits there were and
        on how many results; empty before the first."""
        if not self._fits:
            return {}
        return {
            "noise": self._process.noise,
            "fits": float(self._fits),
            "fitted_results": float(self._fitted),
        }

    def state_dict(self) -> State:
        return {
            "seed": self._seed,
            "asked": self._asked,
            "results": [{"trial": n, "answers": dict(g.answers), "reward": r} for n, g, _, r in self._results],
            "running": [dict(genotype.answers) for genotype in self._running.values()],
            "known": [list(columns) for columns in sorted(self._known)],
            "worst": self._worst,
            "fitted": self._fitted,
            "fits": self._fits,
            "columns": [list(column) for column in self._encoder.columns],
            "log_weights": list(self._process.log_weights),
            "others": list(self._process.others),
        }

    def load_state_dict(self, state: State) -> None:
        space = identity(self._space)
        self._seed, self._asked = int(state["seed"]), int(state["asked"])
        self._encoder = Encoder([(question, kind, answer) for question, kind, answer in state["columns"]])
        self._process = GaussianProcess(self._encoder)
        self._process.log_weights = [float(weight) for weight in state["log_weights"]]
        self._process.others = [float(parameter) for parameter in state["others"]]
        encode = self._encoder.encode
        self._results = [
            (int(r["trial"]), Genotype(space, r["answers"]), encode(r["answers"]), float(r["reward"]))
            for r in state["results"]
        ]
        self._running = {encode(answers): Genotype(space, answers) for answers in state["running"]}
        self._known = {tuple(int(column) for column in columns) for columns in state["known"]}
        self._worst = None if state["worst"] is None else float(state["worst"])
        self._fitted, self._fits, self._belief = int(state["fitted"]), int(state["fits"]), None


def spread(rewards: Sequence[float]) -> Floats:
    """Rewards as a Gaussian process likes them, mean 0 and variance 1: by rank and by distance, added; ties stay ties."""
    rewards = within_range(rewards)
    which, counts = np.unique(np.array(rewards, np.float64), return_inverse=True, return_counts=True)[1:]
    ranks = (np.cumsum(counts) - counts / 2) / len(rewards)
    by_rank = np.array([NormalDist().inv_cdf(rank) for rank in ranks])[which]
    above = np.array(rewards, np.float64) - np.median(rewards)
    scale = np.quantile(above, 0.9)
    if not scale > above.max() * 1e-12:  # nothing, or as good as nothing beside the best
        return _standard(by_rank)
    above = above / scale
    by_distance = np.where(above < 0, -np.log1p(np.maximum(-above, 0.0)), above)
    return _standard(_standard(by_rank) + _standard(by_distance))


def _standard(values: Floats) -> Floats:
    centred: Floats = values - values.mean()
    deviation = float(centred.std())
    return centred / deviation if deviation > 0 else centred
