"""benchmarks/auto.py: its statistics and verdicts, its plan and its lines, its data, and the networks made by hand."""

from __future__ import annotations

import itertools
import json
import shutil
import string
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import auto
import auto_data
import auto_table
import letters
from auto_table import Difference, Pair, calibration_error, difference, latest, pack, pairs_of, table, unpack, verdict

from archsmith.metrics.outcome import AutoOutcome, DeliveredNetwork, FasterNetwork, Score

WANTED = {"trash6": 2, "letters": 1}
PRETRAINED = {"trash6": 2}


def line(data="trash6", method="auto", minutes=10, seed=0, fold=0, correct=(1, 1, 1, 0), seconds=None, **others):
    bits = np.array(correct, bool)
    return {
        "data": data,
        "method": method,
        "minutes": minutes,
        "seed": seed,
        "fold": fold,
        "test_accuracy": bits.mean(),
        "correct": pack(bits),
        "pictures": len(bits),
        "calibration_error": 0.02,
        "seconds": 60 * minutes if seconds is None else seconds,
        "other_cores": 0.0,
        "commit": "abc1234",
        "machine": "a machine",
    } | others


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 9, 508])
def test_bits_come_back(count):
    bits = np.random.default_rng(count).random(count) < 0.5
    assert unpack(pack(bits), count).tolist() == bits.tolist()
    assert len(pack(bits)) <= count / 6 + 4


def test_equal_answers_differ_by_nothing_and_opposite_ones_by_everything():
    right, wrong = np.ones(50, bool), np.zeros(50, bool)
    assert difference([Pair(0, right, right), Pair(0, right, right)]) == Difference(0, 0, 0)
    assert difference([Pair(0, right, wrong), Pair(1, right, wrong)]) == Difference(100, 100, 100)


def test_one_pair_has_the_interval_of_its_pictures():
    """100 of 1,000 pictures gained, 40 lost: a difference of 6 points with a standard error known in closed form."""
    gaps = np.array([1] * 100 + [-1] * 40 + [0] * 860)
    result = difference([Pair(0, gaps > 0, gaps < 0)])
    error = 100 * np.sqrt(gaps.var() / len(gaps))
    assert result.mean == pytest.approx(6.0)
    assert result.low == pytest.approx(6 - 1.96 * error, abs=0.15)
    assert result.high == pytest.approx(6 + 1.96 * error, abs=0.15)


def test_seeds_on_the_same_pictures_share_their_luck_and_folds_do_not():
    gaps = np.array([1] * 100 + [-1] * 40 + [0] * 860)
    ours, theirs = gaps > 0, gaps < 0
    width = {}
    for name, folds in {"one": [0], "seeds": [0, 0, 0, 0], "folds": [0, 1, 2, 3]}.items():
        result = difference([Pair(fold, ours, theirs) for fold in folds])
        width[name] = result.high - result.low
    assert width["seeds"] == pytest.approx(width["one"], rel=0.05), (
        "four equal seeds say no more of the pictures than one"
    )
    assert 0.45 < width["folds"] / width["one"] < 0.75, "four folds have four times the pictures"


def test_seeds_that_disagree_widen_the_interval():
    many, few = np.arange(10_000) < 1200, np.arange(10_000) < 200
    none = np.zeros(10_000, bool)
    result = difference([Pair(0, many, none), Pair(0, few, none), Pair(0, many, none)])
    assert result.mean == pytest.approx(100 * (0.12 + 0.02 + 0.12) / 3)
    assert result.low < 3
    assert result.high > 11


def test_the_interval_is_the_same_at_each_call():
    rng = np.random.default_rng(0)
    pairs = [Pair(fold, rng.random(300) < 0.9, rng.random(300) < 0.88) for fold in range(5)]
    assert difference(pairs) == difference(pairs)
    assert difference(pairs) != difference(pairs, seed=1)


