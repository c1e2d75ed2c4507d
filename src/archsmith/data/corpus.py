"""From pieces of text to numbers: words or characters, a vocabulary, and three parts of which each is one array.

Symbols get provisional numbers as they come, and their final ones when all have been counted: a long text never stands
in memory as words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from archsmith.core.errors import DataError
from archsmith.data.text_files import PARTS, WHOLE, Text

Tokens = NDArray[np.unsignedinteger[Any]]

END, UNKNOWN = "<eos>", "<unk>"
_END = 0  # the provisional number of the symbol that ends a line
_LEAST = 20  # tokens of a text that is split by position


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as it was read. Shared between callers: nothing may be written to it.

    Args:
        name: what it is called in messages.
        level: "word" or "char".
        train, validation, test: the symbols of each part, as numbers.
        vocabulary: the symbols by number, the most frequent first.
        end: the number of the symbol that ends a line ("<eos>", or "\\n"); a text's first symbol is predicted from it.
        test_split: where the test part is from, in words.
        unknown: how much of the validation text is none of the vocabulary, as a part of it.
        digest: SHA-256 of the parts and the vocabulary, hexadecimal.
        contents: a short digest of each part.
        remarks: what else a person should know of how it was read.
    """

    name: str
    level: str
    train: Tokens
    validation: Tokens
    test: Tokens
    vocabulary: tuple[str, ...]
    end: int
    test_split: str
    unknown: float
    digest: str
    remarks: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Plain JSON for the record of a run."""
        return {
            "name": self.name,
            "level": self.level,
            "vocabulary": len(self.vocabulary),
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "test_split": self.test_split,
            "unknown": round(self.unknown, 6),
            "sha256": self.digest,
            "remarks": list(self.remarks),
        }


class _Encoder(Protocol):
    """Gives each symbol a provisional number, in the order in which they come."""

    def encode(self, piece: str) -> NDArray[Any]: ...

    def symbols(self) -> list[str]: ...


class _Numbers(dict[str, int]):
    """Gives what it does not know the next number."""

    def __missing__(self, symbol: str) -> int:
        number = self[symbol] = len(self)
        return number


class _Words:
    def __init__(self) -> None:
        self._numbers = _Numbers({END: 0})

    def encode(self, piece: str) -> NDArray[Any]:
        words = piece.replace("\n", f" {END} ").split()
        return np.fromiter(map(self._numbers.__getitem__, words), np.uint32, count=len(words))

    def symbols(self) -> list[str]:
        return list(self._numbers)


class _Characters:
    """By a table of all code points, so that nothing is done character by character."""

    def __init__(self) -> None:
        self._table = np.full(0x110000, -1, np.int32)
        self._codes: list[int] = []
        self.encode("\n")

    def encode(self, piece: str) -> NDArray[Any]:
        codes = np.frombuffer(piece.encode("utf-32-le"), np.uint32)
        numbers = self._table[codes]
        if len(new := np.unique(codes[numbers < 0])):
            self._table[new] = np.arange(len(self._codes), len(self._codes) + len(new))
            self._codes += new.tolist()
            numbers = self._table[codes]
        return numbers.astype(_smallest(len(self._codes)))

    def symbols(self) -> list[str]:
        return [chr(code) for code in self._codes]


def build(name: str, texts: Iterable[Text], level: str, cap: int | None, *, test_split: str = "official") -> Corpus:
    """The corpus of some texts, as `read_texts` gives them; `test_split` says where the test part is from.

    Raises DataError for a text that is empty, too short to be split, or all of one symbol.
    """
    encoder: _Encoder = _Words() if level == "word" else _Characters()
    parts: dict[str, list[NDArray[Any]]] = {}
    for part, where, pieces in texts:
        ended = True
        parts[part] = []
        for piece in pieces:
            spelled = level == "char" and where.startswith("ptb.")
            parts[part].append(encoder.encode(_spelled(piece) if spelled else piece))
            ended = piece.endswith("\n")
        if not ended and level == "word":
            parts[part].append(encoder.encode("\n"))
        if not any((numbers != _END).any() for numbers in parts[part]):
            raise DataError(f"{name} has nothing in its text {where} but line ends")
    remarks = []
    if WHOLE in parts:
        parts = _split(name, parts[WHOLE])
        test_split = "the last 10 %, after 10 % to validate with"
    symbols = encoder.symbols()
    del encoder
    table, vocabulary = _vocabulary(name, parts, symbols, cap)
    train, validation, test = (_renumbered(parts.pop(part), table) for part in PARTS)
    unknown = float(np.mean(validation == vocabulary.index(UNKNOWN))) if UNKNOWN in vocabulary else 0.0
    if unknown > 0.1 and level == "word":
        more = "allow more vocabulary, " if len(vocabulary) == cap else ""  # else all are in it that come twice
        remarks.append(
            f"{unknown:.0%} of the validation words are unknown; separate punctuation from words, {more}"
            'or read characters (the recipe text-chars; in Python level="char")'
        )
    end = END if level == "word" else "\n"
    return Corpus(
        name=name,
        level=level,
        train=train,
        validation=validation,
        test=test,
        vocabulary=tuple(vocabulary),
        end=vocabulary.index(end) if end in vocabulary else 0,
        test_split=test_split,
        unknown=unknown,
        digest=_digest((train, validation, test), vocabulary),
        remarks=tuple(remarks),
        contents={
            f"the {part} text": _digest([tokens], vocabulary)[:16]
            for part, tokens in zip(PARTS, (train, validation, test), strict=True)
        },
    )


def _spelled(piece: str) -> str:
    """Words as Mikolov's character files have them: spaces are underscores, lines have none at their ends."""
    lines = piece.split("\n")
    ending = "\n" if lines[-1] == "" else ""
    return "\n".join(line.strip().replace(" ", "_") for line in (lines[:-1] if ending else lines)) + ending


