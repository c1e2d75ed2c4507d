"""Finishing: what is chosen by what, what is on record, and what may be claimed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import archsmith as smith
from archsmith._export.card import readme
from archsmith._export.from_run import model_of
from archsmith._finish import FinishPlan
from archsmith._finish.result import Finished
from archsmith._finish.time import within
from archsmith._search.trainings import TrainingProgress
from archsmith.cli.main import main
from archsmith.core import temperatures
from archsmith.core.child import Child, Task, TextTask
from archsmith.core.comparison import compare, t_quantile
from archsmith.core.errors import AllTrialsFailed, ChildFailed, Diverged, RunLocked, UsageError
from archsmith.core.evaluator import Context
from archsmith.core.executor import Event, Job
from archsmith.core.finish import (
    ACCURACY,
    BITS_PER_CHARACTER,
    BLEU,
    PERPLEXITY,
    Finishable,
    Measure,
    in_todays_words,
)
from archsmith.core.genotype import Genotype
from archsmith.core.global_state import GeneratorStates
from archsmith.core.space import Space, build
from archsmith.core.trial import Cost, Result
from archsmith.core.walk import Choose
from archsmith.executors import InProcess
from archsmith.metrics.fitted_temperature import fitted_temperature
from archsmith.rewards import accuracy, scaled_perplexity
from archsmith.searchers import Reinforce
from archsmith.training import ImageClassification, LanguageModel


class Mix(nn.Module):
    """A layer, batch norm and a classifier for points of four coordinates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.out = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.norm(self.hidden(x))))


@dataclass(frozen=True)
class Widths:
    """How wide the layer is."""

    widths: tuple[int, ...] = tuple(range(1, 41))

    def architecture(self, choose: Choose) -> Any:
        return {"width": choose("width", self.widths)}

    def build(self, architecture: Any, task: Task) -> nn.Module:
        return Mix(architecture["width"])


