"""Writes the folder of an export completely, then replaces an earlier export in one step and keeps all other files.

`model.json` lists the files that archsmith wrote, with their digests: only those are ever removed. A new export is written
into a hidden folder next to its target, and the two are exchanged in one step (renameat2 with RENAME_EXCHANGE, renamex_np
with RENAME_SWAP on macOS). After a kill, the next export to the same target removes or restores what was left.
"""

from __future__ import annotations

import ctypes
import filecmp
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from archsmith.core.errors import UsageError
from archsmith.core.genotype import canonical_json
from archsmith.core.output_files import is_artifact_folder, kept_kind

FORMAT = "archsmith model"
CARD = "model.json"
FILES = "files"  # the entry of model.json that lists what archsmith wrote
NAMES = (CARD, "README.md", "model.safetensors", "model.onnx", "model.py", "read_image.py", "vocabulary.json")
"""The names of all files in exports of any format. They identify the files of older exports, which have no list."""


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write an export into. It becomes `path` if the block succeeds, and is removed if it does not.

    An earlier export is replaced, and files in it that archsmith did not write are kept. Raises UsageError as `check_folder`
    does, and if `path` cannot be written.
    """
    check_folder(path)
    target = Path(os.path.abspath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        repair(target)
        check_folder(path)
        work = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    except OSError as error:
        raise _unwritable(path, error) from None
    with _held(work):  # folders without a lock were left by a kill
        made = work / "new"
        try:
            made.mkdir()
            yield made
            _list_files(made)
            old = _put(made, target, path)
        except BaseException as error:
            shutil.rmtree(made, ignore_errors=True)
            _remove_if_empty(work)  # an earlier export that could not be put back stays in it, for `repair`
            if isinstance(error, OSError):
                raise _unwritable(path, error) from None
            raise
        if old is not None:
            _clear(old, target)
        _remove_if_empty(work)


def check_folder(path: Path) -> None:
    """Raise UsageError unless `path` is new, an empty folder, or an earlier export."""
    try:
        target = Path(os.path.abspath(path))
        if os.path.islink(target):
            raise UsageError(f"{path} is a symbolic link, and an export replaces its folder; name the folder itself")
        if is_artifact_folder(target):
            raise UsageError(f"{path} is where a store keeps its weights; name another place")
        here = Path.cwd()
        around = {here, *here.parents, Path(os.path.realpath(here)), Path.home()}
        if target in around or os.path.realpath(target) in {str(folder) for folder in around}:
            raise UsageError(
                f"{path} is the folder that you are in, one around it, or your home; an export needs a folder of its own, "
                f"such as {path / 'model'}"
            )
        if not os.path.lexists(target):
            return
        if not target.is_dir() or (any(target.iterdir()) and listed_files(target) is None):
            raise UsageError(f"{path} is there already and is no earlier export; name another place")
        if (database := _database_in(target)) is not None:
            raise UsageError(
                f"{path} holds {database.relative_to(target)}, a database; an export replaces its whole folder, so name "
                "another place"
            )
        for name, digest in (listed_files(target) or {}).items():
            if digest is not None and _digest(target / name) not in (None, digest):
                raise UsageError(
                    f"{target / name} was changed since archsmith wrote it; move it away, or name another place"
                )
    except OSError as error:
        raise _unwritable(path, error) from None
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"cannot write to {str(path)!r}: {error}") from None


def listed_files(folder: Path) -> dict[str, str | None] | None:
    """The files of an export that archsmith wrote, by name, with the SHA-256 of each; None for a folder that is no export.

    The digest is None if it is not known, as for older exports, which have no list.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        return None
    files = card.get(FILES)
    if not isinstance(files, dict):
        weights = card.get("weights")
        known = {weights.get("file"): weights.get("sha256")} if isinstance(weights, dict) else {}
        return {name: known.get(name) for name in NAMES if (folder / name).is_file()}
    return {name: digest for name, digest in files.items() if name in NAMES}


def repair(target: Path) -> None:
    """Restore or remove what a killed export to the same target left. Raises OSError."""
    for work in sorted(target.parent.glob(f"{_prefix(target)}*")):
        with _held(work) as held:
            if not held:
                continue  # another process is writing an export there
            if (work / "old").is_dir() and not os.path.lexists(target):
                os.rename(work / "old", target)
            for left in (work / "new", work / "old"):
                if left.is_dir():
                    _clear(left, target)
            _remove_if_empty(work)


