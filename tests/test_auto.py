"""The whole job on pictures within a time budget."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

import archsmith as smith
from archsmith.automl import DataRead, StageStarted
from archsmith.automl.from_scratch import FromScratch
from archsmith.automl.interruption import Interruption
from archsmith.automl.pictures import Pictures, pictures_of
from archsmith.automl.speed import fast_enough
from archsmith.automl.strategy import title_of
from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import build, decode, sample
from archsmith.metrics.outcome import DOCUMENT, AutoOutcome
from archsmith.nn.count import count
from archsmith.recipes.residual import batch_size, known_points, networks, search_space
from archsmith.training.picture_sides import sides, size_of


def shapes(folder: Path, count: int = 40, side: int = 24, *, noise: float = 0.0, mode: str = "RGB") -> Path:
    """Photographs of sorts: circles, crosses and stripes in any colours, under noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    for name in ("circle", "cross", "stripes"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            u, v = x - rng.uniform(-0.3, 0.3), y - rng.uniform(-0.3, 0.3)
            shape = {
                "circle": u**2 + v**2 < 0.3,
                "cross": np.minimum(abs(u), abs(v)) < 0.15,
                "stripes": np.sin(9 * (u + v)) > 0,
            }[name]
            pixels = np.where(shape[..., None], rng.integers(150, 235, 3), rng.integers(20, 90, 3)).astype(float)
            pixels += rng.normal(0, noise, pixels.shape) if noise else 0
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)
            picture.save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, smith.automl.AutoResult, list[object]]:
    place = tmp_path_factory.mktemp("auto")
    events: list[object] = []
    result = smith.auto(
        shapes(place / "shapes"),
        time=40,
        store=f"sqlite:///{place}/runs.db",
        output=place / "out",
        workers=2,
        watch=events.append,
    )
    return place, result, events


def test_it_writes_a_model_that_predicts_what_was_tested(
    done: tuple[Path, smith.automl.AutoResult, list[object]],
) -> None:
    place, result, _ = done
    delivered = result.outcome.delivered
    assert delivered.test is not None
    assert delivered.test.count == 24
    assert result.model is not None
    data = place / "shapes"
    held_out = [data / name for name in result.run.evaluator.splits().test_files]  # type: ignore[attr-defined]
    predictions = smith.predict(result.model, held_out)
    assert len(held_out) == 24
    assert sum(p.label == Path(p.path).parent.name for p in predictions) == delivered.test.correct
    assert result.source is not None
    assert (result.source / "model.py").exists()
    assert result.page is not None
    assert "validation" in result.page.read_text()


def test_it_tells_its_plan_and_keeps_to_its_stages(done: tuple[Path, smith.automl.AutoResult, list[object]]) -> None:
    _, result, events = done
    stages = [event.name for event in events if isinstance(event, StageStarted)]
    assert stages[0] == "search"
    assert stages[-3:] == ["baseline", "final", "closing"]
    (read,) = (event for event in events if isinstance(event, DataRead))
    assert read.pictures.size == 24
    outcome = result.outcome
    assert [stage.name for stage in outcome.stages] == ["reading", "search", "choosing", "baseline", "final", "closing"]
    assert outcome.time_budget == 40
    assert outcome.children == len(list(result.run.trials()))
    assert {n.name for n in result.finished.networks} == {"found", "baseline"}
    assert result.finished.looks == 1
    assert AutoOutcome.from_json(result.run.reader.document(DOCUMENT)) == outcome


def test_a_second_call_trains_and_tests_nothing(done: tuple[Path, smith.automl.AutoResult, list[object]]) -> None:
    place, result, _ = done
    store = f"sqlite:///{place}/runs.db"
    again = smith.auto(place / "shapes", time=40, store=store, name=result.run.name, output=None)
    assert again.outcome == result.outcome
    assert again.finished.looks == 1
    assert again.earlier
    with pytest.raises(UsageError, match="has changed"):
        smith.auto(shapes(place / "others", 30), time=40, store=store, name=result.run.name, output=None)


