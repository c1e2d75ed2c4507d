"""Reads images from files: IDX (MNIST's format), CIFAR's binary archives, and .npz. Nothing here runs what it reads.

Every reader checks before it believes: lengths against headers, labels against classes. A damaged file is a DataError
that names it. Pickles are refused: they are programs.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from archsmith.core.errors import DataError
from archsmith.data.array_names import by_key
from archsmith.data.image_arrays import checked, of_arrays
from archsmith.data.images import FASHION, Bytes, ImageData
from archsmith.data.label_csv import SUFFIXES
from archsmith.data.listing import has_picture_suffix
from archsmith.data.system_files import is_system_file
from archsmith.data.unpacking import ARCHIVES, DAMAGED, is_zip, npz_names, open_tar, read_npz, unpacked

if TYPE_CHECKING:
    from archsmith.data.image_folder import PictureFiles

__all__ = ["checked", "open_path", "read_path"]

_FASHION_LABELS = (
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"  # SHA-256 of Fashion-MNIST's training labels
)

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_CIFAR_PYTHON = re.compile(r"cifar-?100?-python")
_BINARY_HINT = (
    "get the binary version, cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, "
    "from https://www.cs.toronto.edu/~kriz/cifar.html"
)


def read_path(
    path: Path, size: int | None, channels: int | None, labels: str | None = None, label_pattern: str | None = None
) -> ImageData:
    """The data set in a folder or a file, whatever its format.

    `size`, `channels` and where the labels are, see `labelling.Labelling`, serve pictures.
    Raises DataError when the format is none of those known, or the content cannot be used.
    """
    from archsmith.data.image_folder import read_pictures

    source = open_path(path, labels, label_pattern)
    return source if isinstance(source, ImageData) else read_pictures(source, size, channels)


def open_path(path: Path, labels: str | None = None, label_pattern: str | None = None) -> ImageData | PictureFiles:
    """The data set in a folder or a file, if it is stored as arrays, or the files of its pictures, not yet decoded.

    Raises DataError when the format is none of those known, or the content cannot be used.
    """
    from archsmith.data.image_folder import list_described_pictures, list_packed_pictures, list_pictures
    from archsmith.data.labelling import Labelling

    labelling = Labelling(labels, label_pattern)
    said = labels is not None or label_pattern is not None
    try:
        if path.is_dir():
            return list_pictures(path, labelling) if said else _open_folder(path)
        if said and not path.name.lower().endswith(ARCHIVES):
            raise DataError(f"{path} is no folder or archive of pictures, and labels and label_pattern are for those")
        name = path.name.lower()
        if name.endswith(".npz"):
            return _read_npz(path)
        if name.endswith(_PICKLES) or (_CIFAR_PYTHON.match(name) and name.endswith(ARCHIVES)):
            raise _pickles(path)
        if name.endswith(ARCHIVES):
            files = {} if said else _cifar_members(path)
            return _read_cifar(str(path), files) if files else list_packed_pictures(path, labelling)
        if name.endswith(SUFFIXES):
            return list_described_pictures(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    raise DataError(
        f"{path} is in no format that is known: data is a folder with one folder of pictures a class (also as .tar.gz or "
        ".zip), a CSV with the names of pictures and their labels, a folder with IDX files, CIFAR's binary archive, or an .npz "
        "with x_train and y_train; unpack other archives"
    )


def _open_folder(path: Path) -> ImageData | PictureFiles:
    """The folder's IDX files or CIFAR's, as they are or in a folder of their own, or else its pictures."""
    from archsmith.data.image_folder import list_pictures

    entries = [entry for entry in path.iterdir() if not is_system_file(entry.name)]
    inner = [entry for entry in entries if entry.is_dir()]
    for folder in (path, *(inner if len(entries) == 1 else [])):
        if _idx_file(folder, "train", "images") or _idx_file(folder, "train", "labels"):
            return _read_idx(folder)
        files = {entry.name for entry in folder.iterdir() if entry.is_file()}
        if folder is path and inner:
            continue  # of classes
        if _is_cifar(files):
            return _read_cifar(str(folder), {name: (folder / name).read_bytes() for name in files & _CIFAR_FILES})
        if _is_pickled_cifar(files):
            raise _pickles(path)
    return list_pictures(path)


# --- IDX --------------------------------------------------------------------------------------------------------------


def _idx_file(folder: Path, part: str, what: str) -> Path | None:
    rank = {"images": 3, "labels": 1}[what]
    for dot in "-.":
        for suffix in ("", ".gz"):
            if (file := folder / f"{part}-{what}{dot}idx{rank}-ubyte{suffix}").is_file():
                return file
    return None


def _read_idx(folder: Path) -> ImageData:
    arrays = []
    for part in ("train", "t10k"):
        for what in ("images", "labels"):
            file = _idx_file(folder, part, what)
            if file is None:
                rank = {"images": 3, "labels": 1}[what]
                raise DataError(f"{folder} has IDX files, but not {part}-{what}-idx{rank}-ubyte (or the same with .gz)")
            arrays.append(_idx_array(file, {"images": 3, "labels": 1}[what]))
    x, y, x_test, y_test = arrays
    known = hashlib.sha256(y.tobytes()).hexdigest() == _FASHION_LABELS
    return checked(str(folder), x, y, x_test, y_test, FASHION if known else None)


def _idx_array(file: Path, rank: int) -> Bytes:
    """One IDX file: two zero bytes, the type (8 is a byte), the rank, the sizes as big-endian words, the numbers."""
    try:
        with unpacked(file) as stream:
            head = stream.read(4 + 4 * rank)
            if len(head) < 4 + 4 * rank or head[:4] != bytes([0, 0, 8, rank]):
                raise DataError(
                    f"{file} is no IDX file of bytes in {rank} dimensions: it begins with {head[:4].hex(' ')}"
                )
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4", offset=4))
            count = int(np.prod(shape, dtype=object))
            body = bytearray()  # grows with the file and not with what its header claims
            while len(body) <= count and (chunk := stream.read(min(1 << 24, count + 1 - len(body)))):
                body += chunk
    except DAMAGED as error:
        raise DataError(f"{file} is damaged: {error}") from None
    if len(body) != count:
        raise DataError(
            f"{file} should hold {shape} = {count:,} numbers, and holds {'more' if len(body) > count else f'{len(body):,}'}"
        )
    return np.frombuffer(bytes(body), np.uint8).reshape(shape)


# --- CIFAR ------------------------------------------------------------------------------------------------------------

_CIFAR10 = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
_CIFAR100 = ["train.bin", "test.bin"]
_CIFAR_FILES = {*_CIFAR10, *_CIFAR100, "batches.meta.txt", "fine_label_names.txt"}
_MEMBER_CAP = 1 << 28  # bytes; the largest real one has 154 million


def _is_cifar(names: set[str]) -> bool:
    return bool(names & {*_CIFAR10, *_CIFAR100})


def _cifar_members(path: Path) -> dict[str, bytes]:
    """The files of CIFAR in an archive, by name, or nothing when it holds pictures. Nothing is extracted."""
    if is_zip(path):
        return {}
    files: dict[str, bytes] = {}
    names: set[str] = set()
    try:
        with open_tar(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if not member.isfile() or is_system_file(name):
                    continue
                if has_picture_suffix(name):
                    return {}
                names.add(name)
                if _is_pickled_cifar(names):
                    raise _pickles(path)
                if name in _CIFAR_FILES:
                    if member.size > _MEMBER_CAP:
                        raise DataError(f"{path}: {member.name} says it has {member.size:,} bytes; CIFAR's have fewer")
                    stream = archive.extractfile(member)
                    assert stream is not None
                    files[name] = stream.read()
    except DAMAGED as error:
        raise DataError(f"{path} is a damaged archive: {error}") from None
    return files if _is_cifar(set(files)) else {}


def _is_pickled_cifar(names: set[str]) -> bool:
    return bool(names & {"data_batch_1", "batches.meta"}) or {"train", "test", "meta"} <= names


def _pickles(path: Path) -> DataError:
    return DataError(f"{path} holds pickles, which are programs and are not opened; {_BINARY_HINT}")


def _read_cifar(name: str, files: Mapping[str, bytes]) -> ImageData:
    ten = any(f in files for f in _CIFAR10)
    parts, classes, words = (_CIFAR10, 10, "batches.meta.txt") if ten else (_CIFAR100, 100, "fine_label_names.txt")
    for part in parts:
        if part not in files:
            raise DataError(f"{name} holds CIFAR's binary files, but not {part}")
    # A record is the label (CIFAR-100: the coarse one, then the fine one), then red, green and blue planes of 32 by 32.
    marks = 1 if ten else 2
    images, labels = {}, {}
    for part in parts:
        content = np.frombuffer(files[part], np.uint8)
        if not len(content) or len(content) % (marks + 3072):
            raise DataError(
                f"{name}: {part} has {len(content):,} bytes, not a whole number of {marks + 3072}-byte records"
            )
        records = content.reshape(-1, marks + 3072)
        labels[part] = records[:, marks - 1]
        if labels[part].max() >= classes:
            raise DataError(f"{name}: {part} has the label {labels[part].max()}; they must be 0 to {classes - 1}")
        images[part] = records[:, marks:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    listed = [w.strip() for w in files.get(words, b"").decode("utf-8", "replace").splitlines() if w.strip()]
    return checked(
        name,
        np.concatenate([images[p] for p in parts[:-1]]),
        np.concatenate([labels[p] for p in parts[:-1]]),
        images[parts[-1]],
        labels[parts[-1]],
        listed if len(listed) == classes else [str(k) for k in range(classes)],
    )


# --- npz --------------------------------------------------------------------------------------------------------------


def _read_npz(path: Path) -> ImageData:
    """`x_train`, `y_train` and, where there are any, `x_val`, `y_val`, `x_test` and `y_test`; see `array_names`."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz file: numpy.savez writes a zip archive, and this is none, or cut short")
    found, others = by_key(str(path), npz_names(path))
    arrays = read_npz(path, list(found.values()))
    data = of_arrays(str(path), {key: arrays[name] for key, name in found.items()})
    if not others:
        return data
    remark = f"not used of {path.name}: the arrays {', '.join(map(repr, others[:8]))}"
    return replace(data, remarks=(*data.remarks, remark))
