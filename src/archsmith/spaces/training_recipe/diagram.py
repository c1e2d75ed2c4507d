"""A training recipe as a sentence and as a drawing. The architecture has been checked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.genotype import Architecture
from archsmith.spaces.training_recipe.architecture import learning_rate_of

_OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon"}
_POLICIES = {"trivial": "TrivialAugment"}
_MIXES = {"mixup": "mixup", "cutmix": "CutMix"}


def described(architecture: Architecture) -> str:
    """A sentence, from the pictures to the weights that are kept."""
    parts = [", ".join(_pictures(architecture)), ", ".join(_steps(architecture)), ", ".join(_rates(architecture))]
    return "; ".join(parts + _kept(architecture))


def _pictures(architecture: Architecture) -> list[str]:
    """What a picture goes through before the network sees it."""
    of, size = architecture["augmentation"], architecture["size"]
    parts = []
    if of["policy"] is not None:
        parts.append(_POLICIES.get(of["policy"], f"AutoAugment ({of['policy']})"))
    if of["crop"] == "resized":
        parts.append(f"resized crops from {100 * of['crop_area']:g} % of the area")
    elif of["crop"] == "affine":
        parts.append("turned, scaled and moved a little")
    elif of["crop"] == "shift":
        parts.append("shifts")
    flips = {True: "flips", None: "flips where the data allow them", False: ""}[of["flip"]]
    parts += [flips] if flips else []
    if of["colour"]:
        parts.append(f"colour {of['colour']:g}")
    if of["mix"] is not None:
        parts.append(_MIXES[of["mix"]])
    if size["train"] < 1 or size["first"] < 1:
        parts.append(_sides(size))
    return parts or ["no augmentation"]


def _sides(size: Mapping[str, float]) -> str:
    last = f"{100 * size['train']:g} % of the size"
    return f"{100 * size['train'] * size['first']:g} % growing to {last}" if size["first"] < 1 else last


def _steps(architecture: Architecture) -> list[str]:
    """The optimizer, the batch and the target."""
    of = architecture["optimizer"]
    parts = [_OPTIMIZERS[of["name"]] + (f" with Nesterov momentum {of['momentum']:g}" if of.get("momentum") else "")]
    parts.append(f"batches of {architecture['batch_size']}")
    if of["weight_decay"]:
        parts.append(
            f"weight decay {of['weight_decay']:g}" + ("" if of["decay_norms"] else " (not of norms and biases)")
        )
    if architecture["label_smoothing"]:
        parts.append(f"label smoothing {architecture['label_smoothing']:g}")
    return parts


def _rates(architecture: Architecture) -> list[str]:
    """The learning rate over the training."""
    of = architecture["schedule"]
    parts = [f"learning rate {learning_rate_of(architecture):g}, {of['name']}"]
    return parts + ([f"warm-up over {100 * of['warmup']:g} %"] if of["warmup"] else [])


def _kept(architecture: Architecture) -> list[str]:
    return [f"moving average {architecture['average']:g} of the weights"] if architecture["average"] else []


def diagram_of(architecture: Architecture) -> Diagram:
    """From a picture to the weights that are kept."""
    of = architecture["optimizer"]
    nodes = [Node("picture", "picture", role="input")]
    nodes += [
        Node(f"picture {i}", part, role="pool", group="pictures") for i, part in enumerate(_pictures(architecture))
    ]
    nodes.append(Node("network", "network", "in training", "dense"))
    optimizer, *others = _steps(architecture)
    nodes.append(Node("optimizer", optimizer, ", ".join(others), "combine"))
    rate, *warmup = _rates(architecture)
    nodes.append(Node("schedule", rate, ", ".join(warmup), "activation"))
    kept = _kept(architecture) or ["weights of the last step"]
    nodes.append(Node("weights", kept[0], "validated, tested and kept", "output"))
    edges = tuple(Edge(a.id, b.id) for a, b in itertools.pairwise(nodes))
    return Diagram(
        f"A training recipe: {_OPTIMIZERS[of['name']]}, {architecture['schedule']['name']} schedule",
        tuple(nodes),
        edges,
        "chain",
    )
