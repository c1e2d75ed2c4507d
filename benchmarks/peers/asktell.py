"""Other libraries behind `ask` and `tell`: proposals are lists of option indices, rewards are maximised.

    peer = PEERS["optuna-tpe"]([5] * 6, seed=0)
    answers = peer.ask()
    peer.tell(reward)

One at a time: `tell` is about the last `ask`. Each library is imported where its class is made, and wants an environment of its own.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol


class Peer(Protocol):
    def ask(self) -> list[int]: ...
    def tell(self, reward: float) -> None: ...


class Plain:
    """Regularized evolution in plain Python, and random search as evolution that never begins: the control."""

    def __init__(self, widths: Sequence[int], seed: int, *, population: float = 100, sample: int = 25) -> None:
        self.widths, self.population, self.sample = list(widths), population, sample
        self.rng = random.Random(seed)
        self.alive: deque[tuple[list[int], float]] = deque()

    def ask(self) -> list[int]:
        if len(self.alive) < self.population:
            self.asked = [self.rng.randrange(width) for width in self.widths]
        else:
            self.asked = list(max(self.rng.choices(self.alive, k=self.sample), key=lambda member: member[1])[0])
            place = self.rng.randrange(len(self.asked))
            other = self.rng.randrange(self.widths[place] - 1)
            self.asked[place] = other + (other >= self.asked[place])
        return self.asked

    def tell(self, reward: float) -> None:
        self.alive.append((self.asked, reward))
        if len(self.alive) > self.population:
            self.alive.popleft()


class Optuna:
    """A study in memory; `sampler` is the name of one of `optuna.samplers`."""

    def __init__(self, widths: Sequence[int], seed: int, *, sampler: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(direction="maximize", sampler=getattr(optuna.samplers, sampler)(seed=seed))
        self.widths = list(widths)

    def ask(self) -> list[int]:
        self.trial = self.study.ask()
        return [self.trial.suggest_categorical(str(i), list(range(width))) for i, width in enumerate(self.widths)]

    def tell(self, reward: float) -> None:
        self.study.tell(self.trial, reward)


class SyneTune:
    """A scheduler of `syne_tune.optimizer.baselines`, through its ask and tell. It does not keep to the seed."""

    def __init__(self, widths: Sequence[int], seed: int, *, scheduler: str, **settings: Any) -> None:
        from syne_tune.config_space import choice
        from syne_tune.optimizer import baselines
        from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler

        space = {str(i): choice(list(range(width))) for i, width in enumerate(widths)}
        base = getattr(baselines, scheduler)(space, metric="reward", do_minimize=False, random_seed=seed, **settings)
        self.scheduler, self.count = AskTellScheduler(base_scheduler=base), len(widths)

    def ask(self) -> list[int]:
        self.trial = self.scheduler.ask()
        return [int(self.trial.config[str(i)]) for i in range(self.count)]

    def tell(self, reward: float) -> None:
        self.scheduler.tell(self.trial, {"reward": reward})


class PyGlove:
    """An algorithm of `pyglove.evolution` through `pyglove.sample`, as its users write it."""

    def __init__(self, widths: Sequence[int], seed: int, *, population: int = 100, sample: int = 25) -> None:
        import pyglove

        space = pyglove.List([pyglove.oneof(list(range(width))) for width in widths])
        evolution = pyglove.evolution.regularized_evolution(
            population_size=population, tournament_size=sample, seed=seed
        )
        self.examples = iter(pyglove.sample(space, evolution, num_examples=None))

    def ask(self) -> list[int]:
        example, self.feedback = next(self.examples)
        return [int(option) for option in example]

    def tell(self, reward: float) -> None:
        self.feedback(reward)


PEERS: dict[str, Callable[..., Peer]] = {
    "plain-random": partial(Plain, population=float("inf")),
    "plain-evolution": Plain,
    "plain-evolution-30-10": partial(Plain, population=30, sample=10),
    "optuna-random": partial(Optuna, sampler="RandomSampler"),
    "optuna-tpe": partial(Optuna, sampler="TPESampler"),
    "optuna-nsga2": partial(Optuna, sampler="NSGAIISampler"),
    "syne-tune-rea": partial(SyneTune, scheduler="REA", population_size=100, sample_size=25),
    "pyglove-evolution": PyGlove,
}
