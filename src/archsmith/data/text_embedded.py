"""A text for a first run without any download: the reference manual that Python's standard library carries.

The module `pydoc_data.topics` is what `help("for")` shows: about 350,000 characters of English technical prose with
some code, of the Python Software Foundation, under its licence (PSF-2.0; https://docs.python.org/3/license.html). It
differs a little from one version of Python to the next, which a run's fingerprint tells.
"""

from __future__ import annotations

import re

_BLOCK = 4_000  # characters: about 90 blocks, each long enough to be read as a text of its own
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\w+|[^\w\s]")
_RULES = re.compile(r"([*=\-~^#])\1{3,}")  # what underlines a heading
_LETTERS = re.compile(r"[^\W\d_]{2}")


def python_docs(level: str) -> dict[str, str]:
    """The manual as "train", "validation" and "test": of every ten blocks one validates and one tests.

    Topics repeat each other, so each paragraph stands in the text once: none is both learned from and tested. A line
    is a paragraph. At word level it is prepared as the Penn Treebank is: lower case, punctuation apart, numbers as N.
    """
    blocks: list[list[str]] = [[]]
    size = 0
    for paragraph in _paragraphs():
        if size > _BLOCK:
            blocks.append([])
            size = 0
        blocks[-1].append(_words(paragraph) if level == "word" else paragraph)
        size += len(paragraph)
    parts = {"train": list[str](), "validation": list[str](), "test": list[str]()}
    for i, block in enumerate(blocks):
        parts["validation" if i % 10 == 4 else "test" if i % 10 == 9 else "train"] += block
    return {part: "".join(f"{line}\n" for line in lines) for part, lines in parts.items()}


def _paragraphs() -> list[str]:
    from pydoc_data.topics import topics

    paragraphs: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            line = " ".join(_RULES.sub(" ", paragraph).split())
            if _LETTERS.search(line):
                paragraphs[line] = None
    return list(paragraphs)


def _words(paragraph: str) -> str:
    return " ".join("N" if token[0].isdigit() else token for token in _TOKEN.findall(paragraph.lower()))
