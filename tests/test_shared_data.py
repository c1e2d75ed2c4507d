"""Workers learn from the data of the process that searches: handed over by a file, whatever happens to the data's own."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archsmith as smith
from archsmith.core import loaded
from archsmith.core.executor import Completed, Job
from archsmith.core.space import sample
from archsmith.executors import ProcessPool
from archsmith.executors.shared_data import DataFile, SharedData
from archsmith.rewards import accuracy
from archsmith.training import ImageClassification

X = np.random.default_rng(0).integers(0, 256, (60, 9, 9, 3), dtype=np.uint8)
Y = np.arange(60) % 3
SPACE = smith.spaces.ConvChain(layers=1, filters=(2, 4), filter_heights=(1,), filter_widths=(1,))


def job(evaluator: Any, trial: int = 0) -> Job:
    import random

    return Job(trial, SPACE, sample(SPACE, random.Random(0)), evaluator, accuracy, seed=3)


def outcome(pool: ProcessPool) -> Completed:
    while True:
        for event in pool.completed():
            if isinstance(event, Completed):
                return event


def test_workers_see_what_was_read_and_not_what_is_there_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "x.npz", x_train=X, y_train=Y)
    evaluator = ImageClassification(str(tmp_path / "data" / "x.npz"), epochs=1, batch_size=16, precision="fp32")
    pool = ProcessPool(1)
    try:
        with loaded.pinned(evaluator):
            shutil.rmtree(tmp_path / "data")
            pool.submit(job(evaluator))
            first = outcome(pool)
            pool.submit(job(evaluator, 1))
            second = outcome(pool)
    finally:
        pool.close()
    assert first.result.failure is None
    assert first.result.metrics["train_loss"] == second.result.metrics["train_loss"]
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("archsmith-data-")]


def test_values_are_handed_over_once_as_long_as_they_are_the_same() -> None:
    evaluator = ImageClassification((X, Y))
    shared = SharedData()
    with loaded.pinned(evaluator):
        first = shared.with_data(evaluator, lambda: pickle.dumps(["a"]))
        second = shared.with_data(evaluator, lambda: pickle.dumps(["b"]))
        assert first.data is second.data
        try:
            assert pickle.loads(pickle.loads(pickle.dumps(second))) == ["b"]
        finally:
            loaded.give({})


def test_arrays_travel_once_and_alone_where_they_travel_along() -> None:
    evaluator = ImageClassification((X, Y))
    alone = pickle.dumps(evaluator)
    assert len(alone) > X.nbytes
    assert pickle.loads(alone).fingerprint() == evaluator.fingerprint()
    assert copy.deepcopy(evaluator).fingerprint() == evaluator.fingerprint()
    shared = SharedData()
    sizes = []

    def pickled() -> bytes:
        content = pickle.dumps([evaluator])
        sizes.append(len(content))
        return content

    fields = shared.with_data(evaluator, pickled)
    assert sizes[0] < 2_000
    assert len(fields) < 20_000
    fingerprint = evaluator.fingerprint()
    try:
        (made,) = pickle.loads(fields)
        assert made.data.content is None
        assert made.fingerprint() == fingerprint
        images = made.splits().data.images
        assert np.array_equal(images, X)
        images[0] = 0  # of a child, which shares it with no other
    finally:
        loaded.give({})
    assert pickle.loads(fields)[0].splits().data.images[0].any()
    loaded.give({})


@pytest.mark.parametrize("value", [{}, {"k": "text"}, {"k": np.zeros(0)}, {"k": np.zeros((0, 3)), "m": np.arange(7)}])
def test_values_of_any_size_arrive(value: Any) -> None:
    class Reads:
        def loaded(self) -> Any:
            return value

    fields = SharedData().with_data(Reads(), lambda: pickle.dumps("fields"))
    try:
        assert pickle.loads(fields) == "fields"
        for key, expected in value.items():
            assert np.array_equal(loaded.given(key), expected)
    finally:
        loaded.give({})


def test_a_disk_without_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, content: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("archsmith.executors.shared_data.os.write", full)
    with pytest.raises(smith.core.errors.UsageError, match="No space left on device; have TMPDIR name a folder"):
        DataFile({"k": np.arange(9)})
