"""The page and the terminal on what `auto` delivered, made from real trainings of seconds."""

from __future__ import annotations

import html
import json
import re
import subprocess
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from archsmith._page.html import size
from archsmith._page.pictures import data_address, shown
from archsmith._search.run import Run
from archsmith.cli.main import app
from archsmith.metrics.outcome import (
    AutoOutcome,
    DeliveredNetwork,
    FasterNetwork,
    OtherNetwork,
    Score,
    Stage,
    SuspectedLabel,
)
from archsmith.report import write_report
from auto_runs import of_pairs, record, searched
from test_report import HOSTILE, Page, a_run, done, page_of
from test_report_browser import QUIET, browse, browser

LEAST = AutoOutcome(DeliveredNetwork("found", "a small network", "from the beginning", 61, 1))
INTERNALS = ("progress", "architectures", "trials")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, AutoOutcome]:
    return searched(tmp_path_factory.mktemp("auto"))


def page(outcome: Any, folder: Path, **config: Any) -> Page:
    """The page of a run with this outcome on record."""
    run = a_run([done(0.9), done(0.8)], config=config)
    run.store.write(run.name).put_document("auto", outcome.to_json() if isinstance(outcome, AutoOutcome) else outcome)
    return page_of(run, folder)


def tiles(page: Page) -> dict[str, str]:
    """The first tiles: what each is called, and its value."""
    first = page.source[page.source.index('class="tiles first"') :]
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", first[: first.index("</dl>")])
    return {
        html.unescape(name): html.unescape(value).replace("\N{NARROW NO-BREAK SPACE}", " ") for name, value in pairs
    }


def folded(page: Page) -> str:
    """What is folded away on the page's section about the search."""
    text = page.source[page.source.index('<section id="search">') :]
    return text[text.index("<details>") : text.index('<section id="record">')]


def test_the_page_begins_with_the_delivered_network_and_folds_the_search(real: Any, tmp_path: Path) -> None:
    run, outcome = real
    made = page_of(run, tmp_path)
    test = outcome.delivered.test
    assert list(tiles(made)) == ["Test accuracy", "Baseline", "Time for a picture", "Size of the file"]
    assert tiles(made)["Test accuracy"] == f"{100 * test.accuracy:.1f} %"
    assert tiles(made)["Baseline"] == f"{100 * outcome.baseline.test.accuracy:.1f} %"
    assert tiles(made)["Time for a picture"] == "0.31 ms"
    text = made.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert f"95 % interval {100 * test.interval[0]:.1f} to {100 * test.interval[1]:.1f} % on 359 test pictures" in text
    assert "From 1 797 pictures, archsmith made a network that sorts pictures into 10 classes." in text
    assert "(continued from trial" in text
    assert "usually a little too high" in text
    ids = [
        i for i in made.ids if i in ("classes", "confusions", "mistakes", "labels", "duplicates", "confidence", "time")
    ]
    assert ids == ["classes", "confusions", "mistakes", "labels", "duplicates", "confidence", "time"]
    for id in INTERNALS:
        assert f'<section id="{id}">' in folded(made)
        assert f'href="#{id}"' not in made.source
    assert 'id="record"' not in folded(made)


def test_the_matrix_and_the_classes_have_the_numbers_of_the_test(real: Any, tmp_path: Path) -> None:
    run, outcome = real
    made = page_of(run, tmp_path)
    tested = outcome.assessment
    for i, j, n in tested.confusions:
        assert f'title="{i} taken for {j}: {n}"' in made.source
    for i, scores in enumerate(tested.scores):
        assert f'title="{i}, recognised: {scores.correct}"' in made.source or scores.correct == 0
    rows = re.findall(r"<tr><td[^>]*><strong>(\d)</strong></td><td[^>]*>(\d+)</td><td[^>]*>([\d.]+)", made.source)
    assert sorted((int(c), int(n), float(r)) for c, n, r in rows) == [
        (i, s.count, round(100 * s.recall, 1)) for i, s in enumerate(tested.scores)
    ]
    assert [float(r) for *_, r in rows] == sorted(float(r) for *_, r in rows)  # the worst first


