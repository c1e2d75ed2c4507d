"""Messages between the tasks of a Ray cluster and the driver.

A task gives its outcome when it ends. What must be heard before goes through a mailbox, an actor: that a child began, and
its epochs; the reply to an epoch says whether to go on. Ray's own generators of results
would do for the first, but a task has no other way of hearing, short of an exception in its middle, that it is to stop.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from archsmith.core.errors import ArchsmithError
from archsmith.core.executor import Progress

log = logging.getLogger(__name__)

_POLL = 30.0  # seconds that a question for messages stays open
_HURRY = 10.0  # seconds for those on the way
_LOST = 5  # mailboxes in a row


@dataclass(frozen=True, slots=True)
class Began:
    """A task began.

    Args:
        task: its number, of all that the driver gave out.
        node: the address of the machine it runs on.
        node_id: Ray's name of that.
        pid: its process there.
        output: the files that what it prints goes to, and how long they were.
    """

    task: int
    node: str
    node_id: str
    pid: int
    output: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """A child finished an epoch."""

    task: int
    progress: Progress


Message: TypeAlias = Began | Reported


class Mailbox:
    """Carries messages of tasks to the driver, and the driver's word that a child is to stop back to it.

    Should it die, Ray starts it again, empty: an epoch that was on its way is then not shown, though it is in the
    result, and the driver tells again who is cancelled.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._cancelled: frozenset[int] = frozenset()
        self._any = asyncio.Event()

    async def post(self, message: Message) -> bool:
        """Leave a message; whether its child is to go on."""
        self._messages.append(message)
        self._any.set()
        return message.task not in self._cancelled

    async def hurry(self) -> None:
        """Have `take` answer at once."""
        self._any.set()

    async def cancel(self, tasks: frozenset[int]) -> None:
        """Which tasks are to stop."""
        self._cancelled = tasks

    async def take(self, cancelled: frozenset[int], seconds: float) -> list[Message]:
        """The messages since the last call; waits for one, so long."""
        self._cancelled = self._cancelled | cancelled
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._any.wait(), seconds)
        messages, self._messages = self._messages, []
        self._any.clear()
        return messages


class Mail:
    """The driver's end of a mailbox, which stands on the driver's own machine where that is one of the cluster's.

    `handle` is the mailbox for tasks; `asked` is Ray's reference to the next messages, to wait for.
    """

    def __init__(self) -> None:
        self.asked: Any = None
        self._lost = 0
        self._open()

    def ask(self, cancelled: frozenset[int]) -> Any:
        """The reference to the next messages; tells which tasks are cancelled, should the mailbox have forgotten."""
        if self.asked is None:
            self.asked = self.handle.take.remote(cancelled, _POLL)
        return self.asked

    def read(self) -> list[Message] | None:
        """The messages that were asked for, once they are there. None: the mailbox was lost for good, and there is a new
        one. Raises ArchsmithError when none can be kept up."""
        import ray

        asked, self.asked = self.asked, None
        try:
            messages: list[Message] = ray.get(asked)
        except ray.exceptions.RayError as error:
            self._lost += 1
            if self._lost > _LOST:
                raise ArchsmithError(
                    f"the mailbox of the children cannot be kept up on this cluster: {error}"
                ) from error
            log.warning("the mailbox of the children is lost, and made anew: %s", error)
            self._open()
            return None
        self._lost = 0
        return messages

    def hurry(self) -> bool:
        """Wait for messages that are on the way; whether there is anything to read."""
        import ray

        if self.asked is None:
            return False
        self.handle.hurry.remote()
        return bool(ray.wait([self.asked], timeout=_HURRY)[0])

    def cancel(self, tasks: frozenset[int]) -> None:
        """Tell which tasks are to stop."""
        self.handle.cancel.remote(tasks)

    def close(self) -> None:
        """End the mailbox."""
        import ray

        with suppress(Exception):  # it is gone, or the cluster is
            ray.kill(self.handle)

    def _open(self) -> None:
        import ray

        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = affinity(ray.get_runtime_context().get_node_id(), soft=True)
        always = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 10_000}
        self.handle: Any = ray.remote(Mailbox).options(**always, scheduling_strategy=here).remote()
