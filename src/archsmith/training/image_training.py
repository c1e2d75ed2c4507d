"""The training loop of `ImageClassification`: data on hand as tensors, whole batches augmented by one gather.

What makes it fast on a processor is measured in benchmarks/child_training.py: no loader and no per-image work,
channels-last memory, bf16 where the processor computes in it, one fused pass of the optimizer over all parameters.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.child import Child
from archsmith.core.errors import ChildFailed, Diverged
from archsmith.core.evaluator import Context
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build
from archsmith.core.trial import Cost, Result
from archsmith.nn.augment import as_floats, centre_crop, from_unit, gather_crops
from archsmith.nn.batch_norm import forgetting_within, set_epsilon
from archsmith.nn.count import count
from archsmith.nn.inheritance import inherit
from archsmith.nn.seeding import seed_torch
from archsmith.training.isolation import autocast, check_parameters, resolve_precision, seeded
from archsmith.training.learning_rates import best_learning_rate
from archsmith.training.resuming import Checkpoint, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from archsmith.data.images import ImageSplits
    from archsmith.training.image_classification import ImageClassification

_FLOATS_CAP = 1 << 26  # bytes of images that are kept as floats; more are kept as bytes and converted batch by batch
_EVAL_BATCH = 500
_CHECK_EVERY = 16  # batches between looks at the loss: on a GPU every look waits for it


def evaluate(config: ImageClassification, space: Space, genotype: Genotype, context: Context) -> Result:
    """See `ImageClassification.evaluate`."""
    with seeded(context, "init"):
        child = build(space, genotype, config.task())
        checkpoint = load_checkpoint(context)
        inherited = _inherited(child, context) if checkpoint is None else checkpoint.extra["inherited"]
        result = _train(config, child, context, False, checkpoint, inherited)
        if inherited is not None:
            result = dataclasses.replace(result, metrics={**result.metrics, "inherited_parameters": inherited})
        if not config.keep_weights or context.paused:
            return result
        weights = {k: v.detach().cpu().contiguous() for k, v in child.model.state_dict().items()}
        return Result(result.metrics, result.curve, result.cost, artifact=context.checkpoint(weights))


def _inherited(child: Child, context: Context) -> int | None:
    """Take over the weights that the child inherits; gives how many, or None where there is no parent to inherit from.

    Raises StoreError where its parent's were kept and are gone: it would be trained as something else than it is.
    """
    parent = context.parent if child.inherits else None
    weights = context.artifact(parent) if parent is not None else None
    return None if weights is None else inherit(child.model, weights)


def train(config: ImageClassification, child: Child, context: Context, *, all_data: bool = False) -> Result:
    """See `ImageClassification.train`."""
    return _train(config, child, context, all_data, load_checkpoint(context), None)


def _train(
    config: ImageClassification,
    child: Child,
    context: Context,
    all_data: bool,
    checkpoint: Checkpoint | None,
    inherited: int | None,
) -> Result:
    """`checkpoint` is where the child goes on from; `inherited` is only saved when it is paused again."""
    splits = config.splits()
    model, device = child.model, torch.device(context.device)
    parameters = check_parameters(context, model)
    set_epsilon(model, config.batch_norm_epsilon)
    seed = derive_seed(context.seed, "train")
    with seeded(context, "train"):
        latency = (
            None if checkpoint is None else checkpoint.extra["latency"]
        )  # measured again, it would be another number
        if config.latency is not None and latency is None:
            found = config.latency.measure(model, config.task().input_shape)
            latency = {"latency": found.median, "latency_low": found.low, "latency_high": found.high}
        context.check()
        multiply_adds = count(model, config.task().input_shape).multiply_adds
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        steps = config.epochs * math.ceil(len(splits.train) / config.batch_size)
        model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        try:
            with forgetting_within(model, steps) as decay:
                began = time.perf_counter()
                if checkpoint is None:
                    child, probed = _with_rate(config, child, splits, context, seed)
                else:
                    child, probed = dataclasses.replace(child, learning_rate=checkpoint.extra["learning_rate"]), 0
                probing = time.perf_counter() - began
                extra = {"latency": latency, "inherited": inherited, "learning_rate": child.learning_rate}
                curve, seconds = _fit(
                    config, child, splits, context, seed, all_data, checkpoint=checkpoint, extra=extra
                )
        finally:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            model.eval()
    last = curve[-1]
    metrics: dict[str, float] = {"parameters": parameters, "multiply_adds": multiply_adds}
    if latency is not None:
        metrics |= latency
    if decay is not None:
        metrics["batch_norm_decay"] = decay
    before = (0, 0.0) if checkpoint is None else (len(checkpoint.extra["curve"]), checkpoint.extra["seconds"])
    metrics["train_seconds"], metrics["train_loss"] = before[1] + seconds, last["train_loss"]
    if not all_data:
        metrics["accuracy"] = max(row["accuracy"] for row in curve[-5:])
        metrics["final_accuracy"], metrics["loss"] = last["accuracy"], last["loss"]
    if child.learning_rate is not None:
        metrics["learning_rate"] = child.learning_rate
    return Result(metrics, curve[before[0] :], Cost(seconds=probing + seconds, epochs=probed + len(curve) - before[0]))


def test(config: ImageClassification, model: nn.Module, device: str) -> dict[str, float]:
    """See `ImageClassification.test`."""
    splits = config.splits()
    images = torch.from_numpy(splits.test_images)
    labels = torch.from_numpy(splits.test_labels).to(device)
    floats = functools.partial(as_floats, whitened=config.whiten, upsample=config.upsample)
    was_training = model.training
    model.to(device).eval()
    try:
        right, loss = _measure(
            model, lambda part: floats(images[part.cpu()].to(device)), labels, images.shape[1:3], "fp32", None
        )
    except Diverged:  # the others were looked at too, and what they gave must not be lost
        right = loss = math.nan
    model.train(was_training)
    return {"accuracy": right, "loss": loss, "count": float(len(labels))}


# --- the loop ---------------------------------------------------------------------------------------------------------


def _with_rate(
    config: ImageClassification, child: Child, splits: ImageSplits, context: Context, seed: int
) -> tuple[Child, int]:
    """The child with the best of the configuration's learning rates, and how many epochs were spent on choosing it."""
    if not config.learning_rates or child.learning_rate is not None:
        return child, 0

    def attempt(rate: float) -> tuple[float, float]:
        seed_torch(seed)
        tried = dataclasses.replace(child, learning_rate=rate)
        (row,), _ = _fit(config, tried, splits, context, seed, all_data=False, first_epoch=True)
        return row["accuracy"], row["loss"]

    best = best_learning_rate(config.learning_rates, child.model, attempt)
    seed_torch(seed)  # as at the beginning of each attempt
    return dataclasses.replace(child, learning_rate=best), len(config.learning_rates)


