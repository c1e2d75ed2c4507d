"""A folder of pictures, one folder a class, or the same as a .tar.gz or .zip; pictures of any size and mode.

Every file is either decoded or named: what cannot be read is counted, reported by name in a warning and kept in the
data's description. Archives are read in memory, never extracted, so no path in one can lead anywhere.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.core.errors import DataError
from archsmith.training.data import Bytes, ImageData
from archsmith.training.picture_decoding import FILE_CAP, TOO_LARGE, read_picture, read_some, resize_arrays
from archsmith.training.unpacking import DAMAGED, open_tar, open_zip

DEFAULT_SIZE = 32  # pixels a side, as the paper's CIFAR-10
_WAITING_CAP = 1 << 28  # bytes of pictures that wait for being decoded
_TOTAL_CAP = 1 << 36  # bytes of all pictures of an archive, unpacked
_TRAIN, _TEST, _VALIDATION = {"train", "training"}, {"test", "testing"}, {"val", "valid", "validation"}
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}

__all__ = ["read_archive", "read_folder", "read_picture", "resize_arrays"]

Parts = tuple[str, ...]
File = tuple[Parts, int, Callable[[], bytes]]
"""Where a picture's file is, how many bytes of it are in memory already, and what gives them all."""


def read_folder(path: Path, size: int | None, channels: int | None) -> ImageData:
    """The pictures of a folder with one folder a class. Nested folders belong to the class they are in.

    Raises DataError when it is empty or nothing in it can be read.
    """
    entries = sorted(p for p in path.iterdir() if not _hidden(p.name))
    if not entries:
        raise DataError(f"the folder {path} is empty; data is a folder with one folder of pictures for each class")
    folders = [p for p in entries if p.is_dir()]
    files: list[File] = []
    for entry in entries:
        if entry.is_file():
            files.append(((entry.name,), 0, partial(_read, entry)))
        for root, inner, names in os.walk(entry):
            inner[:] = sorted(n for n in inner if not _hidden(n))
            for name in sorted(n for n in names if not _hidden(n)):
                file = Path(root, name)
                files.append((file.relative_to(path).parts, 0, partial(_read, file)))
    return _collect(str(path), files, [(p.name,) for p in folders], size, channels)


def read_archive(path: Path, size: int | None, channels: int | None) -> ImageData:
    """The same, from a .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip whose folders are the classes.

    Raises DataError for a damaged archive, and for paths in it that would lead out of it.
    """
    return _collect(str(path), _members(path), [], size, channels)


def _members(path: Path) -> Iterator[File]:
    total = 0

    def parts_of(name: str, length: int) -> Parts:
        nonlocal total
        total += length
        parts = tuple(p for p in name.replace("\\", "/").split("/") if p not in ("", "."))
        if ".." in parts or name.startswith(("/", "\\")) or (parts and ":" in parts[0]):
            raise DataError(f"{path} has a member {name!r} that leads out of the archive; it is not read")
        if total > _TOTAL_CAP:
            raise DataError(f"{path} unpacks to more than {_TOTAL_CAP:,} bytes; give it as a folder")
        return parts

    try:
        if zipfile.is_zipfile(path):
            with open_zip(path) as packed:
                for info in packed.infolist():
                    parts = parts_of(info.filename, info.file_size)
                    if not info.is_dir() and not any(_hidden(p) for p in parts):
                        content = b"" if info.file_size > FILE_CAP else packed.read(info)
                        yield parts, len(content), partial(_given, content, info.file_size)
        else:
            with open_tar(path) as archive:
                for member in archive:
                    parts = parts_of(member.name, member.size)
                    if member.isfile() and not any(_hidden(p) for p in parts):
                        stream = archive.extractfile(member) if member.size <= FILE_CAP else None
                        content = stream.read() if stream else b""
                        yield parts, len(content), partial(_given, content, member.size)
    except DAMAGED as error:
        raise DataError(f"{path} is a damaged archive: {error}") from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile: a password, an unknown compression
        raise DataError(f"{path} cannot be read: {error}") from None


def _given(content: bytes, size: int) -> bytes:
    if size > FILE_CAP:
        raise DataError(TOO_LARGE)
    return content


def _read(path: Path) -> bytes:
    """A picture's file. Raises DataError for what is none, such as a pipe, which would be waited for, and for one too large."""
    if not path.is_file():
        raise DataError("is no file")
    return read_some(path)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


# --- decoding ---------------------------------------------------------------------------------------------------------


