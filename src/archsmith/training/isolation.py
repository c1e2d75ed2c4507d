"""What every training has around it: seeds and threads that leave no trace, and the precision of a device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from archsmith.core.evaluator import Context
from archsmith.nn.seeding import seed_torch


def resolve_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on a device: bf16 where it is computed by the hardware, fp32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return "bf16" if any(ask() for ask in asked if ask is not None) else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Lets its body compute in bf16 where that is the precision, and in fp32 otherwise."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def isolated(seed: int, context: Context) -> Iterator[None]:
    """Runs its body with all global random states seeded and the context's number of threads; then puts them back."""
    device = torch.device(context.device)
    devices = [device] if device.type == "cuda" else []
    threads, python_state, numpy_state = torch.get_num_threads(), random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            seed_torch(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            if context.threads != threads:
                torch.set_num_threads(context.threads)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
