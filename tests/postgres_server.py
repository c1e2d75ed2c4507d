"""A PostgreSQL server for the tests: made in a temporary folder, on a Unix socket and a free port, ended with the session.

It is started by the first test that asks for it, and its own files are looked for where Debian puts them too. As root it
runs as the user postgres, or nobody, since PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

SETTINGS = """
max_connections = 60
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
autovacuum_naptime = 10min
logging_collector = off
lc_messages = 'C'
"""
FAST = "fsync = off\nfull_page_writes = off\n"  # what is written outlives the server, not the machine


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, or None: there is no PostgreSQL here."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def missing() -> str | None:
    """Why there is none to be started, in words, or None."""
    if programs() is None:
        return "install PostgreSQL (its server: initdb and pg_ctl)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "pip install 'archsmith[postgres]'"
    return None


class Server:
    """A running server. `url` is its first database; `fresh()` gives one that nothing was ever written to."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        bin_ = programs()
        assert bin_ is not None
        self.bin, self.folder, self.data = bin_, folder, folder / "data"
        self.user: dict[str, Any] = {}
        if os.getuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            owner = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            self.user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", self.data, "-U", "smith", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        place = f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{folder}'\n"
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS + place + FAST * (not durable))
        # Over TCP the user "locked" needs its password; all else is open to whoever reaches the folder.
        lines = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
        (self.data / "pg_hba.conf").write_text(lines)
        self.start()
        self.execute("CREATE ROLE locked LOGIN PASSWORD 's3cret'")

    @property
    def url(self) -> str:
        return self.at("postgres")

    def at(self, database: str, *, user: str = "smith", tcp: bool = False) -> str:
        """The URL of a database."""
        if tcp:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder))}&port={self.port}"

    def fresh(self) -> str:
        """The URL of a schema of its own, reached by the search path: much faster to make than a database."""
        name = f"t{secrets.token_hex(6)}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}&options=-csearch_path%3D{name}"

    def database(self) -> str:
        """The URL of a new database."""
        name = f"d{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.at(name)

    def execute(self, *statements: str, url: str | None = None) -> list[Any]:
        """Run statements, each in a transaction of its own; gives the rows of the last."""
        import psycopg

        rows: list[Any] = []
        with psycopg.connect(url or self.url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", self.data, "-l", self.folder / "log")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-t", "60", "-m", mode, "-D", self.data)

    def restart(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "restart", "-w", "-t", "60", "-m", mode, "-D", self.data, "-l", self.folder / "log")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.bin / program), *map(str, arguments)]
        with tempfile.TemporaryFile() as said:  # no pipe: the server would inherit it, and hold it open
            quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
            status = subprocess.call(command, cwd="/", **quiet, **self.user)
            if status:
                said.seek(0)
                raise RuntimeError(f"{program} failed: {said.read().decode(errors='replace')}")


@contextlib.contextmanager
def running(*, durable: bool = False) -> Iterator[Server]:
    """A server for as long as the block lasts; `durable` has it wait for the disk, as one that is not for tests does."""
    folder = Path(tempfile.mkdtemp(prefix="archsmith-pg-"))  # short: the path of a socket has 107 characters at most
    folder.chmod(0o755)
    try:
        server = Server(folder, durable=durable)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for all tests of a session."""
    with running() as server:
        yield server
