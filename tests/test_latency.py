"""Latency: how it is measured, where it is reported, and the reward that it goes into."""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import archsmith as smith
from archsmith._search.run import resolve
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import ChildFailed, DataError, UnknownName, UsageError
from archsmith.core.finish import FinishPlan
from archsmith.core.space import sample
from archsmith.core.trial import Result, TrialState
from archsmith.rewards import LatencyWeighted, latency_weighted
from archsmith.searchers import Random as RandomSearch
from archsmith.searchers import RegularizedEvolution
from archsmith.spaces import MobileBlocks, NASBench201
from archsmith.training import ImageClassification, Latency, Measured, Tabular, measure_latency
from archsmith.training import latency as module

SPACE = MobileBlocks(blocks=((6, 1, 2), (8, 1, 2)), stem=4, stem_stride=1, head=16, dropout=0.5, batch_norm_decay=0.9)
DIGITS = ImageClassification.desk("digits", epochs=1)


class Watched(torch.nn.Module):
    """Notes how it is called. A copy of it notes in the same list."""

    calls: ClassVar[list[tuple[int, bool, tuple[int, ...]]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append((torch.get_num_threads(), self.training, tuple(x.shape)))
        out: torch.Tensor = self.layer(x)
        return out


# --- the measurement --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_it_runs_in_evaluation_with_the_threads_that_are_stated(threads: int) -> None:
    Watched.calls.clear()
    model, before = Watched().train(), torch.get_num_threads()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = measure_latency(model, (3, 5, 4), threads=threads, batch=2, repeats=7, warmup=4)
    assert Watched.calls == [(threads, False, (2, 3, 5, 4))] * (1 + 4 + 7)  # one to see whether it takes the input
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert float(model.layer.running_mean.abs().sum()) == 0  # type: ignore[union-attr]
    assert 0 < found.low <= found.median <= found.high
    assert (found.threads, found.batch, found.repeats, found.input_shape) == (threads, 2, 7, (3, 5, 4))


def test_threads_are_put_back_when_it_fails() -> None:
    before = torch.get_num_threads()
    with pytest.raises(UsageError, match=r"Linear takes no input of shape \(1, 5\)"):
        measure_latency(torch.nn.Linear(4, 2), (5,), threads=before + 1)
    assert torch.get_num_threads() == before


def test_the_median_and_the_quartiles_are_of_the_timed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    took = [0.005, 0.001, 0.002, 0.1, 0.003]  # seconds; the warm-up is not timed
    ticks = itertools.chain.from_iterable((10 * k, 10 * k + t) for k, t in enumerate(took))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    found = measure_latency(torch.nn.Identity(), (3,), repeats=5, warmup=6)
    assert (found.low, found.median, found.high) == pytest.approx((2.0, 3.0, 5.0))
    assert str(found).startswith("3 ms (middle half of 5 runs 2 to 5; pytorch, 1 thread, cpu, batch 1)")
    assert json.loads(json.dumps(found.to_json()))["input_shape"] == [3]


def test_onnx_runtime_measures_the_same_network() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = smith.build(SPACE, sample(SPACE, Random(3)), input_shape=(1, 8, 8))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = measure_latency(model.train(), (1, 8, 8), engine="onnxruntime", repeats=3, warmup=1)
    assert found.engine == "onnxruntime"
    assert found.median > 0
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


@pytest.mark.cuda
def test_a_gpu_is_waited_for() -> None:
    model = torch.nn.Conv2d(3, 64, 7)
    found = measure_latency(model, (3, 224, 224), device="cuda", repeats=5, warmup=2)
    assert found.device == "cuda"
    assert found.median > 0
    assert not next(model.parameters()).is_cuda


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tflite"}, "no engine of a latency"),
        ({"threads": 0}, "threads of Latency must be a whole number of at least 1, got 0"),
        ({"batch": True}, "batch of Latency"),
        ({"repeats": 2}, "repeats of Latency must be a whole number of at least 3"),
        ({"warmup": -1}, "warmup of Latency"),
        ({"device": "phone"}, "device of Latency must be cpu or cuda, got 'phone'"),
        ({"engine": "onnxruntime", "device": "cuda"}, "engine onnxruntime measures on the cpu"),
        ({"input_shape": (3, 0)}, "input_shape must be positive whole numbers"),
        ({"input_shape": ()}, "input_shape must be positive whole numbers"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], message: str) -> None:
    options = dict(options)
    shape = options.pop("input_shape", (3,))
    with pytest.raises(UsageError, match=message):
        measure_latency(torch.nn.Identity(), shape, **options)


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="there is no GPU here"):
        measure_latency(torch.nn.Identity(), (3,), device="cuda")


