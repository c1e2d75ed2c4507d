"""Where the labels of pictures are: in the names of their folders, in a CSV, or in the names of the files."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from archsmith.core.errors import DataError
from archsmith.training.label_csv import (
    SUFFIXES,
    Pictures,
    Row,
    cells_of,
    folder_splits,
    layout_by_rows,
    may_name_pictures,
    rows_of,
)
from archsmith.training.label_pattern import layout_by_pattern, suggestion
from archsmith.training.layout import Layout, Parts, layout_of, path_text
from archsmith.training.listing import Content, ListedFile, Listing, list_folder
from archsmith.training.picture_decoding import FILE_CAP
from archsmith.training.split_names import TRAIN, split_name

Contents = Callable[[Collection[str]], Iterator[Content]]
"""What gives the content of some files of a listing, by their sources."""


@dataclass(frozen=True)
class Labelling:
    """What a person says of where the labels are; nothing, and it is looked for.

    Args:
        csv: the path of a CSV with the pictures' names and labels.
        pattern: a regular expression for the names of files, with a group `label`.
    """

    csv: str | None = None
    pattern: str | None = None


def find_layout(listing: Listing, contents: Contents, labelling: Labelling) -> Layout:
    """The classes and splits of the pictures of a listing. Raises DataError where they cannot be told."""
    paths = [*listing.pictures()]
    if labelling.pattern is not None:
        return layout_by_pattern(labelling.pattern, paths)
    pictures = Pictures(paths)
    if labelling.csv is not None:
        name = os.path.basename(labelling.csv)
        rows = rows_of(name, _content(labelling.csv, listing, contents), pictures)
        if not rows:
            raise DataError(
                f"{name} describes none of the {len(paths):,} pictures: it needs a column with the names of their "
                "files and one with their labels, such as file,label"
            )
        return layout_by_rows({name: rows}, paths, pictures)
    sources = {path: file.source for path, file in listing.files.items()}
    layout = layout_of(paths, listing.others(), listing.folders, sources=sources)
    if len(layout.classes) < 2 or all(split_name(name) for name in layout.classes):
        tables = _tables(listing, contents, pictures)
        if tables:
            return layout_by_rows(tables, paths, pictures)
        splits = folder_splits(paths)
        if layout.classes and (said := suggestion(path for path in paths if splits[path] == TRAIN)):
            raise DataError(f"{' and '.join(layout.classes)} have no folders of classes in them. {said}")
    return layout


def suggested(listing: Listing) -> str:
    """What to add to a message where pictures are in no folder of a class; "" where nothing suggests itself."""
    said = suggestion(listing.pictures())
    return f". {said}" if said else ", or has a CSV with file and label next to them"


def _content(csv: str, listing: Listing, contents: Contents) -> bytes:
    """The content of a CSV that is named: on the disk, or of the data."""
    member = listing.files.get(tuple(csv.replace("\\", "/").split("/")))
    if member is not None:
        return b"".join(read() for _, _, read in contents([member.source]))
    try:
        return Path(csv).read_bytes()
    except OSError as error:
        raise DataError(f"the labels {csv} cannot be read: {error.strerror or error}") from None


def _tables(listing: Listing, contents: Contents, pictures: Pictures) -> dict[str, list[Row]]:
    """The CSVs among the files that describe pictures: the only one, or those of the splits."""
    sheets = {path: listing.files[path].source for path in listing.others() if path[-1].lower().endswith(SUFFIXES)}
    names = {source: path_text(path) for path, source in sheets.items()}
    tables: dict[str, list[Row]] = {}
    for source, _, read in contents(set(sheets.values())) if sheets else ():
        try:
            rows = rows_of(names[source], read(), pictures)
        except OSError:
            continue
        if rows:
            tables[names[source]] = rows
    labelled = {name: rows for name, rows in tables.items() if any(row.label for row in rows)}
    if len(labelled) < 2:
        return labelled
    parts = {name: rows for name, rows in labelled.items() if split_name(os.path.splitext(os.path.basename(name))[0])}
    if not parts:
        raise DataError(
            f"{' and '.join(sorted(labelled)[:3])} all name pictures and labels; say which to use with labels= (--labels)"
        )
    return parts


def describes_pictures(path: Path) -> bool:
    """Whether a file is a CSV that names pictures that are there, and their labels."""
    if path.stat().st_size > FILE_CAP:
        return False
    content = path.read_bytes()
    return may_name_pictures(content) and bool(rows_of(path.name, content, Pictures(csv_listing(path).pictures())))


def csv_listing(path: Path) -> Listing:
    """The pictures that a CSV names: where it says that they are, or else any in its folder and in those within."""
    columns = cells_of(path.read_bytes())
    for cells in columns:
        there: dict[Parts, ListedFile] = {}
        for cell in cells:
            text = cell.replace("\\", "/")
            file = os.path.join(path.parent, text)
            if os.path.isfile(file):
                parts = tuple(part for part in text.split("/") if part not in ("", "."))
                there[parts] = ListedFile(os.path.realpath(file), True)
        if there and len(there) >= len(cells) / 2:
            levels = zip(*(parts[:-1] for parts in there), strict=False)
            around = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
            return Listing(files={parts[around:]: file for parts, file in there.items()})
    return list_folder(path.parent)
