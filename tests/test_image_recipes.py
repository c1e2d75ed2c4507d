"""Modern training of images: crops, colours, mixtures, sizes that grow, averaged weights, schedules, seconds, child's settings."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import archsmith as smith
from archsmith.core.child import Child, Task, as_child, decided_by
from archsmith.core.config import to_config
from archsmith.core.errors import ChildFailed, UnknownName, UsageError
from archsmith.core.space import FunctionSpace, sample
from archsmith.core.trial import Result
from archsmith.executors.plain_results import plain_result
from archsmith.nn.augment import preprocess, whiten
from archsmith.testing.evaluator import EvaluatorContract, RecordingContext
from archsmith.training import ImageClassification
from archsmith.training.image_fitting import Targets, training_size
from archsmith.training.schedules import area_share, learning_rate_factor, side_at
from archsmith.training.weight_average import WeightAverage

RNG = np.random.default_rng(0)
COLOURS = np.kron(RNG.integers(0, 256, (60, 6, 6, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)  # 24 x 24
LABELS = np.arange(60) % 3
PICTURES = ImageClassification(
    (COLOURS, LABELS), epochs=2, batch_size=16, learning_rate=0.05, precision="fp32", upsample=1.0, validation=0.2
)
EVERYTHING: dict[str, Any] = {
    "size": 16,
    "source_size": 24,
    "crop": "resized",
    "colour": 0.3,
    "policy": "trivial",
    "mix": "cutmix",
    "train_size": 24,
    "first_size": 8,
    "average": 0.9,
    "decay_norms": False,
    "optimizer": "adamw",
    "schedule": "trapezoid",
    "warmup_share": 0.1,
}


def network(task: Task) -> nn.Module:
    channels = task.input_shape[0]
    layers = [nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, task.num_classes))


def space(**parts: Any) -> FunctionSpace:
    return FunctionSpace(lambda choose: choose("x", (1,)), lambda architecture, task: Child(network(task), **parts))


def run(config: ImageClassification, children: Any = None, **context: Any) -> Result:
    children = children or space()
    return config.evaluate(children, sample(children, random.Random(0)), RecordingContext(**context))


class Spy(nn.Module):
    """A network that keeps what it is shown, in training and in evaluation mode."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(classes)
        self.norm = nn.BatchNorm2d(1)
        self.seen: dict[bool, list[Tensor]] = {True: [], False: []}

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            self.seen[self.training].append(x.detach().clone())
        y: Tensor = self.linear(self.norm(x.mean(1, keepdim=True)).mean((2, 3)))
        return y


def seen(config: ImageClassification, *, child: Child | None = None, **context: Any) -> dict[bool, list[Tensor]]:
    spy = Spy(3)
    spy(torch.zeros(1, 3, 8, 8))
    config.train(dataclasses.replace(child, model=spy) if child else Child(spy), RecordingContext(**context))
    return spy.seen


def one(**settings: Any) -> ImageClassification:
    return dataclasses.replace(PICTURES, epochs=1, whiten=False, flip=False, **settings)


# --- the pictures -----------------------------------------------------------------------------------------------------


class TestContractWithEverything(EvaluatorContract):
    resumes = True

    def evaluator(self) -> ImageClassification:
        return dataclasses.replace(PICTURES, **EVERYTHING)

    def space(self) -> FunctionSpace:
        return space()

    def diverging(self) -> tuple[ImageClassification, FunctionSpace]:
        return dataclasses.replace(self.evaluator(), optimizer="sgd", learning_rate=1e30, schedule="constant"), space()


def test_nothing_changes_what_is_recorded_of_settings_that_are_off() -> None:
    assert not set(EVERYTHING) - {"size", "optimizer", "schedule"} & set(to_config(PICTURES))
    assert to_config(dataclasses.replace(PICTURES, colour=0.3))["colour"] == 0.3


def test_whole_pictures_come_as_they_are() -> None:
    shown = torch.cat(seen(one(crop="none", upsample=1.25, pad=0.2))[True])
    splits = PICTURES.splits()
    expected = splits.data.images[splits.train].transpose(0, 3, 1, 2)
    assert sorted(np.rint(shown.numpy() * 255).astype(np.uint8).reshape(len(shown), -1).tolist()) == sorted(
        expected.reshape(len(expected), -1).tolist()
    )


