"""The child: what is trained, and the task it is built for. A space builds it; an evaluator fills in the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.errors import ChildFailed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """What a child is built for: the shape of one input and the number of classes.

    Args:
        input_shape: channels, height and width of one image.
        num_classes: how many classes the child tells apart.
    """

    input_shape: tuple[int, ...] = (3, 32, 32)
    num_classes: int = 10

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        if not self.input_shape or any(not isinstance(n, int) or n < 1 for n in self.input_shape):
            raise ValueError(f"input_shape must be positive whole numbers, got {self.input_shape}")
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")


@dataclass(frozen=True)
class TextTask:
    """What a language model is built for: a vocabulary, and how large it shall be.

    Args:
        vocabulary: how many different symbols (words or characters) there are.
        layers: recurrent layers.
        hidden: units of each layer. None: as many as `parameters` allow.
        parameters: the most the whole model may have, embedding and softmax included; used where `hidden` is None.
        embedding: numbers of an embedded symbol. None: as many as hidden units.
        tied: whether the softmax uses the embedding's weights.
    """

    vocabulary: int
    layers: int = 2
    hidden: int | None = None
    parameters: int | None = None
    embedding: int | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        plain_fields(self)
        _check_sizes(self, {"vocabulary": 2, "layers": 1})


@dataclass(frozen=True)
class TranslationTask:
    """What a translator is built for: two vocabularies, and how large it shall be (Wu et al. 2016, GNMT).

    Args:
        source_vocabulary, target_vocabulary: how many different symbols each language has.
        layers: recurrent layers of the encoder, and of the decoder; the encoder's first reads both ways.
        hidden: units of each layer. None: as many as `parameters` allow.
        parameters: the most the whole model may have; used where `hidden` is None.
        embedding: numbers of an embedded symbol. None: as many as hidden units.
    """

    source_vocabulary: int
    target_vocabulary: int
    layers: int = 2
    hidden: int | None = None
    parameters: int | None = None
    embedding: int | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        _check_sizes(self, {"source_vocabulary": 2, "target_vocabulary": 2, "layers": 1})


def _check_sizes(task: TextTask | TranslationTask, least: dict[str, int]) -> None:
    """Raise ValueError unless the sizes are whole numbers of at least so much, and either hidden or parameters is given."""
    for name, smallest in {**least, "hidden": 1, "parameters": 1, "embedding": 1}.items():
        value = getattr(task, name)
        if value is None and name not in least:
            continue
        whole_number(value, name, smallest)
    if (task.hidden is None) == (task.parameters is None):
        kind = "text" if isinstance(task, TextTask) else "translation"
        raise ValueError(
            f"give a {kind} task either hidden or parameters, got hidden={task.hidden} and parameters={task.parameters}"
        )


AnyTask: TypeAlias = Task | TextTask | TranslationTask
"""What a space may be asked to build for. A space refuses, with UsageError, those that its networks cannot do."""


@dataclass(frozen=True)
class Child:
    """A model with what else its genotype decided. `None` means: as the evaluator has it.

    A model of images may have more that its training uses: `set_progress(done)` is told, before each step, which part of
    the training is done, from 0 to 1; `forward_with_auxiliary(images)` gives the logits and those of an auxiliary head
    (or None), whose loss is added times `auxiliary_weight`; the head itself is the attribute `auxiliary`.

    Args:
        model: the network, on the CPU, freshly initialised from the current seed.
        learning_rate: the peak learning rate.
        optimizer: from parameters and a learning rate to an optimizer.
        augmentation: from a batch of training images, [count, channels, height, width], to a batch of the same shape, in
            place of the evaluator's flips and crops. Pixels are floats from 0 to 1, before they are whitened.
        augments_bytes: whether the augmentation takes and gives bytes (uint8) instead.
        inherits: whether it starts from the weights of the trial it was made from, if those were kept: wherever layers have the
            same name and shapes, and of networks that describe their channels, wider and deeper ones too.
        start: gives the tensors that a training begins with, by name, in place of freshly initialised ones; what it does not name
            stays as it was initialised. It is called in the process that trains.
        settings: values for fields of the evaluator, by name, that the genotype decides, such as `{"weight_decay": 5e-4}`.
            An evaluator that takes them is a `TakesSettings`. The other fields of a child, where they are given, have
            priority over them.
    """

    model: torch.nn.Module
    learning_rate: float | None = None
    optimizer: Callable[[Iterable[Any], float], torch.optim.Optimizer] | None = None
    augmentation: Callable[[torch.Tensor], torch.Tensor] | None = None
    inherits: bool | None = None
    augments_bytes: bool = False
    start: Callable[[], Mapping[str, torch.Tensor]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


E = TypeVar("E")


@runtime_checkable
class TakesSettings(Protocol):
    """An evaluator some of whose fields a genotype may decide."""

    def with_settings(self, settings: Mapping[str, Any]) -> TakesSettings:
        """The evaluator with these values in its fields. Raises ChildFailed for a field that a child cannot decide."""
        ...


def decided_by(child: Child, evaluator: E) -> E:
    """The evaluator as the child's settings have it: what the child is trained, tested and exported with.

    Raises ChildFailed for settings that the evaluator does not take.
    """
    if not child.settings:
        return evaluator
    if not isinstance(evaluator, TakesSettings):
        raise ChildFailed(
            f"the child decides {', '.join(sorted(child.settings))}, and {type(evaluator).__name__} takes no settings "
            "from a child"
        )
    decided: Any = evaluator.with_settings(child.settings)
    return cast(E, decided)


def as_child(built: Child | torch.nn.Module) -> Child:
    """A bare model as a child with everything else left to the evaluator."""
    return built if isinstance(built, Child) else Child(built)
