"""Strangers' files: real ones of every kind that archsmith reads, broken at random, and bombs built on purpose.

    python benchmarks/fuzz.py --seconds 180                                       the table on stdout
    python benchmarks/fuzz.py --seconds 180 --out benchmarks/results/fuzz.md

Each case is read by a process of its own, by the command or the class that a person would use. It passes when that ends with exit
status 0, 1 or 2 (a file may be broken where nothing reads it), says why in words and not by a traceback, within 20 seconds of
processor time and 1.5 GiB of memory above what the process began with. Whatever fails is kept, with the seed that makes it again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import bz2
import contextlib
import gzip
import io
import json
import lzma
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import archsmith as smith
from archsmith._export import FORMATS, ImageModel, TextModel, export
from archsmith._export.vocabulary import Vocabulary
from archsmith.cli.main import main as command
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.child import Task, TextTask
from archsmith.core.config import to_config
from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.space import build, decode, sample
from archsmith.searchers import Random, Reinforce
from archsmith.spaces import ConvChain, NASNetCell, RecurrentCell
from archsmith.training import ImageClassification, Landscape, LanguageModel, Tabular, Translation

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

PROCESSOR_SECONDS, WALL_SECONDS = 20, 180
MEMORY = 3 << 29  # bytes, resident, above what a case begins with
ADDRESSES = 4 << 30  # bytes, of addresses: a case that would eat the machine meets this first


@dataclass(frozen=True)
class Target:
    """Files, and what reads them.

    Args:
        kind: of the files, as the table calls them.
        root: the file or folder that is copied for each case.
        broken: which of its files may be broken, by their paths in it; of a file, "".
        read: given the copy, gives an exit status or raises.
    """

    kind: str
    root: Path
    broken: tuple[str, ...]
    read: Callable[[Path], int | None]


@dataclass(frozen=True)
class Outcome:
    """How a case ended: its status, what it said, what it took."""

    status: int | None
    text: str
    seconds: float
    memory: int

    @property
    def verdict(self) -> str:
        """ "read", "refused", or how it failed."""
        if self.status is None:
            return "hung"
        if self.memory > MEMORY or "MemoryError" in self.text:
            return "too much memory"
        if "Traceback (most recent call last)" in self.text or self.status not in (0, 1, 2):
            return "crashed"
        return "read" if self.status == 0 else "refused"


def attempt(target: Target, copy: Path) -> Outcome:
    """Read a copy in a child of this process, within its limits."""
    said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with this process's last word of it)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setsid()
            os.kill = os.killpg = _no_killing  # type: ignore[assignment]  # a number in a file must never become a process
            for stream in (0, 1, 2):
                os.dup2(said.fileno() if stream else os.open(os.devnull, os.O_RDONLY), stream)
            with open("/proc/self/statm") as pages:
                held = int(pages.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESSES,) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS,) * 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            status = _status(target, copy)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    ended, signalled, usage = 0, 0, None
    while not ended:
        ended, signalled, usage = os.wait4(child, os.WNOHANG)
        if not ended:
            if time.monotonic() - began > WALL_SECONDS:
                os.kill(child, signal.SIGKILL)
                _, signalled, usage = os.wait4(child, 0)
                signalled = -signal.SIGXCPU
                break
            time.sleep(0.005)
    said.seek(0)
    text = said.read(1 << 20).decode(errors="replace")
    assert usage is not None
    memory = max(0, usage.ru_maxrss - before) * 1024
    hung = signalled < 0 or (os.WIFSIGNALED(signalled) and os.WTERMSIG(signalled) in (signal.SIGXCPU, signal.SIGKILL))
    status = None if hung else os.waitstatus_to_exitcode(signalled)
    return Outcome(status, text, usage.ru_utime + usage.ru_stime, memory)


def _no_killing(process: int, number: int) -> None:
    raise AssertionError(f"signal {number} was to be sent to process {process}")


def _status(target: Target, copy: Path) -> int:
    """As the command line gives it."""
    try:
        return target.read(copy) or 0
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ArchsmithError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


# --- real files -------------------------------------------------------------------------------------------------------


def targets(folder: Path) -> list[Target]:
    """A real file, or a folder of them, of every kind."""
    made: list[Target] = []
    rng = np.random.default_rng(0)

    def add(kind: str, root: Path, read: Callable[[Path], int | None], *broken: str) -> None:
        made.append(Target(kind, root, broken or ("",), read))

    stores = folder / "store"
    stores.mkdir()
    for name, searcher in (("one", Reinforce.small()), ("one-random", Random())):
        where = f"sqlite:///{stores / 'runs.db'}"
        smith.search(ConvChain(layers=3), Landscape(), searcher=searcher, trials=12, store=where, name=name)
    for verb in (["list"], ["show", "one"], ["top", "one"], ["report", "one", "-o", os.devnull], ["compare", "one"]):
        add(
            f"store: {verb[0]}",
            stores,
            lambda p, v=verb: command(
                [*[x if x != os.devnull else str(p / "page.html") for x in v], "--store", str(p / "runs.db")]
            ),  # type: ignore[misc]
            "runs.db",
        )
    add(
        "store: resume",
        stores,
        lambda p: command(
            ["resume", "one", "--trials", "14", "--executor", "in-process", "--store", str(p / "runs.db")]
        ),
        "runs.db",
    )

    chain, cell = ConvChain(layers=2, filters=(16,)), RecurrentCell()
    genotypes = folder / "genotypes"
    genotypes.mkdir()
    for name, space in (("chain", ConvChain(layers=4)), ("nasnet", NASNetCell()), ("cell", cell)):
        file = genotypes / f"{name}.json"
        file.write_text(json.dumps(sample(space, random.Random(0)).to_json()))
        add("genotype: describe", file, lambda p: command(["describe", str(p)]))
    add("genotype: draw", genotypes / "nasnet.json", lambda p: command(["draw", str(p)]))

    genotype, task = sample(chain, random.Random(0)), Task((1, 8, 8), 3)
    torch.manual_seed(0)
    picture = folder / "picture.png"
    Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(picture)
    images = ImageModel(
        name="shapes",
        network=build(chain, genotype, task).model,
        task=task,
        class_names=["a", "b", "c"],
        preprocessing={"height": 8, "width": 8, "channels": 1, "scale": 1 / 255, "whiten": True, "upsample": 1.0},
        space=to_config(chain),
        genotype=genotype.to_json(),
        architecture=decode(chain, genotype),
        card={"classes": ["a"]},
    )
    given, text_task = sample(cell, random.Random(0)), TextTask(9, hidden=8)
    texts = TextModel(
        name="words",
        network=build(cell, given, text_task).model,
        vocabulary=Vocabulary("word", ("the", "<eos>", "of", "company", "said", "a", "N", "year", "<unk>")),
        space=to_config(cell),
        genotype=given.to_json(),
        architecture=decode(cell, given),
    )
    for what, model in (("images", images), ("text", texts)):
        for form in FORMATS[:2]:  # the third is a program
            place = Path(export(model, format=form, path=folder / f"{what}-{form}"))
            files = tuple(file.name for file in place.iterdir() if file.suffix in (".json", ".safetensors", ".onnx"))
            asked = [str(picture)] if what == "images" else ["--continue", "the company"]
            add(f"model: {form}, {what}", place, lambda p, a=asked: command(["predict", str(p), *a]), *files)  # type: ignore[misc]
    for suffix in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"):
        place = folder / f"given.{suffix}"
        Image.open(picture).save(place)
        model_path = str(folder / "images-pytorch")
        add("picture: predict", place, lambda p, m=model_path: command(["predict", m, str(p)]))  # type: ignore[misc]

    def described(evaluator: Callable[[str], Any]) -> Callable[[Path], None]:
        return lambda path: print(evaluator(str(path)).describe_data())

    as_images = described(lambda data: ImageClassification(data=data))
    pictures = folder / "pictures"
    for label in ("cat", "dog"):
        (pictures / label).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (12, 10, 3), np.uint8)).save(
                pictures / label / f"{i}.{'png' if i % 2 else 'jpg'}"
            )
    inner = tuple(str(file.relative_to(pictures)) for file in pictures.rglob("*.*"))
    add("pictures: folder", pictures, as_images, *inner)
    for form, suffix in (("gztar", "tar.gz"), ("zip", "zip"), ("xztar", "tar.xz")):
        packed = shutil.make_archive(str(folder / f"packed-{form}"), form, pictures)
        place = folder / f"pictures-{form}.{suffix}"
        os.replace(packed, place)
        add("pictures: archive", place, as_images)
    arrays = {"x_train": rng.integers(0, 255, (60, 8, 8), np.uint8), "y_train": np.arange(60) % 3}
    np.savez_compressed(folder / "images.npz", **arrays)
    add("images: npz", folder / "images.npz", as_images)
    idx = folder / "idx"
    idx.mkdir()
    for part in ("train", "t10k"):
        for what, body, head in (
            ("images", arrays["x_train"], (60, 8, 8)),
            ("labels", arrays["y_train"].astype(np.uint8), (60,)),
        ):
            raw = bytes([0, 0, 8, len(head)]) + np.array(head, ">u4").tobytes() + body.tobytes()
            (idx / f"{part}-{what}-idx{len(head)}-ubyte.gz").write_bytes(gzip.compress(raw, mtime=0))
    add("images: IDX", idx, as_images, *(file.name for file in idx.iterdir()))
    cifar = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(cifar, "w:gz") as archive:
        for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
            _member(archive, f"cifar-10-batches-bin/{name}", rng.integers(0, 10, 3073 * 40, np.uint8).tobytes())
    add("images: CIFAR", cifar, as_images)

    line = "the company said a year of the company N\n"
    corpus = folder / "corpus"
    corpus.mkdir()
    for part in ("train", "valid", "test"):
        (corpus / f"{part}.txt").write_text(line * 40)
    as_text = described(lambda data: LanguageModel(data=data))
    add("text: folder", corpus, as_text, "train.txt", "valid.txt", "test.txt")
    for suffix, pack in (("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)):
        place = folder / f"text.txt.{suffix}"
        place.write_bytes(pack((line * 60).encode()))
        add("text: packed", place, as_text)
    os.replace(shutil.make_archive(str(folder / "texts"), "zip", corpus), folder / "texts.zip")
    add("text: archive", folder / "texts.zip", as_text)
    pairs = folder / "pairs"
    pairs.mkdir()
    for language in ("en", "de"):
        (pairs / f"train.{language}.gz").write_bytes(gzip.compress("".join(f"{i} {line}" for i in range(60)).encode()))
    add(
        "text: pairs",
        pairs,
        described(lambda data: Translation(data=data, source="en", target="de")),
        "train.en.gz",
        "train.de.gz",
    )

    columns = {"op": np.array(["a", "b", "c"] * 4), "width": np.arange(12) % 4, "accuracy": rng.random(12)}
    np.savez(folder / "table.npz", **columns)
    rows = "op,width,accuracy\n" + "".join(f"{a},{b},{c}\n" for a, b, c in zip(*columns.values(), strict=True))
    (folder / "table.csv").write_text(rows)
    kinds = ["npz", "csv"]
    with contextlib.suppress(ImportError):
        import pandas

        pandas.DataFrame(columns).to_parquet(folder / "table.parquet")
        kinds.append("parquet")
    for kind in kinds:
        add(f"table: {kind}", folder / f"table.{kind}", _looked_up)

    kept = folder / "weights"
    digest = ArtifactFolder(kept).put({"weight": torch.zeros(4, 5)}, {"epoch": 3})
    add(
        "artifact",
        kept,
        lambda p: print(ArtifactFolder(p).get(digest), ArtifactFolder(p).metadata(digest)),
        f"{digest}.safetensors",
    )
    return made


def _looked_up(path: Path) -> None:
    def rows(choose: Any) -> dict[str, Any]:
        return {"op": choose("op", ("a", "b", "c")), "width": choose("width", (0, 1, 2, 3))}

    evaluator = Tabular(str(path), "accuracy")
    run = smith.search(rows, evaluator, trials=4, store="memory://")
    print([trial.reward for trial in run.trials()])


def _member(archive: tarfile.TarFile, name: str, content: bytes, **attributes: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


# --- breaking them ----------------------------------------------------------------------------------------------------

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`$\\frac{$ \x1b]0;owned\x07\x1b[2J\r\u202e"
WORST: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 10**400, -(10**18), 1e308, float("nan"), float("inf"), "", HOSTILE, "\ud800", "A" * 10**6,
    [], {}, [[]], [0] * 10**5, "../../../../etc/passwd", "os:system", "spaces.Product", "1" * 5000,
)  # fmt: skip


def broken(path: Path, rng: random.Random) -> str:
    """Break a file in place; gives how."""
    if path.suffix == ".db" and rng.random() < 0.7:
        return _broken_database(path, rng)
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        return _broken_json(path, content.decode(), rng)
    if path.suffix == ".safetensors" and rng.random() < 0.5:
        size = int.from_bytes(content[:8], "little")
        header = _worse(json.loads(content[8 : 8 + size]), rng)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
        return "another header"
    if path.suffix in (".gz", ".xz", ".bz2") and rng.random() < 0.6:  # what is inside, so that its checksum holds
        unpack, pack = {
            ".gz": (gzip.decompress, gzip.compress),
            ".xz": (lzma.decompress, lzma.compress),
            ".bz2": (bz2.decompress, bz2.compress),
        }[path.suffix]
        inside, how = _flipped(unpack(content), rng)  # type: ignore[operator]
        path.write_bytes(pack(inside))  # type: ignore[operator]
        return f"{how}, inside"
    if path.suffix in (".zip", ".npz") and rng.random() < 0.6:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            members = {info.filename: old.read(info) for info in old.infolist()}
        chosen = rng.choice(list(members))
        members[chosen], how = _flipped(members[chosen], rng)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name, inside in members.items():
                new.writestr(name, inside)
        return f"{how}, inside"
    changed, how = _flipped(content, rng)
    path.write_bytes(changed)
    return how


def _flipped(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Bytes changed, cut, doubled, put in, or made extreme; more often near the beginning, where headers are."""
    data = bytearray(content) or bytearray(1)

    def place() -> int:
        return rng.randrange(min(len(data), 512) if rng.random() < 0.5 else len(data))

    match rng.randrange(6):
        case 0:
            for _ in range(rng.choice((1, 1, 2, 5, 20))):
                data[place()] ^= 1 << rng.randrange(8)
            return bytes(data), "bits flipped"
        case 1:
            return bytes(data[: place()]), "cut off"
        case 2:
            start = place()
            data[start:start] = data[start : start + rng.randrange(1, 300)] * rng.choice((1, 3, 100))
            return bytes(data), "a piece repeated"
        case 3:
            start = place()
            data[start:start] = rng.randbytes(rng.choice((1, 4, 64, 5000)))
            return bytes(data), "noise put in"
        case 4:
            start, width = place(), rng.choice((1, 2, 4, 8))
            data[start : start + width] = rng.choice((b"\xff", b"\x00", b"\x7f", b"\x80")) * width
            return bytes(data), "a number made extreme"
        case _:
            start = place()
            word = rng.choice(
                (b"<script>", b"\x1b[31m", b"NaN", b"9" * 400, b"\0", b"../" * 9, "é\u202e".encode(), b"[" * 9999)
            )
            data[start : start + rng.choice((0, len(word)))] = word
            return bytes(data), "a word put in"


