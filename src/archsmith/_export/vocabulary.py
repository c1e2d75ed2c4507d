"""What a language model's numbers mean: text as tokens, and tokens as text."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown

WORD, CHARACTER = "word", "char"
LEVELS = (WORD, CHARACTER)
END, UNKNOWN = "<eos>", "<unk>"
FILE = "vocabulary.json"
_LARGEST_FILE = 2**28  # bytes


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a language model, by number.

    Words stand between white space, and "<eos>" at each line's end; or every character is a symbol, the line end too.
    What is none of them is read as "<unk>", where there is one.

    Args:
        level: "word" or "char".
        symbols: by number, all different.

    Raises ValueError when they are no such symbols.
    """

    level: str
    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"the level of a vocabulary must be {' or '.join(LEVELS)}, got {str(self.level)[:80]!r}")
        if len(self.symbols) < 2 or len(set(self.symbols)) != len(self.symbols):
            raise ValueError("the symbols of a vocabulary must be at least two, all different")
        for symbol in self.symbols:
            right = symbol and (len(symbol) == 1 if self.level == CHARACTER else symbol.split() == [symbol])
            if not (right or symbol == UNKNOWN):
                raise ValueError(f"a symbol must be one {self.level}, got {symbol[:80]!r}")

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def unit(self) -> str:
        """What a person calls a symbol: "word" or "character"."""
        return "word" if self.level == WORD else "character"

    @property
    def end(self) -> int:
        """The line end's number, from which a text's first symbol is predicted; 0 where there is none."""
        return self._numbers.get(END if self.level == WORD else "\n", 0)

    @property
    def unknown(self) -> int | None:
        """The number of "<unk>", or None."""
        return self._numbers.get(UNKNOWN)

    @property
    def underscores(self) -> bool:
        """Whether spaces are underscores, as in the characters that Mikolov made of the Penn Treebank."""
        return self.level == CHARACTER and " " not in self._numbers and "_" in self._numbers

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> NDArray[np.int64]:
        """The numbers of a text's symbols. Raises UsageError for an unknown one where there is no "<unk>"."""
        symbols: Sequence[str] = text.replace("\n", f" {END} ").split() if self.level == WORD else text
        if self.underscores:
            symbols = text.replace(" ", "_")
        unknown, numbers = self.unknown, self._numbers
        if unknown is not None:
            return np.fromiter((numbers.get(s, unknown) for s in symbols), np.int64, len(symbols))
        if strange := next((s for s in symbols if s not in numbers), None):
            what = "word" if self.level == WORD else "character"
            raise UsageError(
                f"the {what} {strange[:80]!r} is none of the model's {len(self):,}, and it has no {UNKNOWN}"
            )
        return np.fromiter((numbers[s] for s in symbols), np.int64, len(symbols))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, a line to each line end; words with single spaces between them."""
        if self.level == CHARACTER:
            text = "".join(self.symbols[k] for k in tokens)
            return text.replace("_", " ") if self.underscores else text
        lines: list[list[str]] = [[]]
        for k in tokens:
            if self.symbols[k] == END:
                lines.append([])
            else:
                lines[-1].append(self.symbols[k])
        return "\n".join(" ".join(line) for line in lines)

    def joined(self, text: str, written: Sequence[int]) -> str:
        """A text, and behind it what tokens say."""
        more = self.decode(written)
        space = " " if self.level == WORD and text and not text[-1].isspace() and not more.startswith("\n") else ""
        return f"{text}{space}{more}"

    def to_json(self) -> dict[str, Any]:
        """What `model.json` tells of it; the symbols have a file of their own, `vocabulary.json`."""
        return {"file": FILE, "level": self.level, "size": len(self), "sha256": self.digest}

    @property
    def digest(self) -> str:
        """SHA-256 of the text of `vocabulary.json`, hexadecimal."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        """The content of `vocabulary.json`: a list, a symbol on each line."""
        return "[\n" + ",\n".join(json.dumps(s, ensure_ascii=False) for s in self.symbols) + "\n]\n"


def read_vocabulary(folder: Path, entry: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary beside a `model.json` whose entry of it was checked. Raises UsageError when it is damaged."""
    path = folder / FILE
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path} has {path.stat().st_size:,} bytes, which no vocabulary has")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    return vocabulary_of(text, entry, str(path))


def vocabulary_of(text: str, entry: Mapping[str, Any], where: str) -> Vocabulary:
    """The vocabulary that `text` holds, if it is the one that a checked entry was written with."""
    if hashlib.sha256(text.encode()).hexdigest() != entry["sha256"]:
        raise UsageError(f"{where} is not the vocabulary that the model was written with: its SHA-256 differs")
    try:
        symbols = json.loads(text)
        if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
            raise ValueError("a vocabulary must be a list of texts")
        vocabulary = Vocabulary(entry["level"], tuple(symbols))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is damaged: {error}") from None
    if len(vocabulary) != entry["size"]:
        raise UsageError(f"{where} has {len(vocabulary):,} symbols, and the model's card says {entry['size']:,}")
    return vocabulary


def check_entry(entry: Any, size: int) -> None:
    """Raise ValueError unless a card's entry of its vocabulary has the shape of one, for so many symbols."""
    if not isinstance(entry, dict):
        raise ValueError(f"vocabulary must be an object, got {type(entry).__name__}")
    if entry["level"] not in LEVELS:
        raise ValueError(f"the vocabulary's level must be {' or '.join(LEVELS)}, got {str(entry['level'])[:80]!r}")
    if entry["size"] != size:
        raise ValueError(f"the vocabulary has {shown(entry['size'])} symbols, and the task {size:,}")
    if not isinstance(entry["sha256"], str):
        raise ValueError(f"the vocabulary's sha256 must be text, got {type(entry['sha256']).__name__}")
