"""Writing one run in a database: one transaction, and one commit, for each event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Update, bindparam, case, delete, func, insert, select, update

from archsmith.core.artifacts import digests_in
from archsmith.core.errors import CorruptStore, RunLocked, StoreError, UnknownName
from archsmith.core.executor import Clock
from archsmith.core.searcher import State
from archsmith.core.store import Asked, LogEntry, Told
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.store import tables
from archsmith.store.database import Claim, Database, Writing, id_of
from archsmith.store.holder import now, this_process
from archsmith.store.ledger import Ledger, Tally, check_status, reopened
from archsmith.store.payload import (
    check_key,
    config_text,
    from_text,
    numbers_to_text,
    object_from_text,
    result,
    to_text,
)
from archsmith.store.snapshot import dump_state, load_state
from archsmith.store.sql_reader import OPEN, TRIALS, SQLReader, summary_of
from archsmith.store.tables import documents, events, runs, snapshots, spaces, trials

_THIS_TRIAL = (trials.c.run == bindparam("_run"), trials.c.number == bindparam("_number"))
_START = update(trials).where(*_THIS_TRIAL).values({c: bindparam(c) for c in ("state", "started_at", "attempts")})
_FINISH = (
    update(trials).where(*_THIS_TRIAL).values({c: bindparam(c) for c in ("state", "reward", "finished_at", "told")})
)
_PAUSE = update(trials).where(*_THIS_TRIAL).values({c: bindparam(c) for c in ("state", "told")})
_STAND = ("proposed", "running", "done", "failed", "stopped", "paused", "best", "best_reward", "epochs")
_THIS_RUN = update(runs).where(runs.c.id == bindparam("_run"), runs.c.token == bindparam("_token"))
_UPDATE_RUN = _THIS_RUN.values({c: bindparam(c) for c in (*_STAND, "seconds", "updated", "status")})
_CONFIGURE = _THIS_RUN.values({c: bindparam(c) for c in ("config", "updated", "seconds")})


class SQLWriter(SQLReader):
    """Writes one run; used by one thread. An event that cannot be committed changes nothing, here or in the database.

    Args:
        register: has the store registered where its weights are; called before the first of them is referred to.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        writing: Writing,
        claim: Claim,
        *,
        is_new: bool,
        register: Callable[[], None],
    ) -> None:
        super().__init__(database, name, 0)
        self._register: Callable[[], None] | None = register
        self._writing = writing
        self._claim = claim
        self._closed = False
        # Whether anything was recorded: opening a finished run to add a document leaves it finished.
        self._begun = is_new
        self._places: dict[str, int] = {}
        self._this_run = {"_run": 0, "_token": claim.token}
        writing.transact(self._resume)
        claim.keep(self._run)

    def _resume(self, connection: Connection) -> None:
        execute = connection.execute
        row = execute(self._database.runs().where(runs.c.name == self._name).with_for_update()).one_or_none()
        if row is None:
            raise UnknownName("run", self._name, [], "(it was deleted)")
        self._run = self._this_run["_run"] = row.id
        self._store = id_of(connection)
        is_ours = row.token == self._claim.token  # it was just made, or opened by a commit that nobody confirmed
        held = {} if is_ours else self._claim.take(row)
        summary_of(self._database, row)  # its types
        tally = Tally(**{field: getattr(row, field) for field in _STAND})
        last = connection.scalar(select(func.max(trials.c.number)).where(trials.c.run == row.id))
        if tally.trials != (0 if last is None else last + 1):
            raise CorruptStore(f"run {self._name!r} is damaged: it counts {tally.trials} trials, the last is {last}")
        self._seq = 1 + _last_event(connection, row.id)
        self._places = {s.identity: s.number for s in execute(select(spaces).where(spaces.c.run == row.id))}
        found = execute(TRIALS.where(trials.c.run == row.id, trials.c.state.in_(OPEN))).all()
        read: dict[int, dict[str, Any]] = {}
        unfinished = {t.number: reopened(t) for t in (self._trial(connection, row, read) for row in found)}
        paused = sum(trial.state is TrialState.PAUSED for trial in unfinished.values())
        tally = replace(tally, proposed=len(unfinished) - paused, running=0, paused=paused)
        self._ledger = Ledger(tally, unfinished, row.seconds)
        if is_ours:
            return
        was_running = (trials.c.run == row.id, trials.c.state == TrialState.RUNNING.value)
        before = case((trials.c.told.is_(None), TrialState.PROPOSED.value), else_=TrialState.PAUSED.value)
        execute(update(trials).where(*was_running).values(state=before, started_at=None))
        who = this_process(self._store)
        execute(insert(events), self._event(self._seq, self._seq, "resumed", None, row.seconds, who))
        status = "interrupted" if row.status == "running" else row.status  # left by a kill
        values = {"running": 0, "proposed": tally.proposed, "paused": paused, "status": status, "writer": who, **held}
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

        def change(connection: Connection) -> None:
            if new_spaces:
                connection.execute(insert(spaces), new_spaces)
            connection.execute(insert(trials), _some(rows))

        self._record(log, proposed, tally, at, change)
        self._places = places
        return proposed

    def start(self, number: int, attempt: int = 1) -> Trial:
        at = self._ledger.elapsed()
        trial, tally = self._ledger.started(number, at)
        values = {"state": trial.state.value, "started_at": at, "attempts": trial.attempts}
        values |= {"_run": self._run, "_number": number}
        log = [self._event(self._seq, self._seq, "started", number, at, to_text({"attempt": attempt}, "attempt"))]
        self._record(log, [trial], tally, at, lambda connection: connection.execute(_START, values))
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
        log, rows = self._told(finished, at)
        last = self._seq + len(log) - 1
        state = None if snapshot is None else dump_state(snapshot)
        shown = numbers_to_text(learned, "what the searcher learned") if learned else None

        def change(connection: Connection) -> None:
            connection.execute(_FINISH, _some(rows))
            if shown is not None:
                number = max(t.number for t in finished)
                values = {"run": self._run, "seq": last, "trial": number, "at": at, "shown": shown}
                connection.execute(insert(tables.learned), values)
            if state is not None:
                self._keep(connection, state, last)

        self._record(log, finished, tally, at, change)
        return finished

    def set_rewards(self, rewards: Mapping[int, float], *, snapshot: State) -> list[Trial]:
        at = self._ledger.elapsed()
        done, tally = self._ledger.rewarded([self.trial(number) for number in sorted(rewards)], rewards)
        if not done:
            return []
        log, rows = self._told(done, at)
        last, state = self._seq + len(log) - 1, dump_state(snapshot)

        def change(connection: Connection) -> None:
            connection.execute(_FINISH, _some(rows))
            self._keep(connection, state, last)

        self._record(log, done, tally, at, change)
        return done

    def pause(self, trial: Trial) -> Trial:
        at = self._ledger.elapsed()
        paused, tally = self._ledger.paused(trial)
        assert paused.result is not None
        self._refers_to([paused.result.checkpoint])
        text = to_text({"result": paused.result.to_json()}, f"the result of trial {trial.number}")
        so_far = result(from_text(text, "a result")["result"], "a result")  # nothing shared with the caller
        paused = replace(paused, result=so_far)
        values = {"_run": self._run, "_number": trial.number, "state": paused.state.value, "told": self._seq}
        log = [self._event(self._seq, self._seq, "paused", trial.number, at, text)]
        self._record(log, [paused], tally, at, lambda connection: connection.execute(_PAUSE, values))
        return paused

    def save_snapshot(self, state: State) -> None:
        blob = dump_state(state)
        self._change(lambda connection: self._keep(connection, blob, self._seq - 1))

    def snapshot(self) -> State | None:
        query = select(snapshots.c.state).where(snapshots.c.run == self._run)
        blob = self._read(lambda c: c.scalar(query))
        return None if blob is None else load_state(blob)

    def tail(self) -> list[LogEntry]:
        covered = select(snapshots.c.seq).where(snapshots.c.run == self._run).scalar_subquery()
        query = select(events.c.entry, events.c.kind, events.c.trial).where(
            events.c.run == self._run, events.c.seq > func.coalesce(covered, 0), events.c.kind.in_(("asked", "told"))
        )
        rows = self._read(lambda c: c.execute(query.order_by(events.c.seq)).all())
        entries: list[LogEntry] = []
        for (_, kind), group in groupby(rows, key=lambda row: (row.entry, row.kind)):
            numbers = tuple([row.trial for row in group])
            entries.append(Asked(numbers) if kind == "asked" else Told(numbers))
        return entries

    def unfinished(self) -> list[Trial]:
        return self._found(TRIALS.where(trials.c.run == self._run, trials.c.state.in_(OPEN)).order_by(trials.c.number))

    def configure(self, changes: Mapping[str, Any]) -> None:
        text = config_text({**self.summary().config, **changes})
        at = self._ledger.elapsed()
        log = [self._event(self._seq, self._seq, "configured", None, at, config_text(changes))]
        values = {"config": text, "updated": now(), "seconds": at}
        self._append(log, _CONFIGURE, values)

    def put_document(self, key: str, value: Any) -> None:
        row = {"run": self._run, "key": check_key(key), "value": to_text(value, f"document {key!r}")}
        self._refers_to(digests_in(value))

        def change(connection: Connection) -> None:
            connection.execute(delete(documents).where(documents.c.run == self._run, documents.c.key == key))
            connection.execute(insert(documents), row)

        self._change(change)

    def elapsed(self) -> float:
        return self._ledger.elapsed()

    def keep_time(self, clock: Clock) -> None:
        self._ledger.keep_time(clock)

    def close(self, status: str = "interrupted") -> None:
        check_status(status)
        if self._closed:
            return
        values: dict[str, Any] = {"seconds": self._ledger.elapsed(), "updated": now()}
        values |= {"token": None, "lease_until": None}
        if status == "finished" or self._begun:
            values["status"] = status
        own = (runs.c.id == self._run, runs.c.token == self._claim.token)

        def free(connection: Connection) -> None:
            if connection.execute(update(runs).where(*own).values(values)).rowcount != 1:
                raise self._taken_over(connection)

        def freed(connection: Connection) -> bool | None:
            row = connection.execute(select(runs.c.token).where(runs.c.id == self._run)).one_or_none()
            return True if row is not None and row.token is None else None

        try:
            self._writing.transact(free, freed)
        finally:
            self._closed = True
            self._claim.let_go()
            self._writing.close()

    def _told(self, finished: Sequence[Trial], at: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The events and the rows of finished trials that the searcher was told together."""
        self._refers_to(digest for t in finished if t.result for digest in (t.result.artifact, t.result.checkpoint))
        log, rows = [], []
        for seq, t in enumerate(finished, self._seq):
            outcome = {"state": t.state.value, "reward": t.reward, "result": t.result.to_json() if t.result else None}
            text = to_text(outcome, f"the result of trial {t.number}")
            log.append(self._event(seq, self._seq, "told", t.number, at, text))
            row = {"_run": self._run, "_number": t.number, "state": t.state.value, "reward": t.reward}
            rows.append({**row, "finished_at": t.finished_at, "told": seq})
        return log, rows

    def _record(
        self,
        log: list[dict[str, Any]],
        changed: Sequence[Trial],
        tally: Tally,
        at: float,
        change: Callable[[Connection], object],
    ) -> None:
        """One event in one transaction: the log, what it changes, and where the run stands after it."""
        stand = {field: getattr(tally, field) for field in _STAND}
        stand |= {"seconds": at, "updated": now(), "status": "running"}

        self._append(log, _UPDATE_RUN, stand, change)
        self._begun = True
        self._ledger.settle(changed, tally)

    def _append(
        self,
        log: list[dict[str, Any]],
        statement: Update,
        values: dict[str, Any],
        change: Callable[[Connection], object] | None = None,
    ) -> None:
        """The run's row, the log and what else changes, once, also when a connection is lost while it is committed."""
        first = self._seq

        def work(connection: Connection) -> None:
            # First, since it checks the token: whoever lost the run is told so, and not that the log has gone on.
            if connection.execute(statement, {**values, **self._this_run}).rowcount != 1:
                raise self._taken_over(connection)
            connection.execute(insert(events), _some(log))
            if change is not None:
                change(connection)

        def landed(connection: Connection) -> bool | None:
            self._check_token(connection)  # so whatever is in the log, this writer wrote
            last = _last_event(connection, self._run)
            if last < first - 1:
                raise StoreError(
                    f"the database lost what it had confirmed of run {self._name!r}: event {first - 1} is gone, the last "
                    f"is {last}. Resume the run: it goes on from what there is"
                )
            return True if last >= first else None

        self._check_open()
        self._writing.transact(work, landed)
        self._seq = first + len(log)

    def _change(self, change: Callable[[Connection], None]) -> None:
        """A change that is no event; done again it changes nothing more."""

        def work(connection: Connection) -> None:
            self._check_token(connection)
            change(connection)

        self._check_open()
        self._writing.transact(work)

    def _refers_to(self, digests: Iterable[str | None]) -> None:
        """Register the store before it first refers to weights, so that no other store's collection removes them."""
        if self._register is not None and any(digests):
            self._register()
            self._register = None

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"run {self._name!r} was closed; open it again to write")

    def _check_token(self, connection: Connection) -> None:
        """Refuse to write what another writer has by now; until the transaction ends, none can take it."""
        own = select(runs.c.id).where(runs.c.id == self._run, runs.c.token == self._claim.token)
        if connection.execute(own.with_for_update()).one_or_none() is None:
            raise self._taken_over(connection)

    def _taken_over(self, connection: Connection) -> StoreError:
        row = connection.execute(select(runs.c.writer).where(runs.c.id == self._run)).one_or_none()
        if row is None:
            return StoreError(f"run {self._name!r} was deleted while this process did not hold it")
        who = object_from_text(row.writer, "writer")
        return RunLocked(
            f"run {self._name!r} was taken over by process {who.get('pid')} on {who.get('host')} (since "
            f"{who.get('since')}), after this process had not been heard of for too long: asleep, or cut off from the "
            "database. What it had recorded is kept, and this was not recorded"
        )

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


def _last_event(connection: Connection, run: int) -> int:
    return connection.scalar(select(func.max(events.c.seq)).where(events.c.run == run)) or 0


def _some(rows: list[dict[str, Any]]) -> Any:
    """One row as one: a statement for many takes a longer way."""
    return rows if len(rows) > 1 else rows[0]
