"""A child harms neither the search nor other children: what it says, what it does to its process, and what it starts."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import archsmith as smith
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Limits, as_evaluator, is_pure
from archsmith.core.executor import Completed, Started
from archsmith.core.global_state import GeneratorStates
from archsmith.core.trial import Result, TrialState
from archsmith.executors import InProcess, ProcessPool, child_report, process_pool
from archsmith.executors.messages import MAX_BYTES, BadMessage, MessageReader, framed
from archsmith.executors.processes import MARK
from executor_jobs import assert_gone, complete, job, run

MIB = 2**20
CHANGING = (MARK, "PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR")  # variables that the worker, pytest and torch set


@pytest.fixture(scope="module")
def pool():
    pool = ProcessPool(2, kill_grace=0.2)
    yield pool
    pool.close()


# --- what a child says ------------------------------------------------------------------------------------------------


def to_sockets(content: bytes) -> None:
    """Write to every socket of this process."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            connection.sendall(content)


def message(content: bytes, length: int | None = None) -> bytes:
    """A frame as the child's own code makes it."""
    return framed({})[:8] + struct.pack("!I", len(content) if length is None else length) + content


def forged(reward: float = 99.0) -> bytes:
    result = {"metrics": {}, "curve": [], "cost": {"seconds": 0, "epochs": 0}}
    return message(json.dumps({"kind": "completed", "state": "done", "result": result, "reward": reward}).encode())


def everywhere(_: Any) -> dict[str, float]:
    for number in range(3, 2**16):
        with suppress(OSError):
            os.write(number, os.urandom(100))
    return {}


def half(_: Any) -> None:
    to_sockets(message(b"{", 1000))
    time.sleep(600)


