"""Which recipe suits a person's data: looks at what it is, text or images, without reading all of it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath

from archsmith.core.errors import DataError, UnknownName, UsageError
from archsmith.core.shown import spelled
from archsmith.recipes.images import digits, images
from archsmith.recipes.recipe import Recipe
from archsmith.recipes.text import text, text_chars
from archsmith.training import ImageClassification

TEXT_ENDS = (".txt", ".text", ".tokens", ".md", ".rst", ".tex", ".csv", ".json", ".py")
PACKED = (".gz", ".xz", ".bz2")
LOOKED_AT = 1 << 16  # bytes of a file
MEMBERS = 2000  # of an archive
LEAST_SPACES = 1 / 16  # of the characters of a text that has words: in English it is a sixth, in Finnish a ninth

LEAST_SIZE, MOST_SIZE = 4, 1024  # pixels a side of an image classifier's input


def for_data(data: str, *, labels: str | None = None, label_pattern: str | None = None) -> Recipe:
    """The desk recipe that suits a data set, under the data's own name.

    A text file, or a folder or archive with train.txt, valid.txt and test.txt, is for language models: of words, or of
    characters where there are hardly any spaces. All else is for image classifiers: also a CSV that names pictures, and what
    has its `labels` in a CSV or, by `label_pattern`, in the names of its files.

    Raises UnknownName for a name that is neither a data set nor a path, and DataError for what is neither.
    """
    asked = labels is not None or label_pattern is not None
    return with_labels(_for_data(data, of_images=asked), labels, label_pattern)


def _for_data(data: str, *, of_images: bool) -> Recipe:
    from archsmith.data import images as image_data
    from archsmith.data import text as text_data

    if image_data.is_name(data):
        return digits() if data.strip().lower() == "digits" else _on(images(), data, data)
    if text_data.is_name(data):
        return _on(text(), data, data)
    path = Path(os.path.expanduser(data))
    if not image_data.is_there(path):
        if path.suffix or os.sep in data or "/" in data:
            raise DataError(f"there is no file or folder {data!r}; give images or a text, or the name of a data set")
        raise UnknownName("data set", data, [*image_data.NAMES, *text_data.NAMES], "(or give a path)")
    stem = _as_run_name(os.path.basename(os.path.abspath(path)).split(".")[0])
    try:
        recipe = images() if of_images else _recipe_at(path)
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror or error}") from None
    return _on(recipe, data, stem)


def with_labels(recipe: Recipe, labels: str | None, label_pattern: str | None) -> Recipe:
    """The recipe with what is said of where the labels are. Raises UsageError where it is not of images."""
    if labels is None and label_pattern is None:
        return recipe
    if not isinstance(recipe.evaluator, ImageClassification):
        raise UsageError(f"--labels and --label-pattern are for images, and recipe {recipe.name!r} trains on none")
    return replace(recipe, evaluator=replace(recipe.evaluator, labels=labels, label_pattern=label_pattern))


def with_size(recipe: Recipe, size: int | None) -> Recipe:
    """The recipe with pictures of `size` pixels a side; None leaves it. Raises UsageError where the recipe is not of images."""
    if size is None:
        return recipe
    if not isinstance(recipe.evaluator, ImageClassification):
        raise UsageError(f"--size is for images, and recipe {recipe.name!r} trains on none; leave it out")
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise UsageError(f"--size must be from {LEAST_SIZE} to {MOST_SIZE} pixels a side, got {size}")
    return replace(recipe, evaluator=recipe.evaluator.at_size(size))


def with_folds(recipe: Recipe, folds: int | None) -> Recipe:
    """The recipe with networks chosen by cross-validation; None leaves it.

    Its finish then trains the search's best network without tuning, which a handful of validation images cannot judge.
    Raises UsageError where the recipe is not of images, and for fewer than two folds.
    """
    if folds is None:
        return recipe
    if not isinstance(recipe.evaluator, ImageClassification):
        raise UsageError(f"--folds is for images, and recipe {recipe.name!r} trains on none; leave it out")
    finish = None if recipe.finish is None else replace(recipe.finish, top=1, scale={}, grid={})
    return replace(recipe, evaluator=replace(recipe.evaluator, folds=folds), finish=finish)


def advised_folds(recipe: Recipe) -> int | None:
    """The folds that the recipe's data are too few to do without; None if it has folds, or needs none. Reads the data."""
    evaluator = recipe.evaluator
    if not isinstance(evaluator, ImageClassification) or evaluator.folds is not None:
        return None
    from archsmith.data.folds import fold_counts, folds_for

    return folds_for(fold_counts(evaluator.splits()))