def test_grey_pictures_of_two_classes_with_random_search_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsmith.automl.plan.LEAST_TRIALS", 2)
    monkeypatch.setattr(
        "archsmith.automl.speed.training_speed", lambda *given: 1e5
    )  # on a slow machine no child would fit
    data = shapes(tmp_path / "shapes", count=60)
    shutil.rmtree(data / "stripes")
    for file in data.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    store, events = f"sqlite:///{tmp_path}/runs.db", []
    result = smith.auto(
        data,
        time=75,
        control=True,
        baseline_time=5,
        store=store,
        name="grey",
        output=None,
        workers=2,
        watch=events.append,
    )
    (pictures,) = (event.pictures for event in events if isinstance(event, DataRead))
    assert (pictures.channels, pictures.classes, pictures.mirrored) == (1, 2, False)
    stages = [event.name for event in events if isinstance(event, StageStarted)]
    assert stages == ["search", "control", "choosing", "baseline", "final", "closing"]
    random = smith.open_run(store, "grey-random")
    assert len(list(random.trials())) == len(list(result.run.trials()))
    assert result.outcome.delivered.test is not None


def test_few_pictures_are_compared_by_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archsmith.automl.plan.LEAST_TRIALS", 2)
    data = shapes(tmp_path / "shapes", count=14)
    events: list[object] = []
    result = smith.auto(
        data, time=75, baseline_time=5, store=f"sqlite:///{tmp_path}/runs.db", name="few", output=None, workers=2,
        watch=events.append,
    )  # fmt: skip
    (pictures,) = (event.pictures for event in events if isinstance(event, DataRead))
    assert pictures.folds is not None
    assert "choosing" not in [event.name for event in events if isinstance(event, StageStarted)]
    assert any("compared by" in note for note in result.outcome.notes)


class Killed(Exception):
    """What ends a call in the middle."""


def test_a_call_that_ended_after_its_trainings_repeats_none_and_tests_once(tmp_path: Path) -> None:
    store, data = f"sqlite:///{tmp_path}/runs.db", shapes(tmp_path / "shapes")

    def end(event: object) -> None:
        if isinstance(event, StageStarted) and event.name == "closing":
            raise Killed

    with pytest.raises(Killed):
        smith.auto(data, time=20, store=store, name="run", output=None, workers=1, watch=end)
    run = smith.open_run(store, "run")
    trained = sorted(run.reader.documents())
    assert sum(name.startswith("finish/") for name in trained) >= 2
    assert run.reader.document(DOCUMENT) is None
    result = smith.auto(data, time=60, store=store, name="run", output=None, workers=1)
    assert [name for name in sorted(run.reader.documents()) if name.startswith("finish/")] == [
        name for name in trained if name.startswith("finish/")
    ]
    assert result.finished.looks == 1
    with pytest.raises(UsageError, match="was not begun by `auto`"):
        other = smith.search(result.run.space, lambda architecture: 1.0, trials=1, store=store, name="other")
        smith.auto(data, time=20, store=store, name=other.name, output=None)


def test_places_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="no earlier export"):
        smith.auto(
            tmp_path / "no-data", time=20, store=f"sqlite:///{tmp_path}/r.db", name="run", output=tmp_path / "out"
        )
    with pytest.raises(UsageError, match="artifact"):
        smith.auto(tmp_path / "no-data", time=20, store="memory://", output=None)


