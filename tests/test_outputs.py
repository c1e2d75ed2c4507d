"""What archsmith writes where a person names a place: whole, at once, and never over or instead of what is not its own."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import archsmith as smith
from archsmith._export import ImageModel, export_folder, load
from archsmith._export.export_folder import CARD, fresh_folder, listed_files, write_json
from archsmith._page.document import is_page
from archsmith.cli.main import app
from archsmith.core.child import Task
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import build, decode, identity
from archsmith.spaces import ConvChain
from archsmith.training import Landscape

SPACE = ConvChain(layers=1, filter_heights=(3,), filter_widths=(3,), filters=(4, 8))


def model(filters: int = 4) -> ImageModel:
    answers = {"0.filter_height": 3, "0.filter_width": 3, "0.filters": filters, "0.inputs": []}
    genotype, task = Genotype(identity(SPACE), answers), Task((1, 8, 8), 2)
    torch.manual_seed(0)
    return ImageModel(
        name="m",
        network=build(SPACE, genotype, task).model,
        task=task,
        class_names=["a", "b"],
        preprocessing={},
        space=to_config(SPACE),
        genotype=genotype.to_json(),
        architecture=decode(SPACE, genotype),
    )


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything under a folder."""
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else ""
        for p in folder.rglob("*")
    }


# --- the folder of an export ------------------------------------------------------------------------------------------


def test_only_what_archsmith_wrote_is_replaced(tmp_path: Path) -> None:
    folder = smith.export(model(4), path=tmp_path / "deep" / "m")
    os.chmod(folder, 0o750)
    mine = {"thesis.txt": "years of work", "notes/deep/a.md": "more", "model.bak": "old"}
    for name, text in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "link").symlink_to("thesis.txt")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "empty").mkdir()
    (folder / "uv.lock").touch()
    assert smith.export(model(8), path=folder) == folder
    assert load(folder).genotype == model(8).genotype
    assert {name: (folder / name).read_text() for name in mine} == mine
    assert os.readlink(folder / "link") == "thesis.txt"
    assert os.readlink(folder / "dangling") == "nowhere"
    assert (folder / "empty").is_dir()
    assert folder.stat().st_mode & 0o777 == 0o750
    smith.export(model(8), path=folder, format="source")  # another format leaves nothing of the earlier one
    assert sorted(listed_files(folder) or ()) == ["README.md", CARD, "model.py", "model.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_exports_from_before_there_was_a_list_are_replaced_too(tmp_path: Path) -> None:
    folder = smith.export(model(4), path=tmp_path / "m", format="source")
    card = json.loads((folder / CARD).read_text())
    del card["files"]
    write_json(folder / CARD, card)
    (folder / "mine.txt").write_text("mine")
    assert set(listed_files(folder) or ()) == {CARD, "README.md", "model.py", "model.safetensors"}
    smith.export(model(8), path=folder)
    assert {p.name for p in folder.iterdir()} == {CARD, "README.md", "model.safetensors", "mine.txt"}


def foreign(name: str) -> Callable[[Path], Path]:
    def make(tmp_path: Path) -> Path:
        place = tmp_path / "place"
        if name == "a file":
            place.write_text("mine")
        elif name in ("a link", "a link to nothing"):
            if name == "a link":
                smith.export(model(), path=tmp_path / "m")
            place.symlink_to("m")
        elif name == "under a file":
            place.write_text("mine")
            place /= "m"
        elif name == "a long name":
            place = tmp_path / ("x" * 300)
        elif name == "NUL":
            place = Path(f"{tmp_path}/a\0b")
        elif name == "another project's model.json":
            place.mkdir()
            (place / CARD).write_text('{"format": "my own"}')
        else:
            place.mkdir()
            (place / "thesis.txt").write_text("years of work")
        return place

    return make


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a folder with files", "is no earlier export"),
        ("another project's model.json", "is no earlier export"),
        ("a file", "is no earlier export"),
        ("a link", "symbolic link"),
        ("a link to nothing", "symbolic link"),
        ("under a file", "cannot write"),
        ("a long name", "cannot write"),
        ("NUL", "cannot write"),
    ],
)
def test_no_other_place_is_touched(tmp_path: Path, name: str, words: str) -> None:
    place = foreign(name)(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=words):
        smith.export(model(), path=place)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", [".", "..", "", "./", "../..", "/", "~", "../here"])
def test_the_folder_one_is_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    here = tmp_path / "here"
    smith.export(model(), path=here)  # even where it is an earlier export
    (here / "runs.db").write_bytes(b"")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="the folder that you are in"):
        smith.export(model(), path=os.path.expanduser(place))
    assert tree(tmp_path) == before


