"""Image data: found by name or path, checked, and split in a way that is the same on every machine.

Every data set becomes bytes in memory: images `uint8 [count, height, width, channels]`, labels `int64 [count]`. The
official test split is kept where there is one; otherwise a stratified 20 % is held out before anything else. The
validation split is a stratified part of the rest: 45,000 / 5,000 for CIFAR-10, as in Zoph and Le 2017, section 4.1.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from archsmith.core.errors import DataError, UnknownName
from archsmith.core.shown import shown
from archsmith.data.file_versions import version
from archsmith.data.system_files import is_record, is_system_file

if TYPE_CHECKING:
    from archsmith.data.image_folder import PictureFiles

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]

TEST_FRACTION = 0.2
TEST_SEED = 0  # the same held-out test images whatever the validation split's seed, so that runs can be compared

FASHION = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set as it was read, before the validation split. Shared between callers: nothing may be written to it.

    Args:
        name: what it is called in messages.
        images, labels: what may be learned from.
        test_images, test_labels: what is looked at once, or None where the source has no test split.
        class_names: the classes, by label.
        digest: SHA-256 of the content, hexadecimal.
        mirrored_is_same: whether an image and its mirror image show the same thing, as far as is known.
        unreadable: "name: why" of every file that could not be read.
        remarks: what else a person should know of how it was read.
        contents: a short digest of each file, or of each array, by name.
        layout: one line on how folders and files were read: classes, splits, and what was ignored.
        validation: positions in `images` of the source's validation split, or None if it has none.
        files, test_files: the file of each image; empty if the images are not from files.
    """

    name: str
    images: Bytes
    labels: Labels
    test_images: Bytes | None
    test_labels: Labels | None
    class_names: tuple[str, ...]
    digest: str
    mirrored_is_same: bool = True
    unreadable: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""
    validation: Labels | None = None
    files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ImageSplits:
    """A data set with its splits: positions in `images` for training and validation, and the test images.

    Args:
        data: the images and labels that `train` and `validation` point into.
        train, validation: positions, ascending, without overlap.
        test_images, test_labels: the test split.
        official_test: whether the source came with that test split.
        validation_split: where the validation split comes from, in words.
        split_digest: SHA-256 of which images are in which split, hexadecimal.
        test_files: the file of each test image; empty if the images are not from files.
    """

    data: ImageData
    train: Labels
    validation: Labels
    test_images: Bytes
    test_labels: Labels
    official_test: bool
    split_digest: str
    validation_split: str = ""
    test_files: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """What identifies the content and the splits, and nothing else: neither the path nor the file format."""
        return f"{self.data.digest[:32]}-{self.split_digest[:16]}"

    def describe(self) -> dict[str, Any]:
        """Plain JSON for the record of a run: counts, classes, shape, digests, and the files that could not be read."""
        return {
            "name": self.data.name,
            "shape": list(self.data.images.shape[1:]),
            "classes": list(self.data.class_names),
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test_labels),
            "test_split": "official" if self.official_test else f"stratified {TEST_FRACTION:.0%}, seed {TEST_SEED}",
            "validation_split": self.validation_split,
            "sha256": self.data.digest,
            "split_sha256": self.split_digest,
            "unreadable": len(self.data.unreadable),
            "unreadable_files": list(self.data.unreadable[:100]),
            "remarks": list(self.data.remarks),
            **({"layout": self.data.layout} if self.data.layout else {}),
        }


# --- splits -----------------------------------------------------------------------------------------------------------