def points(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy points whose class is the largest of three products: real, small, and never perfectly learned."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=draws)
    scores = torch.stack([x[:, 0] * x[:, 1], x[:, 2], -x[:, 3] * x[:, 0]], 1)
    return x, (scores + 0.5 * torch.randn(count, 3, generator=draws)).argmax(1)


@dataclass(frozen=True)
class Points:
    """Trains on points: an evaluator that can be finished, in milliseconds."""

    epochs: int = 2
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    batch_norm_epsilon: float = 1e-5
    worst_learning_rate: float = 1e9

    default_reward = staticmethod(accuracy)

    def task(self) -> Task:
        return Task((4, 1, 1), 3)

    def baseline(self, parameters: int, task: Task) -> nn.Module:
        return Mix(max(1, round((parameters - 3) / 10)))

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        return self.train(Child(build(space, genotype, self.task()).model), context)

    def train(self, child: Child, context: Context, *, all_data: bool = False) -> Result:
        rate = child.learning_rate or self.learning_rate
        if rate >= self.worst_learning_rate:
            raise Diverged(f"the loss became nan at {rate}")
        x, y = points(0, 240 if all_data else 200)
        valid_x, valid_y = points(1, 100)
        for module in child.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eps = self.batch_norm_epsilon
        optimizer = torch.optim.SGD(child.model.parameters(), rate, weight_decay=self.weight_decay)
        draws = torch.Generator().manual_seed(context.seed)
        curve = []
        for epoch in range(1, self.epochs + 1):
            child.model.train()
            for part in torch.randperm(len(x), generator=draws).split(50):
                optimizer.zero_grad()
                F.cross_entropy(child.model(x[part]), y[part]).backward()
                optimizer.step()
            child.model.eval()
            row = {"epoch": float(epoch)}
            if not all_data:
                row["accuracy"] = (child.model(valid_x).argmax(1) == valid_y).float().mean().item()
            curve.append(row)
            context.report(epoch, row)
        metrics = {} if all_data else {"accuracy": max(row["accuracy"] for row in curve)}
        return Result(metrics, curve, Cost(0.01 * self.epochs, self.epochs))

    def test(self, model: nn.Module, device: str = "cpu") -> dict[str, float]:
        x, y = points(2, 400)
        with torch.inference_mode():
            logits = model(x)
        right = (logits.argmax(1) == y).float().mean().item()
        return {"accuracy": right, "loss": F.cross_entropy(logits, y).item(), "count": 400.0}


PLAN = FinishPlan(top=2, scale={"learning_rate": (0.5, 2.0)}, grid={"batch_norm_epsilon": (1e-2,)}, epochs=4)
TRAININGS = 2 * (2 + 3) + 4 + 3 * 3  # choose and tune of two (one shared), tune of the hand-designed one, finals


def searched(store: str, *, name: str = "run", evaluator: Any = None, trials: int = 8) -> smith.Run:
    return smith.search(
        Widths(), evaluator or Points(), searcher=Reinforce(), trials=trials, store=store, name=name, seed=3
    )


def randomly(store: str, *, name: str = "run-random", trials: int = 8, seed: int = 4) -> smith.Run:
    return smith.search(Widths(), Points(), trials=trials, store=store, name=name, seed=seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a search and its control; copied by each test that writes."""
    path = tmp_path_factory.mktemp("store") / "runs.db"
    searched(str(path))
    randomly(str(path))
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> smith.Run:
    return fresh(made, tmp_path)


def fresh(made: Path, folder: Path, name: str = "runs.db") -> smith.Run:
    import sqlite3

    with sqlite3.connect(made) as source, sqlite3.connect(folder / name) as target:
        source.backup(target)
    space, evaluator = Widths(), Points()
    opened = smith.open_run(str(folder / name), "run")
    return smith.Run(opened.store, "run", space=space, evaluator=evaluator)


class Counting(InProcess):
    """Counts the jobs it trained, and is killed by Ctrl-C after so many."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        super().__init__(device="cpu")
        self.jobs: list[Job] = []
        self._done = 0
        self._interrupt_after = interrupt_after

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        super().submit(job)

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        if self._done == self._interrupt_after:
            raise KeyboardInterrupt
        events = super().completed(timeout)
        self._done += sum(type(event).__name__ == "Completed" for event in events)
        return events


def comparable(finished: Finished) -> Any:
    """Without what a clock says."""
    plain = json.loads(json.dumps(finished.to_json()))
    plain.pop("at")
    return plain


# --- what is trained and chosen ---------------------------------------------------------------------------------------


def test_everything_is_trained_as_the_plan_says(run: smith.Run) -> None:
    executor, told = Counting(), list[TrainingProgress]()
    finished = smith.finish(run, plan=PLAN, executor=executor, watch=told.append)
    assert isinstance(run.evaluator, Finishable)
    assert len(executor.jobs) == TRAININGS
    assert [n.name for n in finished.networks] == ["found", "hand-designed network", "random search"]
    for network in finished.networks:
        assert [f.index for f in network.finals] == [0, 1, 2]
        assert [f.seed for f in network.finals] == [f.seed for f in finished.found.finals], "compared seed by seed"
        assert all(f.cost.epochs == 4 and f.score is not None for f in network.finals)
        values = list(network.scores.values())
        assert network.mean == fmean(values)
        assert network.deviation == stdev(values)
    assert abs(finished.networks[1].parameters - finished.found.parameters) <= 10
    assert finished.test_count == 400
    assert finished.looks == 1
    assert not finished.notes
    assert [t.stage for t in told if t.epoch == 0][-1] == "testing"
    assert {t.stage for t in told} == {"choosing", "tuning", "final training", "testing"}
    rows = finished.table()
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 4


def test_the_settings_of_a_network_are_those_with_the_best_validation_reward(run: smith.Run) -> None:
    finished = smith.finish(run, plan=PLAN)
    documents = [run.reader.document(k) for k in run.reader.documents() if k.startswith("finish/")]
    for network in finished.networks:
        if network.genotype is not None:
            mine = [d for d in documents if d["genotype"] == network.genotype and d["epochs"] == 2]
            assert max(mine, key=lambda d: d["reward"])["reward"] == next(
                d["reward"] for d in mine if d["settings"] == network.settings
            )


def test_nothing_is_tested_before_everything_is_chosen_and_the_test_chooses_nothing(
    run: smith.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    train, test = Points.train, Points.test

    def watched_train(self: Points, child: Child, context: Context, *, all_data: bool = False) -> Result:
        order.append("train")
        return train(self, child, context, all_data=all_data)

    calls = iter(range(100))

    def perverse_test(self: Points, model: nn.Module, device: str = "cpu") -> dict[str, float]:
        order.append("test")
        return {**test(self, model, device), "accuracy": next(calls) / 100}  # the later the seed, the better

    monkeypatch.setattr(Points, "train", watched_train)
    monkeypatch.setattr(Points, "test", perverse_test)
    finished = smith.finish(run, plan=PLAN)
    assert order == ["train"] * TRAININGS + ["test"] * 9
    best = max(finished.found.finals, key=lambda f: f.validation or 0)
    assert finished.model.index == best.index
    assert finished.model.artifact == best.artifact


def test_the_weights_that_are_tested_are_those_that_were_trained(run: smith.Run) -> None:
    plan = replace(PLAN, scale={}, grid={"batch_norm_epsilon": (0.5,)})
    finished = smith.finish(run, plan=plan)
    for network in finished.networks:
        evaluator = replace(Points(), epochs=4, **network.settings)
        if network.genotype is None:
            continue
        for final in network.finals:
            model = build(run.space, Genotype.from_json(network.genotype), evaluator.task()).model
            from archsmith.core.artifacts import ArtifactFolder

            model.load_state_dict(ArtifactFolder(run.store.artifacts or "").get(final.artifact or ""))
            model.norm.eps = evaluator.batch_norm_epsilon  # type: ignore[union-attr]
            assert evaluator.test(model.eval())["accuracy"] == final.score


def test_with_all_data_nothing_is_left_to_choose_by_and_the_first_seed_is_taken(run: smith.Run) -> None:
    finished = smith.finish(run, plan=replace(PLAN, all_data=True))
    assert finished.model.index == 0
    assert "first seed" in finished.model.why
    assert all(f.validation is None and f.score is not None for f in finished.found.finals)


# --- the record -------------------------------------------------------------------------------------------------------


def test_a_second_finish_gives_the_stored_result_and_trains_nothing(run: smith.Run) -> None:
    first = smith.finish(run, plan=PLAN)
    executor = Counting()
    assert smith.finish(run, executor=executor) == first
    assert smith.finish(run, plan=PLAN, executor=executor) == first
    assert not executor.jobs
    assert len(run.reader.document("finish-looks")) == 1
    assert Finished.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_another_look_must_be_asked_for_is_counted_and_is_said(run: smith.Run) -> None:
    first = smith.finish(run, plan=PLAN)
    with pytest.raises(UsageError, match=r"by another plan.*again=True"):
        smith.finish(run, plan=PLAN, seeds=2)
    executor = Counting()
    second = smith.finish(run, plan=PLAN, seeds=4, again=True, executor=executor)
    assert len(executor.jobs) == 3, "only the fourth seed of each is new"
    assert (first.looks, second.looks) == (1, 2)
    assert "looked at 2 times" in second.claim
    assert [look["done"] for look in run.reader.document("finish-looks")] == [True, True]


def test_what_was_found_since_asks_for_another_look_too(run: smith.Run) -> None:
    smith.finish(run, plan=PLAN)
    randomly(run.store.url, name="other", seed=9)
    with pytest.raises(UsageError, match="from other candidates"):
        smith.finish(run, control="other")


@pytest.mark.parametrize("cut", [0, 1, 3, 8, 14, 20, TRAININGS - 1])
def test_a_finish_that_was_interrupted_goes_on_and_equals_one_that_was_not(
    made: Path, tmp_path: Path, whole: Any, cut: int
) -> None:
    run = fresh(made, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        smith.finish(run, plan=PLAN, executor=Counting(cut))
    assert run.reader.document("finish-looks") is None
    assert run.summary.status == "finished", "the search's own status stays"
    rest = Counting()
    finished = smith.finish(run, plan=PLAN, executor=rest)
    assert len(rest.jobs) == TRAININGS - cut
    assert comparable(finished) == whole


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return comparable(smith.finish(fresh(made, tmp_path_factory.mktemp("whole")), plan=PLAN))


def test_a_kill_while_it_tests_is_one_look(run: smith.Run, monkeypatch: pytest.MonkeyPatch, whole: Any) -> None:
    test, calls = Points.test, []

    def killed(self: Points, model: nn.Module, device: str = "cpu") -> dict[str, float]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return test(self, model, device)

    monkeypatch.setattr(Points, "test", killed)
    states = GeneratorStates.now()
    with pytest.raises(KeyboardInterrupt):
        smith.finish(run, plan=PLAN)
    assert torch.equal(GeneratorStates.now().torch, states.torch), "the caller's generators are as they were"
    assert GeneratorStates.now().python == states.python
    assert [look["done"] for look in run.reader.document("finish-looks")] == [False], "on record before it is seen"
    assert comparable(smith.finish(run, plan=PLAN)) == whole


def test_the_workers_number_changes_nothing(run: smith.Run, whole: Any) -> None:
    assert comparable(smith.finish(run, plan=PLAN, workers=2)) == whole


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_setting_that_diverges_is_a_failure_on_record(run: smith.Run) -> None:
    finished = smith.finish(run, plan=replace(PLAN, scale={"learning_rate": (1e12, 0.5)}))
    assert all(network.failures == 1 for network in finished.networks)
    assert all(network.settings.get("learning_rate", 0.1) < 1 for network in finished.networks)
    assert sum("failed: diverged" in note for note in finished.notes) == 3
    documents = [run.reader.document(k) for k in run.reader.documents() if k.startswith("finish/")]
    failed = [d for d in documents if d["result"]["failure"] is not None]
    assert [d["result"]["failure"]["reason"] for d in failed] == ["diverged"] * 3


def test_when_no_final_training_of_the_found_network_ends_nothing_is_looked_at(
    run: smith.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Points.train

    def only_short(self: Points, child: Child, context: Context, *, all_data: bool = False) -> Result:
        if self.epochs == 4:
            raise Diverged("the loss became nan")
        return train(self, child, context, all_data=all_data)

    monkeypatch.setattr(Points, "train", only_short)
    with pytest.raises(ChildFailed, match="no final training of the found network"):
        smith.finish(run, plan=PLAN)
    assert run.reader.document("finish-looks") is None


def test_a_run_that_is_written_is_refused(run: smith.Run) -> None:
    writer = run.store.write("run")
    try:
        with pytest.raises(RunLocked, match="finish it when its search"):
            smith.finish(run, plan=PLAN)
    finally:
        writer.close("finished")


def test_what_cannot_be_finished_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")
    plain = smith.search(Widths(), lambda architecture: architecture["width"], trials=2, store=store, name="plain")
    with pytest.raises(UsageError, match="needs an evaluator with task, train, test and epochs"):
        smith.finish(plain)
    in_memory = smith.search(Widths(), Points(), trials=1, store="memory://")
    with pytest.raises(UsageError, match="no place for them"):
        smith.finish(in_memory)
    failing = Points(learning_rate=1e12)
    with pytest.raises(AllTrialsFailed, match="2 x diverged"):
        smith.search(Widths(), failing, trials=2, store=store, name="failing")
    with pytest.raises(UsageError, match="nothing to finish; trial 0 failed \\(diverged\\)"):
        smith.finish(smith.open_run(store, "failing", space=Widths(), evaluator=failing))
    run = searched(store, trials=2)
    with pytest.raises(UsageError, match="workers must be"):
        smith.finish(run, plan=PLAN, workers=0)
    with pytest.raises(UsageError, match=r"changes 'colour'.*it has: .*learning_rate"):
        smith.finish(run, plan=FinishPlan(grid={"colour": ("red",)}))


def test_data_that_changed_since_the_search_is_refused(tmp_path: Path) -> None:
    import numpy as np

    draws = np.random.default_rng(0)
    labels = np.arange(60) % 2

    def write() -> None:
        np.savez(tmp_path / "data.npz", x_train=draws.integers(0, 256, (60, 8, 8)).astype(np.uint8), y_train=labels)

    write()
    evaluator = ImageClassification(str(tmp_path / "data.npz"), epochs=1, upsample=1.0, precision="fp32")
    space = smith.spaces.ConvChain(layers=1, filters=(4,), filter_heights=(3,), filter_widths=(3,))
    run = smith.search(space, evaluator, trials=1, store=str(tmp_path / "runs.db"), name="changed")
    write()
    with pytest.raises(UsageError, match="data of run 'changed' has changed"):
        smith.finish(run)


# --- the control ------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_the_control_is_said(tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")
    run = searched(store, trials=4)
    plan = FinishPlan(top=1, epochs=1, seeds=2)
    alone = smith.finish(run, plan=plan)
    assert [n.name for n in alone.networks] == ["found", "hand-designed network"]
    assert "no run of random search beside it" in alone.claim

    randomly(store, trials=6, name="more")
    more = smith.finish(run, plan=plan, control="more", again=True)
    assert "The budgets are not equal: the search had 4 trials and 8 epochs, 'more' had 6 and 12." in more.notes

    other = smith.search(Widths((1, 2)), Points(), trials=4, store=store, name="other")
    with pytest.raises(UsageError, match="run 'other' has another space"):
        smith.finish(run, plan=plan, control=other, again=True)

    again = smith.search(Widths(), Points(), trials=4, store=store, name="twin", searcher=Reinforce(), seed=3)
    twin = smith.finish(run, plan=plan, control=again, again=True)
    assert "The best of Reinforce is the found network itself." in twin.notes

    itself = smith.finish(randomly(store, name="itself", trials=2), plan=plan)
    assert "random search itself" in itself.claim


# --- claims -----------------------------------------------------------------------------------------------------------

fractions = st.floats(0, 1)


@given(st.lists(st.tuples(fractions, fractions), min_size=2, max_size=9), st.integers(10, 100_000))
def test_better_is_said_only_when_the_interval_excludes_zero(pairs: list[tuple[float, float]], count: int) -> None:
    found, other = ({i: p[k] for i, p in enumerate(pairs)} for k in (0, 1))
    c = compare(found, other, "other", count)
    assert c.interval is not None
    low, high = c.interval
    differences = [a - b for a, b in pairs]
    assert low <= fmean(differences) <= high
    assert high - low >= 2 * 0.999 * t_quantile(len(pairs) - 1) * stdev(differences) / len(pairs) ** 0.5
    assert (c.verdict == "better") == (low > 0 and fmean(differences) > (c.margin or 0))
    assert (c.verdict == "worse") == (high < 0 and -fmean(differences) > (c.margin or 0))
    assert ("better" in c.sentence) == (c.verdict == "better")
    back = compare(other, found, "found", count)
    assert {c.verdict, back.verdict} in ({"better", "worse"}, {"no difference shown"})


def test_known_intervals() -> None:
    assert t_quantile(2) == pytest.approx(4.302653, abs=1e-6)
    assert t_quantile(9) == pytest.approx(2.262157, abs=1e-6)
    c = compare({0: 0.95, 1: 0.96, 2: 0.97}, {0: 0.90, 1: 0.92, 2: 0.91}, "other", 10_000)
    # Differences 0.05, 0.04, 0.06: mean 0.05, deviation 0.01, half width 4.302653 * 0.01 / sqrt(3).
    assert c.interval == pytest.approx((0.05 - 0.0248414, 0.05 + 0.0248414), abs=1e-6)
    assert c.verdict == "better"
    assert "+5.00 points (95 % interval over 3 seeds +2.52 to +7.48)" in c.sentence


def test_little_evidence_claims_nothing() -> None:
    one = compare({0: 0.99}, {0: 0.5}, "other", 1000)
    assert (one.verdict, one.interval) == ("no difference shown", None)
    none = compare({0: 0.9}, {1: 0.5}, "other", 1000)
    assert (none.n, none.verdict) == (0, "no difference shown")
    # Three equal differences of one image are no certainty ...
    same = compare(dict.fromkeys(range(3), 300 / 360), dict.fromkeys(range(3), 299 / 360), "other", 360)
    assert same.verdict == "no difference shown"
    # ... nor are seeds that agree where the test set itself is too small to tell.
    small = compare({0: 0.95, 1: 0.951, 2: 0.95}, {0: 0.94, 1: 0.941, 2: 0.94}, "other", 1000)
    assert small.interval is not None
    assert small.interval[0] > 0
    assert small.verdict == "no difference shown"
    assert "a test set of 1,000 leaves open" in small.sentence
    large = compare({0: 0.95, 1: 0.951, 2: 0.95}, {0: 0.94, 1: 0.941, 2: 0.94}, "other", 100_000)
    assert large.verdict == "better"


# --- plans ------------------------------------------------------------------------------------------------------------


def test_the_points_of_a_plan() -> None:
    own = ImageClassification(learning_rate=0.1, schedule="step")
    star = FinishPlan(scale={"learning_rate": (0.5, 1.0, 2.0)}, grid={"batch_norm_epsilon": (1e-3,)})
    assert star.points(own) == [{}, {"learning_rate": 0.05}, {"learning_rate": 0.2}, {"batch_norm_epsilon": 1e-3}]
    every = replace(star, one_at_a_time=False).points(own)
    assert len(every) == 6
    assert every[0] == {}
    assert {"learning_rate": 0.2, "batch_norm_epsilon": 1e-3} in every
    assert len(FinishPlan.paper().points(own)) == 3 * 3 * 2 * 3
    assert len(FinishPlan.desk().points(own)) == 7
    cosine = FinishPlan.desk().points(replace(own, schedule="cosine"))
    assert {"schedule": "step"} in cosine
    assert not any("decay_at" in point for point in cosine), "a cosine has no epoch of decay"
    for point in FinishPlan.paper().points(own):
        replace(own, **point)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top": 0}, "top of a finish plan"),
        ({"seeds": 1.5}, "seeds of a finish plan"),
        ({"epochs": -1}, "epochs of a finish plan"),
        ({"stretch": "decay_after"}, "stretch of a finish plan must list settings"),
        ({"grid": {"learning_rate": 0.1}}, "must map settings to lists"),
        ({"grid": {"a": (1,)}, "scale": {"a": (2,)}}, "scale a setting or replace it"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FinishPlan(**fields)


# --- the real thing ---------------------------------------------------------------------------------------------------


def test_image_classification_can_be_finished(tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")
    evaluator = ImageClassification(
        "digits", epochs=1, max_train=300, upsample=1.0, schedule="cosine", precision="fp32"
    )
    space = smith.spaces.ConvChain(layers=2, filters=(4, 8), filter_heights=(1, 3), filter_widths=(1, 3))
    run = smith.search(space, evaluator, searcher=Reinforce(), trials=2, store=store, name="digits")
    plan = FinishPlan(top=1, scale={"learning_rate": (0.5,)}, grid={"batch_norm_epsilon": (1e-2,)}, epochs=2, seeds=2)
    finished = smith.finish(run, plan=plan)
    found, residual = finished.networks
    assert residual.origin.startswith("hand-designed")
    assert finished.test_count == 359
    assert found.mean is not None
    assert found.trainings == residual.trainings == 3
    run = smith.open_run(store, "digits")
    assert run.reader.document("finish")["claim"] == finished.claim
    # Each network has a temperature of its own, fitted on its validation images, which its export divides the logits by.
    fitted = run.reader.document(temperatures.DOCUMENT)
    assert set(fitted) == {final.artifact for network in finished.networks for final in network.finals}
    for name, artifact in ((None, finished.model.artifact), ("residual network", None)):
        exported = model_of(run, name)
        artifact = artifact or max(residual.finals, key=lambda final: final.validation).artifact
        assert exported.temperature == fitted[artifact]["temperature"] != 1.0
        plain = replace(exported, temperature=1.0)
        predictions = evaluator.predictions(plain.network, "validation")
        assert fitted_temperature(predictions).temperature == pytest.approx(fitted[artifact]["temperature"], rel=1e-3)
        pixels = exported.inputs()[-1]
        torch.testing.assert_close(exported.answer(pixels), plain.answer(pixels) / exported.temperature)
        assert "logits are divided by the temperature" in readme(exported.to_json("pytorch"))


def test_a_final_training_on_all_data_has_no_temperature(tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")
    evaluator = ImageClassification("digits", epochs=1, max_train=300, upsample=1.0, precision="fp32")
    run = smith.search(smith.spaces.ConvChain(layers=1, filters=(4,)), evaluator, trials=1, store=store, name="digits")
    smith.finish(run, plan=FinishPlan(top=1, epochs=1, seeds=1, all_data=True))
    assert run.reader.document(temperatures.DOCUMENT) is None
    assert model_of(run).temperature == 1.0


# --- another measure --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words(Points):
    """The same points, judged by perplexity: lower is better."""

    patience: int = 1

    measure = PERPLEXITY
    baseline_name = "plain layer"
    default_reward = staticmethod(scaled_perplexity)

    def train(self, child: Child, context: Context, *, all_data: bool = False) -> Result:
        super().train(child, context, all_data=all_data)
        perplexity = self._perplexity(child.model, *points(1, 100))
        curve = [{"epoch": float(epoch), "perplexity": perplexity} for epoch in range(1, self.epochs + 1)]
        return Result({} if all_data else {"perplexity": perplexity}, curve, Cost(0.01 * self.epochs, self.epochs))

    def test(self, model: nn.Module, device: str = "cpu") -> dict[str, float]:
        return {"perplexity": self._perplexity(model, *points(2, 400)), "count": 400.0}

    def _perplexity(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
        with torch.inference_mode():
            return F.cross_entropy(model(x), y).exp().item()


def of_words(folder: Path, **options: Any) -> smith.Run:
    store = str(folder / "words.db")
    smith.search(Widths(), Words(**options), trials=6, store=store, name="run-random", seed=4)
    return smith.search(Widths(), Words(**options), searcher=Reinforce(), trials=6, store=store, name="run", seed=3)


def test_a_search_by_perplexity_is_finished_by_perplexity(tmp_path: Path) -> None:
    run = of_words(tmp_path)
    finished = smith.finish(run, plan=PLAN)
    assert finished.measure == PERPLEXITY
    assert [n.name for n in finished.networks] == ["found", "plain layer", "random search"]
    assert finished.table()[0][2] == "test perplexity"
    assert finished.table()[1][2] == PERPLEXITY.text(finished.found.mean or 0, finished.found.deviation)
    found = finished.found
    documents = [run.reader.document(k) for k in run.reader.documents() if k.startswith("finish/")]
    mine = [d for d in documents if d["genotype"] == found.genotype and d["epochs"] == 2]
    chosen = next(d for d in mine if d["settings"] == found.settings)
    lowest = min(d["result"]["metrics"]["perplexity"] for d in mine)
    assert chosen["result"]["metrics"]["perplexity"] == lowest, "tuned to the lowest perplexity"
    exported = found.finals[finished.model.index]
    assert exported.validation == max(f.validation or 0 for f in found.finals)
    for network, c in zip(finished.networks[1:], finished.comparisons, strict=True):
        assert c.difference == pytest.approx((found.mean or 0) - (network.mean or 0))
        assert c.margin is None
        assert "only" in c.sentence
        if c.verdict == "better":
            assert c.difference is not None
            assert c.difference < 0
            assert "lower test perplexity" in c.sentence
    assert "points" not in finished.claim
    assert "image" not in finished.claim
    assert Finished.from_json(json.loads(json.dumps(finished.to_json()))) == finished


def test_what_counts_epochs_grows_with_the_final_trainings(tmp_path: Path) -> None:
    run = of_words(tmp_path, patience=4)
    plan = replace(PLAN, grid={"patience": (3,)}, scale={}, epochs=5, stretch=("patience",))
    executor = Counting()
    finished = smith.finish(run, plan=plan, executor=executor)
    trained = [(job.evaluator.evaluator.epochs, job.evaluator.evaluator.patience) for job in executor.jobs]
    assert {p for e, p in trained if e == 2} == {3, 4}
    assert {p for e, p in trained if e == 5} <= {8, 10}, "2.5 times as long: 3 becomes 7.5, and 4 becomes 10"
    assert all(network.settings["patience"] in (8, 10) for network in finished.networks)
    assert smith.finish(run, plan=plan) == smith.finish(run) == finished
    with pytest.raises(UsageError, match="changes 'colour'"):
        smith.finish(run, plan=replace(plan, stretch=("colour",)), again=True)


def test_a_plan_on_record_from_before_it_had_all_its_fields_is_the_same_plan(run: smith.Run) -> None:
    finished = smith.finish(run, plan=PLAN)
    document = run.reader.document("finish")
    del document["plan"]["stretch"]
    writer = run.store.write("run")
    writer.put_document("finish", document)
    writer.close("finished")
    again = smith.finish(run, plan=PLAN)
    assert again.networks == finished.networks
    assert again == smith.finish(run)


def test_a_test_score_that_overflows_is_a_failure_and_no_number(tmp_path: Path, monkeypatch: Any) -> None:
    run = of_words(tmp_path)
    test, calls = Words.test, iter(range(100))

    def overflowing(self: Words, model: nn.Module, device: str = "cpu") -> dict[str, float]:
        return {**test(self, model), **({"perplexity": float("inf")} if next(calls) == 1 else {})}

    monkeypatch.setattr(Words, "test", overflowing)
    finished = smith.finish(run, plan=PLAN)
    assert [f.score is None for f in finished.found.finals] == [False, True, False]
    assert finished.found.finals[1].failure == "diverged: its test perplexity is inf"
    assert all(c.n == 2 for c in finished.comparisons)
    json.dumps(finished.to_json(), allow_nan=False)


def test_a_test_without_the_measure_is_named_and_costs_no_look(tmp_path: Path, monkeypatch: Any) -> None:
    run = of_words(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Words, "test", lambda *_: {"accuracy": 0.5, "count": 3.0})
        with pytest.raises(UsageError, match=r"test of Words must give 'perplexity', .* it gave: accuracy, count"):
            smith.finish(run, plan=PLAN)
    assert smith.finish(run, plan=PLAN).looks == 1


def test_without_a_hand_designed_network_none_is_claimed_to_be_beside(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delattr(Points, "baseline")
    monkeypatch.setattr(Words, "task", lambda self: TextTask(10, hidden=4))
    finished = smith.finish(of_words(tmp_path), plan=PLAN)
    assert [n.name for n in finished.networks] == ["found", "random search"]
    assert "no baseline(parameters, task), so no hand-designed network" in finished.claim


def test_epochs_that_time_cut_are_said_wherever_a_network_is_told_of(
    run: smith.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(Points, "describe_data", lambda self: {"train": 200}, raising=False)
    plan = within(replace(PLAN, epochs=60), [run], seconds=1e-3, workers=1)
    assert (plan.epochs, plan.full_epochs) == (2, 60)
    assert within(PLAN, [run], seconds=1e9, workers=1).full_epochs is None
    finished = smith.finish(run, plan=plan)
    said = "2 of 60 epochs, since the time ran out"
    assert [row[4] for row in finished.table()] == ["epochs each", *["2 of 60"] * 3]
    assert all("after 2 epochs of each" in c.sentence for c in finished.comparisons)
    assert "asks for 60 epochs" in finished.claim
    page = run.report(tmp_path / "page.html").read_text()
    assert f"Trained for {said}" in page
    assert "in full" not in page
    monkeypatch.chdir(tmp_path)
    assert main(["show", run.name, "--store", run.store.url]) == 0
    assert said in capsys.readouterr().out
    card = model_of(run).to_json("pytorch")
    assert any(f"Trained for {said}" in line for line in readme(card).splitlines())


def test_unequal_epochs_are_said_in_the_comparison() -> None:
    scores = {0: 0.9, 1: 0.91, 2: 0.92}
    said = compare(
        scores, {k: v - 0.2 for k, v in scores.items()}, "b", 1000, after="after 12 epochs against 9"
    ).sentence
    assert said.startswith("The found network is better than the b after 12 epochs against 9: +20.00 points")


def test_a_finish_from_before_there_were_other_measures_still_opens(run: smith.Run) -> None:
    finished = smith.finish(run, plan=PLAN)
    old = json.loads(json.dumps(finished.to_json()))
    del old["measure"]
    for network in old["networks"]:
        network["finals"] = [{("accuracy" if k == "score" else k): v for k, v in f.items()} for f in network["finals"]]
    assert "accuracy" in old["networks"][0]["finals"][0]
    assert Finished.from_json(old) == finished
    assert in_todays_words(old) == in_todays_words(in_todays_words(old)) == json.loads(json.dumps(finished.to_json()))
    for strange in ({}, {"networks": 3}, {"networks": [None, {"finals": [1, {"accuracy": 0.5}]}, {"finals": "x"}]}):
        assert in_todays_words(strange)["measure"]["name"] == "accuracy"


perplexities = st.floats(1, 1e4)


@given(st.lists(st.tuples(perplexities, perplexities), min_size=2, max_size=9))
def test_of_perplexities_the_lower_is_better_by_the_interval_alone(pairs: list[tuple[float, float]]) -> None:
    found, other = ({i: p[k] for i, p in enumerate(pairs)} for k in (0, 1))
    c = compare(found, other, "LSTM", 82_430, measure=PERPLEXITY)
    assert c.interval is not None
    assert (c.verdict == "better") == (c.interval[1] < 0)
    assert (c.verdict == "worse") == (c.interval[0] > 0)
    assert ("better" in c.sentence) == (c.verdict == "better")
    back = compare(other, found, "found", 82_430, measure=PERPLEXITY)
    assert {c.verdict, back.verdict} in ({"better", "worse"}, {"no difference shown"})


def test_sentences_of_other_measures() -> None:
    found, other = {0: 78.0, 1: 78.5, 2: 79.0}, {0: 79.0, 1: 79.25, 2: 79.75}
    c = compare(found, other, "LSTM", 82_430, measure=PERPLEXITY)
    # Differences -1, -0.75, -0.75: mean -0.8333, deviation 0.14434, half width 4.302653 * 0.14434 / sqrt(3).
    assert c.interval == pytest.approx((-0.833333 - 0.358555, -0.833333 + 0.358555), abs=1e-5)
    assert c.sentence == (
        "The found network is better than the LSTM: 0.83 lower test perplexity (95 % interval -1.19 to -0.47, over 3 "
        "seeds only); the test set has 82,430 words."
    )
    assert "The found cell is worse than the old one: 0.83 lower test BLEU" in (
        compare(found, other, "LSTM", 1000, measure=BLEU, subject="found cell", called="the old one").sentence
    )
    one = compare({0: 1.228}, {0: 1.243}, "LSTM", 10, measure=BITS_PER_CHARACTER)
    assert one.sentence == (
        "No difference from the LSTM is shown: 0.015 lower test bits per character on one seed, and one seed has no "
        "interval."
    )
    same = compare({0: 80.0, 1: 80.0}, {0: 80.0, 1: 80.0}, "LSTM", 10, measure=PERPLEXITY)
    assert "the same test perplexity" in same.sentence
    assert same.verdict == "no difference shown"


def test_the_preset_suits_what_is_measured() -> None:
    own = LanguageModel()
    assert FinishPlan.for_evaluator(own) == FinishPlan.text_desk()
    assert FinishPlan.for_evaluator(ImageClassification()) == FinishPlan.desk()
    assert set(FinishPlan.for_evaluator(Words()).scale) == {"learning_rate", "weight_decay"}
    assert not FinishPlan.for_evaluator(Points()).grid, "a setting of a user's own may mean something else"
    for evaluator in (own, LanguageModel.desk(), LanguageModel.desk(level="char"), replace(own, initialisation=None)):
        for plan in (FinishPlan.text_desk(), FinishPlan.text_paper()):
            tried = [replace(evaluator, **point) for point in plan.points(evaluator)]
            assert len(set(tried)) == len(tried)
            assert tried[0] == evaluator
    assert len(FinishPlan.text_desk().points(own)) == 9
    assert len(FinishPlan.text_paper().points(own)) == 3 * 3 * 2 * 3 * 2 * 2
    whole = FinishPlan(scale={"decay_after": (0.1, 0.2, 1.5)}).points(own)
    assert whole == [{}, {"decay_after": 1}, {"decay_after": 9}]
    assert all(type(point["decay_after"]) is int for point in whole[1:])


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=3)) | st.none() | st.lists(st.none()))
def test_a_measure_comes_back_from_its_record_and_from_no_other(value: Any) -> None:
    assert Measure.from_json(value) == ACCURACY
    for measure in (ACCURACY, PERPLEXITY, BITS_PER_CHARACTER, BLEU):
        assert Measure.from_json(json.loads(json.dumps(measure.to_json()))) == measure
    assert Measure.from_json({**PERPLEXITY.to_json(), "digits": 10**9}).text(1.5) == "1.500000000"
