"""What was recorded stays recorded: kills at any moment, a full disk, a locked file, writers side by side."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archsmith.core.errors import RunLocked, StoreError
from archsmith.core.store import Asked, Told
from archsmith.core.trial import Result, Trial, TrialState
from archsmith.store import SQLStore, open_store
from archsmith.testing.store import done, proposal, with_trials

HELPERS = """
import os, sys
from dataclasses import replace
from archsmith.core.errors import RunExists, RunLocked, StoreError, UnknownName
from archsmith.core.genotype import Genotype
from archsmith.core.trial import Cost, Proposal, Result, TrialState
from archsmith.store import open_store

def proposal(i):
    return Proposal(Genotype({"name": "Faults"}, {"size": i}))

def done(trial, reward):
    return replace(trial, state=TrialState.DONE, reward=reward, result=Result({"accuracy": reward}, cost=Cost(1.0, 1.0)))

def with_trials(run, rewards):
    for reward in rewards:
        [trial] = run.propose([proposal(0)])
        run.start(trial.number)
        run.finish([done(trial, reward)])
    return run
"""  # archsmith.testing has the same, and takes longer to import

WRITER = """

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def finish(run, batch):
    for trial in batch:
        run.start(trial.number)
    last = batch[-1].number
    run.finish([done(t, (t.number * 7919 % 1000) / 1000) for t in batch], snapshot={"told": last} if last % 5 == 0 else None)
    say("told", *[t.number for t in batch])

store = open_store(sys.argv[1])
try:
    run = store.write("a")
except UnknownName:
    run = store.create("a", {})
say("open")
for trial in run.unfinished():
    finish(run, [trial])
while True:
    batch = run.propose([proposal(i) for i in range(3)])
    say("asked", *[t.number for t in batch])
    finish(run, batch[:1])
    finish(run, batch[1:])
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HELPERS + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check_record(path: Path, asked: set[int], told: set[int]) -> None:
    """All that was acknowledged is there, once; the log, the trials and the summary say the same."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        log = connection.execute("SELECT seq, kind, trial, at, payload FROM events ORDER BY seq").fetchall()
    assert [row[0] for row in log] == list(range(1, len(log) + 1))
    assert [row[3] for row in log] == sorted(row[3] for row in log), "the run's clock never goes back"
    in_log = {kind: [row[2] for row in log if row[1] == kind] for kind in ("asked", "told")}
    assert in_log["asked"] == list(range(len(in_log["asked"]))), "numbered as they were asked for"
    assert max(Counter(in_log["told"]).values(), default=0) <= 1, "none told twice"
    assert asked <= set(in_log["asked"])
    assert told <= set(in_log["told"])
    rewards = {row[2]: json.loads(row[4])["reward"] for row in log if row[1] == "told"}

    store = open_store(path)
    reader, summary = store.read("a"), store.read("a").summary()
    trials = list(reader.trials())
    assert [t.number for t in trials] == in_log["asked"]
    assert {t.number: t.reward for t in trials if t.state is TrialState.DONE} == rewards
    assert {state: n for state, n in summary.counts.items() if n} == Counter(t.state.value for t in trials)
    assert summary.status == "interrupted"
    best = min(rewards, key=lambda n: (-rewards[n], n), default=None)
    assert summary.best == best
    assert [t.number for t in reader.top(1)] == ([] if best is None else [best])

    run = store.write("a")
    state, tail = run.snapshot(), run.tail()
    since = 0 if state is None else next(row[0] for row in log if row[1] == "told" and row[2] == state["told"])
    expected = [(row[1], row[2]) for row in log if row[0] > since and row[1] in ("asked", "told")]
    assert [("asked" if isinstance(e, Asked) else "told", n) for e in tail for n in e.trials] == expected
    assert [t.number for t in run.unfinished()] == [t.number for t in trials if not t.state.is_finished]
    assert all(t.state is TrialState.PROPOSED for t in run.unfinished())
    run.close()


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments_lose_nothing(tmp_path: Path, seed: int) -> None:
    path, rng = tmp_path / "runs.db", random.Random(seed)
    asked: set[int] = set()
    told: set[int] = set()
    for _ in range(10):
        writer = start(WRITER, path)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        lines = [writer.stdout.readline() for _ in range(rng.randrange(16))]
        time.sleep(rng.choice([0, 0.001, 0.01]) * rng.random())
        writer.kill()
        for line in [*lines, *writer.stdout]:  # also what it said before it died
            if line.endswith("\n"):
                (asked if line.startswith("asked") else told).update(map(int, line.split()[1:]))
        writer.wait()
        check_record(path, asked, told)
    assert len(told) > 40


def test_kills_while_a_store_is_made(tmp_path: Path) -> None:
    rng = random.Random(0)
    for i in range(4):
        path = tmp_path / f"{i}.db"
        writer = start(WRITER, path)
        while not path.exists():
            time.sleep(0.0005)
        time.sleep(0.03 * rng.random())
        writer.kill()
        writer.wait()
        assert len(open_store(path).runs()) <= 1
        store = open_store(path)
        run = store.write("a") if store.runs() else store.create("a", {})
        before = sum(run.summary().counts.values())
        with_trials(run, [1.0]).close("finished")
        assert open_store(path).read("a").summary().counts["done"] >= 1
        assert open_store(path).read("a").trial(before).reward == 1.0


def test_a_killed_writer_lets_the_run_go_though_its_children_live(tmp_path: Path) -> None:
    code = """
