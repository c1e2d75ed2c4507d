"""The search: `loop.py` is the loop, `session.py` its front door, `run.py` what is left of it.

Loaded when first used: looking at a run needs neither searchers nor executors.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith._search.run import Run
    from archsmith._search.session import build, open_run, resume, search

__all__ = ["Run", "build", "open_run", "resume", "search"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = "run" if name == "Run" else "session"
        return getattr(importlib.import_module(f"archsmith._search.{home}"), name)
    raise AttributeError(f"module 'archsmith._search' has no attribute {name!r}")
