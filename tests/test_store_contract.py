"""Our stores keep the contract, and a store that breaks a promise fails the test of that promise."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archsmith.core.errors import RunLocked, StoreError, UnknownName, UsageError
from archsmith.core.executor import Clock
from archsmith.core.genotype import Genotype
from archsmith.core.store import Asked, Learned, LogEntry, RunReader, RunSummary, RunWriter, Store, Told
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.store import MemoryStore, SQLStore
from archsmith.store.memory import _MemoryReader, _MemoryWriter
from archsmith.testing import StoreContract


class TestMemory(StoreContract):
    def store(self, tmp_path: Path) -> Store:
        return MemoryStore()


class TestSQLite(StoreContract):
    def store(self, tmp_path: Path) -> Store:
        return SQLStore(tmp_path / "runs.db", busy_seconds=5)

    def again(self, store: Store) -> Store:
        return SQLStore(store.url.removeprefix("sqlite:///"), busy_seconds=5)


# --- the contract can fail: for each promise a store that breaks it ---------------------------------------------------


class BrokenStore(MemoryStore):
    """The store in memory with one thing wrong with it."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    @property
    def url(self) -> str:
        return "somewhere" if self.fault == "no url" else super().url

    def create(self, name: str, config: Mapping[str, Any]) -> RunWriter:
        if self.fault == "lowers names":
            name = name.lower()
        if self.fault == "takes a name again":
            self._runs.pop(name, None)
        if self.fault == "locks the whole store" and any(run.locked for run in self._runs.values()):
            raise RunLocked("one at a time")
        try:
            super().create(name, config)
        except UsageError:
            if self.fault == "takes any name":
                super().create("any", config)
                self._runs[name] = self._runs.pop("any")
            elif self.fault == "writes down anything":
                super().create(name, {})
            else:
                raise
        return BrokenWriter(self._runs[name], self.fault)

    def write(self, name: str) -> RunWriter:
        if self.fault == "two writers" and name in self._runs:
            self._runs[name].locked = False
        return BrokenWriter(self._unlocked(name), self.fault)

    def read(self, name: str) -> RunReader:
        if self.fault == "makes runs up" and name not in self._runs:
            self.create(name, {})
        if self.fault == "offers no names" and name not in self._runs:
            raise UnknownName("run", name, [])
        run = self._run(name)
        return BrokenReader(copy.deepcopy(run) if self.fault == "reads what was" else run, self.fault)

    def runs(self) -> list[RunSummary]:
        return super().runs()[:: -1 if self.fault == "oldest first" else 1]

    def delete(self, name: str) -> None:
        super().delete(name)
        if self.fault == "deletes all":
            self._runs.clear()


everywhere: dict[str, str] = {}


class BrokenReader(_MemoryReader):
    def __init__(self, run: Any, fault: str) -> None:
        super().__init__(run)
        self.fault = fault

    def trial(self, number: int) -> Trial:
        if self.fault == "counts from the end" and number == -1:
            number = len(self._run.genotypes) - 1
        trial = super().trial(number)
        if self.fault == "sorts answers":
            answers = dict(sorted(trial.genotype.answers.items()))
            trial = replace(trial, genotype=Genotype(trial.genotype.space, answers))
        if self.fault == "drops curves" and trial.result:
            trial = replace(trial, result=replace(trial.result, curve=[]))
        if self.fault == "no times":
            trial = replace(trial, finished_at=None)
        return trial

    def trials(self, start: int = 0) -> Iterator[Trial]:
        for trial in super().trials(start):
            if self.fault != "reads one page" or trial.number < 1000:
                yield trial

    def top(self, k: int) -> list[Trial]:
        found = super().top(k)
        return (
            sorted(found, key=lambda t: (-(t.reward or 0), -t.number)) if self.fault == "the later of equals" else found
        )

    def learned(self) -> list[Learned]:
        return super().learned()[-1:] if self.fault == "shows the last only" else super().learned()

    def summary(self) -> RunSummary:
        summary = super().summary()
        return replace(summary, epochs=0.0) if self.fault == "counts no epochs" else summary


