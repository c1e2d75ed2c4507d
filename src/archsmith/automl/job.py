"""The whole job on pictures within a time budget: known networks first, a search around them, one long training, one test.

Each stage has its seconds in a plan, which is made once the data are read:

    search      known networks and what the searcher proposes, each trained for a short time
    choosing    the best of them go on from where they stopped
    baseline    what a competent person would have picked, trained in full within its own minutes
    final       the best goes on from where it stopped, while its learning rate falls to zero
    closing     both networks are tested once; the one with the better validation accuracy is exported

Every training is recorded as it ends, so that a killed command goes on. The first Ctrl-C skips to a short final training:
there is always a model at the end.
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

from torch import nn

from archsmith._export import export
from archsmith._finish.contenders import FOUND, Contender
from archsmith._finish.look import look
from archsmith._finish.result import Finished
from archsmith._finish.training import Network, Trained, Trainings, Wanted
from archsmith._search import Run, search
from archsmith._search.data_check import check_same_data
from archsmith._search.known_points import genotypes_of
from archsmith._search.session import DEFAULT_STORE, check_enough
from archsmith._search.trainings import TrainingProgress
from archsmith.automl.candidates import known_points, search_space, title_of
from archsmith.automl.interruption import Interruption
from archsmith.automl.outcome import Measured, TrainedNetwork, record_outcome
from archsmith.automl.pictures import Pictures, pictures_of, trainer_for
from archsmith.automl.plan import TimePlan, closing_seconds, time_plan
from archsmith.core import loaded
from archsmith.core.duration import seconds_of
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Executor, Progress, derive_seed
from archsmith.core.finish import Finishable, FinishPlan
from archsmith.core.genotype import Genotype
from archsmith.core.global_state import generators_kept
from archsmith.core.shown import base_name
from archsmith.core.space import Space, decode
from archsmith.core.temperatures import FittedTemperature
from archsmith.core.trial import Result, Trial
from archsmith.executors import InProcess, ProcessPool
from archsmith.metrics.fitted_temperature import fitted_temperature
from archsmith.metrics.outcome import BASELINE, DOCUMENT, AutoOutcome, Stage
from archsmith.rewards import default_reward
from archsmith.searchers import BayesianOptimization, Random
from archsmith.store import open_store
from archsmith.training import ImageClassification

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
        name: "search", "choosing", "baseline", "final" or "closing".
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


Event: TypeAlias = DataRead | StageStarted | Trial | Progress | TrainingProgress
Watch: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True)
class AutoResult:
    """What `auto` gives.

    Args:
        run: the search, in whose store everything is recorded.
        finished: both networks with their test accuracy, as `archsmith.finish` gives them.
        outcome: what was delivered, as the page tells it.
        model, source, page: what was written; None without an output folder.
    """

    run: Run
    finished: Finished
    outcome: AutoOutcome
    model: Path | None = None
    source: Path | None = None
    page: Path | None = None

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
    data: str | os.PathLike[str],
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
        control: whether random search runs beside the search, with as much time.
        workers: children that are trained side by side (default: one for each CUDA device, or else for each core).
        store: where the run is kept.
        name: the run's name there (default: made from the data's). One that exists goes on.
        seed: all randomness comes from it. Results still vary, because the clock decides how long is trained.
        output: the folder for the page NAME.html, the model NAME and its source NAME-source; None: nothing is written.
        force: whether the page replaces a file of that name that archsmith did not write.
        began: when the time began, by `time.monotonic` (default: now).
        watch: called with each stage, trial and training.

    Raises:
        UsageError: an argument does not fit.
        DataError: the data cannot be read.
        KeyboardInterrupt: the second Ctrl-C. The first wraps up within a minute.
    """
    started = _now() if began is None else began
    total = seconds_of(time)
    baseline = None if baseline_time is None else seconds_of(baseline_time, "baseline_time")
    side_by_side = workers if workers is not None else _default_workers()
    asked = ImageClassification(data, labels=labels, label_pattern=label_pattern)
    recorded = None if name is None else _recorded_plan(store, name)
    with Interruption() as interruption:
        pictures = pictures_of(asked, size)
        trainer = trainer_for(asked, pictures)
        with loaded.pinned(trainer):
            if watch is not None:
                watch(DataRead(trainer.describe_data(), pictures))
            check_enough(trainer)
            spent = _now() - started
            plan = time_plan(
                total,
                spent=spent,
                workers=side_by_side,
                testing=pictures.testing_seconds,
                baseline=baseline,
                control=control,
            )
            if recorded is not None:  # so that what was trained is used
                plan = replace(recorded, total=total, reading=spent)
            job = _Job(
                trainer=trainer,
                pictures=pictures,
                plan=plan,
                started=started,
                workers=side_by_side,
                threads=workers if workers is not None else _cores(),
                store=store,
                name=name if name is not None else _free_name(store, base_name(str(data))),
                seed=seed,
                output=None if output is None else Path(output),
                force=force,
                interruption=interruption,
                watch=watch,
            )
            return job.go(control)


