"""A store under several names: links of all kinds lead to one lock, one log and one folder of weights."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.errors import RunLocked, StoreError, UsageError
from archsmith.store import open_store
from archsmith.testing.store import with_trials

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links as POSIX has them")


def link(path: Path, target: Path | str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    return path


def hard_link(path: Path, target: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.hardlink_to(target)
    return path


LINKS: dict[str, Callable[[Path], Path]] = {
    "a link beside": lambda path: link(path.with_name("link.db"), path),
    "a relative link": lambda path: link(path.parent.parent / "far" / "link.db", "../near/runs.db"),
    "a link to a link": lambda path: link(path.with_name("2.db"), link(path.with_name("1.sqlite"), path)),
    "a linked folder": lambda path: link(path.parent.parent / "linked", path.parent) / path.name,
    "a hard link": lambda path: hard_link(path.with_name("other.db"), path),
    "a hard link far away": lambda path: hard_link(path.parent.parent / "far" / "runs.db", path),
    "the way around": lambda path: path.parent / ".." / "near" / path.name,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "near").mkdir()
    path = tmp_path / "near" / "runs.db"
    with_trials(open_store(path).create("a", {}), [0.5]).close()
    return path


@pytest.mark.parametrize("kind", LINKS)
def test_another_name_is_the_same_store(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = LINKS[kind](path)
    own, other = open_store(path), open_store(name)
    assert (other.url, other.artifacts) == (own.url, own.artifacts)
    for first, second in ((own, other), (other, own)):
        writer = with_trials(first.write("a"), [0.75])
        assert [run.status for run in second.runs()] == ["running"]
        with pytest.raises(RunLocked):
            second.write("a")
        writer.close()
    with_trials(other.create("b", {}), [1.0]).close("finished")
    assert [run.name for run in own.runs()] == ["b", "a"]
    assert [trial.reward for trial in own.read("a").trials()] == [0.5, 0.75, 0.75]
    assert not [file for file in name.parent.glob("*-wal") if file.stat().st_size], "one log"
    monkeypatch.chdir(name.parent)
    assert open_store(name.name).url == own.url


def test_a_store_is_made_where_a_link_leads(tmp_path: Path) -> None:
    name = link(tmp_path / "link.db", tmp_path / "runs.db")
    assert open_store(name).runs() == []
    with_trials(open_store(name).create("a", {}), [0.5]).close()
    assert name.is_symlink()
    assert [run.name for run in open_store(tmp_path / "runs.db").runs()] == ["a"]
    nowhere = link(tmp_path / "nowhere.db", tmp_path / "none" / "runs.db")
    with pytest.raises(StoreError, match=r"the folder .*none does not exist"):
        open_store(nowhere).create("a", {})
    loop = link(tmp_path / "loop.db", tmp_path / "loop.db")
    for act in (lambda: open_store(loop).runs(), lambda: open_store(loop).create("a", {})):
        with pytest.raises(StoreError, match=r"loop\.db"):
            act()


def test_a_hard_link_of_unknown_origin_is_read_and_not_written(path: Path) -> None:
    """SQLite would keep a log beside each name, and two writers would not see each other."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'path'")  # as an earlier archsmith left it
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint")
    name = hard_link(path.with_name("other.db"), path)
    assert [run.name for run in open_store(name).runs()] == ["a"]
    for act in (lambda: open_store(name).write("a"), lambda: open_store(name).create("b", {})):
        with pytest.raises(StoreError, match=r"several names \(hard links\).*cp .*other\.db"):
            act()
    path.unlink()
    open_store(name).write("a").close()  # it has one name again


def test_a_copy_is_a_store_of_its_own(path: Path) -> None:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    one, two = open_store(path).write("a"), open_store(copy).write("a")
    with_trials(one, [1.0]).close()
    with_trials(two, [2.0, 3.0]).close()
    assert [len(list(open_store(name).read("a").trials())) for name in (path, copy)] == [2, 3]
    moved = copy.rename(path.with_name("moved.db"))
    hard = hard_link(path.with_name("hard.db"), moved)
    with pytest.raises(StoreError, match="hard links"):
        open_store(hard).write("a")  # its name on record is that of before it moved


# --- where weights are ------------------------------------------------------------------------------------------------


def test_one_folder_by_several_names(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    link(tmp_path / "linked", "weights")
    same = ["weights", "./weights/", "linked", tmp_path / "weights", f"file://{tmp_path}/weights", "near/../weights"]
    open_store("new.db", artifacts="weights").create("a", {}).close()
    for artifacts in same:
        store = open_store("new.db", artifacts=artifacts)
        assert store.artifacts == str(tmp_path / "weights")
        store.write("a").close()
        assert open_store(store, artifacts=artifacts) is store
    with pytest.raises(UsageError, match="keeps its weights in"):
        open_store("new.db", artifacts="near").write("a")
    assert open_store("other.db", artifacts="file://weights").artifacts == str(tmp_path / "weights")
    assert open_store("memory://", artifacts="weights").artifacts == str(tmp_path / "weights")


def test_weights_that_an_earlier_archsmith_kept_beside_a_link_are_found_by_all_names(path: Path) -> None:
    name = link(path.parent.parent / "far" / "link.db", path)
    beside = name.with_suffix(".artifacts")
    ArtifactFolder(beside).put({"w": torch.ones(1)})
    assert open_store(path).artifacts == str(path.with_suffix(".artifacts")), "nobody knows of the link yet"
    assert open_store(name).artifacts == str(beside)
    open_store(name).write("a").close()
    assert open_store(path).artifacts == open_store(name).artifacts == str(beside)
