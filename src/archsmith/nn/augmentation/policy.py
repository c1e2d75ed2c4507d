"""What an augmentation policy is (Cubuk et al. 2019, section 3): sub-policies of operations with probabilities and magnitudes.

For each image one sub-policy is drawn uniformly; each of its operations, in order, is applied with its probability.

    {"kind": "augmentation", "flip": true, "pad": 0.125, "sub_policies": [
        [{"operation": "ShearX", "probability": 0.9, "magnitude": 4}, {"operation": "Invert", "probability": 0.2}], ...],
     "cutout": 0.5, "reading": "stronger", "fill": [125, 122, 113]}

Flips and crops come first, then the policy, then one cutout of a square (section 4.1). docs/decisions/0019-augmentation.md has
what the paper leaves open. Plain Python, no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import Architecture, canonical_json
from archsmith.core.shown import shown

KIND = "augmentation"
LEVELS = 10
PROBABILITIES = tuple(k / 10 for k in range(11))
READINGS = ("stronger", "weaker")
FILL = (125, 122, 113)  # about the mean colour of CIFAR-10; what the authors' code paints cutouts with
PUBLISHED_SIDE = 331  # pixels of the images that the paper's ranges in pixels are of


@dataclass(frozen=True)
class Operation:
    """One of the 16 operations, with the paper's range of magnitudes (its appendix).

    Args:
        first, last: the magnitudes of levels 0 and 9; None where the operation has none.
        pixels: the range is in pixels of an image of 331, and scales with this side: "width", "height" or "smaller".
        signed: whether the negative magnitude is taken half of the time.
    """

    first: float | None = None
    last: float | None = None
    pixels: str = ""
    signed: bool = False


OPERATIONS: Mapping[str, Operation] = {
    "ShearX": Operation(0, 0.3, signed=True),
    "ShearY": Operation(0, 0.3, signed=True),
    "TranslateX": Operation(0, 150, "width", signed=True),
    "TranslateY": Operation(0, 150, "height", signed=True),
    "Rotate": Operation(0, 30, signed=True),
    "AutoContrast": Operation(),
    "Invert": Operation(),
    "Equalize": Operation(),
    "Solarize": Operation(256, 0),
    "Posterize": Operation(8, 4),
    "Contrast": Operation(0.1, 1.9),
    "Color": Operation(0.1, 1.9),
    "Brightness": Operation(0.1, 1.9),
    "Sharpness": Operation(0.1, 1.9),
    "Cutout": Operation(0, 60, "smaller"),
    "SamplePairing": Operation(0, 0.4),
}
"""The operations by the paper's names, in its order."""


def magnitude(operation: str, level: float, height: int, width: int, reading: str = "stronger") -> float:
    """The magnitude of a level, 0 to 9 (or between two), on images of that size: evenly spaced over the operation's range.

    Shears are a slope, rotations degrees anticlockwise, translations and cutouts whole pixels (rounded down, as in the
    authors' code), Solarize a threshold, Posterize bits that stay; the others are weights of a blend. 0 for operations without magnitude.

    Args:
        reading: "stronger": Solarize and Posterize change more at higher levels. "weaker": the other reading of the paper.
    """
    what = OPERATIONS[operation]
    if what.first is None or what.last is None:
        return 0.0
    first, last = what.first, what.last
    if reading == "weaker" and operation in ("Solarize", "Posterize"):
        first, last = last, first
    value = first + (last - first) * level / (LEVELS - 1)
    if what.pixels:
        side = {"width": width, "height": height, "smaller": min(height, width)}[what.pixels]
        return float(math.floor(value * side / PUBLISHED_SIDE))
    return float(round(value)) if operation == "Posterize" else value


# --- as plain data ----------------------------------------------------------------------------------------------------


def architecture_of(
    sub_policies: Sequence[Sequence[tuple[str, float, int]]],
    *,
    flip: bool = False,
    pad: float = 0.0,
    cutout: float = 0.0,
    reading: str = "stronger",
    fill: Sequence[int] = FILL,
) -> dict[str, Any]:
    """The architecture of (operation, probability, level) triples; by default the policy alone, without flips and crops.

    Args:
        flip: whether images are mirrored at random.
        pad: how far images are moved at random, as a part of their sides.
        cutout: the side of the square that is cut out at the end, as a part of the image's smaller side.
        reading: of Solarize and Posterize, "stronger" or "weaker".
        fill: the colour of what an operation uncovers or cuts out.

    Raises UsageError for what is no policy.
    """
    architecture = {
        "kind": KIND,
        "flip": flip,
        "pad": pad,
        "sub_policies": [[_operation(*triple) for triple in sub_policy] for sub_policy in sub_policies],
        "cutout": cutout,
        "reading": reading,
        "fill": list(fill),
    }
    check_architecture(architecture)
    return architecture


def _operation(name: str, probability: float, level: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"operation": name, "probability": probability}
    if name not in OPERATIONS or OPERATIONS[name].first is not None:
        entry["magnitude"] = level
    return entry


_FIELDS = ("kind", "flip", "pad", "sub_policies", "cutout", "reading", "fill")


