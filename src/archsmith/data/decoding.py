"""Decodes the pictures of a data set on all cores, once: what was decoded is kept in the picture cache."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from archsmith.core.cores import cores
from archsmith.core.errors import DataError
from archsmith.data import picture_cache
from archsmith.data.images import Bytes
from archsmith.data.labelling import Contents
from archsmith.data.listing import Content
from archsmith.data.picture_cache import CachedPictures
from archsmith.data.picture_decoding import read_picture

CACHED_FROM = 200  # pictures; fewer are decoded before a cache is looked up
_WAITING_CAP = 1 << 28  # bytes of pictures that wait for being decoded
_SHOWN_FROM = 1000  # pictures whose decoding shows its progress

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class DecodedPictures:
    """The pictures of a data set.

    Args:
        pixels: uint8 [rows, size, size, channels]; grey ones are spread over three channels if any has colours.
        rows: where the picture of each file is, by the file's source; without those that could not be decoded.
        hashes: the SHA-256 of each file, by its source; empty for files that cannot be read.
        problems: why files could not be decoded, by their source.
    """

    pixels: Bytes
    rows: Mapping[str, int]
    hashes: Mapping[str, bytes]
    problems: Mapping[str, str]

    def take(self, sources: Sequence[str]) -> Bytes:
        """The pictures of some files: a part of `pixels` itself where they lie one after another, else a copy."""
        rows = np.array([self.rows[source] for source in sources], np.int64)
        if len(rows) and (np.diff(rows) == 1).all():
            return self.pixels[rows[0] : rows[-1] + 1]
        return self.pixels[rows]


def decode_all(
    sources: Sequence[str], contents: Contents, size: int, channels: int | None, *, workers: int | None = None
) -> DecodedPictures:
    """The pictures of files, each equal to the bit to what `read_picture` gives, whether decoded now or before.

    Args:
        sources: of the files, in the order in which the pictures shall lie in memory.
        contents: reads the files.
        size, channels: see `read_picture`.
        workers: threads that decode; Pillow decodes without the interpreter's lock. None: one for each core.
    """
    threads = workers or cores()
    folder = picture_cache.cache_for(len(sources), size) if len(sources) >= CACHED_FROM else None
    if folder is None:
        return _in_memory(sources, contents, size, channels, threads)
    if picture_cache.may_have(folder, size, channels, len(sources)):
        hashed = dict(_each(contents(set(sources)), _hash, threads))
        files = [hashed[source][0].hex() for source in sources]
        if (cached := picture_cache.find(folder, size, channels, files)) is not None:
            return _from_cache(cached, sources, files, {source: why for source, (_, why) in hashed.items() if why})
    try:
        return _into_cache(folder, sources, contents, size, channels, threads)
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"decoded pictures are not kept: {folder} cannot be written to ({reason})", file=sys.stderr)
        return _in_memory(sources, contents, size, channels, threads)


def _in_memory(
    sources: Sequence[str], contents: Contents, size: int, channels: int | None, threads: int
) -> DecodedPictures:
    decoded = dict(_each(contents(set(sources)), partial(_decode, size=size, channels=channels), threads))
    pictures = {source: pixels for source in sources if not isinstance(pixels := decoded[source][1], str)}
    depth = channels or max((pixels.shape[2] for pixels in pictures.values()), default=3)
    pixels = np.empty((len(pictures), size, size, depth), np.uint8)
    for row, picture in enumerate(pictures.values()):
        pixels[row] = picture
    return DecodedPictures(
        pixels,
        {source: row for row, source in enumerate(pictures)},
        {source: digest for source, (digest, _) in decoded.items()},
        {source: problem for source, (_, problem) in decoded.items() if isinstance(problem, str)},
    )


def _from_cache(
    cached: CachedPictures, sources: Sequence[str], files: Sequence[str], unreadable: Mapping[str, str]
) -> DecodedPictures:
    for message in cached.warnings:
        warnings.warn(message, stacklevel=2)
    same_order = cached.files == tuple(files)
    row_of = {file: row for row, file in enumerate(cached.files)}
    file_of = dict(zip(sources, files, strict=True))
    problems = {source: cached.problems[file] for source, file in file_of.items() if file in cached.problems}
    problems |= unreadable
    rows = {source: row if same_order else row_of[file] for row, (source, file) in enumerate(file_of.items())}
    return DecodedPictures(
        cached.pixels,
        {source: row for source, row in rows.items() if source not in problems},
        {source: bytes.fromhex(file) for source, file in file_of.items()},
        problems,
    )


def _into_cache(
    folder: Path, sources: Sequence[str], contents: Contents, size: int, channels: int | None, threads: int
) -> DecodedPictures:
    """Decode the pictures and write them into the cache. Raises OSError if that fails."""
    row_of = {source: row for row, source in enumerate(sources)}
    hashes: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    decode = partial(_decode, size=size, channels=channels)
    with picture_cache.writing(folder, len(sources), size, channels) as writer:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for source, (digest, pixels) in _shown(_each(contents(set(sources)), decode, threads), len(sources)):
                hashes[source] = digest
                if isinstance(pixels, str):
                    problems[source] = pixels
                else:
                    writer.put(row_of[source], pixels)
        messages = list(dict.fromkeys(str(each.message) for each in caught))
        files = [hashes[source].hex() for source in sources]
        lasting = {hashes[source].hex(): why for source, why in problems.items() if hashes[source]}
        cached = writer.finish(folder, channels, files, lasting, messages)
    for message in messages:
        warnings.warn(message, stacklevel=2)
    rows = {source: row for source, row in row_of.items() if source not in problems}
    return DecodedPictures(cached.pixels, rows, hashes, problems)


# --- one file ---------------------------------------------------------------------------------------------------------


def _content(read: Callable[[], bytes]) -> bytes | str:
    """The content of a file, or why it cannot be read."""
    try:
        return read()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except DataError as error:
        return str(error)


def _hash(read: Callable[[], bytes]) -> tuple[bytes, str]:
    """The SHA-256 of a file, or why it cannot be read."""
    content = _content(read)
    return (b"", content) if isinstance(content, str) else (hashlib.sha256(content).digest(), "")


def _decode(read: Callable[[], bytes], size: int, channels: int | None) -> tuple[bytes, Bytes | str]:
    """The SHA-256 of a file and its picture, or why it has none."""
    content = _content(read)
    if isinstance(content, str):
        return b"", content
    digest = hashlib.sha256(content).digest()
    try:
        return digest, read_picture(content, size, channels)
    except DataError as error:
        return digest, str(error)


# --- all files --------------------------------------------------------------------------------------------------------


def _each(
    contents: Iterable[Content], function: Callable[[Callable[[], bytes]], T], threads: int
) -> Iterator[tuple[str, T]]:
    """A function of each file's content, by the file's source, computed in threads and in bounded numbers."""
    waiting: deque[tuple[str, int, Future[T]]] = deque()
    held = 0
    with ThreadPoolExecutor(threads) as pool:
        for source, in_memory, read in contents:
            waiting.append((source, in_memory, pool.submit(function, read)))
            held += in_memory
            while len(waiting) > 256 or held > _WAITING_CAP:
                first, given, future = waiting.popleft()
                held -= given
                yield first, future.result()
        while waiting:
            first, _, future = waiting.popleft()
            yield first, future.result()


def _shown(decoded: Iterable[T], total: int) -> Iterable[T]:
    """The same, with the progress on stderr if that is a terminal."""
    if total < _SHOWN_FROM or sys.stderr is None or not sys.stderr.isatty():
        return decoded
    from rich.console import Console
    from rich.progress import track

    return track(decoded, "decoding pictures", total, console=Console(stderr=True), transient=True)
