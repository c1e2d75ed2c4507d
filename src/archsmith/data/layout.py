"""Decides which folders of a tree of pictures are classes, which are splits, and what is not part of the data.

Only names and paths are used; no picture is opened. The entry point is `layout_of`. A folder is a split if its name says so
and it contains folders of classes, unless its siblings are classes themselves.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from archsmith.core.errors import DataError
from archsmith.core.shown import spelled
from archsmith.data.split_names import TEST, TRAIN, UNLABELLED, VALIDATION, SplitName, split_name
from archsmith.data.system_files import is_export, is_record

Parts = tuple[str, ...]
"""A path below the data's folder, name by name."""


@dataclass(frozen=True)
class LabelledPicture:
    """A picture with a label.

    Args:
        path: its path below the data's folder.
        split: "train", "validation" or "test".
        label: the name of its class.
        key: identifies it within the data, however many folders there are around the classes.
    """

    path: Parts
    split: str
    label: str
    key: Parts


@dataclass(frozen=True)
class Ignored:
    """A file or folder that is not part of the data.

    Args:
        path: its path below the data's folder.
        reason: why it is ignored.
        is_folder: whether it is a folder.
        pictures: how many it holds.
    """

    path: Parts
    reason: str
    is_folder: bool = False
    pictures: int = 0


@dataclass(frozen=True)
class Layout:
    """How a tree of pictures is read.

    Args:
        classes: the names of all classes, sorted, including those without pictures.
        pictures: all labelled pictures, sorted by path.
        class_folders: the folders that contain them.
        ignored: files and folders that are not part of the data.
        left_out: files among the pictures that cannot be used, each with the reason.
        warnings: what a person should check.
        origin: the source of the labels, unless it is the names of folders.
    """

    classes: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]
    class_folders: frozenset[Parts] = frozenset()
    ignored: tuple[Ignored, ...] = ()
    left_out: tuple[tuple[Parts, str], ...] = ()
    warnings: tuple[str, ...] = ()
    origin: str = ""


def layout_of(
    pictures: Iterable[Parts],
    others: Iterable[Parts] = (),
    folders: Iterable[Parts] = (),
    *,
    sources: Mapping[Parts, str] = {},
) -> Layout:
    """The layout of a tree.

    Args:
        pictures, others: the paths of its pictures, and of its other files.
        folders: the paths of its folders; only the empty ones matter.
        sources: the file that each picture's path leads to, which differs from the path for links.

    Raises DataError if a test or validation folder has classes that the training folder lacks.
    """
    root = _tree(pictures, others, folders)
    layout = _Reading(sources)
    layout.remove_own_output(root)
    top = layout.data_set_in(_unwrapped(root))
    if splits := layout.splits_in(top):
        layout.read_splits(top, splits)
    elif _is_class_above_split(top):
        layout.read_splits_of_classes(top)
    else:
        layout.read_classes(top)
    layout.sort_out_rest(root)
    return layout.result()


def label_of(name: str) -> str:
    """The class of a folder of that name: the same for composed (NFC) and decomposed (NFD) accents."""
    return spelled(unicodedata.normalize("NFC", name))


def path_text(path: Parts) -> str:
    """A path for a message or a record."""
    return "/".join(map(spelled, path))


# --- trees ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Folder:
    path: Parts
    pictures: list[Parts] = field(default_factory=list)
    others: list[Parts] = field(default_factory=list)
    folders: dict[str, _Folder] = field(default_factory=dict)
    total: int = 0  # pictures, those of inner folders included
    has_output: bool = False  # whether archsmith has written into it

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def text(self) -> str:
        return path_text(self.path) + "/"

    @property
    def is_empty(self) -> bool:
        has_files = self.total or self.others or self.has_output
        return not has_files and all(inner.is_empty for inner in self.folders.values())

    def full(self) -> list[_Folder]:
        """The folders directly inside that hold pictures, at any depth."""
        return [inner for _, inner in sorted(self.folders.items()) if inner.total]

    def all_folders(self) -> Iterator[_Folder]:
        """This folder and all folders below it."""
        yield self
        for inner in self.folders.values():
            yield from inner.all_folders()

    def labels(self) -> set[str]:
        return {label_of(inner.name) for inner in self.full()}

    def has_classes(self) -> bool:
        """Whether the pictures are in inner folders, apart from a few strays."""
        return len(self.pictures) <= len(self.full()) > 0

    def contents(self) -> set[Parts]:
        """The pictures by their paths below it."""
        return {path[len(self.path) :] for folder in self.all_folders() for path in folder.pictures}


