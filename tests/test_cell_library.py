"""Compilers that are none: recurrent cells run all the same, by the plain loop, and say why."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from archsmith.nn.cell_kernels import library

SOURCE = b'extern "C" int answer() { return 42; }'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path))
    return tmp_path / "cells"


def a_compiler(path: Path, script: str) -> str:
    """A command that takes a compiler's arguments; the file to write is its -o."""
    path.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n{script}\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat > /dev/null", "cannot be loaded: .*too short"),
        ('cat > /dev/null; printf "\\177ELF of another processor" > "$2"', "cannot be loaded"),
        ("exit 3", "failed: with status 3"),
    ],
)
def test_what_a_compiler_makes_is_not_taken_on_trust(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", a_compiler(tmp_path / "cxx", script))
    with pytest.raises(library.NoLibrary, match=said):
        library.load()


@pytest.mark.compiler
def test_a_library_without_the_functions_is_refused() -> None:
    with pytest.raises(library.NoLibrary, match=r"cannot be loaded: .*archsmith_abilities"):
        library.Library(library.built("tiny", SOURCE))


@pytest.mark.compiler
def test_a_named_compiler_that_cannot_be_read_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "'g++ without an end")
    assert library.opened(library.built("tiny", SOURCE), "answer").answer() == 42


@pytest.mark.compiler
def test_a_full_disk_leaves_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> subprocess.CompletedProcess[bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library.tempfile, "mkstemp", full)
    with pytest.raises(library.NoLibrary, match=r"cannot be written: .*No space left"):
        library.built("tiny", SOURCE)