def stratified(
    labels: Labels, fraction: float, seed: int, among: Labels | None = None, *, least: int = 1
) -> tuple[Labels, Labels]:
    """Positions of the rest and of a part of about `fraction`, both ascending, each class in proportion.

    The part has round(fraction * count) members, shared out by largest remainder. It has at least `least` of each class, as far
    as the class has so many, and not all of a class that has more. Where that makes more of a small class, the largest classes
    give up as many if `least` is above 1.
    Only the raw output of PCG64 is used, whose stream numpy guarantees: one seed, one split, everywhere.

    Args:
        labels: of all items.
        fraction: the size of the part.
        seed: decides which items are taken.
        among: the positions that are divided; None: all.
        least: the fewest members of each class in the part.
    """
    if among is not None:
        rest, part = stratified(labels[among], fraction, seed, least=least)
        return among[rest], among[part]
    count = len(labels)
    order = np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
    classes, sizes = np.unique(labels, return_counts=True)
    wanted = sizes * fraction
    share = np.floor(wanted).astype(np.int64)
    by_remainder = np.argsort(share - wanted, kind="stable")
    share[by_remainder[: max(0, round(fraction * count) - int(share.sum()))]] += 1
    fewest = np.minimum(least, sizes)
    share = np.clip(share, fewest, np.maximum(sizes - 1, fewest))
    while least > 1 and share.sum() > round(fraction * count) and (share > fewest).any():
        share[np.argmax(share - fewest)] -= 1
    part = np.concatenate([order[labels[order] == c][:n] for c, n in zip(classes, share, strict=True)])
    taken = np.zeros(count, dtype=bool)
    taken[part] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def split(data: ImageData, validation: float, seed: int, max_train: int | None = None) -> ImageSplits:
    """The data with a test split, a validation split and at most `max_train` images to learn from and validate with.

    Splits of the source are used as they are. The `max_train` images are a stratified sample, drawn with the same seed; a
    validation split of the source is reduced in the same proportion.

    Every class has at least one image in each split that is made here: of a class of 3 images, one is tested, one validated
    and one learned from; of 4, two are learned from; of 5, three. So a few more than 20 % and 10 % are held out of data with
    many tiny classes. Raises DataError for a class that has too few images for that.
    """
    from archsmith.data.duplicates import remarks_on

    official = data.test_images is not None and data.test_labels is not None
    given = data.validation
    pool = np.arange(len(data.labels)) if given is None else np.setdiff1d(np.arange(len(data.labels)), given)
    _enough(data, pool, 1 + (not official) + (given is None), "one for each of its splits")
    which = []
    if data.test_images is None or data.test_labels is None:
        pool, held_out = stratified(data.labels, TEST_FRACTION, TEST_SEED, pool)
        test_images, test_labels = data.images[held_out], data.labels[held_out]
        test_files = tuple(data.files[k] for k in held_out) if data.files else ()
        which.append(held_out)
    else:
        test_images, test_labels, test_files = data.test_images, data.test_labels, data.test_files
    learned = pool if given is None else np.union1d(pool, given)
    if max_train is not None and max_train < 2 * len(data.class_names) and max_train < len(learned):
        raise DataError(
            f"max_train must be at least twice the {len(data.class_names)} classes of {data.name}, got {max_train}"
        )
    if given is None:
        pool = _at_most(data, pool, max_train, seed, least=2)  # one to train on and one to validate with
        train, valid = stratified(data.labels, validation, seed, pool)
        origin = f"stratified {validation:.3g} of the rest, seed {seed}"
    else:
        part = None if max_train is None else max(len(data.class_names), round(validation * max_train))
        train = _at_most(data, pool, None if max_train is None or part is None else max_train - part, seed)
        valid = _at_most(data, given, part, seed)
        origin = "official"
    if len(np.unique(data.labels[train])) < len(data.class_names):
        raise DataError(
            f"validation={validation} leaves a class of {data.name} without an image to train on; make it smaller"
        )
    digest = hashlib.sha256()
    for positions in (train, valid, *which):
        digest.update(positions.astype("<i8").tobytes() + b"|")
    remarks = remarks_on(data, learned, valid, test_images, test_labels)
    if missing := sorted(set(range(len(data.class_names))) - set(data.labels[valid].tolist())):
        names = ", ".join(repr(data.class_names[k]) for k in missing[:5]) + (", ..." if len(missing) > 5 else "")
        remarks.append(f"no validation image of {data.name} is of the class{'es' * (len(missing) > 1)} {names}")
    if remarks:
        data = dataclasses.replace(data, remarks=(*data.remarks, *remarks))
    return ImageSplits(data, train, valid, test_images, test_labels, official, digest.hexdigest(), origin, test_files)


