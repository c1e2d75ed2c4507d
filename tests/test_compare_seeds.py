"""Several searchers over many seeds in one go: what is run, what is gone on with, regret, effect sizes, and the claims."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import archsmith as smith
from archsmith._compare.contest import searcher_of, snake
from archsmith._compare.difference import difference, superiority_interval
from archsmith._compare.outcomes import outcomes
from archsmith._compare.searched import read, with_regret
from archsmith._compare.verdict import AGREES, CONTRADICTS, NOT_SHOWN, told, verdicts
from archsmith.core.budget import Budget
from archsmith.core.errors import DataError, UnknownName, UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.finish import ACCURACY
from archsmith.core.space import FunctionSpace
from archsmith.executors import Simulated
from archsmith.recipes import CLAIMS, Claim, Expected, Recipe, get_claim, get_recipe
from archsmith.searchers import Random, RegularizedEvolution, Reinforce
from archsmith.training import Tabular
from test_cli import archsmith
from test_report import Page

EVOLUTION = RegularizedEvolution(population=8, sample=4)
SPACE = FunctionSpace(lambda choose: [choose(name, tuple(range(6))) for name in ("a", "b", "c")])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """216 rows; validation accuracy a smooth hill, test accuracy the same but for a ripple."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = ["a,b,c,val,test,took,adds"]
    for a in range(6):
        for b in range(6):
            for c in range(6):
                val = 0.9 - 0.01 * ((a - 4) ** 2 + (b - 1) ** 2 + (c - 3) ** 2)
                rows.append(f"{a},{b},{c},{val},{val - 0.001 * ((a + b + c) % 3)},{60 + a},{1000 * (1 + a)}")
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def recipe_on(table: str, **changes: Any) -> Recipe:
    evaluator = Tabular(
        table, "val", called="accuracy", metrics={"adds": "multiply_adds"}, seconds="took", epochs=2.0, judge="test"
    )
    made = Recipe("hill", "a made table", SPACE, evaluator, EVOLUTION, Budget(trials=60), workers=1)
    return replace(made, **changes)


# --- running ----------------------------------------------------------------------------------------------------------


def test_every_searcher_is_run_with_every_seed_and_equal_budgets(table: str) -> None:
    seen: list[tuple[str, int, int]] = []
    found = smith.compare(
        recipe_on(table),
        searchers={"random": Random(), "evolution": EVOLUTION},
        seeds=4,
        store="memory://",
        told=lambda run, done, of: seen.append((run.name, done, of)),
    )
    assert [(group.label, [run.name for run in group.runs]) for group in found.groups] == [
        (arm, [f"hill-{arm}-{seed}" for seed in range(4)]) for arm in ("random", "evolution")
    ]
    assert found.baseline == "random"
    assert found.cost == "120 epochs"
    assert {len(run) for group in found.groups for run in group.runs} == {60}
    assert [seed for seed, *_ in seen[:3]] == ["hill-random-0", "hill-evolution-0", "hill-random-1"]
    assert seen[-1] == ("hill-evolution-3", 8, 8)
    assert {d.outcome for d in found.differences} >= {"the best model", "the regret of the best model"}


def test_a_run_of_it_equals_the_search_by_itself(table: str) -> None:
    found = smith.compare(recipe_on(table), searchers={"a": Random(), "b": EVOLUTION}, seeds=[7], store="memory://")
    recipe = recipe_on(table)
    alone = smith.search(SPACE, recipe.evaluator, searcher=EVOLUTION, trials=60, store="memory://", seed=7)
    assert read(alone, ACCURACY).keys == found.group("b").runs[0].keys