def _split(name: str, pieces: Sequence[NDArray[Any]]) -> dict[str, list[NDArray[Any]]]:
    """The first 80 % to train, 10 % to validate, 10 % to test; each ends at a line end where one is near."""
    count = sum(len(piece) for piece in pieces)
    if count < _LEAST:
        raise DataError(f"{name} has {count} symbols; a text needs at least {_LEAST} to be split into three parts")
    marks = []
    for mark in (round(0.8 * count), round(0.9 * count)):
        end = next((at for at in _line_ends(pieces, mark - 1) if at >= mark), count)
        marks.append(end if end <= mark + count // 20 and end < count else mark)
    return {part: _between(pieces, a, b) for part, a, b in zip(PARTS, (0, *marks), (*marks, count), strict=True)}


def _line_ends(pieces: Sequence[NDArray[Any]], start: int) -> Iterator[int]:
    """The positions behind line ends from `start` on."""
    offset = 0
    for piece in pieces:
        if offset + len(piece) > start:
            yield from (offset + 1 + int(at) for at in np.flatnonzero(piece == _END) if offset + at >= start)
        offset += len(piece)


def _between(pieces: Sequence[NDArray[Any]], start: int, end: int) -> list[NDArray[Any]]:
    found, offset = [], 0
    for piece in pieces:
        part = piece[max(0, start - offset) : max(0, end - offset)]
        if len(part):
            found.append(part)
        offset += len(piece)
    return found


def _vocabulary(
    name: str, parts: dict[str, list[NDArray[Any]]], symbols: Sequence[str], cap: int | None
) -> tuple[Tokens, list[str]]:
    """From provisional numbers to those of the vocabulary, and the vocabulary."""
    counts = np.zeros(len(symbols), np.int64)
    seen = np.zeros(len(symbols), bool)
    for part, pieces in parts.items():
        for piece in pieces:
            if part == "train":
                counts += np.bincount(piece, minlength=len(symbols))
            else:
                seen[piece] = True
    own = UNKNOWN in symbols and counts[symbols.index(UNKNOWN)] > 0
    outside = bool((seen & (counts == 0)).any()) or (cap is not None and np.count_nonzero(counts) > cap)
    unknown = [UNKNOWN] if outside or own else []
    least = 2 if outside and not own else 1
    kept = [i for i in np.flatnonzero(counts >= least).tolist() if i != _END and symbols[i] not in unknown]
    kept.sort(key=lambda i: (-counts[i], symbols[i]))
    ends = [_END] if counts[_END] else []
    if cap is not None:
        del kept[max(0, cap - len(ends) - len(unknown)) :]
    ordered = sorted(kept + ends, key=lambda i: (-counts[i], symbols[i]))
    vocabulary = [symbols[i] for i in ordered] + unknown
    if sum(symbol not in (END, UNKNOWN) for symbol in vocabulary) < 2:
        few = ", ".join(repr(symbol) for symbol in vocabulary) or "nothing"
        raise DataError(f"{name} has too few different symbols to learn from: with vocabulary={cap} it keeps {few}")
    table = np.full(len(symbols), len(vocabulary) - 1, _smallest(len(vocabulary)))
    table[ordered] = np.arange(len(ordered))
    return table, vocabulary


def _renumbered(pieces: list[NDArray[Any]], table: Tokens) -> Tokens:
    """One array of all pieces, which are given up on the way."""
    array = np.empty(sum(len(piece) for piece in pieces), table.dtype)
    offset = 0
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        array[offset : offset + len(piece)] = table[piece]
        offset += len(piece)
    array.setflags(write=False)
    return array


def _smallest(count: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if count <= 1 << 8 else np.uint16 if count <= 1 << 16 else np.uint32


def _digest(arrays: Sequence[Tokens], vocabulary: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(vocabulary).encode())
    for array in arrays:
        digest.update(f"|{array.dtype.str}{array.shape}|".encode())
        digest.update(array.data)
    return digest.hexdigest()