def test_a_size_replaces_height_and_width() -> None:
    Watched.calls.clear()
    assert Latency(size=6, repeats=3).measure(Watched(), (3, 28, 28)).input_shape == (3, 6, 6)
    assert {shape for _, _, shape in Watched.calls} == {(1, 3, 6, 6)}
    with pytest.raises(UsageError, match="size of Latency"):
        Latency(size=0)


# --- children ---------------------------------------------------------------------------------------------------------


def one_trial(evaluator: Any, **options: Any) -> Any:
    run = smith.search(SPACE, evaluator, searcher=RandomSearch(), trials=1, store="memory://", seed=4, **options)
    return next(iter(run.trials()))


def test_a_child_is_measured_once_and_trained_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, tuple[int, ...]]] = []

    def counted(self: Latency, model: torch.nn.Module, shape: Any) -> Measured:
        measured.append((sum(int(torch.any(b)) for n, b in model.named_buffers() if "running_mean" in n), tuple(shape)))
        return original(self, model, shape)

    original = Latency.measure
    monkeypatch.setattr(Latency, "measure", counted)
    without = one_trial(DIGITS)
    trial = one_trial(replace(DIGITS, latency=Latency(repeats=3)), reward=latency_weighted(1.0))
    assert measured == [(0, (1, 8, 8))]  # before training: no running average has moved
    assert trial.state is TrialState.DONE
    metrics = trial.result.metrics
    assert 0 < metrics["latency_low"] <= metrics["latency"] <= metrics["latency_high"]
    assert {k: metrics[k] for k in ("accuracy", "loss", "train_loss")} == {
        k: without.result.metrics[k] for k in ("accuracy", "loss", "train_loss")
    }
    assert trial.reward == pytest.approx(metrics["accuracy"] * metrics["latency"] ** -0.07)
    assert "latency" not in without.result.metrics


def test_it_takes_a_latency_and_nothing_else() -> None:
    with pytest.raises(UsageError, match=r"latency must be a Latency\(...\) or None, got True"):
        ImageClassification("digits", latency=True)  # type: ignore[arg-type]


def test_a_configuration_with_a_latency_survives_json() -> None:
    evaluator = replace(DIGITS, latency=Latency(engine="onnxruntime", threads=2, size=24), optimizer="rmsprop")
    assert from_config(json.loads(json.dumps(to_config(evaluator))), resolve) == evaluator


def test_a_search_under_a_latency_is_finished_and_reported(tmp_path: Path) -> None:
    evaluator = replace(DIGITS, latency=Latency(repeats=3), precision="fp32", max_train=300)
    store = f"sqlite:///{tmp_path}/runs.db"
    reward = latency_weighted(0.5, alpha=0, beta=-1)
    run = smith.search(SPACE, evaluator, searcher=RandomSearch(), reward=reward, trials=2, store=store, name="m")
    run = smith.open_run(store, "m").resume(trials=3)
    assert run.config["reward"]["type"] == "rewards.LatencyWeighted"
    assert [t.state for t in run.trials()] == [TrialState.DONE] * 3
    finished = smith.finish("m", store=store, plan=FinishPlan(top=1, epochs=1, seeds=1))
    (said,) = [note for note in finished.notes if note.startswith("Latency, which the search judged too")]
    assert all(f"{network.name} " in said for network in finished.networks)
    assert [row["name"] for row in finished.to_json()["networks"]] == ["found", "residual network"]
    page = run.report(tmp_path / "m.html").read_text()
    assert "By latency" in page
    assert "the target of the reward, 0.5000 ms" in page
    assert "the accuracy times (latency / target)^w" in page


# --- the reward -------------------------------------------------------------------------------------------------------


def reward_of(reward: LatencyWeighted, accuracy: float, latency: float) -> float:
    return reward(Result({"accuracy": accuracy, "latency": latency}))


def test_the_reward_is_the_papers() -> None:
    soft, hard = latency_weighted(75), latency_weighted(75, alpha=0, beta=-1)
    assert reward_of(soft, 0.5, 75) == reward_of(hard, 0.5, 75) == 0.5
    assert reward_of(soft, 0.5, 150) == pytest.approx(0.47632, abs=5e-6)
    assert reward_of(hard, 0.5, 150) == 0.25
    assert reward_of(hard, 0.5, 10) == 0.5
    assert reward_of(soft, 0.5, 37.5) == pytest.approx(0.5 * 2**0.07)


