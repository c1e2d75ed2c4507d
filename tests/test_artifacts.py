"""A folder of artifacts keeps the contract, also through kills, a full disk and files of others."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from archsmith.core.artifacts import DEFAULT_CAP_BYTES, ArtifactFolder, Artifacts, open_artifacts
from archsmith.core.errors import CorruptStore, StoreError
from archsmith.testing import ArtifactsContract


class TestFolder(ArtifactsContract):
    def artifacts(self, tmp_path: Path, cap_bytes: int = DEFAULT_CAP_BYTES) -> Artifacts:
        return open_artifacts(tmp_path / "deep" / "runs.artifacts", cap_bytes=cap_bytes)

    def file(self, artifacts: Artifacts, digest: str) -> Path:
        assert isinstance(artifacts, ArtifactFolder)
        return artifacts.path / f"{digest}.safetensors"

    def age(self, artifacts: Artifacts, digest: str, seconds: float) -> None:
        age(self.file(artifacts, digest), seconds)

    def read(self, artifacts: Artifacts, digest: str) -> bytes:
        return self.file(artifacts, digest).read_bytes()

    def write(self, artifacts: Artifacts, digest: str, content: bytes) -> None:
        self.file(artifacts, digest).write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactFolder:
    return ArtifactFolder(tmp_path / "deep" / "runs.artifacts")


def age(file: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file, (then, then))


def test_nothing_is_made_before_the_first_put(folder: ArtifactFolder) -> None:
    folder.check()
    assert folder.size() == 0
    assert folder.collect([]) == []
    assert not folder.path.parent.exists()
    folder.put({"w": torch.ones(1)})
    assert sorted(p.suffix for p in folder.path.iterdir() if p.name != ".lock") == [".safetensors"]


def test_a_pickle_is_never_read(folder: ArtifactFolder) -> None:
    digest = folder.put({"w": torch.randn(100)})
    torch.save({"w": torch.zeros(1)}, folder.path / f"{digest}.safetensors")
    with pytest.raises(CorruptStore, match="does not match its name"):
        folder.get(digest)


def test_collecting_leaves_what_is_in_use(folder: ArtifactFolder) -> None:
    fresh, old = folder.put({"w": torch.zeros(9)}), folder.put({"w": torch.ones(9)})
    age(folder.path / f"{old}.safetensors", 4000)
    half_written = folder.path / "abc.partial"
    left_by_a_kill = folder.path / "def.partial"
    other = folder.path / "notes.txt"
    for file in (half_written, left_by_a_kill, other):
        file.write_bytes(b"x" * 1000)
    os.utime(left_by_a_kill, (0, 0))
    folder.cap_bytes = 0
    assert folder.collect([]) == [old]
    assert fresh in folder
    assert half_written.exists()
    assert not left_by_a_kill.exists()
    assert other.exists()


def test_a_full_disk_leaves_nothing_half_written(folder: ArtifactFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = folder.put({"w": torch.zeros(3)})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            folder.put({"w": torch.ones(3)})
    assert [p.name for p in folder.path.iterdir() if p.name != ".lock"] == [f"{kept}.safetensors"]
    assert folder.get(kept)["w"].tolist() == [0, 0, 0]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot keep an artifact"):
        ArtifactFolder(tmp_path / "a").put({"w": torch.zeros(1)})
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(StoreError, match=r"a is no folder that can be written to"):
            ArtifactFolder(path).check()


WORKER = """
import sys, numpy
from archsmith.core.artifacts import ArtifactFolder
folder, me = ArtifactFolder(sys.argv[1], cap_bytes=8_000), int(sys.argv[2])
for i in range(6):
    for value in (i, 1000 * me + i):  # the first is put by both workers
        digest = folder.put({"w": numpy.full(250, value)})
        assert folder.get(digest)["w"][0] == value
print("ok")
"""


def test_workers_put_while_the_driver_collects(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(i)], stdout=subprocess.PIPE) for i in (1, 2)
    ]
    folder = ArtifactFolder(tmp_path, cap_bytes=8_000)
    while any(worker.poll() is None for worker in workers):
        folder.collect([])  # all are in use still
        time.sleep(0.01)
    assert [worker.communicate()[0] for worker in workers] == [b"ok\n", b"ok\n"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 18
    folder.collect([], grace_seconds=0)
    assert folder.size() <= 8_000


def test_neither_core_nor_the_store_imports_torch() -> None:
    code = (
        "import sys, archsmith.core.remote_artifacts, archsmith.store\n"
        "print({'torch', 'numpy', 'sqlalchemy', 'fsspec'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
