"""Optuna's samplers: the contract of all searchers for each, and what the adapter adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import optuna
import pytest

import archsmith as smith
from archsmith._compare.contest import searcher_of
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.space import FunctionSpace
from archsmith.core.trial import Failure, Proposal, Result, Trial, TrialState
from archsmith.recipes import get_recipe
from archsmith.searchers import Optuna, Random
from archsmith.searchers.optuna import SAMPLERS
from archsmith.spaces import GrownGraph
from archsmith.testing import SearcherContract
from archsmith.testing.searcher import mixed_space, through_a_file
from archsmith.training import Landscape


class TestTPE(SearcherContract):
    def searcher(self):
        return Optuna("tpe", n_startup_trials=4)

    def wrong(self):
        return (
            lambda: Optuna("random"),
            lambda: Optuna("tpe", n_startup_trials=0),
            lambda: Optuna("tpe", n_startup_trials=True),
            lambda: Optuna("tpe", population_size=10),
            lambda: Optuna("gp", population_size=10),
            lambda: Optuna("nsga2", n_startup_trials=10),
            lambda: Optuna("nsga2", population_size=1),
            lambda: Optuna("cmaes", population_size=2.5),
            lambda: Optuna().start(FunctionSpace(lambda choose: []), 0),
            lambda: Optuna().start(GrownGraph(), 0),
        )


class TestTPEOnAScript(TestTPE):
    def space(self):
        return FunctionSpace(six)


class TestNSGA2(SearcherContract):
    def searcher(self):
        return Optuna("nsga2", population_size=4)


class TestNSGA2OfTwoObjectives(SearcherContract):
    def searcher(self):
        return Optuna("nsga2", population_size=4, objectives=("reward", "latency"))

    def metrics(self, genotype):
        return {"latency": int(genotype.key[6:12], 16) / 16**6}

    def wrong(self):
        return (
            lambda: Optuna("gp", objectives=("reward", "latency")),
            lambda: Optuna("cmaes", objectives=("reward", "latency")),
            lambda: Optuna("nsga2", objectives=("reward",)),
            lambda: Optuna("nsga2", objectives=("reward", "nobody_knows")),
        )


class TestTPEOfTwoObjectives(TestNSGA2OfTwoObjectives):
    def searcher(self):
        return Optuna("tpe", n_startup_trials=4, objectives=("reward", "latency"))


class TestCMAES(SearcherContract):
    def searcher(self):
        return Optuna("cmaes", population_size=4)


class TestGP(SearcherContract):
    learns_from_others = False  # not yet, as long as it starts up

    def searcher(self):
        return Optuna("gp", n_startup_trials=100)  # its fits, tenths of a second each, have tests of their own below


def six(choose: Any) -> list[Any]:
    return [choose(f"{i}.op", ("a", "b", "c", "d")) for i in range(6)]


def numbers(choose: Any) -> list[Any]:
    return [choose(f"{i}.filters", (8, 16, 24, 36, 48, 64)) for i in range(4)]


def done(number: int, proposal: Proposal, reward: float) -> Trial:
    return Trial(number, proposal.genotype, proposal.parent, TrialState.DONE, float(reward), Result())


def play(live: Any, reward: Any, trials: int, first: int = 0) -> list[Any]:
    told = []
    for number in range(first, first + trials):
        (proposal,) = live.ask(1)
        told.append((proposal.genotype, reward(proposal.genotype)))
        live.tell([done(number, proposal, told[-1][1])])
    return told


def near(genotype: Any) -> float:
    """How near every width is to 48."""
    return -sum(abs(width - 48) for width in genotype.answers.values())


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 60), ("nsga2", 200), ("cmaes", 60), ("gp", 16)])
def test_it_finds_more_than_random_search(sampler: Any, trials: int) -> None:
    def best(searcher: Any) -> float:
        return sum(
            max(r for _, r in play(searcher.start(FunctionSpace(numbers), seed), near, trials)) for seed in range(3)
        )

    assert best(Optuna(sampler)) > best(Random())


def test_a_gaussian_process_goes_on_identically_once_it_is_at_work() -> None:
    space = FunctionSpace(mixed_space)
    live = Optuna("gp", n_startup_trials=5).start(space, 3)
    play(live, lambda genotype: len(genotype.canonical) % 7, 8)
    waiting = live.ask(2)
    again = Optuna("gp", n_startup_trials=5).start(space, 3)
    again.load_state_dict(through_a_file(live.state_dict()))
    assert [p.genotype for p in live.ask(2)] == [p.genotype for p in again.ask(2)]
    for one in (live, again):
        one.tell([done(8, waiting[1], 1.0)])
    assert live.ask(1)[0].genotype == again.ask(1)[0].genotype


def found_by_tpe() -> list[str]:
    live = Optuna(n_startup_trials=4).start(FunctionSpace(mixed_space), 1)
    return [genotype.key for genotype, _ in play(live, lambda genotype: len(genotype.canonical) % 11, 30)]


def test_another_process_proposes_the_same() -> None:
    """Optuna gathers the parameters of groups in sets, whose order changes from process to process."""
    folder = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-c", "import json, test_optuna; print(json.dumps(test_optuna.found_by_tpe()))"]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True, text=True)
    assert json.loads(ended.stdout) == found_by_tpe()


def test_a_name_may_change_its_options_with_the_answers_before_it() -> None:
    def dynamic(choose: Any) -> list[Any]:
        deep = choose("deep", (False, True))
        return [
            deep,
            choose("width", (1, 2, 3, 4) if deep else ("wide", "narrow")),
            choose.subset("to", range(1 + deep)),
        ]

    for sampler in ("tpe", "nsga2", "cmaes"):
        live = Optuna(sampler).start(FunctionSpace(dynamic), 0)
        told = play(live, lambda genotype: 4.0 * genotype.answers["deep"] + len(genotype.answers["to"]), 60)
        assert {type(genotype.answers["width"]) for genotype, _ in told} == {int, str}
        assert max(reward for _, reward in told) == 6.0


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.STOPPED])
def test_what_fails_or_is_stopped_is_not_proposed_for_ever(state: TrialState) -> None:
    """The best by what was seen lies where every child fails: a searcher that is not told would stay there."""
    live = Optuna("gp", n_startup_trials=6).start(FunctionSpace(numbers), 0)
    lost = []
    for number in range(18):
        (proposal,) = live.ask(1)
        wide = sum(width > 40 for width in proposal.genotype.answers.values()) >= 2
        failure = Failure("memory", "too wide") if state is TrialState.FAILED else None
        trial = Trial(number, proposal.genotype, None, state, None, Result(failure=failure))
        live.tell([trial if wide else done(number, proposal, sum(proposal.genotype.answers.values()))])
        lost += [proposal.genotype] if wide and number >= 6 else []
    assert len(set(lost)) == len(lost), "what failed was proposed again"


def test_what_says_nothing_of_a_child_is_told_as_nothing() -> None:
    live = Optuna().start(FunctionSpace(six), 0)
    proposals = live.ask(6)

    def ended(i: int, state: TrialState, result: Result | None) -> Trial:
        return Trial(i, proposals[i].genotype, None, state, None, result)

    diverged = Result(failure=Failure("diverged", "the loss became NaN"))
    live.tell([ended(0, TrialState.FAILED, diverged)])  # no reward was seen: there is no worst
    live.tell([done(1, proposals[1], 0.5), done(2, proposals[2], 0.25)])
    live.tell([ended(3, TrialState.FAILED, Result(failure=Failure("worker", "its process died")))])
    live.tell([ended(4, TrialState.STOPPED, None)])
    live.tell([ended(5, TrialState.FAILED, diverged)])
    told = [trial["values"] for trial in live.state_dict()["trials"]]
    assert told == [None, [0.5], [0.25], None, None, [0.25]]


def test_optuna_is_not_heard_and_its_settings_are_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    for sampler in SAMPLERS:
        live = Optuna(sampler).start(FunctionSpace(mixed_space), 0)
        play(live, lambda genotype: 1.0, 12)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_without_optuna_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'archsmith\[optuna\]'"):
        Optuna().start(FunctionSpace(six), 0)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_run_goes_on_as_if_it_had_not_stopped(sampler: Any, tmp_path: Any) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    parts = {"searcher": Optuna(sampler), "seed": 3, "store": store}
    whole = smith.search(numbers, Landscape(), trials=60, name="whole", **parts)
    begun = smith.search(numbers, Landscape(), trials=25, name="begun", **parts)
    ended = begun.resume(trials=60, space=numbers)
    assert [t.genotype for t in ended.trials()] == [t.genotype for t in whole.trials()]


def test_compare_knows_the_samplers_by_name() -> None:
    recipe = get_recipe("nasbench201")
    for sampler in SAMPLERS:
        assert searcher_of(sampler, recipe) == Optuna(sampler)
    with pytest.raises(UnknownName, match="'tpe'"):
        searcher_of("tpes", recipe)


def test_states_of_one_value_are_read() -> None:
    """Of versions that knew no objectives."""
    live = Optuna("nsga2", population_size=4).start(FunctionSpace(mixed_space), 0)
    for number in range(6):
        (proposal,) = live.ask(1)
        live.tell(
            [Trial(number, proposal.genotype, None, TrialState.DONE, reward=number / 6, result=Result(), attempts=1)]
        )
    state = live.state_dict()
    earlier = {**state, "worst": state["worst"][0]}
    earlier["trials"] = [
        {k: v for k, v in row.items() if k != "values"} | {"value": (row["values"] or [None])[0]}
        for row in state["trials"]
    ]
    again = Optuna("nsga2", population_size=4).start(FunctionSpace(mixed_space), 0)
    again.load_state_dict(earlier)
    assert again.ask(3) == live.ask(3)
    assert again.state_dict() == live.state_dict()