def test_the_worst_mistakes_are_pictures_of_the_data(real: Any, tmp_path: Path) -> None:
    run, outcome = real
    pictures = [a for name, a in page_of(run, tmp_path).elements if name == "img"]
    assert len(pictures) == len(outcome.assessment.mistakes) + len(outcome.suspects) + 2 * len(outcome.duplicates)
    assert pictures[0]["alt"] == outcome.assessment.mistakes[0].file
    assert all(len(str(a["src"])) > 200 for a in pictures)


@pytest.mark.browser
def test_a_phone_shows_all_of_it_and_loads_nothing(real: Any, tmp_path: Path) -> None:
    run, outcome = real
    record(run, renamed(outcome, "Ein-sehr-langer-Name-ohne-Leerzeichen-" * 4 + HOSTILE))
    path = write_report(run, tmp_path / "page.html")
    record(run, outcome)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<details>", "<details open>"), encoding="utf-8")  # what is folded away, too
    dom, console, asked = browse(path, tmp_path)
    assert 'id="mistakes"' in dom
    assert console == []
    assert asked == []
    frame = tmp_path / "phone.html"  # a window has a least width, a frame has none
    script = 'document.title = document.querySelector("iframe").contentDocument.documentElement.scrollWidth'
    frame.write_text(
        f'<iframe width="375" height="2000" srcdoc="{html.escape(path.read_text(encoding="utf-8"))}"></iframe>'
        f"<script>onload = () => {{ {script} }}</script>",
        encoding="utf-8",
    )
    command = [browser(), *QUIET, f"--user-data-dir={tmp_path / 'phone'}", "--dump-dom", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    width = re.search(r"<title>(\d+)</title>", shown)
    assert width is not None
    assert int(width[1]) <= 375


def renamed(value: Any, name: str) -> Any:
    """A record with this text wherever a text may be anything."""
    if isinstance(value, str):
        return value if value in ("found", "baseline") or value.startswith("data:") else name
    if isinstance(value, tuple):
        return tuple(renamed(item, name) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: renamed(getattr(value, f.name), name) for f in fields(value)})
    return value


def test_hostile_names_are_text(real: Any, tmp_path: Path) -> None:
    _, outcome = real
    hostile = renamed(outcome, HOSTILE + "\n\udce9\u202e")
    bad = replace(hostile.assessment.mistakes[0], picture='data:image/jpeg;base64,AA"><script>alert(1)</script>')
    far = replace(bad, picture="https://example.org/x.jpg")
    vector = replace(bad, picture="data:image/svg+xml;base64,AAAA")
    large = replace(bad, picture="data:image/jpeg;base64," + "A" * 100_000)
    mistakes = (bad, far, vector, large, *hostile.assessment.mistakes)
    made = page(replace(hostile, assessment=replace(hostile.assessment, mistakes=mistakes)), tmp_path)
    assert "<script>alert(1)" in made.text
    assert "example.org" not in made.source
    assert "svg+xml" not in made.source


# --- what there may be ------------------------------------------------------------------------------------------------


def test_a_hundred_classes_show_the_twenty_that_are_confused_most(tmp_path: Path) -> None:
    outcome = of_pairs(100)
    made = page(outcome, tmp_path)
    text = made.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert outcome.assessment is not None
    assert "sorts pictures into 100 classes" in text
    assert re.search(r"Of the 100 classes, the 20 that are confused most are shown, with \d+ of the \d+ mistakes", text)
    assert "The other 80 classes" in text
    matrix = made.source[made.source.index('<table class="confusions') :]
    assert matrix[: matrix.index("</table>")].count("<tr>") == 21
    assert made.source.count("<img") == 0  # arrays without pictures
    assert "a picture of digits" in text


def test_two_uneven_classes_have_a_balanced_accuracy(tmp_path: Path) -> None:
    text = page(of_pairs(2, uneven=True), tmp_path).text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "tells digits 0 and 0 and digits 0 and 1 apart" in text
    assert re.search(r"The classes are uneven: the largest has \d+ test pictures, the smallest \d+\.", text)
    assert "(balanced accuracy)" in text
    assert "1 class has fewer than 20 test pictures" in text
    assert "With equal time for both, the test pictures show no difference" in text


