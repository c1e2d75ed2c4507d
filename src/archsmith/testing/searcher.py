"""What every searcher promises, as tests: inherit `SearcherContract`, return your searcher, and run pytest.

class TestMine(SearcherContract):
    def searcher(self):
        return MySearcher(population=10)
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from archsmith.core.config import from_config, to_config
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import LiveSearcher, Searcher, State, WaitsForResults
from archsmith.core.space import FunctionSpace, Space, decode, sample
from archsmith.core.trial import Failure, Proposal, Result, Trial, TrialState
from archsmith.core.walk import Choose


def mixed_space(choose: Choose) -> list[dict[str, Any]]:
    """A small space with all that a searcher may meet: kinds, references to earlier steps, plain subsets, conditions."""
    layers = []
    for i in range(3):
        layer: dict[str, Any] = {"type": choose(f"{i}.type", ("conv", "pool"))}
        if layer["type"] == "conv":
            layer["size"] = choose(f"{i}.size", (1, 3, 5)[: i + 2])
        layer["inputs"] = choose.subset(f"{i}.inputs", range(i))
        layer["extras"] = choose.subset(f"{i}.extras", ("norm", "dropout"))
        layers.append(layer)
    return layers


class SearcherContract:
    """The promises of `archsmith.core.searcher`. Override `searcher`, and what else differs for yours."""

    learns_from_others = True
    """Whether it learns from results of genotypes that it did not propose, such as known networks that a search begins with;
    False for one that learns nothing at all."""

    def searcher(self) -> Searcher:
        """The configuration under test. Small settings make the tests fast and let it learn within 60 trials."""
        raise NotImplementedError("override searcher() in your test class")

    def space(self) -> Space:
        """A space that it fits."""
        return FunctionSpace(mixed_space)

    def wrong(self) -> Sequence[Callable[[], object]]:
        """Configurations, or starts on spaces, that must be refused with UsageError: one callable for each."""
        return ()

    def reward(self, genotype: Genotype) -> float:
        """The reward of a genotype in these tests; by default an arbitrary number from 0 to 1 of its own."""
        return int(genotype.key[:6], 16) / 16**6

    def metrics(self, genotype: Genotype) -> Mapping[str, float]:
        """The metrics of a genotype's result in these tests; for searchers that read more than the reward."""
        return {}

    def start(self, seed: int = 0) -> LiveSearcher:
        """A live searcher."""
        return self.searcher().start(self.space(), seed)

    # --- asking

    def test_ask_gives_exactly_as_many_as_asked(self) -> None:
        live = self.start()
        for most in (1, 0, 3, 1, 20):  # nothing is told meanwhile: they may all be running
            n = min(most, _capacity(live))
            proposals = live.ask(n)
            assert len(proposals) == n, f"ask({n}) gave {len(proposals)} proposals"
            assert all(isinstance(proposal, Proposal) for proposal in proposals)

    def test_proposals_are_legal(self) -> None:
        space, game = self.space(), _Game(self, self.start())
        game.play(60)
        for genotype in game.proposed:
            decode(space, genotype)
            assert Genotype.from_json(json.loads(genotype.canonical)) == genotype

    def test_asking_goes_on_after_everything_was_told(self) -> None:
        live, number = self.start(), 0
        for _ in range(7):
            n = min(5, _capacity(live))
            assert n > 0, f"after {number} results it has no capacity, and waits for none"
            proposals = live.ask(n)
            assert len(proposals) == n, f"after {number} results, ask({n}) gave {len(proposals)} proposals"
            live.tell([self._trial(number + i, p) for i, p in enumerate(proposals)])
            number += n

    # --- determinism

    def test_the_same_seed_gives_the_same_proposals(self) -> None:
        first, second = (_Game(self, self.start(seed=7)) for _ in range(2))
        first.play(60)
        second.play(60)
        assert first.proposed == second.proposed

    def test_another_seed_gives_other_proposals(self) -> None:
        first, second = (_Game(self, self.start(seed=seed)) for seed in (1, 2))
        first.play(60)
        second.play(60)
        assert first.proposed != second.proposed

    def test_one_configuration_serves_several_runs(self) -> None:
        searcher, space = self.searcher(), self.space()
        alone = _Game(self, searcher.start(space, 3))
        alone.play(40)
        one, other = _Game(self, searcher.start(space, 3)), _Game(self, searcher.start(space, 4))
        for _ in range(40):
            one.play(1)
            other.play(1)
        assert one.proposed == alone.proposed, "a run is changed by another that goes on beside it"

    def test_global_random_state_is_left_alone(self) -> None:
        before = _global_state()
        _Game(self, self.start()).play(60)
        for name, state in _global_state().items():
            assert name not in before or state == before[name], f"the searcher changed {name}"

    # --- telling

    def test_results_come_in_any_order_and_some_never(self) -> None:
        live = self.start()
        proposals = live.ask(min(24, _capacity(live)))
        trials = [self._trial(number, proposal) for number, proposal in enumerate(proposals)]
        random.Random(2).shuffle(trials)
        live.tell(trials[:1])
        live.tell(trials[1:4])
        more = live.ask(min(3, _capacity(live)))
        live.tell([self._trial(len(proposals) + i, proposal) for i, proposal in enumerate(more)][1:2] + trials[4:5])
        live.tell(trials[max(5, len(trials) // 3) :])  # the others never come
        n = min(4, _capacity(live))
        assert len(live.ask(n)) == n

    def test_failed_and_stopped_trials_may_be_told_first(self) -> None:
        live = self.start()
        states = [TrialState.FAILED, TrialState.STOPPED, TrialState.FAILED, TrialState.DONE] * 6
        for number, state in enumerate(states):
            (proposal,) = live.ask(1)
            live.tell([self._trial(number, proposal, state)])
        assert len(live.ask(4)) == 4

    def test_trials_it_never_proposed_may_be_told(self) -> None:
        live, space, rng = self.start(), self.space(), random.Random(5)
        live.tell([self._trial(number, Proposal(sample(space, rng))) for number in range(20)])
        live.tell([])
        assert len(live.ask(4)) == 4

    def test_results_it_never_proposed_are_learned_from(self) -> None:
        """What a search is given first changes what is proposed after."""
        if not self.learns_from_others:
            pytest.skip("this searcher says that it learns nothing from what it did not propose")
        told, alone = self.start(), self.start()
        space, rng = self.space(), random.Random(5)
        told.tell([self._trial(number, Proposal(sample(space, rng))) for number in range(40)])
        games = _Game(self, told), _Game(self, alone)
        for game in games:
            game.play(60)
        assert games[0].proposed != games[1].proposed, "it proposes the same as if it had not been told"

    def test_what_it_shows_is_numbers(self) -> None:
        game, version = _Game(self, self.start()), 0
        for _ in range(60):
            game.play(1)
            assert isinstance(game.live.version, int)
            assert game.live.version >= version, "the version went back"
            version = game.live.version
            for name, value in game.live.diagnostics().items():
                assert isinstance(name, str)
                assert isinstance(value, int | float), f"diagnostic {name!r} is {value!r}, which is no number"
                assert math.isfinite(value), f"diagnostic {name!r} is {value}"

    # --- rewards far from all others

    def test_how_far_a_reward_is_from_all_others_changes_nothing(self) -> None:
        """A penalty of -1e6 and one of -1e100 both say no more than that it is bad: what is learned later stays the same."""
        games = [
            _Game(self, self.start(seed=5), {9: penalty, 20: penalty}) for penalty in (-1e6, -1e30, -1e100, -1e308)
        ]
        for game in games:
            game.play(60)
            assert game.proposed == games[0].proposed, "a larger penalty led to other proposals"

    def test_any_finite_reward_is_survived(self) -> None:
        """Huge and tiny rewards at any moment: it goes on, and what it shows and keeps stays finite."""
        huge = (1e308, -1e308, 1e38, -1e100, 5e-324, -5e-324, 1e16, -0.0, 1.7e308, -1.7e308)
        for offset in (0, 3, 8):
            rewards = {offset + place * step: reward for step in (1, 3) for place, reward in enumerate(huge)}
            game = _Game(self, self.start(seed=6), rewards)
            for _ in range(30):
                game.play(2)
                assert all(map(math.isfinite, game.live.diagnostics().values())), "what it shows is not finite"
            _check_finite(game.live.state_dict(), "state")
            for genotype in game.proposed:
                decode(self.space(), genotype)

    # --- state

    def test_state_is_plain_data(self) -> None:
        game = _Game(self, self.start())
        for _ in range(30):
            _check_plain(game.live.state_dict(), "state")
            game.play(2)

    def test_a_restored_searcher_goes_on_identically(self) -> None:
        for cut in range(0, 60, 4):  # at any moment: before the first ask, between results, after an update
            game = _Game(self, self.start(seed=11))
            game.play(cut)
            state = game.live.state_dict()
            saved = through_a_file(state)
            restored = self.start(seed=11)
            restored.load_state_dict(through_a_file(saved))
            twin = game.twin(restored)
            game.play(30)
            twin.play(30)
            assert game.proposed == twin.proposed, f"restored after {cut} calls, it proposes something else"
            assert game.live.version == twin.live.version
            assert dict(game.live.diagnostics()) == dict(twin.live.diagnostics())
            assert _equal(through_a_file(state), saved), "the state changed after it was taken"
            assert _equal(through_a_file(game.live.state_dict()), through_a_file(twin.live.state_dict()))

    # --- configuration

    def test_the_configuration_is_a_frozen_dataclass_that_survives_json(self) -> None:
        searcher = self.searcher()
        assert dataclasses.is_dataclass(searcher), "a searcher's configuration is a dataclass"
        assert type(searcher).__dataclass_params__.frozen, "a searcher's configuration is frozen"
        from archsmith import searchers

        types = {f"searchers.{name}": getattr(searchers, name) for name in searchers.__all__}
        types[to_config(searcher)["type"]] = type(searcher)
        record = json.loads(json.dumps(to_config(searcher)))
        assert from_config(record, types.__getitem__) == searcher

    def test_wrong_configurations_are_refused(self) -> None:
        for make in self.wrong():
            with pytest.raises(UsageError):
                make()

    def _trial(
        self, number: int, proposal: Proposal, state: TrialState = TrialState.DONE, reward: float | None = None
    ) -> Trial:
        failure = Failure("diverged", "the loss became NaN") if state is TrialState.FAILED else None
        done = state is TrialState.DONE
        return Trial(
            number,
            proposal.genotype,
            proposal.parent,
            state,
            reward=(self.reward(proposal.genotype) if reward is None else reward) if done else None,
            result=None
            if state is TrialState.STOPPED
            else Result(self.metrics(proposal.genotype) if done else {}, failure=failure),
            attempts=1,
        )


class _Game:
    """An asynchronous search played with a searcher: asks and tells in an order that is always the same."""

    def __init__(
        self, contract: SearcherContract, live: LiveSearcher, rewards: Mapping[int, float] | None = None
    ) -> None:
        self.live = live
        self._rewards = rewards or {}  # of some trials, in place of the contract's
        self.proposed: list[Genotype] = []
        self._contract = contract
        self._running: list[tuple[int, Proposal]] = []
        self._rng = random.Random(0)

    def twin(self, live: LiveSearcher) -> _Game:
        """The same game at the same point, to be played on with another live searcher."""
        twin = _Game(self._contract, live)
        twin.proposed, twin._running = list(self.proposed), list(self._running)
        twin._rng = copy.deepcopy(self._rng)
        return twin

    def play(self, calls: int) -> None:
        for _ in range(calls):
            if len(self._running) < 6 and self._rng.random() < 0.5:
                n = min(self._rng.choice((1, 1, 2, 3)), _capacity(self.live))
                proposals = self.live.ask(n)
                assert len(proposals) == n, f"ask({n}) gave {len(proposals)} proposals"
                for proposal in proposals:
                    self._running.append((len(self.proposed), proposal))
                    self.proposed.append(proposal.genotype)
                continue
            self._rng.shuffle(self._running)
            ended = [self._running.pop() for _ in range(min(len(self._running), self._rng.choice((1, 1, 2, 4))))]
            weights = {TrialState.DONE: 8, TrialState.FAILED: 1, TrialState.STOPPED: 1}
            states = self._rng.choices(list(weights), list(weights.values()), k=len(ended))
            lost = self._rng.random() < 0.05
            if ended and not lost:
                told = zip(ended, states, strict=True)
                self.live.tell([self._contract._trial(n, p, s, self._rewards.get(n)) for (n, p), s in told])


def _capacity(live: LiveSearcher) -> int:
    """How many proposals it may be asked for now."""
    return live.capacity() if isinstance(live, WaitsForResults) else sys.maxsize


# --- what a state may be made of --------------------------------------------------------------------------------------


def _check_plain(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            assert type(key) is str, f"{where} has the key {key!r}, which is not text"
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) is list:
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif isinstance(value, np.ndarray):
        assert value.dtype.kind in "biuf", f"{where} is an array of {value.dtype}, and must be one of plain numbers"
    else:
        assert value is None or type(value) in (str, int, float, bool), f"{where} is a {type(value).__name__}"


def _check_finite(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, f"{where}[{index}]")
    elif isinstance(value, np.ndarray) or type(value) is float:
        assert np.isfinite(value).all(), f"{where} is not finite"


def through_a_file(state: State) -> State:
    """The state after it was written as JSON and safetensors, and read again."""
    from safetensors.numpy import load, save

    arrays: dict[str, Any] = {}

    def out(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {"map": {key: out(item) for key, item in value.items()}}
        if isinstance(value, list):
            return {"list": [out(item) for item in value]}
        if isinstance(value, np.ndarray):
            arrays[str(len(arrays))] = np.ascontiguousarray(value).reshape(value.shape)
            return {"array": str(len(arrays) - 1)}
        return {"value": value}

    def back(value: Any) -> Any:
        ((what, item),) = value.items()
        if what == "map":
            return {key: back(v) for key, v in item.items()}
        if what == "list":
            return [back(v) for v in item]
        return loaded[item] if what == "array" else item

    text = json.dumps(out(state))
    loaded = load(save(arrays)) if arrays else {}
    result: State = back(json.loads(text))
    return result


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and bool(a == b)


def _global_state() -> dict[str, Any]:
    state: dict[str, Any] = {"random's state": random.getstate()}
    kind, keys, *rest = np.random.get_state()
    state["numpy's random state"] = (kind, np.asarray(keys).tobytes(), *rest)
    if (torch := sys.modules.get("torch")) is not None:
        state["torch's random state"] = torch.get_rng_state().numpy().tobytes()
        state["torch's number of threads"] = torch.get_num_threads()
        state["torch's default dtype"] = torch.get_default_dtype()
        state["torch's gradient mode"] = torch.is_grad_enabled()
    return state
