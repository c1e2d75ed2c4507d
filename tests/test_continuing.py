"""A training that has ended goes on exactly from where it was, with the same settings or with others."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import archsmith as smith
from archsmith.core.artifacts import open_artifacts
from archsmith.core.child import Task
from archsmith.core.errors import ChildFailed
from archsmith.core.evaluator import repeatable
from archsmith.core.executor import Completed, Job
from archsmith.core.space import FunctionSpace, sample
from archsmith.core.trial import Result, TrialState, joined
from archsmith.executors import InProcess, ProcessPool
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification
from archsmith.training.resuming import unpacked

RNG = np.random.default_rng(0)
COLOURS = np.kron(RNG.integers(0, 256, (60, 6, 6, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)  # 24 x 24
PICTURES = ImageClassification(
    (COLOURS, np.arange(60) % 3),
    epochs=4,
    batch_size=16,
    learning_rate=0.05,
    schedule="constant",
    precision="fp32",
    crop="resized",
    colour=0.2,
    size=16,
    source_size=24,
    continues=True,
    keep_weights=True,
)


def network(architecture: Any, task: Task) -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, task.num_classes))


SPACE = FunctionSpace(lambda choose: choose("x", (1,)), network)
GENOTYPE = sample(SPACE, random.Random(0))


def train(
    config: ImageClassification, before: Any = None, *, space: FunctionSpace = SPACE, **context: Any
) -> tuple[Result, RecordingContext]:
    resume = None if before is None else before[1].kept[before[0].checkpoint]
    kept = RecordingContext(seed=3, resume=resume, **context)
    return config.evaluate(space, sample(space, random.Random(0)), kept), kept


def weights(result: Result, context: RecordingContext) -> dict[str, torch.Tensor]:
    return dict(context.kept[result.artifact or ""])


def state(result: Result, context: RecordingContext) -> Any:
    return unpacked(context.kept[result.checkpoint or ""])


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd, averaged, grouped": {"average": 0.9, "decay_norms": False, "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "average": 0.5},
    "adam, mixed": {"optimizer": "adam", "learning_rate": 0.01, "mix": "mixup", "policy": "trivial"},
    "rmsprop, contiguous": {"optimizer": "rmsprop", "learning_rate": 0.01, "channels_last": False},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_trainings_equal_one_to_the_bit(name: str) -> None:
    config = dataclasses.replace(PICTURES, **OPTIMIZERS[name])
    whole = train(dataclasses.replace(config, epochs=4))
    first = train(dataclasses.replace(config, epochs=3))
    torch.rand(3)  # what others draw meanwhile
    second = train(dataclasses.replace(config, epochs=1), first, epochs_done=3)
    assert (second[0].metrics["epochs_before"], len(second[0].curve)) == (3, 1)
    assert second[0].metrics["seconds_before"] == pytest.approx(first[0].metrics["train_seconds"], rel=0.01)
    assert [epoch for epoch, _ in second[1].reported] == [4]
    together = repeatable(config, joined(first[0], second[0]))
    assert together.curve == repeatable(config, whole[0]).curve
    assert together.cost == repeatable(config, whole[0]).cost
    for key in ("accuracy", "final_accuracy", "loss", "train_loss"):
        assert second[0].metrics[key] == whole[0].metrics[key]
    expected = weights(*whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(*second).items())
    one, other = state(*second), state(*whole)
    assert str(one["optimizer"]) == str(other["optimizer"])
    assert torch.equal(one["draws"], other["draws"])


def test_it_goes_on_with_other_settings() -> None:
    first = train(dataclasses.replace(PICTURES, train_size=8))
    later = dataclasses.replace(
        PICTURES, train_size=24, size=24, schedule="linear", epochs=3, learning_rate=0.02, mix="cutmix", average=0.9
    )
    before = state(*first)["model"]
    second, context = train(later, first, epochs_done=4)
    rates = [row["learning_rate"] for row in second.curve]
    assert rates == sorted(rates, reverse=True)
    assert 0.01 < rates[0] < 0.02, "the schedule is that of what is added"
    assert rates[-1] < 0.01
    assert [row["epoch"] for row in second.curve] == [5, 6, 7]
    assert any(not torch.equal(value, before[key]) for key, value in state(second, context)["model"].items())
    third, _ = train(
        dataclasses.replace(later, average=0.0, decay_norms=False, epochs=1), (second, context), epochs_done=7
    )
    assert third.metrics["epochs_before"] == 7
    assert third.metrics["seconds_before"] > first[0].metrics["train_seconds"]


def test_settings_of_the_optimizer_are_those_of_now() -> None:
    first = train(dataclasses.replace(PICTURES, weight_decay=0.3))
    second = train(dataclasses.replace(PICTURES, weight_decay=0.0, epochs=1, decay_norms=False), first, epochs_done=4)
    groups = state(*second)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.0, 0.0]
    momenta = {key: value["momentum_buffer"].shape for key, value in state(*second)["optimizer"]["state"].items()}
    named = dict(enumerate(state(*second)["parameters"]))
    assert all(state(*second)["model"][named[key]].shape == shape for key, shape in momenta.items())


def test_a_continued_training_may_be_paused() -> None:
    config = dataclasses.replace(PICTURES, average=0.9)
    first = train(dataclasses.replace(config, epochs=2))
    longer = dataclasses.replace(config, epochs=3, schedule="linear")
    whole = train(longer, first, epochs_done=2)
    paused, context = train(longer, first, epochs_done=2, until=4)
    assert paused.checkpoint is None, "a paused training is kept by pausing"
    rest_context = RecordingContext(seed=3, resume=context.put_aside, epochs_done=4)
    rest = longer.evaluate(SPACE, GENOTYPE, rest_context)
    assert repeatable(longer, joined(paused, rest)).curve == repeatable(longer, whole[0]).curve
    expected = weights(*whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(rest, rest_context).items())


@pytest.mark.parametrize("executor", [InProcess, lambda: ProcessPool(workers=1)], ids=["here", "pool"])
def test_jobs_are_continued_from_their_result(executor: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(PICTURES, epochs=2, keep_weights=False)
    job = Job(0, SPACE, GENOTYPE, config, lambda result: result.metrics["final_accuracy"], 7, artifacts=str(tmp_path))
    where = executor()
    try:
        results = []
        for evaluator in (config, dataclasses.replace(config, epochs=1, continues=False)):
            where.submit(dataclasses.replace(job, evaluator=evaluator, resume=results[0] if results else None))
            events: list[Any] = []
            while not events or not isinstance(events[-1], Completed):
                events.extend(where.completed())
            assert events[-1].state is TrialState.DONE, events[-1].result.failure
            results.append(events[-1].result)
    finally:
        where.close()
    first, second = results
    assert first.artifact == first.checkpoint
    assert first.checkpoint in open_artifacts(tmp_path)
    assert second.checkpoint is None
    expected = dataclasses.replace(config, epochs=3).evaluate(SPACE, GENOTYPE, RecordingContext(seed=7))
    together = repeatable(config, joined(first, second))
    assert [row["loss"] for row in together.curve] == [row["loss"] for row in expected.curve]


def test_a_training_of_seconds_is_continued() -> None:
    timed = dataclasses.replace(PICTURES, seconds=0.2, epochs=10_000, schedule="linear")
    first = train(timed)
    second = train(dataclasses.replace(timed, seconds=0.3), first, epochs_done=len(first[0].curve))
    assert second[0].curve[0]["epoch"] == len(first[0].curve) + 1
    assert second[0].curve[0]["learning_rate"] > first[0].curve[-1]["learning_rate"]
    assert second[0].metrics["train_seconds"] >= 0.3
    assert second[0].metrics["seconds_before"] >= 0.2


def test_what_cannot_be_continued_says_so() -> None:
    first = train(PICTURES)
    with pytest.raises(ChildFailed, match="used the optimizer SGD, and its settings now say AdamW"):
        train(dataclasses.replace(PICTURES, optimizer="adamw"), first)
    fixed = FunctionSpace(
        lambda choose: choose("x", (1,)),
        lambda architecture, task: nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(task.input_shape)), 3)),
    )
    sized = train(PICTURES, space=fixed)
    with pytest.raises(ChildFailed, match=r"do not fit the network.*1\.weight.*keep the size of the pictures"):
        train(dataclasses.replace(PICTURES, size=24), sized, space=fixed)
    assert train(PICTURES, sized, space=fixed)[0].metrics["epochs_before"] == 4


def test_found_learning_rates_stay() -> None:
    config = dataclasses.replace(PICTURES, learning_rates=(0.001, 0.05), epochs=1)
    first = train(config)
    second = train(config, first, epochs_done=1)
    assert second[0].metrics["learning_rate"] == first[0].metrics["learning_rate"]
    assert second[0].cost.epochs == 1


def test_a_search_keeps_what_its_best_trials_need(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    found = smith.search(SPACE, dataclasses.replace(PICTURES, epochs=1), trials=1, store=store, name="one", seed=1)
    from archsmith._search.collecting import needed
    from archsmith.store import open_store

    trial = found.best
    assert trial.result is not None
    assert {trial.result.artifact, trial.result.checkpoint} <= needed(open_store(store))
    assert trial.result.artifact != trial.result.checkpoint
