"""Searches that stop children early: what is trained, what is recorded, and that no kill changes it."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archsmith as smith
from archsmith._search.collecting import needed
from archsmith._search.saved import Saved, saved
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.errors import AllTrialsFailed, Diverged, UsageError
from archsmith.core.evaluator import Context, Limits
from archsmith.core.genotype import Genotype
from archsmith.core.space import FunctionSpace, Space, decode
from archsmith.core.trial import Cost, Result, Trial, TrialState, joined
from archsmith.executors import Faults, ProcessPool, Simulated
from archsmith.searchers import Random, RegularizedEvolution, Reinforce
from archsmith.stopping import ASHA, Median
from archsmith.store import open_store
from dying_store import dying_store

EPOCHS = 9


def digits(choose: Any) -> list[int]:
    return [choose(f"{i}.digit", range(6)) for i in range(3)]


@dataclass(frozen=True)
class Training:
    """Nine epochs whose values approach the sum of the architecture, and which only one that goes on can repeat: each adds
    to a number that is kept. `keeps` is what it puts aside: "tensors", "nothing" (it needs none), or "not": it begins anew."""

    keeps: str = "tensors"
    diverges: int = -1
    epochs: int = EPOCHS
    seconds: float = 1.0
    pace: float = 0.0

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        import numpy as np

        total = sum(decode(space, genotype))
        done, noise = 0, float(context.seed % 1000)
        if self.keeps == "nothing":
            done = context.epochs_done
            noise += 7.0 * done
        elif self.keeps == "tensors" and context.resume is not None:
            done, noise = context.epochs_done, float(context.resume["noise"][0])
            assert done == int(context.resume["done"][0])
        curve: list[Mapping[str, float]] = []
        for epoch in range(done + 1, self.epochs + 1):
            if total == self.diverges and epoch == 3:
                raise Diverged("it became NaN")
            time.sleep(self.pace)
            noise += 7.0
            curve.append({"epoch": epoch, "value": total * (1 - 2.0**-epoch) + 1e-6 * noise})
            if not context.report(epoch, {"value": curve[-1]["value"]}):
                if context.paused and self.keeps == "tensors":
                    context.pause({"noise": np.array([noise]), "done": np.array([epoch])})
                elif context.paused and self.keeps == "nothing":
                    context.pause({})
                break
        return Result({"value": curve[-1]["value"]}, curve, Cost(self.seconds * len(curve), float(len(curve))))


def search(evaluator: Any = None, **settings: Any) -> smith.Run:
    settings = {"trials": 40, "store": "memory://", "name": "early", "stopping": ASHA(), **settings}
    return smith.search(digits, evaluator or Training("nothing"), **settings)


def record(run: smith.Run) -> list[tuple[Any, ...]]:
    """All but the times of trials that failed, which are the wall's."""
    return [
        (t.number, t.genotype.canonical, str(t.state), t.reward, replace(result_of(t), cost=timeless(t)).to_json())
        for t in run.trials()
    ]


def timeless(trial: Trial) -> Cost:
    cost = result_of(trial).cost
    return replace(cost, seconds=0.0) if trial.state is TrialState.FAILED else cost


def sum_of(trial: Trial) -> int:
    return sum(decode(FunctionSpace(digits), trial.genotype))


def result_of(trial: Trial) -> Result:
    assert trial.result is not None
    return trial.result


def check(run: smith.Run) -> None:
    """What every run with ASHA of eta 3 and nine epochs leaves behind."""
    trials = list(run.trials())
    lengths = {t.number: len(result_of(t).curve) for t in trials}
    for t in trials:
        assert [row["epoch"] for row in result_of(t).curve] == list(range(1, lengths[t.number] + 1))
        assert t.state in (TrialState.DONE, TrialState.STOPPED, TrialState.FAILED)
        if t.state is TrialState.STOPPED:
            assert lengths[t.number] in (1, 3)
            assert (t.reward, result_of(t).stopped_by, result_of(t).checkpoint) == (None, "rule", None)
        if t.state is TrialState.DONE:
            assert lengths[t.number] == EPOCHS
            assert t.reward == result_of(t).curve[-1]["value"]
    assert run.summary.epochs == sum(result_of(t).cost.epochs for t in trials)
    assert run.summary.counts["paused"] == run.summary.counts["running"] == 0


