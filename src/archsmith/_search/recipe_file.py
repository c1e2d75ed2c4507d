"""Recipes in a user's FILE.py: executed when the user names the file, recorded with the run, and found by later commands.

A store may come from a stranger, so its record alone never executes a file. Later commands execute a file that is not named
only if it, and the modules in its folder that it imports, have the content of files that this user has named before. A list in
the user's cache folder remembers those.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import canonical_json, read_json
from archsmith.core.private_folder import is_private, private_folder
from archsmith.core.shown import shown

_ARGUMENT = re.compile(r"(?P<path>.+\.py)(?::(?P<name>[^:/\\]+))?", re.DOTALL)
_INSTALLED = {"site-packages", "dist-packages"}
_STDLIB = sysconfig.get_paths()["stdlib"]
_NAMED = "recipes"  # the folder, and the list in it: a digest and a path on each line


@runtime_checkable
class Pieces(Protocol):
    """The parts of an `archsmith.recipes.Recipe` that a run uses."""

    @property
    def name(self) -> str: ...
    @property
    def space(self) -> Any: ...
    @property
    def evaluator(self) -> Any: ...
    @property
    def searcher(self) -> Any: ...
    @property
    def control_searcher(self) -> Any: ...
    @property
    def reward(self) -> Any: ...
    @property
    def stopping(self) -> Any: ...


@dataclass(frozen=True)
class RecipeFile:
    """The place of a recipe, and the content of its file.

    Args:
        path: the absolute path of the file.
        recipe: the name of its variable in the file.
        files: the SHA-256 of the file and of the modules that it imports from its folder, by path relative to the folder.
    """

    path: str
    recipe: str
    files: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as a run's note keeps it."""
        return {"path": self.path, "recipe": self.recipe, "files": dict(self.files)}

    def named(self) -> str:
        """The argument of a command that names it: FILE.py, or FILE.py:NAME."""
        return self.path if self.recipe == "recipe" else f"{self.path}:{self.recipe}"

    @classmethod
    def from_json(cls, value: object) -> RecipeFile | None:
        """What `to_json` wrote; None for anything else, since a store may come from anywhere."""
        if not isinstance(value, Mapping) or not isinstance(value.get("files"), Mapping):
            return None
        path, recipe, files = value.get("path"), value.get("recipe"), value["files"]
        texts = [path, recipe, *files, *files.values()]
        if not files or not all(isinstance(text, str) and text and "\0" not in text for text in texts):
            return None
        return cls(str(path), str(recipe), dict(files))

    @property
    def digest(self) -> str:
        """A digest of the content of all files."""
        return hashlib.sha256(canonical_json(dict(self.files)).encode()).hexdigest()

    def changed(self) -> str | None:
        """The path of a file that is missing or has changed; None if all are as recorded."""
        folder = Path(self.path).parent
        return next(
            (str(folder / name) for name, digest in self.files.items() if _sha256(folder / name) != digest), None
        )


def is_recipe_file(argument: str) -> bool:
    """Whether an argument of the command line names a file, as FILE.py or FILE.py:NAME, and not a built-in recipe."""
    return _ARGUMENT.fullmatch(argument) is not None


def run_recipe_file(argument: str) -> tuple[Pieces, RecipeFile]:
    """Execute a file that the user has named, as FILE.py or FILE.py:NAME; returns its recipe and the record of it.

    Raises UsageError if there is no such file or recipe, or if the file fails.
    """
    match = _ARGUMENT.fullmatch(argument)
    path = Path(os.path.expanduser(match["path"] if match else argument)).absolute()
    if match is None or not path.is_file():
        raise UsageError(f"there is no file {(match or {'path': argument})['path']!r}")
    module = _run(path)
    name, pieces = _pick(module, path, match["name"])
    file = RecipeFile(str(path), name, _files(module, path))
    _remember(file)
    _loaded[file.path, file.recipe] = file, pieces
    return pieces, file


def find_recipe(file: RecipeFile) -> Pieces:
    """The recipe in a run's record. Raises UsageError unless its file is in its place, unchanged, and this user has named it
    before."""
    if (known := _loaded.get((file.path, file.recipe))) is not None and known[0].digest == file.digest:
        return known[1]
    if not os.path.isfile(file.path):
        why = f"{file.path[:200]} is not there any more"
    elif (changed := file.changed()) is not None:
        why = f"{changed} has changed since"
    elif not _was_named(file):
        why = f"{file.path} is a program that you have not named to archsmith on this machine"
    else:
        module = _run(Path(file.path))
        _, pieces = _pick(module, Path(file.path), file.recipe)
        _loaded[file.path, file.recipe] = file, pieces
        return pieces
    raise UsageError(why)


