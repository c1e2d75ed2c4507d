"""Small jobs for the tests of executors. What they are made of stands in functions, so that it is sent by value."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import psutil

from archsmith.core.evaluator import Context, Limits
from archsmith.core.executor import Completed, Event, Executor, Job, Progress, Started
from archsmith.core.space import as_space, sample
from archsmith.core.trial import Result, TrialState

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


def run_killed_once(executor: Executor, folder: Path) -> Completed:
    """How a job ended whose worker was killed from outside in its third epoch: begun twice, each epoch told of each."""

    def child(context: Context) -> dict[str, float]:
        for epoch in range(1, 6):
            context.report(epoch, {"pid": os.getpid()})
            if epoch == 3 and not (folder / "killed").exists():
                time.sleep(600)
        return {"pid": os.getpid()}

    def kill_once(event: Event) -> None:
        if isinstance(event, Progress) and event.epoch == 3 and not (folder / "killed").exists():
            (folder / "killed").write_text(f"{event.metrics['pid']:.0f}")
            os.kill(int(event.metrics["pid"]), signal.SIGKILL)

    events = run(executor, job(0, child), watch=kill_once)
    assert [event for event in events if isinstance(event, Started)] == [Started(0, 1), Started(0, 2)]
    assert [event.epoch for event in events if isinstance(event, Progress)] == [1, 2, 3, 1, 2, 3, 4, 5]
    last = events[-1]
    assert isinstance(last, Completed)
    assert last.state is TrialState.DONE
    assert last.result.metrics["pid"] != int((folder / "killed").read_text())
    return last


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