def stopped(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def closed(_: Any) -> None:
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
    time.sleep(600)


@pytest.mark.skipif(sys.platform != "linux", reason="finds its sockets in /proc")
@pytest.mark.parametrize(
    ("child", "reason"),
    [
        (lambda _: to_sockets(forged()) or {}, "after its result"),
        (lambda _: to_sockets(message(b"", 2**32 - 1)) or {}, "4,294,967,295 bytes"),
        (lambda _: to_sockets(message(b"[" * 100_000)) or {}, "no JSON"),
        (lambda _: to_sockets(message(b"3")) or {}, "no JSON object"),
        (lambda _: to_sockets(message(b'{"kind": "progress", "epoch": "x", "metrics": 1}')) or {}, "no epoch"),
        (lambda _: to_sockets(message(b'{"kind": "completed", "state": "done"}')) or {}, "no result"),
        (everywhere, "into the channel"),
        (half, "half written"),
        (stopped, "stopped by a signal"),
        (closed, "closed its channel"),
    ],
    ids=["forged", "endless", "deep", "number", "epoch", "result", "garbage", "half", "stopped", "closed"],
)
def test_a_child_that_says_what_is_no_message_has_failed_and_nobody_else(
    pool: ProcessPool, child: Callable[[Any], Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((child_report, "_MESSAGE"), (process_pool, "_STOPPED"), (process_pool, "_LAST_WORD")):
        monkeypatch.setattr(module, name, 0.3)

    def patient(context: Any) -> dict[str, float]:
        for epoch in range(1, 20):
            time.sleep(0.02)
            assert context.report(epoch, {})
        return {"pid": os.getppid()}

    events = run(pool, job(0, child), job(1, patient))
    done = {event.trial: event for event in events if isinstance(event, Completed)}
    assert done[1].state is TrialState.DONE, "the neighbour goes on"
    assert (done[0].state, done[0].result.failure.reason) == (TrialState.FAILED, "worker")
    assert reason in done[0].result.failure.message
    assert Started(0, attempt=2) not in events, "it would do the same again"
    assert complete(pool, job(2, lambda _: {})).state is TrialState.DONE


def test_a_child_that_cannot_come_upon_its_channel_may_write_where_it_likes(pool: ProcessPool) -> None:
    def child(_: Any) -> dict[str, float]:
        for number in range(100):
            with suppress(OSError):
                os.write(number, b"\x80\x04\x95 garbage")
                os.set_blocking(number, False)
        return {}

    assert complete(pool, job(0, child)).state is TrialState.DONE


def test_a_reader_survives_any_bytes() -> None:
    rng = random.Random(0)
    good = framed({"kind": "progress"})
    for _ in range(2000):
        content = bytearray(good * 2 if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 60)))
        for _ in range(rng.randrange(3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(content[: rng.randrange(1, len(content) + 1)])
            reader = MessageReader(ours)
            with suppress(BadMessage):
                assert all(isinstance(each, dict) for each in reader.read())


def test_a_reader_takes_no_memory_for_what_is_only_claimed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = MessageReader(ours)
        theirs.sendall(message(b"{", MAX_BYTES))
        before = psutil.Process().memory_info().rss
        assert reader.read() == []
        assert reader.incomplete_since is not None
        assert psutil.Process().memory_info().rss - before < 10 * MIB


def test_a_result_that_is_too_long_to_be_sent_is_a_failure(pool: ProcessPool) -> None:
    def child(_: Any) -> Result:
        return Result({f"{n}{'n' * 900}": 1.0 for n in range(80_000)})

    assert "64" in complete(pool, job(0, child)).result.failure.message


def test_nothing_of_a_childs_is_unpickled_here(pool: ProcessPool) -> None:
    class Exits(float):
        def __reduce__(self) -> Any:
            return os._exit, (3,)

    class Fails(Exception):
        def __reduce__(self) -> Any:
            return os._exit, (3,)

    def fails(_: Any) -> None:
        raise Fails("no")

    assert complete(pool, job(0, lambda _: {"a": Exits(1.5)})).result.metrics == {"a": 1.5}
    assert complete(pool, job(1, fails)).result.failure.message == "Fails: no"


def test_a_part_that_exits_as_it_is_pickled_is_refused(pool: ProcessPool) -> None:
    class Part:
        def __reduce__(self) -> Any:
            raise SystemExit(3)

    part = Part()
    with pytest.raises(UsageError, match="the evaluator cannot be sent"):
        pool.submit(job(0, lambda _: {"a": len(str(part))}))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_child_that_attacks_its_worker_harms_itself_alone(
    pool: ProcessPool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "_LAST_WORD", 0.3)
    monkeypatch.setattr(process_pool, "_KILLED", 0.3)

    def child(_: Any) -> dict[str, float]:
        os.kill(os.getppid(), number)
        return {}

    done = {e.trial: e for e in run(pool, job(0, child), job(1, lambda _: {})) if isinstance(e, Completed)}
    assert done[1].state is TrialState.DONE
    assert done[0].state is TrialState.DONE or done[0].result.failure.reason == "worker"
    assert complete(pool, job(2, lambda _: {})).state is TrialState.DONE


# --- what it does to its process --------------------------------------------------------------------------------------


def trains(_: Any) -> dict[str, float]:
    """A small training that nobody seeded, and a look at what it ran in."""
    import decimal
    import gc
    import hashlib
    import locale
    import resource

    import numpy as np
    import torch

    layer = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(layer(torch.rand(8, 1, 8, 8)), torch.randint(2, (8,)))
        gradients = torch.autograd.grad(loss, [*layer.parameters()])
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            parameter.data -= 0.1 * gradient
    weights = b"".join(p.detach().numpy().tobytes() for p in layer.parameters())
    variables = sorted(item for item in os.environ.items() if item[0] not in CHANGING)
    seen = [
        *(os.getcwd(), variables, sys.path, sys.argv, sys.getrecursionlimit(), str({"a", "b", "c"})),
        *(random.random(), np.random.rand(), torch.rand(()).item(), str(np.array([1 / 3])), np.geterr()),
        *(torch.get_num_threads(), torch.is_anomaly_enabled(), str(torch.rand(2)), torch.get_default_dtype()),
        *(gc.isenabled(), gc.get_threshold(), locale.setlocale(locale.LC_ALL), decimal.getcontext().prec),
        *(signal.getsignal(signal.SIGTERM), signal.getitimer(signal.ITIMER_REAL), os.umask(0o22), sys.stdout is None),
    ]
    alone = [  # what others change as well in a process that is not the child's alone
        *(threading.active_count(), len(psutil.Process().children()), hasattr(os, "spoiled")),
        *(os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_CPU)),
        len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0,
    ]
    return {"weights": int(hashlib.sha256(weights).hexdigest()[:12], 16)} | {
        f"{name} {n}": int(hashlib.sha256(repr(value).encode()).hexdigest()[:12], 16)
        for name, values in (("seen", seen), ("alone", alone))
        for n, value in enumerate(values)
    }


def spoils(_: Any) -> dict[str, float]:
    """Whatever a child can do to its process and still return."""
    import atexit
    import builtins
    import decimal
    import gc
    import locale
    import logging
    import resource
    import subprocess
    import tempfile
    import warnings

    import numpy as np
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch._C._set_deterministic_algorithms(True)  # what the public function does, less an import that takes seconds
    torch.set_float32_matmul_precision("medium")
    torch.set_num_threads(3)
    torch.autograd.set_detect_anomaly(True)
    torch.set_flush_denormal(True)
    torch.set_autocast_enabled("cpu", True)
    torch.set_printoptions(precision=1)
    torch.nn.functional.relu = torch.abs
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    np.seterr(all="ignore")
    np.set_printoptions(precision=1)
    decimal.getcontext().prec = 3
    threading.Thread(target=time.sleep, args=(600,)).start()
    subprocess.Popen(["sleep", "600"])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 3600)
    gc.disable()
    gc.set_threshold(1)
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    locale.setlocale(locale.LC_ALL, "C")
    resource.setrlimit(resource.RLIMIT_CPU, (10_000, 10_000))
    os.nice(5)
    os.umask(0o077)
    kept = [open(os.devnull) for _ in range(5)]  # noqa: SIM115
    os.chdir(tempfile.gettempdir())
    os.environ.clear()
    os.spoiled = kept  # type: ignore[attr-defined]
    sys.path[:], sys.argv[:] = ["nowhere"], []
    sys.setrecursionlimit(50_000)
    atexit.register(os.abort)
    sys.stdout = sys.stderr = None  # type: ignore[assignment]
    builtins.sum = lambda *_: 42  # type: ignore[assignment]
    sys.modules["json"] = None  # type: ignore[assignment]
    os._exit = os.abort  # type: ignore[assignment]
    return {}


def test_a_child_finds_what_it_finds_in_a_fresh_process_whatever_ran_before(pool: ProcessPool) -> None:
    fresh = ProcessPool(1)
    expected = complete(fresh, job(0, trains, seed=7))
    fresh.close()
    for each in run(pool, job(1, spoils, seed=7), job(2, spoils, seed=7)):  # one in each worker
        assert isinstance(each, Started) or each.state is TrialState.DONE, each.result.failure
    after = complete(pool, job(3, trains, seed=7))
    assert expected.state is TrialState.DONE, expected.result.failure
    assert after.result.metrics == expected.result.metrics, "to the bit, and all that can be seen"


def spoils_what_can_be_put_back(_: Any) -> dict[str, float]:
    import builtins
    import gc
    import tempfile

    import numpy as np
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch._C._set_deterministic_algorithms(True)  # what the public function does, less an import that takes seconds
    torch.set_num_threads(3)
    torch.autograd.set_detect_anomaly(True)
    torch.set_flush_denormal(True)
    torch.set_autocast_enabled("cpu", True)
    np.seterr(all="ignore")
    np.set_printoptions(precision=1)
    os.chdir(tempfile.gettempdir())
    os.environ.clear()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 3600)
    gc.disable()
    builtins.sum = lambda *_: 42  # type: ignore[assignment]
    sys.stdout = None  # type: ignore[assignment]
    os.umask(0o077)
    return {}


