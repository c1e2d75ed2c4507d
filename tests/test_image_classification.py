"""Training a child: it learns, repeats to the bit, says how it went, and fails with a reason."""

from __future__ import annotations

import dataclasses
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from archsmith.core.child import Child, Task
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import ChildFailed, Diverged, LimitExceeded, UnknownName, UsageError
from archsmith.core.evaluator import Evaluator, Limits
from archsmith.core.space import FunctionSpace, sample
from archsmith.rewards import cubed_accuracy
from archsmith.testing.evaluator import EvaluatorContract, RecordingContext
from archsmith.training import ImageClassification
from archsmith.training.isolation import resolve_precision
from archsmith.training.schedules import learning_rate_factor


def convolutions(choose):
    return [choose(f"{i}.filters", (4, 8)) for i in range(2)]


def network(architecture, task):
    layers, channels = [], task.input_shape[0]
    for filters in architecture:
        layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, task.num_classes))


SPACE = FunctionSpace(convolutions, network)
WIDE = Task((1, 8, 8), 10)
SMALL = dataclasses.replace(ImageClassification.desk(epochs=2, max_train=200), precision="fp32")


def genotype(space=SPACE, seed=0):
    import random

    return sample(space, random.Random(seed))


def child(seed=0, filters=(8, 8), task=WIDE):
    torch.manual_seed(seed)
    return Child(network(filters, task))


def evaluate(evaluator=SMALL, space=SPACE, **context):
    return evaluator.evaluate(space, genotype(space), RecordingContext(**context))


class TestContract(EvaluatorContract):
    resumes = True

    def evaluator(self):
        return SMALL

    def space(self):
        return SPACE

    def diverging(self):
        return dataclasses.replace(SMALL, learning_rate=1e30), SPACE


class TestContractWithBytesAndBf16(EvaluatorContract):
    """The path of large data: bytes that become floats batch by batch; and mixed precision."""

    resumes = True

    @pytest.fixture(autouse=True)
    def bytes_only(self, monkeypatch):
        from archsmith.training import image_batches

        monkeypatch.setattr(image_batches, "FLOATS_CAP", 0)
        image_batches.pixels_of.cache_clear()
        yield
        image_batches.pixels_of.cache_clear()

    def evaluator(self):
        return dataclasses.replace(SMALL, precision="bf16", upsample=1.25, flip=True, channels_last=False)

    def space(self):
        return SPACE


# --- what comes back ---


def test_a_child_learns_digits_in_seconds():
    evaluator = ImageClassification.desk(epochs=6)
    trained = child(filters=(16, 24))
    result = evaluator.train(trained, RecordingContext())
    assert result.metrics["accuracy"] > 0.8
    test = evaluator.test(trained.model)
    assert test["count"] == 359
    assert test["accuracy"] > 0.75
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"] / 2


def test_the_result_has_what_it_says():
    result = evaluate(dataclasses.replace(SMALL, epochs=7))
    accuracies = [row["accuracy"] for row in result.curve]
    assert result.metrics["accuracy"] == max(accuracies[-5:])
    assert result.metrics["final_accuracy"] == accuracies[-1]
    assert result.metrics["loss"] == result.curve[-1]["loss"]
    built = SPACE.build(SPACE.architecture(lambda name, options: genotype().answers[name]), SMALL.task())
    assert result.metrics["parameters"] == sum(p.numel() for p in built.parameters())
    first, second = (genotype().answers[f"{i}.filters"] for i in range(2))
    assert result.metrics["multiply_adds"] == 64 * 9 * (first + first * second) + 10 * second
    assert result.cost.epochs == 7
    assert {"epoch", "accuracy", "loss", "train_loss", "train_accuracy", "learning_rate", "seconds"} == set(
        result.curve[0]
    )
    assert SMALL.default_reward(result) == cubed_accuracy(result) == result.metrics["accuracy"] ** 3


def test_it_is_an_evaluator_that_can_be_stored_and_sent():
    assert isinstance(SMALL, Evaluator)
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    config = to_config(SMALL)
    assert config["type"] == "training.ImageClassification"
    assert from_config(config, lambda name: ImageClassification) == SMALL


def test_the_defaults_are_the_papers():
    paper = ImageClassification("cifar10")
    assert (paper.epochs, paper.learning_rate, paper.weight_decay, paper.momentum) == (50, 0.1, 1e-4, 0.9)
    assert paper.nesterov
    assert paper.whiten
    assert round(32 * paper.upsample) == 40


