"""Known points of a space, which a search proposes first and has to improve on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

from archsmith._search.run import Run
from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.shown import shown
from archsmith.core.space import LocatesArchitectures, Space, decode, identity
from archsmith.core.store import RunReader
from archsmith.core.trial import Trial


@runtime_checkable
class KnownNetwork(Protocol):
    """A network by name, such as those of `archsmith.discovered`."""

    @property
    def name(self) -> str: ...
    @property
    def genotype(self) -> Genotype | None: ...
    @property
    def architecture(self) -> Architecture: ...


KnownPoint: TypeAlias = Genotype | Mapping[str, Any] | KnownNetwork | Trial | Run
"""A genotype or its JSON, an architecture, a network of `archsmith.discovered`, a trial, or the best of an earlier run."""


def genotypes_of(space: Space, points: Iterable[KnownPoint]) -> list[Genotype]:
    """The genotypes of known points in this space, in order and without duplicates.

    Raises UsageError, naming the point, for one that is not in the space.
    """
    if isinstance(points, Mapping | str) or not isinstance(points, Iterable):
        raise UsageError(f"first must be a list of genotypes, architectures, networks or runs, got {shown(points)}")
    genotypes: dict[str, Genotype] = {}
    for number, point in enumerate(points):
        genotype = _genotype(space, point, f"first[{number}]")
        genotypes.setdefault(genotype.key, genotype)
    return list(genotypes.values())


def _genotype(space: Space, point: Any, where: str) -> Genotype:
    if isinstance(point, Run):
        if point.best is None:
            raise UsageError(f"{where} is the run {point.name!r}, and no trial of it is done yet")
        return _within(space, point.best.genotype, _architecture(point), f"{where}, the best of run {point.name!r},")
    if isinstance(point, Trial):
        return _within(space, point.genotype, None, where)
    if isinstance(point, Genotype):
        return _within(space, point, None, where)
    if isinstance(point, KnownNetwork):
        where = f"{where}, {point.name},"
        if point.genotype is not None:
            return _within(space, point.genotype, point.architecture, where)
        return _located(space, point.architecture, where)
    if isinstance(point, Mapping):
        if set(point) == {"space", "answers"}:
            return _within(space, Genotype.from_json(point), None, where)
        return _located(space, point, where)
    raise UsageError(
        f"{where} must be a genotype, an architecture, a network of archsmith.discovered, a trial or a run, got {shown(point)}"
    )


def _architecture(run: Run) -> Architecture | None:
    """The architecture of the best trial of a run; None if the run's space is not at hand."""
    assert run.best is not None
    try:
        return decode(run.space, run.best.genotype)
    except UsageError:
        return None


def _within(space: Space, genotype: Genotype, architecture: Architecture, where: str) -> Genotype:
    """The same answers in this space, whose options may differ from those of the genotype's space."""
    moved = Genotype(identity(space), genotype.answers)
    try:
        reached = decode(space, moved)
    except IllegalGenotype as error:
        if architecture is not None and isinstance(space, LocatesArchitectures):
            return _located(space, architecture, where)
        same = genotype.space.get("name") == identity(space)["name"]
        other = "" if same else f"it is of the space {shown(genotype.space.get('name'))}, and "
        raise UsageError(f"{where} is no point of the space {identity(space)['name']}: {other}{error}") from None
    if architecture is not None and reached != architecture:
        raise UsageError(
            f"{where} is no point of the space {identity(space)['name']}: the same answers give another architecture there"
        )
    return moved


def _located(space: Space, architecture: Architecture, where: str) -> Genotype:
    if not isinstance(space, LocatesArchitectures):
        raise UsageError(
            f"{where} is an architecture, and the space {identity(space)['name']} cannot tell which answers give it; "
            "give its genotype"
        )
    try:
        return space.genotype(architecture)
    except UsageError as error:
        raise UsageError(f"{where} is no point of the space {identity(space)['name']}: {error}") from None


def recorded_first(config: Mapping[str, Any]) -> Sequence[Genotype]:
    """The known points of a run; empty for runs of earlier versions."""
    return [Genotype.from_json(point) for point in config.get("first") or ()]


@dataclass(frozen=True)
class Improvement:
    """The improvement of a search over its known points.

    Args:
        points: the number of known points that were trained.
        trial: the best of them.
        known: its reward.
        best: the best reward of the whole run.
    """

    points: int
    trial: int
    known: float
    best: float

    def __str__(self) -> str:
        points = "the known point" if self.points == 1 else f"the best of {self.points} known points"
        if self.best > self.known:
            change = f"the search improved on it by {self.best - self.known:.4g}, to {self.best:.4g}"
        else:
            change = "the search found nothing better"
        return f"{points} (trial {self.trial}) has reward {self.known:.4g}; {change}"


def improvement(reader: RunReader) -> Improvement | None:
    """The improvement of a run over its known points; None if it has none, or none of them is done."""
    points = len(reader.summary().config.get("first") or ())
    if not points:
        return None
    known = islice(reader.trials(), points)  # they are the first
    done = [(trial.reward, -trial.number) for trial in known if trial.reward is not None]
    best = reader.top(1)
    if not done or not best or best[0].reward is None:
        return None
    reward, number = max(done)
    return Improvement(len(done), -number, reward, best[0].reward)
