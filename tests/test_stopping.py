"""Rules that stop children early: the papers' algorithms to the letter, and what they refuse."""

from __future__ import annotations

import math
import statistics
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsmith.core.config import from_config, to_config
from archsmith.core.errors import UsageError
from archsmith.core.finish import PERPLEXITY
from archsmith.core.genotype import Genotype
from archsmith.core.stopping import Verdict
from archsmith.core.trial import Failure, Result, Trial, TrialState
from archsmith.stopping import ASHA, Median
from archsmith.testing import RuleContract
from archsmith.testing.rule import SCORE


class TestASHA(RuleContract):
    def rule(self) -> ASHA:
        return ASHA()


class TestMedian(RuleContract):
    def rule(self) -> Median:
        return Median()


def trial(number: int, values: list[float], state: TrialState = TrialState.PAUSED, **result: Any) -> Trial:
    curve = [{"epoch": epoch, "score": value} for epoch, value in enumerate(values, 1)]
    return Trial(number, Genotype({"name": "none"}, {}), state=state, result=Result(curve=curve, **result))


# --- ASHA -------------------------------------------------------------------------------------------------------------


class Algorithm2:
    """Algorithm 2 of the paper, line by line: rungs are sets, and `get_job` looks through them from the top."""

    def __init__(self, eta: int, rungs: int) -> None:
        self.eta = eta
        self.rungs: list[dict[int, float]] = [{} for _ in range(rungs + 1)]
        self.promoted: list[set[int]] = [set() for _ in range(rungs + 1)]

    def get_job(self) -> tuple[int, int] | None:
        for k in reversed(range(len(self.rungs) - 1)):
            ranked = sorted(self.rungs[k], key=lambda number: (-self.rungs[k][number], number))
            candidates = ranked[: len(self.rungs[k]) // self.eta]
            promotable = [number for number in candidates if number not in self.promoted[k]]
            if promotable:
                self.promoted[k].add(promotable[0])
                return promotable[0], k + 1
        return None


@given(st.integers(2, 4), st.integers(1, 6), st.integers(0, 2**32))
def test_asha_promotes_what_the_paper_promotes(eta: int, workers: int, seed: int) -> None:
    rng, minimum, epochs = Random(seed), Random(seed).choice([1, 2]), 30
    live = ASHA(eta=eta, minimum=minimum).start(SCORE, epochs)
    rungs = ASHA(eta=eta, minimum=minimum).rungs(epochs)
    paper = Algorithm2(eta, len(rungs))
    good = [rng.choice([0.1, 0.2, 0.3, rng.random()]) for _ in range(60)]  # ties, too
    running: list[tuple[int, int]] = []
    begun = 0
    while begun < 60 or running:
        while len(running) < workers and begun < 60:
            job = paper.get_job()
            assert live.promoted() == (None if job is None else job[0])
            if job is None:
                job, begun = (begun, 0), begun + 1
            assert live.until(job[0]) == (rungs[job[1]] if job[1] < len(rungs) else None)
            running.append(job)
        for _ in range(rng.randint(1, len(running))):  # several may end before the next begins
            number, k = running.pop(rng.randrange(len(running)))
            done = k == len(rungs)
            length = epochs if done else rungs[k]
            values = [good[number] - abs(5 - number - e) / 1000 for e in range(length)]
            paper.rungs[k][number] = values[-1]
            live.told(trial(number, values, TrialState.DONE if done else TrialState.PAUSED))


@pytest.mark.parametrize(
    ("rule", "epochs", "rungs"),
    [
        (ASHA(), 9, (1, 3)),
        (ASHA(), 10, (1, 3, 9)),
        (ASHA(eta=4, minimum=2), 40, (2, 8, 32)),
        (ASHA(minimum=5), 6, (5,)),
    ],
)
def test_rungs_are_powers_of_eta_below_a_whole_training(rule: ASHA, epochs: int, rungs: tuple[int, ...]) -> None:
    assert rule.rungs(epochs) == rungs


def test_what_diverged_counts_as_the_worst_and_what_failed_otherwise_not_at_all() -> None:
    live = ASHA().start(SCORE, 9)
    live.told(trial(0, [0.1]))
    live.told(trial(1, [], TrialState.FAILED, failure=Failure("worker", "it died")))
    live.told(trial(2, [], TrialState.FAILED, failure=Failure("diverged", "NaN")))
    assert live.promoted() is None  # two of a rung are no three
    live.told(trial(3, [math.nan], TrialState.PAUSED))
    assert live.promoted() == 0
    assert live.until(0) == 3
    assert live.promoted() is None


def test_a_copy_of_an_earlier_child_is_no_training() -> None:
    live = ASHA().start(SCORE, 9)
    for number in range(6):
        live.told(trial(number, [0.5], TrialState.STOPPED, copied_from=0 if number else None))
    assert live.promoted() is None


def test_a_child_that_reports_every_other_epoch_is_in_the_rung_that_it_passed() -> None:
    live = ASHA().start(SCORE, 9)
    for number in range(3):
        curve = [{"epoch": 2, "score": number / 10}]
        live.told(Trial(number, Genotype({}, {}), state=TrialState.PAUSED, result=Result(curve=curve)))
    assert live.promoted() == 2


def test_of_perplexities_the_lowest_goes_on() -> None:
    live = ASHA().start(PERPLEXITY, 9)
    for number, value in enumerate((90.0, 80.0, math.inf)):
        result = Result(curve=[{"epoch": 1, "perplexity": value}])
        live.told(Trial(number, Genotype({}, {}), state=TrialState.PAUSED, result=result))
    assert live.promoted() == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eta": 1}, "eta of ASHA must be a whole number of at least 2"),
        ({"eta": 2.5}, "eta of ASHA"),
        ({"minimum": 0}, "minimum of ASHA"),
        ({"maximum": "9"}, "maximum of ASHA"),
        ({"metric": 3}, "name of a metric"),
    ],
)
def test_settings_of_asha_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ASHA(**settings)


