"""Messages from an untrusted process through a socket: framed JSON, read without blocking.

The sender runs a child's code, so any bytes may arrive, or half a message and then nothing. Nothing is unpickled, the
length of a message is bounded, and anything else raises BadMessage.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from archsmith.core.executor import Completed, Progress
from archsmith.core.number import as_integer, numbers_by_name
from archsmith.core.trial import Result, TrialState
from archsmith.executors.plain_results import finite_reward, plain_result

MAX_BYTES = 64 * 2**20
"""The most bytes of one message."""

_HEADER = struct.Struct("!8sI")
_MAGIC = b"\x93archsm\n"
_READ = 2**20  # bytes taken at once: a child that never stops sending must not hold its reader here
_ENDINGS = frozenset({TrialState.DONE, TrialState.FAILED, TrialState.STOPPED, TrialState.PAUSED})


class BadMessage(Exception):
    """The bytes that were read are no message; the text describes them."""


class MessageTooLong(Exception):
    """A message of more than MAX_BYTES."""


def framed(message: Mapping[str, Any]) -> bytes:
    """A message as bytes. Raises MessageTooLong."""
    content = json.dumps(message).encode()
    if len(content) > MAX_BYTES:
        raise MessageTooLong(f"{len(content) / 2**20:,.0f} MiB of text, and may have {MAX_BYTES >> 20}")
    return _HEADER.pack(_MAGIC, len(content)) + content


class MessageReader:
    """Reads the messages that have arrived at a socket.

    Attributes:
        ended: whether the other side is closed, so that nothing more will arrive.
        incomplete_since: when the first bytes of an incomplete message arrived, in seconds of `time.monotonic`, or None.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self.ended = False
        self.incomplete_since: float | None = None

    def read(self) -> list[dict[str, Any]]:
        """The messages that have arrived; does not block. Raises BadMessage."""
        self._receive()
        return self._parsed()

    def read_all(self) -> list[dict[str, Any]]:
        """All messages of a sender that has ended, up to a limit. Raises BadMessage."""
        messages: list[dict[str, Any]] = []
        for _ in range(4 * MAX_BYTES // _READ):
            if not self._receive():
                break
            messages += self._parsed()
        return messages

    def _receive(self) -> bool:
        """Read bytes from the socket; returns whether there were any."""
        try:
            content = self._connection.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            content = b""
        self.ended = not content
        self._buffer += content
        return not self.ended

    def _parsed(self) -> list[dict[str, Any]]:
        messages = []
        while (message := self._next()) is not None:
            self.incomplete_since = None
            messages.append(message)
        if self._buffer and self.incomplete_since is None:
            self.incomplete_since = time.monotonic()
        return messages

    def _next(self) -> dict[str, Any] | None:
        """The next whole message of the buffer, or None."""
        if len(self._buffer) < _HEADER.size:
            if not _MAGIC.startswith(bytes(self._buffer[: len(_MAGIC)])):
                raise BadMessage(f"{bytes(self._buffer)!r}")
            return None
        magic, length = _HEADER.unpack_from(self._buffer)
        if magic != _MAGIC:
            raise BadMessage(f"{bytes(self._buffer[:20])!r}...")
        if length > MAX_BYTES:
            raise BadMessage(f"a message of {length:,} bytes, more than {MAX_BYTES:,}")
        if len(self._buffer) < _HEADER.size + length:
            return None
        content = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
        del self._buffer[: _HEADER.size + length]
        try:
            message = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"{content[:20]!r}..., which is no JSON ({error})") from None
        if not isinstance(message, dict):
            raise BadMessage(f"{content[:20]!r}..., which is no JSON object")
        return message


def progress_message(progress: Progress) -> dict[str, Any]:
    """The message for an epoch of a child."""
    return {"kind": "progress", "epoch": progress.epoch, "metrics": dict(progress.metrics)}


def completed_message(completed: Completed) -> dict[str, Any]:
    """The message for the end of a child's training."""
    return {
        "kind": "completed",
        "state": str(completed.state),
        "result": completed.result.to_json(),
        "reward": completed.reward,
    }


def progress_from(message: Mapping[str, Any], trial: int) -> Progress:
    """The epoch in a message. Raises BadMessage."""
    try:
        return Progress(trial, as_integer(message["epoch"], "an epoch"), numbers_by_name(message["metrics"], "metrics"))
    except Exception as error:
        raise BadMessage(f"no epoch: {error!r:.200}") from None


def completed_from(message: Mapping[str, Any], trial: int) -> Completed:
    """The end of a child's training in a message. Raises BadMessage."""
    try:
        state, result = TrialState(message["state"]), plain_result(Result.from_json(message["result"]))
        reward = finite_reward(message["reward"]) if state is TrialState.DONE else None
        if state not in _ENDINGS or (state is TrialState.FAILED) is not (result.failure is not None):
            raise ValueError(f"state {state} with the failure {result.failure}")
    except Exception as error:
        raise BadMessage(f"no result: {error!r:.200}") from None
    return Completed(trial, state, result, reward)
