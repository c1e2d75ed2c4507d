"""The loop: budgets, failures, resume after a kill at any moment, and what the front door refuses."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import archsmith as smith
from archsmith.core.errors import (
    AllTrialsFailed,
    NoReward,
    ReplayMismatch,
    RunExists,
    RunLocked,
    StoreError,
    UnknownName,
    UsageError,
)
from archsmith.core.trial import TrialState
from archsmith.searchers import Random, Reinforce
from archsmith.store import open_store
from archsmith.training import Landscape
from dying_store import dying_store


def chain(choose: Any) -> list[dict[str, Any]]:
    return [
        {"filters": choose(f"{i}.filters", (8, 16, 32)), "inputs": choose.subset(f"{i}.inputs", range(i))}
        for i in range(4)
    ]


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'runs.db'}"


def log_of(run: smith.Run) -> list[tuple[int, str, str, float | None]]:
    return [(t.number, t.genotype.canonical, str(t.state), t.reward) for t in run.trials()]


def test_a_search_finds_the_best_of_what_it_tried(tmp_path: Path) -> None:
    run = smith.search(chain, Landscape(), trials=30, store=sqlite(tmp_path), name="one")
    rewards = [t.reward for t in run.trials()]
    assert len(rewards) == 30
    assert run.best is not None
    assert run.best.reward == max(rewards)
    assert [t.reward for t in run.top(3)] == sorted(rewards, reverse=True)[:3]
    assert run.summary.status == "finished"
    assert run.summary.epochs == 30


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    logs = [log_of(smith.search(chain, Landscape(), trials=12, store="memory://", seed=seed)) for seed in (7, 7, 8)]
    assert logs[0] == logs[1] != logs[2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", None])
def test_an_evaluator_that_gives_nonsense_makes_failed_trials(value: Any) -> None:
    store = open_store("memory://")
    with pytest.raises(AllTrialsFailed):
        smith.search(chain, lambda architecture: value, trials=3, store=store, name="r")
    run = smith.open_run(store, "r")
    assert [t.state for t in run.trials()] == [TrialState.FAILED] * 3
    assert all(t.result.failure.message for t in run.trials())
    assert run.best is None


def test_a_child_that_raises_is_a_failed_trial_with_its_traceback_and_the_search_goes_on() -> None:
    def moody(architecture: list[dict[str, Any]]) -> float:
        if architecture[0]["filters"] == 8:
            raise ValueError("no eights here")
        return float(architecture[1]["filters"])

    run = smith.search(chain, moody, trials=40, store="memory://", searcher=Reinforce())
    failed = [t for t in run.trials() if t.state is TrialState.FAILED]
    assert 0 < len(failed) < 40
    assert "no eights here" in failed[0].result.failure.message
    assert "moody" in failed[0].result.failure.traceback
    assert run.best.reward == 32


def test_a_dict_of_metrics_needs_a_reward_and_takes_one() -> None:
    def metrics(architecture: Any) -> dict[str, float]:
        return {"accuracy": 0.5, "latency": 2.0}

    with pytest.raises(NoReward, match="reward="):
        smith.search(chain, metrics, trials=1, store="memory://")
    run = smith.search(
        chain, metrics, reward=lambda r: r.metrics["accuracy"] / r.metrics["latency"], trials=2, store="memory://"
    )
    assert run.best.reward == 0.25


def test_budgets_in_epochs_and_seconds_end_a_run() -> None:
    by_epochs = smith.search(chain, Landscape(), trials=None, epochs=9, store="memory://")
    assert by_epochs.summary.epochs == 9
    by_seconds = smith.search(chain, Landscape(), trials=None, seconds=0.2, store="memory://")
    assert by_seconds.summary.seconds >= 0.2
    assert by_seconds.summary.status == "finished"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"trials": 0}, "above zero"),
        ({"trials": -3}, "above zero"),
        ({"trials": 2.5}, "whole number"),
        ({"trials": None}, "needs a budget"),
        ({"seconds": 0}, "above zero"),
        ({"workers": 0}, "at least 1"),
        ({"seed": "x"}, "whole number"),
        ({"searcher": Reinforce}, "searchers"),
        ({"executor": "pool"}, "executor must be one of archsmith.executors, such as .*got .pool."),
        ({"store": "mysql://x"}, "sqlite"),
    ],
)
def test_the_front_door_says_what_is_wrong(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        smith.search(chain, Landscape(), **{"store": "memory://", **arguments})


def test_a_space_that_asks_a_name_twice_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        smith.search(lambda choose: [choose("a", (1, 2)), choose("a", (1, 2))], Landscape(), store=sqlite(tmp_path))
    assert not (tmp_path / "runs.db").exists()


def test_a_name_is_taken_once_and_an_unknown_one_names_the_nearest(tmp_path: Path) -> None:
    smith.search(chain, Landscape(), trials=1, store=sqlite(tmp_path), name="mine")
    with pytest.raises(RunExists, match="mine"):
        smith.search(chain, Landscape(), trials=1, store=sqlite(tmp_path), name="mine")
    with pytest.raises(UnknownName, match="did you mean 'mine'"):
        smith.open_run(sqlite(tmp_path), "mime")


def test_the_command_is_kept_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for typed, kept in (("/home/me/.venv/bin/archsmith", "archsmith"), ("mine/study.py", "mine/study.py")):
        monkeypatch.setattr("sys.argv", [typed, "auto", "a text.txt"])
        run = smith.search(chain, Landscape(), trials=1, store="memory://")
        assert run.config["command"] == f"{kept} auto 'a text.txt'"


def test_resume_raises_the_budget_and_continues_to_it(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    whole = log_of(smith.search(chain, Landscape(), trials=25, store=store, name="whole", searcher=Reinforce()))
    smith.search(chain, Landscape(), trials=10, store=store, name="part", searcher=Reinforce())
    run = smith.open_run(store, "part").resume(trials=25, space=chain)
    assert log_of(run) == whole
    assert run.config["budget"]["trials"] == 25
    assert log_of(smith.open_run(store, "part").resume(space=chain)) == whole  # nothing is left to do


def test_resuming_a_run_whose_budget_is_used_up_changes_nothing_of_it(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    before = smith.search(chain, Landscape(), trials=None, seconds=0.2, store=store, name="r").summary
    assert smith.open_run(store, "r").resume(space=chain).summary == before  # its clock stands still too
    with pytest.raises(UsageError, match="another searcher"):
        smith.open_run(store, "r").resume(space=chain, searcher=Reinforce())


def test_resume_refuses_another_searcher_space_or_data(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    smith.search(chain, Landscape(), trials=3, store=store, name="r")
    with pytest.raises(UsageError, match="another searcher"):
        smith.open_run(store, "r").resume(trials=5, space=chain, searcher=Reinforce())
    with pytest.raises(UsageError, match="another space"):
        smith.open_run(store, "r").resume(trials=5, space=lambda choose: choose("x", (1, 2)))
    with pytest.raises(UsageError, match="your own"):
        smith.open_run(store, "r").resume(trials=5)


def test_ctrl_c_closes_the_run_and_loses_nothing(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    whole = log_of(smith.search(chain, Landscape(), trials=12, store=store, name="whole"))
    seen = 0

    def interrupting(event: Any) -> None:
        nonlocal seen
        seen += isinstance(event, smith.Trial) and event.state is TrialState.DONE
        if seen == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smith.search(chain, Landscape(), trials=12, store=store, name="cut", watch=interrupting)
    run = smith.open_run(store, "cut")
    assert run.summary.status == "interrupted"
    assert run.summary.counts["done"] == 5
    assert log_of(run.resume(space=chain)) == whole


def test_two_writers_of_one_run_are_refused(tmp_path: Path) -> None:
    smith.search(chain, Landscape(), trials=1, store=sqlite(tmp_path), name="r")
    writer = open_store(sqlite(tmp_path)).write("r")
    try:
        with pytest.raises(RunLocked, match="r"):
            smith.open_run(sqlite(tmp_path), "r").resume(trials=2, space=chain)
    finally:
        writer.close()


def _killed_after(moments: int, store: str, searcher: Any) -> None:
    """Runs in a forked process and kills itself with SIGKILL at one of the moments at which a kill could matter."""
    dying = dying_store(store, moments)
    smith.search(chain, Landscape(), trials=10, store=dying, name="killed", searcher=searcher, seed=3)


@pytest.mark.parametrize("searcher", [Random(), Reinforce(minibatch=3)], ids=["random", "reinforce"])
def test_a_run_killed_at_any_moment_and_resumed_equals_one_that_was_not(tmp_path: Path, searcher: Any) -> None:
    whole = log_of(smith.search(chain, Landscape(), trials=10, store="memory://", searcher=searcher, seed=3))
    fork = multiprocessing.get_context("fork")
    cuts = list(range(1, 61, 3 if isinstance(searcher, Reinforce) else 2))
    killed = 0
    for cut in cuts:
        store = f"sqlite:///{tmp_path / f'cut{cut}.db'}"
        process = fork.Process(target=_killed_after, args=(cut, store, searcher))
        process.start()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        run = smith.open_run(store, "killed")
        before = {t.number: t.reward for t in run.trials() if t.state.is_finished}
        assert log_of(run.resume(space=chain)) == whole, f"killed at moment {cut}"
        after = {t.number: t.reward for t in run.trials()}
        assert all(after[number] == reward for number, reward in before.items())
    assert killed >= len(cuts) - 2


def test_a_searcher_that_errs_loses_no_result(tmp_path: Path) -> None:
    class Erring:
        def start(self, space: Any, seed: int) -> Any:
            live = Random().start(space, seed)

            class Live:
                version = 0
                ask = live.ask
                diagnostics = live.diagnostics
                state_dict = live.state_dict
                load_state_dict = live.load_state_dict

                def tell(self, trials: Any) -> None:
                    raise RuntimeError("searcher's own mistake")

            return Live()

    with pytest.raises(RuntimeError, match="own mistake"):
        smith.search(chain, Landscape(), trials=5, store=sqlite(tmp_path), name="r", searcher=Erring())
    assert smith.open_run(sqlite(tmp_path), "r").summary.counts["done"] == 1


@dataclass(frozen=True)
class Showing:
    """Random, with a state and diagnostics of one's own."""

    shows: Any = 1.0
    state: Any = None
    states_until: int = 99

    def start(self, space: Any, seed: int) -> Any:
        return LiveShowing(self, Random().start(space, seed))


