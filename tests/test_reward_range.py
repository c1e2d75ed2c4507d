"""Rewards far from all others: what they count as, and that controllers learn on after them, or say that they cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from random import Random as Rng
from typing import Any

import pytest

import archsmith as smith
from archsmith.core.errors import SearcherDiverged
from archsmith.core.space import FunctionSpace
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.searchers import PPO, Asynchronous, BayesianOptimization, Optuna, Reinforce
from archsmith.searchers.reward_range import mean, range_of, within_range
from archsmith.store import open_store

USUAL: dict[str, Callable[[Rng], float]] = {
    "accuracies": lambda rng: rng.random(),
    "cubed accuracies, most of them of chance": lambda rng: 0.7 if rng.random() < 0.02 else 1e-6 * rng.random(),
    "percent": lambda rng: 100 * rng.random(),
    "one in fifty": lambda rng: float(rng.random() < 0.02),
    "minus perplexities": lambda rng: -100 - 50 * rng.random(),
    "minus losses": lambda rng: -rng.lognormvariate(0, 0.6),
    "z scores": lambda rng: rng.gauss(0, 1),
    "minus FLOPs": lambda rng: -1e9 * (1 + rng.random()),
    "a thousand": lambda rng: 1000 + rng.random(),
    "speeds": lambda rng: math.exp(rng.gauss(0, 1.2)),
}


@pytest.mark.parametrize("kind", USUAL)
def test_usual_rewards_stay_and_others_count_as_the_worst_or_the_best_of_them(kind: str) -> None:
    for n in (20, 50, 250):
        rng = Rng(n)
        rewards = [USUAL[kind](rng) for _ in range(n)]
        assert within_range(rewards) == rewards
        assert within_range([*rewards, 1e100]) == [*rewards, max(rewards)]
        for share in (1, n // 2, 4 * n // 5):  # also where most are penalties
            for penalty in (-1e12, -1e15, -1e38, -1e100, -1e308):
                places = set(rng.sample(range(n), share))
                mixed = [penalty if i in places else reward for i, reward in enumerate(rewards)]
                worst = min(reward for reward in mixed if reward != penalty)
                assert within_range(mixed) == [max(worst, reward) for reward in mixed]


def test_the_edges_of_the_rule() -> None:
    assert within_range([]) == []
    assert within_range([-10.0, 100.0, 5e-324, -0.0]) == [-10.0, 100.0, 5e-324, -0.0]
    assert within_range([-1e100]) == [0.0]
    assert within_range([1e308, -1e308]) == [0.0, 0.0]
    assert within_range([0.5, -1e100, 1e38, 0.25]) == [0.5, 0.25, 0.5, 0.25]
    assert within_range([-1e6, 0.5]) == [0.5, 0.5]
    assert range_of([1e5] * 300).high == 1e7
    assert mean([1e308] * 10) == pytest.approx(1e308)


CONTROLLERS: dict[str, tuple[Callable[[], Any], int]] = {
    "reinforce": (lambda: Reinforce(minibatch=5, learning_rate=0.02), 120),
    "ppo": (lambda: PPO(minibatch=10, learning_rate=3e-3), 160),
    "asynchronous": (lambda: Asynchronous(Reinforce(minibatch=5, learning_rate=0.02), shards=2, replicas=2), 120),
    "bayesian optimization": (BayesianOptimization, 60),
    "tpe": (lambda: Optuna("tpe"), 60),
    "cmaes": (lambda: Optuna("cmaes"), 60),
}


def space(choose: Any) -> Any:
    return [choose(f"c{i}", (0, 1, 2)) for i in range(6)]


@pytest.mark.parametrize("penalty", [-1e100, -1e4, 1e38])
@pytest.mark.parametrize("searcher", CONTROLLERS)
def test_it_learns_after_a_reward_far_from_all_others(searcher: str, penalty: float) -> None:
    make, trials = CONTROLLERS[searcher]
    live, found = make().start(FunctionSpace(space), 3), []
    for number in range(trials):
        (proposal,) = live.ask(1)
        usual = sum(proposal.genotype.answers.values()) / 12
        reward = penalty if number in (2, 6, 31) else usual
        found.append(usual)
        live.tell([Trial(number, proposal.genotype, state=TrialState.DONE, reward=reward, result=Result())])
    assert sum(found[-40:]) / 40 > (0.62 if trials == 60 else 0.85), "random proposals have 0.5"


def test_a_penalty_may_be_most_of_what_there_is() -> None:
    live, found = CONTROLLERS["reinforce"][0]().start(FunctionSpace(space), 0), []
    for number in range(400):
        (proposal,) = live.ask(1)
        answers = list(proposal.genotype.answers.values())
        usual = sum(answers) / 12
        found.append(usual)
        reward = usual if answers[0] != 0 and usual > 0.4 else -1e30
        live.tell([Trial(number, proposal.genotype, state=TrialState.DONE, reward=reward, result=Result())])
    assert sum(found[-40:]) / 40 > 0.7


@pytest.mark.parametrize("searcher", ["reinforce", "asynchronous", "ppo"])
def test_a_controller_whose_weights_are_no_numbers_stops_the_search(searcher: str, tmp_path: Path) -> None:
    make = {
        "reinforce": lambda: Reinforce(minibatch=2, learning_rate=1e38),
        "ppo": lambda: PPO(minibatch=2, learning_rate=1e38),
        "asynchronous": lambda: Asynchronous(Reinforce(minibatch=2, learning_rate=1e38), shards=2, replicas=1),
    }[searcher]
    store = open_store(tmp_path / "r.db")
    with pytest.raises(
        SearcherDiverged, match=r"no finite numbers after .* learning_rate below 1e\+38, or with ranks=100"
    ):
        smith.search(space, lambda a: float(sum(a)), searcher=make(), trials=30, store=store, name="r")
    run = smith.open_run(store, "r")
    assert run.summary.counts["done"] >= 2
    assert run.summary.status == "interrupted"
    with pytest.raises(SearcherDiverged):
        run.resume(space=space, evaluator=lambda a: float(sum(a)), searcher=make())
