"""What a child says of itself, as far as it can be believed."""

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

_MESSAGE = 60.0  # seconds for a message that has begun to be there


class ChildReport:
    """What was heard of a child through its channel.

    Attributes:
        messages: what reads the channel.
        memory_before: the resident bytes that the child began with; None as long as that is not known.
        curve: the epochs that it reported.
        completed: how its training ended, by its own word, which counts once its process is gone.
        imported: the libraries that it imported.
        broken: why it cannot be believed, or None.
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
        """Take what the child has said, `everything` of one whose process is gone; gives the epochs it reported.

        What is no message, or is not there in a minute after its first byte, breaks the report, and nothing more is taken.
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
        """Note one message; gives the epoch that it tells of. Raises BadMessage."""
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
