"""What a transfer found: the cell and the LSTM, each over several seeds, and what may be said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.core.comparison import Comparison, spread
from archsmith.core.final import Final
from archsmith.core.finish import Measure
from archsmith.core.shown import in_columns
from archsmith.core.trial import Cost


@dataclass(frozen=True)
class TransferredNetwork:
    """A network and how it came out.

    Args:
        name: the cell's, or "LSTM".
        hidden: units of each layer.
        parameters: how many it has.
        multiply_adds: of a symbol, or of a pair of sentences of mean length.
        scores: one for each seed.
    """

    name: str
    hidden: int
    parameters: int
    multiply_adds: int
    scores: Sequence[Final]

    @property
    def by_seed(self) -> dict[int, float]:
        """Test scores by seed."""
        return {s.index: s.score for s in self.scores if s.score is not None}

    @property
    def mean(self) -> float | None:
        """The mean test score."""
        return spread(list(self.by_seed.values()))[0]

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of the test scores."""
        return spread(list(self.by_seed.values()))[1]

    @property
    def cost(self) -> Cost:
        """What its trainings took."""
        return Cost(sum(s.cost.seconds for s in self.scores), sum(s.cost.epochs for s in self.scores))


@dataclass(frozen=True)
class Transferred:
    """What `transfer` gives.

    Args:
        cell: what was carried over, and from where.
        architecture: the cell, as plain data.
        at: when the test set was looked at, UTC, ISO 8601.
        evaluator: what both were trained by, as JSON.
        data: what they were trained on, as JSON.
        networks: the found cell's, then the LSTM's.
        comparison: of the two.
        measure: what the scores are.
        test_count: how many items the test set has.
        looks: how often this record's test set was looked at, this time included.
        notes: what a reader should know.
    """

    cell: str
    architecture: Mapping[str, Any]
    at: str
    evaluator: Mapping[str, Any]
    data: Mapping[str, Any]
    networks: Sequence[TransferredNetwork]
    comparison: Comparison
    measure: Measure
    test_count: int
    looks: int
    notes: Sequence[str]

    @property
    def claim(self) -> str:
        """What may be said, made by rule: see `archsmith.core.comparison`."""
        said = [self.comparison.sentence]
        if self.looks > 1:
            said.append(
                f"This test set was looked at {self.looks} times in this record: later looks are optimistic, since what "
                "was seen may have led to what was tried."
            )
        return " ".join([*said, *self.notes])

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head, for a terminal or a page."""
        tested = f"test {self.measure.label}"
        head = ("cell", "units", "parameters", "multiply-adds", tested, "validation", "seeds", "epochs", "minutes")
        rows: list[tuple[str, ...]] = [head]
        for network in self.networks:
            mean, deviation = network.mean, network.deviation
            held_out = spread([s.validation for s in network.scores if s.validation is not None])[0]
            rows.append(
                (
                    network.name,
                    f"{network.hidden:,}",
                    f"{network.parameters:,}",
                    f"{network.multiply_adds:,}",
                    "none finished" if mean is None else self.measure.text(mean, deviation),
                    "none" if held_out is None else self.measure.text(held_out),
                    str(len(network.by_seed)),
                    f"{network.cost.epochs:,.0f}",
                    f"{network.cost.seconds / 60:,.1f}",
                )
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        value = dataclasses.asdict(self)
        for network, found in zip(value["networks"], self.networks, strict=True):
            network |= {"mean": found.mean, "deviation": found.deviation}
        return {**value, "claim": self.claim}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Transferred:
        """What `to_json` wrote."""
        networks = []
        for network in value["networks"]:
            scores = [Final.from_json(s) for s in network["scores"]]
            networks.append(
                TransferredNetwork(
                    **{k: v for k, v in network.items() if k not in ("mean", "deviation")} | {"scores": scores}
                )
            )
        comparison = dict(value["comparison"])
        if comparison["interval"] is not None:
            comparison["interval"] = tuple(comparison["interval"])
        made: dict[str, Any] = {
            "networks": networks,
            "comparison": Comparison(**comparison),
            "measure": Measure.from_json(value["measure"]),
        }
        return cls(**{f.name: value[f.name] for f in dataclasses.fields(cls)} | made)

    def __str__(self) -> str:
        return "\n".join([in_columns(self.table()), "", self.claim])
