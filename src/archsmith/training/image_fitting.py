"""The training loop of `ImageClassification`: data on hand as tensors, whole batches changed at once.

What makes it fast on a processor is measured in benchmarks/child_training.py: no loader and no per-image work,
channels-last memory, bf16 where the processor computes in it, one fused pass of the optimizer over all parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.child import Child
from archsmith.core.errors import ChildFailed, Diverged
from archsmith.core.evaluator import Context
from archsmith.training.image_batches import Sides, TrainingBatches
from archsmith.training.image_evaluation import measure, validation_pictures
from archsmith.training.isolation import autocast, resolve_precision
from archsmith.training.optimizers import optimizer_of
from archsmith.training.resuming import Checkpoint, keep_checkpoint, save_checkpoint
from archsmith.training.schedules import Progress, learning_rate_factor, side_at
from archsmith.training.weight_average import WeightAverage

if TYPE_CHECKING:
    from archsmith.data.images import ImageSplits
    from archsmith.training.image_classification import ImageClassification

_CHECK_EVERY = 16  # batches between looks at the loss: on a GPU every look waits for it
_VALIDATING = 0.05  # the largest part of a training of given seconds that validation may take before its end


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Args:
        checkpoint: what it goes on from, or None.
        paused: whether that is the same training, which was paused; else it is one that had ended, and a new one continues it.
        curve: the epochs so far.
        epochs, seconds: what earlier trainings took that this one continues.
        spent: the seconds of this training before it was paused.
    """

    checkpoint: Checkpoint | None
    paused: bool
    curve: list[dict[str, float]]
    epochs: int
    seconds: float
    spent: float


def start_of(checkpoint: Checkpoint | None) -> Start:
    """Where the training begins that goes on from a checkpoint, or from nothing."""
    if checkpoint is None:
        return Start(None, False, [], 0, 0.0, 0.0)
    extra = checkpoint.extra
    curve, epochs, seconds = list(extra["curve"]), extra.get("epochs_before", 0), extra.get("seconds_before", 0.0)
    if extra.get("ended", False):
        return Start(checkpoint, False, curve, len(curve), seconds + extra["seconds"], 0.0)
    return Start(checkpoint, True, curve, epochs, seconds, extra["seconds"])


@dataclass(frozen=True)
class Fitted:
    """What came of a training.

    Args:
        curve: all epochs, also those of earlier trainings.
        seconds, images_per_second: of what was trained now. Validation is no part of the latter.
        checkpoint: the digest of the state that was kept, if it was.
    """

    curve: list[dict[str, float]]
    seconds: float
    images_per_second: float
    checkpoint: str | None = None


