"""A searcher that cannot learn anything within its budget: said before the search, by `show` and on the page."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archsmith as smith
from archsmith._search.start_phase import cannot_learn
from archsmith.core.budget import Budget
from archsmith.core.space import FunctionSpace
from archsmith.searchers import (
    PPO,
    Asynchronous,
    BayesianOptimization,
    Exhaustive,
    LargeScaleEvolution,
    Optuna,
    QLearning,
    Random,
    RegularizedEvolution,
    Reinforce,
)


def space(choose: Any) -> Any:
    return [choose(f"c{i}", (0, 1, 2)) for i in range(4)]


STARTS: dict[str, tuple[Any, int]] = {
    "evolution": (RegularizedEvolution(), 100),
    "a small population": (RegularizedEvolution(population=np.int64(7)), 7),  # type: ignore[arg-type]
    "large scale evolution": (LargeScaleEvolution(), 1000),
    "reinforce": (Reinforce(), 8),
    "ppo": (PPO(), 20),
    "asynchronous": (Asynchronous(accumulate=3), 24),
    "bayesian optimization": (BayesianOptimization(), 10),
    "q-learning": (QLearning(), 1500),
    "greedy from the start": (QLearning(schedule=((0.5, 10),)), 0),
    "tpe": (Optuna("tpe"), 10),
    "gp": (Optuna("gp", n_startup_trials=4), 4),
    "nsga2": (Optuna("nsga2"), 50),
    "cmaes": (Optuna("cmaes"), 1 + 4 + 4),
}


@pytest.mark.parametrize("kind", STARTS)
def test_a_searcher_says_how_many_trials_are_random(kind: str) -> None:
    searcher, first = STARTS[kind]
    assert searcher.random_trials(FunctionSpace(space)) == first


def _warnings(searcher: Any, **budget: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        smith.search(space, lambda a: float(sum(a)), searcher=searcher, store="memory://", **budget)
    return [str(warning.message) for warning in caught if "beat random search" in str(warning.message)]


def test_it_is_said_once_at_the_start() -> None:
    (said,) = _warnings(RegularizedEvolution(population=6), trials=6)
    assert said.startswith(
        "RegularizedEvolution proposes its first 6 trials before it learns from a result, and the budget is 6 trials"
    )
    with pytest.warns(UserWarning, match="Give a larger budget") as caught:
        smith.search(space, sum, searcher=RegularizedEvolution(population=6), trials=6, store="memory://")
    assert caught[0].filename == __file__, "it names the line that began the search"
    quiet: list[Callable[[], Any]] = [Random, Exhaustive, lambda: RegularizedEvolution(population=5)]
    for make in quiet:
        assert _warnings(make(), trials=6) == []


def test_a_searcher_is_suggested_that_learns_within_the_budget() -> None:
    budget = BayesianOptimization().random_trials(FunctionSpace(space)) + 1
    large, too_small = (cannot_learn("X", 100, Budget(trials=trials), None) for trials in (budget, budget - 1))
    assert large is not None
    assert "such as BayesianOptimization()" in large
    assert too_small is not None
    assert too_small.endswith("Give a larger budget")


def test_a_budget_in_epochs_is_one_in_trials_where_children_have_as_many() -> None:
    assert cannot_learn("X", 10, Budget(epochs=30), 3) is not None
    assert cannot_learn("X", 10, Budget(epochs=33), 3) is None
    assert cannot_learn("X", 10, Budget(epochs=30), None) is None
    assert cannot_learn("X", 10, Budget(trials=50, epochs=30), 3) is not None
    assert cannot_learn("X", 10, Budget(seconds=5), 3) is None
    assert cannot_learn("X", None, Budget(trials=1), None) is None


def test_show_and_the_page_say_it_too(tmp_path: Path) -> None:
    store = tmp_path / "r.db"
    for name, trials in (("few", 4), ("more", 9)):
        searcher = RegularizedEvolution(population=5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = smith.search(space, lambda a: 1.0, searcher=searcher, trials=trials, store=store, name=name)
        page = run.report(tmp_path / f"{name}.html").read_text()
        shown = subprocess.run(
            [sys.executable, "-m", "archsmith", "show", name, "--store", str(store)], capture_output=True, text=True
        ).stdout
        said = "first 5 trials before it learns from a result, so this was a random search"
        assert (said in page) == (said in shown) == (name == "few")
