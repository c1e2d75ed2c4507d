"""A recurrent cell in place of the LSTM, on another task than it was searched on (Zoph and Le 2017, section 4.2).

The found cell and the LSTM are made equally large (translators: of equal computation), trained by the same settings
from the same seeds, and tested once, when all of them have ended.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from typing import Any

from archsmith._search.record import Record
from archsmith._search.trainings import Outcome, TrainingProgress, Watch, digest_of
from archsmith._transfer.cell import BASELINE, FoundCell, OneCell, multiply_adds_of, parameters_of, sized
from archsmith._transfer.estimate import estimate_of
from archsmith._transfer.result import Transferred, TransferredNetwork
from archsmith._transfer.scale import steps_of
from archsmith._transfer.testing import final_of, look, tested
from archsmith._transfer.training import Trained, Trainings, Wanted
from archsmith.core.comparison import compare
from archsmith.core.config import to_config
from archsmith.core.errors import ChildFailed
from archsmith.core.executor import Executor, derive_seed
from archsmith.core.finish import Finishable, measure_of

SPARE = 0.75  # of the time, for training: validating, testing and starting workers take the rest
MOST_EPOCHS = 300


def carry_over(
    cell: FoundCell,
    evaluator: Finishable,
    record: Record,
    executor: Executor,
    *,
    seed: int,
    seeds: int,
    seconds: float | None,
    workers: int,
    watch: Watch | None,
) -> Transferred:
    """Train the cell and the LSTM beside it, what is not on record, and test once. The executor is closed.

    Raises ChildFailed when no training of the found cell came to its end.
    """
    with closing(executor) as used:
        networks = sized(cell, evaluator)
        if seconds is not None:
            evaluator = _within(seconds, networks, evaluator, seeds, workers, record)
        key = digest_of(
            {
                "cell": dict(cell.architecture),
                "evaluator": {**to_config(evaluator), "data": evaluator.fingerprint()},  # type: ignore[attr-defined]
                "seeds": [seed, seeds],
            }
        )
        stored = record.get(f"result/{key}")
        if stored is not None:
            return Transferred.from_json(stored)
        wanted = [
            Wanted(name, network, i, derive_seed(seed, "transfer", i))
            for i in range(seeds)
            for name, network in networks.items()
        ]
        outcomes = Trainings(record, evaluator, used, watch).train(wanted)
    found = [t for t in outcomes if t.wanted.name == cell.name]
    if all(t.reward is None for t in found):
        failure = found[0].result.failure
        raise ChildFailed(
            f"no training of {cell.name} came to its end: {failure.message if failure else 'stopped'}. "
            "The test set was not looked at"
        )
    if watch is not None:
        watch(TrainingProgress("testing", f"{len(outcomes)} models", 0, len(outcomes)))
    transferred = _test(cell, networks, evaluator, outcomes, record)
    record.put(f"result/{key}", transferred.to_json())
    return transferred


def _within(
    seconds: float,
    networks: dict[str, OneCell],
    evaluator: Finishable,
    seeds: int,
    workers: int,
    record: Record,
) -> Finishable:
    """The evaluator with as many epochs as fit, one at the least; of a translator, which can count steps, a part of one.

    The number is on record, so that a second call trains the same.
    """
    config = {**to_config(evaluator), "data": evaluator.fingerprint(), "epochs": None}  # type: ignore[attr-defined]
    asked = {"seconds": seconds, "seeds": seeds, "workers": workers, "evaluator": config}
    asked["cells"] = [repr(network) for network in networks.values()]
    key = f"epochs/{digest_of(asked)}"
    epochs = record.get(key)
    if epochs is None:
        found = estimate_of(networks, evaluator, seeds, batches=10, threads=1 if workers > 1 else None)
        epoch_seconds = found.steps_per_epoch * sum(n.step_seconds for n in found.networks)
        epochs = min(SPARE * seconds * min(workers, 2 * seeds) / (seeds * epoch_seconds), MOST_EPOCHS)
        record.put(key, epochs)
    changed: dict[str, Any] = {"epochs": max(1, math.floor(epochs))}
    if epochs < 1 and hasattr(evaluator, "steps"):
        changed["steps"] = max(1, math.floor(epochs * steps_of(evaluator)[0]))
    fitted: Finishable = replace(evaluator, **changed)  # type: ignore[type-var]
    return fitted


def _test(
    cell: FoundCell, networks: dict[str, OneCell], evaluator: Finishable, outcomes: list[Trained], record: Record
) -> Transferred:
    measure = measure_of(evaluator)
    looks = look(record, evaluator.fingerprint(), [t.result.artifact for t in outcomes if t.reward is not None])  # type: ignore[attr-defined]
    results, count, notes = list[TransferredNetwork](), 0, list[str]()
    for name, network in networks.items():
        mine = [t for t in outcomes if t.wanted.name == name]
        scores = []
        for trained in mine:
            outcome = Outcome(trained.result, trained.reward)
            metrics = tested(network, network.genotype, outcome, evaluator, record)
            count = int(metrics.get("count", count))
            scores.append(final_of(trained.wanted.index, trained.wanted.seed, outcome, metrics, measure))
        if failed := sum(t.reward is None for t in mine):
            notes.append(f"{failed} of {len(mine)} trainings of {name} failed.")
        size = (network.hidden, parameters_of(network, evaluator), multiply_adds_of(network, evaluator))
        results.append(TransferredNetwork(name, *size, scores))
    equal = "equal size" if measure.name != "bleu" else "equal computation"
    comparison = compare(
        results[0].by_seed,
        results[1].by_seed,
        BASELINE,
        count,
        measure=measure,
        subject=f"network of {cell.name}",
        called=f"the {BASELINE} of {equal}",
    )
    signature = getattr(evaluator, "bleu_signature", None)
    if signature is not None:
        notes.append(f"BLEU by sacrebleu, {signature()}.")
    described: dict[str, Any] = evaluator.describe_data()  # type: ignore[attr-defined]
    return Transferred(
        subject=f"{cell.name} ({cell.origin})" if cell.origin != cell.name else cell.name,
        architecture=cell.architecture,
        at=looks[-1]["at"],
        evaluator=to_config(evaluator),
        data=described,
        networks=results,
        comparisons=[comparison],
        measure=measure,
        test_count=count,
        looks=len(looks),
        notes=notes,
    )
