"""Artifacts are whole or absent, are what their name says, and are collected without touching what is in use."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.errors import CorruptStore, StoreError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactFolder:
    return ArtifactFolder(tmp_path / "deep" / "runs.artifacts")


def age(folder: ArtifactFolder, digest: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder.path / f"{digest}.safetensors", (then, then))


def test_tensors_come_back_exactly(folder: ArtifactFolder) -> None:
    weight = torch.randn(4, 6)
    tensors = {
        "plain": weight,
        "transposed": weight.T,
        "row": weight[1],
        "parameter": torch.nn.Parameter(weight),
        "half": weight.half(),
        "bfloat16": weight.bfloat16(),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
        "flags": torch.tensor([True, False]),
    }
    found = folder.get(folder.put(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_arrays_come_back_as_tensors(folder: ArtifactFolder) -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    found = folder.get(folder.put({"a": array.T, "b": np.float32(2.5), "w": torch.ones(2)}))
    assert found["a"].tolist() == array.T.tolist()
    assert found["a"].dtype == torch.int32
    assert found["b"].item() == 2.5
    assert found["w"].tolist() == [1, 1]


def test_equal_content_is_one_file(folder: ArtifactFolder) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    first = folder.put(model.state_dict(), {"trial": 3, "genotype": {"ä": [1]}})
    assert folder.put(model.state_dict(), {"genotype": {"ä": [1]}, "trial": 3}) == first
    assert folder.put(model.state_dict()) != first
    assert folder.metadata(first) == {"trial": 3, "genotype": {"ä": [1]}}
    assert first in folder
    assert "0" * 64 not in folder
    assert sorted(p.suffix for p in folder.path.iterdir() if p.name != ".lock") == [".safetensors"] * 2


def test_nothing_is_made_before_the_first_put(folder: ArtifactFolder) -> None:
    assert folder.size() == 0
    assert folder.collect([]) == []
    with pytest.raises(StoreError, match="no artifact"):
        folder.get("a" * 64)
    assert not folder.path.exists()


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "/etc/passwd"])
def test_a_digest_is_no_path(folder: ArtifactFolder, digest: str) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal"):
        folder.get(digest)


@pytest.mark.parametrize("tensors", [{}, {"a": 1.0}, {"a": [1, 2]}])
def test_what_is_no_tensor_is_refused(folder: ArtifactFolder, tensors: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        folder.put(tensors)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "pickle"])
def test_a_damaged_file_is_refused(folder: ArtifactFolder, damage: str) -> None:
    digest = folder.put({"w": torch.randn(100)})
    file = folder.path / f"{digest}.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    elif damage == "truncate":
        content = content[:-4]
    elif damage == "empty":
        content.clear()
    else:
        torch.save({"w": torch.zeros(1)}, file)
        content[:] = file.read_bytes()
    file.write_bytes(content)
    for read in (folder.get, folder.metadata):
        with pytest.raises(CorruptStore, match="does not match its name"):
            read(digest)
    folder.path.joinpath(file.name).unlink()
    torch.manual_seed(0)
    assert folder.put({"w": torch.randn(3)}) in folder


def test_collecting_takes_the_longest_unused_first(folder: ArtifactFolder) -> None:
    digests = [folder.put({"w": torch.full((1000,), float(i))}) for i in range(6)]
    each = folder.size() // 6
    for i, digest in enumerate(digests):
        age(folder, digest, 10_000 - i)
    folder.get(digests[1])  # used just now
    folder.cap_bytes = 3 * each
    assert folder.collect([digests[0]], grace_seconds=0) == [digests[2], digests[3], digests[4]]
    assert [d in folder for d in digests] == [True, True, False, False, False, True]
    folder.cap_bytes = 0
    assert set(folder.collect([digests[0]], grace_seconds=0)) == {digests[1], digests[5]}
    assert digests[0] in folder, "what is referred to stays, also above the cap"


def test_collecting_leaves_what_is_in_use(folder: ArtifactFolder) -> None:
    fresh, old = folder.put({"w": torch.zeros(9)}), folder.put({"w": torch.ones(9)})
    age(folder, old, 4000)
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
    with pytest.raises(UsageError, match="cap_bytes"):
        ArtifactFolder(tmp_path, cap_bytes=-1)


WORKER = """
import sys, numpy
from archsmith.core.artifacts import ArtifactFolder
folder, me = ArtifactFolder(sys.argv[1], cap_bytes=10_000), int(sys.argv[2])
for i in range(12):
    for value in (i, 1000 * me + i):  # the first is put by both workers
        digest = folder.put({"w": numpy.full(250, value)})
        assert folder.get(digest)["w"][0] == value
print("ok")
"""


def test_workers_put_while_the_driver_collects(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(i)], stdout=subprocess.PIPE) for i in (1, 2)
    ]
    folder = ArtifactFolder(tmp_path, cap_bytes=10_000)
    while any(worker.poll() is None for worker in workers):
        folder.collect([])  # all are in use still
        time.sleep(0.01)
    assert [worker.communicate()[0] for worker in workers] == [b"ok\n", b"ok\n"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 36
    folder.collect([], grace_seconds=0)
    assert folder.size() <= 10_000


def test_neither_core_nor_the_store_imports_torch() -> None:
    code = "import sys, archsmith.core.artifacts, archsmith.store; print({'torch', 'numpy', 'sqlalchemy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
