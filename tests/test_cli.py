"""The command line as a person and a program meet it: in processes of its own, on real files."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPE = """
from archsmith.core.budget import Budget
from archsmith.core.finish import FinishPlan
from archsmith.recipes import Recipe
from archsmith.searchers import Reinforce
from archsmith.training import Landscape

def chain(choose):
    return [choose(f"{i}.size", (1, 3, 5, 7)) for i in range(6)]

class Space:
    def architecture(self, choose):
        return chain(choose)
    def build(self, architecture, task):
        raise NotImplementedError

recipe = Recipe(name="mine", summary="a landscape", space=Space(), evaluator=Landscape(), searcher=Reinforce(),
                budget=Budget(trials=12), workers=1, finish=FinishPlan(epochs=7))
"""


def archsmith(*arguments: str, folder: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archsmith", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


def test_help_names_every_command() -> None:
    done = archsmith("--help", folder=Path.cwd())
    assert done.returncode == 0
    commands = "auto search resume recipes doctor list show top best report compare finish export predict describe draw"
    for command in commands.split(" "):
        assert command in done.stdout


def test_the_flags_of_search_are_these(tmp_path: Path) -> None:
    done = archsmith("search", "--help", folder=tmp_path)
    flags = {word.strip("│ ,") for word in done.stdout.split() if word.startswith("--")}
    assert flags == {
        "--data", "--trials", "--seconds", "--epochs", "--workers", "--executor", "--store", "--name", "--seed",
        "--control", "--no-control", "--estimate", "--json", "--help", "--address", "--cpus", "--gpus", "--shards",
        "--replicas", "--children", "--accumulate", "--stopping", "--artifacts", "--resume", "--faults",
        "--searcher", "--objectives", "--first", "--labels", "--label-pattern", "--size", "--folds",
    }  # fmt: skip


def test_a_file_of_ones_own_is_searched_listed_shown_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RECIPE)
    done = archsmith("search", "mine.py", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run, control = json.loads(done.stdout)
    assert (run["name"], control["name"]) == ("mine", "mine-random")
    assert run["counts"]["done"] == control["counts"]["done"] == 12

    listed = json.loads(archsmith("list", "--json", folder=tmp_path).stdout)
    assert {r["name"] for r in listed} == {"mine", "mine-random"}
    assert "trial" in archsmith("show", "mine", folder=tmp_path).stdout
    shown = json.loads(archsmith("show", "mine", "--json", folder=tmp_path).stdout)
    assert shown["config"]["note"]["recipe"] == "mine"
    assert shown["config"]["note"]["finish"]["epochs"] == 7
    top = json.loads(archsmith("top", "mine", "-k", "3", "--json", folder=tmp_path).stdout)
    assert [t["reward"] for t in top] == sorted((t["reward"] for t in top), reverse=True)
    best = json.loads(archsmith("best", "mine", folder=tmp_path).stdout)
    assert best == top[0]["genotype"]

    (tmp_path / "mine.py").rename(tmp_path / "moved.py")
    refused = archsmith("resume", "mine", "--trials", "15", folder=tmp_path)
    assert refused.returncode == 2
    assert "--recipe FILE.py" in refused.stderr
    resumed = archsmith("resume", "mine", "moved.py", "--trials", "15", "--json", folder=tmp_path)
    assert json.loads(resumed.stdout)["counts"]["done"] == 15, resumed.stderr
    beside = json.loads(archsmith("show", "mine-random", "--json", folder=tmp_path).stdout)
    assert beside["counts"]["done"] == 15  # random search keeps the same budget


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "digit"], "did you mean 'digits'"),
        (["search", "none.py"], "no file"),
        (["search", "landscape", "--trials", "0"], "above zero"),
        (["search", "landscape", "--trials", "-1"], "above zero"),
        (["search", "landscape", "--seconds", "inf"], "finite"),
        (["search", "landscape", "--executor", "slurm"], "in-process"),
        (["search", "landscape", "--executor", "in-process", "--workers", "2"], "pool"),
        (["search", "landscape", "--workers", "0"], "at least 1"),
        (["search", "landscape", "--gpus", "1"], "--executor ray"),
        (["search", "landscape", "--executor", "pool", "--address", "here:1"], "--executor ray"),
        (["search", "landscape", "--resume"], "--name"),
        (["search", "landscape", "--stopping", "ash"], "did you mean 'asha'"),
        (["search", "amoebanet-desk", "--replicas", "3"], "--searcher reinforce"),
        (["search", "landscape", "--searcher", "reinforced"], "did you mean 'reinforce'"),
        (["auto", "digits", "--seconds", "-3"], "got -3"),
        (["auto", "digits", "--time", "soon"], "--time must be a duration"),
        (["auto", "digits", "--time", "5s"], "at least 15 seconds, got 5"),
        (["auto", "digits", "--time", "5m", "--seconds", "3"], "either --time or --seconds"),
        (["auto", "digits", "--time", "10m", "--baseline-time", "599s"], "give a shorter baseline time"),
        (
            ["auto", "digits", "--trials", "3", "--baseline-time", "1m"],
            "--baseline-time is for pictures with a time budget",
        ),
        (["search", "landscape", "--data", "x"], "no data set"),
        (["search", "landscape", "--size", "64"], "for images"),
        (["search", "text", "--size", "64"], "for images"),
        (["search", "images", "--size", "0"], "from 4 to 1024 pixels a side, got 0"),
        (["auto", "digits", "--size", "-32"], "got -32"),
        (["auto", "digits", "--size", "40000"], "got 40000"),
        (["auto", "digits", "--size", "64.5"], "Invalid value for '--size'"),
        (["show", "nothing"], "does not exist"),
        (["describe", "nas_conv_v2"], "nas_conv_v1"),
        (["describe", "{}"], "genotype"),
        (["auto", "no-such-folder"], "no-such-folder"),
        (["auto", "python-doc"], "did you mean 'python-docs'"),
        (["auto", "mine.py"], "at least 20"),
        (["auto", "short.txt"], "do not fill one step"),
        (["compare", "nothing"], "does not exist"),
        (["search", "landscape", "--estimate"], "has no task"),
        (["serach"], "serach"),
        (["search"], "RECIPE"),
    ],
)
def test_wrong_use_is_one_clear_sentence_and_status_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("four words of text\n")
    (tmp_path / "short.txt").write_text("four words of text\n" * 100)
    done = archsmith(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_in_process_is_one_worker_unless_told_otherwise(tmp_path: Path) -> None:
    arguments = ["search", "landscape", "--executor", "in-process", "--trials", "3", "--no-control"]
    assert archsmith(*arguments, folder=tmp_path).returncode == 0
    resumed = archsmith("resume", "landscape", "--executor", "in-process", "--trials", "5", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


def test_a_search_in_which_every_child_failed_says_why(tmp_path: Path) -> None:
    broken = RECIPE.replace("evaluator=Landscape()", "evaluator=as_evaluator(lambda architecture: 1 / 0)")
    (tmp_path / "mine.py").write_text("from archsmith.core.evaluator import as_evaluator" + broken)
    done = archsmith("search", "mine.py", "--no-control", folder=tmp_path)
    assert done.returncode == 1
    assert "error: all of the first 10 trials of run 'mine' failed" in done.stderr
    assert "10 x error: ZeroDivisionError: division by zero" in done.stderr
    (step,) = re.findall("go on with: archsmith (.*)", done.stderr)
    best = archsmith("best", "mine", folder=tmp_path)
    assert best.returncode == 2
    assert "trial 0 failed (error): ZeroDivisionError" in best.stderr
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().replace("1 / 0", "architecture[0] / 7"))
    resumed = archsmith(*shlex.split(step), folder=tmp_path)
    assert "; best reward" in resumed.stdout, resumed.stderr


def test_a_recipe_without_a_reward_gets_one_and_goes_on_without_training_again(tmp_path: Path) -> None:
    trains = 'lambda architecture: open("trained", "a").write("x") and {"accuracy": architecture[0] / 7}'
    text = "from archsmith.core.evaluator import as_evaluator" + RECIPE
    (tmp_path / "mine.py").write_text(text.replace("Landscape()", f"as_evaluator({trains})"))
    done = archsmith("search", "mine.py", "--no-control", folder=tmp_path)
    assert done.returncode == 1
    assert "the reward needs the metric 'value', and they have: accuracy" in done.stderr
    (step,) = re.findall("go on with: archsmith (.*)", done.stderr)
    text = (tmp_path / "mine.py").read_text().replace("finish=", "reward=rewards.accuracy, finish=")
    (tmp_path / "mine.py").write_text("from archsmith import rewards\n" + text)
    resumed = archsmith(*shlex.split(step), folder=tmp_path)
    assert "mine: 12 trials (0 failed)" in resumed.stdout, resumed.stderr
    assert len((tmp_path / "trained").read_text()) == 12


def test_ctrl_c_ends_cleanly_and_says_how_to_resume(tmp_path: Path) -> None:
    elsewhere = ("--store", "my runs.db")
    command = [sys.executable, "-m", "archsmith", "search", "landscape", "--trials", "1000000", "--workers", "1"]
    process = subprocess.Popen(
        [*command, *elsewhere], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for _ in range(300):
        time.sleep(0.1)
        listed = archsmith("list", "--json", *elsewhere, folder=tmp_path).stdout
        if listed and (runs := json.loads(listed)) and runs[0]["counts"].get("done", 0) > 20:
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "archsmith resume landscape --store 'my runs.db'\n" in stderr  # as it can be typed
    assert "Traceback" not in stderr
    shown = json.loads(archsmith("show", "landscape", "--json", *elsewhere, folder=tmp_path).stdout)
    assert shown["status"] == "interrupted"
    told = archsmith("show", "landscape", *elsewhere, folder=tmp_path).stdout.splitlines()
    assert told[-1] == "next: archsmith resume landscape --store 'my runs.db'"
    done = shown["counts"]["done"]
    resumed = archsmith("resume", "landscape", "--trials", str(done + 10), "--json", *elsewhere, folder=tmp_path)
    assert json.loads(resumed.stdout)["counts"]["done"] == done + 10, resumed.stderr
    assert {r["name"] for r in json.loads(archsmith("list", "--json", *elsewhere, folder=tmp_path).stdout)} == {
        "landscape",
        "landscape-random",  # which the interruption had kept from beginning
    }


def test_auto_does_the_whole_job_on_a_file_of_images_and_goes_on_by_name(tmp_path: Path) -> None:
    import numpy as np

    rng, labels = np.random.default_rng(0), np.repeat(np.arange(3), 30)
    images = rng.integers(0, 90, (90, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 150
    np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels)
    began = subprocess.Popen(
        [sys.executable, "-m", "archsmith", "auto", "tiny.npz", "--trials", "6", "--name", "t", "--workers", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert began.stderr is not None
    for line in began.stderr:
        if " of 6 trials" in line:
            began.kill()  # in the middle of the search: some seconds of trials are left
            break
    began.wait()
    done = archsmith("auto", "tiny.npz", "--trials", "6", "--name", "t", "--workers", "1", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stderr
    found = json.loads(done.stdout)
    alone = archsmith("finish", "t", "--json", folder=tmp_path)
    assert json.loads(alone.stdout) == found["finish"], alone.stderr
    by_time = archsmith("auto", "tiny.npz", "--seconds", "60", "--name", "t", folder=tmp_path)
    assert by_time.returncode == 2
    assert "run 't' was not begun by `auto` with a time" in by_time.stderr
    again = archsmith("auto", "tiny.npz", "--trials", "6", "--name", "t", "--json", folder=tmp_path)
    assert json.loads(again.stdout)["finish"] == found["finish"], again.stderr
    assert found["run"]["counts"]["done"] == found["control"]["counts"]["done"] == 6
    assert {n["name"] for n in found["finish"]["networks"]} == {"found", "baseline", "random search"}
    assert found["finish"]["looks"] == 1
    assert (tmp_path / found["report"]).stat().st_size > 10_000
    assert (tmp_path / found["source"] / "model.py").exists()
    shown = json.loads(archsmith("show", "t", "--json", folder=tmp_path).stdout)
    assert shown["status"] == "finished"
    told = archsmith("show", "t", folder=tmp_path).stdout
    assert "8 x 8 pixels, grey" in told
    assert "tested     found" in told

    np.savez(tmp_path / "other.npz", x_train=255 - images, y_train=labels)
    refused = archsmith("auto", "other.npz", "--trials", "40", "--name", "t", folder=tmp_path)
    assert refused.returncode == 2
    assert "the data of run 't' has changed" in refused.stderr


def test_files_left_out_are_a_warning_without_the_line_of_code_that_gave_it(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for k in range(24):
        folder = tmp_path / "pictures" / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * k, np.uint8)).save(folder / f"{k}.png")
    (tmp_path / "pictures" / "a" / "broken.jpg").write_text("no picture")
    done = archsmith(
        "search", "images", "--data", "pictures", "--trials", "1", "--workers", "1", "--no-control", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "warning: 1 of 25 files" in done.stderr
    assert "a/broken.jpg" in done.stderr
    assert "UserWarning" not in done.stderr
    assert "8 x 8 pixels" in done.stderr


def test_data_that_moved_is_named_to_finish_and_export(tmp_path: Path) -> None:
    import numpy as np

    rng, labels = np.random.default_rng(0), np.repeat(np.arange(2), 30)
    np.savez(tmp_path / "here.npz", x_train=rng.integers(0, 255, (60, 8, 8)).astype(np.uint8), y_train=labels)
    searched = archsmith(
        "search", "images", "--data", "here.npz", "--trials", "1", "--no-control", "--name", "m", "--workers", "1",
        folder=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    twice = archsmith("search", "images", "--data", "here.npz", "--name", "m", folder=tmp_path)
    assert "go on with it by archsmith resume m" in twice.stderr
    (tmp_path / "here.npz").rename(tmp_path / "there.npz")
    lost = archsmith("finish", "m", "--workers", "1", folder=tmp_path)
    assert lost.returncode == 2
    assert "Traceback" not in lost.stderr
    done = archsmith("finish", "m", "--data", "there.npz", "--workers", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    written = archsmith("export", "m", "--data", "there.npz", "--format", "source", folder=tmp_path)
    assert written.returncode == 0, written.stderr
    weights = tmp_path / written.stdout.strip() / "model.safetensors"
    assert weights.stat().st_mode & 0o044 == 0o044  # a server under another user reads it
