"""Asynchronous training: the scheme and its counts are the paper's, and neither where parts live nor their deaths change it."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.errors import ArchsmithError, IllegalGenotype, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.hosting import Host, Part, PartLost, Pending
from archsmith.core.searcher import State
from archsmith.core.space import FunctionSpace, Space, identity
from archsmith.core.trial import Failure, Proposal, Result, Trial, TrialState
from archsmith.core.walk import Choose
from archsmith.executors import Ray, Simulated
from archsmith.searchers import PPO, Asynchronous, Random, Reinforce, policy
from archsmith.searchers.asynchronous import LiveAsynchronous
from archsmith.searchers.hosted import _layout_from_plain
from archsmith.searchers.parameter_server import Gradient, Server, Shards
from archsmith.searchers.parameters import Layout, initial, moved, shares, trunk, whole
from archsmith.searchers.replicas import Replicas
from archsmith.testing.searcher import mixed_space, through_a_file


def chain(choose: Choose, layers: int = 5) -> Any:
    return [
        {"f": choose(f"{i}.filters", (24, 36, 48, 64)), "inputs": choose.subset(f"{i}.inputs", range(i))}
        for i in range(layers)
    ]


CHAIN, MIXED = FunctionSpace(chain), FunctionSpace(mixed_space)
SMALL = Reinforce(minibatch=4, hidden=8, embedding=6, learning_rate=0.01)


def reward(genotype: Genotype) -> float:
    return int(genotype.key[:6], 16) / 16**6


def ended(number: int, proposal: Proposal, value: float | None = None) -> Trial:
    value = reward(proposal.genotype) if value is None else value
    return Trial(number, proposal.genotype, state=TrialState.DONE, reward=value, result=Result())


class Play:
    """A search with as many trials at once as there are workers, told in an order of its own that is always the same."""

    def __init__(self, live: LiveAsynchronous | Any, workers: int = 10**6) -> None:
        self.live, self.workers = live, workers
        self.proposals: list[Proposal] = []
        self.running: list[int] = []
        self.rng = random.Random(0)

    def go(self, tells: int, after: Callable[[], object] | None = None) -> Play:
        for _ in range(tells):
            n = min(self.live.capacity(), self.workers - len(self.running))
            asked = self.live.ask(n) if n else []
            self.running += range(len(self.proposals), len(self.proposals) + n)
            self.proposals += asked
            self.rng.shuffle(self.running)
            told = [self.running.pop() for _ in range(min(len(self.running), self.rng.choice((1, 1, 2, 5))))]
            states = [self.rng.choice((TrialState.DONE,) * 8 + (TrialState.FAILED, TrialState.STOPPED)) for _ in told]
            self.live.tell([self.trial(n, state) for n, state in zip(told, states, strict=True)])
            if after is not None:
                after()
        return self

    def trial(self, number: int, state: TrialState) -> Trial:
        if state is TrialState.DONE:
            return ended(number, self.proposals[number])
        failure = Failure("diverged", "NaN") if state is TrialState.FAILED else None
        return Trial(number, self.proposals[number].genotype, state=state, result=Result(failure=failure))


def values(live: LiveAsynchronous) -> dict[str, np.ndarray]:
    """The server's parameters by name."""
    hosted = live.state_dict()["hosted"]
    layout = _layout_from_plain(hosted["layouts"][0])
    return {name: hosted["server"]["value"][at:end].reshape(shape) for name, shape, at, end in layout.places()}


def same(a: State, b: State) -> bool:
    """Whether two states are equal to the bit."""

    def flat(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: flat(item) for key, item in value.items()}
        if isinstance(value, list):
            return [flat(item) for item in value]
        return (str(value.dtype), value.tobytes()) if isinstance(value, np.ndarray) else value

    return bool(flat(a) == flat(b))