class BrokenWriter(BrokenReader, _MemoryWriter):
    def __init__(self, run: Any, fault: str) -> None:
        if fault == "pauses are no state to keep":
            run.open.update({n: replace(t, result=None) for n, t in run.open.items()})
        if fault == "keeps them running":
            opened, run.open = run.open, {}
            _MemoryWriter.__init__(self, run)
            run.open.update(opened)
        else:
            _MemoryWriter.__init__(self, run)
        self.fault = fault
        if fault == "one folder for documents":
            run.documents = everywhere
        if fault == "the clock begins anew":
            self._ledger._seconds = 0.0

    def keep_time(self, clock: Clock) -> None:
        if self.fault != "goes by the wall":
            super().keep_time(clock)

    def propose(self, proposals: Sequence[Proposal]) -> list[Trial]:
        try:
            return super().propose(proposals)
        except UsageError:
            if self.fault != "writes down anything":
                raise
            return []

    def start(self, number: int, attempt: int = 1) -> Trial:
        if self.fault == "any move" and number not in self._run.open:
            return self.trial(0)
        trial = super().start(number, attempt)
        if self.fault == "one attempt" and trial.attempts > 1:
            trial = self._run.open[number] = replace(trial, attempts=1)
        return trial

    def finish(self, trials: Sequence[Trial], *, snapshot: Any = None, learned: Any = None) -> list[Trial]:
        for trial in trials:
            if self.fault == "overwrites" and trial.number in self._run.finished:
                self._run.finished[trial.number] = (None, "done", trial.reward, None, 0.0, 0.0, 0.0, 1)
                return [trial]
            known = self._run.open.get(trial.number)
            if self.fault == "every trial must begin" and known and known.state is TrialState.PROPOSED:
                raise StoreError("it has not begun")
        if self.fault == "snapshot on its own":
            finished = super().finish(trials, learned=learned)
            if snapshot is not None:
                self.save_snapshot(snapshot)
            return finished
        return super().finish(trials, snapshot=snapshot, learned=learned)

    def set_rewards(self, rewards: Mapping[int, float], *, snapshot: Any) -> list[Trial]:
        told = super().set_rewards(rewards, snapshot=snapshot)
        if self.fault == "tells of rewards twice":
            self._run.snapshot = (len(self._run.log) - 1, self._run.snapshot[1])
        return told

    def pause(self, trial: Trial) -> Trial:
        if self.fault == "pauses anything" and trial.number in self._run.open:
            known = self._run.open[trial.number] = replace(self._run.open[trial.number], state=TrialState.PAUSED)
            return known
        paused = super().pause(trial)
        if self.fault == "forgets what there was":
            self._run.open[trial.number] = replace(paused, result=None)
        return paused

    def tail(self) -> list[LogEntry]:
        if self.fault == "tail of everything":
            return [Asked(trials) if asked else Told(trials) for asked, trials in self._run.log]
        if self.fault == "an entry for each trial":
            return [type(entry)((number,)) for entry in super().tail() for number in entry.trials]
        return super().tail()

    def configure(self, changes: Mapping[str, Any]) -> None:
        if self.fault == "configures afresh":
            self._run.config = "{}"
        super().configure(changes)

    def close(self, status: str = "interrupted") -> None:
        if self.fault == "always says how it was closed":
            self._begun = True
        super().close(status)
        if self.fault == "never closes":
            self._closed = False


class KeepsReferences(MemoryStore):
    """Gives the same objects each time, so that one reader's changes are another's news."""

    def create(self, name: str, config: Mapping[str, Any]) -> RunWriter:
        super().create(name, config)
        cache: dict[int, Trial] = {}

        class Writer(_MemoryWriter):
            def trial(self, number: int) -> Trial:
                trial = super().trial(number)
                return cache.setdefault(number, trial) if trial.state.is_finished else trial

        return Writer(self._runs[name])


