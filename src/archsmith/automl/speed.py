"""How fast networks work on this machine, measured: the plan and the choice of the baseline follow from it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from archsmith import rewards
from archsmith._search.known_points import genotypes_of
from archsmith.automl.plan import MAX_EPOCHS
from archsmith.automl.strategy import Strategy
from archsmith.core.child import Task
from archsmith.core.executor import Job
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build_decided, decode
from archsmith.executors.run_job import JobContext, default_device
from archsmith.training import ImageClassification
from archsmith.training.schedules import area_share

FIRST_SECONDS, SPEED_SECONDS = (
    0.3,
    1.0,
)  # of a training that is not measured, since first steps are slow, and of one that is
STANDING_STILL = 1e-6  # a learning rate at which nothing diverges
TEST_BATCH = 32  # pictures


def training_speed(trainer: ImageClassification, space: Space, genotype: Genotype, threads: int) -> float:
    """How many pictures a second a network learns from, on average over a training in which they grow.

    It is trained for a second, without validation, on pictures of the side that they have at the end. Its weights are dropped.
    """
    timed = replace(
        trainer, first_size=None, epochs=MAX_EPOCHS, schedule="constant", continues=False, keep_weights=False
    )
    context = JobContext(
        Job(0, space, genotype, timed, rewards.final_accuracy, seed=0),
        device="auto",
        threads=threads,
        tell=lambda progress: True,
    )
    decided, child = build_decided(space, genotype, timed)
    child = replace(child, learning_rate=STANDING_STILL)
    replace(decided, seconds=FIRST_SECONDS).train(child, context, all_data=True)
    measured = replace(decided, seconds=SPEED_SECONDS).train(child, context, all_data=True)
    last = trainer.train_size or trainer.task().input_shape[1]
    return float(measured.metrics["images_per_second"]) / area_share(trainer.first_size or last, last)


def fast_enough(
    trainer: ImageClassification, strategy: Strategy, threads: int, needed: float
) -> tuple[Sequence[Genotype], float]:
    """The known points around the largest known network that learns from `needed` pictures a second, else around the smallest.

    The second value is how many pictures a second the network learns from.
    """
    known = [genotypes_of(strategy.space, points) for points in strategy.points()]

    @cache
    def speed(index: int) -> float:
        return training_speed(trainer, strategy.space, known[index][0], threads)

    smallest = len(known) - 1
    chosen = bisect_left(range(smallest), True, key=lambda index: speed(index) >= needed)
    return known[chosen], speed(chosen)


def tried_first(
    strategy: Strategy, known: Sequence[Genotype], speed: float
) -> tuple[Sequence[Genotype], Sequence[float]]:
    """The known points in the order in which the search tries them, and the seconds that a probe of each takes one thread.

    Probes begin with the shortest, so that there is time for many. Without probes the order stays, and there are no seconds.

    Args:
        strategy: of the points.
        known: the points, the baseline first.
        speed: how many pictures a second one thread learns from, of the baseline.
    """
    if not strategy.probed:
        return known, []
    points = [decode(strategy.space, genotype) for genotype in known]
    seconds = [strategy.probe_seconds(point, points[0], speed) for point in points]
    order = sorted(range(len(known)), key=lambda index: (seconds[index], index))
    return [known[index] for index in order], [seconds[index] for index in order]


def testing_speed(network: nn.Module, task: Task) -> float:
    """How many pictures a second a network classifies, by one batch."""
    device = default_device(0)
    batch = torch.zeros(TEST_BATCH, *task.input_shape, device=device)
    network = network.to(device).eval()
    with torch.inference_mode():
        network(batch)
        began = time.perf_counter()
        network(batch).cpu()
    return TEST_BATCH / float(time.perf_counter() - began)