def test_the_first_interruption_wraps_up_with_a_model(tmp_path: Path) -> None:
    shapes(tmp_path / "shapes")
    began = subprocess.Popen(
        [sys.executable, "-m", "archsmith", "auto", "shapes", "--time", "30m", "--name", "cut", "--workers", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert began.stderr is not None
    for line in began.stderr:
        if line.startswith("trial 0"):
            began.send_signal(signal.SIGINT)
            break
    told, errors = began.communicate()
    assert began.returncode == 0, errors
    assert "wrapping up" in errors
    assert "model   out/cut" in told
    assert (tmp_path / "out" / "cut" / "model.safetensors").exists()
    run = smith.open_run(f"sqlite:///{tmp_path}/runs.db", "cut")
    outcome = AutoOutcome.from_json(run.reader.document(DOCUMENT))
    assert "interrupted" in " ".join(outcome.notes)
    assert outcome.delivered.training == "continued from trial 0"


# --- pieces -----------------------------------------------------------------------------------------------------------


def pictures(own: int, detail: int, train: int = 2000, channels: int = 3) -> Pictures:
    source, size, training, first = sides(own, detail)
    return Pictures(train, train // 9, train // 4, 5, channels, own, detail, source, size, training, first)


@pytest.mark.parametrize(
    ("own", "detail", "expected"),
    [
        (256, 216, (128, 80, 64, 32)), (128, 32, (32, 32, 32, 32)), (32, 30, (32, 32, 32, 32)), (8, 8, (8, 8, 8, 8)),
        (64, 60, (64, 64, 48, 24)), (4000, 512, (128, 80, 64, 32)),
    ],
)  # fmt: skip
def test_sizes_follow_from_the_pictures(own: int, detail: int, expected: tuple[int, ...]) -> None:
    assert sides(own, detail) == expected


def test_whole_pictures_are_learned_from_in_the_size_of_the_input() -> None:
    assert sides(64, 60, cropped=False) == (64, 64, 64, 32)
    assert sides(256, 216, cropped=False) == (128, 80, 80, 40)


def test_a_size_that_was_asked_for_is_taken() -> None:
    assert sides(256, 216, 160) == (256, 160, 128, 64)
    assert sides(256, 216, 32) == (32, 32, 32, 32)
    assert sides(16, 16, 64)[:2] == (64, 64)


@pytest.mark.parametrize(
    "facts", [pictures(256, 200), pictures(32, 30), pictures(8, 8, 100), pictures(64, 64, 20_000, 1)]
)
def test_known_points_lie_in_the_space_and_can_be_built(facts: Pictures) -> None:
    space = search_space(facts.kind)
    task = Task((facts.channels, facts.size, facts.size), facts.classes)
    for size in range(len(networks(facts.kind))):
        points = [space.genotype(point) for point in known_points(facts.kind, size)]
        assert len({point.key for point in points}) == len(points) >= 5
        for genotype in (*points, sample(space, Random(0))):
            assert isinstance(genotype, Genotype)
            child = build(space, genotype, task)
            assert child.settings["batch_size"] == batch_size(facts.kind)


@pytest.mark.parametrize("facts", [pictures(256, 200), pictures(32, 30)])
def test_known_networks_come_from_the_largest_to_the_smallest(facts: Pictures) -> None:
    child = (
        search_space(facts.kind).build(point, Task((3, facts.size, facts.size)))
        for size in range(4)
        for point in known_points(facts.kind, size)[:1]
    )
    work = [count(each.model, (3, facts.size, facts.size)).multiply_adds for each in child]
    assert work == sorted(work, reverse=True)
    assert work[0] > 4 * work[-1]


def test_the_baseline_is_the_largest_known_network_that_is_fast_enough() -> None:
    digits = smith.training.ImageClassification("digits")
    strategy = FromScratch(pictures_of(digits, size_of(digits), None))
    trainer, space = strategy.trainer(digits), strategy.space
    largest, speed = fast_enough(trainer, strategy, 1, needed=0)
    assert speed > 0
    assert title_of(decode(space, largest[0])) == "a ResNet-10 of width 32"
    smallest, _ = fast_enough(trainer, strategy, 1, needed=math.inf)
    assert title_of(decode(space, smallest[0])) == "a ResNet-10 of width 16"
    assert smallest[0] not in largest


def test_networks_have_titles() -> None:
    facts = pictures(256, 200)
    titles = [title_of(point) for point in known_points(facts.kind)]
    assert titles[0] == "a ResNet-18 of width 40"
    assert "a ResNet-18 of width 40 with squeeze-and-excitation" in titles
    assert "a ResNet-10 of width 32" in titles


def test_the_first_interruption_is_gentle_where_the_body_says_so() -> None:
    called = []
    with Interruption() as interruption, interruption.gently():
        with interruption.gently(lambda: called.append(1)):
            signal.raise_signal(signal.SIGINT)
        assert called == [1]
        assert interruption.wrapping_up
        assert interruption.is_first()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not interruption.is_first()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_gentle_way_the_first_interruption_raises() -> None:
    with Interruption() as interruption, interruption.gently(), interruption.abruptly():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interruption.is_first()
        assert interruption.wrapping_up
