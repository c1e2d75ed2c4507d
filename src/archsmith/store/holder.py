"""Who writes a run: what its row says of the writer, and whether that one is still alive."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from typing import Any

from archsmith.core.errors import CorruptStore, RunLocked
from archsmith.store.payload import object_from_text, to_text


def this_process(store: str | None = None) -> str:
    """This process, as JSON for the run's row, and the id of the store that it writes to."""
    who = {"pid": os.getpid(), "host": socket.gethostname(), "pids": _pids(), "since": now()}
    return to_text({**who, "store": store} if store is not None else who, "writer")


def is_dead(writer: Any) -> bool:
    """Whether the process of a row's `writer` is known to have ended: it ran where this one does, and is gone.

    Another host's is never known to be dead, and neither is one whose number another process has by now.
    """
    try:
        who = object_from_text(writer, "writer")
    except CorruptStore:
        return False
    pid = who.get("pid")
    if os.name != "posix" or not isinstance(pid, int) or pid < 1 or who.get("host") != socket.gethostname():
        return False
    if who.get("pids") != _pids():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's
        return False
    return False


def is_this_process(writer: str) -> bool:
    """Whether this process is the one that a JSON of `this_process` names."""
    who, me = (object_from_text(text, "writer") for text in (writer, this_process()))
    return all(who.get(key) == me[key] for key in ("pid", "host", "pids"))


def refused(row: Any | None, until: str = "") -> RunLocked:
    """The error for whoever wants to write a run that another writer holds; `until` tells of a lease."""
    name, who = "of that name", "another process"
    if row is not None:
        writer = object_from_text(row.writer, "writer")
        name = repr(row.name)
        who = f"process {writer.get('pid')} on {writer.get('host')} (since {writer.get('since')})"
    return RunLocked(
        f"run {name} is being written by {who}, and a run has one writer{until}. Wait for it, or end it with Ctrl-C; "
        "list, show and report work meanwhile"
    )


def now() -> str:
    """The wall clock, for people."""
    return datetime.now(UTC).isoformat()


def _pids() -> str:
    """What this process's number is a number in. Containers may share the name of their host, and not its processes."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""