@pytest.mark.parametrize("crop", ["none", "shift", "resized"])
@pytest.mark.parametrize("whitened", [False, True])
def test_sides_ranges_and_whitening(crop: str, whitened: bool) -> None:
    config = one(crop=crop, source_size=24, size=16, train_size=12, colour=0.4, policy="autoaugment_cifar10", pad=0.1)
    pictures = seen(dataclasses.replace(config, whiten=whitened))
    assert {tuple(batch.shape[1:]) for batch in pictures[True]} == {(3, 12, 12)}
    assert {tuple(batch.shape[1:]) for batch in pictures[False]} == {(3, 16, 16)}
    shown = torch.cat(pictures[True])
    if not whitened:
        assert shown.min() >= -1e-6
        assert shown.max() <= 1 + 1e-6
    elif crop != "shift":  # which is standardised before zeros are put around
        assert shown.mean((1, 2, 3)).abs().max() < 1e-5
        assert torch.allclose(shown, whiten(shown), atol=1e-4)


def test_each_setting_changes_the_pictures_and_the_seed_repeats_them() -> None:
    plain = torch.cat(seen(one(crop="none"))[True])
    settings: list[dict[str, Any]] = [
        {"crop": "resized"},
        {"crop": "none", "colour": 0.3},
        {"crop": "none", "policy": "trivial"},
        {"crop": "none", "policy": "autoaugment_imagenet"},
        {"crop": "none", "mix": "mixup"},
        {"crop": "none", "mix": "cutmix"},
        {"crop": "none", "flip": True},
    ]
    for changed in settings:
        config = dataclasses.replace(one(), **changed)
        first, second = (torch.cat(seen(config)[True]) for _ in range(2))
        assert torch.equal(first, second), changed
        assert not torch.equal(first, plain), changed
        assert not torch.equal(torch.cat(seen(config, seed=1)[True]), first), changed


def test_grey_and_tiny_pictures_are_cropped_coloured_and_mixed() -> None:
    config = dataclasses.replace(
        ImageClassification.desk("digits", epochs=1, max_train=100), **EVERYTHING, precision="fp32"
    )
    config = dataclasses.replace(config, size=None, source_size=None, first_size=8, train_size=16)
    assert run(config).metrics["accuracy"] >= 0
    spy = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    with torch.no_grad():
        spy(torch.zeros(1, 1, 8, 8))
    plain = dataclasses.replace(config, first_size=None, train_size=None)
    assert plain.train(Child(spy), RecordingContext()).metrics["accuracy"] >= 0


def test_a_childs_augmentation_comes_in_place_of_the_settings() -> None:
    batches = []

    def augmentation(images: Tensor) -> Tensor:
        batches.append(images)
        return images

    shown = seen(
        one(crop="resized", colour=0.5, policy="trivial"), child=Child(nn.Identity(), augmentation=augmentation)
    )
    assert torch.equal(torch.cat(shown[True]), torch.cat(batches))


def test_the_loss_of_mixed_labels_has_their_weights() -> None:
    outputs, labels, others = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 0, 2])
    soft = 0.3 * nn.functional.one_hot(labels, 3) + 0.7 * nn.functional.one_hot(others, 3)
    expected = nn.functional.cross_entropy(outputs, soft, label_smoothing=0.1)
    assert Targets(labels, others, 0.3).loss(outputs, 0.1).item() == pytest.approx(expected.item(), rel=1e-5)


def test_sides_grow_in_steps_of_eight() -> None:
    sides = [side_at(share / 100, 32, 64) for share in range(101)]
    assert sides == sorted(sides)
    assert sorted(set(sides)) == [32, 40, 48, 56, 64]
    assert sides[80] == 64
    assert sides[79] == 56
    assert sides.count(32) == sides.count(48) == 20
    assert [side_at(share, 20, 33) for share in (0, 0.5, 1)] == [20, 28, 33]
    assert side_at(0.3, 64, 64) == 64


