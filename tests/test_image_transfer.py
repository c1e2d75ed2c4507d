"""Carrying networks of images over: classifiers, ways, what is begun with, scaling, going on, one look, the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import archsmith as smith
from archsmith._search.trainings import TrainingProgress
from archsmith._transfer import Correlated, Transferred, correlate, estimate, multiply_adds_of, transfer
from archsmith._transfer.carried import carried
from archsmith._transfer.contest import Asked, prepare
from archsmith._transfer.found import source_of
from archsmith._transfer.scaling import Scale, scaled
from archsmith.cli.main import main
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.child import Task
from archsmith.core.errors import ChildFailed, DataError, RunLocked, UnknownName, UsageError
from archsmith.core.space import build, sample
from archsmith.nn.classifier import classifier_of, load_body, reading_features, replace_classifier
from archsmith.nn.count import count, count_parameters
from archsmith.nn.resnet import resnet20
from archsmith.training import ImageClassification
from archsmith.training.linear_probe import STRENGTHS, logistic_regression

SPACES: dict[str, Any] = {
    "chain": smith.spaces.ConvChain(layers=2, filters=(6, 8)),
    "cells": smith.spaces.NASNetCell(blocks=2, cells=1, filters=4, auxiliary=0.4),
    "qnet": smith.spaces.QNet(
        image_size=12, max_layers=3, filters=(8, 12), fc_widths=(16, 12), dense_side=2, batch_norm=True
    ),
    "nasbench": smith.spaces.NASBench201(channels=4, repeats=1),
}
SPACE = SPACES["chain"]


def images(path: Path, classes: int, n: int, shape: tuple[int, ...], seed: int = 0) -> Path:
    """Images of bright bars, whose place tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    pixels = rng.integers(0, 60, (n, *shape))
    width = shape[1] // classes
    for i, k in enumerate(labels):
        pixels[i, :, k * width : (k + 1) * width] += 150
    np.savez(path, x_train=pixels.astype(np.uint8), y_train=labels)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a search and of random search beside it, finished; and other data."""
    folder = tmp_path_factory.mktemp("finished")
    settings = dataclasses.replace(
        ImageClassification.desk(str(images(folder / "here.npz", 3, 120, (12, 12))), epochs=1), batch_size=32
    )
    store = f"sqlite:///{folder}/runs.db"
    for name, seed in (("found", 0), ("found-random", 5)):
        searcher: Any = smith.searchers.Random()
        if name == "found":
            searcher = smith.searchers.RegularizedEvolution(population=2, sample=1)
        smith.search(SPACE, settings, searcher=searcher, trials=4, store=store, name=name, seed=seed)
    smith.finish(smith.open_run(store, "found"), top=1, grid={"batch_norm_epsilon": (1e-3,)}, epochs=2, seeds=2)
    smith.search(SPACE, settings, trials=3, store=store, name="unfinished")
    images(folder / "there.npz", 4, 160, (16, 16, 3), seed=1)
    images(folder / "else.npz", 2, 120, (10, 10), seed=2)
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """A copy, to write to."""
    return Path(shutil.copytree(finished, tmp_path / "place"))


def opened(place: Path, name: str = "found") -> smith.Run:
    return smith.open_run(f"sqlite:///{place}/runs.db", name)


class Counted:
    """A `watch` that remembers, and may end the transfer."""

    def __init__(self, stop_after: int = 99) -> None:
        self.events: list[TrainingProgress] = []
        self.stop_after = stop_after

    def __call__(self, event: TrainingProgress) -> None:
        self.events.append(event)
        if event.stage != "testing" and event.epoch == 0 and event.label and event.done >= self.stop_after:
            raise KeyboardInterrupt

    @property
    def trained(self) -> list[str]:
        return [e.label for e in self.events if e.stage != "testing" and e.epoch == 0 and e.label]


# --- classifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_new_classifier_on_the_same_body(space: Any) -> None:
    task, rng = Task((1, 12, 12), 3), Random(1)
    for _ in range(4):
        genotype = sample(space, rng)
        torch.manual_seed(0)
        old = build(space, genotype, task).model.eval()
        name, layer = classifier_of(old, task.input_shape)
        assert layer.out_features == 3
        torch.manual_seed(1)
        new = build(space, genotype, task).model
        assert replace_classifier(new, task.input_shape, 5) == name
        load_body(new, old.state_dict(), name)
        new.eval()
        x = torch.rand(2, 1, 12, 12)
        with torch.no_grad(), reading_features(layer) as theirs:
            logits = old(x)
        with torch.no_grad(), reading_features(classifier_of(new, task.input_shape)[1]) as ours:
            assert new(x).shape == (2, 5)
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(logits, layer(theirs[0]))


def test_an_auxiliary_head_stays_behind() -> None:
    task = Task((1, 16, 16), 3)
    space = SPACES["cells"]
    genotype = sample(space, Random(0))
    old = build(space, genotype, task).model
    assert old.auxiliary is not None
    new = build(space, genotype, task).model
    name = replace_classifier(new, task.input_shape, 7)
    load_body(new, old.state_dict(), name)
    assert new.auxiliary is None
    assert new.train().forward_with_auxiliary(torch.rand(2, 1, 16, 16))[1] is None  # type: ignore[operator]


def test_weights_of_another_network_are_refused() -> None:
    new = resnet20(Task((1, 12, 12), 3))
    name = replace_classifier(new, (1, 12, 12), 4)
    with pytest.raises(UsageError, match=r"the finished weights do not fit .* give images the size and channels"):
        load_body(new, resnet20(Task((3, 12, 12), 3)).state_dict(), name)
    with pytest.raises(UsageError, match="does not end in a linear layer"):
        classifier_of(nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Softmax(1)), (1, 3, 3))


# --- fixed features -----------------------------------------------------------------------------------------------------


def features_of(n: int, classes: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 6))
    labels = np.arange(n) % classes
    x = centres[labels] + noise * rng.normal(size=(n, 6))
    return np.concatenate([100 * x, np.full((n, 1), 7.0)], 1), labels  # of another scale, and with a dead unit


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_logistic_regression_as_a_linear_layer(classes: int) -> None:
    train, labels = features_of(300, classes, 0)
    valid, wanted = features_of(150, classes, 1)
    fit = logistic_regression(train, labels, valid, wanted)
    logits = valid @ fit.weight.T.astype(np.float64) + fit.bias
    assert fit.weight.shape == (classes, 7)
    assert float((logits.argmax(1) == wanted).mean()) == pytest.approx(fit.accuracy, abs=0.01)
    assert fit.accuracy > 1.5 / classes
    assert not fit.weight[:, 6].any()
    assert fit.strength in STRENGTHS


def test_validation_chooses_the_strength_of_l2() -> None:
    """Of labels by chance nothing is learned but by heart: stronger is better. Of clean ones the weakest learn as well."""
    from sklearn.linear_model import LogisticRegression

    train, labels = features_of(80, 3, 0, noise=3.0)
    valid, wanted = features_of(200, 3, 1, noise=3.0)
    fit = logistic_regression(train, labels, valid, wanted)
    mean, deviation = train.mean(0), np.where(train.std(0) > 0, train.std(0), np.inf)
    scores = [
        LogisticRegression(C=1 / s, max_iter=2000)
        .fit((train - mean) / deviation, labels)
        .score((valid - mean) / deviation, wanted)
        for s in STRENGTHS
    ]
    assert fit.accuracy == pytest.approx(max(scores), abs=0.011)
    assert fit.strength > STRENGTHS[-1]


# --- scaling ------------------------------------------------------------------------------------------------------------


def test_networks_of_cells_grow() -> None:
    task = Task((3, 32, 32), 10)
    nasnet = source_of("nasnet_a").candidates[0].network
    small = scaled(nasnet, Scale(cells=1, filters=8), task)
    assert small.what["cells"] == 1  # type: ignore[index]
    assert small.what["filters"] == 8  # type: ignore[index]
    assert scaled(nasnet, Scale(cells=6, filters=32), task).sized(task)[:2] == (3_346_538, 544_333_312)
    budget = 20_000_000
    fitting = scaled(nasnet, Scale(cells=2, multiply_adds=budget), task)
    filters = fitting.what["filters"]  # type: ignore[index]
    assert fitting.sized(task)[1] <= budget < scaled(nasnet, Scale(cells=2, filters=filters + 1), task).sized(task)[1]


def test_networks_of_the_benchmark_grow() -> None:
    task = Task((3, 32, 32), 10)
    found = carried(SPACES["nasbench"], sample(SPACES["nasbench"], Random(3)))
    wide = scaled(found, Scale(cells=5, filters=16), task)
    assert wide.space == smith.spaces.NASBench201()
    budget = 10_000_000
    fitting = scaled(found, Scale(multiply_adds=budget), task)
    more = dataclasses.replace(fitting.space, channels=fitting.space.channels + 1)  # type: ignore[attr-defined, type-var]
    assert fitting.sized(task)[1] <= budget < dataclasses.replace(fitting, space=more).sized(task)[1]
    with pytest.raises(UsageError, match=r"multiply_adds must be at least .* at its narrowest"):
        scaled(found, Scale(multiply_adds=10), task)


def test_networks_of_mobile_blocks_grow() -> None:
    task = Task((3, 224, 224), 1000)
    small = source_of("mnasnet_small").candidates[0].network
    a1 = source_of("mnasnet_a1").candidates[0].network
    assert scaled(a1, Scale(width=1.4), task).sized(task)[0] == 6_105_992
    fitting = scaled(small, Scale(multiply_adds=100_000_000), task)
    assert small.sized(task)[1] < fitting.sized(task)[1] <= 100_000_000
    with pytest.raises(UsageError, match="cells is no size of a network of MobileBlocks"):
        scaled(small, Scale(cells=2), task)
    with pytest.raises(UsageError, match="width must be a number above 0"):
        scaled(small, Scale(width=-1), task)
    with pytest.raises(UsageError, match="either width or multiply-adds"):
        Scale(width=2, multiply_adds=10)
    with pytest.raises(UsageError, match="width is no size of a network of NASNetCell"):
        scaled(source_of("nasnet_a").candidates[0].network, Scale(width=2), task)


def test_what_cannot_grow() -> None:
    for name in ("nas_conv_v1", "metaqnn_top"):
        with pytest.raises(UsageError, match="cannot be scaled: it is no stack of cells"):
            scaled(source_of(name).candidates[0].network, Scale(filters=8), Task())
    with pytest.raises(UsageError, match="either filters or multiply-adds"):
        Scale(filters=3, multiply_adds=100)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="cells of a scaled network must be a whole number"):
            Scale(cells=wrong)  # type: ignore[arg-type]


def test_multiply_adds_as_people_write_them() -> None:
    given = ("600M", "1.5g", " 25000000", "2,000,000", "3k")
    assert [multiply_adds_of(t) for t in given] == [600_000_000, 1_500_000_000, 25_000_000, 2_000_000, 3_000]
    for wrong in ("", "M", "-5M", "six", "0", "1e9", "9" * 50):
        with pytest.raises(UsageError, match="multiply-adds must be a number such as 600M"):
            multiply_adds_of(wrong)


# --- what is begun with -------------------------------------------------------------------------------------------------


def test_names_genotypes_runs_and_models(place: Path, tmp_path: Path) -> None:
    assert source_of("amoebanet_a").subject == "network amoebanet_a"
    genotype = sample(SPACE, Random(0))
    assert source_of(genotype).name.startswith("convchain-")
    assert source_of(json.dumps(genotype.to_json())).candidates[0].network.what == genotype
    assert source_of(opened(place, "unfinished")).finished is None
    source = source_of(opened(place))
    assert source.finished is not None
    assert source.finished.task == Task((1, 12, 12), 3)
    assert [len(c.weights) for c in source.candidates] == [2] * len(source.candidates)
    model = smith.load(smith.export(opened(place), path=tmp_path / "model"))
    exported = source_of(model)  # type: ignore[arg-type]
    assert exported.candidates[0].network.what == source.candidates[0].network.what
    assert list(exported.tensors) == ["given"]
    for name in ("nas_cell",):
        with pytest.raises(UsageError, match="reads no images"):
            source_of(name)


def test_the_searched_data_need_not_be_there(place: Path) -> None:
    (place / "here.npz").unlink()
    source = source_of(opened(place))
    contest = prepare(source, str(place / "there.npz"), Asked(epochs=1))
    assert contest.ways == ("scratch", "fine-tune", "features")
    assert contest.evaluator.task() == Task((1, 12, 12), 4)


def test_what_has_no_weights_is_refused(place: Path) -> None:
    data = str(place / "there.npz")
    for thing in ("nasnet_a", opened(place, "unfinished")):
        with pytest.raises(
            UsageError, match=r"has no finished weights, and fine-tune begins with some: finish the run"
        ):
            transfer(thing, data=data, how="fine-tune")
    with pytest.raises(UsageError, match="exclude each other"):
        transfer(opened(place), data=data, how="features", cells=2)
    with pytest.raises(UnknownName, match="no way of a transfer is named 'finetune'; did you mean 'fine-tune'"):
        transfer(opened(place), data=data, how="finetune")
    with pytest.raises(UsageError, match="needs data"):
        transfer(opened(place))
    with pytest.raises(DataError, match="there is no file or folder"):
        transfer(opened(place), data="no/where")
    with pytest.raises(UsageError, match="scale='paper' is for cells"):
        transfer(opened(place), data=data, scale="paper")
    with pytest.raises(UsageError, match="are for networks of images"):
        transfer("nas_cell", data=data, how="scratch")
    with pytest.raises(UsageError, match="the finished weights do not fit"):
        transfer(opened(place), data=data, how="fine-tune", channels=3, epochs=1)


# --- a transfer ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def carried_over(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Transferred, Path, Counted]:
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("over") / "place"))
    watch = Counted()
    done = transfer(opened(folder), data=str(folder / "there.npz"), seeds=2, epochs=2, watch=watch)
    return done, folder, watch


def test_all_three_ways_with_what_stands_beside(carried_over: tuple[Transferred, Path, Counted]) -> None:
    done, folder, watch = carried_over
    at = {(n.how, n.name): n for n in done.networks}
    names = list(dict.fromkeys(n.name for n in done.networks))
    assert names[:2] == ["found", "residual network"]
    assert set(at) == {(way, name) for way in ("scratch", "fine-tune", "features") for name in names}
    assert len(watch.trained) == 2 * len(at)
    assert done.looks == 1
    assert done.test_count == 32
    assert all(s.failure is None and s.score is not None for n in done.networks for s in n.scores)
    assert all(n.by_seed.keys() == {0, 1} for n in done.networks)
    assert len({n.parameters for n in done.networks if n.name == "found"}) == 1
    for way in ("scratch", "fine-tune"):
        assert [s.seed for s in at[way, "found"].scores] == [s.seed for s in at[way, "residual network"].scores]
    rate = done.evaluator["learning_rate"]
    assert at["fine-tune", "found"].settings["learning_rate"] == pytest.approx(rate / 10)
    assert "learning_rate" not in at["scratch", "found"].settings
    assert at["features", "found"].cost.epochs == 0
    assert sum(c.sentence.startswith("Fine-tuned: ") for c in done.comparisons) == len(names)
    assert "the same network from scratch" in done.claim
    assert "All ways had images of 1 x 12 x 12" in done.claim
    assert len(done.table()) == 1 + len(at)
    assert Transferred.from_json(json.loads(json.dumps(done.to_json()))) == done
    again = Counted()
    assert transfer(opened(folder), data=str(folder / "there.npz"), seeds=2, epochs=2, watch=again) == done
    assert not again.events


def test_fixed_features_are_those_of_the_finished_weights(carried_over: tuple[Transferred, Path, Counted]) -> None:
    done, folder, _ = carried_over
    artifacts = ArtifactFolder(str(opened(folder).store.artifacts))
    document = opened(folder).reader.document("finish")
    network = next(n for n in done.networks if (n.how, n.name) == ("features", "found"))
    for score, final in zip(network.scores, document["networks"][0]["finals"], strict=True):
        assert score.artifact is not None
        ours, theirs = artifacts.get(score.artifact), artifacts.get(final["artifact"])
        body = [k for k in ours if not k.startswith("classifier.")]
        assert body
        assert all(torch.equal(ours[k], theirs[k]) for k in body)
        assert ours["classifier.weight"].shape[0] == 4
        assert theirs["classifier.weight"].shape[0] == 3
    tuned = next(n for n in done.networks if (n.how, n.name) == ("fine-tune", "found")).scores[0].artifact
    assert tuned is not None
    moved, begun = artifacts.get(tuned), artifacts.get(document["networks"][0]["finals"][0]["artifact"])
    assert any(not torch.equal(moved[k], begun[k]) for k in moved if not k.startswith("classifier."))


def test_the_test_scores_are_those_of_the_kept_weights(carried_over: tuple[Transferred, Path, Counted]) -> None:
    done, folder, _ = carried_over
    contest = prepare(source_of(opened(folder)), str(folder / "there.npz"), Asked(epochs=2))
    artifacts = ArtifactFolder(str(opened(folder).store.artifacts))
    for entry, network in zip(contest.entries, done.networks, strict=True):
        assert (entry.how, entry.candidate.name) == (network.how, network.name)
        task = entry.evaluator.task()
        model = entry.network.build(None, task).model
        assert count_parameters(model) == network.parameters
        assert count(model, task.input_shape).multiply_adds == network.multiply_adds  # type: ignore[union-attr]
        digest = network.scores[0].artifact
        assert digest is not None
        model.load_state_dict(artifacts.get(digest))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = entry.evaluator.batch_norm_epsilon  # type: ignore[attr-defined]
        assert entry.evaluator.test(model.eval())["accuracy"] == network.scores[0].score


def test_a_killed_transfer_goes_on(place: Path, carried_over: tuple[Transferred, Path, Counted]) -> None:
    asked: dict[str, Any] = {"data": str(place / "there.npz"), "seeds": 2, "epochs": 2}
    total = len(carried_over[2].trained)
    for stop in (1, total - 1):
        with pytest.raises(KeyboardInterrupt):
            transfer(opened(place), **asked, watch=Counted(stop))
    watch = Counted()
    done = transfer(opened(place), **asked, watch=watch)
    assert len(watch.trained) == 1
    assert [n.by_seed for n in done.networks] == [n.by_seed for n in carried_over[0].networks]
    assert done.looks == 1
    more = transfer(opened(place), **{**asked, "seeds": 3}, how="scratch")
    assert more.looks == 2
    assert "looked at 2 times" in more.claim


def test_side_by_side_is_the_same(place: Path, carried_over: tuple[Transferred, Path, Counted]) -> None:
    done = transfer(opened(place), data=str(place / "there.npz"), seeds=2, epochs=2, how=["features"], workers=2)
    whole = [n.by_seed for n in carried_over[0].networks if n.how == "features"]
    assert [n.by_seed for n in done.networks] == whole


def test_an_exported_model_has_one_set_of_weights(place: Path, tmp_path: Path) -> None:
    model = smith.load(smith.export(opened(place), path=tmp_path / "model"))
    done = transfer(model, data=str(place / "there.npz"), seeds=2, epochs=1, folder=tmp_path / "out")  # type: ignore[arg-type]
    ways = [(n.how, n.name, len(n.scores)) for n in done.networks]
    assert ways == [
        ("scratch", "found", 2),
        ("scratch", "residual network", 2),
        ("fine-tune", "found", 2),
        ("features", "found", 1),
    ]
    assert "There are no finished weights of the residual network of its size, so it stands from scratch" in done.claim
    assert "fixed features have no interval" in done.claim


GROWN_AND_MOBILE: dict[str, Any] = {"mobile": smith.spaces.MobileBlocks.desk(), "grown": smith.spaces.GrownGraph()}


@pytest.mark.parametrize("space", [*SPACES.values(), *GROWN_AND_MOBILE.values()], ids=[*SPACES, *GROWN_AND_MOBILE])
def test_every_space(space: Any, place: Path, tmp_path: Path) -> None:
    """From scratch by a genotype, then all that begins with weights, by the exported model."""
    settings = dataclasses.replace(ImageClassification.desk(str(place / "here.npz"), epochs=1), keep_weights=True)
    store = f"sqlite:///{tmp_path}/runs.db"
    run = smith.search(space, settings, trials=1, store=store, name="one")
    assert run.best is not None
    scratch = transfer(run.best.genotype, data=str(place / "else.npz"), seeds=1, epochs=1, folder=tmp_path / "scratch")
    assert [n.how for n in scratch.networks] == ["scratch", "scratch"]
    model = smith.load(smith.export(run, path=tmp_path / "model"))
    done = transfer(
        model,  # type: ignore[arg-type]
        data=str(place / "else.npz"),
        how=["fine-tune", "features"],
        seeds=1,
        epochs=1,
        folder=tmp_path / "begun",
    )
    assert [n.how for n in done.networks] == ["fine-tune", "features"]
    assert all(s.failure is None for n in done.networks for s in n.scores)


def test_batch_norms_of_long_trainings_forget_faster_in_short_ones(place: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"cells": 1, "filters": 8, "size": 16, "max_train": 60, "seeds": 1, "epochs": 1}
    done = transfer("nasnet_a_mobile", data=str(place / "there.npz"), folder=tmp_path, **asked)
    assert done.networks[0].settings == {"batch_norm_decay": 0.9}
    assert done.networks[1].settings == {}
    assert "keep 0.9 of their running averages a step here, and not 0.9997 as the network has it" in done.claim
    asked = {"scale": Scale(1, 8), "size": 16, "epochs": 20_000}
    long = prepare(source_of("nasnet_a_mobile"), str(place / "there.npz"), Asked(**asked))
    assert long.entries[0].network.batch_norm_decay is None
    assert not long.notes
    model = build(
        done_network := prepare(
            source_of("nasnet_a_mobile"), str(place / "there.npz"), Asked(scale=Scale(1, 8), size=16, epochs=1)
        )
        .entries[0]
        .network,
        done_network.only,
        Task((3, 16, 16), 4),
    ).model
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_tuning_chooses_by_validation(place: Path) -> None:
    watch = Counted()
    done = transfer(
        opened(place),
        data=str(place / "there.npz"),
        how=["scratch", "features"],
        seeds=1,
        epochs=1,
        tune=True,
        watch=watch,
    )
    tuned = [e for e in watch.events if e.stage == "tuning" and e.epoch == 0 and e.label]
    networks = len({n.name for n in done.networks})
    assert len(tuned) == 3 * networks
    for network in (n for n in done.networks if n.how == "scratch"):
        mine = {e.label.rpartition("x ")[2]: e.reward for e in tuned if e.label.startswith(f"{network.name}, scratch")}
        best = max(mine, key=lambda factor: mine[factor] or 0.0)
        rate = network.settings.get("learning_rate", done.evaluator["learning_rate"])
        assert rate / done.evaluator["learning_rate"] == pytest.approx(float(best), rel=0.01)


def test_nothing_is_tested_when_nothing_was_trained(place: Path) -> None:
    wild = dataclasses.replace(ImageClassification.desk(str(place / "there.npz"), epochs=1), learning_rate=1e30)
    run = opened(place, "unfinished")
    with pytest.raises(ChildFailed, match=r"no training of found came to its end: .* The test set was not looked at"):
        transfer(run, evaluator=wild, seeds=1)
    assert not any("looks" in key for key in run.reader.documents())


def test_lost_weights_are_told_before_anything_is_trained(place: Path) -> None:
    for file in Path(str(opened(place).store.artifacts)).glob("*.safetensors"):
        file.unlink()
    watch = Counted()
    with pytest.raises(UsageError, match="the finished weights of found are gone"):
        transfer(opened(place), data=str(place / "there.npz"), watch=watch)
    assert not watch.events


def test_seconds_choose_epochs_once(place: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"data": str(place / "else.npz"), "seeds": 1, "seconds": 1.0, "folder": tmp_path}
    genotype = sample(SPACE, Random(0))
    done = transfer(genotype, **asked)
    assert 1 <= done.evaluator["epochs"] <= 300
    assert transfer(genotype, **asked) == done


def test_estimates(place: Path) -> None:
    found = estimate(opened(place), data=str(place / "there.npz"), epochs=3, seeds=2, tune=True)
    assert {n.name for n in found.networks} >= {"found, scratch", "found, fine-tune", "residual network, scratch"}
    assert not any("features" in n.name for n in found.networks)
    assert found.steps == 3 * found.steps_per_epoch
    assert found.seconds == pytest.approx(5 * found.steps * sum(n.step_seconds for n in found.networks))
    assert "reading features" in str(found)
    assert found.table()[0][0] == "network"


# --- correlation ----------------------------------------------------------------------------------------------------------


def test_a_run_is_correlated_with_other_data(place: Path, tmp_path: Path) -> None:
    run, watch = opened(place, "unfinished"), Counted()
    data = [str(place / "there.npz"), str(place / "else.npz")]
    with pytest.raises(KeyboardInterrupt):
        correlate(run, data, epochs=1, watch=Counted(4))
    done = correlate(run, data, epochs=1, watch=watch)
    assert len(watch.trained) == 2
    assert done.correlation.n == 3
    assert [d.name for d in done.data] == ["there.npz", "else.npz"]
    assert [m.reward for m in done.models] == sorted((m.reward for m in done.models), reverse=True)
    assert done.searched_by == "validation accuracy"
    assert set(done.by_data) == {"there.npz", "else.npz"}
    assert Correlated.from_json(json.loads(json.dumps(done.to_json()))) == done
    assert correlate(run, data, epochs=1) == done
    page = done.page(tmp_path / "page.html").read_text()
    assert page.count("<svg") == 3
    assert all(m.name in page for m in done.models)
    assert len(done.table()) == 4
    assert [row[0] for row in done.coefficients()] == ["data", "all", "there.npz", "else.npz"]


def test_what_cannot_be_correlated(place: Path) -> None:
    run, data = opened(place, "unfinished"), str(place / "else.npz")
    for wrong, message in (
        ({"top": 2}, "top of a correlation must be a whole number of at least 3"),
        ({"top": 4, "spread": 4}, "either top, the best, or spread"),
        ({"seeds": 0}, "seeds of a correlation"),
    ):
        with pytest.raises(UsageError, match=message):
            correlate(run, data, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs at least one other data set"):
        correlate(run, [])
    few = smith.search(
        SPACE,
        ImageClassification.desk(str(place / "here.npz"), epochs=1),
        trials=2,
        store=f"sqlite:///{place}/runs.db",
        name="few",
    )
    with pytest.raises(UsageError, match=r"has \d different architectures .* needs at least 3"):
        correlate(few, data)


# --- the command line ---------------------------------------------------------------------------------------------------


def test_the_command(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    asked = ["transfer", "found", "--data", "there.npz", "--how", "scratch,features", "--seeds", "1", "--epochs", "1"]
    assert main([*asked, "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[:3] == ["way", "network", "parameters"]
    assert "From scratch: no difference from the residual network of its size is shown" in out
    assert "found, features, seed 1" in err
    assert main([*asked, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["networks"][0]["how"] == "scratch"
    assert "training" not in err
    assert main([*asked, "--estimate"]) == 0
    assert "hours a training" in capsys.readouterr().out
    cells = ["--cells", "1", "--filters", "4", "--max-train", "60", "--seeds", "1", "--epochs", "1", "--workers", "1"]
    assert main(["transfer", "nasnet_a", "--data", "else.npz", *cells]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["scratch", "nasnet_a"]
    assert Path("transfer-nasnet_a-else.npz/transfer.json").is_file()
    assert main(["export", "found", "-o", "model"]) == 0
    capsys.readouterr()
    begun = ["transfer", "model", "--data", "else.npz", "--how", "features", "--seeds", "1", "--workers", "1"]
    assert main(begun) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["features", "found"]


def test_the_command_correlates(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    asked = ["transfer", "unfinished", "--correlate", "--data", "there.npz", "--data", "else.npz", "--epochs", "1"]
    assert main([*asked, "--workers", "1", "--top", "3"]) == 0
    out, err = capsys.readouterr()
    assert "n = 3" in out
    assert "unfinished-transfer.html" in err
    assert Path("unfinished-transfer.html").is_file()
    assert main([*asked, "--top", "3", "--json", "-o", "other.html"]) == 0
    assert json.loads(capsys.readouterr().out)["correlation"]["n"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["founds", "--data", "there.npz"], "no run, network, cell, file or model's folder is named 'founds'"),
        (["found"], "needs data: a folder, an .npz, or a name (--data PATH)"),
        (["found", "--data", "there.npz", "--data", "else.npz"], "name one --data, or ask for --correlate"),
        (["found", "--data", "there.npz", "--top", "3"], "--top has no meaning for a transfer without --correlate"),
        (["found", "--data", "there.npz", "--correlate", "--cells", "3"], "--cells has no meaning for --correlate"),
        (["nasnet_a", "--data", "there.npz", "--correlate"], "about the architectures of a run"),
        (["nas_cell", "--data", "there.npz"], "is a recurrent cell: name --to chars or --to translation"),
        (["nas_conv_v1", "--data", "there.npz", "--filters", "8"], "cannot be scaled"),
        (["nasnet_a", "--data", "there.npz", "--mult-adds", "many"], "multiply-adds must be a number such as 600M"),
        (["nasnet_a", "--data", "there.npz", "--how", "features"], "nasnet_a has no finished weights"),
        (["found", "--data", "there.npz", "--to", "chars"], "transfer carries recurrent cells over"),
        (["found", "--data", "there.npz", "--epochs", "0"], "epochs"),
        (["found", "--data", "there.npz", "--correlate", "--output", "no/where.html"], "there is no folder 'no'"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str],
    message: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("runs.db", "there.npz", "else.npz"):
        shutil.copy(finished / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["transfer", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_run_that_is_being_written(place: Path) -> None:
    run = opened(place)
    writer = smith.open_run(f"sqlite:///{place}/runs.db", "found").store.write("found")
    try:
        with pytest.raises(RunLocked, match="carry its network over when that has ended"):
            transfer(run, data=str(place / "else.npz"), how="scratch", seeds=1, epochs=1)
    finally:
        writer.close("finished")
