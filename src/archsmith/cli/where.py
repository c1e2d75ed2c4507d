"""Where children are trained, as the command line says it: options, and the executor that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsmith.core.cores import cores
from archsmith.core.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from archsmith.core.executor import Executor
    from archsmith.executors import Faults

EXECUTORS = ("in-process", "pool", "ray", "simulated")

WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Children trained side by side (default: one for each core, or what Ray has; of an asynchronous controller on the "
        "simulated clock, all that its replicas wait for).",
    ),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Where children are trained: in-process, pool (of processes), ray, or simulated: looked up, on a clock that "
        "counts what their trainings took.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The Ray cluster to join: auto, or HOST:PORT (default: what RAY_ADDRESS says, else a Ray of its own on this "
        "machine).",
    ),
]
CpusOption = Annotated[float | None, typer.Option("--cpus", help="With ray: cores for each child (default: 1).")]
GpusOption = Annotated[
    float | None, typer.Option("--gpus", help="With ray: GPUs for each child, such as 1 or 0.25 (default: 0).")
]

FaultsOption = Annotated[
    str | None,
    typer.Option(
        "--faults",
        metavar="NAME=NUMBER,...",
        help="With simulated: what goes wrong with machines, such as failures_per_hour=0.1,straggler_share=0.05,"
        "spot_lifetime_seconds=7200.",
    ),
]


@dataclass(frozen=True)
class Where:
    """Where children are trained. None is the default of each.

    Args:
        executor: one of `EXECUTORS`; by default a pool of processes, or this process for one worker.
        workers: children trained side by side.
        address, cpus, gpus: of a Ray cluster, and what one child takes there.
        faults: what goes wrong with simulated machines.
    """

    executor: str | None = None
    workers: int | None = None
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    faults: Faults | None = None

    @classmethod
    def named(
        cls,
        executor: str | None,
        workers: int | None,
        address: str | None,
        cpus: float | None,
        gpus: float | None,
        faults: str | None = None,
    ) -> Where:
        """What the options say. Raises UsageError for those that do not fit each other, UnknownName for an executor."""
        if executor is not None and executor not in EXECUTORS:
            raise UnknownName("executor", executor, EXECUTORS)
        executor = "ray" if executor is None and address is not None else executor
        if executor != "ray":
            for option, given in (("--address", address), ("--cpus", cpus), ("--gpus", gpus)):
                if given is not None:
                    raise UsageError(f"{option} is of a Ray cluster; give it with --executor ray")
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be a whole number of at least 1, got {workers}")
        if executor == "in-process" and (workers or 1) > 1:
            raise UsageError(
                f"--executor in-process trains one child at a time, and --workers is {workers}; use --executor pool"
            )
        if faults is not None and executor != "simulated":
            raise UsageError("--faults is of simulated machines; give it with --executor simulated")
        return cls(executor, workers, address, cpus, gpus, None if faults is None else _faults(faults))

    @classmethod
    def of_record(cls, note: Mapping[str, Any]) -> Where:
        """Where a run was trained last, from what is kept with it; the default where that says nothing of use."""
        kept = note.get("where")
        if not isinstance(kept, Mapping) or kept.get("executor") != "ray":
            return cls()
        numbers = {key: kept[key] for key in ("cpus", "gpus") if isinstance(kept.get(key), int | float)}
        address = kept.get("address")
        return cls("ray", address=address if isinstance(address, str) else None, **numbers)

    def to_record(self) -> dict[str, Any]:
        """What is kept with a run, so that `resume` goes on there; empty where that is nothing special."""
        if self.executor != "ray":
            return {}
        kept = {"executor": self.executor, "address": self.address, "cpus": self.cpus, "gpus": self.gpus}
        return {"where": {key: value for key, value in kept.items() if value is not None}}

    def or_else(self, other: Where) -> Where:
        """This, or the other where this names no executor; the number of workers stays."""
        return self if self.executor is not None else replace(other, workers=self.workers)

    def number(self, usual: int | None) -> int:
        """How many children are trained side by side: what was asked for, else `usual`, else one for each core."""
        if self.executor == "in-process":
            return 1
        return self.workers or usual or cores()

    def make(self, usual: int | None = None) -> Executor | None:
        """The executor, ready; None for the default that follows from the number of workers.

        Raises UsageError where Ray is not installed or not to be reached.
        """
        from archsmith.executors import InProcess, ProcessPool, Simulated

        if self.executor is None:
            return None
        if self.executor == "in-process":
            return InProcess()
        if self.executor == "pool":
            return ProcessPool(self.number(usual))
        if self.executor == "simulated":
            return Simulated(self.number(usual), faults=self.faults)
        from archsmith.executors import Ray

        cpus, gpus = 1.0 if self.cpus is None else self.cpus, self.gpus or 0.0
        return Ray(self.address, workers=self.workers, cpus=cpus, gpus=gpus)


def _faults(text: str) -> Faults:
    from archsmith.executors import Faults

    return Faults(**numbers_of(Faults, text, "--faults"))


def numbers_of(kind: type, text: str, option: str) -> dict[str, Any]:
    """The numbers that a text such as "eta=3,minimum=1" gives to fields of a configuration.

    Raises UnknownName for a field that it does not have, UsageError for what is no number.
    """
    names = [field.name for field in fields(kind)]
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in names:
            raise UnknownName(f"setting of {kind.__name__}", name, names)
        try:
            given[name] = float(number) if "." in number or "e" in number else int(number)
        except ValueError:
            raise UsageError(f"{option} {name} must be a number, got {number!r}") from None
    return given
