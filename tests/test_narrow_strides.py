"""Gradients in bf16 where a map is narrower than a stride."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from archsmith.nn.narrow_strides import narrow_strides


def dirty(values: int) -> None:
    """Leave memory behind that holds no numbers, for whoever is given it next."""
    blocks = [torch.full((values * times,), float("nan"), dtype=torch.bfloat16) for times in (1, 2, 3, 4, 9)]
    del blocks


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = (model(images) * torch.linspace(-1, 1, 8).view(1, 8, 1, 1)).float().sum()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (5, 1), (3, 8)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("stride", [2, 3])
def test_gradients_are_those_of_float32(kernel: int, groups: int, height: int, width: int, stride: int) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups, bias=False).to(
        memory_format=torch.channels_last
    )
    images = torch.randn(16, 8, height, width).contiguous(memory_format=torch.channels_last)
    (model(images) * torch.linspace(-1, 1, 8).view(1, 8, 1, 1)).sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    for _ in range(5):
        dirty(images.numel())
        with narrow_strides(model):
            found = gradients(model, images)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05 * float(theirs.abs().max()))
    assert model.stride == (stride, stride)


def test_outputs_stay_the_same_for_any_input() -> None:
    sides, options = (
        (1, 2, 3, 5),
        ((3, 2, 1, 1), (3, 3, 1, 1), (3, 2, 0, 1), (5, 4, 2, 1), (1, 2, 0, 1), (3, 2, 2, 2), (3, 2, 3, 1)),
    )
    for height, width in itertools.product(sides, sides):
        for kernel, stride, padding, dilation in options:
            model = nn.Conv2d(3, 4, kernel, stride, padding, dilation)
            images = torch.randn(2, 3, height, width)
            if min(height, width) + 2 * padding < dilation * (kernel - 1) + 1:
                continue
            expected = model(images)
            with narrow_strides(model):
                torch.testing.assert_close(model(images), expected)


def test_a_stride_comes_back_where_the_next_input_is_wide() -> None:
    model = nn.Conv2d(1, 1, 3, 2, 1)
    wide, narrow = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 1)
    expected = model(wide)
    with narrow_strides(model):
        assert model(narrow).shape == (1, 1, 4, 1)
        assert torch.equal(model(wide), expected)
