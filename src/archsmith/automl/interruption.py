"""Ctrl-C twice: the first wraps up with the best so far, the second stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


def _nothing() -> None:
    """What the first Ctrl-C does where the stage that runs is short."""


class Interruption:
    """What Ctrl-C does while it is entered; a context manager.

    The first Ctrl-C raises KeyboardInterrupt, except in the body of `gently`, where it is noted. Every further one raises it.
    In a thread other than the main one, and where the caller handles SIGINT, signals are left alone.

    Args:
        tell: called at the first Ctrl-C, in the signal handler.
    """

    def __init__(self, tell: Callable[[], None] = _nothing) -> None:
        self.wrapping_up = False
        self._tell = tell
        self._count = 0
        self._gentle: Callable[[], None] | None = None
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Self:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._interrupted)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)
            self._installed = False

    def is_first(self) -> bool:
        """Whether Ctrl-C was pressed once. A KeyboardInterrupt from elsewhere, such as SIGTERM, does not count."""
        return self._count == 1

    @contextmanager
    def gently(self, wrap_up: Callable[[], None] = _nothing) -> Iterator[None]:
        """In the body, the first Ctrl-C calls `wrap_up` and raises nothing."""
        before, self._gentle = self._gentle, wrap_up
        try:
            yield
        finally:
            self._gentle = before

    @contextmanager
    def abruptly(self) -> Iterator[None]:
        """In the body, the first Ctrl-C raises KeyboardInterrupt, also inside of `gently`."""
        before, self._gentle = self._gentle, None
        try:
            yield
        finally:
            self._gentle = before

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self.wrapping_up = True
        if self._count == 1:
            self._tell()
        if self._count == 1 and self._gentle is not None:
            self._gentle()
            return
        raise KeyboardInterrupt
