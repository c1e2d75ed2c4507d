"""Search efficiency: the measure's own arithmetic, and that the settings for small budgets are worth having."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from search_efficiency import Problem, difference_of_medians, evaluations, first_arrival, found, report

from archsmith.core.errors import UsageError
from archsmith.core.space import FunctionSpace
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.searchers import PPO, BayesianOptimization, Random, RegularizedEvolution, Reinforce
from archsmith.testing import SearcherContract
from archsmith.training import Tabular

# --- the measure ------------------------------------------------------------------------------------------------------


def test_what_is_found_is_judged_by_the_test_accuracy_of_the_best_reward():
    rewards = np.array([0.3, 0.5, 0.5, 0.4, 0.6])
    tests = np.array([90.0, 80.0, 99.0, 98.0, 85.0])
    assert found(rewards, tests).tolist() == [90.0, 80.0, 80.0, 80.0, 85.0], "the first of equal ones stays"


@pytest.mark.parametrize(
    ("curve", "margin", "budget", "expected"),
    [
        ([90.0, 93.0, 94.0, 94.0], 1.0, 4, (2, True)),
        ([94.0, 94.0], 0.1, 2, (1, True)),
        ([94.0, 92.0, 94.0, 94.0], 1.0, 4, (3, True)),  # what is left again does not count
        ([94.0, 94.0, 92.0], 1.0, 3, (3, False)),  # it did not stay
        ([94.0, 94.0, 92.0], 1.0, 2, (1, True)),  # to a budget of 2 it did
        ([90.0, 91.0], 1.0, 2, (2, False)),
        ([93.7, 93.7], 0.3, 2, (1, True)),  # 94 - 0.3 in floating point
        ([90.0, 90.0, 94.0], 0.1, 3, (3, True)),
    ],
)
def test_evaluations_count_from_where_the_margin_is_kept_to_the_budget(curve, margin, budget, expected):
    assert evaluations(np.array(curve), 94.0, margin, budget) == expected


def test_a_first_arrival_need_not_stay():
    curve = np.array([90.0, 94.0, 92.0, 94.0])
    assert first_arrival(curve, 94.0, 1.0, 4) == (2, True)
    assert first_arrival(curve, 94.0, 1.0, 1) == (1, False)


def test_the_interval_of_a_difference_of_medians():
    a, b = [10.0] * 20, [30.0] * 20
    assert difference_of_medians(a, b) == (-20.0, -20.0, -20.0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(100, 10, 50), rng.normal(100, 10, 50)
    value, low, high = difference_of_medians(x, y)
    assert low <= value <= high
    assert low < 0 < high
    assert high - low < 16, "about 2 * 1.96 * 1.25 * 10 * sqrt(2 / 50) = 10 is right"


def test_the_report_counts_seeds_that_never_came_as_the_budget():
    runs = [np.array([90.0, 94.0, 94.0, 94.0]), np.array([90.0, 90.0, 90.0, 90.0])]
    text = "\n".join(report({"Random()": runs, "PPO()": [r[::-1] for r in runs]}, 94.0, [4]))
    assert "| Random() | 3 (50%; -) | 3 (50%; -) | 3 (50%; -) | 92.00 (2.83) |" in text
    assert "| PPO() | +1 [" in text


# --- made tables ------------------------------------------------------------------------------------------------------


def choices(choose):
    return [choose(f"{i}.op", tuple("abcd")) for i in range(5)]


@pytest.fixture
def made(tmp_path):
    """A table of 1,024 genotypes: what each answer is worth, and each pair of neighbours."""
    rng = np.random.default_rng(5)
    single, pair = rng.random((5, 4)), rng.random((4, 4, 4))
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 5, indexing="ij"), -1).reshape(-1, 5)
    rewards = single[np.arange(5), grid].sum(1) + 1.5 * sum(pair[i, grid[:, i], grid[:, i + 1]] for i in range(4))
    path = tmp_path / "made.npz"
    np.savez(path, value=rewards, **{f"{i}.op": np.array(list("abcd"))[grid[:, i]] for i in range(5)})
    table = Tabular(str(path), "value")
    return Problem(FunctionSpace(choices), table, rewards, float(rewards.max()))


def test_a_played_search_ends_where_nothing_can_change_any_more(made):
    rewards, tests = made.play(Random(), 0, 3000)
    (first,) = np.flatnonzero(rewards == made.best)[:1]
    assert first < 2999, "3,000 draws of 1,024 missed the best: another seed is needed"
    assert (rewards[first:] == made.best).all()
    assert (tests == rewards).all()
    whole = Problem(made.space, made.rewards, made.tests, np.inf).play(Random(), 0, 3000)
    assert (whole[0][: first + 1] == rewards[: first + 1]).all()
    assert (found(*whole) == found(rewards, tests)).all()


@pytest.mark.parametrize("searcher", [RegularizedEvolution.small(), BayesianOptimization(initial=6, candidates=30)])
def test_small_settings_find_the_best_of_1024_in_fewer_trials_than_chance(made, searcher):
    optimum, needed = made.best, {}
    for config in (searcher, Random()):
        runs = [found(*made.play(config, seed, 250)) for seed in range(5)]
        needed[type(config).__name__] = fmean(evaluations(run, optimum, 0.02 * optimum, 250)[0] for run in runs)
    assert needed[type(searcher).__name__] < 0.75 * needed["Random"], needed


@pytest.mark.parametrize("searcher", [Reinforce.small(), PPO.small()])
def test_small_controllers_propose_better_than_chance_after_a_hundred_trials(made, searcher):
    late = {}
    for config in (searcher, Random()):
        whole = Problem(made.space, made.rewards, made.tests, np.inf)
        late[type(config).__name__] = fmean(whole.play(config, seed, 160)[0][100:].mean() for seed in range(3))
    spread = made.tests.std()
    assert late[type(searcher).__name__] > late["Random"] + 0.3 * spread, late


# --- ranks and no proposal twice, in controllers ----------------------------------------------------------------------


class TestReinforceByRanks(SearcherContract):
    def searcher(self):
        return Reinforce(minibatch=3, hidden=8, embedding=6, learning_rate=0.01, ranks=10, unique=True)

    def wrong(self):
        return (
            lambda: Reinforce(ranks=-1),
            lambda: PPO(ranks=2.5),
            lambda: PPO(unique=1),
            lambda: Reinforce(ranks=True),
        )


class TestPPOByRanks(SearcherContract):
    def searcher(self):
        return PPO(minibatch=3, hidden=8, embedding=6, learning_rate=0.01, epochs=2, ranks=10, unique=True)


def told(live, reward, count, first=0):
    proposals = live.ask(count)
    live.tell(
        [
            Trial(first + n, p.genotype, None, TrialState.DONE, reward(p.genotype), Result())
            for n, p in enumerate(proposals)
        ]
    )
    return [p.genotype for p in proposals]


def test_ranks_make_a_controller_blind_to_the_scale_of_rewards():
    def worth(genotype):
        return float(sum("abcd".index(answer) for answer in genotype.answers.values()))

    proposed = []
    for scale in (lambda r: r, lambda r: 1e-3 * r**3 - 7.0):
        live = Reinforce(minibatch=4, hidden=8, embedding=8, ranks=20).start(FunctionSpace(choices), 1)
        proposed.append([told(live, lambda g, s=scale: s(worth(g)), 4, 4 * k) for k in range(12)])
    assert proposed[0] == proposed[1]


@pytest.mark.parametrize("config", [Reinforce(unique=True), PPO(unique=True, minibatch=8)])
def test_a_unique_controller_proposes_nothing_twice_while_it_finds_others(config):
    def four(choose):
        return [choose(f"{i}.bit", (0, 1)) for i in range(4)]

    live = config.start(FunctionSpace(four), 0)
    genotypes = told(live, lambda g: 0.5, 14)
    assert len(set(genotypes)) == 14
    assert len(told(live, lambda g: 0.5, 8, 14)) == 8, "when everything was tried, it goes on"


@pytest.mark.parametrize("make", [RegularizedEvolution.small, Reinforce.small, PPO.small])
def test_small_settings_say_what_they_were_tuned_on(make):
    assert "tuned on" in make.__doc__
    assert make().unique


def test_the_measure_needs_its_table():
    with pytest.raises(UsageError):
        Tabular.nasbench201("no-such-table.npz").best(FunctionSpace(choices))