def _broken_json(path: Path, text: str, rng: random.Random) -> str:
    match rng.randrange(5):
        case 0:
            depth = rng.choice((100, 5000, 200_000))
            place = rng.randrange(len(text))
            path.write_text(text[:place] + "[" * depth + "]" * depth + text[place:])
            return "nested deep"
        case 1:
            value = json.loads(text)
            head = json.dumps(next(iter(value)))
            path.write_text("{" + f"{head}: {json.dumps(rng.choice(WORST[:4]))}, " + text.lstrip()[1:])
            return "a key twice"
        case _:
            path.write_text(json.dumps(_worse(json.loads(text), rng)))
            return "another value"


def _worse(value: Any, rng: random.Random) -> Any:
    """A tree with one node, anywhere, replaced by one of the worst values, renamed, or removed."""
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        node = pending.pop()
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in inner:
            places.append((node, key))
            pending.append(child)
    if not places:
        return rng.choice(WORST)
    node, key = rng.choice(places)
    if isinstance(node, dict) and rng.random() < 0.2:
        node[HOSTILE if rng.random() < 0.5 else f"{key}x"] = node.pop(key)
    elif isinstance(node, dict) and rng.random() < 0.1:
        del node[key]
    else:
        node[key] = rng.choice(WORST)
    return value