@pytest.mark.parametrize("threads", [1, 2])
def test_in_this_process_what_can_be_put_back_is(threads: int) -> None:
    ended = threading.Event()
    if threads > 1:  # the other one must not see another umask for a moment
        threading.Thread(target=ended.wait, daemon=True).start()
    executor = InProcess(device="cpu")
    fresh = complete(executor, job(0, trains, seed=7))
    states = GeneratorStates.now()
    assert complete(executor, job(1, spoils_what_can_be_put_back, seed=1)).state is TrialState.DONE
    after = complete(executor, job(2, trains, seed=7))
    assert fresh.state is TrialState.DONE, fresh.result.failure
    seen = [{k: v for k, v in done.result.metrics.items() if not k.startswith("alone")} for done in (fresh, after)]
    assert seen[0] == seen[1]
    assert states.python == random.getstate()
    assert torch.equal(states.torch, torch.get_rng_state())
    ended.set()


def test_what_is_imported_as_the_child_runs_is_seeded_too() -> None:
    def draw(_: Any) -> dict[str, float]:
        import numpy
        import torch

        return {"numpy": numpy.random.rand(), "torch": torch.rand(()).item()}

    pool = ProcessPool(1)
    drawn = [complete(pool, job(n, draw, seed=seed)).result.metrics for n, seed in enumerate((3, 3, 4))]
    pool.close()
    here = complete(InProcess(), job(0, draw, seed=3)).result.metrics
    assert drawn[0] == drawn[1] == here, "in the first child torch is imported by the child, in the second it is there"
    assert not set(drawn[2].values()) & set(drawn[0].values())