def check_architecture(architecture: Any) -> None:
    """Raise UsageError, with the rule and the value, for what is no architecture of this kind."""
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'an augmentation is a JSON object of kind "{KIND}", got {shown(architecture)}')
    wrong = set(architecture) ^ set(_FIELDS)
    if wrong:
        raise UsageError(
            f"an augmentation has the fields {', '.join(_FIELDS)}; wrong or missing: {shown(sorted(map(str, wrong)))}"
        )
    check_options(**{name: architecture[name] for name in ("flip", "pad", "cutout", "reading", "fill")})
    sub_policies = architecture["sub_policies"]
    if not isinstance(sub_policies, list | tuple):
        raise UsageError(f"the sub_policies of an augmentation are a list, got {shown(sub_policies)}")
    for sub_policy in sub_policies:
        if not isinstance(sub_policy, list | tuple) or len(sub_policy) > 16:
            raise UsageError(
                f"a sub-policy is a list of at most 16 operations (the paper's have 2), got {shown(sub_policy)}"
            )
        for entry in sub_policy:
            _check_operation(entry)


def _check_operation(entry: Any) -> None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("operation"), str):
        raise UsageError(
            f'an operation is {{"operation": name, "probability": 0 to 1, "magnitude": 0 to 9}}, got {shown(entry)}'
        )
    name = entry["operation"]
    if name not in OPERATIONS:
        raise UnknownName("augmentation operation", name[:80], OPERATIONS)
    needed = {"operation", "probability"} | ({"magnitude"} if OPERATIONS[name].first is not None else set())
    if set(entry) != needed:
        raise UsageError(f"{name} has the fields {', '.join(sorted(needed))}, got {shown(sorted(map(str, entry)))}")
    if not _within(entry["probability"], 0, 1):
        raise UsageError(f"the probability of {name} must be a number from 0 to 1, got {shown(entry['probability'])}")
    level = entry.get("magnitude", 0)
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < LEVELS:
        raise UsageError(f"the magnitude of {name} must be a level, a whole number from 0 to 9, got {shown(level)}")


def check_options(flip: object, pad: object, cutout: object, reading: object, fill: object) -> None:
    """Raise UsageError for what stands around a policy."""
    if not isinstance(flip, bool):
        raise UsageError(f"flip of an augmentation must be true or false, got {shown(flip)}")
    if not _within(pad, 0, 0.5):
        raise UsageError(f"pad of an augmentation must be a part of the image's sides from 0 to 0.5, got {shown(pad)}")
    if not _within(cutout, 0, 1):
        raise UsageError(
            f"cutout of an augmentation must be a part of the image's side from 0 to 1, got {shown(cutout)}"
        )
    if reading not in READINGS:
        raise UnknownName("reading of magnitudes", str(reading)[:80], READINGS)
    good = isinstance(fill, list | tuple) and len(fill) == 3
    if not good or any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v <= 255 for v in fill):  # type: ignore[attr-defined]
        raise UsageError(f"fill of an augmentation must be three whole numbers from 0 to 255, got {shown(fill)}")


def _within(value: object, low: float, high: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and low <= value <= high


# --- which policies are the same --------------------------------------------------------------------------------------


def canonical(architecture: Architecture) -> dict[str, Any]:
    """Plain JSON that is equal for policies which do the same to every image, with the same chances.

    Operations that never fire, or do nothing at their magnitude, go. The order of sub-policies does not matter, and how often
    each stands there only in proportion. Levels of one magnitude become one level.
    """
    check_architecture(architecture)
    reading = architecture["reading"]
    kept: Counter[str] = Counter()
    for sub_policy in architecture["sub_policies"]:
        kept[canonical_json([own for entry in sub_policy if (own := _distinct(entry, reading)) is not None])] += 1
    divisor = math.gcd(*kept.values()) if kept else 1
    forms = sorted(form for form, times in kept.items() for _ in range(times // divisor))
    pad, cutout = float(architecture["pad"]), float(architecture["cutout"])
    form: dict[str, Any] = {"flip": architecture["flip"], "pad": pad, "sub_policies": forms, "cutout": cutout}
    if forms in ([], ["[]"]):
        form["sub_policies"] = []
    fills = ('"Shear', '"Translate', '"Rotate', '"Cutout')
    if pad or cutout or any(name in text for text in forms for name in fills):
        form["fill"] = list(architecture["fill"])
    return form


def _distinct(entry: Mapping[str, Any], reading: str) -> list[Any] | None:
    """An operation with what tells it from others; None where it does nothing, whatever the image and its size."""
    name, probability = entry["operation"], float(entry["probability"])
    if probability == 0:
        return None
    if OPERATIONS[name].first is None:
        return [name, probability]
    value = magnitude(name, entry["magnitude"], PUBLISHED_SIDE, PUBLISHED_SIDE, reading)
    idle = {"Solarize": 256.0, "Posterize": 8.0}.get(name, 0.0)  # the blends' ranges do not contain 1, where they rest
    return None if value == idle else [name, probability, value]


def joined(architectures: Sequence[Architecture]) -> dict[str, Any]:
    """The sub-policies of several policies as one policy: "the 5 best policies are joined into one of 25" (section 3).

    Raises UsageError for none, and for policies with different flips, crops, cutouts, readings or fills.
    """
    for architecture in architectures:
        check_architecture(architecture)
    if not architectures:
        raise UsageError("a joined policy is made of at least one policy")
    first, *others = architectures
    for field in _FIELDS:
        if field != "sub_policies" and any(other[field] != first[field] for other in others):
            raise UsageError(f"policies that are joined must have the same {field}")
    return {**first, "sub_policies": [sub_policy for own in architectures for sub_policy in own["sub_policies"]]}


def said(sub_policy: Sequence[Mapping[str, Any]]) -> str:
    """A sub-policy for people: "ShearX at 4 (0.9), then Invert (0.2)"; in brackets the probability."""
    words = [
        f"{entry['operation']}{' at ' + str(entry['magnitude']) if 'magnitude' in entry else ''} ({entry['probability']:g})"
        for entry in sub_policy
    ]
    return ", then ".join(words) or "nothing"