@pytest.mark.parametrize(("first", "last"), [(32, 64), (24, 48), (20, 33), (64, 64)])
def test_the_area_of_growing_pictures_is_the_mean_over_the_training(first: int, last: int) -> None:
    mean = sum(side_at((share + 0.5) / 10_000, first, last) ** 2 for share in range(10_000)) / 10_000
    assert area_share(first, last) == pytest.approx(mean / last**2, abs=1e-3)
    config = dataclasses.replace(PICTURES, train_size=24, first_size=8, epochs=5, crop="resized")
    widths = [batch.shape[3] for batch in seen(config)[True]]
    assert widths == sorted(widths)
    assert set(widths) == {8, 16, 24}
    assert training_size(PICTURES, (3, 5), 0.5) == (3, 5)


# --- the size of the input --------------------------------------------------------------------------------------------


def test_held_pictures_are_larger_than_the_input() -> None:
    config = one(size=12, source_size=24, crop="resized")
    assert config.task() == Task((3, 12, 12), 3)
    assert config.splits().data.images.shape[1:] == (24, 24, 3)
    assert config.data_record()["shape"] == [12, 12, 3]
    small = dataclasses.replace(config, source_size=None)
    assert np.array_equal(config.test_images(), small.splits().test_images)
    assert config.preprocessing == small.preprocessing
    assert config.preprocessing["upsample"] == 1.0
    shown = torch.cat(seen(config)[False])
    expected = preprocess(torch.from_numpy(small.splits().data.images[small.splits().validation]), config.preprocessing)
    assert shown.shape == expected.shape
    assert (shown - expected).abs().max() <= 1.01 / 255  # Pillow's rounding and torch's


def test_probabilities_agree_with_test_and_validation() -> None:
    config = dataclasses.replace(PICTURES, size=12, source_size=24, epochs=3, crop="resized", average=0.5)
    children = space()
    child = children.build(children.architecture(lambda name, options: options[0]), config.task())
    result = config.train(child, RecordingContext())
    splits = config.splits()
    for split, labels in (("validation", splits.data.labels[splits.validation]), ("test", splits.test_labels)):
        rows = config.probabilities(child.model, split)
        assert rows.dtype == torch.float32
        assert rows.shape == (len(labels), 3)
        assert torch.allclose(rows.sum(1), torch.ones(len(rows)), atol=1e-5)
        accuracy = float((rows.argmax(1).numpy() == labels).mean())
        expected = result.metrics["final_accuracy"] if split == "validation" else config.test(child.model)["accuracy"]
        assert accuracy == pytest.approx(expected)
    with pytest.raises(UnknownName, match="validation"):
        config.probabilities(child.model, "train")


# --- weights and steps ------------------------------------------------------------------------------------------------


def test_the_average_is_that_of_weights_and_buffers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average, expected = WeightAverage(model, 0.5), {k: v.clone() for k, v in model.state_dict().items()}
    for steps in range(1, 21):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.add_(1)
        decay = min(0.5, (1 + steps) / (10 + steps))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
        average.update()
    raw = {k: v.clone() for k, v in model.state_dict().items()}
    with average.applied():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                assert torch.allclose(value, expected[name])
    assert all(torch.equal(value, raw[name]) for name, value in model.state_dict().items())


def test_the_averaged_weights_are_validated_and_kept() -> None:
    config = dataclasses.replace(PICTURES, average=0.95, keep_weights=True, epochs=2)
    children, context = space(), RecordingContext()
    genotype = sample(children, random.Random(0))
    result = config.evaluate(children, genotype, context)
    child = children.build(children.architecture(lambda name, options: options[0]), config.task())
    child.model.load_state_dict(context.kept[result.artifact or ""])
    rows = config.probabilities(child.model, "validation")
    labels = config.splits().data.labels[config.splits().validation]
    loss = float(-rows[torch.arange(len(rows)), torch.from_numpy(labels)].log().mean())
    assert loss == pytest.approx(result.metrics["loss"], abs=1e-4)
    assert result.metrics["loss"] != run(dataclasses.replace(config, average=0.0, keep_weights=False)).metrics["loss"]


