"""One job from start to end: what every executor does with a child, wherever it runs.

Whatever the child does short of ending its process becomes a `Completed`: done with a finite reward, failed with a
reason, a message and a traceback, or stopped because `report` told it to.
"""

from __future__ import annotations

import functools
import gc
import math
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from archsmith.core.artifacts import check_digest
from archsmith.core.errors import (
    ArchsmithError,
    ChildFailed,
    IllegalGenotype,
    LimitExceeded,
    MissingMetric,
    StoreError,
    UsageError,
)
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Completed, Job, Progress, Reward
from archsmith.core.number import as_number, numbers_by_name
from archsmith.core.trial import NEEDS_NOTHING, Cost, Failure, Result, TrialState, joined

if TYPE_CHECKING:
    from archsmith.core.artifacts import Artifacts

MAX_NUMBERS = 1_000_000
"""How many numbers a result may hold: it goes to the store as JSON. Tensors are kept with `context.checkpoint`."""

_MEMORY_SECONDS = 0.1  # between two looks at the memory from `check`: reading it takes some 20 microseconds
_REASON, _MESSAGE, _TRACEBACK = 100, 2_000, 20_000  # characters kept


class JobContext:
    """The `Context` of one job.

    Args:
        job: what is run.
        device: "auto" (CUDA where torch sees a device, else the CPU) or a torch device. Looked up when the evaluator
            asks, so that nothing here imports torch.
        threads: how many threads the training may use; None: what torch, or the machine, has.
        tell: is given each epoch's progress; says whether to go on.
        index: which of several workers this is: "auto" spreads them over the CUDA devices.
    """

    def __init__(
        self, job: Job, *, device: str, threads: int | None, tell: Callable[[Progress], bool], index: int = 0
    ) -> None:
        self._job = job
        self._device = device
        self._threads = threads
        self._tell = tell
        self._index = index
        self.curve: list[dict[str, float]] = []
        self.stopped = False
        self.paused = False
        self.kept: str | None = None  # the digest of what the child kept as it was put aside
        self._deaf = False  # whether it went on after it was to be put aside
        self._resume: tuple[Mapping[str, Any] | None] | None = None  # once it was looked for
        self._began = self._memory_at = time.monotonic()
        self._memory_before = 0 if job.limits.memory_bytes is None else resident_bytes()

    @property
    def seed(self) -> int:
        """The child's own seed."""
        return self._job.seed

    @property
    def device(self) -> str:
        """Where to train."""
        return default_device(self._index) if self._device == "auto" else self._device

    @property
    def threads(self) -> int:
        """How many threads the training may use."""
        if self._threads is not None:
            return self._threads
        torch = sys.modules.get("torch")
        return int(torch.get_num_threads()) if torch is not None else os.cpu_count() or 1

    @property
    def limits(self) -> Limits:
        """What the child may use."""
        return self._job.limits

    @property
    def parent(self) -> int | None:
        """The trial that the child's genotype was made from."""
        return self._job.parent

    @property
    def resume(self) -> Mapping[str, Any] | None:
        """What this child kept when it was put aside, or None; also where that is gone: it begins anew then."""
        if self._resume is None:
            before = self._job.resume
            checkpoint = None if before is None else before.checkpoint
            if checkpoint is None or checkpoint == NEEDS_NOTHING:
                self._resume = (None if checkpoint is None else {},)
            else:
                try:
                    self._resume = (self._folder("go on with its training").get(checkpoint),)
                except StoreError:  # damaged ones too
                    self._resume = (None,)
        return self._resume[0]

    @property
    def epochs_done(self) -> int:
        """How many epochs it goes on from."""
        before = self._job.resume
        return 0 if before is None or self.resume is None else len(before.curve)

    def pause(self, tensors: Mapping[str, Any]) -> None:
        """Keep what it needs to go on; where the run keeps nothing on disk, one that needs anything will begin anew."""
        if not self.paused:
            return
        if not tensors:
            self.kept = NEEDS_NOTHING
        elif self._job.artifacts is not None:
            with suppress(ChildFailed):  # a full disk costs it the time to begin anew, and nothing else
                self.kept = self.checkpoint(tensors)

    @property
    def cost(self) -> Cost:
        """What it has taken so far, in epochs that were reported."""
        return Cost(time.monotonic() - self._began, self.epochs_in(self.curve))

    def epochs_in(self, curve: Sequence[Mapping[str, float]]) -> float:
        """How many epochs a curve tells of, beside those that the child went on from: as many as it has, or as its last one
        says where only some were reported."""
        resumed = self._job.resume if self._resume is not None and self._resume[0] is not None else None
        before = {row.get("epoch") for row in resumed.curve} if resumed is not None else set()
        epochs = {row["epoch"] for row in curve if "epoch" in row} - before
        last = max((number for number in epochs if math.isfinite(number)), default=0.0)
        return max(float(len(epochs)), last - max((number for number in before if number is not None), default=0.0))

    def report(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Tell how it goes after an epoch; whether to go on. Raises LimitExceeded like `check`."""
        epoch = _whole("the epoch that a child reports", epoch)
        row = numbers_by_name(metrics, "what a child reports of an epoch")
        self.curve.append({**row, "epoch": epoch} if "epoch" in row else {"epoch": epoch, **row})
        if not self._tell(Progress(self._job.trial, epoch, row)):
            self.stopped = True
        if not self.stopped:
            self.check()
            self._deaf = self._deaf or self.paused
            self.paused = self._job.until is not None and epoch >= self._job.until and not self._deaf
        return not (self.stopped or self.paused)

    def check(self) -> None:
        """Raise LimitExceeded when the child is over its seconds or memory. Costs well under a microsecond."""
        limits, now = self._job.limits, time.monotonic()
        if limits.seconds is not None and now - self._began > limits.seconds:
            raise LimitExceeded(f"the child took longer than its limit of {limits.seconds:g} seconds", reason="seconds")
        if limits.memory_bytes is not None and now - self._memory_at > _MEMORY_SECONDS:
            self._memory_at = now
            used = resident_bytes() - self._memory_before
            if used > limits.memory_bytes:
                raise LimitExceeded(memory_message(used, limits.memory_bytes), reason="memory")

    def checkpoint(self, tensors: Mapping[str, Any]) -> str:
        """Keep named tensors; gives their digest.

        Raises UsageError where the run keeps nothing on disk, ChildFailed with the reason "store" where they cannot be kept:
        that is no fault of the child's.
        """
        try:
            return self._folder("keep tensors").put(tensors)
        except StoreError as error:
            raise ChildFailed(str(error), reason="store") from error

    def artifact(self, trial: int) -> Mapping[str, Any] | None:
        """The tensors that an earlier trial kept, or None."""
        digest = self._job.earlier.get(trial)
        return None if digest is None else self._folder(f"read what trial {trial} kept").get(digest)

    def _folder(self, what: str) -> Artifacts:
        if self._job.artifacts is None:
            raise UsageError(
                f"the child wants to {what}, and the store of this run has no place for weights; keep runs in a file "
                '(store="sqlite:///runs.db"), or tell a database where: open_store(URL, artifacts=...), --artifacts'
            )
        from archsmith.core.artifacts import open_artifacts

        return open_artifacts(self._job.artifacts)


def run_job(job: Job, context: JobContext, *, interruptible: bool = False) -> Completed:
    """Train a job's child and make its reward.

    The global generators of `random`, and of numpy and torch if they are loaded, are seeded with the job's seed first,
    so that a plain function which knows nothing of a context repeats too.

    Args:
        job: what is run.
        context: what its evaluator is given.
        interruptible: whether a KeyboardInterrupt is the user's, and raised on, or the child's own failure.
    """
    given: Any = None
    try:
        _seed(job.seed)
        given = job.evaluator.evaluate(job.space, job.genotype, context)
        result = _plain(given)
        if not result.curve:
            result = replace(result, curve=context.curve)
        reported = max(context.epochs_in(context.curve), context.epochs_in(result.curve))
        if result.cost.epochs < reported:  # budgets count what children report, also of one that states no cost
            result = replace(result, cost=replace(result.cost, epochs=reported))
    except BaseException as error:
        if interruptible and isinstance(error, KeyboardInterrupt):
            raise
        metrics = _readable(given)
        result = Result(metrics, context.curve, context.cost, failure_of(error))
    if context.stopped:
        return Completed(job.trial, TrialState.STOPPED, replace(result, failure=None))
    if context.paused and result.failure is None:
        return Completed(job.trial, TrialState.PAUSED, replace(result, checkpoint=context.kept))
    if result.failure is not None:
        if result.failure.reason == "memory":
            _free_memory()
        return Completed(job.trial, TrialState.FAILED, result)
    try:
        reward = reward_of(job.reward, joined(job.resume, result))  # of the whole training
    except BaseException as error:
        if interruptible and isinstance(error, KeyboardInterrupt):
            raise
        return Completed(job.trial, TrialState.FAILED, replace(result, failure=failure_of(error, reason="reward")))
    return Completed(job.trial, TrialState.DONE, result, reward)


def reward_of(reward: Reward, result: Result) -> float:
    """The reward of a result: a finite number.

    Raises MissingMetric where the reward reads a metric by a name that the result does not have, ChildFailed where what
    it gives is no finite number, and whatever the reward raises.
    """
    made = reward(replace(result, metrics=_Metrics(result.metrics)))
    number = float(as_number(made, "a reward", reason="reward"))
    if not math.isfinite(number):
        raise ChildFailed(f"a reward must be finite, got {number}", reason="reward")
    return number


class _Metrics(dict[str, float]):
    """Metrics that say which there are, where one is read that is not among them."""

    def __missing__(self, name: str) -> NoReturn:
        raise MissingMetric(name, self)


def failure_of(error: BaseException, reason: str = "error") -> Failure:
    """An exception as a failure; `reason` is for one that does not tell its own."""
    if isinstance(error, ChildFailed):
        reason = str(error.reason)
    elif isinstance(error, IllegalGenotype):
        reason = "genotype"
    elif _is_out_of_memory(error):
        reason = "memory"
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be read)"
    if not isinstance(error, ArchsmithError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    try:
        # The first frame is run_job's own, which tells nobody anything.
        below = error.__traceback__.tb_next if error.__traceback__ is not None else None
        lines = "".join(traceback.format_exception(type(error), error, below or error.__traceback__))
    except Exception:
        lines = ""
    return Failure(reason, text[:_MESSAGE], lines[-_TRACEBACK:])


def memory_message(used: int, limit: int) -> str:
    """The sentence for a child over its memory."""
    return f"the child took {used / 2**20:,.0f} MiB more memory, over its limit of {limit / 2**20:,.0f} MiB"


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


@functools.cache
def default_device(index: int = 0) -> str:
    """The device for the index-th worker: CUDA devices in turn where torch sees any, else the CPU."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{index % count}" if count else "cpu"


def _seed(seed: int) -> None:
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed & 0xFFFF_FFFF)
    if "torch" in sys.modules:
        from archsmith.nn.seeding import seed_torch

        seed_torch(seed)


