"""The store on PostgreSQL: the same contract, its URLs and errors, leases, and servers that go away."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import archsmith as smith
from archsmith.core.artifacts import open_artifacts
from archsmith.core.errors import (
    CorruptStore,
    NewerStore,
    RunExists,
    RunLocked,
    StoreError,
    UnknownName,
    UsageError,
)
from archsmith.core.store import Asked, RunWriter, Store, Told
from archsmith.core.trial import TrialState
from archsmith.store import SQLStore, open_store
from archsmith.store.postgres_words import in_words
from archsmith.store.tables import SCHEMA
from archsmith.testing import StoreContract
from archsmith.testing.store import done, proposal, with_trials
from postgres_server import Server
from test_shared_weights import collected, garbage, keep, one_notice

pytestmark = pytest.mark.postgres

DEADLINE = 60.0


class TestPostgreSQL(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: Server) -> None:
        self.server = postgres

    def store(self, tmp_path: Path) -> Store:
        return SQLStore(self.server.fresh(), busy_seconds=5)

    def again(self, store: Store) -> Store:
        return SQLStore(store.url, busy_seconds=5)


def until(there: Callable[[], Any]) -> Any:
    """What it gives, once that is true."""
    deadline = time.monotonic() + DEADLINE
    while not (found := there()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found


def log_of(postgres: Server, url: str) -> list[tuple[int, str, int | None]]:
    """The log of the one run of a store: (seq, kind, trial)."""
    return postgres.execute("SELECT seq, kind, trial FROM events ORDER BY seq", url=url)


# --- where it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "url"),
    [
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgres://me@host:5433/db", "postgresql://me@host:5433/db"),
        ("postgresql+psycopg://me:s3cret@host/db", "postgresql://me@host/db"),
        ("postgresql://me@host/db?password=s3cret&sslmode=require", "postgresql://me@host/db?sslmode=require"),
        (
            "postgresql://a,b:5433/db?target_session_attrs=primary",
            "postgresql://a,b:5433/db?target_session_attrs=primary",
        ),
        ("postgresql://[::1]:5433/d%2Fb", "postgresql://[::1]:5433/d%2Fb"),
        ("postgresql:///db?host=/run/postgresql&port=5433", "postgresql:///db?host=/run/postgresql&port=5433"),
        ("postgresql://h/db?options=-c%20a%3Db%26c", "postgresql://h/db?options=-c%20a%3Db%26c"),
        ("postgresql://m%40e:p%40ss@h/", "postgresql://m%40e@h/"),
    ],
)
def test_urls_are_libpqs_and_are_shown_without_passwords(where: str, url: str) -> None:
    store = open_store(where)
    assert store.url == url
    assert open_store(store.url).url == url
    assert open_store(store) is store


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("postgresql+asyncpg://me:s3cret@h/db", "psycopg is the driver"),
        ("postgresql:db", "postgresql://user@host/database"),
        ("postgresql://me:s3cret@h/db?colour=red", 'invalid URI query parameter: "colour"'),
        ("postgresql://me:s3cret%zz@h/db", "%25"),
        ("mysql://me:s3cret@h/db", r"postgresql://user@host/database.*mysql://me:\*\*\*@h/db"),
    ],
)
def test_a_url_that_is_none_is_told_without_its_password(where: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_store(where)
    assert "s3cret" not in str(caught.value)


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pip install 'archsmith\[postgres\]'"):
        open_store("postgresql://h/db")


def test_the_tables_have_a_schema_of_their_own(postgres: Server) -> None:
    url = postgres.database()
    postgres.execute("CREATE TABLE runs (of_another_program int)", url=url)
    assert open_store(url).runs() == []
    with pytest.raises(UnknownName):
        open_store(url).read("a")
    tables = "SELECT schemaname, count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') GROUP BY 1"
    assert postgres.execute(tables, url=url) == [("public", 1)], "reading makes nothing"
    with_trials(open_store(url).create("a", {}), [0.5]).close("finished")
    assert sorted(postgres.execute(tables, url=url)) == [("archsmith", 8), ("public", 1)]
    assert [run.name for run in open_store(url).runs()] == ["a"]


def test_a_search_path_without_a_schema_is_told(postgres: Server) -> None:
    url = f"{postgres.url}&options=-csearch_path%3Dnowhere"
    assert open_store(url).runs() == []
    with pytest.raises(
        StoreError, match=r"no schema of its search path \(-csearch_path=nowhere\) exists.*CREATE SCHEMA"
    ):
        open_store(url).create("a", {})


# --- what is said -----------------------------------------------------------------------------------------------------


def test_the_password_is_in_no_message_and_in_no_record(postgres: Server) -> None:
    postgres.execute("CREATE SCHEMA IF NOT EXISTS safe AUTHORIZATION locked")
    path = "?options=-csearch_path%3Dsafe"
    where = postgres.at("postgres", user="locked:s3cret", tcp=True) + path
    store = open_store(where)
    with_trials(store.create("a", {"command": f"archsmith search x --store '{where}'"}), [1.0]).close()
    summary = store.read("a").summary()
    assert summary.config["command"] == f"archsmith search x --store '{where.replace('s3cret', '***')}'"
    assert "s3cret" not in repr((store.url, summary, postgres.execute("SELECT * FROM safe.runs")))
    with pytest.raises(UnknownName, match=r"\(in postgresql://locked@127") as caught:
        store.read("b")
    assert "s3cret" not in str(caught.value)
    for wrong in ("locked:s3cret2", "locked"):
        with pytest.raises(StoreError, match=r"lets nobody in with that name and password.*PGPASSWORD") as denied:
            open_store(postgres.at("postgres", user=wrong, tcp=True)).runs()
        assert "s3cret" not in str(denied.value)


def act_on(url: str, *acts: Callable[[Store], object]) -> Iterator[Callable[[], object]]:
    for act in acts:
        yield lambda act=act: act(SQLStore(url, busy_seconds=0.1))


def test_what_cannot_be_opened_is_told(postgres: Server) -> None:
    nobody = postgres.at("postgres").replace(f"port={postgres.port}", "port=1")
    for url, said in [
        (nobody, "no connection to the store .*see that the server runs"),
        (postgres.at("nosuch"), 'database "nosuch" does not exist. Make the database, once: createdb'),
        (postgres.at("postgres", user="nosuch"), 'lets nobody in.*role "nosuch" does not exist'),
        ("postgresql://no-such-host.invalid/db", "no-such-host.invalid"),
    ]:
        for act in act_on(url, lambda s: s.runs(), lambda s: s.create("a", {}), lambda s: s.delete("a")):
            with pytest.raises(StoreError, match=said):
                act()


def test_rights_that_are_missing_are_told(postgres: Server) -> None:
    url = postgres.fresh()
    schema = url.rpartition("%3D")[2]
    with_trials(SQLStore(url).create("a", {}), [1.0]).close()
    read_only = f"{url}%20-cdefault_transaction_read_only%3Don"
    assert [run.name for run in open_store(read_only).runs()] == ["a"]
    for act in act_on(read_only, lambda s: s.create("b", {}), lambda s: s.write("a"), lambda s: s.delete("a")):
        with pytest.raises(StoreError, match="it is read-only"):
            act()
    postgres.execute("CREATE ROLE reader LOGIN", f"GRANT USAGE ON SCHEMA {schema} TO reader")
    reader = url.replace("smith@", "reader@")
    for act in act_on(reader, lambda s: s.runs(), lambda s: s.create("b", {})):
        with pytest.raises(StoreError, match="does not allow it: permission denied"):
            act()
    postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
    assert [run.name for run in open_store(reader).runs()] == ["a"]
    with pytest.raises(
        StoreError, match=r"does not allow it: permission denied.*CREATE SCHEMA archsmith AUTHORIZATION"
    ):
        open_store(postgres.at("postgres", user="reader")).create("a", {})
    postgres.execute("ALTER ROLE reader CONNECTION LIMIT 0")
    with pytest.raises(StoreError, match="has too many connections"):
        SQLStore(reader, busy_seconds=0.1).runs()


def test_errors_that_are_hard_to_make_are_told_as_well() -> None:
    for error, said in [
        (psycopg.errors.DiskFull("could not extend file"), "the disk of the store U is full.*then resume"),
        (psycopg.errors.UntranslatableCharacter("no such"), "encoding UTF8"),
        (psycopg.errors.InternalError_("odd"), "the store U cannot be used: odd"),
        (psycopg.errors.QueryCanceled("statement timeout"), "ended a statement"),
    ]:
        with pytest.raises(StoreError, match=said):
            raise in_words(error, "U", 1.0)


def test_a_transaction_that_stays_open_is_told_and_nothing_is_lost(postgres: Server) -> None:
    url = postgres.fresh()
    run = with_trials(SQLStore(url, busy_seconds=1).create("a", {}), [0.5])
    [trial] = run.propose([proposal(1)])
    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM runs FOR UPDATE")
        with pytest.raises(StoreError, match="stayed locked by another transaction for 1 seconds"):
            run.start(1)
        assert run.trial(1).state is TrialState.PROPOSED, "reading goes on"
    run.start(1)
    run.finish([done(trial, 0.75)])
    assert run.tail() == [Asked((0,)), Told((0,)), Asked((1,)), Told((1,))]
    run.close()


def test_damaged_and_newer_tables_are_refused(postgres: Server) -> None:
    url = postgres.fresh()
    with_trials(SQLStore(url).create("a", {}), [1.0]).close()
    postgres.execute("UPDATE meta SET value = '99' WHERE key = 'schema'", url=url)
    for act in act_on(url, lambda s: s.runs(), lambda s: s.create("b", {}), lambda s: s.write("a")):
        with pytest.raises(NewerStore, match="version 99, written by a later archsmith"):
            act()
    postgres.execute("UPDATE meta SET value = 'x'", url=url)
    with pytest.raises(CorruptStore):
        open_store(url).runs()
    postgres.execute(f"UPDATE meta SET value = '{SCHEMA}'", "UPDATE events SET payload = 'no json'", url=url)
    with pytest.raises(CorruptStore, match="trial 0 of run 'a' is damaged"):
        open_store(url).read("a").trial(0)
    postgres.execute("DROP TABLE events", url=url)
    with pytest.raises(CorruptStore, match=r"is damaged: relation .*events.* does not exist"):
        open_store(url).read("a").trial(0)


@pytest.mark.parametrize("schema", ["", "archsmith."])
def test_older_tables_are_read_as_they_are_and_brought_up_by_a_writer(postgres: Server, schema: str) -> None:
    url = postgres.database() if schema else postgres.fresh()
    with_trials(SQLStore(url).create("a", {}), [1.0]).close()
    drops = [f"ALTER TABLE {schema}runs DROP COLUMN {column}" for column in ("paused", "token", "lease_until")]
    postgres.execute(*drops, f"UPDATE {schema}meta SET value = '1' WHERE key = 'schema'", url=url)
    version = f"SELECT value FROM {schema}meta WHERE key = 'schema'"
    reader = open_store(url).read("a")
    assert reader.summary().counts["done"] == 1
    assert postgres.execute(version, url=url) == [("1",)]
    with_trials(open_store(url).write("a"), [0.5]).close("finished")
    assert reader.summary().counts["done"] == 2
    assert postgres.execute(version, url=url) == [(str(SCHEMA),)]


def test_many_make_one_store_at_once(postgres: Server) -> None:
    url, said = postgres.database(), []
    gate = threading.Barrier(6)

    def make(name: str) -> None:
        store = SQLStore(url)
        gate.wait()
        try:
            with_trials(store.create(name, {}), [0.1] * 5).close("finished")
            said.append(name)
        except (RunExists, RunLocked) as error:
            said.append(type(error).__name__)

    threads = [threading.Thread(target=make, args=(name,)) for name in ("a", "b", "c", "same", "same", "same")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["RunExists", "RunExists", "a", "b", "c", "same"]
    assert sorted(run.name for run in open_store(url).runs()) == ["a", "b", "c", "same"]
    assert {run.counts["done"] for run in open_store(url).runs()} == {5}


def test_the_store_remembers_where_its_weights_are(postgres: Server, tmp_path: Path) -> None:
    url = postgres.fresh()
    assert open_store(url).artifacts is None
    open_store(url).create("a", {}).close()
    assert open_store(url, artifacts="s3://bucket/x/").artifacts == "s3://bucket/x"
    assert open_store(url).artifacts is None, "only a writer has it remembered"
    open_store(url, artifacts="s3://bucket/x").write("a").close()
    assert open_store(url).artifacts == "s3://bucket/x"
    with pytest.raises(UsageError, match=r"keeps its weights in s3://bucket/x.*got artifacts='s3://other'"):
        open_store(url, artifacts="s3://other").write("a")


# --- one writer, by a lease -------------------------------------------------------------------------------------------

WRITER = """
import os, socket, sys
url, host, lease = sys.argv[1:4]
if host:
    socket.gethostname = lambda: host
