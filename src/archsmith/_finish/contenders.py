"""Who takes part in a finish: the search's best, those of random search, and what a person would have picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archsmith._finish.training import Network, Trained, Wanted
from archsmith._search import Run
from archsmith._search.data_check import check_same_data
from archsmith._search.hand_designed import HandDesigned, Standard, baseline_name
from archsmith._search.known_points import recorded_first
from archsmith.core.artifacts import open_artifacts
from archsmith.core.config import same_config
from archsmith.core.errors import IllegalGenotype, UnknownName, UsageError
from archsmith.core.evaluator import FunctionEvaluator
from archsmith.core.executor import derive_seed
from archsmith.core.finish import Finishable, FinishPlan, missing_of
from archsmith.core.genotype import Genotype
from archsmith.core.parts import PartSpace
from archsmith.core.space import Space, decode, identity
from archsmith.core.trial import Trial
from archsmith.discovered import Published
from archsmith.metrics.outcome import BASELINE

FOUND = "found"
ANEW = "found, trained anew"


@dataclass
class Contender:
    """One of the networks that go through the rounds; each round fills in what it decides.

    Args:
        name: what it is called in the result.
        candidates: the networks that it is chosen from, with where each comes from.
        hand_designed: whether it is what a person would have picked, and nothing was searched.
        named: whether its name is one, such as Adam, and takes no article.
    """

    name: str
    candidates: Sequence[tuple[str, Network]]
    hand_designed: bool = False
    named: bool = False
    origin: str = ""
    network: Network | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    tried: dict[str, Trained] = field(default_factory=dict)  # the trainings of choosing and tuning, by key
    finals: Sequence[Trained] = ()

    @property
    def called(self) -> str:
        """What a sentence calls it."""
        if self.name == FOUND:
            return "the found network"
        if self.name == ANEW:
            return "the same network trained anew"
        if self.named:
            return self.name
        return f"the {self.name}" if self.hand_designed else f"the best of {self.name}"


def finishable(run: Run) -> Finishable:
    """The run's evaluator. Raises UsageError when its children cannot be finished, or the data has changed."""
    evaluator = run.evaluator
    if (missing := missing_of(evaluator)) is not None:
        what = evaluator.function if isinstance(evaluator, FunctionEvaluator) else type(evaluator)
        raise UsageError(
            f"a finish trains networks for longer and tests them, so it needs an evaluator with task, train, test and epochs, "
            f"such as ImageClassification (see archsmith.core.finish.Finishable); "
            f"{getattr(what, '__name__', what)} has {missing}"
        )
    if run.store.artifacts is None:
        raise UsageError(
            f"finishing keeps weights, and the store of run {run.name!r} has no place for them; say where with "
            "--artifacts FOLDER (in Python: open_store(URL, artifacts=...)), or keep runs in an SQLite file"
        )
    check_same_data(
        run, evaluator, "A search is finished with the data it was made on; name the right place with --data"
    )
    return evaluator  # type: ignore[return-value]


def best_of(run: Run, plan: FinishPlan, name: str) -> Contender:
    """The best trials with distinct genotypes, in networks as large as the plan has them."""
    best = run.different(plan.top, lambda trial: trial.genotype, "there is nothing to finish")
    summary = run.summary
    searched = f"of run {run.name!r} ({sum(summary.counts.values())} trials, {summary.epochs:,.0f} epochs)"
    space = plan.stacked(run.space)
    networks = {t.number: Network(space, _in(space, t.genotype) if plan.space else t.genotype) for t in best}
    return Contender(name, [(f"trial {number} {searched}", network) for number, network in networks.items()])


def note_stacked(space: Space, plan: FinishPlan, notes: list[str]) -> None:
    """Say how the networks differ from those of the search, whose sizes and accuracies are told beside them."""
    if isinstance(space, Published):
        return
    changed = [(k, getattr(space, k), v) for k, v in plan.space.items() if getattr(space, k) != v]
    if changed:
        said = ", ".join(f"{name.replace('_', ' ')} {new} in place of {old}" for name, old, new in changed)
        notes.append(f"The networks differ from those of the search: {said}.")


def as_trained(run: Run, evaluator: Finishable, notes: list[str]) -> Contender:
    """The best trial as the search trained it; nothing of it is left to choose.

    Raises UsageError when its weights were not kept, or are gone.
    """
    best = run.best
    assert best is not None
    assert run.store.artifacts is not None
    assert best.result is not None
    if best.result.artifact is None or best.result.artifact not in open_artifacts(run.store.artifacts):
        why = "kept none" if best.result.artifact is None else "no longer has them"
        raise UsageError(
            f"the finish plan takes the best trial of run {run.name!r} with its weights (trained=True), and the run {why}; "
            "search with keep_weights=True, or finish with trained=False"
        )
    line, epochs = _line(run, best)
    inherited = f", with weights from {line} trials before it ({epochs:,.0f} epochs in all)" if line else ""
    notes.append(
        f"The found network is trial {best.number} as the search trained it{inherited}: one training, chosen by validation."
    )
    network = Network(run.space, best.genotype)
    seed = derive_seed(run.config["seed"], "trial", best.number)
    wanted = Wanted(f"{FOUND}, as searched", network, {}, evaluator.epochs, seed, keep=True)
    return Contender(
        FOUND,
        [],
        origin=f"trial {best.number} of run {run.name!r}, as it was trained there",
        network=network,
        finals=[Trained(wanted, best.result, best.reward)],
    )


