"""Lists the files of an archive, as `listing` does for a folder. Nothing is extracted to the disk.

An archive is read twice: once for its names, and once for the content of the pictures. If several members have the same name,
the last one counts, as for tools that extract them. Links to other members are followed; those that lead out are not.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from archsmith.core.errors import DataError
from archsmith.core.shown import spelled
from archsmith.data.layout import Parts
from archsmith.data.listing import DEEPEST, HEAD, Content, ListedFile, Listing, is_picture
from archsmith.data.picture_decoding import FILE_CAP, TOO_LARGE
from archsmith.data.system_files import is_system_file
from archsmith.data.unpacking import DAMAGED, is_zip, open_tar, open_zip
from archsmith.data.zip_names import zip_names

_TOTAL_CAP = 1 << 36  # bytes of all files of an archive, unpacked
_MOST_LINKED = 1 << 20  # files that links lead to
_DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)")


@dataclass(frozen=True)
class Member:
    """A file, folder or link of an archive.

    Args:
        source: its position in the archive.
        name: as the archive has it.
        size: in bytes, unpacked.
        is_folder: whether it is a folder.
        backslashes: whether backslashes separate folders; None: only if no name in the archive has a slash.
        link: the target, if it is a link.
        hard: whether the link's target is a name in the archive; otherwise it is relative to the link's own folder.
    """

    source: str
    name: str
    size: int
    is_folder: bool = False
    backslashes: bool | None = None
    link: str | None = None
    hard: bool = False


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise DataError(f"{path} is a damaged archive: {error}") from None


def list_archive(path: Path) -> Listing:
    """All files of a .zip or .tar archive, packed in any way.

    Raises DataError for a damaged archive, for one that is too large, and for names that lead out of it.
    """
    listing = Listing()
    links: dict[Parts, Parts | None] = {}
    total = 0
    found: list[tuple[Member, bool]] = []
    with _errors(path):
        for member, picture in _members(path):
            if (total := total + member.size) > _TOTAL_CAP:
                raise DataError(
                    f"{path} unpacks to more than {_TOTAL_CAP:,} bytes; unpack it yourself and give the folder"
                )
            found.append((member, picture))
    slashes = any("/" in member.name for member, _ in found)
    for member, picture in found:
        backslashes = member.backslashes if member.backslashes is not None else not slashes
        inner = _parts(path, member.name, backslashes)
        if not inner:
            continue
        if any(map(is_system_file, inner)):
            listing.system_files.append(inner)
        elif len(inner) > DEEPEST:
            listing.dead_ends.append((inner[:1], f"more than {DEEPEST} folders deep"))
        elif member.is_folder:
            listing.folders.append(inner)
        elif member.link is not None:
            links[inner] = _target(member.link, () if member.hard else inner[:-1])
            listing.files.pop(inner, None)
        else:
            listing.files[inner] = ListedFile(member.source, picture)
            links.pop(inner, None)
    _follow(links, listing, path)
    return listing


def archive_contents(path: Path, sources: Collection[str]) -> Iterator[Content]:
    """The content of some files of an archive. Raises DataError if it is damaged."""
    with _errors(path):
        if is_zip(path):
            with open_zip(path) as packed:
                members = packed.infolist()
                for source in sorted(sources, key=int):
                    info = members[int(source)]
                    content = b"" if info.file_size > FILE_CAP else packed.read(info)
                    yield source, len(content), partial(_given, content, info.file_size)
        else:
            with open_tar(path) as archive:
                for number, member in enumerate(archive):
                    if str(number) in sources:
                        stream = archive.extractfile(member) if member.size <= FILE_CAP else None
                        content = stream.read() if stream else b""
                        yield str(number), len(content), partial(_given, content, member.size)


def _given(content: bytes, size: int) -> bytes:
    if size > FILE_CAP:
        raise DataError(TOO_LARGE)
    return content


def _members(path: Path) -> Iterator[tuple[Member, bool]]:
    """The members of an archive, each with whether it is a picture."""
    if is_zip(path):
        with open_zip(path) as packed:
            members = packed.infolist()
            for number, (info, name) in enumerate(zip(members, zip_names(members), strict=True)):
                yield _zip_member(packed, number, info, name)
    else:
        with open_tar(path) as archive:
            for number, entry in enumerate(archive):
                if entry.isfile() or entry.isdir() or entry.issym() or entry.islnk():
                    link = entry.linkname if entry.issym() or entry.islnk() else None
                    stream = archive.extractfile(entry) if entry.isfile() else None
                    picture = stream is not None and is_picture(entry.name, partial(_head, stream))
                    member = Member(str(number), entry.name, entry.size, entry.isdir(), None, link, entry.islnk())
                    yield member, picture


def _zip_member(packed: zipfile.ZipFile, number: int, info: zipfile.ZipInfo, name: str) -> tuple[Member, bool]:
    if info.flag_bits & 1:
        raise DataError(f"{packed.filename} is encrypted; unpack it yourself and give the folder")
    unix = info.create_system == 3
    mode = info.external_attr >> 16 if unix else 0
    is_folder = (
        name.endswith("/")
        or (name.endswith("\\") and not info.file_size)
        or (stat.S_ISDIR(mode) if unix else bool(info.external_attr & 0x10))
    )
    link = None
    if stat.S_ISLNK(mode) and info.file_size < 1 << 12:
        link = packed.read(info).decode("utf-8", "surrogateescape")
    picture = not is_folder and link is None and is_picture(name, partial(_zip_head, packed, info))
    return Member(str(number), name, info.file_size, is_folder, None if unix else True, link), picture


def _zip_head(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with packed.open(info) as stream:
        return stream.read(HEAD)


def _head(stream: IO[bytes]) -> bytes:
    return stream.read(HEAD)


# --- names and links --------------------------------------------------------------------------------------------------


def _parts(path: Path, name: str, backslashes: bool) -> Parts:
    """A member's name as a path. Raises DataError if it leads out of the archive on any system."""
    if ".." in re.split(r"[\\/]", name) or name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise DataError(
            f"{path} has a member '{spelled(name)}' that leads out of the archive; it is not read. Pack the archive again with "
            "names relative to the folder of the data, or unpack it yourself and give the folder"
        )
    return tuple(part for part in re.split(r"[\\/]" if backslashes else "/", name) if part not in ("", "."))


