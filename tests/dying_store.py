"""A store whose process kills itself at one of the moments at which a kill could matter."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from archsmith.core.store import Store
from archsmith.store import open_store


def dying_store(url: str, moment: int) -> Store:
    """The store at a URL; a run that it creates kills this process with SIGKILL at the so many-th moment.

    The moments are those just before and just after each write, counted from 1. For a forked process.
    """
    moments = 0

    def tick() -> None:
        nonlocal moments
        moments += 1
        if moments == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def ticking(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            tick()  # before the write
            result = method(*args, **kwargs)
            tick()  # after it
            return result

        return wrapped

    opened = open_store(url)
    create = opened.create

    def create_ticking(name: str, config: Any) -> Any:
        writer = create(name, config)
        for method in ("propose", "start", "finish", "pause", "set_rewards"):
            setattr(writer, method, ticking(getattr(writer, method)))
        return writer

    opened.create = create_ticking  # type: ignore[method-assign]
    return opened
