"""What the architecture of a subnetwork holds, what of it is refused, and the network that it describes. Plain Python.

    {"kind": "subnetwork", "of": "efficientnet_lite0",
     "stages": [{"depth": 1, "kernel": 3, "expansion": 1.0}, {"depth": 2, "kernel": 3, "expansion": 0.75}, ...],
     "head": True, "frozen": 0, "size": 128}

Stages are the first ones of the network `of`. A stage keeps its first `depth` blocks, the middle `kernel` × `kernel` weights of
its depthwise filters, and `expansion` of their channels, the nearest multiple of 8. `head` says whether the 1×1 convolution before
the classifier is kept; it can be where all stages are. The weights of the stem and of the first `frozen` stages are not trained.
`size` is the side of the pictures that the network sees, in pixels; without it, the evaluator decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.shown import shown
from archsmith.nn.mobile_plan import check_keys, whole
from archsmith.spaces.subnetwork.known import KNOWN, Block, MobileNetwork

KIND = "subnetwork"
LEAST_SIZE, LARGEST_SIZE = 32, 1024  # pixels a side of a network's input: it halves them five times
CHANNEL_STEP = 8  # numbers of channels are multiples of it, which processors compute faster


def network_called(name: Any) -> MobileNetwork:
    """The whole network of this name. Raises UnknownName."""
    if not isinstance(name, str) or name not in KNOWN:
        raise UnknownName("network with published weights", str(name)[:80], list(KNOWN))
    return KNOWN[name]


def check_architecture(architecture: Any) -> None:
    """Raise UsageError unless this is a subnetwork, as the module's docstring has it."""
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'an architecture of this space is an object with "kind": "{KIND}", got {shown(architecture)}')
    size = ("size",) if "size" in architecture else ()
    check_keys("a subnetwork", architecture, ("kind", "of", "stages", "head", "frozen", *size))
    whole_network = network_called(architecture["of"])
    stages, most = architecture["stages"], len(whole_network.stages)
    if not isinstance(stages, list | tuple) or not 1 <= len(stages) <= most:
        raise UsageError(
            f"stages of a subnetwork of {whole_network.name} must be a list of 1 to {most}, got {shown(stages)}"
        )
    for i, (stage, blocks) in enumerate(zip(stages, whole_network.stages, strict=False)):
        check_keys(f"stage {i}", stage, ("depth", "kernel", "expansion"))
        whole(f"depth of stage {i}", stage["depth"], 1, len(blocks))
        if stage["kernel"] not in kernels_of(blocks):
            allowed = ", ".join(map(str, kernels_of(blocks)))
            raise UsageError(f"kernel of stage {i} must be one of {allowed}, got {shown(stage['kernel'])}")
        _check_expansion(f"expansion of stage {i}", stage["expansion"], blocks)
    if not isinstance(architecture["head"], bool):
        raise UsageError(f"head of a subnetwork must be true or false, got {shown(architecture['head'])}")
    if architecture["head"] and len(stages) < most:
        raise UsageError(f"a subnetwork has a head if it has all {most} stages, and this one has {len(stages)}")
    whole("frozen of a subnetwork", architecture["frozen"], 0, len(stages))
    if size:
        whole("size of a subnetwork", architecture["size"], LEAST_SIZE, LARGEST_SIZE)


def _check_expansion(what: str, value: Any, blocks: tuple[Block, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UsageError(f"{what} must be a number above 0 and at most 1, got {shown(value)}")
    if value < 1 and not narrows(blocks):
        raise UsageError(f"{what} must be 1, since its blocks do not expand what they read, got {shown(value)}")


def kernels_of(blocks: tuple[Block, ...]) -> tuple[int, ...]:
    """The kernels that the blocks of a stage can have: their own and smaller ones."""
    return tuple(range(3, blocks[0].kernel + 1, 2)) or (blocks[0].kernel,)


def narrows(blocks: tuple[Block, ...]) -> bool:
    """Whether the blocks of a stage can have fewer inner channels."""
    return blocks[0].operation == "inverted"


def network_of(architecture: Mapping[str, Any]) -> MobileNetwork:
    """The network that an architecture describes. It has been checked."""
    whole_network = network_called(architecture["of"])
    stages = tuple(
        tuple(_narrowed(block, stage) for block in blocks[: stage["depth"]])
        for stage, blocks in zip(architecture["stages"], whole_network.stages, strict=False)
    )
    return replace(whole_network, stages=stages, head=whole_network.head if architecture["head"] else 0)


def _narrowed(block: Block, stage: Mapping[str, Any]) -> Block:
    hidden = block.hidden
    if block.operation == "inverted" and stage["expansion"] < 1:
        hidden = max(CHANNEL_STEP, round(stage["expansion"] * hidden / CHANNEL_STEP) * CHANNEL_STEP)
    return replace(block, kernel=min(block.kernel, stage["kernel"]), hidden=hidden)


def whole_architecture(name: str, size: int | None = None) -> dict[str, Any]:
    """The architecture of a whole network, for pictures of `size` pixels a side; None: the evaluator decides."""
    stages = [
        {"depth": len(blocks), "kernel": blocks[0].kernel, "expansion": 1.0} for blocks in network_called(name).stages
    ]
    sized = {} if size is None else {"size": size}
    return {"kind": KIND, "of": name, "stages": stages, "head": True, "frozen": 0, **sized}
