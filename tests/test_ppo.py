"""PPO: REINFORCE's gradient at ratio 1, what the clip does, the entropy term, and that it learns."""

from __future__ import annotations

import math
import random
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import FunctionSpace, identity
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.core.walk import Choose
from archsmith.searchers import PPO, Random, Reinforce
from archsmith.searchers.policy import LivePolicy
from archsmith.testing import SearcherContract

SMALL: dict[str, Any] = {"minibatch": 4, "hidden": 8, "embedding": 8, "layers": 1, "init": 0.5}


class TestContract(SearcherContract):
    def searcher(self):
        return PPO(learning_rate=5e-3, minibatch=4, epochs=3, hidden=8, embedding=8)

    def wrong(self):
        return (
            lambda: PPO(clip=0),
            lambda: PPO(epochs=0),
            lambda: PPO(clip=math.nan),
            lambda: PPO(minibatch=True),
            lambda: PPO().start(FunctionSpace(lambda choose: []), 0),
        )


def ops(choose: Choose) -> Any:
    return [choose(f"{i}.op", tuple(range(13))) for i in range(6)]


def done(number: int, genotype: Genotype, reward: float) -> Trial:
    return Trial(number, genotype, state=TrialState.DONE, reward=reward, result=Result())


def values(live: LivePolicy) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in live._controller.parameters.items()}


def test_at_ratio_one_the_step_is_that_of_reinforce():
    space = FunctionSpace(ops)
    one = PPO(epochs=1, entropy_weight=0.0, learning_rate=1e-2, **SMALL).start(space, 3)
    other = Reinforce(entropy_weight=0.0, learning_rate=1e-2, **SMALL).start(space, 3)
    proposals = one.ask(4)
    assert proposals == other.ask(4)
    trials = [done(i, p.genotype, 0.3 * i) for i, p in enumerate(proposals)]
    one.tell(trials)
    other.tell(trials)
    assert one.diagnostics()["gradient_norm"] == pytest.approx(other.diagnostics()["gradient_norm"], rel=1e-5)
    for name, value in values(one).items():
        torch.testing.assert_close(value, values(other)[name], rtol=1e-4, atol=1e-6)


def test_later_steps_stop_where_the_clip_is_reached():
    """Sixty steps on one minibatch: a good answer's ratio ends little above 1 + epsilon, as far as Adam's momentum
    carries it; without a clip it goes on and on."""
    space = FunctionSpace(lambda choose: choose("op", (0, 1, 2, 3)))
    good, bad = (Genotype(identity(space), {"op": k}) for k in (1, 2))

    def ratio(clip: float) -> float:
        live = PPO(clip=clip, epochs=60, entropy_weight=0.0, learning_rate=3e-3, **SMALL).start(space, 0)
        policy = live._controller
        trace = [policy.reader.trace(good)]
        before = policy.score(trace).log_prob.detach()
        live.tell([done(0, bad, 0.0), *(done(i, good, 1.0) for i in (1, 2, 3))])
        assert (live.diagnostics()["clipped"] > 0) == (clip < 1)
        return float((policy.score(trace).log_prob.detach() - before).exp())

    narrow, wide, none = ratio(0.1), ratio(0.4), ratio(1e6)
    assert 1.1 <= narrow < 1.3
    assert 1.4 <= wide < 1.75
    assert none > 2.0


def test_the_entropy_of_a_uniform_policy_counts_as_the_paper_has_it():
    """1e-5 ln 13 = 2.565e-5 for each of the choices among 13 operations."""
    live = PPO(init=1e-9, hidden=4, embedding=4).start(FunctionSpace(ops), 0)
    genotypes = [p.genotype for p in live.ask(20)]
    live.tell([done(i, g, 0.5) for i, g in enumerate(genotypes)])
    assert 1e-5 * live.diagnostics()["entropy"] == pytest.approx(2.565e-5, rel=1e-3)


def test_it_learns_where_random_search_does_not():
    space = FunctionSpace(ops)
    rng = np.random.default_rng(0)
    worth = rng.normal(size=(6, 13))

    def reward(genotype: Genotype) -> float:
        return float(sum(worth[i, genotype.answers[f"{i}.op"]] for i in range(6)))  # type: ignore[index]

    last: dict[str, list[float]] = {"ppo": [], "random": []}
    for seed in range(3):
        for name, searcher in (("ppo", PPO(learning_rate=3e-3, hidden=32, embedding=32)), ("random", Random())):
            live = searcher.start(space, seed)
            rewards = []
            for number in range(600):
                (proposal,) = live.ask(1)
                rewards.append(reward(proposal.genotype))
                live.tell([done(number, proposal.genotype, rewards[-1])])
            last[name].append(fmean(rewards[-100:]))
    assert min(last["ppo"]) > max(last["random"]) + 1.5, last


def test_results_may_come_in_any_order():
    live = PPO(learning_rate=1e-2, minibatch=4, epochs=2, hidden=8, embedding=8).start(FunctionSpace(ops), 1)
    proposals = live.ask(12)
    trials = [done(i, p.genotype, i / 12) for i, p in enumerate(proposals)]
    random.Random(0).shuffle(trials)
    live.tell(trials)
    assert live.version == 3


@pytest.mark.parametrize(("name", "value"), [("epochs", 1.5), ("clip", "0.2"), ("hidden", 0), ("learning_rate", -1)])
def test_settings_that_make_no_sense_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} of PPO must be"):
        PPO(**{name: value})
