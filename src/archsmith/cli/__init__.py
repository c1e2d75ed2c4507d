"""The command line. Data goes to stdout, progress and logs to stderr; exit status 0, 1 (failed) or 2 (wrong use)."""

from __future__ import annotations

from archsmith.cli.main import main

__all__ = ["main"]
