"""Exports of language models and of cells: what is written gives the module's numbers, and nothing else is believed."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import archsmith as smith
from archsmith._export import (
    FORMATS,
    ImageModel,
    TextModel,
    cell_source,
    export,
    generate,
    load,
    predict,
    text_prediction,
    text_source,
)
from archsmith._export import text_onnx as onnx_format
from archsmith._export.source import run_source
from archsmith._export.vocabulary import Vocabulary
from archsmith.cli.main import main
from archsmith.core.child import TextTask
from archsmith.core.config import to_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.space import build, decode, sample
from archsmith.data import text
from archsmith.spaces import ConvChain, RecurrentCell
from archsmith.training import LanguageModel

WORDS = Vocabulary("word", ("the", "<eos>", "of", "company", "said", "a", "N", "year", "<unk>"))
CHARACTERS = Vocabulary("char", tuple(" etaoinshr\n,'é"))
MIKOLOV = Vocabulary("char", tuple("_etaoinshr\n"))


def model_of(vocabulary: Vocabulary = WORDS, *, tied: bool = False, seed: int = 0, **fields: Any) -> TextModel:
    """A language model of a random cell, with every number of its own."""
    space = RecurrentCell.enlarged(4)
    genotype = sample(space, Random(seed))
    torch.manual_seed(seed)
    task = TextTask(len(vocabulary), 2, hidden=12, embedding=None if tied else 7, tied=tied)
    network = build(space, genotype, task).model
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, -0.7, 0.7)
    defaults: dict[str, Any] = {
        "name": "a-run",
        "network": network,
        "vocabulary": vocabulary,
        "space": to_config(space),
        "genotype": genotype.to_json(),
        "architecture": decode(space, genotype),
        "card": {"versions": {"archsmith": smith.__version__}, "metrics": {}},
    }
    return TextModel(**{**defaults, **fields})


MODELS = {
    "words": lambda: model_of(WORDS),
    "tied words": lambda: model_of(WORDS, tied=True, seed=1),
    "characters": lambda: model_of(CHARACTERS, seed=2),
    "Mikolov's characters": lambda: model_of(MIKOLOV, tied=True, seed=3),
}
TEXT = "the company said\na year of the company strange N\n"


def text_for(vocabulary: Vocabulary) -> str:
    return TEXT if vocabulary.level == "word" else "he set a tin\nas is sane"


def by_hand(model: TextModel, text: str) -> float:
    """The mean loss in nats of a text, each symbol predicted from all before it."""
    tokens = torch.from_numpy(np.concatenate([[model.vocabulary.end], model.vocabulary.encode(text)]))
    with torch.inference_mode():
        scores, _ = model.network(tokens[:-1, None])
    return F.cross_entropy(scores[:, 0].double(), tokens[1:]).item()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = {format: export(MODELS["tied words"](), format=format, path=folder / format) for format in FORMATS}
    return paths | {"the file alone": paths["onnx"] / "model.onnx"}


# --- the vocabulary ---------------------------------------------------------------------------------------------------


@given(st.text(alphabet="the company of\n said year", max_size=80))
def test_words_come_back_as_they_were_but_for_white_space(text: str) -> None:
    known = all(w in WORDS.symbols for w in text.split())
    expected = "\n".join(
        " ".join(w if w in WORDS.symbols else "<unk>" for w in line.split()) for line in text.split("\n")
    )
    assert WORDS.decode(WORDS.encode(text).tolist()) == expected
    assert (WORDS.unknown in WORDS.encode(text)) != known


@given(st.text(alphabet=CHARACTERS.symbols, max_size=80))
def test_characters_come_back_as_they_were(text: str) -> None:
    assert CHARACTERS.decode(CHARACTERS.encode(text).tolist()) == text
    assert len(CHARACTERS.encode(text)) == len(text)


def test_spaces_are_underscores_where_the_vocabulary_has_them_so() -> None:
    assert MIKOLOV.underscores
    assert not CHARACTERS.underscores
    assert MIKOLOV.encode("a tin").tolist() == MIKOLOV.encode("a_tin").tolist()
    assert MIKOLOV.decode(MIKOLOV.encode("a tin").tolist()) == "a tin"


def test_what_the_vocabulary_has_not_is_unknown_or_refused_by_name() -> None:
    assert WORDS.encode("the strange year").tolist() == [0, 8, 7]
    with pytest.raises(UsageError, match="the character 'z' is none of the model's 14, and it has no <unk>"):
        CHARACTERS.encode("az")
    for level, symbols in (("syllable", ("a", "b")), ("word", ("a",)), ("word", ("a", "a")), ("word", ("a b", "c"))):
        with pytest.raises(ValueError, match=r"vocabulary must be|a symbol must be"):
            Vocabulary(level, symbols)
    with pytest.raises(ValueError, match="must be one char"):
        Vocabulary("char", ("ab", "c"))


@pytest.mark.data
@pytest.mark.parametrize("level", ["word", "char"])
def test_a_file_of_the_penn_treebank_is_read_as_training_read_it(tmp_path: Path, data_folder: Path, level: str) -> None:
    packed = data_folder / "ptb_word.tar.xz"
    with tarfile.open(packed) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("valid.txt"))
        opened = archive.extractfile(member)
        assert opened is not None
        (tmp_path / "valid.txt").write_bytes(opened.read())
    corpus = text.load("ptb", level)
    vocabulary = Vocabulary(corpus.level, corpus.vocabulary)
    assert vocabulary.end == corpus.end
    np.testing.assert_array_equal(text_prediction.read_tokens(tmp_path / "valid.txt", vocabulary), corpus.validation)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_pytorch_is_loaded_as_it_was(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    before = torch.random.get_rng_state()
    again = smith.load(export(model, path=tmp_path / "m"))
    assert torch.equal(torch.random.get_rng_state(), before), "loading draws nothing"
    assert isinstance(again, TextModel)
    for tokens in model.inputs():
        assert torch.equal(again.answer(tokens), model.answer(tokens))
    assert again.vocabulary == model.vocabulary
    assert again.task == model.task
    assert again.genotype == model.genotype
    files = ["README.md", "model.json", "model.safetensors", "vocabulary.json"]
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == files
    export(tmp_path / "m", format="source", path=tmp_path / "source")


WITHOUT_ARCHSMITH = """
import importlib.util, sys
from pathlib import Path
sys.modules["archsmith"] = None
import torch
from safetensors.torch import load_file
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("model", Path(folder, "model.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known, model = load_file(Path(folder, "known.safetensors")), module.load()
    with torch.inference_mode():
        first, state = model(known["tokens"][:4])
        second, state = model(known["tokens"][4:], state)
    assert torch.allclose(torch.cat([first, second]), known["scores"], 1e-4, 1e-4), folder
    assert torch.allclose(state[1], known["c"], 1e-4, 1e-4), folder
print(len(sys.argv) - 1, "equal")
"""


def test_source_runs_where_archsmith_cannot_be_imported_and_gives_equal_scores(tmp_path: Path) -> None:
    folders = []
    for name, made in MODELS.items():
        model = made()
        folder = export(model, format="source", path=tmp_path / name)
        tokens = model.inputs()[1]
        with torch.inference_mode():
            scores, (_, c) = model.network(tokens)
        save_file({"tokens": tokens, "scores": scores, "c": c}, folder / "known.safetensors")
        folders.append(str(folder))
    command = [sys.executable, "-I", "-c", WITHOUT_ARCHSMITH, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"{len(MODELS)} equal", done.stderr
    files = [str(Path(folder, "model.py")) for folder in folders]
    for check in (["check", "--select=E,F,W,I,UP,B,C4,SIM"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", check[0], "--isolated", "--line-length=120", *check[1:], *files]
        checked = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", MODELS)
def test_the_file_scores_texts_and_goes_on_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = MODELS[name]()
    text = text_for(model.vocabulary)
    module = run_source(export(model, format="source", path=tmp_path / "m"))
    Path("good.txt").write_text(text)
    Path("latin.txt").write_bytes("é".encode("latin1"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["model.py", *arguments])
        status = 0
        try:
            module.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    status, out, err = run("--score", "latin.txt", "good.txt", "gone.txt")
    assert status == 1
    loss = by_hand(model, text)
    shown = f"perplexity of {math.exp(loss):.2f}" if "words" in name else f"{loss / math.log(2):.3f} bits per character"
    assert shown in out
    assert f"over {len(model.vocabulary.encode(text))} " in out
    assert out.count("\n") == 1
    assert "latin.txt: cannot be read" in err
    assert "gone.txt: cannot be read" in err
    once, again, other = (run("the", "--length", "30", "--seed", seed) for seed in ("5", "5", "6"))
    assert once == again != other
    assert once[1].removesuffix("\n") == generate(model, "the", length=30, seed=5)
    assert run()[0] == run("the", "--length", "0")[0] == run("the", "--temperature", "nan")[0] == 2


def test_the_file_is_a_program(tmp_path: Path) -> None:
    folder = export(model_of(), format="source", path=tmp_path / "m")
    command = [sys.executable, "-I", str(folder / "model.py"), "the company", "--length", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the company")


def test_onnx_runtime_gives_the_modules_scores_step_by_step(tmp_path: Path) -> None:
    model = MODELS["characters"]()
    folder = export(model, format="onnx", path=tmp_path / "m")
    alone = tmp_path / "alone.onnx"
    (folder / "model.onnx").rename(alone)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(alone))
    tokens = torch.randint(len(model.vocabulary), (9, 4))
    with torch.inference_mode():
        expected, (_, c_end) = model.network(tokens)
    h = c = np.zeros((2, 4, 12), np.float32)
    for t, step in enumerate(tokens.numpy()):
        scores, h, c = session.run(["scores", "new_h", "new_c"], {"tokens": step[None], "h": h, "c": c})
        np.testing.assert_allclose(scores[0], expected[t], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(c, c_end, rtol=1e-4, atol=1e-4)
    checked = json.loads((folder / "model.json").read_text())["checked"]
    assert checked["largest_relative_difference"] < 1e-4
    # The file is complete by itself: card and vocabulary travel inside.
    (tmp_path / "text.txt").write_text(text_for(model.vocabulary))
    (score,) = predict(alone, [tmp_path / "text.txt"])
    assert score.error is None
    assert generate(alone, "the", length=20, temperature=0) == generate(model, "the", length=20, temperature=0)


def test_a_file_that_gives_other_scores_is_not_declared_good(
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = onnx_format.OnnxText.forward

    def wrong(self: Any, tokens: Any, state: Any = None) -> Any:
        scores, state = right(self, tokens, state)
        return scores + 0.01, state

    onnx_format.check(MODELS["tied words"](), exported["the file alone"])
    monkeypatch.setattr(onnx_format.OnnxText, "forward", wrong)
    with pytest.raises(UsageError, match="the exported file is not good"):
        onnx_format.check(MODELS["tied words"](), exported["the file alone"])


def test_code_of_another_cell_is_not_declared_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = cell_source.cell_source
    other = lambda graph, name="Found": right(dataclasses.replace(graph, h=graph.h - 1), name)  # noqa: E731
    monkeypatch.setattr(cell_source, "cell_source", other)
    monkeypatch.setattr(text_source, "cell_source", other)
    with pytest.raises(UsageError, match="does not repeat the model"):
        export(model_of(), format="source", path=tmp_path / "m")
    with pytest.raises(UsageError, match="does not repeat the cell's numbers"):
        export("nas_cell", format="source", path=tmp_path / "c.py")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_a_cell_that_makes_much_of_a_rounding_is_exported_all_the_same(tmp_path: Path, size: float) -> None:
    """Products of products: what differs in the last bit differs in the first after some steps, or overflows."""
    space = RecurrentCell(4)
    genotype = space.from_tokens(" | ".join([*["elem_mult,identity"] * 7, "add,identity", "6, 4"]))
    model = model_of(
        WORDS,
        space=to_config(space),
        genotype=genotype.to_json(),
        architecture=decode(space, genotype),
        network=build(space, genotype, TextTask(len(WORDS), 2, hidden=12)).model,
    )
    for parameter in model.network.parameters():
        parameter.uniform_(-size, size)
    for format in ("pytorch", "source"):
        export(model, format=format, path=tmp_path / format)


# --- what is refused --------------------------------------------------------------------------------------------------


def edited(folder: Path, change: Any) -> None:
    card = json.loads((folder / "model.json").read_text())
    change(card)
    (folder / "model.json").write_text(json.dumps(card))


def sized(**sizes: Any) -> Any:
    return lambda f: edited(f, lambda c: c["task"].update(**sizes))


NESTED: list[Any] = []
for _ in range(900):
    NESTED = [NESTED]

DAMAGES: dict[str, tuple[Any, str]] = {
    "weights changed": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "its SHA-256 differs"),
    "vocabulary changed": (lambda f: (f / "vocabulary.json").write_text('["a", "b"]'), "its SHA-256 differs"),
    "vocabulary gone": (lambda f: (f / "vocabulary.json").unlink(), "cannot be read"),
    "vocabulary no text": (lambda f: (f / "vocabulary.json").write_bytes(b"\xff\xfe"), "cannot be read"),
    "card of nothing": (lambda f: edited(f, lambda c: c.update(takes="smells")), "takes 'smells'"),
    "card of a list": (lambda f: edited(f, lambda c: c.update(takes=["text"])), "takes"),
    "card of images": (lambda f: edited(f, lambda c: c.update(takes="images")), "is damaged"),
    "no task": (lambda f: edited(f, lambda c: c.pop("task")), "is damaged"),
    "no vocabulary": (lambda f: edited(f, lambda c: c.pop("vocabulary")), "is damaged"),
    "vocabulary as text": (lambda f: edited(f, lambda c: c.update(vocabulary="x")), "vocabulary must be an object"),
    "no digest": (lambda f: edited(f, lambda c: c["vocabulary"].update(sha256=None)), "sha256 must be text"),
    "another level": (lambda f: edited(f, lambda c: c["vocabulary"].update(level="page")), "level must be"),
    "more symbols": (sized(vocabulary=10), "the vocabulary has 9 symbols, and the task 10"),
    "more units": (sized(hidden=13), "do not fit the architecture"),
    "more layers": (sized(layers=3), "do not fit the architecture"),
    "endless layers": (sized(layers=10**9), "at most 100"),
    "enormous units": (sized(hidden=10**12), "at most"),
    "half a unit": (sized(hidden=1.5), "whole number"),
    "true units": (sized(hidden=True), "whole number"),
    "no units": (sized(hidden=0), "at least 1"),
    "tied to what does not fit": (sized(tied=True), "tied needs"),
    "tied as text": (sized(tied="yes"), "true or false"),
    "another answer": (
        lambda f: edited(f, lambda c: c["genotype"]["answers"].update({"c_in": 99})),
        "c_in",
    ),
    "a space of images": (
        lambda f: edited(f, lambda c: c.update(space=to_config(ConvChain(layers=1)))),
        "ConvChain",
    ),
    "no architecture": (lambda f: edited(f, lambda c: c.pop("architecture")), "has no architecture"),
    "no genotype": (lambda f: edited(f, lambda c: c.pop("genotype")), "has no genotype"),
    "no space": (lambda f: edited(f, lambda c: c.pop("space")), "has no space"),
    "a name without end": (lambda f: edited(f, lambda c: c.update(name=NESTED)), "name must be text, got"),
    "a kind without end": (lambda f: edited(f, lambda c: c.update(kind=NESTED)), "in format "),
    "a size without end": (lambda f: edited(f, lambda c: c["task"].update(hidden=NESTED)), "a whole number, got"),
    "a space without end": (lambda f: edited(f, lambda c: c["space"].update(activations=NESTED)), "nested too deep"),
    "a space of nobody's": (lambda f: edited(f, lambda c: c["space"].update(type="os:system")), "is none"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_was_changed_is_refused(tmp_path: Path, damage: str) -> None:
    folder = export(model_of(), path=tmp_path / "m")
    change, message = DAMAGES[damage]
    change(folder)
    with pytest.raises(UsageError, match=message):
        load(folder)


@pytest.mark.parametrize(
    "content",
    ["{}", "[1, 2, 3, 4, 5, 6, 7, 8, 9]", "[" * 100_000, '["a"]', '["a b","c","d","e","f","g","h","i","j"]', "nope"],
)
def test_a_vocabulary_with_a_digest_that_fits_is_looked_at_all_the_same(tmp_path: Path, content: str) -> None:
    import hashlib

    folder = export(model_of(), path=tmp_path / "m")
    (folder / "vocabulary.json").write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    edited(folder, lambda c: c["vocabulary"].update(sha256=digest))
    with pytest.raises(UsageError, match="is damaged"):
        load(folder)


def test_a_card_cannot_ask_for_more_memory_than_its_weights_fill(tmp_path: Path) -> None:
    folder = export(model_of(), path=tmp_path / "m")
    edited(folder, lambda c: c["task"].update(hidden=900_000))  # 26 TB
    before = psutil.Process().memory_info().rss
    with pytest.raises(UsageError, match=r"do not fit the architecture|too large"):
        load(folder)
    assert psutil.Process().memory_info().rss < before + 2**28


def test_a_model_that_does_not_fit_its_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="knows 9 symbols, and the vocabulary has 14"):
        dataclasses.replace(model_of(WORDS), vocabulary=CHARACTERS)
    with pytest.raises(UsageError, match=r"of archsmith\.nn\.language\.LanguageNetwork, got a Linear"):
        model_of(WORDS, network=torch.nn.Linear(1, 1))


# --- asking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [*FORMATS, "the file alone"])
def test_every_format_gives_the_modules_perplexity(exported: dict[str, Path], tmp_path: Path, format: str) -> None:
    model = MODELS["tied words"]()
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfthe company\r\nsaid")  # a mark, other line ends, and none at the end
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    (tmp_path / "empty").touch()
    files = [tmp_path / name for name in ("a.txt", "b.txt", "binary", "empty", "gone", ".")]
    scores = predict(exported[format], files, run_source=format == "source")
    assert [s.path for s in scores] == [str(f) for f in files]
    a, b, *bad = scores
    assert (a.tokens, a.unknown, b.tokens, b.unknown) == (12, 1, 5, 0)
    assert a.value == pytest.approx(math.exp(by_hand(model, TEXT)), rel=1e-4)
    assert b.value == pytest.approx(math.exp(by_hand(model, "the company\nsaid\n")), rel=1e-4)
    assert [s.value for s in bad] == [None] * 4
    for s, why in zip(bad, ("NUL", "empty", "No such file", "folder"), strict=True):
        assert why in (s.error or "")
        assert str(s) == f"{s.path}: {s.error}"
    plain = json.loads(json.dumps(a.to_json()))
    assert plain == {"path": str(files[0]), "tokens": 12, "unknown": 1, "perplexity": a.value, "error": None}
    assert str(a) == f"{files[0]}: perplexity {a.value:.2f} over 12 words, 1 of them unknown"


def test_characters_are_told_in_bits(tmp_path: Path) -> None:
    model = MODELS["characters"]()
    (tmp_path / "a.txt").write_text("he set a tin\n")
    (tmp_path / "z.txt").write_text("zoo\n")
    a, z = predict(export(model, path=tmp_path / "m"), [tmp_path / "a.txt", tmp_path / "z.txt"])
    assert a.to_json()["bits_per_character"] == pytest.approx(by_hand(model, "he set a tin\n") / math.log(2), rel=1e-5)
    assert "'z' is none of the model's" in str(z)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), length=st.integers(1, 30), temperature=st.floats(0, 3))
def test_what_is_written_is_of_the_length_asked_for_and_repeats(seed: int, length: int, temperature: float) -> None:
    model = MODELS["words"]()
    text = generate(model, "the company", length=length, temperature=temperature, seed=seed)
    assert text == generate(model, "the company", length=length, temperature=temperature, seed=seed)
    assert text.startswith("the company")
    assert len(model.vocabulary.encode(text)) == 2 + length
    assert "<unk>" not in text


def test_a_temperature_of_nothing_takes_the_likeliest() -> None:
    model = MODELS["characters"]()
    text = generate(model, "", length=6, temperature=0)
    tokens = [model.vocabulary.end]
    for _ in range(6):
        with torch.inference_mode():
            tokens.append(int(model.network(torch.tensor(tokens)[:, None])[0][-1, 0].argmax()))
    assert model.vocabulary.encode(text).tolist() == tokens[1:]


def test_wrong_requests_are_told_so(exported: dict[str, Path], tmp_path: Path) -> None:
    for options, message in (
        ({"length": 0}, "length must be"),
        ({"temperature": -1}, "temperature must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"seed": -1}, "seed must be"),
    ):
        with pytest.raises(UsageError, match=message):
            generate(exported["pytorch"], "the", **options)
    with pytest.raises(UsageError, match="there is no model at"):
        generate(tmp_path / "gone", "the")
    with pytest.raises(UsageError, match="'z' is none of"):
        generate(MODELS["characters"](), "z")
    damaged = model_of()
    damaged.network.embedding.weight.fill_(math.nan)
    with pytest.raises(UsageError, match="scores are no numbers"):
        generate(damaged, "the")


def test_a_model_of_images_goes_on_with_no_text(tmp_path: Path) -> None:
    space = ConvChain(layers=1, filters=(4,))
    genotype, task = sample(space, Random(0)), smith.Task((1, 8, 8), 2)
    image = ImageModel(
        name="i",
        network=build(space, genotype, task).model,
        task=task,
        class_names=("a", "b"),
        preprocessing={},
        space=to_config(space),
        genotype=genotype.to_json(),
        architecture=decode(space, genotype),
    )
    with pytest.raises(UsageError, match="is a model of images"):
        generate(export(image, path=tmp_path / "m"), "the")


# --- cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_is_one_file_that_anybody_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export("nas_cell", format="source") == Path("nas_cell.py")
    genotype = sample(RecurrentCell(2), Random(0))
    found = export(genotype, format="source")
    assert found == Path(f"cell_{genotype.key}.py")
    Path("genotype.json").write_text(json.dumps(genotype.to_json()))
    for k, thing in enumerate(("genotype.json", genotype.to_json(), json.dumps(genotype.to_json()), genotype)):
        assert export(thing, format="source", path=f"{k}.py").read_text() == found.read_text()
    code = (
        "import sys; sys.modules['archsmith'] = None; sys.path.insert(0, '.')\n"
        "import torch, nas_cell\n"
        "rnn = nas_cell.NASRNN(3, 4, 2, batch_first=True, bidirectional=True)\n"
        "out, (h, c) = rnn(torch.zeros(5, 7, 3))\n"
        "print(tuple(out.shape), tuple(h.shape), tuple(c.shape))\n"
        "print(sum(p.numel() for p in nas_cell.NASCell(9, 4).parameters()))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "(5, 7, 8) (4, 5, 4) (4, 5, 4)\n416\n", done.stderr
    scope: dict[str, Any] = {}
    exec(Path("nas_cell.py").read_text(), scope)
    cell, ours = scope["NASCell"](5, 4, True), smith.discovered.NASCell(5, 4, True)
    cell.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5)
    torch.testing.assert_close(cell(x), ours(x), rtol=1e-5, atol=1e-6)


def test_the_file_of_a_cell_says_which_it_is(tmp_path: Path) -> None:
    space = RecurrentCell.enlarged(2)
    genotype = sample(space, Random(3))
    text = export(genotype, format="source", path=tmp_path / "c.py").read_text()
    told = text.split("figure 5):\n", 1)[1].split("\n\n", 1)[0]
    assert space.from_tokens(told) == genotype


def test_what_is_no_cell_is_told_so_and_nothing_else_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"here are no weights.*--format source"):
        export("nas_cell")
    with pytest.raises(UsageError, match="there is no folder 'nope'"):
        export("nope", format="source")
    with pytest.raises(UnknownName, match="'source'"):
        export("nas_cell", format="sauce")
    (tmp_path / "thesis.py").write_text("years = 'of work'")
    with pytest.raises(UsageError, match="is no earlier export"):
        export("nas_cell", format="source", path="thesis.py")
    assert (tmp_path / "thesis.py").read_text() == "years = 'of work'"
    with pytest.raises(UsageError, match="cannot write"):
        export("nas_cell", format="source", path="thesis.py/x.py")
    export("nas_cell", format="source", path="again.py")
    export(sample(RecurrentCell(2), Random(0)), format="source", path="again.py")
    assert "FoundCell" in (tmp_path / "again.py").read_text()
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.json").write_text('{"kind": "recurrent_cell", "nodes": []}')
    with pytest.raises(UsageError):
        export("bad.json", format="source")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.py", "bad.json", "folder", "thesis.py"]


def test_the_command_line_knows_runs_cells_and_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exported: dict[str, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "nas_cell", "--format", "source", "-o", "mine.py"]) == 0
    assert capsys.readouterr().out == "mine.py\n"
    assert main(["export", "nas_cell"]) == 2
    assert "--format source" in capsys.readouterr().err
    assert main(["export", "nas_sell", "--format", "source"]) == 2
    assert "nor is it a network of archsmith.discovered or a file" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text(TEXT)
    model = str(exported["pytorch"])
    assert main(["predict", model, "a.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tokens"] == 12
    assert main(["predict", model, "a.txt", "gone.txt"]) == 1
    capsys.readouterr()
    assert main(["predict", model, "--continue", "the", "--length", "5", "--temperature", "0", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["text"].replace("\n", " <eos> ").split()) == 6
    assert main(["predict", model]) == main(["predict", model, "a.txt", "--continue", "the"]) == 2


# --- from a run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text with a grammar that can be learned."""
    draws, path = Random(0), tmp_path_factory.mktemp("text") / "prose.txt"
    nouns, verbs = ("company", "year", "market", "bank"), ("said", "fell", "rose")
    lines = [f"the {draws.choice(nouns)} {draws.choice(verbs)} a {draws.choice(nouns)}" for _ in range(600)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_run_is_exported_with_what_is_known_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prose: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluator = dataclasses.replace(
        LanguageModel.desk(str(prose), epochs=1), batch_size=5, unroll=10, parameters=2_000, keep_weights=True
    )
    run = smith.search(RecurrentCell(2), evaluator, trials=2, store="runs.db", name="prose")
    kept = load(export(run, path="kept"))
    assert run.best is not None
    assert run.best.result is not None
    assert kept.card["metrics"]["validation"] == run.best.result.metrics["perplexity"]
    assert kept.card["metrics"]["measure"]["name"] == "perplexity"
    corpus = evaluator.corpus()
    lines = [line for line in prose.read_text().splitlines() if line]
    Path("validation.txt").write_text(kept.vocabulary.decode(corpus.validation.tolist()))
    (score,) = predict("kept", ["validation.txt"])
    assert score.value == pytest.approx(run.best.result.metrics["perplexity"], rel=0.01)

    plan = smith.FinishPlan(top=1, scale={}, grid={"dropout": (0.3,)}, epochs=2, seeds=2)
    finished = smith.finish(run, plan=plan)
    model = load(export(run))
    assert isinstance(model, TextModel)
    assert model.parameters == finished.found.parameters <= 2_000
    test = model.card["metrics"]["test"]
    assert [s["perplexity"] for s in test["by_seed"]] == [f.score for f in finished.found.finals]
    assert (test["mean"], test["n"], test["count"]) == (finished.found.mean, 2, len(corpus.test))
    # The exported weights are the ones whose perplexity is on the card.
    assert evaluator.test(model.network)["perplexity"] == pytest.approx(test["perplexity"], rel=1e-6)
    readme = Path("prose-pytorch/README.md").read_text()
    assert f"Test perplexity of these weights: {test['perplexity']:.2f} over {len(corpus.test):,} words." in readme
    assert str(prose.parent) not in readme + Path("prose-pytorch/model.json").read_text()
    (again,) = predict(export(run, format="source"), [prose], run_source=True)
    (known,) = predict("prose-pytorch", [prose])
    assert again.value == pytest.approx(known.value, rel=1e-4)
    assert known.tokens == sum(len(line.split()) + 1 for line in lines)
    assert (again.tokens, again.unknown) == (known.tokens, known.unknown)
    assert all(
        torch.equal(t, model.network.state_dict()[k]) for k, t in load_file("prose-pytorch/model.safetensors").items()
    )
