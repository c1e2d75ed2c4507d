"""Tables as files: an .npz of equally long arrays, a .csv or a .parquet file, as columns by name.

The arrays of NAS-Bench-201 (Dong and Yang 2020; NATS-Bench, Dong et al. 2021) are recognised as they are published. A file is
read once for as long as it stays the same.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from archsmith.core import loaded
from archsmith.core.errors import DataError, UsageError
from archsmith.data.file_versions import version
from archsmith.data.unpacking import npz_names, read_npz

if TYPE_CHECKING:
    import numpy.typing as npt

Columns: TypeAlias = "dict[str, npt.NDArray[Any]]"


MOST_CELLS = 20_000_000  # of a .parquet file, unless it has as many bytes


def key_of(table: str) -> Hashable:
    """The key of a table in `archsmith.core.loaded`, which hands it to other processes."""
    return ("table", table)


@dataclass(frozen=True, eq=False)
class ReadTable:
    """The columns of a table with the version of the file that they were read from, for other processes."""

    columns: Columns
    version: int
    digest: str


def version_of(table: str) -> int:
    """A number that changes with the file; see `file_versions`. Raises DataError if there is no such file."""
    given: ReadTable | None = loaded.given(key_of(table))
    if given is not None:
        return given.version
    try:
        is_folder = stat.S_ISDIR(os.stat(table).st_mode)
    except OSError as error:
        raise DataError(
            f"cannot read the table {table!r}: {error.strerror}; name the file, or with ARCHSMITH_DATA its folder"
        ) from None
    if is_folder:
        raise DataError(f"cannot read the table {table!r}: it is a folder; name the file")
    return version(Path(table))


def current(table: str) -> ReadTable:
    """The table as it is now, for other processes. Raises DataError if the file is no table."""
    given: ReadTable | None = loaded.given(key_of(table))
    return given if given is not None else _read(table, version_of(table))


@functools.lru_cache(maxsize=4)
def _read(table: str, version: int) -> ReadTable:
    return ReadTable(read_table(table, version), version, digest(table, version))


@functools.lru_cache(maxsize=4)
def digest(table: str, version: int) -> str:
    """The SHA-256 of the file's content."""
    import hashlib

    given: ReadTable | None = loaded.given(key_of(table))
    if given is not None:
        return given.digest
    with open(table, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=4)
def read_table(table: str, version: int) -> Columns:
    """The columns by name. Raises DataError when the file is no table."""
    given: ReadTable | None = loaded.given(key_of(table))
    if given is not None:
        return given.columns
    suffix = Path(table).suffix.lower()
    try:
        match suffix:
            case ".npz":
                columns = _read_npz(table)
            case ".csv":
                columns = _read_csv(table)
            case ".parquet":
                columns = _read_parquet(table)
            case _:
                raise DataError(f"a table is an .npz, .csv or .parquet file, got {table!r}")
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # readers of damaged files fail in many ways
        raise DataError(f"cannot read the table {table!r}: {str(error) or type(error).__name__}") from None
    lengths = {len(values) for values in columns.values()}
    if not columns or lengths == {0}:
        raise DataError(f"the table {table!r} has no rows")
    return columns


def _read_npz(table: str) -> Columns:
    loaded = read_npz(Path(table), npz_names(Path(table)))
    if {"ops", "op_names", "edge_order"} <= set(loaded):
        return _nasbench201(loaded)
    lengths = {name: len(a) if a.ndim else 0 for name, a in loaded.items()}
    if len(set(lengths.values())) > 1 or any(a.ndim != 1 for a in loaded.values()):
        shapes = ", ".join(f"{name} {a.shape}" for name, a in list(loaded.items())[:8])
        raise DataError(f"the arrays of {table} must be columns of one length, got {shapes}")
    return loaded


def _nasbench201(arrays: Mapping[str, npt.NDArray[Any]]) -> Columns:
    """One column for each edge, and one for each number: "acc200_val/cifar10", "hw/cifar100/pixel3_latency".

    Beside "flops_M_cifar10", in millions, stands "multiply_adds_cifar10", one by one.
    """
    names, edges, ops = arrays["op_names"], arrays["edge_order"], arrays["ops"]
    if ops.ndim != 2 or ops.shape[1] != len(edges) or ops.max(initial=0) >= len(names):
        raise DataError(
            f"ops of NAS-Bench-201 must have {len(edges)} columns of indices into op_names, got {ops.shape}"
        )
    columns: Columns = {str(edge): names[ops[:, k]] for k, edge in enumerate(edges)}
    datasets = [str(name) for name in arrays.get("datasets", ())]
    for name, values in arrays.items():
        if name in ("ops", "op_names", "edge_order", "datasets") or len(values) != len(ops):
            continue
        inner = arrays.get(f"{name.split('_')[0]}_names")
        if values.ndim == 1:
            columns[name] = values
        elif values.ndim == 2 and values.shape[1] == len(datasets):
            columns |= {f"{name}/{dataset}": values[:, k] for k, dataset in enumerate(datasets)}
        elif inner is not None and values.shape[-1] == len(inner):
            parts = (
                {name: values} if values.ndim == 2 else {f"{name}/{d}": values[:, k] for k, d in enumerate(datasets)}
            )
            columns |= {f"{key}/{what}": part[:, k] for key, part in parts.items() for k, what in enumerate(inner)}
    millions = [name for name in columns if name.startswith("flops_M_")]
    columns |= {name.replace("flops_M", "multiply_adds"): columns[name].astype("float64") * 1e6 for name in millions}
    return columns


def _read_csv(table: str) -> Columns:
    import csv

    import numpy as np

    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        head = next(reader, [])
        if len(set(head)) != len(head):
            raise DataError(f"the columns of {table} must have names that differ, got {', '.join(head)[:200]}")
        rows = [row for row in reader if row]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise DataError(f"line {number} of {table} has {len(row)} entries, and the head has {len(head)}")
    return {name: np.array([row[k] for row in rows]) for k, name in enumerate(head)}


def _read_parquet(table: str) -> Columns:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "reading .parquet needs pyarrow: pip install pyarrow; or save the table as .csv or .npz"
        ) from None
    size = parquet.read_metadata(table)
    most = max(MOST_CELLS, os.stat(table).st_size)  # many equal cells take few bytes
    if (cells := size.num_rows * size.num_columns) > most:
        raise DataError(f"the table {table} has {cells:,} cells in {os.stat(table).st_size:,} bytes; give a part of it")
    data = parquet.read_table(table)
    return {name: _parquet_column(data.column(name)) for name in data.column_names}


def _parquet_column(column: Any) -> npt.NDArray[Any]:
    import numpy as np
    from pyarrow import types

    kept = column.to_pylist()
    if not types.is_nested(column.type) and not column.null_count:
        return np.array(kept)
    values = np.empty(len(kept), dtype=object)  # lists of any length, and cells that are empty
    values[:] = kept
    return values
