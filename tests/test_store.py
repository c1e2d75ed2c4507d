"""Opening stores, what is said of those that cannot be opened, released files, and files from strangers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event

from archsmith.core.errors import ArchsmithError, CorruptStore, NewerStore, StoreError, UnknownName, UsageError
from archsmith.core.store import Asked, RunReader, Store, Told
from archsmith.core.trial import TrialState
from archsmith.store import MemoryStore, SQLStore, migrations, open_store
from archsmith.store.tables import metadata
from archsmith.testing.store import done, proposal, with_trials
from golden import make_store as golden

GOLDEN = Path(__file__).parent / "golden"


def read_all(store: Store) -> None:
    """Everything a reader can be asked."""
    for summary in store.runs():
        run = store.read(summary.name)
        run.summary()
        for trial in run.trials():
            run.trial(trial.number)
        run.top(10)
        run.learned()
        for key in run.documents():
            run.document(key)


def read_and_write_all(store: Store) -> None:
    read_all(store)
    for summary in store.runs():
        run = store.write(summary.name)
        try:
            run.snapshot()
            run.tail()
            run.unfinished()
            [trial] = run.propose([proposal(0)])
            run.start(trial.number)
            run.finish([done(trial, 0.5)])
        finally:
            run.close()


# --- opening ----------------------------------------------------------------------------------------------------------


def test_what_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for where in (
        "sqlite:///runs.db",
        "runs.db",
        Path("runs.db"),
        f"sqlite:///{tmp_path}/runs.db",
        str(tmp_path / "runs.db"),
    ):
        store = open_store(where)
        assert store.url == f"sqlite:///{tmp_path}/runs.db"
        assert store.artifacts == str(tmp_path / "runs.artifacts")
        assert open_store(store) is store
        assert open_store(store.url).url == store.url
    assert open_store("x.sqlite").artifacts == str(tmp_path / "x.artifacts")
    assert isinstance(open_store(None), MemoryStore)
    assert isinstance(open_store("memory://"), MemoryStore)
    assert open_store("memory://").artifacts is None
    assert list(tmp_path.iterdir()) == [], "opening makes nothing"


@pytest.mark.parametrize(
    "where",
    [
        "",
        "runs",
        "runs.txt",
        "mysql://x/y",
        "sqlite:runs.db",
        "sqlite://runs.db",
        "sqlite:///",
        ":memory:",
        3,
        ["runs.db"],
    ],
)
def test_what_does_not_open_is_told_what_would(where: Any) -> None:
    with pytest.raises(UsageError, match=r"sqlite:///runs\.db.*\.sqlite.*memory://"):
        open_store(where)


# --- where weights are ------------------------------------------------------------------------------------------------


def test_a_store_remembers_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    assert open_store(path, artifacts="s3://bucket/x/").artifacts == "s3://bucket/x"
    assert list(tmp_path.iterdir()) == []
    open_store(path, artifacts="s3://bucket/x/").create("a", {}).close()
    for again in (open_store(path), open_store(path, artifacts="s3://bucket/x"), SQLStore(path)):
        assert again.artifacts == "s3://bucket/x"
    other = open_store(path, artifacts="s3://bucket/y")
    for act in (lambda: other.artifacts, lambda: other.write("a"), lambda: other.create("b", {})):
        with pytest.raises(UsageError, match=r"keeps its weights in s3://bucket/x.*got artifacts='s3://bucket/y'"):
            act()
    assert [run.name for run in open_store(path).runs()] == ["a"]
    open_store(path).write("a").close()  # and the writer that was refused holds nothing

    monkeypatch.chdir(tmp_path)  # a folder is kept as it is seen from everywhere
    open_store("second.db", artifacts="weights").create("a", {}).close()
    monkeypatch.chdir("/")
    assert open_store(tmp_path / "second.db").artifacts == str(tmp_path / "weights")


def test_a_store_that_is_there_may_be_told_until_it_keeps_weights(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    open_store(path).create("a", {}).close()
    beside = Path(open_store(path).artifacts or "")
    beside.mkdir()
    assert open_store(path, artifacts=tmp_path / "elsewhere").artifacts == str(tmp_path / "elsewhere")
    (beside / f"{'0' * 64}.safetensors").touch()
    assert open_store(path, artifacts=beside).artifacts == str(beside)
    with pytest.raises(UsageError, match=r"keeps its weights in .*runs\.artifacts"):
        open_store(path, artifacts=tmp_path / "elsewhere").write("a")


def test_a_store_given_as_it_is_has_its_own_weights(tmp_path: Path) -> None:
    for store in (open_store(tmp_path / "runs.db"), open_store(None, artifacts="s3://bucket/x")):
        assert open_store(store, artifacts=store.artifacts) is store
        with pytest.raises(UsageError, match=r"the store that was given keeps its weights in .*s3://bucket/y"):
            open_store(store, artifacts="s3://bucket/y")
    assert open_store("memory://", artifacts="s3://bucket/x").artifacts == "s3://bucket/x"


@pytest.mark.parametrize("address", ["", "a\nb", 3, "s3://me:s3cret@host/x"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: Any) -> None:
    with pytest.raises((UsageError, TypeError)) as caught:
        open_store(tmp_path / "runs.db", artifacts=address)
    assert "s3cret" not in str(caught.value)


def test_passwords_are_not_recorded(tmp_path: Path) -> None:
    secret = {"command": "x --store 'postgresql://me:s3cret@h/d'", "deep": [{"url": "https://h/?password=s3cret&x=1"}]}
    for store in (open_store(tmp_path / "runs.db"), open_store(None)):
        run = store.create("a", secret)
        run.configure({"proxy": "http://me:s3c@ret@h"})
        run.close()
        config = store.read("a").summary().config
        assert config["command"] == "x --store 'postgresql://me:***@h/d'"
        assert config["deep"] == [{"url": "https://h/?password=***&x=1"}]
        assert config["proxy"] == "http://me:***@h"
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert "s3c" not in "".join(connection.iterdump())


def test_names_in_paths_that_mean_something_to_a_url(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#%41ü.db"
    with_trials(open_store(f"sqlite:///{path}").create("a", {}), [1.0]).close()
    assert path.exists()
    assert open_store(path).read("a").trial(0).reward == 1.0


def test_reading_makes_no_file(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs.db")
    assert store.runs() == []
    for method in (store.read, store.write, store.delete):
        with pytest.raises(UnknownName):
            method("a")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_and_a_folder_in_place_of_a_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the folder .*nowhere does not exist"):
        open_store(tmp_path / "nowhere" / "runs.db").create("a", {})
    (tmp_path / "folder.db").mkdir()
    for act in (lambda s: s.create("a", {}), lambda s: s.runs()):
        with pytest.raises(StoreError, match=r"folder\.db"):
            act(open_store(tmp_path / "folder.db"))


def test_an_empty_file_is_a_store_to_be(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.touch()
    assert open_store(path).runs() == []
    open_store(path).create("a", {}).close()
    assert [run.name for run in open_store(path).runs()] == ["a"]


def test_listing_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    with_trials(open_store(tmp_path / "runs.db").create("a", {}), [1.0]).close()
    code = (
        "import sys; from archsmith.store import open_store; s = open_store(sys.argv[1]); s.runs(); s.read('a').top(3);"
        "print({'torch', 'numpy', 'safetensors', 'filelock'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "runs.db")], text=True) == "set()\n"


def test_the_best_are_read_from_an_index(tmp_path: Path) -> None:
    store = SQLStore(tmp_path / "runs.db")
    run = with_trials(store.create("a", {}), [0.1, 0.2])
    asked: list[str] = []

    def hear(*about: Any) -> None:
        asked.append(about[2])

    event.listen(Engine, "before_cursor_execute", hear)
    run.top(1)
    event.remove(Engine, "before_cursor_execute", hear)
    run.close()
    [statement] = [s for s in asked if "ORDER BY trials.reward" in s]
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", [0] * statement.count("?"))]
    assert "trials_by_reward" in plan[0]
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in plan), plan


def test_the_clock_of_a_run_does_not_follow_the_clock_on_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_trials(open_store(tmp_path / "runs.db").create("a", {}), [1.0])
    before, really = run.elapsed(), time.time
    for jump in (-86400.0, +86400.0):
        monkeypatch.setattr(time, "time", lambda jump=jump: really() + jump)
        [trial] = run.propose([proposal(1)])
        assert before <= trial.proposed_at < before + 60
    run.close()
    assert before <= open_store(tmp_path / "runs.db").runs()[0].seconds < before + 60


# --- released files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("store-v*.db")), ids=lambda p: p.stem)
def test_every_released_file_opens(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    shutil.copy(file, path)
    store = open_store(path)
    content, version = path.read_bytes(), int(file.stem.removeprefix("store-v"))
    since_2 = [("paused", "interrupted")] if version >= 2 else []
    expected = [*since_2, ("empty", "finished"), ("golden", "interrupted")]
    assert [(run.name, run.status) for run in store.runs()] == expected
    run: RunReader = store.read("golden")
    assert run.summary().config == golden.CONFIG
    assert run.summary().counts == {"proposed": 1, "running": 1, "done": 2, "failed": 1, "stopped": 0, "paused": 0}
    trials = list(run.trials())
    assert [trial.genotype for trial in trials] == [golden.genotype(i) for i in (0, 1, 2, 3, 9)]
    assert [trial.result for trial in trials[:2]] == [golden.result(0), golden.result(1)]
    assert trials[2].result is not None
    assert trials[2].result.failure is not None
    assert trials[2].result.failure.reason == "diverged"
    assert trials[4].parent == 1
    assert [trial.number for trial in run.top(5)] == [1, 0]
    assert run.learned()[0].values["entropy"] == 1.25
    assert run.document("finish") == {"winner": 1, "test_accuracy": [0.9, 0.91]}
    if since_2:
        paused = [(t.state.value, t.attempts, t.replica, t.version) for t in store.read("paused").trials()]
        assert paused == [("paused", 1, 0, 7), ("running", 2, 1, 8), ("proposed", 0, 2, 9)]
        assert store.read("paused").trial(1).result == replace(golden.result(1), checkpoint="cd" * 32)
    read_all(store)
    assert path.read_bytes() == content, "reading writes nothing"
    writer = store.write("golden")
    state = writer.snapshot()
    assert state is not None
    assert (state["baseline"], state["rng"]) == (0.5, [3, [2**31, 2**70], None])
    assert np.array_equal(state["w"], golden.STATE["w"])
    assert writer.tail() == [Told((2,)), Asked((4,))]
    assert [(t.number, t.attempts) for t in writer.unfinished()] == [(3, 0), (4, 1)]
    with_trials(writer, [0.25])
    summary = run.summary()  # by the reader that was there before the file was brought up
    assert (sum(summary.counts.values()), summary.counts["proposed"], summary.counts["done"]) == (6, 2, 3)
    writer.close()
    read_and_write_all(store)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall()
        columns = {table: columns_of(connection, table) for table in metadata.tables}
    assert found == [(str(golden.SCHEMA),)]
    assert columns == {name: {column.name for column in table.c} for name, table in metadata.tables.items()}


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def test_a_writer_of_version_1_goes_on_beside_one_of_today(tmp_path: Path) -> None:
    """Its statements know nothing of the columns that came later."""
    path = tmp_path / "runs.db"
    shutil.copy(GOLDEN / "store-v1.db", path)
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("PRAGMA query_only = OFF")
    known = ["name", "created", "updated", "status", "writer", "config", "proposed", "running", "done", "failed"]
    known += ["stopped", "epochs", "seconds"]
    insertion = f"INSERT INTO runs ({', '.join(known)}) VALUES ({', '.join('?' * len(known))})"
    old.execute(insertion, ["first", "", "", "finished", "{}", "{}", 0, 0, 0, 0, 0, 0.0, 0.0])
    open_store(path).create("new", {}).close()
    old.execute(insertion, ["second", "", "", "finished", "{}", "{}", 0, 0, 0, 0, 0, 0.0, 0.0])
    old.execute("UPDATE runs SET done = 0, updated = '' WHERE name = 'first'")
    old.close()
    assert [run.name for run in open_store(path).runs()] == ["second", "new", "first", "empty", "golden"]
    assert open_store(path).read("second").summary().counts["paused"] == 0


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    shutil.copy(GOLDEN / "store-v1.db", path)
    to_2 = migrations.STEPS[2]

    def half(connection: Any) -> None:
        to_2(connection)
        raise KeyboardInterrupt

    monkeypatch.setitem(migrations.STEPS, 2, half)
    with pytest.raises(KeyboardInterrupt):
        open_store(path).write("golden")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall() == [("1",)]
        assert "token" not in columns_of(connection, "runs")
    monkeypatch.undo()
    assert open_store(path).read("golden").summary().counts["done"] == 2
    read_and_write_all(open_store(path))


def test_there_is_a_golden_file_of_this_version() -> None:
    assert (GOLDEN / f"store-v{golden.SCHEMA}.db").exists(), "run tests/golden/make_store.py and keep what it writes"


# --- files that are damaged, newer, or a stranger's -------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of a good store."""
    shutil.copy(GOLDEN / f"store-v{golden.SCHEMA}.db", tmp_path / "runs.db")
    return tmp_path / "runs.db"


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    change(path, f"UPDATE meta SET value = '{golden.SCHEMA + 1}' WHERE key = 'schema'", "PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    for act in (read_all, lambda s: s.create("new", {}), lambda s: s.write("golden"), lambda s: s.delete("golden")):
        with pytest.raises(NewerStore, match=r"version \d+, written by a later archsmith.*pip install --upgrade"):
            act(open_store(path))
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.db"
    change(path, "CREATE TABLE runs (id INTEGER, name TEXT)", "INSERT INTO runs VALUES (1, 'a')")
    before = path.read_bytes()
    for act in (read_all, lambda s: s.create("new", {}), lambda s: s.write("a")):
        with pytest.raises(CorruptStore, match="another program"):
            act(open_store(path))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM runs").fetchall() == [(1, "a")]
    assert len(path.read_bytes()) == len(before)


@pytest.mark.parametrize(
    "content",
    [
        b"not a database at all, but long enough to be one" * 100,
        b"x",
        b"SQLite format 3\x00",
        b"SQLite format 3\x00" + bytes(84),
    ],
)
def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(content)
    for act in (read_all, lambda s: s.create("new", {}), lambda s: s.write("a")):
        with pytest.raises(CorruptStore, match=r"runs\.db is damaged, or is no archsmith store"):
            act(open_store(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    before = path.read_bytes()
    for act in (read_all, lambda s: s.create("new", {}), lambda s: s.write("golden")):
        with pytest.raises(CorruptStore):
            act(open_store(path))
    assert path.read_bytes() == before


def test_random_damage_is_found_or_harmless(path: Path) -> None:
    """Whatever the bytes, the answer is one of our errors or a reading: never a traceback from below."""
    content, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(80):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 8, 64))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        for leftover in path.parent.glob("runs.db-*"):
            leftover.unlink()
        path.write_bytes(damaged)
        try:
            read_and_write_all(SQLStore(path, busy_seconds=0.1))
        except ArchsmithError:
            refused += 1
    assert refused > 10


HOSTILE = [
    "UPDATE events SET payload = 'not json'",
    "UPDATE events SET payload = '[]'",
    "UPDATE events SET payload = x'ff'",
    f"UPDATE events SET payload = '{'[' * 100_000}'",
    f"UPDATE events SET payload = '{'9' * 5000}'",
    """UPDATE events SET payload = '{"space": 99, "answers": {}}' WHERE kind = 'asked'""",
    """UPDATE events SET payload = '{"space": [], "answers": {}}' WHERE kind = 'asked'""",
    """UPDATE events SET payload = '{"space": 0, "answers": []}' WHERE kind = 'asked'""",
    """UPDATE events SET payload = '{"space": 0, "answers": {"x": {"y": 1}}}' WHERE kind = 'asked'""",
    """UPDATE events SET payload = '{"space": 0, "answers": {"x": [[1]]}}' WHERE kind = 'asked'""",
    """UPDATE events SET payload = '{}' WHERE kind = 'told'""",
    "DELETE FROM events WHERE kind = 'asked'",
    "UPDATE spaces SET identity = '[]'",
    "UPDATE spaces SET identity = '{}'",
    """UPDATE spaces SET identity = '{"name": ["x"]}'""",
    "UPDATE trials SET state = 'exploded' WHERE number = 3",
    "UPDATE trials SET reward = 'high' WHERE number = 0",
    "UPDATE trials SET attempts = 'often'",
    "UPDATE trials SET parent = 'root'",
    "UPDATE trials SET proposed_at = 'today'",
    "DELETE FROM trials WHERE number = 4",
    "UPDATE runs SET status = '<script>'",
    "UPDATE runs SET config = '[]'",
    "UPDATE runs SET config = '{'",
    "UPDATE runs SET done = 'many'",
    "UPDATE runs SET done = 77",
    "UPDATE runs SET best_reward = 'high'",
    "UPDATE runs SET name = x'00ff' WHERE name = 'golden'",
    "UPDATE learned SET shown = '{\"a\": [1]}'",
    "UPDATE documents SET value = 'nope'",
    "UPDATE snapshots SET state = x'00'",
    "UPDATE snapshots SET state = 'text'",
    "UPDATE meta SET value = 'eleven'",
    "DELETE FROM meta",
    "DROP TABLE meta",
    "DROP TABLE events",
    "ALTER TABLE trials DROP COLUMN attempts",
]


@pytest.mark.parametrize("statement", HOSTILE, ids=lambda s: s[:60])
def test_hostile_content_is_refused(path: Path, statement: str) -> None:
    change(path, statement)
    with pytest.raises(CorruptStore):
        read_and_write_all(open_store(path))


RESULTS = [
    {"metrics": []},
    {"metrics": {"a": [1]}},
    {"metrics": {"a": "1e9"}},
    {"metrics": {"a": True}},
    {"metrics": {"a": None}},
    {"curve": 3},
    {"curve": [3]},
    {"curve": [{"epoch": {}}]},
    {"cost": None},
    {"cost": {"seconds": "x", "epochs": 1}},
    {"failure": "x"},
    {"failure": {"reason": 1, "message": "", "traceback": ""}},
    {"artifact": "../../etc/passwd"},
    {"artifact": 3},
]


@pytest.mark.parametrize("part", RESULTS, ids=json.dumps)
def test_hostile_results_are_refused(path: Path, part: dict[str, Any]) -> None:
    payload = {"state": "done", "reward": 0.0, "result": {**golden.result(0).to_json(), **part}}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE events SET payload = ? WHERE kind = 'told' AND trial = 0", [json.dumps(payload)])
        connection.commit()
    with pytest.raises(CorruptStore, match="trial 0 of run 'golden' is damaged"):
        read_all(open_store(path))


def test_without_its_snapshot_a_run_has_a_longer_tail(path: Path) -> None:
    change(path, "DELETE FROM snapshots")
    run = open_store(path).write("golden")
    assert run.snapshot() is None
    assert run.tail() == [Asked((0, 1, 2, 3)), Told((1, 0)), Told((2,)), Asked((4,))]
    assert run.trial(4).state is TrialState.PROPOSED
    run.close()


# --- folders and files that may not be written ------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that users other than root can reach, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="archsmith-"))
    folder.chmod(0o755)
    yield folder
    for found in (folder, *folder.rglob("*")):
        found.chmod(0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def as_a_user() -> Iterator[None]:
    """Without root's right to write everywhere."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def make_read_only(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@posix
def test_a_read_only_folder_can_be_read(shared: Path) -> None:
    with_trials(open_store(shared / "runs.db").create("a", {}), [1.0, 2.0]).close("finished")
    make_read_only(shared)
    before = sorted(shared.iterdir())
    with as_a_user():
        store = open_store(shared / "runs.db")
        assert [run.status for run in store.runs()] == ["finished"]
        assert [t.reward for t in store.read("a").top(5)] == [2.0, 1.0]
        acts: list[Callable[[], object]] = [
            lambda: store.write("a"),
            lambda: store.create("b", {}),
            lambda: store.delete("a"),
            lambda: open_store(shared / "new.db").create("a", {}),
        ]
        for act in acts:
            with pytest.raises(StoreError, match=r"cannot|read-only"):
                act()
    assert sorted(shared.iterdir()) == before


@posix
def test_another_users_run_can_be_watched(shared: Path) -> None:
    run = with_trials(open_store(shared / "runs.db").create("a", {}), [1.0])
    make_read_only(shared)
    with as_a_user():
        store = open_store(shared / "runs.db")
        assert [(r.status, r.best_reward) for r in store.runs()] == [("running", 1.0)]
    with_trials(run, [2.0])
    with as_a_user():
        assert store.read("a").summary().best_reward == 2.0
    run.close()
