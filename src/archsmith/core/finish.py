"""What finishing a search asks for, and what it asks of an evaluator (Zoph and Le 2017, sections 4.1 and 4.2).

"The architecture that achieves the best validation accuracy" is tuned by "a small grid search over learning rate,
weight decay, batchnorm epsilon and what epoch to decay the learning rate", "run until convergence", and tested. The best
recurrent cell by "learning rate, weight initialization, dropout rates and decay epoch".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.child import AnyTask, Child
from archsmith.core.config import type_name
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Context, Evaluator
from archsmith.core.space import Space
from archsmith.core.trial import Result

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Measure:
    """The number by which trained networks are compared, on validation data and on the test set.

    Args:
        name: its key among the metrics: "accuracy", "perplexity", "bits_per_character", "bleu".
        label: what a person calls it.
        higher_is_better: whether more is better.
        items: what the test set is made of, in the plural.
        percent: whether it is a fraction of the items, shown in per cent. Only then does the number of items alone
            say how much chance leaves open.
        digits: digits shown behind the point.
    """

    name: str
    label: str
    higher_is_better: bool
    items: str
    percent: bool = False
    digits: int = 2

    def text(self, value: float, deviation: float | None = None) -> str:
        """A value for a person, such as "97.22 %" or "78.41"; with a deviation over seeds "97.22 % ± 0.28"."""
        factor, unit = (100, " %") if self.percent else (1, "")
        spread = f" ± {factor * deviation:.{self.digits}f}" if deviation is not None else ""
        return f"{factor * value:.{self.digits}f}{unit}{spread}"

    def said(self, metrics: Mapping[str, float]) -> str:
        """The value among some metrics with its name, such as "perplexity 78.41"; empty where there is none."""
        return f"{self.label} {self.text(metrics[self.name])}" if self.name in metrics else ""

    def of_weights(self, metrics: Mapping[str, float]) -> float | None:
        """The value for the final weights, if the metric itself is the best of several epochs; None if both are equal."""
        last = metrics.get(FINAL_ACCURACY) if self.name == "accuracy" else None
        return last if last != metrics.get(self.name) else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as the record of a run and of a finish keeps it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Measure:
        """What `to_json` wrote; `ACCURACY` for what it did not write: records from before there were others have none."""
        types = {"name": str, "label": str, "higher_is_better": bool, "items": str, "percent": bool, "digits": int}
        if not isinstance(value, Mapping) or any(type(value.get(name)) is not kind for name, kind in types.items()):
            return ACCURACY
        known = cls(**{name: value[name] for name in types})
        return dataclasses.replace(known, digits=min(9, max(0, known.digits)))


FINAL_ACCURACY = "final_accuracy"
"""The metric of `ImageClassification` that is the accuracy of the last epoch, whose weights are kept and exported."""

ACCURACY = Measure("accuracy", "accuracy", higher_is_better=True, items="images", percent=True)
PERPLEXITY = Measure("perplexity", "perplexity", higher_is_better=False, items="words")
BITS_PER_CHARACTER = Measure("bits_per_character", "bits per character", False, "characters", digits=3)
BLEU = Measure("bleu", "BLEU", higher_is_better=True, items="sentences")


def measure_of(evaluator: object) -> Measure:
    """The measure that an evaluator offers; `ACCURACY` where it offers none."""
    own = getattr(evaluator, "measure", None)
    return own if isinstance(own, Measure) else ACCURACY


def in_todays_words(finish: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a finish as it is written today, whichever version wrote it.

    Before there were other measures, a final training had an "accuracy" where it has a "score" now. What is missing or
    of another type is left as it is: a store may come from anywhere.
    """
    networks = finish.get("networks")
    if not isinstance(networks, list | tuple):
        return {**finish, "measure": Measure.from_json(finish.get("measure")).to_json()}
    return {
        **finish,
        "measure": Measure.from_json(finish.get("measure")).to_json(),
        "networks": [
            {**n, "finals": [_scored(final) for final in n["finals"]]}
            if isinstance(n, Mapping) and isinstance(n.get("finals"), list | tuple)
            else n
            for n in networks
        ],
    }


