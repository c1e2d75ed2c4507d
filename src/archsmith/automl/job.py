"""The whole job on pictures within a time budget: known networks first, a search around them, one long training, one test.

Each stage has its seconds in a plan, which is made once the data are read:

    search      known networks and what the searcher proposes, each trained for a short time
    choosing    the best of them go on from where they stopped
    baseline    what a competent person would have picked, trained in full within its own minutes
    final       the best goes on from where it stopped, while its learning rate falls to zero
    closing     both networks are tested once; the one with the better validation accuracy is exported

Every training is recorded as it ends, so that a killed command goes on. Once the data are read, the first Ctrl-C skips to a short
final training: there is always a model at the end.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from archsmith import rewards
from archsmith._export import check_folder, export
from archsmith._finish.contenders import FOUND, Contender
from archsmith._finish.look import look
from archsmith._finish.result import Finished
from archsmith._finish.training import Network, Trained, Trainings, Wanted
from archsmith._page.document import check_place
from archsmith._search import Run, search
from archsmith._search.data_check import check_same_data
from archsmith._search.known_points import recorded_first
from archsmith._search.session import DEFAULT_STORE, check_enough
from archsmith._search.trainings import TrainingProgress
from archsmith.automl.candidates import search_space, title_of
from archsmith.automl.interruption import Interruption
from archsmith.automl.outcome import Measured, TrainedNetwork, record_outcome
from archsmith.automl.pictures import Pictures, pictures_of, trainer_for
from archsmith.automl.plan import TimePlan, check_total, closing_seconds, speed_needed, time_plan
from archsmith.automl.speed import fast_enough, testing_speed
from archsmith.core import loaded
from archsmith.core.artifacts import open_artifacts
from archsmith.core.cores import cores
from archsmith.core.duration import seconds_of
from archsmith.core.errors import AllTrialsFailed, ChildFailed, UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Executor, Progress, derive_seed
from archsmith.core.finish import Finishable, FinishPlan
from archsmith.core.genotype import Genotype
from archsmith.core.global_state import generators_kept
from archsmith.core.output_files import folder_for_now
from archsmith.core.shown import base_name
from archsmith.core.space import Space, decode
from archsmith.core.store import Store
from archsmith.core.temperatures import FittedTemperature
from archsmith.core.trial import Result, Trial
from archsmith.executors import InProcess, ProcessPool
from archsmith.metrics.outcome import BASELINE, DOCUMENT, AutoOutcome, Stage
from archsmith.searchers import BayesianOptimization, Random
from archsmith.spaces import Product
from archsmith.store import open_store
from archsmith.store.payload import check_name
from archsmith.training import ImageClassification
from archsmith.training.arrays import Arrays

MAX_EPOCHS = 100_000  # trainings end by the clock
MOST_CHOSEN = 16  # children that go on
NOTE = "auto"  # in the record of a run that `auto` began
WRAP_UP_SECONDS = 20.0  # of the final training after Ctrl-C
SEARCH_WARMUP = 0.3  # of a child's training: the part in which the learning rate rises
WARMUP = 0.15  # of a whole training
LEAST_DECAY = 0.3  # of the baseline's time: while its learning rate falls


@dataclass(frozen=True)
class StageStarted:
    """What `auto` tells when a stage begins.

    Args:
        name: "search", "control", "choosing", "baseline", "final" or "closing".
        seconds: how long it will take, about.
        plan: the whole plan.
        epochs: passes over the training pictures that the stage's time is enough for, about; None: not measured yet.
    """

    name: str
    seconds: float
    plan: TimePlan
    epochs: float | None = None


@dataclass(frozen=True)
class DataRead:
    """What `auto` tells once the data are read.

    Args:
        description: plain JSON: counts, classes, splits, remarks.
        pictures: their sizes, and those that are used.
    """

    description: Mapping[str, Any]
    pictures: Pictures


@dataclass(frozen=True)
class WrapUpStarted:
    """What `auto` tells at the first Ctrl-C, from the signal handler."""


Event: TypeAlias = DataRead | StageStarted | WrapUpStarted | Trial | Progress | TrainingProgress
Watch: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True)
class AutoResult:
    """What `auto` gives.

    Args:
        run: the search, in whose store everything is recorded.
        finished: both networks with their test accuracy, as `archsmith.finish` gives them.
        outcome: what was delivered, as the page tells it.
        model, source, page: what was written; None without an output folder.
        earlier: whether an earlier call had delivered this, and nothing was trained.
    """

    run: Run
    finished: Finished
    outcome: AutoOutcome
    model: Path | None = None
    source: Path | None = None
    page: Path | None = None
    earlier: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the main numbers, all of the outcome and of the finish, and where files are."""
        delivered = self.outcome.delivered
        return {
            "run": self.run.name,
            "test_accuracy": None if delivered.test is None else delivered.test.accuracy,
            "validation_accuracy": None if delivered.validation is None else delivered.validation.accuracy,
            "outcome": self.outcome.to_json(),
            "finish": self.finished.to_json(),
            "model": None if self.model is None else str(self.model),
            "source": None if self.source is None else str(self.source),
            "report": None if self.page is None else str(self.page),
        }


