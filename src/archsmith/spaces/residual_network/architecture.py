"""What the architecture of a residual network holds, and what of it is refused, in plain Python.

    {"kind": "residual_network", "activation": "relu", "preactivation": False, "shortcut": "conv", "dropout": 0.0,
     "stem": {"filters": 64, "kernel": 7, "stride": 2, "pool": True}, "head": 0,
     "stages": [{"block": "bottleneck", "depth": 3, "width": 256, "kernel": 3, "stride": 1, "expansion": 0.25,
                 "se_ratio": 0.0}, ...]}

A stage is a row of `depth` blocks that each give `width` channels; its first block has the stride. Blocks:

- "basic": two k×k convolutions of `width` filters (He et al. 2016).
- "bottleneck": 1×1, k×k, 1×1; the two inner maps have `expansion` times `width` channels (1/4 in ResNet-50, 1/2 in
  WRN-50-2).
- "inverted": 1×1, depthwise k×k, 1×1 without an activation; the two inner maps have `expansion` times the channels that
  the block reads (Sandler et al. 2018). An expansion of 1 has no first 1×1 convolution. The input is added if its shape
  is the output's.

`se_ratio` is the width of squeeze-and-excitation (Hu et al. 2018) as a part of the block's output, or, for inverted
blocks, of its input as in MnasNet. 0: none. `shortcut` says how basic and bottleneck blocks change the shape of what they
add: "conv" is a 1×1 convolution with the stride, "pool" an average pool before a 1×1 convolution (He et al. 2019,
ResNet-D), "pad" takes every second pixel and adds channels of zeros (option A of He et al. 2016; no parameters).
`head` is the filters of a 1×1 convolution behind the last stage. 0: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.nn.mobile_plan import check_kernel, check_keys, check_ratio, fraction, whole

KIND = "residual_network"
BLOCKS = ("basic", "bottleneck", "inverted")
ACTIVATIONS = ("relu", "silu", "hardswish", "gelu")
SHORTCUTS = ("conv", "pool", "pad")
MAX_STAGES, MAX_DEPTH, MAX_WIDTH, MAX_STRIDE, MAX_EXPANSION = 16, 128, 8192, 8, 16

_KEYS = ("kind", "activation", "preactivation", "shortcut", "dropout", "stem", "head", "stages")
_STEM = ("filters", "kernel", "stride", "pool")
_STAGE = ("block", "depth", "width", "kernel", "stride", "expansion", "se_ratio")


def check_architecture(architecture: Any) -> None:
    """Raise UsageError unless this is the architecture of a residual network, as the module's docstring has it."""
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'an architecture of this space is an object with "kind": "{KIND}", got {shown(architecture)}')
    check_keys("an architecture", architecture, _KEYS)
    one_of("activation of an architecture", architecture["activation"], ACTIVATIONS)
    one_of("preactivation of an architecture", architecture["preactivation"], (False, True))
    one_of("shortcut of an architecture", architecture["shortcut"], SHORTCUTS)
    fraction("dropout of an architecture", architecture["dropout"], 0.0, 1.0)
    whole("head of an architecture", architecture["head"], 0, MAX_WIDTH)
    check_stem("the stem of an architecture", architecture["stem"])
    stages = architecture["stages"]
    if not isinstance(stages, list | tuple) or not 1 <= len(stages) <= MAX_STAGES:
        raise UsageError(f"stages of an architecture must be a list of 1 to {MAX_STAGES}, got {shown(stages)}")
    for number, stage in enumerate(stages):
        check_stage(f"stage {number}", stage)


def check_stem(of: str, stem: Any) -> None:
    """Raise UsageError unless it is a first convolution."""
    check_keys(of, stem, _STEM)
    whole(f"filters of {of}", stem["filters"], 1, MAX_WIDTH)
    check_kernel(of, stem["kernel"])
    whole(f"stride of {of}", stem["stride"], 1, MAX_STRIDE)
    one_of(f"pool of {of}", stem["pool"], (False, True))


def check_stage(of: str, stage: Any) -> None:
    """Raise UsageError unless it is a stage."""
    check_keys(of, stage, _STAGE)
    one_of(f"block of {of}", stage["block"], BLOCKS)
    whole(f"depth of {of}", stage["depth"], 1, MAX_DEPTH)
    whole(f"width of {of}", stage["width"], 1, MAX_WIDTH)
    check_kernel(of, stage["kernel"])
    whole(f"stride of {of}", stage["stride"], 1, MAX_STRIDE)
    check_expansion(f"expansion of {of}", stage["expansion"])
    check_ratio(of, stage["se_ratio"])


def check_expansion(what: str, value: Any) -> None:
    """Raise UsageError unless it is a number that inner channels may be multiplied by."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_EXPANSION:
        raise UsageError(f"{what} must be a number above 0 and at most {MAX_EXPANSION}, got {shown(value)}")


def one_of(what: str, value: Any, options: tuple[Any, ...]) -> None:
    """Raise UsageError unless `value` is one of the options and of the same type."""
    if not any(type(value) is type(option) and value == option for option in options):
        raise UsageError(f"{what} must be one of {', '.join(map(str, options))}, got {shown(value)}")