def _collect(
    name: str,
    files: Iterable[File],
    folders: list[Parts],
    size: int | None,
    channels: int | None,
) -> ImageData:
    """Decodes files in parallel, in bounded numbers, and sorts them into classes by their path."""
    side = size or DEFAULT_SIZE
    decoded: list[tuple[Parts, bytes, Bytes | str]] = []
    waiting: deque[tuple[Parts, int, Future[tuple[bytes, Bytes | str]]]] = deque()
    held = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without the interpreter's lock
        for parts, there, read in files:
            waiting.append((parts, there, pool.submit(_decode, read, side, channels)))
            held += there
            while len(waiting) > 256 or held > _WAITING_CAP:
                done, given, future = waiting.popleft()
                held -= given
                decoded.append((done, *future.result()))
        decoded.extend((parts, *future.result()) for parts, _, future in waiting)
    decoded.sort(key=lambda entry: entry[0])

    paths = [p for p, _, _ in decoded]
    while len({p[0] for p in [*paths, *folders]}) == 1 and all(len(p) >= 3 for p in paths) and paths:
        decoded = [(p[1:], h, x) for p, h, x in decoded]  # one folder around all classes
        paths, folders = [p for p, _, _ in decoded], []
    tops = {p[0].lower() for p in paths if len(p) > 1}
    divided = (
        bool(tops & _TRAIN) and tops <= _TRAIN | _TEST | _VALIDATION and all(len(p) > 2 for p in paths if len(p) > 1)
    )

    remarks, unreadable = [], []
    if divided and tops & _VALIDATION:
        remarks.append(
            "the folder's own validation pictures were joined with the training ones, and a new split was drawn"
        )
    digest = hashlib.sha256(f"pictures {side} {channels}".encode())
    kept: list[tuple[bool, str, Bytes]] = []
    contents: dict[str, str] = {}
    names = {p[0] for p in folders} if not divided else set()
    for parts, file_hash, picture in decoded:
        label = parts[1] if divided and len(parts) > 2 else parts[0]
        if len(parts) < 2 and not parts[0].lower().endswith(_PICTURES):
            continue  # a README beside the classes
        digest.update("/".join(parts).encode() + b"\0" + file_hash)
        contents["/".join(parts)] = file_hash.hex()[:16]
        if len(parts) < 2:
            unreadable.append(f"{parts[0]}: is in no class's folder")
        elif isinstance(picture, str):
            unreadable.append(f"{'/'.join(parts)}: {picture}")
            names.add(label)
        else:
            kept.append((divided and parts[0].lower() in _TEST, label, picture))
            names.add(label)
    _report(name, unreadable, len(unreadable) + len(kept))
    if not kept:
        listed = "; ".join(unreadable[:5])
        raise DataError(
            f"{name} has no picture that can be read in a folder of a class{': ' + listed if listed else ''}; data is a "
            "folder with one folder of pictures for each class"
        )
    classes = tuple(sorted(names))
    depth = channels or max(picture.shape[2] for _, _, picture in kept)
    number = {label: k for k, label in enumerate(classes)}
    arrays: list[Any] = []
    for of_test in (False, True):
        chosen = [(label, picture) for test, label, picture in kept if test == of_test]
        pixels = np.empty((len(chosen), side, side, depth), np.uint8)
        for i, (_, picture) in enumerate(chosen):
            pixels[i] = picture  # grey ones spread over three channels
        arrays += [pixels, np.array([number[label] for label, _ in chosen], np.int64)]
    has_test = len(arrays[3]) > 0
    return ImageData(
        name=name,
        images=arrays[0],
        labels=arrays[1],
        test_images=arrays[2] if has_test else None,
        test_labels=arrays[3] if has_test else None,
        class_names=classes,
        # Of the files and not of the pixels: decoders differ by a grey level from version to version.
        digest=digest.hexdigest(),
        mirrored_is_same=depth == 3,
        unreadable=tuple(unreadable),
        remarks=tuple(remarks),
        contents=contents,
    )


def _report(name: str, unreadable: list[str], count: int) -> None:
    if unreadable:
        listed = "".join(f"\n  {line}" for line in unreadable[:20])
        more = f"\n  and {len(unreadable) - 20} more" if len(unreadable) > 20 else ""
        warnings.warn(f"{len(unreadable)} of {count} files of {name} were left out:{listed}{more}", stacklevel=2)


def _decode(read: Callable[[], bytes], size: int, channels: int | None) -> tuple[bytes, Bytes | str]:
    """The file's SHA-256 with its picture, or with why there is none."""
    try:
        content = read()
    except OSError as error:
        return b"", f"cannot be read ({error.strerror or error})"
    except DataError as error:
        return b"", str(error)
    digest = hashlib.sha256(content).digest()
    try:
        return digest, read_picture(content, size, channels)
    except DataError as error:
        return digest, str(error)