@generators_kept()
def auto(
    data: str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any],
    *,
    time: str | float = "20m",
    size: int | None = None,
    labels: str | os.PathLike[str] | None = None,
    label_pattern: str | None = None,
    baseline_time: str | float | None = None,
    control: bool = False,
    workers: int | None = None,
    store: str = DEFAULT_STORE,
    name: str | None = None,
    seed: int = 0,
    output: str | os.PathLike[str] | None = "out",
    force: bool = False,
    began: float | None = None,
    watch: Watch | None = None,
) -> AutoResult:
    """Give the best classifier of pictures that the time allows, trained from scratch.

    Args:
        data: as of `ImageClassification`.
        time: for everything, such as "20m" or "1h30m", or in seconds.
        size: the side of the network's input in pixels (default: decided by the pictures).
        labels, label_pattern: where the labels are, as of `ImageClassification`.
        baseline_time: for the baseline's training (default: one sixth of the time).
        control: whether random search runs beside the search, with as many children.
        workers: children that are trained side by side (default: one for each CUDA device, or else for each core).
        store: where the run is kept.
        name: the run's name there (default: made from the data's). One that exists goes on.
        seed: all randomness comes from it. Results still vary, because the clock decides how long is trained.
        output: the folder for the page NAME.html, the model NAME and its source NAME-source; None: nothing is written.
        force: whether the page replaces a file of that name that archsmith did not write.
        began: when the time began, by `time.monotonic` (default: now).
        watch: called with each stage, trial and training.

    Raises:
        UsageError: an argument does not fit, or a place cannot be written; nothing has been trained.
        DataError: the data cannot be read.
        ChildFailed: no training came to its end.
        KeyboardInterrupt: Ctrl-C while the data are read, or the second one. The first wraps up within a minute.
    """
    started = _now() if began is None else began
    total = seconds_of(time)
    baseline = None if baseline_time is None else seconds_of(baseline_time, "baseline_time")
    asked = ImageClassification(data, labels=labels, label_pattern=label_pattern)
    place = _Place(
        store=open_store(store),
        name=name if name is not None else _free_name(store, _stem(asked)),
        output=None if output is None else Path(output),
        force=force,
    )
    recorded = place.recorded_plan()
    side_by_side = workers if workers is not None else _default_workers()
    check_total(total)
    with Interruption(lambda: watch(WrapUpStarted()) if watch is not None else None) as interruption:
        pictures = pictures_of(asked, size)
        trainer = trainer_for(asked, pictures)
        with loaded.pinned(trainer):
            if watch is not None:
                watch(DataRead(trainer.describe_data(), pictures))
            check_enough(trainer)
            space, threads = search_space(pictures), workers if workers is not None else cores()
            if recorded is None:
                needed = speed_needed(total - (_now() - started), pictures.train)
                points, speed = fast_enough(trainer, pictures, space, threads, needed)
                plan = time_plan(
                    total,
                    spent=_now() - started,
                    workers=side_by_side,
                    testing=pictures.testing_seconds,
                    baseline=baseline,
                    chooses=pictures.folds is None,
                    control=control,
                    one_pass=pictures.train / speed * (1 if torch.cuda.is_available() else side_by_side),
                )
                plan = replace(plan, speed=speed)
            else:
                points = place.recorded_points()
                plan = replace(recorded, total=total, reading=_now() - started)
            job = _Job(
                trainer=trainer,
                pictures=pictures,
                plan=plan,
                space=space,
                points=points,
                started=started,
                workers=side_by_side,
                threads=threads,
                place=place,
                seed=seed,
                interruption=interruption,
                watch=watch,
            )
            with interruption.gently():
                return job.go(control)


