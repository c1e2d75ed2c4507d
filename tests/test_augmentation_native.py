"""The native library of augmentation against torch's operations, to the bit; forks; no compiler."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest
import torch
from torch import Tensor

from archsmith.core.errors import UsageError
from archsmith.nn.augmentation import native
from archsmith.nn.augmentation.module import AugmentationPolicy
from archsmith.nn.augmentation.operations import CODES, operate
from archsmith.nn.augmentation.policy import OPERATIONS, architecture_of
from archsmith.nn.cell_kernels import library
from test_augmentation import random_batch


def native_and_plain(work: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    results = []
    for way in ("native", "plain"):
        monkeypatch.setenv("ARCHSMITH_KERNELS", way)
        results.append(work())
    return results[0], results[1]


def everything() -> AugmentationPolicy:
    sub_policies = [[(a, 0.9, k % 10), (b, 0.9, 9 - k % 10)] for k, a in enumerate(OPERATIONS) for b in OPERATIONS]
    return AugmentationPolicy(architecture_of(sub_policies, flip=True, pad=0.2, cutout=0.4))


@pytest.mark.compiler
@pytest.mark.parametrize("shape", [(700, 3, 32, 32), (40, 1, 28, 28), (24, 3, 331, 331), (300, 3, 2, 5), (1, 3, 40, 7)])
def test_whole_pipelines_give_the_same_bytes_both_ways(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them with more than one thread's work."""
    batch, policy = random_batch(6, *shape), everything()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ours, plain = native_and_plain(lambda: policy(batch, torch.Generator().manual_seed(4)), monkeypatch)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(ours, plain)


@pytest.mark.compiler
def test_every_angle_and_slope_gives_the_same_bytes_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(7, 2001, 1, 19, 24)
    for operation, most in (("Rotate", 45.0), ("ShearX", 1.0), ("ShearY", 1.0)):
        values = torch.linspace(-most, most, 2001, dtype=torch.float64)
        ours, plain = native_and_plain(lambda o=operation, v=values: operate(batch, o, v), monkeypatch)
        assert torch.equal(ours, plain)


@pytest.mark.compiler
@pytest.mark.parametrize("operation", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_the_longest_sides_give_the_same_bytes_both_ways(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where fixed point is nearest to its end."""
    most = {"Rotate": 45.0, "ShearX": 1.0, "ShearY": 1.0}.get(operation, 16384.0)
    for shape in ((2, 1, 2, 16384), (2, 1, 16384, 2)):
        batch = random_batch(8, *shape)
        for m in (-most, 0.4 * most // 1 or 0.4, most):
            ours, plain = native_and_plain(lambda b=batch, m=m: operate(b, operation, m), monkeypatch)
            assert torch.equal(ours, plain)


def test_without_a_compiler_torch_does_it_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise library.NoLibrary("there is no C++ compiler")

    batch = random_batch(0, 2, 3, 8, 8)
    expected = operate(batch, "Rotate", 20)
    monkeypatch.setattr(library, "built", none)
    native._library.cache_clear()
    try:
        with pytest.raises(UsageError, match="ARCHSMITH_KERNELS=native: there is no C"):
            monkeypatch.setenv("ARCHSMITH_KERNELS", "native")
            operate(batch, "Rotate", 20)
        monkeypatch.delenv("ARCHSMITH_KERNELS")
        with pytest.warns(UserWarning, match="torch's operations, several times slower: there is no C"):
            assert torch.equal(operate(batch, "Rotate", 20), expected)
    finally:
        native._library.cache_clear()


def in_a_fork(batch: Tensor, drawn: tuple[Tensor, ...], answer: Connection) -> None:
    answer.send((native.augment_(batch, *drawn), batch.numpy().tobytes()))


@pytest.mark.compiler
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """GNU's OpenMP would wait there for threads that a fork does not have."""
    monkeypatch.setenv("ARCHSMITH_KERNELS", "native")
    batch, code = random_batch(0, 3000, 1, 32, 32), torch.full((3000,), CODES["Equalize"])
    drawn = (code, code.double(), torch.zeros(3000, 2, dtype=torch.int64), code, batch, torch.zeros(1).to(torch.uint8))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=in_a_fork, args=(batch.clone(), drawn, sender))
    try:
        expected = operate(batch, "Equalize")
        process.start()
        assert receiver.poll(60), "the fork does not answer"
        assert receiver.recv() == (True, expected.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
        if process.pid:
            process.kill()
            process.join()