def test_the_least_that_can_be_known_gives_a_page(tmp_path: Path) -> None:
    made = page(LEAST, tmp_path)
    assert tiles(made) == {"Test accuracy": "–", "Baseline": "–", "Time for a picture": "–", "Size": "–"}
    assert (
        "It is a small network, trained for 1 minute (from the beginning), 1 pass over the training pictures."
        in made.text
    )
    assert "nothing is claimed" in made.text
    for id in ("classes", "confusions", "mistakes", "labels", "duplicates", "confidence", "time", "notes"):
        assert id not in made.ids


def test_an_untested_network_shows_its_validation_accuracy(tmp_path: Path) -> None:
    delivered = replace(LEAST.delivered, validation=Score(9, 10))
    baseline = OtherNetwork("ResNet-20", 40, False, Score(8, 10))
    made = page(replace(LEAST, delivered=delivered, baseline=baseline), tmp_path)
    assert tiles(made)["Test accuracy"] == "–"
    assert tiles(made)["Baseline"] == "80.0 %"
    assert "not tested; 90.0" in made.text
    assert "ResNet-20 on validation pictures, 40 seconds of training" in made.text


@pytest.mark.parametrize("found", [None, OtherNetwork("trial 3", 100, True, Score(90, 100))])
def test_a_delivered_baseline_is_said_to_be_one(tmp_path: Path, found: OtherNetwork | None) -> None:
    delivered = DeliveredNetwork("baseline", "ResNet-20", "from the beginning", 100, 20, Score(95, 100), Score(94, 100))
    made = page(replace(LEAST, delivered=delivered, found=found, children=1 if found else 0), tmp_path)
    if found is None:
        assert tiles(made)["Baseline"] == "chosen"
        assert "It is ResNet-20, a network designed by hand, trained for 1.7 minutes" in made.text
    else:
        assert tiles(made)["Best of the search"] == "90.0 %"
        assert "It tried 1 network for a short time first. None was better than ResNet-20" in made.text
    assert "better than the network designed by hand" not in made.text


def test_the_time_is_shown_as_planned_and_used(tmp_path: Path) -> None:
    stages = (
        Stage("search", 60, 65.5),
        Stage("final", 40, None),
        Stage("my own stage", None, 20),
        Stage("closing", 0, 0),
    )
    made = page(replace(LEAST, stages=stages, time_budget=80.0, children=1, epochs=12.5), tmp_path)
    text = made.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "All stages together took 1 min 26 s of 1 min 20 s, 5.5 s too long" in text
    assert "1 network was tried, with 12.50 passes" in text
    for said in ("trying networks", "1 min 06 s of 1 min 00 s", "not reached of 40 s", "my own stage"):
        assert said in text
    assert re.findall(r'class="used" style="width: ([\d.]+)%"', made.source) == ["100.0", "30.5", "0.0"]
    instantly = page(replace(LEAST, stages=(Stage("search", None, 0.0),)), tmp_path)
    assert "planned" not in instantly.text[: instantly.text.index("How it was found", 500)]


def test_a_document_of_another_version_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    made = page({"delivered": {"name": HOSTILE}}, tmp_path)
    assert "What auto delivered is not shown, since its record is of another version" in made.text
    assert 'id="search"' not in made.source
    for id in INTERNALS:
        assert f'href="#{id}"' in made.source


def test_several_seeds_stay_in_sight_and_one_does_not(tmp_path: Path) -> None:
    for seeds in (1, 3):
        finals = [{"score": 0.9, "index": k, "cost": {"seconds": 1, "epochs": 2}} for k in range(seeds)]
        finish = {"networks": [{"name": "found", "finals": finals, "mean": 0.9}], "claim": "a claim over seeds"}
        run = a_run([done(0.9)], finish=finish)
        run.store.write(run.name).put_document("auto", LEAST.to_json())
        made = page_of(run, tmp_path)
        assert ('id="finish"' in folded(made)) == (seeds == 1)


