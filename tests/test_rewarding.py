"""Searches that give no reward, whose children all fail, or whose budget nothing uses up: what is kept, and how to go on."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import archsmith as smith
from archsmith.core.errors import AllTrialsFailed, NoReward, UsageError
from archsmith.core.trial import Cost, Result, TrialState
from archsmith.executors import InProcess, ProcessPool, Simulated
from archsmith.searchers import BayesianOptimization, QLearning, Random, RegularizedEvolution, Reinforce
from archsmith.store import open_store
from archsmith.training import Landscape


def space(choose: Any) -> list[int]:
    return [choose(f"{i}.a", (1, 2, 3)) for i in range(4)]


def states(run: smith.Run) -> list[tuple[str, float | None]]:
    return [(str(trial.state), trial.reward) for trial in run.trials()]


class Counted:
    """A function of an architecture that counts its calls."""

    def __init__(self, of: Any) -> None:
        self.calls = 0
        self.of = of

    def __call__(self, architecture: list[int]) -> Any:
        self.calls += 1
        return self.of(architecture)


def metrics(architecture: list[int]) -> dict[str, float]:
    return {"accuracy": sum(architecture) / 12, "loss": 1.0}


# --- no reward --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_results_without_a_reward_stop_the_search_and_no_training_is_lost(tmp_path: Path, workers: int) -> None:
    store, trained = f"sqlite:///{tmp_path}/runs.db", tmp_path / "trained"

    def evaluate(architecture: list[int]) -> dict[str, float]:
        with trained.open("a") as file:
            file.write("x")
        return metrics(architecture)

    with pytest.raises(NoReward, match="needs the metric 'value', and they have: accuracy, loss") as caught:
        smith.search(space, evaluate, trials=6, workers=workers, store=store, name="r")
    assert caught.value.metrics == ("accuracy", "loss")
    run = smith.open_run(store, "r")
    first = len(trained.read_text())
    assert first == len(states(run)) <= workers
    assert all(
        trial.lacks_reward and trial.result.metrics == metrics([*trial.genotype.answers.values()])
        for trial in run.trials()
    )

    run = run.resume(space=space, evaluator=evaluate, reward=smith.rewards.accuracy)
    assert [trial.reward for trial in run.trials()] == [sum(t.genotype.answers.values()) / 12 for t in run.trials()]
    assert len(trained.read_text()) == run.summary.counts["done"] == 6, "a child was trained in vain, or again"
    assert run.summary.epochs == 0
    assert run.config["reward"] == {"type": "rewards.accuracy"}
    assert run.best.reward == max(reward for _, reward in states(run))


@pytest.mark.parametrize(
    "searcher",
    [
        Random(),
        Reinforce(minibatch=3),
        RegularizedEvolution(population=4, sample=2),
        QLearning(),
        BayesianOptimization(),
    ],
    ids=lambda searcher: type(searcher).__name__,
)
def test_a_reward_that_fails_for_some_keeps_their_metrics_and_is_made_later(tmp_path: Path, searcher: Any) -> None:
    store, evaluate = open_store("memory://"), Counted(metrics)
    broken = {2: math.nan, 4: None, 5: 1j, 7: "0.5"}
    made = itertools.count()

    def reward(result: Result) -> Any:
        number = next(made)
        if number == 3:
            raise ZeroDivisionError("no luck")
        return broken.get(number, result.metrics["accuracy"])

    run = smith.search(space, evaluate, trials=9, reward=reward, searcher=searcher, store=store, name="r")
    lacking = [trial for trial in run.trials() if trial.lacks_reward]
    assert [trial.number for trial in lacking] == [2, 3, 4, 5, 7]
    assert "a reward must be finite, got nan" in lacking[0].result.failure.message
    assert "no luck" in lacking[1].result.failure.message
    assert "a reward must be a number, got None" in lacking[2].result.failure.message
    assert all(set(trial.result.metrics) == {"accuracy", "loss"} for trial in lacking)

    run = smith.open_run(store, "r").resume(space=space, evaluator=evaluate, searcher=searcher, reward=reward)
    assert [trial.reward for trial in run.trials()] == [trial.result.metrics["accuracy"] for trial in run.trials()]
    assert evaluate.calls == 9
    run = run.resume(trials=14, searcher=searcher, reward=reward)  # from the snapshot with the new rewards
    assert (evaluate.calls, run.summary.counts["done"]) == (14, 14)


def test_a_run_with_rewards_keeps_its_reward(tmp_path: Path) -> None:
    def reward(result: Result) -> float:
        return result.metrics["accuracy"]

    def renamed(result: Result) -> float:
        return result.metrics["accuracy"]

    def changed(result: Result) -> float:
        return -result.metrics["accuracy"]

    changed.__qualname__ = reward.__qualname__
    store = open_store("memory://")
    run = smith.search(space, metrics, trials=3, reward=reward, store=store, name="r")
    for other, said in (
        (renamed, "another reward"),
        (changed, "makes another number"),
        (smith.rewards.accuracy, "another"),
    ):
        with pytest.raises(UsageError, match=said):
            run.resume(trials=5, reward=other)
    assert len(states(run.resume(trials=5, reward=reward))) == 5


def test_a_reward_that_an_evaluator_has_got_since_is_taken(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Mine:
        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            return Result({"top1": 0.5})

    class Better(Mine):
        default_reward = staticmethod(lambda result: result.metrics["top1"])

    store = open_store("memory://")
    with pytest.raises(NoReward, match="top1"):
        smith.search(space, Mine(), trials=3, store=store, name="r")
    assert states(smith.open_run(store, "r").resume(space=space, evaluator=Better())) == [("done", 0.5)] * 3


@dataclass(frozen=True)
class Declares:
    reported_metrics = ("accuracy",)

    def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
        raise AssertionError("a child was trained")


@pytest.mark.parametrize(
    ("evaluator", "reward", "said"),
    [
        (Declares(), None, "needs the metric 'value', and Declares reports: accuracy"),
        (
            smith.training.ImageClassification.desk("digits"),
            smith.rewards.latency_weighted(5.0),
            "needs the metric 'latency'",
        ),
        (smith.training.ImageClassification.desk("digits"), smith.rewards.bleu, "needs the metric 'bleu'"),
        (Landscape(), smith.rewards.accuracy, "needs the metric 'accuracy', and Landscape reports: value"),
        (Landscape(), "accuracy", "must be a function of a result"),
        (Landscape(), smith.rewards.LatencyWeighted, "must be a function of a result"),
        (Landscape(), lambda: 1.0, "must be a function of a result"),
        (Landscape(), lambda result, other: 1.0, "must be a function of a result"),
    ],
)
def test_a_reward_that_cannot_be_made_is_refused_before_a_child_is_trained(
    evaluator: Any, reward: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        smith.search(smith.spaces.QNet(), evaluator, reward=reward, trials=2, store="memory://")


# --- all trials fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "executor", [InProcess, lambda: ProcessPool(3), lambda: Simulated(3, seconds=1.0)], ids=["one", "pool", "simulated"]
)
def test_a_search_whose_first_trials_all_fail_stops_and_says_why(tmp_path: Path, executor: Any) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"

    def broken(architecture: list[int]) -> float:
        raise (ValueError("an odd one") if architecture[0] % 2 else MemoryError())

    with pytest.raises(AllTrialsFailed) as caught:
        smith.search(space, broken, trials=100, executor=executor(), store=store, name="r")
    run = smith.open_run(store, "r")
    failed = run.summary.counts["failed"]
    assert 10 <= failed < 100, "a pool goes on while one of the first is still trained"
    assert run.summary.counts["running"] == 0
    error = caught.value
    assert set(error.reasons) == {"error: ValueError: an odd one", "memory: MemoryError"}
    assert sum(error.reasons.values()) == 10
    for words in ("all of the first 10 trials of run 'r' failed", "x memory: MemoryError", "in broken", "resume("):
        assert words in str(error)
    run = run.resume(trials=failed + 5, space=space, evaluator=lambda architecture: 1.0)  # the code is mended
    assert run.summary.counts["done"] == 5


def test_a_budget_of_which_every_trial_fails_is_an_error_and_a_larger_one_goes_on() -> None:
    store = open_store("memory://")
    with pytest.raises(AllTrialsFailed, match=r"all 3 trials of run 'r' failed(.|\n)*resume\(trials=6"):
        smith.search(space, lambda a: "x", trials=3, store=store, name="r")
    assert smith.open_run(store, "r").summary.status == "interrupted"
    with pytest.raises(AllTrialsFailed):  # nothing is left of the budget
        smith.open_run(store, "r").resume(space=space, evaluator=lambda a: 1.0)
    run = smith.open_run(store, "r").resume(space=space, evaluator=lambda a: 1.0, trials=6)
    assert [state for state, _ in states(run)] == ["failed"] * 3 + ["done"] * 3
    run = run.resume(
        space=space, evaluator=lambda a: "x", trials=30
    )  # one was trained once: this may be the children's
    assert run.summary.counts["failed"] == 27


def test_a_reward_that_fails_for_all_is_corrected_without_training_again() -> None:
    store, evaluate = open_store("memory://"), Counted(metrics)
    with pytest.raises(AllTrialsFailed, match=r"4 x reward: ZeroDivisionError(.|\n)*resume\(reward="):
        smith.search(space, evaluate, trials=4, reward=lambda result: 1 / 0, store=store, name="r")
    run = smith.open_run(store, "r").resume(space=space, evaluator=evaluate, reward=smith.rewards.accuracy)
    assert (evaluate.calls, run.summary.counts["done"], run.summary.status) == (4, 4, "finished")


def test_an_evaluator_that_is_corrected_goes_on_beside_trials_without_a_reward() -> None:
    store = open_store("memory://")
    with pytest.raises(NoReward):
        smith.search(space, metrics, trials=4, store=store, name="r")
    with (
        pytest.warns(UserWarning, match="1 trials of run 'r' were trained, and no reward can be made(.|\\n)*'top1'"),
        pytest.raises(NoReward, match="'top1', and they have: accuracy, loss"),
    ):
        smith.open_run(store, "r").resume(space=space, evaluator=metrics, reward=lambda r: r.metrics["top1"])
    with pytest.warns(UserWarning, match="2 trials of run 'r'"):
        run = smith.open_run(store, "r").resume(
            space=space, evaluator=lambda a: {"top1": 0.5}, reward=lambda r: r.metrics["top1"]
        )
    assert [state for state, _ in states(run)] == ["failed"] * 2 + ["done"] * 2


@pytest.mark.parametrize("result", [{}, Result(), Result(curve=[{"epoch": 1, "loss": 1.0}])])
def test_results_without_metrics_stop_the_search(result: Any) -> None:
    evaluate = Counted(lambda _: result)
    with pytest.raises(NoReward, match="the metric 'value', and they have none"):
        smith.search(space, evaluate, trials=9, store="memory://")
    assert evaluate.calls == 1


@pytest.mark.parametrize("good", [9, 0])
def test_one_of_the_first_that_is_trained_lets_the_search_go_on(good: int) -> None:
    calls = itertools.count()
    run = smith.search(space, lambda a: 1.0 if next(calls) == good else "x", trials=25, store="memory://")
    assert (run.summary.counts["done"], run.summary.counts["failed"]) == (1, 24)


# --- budgets in epochs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ThreeEpochs:
    """Reports three epochs; `says` is what its results say of that."""

    says: str = "nothing"
    epochs: int = 3

    def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
        value = sum(genotype.answers.values())
        curve = []
        for epoch in range(context.epochs_done + 1, 4):
            row = {"value": value * epoch / 3.0}
            curve.append({"epoch": epoch, **row})
            if self.says != "a curve" and not context.report(epoch, row):
                context.pause({})
                break
        if self.says == "fails":
            raise ValueError("after its epochs")
        cost = Cost(0.0, float(len(curve))) if self.says == "a cost" else Cost()
        return Result({"value": float(value)}, curve if self.says == "a curve" else (), cost)


@pytest.mark.parametrize(
    ("says", "executor"),
    [
        ("nothing", InProcess),
        ("a curve", InProcess),
        ("a cost", InProcess),
        ("nothing", lambda: ProcessPool(2)),
        ("nothing", lambda: Simulated(2, seconds=1.0)),
        ("a curve", lambda: Simulated(2, seconds=1.0)),
    ],
)
def test_epochs_that_children_report_use_up_a_budget(says: str, executor: Any) -> None:
    run = smith.search(space, ThreeEpochs(says), trials=None, epochs=10, executor=executor(), store="memory://")
    trials = len(states(run))
    assert 4 <= trials <= 6, "those that ran when the budget was used up have ended, and no other began"
    assert run.summary.epochs == 3 * trials
    assert run.summary.status == "finished"


def test_epochs_of_children_that_are_stopped_and_resumed_count_once() -> None:
    run = smith.search(
        space, ThreeEpochs(), trials=None, epochs=40, stopping=smith.stopping.ASHA(minimum=1), store="memory://"
    )
    curves = sum(len(trial.result.curve) for trial in run.trials())
    assert run.summary.epochs == curves
    assert 40 <= curves <= 42
    assert run.summary.counts["stopped"] > 0


def test_epochs_of_children_that_fail_count() -> None:
    store = open_store("memory://")
    with pytest.raises(AllTrialsFailed):
        smith.search(space, ThreeEpochs("fails"), trials=None, epochs=12, store=store, name="r")
    assert smith.open_run(store, "r").summary.epochs == 12


@pytest.mark.parametrize(("reported", "epochs"), [((5, 10), 10), ((0, 1, 2), 3), ((1, 1, 2), 2)])
def test_an_epoch_counts_once_and_those_between_count(reported: tuple[int, ...], epochs: int) -> None:
    class Sparse:
        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            for epoch in reported:
                context.report(epoch, {})
            return Result({"value": 1.0})

    assert smith.search(space, Sparse(), trials=1, store="memory://").summary.epochs == epochs


def test_a_budget_that_is_never_used_up_is_refused_or_ends_the_search(tmp_path: Path) -> None:
    for limits in ({}, {"trials": None}, {"trials": None, "seconds": 5}):
        with pytest.raises(UsageError, match="a plain function reports no epochs"):
            smith.search(space, lambda a: 1.0, epochs=5, store="memory://", **limits)
    table = tmp_path / "table.csv"
    table.write_text("a,acc\n1,0.5\n2,0.6\n")
    with pytest.raises(UsageError, match="Tabular reports no epochs"):
        evaluator = smith.training.Tabular(str(table), "acc", epochs=0)
        smith.search(lambda choose: choose("a", (1, 2)), evaluator, epochs=5, trials=None, store="memory://")

    class Silent:
        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            return Result({"value": 1.0})

    store = open_store("memory://")
    with pytest.raises(UsageError, match=r"none of its first 10 trials reported an epoch(.|\n)*context.report"):
        smith.search(space, Silent(), trials=None, epochs=5, store=store, name="r")
    run = smith.open_run(store, "r")
    assert states(run) == [("done", 1.0)] * 10
    with pytest.raises(UsageError, match="a plain function"):
        run.resume(epochs=9, space=space, evaluator=lambda a: 1.0)
    assert len(states(run.resume(trials=12, space=space, evaluator=Silent()))) == 12


def test_a_budget_in_epochs_ends_when_nothing_is_trained_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archsmith._search.first_trials.IN_A_ROW", 20)
    calls = itertools.count()

    class Breaks:
        def evaluate(self, space: Any, genotype: Any, context: Any) -> Result:
            if next(calls) > 2:
                raise OSError("the disk is gone")
            context.report(1, {})
            return Result({"value": 1.0})

    with pytest.raises(UsageError, match="none of its last 20 trials"):
        smith.search(space, Breaks(), trials=None, epochs=50, store="memory://")
    assert next(calls) == 23


@pytest.mark.parametrize("epochs", [0, -1, float("nan"), float("inf"), True, "5"])
def test_a_budget_must_be_a_finite_number_above_zero(epochs: Any) -> None:
    with pytest.raises(UsageError, match="epochs"):
        smith.search(space, ThreeEpochs(), trials=None, epochs=epochs, store="memory://")


# --- a watch that raises ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "moment"), [(1, "epoch"), (1, "running"), (1, "done"), (2, "epoch")])
def test_a_watch_that_raises_loses_no_training(tmp_path: Path, workers: int, moment: str) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    seen = []

    def watch(event: Any) -> None:
        seen.append(event)
        now = str(event.state) if isinstance(event, smith.Trial) else "epoch"
        number = event.number if isinstance(event, smith.Trial) else event.trial
        if (now, number) == (moment, 2):
            raise RuntimeError("my own mistake")

    with pytest.warns(UserWarning, match="watch raised RuntimeError: my own mistake"), pytest.raises(RuntimeError):
        smith.search(space, ThreeEpochs(), trials=8, workers=workers, store=store, name="r", watch=watch)
    run = smith.open_run(store, "r")
    counts = run.summary.counts
    assert counts["running"] == 0, "a child that ran was lost"
    assert 3 <= counts["done"] <= 4
    assert seen[-1] == next(event for event in seen if event is seen[-1]), "it is called no more"
    run = run.resume(space=space, evaluator=ThreeEpochs())
    assert [trial.attempts for trial in run.trials()] == [1] * 8
    assert [state for state, _ in states(run)] == [TrialState.DONE] * 8
