"""Reading aligned text, training translators on it, and BLEU."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.child import Child, TranslationTask
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import ChildFailed, DataError, Diverged, LimitExceeded, UnknownName, UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.finish import BLEU, Finishable
from archsmith.core.genotype import Genotype
from archsmith.core.space import sample
from archsmith.core.special_tokens import END, UNKNOWN
from archsmith.core.trial import Result
from archsmith.data import parallel_text
from archsmith.data.parallel_text import JOINER, text_of, tokens, vocabulary
from archsmith.nn.beam_search import beam_search, greedy
from archsmith.nn.cell_graph import lstm
from archsmith.nn.translation import Translator, translator
from archsmith.testing.evaluator import EvaluatorContract
from archsmith.training import Translation, translation_training

SOURCE, TARGET = ["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"], ["ha", "he", "hi", "ho", "hu", "ka", "ke", "ki"]


class Context:
    """What an executor gives, here."""

    def __init__(self, seed: int = 1, limits: Limits = Limits(), stop_after: int = 99) -> None:  # noqa: B008
        self.seed, self.device, self.threads, self.limits = seed, "cpu", 1, limits
        self.rows: list[dict[str, float]] = []
        self.stop_after = stop_after
        self.resume, self.epochs_done, self.paused = None, 0, False

    def report(self, epoch: int, metrics: Any) -> bool:
        self.rows.append({"epoch": epoch, **metrics})
        return epoch < self.stop_after

    def check(self) -> None:
        pass

    def checkpoint(self, tensors: Any) -> str:
        return "kept"

    def artifact(self, trial: int) -> None:
        return None


def reversals(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """A made-up language: each word has its translation, and their order is turned round."""
    draws = random.Random(seed)
    rows = [[draws.randrange(8) for _ in range(draws.randint(2, 5))] for _ in range(count)]
    return (
        [" ".join(SOURCE[i] for i in row) for row in rows],
        [" ".join(TARGET[i] for i in reversed(row)) + "." for row in rows],
    )


def written(
    folder: Path, parts: dict[str, tuple[list[str], list[str]]], languages: tuple[str, str] = ("aa", "bb")
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, sides in parts.items():
        for language, lines in zip(languages, sides, strict=True):
            (folder / f"{part}.{language}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


def settings(data: Any, **changes: Any) -> Translation:
    desk = Translation.desk(data if isinstance(data, tuple) else str(data), epochs=1)
    made_up = {"source": "aa", "target": "bb", "hidden": 12, "parameters": None, "embedding": 8, "layers": 1, "beam": 2}
    return dataclasses.replace(desk, **{**made_up, **changes})


def child(config: Translation, seed: int = 0) -> Child:
    torch.manual_seed(seed)
    return Child(translator(lstm(), config.task(), bias=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "made-up", {"train": reversals(200)})


# --- words ------------------------------------------------------------------------------------------------------------


@given(st.text())
def test_splitting_is_undone_exactly(line: str) -> None:
    assert text_of(tokens(line)) == " ".join(line.replace(JOINER, "").split())


@given(st.lists(st.text(alphabet="ab,.-" + JOINER, min_size=1, max_size=3)))
def test_any_words_make_a_sentence(words: list[str]) -> None:
    found = text_of(words)
    assert JOINER not in found
    assert found == found.strip()


def test_words_and_marks() -> None:
    assert tokens("Ein Hut, der") == ["Ein", "Hut", "￭,", "der"]
    assert tokens("saftig-grünes („ja“)!") == ["saftig", "￭-￭", "grünes", "(", "￭„￭", "ja", "￭“", "￭)", "￭!"]
    assert tokens("") == []


def test_a_vocabulary_holds_the_most_frequent() -> None:
    lines = ("b b b a a c", "d a b")
    assert vocabulary(lines, 10, 1, "aa").words == ("b", "a", "c", "d")
    assert vocabulary(lines, 3, 1, "aa").words == ("b", "a", "c")
    words = vocabulary(lines, 10, 2, "aa")
    assert words.words == ("b", "a")
    assert len(words) == 6
    assert words.encode("a b z") == [UNKNOWN + 2, UNKNOWN + 1, UNKNOWN, END]
    with pytest.raises(
        DataError, match="no word of the aa training sentences occurs 9 times, so the vocabulary is empty"
    ):
        vocabulary(lines, 10, 9, "aa")


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_folder_with_its_own_splits(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        {"train": reversals(50), "dev": reversals(7, 1), "test": reversals(9, 2), "test_other": reversals(3, 3)},
    )
    text = settings(folder).corpus().text
    assert [len(p[0]) for p in (text.train, text.validation, text.test)] == [50, 7, 9]
    assert text.official
    assert text.test[1] == tuple(reversals(9, 2)[1])


def test_packed_files_read_the_same(tmp_path: Path) -> None:
    plain = written(
        tmp_path / "plain", {"train": reversals(50), "valid": reversals(7, 1), "test_2016": reversals(9, 2)}
    )
    packed = tmp_path / "packed"
    packed.mkdir()
    for file in plain.iterdir():
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert settings(plain).fingerprint() == settings(packed).fingerprint()
    assert "tested on test_2016" in settings(packed).describe_data()["remarks"]


def test_what_no_file_holds_is_held_out(tmp_path: Path) -> None:
    source, target = reversals(300)
    folder = written(tmp_path / "all", {"train": (source + source[:20], target + target[:20])})
    pairs = set(zip(source, target, strict=True))
    config = settings(folder)
    text = config.corpus().text
    parts = [set(zip(*part, strict=True)) for part in (text.train, text.validation, text.test)]
    assert set.union(*parts) == pairs
    assert sum(map(len, parts)) == len(pairs)  # none is in two
    assert len(parts[2]) == round(0.2 * len(pairs))
    assert not text.official
    other = dataclasses.replace(config, split_seed=1).corpus().text
    assert other.test == text.test
    assert other.validation != text.validation
    two = settings((str(folder / "train.aa"), str(folder / "train.bb")))
    assert two.fingerprint() == config.fingerprint()
    comma = settings(f"{folder / 'train.aa'},{folder / 'train.bb'}")
    assert comma == two


def test_test_pairs_that_are_trained_on_are_told(tmp_path: Path) -> None:
    source, target = reversals(50)
    folder = written(tmp_path, {"train": (source, target), "valid": reversals(5, 1), "test": (source[:4], target[:4])})
    with pytest.warns(UserWarning, match="4 of the 4 test pairs"):
        assert "also among those trained on" in str(settings(folder).describe_data()["remarks"])


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    source, target = reversals(40)
    source[3] += "\u2028x\x85y\x0bz"
    written(tmp_path, {"train": (source, target)})
    (tmp_path / "train.bb").write_bytes("\r\n".join(target).encode())  # and the last line has no end
    text = settings(tmp_path).corpus().text
    assert sorted(text.train[1] + text.validation[1] + text.test[1]) == sorted(set(target))


def test_pairs_with_an_empty_side_are_left_out_and_told(tmp_path: Path) -> None:
    source, target = reversals(60)
    source[5], target[9], source[11] = "", "  ", " "
    folder = written(tmp_path, {"train": (source, target), "valid": reversals(5, 1), "test": reversals(5, 2)})
    with pytest.warns(UserWarning, match="3 of 60 pairs of train.aa and train.bb have an empty side"):
        corpus = settings(folder).corpus()
    assert len(corpus.text.train[0]) == 57
    assert "3 of 60" in corpus.describe()["remarks"][0]


def bad_length(folder: Path) -> None:
    with (folder / "train.bb").open("a") as file:
        file.write("ha he.\n")


def bad_encoding(folder: Path) -> None:
    (folder / "train.aa").write_bytes(b"ab cd\n" * 7 + "grün\n".encode("latin1") + b"ab\n" * 192)


def bad_binary(folder: Path) -> None:
    (folder / "train.aa").write_bytes(b"ab\n" * 3 + bytes(range(256)))


def bad_empty(folder: Path) -> None:
    (folder / "train.bb").write_text("\n\n  \n")


def bad_missing(folder: Path) -> None:
    (folder / "train.bb").unlink()


def bad_packed(folder: Path) -> None:
    (folder / "train.aa").unlink()
    (folder / "train.aa.gz").write_bytes(b"\x1f\x8b\x08 no gzip")


def bad_few(folder: Path) -> None:
    written(folder, {"train": reversals(5)})


def bad_rare(folder: Path) -> None:
    written(folder, {"train": ([f"w{i}" for i in range(50)], [f"v{i}" for i in range(50)])})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (bad_length, r"train.aa has 200 lines and \S*train.bb 201; line by line"),
        (bad_encoding, "train.aa is not UTF-8: line 8 has the byte 0xfc"),
        (bad_binary, "train.aa is no text: it has a zero byte in line 4"),
        (bad_empty, "train.bb is empty"),
        (bad_missing, "has train.aa and not the same in the other language"),
        (bad_packed, "train.aa.gz cannot be read"),
        (bad_few, "different pairs to train on; a translator needs at least 10"),
        (bad_rare, "no word of the aa training sentences occurs 2 times"),
    ],
)
def test_text_that_cannot_be_used(folder: Path, harm: Any, message: str) -> None:
    harm(folder)
    with pytest.raises(DataError, match=message):
        settings(folder).corpus()


def test_places_that_cannot_be_used(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match=r"no translation data set is named 'multi30'; did you mean 'multi30k'\?"):
        settings("multi30").corpus()
    with pytest.raises(DataError, match="there is no folder 'no/such'"):
        settings("no/such").corpus()
    with pytest.raises(DataError, match="is one file, and translation needs two"):
        settings(folder / "train.aa").corpus()
    with pytest.raises(DataError, match="is given as the source and as the target"):
        settings((str(folder / "train.aa"), str(folder / "train.aa"))).corpus()
    with pytest.raises(DataError, match=r"has no train.en and train.de .* it holds train.aa, train.bb"):
        settings(folder, source="en", target="de").corpus()
    with pytest.raises(DataError, match="source and target are both 'aa'"):
        settings(folder, target="aa").corpus()
    with pytest.raises(UsageError, match="one folder or two aligned files, got 3 paths"):
        settings(("a", "b", "c"))
    monkeypatch.delenv("ARCHSMITH_DATA", raising=False)
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path))
    translation_training._corpus.cache_clear()
    with pytest.raises(DataError, match=r"'multi30k' is not on this machine: get .*multi30k/dataset"):
        Translation().corpus()


def test_files_that_change_are_read_again(folder: Path) -> None:
    before = settings(folder).fingerprint()
    written(folder, {"train": reversals(250, 5)})
    assert settings(folder).fingerprint() != before


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be a whole number of at least 1"),
        ("dropout", 1.0, "dropout must be a number at least 0 and below 1"),
        ("clip", 0, "clip must be a number above 0"),
        ("initialisation", -0.1, "initialisation must be a number above 0"),
        ("hidden", None, "give Translation either hidden or parameters, got hidden=None and parameters=None"),
        ("schedule", "linear", "no learning-rate schedule is named 'linear'"),
        ("beam", 2.5, "beam must be a whole number"),
        ("validation", 0.0, "validation must be a number above 0 and below 1"),
        ("data", "", "data must be 'multi30k', a folder, or the paths"),
        ("data", 7, "data must be 'multi30k', a folder, or the paths"),
    ],
)
def test_settings_that_cannot_be(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(Translation(), **{field: value})


def test_it_is_an_evaluator_that_can_be_finished_and_remembered(folder: Path) -> None:
    config = settings((str(folder / "train.aa"), str(folder / "train.bb")))
    assert isinstance(config, Finishable)
    assert config.measure is BLEU
    resolve = {"training.Translation": Translation}.__getitem__
    assert from_config(json.loads(json.dumps(to_config(config))), resolve) == config


def test_gnmts_schedule() -> None:
    paper = Translation()
    factor = translation_training._factor
    assert [factor(paper, step, 800_000, step >= 60_000) for step in (0, 59_999, 60_000, 399_999)] == [1.0] * 4
    rates = [0.5 * factor(paper, step, 800_000, True) for step in (400_000, 499_999, 500_000, 600_000, 799_999)]
    assert rates == [0.25, 0.25, 0.125, 0.1, 0.1]
    desk = Translation.desk()
    assert factor(desk, 0, 100, False) == 1.0
    assert factor(desk, 50, 100, False) == pytest.approx(0.5)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*among those trained on")  # so few words make no other sentences
@pytest.mark.parametrize("cell", ["nas_cell", "lstm"])
def test_it_learns_to_turn_sentences_round(tmp_path: Path, cell: str) -> None:
    folder = written(tmp_path, {"train": reversals(1200), "valid": reversals(60, 1), "test": reversals(60, 2)})
    config = settings(folder, hidden=32, embedding=16, batch_size=32, learning_rate=1e-2, epochs=9, dropout=0.0)
    graph = smith.spaces.RecurrentCell().graph(smith.discovered.nas_cell().genotype) if cell == "nas_cell" else lstm()
    torch.manual_seed(0)
    model = translator(graph, config.task(), bias=cell == "lstm")
    context = Context()
    result = config.train(Child(model), context)
    assert result.metrics["bleu"] > 90
    assert result.metrics["perplexity"] < 1.3
    tested = config.test(model)
    assert tested["bleu"] > 90
    assert tested["count"] == 60
    assert config.translate(model, ["ab cd", "", "op   gh ef"]) == ["he ha.", "", "hi ho ki."]
    assert [row["epoch"] for row in context.rows] == list(range(1, 10))
    # A wide beam is not ended by the short hypotheses that finish first.
    source, lengths = translation_training.padded([config.corpus().test[0][k] for k in range(60)])
    limits = [20] * 60
    narrow, wide = (
        greedy(model, source, lengths, limits=limits),
        beam_search(model, source, lengths, limits=limits, width=6, alpha=0.0),
    )
    assert sum(h.score for h in wide) >= sum(h.score for h in narrow)
    assert sum(len(h.symbols) for h in wide) == pytest.approx(sum(len(h.symbols) for h in narrow), abs=6)


def test_a_word_outside_the_vocabulary_is_taken_from_the_source(folder: Path) -> None:
    config = settings(folder, layers=1)
    model = child(config).model
    with torch.no_grad():  # it always says UNKNOWN, then END as the sentence grows: by hand, the bias decides
        model.softmax.weight.zero_()
        model.softmax.bias.zero_()
        model.softmax.bias[UNKNOWN] = 9.0
    said = config.translate(model, ["ab zz"])[0].split()
    assert said
    assert set(said) <= {"ab", "zz"}


def test_the_same_seed_is_the_same_to_the_bit_and_leaves_no_trace(folder: Path) -> None:
    config, found = settings(folder, epochs=2, dropout=0.3), []
    for seed in (1, 1, 2):
        state = torch.get_rng_state()
        a_child = child(config)
        torch.set_rng_state(state)
        result = config.train(a_child, Context(seed))
        assert torch.equal(torch.get_rng_state(), state)
        found.append((result.curve[-1]["loss"], a_child.model.softmax.weight.detach().clone()))
    assert found[0][0] == found[1][0] != found[2][0]
    assert torch.equal(found[0][1], found[1][1])


def test_every_pair_is_read_once_an_epoch(folder: Path) -> None:
    pairs = settings(folder).corpus().train
    draws = torch.Generator().manual_seed(0)
    batches = list(translation_training._batches(pairs, 16, draws))
    assert sorted(int(k) for rows in batches for k in rows) == list(range(len(pairs[0])))
    assert max(map(len, batches)) <= 16
    again = list(translation_training._batches(pairs, 16, draws))
    assert [list(rows) for rows in again] != [list(rows) for rows in batches]


def test_the_loss_is_that_of_every_word_whatever_the_batch(folder: Path) -> None:
    config = settings(folder)
    model, pairs = child(config).model.double(), config.corpus().validation
    found = [translation_training._loss(model, pairs, size, None) for size in (1, 5, 500)]
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(found[2])
    assert found[0] == pytest.approx(torch.tensor(float(len(config.corpus().words[1]))).log().item(), rel=0.3)


def test_bleu_is_sacrebleus() -> None:
    import sacrebleu

    true = ["the cat sat on the mat.", "a dog, barking", "green ideas sleep"]
    found = ["the cat sat on a mat.", "a dog barking", "green ideas sleep well"]
    assert translation_training.bleu_of(found, true) == sacrebleu.corpus_bleu(found, [true]).score
    assert Translation().bleu_signature().startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert smith.rewards.bleu(Result({"bleu": 25.0})) == 0.25


def test_without_sacrebleu_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    config = settings(folder)
    with pytest.raises(UsageError, match=r"pip install 'archsmith\[translation\]'"):
        config.train(child(config), Context())


def test_the_best_epoch_is_kept(folder: Path) -> None:
    config = settings(folder, epochs=6, learning_rate=0.3, schedule="constant")  # so high that it comes and goes
    a_child = child(config)
    result = config.train(a_child, Context())
    losses = [row["loss"] for row in result.curve]
    assert result.metrics["loss"] == min(losses)
    assert result.metrics["best_epoch"] == losses.index(min(losses)) + 1
    assert translation_training._loss(a_child.model, config.corpus().validation, 64, None) == pytest.approx(min(losses))
    last = dataclasses.replace(config, keep_best=False).train(child(config), Context())
    assert last.metrics["loss"] == losses[-1]


def test_steps_end_it_and_sgd_takes_over(folder: Path) -> None:
    config = settings(
        folder, epochs=9, steps=7, batch_size=32, adam_steps=3, halve_from=5, halve_every=1, sgd_learning_rate=0.2
    )
    each = -(-len(config.corpus().train[0]) // 32)
    result = config.train(child(config), Context())
    assert result.metrics["steps"] == 7
    assert len(result.curve) == -(-7 // each)
    assert result.curve[-1]["learning_rate"] == pytest.approx(0.2 * 0.25)


def test_all_data_learns_from_the_validation_pairs_too(folder: Path) -> None:
    config = settings(folder, epochs=2)
    result = config.train(child(config), Context(), all_data=True)
    assert "bleu" not in result.metrics
    assert all("loss" not in row for row in result.curve)


def test_limits_stops_and_failures(folder: Path) -> None:
    config = settings(folder, epochs=5)
    assert len(config.train(child(config), Context(stop_after=2)).curve) == 2
    with pytest.raises(LimitExceeded, match="parameters; the limit is 10"):
        config.train(child(config), Context(limits=Limits(parameters=10)))
    with pytest.raises(ChildFailed, match=r"trains a Translator, .* got Linear"):
        config.train(Child(torch.nn.Linear(2, 2)), Context())
    broken = child(config)
    broken_config = dataclasses.replace(config, initialisation=None)
    with torch.no_grad():
        broken.model.softmax.bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="the training loss in epoch 1 became nan"):
        broken_config.train(broken, Context())


def test_too_long_pairs_are_left_out_of_training(folder: Path) -> None:
    config = settings(folder, max_length=3)
    corpus = config.corpus()
    assert 0 < len(corpus.train[0]) < len(corpus.text.train[0])
    assert int(corpus.train[1].lengths.max()) <= 4
    assert corpus.describe()["train"] == len(corpus.train[0])
    few = settings(folder, max_train=50)
    assert len(few.corpus().train[0]) == 50
    assert few.corpus().test[0].symbols.size
    with pytest.raises(DataError, match=r"every training pair .* is longer than max_length=1"):
        settings(folder, max_length=1).corpus()


def test_the_space_of_cells_is_searched_on_translation(folder: Path) -> None:
    space, config = (
        smith.spaces.RecurrentCell(base=2),
        settings(folder, hidden=None, parameters=3_000, keep_weights=True),
    )
    genotype = sample(space, random.Random(0))
    assert isinstance(genotype, Genotype)
    result = config.evaluate(space, genotype, Context())
    assert result.metrics["parameters"] <= 3_000
    assert result.artifact == "kept"
    assert 0 <= config.default_reward(result) <= 1
    baseline = config.baseline(3_000, config.task())
    assert isinstance(baseline, Translator)
    assert 2_700 < sum(p.numel() for p in baseline.parameters()) <= 3_000
    assert isinstance(config.task(), TranslationTask)


class TestTranslation(EvaluatorContract):
    """What every evaluator promises."""

    resumes = True

    @pytest.fixture(autouse=True)
    def _text(self, folder: Path) -> None:
        self._folder = folder

    def evaluator(self) -> Translation:
        return settings(self._folder, epochs=2, dropout=0.2)

    def space(self) -> smith.spaces.RecurrentCell:
        return smith.spaces.RecurrentCell(base=2)

    def diverging(self) -> tuple[Translation, smith.spaces.RecurrentCell]:
        return settings(self._folder, learning_rate=1e30, initialisation=None), self.space()


@pytest.mark.data
def test_multi30k(data_folder: Path) -> None:
    corpus = Translation.desk().corpus()
    assert [len(p[0]) for p in (corpus.text.train, corpus.text.validation, corpus.text.test)] == [29_000, 1_014, 1_000]
    assert corpus.text.official
    assert corpus.describe()["remarks"] == ["tested on test_2016_flickr"]
    for language in (0, 1):
        for line in corpus.text.train[language][:2000]:
            assert text_of(tokens(line)) == " ".join(line.split())
    assert parallel_text.tokens(corpus.text.test[1][0])[:3] == ["Ein", "Mann", "mit"]
    unknown = (corpus.test[1].symbols == UNKNOWN).mean()
    assert 0.0 < unknown < 0.1
