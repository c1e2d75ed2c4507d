"""A recurrent cell in place of the LSTM, on another task than it was searched on (Zoph and Le 2017, section 4.2).

The found cell and the LSTM are made equally large (translators: of equal computation), trained by the same settings
from the same seeds, and tested once, when all of them have ended.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archsmith._describe import Thing
from archsmith._search import Run
from archsmith._search.record import Record, RunRecord
from archsmith._search.trainings import TrainingProgress, Watch, digest_of
from archsmith._transfer.cell import BASELINE, FoundCell, OneCell, cell_of, multiply_adds_of, parameters_of, sized
from archsmith._transfer.estimate import estimate_of
from archsmith._transfer.record import folder_record
from archsmith._transfer.result import Transferred, TransferredNetwork
from archsmith._transfer.scale import evaluator_for, steps_of
from archsmith._transfer.training import Trained, Trainings, Wanted
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.comparison import compare
from archsmith.core.config import to_config
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.executor import Executor, derive_seed
from archsmith.core.final import Final
from archsmith.core.finish import Finishable, Measure, measure_of
from archsmith.core.space import build
from archsmith.executors import InProcess, ProcessPool

SPARE = 0.75  # of the time, for training: validating, testing and starting workers take the rest
MOST_EPOCHS = 300


def transfer(
    thing: Run | Thing,
    to: str = "chars",
    data: str | None = None,
    *,
    scale: str = "desk",
    seeds: int = 3,
    epochs: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    workers: int = 1,
    executor: Executor | None = None,
    folder: str | os.PathLike[str] | None = None,
    evaluator: Finishable | None = None,
    watch: Watch | None = None,
) -> Transferred:
    """Train a recurrent cell and the LSTM of its size on another task, over several seeds, and test once.

    Every training is recorded as it ends: after Ctrl-C or a kill, the same call goes on. A second call gives the
    stored result and looks at nothing.

    Args:
        thing: a run, whose best cell it is; the name of a discovered cell; or a genotype, as `describe` takes them.
        to: "chars" (a character language model) or "translation".
        data: a text, or for translation a folder or two aligned files divided by a comma; None: the scale's own.
        scale: "desk", "paper", or for characters "paper-large"; see `archsmith._transfer.scale`.
        seeds: trainings of each network.
        epochs: of each training, in place of the scale's own.
        seconds: choose the epochs so that all trainings take about this long; needs a few seconds to find out.
        seed: the first of all seeds.
        workers: trainings side by side; more than one is a pool of processes, one thread each.
        executor: where it trains, in place of `workers`.
        folder: where a transfer without a run is recorded (default: transfer-CELL-TO here); a run has its store.
        evaluator: in place of `to`, `data`, `scale` and `epochs`.
        watch: called with what it is doing.

    Raises:
        UsageError: the thing is no recurrent cell, or the arguments do not go together.
        RunLocked: another process writes the record.
        ChildFailed: no training of the found cell came to its end.
    """
    for name, value in (("seeds", seeds), ("workers", workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} of a transfer must be a whole number of at least 1, got {value!r}")
    if seconds is not None and (epochs is not None or not 0 < seconds < math.inf):
        raise UsageError(
            f"seconds of a transfer must be above 0, and stands in place of epochs; got seconds={seconds!r} and epochs={epochs!r}"
        )
    if isinstance(thing, Run) and folder is not None:
        raise UsageError("a run's transfer is recorded in its store; folder is for cells without a run")
    cell = cell_of(thing)
    if evaluator is None:
        evaluator = evaluator_for(to, scale, data, epochs)
    where = Path(folder) if folder is not None else Path(f"transfer-{re.sub(r'[^A-Za-z0-9_.-]', '-', cell.name)}-{to}")
    with _recorded(thing, where) as record:
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
        with closing(executor if executor is not None else _executor(workers)) as used:
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


@contextmanager
def _recorded(thing: Any, folder: Path) -> Iterator[Record]:
    if isinstance(thing, Run):
        yield RunRecord(thing, "transfer", "carry its network over when that has ended")
    else:
        with folder_record(folder) as record:
            yield record


def _executor(workers: int) -> Executor:
    return InProcess() if workers == 1 else ProcessPool(workers)


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


# --- the test ---------------------------------------------------------------------------------------------------------


def _test(
    cell: FoundCell, networks: dict[str, OneCell], evaluator: Finishable, outcomes: list[Trained], record: Record
) -> Transferred:
    """Look at the test set: the look is on record before anything is seen."""
    measure = measure_of(evaluator)
    models = [t.result.artifact for t in outcomes if t.reward is not None]
    data = evaluator.fingerprint()  # type: ignore[attr-defined]
    looks = list(record.get(f"looks/{data}") or [])
    if not (looks and looks[-1]["models"] == models):  # else a kill while it looked
        looks.append({"at": datetime.now(UTC).isoformat(timespec="seconds"), "models": models})
        record.put(f"looks/{data}", looks)
    tested, count, notes = [], 0, list[str]()
    for name, network in networks.items():
        mine = [t for t in outcomes if t.wanted.name == name]
        scores = []
        for trained in mine:
            metrics = _tested(trained, evaluator, record) if trained.reward is not None else {}
            count = int(metrics.get("count", count))
            scores.append(_score(trained, metrics, measure))
        if failed := sum(t.reward is None for t in mine):
            notes.append(f"{failed} of {len(mine)} trainings of {name} failed.")
        tested.append(
            TransferredNetwork(
                name, network.hidden, parameters_of(network, evaluator), multiply_adds_of(network, evaluator), scores
            )
        )
    equal = "equal size" if measure.name != "bleu" else "equal computation"
    comparison = compare(
        tested[0].by_seed,
        tested[1].by_seed,
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
        cell=f"{cell.name} ({cell.origin})" if cell.origin != cell.name else cell.name,
        architecture=cell.architecture,
        at=looks[-1]["at"],
        evaluator=to_config(evaluator),
        data=described,
        networks=tested,
        comparison=comparison,
        measure=measure,
        test_count=count,
        looks=len(looks),
        notes=notes,
    )


def _tested(trained: Trained, evaluator: Finishable, record: Record) -> dict[str, float]:
    """The metrics on the test set. Raises StoreError when the weights are gone."""
    import torch

    network, artifact = trained.wanted.network, trained.result.artifact
    assert artifact is not None
    module = build(network, network.genotype, evaluator.task()).model
    module.load_state_dict(ArtifactFolder(record.artifacts).get(artifact))
    metrics = evaluator.test(module.eval(), "cuda" if torch.cuda.is_available() else "cpu")
    return dict(metrics)


def _score(trained: Trained, metrics: dict[str, float], measure: Measure) -> Final:
    result, failed = trained.result, trained.result.failure
    score = metrics.get(measure.name)
    if score is not None and not math.isfinite(score):
        score = None
    return Final(
        index=trained.wanted.index,
        seed=trained.wanted.seed,
        score=score,
        loss=metrics.get("loss"),
        validation=result.metrics.get(measure.name),
        artifact=result.artifact,
        failure=None if trained.reward is not None else f"{failed.reason}: {failed.message}" if failed else "stopped",
        cost=result.cost,
    )
