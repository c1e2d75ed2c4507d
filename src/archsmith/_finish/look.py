"""The one look at the test set, when nothing is left to choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from archsmith._finish.contenders import Contender
from archsmith._finish.result import ExportedModel, Finished, FinishedNetwork
from archsmith._finish.training import Trained, Trainings, trained_module, writing
from archsmith._search import Run
from archsmith._search.hand_designed import HandDesigned, Standard
from archsmith._search.trainings import TrainingProgress
from archsmith.core import temperatures
from archsmith.core.child import Task
from archsmith.core.comparison import compare
from archsmith.core.config import to_config
from archsmith.core.data_records import DOCUMENT, data_record
from archsmith.core.errors import UsageError
from archsmith.core.final import Final
from archsmith.core.finish import ACCURACY, Finishable, FinishPlan, Measure, measure_of
from archsmith.core.temperatures import FittedTemperature, GivesPredictions
from archsmith.core.trial import Cost
from archsmith.metrics.fitted_temperature import fitted_temperature

if TYPE_CHECKING:
    import torch


Tester: TypeAlias = (
    "Callable[[Contender, Finishable, torch.nn.Module], tuple[Mapping[str, float], FittedTemperature | None]]"
)
"""Tests a model of a contender; gives the metrics, and the temperature that suits the model if there is one."""


def look(
    run: Run,
    evaluator: Finishable,
    trainings: Trainings,
    contenders: Sequence[Contender],
    plan: FinishPlan,
    candidates: Mapping[str, Sequence[str]],
    notes: list[str],
    *,
    test: Tester | None = None,
    again: bool = True,
) -> Finished:
    """Look at the test set, with the run held: the look is on record before anything is seen.

    Args:
        test: how a model is tested (default: by its evaluator).
        again: whether a further test of the same models counts as another look; it gives the same numbers.
    """
    test = test if test is not None else _test
    models = [t.result.artifact for c in contenders for t in c.finals if t.reward is not None]
    if trainings.watch is not None:
        trainings.watch(TrainingProgress("testing", f"{len(models)} models", 0, len(models)))
    with writing(run) as writer:
        if record := data_record(evaluator):  # of a run from before there were any
            writer.put_document(DOCUMENT, record)
        looks = list(writer.document("finish-looks") or [])
        same = bool(looks) and looks[-1]["models"] == models
        resumed = same and not (looks[-1]["done"] and again)  # a kill while it looked
        if not resumed:
            looks.append({"at": datetime.now(UTC).isoformat(timespec="seconds"), "models": models, "done": False})
            writer.put_document("finish-looks", looks)
        networks, count, measure = [], 0, tested_by(evaluator)
        fitted: dict[str, Any] = dict(writer.document(temperatures.DOCUMENT) or {})
        for contender in contenders:
            finals = []
            for i, trained in enumerate(contender.finals):
                metrics: Mapping[str, float] = {}
                if trained.reward is not None:
                    assert run.store.artifacts is not None
                    settled, module = trained_module(trained, trainings.set(trained.wanted), run.store.artifacts)
                    metrics, temperature = test(contender, settled, module)
                    count = int(metrics.get("count", 0))
                    if not plan.all_data and temperature is not None:
                        fitted[str(trained.result.artifact)] = temperature.to_json()
                finals.append(_final(i, trained, metrics, measure, plan))
            networks.append(_network(contender, finals))
        found = networks[0]
        finished = Finished(
            run=run.name,
            at=looks[-1]["at"],
            plan=to_config(plan),
            candidates=candidates,
            networks=networks,
            comparisons=[
                compare(found.scores, n.scores, n.name, count, measure=measure, called=c.called, after=_after(found, n))
                for c, n in zip(contenders[1:], networks[1:], strict=True)
            ],
            model=_exported(contenders[0].finals, plan),
            test_count=count,
            looks=len(looks),
            notes=notes,
            measure=measure,
        )
        looks[-1] = {**looks[-1], "done": True, "means": {n.name: n.mean for n in networks}}
        writer.put_document("finish-looks", looks)
        if fitted:
            writer.put_document(temperatures.DOCUMENT, fitted)
        writer.put_document("finish", finished.to_json())
    return finished


def _test(
    contender: Contender, evaluator: Finishable, model: torch.nn.Module
) -> tuple[Mapping[str, float], FittedTemperature | None]:
    return _tested(evaluator, model, tested_by(evaluator)), _temperature(evaluator, model)


def _tested(evaluator: Finishable, model: torch.nn.Module, measure: Measure) -> Mapping[str, float]:
    """What the evaluator's test gives. Raises UsageError when what it measures is not among it."""
    metrics = evaluator.test(model)
    if measure.name not in metrics:
        raise UsageError(
            f"the test of {type(evaluator).__name__} must give {measure.name!r}, by which networks are compared, and it gave: "
            f"{', '.join(sorted(metrics))}. Give the evaluator the attribute measure, an archsmith.core.finish.Measure of "
            "what it tests by, and finish again, which is the same look at the test set"
        )
    return metrics


