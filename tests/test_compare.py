"""Comparing searches: the figure's numbers exactly, statistics that claim no more than they may, and the page."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import archsmith as smith
from archsmith._compare.difference import NO_DIFFERENCE, difference, permutation_p
from archsmith._compare.plots import line
from archsmith._compare.searched import best_so_far, checkpoints, read, stepped, top_k_unique_means
from archsmith._search.run import Run
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.finish import ACCURACY, PERPLEXITY
from archsmith.core.space import sample
from archsmith.core.trial import Cost, Failure, Proposal, Result, TrialState
from archsmith.store import MemoryStore
from test_cli import archsmith
from test_report import CONFIG, Chain, Page

RANDOM = {"searcher": {"type": "searchers.Random"}}
NAN = math.nan
HOSTILE = "<img src=x onerror=alert(2)><script>\"'&`$_{$"

values_of = st.lists(st.floats(1, 1000) | st.just(NAN), min_size=0, max_size=40)


# --- curves -----------------------------------------------------------------------------------------------------------


def test_the_means_of_the_best_different_models_by_hand() -> None:
    values = np.array([5.0, 3.0, NAN, 3.5, 1.0, 9.0])
    keys = ["a", "b", "c", "b", "d", "a"]  # a: 5 and 9, b: 3 and 3.5, c failed
    means = top_k_unique_means(values, keys, (1, 2, 3), (1, 2, 4, 6), higher_is_better=False)
    assert means[0].tolist() == [5.0, 3.0, 3.25, 1.0]
    np.testing.assert_allclose(means[1], [NAN, 4.0, (3.25 + 5) / 2, (1 + 3.25) / 2])
    np.testing.assert_allclose(means[2], [NAN, NAN, NAN, (1 + 3.25 + 7) / 3])
    highest = top_k_unique_means(values, keys, (1,), (6,), higher_is_better=True)
    assert highest.tolist() == [[7.0]]  # the mean of 5 and 9: repeating a model does not pick its luckiest training


@given(values_of, st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_the_means_of_the_best_equal_those_made_anew_at_every_n(
    values: list[float], k: int, higher: bool, seed: int
) -> None:
    rng = random.Random(seed)
    keys = [rng.choice("abcdefgh") for _ in values]
    at = list(range(1, len(values) + 1))
    got = top_k_unique_means(np.array(values), keys, (k,), at, higher_is_better=higher)[0]
    for n in at:
        models = {key: [v for v, q in zip(values[:n], keys[:n], strict=True) if q == key and v == v] for key in keys}
        means = sorted((fmean(v) for v in models.values() if v), reverse=higher)
        assert got[n - 1] == pytest.approx(fmean(means[:k]) if len(means) >= k else NAN, nan_ok=True)


@given(values_of, st.booleans())
def test_the_best_so_far_only_improves_and_is_one_of_the_values(values: list[float], higher: bool) -> None:
    best = best_so_far(np.array(values), higher_is_better=higher)
    for n in range(len(values)):
        there = [v for v in values[: n + 1] if v == v]
        assert best[n] == pytest.approx((max if higher else min)(there) if there else NAN, nan_ok=True)


def test_means_are_taken_every_400_models_as_in_the_paper_and_more_often_in_short_runs() -> None:
    assert checkpoints(20_800) == list(range(400, 20_801, 400))
    assert checkpoints(20_900)[-2:] == [20_800, 20_900]
    assert checkpoints(30) == list(range(1, 31))
    assert checkpoints(0) == []


def test_a_curve_on_the_clock_holds_its_last_value() -> None:
    x, y = np.array([1.0, 2.0, 2.0, 5.0]), np.array([10.0, 20.0, 30.0, 40.0])
    np.testing.assert_allclose(stepped(x, y, np.array([0.5, 1, 1.9, 2, 4.9, 9])), [NAN, 10, 10, 30, 30, 40])


# --- statistics -------------------------------------------------------------------------------------------------------


def test_the_permutation_test_is_exact_for_few_runs() -> None:
    assert permutation_p([4, 5, 6], [1, 2, 3]) == pytest.approx(2 / 20)
    assert permutation_p([5, 6, 7, 8], [1, 2, 3, 4]) == pytest.approx(2 / 70)
    assert permutation_p([1, 2], [1, 2]) == 1.0


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=4),
    st.lists(st.integers(0, 9), min_size=2, max_size=4),
)
def test_the_permutation_test_counts_every_deal(a: list[int], b: list[int]) -> None:
    together, seen = a + b, abs(fmean(a) - fmean(b))
    deals = list(combinations(range(len(together)), len(a)))
    as_far = 0
    for chosen in deals:
        mine = [together[i] for i in chosen]
        rest = [together[i] for i in range(len(together)) if i not in chosen]
        as_far += abs(fmean(mine) - fmean(rest)) >= seen - 1e-9
    assert permutation_p(a, b) == pytest.approx(as_far / len(deals))


def test_many_runs_are_dealt_at_random_and_always_alike() -> None:
    rng = random.Random(1)
    a, b = [rng.gauss(0.8, 1) for _ in range(20)], [rng.gauss(0, 1) for _ in range(20)]
    reference = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x) - np.mean(y), n_resamples=20_000, rng=np.random.default_rng(0)
    ).pvalue
    assert permutation_p(a, b) == pytest.approx(reference, abs=0.01)
    assert permutation_p(a, b) == permutation_p(a, b)


@settings(deadline=None)  # scipy is slow at first
@given(
    st.lists(st.floats(50, 150), min_size=2, max_size=9, unique=True),
    st.lists(st.floats(50, 150), min_size=2, max_size=9, unique=True),
)
def test_the_interval_is_welchs(a: list[float], b: list[float]) -> None:
    if np.std(a) + np.std(b) < 1e-6:
        return
    found = difference(a, b, ACCURACY, group="a", baseline="b", outcome="best")
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert found.interval == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)
    assert found.superiority == pytest.approx(
        stats.mannwhitneyu(a, b, method="asymptotic").statistic / (len(a) * len(b))
    )


def test_lower_perplexity_is_an_improvement_and_is_claimed_only_where_it_is_shown() -> None:
    found = difference(
        [100.0, 101, 99, 100, 102], [110.0, 112, 109, 111, 110], PERPLEXITY, group="A", baseline="B", outcome="best"
    )
    assert found.verdict == "better"
    assert found.improvement == pytest.approx(10.0)
    assert found.superiority == 1.0
    assert found.p == pytest.approx(2 / 252)
    assert "A is better than B (improvement +10.00, 95 % interval +8." in found.sentence
    worse = difference([110.0, 112, 109, 111], [100.0, 101, 99, 100], PERPLEXITY, group="A", baseline="B", outcome="x")
    assert worse.verdict == "worse"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([100.0], [110.0], "A came out 10.00 better than B, with one seed each: no difference is claimed"),
        ([110.0], [100.0, 101.0], "1 and 2 seeds: no difference is claimed"),
        ([100.0], [100.0], "the same as B"),
        ([100.0, 101, 102], [150.0, 151, 152], "the least p that they can give is 0.1"),
        ([100.0, 120, 90, 105], [101.0, 119, 92, 104], "no difference between A and B is shown"),
        ([100.0, 100], [100.0, 100], "no difference between A and B is shown"),
        ([], [100.0], "no comparison of A with B"),
    ],
)
def test_what_few_or_like_runs_cannot_show_is_told(a: list[float], b: list[float], said: str) -> None:
    found = difference(a, b, PERPLEXITY, group="A", baseline="B", outcome="best")
    assert found.verdict == NO_DIFFERENCE
    assert said in found.sentence


# --- whole comparisons ------------------------------------------------------------------------------------------------


def a_run(
    store: MemoryStore,
    name: str,
    perplexities: Sequence[float | None],
    *,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    measure: Mapping[str, Any] | None = PERPLEXITY.to_json(),
    epochs: int = 2,
    close: bool = True,
) -> Run:
    """A run with these values; None is a child that diverged."""
    writer = store.create(name, {**CONFIG, "measure": measure, "seed": seed, **(config or {})})
    rng = random.Random(f"{name}{seed}")
    for value in perplexities:
        (trial,) = writer.propose([Proposal(sample(Chain(), rng))])
        if value is None:
            result = Result(failure=Failure("diverged", "NaN"), cost=Cost(1.0, 1))
            ended = replace(writer.start(trial.number), state=TrialState.FAILED, result=result)
        else:
            metric = "perplexity" if measure else "accuracy"
            result = Result({metric: value, "parameters": 5.0}, cost=Cost(1.0, epochs))
            reward = 80 / value**2 if value else 0.0
            ended = replace(writer.start(trial.number), state=TrialState.DONE, reward=reward, result=result)
        writer.finish([ended])
    if close:
        writer.close("finished")
    return Run(store, name, space=Chain())


def falling(start: float, n: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [start - 0.5 * i + rng.uniform(-3, 3) for i in range(n)]


def seeds_of_two(store: MemoryStore, n: int = 4, trials: int = 24) -> list[Run]:
    runs = [a_run(store, f"c{s}", falling(200, trials, s), seed=s) for s in range(n)]
    rest = [a_run(store, f"r{s}", falling(230, trials, 50 + s), seed=s, config=RANDOM) for s in range(n)]
    return [r for pair in zip(runs, rest, strict=True) for r in pair]


def test_seeds_of_one_configuration_are_a_group_and_random_search_is_the_baseline() -> None:
    found = smith.compare(seeds_of_two(MemoryStore()))
    assert found.measure == PERPLEXITY
    assert [(g.label, len(g.runs)) for g in found.groups] == [("Reinforce", 4), ("random search", 4)]
    assert found.baseline == "random search"
    assert [d.outcome for d in found.differences] == [
        "the best model",
        "the mean of top 5 models",
        "the mean of top 15 models",
    ]
    assert all(d.verdict == "better" and d.p == pytest.approx(2 / 70) for d in found.differences)
    (note,) = found.notes
    assert note.startswith("3 differences were tested, each at 5 %")
    rows = found.table()
    assert rows[0][:5] == ("searcher", "seeds", "trials", "failed", "epochs")
    assert rows[1][:5] == ("Reinforce", "4", "24", "0", "48")


def test_the_late_mean_reward_is_of_trials_that_have_one() -> None:
    run = a_run(MemoryStore(), "c", [20.0, 10.0, 8.0, 5.0, 4.0, None, None])
    found = smith.compare([run, a_run(MemoryStore(), "r", [20.0, 10.0, None, None], config=RANDOM)])
    assert [found.outcomes(group.runs[0])["late mean reward"] for group in found.groups] == [80 / 4**2, 80 / 10**2]


def test_the_figure_is_the_difference_of_the_groups_means() -> None:
    runs = seeds_of_two(MemoryStore(), n=2)
    found = smith.compare(runs)
    at, by_k = found.improvements("Reinforce")
    assert at == list(range(1, 25))
    assert np.isnan(by_k[15][:14]).all()
    for k in (1, 5, 15):
        means = {}
        for run in runs:
            read_ = read(run, PERPLEXITY)
            means[run.name] = fmean(sorted(read_.value[:20])[:k])
        expected = fmean([means["r0"], means["r1"]]) - fmean([means["c0"], means["c1"]])
        assert by_k[k][19] == pytest.approx(expected)
    with pytest.raises(UsageError, match="has none but itself"):
        found.improvements("random search")


def test_unequal_budgets_are_told_and_differences_taken_at_equal_cost() -> None:
    store = MemoryStore()
    long = a_run(store, "long", [100.0, 90.0, 80.0, 1.0])
    short = a_run(store, "short", [None, 95.0, 85.0], config=RANDOM)  # 1 + 2 + 2 epochs
    found = smith.compare([long, short])
    best = found.differences[0]
    assert best.improvement == pytest.approx(85.0 - 90.0)  # after 5 epochs the long one had two models, and 90
    assert any("not equal" in note and "after 5 epochs of each" in note for note in found.notes)
    assert "no difference is claimed" in found.claim
    as_many = a_run(store, "as many", [None, None, 70.0, 60.0], config=RANDOM)
    (note,) = smith.compare([long, as_many]).notes
    assert (
        "Each run had 4 trials, but children that failed or were stopped early cost less: from 6 epochs (as many) to 8 (long)"
        in note
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [({"reward": {"type": "rewards.value"}}, "reward"), ({"space": {"type": "mine:Other"}}, "space")],
)
def test_what_differs_besides_the_searcher_is_told(config: dict[str, Any], said: str) -> None:
    store = MemoryStore()
    one = a_run(store, "one", [3.0, 2.0])
    other = a_run(store, "other", [3.0, 2.0], config={**RANDOM, **config})
    assert any(f"differ in their {said}" in note for note in smith.compare([one, other]).notes)


def test_searchers_of_one_kind_with_other_settings_are_told_apart_by_their_runs() -> None:
    store = MemoryStore()
    one = a_run(store, "slow", [3.0, 2.0])
    other = a_run(store, "fast", [3.0, 2.5], config={"searcher": {"type": "searchers.Reinforce", "minibatch": 1}})
    found = smith.compare([one, other], baseline="fast")
    assert [g.label for g in found.groups] == ["Reinforce (slow)", "Reinforce (fast)"]
    assert found.baseline == "Reinforce (fast)"
    assert found.differences[0].improvement == pytest.approx(0.5)


def test_runs_of_the_same_seed_are_not_taken_for_independent_ones() -> None:
    store = MemoryStore()
    runs = [a_run(store, name, [3.0, 2.0], seed=1) for name in ("a", "b")]
    assert any("same seed" in note for note in smith.compare(runs).notes)


def test_bad_comparisons_are_refused_by_name() -> None:
    store = MemoryStore()
    one = a_run(store, "one", [3.0, 2.0])
    images = a_run(store, "images", [0.9, 0.8], measure=None)
    elsewhere = a_run(store, "elsewhere", [3.0], config={"data": "sha256:other"})
    empty = a_run(store, "empty", [None, None])
    for runs, said in (
        ([one], "two runs or more"),
        ([], "two runs or more"),
        ([one, one], "named twice"),
        ([one, images], "different measures, perplexity and accuracy"),
        ([one, elsewhere], "different data"),
        ([one, empty], "nothing to compare"),
    ):
        with pytest.raises(UsageError, match=said):
            smith.compare(runs)
    with pytest.raises(UnknownName, match="'two'"):
        smith.compare([one, a_run(store, "three", [2.0])], baseline="two")


def test_a_band_needs_three_runs_and_covers_their_mean() -> None:
    found = smith.compare(seeds_of_two(MemoryStore(), n=3))
    drawn = line(found.groups[0].runs, "best", "trials", higher_is_better=False)
    assert drawn.half is not None
    deviation = np.std(drawn.each[:, -1], ddof=1)
    assert drawn.half[-1] == pytest.approx(4.302653 * deviation / math.sqrt(3), rel=1e-5)
    two = smith.compare(seeds_of_two(MemoryStore(), n=2))
    assert line(two.groups[0].runs, "best", "seconds", higher_is_better=False).half is None


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_the_page_is_whole_closed_and_the_same_every_time(tmp_path: Path, seeds: int) -> None:
    store = MemoryStore()
    runs = [a_run(store, f"{HOSTILE}{s}", falling(200, 20, s), seed=s) for s in range(seeds)]
    runs += [a_run(store, f"random{s}", falling(220, 20, s), seed=s, config=RANDOM) for s in range(seeds)]
    found = smith.compare(runs)
    text = found.report(tmp_path / "page.html").read_text()
    page = Page(text).check()
    assert text == found.report(tmp_path / "again.html").read_text()
    assert {"improvement", "progress", "outcomes", "differences", "runs", "words"} <= set(page.ids)
    assert sum(name == "svg" for name, _ in page.elements) == 5
    assert {d.outcome for d in found.differences} == {
        "the best model",
        *(f"the mean of top {k} models" for k in (5, 15)),
    }
    for said in (
        found.differences[0].sentence,
        *(d.outcome for d in found.differences),
        "Improvement over random search",
        "top 15:",
    ):
        assert said in page.text
    assert ("a 95 % interval of the mean over runs" in page.text) == (seeds >= 3)


def test_a_page_of_hardly_anything_is_made(tmp_path: Path) -> None:
    store = MemoryStore()
    runs = [a_run(store, "one", [2.0]), a_run(store, "other", [None, 3.0], config=RANDOM, close=False)]
    page = Page(smith.compare(runs).report(tmp_path / "page.html").read_text()).check()
    assert "'other' is running" in page.text
    many = [
        a_run(store, f"m{i}", [2.0, 3.0], config={"searcher": {"type": f"x:{HOSTILE}", "i": i}}, close=True)
        for i in range(9)
    ]
    Page(smith.compare(many).report(tmp_path / "many.html").read_text()).check()
    with pytest.raises(UsageError, match="is a folder"):
        smith.compare(runs).report(tmp_path)


def test_the_command_compares_a_run_with_its_random_search(tmp_path: Path) -> None:
    assert archsmith("search", "landscape", "--trials", "40", folder=tmp_path).returncode == 0
    done = archsmith("compare", "landscape", "--output", "page.html", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Reinforce less random search" in done.stdout
    assert "no difference is claimed" in done.stdout
    Page((tmp_path / "page.html").read_text()).check()
    told = json.loads(archsmith("compare", "landscape", "landscape-random", "--json", folder=tmp_path).stdout)
    assert told["measure"] == "reward"
    assert [g["runs"][0]["trials"] for g in told["groups"]] == [40, 40]
    assert told["improvements"]["Reinforce"]["models"][-1] == 40
    best = {g["label"]: g["runs"][0]["best"] for g in told["groups"]}
    gap = best["Reinforce"] - best["random search"]
    assert told["improvements"]["Reinforce"]["top_1"][-1] == pytest.approx(gap)
    for arguments, said in ((["landscape", "nothing"], "nothing"), (["landscape-random"], "two runs or more")):
        refused = archsmith("compare", *arguments, folder=tmp_path)
        assert refused.returncode == 2
        assert said in refused.stderr
