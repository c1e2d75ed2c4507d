"""Executors: where evaluators run. One file each."""

from __future__ import annotations

from archsmith.executors.faults import Faults
from archsmith.executors.in_process import InProcess
from archsmith.executors.process_pool import ProcessPool
from archsmith.executors.ray import Ray
from archsmith.executors.simulated import Simulated

__all__ = ["Faults", "InProcess", "ProcessPool", "Ray", "Simulated"]