class BrokenContract(StoreContract):
    def __init__(self, fault: str) -> None:
        self.fault = fault

    def store(self, tmp_path: Path) -> Store:
        everywhere.clear()
        return KeepsReferences() if self.fault == "keeps references" else BrokenStore(self.fault)


BROKEN = [
    ("makes runs up", "test_an_empty_store_has_no_runs", ()),
    ("oldest first", "test_runs_are_listed_latest_first", ()),
    ("lowers names", "test_names_are_kept_as_they_are", ("ConvChain random 1",)),
    ("takes any name", "test_bad_names_are_refused", ("a/b",)),
    ("takes a name again", "test_a_name_is_taken_once", ()),
    ("offers no names", "test_an_unknown_name_offers_the_nearest", ()),
    ("deletes all", "test_delete_removes_a_run_and_nothing_else", ()),
    ("configures afresh", "test_configure_replaces_keys", ()),
    ("two writers", "test_a_run_has_one_writer", ()),
    ("locks the whole store", "test_runs_are_written_side_by_side", ()),
    ("reads what was", "test_a_reader_sees_each_step_at_once", ()),
    ("never closes", "test_a_closed_writer_writes_no_more", ()),
    ("always says how it was closed", "test_opening_a_finished_run_leaves_it_finished", ()),
    ("no times", "test_a_trial_goes_its_way", ()),
    ("every trial must begin", "test_a_trial_may_end_before_it_began", (TrialState.FAILED,)),
    ("one attempt", "test_a_lost_worker_is_another_attempt", ()),
    ("any move", "test_illegal_moves_are_refused", ()),
    ("overwrites", "test_results_are_never_overwritten", ()),
    ("tells of rewards twice", "test_a_reward_can_be_made_later", ()),
    ("counts from the end", "test_an_unknown_trial_is_told", ()),
    ("sorts answers", "test_genotypes_come_back_exactly", ("x",)),
    ("drops curves", "test_results_come_back_exactly", ()),
    ("writes down anything", "test_what_is_not_json_is_refused", ()),
    ("reads one page", "test_many_trials_are_streamed", ()),
    ("counts no epochs", "test_the_summary_follows", ()),
    ("the later of equals", "test_top_is_best_first_and_of_equals_the_earlier", ()),
    ("shows the last only", "test_learning_is_shown_in_order", ()),
    ("one folder for documents", "test_documents_are_kept_and_replaced", ()),
    ("an entry for each trial", "test_the_log_has_each_ask_and_tell_in_order", ()),
    ("tail of everything", "test_the_tail_begins_after_the_snapshot", ()),
    ("snapshot on its own", "test_a_snapshot_that_cannot_be_kept_keeps_nothing_of_the_call", ()),
    ("keeps them running", "test_resuming_proposes_again_what_was_running", ()),
    ("forgets what there was", "test_a_paused_trial_runs_on", ()),
    ("pauses are no state to keep", "test_what_a_kill_met_paused_is_paused_still", ()),
    ("pauses anything", "test_only_what_runs_and_has_a_result_is_paused", ()),
    ("the clock begins anew", "test_the_clock_goes_on_where_it_stood", ()),
    ("goes by the wall", "test_another_clock_keeps_the_time", ()),
    ("keeps references", "test_changing_what_was_given_or_received_changes_nothing", ()),
    ("no url", "test_the_store_says_where_it_is", ()),
]


@pytest.mark.parametrize(("fault", "test", "arguments"), BROKEN)
def test_the_contract_fails_on(fault: str, test: str, arguments: tuple[Any, ...], tmp_path: Path) -> None:
    getattr(BrokenContract("nothing"), test)(tmp_path, *arguments)  # the wrapping alone is no fault
    with pytest.raises((Exception, pytest.fail.Exception)):
        getattr(BrokenContract(fault), test)(tmp_path, *arguments)


def test_every_promise_is_broken_once() -> None:
    promises = [name for name, _ in inspect.getmembers(StoreContract) if name.startswith("test_")]
    assert sorted(test for _, test, _ in BROKEN) == sorted(promises)
