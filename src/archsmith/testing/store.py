"""What every store promises, as tests: inherit `StoreContract`, return your store, and run pytest.

class TestMine(StoreContract):
    def store(self, tmp_path):
        return MyStore(tmp_path / "runs")
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archsmith.core.errors import RunExists, RunLocked, StoreError, UnknownName, UsageError
from archsmith.core.executor import Clock
from archsmith.core.genotype import Genotype
from archsmith.core.store import Asked, RunWriter, Store, Told
from archsmith.core.trial import Cost, Failure, Proposal, Result, Trial, TrialState

NAMES = ("a", "ConvChain random 1", "größe=3", "'; DROP TABLE runs; --", "100 % <b>x & co", "名前", "🙂", "x" * 100)
"""Names of runs that a store must take; all else about them is the user's business."""

BAD_NAMES = ("", "x" * 101, "a/b", "a\\b", "..", ".hidden", "a\nb", "a\x00b", " a", "a ", "\ud800", "a\u202eb")
"""Names that a store must refuse: they do not fit on a line, or in the name of a file."""


class StoreContract:
    """The promises of `archsmith.core.store`. Override `store`, and `again` if yours outlives the process."""

    def store(self, tmp_path: Path) -> Store:
        """A new, empty store; `tmp_path` is a folder of its own."""
        raise NotImplementedError("override store() in your test class")

    def again(self, store: Store) -> Store:
        """The same store as another process would open it; by default the object itself."""
        return store

    # --- runs

    def test_an_empty_store_has_no_runs(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        assert store.runs() == []
        for method in (store.read, store.write, store.delete):
            with pytest.raises(UnknownName):
                method("a")

    def test_runs_are_listed_latest_first(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        for name in ("b", "c", "a"):
            store.create(name, {"seed": 1}).close("finished")
        assert [run.name for run in self.again(store).runs()] == ["a", "c", "b"]

    @pytest.mark.parametrize("name", NAMES)
    def test_names_are_kept_as_they_are(self, tmp_path: Path, name: str) -> None:
        store = self.store(tmp_path)
        store.create(name, {"of": name}).close()
        assert [run.name for run in store.runs()] == [name]
        assert self.again(store).read(name).summary().config == {"of": name}

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_bad_names_are_refused(self, tmp_path: Path, name: str) -> None:
        store = self.store(tmp_path)
        with pytest.raises(UsageError):
            store.create(name, {})
        assert store.runs() == []

    def test_a_name_is_taken_once(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {"seed": 1})
        with pytest.raises(RunExists):
            store.create("a", {"seed": 2})
        run.close()
        with pytest.raises(RunExists):
            self.again(store).create("a", {"seed": 2})
        assert store.read("a").summary().config == {"seed": 1}

    def test_an_unknown_name_offers_the_nearest(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        store.create("chain-1", {}).close()
        with pytest.raises(UnknownName, match="chain-1"):
            store.read("chian-1")

    def test_delete_removes_a_run_and_nothing_else(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        for name in ("a", "b"):
            with_trials(store.create(name, {}), [1.0, 2.0]).close("finished")
        store.delete("a")
        assert [run.name for run in store.runs()] == ["b"]
        assert len(list(store.read("b").trials())) == 2
        run = store.create("a", {})
        assert [*run.trials(), *run.tail(), run.snapshot()] == [None], "the new run is a fresh one"
        run.close()

    def test_configure_replaces_keys(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {"seed": 1, "budget": {"trials": 3}})
        run.configure({"budget": {"trials": 5}})
        run.close()
        assert self.again(store).read("a").summary().config == {"seed": 1, "budget": {"trials": 5}}

    # --- one writer, and readers meanwhile

    def test_a_run_has_one_writer(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        for other in (store, self.again(store)):
            for method in (other.write, other.delete):
                with pytest.raises(RunLocked):
                    method("a")
        run.propose([proposal(0)])  # the first writer goes on unharmed
        run.close()
        second = self.again(store).write("a")
        with pytest.raises(RunLocked):
            store.write("a")
        second.close()
        store.delete("a")

    def test_runs_are_written_side_by_side(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        a, b = store.create("a", {}), self.again(store).create("b", {})
        for i in range(3):
            with_trials(a, [float(i)])
            with_trials(b, [-float(i), 10.0])
        assert [t.reward for t in a.trials()] == [0, 1, 2]
        assert [t.reward for t in b.trials()] == [0, 10, -1, 10, -2, 10]
        a.close()
        b.close()

    def test_a_reader_sees_each_step_at_once(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        reader, stands = self.again(store).read("a"), []

        def look() -> None:
            stands.append((reader.summary().status, [t.state.value for t in reader.trials()]))

        look()
        [trial] = run.propose([proposal(0)])
        look()
        run.start(0)
        look()
        run.finish([done(trial, 0.5)])
        look()
        run.close("finished")
        look()
        assert stands == [
            ("running", []),
            ("running", ["proposed"]),
            ("running", ["running"]),
            ("running", ["done"]),
            ("finished", ["done"]),
        ]

    def test_a_closed_writer_writes_no_more(self, tmp_path: Path) -> None:
        run = self.store(tmp_path).create("a", {})
        run.close("finished")
        run.close("interrupted")  # the second call does nothing
        assert run.summary().status == "finished"
        with pytest.raises(StoreError):
            run.propose([proposal(0)])
        with pytest.raises(StoreError):
            run.put_document("x", 1)

    def test_opening_a_finished_run_leaves_it_finished(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        with_trials(store.create("a", {}), [1.0]).close("finished")
        run = store.write("a")
        run.put_document("winner", {"accuracy": 0.9})
        run.close()
        assert store.read("a").summary().status == "finished"
        run = store.write("a")
        run.propose([proposal(1)])
        run.close()
        assert store.read("a").summary().status == "interrupted", "it has an open trial now"

    # --- trials

    def test_a_trial_goes_its_way(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        [_, proposed] = run.propose([proposal(0), proposal(1, parent=0)])
        assert (proposed.number, proposed.state, proposed.parent) == (1, TrialState.PROPOSED, 0)
        assert proposed.genotype == proposal(1).genotype
        started = run.start(1)
        assert (started.state, started.attempts, started.result) == (TrialState.RUNNING, 1, None)
        [told] = run.finish([done(proposed, 0.25)])
        assert (told.state, told.reward, told.attempts, told.parent) == (TrialState.DONE, 0.25, 1, 0)
        assert told.started_at is not None
        assert told.finished_at is not None
        assert 0 <= told.proposed_at <= told.started_at <= told.finished_at <= run.elapsed()
        run.close()
        assert self.again(store).read("a").trial(1) == told

    @pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.STOPPED])
    def test_a_trial_may_end_before_it_began(self, tmp_path: Path, state: TrialState) -> None:
        run = self.store(tmp_path).create("a", {})
        [trial] = run.propose([proposal(0)])
        [told] = run.finish([replace(trial, state=state)])
        assert (told.state, told.reward, told.result, told.started_at) == (state, None, None, None)
        assert run.trial(0) == told
        run.close()

    def test_a_lost_worker_is_another_attempt(self, tmp_path: Path) -> None:
        run = self.store(tmp_path).create("a", {})
        run.propose([proposal(0)])
        assert [run.start(0, attempt).attempts for attempt in (1, 2, 3)] == [1, 2, 3]
        assert run.summary().counts["running"] == 1
        run.close()

    def test_illegal_moves_are_refused(self, tmp_path: Path) -> None:
        run = self.store(tmp_path).create("a", {})
        [trial] = run.propose([proposal(0)])
        refused: list[Callable[[], object]] = [
            lambda: run.start(1),
            lambda: run.start(-1),
            lambda: run.finish([done(trial, 1.0)]),  # it never ran
            lambda: run.finish([trial]),  # proposed is no end
            lambda: run.finish([done(replace(trial, number=7), 1.0)]),
        ]
        for move in refused:
            with pytest.raises(StoreError):
                move()
        run.start(0)
        wrong = [
            replace(done(trial, 1.0), reward=None),
            replace(done(trial, 1.0), reward=math.nan),
            replace(done(trial, 1.0), reward=math.inf),
            replace(done(trial, 1.0), result=None),
            replace(trial, state=TrialState.FAILED, reward=1.0),
        ]
        for end in wrong:
            with pytest.raises(StoreError):
                run.finish([end])
        with pytest.raises(StoreError):
            run.finish([done(trial, 1.0), done(trial, 2.0)])
        assert run.trial(0).state == TrialState.RUNNING, "what is refused changes nothing"
        assert run.tail() == [Asked((0,))]
        run.finish([done(trial, 1.0)])
        run.close()

    def test_results_are_never_overwritten(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = with_trials(store.create("a", {}), [0.5])
        for end in (done(run.trial(0), 0.9), replace(run.trial(0), state=TrialState.FAILED, reward=None)):
            with pytest.raises(StoreError):
                run.finish([end])
            with pytest.raises(StoreError):
                run.start(0)
        [other] = run.propose([proposal(1)])
        run.start(1)
        with pytest.raises(StoreError):
            run.finish([done(other, 0.7), done(run.trial(0), 0.9)])
        assert run.trial(1).state == TrialState.RUNNING, "one refused trial refuses the call"
        run.close()
        run = self.again(store).write("a")
        with pytest.raises(StoreError):
            run.finish([done(run.trial(0), 0.9)])
        assert run.trial(0).reward == 0.5
        assert run.summary().best_reward == 0.5
        run.close()

    def test_a_reward_can_be_made_later(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = with_trials(store.create("a", {}), [0.5])
        without = [
            replace(
                done(trial, 0.0, epochs=3.0),
                state=TrialState.FAILED,
                reward=None,
                result=Result({"accuracy": accuracy}, [], Cost(1.0, 3.0), failure),
            )
            for trial, accuracy, failure in zip(
                run.propose([proposal(1), proposal(2)]),
                (0.7, 0.9),
                (Failure("reward", "it needs 'loss'"), Failure("diverged", "the loss is NaN")),
                strict=True,
            )
        ]
        told = run.finish(without)
        assert [trial.lacks_reward for trial in told] == [True, False]
        for wrong in ({0: 0.9}, {2: 0.9}, {1: math.nan}, {1: 0.7, 0: 0.9}):
            with pytest.raises(StoreError):
                run.set_rewards(wrong, snapshot={"told": 9})
        assert [run.trial(1), run.snapshot()] == [told[0], None], "what is refused changes nothing"
        run.set_rewards({1: 0.7}, snapshot={"told": 4})
        run.close()
        run = self.again(store).write("a")
        trial = run.trial(1)
        assert (trial.state, trial.reward, trial.finished_at) == (TrialState.DONE, 0.7, told[0].finished_at)
        assert trial.result == replace(without[0].result or Result(), failure=None)
        summary = run.summary()
        assert (summary.best, summary.best_reward, summary.epochs) == (1, 0.7, 7.0), "its epochs count once"
        assert (summary.counts["done"], summary.counts["failed"]) == (2, 1)
        assert [t.number for t in run.top(5)] == [1, 0]
        assert (run.snapshot(), run.tail()) == ({"told": 4}, []), "what came before is replayed no more"
        with pytest.raises(StoreError):
            run.set_rewards({1: 0.8}, snapshot={"told": 5})
        run.close()

    def test_an_unknown_trial_is_told(self, tmp_path: Path) -> None:
        run = with_trials(self.store(tmp_path).create("a", {}), [0.5])
        for number in (1, -1, 2**70):
            with pytest.raises(UnknownName):
                run.trial(number)
        run.close()

    @pytest.mark.parametrize("answer", ["ä", "'\"\\", "\x00", "\ud800", "</script>", 2**70, 0.1, -0.0, True, None, []])
    def test_genotypes_come_back_exactly(self, tmp_path: Path, answer: Any) -> None:
        store = self.store(tmp_path)
        genotype = Genotype(
            {"name": "S", "version": 2, "options": {"x": [1, {"y": None}]}}, {"c": answer, "1.a": [1, "b"]}
        )
        run = store.create("a", {})
        run.propose([Proposal(genotype), proposal(1), Proposal(genotype)])
        run.close()
        for number in (0, 2):
            found = self.again(store).read("a").trial(number).genotype
            assert repr((found.space, found.answers)) == repr((genotype.space, genotype.answers))
            assert list(found.answers) == ["c", "1.a"], "answers keep the order they were given in"

    def test_results_come_back_exactly(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        failure = Failure("diverged", "größe \ud800 \x00", "Traceback:\n  ...")
        result = Result(
            metrics={"accuracy": 0.1 + 0.2, "loss": math.inf, "parameters": 4_201_630},
            curve=[{"epoch": 1, "accuracy": 1e-300}, {"epoch": 2, "accuracy": -math.inf}],
            cost=Cost(1.5, 2.25),
            failure=failure,
            artifact="0" * 64,
        )
        [trial, _] = run.propose([proposal(0), proposal(1)])
        run.start(0)
        run.finish([replace(trial, state=TrialState.FAILED, result=result)])
        run.start(1)
        run.finish([replace(run.trial(1), state=TrialState.FAILED, result=Result(metrics={"loss": math.nan}))])
        run.close()
        found = self.again(store).read("a")
        assert found.trial(0).result == result
        kept = found.trial(1).result
        assert kept is not None
        assert math.isnan(kept.metrics["loss"])

    def test_what_is_not_json_is_refused(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        for bad in (object(), {1, 2}, math.nan, b"x"):
            with pytest.raises(UsageError):
                run.propose([proposal(0), Proposal(Genotype({"name": "S"}, {"c": bad}))])  # type: ignore[dict-item]
            with pytest.raises(UsageError):
                run.put_document("x", bad)
            with pytest.raises(UsageError):
                store.create("b", {"x": bad})
        assert list(run.trials()) == []
        assert run.documents() == []
        assert len(store.runs()) == 1
        run.close()

    def test_many_trials_are_streamed(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        run.propose([proposal(i) for i in range(1203)])
        run.close()
        reader = self.again(store).read("a")
        assert [t.number for t in reader.trials()] == list(range(1203))
        assert [t.number for t in reader.trials(700)] == list(range(700, 1203))
        assert list(reader.trials(1203)) == []
        assert [t.number for t in itertools.islice(reader.trials(1000), 2)] == [1000, 1001]

    # --- what is kept up to date

    def test_the_summary_follows(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {"x": 1})
        assert run.summary().best is None
        assert run.summary().best_reward is None
        first = run.propose([proposal(i) for i in range(5)])
        for number in (0, 1, 2):
            run.start(number)
        run.finish([done(first[0], 0.5, epochs=2.0), replace(first[1], state=TrialState.FAILED, result=Result())])
        run.finish([replace(first[4], state=TrialState.STOPPED, result=Result(cost=Cost(1.0, 0.5)))])
        run.finish([done(first[2], 0.25, epochs=1.0)])
        run.close("finished")
        summary = self.again(store).read("a").summary()
        assert summary.counts == {"proposed": 1, "running": 0, "done": 2, "failed": 1, "stopped": 1, "paused": 0}
        assert (summary.best, summary.best_reward, summary.epochs) == (0, 0.5, 3.5)
        assert summary.status == "finished"
        assert 0 <= summary.seconds < 600
        assert summary.created <= summary.updated
        assert summary.config == {"x": 1}
        assert self.again(store).runs() == [summary]

    def test_top_is_best_first_and_of_equals_the_earlier(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        rewards = [0.2, 0.9, -1.0, 0.9, 0.5, 0.9, -math.pi, 0.0]
        trials = run.propose([proposal(i) for i in range(len(rewards) + 2)])
        for number in (5, 3, 0, 1, 2, 4, 6, 7):  # a later trial may be told first
            run.start(number)
            run.finish([done(trials[number], rewards[number])])
            [best] = run.top(1)
            assert (run.summary().best, run.summary().best_reward) == (best.number, best.reward)
        run.finish([replace(trials[8], state=TrialState.FAILED, result=Result())])
        run.close()
        reader = self.again(store).read("a")
        assert [t.number for t in reader.top(20)] == [1, 3, 5, 4, 0, 7, 2, 6]
        assert [t.reward for t in reader.top(3)] == [0.9, 0.9, 0.9]
        assert reader.top(0) == []

    def test_learning_is_shown_in_order(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        trials = run.propose([proposal(i) for i in range(4)])
        for trial in trials:
            run.start(trial.number)
        run.finish([done(trials[2], 1.0)], learned={"entropy": 1.5})
        run.finish([done(trials[0], 1.0)])
        run.finish([done(trials[3], 1.0), done(trials[1], 1.0)], learned={"entropy": math.nan, "baseline": 0.25})
        run.close()
        rows = self.again(store).read("a").learned()
        assert [row.trial for row in rows] == [2, 3]
        assert rows[0].at <= rows[1].at
        assert rows[0].values == {"entropy": 1.5}
        assert rows[1].values["baseline"] == 0.25
        assert math.isnan(rows[1].values["entropy"])

    def test_documents_are_kept_and_replaced(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        assert run.document("x") is None
        assert run.documents() == []
        run.put_document("x", {"a": [1, 2.5, None, "ü"]})
        run.put_document("finish", 3)
        run.put_document("x", ["new"])
        run.close()
        other = store.create("b", {})
        reader = self.again(store).read("a")
        assert reader.documents() == ["finish", "x"]
        assert reader.document("x") == ["new"]
        assert reader.document("finish") == 3
        assert other.documents() == [], "documents belong to their run"
        other.close()

    # --- resuming

    def test_the_log_has_each_ask_and_tell_in_order(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        assert run.tail() == []
        first = run.propose([proposal(0), proposal(1), proposal(2)])
        run.start(0)
        run.start(2)
        run.finish([done(first[2], 0.1), done(first[0], 0.2)])
        run.propose([proposal(3)])
        run.configure({"x": 1})
        run.finish([replace(first[1], state=TrialState.STOPPED)])
        expected = [Asked((0, 1, 2)), Told((2, 0)), Asked((3,)), Told((1,))]
        assert run.tail() == expected
        run.close()
        run = self.again(store).write("a")
        assert run.tail() == expected
        run.close()

    def test_the_tail_begins_after_the_snapshot(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        assert run.snapshot() is None
        trials = run.propose([proposal(0), proposal(1)])
        run.start(0)
        run.start(1)
        state: dict[str, Any] = {
            "step": 1,
            "w": np.arange(6, dtype=np.float32).reshape(2, 3),
            "rng": [2**100, [0.1, None]],
        }
        run.finish([done(trials[0], 0.1)], snapshot=state)
        assert run.tail() == []
        run.finish([done(trials[1], 0.2)])
        run.propose([proposal(2)])
        assert run.tail() == [Told((1,)), Asked((2,))]
        run.close()
        run = self.again(store).write("a")
        found = run.snapshot()
        assert found is not None
        assert found["step"] == 1
        assert found["rng"] == [2**100, [0.1, None]]
        assert found["w"].dtype == np.float32
        assert np.array_equal(found["w"], state["w"])
        assert run.tail() == [Told((1,)), Asked((2,))]
        run.save_snapshot({"step": 2})
        assert run.tail() == []
        assert run.snapshot() == {"step": 2}, "the last snapshot is the one that is kept"
        run.propose([proposal(3)])
        assert run.tail() == [Asked((3,))]
        run.close()

    def test_a_snapshot_that_cannot_be_kept_keeps_nothing_of_the_call(self, tmp_path: Path) -> None:
        run = self.store(tmp_path).create("a", {})
        [trial] = run.propose([proposal(0)])
        run.start(0)
        with pytest.raises(UsageError):
            run.finish([done(trial, 0.5)], snapshot={"x": object()})
        assert run.trial(0).state == TrialState.RUNNING
        assert run.tail() == [Asked((0,))]
        assert run.snapshot() is None
        run.finish([done(trial, 0.5)])
        run.close()

    def test_resuming_proposes_again_what_was_running(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        trials = run.propose([proposal(i) for i in range(4)])
        for number in (0, 1, 3):
            run.start(number)
        run.finish([done(trials[1], 0.5)])
        run.close()
        run = self.again(store).write("a")
        unfinished = run.unfinished()
        assert [(t.number, t.state, t.attempts, t.started_at) for t in unfinished] == [
            (0, TrialState.PROPOSED, 1, None),
            (2, TrialState.PROPOSED, 0, None),
            (3, TrialState.PROPOSED, 1, None),
        ]
        assert [t.genotype for t in unfinished] == [proposal(i).genotype for i in (0, 2, 3)]
        assert run.summary().counts == {"proposed": 3, "running": 0, "done": 1, "failed": 0, "stopped": 0, "paused": 0}
        assert run.start(0).attempts == 2
        run.finish([done(unfinished[0], 0.75)])
        assert [t.number for t in run.propose([proposal(4)])] == [4], "numbers go on"
        assert [t.number for t in run.unfinished()] == [2, 3, 4]
        assert run.summary().best == 0
        run.close()

    def test_a_paused_trial_runs_on(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        [trial, other] = run.propose([proposal(0), proposal(1)])
        run.start(0)
        so_far = replace(done(trial, 0.5), reward=None)
        paused = run.pause(so_far)
        assert (paused.state, paused.reward, paused.result) == (TrialState.PAUSED, None, so_far.result)
        assert (paused.attempts, paused.finished_at) == (1, None)
        assert self.again(store).read("a").trial(0) == run.trial(0) == paused
        counts = {"proposed": 1, "running": 0, "done": 0, "failed": 0, "stopped": 0, "paused": 1}
        assert run.summary().counts == counts
        assert (run.summary().best, run.top(3), run.tail()) == (None, [], [Asked((0, 1))]), "nobody was told yet"
        assert run.unfinished() == [paused, other]
        again = run.start(0)
        assert (again.state, again.attempts, again.result) == (TrialState.RUNNING, 2, so_far.result)
        assert run.trial(0) == again, "readers see what there is so far"
        farther = replace(so_far, result=replace(so_far.result or Result(), checkpoint="c" * 64, cost=Cost(1.0, 3.0)))
        assert run.pause(farther).result == farther.result, "the later pause counts"
        assert run.trial(0).result == farther.result
        run.start(0)
        [told] = run.finish([done(trial, 0.75, epochs=9.0)])
        assert (told.state, told.reward, told.attempts) == (TrialState.DONE, 0.75, 3)
        run.start(1)
        run.pause(replace(so_far, number=1))
        [stopped] = run.finish([replace(other, state=TrialState.STOPPED, result=so_far.result)])
        run.close()
        reader = self.again(store).read("a")
        assert [reader.trial(0), reader.trial(1)] == [told, stopped]
        summary = reader.summary()
        counts = {"proposed": 0, "running": 0, "done": 1, "failed": 0, "stopped": 1, "paused": 0}
        assert (summary.counts, summary.best, summary.epochs) == (counts, 0, 10.0), "each epoch is counted once"

    def test_what_a_kill_met_paused_is_paused_still(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = store.create("a", {})
        trials = run.propose([proposal(i) for i in range(4)])
        kept = [replace(done(trial, trial.number / 10), reward=None) for trial in trials]
        for number in (0, 1, 2):
            run.start(number)
        for number in (0, 1):
            run.pause(kept[number])
        run.start(1)  # and it is interrupted there, as 2 is in its first attempt
        run.close()
        for attempts in (2, 2):  # opening changes it once, and no more after that
            run = self.again(store).write("a")
            assert [(t.number, t.state, t.attempts) for t in run.unfinished()] == [
                (0, TrialState.PAUSED, 1),
                (1, TrialState.PAUSED, attempts),
                (2, TrialState.PROPOSED, 1),
                (3, TrialState.PROPOSED, 0),
            ]
            assert [t.result for t in run.unfinished()] == [kept[0].result, kept[1].result, None, None]
            counts = {"proposed": 2, "running": 0, "done": 0, "failed": 0, "stopped": 0, "paused": 2}
            assert run.summary().counts == counts
            assert run.tail() == [Asked((0, 1, 2, 3))]
            run.close()
        run = self.again(store).write("a")
        assert run.start(1).attempts == 3
        run.finish([done(trials[1], 0.5)])
        run.finish([replace(trials[0], state=TrialState.STOPPED, result=kept[0].result)])
        assert run.summary().counts["paused"] == 0
        assert run.tail() == [Asked((0, 1, 2, 3)), Told((1,)), Told((0,))]
        run.close()

    def test_only_what_runs_and_has_a_result_is_paused(self, tmp_path: Path) -> None:
        run = self.store(tmp_path).create("a", {})
        [trial, _] = run.propose([proposal(0), proposal(1)])
        so_far = replace(done(trial, 0.5), reward=None)
        with pytest.raises(StoreError):
            run.pause(so_far)  # it never ran
        run.start(0)
        with pytest.raises(StoreError):
            run.pause(trial)  # no result
        assert run.trial(0).state == TrialState.RUNNING
        run.pause(so_far)
        refused: list[Callable[[], object]] = [
            lambda: run.pause(so_far),
            lambda: run.finish([done(trial, 0.5)]),  # it has to run on before it is done
            lambda: run.pause(replace(so_far, number=1)),
            lambda: run.pause(replace(so_far, number=2)),
        ]
        for move in refused:
            with pytest.raises(StoreError):
                move()
        found = run.trial(0)
        assert (found.state, found.result) == (TrialState.PAUSED, so_far.result), "what is refused changes nothing"
        assert found.result is not None
        found.result.metrics["accuracy"] = 9.0  # type: ignore[index]
        assert run.trial(0).result == so_far.result, "and neither does what is done to what was read"
        run.start(0)
        run.finish([done(trial, 0.5)])
        with pytest.raises(StoreError):
            run.pause(so_far)
        run.close()

    def test_the_clock_goes_on_where_it_stood(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        run = with_trials(store.create("a", {}), [1.0])
        before = run.elapsed()
        assert 0 < before <= run.elapsed()
        run.close()
        stopped = store.read("a").summary().seconds
        run = self.again(store).write("a")
        assert before <= stopped <= run.elapsed() < stopped + 60
        [trial] = run.propose([proposal(1)])
        assert trial.proposed_at >= stopped
        run.close()

    def test_another_clock_keeps_the_time(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        clock = Clock(77.0)
        run = store.create("a", {})
        run.keep_time(clock)
        assert clock.seconds == run.elapsed() == 0.0, "a new run begins at 0, whatever the clock showed"
        clock.seconds = 1000.0
        [trial] = run.propose([proposal(0)])
        clock.seconds = 5000.0
        run.start(0)
        clock.seconds = 9000.0
        [finished] = run.finish([done(trial, 1.0)])
        assert (finished.proposed_at, finished.started_at, finished.finished_at) == (1000.0, 5000.0, 9000.0)
        run.close()
        assert store.read("a").summary().seconds == 9000.0
        run, clock = self.again(store).write("a"), Clock()
        run.keep_time(clock)
        assert clock.seconds == run.elapsed() == 9000.0, "the clock is set to where the record ends"
        run.close()

    # --- values, not references

    def test_changing_what_was_given_or_received_changes_nothing(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        config: dict[str, Any] = {"deep": {"x": [1]}}
        run = store.create("a", config)
        config["deep"]["x"].append(2)
        given = proposal(0)
        before = Genotype(copy.deepcopy(dict(given.genotype.space)), copy.deepcopy(dict(given.genotype.answers)))
        [trial] = run.propose([given])
        spoil(trial.genotype)
        spoil(given.genotype)
        run.start(0)
        metrics, curve = {"accuracy": 0.5}, [{"epoch": 1.0, "accuracy": 0.5}]
        state: dict[str, Any] = {"w": np.zeros(2), "x": [1]}
        learned, document = {"entropy": 1.0}, {"x": [1]}
        result = Result(metrics=metrics, curve=curve)
        run.finish([replace(trial, state=TrialState.DONE, reward=0.5, result=result)], snapshot=state, learned=learned)
        run.put_document("x", document)
        metrics["accuracy"] = curve[0]["accuracy"] = learned["entropy"] = 9.0
        state["w"] += 1
        state["x"].append(2)
        document["x"].append(2)
        for _ in range(2):  # what is read is spoiled as well, and read again
            for found in (run.trial(0), *run.top(1), *run.trials()):
                assert found.genotype == before
                assert found.result is not None
                assert dict(found.result.metrics) == {"accuracy": 0.5}
                assert dict(found.result.curve[0]) == {"epoch": 1.0, "accuracy": 0.5}
                spoil(found.genotype)
                found.result.metrics["accuracy"] = 9.0  # type: ignore[index]
                found.result.curve[0]["accuracy"] = 9.0  # type: ignore[index]
            assert run.summary().config == {"deep": {"x": [1]}}
            run.summary().config["deep"]["x"].append(3)
            assert [dict(row.values) for row in run.learned()] == [{"entropy": 1.0}]
            run.learned()[0].values["entropy"] = 9.0  # type: ignore[index]
            assert run.document("x") == {"x": [1]}
            run.document("x")["x"].append(3)  # type: ignore[index]
            snapshot = run.snapshot()
            assert snapshot is not None
            assert snapshot["x"] == [1]
            assert not snapshot["w"].any()
            snapshot["w"][:] = 9
            snapshot["x"].append(3)
        run.close()

    def test_the_store_says_where_it_is(self, tmp_path: Path) -> None:
        store = self.store(tmp_path)
        assert isinstance(store.url, str)
        assert "://" in store.url
        assert store.artifacts is None or isinstance(store.artifacts, str)


def proposal(i: int, parent: int | None = None) -> Proposal:
    """A proposal that differs from that of any other `i`."""
    space = {"name": "Contract", "version": 1, "options": {"layers": 2, "sizes": [1, 3, 5]}}
    return Proposal(Genotype(space, {"0.size": i, "1.size": 3, "1.inputs": [0]}), parent)


def done(trial: Trial, reward: float, epochs: float = 1.0) -> Trial:
    """The trial as done."""
    result = Result(
        metrics={"accuracy": reward}, curve=[{"epoch": 1, "accuracy": reward}], cost=Cost(seconds=0.5, epochs=epochs)
    )
    return replace(trial, state=TrialState.DONE, reward=reward, result=result)


def with_trials(run: RunWriter, rewards: Sequence[float]) -> RunWriter:
    """The run with a trial more for each reward, told one after another."""
    for reward in rewards:
        number = sum(run.summary().counts.values())
        [trial] = run.propose([proposal(number)])
        run.start(number)
        run.finish([done(trial, reward)])
    return run


def spoil(genotype: Genotype) -> None:
    """Change a genotype in place, as a careless caller might."""
    answers, space = genotype.answers, genotype.space
    assert isinstance(answers, dict)
    assert isinstance(space, Mapping)
    answers["0.size"] = "spoiled"
    answers["1.inputs"].append("spoiled")
    space["options"]["sizes"].append("spoiled")
    space["name"] = "spoiled"  # type: ignore[index]
