"""A found network of images as it is carried over: one space in which nothing is left to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from archsmith.core.child import AnyTask, Child, Task, as_child
from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.space import Space, build, decode, identity
from archsmith.core.walk import Choose


@dataclass(frozen=True)
class Carried:
    """A network of one space, as a space in which nothing is left to choose.

    Args:
        space: builds it.
        genotype: what is built, as plain JSON; None where there is only an architecture.
        plain: its architecture, where there is no genotype.
        classes: how many its finished weights tell apart. It is built for these, and then has a new classifier.
            None: it is built for the classes of its task.
        batch_norm_decay: of every batch norm; None: the network's own.
    """

    space: Space
    genotype: Mapping[str, Any] | None = None
    plain: Architecture = None
    classes: int | None = None
    batch_norm_decay: float | None = None

    @property
    def what(self) -> Genotype | Architecture:
        """What is built."""
        return Genotype.from_json(self.genotype) if self.genotype is not None else self.plain

    def architecture(self, choose: Choose) -> Architecture:
        what = self.what
        return decode(self.space, what) if isinstance(what, Genotype) else what

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child, without its finished weights, and with a new classifier where it is to begin with some."""
        if not isinstance(task, Task):
            raise UsageError(f"networks of images are carried over to images, and the task is a {type(task).__name__}")
        built_for = task if self.classes is None else Task(task.input_shape, self.classes)
        child = as_child(build(self.space, self.what, built_for))
        if self.classes is not None:
            from archsmith.nn.classifier import replace_classifier

            replace_classifier(child.model, task.input_shape, task.num_classes)
        if self.batch_norm_decay is not None:
            from archsmith.nn.classifier import set_batch_norm_decay

            set_batch_norm_decay(child.model, self.batch_norm_decay)
        return child

    @property
    def only(self) -> Genotype:
        """The only one of this space."""
        return Genotype(identity(self), {})

    def sized(self, task: Task) -> tuple[int, int, float | None]:
        """Its parameters, its multiply-adds for an image, and the largest part that a batch norm keeps a step.

        Raises UsageError if the network cannot be built for the task, or cannot read its images.
        """
        import torch

        from archsmith.nn.classifier import slowest_batch_norm
        from archsmith.nn.count import count, count_parameters

        try:
            with torch.device("meta"):
                model = self.build(None, task).model
                return count_parameters(model), count(model, task.input_shape).multiply_adds, slowest_batch_norm(model)
        except ArchsmithError:
            raise
        except Exception as error:  # a user's own builder and model may raise anything
            shape = " x ".join(map(str, task.input_shape))
            raise UsageError(
                f"a transfer needs a network that can be built for the new data, images of {shape} with {task.num_classes} "
                f"classes, and that of the space {identity(self.space)['name']} cannot: {type(error).__name__}: {error}"
            ) from error

    def kept_short(self, decay: float) -> Carried:
        """The same with batch norms that keep so much a step."""
        return replace(self, batch_norm_decay=decay)


def carried(space: Space, what: Genotype | Architecture) -> Carried:
    """A network of a space, by its genotype or its architecture."""
    return Carried(space, what.to_json()) if isinstance(what, Genotype) else Carried(space, plain=what)
