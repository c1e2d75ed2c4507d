"""The executor of a search that is given none, and warnings about limits that it cannot enforce."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from archsmith.core.checks import whole_number
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Evaluator, FunctionEvaluator, Limits
from archsmith.core.executor import Executor, HasClock, Reward
from archsmith.core.space import Space
from archsmith.executors import Faults, InProcess, ProcessPool, Simulated
from archsmith.executors.process_pool import physical_cores
from archsmith.executors.sending import pickled


def default_executor(
    workers: int,
    *,
    space: Space,
    evaluator: Evaluator,
    reward: Reward,
    limits: Limits,
    simulated: Mapping[str, Any] | None = None,
) -> Executor:
    """A pool for several workers, this process for one, or the simulated clock in the run's record.

    A plain function does not check its limits. So if there are any, a single worker is a process too, which can be killed,
    provided that the function can be sent there.
    """
    workers = whole_number(workers, "workers", 1)
    if simulated is not None:
        return Simulated(workers, seconds=simulated.get("seconds"), faults=Faults.of(simulated.get("faults")))
    if workers > 1:
        return ProcessPool(workers)
    limited = limits.seconds is not None or limits.memory_bytes is not None
    if limited and isinstance(evaluator, FunctionEvaluator) and sys.platform != "win32":
        with suppress(UsageError):
            pickled({"space": space, "evaluator": evaluator, "reward": reward})
            return ProcessPool(1, threads=physical_cores(), kill_grace=0)  # a function never checks its limits
    return InProcess()


def recorded_clock(executor: Executor) -> dict[str, Any]:
    """The part of a run's record from which `default_executor` makes a simulated clock again; empty for the wall clock."""
    if not isinstance(executor, HasClock):
        return {}
    seconds, faults = (executor.seconds, executor.faults) if isinstance(executor, Simulated) else (None, None)
    return {"clock": {"seconds": seconds, "faults": to_config(faults)}}


def warn_of_limits(limits: Limits, evaluator: Evaluator, executor: Executor) -> None:
    """Warn of limits that are not enforced, or only after a child has returned, and say how to enforce them."""
    if not isinstance(evaluator, FunctionEvaluator):
        return
    if limits.parameters is not None:
        warnings.warn(
            f"limits.parameters={limits.parameters:,} is not enforced: the evaluator is a plain function, and builds no "
            "network that could be counted; have it raise LimitExceeded, or give an evaluator of archsmith.training",
            stacklevel=4,
        )
    named = [f"limits.{name}" for name in ("seconds", "memory_bytes") if getattr(limits, name) is not None]
    if named and isinstance(executor, InProcess):
        warnings.warn(
            f"{' and '.join(named)}: a plain function that runs in this process cannot be ended, so a child that is over "
            "has failed only once it returns; to have it ended give executor=ProcessPool(1), and a function that can be "
            "sent to another process",
            stacklevel=4,
        )