def test_norms_and_biases_need_not_decay() -> None:
    made: list[torch.optim.Optimizer] = []
    from archsmith.training.optimizers import optimizer_of

    for name in ("sgd", "adam", "adamw", "rmsprop"):
        config = dataclasses.replace(PICTURES, optimizer=name, weight_decay=0.1, decay_norms=False)
        made.append(optimizer_of(config, Child(network(Task())), 0.1))
        decays = {p.dim(): g["weight_decay"] for g in made[-1].param_groups for p in g["params"]}
        assert decays == {4: 0.1, 2: 0.1, 1: 0.0}
    assert [type(optimizer).__name__ for optimizer in made] == ["SGD", "Adam", "AdamW", "RMSprop"]
    (whole,) = optimizer_of(PICTURES, Child(network(Task())), 0.1).param_groups
    assert len(whole["params"]) == 5


def test_the_new_schedules() -> None:
    base = dataclasses.replace(PICTURES, epochs=20)
    linear = dataclasses.replace(base, schedule="linear")
    assert [learning_rate_factor(linear, e) for e in (0, 5, 20)] == pytest.approx([1, 0.75, 0])
    trapezoid = dataclasses.replace(base, schedule="trapezoid")
    assert [learning_rate_factor(trapezoid, e) for e in (0, 5, 12.5, 20)] == pytest.approx([1, 1, 0.5, 0])
    warm = dataclasses.replace(base, schedule="constant", warmup_share=0.1)
    values = [learning_rate_factor(warm, e) for e in (0, 0.5, 1, 2, 20)]
    assert values == pytest.approx([0.01, 0.26, 0.51, 1, 1])
    timed = dataclasses.replace(base, schedule="step", epochs=1, seconds=10.0)
    assert [learning_rate_factor(timed, 0.01, share) for share in (0, 0.5, 0.8)] == pytest.approx([1, 0.1, 0.01])


# --- seconds ----------------------------------------------------------------------------------------------------------


def test_a_training_of_seconds_ends_when_they_are_over() -> None:
    config = dataclasses.replace(PICTURES, epochs=100_000, seconds=0.6, schedule="linear", train_size=16, first_size=8)
    context = RecordingContext()
    result = config.evaluate(space(), sample(space(), random.Random(0)), context)
    assert 1 < len(result.curve) < 100_000
    assert result.metrics["train_seconds"] >= 0.6
    assert result.curve[0]["learning_rate"] > result.curve[-1]["learning_rate"]
    assert result.curve[-1]["learning_rate"] < 0.01  # of 0.05
    assert "accuracy" in result.curve[-1]
    assert result.metrics["images_per_second"] > 0
    assert [epoch for epoch, _ in context.reported] == [row["epoch"] for row in result.curve]


def test_the_fewest_seconds_train_a_batch_and_validate() -> None:
    result = run(dataclasses.replace(PICTURES, seconds=1e-9))
    assert len(result.curve) == 1
    assert math.isfinite(result.metrics["accuracy"])


def test_epochs_end_a_training_that_has_time() -> None:
    result = run(dataclasses.replace(PICTURES, seconds=1e6, epochs=3, schedule="cosine"))
    assert len(result.curve) == 3
    assert "accuracy" in result.curve[-1]
    assert (
        result.curve[-1]["learning_rate"] < result.curve[0]["learning_rate"] / 2
    )  # the schedule runs over the epochs then


# --- what a child decides ---------------------------------------------------------------------------------------------


