"""Parameter-server shards of a controller (Zoph and Le 2017, section 3.2 and figure 3; Dean et al. 2012, section 4.1).

S shards hold the parameters in slices, each with Adam's moments of them (Kingma and Ba 2015). A replica pushes a gradient to
all of them and pulls the parameters from all of them. A shard waits for n gradients, applies their mean, and is one version on.

Everything is arithmetic by element, which numpy rounds alike however the elements are divided: so the number of shards
changes nothing, to the bit. Needs no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from archsmith.core.errors import SearcherDiverged
from archsmith.core.hosting import PartLost
from archsmith.searchers.parameters import Floats, Layout, Pulled, initial, moved, shares

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam, as published
_f = np.float32
PARTS = ("value", "m", "v", "waiting")


@dataclass(frozen=True)
class Gradient:
    """What a replica pushes.

    Args:
        layout: of the values.
        values: the gradient of minus the objective; None where its architectures had nothing to decide.
        entropy: of the policy by which it was computed, per decision in nats.
    """

    layout: Layout
    values: Floats | None
    entropy: float


@dataclass(frozen=True)
class Pushed:
    """What came of a push.

    Args:
        version: of the parameters, before what the push may have changed.
        entropy: as the replica said.
        squares: where it made an update, the sum of the squares of the applied gradient in each of these shards.
    """

    version: int
    entropy: float
    squares: tuple[float, ...]


@dataclass(frozen=True)
class Server:
    """What the shards are started with.

    Args:
        layout: of a controller that has met no question.
        seed, init: what parameters start as; see `parameters.initial_rows`.
        shards: S.
        accumulate: n, how many gradients make an update.
        learning_rate: of Adam.
    """

    layout: Layout
    seed: int
    init: float
    shards: int
    accumulate: int
    learning_rate: float


@dataclass(frozen=True)
class Held:
    """All that shards hold, as whole vectors, or as the slices of one of them.

    Args:
        value, m, v: the parameters and Adam's moments.
        waiting: the sum of the gradients that wait to be applied.
        gathered: how many do, and `decided` how many of these had anything to decide.
        steps: Adam's t.
        version: how many updates there were.
    """

    value: Floats
    m: Floats
    v: Floats
    waiting: Floats
    gathered: int = 0
    decided: int = 0
    steps: int = 0
    version: int = 0

    @classmethod
    def beginning(cls, value: Floats) -> Held:
        """Before the first push."""
        nothing = np.zeros_like(value)  # shared: what is held is never changed in place
        return cls(value, nothing, nothing, nothing)


def push(held: Held, gradient: Floats | None, accumulate: int, learning_rate: float) -> tuple[Held, float | None]:
    """One gradient more for a shard; gives what it holds then and, after an update, the squares of what was applied."""
    waiting, decided = held.waiting, held.decided
    if gradient is not None:
        waiting, decided = waiting + gradient, decided + 1
    if held.gathered + 1 < accumulate:
        return replace(held, waiting=waiting, gathered=held.gathered + 1, decided=decided), None
    nothing = np.zeros_like(waiting)
    if not decided:  # no step either: moments without a gradient would move the parameters on
        return replace(held, waiting=nothing, gathered=0, decided=0, version=held.version + 1), 0.0
    g, t = waiting / _f(accumulate), held.steps + 1
    m = _f(BETA1) * held.m + _f(1 - BETA1) * g
    v = _f(BETA2) * held.v + _f(1 - BETA2) * np.square(g)
    step, correction = _f(learning_rate / (1 - BETA1**t)), _f(math.sqrt(1 - BETA2**t))
    scale: Floats = np.sqrt(v) / correction + _f(EPSILON)
    value = held.value - step * m / scale
    squares = float(np.sum(np.square(g, dtype=np.float64)))
    return Held(value, m, v, nothing, 0, 0, t, held.version + 1), squares


class Shards:
    """Some of the S shards, side by side in one process: a part that lives on a host.

    Each push and each pull says how many pushes come before it, and PartLost is raised where another number has come: a
    call that failed on its way must not be passed over.
    """

    def __init__(self, server: Server, numbers: tuple[int, ...]) -> None:
        self._server = server
        self._numbers = numbers
        self.load(None, 0)

    def here(self) -> int:
        """The process it is in; that it answers shows that it lives."""
        return os.getpid()

    def push(self, before: int, gradient: Gradient) -> Pushed:
        """Take a gradient, the one after `before` others."""
        self._expect(before)
        self._pushes += 1
        layout = self._layout.with_all_of(gradient.layout)
        if layout != self._layout:
            self._grow(layout)
        values = gradient.values
        if values is not None and gradient.layout != layout:
            values = moved(values, gradient.layout, layout, np.zeros(layout.size, np.float32))
        share, version, squares = shares(layout, self._server.shards), self._held[0].version, list[float]()
        for place, number in enumerate(self._numbers):
            mine = None if values is None else values[share[number]]
            with np.errstate(over="ignore", invalid="ignore"):  # what came of it is checked
                held, applied = push(self._held[place], mine, self._server.accumulate, self._server.learning_rate)
            self._held[place] = held
            if applied is not None:
                _check(held, self._server.learning_rate)
                squares.append(applied)
        return Pushed(version, gradient.entropy, tuple(squares))

    def pull(self, before: int) -> Pulled:
        """The parameters after that many pushes."""
        self._expect(before)
        for held in self._held:
            _check(held, self._server.learning_rate)
        slices = tuple((number, held.value) for number, held in zip(self._numbers, self._held, strict=True))
        return Pulled(self._layout, self._server.shards, slices)

    def state(self, before: int) -> tuple[Layout, list[tuple[int, Held]]]:
        """All that they hold, after that many pushes."""
        self._expect(before)
        return self._layout, list(zip(self._numbers, self._held, strict=True))

    def load(self, state: tuple[Layout, Held] | None, pushes: int) -> None:
        """Hold their slices of these vectors, as after that many pushes; None: begin."""
        if state is None:
            layout = self._server.layout
            held = Held.beginning(initial(layout, self._server.seed, self._server.init))
        else:
            layout, held = state
            _check(held, self._server.learning_rate)
        self._layout, self._pushes = layout, pushes
        share = shares(layout, self._server.shards)
        self._held = [sliced(held, share[number]) for number in self._numbers]

    def _expect(self, before: int) -> None:
        if self._pushes != before:
            raise PartLost(f"of {before} pushes to shards of the controller {self._pushes} have come")

    def _grow(self, layout: Layout) -> None:
        """Room for what a replica has met for the first time: rows as they start, without moments."""
        old, new = shares(self._layout, self._server.shards), shares(layout, self._server.shards)
        started = initial(layout, self._server.seed, self._server.init)
        for place, number in enumerate(self._numbers):
            vectors = []
            for name in PARTS:
                everywhere = np.zeros(self._layout.size, np.float32)
                everywhere[old[number]] = getattr(self._held[place], name)
                onto = started.copy() if name == "value" else np.zeros(layout.size, np.float32)
                vectors.append(moved(everywhere, self._layout, layout, onto)[new[number]])
            self._held[place] = _with_vectors(self._held[place], vectors)
        self._layout = layout


def _check(held: Held, learning_rate: float) -> None:
    if not np.isfinite(held.value).all():
        raise SearcherDiverged("Asynchronous", held.version, learning_rate)


def sliced(held: Held, share: npt.NDArray[np.int64]) -> Held:
    """A shard's part of whole vectors."""
    return _with_vectors(held, [getattr(held, name)[share] for name in PARTS])


def joined(layout: Layout, shards: int, slices: Sequence[tuple[int, Held]]) -> Held:
    """The whole vectors of all the shards."""
    share, vectors = shares(layout, shards), [np.empty(layout.size, np.float32) for _ in PARTS]
    for number, held in slices:
        for name, vector in zip(PARTS, vectors, strict=True):
            vector[share[number]] = getattr(held, name)
    return _with_vectors(slices[0][1], vectors)


def _with_vectors(held: Held, vectors: Sequence[Floats]) -> Held:
    value, m, v, waiting = vectors
    return replace(held, value=value, m=m, v=v, waiting=waiting)
