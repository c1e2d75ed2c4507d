"""Searches under faults, and what must be true after each: used by the tests, a few of each, and by benchmarks/faults.py.

Every scenario takes a seed, does its faults at moments drawn from it, and after each has `run_record` look at the record:
nothing that was finished is lost, changed or there twice. At the end the search is finished, and where children run in
the driver's process its answer (every genotype and reward, and what the searcher would propose next) is that of a search
that nothing happened to.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from run_record import Record, check, count_events, read_record

PATIENCE = 120.0  # seconds until a scenario says that something hangs


@dataclass
class Tally:
    """What a scenario did, for the table.

    Args:
        faults: how many were done.
        trials: how many trials the searches had, all of them finished at the end.
        again: how many were begun more than once.
        kept: how many were finished before a fault, each looked at again after it.
        seconds: it took.
    """

    faults: int = 0
    trials: int = 0
    again: int = 0
    kept: int = 0
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        mine, others = vars(self), vars(other)
        return Tally(**{name: mine[name] + others[name] for name in mine})


class Driver:
    """The process that forks searches; see fault_driver.py."""

    def __init__(self) -> None:
        self._pid: int | None = None
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fault_driver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._read() == "ready"

    def begin(self, spec: dict[str, Any]) -> int:
        """Fork a search; gives its process's number. `ended` must be asked for before the next."""
        if self._pid is not None:  # a scenario that failed left it
            os.kill(self._pid, signal.SIGKILL)
            self.ended()
        self._write(json.dumps(spec))
        pid = int(self._read())
        assert pid > 1, pid  # it is killed later: 0, 1 and what is below are not one process
        self._pid = pid
        return pid

    def ended(self) -> int:
        """Its exit status, once it has ended; until then nobody else has its number."""
        assert self._read() == "ended"
        self._pid = None
        self._write("")
        return int(self._read())

    def run(self, spec: dict[str, Any]) -> None:
        """A search to its end."""
        self.begin(spec)
        status = self.ended()
        assert status == 0, (Path(spec["folder"]) / "said").read_text()

    def close(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self.ended()
        self._process.communicate(timeout=PATIENCE)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def driver() -> Iterator[Driver]:
    """A driver, ended with the block."""
    process = Driver()
    try:
        yield process
    finally:
        process.close()


@dataclass
class Search:
    """One search under faults: its record after the last look, and what to expect of it."""

    driver: Driver
    spec: dict[str, Any]
    tally: Tally = field(default_factory=Tally)
    record: Record | None = None

    @property
    def folder(self) -> Path:
        return Path(self.spec["folder"])

    def look(self) -> Record | None:
        """Read the record, and hold it against itself and against what was there at the last look."""
        found = read_record(self.spec["store"])
        assert found is not None or self.record is None, "the run is gone"
        if found is not None:
            check(found, self.record)
            self.record = found
            self.tally.kept += len(found.results)
        return found

    def finish(self) -> Record:
        """Go on to the end without faults; every trial is then finished."""
        self.driver.run({key: value for key, value in self.spec.items() if key not in ("clock", "file_size")})
        record = self.look()
        assert record is not None
        assert record.is_full
        self.tally.trials += len(record.trials)
        self.tally.again += sum(trial["attempts"] > 1 for trial in record.trials)
        return record

    def wait(self, rng: random.Random, process: psutil.Process, opening: float = 0.3) -> None:
        """Until a moment for a fault: some after a while, while a session opens and replays, most after some events."""
        if rng.random() < 0.3:
            time.sleep(opening * rng.random())
            return
        goal = rng.randrange(1, 150) + (0 if self.record is None else len(self.record.events))
        while process.status() != psutil.STATUS_ZOMBIE and count_events(self.spec["store"]) < goal:
            time.sleep(0.002)
        time.sleep(0.005 * rng.random())

    def next_proposals(self) -> Any:
        """What its searcher would propose next."""
        self.driver.run({**self.spec, "peek": True})
        return json.loads((self.folder / "proposals.json").read_text())


def expected(driver: Driver, spec: dict[str, Any], folder: Path) -> Search:
    """The same search, which nothing happens to."""
    folder.mkdir()
    search = Search(driver, {**spec, "folder": str(folder), "store": f"sqlite:///{folder}/runs.db", "artifacts": None})
    search.finish()
    return search


def assert_same(search: Search, record: Record, other: Search) -> None:
    """The two came to the same, and would go on in the same way."""
    assert other.record is not None
    assert record.answer == other.record.answer
    assert search.next_proposals() == other.next_proposals()


# --- the driver killed --------------------------------------------------------------------------------------------------

SEARCHERS = ("reinforce", "evolution", "asha", "q-learning", "ppo", "random")


def kill_the_driver(
    driver: Driver, folder: Path, seed: int, kills: int, store: Callable[[Path], str], searcher: str, trials: int = 300
) -> Tally:
    """A search in one process, killed again and again at random moments; its answer is as without."""
    rng, began = random.Random(seed), time.monotonic()
    spec = {"searcher": searcher, "executor": "here", "seed": seed, "trials": trials}
    reference = expected(driver, spec, folder / "whole")
    search = Search(driver, {**spec, "folder": str(folder), "store": store(folder)})
    for _ in range(kills):
        pid = driver.begin(search.spec)
        search.wait(rng, psutil.Process(pid))
        os.kill(pid, signal.SIGKILL)
        status = driver.ended()
        assert status in (-signal.SIGKILL, 0), (folder / "said").read_text()
        search.tally.faults += 1
        record = search.look()
        if record is not None and record.is_full:  # another search of the same: a finished one has nothing to lose
            assert_same(search, search.finish(), reference)
            search = Search(driver, {**search.spec, "store": store(folder)}, search.tally)
    assert_same(search, search.finish(), reference)
    search.tally.seconds += time.monotonic() - began
    return search.tally


# --- workers killed, and the driver of a pool -----------------------------------------------------------------------------


def right_rewards(record: Record) -> None:
    """Each trial that is done has the reward of its own genotype and seed: no result was taken for another's."""
    import fault_driver
    from archsmith.core.executor import derive_seed
    from archsmith.core.genotype import Genotype
    from fault_children import HEIGHTS

    class Context:
        seed = 0

    space = fault_driver.SPACE
    identity = json.loads(record.spaces[0]["identity"])
    for number, answers, state, reward in record.answer:
        if state == "done":
            context = Context()
            seed = json.loads(record.run["config"])["seed"]
            context.seed = derive_seed(seed, "trial", number)
            height = HEIGHTS.evaluate(space, Genotype(identity, json.loads(answers)), context).metrics["value"]  # type: ignore[arg-type]
            copied = record.results[number]["result"]["copied_from"]
            assert copied is not None or abs(reward - height * (1 - 4.0**-1)) < 1e-12, (
                f"trial {number} has another's reward"
            )  # type: ignore[operator]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Processes that belonged to a killed driver end by themselves."""
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, f"process {process.pid} is still there"
                time.sleep(0.02)


def kill_around_a_pool(
    driver: Driver, folder: Path, seed: int, kills: int, store: Callable[[Path], str], *, of: str, trials: int = 200
) -> Tally:
    """A search whose children run in a pool of processes. `of`: "driver", or "worker", one of its processes at a time."""
    rng, began = random.Random(seed), time.monotonic()
    spec = {"searcher": "reinforce", "executor": "pool", "seed": seed, "trials": trials, "steps": True, "seconds": 0.02}
    search = Search(driver, {**spec, "folder": str(folder), "store": store(folder)})
    while search.tally.faults < kills:
        pid = driver.begin(search.spec)
        process = psutil.Process(pid)
        if of == "driver":
            search.wait(rng, process)
            workers = _children(process)
            os.kill(pid, signal.SIGKILL)
            status = driver.ended()
            assert status in (-signal.SIGKILL, 0), (folder / "said").read_text()
            wait_until_gone(workers)
            search.tally.faults += 1
        else:
            while search.tally.faults < kills:
                time.sleep(rng.choice((0.3, 1.5)) * rng.random())
                workers = _children(process)
                if process.status() == psutil.STATUS_ZOMBIE:
                    break
                if workers:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        rng.choice(workers).kill()
                        search.tally.faults += 1
            status = driver.ended()
            assert status == 0, (folder / "said").read_text()
        record = search.look()
        if record is not None and record.is_full:
            right_rewards(search.finish())
            search = Search(driver, {**search.spec, "store": store(folder)}, search.tally)
    right_rewards(search.finish())
    search.tally.seconds += time.monotonic() - began
    return search.tally


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def kill_around_ray(
    driver: Driver, folder: Path, seed: int, kills: int, store: Callable[[Path], str], machines: Any, *, of: str
) -> Tally:
    """A search on a Ray cluster of some machines. `of`: "driver", "worker" or "machine", which is replaced by a new one."""
    rng, began = random.Random(seed), time.monotonic()
    spec = {"searcher": "reinforce", "executor": "ray", "address": machines.address, "workers": len(machines.nodes)}
    spec |= {"seed": seed, "trials": 150, "steps": True, "seconds": 0.05, "busy": str(folder / "busy")}
    search = Search(driver, {**spec, "folder": str(folder), "store": store(folder)})
    while search.tally.faults < kills:
        process = psutil.Process(driver.begin(search.spec))
        while search.tally.faults < kills and process.status() != psutil.STATUS_ZOMBIE:
            if of == "driver":
                search.wait(rng, process, opening=6.0)
                process.kill()
                search.tally.faults += 1
                break
            time.sleep((4.0 if of == "machine" else 0.6) * rng.random())
            if search.look() is None:  # it has yet to join
                continue
            if of == "machine":
                machines.lose(rng.choice(machines.nodes))
                machines.add()
                search.tally.faults += 1
            elif busy := _busy(search.spec["busy"]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(busy).kill()
                    search.tally.faults += 1
        status = driver.ended()
        assert status == 0 or (of == "driver" and status == -signal.SIGKILL), (folder / "said").read_text()
        record = search.look()
        if record is not None and record.is_full:
            right_rewards(search.finish())
            search = Search(driver, {**search.spec, "store": store(folder)}, search.tally)
    right_rewards(search.finish())
    search.tally.seconds += time.monotonic() - began
    return search.tally


def _busy(folder: str) -> list[psutil.Process]:
    """The processes of Ray that train a child of this search right now."""
    found = []
    for file in Path(folder).glob("*"):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(file.name))
            if process.name().startswith("ray::"):
                found.append(process)
    return found


# --- what is beneath a search fails -----------------------------------------------------------------------------------------


def shake_postgres(
    driver: Driver, folder: Path, seed: int, faults: int, server: Any, *, how: str, trials: int = 600
) -> Tally:
    """The server under a search is restarted at once, or its connections are ended; the search notices nothing."""
    rng, began = random.Random(seed), time.monotonic()
    spec = {
        "searcher": "reinforce",
        "executor": "here",
        "seed": seed,
        "trials": trials,
        "steps": True,
        "seconds": 0.005,
    }
    reference = expected(driver, {**spec, "seconds": 0.0}, folder / "whole")
    search = Search(driver, {**spec, "folder": str(folder), "store": server.fresh()})
    while search.tally.faults < faults:
        process = psutil.Process(driver.begin(search.spec))
        while search.tally.faults < faults and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5 * rng.random())
            if search.look() is None:  # a server that has not answered yet is not waited for: its address may be wrong
                continue
            if how == "restart":
                server.restart("immediate")
            else:
                server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            search.tally.faults += 1
            search.look()
        status = driver.ended()
        assert status == 0, (folder / "said").read_text()
        assert_same(search, search.finish(), reference)
        search = Search(driver, {**search.spec, "store": server.fresh()}, search.tally)
    search.tally.seconds += time.monotonic() - began
    return search.tally


