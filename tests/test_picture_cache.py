"""The cache of decoded pictures: equal to the bit, found by content, bounded, and safe to damage, delete and share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archsmith.data import decoding, picture_cache
from archsmith.data.image_files import read_path
from archsmith.data.images import Bytes, ImageData

COUNT = decoding.CACHED_FROM + 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ARCHSMITH_CACHE_GB", "1")
    monkeypatch.setattr(picture_cache, "_said", set())
    return tmp_path / "cache" / "pictures"


def pictures(folder: Path, count: int = COUNT, mode: str = "RGB", seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for i in range(count):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shape = (9, 12) if mode == "L" else (9, 12, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / "ab"[i % 2] / f"{i}.bmp")
    return folder


def entries(cache: Path) -> list[str]:
    return sorted(each.name for each in cache.iterdir()) if cache.exists() else []


def uncached(path: Path, monkeypatch: pytest.MonkeyPatch, size: int = 8, channels: int | None = None) -> ImageData:
    with monkeypatch.context() as within:
        within.setenv("ARCHSMITH_CACHE_GB", "0")
        return read_path(path, size, channels)


def without_decoding(path: Path, monkeypatch: pytest.MonkeyPatch, channels: int | None = None) -> ImageData:
    """The data set, which must come from the cache."""

    def refuse(*_: object) -> Bytes:
        raise AssertionError("a picture was decoded again")

    with monkeypatch.context() as within:
        within.setattr(decoding, "read_picture", refuse)
        return read_path(path, 8, channels)


def same(one: ImageData, other: ImageData) -> None:
    assert one.images.dtype == other.images.dtype == np.uint8
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    if one.test_images is not None and other.test_images is not None:
        np.testing.assert_array_equal(one.test_images, other.test_images)
    for name in (
        "digest",
        "unreadable",
        "contents",
        "files",
        "test_files",
        "class_names",
        "mirrored_is_same",
        "layout",
    ):
        assert getattr(one, name) == getattr(other, name)


def test_a_cached_picture_equals_a_decoded_one_to_the_bit(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = pictures(tmp_path / "data" / "train"), pictures(tmp_path / "data" / "test", 30, seed=1)
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (20, 9), dtype=np.uint8)).save(train / "a" / "grey.png")
    Image.fromarray(rng.integers(0, 256, (20, 9, 4), dtype=np.uint8)).save(train / "b" / "see_through.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(train / "b" / "turned.jpg", exif=exif)
    shutil.copy(train / "a" / "0.bmp", train / "a" / "copy.bmp")
    (train / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (test / "b" / "nowhere.png").symlink_to(tmp_path / "nothing")
    with pytest.warns(UserWarning, match="2 of 246 files"):
        expected = uncached(tmp_path / "data", monkeypatch)
    assert entries(cache) == []
    with pytest.warns(UserWarning, match="2 of 246 files"):
        same(read_path(tmp_path / "data", 8, None), expected)
    assert len(entries(cache)) == 1
    with pytest.warns(UserWarning, match="2 of 246 files"):
        same(without_decoding(tmp_path / "data", monkeypatch), expected)


def test_sizes_and_channels_have_entries_of_their_own(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pictures(tmp_path / "data", mode="L")
    for number, (size, channels) in enumerate([(8, None), (8, 1), (8, 3), (11, None)], 1):
        expected = uncached(root, monkeypatch, size, channels)
        assert expected.images.shape == (COUNT, size, size, channels or 1)
        same(read_path(root, size, channels), expected)
        same(read_path(root, size, channels), expected)
        assert len(entries(cache)) == number


def test_the_content_counts_and_not_the_names(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "data")
    read_path(root, 8, None)
    (root / "a" / "0.bmp").rename(root / "b" / "0.bmp")  # a label is corrected
    root.rename(tmp_path / "moved")
    same(without_decoding(tmp_path / "moved", monkeypatch), uncached(tmp_path / "moved", monkeypatch))
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for name in "ab":
            archive.add(tmp_path / "moved" / name, name)
    same(without_decoding(tmp_path / "all.tar", monkeypatch), uncached(tmp_path / "all.tar", monkeypatch))
    pictures(tmp_path / "new", 1, seed=5)
    shutil.copy(tmp_path / "new" / "a" / "0.bmp", tmp_path / "moved" / "b" / "0.bmp")
    same(read_path(tmp_path / "moved", 8, None), uncached(tmp_path / "moved", monkeypatch))
    assert len(entries(cache)) == 2


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: os.truncate(entry / "pixels.npy", 5000),
        lambda entry: (entry / "pixels.npy").write_bytes(b""),
        lambda entry: (entry / "pixels.npy").unlink(),
        lambda entry: flip(entry / "pixels.npy"),
        lambda entry: np.save(entry / "pixels.npy", np.zeros((COUNT, 8, 8, 3), np.uint8)),
        lambda entry: np.save(entry / "pixels.npy", np.zeros(3)),
        lambda entry: (entry / "index.json").unlink(),
        lambda entry: (entry / "index.json").write_text("{"),
        lambda entry: (entry / "index.json").write_text("[]"),
        lambda entry: (entry / "index.json").write_bytes(b"\xff\xfe"),
        lambda entry: (entry / "index.json").write_text(
            '{"files": 3, "checksums": [], "problems": {}, "warnings": []}'
        ),
    ],
)
def test_a_damaged_entry_is_made_again(
    damage: Callable[[Path], object], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pictures(tmp_path / "data")
    expected = read_path(root, 8, None)
    expected = uncached(root, monkeypatch)
    damage(cache / entries(cache)[0])
    same(read_path(root, 8, None), expected)
    same(without_decoding(root, monkeypatch), expected)


def test_the_cache_may_be_deleted_while_its_pictures_are_in_use(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pictures(tmp_path / "data")
    first, second, expected = read_path(root, 8, None), read_path(root, 8, None), uncached(root, monkeypatch)
    shutil.rmtree(cache.parent)
    same(first, expected)
    same(second, expected)
    same(read_path(root, 8, None), expected)
    first.images[0] = 0  # what a process writes stays its own
    same(without_decoding(root, monkeypatch), expected)


def test_the_entries_that_are_used_least_go_first(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [pictures(tmp_path / str(k), seed=k) for k in range(3)]
    monkeypatch.setenv("ARCHSMITH_CACHE_GB", str(2.9 * COUNT * 8 * 8 * 3 / 2**30))  # for two
    old = time.time() - 3 * 24 * 3600
    for k in (0, 1):
        before = set(entries(cache))
        read_path(roots[k], 8, None)
        os.utime(cache / next(iter(set(entries(cache)) - before)), (old + k, old + k))
    without_decoding(roots[0], monkeypatch)  # now 1 is the one that was used least
    (cache / ".of a process that was killed").mkdir()
    os.utime(cache / ".of a process that was killed", (old, old))
    read_path(roots[2], 8, None)
    assert len(entries(cache)) == 2
    without_decoding(roots[0], monkeypatch)
    without_decoding(roots[2], monkeypatch)
    monkeypatch.setenv("ARCHSMITH_CACHE_GB", str(0.5 * COUNT * 8 * 8 * 3 / 2**30))  # for none
    read_path(roots[1], 8, None)
    assert len(entries(cache)) == 2


def test_without_a_cache_the_pictures_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "data")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path / "file"))
    expected = uncached(root, monkeypatch)
    for _ in range(2):
        same(read_path(root, 8, None), expected)
    assert capsys.readouterr().err.count("decoded pictures are not kept") == 1
    for wrong in ("much", "nan", "-1"):
        monkeypatch.setenv("ARCHSMITH_CACHE_GB", wrong)
        same(read_path(root, 8, None), expected)


def test_few_pictures_are_not_cached(tmp_path: Path, cache: Path) -> None:
    read_path(pictures(tmp_path / "data", 20), 8, None)
    assert entries(cache) == []


def test_warnings_are_repeated_by_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "data")
    Image.fromarray(np.full((9, 9), 1000, np.uint16)).save(root / "a" / "dark.png")
    for read in (uncached, lambda *_: read_path(root, 8, None), without_decoding):
        with pytest.warns(UserWarning, match="16 bits"):
            read(root, monkeypatch)


READ = """
import os, resource, sys, zlib
from pathlib import Path
from archsmith.data.image_files import read_path
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
print(zlib.crc32(read_path(Path(sys.argv[1]), 8, None).images))
"""


def reading(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READ, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_processes_may_share_the_cache_and_a_full_disk_is_survived(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pictures(tmp_path / "data")
    limited = reading(root, 4096)
    out, err = limited.communicate(timeout=60)
    assert "decoded pictures are not kept" in err
    assert entries(cache) == []
    outputs = {out, *(process.communicate(timeout=60)[0] for process in [reading(root) for _ in range(3)])}
    assert len(outputs) == 1
    assert out.strip()
    assert len(entries(cache)) == 1
    without_decoding(root, monkeypatch)
