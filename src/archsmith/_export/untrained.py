"""A published network without a run: as it is built, with weights drawn from a seed, for a person to train elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from archsmith._describe import Thing, find
from archsmith._export.image_model import ImageModel
from archsmith._search.session import versions
from archsmith.core.child import Task
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.space import build, default_task

MOST_SEED = 2**63 - 1


def untrained(
    thing: Thing,
    *,
    seed: int = 0,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    size: Mapping[str, Any] | None = None,
) -> ImageModel:
    """A network of images with the weights that it is built with, which is said on its card.

    Its inputs are as they come, from 0 to 1: how they are prepared is decided by who trains it.

    Raises UsageError for what reads no images, and what `describe` raises.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise UsageError(f"seed of an export must be a whole number of at least 0, got {seed!r}")
    found = find(thing, size)
    task = found.task or default_task(found.space)
    if not isinstance(task, Task):
        raise UsageError(f"{found.name} reads no images; as a recurrent cell it is written with --format source")
    if input_shape is not None or num_classes is not None:
        classes = task.num_classes if num_classes is None else num_classes
        try:
            task = Task(tuple(input_shape) if input_shape is not None else task.input_shape, classes)
        except ValueError as error:
            raise UsageError(str(error)) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(found.space, found.architecture, task).model
    norms = {m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    return ImageModel(
        name=found.name,
        network=network,
        task=task,
        class_names=[str(k) for k in range(task.num_classes)],
        preprocessing={},
        batch_norm_epsilon=norms.pop() if len(norms) == 1 else None,
        space=to_config(found.space),
        genotype=found.genotype.to_json() if found.genotype is not None else None,
        architecture=found.architecture,
        card={
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "untrained": {"seed": seed},
            "versions": versions(),
        },
    )