def _scored(final: Any) -> Any:
    if not isinstance(final, Mapping) or "accuracy" not in final:
        return final
    return {"score" if name == "accuracy" else name: value for name, value in final.items()}


@runtime_checkable
class Finishable(Evaluator, Protocol):
    """An evaluator whose children can be finished: tuned, trained for longer and tested. A frozen dataclass with a
    field for each setting that a plan varies, and the field `epochs`.

    It may also offer:

    - `measure`, a `Measure`: the number of `test` by which networks are compared (default: `ACCURACY`);
    - `baseline(parameters, task) -> module`, a hand-designed network of about that size, and `baseline_name`, what a
      person calls it ("LSTM"). Without a baseline images have the residual network of `archsmith.nn.resnet`, and others
      are finished without one, which is said. A search that began with known points has the first of them in any case.
    """

    @property
    def epochs(self) -> int:
        """How long a child is trained in the search; a field, so that it can be replaced."""
        ...

    def task(self) -> AnyTask:
        """What its children are built for."""
        ...

    def train(self, child: Child, context: Context, *, all_data: bool = False) -> Result:
        """Train `child.model` in place for `epochs` epochs, from `context.seed`; `all_data` adds the validation set to the
        training set, and is given only where a plan asks for that."""
        ...

    def test(self, model: torch.nn.Module, device: str = "cpu") -> Mapping[str, float]:
        """The metrics on the test set, that of `measure` among them. Where it is a share of the items, "count" says of how
        many: without it no margin for the size of the test set is taken."""
        ...


def missing_of(evaluator: Any) -> str | None:
    """What an evaluator lacks to be `Finishable`, for a message, or None."""
    for name in ("task", "train", "test"):
        if not callable(getattr(evaluator, name, None)):
            return f"no method {name}"
    if not dataclasses.is_dataclass(evaluator) or "epochs" not in _fields(evaluator):
        return "no field epochs; a finish changes settings by dataclasses.replace"
    return None


