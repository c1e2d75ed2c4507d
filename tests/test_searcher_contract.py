"""The searchers keep their contract, and a searcher that breaks a promise fails the test of that promise."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import LiveSearcher, Searcher, State
from archsmith.core.space import FunctionSpace, Space
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.core.walk import Choose
from archsmith.searchers import PPO, Asynchronous, DepthSchedule, Random, Reinforce
from archsmith.searchers.random import LiveRandom
from archsmith.testing import SearcherContract


def nothing(choose: Choose) -> list[Any]:
    return []


def deep(choose: Choose) -> Any:
    layers = choose("layers", (2, 3, 4))
    return [{"f": choose(f"{i}.f", (1, 2, 3)), "in": choose.subset(f"{i}.in", range(i))} for i in range(layers)]


def chain(choose: Choose) -> Any:
    return [{"f": choose(f"{i}.f", (1, 2, 3)), "in": choose.subset(f"{i}.in", range(i))} for i in range(4)]


class TestRandom(SearcherContract):
    learns_from_others = False

    def searcher(self) -> Searcher:
        return Random()

    def wrong(self) -> Sequence[Callable[[], object]]:
        return [lambda: Random(depth_schedule=DepthSchedule()).start(self.space(), 0)]


class TestRandomByDepth(SearcherContract):
    learns_from_others = False

    def searcher(self) -> Searcher:
        return Random(depth_schedule=DepthSchedule(2, 1, every=10))

    def space(self) -> Space:
        return FunctionSpace(deep)


class TestReinforce(SearcherContract):
    def searcher(self) -> Searcher:
        return Reinforce(minibatch=3, hidden=8, embedding=6, learning_rate=0.01, entropy_weight=0.01)

    def wrong(self) -> Sequence[Callable[[], object]]:
        wrong: list[dict[str, Any]] = [
            {"minibatch": 0},
            {"minibatch": 2.5},
            {"minibatch": True},
            {"learning_rate": "fast"},
            {"entropy_weight": None},
            {"baseline_decay": "slow"},
            {"hidden": 0},
            {"layers": 0},
            {"embedding": -1},
            {"learning_rate": 0.0},
            {"learning_rate": float("nan")},
            {"init": float("inf")},
            {"baseline_decay": 1.0},
            {"baseline_decay": -0.1},
            {"entropy_weight": -1.0},
            {"anchor_input": "everything"},
            {"anchor_input": "hidden", "hidden": 20},
        ]
        return [
            *(functools.partial(Reinforce, **fields) for fields in wrong),
            lambda: Reinforce().start(FunctionSpace(nothing), 0),
            lambda: Reinforce(depth_schedule=DepthSchedule()).start(self.space(), 0),
        ]


class TestReinforceOnAScript(TestReinforce):
    def space(self) -> Space:
        return FunctionSpace(chain)


class TestReinforceByDepth(TestReinforce):
    def searcher(self) -> Searcher:
        schedule = DepthSchedule(2, 1, every=10)
        return Reinforce(learning_rate=0.01, minibatch=4, hidden=8, embedding=8, layers=1, depth_schedule=schedule)

    def space(self) -> Space:
        return FunctionSpace(deep)


class TestReinforceReadingHiddenStates(TestReinforce):
    def searcher(self) -> Searcher:
        return Reinforce(minibatch=3, hidden=8, embedding=8, anchor_input="hidden")


class TestAsynchronous(SearcherContract):
    def searcher(self) -> Searcher:
        learner = Reinforce(minibatch=3, hidden=8, embedding=6, learning_rate=0.01, entropy_weight=0.01)
        return Asynchronous(learner, shards=4, replicas=10, accumulate=2)

    def wrong(self) -> Sequence[Callable[[], object]]:
        return [
            lambda: Asynchronous(learner=PPO()),  # type: ignore[arg-type]
            lambda: Asynchronous(shards=0),
            lambda: Asynchronous(replicas=True),
            lambda: Asynchronous(accumulate=2.0),  # type: ignore[arg-type]
            lambda: Asynchronous(processes="all"),  # type: ignore[arg-type]
            lambda: Asynchronous().start(FunctionSpace(nothing), 0),
            lambda: Asynchronous(Reinforce(depth_schedule=DepthSchedule())).start(self.space(), 0),
        ]


class TestAsynchronousWithoutRepeats(TestAsynchronous):
    def searcher(self) -> Searcher:
        learner = Reinforce(0.01, minibatch=2, hidden=6, embedding=6, layers=1, ranks=10, unique=True)
        return Asynchronous(learner, shards=2, replicas=3)


# --- the contract can fail: for each promise a searcher that breaks it ------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """Random search with one thing wrong with it."""

    fault: str

    def start(self, space: Space, seed: int) -> LiveSearcher:
        return BrokenLive(space, 0 if self.fault == "ignores the seed" else seed, self.fault)


@dataclass
class Thawed:
    fault: str = ""

    def start(self, space: Space, seed: int) -> LiveSearcher:
        return LiveRandom(space, seed, None)


shared: list[int] = []


class BrokenLive(LiveRandom):
    """It learns how many results it was told, unless its fault is to be deaf to what it did not propose."""

    def __init__(self, space: Space, seed: int, fault: str) -> None:
        super().__init__(space, seed, None)
        self.fault = fault
        self.told: list[int] = []
        self.running = self.foreign = 0
        self.sum = 0.0

    @property
    def version(self) -> int:
        return -len(self.told) if self.fault == "version goes back" else 0

    def ask(self, n: int) -> list[Proposal]:
        if self.fault == "waits for results":
            n = min(n, 4 - self.running)
        if self.fault == "ends" and len(self.told) >= 30:
            n = 0
        if self.fault == "gives less at times" and len(self.told) == 10:
            n = min(n, 1)
        if self.fault == "true chance":
            self._asked = random.SystemRandom().randrange(10**9)
        if self.fault != "deaf":
            self._seed += self.foreign
            self.foreign = 0
        if self.fault == "shares between runs":
            shared.append(n)
            self._asked = len(shared)
        proposals = super().ask(n)
        self.running += n
        if self.fault == "seeds random":
            random.seed(0)
        if self.fault == "draws from numpy":
            np.random.rand()
        if self.fault == "draws from torch":
            torch.rand(1)
        if self.fault == "sets threads":
            torch.set_num_threads(torch.get_num_threads() + 1)
        if self.fault == "illegal answer":
            proposals = [
                Proposal(Genotype(p.genotype.space, {**p.genotype.answers, "0.type": "tree"})) for p in proposals
            ]
        return proposals

    def capacity(self) -> int:
        return 0 if self.fault == "never ready again" and self.told else 10**9

    def tell(self, trials: Sequence[Trial]) -> None:
        self.running -= len(trials)
        for trial in trials:
            if self.fault == "wants results in order" and trial.number != len(self.told):
                raise RuntimeError("out of order")
            if self.fault == "wants its own" and not self._asked:
                raise RuntimeError("never proposed")
            if self.fault == "wants rewards" and trial.state is not TrialState.DONE:
                raise RuntimeError("no reward")
            if self.fault == "a penalty sticks" and trial.reward is not None and trial.reward < -1e50:
                self._asked += 1
            if self.fault == "sums up" and trial.reward is not None:
                self.sum += trial.reward
            self.told.append(trial.number)
            self.foreign += trial.number >= self._asked

    def diagnostics(self) -> Mapping[str, float]:
        return {"NaN": {"x": float("nan")}, "text": {"x": "high"}}.get(self.fault, {})  # type: ignore[dict-item]

    def state_dict(self) -> State:
        state = dict(super().state_dict())
        if self.fault == "forgets":
            state["asked"] = 0
        if self.fault == "sums up":
            state["sum"] = self.sum
        if self.fault == "state is shared":
            state["told"] = self.told
        if self.fault == "tensor in state":
            state["x"] = torch.zeros(2)
        if self.fault == "tuple in state":
            state["x"] = (1, 2)
        if self.fault == "object array in state":
            state["x"] = np.array([None])
        if self.fault == "number as key":
            state["x"] = {1: 2}
        return state


class BrokenContract(SearcherContract):
    def __init__(self, fault: str) -> None:
        self.fault = fault

    def searcher(self) -> Searcher:
        return Thawed() if self.fault == "not frozen" else Broken(self.fault)

    def wrong(self) -> Sequence[Callable[[], object]]:
        if self.fault == "accepts anything":
            return [lambda: Broken("nonsense")]
        return [lambda: Reinforce(minibatch=0)]


BREAKS = {
    "waits for results": "test_ask_gives_exactly_as_many_as_asked",
    "illegal answer": "test_proposals_are_legal",
    "never ready again": "test_asking_goes_on_after_everything_was_told",
    "ends": "test_asking_goes_on_after_everything_was_told",
    "gives less at times": "test_asking_goes_on_after_everything_was_told",
    "true chance": "test_the_same_seed_gives_the_same_proposals",
    "ignores the seed": "test_another_seed_gives_other_proposals",
    "shares between runs": "test_one_configuration_serves_several_runs",
    "seeds random": "test_global_random_state_is_left_alone",
    "draws from numpy": "test_global_random_state_is_left_alone",
    "draws from torch": "test_global_random_state_is_left_alone",
    "sets threads": "test_global_random_state_is_left_alone",
    "wants results in order": "test_results_come_in_any_order_and_some_never",
    "wants rewards": "test_failed_and_stopped_trials_may_be_told_first",
    "wants its own": "test_trials_it_never_proposed_may_be_told",
    "a penalty sticks": "test_how_far_a_reward_is_from_all_others_changes_nothing",
    "sums up": "test_any_finite_reward_is_survived",
    "deaf": "test_results_it_never_proposed_are_learned_from",
    "NaN": "test_what_it_shows_is_numbers",
    "text": "test_what_it_shows_is_numbers",
    "version goes back": "test_what_it_shows_is_numbers",
    "tensor in state": "test_state_is_plain_data",
    "tuple in state": "test_state_is_plain_data",
    "object array in state": "test_state_is_plain_data",
    "number as key": "test_state_is_plain_data",
    "forgets": "test_a_restored_searcher_goes_on_identically",
    "state is shared": "test_a_restored_searcher_goes_on_identically",
    "not frozen": "test_the_configuration_is_a_frozen_dataclass_that_survives_json",
    "accepts anything": "test_wrong_configurations_are_refused",
}
PROMISES = sorted(name for name in dir(SearcherContract) if name.startswith("test_"))


@pytest.mark.parametrize("fault", BREAKS)
def test_a_broken_promise_fails_its_test(fault: str) -> None:
    threads = torch.get_num_threads()
    try:
        with pytest.raises((AssertionError, RuntimeError, UsageError, pytest.fail.Exception)):
            getattr(BrokenContract(fault), BREAKS[fault])()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_unbroken_searcher_passes(promise: str) -> None:
    getattr(BrokenContract("nothing"), promise)()


def test_every_promise_is_broken_by_someone() -> None:
    assert set(PROMISES) == set(BREAKS.values())