def _fit(
    config: ImageClassification,
    child: Child,
    splits: ImageSplits,
    context: Context,
    seed: int,
    all_data: bool,
    *,
    first_epoch: bool = False,
    checkpoint: Checkpoint | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, float]], float]:
    """The curve, and the seconds of what was trained now; of the first epoch alone, which is not reported, where that is
    asked for. `checkpoint` is where to go on from, `extra` what to save beside the rest when the child is paused.

    The model is on the device and in its layout already.
    """
    model, device = child.model, torch.device(context.device)
    pixels = _pixels(splits, config.whiten, config.upsample, config.pad, str(device))
    train_at = torch.from_numpy(np.concatenate([splits.train, splits.validation]) if all_data else splits.train)
    train_at = train_at.to(device)
    valid_at = torch.from_numpy(splits.validation).to(device)
    valid_labels = pixels.labels[valid_at]
    size = (splits.data.images.shape[1], splits.data.images.shape[2])
    flip = splits.data.mirrored_is_same if config.flip is None else config.flip
    precision = resolve_precision(config.precision, device)

    peak = config.learning_rate if child.learning_rate is None else child.learning_rate
    optimizer = (child.optimizer or functools.partial(_optimizer, config))(model.parameters(), peak)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    draws = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same batches
    batches = math.ceil(len(train_at) / config.batch_size)
    set_progress = getattr(model, "set_progress", None)
    set_rule_progress = getattr(optimizer, "set_progress", None)  # of an update rule with a decay
    with_auxiliary = getattr(model, "forward_with_auxiliary", None)
    slack = [pixels.shape[k] - size[k] for k in (0, 1)]
    began = time.perf_counter()
    curve: list[dict[str, float]] = []
    if checkpoint is not None:
        checkpoint.restore(model, optimizer, draws)
        curve = list(checkpoint.extra["curve"])

    for epoch in range(len(curve) + 1, config.epochs + 1):
        epoch_began = time.perf_counter()
        model.train()
        order = train_at[torch.randperm(len(train_at), generator=draws).to(device)]
        top, left = (torch.randint(0, s + 1, (len(order),), generator=draws).to(device) for s in slack)
        mirrored = (torch.rand(len(order), generator=draws) < 0.5 if flip else torch.zeros(len(order)) > 0).to(device)
        total, right = torch.zeros((), device=device), torch.zeros((), device=device)
        factor = 1.0
        parts = zip(*(t.tensor_split(batches) for t in (order, top, left, mirrored)), strict=True)
        for step, (chosen, y, x, mirror) in enumerate(parts):
            context.check()
            factor = _schedule(config, epoch - 1 + step / batches)
            for group, value in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = value * factor
            if child.augmentation is None:
                images = pixels.crops(chosen, y, x, mirror, size).permute(0, 3, 1, 2)
            else:
                images = _augmented(child, splits, chosen, config, device)
            if not config.channels_last:
                images = images.contiguous()
            labels = pixels.labels[chosen]
            for told in (set_progress, set_rule_progress):
                if told is not None:
                    told((epoch - 1 + step / batches) / config.epochs)
            with autocast(device, precision):
                outputs, auxiliary = (model(images), None) if with_auxiliary is None else with_auxiliary(images)
                if step == 0 and epoch == 1:
                    _check_outputs(outputs, len(chosen), len(splits.data.class_names))
                loss = F.cross_entropy(outputs, labels, label_smoothing=config.label_smoothing)
                learned = loss
                if auxiliary is not None:
                    other = F.cross_entropy(auxiliary, labels, label_smoothing=config.label_smoothing)
                    learned = loss + float(model.auxiliary_weight) * other  # type: ignore[arg-type]
            optimizer.zero_grad(set_to_none=True)
            learned.backward()  # type: ignore[no-untyped-call]
            if config.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            total += loss.detach() * len(chosen)
            right += (outputs.detach().argmax(1) == labels).sum()
            if step % _CHECK_EVERY == 0 or step == batches - 1:
                _check_finite(total, f"the training loss in epoch {epoch}")
        row = {
            "epoch": epoch,
            "train_loss": float(total) / len(order),
            "train_accuracy": float(right) / len(order),
            "learning_rate": peaks[0] * factor,
        }
        if not all_data:
            read = functools.partial(pixels.middle, valid_at)
            row["accuracy"], row["loss"] = _measure(model, read, valid_labels, size, precision, context)
        row["seconds"] = time.perf_counter() - epoch_began
        curve.append(row)
        if first_epoch or not context.report(epoch, {k: v for k, v in row.items() if k != "epoch"}):
            break
    seconds = time.perf_counter() - began
    if not first_epoch:
        spent = seconds + (0.0 if checkpoint is None else checkpoint.extra["seconds"])
        save_checkpoint(context, model, optimizer, draws, extra={**(extra or {}), "curve": curve, "seconds": spent})
    return curve, seconds