def _tree(pictures: Iterable[Parts], others: Iterable[Parts], folders: Iterable[Parts]) -> _Folder:
    root = _Folder(())
    known: dict[Parts, _Folder] = {(): root}

    def folder(path: Parts) -> _Folder:
        if path not in known:
            known[path] = folder(path[:-1]).folders[path[-1]] = _Folder(path)
        return known[path]

    for path in sorted(set(pictures)):
        folder(path[:-1]).pictures.append(path)
        for end in range(len(path)):
            known[path[:end]].total += 1
    for path in sorted(set(others)):
        folder(path[:-1]).others.append(path)
    for path in folders:
        folder(path)
    return root


def _unwrapped(folder: _Folder) -> _Folder:
    """The innermost folder around all classes or splits."""
    while len(full := folder.full()) == 1 and full[0].has_classes():
        only = full[0]
        lonely = any(inner.is_empty for inner in folder.folders.values()) or only.pictures
        if lonely and len(only.full()) == 1:
            break
        folder = only
    return folder


def _is_class_above_split(top: _Folder) -> bool:
    """Whether each class has folders of splits: cat/train/, cat/test/, dog/train/, ..."""
    inner = [folder for label in top.full() for folder in label.full()]
    names = [split_name(folder.name) for folder in inner]
    splits = {name.split for name in names if name is not None}
    flat = not any(label.pictures for label in top.full()) and all(
        folder.pictures or len(folder.full()) == 1 for folder in inner
    )
    return len(top.full()) > 1 and flat and None not in names and TRAIN in splits and len(splits) > 1


@dataclass(frozen=True)
class _Split:
    """A folder with the name of a split, and the folder inside that contains its classes."""

    folder: _Folder
    name: SplitName
    inner: _Folder

    @property
    def labels(self) -> set[str]:
        return self.inner.labels() if self.inner.has_classes() and self.name.split != UNLABELLED else set()


def _data_set(folder: _Folder) -> _Folder | None:
    """The folder, or the only one in it, that has splits of several classes in it, one of them to learn from."""
    full = folder.full()
    named = [_Split(f, name, _unwrapped(f)) for f in full if (name := split_name(f.name))]
    learned_from = [s.inner for s in named if s.name.split in (TRAIN, VALIDATION) and len(s.labels) > 1]
    if not all(map(_data_set, learned_from)):
        return folder
    return _data_set(full[0]) if len(full) == 1 else None


# --- reading ----------------------------------------------------------------------------------------------------------


