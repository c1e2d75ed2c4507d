"""Reads labels from a CSV: finds its columns, and the picture that each row names.

Commas, semicolons, tabs and bars separate; a first row with the names of the columns may be there or not. A name may be a
path below the data or below a folder in it, with either kind of slash, with or without its suffix, in any case of letters.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from archsmith.core.errors import DataError
from archsmith.core.shown import shown
from archsmith.data.class_order import in_order
from archsmith.data.layout import Ignored, LabelledPicture, Layout, Parts, label_of, path_text
from archsmith.data.listing import has_picture_suffix
from archsmith.data.split_names import TEST, TRAIN, UNLABELLED, VALIDATION, split_name, table_split

SUFFIXES = (".csv", ".tsv")

_DELIMITERS = ",;\t|"
_FILE = frozenset(
    (
        "file", "files", "filename", "filenames", "filepath", "path", "paths", "image", "images", "imagename",
        "imagefile", "imagepath", "imageid", "img", "imgname", "imgpath", "imgid", "picture", "photo", "id", "name",
        "fname", "key",
    )
)  # fmt: skip
_LABEL = frozenset(
    (
        "label", "labels", "class", "classes", "classname", "classid", "category", "categories", "target", "targets",
        "y", "species", "breed", "tag", "variety", "type", "labelname", "diagnosis", "dx",
    )
)  # fmt: skip
_SPLIT = frozenset(
    (
        "split", "splits", "set", "subset", "partition", "part", "usage", "dataset", "fold", "phase",
    )
)  # fmt: skip
_LOOKED_AT = 200  # rows that tell whether a CSV names pictures
_MOST_CONTRADICTED = 0.5  # of the files: of more it is thought that a picture may have several labels


@dataclass(frozen=True)
class Row:
    """A row of the CSV.

    Args:
        line: its number in the file, from 1.
        file: the picture's name, as written.
        label: its class; empty if the row has none.
        split: "train", "validation" or "test", or None if the row does not say.
    """

    line: int
    file: str
    label: str
    split: str | None


class Pictures:
    """The pictures of a data set, found by a name as people write it."""

    def __init__(self, paths: Iterable[Parts]) -> None:
        self._paths = tuple(paths)

    @cached_property
    def _ends(self) -> dict[str, set[Parts]]:
        """The paths by each of their ends, with and without the suffix."""
        ends: dict[str, set[Parts]] = defaultdict(set)
        for path in self._paths:
            for start in range(len(path)):
                text = "/".join(path[start:])
                for name in {text, text.casefold(), _stem(text), _stem(text).casefold()}:
                    ends[name].add(path)
        return ends

    def find(self, name: str) -> set[Parts]:
        """The pictures that a name may refer to: one if it is unique, none if it is unknown."""
        parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            text = "/".join(parts[start:])
            for spelled in (text, text.casefold()):
                if found := self._ends.get(spelled):
                    exact = {path for path in found if len(path) == len(parts) - start}
                    return exact or found
        return set()


def _stem(text: str) -> str:
    stem, dot, suffix = text.rpartition(".")
    return stem if dot and has_picture_suffix(f"x.{suffix}") else text


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_of(name: str, content: bytes, pictures: Pictures) -> list[Row]:
    """The rows of a CSV that describes pictures; none where it does not: its columns name no pictures, or no labels.

    Raises DataError for a split that is none.
    """
    table = _table(content)
    columns = _columns(table, pictures)
    if columns is None or columns.label is None:
        return []
    rows = []
    for line, cells in table[columns.first :]:
        file, text, said = (_cell(cells, k) for k in (columns.file, columns.label, columns.split))
        if file:
            rows.append(Row(line, file, label_of(text) if text else "", _split(name, line, said)))
    return rows


def undecided(content: bytes, pictures: Pictures) -> tuple[str, ...]:
    """The columns that may have the labels of a CSV that names pictures, where it does not say which of them has."""
    table = _table(content)
    columns = _columns(table, pictures)
    if columns is None or columns.label is not None:
        return ()
    head = table[0][1]
    return tuple(head[k].strip() if columns.first else f"column {k + 1}" for k in columns.others)


def divides_otherwise(content: bytes, pictures: Pictures, classes: Mapping[Parts, str]) -> bool:
    """Whether a CSV has a column that is called as labels are, and divides the pictures otherwise than their folders do.

    Args:
        content: the CSV, or how it begins.
        pictures: those of the data.
        classes: the class of each picture, by its folder.
    """
    table = _table(content)
    columns = _columns(table, pictures)
    if columns is None or columns.label is None or _word(_cell(table[0][1], columns.label)) not in _LABEL:
        return False
    by_label, by_folder = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for _, cells in table[columns.first :]:
        label, found = _cell(cells, columns.label), pictures.find(_cell(cells, columns.file))
        for folder in {classes[path] for path in found if path in classes} if label and len(found) == 1 else ():
            by_label[label].add(folder)
            by_folder[folder].add(label)
    return any(len(each) > 1 for each in by_label.values()) and any(len(each) > 1 for each in by_folder.values())


def cells_of(content: bytes) -> list[list[str]]:
    """The cells of each column of a CSV, those of the first row included; empty ones are left out."""
    table = _table(content)
    width = max((len(cells) for _, cells in table), default=0)
    return [[cells[k].strip() for _, cells in table if k < len(cells) and cells[k].strip()] for k in range(width)]


def may_name_pictures(content: bytes) -> bool:
    """Whether a file looks like a CSV that names pictures: by a column of names with such suffixes, or by its head."""
    columns = cells_of(content)
    head = [_word(cells[0]) if cells else "" for cells in columns]
    said = any(word.startswith(("image", "img", "photo", "picture", "file")) and word in _FILE for word in head)
    return len(columns) > 1 and ((said and any(word in _LABEL for word in head)) or bool(named_pictures(content)))


def named_pictures(content: bytes) -> Sequence[str]:
    """The cells of the first column of a CSV of which most are names of pictures, by their suffixes; none if there is no such."""
    columns = cells_of(content)
    for cells in columns if len(columns) > 1 else ():
        if sum(_stem(cell) != cell for cell in cells[1:]) > (len(cells) - 1) / 2:
            return cells[1:]
    return ()


def _split(name: str, line: int, said: str) -> str | None:
    if not said:
        return None
    found = split_name(said)
    if found is None:
        raise DataError(
            f"{name}, line {line}: the split is {shown(said)}; it must be train, validation (or val, dev) or test"
        )
    return found.split


def _table(content: bytes) -> list[tuple[int, list[str]]]:
    """The rows that have cells, each with its line, by the delimiter that gives most rows the same number of columns."""
    text = _decoded(content)
    best: tuple[float, list[tuple[int, list[str]]]] = (0.0, [])
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        except csv.Error:  # such as a NUL: no CSV
            continue
        width, count = Counter(len(row) for _, row in rows[:_LOOKED_AT]).most_common(1)[0] if rows else (0, 0)
        if width > 1 and count > best[0]:
            best = (count, rows)
    return best[1]


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


@dataclass(frozen=True)
class _Columns:
    """Where a CSV has what: its first row of data, the columns of the file, the label and the split, and those that may
    have the label."""

    first: int
    file: int
    label: int | None
    split: int | None
    others: tuple[int, ...]


def _cell(cells: Sequence[str], column: int | None) -> str:
    return cells[column].strip() if column is not None and column < len(cells) else ""


def _word(cell: str) -> str:
    return re.sub(r"[^a-z]", "", cell.lower())


def _columns(table: Sequence[tuple[int, list[str]]], pictures: Pictures) -> _Columns | None:
    """The columns of a CSV; None where none names pictures, or there is no other."""
    if not table:
        return None
    head = [_word(cell) for cell in table[0][1]]
    sample = [cells for _, cells in table[:_LOOKED_AT]]
    width = len(head)
    named = [sum(k < len(cells) and bool(pictures.find(cells[k])) for cells in sample) for k in range(width)]
    clear = [
        n if any(k < len(c) and not c[k].strip().isdigit() for c in sample[1:]) else 0 for k, n in enumerate(named)
    ]
    has_head = any(word in _FILE or word in _LABEL for word in head) and not any(map(pictures.find, table[0][1]))
    hinted = [k for k, word in enumerate(head) if has_head and word in _FILE and named[k]]
    file = hinted[0] if hinted else max(range(width), key=lambda k: (clear[k], -k))
    if (named if hinted else clear)[file] < max(1, (len(sample) - has_head) / 2):
        return None
    if not has_head and _is_name_of_column(sample, file, pictures):
        has_head = True
    others = [k for k in range(width) if k != file]
    split = next((k for k in others if has_head and head[k] in _SPLIT and _is_split(k, sample[1:])), None)
    if split is None and not has_head:
        split = next((k for k in others if len(others) > 1 and _is_split(k, sample)), None)
    others = [k for k in others if k != split]
    label = next((k for k in others if has_head and head[k] in _LABEL), others[0] if len(others) == 1 else None)
    return _Columns(int(has_head), file, label, split, tuple(others)) if others else None


def _is_name_of_column(sample: Sequence[Sequence[str]], column: int, pictures: Pictures) -> bool:
    """Whether the first cell of a column of file names is none: no picture, and without the suffix that the others have."""
    first, *others = [cells[column].strip() for cells in sample if column < len(cells)]
    with_suffix = sum(_stem(cell) != cell for cell in others)
    return not pictures.find(first) and _stem(first) == first and with_suffix > len(others) / 2


def _is_split(column: int, rows: Sequence[Sequence[str]]) -> bool:
    """Whether most cells of a column name a split, unlike the numbers of folds."""
    cells = [cells[column] for cells in rows if column < len(cells) and cells[column].strip()]
    return bool(cells) and sum(split_name(cell) is not None for cell in cells) > len(cells) / 2


# --- layout -----------------------------------------------------------------------------------------------------------


def layout_by_rows(tables: Mapping[str, Sequence[Row]], paths: Sequence[Parts], pictures: Pictures) -> Layout:
    """The layout of pictures whose classes are in tables; those that no table names are no part of the data.

    A row's split is what the row says, else what its table's name says (`train.csv`), else what a folder around the
    picture is called. Raises DataError where no picture has a label, or most have several.
    """
    labels: dict[Parts, dict[str, Row]] = {}
    left_out: dict[str, str] = {}
    splits: dict[Parts, str] = {}
    named: set[Parts] = set()
    for name, rows in tables.items():
        by_name = table_split(name)
        for row in rows:
            found = pictures.find(row.file)
            split = row.split or (by_name.split if by_name is not None else None)
            if len(found) > 1:  # such as 1.png in train/ and in test/
                found = {path for path in found if _folder_split(path) == (split or TRAIN)} or found
            where = f"{row.file} ({name}, line {row.line})"
            if len(found) != 1:
                left_out[where] = f"may be {len(found)} files" if found else "no such file"
                continue
            (path,) = found
            named.add(path)
            if row.label:
                labels.setdefault(path, {}).setdefault(row.label, row)
                # The name of a single table, train.csv, says where its pictures are, not that none is for a test.
                splits[path] = (split if len(tables) > 1 else row.split) or _folder_split(path) or TRAIN
            else:
                left_out[where] = "has no label"
    contradicted = {path: said for path, said in labels.items() if len(said) > 1}
    if len(contradicted) > _MOST_CONTRADICTED * len(labels):
        raise DataError(
            f"{' and '.join(tables)} give most pictures several labels, such as {path_text(next(iter(contradicted)))}: "
            "a picture has one class here; keep one row for each"
        )
    for path, said in contradicted.items():
        lines = " and ".join(f"{label!r} in line {row.line}" for label, row in said.items())
        left_out[path_text(path)] = f"has several labels: {lines}"
    known = {path: next(iter(said)) for path, said in labels.items() if len(said) == 1}
    others = [path for path in paths if path not in named or path in known]
    return labelled_layout(known, splits, others, left_out, " and ".join(tables), f"not in {' or '.join(tables)}")


def labelled_layout(
    labels: Mapping[Parts, str],
    splits: Mapping[Parts, str],
    paths: Sequence[Parts],
    left_out: Mapping[str, str],
    origin: str,
    reason: str,
) -> Layout:
    """The layout of pictures by their labels and splits, which are from `origin`; the others of `paths` are ignored, for
    that reason."""
    used = {path: splits[path] for path in labels if splits[path] != UNLABELLED}
    learned_from = next((split for split in (TRAIN, VALIDATION) if split in used.values()), TEST)
    used = {path: TRAIN if split == learned_from else split for path, split in used.items()}
    unknown = [path for path in paths if path not in used]
    return Layout(
        in_order(labels[path] for path in used),
        tuple(
            LabelledPicture(path, used[path], labels[path], (used[path], labels[path], *path)) for path in sorted(used)
        ),
        frozenset(path[:-1] for path in used),
        tuple(Ignored(path, reason, False, 1) for path in sorted(unknown)),
        tuple(sorted(((name,), why) for name, why in left_out.items())),
        origin=origin,
    )


def _folder_split(path: Parts) -> str | None:
    """The split that the innermost folder named as one gives a picture."""
    return next((found.split for name in reversed(path[:-1]) if (found := split_name(name))), None)


def folder_splits(paths: Iterable[Parts]) -> dict[Parts, str]:
    """The split of each picture by the folders around it; "train" if none of them is named as a split."""
    return {path: _folder_split(path) or TRAIN for path in paths}
