"""What a search would take: some of its children built, a few batches of each trained, the rest reckoned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any

from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build, sample

if TYPE_CHECKING:
    from archsmith.core.child import Child


@dataclass(frozen=True)
class SearchEstimate:
    """What a search would take on this machine, one child after the other, as a worker trains it: with one thread.

    Args:
        children: how many were built and timed; the numbers below are their means.
        parameters: of a child, without what is there in training alone, and `fewest` and `most` of those built.
        step_seconds: of a batch of training.
        steps_per_epoch, epochs: of each child.
        trials: of the search; None where its budget is in other units.
        device, threads: where a batch was timed.
        multiply_adds: of one image through a child; None of what reads none.
    """

    children: int
    parameters: float
    fewest: int
    most: int
    step_seconds: float
    steps_per_epoch: int
    epochs: int
    trials: int | None
    device: str
    threads: int
    multiply_adds: float | None = None

    @property
    def child_seconds(self) -> float:
        """Of training one child; validation comes on top."""
        return self.step_seconds * self.steps_per_epoch * self.epochs

    @property
    def seconds(self) -> float | None:
        """Of training all children of the search, without the random search beside it."""
        return None if self.trials is None else self.child_seconds * self.trials

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "child_seconds": self.child_seconds, "seconds": self.seconds}

    def __str__(self) -> str:
        size = f"{self.fewest:,}" if self.fewest == self.most else f"{self.fewest:,} to {self.most:,}"
        where = f"on {self.device} with {self.threads} thread{'s' * (self.threads != 1)}"
        if self.multiply_adds is not None:
            mean = "" if self.fewest == self.most else "on average "
            size += f" parameters and {mean}{self.multiply_adds:,.0f} multiply-adds an image"
        else:
            size += " parameters"
        child = (
            f"a child has {size}; {self.steps_per_epoch:,} steps an epoch of {self.step_seconds:.3g} s, "
            f"{self.epochs} epochs: about {_time(self.child_seconds)} {where}"
        )
        if self.seconds is None:
            return f"{child}; validation comes on top"
        all_ = (
            f"{self.trials:,} children: about {_time(self.seconds)}, one after the other, and as much for random search"
        )
        return f"{child}; {all_}; validation comes on top"


def estimate(
    space: Space, evaluator: Any, *, trials: int | None, children: int = 3, batches: int = 2
) -> SearchEstimate:
    """Build some random children and time some batches of each; nothing is recorded.

    Raises UsageError when the evaluator trains nothing, or its data are less than the batches.
    """
    from archsmith.nn.count import count, count_parameters

    missing = [name for name in ("task", "train", "epochs", "steps_per_epoch") if not hasattr(evaluator, name)]
    if missing:
        raise UsageError(f"{type(evaluator).__name__} has no {missing[0]}, so what a search by it takes cannot be told")
    probe = Probe.here(batches, threads=1)
    rng = Random(0)
    parameters, seconds, multiply_adds = list[int](), list[float](), list[int]()
    task = evaluator.task()
    for _ in range(children):
        child = _child(space, sample(space, rng), evaluator, probe.seed)
        parameters.append(count_parameters(child.model))
        if isinstance(task, Task):
            multiply_adds.append(count(child.model, task.input_shape).multiply_adds)
        seconds.append(step_seconds(evaluator, child, batches, threads=1))
    return SearchEstimate(
        children=children,
        parameters=fmean(parameters),
        fewest=min(parameters),
        most=max(parameters),
        step_seconds=fmean(seconds),
        steps_per_epoch=evaluator.steps_per_epoch(),
        epochs=evaluator.epochs,
        trials=trials,
        device=probe.device,
        threads=probe.threads,
        multiply_adds=fmean(multiply_adds) if multiply_adds else None,
    )


def _child(space: Space, genotype: Genotype, evaluator: Any, seed: int) -> Child:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "init"))
        return build(space, genotype, evaluator.task())


def step_seconds(evaluator: Any, child: Child, batches: int, *, threads: int | None = None) -> float:
    """Of a batch of the child's training: one passes, then so many are timed. The child is changed.

    `threads`: None for those that torch has.

    Raises UsageError when there are no two batches to train.
    """
    probe = Probe.here(batches, threads=threads)
    with suppress(_Enough):
        evaluator.train(child, probe)
    return probe.step_seconds


LONG_SECONDS = 5.0  # a batch that takes longer needs no other before it is timed


class _Enough(Exception):
    """Ends a training that was only to be timed."""


class Probe:
    """A context that lets one batch pass, times some more, and ends the training: evaluators look at it before each. A
    first batch that takes long is the one that is timed."""

    seed = 0
    limits = Limits()
    resume = None
    epochs_done = 0
    paused = False

    def __init__(self, device: str, threads: int, batches: int) -> None:
        self.device, self.threads = device, threads
        self._wanted = batches + 2
        self._times: list[float] = []

    @classmethod
    def here(cls, batches: int, *, threads: int | None = None) -> Probe:
        """On this machine's first device, with so many threads, or those that torch has."""
        import torch

        return cls("cuda" if torch.cuda.is_available() else "cpu", threads or torch.get_num_threads(), batches)

    @property
    def parent(self) -> None:
        return None

    @property
    def parent_genotype(self) -> None:
        return None

    @property
    def step_seconds(self) -> float:
        """Of one batch. Raises UsageError when there were none."""
        if len(self._times) < 2:
            raise UsageError("the training ended before a batch could be timed: there is too little data")
        timed = self._times[1:] if len(self._times) > 2 else self._times
        return (timed[-1] - timed[0]) / (len(timed) - 1)

    def check(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()
        self._times.append(time.perf_counter())
        one_will_do = len(self._times) == 2 and self._times[1] - self._times[0] > LONG_SECONDS
        if one_will_do or len(self._times) == self._wanted:
            raise _Enough

    def report(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        return False

    def pause(self, tensors: Mapping[str, Any]) -> None:
        raise UsageError("an estimate keeps nothing")

    def checkpoint(self, tensors: Mapping[str, Any]) -> str:
        raise UsageError("an estimate keeps nothing")

    def artifact(self, trial: int) -> None:
        return None


def _time(seconds: float) -> str:
    """ "42 s", "3.5 hours", "12 days", "4.1 years"."""
    for size, name in ((365.25 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {name}"
    return f"{seconds:.3g} s"
