"""Small jobs for the tests of executors. What they are made of stands in functions, so that it is sent by value."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import psutil

from archsmith.core.evaluator import Context, Limits
from archsmith.core.executor import Completed, Event, Executor, Job
from archsmith.core.space import as_space, sample
from archsmith.core.trial import Result

PATIENCE = 60.0  # seconds until a test says that something hangs


def job(
    trial: int, child: Callable[[Context], Any], reward: Any = None, limits: Limits | None = None, seed: int = 0
) -> Job:
    """A job whose child is a function of its context; a dict that it returns becomes the metrics."""

    class Calls:
        def evaluate(self, space: Any, genotype: Any, context: Context) -> Any:
            value = child(context)
            return Result(value) if isinstance(value, dict) else value

    space = as_space(lambda choose: choose("x", (1, 2, 3)))
    genotype = sample(space, Random(trial))
    return Job(trial, space, genotype, Calls(), reward or (lambda result: 1.0), seed, limits or Limits())


def run(executor: Executor, *jobs: Job, watch: Callable[[Event], None] = lambda event: None) -> list[Event]:
    """All events of the jobs, once each has completed."""
    for each in jobs:
        executor.submit(each)
    return collect(executor, len(jobs), watch)


def collect(executor: Executor, number: int, watch: Callable[[Event], None] = lambda event: None) -> list[Event]:
    """All events until `number` jobs have completed."""
    events: list[Event] = []
    deadline = time.monotonic() + PATIENCE
    while sum(isinstance(event, Completed) for event in events) < number:
        assert time.monotonic() < deadline, f"hangs after {events}"
        for event in executor.completed(1.0):
            events.append(event)
            watch(event)
    return events


def complete(executor: Executor, one: Job) -> Completed:
    """How one job ended."""
    event = run(executor, one)[-1]
    assert isinstance(event, Completed)
    return event


def assert_gone(*pids: float) -> None:
    """Wait until processes have ended; a zombie that nobody waits for has."""
    deadline = time.monotonic() + PATIENCE
    for pid in map(int, pids):
        while _lives(pid):
            assert time.monotonic() < deadline, f"process {pid} is still there"
            time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
