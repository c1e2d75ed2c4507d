"""Artifacts: named tensors in a folder of safetensors files, each called by the SHA-256 of its content.

Equal content has one file. A file appears whole or not at all, so any number of processes may put and get at once:
workers put what they trained, the process that runs the search collects. It stands in core, and imports torch only
when it is given tensors, because executors and stores both hand the folder on. `remote_artifacts` is the same at an
address that is no folder of this machine's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from archsmith.core.artifact_registry import EARLIER, FOLDER, Registration, Registry, earlier_to_bytes, registry_of
from archsmith.core.errors import CorruptStore, StoreError, UsageError
from archsmith.core.genotype import canonical_json

DEFAULT_CAP_BYTES = 4 * 2**30

_DIGEST = re.compile(r"[0-9a-f]{64}")
SUFFIX = ".safetensors"
PARTIAL = ".partial"


class Artifacts(Protocol):
    """Where named tensors are kept: an `ArtifactFolder`, or `RemoteArtifacts`."""

    @property
    def cap_bytes(self) -> int:
        """What `collect` brings the size down to."""
        ...

    def __contains__(self, digest: str) -> bool: ...

    def check(self) -> None:
        """Raise StoreError unless tensors can be kept there: before children are trained that would all fail."""
        ...

    def put(self, tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> str:
        """Keep named tensors with a JSON description; gives their digest. Raises StoreError."""
        ...

    def get(self, digest: str) -> dict[str, Any]:
        """The tensors kept under a digest. Raises StoreError when there are none, CorruptStore when they are damaged."""
        ...

    def metadata(self, digest: str) -> dict[str, Any]:
        """The JSON description that was put with the tensors. Raises as `get` does."""
        ...

    def size(self) -> int:
        """The bytes that all artifacts take."""
        ...

    def collect(
        self, keep: Collection[str] | None, *, grace_seconds: float = 3600.0, registry: Registry | None = None
    ) -> list[str]:
        """Delete artifacts until the rest fits under the cap, least recently used first; returns their digests.

        With `keep=None`, only incomplete files of killed processes are deleted. `registry` lists the stores whose artifacts are
        in `keep`: if others have registered since, no artifact is deleted.
        """
        ...

    def register(self, registration: Registration) -> None:
        """Register a store, which every collection asks for its artifacts from now on. Raises StoreError."""
        ...

    def registry(self) -> Registry:
        """The stores that are registered. Raises StoreError."""
        ...


def open_artifacts(address: str | os.PathLike[str], *, cap_bytes: int = DEFAULT_CAP_BYTES) -> Artifacts:
    """The artifacts at an address: a folder's path, or one of fsspec's such as "s3://bucket/prefix".

    Touches nothing. Raises UsageError for an address that nothing serves, with the package to install where that helps.
    """
    text = os.fspath(address)
    if "://" not in text:
        return ArtifactFolder(address, cap_bytes=cap_bytes)
    protocol, _, path = text.partition("://")
    if protocol in ("file", "local"):  # a folder has a lock and times of use, and asks for no package
        return ArtifactFolder(path, cap_bytes=cap_bytes)
    from archsmith.core.remote_artifacts import RemoteArtifacts

    return RemoteArtifacts(text, cap_bytes=cap_bytes)


class ArtifactFolder:
    """A folder of artifacts. Making one touches nothing; the first `put` creates the folder.

    Safe to use from several processes at once, as long as they see one file system.

    Args:
        path: the folder.
        cap_bytes: what `collect` brings the folder's size down to.
    """

    def __init__(self, path: str | os.PathLike[str], *, cap_bytes: int = DEFAULT_CAP_BYTES) -> None:
        self.path = Path(path)
        self.cap_bytes = check_cap(cap_bytes)

    def __contains__(self, digest: str) -> bool:
        return self._file(digest).is_file()

    def check(self) -> None:
        """Raise StoreError unless the folder can be written to, or made. Makes nothing."""
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise StoreError(f"cannot keep artifacts in {self.path}: {there} is no folder that can be written to")

    def put(self, tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> str:
        """Keep named tensors (torch tensors or numpy arrays) with a JSON description; gives their digest.

        The file is written aside, flushed to the disk and renamed, so that a kill leaves it whole or absent. Tensors
        that share memory are kept as copies of their own. Raises StoreError when it cannot be written.
        """
        return self.write(to_bytes(tensors, metadata or {}))

    def write(self, content: bytes) -> str:
        """Keep an artifact that is whole already, as `read` gave it elsewhere. Raises StoreError as `put` does."""
        digest = digest_of(content)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_aside(content, self._file(digest), self._lock())
        except OSError as error:
            raise StoreError(f"cannot keep an artifact in {self.path}: {error.strerror or error}") from error
        return digest

    def get(self, digest: str) -> dict[str, Any]:
        """The tensors kept under a digest, as torch tensors on the CPU, whatever they were when put.

        Raises StoreError when there are none (they may have been collected), CorruptStore when the file does not have
        the content that its name promises.
        """
        return from_bytes(self.read(digest))

    def metadata(self, digest: str) -> dict[str, Any]:
        """The JSON description that was put with the tensors. Raises as `get` does."""
        return described(self.read(digest))

    def size(self) -> int:
        """The bytes that all artifacts take."""
        return sum(size for _, size, _ in self._listing())

    def collect(
        self, keep: Collection[str] | None, *, grace_seconds: float = 3600.0, registry: Registry | None = None
    ) -> list[str]:
        """Delete artifacts until the rest fits under the cap, least recently put or read first; gives their digests.

        Those in `keep` always stay. So do those used in the last `grace_seconds`: a child that is still training has
        checkpoints which no result refers to yet. The folder is therefore above its cap when these alone are. Incomplete files
        of a killed `put` are deleted as well, after the same time; with `keep=None` nothing else is.
        If other stores are registered than those in `registry`, no artifact is deleted.
        """
        if not self.path.is_dir():
            return []
        kept, removed = set(keep or ()), list[str]()
        try:
            with self._lock():  # so that no `put` renews a file between the look at its age and its deletion
                now = self._now()
                for partial in self.path.glob(f"*{PARTIAL}"):
                    if now - partial.stat().st_mtime >= grace_seconds:
                        partial.unlink(missing_ok=True)
                if keep is None or (registry is not None and self.registry() != registry):
                    return []
                listing = sorted(self._listing())
                total = sum(size for _, size, _ in listing)
                for used, size, digest in listing:
                    if total <= self.cap_bytes:
                        break
                    if digest not in kept and now - used >= grace_seconds:
                        self._file(digest).unlink(missing_ok=True)
                        total -= size
                        removed.append(digest)
        except OSError as error:
            raise StoreError(f"cannot collect artifacts in {self.path}: {error.strerror or error}") from error
        return removed

    def register(self, registration: Registration) -> None:
        """Register a store, which every collection asks for its artifacts from now on. Makes the folder. Raises StoreError."""
        folder = self.path / FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            registration = registration.in_folder(self.path)
            with self._lock():
                if not (folder / EARLIER).exists():
                    digests = [digest for _, _, digest in self._listing()]
                    self._write_aside(earlier_to_bytes(digests), folder / EARLIER)
                known = self.registry().stores
                if known.get(registration.key) != registration:
                    self._write_aside(registration.to_bytes(), folder / registration.key)
                for name, earlier in known.items():
                    if registration.supersedes(earlier):
                        (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot register a store in {self.path}: {error.strerror or error}") from error

    def registry(self) -> Registry:
        """The stores that are registered. A file that cannot be read is a store that cannot be opened."""
        files: dict[str, bytes | None] = {}
        for file in sorted((self.path / FOLDER).glob("*.json")):
            try:
                files[file.name] = file.read_bytes()
            except OSError:
                files[file.name] = None
        return registry_of(files)

    def _now(self) -> float:
        """The time by the clock that files get theirs from, which another machine may keep. With the lock held."""
        lock = self.path / ".lock"
        try:
            os.utime(lock)
            return lock.stat().st_mtime
        except OSError:
            return time.time()

    def _write_aside(self, content: bytes, file: Path, lock: AbstractContextManager[object] | None = None) -> None:
        """Write a file atomically; `lock` is held while it is moved to its name."""
        descriptor, partial = tempfile.mkstemp(suffix=PARTIAL, dir=self.path)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
            os.chmod(partial, 0o644)  # mkstemp makes it private; a team shares the folder
            with lock or nullcontext():
                os.replace(partial, file)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
        _sync_folder(file.parent)

    def _listing(self) -> list[tuple[float, int, str]]:
        found = []
        for file in self.path.glob(f"*{SUFFIX}"):
            if is_digest(file.stem):
                try:
                    status = file.stat()
                except FileNotFoundError:  # collected by another process meanwhile
                    continue
                found.append((status.st_mtime, status.st_size, file.stem))
        return found

    def _file(self, digest: str) -> Path:
        return self.path / (check_digest(digest) + SUFFIX)

    def read(self, digest: str) -> bytes:
        """An artifact as it is kept. Raises as `get` does."""
        file = self._file(digest)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise StoreError(
                f"there is no artifact {digest[:12]} in {self.path}: it was collected, or the folder did not come along "
                "with the database"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot read the artifact {file}: {error.strerror or error}") from error
        matches(content, digest, str(file))
        with contextlib.suppress(OSError):  # a read-only folder is never collected
            os.utime(file)  # the time of the last use, for `collect`; atime is often not kept
        return content

    def _lock(self) -> Any:
        from filelock import FileLock

        return FileLock(self.path / ".lock")


def artifact_address(given: str | os.PathLike[str]) -> str:
    """A folder as its absolute path, another address as it is. Raises UsageError for one with a password in it."""
    text = os.fspath(given)
    if not isinstance(text, str) or not text or not text.isprintable():
        raise UsageError(f"artifacts is a folder or an address such as s3://bucket/folder, got {given!r}")
    protocol, _, path = text.rpartition("://")
    if protocol in ("", "file", "local"):
        return str(Path(os.path.expanduser(path)).absolute())
    if urlsplit(text).password is not None:
        raise UsageError(
            "the address of artifacts has a password in it, and it would be kept in the store for all to read; give "
            "credentials in the environment, or in the files of your cloud's tools"
        )
    return text.rstrip("/")


def is_same_address(one: str, other: str) -> bool:
    """Whether two addresses are the same, after links are followed. "file:///a" is the folder "/a"."""
    plain = [artifact_address(address) for address in (one, other)]
    return len({address if "://" in address else os.path.realpath(address) for address in plain}) == 1


def digests_in(document: Any) -> Iterator[str]:
    """Every value of a key "artifact" in plain JSON, at any depth."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            if key == "artifact" and isinstance(value, str):
                yield value
            else:
                yield from digests_in(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from digests_in(value)


def is_digest(text: str) -> bool:
    """Whether it has the form of a digest."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(digest: str) -> str:
    """The digest; raises UsageError for what is none, so that no name becomes a path."""
    if not isinstance(digest, str) or not is_digest(digest):
        raise UsageError(f"the digest of an artifact has 64 hexadecimal digits, got {digest!r}")
    return digest


def check_cap(cap_bytes: int) -> int:
    """The cap; raises UsageError for one below zero."""
    if cap_bytes < 0:
        raise UsageError(f"cap_bytes must be zero or more, got {cap_bytes}")
    return cap_bytes


def digest_of(content: bytes) -> str:
    """What an artifact of this content is called."""
    return hashlib.sha256(content).hexdigest()


def matches(content: bytes, digest: str, where: str) -> None:
    """Raise CorruptStore where an artifact is not what its name says; `where` is for the message."""
    if digest_of(content) != digest:
        raise CorruptStore(f"the artifact {where} is damaged: its content does not match its name; delete the file")


def described(content: bytes) -> dict[str, Any]:
    """The JSON description in an artifact's content."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    found: dict[str, Any] = json.loads(header.get("__metadata__", {}).get("archsmith", "{}"))
    return found


def from_bytes(content: bytes) -> dict[str, Any]:
    """The tensors in an artifact's content."""
    from safetensors.torch import load

    tensors: dict[str, Any] = load(content)
    return tensors


def to_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> bytes:
    """An artifact's content. Raises UsageError for none, and for what is no tensor or array."""
    from safetensors.numpy import save as save_arrays
    from safetensors.torch import load, save

    if not tensors:
        raise UsageError("an artifact needs at least one tensor")
    arrays: dict[str, Any] = {}
    prepared: dict[str, Any] = {}
    for name, value in tensors.items():
        if hasattr(value, "detach"):
            # A copy of its own: contiguous, on the CPU, and sharing no memory, as safetensors asks.
            prepared[str(name)] = value.detach().to("cpu", copy=True).contiguous()
        elif hasattr(value, "__array__"):
            arrays[str(name)] = value.__array__().copy(order="C")
        else:
            raise UsageError(f"an artifact keeps tensors and arrays; {name!r} is {type(value).__name__}")
    # One way to write: numpy arrays become torch tensors first.
    prepared |= load(save_arrays(arrays)) if arrays else {}
    # One key, since the order of several would not be fixed, and with it the digest.
    content: bytes = save(prepared, metadata={"archsmith": canonical_json(dict(metadata))})
    return content


def _sync_folder(path: Path) -> None:
    """Make a rename last through a power failure, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