# --- the scheme -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [CHAIN, MIXED], ids=["chain", "mixed"])
@pytest.mark.parametrize(
    "learner",
    [
        SMALL,
        Reinforce(minibatch=3, hidden=8, embedding=8, anchor_input="hidden", entropy_weight=0.1, learning_rate=0.01),
        Reinforce(minibatch=4, hidden=8, embedding=6, learning_rate=0.01, ranks=20, unique=True),
    ],
    ids=["plain", "hidden", "unique ranks"],
)
def test_one_replica_is_plain_reinforce(space: Space, learner: Reinforce) -> None:
    """S = K = n = 1 on whole minibatches: the same proposals, and parameters equal but for rounding after 25 updates."""
    plain, one = learner.start(space, 3), Asynchronous(learner, shards=1, replicas=1).start(space, 3)
    for update in range(25):
        proposals = plain.ask(learner.minibatch)
        assert [p.genotype for p in one.ask(learner.minibatch)] == [p.genotype for p in proposals], update
        told = [ended(update * learner.minibatch + i, p) for i, p in enumerate(proposals)]
        plain.tell(told)
        one.tell(told)
    shown = one.diagnostics()
    for name, value in plain.diagnostics().items():
        assert shown[name] == pytest.approx(value, rel=1e-4), name
    expected = {entry["name"]: entry["value"] for entry in plain.state_dict()["controller"]["parameters"]}
    found = values(one)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize("space", [CHAIN, MIXED], ids=["chain", "mixed"])
def test_the_number_of_shards_changes_nothing(space: Space) -> None:
    """To the bit, and in a space whose controller grows while it learns."""
    plays = [Play(Asynchronous(SMALL, shards=s, replicas=3).start(space, 1)).go(60) for s in (1, 7)]
    assert plays[0].proposals == plays[1].proposals
    assert plays[0].live.version == plays[1].live.version > 5
    one, seven = (values(play.live) for play in plays)
    assert all(np.array_equal(one[name], seven[name]) for name in one)


def test_a_gradient_is_of_the_parameters_that_sampled() -> None:
    """Two replicas draw from version 0. The second's gradient comes when the server is at version 1: it is that of version
    0, applied to version 1. Worked out here by autograd and torch's Adam."""
    live = Asynchronous(SMALL, shards=3, replicas=2).start(CHAIN, 5)
    drawn = [live.ask(4), live.ask(4)]
    network = policy.controller(SMALL, CHAIN, 5)
    network.plan([network.reader.trace(p.genotype) for proposals in drawn for p in proposals])  # meet all heads
    weights = [value.detach().clone().requires_grad_() for value in network.parameters.values()]
    optimizer, baseline, number = torch.optim.Adam(weights, lr=0.01), None, 0
    gradients = []
    for proposals in drawn:
        rewards = [reward(p.genotype) for p in proposals]
        baseline = rewards[0] if baseline is None else baseline
        traces = [network.reader.trace(p.genotype) for p in proposals]
        objective = (network.score(traces).log_prob.sum(1) * torch.tensor([r - baseline for r in rewards])).mean()
        gradients.append(network.gradient(-objective))
        baseline = 0.95 * baseline + 0.05 * sum(rewards) / 4
        live.tell([ended(number + i, p) for i, p in enumerate(proposals)])
        number += 4
        assert live.ask(1)[0].version == 1  # the first replica pulls again before the second one pushes
    for gradient in gradients:
        for weight, part in zip(weights, gradient, strict=True):  # type: ignore[arg-type]
            weight.grad = part
        optimizer.step()
    assert [p.version for proposals in drawn for p in proposals] == [0] * 8
    assert live.version == 2
    assert live.diagnostics()["largest_staleness"] == 1
    found, expected = values(live), dict(zip(network.parameters, weights, strict=True))
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name].detach(), atol=1e-6, err_msg=name)


def test_ten_pushes_make_an_update_and_eight_children_a_push() -> None:
    """SPEC 4c: with accumulate=10 the version advances once per 10 pushes; with m=8 and K=2 there are 8 children a push."""
    learner = Reinforce(minibatch=8, hidden=8, embedding=6)
    live = Asynchronous(learner, shards=2, replicas=2, accumulate=10).start(CHAIN, 0)
    number = 0
    for pushes in range(1, 41):
        proposals = live.ask(8)
        live.tell([ended(number + i, p) for i, p in enumerate(proposals)])
        number += 8
        state = live.state_dict()["hosted"]
        assert (state["pushes"], number) == (pushes, 8 * pushes)
        assert live.version == state["server"]["version"] == state["server"]["steps"] == pushes // 10
        assert state["server"]["gathered"] == pushes % 10
    shown = live.diagnostics()
    assert (shown["updates"], shown["pushes"]) == (4, 40)
    assert shown["mean_staleness"] == 0  # one replica at a time was at work: all pull between two updates


