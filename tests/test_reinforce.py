"""REINFORCE: the estimator is the paper's, the learning beats random search, and what trials mean to it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from archsmith.core.errors import IllegalGenotype
from archsmith.core.genotype import Genotype
from archsmith.core.space import FunctionSpace, Space, identity
from archsmith.core.trial import Failure, Result, Trial, TrialState
from archsmith.core.walk import Choose
from archsmith.searchers import DepthSchedule, Random, Reinforce
from archsmith.searchers.lstm_controller import Controller
from archsmith.searchers.policy import LivePolicy


def one_token(choose: Choose) -> Any:
    return choose("op", (0, 1, 2, 3))


def chain(choose: Choose, layers: int = 5) -> Any:
    return [
        {"f": choose(f"{i}.filters", (24, 36, 48, 64)), "inputs": choose.subset(f"{i}.inputs", range(i))}
        for i in range(layers)
    ]


def deep(choose: Choose) -> Any:
    return chain(choose, choose("layers", (2, 3, 4)))


def done(genotype: Genotype, reward: float, number: int = 0) -> Trial:
    return Trial(number, genotype, state=TrialState.DONE, reward=reward, result=Result())


def failed(genotype: Genotype, reason: str = "diverged") -> Trial:
    return Trial(0, genotype, state=TrialState.FAILED, result=Result(failure=Failure(reason, "it failed")))


def genotype(space: Space, **answers: Any) -> Genotype:
    return Genotype(identity(space), answers)


def parameters(live: LivePolicy) -> dict[str, np.ndarray]:
    return {entry["name"]: entry["value"] for entry in live.state_dict()["controller"]["parameters"]}


def probabilities(live: LivePolicy, space: Space) -> list[float]:
    """Of the four answers to the one token."""
    policy = live._controller
    traces = [policy.reader.trace(genotype(space, op=i)) for i in range(4)]
    return policy.score(traces).log_prob.detach().exp().flatten().tolist()  # type: ignore[no-any-return]


# --- the estimator ----------------------------------------------------------------------------------------------------


def test_the_estimators_mean_is_the_analytic_gradient() -> None:
    """SPEC 4a: one token with fixed rewards; 100,000 samples, each coordinate within 3 standard errors (4 for the
    largest of many). The samples are the controller's own, so this joins sampling, scoring and the estimator."""
    space = FunctionSpace(one_token)
    policy = Controller(space, 0, hidden=6, layers=1, embedding=6, init=1.0)
    rewards, baseline, n = torch.tensor([0.1, 0.9, 0.3, 0.5]), 0.4, 100_000
    every = [policy.reader.trace(genotype(space, op=i)) for i in range(4)]
    log_prob = policy.score(every).log_prob.sum(1)
    weights = [policy.parameters[name] for name in ("choice:op.weight", "choice:op.bias")]
    # The expected reward is sum_a P(a) R(a), of which autograd gives the gradient with no sampling at all.
    analytic = torch.autograd.grad((log_prob.exp() * rewards).sum(), weights, retain_graph=True)
    each = [torch.autograd.grad(lp, weights, retain_graph=True) for lp in log_prob]  # grad log P(a), for each a
    samples, _ = policy.sample(0, n, seed=1)
    counts = torch.tensor([sum(g.answers["op"] == i for g in samples) for i in range(4)]) / n
    for k, expected in enumerate(analytic):
        terms = torch.stack([each[i][k] * (rewards[i] - baseline) for i in range(4)]).double()
        share = counts.double().view(4, *[1] * expected.dim())
        mean = (terms * share).sum(0)
        error = (((terms - mean) ** 2 * share).sum(0) / n).sqrt()
        deviations = ((mean - expected) / error).abs()
        assert deviations.max() < 4
        assert (deviations < 3).double().mean() > 0.9
        assert expected.abs().max() > 5 * error.max()  # there is something to find


