"""Whatever a child does is a result: one for each job, with a reason, and no process is left behind."""

from __future__ import annotations

import ctypes
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from archsmith.core.evaluator import Limits
from archsmith.core.executor import Completed, Progress, Started
from archsmith.core.trial import Cost, Failure, Result, TrialState
from archsmith.executors import InProcess, ProcessPool
from executor_jobs import PATIENCE, assert_gone, complete, job, run, run_killed_once

MIB = 2**20


@pytest.fixture
def pool():
    pool = ProcessPool(1, kill_grace=0.2)
    yield pool
    pool.close()


def failure(executor, child, **options):
    """How a job failed; the next one is none the worse."""
    events = run(executor, job(0, child, **options))
    done = events[-1]
    assert done.state is TrialState.FAILED
    assert done.reward is None
    assert complete(executor, job(1, lambda _: {})).state is TrialState.DONE
    return done.result.failure


def hang(_):
    time.sleep(600)
    return {}


# --- exceptions and results, in both executors -----------------------------------------------------------------------


@pytest.fixture(params=["in process", "pool"], scope="module")
def either(request):
    executor = InProcess() if request.param == "in process" else ProcessPool(1)
    yield executor
    executor.close()


def test_an_exception_that_cannot_be_sent_or_read(either) -> None:
    class Unreadable(Exception):
        def __init__(self, stream):
            self.stream = stream

        def __str__(self):
            raise RuntimeError("unreadable")

        def __reduce__(self):
            raise TypeError("not to be sent")

    def child(_):
        raise Unreadable(sys.stdin)

    failed = failure(either, child)
    assert failed.reason == "error"
    assert failed.message == "Unreadable: (its message cannot be read)"
    assert "raise Unreadable" in failed.traceback


def test_endless_recursion_and_endless_messages(either) -> None:
    def deeper(context):
        return deeper(context)

    def verbose(_):
        raise ValueError("x" * 10_000_000)

    assert failure(either, deeper).message.startswith("RecursionError")
    failed = failure(either, verbose)
    assert len(failed.message) < 5_000
    assert len(failed.traceback) < 50_000


def test_torch_out_of_memory_is_for_memory(either) -> None:
    def child(_):
        import torch

        torch.empty(2**50)

    assert failure(either, child).reason == "memory"


def test_results_that_are_none(either) -> None:
    class Odd:
        pass

    for value, message in (
        (None, "must return a Result, got NoneType"),
        (Result({"accuracy": "high"}), "metric 'accuracy' must be a number, got str"),
        (Result({"accuracy": Odd()}), "must be a number, got Odd"),
        (Result({"accuracy": {"top1": 0.5}}), "'accuracy' must be a number, got dict; give each number a name"),
        (Result({"accuracy": np.array([0.5, 0.6])}), "'accuracy' must be a number, got ndarray: .*size 1"),
        (Result({"accuracy": 1j}), "'accuracy' must be a number, got complex"),
        (Result([0.5]), "a result's metrics must be a dict of numbers by name, got list"),
        (Result(cost=3.0), "a result's cost must be a Cost, got float"),
        (Result({}, [3]), "curve must be a list with a dict of numbers for each epoch"),
        (Result({}, 0.5), "curve must be a list with a dict of numbers for each epoch"),
        (Result(artifact=Odd()), "artifact must be a digest"),
        (Result(failure="bad"), "failure must be a Failure"),
        (Result({}, [{"epoch": n} for n in range(1_000_001)]), "holds 1,000,001 numbers"),
        (Result(artifact="../elsewhere"), "artifact must be a digest"),
        (Result({"accuracy": 10**5_000}), "metric 'accuracy' is a whole number beyond"),
        (Result({}, [{"loss": 10**400}]), "metric 'loss' is a whole number beyond"),
        (Result(cost=Cost(seconds=float("nan"))), "cost of a child in seconds must be finite"),
        (Result(cost=Cost(epochs=float("inf"))), "cost of a child in epochs must be finite"),
        (Result(cost=Cost(epochs=-1e9)), "cost of a child in epochs must be finite and at least 0"),
    ):
        failed = failure(either, lambda _, value=value: value)
        assert failed.reason == "error"
        assert re.search(message, failed.message), failed


@pytest.mark.parametrize("epoch", ["1", 1.5, float("nan"), 10**400])
def test_an_epoch_that_is_no_whole_number_fails_the_child(either, epoch: Any) -> None:
    assert re.search("epoch", failure(either, lambda context: context.report(epoch, {})).message)


def test_what_a_failure_says_is_kept_within_bounds(either) -> None:
    failed = failure(either, lambda _: Result(failure=Failure("error", "m" * 10**6, "t" * 10**6)))
    assert len(failed.message) < 10_000
    assert len(failed.traceback) < 100_000


