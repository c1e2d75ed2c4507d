"""Executors: where evaluators run. One file each."""

from __future__ import annotations

from archsmith.executors.in_process import InProcess
from archsmith.executors.process_pool import ProcessPool

__all__ = ["InProcess", "ProcessPool"]
