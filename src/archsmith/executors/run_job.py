"""One job from start to end: what every executor does with a child, wherever it runs.

Whatever the child does short of ending its process becomes a `Completed`: done with a finite reward, failed with a
reason, a message and a traceback, or stopped because `report` told it to.
"""

from __future__ import annotations

import functools
import gc
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from archsmith.core.errors import (
    ArchsmithError,
    ChildFailed,
    IllegalGenotype,
    LimitExceeded,
    MissingMetric,
    StoreError,
    UsageError,
)
from archsmith.core.evaluator import Limits, is_pure
from archsmith.core.executor import Completed, Job, Progress, Reward
from archsmith.core.number import as_integer, numbers_by_name
from archsmith.core.trial import NEEDS_NOTHING, Cost, Failure, Result, TrialState, joined
from archsmith.executors.plain_results import (
    MAX_MESSAGE,
    MAX_NUMBERS,
    MAX_TRACEBACK,
    finite_reward,
    plain_result,
    readable_metrics,
)
from archsmith.executors.seeding import seeded

if TYPE_CHECKING:
    from archsmith.core.artifacts import Artifacts
    from archsmith.core.genotype import Genotype

_MEMORY_SECONDS = 0.1  # between two looks at the memory from `check`: reading it takes some 20 microseconds


class JobContext:
    """The `Context` of one job.

    Args:
        job: what is run.
        device: "auto" (CUDA where torch sees a device, else the CPU) or a torch device. Looked up when the evaluator
            asks, so that nothing here imports torch.
        threads: how many threads the training may use; None: what torch, or the machine, has.
        tell: is given each epoch's progress; says whether to go on.
        index: which of several workers this is: "auto" spreads them over the CUDA devices.
        ends_at: gives the moment by which the training was asked to end, if it was; see `MayEndEarly`.
    """

    def __init__(
        self,
        job: Job,
        *,
        device: str,
        threads: int | None,
        tell: Callable[[Progress], bool],
        index: int = 0,
        ends_at: Callable[[], float | None] | None = None,
    ) -> None:
        self._job = job
        self._device = device
        self._threads = threads
        self._tell = tell
        self._index = index
        self._ends_at = ends_at
        self.curve: list[dict[str, float]] = []
        self._numbers = 0  # in the curve
        self.stopped = False
        self.paused = False
        self.kept: str | None = None  # the digest of what the child kept as it was put aside
        self._deaf = False  # whether it went on after it was to be put aside
        self._resume: tuple[Mapping[str, Any] | None] | None = None  # once it was looked for
        self._began = self._memory_at = time.monotonic()
        self._memory_before = self._peak_before = 0
        if job.limits.memory_bytes is not None:
            self._memory_before, self._peak_before = resident_bytes(), peak_bytes(reset=True)

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
    def ends_at(self) -> float | None:
        """The moment by which the training was asked to end, or None."""
        return self._ends_at() if self._ends_at is not None else None

    @property
    def parent(self) -> int | None:
        """The trial that the child's genotype was made from."""
        return self._job.parent

    @property
    def parent_genotype(self) -> Genotype | None:
        """The genotype of that trial."""
        return self._job.parent_genotype

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
        """The number of epochs in a curve, without those before a pause: its rows, or the last epoch's number if that is
        larger, since a child may report only some epochs."""
        resumed = self._job.resume if self._resume is not None and self._resume[0] is not None else None
        before = {row.get("epoch") for row in resumed.curve} if resumed is not None else set()
        epochs = {row["epoch"] for row in curve if "epoch" in row} - before
        last = max((number for number in epochs if math.isfinite(number)), default=0.0)
        return max(float(len(epochs)), last - max((number for number in before if number is not None), default=0.0))

    def report(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Tell how it goes after an epoch; whether to go on. Raises LimitExceeded like `check`."""
        epoch = as_integer(epoch, "the epoch that a child reports")
        row = numbers_by_name(metrics, "what a child reports of an epoch")
        self._numbers += len(row) + 1
        if self._numbers > MAX_NUMBERS:
            raise ChildFailed(f"the child reported {self._numbers:,} numbers and may report {MAX_NUMBERS:,}")
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

    def check_end(self) -> None:
        """Raise LimitExceeded when the child, which has ended, was over its time, or over its memory at any moment.

        Memory that was over for a moment only, in a process that had taken more before, is seen on Linux alone.
        """
        limits = self._job.limits
        if limits.memory_bytes is not None:
            peak = peak_bytes()
            used = (peak if peak > self._peak_before else resident_bytes()) - self._memory_before
            if used > limits.memory_bytes:
                raise LimitExceeded(memory_message(used, limits.memory_bytes), reason="memory")
        self.check()

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

    The global generators of `random`, numpy and torch are seeded with the job's seed first, so that a plain function
    which knows nothing of a context repeats too.

    Args:
        job: what is run.
        context: what its evaluator is given.
        interruptible: whether a KeyboardInterrupt is the user's, and raised on, or the child's own failure.
    """
    given: Any = None
    try:
        with nullcontext() if is_pure(job.evaluator) else seeded(job.seed):
            given = job.evaluator.evaluate(job.space, job.genotype, context)
        result = plain_result(given)
        if not result.curve:
            result = replace(result, curve=context.curve)
        reported = max(context.epochs_in(context.curve), context.epochs_in(result.curve))
        if result.cost.epochs < reported:  # budgets count what children report, also of one that states no cost
            result = replace(result, cost=replace(result.cost, epochs=reported))
        if result.failure is None and not (context.stopped or context.paused):
            context.check_end()
    except BaseException as error:
        if interruptible and isinstance(error, KeyboardInterrupt):
            raise
        metrics = readable_metrics(given)
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
    return finite_reward(reward(replace(result, metrics=_Metrics(result.metrics))))


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
    return Failure(reason, text[:MAX_MESSAGE], lines[-MAX_TRACEBACK:])


def memory_message(used: int, limit: int) -> str:
    """The sentence for a child over its memory."""
    return f"the child took {used / 2**20:,.0f} MiB more memory, over its limit of {limit / 2**20:,.0f} MiB"


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_bytes(*, reset: bool = False) -> int:
    """The most resident memory that this process has had; with `reset`, on Linux, from here on.

    The system counts it, so that no moment is missed. 0 where it does not.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            if reset:
                with open("/proc/self/clear_refs", "w") as file:
                    file.write("5")
        with suppress(OSError), open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@functools.cache
def default_device(index: int = 0) -> str:
    """The device for the index-th worker: CUDA devices in turn where torch sees any, else the CPU."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{index % count}" if count else "cpu"


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
