"""A network or a cell that a search found, on other data than it was found on: the one entry for both."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from archsmith._describe import find
from archsmith._search import Run
from archsmith._search.record import Record, RunRecord
from archsmith._search.trainings import Watch, digest_of
from archsmith._transfer import cells as of_cells
from archsmith._transfer import images as of_images
from archsmith._transfer.cell import cell_of
from archsmith._transfer.contest import Asked, prepare
from archsmith._transfer.estimate import Estimate, estimate_cell, estimate_images
from archsmith._transfer.found import Carryable, Source, TrainedModel, source_of
from archsmith._transfer.record import folder_record
from archsmith._transfer.result import Transferred
from archsmith._transfer.scale import evaluator_for
from archsmith._transfer.scaling import Scale
from archsmith.core.errors import UsageError
from archsmith.core.executor import Executor
from archsmith.core.finish import Finishable
from archsmith.core.global_state import generators_kept
from archsmith.core.shown import base_name
from archsmith.executors import InProcess, ProcessPool
from archsmith.spaces import RecurrentCell
from archsmith.spaces.recurrent_cell import KIND


@generators_kept()
def transfer(
    thing: Carryable,
    to: str | None = None,
    data: str | None = None,
    *,
    how: str | Sequence[str] | None = None,
    cells: int | None = None,
    filters: int | None = None,
    multiply_adds: int | None = None,
    width: float | None = None,
    max_train: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    tune: bool = False,
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
    """Train what a search found on other data, beside what it must be compared with, over several seeds; test once.

    A network of images goes to other images (`data`), beside a hand-designed one of its size, and random search's best
    where the run has one: see `archsmith._transfer.images`. A recurrent cell goes to characters or into a translator
    (`to`), beside the LSTM of its size: see `archsmith._transfer.cells`.

    Every training is recorded as it ends: after Ctrl-C or a kill, the same call goes on. A second call gives the
    stored result and looks at nothing.

    Args:
        thing: a run, whose best it is; an exported model of images (`archsmith.load`); the name of a discovered network
            or cell; or a genotype or architecture, as `describe` takes them.
        to: of a cell, "chars" (a character language model; the default) or "translation".
        data: of images, a folder, an .npz or a name, as `ImageClassification` takes them. Of a cell a text, or for
            translation a folder or two aligned files divided by a comma; None: the scale's own.
        how: of images, any of "scratch", "fine-tune" and "features". None: all that can be; the last two begin with the
            weights of `finish`, or of an exported model.
        cells, filters, width, multiply_adds: of images, as large as this (from scratch): N and F of a network of cells, as
            many times the filters of mobile blocks, or as many filters as the multiply-adds of one image allow.
        max_train, size, channels: of images, as in `ImageClassification`. Where weights are begun with, the size and the
            channels are theirs unless given.
        tune: of images, whether three learning rates are tried for each network and way, and validation chooses.
        scale: of a cell, "desk", "paper", or for characters "paper-large"; see `archsmith._transfer.scale`.
        seeds: trainings of each network.
        epochs: of each training (default: of images 20, of a cell the scale's own).
        seconds: choose the epochs so that all trainings take about this long; needs a few seconds to find out.
        seed: the first of all seeds.
        workers: trainings side by side; more than one is a pool of processes, one thread each.
        executor: where it trains, in place of `workers`.
        folder: where a transfer without a run is recorded (default: transfer-NAME-DATA here); a run has its store.
        evaluator: in place of `data` and all settings of the training; of images with `fingerprint()`.
        watch: called with what it is doing.

    Raises:
        UsageError: the thing is no network of images and no cell, or the arguments do not go together.
        RunLocked: another process writes the record.
        ChildFailed: no training of the found network came to its end.
    """
    _check_numbers(seeds=seeds, workers=workers)
    if seconds is not None and (epochs is not None or not 0 < seconds < math.inf):
        raise UsageError(
            f"seconds of a transfer must be above 0, and stands in place of epochs; got seconds={seconds!r} and epochs={epochs!r}"
        )
    if isinstance(thing, Run) and folder is not None:
        raise UsageError("a run's transfer is recorded in its store; folder is for networks and cells without a run")
    asked = asked_for(how, cells, filters, multiply_adds, width, tune, epochs, max_train, size, channels)
    if to is not None or is_cell(thing):
        _refuse_of_images(asked)
        cell = cell_of(thing)  # type: ignore[arg-type]  # an exported model is refused by it
        to = "chars" if to is None else to
        if evaluator is None:
            evaluator = evaluator_for(to, scale, data, epochs)
        with recorded(thing, folder, cell.name, to) as record:
            return of_cells.carry_over(
                cell,
                evaluator,
                record,
                executor if executor is not None else _executor(workers),
                seed=seed,
                seeds=seeds,
                seconds=seconds,
                workers=workers,
                watch=watch,
            )
    _refuse_of_cells(scale)
    source = source_of(thing)
    prepare(source, data, asked, evaluator)  # refuses what cannot be, before there is a folder
    with recorded(thing, folder, source.name, data_name(data, evaluator)) as record:
        source = of_images.kept_source(source, record)
        if seconds is not None:
            asked, evaluator = _within(seconds, source, data, asked, evaluator, seeds, workers, record)
        contest = prepare(source, data, asked, evaluator)
        key = f"result/{of_images.result_key(source, contest, seed, seeds, tune)}"
        stored = record.get(key)
        if stored is not None:
            return Transferred.from_json(stored)
        used = executor if executor is not None else _executor(workers)
        done = of_images.carry_over(source, contest, record, used, seed=seed, seeds=seeds, tune=tune, watch=watch)
        record.put(key, done.to_json())
    return done


def estimate(
    thing: Carryable,
    to: str | None = None,
    data: str | None = None,
    *,
    how: str | Sequence[str] | None = None,
    cells: int | None = None,
    filters: int | None = None,
    multiply_adds: int | None = None,
    width: float | None = None,
    max_train: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    tune: bool = False,
    scale: str = "desk",
    seeds: int = 3,
    epochs: int | None = None,
    evaluator: Finishable | None = None,
    batches: int = 1,
) -> Estimate:
    """What `transfer` with the same arguments would take. Trains one batch and then `batches` that are timed; one alone
    where that takes long. A training is reckoned with one thread, as in a pool of processes."""
    _check_numbers(seeds=seeds)
    asked = asked_for(how, cells, filters, multiply_adds, width, tune, epochs, max_train, size, channels)
    if to is not None or is_cell(thing):
        _refuse_of_images(asked)
        cell = cell_of(thing)  # type: ignore[arg-type]
        own = evaluator if evaluator is not None else evaluator_for(to or "chars", scale, data, epochs)
        return estimate_cell(cell, own, seeds, batches)
    _refuse_of_cells(scale)
    contest = prepare(source_of(thing), data, asked, evaluator)
    return estimate_images(contest, seeds, batches, trainings_each=seeds + (len(of_images.RATES) if tune else 0))


def is_cell(thing: Any) -> bool:
    """Whether it is a recurrent cell, or a run that searches some."""
    if isinstance(thing, Run):
        return str(thing.config["space"]["type"]) == f"spaces.{RecurrentCell.__name__}"
    if isinstance(thing, TrainedModel) or hasattr(thing, "network"):
        return False
    architecture = find(thing).architecture
    return isinstance(architecture, Mapping) and architecture.get("kind") == KIND


def asked_for(
    how: str | Sequence[str] | None,
    cells: int | None,
    filters: int | None,
    multiply_adds: int | None,
    width: float | None,
    tune: bool,
    epochs: int | None,
    max_train: int | None,
    size: int | None,
    channels: int | None,
) -> Asked:
    """What was asked for of images, checked as far as it can be before there are any."""
    ways = None if how is None else (how,) if isinstance(how, str) else tuple(how)
    return Asked(ways, Scale(cells, filters, multiply_adds, width), tune, epochs, max_train, size, channels)


def data_name(data: str | None, evaluator: Any) -> str:
    """What a folder is called after the data: their name, or the last part of their path."""
    path = str(data if data is not None else getattr(evaluator, "data", "images"))
    return base_name(path) or "images"


@contextmanager
def recorded(thing: Any, folder: str | os.PathLike[str] | None, name: str, what: str) -> Iterator[Record]:
    """Where a transfer is recorded: with a run in its store, else in a folder."""
    if isinstance(thing, Run):
        yield RunRecord(thing, "transfer", "carry its network over when that has ended")
    else:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "-", f"transfer-{name}-{what}")
        with folder_record(Path(folder) if folder is not None else Path(plain)) as record:
            yield record


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} of a transfer must be a whole number of at least 1, got {value!r}")


def _refuse_of_images(asked: Asked) -> None:
    if replace(asked, epochs=None) != Asked():
        raise UsageError(
            "how, cells, filters, width, multiply-adds, tune, max-train, size and channels are for networks of images; a cell is "
            "carried over by to, data, scale and epochs"
        )


def _refuse_of_cells(scale: str) -> None:
    if scale != "desk":
        raise UsageError(
            f"scale={scale!r} is for cells; a network of images is scaled by cells, filters, width or multiply-adds, and trained "
            "for longer with epochs"
        )


def _executor(workers: int) -> Executor:
    return InProcess() if workers == 1 else ProcessPool(workers)


def _within(
    seconds: float,
    source: Source,
    data: str | None,
    asked: Asked,
    evaluator: Finishable | None,
    seeds: int,
    workers: int,
    record: Record,
) -> tuple[Asked, Finishable | None]:
    """As many epochs as fit, one at the least. The number is on record, so that a second call trains the same."""
    contest = prepare(source, data, asked, evaluator)
    key = digest_of(
        {
            "seconds": seconds,
            "seeds": seeds,
            "workers": workers,
            "contest": of_images.result_key(source, contest, 0, seeds, asked.tune),
        }
    )
    epochs = record.get(f"epochs/{key}")
    if epochs is None:
        each = seeds + (len(of_images.RATES) if asked.tune else 0)
        found = estimate_images(contest, seeds, 4, threads=1 if workers > 1 else None, trainings_each=each)
        an_epoch = each * found.steps_per_epoch * sum(n.step_seconds for n in found.networks)
        side_by_side = min(workers, each * len(found.networks))
        fitting = of_cells.SPARE * seconds * side_by_side / an_epoch if an_epoch else of_cells.MOST_EPOCHS
        epochs = max(1, math.floor(min(fitting, of_cells.MOST_EPOCHS)))
        record.put(f"epochs/{key}", epochs)
    if evaluator is None:
        return replace(asked, epochs=epochs), None
    return asked, replace(evaluator, epochs=epochs)  # type: ignore[type-var]