def test_a_folder_with_a_database_is_not_replaced(tmp_path: Path) -> None:
    folder = smith.export(model(), path=tmp_path / "m")
    (folder / "deep").mkdir()
    smith.search(SPACE, Landscape(), trials=1, store=f"sqlite:///{folder}/deep/runs")
    gc.collect()  # closes the run's connection, and with that SQLite's files beside the database go
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"holds deep/runs.*a database"):
        smith.export(model(), path=folder)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["README.md", CARD, "model.safetensors"])
def test_a_file_that_somebody_changed_is_not_replaced(tmp_path: Path, name: str) -> None:
    folder = smith.export(model(), path=tmp_path / "m")
    if name == CARD:
        write_json(folder / CARD, {**json.loads((folder / CARD).read_text()), "mine": 1})
    else:
        with open(folder / name, "a") as file:
            file.write("my notes")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=f"{name} was changed since archsmith wrote it"):
        smith.export(model(), path=folder)
    assert tree(tmp_path) == before


def test_a_file_of_ones_own_with_a_name_of_the_export_is_kept(tmp_path: Path) -> None:
    folder = smith.export(model(), path=tmp_path / "m")
    (folder / "model.py").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"model\.py was not written by archsmith"):
        smith.export(model(), path=folder, format="source")
    assert tree(tmp_path) == before


def test_an_empty_folder_is_a_place(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir(mode=0o700)
    assert load(smith.export(model(), path=tmp_path / "m")).name == "m"
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o700


def test_an_export_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    folder = smith.export(model(), path=tmp_path / "m")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="No space left"), fresh_folder(folder) as made:
        (made / CARD).write_text("{}")
        raise OSError(28, "No space left on device", str(made / "model.safetensors"))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("kill", [True, False])
def test_a_kill_or_ctrl_c_at_any_moment_leaves_the_old_export_or_the_new_one(
    tmp_path: Path, exchange: bool, kill: bool
) -> None:
    step, seen = 0, set()
    while True:
        step += 1
        folder = tmp_path / str(step) / "m"
        with fresh_folder(folder) as made:
            write_json(made / CARD, {"format": "archsmith model", "export": "old"})
            (made / "README.md").write_text("old")
        (folder / "mine").mkdir()
        (folder / "mine" / "a.txt").write_text("mine")
        child = os.fork()
        if child == 0:
            _ended(folder, step, exchange, kill)
        _, status = os.waitpid(child, 0)
        if exchange:  # without, a kill may come between two steps, and what is there is put back by the next export
            seen.add(_checked(folder))
        with fresh_folder(folder) as made:
            assert _checked(folder) in ("old", "new")
            write_json(made / CARD, {"format": "archsmith model", "export": "last"})
            (made / "README.md").write_text("last")
        assert _checked(folder) == "last"
        assert [p.name for p in folder.parent.iterdir()] == ["m"], "nothing is left behind"
        if status == 0:
            break
    assert step > 8
    assert seen == ({"old", "new"} if exchange else set())


def _ended(folder: Path, step: int, exchange: bool, kill: bool) -> None:
    """In a child process: an export that is killed or interrupted before its so many-th change of the file system."""
    count = 0

    def watched(event: str, _: object) -> None:
        nonlocal count
        if event in ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "exchange"):
            count += 1
            if count == step and kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if count == step:
                raise KeyboardInterrupt

    right = export_folder._exchange

    def exchanged(one: Path, other: Path) -> bool:
        watched("exchange", None)
        return exchange and right(one, other)

    export_folder._exchange = exchanged
    sys.addaudithook(watched)
    try:
        with fresh_folder(folder) as made:
            write_json(made / CARD, {"format": "archsmith model", "export": "new"})
            (made / "README.md").write_text("new")
    except KeyboardInterrupt:
        os._exit(1)
    os._exit(0)


def _checked(folder: Path) -> str:
    """Which export a folder holds; it must be whole, and have what is not archsmith's."""
    which = json.loads((folder / CARD).read_text())["export"]
    assert (folder / "README.md").read_text() == which
    assert (folder / "mine" / "a.txt").read_text() == "mine"
    return str(which)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> smith.Run:
    store = tmp_path_factory.mktemp("store") / "runs"  # no suffix: known by its content
    smith.search(SPACE, Landscape(), trials=2, store=f"sqlite:///{store}", name="other", seed=1)
    return smith.search(SPACE, Landscape(), trials=2, store=f"sqlite:///{store}", name="r")


def file_of(run: smith.Run) -> Path:
    return Path(str(run.store.artifacts)).with_suffix("")


