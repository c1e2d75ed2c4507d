"""What a transfer found: networks, each over several seeds, and what may be said of them."""

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
        name: the cell's, or "LSTM"; of images "found", "random search" or the hand-designed network's.
        hidden: units of each layer of a cell; None for images.
        parameters: how many it has.
        multiply_adds: of an image, of a symbol, or of a pair of sentences of mean length.
        scores: one for each seed.
        how: "scratch", "fine-tune" or "features"; empty for cells, which are trained from scratch.
        origin: where it comes from, for a person.
        settings: of its training, those that were chosen for it by validation, or that its weights ask for.
    """

    name: str
    hidden: int | None
    parameters: int
    multiply_adds: int
    scores: Sequence[Final]
    how: str = ""
    origin: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
        subject: what was carried over, and from where.
        architecture: of the found cell or network, as plain data.
        at: when the test set was looked at, UTC, ISO 8601.
        evaluator: what both were trained by, as JSON.
        data: what they were trained on, as JSON.
        networks: of a cell the found one's, then the LSTM's; of images way by way, the found one first in each.
        comparisons: of the found one with the others, in the order in which a person would ask.
        measure: what the scores are.
        test_count: how many items the test set has.
        looks: how often this record's test set was looked at, this time included.
        notes: what a reader should know.
    """

    subject: str
    architecture: Mapping[str, Any]
    at: str
    evaluator: Mapping[str, Any]
    data: Mapping[str, Any]
    networks: Sequence[TransferredNetwork]
    comparisons: Sequence[Comparison]
    measure: Measure
    test_count: int
    looks: int
    notes: Sequence[str]

    @property
    def comparison(self) -> Comparison:
        """The first one."""
        return self.comparisons[0]

    @property
    def claim(self) -> str:
        """What may be said, made by rule: see `archsmith.core.comparison`."""
        return " ".join(self.sentences)

    @property
    def sentences(self) -> list[str]:
        """The same, one thing each."""
        said = [comparison.sentence for comparison in self.comparisons]
        if self.looks > 1:
            said.append(
                f"This test set was looked at {self.looks} times in this record: later looks are optimistic, since what "
                "was seen may have led to what was tried."
            )
        return [*said, *self.notes]

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head, for a terminal or a page."""
        tested = f"test {self.measure.label}"
        of_cells = any(network.hidden is not None for network in self.networks)
        own = ("cell", "units") if of_cells else ("way", "network")
        head = (*own, "parameters", "multiply-adds", tested, "validation", "seeds", "epochs", "minutes")
        rows: list[tuple[str, ...]] = [head]
        for network in self.networks:
            mean, deviation = network.mean, network.deviation
            held_out = spread([s.validation for s in network.scores if s.validation is not None])[0]
            called = (network.name, f"{network.hidden:,}") if of_cells else (network.how, network.name)
            rows.append(
                (
                    *called,
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
        """What `to_json` wrote, now or when there were cells alone."""
        value = {"subject": value.get("cell"), "comparisons": [value.get("comparison")], **value}
        networks = []
        for network in value["networks"]:
            scores = [Final.from_json(s) for s in network["scores"]]
            networks.append(
                TransferredNetwork(
                    **{k: v for k, v in network.items() if k not in ("mean", "deviation")} | {"scores": scores}
                )
            )
        comparisons = [
            Comparison(**{**c, "interval": tuple(c["interval"]) if c["interval"] else None})
            for c in value["comparisons"]
        ]
        made: dict[str, Any] = {
            "networks": networks,
            "comparisons": comparisons,
            "measure": Measure.from_json(value["measure"]),
        }
        return cls(**{f.name: value[f.name] for f in dataclasses.fields(cls)} | made)

    def __str__(self) -> str:
        return "\n".join([in_columns(self.table()), "", *self.sentences])
