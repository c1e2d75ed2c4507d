"""Packed files and archives, unpacked within bounds: what a stranger's small file may grow to is decided before it does.

A packed file unpacks to a hundred times its size at most, or to 256 MiB where that is more. Pictures and texts pack to a half or
a tenth; a hundredth is what equal bytes pack to, and a bomb is made of those. Nothing is ever extracted to the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from archsmith.core.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".zip")
"""How the names of the archives that are read end, in lower case."""
LEAST_ALLOWED, TIMES = 1 << 28, 100
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What damaged archives and packed files raise while they are read."""

_OPENERS: Mapping[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_MAGIC = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\0", ".bz2": b"BZh"}
_BLOCK = 1 << 24


def most_unpacked(path: str | os.PathLike[str]) -> int:
    """The bytes that a packed file may unpack to."""
    return max(LEAST_ALLOWED, TIMES * os.stat(path).st_size)


def check_unpacked(path: str | os.PathLike[str], size: int) -> None:
    """Raise DataError where a file says that it unpacks to more than it may."""
    if size > LEAST_ALLOWED and size > (most := most_unpacked(path)):
        raise DataError(
            f"{path} unpacks to more than {most:,} bytes, {TIMES} times its size and more: that is a decompression bomb, "
            "or unpack it yourself and give the files"
        )


class _Bounded:
    """A stream that ends in DataError where it gives more than its file may unpack to."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path, self._given = stream, path, 0
        self._most = most_unpacked(path)

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes, as `read` of a file; all that are left where it is below zero."""
        left, parts = size if size >= 0 else self._most + 1, []
        while left > 0 and (
            block := self._stream.read(min(left, _BLOCK))
        ):  # a reader makes room for all it is asked for
            parts.append(block)
            left -= len(block)
            self._given += len(block)
            check_unpacked(self._path, self._given)
        return b"".join(parts)


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked where its name ends in .gz, .xz or .bz2.

    Raises DataError, OSError, and what `DAMAGED` names, also while it is read.
    """
    opener = _OPENERS.get(path.suffix.lower())
    with open(path, "rb") if opener is None else opener(path, "rb") as stream:
        yield stream if opener is None else cast(IO[bytes], _Bounded(stream, path))


def is_zip(path: Path) -> bool:
    """Whether an archive is a zip: by how it begins, since a tar may end with one, or by its name, since some begin otherwise."""
    with open(path, "rb") as file:
        begins = file.read(2) == b"PK"
    return begins or (path.name.lower().endswith(".zip") and zipfile.is_zipfile(path))


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive as a stream, packed in any way or not at all: its members are to be read in their order."""
    with open(path, "rb") as file:
        head = file.peek(6)
        opener = next((_OPENERS[suffix] for suffix, magic in _MAGIC.items() if head.startswith(magic)), None)
        with file if opener is None else opener(file, "rb") as stream:
            bounded = cast(IO[bytes], _Bounded(stream, path))
            with tarfile.open(fileobj=bounded, mode="r|", bufsize=_BLOCK >> 4) as archive:
                yield archive


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive. Its members say how large they are, and none gives more than it says.

    Raises DataError, also while it is read, for a compression or an encryption that is not known, and names that are not as
    the archive says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(path, sum(info.file_size for info in archive.infolist()))
            yield archive
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} has names that are not UTF-8, as it says they are ({error}); unpack it yourself"
        ) from None
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read: {error}; unpack it yourself") from None


# --- npz --------------------------------------------------------------------------------------------------------------


def npz_names(path: Path) -> list[str]:
    """The names of an .npz file's arrays. Raises DataError when it is none."""
    with _told(path), open_zip(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_npz(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an .npz file by name. Raises DataError for one that is no array of plain numbers or text, or is damaged.

    An array's header must agree with its member's size, so that none claims more entries than there are bytes.
    """
    from numpy.lib import format as npy

    arrays = {}
    with _told(path), open_zip(path) as archive:
        for name in names:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as member:
                version = npy.read_magic(member)
                readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                if version not in readers:
                    raise DataError(f"{path}: the array {name!r} is written in a way that is not known, {version}")
                shape, _, kind = readers[version](member)
                if kind.hasobject:
                    raise DataError(f"{path}: {name!r} is an array of objects; those are pickles and are not opened")
                size = info.file_size - member.tell()
                if not kind.itemsize or math.prod(shape) * kind.itemsize != size:
                    raise DataError(
                        f"{path}: the array {name!r} says that it is {shape} of {kind}, and has {size:,} bytes"
                    )
            with archive.open(info) as member:
                arrays[name] = npy.read_array(member, allow_pickle=False)
    return arrays


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (DataError, OSError):
        raise
    except Exception as error:  # zipfile and numpy's reader of headers fail in many ways on damaged files
        raise DataError(f"{path} cannot be read as .npz: {str(error) or type(error).__name__}") from None
