"""One look at a test set: on record before anything is seen, and each network tested with the weights that were kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from archsmith._search.record import Record
from archsmith._search.trainings import Outcome, digest_of
from archsmith.core.artifacts import open_artifacts
from archsmith.core.evaluator import DescribesData
from archsmith.core.final import Final
from archsmith.core.finish import Finishable, Measure
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build_decided


def look(record: Record, data: str, models: Sequence[str | None]) -> list[dict[str, Any]]:
    """Put the look on record, unless it goes on with one that was killed; gives all looks so far, this one the last."""
    looks = list(record.get(f"looks/{data}") or [])
    if not (looks and looks[-1]["models"] == list(models)):
        looks.append({"at": datetime.now(UTC).isoformat(timespec="seconds"), "models": list(models)})
        record.put(f"looks/{data}", looks)
    return looks


def test_set_of(evaluator: Any) -> str:
    """What identifies an evaluator's test images, whatever they are resized to and however few are learned from: the classes,
    how many images there are, and how they were chosen. Two data sets that agree in all that count as one, which tells of
    a look too many and never of one too few."""
    described = evaluator.describe_data() if isinstance(evaluator, DescribesData) else {}
    known = [described.get(name) for name in ("classes", "test", "test_split")]
    return str(evaluator.fingerprint()) if None in known else digest_of(known)


def tested(
    space: Space, genotype: Genotype, outcome: Outcome, evaluator: Finishable, record: Record
) -> Mapping[str, float]:
    """The metrics on the test set; none where the training failed. Raises StoreError when the weights are gone."""
    if outcome.reward is None or outcome.result.artifact is None:
        return {}
    import torch

    from archsmith.nn.batch_norm import set_epsilon

    evaluator, child = build_decided(space, genotype, evaluator)
    module = child.model
    module.load_state_dict(open_artifacts(record.artifacts).get(outcome.result.artifact))
    epsilon = getattr(evaluator, "batch_norm_epsilon", None)
    if epsilon is not None:
        set_epsilon(module, epsilon)
    return dict(evaluator.test(module.eval(), "cuda" if torch.cuda.is_available() else "cpu"))


def final_of(index: int, seed: int, outcome: Outcome, metrics: Mapping[str, float], measure: Measure) -> Final:
    """What came of a training, and of its test."""
    failed, score, loss = outcome.result.failure, metrics.get(measure.name), metrics.get("loss")
    told = None
    if outcome.reward is None:
        told = f"{failed.reason}: {failed.message}" if failed else "stopped"
    elif score is not None and not math.isfinite(score):
        told, score = f"diverged: its test {measure.label} is {score}", None
    return Final(
        index=index,
        seed=seed,
        score=score,
        loss=loss if loss is not None and math.isfinite(loss) else None,
        validation=outcome.result.metrics.get(measure.name),
        artifact=outcome.result.artifact,
        failure=told,
        cost=outcome.result.cost,
    )