def test_importing_and_showing_need_no_torch():
    code = (
        "import sys; from archsmith.training import ImageClassification as I; repr(I.desk());"
        "assert not {'torch', 'sklearn', 'PIL', 'numpy'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- seeds ---


def test_the_same_seed_gives_the_same_weights_to_the_bit():
    weights = []
    for _ in range(2):
        trained = child()
        SMALL.train(trained, RecordingContext(seed=5))
        weights.append(trained.model.state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_another_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    evaluate(threads=before + 1)
    assert torch.get_num_threads() == before


def test_dropout_is_seeded_by_the_context_too():
    space = FunctionSpace(
        convolutions, lambda a, task: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, task.num_classes))
    )
    first, second = evaluate(space=space, seed=1), evaluate(space=space, seed=1)
    assert first.metrics["loss"] == second.metrics["loss"]


# --- what is trained on what ---


def spy(images):
    """A model that keeps what it is shown in training and what in evaluation mode."""

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(math.prod(images), 10)
            self.seen = {True: [], False: []}

        def forward(self, x):
            if len(x) > 1:  # a batch, and not the one image that multiply-adds are counted with
                self.seen[self.training].append(x.detach().clone().contiguous())
            return self.linear(x.flatten(1))

    return Spy()


PLAIN = dataclasses.replace(SMALL, epochs=1, pad=0, whiten=False, flip=False)


def grey_levels(tensors):
    return sorted(row.tobytes() for row in np.rint(torch.cat(tensors).numpy() * 255).astype(np.uint8).reshape(-1, 64))


def rows(images):
    return sorted(image.tobytes() for image in images.reshape(-1, 64))


def test_every_training_image_is_seen_once_an_epoch_and_no_other():
    model, splits = spy((1, 8, 8)), PLAIN.splits()
    PLAIN.train(Child(model), RecordingContext())
    assert grey_levels(model.seen[True]) == rows(splits.data.images[splits.train])
    assert grey_levels(model.seen[False]) == rows(splits.data.images[splits.validation])
    sizes = [len(batch) for batch in model.seen[True]]
    assert max(sizes) <= PLAIN.batch_size
    assert max(sizes) - min(sizes) <= 1  # no small last batch, whose statistics would be noise


def test_all_data_adds_the_validation_images_and_measures_nothing_on_them():
    model, splits = spy((1, 8, 8)), PLAIN.splits()
    result = PLAIN.train(Child(model), RecordingContext(), all_data=True)
    both = np.concatenate([splits.train, splits.validation])
    assert grey_levels(model.seen[True]) == rows(splits.data.images[both])
    assert model.seen[False] == []
    assert "accuracy" not in result.metrics
    assert "accuracy" not in result.curve[0]
    assert result.metrics["train_loss"] > 0


def test_the_test_split_is_seen_by_test_alone():
    model = spy((1, 8, 8))
    PLAIN.test(model)
    assert grey_levels(model.seen[False]) == rows(PLAIN.splits().test_images)


def test_a_model_that_gives_no_numbers_has_no_test_score():
    model = network(convolutions(lambda name, options: options[0]), PLAIN.task())
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    tested = PLAIN.test(model)
    assert math.isnan(tested["accuracy"])
    assert math.isnan(tested["loss"])
    assert tested["count"] == len(PLAIN.splits().test_labels)


def test_crops_and_flips_are_drawn_anew_each_epoch():
    model = spy((1, 8, 8))
    dataclasses.replace(PLAIN, epochs=2, pad=0.125, flip=True).train(Child(model), RecordingContext())
    half = len(model.seen[True]) // 2
    assert grey_levels(model.seen[True][:half]) != grey_levels(model.seen[True][half:])


def test_digits_are_not_mirrored_unless_asked():
    asymmetric = []
    for flip in (None, True):
        model = spy((1, 8, 8))
        dataclasses.replace(PLAIN, flip=flip).train(Child(model), RecordingContext())
        asymmetric.append(grey_levels(model.seen[True]) == rows(PLAIN.splits().data.images[PLAIN.splits().train]))
    assert asymmetric == [True, False]


def test_bytes_and_floats_give_the_same_batches(monkeypatch):
    from archsmith.training import image_batches

    config = dataclasses.replace(SMALL, epochs=1, upsample=1.25, flip=True)
    seen = []
    for cap in (0, 1 << 26):
        monkeypatch.setattr(image_batches, "FLOATS_CAP", cap)
        image_batches.pixels_of.cache_clear()
        model = spy((1, 8, 8))
        config.train(Child(model), RecordingContext())
        seen.append(torch.cat(model.seen[True] + model.seen[False]))
    image_batches.pixels_of.cache_clear()
    assert torch.equal(*seen)


