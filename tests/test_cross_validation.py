"""Choosing by cross-validation: folds, what comes back, and that rules, pauses and budgets work as otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import archsmith as smith
from archsmith.cli.main import main
from archsmith.core.child import Child
from archsmith.core.errors import ChildFailed, DataError, UsageError
from archsmith.core.space import FunctionSpace, sample
from archsmith.data.folds import fold_counts, fold_splits, folds_for, stratified_folds
from archsmith.metrics.predictions import Predictions
from archsmith.stopping import ASHA
from archsmith.testing.evaluator import EvaluatorContract, RecordingContext
from archsmith.training import ImageClassification, Latency


def dense(choose):
    return choose("width", (4, 8))


def network(width, task):
    inputs = int(np.prod(task.input_shape))
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, task.num_classes))


SPACE = FunctionSpace(dense, network)
PLAIN = ImageClassification.desk("digits", epochs=3, max_train=100)
FOLDS = dataclasses.replace(PLAIN, epochs=3, learning_rate=0.05, precision="fp32", folds=3)


def genotype(space=SPACE):
    from random import Random

    return sample(space, Random(0))


def evaluate(evaluator=FOLDS, context=None, space=SPACE):
    return evaluator.evaluate(space, genotype(space), context or RecordingContext())


class TestContract(EvaluatorContract):
    resumes = True

    def evaluator(self):
        return dataclasses.replace(FOLDS, average=0.9, learning_rates=(0.05, 0.01))

    def space(self):
        return SPACE

    def diverging(self):
        return dataclasses.replace(FOLDS, learning_rate=1e30), SPACE

    def test_the_cost_is_counted(self):
        pytest.skip("the rates that are tried are counted as well; see below")


class TestContractWithoutTrying(TestContract):
    def evaluator(self):
        return dataclasses.replace(FOLDS, epochs=2)

    test_the_cost_is_counted = EvaluatorContract.test_the_cost_is_counted


# --- folds ---


@given(st.lists(st.integers(1, 12), min_size=2, max_size=6), st.integers(2, 6), st.integers(0, 99))
def test_folds_are_disjoint_even_and_leave_every_class_something_to_learn_from(sizes, folds, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    parts = stratified_folds(labels, folds, seed)
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert set(labels[np.setdiff1d(np.arange(len(labels)), together)]) == {k for k, n in enumerate(sizes) if n == 1}
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    counts = np.stack([np.bincount(labels[part], minlength=len(sizes)) for part in parts])
    assert ((counts.max(0) - counts.min(0)) <= 1).all()
    for part in parts:
        assert set(np.delete(labels, part)) == set(range(len(sizes)))
    assert all(np.array_equal(a, b) for a, b in zip(parts, stratified_folds(labels, folds, seed), strict=True))


def test_folds_are_the_same_in_every_process_and_version():
    # A constant, so that a change of numpy or of ours that moved the folds would be seen.
    assert [part.tolist() for part in stratified_folds(np.arange(9) % 2, 3, 7)] == [[2, 6, 7], [4, 5, 8], [0, 1, 3]]


@pytest.mark.parametrize(
    ("counts", "folds"),
    [
        ([30] * 6, None),
        ([29] * 6, 5),
        ([10] * 3, 5),
        ([4, 4, 4], 4),
        ([2, 2], 2),
        ([1, 1], 2),
        ([500, 500, 3], None),  # one rare class among large ones
        ([200, 3, 3, 3], 3),
        ([], None),
    ],
)
def test_when_to_cross_validate(counts, folds):
    assert folds_for(counts) == folds


def test_the_pool_of_the_splits_is_divided_and_the_test_images_stay():
    splits = PLAIN.splits()
    assert fold_counts(splits) == [10] * 10
    assert folds_for(fold_counts(splits)) == 5
    parts = [dataclasses.replace(FOLDS, fold=k).splits() for k in range(3)]
    pool = sorted([*splits.train, *splits.validation])
    assert sorted(np.concatenate([part.validation for part in parts])) == pool
    for part in parts:
        assert sorted([*part.train, *part.validation]) == pool
        assert part.test_images is splits.test_images
    assert len({part.fingerprint for part in parts} | {splits.fingerprint}) == 4
    assert FOLDS.fingerprint() == PLAIN.fingerprint()  # the same data
    assert parts[1].validation_split == "fold 2 of 3, seed 0"


def test_more_folds_than_images_are_refused():
    with pytest.raises(DataError, match="folds=101 needs at least as many images"):
        fold_splits(PLAIN.splits(), 101, 0, 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folds": 1}, "folds must be a whole number of at least 2"),
        ({"folds": 2.5}, "folds must be"),
        ({"folds": True}, "folds must be"),
        ({"fold": 0}, "fold needs folds"),
        ({"folds": 3, "fold": 3}, "fold must be a whole number"),
        ({"folds": 3, "continues": True}, "cannot be continued"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        ImageClassification("digits", **settings)


# --- what comes back ---


def test_accuracy_and_loss_are_those_of_all_images_by_networks_that_did_not_learn_from_them():
    context = RecordingContext()
    result = evaluate(dataclasses.replace(FOLDS, keep_weights=True), context)
    predictions = Predictions.from_tensors(context.kept[result.artifact])
    splits = FOLDS.splits()
    pool = np.sort(np.concatenate([splits.train, splits.validation]))
    assert np.array_equal(predictions.labels, splits.data.labels[pool])
    assert result.metrics["final_accuracy"] == pytest.approx(predictions.accuracy)
    own = predictions.probabilities[np.arange(100), predictions.labels]
    assert result.metrics["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert result.metrics["accuracy"] == max(row["accuracy"] for row in result.curve)
    assert [row["epoch"] for row in result.curve] == [1, 2, 3]
    assert result.cost.epochs == 9
    assert context.reported[-1][0] == 3


def test_each_fold_is_the_training_that_it_would_be_alone():
    alone = []
    for k in range(3):
        from archsmith.core.executor import derive_seed

        context = RecordingContext(seed=derive_seed(0, "fold", k))
        alone.append(evaluate(dataclasses.replace(FOLDS, fold=k), context).curve)
    sizes = np.array([34, 33, 33])
    together = evaluate().curve
    for epoch, row in enumerate(together):
        rows = [curve[epoch] for curve in alone]
        assert row["accuracy"] == pytest.approx(np.average([r["accuracy"] for r in rows], weights=sizes))
        assert row["loss"] == pytest.approx(np.average([r["loss"] for r in rows], weights=sizes))
        assert row["train_loss"] == pytest.approx(np.mean([r["train_loss"] for r in rows]))


def test_learning_rates_are_tried_once_and_the_latency_is_measured_once():
    evaluator = dataclasses.replace(FOLDS, learning_rates=(1e-6, 0.05), latency=Latency(batch=1, threads=1, repeats=3))
    result = evaluate(evaluator)
    assert result.metrics["learning_rate"] == 0.05
    assert result.cost.epochs == 9 + 2
    assert result.metrics["latency"] > 0


def test_seconds_are_for_all_folds_together():
    result = evaluate(dataclasses.replace(FOLDS, epochs=10_000, seconds=0.3))
    assert 0.3 <= result.metrics["train_seconds"] < 2  # each ends with the batch that it is in
    assert 1 <= len(result.curve) < 10_000
    assert "accuracy" in result.metrics


def test_a_child_does_not_inherit_what_its_parent_learned():
    context = RecordingContext(parent=0, earlier={0: {"1.weight": torch.full((4, 64), 9.0)}})

    def inheriting(width, task):
        return Child(network(width, task), inherits=True)

    space = FunctionSpace(dense, inheriting)
    result = evaluate(context=context, space=space)
    assert "inherited_parameters" not in result.metrics
    assert result.metrics["loss"] == evaluate().metrics["loss"]


class Counts(torch.optim.SGD):
    """An optimizer whose state cannot be kept."""

    def step(self, closure=None):
        self.state[self.param_groups[0]["params"][0]]["what"] = object()
        return super().step(closure)


def test_an_optimizer_whose_state_cannot_be_kept_is_a_failure_that_says_so():
    space = FunctionSpace(dense, lambda width, task: Child(network(width, task), optimizer=Counts))
    with pytest.raises(ChildFailed, match="state of this child's optimizer cannot be kept"):
        evaluate(space=space)


# --- searches ---


def test_a_search_stops_children_early_and_counts_the_epochs_of_all_folds(tmp_path: Path):
    rule = ASHA(minimum=1, eta=2)
    run = smith.search(SPACE, FOLDS, trials=4, stopping=rule, store=f"sqlite:///{tmp_path}/runs.db", name="run")
    trials = list(run.trials())
    assert {len(t.result.curve) for t in trials} <= {1, 2, 3}
    assert all(t.result.cost.epochs == 3 * len(t.result.curve) for t in trials)
    assert run.summary.epochs == sum(t.result.cost.epochs for t in trials)
    assert run.best.result.metrics["accuracy"] == max(row["accuracy"] for row in run.best.result.curve)


def test_a_budget_in_epochs_counts_those_of_all_folds(tmp_path: Path):
    run = smith.search(SPACE, FOLDS, epochs=17, store=f"sqlite:///{tmp_path}/runs.db", name="run")
    assert run.summary.epochs == 18


def test_a_cross_validated_run_has_no_weights_to_export(tmp_path: Path):
    evaluator = dataclasses.replace(FOLDS, keep_weights=True)
    run = smith.search(SPACE, evaluator, trials=1, store=f"sqlite:///{tmp_path}/runs.db", name="run")
    with pytest.raises(UsageError, match="cross-validation keeps no weights"):
        smith.export(run, tmp_path / "m")


def test_a_data_set_of_twelve_pictures_and_a_class_of_three_is_searched(tmp_path: Path):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [12, 5, 3])
    pictures = (rng.integers(0, 80, (20, 8, 8, 1)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    evaluator = ImageClassification.desk((pictures, labels), epochs=4)
    folds = folds_for(fold_counts(evaluator.splits()))
    assert folds == 4  # 10, 4 and 2 pictures
    evaluator = dataclasses.replace(evaluator, folds=folds)
    run = smith.search(SPACE, evaluator, trials=1, store=f"sqlite:///{tmp_path}/runs.db", name="run")
    assert run.best.result.metrics["accuracy"] > 0.3


def test_the_command_line_advises_folds_and_searches_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    labels = np.arange(24) % 2
    pictures = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8) // 2 + 100 * labels[:, None, None]
    np.savez("few.npz", x_train=pictures.astype(np.uint8), y_train=labels)
    (tmp_path / "recipe.py").write_text(
        "import archsmith as smith\n"
        "from archsmith.core.budget import Budget\n"
        "from archsmith.recipes.recipe import Recipe\n"
        "recipe = Recipe(name='few', summary='few', space=smith.spaces.ConvChain(layers=1, filters=(4,)),\n"
        "    evaluator=smith.training.ImageClassification.desk('few.npz', epochs=1), searcher=smith.searchers.Random(),\n"
        "    budget=Budget(trials=1), workers=1, control=False)\n"
    )
    assert main(["search", "recipe.py", "--name", "split"]) == 0
    assert "--folds 5 chooses by cross-validation" in capsys.readouterr().err
    assert main(["search", "recipe.py", "--name", "folds", "--folds", "3"]) == 0
    assert "chooses by cross-validation" not in capsys.readouterr().err
    run = smith.open_run("sqlite:///runs.db", "folds")
    assert run.evaluator.folds == 3
    assert run.best.result.cost.epochs == 3
    assert main(["search", "recipe.py", "--folds", "1"]) == 2
    assert "folds must be a whole number of at least 2" in capsys.readouterr().err