def _measure(
    model: nn.Module,
    read: Callable[[Tensor], Tensor],
    labels: Tensor,
    size: tuple[int, ...],
    precision: str,
    context: Context | None,
) -> tuple[float, float]:
    """Accuracy and mean loss of the model in evaluation mode. `read` gives uncropped floats for positions in labels."""
    model.eval()
    right, total = 0.0, 0.0
    with torch.inference_mode(), autocast(labels.device, precision):
        for part in torch.arange(len(labels), device=labels.device).split(_EVAL_BATCH):  # type: ignore[no-untyped-call]
            if context is not None:
                context.check()
            images = centre_crop(read(part), *size[:2]).permute(0, 3, 1, 2)
            outputs = model(images).float()
            total += F.cross_entropy(outputs, labels[part], reduction="sum").item()
            right += (outputs.argmax(1) == labels[part]).sum().item()
    if not math.isfinite(total):
        raise Diverged(f"the validation loss became {total / len(labels)}")
    return right / len(labels), total / len(labels)


def _optimizer(config: ImageClassification, parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "rmsprop":
        # TensorFlow, which the paper used, has the epsilon inside of the root.
        return torch.optim.RMSprop(
            parameters,
            learning_rate,
            alpha=0.9,
            eps=1e-3,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.SGD(
        parameters,
        learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _schedule(config: ImageClassification, done: float) -> float:
    """The learning rate over its peak after `done` epochs, in fractions of an epoch."""
    factor = 1.0
    if config.schedule == "step":
        factor = config.decay_factor ** sum(int(done) >= round(at * config.epochs) for at in config.decay_at)
    elif config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * done / config.epochs))
    return factor * min(1.0, (done + 0.1) / config.warmup) if config.warmup else factor


def _augmented(
    child: Child, splits: ImageSplits, chosen: Tensor, config: ImageClassification, device: torch.device
) -> Tensor:
    """A batch as the child would have it: its augmentation, in place of crops and flips, sees bytes or pixels from 0 to 1,
    before they are whitened, [count, channels, height, width]."""
    assert child.augmentation is not None
    raw = torch.from_numpy(splits.data.images)[chosen.cpu()].to(device).permute(0, 3, 1, 2)
    raw = raw if child.augments_bytes else raw.float() / 255.0
    changed = child.augmentation(raw)
    if changed.shape != raw.shape or changed.dtype != raw.dtype:
        raise ChildFailed(
            f"the child's augmentation turned {tuple(raw.shape)} of {raw.dtype} into {tuple(changed.shape)} of "
            f"{changed.dtype}; the shape must stay, and the type"
        )
    to_floats = as_floats if child.augments_bytes else from_unit
    floats = to_floats(changed.permute(0, 2, 3, 1), whitened=config.whiten, upsample=config.upsample)
    return centre_crop(floats, raw.shape[2], raw.shape[3]).permute(0, 3, 1, 2)


def _check_outputs(outputs: object, count: int, classes: int) -> None:
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if shape != (count, classes):
        raise ChildFailed(f"the child must give one number for each class, ({count}, {classes}), and gives {shape}")


def _check_finite(total: Tensor, what: str) -> None:
    value = total.item()
    if not math.isfinite(value):
        raise Diverged(f"{what} became {value}; a lower learning rate may help")


# --- images on the device ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The training pool on a device: as floats when they are few, as bytes that become floats batch by batch otherwise."""

    images: Tensor
    labels: Tensor
    shape: tuple[int, int]  # of the uncropped floats
    whiten: bool
    upsample: float
    pad: tuple[int, int]  # rows and columns of zeros on each side

    def _floats(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = as_floats(images, whitened=self.whiten, upsample=self.upsample)
            if any(self.pad):
                rows, columns = self.pad
                images = F.pad(images, (0, 0, columns, columns, rows, rows))
        return images

    def crops(self, chosen: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: tuple[int, int]) -> Tensor:
        if self.images.dtype == torch.uint8:
            images = self._floats(self.images[chosen])
            return gather_crops(images, torch.arange(len(chosen), device=images.device), top, left, mirrored, size)
        return gather_crops(self.images, chosen, top, left, mirrored, size)

    def middle(self, positions: Tensor, part: Tensor) -> Tensor:
        return self._floats(self.images[positions[part]])


@functools.lru_cache(maxsize=2)
def _pixels(splits: ImageSplits, whiten: bool, upsample: float, pad: float, device: str) -> _Pixels:
    images, labels = torch.from_numpy(splits.data.images), torch.from_numpy(splits.data.labels)
    rows, columns = (round(pad * n) for n in images.shape[1:3])
    height, width = round(upsample * images.shape[1]) + 2 * rows, round(upsample * images.shape[2]) + 2 * columns
    pixels = _Pixels(images.to(device), labels.to(device), (height, width), whiten, upsample, (rows, columns))
    if len(images) * height * width * images.shape[3] * 4 > _FLOATS_CAP:
        return pixels
    return dataclasses.replace(pixels, images=pixels._floats(pixels.images))
