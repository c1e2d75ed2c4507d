"""What a transfer would take: both networks built, a few batches trained, the rest reckoned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from archsmith._search.estimate import step_seconds
from archsmith._transfer.cell import FoundCell, OneCell, multiply_adds_of, parameters_of, sized
from archsmith._transfer.contest import FEATURES, Contest
from archsmith._transfer.contest import steps_of as images_steps_of
from archsmith._transfer.scale import steps_of
from archsmith.core.executor import derive_seed
from archsmith.core.finish import Finishable
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build


@dataclass(frozen=True)
class NetworkEstimate:
    """What one training of a network would take.

    Args:
        name: the cell's, or "LSTM"; of images the network's and the way.
        hidden, parameters, multiply_adds: how large it is, as in `TransferredNetwork`.
        step_seconds: of a batch, on this machine.
    """

    name: str
    hidden: int | None
    parameters: int
    multiply_adds: int
    step_seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a transfer would take on this machine, one training after the other.

    Args:
        networks: the found cell's, then the LSTM's.
        steps_per_epoch, steps: batches of an epoch and of a whole training.
        seeds: trainings of each network.
        device, threads: where a batch was timed.
        beside: what comes on top, for a person.
        trainings_each: trainings of each network, those that choose its settings included; 0: as many as seeds.
    """

    networks: tuple[NetworkEstimate, ...]
    steps_per_epoch: int
    steps: int
    seeds: int
    device: str
    threads: int
    beside: str = "validation and testing come on top"
    trainings_each: int = 0

    @property
    def seconds(self) -> float:
        """Of all trainings; validation and testing come on top."""
        return (self.trainings_each or self.seeds) * self.steps * sum(n.step_seconds for n in self.networks)

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head."""
        of_cells = any(n.hidden is not None for n in self.networks)
        head: tuple[str, ...] = (
            *(("cell", "units") if of_cells else ("network",)),
            "parameters",
            "multiply-adds",
            "seconds a step",
            "steps",
            "hours a training",
        )
        return [head] + [
            (
                n.name,
                *((f"{n.hidden:,}",) if of_cells else ()),
                f"{n.parameters:,}",
                f"{n.multiply_adds:,}",
                f"{n.step_seconds:.3g}",
                f"{self.steps:,}",
                f"{n.step_seconds * self.steps / 3600:,.3g}",
            )
            for n in self.networks
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "seconds": self.seconds}

    def __str__(self) -> str:
        hours, each = self.seconds / 3600, self.trainings_each or self.seeds
        return (
            f"about {hours:,.3g} hours for {each} training{'s' * (each != 1)} of each network, one after the "
            f"other, on {self.device} "
            f"with {self.threads} thread{'s' * (self.threads != 1)}; {self.beside}"
        )


def estimate_cell(cell: FoundCell, evaluator: Finishable, seeds: int, batches: int) -> Estimate:
    """Of a cell's transfer, the LSTM included."""
    return estimate_of(sized(cell, evaluator), evaluator, seeds, batches)


def estimate_images(
    contest: Contest, seeds: int, batches: int, threads: int | None = 1, *, trainings_each: int = 0
) -> Estimate:
    """Of a transfer of images. Fixed features train nothing and are not timed."""
    import torch

    timed = []
    for entry in contest.entries:
        if entry.how != FEATURES:
            seconds = _timed(entry.network, entry.network.only, entry.evaluator, batches, threads)
            timed.append(NetworkEstimate(entry.label, None, entry.parameters, entry.multiply_adds, seconds))
    each, steps = images_steps_of(contest.evaluator)
    on_top = "validation and testing come on top"
    if FEATURES in contest.ways:
        on_top = (
            "validation and testing come on top, and reading features, which takes about as long as a third of an epoch"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    used = threads or torch.get_num_threads()
    return Estimate(tuple(timed), each, steps, seeds, device, used, on_top, trainings_each)


def estimate_of(
    networks: Mapping[str, OneCell], evaluator: Finishable, seeds: int, batches: int, threads: int | None = 1
) -> Estimate:
    """As `estimate`, of networks that are at hand, with the threads that each training will have: one in a pool of
    processes; None for those that torch has."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    each, steps = steps_of(evaluator)
    timed = []
    for name, network in networks.items():
        size = (network.hidden, parameters_of(network, evaluator), multiply_adds_of(network, evaluator))
        timed.append(NetworkEstimate(name, *size, _timed(network, network.genotype, evaluator, batches, threads)))
    return Estimate(tuple(timed), each, steps, seeds, device, threads or torch.get_num_threads())


def _timed(network: Space, genotype: Genotype, evaluator: Finishable, batches: int, threads: int | None) -> float:
    """Seconds of a batch; the network is gone afterwards, before the next one is built."""
    import torch

    from archsmith.nn.seeding import seed_torch

    with torch.random.fork_rng():
        seed_torch(derive_seed(0, "init"))
        child = build(network, genotype, evaluator.task())
    return step_seconds(evaluator, child, batches, threads=threads)
