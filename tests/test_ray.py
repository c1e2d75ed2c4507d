"""Jobs on a real Ray of this machine: the contract, what is shared, limits and deaths. Clusters: test_ray_cluster."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from archsmith.core import loaded
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Completed, Executor, Job, Progress, Started
from archsmith.core.trial import Result, TrialState
from archsmith.executors import Ray
from archsmith.testing import ExecutorContract
from executor_jobs import PATIENCE, assert_gone, collect, complete, job, run, run_killed_once

MIB = 2**20
LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def ray():
    """The Ray that all tests here share; it ends with them."""
    executor = Ray(workers=2, retries=1, kill_grace=0.2)
    yield executor
    executor.close()


@pytest.mark.usefixtures("ray")
class TestRay(ExecutorContract):
    def executor(self) -> Executor:
        return Ray(workers=2, kill_grace=20)


def hang(_):
    time.sleep(600)
    return {}


# --- workers that die, and limits that children do not look at --------------------------------------------------------


def test_a_child_that_ends_its_worker_begins_again_and_then_has_failed(ray: Ray, caplog) -> None:
    def child(_):
        print("all work and no play", flush=True)
        ctypes.string_at(0)

    events = run(ray, job(0, child))
    assert [event for event in events if isinstance(event, Started)] == [Started(0, attempt=1), Started(0, attempt=2)]
    failed = events[-1].result.failure
    assert failed.reason == "worker"
    assert re.search(r"worker on \S+ \(process \d+\) was ended by SIGSEGV, 2 times in a row", failed.message), failed
    assert "all work and no play" in failed.traceback
    assert "test_ray.py" in failed.traceback, "a segfault shows where"
    assert ray.retried[0] == 1
    assert "trial 0 begins again" in caplog.text
    assert complete(ray, job(1, lambda _: {})).state is TrialState.DONE


def test_a_worker_that_is_killed_costs_an_attempt_and_no_epoch_is_told_twice(ray: Ray, tmp_path: Path) -> None:
    run_killed_once(ray, tmp_path)


def test_children_over_their_limits_are_killed_and_not_tried_again(ray: Ray) -> None:
    def eat(context):
        context.report(1, {"loss": 0.5})
        held = b"x" * 200 * MIB
        time.sleep(600)
        return {"held": len(held)}

    def never_let_go(_):
        return re.match(r"(a+)+$", "a" * 64 + "b")

    events = run(
        ray,
        job(0, hang, limits=Limits(seconds=0.1)),
        job(1, never_let_go, limits=Limits(seconds=0.1)),
        job(2, eat, limits=Limits(memory_bytes=100 * MIB)),
    )
    done = {event.trial: event.result for event in events if isinstance(event, Completed)}
    assert [done[n].failure.reason for n in range(3)] == ["seconds", "seconds", "memory"], done
    assert "limit of 0.1 seconds and was killed" in done[0].failure.message
    assert "over its limit of 100 MiB and was killed" in done[2].failure.message
    assert list(done[2].curve) == [{"epoch": 1, "loss": 0.5}], "what it reported is kept"
    assert {event.attempt for event in events if isinstance(event, Started)} == {1}


def test_a_cancelled_child_that_does_not_listen_is_killed_with_what_it_started(ray: Ray) -> None:
    def child(context):
        started = {"child": subprocess.Popen(["sleep", "600"]).pid, "pid": os.getpid()}
        context.report(1, started)
        return hang(context)

    def cancel(event):
        if isinstance(event, Progress):
            ray.cancel(event.trial)
            ray.cancel(event.trial)

    events = run(ray, job(0, child), watch=cancel)
    assert [type(event) for event in events] == [Started, Progress, Completed]
    assert events[-1].state is TrialState.STOPPED
    assert_gone(*events[1].metrics.values())


def test_what_a_child_left_behind_ends_with_its_job_and_its_fork_is_no_second_result(ray: Ray) -> None:
    def child(_):
        left = subprocess.Popen(["sleep", "600"]).pid
        os.fork()
        os.write(1, b"all work and no play\n" * 50_000)
        return {"left": left}

    done = complete(ray, job(0, child))
    assert done.state is TrialState.DONE
    assert_gone(done.result.metrics["left"])
    assert complete(ray, job(1, lambda _: {"n": 1})).result.metrics == {"n": 1}
    assert not ray.completed(0.0)


def test_a_child_that_writes_everywhere_harms_nobody_else(ray: Ray) -> None:
    def child(_):
        for number in range(3, 2**16):
            with suppress(OSError):
                os.write(number, os.urandom(100))
        return {}

    failed = run(ray, job(0, child))[-1].result.failure
    assert failed.reason == "worker"
    assert "into the channel" in failed.message
    assert complete(ray, job(1, lambda _: {})).state is TrialState.DONE


def test_the_mailbox_may_die(ray: Ray, tmp_path: Path) -> None:
    def child(context):
        for epoch in range(1, 4):
            context.report(epoch, {"loss": 1.0})
            while epoch == 1 and not (tmp_path / "killed").exists():
                time.sleep(0.01)
        return {"go_on": context.report(4, {"loss": 1.0})}

    def kill(event):
        if isinstance(event, Progress) and event.epoch == 1:
            mine = psutil.Process().children(recursive=True)
            [mailbox] = [process for process in mine if process.cmdline()[:1] == ["ray::Mailbox"]]
            mailbox.kill()
            (tmp_path / "killed").touch()

    with_its_own = [event for event in run(ray, job(0, child), watch=kill) if isinstance(event, Progress)]
    assert [event.epoch for event in with_its_own] == [1, 2, 3, 4]
    assert complete(ray, job(1, lambda _: {"n": 1})).state is TrialState.DONE


# --- what processes share ----------------------------------------------------------------------------------------------


def test_processes_of_a_machine_share_the_arrays_of_an_evaluator_and_its_data(ray: Ray) -> None:
    class Holds:
        def __init__(self, array):
            self.array = array

        def loaded(self):
            return {"data": np.arange(300_000.0)}

        def evaluate(self, space, genotype, context):
            import time as clock

            found = {"pid": os.getpid()}
            for name, array in (("field", self.array), ("data", loaded.given("data"))):
                found[f"{name} writeable"] = float(array.flags.writeable)
                found[f"{name} sum"] = float(array.sum())
                place = array.__array_interface__["data"][0]
                for line in Path("/proc/self/maps").read_text().splitlines():
                    bounds, _, offset, _, inode = line.split()[:5]
                    begin, end = (int(bound, 16) for bound in bounds.split("-"))
                    if begin <= place < end:
                        found |= {f"{name} inode": float(inode), f"{name} offset": place - begin + int(offset, 16)}
            clock.sleep(0.5)  # so that the other job has another process
            return Result(found)

    like = job(0, lambda _: {})
    evaluator = Holds(np.ones(200_000))
    jobs = [Job(n, like.space, like.genotype, evaluator, like.reward, seed=0) for n in range(2)]
    first, second = (event.result for event in run(ray, *jobs) if isinstance(event, Completed))
    assert first.failure is None, first.failure
    pids = {first.metrics["pid"], second.metrics["pid"]}
    assert len(pids) == 2
    assert {**first.metrics, "pid": 0} == {**second.metrics, "pid": 0}, "the same file at the same place"
    assert first.metrics["field sum"] == 200_000
    assert first.metrics["data sum"] == sum(range(300_000))
    assert not first.metrics["field writeable"]
    assert not first.metrics["data writeable"]
    assert first.metrics["field inode"] > 0


def test_the_device_is_the_cpu_where_a_child_has_no_gpu(ray: Ray) -> None:
    def look(context):
        import torch

        return {"cpu": context.device == "cpu", "threads": context.threads, "of torch": torch.get_num_threads()}

    assert complete(ray, job(0, look)).result.metrics == {"cpu": True, "threads": 1, "of torch": 1}


# --- starting, ending, refusing ---------------------------------------------------------------------------------------

SCRIPT = """
import json, os, sys, time, psutil
sys.path.insert(0, {tests!r})
from archsmith.executors import Ray
from executor_jobs import complete, job

