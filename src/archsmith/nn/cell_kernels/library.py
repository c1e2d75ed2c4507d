"""Native libraries, that of recurrent cells above all: compiled at first use, kept in the user's cache folder, loaded with ctypes.

Why it is not in the wheel: docs/decisions/0006-cell-kernels.md. The folder is `cells` in the one that the environment variable
ARCHSMITH_CACHE names, or in $XDG_CACHE_HOME/archsmith, or in ~/.cache/archsmith; a temporary one where that cannot be
written. A file's name says what it was made from, and its end is a digest of its content: what is damaged, or what
another user could have written, is not loaded but built again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import filelock

from archsmith.core.errors import UsageError
from archsmith.core.private_folder import is_private, private_folder

_WAYS = ("plain", "native", "compiled")
_HERE = Path(__file__).parent
_SOURCES = (
    "layer.cpp",
    *("backward.h", "forward.h", "layer.h", "machine.h", "products.h", "team.h", "vectors.h"),
)
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared", "-w")
_TUNED = ("-march=native",), ("-mcpu=native",), ()  # what a compiler takes first
_COMPILE_SECONDS = 300
_DIGEST = 32


class NoLibrary(Exception):
    """There is no library and none can be built; the message says why, for the user."""


class Library:
    """The loaded library.

    Attributes:
        path: the file.
        width: numbers in one vector.
        bf16: whether it has products in bf16.
        parallel, team_size: addresses of the OpenMP runtime that torch uses, or 0: then it starts threads of its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = opened(path, "archsmith_abilities", "archsmith_forward", "archsmith_backward")
        abilities = self._library.archsmith_abilities()
        self.width, self.bf16 = abilities % 256, abilities >= 256
        self.parallel, self.team_size = openmp()
        self._process = os.getpid()

    def forward(self, call: ctypes.Structure) -> None:
        """Runs a layer forward. Raises MemoryError."""
        self._run(self._library.archsmith_forward, call)

    def backward(self, call: ctypes.Structure) -> None:
        """Runs a layer backward. Raises MemoryError."""
        self._run(self._library.archsmith_backward, call)

    def _run(self, function: ctypes._NamedFuncPointer, call: ctypes.Structure) -> None:
        if os.getpid() != self._process:
            # A fork has none of the runtime's threads, and GNU's would wait for them for ever.
            self.parallel, self.team_size = 0, 0
            call.parallel, call.team_size = 0, 0
        if function(ctypes.byref(call)):
            raise MemoryError("not enough memory for a layer of a recurrent cell; make the batch or the layer smaller")


def load() -> Library:
    """The library, compiled if it must be, which takes some seconds once. Raises NoLibrary."""
    return Library(built("layer", (_HERE / _SOURCES[0]).read_bytes()))


def opened(path: Path, *functions: str) -> ctypes.CDLL:
    """A library that `built` gave, loaded, with these functions in it. Raises NoLibrary where what the compiler made is
    none for this machine: that of a compiler for another processor is not."""
    try:
        library = ctypes.CDLL(str(path))
        for function in functions:
            getattr(library, function)
    except (OSError, AttributeError) as error:
        raise NoLibrary(f"what the C++ compiler made cannot be loaded: {error}") from None
    return library


def asked_way() -> str:
    """What the environment variable ARCHSMITH_KERNELS forces: "plain", "native", "compiled", or "" for nothing.

    Raises UsageError for another value.
    """
    way = os.environ.get("ARCHSMITH_KERNELS", "")
    if way and way not in _WAYS:
        raise UsageError(f"ARCHSMITH_KERNELS must be one of {', '.join(_WAYS)} or not set, got {way!r}")
    return way