from archsmith.core.genotype import Genotype
from archsmith.core.trial import Proposal
from archsmith.store import SQLStore
store = SQLStore(url, lease_seconds=float(lease))
run = store.create("a", {}) if not store.runs() else store.write("a")
run.propose([Proposal(Genotype({"name": "Faults"}, {"size": 0}))])
run.start(0)
print("open", flush=True)
for line in sys.stdin:
    try:
        run.propose([Proposal(Genotype({"name": "Faults"}, {"size": 1}))])
        print("proposed", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


@contextmanager
def writing_elsewhere(url: str, host: str, lease: float) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes run "a", as if on that host; "" is this one."""
    command = [sys.executable, "-c", WRITER, url, host, str(lease)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_dead_writer_of_this_host_is_taken_over_at_once(postgres: Server) -> None:
    url = postgres.fresh()
    with writing_elsewhere(url, "", 1e6) as process:
        with pytest.raises(RunLocked, match=rf"process {process.pid} on .*lease lasts until 20.*list, show and report"):
            open_store(url).write("a")
        assert open_store(url).runs()[0].status == "running"
        process.kill()
        process.wait()
        assert open_store(url).runs()[0].status == "interrupted", "though its lease has a million seconds left"
        run = open_store(url).write("a")
        assert [(t.number, t.state, t.attempts) for t in run.unfinished()] == [(0, TrialState.PROPOSED, 1)]
        run.close()


def test_a_dead_writer_of_another_host_is_taken_over_when_its_lease_is_out(postgres: Server) -> None:
    url = postgres.fresh()
    with writing_elsewhere(url, "elsewhere", 1.0) as process:
        process.kill()
        process.wait()
        refused: list[str] = []

        def take() -> RunWriter | None:
            try:
                return open_store(url).write("a")
            except RunLocked as error:
                refused.append(str(error))
                return None

        run = until(take)
        assert all(f"process {process.pid} on elsewhere" in said for said in refused)
        with_trials(run, [0.5]).close("finished")
    assert [kind for _, kind, _ in log_of(postgres, url)] == ["asked", "started", "resumed", "asked", "started", "told"]


def test_a_writer_that_was_asleep_cannot_write_after_another_took_over(postgres: Server) -> None:
    url = postgres.fresh()
    with writing_elsewhere(url, "elsewhere", 0.5) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> str:
            print("more", file=process.stdin, flush=True)
            return process.stdout.readline()  # type: ignore[union-attr]

        assert ask() == "proposed\n"
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: open_store(url).runs()[0].status == "interrupted")
        run = open_store(url).write("a")
        os.kill(process.pid, signal.SIGCONT)
        for _ in range(2):
            assert ask().startswith(f"RunLocked run 'a' was taken over by process {os.getpid()} on ")
        with_trials(run, [0.5])
        assert [t.state.value for t in run.trials()] == ["proposed", "proposed", "done"]
        run.close("finished")
        before = log_of(postgres, url)
        assert ask().startswith("RunLocked run 'a' was taken over"), "also when the other is done"
        assert log_of(postgres, url) == before
        assert open_store(url).runs()[0].status == "finished"


ASLEEP = """
import os, signal, socket, sys
socket.gethostname = lambda: "elsewhere"
from archsmith.core.errors import ArchsmithError
from archsmith.core.genotype import Genotype
from archsmith.core.trial import Proposal
from archsmith.store import SQLStore
run = SQLStore(sys.argv[1], lease_seconds=0.5, busy_seconds=0.4).create("a", {})
transact = run._writing.transact
def asleep(work, landed=None):
    def slow(connection):
        found = work(connection)
        print("in the middle", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        return found
    return transact(slow, landed)
run._writing.transact = asleep
try:
    run.propose([Proposal(Genotype({"name": "Faults"}, {"size": 0}))])
except ArchsmithError as error:
    print(type(error).__name__, error, flush=True)
"""


def test_a_writer_that_falls_asleep_in_a_transaction_holds_nothing_up(postgres: Server) -> None:
    url = postgres.fresh()
    process = subprocess.Popen([sys.executable, "-c", ASLEEP, url], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        until(lambda: open_store(url).runs()[0].status == "interrupted")
        run = open_store(url).write("a")
        with_trials(run, [0.5]).close("finished")
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline().startswith("RunLocked run 'a' was taken over by process")
    finally:
        process.kill()
        process.communicate()
    assert [kind for _, kind, _ in log_of(postgres, url)] == ["resumed", "asked", "started", "told"]


def test_the_loser_of_a_run_changes_nothing_in_any_way(postgres: Server) -> None:
    url = postgres.fresh()
    loser = with_trials(SQLStore(url).create("a", {}), [0.25])
    [trial] = loser.propose([proposal(1)])
    loser.start(1)
    postgres.execute("UPDATE runs SET lease_until = 0", url=url)  # as if it had been asleep
    run = SQLStore(url).write("a")
    before = postgres.execute("SELECT runs::text FROM runs UNION ALL SELECT documents::text FROM documents", url=url)
    acts: list[Callable[[], object]] = [
        lambda: loser.propose([proposal(2)]),
        lambda: loser.start(1),
        lambda: loser.finish([done(trial, 0.5)]),
        lambda: loser.pause(replace(done(trial, 0.5), reward=None)),
        lambda: loser.configure({"x": 1}),
        lambda: loser.put_document("x", 1),
        lambda: loser.save_snapshot({"x": 1}),
        lambda: loser.close("finished"),
    ]
    for act in acts:
        with pytest.raises(RunLocked, match=r"was taken over by process .*What it had recorded is kept"):
            act()
    columns = "SELECT runs::text FROM runs UNION ALL SELECT documents::text FROM documents"
    assert postgres.execute(columns, url=url)[0][0].split(",")[:16] == before[0][0].split(",")[:16]
    assert run.snapshot() is None
    assert [t.state.value for t in run.trials()] == ["done", "proposed"]
    run.close()


def test_a_lease_is_renewed_while_the_process_does_something_else(postgres: Server) -> None:
    url = postgres.fresh()
    run = SQLStore(url, lease_seconds=0.3).create("a", {})
    seen: set[float] = set()

    def renewed() -> bool:
        with pytest.raises(RunLocked):
            SQLStore(url).write("a")
        seen.update(row[0] for row in postgres.execute("SELECT lease_until FROM runs", url=url))
        return len(seen) > 4

    until(renewed)
    run.close()
    assert postgres.execute("SELECT token, lease_until FROM runs", url=url) == [(None, None)], "let go at once"
    SQLStore(url).write("a").close()


def test_a_writer_that_was_dropped_holds_its_run_no_longer_than_its_lease(postgres: Server) -> None:
    url = postgres.fresh()
    run: RunWriter | None = SQLStore(url, lease_seconds=0.3).create("a", {})
    assert run is not None
    del run
    gc.collect()
    until(lambda: SQLStore(url).runs()[0].status == "interrupted")
    SQLStore(url).write("a").close()


# --- a server that goes away ------------------------------------------------------------------------------------------


def every_kind_of_event(run: RunWriter) -> None:
    trials = run.propose([proposal(i) for i in range(3)])
    for number in (0, 1):
        run.start(number)
    run.pause(replace(done(trials[0], 0.5), reward=None))
    run.start(0)
    run.finish([done(trials[1], 0.5), done(trials[0], 0.25)], snapshot={"x": 1}, learned={"entropy": 1.0})
    run.configure({"more": True})
    run.save_snapshot({"x": 2})
    run.put_document("x", [1])
    run.finish([replace(trials[2], state=TrialState.STOPPED)])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_without_an_answer_is_neither_lost_nor_done_twice(postgres: Server, moment: str) -> None:
    """Every commit in turn loses its connection, just before the server does it or just after."""
    quiet = postgres.fresh()
    run = SQLStore(quiet).create("a", {})
    every_kind_of_event(run)
    run.close("finished")
    run = SQLStore(quiet).write("a")
    run.close()

    url = postgres.fresh()
    store = SQLStore(url, busy_seconds=10)
    store.create("other", {}).close()  # so that the tables are there
    dialect = store._database._engine.dialect  # type: ignore[attr-defined]
    commit, cut = dialect.do_commit, [0, 0]

    def cutting(connection: Any) -> None:
        cut[0] += 1
        if cut[0] % 2 == 0:  # the second time it goes through
            return commit(connection)
        cut[1] += 1
        if moment == "after":
            commit(connection)
        connection.driver_connection.close()
        raise psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")

    dialect.do_commit = cutting
    run = store.create("a", {})
    every_kind_of_event(run)
    run.close("finished")
    run = store.write("a")
    run.close()
    dialect.do_commit = commit
    assert cut[1] > 10

    def record(url: str) -> list[Any]:
        rows = postgres.execute(
            "SELECT seq, entry, kind, trial, CASE kind WHEN 'resumed' THEN '' ELSE payload END FROM events ORDER BY seq",
            url=url,
        )
        for query in (
            "SELECT number, state, reward, attempts, asked, told FROM trials ORDER BY number",
            "SELECT seq, trial, shown FROM learned ORDER BY seq",
            "SELECT key, value FROM documents",
            "SELECT seq FROM snapshots",
            "SELECT status, config, done, stopped, best, token FROM runs WHERE name = 'a'",
        ):
            rows += postgres.execute(query, url=url)
        return rows

    assert record(url) == record(quiet)


def test_connections_that_are_cut_are_made_again(postgres: Server) -> None:
    url = postgres.fresh()
    run = with_trials(SQLStore(url).create("a", {}), [0.1])
    reader = SQLStore(url).read("a")
    for i in range(3):
        assert len(list(reader.trials())) == i + 1
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'archsmith'")
        assert reader.summary().counts["done"] == i + 1
        with_trials(run, [0.2])
    run.close()
    assert [seq for seq, _, _ in log_of(postgres, url)] == list(range(1, 13))


def test_what_the_server_lost_is_told(postgres: Server) -> None:
    url = postgres.fresh()
    run = with_trials(SQLStore(url).create("a", {}), [0.1])
    postgres.execute(
        "DELETE FROM events WHERE seq = 3",  # as after a crash with synchronous_commit = off
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'archsmith'",
        url=url,
    )
    with pytest.raises(StoreError, match="lost what it had confirmed of run 'a': event 3 is gone, the last is 2"):
        run.propose([proposal(1)])
    run.close()


def test_a_server_that_stays_away_is_told_and_nothing_is_lost(postgres: Server) -> None:
    url = postgres.fresh()
    run = with_trials(SQLStore(url, busy_seconds=0.3).create("a", {}), [0.1])
    postgres.stop()
    try:
        for act in (lambda: run.propose([proposal(1)]), run.summary, SQLStore(url).runs):
            with pytest.raises(StoreError, match=r"no connection to the store .*What was recorded is kept"):
                act()
    finally:
        postgres.start()
    with_trials(run, [0.2])
    run.close()
    assert [t.reward for t in SQLStore(url).read("a").trials()] == [0.1, 0.2]


def space(choose: Any) -> Any:
    return {"x": choose("x", tuple(range(50))), "y": choose("y", tuple(range(50)))}


def build(architecture: Any, task: Any) -> Any:
    raise NotImplementedError


def test_a_search_outlives_restarts_of_its_server(postgres: Server) -> None:
    """A real restart, at once and without a word to anybody, thrice in a search; it ends as one that had none."""
    url = postgres.fresh()
    restarts: list[threading.Thread] = []

    def evaluate(architecture: Any) -> float:
        if len(restarts) < 3 and architecture["x"] % 4 == 0:
            for restart in restarts:
                restart.join()
            restart = threading.Thread(target=postgres.restart)
            restart.start()  # so that it comes while the search goes on writing
            restarts.append(restart)
        return float(architecture["x"] - architecture["y"])

    searcher = smith.searchers.RegularizedEvolution(population=10, sample=3)
    run = smith.search(space, evaluate, searcher=searcher, trials=60, store=url, name="a", seed=3)
    for restart in restarts:
        restart.join()
    assert len(restarts) == 3

    def quiet(architecture: Any) -> float:
        return float(architecture["x"] - architecture["y"])

    other = smith.search(space, quiet, searcher=searcher, trials=60, store="memory://", name="a", seed=3)
    assert [(t.genotype, t.reward, t.attempts) for t in run.trials()] == [
        (t.genotype, t.reward, t.attempts) for t in other.trials()
    ]
    log = log_of(postgres, url)
    assert [seq for seq, _, _ in log] == list(range(1, len(log) + 1))
    assert sorted(trial for _, kind, trial in log if kind == "told") == list(range(60))
    assert open_store(url).runs()[0].status == "finished"


# --- a driver that moves, and readers meanwhile -----------------------------------------------------------------------

SEARCH = """
import socket, sys
socket.gethostname = lambda: "first"
sys.path.insert(0, sys.argv[2])
import archsmith as smith
from archsmith.store import SQLStore
from test_store_postgres import space
def evaluate(architecture):
    print("trial", flush=True)
    return float(architecture["x"] - architecture["y"])
searcher = smith.searchers.RegularizedEvolution(population=10, sample=3)
smith.search(space, evaluate, searcher=searcher, trials=100_000, store=SQLStore(sys.argv[1], lease_seconds=1), name="a", seed=3)
"""


def test_a_driver_moves_to_another_machine(postgres: Server) -> None:
    url = postgres.fresh()
    command = [sys.executable, "-c", SEARCH, url, str(Path(__file__).parent)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for _ in range(25):
        assert first.stdout.readline() == "trial\n"
    summaries = [run.status for run in open_store(url).runs()]
    listed = subprocess.run(
        [sys.executable, "-m", "archsmith", "list", "--store", url, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    first.kill()
    first.communicate()
    assert summaries == ["running"]
    assert (listed.returncode, listed.stderr) == (0, "")
    assert '"status": "running"' in listed.stdout

    def evaluate(architecture: Any) -> float:
        return float(architecture["x"] - architecture["y"])

    def resume() -> Any:
        try:
            return smith.open_run(url, "a").resume(space=space, evaluator=evaluate, trials=trials)
        except RunLocked as error:
            refused.append(str(error))
            return None

    refused: list[str] = []

    trials = max(60, 5 + sum(open_store(url).runs()[0].counts.values()))
    run = until(resume)
    assert all("on first" in said for said in refused)
    searcher = smith.searchers.RegularizedEvolution(population=10, sample=3)
    other = smith.search(space, evaluate, searcher=searcher, trials=trials, store="memory://", name="a", seed=3)
    assert [(t.genotype, t.reward) for t in run.trials()] == [(t.genotype, t.reward) for t in other.trials()]


# --- weights that several stores keep in one place --------------------------------------------------------------------


def test_databases_and_files_that_keep_weights_in_one_folder(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = str(tmp_path / "w")
    postgres.execute("CREATE SCHEMA IF NOT EXISTS safe AUTHORIZATION locked")
    limited = postgres.at("postgres", user="locked:s3cret", tcp=True) + "?options=-csearch_path%3Dsafe"
    urls = [postgres.fresh(), postgres.database(), limited, str(tmp_path / "runs.db")]
    stores = [open_store(url, artifacts=weights) for url in urls]
    kept = [digest for i, store in enumerate(stores) for digest in keep(store, 0.1 * i, "weights")]
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    for store in stores:
        unused = garbage(weights)
        assert collected(store, monkeypatch) == [unused]
    assert all(digest in open_artifacts(weights) for digest in kept)
    assert "s3cret" not in "".join(file.read_text() for file in (tmp_path / "w" / "stores").iterdir())
    monkeypatch.delenv("PGPASSWORD")
    assert "lets nobody in" in one_notice(stores[0], monkeypatch)
    garbage(weights)
    assert len(collected(stores[2], monkeypatch)) == 1, "the store that asks need not be opened again"
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    postgres.execute("DROP SCHEMA archsmith CASCADE", url=urls[1])
    garbage(weights)
    assert "is not there any more" in one_notice(stores[3], monkeypatch)
