"""Predicting: every format gives the same answers, and a file that cannot be read costs the others nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import archsmith as smith
from archsmith._export import FORMATS, ImageModel, export
from archsmith._export import image_prediction as prediction_module
from archsmith.cli.main import main
from archsmith.core.child import Task
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.space import build, decode, sample
from archsmith.data.image_folder import read_picture
from archsmith.spaces import ConvChain
from picture_zoo import TRANSPARENT

NAMES = ["zero", "one", "two"]


@pytest.fixture(scope="module")
def model() -> ImageModel:
    """Tells zeros from ones from twos: a real network, trained for a second."""
    space = ConvChain(layers=2, filters=(16,), filter_heights=(3,), filter_widths=(3,))
    genotype, task = sample(space, Random(0)), Task((1, 8, 8), 3)
    torch.manual_seed(0)
    network = build(space, genotype, task).model
    digits = load_digits()
    few = digits.target < 3
    x = torch.from_numpy(digits.images[few] / 16.0).float()[:, None]
    y = torch.from_numpy(digits.target[few]).long()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    for _ in range(120):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    assert (network.eval()(x).argmax(1) == y).float().mean() > 0.97
    preprocessing = {"height": 8, "width": 8, "channels": 1, "scale": 1 / 255, "whiten": False, "upsample": 1.0}
    return ImageModel(
        name="digits",
        network=network,
        task=task,
        class_names=NAMES,
        preprocessing=preprocessing,
        space=to_config(space),
        genotype=genotype.to_json(),
        architecture=decode(space, genotype),
    )


@pytest.fixture(scope="module")
def exported(model: ImageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = {format: export(model, format=format, path=folder / format) for format in FORMATS}
    return paths | {"the file alone": paths["onnx"] / "model.onnx"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first digits 0, 1 and 2 in many modes and sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for k, image in enumerate(load_digits().images[:3]):
        grey = Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8))
        large = grey.resize((64, 64), Image.Resampling.BICUBIC)
        wide = Image.new("L", (128, 64))
        wide.paste(large, (32, 0))
        sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        for name, picture in (
            ("small.png", grey),
            ("large.png", large),
            ("wide.bmp", wide),
            ("colour.png", large.convert("RGB")),
            ("alpha.png", large.convert("RGBA")),
            ("cmyk.tif", large.convert("RGB").convert("CMYK")),
            ("photo.jpg", large),
            ("sixteen.png", sixteen),
        ):
            picture.save(folder / f"{k}-{name}")
            made.append(folder / f"{k}-{name}")
    return made


@pytest.mark.parametrize("format", [*FORMATS, "the file alone"])
def test_every_format_gives_the_modules_answers(
    model: ImageModel, exported: dict[str, Path], pictures: list[Path], format: str
) -> None:
    predictions = smith.predict(exported[format], pictures, run_source=format == "source")
    assert [p.path for p in predictions] == [os.fspath(path) for path in pictures]
    for path, p in zip(pictures, predictions, strict=True):
        pixels = torch.from_numpy(read_picture(path, 8, 1).copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            expected = model.deployed()(pixels)[0].double().softmax(0)
        assert p.error is None
        assert dict(p.top) == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), abs=1e-4)
        assert [q for _, q in p.top] == sorted((q for _, q in p.top), reverse=True)
        assert p.label == NAMES[int(expected.argmax())]
        if path.name.endswith(("small.png", "sixteen.png")):  # not blurred by resizing
            assert p.label == NAMES[int(path.name[0])], path


def test_the_guides_snippet_for_onnx_answers_as_predict_does(
    model: ImageModel, exported: dict[str, Path], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "guides" / "your-own-data.md").read_text()
    (snippet,) = re.findall(r"^python - <<'END'\n((?:(?!^END$).)*onnxruntime.*?)^END$", guide, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("first-onnx").symlink_to(exported["onnx"])
    Path("pictures/circle").mkdir(parents=True)
    Path("asked").mkdir()
    for name, (content, _) in TRANSPARENT.items():
        Path("asked", name).write_bytes(content)
    pictures = [*pictures, *sorted(Path("asked").iterdir())]
    for path, p in zip(pictures, smith.predict(exported["onnx"], pictures), strict=True):
        shutil.copy(path, "pictures/circle/2.png")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(snippet, scope := {})  # type: ignore[var-annotated]
        logits = torch.from_numpy(scope["logits"][0]).double()
        assert said.getvalue().strip() == p.label
        assert dict(p.top) == pytest.approx(dict(zip(NAMES, logits.softmax(0).tolist(), strict=True)), abs=1e-6)
        sys.path.remove("first-onnx")
        del sys.modules["read_image"]


def test_a_file_that_cannot_be_read_is_told_by_name_and_the_others_are_answered(
    exported: dict[str, Path], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_module, "BATCH", 2)
    empty, text, void = tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "void"
    empty.touch()
    void.mkdir()
    text.write_text("no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[1].read_bytes()[:-40])
    asked = [pictures[0], empty, pictures[8], text, cut, tmp_path / "missing.png", void, pictures[16], pictures[7]]
    predictions = smith.predict(exported["pytorch"], asked, k=1)
    assert [p.label for p in predictions] == ["zero", None, "one", None, None, None, None, "two", "zero"]
    for p in predictions:
        assert (p.error is None) == (len(p.top) == 1)
        if p.error is not None:
            assert str(p) == f"{p.path}: {p.error}"
    assert "zero bytes" in (predictions[1].error or "")
    assert "no picture" in (predictions[3].error or "")
    assert "No such file" in (predictions[5].error or "")
    assert predictions[6].error == "has no picture in it"
    assert smith.predict(exported["pytorch"], []) == []


def test_a_folder_stands_for_the_pictures_in_it(
    exported: dict[str, Path], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".thumbnails").mkdir()
    shutil.copy(pictures[0], folder / "zero.png")
    shutil.copy(pictures[8], folder / "deep" / "er" / "one, without a suffix")
    shutil.copy(pictures[0], folder / ".thumbnails" / "zero.png")
    (folder / "deep" / "back").symlink_to(folder)
    (folder / "deep" / "damaged.png").write_bytes(b"no picture")
    for other in ("labels.csv", "deep/notes.txt"):
        (folder / other).write_text("text")
    with pytest.warns(UserWarning, match=r"2 files of .*new are no pictures and were left out"):
        predictions = smith.predict(exported["pytorch"], [pictures[16], folder, pictures[0]], k=1)
    names = [pictures[16], folder / "deep/damaged.png", folder / "deep/er/one, without a suffix", folder / "zero.png"]
    assert [p.path for p in predictions] == [str(path) for path in [*names, pictures[0]]]
    assert [p.label for p in predictions] == ["two", None, "one", "zero", "zero"]
    assert main(["predict", str(exported["pytorch"]), str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out.count("\n") == 3
    assert "left out" in said.err


def test_a_prediction_is_plain_json_and_a_line(exported: dict[str, Path], pictures: list[Path]) -> None:
    (p,) = smith.predict(exported["pytorch"], [pictures[0]], k=2)
    plain = json.loads(json.dumps(p.to_json()))
    assert plain["label"] == "zero"
    assert plain["error"] is None
    assert plain["probability"] == plain["top"][0]["probability"] == p.probability
    assert len(plain["top"]) == 2
    assert str(p).startswith(f"{pictures[0]}: zero ")
    assert len(smith.predict(exported["pytorch"], [pictures[0]], k=99)[0].top) == 3


def card_of(folder: Path, **changes: Any) -> Path:
    card = json.loads((folder / "model.json").read_text()) | changes
    folder.joinpath("model.json").write_text(json.dumps(card))
    return folder


def test_what_is_no_model_is_told_so(
    exported: dict[str, Path], pictures: list[Path], model: ImageModel, tmp_path: Path
) -> None:
    def refused(path: Path, message: str, **options: Any) -> None:
        with pytest.raises(UsageError, match=message):
            smith.predict(path, [pictures[0]], **options)

    refused(exported["pytorch"], "k must be", k=0)
    refused(tmp_path / "nowhere", "there is no model at")
    refused(pictures[0], "an .onnx file; got the file")
    refused(tmp_path, "has no model.json")
    fake = tmp_path / "fake.onnx"
    fake.write_bytes(b"no protobuf")
    refused(fake, "cannot be opened by ONNX Runtime")
    stranger = tmp_path / "stranger.onnx"
    import onnx

    proto = onnx.load(exported["onnx"] / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, stranger)
    refused(stranger, "carries no card")
    refused(card_of(export(model, path=tmp_path / "m"), kind="tarot"), "format 'tarot'")
    (export(model, format="source", path=tmp_path / "s") / "model.py").write_text("def f(:")
    refused(tmp_path / "s", "would be run with all your rights")
    refused(tmp_path / "s", "cannot be run", run_source=True)
    for program, said in (
        ("1 / 0", "cannot be run: ZeroDivisionError"),
        ("", "gives no network: AttributeError"),
        ("def load(): return 3", "gives a int"),
        ("def load(): open('weights')", "gives no network: FileNotFoundError"),
    ):
        (tmp_path / "s" / "model.py").write_text(program)
        refused(tmp_path / "s", said, run_source=True)
    wide = {"task": {"input_shape": [1, 8, 9], "num_classes": 3}, "preprocessing": {**model.preprocessing, "width": 9}}
    tall = card_of(export(model, path=tmp_path / "t"), **wide)
    refused(tall, "1 x 8 x 9")
