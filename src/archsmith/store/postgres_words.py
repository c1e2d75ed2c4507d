"""What PostgreSQL says, in words that name the next step; and its URLs without their secrets."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from archsmith.core.errors import CorruptStore, StoreError

_SECRETS = ("password", "sslpassword", "oauth_client_secret")


def public_url(parameters: dict[str, Any]) -> str:
    """A URL with these parameters of libpq, without passwords; it opens the same database for whoever knows them."""
    left = {key: str(value) for key, value in parameters.items() if key not in _SECRETS}
    user, database = left.pop("user", ""), left.pop("dbname", "")
    hosts, ports = left.pop("host", ""), left.pop("port", "")
    if "/" in hosts or "@" in hosts:  # the folder of a socket
        left = {"host": hosts, **({"port": ports} if ports else {}), **left}
        hosts = ports = ""
    each = hosts.split(",") if hosts else []
    numbers = ports.split(",") if ports else [""]
    numbers = numbers * len(each) if len(numbers) == 1 else numbers
    where = ",".join(
        f"[{h}]" * (":" in h) + h * (":" not in h) + f":{p}" * bool(p) for h, p in zip(each, numbers, strict=False)
    )
    if not each and ports:
        left = {"port": ports, **left}
    more = "&".join(f"{key}={quote(value, safe='/,')}" for key, value in left.items())
    return (
        "postgresql://" + (quote(user, safe="") + "@") * bool(user) + where + "/" + quote(database, safe="")
    ) + f"?{more}" * bool(more)


def is_lost(error: BaseException | None) -> bool:
    """Whether the connection is lost, or never was: there is nothing to be said about the work itself."""
    import psycopg

    state = getattr(error, "sqlstate", None)
    if not isinstance(state, str):  # it comes from libpq, not from the server
        return isinstance(error, psycopg.OperationalError) and not _is_final(str(error))
    return state.startswith("08") or state in ("57P01", "57P02", "25P03")


def is_passing(error: BaseException | None) -> bool:
    """Whether the server says that it cannot now, and may in a moment."""
    state, said = getattr(error, "sqlstate", None), str(error)
    if state is None:
        return any(words in said for words in _SOON)
    return state in ("57P03", "40001", "40P01")


_SOON = ("is starting up", "is shutting down", "not yet accepting connections", "in recovery mode")
_FULL = ("too many clients", "too many connections", "remaining connection slots", "connection limit")
_REFUSED = ("password authentication failed", "no password supplied", "authentication failed", "no pg_hba.conf entry")


def _is_final(said: str) -> bool:
    """Whether an error without a number is one that waiting does not mend."""
    gone = "does not exist" in said and ("database" in said or "role" in said)
    return gone or any(words in said for words in (*_REFUSED, "could not translate host name", "invalid "))


def in_words(error: BaseException | None, url: str, busy_seconds: float) -> StoreError:
    """The error of the store for an error of psycopg."""
    state, said = getattr(error, "sqlstate", None) or "", " ".join(str(error).split())
    text = said.rpartition("FATAL: ")[2].strip()[:300]
    store = f"the store {url}"
    if state in ("53300", "57014") or any(words in said for words in _FULL):
        if state == "57014":
            return StoreError(f"{store} ended a statement before it was done ({text}), so this was not recorded")
        return StoreError(
            f"{store} has too many connections ({text}). End some, or raise max_connections; what was recorded is kept"
        )
    if "database" in said and "does not exist" in said and not state.startswith("42"):
        return StoreError(
            f"{store} cannot be opened: {text}. Make the database, once: createdb NAME (or CREATE DATABASE NAME)"
        )
    if any(words in said for words in _REFUSED) or ("role" in said and "does not exist" in said):
        return StoreError(
            f"{store} lets nobody in with that name and password: {text}. Name the user in the URL, and put the password "
            "into PGPASSWORD or ~/.pgpass"
        )
    if state in ("53100",):
        return StoreError(f"the disk of {store} is full. What was recorded is kept: free some space, then resume")
    if state == "25006":
        return StoreError(f"cannot write {store}: it is read-only ({text}); name the primary server instead")
    if state == "42501":
        return StoreError(
            f"{store} does not allow it: {text}. Its owner can: CREATE SCHEMA archsmith AUTHORIZATION user, or GRANT the "
            "rights on what is there"
        )
    if state == "55P03":
        return StoreError(
            f"{store} stayed locked by another transaction for {busy_seconds:g} seconds, so this was not recorded. End "
            "what holds it (a session with an open transaction), then resume"
        )
    if state in ("42P01", "42703", "3F000"):
        return CorruptStore(f"{store} is damaged: {text}")
    if state in ("22P05", "22021"):
        return StoreError(f"{store} cannot hold this text: {text}. Make its database with the encoding UTF8")
    if is_lost(error) or is_passing(error):
        return StoreError(
            f"no connection to {store}: {text}. What was recorded is kept; see that the server runs and can be reached, then "
            f"run the command again (a connection that is lost on the way is tried for {busy_seconds:g} seconds)"
        )
    return StoreError(f"{store} cannot be used: {text}")
