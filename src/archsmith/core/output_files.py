"""Writes a file to a path that a person gave: atomically, and never over a file that archsmith did not write."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from archsmith.core.errors import UsageError

_HEAD = 4096  # bytes read to recognise a file
_DATABASES = (".db", ".db3", ".sqlite", ".sqlite3", ".duckdb", ".mdb", ".accdb")
_BESIDE_DATABASES = ("-wal", "-shm", "-journal")
_SIGNATURES = (
    (0, b"SQLite format 3\0"),
    (0, b"\x37\x7f\x06\x82"),  # SQLite's write-ahead log, in both byte orders
    (0, b"\x37\x7f\x06\x83"),
    (0, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"),  # SQLite's rollback journal
    (8, b"DUCK"),
    (4, b"Standard Jet DB"),
    (4, b"Standard ACE DB"),
)


def check_output(path: Path, what: str, is_ours: Callable[[str], bool], *, force: bool = False) -> None:
    """Raise UsageError unless a file may be written to `path`. Call it before the content is made, which may take long.

    An existing file is replaced if it is empty, if archsmith wrote it, or with `force`. Databases, the weights of a store,
    folders and read-only files are never replaced.

    Args:
        path: the file.
        what: the name of the content for messages, such as "report".
        is_ours: takes the beginning of a file; returns whether archsmith wrote it.
        force: whether to replace a file that archsmith did not write.
    """
    shown = str(path)
    if "\0" in shown:
        raise UsageError(f"the {what} cannot be written to {shown!r}: no path has a NUL in it")
    if is_artifact_folder(path) or is_artifact_folder(path.parent):
        raise UsageError(f"{shown!r} is where a store keeps its weights; name another place for the {what}")
    try:
        if os.path.isdir(path):
            raise UsageError(f"the {what} is a file, and {shown!r} is a folder; name a file in it")
        parent = Path(os.path.realpath(path)).parent if os.path.islink(path) else path.parent
        if not os.path.isdir(parent):
            raise UsageError(f"the {what} cannot be written to {shown!r}: there is no folder {str(parent)!r}")
        if not os.path.exists(path):
            return
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
            return
        if not stat.S_ISREG(mode):
            raise UsageError(f"the {what} cannot be written to {shown!r}, which is no file; name another place for it")
        if (kind := kept_kind(path)) is not None:
            raise UsageError(
                f"{shown!r} is {kind}, and the {what} never replaces one, not even with --force; name another place for it"
            )
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if not os.access(path, os.W_OK):
            raise UsageError(
                f"the {what} cannot be written to {shown!r}: the file is read-only; name another place for it"
            )
        if head and not force and not is_ours(head.decode("utf-8", "replace")):
            raise UsageError(
                f"{shown!r} is there already and is no earlier export or page of archsmith's; name another place for the "
                f"{what}, or replace the file with --force (in Python, force=True)"
            )
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be written to {shown!r}: {error.strerror or error}; name another place for it"
        ) from None


def write_output(path: Path, text: str, what: str, is_ours: Callable[[str], bool], *, force: bool = False) -> None:
    """Write a file atomically: a reader never sees half of it, and a full disk leaves the old one. See `check_output`.

    Writes through a symbolic link. Raises UsageError.
    """
    check_output(path, what, is_ours, force=force)
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # /dev/stdout, a named pipe
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
        else:
            _replace(Path(os.path.realpath(path)), text)
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be written to {str(path)!r}: {error.strerror or error}; name another place for it"
        ) from None


def is_artifact_folder(path: Path) -> bool:
    """Whether a path is that of a store's weights, such as runs.artifacts next to runs.db. The folder need not exist."""
    try:
        return path.suffix == ".artifacts" and any(path.with_suffix(end).exists() for end in _DATABASES)
    except OSError:
        return False


def kept_kind(path: Path) -> str | None:
    """The kind of a file that must never be replaced, such as "a database"; None for any other file. Raises OSError."""
    path = Path(os.path.realpath(path))
    name = path.name.lower()
    if name.endswith(_BESIDE_DATABASES) or _is_lock(path):
        return "part of a database"
    if name.endswith(_DATABASES):
        return "a database"
    with open(path, "rb") as file:
        head = file.read(64)
    if any(head[at : at + len(sign)] == sign for at, sign in _SIGNATURES):
        return "a database"
    return "a file of weights" if name.endswith(".safetensors") else None


def _is_lock(path: Path) -> bool:
    """Whether a file is a store's lock, `runs.db.lock`, or that of a run in it, `runs.db.0123456789ab.lock`."""
    beside = path.with_suffix("")
    return path.suffix == ".lock" and (beside.exists() or beside.with_suffix("").exists())


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, stat.S_IMODE(path.stat().st_mode) if path.exists() else _default_mode())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _default_mode() -> int:
    """The permissions of a new file. Those of mkstemp let nobody but the owner read it."""
    umask = os.umask(0o077)  # for the moment: other threads may make files meanwhile
    os.umask(umask)
    return 0o666 & ~umask


@contextlib.contextmanager
def folder_for_now(path: Path) -> Iterator[None]:
    """Make a folder for the body, to check what will be written into it. Left empty among classes, it would be one of them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}; name another folder") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # another process has written into it
            for folder in missing:
                folder.rmdir()
