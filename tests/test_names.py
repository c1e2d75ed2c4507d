"""Names of any characters, from a folder of pictures to what `predict` prints: one text everywhere, on any console."""

from __future__ import annotations

import html
import io
import json
import os
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import archsmith as smith
from archsmith.cli.main import main
from archsmith.core.shown import plain, spelled
from archsmith.data import images as data
from archsmith.spaces import ConvChain
from archsmith.training import ImageClassification

# As the folders are named, and as the classes are called.
CLASSES = {
    unicodedata.normalize("NFD", "caf\u00e9"): "caf\u00e9",
    "caf\udce9": r"caf\xe9",
    "\u202egnp": r"\u202egnp",
    "a\nb\x1b[31m": r"a\x0ab\x1b[31m",
    "日本": "日本",
    "q\"uote's <b> \\ `x`": "q\"uote's <b> \\ `x`",
}
NAMES = sorted(CLASSES.values())


@dataclass(frozen=True)
class Searched:
    run: smith.Run
    folder: Path
    picture: Path


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("names")
    pictures = folder / "donn\udce9es"
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (pictures / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(pictures / name / f"\udcff{i}.png")
    (pictures / "stray\udcff.png").write_bytes(b"")
    evaluator = ImageClassification(str(pictures), epochs=1, size=8, batch_size=4, upsample=1.0, keep_weights=True)
    with pytest.warns(UserWarning, match=r"stray\\xff\.png: is in no class"):
        run = smith.search(
            ConvChain(layers=1, filters=(4,)), evaluator, trials=1, store=f"sqlite:///{folder / 'r.db'}", name="n"
        )
    return Searched(run, folder, pictures / "caf\udce9" / "\udcff0.png")


def test_the_store_has_the_names_and_an_export_too(searched: Searched) -> None:
    recorded = smith.open_run(f"sqlite:///{searched.folder / 'r.db'}", "n").config
    assert recorded["dataset"]["classes"] == NAMES
    assert recorded["dataset"]["unreadable_files"] == [r"stray\xff.png: is in no class's folder"]
    folder = smith.export(searched.run, format="pytorch", path=searched.folder / "model")
    card = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    assert card["class_names"] == NAMES
    assert card["card"]["data"]["name"] == r"donn\xe9es"


def test_the_page_shows_the_names(searched: Searched) -> None:
    page = html.unescape(searched.run.report(searched.folder / "page.html").read_text(encoding="utf-8"))
    assert f"classes: {', '.join(NAMES)};" in page
    assert "\ufffd" not in page


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_predictions_are_of_the_names_on_any_console(
    searched: Searched, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = smith.export(searched.run, format="pytorch", path=searched.folder / "model")
    printed = []
    for options in ([], ["--json"]):
        stream = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding, write_through=True))
        assert main(["predict", str(model), str(searched.picture), *options]) == 0
        printed.append(stream.getvalue().decode(encoding))
    (prediction,) = json.loads(printed[1])
    assert prediction["path"] == str(searched.picture)
    assert prediction["label"] in NAMES
    label = prediction["label"].encode(encoding, "backslashreplace").decode(encoding)
    assert printed[0].startswith(f"{plain(str(searched.picture))}: {label} ")


def test_an_exported_program_prints_any_name_on_a_console_of_ascii(searched: Searched) -> None:
    folder = smith.export(searched.run, format="source", path=searched.folder / "source")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, str(Path(folder) / "model.py"), str(searched.picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(plain(str(searched.picture)))


@pytest.mark.parametrize("stderr", [None, io.TextIOWrapper(io.BytesIO(), "ascii"), io.StringIO()])
def test_data_are_read_whatever_the_console_is(tmp_path: Path, stderr: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("caf\u00e9", "日本"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    monkeypatch.setattr(sys, "stderr", stderr)
    assert data.load(str(tmp_path)).class_names == ("caf\u00e9", "日本")


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_no_two_names_are_spelled_alike(a: str, b: str) -> None:
    assert spelled(a).encode("utf-8").decode("utf-8") == plain(spelled(a))
    assert "\n" not in spelled(a)
    assert (spelled(a) == spelled(b)) == (a == b)


@given(st.text(alphabet="\\xu0e9\n\udce9\x85\u00e9"))
def test_a_spelled_name_is_the_name_of_no_other_file(name: str) -> None:
    assert spelled(name) == name or spelled(spelled(name)) != spelled(name)


def test_auto_makes_no_class_of_the_folder_that_it_writes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    assert main(["auto", ".", "--output", "a/b", "--trials", "1"]) == 2
    assert "'cat' has 2, 'dog' has 2. Add images" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat", "dog"]
