"""Writing one run in a database: one transaction, and one commit, for each event."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update

from archsmith.core.errors import CorruptStore, StoreError
from archsmith.core.executor import Clock
from archsmith.core.searcher import State
from archsmith.core.store import Asked, LogEntry, Told
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.store import tables
from archsmith.store.ledger import Ledger, Tally, check_status, reopened
from archsmith.store.payload import check_key, from_text, numbers_to_text, result, to_text
from archsmith.store.snapshot import dump_state, load_state
from archsmith.store.sql_reader import OPEN, TRIALS, SQLReader, summary_of
from archsmith.store.sqlite import RunLock, SQLiteFile
from archsmith.store.tables import documents, events, runs, snapshots, spaces, trials

_THIS_TRIAL = (trials.c.run == bindparam("_run"), trials.c.number == bindparam("_number"))
_START = update(trials).where(*_THIS_TRIAL).values({c: bindparam(c) for c in ("state", "started_at", "attempts")})
_FINISH = (
    update(trials).where(*_THIS_TRIAL).values({c: bindparam(c) for c in ("state", "reward", "finished_at", "told")})
)
_PAUSE = update(trials).where(*_THIS_TRIAL).values({c: bindparam(c) for c in ("state", "told")})
_STAND = ("proposed", "running", "done", "failed", "stopped", "paused", "best", "best_reward", "epochs")
_UPDATE_RUN = (
    update(runs)
    .where(runs.c.id == bindparam("_run"))
    .values({c: bindparam(c) for c in (*_STAND, "seconds", "updated", "status")})
)


class SQLWriter(SQLReader):
    """Writes one run; used by one thread. An event that cannot be committed changes nothing, here or on the disk."""

    def __init__(self, file: SQLiteFile, name: str, connection: Connection, lock: RunLock, *, is_new: bool) -> None:
        super().__init__(file, name, 0)
        self._connection = connection
        self._lock = lock
        self._closed = False
        # Whether anything was recorded: opening a finished run to add a document leaves it finished.
        self._begun = is_new
        self._places: dict[str, int] = {}
        with file.plain_errors(), connection.begin():
            self._resume(is_new)

    def _resume(self, is_new: bool) -> None:
        execute = self._connection.execute
        row = execute(select(runs).where(runs.c.name == self._name)).one()
        self._run = row.id
        summary_of(self._file, row)  # its types
        tally = Tally(**{field: getattr(row, field) for field in _STAND})
        last = self._connection.scalar(select(func.max(trials.c.number)).where(trials.c.run == row.id))
        if tally.trials != (0 if last is None else last + 1):
            raise CorruptStore(f"run {self._name!r} is damaged: it counts {tally.trials} trials, the last is {last}")
        self._seq = 1 + (self._connection.scalar(select(func.max(events.c.seq)).where(events.c.run == row.id)) or 0)
        self._places = {s.identity: s.number for s in execute(select(spaces).where(spaces.c.run == row.id))}
        found = execute(TRIALS.where(trials.c.run == row.id, trials.c.state.in_(OPEN))).all()
        unfinished = {t.number: reopened(t) for t in (self._trial(self._connection, row) for row in found)}
        paused = sum(trial.state is TrialState.PAUSED for trial in unfinished.values())
        tally = replace(tally, proposed=len(unfinished) - paused, running=0, paused=paused)
        self._ledger = Ledger(tally, unfinished, row.seconds)
        if is_new:
            return
        query_open = (trials.c.run == row.id, trials.c.state == TrialState.RUNNING.value)
        before = case((trials.c.told.is_(None), TrialState.PROPOSED.value), else_=TrialState.PAUSED.value)
        execute(update(trials).where(*query_open).values(state=before, started_at=None))
        who = to_text(this_process(), "writer")
        execute(insert(events), [self._event(self._seq, self._seq, "resumed", None, row.seconds, who)])
        status = "interrupted" if row.status == "running" else row.status  # left by a kill
        values = {"writer": who, "running": 0, "proposed": tally.proposed, "paused": paused, "status": status}
        execute(update(runs).where(runs.c.id == row.id).values(values))
        self._seq += 1

    def propose(self, proposals: Sequence[Proposal]) -> list[Trial]:
        at = self._ledger.elapsed()
        proposed, tally = self._ledger.proposed(proposals, at)
        if not proposed:
            return []
        new_spaces: list[dict[str, Any]] = []
        places, payloads = dict(self._places), []
        for trial in proposed:
            identity = to_text(trial.genotype.space, "the identity of a space")
            if identity not in places:
                places[identity] = len(places)
                new_spaces.append({"run": self._run, "number": places[identity], "identity": identity})
            payload = {"space": places[identity], "answers": trial.genotype.answers, "parent": trial.parent}
            drawn = {"replica": trial.replica, "version": trial.version}
            payload |= {key: value for key, value in drawn.items() if value is not None}
            payloads.append(to_text(payload, f"the genotype of trial {trial.number}"))
        log, rows = [], []
        for seq, (trial, text) in enumerate(zip(proposed, payloads, strict=True), self._seq):
            log.append(self._event(seq, self._seq, "asked", trial.number, at, text))
            rows.append(
                {
                    "run": self._run,
                    "number": trial.number,
                    "parent": trial.parent,
                    "state": trial.state.value,
                    "proposed_at": at,
                    "attempts": 0,
                    "asked": seq,
                }
            )
        with self._recording(log, proposed, tally, at) as connection:
            if new_spaces:
                connection.execute(insert(spaces), new_spaces)
            connection.execute(insert(trials), rows)
        self._places = places
        return proposed

    def start(self, number: int, attempt: int = 1) -> Trial:
        at = self._ledger.elapsed()
        trial, tally = self._ledger.started(number, at)
        change = {
            "_run": self._run,
            "_number": number,
            "state": "running",
            "started_at": at,
            "attempts": trial.attempts,
        }
        log = [self._event(self._seq, self._seq, "started", number, at, to_text({"attempt": attempt}, "attempt"))]
        with self._recording(log, [trial], tally, at) as connection:
            connection.execute(_START, change)
        return trial

    def finish(
        self,
        trials: Sequence[Trial],
        *,
        snapshot: State | None = None,
        learned: Mapping[str, float] | None = None,
    ) -> list[Trial]:
        at = self._ledger.elapsed()
        finished, tally = self._ledger.finished(trials, at)
        if not finished:
            if snapshot is not None:
                self.save_snapshot(snapshot)
            return []
        log, rows = [], []
        for seq, t in enumerate(finished, self._seq):
            outcome = {"state": t.state.value, "reward": t.reward, "result": t.result.to_json() if t.result else None}
            text = to_text(outcome, f"the result of trial {t.number}")
            log.append(self._event(seq, self._seq, "told", t.number, at, text))
            row = {"_run": self._run, "_number": t.number, "state": t.state.value, "reward": t.reward}
            rows.append({**row, "finished_at": at, "told": seq})
        last = self._seq + len(log) - 1
        state = None if snapshot is None else dump_state(snapshot)
        shown = numbers_to_text(learned, "what the searcher learned") if learned else None
        with self._recording(log, finished, tally, at) as connection:
            connection.execute(_FINISH, rows)
            if shown is not None:
                number = max(t.number for t in finished)
                values = {"run": self._run, "seq": last, "trial": number, "at": at, "shown": shown}
                connection.execute(insert(tables.learned), values)
            if state is not None:
                self._keep(connection, state, last)
        return finished

    def pause(self, trial: Trial) -> Trial:
        at = self._ledger.elapsed()
        paused, tally = self._ledger.paused(trial)
        assert paused.result is not None
        text = to_text({"result": paused.result.to_json()}, f"the result of trial {trial.number}")
        so_far = result(from_text(text, "a result")["result"], "a result")  # nothing shared with the caller
        paused = replace(paused, result=so_far)
        change = {"_run": self._run, "_number": trial.number, "state": paused.state.value, "told": self._seq}
        log = [self._event(self._seq, self._seq, "paused", trial.number, at, text)]
        with self._recording(log, [paused], tally, at) as connection:
            connection.execute(_PAUSE, change)
        return paused

    def save_snapshot(self, state: State) -> None:
        blob = dump_state(state)
        with self._transaction() as connection:
            self._keep(connection, blob, self._seq - 1)

    def snapshot(self) -> State | None:
        with self._file.reading() as connection:
            blob = connection.scalar(select(snapshots.c.state).where(snapshots.c.run == self._run))
        return None if blob is None else load_state(blob)

    def tail(self) -> list[LogEntry]:
        with self._file.reading() as connection:
            since = connection.scalar(select(snapshots.c.seq).where(snapshots.c.run == self._run)) or 0
            rows = connection.execute(
                select(events.c.entry, events.c.kind, events.c.trial)
                .where(events.c.run == self._run, events.c.seq > since, events.c.kind.in_(("asked", "told")))
                .order_by(events.c.seq)
            ).all()
        entries: list[LogEntry] = []
        for (_, kind), group in groupby(rows, key=lambda row: (row.entry, row.kind)):
            numbers = tuple([row.trial for row in group])
            entries.append(Asked(numbers) if kind == "asked" else Told(numbers))
        return entries

    def unfinished(self) -> list[Trial]:
        with self._file.reading() as connection:
            query = TRIALS.where(trials.c.run == self._run, trials.c.state.in_(OPEN)).order_by(trials.c.number)
            return [self._trial(connection, row) for row in connection.execute(query).all()]

    def configure(self, changes: Mapping[str, Any]) -> None:
        text = to_text({**self.summary().config, **changes}, "a run's configuration")
        at = self._ledger.elapsed()
        said = self._event(self._seq, self._seq, "configured", None, at, to_text(dict(changes), "configuration"))
        with self._transaction() as connection:
            connection.execute(insert(events), [said])
            values = {"config": text, "updated": now(), "seconds": at}
            connection.execute(update(runs).where(runs.c.id == self._run).values(values))
        self._seq += 1

    def put_document(self, key: str, value: Any) -> None:
        row = {"run": self._run, "key": check_key(key), "value": to_text(value, f"document {key!r}")}
        with self._transaction() as connection:
            connection.execute(delete(documents).where(documents.c.run == self._run, documents.c.key == key))
            connection.execute(insert(documents), row)

    def elapsed(self) -> float:
        return self._ledger.elapsed()

    def keep_time(self, clock: Clock) -> None:
        self._ledger.keep_time(clock)

    def close(self, status: str = "interrupted") -> None:
        check_status(status)
        if self._closed:
            return
        values: dict[str, Any] = {"seconds": self._ledger.elapsed(), "updated": now()}
        if status == "finished" or self._begun:
            values["status"] = status
        try:
            with self._transaction() as connection:
                connection.execute(update(runs).where(runs.c.id == self._run).values(values))
        finally:
            self._closed = True
            self._connection.close()
            self._lock.let_go()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._closed:
            raise StoreError(f"run {self._name!r} was closed; open it again to write")
        with self._file.plain_errors(), self._connection.begin():
            yield self._connection

    @contextmanager
    def _recording(
        self, log: list[dict[str, Any]], changed: Sequence[Trial], tally: Tally, at: float
    ) -> Iterator[Connection]:
        """The transaction of an event: the log, what the caller does, and where the run stands after it."""
        stand = {field: getattr(tally, field) for field in _STAND}
        stand |= {"_run": self._run, "seconds": at, "updated": now(), "status": "running"}
        with self._transaction() as connection:
            connection.execute(insert(events), log)
            yield connection
            connection.execute(_UPDATE_RUN, stand)
        self._seq += len(log)
        self._begun = True
        self._ledger.settle(changed, tally)

    def _event(self, seq: int, entry: int, kind: str, trial: int | None, at: float, payload: str) -> dict[str, Any]:
        return {
            "run": self._run,
            "seq": seq,
            "entry": entry,
            "kind": kind,
            "trial": trial,
            "at": at,
            "payload": payload,
        }

    def _keep(self, connection: Connection, state: bytes, seq: int) -> None:
        connection.execute(delete(snapshots).where(snapshots.c.run == self._run))
        connection.execute(insert(snapshots), {"run": self._run, "seq": seq, "state": state})


def this_process() -> dict[str, Any]:
    """Who writes, for the message that another process gets."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}


def now() -> str:
    """The wall clock, for people."""
    return datetime.now(UTC).isoformat()
