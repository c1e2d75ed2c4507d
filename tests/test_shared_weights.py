"""Stores that keep their weights in one place: what one needs, no other one's collection takes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

import archsmith as smith
from archsmith._search import collecting
from archsmith.core.artifacts import ArtifactFolder, open_artifacts
from archsmith.core.store import Store
from archsmith.core.trial import Result, TrialState
from archsmith.store import open_store
from archsmith.testing.store import proposal

BOTH = pytest.mark.parametrize("remote", [False, True], ids=["folder", "address"])


def keep(store: Store, value: float, name: str = "a", number: int = 2) -> list[str]:
    """A run of a few trials that keep weights, all of which its store needs; gives their digests."""
    writer, digests = store.create(name, {}), []
    for i in range(number):
        assert store.artifacts is not None
        digests.append(open_artifacts(store.artifacts).put({"w": torch.full((100,), value + i / 100)}))
        [trial] = writer.propose([proposal(i)])
        writer.start(trial.number)
        result = Result({"accuracy": value}, artifact=digests[-1])
        writer.finish([replace(trial, state=TrialState.DONE, reward=value, result=result)])
    writer.close("finished")
    return digests


def garbage(address: str) -> str:
    """Weights that no store refers to."""
    return open_artifacts(address).put({"w": torch.rand(100)})


def age(address: str) -> None:
    """All weights as old as a day."""
    if "://" in address:
        for name, file in MemoryFileSystem.store.items():
            if name.endswith((".safetensors", ".used")):
                file.created = file.created.replace(year=2020)
        return
    for file in Path(address).glob("*.safetensors"):
        os.utime(file, (time.time() - 86_400,) * 2)


def collected(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a collection of a store removes where nothing may stay that nobody needs."""
    assert store.artifacts is not None
    age(store.artifacts)

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "open_artifacts", partial(open_artifacts, cap_bytes=0))
        return collecting.collect(store)


@pytest.fixture
def address(tmp_path: Path, remote: bool) -> str:
    return f"memory://{tmp_path.name}/weights" if remote else str(tmp_path / "weights")


