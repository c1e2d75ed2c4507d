"""Who takes part in a transfer of images, by which ways, with which settings: all that is decided before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from archsmith._search.hand_designed import HandDesigned
from archsmith._transfer.carried import Carried, carried
from archsmith._transfer.found import Candidate, Source, TrainedOn, hand_designed
from archsmith._transfer.scaling import Scale, scaled
from archsmith.core.child import Task
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.finish import ACCURACY, Finishable, measure_of
from archsmith.training import ImageClassification

SCRATCH, FINE_TUNE, FEATURES = WAYS = ("scratch", "fine-tune", "features")
EPOCHS = 20
FINE_TUNE_RATE = 0.1  # of the learning rate from scratch: what was learned is to be changed, not to be forgotten
SHORT_DECAY = 0.9
_SETTLED = 5.0  # a running average has forgotten its beginning, to e^-5, after so many steps / (1 - decay)


@dataclass(frozen=True)
class Asked:
    """What a person asked for; None where the rest decides.

    Args:
        how: the ways, of `WAYS`. None: all that can be.
        scale: how large the networks shall be; only from scratch.
        tune: whether the learning rate of each network and way is chosen by validation.
        epochs, max_train, size, channels: of the evaluator.
    """

    how: tuple[str, ...] | None = None
    scale: Scale = Scale()
    tune: bool = False
    epochs: int | None = None
    max_train: int | None = None
    size: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.how is not None:
            if not self.how:
                raise UsageError(f"how needs at least one way, of {', '.join(WAYS)}")
            for way in self.how:
                if way not in WAYS:
                    raise UnknownName("way of a transfer", str(way), WAYS)


@dataclass(frozen=True)
class Entry:
    """A network by one way.

    Args:
        how: the way.
        candidate: whose network it is.
        network: what is built.
        evaluator: what it is trained and tested by.
        parameters, multiply_adds: how large it is.
        kept: the largest part of its running averages that a batch norm of the network as it is keeps a step.
    """

    how: str
    candidate: Candidate
    network: Carried
    evaluator: Finishable
    parameters: int
    multiply_adds: int
    kept: float | None = None

    @property
    def label(self) -> str:
        """What a person is told is being trained."""
        return f"{self.candidate.name}, {self.how}"


@dataclass(frozen=True)
class Contest:
    """All that takes part.

    Args:
        entries: way by way, the found network first in each.
        evaluator: the settings of trainings from scratch.
        ways: in order.
        notes: what a reader should know.
    """

    entries: Sequence[Entry]
    evaluator: Finishable
    ways: Sequence[str]
    notes: Sequence[str]


def prepare(source: Source, data: str | None, asked: Asked, evaluator: Finishable | None = None) -> Contest:
    """Decide it all. Raises UsageError for what does not go together, DataError for data that cannot be used."""
    notes = list(source.notes)
    ways = _ways(source, asked, notes)
    begun = any(way != SCRATCH for way in ways)
    if evaluator is None:
        if data is None:
            raise UsageError("a transfer of a network of images needs data: a folder, an .npz, or a name (--data PATH)")
        evaluator = evaluator_on(data, source.evaluator, asked, source.finished if begun else None)
    task = task_of(evaluator, ways)
    candidates = _candidates(source, evaluator, task, asked, begun)
    if begun:
        _tell_images(source, task, notes)
    entries: list[Entry] = []
    for way in ways:
        for candidate in candidates:
            if way != SCRATCH and not candidate.weights:
                continue
            entries.append(entry_of(way, candidate, evaluator, task, begun))
    return Contest(entries, evaluator, ways, [*notes, *shortened(entries)])


def steps_of(evaluator: Any) -> tuple[int, int]:
    """Batches of an epoch, and of a whole training."""
    each = int(evaluator.steps_per_epoch()) if hasattr(evaluator, "steps_per_epoch") else 1
    return each, each * int(evaluator.epochs)


def at_rate(evaluator: Finishable, factor: float) -> Finishable:
    """The evaluator with its learning rate multiplied, where it has one."""
    own = getattr(evaluator, "learning_rate", None)
    if factor == 1 or own is None or not dataclasses.is_dataclass(evaluator):
        return evaluator
    changed: Finishable = replace(evaluator, learning_rate=own * factor)
    return changed


def _ways(source: Source, asked: Asked, notes: list[str]) -> tuple[str, ...]:
    begin = tuple(way for way in asked.how or () if way != SCRATCH)
    has = bool(source.finished is not None and source.candidates[0].weights)
    if begin and not has:
        raise UsageError(
            f"{source.origin} has no finished weights, and {begin[0]} begins with some: finish the run first (archsmith "
            "finish RUN), or name an exported model's folder; from scratch needs none (--how scratch)"
        )
    if begin and asked.scale:
        raise UsageError(
            f"finished weights fit the network as it was found, so {begin[0]} and a scaled network exclude each other; "
            "scale it with --how scratch, or leave cells, filters and multiply-adds"
        )
    if asked.how is not None:
        return tuple(way for way in WAYS if way in asked.how)
    if has and asked.scale:
        notes.append("The finished weights fit the network as it was found; scaled, it was trained from scratch alone.")
    return WAYS if has and not asked.scale else (SCRATCH,)


def evaluator_on(
    data: str, searched: ImageClassification | None, asked: Asked, finished: TrainedOn | None
) -> ImageClassification:
    """The settings that a search trained by, else the desk's, on other data; with images as finished weights had them."""
    settings: dict[str, Any] = {"size": asked.size, "channels": asked.channels, "max_train": asked.max_train}
    settings["epochs"] = EPOCHS if asked.epochs is None else asked.epochs
    if finished is not None:
        if len(finished.task.input_shape) != 3:
            raise UsageError(
                "the finished weights belong to a network that reads arrays of shape "
                f"{list(finished.task.input_shape)}, and the new data are images; to train it on other arrays, call "
                "transfer(..., evaluator=...) in Python"
            )
        channels, height, width = finished.task.input_shape
        if settings["size"] is None and height == width:
            settings["size"] = height
        if settings["channels"] is None and channels in (1, 3):
            settings["channels"] = channels
        settings |= {"whiten": finished.whiten, "upsample": finished.upsample}
    if searched is None:
        return replace(ImageClassification.desk(data), **settings)
    # Whether a mirrored image is the same is a matter of the data, and those are others now.
    sized = searched.at_size(settings["size"])
    return replace(sized, data=data, flip=None, keep_weights=False, inherit_weights=False, **settings)


