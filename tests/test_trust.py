"""Strangers' files are data: what is hostile is refused in words or escaped, and nothing in a file is ever run unasked."""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import json
import lzma
import os
import re
import sqlite3
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import archsmith as smith
from archsmith._export import ImageModel, export
from archsmith._search.run import SHIPPED, resolve
from archsmith.cli.main import main
from archsmith.cli.plain import PlainStream
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.child import Task
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import ArchsmithError, DataError, IllegalGenotype, UsageError
from archsmith.core.genotype import Genotype, read_json
from archsmith.core.shown import plain
from archsmith.core.space import build, decode, sample
from archsmith.data import unpacking
from archsmith.data.image_folder import read_picture
from archsmith.data.table_files import read_table, version_of
from archsmith.executors import ProcessPool
from archsmith.recipes.data import for_data
from archsmith.spaces import ConvChain
from archsmith.training import ImageClassification, Landscape, LanguageModel, Translation

SOURCES = Path(smith.__file__).parent


# --- nothing that is read is run --------------------------------------------------------------------------------------

# Files in which a call that could run what it is given may stand, and why it does not.
RUNS = {
    "exec": {
        "_export/activation.py": "text this process has just written",
        "_export/augmentation.py": "text this process has just written",
        "_export/cell.py": "text this process has just written",
        "_export/optimizer.py": "text this process has just written",
        "_export/text_source.py": "text this process has just written",
        "_search/recipe_file.py": "the user's own FILE.py, which is code, and only as the user has named it",
        "nn/activation.py": "an expression of the language's own symbols",
        "nn/cell_kernels/cuda_tape.py": "text made of a cell that was checked",
        "nn/update_rule.py": "an expression of the language's own symbols",
    },
    "eval": {"_export/network_source.py": "text this process has just written, without builtins"},
    "exec_module": {"_export/source.py": "format source, where the user says so"},
    "torch.load": {
        "pretrained/weights.py": "weights only, of a file whose SHA-256 was compared with the published one"
    },
    "cloudpickle": {
        "executors/sending.py": "writes what is sent to workers, and reads nothing",
        "executors/shared_data.py": "from its own pool, over a pipe and a file of its own",
        "executors/worker.py": "from its own pool, over pipes of its own; what children say is never unpickled",
        "executors/ray_host.py": "to workers of its own cluster",
        "testing/evaluator.py": "what the test itself has written",
        "testing/rule.py": "what the test itself has written",
    },
}
RUNS["pickle"] = {
    "executors/shared_data.py": "from its own pool, over a pipe and a file of its own",
    "executors/worker.py": "from its own pool, over pipes of its own; what children say is never unpickled",
    "executors/worker_process.py": "writes what is sent to a worker, and reads nothing",
    "testing/space.py": "what the test itself has written",
}
DANGEROUS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml", "runpy"}


