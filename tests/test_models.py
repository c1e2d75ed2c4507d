"""The networks that parts are tried on: exact sizes, and that each learns on any image."""

from __future__ import annotations

import pytest
import torch

from archsmith.core.child import Task
from archsmith.core.errors import UnknownName, UsageError
from archsmith.nn.count import count_parameters
from archsmith.nn.models import MODELS, model_named
from archsmith.nn.wide_resnet import WideResNet


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [("resnet20", 10, 272_474), ("wrn_40_2", 10, 2_243_546), ("wrn_28_10", 100, 36_536_884)],
)
def test_published_sizes(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(model_named(name, Task((3, 32, 32), classes))) == parameters


@pytest.mark.parametrize("name", [name for name in MODELS if name != "wrn_28_10"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 65)])
def test_every_parameter_learns_on_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    model = model_named(name, Task(shape, 5))
    out = model(torch.randn(2, *shape))
    assert out.shape == (2, 5)
    out.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_unknown_names_and_depths_are_refused() -> None:
    with pytest.raises(UnknownName, match="resnet20"):
        model_named("resnet", Task())
    with pytest.raises(UsageError, match="6n"):
        WideResNet(Task(), 20, 1)