def test_a_reward_that_cannot_be_used_keeps_the_metrics(either) -> None:
    for reward in (
        lambda result: float("inf"),
        lambda result: None,
        lambda result: 1j,
        lambda result: result.metrics["b"],
    ):
        done = complete(either, job(0, lambda _: {"a": 0.5}, reward=reward))
        assert done.state is TrialState.FAILED
        assert done.result.failure.reason == "reward"
        assert done.result.metrics == {"a": 0.5}
    numpy_number = complete(either, job(0, lambda _: {"a": 0.5}, reward=lambda r: __import__("numpy").float32(2)))
    assert (numpy_number.reward, type(numpy_number.reward)) == (2.0, float)


def test_a_child_that_interrupts_fails_in_a_worker(pool: ProcessPool) -> None:
    def child(_):
        raise KeyboardInterrupt

    assert failure(pool, child).message == "KeyboardInterrupt"


def test_memory_is_checked_where_the_child_checks() -> None:
    def child(context):
        held = []
        for _ in range(200):
            held.append(b"x" * 2 * MIB)
            context.check()
            time.sleep(0.005)
        return {}

    failed = failure(InProcess(), child, limits=Limits(memory_bytes=50 * MIB))
    assert failed.reason == "memory"
    assert "over its limit of 50 MiB" in failed.message


# --- workers that die ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (lambda _: os._exit(3), "ended with exit status 3"),
        (lambda _: os.abort(), "SIGABRT"),
        (lambda _: ctypes.string_at(0), "SIGSEGV"),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        (lambda _: os.closerange(3, 2**16), "the child's process"),
    ],
    ids=["exit", "abort", "segfault", "kill", "close every file"],
)
def test_a_child_that_ends_its_worker_is_tried_again_and_then_has_failed(
    pool: ProcessPool, child, message: str
) -> None:
    events = run(pool, job(0, child))
    assert events[:2] == [Started(0, attempt=1), Started(0, attempt=2)]
    failed = events[-1].result.failure
    assert failed.reason == "worker"
    assert message in failed.message
    assert "2 times" in failed.message
    assert complete(pool, job(1, lambda _: {})).state is TrialState.DONE


def test_a_segfault_shows_where() -> None:
    def child(_):
        ctypes.string_at(0)

    pool = ProcessPool(1, retries=0)
    failed = failure(pool, child)
    assert "Segmentation fault" in failed.traceback
    assert "test_executor_faults.py" in failed.traceback
    pool.close()


def test_a_worker_that_is_killed_from_outside_costs_an_attempt(pool: ProcessPool, tmp_path: Path) -> None:
    done = run_killed_once(pool, tmp_path)
    assert done.result.cost.lost_seconds > 0, "the attempt that came to nothing is counted"
    assert complete(pool, job(1, lambda _: {})).result.cost.lost_seconds == 0


def test_a_worker_that_dies_while_idle_costs_nothing(pool: ProcessPool) -> None:
    for n in range(5):
        events = run(pool, job(n, lambda _: {"pid": os.getppid()}))
        assert events[-1].state is TrialState.DONE
        os.kill(int(events[-1].result.metrics["pid"]), signal.SIGKILL)


def kill_at_random(kills: int, seed: int) -> None:
    """Jobs on two workers while workers are killed: each completes exactly once, none with another's result."""
    rng = random.Random(seed)
    pool = ProcessPool(2, retries=kills)

    def child(context):
        for epoch in range(1, 4):
            time.sleep(0.005)
            context.report(epoch, {})
        return {"seed": context.seed}

    waiting, submitted, killed, attempts = set(), 0, 0, 0
    try:
        while killed < kills or waiting:
            while killed < kills and len(waiting) < 4:
                pool.submit(job(submitted, child, seed=submitted))
                waiting.add(submitted)
                submitted += 1
            for event in pool.completed(rng.random() * 0.03):
                attempts += isinstance(event, Started)
                if isinstance(event, Completed):
                    waiting.remove(event.trial)
                    assert event.state is TrialState.DONE, event
                    assert event.result.metrics == {"seed": event.trial}
            processes = psutil.Process().children(recursive=True)  # workers and their children
            if killed < kills and processes and rng.random() < 0.1:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(processes).pid, signal.SIGKILL)
                    killed += 1
    finally:
        pool.close()
    assert attempts > submitted, "some kills hit a child"


def test_kills_at_random_moments_lose_no_job() -> None:
    kill_at_random(kills=12, seed=0)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(3))
def test_many_kills_at_random_moments_lose_no_job(seed: int) -> None:
    kill_at_random(kills=200, seed=seed)


