"""Pairs of sentences from two aligned files, as symbols of two vocabularies.

A sentence is split into words and single punctuation marks; a mark that touches its neighbour carries a joiner on that
side, so that splitting is undone exactly, up to the kind of white space: "Ein Hut, der" is Ein, Hut, ￭, and der, and
saftig-grünes is saftig, ￭-￭ and grünes. Capitals stay. A vocabulary holds the most frequent of the training text.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsmith.core.errors import DataError, UnknownName
from archsmith.core.shown import spelled
from archsmith.core.special_tokens import END, UNKNOWN
from archsmith.data.download import cache_folder
from archsmith.data.images import is_there
from archsmith.data.unpacking import DAMAGED, unpacked

MULTI30K = "multi30k"
JOINER = "￭"
TEST_FRACTION, MOST_HELD_OUT = 0.2, 3000  # of the pairs, where no file holds test sentences; WMT's tests have 3,000
TEST_SEED = 0
_NAMES = {"train": ("train", "training"), "validation": ("valid", "validation", "val", "dev"), "test": ("test",)}
_LEAST_PAIRS = 10
_SIZE_CAP = 1 << 32  # bytes of one file, unpacked
_TOKEN = re.compile(r"\w+|[^\w\s]")

Lines = tuple[str, ...]
Pair = tuple[Lines, Lines]
"""The sentences of both languages, side by side."""


@dataclass(frozen=True, eq=False)
class ParallelText:
    """Pairs of sentences with their splits.

    Args:
        name: what the data are called.
        train, validation, test: the sentences of both languages, side by side. What is validated with is None where
            it is still to be held out of what is trained on.
        official: whether the test sentences came in files of their own.
        digest: of all sentences.
        remarks: what a reader should know: pairs that were left out, test sentences that are trained on.
        contents: a short digest of the sentences of each part in each language.
    """

    name: str
    train: Pair
    validation: Pair
    test: Pair
    official: bool
    digest: str
    remarks: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words that have a symbol. Symbols 0 to 3 are padding, begin, end and unknown; words follow."""

    words: tuple[str, ...]
    symbols: dict[str, int]

    def __len__(self) -> int:
        return UNKNOWN + 1 + len(self.words)

    def encode(self, line: str) -> list[int]:
        """The symbols of a sentence, and END."""
        return [*(self.symbols.get(token, UNKNOWN) for token in tokens(line)), END]


@dataclass(frozen=True, eq=False)
class Sentences:
    """Many sentences as symbols, one behind the other in one array."""

    symbols: NDArray[np.int32]
    starts: NDArray[np.int64]  # one more than there are sentences

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many symbols each has, END included."""
        return np.diff(self.starts)

    def __getitem__(self, k: int) -> NDArray[np.int32]:
        return self.symbols[self.starts[k] : self.starts[k + 1]]

    def of(self, rows: NDArray[np.int64]) -> Sentences:
        """Some of them, in that order."""
        starts = np.concatenate(([0], np.cumsum(self.lengths[rows])))
        return Sentences(np.concatenate([self[int(k)] for k in rows]), starts)

    def and_then(self, more: Sentences) -> Sentences:
        """These and others."""
        starts = np.concatenate((self.starts, more.starts[1:] + self.starts[-1]))
        return Sentences(np.concatenate((self.symbols, more.symbols)), starts)


def tokens(line: str) -> list[str]:
    """The words and marks of a sentence. A joiner that stands in it is left out."""
    found: list[str] = []
    end = -1
    for match in _TOKEN.finditer(line.replace(JOINER, "")):
        token = match.group()
        if match.start() == end:
            if token[0].isalnum() or token[0] == "_":
                found[-1] += JOINER
            else:
                token = JOINER + token
        found.append(token)
        end = match.end()
    return found


def text_of(found: Iterable[str]) -> str:
    """The sentence of words and marks: `text_of(tokens(line))` is the line with single spaces."""
    return " ".join(found).replace(f" {JOINER}", "").replace(f"{JOINER} ", "").replace(JOINER, "").strip()


def vocabulary(lines: Lines, most: int, least: int, what: str) -> Vocabulary:
    """The `most` most frequent words that occur `least` times; of equals the first by code point.

    Raises DataError when there is none.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(tokens(line))
    ranked = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))[:most]
    if not ranked:
        raise DataError(
            f"no word of the {what} training sentences occurs {least} times, so the vocabulary is empty; "
            f"there are {sum(counts.values()):,} words in {len(lines):,} sentences: give more, or min_count=1"
        )
    return Vocabulary(tuple(ranked), {word: UNKNOWN + 1 + k for k, word in enumerate(ranked)})


def encoded(lines: Lines, words: Vocabulary) -> Sentences:
    """Sentences as symbols."""
    rows = [words.encode(line) for line in lines]
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    flat = np.fromiter((s for row in rows for s in row), dtype=np.int32, count=int(starts[-1]))
    return Sentences(flat, starts)


# --- files ------------------------------------------------------------------------------------------------------------