def calls_and_imports() -> Iterator[tuple[str, str]]:
    """Every name that could run what a file holds, with the file it stands in."""
    for path in SOURCES.rglob("*.py"):
        where, text = path.relative_to(SOURCES).as_posix(), path.read_text(encoding="utf-8")
        if not re.search("|".join(DANGEROUS) + r"|eval\(|exec|extractall|unpack_archive|(torch|np|numpy)\.load", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((alias.name.split(".")[0], where) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").split(".")[0], where
            elif isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                alone = isinstance(node.func, ast.Name)
                owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
                if (alone and name in ("eval", "exec")) or name in ("exec_module", "extractall", "unpack_archive"):
                    yield name, where
                if (owner, name) in (("torch", "load"), ("np", "load"), ("numpy", "load")):
                    yield f"{owner}.{name}", where


def test_nothing_reads_pickles_and_what_runs_text_says_whose_it_is() -> None:
    watched = DANGEROUS | {
        "eval",
        "exec",
        "exec_module",
        "extractall",
        "unpack_archive",
        "torch.load",
        "np.load",
        "numpy.load",
    }
    found = {(name, where) for name, where in calls_and_imports() if name in watched}
    assert found, "the walk finds nothing, so it proves nothing"
    strange = {(name, where) for name, where in found if where not in RUNS.get(name, {})}
    assert not strange


@pytest.mark.parametrize(
    "name",
    ["os:system", "os.system", "builtins.eval", "spaces.os", "spaces.__builtins__", "spaces.importlib", "spaces", "",
     "training.numpy", "cli.main", "store.open_store", "_search.run", "executors.ProcessPool.__init__", "subprocess:run"],
)  # fmt: skip
def test_a_record_makes_nothing_that_archsmith_does_not_ship(name: str) -> None:
    with pytest.raises(UsageError):
        from_config({"type": name, "command": "true"}, resolve)


def test_what_a_record_can_make_are_configurations() -> None:
    """No executor, store or command is among them: those act when they are made."""
    assert set(SHIPPED) <= {
        "spaces",
        "searchers",
        "training",
        "rewards",
        "stopping",
        "discovered",
        "_finish",
        "core",
        "recipes",
    }


def test_a_program_is_not_run_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(export(model(), format="source", path=tmp_path / "model"))
    (folder / "model.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')")
    picture(tmp_path / "a.png")
    assert main(["predict", str(folder), str(tmp_path / "a.png")]) == 2
    assert "--run-source" in capsys.readouterr().err
    assert not (tmp_path / "was here").exists()


def test_pictures_are_decoded_by_formats_that_run_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: pytest.fail("a program was run"))
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was run"))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="no picture"):
        read_picture(postscript, 8)


# --- what wants to be large -------------------------------------------------------------------------------------------


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """A bound that a test can break: a quarter of a megabyte, or a hundred times a file's size."""
    monkeypatch.setattr(unpacking, "LEAST_ALLOWED", 1 << 18)
    return 1 << 20


def zeros_in_npz(path: Path, size: int) -> None:
    np.savez_compressed(path, x_train=np.zeros((size >> 6, 8, 8), np.uint8), y_train=np.zeros(size >> 6, np.int64))


def zeros_in_idx(path: Path, size: int) -> None:
    path.mkdir()
    for part in ("train", "t10k"):
        for what, head in (("images-idx3", (size, 8, 8)), ("labels-idx1", (size,))):
            raw = bytes([0, 0, 8, len(head)]) + np.array(head, ">u4").tobytes() + bytes(size)
            (path / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(raw))


def member(archive: tarfile.TarFile, name: str, content: bytes = b"", **attributes: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


def zeros_in_tar(path: Path, size: int) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for i in range(8):
            member(archive, f"cat/{i}.png", bytes(size // 8))


def long_header(path: Path, size: int) -> None:
    """A member's extended header, which tar readers take into memory before they look at it."""
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, size
    path.write_bytes(gzip.compress(head.tobuf() + bytes(size)))


def zeros_in_zip(path: Path, size: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(8):
            archive.writestr(f"cat/{i}.png", bytes(size // 8))


def words(pack: Callable[[bytes], bytes]) -> Callable[[Path, int], None]:
    return lambda path, size: path.write_bytes(pack(b"a b c d\n" * (size >> 3))) and None


def pairs(path: Path, size: int) -> None:
    path.mkdir()
    for language in ("en", "de"):
        (path / f"train.{language}.gz").write_bytes(gzip.compress(b"a b c d\n" * (size >> 3)))


IMAGES: Callable[[str], Any] = lambda data: ImageClassification(data=data)  # noqa: E731
TEXT: Callable[[str], Any] = lambda data: LanguageModel(data=data)  # noqa: E731


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("images.npz", zeros_in_npz, IMAGES),
        ("idx", zeros_in_idx, IMAGES),
        ("pictures.tar.gz", zeros_in_tar, IMAGES),
        ("pictures.tar.gz", long_header, IMAGES),
        ("pictures.zip", zeros_in_zip, IMAGES),
        ("cifar-10-binary.tar.gz", long_header, IMAGES),
        ("text.txt.gz", words(gzip.compress), TEXT),
        ("text.txt.xz", words(lzma.compress), TEXT),
        ("text.txt.bz2", words(bz2.compress), TEXT),
        ("pairs", pairs, lambda data: Translation(data=data, source="en", target="de")),
        ("table.npz", zeros_in_npz, lambda table: Described(lambda: read_table(table, version_of(table)))),
        ("pictures.tar.gz", long_header, lambda data: Described(lambda: for_data(data))),
        ("pictures.zip", zeros_in_zip, lambda data: Described(lambda: for_data(data))),
    ],
)
def test_a_decompression_bomb_is_refused(
    name: str, write: Callable[[Path, int], None], read: Callable[[str], Any], small_bound: int, tmp_path: Path
) -> None:
    write(tmp_path / name, small_bound)
    with pytest.raises(DataError, match="decompression bomb"):
        read(str(tmp_path / name)).describe_data()


class Described:
    """What reads a table, or guesses a recipe, as the others are read."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.describe_data = read


def test_what_packs_well_and_is_small_is_read(tmp_path: Path) -> None:
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(b"the same words again\n" * 4000))
    assert LanguageModel(data=str(tmp_path / "text.txt.gz")).describe_data()["vocabulary"] > 3


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    for kind, shape in (("|S0", (10**15,)), ("|u1", (10**15,)), ("<f8", (2**62, 4)), ("|u1", (-1,))):
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
            for name in ("x_train", "y_train"):
                archive.writestr(f"{name}.npy", head.getvalue())
        with pytest.raises(DataError, match=r"claim\.npz"):
            ImageClassification(data=str(tmp_path / "claim.npz")).describe_data()
        with pytest.raises(DataError, match=r"claim\.npz"):
            unpacking.read_npz(tmp_path / "claim.npz", ["x_train"])


def test_objects_in_arrays_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", x_train=np.array([print], dtype=object), y_train=np.zeros(1, int))
    with pytest.raises(DataError, match="pickles and are not opened"):
        ImageClassification(data=str(tmp_path / "o.npz")).describe_data()


def test_a_long_field_of_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("op,accuracy\n" + "a" * 200_000 + ",1\n")
    with pytest.raises(DataError, match="field larger than field limit"):
        read_table(str(tmp_path / "t.csv"), version_of(str(tmp_path / "t.csv")))


def test_pictures_that_never_end_are_refused(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for i in range(3):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            picture(tmp_path / "data" / label / f"{i}.png")
    os.mkfifo(tmp_path / "data" / "cat" / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "data" / "dog" / "zero.png")
    with pytest.warns(UserWarning, match=r"2 of 8 files .*(?s:.*)pipe.png: is no file"):
        described = ImageClassification(data=str(tmp_path / "data")).describe_data()
    assert described["train"] + described["validation"] + described["test"] == 6


def test_no_path_in_an_archive_leads_out_of_it(tmp_path: Path) -> None:
    for name in ("../../cat/a.png", "/cat/a.png", "C:/cat/a.png", "cat/../../a.png"):
        with tarfile.open(tmp_path / "out.tar.gz", "w:gz") as archive:
            member(archive, name, b"x")
        with pytest.raises(DataError, match="leads out of the archive"):
            ImageClassification(data=str(tmp_path / "out.tar.gz")).describe_data()
    with tarfile.open(tmp_path / "links.tar.gz", "w:gz") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member(archive, f"cat/{kind.decode()}.png", type=kind, linkname="/etc/hostname")
    with pytest.raises(DataError, match="no picture that can be read"):
        ImageClassification(data=str(tmp_path / "links.tar.gz")).describe_data()
    assert {file.name for file in tmp_path.iterdir()} == {"out.tar.gz", "links.tar.gz"}, "something was extracted"


# --- genotypes --------------------------------------------------------------------------------------------------------

GOOD = sample(ConvChain(layers=2), Random(0)).to_json()
WORST: tuple[Any, ...] = (
    None, True, -1, 2**63, 10**400, float("nan"), float("inf"), "", "\ud800", "A" * 10**6, [], {}, [[]], [0] * 10**5,
)  # fmt: skip


@pytest.mark.parametrize("where", ["name", "version", "options", "layers", "answers", "an answer"])
def test_a_genotype_with_anything_in_it_is_refused_in_words(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    for value in WORST:
        genotype = json.loads(json.dumps(GOOD))
        place = {"layers": genotype["space"]["options"], "an answer": genotype["answers"], "answers": genotype}
        key = next(iter(genotype["answers"])) if where == "an answer" else where
        place.get(where, genotype["space"])[key] = value
        if genotype == GOOD:
            continue
        assert main(["describe", json.dumps(genotype)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert len(said.err) < 2000, "what is told of it is as long as itself"


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 100_000, '{"space": 1, "space": 2, "answers": {}}', '{"space": {"name": NaN}, "answers": {}}',
     "1" * 10_000, '{"space": {"name": "ConvChain", "name": "NASNetCell"}, "answers": {}}', "\x00", "{", '"\\ud800"'],
)  # fmt: skip
def test_a_text_that_is_no_genotype_is_refused_in_words(text: str) -> None:
    with pytest.raises(IllegalGenotype):
        Genotype.from_json(text)
    assert main(["describe", text]) == 2


def test_a_key_stands_once_and_a_number_is_one() -> None:
    assert read_json('{"a": {"b": [1, 2.5, null]}}') == {"a": {"b": [1, 2.5, None]}}
    with pytest.raises(ValueError, match="'b' stands twice"):
        read_json('{"a": {"b": 1, "b": 2}}')
    for name in ("NaN", "Infinity", "-Infinity"):
        with pytest.raises(ValueError, match="no number that JSON has"):
            read_json(f"[{name}]")


# --- models and weights -----------------------------------------------------------------------------------------------


def model() -> ImageModel:
    space, task = ConvChain(layers=1, filters=(16,)), Task((1, 8, 8), 2)
    genotype = sample(space, Random(0))
    torch.manual_seed(0)
    return ImageModel(
        name="shapes",
        network=build(space, genotype, task).model,
        task=task,
        class_names=["a", "b"],
        preprocessing={"height": 8, "width": 8, "channels": 1, "scale": 1 / 255, "whiten": False, "upsample": 1.0},
        space=to_config(space),
        genotype=genotype.to_json(),
        architecture=decode(space, genotype),
    )


def picture(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(path)


def test_a_model_whose_card_or_weights_were_changed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(export(model(), path=tmp_path / "model"))
    picture(tmp_path / "a.png")
    card, weights = json.loads((folder / "model.json").read_text()), (folder / "model.safetensors").read_bytes()
    spaces = [
        {"type": "os:system"},
        {"type": "spaces.ConvChain", "layers": 10**9},
        {"type": "spaces.Product"},
        "ConvChain",
    ]
    shapes = [[1, 10**9, 10**9], [1, -1, 8], "x", [10**12, 8, 8]]
    wrong = [{"space": space} for space in spaces]
    wrong += [{"task": {"input_shape": shape, "num_classes": 2}} for shape in shapes]
    wrong += [
        {"task": {"input_shape": [1, 8, 8], "num_classes": 10**9}},
        {"weights": {"sha256": "0" * 64}},
        {"kind": {}},
    ]
    for change in wrong:
        (folder / "model.json").write_text(json.dumps(card | change))
        assert main(["predict", str(folder), str(tmp_path / "a.png")]) == 2, change
        assert capsys.readouterr().err.startswith("error: ")
    (folder / "model.json").write_text(json.dumps(card))
    for content in (b"", weights[:100], b"\xff" * 8 + weights[8:], weights.replace(b"F32", b"I64")):
        (folder / "model.safetensors").write_bytes(content)
        assert main(["predict", str(folder), str(tmp_path / "a.png")]) == 2


def test_weights_are_read_as_their_name_promises_or_not_at_all(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    digest = folder.put({"w": torch.ones(2)})
    file = tmp_path / f"{digest}.safetensors"
    file.write_bytes(file.read_bytes().replace(b"F32", b"F16"))
    for read in (folder.get, folder.metadata):
        with pytest.raises(ArchsmithError, match="damaged"):
            read(digest)
    for name in ("../../etc/passwd", "/etc/passwd", "a" * 63, "A" * 64):
        with pytest.raises(UsageError, match="64 hexadecimal digits"):
            folder.get(name)


# --- what is shown ----------------------------------------------------------------------------------------------------

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`$ \x1b]0;owned\x07\x1b[2J\r\u202e"


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run in whose record every text that may be any is hostile."""
    path = tmp_path_factory.mktemp("hostile") / "runs.db"

    def evaluator(architecture: Any) -> dict[str, float]:
        if len(str(architecture)) % 3 == 0:
            raise ValueError(HOSTILE)
        return {"accuracy": 0.5, HOSTILE: 1.0}

    def space(choose: Any) -> list[Any]:
        return [choose(f"{i}.op{HOSTILE}", (HOSTILE, "b", "c")) for i in range(2)]

    run = smith.search(
        space,
        evaluator,
        reward=lambda result: 0.5,
        trials=8,
        store=f"sqlite:///{path}",
        name="hostile",
        note={"recipe": HOSTILE},
    )
    assert run.summary.counts["failed"]
    with sqlite3.connect(path) as connection:
        (text,) = connection.execute("SELECT config FROM runs").fetchone()
        config = json.loads(text)
        config["command"], config["dataset"] = HOSTILE, {"name": HOSTILE, "classes": [HOSTILE], "remarks": [HOSTILE]}
        config["versions"][HOSTILE] = HOSTILE
        config["space"] |= {"name": HOSTILE}
        connection.execute("UPDATE runs SET config = ?, name = ?", (json.dumps(config), f"x{HOSTILE}"))
    connection.close()
    return str(path)


def test_a_hostile_record_steers_no_terminal(hostile_store: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"x{HOSTILE}"
    for command in (["list"], ["show", name], ["top", name], ["best", name], ["show", "no such run"], ["resume", name]):
        assert main([*command, "--store", hostile_store]) in (0, 1, 2)
        said = capsys.readouterr()
        for text in (said.out, said.err):
            assert said.out or said.err
            assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}, f"{command} lets a control character through"


def test_a_hostile_record_makes_no_markup(hostile_store: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", f"x{HOSTILE}", "--store", hostile_store, "-o", str(page)]) == 0
    text = page.read_text()
    found = Elements()
    found.feed(text)
    assert "alert(1)" in text, "the hostile text is nowhere, so nothing was tested"
    assert not found.tags & {"script", "img", "iframe", "object", "embed", "form", "base"}
    assert not {name for name in found.attributes if name.startswith("on")}
    assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}


def test_colours_reach_a_terminal_and_nothing_else_does() -> None:
    written = io.StringIO()
    stream = PlainStream(written, r"\x1b\[[0-9;]*m")
    stream.write("\x1b[1;31mred\x1b[0m \x1b[2J \x1b]0;title\x07 \x9b2J \u202e\ttab\n\ud800")
    assert written.getvalue() == ("\x1b[1;31mred\x1b[0m \\x1b[2J \\x1b]0;title\\x07 \\x9b2J \\u202e\ttab\n\\ud800")
    written = io.StringIO()
    PlainStream(written, None).writelines(["\x1b[1mbold", "plain\n"])
    assert written.getvalue() == "\\x1b[1mboldplain\n"
    assert plain("Grüße, 世界\n") == "Grüße, 世界\n"


# --- ports ------------------------------------------------------------------------------------------------------------


def test_a_search_opens_no_port() -> None:
    """Neither this process nor its workers, while children are trained; a cluster's ports are Ray's own."""
    me = psutil.Process()
    before = {c.laddr for c in me.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    seen: list[int] = []

    def look(*event: Any) -> None:
        processes = [me, *me.children(recursive=True)]
        seen.append(len(processes))
        for process in processes:
            try:
                with_ports = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            except psutil.NoSuchProcess:  # a child that has ended meanwhile
                continue
            assert {c.laddr for c in with_ports} <= before, f"{process} listens on {with_ports}"

    smith.search(ConvChain(layers=2), Landscape(), trials=6, executor=ProcessPool(2), store="memory://", watch=look)
    assert max(seen) >= 2, "no worker was there to be looked at"


@pytest.mark.campaign
def test_a_minute_of_broken_files() -> None:
    import subprocess

    script = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
    ended = subprocess.run([sys.executable, str(script), "--seconds", "60"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
