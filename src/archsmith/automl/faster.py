"""Networks that take a half and a quarter of the time of the delivered one: the same layers on smaller pictures.

They go on from its weights, so that little training is enough (Touvron et al. 2019, "Fixing the train-test resolution discrepancy",
trains on at another resolution in the same way).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from archsmith.core.child import Task
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.space import build, decode
from archsmith.spaces import Product, Subnetwork
from archsmith.training import Latency

SHARES = (0.5, 0.25)  # of the delivered network's latency
SIDE_STEP, LEAST_SIDE = 8, 40  # pixels


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


def faster_ones(space: Product, genotype: Genotype, task: Task, name: str) -> Iterator[Faster]:
    """For each of `SHARES`, the network with the largest input that takes at most that part of the time, as measured here.

    Args:
        space: with a `Subnetwork` that has sizes.
        genotype: of the network.
        task: as of the trainer.
        name: of the network.
    """
    architecture = decode(space, genotype)
    side = architecture["parts"]["Subnetwork"]["size"]
    model = build(space, genotype, task).model
    channels = task.input_shape[0]

    def latency(size: int) -> float:
        return Latency().measure(model, (channels, size, size)).median

    whole = latency(side)
    for share in SHARES:
        side = int(side * 0.75) // SIDE_STEP * SIDE_STEP
        while side > LEAST_SIDE and latency(side) > share * whole:
            side -= SIDE_STEP
        if side >= LEAST_SIDE and latency(side) <= share * whole:
            yield Faster(f"{name} at {side} pixels", space.genotype(_at(architecture, side)), side)


def _at(architecture: Architecture, size: int) -> Architecture:
    changed = copy.deepcopy(architecture)
    changed["parts"]["Subnetwork"]["size"] = size
    return changed


def has_faster(space: Product) -> bool:
    """Whether faster networks can be made from one of this space."""
    networks = space.parts[0]
    return isinstance(networks, Subnetwork) and len(networks.sizes) > 1
