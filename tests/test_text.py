"""Texts as numbers: the published counts of the Penn Treebank, every way a text may come, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.errors import DataError, UnknownName
from archsmith.data import corpus as corpora
from archsmith.data import text_files
from archsmith.data.corpus import Corpus, build
from archsmith.data.text import load
from archsmith.data.text_embedded import python_docs

THREE = {"train.txt": "a b a\nc a\nb c\n", "valid.txt": "a c\n", "test.txt": "b d\n"}


def folder_of(where: Path, files: dict[str, str] = THREE) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (where / name).write_text(content, encoding="utf-8", newline="")
    return where


def words(corpus: Corpus, part: str) -> str:
    return " ".join(corpus.vocabulary[i] for i in getattr(corpus, part))


def characters(corpus: Corpus, part: str) -> str:
    return "".join(corpus.vocabulary[i] for i in getattr(corpus, part))


# --- the Penn Treebank ------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_the_penn_treebank_has_the_published_counts(data_folder: Path) -> None:
    corpus = load("ptb")
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == [929_589, 73_760, 82_430]
    assert len(corpus.vocabulary) == 10_000
    assert [len(np.unique(corpus.validation)), len(np.unique(corpus.test))] == [6_022, 6_049]
    assert words(corpus, "train").startswith("aer banknote berlitz calloway centrust cluett")
    assert corpus.vocabulary[corpus.end] == "<eos>"
    assert np.count_nonzero(corpus.train == corpus.end) == 42_068
    assert corpus.train.dtype == np.uint16


@pytest.mark.data
def test_its_characters_are_those_of_mikolov(data_folder: Path) -> None:
    corpus = load("ptb", "char")
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == [5_017_482, 393_042, 442_423]
    assert len(corpus.vocabulary) == 50
    assert corpus.vocabulary[corpus.end] == "\n"
    with tarfile.open(data_folder / "ptb_word.tar.xz") as archive:
        member = next(m for m in archive if m.name.endswith("ptb.test.txt"))
        file = archive.extractfile(member)
        assert file is not None
        source = file.read().decode()
    rule = "".join(line.strip().replace(" ", "_") + "\n" for line in source.split("\n")[:-1])
    assert characters(corpus, "test") == rule


@pytest.mark.data
def test_its_path_gives_what_its_name_gives(data_folder: Path) -> None:
    for level in ("word", "char"):
        assert load(str(data_folder / "ptb_word.tar.xz"), level).digest == load("PTB", level).digest


# --- the embedded text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["word", "char"])
def test_the_embedded_text_needs_no_download_and_repeats_nothing(level: str) -> None:
    corpus = load("python-docs", level)
    sizes = [len(corpus.train), len(corpus.validation), len(corpus.test)]
    assert sum(sizes) > (60_000 if level == "word" else 250_000)
    assert sizes[0] > 3 * (sizes[1] + sizes[2])
    parts = python_docs("char")
    lines = {part: set(content.splitlines()) for part, content in parts.items()}
    assert not lines["train"] & lines["test"]
    assert not lines["train"] & lines["validation"]
    assert not lines["validation"] & lines["test"]
    assert load("Python_Docs", level) is corpus, "read once per process"


# --- every way a text may come ----------------------------------------------------------------------------------------


def tar(path: Path, files: dict[str, str], mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(f"./some/{name}")
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def test_folders_and_archives_give_the_same_text(tmp_path: Path) -> None:
    plain = load(str(folder_of(tmp_path / "plain")))
    assert words(plain, "train") == "a b a <eos> c a <eos> b c <eos>"
    assert words(plain, "validation") == "a c <eos>"
    assert words(plain, "test") == "b <unk> <eos>"
    named = {f"ptb.{name}": content for name, content in THREE.items()}
    backwards = dict(reversed(THREE.items()))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("__MACOSX/train.txt", "nothing of the text")
        for name, content in THREE.items():
            archive.writestr(f"inner/{name}", content)
    for path in (
        folder_of(tmp_path / "named", named),
        folder_of(tmp_path / "wiki", {f"wiki.{n.replace('txt', 'tokens')}": c for n, c in THREE.items()}),
        tar(tmp_path / "a.tar.gz", THREE, "w:gz"),
        tar(tmp_path / "a.tar.xz", backwards, "w:xz"),
        tar(tmp_path / "a.tar", named, "w"),
        tmp_path / "z.zip",
    ):
        assert load(str(path)).digest == plain.digest, path.name
    assert plain.test_split == "official"


LINES = "".join(f"line {i} of the text with words\n" for i in range(100))


def test_one_file_is_split_by_position_at_line_ends(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(LINES)
    corpus = load(str(tmp_path / "book.txt"), "char")
    assert "".join(characters(corpus, part) for part in ("train", "validation", "test")) == LINES
    for part in ("train", "validation", "test"):
        assert characters(corpus, part).endswith("\n")
    assert len(corpus.train) == pytest.approx(0.8 * len(LINES), abs=40)
    assert len(corpus.test) == pytest.approx(0.1 * len(LINES), abs=40)
    assert "last 10 %" in corpus.test_split


def test_packed_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(LINES)
    plain = load(str(tmp_path / "book.txt"))
    for suffix, module in ((".gz", gzip), (".xz", lzma), (".bz2", bz2)):
        with module.open(tmp_path / f"book.txt{suffix}", "wb") as file:
            file.write(LINES.encode())
        assert load(str(tmp_path / f"book.txt{suffix}")).digest == plain.digest
    assert (
        load(str(tar(tmp_path / "only.tar.gz", {"book.txt": LINES, "README": "about"}, "w:gz"))).digest == plain.digest
    )


def test_line_ends_of_every_kind_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    for i, content in enumerate(
        (LINES, LINES.replace("\n", "\r\n"), LINES.replace("\n", "\r"), "\ufeff" + LINES, LINES[:-1])
    ):
        (tmp_path / f"{i}.txt").write_text(content, encoding="utf-8", newline="")
    assert len({load(str(tmp_path / f"{i}.txt")).digest for i in range(5)}) == 1


def test_a_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(LINES)
    first = load(str(path))
    path.write_text(LINES.replace("words", "characters"))
    assert load(str(path)).digest != first.digest


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def parts(train: str, validation: str = "a\n", test: str = "a\n") -> list[text_files.Text]:
    return [("train", "train.txt", iter([train])), ("validation", "valid.txt", iter([validation])), ("test", "test.txt", iter([test]))]  # fmt: skip


def test_a_cap_keeps_the_most_frequent_of_the_training_text_alone() -> None:
    corpus = build("t", parts("a a a b b c c d\n", "d d d d\n"), "word", 4)
    assert corpus.vocabulary == ("a", "b", "<eos>", "<unk>")
    assert words(corpus, "train") == "a a a b b <unk> <unk> <unk> <eos>"
    assert words(corpus, "validation") == "<unk> <unk> <unk> <unk> <eos>"
    assert corpus.unknown == 0.8
    assert any("80%" in remark and "allow more vocabulary" in remark for remark in corpus.remarks)
    (remark,) = build("t", parts("a a a b b c c d\n", "z z z z\n"), "word", 400).remarks
    assert "allow more vocabulary" not in remark, "there is none to allow"


def test_words_that_occur_once_become_unknown_where_something_is() -> None:
    known = build("t", parts("a a b b c\n"), "word", None)
    assert "c" in known.vocabulary
    assert "<unk>" not in known.vocabulary
    corpus = build("t", parts("a a b b c\n", "z\n"), "word", None)
    assert words(corpus, "train") == "a a b b <unk> <eos>", "a model must learn how often the unknown comes"
    own = build("t", parts("a a b b c <unk>\n", "z\n"), "word", None)
    assert words(own, "train") == "a a b b c <unk> <eos>", "a text with its own <unk> is left as it is"
    assert words(own, "validation") == "<unk> <eos>"


def test_characters_that_training_has_not_are_unknown() -> None:
    assert characters(build("t", parts("aabb\nab\n", "abz\n"), "char", None), "validation") == "ab<unk>\n"
    assert build("t", parts("aabb\n"), "char", None).vocabulary == ("a", "b", "\n")


@settings(max_examples=80, deadline=None)
@given(st.text(st.sampled_from("ab cé\n\t𝔘"), min_size=1, max_size=60), st.integers(1, 7))
def test_pieces_of_any_size_give_the_same_numbers(content: str, size: int) -> None:
    whole = list(text_files.pieces(io.BytesIO(content.encode()), "t"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_PIECE", size)
        small = list(text_files.pieces(io.BytesIO(content.encode()), "t"))
    assert "".join(small) == "".join(whole) == content
    for encoder in (corpora._Words, corpora._Characters):
        one, many = encoder(), encoder()
        expected = [one.symbols()[i] for piece in whole for i in one.encode(piece)]
        assert [many.symbols()[i] for piece in small for i in many.encode(piece)] == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), min_size=12, max_size=60),
    st.one_of(st.none(), st.integers(4, 9)),
)
def test_every_word_keeps_its_place_or_is_unknown(lines: list[list[str]], cap: int | None) -> None:
    content = "".join(" ".join(line) + "\n" for line in lines)
    source = [word for line in lines for word in (*line, "<eos>")]
    try:
        corpus = build("t", [("whole", "t", iter([content]))], "word", cap)
    except DataError:
        assert len(source) < 20 or len(set(source[: round(0.85 * len(source))])) <= 3 or cap is not None
        return
    numbers = [words(corpus, part).split() for part in ("train", "validation", "test")]
    found = [word for part in numbers for word in part]
    assert len(found) == len(source)
    assert all(word in (given, "<unk>") for word, given in zip(found, source, strict=True))
    assert all(numbers)
    assert cap is None or len(corpus.vocabulary) <= cap
    counts = Counter(source[: len(corpus.train)])
    known = [counts[word] for word in corpus.vocabulary if word not in ("<unk>", "<eos>")]
    dropped = [n for word, n in counts.items() if word not in corpus.vocabulary]
    assert min(known) >= max(dropped, default=0)


def test_a_long_text_takes_little_more_than_its_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"word{i}" for i in range(5_000)])
    with open(tmp_path / "long.txt", "w") as file:
        for _ in range(100):
            file.write(" ".join(names[rng.zipf(1.3, 10_000) % 5_000]) + "\n")
    size = (tmp_path / "long.txt").stat().st_size
    for level in ("word", "char"):
        tracemalloc.start()
        corpus = load(str(tmp_path / "long.txt"), level)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        count = len(corpus.train) + len(corpus.validation) + len(corpus.test)
        assert count >= (1_000_000 if level == "word" else size)
        assert peak < 2.5 * size + 2e7, f"{level}: {peak / size:.1f} times the file's {size:,} bytes"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n \n", "nothing in its text"),
        (b"a b c\n", "at least 20"),
        (b"some words\n" * 50 + b"\x00\x01", "byte 550 is NUL"),
        ("words in another encoding\n".encode("utf-16"), "UTF-16"),
        (b"na\xc3\xafve " * 40 + b"na\xefve\n", "byte 282 is 0xef"),
        (b"cut short " * 10 + b"\xc3", "byte 100 is 0xc3"),
        (b"same " * 100, "too few different symbols"),
        (b"same\n" * 100, "too few different symbols"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(str(path))
    assert "book.txt" in str(caught.value)


def test_the_place_of_a_wrong_byte_is_told_beyond_the_first_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "ünïcödé wörds ".encode() * 30
    (tmp_path / "book.txt").write_bytes(content + b"\xff")
    for size in (1, 7, 64, 1 << 20):
        monkeypatch.setattr(text_files, "_PIECE", size)
        with pytest.raises(DataError, match=f"byte {len(content):,} is 0xff"):
            load(str(tmp_path / "book.txt"))


def test_a_text_without_spaces_has_characters_and_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_PIECE", 1000)
    (tmp_path / "genome.txt").write_text("acgtt" * 20_000)
    with pytest.raises(DataError, match='level="char"'):
        load(str(tmp_path / "genome.txt"))
    corpus = load(str(tmp_path / "genome.txt"), "char")
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == [80_000, 10_000, 10_000]


def test_what_is_not_there_or_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'ptb'"):
        load("ptbb")
    with pytest.raises(DataError, match="no file or folder"):
        load("~no-such-user/text.txt")
    with pytest.raises(UnknownName, match="level of text"):
        load("ptb", "sentence")
    with pytest.raises(DataError, match="no file or folder"):
        load(str(tmp_path / "none.txt"))
    with pytest.raises(DataError, match="name too long"):
        load("a text in place of a file's name " * 10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it has none of them"):
        load(str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"lacks the text for test.*it has train.txt, valid.txt"):
        load(str(folder_of(tmp_path / "two", {k: v for k, v in THREE.items() if k != "test.txt"})))
    with pytest.raises(DataError, match="two texts for validation"):
        load(str(folder_of(tmp_path / "four", {**THREE, "val.txt": "a\n"})))
    with pytest.raises(DataError, match="lacks"):
        load(str(tar(tmp_path / "pictures.tar.gz", {"a.jpg": "x", "b.jpg": "y"}, "w:gz")))


def test_a_link_to_nothing_beside_the_texts_does_no_harm(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "text", THREE)
    whole = load(str(folder))
    (folder / ".#train.txt").symlink_to("an.editor@holds.it")
    (folder / "loop.txt").symlink_to("loop.txt")
    assert load(str(folder)).digest == whole.digest


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.zip", "book.txt.gz", "book.txt.xz"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole-{name}"
    if name == "a.zip":
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            for part, content in THREE.items():
                archive.writestr(part, content * 500)
    elif name.startswith("a.tar"):
        tar(whole, {part: content * 500 for part, content in THREE.items()}, "w:" + name[6:])
    else:
        with (gzip if name.endswith("gz") else lzma).open(whole, "wb") as file:
            file.write(LINES.encode())
    content = whole.read_bytes()
    for damaged in (content[: len(content) // 2], b"no archive at all, but some words " * 30):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=name):
            load(str(tmp_path / name))


def test_what_systems_leave_beside_the_parts_is_no_part(tmp_path: Path) -> None:
    folder = tmp_path / "donn\udce9es"
    (folder / "@eaDir").mkdir(parents=True)
    for part in ("train", "valid", "test"):
        (folder / f"{part}.txt").write_text("a b c d\n" * 40)
        (folder / f"._{part}.txt").write_bytes(b"\0\5\x16\7")
        (folder / "@eaDir" / f"{part}.txt").write_bytes(b"\0")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped, tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        for file in sorted(folder.rglob("*.txt")):
            inner = file.relative_to(folder)
            zipped.write(file, f"corpus\\{inner}".replace("/", "\\"))  # as some tools of Windows do
            tar.add(file, f"./__MACOSX/{inner}" if file.name.startswith(".") else f"./corpus/{inner}")
    for path in (folder, tmp_path / "a.zip", tmp_path / "a.tgz"):
        described = load(str(path)).describe()
        assert (described["train"], described["test"]) == (200, 200)
        described["name"].encode()
