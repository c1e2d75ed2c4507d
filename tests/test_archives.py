"""Archives of pictures from any tool: names in every encoding, links, copies, and the ways in which each tool writes them."""

from __future__ import annotations

import io
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archsmith.core.errors import DataError
from archsmith.core.shown import spelled
from archsmith.data import images as data
from archsmith.data.archive_listing import list_archive
from archsmith.data.text import load as load_text
from archsmith.recipes import for_data

Members = list[tuple[bytes, bytes]]


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def members(*folders: bytes, slash: bytes = b"/", count: int = 2) -> Members:
    return [(f + slash + b"%d.png" % i, png(10 * k + i)) for k, f in enumerate(folders) for i in range(count)]


class RawName(zipfile.ZipInfo):
    """A member whose name is written as these bytes, and not said to be UTF-8 unless asked."""

    raw, says_utf8 = b"", False

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return self.raw, self.flag_bits | 0x800 * self.says_utf8


def zipped(path: Path, content: Members, *, windows: bool = False, says_utf8: bool = False, extra: Callable[[bytes], bytes] = lambda raw: b"", method: int = 0) -> Path:  # fmt: skip
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for raw, body in content:
            info = RawName(raw.decode("latin-1"))
            info.raw, info.says_utf8, info.extra, info.compress_type = raw, says_utf8, extra(raw), method
            info.create_system, info.external_attr = (0, 0) if windows else (3, 0o644 << 16)
            archive.writestr(info, body)
    return path


def tarred(path: Path, entries: Iterable[tuple[str, bytes | tuple[bytes, str]]], form: int = tarfile.PAX_FORMAT, encoding: str = "utf-8") -> Path:  # fmt: skip
    mode = {".tar": "w", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}[path.suffix]
    with tarfile.open(path, mode, format=form, encoding=encoding, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for name, body in entries:
            info = tarfile.TarInfo(name)
            if isinstance(body, bytes):
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
            else:
                info.type, info.linkname = body
                archive.addfile(info)
    return path


def named(*folders: str) -> list[tuple[str, bytes | tuple[bytes, str]]]:
    return [(f"{f}/{i}.png", png(10 * k + i)) for k, f in enumerate(folders) for i in range(2)]


def classes(path: Path) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return data.load(str(path)).class_names


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("utf-8", ("caf\u00e9", "кошки", "日本")),  # as macOS and many others write it, without saying so
        ("cp437", ("caf\u00e9", "ni\u00f1o", "\u00fcber", "\u03a9_resistor", "50\u00b0")),
        ("cp850", ("n\u00e3o", "\u00d8deg\u00e5rd", "caf\u00e9")),
        ("cp866", ("кошки", "СОБАКИ", "ёж 2")),
        ("cp1251", ("кошки", "собаки")),
    ],
)
def test_names_of_a_zip_that_does_not_say_how_they_are_encoded(
    encoding: str, names: Sequence[str], tmp_path: Path
) -> None:
    archive = zipped(tmp_path / "a.zip", members(*(name.encode(encoding) for name in names)), windows=True)
    assert classes(archive) == tuple(sorted(names))


def test_names_in_no_known_encoding_keep_their_bytes(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", members(*(name.encode("gbk") for name in ("猫", "狗"))))
    assert classes(archive) == (r"\xb9\xb7", r"\xc3\xa8")
    assert classes(tarred(tmp_path / "a.tgz", named("caf\udce9", "dog"))) == (r"caf\xe9", "dog")


def test_the_names_of_info_zips_extra_field_come_first(tmp_path: Path) -> None:
    def extra(raw: bytes) -> bytes:
        name = raw.decode("gbk").encode()
        return struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(raw)) + name

    archive = zipped(tmp_path / "a.zip", members(*(name.encode("gbk") for name in ("猫", "狗"))), extra=extra)
    assert classes(archive) == ("狗", "猫")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.xz", ".tbz2"])
