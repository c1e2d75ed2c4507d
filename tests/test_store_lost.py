"""A store whose file is deleted, moved, replaced or written over while it is written: told within one trial, and saved."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import archsmith as smith
from archsmith.core.errors import CorruptStore, StoreError, StoreLost
from archsmith.core.genotype import Genotype
from archsmith.core.store import RunWriter
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.store import open_store
from archsmith.testing.store import done, proposal, with_trials
from test_store_faults import HELPERS

posix = pytest.mark.skipif(os.name != "posix", reason="Windows lets no open file be deleted")
pytestmark = posix


def run(*command: object) -> None:
    """In another process: to open and close a file in this one would drop SQLite's locks on it."""
    subprocess.run([str(part) for part in command], check=True)


def rewards(path: Path) -> list[float | None]:
    return [trial.reward for trial in open_store(f"sqlite:///{path}").read("a").trials()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with_trials(open_store(tmp_path / "other.db").create("b", {}), [9.0]).close("finished")
    with_trials(open_store(tmp_path / "runs.db").create("first", {}), [1.0, 2.0]).close("finished")
    gc.collect()  # no connection is left open
    return tmp_path / "runs.db"


def begun(path: Path) -> tuple[RunWriter, Trial]:
    """A run with a trial on record, and one that is running."""
    writer = with_trials(open_store(path).create("a", {}), [0.5])
    [trial] = writer.propose([proposal(1)])
    return writer, writer.start(trial.number)


def told(writer: RunWriter, trial: Trial) -> str:
    """The error that recording a result gives; nothing is written any more then, and closing says the same."""
    with pytest.raises(StoreLost) as caught:
        writer.finish([done(trial, 0.75)])
    for act in (lambda: writer.propose([proposal(2)]), lambda: writer.put_document("x", 1), writer.close):
        with pytest.raises(StoreLost) as again:
            act()
        assert str(again.value) == str(caught.value)
    return str(caught.value)


AWAY: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "all deleted": lambda path: [file.unlink() for file in path.parent.glob("runs.db*")],
    "replaced by another store": lambda path: (path.parent / "other.db").rename(path),
    "replaced by a folder": lambda path: (path.unlink(), path.mkdir()),
    "deleted and made anew": lambda path: (path.unlink(), open_store(path).create("new", {}).close()),
    "moved to another file system": lambda path: shutil.move(path, "/dev/shm/archsmith-moved.db"),
}


@pytest.mark.parametrize("what", AWAY)
def test_what_was_recorded_is_saved_with_the_result_that_found_out(path: Path, what: str) -> None:
    writer, trial = begun(path)
    weights = open_store(path).artifacts
    AWAY[what](path)
    message = told(writer, trial)
    saved = path.with_name("runs.rescued")
    assert f"the store {path} was " in message
    assert f"All that was recorded is saved in {saved}: " in message
    assert [file.name for file in path.parent.glob("*.rescued*")] == [saved.name]
    assert rewards(saved) == [0.5, 0.75]
    assert open_store(f"sqlite:///{saved}").artifacts == weights, "its weights are where they were"
    if path.exists():
        assert f"resume from there: --store sqlite:///{saved}" in message
        resumed = open_store(f"sqlite:///{saved}").write("a")
    else:
        assert f"move it to {path}, then resume" in message
        saved.rename(path)
        assert [run.name for run in open_store(path).runs()] == ["a", "first"]
        resumed = open_store(path).write("a")
    with_trials(resumed, [1.0]).close("finished")
    Path("/dev/shm/archsmith-moved.db").unlink(missing_ok=True)


def test_the_new_store_in_its_place_is_unharmed(path: Path) -> None:
    writer, trial = begun(path)
    path.unlink()
    other = with_trials(open_store(path).create("new", {}), [3.0])
    told(writer, trial)
    with_trials(other, [4.0]).close("finished")
    assert [(run.name, run.counts["done"]) for run in open_store(path).runs()] == [("new", 2)]
    assert rewards(path.with_name("runs.rescued")) == [0.5, 0.75]


