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
from archsmith.nn.augmentation.autoaugment_tables import TABLES, sub_policies
from archsmith.nn.augmentation.policy import FILL, architecture_of
from archsmith.spaces.augmentation import Augmentation

if TYPE_CHECKING:
    from archsmith.nn.augmentation.module import AugmentationPolicy


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

    if name not in TABLES:
        raise UnknownName("AutoAugment policy", str(name)[:80], TABLES)
    return AugmentationPolicy(architecture_of(sub_policies(TABLES[name]), reading=reading, fill=fill))


def _discovered(name: str, data: str, space: Augmentation, task: Task) -> Discovered:
    return Discovered(
        name=f"autoaugment_{name}",
        summary=f"AutoAugment's policy of 25 sub-policies for {data} (Cubuk et al. 2019, appendix)",
        space=space,
        genotype=space.from_sub_policies(sub_policies(TABLES[name])),
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
