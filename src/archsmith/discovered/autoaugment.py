"""The augmentation policies that AutoAugment found (Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from
Data", tables of the appendix): 25 sub-policies each for CIFAR-10, SVHN and ImageNet.

The authors' code has another, longer list for CIFAR-10 (95 sub-policies) and another policy for ImageNet; these are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from archsmith.core.child import Task
from archsmith.core.errors import UnknownName
from archsmith.discovered.network import Discovered
from archsmith.nn.augmentation.policy import FILL, OPERATIONS, architecture_of
from archsmith.spaces.augmentation import Augmentation

if TYPE_CHECKING:
    from archsmith.nn.augmentation.module import AugmentationPolicy

# A line is a sub-policy: operation, probability, magnitude; twice.

_CIFAR10 = """
Invert 0.1, Contrast 0.2 6
Rotate 0.7 2, TranslateX 0.3 9
Sharpness 0.8 1, Sharpness 0.9 3
ShearY 0.5 8, TranslateY 0.7 9
AutoContrast 0.5, Equalize 0.9
ShearY 0.2 7, Posterize 0.3 7
Color 0.4 3, Brightness 0.6 7
Sharpness 0.3 9, Brightness 0.7 9
Equalize 0.6, Equalize 0.5
Contrast 0.6 7, Sharpness 0.6 5
Color 0.7 7, TranslateX 0.5 8
Equalize 0.3, AutoContrast 0.4
TranslateY 0.4 3, Sharpness 0.2 6
Brightness 0.9 6, Color 0.2 8
Solarize 0.5 2, Invert 0
Equalize 0.2, AutoContrast 0.6
Equalize 0.2, Equalize 0.6
Color 0.9 9, Equalize 0.6
AutoContrast 0.8, Solarize 0.2 8
Brightness 0.1 3, Color 0.7 0
Solarize 0.4 5, AutoContrast 0.9
TranslateY 0.9 9, TranslateY 0.7 9
AutoContrast 0.9, Solarize 0.8 3
Equalize 0.8, Invert 0.1
TranslateY 0.7 9, AutoContrast 0.9
"""

_SVHN = """
ShearX 0.9 4, Invert 0.2
ShearY 0.9 8, Invert 0.7
Equalize 0.6, Solarize 0.6 6
Invert 0.9, Equalize 0.6
Equalize 0.6, Rotate 0.9 3
ShearX 0.9 4, AutoContrast 0.8
ShearY 0.9 8, Invert 0.4
ShearY 0.9 5, Solarize 0.2 6
Invert 0.9, AutoContrast 0.8
Equalize 0.6, Rotate 0.9 3
ShearX 0.9 4, Solarize 0.3 3
ShearY 0.8 8, Invert 0.7
Equalize 0.9, TranslateY 0.6 6
Invert 0.9, Equalize 0.6
Contrast 0.3 3, Rotate 0.8 4
Invert 0.8, TranslateY 0 2
ShearY 0.7 6, Solarize 0.4 8
Invert 0.6, Rotate 0.8 4
ShearY 0.3 7, TranslateX 0.9 3
ShearX 0.1 6, Invert 0.6
Solarize 0.7 2, TranslateY 0.6 7
ShearY 0.8 4, Invert 0.8
ShearX 0.7 9, TranslateY 0.8 3
ShearY 0.8 5, AutoContrast 0.7
ShearX 0.7 2, Invert 0.1
"""

_IMAGENET = """
Posterize 0.4 8, Rotate 0.6 9
Solarize 0.6 5, AutoContrast 0.6
Equalize 0.8, Equalize 0.6
Posterize 0.6 7, Posterize 0.6 6
Equalize 0.4, Solarize 0.2 4
Equalize 0.4, Rotate 0.8 8
Solarize 0.6 3, Equalize 0.6
Posterize 0.8 5, Equalize 1
Rotate 0.2 3, Solarize 0.6 8
Equalize 0.6, Posterize 0.4 6
Rotate 0.8 8, Color 0.4 0
Rotate 0.4 9, Equalize 0.6
Equalize 0, Equalize 0.8
Invert 0.6, Equalize 1
Color 0.6 4, Contrast 1 8
Rotate 0.8 8, Color 1 2
Color 0.8 8, Solarize 0.8 7
Sharpness 0.4 7, Invert 0.6
ShearX 0.6 5, Equalize 1
Color 0.4 0, Equalize 0.6
Equalize 0.4, Solarize 0.2 4
Solarize 0.6 5, AutoContrast 0.6
Invert 0.6, Equalize 1
Color 0.6 4, Contrast 1 8
Equalize 0.8, Equalize 0.6
"""


def sub_policies(table: str) -> list[list[tuple[str, float, int]]]:
    """(operation, probability, level) of each operation of each line; 0 for operations without magnitude."""
    return [[_triple(operation) for operation in line.split(",")] for line in table.strip().splitlines()]


def _triple(words: str) -> tuple[str, float, int]:
    name, probability, *level = words.split()
    assert len(level) == (OPERATIONS[name].first is not None)
    return name, float(probability), int(level[0]) if level else 0


_TABLES: Mapping[str, str] = {"cifar10": _CIFAR10, "svhn": _SVHN, "imagenet": _IMAGENET}


def autoaugment(name: str, *, reading: str = "stronger", fill: tuple[int, int, int] = FILL) -> AugmentationPolicy:
    """A published policy as a transform for any PyTorch pipeline; nothing but the policy, no flips, crops or cutouts.

        transform = autoaugment("cifar10")
        batch = transform(batch)        # uint8 [n, c, h, w], all images at once
        image = transform(image)        # uint8 [c, h, w], or a Pillow image of mode L or RGB

    It draws from torch's generator, and can be sent to the workers of a DataLoader.

    Args:
        name: "cifar10", "svhn" or "imagenet".
        reading: whether Solarize and Posterize grow "stronger" with their magnitude (torchvision) or "weaker".
        fill: the colour of what shears, translations and rotations uncover.

    Raises UnknownName, with the nearest names.
    """
    from archsmith.nn.augmentation.module import AugmentationPolicy

    if name not in _TABLES:
        raise UnknownName("AutoAugment policy", str(name)[:80], _TABLES)
    return AugmentationPolicy(architecture_of(sub_policies(_TABLES[name]), reading=reading, fill=fill))


def _discovered(name: str, data: str, space: Augmentation, task: Task) -> Discovered:
    return Discovered(
        name=f"autoaugment_{name}",
        summary=f"AutoAugment's policy of 25 sub-policies for {data} (Cubuk et al. 2019, appendix)",
        space=space,
        genotype=space.from_sub_policies(sub_policies(_TABLES[name])),
        task=task,
    )


def autoaugment_cifar10() -> Discovered:
    """The policy for CIFAR-10, on the network that it was searched with: behind flips and crops, before a cutout of half the side."""
    return _discovered("cifar10", "CIFAR-10", Augmentation(sub_policies=25), Task((3, 32, 32), 10))


def autoaugment_svhn() -> Discovered:
    """The policy for SVHN: digits are not mirrored, and the cutout has 20 of 32 pixels."""
    space = Augmentation(sub_policies=25, flip=False, pad=0.0, cutout=20 / 32)
    return _discovered("svhn", "SVHN", space, Task((3, 32, 32), 10))


def autoaugment_imagenet() -> Discovered:
    """The policy for ImageNet, on the small images that it was searched with: mirrored, without crops and cutouts here.

    The paper's random crops of ImageNet change size and shape; they belong to whoever reads the pictures.
    """
    space = Augmentation(sub_policies=25, pad=0.0, cutout=0.0)
    return _discovered("imagenet", "ImageNet", space, Task((3, 32, 32), 120))


POLICIES: Mapping[str, Callable[[], Discovered]] = {
    "autoaugment_cifar10": autoaugment_cifar10,
    "autoaugment_imagenet": autoaugment_imagenet,
    "autoaugment_svhn": autoaugment_svhn,
}
