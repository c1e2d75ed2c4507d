"""The whole job on pictures within a time budget, as a function."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from archsmith._search.session import DEFAULT_STORE, check_enough
from archsmith.automl.events import DataRead, Watch, WrapUpStarted
from archsmith.automl.faster import has_faster
from archsmith.automl.interruption import Interruption
from archsmith.automl.latency_target import LatencyTarget, usual_engine
from archsmith.automl.outputs import Outputs, stem_of
from archsmith.automl.plan import check_total, speed_needed, time_plan
from archsmith.automl.result import AutoResult
from archsmith.automl.speed import fast_enough, tried_first
from archsmith.automl.stages import Stages
from archsmith.automl.strategy import AVAILABLE, strategy_for
from archsmith.core import loaded
from archsmith.core.cores import cores
from archsmith.core.duration import seconds_of
from archsmith.core.global_state import generators_kept
from archsmith.spaces import Backbone
from archsmith.store import open_store
from archsmith.store.payload import free_name
from archsmith.training import ImageClassification, Latency


@generators_kept()
def auto(
    data: str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any],
    *,
    time: str | float = "20m",
    size: int | None = None,
    pretrained: str | os.PathLike[str] | Backbone | None = AVAILABLE,
    labels: str | os.PathLike[str] | None = None,
    label_pattern: str | None = None,
    latency: float | None = None,
    runtime: str | None = None,
    baseline_time: str | float | None = None,
    control: bool = False,
    workers: int | None = None,
    store: str = DEFAULT_STORE,
    name: str | None = None,
    seed: int = 0,
    output: str | os.PathLike[str] | None = "out",
    force: bool = False,
    began: float | None = None,
    watch: Watch | None = None,
) -> AutoResult:
    """Give the best classifier of pictures that the time allows, from pretrained weights or from scratch.

    Args:
        data: as of `ImageClassification`.
        time: for everything, such as "20m" or "1h30m", or in seconds.
        size: the side of the network's input in pixels (default: decided by the pictures).
        pretrained: weights to begin with. "available": those of EfficientNet-Lite0, trained on ImageNet, for colour pictures of 64
            pixels a side or more, if the extra `pretrained` is installed. "imagenet": these for any pictures. The path of a
            safetensors file in timm's naming: those of a network of `spaces.Subnetwork`. A `spaces.Backbone`: a module of
            yours, such as a DINOv2; a run that goes on takes it again. None: from scratch.
        labels, label_pattern: where the labels are, as of `ImageClassification`.
        latency: milliseconds that the delivered network may take for a picture on this machine, with one thread; None: any.
        runtime: what latencies are measured with: "onnxruntime", for the file that `export --format onnx` writes, or "pytorch"
            (default: the former, if it is installed).
        baseline_time: for the baseline's training (default: one sixth of the time).
        control: whether random search runs beside the search, with as many children.
        workers: children that are trained side by side (default: one for each CUDA device, or else for each core).
        store: where the run is kept.
        name: the run's name there (default: made from the data's). One that exists goes on.
        seed: all randomness comes from it. Results still vary, because the clock decides how long is trained.
        output: the folder for the page NAME.html, the model NAME and its source NAME-source; None: nothing is written.
        force: whether the page replaces a file of that name that archsmith did not write.
        began: when the time began, by `time.monotonic` (default: now).
        watch: called with each stage, trial and training.

    Raises:
        UsageError: an argument does not fit, or a place cannot be written; nothing has been trained.
        DataError: the data cannot be read.
        ChildFailed: no training came to its end.
        KeyboardInterrupt: Ctrl-C while the data are read, or the second one. The first wraps up within a minute.
    """
    started = clock.monotonic() if began is None else began
    total = seconds_of(time)
    baseline = None if baseline_time is None else seconds_of(baseline_time, "baseline_time")
    engine = usual_engine() if runtime is None else Latency(engine=runtime).engine
    target = None if latency is None else LatencyTarget(latency, engine)
    asked = ImageClassification(data, labels=labels, label_pattern=label_pattern)
    opened = open_store(store)
    taken = {run.name for run in opened.runs()}
    outputs = Outputs(
        store=opened,
        name=name if name is not None else free_name(taken, stem_of(asked)),
        folder=None if output is None else Path(output),
        force=force,
        backbone=pretrained if isinstance(pretrained, Backbone) else None,
    )
    recorded = outputs.recorded_plan()
    side_by_side = workers if workers is not None else _default_workers()
    check_total(total)
    with Interruption(lambda: watch(WrapUpStarted()) if watch is not None else None) as interruption:
        earlier = outputs.recorded_space()
        strategy = strategy_for(asked, size, pretrained, earlier)
        pictures, trainer = strategy.pictures, strategy.trainer(asked)
        with loaded.pinned(trainer):
            if watch is not None:
                watch(DataRead(trainer.describe_data(), pictures))
            check_enough(trainer)
            threads = workers if workers is not None else cores()
            if recorded is None:
                if target is not None:
                    strategy = strategy.within(target, trainer)
                    pictures = strategy.pictures
                needed = speed_needed(total - (clock.monotonic() - started), pictures.train, strategy.passes)
                known, speed = fast_enough(trainer, strategy, threads, needed)
                points, probes = tried_first(strategy, known, speed / threads)
                baseline_network = known[0]
                plan = time_plan(
                    total,
                    spent=clock.monotonic() - started,
                    workers=side_by_side,
                    testing=pictures.testing_seconds,
                    baseline=baseline,
                    chooses=pictures.folds is None,
                    control=control,
                    one_pass=pictures.train / speed * (1 if torch.cuda.is_available() else side_by_side),
                    probes=probes,
                    faster=has_faster(strategy.space),
                )
                plan = replace(plan, speed=speed)
            else:
                outputs.check_target(target)
                points = outputs.recorded_points()
                baseline_network = outputs.recorded_baseline()
                plan = replace(recorded, total=total, reading=clock.monotonic() - started)
            stages = Stages(
                trainer=trainer,
                strategy=strategy,
                space=strategy.space if earlier is None else earlier,
                plan=plan,
                engine=engine,
                target=target,
                baseline=baseline_network,
                points=points,
                started=started,
                workers=side_by_side,
                threads=threads,
                outputs=outputs,
                seed=seed,
                interruption=interruption,
                watch=watch,
            )
            with interruption.gently():
                return stages.go(control)


def _default_workers() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else cores()