class LiveShowing:
    def __init__(self, config: Showing, live: Any) -> None:
        self.config, self.live, self.version = config, live, 0
        self.ask = live.ask

    def tell(self, trials: Any) -> None:
        self.version += 1

    def diagnostics(self) -> Any:
        return {"loss": self.config.shows}

    def state_dict(self) -> Any:
        own = None if self.version < self.config.states_until else {1, 2}
        return {"random": self.live.state_dict(), "own": own or self.config.state}

    def load_state_dict(self, state: Any) -> None:
        self.live.load_state_dict(state["random"])


@pytest.mark.parametrize("loss", [1, True, np.int64(1), np.float32(1), torch.tensor(1.0)], ids=str)
def test_a_searcher_shows_numbers_of_any_library(loss: Any, tmp_path: Path) -> None:
    run = smith.search(chain, Landscape(), trials=3, store=sqlite(tmp_path), name="r", searcher=Showing(loss))
    assert [shown.values["loss"] for shown in run.reader.learned()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("searcher", "message"),
    [
        (Showing("low"), r"LiveShowing.diagnostics\(\) must return numbers by name: the metric 'loss' .*got str"),
        (Showing(states_until=1), "set"),
    ],
)
def test_a_searcher_that_cannot_be_recorded_loses_no_result(searcher: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        smith.search(chain, Landscape(), trials=5, store=sqlite(tmp_path), name="r", searcher=searcher)
    assert smith.open_run(sqlite(tmp_path), "r").summary.counts["done"] == 1


def test_a_state_that_cannot_be_stored_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="set"):
        smith.search(chain, Landscape(), trials=5, store=sqlite(tmp_path), name="r", searcher=Showing(state={1}))
    with pytest.raises(UnknownName):
        smith.open_run(sqlite(tmp_path), "r")