@dataclass
class _Job:
    """The stages of one call, and what they have come to."""

    trainer: ImageClassification
    pictures: Pictures
    plan: TimePlan
    started: float
    workers: int
    threads: int
    store: str
    name: str
    seed: int
    output: Path | None
    force: bool
    interruption: Interruption
    watch: Watch | None

    space: Space = field(init=False)
    points: Sequence[Genotype] = field(init=False)
    used: dict[str, float] = field(default_factory=dict, init=False)
    _stage: str = field(default="reading", init=False)
    _stage_began: float = field(init=False)

    def go(self, control: bool) -> AutoResult:
        self._stage_began = self.started
        if (done := self._delivered_before()) is not None:
            return done
        self.space = search_space(self.pictures)
        self.points = genotypes_of(self.space, known_points(self.pictures))
        run = self._search()
        if control and not self.interruption.wrapping_up:
            self._control(run)
        reward = default_reward(self.trainer)
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
                return measured[-1].metrics, fitted_temperature(measured[-1].validation)

            plan = FinishPlan(top=1, seeds=1)
            finished = look(run, self.trainer, trainings, contenders, plan, {}, [], test=test)
        return self._deliver(run, finished, measured)

    # --- stages -------------------------------------------------------------------------------------------------------

    def _search(self) -> Run:
        """Known networks and proposals, each trained for a short time at a constant learning rate."""
        self._begin("search", self.plan.search)
        store = open_store(self.store)
        try:
            if self.name in {run.name for run in store.runs()}:
                run = Run(store, self.name)
                return run if run.summary.status == "finished" else run.resume(executor=self._pool(), watch=self.watch)
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
                seconds=2 * self.plan.search + 60,  # so that nothing can hold it up for ever
                executor=InProcess(threads=self.threads) if alone else self._pool(),
                store=store,
                name=self.name,
                seed=self.seed,
                limits=Limits(seconds=10 * self.plan.trial + 60),
                first=self.points[:trials],
                note={NOTE: asdict(self.plan)},
                watch=self.watch,
            )
        except KeyboardInterrupt:
            if not self.interruption.is_first():
                raise
            run = Run(store, self.name)
            if run.best is None:
                raise  # nothing was trained
            return run

    def _control(self, run: Run) -> None:
        """Random search with as many children."""
        search(
            self.space,
            run.evaluator,
            searcher=Random(),
            trials=sum(run.summary.counts.values()),
            executor=self._pool(),
            store=run.store,
            name=f"{run.name}-random",
            seed=self.seed,
            limits=Limits(**run.config["limits"]),
            first=self.points[: self.plan.trials],
            watch=self.watch,
        )

    def _choose(self, run: Run, trainings: Trainings) -> tuple[_Candidate, _Candidate]:
        """The best children go on from where they stopped; gives the one to train on, and the baseline."""
        best = run.different(
            max(4, min(2 * self.workers, MOST_CHOSEN)), lambda trial: trial.genotype, "there is nothing to train"
        )
        baseline = next((t for t in run.trials() if t.genotype == self.points[0] and t.reward is not None), None)
        if baseline is not None and baseline.genotype not in [trial.genotype for trial in best]:
            best[-1:] = [baseline]
        candidates = [_Candidate.searched(self.space, trial) for trial in best]
        goes_on = self.plan.choosing and len(best) > 1 and self.pictures.folds is None
        if goes_on and not self.interruption.wrapping_up:
            self._begin("choosing", self.plan.choosing)
            rounds = -(-len(best) // self.workers)
            settings = {"seconds": self.plan.choosing / rounds, "schedule": "constant", "continues": True}
            wanted = [self._goes_on(candidate, settings) for candidate in candidates]
            try:
                outcomes = trainings.train("choosing", wanted)
            except KeyboardInterrupt:
                if not self.interruption.is_first():
                    raise
            else:
                trained = zip(candidates, outcomes, strict=True)
                candidates = [replace(c, trained=t) for c, t in trained if t.reward is not None] or candidates
        chosen = max(candidates, key=lambda candidate: candidate.trained.reward or 0.0)
        known = next((c for c in candidates if c.genotype == self.points[0]), None)
        if known is None:
            return chosen, _Candidate.untrained(self.space, self.points[0], self.seed)
        return (chosen if self._is_better(chosen, known) else known), known

    def _is_better(self, one: _Candidate, known: _Candidate) -> bool:
        """Whether a candidate is better on validation by more than one standard error.

        With few validation pictures the best of many is mostly the luckiest, and the known network has other evidence.
        """
        accuracies = [c.trained.result.metrics["final_accuracy"] for c in (one, known)]
        share = sum(accuracies) / 2
        counted = self.pictures.validation + (self.pictures.train if self.pictures.folds else 0)
        error = math.sqrt(share * (1 - share) / counted)
        return accuracies[0] - accuracies[1] > error

    def _goes_on(
        self, candidate: _Candidate, settings: Mapping[str, Any], *, label: str = "", keep: bool = False
    ) -> Wanted:
        """A training that goes on from where a candidate stopped."""
        resume = candidate.trained.result if candidate.goes_on else None
        return Wanted(
            label or f"{candidate.name} goes on",
            candidate.trained.wanted.network,
            settings,
            MAX_EPOCHS,
            derive_seed(self.seed, "auto"),
            keep=keep,
            resume=resume,
        )

    def _baseline(
        self, trainings: Trainings, here: InProcess, known: _Candidate, *, shared: bool
    ) -> tuple[Contender | None, _Candidate]:
        """What a person would have picked, trained in full within its own time; and where the final training goes on from it.

        Args:
            known: the baseline as far as it was trained.
            shared: whether the final training is of the same network: it goes on from the moment at which the learning rate
                begins to fall.
        """
        if self.interruption.wrapping_up or not self.plan.baseline:
            return None, known
        self._begin("baseline", self.plan.baseline)
        left = max(self.plan.baseline - known.seconds, LEAST_DECAY * self.plan.baseline)
        if shared and known.seconds < self.plan.baseline / 2:
            trunk = self.plan.baseline / 2 - known.seconds
            settings = {"seconds": trunk, "schedule": "constant", "continues": True}
            trained = self._train_here(trainings, here, self._goes_on(known, settings))
            if trained.reward is not None:
                known, left = replace(known, trained=trained), left - trunk
        wanted = self._goes_on(known, _to_the_end(known, left), label=BASELINE, keep=True)
        trained = self._train_here(trainings, here, wanted)
        return _contender(BASELINE, "a known network with a known recipe", trained), known

    def _final(self, trainings: Trainings, here: InProcess, chosen: _Candidate) -> Contender | None:
        """The chosen network goes on until the time is over."""
        self.plan = replace(self.plan, closing=self._closing_seconds(chosen))
        left = self.plan.total - (_now() - self.started) - self.plan.closing
        seconds = max(left, WRAP_UP_SECONDS / 2)
        if self.interruption.wrapping_up:
            seconds = min(seconds, WRAP_UP_SECONDS)
        self._begin("final", seconds, self._epochs_in(seconds, chosen))
        wanted = self._goes_on(chosen, _to_the_end(chosen, seconds), label=FOUND, keep=True)
        trained = self._train_here(trainings, here, wanted)
        return _contender(FOUND, f"chosen among {max(1, self.plan.trials)} networks", trained)

    def _closing_seconds(self, chosen: _Candidate) -> float:
        """How long closing will take, from how fast a network was trained: it classifies at least twice as fast."""
        rate = chosen.trained.result.metrics.get("images_per_second")
        if not rate:
            return self.plan.closing
        return closing_seconds(self.plan.total, 2 * (self.pictures.test + self.pictures.validation) / (2 * rate))

    def _train_here(self, trainings: Trainings, here: InProcess, wanted: Wanted) -> Trained:
        """A training in this process with all threads; the first Ctrl-C shortens it."""
        with self.interruption.gently(lambda: here.end_within(WRAP_UP_SECONDS)):
            return trainings.train(self._stage, [wanted])[0]

    def _delivered_before(self) -> AutoResult | None:
        """What an earlier call delivered under this name. Raises UsageError if that was on other data."""
        store = open_store(self.store)
        if self.name not in {summary.name for summary in store.runs()}:
            return None
        run = Run(store, self.name)
        check_same_data(run, self.trainer, "Give the data of the run, or another name")
        finished, outcome = run.reader.document("finish"), run.reader.document(DOCUMENT)
        if finished is None or outcome is None:
            return None
        written = (*self._export(run), self._report(run))
        return AutoResult(run, Finished.from_json(finished), AutoOutcome.from_json(outcome), *written)

    def _deliver(self, run: Run, finished: Finished, measured: Sequence[Measured]) -> AutoResult:
        """Export, record, and write the page."""
        model, source = self._export(run)
        self._end_stage()
        outcome = record_outcome(
            run,
            measured,
            stages=[Stage(name, seconds, self.used.get(name)) for name, seconds in self.plan.rows],
            time_budget=self.plan.total,
            model=model,
            notes=self._notes(measured),
        )
        return AutoResult(run, finished, outcome, model, source, self._report(run))

    def _export(self, run: Run) -> tuple[Path | None, Path | None]:
        """The model and its source, if there is an output folder."""
        if self.output is None:
            return None, None
        self.output.mkdir(parents=True, exist_ok=True)
        model = export(run, format="pytorch", path=self.output / run.name)
        return model, export(run, format="source", path=self.output / f"{run.name}-source")

    def _report(self, run: Run) -> Path | None:
        """The page, if there is an output folder."""
        return None if self.output is None else run.report(self.output / f"{run.name}.html", force=self.force)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _network(
        self, contender: Contender, evaluator: Finishable, model: nn.Module, chosen: _Candidate
    ) -> TrainedNetwork:
        """A network after its training."""
        (trained,) = contender.finals
        assert isinstance(evaluator, ImageClassification)
        assert trained.result.artifact is not None
        wanted, metrics = trained.wanted, trained.result.metrics
        found = contender.name == FOUND
        return TrainedNetwork(
            name=contender.name,
            genotype=wanted.network.genotype,
            title=title_of(decode(self.space, wanted.network.genotype)),
            training=f"continued from {chosen.name}" if found and chosen.goes_on else "from the beginning",
            model=model,
            evaluator=evaluator,
            artifact=trained.result.artifact,
            seconds=trained.result.cost.seconds + metrics.get("seconds_before", 0.0),
            epochs=trained.result.cost.epochs + metrics.get("epochs_before", 0.0),
            parameters=contender.parameters,
            trial=chosen.trial.number if found and chosen.trial is not None else None,
        )

    def _notes(self, measured: Sequence[Measured]) -> list[str]:
        notes = []
        genotypes = {each.network.genotype for each in measured}
        if self.plan.trials and genotypes == {self.points[0]}:
            notes.append(
                f"None of the {self.plan.trials} networks that were tried was clearly better than the known network, so that one "
                "was trained on: of what is delivered, only the longer training is new."
            )
        if self.interruption.wrapping_up:
            notes.append("The work was interrupted, so the final training was cut short.")
        if not self.plan.trials:
            notes.append("The time was too short for a search: a known network was trained.")
        return notes

    def _pool(self) -> Executor:
        return ProcessPool(self.workers) if self.workers > 1 else InProcess()

    def _begin(self, stage: str, seconds: float, epochs: float | None = None) -> None:
        self._end_stage()
        self._stage = stage
        if self.watch is not None:
            self.watch(StageStarted(stage, seconds, self.plan, epochs))

    def _epochs_in(self, seconds: float, candidate: _Candidate) -> float | None:
        """How many passes over the training pictures a candidate makes in so much time, if its speed was measured."""
        rate = candidate.trained.result.metrics.get("images_per_second")
        return seconds * rate / self.pictures.train if rate else None

    def _end_stage(self) -> None:
        """Count the seconds of the stage that ends."""
        now = _now()
        self.used[self._stage] = self.used.get(self._stage, 0.0) + now - self._stage_began
        self._stage_began = now


@dataclass(frozen=True)
class _Candidate:
    """A network of the search, as far as it was trained. `trial` is None if the search has not trained it."""

    trial: Trial | None
    trained: Trained

    @classmethod
    def searched(cls, space: Space, trial: Trial) -> _Candidate:
        """A trial as the search left it."""
        assert trial.result is not None
        wanted = Wanted("as searched", Network(space, trial.genotype), {}, MAX_EPOCHS, 0)
        return cls(trial, Trained(wanted, trial.result, trial.reward))

    @classmethod
    def untrained(cls, space: Space, genotype: Genotype, seed: int) -> _Candidate:
        """A network that was not trained yet."""
        return cls(None, Trained(Wanted("untrained", Network(space, genotype), {}, MAX_EPOCHS, seed), Result(), None))

    @property
    def name(self) -> str:
        """What a person is told that it is."""
        return "a known network" if self.trial is None else f"trial {self.trial.number}"

    @property
    def goes_on(self) -> bool:
        """Whether its training can go on from where it stopped."""
        return self.trained.result.checkpoint is not None

    @property
    def genotype(self) -> Genotype:
        """What it is built from."""
        return self.trained.wanted.network.genotype

    @property
    def seconds(self) -> float:
        """How long it was trained."""
        return self.trained.result.cost.seconds + self.trained.result.metrics.get("seconds_before", 0.0)


def _to_the_end(candidate: _Candidate, seconds: float) -> dict[str, Any]:
    """The settings of a training to the end: the learning rate falls to zero, after its rise if the candidate is untrained."""
    if candidate.goes_on:
        return {"seconds": seconds, "schedule": "linear"}
    return {"seconds": seconds, "schedule": "trapezoid", "warmup_share": WARMUP}


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
        settings={k: v for k, v in trained.wanted.settings.items() if k != "seconds"},
        parameters=int(trained.result.metrics["parameters"]),
        finals=[trained],
    )


def _validation(contender: Contender) -> float:
    """The validation reward of a network that was trained once."""
    (trained,) = contender.finals
    return trained.reward if trained.reward is not None else 0.0


def _recorded_plan(store: str, name: str) -> TimePlan | None:
    """The plan of the run of that name; None if there is no such run.

    Raises UsageError if `auto` did not begin it with a time.
    """
    opened = open_store(store)
    if name not in {run.name for run in opened.runs()}:
        return None
    plan = Run(opened, name).config["note"].get(NOTE)
    if not isinstance(plan, Mapping):
        raise UsageError(
            f"run {name!r} was not begun by `auto` with a time; give the options that it was begun with, or another name"
        )
    return TimePlan(**plan)


def _default_workers() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else _cores()


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_name(store: str, stem: str) -> str:
    taken = {run.name for run in open_store(store).runs()}
    names = (stem if i == 1 else f"{stem}-{i}" for i in range(1, len(taken) + 2))
    return next(n for n in names if n not in taken)


def _now() -> float:
    return time.monotonic()