def test_prediction_preprocesses_as_validation_does():
    from archsmith.nn.augment import preprocess

    config = dataclasses.replace(SMALL, epochs=1, upsample=1.25)
    model, splits = spy((1, 8, 8)), config.splits()
    config.train(Child(model), RecordingContext())
    ours = preprocess(torch.from_numpy(splits.data.images[splits.validation]), config.preprocessing)
    assert torch.allclose(ours, torch.cat(model.seen[False]), atol=1e-6)
    import json

    assert json.loads(json.dumps(config.preprocessing)) == config.preprocessing


# --- settings ---


def test_the_schedules():
    step = dataclasses.replace(SMALL, epochs=20)
    assert [learning_rate_factor(step, e) for e in (0, 9.9, 10, 14.9, 15)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    fifth = dataclasses.replace(step, decay_at=(0.25, 0.5, 0.75), decay_factor=0.2)
    assert [learning_rate_factor(fifth, e) for e in (4.9, 5, 10, 19)] == pytest.approx([1, 0.2, 0.04, 0.008])
    cosine = dataclasses.replace(step, schedule="cosine")
    assert [learning_rate_factor(cosine, e) for e in (0, 10, 20)] == pytest.approx([1, 0.5, 0])
    warm = dataclasses.replace(step, schedule="constant", warmup=2.0)
    values = [learning_rate_factor(warm, e) for e in (0, 0.5, 1, 1.5, 2, 19)]
    assert values == sorted(values)
    assert 0 < values[0] < 0.1
    assert values[-1] == 1


def test_the_curve_shows_the_learning_rate():
    curve = evaluate(dataclasses.replace(SMALL, epochs=4, decay_at=(0.5, 0.75))).curve
    assert [row["learning_rate"] for row in curve] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_adam_is_the_optimizer_where_it_is_asked_for(monkeypatch):
    made = []
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, **settings: made.append(adam(*args, **settings)) or made[0])
    config = dataclasses.replace(SMALL, optimizer="adam", learning_rate=0.002, weight_decay=0.03, schedule="constant")
    result = evaluate(config)
    (group,) = made[0].param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.002, (0.9, 0.999), 1e-8, 0.03)
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"]
    assert result.curve != evaluate(dataclasses.replace(config, optimizer="sgd")).curve
    evaluate(SMALL)
    assert len(made) == 1, "stochastic gradient descent is the default"


def test_batch_norms_take_the_epsilon():
    trained = child()
    dataclasses.replace(SMALL, epochs=1, batch_norm_epsilon=1e-3).train(trained, RecordingContext())
    assert {m.eps for m in trained.model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_what_a_child_decides_overrides_and_is_recorded():
    class Optimizer(torch.optim.SGD):
        pass

    made, batches = [], []

    def optimizer(parameters, learning_rate):
        made.append(Optimizer(parameters, learning_rate))
        return made[0]

    def augmentation(images):
        batches.append(images)
        return 1 - images

    model = spy((1, 8, 8))
    config = dataclasses.replace(SMALL, epochs=1, whiten=False, schedule="constant")
    result = config.train(Child(model, 0.02, optimizer, augmentation), RecordingContext())
    assert made[0].param_groups[0]["lr"] == 0.02
    assert result.metrics["learning_rate"] == 0.02
    assert result.curve[0]["learning_rate"] == 0.02
    assert torch.equal(model.seen[True][0], 1 - batches[0])
    assert 0 <= batches[0].min() <= batches[0].max() <= 1
    assert grey_levels(batches) == rows(config.splits().data.images[config.splits().train])


def test_weights_are_kept_when_asked():
    context = RecordingContext()
    result = dataclasses.replace(SMALL, epochs=1, keep_weights=True).evaluate(SPACE, genotype(), context)
    (weights,) = context.kept.values()
    assert result.artifact in context.kept
    assert all(w.is_contiguous() for w in weights.values())
    again = child(filters=[genotype().answers[f"{i}.filters"] for i in range(2)])
    again.model.load_state_dict(weights)
    assert evaluate(dataclasses.replace(SMALL, epochs=1)).artifact is None


def test_a_trained_model_is_left_ready_for_use():
    trained = child()
    SMALL.train(trained, RecordingContext())
    assert not trained.model.training
    assert all(p.is_contiguous() for p in trained.model.state_dict().values())


def test_both_precisions_and_layouts_learn_alike():
    accuracies = []
    for precision in ("fp32", "bf16"):
        for channels_last in (True, False):
            config = dataclasses.replace(
                ImageClassification.desk(epochs=4), precision=precision, channels_last=channels_last
            )
            accuracies.append(config.train(child(filters=(16, 16)), RecordingContext()).metrics["accuracy"])
    assert max(accuracies) - min(accuracies) < 0.12
    assert min(accuracies) > 0.6


def test_auto_precision_is_one_that_exists():
    assert resolve_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    assert resolve_precision("auto", torch.device("meta")) == "fp32"
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"


# --- failures ---


def test_divergence_is_told_from_success():
    for config in (dataclasses.replace(SMALL, learning_rate=1e30), dataclasses.replace(SMALL, learning_rate=3e38)):
        with pytest.raises(Diverged, match=r"loss .*became (nan|inf)"):
            evaluate(config)


def test_a_child_of_nan_diverges_in_its_first_batches():
    model = network((4, 4), WIDE)
    nn.init.constant_(model[0].weight, float("nan"))
    context = RecordingContext()
    with pytest.raises(Diverged):
        dataclasses.replace(SMALL, epochs=1000).train(Child(model), context)
    assert context.looks <= 2


def test_a_child_over_its_parameters_is_refused_before_training():
    with pytest.raises(LimitExceeded, match=r"has \d+ parameters; the limit is 10"):
        evaluate(limits=Limits(parameters=10))


def test_a_child_with_the_wrong_outputs_is_told_so():
    with pytest.raises(ChildFailed, match=r"one number for each class, \(60, 10\).*\(60, 3\)"):
        SMALL.train(Child(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))), RecordingContext())


