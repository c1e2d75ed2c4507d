"""Searches on a Ray cluster of several machines that lose and gain some, and whose machines do not see the driver's files."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import archsmith as smith
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.errors import ArchsmithError
from archsmith.core.executor import Completed
from archsmith.core.hosting import Here, Host, PartLost
from archsmith.core.trial import Trial, TrialState
from archsmith.executors import Ray
from archsmith.executors.ray_folder import own_folder
from executor_jobs import PATIENCE, collect, complete, job, run
from ray_machines import Machines, machines


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one CPU."""
    with machines(2) as cluster:
        yield cluster


@pytest.fixture
def joined(cluster: Machines):
    executor = Ray(cluster.address)
    yield executor
    executor.close()


# --- what machines that see no files are sent ---------------------------------------------------------------------------


def test_code_and_data_come_from_the_driver(joined: Ray, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "here.npz", x_train=images, y_train=np.arange(60) % 2)
    evaluator = smith.training.ImageClassification.desk(str(tmp_path / "here.npz"), epochs=1)
    like = job(0, lambda _: {})
    space = smith.spaces.ConvChain(layers=2)
    genotype = smith.searchers.Random().start(space, 0).ask(1)[0].genotype
    one = dataclasses.replace(
        like, space=space, genotype=genotype, evaluator=evaluator, reward=smith.rewards.cubed_accuracy
    )
    joined.submit(one)
    (tmp_path / "here.npz").unlink()  # from here on no other process can read it
    done = collect(joined, 1)[-1]
    assert done.state is TrialState.DONE, done.result.failure
    assert "accuracy" in done.result.metrics

    def look(_):
        import archsmith

        return {"shipped": "_ray_pkg_" in archsmith.__file__}

    assert complete(joined, job(1, look)).result.metrics == {"shipped": 1.0}


def test_weights_travel_with_jobs_and_results(joined: Ray, tmp_path: Path) -> None:
    kept = tmp_path / "kept"

    def begin(context):
        context.report(1, {"loss": 1.0})
        assert context.paused
        context.pause({"weights": np.arange(3.0)})
        return {"epochs": 1.0}

    def go_on(context):
        from archsmith.core.trial import Result

        assert context.epochs_done == 1
        seen = {"own": float(context.resume["weights"].sum()), "parent": float(context.artifact(5)["weights"].sum())}
        (Path(artifacts_of(context)) / "stray").write_text("no place of the driver's")
        return Result(seen, artifact=context.checkpoint({"weights": np.arange(4.0)}))

    def artifacts_of(context):
        return context._job.artifacts

    parent = ArtifactFolder(kept).put({"weights": np.ones(7)})
    first = dataclasses.replace(job(0, begin), artifacts=str(kept), until=1)
    paused = run(joined, first)[-1]
    assert paused.state is TrialState.PAUSED, paused.result.failure
    assert float(ArtifactFolder(kept).get(paused.result.checkpoint)["weights"].sum()) == 3.0

    second = dataclasses.replace(job(0, go_on), artifacts=str(kept), earlier={5: parent}, resume=paused.result)
    done = run(joined, second)[-1]
    assert done.state is TrialState.DONE, done.result.failure
    assert done.result.metrics == {"own": 3.0, "parent": 7.0}
    assert done.result.artifact in ArtifactFolder(kept)
    assert not (kept / "stray").exists(), "the folder of the child is one of its own machine"

    shutil.rmtree(kept)
    kept.write_text("a file where the folder was")
    lost = run(joined, dataclasses.replace(job(1, lambda c: smith_result(c)), artifacts=str(kept)))[-1]
    assert lost.state is TrialState.FAILED
    assert "cannot keep an artifact" in lost.result.failure.message