# --- limits that a child does not look at ---------------------------------------------------------------------------


def test_a_child_that_hangs_is_killed_and_not_tried_again(pool: ProcessPool) -> None:
    events = run(pool, job(0, hang, limits=Limits(seconds=0.1)))
    assert [type(event) for event in events] == [Started, Completed]
    assert events[-1].result.failure.reason == "seconds"
    assert "limit of 0.1 seconds and was killed" in events[-1].result.failure.message
    assert complete(pool, job(1, lambda _: {})).state is TrialState.DONE


def test_a_child_that_never_lets_go_of_the_interpreter_is_killed(pool: ProcessPool) -> None:
    failed = failure(pool, lambda _: re.match(r"(a+)+$", "a" * 64 + "b"), limits=Limits(seconds=0.1))
    assert failed.reason == "seconds"


def test_a_child_that_eats_memory_is_killed(pool: ProcessPool) -> None:
    def child(context):
        context.report(1, {"loss": 0.5})
        held = b"x" * 200 * MIB
        time.sleep(600)
        return {"held": len(held)}

    done = run(pool, job(0, child, limits=Limits(memory_bytes=100 * MIB)))[-1]
    assert done.result.failure.reason == "memory"
    assert "over its limit of 100 MiB and was killed" in done.result.failure.message
    assert list(done.result.curve) == [{"epoch": 1, "loss": 0.5}], "what it reported is kept"
    assert done.result.cost.epochs == 1


def test_memory_of_forks_counts_once(pool: ProcessPool) -> None:
    def child(_, eat=0):
        held = b"x" * 150 * MIB  # under the limit; its two forks share it
        forks = []
        for _ in range(2):
            if (pid := os.fork()) == 0:
                more = b"x" * eat
                time.sleep(600)
                os._exit(len(more))
            forks.append(pid)
        time.sleep(1.5)  # three looks of the pool
        return {"held": len(held)}

    limits = Limits(memory_bytes=250 * MIB)
    assert complete(pool, job(0, child, limits=limits)).state is TrialState.DONE
    assert failure(pool, lambda _: child(_, eat=200 * MIB), limits=limits).reason == "memory"


def test_a_cancelled_child_that_does_not_listen_is_killed(pool: ProcessPool) -> None:
    def child(context):
        context.report(1, {"loss": 0.5})
        return hang(context)

    def cancel(event):
        if isinstance(event, Progress):
            pool.cancel(event.trial)
            pool.cancel(event.trial)

    events = run(pool, job(0, child), watch=cancel)
    assert [type(event) for event in events] == [Started, Progress, Completed]
    assert events[-1].state is TrialState.STOPPED
    assert list(events[-1].result.curve) == [{"epoch": 1, "loss": 0.5}]


# --- what children print and leave behind ---------------------------------------------------------------------------


def test_a_child_may_print_without_end(pool: ProcessPool) -> None:
    def child(_):
        for _ in range(256):
            os.write(1, b"all work and no play\n" * 50_000)
        return {}

    assert complete(pool, job(0, child)).state is TrialState.DONE


def test_a_child_may_close_its_output(pool: ProcessPool) -> None:
    def child(_):
        os.closerange(1, 3)
        return {}

    assert complete(pool, job(0, child)).state is TrialState.DONE
    assert complete(pool, job(1, lambda _: {})).state is TrialState.DONE


def start_processes(_):
    """A process, and on Linux one that went into a session of its own and whose parent has ended."""
    import subprocess

    started = {"child": subprocess.Popen(["sleep", "600"]).pid}
    if sys.platform == "linux":
        script = "sleep 600 >/dev/null 2>&1 & echo $!"
        started["orphan"] = int(subprocess.check_output(["setsid", "sh", "-c", script]))
    return started


def test_what_a_child_left_behind_ends_with_its_job(pool: ProcessPool) -> None:
    left = complete(pool, job(0, lambda _: start_processes(_))).result.metrics
    assert_gone(*left.values())
    assert len(pool._workers) == 1, "and its worker lives on"


def test_what_a_killed_child_left_behind_ends_with_it(pool: ProcessPool) -> None:
    def child(context):
        context.report(1, start_processes(context))
        return hang(context)

    events = run(pool, job(0, child, limits=Limits(seconds=0.5)))
    assert_gone(*events[1].metrics.values())


def test_a_fork_that_returns_from_the_child_is_no_second_result(pool: ProcessPool) -> None:
    def child(_):
        worker = os.getppid()
        os.fork()
        return {"pid": worker}

    pids = [complete(pool, job(n, child)).result.metrics["pid"] for n in range(3)]
    assert len(set(pids)) == 1
    assert not pool.completed(0.0)


