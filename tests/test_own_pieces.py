"""A user's own space, searcher and evaluator with every command that comes after the search, in other processes too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import archsmith as smith
from archsmith._export.from_run import model_of
from archsmith._export.opened import open_model
from archsmith._export.source import run_source
from archsmith._search import recipe_file
from archsmith._search.recipe_file import RecipeFile, find_by_content, find_recipe, run_recipe_file
from archsmith.cli.main import main
from archsmith.core.config import same_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.finish import Measure
from archsmith.core.space import build

NEIGHBOUR = """
import functools
from dataclasses import dataclass

def space(choose, most=8):
    return [choose(f"{i}.size", tuple(range(1, most))) for i in range(3)]

@functools.cache
def table():
    return {n: n / 7 for n in range(1, 8)}
"""
RECIPE = """
import functools
from dataclasses import dataclass

import archsmith as smith
from archsmith.core.budget import Budget
from neighbour import space, table

@functools.cache
def own_table():
    return table()

@dataclass(frozen=True)
class Sizes:
    factor: float = 1.0
    def evaluate(self, space, genotype, context):
        return smith.Result({"value": self.factor * sum(own_table()[n] for n in genotype.answers.values())})

@dataclass(frozen=True)
class Mine:
    def start(self, space, seed):
        return smith.searchers.Random().start(space, seed)

def doubled(result):
    return 2 * result.metrics["value"]