@given(st.floats(0.01, 1), st.floats(0.01, 1000), st.floats(0.1, 500))
def test_twice_the_latency_is_worth_a_twentieth_of_the_accuracy(accuracy: float, latency: float, target: float) -> None:
    reward = latency_weighted(target)
    one, other = reward_of(reward, accuracy, latency), reward_of(reward, 1.05 * accuracy, 2 * latency)
    assert other == pytest.approx(one, rel=3e-4)


@given(st.floats(0, 1), st.floats(0.1, 500), st.floats(-3, 0), st.floats(-3, 0))
def test_it_is_continuous_at_the_target_and_falls_with_latency(
    accuracy: float, target: float, alpha: float, beta: float
) -> None:
    reward = latency_weighted(target, alpha=alpha, beta=beta)
    around = [reward_of(reward, accuracy, target * factor) for factor in (0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 2.0)]
    assert around[2] == pytest.approx(accuracy, rel=1e-12)
    assert around[1] == pytest.approx(around[3], rel=1e-7, abs=1e-12)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(around))


def test_other_metrics_may_be_read() -> None:
    reward = latency_weighted(10, accuracy="value", latency="hw/pixel3")
    assert reward(Result({"value": 0.5, "hw/pixel3": 10.0})) == 0.5


@pytest.mark.parametrize("latency", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_latency_has_no_reward(latency: float) -> None:
    with pytest.raises(ChildFailed, match="the metric 'latency' must be a finite number above 0"):
        reward_of(latency_weighted(1), 0.5, latency)


@pytest.mark.parametrize("accuracy", [-0.1, math.nan, math.inf])
def test_what_is_no_accuracy_has_no_reward(accuracy: float) -> None:
    with pytest.raises(ChildFailed, match="the metric 'accuracy' must be a finite number of at least 0"):
        reward_of(latency_weighted(1), accuracy, 1.0)


def test_a_result_without_latency_is_told() -> None:
    with pytest.raises(ChildFailed, match="the reward needs the metric 'latency', and the result has: accuracy"):
        latency_weighted(1)(Result({"accuracy": 0.5}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0}, "target of latency_weighted must be a finite number above 0, got 0"),
        ({"target": True}, "target of latency_weighted"),
        ({"target": math.nan}, "target of latency_weighted"),
        ({"target": 1, "w": 0.07}, "alpha of latency_weighted must be a finite number at most 0, got 0.07"),
        ({"target": 1, "beta": 1}, "beta of latency_weighted must be a finite number at most 0, got 1"),
        ({"target": 1, "latency": ""}, "latency of latency_weighted must be the name of a metric"),
    ],
)
def test_rewards_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        latency_weighted(**arguments)


def test_an_exponent_that_no_float_holds_gives_no_number() -> None:
    reward = latency_weighted(1e300, w=-50)
    assert reward_of(reward, 0.5, 1e-300) == math.inf  # which the executor tells as a failed trial


def test_the_reward_survives_json_and_is_called_by_its_name() -> None:
    reward = latency_weighted(75, alpha=0, beta=-1)
    config = json.loads(json.dumps(to_config(reward)))
    assert config["type"] == "rewards.LatencyWeighted"
    again = from_config(config, resolve)
    assert again == reward
    assert reward_of(again, 0.5, 150) == 0.25


# --- a device's table -------------------------------------------------------------------------------------------------