def _temperature(evaluator: Finishable, model: torch.nn.Module) -> FittedTemperature | None:
    """The temperature that suits the model's validation predictions; None if there are none, too few, or none that are finite."""
    if not isinstance(evaluator, GivesPredictions):
        return None
    with suppress(UsageError):  # probabilities that are NaN; its score says so
        return fitted_temperature(evaluator.predictions(model, "validation"))
    return None


def tested_by(evaluator: Finishable) -> Measure:
    """The evaluator's measure; if it names none, the accuracy."""
    measure, task = measure_of(evaluator), evaluator.task()
    is_of_images = isinstance(task, Task) and len(task.input_shape) == 3
    return measure if is_of_images or measure != ACCURACY else replace(ACCURACY, items="examples")


def _after(found: FinishedNetwork, other: FinishedNetwork) -> str:
    """The epochs of two networks, as a phrase for their comparison; empty if one of them is unknown."""
    if not found.epochs or not other.epochs:
        return ""
    if found.epochs == other.epochs:
        return f"after {found.epochs:,g} epoch{'s' * (found.epochs != 1)} of each"
    return f"after {found.epochs:,g} epochs against {other.epochs:,g}"


def _final(index: int, trained: Trained, metrics: Mapping[str, float], measure: Measure, plan: FinishPlan) -> Final:
    result, score = trained.result, metrics.get(measure.name)
    failure = None
    if trained.reward is None:
        failure = f"{result.failure.reason}: {result.failure.message}" if result.failure else "stopped"
    elif score is not None and not math.isfinite(score):  # perplexity overflows before a loss does
        failure, score = f"diverged: its test {measure.label} is {score}", None
    return Final(
        index=index,
        seed=trained.wanted.seed,
        score=score,
        loss=_finite(metrics.get("loss")),
        validation=None if plan.all_data else trained.reward,
        artifact=result.artifact,
        failure=failure,
        cost=result.cost,
    )


def _network(contender: Contender, finals: Sequence[Final]) -> FinishedNetwork:
    assert contender.network is not None
    costs = [t.result.cost for t in contender.tried.values()]
    return FinishedNetwork(
        name=contender.name,
        origin=contender.origin,
        genotype=None
        if isinstance(contender.network.space, HandDesigned | Standard)
        else contender.network.genotype.to_json(),
        parameters=contender.parameters,
        settings=dict(contender.settings),
        finals=finals,
        trainings=len(contender.tried),
        failures=sum(t.reward is None for t in contender.tried.values()),
        tuning=Cost(sum(c.seconds for c in costs), sum(c.epochs for c in costs)),
    )


def _exported(found: Sequence[Trained], plan: FinishPlan) -> ExportedModel:
    """Chosen without the test set: it measures what would be chosen, and must not choose."""
    done = [(i, t) for i, t in enumerate(found) if t.reward is not None]
    (index, chosen), why = done[0], "the first seed: nothing was held out to choose by"
    if not plan.all_data:
        index, chosen = max(done, key=lambda pair: pair[1].reward or 0.0)
        why = "the seed with the highest validation reward"
    if plan.trained:
        why = "the search's best trial by validation, as it was trained there"
    assert chosen.result.artifact is not None
    return ExportedModel(index, chosen.wanted.seed, chosen.result.artifact, why)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