def _plain(result: Any) -> Result:
    """The result with Python's own numbers, so that any process and any store can take it."""
    if not isinstance(result, Result):
        _refuse(f"an evaluator must return a Result, got {type(result).__name__}")
    if not isinstance(result.cost, Cost):
        _refuse(f"a result's cost must be a Cost, got {type(result.cost).__name__}")
    if not isinstance(result.curve, Sequence) or not all(isinstance(row, Mapping) for row in result.curve):
        _refuse("a result's curve must be a list with a dict of numbers for each epoch")
    metrics = numbers_by_name(result.metrics, "a result's metrics")
    count = len(metrics) + sum(map(len, result.curve))
    if count > MAX_NUMBERS:
        _refuse(
            f"the result holds {count:,} numbers and may hold {MAX_NUMBERS:,}; keep tensors with context.checkpoint()"
        )
    if result.artifact is not None:
        try:
            check_digest(result.artifact)
        except UsageError as error:  # recorded, it would be damage to whoever reads the run
            _refuse(f"a result's artifact must be a digest or None: {error}")
    failure = result.failure
    if not isinstance(failure, Failure | None):
        _refuse(f"a result's failure must be a Failure or None, got {type(failure).__name__}")
    return Result(
        metrics=metrics,
        curve=[numbers_by_name(row, "a row of a result's curve") for row in result.curve],
        cost=Cost(_amount("seconds", result.cost.seconds), _amount("epochs", result.cost.epochs)),
        failure=failure
        and Failure(
            str(failure.reason)[:_REASON], str(failure.message)[:_MESSAGE], str(failure.traceback)[-_TRACEBACK:]
        ),
        artifact=result.artifact,
    )


