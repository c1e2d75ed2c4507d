"""What the architecture of a NASNet holds, and what of it is refused, in plain Python.

    {"kind": "nasnet_cell", "form": "cifar", "cells": 6, "filters": 32,
     "normal": {"blocks": [{"inputs": [0, 1], "operations": ["sep_conv_5x5", "sep_conv_3x3"], "combination": "add"}, ...],
                "concatenated": [1, 2, 3, 4, 5, 6]},
     "reduction": {...},
     "skeleton": {"stem_multiplier": 3, "skip_reduction_input": false, ...}}

State 0 of a cell is the output of the cell before, state 1 that of the one before it, and block b makes state b + 2. What
is concatenated is listed, since published cells concatenate states that are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.nn.nasnet_layers import OPERATIONS

KIND = "nasnet_cell"
FORMS = ("cifar", "imagenet")
COMBINATIONS = ("add", "concat")
CELLS = ("normal", "reduction")
SKELETON = (
    "stem_multiplier", "skip_reduction_input", "bottleneck", "drop_path_keep", "dropout_keep",
    "auxiliary", "auxiliary_scale", "batch_norm_decay", "batch_norm_epsilon",
)  # fmt: skip

MAX_BLOCKS, MAX_CELLS, MAX_FILTERS = 32, 64, 8192
LEAST_FILTERS = {"cifar": 1, "imagenet": 8}  # the stem of the latter works with a quarter of them, in halves


def stem_multiplier(form: str, filters: int) -> int:
    """As released: 3 for CIFAR and the large network, 1 for the mobile one, which has 44 filters, and smaller ones."""
    return 1 if form == "imagenet" and filters <= 44 else 3


def check_architecture(architecture: Any) -> None:
    """Raise UsageError unless this is the architecture of a NASNet, as the module's docstring has it."""
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'an architecture of this space is an object with "kind": "{KIND}", got {shown(architecture)}')
    keys = {"kind", "form", "cells", "filters", *CELLS, "skeleton"}
    if set(architecture) != keys:
        raise UsageError(f"an architecture has the keys {', '.join(sorted(keys))}, got {shown(list(architecture))}")
    check_size(architecture["form"], architecture["cells"], architecture["filters"], "an architecture")
    for kind in CELLS:
        _check_cell(kind, architecture[kind])
    skeleton = architecture["skeleton"]
    if not isinstance(skeleton, Mapping) or set(skeleton) != set(SKELETON):
        got = list(skeleton) if isinstance(skeleton, Mapping) else skeleton
        raise UsageError(f"the skeleton of an architecture has the keys {', '.join(SKELETON)}, got {shown(got)}")
    check_skeleton(skeleton, "an architecture")


def check_size(form: Any, cells: Any, filters: Any, of: str) -> None:
    """Raise UsageError unless there is such a form and both are whole numbers that it can have."""
    if form not in FORMS:
        raise UsageError(f"form of {of} must be one of {', '.join(FORMS)}, got {shown(form)}")
    whole(f"cells of {of}", cells, 1, MAX_CELLS)
    whole(f"filters of {of} in the form {form}", filters, LEAST_FILTERS[form], MAX_FILTERS)


def check_skeleton(skeleton: Mapping[str, Any], of: str) -> None:
    """Raise UsageError unless every option of the skeleton makes sense."""
    whole(f"stem_multiplier of {of}", skeleton["stem_multiplier"], 1, 64)
    for name in ("skip_reduction_input", "bottleneck"):
        if not isinstance(skeleton[name], bool):
            raise UsageError(f"{name} of {of} must be true or false, got {shown(skeleton[name])}")
    for name, above, most, rule in (
        ("drop_path_keep", 0.0, 1.0, "above 0 and at most 1"),
        ("dropout_keep", 0.0, 1.0, "above 0 and at most 1"),
        ("auxiliary_scale", 1 / 129, 16.0, "from 1/128 to 16"),
        ("batch_norm_epsilon", 0.0, 1.0, "above 0 and at most 1"),
        ("auxiliary", -1e-300, 100.0, "from 0 (no auxiliary head) to 100"),
        ("batch_norm_decay", -1e-300, 1 - 1e-9, "at least 0 and below 1"),
    ):
        value = skeleton[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= most:
            raise UsageError(f"{name} of {of} must be a number {rule}, got {shown(value)}")


def _check_cell(kind: str, cell: Any) -> None:
    if not isinstance(cell, Mapping) or set(cell) != {"blocks", "concatenated"}:
        raise UsageError(f'the {kind} cell has the keys "blocks" and "concatenated", got {shown(cell)}')
    blocks, listed = cell["blocks"], cell["concatenated"]
    if not _is_list(blocks) or not 1 <= len(blocks) <= MAX_BLOCKS:
        raise UsageError(f"blocks of the {kind} cell must be a list of 1 to {MAX_BLOCKS}, got {shown(blocks)}")
    for number, block in enumerate(blocks):
        _check_block(f"block {number} of the {kind} cell", number + 2, block)
    states = len(blocks) + 2
    if not _is_list(listed) or not all(_is_state(k, states) for k in listed) or list(listed) != sorted(set(listed)):
        raise UsageError(
            f"concatenated of the {kind} cell must list states from 0 to {states - 1}, ascending, got {shown(listed)}"
        )
    lost = set(range(states)) - {1} - {k for block in blocks for k in block["inputs"]} - set(listed)
    if lost:
        raise UsageError(
            f"state {min(lost)} of the {kind} cell is neither read nor concatenated, so nothing would learn"
        )


def _check_block(what: str, states: int, block: Any) -> None:
    keys = {"inputs", "operations", "combination"}
    if not isinstance(block, Mapping) or set(block) != keys:
        raise UsageError(f"{what} must be an object with the keys {', '.join(sorted(keys))}, got {shown(block)}")
    inputs, operations = block["inputs"], block["operations"]
    if not _is_list(inputs) or len(inputs) != 2 or not all(_is_state(k, states) for k in inputs):
        raise UsageError(f"inputs of {what} must be two of the states 0 to {states - 1}, got {shown(inputs)}")
    if not _is_list(operations) or len(operations) != 2:
        raise UsageError(f"operations of {what} must be two, got {shown(operations)}")
    for name in operations:
        if name not in OPERATIONS:
            raise UsageError(f"an operation of {what} must be one of {', '.join(OPERATIONS)}, got {shown(name)}")
    if block["combination"] not in COMBINATIONS:
        raise UsageError(
            f"combination of {what} must be one of {', '.join(COMBINATIONS)}, got {shown(block['combination'])}"
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_state(value: Any, states: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < states


def whole(what: str, value: Any, least: int, most: int) -> None:
    """Raise UsageError unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{what} must be a whole number from {least} to {most}, got {shown(value)}")