def test_a_killed_child_leaves_no_weights_on_its_machine(joined: Ray, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def child(context):
        digest = context.checkpoint({"weights": np.arange(4.0)})
        with begun.open("a") as file:
            print(context._job.artifacts, file=file)
        if len(begun.read_text().splitlines()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"there": float(Path(context._job.artifacts, digest + ".safetensors").exists())}

    done = run(joined, dataclasses.replace(job(7, child), artifacts=str(tmp_path / "kept")))[-1]
    assert done.result.metrics == {"there": 1.0}, done.result.failure
    first, second = begun.read_text().splitlines()
    assert first != second
    assert not Path(first).exists(), "the next child on that machine takes it away"
    assert not Path(second).exists()


def test_folders_of_children_that_live_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "archsmith-child-left"
    left.mkdir()
    (left / "weights").write_text("")
    with own_folder() as first, own_folder() as second:
        assert not left.exists()
        assert sorted(tmp_path.iterdir()) == sorted([Path(first), Path(second)])
    assert not list(tmp_path.iterdir())


def smith_result(context):
    from archsmith.core.trial import Result

    return Result({"n": 1.0}, artifact=context.checkpoint({"weights": np.arange(4.0)}))


# --- parts of a searcher ------------------------------------------------------------------------------------------------


class Counter:
    def __init__(self, start):
        self.total = start
        self.seen = []

    def add(self, number, seconds=0.0):
        time.sleep(seconds)
        self.total += number
        self.seen.append(number)
        return self.total

    def pid(self):
        return os.getpid()

    def fail(self):
        raise KeyError("no such shard")

    def order(self):
        return list(self.seen)


def use(host):
    """What two parts that hand results on to each other give."""
    one, two = host.start(Counter, 10), host.start(Counter, 100)
    slow_one = one.call("add", 1, 0.3)
    handed = two.call("add", slow_one)
    two.call("add", 5)
    back = one.call("add", handed)
    failed = one.call("fail")
    given_failed = two.call("add", failed)
    found = [pending.result() for pending in (back, handed, slow_one, one.call("order"), two.call("order"))]
    for pending in (failed, given_failed):
        with pytest.raises(KeyError, match="no such shard"):
            pending.result()
    array = one.call("add", np.ones(200_000))
    found.append(float(two.call("add", array).result().sum()))
    for part in (one, two, one):
        part.end()
    return found


def test_parts_of_a_searcher_do_the_same_as_in_this_process(joined: Ray) -> None:
    assert isinstance(joined.host, Host)
    assert use(joined.host) == use(Here())


def test_a_part_that_cannot_be_made_says_why(joined: Ray) -> None:
    part = joined.host.start(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            part.call("add", 1).result()


def test_a_part_whose_process_ends_is_lost_and_so_is_what_it_was_to_give(joined: Ray) -> None:
    one, two = joined.host.start(Counter, 0), joined.host.start(Counter, 0)
    pid = one.call("pid").result()
    assert len({pid, two.call("pid").result(), os.getpid()}) == 3
    waiting = one.call("add", 1, 600)
    handed = two.call("add", waiting)
    os.kill(pid, signal.SIGKILL)
    for pending in (waiting, handed, one.call("pid"), two.call("add", one.call("pid"))):
        with pytest.raises(PartLost):
            pending.result()
    assert two.call("add", 2).result() == 2, "the other lives on"
    joined.close()
    with pytest.raises(PartLost):
        two.call("pid").result()


# --- machines that come and go ------------------------------------------------------------------------------------------

SPACE = smith.core.space.as_space(lambda choose: [choose(f"{n}", (1, 2, 3, 4)) for n in range(6)])


def slow():
    """An evaluator of ten short epochs."""

    class Slow:
        def evaluate(self, space, genotype, context):
            import time as clock

            from archsmith.core.trial import Cost, Result

            curve = []
            for epoch in range(1, 11):
                clock.sleep(0.05)
                curve.append({"epoch": epoch, "loss": 1.0 / epoch})
                if not context.report(epoch, {"loss": 1.0 / epoch}):
                    break
            return Result({"value": float(sum(genotype.answers.values()))}, curve, Cost(0.5, 10.0))

    return Slow()


def test_a_search_outlives_a_machine_and_uses_a_new_one(cluster: Machines, tmp_path: Path, caplog) -> None:
    happened = []
    slots = []

    def watch(event):
        slots.append(executor.slots)
        if not isinstance(event, Trial) or event.state is not TrialState.RUNNING:
            return
        if event.number >= 3 and not happened:
            happened.append(len(slots))
            cluster.lose(cluster.nodes[-1])
        if event.number >= 9 and len(happened) == 1:
            happened.append(len(slots))
            cluster.add()

    executor = Ray(cluster.address)
    store = f"sqlite:///{tmp_path}/runs.db"
    trials = list(smith.search(SPACE, slow(), trials=24, executor=executor, store=store, watch=watch).trials())
    assert [trial.number for trial in trials] == list(range(24))
    assert {trial.state for trial in trials} == {TrialState.DONE}
    assert [trial.reward for trial in trials] == [float(sum(trial.genotype.answers.values())) for trial in trials]
    assert executor.retried, "a child was on the machine that was lost"
    assert all(trial.attempts == 1 + executor.retried.get(trial.number, 0) for trial in trials)
    for number in executor.retried:
        assert f"trial {number} begins again" in caplog.text
    lost, added = happened
    assert slots[lost - 1] == 2
    assert 1 in slots[lost:]
    assert slots[added:][-1] == 2, "the new machine is used"


def test_no_machine_that_could_is_told_and_one_that_comes_is_used(cluster: Machines, caplog) -> None:
    impatient = Ray(cluster.address, resources={"tpu": 1}, start_timeout=0.5)
    impatient.submit(job(0, lambda _: {}))
    with pytest.raises(ArchsmithError, match=r"no machine .* for 0.5 seconds .* needs 1 CPU, 1 tpu, and .* has 1 CPU"):
        collect(impatient, 1)
    assert "waiting for a machine that has it" in caplog.text
    assert impatient.slots == 1, "something must ask for one, or no cluster would grow"
    impatient.close()
    patient = Ray(cluster.address, resources={"tpu": 0.5}, start_timeout=PATIENCE)
    for n in range(2):
        patient.submit(job(n, lambda _: {"n": 1}))
    assert not patient.completed(0.1)
    node = cluster.add(gpus=2, tpu=1)
    try:
        events = collect(patient, 2)
        assert [event.state for event in events if isinstance(event, Completed)] == [TrialState.DONE] * 2
        assert patient.slots == 1, "two halves of a tpu, and one CPU"
        patient.close()
        fractions_of_gpus(cluster.address)
    finally:
        patient.close()
        cluster.leave(node)


def fractions_of_gpus(address: str) -> None:
    """Which GPU a child has is Ray's to say."""

    def look(_):
        import time as clock

        clock.sleep(0.5)  # so that the next has to share, or take the other
        return {"gpu": float(os.environ["CUDA_VISIBLE_DEVICES"])}

    executor = Ray(address, cpus=0.25, gpus=0.5)
    assert executor.slots == 4
    events = run(executor, *[job(n, look) for n in range(4)])
    executor.close()
    results = [event.result for event in events if isinstance(event, Completed)]
    assert sorted(result.metrics["gpu"] for result in results) == [0.0, 0.0, 1.0, 1.0], results


# --- the driver killed --------------------------------------------------------------------------------------------------

DRIVER = """
import sys
sys.path.insert(0, {tests!r})
import archsmith as smith
from archsmith.executors import Ray
from test_ray_cluster import SPACE, slow
smith.search(SPACE, slow(), trials=12, executor=Ray({address!r}), store={store!r}, name="killed")
"""


def test_a_search_whose_driver_is_killed_goes_on_elsewhere_with_each_trial_done_once(
    cluster: Machines, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(tests=str(Path(__file__).parent), address=cluster.address, store=store))
    with subprocess.Popen([sys.executable, str(script)]) as driver:
        deadline = time.monotonic() + PATIENCE
        while (counts := _counts(store)).get(TrialState.DONE, 0) < 4 or not counts.get(TrialState.RUNNING, 0):
            assert time.monotonic() < deadline
            assert driver.poll() is None
            time.sleep(0.02)
        driver.kill()
    before = {trial.number: trial for trial in smith.open_run(store, "killed").trials()}
    finished = {number: trial for number, trial in before.items() if trial.state is TrialState.DONE}
    after = smith.open_run(store, "killed").resume(
        executor=Ray(cluster.address), space=SPACE, evaluator=slow(), searcher=smith.searchers.Random()
    )
    trials = list(after.trials())
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {TrialState.DONE}
    assert {number: trials[number] for number in finished} == finished, "what was finished stays as it was"
    assert any(trial.state is TrialState.RUNNING for trial in before.values()), (
        "what ran when the driver died ran again"
    )


def _counts(store: str) -> Mapping[TrialState, int]:
    try:
        return smith.open_run(store, "killed").summary.counts
    except ArchsmithError:  # it has not begun
        return {}