def test_what_is_accumulated_is_applied_as_its_mean() -> None:
    server = Server(Layout.of({}, trunk(4, 1, 4)), 0, 0.1, shards=2, accumulate=2, learning_rate=0.1)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=server.layout.size).astype(np.float32) for _ in range(2))
    middle: np.ndarray = (a + b) / np.float32(2)
    alone, pair = Shards(server, (0, 1)), Shards(server, (0, 1))
    for number, gradient in enumerate((a, b)):
        pushed = pair.push(number, Gradient(server.layout, gradient, 0.0))
    for number in range(2):
        alone.push(number, Gradient(server.layout, middle, 0.0))
    assert sum(pushed.squares) == pytest.approx(float(np.square(middle, dtype=np.float64).sum()), rel=1e-6)
    np.testing.assert_allclose(whole([pair.pull(2)])[1], whole([alone.pull(2)])[1], atol=1e-6)
    assert not np.allclose(whole([pair.pull(2)])[1], initial(server.layout, 0, 0.1), atol=0.01)


@pytest.mark.parametrize(("workers", "staleness"), [(24, 5), (4, 1), (8, 2)])
def test_staleness_is_what_the_replicas_at_work_make_it(workers: int, staleness: int) -> None:
    """K - 1 where all six are at work, in turn. With fewer workers fewer are: a replica pulls when its turn comes."""
    live = Asynchronous(SMALL, shards=2, replicas=6).start(CHAIN, 0)
    queue: list[tuple[int, Proposal]] = []
    number, seen = 0, []
    while live.version < 30:
        for proposal in live.ask(min(live.capacity(), workers - len(queue))):
            queue.append((number, proposal))
            number += 1
        version = live.version
        live.tell([ended(*queue.pop(0))])
        if live.version > version > 10:
            seen.append((live.diagnostics()["mean_staleness"], live.diagnostics()["largest_staleness"]))
    assert set(seen) == {(staleness, staleness)}


def test_proposals_carry_their_replica_and_version() -> None:
    live = Asynchronous(SMALL, replicas=3).start(CHAIN, 0)
    proposals = live.ask(12)
    assert [p.replica for p in proposals] == [0] * 4 + [1] * 4 + [2] * 4
    assert live.capacity() == 0
    live.tell([ended(i, proposals[i]) for i in (4, 5, 6)])
    assert live.capacity() == 0  # the second replica still waits for its fourth child
    live.tell([ended(7, proposals[7])])
    assert live.capacity() == 4
    again = live.ask(3)
    assert [(p.replica, p.version) for p in again] == [(1, 1)] * 3
    assert live.capacity() == 1


def test_more_than_the_capacity_is_refused() -> None:
    live = Asynchronous(SMALL, replicas=2).start(CHAIN, 0)
    live.ask(5)
    with pytest.raises(UsageError, match=r"4 proposals were asked for, and 2 replicas of 4 children can make 3"):
        live.ask(4)
    assert len(live.ask(3)) == 3


# --- what trials mean to it -------------------------------------------------------------------------------------------


