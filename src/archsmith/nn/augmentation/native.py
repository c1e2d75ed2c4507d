"""The operations on the CPU by a native library: the other half of operations.cpp's contract.

It is compiled at first use, in about a second, and kept, as the library of recurrent cells is (`nn.cell_kernels.library`,
docs/decisions/0006-cell-kernels.md). It gives the bytes of torch's operations, which run where it cannot: on another device,
and without a compiler. ARCHSMITH_KERNELS forces a way here, too: "plain" is torch, "native" and "compiled" are the library.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from archsmith.core.errors import UsageError
from archsmith.nn.cell_kernels import library

MOVED = 17
"""A code of the library beside `operations.CODES`: a crop, whose place is the centre; one more is mirrored before it."""

_SOURCE = Path(__file__).parent / "operations.cpp"
_FLAGS = ("-ffp-contract=off",)  # each product is rounded before it is added to, as torch and Pillow have it
_FOR_A_THREAD = 1 << 20  # values of images that are worth a thread, about half a millisecond
_FIELDS = (
    *("count", "channels", "height", "width", "threads", "parallel", "team_size"),
    *("images", "others", "code", "magnitude", "centre", "partner", "fill"),
)


class _Batch(ctypes.Structure):
    """`Batch` of operations.cpp: numbers and addresses, all of 8 bytes."""

    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS]


class _Library:
    def __init__(self, path: Path) -> None:
        self.augment = library.opened(path, "archsmith_augment").archsmith_augment
        self.openmp = library.openmp()
        self.process = os.getpid()


def augment_(
    images: Tensor, code: Tensor, magnitude: Tensor, centre: Tensor, partner: Tensor, others: Tensor, fill: Tensor
) -> bool:
    """Each image with its own operation, in place; False, and nothing is changed, where torch's operations must do it.

    Args:
        images: uint8 [n, c, h, w].
        code: of `operations.CODES`, `MOVED`, or `MOVED` + 1; int64 [n].
        magnitude: float64 [n].
        centre: of a cutout, or how far down and right a crop is; int64 [n, 2].
        partner: int64 [n].
        others: as `images`; what partners are taken from.
        fill: uint8 [c].

    Raises MemoryError.
    """
    count = len(images)
    if not (
        _is(images, torch.uint8, images.shape)
        and images.is_contiguous()
        and _is(others, torch.uint8, images.shape)
        and _is(code, torch.int64, (count,))
        and _is(magnitude, torch.float64, (count,))
        and _is(centre, torch.int64, (count, 2))
        and _is(partner, torch.int64, (count,))
        and _is(fill, torch.uint8, images.shape[1:2])
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
        and (ours := _library(library.asked_way())) is not None
    ):
        return False
    # Held until the call is over, copies or not.
    others, code, magnitude, centre, partner, fill = (
        tensor.contiguous() for tensor in (others, code, magnitude, centre, partner, fill)
    )
    # A fork has none of the OpenMP runtime's threads, and GNU's would wait for them for ever.
    parallel, team_size = ours.openmp if os.getpid() == ours.process else (0, 0)
    threads = max(1, min(torch.get_num_threads(), count, images.numel() // _FOR_A_THREAD))
    addresses = (tensor.data_ptr() for tensor in (images, others, code, magnitude, centre, partner, fill))
    status = ours.augment(ctypes.byref(_Batch(*images.shape, threads, parallel, team_size, *addresses)))
    if status == 1:
        raise MemoryError("not enough memory for a copy of an image that is augmented")
    return bool(status == 0)


def _is(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
    return type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.dtype == dtype and tensor.shape == shape


@lru_cache(maxsize=8)
def _library(way: str) -> _Library | None:
    """The native library, or None where torch's operations are to run; that is said once, unless it was asked for."""
    if way == "plain":
        return None
    try:
        return _Library(library.built("augmentation", _SOURCE.read_bytes(), _FLAGS))
    except library.NoLibrary as reason:
        if way:
            raise UsageError(f"ARCHSMITH_KERNELS={way}: {reason}") from None
        warnings.warn(f"augmentation runs by torch's operations, several times slower: {reason}", stacklevel=5)
        return None
