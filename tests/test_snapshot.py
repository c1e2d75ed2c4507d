"""A searcher's state survives the way to bytes and back exactly, and a damaged blob is refused in words."""

from __future__ import annotations

import contextlib
import math
import pickle
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from archsmith.core.errors import CorruptStore, UsageError
from archsmith.store.snapshot import dump_state, load_state

dtypes = st.sampled_from(
    [np.dtype(t) for t in ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", ">f4", ">i8"]]
)
arrays = dtypes.flatmap(lambda t: hnp.arrays(t, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
keys = st.text(max_size=5) | st.sampled_from(["$array", "$int", "$float", "$", "$$array", "__metadata__", "a/b"])
scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**20000), 2**20000) | st.floats() | st.text(max_size=9)
)
states = st.dictionaries(
    keys,
    st.recursive(
        scalars | arrays, lambda s: st.lists(s, max_size=4) | st.dictionaries(keys, s, max_size=4), max_leaves=12
    ),
    max_size=5,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return (
            a.dtype.newbyteorder("=") == b.dtype and a.shape == b.shape and a.astype(b.dtype).tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and repr(a) == repr(b) if not isinstance(a, int) else type(a) is type(b) and a == b


@settings(deadline=None, max_examples=100)
@given(states)
def test_a_state_comes_back_exactly(state: dict[str, Any]) -> None:
    blob = dump_state(state)
    assert same(state, load_state(blob))
    assert dump_state(load_state(blob)) == blob


def test_random_generators_go_on_where_they_were() -> None:
    mine, theirs = random.Random(1), np.random.default_rng(1)
    state = load_state(dump_state({"mine": mine.getstate(), "theirs": theirs.bit_generator.state}))
    again, others = random.Random(), np.random.default_rng()
    version, numbers, gauss = state["mine"]
    again.setstate((version, tuple(numbers), gauss))
    others.bit_generator.state = state["theirs"]
    assert again.random() == mine.random()
    assert others.random() == theirs.random()


def test_numpy_scalars_and_tuples_become_plain() -> None:
    state = load_state(dump_state({"a": np.float32(0.1), "b": np.int64(3), "c": (1, (2,)), "d": np.bool_(True)}))
    assert state == {"a": float(np.float32(0.1)), "b": 3, "c": [1, [2]], "d": True}
    assert type(state["d"]) is bool


def test_arrays_come_back_writable_whatever_their_layout() -> None:
    array = np.arange(12.0).reshape(3, 4)
    state = load_state(dump_state({"t": array.T, "s": array[:, ::2], "b": np.broadcast_to(array[0], (2, 4))}))
    state["t"][0, 0] = 5
    assert state["t"][0].tolist() == [5, 4, 8]
    assert state["s"].tolist() == array[:, ::2].tolist()
    assert state["b"].shape == (2, 4)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {"b": object()}}, r"state\['a'\]\['b'\] is a builtins.object"),
        ({"a": {1: 2}}, "key 1"),
        ({"a": np.array([None])}, "array of object"),
        ({"a": np.array(["x"])}, "array of <U1"),
        ({"a": b"bytes"}, "builtins.bytes"),
        ({"a": {1, 2}}, "builtins.set"),
    ],
)
def test_what_cannot_be_kept_is_named(state: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dump_state(state)


def test_a_state_that_contains_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    with pytest.raises(UsageError, match="contains itself"):
        dump_state(state)


def test_a_torch_tensor_is_refused_with_the_way_out() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(UsageError, match=r"torch.Tensor.*tensor.cpu\(\).numpy\(\)"):
        dump_state({"w": torch.zeros(2)})


class Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a blob was executed",))


def _with_skeleton(skeleton: str) -> bytes:
    from safetensors.numpy import save

    blob: bytes = save({"0": np.zeros(2)}, metadata={"archsmith.state": skeleton})
    return blob


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"x",
        b"\xff" * 64,
        pickle.dumps(Evil()),
        _with_skeleton("[" * 100_000),
        _with_skeleton("{"),
        _with_skeleton("[]"),
        _with_skeleton("9" * 5000),
        _with_skeleton('{"a":{"$array":"1"}}'),
        _with_skeleton('{"a":{"$array":["0"]}}'),
        _with_skeleton('{"a":{"$int":5}}'),
        _with_skeleton('{"a":{"$int":"five"}}'),
        _with_skeleton('{"a":{"$float":[]}}'),
        dump_state({"a": np.zeros(100)})[:-1],
    ],
)
def test_a_damaged_blob_is_refused(blob: bytes) -> None:
    with pytest.raises(CorruptStore, match="snapshot is damaged"):
        load_state(blob)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_flipped_bytes_never_give_another_error(data: st.DataObject) -> None:
    blob = bytearray(dump_state({"w": np.arange(3.0), "x": [1, {"y": 2**70}]}))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptStore):
        assert isinstance(load_state(bytes(blob)), dict)
