"""Searchers: what proposes genotypes and learns from results. One algorithm, one file.

Loaded when first used: random search needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.searchers.asynchronous import Asynchronous
    from archsmith.searchers.bayesian_optimization import BayesianOptimization
    from archsmith.searchers.depth_schedule import DepthSchedule
    from archsmith.searchers.exhaustive import Exhaustive
    from archsmith.searchers.large_scale_evolution import LargeScaleEvolution
    from archsmith.searchers.nsga2 import NSGA2
    from archsmith.searchers.optuna import Optuna
    from archsmith.searchers.ppo import PPO
    from archsmith.searchers.q_learning import QLearning
    from archsmith.searchers.random import Random
    from archsmith.searchers.regularized_evolution import RegularizedEvolution
    from archsmith.searchers.reinforce import Reinforce

__all__ = [
    "NSGA2",
    "PPO",
    "Asynchronous",
    "BayesianOptimization",
    "DepthSchedule",
    "Exhaustive",
    "LargeScaleEvolution",
    "Optuna",
    "QLearning",
    "Random",
    "RegularizedEvolution",
    "Reinforce",
]

_HOME = {
    "NSGA2": "nsga2",
    "PPO": "ppo",
    "Asynchronous": "asynchronous",
    "BayesianOptimization": "bayesian_optimization",
    "DepthSchedule": "depth_schedule",
    "Exhaustive": "exhaustive",
    "LargeScaleEvolution": "large_scale_evolution",
    "Optuna": "optuna",
    "QLearning": "q_learning",
    "Random": "random",
    "RegularizedEvolution": "regularized_evolution",
    "Reinforce": "reinforce",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"archsmith.searchers.{_HOME[name]}"), name)
    raise AttributeError(f"module 'archsmith.searchers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
