"""A module of the user's as the body of a classifier, for example a DINOv2 or a CLIP. Whether the body is trained is the choice.

    {"kind": "backbone", "of": "dinov2", "size": 224, "frozen": False}

The record of the space has the digest of the module's weights, and not the module: records hold no code.
`docs/decisions/0049-pretrained-weights.md` says why.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.shown import shown
from archsmith.core.space import identity
from archsmith.core.walk import Choose
from archsmith.nn.mobile_plan import check_keys, whole

if TYPE_CHECKING:
    from torch import nn

    from archsmith.spaces.backbone.network import Output

KIND = "backbone"
LEAST_SIZE, LARGEST_SIZE = 8, 1024  # pixels a side


@dataclass(frozen=True)
class Backbone:
    """The space. The module gets whitened colour pictures [n, 3, size, size], and gives features [n, features], or maps
    [n, channels, height, width], which are averaged. A linear layer classifies them.

    A child is a copy of the module with its weights. Parameters that do not require a gradient stay as they are also where the
    body is trained, unless none requires one: then all are trained. A module in half precision is taken in fp32.

    Args:
        module: the body. It is copied, and stays as it is. A space that comes from its record has None, and builds nothing.
        size: the side of its pictures in pixels.
        mean, deviation: of each channel of pictures from 0 to 1, by which they are whitened (default: ImageNet's).
        name: what a person calls it (default: the name of its class).
        sha256: of its weights, as `archsmith.pretrained.digest_of` has it; computed if it is empty. Other weights are refused.

    Raises UsageError for a module that takes no such pictures or gives no such tensor, and for other values.
    """

    module: nn.Module | None = field(default=None, repr=False, compare=False)
    size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    name: str = ""
    sha256: str = ""

    _output: Output | None = field(default=None, init=False, repr=False, compare=False)

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        whole("size of Backbone", self.size, LEAST_SIZE, LARGEST_SIZE)
        for what in ("mean", "deviation"):
            object.__setattr__(self, what, _numbers(what, getattr(self, what)))
        if not isinstance(self.name, str) or not self.name.isprintable() or len(self.name) > 100:
            raise UsageError(f"name of Backbone must be a text of one line, got {shown(self.name)}")
        if self.module is None:
            if not (isinstance(self.sha256, str) and self.sha256 and self.name):
                raise UsageError("Backbone needs a module: Backbone(MODULE, size=..., name=...)")
            return
        self._take(self.module)

    def _take(self, module: nn.Module) -> None:
        """Look at the module, and keep a copy of it."""
        from torch import Tensor, nn

        from archsmith.pretrained.weights import digest_of
        from archsmith.spaces.backbone.network import output_of, own_copy

        if not isinstance(module, nn.Module):
            is_class = isinstance(module, type)
            what = f"the class {module.__name__}; write {module.__name__}(...)" if is_class else shown(module)
            raise UsageError(f"module of Backbone must be a torch.nn.Module, got {what}")
        name = self.name or type(module).__name__
        copied = own_copy(module, name)
        found = digest_of({key: value for key, value in copied.state_dict().items() if isinstance(value, Tensor)})
        if self.sha256 not in ("", found):
            raise UsageError(
                f"the weights of the backbone {name!r} are not those that were recorded: their SHA-256 is {found[:12]}..., not "
                f"{self.sha256[:12]}...; give the module that the run began with"
            )
        output = output_of(copied, self.size, name)
        for key, value in (("module", copied), ("name", name), ("sha256", found), ("_output", output)):
            object.__setattr__(self, key, value)

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answer describes."""
        return self.known(frozen=choose("frozen", (False, True)))

    def genotype(self, architecture: Architecture) -> Genotype:
        """The genotype of an architecture. Raises UsageError when it is not a point of this space."""
        self._check(architecture)
        return Genotype(identity(self), {"frozen": architecture["frozen"]})

    def known(self, *, frozen: bool) -> Architecture:
        """The architecture whose body is trained, or not."""
        return {"kind": self.kind, "of": self.name, "size": self.size, "frozen": frozen}

    def _check(self, architecture: Any) -> None:
        """Raise UsageError unless this is an architecture of this space."""
        if not isinstance(architecture, Mapping) or architecture.get("kind") != self.kind:
            raise UsageError(
                f'an architecture of this space is an object with "kind": "{self.kind}", got {shown(architecture)}'
            )
        check_keys("a backbone", architecture, ("kind", "of", "size", "frozen"))
        if not isinstance(architecture["frozen"], bool):
            raise UsageError(f"frozen of a backbone must be true or false, got {shown(architecture['frozen'])}")
        for what, own in (("of", self.name), ("size", self.size)):
            if architecture[what] != own:
                raise UsageError(f"{what} of this backbone must be {own!r}, got {shown(architecture[what])}")

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child, for colour pictures [3, height, width] from 0 to 1, which it whitens itself.

        Raises UsageError when the architecture is not of this space, the task is not of colour pictures, or there is no module.
        """
        self._check(architecture)
        if not isinstance(task, Task) or len(task.input_shape) != 3:
            raise UsageError(
                f"Backbone builds networks for images [channels, height, width], and the task is {shown(task)}"
            )
        if task.input_shape[0] != 3:
            raise UsageError(
                f"the backbone {self.name!r} is for colour pictures, with 3 channels, and these have {task.input_shape[0]}; give the "
                "evaluator channels=3, which makes three equal channels of a grey one"
            )
        if self.module is None or self._output is None:
            raise UsageError(
                f"the backbone {self.name!r} comes from a record, and a record has no module; give the module again, with the same "
                "settings: open_run(STORE, NAME, space=Backbone(MODULE, ...)), load(FOLDER, space=Backbone(MODULE, ...)), "
                "predict(FOLDER, FILES, space=Backbone(MODULE, ...)), or auto(..., pretrained=Backbone(MODULE, ...))"
            )
        from archsmith.pretrained import Preparation
        from archsmith.spaces.backbone.network import Classifier

        model = Classifier(
            copy.deepcopy(self.module),
            self._output,
            task.num_classes,
            Preparation(self.mean, self.deviation, size=self.size),
            frozen=architecture["frozen"],
        )
        settings = {"whiten": False, "size": self.size, "batch_norm_epsilon": None}
        if not self._output.channels_last:
            settings["channels_last"] = False
        return Child(model, settings=settings)

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """The body as one box."""
        self._check(architecture)
        side = f"{self.size} × {self.size} pixels"
        nodes = (
            Node("image", "image", side, role="input"),
            Node("body", self.name, "frozen" if architecture["frozen"] else "trained"),
            Node("classifier", "classifier", "linear", "output"),
        )
        return Diagram(self.name, nodes, (Edge("image", "body"), Edge("body", "classifier")), "chain")


def _numbers(what: str, values: Any) -> tuple[float, ...]:
    """Three numbers, a channel each; deviations are above 0."""
    rule = "three numbers" if what == "mean" else "three numbers above 0"
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise UsageError(f"{what} of Backbone must be {rule}, got {shown(values)}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{what} of Backbone must be {rule}, got {shown(values)}")
        if what == "deviation" and value <= 0:
            raise UsageError(f"{what} of Backbone must be {rule}, got {shown(values)}")
    return tuple(map(float, values))
