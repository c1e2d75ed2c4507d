"""Jobs in this process and in the pool, when nothing goes wrong; what goes wrong is in test_executor_faults."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.evaluator import FunctionEvaluator
from archsmith.core.executor import Completed, Executor, Progress, Started
from archsmith.core.trial import TrialState
from archsmith.executors import InProcess, ProcessPool
from archsmith.executors.process_pool import physical_cores
from executor_jobs import PATIENCE, assert_gone, collect, complete, job, run


@pytest.fixture(scope="module")
def shared_pool():
    """A pool for the tests that leave its workers as they are."""
    pool = ProcessPool(2, kill_grace=20)
    yield pool
    pool.close()


def test_both_are_executors_and_import_no_torch() -> None:
    assert isinstance(InProcess(), Executor)
    assert isinstance(ProcessPool(1), Executor)
    script = "import sys, archsmith.executors, archsmith.executors.worker; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


# --- in this process ----------------------------------------------------------------------------------------------------


def two_epochs(context):
    go_on = [context.report(epoch, {"loss": 1.0}) for epoch in (1, 2)]
    return {"told_to_go_on": sum(go_on)}


def test_a_job_is_started_before_it_is_trained() -> None:
    trained = []
    executor = InProcess()
    executor.submit(job(0, lambda _: trained.append(0) or {}))
    assert list(executor.completed()) == [Started(0)]
    assert not trained
    assert isinstance(executor.completed()[-1], Completed)


def test_progress_is_told_in_the_middle_of_training() -> None:
    seen = []
    executor = InProcess(on_progress=seen.append)

    def look(context):
        context.report(1, {"loss": 0.5})
        return {"seen": len(seen)}

    events = run(executor, job(3, look))
    assert events[-1].result.metrics == {"seen": 1}
    assert seen == [Progress(3, 1, {"loss": 0.5})]
    assert [type(event) for event in events] == [Started, Completed], "and not told again"


def test_cancelling_from_the_callback_stops_the_child() -> None:
    executor = InProcess()
    executor.on_progress = lambda progress: executor.cancel(progress.trial)
    done = complete(executor, job(0, two_epochs))
    assert done.state is TrialState.STOPPED
    assert done.result.metrics == {"told_to_go_on": 0}


def test_cancelling_between_the_start_and_the_training_saves_the_training() -> None:
    executor = InProcess()
    executor.submit(job(0, lambda _: pytest.fail("trained")))
    executor.completed()
    executor.cancel(0)
    assert executor.completed()[-1].state is TrialState.STOPPED


def test_an_error_of_the_callback_is_not_the_childs() -> None:
    def full_disk(progress):
        raise OSError("no space left")

    executor = InProcess(on_progress=full_disk)
    executor.submit(job(0, two_epochs))
    executor.completed()
    with pytest.raises(OSError, match="no space"):
        executor.completed()
    assert [event.state for event in executor.completed()] == [TrialState.STOPPED], "the job still completes, once"


def test_ctrl_c_leaves_the_job_unfinished_and_it_may_begin_again() -> None:
    calls = []

    def interrupted_once(_):
        calls.append(0)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return {}

    executor = InProcess()
    executor.submit(job(0, interrupted_once))
    assert list(executor.completed()) == [Started(0)]
    with pytest.raises(KeyboardInterrupt):
        executor.completed()
    events = collect(executor, 1)
    assert events[0] == Started(0, attempt=2)
    assert events[-1].state is TrialState.DONE


def test_threads_are_torchs_until_close() -> None:
    before = torch.get_num_threads()
    executor = InProcess(threads=before + 1)
    done = complete(executor, job(0, lambda context: {"torch": torch.get_num_threads(), "told": context.threads}))
    executor.close()
    assert done.result.metrics == {"torch": before + 1, "told": before + 1}
    assert torch.get_num_threads() == before
    assert complete(InProcess(), job(0, lambda context: {"told": context.threads})).result.metrics == {"told": before}


def test_generators_are_seeded_for_functions_without_a_context() -> None:
    def draw(_):
        return {"numpy": np.random.rand(), "torch": torch.rand(()).item()}

    first, again, other = (complete(InProcess(), job(0, draw, seed=seed)) for seed in (2**62, 2**62, 5))
    assert first.result.metrics == again.result.metrics
    assert not set(first.result.metrics.values()) & set(other.result.metrics.values())


def test_numbers_of_numpy_and_torch_become_plain() -> None:
    done = complete(InProcess(), job(0, lambda _: {"a": np.float32(0.5), "b": torch.tensor(2.0), "c": 3, "d": True}))
    assert done.result.metrics == {"a": 0.5, "b": 2.0, "c": 3, "d": 1.0}
    assert {type(value) for value in done.result.metrics.values()} == {float, int}


def test_auto_is_the_cpu_where_there_is_no_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from archsmith.executors.run_job import default_device

    default_device.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == "cpu"
    default_device.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [default_device(index) for index in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    default_device.cache_clear()


@pytest.mark.parametrize("executor", [InProcess, lambda: ProcessPool(1)])
def test_a_trial_is_submitted_once_and_nothing_after_close(executor) -> None:
    executor = executor()
    executor.submit(job(0, lambda _: {}))
    with pytest.raises(UsageError, match="trial 0 was submitted"):
        executor.submit(job(0, lambda _: {}))
    executor.close()
    with pytest.raises(UsageError, match="closed"):
        executor.submit(job(1, lambda _: {}))
    assert not executor.completed()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InProcess(threads=0), "threads must be"),
        (lambda: ProcessPool(0), "workers must be a whole number of at least 1, got 0"),
        (lambda: ProcessPool(True), "workers must be"),
        (lambda: ProcessPool(1, threads=1.5), "threads must be"),
        (lambda: ProcessPool(1, retries=-1), "retries must be"),
        (lambda: ProcessPool(1, kill_grace=-1), "kill_grace must be"),
        (lambda: ProcessPool(1, start_timeout=float("nan")), "start_timeout must be"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


# --- in the pool --------------------------------------------------------------------------------------------------------


def test_the_pool_is_as_wide_as_the_physical_cores() -> None:
    assert ProcessPool().slots == physical_cores() >= 1


def test_jobs_run_side_by_side(shared_pool: ProcessPool, tmp_path: Path) -> None:
    def meet(me, other):
        def child(_):
            (tmp_path / me).touch()
            for _ in range(3000):
                if (tmp_path / other).exists():
                    return {}
                time.sleep(0.01)
            raise TimeoutError(f"{other} does not run")

        return child

    events = run(shared_pool, job(0, meet("a", "b")), job(1, meet("b", "a")))
    assert [event.state for event in events if isinstance(event, Completed)] == [TrialState.DONE] * 2


def test_workers_start_when_there_is_work_and_stay() -> None:
    pool = ProcessPool(2)
    assert not pool._workers
    pids = {complete(pool, job(n, lambda _: {"pid": os.getppid()})).result.metrics["pid"] for n in range(5)}
    assert len(pids) == 1, "one job at a time needs one worker"
    assert os.getpid() not in pids
    pool.close()
    assert_gone(*pids)


def test_a_worker_imports_torch_only_with_its_evaluator_and_has_its_threads() -> None:
    def look(_):
        return {"torch": "torch" in sys.modules, "OMP_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"])}

    def use(_):
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # what one child changes is not the next one's
        return {"threads": threads}

    pool = ProcessPool(1, threads=2)
    assert complete(pool, job(0, look)).result.metrics == {"torch": 0.0, "OMP_NUM_THREADS": 2}
    assert complete(pool, job(1, use)).result.metrics == {"threads": 2}
    assert complete(pool, job(2, use)).result.metrics == {"threads": 2}
    pool.close()


def test_an_evaluator_is_sent_once_and_is_new_for_each_child() -> None:
    class Loads:
        """Loads its data when it is first called, as an evaluator would."""

        def __init__(self, name):
            self.name = name
            self.loads = 0
            self.data = None

        def __call__(self, architecture):
            if self.data is None:
                self.data = self.name
                self.loads += 1
            return {"data": self.data, "loads": self.loads}

    first = job(0, lambda _: {})
    pool = ProcessPool(1)
    evaluators = [FunctionEvaluator(Loads(3)), FunctionEvaluator(Loads(4))]
    seen = []
    for trial, which in enumerate((0, 0, 0, 1, 0)):
        one = replace(first, trial=trial, evaluator=evaluators[which])
        seen.append(tuple(complete(pool, one).result.metrics.values()))
    assert seen == [(3, 1), (3, 1), (3, 1), (4, 1), (3, 1)]
    pool.close()


def test_a_pool_waits_no_longer_than_it_is_told(shared_pool: ProcessPool) -> None:
    def child(context):
        for epoch in range(1, 3000):
            time.sleep(0.1)
            if epoch % 5 == 0 and not context.report(epoch, {}):
                break
        return {}

    shared_pool.submit(job(0, child))
    while shared_pool.completed(0.02):  # until it gives nothing, with the child at work
        pass
    shared_pool.cancel(0)
    assert collect(shared_pool, 1)[-1].state is TrialState.STOPPED


def test_what_children_print_stays_off_the_terminal(
    shared_pool: ProcessPool, capfd: pytest.CaptureFixture[str]
) -> None:
    def prints(_):
        print("to stdout")
        print("to stderr", file=sys.stderr)
        os.write(1, b"\x80\x04\x95 no message")
        return {}

    assert complete(shared_pool, job(0, prints)).state is TrialState.DONE
    assert capfd.readouterr() == ("", "")


def test_the_end_of_what_a_failed_child_printed_is_in_its_traceback(shared_pool: ProcessPool) -> None:
    def fails(_):
        print("x" * 100_000 + "the last words")
        raise ValueError("no")

    failure = complete(shared_pool, job(0, fails)).result.failure
    assert "ValueError: no" in failure.traceback
    assert failure.traceback.endswith("the last words\n")
    assert len(failure.traceback) < 20_000
    quiet = complete(shared_pool, job(1, lambda _: 1 / 0)).result.failure
    assert "last words" not in quiet.traceback, "nor in that of another"


def test_what_cannot_be_sent_is_refused_by_name(shared_pool: ProcessPool) -> None:
    lock = threading.Lock()
    with pytest.raises(UsageError, match=r"the evaluator cannot be sent to another process.*lock"):
        shared_pool.submit(job(0, lambda _: {"locked": lock.locked()}))
    assert complete(shared_pool, job(0, lambda _: {})).state is TrialState.DONE


def test_code_that_a_worker_cannot_load_is_a_failure(shared_pool: ProcessPool) -> None:
    ghost = types.ModuleType("ghost")
    exec("def child(context): return {}", ghost.__dict__)
    sys.modules["ghost"] = ghost
    try:
        ghosts = job(0, ghost.child)
        failure = complete(shared_pool, ghosts).result.failure
    finally:
        del sys.modules["ghost"]
    assert failure.reason == "error"
    assert "No module named 'ghost'" in failure.message
    assert complete(shared_pool, job(1, lambda _: {})).state is TrialState.DONE


SCRIPT = """
from random import Random
from archsmith.core.executor import Completed, Job
from archsmith.core.evaluator import as_evaluator
from archsmith.core.space import as_space, sample
from archsmith.executors import ProcessPool
from beside import double

