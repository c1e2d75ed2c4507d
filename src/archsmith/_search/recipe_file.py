"""A recipe in a FILE.py of the user's: run when it is named, recorded with the run, and found again by later commands.

A store may come from a stranger, so its record alone never runs a file. A file is run again without being named only if it and
the modules beside it that it imports are, byte for byte, what this user has named before; a list in the user's cache
folder remembers that.
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
    """What of an `archsmith.recipes.Recipe` a run is made of."""

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
    """Where a recipe is, and what was in its file.

    Args:
        path: of the file, absolute.
        recipe: the variable of the file that holds it.
        files: the SHA-256 of the file and of the modules beside it that it imports, by path from the file's folder.
    """

    path: str
    recipe: str
    files: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as a run's note keeps it."""
        return {"path": self.path, "recipe": self.recipe, "files": dict(self.files)}

    def named(self) -> str:
        """As a command line names it: FILE.py, or FILE.py:NAME."""
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
        """Of the content of all files."""
        return hashlib.sha256(canonical_json(dict(self.files)).encode()).hexdigest()

    def changed(self) -> str | None:
        """The path of a file that is missing or has another content now; None where all are as recorded."""
        folder = Path(self.path).parent
        return next(
            (str(folder / name) for name, digest in self.files.items() if _sha256(folder / name) != digest), None
        )


def is_recipe_file(argument: str) -> bool:
    """Whether an argument of the command line names a file and not a recipe of archsmith's: FILE.py or FILE.py:NAME."""
    return _ARGUMENT.fullmatch(argument) is not None


def run_recipe_file(argument: str) -> tuple[Pieces, RecipeFile]:
    """The recipe in a file that the user has named, as FILE.py or FILE.py:NAME, and where it is from now on.

    Raises UsageError when there is no such file or recipe, or when the file fails.
    """
    match = _ARGUMENT.fullmatch(argument)
    path = Path(match["path"] if match else argument).expanduser().absolute()
    if match is None or not path.is_file():
        raise UsageError(f"there is no file {(match or {'path': argument})['path']!r}")
    module = _run(path)
    name, pieces = _pick(module, path, match["name"])
    file = RecipeFile(str(path), name, _files(module, path))
    _remember(file)
    _loaded[file.path, file.recipe] = file, pieces
    return pieces, file


def find_recipe(file: RecipeFile) -> Pieces:
    """The recipe that a run's record tells of. Raises UsageError, which says what to do, unless its file is where it was,
    unchanged, and this user has named it before."""
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
    """The recipe of a file that this user has named, by its content alone, as an exported model records it; None where there
    is none. Raises UsageError when the file fails."""
    if not isinstance(record, Mapping):
        return None
    for path in _named_paths():
        file = RecipeFile.from_json({**record, "path": path})
        if file is not None and os.path.isfile(path) and file.changed() is None and _was_named(file):
            return find_recipe(file)
    return None


_loaded: dict[tuple[str, str], tuple[RecipeFile, Pieces]] = {}


def _run(path: Path) -> ModuleType:
    """The file's module, under the name by which others would import it.

    It is not left among the imported modules: its functions are sent to worker processes by value, so that those need
    neither the file nor its folder.
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
    """An error of the user's file with the last line of the file, or of a module beside it, that led to it."""
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
    """What decides what the file does: itself and the modules beside it that are imported by now."""
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


# --- what this user has named ------------------------------------------------------------------------------------------


def _remember(file: RecipeFile) -> None:
    """Keep on the user's list that this file was named."""
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
    """Where files are that were named, the latest first."""
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
