"""The Pareto front: of trials, of a run, on the command line, and on the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archsmith as smith
from archsmith.cli.main import main
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.pareto import pareto, value_of
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.searchers import Random

GENOTYPE = Genotype({"name": "x", "version": 1, "options": {}}, {"a": 1})


def trial(number: int, state: TrialState = TrialState.DONE, reward: float | None = 0.0, **metrics: float) -> Trial:
    return Trial(number, GENOTYPE, state=state, reward=reward, result=Result(metrics))


def numbers(trials: Sequence[Trial]) -> list[int]:
    return [t.number for t in trials]


def test_the_front_goes_from_the_fastest_to_the_most_accurate() -> None:
    trials = [
        trial(0, accuracy=0.9, latency=10),
        trial(1, accuracy=0.8, latency=5),
        trial(2, accuracy=0.7, latency=6),  # slower and worse than 1
        trial(3, accuracy=0.95, latency=30),
        trial(4, accuracy=0.9, latency=11),  # slower than 0
        trial(5, accuracy=0.8, latency=5),  # equal to 1, and later
    ]
    assert numbers(pareto(trials, ("accuracy", "latency"))) == [1, 0, 3]
    assert numbers(pareto(trials, ("latency", "accuracy"))) == [3, 0, 1]


def test_the_reward_is_a_metric_and_a_sign_says_which_way_is_better() -> None:
    trials = [trial(0, reward=1.0, recall=0.2, energy=3), trial(1, reward=2.0, recall=0.1, energy=4)]
    assert numbers(pareto(trials, ("reward", "-energy"))) == [0, 1]
    assert numbers(pareto(trials, ("reward", "+energy"))) == [1]
    assert numbers(pareto(trials, ("+recall", "reward"))) == [1, 0]


def test_what_has_no_number_is_left_out() -> None:
    trials = [
        trial(0, TrialState.FAILED, None, accuracy=1.0, latency=0.1),
        trial(1, accuracy=math.nan, latency=1),
        trial(2, accuracy=0.5),
        trial(3, accuracy=0.4, latency=math.inf),
        trial(4, accuracy=0.4, latency=2),
        Trial(5, GENOTYPE),
    ]
    assert numbers(pareto(trials, ("accuracy", "latency"))) == [4]
    assert pareto([], ("accuracy", "latency")) == []
    assert math.isnan(value_of(trials[0], "accuracy"))


points = st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=40)


@given(points, st.sampled_from([("accuracy", "latency"), ("accuracy", "latency", "parameters")]))
def test_the_front_is_what_nothing_dominates(found: list[tuple[int, int, int]], metrics: tuple[str, ...]) -> None:
    names = ("accuracy", "latency", "parameters")
    trials = [trial(k, **dict(zip(names, map(float, point), strict=True))) for k, point in enumerate(found)]  # type: ignore[arg-type]

    def better(t: Trial) -> tuple[float, ...]:
        values: Mapping[str, float] = t.result.metrics if t.result else {}
        return tuple(values[m] if m == "accuracy" else -values[m] for m in metrics)

    def dominated(t: Trial) -> bool:
        own = better(t)
        return any(other != own and all(map(float.__ge__, other, own)) for other in map(better, trials))

    front = pareto(trials, metrics)
    assert {better(t) for t in front} == {better(t) for t in trials if not dominated(t)}
    assert len({better(t) for t in front}) == len(front)
    assert all(t.number == min(o.number for o in trials if better(o) == better(t)) for t in front)
    last = [better(t)[-1] for t in front]
    assert last == sorted(last, reverse=True)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (("accuracy",), "a Pareto front is of two metrics or more"),
        ("accuracy", "a Pareto front is of two metrics or more"),
        (("accuracy", "+accuracy"), "must differ, got accuracy, accuracy"),
        (("accuracy", "energy"), r"write '\+energy' where it is, '-energy' where not"),
        (("accuracy", "-"), "a metric of a Pareto front is a name"),
        (("accuracy", 3), "a metric of a Pareto front is a name"),
    ],
)
def test_fronts_that_make_no_sense_are_refused(metrics: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pareto([], metrics)


def test_devices_latencies_are_known_to_be_better_when_low() -> None:
    trials = [trial(0, value=0.5, **{"hw/cifar10/pixel3_latency": 2.0})]  # type: ignore[arg-type]
    assert numbers(pareto(trials, ("value", "hw/cifar10/pixel3_latency"))) == [0]


# --- a run ------------------------------------------------------------------------------------------------------------


def space(choose: Any) -> dict[str, int]:
    return {"width": choose("width", tuple(range(1, 9))), "waste": choose("waste", (0, 1, 2))}


def evaluator(architecture: dict[str, int]) -> dict[str, float]:
    width, waste = architecture["width"], architecture["waste"]
    return {"accuracy": 1 - 0.5 / width, "latency": width + waste / 2, "energy": float(waste)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = f"sqlite:///{tmp_path_factory.mktemp('pareto')}/runs.db"
    reward = smith.rewards.latency_weighted(4.0)
    smith.search(space, evaluator, searcher=Random(), reward=reward, trials=120, store=place, name="r", seed=0)
    return place


def test_a_run_tells_its_front(store: str) -> None:
    front = smith.open_run(store, "r").pareto("accuracy", "latency")
    assert [(t.genotype.answers["width"], t.genotype.answers["waste"]) for t in front] == [(w, 0) for w in range(1, 9)]


def test_the_command_line_tells_it(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "r", "--store", store, "--pareto", "latency"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["TRIAL", "REWARD", "ACCURACY", "LATENCY", "(ms)"]
    assert [row.split()[2:4] for row in rows] == [[f"{1 - 0.5 / w:.4f}", f"{w}"] for w in range(1, 9)]


def test_it_takes_several_metrics_and_prints_json(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "r", "--store", store, "--pareto", "+energy,accuracy", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)
    assert only["result"]["metrics"] == {"accuracy": 1 - 0.5 / 8, "latency": 9.0, "energy": 2.0}


def test_the_best_trials_have_a_column_of_latency(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "r", "--store", store, "-k", "2"]) == 0
    assert "LATENCY (ms)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "parameters",
            "run 'r' has no trial with the metrics accuracy, parameters; its best has: reward, accuracy, energy",
        ),
        ("energy", "whether more of the metric 'energy' is better is not known"),
        ("accuracy", "the metrics of a Pareto front must differ"),
        ("", "a metric of a Pareto front is a name"),
    ],
)
def test_what_is_not_there_is_told(store: str, capsys: pytest.CaptureFixture[str], asked: str, message: str) -> None:
    assert main(["top", "r", "--store", store, "--pareto", asked]) == 2
    assert message in capsys.readouterr().err


def test_the_page_draws_score_against_latency_with_the_target(store: str, tmp_path: Path) -> None:
    page = smith.open_run(store, "r").report(tmp_path / "r.html").read_text()
    assert "By latency" in page
    assert "accuracy against latency" in page
    assert "The dashed line is the target of the reward, 4 ms." in page


def test_a_run_without_latency_has_no_such_plot(tmp_path: Path) -> None:
    run = smith.search(
        space, lambda a: evaluator(a)["accuracy"], searcher=Random(), trials=10, store=f"sqlite:///{tmp_path}/runs.db"
    )
    assert "By latency" not in run.report(tmp_path / "r.html").read_text()
