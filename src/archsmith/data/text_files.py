"""Reads texts as pieces of a bounded size: plain or packed files, folders, and archives. Nothing is extracted.

A text is checked while it is read: it must be UTF-8 without NUL bytes. Line ends of every kind become "\\n".
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from archsmith.core.errors import DataError
from archsmith.core.shown import spelled
from archsmith.data.system_files import is_system_file
from archsmith.data.unpacking import ARCHIVES, DAMAGED, is_zip, open_tar, open_zip, unpacked

WHOLE = "whole"
"""The part that a single text is: it still has to be split."""
PARTS = ("train", "validation", "test")

_PIECE = 1 << 20  # bytes read at once
_SIZE_CAP = 4 << 30  # bytes of one unpacked text
_WORD_CAP = 1 << 16  # characters without a space: no text that people write has such a word
_NAME = re.compile(r"(?:.*[._-])?(train|training|valid|validation|val|dev|test)\.(?:txt|tokens)", re.IGNORECASE)
_WANTED = "a folder or archive has train.txt, valid.txt and test.txt (or with a name before, such as ptb.train.txt)"


Text = tuple[str, str, Iterator[str]]


def read_texts(path: Path, *, words: bool = True) -> Iterator[Text]:
    """Each text at a path: its part ("train", "validation", "test", or "whole"), its name, and its pieces.

    Pieces end at line ends where a text has some, else, if `words`, at white space, so that none cuts a word in two.
    They are to be read before the next text is asked for.
    Raises DataError, also while pieces are read, for what is missing, damaged, empty or no text.
    """
    with _told(str(path)):
        if path.is_dir():
            yield from _from_folder(path, words)
        elif path.name.lower().endswith(ARCHIVES):
            yield from _from_archive(path, words)
        else:
            with unpacked(path) as file:
                yield WHOLE, path.name, pieces(file, str(path), words=words)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What goes wrong with a file, as a DataError that names it."""
    try:
        yield
    except DAMAGED as error:
        raise DataError(f"{name} is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{error.filename or name} cannot be read: {error.strerror or error}") from None


def pieces(file: IO[bytes], name: str, *, words: bool = True) -> Iterator[str]:
    """A file's text in pieces, as `read_texts` has them. Raises DataError when it is empty or no text in UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    size, kept = 0, ""
    while True:
        with _told(name):
            block = file.read(_PIECE)
        if (at := block.find(b"\0")) >= 0:
            raise DataError(
                f"{name} is no text: byte {size + at:,} is NUL. If it is a text in UTF-16 or another encoding, "
                "save it as UTF-8; words and characters are read from UTF-8 alone"
            )
        pending = len(decoder.getstate()[0])
        try:
            decoded = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise DataError(
                f"{name} is not UTF-8: byte {size - pending + error.start:,} is 0x{byte:02x} ({error.reason}). "
                "Save it as UTF-8, for example with `iconv -f latin1 -t utf-8`"
            ) from None
        size += len(block)
        if size > _SIZE_CAP:
            raise DataError(f"{name} has more than {_SIZE_CAP >> 30} GiB of text; give a part of it")
        kept += newlines.decode(decoded, final=not block)
        if not block:
            break
        cut = _cut(kept, words)
        if cut:
            yield kept[:cut]
            kept = kept[cut:]
        elif len(kept) > _WORD_CAP:
            raise DataError(
                f"{name} has {_WORD_CAP:,} characters and more without a space: it has no words. "
                'Read its characters with level="char"'
            )
    if not size:
        raise DataError(f"{name} is empty")
    if kept:
        yield kept


def _cut(text: str, words: bool) -> int:
    """Where to cut: behind the last line end, or else behind the last white space. 0 when there is no place."""
    cut = text.rfind("\n") + 1
    if cut or not words:
        return cut or len(text)
    for at in range(len(text) - 1, max(-1, len(text) - 1 - _WORD_CAP), -1):
        if text[at].isspace():
            return at + 1
    return 0


# --- folders and archives ---------------------------------------------------------------------------------------------


def part_of(name: str) -> str | None:
    """Which part a file of that name is, if any."""
    matched = _NAME.fullmatch(Path(name).name)
    if matched is None:
        return None
    word = matched[1].lower()
    return "train" if word.startswith("train") else "test" if word == "test" else "validation"


def _complete(names: dict[str, str], where: str) -> None:
    """Raises DataError when parts are missing. `names` are those found, by part."""
    if missing := [part for part in PARTS if part not in names]:
        found = f"it has {', '.join(sorted(names.values()))}" if names else "it has none of them"
        raise DataError(f"{where} lacks the text for {' and '.join(missing)}: {_WANTED}; {found}")


def _note(found: dict[str, str], part: str, name: str, where: str) -> None:
    if part in found:
        raise DataError(f"{where} has two texts for {part}, {found[part]} and {name}; keep one of them")
    found[part] = name


def _from_folder(folder: Path, words: bool) -> Iterator[Text]:
    found: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and not is_system_file(file.name) and (part := part_of(file.name)) is not None:
            _note(found, part, file.name, str(folder))
    _complete(found, str(folder))
    for part in PARTS:
        with open(folder / found[part], "rb") as opened:
            yield part, found[part], pieces(opened, str(folder / found[part]), words=words)


def _from_archive(path: Path, words: bool) -> Iterator[Text]:
    """The three texts of an archive, in its own order; or its only one."""
    found: dict[str, str] = {}
    others: list[str] = []
    for name, file in _members(path):
        part = part_of(name)
        if part is None:
            others.append(name)
            continue
        _note(found, part, name, str(path))
        yield part, Path(name).name, pieces(file, f"{name} in {path}", words=words)
    texts = [name for name in others if name.lower().endswith((".txt", ".tokens"))]
    if not found and len(texts) == 1:
        for name, file in _members(path):
            if name == texts[0]:
                yield WHOLE, Path(name).name, pieces(file, f"{name} in {path}", words=words)
        return
    _complete(found, str(path))


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of an archive, each to be read before the next is asked for."""
    if is_zip(path):
        with open_zip(path) as zipped:
            for entry in zipped.infolist():
                name = entry.filename.replace("\\", "/")
                if not name.endswith("/") and not _hidden(name):
                    if entry.flag_bits & 1:
                        raise DataError(f"{spelled(name)} in {path} is encrypted; unpack it yourself")
                    with zipped.open(entry) as file:
                        yield name, file
        return
    with open_tar(path) as archive:
        for member in archive:
            name = member.name.replace("\\", "/")
            if member.isfile() and not _hidden(name) and (opened := archive.extractfile(member)) is not None:
                yield name, opened


def _hidden(name: str) -> bool:
    return any(is_system_file(part) for part in name.split("/") if part not in (".", ".."))