def test_a_child_decides_settings_and_the_result_says_so() -> None:
    settings = {"weight_decay": 0.01, "crop": "resized", "size": 12, "optimizer": "adamw", "decay_at": [0.3]}
    expected = dataclasses.replace(PICTURES, **{**settings, "decay_at": (0.3,), "source_size": 24})
    assert decided_by(Child(nn.Identity(), settings=settings), PICTURES) == expected
    result, same = run(PICTURES, space(settings=settings)), run(expected)
    assert [row["train_loss"] for row in result.curve] == [row["train_loss"] for row in same.curve]
    assert result.settings == settings
    assert Result.from_json(plain_result(result).to_json()).settings == settings
    assert "settings" not in same.to_json()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 3}, "cannot decide epochs"),
        ({"data": "digits", "split_seed": 1, "seconds": 3}, "cannot decide data, seconds, split_seed"),
        ({"no such": 1}, "cannot decide no such"),
        ({"optimizer": "adan"}, "not allowed.*optimizer"),
        ({"train_size": 7}, "not allowed.*train_size"),
        ({"weight_decay": -1}, "not allowed.*weight_decay"),
        ({"decay_at": 0.5}, "not allowed"),
        ({"momentum": 0.0}, "not allowed.*nesterov"),
    ],
)
def test_settings_that_a_child_cannot_decide_fail_it(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ChildFailed, match=words):
        run(PICTURES, space(settings=settings))


def test_an_evaluator_without_settings_says_so() -> None:
    with pytest.raises(ChildFailed, match="decides lr, and object takes no settings"):
        decided_by(Child(nn.Identity(), settings={"lr": 1}), object())


# --- checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"crop_area": 0}, "crop_area must be"),
        ({"colour": 1.5}, "colour must be"),
        ({"colour": True}, "colour must be"),
        ({"average": 1}, "average must be"),
        ({"decay_from": 1}, "decay_from must be"),
        ({"warmup_share": -0.1}, "warmup_share must be"),
        ({"seconds": 0}, "seconds must be"),
        ({"seconds": math.inf}, "seconds must be"),
        ({"train_size": 4}, "train_size must be a whole number from 8"),
        ({"train_size": 4096}, "train_size must be a whole number from 8"),
        ({"size": 32, "train_size": 256}, "at most four times the input's side, which is 32"),
        ({"size": 32, "first_size": 40}, "first_size must be at most train_size"),
        ({"source_size": 64}, "source_size must be at least size.*give both"),
        ({"source_size": 64, "size": 96}, "source_size must be at least size"),
        ({"continues": 1}, "continues must be True or False"),
        ({"decay_norms": None}, "decay_norms must be True or False"),
        ({"crop": "resize"}, "did you mean"),
        ({"policy": "autoaugment_cifar"}, "did you mean"),
        ({"mix": "cutmixx"}, "did you mean"),
        ({"mix": 3}, "mix"),
        ({"optimizer": "adamww"}, "did you mean"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, UnknownName), match=words):
        ImageClassification(**settings)


def test_sizes_that_only_the_data_tell_are_checked_with_them() -> None:
    wide = ImageClassification((np.zeros((60, 8, 12, 3), np.uint8), LABELS), crop="resized")
    with pytest.raises(UsageError, match="square pictures, and these are 8 x 12"):
        wide.task()
    with pytest.raises(UsageError, match="at most four times the input's side, which is 8"):
        ImageClassification("digits", train_size=40).task()
    with pytest.raises(UsageError, match="have 4 channels"):
        ImageClassification((np.zeros((60, 8, 8, 4), np.uint8), LABELS), colour=0.3).task()


class Decided(smith.spaces.ConvChain):
    """Chains whose children decide how they are trained, and with that what stands before them in an export."""

    def build(self, architecture: Any, task: Any) -> Child:
        return dataclasses.replace(
            as_child(super().build(architecture, task)), settings={"crop": "resized", "size": 12, "whiten": False}
        )


def test_finish_and_export_see_pictures_as_the_child_decided(tmp_path: Path) -> None:
    config = dataclasses.replace(PICTURES, epochs=1, upsample=1.25)
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    chains = Decided(layers=1, filters=(4,))
    done = smith.search(chains, config, trials=1, store=store, name="decided", seed=1)
    finished = smith.finish(done, top=1, grid={}, epochs=1, seeds=1)
    model = smith.load(smith.export(done, tmp_path / "model"), space=chains)
    assert model.preprocessing["upsample"] == 1.0
    assert (model.preprocessing["height"], model.preprocessing["whiten"]) == (12, False)
    decided = decided_by(Child(nn.Identity(), settings={"crop": "resized", "size": 12, "whiten": False}), config)
    assert decided.test(model.network)["accuracy"] == finished.networks[0].scores[0]