def fill_the_disk(driver: Driver, folder: Path, seed: int, faults: int, *, mounted: bool = False) -> Tally:
    """The disk is full, again and again; a search says so, keeps what it has and goes on when there is space.

    Either files may not grow beyond a size, or, `mounted`, the store is on a small file system of its own in memory,
    which only root can make.
    """
    rng, began = random.Random(seed), time.monotonic()
    spec = {"searcher": "reinforce", "executor": "here", "seed": seed, "trials": 300}
    reference = expected(driver, spec, folder / "whole")
    disk, size = folder / "disk", 400_000
    disk.mkdir()
    search = Search(driver, {**spec, "folder": str(folder), "store": f"sqlite:///{disk}/runs.db"})
    with _mount(disk) if mounted else contextlib.nullcontext() as resize:
        for _ in range(faults):
            space = size + rng.randrange(400_000)
            if resize is not None:
                resize(shutil.disk_usage(disk).used + space)
            driver.begin(search.spec if mounted else {**search.spec, "file_size": space})
            status, said = driver.ended(), folder / "said"
            if status == 0:
                break
            assert status == 1, said.read_text()
            assert "full" in said.read_text(), said.read_text()
            search.tally.faults += 1
            search.look()
            size += 20_000
        if resize is not None:
            resize(100_000_000)
        assert_same(search, search.finish(), reference)
    search.tally.seconds += time.monotonic() - began
    return search.tally


