"""Evolution by pairwise tournaments: who is killed and who is copied, weights handed on, and runs that are killed."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import archsmith as smith
from archsmith._search.collecting import needed
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.errors import UsageError
from archsmith.core.finish import FinishPlan
from archsmith.core.genotype import Genotype
from archsmith.core.space import FunctionSpace, decode
from archsmith.core.trial import Failure, Proposal, Result, Trial, TrialState
from archsmith.recipes import get_recipe
from archsmith.rewards import accuracy
from archsmith.searchers import LargeScaleEvolution, RegularizedEvolution
from archsmith.spaces import GrownGraph
from archsmith.store import open_store
from archsmith.testing import SearcherContract
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification

SPACE = GrownGraph(stem=4.0, flatten=False)
DIGITS = ImageClassification(
    "digits",
    epochs=1,
    batch_size=50,
    nesterov=False,
    schedule="constant",
    upsample=1.0,
    max_train=300,
    precision="fp32",
    keep_weights=True,
)


class TestContract(SearcherContract):
    def searcher(self):
        return LargeScaleEvolution(population=6)

    def wrong(self):
        return (
            lambda: LargeScaleEvolution(population=1),
            lambda: LargeScaleEvolution(population=True),
            lambda: LargeScaleEvolution(population=2.5),
        )


class TestContractOnGrownGraphs(SearcherContract):
    def searcher(self):
        return LargeScaleEvolution(population=5)

    def space(self):
        return SPACE


def bits(choose):
    return [choose(f"{i}.bit", (0, 1)) for i in range(40)]


def told(number: int, proposal: Proposal, reward: float | None) -> Trial:
    if reward is None:
        failed = Result(failure=Failure("diverged", "the loss became NaN"))
        return Trial(number, proposal.genotype, proposal.parent, TrialState.FAILED, None, failed)
    return Trial(number, proposal.genotype, proposal.parent, TrialState.DONE, reward, Result({"value": reward}))


def ones(genotype: Genotype) -> float:
    return sum(genotype.answers.values()) / 40


# --- tournaments ------------------------------------------------------------------------------------------------------


def test_all_begin_as_the_seed_and_then_every_child_has_a_living_parent() -> None:
    live = LargeScaleEvolution(population=8).start(SPACE, 0)
    first = live.ask(8)
    assert all(p.genotype == SPACE.seed() and p.parent is None for p in first)
    live.tell([told(i, p, i / 10) for i, p in enumerate(first)])
    before = live.needs()
    assert before == set(range(8))
    (child,) = live.ask(1)
    (killed,) = before - live.needs()
    assert child.parent in live.needs()
    assert killed < child.parent, "of the two the one with the lower fitness is killed"


def test_of_two_the_worse_is_killed_and_the_better_is_copied_always() -> None:
    live = LargeScaleEvolution(population=20).start(FunctionSpace(bits), 3)
    fitness: dict[int, float] = {}
    proposals = live.ask(20)
    parents: list[int] = []
    for number in range(400):
        proposal = proposals.pop(0)
        fitness[number] = ones(proposal.genotype)
        live.tell([told(number, proposal, fitness[number])])
        if not proposals:
            before = live.needs()
            proposals = live.ask(1)
            gone = before - live.needs()
            assert len(gone) == 1
            assert fitness[gone.pop()] <= fitness[proposals[0].parent]
            parents.append(proposals[0].parent)
            assert sum(a != b for a, b in zip(*both(live, proposals[0], fitness), strict=True)) == 1
    late = [fitness[n] for n in sorted(live.needs())]
    assert sum(late) / len(late) > 0.75, "it climbs: at random half of the bits are ones"


def both(live: Any, child: Proposal, fitness: dict[int, float]) -> tuple[list[Any], list[Any]]:
    """The answers of a parent and of its child."""
    parent = next(g for n, g, _ in live._alive if n == child.parent)
    return list(parent.answers.values()), list(child.genotype.answers.values())


def test_the_population_keeps_its_size_however_many_workers_there_are() -> None:
    for workers in (1, 3, 9):
        live, rng, running = LargeScaleEvolution(population=10).start(FunctionSpace(bits), 1), Random(0), []
        for number in range(300):
            while len(running) < workers:
                running.extend(live.ask(1))
            if number > 40:
                assert len(live.needs()) + len(running) == 10, f"{workers} workers"
            proposal = running.pop(rng.randrange(len(running)))
            live.tell([told(number, proposal, ones(proposal.genotype))])


def test_with_more_workers_than_individuals_the_population_comes_down_to_two_alive_or_its_size() -> None:
    live, rng, running = LargeScaleEvolution(population=4).start(FunctionSpace(bits), 1), Random(0), []
    for number in range(200):
        while len(running) < 12:
            running.extend(live.ask(1))
        proposal = running.pop(rng.randrange(len(running)))
        live.tell([told(number, proposal, ones(proposal.genotype))])
        assert len(live.needs()) <= 12
    assert len(live.needs()) <= 3


def test_after_failures_nothing_is_killed_until_the_population_is_back_at_its_size() -> None:
    live, number = LargeScaleEvolution(population=10).start(FunctionSpace(bits), 5), 10
    live.tell([told(i, p, 0.5) for i, p in enumerate(live.ask(10))])
    for _ in range(6):  # each costs the population its killed one and its child
        live.tell([told(number, live.ask(1)[0], None)])
        number += 1
    alive = live.needs()
    assert len(alive) == 9, "the first pair killed, the next ones only reproduced"
    (child,) = live.ask(1)
    assert live.needs() == alive
    live.tell([told(number, child, 0.6)])
    assert len(live.needs()) == 10
    live.ask(1)
    assert len(live.needs()) == 9


def test_many_workers_at_once_and_no_lock_over_a_training() -> None:
    """Threads that ask and tell one after the other while all of them train: the population stays at its size."""
    live, lock, numbers = LargeScaleEvolution(population=30).start(FunctionSpace(bits), 2), threading.Lock(), []
    training, most = 0, 0
    barrier = threading.Barrier(8)

    def worker() -> None:
        nonlocal training, most
        for _ in range(25):
            with lock:
                (proposal,) = live.ask(1)
                training += 1
                most = max(most, training)
            barrier.wait()  # all eight are in training here, none holding the lock
            with lock:
                training -= 1
                numbers.append(None)
                live.tell([told(len(numbers), proposal, ones(proposal.genotype))])

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 8
    assert len(numbers) == 200
    assert len(live.needs()) + training == 30


def test_it_shows_how_it_goes_once_a_generation() -> None:
    run = smith.search(
        FunctionSpace(bits),
        lambda architecture: sum(architecture) / 40,
        searcher=LargeScaleEvolution(population=10),
        trials=70,
        store="memory://",
    )
    shown = run.reader.learned()
    assert [row.values["killed"] // 10 for row in shown] == [1, 2, 3, 4, 5, 6]
    assert all(row.values["alive"] == 10 for row in shown)
    assert shown[-1].values["mean_reward"] > shown[0].values["mean_reward"]
    assert shown[-1].values["best_reward"] <= run.best.reward


def test_seeds_that_all_fail_are_tried_again() -> None:
    live = LargeScaleEvolution(population=3).start(SPACE, 0)
    for number in range(7):
        (proposal,) = live.ask(1)
        assert proposal.genotype == SPACE.seed()
        live.tell([told(number, proposal, None)])


# --- inheritance, for real --------------------------------------------------------------------------------------------


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'runs.db'}"


def evolve(store: Any, trials: int = 16, name: str = "run", **options: Any) -> smith.Run:
    return smith.search(
        SPACE,
        DIGITS,
        searcher=LargeScaleEvolution(population=4),
        reward=accuracy,
        trials=trials,
        store=store,
        name=name,
        seed=2,
        **options,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> smith.Run:
    return evolve(store_of(tmp_path_factory.mktemp("evolution")))


def log_of(run: smith.Run) -> list[Any]:
    return [
        (t.number, t.parent, t.genotype.canonical, t.state, t.reward, t.result.artifact, t.result.curve[-1]["loss"])
        for t in run.trials()
        if t.result is not None
    ]


def test_children_begin_with_their_parents_weights_and_go_on_from_there(run: smith.Run) -> None:
    trials = list(run.trials())
    inherited = {t.number: t.result.metrics.get("inherited_parameters") for t in trials}
    assert all(inherited[n] is None for n in range(4)), "the seeds have no parents"
    same = 0
    for trial in trials[4:]:
        parent = trials[trial.parent]
        if not trial.genotype.answers["inherits"]:
            assert inherited[trial.number] is None, "its weights were reset"
            continue
        assert 0 <= inherited[trial.number] <= trial.result.metrics["parameters"]
        if decode(SPACE, trial.genotype)["edges"] == decode(SPACE, parent.genotype)["edges"]:
            assert inherited[trial.number] == trial.result.metrics["parameters"]
            same += 1
    assert same >= 1
    assert trials[-1].result.metrics["learning_rate"] == trials[-1].genotype.answers["learning_rate"]


def test_a_child_reads_what_its_parent_kept_and_nothing_else() -> None:
    """The evaluator itself: a training that changes nothing keeps the inherited weights to the bit."""
    seed = SPACE.seed()
    genotype = Genotype(seed.space, {**seed.answers, "inherits": True, "learning_rate": 1e-30})
    kept = RecordingContext(seed=1)
    parent = DIGITS.evaluate(SPACE, SPACE.seed(), kept)
    weights = kept.kept[parent.artifact]
    frozen = dataclasses.replace(DIGITS, weight_decay=0.0)
    child = RecordingContext(seed=2, parent=7, earlier={7: weights})
    result = frozen.evaluate(SPACE, genotype, child)
    assert result.metrics["inherited_parameters"] == result.metrics["parameters"]
    for name, tensor in child.kept[result.artifact].items():
        if "running" not in name and "num_batches" not in name:  # the statistics move with the batches
            assert torch.equal(tensor, weights[name]), name
    for other in (RecordingContext(seed=2), RecordingContext(seed=2, parent=7)):
        alone = frozen.evaluate(SPACE, genotype, other)
        assert "inherited_parameters" not in alone.metrics
        assert not torch.equal(other.kept[alone.artifact]["classifier.weight"], weights["classifier.weight"])


def test_several_workers_inherit_too(tmp_path: Path) -> None:
    run = evolve(store_of(tmp_path), trials=10, workers=2)
    assert run.summary.counts["done"] == 10
    assert any(t.result.metrics.get("inherited_parameters") for t in run.trials())


def _killed_after(moments: int, store: str) -> None:
    """Evolves in a forked process and kills itself before or after one of the writes of the run."""
    count = 0
    opened = open_store(store)
    create = opened.create

    def ticking(method: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            for moment in (0, 1):
                count += 1
                if count == moments:
                    os.kill(os.getpid(), signal.SIGKILL)
                if moment == 0:
                    result = method(*args, **kwargs)
            return result

        return wrapped

    def create_ticking(name: str, config: Any) -> Any:
        writer = create(name, config)
        for method in ("propose", "start", "finish", "put_document"):
            setattr(writer, method, ticking(getattr(writer, method)))
        return writer

    opened.create = create_ticking  # type: ignore[method-assign]
    evolve(opened, trials=9, name="killed")


def test_an_evolution_killed_and_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process must not wait for the threads of this one
    try:
        whole = log_of(evolve(store_of(tmp_path), trials=9, name="whole"))
        fork = multiprocessing.get_context("fork")
        for cut in (14, 33, 43, 52):
            folder = tmp_path / str(cut)
            folder.mkdir()
            process = fork.Process(target=_killed_after, args=(cut, store_of(folder)))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            run = smith.open_run(store_of(folder), "killed")
            assert sum(run.summary.counts.values()) < 9 or run.summary.counts["done"] < 9
            assert log_of(run.resume()) == whole, f"killed at moment {cut}"
    finally:
        torch.set_num_threads(threads)


def test_the_weights_of_who_is_alive_are_needed_and_those_of_the_dead_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsmith._search.collecting.BEST_PER_RUN", 1)
    monkeypatch.setattr("archsmith._search.loop.ARTIFACTS_PER_COLLECTION", 5)
    seen: list[set[int]] = []

    class Watched(LargeScaleEvolution):
        def start(self, space: Any, seed: int) -> Any:
            live = super().start(space, seed)
            needs = live.needs

            def remembered() -> set[int]:
                seen.append(needs())
                return seen[-1]

            live.needs = remembered  # type: ignore[method-assign]
            return live

    run = smith.search(
        SPACE, DIGITS, searcher=Watched(4), reward=accuracy, trials=17, store=store_of(tmp_path), name="r", seed=4
    )
    digests = {t.number: t.result.artifact for t in run.trials()}
    keep = needed(run.store)
    alive = {digests[n] for n in seen[-1]}
    assert alive <= keep
    assert {digests[15], digests[16]} <= keep, "what came after the record was made"
    assert digests[run.best.number] in keep
    assert len(keep) < len(set(digests.values()))
    gone = ArtifactFolder(run.store.artifacts, cap_bytes=1).collect(keep, grace_seconds=0)
    assert set(gone) == set(digests.values()) - keep
    # It goes on after a collection as if nothing were gone.
    more = run.resume(trials=22, searcher=Watched(4))
    assert more.summary.counts["done"] == 22


def test_a_parent_whose_weights_are_gone_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    run = evolve(store_of(tmp_path), trials=8)
    for file in Path(run.store.artifacts).glob("*.safetensors"):
        file.unlink()
    after = list(run.resume(trials=11).trials())[8:]
    for trial in after:
        inherits = trial.genotype.answers["inherits"] and trial.parent < 8
        assert trial.state is (TrialState.FAILED if inherits else TrialState.DONE)
    assert "no artifact" in after[0].result.failure.message


def test_regularized_evolution_hands_weights_on_as_well(tmp_path: Path) -> None:
    run = smith.search(
        SPACE,
        DIGITS,
        searcher=RegularizedEvolution(population=3, sample=2),
        reward=accuracy,
        trials=8,
        store=store_of(tmp_path),
        seed=1,
    )
    assert any(t.result.metrics.get("inherited_parameters") for t in run.trials() if t.result)


def test_without_kept_weights_children_are_trained_from_scratch() -> None:
    run = smith.search(
        SPACE,
        dataclasses.replace(DIGITS, keep_weights=False),
        searcher=LargeScaleEvolution(population=2),
        reward=accuracy,
        trials=5,
        store="memory://",
    )
    assert run.summary.counts["done"] == 5
    assert not any("inherited_parameters" in t.result.metrics for t in run.trials())


# --- the result is a trained network ----------------------------------------------------------------------------------


def test_finish_takes_the_network_as_it_was_trained_and_trains_it_anew_beside(run: smith.Run, tmp_path: Path) -> None:
    plan = FinishPlan(epochs=1, seeds=2, trained=True)
    finished = smith.finish(run, plan=plan)
    best = run.best
    found, anew, hand = finished.networks
    assert (found.name, anew.name) == ("found", "found, trained anew")
    assert [final.artifact for final in found.finals] == [best.result.artifact]
    assert finished.model.artifact == best.result.artifact
    assert found.trainings == 0
    assert found.genotype == anew.genotype == best.genotype.to_json()
    assert found.parameters == anew.parameters == best.result.metrics["parameters"]
    assert abs(hand.parameters - found.parameters) < 0.3 * found.parameters
    assert len(anew.scores) == 2
    model = run.build(best)
    model.load_state_dict(ArtifactFolder(run.store.artifacts).get(best.result.artifact))
    assert found.mean == run.evaluator.test(model.eval())["accuracy"]
    assert f"trial {best.number} as the search trained it" in finished.claim
    assert smith.finish(run).to_json() == finished.to_json()
    for form in ("pytorch", "onnx", "source"):
        written = smith.export(run, format=form, path=tmp_path / form)
        assert written.exists()
    page = run.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "trained anew" in page


def test_finish_without_kept_weights_says_how_to_keep_them(tmp_path: Path) -> None:
    run = smith.search(
        SPACE,
        dataclasses.replace(DIGITS, keep_weights=False),
        searcher=LargeScaleEvolution(population=2),
        trials=3,
        store=store_of(tmp_path),
    )
    with pytest.raises(UsageError, match="keep_weights=True"):
        smith.finish(run, plan=FinishPlan(trained=True))
    for wrong in ({"space": {"flatten": True}}, {"all_data": True}):
        with pytest.raises(UsageError, match="trained"):
            FinishPlan(trained=True, **wrong)
    with pytest.raises(UsageError, match="True or False"):
        FinishPlan(trained=1)


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_the_paper_recipe_has_the_papers_numbers() -> None:
    recipe = get_recipe("large-scale-evolution")
    assert recipe.searcher.population == 1000
    evaluator = recipe.evaluator
    assert (evaluator.batch_size, evaluator.momentum, evaluator.weight_decay) == (50, 0.9, 1e-4)
    assert abs(evaluator.epochs * 45_000 / 50 - 25_600) < 900, "25,600 steps, to an epoch"
    assert recipe.space.seed().answers["learning_rate"] == 0.1
    assert smith.describe(recipe.space.seed()).parameters == 30_730
    assert evaluator.keep_weights
    assert evaluator.schedule == "constant"
    assert recipe.finish.trained


@pytest.mark.parametrize("name", ["large-scale-evolution", "large-scale-evolution-desk"])
def test_a_child_of_a_recipe_takes_a_step(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.evaluator.max_train is None or recipe.evaluator.max_train <= 5000
    recipe.finish.points(recipe.evaluator)
    dataclasses.replace(recipe.evaluator, epochs=recipe.finish.epochs, **recipe.finish.final)
    evaluator = dataclasses.replace(recipe.evaluator, data="digits", epochs=1, max_train=100)
    result = evaluator.evaluate(recipe.space, recipe.space.seed(), RecordingContext())
    assert math.isfinite(result.metrics["train_loss"])
    assert result.metrics["learning_rate"] == 0.1