@pytest.mark.parametrize("folder", [False, True])
def test_a_store_that_is_moved_has_it_all(path: Path, folder: bool) -> None:
    writer, trial = begun(path)
    path.with_suffix(".artifacts").mkdir()
    if folder:
        moved = Path(path.parent.rename(f"{path.parent}-moved")) / path.name
    else:
        moved = path.rename(path.with_name("moved here.db"))
        path.symlink_to(moved)  # which SQLite would read with another log
    message = told(writer, trial)
    assert f"was moved to {moved} while it was written" in message
    assert ("Move its weights along" in message) == (not folder)
    assert "--store 'sqlite:" in message or " " not in str(moved)
    assert rewards(moved) == [0.5, 0.75]
    assert not list(moved.parent.glob("*.rescued*"))
    with_trials(open_store(moved).write("a"), [1.0]).close("finished")


OVER: dict[str, Callable[[Path], object]] = {
    "another store": lambda path: run("cp", path.with_name("other.db"), path),
    "another store with its times": lambda path: run("cp", "-p", path.with_name("other.db"), path),
    "nothing": lambda path: run("truncate", "-s", "0", path),
    "the half of it": lambda path: run("truncate", "-s", "8192", path),
    "a text": lambda path: run("sh", "-c", f"yes no database | head -c 7000 > '{path}'"),
}


@pytest.mark.parametrize("what", OVER)
def test_a_store_that_is_written_over(path: Path, what: str) -> None:
    writer, trial = begun(path)
    OVER[what](path)
    run("cp", path, path.with_name("as it was"))
    message = told(writer, trial)
    assert f"the store {path} was written over by another file" in message
    saved = path.with_name("runs.rescued")
    if saved.exists():  # as long as it is small, SQLite has all of it in memory
        assert f"saved in {saved}: resume from there" in message
        assert rewards(saved) == [0.5, 0.75]
    else:
        assert "What was recorded is lost: restore a copy of the store" in message
    assert path.read_bytes() == path.with_name("as it was").read_bytes(), "what another wrote there is left alone"


def checkpoint(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0] == 0


def test_an_older_copy_of_the_same_store_is_noticed(path: Path) -> None:
    writer, trial = begun(path)
    checkpoint(path)
    run("cp", path, path.with_name("backup"))
    with_trials(writer, [0.1] * 5)
    checkpoint(path)
    with_trials(writer, [0.2])
    run("cp", path.with_name("backup"), path)
    assert "was written over" in told(writer, trial)


