"""Artifacts at fsspec's addresses keep the contract: on a server of the S3 protocol, in memory, on a file system that
moves; killed at any of their steps, with the server away, and with rights that are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import archsmith as smith
from archsmith._export import load
from archsmith.core import remote_artifacts
from archsmith.core.artifacts import DEFAULT_CAP_BYTES, ArtifactFolder, open_artifacts
from archsmith.core.errors import StoreError, UsageError
from archsmith.core.remote_artifacts import RemoteArtifacts
from archsmith.testing import ArtifactsContract
from s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        server.make_bucket("bucket")
        yield server


class Remote(ArtifactsContract):
    """What the three have in common: they are read and damaged through fsspec itself."""

    def address(self, tmp_path: Path) -> str:
        raise NotImplementedError

    def artifacts(self, tmp_path: Path, cap_bytes: int = DEFAULT_CAP_BYTES) -> RemoteArtifacts:
        return RemoteArtifacts(self.address(tmp_path), cap_bytes=cap_bytes)

    def read(self, artifacts: Any, digest: str) -> bytes:
        with fsspec.open(f"{artifacts.address}/{digest}.safetensors", "rb") as file:
            return bytes(file.read())

    def write(self, artifacts: Any, digest: str, content: bytes) -> None:
        with fsspec.open(f"{artifacts.address}/{digest}.safetensors", "wb") as file:
            file.write(content)


class TestS3(Remote):
    @pytest.fixture(autouse=True)
    def _server(self, s3: S3Server) -> None:
        self.s3 = s3

    def address(self, tmp_path: Path) -> str:
        return f"s3://bucket/team/{tmp_path.name}/weights of a run"

    def age(self, artifacts: Any, digest: str, seconds: float) -> None:
        for kind in ("safetensors", "used"):
            key = f"{artifacts.address.removeprefix('s3://bucket/')}/{digest}.{kind}"
            self.s3.age("bucket", key, seconds)


class TestMemory(Remote):
    def address(self, tmp_path: Path) -> str:
        return f"memory://{tmp_path}"

    def age(self, artifacts: Any, digest: str, seconds: float) -> None:
        for kind in ("safetensors", "used"):
            found = MemoryFileSystem.store.get(f"{artifacts.address.removeprefix('memory://')}/{digest}.{kind}")
            if found is not None:
                found.created -= timedelta(seconds=seconds)


class TestMoved(Remote):
    """Where a put may be seen half done, it is written aside and moved: here on the local file system."""

    def address(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/deep/weights"

    def age(self, artifacts: Any, digest: str, seconds: float) -> None:
        then = time.time() - seconds
        for kind in ("safetensors", "used"):
            file = Path(artifacts.address.removeprefix("file://")) / f"{digest}.{kind}"
            if file.exists():
                os.utime(file, (then, then))

    def test_a_file_system_that_moves_onto_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def move(self: Any, source: str, target: str, **_: Any) -> None:
            if os.path.exists(target):
                raise FileExistsError(target)
            os.rename(source, target)

        monkeypatch.setattr(LocalFileSystem, "mv", move)
        artifacts = self.artifacts(tmp_path, 0)
        digest = artifacts.put({"w": torch.ones(2)})
        self.age(artifacts, digest, 5000)
        assert artifacts.put({"w": torch.ones(2)}) == digest
        assert artifacts.collect([]) == [], "it is in use again"
        assert artifacts.collect([], grace_seconds=0) == [digest]
        assert list((tmp_path / "deep" / "weights").glob("*.*")) == []


# --- addresses --------------------------------------------------------------------------------------------------------


def test_addresses(tmp_path: Path, s3: S3Server) -> None:
    assert isinstance(open_artifacts(tmp_path), ArtifactFolder)
    assert isinstance(open_artifacts(f"file://{tmp_path}"), ArtifactFolder)
    assert isinstance(open_artifacts("s3://bucket/a/"), RemoteArtifacts)
    for address, message in (
        ("s3://", "must name a place"),
        ("s3:///", "must name a place"),
        ("s3://bucket/[x]", r"may not contain"),
        ("nowhere://bucket/x", "Protocol not known: nowhere"),
        ("gs://bucket/x", r"gcsfs.*pip install 'archsmith\[remote\]' gcsfs"),
        ("sftp://host/x", "paramiko"),
    ):
        with pytest.raises(UsageError, match=message):
            open_artifacts(address)


def test_what_is_missing_is_told_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UsageError, match=r"need fsspec: pip install 'archsmith\[remote\]' s3fs"):
        open_artifacts("s3://bucket/x")


def test_a_cache_of_fsspecs_before_it(s3: S3Server) -> None:
    address = f"s3://bucket/{uuid.uuid4().hex}"
    cached, plain = open_artifacts(f"simplecache::{address}"), open_artifacts(address)
    digest = cached.put({"w": torch.ones(3)})
    assert cached.get(digest)["w"].tolist() == plain.get(digest)["w"].tolist() == [1, 1, 1]
    assert digest in plain


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_no_bucket_no_server_and_no_rights_are_told_in_words(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = open_artifacts("s3://no-such-bucket/x")
    for act in (nowhere.check, nowhere.size, lambda: nowhere.put({"w": torch.ones(1)}), lambda: nowhere.get("a" * 64)):
        with pytest.raises(StoreError, match=r"s3://no-such-bucket/x.*bucket does not exist"):
            act()
    with pytest.raises(StoreError, match=r"Make the bucket"):
        nowhere.check()
    web = open_artifacts(f"{s3.url}/bucket")
    with pytest.raises(StoreError, match="cannot keep artifacts at http"):
        web.check()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3_class = fsspec.get_filesystem_class("s3")
    s3_class.clear_instance_cache()  # those that are open know another address
    away = open_artifacts("s3://bucket/x")
    for act in (away.check, away.size, lambda: away.get("a" * 64), lambda: away.collect([])):
        with pytest.raises(StoreError, match=r"s3://bucket/x: Could not connect.*resume when"):
            act()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3_class.clear_instance_cache()
    with pytest.raises(StoreError, match=r"credentials of this process must allow"):
        open_artifacts("s3://bucket/x").check()
    s3_class.clear_instance_cache()


def test_a_server_that_is_away_for_a_moment_costs_nothing(s3: S3Server) -> None:
    artifacts = open_artifacts(f"s3://bucket/{uuid.uuid4().hex}")
    first = artifacts.put({"w": torch.zeros(3)})
    s3.stop()
    back = threading.Timer(0.5, s3.start)
    back.start()
    second = artifacts.put({"w": torch.ones(3)})
    back.join()
    assert [artifacts.get(digest)["w"].tolist() for digest in (first, second)] == [[0, 0, 0], [1, 1, 1]]


class Killed(BaseException):
    """Stands in for a kill: nothing catches it."""


class Faulty(MemoryFileSystem):  # type: ignore[misc]
    """A file system in memory that fails at the step it is told to."""

    protocol = "faulty"
    cachable = False
    store: dict[str, Any] = {}  # noqa: RUF012 - one for the class, as fsspec's own has it
    pseudo_dirs = [""]  # noqa: RUF012
    steps_left: int | None = None
    error: type[BaseException] = Killed
    deaf = False  # deleting is ignored, as S3 does for objects it denies when many are deleted at once

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://")))

    def _step(self) -> None:
        if Faulty.steps_left is not None:
            Faulty.steps_left -= 1
            if Faulty.steps_left < 0:
                raise Faulty.error("fault")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._step()
        super().pipe_file(path, value, mode=mode, **kwargs)
        self._step()

    def rm(self, path: Any, **kwargs: Any) -> None:
        self._step()
        if not Faulty.deaf:
            super().rm(path, **kwargs)
        self._step()

    def mv(self, source: str, target: str, **_: Any) -> None:
        self._step()
        self.store[self._strip_protocol(target)] = self.store.pop(self._strip_protocol(source))
        self._step()

    def find(self, path: str, **kwargs: Any) -> Any:
        self._step()
        return super().find(path, **kwargs)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._step()
        return super().ls(path, detail=detail, **kwargs)


fsspec.register_implementation("faulty", Faulty, clobber=True)


@pytest.fixture
def faulty() -> Iterator[RemoteArtifacts]:
    Faulty.store, Faulty.pseudo_dirs = {}, [""]
    yield RemoteArtifacts("faulty://bucket/weights")
    Faulty.steps_left, Faulty.error, Faulty.deaf = None, Killed, False


def age_all(seconds: float) -> None:
    for file in Faulty.store.values():
        file.created -= timedelta(seconds=seconds)


@pytest.mark.parametrize("error", [Killed, OSError])
def test_a_put_that_dies_at_any_step_leaves_all_or_nothing(faulty: RemoteArtifacts, error: type[BaseException]) -> None:
    kept = faulty.put({"w": torch.zeros(9)})
    Faulty.error = error
    for step in range(100):
        Faulty.steps_left = step
        try:
            digest = faulty.put({"w": torch.full((9,), step + 1.0)})
            break
        except (Killed, StoreError):
            Faulty.steps_left = None
            assert faulty.get(kept)["w"].tolist() == [0.0] * 9
            for name in list(Faulty.store):  # whatever is there under a digest's name is whole
                if name.endswith(".safetensors"):
                    faulty.get(name.rsplit("/", 1)[-1].removesuffix(".safetensors"))
    assert step > 3
    Faulty.steps_left = None
    assert faulty.get(digest)["w"][0] == step + 1
    age_all(5000)
    faulty.cap_bytes = 0
    faulty.collect([kept, digest])
    assert {name.rsplit("/", 1)[-1] for name in Faulty.store if not name.endswith(".used")} == {
        f"{kept}.safetensors",
        f"{digest}.safetensors",
    }, "what the kills left half done is gone, and so is what nothing needs"


@pytest.mark.parametrize("error", [Killed, OSError])
def test_a_collection_that_dies_at_any_step_harms_nothing(faulty: RemoteArtifacts, error: type[BaseException]) -> None:
    Faulty.error, faulty.cap_bytes = error, 0
    for step in range(100):
        kept, gone = faulty.put({"w": torch.zeros(9)}), faulty.put({"w": torch.ones(9)})
        faulty.get(gone)
        age_all(5000)
        Faulty.steps_left = step
        try:
            removed = faulty.collect([kept])
            break
        except (Killed, StoreError):
            Faulty.steps_left = None
            assert faulty.get(kept)["w"].tolist() == [0.0] * 9
            if gone in faulty:
                faulty.get(gone)
            age_all(5000)
            assert faulty.collect([kept]) in ([], [gone])
            assert gone not in faulty
    assert step > 5
    Faulty.steps_left = None
    assert removed == [gone]
    assert kept in faulty


def test_deleting_that_is_silently_denied_is_told(faulty: RemoteArtifacts) -> None:
    faulty.put({"w": torch.zeros(9)})
    age_all(5000)
    Faulty.deaf, faulty.cap_bytes = True, 0
    with pytest.raises(StoreError, match=r"1 of 1 were not deleted\. The credentials .* must allow"):
        faulty.collect([])


def test_a_put_waits_for_a_collector_that_is_about_to_delete_it(
    faulty: RemoteArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = faulty.put({"w": torch.ones(3)})
    notice = f"{faulty._root}/collecting/of-another"
    fs = faulty._fs()
    fs.pipe_file(notice, json.dumps([digest]).encode())
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:  # the collector had looked before this put, deletes, and takes its notice down
            fs.rm(f"{faulty._root}/{digest}.safetensors")
            fs.rm(notice)

    monkeypatch.setattr(remote_artifacts.time, "sleep", wait)
    assert faulty.put({"w": torch.ones(3)}) == digest
    assert len(waits) == 3
    assert faulty.get(digest)["w"].tolist() == [1, 1, 1], "it was written again"


def test_notices_that_nobody_takes_down_hold_up_nobody(
    faulty: RemoteArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = faulty.put({"w": torch.ones(3)})
    fs = faulty._fs()
    fs.pipe_file(f"{faulty._root}/collecting/killed", json.dumps([digest]).encode())
    fs.pipe_file(f"{faulty._root}/collecting/damaged", b"\xff{")
    with monkeypatch.context() as patch:
        patch.setattr(remote_artifacts, "NOTICE_SECONDS", 0.0)
        assert faulty.put({"w": torch.ones(3)}) == digest
    age_all(5000)
    faulty.cap_bytes = 0
    assert faulty.collect([]) == [digest]
    assert fs.find(f"{faulty._root}/collecting") == []


def test_a_collector_that_was_held_up_deletes_nothing(faulty: RemoteArtifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = faulty.put({"w": torch.ones(3)})
    age_all(5000)
    faulty.cap_bytes = 0
    with monkeypatch.context() as patch:
        patch.setattr(remote_artifacts, "NOTICE_SECONDS", 0.0)
        assert faulty.collect([]) == []
    assert digest in faulty
    assert faulty.collect([]) == [digest]


# --- from end to end --------------------------------------------------------------------------------------------------

SEARCH = """
import os, sys
import archsmith as smith
from archsmith.core.trial import Trial
from archsmith.store import open_store