def fit(
    config: ImageClassification,
    child: Child,
    splits: ImageSplits,
    context: Context,
    seed: int,
    all_data: bool,
    start: Start,
    *,
    first_epoch: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> Fitted:
    """Train `child.model`, which is on the device and in its memory layout already. It ends with the averaged weights, where
    there is an average.

    Args:
        first_epoch: whether to train one epoch only and report nothing.
        extra: what to save beside the rest when the child is paused or kept.
    """
    model, device = child.model, torch.device(context.device)
    began = time.perf_counter()
    progress = Progress(config, start.spent, began, context)
    draws = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same batches
    training = TrainingBatches(config, child, splits, device, draws)
    validation = validation_pictures(config, splits, training.pixels, device)
    train_at = torch.from_numpy(np.concatenate([splits.train, splits.validation]) if all_data else splits.train)
    train_at = train_at.to(device)
    precision = resolve_precision(config.precision, device)

    peak = config.learning_rate if child.learning_rate is None else child.learning_rate
    optimizer = optimizer_of(config, child, peak)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    batches = math.ceil(len(train_at) / config.batch_size)
    told = [getattr(part, "set_progress", None) for part in (model, optimizer)]  # of an update rule with a decay
    with_auxiliary = getattr(model, "forward_with_auxiliary", None)
    averaged = None
    if start.checkpoint is not None:
        restore = start.checkpoint.restore if start.paused else start.checkpoint.restore_under
        restore(model, optimizer, draws)
        averaged = start.checkpoint.extra.get("average")
    average = WeightAverage(model, config.average, averaged) if config.average else None

    def validate() -> dict[str, float]:
        with average.applied() if average is not None else nullcontext():
            right, loss = measure(model, validation, precision, context)
        return {"accuracy": right, "loss": loss}

    curve = list(start.curve)
    seen, learning, validated_at = 0, 0.0, began
    validation_seconds: float | None = None
    last_epoch = start.epochs + config.epochs
    for epoch in range(len(curve) + 1, last_epoch + 1):
        epoch_began = time.perf_counter()
        model.train()
        order = train_at[torch.randperm(len(train_at), generator=draws).to(device)]
        total, right = torch.zeros((), device=device), torch.zeros((), device=device)
        factor, count = 1.0, 0
        parts = zip(*(t.tensor_split(batches) for t in (order, *training.drawn(len(order)))), strict=True)
        for step, (chosen, top, left, mirrored) in enumerate(parts):
            if step and progress.is_over():
                break
            context.check()
            done = epoch - 1 - start.epochs + step / batches
            share = progress.share(done)
            factor = learning_rate_factor(config, done, None if config.seconds is None else share)
            for group, value in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = value * factor
            for tell in told:
                if tell is not None:
                    tell(share)
            images = training.batch(chosen, top, left, mirrored, training_size(config, validation.size, share))
            labels = training.pixels.labels[chosen]
            targets = Targets(labels, labels, 1.0)
            if config.mix is not None:
                images, first, second, weight = training.mixed(images, labels)
                targets = Targets(first, second, weight)
            with autocast(device, precision):
                outputs, auxiliary = (model(images), None) if with_auxiliary is None else with_auxiliary(images)
                if count == 0 and epoch == len(start.curve) + 1:
                    _check_outputs(outputs, len(chosen), len(splits.data.class_names))
                loss = learned = targets.loss(outputs, config.label_smoothing)
                if auxiliary is not None:
                    other = targets.loss(auxiliary, config.label_smoothing)
                    learned = loss + float(model.auxiliary_weight) * other  # type: ignore[arg-type]
            optimizer.zero_grad(set_to_none=True)
            learned.backward()  # type: ignore[no-untyped-call]
            if config.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            if average is not None:
                average.update()
            count += len(chosen)
            total += loss.detach() * len(chosen)
            right += (outputs.detach().argmax(1) == labels).sum()
            if step % _CHECK_EVERY == 0 or step == batches - 1:
                _check_finite(total, f"the training loss in epoch {epoch}")
        row = {
            "epoch": epoch,
            "train_loss": float(total) / count,
            "train_accuracy": float(right) / count,
            "learning_rate": peaks[0] * factor,
        }
        now = time.perf_counter()
        seen, learning = seen + count, learning + now - epoch_began
        if not all_data:
            due = config.seconds is None or first_epoch or epoch == last_epoch or progress.is_over()
            if validation_seconds is None:  # at most that
                validation_seconds = (now - epoch_began) * len(validation.labels) / count
            if due or validation_seconds <= _VALIDATING * (now - validated_at):
                row |= validate()
                validated_at = time.perf_counter()
                validation_seconds = validated_at - now
        row["seconds"] = time.perf_counter() - epoch_began
        curve.append(row)
        if first_epoch:
            return Fitted(curve, time.perf_counter() - began, seen / learning)
        go_on = context.report(epoch, {k: v for k, v in row.items() if k != "epoch"}) and not progress.is_over()
        if not go_on and not all_data and "accuracy" not in row:
            row |= validate()
        if not go_on:
            break
    seconds = time.perf_counter() - began
    state = {
        **(extra or {}),
        "curve": curve,
        "seconds": start.spent + seconds,
        "epochs_before": start.epochs,
        "seconds_before": start.seconds,
        "average": None if average is None else average.state(),
    }
    digest = keep_state(config, context, model, optimizer, draws, state)
    if average is not None:
        average.swap()
    speed = seen / learning if learning else 0.0  # none where it was paused after its last epoch
    return Fitted(curve, seconds, speed, digest)


def keep_state(
    config: ImageClassification,
    context: Context,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    draws: torch.Generator,
    state: Mapping[str, Any],
) -> str | None:
    """Save a training that was paused, or keep one that has ended if the settings say so. Gives the digest of what was kept.

    `state` is what `start_of` reads, but for whether the training has ended.
    """
    state = {**state, "ended": not context.paused}
    save_checkpoint(context, model, optimizer, draws, extra=state)
    if not config.continues or context.paused:
        return None
    return keep_checkpoint(context, model, optimizer, draws, extra=state)


@dataclass(frozen=True)
class Targets:
    """The classes of a batch: two for each picture where pictures are mixed, and the weight of the first."""

    labels: Tensor
    others: Tensor
    weight: float

    def loss(self, outputs: Tensor, label_smoothing: float) -> Tensor:
        """The cross-entropy of the outputs."""
        loss = F.cross_entropy(outputs, self.labels, label_smoothing=label_smoothing)
        if self.weight == 1:
            return loss
        other = F.cross_entropy(outputs, self.others, label_smoothing=label_smoothing)
        return self.weight * loss + (1 - self.weight) * other


def training_size(config: ImageClassification, size: Sides, share: float) -> Sides:
    """The size of the training pictures, when a part of the training is done; `size` is that of the input."""
    if config.train_size is None and config.first_size is None:
        return size
    last = config.train_size or size[0]
    side = side_at(share, config.first_size or last, last)
    return side, side


def _check_outputs(outputs: object, count: int, classes: int) -> None:
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if shape != (count, classes):
        raise ChildFailed(f"the child must give one number for each class, ({count}, {classes}), and gives {shape}")


def _check_finite(total: Tensor, what: str) -> None:
    value = total.item()
    if not math.isfinite(value):
        raise Diverged(f"{what} became {value}; a lower learning rate may help")
