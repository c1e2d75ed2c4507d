"""Aging evolution: the published behaviour on the toy problem, who lives how long, and the contract of all searchers."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from archsmith.core.errors import UsageError
from archsmith.core.space import FunctionSpace
from archsmith.core.trial import Failure, Proposal, Result, Trial, TrialState
from archsmith.searchers import Random, RegularizedEvolution
from archsmith.testing import SearcherContract


class TestContract(SearcherContract):
    def searcher(self):
        return RegularizedEvolution(population=10, sample=3)

    def wrong(self):
        return (
            lambda: RegularizedEvolution(population=0),
            lambda: RegularizedEvolution(sample=2.5),
            lambda: RegularizedEvolution(aging=1),
            lambda: RegularizedEvolution(unique="yes"),
        )


class TestContractNonAging(SearcherContract):
    def searcher(self):
        return RegularizedEvolution(population=8, sample=4, aging=False, unique=True)


def bits(choose):
    return [choose(f"{i}.bit", (0, 1)) for i in range(100)]


def play(searcher, *, cycles, seed, reward):
    """The best true fitness of a serial search, and the live searcher."""
    live = searcher.start(FunctionSpace(bits), seed)
    told = []
    for number in range(cycles):
        (proposal,) = live.ask(1)
        told.append((proposal, reward(proposal.genotype)))
        live.tell([done(number, proposal, told[-1][1])])
    return live, told


def done(number, proposal: Proposal, reward):
    return Trial(number, proposal.genotype, proposal.parent, TrialState.DONE, reward, Result({"value": reward}))


def noisy_ones(seed):
    noise = random.Random(seed)

    def reward(genotype):
        return min(1.0, max(0.0, sum(genotype.answers.values()) / 100 + noise.gauss(0, 0.01)))

    return reward


def best_true_fitness(searcher, seed):
    _, told = play(searcher, cycles=1000, seed=seed, reward=noisy_ones(seed))
    return max(sum(proposal.genotype.answers.values()) / 100 for proposal, _ in told)


def test_the_toy_problem_of_the_paper_comes_out_as_published():
    evolved = fmean(best_true_fitness(RegularizedEvolution(population=100, sample=10), seed) for seed in range(20))
    assert 0.86 <= evolved <= 0.93, evolved
    at_random = fmean(best_true_fitness(Random(), seed) for seed in range(20))
    assert 0.64 <= at_random <= 0.69, at_random


def test_a_model_lives_exactly_as_many_cycles_as_the_population_is_large():
    live = RegularizedEvolution(population=7, sample=3).start(FunctionSpace(bits), 0)
    parents: dict[int, list[int]] = {}
    for number in range(200):
        (proposal,) = live.ask(1)
        if proposal.parent is not None:
            parents.setdefault(proposal.parent, []).append(number)
        live.tell([done(number, proposal, 1.0 if number == 50 else 0.5)])
    assert parents[50]
    assert set(range(51, 58)) >= set(parents[50]), "the best was a parent before its birth or after its death"
    alive = [member["trial"] for member in live.state_dict()["alive"]]
    assert alive == list(range(193, 200)), "the population is not the most recent P"


def test_without_aging_the_best_stays():
    live = RegularizedEvolution(population=7, sample=7, aging=False).start(FunctionSpace(bits), 0)
    for number in range(200):
        (proposal,) = live.ask(1)
        live.tell([done(number, proposal, 1.0 if number == 50 else 0.5 + number / 1000)])
    assert 50 in [member["trial"] for member in live.state_dict()["alive"]]
    assert len(live.state_dict()["alive"]) == 7


def test_a_child_differs_from_its_parent_in_one_answer():
    _, told = play(RegularizedEvolution(population=5, sample=2), cycles=60, seed=1, reward=noisy_ones(1))
    for proposal, _ in told[5:]:
        parent = told[proposal.parent][0].genotype.answers
        assert sum(parent[name] != answer for name, answer in proposal.genotype.answers.items()) == 1


def test_unique_proposes_nothing_twice_until_there_is_nothing_else():
    live = RegularizedEvolution(population=4, sample=2, unique=True).start(
        FunctionSpace(lambda choose: [choose(f"{i}.bit", (0, 1)) for i in range(4)]), 3
    )
    seen = []
    for number in range(14):
        (proposal,) = live.ask(1)
        seen.append(proposal.genotype.key)
        live.tell([done(number, proposal, 0.5)])
    assert len(set(seen)) >= 13, "neighbours that were not tried yet were there to be found"
    assert len(live.ask(6)) == 6, "when everything was tried, it goes on"


def test_failed_trials_have_no_children():
    live = RegularizedEvolution(population=3, sample=2).start(FunctionSpace(bits), 0)
    proposals = live.ask(3)
    failed = Trial(0, proposals[0].genotype, state=TrialState.FAILED, result=Result(failure=Failure("error", "no")))
    live.tell([failed, done(1, proposals[1], 0.1)])
    assert {proposal.parent for proposal in live.ask(20)} == {1}


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "25"])
def test_sizes_that_make_no_sense_are_refused(value):
    with pytest.raises(UsageError, match="sample of RegularizedEvolution must be a whole number"):
        RegularizedEvolution(sample=value)