def child(_):
    print("printed by a child")
    os.kill(os.getpid(), 9)

executor = Ray(workers=1, retries=1)
failure = complete(executor, job(0, child)).result.failure
executor.host.start(dict)
processes = psutil.Process().children(recursive=True)
ports = [c.laddr.ip for p in [psutil.Process(), *processes] for c in p.net_connections() if c.status == "LISTEN"]
# Ray's two agents follow the raylet within a minute or so.
pids = [p.pid for p in processes if "Agent" not in p.cmdline()[0]]
print(json.dumps({{"reason": failure.reason, "pids": pids, "ports": ports}}), flush=True)
time.sleep(600)
"""


def test_ray_of_its_own_listens_on_loopback_prints_nothing_and_dies_with_its_process(tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    with open(tmp_path / "errors", "w+") as errors:
        command = [sys.executable, str(script)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            line = process.stdout.readline()
            process.kill()
        assert line.startswith("{"), (line, Path(tmp_path / "errors").read_text())
    said = json.loads(line)
    assert said["reason"] == "worker"
    assert len(said["ports"]) >= 3
    assert len(said["pids"]) >= 4
    assert {address.removeprefix("::ffff:") for address in said["ports"]} == {"127.0.0.1"}
    told = (tmp_path / "errors").read_text().splitlines()
    assert len(told) == 1, told
    assert told[0].startswith("trial 0 begins again: its worker on 127.0.0.1")
    assert_gone(*said["pids"])


def test_what_is_wrong_is_told_in_words(ray: Ray, monkeypatch) -> None:
    for options, message in (
        ({"address": 2}, "the address of a Ray cluster is auto, HOST:PORT or ray://HOST:PORT, got 2"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"cpus": -1}, "cpus must be a number of at least 0, got -1"),
        ({"cpus": 0}, "a child must need something"),
        ({"resources": {"tpu": "many"}}, "tpu must be a number"),
        ({"gpus": 3}, "a child needs 1 CPU, 3 GPU, and 127.0.0.1 has 2 CPU"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            Ray(**options)
    with pytest.raises(UsageError, match="a process has one connection"):
        Ray("127.0.0.1:1")
    lock = threading.Lock()
    with pytest.raises(UsageError, match="the evaluator cannot be sent to another process"):
        ray.submit(job(0, lambda _: {"locked": lock.locked()}))
    ray.submit(job(0, hang))
    with pytest.raises(UsageError, match="trial 0 was submitted and is not finished"):
        ray.submit(job(0, hang))
    ray.cancel(0)
    assert collect(ray, 1)[-1].state is TrialState.STOPPED
    closed = Ray()
    closed.close()
    with pytest.raises(UsageError, match="closed"):
        closed.submit(job(0, hang))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'archsmith[ray]'")):
        Ray()


def test_no_cluster_is_told_at_once(tmp_path: Path) -> None:
    script = (
        "import socket, time, archsmith.executors as e; s = socket.socket(); s.bind(('127.0.0.1', 0))\n"
        "for address in ('auto', '10.0.0.1', f'127.0.0.1:{s.getsockname()[1]}', 'ray://127.0.0.1:1'):\n"
        "    try: e.Ray(address)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"RAY_TMPDIR": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, env=environment
    ).stdout.splitlines()
    assert told[0].startswith("ArchsmithError there is no Ray cluster on this machine to join")
    assert told[1].startswith("UsageError the address of a Ray cluster is auto, HOST:PORT")
    assert told[2].startswith("ArchsmithError no Ray cluster answers at 127.0.0.1:")
    assert told[3].startswith("ArchsmithError no Ray cluster answers at ray://127.0.0.1:1")


def test_importing_executors_imports_no_ray() -> None:
    script = "import sys, archsmith.executors; print(*({'ray', 'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "\n"
