"""A controller's parameters as one vector: how it is laid out, what it starts as, and how shards divide it.

A controller grows when it meets a question of a new kind, so layouts grow, and what grew earlier in one process than in
another is the same in both: each row of each parameter starts from a generator of its own. Needs no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from archsmith.core.executor import derive_seed

Floats: TypeAlias = npt.NDArray[np.float32]
Head: TypeAlias = tuple[str, str]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What stands where in the vector: the parameters by name, each in row-major order.

    Args:
        widths: how many options each head knows, sorted by head.
        shapes: the shape of each parameter, sorted by name; only the first length of one ever grows.
    """

    widths: tuple[tuple[Head, int], ...]
    shapes: tuple[tuple[str, Shape], ...]

    @functools.cached_property
    def size(self) -> int:
        """How many numbers that is."""
        return sum(prod(shape) for _, shape in self.shapes)

    @classmethod
    def of(cls, widths: Mapping[Head, int], shapes: Mapping[str, Shape]) -> Layout:
        """The layout of these heads and parameters, in whatever order they come."""
        return cls(tuple(sorted(widths.items())), tuple(sorted(shapes.items())))

    def places(self) -> Iterator[tuple[str, Shape, int, int]]:
        """Each parameter: its name, its shape, and where it begins and ends."""
        at = 0
        for name, shape in self.shapes:
            yield name, shape, at, at + prod(shape)
            at += prod(shape)

    def with_all_of(self, other: Layout) -> Layout:
        """The smallest layout that has room for both."""
        if self == other:
            return self
        widths, shapes = dict(self.widths), dict(self.shapes)
        for head, width in other.widths:
            widths[head] = max(width, widths.get(head, 0))
        for name, shape in other.shapes:
            shapes[name] = max(shape, shapes.get(name, shape))
        return Layout.of(widths, shapes)


def trunk(hidden: int, layers: int, embedding: int) -> dict[str, Shape]:
    """What a controller has before it meets a question: the LSTM and the first thing that it reads."""
    shapes: dict[str, Shape] = {"start": (1, embedding)}
    for layer in range(layers):
        shapes[f"lstm{layer}.input"] = (4 * hidden, hidden if layer else embedding)
        shapes[f"lstm{layer}.hidden"] = (4 * hidden, hidden)
        shapes[f"lstm{layer}.bias"] = (4 * hidden,)
    return shapes


def initial_rows(seed: int, init: float, name: str, rows: range, shape: Shape) -> Floats:
    """What these rows of a parameter start as, each of that shape: uniform in [-init, init]."""
    new = np.empty((len(rows), *shape), np.float32)
    for place, row in enumerate(rows):
        new[place] = _initial_row(seed, init, name, row, shape)
    return new


@functools.lru_cache(maxsize=4096)  # replicas meet the same questions many times before the first update is there
def _initial_row(seed: int, init: float, name: str, row: int, shape: Shape) -> npt.NDArray[np.float64] | float:
    return np.random.default_rng(derive_seed(seed, name, row)).uniform(-init, init, shape)


def initial(layout: Layout, seed: int, init: float) -> Floats:
    """What a whole vector starts as."""
    parts = [initial_rows(seed, init, name, range(s[0]), s[1:]).ravel() for name, s in layout.shapes]
    return np.concatenate(parts)


def moved(values: Floats, old: Layout, new: Layout, onto: Floats) -> Floats:
    """The vector in a larger layout; `onto`, which is filled and given back, has what was not there before."""
    found = {name: (at, end) for name, _, at, end in old.places()}
    for name, _, at, _ in new.places():
        if name in found:
            first, end = found[name]
            onto[at : at + end - first] = values[first:end]
    return onto


# --- shards -----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def shares(layout: Layout, shards: int) -> tuple[npt.NDArray[np.int64], ...]:
    """The places in the vector that each shard holds.

    Rows are dealt in turn, beginning with another shard for each parameter, so that shards are equally large and a row
    stays where it is when others are added behind it.
    """
    owner = np.empty(layout.size, np.int64)
    for name, shape, at, end in layout.places():
        first = derive_seed(0, name) % shards
        owner[at:end] = np.repeat((first + np.arange(shape[0])) % shards, prod(shape[1:]))
    return tuple(np.flatnonzero(owner == shard) for shard in range(shards))


@dataclass(frozen=True)
class Pulled:
    """What one process of shards gives to a replica that pulls: the slices of its shards, never changed afterwards.

    Args:
        layout: of the whole vector.
        shards: into how many it is divided.
        slices: by shard.
    """

    layout: Layout
    shards: int
    slices: tuple[tuple[int, Floats], ...]


def whole(pulled: Sequence[Pulled]) -> tuple[Layout, Floats]:
    """The vector that these slices make, and its layout."""
    layout = pulled[0].layout
    values = np.empty(layout.size, np.float32)
    for piece in pulled:
        share = shares(layout, piece.shards)
        for shard, part in piece.slices:
            values[share[shard]] = part
    return layout, values
