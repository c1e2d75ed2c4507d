"""Networks that take a half and a quarter of the time of the delivered one: the same layers on smaller pictures.

They go on from its weights, so that little training is enough (Touvron et al. 2019, "Fixing the train-test resolution discrepancy",
trains on at another resolution in the same way).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from archsmith.automl.latency_target import measured
from archsmith.core.child import Task
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.space import build, decode
from archsmith.spaces import Product, Subnetwork

SHARES = (0.5, 0.25)  # of the delivered network's latency
SIDE_STEP, LEAST_SIDE = 8, 40  # pixels
GUESS = 1.05  # of the part of the pixels that has a part of the latency: where looking for it begins


@dataclass(frozen=True)
class Faster:
    """A network that is to be trained on.

    Args:
        name: what it is called in the record.
        genotype: what it is built from.
        size: the side of its input in pixels.
    """

    name: str
    genotype: Genotype
    size: int


def faster_ones(space: Product, genotype: Genotype, task: Task, name: str, engine: str) -> Iterator[Faster]:
    """For each of `SHARES`, the network with the largest input that takes at most that part of the time, as measured here.

    Args:
        space: with a `Subnetwork` that has sizes.
        genotype: of the network.
        task: as of the trainer.
        name: of the network.
        engine: what latencies are measured with.
    """
    architecture = decode(space, genotype)
    whole_side = architecture["parts"]["Subnetwork"]["size"]
    model = build(space, genotype, task).model
    channels = task.input_shape[0]

    @cache
    def latency(side: int) -> float:
        return measured(model, (channels, side, side), engine)[0]

    for share in SHARES:
        side = _steps(whole_side * (GUESS * share) ** 0.5)  # about as many pixels less
        while side > LEAST_SIDE and latency(side) > share * latency(whole_side):
            side -= SIDE_STEP
        if side >= LEAST_SIDE and latency(side) <= share * latency(whole_side):
            yield Faster(f"{name} at {side} pixels", space.genotype(_at(architecture, side)), side)


def _steps(side: float) -> int:
    return int(side) // SIDE_STEP * SIDE_STEP


def _at(architecture: Architecture, size: int) -> Architecture:
    changed = copy.deepcopy(architecture)
    changed["parts"]["Subnetwork"]["size"] = size
    return changed


def has_faster(space: Product) -> bool:
    """Whether faster networks can be made from one of this space."""
    networks = space.parts[0]
    return isinstance(networks, Subnetwork) and len(networks.sizes) > 1