# --- what it starts ---------------------------------------------------------------------------------------------------


def daemon() -> tuple[int, Callable[[int], int]]:
    """A process in a session of its own whose parent has ended: its number, and what has it take so many MiB of memory."""
    told, tell = os.pipe()
    reading, writing = os.pipe()
    if (parent := os.fork()) == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            hoard = b"x" * int(os.read(told, 20)) * MIB
            time.sleep(600)
            os._exit(len(hoard) % 2)
        os.write(writing, str(pid).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    return int(os.read(reading, 20)), lambda mebibytes: os.write(tell, str(mebibytes).encode())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a process is found by its environment")
def test_a_daemon_counts_and_ends_with_its_child(pool: ProcessPool) -> None:
    def child(context: Any, eat: int) -> dict[str, float]:
        pid, take = daemon()
        context.report(1, {"pid": pid})
        if eat:
            take(eat)
            time.sleep(600)
        return {"pid": pid}

    assert_gone(complete(pool, job(0, lambda context: child(context, 0))).result.metrics["pid"])
    done = complete(pool, job(1, lambda c: child(c, 200), limits=Limits(memory_bytes=100 * MIB)))
    assert done.result.failure.reason == "memory"
    assert_gone(done.result.curve[0]["pid"])
    done = complete(pool, job(2, lambda c: child(c, 1), limits=Limits(seconds=0.5)))
    assert done.result.failure.reason == "seconds"
    assert_gone(done.result.curve[0]["pid"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads environments of processes that are no child's")
def test_a_daemon_ends_though_its_child_ends_the_worker() -> None:
    def child(context: Any) -> dict[str, float]:
        context.report(1, {"pid": daemon()[0]})
        os.kill(os.getppid(), signal.SIGKILL)
        ctypes.CDLL(None).pause()
        return {}

    pool = ProcessPool(1, retries=0)
    done = complete(pool, job(0, child))
    pool.close()
    assert done.result.failure.reason == "worker"
    assert_gone(done.result.curve[0]["pid"])


def test_memory_that_was_taken_for_a_moment_counts(pool: ProcessPool) -> None:
    def child(_: Any) -> dict[str, float]:
        return {"n": len(bytearray(200 * MIB))}

    for executor in (pool, InProcess()):
        done = complete(executor, job(0, child, limits=Limits(memory_bytes=50 * MIB)))
        assert (done.state, done.result.failure.reason) == (TrialState.FAILED, "memory")
        assert complete(executor, job(1, child, limits=Limits(memory_bytes=300 * MIB))).state is TrialState.DONE


# --- what a search leaves to its caller -------------------------------------------------------------------------------


def interrupts(_: Any) -> float:
    raise KeyboardInterrupt


@pytest.mark.parametrize("child", [lambda _: 1.0, lambda _: 1 / 0, interrupts], ids=["good", "fails", "interrupts"])
def test_a_search_leaves_the_generators_as_they_were(child: Callable[[Any], float]) -> None:
    random.seed(8), np.random.seed(8), torch.manual_seed(8)
    before, threads, dtype = GeneratorStates.now(), torch.get_num_threads(), torch.get_default_dtype()

    def draws(architecture: Any) -> float:
        random.random(), np.random.rand(), torch.rand(3), torch.set_default_dtype(torch.float64)
        return child(architecture)

    with suppress(KeyboardInterrupt, smith.ArchsmithError):
        smith.search(lambda choose: choose("a", (1, 2)), draws, trials=2, store="memory://")
    after = GeneratorStates.now()
    assert after.python == before.python
    assert all(np.array_equal(a, b) for a, b in zip(after.numpy, before.numpy, strict=True))
    assert torch.equal(after.torch, before.torch)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)


IN_ORDER = smith.searchers.Exhaustive(shuffle=False)


def one_of_two(choose: Any) -> Any:
    return choose("a", (1, 2))


def test_limits_of_a_plain_function_hold() -> None:
    me = os.getpid()

    def child(a: int) -> dict[str, float]:
        while a == 1:
            pass
        return {"value": a, "here": os.getpid() == me}

    limits = Limits(seconds=0.3)
    run = smith.search(one_of_two, child, trials=2, limits=limits, searcher=IN_ORDER, store="memory://")
    endless, short = run.trials()
    assert (endless.state, endless.result.failure.reason) == (TrialState.FAILED, "seconds")
    assert (short.state, short.result.metrics) == (TrialState.DONE, {"value": 2.0, "here": 0.0})


def test_limits_of_a_plain_function_that_do_not_hold_are_warned_of() -> None:
    lock = threading.Lock()

    def child(a: int) -> float:
        time.sleep(0.05 if lock.locked() or a == 1 else 0)
        return 1.0

    limits = Limits(seconds=0.04, memory_bytes=10**9)
    with pytest.warns(UserWarning, match=r"limits.seconds and limits.memory_bytes.*executor=ProcessPool"):
        run = smith.search(one_of_two, child, trials=2, limits=limits, searcher=IN_ORDER, store="memory://")
    assert next(run.trials()).result.failure.reason == "seconds", "it has failed all the same"
    with pytest.warns(UserWarning, match=r"limits.parameters=9 is not enforced") as caught:
        smith.search(one_of_two, lambda a: 1.0, trials=1, limits=Limits(parameters=9), store="memory://")
    assert caught[0].filename == __file__, "it names the line that began the search"


NEW = """
import random, sys
state = random.getstate()
import archsmith as smith
def child(a):
    import torch, numpy
    return float(torch.rand(()) + numpy.random.rand())
run = smith.search(lambda choose: choose("a", (1, 2)), child, trials=2, store="memory://")
assert random.getstate() == state
import torch, numpy
print(*[trial.reward for trial in run.trials()], "|", torch.rand(1).item(), numpy.random.rand())
"""


def test_a_library_that_a_child_was_first_to_import_is_seeded_for_it_and_new_for_the_caller() -> None:
    first, second = (subprocess.check_output([sys.executable, "-c", NEW], text=True).split("|") for _ in range(2))
    assert first[0] == second[0]
    assert not set(first[1].split()) & set(second[1].split())


def test_a_pure_evaluator_costs_nothing_to_isolate() -> None:
    """One that looks results up neither is seeded nor changes anything, so that nothing is read and put back for it."""

    class Draws:
        def __init__(self, pure: bool) -> None:
            self.pure = pure

        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            return Result({"value": random.random()})

    def drawn(pure: bool) -> tuple[float, float]:
        random.seed(5)
        run = smith.search(lambda choose: choose("a", (1, 2)), Draws(pure), trials=1, store="memory://")
        return run.best.reward, random.random()

    random.seed(5)
    first = random.random()
    assert drawn(pure=True) == (first, first), "search still puts the caller's generators back, once for all its trials"
    assert drawn(pure=False)[0] != first, "a child draws from its own seed"
    assert drawn(pure=False)[1] == first
    assert is_pure(smith.training.Landscape())
    assert not is_pure(as_evaluator(lambda architecture: 1.0))
