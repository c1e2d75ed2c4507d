"""How a time budget is divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsmith.automl.plan import (
    DELIVERED_SHARE,
    ENOUGH_PASSES,
    LEAST_PASSES,
    LEAST_TRIALS,
    MOST_TRIALS,
    SHORTEST_TRIAL,
    TRAINING_SHARE,
    TRIAL_SECONDS,
    TimePlan,
    speed_needed,
    time_plan,
)
from archsmith.core.errors import UsageError

MINUTES = 60.0


@given(
    total=st.floats(120, 24 * 3600),
    spent=st.floats(0, 0.2),
    workers=st.integers(1, 64),
    testing=st.floats(0, 0.1),
    control=st.booleans(),
)
def test_the_stages_fill_the_time_and_the_delivered_network_gets_its_share(
    total: float, spent: float, workers: int, testing: float, control: bool
) -> None:
    plan = time_plan(total, spent=spent * total, workers=workers, testing=testing * total, control=control)
    assert sum(seconds for _, seconds in plan.rows) == pytest.approx(total, rel=1e-6)
    assert all(seconds >= 0 for _, seconds in plan.rows)
    begun = plan.trial if plan.trials == 0 else 0.0  # the first seconds of what is delivered
    assert plan.final + begun >= DELIVERED_SHARE * total * 0.999
    assert plan.trials == 0 or plan.trials * plan.trial / workers * (2 if control else 1) <= plan.search
    assert plan.trials <= MOST_TRIALS
    assert plan.trials == 0 or TRIAL_SECONDS[0] <= plan.trial
    assert plan.trial <= TRIAL_SECONDS[1] or plan.trials > MOST_TRIALS - 2 * workers


@given(total=st.floats(15, 36_000), spent=st.floats(0, 1), workers=st.integers(1, 64), testing=st.floats(0, 1))
def test_a_plan_fits_or_says_how_long_it_would_take(total: float, spent: float, workers: int, testing: float) -> None:
    def plan_for(seconds: float) -> TimePlan:
        return time_plan(seconds, spent=spent * total, workers=workers, testing=testing * total)

    seconds = total
    try:
        plan = plan_for(seconds)
    except UsageError as error:
        seconds = 60 * int(str(error).rpartition("give ")[2].partition("m or more")[0])
        plan = plan_for(seconds)
    assert sum(stage for _, stage in plan.rows) == pytest.approx(seconds, rel=1e-6)


@given(
    total=st.floats(60, 24 * 3600),
    spent=st.floats(0, 0.3),
    workers=st.integers(1, 64),
    one_pass=st.floats(0, 500),
    probes=st.lists(st.floats(0.1, 100), min_size=1, max_size=40),
    control=st.booleans(),
)
def test_a_plan_with_probes_fills_the_time_too(
    total: float, spent: float, workers: int, one_pass: float, probes: list[float], control: bool
) -> None:
    plan = time_plan(
        total, probes=sorted(probes), spent=spent * total, workers=workers, one_pass=one_pass, control=control
    )
    assert sum(seconds for _, seconds in plan.rows) == pytest.approx(total, rel=1e-6)
    assert all(seconds >= 0 for _, seconds in plan.rows)
    assert plan.final + (plan.search if plan.trials == 0 else 0.0) >= DELIVERED_SHARE * total * 0.999
    assert plan.trials in (0, *range(2, len(probes) + 1))
    assert plan.trials == 0 or plan.search < 0.15 * total


def test_most_of_ten_minutes_goes_into_fine_tuning() -> None:
    plan = time_plan(10 * MINUTES, probes=[1, 2, 4, 8, 16, 32], spent=20, workers=2, one_pass=33)
    assert plan.trials == 5
    assert plan.choosing == 0
    assert plan.faster > 30
    assert plan.final > 300


def test_ten_minutes_on_two_cores() -> None:
    plan = time_plan(10 * MINUTES, spent=15, workers=2)
    assert plan.baseline == 100
    assert plan.trials >= 8
    assert plan.final > 300


def test_children_see_most_pictures_once_or_there_is_no_search() -> None:
    plan = time_plan(10 * MINUTES, spent=15, workers=2, one_pass=25)
    assert plan.trial == LEAST_PASSES * 25
    assert plan.trials >= LEAST_TRIALS
    without = time_plan(10 * MINUTES, spent=15, workers=2, one_pass=200)
    assert without.trials == 0
    assert without.final > plan.final


def test_few_pictures_are_searched_in_two_minutes() -> None:
    plan = time_plan(2 * MINUTES, spent=5, workers=2, one_pass=0.7)
    assert plan.trial == ENOUGH_PASSES * 0.7
    assert plan.trials >= LEAST_TRIALS
    assert time_plan(10 * MINUTES, spent=5, workers=2, one_pass=0.01).trial == SHORTEST_TRIAL


def test_a_network_must_see_all_pictures_some_times() -> None:
    assert speed_needed(500, 10_000, 15) == pytest.approx(15 * 10_000 / (TRAINING_SHARE * 500))
    assert speed_needed(0, 100, 12) == 12 * 100


def test_the_baseline_gets_what_was_asked() -> None:
    assert time_plan(10 * MINUTES, spent=10, workers=2, baseline=200).baseline == 200
    with pytest.raises(UsageError, match="baseline of 500 seconds leaves less than"):
        time_plan(10 * MINUTES, spent=10, workers=2, baseline=500)


def test_too_little_time_is_refused() -> None:
    with pytest.raises(UsageError, match=r"at least 15 seconds, got 5"):
        time_plan(5, spent=1, workers=2)


def test_a_short_time_is_spent_without_a_search() -> None:
    plan = time_plan(40, spent=10, workers=2)
    assert plan.trials == 0
    assert plan.search == plan.trial
    assert plan.choosing == 0
    assert plan.final > 0