def test_one_update_is_the_formula() -> None:
    """(1/m) sum_k sum_t grad log P(a_t | a_<t) (R_k - b), seen by its norm; b is the first reward, then moves."""
    space = FunctionSpace(chain)
    live = Reinforce(minibatch=4, hidden=6, embedding=6, init=0.5, baseline_decay=0.75).start(space, 0)
    genotypes = [p.genotype for p in live.ask(4)]
    policy = live._controller
    log_prob = policy.score([policy.reader.trace(g) for g in genotypes]).log_prob.sum(1)
    rewards = [0.5, 0.7, 0.2, 0.9]
    objective = sum((r - 0.5) * lp for r, lp in zip(rewards, log_prob, strict=True)) / 4
    gradients = torch.autograd.grad(objective, list(policy.parameters.values()), allow_unused=True)  # type: ignore[arg-type]
    norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm().item()
    live.tell([done(g, r) for g, r in zip(genotypes, rewards, strict=True)])
    shown = live.diagnostics()
    assert shown["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert shown["baseline"] == 0.5
    assert shown["mean_reward"] == pytest.approx(0.575)
    assert live.version == 1
    assert shown["updates"] == 1
    live.tell([done(g, 1.0) for g in genotypes])
    assert live.diagnostics()["baseline"] == pytest.approx(0.75 * 0.5 + 0.25 * 0.575)  # moved after it was used


def test_a_constant_added_to_all_rewards_changes_nothing() -> None:
    """SPEC 4b: the baseline takes it up; here from the first reward on, since b starts as that."""
    space = FunctionSpace(chain)
    first, second = (Reinforce(minibatch=4, hidden=6, embedding=6).start(space, 0) for _ in range(2))
    rng = np.random.default_rng(0)
    for _ in range(10):
        proposals, others = first.ask(4), second.ask(4)
        assert proposals == others
        rewards = [float(r) for r in rng.integers(0, 64, 4) / 64]  # exact in binary, so that 1024 adds no rounding
        first.tell([done(p.genotype, r) for p, r in zip(proposals, rewards, strict=True)])
        second.tell([done(p.genotype, r + 1024) for p, r in zip(proposals, rewards, strict=True)])
    assert first.version == second.version == 10
    for name, value in parameters(first).items():
        np.testing.assert_allclose(value, parameters(second)[name], atol=1e-5)


def test_equal_rewards_teach_nothing() -> None:
    space = FunctionSpace(chain)
    live = Reinforce(minibatch=2).start(space, 0)
    live.ask(1)  # makes the heads
    before = parameters(live)
    live.tell([done(p.genotype, 0.5) for p in live.ask(8)])
    assert live.version == 4
    assert all(np.array_equal(before[name], value) for name, value in parameters(live).items())


def test_entropy_counts_once_per_decision() -> None:
    """SPEC 4e: weight 1e-5 on a uniform policy over 13 operations is 1e-5 * ln 13 = 2.565e-5 per token."""

    def ops(choose: Choose) -> Any:
        return [choose(f"{i}.op", tuple(range(13))) for i in range(3)]

    space = FunctionSpace(ops)
    policy = Controller(space, 0, hidden=4, layers=1, embedding=4, init=1e-9)
    score = policy.score([policy.reader.trace(g) for g in policy.sample(0, 5, 0)[0]])
    assert score.entropy.shape == (5, 3)
    np.testing.assert_allclose(1e-5 * score.entropy.detach().numpy(), 2.565e-5, rtol=1e-4)


def test_the_entropy_weight_flattens_the_policy() -> None:
    """With nothing to learn from rewards, entropy alone moves the policy, and towards uniform."""
    space = FunctionSpace(one_token)
    live = Reinforce(minibatch=4, learning_rate=0.05, init=2.0, entropy_weight=1.0, hidden=6, embedding=6).start(
        space, 0
    )
    live.ask(1)
    before = probabilities(live, space)
    for _ in range(60):
        live.tell([done(p.genotype, 0.5) for p in live.ask(4)])
    after = probabilities(live, space)
    assert max(before) > 0.5
    assert max(after) < 0.3
    assert live.diagnostics()["entropy"] == pytest.approx(math.log(4), abs=0.02)


# --- learning ---------------------------------------------------------------------------------------------------------


def landscape(answers: Any) -> float:
    """The share of a chain's decisions that are the best ones: 48 filters, and an input from the layer before only."""
    good = [answers[f"{i}.filters"] == 48 for i in range(5)]
    good += [(j in answers[f"{i}.inputs"]) == (j == i - 1) for i in range(5) for j in range(i)]
    return sum(good) / len(good)


def play(live: Any, trials: int, workers: int = 1) -> list[float]:
    rewards: list[float] = []
    while len(rewards) < trials:
        told = [done(p.genotype, landscape(p.genotype.answers)) for p in live.ask(workers)]
        rewards += [t.reward for t in told if t.reward is not None]
        live.tell(told[::-1])
    return rewards


@pytest.mark.parametrize("anchor_input", ["answers", "hidden"])
def test_it_learns_where_random_search_does_not(anchor_input: str) -> None:
    """Twelve seeds (four for the slow form) of 400 trials: the mean of the last 100 is above random search's in every
    one, by more than ten standard errors of the latter."""
    space = FunctionSpace(chain)
    config = Reinforce(learning_rate=0.01, minibatch=8, anchor_input=anchor_input)
    at_random = [np.mean(play(Random().start(space, seed), 400)[-100:]) for seed in range(12)]
    learned = [
        np.mean(play(config.start(space, seed), 400)[-100:]) for seed in range(12 if anchor_input == "answers" else 4)
    ]
    error = np.std(at_random) / math.sqrt(len(at_random))
    assert min(learned) > np.mean(at_random) + 10 * error
    assert np.mean(learned) > np.mean(at_random) + 0.15


def test_it_learns_from_results_out_of_order() -> None:
    space = FunctionSpace(chain)
    rewards = play(Reinforce(learning_rate=0.01).start(space, 0), 600, workers=13)
    assert np.mean(rewards[-100:]) > np.mean(rewards[:100]) + 0.15


def test_it_learns_at_growing_depth() -> None:
    space = FunctionSpace(deep)
    live = Reinforce(learning_rate=0.01, depth_schedule=DepthSchedule(2, 1, every=100)).start(space, 0)
    seen, rewards = [], []
    for _ in range(300):
        (proposal,) = live.ask(1)
        answers = proposal.genotype.answers
        seen.append(answers["layers"])
        reward = float(np.mean([answers[f"{i}.filters"] == 48 for i in range(int(str(answers["layers"])))]))
        rewards.append(reward)
        live.tell([done(proposal.genotype, reward)])
    assert seen == [2] * 100 + [3] * 100 + [4] * 100
    assert np.mean(rewards[-50:]) > 0.6  # a quarter at random


# --- what trials mean to it -------------------------------------------------------------------------------------------


def test_failures_count_as_the_worst_reward_seen() -> None:
    space = FunctionSpace(one_token)
    live = Reinforce(minibatch=3, learning_rate=0.01).start(space, 0)
    live.tell([failed(genotype(space, op=3))])  # nothing seen yet: passed over
    live.tell([done(genotype(space, op=0), 0.8), done(genotype(space, op=1), 0.2)])
    assert live.version == 0
    live.tell([failed(genotype(space, op=3))])
    assert live.version == 1
    assert live.diagnostics()["mean_reward"] == pytest.approx((0.8 + 0.2 + 0.2) / 3)


def test_what_always_fails_is_avoided() -> None:
    space = FunctionSpace(one_token)
    live = Reinforce(minibatch=4, learning_rate=0.02).start(space, 0)
    for _ in range(80):
        proposals = live.ask(4)
        live.tell([failed(p.genotype) if p.genotype.answers["op"] == 3 else done(p.genotype, 0.5) for p in proposals])
        if live.version == 0:  # the worst must be below the others to be avoided
            live.tell([done(genotype(space, op=3), 0.1)])
    assert probabilities(live, space)[3] < 0.1


def test_stopped_trials_and_dead_workers_teach_nothing() -> None:
    space = FunctionSpace(one_token)
    live = Reinforce(minibatch=2).start(space, 0)
    live.tell([done(genotype(space, op=0), 0.5)])
    stopped = Trial(1, genotype(space, op=1), state=TrialState.STOPPED, result=Result())
    live.tell([stopped, failed(genotype(space, op=2), "worker")] * 5)
    live.tell([Trial(1, genotype(space, op=1), state=TrialState.STOPPED)])
    assert live.version == 0
    live.tell([failed(genotype(space, op=2), "memory")])
    assert live.version == 1


def test_one_tell_may_bring_several_updates() -> None:
    space = FunctionSpace(chain)
    live = Reinforce(minibatch=4).start(space, 0)
    live.tell([done(p.genotype, 0.1 * i) for i, p in enumerate(live.ask(11))])
    assert live.version == 2
    other = Reinforce(minibatch=4).start(space, 0)
    for trial in [done(p.genotype, 0.1 * i) for i, p in enumerate(other.ask(11))]:
        other.tell([trial])
    assert [p.genotype for p in other.ask(5)] == [p.genotype for p in live.ask(5)]


def test_proposals_do_not_depend_on_how_asks_are_grouped() -> None:
    space = FunctionSpace(chain)
    grouped, single = Reinforce().start(space, 3), Reinforce().start(space, 3)
    assert [p.genotype for n in (5, 1, 13) for p in grouped.ask(n)] == [single.ask(1)[0].genotype for _ in range(19)]


def test_proposals_come_from_the_current_parameters() -> None:
    """What was drawn ahead before an update is drawn anew after it."""
    space = FunctionSpace(one_token)
    live = Reinforce(minibatch=50, learning_rate=3.0, hidden=6, embedding=6).start(space, 0)
    proposals = [p.genotype for p in live.ask(51)]  # 49 of the second batch are still to be given out
    live.tell([done(g, float(g.answers["op"] == 2)) for g in proposals[:50]])
    assert live.version == 1
    settled = int(np.argmax(probabilities(live, space)))
    assert probabilities(live, space)[settled] > 0.99
    assert {p.genotype.answers["op"] for p in live.ask(49)} == {settled}


def test_a_trial_of_another_space_is_refused_and_leaves_no_trace() -> None:
    space = FunctionSpace(one_token)
    live = Reinforce(minibatch=2).start(space, 0)
    with pytest.raises(IllegalGenotype, match="another space"):
        live.tell([done(Genotype(identity(FunctionSpace(chain)), {"op": 1}), 0.5)])
    with pytest.raises(IllegalGenotype, match="choice 'op' must be one of 0, 1, 2, 3, got 7"):
        live.tell([done(genotype(space, op=7), 0.5)])
    live.tell([done(genotype(space, op=1), 0.5)])
    assert live.version == 0


def test_a_space_with_one_way_through_is_no_trouble() -> None:
    def fixed(choose: Choose) -> Any:
        return [choose("only", ("this",)), choose.subset("none", ())]

    live = Reinforce(minibatch=2).start(FunctionSpace(fixed), 0)
    for _ in range(3):
        live.tell([done(p.genotype, 0.5) for p in live.ask(2)])
    assert live.version == 3

    def forced(choose: Choose) -> Any:
        return choose("layers", (2, 4))

    live = Reinforce(minibatch=2, depth_schedule=DepthSchedule(2, 2, every=3)).start(FunctionSpace(forced), 0)
    told = []
    for _ in range(3):
        proposals = live.ask(2)
        told += [p.genotype.answers["layers"] for p in proposals]
        live.tell([done(p.genotype, 0.5) for p in proposals])
    assert told == [2, 2, 2, 4, 4, 4]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"minibatch": 0}, "minibatch of Reinforce must be a whole number of at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate of Reinforce must be above 0 and finite, got -1.0"),
        ({"baseline_decay": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"anchor_input": "both"}, 'must be "answers" or "hidden", got \'both\''),
        ({"anchor_input": "hidden", "hidden": 20}, "embedding must equal hidden=20, got 35"),
    ],
)
def test_messages_name_the_field_the_rule_and_the_value(fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reinforce(**fields)


def test_a_space_without_choices_is_refused() -> None:
    with pytest.raises(ValueError, match="asks no choices"):
        Reinforce().start(FunctionSpace(lambda choose: []), 0)


def test_a_state_may_go_to_a_searcher_started_with_another_seed() -> None:
    space = FunctionSpace(chain)
    live, other = Reinforce(minibatch=3).start(space, 1), Reinforce(minibatch=3).start(space, 2)
    live.tell([done(p.genotype, 0.1 * i) for i, p in enumerate(live.ask(7))])
    live.ask(2)
    other.load_state_dict(live.state_dict())
    assert [p.genotype for p in other.ask(9)] == [p.genotype for p in live.ask(9)]
