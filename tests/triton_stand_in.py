"""As much of Triton as the kernels of cells use, on tensors, one program after another: the kernels run without Triton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_program = 0


@dataclass
class Pointer:
    numbers: Tensor
    offsets: Tensor | int = 0

    def __add__(self, other: Tensor | int) -> Pointer:
        return Pointer(self.numbers, self.offsets + other)


@dataclass
class Kernel:
    body: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.body(*args)

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*args: Any) -> None:
            global _program
            given = [_argument(a) for a in args]
            for _program in range(grid[0]):
                self.body(*given[:-2], *args[-2:])  # the last two are the constants MASKED and BLOCK

        return launch


def _argument(given: Any) -> Any:
    if isinstance(given, Tensor):
        assert given.is_contiguous()
        return Pointer(given.view(-1))
    return torch.tensor(given, dtype=torch.int32)


def _jit(body: Any = None, *, do_not_specialize: list[str] | None = None) -> Any:
    return (lambda later: Kernel(later)) if body is None else Kernel(body)


def _load(pointer: Pointer, mask: Tensor, other: float) -> Tensor:
    inside = pointer.offsets[mask]
    assert ((inside >= 0) & (inside < len(pointer.numbers))).all(), "outside of the memory"
    found = torch.full(mask.shape, other, dtype=pointer.numbers.dtype)
    found[mask] = pointer.numbers[inside]
    return found


def _store(pointer: Pointer, values: Tensor, mask: Tensor) -> None:
    inside = pointer.offsets[mask]
    assert ((inside >= 0) & (inside < len(pointer.numbers))).all(), "outside of the memory"
    pointer.numbers[inside] = values.expand(mask.shape)[mask].to(pointer.numbers.dtype)


def modules() -> dict[str, ModuleType]:
    """What `import triton` and `import triton.language` are to give."""
    triton, language = ModuleType("triton"), ModuleType("triton.language")
    vars(triton).update(jit=_jit, language=language)
    vars(language).update(
        constexpr=object,
        int64=torch.int64,
        float32=torch.float32,
        program_id=lambda axis: _program,
        arange=lambda start, end: torch.arange(start, end),
        load=_load,
        store=_store,
        where=torch.where,
        abs=torch.abs,
        exp=torch.exp,
        sin=torch.sin,
        cos=torch.cos,
        full=lambda shape, value, dtype: torch.full(shape, value, dtype=dtype),
    )
    return {"triton": triton, "triton.language": language}
