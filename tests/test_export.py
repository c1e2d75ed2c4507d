"""Exports: what is written gives the answers that were measured, and nothing else is believed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import archsmith as smith
from archsmith._export import ImageModel, export, load
from archsmith._export import image_onnx as onnx_format
from archsmith._export.card import told
from archsmith._export.image_model import Deployed
from archsmith._export.image_onnx import run_onnx
from archsmith._export.network_source import network_source
from archsmith._export.onnx_file import open_onnx
from archsmith._export.opened import open_model
from archsmith._export.source import run_source
from archsmith.core.child import Task
from archsmith.core.config import to_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.space import build, decode, sample
from archsmith.data.image_folder import read_picture
from archsmith.nn.augment import preprocess
from archsmith.nn.batch_norm import set_epsilon
from archsmith.nn.resnet import resnet_of_size
from archsmith.spaces import ConvChain
from archsmith.training import ImageClassification
from picture_zoo import DEEP, TRANSPARENT, TURNED, packed

FILTERS = {"filters": (4, 6, 8), "filter_heights": (1, 3, 5), "filter_widths": (1, 3, 4)}
TYPES = ("conv", "max_pool", "avg_pool", "lcn", "bn", "fc")
SPACES = {
    "plain": ConvChain(layers=4, **FILTERS),
    "strides": ConvChain(layers=5, strides=(1, 2, 3), **FILTERS),
    "pools": ConvChain(layers=4, block=3, pools=(2,), extra_filters=2, **FILTERS),
    "types": ConvChain(layers=8, layer_types=TYPES, **FILTERS),
    "rates": ConvChain(layers=3, learning_rates=(0.1, 0.05), **FILTERS),
}


def shaken(network: nn.Module) -> nn.Module:
    """A network with every number of its own, as after training, running statistics included."""
    draws = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=draws)
            tensor.add_(0.5 * noise if name.endswith(("running_var", "running_mean")) else 0.2 * (noise - 0.5))
    return network


COLOUR = Task((3, 12, 12), 5)


def model_of(space: Any, seed: int = 0, task: Task = COLOUR, **fields: Any) -> ImageModel:
    """A model of a random genotype of a space."""
    genotype = sample(space, Random(seed))
    torch.manual_seed(seed)
    channels, height, width = task.input_shape
    prepared = {"height": height, "width": width, "channels": channels, "scale": 1 / 255, "crop": "centre"}
    defaults: dict[str, Any] = {
        "name": "a-run",
        "network": shaken(build(space, genotype, task).model),
        "task": task,
        "class_names": [f"class {k}" for k in range(task.num_classes)],
        "preprocessing": {**prepared, "whiten": True, "upsample": 1.25},
        "space": to_config(space),
        "genotype": genotype.to_json(),
        "architecture": decode(space, genotype),
        "card": {"versions": {"archsmith": smith.__version__}, "metrics": {}},
    }
    return ImageModel(**{**defaults, **fields})


# --- source -----------------------------------------------------------------------------------------------------------

WITHOUT_ARCHSMITH = """
import importlib.util, sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "archsmith":
            raise ImportError("archsmith is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import archsmith
except ImportError:
    pass
else:
    raise SystemExit("archsmith could be imported")
import torch
from safetensors.torch import load_file
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("model", Path(folder, "model.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = load_file(Path(folder, "known.safetensors"))
    with torch.inference_mode():
        for k in range(len(known) // 2):
            assert torch.equal(module.load()(known[f"input{k}"]), known[f"output{k}"]), folder
print(len(sys.argv) - 1, "equal")
"""


def test_source_runs_where_archsmith_cannot_be_imported_and_gives_equal_outputs(tmp_path: Path) -> None:
    models = [model_of(space, seed) for space in SPACES.values() for seed in range(3)]
    for size, shape in ((3_000, (1, 8, 8)), (20_000, (3, 15, 11))):
        task = Task(shape, 4)
        network = shaken(resnet_of_size(size, task))
        models.append(model_of(ConvChain(layers=1), task=task, network=network))
    folders = []
    for k, model in enumerate(models):
        folder = export(model, format="source", path=tmp_path / str(k))
        with torch.inference_mode():
            known = {}
            for i, images in enumerate(model.inputs()):
                known |= {f"input{i}": images, f"output{i}": model.deployed()(images)}
        save_file(known, folder / "known.safetensors")
        folders.append(str(folder))
    command = [sys.executable, "-I", "-c", WITHOUT_ARCHSMITH, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"{len(models)} equal", done.stderr
    # What a person reads passes the usual checks and fits the screen.
    files = [str(Path(folder, "model.py")) for folder in folders]
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,W,I,UP,B,C4,SIM"]
    checked = subprocess.run([*ruff, *files], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_file_reads_like_one_that_a_person_wrote(tmp_path: Path) -> None:
    space = ConvChain(layers=2, filter_heights=(3,), filter_widths=(3,), filters=(8,), skips=False)
    architecture = decode(space, sample(space, Random(0)))
    network = shaken(build(space, architecture, Task((1, 8, 8), 3)).model)
    preprocessing = {"height": 8, "width": 8, "channels": 1, "whiten": False, "upsample": 1.0}
    model = model_of(space, task=Task((1, 8, 8), 3), network=network, preprocessing=preprocessing)
    text = (export(model, format="source", path=tmp_path / "m") / "model.py").read_text()
    assert (
        """
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        layers_0 = self.layers_0_conv(images)
        layers_0 = self.layers_0_norm(layers_0)
        layers_0 = self.layers_0_relu(layers_0)
        layers_1 = self.layers_1_conv(layers_0)
        layers_1 = self.layers_1_norm(layers_1)
        layers_1 = self.layers_1_relu(layers_1)
        pool = layers_1.permute(0, 2, 3, 1)
        pool = pool.flatten(1, 2)
        pool = pool.mean(1)
        x = self.classifier(pool)
        return x
"""
        in text
    )
    assert "        self.layers_0_conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)\n" in text
    assert "        self.layers_0_norm = nn.BatchNorm2d(8)\n" in text


class Everything(nn.Module):
    """Operations that children of later spaces use, in the forms that are hard to write down."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (3, 1), padding="same", padding_mode="reflect")
        self.norm = nn.LayerNorm((8, 8))
        self.pool = nn.AdaptiveAvgPool2d((4, 4))
        self.max = nn.MaxPool2d(kernel_size=(2, 2), stride=(1, 1), ceil_mode=True)
        self.blocks = nn.ModuleDict({"class": nn.Sequential(nn.Conv2d(4, 4, 1), nn.SiLU()), "b": nn.PReLU()})
        self.blocks_b = nn.Hardtanh(-2.0, 2.0)  # flattened, the name of another
        self.scale = nn.Parameter(torch.tensor([0.5, 1.5, 2.5, 1.0]).reshape(4, 1, 1))
        self.register_buffer("shift", torch.arange(4).reshape(1, 4, 1, 1))
        self.out = nn.Linear(4, 3)
        self.unused = nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        a = F.max_pool2d(F.pad(x, (0, 1, 1, 0), value=-1.0), 2, stride=1)
        b = F.avg_pool2d(a, kernel_size=2) if a is not None else a
        c = self.pool(torch.where(a > 0, a, -a * 0.25))
        c = self.blocks["class"](c) + self.blocks_b(self.blocks["b"](b)) * self.scale - self.shift
        c = c.clone()
        c.mul_(2.0)  # a change in place, whose result nothing uses
        first, second = c.chunk(2, dim=1)
        c = torch.cat((first, second[:, :, ::1, ...]), dim=-3) ** 2 / (1 + c.abs())
        c = self.max(c)
        return self.out(torch.sigmoid(c).flatten(2).mean(-1))


def test_the_file_names_what_it_cannot_read_and_answers_the_rest(tmp_path: Path) -> None:
    folder = export(model_of(ConvChain(layers=1), task=Task((1, 8, 8), 3)), format="source", path=tmp_path / "m")
    Image.new("L", (9, 9)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    command = [sys.executable, str(folder / "model.py"), "bad.png", "good.png", "gone.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("good.png: ")
    assert "bad.png: cannot be read" in done.stderr
    assert "gone.png: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_source_writes_what_later_spaces_will_use() -> None:
    torch.manual_seed(0)
    module = shaken(Everything()).eval()
    text, state = network_source(module, 'One line with """quotes""" and a \\.')
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": F}
    exec(text, scope)
    written = scope["Network"]()
    written.load_state_dict(state)
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(written.eval()(x), module(x))
    assert "unused" not in text
    assert "self.blocks_class_0 = nn.Conv2d(4, 4, 1)" in text


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.zeros(1)) + np.add(1, 2) + special(x)


@torch.fx.wrap
def special(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def test_what_cannot_be_written_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="cannot follow the forward pass of Branches"):
        network_source(Branches(), "x")
    with pytest.raises(UsageError, match=r"this network calls .*special"):
        network_source(Foreign(), "x")


@pytest.mark.parametrize(("format", "channels"), [("source", 1), ("onnx", 3)])
def test_an_export_reads_pictures_as_training_does(tmp_path: Path, format: str, channels: int) -> None:
    model = model_of(SPACES["plain"], task=Task((channels, 12, 12), 5))
    folder = export(model, format=format, path=tmp_path / "m")
    contents = {name: content for name, (content, _) in {**TRANSPARENT, **DEEP}.items()} | TURNED
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    contents["large.jpg"] = packed(photo, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0")
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    script = f"""
import sys
import numpy as np
sys.path.insert(0, {str(folder)!r})
from {"model" if format == "source" else "read_image"} import PictureError, read_image
assert not any(name.startswith("archsmith") for name in sys.modules)
pixels = [np.asarray(read_image(path))[0] for path in sys.argv[2:]]
np.save(sys.argv[1], pixels)
try:
    read_image("bad.png")
except PictureError as error:
    print(error)
"""
    command = [sys.executable, "-I", "-c", script, "read.npy", *contents]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "is no picture" in done.stdout
    for name, pixels in zip(contents, np.load(tmp_path / "read.npy"), strict=True):
        expected = read_picture(tmp_path / name, 12, channels).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        assert np.array_equal(pixels, expected), name
    if format == "source":
        command = [sys.executable, "-I", str(folder / "model.py"), str(tmp_path / "large.jpg")]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("class ") == 3


def test_names_of_classes_are_text_whatever_is_in_them(tmp_path: Path) -> None:
    names = ['say "hi"', "a\\b", "line\nbreak", "ankle boot", "\N{SNOWMAN}'''\"\"\""]
    folder = export(model_of(SPACES["plain"], class_names=names, name='"""x\\'), format="source", path=tmp_path / "m")
    assert list(run_source(folder).CLASSES) == names


# --- what stands before the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("whiten", "upsample"), [(True, 1.0), (False, 1.0), (True, 1.25), (False, 1.5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_deployed_does_what_validation_and_test_did(whiten: bool, upsample: float, channels: int) -> None:
    evaluator = ImageClassification("digits", whiten=whiten, upsample=upsample)
    prepared = {**evaluator.preprocessing, "channels": channels}
    draws = np.random.default_rng(0)
    images = torch.from_numpy(draws.integers(0, 256, (5, 8, 8, channels)).astype(np.uint8))
    images[0] = 7  # blank: its deviation is nothing
    pixels = images.permute(0, 3, 1, 2).float() / 255
    given = Deployed(nn.Identity(), prepared)(pixels)
    torch.testing.assert_close(given, preprocess(images, prepared), rtol=1e-4, atol=2e-5)


def test_preprocessing_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="'solarise'"):
        Deployed(nn.Identity(), {"solarise": 3})


# --- temperature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.37, 1.0, 4.2])
def test_a_temperature_divides_the_logits_in_every_format_and_changes_no_class(
    tmp_path: Path, temperature: float
) -> None:
    picture = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    Image.fromarray(noise).save(picture)
    plain = model_of(SPACES["plain"], 2)
    model = replace(plain, temperature=temperature)
    pixels = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    expected = plain.answer(pixels)
    assert torch.equal(model.answer(pixels).argmax(1), expected.argmax(1))
    answers: dict[str, torch.Tensor] = {}
    predicted: list[list[tuple[str, float]]] = []
    for format in ("pytorch", "onnx", "source"):
        folder = export(model, format=format, path=tmp_path / format)
        assert json.loads((folder / "model.json").read_text()).get("temperature", 1.0) == temperature
        answers[format] = open_model(folder, run_source=True).network(pixels)
        predicted += [list(smith.predict(folder, [picture], k=5, run_source=True)[0].top)]
    for logits in answers.values():
        torch.testing.assert_close(logits.detach(), expected / temperature, rtol=1e-5, atol=1e-5)
    known = (plain.answer(torch.from_numpy(noise / 255).permute(2, 0, 1)[None].float()) / temperature).softmax(1)[0]
    for top in predicted:
        assert [p for _, p in top] == pytest.approx(sorted(known.tolist(), reverse=True), abs=1e-5)
        assert [name for name, _ in top] == [name for name, _ in predicted[0]]


def test_an_export_from_before_there_were_temperatures_has_none_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    folder = export(model_of(SPACES["plain"]), path=tmp_path / "m")
    card = json.loads((folder / "model.json").read_text())
    assert "temperature" not in card
    assert load(folder).temperature == 1.0
    for wrong in (0, -1.0, "2", True, float("nan"), float("inf"), None):
        (folder / "model.json").write_text(json.dumps({**card, "temperature": wrong}))
        with pytest.raises(UsageError, match="temperature must be a number above 0"):
            load(folder)


# --- pytorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_pytorch_is_loaded_as_it_was(tmp_path: Path, name: str) -> None:
    model = model_of(SPACES[name])
    model = replace(model, network=set_epsilon(model.network, 0.25), batch_norm_epsilon=0.25)
    before = torch.random.get_rng_state()
    again = smith.load(export(model, path=tmp_path / "m"))
    assert torch.equal(torch.random.get_rng_state(), before), "loading draws nothing"
    images = torch.rand(3, 3, 12, 12)
    assert torch.equal(again.deployed()(images), model.deployed()(images))
    assert again.genotype == model.genotype
    assert again.architecture == json.loads(json.dumps(model.architecture))
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["README.md", "model.json", "model.safetensors"]
    export(tmp_path / "m", format="source", path=tmp_path / "source")


def edited(folder: Path, change: Any) -> None:
    card = json.loads((folder / "model.json").read_text())
    change(card)
    (folder / "model.json").write_text(json.dumps(card))


DAMAGES: dict[str, tuple[Any, str]] = {
    "weights changed": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "its SHA-256 differs"),
    "weights gone": (lambda f: (f / "model.safetensors").unlink(), "cannot be read"),
    "card gone": (lambda f: (f / "model.json").unlink(), "has no model.json"),
    "card no JSON": (lambda f: (f / "model.json").write_text("{"), "cannot be read"),
    "card of another": (lambda f: (f / "model.json").write_text("{}"), "not the card of an archsmith model"),
    "later version": (lambda f: edited(f, lambda c: c.update(version=99)), "version 99"),
    "another kind": (lambda f: edited(f, lambda c: c.update(kind="onnx")), "only format pytorch"),
    "classes lost": (lambda f: edited(f, lambda c: c.update(class_names=["a"])), "1 class names for 5"),
    "illegal answer": (
        lambda f: edited(f, lambda c: c["genotype"]["answers"].update({"1.filters": 5})),
        "must be one of",
    ),
    "another answer": (lambda f: edited(f, lambda c: c["genotype"]["answers"].update({"1.filters": 4})), "do not fit"),
    "a space of nobody's": (lambda f: edited(f, lambda c: c["space"].update(type="os:system")), "is none"),
    "a function": (lambda f: edited(f, lambda c: c["space"].update(type="rewards.accuracy")), "is none"),
    "a field of nobody's": (lambda f: edited(f, lambda c: c["space"].update(colour=1)), "has no field 'colour'"),
    "preprocessing as a list": (lambda f: edited(f, lambda c: c.update(preprocessing=[])), "preprocessing must be"),
    "enormous images": (lambda f: edited(f, lambda c: c["preprocessing"].update(upsample=1e9)), "upsample must be"),
    "infinite images": (lambda f: edited(f, lambda c: c["preprocessing"].update(upsample=1e999)), "upsample must be"),
    "another size": (lambda f: edited(f, lambda c: c["preprocessing"].update(height=7)), "height must be 12"),
    "epsilon as text": (lambda f: edited(f, lambda c: c.update(batch_norm_epsilon="x")), "batch_norm_epsilon must be"),
    "epsilon below 0": (lambda f: edited(f, lambda c: c.update(batch_norm_epsilon=-1)), "batch_norm_epsilon must be"),
    "enormous inputs": (lambda f: edited(f, lambda c: c["task"].update(input_shape=[3, 10**5, 10**5])), "at most"),
    "no name": (lambda f: edited(f, lambda c: c.update(name=None)), "name must be text"),
    "card as a list": (lambda f: edited(f, lambda c: c.update(card=[])), "card must be an object"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_was_changed_is_refused(tmp_path: Path, damage: str) -> None:
    space = ConvChain(layers=2, filters=(4, 8), filter_heights=(3,), filter_widths=(3,))
    seed = next(s for s in range(50) if sample(space, Random(s)).answers["1.filters"] == 8)
    folder = export(model_of(space, seed), path=tmp_path / "m")
    change, message = DAMAGES[damage]
    change(folder)
    with pytest.raises(UsageError, match=message):
        load(folder)


def test_a_card_cannot_ask_for_more_memory_than_its_weights_fill(tmp_path: Path) -> None:
    space = ConvChain(layers=2, filters=(4,), filter_heights=(3,), filter_widths=(3,), skips=False)
    folder = export(model_of(space), path=tmp_path / "m")

    for filters, message in ((8_000, "do not fit the architecture"), (300_000, "too large to be built")):

        def enormous(card: dict[str, Any], filters: int = filters) -> None:
            card["space"]["filters"] = card["genotype"]["space"]["options"]["filters"] = [filters]
            card["genotype"]["answers"].update({"0.filters": filters, "1.filters": filters})

        edited(folder, enormous)  # 2 GB of weights, and 3 TB
        before = psutil.Process().memory_info().rss
        with pytest.raises(UsageError, match=message):
            load(folder)
        assert psutil.Process().memory_info().rss < before + 2**28


def test_a_space_of_the_users_own_is_told_which_formats_fit(tmp_path: Path) -> None:
    model = replace(model_of(SPACES["plain"]), space={"type": "my_file:MySpace"})
    with pytest.raises(UsageError, match="use format source or onnx"):
        export(model, path=tmp_path / "m")
    assert not (tmp_path / "m").exists()
    export(model, format="source", path=tmp_path / "m")


# --- onnx -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["strides", "types"])
def test_onnx_runtime_gives_the_modules_answers(tmp_path: Path, name: str) -> None:
    model = model_of(SPACES[name], 1, examples=torch.rand(7, 3, 12, 12))
    folder = export(model, format="onnx", path=tmp_path / "m")
    alone = tmp_path / "alone.onnx"
    (folder / "model.onnx").rename(alone)
    session, card = open_onnx(alone)
    assert card["class_names"] == list(model.class_names)
    for count in (1, 2, 13):
        images = torch.rand(count, 3, 12, 12)
        expected = model.deployed()(images).numpy()
        np.testing.assert_allclose(run_onnx(session, images.numpy()), expected, rtol=1e-4, atol=1e-4)
    checked = json.loads((folder / "model.json").read_text())["checked"]
    assert checked["batches"] == [1, 7, 1, 7]
    assert checked["largest_relative_difference"] < 1e-4


class Cancels(nn.Module):
    """The difference of two sums that are nearly the same, so that rounding is a ten-thousandth of what is left."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 64, 3, padding=1)
        self.one, self.other = (nn.Conv2d(64, 3, 3, padding=1) for _ in range(2))
        with torch.no_grad():
            self.other.weight.copy_(self.one.weight + 1e-5 * torch.randn_like(self.one.weight))
            self.other.bias.copy_(self.one.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        return (1e5 * (self.one(features) - self.other(features))).mean((2, 3))


def test_a_network_that_rounds_more_than_others_is_exported(tmp_path: Path) -> None:
    model = replace(model_of(SPACES["plain"]), network=Cancels().eval())
    folder = export(model, format="onnx", path=tmp_path / "m")
    assert json.loads((folder / "model.json").read_text())["checked"]["largest_relative_difference"] > 1e-6


def test_a_file_that_gives_other_answers_is_not_declared_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = onnx_format.run_onnx
    monkeypatch.setattr(onnx_format, "run_onnx", lambda session, images: right(session, images) + 0.01)
    with pytest.raises(UsageError, match="the exported file is not good"):
        export(model_of(SPACES["plain"]), format="onnx", path=tmp_path / "m")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_without_the_extra_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'archsmith\[onnx\]'"):
        export(model_of(SPACES["plain"]), format="onnx", path=tmp_path / "m")


# --- places -----------------------------------------------------------------------------------------------------------


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    folder = export(model_of(SPACES["plain"], 0), path=tmp_path / "m")
    before = load_file(folder / "model.safetensors")
    wrong = replace(model_of(SPACES["plain"], 1), network=model_of(SPACES["plain"], 0).network)
    with pytest.raises(UsageError, match=r"do not fit|does not build the same"):
        export(wrong, path=folder)
    assert all(torch.equal(t, before[k]) for k, t in load_file(folder / "model.safetensors").items())
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_wrong_requests_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="'onnx'"):
        export(model_of(SPACES["plain"]), format="onx", path=tmp_path / "m")
    with pytest.raises(UsageError, match="there is no folder"):
        export(tmp_path / "nowhere")


# --- from a run -------------------------------------------------------------------------------------------------------


def test_a_run_is_exported_with_what_is_known_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluator = ImageClassification("digits", epochs=1, max_train=300, upsample=1.25, precision="fp32")
    space = ConvChain(layers=2, filters=(4, 8), filter_heights=(3,), filter_widths=(3,))
    run = smith.search(space, evaluator, trials=2, store="runs.db", name="digits")
    with pytest.raises(UsageError, match="archsmith finish digits"):
        export(run)

    plan = smith.FinishPlan(
        top=1, scale={}, grid={"batch_norm_epsilon": (0.5,)}, epochs=2, seeds=2, final={"max_train": 400}
    )
    finished = smith.finish(run, plan=plan)
    assert export(run) == Path("digits-pytorch")
    model = load("digits-pytorch")
    found = finished.found
    assert model.genotype == found.genotype
    assert model.parameters == found.parameters
    assert model.batch_norm_epsilon == found.settings.get("batch_norm_epsilon", 1e-5)
    test = model.card["metrics"]["test"]
    assert [s["accuracy"] for s in test["by_seed"]] == [f.score for f in found.finals]
    assert (test["mean"], test["n"], test["looks"], test["count"]) == (found.mean, 2, 1, 359)
    assert model.card["metrics"]["claim"] == finished.claim
    assert model.card["training"]["evaluator"]["epochs"] == 2
    assert model.card["training"]["evaluator"]["max_train"] == 400
    assert model.card["cost"]["search"]["trials"] == 2
    # The exported weights are the ones whose accuracy is on the card.
    splits = evaluator.splits()
    images = torch.from_numpy(splits.test_images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        right = (model.deployed()(images).argmax(1).numpy() == splits.test_labels).mean()
    assert right == pytest.approx(test["accuracy"], abs=1.5 / 359)  # rounding may move an image on the edge
    readme = Path("digits-pytorch/README.md").read_text()
    assert f"{100 * test['accuracy']:.2f} % of 359 images" in readme
    assert str(tmp_path) not in readme + Path("digits-pytorch/model.json").read_text()


def test_a_card_counts_classes_that_have_no_names(tmp_path: Path) -> None:
    task = Task((3, 12, 12), 300)
    model = model_of(ConvChain(layers=1), task=task, class_names=[str(k) for k in range(300)])
    assert "Classes, by logit: 0 to 299." in (export(model, path=tmp_path / "m") / "README.md").read_text()


def test_weights_that_the_search_kept_are_exported_without_finishing(tmp_path: Path) -> None:
    evaluator = ImageClassification("digits", epochs=1, max_train=300, upsample=1.0, keep_weights=True)
    space = ConvChain(layers=2, filters=(4, 8), filter_heights=(3,), filter_widths=(3,))
    run = smith.search(space, evaluator, trials=1, store=str(tmp_path / "runs.db"), name="kept")
    folder = export(run, format="source", path=tmp_path / "m")
    assert "were not tested" in (folder / "README.md").read_text()
    assert run.best is not None
    assert run.best.result is not None
    card = json.loads((folder / "model.json").read_text())["card"]
    assert card["metrics"]["validation"] == run.best.result.metrics["final_accuracy"], "that of the weights"
    card["metrics"] |= {"validation": 0.75, "searched": 0.8125}
    assert "Validation accuracy of these weights: 75.00 %, on images that helped to choose the network." in told(card)
    assert "The search judged it by 81.25 %, the highest accuracy of its last epochs." in told(card)
    own = smith.search(lambda choose: choose("x", (1, 2)), lambda x: x, trials=1, store="memory://")
    with pytest.raises(UsageError, match="has no task"):
        export(own)


@pytest.mark.parametrize("format", ["pytorch", "onnx", "source"])
def test_a_network_of_pictures_that_are_held_larger_is_checked_in_its_own_size(tmp_path: Path, format: str) -> None:
    evaluator = smith.training.ImageClassification.desk("digits", epochs=1, max_train=100)
    evaluator = replace(evaluator, size=12, source_size=20, keep_weights=True)
    run = smith.search(
        smith.spaces.ConvChain(layers=1, filters=(6,)),
        evaluator,
        trials=1,
        store=f"sqlite:///{tmp_path}/runs.db",
        name="larger",
    )
    folder = smith.export(run, format=format, path=tmp_path / format)
    card = json.loads((folder / "model.json").read_text())
    assert card["task"]["input_shape"] == [1, 12, 12]
    if format == "onnx":
        assert card["checked"]["real_images"]


# --- 8 bits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> smith.Run:
    folder = tmp_path_factory.mktemp("trained")
    evaluator = smith.training.ImageClassification.desk("digits", epochs=10)
    space = ConvChain(layers=4, filters=(24,), filter_heights=(3,), filter_widths=(3,))
    return smith.search(
        space, replace(evaluator, keep_weights=True), trials=1, store=f"sqlite:///{folder}/runs.db", name="eight"
    )


def test_a_network_in_eight_bits_is_smaller_and_nearly_as_good(trained: smith.Run, tmp_path: Path) -> None:
    whole = smith.export(trained, format="onnx", path=tmp_path / "whole")
    small = smith.export(trained, format="onnx", bits=8, path=tmp_path / "small")
    card = json.loads((small / "model.json").read_text())["card"]
    facts = card["quantized"]
    assert facts["calibrated_on"] == 256
    assert facts["validation"]["count"] == len(trained.evaluator.splits().validation)  # type: ignore[attr-defined]
    assert facts["validation"]["before"] > 0.4  # of ten classes
    assert facts["validation"]["after"] > facts["validation"]["before"] - 0.05
    assert set(facts["milliseconds"]) == {"before", "after"}
    assert (
        f"In 8 bits, calibrated on 256 training images: validation accuracy {100 * facts['validation']['after']:.2f} %"
        in (small / "README.md").read_text()
    )
    session, _ = open_onnx(small / "model.onnx")
    splits = trained.evaluator.splits()  # type: ignore[attr-defined]
    images = splits.data.images[splits.validation].transpose(0, 3, 1, 2) / np.float32(255)
    found, expected = run_onnx(session, images), run_onnx(open_onnx(whole / "model.onnx")[0], images)
    assert not np.array_equal(found, expected)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.85
    kinds = {node.op_type for node in onnx.load(small / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_eight_bits_are_refused_where_they_cannot_be(trained: smith.Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be 32, or 8 of format onnx; got 8 of format source"):
        smith.export(trained, format="source", bits=8, path=tmp_path / "x")
    with pytest.raises(UsageError, match="got 4 of format onnx"):
        smith.export(trained, format="onnx", bits=4, path=tmp_path / "x")
    folder = smith.export(trained, path=tmp_path / "pytorch")
    with pytest.raises(UsageError, match="8 bits need pictures to be calibrated by: export the run where its data are"):
        smith.export(folder, format="onnx", bits=8, path=tmp_path / "x")
    assert not (tmp_path / "x").exists()
