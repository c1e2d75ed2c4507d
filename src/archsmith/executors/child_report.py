"""The messages of one child, checked, since nothing that a child sends is trusted."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from archsmith.core.executor import Completed, Progress
from archsmith.core.trial import Failure
from archsmith.executors.child_process import LIBRARIES
from archsmith.executors.messages import BadMessage, MessageReader, completed_from, progress_from
from archsmith.executors.plain_results import MAX_NUMBERS

_MESSAGE = 60.0  # seconds for a message to arrive completely


class ChildReport:
    """The messages that came through a child's channel.

    Attributes:
        messages: reads the channel.
        memory_before: the resident bytes that the child began with; None until it has sent them.
        curve: the epochs that it reported.
        completed: its result, which counts once its process has ended.
        imported: the libraries that it imported.
        broken: why its messages are no longer read, or None.
    """

    def __init__(self, trial: int, channel: socket.socket) -> None:
        self._trial = trial
        self.messages = MessageReader(channel)
        self.memory_before: int | None = None
        self.curve: list[dict[str, float]] = []
        self._numbers = 0  # in the curve
        self.completed: Completed | None = None
        self.imported: Sequence[str] = ()
        self.broken: Failure | None = None

    def take(self, *, everything: bool = False) -> list[Progress]:
        """Read the messages that have arrived, or `everything` if the child's process has ended; returns its new epochs.

        After an invalid message, or one that is incomplete a minute after its first byte, nothing more is read.
        """
        epochs: list[Progress] = []
        if self.broken is not None:
            return epochs
        try:
            for message in self.messages.read_all() if everything else self.messages.read():
                if (progress := self._note(message)) is not None:
                    epochs.append(progress)
        except BadMessage as error:
            self.broken = Failure("worker", f"the child wrote into the channel of its process: {error}")
        since = self.messages.incomplete_since
        if since is not None and time.monotonic() >= since + _MESSAGE:
            self.broken = Failure("worker", f"the child left a message half written for {_MESSAGE:g} seconds")
        return epochs

    def _note(self, message: Mapping[str, Any]) -> Progress | None:
        """Record one message; returns the epoch in it, if any. Raises BadMessage."""
        trial, kind = self._trial, message.get("kind")
        if self.completed is not None:
            raise BadMessage("something after its result")
        if kind == "began" and self.memory_before is None and isinstance(message.get("memory"), int):
            self.memory_before = message["memory"]
        elif kind == "progress":
            progress = progress_from(message, trial)
            self._numbers += len(progress.metrics) + 1
            if self._numbers > MAX_NUMBERS:
                raise BadMessage(f"epochs with {self._numbers:,} numbers, and {MAX_NUMBERS:,} may be")
            self.curve.append({"epoch": progress.epoch, **progress.metrics})
            return progress
        elif kind == "completed":
            self.completed = completed_from(message, trial)
            names = message.get("imported")
            self.imported = [
                name
                for name in (names if isinstance(names, list) else ())
                if isinstance(name, str) and name.partition(".")[0] in LIBRARIES
            ]
        else:
            raise BadMessage(f"a message of the kind {kind!r:.100}")
        return None