def test_a_tar_of_any_format(form: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    inner = "x" * 60  # longer than a header has room for
    tarred(path.with_suffix(".bz2") if suffix == ".tbz2" else path, named(f"./{inner}/{inner}/caf\u00e9", f"{inner}/{inner}/日本"), form)  # fmt: skip
    if suffix == ".tbz2":
        path.with_suffix(".bz2").rename(path)
    assert classes(path) == ("caf\u00e9", "日本")


def test_names_of_any_characters_are_spelled_the_same_everywhere(tmp_path: Path) -> None:
    names = ("a\nb", "\u202egnp", "\x1b[31m", "caf\udce9", r"caf\xe9", "AC\\DC", "x" * 200)
    expected = tuple(sorted(map(spelled, names)))
    folder = tmp_path / "folder"
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            (folder / name / f"{i}.png").write_bytes(png(10 * k + i))
    assert classes(folder) == classes(tarred(tmp_path / "a.tgz", named(*names))) == expected
    assert expected == ("AC\\DC", r"\u202egnp", r"\x1b[31m", r"a\x0ab", r"caf\\xe9", r"caf\xe9", "x" * 200)


@pytest.mark.parametrize(
    ("content", "windows"),
    [
        (members(b"pets\\cat", b"pets\\dog", slash=b"\\"), False),
        ([(b"pets\\", b""), *members(b"pets/cat", b"pets/dog", slash=b"\\")], True),
        (members(b"./pets//./cat", b"pets/dog"), False),
        ([(b"pets/", b""), (b"pets/cat/", b""), *members(b"pets/cat", b"pets/dog")], False),
        (members(b"cat", b"dog") + members(b"cat"), False),  # twice
    ],
)
def test_folders_in_names_as_any_tool_writes_them(content: Members, windows: bool, tmp_path: Path) -> None:
    read = data.load(str(zipped(tmp_path / "a.zip", content, windows=windows)))
    assert (read.class_names, len(read.labels)) == (("cat", "dog"), 4)


def test_the_last_of_members_with_one_name_counts(tmp_path: Path) -> None:
    twice = tarred(tmp_path / "twice.tgz", [*named("cat", "dog"), ("cat/0.png", png(99))])
    once = tarred(tmp_path / "once.tgz", [("cat/0.png", png(99)), *named("cat", "dog")[1:]])
    assert data.load(str(twice)).digest == data.load(str(once)).digest


def test_what_systems_and_devices_leave_in_an_archive_is_passed_over(tmp_path: Path) -> None:
    left = (
        "__MACOSX/pets/cat/._0.png", "pets/.DS_Store", "pets/cat/Thumbs.db", "pets/cat/@eaDir/0.png/SYNO_THUMB_M.png",
        "pets/.@__thumb/0.png", "pets/#recycle/0.png", "$RECYCLE.BIN/0.png", "System Volume Information/0.png",
        "pets/lost+found/0.png", ".Trashes/0.png", ".Spotlight-V100/0.png", ".fseventsd/0.png", "pets/desktop.ini",
        ".ipynb_checkpoints/0.png", ".git/0.png", "pets/.thumbnails/0.png", "pets/cat/0.png~",
    )  # fmt: skip
    content = members(b"pets/cat", b"pets/dog") + [(name.encode(), png(k + 50)) for k, name in enumerate(left)]
    read = data.load(str(zipped(tmp_path / "a.zip", content)))
    assert (read.class_names, len(read.labels)) == (("cat", "dog"), 4)
    assert f"{len(left)} hidden or system files" in read.layout


# --- links ------------------------------------------------------------------------------------------------------------

SYMBOLIC, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


def test_links_within_an_archive_are_followed(tmp_path: Path) -> None:
    entries = [
        *named("store/real/cat", "store/real/dog"), ("short", (SYMBOLIC, "store")),
        ("train/cat", (SYMBOLIC, "../short/real/cat")), ("train/dog/0.png", (HARD, "store/real/dog/0.png")),
        ("train/dog/again.png", (SYMBOLIC, "0.png")), ("train/dog/1.png", (SYMBOLIC, "../../store/real/dog/1.png")),
    ]  # fmt: skip
    read = data.load(str(tarred(tmp_path / "a.tgz", entries)))
    assert (read.class_names, len(read.labels), read.unreadable, read.remarks) == (("cat", "dog"), 4, (), ())


def test_links_that_lead_nowhere_are_named_and_no_more(tmp_path: Path) -> None:
    dead = {
        "cat/out.png": "../../x.png", "cat/absolute.png": "/etc/passwd", "cat/gone.png": "gone", "cat/up": "..",
        "one": "two", "two": "one", "self": "self",
    }  # fmt: skip
    entries = [*named("cat", "dog"), *((name, (SYMBOLIC, target)) for name, target in dead.items())]
    archive = tarred(tmp_path / "a.tgz", entries)
    assert {"/".join(path) for path, _ in list_archive(archive).dead_ends} == set(dead)
    assert len(data.load(str(archive)).labels) == 4


def test_links_of_a_zip_are_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped(tmp_path / "a.zip", members(b"cat")), "a") as archive:
        link = zipfile.ZipInfo("dog/0.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "../cat/0.png")
    assert classes(tmp_path / "a.zip") == ("cat", "dog")


# --- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_packed_in_any_way(method: int, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", members(b"cat", b"dog"), method=method).rename(tmp_path / "A.ZIP")
    assert classes(tmp_path / "A.ZIP") == ("cat", "dog")


def test_a_zip_with_sizes_of_64_bits(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, body in members(b"cat", b"dog"):
            with archive.open(name.decode(), "w", force_zip64=True) as member:
                member.write(body)
    assert classes(tmp_path / "a.zip") == ("cat", "dog")


def test_a_zip_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    texts = [(b"train.txt", b"a b c"), (b"valid.txt", b"a b"), (b"test.txt", b"a")]
    good = zipped(tmp_path / "a.zip", [*members(b"cat", b"dog"), *texts]).read_bytes()
    for at, value, words in ((8, 9, "compression method"), (6, 1, "is encrypted")):
        bad = bytearray(good)
        for start, offset in ((b"PK\x03\x04", at), (b"PK\x01\x02", at + 2)):
            for found in re.finditer(re.escape(start), good):
                bad[found.start() + offset] = value
        (tmp_path / "bad.zip").write_bytes(bad)
        with pytest.raises(DataError, match=rf"{words}.*unpack it yourself"):
            data.load(str(tmp_path / "bad.zip"))
        with pytest.raises(DataError, match=rf"{words}.*unpack it yourself"):
            load_text(str(tmp_path / "bad.zip"))
    liar = zipped(tmp_path / "liar.zip", members(b"caf\xe9", b"dog"), says_utf8=True)
    for read in (data.load, load_text, for_data):
        with pytest.raises(DataError, match=r"not UTF-8, as it says.*unpack it yourself"):
            read(str(liar))


def test_an_archive_of_python_snakes_or_with_a_stray_file_is_none_of_pickles(tmp_path: Path) -> None:
    stray = [("train.bin", b"x"), ("meta", b"x"), ("LICENSE", b"x")]
    assert classes(tarred(tmp_path / "ball-python.tgz", [*stray, *named("corn", "king")])) == ("corn", "king")


def test_a_path_without_end_is_passed_over(tmp_path: Path) -> None:
    read = data.load(str(tarred(tmp_path / "a.tgz", [*named("cat", "dog"), ("d/" * 3000 + "x.png", png(0))])))
    assert (read.class_names, len(read.labels)) == (("cat", "dog"), 4)
    assert "d (more than 100 folders deep)" in read.layout