def read(data: str | tuple[str, str], source: str, target: str, validation: float, seed: int) -> ParallelText:
    """The pairs of a named data set, of a folder, or of two files; see `Translation` for what may be given.

    Raises DataError for what cannot be used, UnknownName for a name that nothing answers to.
    """
    if isinstance(data, str) and data.strip().lower() == MULTI30K:
        folder = _multi30k()
        text = _from_folder(folder, source, target)
        return _held_out(replace(text, name=MULTI30K), validation, seed)
    if isinstance(data, str):
        path = Path(data)
        if not is_there(path):
            if os.sep in data or "/" in data or path.suffix:
                raise DataError(
                    f"there is no folder {data!r}; data is {MULTI30K!r}, a folder with train.{source} and "
                    f"train.{target}, or two files"
                )
            raise UnknownName("translation data set", data, [MULTI30K], hint="(or give a folder, or two files)")
        if not path.is_dir():
            raise DataError(
                f"{data} is one file, and translation needs two, aligned line by line: data=(SOURCE, TARGET)"
            )
        return _held_out(_from_folder(path, source, target), validation, seed)
    if os.path.realpath(data[0]) == os.path.realpath(data[1]):
        raise DataError(f"{data[0]} is given as the source and as the target; a translation needs two different files")
    pairs, remarks = _pairs(Path(data[0]), Path(data[1]))
    name = spelled(f"{Path(data[0]).name} and {Path(data[1]).name}")
    return _held_out(ParallelText(name, pairs, ((), ()), ((), ()), False, "", remarks), validation, seed)


def paths(data: str | tuple[str, str]) -> list[Path]:
    """The existing files or folder of the data. Raises DataError as `read` does."""
    if isinstance(data, str) and data.strip().lower() == MULTI30K:
        return [_multi30k()]
    return [path for path in map(Path, [data] if isinstance(data, str) else data) if is_there(path)]


def _multi30k() -> Path:
    folders = [cache_folder() / MULTI30K]
    if own := os.environ.get("ARCHSMITH_DATA"):
        folders += [Path(os.path.expanduser(own)) / "multi30k_en_de", Path(os.path.expanduser(own)) / MULTI30K]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DataError(
        f"the data set {MULTI30K!r} is not on this machine: get train, val and test_2016_flickr, .en.gz and .de.gz, from "
        f"https://github.com/multi30k/dataset (data/task1/raw) and put them into {folders[0]}, or into multi30k_en_de of "
        "the folder that ARCHSMITH_DATA names; or give a folder of your own as the data"
    )


def _from_folder(folder: Path, source: str, target: str) -> ParallelText:
    """The files of a folder by their names; validation and test are empty where it has none."""
    if source == target:
        raise DataError(f"source and target are both {source!r}; give two languages")
    parts: dict[str, Pair] = {}
    remarks: list[str] = []
    for part, names in _NAMES.items():
        found = _two_files(folder, names, source, target)
        if found is None and part == "train":
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
            raise DataError(
                f"{folder} has no train.{source} and train.{target} (or with .gz behind); it holds {there}. "
                "Name the languages with source= and target=, or give two files"
            )
        parts[part] = ((), ())
        if found is not None:
            parts[part], left_out = _pairs(*found)
            remarks += left_out
            if part == "test" and found[0].name.partition(".")[0] != "test":
                remarks.append(f"tested on {found[0].name.partition('.')[0]}")
    return ParallelText(
        spelled(folder.name),
        parts["train"],
        parts["validation"],
        parts["test"],
        bool(parts["test"][0]),
        "",
        tuple(remarks),
    )


def _two_files(folder: Path, names: Sequence[str], source: str, target: str) -> tuple[Path, Path] | None:
    """The first pair of files that is called so; for a test also the first by name of test_..."""
    stems = list(names)
    if names == _NAMES["test"]:
        stems += sorted({p.name.partition(f".{source}")[0] for p in folder.glob(f"test*.{source}*")})
    for stem in stems:
        found = []
        for language in (source, target):
            files = [folder / f"{stem}.{language}", folder / f"{stem}.{language}.gz"]
            found += [file for file in files if file.is_file()][:1]
        if len(found) == 2:
            return found[0], found[1]
        if found:
            raise DataError(
                f"{folder} has {found[0].name} and not the same in the other language; aligned files are pairs"
            )
    return None


def _pairs(source: Path, target: Path) -> tuple[Pair, tuple[str, ...]]:
    """The pairs of two files. Those with an empty side are left out, and that is remarked on."""
    first, second = _lines(source), _lines(target)
    if len(first) != len(second):
        raise DataError(
            f"{source} has {len(first):,} lines and {target} {len(second):,}; line by line, one must translate the other"
        )
    kept = [(a, b) for a, b in zip(first, second, strict=True) if a.strip() and b.strip()]
    if not kept:
        raise DataError(f"{source} and {target} have no pair of lines with words in both")
    remarks: tuple[str, ...] = ()
    if missing := len(first) - len(kept):
        remarks = (
            f"{missing:,} of {len(first):,} pairs of {source.name} and {target.name} have an empty side: left out",
        )
        warnings.warn(remarks[0], stacklevel=2)
    return (tuple(a for a, _ in kept), tuple(b for _, b in kept)), remarks