@contextlib.contextmanager
def _mount(folder: Path) -> Iterator[Callable[[int], object]]:
    """A file system in memory at a folder; gives what sets its size."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)

    mount("size=100k")
    try:
        yield lambda size: mount(f"remount,size={size}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def lock_the_store(driver: Driver, folder: Path, seed: int, faults: int) -> Tally:
    """Another program holds the database for moments; the search waits, and notices nothing else."""
    import sqlite3

    rng, began = random.Random(seed), time.monotonic()
    spec = {"searcher": "reinforce", "executor": "here", "seed": seed, "trials": 400}
    reference = expected(driver, spec, folder / "whole")
    search = Search(driver, {**spec, "folder": str(folder), "store": f"sqlite:///{folder}/runs.db"})
    while search.tally.faults < faults:
        process = psutil.Process(driver.begin(search.spec))
        while search.tally.faults < faults and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1 * rng.random())
            if not (folder / "runs.db").exists():
                continue
            with contextlib.closing(sqlite3.connect(folder / "runs.db", isolation_level=None, timeout=10)) as other:
                other.execute("BEGIN IMMEDIATE")
                time.sleep(0.2 * rng.random())
                other.execute("ROLLBACK")
            search.tally.faults += 1
        status = driver.ended()
        assert status == 0, (folder / "said").read_text()
        assert_same(search, search.finish(), reference)
        for file in folder.glob("runs.db*"):
            file.unlink()
        search = Search(driver, search.spec, search.tally)
    search.tally.seconds += time.monotonic() - began
    return search.tally


def jump_the_clock(
    driver: Driver, folder: Path, seed: int, sessions: int, store: Callable[[Path], str], *, executor: str = "here"
) -> Tally:
    """The wall clock jumps by days at every look; only the run's own clock counts, and that does not."""
    rng, began = random.Random(seed), time.monotonic()
    spec = {"searcher": "reinforce", "executor": executor, "seed": seed, "trials": 200, "steps": True}
    reference = expected(driver, {**spec, "executor": "here"}, folder / "whole")
    search = Search(driver, {**spec, "folder": str(folder), "store": store(folder), "clock": seed + 1})
    for _ in range(sessions):
        pid = driver.begin(search.spec)
        search.wait(rng, psutil.Process(pid))
        os.kill(pid, signal.SIGKILL)
        status = driver.ended()
        assert status in (-signal.SIGKILL, 0), (folder / "said").read_text()
        search.tally.faults += 1
        search.look()
    driver.run(search.spec)  # to its end, with a clock that jumps
    record = search.finish()
    assert record.run["seconds"] < time.monotonic() - began, "the run's clock went by the wall's"
    if executor == "here":
        assert_same(search, record, reference)
    search.tally.seconds += time.monotonic() - began
    return search.tally


