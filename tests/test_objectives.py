"""`archsmith search --objectives`: a front in place of one reward."""

from __future__ import annotations

from pathlib import Path

import pytest

import archsmith as smith
from archsmith.cli.main import main
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.recipes import get_recipe
from archsmith.recipes.objectives import with_objectives
from archsmith.searchers import NSGA2, Optuna
from archsmith.training import ImageClassification, Latency


def test_a_front_is_searched_shown_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    search = [
        "search",
        "digits",
        "--objectives",
        "accuracy,latency",
        "--trials",
        "3",
        "--epochs",
        "6",
        "--workers",
        "1",
    ]
    assert main([*search, "--no-control", "--store", store, "--name", "front"]) == 0
    assert "archsmith top front --pareto accuracy,latency" in capsys.readouterr().err
    run = smith.open_run(store, "front")
    assert run.config["searcher"] == to_config(NSGA2(("accuracy", "latency")))
    front = run.pareto("accuracy", "latency")
    assert front
    assert all("latency" in trial.result.metrics for trial in front if trial.result is not None)
    assert main(["top", "front", "--pareto", "accuracy,latency", "--store", store]) == 0
    assert "LATENCY" in capsys.readouterr().out
    model = str(tmp_path / "model")
    assert main(["export", "front", "--trial", str(front[0].number), "--output", model, "--store", store]) == 0
    assert (Path(model) / "model.safetensors").exists()


def test_what_becomes_of_a_recipe() -> None:
    recipe = get_recipe("digits")
    assert with_objectives(recipe, None) is recipe
    both = with_objectives(recipe, "accuracy, -parameters")
    assert both.searcher == NSGA2(("accuracy", "-parameters"))
    assert isinstance(both.evaluator, ImageClassification)
    assert both.evaluator.latency is None
    assert both.evaluator.keep_weights
    measured = with_objectives(get_recipe("mnasnet-desk"), "accuracy,latency").evaluator
    assert isinstance(measured, ImageClassification)
    assert measured.latency == Latency(repeats=100, warmup=10)


def test_a_searcher_that_takes_objectives_stays() -> None:
    from dataclasses import replace

    recipe = replace(get_recipe("digits"), searcher=Optuna("tpe"))
    assert with_objectives(recipe, "accuracy,parameters").searcher == Optuna(
        "tpe", objectives=("accuracy", "parameters")
    )


@pytest.mark.parametrize("objectives", ["accuracy", "", "accuracy,accuracy"])
def test_one_objective_is_none(objectives: str) -> None:
    with pytest.raises(UsageError, match="objectives"):
        with_objectives(get_recipe("digits"), objectives)


def test_a_metric_that_nobody_reports_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"'\+recall', which ImageClassification does not report; it reports reward, accuracy"
    ):
        with_objectives(get_recipe("digits"), "accuracy,+recall")
