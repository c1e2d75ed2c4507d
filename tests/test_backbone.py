"""Any torch module as the body of a classifier: the space, its record, and `auto`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import archsmith as smith
from archsmith._search.run import resolve
from archsmith.automl import StageStarted
from archsmith.automl.backbone import LOW_RATE, BackboneTuning
from archsmith.automl.fine_tuning import RATE
from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.plan import time_plan
from archsmith.automl.strategy import strategy_for, title_of
from archsmith.core.child import Child, Task, TextTask
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import UsageError
from archsmith.core.space import Space, build, decode, identity, sample
from archsmith.executors import ProcessPool
from archsmith.spaces import Backbone, Product, TrainingRecipe
from archsmith.testing import SpaceContract
from archsmith.training import ImageClassification
from test_fine_tuning import photographs

SIZE = 16


class Maps(nn.Module):
    """Maps of 12 channels, as a convolutional network gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8, eps=0.01)
        self.second = nn.Conv2d(8, 12, 3, 2, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.second(self.norm(self.first(pictures)).relu()).relu()


class Rows(nn.Module):
    """Features [n, 10] of patches, which are viewed as rows, and of a size that the pictures must have."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, 4)
        self.mixed = nn.Linear(4 * (SIZE // 4) ** 2, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patches(pictures)
        if patches.shape[2] != SIZE // 4:
            raise ValueError("the pictures have another size")
        return self.mixed(patches.view(len(patches), -1)).tanh()


def seeded(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind()


def backbone(kind: type[nn.Module] = Maps, seed: int = 0) -> Backbone:
    return Backbone(seeded(kind, seed), size=SIZE, name="tiny")


def child(space: Backbone, *, frozen: bool, classes: int = 4) -> Child:
    return build(space, space.known(frozen=frozen), Task((3, SIZE, SIZE), classes))


class TestContract(SpaceContract):
    uses_every_parameter = False  # a frozen body does not learn

    def space(self) -> Space:
        return backbone()

    def tasks(self) -> Sequence[Any]:
        return (Task((3, SIZE, SIZE), 10), Task((3, SIZE, SIZE), 2))

    def wrong_architectures(self) -> Sequence[Any]:
        known = backbone().known(frozen=True)
        return (
            {},
            known | {"of": "other"},
            known | {"size": 224},
            known | {"frozen": 1},
            known | {"depth": 3},
            {"kind": "backbone"},
        )


class TestContractOfRows(TestContract):
    def space(self) -> Space:
        return backbone(Rows)


# --- the network ------------------------------------------------------------------------------------------------------


def test_features_are_counted_by_a_blank_picture_and_the_module_stays() -> None:
    module = seeded(Maps).train()
    before = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    space = Backbone(module, size=SIZE)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert space.name == "Maps"
    assert child(space, frozen=False).model.classifier.in_features == 12  # type: ignore[union-attr]
    assert child(backbone(Rows), frozen=False).model.classifier.in_features == 10  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [Maps, Rows])
def test_the_network_whitens_averages_and_classifies(kind: type[nn.Module]) -> None:
    module = seeded(kind)
    space = Backbone(module, size=SIZE, mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.2, 0.1))
    model: Any = child(space, frozen=True).model.eval()
    pictures = torch.rand(5, 3, SIZE, SIZE)
    whitened = (pictures - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / torch.tensor([0.2, 0.2, 0.1]).view(
        1, 3, 1, 1
    )
    features = module.eval()(whitened)
    features = features.mean((2, 3)) if features.dim() == 4 else features
    assert torch.allclose(model(pictures), model.classifier(features), atol=1e-6)


def test_a_frozen_body_stays_as_it_is() -> None:
    model: Any = child(backbone(), frozen=True).model.train()
    before = copy.deepcopy(model.body.state_dict())
    model(torch.rand(4, 3, SIZE, SIZE)).sum().backward()
    assert not model.body.norm.training
    assert model.dropout.training
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert all(torch.equal(before[name], tensor) for name, tensor in model.body.state_dict().items())


def test_a_trained_body_learns_what_its_owner_lets_it() -> None:
    model: Any = child(backbone(), frozen=False).model.train()
    model(torch.rand(4, 3, SIZE, SIZE)).sum().backward()
    assert model.body.norm.training
    assert all(p.grad is not None for p in model.parameters())
    module = seeded(Maps)
    module.first.requires_grad_(False)  # type: ignore[union-attr]
    partly: Any = child(Backbone(module, size=SIZE), frozen=False).model
    assert not partly.body.first.weight.requires_grad
    assert partly.body.second.weight.requires_grad
    module.requires_grad_(False)  # as a person does who only wants features
    assert all(p.requires_grad for p in child(Backbone(module, size=SIZE), frozen=False).model.parameters())


def test_children_do_not_share_weights() -> None:
    space = backbone()
    one, other = (child(space, frozen=False).model for _ in range(2))
    with torch.no_grad():
        one.body.first.weight.zero_()  # type: ignore[union-attr]
    assert other.body.first.weight.any()  # type: ignore[union-attr]
    assert space.module.first.weight.any()  # type: ignore[union-attr]


def test_batch_norms_keep_their_epsilon_and_views_their_layout(tmp_path: Path) -> None:
    for kind in (Maps, Rows):
        space = backbone(kind)
        evaluator = replace(colours(side=20), epochs=1)
        run = smith.search(space, evaluator, trials=1, store=f"sqlite:///{tmp_path}/{kind.__name__}.db", name="r")
        assert run.summary.counts["done"] == 1
        network = smith.load(smith.export(run, tmp_path / kind.__name__), space=space).network
        assert [m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)] in ([0.01], [])


def test_half_precision_is_taken_in_single() -> None:
    module = seeded(Maps)
    space = Backbone(copy.deepcopy(module).half().float(), size=SIZE)
    assert Backbone(copy.deepcopy(module).half(), size=SIZE) == space
    assert all(p.dtype == torch.float32 for p in child(space, frozen=True).model.parameters())


# --- what is refused --------------------------------------------------------------------------------------------------


class Gives(nn.Module):
    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def forward(self, pictures: Tensor) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Maps, r"got the class Maps; write Maps\(\.\.\.\)"),
        (3, "must be a torch.nn.Module, got 3"),
        (None, "needs a module"),
        (Gives({"pooler_output": torch.zeros(1, 3)}), r"gives a dict, .* wrap it .*pooler_output"),
        (Gives((torch.zeros(1, 3),)), "gives a tuple"),
        (Gives(torch.zeros(1, 5, 3)), r"gives tokens \[1, 5, 3\], .*first token"),
        (Gives(torch.zeros(3)), r"gives a tensor \[3\] of float32"),
        (Gives(torch.zeros(2, 3)), r"\[2, 3\]"),
        (Gives(torch.zeros(1, 3, dtype=torch.int64)), "of int64"),
        (Gives(torch.zeros(1, 0)), r"\[1, 0\]"),
        (Gives(torch.zeros(3, requires_grad=True) * 2), "cannot be copied"),
        (nn.Linear(3, 4), r"takes no pictures \[n, 3, 16, 16\]: RuntimeError"),
    ],
)
def test_modules_that_give_no_features_are_refused(module: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Backbone(module, size=SIZE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 4}, "size of Backbone must be a whole number from 8 to 1024"),
        ({"size": "16"}, "size of Backbone"),
        ({"mean": (0.5,)}, "mean of Backbone must be three numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean of Backbone"),
        ({"deviation": (0.5, 0.5, 0)}, "three numbers above 0"),
        ({"name": "two\nlines"}, "name of Backbone"),
        ({"sha256": "0" * 64}, "are not those that were recorded"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Backbone(seeded(Maps), **{"size": SIZE, **settings})


def test_other_tasks_than_colour_pictures_are_refused() -> None:
    space = backbone()
    with pytest.raises(UsageError, match="channels=3"):
        space.build(space.known(frozen=True), Task((1, SIZE, SIZE), 3))
    with pytest.raises(UsageError, match="images"):
        space.build(space.known(frozen=True), TextTask(10, hidden=3))


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_record_has_the_weights_digest_and_no_module() -> None:
    space = backbone()
    record = to_config(space)
    assert set(record) == {"type", "size", "mean", "deviation", "name", "sha256"}
    assert record["type"] == "spaces.Backbone"
    again = from_config(record, resolve)
    assert again == space
    assert identity(again) == identity(space)
    assert again.module is None
    assert space.diagram(space.known(frozen=True)) == again.diagram(again.known(frozen=True))
    with pytest.raises(UsageError, match=r"no module; .* open_run\(STORE, NAME, space=Backbone\(MODULE, \.\.\.\)\)"):
        build(again, sample(space, Random(0)), Task((3, SIZE, SIZE), 2))
    assert identity(backbone(seed=1)) != identity(space)


def colours(count: int = 60, side: int = SIZE) -> ImageClassification:
    """Pictures of three colours."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pictures = rng.integers(0, 90, (count, side, side, 3), dtype=np.uint8)
    pictures[np.arange(count), :, :, labels] += 60
    return replace(ImageClassification.desk((pictures, labels), epochs=2), keep_weights=True)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search of a product in worker processes."""
    store = f"sqlite:///{tmp_path_factory.mktemp('searched')}/runs.db"
    space = Product(backbone(), TrainingRecipe(optimizers=("sgd",), policies=(None,), mixes=(None,)))
    evaluator = colours()
    run = smith.search(space, evaluator, trials=4, executor=ProcessPool(2), store=store, name="r")
    assert run.summary.counts["done"] == 4
    return store


def test_a_run_is_opened_with_the_module(searched: str, tmp_path: Path) -> None:
    bare = smith.open_run(searched, "r", evaluator=colours())
    bare.report(tmp_path / "page.html")
    run = smith.open_run(searched, "r", space=backbone(), evaluator=colours())
    with pytest.raises(UsageError, match="no module"):
        bare.build()
    assert isinstance(run.build().body, Maps)  # type: ignore[union-attr]
    assert run.resume(trials=5).summary.counts["done"] == 5


def test_another_module_is_refused(searched: str) -> None:
    with pytest.raises(UsageError, match="has other weights than that of the record"):
        smith.open_run(searched, "r", space=backbone(seed=1))
    with pytest.raises(UsageError, match="has the name 'tiny', and the one given has 'Maps'; give it with name='tiny'"):
        smith.open_run(searched, "r", space=Backbone(seeded(Maps), size=SIZE))
    with pytest.raises(UsageError, match="another space"):
        smith.open_run(searched, "r", space=smith.spaces.ConvChain())


def test_exports(searched: str, tmp_path: Path) -> None:
    evaluator = colours()
    run = smith.open_run(searched, "r", space=backbone(), evaluator=evaluator)
    folder = smith.export(run, tmp_path / "pytorch")
    with pytest.raises(UsageError, match=r"load\(FOLDER, space=Backbone"):
        smith.load(folder)
    with pytest.raises(UsageError, match="other weights"):
        smith.load(folder, space=backbone(seed=1))
    model = smith.load(folder, space=backbone())
    splits = evaluator.splits()
    pixels = torch.from_numpy(splits.data.images[splits.validation]).permute(0, 3, 1, 2).float() / 255
    logits = model.deployed()(pixels)
    assert run.best is not None
    assert run.best.result is not None
    right = (logits.argmax(1).numpy() == splits.data.labels[splits.validation]).mean()
    assert right == pytest.approx(run.best.result.metrics["final_accuracy"])
    smith.export(model, tmp_path / "source", format="source")
    onnx = smith.export(model, tmp_path / "onnx", format="onnx")
    assert (onnx / "model.onnx").exists()


class Counting(nn.Module):
    """Features with a first one that is learned, as many times as there are pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.first.expand(len(pictures), 1), pictures.mean((2, 3))], 1)