def _at_most(data: ImageData, pool: Labels, count: int | None, seed: int, least: int = 1) -> Labels:
    """The positions, or a stratified sample of about `count` of them, with at least `least` of each class."""
    if count is None or count >= len(pool):
        return pool
    return stratified(data.labels, count / len(pool), seed, pool, least=least)[1]


def _enough(data: ImageData, pool: Labels, least: int, why: str) -> None:
    if len(data.class_names) < 2:
        found = f"one class, {data.class_names[0]!r}" if data.class_names else "no classes"
        raise DataError(f"{data.name} has {found}; a classifier needs at least two")
    counts = np.bincount(data.labels[pool], minlength=len(data.class_names))
    small = [f"{data.class_names[k]!r} has {counts[k]}" for k in np.flatnonzero(counts < least)]
    if small:
        listed = ", ".join(small[:5]) + (f" and {len(small) - 5} classes more" if len(small) > 5 else "")
        raise DataError(
            f"{data.name} is too small: each class needs at least {least} images ({why}), and {listed}. Add images of "
            f"{'these classes' if len(small) > 1 else 'this class'}, or leave {'them' if len(small) > 1 else 'it'} out of the data"
        )


# --- names and paths --------------------------------------------------------------------------------------------------


def load(
    data: str,
    size: int | None = None,
    channels: int | None = None,
    *,
    labels: str | None = None,
    label_pattern: str | None = None,
) -> ImageData:
    """The data set with a name or at a path. A process reads it once, until its files change.

    `size` and `channels` resize and convert every image; None leaves them (but the pictures of a folder, which have no
    common size, become 32 by 32). `labels` and `label_pattern` say where the labels are if no folders of classes give
    them; see `ImageClassification`.
    Raises UnknownName for an unknown name, and DataError for data that cannot be used.
    """
    name = _plain(data)
    if name in NAMES:
        if labels is not None or label_pattern is not None:
            raise DataError(
                f"{name} has its own labels; labels and label_pattern are for folders and archives of pictures"
            )
        return _load_named(name, size, channels)
    path, labels = _located(data, labels)
    return _load_path(str(path), size, channels, labels, label_pattern, _version_of(path, labels))


def open_data(data: str, *, labels: str | None = None, label_pattern: str | None = None) -> ImageData | PictureFiles:
    """The data set with a name or at a path: itself if it is stored as arrays, or the files of its pictures, not yet decoded.

    Raises UnknownName for an unknown name, and DataError for data that cannot be used.
    """
    from archsmith.data.image_files import open_path

    if is_name(data):
        return load(data, labels=labels, label_pattern=label_pattern)
    path, labels = _located(data, labels)
    return open_path(path, labels, label_pattern)


def read_files(
    data: str,
    files: tuple[str, ...],
    size: int | None,
    channels: int,
    labels: str | None = None,
    label_pattern: str | None = None,
) -> Bytes:
    """Some pictures of a data set of files, [count, size, size, channels], as `load` would read them.

    Args:
        data, size, channels, labels, label_pattern: as in `load`.
        files: which, by the names that `ImageData.files` has.

    Raises DataError for data and files that cannot be read.
    """
    path, labels = _located(data, labels)
    return _read_files(str(path), files, size, channels, labels, label_pattern, _version_of(path, labels))


def _located(data: str, labels: str | None) -> tuple[Path, str | None]:
    """The absolute path of a data set, and of its labels. Raises UnknownName or DataError if it is not there."""
    path = Path(os.path.expanduser(data))
    if not is_there(path):
        if path.suffix or os.sep in data or "/" in data:
            raise DataError(f"there is no file or folder {data!r}; data is a path, or one of {', '.join(NAMES)}")
        raise UnknownName("data set", data, NAMES, hint="(or give the path of a folder or file)")
    path = path.resolve()
    if labels is not None and os.path.isfile(below := os.path.join(path, labels)):
        labels = below
    return path, labels