def table(tmp_path: Path) -> str:
    rows = [(op, 50 + k, 2.0 + k) for k, op in enumerate(("a", "b", "c"))]
    path = tmp_path / "table.csv"
    path.write_text("op,acc,ms\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return str(path)


def ops(choose: Any) -> Any:
    return {"op": choose("op", ("a", "b", "c"))}


@pytest.mark.parametrize("metrics", [{"ms": "latency"}, (("ms", "latency"),), [["ms", "latency"]]])
def test_a_column_of_a_table_may_be_called_latency(tmp_path: Path, metrics: Any) -> None:
    evaluator = Tabular(table(tmp_path), "acc", scale=0.01, metrics=metrics, called="accuracy")
    assert from_config(json.loads(json.dumps(to_config(evaluator))), resolve) == evaluator
    assert hash(evaluator) == hash(Tabular(table(tmp_path), "acc", 0.01, {"ms": "latency"}, called="accuracy"))
    run = smith.search(
        ops, evaluator, searcher=RandomSearch(), reward=latency_weighted(2, beta=-1), trials=12, store="memory://"
    )
    for trial in run.trials():
        assert trial.result is not None
        k = "abc".index(str(trial.genotype.answers["op"]))
        assert trial.result.metrics == {"value": 0.5 + k / 100, "accuracy": 0.5 + k / 100, "latency": 2.0 + k}
        assert trial.reward == pytest.approx((0.5 + k / 100) * 2 / (2 + k))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"ms": "value"}}, "names of their own"),
        ({"metrics": {"ms": "accuracy"}, "called": "accuracy"}, "names of their own"),
        ({"metrics": "ms"}, "must be a tuple of columns, got the text 'ms'"),
        ({"metrics": (("ms", "latency", "x"),)}, "columns, or pairs of a column and a name"),
        ({"metrics": {"ms": ""}}, "names of their own"),
    ],
)
def test_metrics_need_names(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tabular(table(tmp_path), "acc", **options)


def test_an_unknown_column_is_told(tmp_path: Path) -> None:
    evaluator = Tabular(table(tmp_path), "acc", metrics={"millis": "latency"})
    with pytest.raises(UnknownName, match=r"no column of table.csv is named 'millis'; did you mean 'ms'"):
        smith.search(ops, evaluator, searcher=RandomSearch(), trials=1, store="memory://")


def test_devices_of_nasbench201_are_known_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="pixel3"):
        Tabular.nasbench201(tmp_path / "nb201.npz", latency="pixel4")
    assert "called" in to_config(Tabular.nasbench201(tmp_path / "nb201.npz"))
    assert issubclass(DataError, UsageError)


@pytest.mark.data
@pytest.mark.parametrize("device", ["edgegpu", "raspi4", "edgetpu", "pixel3", "eyeriss", "fpga"])
def test_latencies_of_six_devices_are_looked_up(device: str) -> None:
    path = os.path.join(os.environ["ARCHSMITH_DATA"], "nb201.npz")
    plain, evaluator = Tabular.nasbench201(path), Tabular.nasbench201(path, latency=device)
    space = NASBench201()
    genotype = sample(space, Random(1))
    found = evaluator.evaluate(space, genotype, None)  # type: ignore[arg-type]
    row = evaluator.row_of(space, genotype)
    assert found.metrics["latency"] == evaluator.column_of(f"hw/cifar10/{device}_latency")[row]
    assert found.metrics["accuracy"] == found.metrics["value"] == plain.evaluate(space, genotype, None).metrics["value"]  # type: ignore[arg-type]


@pytest.mark.data
def test_the_reward_moves_the_search_to_faster_cells() -> None:
    path = os.path.join(os.environ["ARCHSMITH_DATA"], "nb201.npz")
    evaluator = Tabular.nasbench201(path, latency="pixel3")
    best = {}
    for name, reward in (("accuracy", None), ("latency", latency_weighted(5.0, alpha=0, beta=-1))):
        found = []
        for seed in range(5):
            run = smith.search(
                NASBench201(),
                evaluator,
                searcher=RegularizedEvolution(population=20, sample=5),
                reward=reward,
                trials=150,
                store="memory://",
                seed=seed,
            )
            assert run.best is not None
            assert run.best.result is not None
            found.append(run.best.result.metrics)
        best[name] = found
    assert all(metrics["latency"] <= 5.0 and metrics["accuracy"] > 0.85 for metrics in best["latency"])
    assert all(metrics["latency"] > 5.0 for metrics in best["accuracy"])


# --- told of any network ----------------------------------------------------------------------------------------------


def test_describe_measures_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    from archsmith.cli.main import main

    genotype = sample(SPACE, Random(0)).canonical
    assert main(["describe", genotype, "--latency", "--threads", "2"]) == 0
    assert "pytorch, 2 threads, cpu, batch 1)" in capsys.readouterr().out.splitlines()[-1]
    assert main(["describe", genotype, "--json"]) == 0
    assert "latency" not in json.loads(capsys.readouterr().out)
    assert main(["describe", genotype, "--latency", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["latency"]
    assert found["low"] <= found["median"] <= found["high"]
    assert found["input_shape"] == [3, 32, 32]


def test_describe_measures_no_text() -> None:
    with pytest.raises(UsageError, match="latency is measured of networks for images, and nas_cell reads text"):
        smith.describe("nas_cell", latency=Latency())
