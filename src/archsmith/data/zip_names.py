"""The names in a zip archive, whatever tool wrote them.

A name is UTF-8 if the archive says so, in its flags or in Info-ZIP's extra field. Otherwise tools have written UTF-8 without
saying so, or the code page of a DOS or Windows system. All such names of an archive are decoded together, in a
known encoding in which each word has letters of only one alphabet. If there is none, bytes that are not ASCII become
surrogate escapes, as with `os.fsdecode`.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field with the name in UTF-8
_LATIN, _CYRILLIC = ("cp437", "cp850"), ("cp866", "cp1251")
_COMMON = frozenset("аеиноАЕИНО")  # in the languages that are written in Cyrillic
_WORD = re.compile(r"[^\W\d_ªº]+")
_PUNCTUATION = {"LATIN": "°´¿¡«»·£§", "CYRILLIC": "«»№"}


def zip_names(members: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names of an archive's members, in their order."""
    names: list[str | bytes] = [_known(member) for member in members]
    encoding, errors = _encoding([name for name in names if isinstance(name, bytes)])
    decoded = [name.decode(encoding, errors) if isinstance(name, bytes) else name for name in names]
    return [name.partition("\0")[0] for name in decoded]


def _known(member: zipfile.ZipInfo) -> str | bytes:
    """A member's name, or its bytes if their encoding is not known."""
    if member.flag_bits & _UTF8_FLAG:
        return member.orig_filename
    raw = member.orig_filename.encode("cp437")  # what zipfile has decoded it from
    extra = member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and body[:1] == b"\x01" and body[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return body[5:].decode("utf-8", "surrogateescape")
    return raw


def _encoding(names: Iterable[bytes]) -> tuple[str, str]:
    """The encoding of the names, and the error handler to decode them with."""
    foreign = [name for name in names if not name.isascii()]
    if all(_is_utf8(name) for name in foreign):
        return "utf-8", "strict"
    for code_page in _LATIN:
        if all(_is_plausible(name.decode(code_page), "LATIN") for name in foreign):
            return code_page, "strict"
    scores = {}
    for code_page in _CYRILLIC:
        decoded = [name.decode(code_page, "replace") for name in foreign]
        if all(_is_plausible(name, "CYRILLIC") for name in decoded):
            scores[code_page] = sum(c in _COMMON for name in decoded for c in name)
    return (max(scores, key=lambda page: scores[page]), "strict") if scores else ("ascii", "surrogateescape")


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_plausible(name: str, alphabet: str) -> bool:
    """Whether a name reads as words in an alphabet: without box drawings, and no word in two alphabets."""
    odd = any(
        not c.isascii() and unicodedata.category(c)[0] not in "LMN" and c not in _PUNCTUATION[alphabet] for c in name
    )
    return not odd and all(_reads_as(word, alphabet) for word in _WORD.findall(name) if not word.isascii())


def _reads_as(word: str, alphabet: str) -> bool:
    """Whether a word with letters that are not ASCII is in an alphabet. In Latin some letters are, or it is a symbol such as Ω."""
    alphabets = {unicodedata.name(c, "").split()[0] for c in word}
    if alphabet == "LATIN":
        return len(word) == 1 or (alphabets == {alphabet} and any(map(str.isascii, word)))
    return alphabets == {alphabet}
