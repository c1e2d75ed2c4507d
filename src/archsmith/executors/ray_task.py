"""A job on its way through Ray, and how one that gave no outcome came to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archsmith.core.executor import Job
from archsmith.core.trial import Failure
from archsmith.executors.ray_mail import Began
from archsmith.executors.ray_worker import read_output

_TAIL = 10.0  # seconds for another machine to show what a dead child had printed


@dataclass(eq=False)
class Task:
    """A job with Ray, or on its way there, and what was heard of it.

    Args:
        number: its own, of all that were made: messages of an attempt that is over are known by it.
        job: what is run.
        attempt: counted from 1; a job whose worker died begins again.
        reference: Ray's, to its outcome; None while it waits here.
        shared: keeps what was put into the object store for it.
    """

    number: int
    job: Job
    attempt: int
    reference: Any = None
    shared: Any = None
    began: Began | None = None
    began_at: float = 0.0
    curve: list[Mapping[str, float]] = field(default_factory=list)
    cancelled: bool = False
    kill_at: float = float("inf")
    verdict: Failure | None = None


DEATHS = {
    "WorkerCrashedError": "died",
    "NodeDiedError": "was lost with its machine",
    "OutOfMemoryError": "was ended by Ray, for want of memory on its machine",
    "ObjectLostError": "was lost with its machine, when it had just finished",
    "OwnerDiedError": "was lost with its machine, when it had just finished",
    "LocalRayletDiedError": "was lost with its machine",
}


def printed_by(began: Began | None) -> str:
    """What a dead child printed last, as far as its machine can still tell."""
    import ray

    if began is None:
        return ""
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(began.node_id, soft=False)
    try:
        reading = ray.remote(read_output).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        return str(ray.get(reading.remote(began.output), timeout=_TAIL))
    except ray.exceptions.RayError:  # that machine is gone as well
        return ""
