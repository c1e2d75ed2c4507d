"""A searcher's state as bytes and back, exactly, without pickle: a safetensors file whose metadata holds the rest.

The state is nested dicts and lists of JSON scalars with numpy arrays as leaves. The arrays become the tensors of the
file, and everything around them one JSON text in which an array stands as `{"$array": "0"}`. Whole numbers beyond 64
bits (as in the states of random generators) stand as `{"$int": "0x..."}`, NaN and infinities as `{"$float": "nan"}`,
and a key of the caller's that begins with `$` has that doubled.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from archsmith.core.errors import CorruptStore, UsageError
from archsmith.core.searcher import State

if TYPE_CHECKING:
    import numpy as np

_KEY = "archsmith.state"
_DTYPES = frozenset(
    [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
    ]
)


def dump_state(state: State) -> bytes:
    """The state as one blob. Tuples become lists, numpy scalars Python's.

    Raises UsageError, with the place, for anything that is not a JSON scalar, a list, a dict with text keys, or an
    array of plain numbers.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        skeleton = json.dumps(_packed(state, arrays, "state"), separators=(",", ":"), allow_nan=False)
        blob: bytes = save(arrays, metadata={_KEY: skeleton})
    except RecursionError:
        raise UsageError("the searcher's state is nested too deeply, or contains itself") from None
    except SafetensorError as error:
        raise UsageError(
            f"the searcher's state cannot be kept: {error}; put long lists of numbers into arrays"
        ) from None
    return blob


def load_state(blob: bytes) -> dict[str, Any]:
    """The state that `dump_state` wrote. Raises CorruptStore when the blob is anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(blob)
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        state = _unpacked(json.loads(header["__metadata__"][_KEY]), arrays)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise CorruptStore(f"the searcher's snapshot is damaged: {type(error).__name__}: {error}") from None
    if not isinstance(state, dict):
        raise CorruptStore(f"the searcher's snapshot is damaged: it is a {type(state).__name__}")
    return state


def _packed(value: Any, arrays: dict[str, Any], place: str) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"{place} has the key {key!r}; the keys of a state are text")
        return {f"${k}" if k[:1] == "$" else k: _packed(v, arrays, f"{place}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(v, arrays, place) for v in value]
    return _packed_array(value, arrays, place)


def _packed_array(value: Any, arrays: dict[str, Any], place: str) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        return _packed(value.item(), arrays, place)
    if isinstance(value, bool | int | float | str):  # subclasses, such as enumerations
        plain = next(kind for kind in (bool, int, float, str) if isinstance(value, kind))
        return _packed(plain(value) if plain is not str else str.__str__(value), arrays, place)
    if not isinstance(value, np.ndarray):
        raise UsageError(
            f"{place} is a {type(value).__module__}.{type(value).__qualname__}; a state is made of dicts, lists, "
            "text, numbers, None and numpy arrays (a torch tensor goes in as tensor.cpu().numpy())"
        )
    if value.dtype.name not in _DTYPES:
        raise UsageError(f"{place} is an array of {value.dtype}; it may be of {', '.join(sorted(_DTYPES))}")
    name = str(len(arrays))
    arrays[name] = np.array(value, dtype=value.dtype.newbyteorder("="), order="C", copy=True)
    return {"$array": name}


def _unpacked(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if "$array" in value:
            return arrays[value["$array"]].copy()  # writable, and each its own
        if "$int" in value:
            return int(value["$int"], 16)
        if "$float" in value:
            return float(value["$float"])
    return {k[1:] if k[:2] == "$$" else k: _unpacked(v, arrays) for k, v in value.items()}