# --- what is trained --------------------------------------------------------------------------------------------------


def test_of_each_rung_the_best_third_goes_on() -> None:
    run = search()
    check(run)
    trials = list(run.trials())
    assert len(trials) == 40  # a budget of trials counts children, however often they go on
    second = [t for t in trials if len(result_of(t).curve) >= 3]
    third = [t for t in second if t.state is TrialState.DONE]
    # A rung's best third go on; in an asynchronous search some went on who were in it for a while.
    assert len(second) >= 40 // 3
    assert len(third) >= len(second) // 3
    at_first = sorted((result_of(t).curve[0]["value"] for t in trials), reverse=True)
    assert {result_of(t).curve[0]["value"] for t in second} >= set(at_first[: 40 // 3])
    assert run.summary.epochs == 40 + 2 * len(second) + 6 * len(third)
    assert saved(run.reader) == Saved("ASHA", 40, 40 - len(third), 0, run.summary.epochs, 0.0, 40.0 * EPOCHS)


@pytest.mark.parametrize("keeps", ["tensors", "nothing", "not"])
def test_a_child_that_went_on_is_what_it_would_have_been(tmp_path: Path, keeps: str) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    whole = {t.number: t for t in search(Training(keeps), stopping=None, store="memory://").trials()}
    run = search(Training(keeps), store=store)
    check(run)
    again = 0.0
    for t in run.trials():
        curve, cost = result_of(t).curve, result_of(t).cost
        assert list(curve) == list(result_of(whole[t.number]).curve)[: len(curve)]
        assert cost.epochs == len(curve) + cost.epochs_again
        assert cost.seconds == cost.epochs
        again += cost.epochs_again
        if keeps == "not":
            assert cost.epochs_again == {1: 0, 3: 1, 9: 4}[len(curve)]
    found = saved(run.reader)
    assert found is not None
    assert (again > 0) == (keeps == "not")
    assert (found.again, found.epochs) == (again, run.summary.epochs)
    assert found.whole == 40 * EPOCHS
    assert f"({100 * (1 - found.epochs / found.whole):.0f} % fewer)" in str(found)
    assert ("a second time" in str(found)) == (again > 0)


def test_the_report_says_what_was_saved(tmp_path: Path) -> None:
    run = search(store=f"sqlite:///{tmp_path / 'runs.db'}", trials=12)
    assert f"{saved(run.reader)}." in run.report(tmp_path / "page.html").read_text()
    whole = search(store=f"sqlite:///{tmp_path / 'whole.db'}", trials=4, stopping=None)
    assert saved(whole.reader) is None
    assert "stopped by" not in whole.report(tmp_path / "whole.html").read_text()


def test_without_a_folder_a_child_that_keeps_tensors_begins_anew_and_this_is_counted() -> None:
    run = search(Training("tensors"))
    check(run)
    assert {result_of(t).cost.epochs_again for t in run.trials() if t.state is TrialState.DONE} == {4.0}


def test_the_median_stops_what_is_worse_than_half_and_tells_the_searcher_at_once() -> None:
    run = search(stopping=Median())
    trials = list(run.trials())
    assert {len(result_of(t).curve) for t in trials} >= {2, EPOCHS}
    assert all((t.state is TrialState.DONE) == (len(result_of(t).curve) == EPOCHS) for t in trials)
    assert {result_of(t).stopped_by for t in trials if t.state is TrialState.STOPPED} == {"rule"}
    found = saved(run.reader)
    assert found is not None
    assert found.whole - found.epochs == sum(EPOCHS - len(result_of(t).curve) for t in trials)
    assert 10 < found.stopped < 30
    assert run.best is not None
    assert run.best.reward == max(t.reward for t in search(stopping=None).trials() if t.reward is not None)


@pytest.mark.parametrize("stopping", [ASHA(), Median()])
def test_side_by_side_in_processes_nothing_is_lost(tmp_path: Path, stopping: Any) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    whole = {t.number: result_of(t).curve for t in search(Training(), stopping=None).trials()}
    pace = 0.02 if isinstance(stopping, Median) else 0.0  # so that a child hears that it is to stop
    run = search(Training(pace=pace), executor=ProcessPool(2), store=store, stopping=stopping, trials=24)
    trials = list(run.trials())
    assert len(trials) == 24
    assert {t.state for t in trials} == {TrialState.DONE, TrialState.STOPPED}
    for t in trials:
        assert list(result_of(t).curve) == list(whole[t.number])[: len(result_of(t).curve)]
        assert result_of(t).cost.epochs_again == 0
    if isinstance(stopping, ASHA):
        check(run)


def test_on_a_simulated_clock_the_median_stops_at_the_end_of_an_epoch() -> None:
    run = search(executor=Simulated(4), stopping=Median())
    stopped = [t for t in run.trials() if t.state is TrialState.STOPPED]
    assert stopped
    for t in stopped:
        assert result_of(t).stopped_by == "rule"
        assert result_of(t).cost.epochs == len(result_of(t).curve)
        assert result_of(t).cost.seconds == len(result_of(t).curve)


def test_on_a_simulated_clock_a_promoted_child_begins_when_it_was_promoted() -> None:
    run = search(executor=Simulated(4))
    check(run)
    busy = sum(result_of(t).cost.seconds for t in run.trials())
    assert run.summary.seconds >= busy / 4  # no worker went back in time
    assert run.summary.seconds <= busy / 4 + 2 * EPOCHS
    assert all(
        t.finished_at is not None and t.started_at is not None and t.finished_at >= t.started_at for t in run.trials()
    )


# --- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [1, 2, 4])
def test_a_search_too_short_for_the_rungs_has_a_winner_all_the_same(trials: int) -> None:
    run = search(trials=trials)
    check(run)
    assert run.summary.counts["done"] >= 1
    best = max(run.trials(), key=lambda t: result_of(t).curve[0]["value"])
    assert run.best is not None
    assert run.best.number == best.number


def test_a_favourite_that_fails_gives_way_to_the_next() -> None:
    sums = [sum_of(t) for t in search(trials=2, seed=1).trials()]
    assert len(set(sums)) == 2
    run = search(
        Training("nothing", diverges=max(sums)), trials=2, seed=1
    )  # in its third epoch, after it had been aside
    states = {sum_of(t): t.state for t in run.trials()}
    assert states == {max(sums): TrialState.FAILED, min(sums): TrialState.DONE}


def test_when_the_epochs_are_used_up_what_is_aside_is_stopped() -> None:
    run = search(trials=None, epochs=50)
    check(run)
    assert 50 <= run.summary.epochs <= 50 + EPOCHS
    assert run.summary.counts["stopped"] > 10


def test_what_time_cut_off_is_told_apart_from_what_the_rule_stopped() -> None:
    run = search(trials=None, seconds=31.5, executor=Simulated(3))
    stopped = [t for t in run.trials() if t.state is TrialState.STOPPED]
    by = {reason: [t for t in stopped if result_of(t).stopped_by == reason] for reason in ("rule", "time")}
    assert by["rule"]
    assert by["time"]
    assert len(by["time"]) <= 3
    assert not run.summary.counts["paused"]
    found = saved(run.reader)
    assert found is not None
    assert found.stopped == len(by["rule"])
    kept = sum(result_of(t).cost.epochs for t in run.trials() if result_of(t).stopped_by != "rule")
    assert found.whole == pytest.approx(kept + EPOCHS * found.stopped)


def test_the_seconds_of_a_child_are_those_of_all_its_pieces() -> None:
    limits = Limits(seconds=8.0)  # a whole training takes nine, each piece six at most
    with pytest.raises(AllTrialsFailed, match="all 40 trials") as caught:
        search(executor=Simulated(1), limits=limits)
    assert all(reason.startswith("seconds: ") for reason in caught.value.reasons)


# --- the searcher -----------------------------------------------------------------------------------------------------


class Waiting:
    """Proposes four at a time, and waits until it was told of all."""

    def start(self, space: Space, seed: int) -> Any:
        live = Random().start(space, seed)

        class Live:
            version = 0
            told: list[Trial] = []  # noqa: RUF012
            out = 0

            def capacity(self) -> int:
                return 4 if self.out == 0 else 0

            def ask(self, n: int) -> Any:
                self.out += n
                return live.ask(n)

            def tell(self, trials: Sequence[Trial]) -> None:
                self.out -= len(trials)
                self.told += trials

            def diagnostics(self) -> dict[str, float]:
                return {}

            def state_dict(self) -> dict[str, Any]:
                return {}

            def load_state_dict(self, state: Any) -> None:
                raise AssertionError

        return Live()


def test_a_searcher_that_waits_for_results_is_told_of_those_that_do_not_go_on() -> None:
    run = search(searcher=Waiting(), trials=24)
    check(run)
    assert run.summary.counts["done"] >= 1
    assert sum(run.summary.counts.values()) == 24


@pytest.mark.parametrize("searcher", [Reinforce(), RegularizedEvolution(population=5, sample=2)])
@pytest.mark.parametrize("stopping", [ASHA(), Median()])
def test_searchers_take_stopped_children_as_such(searcher: Any, stopping: Any) -> None:
    run = search(searcher=searcher, stopping=stopping, trials=60)
    trials = {t.number: t for t in run.trials()}
    assert run.summary.counts["done"] > 5
    for t in trials.values():
        assert t.parent is None or trials[t.parent].state is TrialState.DONE  # evolution never has one as a parent


# --- twins ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sums:
    """Pairs of numbers, of which the order does not matter."""

    def architecture(self, choose: Any) -> list[int]:
        return [choose("first", range(5)), choose("second", range(5))]

    def build(self, architecture: Any, task: Any) -> Any:
        raise NotImplementedError

    def canonical(self, architecture: Any) -> Any:
        return sorted(architecture)


@pytest.mark.parametrize("executor", [None, Simulated(3)])
def test_the_twin_of_a_child_that_is_aside_does_not_wait_for_ever(executor: Any) -> None:
    run = smith.search(Sums(), Training("nothing"), trials=60, store="memory://", stopping=ASHA(), executor=executor)
    trials = {t.number: t for t in run.trials()}
    assert len(trials) == 60
    copies = [t for t in trials.values() if result_of(t).copied_from is not None]
    assert {t.state for t in copies} == {TrialState.DONE, TrialState.STOPPED}
    trained: dict[tuple[int, ...], int] = {}
    for t in trials.values():
        form = tuple(sorted(decode(Sums(), t.genotype)))
        if (first := result_of(t).copied_from) is not None:
            assert result_of(t).cost == Cost()
            assert form == tuple(sorted(decode(Sums(), trials[first].genotype)))
        else:
            assert trained.setdefault(form, t.number) == t.number, "trained twice"
    found = saved(run.reader)
    assert found is not None
    assert found.children == len(trained)


# --- kills ------------------------------------------------------------------------------------------------------------


def _killed_after(moments: int, store: str, stopping: Any) -> None:
    """Runs in a forked process and kills itself with SIGKILL at one of the moments at which a kill could matter."""
    dying = dying_store(store, moments)
    search(Training(diverges=11), store=dying, stopping=stopping, trials=12, seed=3, searcher=Reinforce(minibatch=2))


@pytest.mark.parametrize(
    ("stopping", "cuts"),
    [(ASHA(eta=2), range(1, 118, 9)), (Median(trials=2), range(1, 50, 9))],
    ids=["asha", "median"],
)
def test_a_run_killed_at_any_moment_and_resumed_equals_one_that_was_not(
    tmp_path: Path, stopping: Any, cuts: range
) -> None:
    settings = {"trials": 12, "seed": 3, "searcher": Reinforce(minibatch=2), "stopping": stopping}
    whole = record(search(Training(diverges=11), store=f"sqlite:///{tmp_path / 'whole.db'}", **settings))
    assert {state for _, _, state, _, _ in whole} == {"done", "stopped", "failed"}
    fork = multiprocessing.get_context("fork")
    killed = paused = 0
    for cut in cuts:
        store = f"sqlite:///{tmp_path / f'cut{cut}.db'}"
        process = fork.Process(target=_killed_after, args=(cut, store, stopping))
        process.start()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        run = smith.open_run(store, "early")
        paused += run.summary.counts["paused"] > 0
        again = run.resume(space=digits, evaluator=Training(diverges=11))
        assert record(again) == whole, f"killed at moment {cut}"
    assert killed >= len(cuts) - 1
    assert paused > 0 or isinstance(stopping, Median)


@dataclass(frozen=True)
class Uneven(Training):
    """One as the others, but that children take unequally long, and nobody knows from one epoch what the next will show."""

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        rng = random.Random(genotype.canonical)
        curve = [{"epoch": epoch, "value": rng.random()} for epoch in range(1, self.epochs + 1)]
        for row in curve:
            context.report(int(row["epoch"]), {"value": row["value"]})
        return Result({"value": curve[-1]["value"]}, curve, Cost(9 + 200 * rng.random(), float(self.epochs)))


@pytest.mark.parametrize("faults", [None, Faults(failures_per_hour=10, seed=1)], ids=["none", "crashes"])
def test_no_rule_decides_anew_what_a_cluster_has_been_at(faults: Faults | None) -> None:
    """The epochs of children that ran when a run was cut off were heard of by then, with less to compare them with."""

    def times(run: smith.Run) -> list[Any]:
        return [(*kept, t.proposed_at, t.finished_at) for kept, t in zip(record(run), run.trials(), strict=True)]

    settings = {"stopping": Median(trials=4), "trials": 40, "seed": 2}
    whole = times(search(Uneven(), executor=Simulated(12, faults=faults), **settings))
    assert {"done", "stopped"} <= {state for _, _, state, *_ in whole}
    for cut in range(40, 140, 3):
        left, store = cut, open_store("memory://")

        def cut_off(_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(Uneven(), executor=Simulated(12, faults=faults), store=store, watch=cut_off, **settings)
        again = smith.open_run(store, "early").resume(space=digits, evaluator=Uneven())
        assert times(again) == whole, f"cut off at event {cut}"


def test_the_rule_is_part_of_the_run(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    run = search(store=store, trials=4, stopping=Median(grace=2))
    assert run.config["stopping"] == {"type": "stopping.Median", "grace": 2, "trials": 5, "metric": None, "higher_is_better": None}  # fmt: skip
    assert run.config["child_epochs"] == EPOCHS
    with pytest.raises(UsageError, match="another stopping"):
        run.resume(trials=8, space=digits, evaluator=Training(), stopping=ASHA())
    assert run.resume(trials=8, space=digits, evaluator=Training("nothing")).summary.counts["done"] > 4


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_the_checkpoint_of_a_child_that_may_go_on_is_not_collected(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}")
    seen: list[set[str]] = []

    def looking(event: Any) -> None:
        if isinstance(event, Trial) and event.state is TrialState.PAUSED:
            checkpoints = {
                t.result.checkpoint for t in store.read("early").trials() if not t.state.is_finished and t.result
            }
            assert checkpoints == needed(store)
            seen.append(needed(store))

    run = search(Training(), store=store, watch=looking)
    assert len(seen) > 40
    assert max(map(len, seen)) > 10
    assert needed(store) == set()  # none is needed any more
    gone = ArtifactFolder(store.artifacts or "", cap_bytes=0).collect(needed(store), grace_seconds=0)
    assert len(gone) == len(set.union(*seen)) == len(seen)
    check(run)


def test_a_child_whose_checkpoint_is_gone_or_damaged_begins_anew(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}")
    folder = Path(store.artifacts or "")
    spoiled = 0

    def spoiling(event: Any) -> None:
        nonlocal spoiled
        if isinstance(event, Trial) and event.state is TrialState.PAUSED:
            for file in folder.glob("*.safetensors"):
                spoiled += 1
                file.unlink() if spoiled % 2 else file.write_bytes(b"damaged")

    run = search(Training(), store=store, watch=spoiling)
    check(run)
    assert spoiled > 40
    assert {result_of(t).cost.epochs_again for t in run.trials() if t.state is TrialState.DONE} == {4.0}


def test_a_disk_that_is_full_costs_a_paused_child_its_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archsmith.core.errors import StoreError

    def full(*args: Any, **kwargs: Any) -> str:
        raise StoreError("no space left on device")

    monkeypatch.setattr(ArtifactFolder, "put", full)
    run = search(Training(), store=f"sqlite:///{tmp_path / 'runs.db'}")
    check(run)
    assert run.summary.counts["failed"] == 0


# --- evaluators of all kinds ------------------------------------------------------------------------------------------


def test_one_that_does_not_hear_is_trained_to_its_end_once() -> None:
    class Deaf:
        epochs = EPOCHS

        def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
            value = float(sum(decode(space, genotype)))
            for epoch in range(1, EPOCHS + 1):
                context.report(epoch, {"value": value})
            return Result({"value": value}, cost=Cost(1.0, float(EPOCHS)))

    run = search(Deaf(), trials=10)
    assert {t.state for t in run.trials()} == {TrialState.DONE}
    assert {len(result_of(t).curve) for t in run.trials()} == {EPOCHS}  # what it reported is its curve
    assert run.summary.epochs == 10 * EPOCHS


@pytest.mark.parametrize("stopping", [ASHA(), Median()])
def test_a_function_of_an_architecture_is_refused_in_words(stopping: Any) -> None:
    with pytest.raises(UsageError, match="no epochs"):
        search(lambda architecture: 1.0, stopping=stopping)


def test_what_is_not_reported_is_told_and_loses_no_trial(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    with pytest.raises(UsageError, match="'accuracy' of each epoch, and this evaluator reports value"):
        search(store=store, stopping=ASHA(metric="accuracy"))
    run = smith.open_run(store, "early")
    assert run.summary.status == "interrupted"
    assert sum(run.summary.counts.values()) == 1
    assert not any(t.state.is_finished for t in run.trials())


@pytest.mark.parametrize("stopping", [ASHA, "asha", 3])
def test_what_is_no_rule_is_refused(stopping: Any) -> None:
    with pytest.raises(UsageError, match=r"such as ASHA\(\)"):
        search(stopping=stopping)


# --- the pieces of a training -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.booleans())
def test_pieces_add_up(lengths: list[int], anew: bool) -> None:
    so_far, done, took = None, 0, 0
    for length in lengths:
        begin = 0 if anew else done
        curve = [{"epoch": e, "value": float(e)} for e in range(begin + 1, done + length + 1)]
        so_far = joined(
            so_far, Result({"value": float(done + length)}, curve, Cost(2.0 * len(curve), float(len(curve))))
        )
        done, took = done + length, took + len(curve)
    assert so_far is not None
    assert [row["epoch"] for row in so_far.curve] == list(range(1, done + 1))
    assert so_far.cost == Cost(2.0 * took, float(took), 0.0, float(took - done))
    assert so_far.metrics == {"value": float(done)}
    cancelled = joined(so_far, Result())  # before it began to go on
    assert cancelled == replace(so_far, checkpoint=None)
    assert Result.from_json(cancelled.to_json()).to_json() == cancelled.to_json()