class _Reading:
    """A layout while it is being worked out."""

    def __init__(self, sources: Mapping[Parts, str]) -> None:
        self._sources = sources
        self._classes: set[str] = set()
        self._pictures: list[LabelledPicture] = []
        self._ignored: list[Ignored] = []
        self._left_out: list[tuple[Parts, str]] = []
        self._warnings: list[str] = []
        self._read: set[Parts] = set()  # folders whose meaning is settled
        self._reasons: dict[Parts, str] = {}

    def result(self) -> Layout:
        return Layout(
            tuple(sorted(self._classes)),
            tuple(sorted(self._pictures, key=lambda picture: picture.path)),
            frozenset(self._read),
            tuple(sorted(self._ignored, key=lambda each: (-each.pictures, each.path))),
            tuple(sorted(self._left_out)),
            tuple(self._warnings),
        )

    def remove_own_output(self, folder: _Folder) -> None:
        """Remove what archsmith wrote itself, which may come and go while the data are in use."""
        for name, inner in list(folder.folders.items()):
            self.remove_own_output(inner)
            export = is_export(frozenset(path[-1] for path in inner.others))
            if export or (is_record(name) and not inner.total):
                del folder.folders[name]
                folder.has_output = True
                self._ignored.append(Ignored(inner.path, "written by archsmith", True, inner.total))
        folder.total = len(folder.pictures) + sum(inner.total for inner in folder.folders.values())

    def data_set_in(self, top: _Folder) -> _Folder:
        """The folder in it that has the splits, where none next to it has others: what else is there are copies and no classes."""
        if _data_set(top) is top:
            return top
        sets = {folder: found for folder in top.full() if (found := _data_set(folder))}
        if not sets:
            return top
        outer, largest = max(sets.items(), key=lambda item: len(item[1].contents()))
        if not all(found.contents() <= largest.contents() for found in sets.values()):
            self._warnings.append(
                f"{_listed([folder.text for folder in sets])} have splits in them, and are read as classes. If they are data "
                "sets, give one of them as the data"
            )
            return top
        others = [folder for folder in top.full() if folder is not outer and split_name(folder.name) is None]
        self._set_aside(others, largest, f"it is not in {outer.text}, which has the splits")
        return largest

    def splits_in(self, top: _Folder) -> list[_Split]:
        """The folders that are splits; none if folders with such names are classes."""
        full = top.full()
        named = [_Split(f, name, _unwrapped(f)) for f in full if (name := split_name(f.name))]
        rest = [f for f in full if split_name(f.name) is None]
        trains = [s for s in named if s.name.split == TRAIN and s.labels]
        trains = trains or [s for s in named if s.name.split == VALIDATION and s.labels]
        learned = {label for split in trains for label in split.labels}
        classes = [f for f in rest if not (_unwrapped(f).labels() & learned or any(map(split_name, f.folders)))]
        kinds = {s.name.split for s in named}
        agreeing = any(s.labels & learned for s in named if s not in trains)
        if trains and (agreeing or len(classes) < 2):
            return named
        set_aside = len(learned & {label_of(f.name) for f in classes}) > 1  # by `read_classes`, which says why
        if (trains and not set_aside and full != [s.folder for s in trains]) or (len(kinds) > 1 and not rest):
            why = f"{classes[0].text} next to them is a class" if trains else "none of them has folders of classes"
            self._warnings.append(
                f"{_listed([s.folder.text for s in named])} may be meant as splits, but {why}: read as classes. Splits "
                "are folders such as train/ and test/ with one folder of pictures for each class in them"
            )
        return []

    def read_splits(self, top: _Folder, splits: Sequence[_Split]) -> None:
        """Splits above classes: train/cat/, train/dog/, test/cat/, ..."""
        kinds = {s.name.split for s in splits if s.labels}
        learned_from = TRAIN if TRAIN in kinds else VALIDATION
        learned = {label for s in splits if s.name.split == learned_from for label in s.labels}
        for kind in sorted(kinds):
            if len(folders := [s.folder.text for s in splits if s.name.split == kind and s.labels]) > 1:
                self._warnings.append(f"{_listed(folders)} are all read as one split, {kind}")
        for split in splits:
            kind = TRAIN if split.name.split == learned_from else split.name.split
            if not split.labels or (len(split.labels) == 1 and not split.labels & learned):
                continue
            trains = _listed([s.folder.text for s in splits if s.name.split == learned_from])
            if strange := sorted(split.labels - learned):
                raise DataError(
                    f"{split.folder.text} has folders that {trains} lacks: {_quoted(strange)}. Each class needs pictures to "
                    f"learn from: name the folders of {split.folder.text} as those of {trains}, or move them away"
                )
            if kind == TEST and (missing := sorted(learned - split.labels)):
                self._warnings.append(
                    f"{split.folder.text} has no pictures of {_quoted(missing)}, which {trains} has: the test does "
                    "not cover them"
                )
            self._read_folders(split.inner, kind, (split.name.word,), empty_too=kind == TRAIN)
        others = [folder for folder in top.full() if split_name(folder.name) is None]
        self._set_aside(others, top, "it is not one of the splits")

    def read_splits_of_classes(self, top: _Folder) -> None:
        """Classes above splits: cat/train/, cat/test/, dog/train/, ..."""
        for folder in top.full():
            for inner in folder.full():
                name = split_name(inner.name)
                assert name is not None
                if name.split == UNLABELLED:
                    self._reasons[inner.path] = "for predictions"
                else:
                    self._read_class(inner, name.split, label_of(folder.name), (name.word, folder.name))

    def read_classes(self, top: _Folder) -> None:
        """Classes, each a folder of pictures."""
        full = top.full()
        flat = {label_of(folder.name) for folder in full if folder.pictures}
        inner = [folder.labels() for folder in full]
        same = len(full) > 1 and all(labels == inner[0] for labels in inner) and not any(map(split_name, inner[0]))
        if same and len(inner[0]) > 1 and not flat:
            self._warnings.append(
                f"{_listed([folder.text for folder in full])} have the same folders in them, {_quoted(sorted(inner[0]))}, "
                "and are read as classes. If those are the classes, give one of the outer folders as the data, or name "
                "the outer folders train/ and test/"
            )
        repeated = []
        for folder in full:
            common = folder.labels() & flat
            if not folder.pictures and len(common) > 1 and (folder.labels() <= flat or common == flat):
                repeated.append(folder)
            elif flat and not folder.pictures and split_name(folder.name) is None:
                self._warnings.append(
                    f"the pictures of {folder.text} are in folders inside it, {_quoted(sorted(folder.labels()))}, and those next "
                    f"to it are not: read as one class, '{label_of(folder.name)}'. If its folders are the classes, give "
                    f"{folder.text} as the data"
                )
        self._set_aside(repeated, top, "it repeats the classes next to it")
        self._read_folders(top, TRAIN, (), empty_too=True)

    def _set_aside(self, folders: Sequence[_Folder], top: _Folder, why: str) -> None:
        """Ignore some folders, with a warning for each that is not a copy of what is read of `top`."""
        if not folders:
            return
        aside = set(folders)
        contents, files = top.contents(), self._files_of(folder for folder in top.full() if folder not in aside)
        for folder in folders:
            if not folder.pictures and (folder.contents() <= contents or _unwrapped(folder).contents() <= contents):
                self._reasons[folder.path] = "a copy: the same file names as next to it"
            elif self._files_of([folder]) <= files:
                self._reasons[folder.path] = "links next to it lead to the same files"
            else:
                self._reasons[folder.path] = why
                self._warnings.append(f"the {folder.total:,} pictures in {folder.text} are not read: {why}")

    def _files_of(self, folders: Iterable[_Folder]) -> set[str | Parts]:
        """The files that the pictures in some folders lead to."""
        paths = (path for folder in folders for inner in folder.all_folders() for path in inner.pictures)
        return {self._sources.get(path, path) for path in paths}

    def _read_folders(self, top: _Folder, split: str, key: Parts, *, empty_too: bool) -> None:
        for name, folder in top.folders.items():
            if folder.path in self._reasons:
                continue
            if folder.total:
                self._read_class(folder, split, label_of(name), (*key, name))
            elif empty_too and folder.is_empty:
                self._classes.add(label_of(name))
                self._read.add(folder.path)

    def _read_class(self, folder: _Folder, split: str, label: str, key: Parts) -> None:
        self._classes.add(label)
        self._read.add(folder.path)
        for inner in folder.all_folders():
            for path in inner.pictures:
                rest = path[len(folder.path) :]
                self._pictures.append(LabelledPicture(path, split, label, (*key, *rest)))
            for path in inner.others:
                if is_record(path[-1]):
                    self._ignored.append(Ignored(path, "no picture"))
                else:
                    self._left_out.append((path, "is no picture"))

    def sort_out_rest(self, folder: _Folder) -> None:
        """Give a reason for everything that was not read."""
        if folder.path in self._read:
            return
        around = any(path[: len(folder.path)] == folder.path for path in self._read)
        if folder.path and not around:
            reason = "empty" if folder.is_empty else "no pictures" if not folder.total else "not in folders of classes"
            reason = self._reasons.get(folder.path, reason)
            self._ignored.append(Ignored(folder.path, reason, True, folder.total))
            return
        self._ignored += [Ignored(path, "no picture") for path in folder.others]
        self._left_out += [(path, "is in no class's folder") for path in folder.pictures]
        for inner in folder.folders.values():
            self.sort_out_rest(inner)


def _listed(names: Sequence[str]) -> str:
    """The first five names for a message, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _quoted(labels: Sequence[str]) -> str:
    return _listed([f"'{label}'" for label in labels])
