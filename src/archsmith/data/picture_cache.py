"""Keeps decoded pictures on the disk, so that a data set is decoded once.

An entry is a folder with the pictures of one data set in one size: `pixels.npy`, which is mapped into memory, and `index.json`
with the SHA-256 of each picture's file and checksums of the pixels. It is found by the content of the files, whatever their
names are and wherever they lie. It is complete or not there: it is written under another name and then renamed. Entries may be
deleted at any time, and those that were not used for the longest time go when all of them exceed the cap.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from archsmith.core.private_folder import private_folder
from archsmith.core.shown import plain
from archsmith.data.images import Bytes
from archsmith.data.picture_decoding import PORTABLE

CAP = 10 << 30  # bytes of all entries
FREE = 0.5  # of the free space of the disk may be taken by one entry
PIXELS, INDEX = "pixels.npy", "index.json"
_BLOCK = 1 << 26  # bytes under one checksum
_ABANDONED = 24 * 3600.0  # seconds after which an unfinished entry is of a process that ended
_said: set[str] = set()


@dataclass(frozen=True, eq=False)
class CachedPictures:
    """Decoded pictures.

    Args:
        pixels: uint8 [pictures, size, size, channels], mapped into memory.
        files: the SHA-256 of each picture's file, hexadecimal.
        problems: why files of the data set could not be decoded, by SHA-256.
        warnings: what decoding warned of.
    """

    pixels: Bytes
    files: tuple[str, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def cache_for(pictures: int, size: int) -> Path | None:
    """The folder of the cache, if there is one that has room for so many pictures; else None, and a line says why."""
    needed = pictures * size * size * 3
    if (cap := _cap()) == 0 or needed > cap:
        return None
    folder = private_folder("pictures")
    if folder is None:
        place = os.environ.get("ARCHSMITH_CACHE") or "the user's cache folder"
        _say(f"decoded pictures are not kept: {place} cannot be written to; set ARCHSMITH_CACHE to a folder of yours")
        return None
    if needed > FREE * shutil.disk_usage(folder).free:
        _say(f"decoded pictures are not kept: they would fill the disk of {folder}")
        return None
    return folder


def may_have(folder: Path, size: int, channels: int | None, pictures: int) -> bool:
    """Whether there is an entry for so many pictures in this size, perhaps of other pictures."""
    return any(folder.glob(_prefix(size, channels, pictures) + "*"))


def find(folder: Path, size: int, channels: int | None, files: Sequence[str]) -> CachedPictures | None:
    """The decoded pictures of files with these SHA-256, or None. An entry that is damaged is removed.

    Args:
        folder: of the cache.
        size, channels: what the pictures were decoded to.
        files: in any order; "" stands for a file that cannot be read.
    """
    entry = folder / _name(size, channels, files)
    try:
        index = json.loads((entry / INDEX).read_bytes())
        pixels = np.lib.format.open_memmap(entry / PIXELS, mode="c")  # what is written to them stays in this process
        valid = pixels.shape[:3] == (len(index["files"]), size, size) and index["checksums"] == _checksums(pixels)
        found = CachedPictures(
            np.asarray(pixels), tuple(index["files"]), dict(index["problems"]), tuple(index["warnings"])
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        _remove(entry)
        return None
    with suppress(OSError):
        os.utime(entry)  # for the removal of those that are not used
    return found


class Writer:
    """Writes an entry, picture by picture. The methods raise OSError, for example if the disk is full."""

    def __init__(self, entry: Path, pictures: int, size: int, channels: int | None) -> None:
        self._entry = entry
        self._shape = (pictures, size, size, channels or 3)
        self._is_grey = channels != 3
        self._file = open(entry / PIXELS, "wb")  # noqa: SIM115  # closed by writing()
        header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        self._file.truncate(self._start + int(np.prod(self._shape)))

    def put(self, row: int, pixels: Bytes) -> None:
        """Write one picture; a grey one is spread over three channels unless the entry is grey."""
        self._is_grey = self._is_grey and pixels.shape[2] == 1
        spread = np.ascontiguousarray(np.broadcast_to(pixels, self._shape[1:]))
        self._file.seek(self._start + row * spread.nbytes)
        self._file.write(spread.data)

    def finish(
        self,
        folder: Path,
        channels: int | None,
        files: Sequence[str],
        problems: Mapping[str, str],
        warnings: Sequence[str],
    ) -> CachedPictures:
        """Make the entry visible to others, under the name that its files give it, and open it."""
        self._file.close()
        path = self._entry / PIXELS
        if self._is_grey and self._shape[3] == 3:
            wide = np.lib.format.open_memmap(path, mode="r")
            np.save(self._entry / "grey.npy", wide[..., :1])
            del wide
            os.replace(self._entry / "grey.npy", path)
        pixels = np.lib.format.open_memmap(path, mode="c")
        index = {"files": list(files), "problems": dict(problems), "warnings": list(warnings)}
        (self._entry / INDEX).write_text(json.dumps(index | {"checksums": _checksums(pixels)}))
        target = folder / _name(self._shape[1], channels, files)
        with suppress(OSError):  # another process was faster
            os.rename(self._entry, target)
            _remove_least_used(folder, target)
        return CachedPictures(np.asarray(pixels), tuple(files), dict(problems), tuple(warnings))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def writing(folder: Path, pictures: int, size: int, channels: int | None) -> Iterator[Writer]:
    """Write an entry. Nothing of it is left unless it was finished."""
    entry = Path(tempfile.mkdtemp(prefix=".", dir=folder))
    try:
        writer = Writer(entry, pictures, size, channels)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        _remove(entry)


# --- names, checksums and the cap -------------------------------------------------------------------------------------


def _prefix(size: int, channels: int | None, pictures: int) -> str:
    return f"{size}px-{channels or 'own'}-{pictures}-"


def _name(size: int, channels: int | None, files: Sequence[str]) -> str:
    digest = hashlib.sha256("\n".join([_decoder(), *sorted(files)]).encode()).hexdigest()
    return _prefix(size, channels, len(files)) + digest[:40]


@functools.cache
def _decoder() -> str:
    """Identifies what decodes: the same files may come out differently of another version."""
    import PIL
    from PIL import features

    libraries = [f"{name} {features.version(name)}" for name in features.get_supported() if features.version(name)]
    source = "".join(inspect.getsource(each) for each in PORTABLE)
    return f"Pillow {PIL.__version__} {libraries} {hashlib.sha256(source.encode()).hexdigest()}"


def _checksums(pixels: Bytes) -> list[int]:
    flat = np.asarray(pixels).reshape(-1)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda at: zlib.crc32(flat[at : at + _BLOCK].data), range(0, len(flat), _BLOCK)))


def _cap() -> int:
    """The most bytes of all entries: ARCHSMITH_CACHE_GB, or 10 GiB."""
    given = os.environ.get("ARCHSMITH_CACHE_GB", "")
    try:
        return max(0, int(float(given) * (1 << 30))) if given else CAP
    except (ValueError, OverflowError):
        _say(f"ARCHSMITH_CACHE_GB must be a number of gibibytes, got {given!r}; {CAP >> 30} is used")
        return CAP


def _remove_least_used(folder: Path, newest: Path) -> None:
    """Remove entries until all of them are within the cap, but not the newest; and what ended processes have left."""
    entries: list[tuple[float, int, Path]] = []
    for entry in folder.iterdir():
        with suppress(OSError):
            used = entry.stat().st_mtime
            if not entry.name.startswith("."):
                entries.append((used, sum(file.stat().st_size for file in entry.iterdir()), entry))
            elif time.time() - used > _ABANDONED:
                _remove(entry)
    total = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= _cap():
            return
        if entry != newest:
            _remove(entry)
            total -= size


def _remove(entry: Path) -> None:
    shutil.rmtree(entry, ignore_errors=True)


def _say(line: str) -> None:
    """Print a line on stderr, once per process."""
    if sys.stderr is not None and line not in _said:
        _said.add(line)
        print(plain(line), file=sys.stderr)
