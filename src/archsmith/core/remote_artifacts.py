"""Artifacts at an address of fsspec's: "s3://bucket/prefix", "gs://...", "sftp://...", whatever it has a file system for.

    <digest>.safetensors     the artifact
    <digest>.used            empty; when it was last read, which is all that an object store cannot tell by itself
    collecting/<name>        a notice: the digests that a `collect` under way is about to delete
    stores/<name>            a store that keeps artifacts here; see `artifact_registry`
    <name>.partial           half written, where a file system must write aside and move

There is no lock. A `collect` first puts up its notice, then looks again and deletes only what nobody renewed meanwhile.
A `put` first writes, then looks for notices that name what it wrote; where there is one it waits until that is gone, and
writes again if need be. One of the two sees the other, as stores whose listings are consistent at once (S3, GCS and
Azure are) have it. Ages are told by the store's own clock, so those of the machines do not matter.

Retries and timeouts are those of the file system (s3fs: five tries), and so are credentials, which are never part of an
address: fsspec and the clouds' own tools find them in the environment or in their files.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archsmith.core.artifact_registry import EARLIER, FOLDER, Registration, Registry, earlier_to_bytes, registry_of
from archsmith.core.artifacts import (
    DEFAULT_CAP_BYTES,
    PARTIAL,
    SUFFIX,
    check_cap,
    check_digest,
    described,
    digest_of,
    from_bytes,
    is_digest,
    matches,
    to_bytes,
)
from archsmith.core.errors import StoreError, UsageError

NOTICE_SECONDS = 30.0
"""How long a notice of a `collect` counts. One that is slower than half of it deletes nothing."""

_USED = ".used"
_NOTICES = "collecting"

# Where one put is seen whole or not at all. All others are written aside and moved, which is right everywhere.
_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "obs", "cos", "tos", "memory"})

# What file systems call the time of the last change, in their listings.
_TIMES = ("LastModified", "mtime", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True)
class _Seen:
    """What a listing showed."""

    artifacts: Mapping[str, tuple[float, int]]  # digest -> when it was last put or read, bytes
    marks: frozenset[str]  # digests that have a mark of their last use
    leftovers: Mapping[str, float]  # names of what killed processes left -> when it was made


class RemoteArtifacts:
    """Artifacts at an address of fsspec's. Making one looks for the package that the address needs, and touches nothing.

    Any number of processes, on any machines, may put, get and collect at once.

    Args:
        address: such as "s3://bucket/prefix".
        cap_bytes: what `collect` brings the size down to.
    """

    def __init__(self, address: str, *, cap_bytes: int = DEFAULT_CAP_BYTES) -> None:
        self._protocol, _, place = address.partition("://")
        if not place.strip("/"):
            raise UsageError(f"the address of artifacts must name a place, such as s3://bucket/prefix, got {address!r}")
        if any(character in address for character in "*?[]"):
            raise UsageError(f"the address of artifacts may not contain * ? [ or ], got {address!r}")
        self.address = address.rstrip("/")
        self.cap_bytes = check_cap(cap_bytes)
        self._root = self._open()[1].rstrip("/")

    def __contains__(self, digest: str) -> bool:
        file = self._file(digest)
        with self._plain_errors("look for an artifact"):
            return bool(self._fs().isfile(file))

    def check(self) -> None:
        """Raise StoreError unless a small object can be written, listed and deleted there."""
        probe = f"{self._root}/{uuid.uuid4().hex}{PARTIAL}"
        with self._plain_errors("keep artifacts"):
            fs = self._fs()
            self._make_folder(self._root)
            fs.pipe_file(probe, b"archsmith")
            self._list(self._root)
            self._delete([probe])

    def put(self, tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> str:
        """Keep named tensors (torch tensors or numpy arrays) with a JSON description; gives their digest.

        It appears whole or not at all. Raises StoreError when it cannot be written, after the file system's own retries.
        """
        content = to_bytes(tensors, metadata or {})
        digest = digest_of(content)
        with self._plain_errors("keep an artifact"):
            self._write(self._file(digest), content)
            while self._wait_for_collectors(digest) and digest not in self:
                self._write(self._file(digest), content)
        return digest

    def get(self, digest: str) -> dict[str, Any]:
        """The tensors kept under a digest, as torch tensors on the CPU, whatever they were when put.

        Raises StoreError when there are none or they cannot be reached, CorruptStore when the object does not have the
        content that its name promises.
        """
        return from_bytes(self._read(digest))

    def metadata(self, digest: str) -> dict[str, Any]:
        """The JSON description that was put with the tensors. Raises as `get` does."""
        return described(self._read(digest))

    def size(self) -> int:
        """The bytes that all artifacts take."""
        with self._plain_errors("list artifacts"):
            return sum(size for _, size in self._look().artifacts.values())

    def collect(
        self, keep: Collection[str] | None, *, grace_seconds: float = 3600.0, registry: Registry | None = None
    ) -> list[str]:
        """Delete artifacts until the rest fits under the cap, least recently put or read first; gives their digests.

        Those in `keep` always stay, and so do those used in the last `grace_seconds`. What killed processes left half
        done goes as well, after the same time; with `keep=None` nothing else does. Where other stores are registered
        than those of `registry`, no artifact is deleted. Raises StoreError when it may not delete, or cannot reach the
        place.
        """
        with self._plain_errors("collect artifacts"):
            before, began = self._look(), time.monotonic()
            doomed = [] if keep is None else self._over_cap(before, set(keep))
            if not doomed and not before.leftovers:
                return []
            notice = f"{self._root}/{_NOTICES}/{uuid.uuid4().hex}"
            self._make_folder(f"{self._root}/{_NOTICES}")
            self._fs().pipe_file(notice, json.dumps(doomed).encode())
            try:
                seen = self._look()
                if registry is not None and self._registry() != registry:
                    doomed = []  # a store registered meanwhile; the next collection asks it
                now = _modified(self._fs().info(notice))
                doomed = [
                    digest
                    for digest in doomed
                    if seen.artifacts.get(digest) == before.artifacts[digest]
                    and now - before.artifacts[digest][0] >= grace_seconds
                ]
                old = [
                    name for name, made in seen.leftovers.items() if now - made >= max(grace_seconds, NOTICE_SECONDS)
                ]
                if time.monotonic() - began > NOTICE_SECONDS / 2:
                    return []  # too slow to be safe; the next one will do
                marks = [self._mark(digest) for digest in doomed if digest in seen.marks]
                self._delete([*map(self._file, doomed), *marks, *old])
            finally:
                self._delete([notice])
            left = self._look().artifacts if doomed else {}  # deleting many at once is not always told when it fails
            denied = [digest for digest in doomed if left.get(digest) == before.artifacts[digest]]
            if denied:
                raise PermissionError(f"{len(denied)} of {len(doomed)} were not deleted")
            return doomed

    def register(self, registration: Registration) -> None:
        """Register a store, which every collection asks for its artifacts from now on. Raises StoreError.

        Waits for a collection that is under way, since it may not have seen the store.
        """
        folder = f"{self._root}/{FOLDER}"
        with self._plain_errors("register a store"):
            files = self._registry_files()
            known = registry_of(files).stores
            if known.get(registration.key) == registration:
                return
            self._make_folder(folder)
            if EARLIER not in files:
                self._fs().pipe_file(f"{folder}/{EARLIER}", earlier_to_bytes(self._look().artifacts))
            self._fs().pipe_file(f"{folder}/{registration.key}", registration.to_bytes())
            self._delete([f"{folder}/{name}" for name, earlier in known.items() if registration.supersedes(earlier)])
            self._wait_for_collectors(None)

    def registry(self) -> Registry:
        """The stores that are registered. A file that cannot be read is a store that cannot be opened."""
        with self._plain_errors("list stores"):
            return self._registry()

    def _registry(self) -> Registry:
        return registry_of(self._registry_files())

    def _registry_files(self) -> dict[str, bytes | None]:
        files: dict[str, bytes | None] = {}
        for path, _ in self._files(FOLDER):
            name = path.rsplit("/", 1)[-1]
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError):  # superseded meanwhile
                    files[name] = self._fs().cat_file(path)
        return files

    def _over_cap(self, seen: _Seen, kept: set[str]) -> list[str]:
        """What would go, the longest unused first, if nothing were too young."""
        total, doomed = sum(size for _, size in seen.artifacts.values()), []
        for digest, (_, size) in sorted(seen.artifacts.items(), key=lambda item: (item[1], item[0])):
            if total <= self.cap_bytes:
                break
            if digest not in kept:
                total -= size
                doomed.append(digest)
        return doomed

    def _look(self) -> _Seen:
        artifacts, used, leftovers = dict[str, tuple[float, int]](), dict[str, float](), dict[str, float]()
        for info in self._list(self._root):
            if info["type"] == "directory":
                continue
            name = info["name"].rsplit("/", 1)[-1]
            if name.endswith(SUFFIX) and is_digest(digest := name.removesuffix(SUFFIX)):
                artifacts[digest] = _modified(info), int(info["size"])
            elif name.endswith(_USED) and is_digest(digest := name.removesuffix(_USED)):
                used[digest] = _modified(info)
            elif name.endswith(PARTIAL):
                leftovers[f"{self._root}/{name}"] = _modified(info)
        leftovers |= {self._mark(digest): at for digest, at in used.items() if digest not in artifacts}
        leftovers |= dict(self._notices())
        return _Seen(
            {digest: (max(at, used.get(digest, at)), size) for digest, (at, size) in artifacts.items()},
            frozenset(used),
            leftovers,
        )

    def _notices(self) -> list[tuple[str, float]]:
        return self._files(_NOTICES)

    def _files(self, folder: str) -> list[tuple[str, float]]:
        """The files of a folder, with the times of their last change."""
        # `find` and not `ls`: s3fs lists the whole parent where a folder is empty. It then asks whether there is such a
        # folder at all, and answers with that where one has just appeared: look again.
        for _ in range(5):
            found = self._fresh().find(f"{self._root}/{folder}", detail=True)
            files = {str(path): info for path, info in found.items() if info["type"] != "directory"}
            if files or not found:
                break
        return [(path, _modified(info)) for path, info in files.items()]

    def _wait_for_collectors(self, digest: str | None) -> bool:
        """Wait until no valid notice names a digest (None: until there is no notice); returns whether there was one."""
        waited, deadline = False, time.monotonic() + NOTICE_SECONDS
        while self._is_noticed(digest):
            waited = True
            if time.monotonic() > deadline:  # its collector was killed
                break
            time.sleep(0.2)
        return waited

    def _is_noticed(self, digest: str | None) -> bool:
        fs = self._fs()
        for notice, _ in self._notices():
            with contextlib.suppress(FileNotFoundError, ValueError):  # gone meanwhile, or no notice of ours
                doomed = json.loads(fs.cat_file(notice))
                if digest in doomed or (digest is None and doomed):
                    return True
        return False

    def _write(self, file: str, content: bytes) -> None:
        fs = self._fs()
        if self._protocol in _ATOMIC:
            fs.pipe_file(file, content)
            return
        partial = f"{self._root}/{uuid.uuid4().hex}{PARTIAL}"
        self._make_folder(self._root)
        try:
            fs.pipe_file(partial, content)
            try:
                fs.mv(partial, file)
            except Exception:  # some move onto nothing that is there: then equal content is, and is in use again
                if not self._fresh().isfile(file):
                    raise
                fs.pipe_file(file.removesuffix(SUFFIX) + _USED, b"")
                fs.rm_file(partial)
        except BaseException:
            with contextlib.suppress(Exception):
                fs.rm_file(partial)
            raise

    def _read(self, digest: str) -> bytes:
        file = self._file(digest)
        with self._plain_errors("read an artifact"):
            try:
                content: bytes = self._fs().cat_file(file)
            except FileNotFoundError as error:
                raise StoreError(
                    f"there is no artifact {digest[:12]} at {self.address}: it was collected, or the address is not where "
                    f"the run's weights are kept ({error})"
                ) from None
        matches(content, digest, f"{self.address}/{digest}{SUFFIX}")
        with contextlib.suppress(Exception):  # who may only read never collects
            self._fs().pipe_file(self._mark(digest), b"")
        return content

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._fresh().ls(folder, detail=True))
        except FileNotFoundError:
            return []

    def _delete(self, files: list[str]) -> None:
        if not files:
            return
        try:
            self._fs().rm(files)  # many at once, where the file system can
        except FileNotFoundError:  # another collector was faster
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    self._fs().rm_file(file)

    def _make_folder(self, folder: str) -> None:
        if self._protocol not in _ATOMIC:  # of object stores it would ask for a bucket
            self._fs().makedirs(folder, exist_ok=True)

    def _file(self, digest: str) -> str:
        return f"{self._root}/{check_digest(digest)}{SUFFIX}"

    def _mark(self, digest: str) -> str:
        return f"{self._root}/{digest}{_USED}"

    def _fresh(self) -> Any:
        """The file system, with nothing remembered of earlier listings."""
        fs = self._fs()
        fs.invalidate_cache()
        return fs

    def _fs(self) -> Any:
        return self._open()[0]

    def _open(self) -> tuple[Any, str]:
        # Asked for each time: fsspec keeps one for each process and address, and makes another after a fork.
        needs = f"pip install 'archsmith[remote]'{_PACKAGES.get(self._protocol, '')}"
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise UsageError(f"artifacts at {self.address} need fsspec: {needs}") from None
        try:
            fs, root = url_to_fs(self.address, **self._patience())
        except ImportError as error:
            raise UsageError(f"artifacts at {self.address} need another package ({error}): {needs}") from None
        except ValueError as error:
            raise UsageError(f"the address of artifacts {self.address!r} cannot be used: {error}") from None
        except Exception as error:  # some log in as they are made
            raise StoreError(f"cannot reach {self.address}: {_in_words(error)}") from error
        return fs, str(root)

    def _patience(self) -> dict[str, Any]:
        """What has S3 tried for about half a minute, where nobody has said otherwise: the default of two seconds would
        lose what a child was trained for to a service that restarts."""
        from fsspec.config import conf

        said = "AWS_MAX_ATTEMPTS" in os.environ or "config_kwargs" in conf.get(self._protocol, {})
        if self._protocol not in ("s3", "s3a") or said:
            return {}
        return {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 7}}}

    @contextlib.contextmanager
    def _plain_errors(self, what: str) -> Iterator[None]:
        """Errors of any file system as errors of the store; each has classes of its own, most of them no OSErrors."""
        try:
            yield
        except (StoreError, UsageError):
            raise
        except Exception as error:
            raise StoreError(f"cannot {what} at {self.address}: {_in_words(error)}") from error


_PACKAGES = {"s3": " s3fs", "s3a": " s3fs", "gs": " gcsfs", "gcs": " gcsfs", "az": " adlfs", "abfs": " adlfs"}


def _in_words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return f"{text}. Make the bucket or the folder, or correct the address"
    if isinstance(error, PermissionError) or "credential" in text.lower():
        return f"{text}. The credentials of this process must allow it to list, read, write and delete there"
    if isinstance(error, NotImplementedError):
        return f"it cannot be written to, or does not tell how old things are ({text}). Use another address"
    return f"{text}. What was recorded is kept: resume when the place can be reached"


def _modified(info: Mapping[str, Any]) -> float:
    """When a file was last written, in seconds since 1970, by the clock of where it lies."""
    for key in _TIMES:
        value = info.get(key)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    raise NotImplementedError(f"no time in {sorted(info)}")
