"""Training recipes: learning rate, optimizer, augmentation, sizes and schedule of an image classifier as choices.

The space edits a child: it decides the learning rate and the `settings` of the training, of which the evaluator takes all
others. `Product(ResidualNetwork(), TrainingRecipe())` searches a network together with its training.
docs/decisions/0042-training-recipe.md says what is a choice and why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype, Scalar
from archsmith.core.shown import shown
from archsmith.core.space import identity
from archsmith.core.walk import Choose
from archsmith.nn.mobile_plan import fraction, whole
from archsmith.spaces.formulas import check_model, network_of
from archsmith.spaces.training_recipe.architecture import (
    CROPS,
    KIND,
    MAX_BATCH,
    MIXES,
    OPTIMIZERS,
    POLICIES,
    SCHEDULES,
    check_architecture,
    flag,
    learning_rate_of,
    one_of,
    positive,
    settings_of,
    strength,
)
from archsmith.spaces.training_recipe.diagram import described, diagram_of
from archsmith.spaces.training_recipe.known import KNOWN


@dataclass(frozen=True)
class TrainingRecipe:
    """The space. Each option tuple is one question; a tuple of one is not asked, nor is what does not apply.

    Args:
        model: the network that is trained where the space is searched alone, by name (`archsmith.nn.models`).
        optimizers: of "sgd" (Nesterov's momentum), "adamw" and "muon".
        sgd_learning_rates, adamw_learning_rates, muon_learning_rates: the peak at a batch of 64. It is scaled with the batch size.
        sgd_weight_decays, adamw_weight_decays, muon_weight_decays: AdamW's is decoupled, so it is larger. Muon's is of what it
            leaves to SGD, since it keeps the norm of filters.
        sgd_momentums, muon_momentums: Nesterov's.
        decay_norms: whether weight decay applies to norms and biases.
        batch_sizes: pictures a step.
        label_smoothings: the part of the target that is spread over all classes.
        crops: of "none", "shift" (by an eighth of the side), "affine" (turned by up to 10 degrees, scaled by up to 15 %, moved by up
            to a tenth) and "resized" (random resized crops).
        crop_areas: the smallest part of a picture that a resized crop has.
        flips: whether pictures are mirrored at random, which is wrong for letters. None: decided by the data.
        colours: the strength of random brightness, contrast and saturation.
        policies: None, "trivial" (TrivialAugment), or a policy of AutoAugment: "cifar10", "imagenet", "svhn".
        mixes: None, "mixup" and "cutmix".
        train_sizes: the side of training pictures at the end of the training, as a part of the evaluator's size.
        first_sizes: that at the beginning, as a part of the side at the end. Below 1, pictures grow.
        averages: the decay of a moving average of the weights; 0: none.
        schedules: of "step", "cosine", "linear", "trapezoid" and "constant".
        warmups: the part of the training during which the learning rate rises.

    Raises UsageError for other options.
    """

    model: str = "wrn_16_1"
    optimizers: tuple[str, ...] = OPTIMIZERS
    sgd_learning_rates: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1, 0.2)
    adamw_learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3)
    muon_learning_rates: tuple[float, ...] = (0.0175, 0.035, 0.07, 0.14)
    sgd_weight_decays: tuple[float, ...] = (1e-4, 5e-4, 2e-3)
    adamw_weight_decays: tuple[float, ...] = (0.01, 0.05, 0.2)
    muon_weight_decays: tuple[float, ...] = (5e-4,)
    sgd_momentums: tuple[float, ...] = (0.9,)
    muon_momentums: tuple[float, ...] = (0.6,)
    decay_norms: tuple[bool, ...] = (False, True)
    batch_sizes: tuple[int, ...] = (32, 64, 128)
    label_smoothings: tuple[float, ...] = (0.0, 0.1)
    crops: tuple[str, ...] = CROPS
    crop_areas: tuple[float, ...] = (0.2, 0.35, 0.6)
    flips: tuple[bool | None, ...] = (None, False, True)
    colours: tuple[float, ...] = (0.0, 0.3)
    policies: tuple[str | None, ...] = POLICIES
    mixes: tuple[str | None, ...] = MIXES
    train_sizes: tuple[float, ...] = (0.75, 1.0)
    first_sizes: tuple[float, ...] = (0.5, 0.75, 1.0)
    averages: tuple[float, ...] = (0.0, 0.99, 0.998)
    schedules: tuple[str, ...] = ("step", "cosine", "linear", "trapezoid")
    warmups: tuple[float, ...] = (0.0, 0.05, 0.15)

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        check_model(self)
        _check_options(self)

    @classmethod
    def desk(cls) -> TrainingRecipe:
        """Recipes for minutes on two cores; "modern" is among them."""
        return cls(
            sgd_learning_rates=(0.05, 0.1, 0.2),
            adamw_learning_rates=(1e-3, 2e-3),
            muon_learning_rates=(0.035, 0.07),
            sgd_weight_decays=(5e-4, 2e-3),
            adamw_weight_decays=(0.05,),
            decay_norms=(False,),
            batch_sizes=(32, 64, 128),
            crops=("shift", "resized"),
            crop_areas=(0.35,),
            flips=(None,),
            policies=(None, "trivial"),
            mixes=(None, "mixup"),
            train_sizes=(1.0,),
            first_sizes=(0.5, 1.0),
            averages=(0.0, 0.998),
            schedules=("cosine", "trapezoid"),
            warmups=(0.15,),
        )

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The recipe that the answers describe."""

        def ask(name: str, options: Sequence[Any]) -> Any:
            return choose(name, options) if len(options) > 1 else options[0]

        return {
            "kind": self.kind,
            "optimizer": self._optimizer(ask),
            "batch_size": ask("batch_size", self.batch_sizes),
            "label_smoothing": ask("label_smoothing", self.label_smoothings),
            "augmentation": self._augmentation(ask),
            "size": {"train": ask("size.train", self.train_sizes), "first": ask("size.first", self.first_sizes)},
            "average": ask("average", self.averages),
            "schedule": {
                "name": ask("schedule.name", self.schedules),
                "warmup": ask("schedule.warmup", self.warmups),
            },
        }

    def _optimizer(self, ask: Callable[[str, Sequence[Any]], Any]) -> dict[str, Any]:
        name = ask("optimizer.name", self.optimizers)
        rates, decays = {
            "sgd": (self.sgd_learning_rates, self.sgd_weight_decays),
            "adamw": (self.adamw_learning_rates, self.adamw_weight_decays),
            "muon": (self.muon_learning_rates, self.muon_weight_decays),
        }[name]
        optimizer = {
            "name": name,
            # Each optimizer has names of its own: a rate of 0.1 means nothing to AdamW.
            "learning_rate": ask(f"{name}.learning_rate", rates),
            "weight_decay": ask(f"{name}.weight_decay", decays),
            "decay_norms": ask("optimizer.decay_norms", self.decay_norms),
        }
        momenta = {"sgd": self.sgd_momentums, "muon": self.muon_momentums}
        return optimizer | ({"momentum": ask(f"{name}.momentum", momenta[name])} if name in momenta else {})

    def _augmentation(self, ask: Callable[[str, Sequence[Any]], Any]) -> dict[str, Any]:
        crop = ask("augmentation.crop", self.crops)
        area = {"crop_area": ask("augmentation.crop_area", self.crop_areas)} if crop == "resized" else {}
        return {
            "crop": crop,
            **area,
            "flip": ask("augmentation.flip", self.flips),
            "colour": ask("augmentation.colour", self.colours),
            "policy": ask("augmentation.policy", self.policies),
            "mix": ask("augmentation.mix", self.mixes),
        }

    def genotype(self, architecture: Architecture) -> Genotype:
        """The genotype of a recipe, such as one of `standards()`.

        Raises UsageError when the recipe is not a point of this space; the message names the first value that is no option.
        """
        check_architecture(architecture)
        values = _values(architecture)
        answers: dict[str, Answer] = {}

        def choose(name: str, options: Sequence[Scalar]) -> Scalar:
            taken = next((option for option in options if _is_same(option, values[name])), _NONE)
            if taken is _NONE:
                raise _not_a_point(name, values[name], options)
            answers[name] = taken
            return taken

        reached = _values(self.architecture(choose))  # type: ignore[arg-type]
        for name, value in values.items():  # what was not asked has one option
            if not _is_same(reached[name], value):
                raise _not_a_point(name, value, (reached[name],))
        return Genotype(identity(self), answers)

    def canonical(self, architecture: Architecture) -> Any:
        """The recipe itself: it holds nothing that does not apply."""
        check_architecture(architecture)
        return architecture

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The hand-designed network with this recipe. Raises UsageError when the recipe is none, or the task not of images."""
        check_architecture(architecture)  # refused before a network is made
        return self.edit(architecture, self.baseline(task), task)

    def baseline(self, task: AnyTask) -> Child:
        """The network, trained as the evaluator has it. Raises UnknownName when there is none of that name."""
        return network_of(self, task)

    def edit(self, architecture: Architecture, child: Child, task: AnyTask) -> Child:
        """The child with the learning rate and the settings of this recipe.

        Settings that the child has already, and the recipe does not decide, stay.
        """
        check_architecture(architecture)
        if not isinstance(task, Task) or len(task.input_shape) != 3:
            raise UsageError(f"a training recipe is for images, and the task is a {type(task).__name__}")
        settings = settings_of(architecture, min(task.input_shape[1:]))
        return dataclasses.replace(
            child, learning_rate=learning_rate_of(architecture), settings={**child.settings, **settings}
        )

    def standards(self) -> Mapping[str, Architecture | None]:
        """What a recipe that was searched is compared with: "modern", "muon" (Jordan et al. 2024), "plain" (He et al. 2016) and
        "autoaugment" (Cubuk et al. 2019)."""
        return {name: made() for name, made in KNOWN.items()}

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """The layers of the network, and the most of them on one way through it; a recipe has none."""
        from archsmith.nn.models import layers_and_depth

        return layers_and_depth(self.model, task)

    # --- the drawing --------------------------------------------------------------------------------------------------

    def formula(self, architecture: Architecture) -> str:
        """The recipe as a sentence."""
        check_architecture(architecture)
        return described(architecture)

    def latex(self, architecture: Architecture) -> str:
        """The sentence for TeX."""
        return rf"\text{{{self.formula(architecture).replace('%', chr(92) + '%')}}}"

    def diagram(self, architecture: Architecture) -> Diagram:
        """From a picture to the weights that are kept."""
        check_architecture(architecture)
        return diagram_of(architecture)


_NONE: Any = object()


def _values(architecture: Architecture) -> dict[str, Any]:
    """What a recipe says, by the name of the choice."""
    optimizer = architecture["optimizer"]
    own = ("learning_rate", "weight_decay", "momentum")
    values = {f"{optimizer['name']}.{name}": optimizer[name] for name in own if name in optimizer}
    values |= {f"optimizer.{name}": optimizer[name] for name in ("name", "decay_norms")}
    values |= {name: architecture[name] for name in ("batch_size", "label_smoothing", "average")}
    for group in ("augmentation", "size", "schedule"):
        values |= {f"{group}.{name}": value for name, value in architecture[group].items()}
    return values


def _is_same(option: Any, value: Any) -> bool:
    """Whether these are equal, where True is not 1."""
    return isinstance(option, bool) == isinstance(value, bool) and bool(option == value)


def _not_a_point(name: str, value: Any, options: Sequence[Any]) -> UsageError:
    return UsageError(
        f"this recipe is no point of the space: {name} is {shown(value)}, not one of {', '.join(map(shown, options))}"
    )


def _check_options(space: TrainingRecipe) -> None:
    """Raise UsageError unless the options make sense; lists, as JSON has them, become tuples."""
    of = "TrainingRecipe"
    for field in fields(space):
        values = getattr(space, field.name)
        if field.name == "model":
            continue
        if not isinstance(values, list | tuple) or not values or len(set(map(repr, values))) != len(values):
            raise UsageError(f"{field.name} of {of} must be a tuple of different values, got {shown(values)}")
        object.__setattr__(space, field.name, tuple(values))
    names: tuple[tuple[str, str, tuple[str | None, ...]], ...] = (
        ("optimizers", "optimizer", OPTIMIZERS),
        ("crops", "crop", CROPS),
        ("policies", "augmentation policy", POLICIES),
        ("mixes", "mix", MIXES),
        ("schedules", "learning-rate schedule", SCHEDULES),
    )
    for name, what, options in names:
        for value in getattr(space, name):
            one_of(what, value, options)
    for name in ("sgd_learning_rates", "adamw_learning_rates", "muon_learning_rates"):
        for value in getattr(space, name):
            positive(f"{name} of {of}", value)
    for name in ("crop_areas", "train_sizes", "first_sizes"):
        for value in getattr(space, name):
            positive(f"{name} of {of}", value, 1)
    for name in ("sgd_weight_decays", "adamw_weight_decays", "muon_weight_decays"):
        for value in getattr(space, name):
            fraction(f"{name} of {of}", value, 0, 1e6)
    for name in ("sgd_momentums", "muon_momentums", "label_smoothings", "averages", "warmups"):
        for value in getattr(space, name):
            fraction(f"{name} of {of}", value, 0, 1)
    for value in space.colours:
        strength(f"colours of {of}", value)
    for value in space.batch_sizes:
        whole(f"batch_sizes of {of}", value, 2, MAX_BATCH)
    for value in space.decay_norms:
        flag(f"decay_norms of {of}", value)
    for value in space.flips:
        flag(f"flips of {of}", value, (None, False, True))