@dataclass(frozen=True)
class FinishPlan:
    """How a search is finished. The same plan is carried out for the found network and for those beside it.

    Args:
        top: how many of the search's best architectures are trained once more to choose the winner.
        scale: settings of the evaluator to multiply, by factors, such as `{"learning_rate": (0.5, 2.0)}`; a whole
            number stays one, and None stays None.
        grid: settings of the evaluator to replace, by values, such as `{"batch_norm_epsilon": (1e-3,)}`.
        one_at_a_time: vary one setting and leave the others as they are, in place of every combination.
        tuning_epochs: the epochs of a training that is there to choose by (None: those of the search).
        epochs: the epochs of a final training (None: three times those of the search).
        stretch: settings of the evaluator that count epochs: in final trainings they are as many times larger as those
            are longer, such as `("decay_after",)`, or a rate that falls by the epoch would be gone long before the end.
        final: settings of the evaluator to replace in final trainings alone, such as `{"max_train": None}` to learn
            from all the data after a search on a part of it.
        full_epochs: what `epochs` would be if there were time for it, where it had to be fewer; this is said beside all
            results.
        seeds: how many final trainings each network gets.
        all_data: whether final trainings learn from the validation set too. Nothing is left then to choose a model
            by, and the first seed's is exported.
        space: options of the space to replace in every training of the finish, such as `{"cells": 6, "filters": 32}`:
            what was searched in small networks is tuned and trained in large ones. The answers stay, so an option must
            not change what the space asks.
        trained: whether the found network is the search's best trial as it stands, with the weights that the search kept,
            and nothing of it is trained again: what evolution with inherited weights gives. The same network trained anew
            by this plan stands beside it.
    """

    top: int = 3
    scale: Mapping[str, Sequence[float]] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    one_at_a_time: bool = True
    tuning_epochs: int | None = None
    epochs: int | None = None
    final: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    all_data: bool = False
    stretch: Sequence[str] = ()
    space: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False
    full_epochs: int | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        if not isinstance(self.trained, bool):
            raise UsageError(f"trained of a finish plan must be True or False, got {self.trained!r}")
        if self.trained and (self.space or self.all_data):
            raise UsageError(
                "a finish plan takes the network as the search trained it (trained=True), or trains larger ones (space) or "
                "on the validation images too (all_data), not both"
            )
        if not isinstance(self.space, Mapping):
            raise UsageError(
                f'space of a finish plan must map options of the space to values, such as {{"cells": 6}}, got {self.space!r}'
            )
        if isinstance(self.stretch, str):
            raise UsageError(
                f'stretch of a finish plan must list settings, such as ("decay_after",), got {self.stretch!r}'
            )
        for name in ("top", "seeds", "tuning_epochs", "epochs", "full_epochs"):
            value = getattr(self, name)
            if value is None and name.endswith("epochs"):
                continue
            whole_number(value, f"{name} of a finish plan", 1)
        for name in ("scale", "grid"):
            varied = getattr(self, name)
            if not isinstance(varied, Mapping) or any(isinstance(v, str | int | float) for v in varied.values()):
                raise UsageError(
                    f"{name} of a finish plan must map settings to lists of values, such as "
                    f'{{"learning_rate": (0.5, 2.0)}}, got {varied!r}'
                )
        if both := sorted(set(self.scale) & set(self.grid)):
            raise UsageError(f"a finish plan may scale a setting or replace it, not both: {both[0]!r}")

    @classmethod
    def desk(cls) -> FinishPlan:
        """Minutes on two cores: the evaluator's own settings and six around them, one setting varied at a time."""
        return cls(
            scale={"learning_rate": (0.5, 2.0), "weight_decay": (0.2, 5.0)},
            grid={"batch_norm_epsilon": (1e-3,), "schedule": ("step",), "decay_at": ((0.7, 0.9),)},
        )

    @classmethod
    def paper(cls) -> FinishPlan:
        """The paper's four settings, every combination. It publishes neither values nor epochs: these are ours; 300
        epochs are those of DenseNet, whose recipe it follows."""
        return cls(
            top=1,
            scale={"learning_rate": (0.5, 2.0), "weight_decay": (0.5, 2.0)},
            grid={"batch_norm_epsilon": (1e-3,), "decay_at": ((0.4, 0.7), (0.6, 0.85))},
            one_at_a_time=False,
            epochs=300,
            seeds=5,
        )

    @classmethod
    def text_desk(cls) -> FinishPlan:
        """The same for language models: the evaluator's own settings and eight around them, one varied at a time."""
        return cls(
            top=2,
            scale={"learning_rate": (0.5, 2.0), "initialisation": (0.5, 2.0), "decay_after": (0.5,)},
            grid={"embedding_dropout": (0.1,), "dropout": (0.2,), "recurrent_dropout": (0.1,)},
            stretch=("decay_after",),
        )

    @classmethod
    def text_paper(cls) -> FinishPlan:
        """The paper's settings of a language model, every combination. It publishes no values: ours lie around those
        of the medium and the large LSTM of Zaremba et al. (2014) and of Gal and Ghahramani (2016), and 55 epochs are
        the large one's."""
        return cls(
            top=1,
            scale={"learning_rate": (0.5, 1.5)},
            grid={
                "initialisation": (0.04, 0.1),
                "embedding_dropout": (0.2,),
                "dropout": (0.35, 0.65),
                "recurrent_dropout": (0.25,),
                "decay_after": (14,),
            },
            one_at_a_time=False,
            epochs=55,
            seeds=5,
            stretch=("decay_after",),
        )

    @classmethod
    def for_evaluator(cls, evaluator: Any) -> FinishPlan:
        """The desk preset that suits what an evaluator measures, without the settings that it does not have.

        Of an evaluator that archsmith does not ship nothing is replaced, since its settings of the same names may mean
        something else: its learning rate and weight decay are scaled.
        """
        plan = cls.desk() if measure_of(evaluator).percent else cls.text_desk()
        if not type_name(type(evaluator)).startswith("training."):
            scale = {name: cls.desk().scale[name] for name in ("learning_rate", "weight_decay")}
            plan = cls(top=plan.top, scale=scale)
        return plan.fitting(evaluator)

    def fitting(self, evaluator: Any) -> FinishPlan:
        """This plan without the settings that the evaluator does not have, or that cannot be scaled as it has them."""
        have = _fields(evaluator)
        return dataclasses.replace(
            self,
            scale={k: v for k, v in self.scale.items() if k in have and _is_scaled(getattr(evaluator, k))},
            grid={k: v for k, v in self.grid.items() if k in have},
            final={k: v for k, v in self.final.items() if k in have},
            stretch=tuple(name for name in self.stretch if name in have),
        )

    def stacked(self, space: Space) -> Space:
        """The space with the plan's `space` options, whose networks a finish trains; the space itself without any.

        Raises UsageError when the space has no such option, or not such a value of it.
        """
        if not self.space:
            return space
        for name in self.space:
            if name not in (have := _fields(space)):
                raise UsageError(
                    f"the finish plan changes {name!r} of the space, and {type(space).__name__} has no such option; "
                    f"it has: {', '.join(sorted(have)) or 'none'}"
                )
        changed: Space = dataclasses.replace(space, **self.space)  # type: ignore[type-var]
        return changed

    def points(self, evaluator: Any) -> list[dict[str, Any]]:
        """The settings to try, as fields of the evaluator to replace; the first, empty, is the evaluator as it is.

        `decay_at` is left out where the evaluator's `schedule` is no step: it has no epoch of decay then.
        Raises UsageError when the evaluator lacks a setting.
        """
        varied: dict[str, list[Any]] = {}
        for name in (*self.scale, *self.grid, *self.final, *self.stretch):
            if name not in (have := _fields(evaluator)):
                raise UsageError(
                    f"the finish plan changes {name!r}, and {type(evaluator).__name__} has no such setting; "
                    f"it has: {', '.join(sorted(have))}"
                )
        for name in (*self.scale, *self.grid):
            if name == "decay_at" and getattr(evaluator, "schedule", "step") != "step":
                continue
            own = getattr(evaluator, name)
            if name not in self.scale:
                tried: list[Any] = list(self.grid[name])
            elif own is None:
                continue  # switched off: there is nothing to multiply
            elif not _is_scaled(own):
                raise UsageError(
                    f"the finish plan multiplies {name!r} of {type(evaluator).__name__}, which is {own!r} and no number; "
                    "give its values in grid"
                )
            elif isinstance(own, int) and not isinstance(own, bool):  # epochs stay a whole number, and one at least
                tried = [max(1, round(own * factor)) for factor in self.scale[name]]
            else:
                tried = [own * factor for factor in self.scale[name]]
            varied[name] = [v for i, v in enumerate(tried) if v != own and v not in tried[:i]]
        if self.one_at_a_time:
            return [{}, *({name: v} for name, values in varied.items() for v in values)]
        own_too = [[{}, *({name: v} for v in values)] for name, values in varied.items()]
        return [{k: v for part in point for k, v in part.items()} for point in product(*own_too)]


