"""A way around a fault of torch's convolutions in bf16 on processors.

Where the input of a convolution is narrower than its stride, as a map of one pixel before a stride of 2, oneDNN computes wrong
gradients of the weights in bf16: they hold whatever the memory held before (torch 2.13; tests/test_narrow_strides.py). Such an
input has one output in each row, so a stride as wide as the input gives the same output, and correct gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def narrow_strides(model: nn.Module) -> Iterator[None]:
    """While the body runs, no convolution of the model has a stride above the width of its input, if that changes no output."""
    hooks = []
    strided = [
        (module, module.stride) for module in model.modules() if isinstance(module, nn.Conv2d) and module.stride[1] > 1
    ]
    try:
        hooks += [module.register_forward_pre_hook(_narrowed_from(stride)) for module, stride in strided]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, stride in strided:
            module.stride = stride


def _narrowed_from(stride: tuple[int, ...]) -> Any:
    """A hook that sets the stride for each input."""

    def narrow(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        width, outputs = inputs[0].shape[3], 1
        if isinstance(module.padding, tuple):
            outputs = (
                width + 2 * module.padding[1] - module.dilation[1] * (module.kernel_size[1] - 1) - 1
            ) // width + 1
        module.stride = (stride[0], min(stride[1], width) if outputs == 1 else stride[1])

    return narrow
