"""What an evaluator has read serves another process that sees none of the files."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archsmith.core import loaded
from archsmith.core.errors import DataError
from archsmith.training import ImageClassification, LanguageModel, Tabular, Translation


def images(folder: Path) -> Any:
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "data.npz", x_train=x, y_train=np.arange(40) % 2)
    return ImageClassification.desk(str(folder / "data.npz"))


def text(folder: Path) -> Any:
    (folder / "data.txt").write_text("one two three four\n" * 400)
    return LanguageModel.desk(str(folder / "data.txt"))


def pairs(folder: Path) -> Any:
    (folder / "train.en").write_text("".join(f"a small house {n}\n" for n in range(40)))
    (folder / "train.de").write_text("".join(f"ein kleines Haus {n}\n" for n in range(40)))
    (folder / "test.en").write_text("a house\n" * 4)
    (folder / "test.de").write_text("ein Haus\n" * 4)
    return Translation.desk(str(folder))


def table(folder: Path) -> Any:
    (folder / "data.csv").write_text("x,value\n1,0.5\n2,0.25\n")
    return Tabular(str(folder / "data.csv"), "value")


def described(evaluator: Any) -> Any:
    if isinstance(evaluator, Tabular):
        return evaluator.column_of("value").tolist()
    return evaluator.fingerprint(), evaluator.task(), evaluator.describe_data()


@pytest.mark.parametrize("make", [images, text, pairs, table])
def test_what_was_read_is_enough(make: Any, tmp_path: Path) -> None:
    evaluator = make(tmp_path)
    before = described(evaluator)
    buffers: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(loaded.of(evaluator), protocol=5, buffer_callback=buffers.append)
    evaluator = pickle.loads(pickle.dumps(evaluator))
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(DataError):
        described(evaluator)
    try:
        loaded.give(pickle.loads(sent, buffers=buffers))
        assert described(evaluator) == before
        if not isinstance(evaluator, Tabular):
            again = dataclasses.replace(evaluator, epochs=evaluator.epochs + 1)
            assert described(again) == before, "also where only the training differs"
    finally:
        loaded.give({})


def test_an_evaluator_that_reads_nothing_hands_on_nothing() -> None:
    assert loaded.of(object()) == {}
    assert loaded.given("images") is None