def test_asha_needs_to_know_how_long_a_training_is_and_room_below_it() -> None:
    with pytest.raises(UsageError, match="maximum="):
        ASHA().start(SCORE, None)
    assert ASHA(maximum=9).start(SCORE, None).until(0) == 1
    with pytest.raises(UsageError, match="leave maximum out"):
        ASHA(maximum=9).start(SCORE, 8)
    with pytest.raises(UsageError, match="minimum=9"):
        ASHA(minimum=9).start(SCORE, 9)
    with pytest.raises(UsageError, match="no epochs"):
        ASHA(maximum=9).start(None, 0)


# --- the median -------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=6), max_size=12), st.lists(st.floats(-5, 5), max_size=6)
)
def test_the_median_rule_is_the_papers(curves: list[list[float]], own: list[float]) -> None:
    live = Median(grace=1, trials=3).start(SCORE, 6)
    for number, values in enumerate(curves):
        live.told(trial(number, values, TrialState.STOPPED if number % 2 else TrialState.DONE))
    for epoch in range(1, len(own) + 1):
        averages = [sum(values[:epoch]) / epoch for values in curves if len(values) >= epoch]
        worse = len(averages) >= 3 and 1 < epoch < 6 and max(own[:epoch]) < statistics.median(averages)
        verdict = live.reported(99, epoch, {"score": own[epoch - 1]})
        assert (verdict is Verdict.STOP) == worse


def test_a_child_at_its_last_epoch_is_not_stopped() -> None:
    live = Median(trials=1).start(SCORE, 3)
    live.told(trial(0, [0.5] * 3, TrialState.DONE))
    verdicts = [live.reported(1, epoch, {"score": 0.1}) for epoch in (1, 2, 3)]
    assert verdicts == [Verdict.GO_ON, Verdict.STOP, Verdict.GO_ON]


def test_a_child_that_begins_anew_has_shown_nothing_yet() -> None:
    live = Median(trials=1).start(SCORE, 9)
    live.told(trial(0, [0.5] * 9, TrialState.DONE))
    assert live.reported(1, 1, {"score": 0.9}) is Verdict.GO_ON
    assert live.reported(1, 2, {"score": 0.1}) is Verdict.GO_ON  # its best counts
    assert live.reported(1, 1, {"score": 0.1}) is Verdict.GO_ON  # its worker died, and it begins again
    assert live.reported(1, 2, {"score": 0.1}) is Verdict.STOP


def test_what_is_not_a_number_is_the_worst() -> None:
    live = Median(trials=1, grace=0).start(SCORE, 9)
    live.told(trial(0, [0.5] * 9, TrialState.DONE))
    assert live.reported(1, 1, {"score": math.nan}) is Verdict.STOP
    live.told(trial(1, [math.nan], TrialState.STOPPED))
    live.told(trial(2, [math.nan], TrialState.STOPPED))
    assert live.reported(3, 1, {"score": -1e9}) is Verdict.GO_ON  # the median is the worst there is


@pytest.mark.parametrize("settings", [{"grace": -1}, {"trials": 0}, {"grace": 1.5}, {"trials": True}])
def test_settings_of_the_median_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="of Median must be"):
        Median(**settings)


def test_a_grace_of_the_whole_training_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing would be saved"):
        Median(grace=8).start(SCORE, 9)
    assert Median(grace=7).start(SCORE, 9)


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [ASHA(eta=4, metric="f1"), Median(grace=3, higher_is_better=False)])
def test_a_rule_comes_back_from_its_record(rule: Any) -> None:
    from archsmith._search.run import resolve

    assert from_config(to_config(rule), resolve) == rule


@pytest.mark.parametrize("rule", [ASHA, Median])
def test_another_metric_can_be_named(rule: Any) -> None:
    live = rule(metric="f1").start(PERPLEXITY, 9)
    live.reported(0, 1, {"f1": 0.5})
    with pytest.raises(UsageError, match="'f1' of each epoch"):
        live.reported(0, 1, {"perplexity": 80.0})
    with pytest.raises(UsageError, match="'value'"):
        rule().start(None, 9).reported(0, 1, {"accuracy": 0.5})
