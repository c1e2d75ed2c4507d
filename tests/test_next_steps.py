"""Every command that archsmith prints as a next step works when it is typed as printed, in the same folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import archsmith as smith
from archsmith import recipes
from archsmith._search import recipe_file
from archsmith.cli import where
from archsmith.cli.main import main
from archsmith.core.budget import Budget
from archsmith.core.finish import FinishPlan

FILE = """
from dataclasses import dataclass

import torch
from torch import nn

import archsmith as smith
from archsmith.core.budget import Budget
from archsmith.core.space import FunctionSpace
from widths import net, widths

@dataclass(frozen=True)
class Images(smith.training.ImageClassification):
    pass

recipe = smith.recipes.Recipe(
    "mine", "small", FunctionSpace(widths, net), Images.desk("digits", epochs=1, max_train=100), smith.searchers.Reinforce(),
    Budget(trials=2), workers=1, finish=smith.FinishPlan(top=1, seeds=1, epochs=1),
)
"""
NEIGHBOUR = """
from torch import nn

def widths(choose):
    return {"width": choose("width", (4, 8))}

def net(architecture, task):
    return nn.Sequential(
        nn.Conv2d(task.input_shape[0], architecture["width"], 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(architecture["width"], task.num_classes),
    )
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(where, "cores", lambda: 1)  # in this process: a pool takes seconds to start
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "widths.py").write_text(NEIGHBOUR)
    yield
    sys.modules.pop("widths", None)


def commands_in(text: str) -> list[str]:
    """The commands that a text of the command line or of a page offers."""
    lines = [part for line in re.findall(r"next: (.*)", text) for part in line.split("   or: ")]
    lines += re.findall(r"[Gg]o on with(?: it by|:) (archsmith .*?)(?:, or by this command.*)?$", text, re.MULTILINE)
    pages = [unescape(block) for block in re.findall(r"<pre>(archsmith .*?)</pre>", text, re.DOTALL)]
    lines += [line for block in pages for line in block.splitlines()]
    lines += [unescape(code) for code in re.findall(r"<code>(archsmith describe .*?)</code>", text)]
    return [line.partition("    # ")[0].strip() for line in lines]


def follow(first: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Type a command, then every next step that it and those name, each once; gives what was typed."""
    pending, typed = [shlex.join(["archsmith", *first])], []
    while pending:
        command = pending.pop(0)
        if command in typed:
            continue
        typed.append(command)
        monkeypatch.setattr(recipe_file, "_loaded", {})  # as in another process
        sys.modules.pop("widths", None)
        assert main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)
        out, err = capsys.readouterr()
        pages = [Path(line) for line in out.splitlines() if line.endswith(".html") and Path(line).is_file()]
        said = "\n".join([out, err, *(page.read_text() for page in pages)])
        found = commands_in(said)
        if " resume " in command:  # whose page and next steps are those of the run before, once more
            found = [other for other in found if " resume " not in other]
        pending += found
    return typed


def verbs(typed: list[str]) -> set[str]:
    return {shlex.split(command)[1] for command in typed}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ["--name", 'it\'s "mine" & yours', "--store", "the 'runs' of mine.db"], id="names that need quoting"
        ),
        pytest.param(["--name", "-x", "--store", "sqlite:///-y.db"], id="names like options"),
    ],
)
def test_after_a_search_by_a_file_of_ones_own(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = follow(["search", "mine.py", *options], capsys, monkeypatch)
    assert verbs(typed) == {"search", "report", "compare", "finish", "export", "describe", "resume"}


def test_after_a_search_by_a_recipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    small = recipes.RECIPES["digits"]

    def digits() -> recipes.Recipe:
        whole = small()
        evaluator = replace(whole.evaluator, epochs=1, max_train=100)
        return replace(whole, evaluator=evaluator, budget=Budget(trials=2), finish=FinishPlan(top=1, seeds=1, epochs=1))

    monkeypatch.setitem(recipes.RECIPES, "digits", digits)
    assert main(["list"]) == 0
    first = re.findall(r"begin with: archsmith (.*)", capsys.readouterr().out)
    typed = follow([*shlex.split(first[0]), "--workers", "1"], capsys, monkeypatch)
    assert verbs(typed) == {"search", "report", "compare", "finish", "export", "describe", "resume"}
    assert follow(["show", "digits"], capsys, monkeypatch) == ["archsmith show digits"]


def test_what_cannot_be_finished_is_not_told_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = follow(["search", "landscape", "--trials", "9", "--store", "other.db"], capsys, monkeypatch)
    assert verbs(typed) == {"search", "report", "compare", "describe", "resume"}
    assert verbs(follow(["show", "landscape", "--store", "other.db"], capsys, monkeypatch)) == {"show"}


def test_a_run_in_memory_alone_has_no_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "landscape", "--trials", "3", "--store", "memory://", "--no-control"]) == 0
    said = capsys.readouterr().err
    assert "next:" not in said
    assert "--store FILE.db" in said


def test_after_an_interruption(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(trial: Any, *_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smith.search(smith.spaces.ConvChain(layers=2), smith.training.Landscape(), trials=4, name="a b", watch=stop)
    typed = follow(["show", "a b"], capsys, monkeypatch)
    assert "archsmith resume 'a b'" in typed
    assert main(["search", "landscape", "--name", "a b"]) != 0
    (again,) = commands_in(capsys.readouterr().err)
    assert main(shlex.split(again)[1:]) == 0