def _broken_database(path: Path, rng: random.Random) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        table = rng.choice(tables)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = rng.choice(columns)
        match rng.randrange(6):
            case 0:
                connection.execute(f"ALTER TABLE {table} RENAME TO hidden")
                connection.execute(f"CREATE VIEW {table} AS SELECT * FROM hidden")
                return "a view in a table's place"
            case 1:
                change = f"ALTER TABLE {table} DROP COLUMN {column}" if rng.random() < 0.5 else f"DELETE FROM {table}"
                with contextlib.suppress(sqlite3.Error):  # a column that keys rest on stays
                    connection.execute(change)
                return "rows or a column gone"
        rows = connection.execute(f"SELECT {column} FROM {table}").fetchall()
        if not rows:
            return "nothing"
        found, new = rng.choice(rows)[0], rng.choice(WORST)
        if isinstance(found, str) and found[:1] in "{[":
            new, how = json.dumps(_worse(json.loads(found), rng)), "another value in JSON"
        elif isinstance(found, bytes):
            new, how = _flipped(found, rng)[0], "a snapshot's bytes"
        else:
            how = "another value in a row"
            new = json.dumps(new) if isinstance(new, list | dict) else new
            new = new if not isinstance(new, int) or -(2**63) <= new < 2**63 else str(new)[:3000]
            new = new.encode(errors="surrogatepass") if isinstance(new, str) and rng.random() < 0.3 else new
        with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} IS ?", (new, found))
        return how


