"""What an image transfer begins with: the found network, those beside it, and their finished weights where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from archsmith._describe import Thing, find
from archsmith._search import Run
from archsmith._search.hand_designed import HandDesigned, baseline_name
from archsmith._search.known_points import recorded_first
from archsmith._search.run import resolve
from archsmith._transfer.carried import Carried, carried
from archsmith.core.child import Task
from archsmith.core.config import from_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.finish import in_todays_words, space_finished
from archsmith.core.genotype import Architecture, Genotype, canonical_json
from archsmith.core.space import Space, decode
from archsmith.metrics.outcome import BASELINE
from archsmith.training import ImageClassification

if TYPE_CHECKING:
    import torch

FOUND, CONTROL = "found", "random search"


@runtime_checkable
class TrainedModel(Protocol):
    """An exported model of images, as `archsmith.load` gives it."""

    name: str
    network: torch.nn.Module
    space: Mapping[str, Any]
    genotype: Mapping[str, Any] | None
    architecture: Any
    task: Task
    preprocessing: Mapping[str, Any]
    batch_norm_epsilon: float | None
    built_by: Space | None


Carryable: TypeAlias = Run | Thing | TrainedModel
"""What can be carried over."""


@dataclass(frozen=True)
class Candidate:
    """A network that takes part.

    Args:
        name: "found", "baseline", "random search", or the hand-designed one's or the discovered one's own.
        called: what a sentence calls it, without "the".
        origin: where it comes from.
        network: what is built.
        classes: how many its finished weights tell apart.
        weights: digests of finished weights, one for each seed that it was finished from.
        epsilon: of the batch norms that these were trained with.
    """

    name: str
    called: str
    origin: str
    network: Carried
    classes: int | None = None
    weights: Sequence[str] = ()
    epsilon: float | None = None

    @property
    def is_hand_designed(self) -> bool:
        """Whether a person designed it, and nothing was searched."""
        return isinstance(self.network.space, HandDesigned)


@dataclass(frozen=True)
class TrainedOn:
    """What finished weights were trained on.

    Args:
        task: the images' shape and the classes.
        whiten, upsample: how images were prepared.
    """

    task: Task
    whiten: bool
    upsample: float


@dataclass(frozen=True)
class Source:
    """What is carried over, and what stands beside it.

    Args:
        name: of a folder.
        origin: for a person.
        subject: what a sentence calls the found network, without "the".
        candidates: the found one first.
        finished: what their weights were trained on; None where there are none.
        evaluator: the settings that the search trained by; None where there was no search.
        tensors: an exported model's weights, by their place in `Candidate.weights`, which are still to be kept.
        notes: what a reader should know.
        known: whether the search began with known networks, of which the first takes the place of a hand-designed one.
    """

    name: str
    origin: str
    subject: str
    candidates: Sequence[Candidate]
    finished: TrainedOn | None = None
    evaluator: ImageClassification | None = None
    tensors: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    known: bool = False

    @property
    def architecture(self) -> Architecture:
        """Of the found network, as plain data."""
        network = self.candidates[0].network
        what = network.what
        return decode(network.space, what) if isinstance(what, Genotype) else what


def source_of(thing: Carryable) -> Source:
    """What a run, an exported model, a name, a genotype or an architecture stands for.

    Raises UsageError when it is no network of images, or the run has none yet.
    """
    if isinstance(thing, Run):
        return _of_run(thing)
    if isinstance(thing, TrainedModel):
        return _of_model(thing)
    if hasattr(thing, "network") and hasattr(thing, "takes"):
        raise UsageError(f"this exported model reads {thing.takes}, and only networks of images begin with weights")
    found = find(thing)
    task = getattr(found, "task", None)
    if not isinstance(task, Task | None):
        raise UsageError(f"{found.name} reads no images; cells are carried over with to='chars' or to='translation'")
    what = found.genotype if found.genotype is not None else found.architecture
    named = task is not None  # a discovered one
    digest = hashlib.sha256(canonical_json(_plain(found.architecture)).encode()).hexdigest()[:8]
    name = found.name if named else f"{found.name.lower()}-{digest}"
    return Source(
        name,
        found.name if named else f"a genotype of {found.name}",
        f"network {found.name}" if named else "found network",
        [Candidate(found.name if named else FOUND, "found network", name, carried(found.space, what))],
    )


def _plain(architecture: Architecture) -> Any:
    return dict(architecture) if isinstance(architecture, Mapping) else architecture


# --- a run ------------------------------------------------------------------------------------------------------------


def _of_run(run: Run) -> Source:
    config = run.config
    evaluator: Any = run.evaluator
    own = evaluator if isinstance(evaluator, ImageClassification) else None
    document = run.reader.document("finish")
    if document is not None:
        return _of_finished(run, in_todays_words(document), own)
    best = run.needed_best("there is no network to carry over")
    origin = f"run {run.name!r}, trial {best.number}, the best by validation"
    candidates = [Candidate(FOUND, "found network", origin, carried(run.space, best.genotype))]
    if known := recorded_first(config):
        begun = f"the first of the known points that run {run.name!r} began with"
        candidates.append(Candidate(BASELINE, BASELINE, begun, carried(run.space, known[0])))
    if str(config["searcher"]["type"]).rpartition(".")[2] != "Random" and (beside := _control(run)) is not None:
        candidates.append(beside)
    return _without_twins(Source(run.name, origin, "found network", candidates, evaluator=own))


def _without_twins(source: Source) -> Source:
    """The source without networks that are the found one itself, which is said."""
    found, *others = source.candidates
    twins = [c for c in others if not c.is_hand_designed and c.network.what == found.network.what]
    notes = [f"The {c.called} is the found network itself." for c in twins]
    known = any(c.name == BASELINE for c in others)
    return replace(source, candidates=[found, *(c for c in others if c not in twins)], notes=notes, known=known)


def _control(run: Run) -> Candidate | None:
    """The best of the random search beside a run that was not finished, where there is one in the same space."""
    try:
        beside = Run(run.store, f"{run.name}-random", space=run.space, evaluator=run.evaluator)
    except UnknownName:
        return None
    best = beside.best
    if best is None or beside.config["space"] != run.config["space"]:
        return None
    origin = f"run {beside.name!r}, trial {best.number}"
    return Candidate(CONTROL, "best of random search", origin, carried(run.space, best.genotype))


def _of_finished(run: Run, document: Mapping[str, Any], own: ImageClassification | None) -> Source:
    """What `finish` trained: the found network, what a person would have picked and random search's best, each with its weights."""
    evaluator: Any = run.evaluator
    final = dict(document["plan"]["final"])
    task = _task(run, final)
    finished = TrainedOn(
        task, bool(_set(evaluator, final, "whiten", False)), float(_set(evaluator, final, "upsample", 1.0))
    )
    candidates, found = [], document["networks"][0]
    for k, network in enumerate(document["networks"]):
        hand = network["genotype"] is None
        if hand:
            space: Space = HandDesigned(found["parameters"], evaluator)
            built = carried(space, space.genotype)  # type: ignore[attr-defined]
        else:
            built = carried(space_finished(run.space, document), Genotype.from_json(network["genotype"]))
        settings = {**final, **network["settings"]}
        candidates.append(
            Candidate(
                name=FOUND if k == 0 else network["name"],
                called="found network" if k == 0 else _called(network),
                origin=network["origin"],
                network=built,
                classes=task.num_classes,
                weights=tuple(f["artifact"] for f in network["finals"] if f["score"] is not None and f["artifact"]),
                epsilon=_set(evaluator, settings, "batch_norm_epsilon", None),
            )
        )
    origin = f"run {run.name!r}, as finished"
    return _without_twins(Source(run.name, origin, "found network", candidates, finished, own))


