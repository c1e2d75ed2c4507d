"""What an executor costs per job: jobs that do next to nothing, in this process, in pools of worker processes, and on Ray.

    python benchmarks/executors.py                    the table on stdout
    python benchmarks/executors.py --out benchmarks/results/executors.md

- first: from making the executor to its first result: what a start costs.
- jobs a second: always as many submitted as twice the slots, so that no worker waits.
- round trip: one job at a time, from submitting it to holding its result; median and 95th percentile.

Beside them, in the same run, the bare call of evaluator and reward, and `concurrent.futures.ProcessPoolExecutor` of the
standard library (spawned, sent the same genotype, answering with the same result), which has neither progress, limits,
retries nor isolation from a child that dies.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from random import Random

from archsmith.core.evaluator import as_evaluator
from archsmith.core.executor import Completed, Executor, Job, derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.space import as_space, sample
from archsmith.core.trial import Result
from archsmith.core.walk import Choose
from archsmith.executors import InProcess, ProcessPool, Ray
from archsmith.rewards import value

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

CHOICES = 10


def answers(choose: Choose) -> list[int]:
    return [choose(f"{i}.option", (1, 2, 3, 4, 5)) for i in range(CHOICES)]


SPACE = as_space(answers)
EVALUATOR = as_evaluator(lambda architecture: architecture[0])
GENOTYPE = sample(SPACE, Random(0))


def bare(genotype: Genotype) -> tuple[Result, float]:
    """What each job amounts to. The evaluator asks nothing of its context."""
    result = EVALUATOR.evaluate(SPACE, genotype, None)  # type: ignore[arg-type]
    return result, value(result)


def job(trial: int) -> Job:
    return Job(trial, SPACE, GENOTYPE, EVALUATOR, value, derive_seed(0, trial))


class Ours:
    """Submit and collect, with one of our executors."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.slots = executor.slots
        self.close = executor.close

    def submit(self, trial: int) -> None:
        self.executor.submit(job(trial))

    def collect(self) -> int:
        return sum(isinstance(event, Completed) for event in self.executor.completed())


class Futures:
    """The same with the standard library's pool."""

    def __init__(self, workers: int) -> None:
        self.pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        self.slots = workers
        self.close = self.pool.shutdown
        self.running: set[Future[tuple[Result, float]]] = set()

    def submit(self, trial: int) -> None:
        self.running.add(self.pool.submit(bare, GENOTYPE))

    def collect(self) -> int:
        done, self.running = wait(self.running, return_when=FIRST_COMPLETED)
        return len([future.result() for future in done])


class Bare:
    """No executor at all."""

    slots = 1

    def submit(self, trial: int) -> None:
        bare(GENOTYPE)

    def collect(self) -> int:
        return 1

    def close(self) -> None:
        pass


def measure(make: Callable[[], Ours | Futures | Bare], jobs: int) -> str:
    """One row: first in ms, jobs a second, round trip in microseconds."""
    began = time.perf_counter()
    runner = make()
    trial = 0

    def one() -> None:
        nonlocal trial
        runner.submit(trial)
        trial += 1
        while not runner.collect():
            pass

    one()
    first = time.perf_counter() - began
    trips = []
    for _ in range(jobs):
        began = time.perf_counter()
        one()
        trips.append((time.perf_counter() - began) * 1e6)
    for warm in (True, False):  # all workers have started before it counts
        began, running, finished = time.perf_counter(), 0, 0
        while finished < jobs:
            ahead = min(max(2 * runner.slots, 2) - running, jobs - finished - running)
            for _ in range(1 if isinstance(runner, Bare) else ahead):
                runner.submit(trial)
                trial += 1
                running += 1
            collected = runner.collect()
            running -= collected
            finished += collected
        if not warm:
            rate = jobs / (time.perf_counter() - began)
    runner.close()
    high = statistics.quantiles(trips, n=20)[-1]
    return f"{first * 1e3:.1f} ms | {rate:,.0f} | {statistics.median(trips):.0f} µs | {high:.0f} µs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[tuple[str, Callable[[], Ours | Futures | Bare]]] = [
        ("the bare call", Bare),
        ("InProcess()", lambda: Ours(InProcess())),
        ("ProcessPool(1)", lambda: Ours(ProcessPool(1))),
        ("concurrent.futures, 1", lambda: Futures(1)),
        ("ProcessPool(2)", lambda: Ours(ProcessPool(2))),
        ("concurrent.futures, 2", lambda: Futures(2)),
        ("Ray(workers=2), of its own", lambda: Ours(Ray(workers=2))),
    ]
    lines = [
        "# What an executor costs per job",
        "",
        f"`python benchmarks/executors.py --jobs {arguments.jobs}`; {machine()}. Jobs of {CHOICES} choices whose "
        "evaluator returns a number.",
        "",
        "| executor | first | jobs a second | round trip, median | 95 % |",
        "|---|---|---|---|---|",
        *(f"| {name} | {measure(make, arguments.jobs)} |" for name, make in rows),
        "",
    ]
    text = "\n".join(lines)
    tell(text, arguments.out)


if __name__ == "__main__":
    main()