def cell(path: Path, force: bool) -> Path:
    return smith.export("nas_cell", format="source", path=path, force=force)


def rule(path: Path, force: bool) -> Path:
    return smith.export("power_sign", format="source", path=path, force=force)


def drawing(path: Path, force: bool) -> Path:
    command_line("draw", "swish", "-o", str(path), *(["--force"] if force else []))
    return path


def command_line(*arguments: str) -> None:
    CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def writers(run: smith.Run) -> dict[str, Callable[[Path, bool], Path]]:
    return {
        "report": lambda path, force: run.report(path, force=force),
        "comparison": lambda path, force: smith.compare([run, smith.open_run(run.store, "other")]).report(
            path, force=force
        ),
        "cell": cell,
        "rule": rule,
        "drawing": drawing,
    }


NAMED = ["report", "comparison", "cell", "rule", "drawing"]


@pytest.mark.parametrize("name", NAMED)
def test_a_file_is_replaced_if_archsmith_wrote_it_or_with_force(tmp_path: Path, run: smith.Run, name: str) -> None:
    write = writers(run)[name]
    path = tmp_path / ("file.py" if name in ("cell", "rule") else "file.html")
    write(path, False)
    first = path.read_text()
    os.chmod(path, 0o640)
    write(path, False)
    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o640
    path.write_bytes(b"")  # as mktemp leaves it
    write(path, False)
    assert path.read_text() == first
    for mine in (
        "my thesis",
        "<!DOCTYPE html><title>mine · archsmith</title>",
        "\x00\xff",
        "# Written by archsmith fans",
    ):
        path.write_text(mine)
        with pytest.raises(UsageError, match=r"is no earlier export or page.*--force"):
            write(path, False)
        assert path.read_text() == mine
        write(path, True)
        assert path.read_text() == first
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", NAMED)
def test_no_database_is_ever_replaced(tmp_path: Path, run: smith.Run, name: str) -> None:
    write = writers(run)[name]
    store = file_of(run)
    suffix = ".py" if name in ("cell", "rule") else ""
    shutil.copy(store, tmp_path / f"a{suffix}")
    with sqlite3.connect(tmp_path / f"b.db{suffix}") as database:
        database.execute("create table t (x)")
    database.close()
    (tmp_path / f"c{suffix}").symlink_to(f"a{suffix}")
    for other in ("f.db", "d.sqlite", "e.db-wal", "f.db.lock", "g.safetensors", "h.duckdb"):
        (tmp_path / other).write_bytes(b"\0\0\0\0\0\0\0\0DUCK")
    before = tree(tmp_path)
    for place in tmp_path.iterdir():
        if suffix and place.suffix != suffix:
            continue  # these make a folder of any other name
        with pytest.raises(UsageError, match="not even with --force"):
            write(place, True)
    assert tree(tmp_path) == before


def test_a_report_goes_through_links_and_into_pipes(tmp_path: Path, run: smith.Run) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.html").symlink_to("real/page.html")
    run.report(tmp_path / "link.html")
    assert is_page((tmp_path / "real" / "page.html").read_text())
    assert (tmp_path / "link.html").is_symlink()
    run.report("/dev/null")
    assert not Path("/dev/null").is_file()
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE, text=True) as reader:
        run.report(tmp_path / "pipe")
        assert reader.stdout is not None
        assert is_page(reader.stdout.read())
    for place in (tmp_path, tmp_path / "no" / "page.html", Path(f"{tmp_path}/a\0b"), tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="report"):
            run.report(place, force=True)


def test_the_place_of_a_stores_weights_is_refused_before_there_are_any(tmp_path: Path, run: smith.Run) -> None:
    (tmp_path / "runs.db").touch()
    for write in (*writers(run).values(), lambda path, force: smith.export(model(), path=path, force=force)):
        with pytest.raises(UsageError, match="where a store keeps its weights"):
            write(tmp_path / "runs.artifacts", True)
    assert [p.name for p in tmp_path.iterdir()] == ["runs.db"]


def test_auto_refuses_a_foreign_place_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "first").mkdir(parents=True)
    (tmp_path / "out" / "first" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no earlier export"):
        command_line("auto", "digits", "--trials", "1", "--name", "first")
    assert not (tmp_path / "runs.db").exists()


def test_the_command_line_knows_force(tmp_path: Path, run: smith.Run) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    store = f"sqlite:///{file_of(run)}"
    for command in (["report", "r"], ["compare", "r", "other"]):
        asked = [*command, "--store", store, "-o", str(page)]
        with pytest.raises(UsageError, match="--force"):
            command_line(*asked)
        assert page.read_text() == "mine"
    command_line(*asked, "--force")
    assert is_page(page.read_text())