def _called(network: Mapping[str, Any]) -> str:
    """What a sentence calls a network of a finish that stands beside the found one."""
    searched = network["genotype"] is not None and network["name"] != BASELINE
    return f"best of {network['name']}" if searched else str(network["name"])


def _set(evaluator: Any, settings: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    return settings.get(name, getattr(evaluator, name, otherwise))


def _task(run: Run, final: Mapping[str, Any]) -> Task:
    """What the finished networks were built for: as recorded, so that the searched data need not be here any more."""
    recorded = run.config.get("dataset") or {}
    if "shape" in recorded and "classes" in recorded and not {"size", "channels", "data"} & final.keys():
        height, width, channels = recorded["shape"]
        return Task((channels, height, width), len(recorded["classes"]))
    evaluator: Any = run.evaluator
    task = (replace(evaluator, **final) if final else evaluator).task()
    if not isinstance(task, Task):
        raise UsageError(f"run {run.name!r} searched no networks of images, so there are none to carry over to images")
    return task


# --- an exported model ------------------------------------------------------------------------------------------------

GIVEN = "given"  # what its weights are called until a record keeps them


def _of_model(model: TrainedModel) -> Source:
    space: Space = model.built_by if model.built_by is not None else from_config(model.space, resolve)
    what = Genotype.from_json(model.genotype) if model.genotype is not None else model.architecture
    classes, epsilon = model.task.num_classes, model.batch_norm_epsilon
    network = Candidate(
        FOUND, "found network", f"the exported model {model.name}", carried(space, what), classes, (GIVEN,), epsilon
    )
    finished = TrainedOn(
        model.task, bool(model.preprocessing.get("whiten", False)), float(model.preprocessing.get("upsample", 1.0))
    )
    state = {name: tensor.detach().cpu() for name, tensor in model.network.state_dict().items()}
    return Source(model.name, network.origin, "found network", [network], finished, tensors={GIVEN: state})


# --- the hand-designed one --------------------------------------------------------------------------------------------


def hand_designed(evaluator: Any) -> tuple[str, str] | None:
    """The name of the network that a person would have picked, and its origin; None where nobody says what that is."""
    name = baseline_name(evaluator)
    return None if name is None else (name, "hand-designed, of the found network's size")
