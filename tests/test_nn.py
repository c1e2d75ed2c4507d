"""The operations of children, the residual networks, and counting."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.nn.conv import ConvLayer, FullyConnected, GlobalAverage, Join, LocalContrastNorm, Pool, WiredNetwork
from archsmith.nn.count import count
from archsmith.nn.resnet import resnet20, resnet_of_size


@pytest.mark.parametrize("kernel", [(1, 1), (3, 5), (7, 1), (2, 4)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)])
def test_a_stride_divides_the_size_and_rounds_up(kernel, stride, size) -> None:
    out = ConvLayer(2, 3, kernel, stride)(torch.rand(2, 2, *size))
    assert out.shape == (2, 3, -(-size[0] // stride[0]), -(-size[1] // stride[1]))


def test_a_layer_is_convolution_then_norm_then_relu() -> None:
    torch.manual_seed(0)
    layer = ConvLayer(2, 3, (3, 5))
    x = torch.randn(4, 2, 6, 6)
    assert layer.conv.bias is None
    y = F.conv2d(x, layer.conv.weight, padding=(1, 2))
    y = (y - y.mean((0, 2, 3), keepdim=True)) / torch.sqrt(y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5)
    assert torch.allclose(layer(x), y.clamp(min=0), atol=1e-5)


def test_even_filters_pad_one_more_at_the_end() -> None:
    layer = ConvLayer(1, 1, (2, 2)).eval()
    nn.init.ones_(layer.conv.weight)
    out = layer(torch.arange(1.0, 10).reshape(1, 1, 3, 3))
    assert torch.allclose(out[0, 0], torch.tensor([[12.0, 16, 9], [24, 28, 15], [15, 17, 9]]), atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (1, 1)])
def test_pooling_rounds_up_and_keeps_to_the_map(size, stride, shape) -> None:
    x = torch.randn(2, 3, *shape) - 10  # far below zero: padding with zeros would be the maximum
    for kind in ("max", "avg"):
        out = Pool(kind, size, stride)(x)
        assert out.shape == (2, 3, -(-shape[0] // stride), -(-shape[1] // stride))
        assert out.max() <= x.max() + 1e-5
        assert out.min() >= x.min() - 1e-5


def test_pooling_is_what_it_says() -> None:
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])[None, None]
    assert Pool("max", 2, 2)(x).flatten().tolist() == [5, 6, 8, 9]
    assert Pool("avg", 2, 2)(x).flatten().tolist() == [3, 4.5, 7.5, 9]
    assert Pool("max", 3, 1)(x).flatten().tolist() == [5, 6, 6, 8, 9, 9, 8, 9, 9]
    assert Pool("avg", 2, 1)(x).flatten().tolist() == [3, 4, 4.5, 6, 7, 7.5, 7.5, 8.5, 9]


def test_joining_pads_symmetrically_with_the_rest_at_the_bottom_right() -> None:
    joined = Join([(1, 1), (4, 3)])(torch.ones(1, 1, 1, 1), torch.full((1, 2, 4, 3), 2.0))
    assert joined.shape == (1, 3, 4, 3)
    small = torch.zeros(4, 3)
    small[1, 1] = 1  # (4 - 1) // 2 above and 2 below, 1 at the left and 1 at the right
    assert torch.equal(joined[0, 0], small)
    assert (joined[0, 1:] == 2).all()


def test_local_contrast_is_invariant_to_brightness_and_nearly_to_contrast() -> None:
    torch.manual_seed(0)
    norm, x = LocalContrastNorm((12, 9)), torch.rand(2, 3, 12, 9)
    out = norm(x)
    assert out.shape == x.shape
    assert torch.allclose(norm(x + 5), out, atol=1e-3)
    assert torch.allclose(norm(x * 100), out, atol=1e-2)
    assert torch.equal(norm(torch.full((1, 2, 12, 9), 3.0)).abs() < 1e-3, torch.ones(1, 2, 12, 9, dtype=torch.bool))
    assert list(norm.parameters()) == []
    x.requires_grad_()
    norm(torch.zeros_like(x) * x).sum().backward()  # flat: no square root of zero in the gradient
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (9, 17)])
def test_a_fully_connected_layer_sees_a_small_map_and_gives_a_point(size) -> None:
    layer = FullyConnected(2, 5, size, 4)
    assert layer(torch.rand(3, 2, *size)).shape == (3, 5, 1, 1)
    assert layer.conv.weight[0, 0].numel() <= 16


def test_up_to_the_side_a_fully_connected_layer_is_a_linear_one() -> None:
    layer = FullyConnected(2, 5, (3, 4), 4).eval()
    x = torch.rand(3, 2, 3, 4)
    expected = F.relu(x.flatten(1) @ layer.conv.weight.flatten(1).T / (1 + 1e-5) ** 0.5)
    assert torch.allclose(layer(x).flatten(1), expected, atol=1e-6)


def test_the_global_average_is_the_mean_in_any_layout() -> None:
    x = torch.rand(2, 3, 5, 4)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.allclose(GlobalAverage()(x.to(memory_format=layout)), x.mean((2, 3)))


def test_weights_are_drawn_as_he_et_al_do() -> None:
    torch.manual_seed(0)
    network = WiredNetwork([ConvLayer(16, 64, (3, 3))], [[0]], [1], [(8, 8), (8, 8)], 64, 10)
    assert network.layers[0].conv.weight.std().item() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.03)
    assert network.classifier.bias.abs().max() == 0


# --- counting ---------------------------------------------------------------------------------------------------------


def test_counting_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, (1, 5), groups=4, padding=(0, 2)),
        nn.ConvTranspose2d(8, 2, 2, stride=2), nn.Flatten(), nn.Linear(2 * 6 * 4, 5),
    )  # fmt: skip
    counts = count(net, (3, 6, 4))
    assert counts.parameters == (3 * 9 * 8 + 8) + 16 + (8 * 2 * 5 + 8) + (8 * 2 * 4 + 2) + (48 * 5 + 5)
    assert counts.multiply_adds == 6 * 8 * 27 + 6 * 8 * 10 + 6 * 8 * 2 * 4 + 48 * 5


def test_counting_leaves_the_module_as_it_was() -> None:
    net = nn.Sequential(ConvLayer(1, 2, (3, 3)), nn.Dropout())
    net[0].norm.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    count(net, (1, 4, 4))
    assert [m.training for m in net.modules()] == [True, True, True, False, True, True]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())


def test_a_module_used_twice_counts_its_parameters_once_and_its_work_twice() -> None:
    shared = nn.Linear(4, 4)
    counts = count(nn.Sequential(shared, shared), (4,))
    assert (counts.parameters, counts.multiply_adds) == (20, 32)


# --- residual networks ------------------------------------------------------------------------------------------------


def test_resnet20_has_its_published_size() -> None:
    counts = count(resnet20(Task((3, 32, 32), 10)), (3, 32, 32))
    assert counts.parameters == 272_474
    assert counts.multiply_adds == 40_813_184


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 64, 64), (3, 96, 64), (2, 7, 5)])
@pytest.mark.parametrize("parameters", [20_000, 50_000, 333_333, 2_500_000])
def test_a_residual_network_of_about_any_size(shape, parameters) -> None:
    task = Task(shape, 7)
    with torch.device("meta"):
        network = resnet_of_size(parameters, task)
    counts = count(network, shape)
    assert counts.parameters == pytest.approx(parameters, rel=0.01)
    # No map of a stage is smaller than 7 (or the image), and work stays within what images of 64x64 cost.
    assert counts.multiply_adds < 64 * 64 * parameters


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 70, 33)])
def test_residual_networks_run(shape) -> None:
    network = resnet_of_size(3000, Task(shape, 4))
    network(torch.rand(2, *shape)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_tiny_and_impossible_sizes() -> None:
    assert sum(p.numel() for p in resnet_of_size(1, Task((1, 8, 8), 2)).parameters()) < 200
    with pytest.raises(UsageError, match="at least one parameter"):
        resnet_of_size(0, Task())
    with pytest.raises(UsageError, match="images"):
        resnet_of_size(100, Task((5,), 2))


@pytest.mark.cuda
def test_a_network_computes_the_same_on_a_gpu() -> None:
    torch.manual_seed(0)
    network = resnet20(Task((3, 32, 32), 10)).eval()
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        here, there = network(images), network.cuda()(images.cuda()).cpu()
    assert torch.allclose(here, there, atol=1e-3)
