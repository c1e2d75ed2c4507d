"""The stages of `auto` on pictures within a time budget: known networks first, a search around them, one long training, one test.

Each stage has its seconds in a plan, which is made once the data are read:

    search      known networks and what the searcher proposes, each trained for a short time; pretrained ones are probed
    choosing    the best of them go on from where they stopped
    baseline    what a competent person would have picked, trained in full within its own minutes
    final       the best goes on from where it stopped, while its learning rate falls to zero
    faster      pretrained networks: the same network on smaller pictures, for a half and a quarter of the time
    closing     both networks are tested once; the one with the better validation accuracy is exported

Every training is recorded as it ends, so that a killed command goes on. Once the data are read, the first Ctrl-C skips to a short
final training: there is always a model at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from archsmith import rewards
from archsmith._export import export
from archsmith._finish.contenders import FOUND, Contender
from archsmith._finish.look import look
from archsmith._finish.result import Finished
from archsmith._finish.training import Network, Trained, Trainings, Wanted
from archsmith._search import Run, search
from archsmith._search.data_check import check_same_data
from archsmith.automl.candidate import Candidate, contender_of, final_accuracy, validation_accuracy
from archsmith.automl.events import StageStarted, Watch
from archsmith.automl.faster import SHARES, faster_ones
from archsmith.automl.interruption import Interruption
from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.outcome import Measured, TrainedNetwork, record_outcome
from archsmith.automl.outputs import BASELINE_NOTE, NOTE, TARGET_NOTE, Outputs
from archsmith.automl.pictures import Pictures
from archsmith.automl.plan import MAX_EPOCHS, TimePlan, closing_seconds
from archsmith.automl.result import AutoResult
from archsmith.automl.speed import testing_speed
from archsmith.automl.strategy import Strategy, title_of
from archsmith.core.errors import AllTrialsFailed, ChildFailed
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Executor, derive_seed
from archsmith.core.finish import Finishable, FinishPlan
from archsmith.core.genotype import Genotype
from archsmith.core.space import build_decided, decode
from archsmith.core.temperatures import FittedTemperature
from archsmith.core.trial import Trial
from archsmith.executors import InProcess, ProcessPool
from archsmith.metrics.outcome import BASELINE, DOCUMENT, AutoOutcome, Stage
from archsmith.searchers import BayesianOptimization, Random
from archsmith.spaces import Product
from archsmith.training import ImageClassification

MOST_CHOSEN = 16  # children that go on
WRAP_UP_SECONDS = 20.0  # of the final training after Ctrl-C
SEARCH_WARMUP = 0.3  # of a child's training: the part in which the learning rate rises
WARMUP = 0.15  # of a whole training
LEAST_FASTER = 5.0  # seconds of training of a faster network
LEAST_DECAY = 0.3  # of the baseline's time: while its learning rate falls


@dataclass
class Stages:
    """The stages of one call, and what they have come to."""

    trainer: ImageClassification
    strategy: Strategy
    space: Product
    plan: TimePlan
    engine: str  # what latencies are measured with
    target: LatencyTarget | None
    baseline: Genotype
    points: Sequence[Genotype]  # known ones, which the search tries first
    started: float
    workers: int
    threads: int
    outputs: Outputs
    seed: int
    interruption: Interruption
    watch: Watch | None

    used: dict[str, float] = field(default_factory=dict, init=False)
    _compared: bool = field(
        default=False, init=False
    )  # whether the known network was compared with what the search tried
    _stage: str = field(default="reading", init=False)
    _stage_began: float = field(init=False)

    @property
    def pictures(self) -> Pictures:
        """What the networks are for."""
        return self.strategy.pictures

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
            final, chosen = self._or_probe(run, final, chosen)
            contenders = [c for c in (final, baseline) if c is not None]
            if not contenders:
                raise ChildFailed("no training came to its end; the test set was not looked at")
            contenders.sort(key=validation_accuracy, reverse=True)
            contenders += self._faster(trainings, here, contenders[0])
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
        """Known networks and proposals, each probed, or trained for a short time at a constant learning rate."""
        self._begin("search", self.plan.search)
        try:
            with self.interruption.abruptly():
                return self._searched()
        except (KeyboardInterrupt, AllTrialsFailed) as error:
            run = self.outputs.run()
            if run is None or (isinstance(error, KeyboardInterrupt) and not self.interruption.is_first()):
                raise
            return run  # a known network is trained, if nothing else was

    def _searched(self) -> Run:
        # Children that began within the time may end.
        seconds = self.plan.search + self.plan.trial if self.plan.trials else None
        run = self.outputs.run()
        if run is not None:
            if run.summary.status == "finished":
                return run
            more = None if seconds is None else run.summary.seconds + seconds
            return run.resume(executor=self._pool(), seconds=more, watch=self.watch)
        alone = self.plan.trials == 0
        trials = max(1, self.plan.trials)  # known networks first
        folds = None if alone else self.pictures.folds
        latency = None if self.target is None else self.target.latency()
        child = replace(self.trainer, folds=folds, latency=latency)
        if self.strategy.probed:
            child = replace(child, epochs=0, probe=self.strategy.probed, keep_weights=folds is None)
        else:
            child = replace(
                child,
                seconds=self.plan.trial,
                epochs=MAX_EPOCHS,
                schedule="constant",
                warmup_share=SEARCH_WARMUP,
                continues=folds is None,  # the networks of folds are of no further use
            )
        return search(
            self.space,
            child,
            searcher=Random() if trials <= len(self.points) else BayesianOptimization(initial=2),
            trials=trials,
            seconds=seconds,
            executor=InProcess(threads=self.threads) if alone else self._pool(),
            store=self.outputs.store,
            name=self.outputs.name,
            seed=self.seed,
            limits=Limits(seconds=10 * self.plan.trial + 60),
            first=self.points[:trials],
            note={
                NOTE: asdict(self.plan),
                BASELINE_NOTE: self.baseline.to_json(),
                TARGET_NOTE: None if self.target is None else asdict(self.target),
            },
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
                if (earlier := self.outputs.run(name)) is not None:
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

    def _choose(self, run: Run, trainings: Trainings) -> tuple[Candidate, Candidate]:
        """The best children go on from where they stopped. Gives the one to train on, and the baseline."""
        trials = [t for t in run.trials() if t.reward is not None and t.result and t.result.copied_from is None]
        trials = [t for t in trials if self._is_fast_enough(t)]
        known = next((t for t in trials if t.genotype == self.baseline), None)
        best = sorted(trials, key=lambda t: -final_accuracy(t.result))[: max(4, min(2 * self.workers, MOST_CHOSEN))]
        if known is not None and known not in best:
            best[-1:] = [known]
        candidates = [Candidate.searched(run, self.space, trial) for trial in best]
        if self.plan.choosing and len(candidates) > 1 and not self.interruption.wrapping_up:
            candidates = self._trained_on(trainings, candidates)
        baseline = next((c for c in candidates if c.genotype == self.baseline), None)
        if baseline is None:
            baseline = Candidate.untrained(self.space, self.baseline)
        if not candidates or (self.strategy.probed and baseline.trained.reward is None):  # no time to probe it
            return baseline, baseline
        self._compared = True
        chosen = max(candidates, key=lambda candidate: candidate.accuracy)
        return (chosen if self._is_better(chosen, baseline) else baseline), baseline

    def _is_fast_enough(self, trial: Trial) -> bool:
        """Whether a trial's network meets the target of the latency. The baseline was measured, and chosen so, before."""
        if self.target is None or trial.genotype == self.baseline or trial.result is None:
            return True
        return trial.result.metrics.get("latency", 0.0) <= self.target.milliseconds

    def _trained_on(self, trainings: Trainings, candidates: list[Candidate]) -> list[Candidate]:
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

    def _is_better(self, one: Candidate, known: Candidate) -> bool:
        """Whether a candidate is better on validation by more than one standard error.

        With few validation pictures the best of many is mostly the luckiest, and the known network has other evidence.
        """
        share = (one.accuracy + known.accuracy) / 2
        counted = self.pictures.validation + (self.pictures.train if self.pictures.folds else 0)
        return one.accuracy - known.accuracy > math.sqrt(share * (1 - share) / counted)

    def _goes_on(
        self, candidate: Candidate, seconds: float, *, to_the_end: bool, label: str = "", keep: bool = False
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
            settings |= {"continues": True} if self.plan.faster else {}
        else:
            settings |= {"schedule": "constant", "continues": True}
        if self.pictures.folds is not None:  # the search compared by folds, and an export begins with its settings
            settings["folds"] = None
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
        self, trainings: Trainings, here: InProcess, known: Candidate, *, shared: bool
    ) -> tuple[Contender | None, Candidate]:
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
        return contender_of(BASELINE, "a known network with a known recipe", trained), known

    def _final(self, trainings: Trainings, here: InProcess, chosen: Candidate) -> Contender | None:
        """The chosen network goes on until the time is over."""
        self.plan = replace(self.plan, closing=self._closing_seconds(chosen))
        after = self.plan.closing + self.plan.faster
        seconds = max(self.plan.total - (time.monotonic() - self.started) - after, WRAP_UP_SECONDS / 2)
        if self.interruption.wrapping_up:
            seconds = min(seconds, WRAP_UP_SECONDS)
        self._begin("final", seconds, self._epochs_in(seconds, chosen))
        wanted = self._goes_on(chosen, seconds, to_the_end=True, label=FOUND, keep=True)
        trained = self._train_here(trainings, here, wanted)
        return contender_of(FOUND, "chosen by the search", trained)

    def _or_probe(self, run: Run, final: Contender | None, chosen: Candidate) -> tuple[Contender | None, Candidate]:
        """The best network of the search whose classifier alone was fitted, if no training was as good: of very few pictures,
        that may be all there is to learn."""
        probed = [t for t in run.trials() if t.reward is not None and t.result is not None and t.result.artifact]
        if not self.strategy.probed or self.pictures.folds is not None or not probed:
            return final, chosen
        fast = list(filter(self._is_fast_enough, probed))
        best = max(fast, key=lambda trial: final_accuracy(trial.result), default=None)
        if best is None or (final is not None and validation_accuracy(final) >= final_accuracy(best.result)):
            return final, chosen
        candidate = Candidate.searched(run, self.space, best)
        return contender_of(FOUND, f"trial {best.number}", candidate.trained), candidate

    def _faster(self, trainings: Trainings, here: InProcess, delivered: Contender) -> list[Contender]:
        """Networks made from the delivered one that take less time."""
        (trained,) = delivered.finals
        if self.interruption.wrapping_up or not self.plan.faster or trained.result.checkpoint is None:
            return []
        self._begin("faster", self.plan.faster)
        began = time.monotonic()
        made = list(
            faster_ones(self.space, trained.wanted.network.genotype, self.trainer.task(), delivered.name, self.engine)
        )
        left = self._left_for_faster(began)
        made = made[: max(0, int(left / LEAST_FASTER))]
        contenders = []
        for each in made:
            if self.interruption.wrapping_up:
                break
            wanted = Wanted(
                each.name,
                Network(self.space, each.genotype),
                {"schedule": "linear", "warmup_share": WARMUP},
                MAX_EPOCHS,
                derive_seed(self.seed, "auto", each.name),
                keep=True,
                resume=trained.result,
                seconds=left / len(made),
            )
            contender = contender_of(
                each.name, f"made from {delivered.name}", self._train_here(trainings, here, wanted)
            )
            contenders += [] if contender is None else [contender]
        return contenders

    def _left_for_faster(self, began: float) -> float:
        """The seconds that are left for training faster networks, some of which measuring has taken."""
        now = time.monotonic()
        left = self.plan.total - (now - self.started) - self.plan.closing
        return min(left, self.plan.faster - (now - began))

    def _train_here(self, trainings: Trainings, here: InProcess, wanted: Wanted) -> Trained:
        """A training in this process with all threads; the first Ctrl-C shortens it."""
        with self.interruption.gently(lambda: here.end_within(WRAP_UP_SECONDS)):
            return trainings.train(self._stage, [wanted])[0]

    def _closing_seconds(self, candidate: Candidate) -> float:
        """How long closing will take: how long the network takes for a batch of its inputs was measured."""
        decided, child = build_decided(self.space, candidate.genotype, self.trainer)
        networks = 2 + sum(SHARES) * bool(self.plan.faster)
        tested = networks * (self.pictures.test + self.pictures.validation)
        return closing_seconds(self.plan.total, tested / testing_speed(child.model, decided.task()))

    def _deliver(self, run: Run, finished: Finished, measured: Sequence[Measured]) -> AutoResult:
        """Record, export, and write the page."""
        self._end_stage()
        source, refused = self._source(run)
        outcome = record_outcome(
            run,
            measured,
            stages=[Stage(name, seconds, self.used.get(name)) for name, seconds in self.plan.rows],
            time_budget=self.plan.total,
            engine=self.engine,
            target=self.target,
            notes=[*self._notes(run, measured), *refused],
        )
        return self._written(AutoResult(run, finished, outcome, source=source))

    def _delivered_before(self) -> AutoResult | None:
        """What an earlier call delivered under this name. Raises UsageError if that was on other data."""
        run = self.outputs.run()
        if run is None:
            return None
        check_same_data(run, self.trainer, "Give the data of the run, or another name")
        finished, outcome = run.reader.document("finish"), run.reader.document(DOCUMENT)
        if finished is None or outcome is None:
            return None
        outcome = AutoOutcome.from_json(outcome)
        source, _ = self._source(run)
        return self._written(AutoResult(run, Finished.from_json(finished), outcome, source=source, earlier=True))

    def _source(self, run: Run) -> tuple[Path | None, list[str]]:
        """The source of the network, if there is an output folder; where it cannot be written, why, as notes."""
        if self.outputs.folder is None:
            return None, []
        self.outputs.folder.mkdir(parents=True, exist_ok=True)
        try:
            return export(run, format="source", path=self.outputs.source), []
        except Exception as error:  # of whatever a module of the user's does; the model is delivered all the same
            return None, [f"There is no source file of the network: {' '.join(str(error).split())}."]

    def _written(self, result: AutoResult) -> AutoResult:
        """With the model and the page, if there is an output folder."""
        outputs = self.outputs
        if outputs.folder is None:
            return result
        return replace(
            result,
            model=export(result.run, format="pytorch", path=outputs.model),
            page=result.run.report(outputs.page, force=outputs.force),
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _network(
        self, contender: Contender, evaluator: Finishable, model: nn.Module, chosen: Candidate
    ) -> TrainedNetwork:
        """A network after its training."""
        (trained,) = contender.finals
        assert isinstance(evaluator, ImageClassification)
        wanted, metrics = trained.wanted, trained.result.metrics
        found = contender.name == FOUND
        before = "the search" if chosen.trial is None or not found else f"trial {chosen.trial.number}"
        training = f"continued from {before}" if wanted.resume is not None else "from the beginning"
        if self.strategy.probed:
            alone = trained.result.cost.seconds > 0 and not metrics["train_seconds"]
            training = "its classifier alone was trained" if alone else "fine-tuned"
        return TrainedNetwork(
            name=contender.name,
            genotype=wanted.network.genotype,
            title=title_of(decode(self.space, wanted.network.genotype)),
            training=training,
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
        if others > 0 and self._compared and first.name == FOUND and first.genotype == self.baseline:
            tried = f"none of the {others} other networks" if others > 1 else "the one other network"
            notes.append(
                f"The known network was trained on, because {tried} that the search tried was {'' if others > 1 else 'not '}clearly "
                "better: only the longer training is new."
            )
        if self.strategy.origin:
            notes.append(self.strategy.origin)
        if self.plan.faster and len(measured) < 3 and not self.interruption.wrapping_up:
            notes.append("No faster networks were made from it: they take a training to go on from, and time.")
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
        now = time.monotonic()
        self.used[self._stage] = self.used.get(self._stage, 0.0) + now - self._stage_began
        self._stage_began = now

    def _epochs_in(self, seconds: float, candidate: Candidate) -> float | None:
        """How many passes over the training pictures a candidate makes in so much time, if its speed was measured."""
        speed = self.plan.speed
        if candidate.genotype != self.baseline:  # it was measured beside the other children
            speed = candidate.trained.result.metrics.get("images_per_second", 0.0) * self.workers
        return seconds * speed / self.pictures.train if speed else None