@pytest.mark.parametrize(
    ("mean", "low", "high", "expected"),
    [
        (2.0, 0.1, 4.0, "better"),
        (2.0, 0.0, 4.0, "at least as good"),  # the interval must be above zero, not at it
        (-0.5, -2.0, 1.0, "at least as good"),
        (-0.51, -2.0, 1.0, "worse"),  # the mean is too low
        (-0.3, -0.4, -0.2, "worse"),  # the interval does not reach zero
        (-0.3, -0.6, 0.0, "at least as good"),
        (-9.0, -12.0, -6.0, "worse"),
    ],
)
def test_verdicts(mean, low, high, expected):
    assert verdict(Difference(mean, low, high)) == expected


def test_calibration_error():
    assert calibration_error([1.0, 1.0], [True, True]) == 0
    assert calibration_error([0.95] * 4, [True, True, False, False]) == pytest.approx(0.45)
    assert calibration_error([0.95, 0.95, 0.55, 0.55], [True, True, True, False]) == pytest.approx(0.05)
    assert calibration_error([0.0], [False]) == 0


# --- lines and plan ---------------------------------------------------------------------------------------------------


def test_the_plan_is_what_was_promised():
    plan = auto.from_scratch()
    assert len(plan) == len({m.key for m in plan})
    assert 7 < sum(m.minutes for m in plan) / 60 < 9
    for data, number in auto.WANTED.items():
        for method in ("auto", "by-hand"):
            cases = {(m.seed, m.fold) for m in plan if (m.data, m.method, m.minutes) == (data, method, 10.0)}
            assert len(cases) == number
    assert {m.fold for m in plan if m.data == "trash6"} == set(range(5))
    assert {m.minutes for m in plan if m.data == "trash6" and m.method == "auto"} == {2, 5, 10, 20}
    assert all(required in {(m.data, m.minutes, m.seed, m.fold) for m in plan} for required in auto_table.REQUIRED)


def test_the_plan_with_weights_comes_after_the_one_from_scratch():
    plan, scratch = auto.plan(), auto.from_scratch()
    assert plan[: len(scratch)] == scratch
    assert len(plan) == len({m.key for m in plan})
    plan = plan[len(scratch) :]
    assert {m.method for m in plan} == {"auto-pretrained", "fine-tuned", "probe"}
    for method in ("auto-pretrained", "fine-tuned", "probe"):
        cases = [(m.data, m.seed, m.fold) for m in plan if m.method == method and m.minutes == 10]
        assert sorted(cases) == [("flowers5", s, 0) for s in range(3)] + [("trash6", f, f) for f in range(5)]
    for method in ("auto-pretrained", "fine-tuned"):
        curve = {(m.minutes, m.fold) for m in plan if m.method == method and m.data == "trash6" and m.fold < 2}
        assert curve == set(itertools.product((2, 5, 10, 20), (0, 1)))
    firsts = [
        a.method for a, b in itertools.pairwise(plan) if (a.data, a.minutes, a.seed) != (b.data, b.minutes, b.seed)
    ]
    assert len(set(firsts)) == 3, "methods take turns"


def test_methods_take_turns():
    methods = [m.method for m in auto.from_scratch() if m.minutes == 10 and m.method != auto.EARLIER]
    firsts = methods[::2]
    assert all({a, b} == {"auto", "by-hand"} for a, b in zip(methods[::2], methods[1::2], strict=True))
    assert 0.3 < firsts.count("auto") / len(firsts) < 0.7


def test_only_and_again():
    plan = auto.plan()
    assert {m.data for m in auto.selected(plan, "letters,auto")} == {"letters"}
    assert {m.method for m in auto.selected(plan, "auto")} == {"auto"}
    assert {m.method for m in auto.selected(plan, "auto-pretrained,probe")} == {"auto-pretrained", "probe"}
    assert {m.minutes for m in auto.selected(plan, "trash6,2m,20m")} == {2.0, 20.0}
    with pytest.raises(SystemExit, match="letter"):
        auto.selected(plan, "letter")