def test_an_augmentation_that_changes_the_shape_is_told_so():
    broken = Child(network((4, 4), WIDE), augmentation=lambda images: images[:, :, 1:])
    with pytest.raises(ChildFailed, match="the shape must stay"):
        SMALL.train(broken, RecordingContext())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"batch_size": 1}, "batch_size must be"),
        ({"learning_rate": 0}, "learning_rate must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": float("inf")}, "learning_rate must be"),
        ({"learning_rate": "fast"}, "learning_rate must be"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"momentum": 0.0}, "nesterov=True needs a momentum"),
        ({"weight_decay": -1e-4}, "weight_decay must be"),
        ({"validation": 0.0}, "validation must be"),
        ({"validation": 1.0}, "validation must be"),
        ({"validation": 10}, "validation must be"),
        ({"decay_at": (0.75, 0.5)}, "decay_at must be fractions"),
        ({"decay_at": (10, 15)}, "decay_at must be fractions"),
        ({"decay_factor": 0.0}, "decay_factor must be"),
        ({"decay_factor": 1}, "decay_factor must be"),
        ({"warmup": 50}, "warmup must be"),
        ({"upsample": 0.5}, "upsample must be"),
        ({"label_smoothing": 1.0}, "label_smoothing must be"),
        ({"size": 2}, "size must be"),
        ({"channels": 2}, "channels must be 1, 3 or None"),
        ({"max_train": 0}, "max_train must be"),
        ({"split_seed": -1}, "split_seed must be"),
        ({"batch_norm_epsilon": 0.0}, "batch_norm_epsilon must be"),
        ({"pad": 1}, "pad must be"),
        ({"data": " "}, "data must name"),
    ],
)
def test_options_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        ImageClassification(**settings)


@pytest.mark.parametrize("settings", [{"schedule": "cosin"}, {"precision": "fp16"}, {"optimizer": "adan"}])
def test_unknown_words_get_the_nearest(settings):
    with pytest.raises(UnknownName, match="did you mean"):
        ImageClassification(**settings)


def test_too_few_images_for_the_options_are_refused():
    with pytest.raises(UsageError, match="max_train must be at least twice the 10 classes"):
        ImageClassification(max_train=12).task()


@pytest.mark.cuda
def test_a_gpu_sees_the_same_batches_and_learns():
    evaluator = ImageClassification.desk(epochs=6)
    trained = child(filters=(16, 24))
    result = evaluator.train(trained, RecordingContext(device="cuda:0"))
    assert result.metrics["accuracy"] > 0.8
    assert evaluator.test(trained.model, "cuda:0")["accuracy"] > 0.75
    assert evaluator.test(trained.model, "cpu")["count"] == 359


def test_a_path_is_kept_as_one_that_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "digits").mkdir()  # a name of archsmith's stays that
    monkeypatch.chdir(tmp_path)
    assert ImageClassification("pictures").data == str(tmp_path / "pictures")
    assert ImageClassification("digits").data == "digits"
    assert ImageClassification("not/there").data == "not/there"
