"""What every place for weights promises, as tests: inherit `ArtifactsContract`, return yours, and run pytest.

class TestMine(ArtifactsContract):
    def artifacts(self, tmp_path, cap_bytes=DEFAULT_CAP_BYTES):
        return MyArtifacts(tmp_path / "weights", cap_bytes)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from archsmith.core.artifact_registry import Registration, Registry
from archsmith.core.artifacts import DEFAULT_CAP_BYTES, Artifacts
from archsmith.core.errors import CorruptStore, StoreError, UsageError

BAD_DIGESTS = ("", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "/etc/passwd")
"""Names that are no digests: a path, among others."""


class ArtifactsContract:
    """The promises of `archsmith.core.artifacts.Artifacts`. Override all four methods below."""

    def artifacts(self, tmp_path: Path, cap_bytes: int = DEFAULT_CAP_BYTES) -> Artifacts:
        """Artifacts at a place that belongs to `tmp_path`; asked again, the same place as another process would open it."""
        raise NotImplementedError("override artifacts() in your test class")

    def age(self, artifacts: Artifacts, digest: str, seconds: float) -> None:
        """Make it so that an artifact was put, and last read, that long ago."""
        raise NotImplementedError("override age() in your test class")

    def read(self, artifacts: Artifacts, digest: str) -> bytes:
        """The artifact's content, as it lies there."""
        raise NotImplementedError("override read() in your test class")

    def write(self, artifacts: Artifacts, digest: str, content: bytes) -> None:
        """Replace the artifact's content, as damage would."""
        raise NotImplementedError("override write() in your test class")

    # --- putting and getting

    def test_tensors_come_back_exactly(self, tmp_path: Path) -> None:
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
        digest = self.artifacts(tmp_path).put(tensors)
        found = self.artifacts(tmp_path).get(digest)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name

    def test_arrays_come_back_as_tensors(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path)
        array = np.arange(6, dtype=np.int32).reshape(2, 3)
        found = artifacts.get(artifacts.put({"a": array.T, "b": np.float32(2.5), "w": torch.ones(2)}))
        assert found["a"].tolist() == array.T.tolist()
        assert found["a"].dtype == torch.int32
        assert found["b"].item() == 2.5
        assert found["w"].tolist() == [1, 1]

    def test_equal_content_is_kept_once(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        first = artifacts.put(model.state_dict(), {"trial": 3, "genotype": {"ä": [1]}})
        size = artifacts.size()
        assert size == len(self.read(artifacts, first))
        assert artifacts.put(model.state_dict(), {"genotype": {"ä": [1]}, "trial": 3}) == first
        assert artifacts.size() == size
        assert artifacts.put(model.state_dict()) != first
        assert artifacts.metadata(first) == {"trial": 3, "genotype": {"ä": [1]}}
        assert first in artifacts
        assert "0" * 64 not in artifacts

    def test_nothing_is_there_before_the_first_put(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path)
        assert artifacts.size() == 0
        assert artifacts.collect([]) == []
        assert "a" * 64 not in artifacts
        with pytest.raises(StoreError, match="no artifact aaaaaaaaaaaa"):
            artifacts.get("a" * 64)

    def test_a_check_leaves_nothing_behind(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path)
        artifacts.check()
        assert artifacts.size() == 0
        digest = artifacts.put({"w": torch.zeros(3)})
        artifacts.check()
        assert artifacts.size() == len(self.read(artifacts, digest))

    @pytest.mark.parametrize("digest", BAD_DIGESTS)
    def test_a_digest_is_no_path(self, tmp_path: Path, digest: str) -> None:
        artifacts = self.artifacts(tmp_path)
        for method in (artifacts.get, artifacts.metadata, artifacts.__contains__):
            with pytest.raises(UsageError, match="64 hexadecimal"):
                method(digest)

    @pytest.mark.parametrize("tensors", [{}, {"a": 1.0}, {"a": [1, 2]}])
    def test_what_is_no_tensor_is_refused(self, tmp_path: Path, tensors: dict[str, object]) -> None:
        artifacts = self.artifacts(tmp_path)
        with pytest.raises(UsageError):
            artifacts.put(tensors)
        assert artifacts.size() == 0

    def test_a_cap_below_zero_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cap_bytes"):
            self.artifacts(tmp_path, -1)

    def test_what_is_damaged_is_refused(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path)
        digest = artifacts.put({"w": torch.randn(100)})
        whole = self.read(artifacts, digest)
        other = self.read(artifacts, artifacts.put({"w": torch.randn(100)}))
        for content in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-4], b"", whole + b"\0", other, b"\x80\x04pickle"):
            self.write(artifacts, digest, content)
            for read in (artifacts.get, artifacts.metadata):
                with pytest.raises(CorruptStore, match="does not match its name"):
                    read(digest)
        self.write(artifacts, digest, whole)
        assert artifacts.get(digest)["w"].shape == (100,)

    # --- collecting

    def test_collecting_takes_the_longest_unused_first(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path)
        digests = [artifacts.put({"w": torch.full((1000,), float(i))}) for i in range(6)]
        each = artifacts.size() // 6
        for i, digest in enumerate(digests):
            self.age(artifacts, digest, 10_000 - 100 * i)
        artifacts.get(digests[1])  # used just now
        assert self.artifacts(tmp_path).collect([], grace_seconds=0) == []
        removed = self.artifacts(tmp_path, 3 * each).collect([digests[0]], grace_seconds=0)
        assert removed == [digests[2], digests[3], digests[4]]
        assert [d in artifacts for d in digests] == [True, True, False, False, False, True]
        assert artifacts.size() == 3 * each
        assert set(self.artifacts(tmp_path, 0).collect([digests[0]], grace_seconds=0)) == {digests[1], digests[5]}
        assert digests[0] in artifacts, "what is referred to stays, also above the cap"
        assert artifacts.size() == each

    def test_collecting_leaves_what_was_used_lately(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path, 0)
        fresh, old, read, again = (artifacts.put({"w": torch.full((9,), float(i))}) for i in range(4))
        for digest in (old, read, again):
            self.age(artifacts, digest, 4000)
        artifacts.get(read)
        assert artifacts.put({"w": torch.full((9,), 3.0)}) == again
        assert artifacts.collect([]) == [old]
        assert [digest in artifacts for digest in (fresh, old, read, again)] == [True, False, True, True]
        assert artifacts.collect([]) == []

    def test_what_was_collected_can_be_put_again(self, tmp_path: Path) -> None:
        artifacts = self.artifacts(tmp_path, 0)
        digest = artifacts.put({"w": torch.ones(9)})
        artifacts.get(digest)
        assert artifacts.collect([], grace_seconds=0) == [digest]
        with pytest.raises(StoreError, match="it was collected"):
            artifacts.get(digest)
        assert artifacts.put({"w": torch.ones(9)}) == digest
        assert artifacts.get(digest)["w"].tolist() == [1.0] * 9

    def test_a_store_that_registered_meanwhile_is_not_passed_over(self, tmp_path: Path) -> None:
        first, second = (Registration(f"sqlite:////nowhere/{i}.db", "here", str(i), "1") for i in (1, 2))
        artifacts = self.artifacts(tmp_path, 0)
        assert artifacts.registry() == Registry({})
        before = artifacts.put({"w": torch.zeros(9)})
        artifacts.register(first)
        digest = artifacts.put({"w": torch.ones(9)})
        for old in (before, digest):
            self.age(artifacts, old, 5000)
        asked = artifacts.registry()
        assert [store.id for store in asked.stores.values() if store is not None] == ["1"]
        assert asked.earlier == {before}
        artifacts.register(first)
        assert artifacts.registry() == asked
        self.artifacts(tmp_path).register(second)
        assert artifacts.collect([], registry=asked) == [], "the second was not asked"
        assert artifacts.collect(None) == [], "all are kept"
        asked = artifacts.registry()
        assert sorted(store.id for store in asked.stores.values() if store is not None) == ["1", "2"]
        assert asked.earlier == {before}
        assert artifacts.collect([before], registry=asked) == [digest]

    def test_writers_while_others_collect(self, tmp_path: Path) -> None:
        """Old content that is put again while collectors want it gone is there when `put` returns, and stays."""
        rounds, stop, errors = 4, threading.Event(), list[BaseException]()
        first = self.artifacts(tmp_path)
        for i in range(rounds):
            self.age(first, first.put({"w": torch.full((50,), float(i))}), 5000)

        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    work()
                except BaseException as error:
                    errors.append(error)

            return run

        def collect() -> None:
            while not stop.is_set():
                self.artifacts(tmp_path, 0).collect([])

        def put() -> None:
            for i in range(rounds):
                artifacts = self.artifacts(tmp_path)
                digest = artifacts.put({"w": torch.full((50,), float(i))})
                for _ in range(3):
                    assert artifacts.get(digest)["w"][0] == i

        collectors = [threading.Thread(target=guarded(collect)) for _ in range(2)]
        writers = [threading.Thread(target=guarded(put)) for _ in range(2)]
        for thread in (*collectors, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in collectors:
            thread.join()
        assert errors == [], errors
        assert first.size() == rounds * len(self.read(first, first.put({"w": torch.full((50,), 0.0)})))
