"""What list, show and top say of a run, by its own measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from archsmith.cli.looking import data_lines, reward_text
from archsmith.cli.main import app
from archsmith.core.finish import PERPLEXITY
from archsmith.store import open_store
from test_report import TEXT, a_run, done, told


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def finish_of(measure: dict[str, Any] | None, **score: float) -> dict[str, Any]:
    """A document of a finish with one network of two seeds, as it was before there were measures, or as it is now."""
    finals = [{"index": i, **score} for i in range(2)]
    document = {"networks": [{"name": "found", "finals": finals}], "looks": 1}
    return document if measure is None else {**document, "measure": measure}


def test_a_run_of_texts_is_told_in_perplexity(tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")
    finish = finish_of(PERPLEXITY.to_json(), score=78.5)
    a_run([told(112.345), told(300.0)], store=open_store(store), name="words", config=TEXT, finish=finish)
    top = said("top", "words", "--store", store).splitlines()
    assert top[0].split() == ["TRIAL", "REWARD", "PERPLEXITY", "PARAMETERS", "SECONDS", "GENOTYPE"]
    assert top[1].split()[2] == "112.34"
    shown = said("show", "words", "--store", store)
    assert "tested     perplexity: found 78.50 ± 0.00 (looked at the test set 1 time)" in shown
    assert "data       ptb: 929,589 train, 73,760 validation words" in shown
    assert "vocabulary of 10,000" in shown
    assert "accuracy" not in shown
    assert "0.006338" in said("list", "--store", store)


def test_a_run_of_images_is_told_in_accuracy_whichever_version_finished_it(tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")
    opened = open_store(store)
    a_run([done(0.9)], store=opened, name="old", finish=finish_of(None, accuracy=0.975))
    a_run([done(0.9)], store=opened, name="odd", finish={"winner": 1, "test_accuracy": [0.9]})
    assert said("top", "old", "--store", store).splitlines()[1].split()[2] == "0.9000"
    assert "tested     found 97.50 % ± 0.00 (looked" in said("show", "old", "--store", store)
    told = json.loads(said("show", "old", "--json", "--store", store))
    assert told["finish"]["networks"][0]["finals"][0]["score"] == 0.975
    assert "tested" not in said("show", "odd", "--store", store)


@pytest.mark.parametrize(
    ("reward", "text"), [(0.853, "0.8530"), (-3.25, "-3.2500"), (0.0, "0.0000"), (80 / 78.4**2, "0.01302"), (1e-9, "1e-09")]
)  # fmt: skip
def test_small_rewards_keep_digits_that_tell_something(reward: float, text: str) -> None:
    assert reward_text(reward) == text


def test_data_of_every_kind_are_told_in_lines() -> None:
    pairs = {
        "name": "multi30k",
        "kind": "pairs of sentences",
        "languages": ["en", "de"],
        "train": 29_000,
        "validation": 1014,
    }
    pairs |= {
        "test": 1000,
        "vocabulary": [9000, 12_000],
        "test_split": "official",
        "digest": "x",
        "remarks": ["A remark."],
    }
    assert data_lines(pairs) == [
        "multi30k: 29,000 train, 1,014 validation, 1,000 test pairs of sentences",
        "vocabulary of 9,000 and 12,000; test split: official",
        "A remark.",
    ]
    text = {
        "name": "a.txt",
        "level": "char",
        "train": 5000,
        "validation": 500,
        "test": 500,
        "vocabulary": 50,
        "unknown": 0.0123,
    }
    assert data_lines(text) == [
        "a.txt: 5,000 train, 500 validation, 500 test characters",
        'vocabulary of 50; 1.2 % of the validation text is "<unk>"',
    ]
    assert data_lines({}) == ["data"]


@pytest.mark.parametrize("verb", [["show"], ["show", "--json"], ["resume"], ["finish"]])
def test_a_record_that_no_search_wrote_is_told_in_words(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from archsmith.cli.main import main

    store = tmp_path / "strange.db"
    shutil.copy(Path(__file__).parent / "golden" / "store-v1.db", store)
    assert main([verb[0], "golden", *verb[1:], "--store", str(store)]) in (1, 2)
    assert "was not written by a search" in capsys.readouterr().err