@dataclass(frozen=True)
class _Place:
    """Where the run, the model and the page are kept. Raises UsageError if that cannot be written."""

    store: Store
    name: str
    output: Path | None
    force: bool

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.store.artifacts is None:
            raise UsageError(
                "auto keeps weights, and this store has no artifact location; use a file, such as sqlite:///runs.db, or "
                "open the store with artifacts=..."
            )
        if self.output is not None:
            with folder_for_now(self.output):
                check_place(self.page, "report", force=self.force)
                for folder in (self.model, self.source):
                    check_folder(folder)

    @property
    def page(self) -> Path:
        return (self.output or Path()) / f"{self.name}.html"

    @property
    def model(self) -> Path:
        return (self.output or Path()) / self.name

    @property
    def source(self) -> Path:
        return (self.output or Path()) / f"{self.name}-source"

    def run(self, name: str | None = None) -> Run | None:
        """The run (default: of this name), if the store has it."""
        name = self.name if name is None else name
        return Run(self.store, name) if name in {run.name for run in self.store.runs()} else None

    def recorded_plan(self) -> TimePlan | None:
        """The plan of the run, if the store has it. Raises UsageError if `auto` did not begin it with a time."""
        run = self.run()
        if run is None:
            return None
        plan = run.config["note"].get(NOTE)
        if not isinstance(plan, Mapping):
            raise UsageError(
                f"run {self.name!r} was not begun by `auto` with a time; give the options that it was begun with, or another name"
            )
        return TimePlan(**plan)

    def recorded_points(self) -> Sequence[Genotype]:
        """The known networks of the run, which the store has."""
        run = self.run()
        assert run is not None
        return recorded_first(run.config)