def task_of(evaluator: Finishable, ways: Sequence[str]) -> Task:
    """What the networks are built for. Raises UsageError when the evaluator cannot train them so."""
    missing = [name for name in ("task", "train", "test", "epochs", "fingerprint") if not hasattr(evaluator, name)]
    if missing:
        raise UsageError(
            f"a transfer needs an evaluator with task, train, test, epochs and fingerprint, such as ImageClassification; "
            f"{type(evaluator).__name__} has no {missing[0]}"
        )
    task = evaluator.task()
    if not isinstance(task, Task) or measure_of(evaluator) != ACCURACY:
        raise UsageError(
            f"networks of images are carried over to images and compared by accuracy, and {type(evaluator).__name__} "
            f"has a {type(task).__name__} and {measure_of(evaluator).label}"
        )
    if FEATURES in ways and not hasattr(evaluator, "splits"):
        raise UsageError(f"features are read from splits(), and {type(evaluator).__name__} has none; leave that way")
    return task


def _candidates(source: Source, evaluator: Finishable, task: Task, asked: Asked, begun: bool) -> list[Candidate]:
    """The found network, the hand-designed one, random search's best; in this order, and scaled as asked. The known network that
    the search began with is there in place of a hand-designed one."""
    found, *others = source.candidates
    hand = next((c for c in others if c.is_hand_designed), None)
    searched = [c for c in others if c is not hand]

    def grown(candidate: Candidate) -> Candidate:
        return replace(candidate, network=scaled(candidate.network, asked.scale, task))

    found, searched = grown(found), [grown(c) for c in searched]
    if source.known:
        hand = None
    elif hand is None or not begun:  # there are no weights to begin with, so it may be as large as here is asked
        named = hand_designed(evaluator)
        if named is None:
            hand = None
        else:
            space = HandDesigned(found.network.sized(task)[0], evaluator)
            hand = Candidate(named[0], named[0], named[1], carried(space, space.genotype))
    return [found, *([hand] if hand is not None else []), *searched]


def _tell_images(source: Source, task: Task, notes: list[str]) -> None:
    assert source.finished is not None
    theirs = source.finished.task.input_shape
    if task.input_shape == theirs:
        shape = " x ".join(map(str, theirs))
        notes.append(f"All ways had images of {shape} (channels, height, width), as the finished weights had.")


def entry_of(way: str, candidate: Candidate, evaluator: Finishable, task: Task, begun: bool = False) -> Entry:
    """A network by one way; `begun`: whether another way begins with finished weights."""
    network, own = candidate.network, evaluator
    # The hand-designed network is sized for the classes that its weights tell apart, also where it is trained from
    # scratch beside: so it is one network in all ways.
    keeps_size = begun and candidate.is_hand_designed and candidate.classes is not None
    if way != SCRATCH or keeps_size:
        network = replace(network, classes=candidate.classes)
    if way != SCRATCH and candidate.epsilon is not None and hasattr(evaluator, "batch_norm_epsilon"):
        own = replace(own, batch_norm_epsilon=candidate.epsilon)  # type: ignore[type-var]
    parameters, multiply_adds, kept = network.sized(task)
    # Batch norms for trainings of many thousand steps, as of NASNet's on ImageNet, would be tested with averages of the
    # beginning. Features are read with the averages that the weights came with.
    slow = way != FEATURES and kept is not None and SHORT_DECAY < kept < 1
    if slow and kept is not None and steps_of(evaluator)[1] * (1 - kept) < _SETTLED:
        network = replace(network, batch_norm_decay=SHORT_DECAY)
    return Entry(way, candidate, network, own, parameters, multiply_adds, kept)


def shortened(entries: Sequence[Entry]) -> list[str]:
    """What there is to say of batch norms that were made to forget faster, a sentence for each network."""
    said = {}
    for entry in entries:
        if entry.network.batch_norm_decay is not None and entry.kept is not None:
            steps = steps_of(entry.evaluator)[1]
            said[entry.candidate.name] = (
                f"The batch norms of {entry.candidate.name} keep {SHORT_DECAY:g} of their running averages a step here, and "
                f"not {entry.kept:.4g} as the network has it: after {steps:,} steps these would still be "
                f"{100 * entry.kept**steps:.0f} % of what they began as."
            )
    return list(said.values())
