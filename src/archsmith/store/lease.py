"""The lease of a run's writer, where no kernel keeps a lock for it: a token, and until when it counts by the database's clock.

Leases as Gray and Cheriton have them (Leases: An Efficient Fault-Tolerant Mechanism for Distributed File Cache Consistency,
SOSP 1989), fenced: whoever was asleep for longer than its lease cannot write after another took over, since every
transaction checks the token in the run's row, and holds that row until it ends.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Update, update

from archsmith.store.holder import refused, this_process
from archsmith.store.tables import runs


class Lease:
    """The claim on a run in a database. It is renewed three times in its length, by a thread of its own: a child that is
    trained in this process for an hour does not hold that up.

    Args:
        renew: commits one statement; gives how many rows it changed.
        clock: the database's, in seconds, as an expression.
        seconds: the length of the lease.
        is_held: whether the writer of a run's row holds it.
    """

    def __init__(
        self,
        renew: Callable[[Update], int],
        clock: ColumnElement[float],
        seconds: float,
        is_held: Callable[[Any], bool],
    ) -> None:
        self.token = secrets.token_hex(16)
        self._renew = renew
        self._until = clock + seconds
        self._seconds = seconds
        self._is_held = is_held
        self._ended = threading.Event()
        weakref.finalize(self, self._ended.set)  # a writer that nobody holds any more is renewed no more

    def take(self, row: Any | None) -> dict[str, Any]:
        # A row with this token: what took it was committed, and only the word of that was lost.
        if row is not None and row.token != self.token and self._is_held(row):
            until = datetime.fromtimestamp(row.lease_until, UTC).isoformat(timespec="seconds")
            raise refused(
                row, f"; its lease lasts until {until} by the database's clock, and is renewed while it lives"
            )
        return {"token": self.token, "lease_until": self._until, "writer": this_process()}

    def keep(self, run: int) -> None:
        own = (runs.c.id == run, runs.c.token == self.token)
        statement = update(runs).where(*own).values(lease_until=self._until)
        arguments = (self._renew, statement, self._seconds, self._ended)  # and not this object
        threading.Thread(target=_keep, args=arguments, name=f"lease of run {run}", daemon=True).start()

    def let_go(self) -> None:
        self._ended.set()


def _keep(renew: Callable[[Update], int], statement: Update, seconds: float, ended: threading.Event) -> None:
    wait = seconds / 3
    while not ended.wait(wait):
        try:
            if renew(statement) == 0:
                return  # taken over: the writer is told with what it writes next
            wait = seconds / 3
        except Exception:  # the database is away; whether for good, the writer finds out and tells
            wait = min(1.0, seconds / 10)