def _as_run_name(name: str) -> str:
    """A file's name, shortened and without the characters that the name of a run cannot have."""
    return "".join("_" if unicodedata.category(c)[0] == "C" or c in "/\\" else c for c in name)[:60].strip(" .")


def _on(recipe: Recipe, data: str, name: str) -> Recipe:
    evaluator = replace(recipe.evaluator, data=data)  # type: ignore[type-var]
    summary = recipe.summary.removeprefix("any text (--data), ").removeprefix("any image data set (--data), ")
    return replace(recipe, name=name or recipe.name, summary=f"{spelled(data)}, {summary}", evaluator=evaluator)


def _recipe_at(path: Path) -> Recipe:
    from archsmith.data.label_csv import SUFFIXES
    from archsmith.data.labelling import describes_pictures
    from archsmith.data.listing import has_picture_suffix, list_folder
    from archsmith.data.text_files import part_of
    from archsmith.data.unpacking import ARCHIVES

    if path.is_dir():
        entries = sorted(path.iterdir())
        pictures = list(list_folder(path).pictures())
        parts = [entry for entry in entries if entry.is_file() and part_of(entry.name)]
        if parts and not _are_in_classes(pictures):
            return _by_level(_beginning(parts[0]))
        if (
            not pictures
            and any(e.name.lower().endswith(TEXT_ENDS) for e in entries)
            and not any(e.is_dir() for e in entries)
        ):
            raise DataError(
                f"the folder {path} has neither one folder of images a class nor train.txt, valid.txt and test.txt; "
                "name one text file in it, or three so"
            )
        return images()
    if path.name.lower().endswith(ARCHIVES):
        names = _members(path)
        if _are_in_classes(PurePosixPath(name).parts for name in names if has_picture_suffix(name)):
            return images()
        texts = [name for name in names if name.lower().endswith((".txt", ".tokens"))]
        return text() if any(map(part_of, names)) or (len(texts) == 1 == len(names)) else images()
    if path.suffix.lower() in SUFFIXES and describes_pictures(path):
        return images()
    start = _beginning(path)
    return images() if start is None or path.suffix == ".npz" else _by_level(start)


def _are_in_classes(pictures: Iterable[tuple[str, ...]]) -> bool:
    """Whether pictures at these paths are in two folders or more, and no mere illustrations of a text."""
    return len({path[:-1] for path in pictures if len(path) > 1}) > 1


def _by_level(start: str | None) -> Recipe:
    """Words, or characters where a text has hardly any space between them."""
    if start and sum(map(str.isspace, start)) < LEAST_SPACES * len(start):
        return text_chars()
    return text()


def _beginning(path: Path) -> str | None:
    """The first characters of a file that is a text, plain or packed; None of one that is not.

    What is wrong with a text is told where it is read: here it is a text by its name alone, or because it has no NUL.
    """
    from archsmith.data.unpacking import DAMAGED, unpacked

    plain = path.name.lower().removesuffix(path.suffix.lower()) if path.suffix.lower() in PACKED else path.name.lower()
    try:
        with unpacked(path) as file:
            block = file.read(LOOKED_AT)
    except DAMAGED:
        block = b""
    if b"\0" in block and not plain.endswith(TEXT_ENDS):
        return None
    return block.decode("utf-8-sig", errors="ignore")


def _members(path: Path) -> list[str]:
    """The files of an archive by name, some thousand at most."""
    from archsmith.data.system_files import is_system_file
    from archsmith.data.unpacking import DAMAGED, is_zip, open_tar, open_zip

    try:
        if is_zip(path):
            with open_zip(path) as zipped:
                names = zipped.namelist()[:MEMBERS]
        else:
            with open_tar(path) as archive:
                names = [member.name for member in islice(archive, MEMBERS) if member.isfile()]
    except DAMAGED as error:
        raise DataError(f"{path} is a damaged archive: {error}") from None
    files = [name for name in names if not name.endswith("/")]
    return [name for name in files if not any(map(is_system_file, filter(".".__ne__, PurePosixPath(name).parts)))]