def _target(link: str, folder: Parts) -> Parts | None:
    """The target of a link within the archive, or None if it leads out."""
    if link.startswith("/"):
        return None
    found = list(folder)
    for part in link.split("/"):
        if part == ".." and not found:
            return None
        if part == "..":
            found.pop()
        elif part not in ("", "."):
            found.append(part)
    return tuple(found)


def _follow(links: dict[Parts, Parts | None], listing: Listing, path: Path) -> None:
    """List the targets of links under the paths of the links too, and note links that lead nowhere."""
    left = dict(links)
    progress = True
    while progress:
        progress = False
        for link, target in list(left.items()):
            if target is None:
                listing.dead_ends.append((link, "a link that leads out of the archive"))
            elif target == link[: len(target)]:
                listing.dead_ends.append((link, "a link to a folder that it is in"))
            elif target in listing.files:
                listing.files[link] = listing.files[target]
            elif target in left or any(_overlap(target, other) for other in left if other != link):
                continue  # what is there is known when those links are
            elif inner := [file for file in listing.files if file[: len(target)] == target]:
                if len(inner) + len(listing.files) > _MOST_LINKED:
                    raise DataError(f"{path} has links to more than {_MOST_LINKED:,} files; give it as a folder")
                for file in inner:
                    listing.files[(*link, *file[len(target) :])] = listing.files[file]
            else:
                listing.dead_ends.append((link, "a link to nothing"))
            del left[link]
            progress = True
    listing.dead_ends.extend((link, "a link that leads to links only") for link in left)


def _overlap(a: Parts, b: Parts) -> bool:
    shared = min(len(a), len(b))
    return a[:shared] == b[:shared]
