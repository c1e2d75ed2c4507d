"""What finishing a search found: networks, each over several seeds, and what may be said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.core.comparison import Comparison, spread
from archsmith.core.final import Final
from archsmith.core.finish import ACCURACY, Measure, in_todays_words
from archsmith.core.shown import in_columns
from archsmith.core.trial import Cost


@dataclass(frozen=True)
class FinishedNetwork:
    """A network and how it came out.

    Args:
        name: "found", "random search" or the control's searcher, or the hand-designed network's own name.
        origin: where it comes from, for a person.
        genotype: its genotype, or None for a hand-designed one.
        parameters: how many it has.
        settings: the evaluator's fields that tuning changed, or that a longer training stretched.
        finals: a final training for each seed.
        trainings: how many trainings choosing and tuning it took, failed ones included.
        failures: how many of those failed.
        tuning: what those took; the search that proposed it is in `origin`.
    """

    name: str
    origin: str
    genotype: Mapping[str, Any] | None
    parameters: int
    settings: Mapping[str, Any]
    finals: Sequence[Final]
    trainings: int
    failures: int
    tuning: Cost

    @property
    def scores(self) -> dict[int, float]:
        """Test scores by seed."""
        return {f.index: f.score for f in self.finals if f.score is not None}

    @property
    def mean(self) -> float | None:
        """The mean test score."""
        return spread(list(self.scores.values()))[0]

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of the test scores."""
        return spread(list(self.scores.values()))[1]

    @property
    def epochs(self) -> float:
        """The epochs of one of its final trainings, on average over those that came to their end."""
        each = [f.cost.epochs for f in self.finals if f.score is not None]
        return sum(each) / len(each) if each else 0.0

    @property
    def cost(self) -> Cost:
        """What its tuning and its final trainings took."""
        costs = [self.tuning, *(f.cost for f in self.finals)]
        return Cost(sum(c.seconds for c in costs), sum(c.epochs for c in costs))


@dataclass(frozen=True)
class ExportedModel:
    """The final training whose weights are exported.

    Args:
        index, seed, artifact: which one.
        why: how it was chosen among the seeds, without the test set.
    """

    index: int
    seed: int
    artifact: str
    why: str


@dataclass(frozen=True)
class Finished:
    """What `finish` gives.

    Args:
        run: the run's name.
        at: when the test set was looked at, UTC, ISO 8601.
        plan: the plan, as JSON.
        candidates: the genotypes that each network was chosen from, by their keys.
        networks: the found one first.
        comparisons: of the found one with each of the others.
        model: the final training that `export` takes.
        test_count: how many items the test set has: images, words, sentences, as the measure counts.
        looks: how often the test set was looked at for this run, this time included.
        notes: what limits the comparison.
        measure: what the scores are.
    """

    run: str
    at: str
    plan: Mapping[str, Any]
    candidates: Mapping[str, Sequence[str]]
    networks: Sequence[FinishedNetwork]
    comparisons: Sequence[Comparison]
    model: ExportedModel
    test_count: int
    looks: int
    notes: Sequence[str]
    measure: Measure = ACCURACY

    @property
    def full_epochs(self) -> int | None:
        """The epochs that a final training should have had, if the found network had fewer; else None."""
        full = self.plan.get("full_epochs")
        return full if isinstance(full, int) and full > self.found.epochs else None

    @property
    def found(self) -> FinishedNetwork:
        """The network that the search found."""
        return self.networks[0]

    @property
    def cost(self) -> Cost:
        """What all trainings took; those of the searches not included."""
        return Cost(sum(n.cost.seconds for n in self.networks), sum(n.cost.epochs for n in self.networks))

    @property
    def claim(self) -> str:
        """What may be said, made by rule: see `archsmith.core.comparison`."""
        said = [c.sentence for c in self.comparisons]
        if not said:
            said = ["Nothing was trained beside the found network, so nothing is claimed."]
        if self.full_epochs is not None:
            said.append(
                f"The recipe asks for {self.full_epochs:,} epochs of each final training, but there was not enough time: which of "
                "these networks is better after longer training is not known."
            )
        if self.looks > 1:
            said.append(
                f"The test set was looked at {self.looks} times for this run: later looks are optimistic, since what was "
                "seen may have led to what was tried."
            )
        return " ".join([*said, *self.notes])

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text with a head, for a terminal or a page."""
        tested = f"test {self.measure.label}"
        head = (
            "network", "parameters", tested, "seeds", "epochs each", "changed settings", "trainings", "epochs", "minutes"
        )  # fmt: skip
        rows = []
        for network in self.networks:
            settings = ", ".join(f"{k} {_short(v)}" for k, v in network.settings.items())
            rows.append(
                (
                    network.name,
                    f"{network.parameters:,}",
                    score_text(self.measure, network.mean, network.deviation),
                    str(len(network.scores)),
                    f"{network.epochs:,g}" + (f" of {self.full_epochs:,}" if self.full_epochs is not None else ""),
                    settings or "none",
                    str(network.trainings + len(network.finals)),
                    f"{network.cost.epochs:,.0f}",
                    f"{network.cost.seconds / 60:,.1f}",
                )
            )
        return [head, *rows]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with what is derived beside what is recorded."""
        networks = []
        for network in self.networks:
            plain = dataclasses.asdict(network)
            networks.append(
                {**plain, "mean": network.mean, "deviation": network.deviation, "cost": _plain(network.cost)}
            )
        return {
            **dataclasses.asdict(self),
            "networks": networks,
            "claim": self.claim,
            "cost": _plain(self.cost),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finished:
        """What `to_json` wrote, now or before there were other measures than accuracy."""
        value = in_todays_words(value)
        networks = []
        for n in value["networks"]:
            finals = [Final.from_json(f) for f in n["finals"]]
            fields = {f.name: n[f.name] for f in dataclasses.fields(FinishedNetwork)}
            networks.append(FinishedNetwork(**{**fields, "finals": finals, "tuning": Cost(**n["tuning"])}))
        comparisons = [
            Comparison(**{**c, "interval": tuple(c["interval"]) if c["interval"] else None})
            for c in value["comparisons"]
        ]
        fields = {f.name: value[f.name] for f in dataclasses.fields(cls)}
        made: dict[str, Any] = {
            "model": ExportedModel(**value["model"]),
            "measure": Measure.from_json(value["measure"]),
        }
        return cls(**{**fields, "networks": networks, "comparisons": comparisons, **made})

    def __str__(self) -> str:
        return "\n".join([in_columns(self.table()), "", self.claim])


def score_text(measure: Measure, mean: float | None, deviation: float | None) -> str:
    """ "97.22 % ± 0.28" (mean and sample standard deviation over seeds), or that there is none."""
    return "none finished" if mean is None else measure.text(mean, deviation)


def _plain(cost: Cost) -> dict[str, float]:
    return {"seconds": cost.seconds, "epochs": cost.epochs}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
