"""What a search would take: reckoned from children that are really built and batches that are really trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from archsmith._search.estimate import Probe, SearchEstimate, estimate, step_seconds
from archsmith.core.child import Child
from archsmith.core.errors import UsageError
from archsmith.nn.resnet import resnet_of_size
from archsmith.recipes import get_recipe
from archsmith.spaces import NASNetCell, RecurrentCell
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification, LanguageModel
from test_cli import archsmith

SMALL = replace(LanguageModel.desk(epochs=3, max_train=4_000), hidden=8, max_validation=200)


class Counted(torch.optim.SGD):
    """Counts its steps."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        Counted.steps += 1
        return super().step(closure)


@pytest.mark.parametrize(
    "evaluator", [SMALL, replace(SMALL, batch_size=7, unroll=11), ImageClassification.desk("digits", epochs=1)]
)
def test_the_steps_of_an_epoch_are_those_that_training_makes(evaluator: Any) -> None:
    task = evaluator.task()
    model = (
        resnet_of_size(2000, task) if isinstance(evaluator, ImageClassification) else evaluator.baseline(30_000, task)
    )
    Counted.steps = 0
    evaluator.train(Child(model, optimizer=Counted), RecordingContext(stop_after=1))
    assert evaluator.steps_per_epoch() == Counted.steps > 0


@pytest.mark.data
def test_an_epoch_of_the_penn_treebank_has_1327_steps() -> None:
    assert LanguageModel("ptb").steps_per_epoch() == 1327


def test_an_estimate_is_children_times_epochs_times_steps() -> None:
    found = estimate(RecurrentCell(2), SMALL, trials=100, children=2)
    assert (found.children, found.epochs, found.steps_per_epoch, found.trials, found.threads) == (2, 3, 5, 100, 1)
    assert found.fewest == found.most  # all cells of one base are equally large
    assert found.step_seconds > 0
    assert found.seconds == pytest.approx(100 * 3 * 5 * found.step_seconds)
    assert "100 children" in str(found)
    assert estimate(RecurrentCell(2), SMALL, trials=None, children=1).seconds is None


def test_years_and_seconds_are_told_apart() -> None:
    made = SearchEstimate(3, 2e7, 20_000_000, 20_000_000, 1.0, 1327, 35, 15_000, "cpu", 1)
    assert "about 12.9 hours" in str(made)
    assert "about 22.1 years" in str(made)


class NoBatches:
    """Trains without a look at its limits."""

    def train(self, child: Child, context: Any) -> None:
        pass


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(UsageError, match="Landscape has no task"):
        estimate(RecurrentCell(2), get_recipe("landscape").evaluator, trials=1)
    with pytest.raises(UsageError, match="too little data"):
        step_seconds(NoBatches(), Child(torch.nn.Identity()), 2)
    with pytest.raises(UsageError, match="keeps nothing"):
        Probe("cpu", 1, 1).checkpoint({})


def test_the_command_tells_and_records_nothing(tmp_path: Path) -> None:
    done = archsmith("search", "digits", "--estimate", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["seconds"] == pytest.approx(told["trials"] * told["child_seconds"])
    assert told["fewest"] < told["most"]
    assert not (tmp_path / "runs.db").exists()


def test_of_images_multiply_adds_are_told_and_an_auxiliary_head_is_not_counted() -> None:
    evaluator = replace(ImageClassification.desk("digits", epochs=1), max_train=200)
    plain, headed = (
        estimate(NASNetCell(blocks=1, cells=1, filters=2, auxiliary=a), evaluator, trials=3, children=1, batches=1)
        for a in (0.0, 0.4)
    )
    assert plain.parameters == headed.parameters
    assert plain.multiply_adds == headed.multiply_adds
    assert plain.multiply_adds is not None
    assert plain.multiply_adds > plain.parameters  # a convolution uses its weights at many places
    assert f"{plain.multiply_adds:,.0f} multiply-adds an image" in str(plain)
    assert "on average" not in str(plain)
    assert f"on average {plain.multiply_adds:,.0f} multiply-adds" in str(replace(plain, most=plain.most + 1))
    assert plain.to_json()["multiply_adds"] == plain.multiply_adds