import time
run = open_store(sys.argv[1]).create("a", {})
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("open", flush=True)
time.sleep(60)
"""
    path = tmp_path / "runs.db"
    command = [sys.executable, "-c", HELPERS + code, str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    try:
        assert open_store(path).runs()[0].status == "running"
        with pytest.raises(RunLocked, match=rf"process {writer.pid} on .*since 20.*Ctrl-C"):
            open_store(path).write("a")
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert open_store(path).runs()[0].status == "interrupted"
        open_store(path).write("a").close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(writer.pid, signal.SIGKILL)


def test_a_reader_in_another_process_follows(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    writer = start(WRITER, path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    try:
        reader, seen = open_store(path).read("a"), []
        for _ in range(30):
            writer.stdout.readline()
            summary = reader.summary()
            seen.append(sum(summary.counts.values()))
            trials = list(reader.trials())
            assert len(trials) >= seen[-1]
            assert len(reader.top(3)) >= min(3, summary.counts["done"])
            assert summary.status == "running"
        assert seen == sorted(seen)
        assert seen[-1] > seen[0]
    finally:
        writer.kill()
        writer.communicate()


def test_the_command_line_looks_while_a_run_is_written(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    writer = start(WRITER, path)
    assert writer.stdout is not None
    try:
        for _ in range(20):
            assert writer.stdout.readline()
        command = [sys.executable, "-m", "archsmith", "list", "--json", "--store", str(path)]
        listing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        written = 0
        while listing.poll() is None:
            assert writer.stdout.readline()
            written += 1
        said, errors = listing.communicate()
    finally:
        writer.kill()
        writer.communicate()
    assert (listing.returncode, errors) == (0, "")
    [run] = json.loads(said)
    assert (run["name"], run["status"]) == ("a", "running")
    assert written > 10


def test_a_writer_whose_lock_file_is_gone_is_fenced_off(tmp_path: Path) -> None:
    """A file system that forgets locks, or a person who removes their files: the token in the run's row still tells."""
    path = tmp_path / "runs.db"
    first = with_trials(open_store(path).create("a", {}), [0.5])
    for lock in tmp_path.glob("*.lock"):
        lock.unlink()
    second = with_trials(open_store(path).write("a"), [0.75])
    acts: list[Any] = [
        lambda: first.propose([proposal(1)]),
        lambda: first.put_document("x", 1),
        lambda: first.close("finished"),
    ]
    for act in acts:
        with pytest.raises(RunLocked, match=r"run 'a' was taken over by process .*this was not recorded"):
            act()
    assert [t.reward for t in second.trials()] == [0.5, 0.75]
    second.close()