def test_a_gradient_is_over_the_children_that_say_something() -> None:
    learner = Reinforce(minibatch=4, hidden=8, embedding=6)
    live, other = (Asynchronous(learner, shards=1, replicas=1).start(CHAIN, 0) for _ in range(2))
    proposals = live.ask(4)
    other.ask(4)
    lost = Trial(1, proposals[1].genotype, state=TrialState.FAILED, result=Result(failure=Failure("worker", "died")))
    stopped = Trial(3, proposals[3].genotype, state=TrialState.STOPPED)
    live.tell([ended(0, proposals[0], 0.5), lost, ended(2, proposals[2], 0.9), stopped])
    network = policy.controller(learner, CHAIN, 0)
    traces = [network.reader.trace(proposals[i].genotype) for i in (0, 2)]
    gradients = network.gradient(-(network.score(traces).log_prob.sum(1) * torch.tensor([0.0, 0.4])).mean())
    assert gradients is not None
    norm = torch.cat([g.flatten() for g in gradients]).norm().item()
    assert live.diagnostics()["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert live.diagnostics()["mean_reward"] == pytest.approx(0.7)


def test_a_replica_whose_children_say_nothing_pulls_and_samples_anew() -> None:
    live = Asynchronous(SMALL, replicas=1).start(CHAIN, 0)
    first = live.ask(4)
    live.tell([Trial(i, p.genotype, state=TrialState.STOPPED) for i, p in enumerate(first)])
    assert live.version == 0
    assert live.diagnostics() == {}
    second = live.ask(4)
    assert {p.genotype for p in second} != {p.genotype for p in first}
    diverged = Result(failure=Failure("diverged", "NaN"))  # and before any reward a failure cannot be the worst one
    live.tell([Trial(4 + i, p.genotype, state=TrialState.FAILED, result=diverged) for i, p in enumerate(second)])
    live.tell([ended(8 + i, p) for i, p in enumerate(live.ask(4))])
    assert live.version == 1


def test_a_trial_of_nobodys_is_passed_over_and_one_of_another_space_refused() -> None:
    live = Asynchronous(SMALL, replicas=2).start(CHAIN, 0)
    (proposal,) = Random().start(CHAIN, 9).ask(1)
    live.tell([ended(0, proposal)] * 8)
    assert live.version == 0
    with pytest.raises(IllegalGenotype, match="another space"):
        live.tell([ended(0, Proposal(Genotype(identity(MIXED), {})))])


def test_equal_proposals_of_two_replicas_are_told_apart() -> None:
    """By the trial's number: each replica waits for its own."""

    def two(choose: Choose) -> Any:
        return choose("op", (0, 1))

    live = Asynchronous(Reinforce(minibatch=2, hidden=4, embedding=4), replicas=8).start(FunctionSpace(two), 0)
    proposals = live.ask(16)
    live.tell([ended(i, proposals[i]) for i in (6, 7)])
    assert live.version == 1
    assert live.ask(1)[0].replica == 3


def test_it_learns_where_random_search_does_not() -> None:
    """Three seeds of 500 trials, six replicas of four at work: the mean of the last 100 lies above random search's in each."""

    def landscape(genotype: Genotype) -> float:
        answers: Any = genotype.answers
        good: list[bool] = [answers[f"{i}.filters"] == 48 for i in range(5)]
        good += [(j in answers[f"{i}.inputs"]) == (j == i - 1) for i in range(5) for j in range(i)]
        return sum(good) / len(good)

    def last(seed: int) -> float:
        live = Asynchronous(Reinforce(learning_rate=0.01, minibatch=4), replicas=6).start(CHAIN, seed)
        queue: list[tuple[int, Proposal]] = []
        number, rewards, rng = 0, list[float](), random.Random(seed)
        while len(rewards) < 500:
            for proposal in live.ask(live.capacity()):
                queue.append((number, proposal))
                number += 1
            rng.shuffle(queue)
            trial = ended(*queue[-1], landscape(queue.pop()[1].genotype))
            rewards.append(trial.reward or 0.0)
            live.tell([trial])
        return float(np.mean(rewards[-100:]))

    at_random = [landscape(p.genotype) for p in Random().start(CHAIN, 0).ask(2000)]
    assert min(last(seed) for seed in range(3)) > np.mean(at_random) + 0.15


# --- parameters as a vector -------------------------------------------------------------------------------------------


def test_a_layout_is_the_controllers() -> None:
    """What shards start parameters as is what a controller makes of them, also those that come later."""
    replicas = policy.controller(SMALL, MIXED, 4)
    replicas.sample(0, 30, seed=0)
    layout = replicas.layout()
    shards = Shards(Server(Layout.of({}, trunk(8, 2, 6)), replicas._seed, 0.08, 5, 1, 0.1), tuple(range(5)))
    shards.push(0, Gradient(layout, None, 0.0))
    found, start = whole([shards.pull(1)])
    assert found == layout
    for name, _, at, end in layout.places():
        assert np.array_equal(start[at:end], replicas.parameters[name].detach().numpy().ravel())


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_shards_hold_every_number_once_and_keep_it_when_parameters_grow(
    count: int, sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    small = Layout.of({}, {f"p{i}": size for i, size in enumerate(sizes)})
    more = [(rows + data.draw(st.integers(0, 5)), width) for rows, width in sizes]
    other = Layout.of({}, {f"p{i}": size for i, size in enumerate(more)} | {"a": (2, 2)})
    large = small.with_all_of(other)
    assert large == other == other.with_all_of(small)
    for layout in (small, large):
        held = np.sort(np.concatenate(shares(layout, count)))
        assert np.array_equal(held, np.arange(layout.size))
    numbers = np.arange(small.size, dtype=np.float32)
    grown = moved(numbers, small, large, np.full(large.size, -1, np.float32))
    for before, after in zip(shares(small, count), shares(large, count), strict=True):
        kept = grown[after]
        assert sorted(kept[kept >= 0]) == sorted(numbers[before])


# --- where parts live, and their deaths -------------------------------------------------------------------------------


class Call:
    """A call that waits for its turn, and its result."""

    def __init__(self, host: Shuffled, part: ShuffledPart, method: str, args: tuple[Any, ...]) -> None:
        self.host, self.part, self.method, self.args = host, part, method, args
        self.done, self.lost = False, False
        self.value: Any = None
        self.error: Exception | None = None

    def ready(self) -> bool:
        return all(arg.done for arg in self.args if isinstance(arg, Call))

    def carry_out(self) -> None:
        self.done = True
        try:
            args = [arg.given() if isinstance(arg, Call) else arg for arg in self.args]
            self.value = getattr(self.part.thing, self.method)(*args)
        except Exception as error:
            self.error = error

    def given(self) -> Any:
        if self.lost:
            raise PartLost("gone")
        if self.error is not None:
            raise self.error
        return self.value

    def result(self) -> Any:
        while not self.done:
            self.host.step()
        return self.given()


class ShuffledPart:
    def __init__(self, host: Shuffled, thing: Any) -> None:
        self.host, self.thing = host, thing
        self.queue: list[Call] = []
        self.gave: list[Call] = []
        self.dead = False

    def call(self, method: str, *args: Any) -> Pending:
        call = Call(self.host, self, method, args)
        if self.dead:
            call.done = call.lost = True
        else:
            self.queue.append(call)
        return call

    def end(self) -> None:
        self.die(loses=False)

    def die(self, loses: bool) -> None:
        """With what it has not done yet and, where it loses that, with what it gave."""
        self.dead, self.thing = True, None
        for call in (*self.queue, *(self.gave if loses else ())):
            call.done = call.lost = True
        self.queue.clear()


class Shuffled:
    """A host whose parts work when they are waited for, in any order that the calls allow, and die before given steps."""

    def __init__(self, seed: int, deaths: Sequence[int] = ()) -> None:
        self.rng = random.Random(seed)
        self.deaths = set(deaths)
        self.parts: list[ShuffledPart] = []
        self.steps = self.died = 0

    def start(self, make: Callable[..., Any], *args: Any) -> Part:
        self.parts.append(ShuffledPart(self, make(*args)))
        return self.parts[-1]

    def step(self) -> None:
        alive = [part for part in self.parts if not part.dead]
        self.steps += 1
        if self.steps in self.deaths:
            self.rng.choice(alive).die(loses=self.rng.random() < 0.5)
            self.died += 1
            return
        part = self.rng.choice([part for part in alive if part.queue and part.queue[0].ready()])
        call = part.queue.pop(0)
        call.carry_out()
        part.gave.append(call)


def placed(config: Asynchronous, host: Host, space: Space = MIXED, seed: int = 2) -> LiveAsynchronous:
    live = config.start(space, seed)
    live.place(host)
    return live


SCHEME = Asynchronous(SMALL, shards=5, replicas=4, accumulate=2, processes=3)
TELLS = 150


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[Proposal], State, list[Mapping[str, float]]]:
    shown: list[Mapping[str, float]] = []
    live = SCHEME.start(MIXED, 2)
    play = Play(live).go(TELLS, lambda: shown.append(live.diagnostics()))
    return play.proposals, live.state_dict(), shown


@pytest.mark.parametrize("seed", range(3))
def test_where_parts_live_and_how_fast_they_are_changes_nothing(seed: int, undisturbed: Any) -> None:
    proposals, state, _ = undisturbed
    host = Shuffled(seed)
    live = placed(SCHEME, host)
    assert Play(live).go(TELLS).proposals == proposals
    assert same(live.state_dict(), state)
    assert len(host.parts) == 3 + 3
    live.close()
    live.close()
    assert all(part.dead for part in host.parts)


@pytest.mark.parametrize("seed", range(4))
def test_deaths_change_nothing(seed: int, undisturbed: Any) -> None:
    """Parts die at eight random moments, half of them with all that they ever gave, and are replaced: the same proposals,
    the same to show after each tell, and at the end the same state to the bit."""
    proposals, state, shown = undisturbed
    rng = random.Random(seed)
    host = Shuffled(seed, rng.sample(range(1, 400), 8))
    live = placed(SCHEME, host)
    found: list[Mapping[str, float]] = []
    assert Play(live).go(TELLS, lambda: found.append(live.diagnostics())).proposals == proposals
    assert host.died == 8
    assert found == shown
    assert same(live.state_dict(), state)


@pytest.mark.skipif(sys.platform != "linux", reason="kills processes by their ids")
def test_actors_of_ray_that_are_killed_change_nothing(undisturbed: Any) -> None:
    """A process of shards and one of replicas, each killed once on the way."""
    proposals, state, shown = undisturbed
    found: list[Mapping[str, float]] = []
    with closing(Ray(workers=1)) as executor:
        live = placed(replace(SCHEME, processes=1), executor.host)
        before = live._hosted.processes()

        def after() -> None:
            found.append(live.diagnostics())
            if len(found) in (40, 100):
                os.kill(live._hosted.processes()[len(found) == 100], signal.SIGKILL)

        assert Play(live).go(TELLS, after).proposals == proposals
        assert found == shown
        assert same(live.state_dict(), state)
        assert not set(before) & set(live._hosted.processes())
        live.close()


def test_a_search_whose_parts_die_all_the_time_ends_and_says_so() -> None:
    live = placed(SCHEME, Shuffled(0, range(20, 10_000)))
    with pytest.raises(ArchsmithError, match=r"died 10 times in a row.*All finished trials are kept"):
        Play(live).go(TELLS)


def test_what_a_replica_raises_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not taken for a death, though its gradient never comes to the shards either."""

    def gradient(*args: Any) -> Gradient:
        raise MemoryError("no room")

    monkeypatch.setattr(Replicas, "gradient", gradient)
    for host in (Shuffled(0), None):
        live = SCHEME.start(MIXED, 0) if host is None else placed(SCHEME, host)
        with pytest.raises(MemoryError, match="no room"):
            Play(live).go(20)


def test_a_shard_that_missed_a_push_says_so() -> None:
    shards = Shards(Server(Layout.of({}, trunk(4, 1, 4)), 0, 0.1, 2, 1, 0.1), (0, 1))
    for call in (shards.pull, shards.state):
        with pytest.raises(PartLost, match="of 1 pushes to shards of the controller 0 have come"):
            call(1)
    with pytest.raises(PartLost):
        shards.push(2, Gradient(shards._layout, None, 0.0))


def test_parts_are_placed_before_they_begin_and_gone_after_they_end() -> None:
    live = SCHEME.start(MIXED, 0)
    live.ask(1)
    with pytest.raises(UsageError, match="place them before the first ask"):
        live.place(Shuffled(0))
    live.close()
    with pytest.raises(UsageError, match="was closed"):
        live.load_state_dict(SCHEME.start(MIXED, 0).state_dict())


# --- state and runs ---------------------------------------------------------------------------------------------------


def test_a_state_has_each_version_once_and_goes_to_other_shards_and_seeds() -> None:
    play = Play(SCHEME.start(MIXED, 2)).go(90)
    state = through_a_file(play.live.state_dict())
    versions = [entry["version"] for entry in state["hosted"]["versions"]]
    pulled = {entry["version"] for entry in state["busy"]}
    assert len(versions) == len(set(versions))
    assert pulled <= set(versions) <= pulled | {play.live.version}
    other = Asynchronous(SMALL, shards=2, replicas=4, accumulate=2).start(MIXED, 77)
    other.place(Shuffled(1))
    other.load_state_dict(state)
    twin = Play(other)
    twin.proposals, twin.running, twin.rng = list(play.proposals), list(play.running), random.Random(5)
    play.rng = random.Random(5)
    assert twin.go(60).proposals == play.go(60).proposals


def test_a_run_that_was_cut_short_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """On 24 simulated workers; what a trial's replica and version were is in the store."""

    def search(name: str, trials: int) -> smith.Run:
        return smith.search(
            chain,
            _value,
            searcher=Asynchronous(SMALL, shards=3, replicas=6),
            executor=Simulated(24, seconds=10),
            trials=trials,
            store=f"sqlite:///{tmp_path}/runs.db",
            name=name,
        )

    whole_run = [*search("whole", 120).trials()]
    part = search("part", 50)
    part.resume(trials=120)
    resumed = [*part.trials()]
    assert [t.genotype for t in resumed[:50]] == [t.genotype for t in whole_run[:50]]
    assert len(resumed) == 120
    assert {t.replica for t in whole_run} == set(range(6))
    assert max(t.version or 0 for t in whole_run) > 15
    learned = part.reader.learned()
    assert learned[-1].values["updates"] == learned[-1].values["pushes"] > 20


def _value(architecture: Any) -> float:
    return float(sum(layer["f"] for layer in architecture)) / 320


def test_another_learner_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="learner of Asynchronous must be a Reinforce, got PPO: a replica pushes one"):
        Asynchronous(PPO())  # type: ignore[arg-type]
