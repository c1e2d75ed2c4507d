"""An independent look at a run's record: the tables alone, read without archsmith, and what must be true of them.

The log of events is the truth. `check` walks it trial by trial by the rules of docs/decisions/0003-resume.md, and holds
every other table against it. Given what was there before a fault, it also says whether anything was lost or rewritten.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

TABLES = ("events", "trials", "spaces", "snapshots", "learned", "documents")
STATES = ("proposed", "running", "done", "failed", "stopped", "paused")


@dataclass(frozen=True)
class Record:
    """A run's rows, by table, in order."""

    run: dict[str, Any]
    events: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    spaces: list[dict[str, Any]]
    snapshots: list[dict[str, Any]]
    learned: list[dict[str, Any]]
    documents: list[dict[str, Any]]

    @property
    def answer(self) -> list[tuple[int, str, str, float | None]]:
        """Of each trial its number, answers, state and reward: what a search comes to."""
        asked = {e["trial"]: json.loads(e["payload"])["answers"] for e in self.events if e["kind"] == "asked"}
        return [
            (t["number"], json.dumps(asked[t["number"]], sort_keys=True), t["state"], t["reward"]) for t in self.trials
        ]

    @property
    def results(self) -> dict[int, dict[str, Any]]:
        """What was told of each finished trial."""
        return {e["trial"]: json.loads(e["payload"]) for e in self.events if e["kind"] == "told"}

    @property
    def is_full(self) -> bool:
        """Whether every trial of its budget is finished."""
        budget = json.loads(self.run["config"])["budget"]["trials"]
        return sum(t["state"] in ("done", "failed", "stopped") for t in self.trials) == budget


def read_record(url: str, name: str = "r") -> Record | None:
    """The rows of a run; None where there is no such run, or no store yet."""
    if url.startswith("postgresql:"):
        import psycopg
        from psycopg.rows import dict_row

        with psycopg.connect(url, row_factory=dict_row) as connection:  # type: ignore[arg-type]
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # one moment, for all tables
            there = connection.execute("SELECT to_regclass('runs') AS t").fetchone()
            if there is None or there["t"] is None:  # type: ignore[call-overload]
                return None
            return _read(lambda query, *v: connection.execute(query.replace("?", "%s"), v).fetchall(), name)  # type: ignore[arg-type]
    path = url.removeprefix("sqlite:///")
    if not Path(path).exists():
        return None
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")  # one moment, for all tables
        damage = connection.execute("PRAGMA integrity_check").fetchone()[0]
        assert damage == "ok", f"the database is damaged: {damage}"
        return _read(lambda query, *v: [dict(row) for row in connection.execute(query, v)], name)


def _read(query: Any, name: str) -> Record | None:
    found = query("SELECT * FROM runs WHERE name = ?", name)
    if not found:
        return None
    order = {"events": "seq", "trials": "number", "spaces": "number", "snapshots": "seq", "learned": "seq"}
    rows = {
        table: [
            {key: value for key, value in row.items() if key != "run"}
            for row in query(f"SELECT * FROM {table} WHERE run = ? ORDER BY {order.get(table, 'key')}", found[0]["id"])
        ]
        for table in TABLES
    }
    return Record(found[0], **rows)


def count_events(url: str) -> int:
    """How many events there are in a store of one run; 0 where there is no store yet."""
    query = "SELECT count(*) FROM events"
    if url.startswith("postgresql:"):
        import psycopg

        with psycopg.connect(url) as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
            return int(connection.execute(query).fetchone()[0])  # type: ignore[index]
        return 0
    if not Path(url.removeprefix("sqlite:///")).exists():
        return 0
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return int(connection.execute(query).fetchone()[0])