def test_a_module_whose_file_takes_one_number_of_pictures_has_no_onnx(tmp_path: Path) -> None:
    run = smith.search(backbone(Counting), colours(), trials=1, store=f"sqlite:///{tmp_path}/runs.db", name="r")
    with pytest.raises(UsageError, match=r"on a batch of 1: .* write x\.shape\[0\] for len\(x\)"):
        smith.export(run, tmp_path / "onnx", format="onnx")


# --- auto -------------------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    """A network that format source cannot follow, and that is of a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, 4, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.shape[2] % 8:
            raise ValueError("the side must be a multiple of 8")
        return self.body(pictures)


def branching(seed: int = 0) -> Backbone:
    return Backbone(seeded(Branching, seed), size=64, name="branching")


Done = tuple[Path, smith.automl.AutoResult, list[object]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    place = tmp_path_factory.mktemp("backbone")
    events: list[object] = []
    with pytest.MonkeyPatch.context() as patched:  # so that there is a search in so little time
        patched.setattr("archsmith.automl.plan.STARTING_SECONDS", 0.0)
        patched.setattr("archsmith.automl.plan.PROBING_SHARE", 0.2)
        result = smith.auto(
            photographs(place / "photographs", 40, side=64),
            time=40,
            pretrained=branching(),
            store=f"sqlite:///{place}/runs.db",
            output=place / "out",
            workers=2,
            watch=events.append,
        )
    return place, result, events


def test_auto_tunes_a_module(done: Done) -> None:
    _, result, events = done
    assert result.outcome.delivered.name.startswith("branching at 64 pixels")
    assert any("the backbone branching that was given" in note for note in result.outcome.notes)
    plans = [event.plan for event in events if isinstance(event, StageStarted)]
    assert plans
    assert all(plan.faster == 0 for plan in plans)
    assert all(isinstance(part, Backbone | TrainingRecipe) for part in result.run.space.parts)  # type: ignore[attr-defined]
    trials = list(result.run.trials())  # one alone, where the machine is too slow for a search in so little time
    assert {decode(result.run.space, trial.genotype)["parts"]["Backbone"]["of"] for trial in trials} == {"branching"}


def test_a_network_without_source_is_delivered_all_the_same(done: Done) -> None:
    place, result, _ = done
    assert result.source is None
    assert not (place / "out" / f"{result.run.name}-source").exists()
    assert result.page is not None
    assert "There is no source file of the network" in result.page.read_text()
    assert result.to_json()["source"] is None


def test_what_auto_delivers_predicts_what_was_tested(done: Done) -> None:
    place, result, _ = done
    assert result.model is not None
    assert result.outcome.delivered.test is not None
    held_out = [place / "photographs" / name for name in result.run.evaluator.splits().test_files]  # type: ignore[attr-defined]
    answers = smith.predict(result.model, held_out, space=branching())
    assert sum(p.label == Path(p.path).parent.name for p in answers) == result.outcome.delivered.test.correct  # type: ignore[union-attr]


def test_a_second_call_takes_the_module_again(done: Done) -> None:
    place, result, _ = done

    def again(**settings: Any) -> smith.automl.AutoResult:
        store = f"sqlite:///{place}/runs.db"
        return smith.auto(
            place / "photographs", time=40, store=store, name=result.run.name, output=None, workers=2, **settings
        )

    with pytest.raises(UsageError, match=r"begun with the backbone 'branching'.*auto\(\.\.\., pretrained=Backbone"):
        again()
    with pytest.raises(UsageError, match="has other weights"):
        again(pretrained=branching(1))
    same = again(pretrained=branching())
    assert same.earlier
    assert same.outcome == result.outcome


def test_the_strategy(tmp_path: Path) -> None:
    grey = ImageClassification(photographs(tmp_path / "grey", 6, mode="L"))
    strategy = strategy_for(grey, None, branching(), None)
    assert isinstance(strategy, BackboneTuning)
    assert strategy.pictures.channels == 3
    assert strategy.trainer(grey).task() == Task((3, 64, 64), 3)
    assert strategy.within(LatencyTarget(1e-6), strategy.trainer(grey)) is strategy
    titles = [[title_of(point) for point in around] for around in strategy.points()]
    assert titles == [
        ["branching at 64 pixels", "branching at 64 pixels, frozen"],
        ["branching at 64 pixels, frozen", "branching at 64 pixels"],
    ]
    for point in strategy.points()[0]:
        assert decode(strategy.space, strategy.space.genotype(point)) == point
    with pytest.raises(UsageError, match="size is decided by the backbone"):
        strategy_for(grey, 96, branching(), None)


class Undecided(nn.Module):
    """What it computes depends on the values of the pictures, so that it has no ONNX."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3)) if pictures.mean() > 0 else pictures.amax((2, 3))


def test_a_latency_that_cannot_be_measured_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    data = ImageClassification(photographs(tmp_path / "colour", 6))
    strategy = strategy_for(data, None, Backbone(Undecided(), size=64, name="undecided"), None)
    trainer = strategy.trainer(data)
    assert strategy.within(LatencyTarget(5.0), trainer) is strategy
    with pytest.raises(UsageError, match=r'measured with onnxruntime, .*; give runtime="pytorch"'):
        strategy.within(LatencyTarget(5.0, "onnxruntime"), trainer)


def test_networks_without_batch_norms_are_tuned_at_a_low_rate(tmp_path: Path) -> None:
    pictures = strategy_for(ImageClassification(photographs(tmp_path / "colour", 6)), None, branching(), None).pictures
    for kind, rate in ((Maps, RATE), (Rows, LOW_RATE)):
        trained, frozen = BackboneTuning(pictures, backbone(kind)).points()[0]
        assert trained["parts"]["TrainingRecipe"]["optimizer"]["learning_rate"] == rate
        assert frozen["parts"]["TrainingRecipe"]["optimizer"]["learning_rate"] == RATE


def test_the_time_of_faster_networks_goes_to_the_delivered_one() -> None:
    common: dict[str, Any] = {"probes": (2.0, 3.0), "spent": 5.0, "workers": 2, "one_pass": 2.0}
    with_them, without = time_plan(600, **common), time_plan(600, **common, faster=False)
    assert with_them.faster > 0
    assert without.faster == 0
    assert without.final == pytest.approx(with_them.final + with_them.faster)