def _line(run: Run, trial: Trial) -> tuple[int, float]:
    """How many trials handed their weights on to this one, one after the other, and the epochs of all."""
    line, epochs = 0, 0.0
    while trial.result is not None:
        epochs += trial.result.cost.epochs
        if trial.parent is None or not trial.result.metrics.get("inherited_parameters"):
            break
        trial, line = run.reader.trial(trial.parent), line + 1
    return line, epochs


def _in(space: Space, genotype: Genotype) -> Genotype:
    """The same answers in another space. Raises UsageError where it asks something else."""
    moved = Genotype(identity(space), genotype.answers)
    try:
        decode(space, moved)
    except IllegalGenotype as error:
        raise UsageError(f"the finish plan's space does not take what was searched: {error}") from None
    return moved


def baselines(run: Run, plan: FinishPlan, parameters: int, evaluator: Finishable, notes: list[str]) -> list[Contender]:
    """What a person would have picked: of a part, each of its standards; of a search from known points, the first of them; else
    a network of about so many parameters.

    Nobody, with a note, where nobody says what that is.
    """
    space = plan.stacked(run.space)
    if isinstance(space, PartSpace):
        standards = [Standard(space, name) for name in space.standards()]
        return [_by_hand(part.name, "what is usual", Network(part, part.genotype), named=True) for part in standards]
    if known := recorded_first(run.config):
        network = Network(space, _in(space, known[0]) if plan.space else known[0])
        return [_by_hand(BASELINE, f"the first of the known points that run {run.name!r} began with", network)]
    name = baseline_name(evaluator)
    if name is None:
        notes.append(
            f"{type(evaluator).__name__} has no baseline(parameters, task), so no hand-designed network was trained "
            "beside the found one."
        )
        return []
    hand = HandDesigned(parameters, evaluator)
    try:
        hand.build(decode(hand, hand.genotype), evaluator.task())
    except UsageError as error:
        notes.append(f"No hand-designed network was trained beside the found one: {error}.")
        return []
    return [_by_hand(name, f"hand-designed, about {parameters:,} parameters", Network(hand, hand.genotype))]


def _by_hand(name: str, origin: str, network: Network, *, named: bool = False) -> Contender:
    return Contender(name, [(origin, network)], hand_designed=True, named=named, origin=origin, network=network)


def label_of(run: Run) -> str:
    """What a control is called: by how it searched."""
    kind = str(run.config["searcher"]["type"]).rpartition(".")[2]
    return "random search" if kind == "Random" else kind


def control_of(run: Run, control: Run | str | None, notes: list[str]) -> Run | None:
    """The run beside it; what is wrong with it goes to the notes, or is raised when it was named."""
    if control is None:
        if isinstance(run.space, Published):
            notes.append(f"Nothing was searched: {run.space.network} was published, and is trained as it is.")
            return None
        if label_of(run) == "random search":
            notes.append("The search was random search itself, so there is none beside it.")
            return None
        name = f"{run.name}-random"
        try:
            beside = Run(run.store, name, space=run.space, evaluator=run.evaluator)
        except UnknownName:
            notes.append(
                f"There is no run of random search beside it: make one with the same space, evaluator and trials, "
                f"searcher=Random() and name={name!r}, and finish again."
            )
            return None
    else:
        beside = (
            control if isinstance(control, Run) else Run(run.store, control, space=run.space, evaluator=run.evaluator)
        )
    mine, its = run.config, beside.config
    for part in ("space", "evaluator", "reward", "data"):
        own, other = (
            {k: v for k, v in c[part].items() if k != "data"} if isinstance(c[part], Mapping) else c[part]
            for c in (mine, its)
        )
        if not same_config(own, other):
            message = f"run {beside.name!r} has another {part} than run {run.name!r}, so it is no control of it"
            if control is not None:
                raise UsageError(f"{message}; name one that has the same, or none")
            notes.append(f"{message.capitalize()}.")
            return None
    if beside.best is None:
        notes.append(f"Run {beside.name!r} has no trial that was trained to its end, so it is left out.")
        return None
    a, b = run.summary, beside.summary
    if sum(a.counts.values()) != sum(b.counts.values()) or abs(a.epochs - b.epochs) > 0.01 * max(a.epochs, b.epochs):
        notes.append(
            f"The budgets are not equal: the search had {sum(a.counts.values())} trials and {a.epochs:,.0f} epochs, "
            f"{beside.name!r} had {sum(b.counts.values())} and {b.epochs:,.0f}."
        )
    return beside