def test_a_fork_does_not_hide_the_death_of_its_worker() -> None:
    def child(_):
        if os.fork() == 0:
            time.sleep(600)
        os._exit(5)

    pool = ProcessPool(1, retries=0)
    assert "exit status 5" in failure(pool, child).message
    pool.close()


def test_nor_does_one_that_python_knows_nothing_of() -> None:
    def child(_):
        libc = ctypes.PyDLL(None)
        if libc.fork() == 0:  # holds the channel open
            libc.pause()
        os._exit(5)

    pool = ProcessPool(1, retries=0)
    assert "exit status 5" in failure(pool, child).message
    pool.close()


def test_close_ends_everything() -> None:
    pool = ProcessPool(2)

    def child(context):
        context.report(1, {"pid": os.getpid(), **start_processes(context)})
        return hang(context)

    pool.submit(job(0, child))
    pool.submit(job(1, child))
    reported = []
    while len(reported) < 2:
        reported += [event for event in pool.completed() if isinstance(event, Progress)]
    pool.close()
    pool.close()
    assert_gone(*(pid for event in reported for pid in event.metrics.values()))


def test_a_fork_of_the_owner_does_not_close_the_pool(pool: ProcessPool) -> None:
    before = complete(pool, job(0, lambda _: {"pid": os.getppid()})).result.metrics
    if (fork := os.fork()) == 0:
        try:
            pool.close()
        finally:
            os._exit(0)
    os.waitpid(fork, 0)
    assert complete(pool, job(1, lambda _: {"pid": os.getppid()})).result.metrics == before


# --- when the owner goes ---------------------------------------------------------------------------------------------

OWNER = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from executor_jobs import collect, job
from archsmith.core.executor import Progress
from archsmith.executors import ProcessPool

def busy(context):
    import subprocess
    context.report(1, {{"pid": os.getpid(), "child": subprocess.Popen(["sleep", "600"]).pid}})
    while True:  # never a moment's rest
        sum(range(1000))

def patient(context):
    time.sleep(1)
    return {{"pid": os.getppid()}}

pool = ProcessPool(2)
"""
BUSY = """
for trial in range(2):
    pool.submit(job(trial, busy))
seen = 0
while seen < 2:
    for event in pool.completed():
        if isinstance(event, Progress):
            print(int(event.metrics["pid"]), int(event.metrics["child"]), flush=True)
            seen += 1
"""
INTERRUPTED = """
pool.submit(job(0, lambda context: {"pid": os.getppid()}))
first = collect(pool, 1)[-1].result.metrics["pid"]
pool.submit(job(1, patient))
pool.completed()
try:
    print("ready", flush=True)
    pool.completed()  # waits for the child
except KeyboardInterrupt:
    done = collect(pool, 1)[-1]
    print(done.state, done.result.metrics["pid"] == first, flush=True)
"""


def owner(script: str) -> subprocess.Popen[str]:
    text = OWNER.format(tests=os.path.dirname(__file__)) + script
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("how", ["kill -9", "the end of its script", "an exception"])
def test_no_process_outlives_the_owner(how: str) -> None:
    ending = {
        "kill -9": "time.sleep(600)",
        "the end of its script": "",
        "an exception": "sys.stderr = open(os.devnull, 'w'); 1 / 0",
    }
    with owner(BUSY + ending[how]) as process:
        assert process.stdout is not None
        pids = [int(pid) for _ in range(2) for pid in process.stdout.readline().split()]
        assert len(pids) == 4
        if how == "kill -9":
            process.kill()
        process.wait(PATIENCE)
    assert_gone(*pids)


def test_no_process_outlives_an_owner_that_left_messages_unread(tmp_path: Path) -> None:
    """The system then resets the worker's socket, where it would otherwise close it."""
    script = f"""
from archsmith.core.executor import Started

def busy_alone(context):
    import subprocess
    child = subprocess.Popen(["sleep", "600"]).pid
    with open({str(tmp_path / "being written")!r}, "w") as file:
        file.write(f"{{os.getpid()}} {{child}}")
    os.rename({str(tmp_path / "being written")!r}, {str(tmp_path / "pids")!r})
    while True:
        sum(range(1000))

pool.submit(job(0, busy_alone))
while not any(isinstance(event, Started) for event in pool.completed(0.0)):
    pass
time.sleep(600)
"""
    with owner(script) as process:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "pids").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.wait(PATIENCE)
    assert_gone(*map(int, (tmp_path / "pids").read_text().split()))


def test_ctrl_c_reaches_the_owner_and_not_the_children() -> None:
    with owner(INTERRUPTED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        assert process.stdout.readline() == "done True\n"
        process.wait(PATIENCE)