def take_the_weights_away(driver: Driver, folder: Path, seed: int, faults: int, server: Any, address: str) -> Tally:
    """The S3 server is away for moments while children keep their weights there; all are there in the end."""
    from archsmith.core.artifacts import open_artifacts

    rng, began = random.Random(seed), time.monotonic()
    store = f"sqlite:///{folder}/runs.db"
    spec = {"searcher": "random", "executor": "here", "seed": seed, "trials": 60, "steps": True, "seconds": 0.01}
    search = Search(driver, {**spec, "folder": str(folder), "store": store, "keep": True, "artifacts": address})
    process = psutil.Process(driver.begin(search.spec))
    while search.tally.faults < faults and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(rng.random())
        server.stop()
        time.sleep(rng.random())
        server.start()
        search.tally.faults += 1
    status = driver.ended()
    assert status == 0, (folder / "said").read_text()
    record = search.finish()
    assert {state for _, _, state, _ in record.answer} == {"done"}
    weights = open_artifacts(address)
    for number, outcome in record.results.items():
        result = outcome["result"]
        kept = record.results[result["copied_from"]]["result"] if result["copied_from"] is not None else result
        height = weights.get(kept["artifact"])["height"]
        assert abs(float(height[0]) * 0.75 - outcome["reward"]) < 1e-12, number
    search.tally.seconds += time.monotonic() - began
    return search.tally