def built(name: str, source: bytes, flags: tuple[str, ...] = ()) -> Path:
    """The shared library of a C++ source, which may include this folder's headers: from the cache, or compiled.

    Args:
        name: the beginning of the file's name.
        flags: of the compiler, after those that it is given always.

    Raises NoLibrary.
    """
    flags = _FLAGS + flags
    stem = f"{name}-{_digest(source, _own_source(), _machine().encode(), repr((flags, _TUNED)).encode())}"
    compiler = _compiler()
    made_by = _digest(repr([(part, _stamp(part)) for part in compiler]).encode()) if compiler else "*"
    folder = private_folder("cells")
    if folder is not None:
        found = sorted(folder.glob(f"{stem}-{made_by}.so"))
        for path in found:
            if _sound(path):
                return path
    if not compiler:
        raise NoLibrary("there is no C++ compiler: install g++ or clang++, or name one in the environment variable CXX")
    try:
        if folder is None:
            own = Path(tempfile.mkdtemp(prefix="archsmith-"))
            return _compile(compiler, source, flags, own / f"{stem}-{made_by}.so")
        path = folder / f"{stem}-{made_by}.so"
        with filelock.FileLock(str(path.with_suffix(".lock"))):
            return path if _sound(path) else _compile(compiler, source, flags, path)
    except OSError as error:  # such as a full disk
        raise NoLibrary(f"the compiled library cannot be written: {error}") from None


def _compile(compiler: list[str], source: bytes, flags: tuple[str, ...], path: Path) -> Path:
    """Compiles into a file beside it and renames that, so that nobody ever sees half of one."""
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        error = ""
        for tuned in _TUNED:
            command = [*compiler, *flags, *tuned, "-I", str(_HERE), "-x", "c++", "-", "-o", name, "-lpthread"]
            try:
                result = subprocess.run(
                    command, input=source, capture_output=True, timeout=_COMPILE_SECONDS, cwd=path.parent
                )
            except (OSError, subprocess.TimeoutExpired) as failure:
                raise NoLibrary(f"the C++ compiler {compiler[0]} does not run: {failure}") from None
            if result.returncode == 0:
                break
            error = result.stderr.decode(errors="replace").strip() or f"with status {result.returncode}"
        else:
            raise NoLibrary(f"the C++ compiler {compiler[0]} failed: {error[-300:]}")
        content = partial.read_bytes()
        with partial.open("ab") as end:
            end.write(hashlib.sha256(content).digest())
        partial.chmod(0o700)
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return path


def _sound(path: Path) -> bool:
    """Whether a file is ours alone and as it was written. Half a library would end the process when it is loaded."""
    try:
        if not is_private(path):
            return False
        content = path.read_bytes()
    except OSError:
        return False
    return len(content) > _DIGEST and hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def _compiler() -> list[str]:
    """The command of the C++ compiler; empty if there is none."""
    named: list[str] = []
    with suppress(ValueError):  # a quotation without an end
        named = shlex.split(os.environ.get("CXX", ""))
    if named and shutil.which(named[0]):
        return [str(shutil.which(named[0])), *named[1:]]
    return next(([path] for path in map(shutil.which, _COMPILERS) if path), [])


def _stamp(path: str) -> tuple[str, int, int] | None:
    """What changes when a compiler is replaced; asking it for its version would take longer than loading."""
    with suppress(OSError):
        real = os.path.realpath(path)
        status = os.stat(real)
        return real, status.st_size, status.st_mtime_ns
    return None


@lru_cache(maxsize=1)
def _machine() -> str:
    """The processor, as far as code compiled for it depends on it."""
    parts = [platform.system(), platform.machine(), platform.processor(), str(sys.maxsize)]
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        wanted = ("model name", "flags", "Features", "CPU part")
        parts += sorted({line.strip() for line in lines if line.startswith(wanted)})
    return "\n".join(parts)


@lru_cache(maxsize=1)
def _own_source() -> bytes:
    return b"\0".join((_HERE / name).read_bytes() for name in _SOURCES)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def openmp() -> tuple[int, int]:
    """The addresses of GOMP_parallel and omp_get_num_threads in the runtime that torch has loaded; zeros if none is found."""
    with suppress(AttributeError, OSError, TypeError):
        loaded = ctypes.CDLL(None)
        functions = (loaded.GOMP_parallel, loaded.omp_get_num_threads)
        parallel, team_size = (ctypes.cast(function, ctypes.c_void_p).value for function in functions)
        return parallel or 0, team_size or 0
    return 0, 0
