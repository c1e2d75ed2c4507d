"""What all trainings share: seeding and threads that are restored afterwards, limits, and the precision of a device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from archsmith.core.errors import LimitExceeded
from archsmith.core.evaluator import Context
from archsmith.core.executor import derive_seed
from archsmith.nn.count import count_parameters
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
def seeded(context: Context, part: str | None = None) -> Iterator[None]:
    """Seed all global generators (random, NumPy, PyTorch) from the child's seed and set its number of threads; restore both
    afterwards.

    Args:
        context: the child's.
        part: a part of the training, such as "init". Each part has a seed of its own, so that they do not depend on each other.
    """
    seed = context.seed if part is None else derive_seed(context.seed, part)
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


def check_parameters(context: Context, model: nn.Module) -> int:
    """The number of a model's parameters. Raises LimitExceeded if it is above the child's limit."""
    parameters, limit = count_parameters(model), context.limits.parameters
    if limit is not None and parameters > limit:
        raise LimitExceeded(f"the child has {parameters:,} parameters; the limit is {limit:,}", reason="parameters")
    return parameters
