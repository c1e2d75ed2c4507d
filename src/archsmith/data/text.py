"""Text for language models: words or characters as numbers, found by name or path, checked, in three parts.

Only the training part decides the vocabulary. A text of 100 MB is read piece by piece, in about 4 seconds as words and
1 as characters, and needs 150 to 200 MB to be read.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from archsmith.core.errors import DataError, UnknownName
from archsmith.core.shown import spelled
from archsmith.data.corpus import Corpus, Tokens, build
from archsmith.data.file_versions import version
from archsmith.data.images import is_there
from archsmith.data.text_files import read_texts

__all__ = ["LEVELS", "NAMES", "Corpus", "Tokens", "is_name", "load"]

LEVELS = ("word", "char")
NAMES = ("ptb", "python-docs")


def load(data: str, level: str = "word", vocabulary: int | None = 10_000) -> Corpus:
    """The text of a name or at a path, read once per process for as long as its files stay as they are.

    Args:
        data: "ptb" (Penn Treebank as Mikolov prepared it: from the folder that the environment variable
            ARCHSMITH_DATA names, else downloaded), "python-docs" (embedded), or a path: a folder or archive with
            train.txt, valid.txt and test.txt, or one text file, also packed, which is split by position at line
            ends: the last tenth to test, the tenth before it to validate with.
        level: "word": what stands between white space, and "<eos>" at each line's end. "char": every character. The
            Penn Treebank's words become the characters that Mikolov made of them.
        vocabulary: the most symbols; the rest, the rarest in the training text, becomes "<unk>". None: all of them.

    Where something is none of the vocabulary, symbols that occur once become "<unk>" too, unless the training text
    has an "<unk>" of its own: a model learns so how often the unknown comes.
    Raises UnknownName for a name that nothing answers to, and DataError for a text that cannot be used.
    """
    if level not in LEVELS:
        raise UnknownName("level of text", str(level), LEVELS)
    if is_name(data):
        return _named(_plain(data), level, vocabulary)
    path = Path(os.path.expanduser(data))
    if not is_there(path):
        if path.suffix or os.sep in data or "/" in data:
            raise DataError(f"there is no file or folder {data!r}; data is a path, or one of {', '.join(NAMES)}")
        raise UnknownName("text", data, NAMES, hint="(or give the path of a folder or file)")
    return _at_path(path.resolve(), None, level, vocabulary)


def is_name(data: str) -> bool:
    """Whether that is the name of a text archsmith knows, which goes before a path of the same name."""
    return _plain(data) in NAMES


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _named(name: str, level: str, vocabulary: int | None) -> Corpus:
    if name == "ptb":
        return _at_path(_penn_treebank(os.environ.get("ARCHSMITH_DATA", "")), name, level, vocabulary)
    return _embedded(name, level, vocabulary)


@functools.lru_cache(maxsize=2)
def _embedded(name: str, level: str, vocabulary: int | None) -> Corpus:
    from archsmith.data.text_embedded import python_docs

    texts = ((part, part, iter([text])) for part, text in python_docs(level).items())
    return build(name, texts, level, vocabulary, test_split="of every ten blocks one, and one to validate with")


def _at_path(path: Path, name: str | None, level: str, vocabulary: int | None) -> Corpus:
    return _read(str(path), name or str(path), level, vocabulary, version(path, nested=False))


@functools.lru_cache(maxsize=2)
def _read(path: str, name: str, level: str, vocabulary: int | None, version: int) -> Corpus:
    return build(spelled(name), read_texts(Path(path), words=level == "word"), level, vocabulary)


def _penn_treebank(folder: str) -> Path:
    for name in ("ptb_word.tar.xz", "ptb"):
        if folder and (path := Path(os.path.expanduser(folder)) / name).exists():
            return path
    from archsmith.data.download import fetch

    return fetch("ptb")
