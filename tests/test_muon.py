"""Muon: orthogonal steps for filters, SGD for the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim._muon import _zeropower_via_newtonschulz

from archsmith.nn.muon import COEFFICIENTS, Muon, muon_groups, orthogonal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 1), nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def loss_of(model: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 5
    return nn.functional.cross_entropy(model(images), labels)


def test_filters_are_those_of_plain_convolutions_before_a_norm() -> None:
    model = network()
    filters, matrices, vectors = muon_groups(model)
    assert [tuple(p.shape) for p in filters["params"]] == [(8, 3, 3, 3), (16, 4, 1, 1)]
    assert {p.dim() for p in matrices["params"]} == {2, 4}
    assert {p.dim() for p in vectors["params"]} == {1}
    assert vectors["weight_decay"] == 0
    assert sum(len(group["params"]) for group in muon_groups(model)) == len(list(model.parameters()))
    assert len(muon_groups(model, decay_norms=True)) == 2


@given(rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_matrix_becomes_nearly_orthogonal(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(matrix, 5)
    along = (u.T @ made @ v.T).diagonal()  # the singular vectors stay
    assert along[sizes > 0.05 * sizes.max()].min() > 0.6
    assert along.max() < 1.3
    assert torch.allclose(u.T @ made @ v.T, torch.diag(along), atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (5, 5)])
def test_the_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = _zeropower_via_newtonschulz(matrix, COEFFICIENTS, 3, 1e-7)  # in bfloat16
    assert torch.allclose(orthogonal(matrix, 3, torch.bfloat16), expected.float(), atol=0.03)
    assert torch.allclose(orthogonal(matrix, 3), expected.float(), atol=0.05)


def test_what_is_no_filter_is_learned_as_by_sgd() -> None:
    ours = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5), nn.BatchNorm1d(5))
    theirs = copy.deepcopy(ours)
    muon = Muon(muon_groups(ours, decay_norms=True), 0.1, weight_decay=1e-2)
    sgd = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    for _ in range(4):
        for model, optimizer in ((ours, muon), (theirs, sgd)):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_step_is_the_orthogonal_momentum_on_weights_of_fixed_norm() -> None:
    model = network()
    weight = model[0].weight
    muon = Muon(muon_groups(model), 0.05, momentum=0.6, steps=5)
    loss_of(model).backward()
    before, gradient = weight.detach().clone(), weight.grad.clone()
    muon.step()
    update = orthogonal((1 + 0.6) * gradient.reshape(8, -1), 5).view_as(weight)
    expected = before * (8**0.5 / before.norm()) - 0.05 * update
    assert torch.allclose(weight, expected, atol=1e-6)


def test_it_learns_and_goes_on_from_its_state() -> None:
    model = network()
    muon = Muon(muon_groups(model), 0.05)
    first = loss_of(model).item()

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()

    steps(model, muon, 10)
    again = copy.deepcopy(model)
    other = Muon(muon_groups(again), 0.05)
    other.load_state_dict(copy.deepcopy(muon.state_dict()))
    steps(model, muon, 5)
    steps(again, other, 5)
    assert loss_of(model).item() < 0.6 * first
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
