"""A found network made deeper, wider, or as large as a budget, in the ways its space knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from archsmith._transfer.carried import Carried, carried
from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.space import decode
from archsmith.spaces import MobileBlocks, NASBench201, NASNetCell

MOST = 10**15
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}


@dataclass(frozen=True)
class Scale:
    """How large a network shall be where it is carried to. None: as it was found.

    Args:
        cells: N, how many cells a stack has (NASNetCell's normal cells, NASBench201's repeats).
        filters: F, of the first stack.
        multiply_adds: for one image; as many filters as it allows. Stands in place of `filters` and `width`.
        width: of mobile blocks, as many times the filters: the depth multiplier of their paper.
    """

    cells: int | None = None
    filters: int | None = None
    multiply_adds: int | None = None
    width: float | None = None

    def __post_init__(self) -> None:
        for name in ("cells", "filters", "multiply_adds"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST):
                raise UsageError(f"{name} of a scaled network must be a whole number of at least 1, got {value!r}")
        if self.multiply_adds is not None and (self.filters is not None or self.width is not None):
            asked = "filters" if self.filters is not None else "width"
            raise UsageError(f"give either {asked} or multiply-adds: the one decides the other")

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())


def scaled(network: Carried, scale: Scale, task: Task) -> Carried:
    """The same network as large as asked, for a task.

    Raises UsageError when its space has no cells to stack, or such a network cannot be.
    """
    if not scale:
        return network
    space = network.space
    if isinstance(space, MobileBlocks):
        _refuse(scale, ("cells", "filters"), "MobileBlocks, whose size is a width")
        return _mobile(network, space, scale, task)
    if isinstance(space, NASNetCell | NASBench201):
        _refuse(scale, ("width",), f"{type(space).__name__}, whose size is cells and filters")
        if isinstance(space, NASNetCell):
            return carried(space, _cells(_architecture(network), scale, task))
        return _benchmark(network, space, scale, task)
    raise UsageError(
        f"a network of {type(space).__name__} cannot be scaled: it is no stack of cells, as those of NASNetCell and "
        "NASBench201 are, nor of mobile blocks, so nothing says what to repeat or widen; leave cells, filters, width and "
        "multiply-adds"
    )


def _refuse(scale: Scale, names: tuple[str, ...], what: str) -> None:
    if given := next((name for name in names if getattr(scale, name) is not None), None):
        raise UsageError(f"{given} is no size of a network of {what}")


def _architecture(network: Carried) -> Architecture:
    what = network.what
    return decode(network.space, what) if isinstance(what, Genotype) else what


def _cells(architecture: Architecture, scale: Scale, task: Task) -> Architecture:
    from archsmith.spaces.nasnet_cell import scaled as scaled_cells
    from archsmith.spaces.nasnet_cell import scaled_to

    found = scaled_cells(architecture, cells=scale.cells, filters=scale.filters)
    if scale.multiply_adds is None:
        return found
    shape, classes = task.input_shape, task.num_classes
    return scaled_to(found, multiply_adds=scale.multiply_adds, input_shape=shape, num_classes=classes)


def _benchmark(network: Carried, space: NASBench201, scale: Scale, task: Task) -> Carried:
    """Of NASBench201 the network's size is the space's own option, and its cell the architecture."""
    architecture = _architecture(network)

    def sized(channels: int) -> Carried:
        repeats = space.repeats if scale.cells is None else scale.cells
        return Carried(replace(space, channels=channels, repeats=repeats), plain=architecture)

    if scale.multiply_adds is None:
        return sized(space.channels if scale.filters is None else scale.filters)

    return sized(_largest(lambda channels: sized(channels).sized(task)[1], scale.multiply_adds, _MOST_CHANNELS))


def _mobile(network: Carried, space: MobileBlocks, scale: Scale, task: Task) -> Carried:
    """Of mobile blocks every layer is as many times as wide; to a budget, in steps of a hundredth."""
    from archsmith.spaces.mobile_blocks import scaled as scaled_blocks

    architecture = _architecture(network)

    def wide(width: float) -> Carried:
        return carried(space, scaled_blocks(architecture, width))

    if scale.multiply_adds is None:
        return wide(1.0 if scale.width is None else scale.width)
    return wide(_largest(lambda w: wide(w / 100).sized(task)[1], scale.multiply_adds, _MOST_WIDTH) / 100)


def _largest(cost: Callable[[int], int], budget: int, most: int) -> int:
    """The largest whole number up to `most` whose cost is within the budget. Raises UsageError where 1 costs more."""
    if (least := cost(1)) > budget:
        raise UsageError(
            f"multiply_adds must be at least {least:,}, which the network has at its narrowest, got {budget:,}; use "
            "fewer cells or smaller images"
        )
    low, high = 1, 2
    while high <= most and cost(high) <= budget:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low


_MOST_WIDTH = 6400  # hundredths
_MOST_CHANNELS = 4096  # what the space allows


def multiply_adds_of(text: str) -> int:
    """The number that "600M", "1.5G" or "25000000" says. Raises UsageError for what says none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMBG]?)", text.strip().replace(",", ""), re.IGNORECASE)
    value = round(float(found[1]) * _UNITS[found[2].upper()]) if found and len(text) < 40 else 0
    if not 1 <= value <= MOST:
        raise UsageError(f"multiply-adds must be a number such as 600M or 25000000, got {text[:40]!r}")
    return value


def as_json(scale: Scale) -> Mapping[str, Any]:
    """Plain JSON, of what is asked alone."""
    return {name: value for name, value in vars(scale).items() if value is not None}
