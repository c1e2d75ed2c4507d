"""A published network finished on a person's own data: a run of a space with one thing in it, then a finish like any other.

The published settings are for hundreds of epochs. Here the learning rate is chosen by validation around that of NASNet's
last training on CIFAR-10 (0.025, one period of a cosine, weight decay 5e-4, gradients clipped at 5), with the auxiliary
head where the network has one.
"""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsmith._search import Run, search
from archsmith.core.child import Task
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.finish import FinishPlan
from archsmith.discovered import NETWORKS, Published
from archsmith.rewards import accuracy
from archsmith.searchers import Random
from archsmith.store import open_store
from archsmith.training import ImageClassification

if TYPE_CHECKING:
    from archsmith._search.loop import Watch

EPOCHS = 20
AUXILIARY = 0.4  # the papers' weight of the auxiliary loss for ImageNet, and NASNet's for CIFAR
SMALL = 64  # pixels a side up to which a network reads images as they are


def plan_for(space: Published, *, epochs: int = EPOCHS, seeds: int = 3) -> FinishPlan:
    """How a published network is finished: a quarter of the epochs at each of three learning rates, then all of them."""
    has_head = "auxiliary" in inspect.signature(NETWORKS[space.network]).parameters and space.auxiliary is None
    return FinishPlan(
        top=1,
        scale={"learning_rate": (0.25, 4.0)},
        epochs=epochs,
        seeds=seeds,
        space={"auxiliary": AUXILIARY} if has_head else {},
    )


def evaluator_for(space: Published, data: str, *, epochs: int = EPOCHS, size: int | None = None) -> ImageClassification:
    """What a published network is trained by.

    Args:
        space: the network.
        data: as of `ImageClassification`.
        epochs: of the final trainings; those to choose by take a quarter.
        size: pixels a side. None: as the data are, or for a network of large images what it was published for.
    """
    task = space.task
    if not isinstance(task, Task):
        raise UsageError(f"{space.network} reads no images; a cell is trained by archsmith transfer {space.network}")
    if size is None and task.input_shape[1] > SMALL:
        size = task.input_shape[1]
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise UsageError(f"epochs of a finish must be a whole number of at least 1, got {epochs!r}")
    return replace(
        ImageClassification.desk(data, epochs=max(1, epochs // 4)),
        learning_rate=0.025,
        nesterov=False,
        weight_decay=5e-4,
        schedule="cosine",
        clip=5.0,
        size=size,
    )


def published_run(
    space: Published,
    evaluator: Any,
    *,
    store: str,
    name: str | None = None,
    seed: int = 0,
    plan: FinishPlan | None = None,
    watch: Watch | None = None,
) -> Run:
    """The run that a finish of a published network is recorded in: one trial, the network as it is.

    One that is there already is gone on with. Raises UsageError when the store has another of that name.
    """
    if name is None:
        stem = os.path.basename(os.path.abspath(str(evaluator.data))).split(".")[0]
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{space.network}-{stem}")
    path = store.removeprefix("sqlite:///")
    opened = open_store(store) if "://" in path or Path(path).exists() else None
    if opened is None or name not in {run.name for run in opened.runs()}:
        return search(
            space,
            evaluator,
            searcher=Random(),
            reward=accuracy,
            trials=1,
            store=store,
            name=name,
            seed=seed,
            note={"finish": to_config(plan or plan_for(space)), "published": space.network},
            watch=watch,
        )
    run = Run(opened, name)
    mine = {k: v for k, v in to_config(evaluator).items() if k != "data"}
    its = {k: v for k, v in run.config["evaluator"].items() if k != "data"}
    if run.config["space"] != to_config(space) or its != mine or run.config["seed"] != seed:
        raise UsageError(
            f"{store} has a run {name!r} already, of another network, seed or settings; give this one another name"
        )
    run = Run(opened, name, evaluator=evaluator)
    return run.resume(watch=watch) if run.summary.status != "finished" else run