# --- children that misbehave ------------------------------------------------------------------------------------------------


def bear_with_children(folder: Path, seed: int, *, in_process: bool = False) -> Tally:
    """A search whose every second child does something that no child should; the others never notice."""
    import archsmith as smith
    from archsmith.core.evaluator import Limits
    from archsmith.executors import InProcess, ProcessPool
    from fault_children import DEEDS, HARMLESS_IN_PROCESS, Misbehaving, trial_numbers

    began, me = time.monotonic(), psutil.Process()
    deeds = list(HARMLESS_IN_PROCESS if in_process else DEEDS)
    random.Random(seed).shuffle(deeds)
    before = {child.pid for child in me.children(recursive=True)}
    where = os.getcwd(), os.umask(0o022)
    os.umask(0o022)
    limits = Limits(seconds=4.0, memory_bytes=300 * 2**20)
    store = f"sqlite:///{folder}/runs.db"
    executor: Any = InProcess() if in_process else ProcessPool(2, retries=0, kill_grace=0.5)
    try:
        smith.search(
            trial_numbers(2 * len(deeds)),
            Misbehaving(tuple(deeds)),
            searcher=smith.searchers.Exhaustive(),
            executor=executor,
            store=store,
            name="r",
            seed=seed,
            trials=2 * len(deeds),
            limits=limits,
        )
    finally:
        os.chdir(where[0])
        os.umask(where[1])
    record = read_record(store)
    assert record is not None
    check(record)
    assert record.is_full
    for number, answers, state, _ in record.answer:
        index = json.loads(answers)["trial"]
        reason = None if index % 2 else DEEDS[deeds[index // 2]][1]
        failure = record.results[number]["result"]["failure"]
        deed = "a good child" if index % 2 else deeds[index // 2]
        found = None if failure is None else failure["reason"]
        assert (state, found) == ("done" if reason is None else "failed", reason), (deed, state, failure)
    if not in_process:
        left = [child for child in me.children(recursive=True) if child.pid not in before]
        wait_until_gone(left)
    else:
        for child in me.children(recursive=True):
            if child.pid not in before:
                child.kill()
                child.wait()
    return Tally(len(deeds), len(record.trials), 0, 0, time.monotonic() - began)