def check(record: Record, before: Record | None = None) -> None:
    """Raise AssertionError unless the record is whole, and holds all that it held before."""
    events, trials = record.events, record.trials
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1)), "the log has a gap"
    for earlier, later in pairwise(events):
        assert earlier["at"] <= later["at"], f"the run's clock went back at event {later['seq']}"
        same = later["entry"] == earlier["entry"]
        assert same or later["entry"] == later["seq"], f"event {later['seq']} belongs to no entry"
    spaces = [s["number"] for s in record.spaces]
    assert spaces == list(range(len(spaces)))

    state, started, told_at = dict[int, str](), Counter[int](), dict[int, int]()
    started_at, asked_at, result = dict[int, float | None](), dict[int, dict[str, Any]](), dict[int, dict[str, Any]]()
    for event in events:
        kind, number, where = event["kind"], event["trial"], f"event {event['seq']}: {event['kind']} {event['trial']}"
        payload = json.loads(event["payload"])
        if kind == "asked":
            assert number == len(state), f"{where}: not the next number"
            assert payload["space"] in spaces, where
            state[number], asked_at[number], started_at[number] = "proposed", event, None
        elif kind == "started":
            again = state[number] == "running" and payload["attempt"] > 1
            assert state[number] in ("proposed", "paused") or again, f"{where}: it was {state[number]}"
            state[number], started_at[number] = "running", event["at"]
            started[number] += 1
        elif kind == "paused":
            assert state[number] == "running", f"{where}: it was {state[number]}"
            state[number], told_at[number], result[number] = "paused", event["seq"], payload
        elif kind == "told":
            early = state[number] in ("proposed", "paused") and payload["state"] in ("failed", "stopped")
            assert state[number] == "running" or early, f"{where}: it was {state[number]}"
            assert payload["state"] in ("done", "failed", "stopped"), where
            done = payload["state"] == "done"
            assert done == (payload["reward"] is not None), f"{where}: a reward without a result, or none with one"
            assert not done or math.isfinite(payload["reward"]), where
            state[number], told_at[number], result[number] = payload["state"], event["seq"], payload
        elif kind == "resumed":
            for open_trial, its_state in state.items():
                if its_state == "running":
                    state[open_trial] = "paused" if open_trial in told_at else "proposed"
                    started_at[open_trial] = None
        else:
            assert kind == "configured", f"{where}: an unknown kind"

    assert [t["number"] for t in trials] == sorted(state), "the trials are not those of the log"
    for trial in trials:
        number = trial["number"]
        is_finished = state[number] in ("done", "failed", "stopped")
        outcome = result.get(number, {})
        expected = {
            "state": state[number],
            "reward": outcome.get("reward") if is_finished else None,
            "attempts": started[number],
            "asked": asked_at[number]["seq"],
            "proposed_at": asked_at[number]["at"],
            "started_at": started_at[number],
            "told": told_at.get(number),
            "finished_at": events[told_at[number] - 1]["at"] if is_finished else None,
            "parent": json.loads(asked_at[number]["payload"])["parent"],
        }
        found = {key: trial[key] for key in expected}
        assert found == expected, f"trial {number} is not as the log has it: {found}, {expected}"

    counts = Counter(state.values())
    assert {s: record.run[s] for s in STATES} == {s: counts[s] for s in STATES}, "the counts are not those of the log"
    rewards = {n: r["reward"] for n, r in result.items() if state[n] == "done"}
    best = min(rewards, key=lambda n: (-rewards[n], n), default=None)
    assert (record.run["best"], record.run["best_reward"]) == (best, None if best is None else rewards[best])
    finished = [r["result"] for n, r in result.items() if state[n] in ("done", "failed", "stopped") and r["result"]]
    cost = sum(r["cost"]["epochs"] for r in finished)
    assert math.isclose(record.run["epochs"], cost, rel_tol=1e-9, abs_tol=1e-9), "the cost is not that of the log"
    assert not events or record.run["seconds"] >= events[-1]["at"] - 1e-9

    assert len(record.snapshots) <= 1
    for row in record.snapshots:
        last = events[row["seq"] - 1]
        ends = row["seq"] == len(events) or events[row["seq"]]["entry"] != last["entry"]
        assert last["kind"] == "told", "the snapshot is of no tell"
        assert ends, "the snapshot is of the middle of a tell"
    for row in record.learned:
        assert events[row["seq"] - 1]["kind"] == "told", "what was learned belongs to no tell"
        json.loads(row["shown"])

    if before is not None:
        assert events[: len(before.events)] == before.events, "what was recorded before was lost or rewritten"
        assert record.learned[: len(before.learned)] == before.learned
        assert record.run["config"] == before.run["config"] or any(e["kind"] == "configured" for e in events)
        assert record.run["created"] == before.run["created"]
