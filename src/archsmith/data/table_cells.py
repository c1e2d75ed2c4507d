"""What stands in the cells of a table of results, as the answers of a space are told from each other.

A .csv file has texts where a space has numbers, truth values, None and lists, and programs write these in different
ways: 1.0 or 1, 3e-4 or 0.0003, true or True, ["a", "b"] with a space or without. Those are the same answer.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from archsmith.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NOT_ASKED = ""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NO_NUMBER = ("", "na", "n/a", "nan", "none", "null")

Reader: TypeAlias = Callable[[Any], str]


def choice_column(values: npt.NDArray[Any]) -> tuple[list[str], Reader]:
    """The cells of a column of a choice, as texts that are equal where the answers are; and how an answer becomes one."""
    kept = values.tolist()
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        kept = [float(str(value)) for value in values]  # the number that was rounded: 0.1, not 0.10000000149
    plain = [_text(cell) for cell in kept]
    known = set(plain)
    meant = {cell: _meant(cell) for cell in known}
    empty = "None" not in known and NOT_ASKED in known  # an answer of None is an empty cell, as in a parquet file
    if len(set(meant.values())) < len(known):  # "01" and "1" are different names of this column
        return plain, lambda answer: NOT_ASKED if answer is None and empty else _text(answer)
    return [meant[cell] for cell in plain], lambda answer: NOT_ASKED if answer is None and empty else _told(answer)


def _told(answer: Any) -> str:
    return _meant(_text(answer))


def _text(cell: Any) -> str:
    """An answer as a table has it: texts and numbers as they are, a subset as JSON, nothing where there is nothing."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list | tuple):
        return json.dumps(list(cell), separators=(",", ":"))
    if isinstance(cell, float):
        if cell != cell:
            return NOT_ASKED
        if cell.is_integer():
            return str(int(cell))  # a column of numbers may have made 3.0 of 3
    return str(cell)


@functools.lru_cache(maxsize=65536)
def _meant(text: str) -> str:
    """The one way to write what is written in several."""
    if _NUMBER.fullmatch(text):
        return _text(int(text) if text.lstrip("+-").isdigit() else float(text))
    if text.lower() in ("true", "false"):
        return text.capitalize()
    if text.startswith("["):
        try:
            return _text(json.loads(text))
        except ValueError:
            return text
    return text


def number_column(table: str, name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """A column of numbers; NaN where a cell is empty. Raises DataError for one that has something else."""
    import numpy as np

    if values.dtype.kind in "US":
        values = np.char.strip(values.astype(str))
        values = np.where(np.isin(np.char.lower(values), _NO_NUMBER), "nan", values)
    try:
        return values.astype("float64")
    except (TypeError, ValueError):
        row = next(row for row, value in enumerate(values) if not _is_number(value))
        raise DataError(
            f"column {name!r} of {table} must have numbers, and has {str(values[row])[:60]!r} in row {row + 1}"
        ) from None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None
    return True


def check_options(table: str, name: str, cells: frozenset[str], reader: Reader, options: Sequence[Any]) -> None:
    """Raise DataError where a column has none of a choice's options: no genotype would have a row."""
    if cells.isdisjoint(map(reader, options)):
        shown, offered = ", ".join(map(repr, sorted(cells)[:4])), ", ".join(map(repr, list(options)[:4]))
        raise DataError(f"column {name!r} of {table} has {shown}, and none of the options of that choice: {offered}")
