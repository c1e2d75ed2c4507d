"""Finds the labels of pictures: in the names of their folders, in a CSV, or in the names of the files."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path

from archsmith.core.errors import DataError
from archsmith.core.shown import shown
from archsmith.data.label_csv import (
    SUFFIXES,
    Pictures,
    Row,
    cells_of,
    divides_otherwise,
    folder_splits,
    layout_by_rows,
    may_name_pictures,
    named_pictures,
    rows_of,
    undecided,
)
from archsmith.data.label_pattern import layout_by_pattern, suggestion
from archsmith.data.layout import Layout, Parts, layout_of, path_text
from archsmith.data.listing import Content, ListedFile, Listing, list_folder
from archsmith.data.picture_decoding import FILE_CAP
from archsmith.data.split_names import TRAIN, split_name, table_split

Contents = Callable[[Collection[str]], Iterator[Content]]
"""A function that gives the content of some files of a listing, by their sources."""

_LOOKED_AT = 1 << 16  # bytes of a CSV next to folders of classes, to see whether it says the same


@dataclass(frozen=True)
class Labelling:
    """Where the labels are, as given by the user. Without either field, they are searched for.

    Args:
        csv: the path of a CSV with the pictures' names and labels.
        pattern: a regular expression for the names of files, with a group `label`.
    """

    csv: str | None = None
    pattern: str | None = None


def find_layout(listing: Listing, contents: Contents, labelling: Labelling) -> Layout:
    """The classes and splits of the pictures of a listing. Raises DataError if they cannot be determined."""
    paths = [*listing.pictures()]
    if labelling.pattern is not None:
        return layout_by_pattern(labelling.pattern, paths)
    pictures = Pictures(paths)
    if labelling.csv is not None:
        name = os.path.basename(labelling.csv)
        content = _content(labelling.csv, listing, contents)
        rows = rows_of(name, content, pictures)
        if not rows:
            raise (
                _undecided({name: columns})
                if (columns := undecided(content, pictures))
                else _names_none(name, content, len(paths))
            )
        return layout_by_rows({name: rows}, paths, pictures)
    sources = {path: file.source for path, file in listing.files.items()}
    layout = layout_of(paths, listing.others(), listing.folders, sources=sources)
    if len(layout.classes) < 2 or all(split_name(name) for name in layout.classes):
        tables, unclear = _tables(listing, contents, pictures)
        if tables:
            return layout_by_rows(tables, paths, pictures)
        if unclear:
            raise _undecided(unclear)
        splits = folder_splits(paths)
        if layout.classes and (said := suggestion(path for path in paths if splits[path] == TRAIN)):
            raise DataError(f"{' and '.join(layout.classes)} have no folders of classes in them. {said}")
        return layout
    return replace(layout, warnings=(*layout.warnings, *_disagreements(layout, listing, contents, pictures)))


def no_pictures(name: str, listing: Listing, unreadable: Sequence[str] = ()) -> DataError:
    """The error of data without a picture that can be read in a folder of a class. `unreadable` says what is wrong with some."""
    listed = f": {'; '.join(unreadable[:5])}" if unreadable else ""
    said = suggestion(listing.pictures())
    advice = f". {said}" if said else ", or has a CSV with file and label next to them"
    return DataError(
        f"{name} has no picture that can be read in a folder of a class{listed}; data is a folder with one folder of pictures for "
        f"each class{advice}"
    )


def _content(csv: str, listing: Listing, contents: Contents) -> bytes:
    """The content of a CSV that the user named, on the disk or inside the data."""
    member = listing.files.get(tuple(csv.replace("\\", "/").split("/")))
    if member is not None:
        return b"".join(read() for _, _, read in contents([member.source]))
    try:
        return Path(csv).read_bytes()
    except OSError as error:
        raise DataError(f"the labels {csv} cannot be read: {error.strerror or error}") from None


def _names_none(csv: str, content: bytes, pictures: int) -> DataError:
    """The error of a CSV that names no picture that is there."""
    if named := named_pictures(content):
        some = ", ".join(shown(name) for name in named[:3])
        return DataError(
            f"{csv} names {some}{', ...' if len(named) > 3 else ''}, and no such picture is there; paths in a CSV begin at its folder"
        )
    return DataError(
        f"{csv} describes none of the {pictures:,} pictures: it needs a column with the names of their files and one with their "
        "labels, such as file,label"
    )


def _undecided(columns: Mapping[str, Sequence[str]]) -> DataError:
    said = "; ".join(
        f"{name} names pictures, and any of {', '.join(them[:8])} may be" for name, them in columns.items()
    )
    return DataError(f"{said} their labels: call the column that has them 'label' in its first row")


def _sheets(listing: Listing, contents: Contents) -> Iterator[tuple[str, bytes]]:
    """The CSVs among the files, each by its path."""
    sheets = {path: listing.files[path].source for path in listing.others() if path[-1].lower().endswith(SUFFIXES)}
    names = {source: path_text(path) for path, source in sheets.items()}
    for source, _, read in contents(set(sheets.values())) if sheets else ():
        try:
            yield names[source], read()
        except OSError:
            continue


def _disagreements(layout: Layout, listing: Listing, contents: Contents, pictures: Pictures) -> Iterator[str]:
    """Warnings of CSVs that say of pictures in folders of classes that they are of others."""
    classes = {picture.path: picture.label for picture in layout.pictures}
    for name, content in _sheets(listing, contents):
        if divides_otherwise(content[:_LOOKED_AT], pictures, classes):
            yield (
                f"{name} has labels of the pictures that are not the names of their folders: the names of the folders are "
                f"read; to read the labels in {name}, give labels={name!r} (--labels '{name}')"
            )


def _tables(
    listing: Listing, contents: Contents, pictures: Pictures
) -> tuple[dict[str, list[Row]], dict[str, tuple[str, ...]]]:
    """The CSVs among the files that describe pictures, the only one or those of the splits; and those that name pictures and
    do not say which column has their labels."""
    tables: dict[str, list[Row]] = {}
    unclear: dict[str, tuple[str, ...]] = {}
    for name, content in _sheets(listing, contents):
        if rows := rows_of(name, content, pictures):
            tables[name] = rows
        elif columns := undecided(content, pictures):
            unclear[name] = columns
    # A sample of what to submit to a competition has one label for all, or none.
    labelled = {
        name: rows
        for name, rows in tables.items()
        if len({row.label for row in rows if row.label}) > (0 if table_split(name) else 1)
    }
    if len(labelled) < 2:
        return labelled, unclear
    parts = {name: rows for name, rows in labelled.items() if table_split(name)}
    if not parts:
        raise DataError(
            f"{' and '.join(sorted(labelled)[:3])} all name pictures and labels; say which to use with labels= (--labels)"
        )
    return parts, unclear


def describes_pictures(path: Path) -> bool:
    """Whether a file is a CSV of pictures: it names files with the suffixes of pictures, or some that are there, with labels."""
    if path.stat().st_size > FILE_CAP:
        return False
    content = path.read_bytes()
    return bool(named_pictures(content)) or (
        may_name_pictures(content) and bool(rows_of(path.name, content, Pictures(csv_listing(path).pictures())))
    )


def csv_listing(path: Path) -> Listing:
    """The pictures that a CSV names by path; if it names none so, all pictures in its folder, at any depth."""
    columns = cells_of(path.read_bytes())
    real_folder = cache(os.path.realpath)
    for cells in columns:
        there: dict[Parts, ListedFile] = {}
        for cell in cells:
            text = cell.replace("\\", "/")
            file = os.path.join(path.parent, text)
            if os.path.isfile(file):
                parts = tuple(part for part in text.split("/") if part not in ("", "."))
                source = os.path.join(real_folder(os.path.dirname(file)), os.path.basename(file))
                there[parts] = ListedFile(os.path.realpath(source) if os.path.islink(source) else source, True)
        if there and len(there) >= len(cells) / 2:
            levels = zip(*(parts[:-1] for parts in there), strict=False)
            around = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
            return Listing(files={parts[around:]: file for parts, file in there.items()})
    return list_folder(path.parent)
