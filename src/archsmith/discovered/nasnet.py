"""NASNet-A (Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image Recognition") and AmoebaNet-A to D
(Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search").

The cells are those of the released code. It concatenates states that blocks read as well, which no genotype of the space
says, so these networks are architectures. docs/decisions/0010-nasnet-cell.md has why this code is believed and others not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from archsmith.core.child import Task
from archsmith.core.genotype import Architecture
from archsmith.discovered.network import Discovered
from archsmith.spaces.nasnet_cell import NASNetCell, channels

_CIFAR, _MOBILE, _LARGE = Task((3, 32, 32), 10), Task((3, 224, 224), 1000), Task((3, 331, 331), 1000)

_OPERATIONS = {
    "id": "identity", "1x1": "conv_1x1", "3x3": "conv_3x3", "1x7": "conv_1x7_7x1", "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5", "sep7": "sep_conv_7x7", "dil5": "dil_sep_conv_5x5", "avg3": "avg_pool_3x3",
    "max2": "max_pool_2x2", "max3": "max_pool_3x3",
}  # fmt: skip

# Block by block, "operation@state" twice; what is concatenated. State 0 is h[i], state 1 h[i-1].
_CELLS = {
    "nasnet_a": (
        ("sep5@0 sep3@1", "sep5@1 sep3@1", "avg3@0 id@1", "avg3@1 avg3@1", "sep3@0 id@0"),
        (1, 2, 3, 4, 5, 6),
        ("sep5@0 sep7@1", "max3@0 sep7@1", "avg3@0 sep5@1", "id@3 avg3@2", "sep3@2 max3@0"),
        (3, 4, 5, 6),
    ),
    "amoebanet_a": (
        ("avg3@0 max3@0", "sep3@1 id@1", "id@0 avg3@1", "sep3@0 sep5@2", "avg3@5 sep3@0"),
        (1, 3, 4, 6),
        ("sep3@1 avg3@0", "max3@0 sep7@2", "max3@1 max3@0", "sep3@4 1x7@0", "avg3@1 sep7@0"),
        (2, 3, 4, 5, 6),
    ),
    "amoebanet_b": (
        ("1x1@1 max3@1", "id@1 sep3@0", "1x1@1 sep3@0", "1x1@2 id@2", "avg3@1 1x1@5"),
        (0, 3, 4, 6),
        ("max2@0 max3@0", "id@2 3x3@1", "dil5@2 max3@2", "id@3 sep3@1", "avg3@4 1x1@3"),
        (5, 6),
    ),
    "amoebanet_c": (
        ("avg3@0 sep3@0", "id@0 sep3@0", "avg3@2 sep3@1", "id@0 sep3@1", "avg3@3 sep3@0"),
        (1, 2, 4, 5, 6),
        ("max3@0 max3@0", "sep7@2 sep3@0", "sep7@0 max3@1", "sep5@4 sep5@4", "max3@1 sep3@1"),
        (0, 2, 3, 4, 5, 6),
    ),
    "amoebanet_d": (
        ("1x1@1 max3@1", "id@1 1x7@0", "1x1@0 1x7@0", "max3@2 id@2", "avg3@1 1x1@5"),
        (0, 3, 4, 6),
        ("max2@0 max3@0", "id@2 3x3@1", "1x7@2 max3@2", "id@3 max2@1", "avg3@2 1x1@3"),
        (4, 5, 6),
    ),
}  # fmt: skip


def nasnet_a(
    cells: int = 6,
    filters: int = 32,
    form: str = "cifar",
    *,
    stem_multiplier: int | None = None,
    skip_reduction_input: bool | None = None,
    drop_path_keep: float | None = None,
    auxiliary: float = 0.0,
) -> Discovered:
    """NASNet-A with N cells a stack and F filters, as released. 6 and 32 are the network published at 3.41 % error on
    CIFAR-10: 3,346,538 parameters.

    Args:
        cells, filters, form: N, F, and "cifar" or "imagenet".
        stem_multiplier, skip_reduction_input, drop_path_keep: as in `NASNetCell`. None: as released, 3, no and 0.6 for
            CIFAR; in the form imagenet 1, no and 1 up to 44 filters, those of the mobile network, and else 3, yes and
            0.7 as the large one.
        auxiliary: the weight of the auxiliary loss, 0.4 in the paper; 0: none, and no head is built.
    """
    mobile = form == "imagenet" and filters <= 44
    large = form == "imagenet" and not mobile
    if drop_path_keep is None:
        drop_path_keep = 1.0 if mobile else 0.7 if large else 0.6
    space = NASNetCell(
        form=form,
        cells=cells,
        filters=filters,
        stem_multiplier=stem_multiplier,
        skip_reduction_input=large if skip_reduction_input is None else skip_reduction_input,
        drop_path_keep=drop_path_keep,
        auxiliary=auxiliary,
        batch_norm_decay=0.9 if form == "cifar" else 0.9997,
    )
    return _network(
        "nasnet_a", "NASNet-A", "Zoph et al. 2018", space, _CIFAR if form == "cifar" else _LARGE if large else _MOBILE
    )


def nasnet_a_mobile(*, auxiliary: float = 0.0) -> Discovered:
    """NASNet-A 4 @ 1056, published at 74.0 % top-1 on ImageNet with 224 x 224 pixels: 5,289,978 parameters and
    563,638,816 multiply-adds."""
    return _named("nasnet_a_mobile", nasnet_a(4, 44, "imagenet", auxiliary=auxiliary))


def nasnet_a_large(*, auxiliary: float = 0.0) -> Discovered:
    """NASNet-A 6 @ 4032, published at 82.7 % top-1 on ImageNet with 331 x 331 pixels: 88,753,150 parameters and
    23,783,414,658 multiply-adds."""
    return _named("nasnet_a_large", nasnet_a(6, 168, "imagenet", auxiliary=auxiliary))


def amoebanet_a(cells: int = 6, filters: int = 36, form: str = "cifar", *, auxiliary: float = 0.0) -> Discovered:
    """AmoebaNet-A with N cells a stack and F filters. 6 and 36 are the network published at 3.34 % error on CIFAR-10:
    3,218,266 parameters; 6 and 190, in the form imagenet with 331 x 331 pixels, at 82.8 % top-1 on ImageNet.

    Args:
        cells, filters, form: N, F, and "cifar" or "imagenet".
        auxiliary: the weight of the auxiliary loss, 0.5 (CIFAR) and 0.4 in the paper; 0: none, and no head is built.
    """
    return _amoebanet("a", cells, filters, form, auxiliary)


def amoebanet_b(cells: int = 6, filters: int = 36, form: str = "cifar", *, auxiliary: float = 0.0) -> Discovered:
    """AmoebaNet-B, with the arguments of `amoebanet_a`."""
    return _amoebanet("b", cells, filters, form, auxiliary)


def amoebanet_c(cells: int = 6, filters: int = 36, form: str = "cifar", *, auxiliary: float = 0.0) -> Discovered:
    """AmoebaNet-C, with the arguments of `amoebanet_a`; published with 6 and 228 for ImageNet, 155 million parameters."""
    return _amoebanet("c", cells, filters, form, auxiliary)


def amoebanet_d(cells: int = 6, filters: int = 36, form: str = "cifar", *, auxiliary: float = 0.0) -> Discovered:
    """AmoebaNet-D, with the arguments of `amoebanet_a`."""
    return _amoebanet("d", cells, filters, form, auxiliary)


def amoebanet_a_large(*, auxiliary: float = 0.0) -> Discovered:
    """AmoebaNet-A with N = 6 and F = 190, published at 82.8 % top-1 on ImageNet with 331 x 331 pixels, 86.7 million
    parameters and 23.1 billion multiply-adds."""
    return _named("amoebanet_a_large", amoebanet_a(6, 190, "imagenet", auxiliary=auxiliary))


def _amoebanet(letter: str, cells: int, filters: int, form: str, auxiliary: float) -> Discovered:
    space = NASNetCell.amoeba(
        cells=cells,
        filters=filters,
        form=form,
        drop_path_keep=0.7,
        auxiliary=auxiliary,
        batch_norm_decay=0.9 if form == "cifar" else 0.9997,
    )
    task = _CIFAR if form == "cifar" else _LARGE
    return _network(f"amoebanet_{letter}", f"AmoebaNet-{letter.upper()}", "Real et al. 2019", space, task)


def _network(name: str, title: str, paper: str, space: NASNetCell, task: Task) -> Discovered:
    normal, normal_output, reduction, reduction_output = _CELLS[name]
    data: Architecture = {
        "kind": space.kind,
        "form": space.form,
        "cells": space.cells,
        "filters": space.filters,
        "normal": _cell(normal, normal_output),
        "reduction": _cell(reduction, reduction_output),
        "skeleton": space.skeleton(),
    }
    summary = f"{title} ({space.cells} @ {channels(data)}), for {'CIFAR' if task is _CIFAR else 'ImageNet'} ({paper})"
    return Discovered(name=name, summary=summary, space=space, task=task, data=data)


def _cell(blocks: tuple[str, ...], concatenated: tuple[int, ...]) -> dict[str, Any]:
    found = []
    for block in blocks:
        (one, left), (other, right) = (part.split("@") for part in block.split())
        operations = [_OPERATIONS[one], _OPERATIONS[other]]
        found.append({"inputs": [int(left), int(right)], "operations": operations, "combination": "add"})
    return {"blocks": found, "concatenated": list(concatenated)}


def _named(name: str, network: Discovered) -> Discovered:
    return dataclasses.replace(network, name=name)
