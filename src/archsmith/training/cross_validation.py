"""Cross-validation of a child of `ImageClassification`, for data with few images per class.

The training and validation images are divided into folds. A network is trained once for each of them, from weights of its own,
on all other folds. Accuracy and loss are those of all images, each predicted by the network that did not learn from it.

The networks are trained epoch by epoch in turn: an epoch of the curve is one of every fold, so whatever looks at curves, such as
a rule that stops children early, sees the cross-validated accuracy. The cost counts the epochs of all folds, and limits hold for
all of them together.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from archsmith.core.errors import ChildFailed
from archsmith.core.evaluator import Context
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build_decided
from archsmith.core.trial import Cost, Result
from archsmith.data.folds import fold_counts, folds_for
from archsmith.metrics.predictions import Predictions
from archsmith.training import image_evaluation, image_training
from archsmith.training.isolation import seeded
from archsmith.training.resuming import packed, unpacked

if TYPE_CHECKING:
    from archsmith.training.image_classification import ImageClassification

__all__ = ["evaluate", "fold_counts", "folds_for"]

Row = dict[str, float]


def evaluate(config: ImageClassification, space: Space, genotype: Genotype, context: Context) -> Result:
    """Train the genotype's child once for each of `config.folds` and return its cross-validated accuracy.

    A child inherits no weights: its parent's would have learned from the images that it is validated with. With
    `keep_weights` the artifact has the out-of-fold predictions (`metrics.predictions.Predictions.tensors`) in the order of the
    images, since the weights of one fold are of no further use.
    """
    kept = None if not context.resume else unpacked(context.resume)
    folds = [
        _Fold(config, space, genotype, context, number, None if kept is None else kept["folds"][number])
        for number in range(config.folds or 0)
    ]
    curve: list[Row] = [] if kept is None else list(kept["curve"])
    before = len(curve)
    rate: float | None = None if kept is None else kept["rate"]
    while True:
        for fold in folds:
            fold.train_epoch(rate)
            rate = folds[0].metrics.get("learning_rate")
        if all(len(fold.curve) <= len(curve) for fold in folds):  # it was paused when it had ended
            break
        curve.append(_combined(folds, len(curve) + 1))
        go_on = context.report(len(curve), {k: v for k, v in curve[-1].items() if k != "epoch"})
        if not go_on or all(fold.is_over for fold in folds):
            break
    if context.paused:
        context.pause(packed({"folds": [fold.state() for fold in folds], "curve": curve, "rate": rate}))
        return _result(folds, curve, before)
    artifact = None
    if config.keep_weights:
        tensors = out_of_fold(folds, context.device).tensors()
        artifact = context.checkpoint({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
    return dataclasses.replace(_result(folds, curve, before), artifact=artifact)


class _Fold:
    """One of the networks, with its training so far."""

    def __init__(
        self,
        config: ImageClassification,
        space: Space,
        genotype: Genotype,
        context: Context,
        number: int,
        state: Mapping[str, Any] | None,
    ) -> None:
        changes: dict[str, Any] = {"fold": number}
        if config.seconds is not None and config.folds is not None:
            changes["seconds"] = config.seconds / config.folds
        if number > 0:
            changes["latency"] = None  # the first network's is that of all
        self.number = number
        self.context = _FoldContext(context, derive_seed(context.seed, "fold", number))
        self.config: ImageClassification
        self.config, self.child = build_decided(
            space,
            genotype,
            dataclasses.replace(config, **changes),
            seeding=lambda: seeded(self.context, "init"),
        )
        self.splits = self.config.splits()
        self.cost = Cost()
        self.curve: list[Row] = []
        self.spent = 0.0
        self.result: Result | None = None
        if state is not None:
            self.curve, self.spent, self.context.resume = list(state["curve"]), state["spent"], state["training"]

    @property
    def metrics(self) -> Mapping[str, float]:
        """Those of the training so far."""
        return {} if self.result is None else self.result.metrics

    @property
    def is_over(self) -> bool:
        """Whether it has had all its epochs, or all its seconds."""
        out_of_time = self.config.seconds is not None and self.spent >= self.config.seconds
        return out_of_time or len(self.curve) >= self.config.epochs

    def train_epoch(self, learning_rate: float | None) -> None:
        """Train the network for one more epoch, unless it has ended.

        `learning_rate` is used in place of trying `learning_rates` again: the first fold's choice is that of all.
        """
        if self.is_over and self.result is not None:
            return
        config = self.config
        if config.learning_rates and self.number > 0 and learning_rate is not None:
            config = dataclasses.replace(config, learning_rates=(), learning_rate=learning_rate)
        self.context.paused = False
        self.result = image_training.train(config, self.child, self.context)
        if self.context.resume is None:
            raise ChildFailed(
                "cross-validation trains its networks in turn, and the state of this child's optimizer cannot be kept: it "
                "has more than tensors and numbers"
            )
        self.curve += map(dict, self.result.curve)
        self.spent = self.result.metrics["train_seconds"]
        self.cost += self.result.cost

    def state(self) -> dict[str, Any]:
        """What it goes on from."""
        return {"curve": self.curve, "spent": self.spent, "training": self.context.resume}


class _FoldContext:
    """The `Context` of one fold's training, which is paused after every epoch; its limits are those of the whole."""

    def __init__(self, whole: Context, seed: int) -> None:
        self.whole = whole
        self.seed = seed
        self.device, self.threads, self.limits = whole.device, whole.threads, whole.limits
        self.parent: int | None = None
        self.parent_genotype: Genotype | None = None
        self.resume: Mapping[str, Any] | None = None
        self.paused = False

    @property
    def epochs_done(self) -> int:
        """How many epochs are in `resume`."""
        return 0 if self.resume is None else len(unpacked(self.resume)["loop"]["curve"])

    def pause(self, tensors: Mapping[str, Any]) -> None:
        """Keep the state for the next epoch: copies, since the model's own tensors change until then."""
        self.resume = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def report(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Pause after the epoch."""
        self.check()
        self.paused = True
        return False

    def check(self) -> None:
        """Raise LimitExceeded if all folds together are over their time or memory."""
        self.whole.check()

    def checkpoint(self, tensors: Mapping[str, Any]) -> str:
        """Keep named tensors."""
        return self.whole.checkpoint(tensors)

    def artifact(self, trial: int) -> Mapping[str, Any] | None:
        """None: nothing is inherited."""
        return None


def out_of_fold(folds: Sequence[_Fold], device: str) -> Predictions:
    """What each network says of the images that it did not learn from, in the order of the images."""
    rows = [
        image_evaluation.probabilities(fold.config, fold.child.model, "validation", device).numpy() for fold in folds
    ]
    positions = np.concatenate([fold.splits.validation for fold in folds])
    order = np.argsort(positions)
    data = folds[0].splits.data
    files = tuple(data.files[k] for k in positions[order]) if data.files else ()
    return Predictions(np.concatenate(rows)[order], data.labels[positions[order]], files)


def _combined(folds: Sequence[_Fold], epoch: int) -> Row:
    """An epoch of all folds: accuracy and loss of all images, the means of what else there is, the sum of the seconds.

    A fold that has ended earlier, by the clock, counts with its last epoch.
    """
    rows = [fold.curve[min(epoch, len(fold.curve)) - 1] for fold in folds]
    sizes = np.array([len(fold.splits.validation) for fold in folds], np.float64)
    combined: Row = {"epoch": epoch}
    for name in (name for name in rows[0] if name != "epoch" and all(name in row for row in rows)):
        values = np.array([row[name] for row in rows], np.float64)
        if name in ("accuracy", "loss"):
            combined[name] = float((values * sizes).sum() / sizes.sum())
        else:
            combined[name] = float(values.sum() if name == "seconds" else values.mean())
    return combined


def _result(folds: Sequence[_Fold], curve: list[Row], before: int) -> Result:
    """The result of all folds: what they have in common, as the first has it, and what was cross-validated."""
    first = folds[0].result
    assert first is not None
    last = curve[-1]
    metrics = {
        **first.metrics,
        "accuracy": max(row["accuracy"] for row in curve[-5:]),
        "final_accuracy": last["accuracy"],
        "loss": last["loss"],
        "train_loss": last["train_loss"],
        "train_seconds": sum(fold.spent for fold in folds),
        "images_per_second": float(np.mean([fold.metrics["images_per_second"] for fold in folds])),
    }
    cost = functools.reduce(operator.add, (fold.cost for fold in folds))
    return dataclasses.replace(first, metrics=metrics, curve=curve[before:], cost=cost, checkpoint=None)