recipe = smith.recipes.Recipe(
    "mine", "sizes", functools.partial(space, most=8), Sizes(2.0), Mine(), Budget(trials=4), reward=doubled,
    control_searcher=Mine(), workers=1,
)
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files in a folder of their own, a list of its own of what was named, and nothing loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(recipe_file, "_loaded", {})
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "mine.py").write_text(RECIPE)
    yield
    sys.modules.pop("neighbour", None)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process."""
    monkeypatch.setattr(recipe_file, "_loaded", {})
    sys.modules.pop("neighbour", None)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- found again -------------------------------------------------------------------------------------------------------


def test_all_pieces_of_a_file_are_found_again_by_later_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["search", "mine.py"]) == 0
    forget(monkeypatch)
    run = smith.open_run("runs.db", "mine")
    assert type(run.evaluator).__name__ == "Sizes"
    assert run.evaluator.factor == 2.0  # type: ignore[attr-defined]
    for command in (
        ["resume", "mine", "--trials", "6"],
        ["report", "mine"],
        ["show", "mine"],
        ["top", "mine"],
        ["best", "mine"],
        ["compare", "mine"],
    ):
        forget(monkeypatch)
        assert main(command) == 0, command
    assert sum(smith.open_run("runs.db", "mine-random").summary.counts.values()) == 6


def test_a_worker_process_needs_neither_the_file_nor_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["search", "../mine.py", "--workers", "2", "--no-control"]) == 0
    assert smith.open_run("runs.db", "mine").summary.counts["done"] == 4


def test_a_moved_file_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "mine.py", "--no-control"]) == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "neighbour.py").rename(tmp_path / "new" / "neighbour.py")
    (tmp_path / "mine.py").rename(tmp_path / "new" / "renamed.py")
    forget(monkeypatch)
    assert main(["resume", "mine", "--trials", "5"]) == 2
    said = capsys.readouterr().err
    assert "mine.py is not there any more" in said
    assert "--recipe FILE.py" in said
    assert main(["resume", "mine", "--trials", "5", "--recipe", "new/renamed.py"]) == 0
    forget(monkeypatch)
    assert main(["resume", "mine", "--trials", "6"]) == 0


@pytest.mark.parametrize("changed", ["mine.py", "neighbour.py"])
def test_a_changed_file_is_not_run_until_it_is_named(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "mine.py", "--no-control"]) == 0
    (tmp_path / changed).write_text((tmp_path / changed).read_text() + "\nopen('was run', 'w').close()\n")
    forget(monkeypatch)
    assert main(["resume", "mine", "--trials", "5"]) == 2
    assert f"{changed} has changed since" in capsys.readouterr().err
    assert not (tmp_path / "was run").exists()
    assert main(["report", "mine"]) == 0  # which shows the answers where there is no space
    assert not (tmp_path / "was run").exists()
    assert main(["resume", "mine", "mine.py", "--trials", "5"]) == 0


def test_a_strangers_store_runs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "mine.py", "--no-control"]) == 0
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path / "another user's"))
    forget(monkeypatch)
    assert main(["resume", "mine", "--trials", "5"]) == 2
    assert "is a program that you have not named" in capsys.readouterr().err


def test_a_file_with_another_space_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "mine.py", "--no-control"]) == 0
    (tmp_path / "other.py").write_text(
        RECIPE.replace("functools.partial(space, most=8)", "functools.partial(space, most=5)")
    )
    assert main(["resume", "mine", "other.py", "--trials", "5"]) == 2
    assert "that of the recipe is another one" in capsys.readouterr().err


def test_what_a_record_says_of_a_file_may_be_anything() -> None:
    for value in (
        None,
        3,
        {},
        {"path": 1, "recipe": "r", "files": {"a": "b"}},
        {"path": "a", "recipe": "r", "files": {}},
    ):
        assert RecipeFile.from_json(value) is None
    for path in ("/nowhere.py", "x" * 5000, "relative.py"):
        with pytest.raises(UsageError, match="is not there"):
            find_recipe(RecipeFile(path, "recipe", {"a.py": "0"}))


def test_several_recipes_in_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        RECIPE.replace("recipe = ", "first = ")
        + "\nimport dataclasses\nsecond = dataclasses.replace(first, name='no. 2')\n"
    )
    with pytest.raises(UsageError, match=r"two\.py:first, two\.py:second"):
        run_recipe_file("two.py")
    assert run_recipe_file("two.py:second")[0].name == run_recipe_file("two.py:no. 2")[0].name == "no. 2"
    with pytest.raises(UnknownName, match="did you mean 'first'"):
        run_recipe_file("two.py:frist")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import not_there", "mine.py, line 1: ModuleNotFoundError"),
        ("recipe = 1 / 0", "mine.py, line 1: ZeroDivisionError"),
        ("def f(:", "mine.py, line 1: SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("recipe = 3", "got 3"),
        ("", "must hold a value named `recipe`"),
    ],
)
def test_a_file_that_fails_says_where(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert main(["search", "mine.py"]) == 2
    assert words in capsys.readouterr().err


# --- one function under two names --------------------------------------------------------------------------------------


def test_a_function_of_a_script_is_the_same_when_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "exp.py").write_text(
        "import archsmith as s\n"
        "def space(c): return c('a', (1, 2, 3))\n"
        "def score(a): return float(a)\n"
        "def reward(r): return r.metrics['value']\n"
        "if __name__ == '__main__': s.search(space, score, reward=reward, trials=2, store='runs.db', name='r')\n"
    )
    again = (
        "import archsmith as s; from package import exp\n"
        "r = s.open_run('runs.db', 'r', space=exp.space, evaluator=exp.score)\n"
        "print(r.resume(trials=4, reward=exp.reward))"
    )
    subprocess.run([sys.executable, "-m", "package.exp"], check=True, timeout=120)
    assert "4 trials" in python(again)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"type": "__main__:f"}, {"type": "exp:f"}, True),  # a notebook, then a module made of it
        ({"type": "exp:f"}, {"type": "package.exp:f"}, True),
        ({"type": "exp:f"}, {"type": "other:f"}, False),
        ({"type": "__main__:f"}, {"type": "__main__:g"}, False),
        ({"type": "spaces.ConvChain"}, {"type": "spaces.QNet"}, False),
        ({"type": "exp:f", "most": 1}, {"type": "exp:f", "most": True}, False),
        ({"type": "core.F", "function": {"type": "a.b:f"}}, {"type": "core.F", "function": {"type": "b:f"}}, True),
        ([{"type": "exp:f"}], [{"type": "__main__:f"}], True),
        ([1], [1, 2], False),
    ],
)
def test_configurations_are_of_the_same_thing(one: object, other: object, same: bool) -> None:
    assert same_config(one, other) is same


# --- opened in Python --------------------------------------------------------------------------------------------------


def chain(choose: smith.core.walk.Choose) -> dict[str, int]:  # type: ignore[name-defined]
    return {"width": choose("width", (4, 8))}


def score(architecture: dict[str, int]) -> float:
    return float(architecture["width"])


def test_open_run_takes_what_is_the_users_own() -> None:
    smith.search(chain, score, trials=3, store="runs.db", name="r")
    bare = smith.open_run("runs.db", "r")
    with pytest.raises(UsageError, match=r"open_run\(\.\.\., space="):
        _ = bare.space
    with pytest.raises(UsageError, match=r"open_run\(\.\.\., evaluator="):
        _ = bare.evaluator
    run = smith.open_run("runs.db", "r", space=chain, evaluator=score)
    assert run.resume(trials=5).summary.counts["done"] == 5
    with pytest.raises(UsageError, match="another space"):
        smith.open_run("runs.db", "r", space=lambda choose: choose("a", (1, 2)))
    with pytest.raises(UsageError, match="another evaluator"):
        smith.open_run("runs.db", "r", evaluator=len)
    with pytest.raises(UsageError, match="give space="):
        smith.open_run("runs.db", "r", build=score)


# --- finished, whatever its task ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Trains networks of four numbers for two classes: an evaluator of the user's own, which says no more than it must."""

    epochs: int = 2
    learning_rate: float = 0.1
    default_reward = staticmethod(smith.rewards.accuracy)

    def task(self) -> Any:
        return smith.Task((4,), 2)

    def evaluate(self, space: Any, genotype: smith.Genotype, context: Any) -> smith.Result:
        torch.manual_seed(context.seed)
        return self.train(build(space, genotype, self.task()), context)

    def train(self, child: Any, context: Any) -> smith.Result:
        x, y = self.rows(0)
        optimizer = torch.optim.SGD(child.model.parameters(), self.learning_rate)
        for epoch in range(1, self.epochs + 1):
            for _ in range(10):
                optimizer.zero_grad()
                nn.functional.cross_entropy(child.model(x), y).backward()
                optimizer.step()
            context.report(epoch, self.test(child.model))
        return smith.Result(self.test(child.model), cost=smith.core.trial.Cost(0.1, self.epochs))  # type: ignore[attr-defined]

    def test(self, model: nn.Module, device: str = "cpu") -> dict[str, float]:
        x, y = self.rows(1)
        with torch.inference_mode():
            return {"accuracy": (model(x).argmax(1) == y).float().mean().item()}

    def rows(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(100, 4, generator=torch.Generator().manual_seed(seed))
        return x, (x[:, 0] * x[:, 1] > 0).long()


class Regression(Rows):
    """The same, told by another number."""

    measure = Measure("error", "error", higher_is_better=False, items="rows")

    def test(self, model: nn.Module, device: str = "cpu") -> dict[str, float]:
        tested = super().test(model)
        return {**tested, "error": 1 - tested["accuracy"]}

    def baseline(self, parameters: int, task: Any) -> nn.Module:
        return nn.Linear(4, 2)


def dense(architecture: dict[str, int], task: Any) -> nn.Module:
    width = architecture["width"]
    return nn.Sequential(nn.Linear(task.input_shape[0], width), nn.ReLU(), nn.Linear(width, task.num_classes))


def test_an_evaluator_of_ones_own_is_finished_without_a_baseline(tmp_path: Path) -> None:
    smith.search(chain, Rows(), build=dense, trials=3, store="runs.db", name="r")
    run = smith.open_run("runs.db", "r", space=chain, build=dense, evaluator=Rows())
    finished = smith.finish(run, top=1, seeds=2, epochs=3)
    assert [n.name for n in finished.networks] == ["found"]
    assert "Rows has no baseline(parameters, task), so no hand-designed network" in finished.claim
    assert finished.measure.items == "examples"
    assert finished.test_count == 0
    page = run.report("page.html").read_text()
    assert "Trained for 3 epochs, what was found" in page
    assert "no hand-designed network was trained" in page
    assert sum(p.numel() for p in run.build().parameters()) > 0


def test_a_measure_and_a_baseline_of_ones_own_are_used() -> None:
    smith.search(chain, Regression(), build=dense, trials=3, store="runs.db", name="r")
    finished = smith.finish(
        smith.open_run("runs.db", "r", space=chain, build=dense, evaluator=Regression()), top=1, seeds=2
    )
    assert [n.name for n in finished.networks] == ["found", "hand-designed network"]
    assert finished.comparisons[0].margin is None
    assert "test error" in str(finished)


def test_what_cannot_be_finished_says_what_it_lacks() -> None:
    run = smith.search(chain, score, trials=2, store="runs.db", name="r")
    with pytest.raises(UsageError, match=r"score has no method task"):
        smith.finish(run)


def test_a_finish_chooses_by_the_reward_of_the_search() -> None:
    run = smith.search(
        chain, Rows(), build=dense, reward=lambda r: 1 - r.metrics["accuracy"], trials=2, store="runs.db", name="r"
    )
    assert "own reward" not in smith.finish(run, top=1, seeds=1).claim
    again = smith.open_run("runs.db", "r", space=chain, build=dense, evaluator=Rows())
    assert "used the evaluator's own reward" in smith.finish(again, top=1, seeds=1, again=True).claim


# --- exported ----------------------------------------------------------------------------------------------------------


def test_a_network_of_ones_own_space_and_task_is_exported_in_every_format(tmp_path: Path) -> None:
    run = smith.search(chain, Rows(), build=dense, trials=2, store="runs.db", name="r")
    smith.finish(run, top=1, seeds=1)
    run = smith.open_run("runs.db", "r", space=chain, build=dense, evaluator=Rows())
    rows = torch.randn(5, 4)
    expected = model_of(run).deployed()(rows)
    folder = smith.export(run, "as-pytorch")
    loaded = smith.load(folder, space=chain, build=dense)
    assert torch.equal(loaded.deployed()(rows), expected)
    assert smith.export(loaded, "again").is_dir()
    with pytest.raises(UsageError, match=r"none of archsmith.spaces; .*--recipe FILE.py"):
        smith.load(folder)
    with pytest.raises(UsageError, match="another space"):
        smith.load(folder, space=lambda choose: choose("a", (1, 2)))
    for trained in (run, loaded):  # its networks read rows, and not images
        with pytest.raises(UsageError, match=r"arrays of shape \[4\], and the new data are images"):
            smith.transfer(trained, data="digits")
    source = run_source(smith.export(run, format="source", path="as-source")).load()
    assert torch.equal(source(rows), expected)
    opened = open_model(smith.export(run, format="onnx", path="as-onnx"))
    assert torch.allclose(opened.network(rows), expected, atol=1e-5)
    with pytest.raises(UsageError, match="arrays of shape"):
        smith.predict(folder, ["rows.npy"], space=chain, build=dense)
    assert "inputs of shape [4]" in (folder / "README.md").read_text()


def test_a_network_that_cannot_read_images_is_not_transferred_to_them() -> None:
    run = smith.search(chain, Rows(), build=dense, trials=3, store="runs.db", name="r")
    with pytest.raises(
        UsageError, match=r"images of 1 x 8 x 8 with 10 classes, and that of the space chain cannot: Run"
    ):
        smith.transfer(run, data="digits")


def test_a_model_finds_the_users_file_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "neighbour.py").write_text("def space(choose): return choose('a', (1, 2))")
    (tmp_path / "mine.py").write_text(
        "import archsmith as smith\nfrom neighbour import space\n"
        "recipe = smith.recipes.Recipe('a', 'a', space, smith.training.Landscape(), smith.searchers.Random(), smith.core.budget.Budget(1))"
    )
    _, file = run_recipe_file("mine.py")
    told = {"recipe": file.recipe, "files": dict(file.files)}
    forget(monkeypatch)
    found = find_by_content(told)
    assert found is not None
    assert found.name == "a"
    (tmp_path / "neighbour.py").write_text("def space(choose): return choose('b', (1, 2))")
    forget(monkeypatch)
    for wrong in (told, None, {}, {"recipe": 1, "files": {}}):
        assert find_by_content(wrong) is None
