"""What a transfer would take: both networks built, a few batches trained, the rest reckoned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from archsmith._describe import Thing
from archsmith._search import Run
from archsmith._search.estimate import step_seconds
from archsmith._transfer.cell import OneCell, cell_of, multiply_adds_of, parameters_of, sized
from archsmith._transfer.scale import evaluator_for, steps_of
from archsmith.core.executor import derive_seed
from archsmith.core.finish import Finishable
from archsmith.core.space import build


@dataclass(frozen=True)
class NetworkEstimate:
    """What one training of a network would take.

    Args:
        name: the cell's, or "LSTM".
        hidden, parameters, multiply_adds: how large it is, as in `TransferredNetwork`.
        step_seconds: of a batch, on this machine.
    """

    name: str
    hidden: int
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
    """

    networks: tuple[NetworkEstimate, ...]
    steps_per_epoch: int
    steps: int
    seeds: int
    device: str
    threads: int

    @property
    def seconds(self) -> float:
        """Of all trainings; validation and testing come on top."""
        return self.seeds * self.steps * sum(n.step_seconds for n in self.networks)

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head."""
        head: tuple[str, ...] = (
            "cell",
            "units",
            "parameters",
            "multiply-adds",
            "seconds a step",
            "steps",
            "hours a training",
        )
        return [head] + [
            (
                n.name,
                f"{n.hidden:,}",
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
        hours = self.seconds / 3600
        return (
            f"about {hours:,.3g} hours for {self.seeds} training{'s' * (self.seeds != 1)} of each network, one after the "
            f"other, on {self.device} "
            f"with {self.threads} thread{'s' * (self.threads != 1)}; validation and testing come on top"
        )


def estimate(
    thing: Run | Thing,
    to: str = "chars",
    data: str | None = None,
    *,
    scale: str = "desk",
    seeds: int = 3,
    epochs: int | None = None,
    evaluator: Finishable | None = None,
    batches: int = 1,
) -> Estimate:
    """What `transfer` with the same arguments would take. Trains one batch and then `batches` that are timed;
    one alone where that takes long. A training is reckoned with one thread, as in a pool of processes."""
    evaluator = evaluator if evaluator is not None else evaluator_for(to, scale, data, epochs)
    return estimate_of(sized(cell_of(thing), evaluator), evaluator, seeds, batches)


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
        timed.append(NetworkEstimate(name, *size, _timed(network, evaluator, batches, threads)))
    return Estimate(tuple(timed), each, steps, seeds, device, threads or torch.get_num_threads())


def _timed(network: OneCell, evaluator: Finishable, batches: int, threads: int | None) -> float:
    """Seconds of a batch; the network is gone afterwards, before the next one is built."""
    import torch

    from archsmith.nn.seeding import seed_torch

    with torch.random.fork_rng():
        seed_torch(derive_seed(0, "init"))
        child = build(network, network.genotype, evaluator.task())
    return step_seconds(evaluator, child, batches, threads=threads)