def test_a_repeated_command_runs_nothing_and_a_wider_one_only_what_is_missing(table: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    run = partial(smith.compare, recipe_on(table), searchers={"random": Random(), "evolution": EVOLUTION}, store=store)
    first = run(seeds=2, trials=20)
    before = {s.name: s.updated for s in smith.open_run(store, "hill-random-0").store.runs()}
    assert run(seeds=2, trials=20).to_json() == first.to_json()
    assert {s.name: s.updated for s in smith.open_run(store, "hill-random-0").store.runs()} == before
    wider = run(seeds=3, trials=30)
    assert [len(r) for group in wider.groups for r in group.runs] == [30] * 6
    grown, whole = smith.open_run(store, "hill-evolution-1"), run(seeds=[1], trials=30)
    assert [t.genotype.key for t in grown.trials()] == list(whole.group("evolution").runs[0].keys)
    shorter = run(seeds=2, trials=20)  # of runs that have gone further, the first 20 trials
    assert [len(r) for group in shorter.groups for r in group.runs] == [20] * 4
    assert shorter.results == first.results


def test_what_was_interrupted_goes_on(table: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    searchers: dict[str, Any] = {"random": Random(), "evolution": EVOLUTION}
    whole = smith.compare(recipe_on(table), searchers=searchers, seeds=3, store="memory://")

    def interrupting(run: smith.Run, done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smith.compare(recipe_on(table), searchers=searchers, seeds=3, store=store, told=interrupting)
    half = smith.open_run(store, "hill-random-0").store
    writer = half.create("hill-evolution-1", {**smith.open_run(store, "hill-evolution-0").config, "seed": 1})
    writer.close()  # as a kill left it: begun, and nothing done
    found = smith.compare(recipe_on(table), searchers=searchers, seeds=3, store=store)
    assert found.results == whole.results


def test_a_run_of_another_configuration_is_no_substitute(table: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    searchers: dict[str, Any] = {"random": Random(), "evolution": EVOLUTION}
    smith.compare(recipe_on(table), searchers=searchers, seeds=2, store=store)
    for changed, part in (
        (recipe_on(table, evaluator=replace(recipe_on(table).evaluator, scale=2.0)), "evaluator"),  # type: ignore[type-var]
        (recipe_on(table, limits=Limits(seconds=9)), "limits"),
    ):
        with pytest.raises(UsageError, match=f"hill-random-0' already, and its {part} is another"):
            smith.compare(changed, searchers=searchers, seeds=2, store=store)
    with pytest.raises(UsageError, match="hill-evolution-0' already, and its searcher is another"):
        smith.compare(recipe_on(table), searchers={**searchers, "evolution": Reinforce()}, seeds=2, store=store)
    with pytest.raises(UsageError, match="are real ones, where 5 simulated ones are wanted"):
        smith.compare(recipe_on(table), searchers=searchers, seeds=2, store=store, executor=lambda: Simulated(5))
    moved = tmp_path / "elsewhere.csv"  # the same data at another place are the same data
    moved.write_bytes(Path(table).read_bytes())
    elsewhere = recipe_on(table, evaluator=replace(recipe_on(table).evaluator, table=str(moved)))  # type: ignore[type-var]
    assert smith.compare(elsewhere, searchers=searchers, seeds=2, store=store, trials=70).cost == "140 epochs"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searchers": None}, "name the searchers"),
        ({"searchers": {"a": Random(), "b": Random()}}, "a and b are the same search"),
        ({"seeds": 0}, "seeds must be"),
        ({"seeds": True}, "seeds must be"),
        ({"seeds": [1, 1]}, "seeds must be"),
        ({"seeds": [-1]}, "seeds must be"),
        ({"seeds": 1.5}, "seeds must be"),
        ({"trials": 0}, "trials must be"),
        ({"workers": 0}, "workers must be"),
    ],
)
def test_bad_contests_are_refused(table: str, changes: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"searchers": {"a": Random(), "b": EVOLUTION}, "seeds": 1, "store": "memory://"}
    with pytest.raises(UsageError, match=said):
        smith.compare(recipe_on(table), **{**given, **changes})


def test_runs_take_no_options_of_a_recipe() -> None:
    with pytest.raises(UsageError, match=r"seeds= is for a recipe or a claim"):
        smith.compare(["a", "b"], seeds=3)


def test_runs_that_look_other_numbers_up_are_not_compared(table: str) -> None:
    space, made = recipe_on(table).space, {}
    for name, looked_up in {
        "one": Tabular(table, "val", judge="test"),
        "same": Tabular(table, "val", metrics=("took",)),
        "percent": Tabular(table, "val", scale=100),
        "test": Tabular(table, "test"),
    }.items():
        made[name] = smith.search(space, looked_up, trials=5, store="memory://", name=name)
    assert smith.compare([made["one"], made["same"]]).differences
    with pytest.raises(UsageError, match="different columns of their table, 'val' and 'test'"):
        smith.compare([made["one"], made["test"]])
    with pytest.raises(UsageError, match="'val' and 'val' times 100"):
        smith.compare([made["one"], made["percent"]])


def test_searchers_are_known_by_name() -> None:
    recipe = get_recipe("nasbench201")
    assert searcher_of("regularized_evolution", recipe) == RegularizedEvolution()
    assert searcher_of("recipe", recipe) is recipe.searcher
    assert (snake("PPO"), snake("QLearning"), snake("Random")) == ("ppo", "q_learning", "random")
    with pytest.raises(UnknownName, match="reinforce"):
        searcher_of("reinforced", recipe)
    with pytest.raises(UnknownName):
        searcher_of("depth_schedule", recipe)


# --- curves and costs -------------------------------------------------------------------------------------------------


def test_regret_is_judged_by_what_no_result_has(table: str) -> None:
    recipe = recipe_on(table)
    run = smith.search(SPACE, recipe.evaluator, searcher=Random(), trials=50, store="memory://", seed=3)
    searched = with_regret(read(run, ACCURACY), run, higher_is_better=True)
    values: dict[tuple[int, ...], tuple[float, float]] = {}
    for line in Path(table).read_text().splitlines()[1:]:
        a, b, c, val, test, *_ = line.split(",")
        values[int(a), int(b), int(c)] = (float(val), float(test))
    best_test, best, expected = max(test for _, test in values.values()), None, []
    for trial in run.trials():
        row = values[tuple(trial.genotype.answers[name] for name in "abc")]  # type: ignore[misc]
        assert trial.result is not None
        assert "test" not in trial.result.metrics
        best = row if best is None or row[0] > best[0] else best
        expected.append(best_test - best[1])
    np.testing.assert_allclose(searched.regret, expected, atol=1e-12)


def test_multiply_adds_are_summed_over_epochs_and_seconds_are_the_trainings(table: str) -> None:
    recipe = recipe_on(table)
    run = smith.search(SPACE, recipe.evaluator, searcher=Random(), trials=10, store="memory://")
    searched = read(run, ACCURACY)
    adds = [1000 * (1 + t.genotype.answers["a"]) for t in run.trials()]  # type: ignore[operator]
    took = [60 + t.genotype.answers["a"] for t in run.trials()]  # type: ignore[operator]
    np.testing.assert_allclose(searched.spent, np.cumsum(adds) * 2.0)
    assert searched.looked_up
    np.testing.assert_allclose(searched.at, np.cumsum(took))
    simulated = smith.search(SPACE, recipe.evaluator, trials=10, store="memory://", executor=Simulated(5))
    clocked = read(simulated, ACCURACY)
    assert not clocked.looked_up
    assert clocked.at[-1] == simulated.summary.seconds < sum(took)


def test_simulated_runs_are_compared_by_their_clock(table: str, tmp_path: Path) -> None:
    found = smith.compare(
        recipe_on(table),
        searchers={"random": Random(), "evolution": EVOLUTION},
        seeds=3,
        store="memory://",
        executor=lambda: Simulated(10),
    )
    page = Page(found.report(tmp_path / "page.html").read_text()).check()
    assert "of the simulated clock" in page.text
    assert sum(name == "svg" for name, _ in page.elements) == 1 + 3 * 3  # best, reward, regret by trials, time, adds


def test_the_table_and_the_sentences_are_of_the_same_cost(table: str) -> None:
    store = smith.compare(
        recipe_on(table), searchers={"random": Random(), "evolution": EVOLUTION}, seeds=2, trials=20, store="memory://"
    )
    head, random_row, evolution_row = store.table()
    assert random_row[head.index("trials")] == evolution_row[head.index("trials")] == "20"
    for row, label in ((random_row, "random"), (evolution_row, "evolution")):
        best = np.mean([came["best"] for came in store.results[label]])
        assert row[head.index("best")].startswith(f"{100 * best:.2f}")
    (best_difference,) = [d for d in store.differences if d.outcome == "the best model"]
    means = [np.mean([came["best"] for came in store.results[label]]) for label in ("evolution", "random")]
    assert best_difference.improvement == pytest.approx(means[0] - means[1])


def test_outcomes_of_a_run_by_hand(table: str) -> None:
    run = smith.search(SPACE, recipe_on(table).evaluator, searcher=Random(), trials=8, store="memory://", seed=1)
    searched = read(run, ACCURACY)
    came = outcomes(searched, ACCURACY)
    values = searched.value.tolist()
    assert came["best"] == max(values)
    assert came["mean of the best so far"] == pytest.approx(np.mean([max(values[: i + 1]) for i in range(8)]))
    assert came["late mean reward"] == pytest.approx(np.mean(values[-2:]))
    assert came["multiply-adds of the best"] == searched.multiply_adds[int(np.argmax(values))] / 1e6
    assert np.isnan(came["regret"])  # nothing was judged


# --- effect sizes -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_the_interval_of_superiority_holds_it_and_mirrors(n: int, m: int, seen: float) -> None:
    low, high = superiority_interval(seen, n, m)
    assert 0 <= low <= seen + 1e-9
    assert seen - 1e-9 <= high <= 1
    mirrored = superiority_interval(1 - seen, n, m)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-6)
    wider, narrower = superiority_interval(seen, n, m), superiority_interval(seen, 4 * n, 4 * m)
    assert narrower[1] - narrower[0] <= wider[1] - wider[0] + 1e-9


@pytest.mark.parametrize(("shift", "n"), [(0.0, 10), (0.8, 10), (0.8, 40), (2.0, 20)])
def test_the_interval_of_superiority_covers_the_truth_as_often_as_it_says(shift: float, n: int) -> None:
    from statistics import NormalDist

    rng, truth, covered = np.random.default_rng(5), NormalDist().cdf(shift / 2**0.5), 0
    for _ in range(600):
        a, b = rng.normal(shift, 1, n), rng.normal(0, 1, n)
        low, high = superiority_interval(float((a[:, None] > b[None]).mean()), n, n)
        covered += low <= truth <= high
    assert 0.92 <= covered / 600 <= 0.985


def test_a_difference_tells_its_effect_size() -> None:
    found = difference([0.9, 0.8, 0.85, 0.95], [0.7, 0.6, 0.82, 0.5], ACCURACY, group="a", baseline="b", outcome="x")
    assert found.superiority == 15 / 16
    assert found.superiority_interval == superiority_interval(15 / 16, 4, 4)
    assert "ahead in 94 % of pairs of runs (" in found.sentence


# --- claims -----------------------------------------------------------------------------------------------------------


def came(**values: list[float]) -> Mapping[str, list[dict[str, float]]]:
    return {arm: [{"best": v, "multiply-adds of the best": v} for v in each] for arm, each in values.items()}


def a_claim(table: str, *expected: Expected) -> Claim:
    recipe = recipe_on(table, control=False)
    arms = {"up": recipe, "down": replace(recipe, searcher=Random())}
    return Claim("made", "one is better", "A paper says so.", arms, expected, seeds=5, limits="Made.")


def test_verdicts_follow_the_test_and_the_interval(table: str) -> None:
    high, low = [0.9, 0.91, 0.92, 0.93, 0.94], [0.5, 0.51, 0.52, 0.53, 0.54]
    claim = a_claim(
        table, Expected("up", "down"), Expected("down", "up"), Expected("up", "down", "multiply-adds of the best")
    )
    found = verdicts(claim, came(up=high, down=low), ACCURACY)
    assert [v.verdict for v in found] == [AGREES, CONTRADICTS, CONTRADICTS]  # more multiply-adds are worse
    assert "2 come out the other way" in told(found)
    (same,) = verdicts(a_claim(table, Expected("up", "down")), came(up=high, down=high), ACCURACY)
    assert same.verdict == NOT_SHOWN
    assert told([same]) == "The one thing that the claim leads one to expect is not shown."


def test_a_claim_is_run_and_told(table: str, tmp_path: Path) -> None:
    claim = a_claim(table, Expected("up", "down", "late mean reward"), Expected("up", "down", "regret"))
    found = smith.compare(claim, store="memory://")
    assert [len(group.runs) for group in found.groups] == [5, 5]
    assert found.verdicts[0].verdict == AGREES  # evolution proposes better ones than chance
    assert found.claimed == "A paper says so."
    assert "Made." in found.notes
    page = Page(found.report(tmp_path / "page.html").read_text()).check()
    assert {"claim", "progress", "differences"} <= set(page.ids)
    assert found.to_json()["verdicts"][0]["verdict"] == AGREES
    with pytest.raises(UsageError, match="has searchers of its own"):
        smith.compare(claim, searchers={"a": Random()}, store="memory://")


def test_a_limit_counts_only_the_models_within(table: str) -> None:
    claim = replace(a_claim(table, Expected("up", "down")), within=("multiply_adds", 3000.0))
    found = smith.compare(claim, store="memory://", seeds=2)
    for group in found.groups:
        for run in group.runs:
            within = run.multiply_adds <= 3000
            assert np.isnan(run.value[~within]).all()
            assert not np.isnan(run.value[within]).any()
    assert not found.has_regret


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {}}, "two arms"),
        ({"expected": ()}, "two arms"),
        ({"expected": (Expected("up", "side"),)}, "'side', which is none of its arms"),
        ({"expected": (Expected("up", "down", "luck"),)}, "an outcome is one of"),
    ],
)
def test_claims_that_are_none_are_refused(table: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(a_claim(table, Expected("up", "down")), **changes)
    unequal = recipe_on(table, budget=Budget(trials=5))
    with pytest.raises(UsageError, match="equal budgets"):
        Claim("x", "", "", {"a": recipe_on(table), "b": unequal}, (Expected("a", "b"),))


def test_every_claim_is_complete() -> None:
    for name in CLAIMS:
        claim = get_claim(name)
        assert claim.name == name
        assert claim.paper
        assert claim.seeds >= 20
        assert all(recipe.budget == Budget(trials=1000) for recipe in claim.arms.values())
    with pytest.raises(UnknownName, match="aging-under-noise"):
        get_claim("aging-under-noises")


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_claims_run_on_the_benchmark(name: str) -> None:
    found = smith.compare(get_claim(name), seeds=2, trials=30, store="memory://")
    assert len(found.verdicts) == len(get_claim(name).expected)
    assert {v.verdict for v in found.verdicts} <= {AGREES, NOT_SHOWN, CONTRADICTS}
    assert found.measure == ACCURACY


# --- the command ------------------------------------------------------------------------------------------------------

FILE = """
import archsmith as smith
from archsmith.core.budget import Budget
from archsmith.core.space import FunctionSpace
recipe = smith.recipes.Recipe(
    "hill", "a made table", FunctionSpace(lambda choose: [choose(name, tuple(range(6))) for name in "abc"]),
    smith.training.Tabular({table!r}, "val", called="accuracy", seconds="took", judge="test"),
    smith.searchers.RegularizedEvolution(population=8, sample=4), Budget(trials=40), workers=1)
"""


def test_the_command_runs_and_compares(table: str, tmp_path: Path) -> None:
    (tmp_path / "hill.py").write_text(FILE.format(table=table))
    command = ("compare", "hill.py", "--searchers", "random,recipe", "--seeds", "4", "--output", "page.html")
    done = archsmith(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "recipe less random" in done.stdout
    assert "(after 40 epochs of each run" in done.stdout
    assert "8 of 8 runs are there" in done.stderr
    Page((tmp_path / "page.html").read_text()).check()
    again = json.loads(archsmith(*command, "--json", folder=tmp_path).stdout)
    assert [g["label"] for g in again["groups"]] == ["random", "recipe"]
    named = archsmith("compare", "hill-random-0", "hill-random-1", "hill-recipe-0", "hill-recipe-1", folder=tmp_path)
    assert named.returncode == 0, named.stderr
    assert "random    2" in named.stdout
    for arguments, said in (
        (["hill.py"], "--searchers"),
        (["hill.py", "--searchers", "randm"], "did you mean 'random'"),
        (["hill.py", "hill.py", "--seeds", "3"], "one recipe or claim"),
        (["nothing", "--seeds", "3"], "no recipe or claim is named"),
        ([], "name the runs"),
        (["hill.py", "--searchers", "random,recipe", "--executor", "slurm"], "simulated"),
        (["rl-against-random", "--seeds", "2", "--data", "nowhere.npz"], "nowhere.npz"),
    ):
        refused = archsmith("compare", *arguments, folder=tmp_path)
        assert refused.returncode == 2, refused.stderr
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_command_lists_claims(tmp_path: Path) -> None:
    done = archsmith("compare", "--claims", folder=tmp_path)
    assert all(name in done.stdout for name in CLAIMS)
    listed = json.loads(archsmith("compare", "--claims", "--json", folder=tmp_path).stdout)
    assert [claim["name"] for claim in listed] == list(CLAIMS)


def test_a_table_that_is_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHSMITH_DATA", raising=False)
    with pytest.raises(DataError, match="ARCHSMITH_DATA"):
        smith.compare(get_claim("rl-against-random"), seeds=1, store="memory://")


def test_evolution_that_never_filled_its_population_is_told(table: str) -> None:
    searchers = {"evolution": EVOLUTION, "random": Random()}
    short = smith.compare(recipe_on(table), searchers=searchers, seeds=2, trials=8, store="memory://")
    assert any("evolution fills a population of 8 before it selects, and had 8 trials" in note for note in short.notes)
    longer = smith.compare(recipe_on(table), searchers=searchers, seeds=2, trials=9, store="memory://")
    assert not any("population" in note for note in longer.notes)
