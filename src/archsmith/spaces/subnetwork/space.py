"""How much of a network whose weights are published is kept, as a space (Cai et al. 2020, "Once-for-All: Train One Network and
Specialize It for Efficient Deployment", searches depth, kernel and width of a network in the same way).

A child starts from the weights of the whole network. `docs/decisions/0049-pretrained-weights.md` says what is kept and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.config import added_later
from archsmith.core.diagram import Diagram
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.shown import shown
from archsmith.core.space import identity
from archsmith.core.walk import Choose, choose_known
from archsmith.nn.mobile_plan import whole
from archsmith.spaces.subnetwork.architecture import (
    KIND,
    LARGEST_SIZE,
    LEAST_SIZE,
    check_architecture,
    kernels_of,
    narrows,
    network_called,
    network_of,
    whole_architecture,
)
from archsmith.spaces.subnetwork.diagram import diagram_of
from archsmith.spaces.subnetwork.known import KNOWN, MobileNetwork

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from archsmith.pretrained import Weights


@dataclass(frozen=True)
class Subnetwork:
    """The space. Options that are one alone are not asked.

    Args:
        of: the network: "efficientnet_lite0", "efficientnet_b0", "mobilenet_v3_large" or "mnasnet_100" (MnasNet-B1).
        weights: "imagenet" (a package of the extra `pretrained` has those of EfficientNet-Lite0), the path of a safetensors file
            with timm's parameter names, or None: networks start from random weights.
        sha256: of the weights, as `archsmith.pretrained.digest_of` has it; read from them if it is empty. Other weights are refused.
        stages: how many stages may be kept; None: any number from 3 on.
        expansions: parts of the inner channels of a stage's blocks that may be kept.
        frozen: how many stages may stay as they are while the rest is trained, with the stem; more than there are means all.
        sizes: sides in pixels that the pictures may have which the network sees; empty: the evaluator decides, once for all.

    Raises UsageError for other options, and for weights that cannot be read.
    """

    of: str = "efficientnet_lite0"
    weights: str | None = "imagenet"
    sha256: str = ""
    stages: tuple[int, ...] | None = None
    expansions: tuple[float, ...] = (0.5, 0.75, 1.0)
    frozen: tuple[int, ...] = (0, 3, 99)
    sizes: tuple[int, ...] = added_later(())

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        most = len(network_called(self.of).stages)
        for name in ("stages", "expansions", "frozen", "sizes"):
            values = getattr(self, name)
            if name == "stages" and values is None:
                continue
            may_be_empty = name == "sizes"
            if not isinstance(values, list | tuple) or not (values or may_be_empty) or len(set(values)) != len(values):
                raise UsageError(f"{name} of Subnetwork must be a tuple of different values, got {shown(values)}")
            object.__setattr__(self, name, tuple(values))
        for value in self.stages or ():
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UsageError(f"stages of Subnetwork must be from 1 to {most} for {self.of}, got {shown(value)}")
        for part in self.expansions:
            if not 0 < part <= 1:
                raise UsageError(f"expansions of Subnetwork must be above 0 and at most 1, got {shown(part)}")
        for value in self.frozen:
            if not isinstance(value, int) or value < 0:
                raise UsageError(f"frozen of Subnetwork must be whole numbers from 0 on, got {shown(value)}")
        for value in self.sizes:
            whole("each of the sizes of Subnetwork", value, LEAST_SIZE, LARGEST_SIZE)
        if self.weights is not None and not self.sha256:
            object.__setattr__(self, "sha256", self._published().sha256)

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe."""

        def ask(name: str, options: Sequence[Any]) -> Any:
            return choose(name, options) if len(options) > 1 else options[0]

        whole = network_called(self.of)
        most = len(whole.stages)
        kept = ask("stages", self.stages or tuple(range(min(3, most), most + 1)))
        stages = []
        for i, blocks in enumerate(whole.stages[:kept]):
            stages.append(
                {
                    "depth": ask(f"{i}.depth", tuple(range(1, len(blocks) + 1))),
                    "kernel": ask(f"{i}.kernel", kernels_of(blocks)),
                    "expansion": ask(f"{i}.expansion", self.expansions) if narrows(blocks) else 1.0,
                }
            )
        head = ask("head", (True, False)) if kept == most else False
        frozen = ask("frozen", tuple(sorted({min(value, kept) for value in self.frozen})))
        size = {"size": ask("size", self.sizes)} if self.sizes else {}
        return {"kind": self.kind, "of": self.of, "stages": stages, "head": head, "frozen": frozen, **size}

    def genotype(self, architecture: Architecture) -> Genotype:
        """The genotype of an architecture. Raises UsageError when it is not a point of this space."""
        check_architecture(architecture)
        answers: dict[str, Any] = {}
        values = {"stages": len(architecture["stages"]), "head": architecture["head"], "frozen": architecture["frozen"]}
        values["size"] = architecture.get("size")
        values |= {
            f"{i}.{name}": value for i, stage in enumerate(architecture["stages"]) for name, value in stage.items()
        }
        if self.architecture(choose_known(values, answers)) != architecture:  # type: ignore[arg-type]
            raise UsageError("this network is no point of the space: it has values that the space does not ask for")
        return Genotype(identity(self), answers)

    def whole(self, size: int | None = None) -> Architecture:
        """The whole network, all of it trained, for pictures of `size` pixels a side; None: the evaluator decides."""
        return whole_architecture(self.of, size)

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child of any architecture of this kind, for images [channels, height, width] of any size, from 0 to 1.

        Its `start` gives the weights. The network whitens pictures itself, as the weights were trained. Raises UsageError when the
        architecture is not one, or the task is not of images.
        """
        if not isinstance(task, Task) or len(task.input_shape) != 3:
            raise UsageError(
                f"Subnetwork builds networks for images [channels, height, width], and the task is {shown(task)}"
            )
        check_architecture(architecture)
        from archsmith.pretrained.weights import preparation_of
        from archsmith.spaces.subnetwork.network import Network

        network, channels = network_of(architecture), task.input_shape[0]
        preparation = preparation_of(architecture["of"], self.weights)
        model = Network(network, task.num_classes, channels, preparation, architecture["frozen"])
        start = None if self.weights is None else partial(self._start, network, task)
        size = {"size": architecture["size"]} if "size" in architecture else {}
        return Child(model, start=start, settings={"whiten": False, "batch_norm_epsilon": network.epsilon, **size})

    def _published(self) -> Weights:
        """The weights of the whole network."""
        from archsmith.pretrained import imagenet, weights_from_file

        assert self.weights is not None
        return imagenet(self.of) if self.weights == "imagenet" else weights_from_file(self.of, self.weights)

    def _start(self, network: MobileNetwork, task: Task) -> dict[str, Tensor]:
        """The weights that a subnetwork starts from. Raises UsageError if they are not those of the space.

        The classifier's are among them where the whole network classifies as many classes as it was trained on.
        """
        from archsmith.spaces.subnetwork.slicing import missing, sliced

        published = self._published()
        if published.sha256 != self.sha256:
            raise UsageError(
                f"the weights {published.source} are not those that the search began with: their SHA-256 is "
                f"{published.sha256[:12]}..., not {self.sha256[:12]}..."
            )
        tensors, whole = published.tensors(), network_called(self.of)
        if wrong := missing(tensors, _shapes(whole)):
            raise UsageError(f"the weights {published.source} are not of {self.of}: {'; '.join(wrong[:3])}")
        found = sliced(tensors, whole, network, task.input_shape[0])
        classifier = {name: tensor for name, tensor in tensors.items() if name.startswith("classifier.")}
        if network == whole and all(len(tensor) == task.num_classes for tensor in classifier.values()):
            found |= classifier
        return found

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """How many convolutions the network has without those of squeeze-and-excitation, and the most of them on one way."""
        network = network_of(architecture)
        each = {"inverted": 3, "separable": 2, "conv": 1}
        number = 1 + (network.head > 0) + sum(each[block.operation] for blocks in network.stages for block in blocks)
        return number, number

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """The network block by block, each stage in a frame of its own; arcs are shortcuts."""
        check_architecture(architecture)
        return diagram_of(architecture)


def network_of_weights(path: str) -> str:
    """The name of the network whose weights a safetensors file has.

    Raises UsageError if it cannot be read, or has the weights of none of the networks.
    """
    from archsmith.pretrained.weights import read_tensors
    from archsmith.spaces.subnetwork.slicing import missing

    tensors = read_tensors(path)
    wrong = {name: missing(tensors, _shapes(whole)) for name, whole in KNOWN.items()}
    name = min(wrong, key=lambda each: len(wrong[each]))
    if wrong[name]:
        raise UsageError(
            f"the weights {path} are of none of {', '.join(KNOWN)}, in timm's names; of {name}, which fits best: "
            f"{'; '.join(wrong[name][:3])}"
        )
    return name


def _shapes(whole: MobileNetwork) -> dict[str, torch.Size]:
    """The shapes of a whole network's tensors by name, but for the classifier's."""
    import torch

    from archsmith.spaces.subnetwork.network import Network

    with torch.device("meta"):
        return {name: t.shape for name, t in Network(whole, 1000).state_dict().items() if "classifier" not in name}
