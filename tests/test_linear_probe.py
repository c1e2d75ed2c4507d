"""A classifier fitted to a network's features, alone and as the beginning of a training."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from archsmith.core.child import Child, Task
from archsmith.core.errors import UsageError
from archsmith.core.space import FunctionSpace, sample
from archsmith.core.trial import Result
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification
from archsmith.training.linear_probe import logistic_regression

RNG = np.random.default_rng(0)
CLASSES = np.arange(90) % 3
# Stripes whose direction is the class, under noise: linear in what fixed filters give.
Y, X = np.mgrid[:16, :16]
STRIPES = np.stack([np.sin(Y), np.sin(X), np.sin(X + Y)])[CLASSES][..., None]
PICTURES = (127 + 60 * STRIPES + RNG.normal(0, 25, (90, 16, 16, 3))).clip(0, 255).astype(np.uint8)
PROBED = ImageClassification(
    (PICTURES, CLASSES),
    epochs=0,
    probe=1000,
    size=16,
    precision="fp32",
    upsample=1.0,
    flip=False,
    validation=0.2,
    continues=True,
    keep_weights=True,
)


def network(architecture: Any, task: Task) -> Child:
    body = [nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Child(nn.Sequential(*body, nn.Dropout(0.2), nn.Linear(32, task.num_classes)))


SPACE = FunctionSpace(lambda choose: choose("x", (1,)), network)


def evaluate(config: ImageClassification, before: Any = None, **context: Any) -> tuple[Result, RecordingContext]:
    resume = None if before is None else before[1].kept[before[0].checkpoint]
    kept = RecordingContext(seed=3, resume=resume, **context)
    return config.evaluate(SPACE, sample(SPACE, random.Random(0)), kept), kept


def test_a_probe_alone_is_a_network_that_is_validated_as_any_other() -> None:
    result, context = evaluate(PROBED)
    (row,) = result.curve
    assert result.metrics["accuracy"] == result.metrics["probe_accuracy"] == row["accuracy"] > 0.6
    assert result.cost.epochs == 1
    model = network({}, PROBED.task()).model
    model.load_state_dict(dict(context.kept[result.artifact or ""]))
    predictions = PROBED.predictions(model.eval(), "validation")
    assert predictions.accuracy == result.metrics["accuracy"]
    of_labels = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    assert -np.log(of_labels).mean() == pytest.approx(result.metrics["loss"], rel=1e-3)


def test_its_body_is_not_trained() -> None:
    context = evaluate(PROBED)[1]
    before = evaluate(dataclasses.replace(PROBED, epochs=1, probe=0, learning_rate=1e-30))[1]
    (one,), (other,) = (
        [v for k, tensors in each.kept.items() for name, v in tensors.items() if name == "0.weight"]
        for each in (context, before)
    )
    assert torch.allclose(one, other)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_training_goes_on_from_a_probe(optimizer: str) -> None:
    config = dataclasses.replace(PROBED, optimizer=optimizer, learning_rate=1e-3, average=0.9)
    first = evaluate(config)
    second, _ = evaluate(dataclasses.replace(config, epochs=3), first, epochs_done=1)
    random_start, _ = evaluate(dataclasses.replace(config, epochs=1, probe=0))
    assert [row["epoch"] for row in second.curve] == [2, 3, 4]
    assert second.metrics["epochs_before"] == 1
    assert second.metrics["final_accuracy"] >= first[0].metrics["accuracy"] - 0.2
    assert second.curve[0]["train_loss"] < random_start.curve[0]["train_loss"] - 0.1


def test_a_training_begins_with_a_probe() -> None:
    config = dataclasses.replace(PROBED, epochs=1, learning_rate=1e-4)
    result, _ = evaluate(config)
    assert result.metrics["probe_accuracy"] > 0.6
    random_start, _ = evaluate(dataclasses.replace(config, probe=0))
    assert result.curve[0]["train_loss"] < random_start.curve[0]["train_loss"] - 0.1


def test_its_seconds_count() -> None:
    result, _ = evaluate(dataclasses.replace(PROBED, epochs=1000, seconds=0.01))
    assert result.metrics["train_seconds"] < 30
    assert len(result.curve) < 1000


def test_folds_are_probed_one_by_one() -> None:
    result, context = evaluate(dataclasses.replace(PROBED, folds=3, continues=False))
    assert len(result.curve) == 1
    assert result.metrics["accuracy"] == result.curve[0]["accuracy"] > 0.6
    assert len(context.kept[result.artifact or ""]["labels"]) == 72


def test_no_more_pictures_are_learned_from_than_is_said() -> None:
    few, _ = evaluate(dataclasses.replace(PROBED, probe=9))
    assert few.curve[0]["train_accuracy"] in {k / 9 for k in range(10)}


def test_of_equal_strengths_the_strongest_is_taken() -> None:
    features = RNG.normal(size=(60, 2)) + 20 * np.eye(3)[CLASSES[:60], :2]
    probe = logistic_regression(features, CLASSES[:60], features, CLASSES[:60])
    assert probe.accuracy == 1.0
    assert probe.strength >= 1.0
    assert probe.pictures == 60


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"probe": 0}, "epochs must be a whole number of at least 1"),
        ({"probe": -1}, "probe must be"),
        ({"probe": 2.5}, "probe must be"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dataclasses.replace(PROBED, **changes)