def epochs_text(epochs: float, plan: Mapping[str, Any]) -> str:
    """The length of a training, for a person: "12 epochs", or "3 of 12 epochs, since the time ran out" if the plan of the finish
    (as JSON) asked for more."""
    full = plan.get("full_epochs")
    if isinstance(full, int) and not isinstance(full, bool) and full > epochs:
        return f"{epochs:,g} of {full:,} epochs, since the time ran out"
    return f"{epochs:,g} epoch{'s' * (epochs != 1)}"


def epochs_of_finals(network: Mapping[str, Any]) -> float | None:
    """The epochs that each final training of a network in the document of a finish took, on average; None where that is
    not on record: a store may come from anywhere."""
    finals = network.get("finals")
    costs = [f.get("cost") for f in finals if isinstance(f, Mapping)] if isinstance(finals, list | tuple) else []
    each = [cost.get("epochs") for cost in costs if isinstance(cost, Mapping)]
    known = [float(n) for n in each if isinstance(n, int | float) and math.isfinite(n) and n > 0]
    return sum(known) / len(known) if known else None


def space_finished(space: Space, finish: Mapping[str, Any] | None) -> Space:
    """The space of the networks in the document of a finish: the run's own, or one with larger networks.

    `finish` is the run's document of that name; None where there is none.
    """
    plan = (finish or {}).get("plan", {})
    options = plan.get("space", {}) if isinstance(plan, Mapping) else {}
    return FinishPlan(space={k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}).stacked(space)


def _is_scaled(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _fields(evaluator: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(evaluator)} if dataclasses.is_dataclass(evaluator) else set()
