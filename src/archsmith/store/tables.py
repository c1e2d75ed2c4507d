"""The tables. `events` is the truth: append-only, with every genotype and result; the others make reading it fast.

Changing anything here means a new `SCHEMA` number, a step in `migrations.py` that brings older stores up to it, and a
golden file of the new one in the tests.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

SCHEMA = 2
APPLICATION_ID = 0x61726368  # "arch": how a file says that it is ours, in the header of SQLite

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),  # "schema", "created_by", "id", "path", "artifacts"
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created", Text, nullable=False),  # UTC, ISO 8601, for people; no order rests on it
    Column("updated", Text, nullable=False),
    Column("status", Text, nullable=False),  # "running" may be left by a kill: true only while the lock is held
    Column("writer", Text, nullable=False),  # JSON: who it is, see holder.py
    Column("config", Text, nullable=False),  # JSON
    Column("proposed", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("stopped", Integer, nullable=False),
    Column("best", Integer),
    Column("best_reward", Float),
    Column("epochs", Float, nullable=False),
    Column("seconds", Float, nullable=False),  # of the run's own clock, as of the last event
    # Since version 2, where a process of version 1 that is still writing leaves them as they are.
    Column("paused", Integer, nullable=False, server_default="0"),
    Column("token", Text),  # its writer's, drawn when it opened the run; nobody writes with another
    Column("lease_until", Float),  # where writers hold leases: seconds since 1970 by the database's clock
)

events = Table(
    "events",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("entry", Integer, nullable=False),  # the seq of the first event of the same ask or tell
    Column("kind", Text, nullable=False),  # "asked", "started", "paused", "told", "resumed", "configured"
    Column("trial", Integer),
    Column("at", Float, nullable=False),  # seconds of the run's own clock
    Column("payload", Text, nullable=False),  # JSON
)

trials = Table(
    "trials",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer),
    Column("state", Text, nullable=False),
    Column("reward", Float),
    Column("proposed_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("attempts", Integer, nullable=False),
    Column("asked", Integer, nullable=False),  # the event that holds its genotype
    Column("told", Integer),  # the event that holds its result, or what there was when it was paused
    sqlite_with_rowid=False,
)

Index(
    "trials_by_reward",
    trials.c.run,
    trials.c.reward.desc(),
    trials.c.number,
    sqlite_where=trials.c.reward.is_not(None),
    postgresql_where=trials.c.reward.is_not(None),
)

# The identity of a space is the same for all trials of a run, so it is kept once.
spaces = Table(
    "spaces",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("identity", Text, nullable=False),  # JSON
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, nullable=False),  # the last event that it has learned from
    Column("state", LargeBinary, nullable=False),
)

learned = Table(
    "learned",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("trial", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("shown", Text, nullable=False),  # JSON
)

documents = Table(
    "documents",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),  # JSON
)

ADDED = {"paused": 2, "token": 2, "lease_until": 2}
"""The columns of `runs` that came after version 1, with the version that they came in."""

PARTS = (events, trials, spaces, snapshots, learned, documents)
"""What belongs to one run, beside its row."""
