"""Hands an evaluator's data to the workers of this machine through a file that they map into memory.

So children learn from the same data as the process that searches, even if the files change meanwhile. Nothing is read or
decoded again, and the workers share one copy of the arrays.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import tempfile
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import cloudpickle

from archsmith.core import loaded
from archsmith.core.errors import UsageError

_ALIGNED = 64  # bytes: the alignment of arrays


class SharedFields(bytes):
    """Pickled fields of jobs, with the file of the data that they need."""

    data: DataFile | None = None  # keeps the file as long as this may be sent to a worker

    def __reduce__(self) -> tuple[Callable[[bytes], bytes], tuple[bytes]]:
        return bytes, (bytes(self),)


class DataFile:
    """The data of an evaluator in a temporary file, which is deleted with this object and with this process.

    Args:
        values: by key, as in `core.loaded`.

    Raises UsageError if the disk is full.
    """

    def __init__(self, values: Mapping[Hashable, Any]) -> None:
        self.values = values
        buffers: list[pickle.PickleBuffer] = []
        self.head: bytes = cloudpickle.dumps(dict(values), protocol=5, buffer_callback=buffers.append)
        self.spans: list[tuple[int, int]] = []
        file, self.path = tempfile.mkstemp(prefix="archsmith-data-")
        if sys.platform == "linux":  # opened by its descriptor, so that even a kill leaves no file
            os.unlink(self.path)
            self.path = f"/proc/{os.getpid()}/fd/{file}"
            weakref.finalize(self, os.close, file)
        else:
            weakref.finalize(self, _remove, self.path, file)
        try:
            end = 0
            for buffer in buffers:
                content = buffer.raw()
                start = -(-end // _ALIGNED) * _ALIGNED
                end = start + content.nbytes
                self.spans.append((start, end))
                os.lseek(file, start, os.SEEK_SET)
                while content.nbytes:
                    content = content[os.write(file, content) :]
        except OSError as error:
            raise UsageError(
                f"the data ({sum(b.raw().nbytes for b in buffers):,} bytes) cannot be handed to workers by a file in "
                f"{tempfile.gettempdir()}: {error.strerror or error}; have TMPDIR name a folder with room"
            ) from None

    def is_of(self, values: Mapping[Hashable, Any]) -> bool:
        """Whether these are the very same values."""
        return values.keys() == self.values.keys() and all(values[key] is self.values[key] for key in values)


class SharedData:
    """The data of the last evaluator whose fields were sent."""

    def __init__(self) -> None:
        self._last: DataFile | None = None

    def with_data(self, evaluator: object, pickled: Callable[[], bytes]) -> SharedFields:
        """The pickled fields of an evaluator's jobs, with its data."""
        try:
            values = loaded.of(evaluator)
        except Exception:  # the child meets the same error, and fails with it
            values = {}
        if not values:
            return SharedFields(pickled())
        if self._last is None or not self._last.is_of(values):
            self._last = None  # its file may go before there is another
            self._last = DataFile(values)
        file = self._last
        with loaded.sent_along(values):
            content = pickled()
        fields = SharedFields(pickle.dumps(_Fields(content, file.path, file.head, file.spans)))
        fields.data = file
        return fields


class _Fields:
    """Unpickles to the list of fields, after it has installed the data."""

    def __init__(self, content: bytes, path: str, head: bytes, spans: Sequence[tuple[int, int]]) -> None:
        self._parts = content, path, head, list(spans)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return unpacked, self._parts


def unpacked(content: bytes, path: str, head: bytes, spans: Sequence[tuple[int, int]]) -> Any:
    """The fields. Their data are installed first, for `core.loaded.given`."""
    buffers: list[Any] = []
    if spans and max(end for _, end in spans):
        with open(path, "rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))  # what is written stays here
        buffers = [mapped[start:end] for start, end in spans]
    else:
        buffers = [bytearray() for _ in spans]
    loaded.give(pickle.loads(head, buffers=buffers))
    return cloudpickle.loads(content)


def _remove(path: str, file: int) -> None:
    os.close(file)
    with suppress(OSError):
        os.unlink(path)