def _readable(given: Any) -> dict[str, float]:
    """The metrics that are numbers, of a result that cannot be taken as a whole."""
    metrics: dict[str, float] = {}
    for name, value in given.metrics.items() if isinstance(given, Result) and isinstance(given.metrics, dict) else ():
        with suppress(ChildFailed):
            metrics[str(name)] = as_number(value, "a metric")
    return metrics


def _refuse(message: str) -> NoReturn:
    raise ChildFailed(message)


def _whole(name: str, value: Any) -> int:
    number = as_number(value, name)
    if not (float(number).is_integer() and abs(number) < 2**63):
        _refuse(f"{name} must be a whole number, got {number}")
    return int(number)


def _amount(name: str, value: Any) -> float:
    """Part of a cost: the budget of the run is counted in these."""
    number = as_number(value, f"the cost of a child in {name}")
    if not 0 <= number < math.inf:
        _refuse(f"the cost of a child in {name} must be finite and at least 0, got {number}")
    return number


def _is_out_of_memory(error: BaseException) -> bool:
    """MemoryError, torch's OutOfMemoryError, and the RuntimeErrors that torch's CPU and cuBLAS allocators raise."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error)
        for sign in ("DefaultCPUAllocator: can't allocate", "DefaultCPUAllocator: not enough memory", "ALLOC_FAILED")
    )


def _free_memory() -> None:
    """Give back what a child that was too large still held, before the next one comes."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