SAME: dict[str, Callable[[Path], object]] = {
    "a checkpoint": checkpoint,
    "new times": lambda path: os.utime(path),
    "other rights": lambda path: path.chmod(0o640),
    "vacuum": lambda path: run(
        sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(path)!r}).execute('VACUUM')"
    ),
    "another run": lambda path: with_trials(open_store(path).create("c", {}), [1.0] * 50).close(),
    "a run deleted": lambda path: open_store(path).delete("first"),
    "a backup": lambda path: run("cp", path, path.with_name("backup")),
    "its own content": lambda path: (checkpoint(path), run("cp", path, f"{path}.1"), run("cp", f"{path}.1", path)),
    "a link to its folder": lambda path: (
        path.parent.rename(f"{path.parent}-1"),
        path.parent.symlink_to(f"{path.parent}-1"),
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_what_others_may_do_meanwhile(path: Path, what: str) -> None:
    writer, trial = begun(path)
    SAME[what](path)
    writer.finish([done(trial, 0.75)])
    checkpoint(path)
    with_trials(writer, [1.0]).close("finished")
    assert rewards(path) == [0.5, 0.75, 1.0]


def pick(choose: Any) -> Any:
    return [choose(f"{i}.units", (8, 16, 32)) for i in range(4)]


@pytest.mark.parametrize("what", ["deleted", "all deleted", "replaced by another store"])
def test_a_search_ends_within_one_trial_and_goes_on_from_what_was_saved(path: Path, what: str) -> None:
    seen: list[int] = []

    def watch(event: Any) -> None:
        if isinstance(event, Trial) and event.state is TrialState.DONE:
            seen.append(event.number)
            if event.number == 4:
                AWAY[what](path)

    with pytest.raises(StoreLost, match=r"saved in .*runs\.rescued: (move it|resume)"):
        smith.search(pick, sum, trials=500, store=path, name="a", watch=watch)
    assert seen == [0, 1, 2, 3, 4]
    saved = f"sqlite:///{path.with_name('runs.rescued')}"
    before = [trial.reward for trial in smith.open_run(saved, "a").trials() if trial.state is TrialState.DONE]
    run = smith.open_run(saved, "a").resume(trials=8, space=pick, evaluator=sum)
    whole = smith.search(pick, sum, trials=8, store="memory://")
    assert [trial.reward for trial in run.trials()] == [trial.reward for trial in whole.trials()]
    assert len(before) >= 5


def test_a_reader_does_not_take_one_store_for_another(path: Path) -> None:
    store = open_store(path)
    reader = store.read("first")
    assert reader.summary().counts["done"] == 2
    path.with_name("other.db").rename(path)
    for act in (reader.summary, lambda: reader.trial(0), lambda: list(reader.trials()), lambda: reader.top(1)):
        with pytest.raises(StoreError, match=r"was replaced by another one after run 'first' was opened; open the run"):
            act()
    assert [run.name for run in store.runs()] == ["b"], "the store itself is what is there now"
    path.unlink()
    with pytest.raises(StoreError, match=r"runs\.db"):
        reader.summary()
    assert store.runs() == []


KILLED = """
run = with_trials(open_store(sys.argv[1]).create("a", {}), [0.5])
if len(sys.argv) > 2:
    os.system(f"cp '{sys.argv[1]}' '{sys.argv[2]}'")
    with_trials(run, [0.25] * 500)  # the log is begun anew on the way
os._exit(9)
"""


def killed(path: Path, *backup: Path) -> None:
    """A search that is killed, and leaves a log behind."""
    subprocess.run([sys.executable, "-c", HELPERS + KILLED, str(path), *map(str, backup)])
    assert path.with_name("runs.db-wal").stat().st_size > 0


@pytest.mark.parametrize("how", ["moved over", "copied over", "an older copy"])
def test_a_file_is_not_mixed_with_the_log_of_the_one_that_it_replaces(path: Path, how: str) -> None:
    backup = path.with_name("other.db")
    if how == "an older copy":
        backup = path.with_name("backup.db")
        killed(path, backup)
    else:
        killed(path)
    content = backup.read_bytes()
    if how == "moved over":
        backup.rename(path)
    else:
        path.write_bytes(content)
    acts: list[Callable[[], object]] = [
        lambda: open_store(path).runs(),
        lambda: open_store(path).write("a"),
        lambda: open_store(path).create("c", {}),
    ]
    for act in acts:
        with pytest.raises(
            CorruptStore, match=r"runs\.db-wal is not that of the store .*runs\.db-wal to runs\.db-wal\.old"
        ):
            act()
    assert path.read_bytes() == content, "nothing was written to it"
    path.with_name("runs.db-wal").rename(path.with_name("runs.db-wal.old"))
    assert {run.name for run in open_store(path).runs()} <= {"a", "b", "first"}
    with_trials(open_store(path).create("c", {}), [1.0]).close("finished")


def test_the_log_of_a_killed_search_is_its_own(path: Path) -> None:
    killed(path, path.with_name("backup.db"))
    assert len(rewards(path)) == 501
    moved = Path(path.parent.rename(f"{path.parent}-moved")) / path.name
    assert len(rewards(moved)) == 501
    with_trials(open_store(moved).write("a"), [1.0]).close("finished")


def test_the_log_of_a_store_that_is_gone_is_no_part_of_a_new_one(path: Path) -> None:
    killed(path)
    kept = path.rename(path.with_name("kept.db"))
    with pytest.warns(UserWarning, match=r"is kept as .*runs\.db-wal\.old-1"):
        with_trials(open_store(path).create("new", {}), [1.0]).close("finished")
    assert [run.name for run in open_store(path).runs()] == ["new"]
    path.with_name("runs.db-wal.old-1").rename(path.with_name("kept.db-wal"))
    assert rewards(kept) == [0.5], "whoever moved the store may move its log along"


def test_a_reader_that_keeps_checkpoints_from_being_completed_raises_no_alarm(path: Path) -> None:
    """The file is then inconsistent without its log, and for as long as nobody writes it stays so."""
    writer = open_store(path).create("a", {})

    def write(trials: int) -> None:
        writer.propose([Proposal(Genotype({"name": "Space"}, {"text": f"{i}" + "x" * 900})) for i in range(trials)])

    for _ in range(40):
        write(20)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()  # the snapshot that it keeps
            for _ in range(60):
                write(2)
    assert sum(writer.summary().counts.values()) == 40 * (20 + 60 * 2)
    writer.close()
