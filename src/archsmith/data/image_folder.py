"""A folder of pictures, one folder a class, or the same as a .tar.gz or .zip; pictures of any size and mode.

`listing` and `archive_listing` list the files, `layout` decides what the folders mean, and `decoding` decodes the pictures.
Every file is accounted for: those that cannot be read are named in a warning and in the data's description, and those that
are not part of the data are summed up in one line on stderr.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.core.errors import DataError
from archsmith.core.shown import plain, spelled
from archsmith.data.archive_listing import archive_contents, list_archive
from archsmith.data.decoding import decode_all
from archsmith.data.images import Bytes, ImageData
from archsmith.data.labelling import Contents, Labelling, csv_listing, find_layout, no_pictures
from archsmith.data.layout import Ignored, LabelledPicture, Layout, Parts, path_text
from archsmith.data.listing import Listing, folder_contents, list_folder
from archsmith.data.picture_decoding import read_picture, resize_arrays
from archsmith.data.split_names import TEST, TRAIN, VALIDATION

NO_LABELLING = Labelling()  # then it is looked for
DEFAULT_SIZE = 32  # pixels a side, as the paper's CIFAR-10
_said: set[tuple[str, str]] = set()  # names and digests of the data whose summary was printed

__all__ = [
    "PictureFiles",
    "list_described_pictures",
    "list_packed_pictures",
    "list_pictures",
    "read_picture",
    "read_pictures",
    "resize_arrays",
]


@dataclass(frozen=True)
class PictureFiles:
    """The files of a data set of pictures, of which nothing is decoded yet.

    Args:
        name: what the data set is called in messages.
        listing: all files.
        contents: reads some of them, by their sources.
        layout: the classes and splits of the pictures.
    """

    name: str
    listing: Listing
    contents: Contents
    layout: Layout


def list_pictures(path: Path, labelling: Labelling = NO_LABELLING) -> PictureFiles:
    """The pictures of a folder with one folder a class. Nested folders belong to the class they are in.

    Raises DataError when it is empty, and when the classes cannot be determined.
    """
    listing = list_folder(path)
    if not (listing.files or listing.folders or listing.unreadable):
        raise DataError(f"the folder {path} is empty; data is a folder with one folder of pictures for each class")
    return _laid_out(str(path), listing, folder_contents, labelling)


def list_packed_pictures(path: Path, labelling: Labelling = NO_LABELLING) -> PictureFiles:
    """The same, of a .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip whose folders are the classes.

    Raises DataError for a damaged archive, and for paths in it that would lead out of it.
    """
    listing = list_archive(path)
    return _laid_out(str(path), listing, lambda sources: archive_contents(path, sources), labelling)


def list_described_pictures(path: Path) -> PictureFiles:
    """The pictures that a CSV names, with the labels that it gives them. Raises DataError where it names none."""
    return _laid_out(str(path), csv_listing(path), folder_contents, Labelling(csv=str(path)))


def _laid_out(name: str, listing: Listing, contents: Contents, labelling: Labelling) -> PictureFiles:
    try:
        return PictureFiles(name, listing, contents, find_layout(listing, contents, labelling))
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def read_pictures(pictures_in: PictureFiles, size: int | None, channels: int | None) -> ImageData:
    """The pictures decoded, `size` pixels a side.

    Raises DataError when a folder that may be a class cannot be opened, and when nothing can be read.
    """
    name, listing, contents, layout = pictures_in.name, pictures_in.listing, pictures_in.contents, pictures_in.layout
    pictures, again = _once(layout.pictures, listing)
    left_out = [*layout.left_out, *_unopened(name, layout, listing)]
    side = size or DEFAULT_SIZE
    pictures.sort(key=lambda picture: picture.key)
    in_memory = sorted(pictures, key=lambda picture: picture.split == TEST)
    sources = list(dict.fromkeys(listing.files[picture.path].source for picture in in_memory))
    decoded = decode_all(sources, contents, side, channels)

    digest = hashlib.sha256(f"pictures {side} {channels}".encode())
    kept: list[tuple[LabelledPicture, str]] = []
    files: dict[str, str] = {}
    for picture in pictures:
        source = listing.files[picture.path].source
        file_hash = decoded.hashes[source]
        digest.update("/".join(picture.key).encode("utf-8", "surrogateescape") + b"\0" + file_hash)
        files[path_text(picture.key)] = file_hash.hex()[:16]
        if source in decoded.problems:
            left_out.append((picture.path, decoded.problems[source]))
        else:
            kept.append((picture, source))
    unreadable = [f"{path_text(path)}: {reason}" for path, reason in sorted(left_out)]
    _report(name, unreadable, len(unreadable) + len(kept))
    if not kept:
        raise no_pictures(name, listing, unreadable)
    summary = _summary(layout, [picture for picture, _ in kept], listing, again)
    _say_once(spelled(name), digest.hexdigest(), summary)
    for warning in layout.warnings:
        warnings.warn(f"{spelled(name)}: {warning}", stacklevel=3)
    remarks = list(layout.warnings)
    number = {label: k for k, label in enumerate(layout.classes)}
    arrays: list[Any] = []
    names: list[tuple[str, ...]] = []
    for of_test in (False, True):
        chosen = [(picture, source) for picture, source in kept if (picture.split == TEST) == of_test]
        images = decoded.take([source for _, source in chosen])
        arrays += [images, np.array([number[picture.label] for picture, _ in chosen], np.int64)]
        names.append(tuple(path_text(picture.path) for picture, _ in chosen))
    learned = [picture for picture, _ in kept if picture.split != TEST]
    validation = np.flatnonzero([picture.split == VALIDATION for picture in learned])
    has_test = len(arrays[3]) > 0
    return ImageData(
        name=spelled(name),
        images=arrays[0],
        labels=arrays[1],
        test_images=arrays[2] if has_test else None,
        test_labels=arrays[3] if has_test else None,
        class_names=layout.classes,
        # Of the files and not of the pixels: decoders differ by a grey level from version to version.
        digest=digest.hexdigest(),
        mirrored_is_same=decoded.pixels.shape[3] == 3,
        unreadable=tuple(unreadable),
        remarks=tuple(remarks),
        contents=files,
        layout=summary,
        validation=validation if len(validation) else None,
        files=names[0],
        test_files=names[1],
    )


def decode_files(pictures_in: PictureFiles, files: Sequence[str], size: int | None, channels: int) -> Bytes:
    """Some of the pictures, decoded, by the names that `ImageData.files` has. Raises DataError if one cannot be read."""
    listing, wanted = pictures_in.listing, set(files)
    names = {picture.path: path_text(picture.path) for picture in pictures_in.layout.pictures}
    source_of = {name: listing.files[path].source for path, name in names.items() if name in wanted}
    if gone := sorted(wanted - source_of.keys()):
        raise DataError(f"{pictures_in.name} has no picture {gone[0]!r} any more")
    sources = [source_of[name] for name in files]
    decoded = decode_all(list(dict.fromkeys(sources)), pictures_in.contents, size or DEFAULT_SIZE, channels)
    for source, problem in decoded.problems.items():
        raise DataError(f"{pictures_in.name}: {source} can no longer be read: {problem}")
    return decoded.take(sources)


def _once(pictures: Iterable[LabelledPicture], listing: Listing) -> tuple[list[LabelledPicture], int]:
    """Each picture once per class and split, under its first path, and the number of further paths to them."""
    once: dict[tuple[str, str, str], LabelledPicture] = {}
    again = 0
    for picture in pictures:
        known = once.setdefault((picture.split, picture.label, listing.files[picture.path].source), picture)
        again += known is not picture
    return list(once.values()), again


def _unopened(name: str, layout: Layout, listing: Listing) -> Iterator[tuple[Parts, str]]:
    """The folders within classes that cannot be opened. Raises DataError for one that may be a class or a split."""
    ignored = {each.path for each in layout.ignored}
    for path, reason in listing.unreadable:
        around = {path[:end] for end in range(1, len(path))}
        if around & layout.class_folders:
            yield path, f"the folder cannot be opened ({reason})"
        elif not around & ignored:
            raise DataError(
                f"{name}: the folder {path_text(path)}/ cannot be opened ({reason}), and may be a class. Make it "
                "readable, or move it out of the data"
            )


def _report(name: str, unreadable: Sequence[str], count: int) -> None:
    if unreadable:
        listed = "".join(f"\n  {line}" for line in unreadable[:20])
        more = f"\n  and {len(unreadable) - 20} more" if len(unreadable) > 20 else ""
        warnings.warn(
            f"{len(unreadable)} of {count} files of {spelled(name)} were left out:{listed}{more}", stacklevel=3
        )


# --- the line that says how the data were read ------------------------------------------------------------------------


def _summary(layout: Layout, pictures: Sequence[LabelledPicture], listing: Listing, again: int) -> str:
    """One line for a person to check: classes, pictures of each split, and what was ignored and why."""
    first = ", ".join(layout.classes[:5]) + (", ..." if len(layout.classes) > 5 else "")
    counts = Counter(picture.split for picture in pictures)
    splits = [f"{counts[split]:,} for {split}" for split in (TRAIN, VALIDATION, TEST) if counts[split]]
    origin = f" from {layout.origin}" if layout.origin else ""
    read = f"{len(layout.classes)} classes ({first}){origin}; {len(pictures):,} pictures"
    parts = [read + (f": {', '.join(splits)}" if len(splits) > 1 else "")]
    if again:
        parts.append(f"{again:,} more paths are links to the same pictures")
    ignored = [*layout.ignored, *(Ignored(path, reason) for path, reason in listing.dead_ends)]
    reasons = dict.fromkeys(each.reason for each in ignored)
    groups = [_grouped([each for each in ignored if each.reason == reason]) for reason in reasons]
    if count := len(listing.system_files):
        groups.append(f"{count:,} hidden or system file{'s' * (count > 1)}")
    return "; ".join([*parts, *([f"ignored: {', '.join(groups)}"] if groups else [])])


def _grouped(ignored: Sequence[Ignored]) -> str:
    """The paths ignored for one reason: the first three, how many more, and the number of pictures in them."""
    paths = " ".join(path_text(each.path) + "/" * each.is_folder for each in ignored[:3])
    more = f" and {len(ignored) - 3:,} more" if len(ignored) > 3 else ""
    count = sum(each.pictures for each in ignored)
    return f"{paths}{more} ({f'{count:,} pictures, ' if count else ''}{ignored[0].reason})"


def _say_once(name: str, digest: str, summary: str) -> None:
    """Print the summary on stderr in any encoding, once per process for the same content."""
    if sys.stderr is not None and (name, digest) not in _said:
        _said.add((name, digest))
        encoding = sys.stderr.encoding or "utf-8"
        print(plain(f"{name}: {summary}").encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)