def _version_of(path: Path, labels: str | None) -> int:
    """A number that changes with the files of the data set at a path, and with the file of its labels."""
    from archsmith.data.label_csv import SUFFIXES
    from archsmith.data.labelling import csv_listing

    paths = [path]
    if path.name.lower().endswith(SUFFIXES) and path.is_file():
        paths += [Path(file.source) for file in csv_listing(path).files.values()]
    if labels is not None and os.path.isfile(labels):
        paths.append(Path(labels))
    return version(*paths, skipped=_is_no_data)


def _is_no_data(name: str, is_folder: bool) -> bool:
    """Whether a file or folder is the system's or archsmith's own, and so not part of the data."""
    return is_system_file(name) or (is_record(name) and (not is_folder or name.endswith(".artifacts")))


def is_name(data: str) -> bool:
    """Whether this is the name of a data set that archsmith knows, which has priority over a path of the same name."""
    return _plain(data) in NAMES


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


@functools.lru_cache(maxsize=4)
def _read_files(
    path: str,
    files: tuple[str, ...],
    size: int | None,
    channels: int,
    labels: str | None,
    label_pattern: str | None,
    _version: int,
) -> Bytes:
    from archsmith.data.image_files import open_path
    from archsmith.data.image_folder import PictureFiles, decode_files

    pictures = open_path(Path(path), labels, label_pattern)
    assert isinstance(pictures, PictureFiles)
    return decode_files(pictures, files, size, channels)


def _load_named(name: str, size: int | None, channels: int | None) -> ImageData:
    if name == "digits":
        return converted(_digits(), size, channels)
    from archsmith.data.download import fetch

    path = fetch(name)
    return _renamed(_load_path(str(path), size, channels, None, None, version(path)), name)


@functools.lru_cache(maxsize=4)
def _load_path(
    path: str,
    size: int | None,
    channels: int | None,
    labels: str | None,
    label_pattern: str | None,
    version: int,
) -> ImageData:
    from archsmith.data.image_files import read_path

    return converted(read_path(Path(path), size, channels, labels, label_pattern), size, channels)


@functools.lru_cache(maxsize=4)
def _renamed(data: ImageData, name: str) -> ImageData:
    return dataclasses.replace(data, name=name)


def is_there(path: Path) -> bool:
    """Whether there is a file or folder. Raises DataError if that cannot be known, as for a name that is too long."""
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=4)
def converted(data: ImageData, size: int | None, channels: int | None) -> ImageData:
    """The data with every image resized and converted; unchanged where it already is as asked."""
    shape = data.images.shape[1:]
    if (size is None or shape[:2] == (size, size)) and (channels is None or shape[2] == channels):
        return data
    from archsmith.data.picture_decoding import resize_arrays

    if channels is not None and shape[2] not in (1, 3):
        raise DataError(f"{data.name} has {shape[2]} channels, which cannot be converted to {channels}; leave channels")
    changed = functools.partial(resize_arrays, size=size, channels=channels)
    return ImageData(
        **{
            **vars(data),
            "images": changed(data.images),
            "test_images": None if data.test_images is None else changed(data.test_images),
            "digest": hashlib.sha256(f"{data.digest} {size} {channels}".encode()).hexdigest(),
        }
    )


def content_digest(arrays: Sequence[NDArray[Any]], class_names: Sequence[str]) -> str:
    """SHA-256 of arrays with their shapes, and of the names of the classes."""
    digest = hashlib.sha256("\0".join(class_names).encode())
    for array in arrays:
        digest.update(f"|{array.dtype.str}{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# --- the data sets that have names ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _digits() -> ImageData:
    """1,797 handwritten digits of 8 by 8 grey pixels, embedded in scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Its grey levels run from 0 to 16: spread over a byte, one to one, so that a picture of a digit fits them.
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    names = tuple(str(n) for n in bunch.target_names)
    digest = content_digest([images, labels], names)
    return ImageData("digits", images, labels, None, None, names, digest, mirrored_is_same=False)


NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")
"""What `data=` may name; everything but digits is downloaded when first used."""