@contextmanager
def _held(work: Path) -> Iterator[bool]:
    """Lock a folder against other processes; yields False if another one holds the lock."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield False
        return
    lock = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:  # another process holds it, or the file system has no locks
            held = False
        yield held
    finally:
        os.close(lock)


def _put(made: Path, target: Path, path: Path) -> Path | None:
    """Move a complete export to its target, and return where the old one is now, or None if there was none.

    At every moment the old or the new one is there, complete, with the files that archsmith did not write.
    """
    check_folder(path)  # again: writing took a while
    if not target.is_dir() or not any(target.iterdir()):
        mode = stat.S_IMODE(target.stat().st_mode) if target.is_dir() else None
        os.rename(made, target)
        if mode is not None:
            os.chmod(target, mode)
        return None
    mine = set(listed_files(target) or ())
    written = set(os.listdir(made))
    for entry in sorted(set(os.listdir(target)) - mine):
        if entry in written:
            raise UsageError(
                f"{target / entry} was not written by archsmith, and the export has a file of that name; move it away, or "
                "name another place"
            )
        _link(target / entry, made / entry)
    os.chmod(made, stat.S_IMODE(target.stat().st_mode))
    if _exchange(made, target):
        return made
    old = made.with_name("old")
    os.rename(target, old)
    try:
        os.rename(made, target)
    except BaseException:
        os.rename(old, target)
        raise
    return old


def _link(source: Path, copy: Path) -> None:
    """Repeat an entry at another path, by hard links if the file system has them, else by copies."""
    if source.is_dir() and not source.is_symlink():
        copy.mkdir()
        for entry in os.listdir(source):
            _link(source / entry, copy / entry)
        shutil.copystat(source, copy)
        return
    try:
        os.link(source, copy, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, copy, follow_symlinks=False)


def _clear(left: Path, target: Path) -> None:
    """Remove an export that was replaced. Files that archsmith did not write are in `target` already, or are moved there."""
    for folder, folders, files in os.walk(left, topdown=False):
        for name in [*files, *(n for n in folders if Path(folder, n).is_symlink())]:
            file = Path(folder, name)
            kept = target / file.relative_to(left)
            with suppress(OSError):
                if (Path(folder) == left and name in NAMES) or (os.path.lexists(kept) and _same(file, kept)):
                    file.unlink()
                elif target.is_dir() and not os.path.lexists(kept):
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    os.rename(file, kept)
        _remove_if_empty(Path(folder))
    if left.exists():
        warnings.warn(f"{left} stays: it has files that archsmith did not write, or could not be removed", stacklevel=3)


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step. Returns False if the system or the file system cannot."""
    first, second = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(first, second, 2)  # RENAME_SWAP
        else:
            failed = library.renameat2(-100, first, -100, second, 2)  # AT_FDCWD, RENAME_EXCHANGE
    except (AttributeError, TypeError, OSError):  # an older C library, or another kind of system
        return False
    return not failed


def _list_files(folder: Path) -> None:
    """Write the list of files into `model.json`."""
    file = folder / CARD
    card = json.loads(file.read_text(encoding="utf-8"))
    files = {name: _digest(folder / name) for name in sorted(os.listdir(folder)) if name != CARD}
    card[FILES] = {CARD: _digest_of_card(card), **files}
    write_json(file, card)


def _digest(file: Path) -> str | None:
    """A file's SHA-256, or None if there is no file. For `model.json`, that of its content without the list of files."""
    try:
        if file.name == CARD:
            card = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(card, dict) and isinstance(card.get(FILES), dict):
                return _digest_of_card(card)
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest_of_card(card: Mapping[str, Any]) -> str:
    said = {key: value for key, value in card.items() if key != FILES}
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Readable JSON, NaN refused."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _database_in(folder: Path) -> Path | None:
    """The path of a database in a folder, which may be open and must not be moved, or None."""
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            if name not in NAMES and file.is_file() and kept_kind(file) == "a database":
                return file
    return None


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _prefix(target: Path) -> str:
    return f".archsmith-export-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {path}: {error.strerror or error}")