print("once")

def space(choose):
    return choose("x", (1, 2, 3))

def child(architecture):
    print("not on stdout")
    return double(architecture)

space = as_space(space)
genotype = sample(space, Random(0))
pool = ProcessPool(2)
for n in range(4):
    pool.submit(Job(n, space, genotype, as_evaluator(child), lambda result: result.metrics["value"], seed=n))
rewards = []
while len(rewards) < 4:
    rewards += [event.reward for event in pool.completed() if isinstance(event, Completed)]
print(rewards == [2.0 * genotype.answers["x"]] * 4)
"""


def test_a_script_needs_no_guard_and_its_neighbours_are_found(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "main.py").write_text(SCRIPT)
    (tmp_path / "scripts" / "beside.py").write_text("def double(x): return 2 * x\n")
    (tmp_path / "random.py").write_text(
        "raise ImportError('a file of the working folder, which is no one\\'s business')"
    )
    done = subprocess.run(
        [sys.executable, "scripts/main.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.stdout, done.stderr) == ("once\nTrue\n", "")


def test_a_worker_that_cannot_start_is_an_error_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module named archsmith >&2\nexit 4\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    pool = ProcessPool(2)
    pool.submit(job(0, lambda _: {}))
    with pytest.raises(ArchsmithError, match=r"has come up.*exit status 4.*no module named archsmith"):
        collect(pool, 1)
    pool.close()


def test_a_worker_that_does_not_come_up_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = tmp_path / "python"
    sleeping.write_text("#!/bin/sh\nsleep 600\n")
    sleeping.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeping))
    pool = ProcessPool(1, start_timeout=0.1)
    pool.submit(job(0, lambda _: {}))
    with pytest.raises(ArchsmithError, match=r"has come up in 0.* seconds \(start_timeout=0.1\)"):
        collect(pool, 1)
    pool.close()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    with pytest.raises(ArchsmithError, match="no worker process can be started"):
        ProcessPool(1).submit(job(0, lambda _: {}))


@pytest.mark.cuda
def test_workers_are_given_the_cuda_devices_in_turn() -> None:
    pool = ProcessPool(2)

    def child(context):
        import torch

        time.sleep(0.5)
        return {"cuda": context.device.startswith("cuda:"), "sum": torch.ones(3, device=context.device).sum()}

    events = run(pool, job(0, child), job(1, child))
    results = [event.result.metrics for event in events if isinstance(event, Completed)]
    assert results == [{"cuda": 1.0, "sum": 3.0}] * 2
    pool.close()


def test_torch_is_seeded_as_it_is_imported_whichever_module_imports_it_first() -> None:
    script = """
from archsmith.executors.seeding import seeded
with seeded(3):
    from archsmith.nn.seeding import seed_torch
    import torch
    assert torch.initial_seed() == 3
"""
    subprocess.run([sys.executable, "-c", script], check=True)
