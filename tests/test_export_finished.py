"""Exports of every network that a finish trained, also when the data are no longer there."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import archsmith as smith
from archsmith._finish import FinishPlan
from archsmith.cli.main import main
from archsmith.core.artifacts import open_artifacts
from archsmith.core.errors import UnknownName, UsageError
from archsmith.spaces import ConvChain, RecurrentCell
from archsmith.training import ImageClassification, LanguageModel

PLAN = FinishPlan(top=1, epochs=1, seeds=2)


def pictures(folder: Path, classes: tuple[str, ...] = ("bright", "dark"), seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            levels = rng.integers(0, 100, (10, 10, 3)) + 150 * (k == 0)
            Image.fromarray(levels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@dataclass(frozen=True)
class Finished:
    """A store with a finished run, whose data are at `data`."""

    store: Path
    data: Path

    def run(self) -> smith.Run:
        return smith.open_run(f"sqlite:///{self.store}", "run")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("images")
    data = pictures(folder / "pictures")
    evaluator = ImageClassification(str(data), epochs=1, batch_size=4, size=8, whiten=True, upsample=1.25)
    space = ConvChain(layers=1, filters=(4,))
    store = f"sqlite:///{folder}/runs.db"
    for name in ("run", "run-random"):
        run = smith.search(space, evaluator, trials=1, store=store, name=name, seed=len(name))
    smith.finish(smith.open_run(store, "run"), plan=PLAN, control=run)
    shutil.move(data, folder / "moved")
    return Finished(folder / "runs.db", folder / "moved")


def test_every_network_of_a_finish_is_exported_without_the_data(images: Finished, tmp_path: Path) -> None:
    run = images.run()
    document = run.reader.document("finish")
    names = [n["name"] for n in document["networks"]]
    assert names == ["found", "residual network", "random search"]
    picture = images.data / "bright" / "3.png"
    for name in names:
        network = next(n for n in document["networks"] if n["name"] == name)
        folder = smith.export(run, network=name, path=tmp_path / name)
        card = json.loads((folder / "model.json").read_text())
        final = max(network["finals"], key=lambda f: f["validation"])
        assert card["parameters"] == network["parameters"]
        assert card["class_names"] == ["bright", "dark"]
        assert card["card"]["metrics"]["test"]["accuracy"] == final["score"]
        assert card["card"]["training"]["seed"] == final["seed"]
        assert card["card"]["data"]["train"] > 0
        assert card["preprocessing"]["upsample"] == 1.25
        weights = open_artifacts(run.store.artifacts).get(final["artifact"])
        loaded = smith.load(folder)
        assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.network.state_dict().items())
        answers = [smith.predict(folder, [picture])[0]]
        for format in ("source", "onnx") if name == "residual network" else ("source",):
            other = smith.export(run, network=name, format=format, path=tmp_path / f"{name}-{format}")
            answers += smith.predict(other, [picture], run_source=True)
        assert {answer.label for answer in answers} == {answers[0].label}
        assert [a.probability for a in answers] == pytest.approx([answers[0].probability] * len(answers), abs=1e-4)
    assert json.loads((smith.export(run, path=tmp_path / "found") / "model.json").read_text())["name"] == "run"


def test_a_run_is_described_and_drawn_without_the_data(images: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    run = images.run()
    described = smith.describe(run)
    assert described.to_json()["input_shape"] == [3, 8, 8]
    assert described.parameters == run.best.result.metrics["parameters"]
    of_run = ["run", "--store", f"sqlite:///{images.store}"]
    assert main(["describe", *of_run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == described.parameters
    assert main(["draw", *of_run]) == 0
    assert capsys.readouterr().out.startswith("<svg")
    for command in ("finish", "resume"):
        assert main([command, *of_run, *(["--trials", "2"] if command == "resume" else ["--again"])]) == 2
        said = capsys.readouterr().err
        assert re.search(
            r"the data of run 'run' cannot be read: there is no .*; name the right place with --data", said
        )


def test_an_unknown_network_is_refused_with_their_names(
    images: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'residual network'.*trained: found, residual"):
        smith.export(images.run(), network="residual", path=tmp_path / "m")
    with pytest.raises(UnknownName, match="there are: found, random search, residual network"):
        smith.export(images.run(), network="zzz", path=tmp_path / "m")
    with pytest.raises(UsageError, match="was not finished"):
        smith.export(smith.open_run(images.run().store, "run-random"), network="found", path=tmp_path / "m")
    with pytest.raises(UsageError, match="names a network of a finished run"):
        smith.export("nas_conv_v1", network="found", path=tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    command = ["export", "run", "--network", "Residual-network", "--store", f"sqlite:///{images.store}"]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == "run-residual-network-pytorch"
    assert smith.load("run-residual-network-pytorch").name == "run-residual-network"


def test_other_data_in_the_place_change_nothing(images: Finished, tmp_path: Path) -> None:
    before = smith.export(images.run(), path=tmp_path / "before")
    place = Path(images.run().config["evaluator"]["data"])
    pictures(place, ("a", "b", "c"), seed=1)
    try:
        after = smith.export(images.run(), path=tmp_path / "after")
    finally:
        shutil.rmtree(place)
    assert smith.load(after).class_names == smith.load(before).class_names == ["bright", "dark"]
    # Runs from before there was a record have the shape and the classes in their configuration.
    old = tmp_path / "old.db"
    with sqlite3.connect(images.store) as source, sqlite3.connect(old) as target:
        source.backup(target)
    shutil.copytree(images.store.with_suffix(".artifacts"), tmp_path / "old.artifacts")
    with closing(sqlite3.connect(old)) as connection, connection:
        assert connection.execute("delete from documents where key = 'data-record'").rowcount == 2
    assert smith.load(smith.export(smith.open_run(old, "run"), path=tmp_path / "of-old")).class_names == [
        "bright",
        "dark",
    ]


def test_the_record_of_a_residual_network_is_checked(images: Finished, tmp_path: Path) -> None:
    folder = smith.export(images.run(), network="residual network", path=tmp_path / "m")
    card = json.loads((folder / "model.json").read_text())
    for change, words in (
        ({"blocks": 10**9}, "blocks and three widths"),
        ({"widths": [1, 2]}, "blocks and three widths"),
        ({"widths": [1, 2, 10**9]}, "whole numbers up to"),
        ({"widths": [1, 2, True]}, "whole numbers up to"),
        ({"blocks": 2}, "do not fit"),
    ):
        (folder / "model.json").write_text(json.dumps({**card, "space": {**card["space"], **change}}))
        with pytest.raises(UsageError, match=words):
            smith.load(folder)


def test_a_language_model_is_exported_without_its_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\nthe dog sat on the log\n" * 60)
    evaluator = LanguageModel(
        str(text), epochs=1, batch_size=2, unroll=5, hidden=6, layers=1, vocabulary=50, dropout=0.0, input_dropout=0.0
    )
    store = f"sqlite:///{tmp_path}/runs.db"
    run = smith.search(RecurrentCell(base=2), evaluator, trials=1, store=store, name="run")
    smith.finish(run, plan=PLAN)
    text.rename(tmp_path / "moved.txt")
    run = smith.open_run(store, "run")
    for name, format in (("found", "pytorch"), ("found", "source"), ("LSTM", "source"), ("LSTM", "onnx")):
        folder = smith.export(run, network=name, format=format, path=tmp_path / f"{name}-{format}")
        (score,) = smith.predict(folder, [tmp_path / "moved.txt"], run_source=True)
        assert score.error is None
        assert score.unknown == 0
    with pytest.raises(UsageError, match="use format source or onnx"):
        smith.export(run, network="LSTM", path=tmp_path / "no")