def watch(event):
    if isinstance(event, Trial) and event.number == 2 and event.state == "done":
        os._exit(9)  # the driver dies, and its machine with it

smith.search(
    smith.spaces.ConvChain(layers=2, filters=(4, 6), filter_heights=(1, 3), filter_widths=(1, 3)),
    smith.training.ImageClassification("digits", epochs=1, max_train=200, precision="fp32", keep_weights=True),
    trials=4, store=open_store("sqlite:///runs.db", artifacts=sys.argv[1]), name="r", watch=watch,
)
"""


def test_a_search_with_its_weights_at_s3_goes_on_elsewhere_is_finished_and_exported(
    s3: S3Server, tmp_path: Path
) -> None:
    address = f"s3://bucket/{uuid.uuid4().hex}/weights"
    died = subprocess.run([sys.executable, "-c", SEARCH, address], cwd=tmp_path)
    assert died.returncode == 9
    run = smith.open_run(str(tmp_path / "runs.db"), "r").resume()
    assert run.store.artifacts == address
    trials = list(run.trials())
    assert [trial.state for trial in trials] == ["done"] * 4
    weights = open_artifacts(address)
    assert all(
        trial.result.artifact in weights for trial in trials if trial.result is not None and trial.result.artifact
    )
    assert not (tmp_path / "runs.artifacts").exists()
    finished = smith.finish(
        run, plan=smith.FinishPlan(top=1, scale={}, grid={"batch_norm_epsilon": (1e-3,)}, epochs=1, seeds=1)
    )
    assert finished.model.artifact in weights
    folder = smith.export(run, path=tmp_path / "model")
    exported = load(folder).network.state_dict()
    kept = weights.get(finished.model.artifact)
    assert all(torch.equal(exported[name], tensor) for name, tensor in kept.items() if name in exported)
    assert len(exported.keys() & kept.keys()) > 4
