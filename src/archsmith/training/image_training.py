"""How `ImageClassification` trains a child: what goes before its training loop, which `image_fitting` has, and its result.

A training may be paused after an epoch, and go on as if it had not been. One that has ended and was kept (`continues`) may be
continued: with other settings, whose schedules then run over the epochs or seconds that are added.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from archsmith.core.child import Child, decided_by
from archsmith.core.errors import ChildFailed
from archsmith.core.evaluator import Context
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build_decided
from archsmith.core.trial import Cost, Result
from archsmith.nn.batch_norm import forgetting_within, set_epsilon
from archsmith.nn.classifier import classifier_of
from archsmith.nn.count import count
from archsmith.nn.narrow_strides import narrow_strides
from archsmith.nn.seeding import seed_torch
from archsmith.training.image_fitting import Fitted, Start, fit, keep_state, start_of
from archsmith.training.inheriting import inherit_from_parent
from archsmith.training.isolation import check_parameters, seeded
from archsmith.training.learning_rates import best_learning_rate
from archsmith.training.linear_probe import LinearProbe, fit_classifier
from archsmith.training.optimizers import optimizer_of
from archsmith.training.resuming import Checkpoint, load_checkpoint

if TYPE_CHECKING:
    from archsmith.data.images import ImageSplits
    from archsmith.training.image_classification import ImageClassification

STRENGTHS = (1e4, 1e3, 1e2, 1e1, 1.0)  # of L2: fewer than a transfer tries, since probes are many
LEAST_SECONDS = 1.0  # of a training, when fitting the classifier took all of its time


def evaluate(config: ImageClassification, space: Space, genotype: Genotype, context: Context) -> Result:
    """See `ImageClassification.evaluate`."""
    config, child = build_decided(space, genotype, config, seeding=lambda: seeded(context, "init"))
    with seeded(context, "init"):
        checkpoint = load_checkpoint(context)
        _begin(child, checkpoint)
        inherited = (
            inherit_from_parent(config, space, child, context) if checkpoint is None else checkpoint.extra["inherited"]
        )
        result = _train(config, child, context, False, checkpoint, inherited)
        if inherited is not None:
            result = dataclasses.replace(result, metrics={**result.metrics, "inherited_parameters": inherited})
        if context.paused:
            return result
        if not config.keep_weights:
            return dataclasses.replace(result, artifact=result.checkpoint)
        weights = {k: v.detach().cpu().contiguous() for k, v in child.model.state_dict().items()}
        return dataclasses.replace(result, artifact=context.checkpoint(weights))


def train(config: ImageClassification, child: Child, context: Context, *, all_data: bool = False) -> Result:
    """See `ImageClassification.train`."""
    checkpoint = load_checkpoint(context)
    _begin(child, checkpoint)
    return _train(decided_by(child, config), child, context, all_data, checkpoint, None)


def _begin(child: Child, checkpoint: Checkpoint | None) -> None:
    """Give the child the weights that it starts from, if there are such and it does not go on from a checkpoint."""
    if child.start is None or checkpoint is not None:
        return
    tensors = child.start()
    unknown = child.model.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise ChildFailed(f"the child starts from weights that its model has no place for: {', '.join(unknown[:3])}")


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
    start = start_of(checkpoint)
    with seeded(context, "train"):
        # Of a paused training, measured again, it would be another number.
        latency = checkpoint.extra["latency"] if checkpoint is not None and start.paused else None
        if config.latency is not None and latency is None:
            found = config.latency.measure(model, config.task().input_shape)
            latency = {"latency": found.median, "latency_low": found.low, "latency_high": found.high}
        context.check()
        multiply_adds = count(model, config.task().input_shape).multiply_adds
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        # How many steps fit into some seconds is not known: averages forget as fast as they may.
        steps = 0 if config.seconds else config.epochs * math.ceil(len(splits.train) / config.batch_size)
        model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        probe, probed = None, 0
        try:
            with narrow_strides(model), forgetting_within(model, steps) as decay:
                began = time.perf_counter()
                if config.probe and checkpoint is None:
                    probe, config = _with_probe(config, model, context)
                if checkpoint is not None:
                    child = dataclasses.replace(child, learning_rate=_rate_again(config, child, start))
                elif config.epochs:
                    child, probed = _with_rate(config, child, splits, context, seed, start)
                probing = time.perf_counter() - began
                extra = {"latency": latency, "inherited": inherited, "learning_rate": child.learning_rate}
                if probe is not None and not config.epochs:
                    fitted = _probe_alone(config, child, context, seed, probe, probing, extra)
                else:
                    fitted = fit(config, child, splits, context, seed, all_data, start, extra=extra)
        finally:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            model.eval()
    curve = fitted.curve
    last = curve[-1]
    metrics: dict[str, float] = {"parameters": parameters, "multiply_adds": multiply_adds}
    if latency is not None:
        metrics |= latency
    if decay is not None:
        metrics["batch_norm_decay"] = decay
    metrics["train_seconds"], metrics["train_loss"] = start.spent + fitted.seconds, last["train_loss"]
    metrics["images_per_second"] = fitted.images_per_second
    if probe is not None:
        metrics["probe_accuracy"] = probe.accuracy
    if start.epochs:
        metrics["epochs_before"], metrics["seconds_before"] = start.epochs, start.seconds
    if not all_data:
        metrics["accuracy"] = max(row["accuracy"] for row in curve[-5:] if "accuracy" in row)
        metrics["final_accuracy"], metrics["loss"] = last["accuracy"], last["loss"]
    if child.learning_rate is not None:
        metrics["learning_rate"] = child.learning_rate
    new = curve[len(start.curve) :]
    return Result(
        metrics,
        new,
        Cost(seconds=probing + fitted.seconds, epochs=probed + len(new)),
        checkpoint=fitted.checkpoint,
        settings=dict(child.settings),
    )


def _with_probe(
    config: ImageClassification, model: torch.nn.Module, context: Context
) -> tuple[LinearProbe, ImageClassification]:
    """Fit the classifier. Gives what came of it, and the settings with as many seconds less as it took."""
    began = time.perf_counter()
    _, layer = classifier_of(model, config.task().input_shape)
    probe = fit_classifier(model, layer, config, context, most=config.probe, strengths=STRENGTHS)
    if config.seconds is not None:
        left = config.seconds - (time.perf_counter() - began)
        config = dataclasses.replace(config, seconds=max(left, LEAST_SECONDS))
    return probe, config


def _probe_alone(
    config: ImageClassification,
    child: Child,
    context: Context,
    seed: int,
    probe: LinearProbe,
    seconds: float,
    extra: Mapping[str, Any],
) -> Fitted:
    """A training without epochs, whose classifier has been fitted."""
    optimizer = optimizer_of(
        config, child, config.learning_rate if child.learning_rate is None else child.learning_rate
    )
    draws = torch.Generator().manual_seed(seed)
    row = {
        "epoch": 1,
        "train_loss": probe.train_loss,
        "train_accuracy": probe.train_accuracy,
        "learning_rate": 0.0,
        "accuracy": probe.accuracy,
        "loss": probe.loss,
        "seconds": seconds,
    }
    context.report(1, {k: v for k, v in row.items() if k != "epoch"})
    state = {**extra, "curve": [row], "seconds": seconds, "epochs_before": 0, "seconds_before": 0.0, "average": None}
    digest = keep_state(config, context, child.model, optimizer, draws, state)
    return Fitted([row], 0.0, probe.pictures / seconds, digest)


def _with_rate(
    config: ImageClassification, child: Child, splits: ImageSplits, context: Context, seed: int, start: Start
) -> tuple[Child, int]:
    """The child with the best of the configuration's learning rates, and how many epochs were spent on choosing it."""
    if not config.learning_rates or child.learning_rate is not None:
        return child, 0

    def attempt(rate: float) -> tuple[float, float]:
        seed_torch(seed)
        tried = dataclasses.replace(child, learning_rate=rate)
        row = fit(config, tried, splits, context, seed, False, start, first_epoch=True).curve[0]
        return row["accuracy"], row["loss"]

    best = best_learning_rate(config.learning_rates, child.model, attempt)
    seed_torch(seed)  # as at the beginning of each attempt
    return dataclasses.replace(child, learning_rate=best), len(config.learning_rates)


def _rate_again(config: ImageClassification, child: Child, start: Start) -> float | None:
    """The learning rate of a child that goes on: the one that was found by trying, and otherwise that of the settings."""
    assert start.checkpoint is not None
    before: float | None = start.checkpoint.extra["learning_rate"]
    if start.paused or (child.learning_rate is None and config.learning_rates):
        return before
    return child.learning_rate
