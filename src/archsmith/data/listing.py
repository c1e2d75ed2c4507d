"""Lists the files of a folder; `archive_listing` does the same for archives.

Links are followed at every depth, but no folder is entered from inside itself. A file with several paths has one `source`.
Names are UTF-8 on every system, with surrogate escapes for other bytes, as `os.fsdecode` gives them.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from archsmith.core.errors import DataError
from archsmith.data.layout import Parts
from archsmith.data.picture_decoding import looks_like_picture, read_some
from archsmith.data.system_files import is_system_file

_PICTURE_SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
        ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".mpo", ".heic", ".heif", ".tga", ".ico",
    )
)  # fmt: skip
HEAD = 32  # bytes that tell a picture from other files
DEEPEST = 100  # folders within folders
_MOST_VISITS = 100  # of one folder, through links

Content = tuple[str, int, Callable[[], bytes]]
"""A file's source, the number of its bytes in memory, and a function that reads them (or raises DataError or OSError)."""


@dataclass(frozen=True)
class ListedFile:
    """A file of a data set.

    Args:
        source: the file itself: the same for all paths that lead to it.
        is_picture: by its name or its first bytes.
    """

    source: str
    is_picture: bool


@dataclass(frozen=True)
class Listing:
    """The files and folders of a data set by path, system files left out.

    Args:
        files: all of them.
        folders: all, the empty ones among them.
        unreadable: folders that could not be opened, with the reason.
        dead_ends: links and folders that were not followed, with the reason.
        system_files: paths of hidden files and folders, and of those that operating systems and devices create.
    """

    files: dict[Parts, ListedFile] = field(default_factory=dict)
    folders: list[Parts] = field(default_factory=list)
    unreadable: list[tuple[Parts, str]] = field(default_factory=list)
    dead_ends: list[tuple[Parts, str]] = field(default_factory=list)
    system_files: list[Parts] = field(default_factory=list)

    def pictures(self) -> Iterator[Parts]:
        """The paths of the pictures."""
        return (path for path, file in self.files.items() if file.is_picture)

    def others(self) -> Iterator[Parts]:
        """The paths of all other files."""
        return (path for path, file in self.files.items() if not file.is_picture)


def is_picture(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is a picture by its name, or else by its first bytes."""
    return has_picture_suffix(name) or looks_like_picture(head())


def has_picture_suffix(name: str) -> bool:
    """Whether a name ends as those of pictures do."""
    return os.path.splitext(name)[1].lower() in _PICTURE_SUFFIXES


def list_folder(path: Path) -> Listing:
    """All files of a folder. Raises DataError if the folder itself cannot be opened."""
    listing = Listing()
    visits: Counter[str] = Counter()
    top = os.path.realpath(path)
    waiting: deque[tuple[Parts, str, frozenset[str]]] = deque([((), top, frozenset())])
    while waiting:  # those near the top first, so that links to many folders leave no class without its pictures
        parts, folder, around = waiting.popleft()
        visits[folder] += 1
        if folder in around:
            listing.dead_ends.append((parts, "a link to a folder that it is in"))
            continue
        if visits[folder] > _MOST_VISITS or len(parts) > DEEPEST:
            listing.dead_ends.append((parts, f"more than {DEEPEST} folders deep, or links to one folder"))
            continue
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            if not parts:
                raise DataError(f"the folder {path} cannot be opened: {error.strerror or error}") from None
            listing.unreadable.append((parts, error.strerror or str(error)))
            continue
        if parts:
            listing.folders.append(parts)
        for entry in entries:
            inner = (*parts, _as_utf8(entry.name))
            source = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            if is_system_file(entry.name):
                listing.system_files.append(inner)
            elif _is_folder(entry):
                waiting.append((inner, source, around | {folder}))
            else:
                listing.files[inner] = ListedFile(source, is_picture(entry.name, partial(_head, source)))
    return listing


def folder_contents(sources: Iterable[str]) -> Iterator[Content]:
    """The content of each file of a folder."""
    return ((source, 0, partial(_read, source)) for source in sources)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round and round
        return False


def _as_utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _head(path: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""  # a pipe would be waited for
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def _read(path: str) -> bytes:
    """The bytes of a picture file. Raises DataError for anything but a regular file (a pipe could block), and if it is too large."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise DataError("is a link to nothing") from None
    if not stat.S_ISREG(mode):
        raise DataError("is no file")
    return read_some(Path(path))