# --- stores that share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["a.sqlite", "a.x"])
def test_stores_of_one_stem(tmp_path: Path, second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = open_store(tmp_path / "a.db"), open_store(f"sqlite:///{tmp_path / second}")
    kept = keep(one, 0.1) + keep(two, 0.2)
    unused = garbage(str(one.artifacts))
    assert collected(one, monkeypatch) == [unused]
    assert collected(two, monkeypatch) == []
    assert all(digest in open_artifacts(str(one.artifacts)) for digest in kept)


@BOTH
def test_stores_that_were_given_one_address(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [open_store(where, artifacts=address) for where in (tmp_path / "1.db", tmp_path / "2.db", "memory://")]
    kept = [digest for i, store in enumerate(stores) for digest in keep(store, 0.1 * i)]
    for store in stores:
        unused = garbage(address)
        assert collected(store, monkeypatch) == [unused]
    assert all(digest in open_artifacts(address) for digest in kept)
    with closing(sqlite3.connect(tmp_path / "1.db")) as connection:  # its run is gone, and with it the need
        connection.execute("UPDATE trials SET reward = NULL")
        connection.commit()
    assert sorted(collected(stores[1], monkeypatch)) == sorted(kept[:2])


def test_a_folder_by_several_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "linked").symlink_to("weights")
    for i, name in enumerate(("weights", "linked", f"{tmp_path}/weights/", f"file://{tmp_path}/weights")):
        keep(open_store(f"{i}.db", artifacts=name), 0.1 * i)
    unused = garbage("weights")
    assert collected(open_store("1.db"), monkeypatch) == [unused]
    monkeypatch.chdir("/")
    assert collected(open_store(tmp_path / "3.db"), monkeypatch) == []


def test_a_search_collects_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From end to end: a second store's search, in the same folder, is over the cap and collects."""
    monkeypatch.setattr("archsmith._search.loop.ARTIFACTS_PER_COLLECTION", 1)
    monkeypatch.setattr(collecting, "BEST_PER_RUN", 1)
    monkeypatch.setattr(collecting, "open_artifacts", partial(open_artifacts, cap_bytes=0))
    first = keep(open_store(tmp_path / "1.db", artifacts=tmp_path / "w"), 0.5, number=1)
    age(str(tmp_path / "w"))

    class Keeps:
        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            age(str(tmp_path / "w"))
            digest = context.checkpoint({"w": torch.full((10,), float(genotype.answers["x"]))})
            return Result({"value": float(genotype.answers["x"])}, artifact=digest)

    second = open_store(tmp_path / "2.db", artifacts=tmp_path / "w")
    smith.search(lambda choose: choose("x", range(1, 9)), Keeps(), trials=8, store=second, name="b")
    left = {file.stem for file in (tmp_path / "w").glob("*.safetensors")}
    assert set(first) < left
    assert len(left) < 1 + len(list(second.read("b").trials()))


# --- stores that went away --------------------------------------------------------------------------------------------


def one_notice(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """That nothing is collected, and why not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert collected(store, monkeypatch) == []
    [warning] = caught
    return str(warning.message)


AWAY: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "moved to another folder": lambda path: path.rename(path.parent.parent / "out of sight.db"),
    "damaged": lambda path: path.write_bytes(b"no database" * 500),
    "emptied": lambda path: path.write_bytes(b""),
    "in a folder that is not mounted": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "replaced by another": lambda path: (path.unlink(), open_store(path).create("new", {}).close()),
    "damaged within": lambda path: damage(path),
    "of a later archsmith": lambda path: damage(path, "UPDATE meta SET value = '99' WHERE key = 'schema'"),
}


def damage(path: Path, statement: str = "UPDATE events SET payload = 'no json'") -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


@BOTH
@pytest.mark.parametrize("what", AWAY)
def test_what_a_store_needs_that_cannot_be_asked_stays(
    tmp_path: Path, address: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    path = tmp_path / "far" / "away" / "gone.db"
    mine = open_store(tmp_path / "mine.db", artifacts=address)
    keep(mine, 0.1)
    kept = keep(open_store(path, artifacts=address), 0.2)
    unused = garbage(address)
    AWAY[what](path)
    said = one_notice(mine, monkeypatch)
    assert f"the store sqlite:///{path} " in said
    assert "none is removed" in said
    assert "if it is gone for good, delete the file of its registration" in said
    if what.startswith("damaged within"):
        return  # it can be opened, so the file of its registration is not named
    [file] = [part for part in said.replace(")", "(").split("(") if part.startswith("registered in ")]
    file = file.removeprefix("registered in ")
    assert open_artifacts(address).registry().stores
    if "://" in file:
        MemoryFileSystem().rm(file)
    else:
        Path(file).unlink()
    assert sorted(collected(mine, monkeypatch)) == sorted([unused, *kept]), "whoever says that it is gone is believed"


@pytest.mark.parametrize(
    "how", ["renamed", "renamed and used", "moved with the folder", "restored", "copied", "linked"]
)
def test_a_store_that_moved_is_found(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    mine, path = home / "mine.db", home / "moves.db"
    keep(open_store(mine, artifacts=home / "w"), 0.1)
    kept = keep(open_store(path, artifacts=home / "w"), 0.2)
    weights = home / "w"
    if how.startswith("renamed"):
        path = path.rename(home / "renamed.db")
        if how.endswith("used"):
            open_store(path).write("a").close()
    elif how == "moved with the folder":
        home = home.rename(tmp_path / "new")
        mine, path, weights = home / "mine.db", home / "moves.db", home / "w"
        for file in (mine, path):  # as the guide says: the address is kept in the store
            damage(file, f"UPDATE meta SET value = '{weights}' WHERE key = 'artifacts'")
    elif how == "restored":
        shutil.copy(path, home / "backup")
        path.unlink()
        (home / "backup").rename(path)
    elif how == "copied":
        shutil.copy(path, home / "copy.db")
        kept += keep(open_store(home / "copy.db"), 0.3, "of the copy")
        keep(open_store(path), 0.4, "of the first")
    elif how == "linked":
        (tmp_path / "link.db").symlink_to(path)
        kept += keep(open_store(tmp_path / "link.db"), 0.3, "by the link")
    unused = garbage(str(weights))
    assert collected(open_store(mine), monkeypatch) == [unused]
    assert all(digest in ArtifactFolder(weights) for digest in kept)


def test_a_store_and_its_weights_that_were_copied_to_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    kept = keep(open_store(there / "runs.db"), 0.1)
    shutil.copytree(there, here)
    shutil.rmtree(there)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    store = open_store(here / "runs.db")
    unused = garbage(str(store.artifacts))
    assert collected(store, monkeypatch) == [unused]
    assert all(digest in open_artifacts(str(store.artifacts)) for digest in kept)


@BOTH
def test_a_store_of_another_machine_by_the_same_path_is_not_taken_for_its_copy_here(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "home" / "runs.db"
    path.parent.mkdir()
    keep(open_store(path, artifacts=address), 0.1)
    shutil.copytree(path.parent, tmp_path / "here")
    shutil.rmtree(path.parent)
    (tmp_path / "here").rename(path.parent)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    assert "cannot be" in one_notice(open_store(path), monkeypatch) or "is not there" in one_notice(
        open_store(path), monkeypatch
    )


def test_a_registration_that_cannot_be_read_is_a_store_that_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "runs.db")
    keep(store, 0.1)
    garbage(str(store.artifacts))
    for content in (b"", b"{}", b"[]", b"\xff", b'{"url": 1}', b"[" * 9000):
        file = Path(str(store.artifacts)) / "stores" / "x.json"
        file.write_bytes(content)
        assert f"the registration {file} cannot be read" in one_notice(store, monkeypatch)
        file.unlink()
    assert len(collected(store, monkeypatch)) == 1


def test_a_process_whose_store_was_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from archsmith.store import open_store; store = open_store('memory://', artifacts=sys.argv[1])\n"
        "store.create('a', {}).put_document('x', {'artifact': sys.argv[2]}); print('kept', flush=True); sys.stdin.read()"
    )
    mine = open_store(tmp_path / "mine.db", artifacts=tmp_path / "w")
    keep(mine, 0.1)
    theirs = garbage(str(tmp_path / "w"))
    command = [sys.executable, "-c", code, str(tmp_path / "w"), theirs]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "kept\n"
    assert "is the memory of another process" in one_notice(mine, monkeypatch)
    process.communicate()
    assert collected(mine, monkeypatch) == [theirs], "nobody can ask for its weights any more"
    store = open_store("memory://", artifacts=tmp_path / "w")
    keep(store, 0.5)
    assert collected(mine, monkeypatch) == []
    del store
    assert len(collected(mine, monkeypatch)) == 2


# --- stores of an earlier archsmith -----------------------------------------------------------------------------------


def forget(address: str, *stores: Path) -> None:
    """As an earlier archsmith left it."""
    shutil.rmtree(Path(address) / "stores")
    for path in stores:
        damage(path, "DELETE FROM meta WHERE key IN ('id', 'path')")
        damage(path, "UPDATE runs SET writer = '{}'")


def test_weights_of_a_store_that_never_registered_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "w"
    old, never = (open_store(tmp_path / name, artifacts=weights) for name in ("old.db", "never.db"))
    theirs, others = keep(old, 0.1, number=3), keep(never, 0.2)
    forget(str(weights), tmp_path / "old.db", tmp_path / "never.db")
    monkeypatch.setattr(collecting, "BEST_PER_RUN", 1)
    store = open_store(tmp_path / "old.db")
    new = garbage(str(weights))
    (weights / f"{new}.safetensors").rename(tmp_path / "new")
    store.write("a").close()
    keep(store, 0.3, "b", number=1)
    (tmp_path / "new").rename(weights / f"{new}.safetensors")
    assert sorted(collected(store, monkeypatch)) == sorted([new, *theirs[1:]])
    assert all(digest in open_artifacts(str(weights)) for digest in others)


def test_a_store_beside_the_folder_never_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = open_store(tmp_path / "a.db"), open_store(tmp_path / "a.sqlite")
    kept = keep(one, 0.1) + keep(two, 0.2)
    forget(str(one.artifacts), tmp_path / "a.db", tmp_path / "a.sqlite")
    (tmp_path / "a.html").write_text("a page")
    damage(tmp_path / "a.x", "CREATE TABLE runs (id INTEGER)")  # another program's
    keep(one, 0.3, "b")
    unused = garbage(str(one.artifacts))
    assert collected(one, monkeypatch) == [unused]
    assert all(digest in open_artifacts(str(one.artifacts)) for digest in kept)


# --- registering ------------------------------------------------------------------------------------------------------


def test_a_store_that_keeps_no_weights_makes_no_folder(tmp_path: Path) -> None:
    smith.search(lambda choose: choose("x", (1, 2)), lambda x: x, trials=2, store=tmp_path / "runs.db")
    assert not (tmp_path / "runs.artifacts").exists()


REGISTER = """
import sys
from archsmith.core.artifact_registry import Registration
from archsmith.core.artifacts import ArtifactFolder
sys.stdin.readline()
for _ in range(5):
    ArtifactFolder(sys.argv[1]).register(Registration("sqlite:////nowhere", "here", sys.argv[2], "1"))
"""


def test_many_register_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REGISTER, str(tmp_path / "w")]
    processes = [subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, text=True) for i in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 4
    stores = ArtifactFolder(tmp_path / "w").registry().stores
    assert sorted(store.id for store in stores.values() if store is not None) == ["0", "1", "2", "3"]
    assert sorted(file.name for file in (tmp_path / "w").iterdir()) == [".lock", "stores"]


def test_a_place_that_cannot_be_written_to_loses_no_result(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs.db")
    writer = store.create("a", {})
    Path(str(store.artifacts)).write_text("in the way")
    [trial] = writer.propose([proposal(0)])
    writer.start(0)
    result = Result({"accuracy": 1.0}, artifact="0" * 64)
    with pytest.warns(UserWarning, match=r"could not be registered where its weights are"):
        writer.finish([replace(trial, state=TrialState.DONE, reward=1.0, result=result)])
    writer.close()
    assert store.read("a").trial(0).reward == 1.0


def test_a_registration_holds_no_password(tmp_path: Path) -> None:
    keep(open_store(tmp_path / "runs.db"), 0.1)
    [file] = [f for f in (tmp_path / "runs.artifacts" / "stores").iterdir() if f.name != "earlier.json"]
    record = json.loads(file.read_text())
    assert record["url"] == f"sqlite:///{tmp_path / 'runs.db'}"
    assert record["relative"] == "../runs.db"