def test_a_searcher_that_does_not_repeat_itself_is_found_out(tmp_path: Path) -> None:
    class Fickle:
        """Random, but never the same."""

        def start(self, space: Any, seed: int) -> Any:
            return Random().start(space, int.from_bytes(os.urandom(4), "big"))

    store = sqlite(tmp_path)
    smith.search(chain, Landscape(), trials=5, store=store, name="r", searcher=Fickle())
    with pytest.raises(ReplayMismatch, match="trial 0"):
        smith.open_run(store, "r").resume(trials=9, space=chain, searcher=Fickle())


def test_a_pool_gives_every_trial_its_own_seed_and_loses_none(tmp_path: Path) -> None:
    alone = smith.search(chain, Landscape(noise=0.1), trials=12, store="memory://", seed=5)
    pooled = smith.search(chain, Landscape(noise=0.1), trials=12, store=sqlite(tmp_path), workers=2, seed=5)
    assert log_of(alone) == log_of(pooled)  # random search does not depend on the order of results


def test_a_run_reads_as_a_data_frame_and_as_a_module() -> None:
    run = smith.search(chain, Landscape(), trials=4, store="memory://")
    frame = run.to_dataframe()
    assert list(frame["number"]) == [0, 1, 2, 3]
    assert set(frame["choice.0.filters"]) <= {8, 16, 32}
    assert "nothing" not in repr(run)


