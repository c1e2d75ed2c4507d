"""Q-learning: the update and the schedule of the paper, what is drawn again, states and coins, and the contract of searchers."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import pytest

from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import FunctionSpace, Space, enumerate_genotypes, identity, sample
from archsmith.core.trial import Failure, Proposal, Result, Trial, TrialState
from archsmith.searchers import QLearning, Random
from archsmith.searchers.q_learning import PAPER_SCHEDULE, LiveQLearning
from archsmith.searchers.q_table import QTable
from archsmith.spaces import NASBench201, QNet
from archsmith.testing import SearcherContract
from archsmith.training.landscape import Landscape

QUICK = QLearning(learning_rate=0.2, schedule=((1.0, 10), (0.3, 10), (0.1, 5)), replay=10)


def nothing(choose):
    return {}


class TestContract(SearcherContract):
    def searcher(self):
        return QUICK

    def wrong(self):
        return (
            lambda: QLearning(learning_rate=0),
            lambda: QLearning(discount=1.5),
            lambda: QLearning(replay=0),
            lambda: QLearning(schedule=()),
            lambda: QLearning().start(FunctionSpace(nothing), 0),
        )


class TestContractOnItsOwnSpace(SearcherContract):
    def searcher(self):
        return replace(QUICK, memory=2, backwards=False)

    def space(self):
        return QNet(image_size=12, max_layers=4, filters=(2, 4))


def bits(choose):
    return [choose(f"{i}.bit", (0, 1)) for i in range(4)]


def members(choose):
    return choose.subset("members", ("a", "b", "c"))


def done(number: int, genotype: Genotype, reward: float) -> Trial:
    return Trial(number, genotype, None, TrialState.DONE, reward, Result({"value": reward}))


def failed(number: int, genotype: Genotype, reason: str) -> Trial:
    return Trial(number, genotype, state=TrialState.FAILED, result=Result(failure=Failure(reason, "no")))


def play(searcher: Any, space: Space, trials: int, seed: int, reward: Any) -> tuple[Any, list[float]]:
    live = searcher.start(space, seed)
    rewards = []
    for number in range(trials):
        (proposal,) = live.ask(1)
        rewards.append(reward(proposal.genotype))
        live.tell([done(number, proposal.genotype, rewards[-1])])
    return live, rewards


def ones(genotype: Genotype) -> float:
    return sum(genotype.answers.values()) / len(genotype.answers)  # type: ignore[arg-type]


# --- the paper's facts ------------------------------------------------------------------------------------------------


def test_the_schedule_is_table_2() -> None:
    assert QLearning().schedule == PAPER_SCHEDULE
    assert sum(count for _, count in PAPER_SCHEDULE) == 2700
    epsilons = [QLearning().epsilon(models) for models in range(2701)]
    assert [epsilons.count(e / 10) for e in range(10, 0, -1)] == [1500, 100, 100, 100, 150, 150, 150, 150, 150, 151]
    assert epsilons == sorted(epsilons, reverse=True)
    assert QLearning().epsilon(10**9) == 0.1, "the last one stays"


@pytest.mark.parametrize("length", [1, 2, 5, 18])
def test_one_pass_backwards_carries_the_reward_to_the_start(length: int) -> None:
    """alpha = gamma = 1, Q(0) = 0.5, reward 1: backwards one pass makes every Q on the way 1, forwards as many as it is long."""
    path = [(k, k % 3) for k in range(length)]

    def after(passes: int, backwards: bool) -> list[float]:
        table = QTable(1.0, 1.0, 0.5, backwards=backwards)
        for k in range(length):
            assert table.row(f"state {k}", 3) == k
        for _ in range(passes):
            table.learn(path, 1.0)
        untouched = [v for k, row in enumerate(table.rows) for u, v in enumerate(row) if u != k % 3]
        assert untouched == [0.5] * (2 * length)
        return [table.rows[row][action] for row, action in path]

    assert after(1, backwards=True) == [1.0] * length
    for passes in range(1, length + 1):
        assert after(passes, backwards=False) == [0.5] * (length - passes) + [1.0] * passes


def test_an_update_is_equation_3() -> None:
    table = QTable(0.25, 0.5, 0.5, backwards=True)
    first, last = table.row("first", 2), table.row("last", 3)
    table.rows[last] = [0.5, 0.2, 0.9]
    table.learn([(first, 1), (last, 1)], 0.8)
    assert table.rows[last] == [0.5, 0.75 * 0.2 + 0.25 * 0.8, 0.9]
    assert table.rows[first] == [0.5, 0.75 * 0.5 + 0.25 * 0.5 * 0.9], (
        "the best action of the next state counts, not the one taken"
    )


def test_after_each_result_as_many_past_models_are_learned_from_as_asked() -> None:
    live = QLearning(learning_rate=0.1, replay=7).start(FunctionSpace(bits), 0)
    (proposal,) = live.ask(1)
    live.tell([done(0, proposal.genotype, 1.0)])
    assert live.version == 1
    last = max(max(row) for row in live._table.rows)
    assert last == pytest.approx(1 - 0.5 * 0.9**7), "the only model there is, seven times"


def test_at_epsilon_1_options_are_equally_likely() -> None:
    space = QNet()
    first = [p.genotype.answers["0.layer"] for p in QLearning().start(space, 0).ask(1400)]
    counts = {layer: first.count(layer) for layer in set(first)}
    assert len(counts) == 14
    # The two ends give one network each, so they are proposed once; the rest share alike.
    assert counts.pop("SM") == counts.pop("GAP") == 1
    assert all(80 < count < 160 for count in counts.values()), counts


# --- what is drawn again ----------------------------------------------------------------------------------------------


def test_nothing_is_proposed_twice_while_there_is_something_else() -> None:
    live = QUICK.start(FunctionSpace(bits), 3)
    seen = []
    for number in range(16):
        (proposal,) = live.ask(1)
        seen.append(proposal.genotype.key)
        live.tell([done(number, proposal.genotype, ones(proposal.genotype))])
    assert len(set(seen)) == 16
    assert live.diagnostics()["models"] == 16.0
    assert {p.genotype.key for p in live.ask(3)} <= set(seen), "when all are known, it goes on"
    assert live.diagnostics()["models"] == 16.0


def test_what_is_being_trained_is_not_proposed_either() -> None:
    live = QUICK.start(FunctionSpace(bits), 3)
    assert len({p.genotype.key for p in live.ask(16)}) == 16


def test_a_known_model_that_is_drawn_is_presented_again() -> None:
    """Each presentation is one more entry among the past models and one more round of learning."""
    live, _ = play(QUICK, FunctionSpace(bits), 14, 1, ones)
    again = live.diagnostics()["known_draws"]
    assert again > 0
    assert len(live.state_dict()["past"]) == live.version == 14 + again


def test_one_that_is_being_trained_counts_as_often_as_it_was_drawn() -> None:
    greedy = replace(QUICK, schedule=((0.0, 1),))
    live = greedy.start(FunctionSpace(members), 0)
    (first,) = live.ask(1)
    live.tell([done(0, first.genotype, 0.9)])
    (second,) = live.ask(1)  # all draws gave the first, so it is a random one
    assert second.genotype != first.genotype
    drawn = live.version - 1
    assert drawn == 100, "presented at each draw"
    running = greedy.start(FunctionSpace(members), 0)
    running.tell([done(0, first.genotype, 0.9)])
    running._known.clear()
    running._running[first.genotype.key] = 1
    running.ask(1)
    assert running.version == 1, "nothing is known of it yet"
    running.tell([done(1, first.genotype, 0.9)])
    assert running.version == 1 + 101


def test_epsilon_goes_by_different_models() -> None:
    live = QLearning(schedule=((1.0, 3), (0.5, 2), (0.25, 4))).start(FunctionSpace(bits), 0)
    epsilons = []
    for number in range(10):
        epsilons.append(live.diagnostics()["epsilon"])
        (proposal,) = live.ask(1)
        if number % 2:
            live.tell([failed(number, proposal.genotype, "error")])
    assert epsilons == [1.0] * 3 + [0.5] * 2 + [0.25] * 5


# --- what is learned --------------------------------------------------------------------------------------------------


def test_failures_count_as_the_worst_and_lost_workers_as_nothing() -> None:
    live = QUICK.start(FunctionSpace(bits), 0)
    a, b, c, d = (p.genotype for p in live.ask(4))
    live.tell([failed(0, a, "diverged")])
    assert live.version == 0, "before any reward a failure is passed over"
    live.tell([done(1, b, 0.7), done(2, c, 0.3)])
    live.tell([failed(3, d, "worker"), Trial(3, d, state=TrialState.STOPPED)])
    assert live.version == 2
    live.tell([failed(4, a, "diverged")])
    assert live.version == 3
    assert live.state_dict()["results"][-1] == {"answers": dict(a.answers), "reward": 0.3}


def test_the_best_is_found_when_it_is_greedy() -> None:
    """With every model of a small space known, the greedy policy is the best model."""
    rng = random.Random(0)
    for space in (FunctionSpace(bits), FunctionSpace(members)):
        worth = {g.key: rng.random() for g in enumerate_genotypes(space)}
        live = QLearning(learning_rate=0.3, initial=0.0).start(space, 0)
        live.tell([done(i, g, worth[g.key]) for i, g in enumerate(enumerate_genotypes(space))])
        assert isinstance(live, LiveQLearning)
        drawn = live._draw(0.0, random.Random(1))
        assert worth[drawn.key] == max(worth.values())
        assert live.diagnostics()["promised_reward"] == pytest.approx(max(worth.values()), abs=1e-3)


SPACES = {"QNet": (QNet(max_layers=6), None), "NAS-Bench-201": (NASBench201(), 1)}


@pytest.mark.parametrize("name", SPACES)
def test_it_learns_where_random_search_does_not(name: str) -> None:
    space, memory = SPACES[name]
    searcher = replace(QLearning.for_models(300), memory=memory)
    late: dict[str, list[float]] = {"learned": [], "random": []}
    for seed in range(3):
        landscape = Landscape(seed=seed)
        for kind, what in (("learned", searcher), ("random", Random())):
            _, rewards = play(what, space, 300, seed, landscape.height)
            late[kind].append(fmean(rewards[-40:]))
    assert fmean(late["learned"]) > fmean(late["random"]) + 0.05, late


def test_a_shorter_memory_shares_what_was_learned() -> None:
    def states(memory: int | None) -> float:
        searcher = replace(QUICK, memory=memory)
        return play(searcher, FunctionSpace(bits), 16, 0, ones)[0].diagnostics()["states"]

    assert states(None) == 1 + 2 + 4 + 8, "every way has states of its own"
    assert states(1) == 1 + 2 + 2 + 2
    assert states(2) == 1 + 2 + 4 + 4


def test_a_subset_is_taken_member_by_member() -> None:
    live = QUICK.start(FunctionSpace(members), 0)
    genotype = Genotype(identity(FunctionSpace(members)), {"members": ["a", "c"]})
    live.tell([done(0, genotype, 0.9)])
    (_, _, path) = live._results[0]
    assert [action for _, action in path] == [1, 0, 1]
    assert all(len(live._table.rows[row]) == 2 for row, _ in path)
    play_on, _ = play(QUICK, FunctionSpace(members), 30, 0, lambda g: 0.5)
    assert play_on.diagnostics()["states"] == 1 + 2 + 4
    assert play_on.diagnostics()["models"] == 8.0


@dataclass(frozen=True)
class Stated:
    """Bits in a ring, of which only the sum so far matters."""

    def architecture(self, choose):
        return [*(choose(f"{i}.bit", (0, 1)) for i in range(4)), choose.subset("extras", ("a", "b"))]

    def build(self, architecture, task):
        raise NotImplementedError

    def state(self, answers):
        return (len(answers), sum(answers.values()))


def test_a_space_names_its_states() -> None:
    live, _ = play(QUICK, Stated(), 60, 0, lambda g: 0.5)
    # Sums 0 to i before bit i, then for each of the five sums a coin for "a", and one for "b" after either.
    assert live.diagnostics()["states"] == (1 + 2 + 3 + 4) + 5 * (1 + 2)
    assert '[2,1,"bit",0,1]' in live.state_dict()["states"]


def test_the_agent_of_the_paper_meets_the_states_of_the_paper() -> None:
    space = QNet.cifar10()
    live, _ = play(replace(QUICK, replay=1), space, 60, 0, lambda g: 0.5)
    layers = ["C(512,5,1)", "P(5,3)", "SM"]
    before = live.diagnostics()["states"]
    live.tell([done(100, space.from_layers(layers), 0.9)])
    path = live._results[-1][2]
    assert len(path) == 3
    assert len(live._table.rows[path[0][0]]) == 12 + 2, "convolutions, GAP and SM"
    assert len(live._table.rows[path[1][0]]) == 12 + 3 + 2
    live.tell([done(101, space.from_layers(["C(512,5,1)", "P(5,3)", "GAP"]), 0.9)])
    assert live._results[-1][2][:2] == path[:2], "the same states on the same way"
    assert live.diagnostics()["states"] <= before + 2


def test_how_asks_are_grouped_does_not_matter() -> None:
    one, other = (QUICK.start(FunctionSpace(bits), 5) for _ in range(2))
    assert [p.genotype for p in one.ask(7)] == [p.genotype for _ in range(7) for p in other.ask(1)]


def test_a_genotype_of_another_space_is_refused() -> None:
    live = QUICK.start(FunctionSpace(bits), 0)
    with pytest.raises(IllegalGenotype, match="another space"):
        live.tell([done(0, sample(NASBench201(), random.Random(0)), 0.5)])


def test_a_grown_space_is_refused_and_pointed_elsewhere() -> None:
    class Grown:
        def seed(self) -> Any: ...

    with pytest.raises(UsageError, match="asks none; evolution fits it"):
        QUICK.start(Grown(), 0)  # type: ignore[arg-type]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [1, 2, 9, 24, 100, 540, 2699, 2700, 10_000])
def test_the_schedule_shrinks_in_proportion(models: int) -> None:
    schedule = QLearning.for_models(models).schedule
    assert sum(count for _, count in schedule) == models
    assert [e for e, _ in schedule] == sorted((e for e, _ in schedule), reverse=True)
    assert schedule[-1][0] == 0.1
    for epsilon, count in schedule:
        assert abs(count - dict(PAPER_SCHEDULE)[epsilon] * models / 2700) < 1
    assert (schedule == PAPER_SCHEDULE) == (models == 2700)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: QLearning(learning_rate=1.5),
            "learning_rate of QLearning must be a number above 0 and at most 1, got 1.5",
        ),
        (lambda: QLearning(learning_rate=True), "got True"),
        (lambda: QLearning(discount=-0.5), "discount of QLearning must be a number from 0 to 1"),
        (lambda: QLearning(initial=float("nan")), "initial of QLearning must be a finite number, got nan"),
        (lambda: QLearning(replay=1.0), "replay of QLearning must be a whole number of at least 1"),
        (lambda: QLearning(memory=0), "memory of QLearning must be a whole number of at least 1"),
        (lambda: QLearning(backwards=1), "backwards of QLearning must be True or False"),
        (lambda: QLearning(schedule="1.0"), "schedule of QLearning must be steps"),
        (lambda: QLearning(schedule=(1.0, 10)), "a step of QLearning's schedule must be epsilon and a number"),
        (lambda: QLearning(schedule=((1.1, 10),)), "an epsilon of QLearning's schedule must be from 0 to 1, got 1.1"),
        (lambda: QLearning(schedule=((1.0, 0),)), "a step of QLearning's schedule must be of at least 1 model, got 0"),
        (lambda: QLearning.for_models(0), "models of QLearning.for_models must be a whole number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_a_space_that_asks_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="asks no choices, so there is nothing to learn"):
        QLearning().start(FunctionSpace(nothing), 0)


def test_proposals_have_no_parent() -> None:
    assert all(isinstance(p, Proposal) and p.parent is None for p in QUICK.start(FunctionSpace(bits), 0).ask(4))
