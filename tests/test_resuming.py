"""A training that was put aside goes on to the bit as if it had not been, whatever it is made of, through a real file."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import archsmith as smith
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.child import Child
from archsmith.core.evaluator import repeatable
from archsmith.core.space import FunctionSpace, sample
from archsmith.core.trial import Result, TrialState, joined
from archsmith.nn.update_rule import RuleOptimizer
from archsmith.stopping import ASHA
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification
from archsmith.training.latency import Latency
from archsmith.training.resuming import packed, unpacked

IMAGES = dataclasses.replace(
    ImageClassification.desk(epochs=3, max_train=150), precision="fp32", keep_weights=True, batch_size=50
)


class Network(nn.Sequential):
    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(6, 6, 1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, classes),
        )


def space(**parts: Any) -> FunctionSpace:
    """Children of one network; `parts` are the other fields of a child."""
    return FunctionSpace(lambda choose: choose("x", (1,)), lambda architecture, task: Child(Network(10), **parts))


def rule(text: str) -> FunctionSpace:
    return space(optimizer=lambda parameters, rate: RuleOptimizer(parameters, text, rate), learning_rate=0.01)


CELL = smith.spaces.NASNetCell(blocks=2, cells=1, filters=4, drop_path_keep=0.6)

TRAININGS: dict[str, tuple[ImageClassification, Any]] = {
    "SGD, cosine": (dataclasses.replace(IMAGES, optimizer="sgd", schedule="cosine", warmup=1.5), space()),
    "Adam, clipped": (dataclasses.replace(IMAGES, optimizer="adam", learning_rate=1e-3, clip=1.0), space()),
    "RMSProp": (dataclasses.replace(IMAGES, optimizer="rmsprop", learning_rate=1e-3, weight_decay=1e-4), space()),
    "contiguous, smoothed": (dataclasses.replace(IMAGES, channels_last=False, label_smoothing=0.1), space()),
    "bf16": (dataclasses.replace(IMAGES, precision="bf16"), space()),
    "the best of some rates": (dataclasses.replace(IMAGES, learning_rates=(0.01, 0.3)), space()),
    "a rule with averages": (IMAGES, rule("exp(sign(g) * sign(m)) * g")),
    "a rule with noise and decay": (IMAGES, rule("g * linear_decay + annealed_noise")),
    "drop path": (IMAGES, CELL),
    "latency": (dataclasses.replace(IMAGES, latency=Latency(repeats=3, warmup=1)), space()),
    "a learned augmentation": (IMAGES, smith.spaces.Augmentation(model="wrn_16_1", sub_policies=2)),
}


def in_pieces(evaluator: Any, space: Any, folder: ArtifactFolder, **context: Any) -> tuple[Result, Any]:
    """Trained one epoch at a time, each piece from the file of the one before; the result and the weights that it kept."""
    genotype, so_far, kept = sample(space, random.Random(0)), None, None
    for epoch in range(1, evaluator.epochs + 1):
        until = epoch if epoch < evaluator.epochs else None
        piece = RecordingContext(seed=5, until=until, resume=kept, epochs_done=epoch - 1, **context)
        torch.rand(random.randrange(9))  # what others draw meanwhile
        so_far = joined(so_far, evaluator.evaluate(space, genotype, piece))
        assert not (piece.paused and piece.kept), "weights of a child that is aside are nobody's"
        if piece.put_aside is not None:
            kept = folder.get(folder.put(piece.put_aside))
    assert so_far is not None
    return so_far, piece.kept[so_far.artifact or ""]


def same_each_time(result: Result) -> Result:
    """What repeats of a result, without where its weights are kept."""
    return dataclasses.replace(repeatable(IMAGES, result), artifact=None)


@pytest.mark.parametrize("name", TRAININGS)
def test_it_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    evaluator, children = TRAININGS[name]
    context = RecordingContext(seed=5)
    whole = evaluator.evaluate(children, sample(children, random.Random(0)), context)
    result, weights = in_pieces(evaluator, children, ArtifactFolder(tmp_path))
    assert set(result.metrics) == set(whole.metrics)
    assert same_each_time(result) == same_each_time(whole)
    expected = context.kept[whole.artifact or ""]
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(weights[key], value), key


def test_weights_that_were_inherited_are_inherited_once(tmp_path: Path) -> None:
    parent = Network(10).state_dict()
    children = space(inherits=True)
    seen: dict[str, Any] = {"parent": 3, "earlier": {3: parent}}
    whole = IMAGES.evaluate(children, sample(children, random.Random(0)), RecordingContext(seed=5, **seen))
    result, _ = in_pieces(IMAGES, children, ArtifactFolder(tmp_path), **seen)
    assert whole.metrics["inherited_parameters"] > 0
    assert same_each_time(result) == same_each_time(whole)


def test_probing_for_a_rate_is_paid_once(tmp_path: Path) -> None:
    evaluator, children = TRAININGS["the best of some rates"]
    result, _ = in_pieces(evaluator, children, ArtifactFolder(tmp_path))
    assert result.cost.epochs == 2 + 3
    assert result.cost.epochs_again == 0


def test_a_child_whose_optimizer_has_a_state_of_its_own_kind_begins_anew(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def state_dict(self) -> Any:
            return {**super().state_dict(), "when": Path()}

    odd = space(optimizer=lambda parameters, rate: Odd(parameters, rate))
    context = RecordingContext(until=1)
    IMAGES.evaluate(odd, sample(odd, random.Random(0)), context)
    assert context.paused
    assert context.put_aside is None


def test_any_structure_of_tensors_and_scalars_comes_back(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    state: dict[Any, Any] = {
        "a": [1, 2.5, None, True, "x", math.inf, -0.0, 1e-300],
        3: (torch.arange(4), [torch.ones(2, dtype=torch.bfloat16)], {}),
        "empty": torch.zeros(0),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "one": torch.tensor(7),
    }
    found = unpacked(folder.get(folder.put(packed(state))))
    assert found["a"] == state["a"]
    assert str(found["a"][6]) == "-0.0"
    assert isinstance(found[3], tuple)
    assert found[3][2] == {}
    for one, other in ((found[3][0], state[3][0]), (found[3][1][0], state[3][1][0])):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    for name in ("empty", "channels last", "one"):
        assert torch.equal(found[name], state[name])
    assert math.isnan(unpacked(packed([math.nan]))[0])
    for foreign in (Path(), {1: object()}, [functools]):
        with pytest.raises(TypeError, match="cannot keep"):
            packed(foreign)


def test_a_search_with_real_trainings_equals_one_without_a_rule_as_far_as_it_goes(tmp_path: Path) -> None:
    evaluator = dataclasses.replace(IMAGES, epochs=4, keep_weights=False)
    cells = smith.spaces.ConvChain(layers=2, filters=(4, 8))
    settings: dict[str, Any] = {"trials": 6, "seed": 1}
    whole = list(smith.search(cells, evaluator, store="memory://", **settings).trials())
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    run = smith.search(cells, evaluator, store=store, stopping=ASHA(eta=2), **settings)
    states = set()
    for trial, other in zip(run.trials(), whole, strict=True):
        assert trial.result is not None
        assert other.result is not None
        states.add(trial.state)
        length = len(trial.result.curve)
        part = dataclasses.replace(other.result, curve=other.result.curve[:length])
        assert same_each_time(trial.result).curve == same_each_time(part).curve
        assert trial.result.cost.epochs == length
        if trial.state is TrialState.DONE:
            assert trial.reward == other.reward
            assert same_each_time(trial.result) == same_each_time(other.result)
    assert states == {TrialState.DONE, TrialState.STOPPED}