def test_weights_of_the_best_stay_and_the_rest_go_when_the_folder_is_over_its_cap(tmp_path: Path) -> None:
    import torch

    from archsmith._search.collecting import collect, needed
    from archsmith.core.artifacts import ArtifactFolder
    from archsmith.core.trial import Result

    class Keeping:
        def evaluate(self, space: Any, genotype: smith.Genotype, context: Any) -> Result:
            digest = context.checkpoint({"w": torch.full((64,), float(context.seed % 1000))})
            return Result(metrics={"value": Landscape().height(genotype)}, artifact=digest)

    run = smith.search(chain, Keeping(), trials=40, store=sqlite(tmp_path), name="kept")
    folder = ArtifactFolder(run.store.artifacts, cap_bytes=1)
    digests = {t.number: t.result.artifact for t in run.trials()}
    assert needed(run.store) == {digests[t.number] for t in run.top(25)}
    assert collect(run.store) == []  # within the default cap
    gone = folder.collect(needed(run.store), grace_seconds=0)
    assert set(gone) == set(digests.values()) - needed(run.store)
    assert float(folder.get(run.best.result.artifact)["w"][0]) >= 0


@pytest.mark.parametrize("workers", [1, 3])
def test_a_place_for_weights_that_is_gone_ends_the_search_and_no_child_fails_for_it(
    tmp_path: Path, workers: int
) -> None:
    import torch

    from archsmith.core.trial import Result

    place = tmp_path / "runs.artifacts"

    class Keeping:
        breaks = True

        def evaluate(self, space: Any, genotype: smith.Genotype, context: Any) -> Result:
            if self.breaks and context.seed == broken:
                place.rename(tmp_path / "aside")
                place.write_text("a file where the folder was")
            digest = context.checkpoint({"w": torch.full((64,), float(context.seed % 1000))})
            return Result(metrics={"value": Landscape().height(genotype)}, artifact=digest)

    from archsmith.core.executor import derive_seed

    broken = derive_seed(0, "trial", 4)
    evaluator = Keeping()
    with pytest.raises(StoreError, match="is trained again"):
        smith.search(chain, evaluator, trials=9, workers=workers, store=sqlite(tmp_path), name="gone")
    run = smith.open_run(sqlite(tmp_path), "gone")
    counts = run.summary.counts
    assert (counts["failed"], run.summary.status) == (0, "interrupted")
    assert counts["done"] == 4 or (workers > 1 and 2 <= counts["done"] <= 6)
    with pytest.raises(StoreError, match="cannot keep artifacts"):  # told before any child is trained
        run.resume(space=chain, evaluator=evaluator)
    place.unlink()
    (tmp_path / "aside").rename(place)
    evaluator.breaks = False
    run.resume(space=chain, evaluator=evaluator)
    whole = smith.search(chain, Landscape(), trials=9, store="memory://")
    assert [t.genotype for t in run.trials()] == [t.genotype for t in whole.trials()]
    assert run.summary.counts["done"] == 9


def test_what_cannot_train_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="build="):
        smith.search(chain, smith.training.ImageClassification.desk("digits"), store=sqlite(tmp_path))
    assert not (tmp_path / "runs.db").exists()


def test_a_budget_below_what_was_spent_is_refused(tmp_path: Path) -> None:
    smith.search(chain, Landscape(), trials=5, store=sqlite(tmp_path), name="r")
    with pytest.raises(UsageError, match="5 trials already"):
        smith.open_run(sqlite(tmp_path), "r").resume(trials=3, space=chain)