def test_processes_that_make_one_store_at_once(tmp_path: Path) -> None:
    code = """
sys.stdin.readline()
with_trials(open_store(sys.argv[1]).create(sys.argv[2], {}), [0.1] * 20).close("finished")
try:
    open_store(sys.argv[1]).create("the same", {})
    print("made")
except (RunExists, RunLocked) as error:
    print(type(error).__name__)
"""
    path = tmp_path / "runs.db"
    command = [sys.executable, "-c", HELPERS + code, str(path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, f"run {i}"], **pipes) for i in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].strip() for process in processes]
    assert sorted(said)[-1] == "made"
    assert set(said) <= {"made", "RunExists", "RunLocked"}
    assert said.count("made") == 1
    runs = open_store(path).runs()
    assert sorted(run.name for run in runs) == ["run 0", "run 1", "run 2", "run 3", "the same"]
    assert [run.counts["done"] for run in runs if run.name != "the same"] == [20] * 4


# --- the disk ---------------------------------------------------------------------------------------------------------


def big(trial: Trial) -> Trial:
    """The trial as done, with a result that fills pages."""
    curve = [{"epoch": i, "x" * 50: 1.0} for i in range(1, 40)]
    return replace(done(trial, 0.1), result=Result({"accuracy": 0.1}, curve))


def test_a_full_database_keeps_what_it_has(tmp_path: Path) -> None:
    store = SQLStore(tmp_path / "runs.db")
    run = with_trials(store.create("a", {}), [0.5])
    connection = run._writing.connection  # type: ignore[attr-defined]  # SQLite's own limit stands in for the disk's
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    connection.rollback()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 3}")
    connection.rollback()
    recorded = [0]

    def record() -> None:
        for i in range(1, 100):
            [trial] = run.propose([proposal(i)])
            run.start(i)
            run.finish([big(trial)])
            recorded.append(i)

    with pytest.raises(StoreError, match=r"disk that holds .*runs\.db is full.*resume"):
        record()
    assert [t.number for t in run.trials() if t.state is TrialState.DONE] == recorded
    connection.exec_driver_sql("PRAGMA max_page_count = 100000")  # space was made
    connection.rollback()
    for trial in run.unfinished():
        run.start(trial.number)
        run.finish([done(trial, 0.9)])
    with_trials(run, [0.2])
    run.close("finished")
    summary = SQLStore(tmp_path / "runs.db").read("a").summary()
    assert summary.counts["done"] == sum(summary.counts.values()) > len(recorded)
    assert summary.status == "finished"


def test_a_disk_that_fills_up_under_a_run(tmp_path: Path) -> None:
    """The kernel refuses to let files grow: what SQLite sees then is a failing write."""
    path = tmp_path / "runs.db"
    code = """
run = open_store(sys.argv[1]).create("a", {})
try:
    for i in range(10_000):
        with_trials(run, [i / 10_000])
        print(i, flush=True)
except StoreError as error:
    print("refused:", error, flush=True)
try:
    run.close()
except StoreError as error:
    print("not closed:", error, flush=True)
"""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    command = [sys.executable, "-c", HELPERS + code, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    lines = said.stdout.splitlines()
    refused = next(i for i, line in enumerate(lines) if line.startswith("refused:"))
    assert "full" in lines[refused]
    assert said.stderr == ""
    assert refused > 5
    store = open_store(path)
    assert [t.reward for t in store.read("a").trials() if t.state is TrialState.DONE] == [
        i / 10_000 for i in range(refused)
    ]
    run = store.write("a")  # there is space again
    for trial in run.unfinished():
        run.start(trial.number)
        run.finish([done(trial, 0.0)])
    with_trials(run, [1.0]).close("finished")


def test_a_lock_that_stays_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    run = with_trials(SQLStore(path, busy_seconds=0.1).create("a", {}), [0.5])
    [trial] = run.propose([proposal(1)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for act in (
            lambda: run.start(1),
            lambda: run.propose([proposal(2)]),
            lambda: run.put_document("x", 1),
            lambda: SQLStore(path, busy_seconds=0.1).create("b", {}),
        ):
            with pytest.raises(StoreError, match=r"stayed locked by another process for 0\.1 seconds"):
                act()
        assert run.trial(1).state is TrialState.PROPOSED, "reading goes on"
        other.execute("ROLLBACK")
    run.start(1)  # and so does the same writer
    run.finish([done(trial, 0.75)])
    assert [t.number for t in run.propose([proposal(2)])] == [2]
    assert run.tail() == [Asked((0,)), Told((0,)), Asked((1,)), Told((1,)), Asked((2,))]
    assert run.summary().counts == {"proposed": 1, "running": 0, "done": 2, "failed": 0, "stopped": 0, "paused": 0}
    run.close()