def test_a_partial_file_goes_on(tmp_path, capsys):
    path = tmp_path / "auto.jsonl"
    plan = auto.plan()
    auto.append_line(path, line())
    auto.append_line(path, line(method="by-hand", error="MeasurementFailed: it did not end"))
    with path.open("a") as file:
        file.write('{"data": "cifar10", "meth')  # cut off while it was written
    lines = auto.read_lines(path)
    assert len(lines) == 2
    todo = auto.missing(plan, lines)
    assert len(todo) == len(plan) - 1, "what failed is measured again"
    auto.append_line(path, line(method="by-hand"))
    assert [json.loads(text)["method"] for text in path.read_text().splitlines()] == ["auto", "by-hand", "by-hand"]
    auto.main(["--list", "--lines", str(path), "--only", "trash6,10m,auto,by-hand,auto-ce2ea73"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("9 of 11 are missing")


def test_the_last_line_counts_unless_it_failed():
    lines = [line(correct=(0, 0)), line(correct=(1, 1)), line(error="no")]
    (only,) = latest(lines).values()
    assert only["test_accuracy"] == 1


def test_pairs_have_the_same_pictures():
    lines = latest([line(), line(method="by-hand", correct=(1, 0, 1)), line(fold=1, seed=1)])
    with pytest.raises(ValueError, match="different pictures"):
        pairs_of(lines, "trash6", 10.0)


def test_answers_are_matched_to_files_by_their_names(tmp_path):
    for name in ("b/2.png", "b/1.png", "a/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    answers = {"a/3.png": ("a", 0.5), "b/1.png": ("a", 0.75), "b/2.png": (None, None)}
    said = [{"path": f"{tmp_path}/{k}", "label": v[0], "probability": v[1]} for k, v in reversed(answers.items())]
    assert auto.graded(said, tmp_path) == ([True, False, False], [0.5, 0.75, 0.0])
    with pytest.raises(KeyError):
        auto.graded(said[1:], tmp_path)


def test_a_line_keeps_numbers_and_short_texts():
    result = {
        "run": "digits",
        "model": "/tmp/model",
        "test_accuracy": 0.5,
        "outcome": {"delivered": "network", "curve": [1, 2], "deep": {"er": {"est": 1}}, "picture": "x" * 1000},
        "finish": {"networks": []},
        "report": None,
    }
    assert auto.summary(result) == {"run": "digits", "test_accuracy": 0.5, "outcome": {"delivered": "network"}}


@pytest.mark.parametrize(
    ("method", "has", "lacks"),
    [
        ("auto", ["--time", "10m", "--from-scratch"], ["--seconds"]),
        ("auto-pretrained", ["--time", "10m"], ["--from-scratch", "--seconds"]),
        ("auto-ce2ea73", ["--seconds", "600"], ["--from-scratch", "--time"]),
    ],
)
def test_auto_is_run_from_scratch_or_with_weights(method, has, lacks):
    wanted = auto.Measurement("trash6", method, 10.0, 3, 3)
    arguments = auto.auto_arguments(wanted, Path("data"), Path("out"))
    assert arguments[: 4 + len(has)] == ["-m", "archsmith", "auto", Path("data"), *has]
    assert arguments[-5:] == ["--seed", "3", "--output", Path("out"), "--json"]
    assert not set(lacks) & set(arguments)


def test_a_line_keeps_what_is_said_of_faster_networks():
    """From the outcome as the command prints it."""
    score = Score(9, 10)
    small = FasterNetwork("found at 64 pixels", "EfficientNet-Lite0 at 64 pixels", 4.0, 64, 3_000, score, score)
    delivered = DeliveredNetwork("found", "EfficientNet-Lite0", "fine-tuned", 1.0, 1.0, latency=9.0)
    result = json.loads(json.dumps({"outcome": AutoOutcome(delivered, faster=(small,)).to_json()}))
    kept = auto.faster_networks(result)
    assert kept["latency"] == 9.0
    assert kept["faster"] == [
        {
            "network": "found at 64 pixels",
            "name": "EfficientNet-Lite0 at 64 pixels",
            "latency": 4.0,
            "size": 64,
            "parameters": 3_000,
            "validation": {"correct": 9, "count": 10},
            "test": {"correct": 9, "count": 10},
        }
    ]


def test_without_the_weights_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "WEIGHTS", "no_such_module")
    monkeypatch.setattr(auto, "measure_all", lambda *_: None)
    arguments = ["--scratch", str(tmp_path / "scratch"), "--lines", str(tmp_path / "auto.jsonl"), "--only"]
    auto.main([*arguments, "auto"])
    for method in ("auto-pretrained", "fine-tuned", "probe"):
        with pytest.raises(SystemExit, match="brings the ImageNet weights"):
            auto.main([*arguments, method])


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_of_nothing():
    text = table([], WANTED, PRETRAINED)
    assert text.count("| trash6 | 0 of 2 |") == 3
    assert "Of 2 data sets, 0 are complete: at least as good on 0, better on 0." in text


def test_the_table():
    good, bad = [1] * 95 + [0] * 5, [1] * 70 + [0] * 30
    lines = [
        *(line(fold=f, seed=f, correct=good) for f in (0, 1)),
        *(line(fold=f, seed=f, correct=bad, method="by-hand") for f in (0, 1)),
        line(data="letters", correct=bad, commit="def5678", seconds=700, other_cores=0.9, reported_accuracy=0.71),
        line(data="letters", correct=good, method="by-hand"),
        line(minutes=2, correct=bad),
        line(minutes=2, correct=good, method="by-hand"),
        line(method=auto.EARLIER, correct=bad),
        line(data="cifar10", error="failed"),
    ]
    text = table(lines, WANTED, PRETRAINED)
    assert "| trash6 | 2 of 2 | 95.0 (0.0) | 70.0 (0.0) | +25.0 |" in text
    (letter,) = [row for row in text.splitlines() if row.startswith("| letters | 1 of 1")]
    assert letter.endswith("| worse |")
    assert "Of 2 data sets, 2 are complete: at least as good on 1, better on 1." in text
    assert "trash6, folds 0." in text, "the fold that both budgets have"
    assert "| 2 | 70.0 | 95.0 | -25.0 |" in text
    assert "| 0 | 95.0 | 70.0 | +25.0 |" in text, "auto as it was"
    assert "| trash6 | 10 | 89.1 - 1 | 70.0 | no |" in text
    assert "| letters | auto | 10 | 2.0 | +16.7 | +16.7 | 0.90 |" in text
    assert "1 runs failed; 1 of these are still missing" in text
    assert "commits abc1234, def5678" in text
    assert "more than 5 % longer" in text
    assert "In 1 lines, auto reported another test accuracy" in text


def section(text, title):
    (found,) = [part for part in text.split("\n## ") if part.startswith(f"{title}\n")]
    return found


def test_the_table_of_what_begins_with_weights():
    good, fair, bad = [1] * 95 + [0] * 5, [1] * 94 + [0] * 6, [1] * 70 + [0] * 30
    none = {"latency": 10.0, "faster": []}
    lines = [
        line(correct=bad),
        line(correct=bad, method="by-hand"),
        *(line(fold=f, seed=f, correct=fair, method="auto-pretrained", **none) for f in (0, 1)),
        *(line(fold=f, seed=f, correct=good, method="fine-tuned") for f in (0, 1)),
        line(correct=bad, method="probe"),
        line(minutes=2, correct=bad, method="auto-pretrained", seconds=130, **none),
        line(minutes=2, correct=good, method="fine-tuned"),
        line(data="flowers5", correct=good, method="fine-tuned"),
    ]
    text = table(lines, WANTED, PRETRAINED)
    assert "| trash6 | 1 of 2 | 70.0 | 70.0 | +0.0 |" in section(text, "Ten minutes")
    pretrained = section(text, "Pretrained")
    assert "| data | pairs | auto-pretrained, % | fine-tuned, % |" in pretrained
    (fine_tuned,) = [row for row in pretrained.splitlines() if row.startswith("| trash6 | 2 of 2 | 94.0 (0.0) | 95.0")]
    assert fine_tuned.endswith("| worse |")
    (probe,) = [row for row in pretrained.splitlines() if row.startswith("| trash6 | 1 of 2 | 94.0 | 70.0 | +24.0")]
    assert probe.endswith("| so far better |")
    curve = section(text, "A curve, pretrained")
    assert "trash6, folds 0." in curve
    assert "| 2 | 70.0 | 95.0 | -25.0 |" in curve
    assert "| 10 | 94.0 | 95.0 | -1.0 |" in curve
    assert "| trash6 | 10 | 93.6 - 1 | 95.0 | yes |" in section(text, "The fine-tuned network")
    assert "1 runs of auto took more than 5 % longer" in text
    assert "- fine-tuned: commit abc1234." in text


def network(latency, correct, count=100):
    return {"name": f"a network of {latency} ms", "latency": latency, "test": {"correct": correct, "count": count}}


def test_a_faster_network_is_the_slowest_that_is_fast_enough():
    measured = line(latency=10.0, faster=[network(5.2, 93), network(4.9, 92), network(2.7, 90)])
    assert auto_table.within(measured, 1 / 2)["latency"] == 5.2, "measurements differ by some per cent"
    assert auto_table.within(measured, 1 / 4) is None
    assert auto_table.within(line(latency=10.0, faster=[network(5.3, 93), network(2.0, 90)]), 1 / 2)["latency"] == 2.0


def test_the_table_of_faster_networks():
    def delivered(fold, *faster, minutes=10):
        more = {"latency": 10.0, "faster": list(faster)}
        return line(minutes=minutes, fold=fold, seed=fold, correct=[1] * 95 + [0] * 5, method="auto-pretrained", **more)

    lines = [
        delivered(0, network(5.0, 94), network(2.5, 91)),
        delivered(1, network(4.0, 95), network(2.1, 91)),
        delivered(0, network(4.0, 93), minutes=5),
        delivered(1, minutes=5),
    ]
    text = section(table(lines, WANTED, PRETRAINED), "Faster networks")
    half = "| 2 of 2 | 95.0 (0.0) | 94.5 (0.7) | -0.5 | 1 | yes | 10.00 (0.00) | 4.50 (0.71) | 0.45 | 0.50 |"
    assert f"| trash6 | 10 | at most 1/2 {half}" in text
    quarter = "| 2 of 2 | 95.0 (0.0) | 91.0 (0.0) | -4.0 | 3 | no | 10.00 (0.00) | 2.30 (0.28) | 0.23 | 0.25 |"
    assert f"| trash6 | 10 | at most 1/4 {quarter}" in text
    assert "| trash6 | 5 | at most 1/2 | 1 of 2 | 95.0 | 93.0 | -2.0 | 1 | no, where there is one |" in text
    assert "| trash6 | 5 | at most 1/4 | 0 of 2 |" in text


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    """Three packages made of the fonts that come with matplotlib, one of them without letters."""
    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    packages = {}
    for package, names in {
        "fonts-sans_1": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
        "fonts-serif_1": ("DejaVuSerif", "STIXGeneral"),
        "fonts-symbols_1": ("STIXSizOneSymReg",),
    }.items():
        packages[package] = tmp_path_factory.mktemp(package)
        for name in names:
            shutil.copy(source / f"{name}.ttf", packages[package])
    shutil.copy(source / "DejaVuSans.ttf", packages["fonts-sans_1"] / "again.ttf")
    (packages["fonts-serif_1"] / "broken.ttf").write_bytes(b"no font")
    return packages


def test_typefaces_with_letters_are_taken_once(fonts):
    names = [(face.package, face.name) for face in letters.typefaces(fonts)]
    assert names == [
        ("fonts-sans_1", "DejaVu Sans Bold"),
        ("fonts-sans_1", "DejaVu Sans Book"),
        ("fonts-sans_1", "DejaVu Sans Oblique"),
        ("fonts-serif_1", "DejaVu Serif Book"),
        ("fonts-serif_1", "STIXGeneral Regular"),
    ]


def test_letters_are_the_same_each_time_and_fonts_are_split(fonts, tmp_path):
    faces = letters.typefaces(fonts)
    names = letters.write(tmp_path / "one", faces, side=32)
    assert letters.write(tmp_path / "two", faces, side=32) == names
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 5 * 52
    assert {file.parts[1] for file in files} == set(string.ascii_lowercase)
    for file in files[::20]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert names["train"]
    assert names["test"]
    assert not names["train"].keys() & names["test"].keys()
    with Image.open(tmp_path / "one" / files[0]) as picture:
        assert (picture.mode, picture.size) == ("L", (32, 32))
        assert np.ptp(np.asarray(picture).astype(int)) > 50, "there is ink on it"


@pytest.mark.data
def test_each_picture_of_trash6_is_tested_in_one_fold(tmp_path, data_folder):
    tests, everything = [], set()
    for fold in range(auto_data.FOLDS):
        folder, facts = auto_data.materialise(auto_data.DATASETS["trash6"], fold, tmp_path)
        split = {s: {p.relative_to(folder / s) for p in (folder / s).rglob("*.jpg")} for s in ("train", "test")}
        assert {s: len(paths) for s, paths in split.items()} == facts["pictures"]
        assert not split["train"] & split["test"]
        tests += sorted(split["test"])
        everything |= split["train"] | split["test"]
    assert len(tests) == len(set(tests)) == len(everything) == 2527
    first = sorted(path.name for path in everything if path.parts[0] == "glass")[0]
    assert (tmp_path / "data" / "trash6-fold0" / "test" / "glass" / first).exists()


# --- the network made by hand, measured as the benchmark does ---------------------------------------------------------


def write_digits(folder, _fold, _scratch):
    data = load_digits()
    for position, (pixels, label) in enumerate(zip(data.images, data.target, strict=True)):
        target = folder / ("test" if position % 5 == 0 else "train") / str(label) / f"{position}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(target)
    return {"from": "scikit-learn"}


def test_the_network_made_by_hand_is_measured(tmp_path):
    digits = auto_data.Dataset("digits", write_digits, ("--no-mirror",))
    wanted = auto.Measurement("digits", "by-hand", 0.1, 0, 0)
    line = auto.measure(wanted, digits, tmp_path)
    assert "error" not in line, line
    assert latest([line]).keys() == {wanted.key}
    assert line["pictures"] == 360
    assert line["training_pictures"] == 1437
    assert unpack(line["correct"], 360).mean() == pytest.approx(line["test_accuracy"])
    assert line["settings"]["view"] == "shift"
    assert line["settings"]["mirror"] is False
    assert line["settings"]["sides"] == [8, 8, 8]
    assert 0 <= line["calibration_error"] <= 1
    assert not (tmp_path / "work").exists()
    json.dumps(line)


def test_the_network_made_by_hand_learns_digits(tmp_path, monkeypatch):
    """On a clock that goes on by a second whenever it is asked, so that the number of steps is the same everywhere."""
    import by_hand

    write_digits(tmp_path, 0, tmp_path)
    clock = itertools.count(by_hand.BEGAN)
    monkeypatch.setattr(by_hand, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(by_hand, "WIDTHS", (8,))
    result = by_hand.run(tmp_path, 160.0, mirror=False)
    assert result["settings"]["batch"] == 64
    assert 5 < result["epochs"] < 7
    assert result["test_accuracy"] > 0.9
    assert result["seconds"] <= 160


def test_the_order_of_answers_is_the_same_for_both_methods(tmp_path):
    import by_hand

    write_digits(tmp_path, 0, tmp_path)
    assert [file for file, _ in by_hand.listing(tmp_path / "test")] == auto.test_files(tmp_path / "test")


@pytest.mark.parametrize("view", ["crop", "shift", "affine"])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_the_shape_and_the_range(view, channels):
    import by_hand
    import torch

    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, channels, 28, 28), dtype=torch.uint8)
    seen = by_hand.VIEWS[view](images, 28, True)
    assert seen.shape == images.shape
    assert 0 <= seen.min() < seen.max() <= 1.0001
    assert not torch.equal(seen, images / 255)


def test_only_what_a_person_allows_is_mirrored():
    import by_hand
    import torch

    torch.manual_seed(0)
    images = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
    images[..., :8] = 255  # the left half is bright
    for view in by_hand.VIEWS.values():
        for mirror in (False, True):
            seen = view(images, 16, mirror)
            bright_right = (seen[..., 12:].mean((1, 2, 3)) > seen[..., :4].mean((1, 2, 3))).float().mean().item()
            assert (bright_right > 0.2) is mirror


def test_a_command_that_fails_or_does_not_end_is_a_line(tmp_path):
    with pytest.raises(auto.MeasurementFailed, match="status 3: oh no"):
        auto.command(["-c", "import sys; sys.stderr.write('oh no'); sys.exit(3)"], tmp_path, tmp_path, 20)
    with pytest.raises(auto.MeasurementFailed, match="did not end"):
        auto.command(["-c", "import time; time.sleep(60)"], tmp_path, tmp_path, 0.5)


# --- the network fine-tuned by hand -----------------------------------------------------------------------------------


def write_squares(folder, _fold=0, _scratch=None):
    """Pictures with a red, a green or a blue square."""
    rng = np.random.default_rng(0)
    for position in range(30):
        pixels = rng.integers(0, 100, (40, 48, 3), dtype=np.uint8)
        top, left = rng.integers(0, 20, 2)
        pixels[top : top + 20, left : left + 20, position % 3] += 120
        label = ("red", "green", "blue")[position % 3]
        target = folder / ("test" if position < 12 else "train") / label / f"{position:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target)
    return {}


def test_the_probe_is_measured(tmp_path):
    wanted = auto.Measurement("squares", "probe", 10.0, 0, 0)
    line = auto.measure(wanted, auto_data.Dataset("squares", write_squares, ("--no-mirror",)), tmp_path)
    assert "error" not in line, line
    assert latest([line]).keys() == {wanted.key}
    assert (line["training_pictures"], line["pictures"]) == (18, 12)
    assert line["settings"]["sides"] == [192, 192]
    assert line["settings"]["epochs"] == 0
    assert line["seconds"] < 300, "it needs no ten minutes"
    assert unpack(line["correct"], 12).mean() == pytest.approx(line["test_accuracy"])
    assert line["test_accuracy"] > 0.5
    json.dumps(line)


@pytest.mark.parametrize("head", ["probe", "random"])
def test_fine_tuning_by_hand_ends_in_time(tmp_path, monkeypatch, head):
    """On a clock that goes on by a second whenever it is asked."""
    import fine_tune_by_hand

    write_squares(tmp_path)
    clock = itertools.count(fine_tune_by_hand.BEGAN)
    monkeypatch.setattr(fine_tune_by_hand, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(fine_tune_by_hand, "HELD", 48)
    result = fine_tune_by_hand.run(tmp_path, 20.0, side=32, head=head)
    assert result["seconds"] <= 20
    assert 8 < result["epochs"] < 16
    assert result["settings"]["sides"] == [48, 32]
    assert result["settings"]["batch"] == 18
    assert ("C" in result["settings"]) is (head == "probe")
    assert len(result["correct"]) == len(result["confidence"]) == 12
    assert result["correct"].count("1") / 12 == pytest.approx(result["test_accuracy"])
    json.dumps(result)


def test_the_learning_rate_of_fine_tuning_rises_and_falls():
    import fine_tune_by_hand

    rates = [fine_tune_by_hand.learning_rate(k / 100) for k in range(101)]
    assert max(rates) == rates[10] == pytest.approx(5e-4, rel=1e-3)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] == rates[100] == pytest.approx(1e-7)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_last_layer_says_what_the_logistic_regression_says(classes):
    import fine_tune_by_hand
    import torch
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes
    features = (rng.normal(size=(60, 5)) + labels[:, None]).astype(np.float32)
    fitted = fine_tune_by_hand.logistic_regression(features, labels)
    assert fitted.strength in fine_tune_by_hand.STRENGTHS
    same = LogisticRegression(C=fitted.strength, max_iter=500).fit(features, labels)
    with torch.no_grad():
        said = fitted.layer(torch.from_numpy(features)).softmax(1).numpy()
    np.testing.assert_allclose(said, same.predict_proba(features), atol=1e-5)