def test_a_file_is_named_by_the_end_of_its_path(tmp_path: Path) -> None:
    suspects = (SuspectedLabel("photos/cats/1.png", "cat", "dog", 0.9, "validation"), SuspectedLabel("", "a", "b", 0.8))
    source = page(replace(LEAST, suspects=suspects), tmp_path).source
    assert '<span class="file" title="photos/cats/1.png">cats/1.png (validation)</span>' in source
    assert source.count('class="file"') == 1


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 3), (300, 20, 3), (32, 32, 2), (5, 500, 4), (112, 112, 3)])
def test_any_picture_has_a_small_address(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    address = data_address(pixels)
    assert len(address) < 20_000
    assert shown(address, 'a "picture"') == f'<img class="picture" src="{address}" alt="a &quot;picture&quot;">'


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 bytes"), (812, "812 bytes"), (11_383, "11 kB"), (1_099_000, "1.1 MB"), (123_456_789, "123 MB"), (4_200_000_000, "4.2 GB")]
)  # fmt: skip
def test_sizes_read_well(n: int, text: str) -> None:
    assert size(n) == text


# --- the terminal -----------------------------------------------------------------------------------------------------


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_terminal_tells_what_was_delivered(real: Any) -> None:
    run, outcome = real
    test = outcome.delivered.test
    lines = said("show", "digits", "--store", run.store.url)
    assert (
        f"delivered  a chain of two convolutions (found by the search; {outcome.delivered.training}): test accuracy"
        in lines
    )
    assert f"baseline   one convolution: test accuracy {100 * outcome.baseline.test.accuracy:.1f} %" in lines
    assert "next: archsmith finish" not in lines
    assert "delivered: a chain of two convolutions" in said("top", "digits", "--store", run.store.url)
    found = json.loads(said("show", "digits", "--json", "--store", run.store.url))["auto"]
    assert found["delivered"]["test"] == {
        "correct": test.correct, "count": 359, "accuracy": test.accuracy, "interval": list(test.interval)
    }  # fmt: skip
    assert found["claim"]["verdict"] in ("better", "worse", "no difference shown")
    assert "picture" not in found["assessment"]["mistakes"][0]
    trials = json.loads(said("top", "digits", "--json", "--store", run.store.url))
    assert [t["number"] for t in trials if "delivered" in t] == [outcome.delivered.trial]


def test_a_run_without_it_is_told_as_before(real: Any) -> None:
    run, _ = real
    lines = said("show", "by-hand", "--store", run.store.url)
    assert "  delivered  " not in lines
    assert json.loads(said("show", "by-hand", "--json", "--store", run.store.url))["auto"] is None


def test_a_hostile_record_does_not_steer_the_terminal(real: Any) -> None:
    run, outcome = real
    record(run, renamed(outcome, "\x1b[2J\u202e\udce9"))
    lines = said("show", "digits", "--store", run.store.url) + said("top", "digits", "--store", run.store.url)
    record(run, outcome)
    assert "\x1b" not in lines
    assert "\u202e" not in lines
    assert "\\x1b[2J" in lines


def test_faster_networks_have_a_plot_and_a_command_each(tmp_path: Path) -> None:
    delivered = replace(LEAST.delivered, latency=12.0, size=192, test=Score(93, 100), validation=Score(40, 42))
    faster = (
        FasterNetwork(
            "found at 128 pixels", "<b>Lite0</b> at 128 pixels", 5.9, 128, 1000, Score(40, 42), Score(92, 100)
        ),
        FasterNetwork("found at 96 pixels", "Lite0 at 96 pixels", 3.0, 96, 1000, Score(39, 42), Score(90, 100)),
    )
    made = page(replace(LEAST, delivered=delivered, faster=faster), tmp_path)
    section = made.source[made.source.index('<section id="faster">') :]
    section = section[: section.index("</section>")]
    assert "--network &#x27;found at 96 pixels&#x27;" in section
    assert "<b>Lite0</b>" not in section
    assert "<svg" in section
    for cell in ("5.9 ms", "3 ms", "25 %", "90.0 %"):
        assert cell in section.replace("\N{NARROW NO-BREAK SPACE}", " ")
    without = page(replace(LEAST, delivered=replace(delivered, latency=None), faster=faster), tmp_path)
    assert '<section id="faster">' not in without.source