def _lines(path: Path) -> list[str]:
    """The lines of a text file, unpacked if it ends in .gz. Only a line feed ends a line: others would lose the alignment."""
    try:
        with unpacked(path) as file:
            raw = file.read(_SIZE_CAP + 1 if path.stat().st_size > _SIZE_CAP else -1)
    except (OSError, *DAMAGED) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > _SIZE_CAP:
        raise DataError(f"{path} has more than {_SIZE_CAP:,} bytes; give a part of it")
    if b"\0" in raw:
        raise DataError(f"{path} is no text: it has a zero byte in line {_line_at(raw, raw.index(0)):,}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: line {_line_at(raw, error.start):,} has the byte 0x{raw[error.start]:02x}; "
            "convert it, for example with iconv -f latin1 -t utf-8"
        ) from None
    if not text.strip():
        raise DataError(f"{path} is empty")
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _line_at(raw: bytes, position: int) -> int:
    return raw.count(b"\n", 0, position) + 1


# --- splits -----------------------------------------------------------------------------------------------------------


def _held_out(text: ParallelText, validation: float, seed: int) -> ParallelText:
    """The text with all its splits: what no file holds is drawn from the training pairs, each pair once."""
    pool = list(zip(*text.train, strict=True))
    remarks = list(text.remarks)
    test, valid = text.test, text.validation
    if not (test[0] and valid[0]):
        once = list(dict.fromkeys(pool))
        if len(once) < len(pool):
            remarks.append(
                f"{len(pool) - len(once):,} pairs stood there more than once: kept once, so that none is tested on"
            )
            pool = once
    if len(pool) < _LEAST_PAIRS:
        raise DataError(
            f"{text.name} has {len(pool)} different pairs to train on; a translator needs at least {_LEAST_PAIRS}"
        )
    if not test[0]:
        pool, test = _drawn(pool, TEST_FRACTION, TEST_SEED)
    if not valid[0]:
        pool, valid = _drawn(pool, validation, seed)
    known = set(pool)
    if shared := sum(pair in known for pair in zip(*test, strict=True)):
        remarks.append(f"{shared:,} of the {len(test[0]):,} test pairs of {text.name} are also among those trained on")
        warnings.warn(f"{remarks[-1]}; a BLEU flatters by so much", stacklevel=2)
    train = (tuple(a for a, _ in pool), tuple(b for _, b in pool))
    digest = hashlib.sha256()
    contents = {}
    for name, part in (("train", train), ("validation", valid), ("test", test)):
        for side, lines in zip(("source", "target"), part, strict=True):
            content = ("\n".join(lines) + "\n\0").encode()
            digest.update(content)
            contents[f"the {side} sentences of the {name} part"] = hashlib.sha256(content).hexdigest()[:16]
    return replace(
        text,
        train=train,
        validation=valid,
        test=test,
        digest=digest.hexdigest(),
        remarks=tuple(remarks),
        contents=contents,
    )


def _drawn(pool: list[tuple[str, str]], fraction: float, seed: int) -> tuple[list[tuple[str, str]], Pair]:
    """The rest and a part of the pairs; only the raw output of PCG64 is used, whose stream numpy guarantees."""
    count = min(max(1, round(fraction * len(pool))), MOST_HELD_OUT, len(pool) - 1)
    order = np.argsort(np.random.PCG64(seed).random_raw(len(pool)), kind="stable")
    taken = set(order[:count].tolist())
    part = [pair for k, pair in enumerate(pool) if k in taken]
    return [pair for k, pair in enumerate(pool) if k not in taken], (
        tuple(a for a, _ in part),
        tuple(b for _, b in part),
    )


def some(pairs: Pair, count: int | None, seed: int) -> Pair:
    """So many of the pairs, drawn; all where there are no more."""
    if count is None or count >= len(pairs[0]):
        return pairs
    order = np.argsort(np.random.PCG64(seed).random_raw(len(pairs[0])), kind="stable")
    kept = np.sort(order[:count]).tolist()
    return tuple(pairs[0][k] for k in kept), tuple(pairs[1][k] for k in kept)


def description(
    text: ParallelText, source: str, target: str, words: tuple[Vocabulary, Vocabulary], kept: int
) -> dict[str, Any]:
    """Plain JSON of what the data are, for the record."""
    return {
        "name": text.name,
        "kind": "pairs of sentences",
        "languages": [source, target],
        "train": kept,
        "validation": len(text.validation[0]),
        "test": len(text.test[0]),
        "vocabulary": [len(w) for w in words],
        "test_split": "official" if text.official else "held out",
        "digest": text.digest,
        "remarks": list(text.remarks),
    }