# --- bombs ------------------------------------------------------------------------------------------------------------


def bombs(folder: Path, made: list[Target]) -> Iterator[tuple[Target, str]]:
    """What no accident makes: small files that want to be large, or to be elsewhere."""
    readers = {target.kind: target.read for target in made}

    def bomb(kind: str, name: str, what: str, write: Callable[[Path], None]) -> tuple[Target, str]:
        path = folder / f"bomb-{name}"
        write(path)
        return Target(kind, path, (), readers[kind]), what

    zeros = 2 << 30

    def packed_zeros(head: bytes = b"") -> bytes:
        squeeze, parts = zlib.compressobj(1, wbits=31), []
        parts.append(squeeze.compress(head))
        for _ in range(zeros >> 24):
            parts.append(squeeze.compress(bytes(1 << 24)))
        return b"".join([*parts, squeeze.flush()])

    flat = packed_zeros()
    flat_idx = b"\0\0\x08\x03" + np.array((1 << 30, 8, 8), ">u4").tobytes()

    def write_idx(path: Path) -> None:
        path.mkdir()
        for part in ("train", "t10k"):
            (path / f"{part}-images-idx3-ubyte.gz").write_bytes(packed_zeros(flat_idx))
            (path / f"{part}-labels-idx1-ubyte.gz").write_bytes(
                packed_zeros(b"\0\0\x08\x01" + np.array((1 << 30,), ">u4").tobytes())
            )

    yield bomb("images: IDX", "idx", "2 GiB of zeros in .gz", write_idx)

    def write_npz(path: Path) -> None:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|u1", "fortran_order": False, "shape": (zeros >> 6, 8, 8)}
        )
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("x_train.npy", "w", force_zip64=True) as member:
                member.write(head.getvalue())
                for _ in range(zeros >> 24):
                    member.write(bytes(1 << 24))
            labels = io.BytesIO()
            np.save(labels, np.zeros(4, np.int64))
            archive.writestr("y_train.npy", labels.getvalue())

    yield bomb("images: npz", "images.npz", "2 GiB of zeros", write_npz)
    yield bomb("table: npz", "table.npz", "2 GiB of zeros", write_npz)

    def write_claim(path: Path) -> None:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|S0", "fortran_order": False, "shape": (10**15,)})
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("x_train", "y_train", "accuracy"):
                archive.writestr(f"{name}.npy", head.getvalue())

    yield bomb("images: npz", "claim.npz", "10^15 empty entries", write_claim)
    yield bomb("table: npz", "claim-table.npz", "10^15 empty entries", write_claim)

    def write_pictures(path: Path) -> None:
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for i in range(24):
                info = tarfile.TarInfo(f"cat/{i}.png")
                info.size = 1 << 28
                archive.addfile(info, _Zeros())

    yield bomb("pictures: archive", "pictures.tar.gz", "24 pictures of 256 MiB", write_pictures)

    def write_header(path: Path) -> None:
        head = tarfile.TarInfo("x")
        head.type, head.size = tarfile.XHDTYPE, zeros
        path.write_bytes(gzip.compress(head.tobuf()) + flat)

    yield bomb("pictures: archive", "header.tar.gz", "a header of 2 GiB", write_header)
    yield bomb("images: CIFAR", "cifar-10-binary.tar.gz", "a header of 2 GiB", write_header)

    def write_out(path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            _member(archive, "../../outside/cat.png", b"x")
            _member(archive, "cat/link.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")

    yield bomb("pictures: archive", "out.tar.gz", "paths and links that lead out", write_out)

    def write_endless(path: Path) -> None:
        (path / "cat").mkdir(parents=True)
        os.mkfifo(path / "cat" / "pipe.png")
        os.symlink("/dev/zero", path / "cat" / "zero.png")

    yield bomb("pictures: folder", "endless", "a pipe and a device", write_endless)
    yield bomb("picture: predict", "zero.png", "a link to a device", lambda path: os.symlink("/dev/zero", path))

    def write_text(path: Path) -> None:
        squeeze, parts = zlib.compressobj(6, wbits=31), []
        for _ in range(zeros >> 24):
            parts.append(squeeze.compress(b"a b c d\n" * (1 << 21)))
        path.write_bytes(b"".join([*parts, squeeze.flush()]))

    yield bomb("text: packed", "text.txt.gz", "2 GiB of words", write_text)

    def write_pairs(path: Path) -> None:
        path.mkdir()
        write_text(path / "train.en.gz")
        shutil.copy(path / "train.en.gz", path / "train.de.gz")

    yield bomb("text: pairs", "pairs", "2 GiB of words", write_pairs)
    yield bomb("text: packed", "endless.txt", "a link to a device", lambda path: os.symlink("/dev/zero", path))
    yield bomb(
        "table: csv",
        "field.csv",
        "a field of 8 MB",
        lambda path: path.write_text("op,accuracy\n" + "a" * 8_000_000 + ",1\n") and None,
    )
    if "table: parquet" in readers:

        def write_parquet(path: Path) -> None:
            import pyarrow
            from pyarrow import parquet

            column = pyarrow.array(np.zeros(1 << 26, np.int8))
            parquet.write_table(pyarrow.table({f"c{i}": column for i in range(8)}), path)

        yield bomb("table: parquet", "table.parquet", "half a billion equal cells", write_parquet)


class _Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


# --- the campaign -----------------------------------------------------------------------------------------------------


def copied(target: Target, folder: Path) -> Path:
    """A copy of a target's files, where the last case's was."""
    copy = folder / "case" / target.root.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    copy.parent.mkdir()
    (shutil.copytree if target.root.is_dir() else shutil.copy)(target.root, copy)  # type: ignore[operator]
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="break kinds whose names contain this")
    parser.add_argument("--without-bombs", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for what failed")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    worst: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    failures: list[str] = []

    def note(target: Target, how: str, outcome: Outcome, copy: Path, case: str) -> None:
        counts[target.kind][outcome.verdict] += 1
        worst[target.kind] = [max(worst[target.kind][0], outcome.seconds), max(worst[target.kind][1], outcome.memory)]
        if outcome.verdict in ("read", "refused"):
            return
        last = outcome.text.strip().splitlines()[-1:] or ["nothing said"]
        failures.append(f"{target.kind}, {how}, {case}: {outcome.verdict}; {last[0][:200]}")
        print(failures[-1], file=sys.stderr, flush=True)
        if arguments.keep is not None:
            place = arguments.keep / f"{len(failures)}"
            place.mkdir(parents=True, exist_ok=True)
            (place / "said.txt").write_text(outcome.text)
            if copy.exists() and not copy.is_symlink():
                (shutil.copytree if copy.is_dir() else shutil.copy)(copy, place / copy.name)  # type: ignore[operator]

    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        every = targets(folder)
        made = [target for target in every if arguments.only in target.kind]
        for target in made:  # unbroken, each must be read
            outcome = attempt(target, copied(target, folder))
            assert outcome.verdict == "read", f"{target.kind}: {outcome.verdict}: {outcome.text[-2000:]}"
        began, case = time.monotonic(), 0
        while time.monotonic() - began < arguments.seconds:
            rng = random.Random(f"{arguments.seed} {case}")
            target = made[case % len(made)]
            copy = copied(target, folder)
            chosen = rng.choice(target.broken)
            how = broken(copy / chosen if chosen else copy, rng)
            note(target, how, attempt(target, copy), copy, f"seed {arguments.seed}, case {case}")
            case += 1
        everything = [] if arguments.without_bombs else list(bombs(folder, every))
        for target, what in everything:
            note(target, what, attempt(target, target.root), target.root, "a bomb")
    verdicts = ("read", "refused", "crashed", "hung", "too much memory")
    lines = [
        "# Strangers' files",
        "",
        f"`python benchmarks/fuzz.py --seconds {arguments.seconds:g} --seed {arguments.seed}`; {case} files broken at random and "
        f"{len(everything)} bombs; {machine()}.",
        "",
        "A case passes when it is read or refused: exit status 0, 1 or 2, no traceback, within "
        f"{PROCESSOR_SECONDS} s of processor time and {MEMORY / 2**30:g} GiB.",
        "",
        f"| file: command | {' | '.join(verdicts)} | most seconds | most memory, MiB |",
        "|---" * (len(verdicts) + 3) + "|",
        *(
            f"| {kind} | {' | '.join(str(counts[kind][v]) for v in verdicts)} | {worst[kind][0]:.1f} | {worst[kind][1] / 2**20:.0f} |"
            for kind in sorted(counts)
        ),
        "",
        *([f"- {line}" for line in failures] or ["Nothing failed."]),
        "",
    ]
    tell("\n".join(lines), arguments.out)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