def find_by_content(record: object) -> Pieces | None:
    """The recipe of a file that this user has named, found by its content alone, as an exported model records it, or None.
    Raises UsageError if the file fails."""
    if not isinstance(record, Mapping):
        return None
    for path in _named_paths():
        file = RecipeFile.from_json({**record, "path": path})
        if file is not None and os.path.isfile(path) and file.changed() is None and _was_named(file):
            return find_recipe(file)
    return None


_loaded: dict[tuple[str, str], tuple[RecipeFile, Pieces]] = {}


def _run(path: Path) -> ModuleType:
    """Execute a file as the module of its name.

    It does not stay in `sys.modules`, so that its functions are pickled by value, and worker processes need neither the file
    nor its folder.
    """
    folder, name = str(path.parent), path.stem
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)  # its neighbours, also in worker processes
    module = ModuleType(name)
    module.__file__ = str(path)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses look for it
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path} could not be run: {_told(error, path)}") from error
    finally:
        if before is not None:
            sys.modules[name] = before
        else:
            sys.modules.pop(name, None)
    return module


def _told(error: BaseException, path: Path) -> str:
    """An error of the user's file, with the last line in its folder that led to it."""
    lines = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent == path.parent
    ]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno))
    at = f"{Path(lines[-1][0]).name}, line {lines[-1][1]}: " if lines else ""
    return f"{at}{type(error).__name__}: {error}"


def _pick(module: ModuleType, path: Path, name: str | None) -> tuple[str, Pieces]:
    """The recipe of that name; without a name the variable `recipe`, or the only recipe there is."""
    there = {key: value for key, value in vars(module).items() if isinstance(value, Pieces)}
    if name is not None:
        named = [key for key, value in there.items() if name in (key, value.name)]
        if name in there or named:
            key = name if name in there else named[0]
            return key, there[key]
        raise UnknownName(f"recipe of {path.name}", name, there)
    if "recipe" in there or len(there) == 1:
        key = "recipe" if "recipe" in there else next(iter(there))
        return key, there[key]
    if there:
        raise UsageError(
            f"{path} holds several recipes and none is called `recipe`; name one: "
            + ", ".join(f"{path.name}:{key}" for key in there)
        )
    raise UsageError(
        f"{path} must hold a value named `recipe` that is an archsmith.recipes.Recipe, "
        f"got {shown(vars(module).get('recipe'))}"
    )


def _files(module: ModuleType, path: Path) -> dict[str, str]:
    """The digests of the file and of the modules that were imported from its folder."""
    folder = path.parent
    files = {path.name: _sha256(path) or ""}
    for other in list(sys.modules.values()):
        file = getattr(other, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or other.__name__.partition(".")[0] == "archsmith":
            continue
        beside = Path(file).absolute()
        if not beside.is_relative_to(folder) or _INSTALLED & {*beside.parts} or beside.is_relative_to(_STDLIB):
            continue
        if (digest := _sha256(beside)) is not None:
            files[beside.relative_to(folder).as_posix()] = digest
    return dict(sorted(files.items()))


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None


# --- files that this user has named ------------------------------------------------------------------------------------


def _remember(file: RecipeFile) -> None:
    """Add the file to the list of those that the user has named."""
    if _was_named(file):
        return
    if (folder := private_folder(_NAMED)) is not None:
        try:
            with (folder / _NAMED).open("a", encoding="utf-8") as listed:
                listed.write(f"{file.digest} {canonical_json(file.path)}\n")
            (folder / _NAMED).chmod(0o600)
            return
        except OSError:
            pass
    warnings.warn(
        f"the cache folder cannot be written, so later commands have to be given --recipe {Path(file.path).name}; "
        "name another folder in the environment variable ARCHSMITH_CACHE",
        stacklevel=3,
    )


def _was_named(file: RecipeFile) -> bool:
    return f"{file.digest} {canonical_json(file.path)}" in _lines()


def _named_paths() -> list[str]:
    """The paths of named files, the latest first."""
    paths = [line.partition(" ")[2] for line in reversed(_lines())]
    return [str(read_json(path)) for path in dict.fromkeys(paths) if path.startswith('"') and path.endswith('"')]


def _lines() -> list[str]:
    folder = private_folder(_NAMED)
    if folder is None:
        return []
    try:
        listed = folder / _NAMED
        return listed.read_text("utf-8").split("\n") if is_private(listed) else []
    except (OSError, UnicodeDecodeError):
        return []
