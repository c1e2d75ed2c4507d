"""Reading one run in a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Select, func, select

from archsmith.core.errors import CorruptStore, StoreError, UnknownName
from archsmith.core.store import Learned, RunSummary
from archsmith.core.trial import Trial, TrialState
from archsmith.store.database import Database, T, id_of
from archsmith.store.payload import (
    from_text,
    genotype,
    numbers_from_text,
    object_from_text,
    result,
)
from archsmith.store.tables import documents, events, learned, runs, spaces, trials

OPEN = tuple(state.value for state in TrialState if not state.is_finished)
_CHUNK = 500  # trials read at a time when all are streamed: long enough to be fast, short enough not to hold up the WAL

_asked, _told = events.alias("asked"), events.alias("told")
TRIALS = select(
    trials.c.number,
    trials.c.parent,
    trials.c.state,
    trials.c.reward,
    trials.c.proposed_at,
    trials.c.started_at,
    trials.c.finished_at,
    trials.c.attempts,
    _asked.c.payload.label("genotype"),
    _told.c.payload.label("outcome"),
).select_from(
    trials.outerjoin(_asked, (_asked.c.run == trials.c.run) & (_asked.c.seq == trials.c.asked)).outerjoin(
        _told, (_told.c.run == trials.c.run) & (_told.c.seq == trials.c.told)
    )
)


class SQLReader:
    """Reads one run; safe to use from several threads, and while another process writes it."""

    def __init__(self, database: Database, name: str, number: int, store: str | None = None) -> None:
        self._database = database
        self._name = name
        self._run = number
        self._store = store  # its id: the file may be replaced by that of another store
        self._spaces: dict[int, str] = {}

    def summary(self) -> RunSummary:
        query = self._database.runs
        row = self._read(lambda c: c.execute(query().where(runs.c.id == self._run)).one_or_none())
        if row is None:
            raise UnknownName("run", self._name, [], "(it was deleted)")
        return summary_of(self._database, row)

    def trial(self, number: int) -> Trial:
        query = TRIALS.where(trials.c.run == self._run, trials.c.number == number)
        found = self._found(query) if 0 <= number < 2**31 else []
        if not found:
            n = self._read(lambda c: c.scalar(select(func.count()).where(trials.c.run == self._run)))
            raise UnknownName(f"trial of run {self._name!r}", str(number), [f"0 to {n - 1}"] if n else [])
        return found[0]

    def trials(self, start: int = 0) -> Iterator[Trial]:
        query = TRIALS.where(trials.c.run == self._run).order_by(trials.c.number).limit(_CHUNK)
        start = max(start, 0)
        while start < 2**31:
            chunk = self._found(query.where(trials.c.number >= start))
            yield from chunk
            if len(chunk) < _CHUNK:
                return
            start = chunk[-1].number + 1

    def top(self, k: int) -> list[Trial]:
        query = TRIALS.where(trials.c.run == self._run, trials.c.reward.is_not(None))
        return self._found(query.order_by(trials.c.reward.desc(), trials.c.number).limit(min(max(k, 0), 2**31)))

    def learned(self) -> list[Learned]:
        query = select(learned.c.trial, learned.c.at, learned.c.shown).where(learned.c.run == self._run)
        rows = self._read(lambda c: c.execute(query.order_by(learned.c.seq)).all())
        return [Learned(row.trial, row.at, numbers_from_text(row.shown, "what the searcher learned")) for row in rows]

    def document(self, key: str) -> Any | None:
        query = select(documents.c.value).where(documents.c.run == self._run, documents.c.key == key)
        text = self._read(lambda c: c.scalar(query))
        return None if text is None else from_text(text, f"document {key!r} of run {self._name!r}")

    def documents(self) -> list[str]:
        query = select(documents.c.key).where(documents.c.run == self._run)
        return sorted(self._read(lambda c: c.scalars(query).all()))

    def _read(self, work: Callable[[Connection], T]) -> T:
        """Read from the store that the run was opened in. Raises StoreError if another one has replaced it."""

        def in_the_same(connection: Connection) -> T:
            found = id_of(connection)
            if self._store is not None and found != self._store:
                raise StoreError(
                    f"the store {self._database} was replaced by another one after run {self._name!r} was opened; open the "
                    "run again"
                )
            self._store = found
            return work(connection)

        return self._database.read(in_the_same)

    def _found(self, query: Select[Any]) -> list[Trial]:
        """The trials of a query, which share the spaces that were read for them."""

        def work(connection: Connection) -> list[Trial]:
            read: dict[int, dict[str, Any]] = {}
            return [self._trial(connection, row, read) for row in connection.execute(query).all()]

        return self._read(work)

    def _trial(self, connection: Connection, row: Any, read: dict[int, dict[str, Any]]) -> Trial:
        """The trial of a row. `read` has the spaces that were read so far, which the trials of one reading share."""
        what = f"trial {row.number} of run {self._name!r}"
        asked = object_from_text(row.genotype, what)
        told = {"result": None} if row.outcome is None else object_from_text(row.outcome, what)
        space = asked.get("space")
        if not isinstance(space, int):
            raise CorruptStore(f"{what} is damaged: it names no space")
        if space not in self._spaces:
            found = connection.execute(select(spaces).where(spaces.c.run == self._run))
            self._spaces = {s.number: s.identity for s in found}
        try:
            if space not in read:
                read[space] = object_from_text(self._spaces[space], what)
            return Trial(
                _whole(row.number),
                genotype(read[space], asked.get("answers"), what),
                None if row.parent is None else _whole(row.parent),
                TrialState(row.state),
                _real(row.reward),
                result(told["result"], what),
                _real(row.proposed_at) or 0.0,
                _real(row.started_at),
                _real(row.finished_at),
                _whole(row.attempts),
                _optional(asked.get("replica")),
                _optional(asked.get("version")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStore(f"{what} is damaged: {type(error).__name__}: {error}") from None


def summary_of(database: Database, row: Any) -> RunSummary:
    """The line about a run; "running" only while a writer holds it. Raises CorruptStore."""
    what = f"run {row.name!r:.120}"
    status = row.status
    if status == "running" and not database.is_held(row):
        status = "interrupted"  # its writer was killed
    try:
        counts = {state.value: _whole(getattr(row, state.value, 0)) for state in TrialState}
        best, reward = (None, None) if row.best is None else (_whole(row.best), _real(row.best_reward))
        seconds, epochs = _real(row.seconds) or 0.0, _real(row.epochs) or 0.0
        if status not in ("running", "finished", "interrupted"):
            raise ValueError(f"its status is {status!r:.100}")
        for field in (row.name, row.created, row.updated):
            if not isinstance(field, str):
                raise TypeError(f"text was expected, and there is {field!r:.100}")
    except (TypeError, ValueError) as error:
        raise CorruptStore(f"{what} is damaged: {error}") from None
    config = object_from_text(row.config, what)
    return RunSummary(row.name, row.created, row.updated, status, counts, best, reward, seconds, epochs, config)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a whole number was expected, and there is {value!r:.100}")
    return value


def _optional(value: Any) -> int | None:
    return None if value is None else _whole(value)


def _real(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"a number was expected, and there is {value!r:.100}")
    return value
