"""The search: `loop.py` is the loop, `search.py` its front door, `run.py` what is left of it."""

from __future__ import annotations

from archsmith._search.run import Run
from archsmith._search.search import build, open_run, resume, search

__all__ = ["Run", "build", "open_run", "resume", "search"]
