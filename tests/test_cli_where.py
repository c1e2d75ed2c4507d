"""The command line's options of clusters: where children are trained, and commands that may be run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archsmith.cli.main import main


@pytest.fixture(autouse=True)
def _in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def search(*options: str, status: int = 0) -> None:
    common = ["search", "landscape", "--no-control", "--workers", "1"]
    assert main([*common, *options]) == status


def shown(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["show", name, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_command_that_may_be_run_again_begins_goes_on_and_does_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    for trials in ("6", "6", "9", "9"):
        search("--name", "n", "--resume", "--trials", trials)
        assert shown("n", capsys)["counts"]["done"] == int(trials)
    search("--name", "n", "--resume", "--trials", "9", "--seed", "1", status=2)
    assert "another seed: recorded 0, given 1" in capsys.readouterr().err
    search("--name", "n", "--resume", "--trials", "9", "--searcher", "random", status=2)
    assert "another searcher" in capsys.readouterr().err
    assert shown("n", capsys)["counts"]["done"] == 9


def test_replicas_follow_from_workers_and_children(capsys: pytest.CaptureFixture[str]) -> None:
    controllers = ["--searcher", "reinforce", "--children", "4", "--executor", "simulated"]
    search("--name", "k", "--trials", "24", *controllers, "--workers", "6")
    searcher = shown("k", capsys)["config"]["searcher"]
    assert searcher["type"] == "searchers.Asynchronous"
    assert (searcher["replicas"], searcher["shards"], searcher["learner"]["minibatch"]) == (3, 20, 4)
    search("--name", "three", "--trials", "8", *controllers, "--shards", "2", "--replicas", "5", "--accumulate", "2")
    searcher = shown("three", capsys)["config"]["searcher"]
    assert (searcher["replicas"], searcher["shards"], searcher["accumulate"]) == (5, 2, 2)


def test_simulated_machines_are_as_many_as_the_children_that_replicas_wait_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["search", "landscape", "--no-control", "--name", "k", "--trials", "24", "--executor", "simulated"]
    assert main([*command, "--searcher", "reinforce", "--children", "4", "--replicas", "5"]) == 0
    assert shown("k", capsys)["config"]["workers"] == 20


def test_simulated_machines_fail_as_they_are_told_also_when_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [
        "--executor",
        "simulated",
        "--workers",
        "3",
        "--faults",
        "failures_per_hour=1e12,retries=0,seed=5",
    ]  # within a nanosecond
    search("--name", "f", "--trials", "5", *faults, status=1)  # all of them
    found = shown("f", capsys)
    assert found["counts"]["failed"] > 0
    assert found["config"]["clock"]["faults"]["retries"] == 0
    before = found["counts"]["failed"]
    assert main(["resume", "f", "--trials", "25"]) == 1
    assert shown("f", capsys)["counts"]["failed"] > before
    search("--faults", "failures=1", "--executor", "simulated", status=2)
    assert "did you mean 'failures_per_hour'" in capsys.readouterr().err
    search("--faults", "retries=many", "--executor", "simulated", status=2)
    assert "must be a number" in capsys.readouterr().err


def test_a_rule_is_named_with_its_settings_and_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    search("--name", "s", "--trials", "4", "--stopping", "median:grace=2,trials=3")
    rule = shown("s", capsys)["config"]["stopping"]
    assert (rule["type"], rule["grace"], rule["trials"]) == ("stopping.Median", 2, 3)
    search("--name", "s", "--stopping", "median:grace=x", status=2)
    assert "must be a number" in capsys.readouterr().err


def test_what_only_a_cluster_has_is_refused_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    search("--executor", "pool", "--cpus", "2", status=2)
    assert "--executor ray" in capsys.readouterr().err