@dataclass
class _Job:
    """The stages of one call, and what they have come to."""

    trainer: ImageClassification
    pictures: Pictures
    plan: TimePlan
    space: Product
    points: Sequence[Genotype]  # known ones; the first is the baseline
    started: float
    workers: int
    threads: int
    place: _Place
    seed: int
    interruption: Interruption
    watch: Watch | None

    used: dict[str, float] = field(default_factory=dict, init=False)
    _stage: str = field(default="reading", init=False)
    _stage_began: float = field(init=False)

    def go(self, control: bool) -> AutoResult:
        """All stages."""
        self._stage_began = self.started
        if (done := self._delivered_before()) is not None:
            return done
        run = self._search()
        if control:
            self._control(run)
        reward = rewards.final_accuracy
        with closing(self._pool()) as pool:
            trainings = Trainings(run, self.trainer, reward, pool, Limits(), self.watch)
            chosen, known = self._choose(run, trainings)
        with closing(InProcess(threads=self.threads)) as here:
            trainings = Trainings(run, self.trainer, reward, here, Limits(), self.watch)
            shared = chosen.genotype == known.genotype
            baseline, known = self._baseline(trainings, here, known, shared=shared)
            chosen = known if shared else chosen
            final = self._final(trainings, here, chosen)
            contenders = [c for c in (final, baseline) if c is not None]
            if not contenders:
                raise ChildFailed("no training came to its end; the test set was not looked at")
            contenders.sort(key=_validation, reverse=True)
            self._begin("closing", self.plan.closing)
            measured: list[Measured] = []

            def test(
                contender: Contender, evaluator: Finishable, model: nn.Module
            ) -> tuple[Mapping[str, float], FittedTemperature | None]:
                """Predict once, for the test and for the page."""
                measured.append(Measured.of(self._network(contender, evaluator, model, chosen)))
                return measured[-1].metrics, measured[-1].temperature

            plan = FinishPlan(top=1, seeds=1)
            finished = look(run, self.trainer, trainings, contenders, plan, {}, [], test=test, again=False)
        return self._deliver(run, finished, measured)

    # --- stages -------------------------------------------------------------------------------------------------------

    def _search(self) -> Run:
        """Known networks and proposals, each trained for a short time at a constant learning rate."""
        self._begin("search", self.plan.search)
        try:
            with self.interruption.abruptly():
                return self._searched()
        except (KeyboardInterrupt, AllTrialsFailed) as error:
            run = self.place.run()
            if run is None or (isinstance(error, KeyboardInterrupt) and not self.interruption.is_first()):
                raise
            return run  # a known network is trained, if nothing else was

    def _searched(self) -> Run:
        # Children that began within the time may end.
        seconds = self.plan.search + self.plan.trial if self.plan.trials else None
        run = self.place.run()
        if run is not None:
            if run.summary.status == "finished":
                return run
            more = None if seconds is None else run.summary.seconds + seconds
            return run.resume(executor=self._pool(), seconds=more, watch=self.watch)
        alone = self.plan.trials == 0
        trials = max(1, self.plan.trials)  # known networks first
        folds = None if alone else self.pictures.folds
        child = replace(
            self.trainer,
            seconds=self.plan.trial,
            epochs=MAX_EPOCHS,
            schedule="constant",
            warmup_share=SEARCH_WARMUP,
            continues=folds is None,  # the networks of folds are of no further use
            folds=folds,
        )
        return search(
            self.space,
            child,
            searcher=Random() if trials <= len(self.points) else BayesianOptimization(initial=2),
            trials=trials,
            seconds=seconds,
            executor=InProcess(threads=self.threads) if alone else self._pool(),
            store=self.place.store,
            name=self.place.name,
            seed=self.seed,
            limits=Limits(seconds=10 * self.plan.trial + 60),
            first=self.points[:trials],
            note={NOTE: asdict(self.plan)},
            watch=self.watch,
        )

    def _control(self, run: Run) -> None:
        """Random search with as many children, from another seed and without known networks. Nothing is chosen from it."""
        if self.interruption.wrapping_up or not self.plan.trials:
            return
        self._begin("control", self.plan.search)
        name = f"{run.name}-random"
        try:
            with self.interruption.abruptly():
                if (earlier := self.place.run(name)) is not None:
                    if earlier.summary.status != "finished":
                        earlier.resume(executor=self._pool(), watch=self.watch)
                    return
                search(
                    self.space,
                    replace(run.evaluator, continues=False),  # type: ignore[type-var]
                    searcher=Random(),
                    trials=self.plan.trials,
                    executor=self._pool(),
                    store=run.store,
                    name=name,
                    seed=derive_seed(self.seed, "auto", "control"),
                    limits=Limits(**run.config["limits"]),
                    note={NOTE: asdict(self.plan)},
                    watch=self.watch,
                )
        except AllTrialsFailed:
            return  # its page says so
        except KeyboardInterrupt:
            if not self.interruption.is_first():
                raise

    def _choose(self, run: Run, trainings: Trainings) -> tuple[_Candidate, _Candidate]:
        """The best children go on from where they stopped. Gives the one to train on, and the baseline."""
        trials = [t for t in run.trials() if t.reward is not None and t.result and t.result.copied_from is None]
        known = next((t for t in trials if t.genotype == self.points[0]), None)
        best = sorted(trials, key=lambda t: -_final_accuracy(t.result))[: max(4, min(2 * self.workers, MOST_CHOSEN))]
        if known is not None and known not in best:
            best[-1:] = [known]
        candidates = [_Candidate.searched(run, self.space, trial) for trial in best]
        if self.plan.choosing and len(best) > 1 and not self.interruption.wrapping_up:
            candidates = self._trained_on(trainings, candidates)
        baseline = next((c for c in candidates if c.genotype == self.points[0]), None)
        if baseline is None:
            baseline = _Candidate.untrained(self.space, self.points[0])
        if not candidates:
            return baseline, baseline
        chosen = max(candidates, key=lambda candidate: candidate.accuracy)
        return (chosen if self._is_better(chosen, baseline) else baseline), baseline

    def _trained_on(self, trainings: Trainings, candidates: list[_Candidate]) -> list[_Candidate]:
        """The candidates after some more training; one whose training failed as it was."""
        self._begin("choosing", self.plan.choosing)
        seconds = self.plan.choosing / -(-len(candidates) // self.workers)
        wanted = [self._goes_on(candidate, seconds, to_the_end=False) for candidate in candidates]
        try:
            with self.interruption.abruptly():
                outcomes = trainings.train("choosing", wanted)
        except KeyboardInterrupt:
            if not self.interruption.is_first():
                raise
            return candidates
        pairs = zip(candidates, outcomes, strict=True)
        return [replace(c, trained=t) if t.reward is not None else c for c, t in pairs]

    def _is_better(self, one: _Candidate, known: _Candidate) -> bool:
        """Whether a candidate is better on validation by more than one standard error.

        With few validation pictures the best of many is mostly the luckiest, and the known network has other evidence.
        """
        share = (one.accuracy + known.accuracy) / 2
        counted = self.pictures.validation + (self.pictures.train if self.pictures.folds else 0)
        return one.accuracy - known.accuracy > math.sqrt(share * (1 - share) / counted)

    def _goes_on(
        self, candidate: _Candidate, seconds: float, *, to_the_end: bool, label: str = "", keep: bool = False
    ) -> Wanted:
        """A training that goes on from where a candidate stopped, or begins if it has no checkpoint.

        Args:
            candidate: the network.
            seconds: how long.
            to_the_end: whether the learning rate falls to zero; else it stays, and the training can go on.
            label: what a person is told (default: made from the candidate).
            keep: whether its weights are kept.
        """
        settings: dict[str, Any] = {} if candidate.goes_on else {"warmup_share": WARMUP}
        if to_the_end:
            settings["schedule"] = "linear" if candidate.goes_on else "trapezoid"
        else:
            settings |= {"schedule": "constant", "continues": True}
        return Wanted(
            label or f"{candidate.name} goes on",
            candidate.trained.wanted.network,
            settings,
            MAX_EPOCHS,
            derive_seed(self.seed, "auto", label),
            keep=keep,
            resume=candidate.trained.result if candidate.goes_on else None,
            seconds=seconds,
        )

    def _baseline(
        self, trainings: Trainings, here: InProcess, known: _Candidate, *, shared: bool
    ) -> tuple[Contender | None, _Candidate]:
        """What a person would have picked, trained in full within its own time. Gives the network, and the state that the final
        training goes on from.

        Args:
            trainings, here: where it is trained.
            known: the baseline as far as it was trained.
            shared: whether the final training is of the same network. It goes on from the moment at which the baseline's learning
                rate begins to fall, so that the time before counts for both.
        """
        if self.interruption.wrapping_up or not self.plan.baseline:
            return None, known
        self._begin("baseline", self.plan.baseline)
        spent = known.seconds if known.goes_on else 0.0
        left = max(self.plan.baseline - spent, LEAST_DECAY * self.plan.baseline)
        if shared and spent < self.plan.baseline / 2:
            constant = self.plan.baseline / 2 - spent
            trained = self._train_here(trainings, here, self._goes_on(known, constant, to_the_end=False))
            if trained.reward is not None:
                known, left = replace(known, trained=trained), left - constant
            if self.interruption.wrapping_up:
                return None, known
        wanted = self._goes_on(known, left, to_the_end=True, label=BASELINE, keep=True)
        trained = self._train_here(trainings, here, wanted)
        return _contender(BASELINE, "a known network with a known recipe", trained), known

    def _final(self, trainings: Trainings, here: InProcess, chosen: _Candidate) -> Contender | None:
        """The chosen network goes on until the time is over."""
        self.plan = replace(self.plan, closing=self._closing_seconds(chosen))
        seconds = max(self.plan.total - (_now() - self.started) - self.plan.closing, WRAP_UP_SECONDS / 2)
        if self.interruption.wrapping_up:
            seconds = min(seconds, WRAP_UP_SECONDS)
        self._begin("final", seconds, self._epochs_in(seconds, chosen))
        wanted = self._goes_on(chosen, seconds, to_the_end=True, label=FOUND, keep=True)
        trained = self._train_here(trainings, here, wanted)
        return _contender(FOUND, "chosen by the search", trained)

    def _train_here(self, trainings: Trainings, here: InProcess, wanted: Wanted) -> Trained:
        """A training in this process with all threads; the first Ctrl-C shortens it."""
        with self.interruption.gently(lambda: here.end_within(WRAP_UP_SECONDS)):
            return trainings.train(self._stage, [wanted])[0]

    def _closing_seconds(self, candidate: _Candidate) -> float:
        """How long closing will take: how long the network takes for a batch of its inputs was measured."""
        network = candidate.trained.wanted.network.build(self.trainer).model
        tested = 2 * (self.pictures.test + self.pictures.validation)
        return closing_seconds(self.plan.total, tested / testing_speed(network, self.trainer.task()))

    def _deliver(self, run: Run, finished: Finished, measured: Sequence[Measured]) -> AutoResult:
        """Record, export, and write the page."""
        self._end_stage()
        outcome = record_outcome(
            run,
            measured,
            stages=[Stage(name, seconds, self.used.get(name)) for name, seconds in self.plan.rows],
            time_budget=self.plan.total,
            notes=self._notes(run, measured),
        )
        return self._written(AutoResult(run, finished, outcome))

    def _delivered_before(self) -> AutoResult | None:
        """What an earlier call delivered under this name. Raises UsageError if that was on other data."""
        run = self.place.run()
        if run is None:
            return None
        check_same_data(run, self.trainer, "Give the data of the run, or another name")
        finished, outcome = run.reader.document("finish"), run.reader.document(DOCUMENT)
        if finished is None or outcome is None:
            return None
        outcome = AutoOutcome.from_json(outcome)
        return self._written(AutoResult(run, Finished.from_json(finished), outcome, earlier=True))

    def _written(self, result: AutoResult) -> AutoResult:
        """With the model, its source and the page, if there is an output folder."""
        place = self.place
        if place.output is None:
            return result
        place.output.mkdir(parents=True, exist_ok=True)
        return replace(
            result,
            model=export(result.run, format="pytorch", path=place.model),
            source=export(result.run, format="source", path=place.source),
            page=result.run.report(place.page, force=place.force),
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _network(
        self, contender: Contender, evaluator: Finishable, model: nn.Module, chosen: _Candidate
    ) -> TrainedNetwork:
        """A network after its training."""
        (trained,) = contender.finals
        assert isinstance(evaluator, ImageClassification)
        wanted, metrics = trained.wanted, trained.result.metrics
        found = contender.name == FOUND
        before = "the search" if chosen.trial is None or not found else f"trial {chosen.trial.number}"
        return TrainedNetwork(
            name=contender.name,
            genotype=wanted.network.genotype,
            title=title_of(decode(self.space, wanted.network.genotype)),
            training=f"continued from {before}" if wanted.resume is not None else "from the beginning",
            model=model,
            evaluator=evaluator,
            seconds=trained.result.cost.seconds + metrics.get("seconds_before", 0.0),
            epochs=trained.result.cost.epochs + metrics.get("epochs_before", 0.0),
            parameters=contender.parameters,
            trial=chosen.trial.number if found and chosen.trial is not None else None,
        )

    def _notes(self, run: Run, measured: Sequence[Measured]) -> list[str]:
        notes = []
        score, chance = measured[0].score, measured[0].chance
        if score.count and score.interval[0] <= chance:
            notes.append(
                f"The network is not shown to be better than guessing: it is right for {score.correct} of {score.count} test pictures, "
                f"and {round(chance * score.count)} are of the most frequent class. Give it more time or more pictures."
            )
        others = run.summary.counts.get("done", 0) - 1
        first = measured[0].network
        if others > 0 and first.name == FOUND and first.genotype == self.points[0]:
            tried = f"none of the {others} other networks" if others > 1 else "the one other network"
            notes.append(
                f"The known network was trained on, because {tried} that the search tried was {'' if others > 1 else 'not '}clearly "
                "better: only the longer training is new."
            )
        if self.interruption.wrapping_up:
            notes.append("The work was interrupted, so the final training was cut short.")
        if not self.plan.trials:
            notes.append("The time was too short for a search: a known network was trained.")
        if self.pictures.folds is not None:
            notes.append(
                f"There are few pictures in a class, so networks were compared by {self.pictures.folds} folds."
            )
        return notes

    def _pool(self) -> Executor:
        return ProcessPool(self.workers) if self.workers > 1 else InProcess(threads=self.threads)

    def _begin(self, stage: str, seconds: float, epochs: float | None = None) -> None:
        self._end_stage()
        self._stage = stage
        if self.watch is not None:
            self.watch(StageStarted(stage, seconds, self.plan, epochs))

    def _end_stage(self) -> None:
        """Count the seconds of the stage that ends."""
        now = _now()
        self.used[self._stage] = self.used.get(self._stage, 0.0) + now - self._stage_began
        self._stage_began = now

    def _epochs_in(self, seconds: float, candidate: _Candidate) -> float | None:
        """How many passes over the training pictures a candidate makes in so much time, if its speed was measured."""
        speed = self.plan.speed
        if candidate.genotype != self.points[0]:  # it was measured beside the other children
            speed = candidate.trained.result.metrics.get("images_per_second", 0.0) * self.workers
        return seconds * speed / self.pictures.train if speed else None


@dataclass(frozen=True)
class _Candidate:
    """A network, as far as it was trained.

    Args:
        trial: which trial of the search it is; None if the search has not trained it.
        trained: its last training.
    """

    trial: Trial | None
    trained: Trained

    @classmethod
    def searched(cls, run: Run, space: Space, trial: Trial) -> _Candidate:
        """A trial as the search left it. One whose checkpoint is gone begins anew."""
        assert trial.result is not None
        assert run.store.artifacts is not None
        result, wanted = trial.result, Wanted("as searched", Network(space, trial.genotype), {}, MAX_EPOCHS, 0)
        if result.checkpoint is not None and result.checkpoint not in open_artifacts(run.store.artifacts):
            result = replace(result, checkpoint=None)
        return cls(trial, Trained(wanted, result, trial.reward))

    @classmethod
    def untrained(cls, space: Space, genotype: Genotype) -> _Candidate:
        """A network that was not trained yet."""
        return cls(None, Trained(Wanted("untrained", Network(space, genotype), {}, MAX_EPOCHS, 0), Result(), None))

    @property
    def name(self) -> str:
        """What a person is told that it is."""
        return "a known network" if self.trial is None else f"trial {self.trial.number}"

    @property
    def goes_on(self) -> bool:
        """Whether its training can go on from where it stopped."""
        return self.trained.result.checkpoint is not None

    @property
    def accuracy(self) -> float:
        """On the validation pictures, at the end of its training."""
        return _final_accuracy(self.trained.result)

    @property
    def genotype(self) -> Genotype:
        """What it is built from."""
        return self.trained.wanted.network.genotype

    @property
    def seconds(self) -> float:
        """How long it was trained."""
        return self.trained.result.cost.seconds + self.trained.result.metrics.get("seconds_before", 0.0)


def _contender(name: str, origin: str, trained: Trained) -> Contender | None:
    """A network that was trained once, as the test takes it; None if its training failed."""
    if trained.reward is None:
        return None
    network = trained.wanted.network
    return Contender(
        name,
        [(origin, network)],
        origin=origin,
        network=network,
        settings=trained.wanted.settings,
        parameters=int(trained.result.metrics["parameters"]),
        finals=[trained],
    )


def _validation(contender: Contender) -> float:
    """The validation accuracy of the weights of a network that was trained once."""
    (trained,) = contender.finals
    return _final_accuracy(trained.result)


def _final_accuracy(result: Result | None) -> float:
    """The validation accuracy at the end of a training."""
    return 0.0 if result is None else result.metrics.get("final_accuracy", 0.0)


def _stem(trainer: ImageClassification) -> str:
    """What a run on these data is called."""
    stem = "" if isinstance(trainer.data, Arrays) else base_name(str(Path(str(trainer.data)).absolute()))
    return "".join(c for c in stem if c.isprintable() and c not in "/\\")[:60].strip(" .") or "pictures"


def _free_name(store: str, stem: str) -> str:
    taken = {run.name for run in open_store(store).runs()}
    names = (stem if i == 1 else f"{stem}-{i}" for i in range(1, len(taken) + 2))
    return next(n for n in names if n not in taken and f"{n}-random" not in taken)


def _default_workers() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else cores()


def _now() -> float:
    return time.monotonic()
