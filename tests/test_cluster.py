"""What is told of a cluster: exact on runs made by hand, adding up on any, and shown in the report."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.errors import AllTrialsFailed
from archsmith.core.executor import Clock
from archsmith.core.genotype import Genotype
from archsmith.core.space import as_space
from archsmith.core.trial import Cost, Failure, Proposal, Result, TrialState
from archsmith.executors import Faults, Simulated
from archsmith.report.cluster import MOMENTS, cluster
from archsmith.searchers import Random, RegularizedEvolution
from archsmith.store import MemoryStore, open_store
from test_simulated import EVALUATOR, Reports, number

G = Genotype({"name": "n", "version": 1, "options": {}}, {"x": 1})


def told(
    workers: Any,
    trials: list[tuple[float, float, Cost, float | None]],
    *,
    clock: dict[str, Any] | None = None,
    learned: dict[int, dict[str, float]] | None = None,
    until: float | None = None,
) -> Any:
    """What is told of a finished run of such trials: when each was proposed, when it ended, its cost and its reward."""
    store, shown = MemoryStore(), Clock()
    run = store.create("r", {"workers": workers, **({"clock": clock} if clock is not None else {})})
    run.keep_time(shown)
    moments = [(begin, 0, n) for n, (begin, *_) in enumerate(trials)] + [
        (end, 1, n) for n, (_, end, *_) in enumerate(trials)
    ]
    for at, ends, n in sorted(moments):
        shown.seconds = at
        _, _, cost, reward = trials[n]
        if not ends:
            [trial] = run.propose([Proposal(G)])
            assert trial.number == n, "trials must be given in the order in which they are proposed"
            run.start(n)
            continue
        failed = Failure("worker", "its machine was lost") if reward is None else None
        state = TrialState.FAILED if failed else TrialState.DONE
        result = Result(cost=cost, failure=failed)
        run.finish([replace(run.trial(n), state=state, reward=reward, result=result)], learned=(learned or {}).get(n))
    shown.seconds = until if until is not None else shown.seconds
    run.close("finished")
    return cluster(store.read("r"))


def test_each_second_of_each_worker_is_told_of() -> None:
    c = told(
        5,
        [
            (0.0, 10.0, Cost(10.0, 1.0), 0.5),
            (0.0, 20.0, Cost(12.0, 1.0, 8.0), 0.7),  # lost its worker once
            (0.0, 30.0, Cost(0.0, 0.0, 30.0), None),  # and this one for good
            (0.0, 20.0, Cost(20.0, 1.0), 0.6),
            (10.0, 40.0, Cost(30.0, 1.0), 0.9),
        ],
        clock={"seconds": None},
    )
    assert (c.workers, c.seconds) == (5, 40.0)
    assert (c.busy, c.lost) == (72.0, 38.0)
    assert c.waiting == 10.0, "the fifth worker, until the last child was proposed"
    assert c.ending == 0.0 + 10.0 + 20.0 + 20.0 + 30.0 + 0.0, "from 10 s on: five workers for 30 s less what ran then"
    assert c.busy + c.lost + c.waiting + c.ending == 5 * 40.0
    assert (c.attempts, c.again, c.failed) == (5, 0, 1)
    assert c.in_use[0] == pytest.approx(4 / 5)
    assert c.in_use[-1] == pytest.approx(1 / 5)
    assert sum(c.in_use) / MOMENTS == pytest.approx((10 + 20 + 30 + 20 + 30) / 200)


def test_quality_is_told_at_tenths_of_the_time() -> None:
    c = told(6, [(0.0, float(end), Cost(float(end), 1.0), end / 100) for end in (5, 10, 11, 50, 95, 100)])
    rows = [(q.at, q.trials, q.best, q.mean) for q in c.quality]
    assert rows[0] == (10.0, 2, 0.1, pytest.approx(0.075))
    assert rows[1] == (20.0, 3, 0.11, 0.11)
    assert rows[2] == (30.0, 3, 0.11, None)
    assert rows[4] == (50.0, 4, 0.5, 0.5)
    assert rows[9] == (100.0, 6, 1.0, pytest.approx(0.975))
    assert json.loads(json.dumps(c.to_json()))["quality"][9]["best"] == 1.0


def test_staleness_is_what_the_searcher_showed() -> None:
    shown = {n: {"mean_staleness": float(n), "largest_staleness": 2.0 * n, "updates": n + 1.0} for n in range(20)}
    c = told(5, [(0.0, 1.0 + n, Cost(1.0 + n, 1.0), 0.5) for n in range(20)], learned=shown)
    assert (c.staleness.mean, c.staleness.last, c.staleness.largest, c.staleness.updates) == (9.5, 18.5, 38.0, 20)
    assert told(5, [(0.0, 1.0, Cost(1.0, 1.0), 0.5)], learned={0: {"entropy": 1.0}}).staleness is None


def test_more_at_once_than_the_record_says_are_counted() -> None:
    assert told(5, [(0.0, 9.0, Cost(9.0, 1.0), 0.5)] * 7).workers == 7
    one_after_another = [(float(n), n + 1.0, Cost(1.0, 1.0), 0.5) for n in range(9)]
    assert told(5, one_after_another).workers == 5


def test_children_that_were_put_aside_had_no_worker_meanwhile() -> None:
    """Successive halving on workers that fail: what trainings took and lost is all that workers were in use for."""
    run = smith.search(
        number,
        Reports(9, 10.0),
        trials=60,
        store="memory://",
        stopping=smith.stopping.ASHA(eta=3, minimum=1),
        executor=Simulated(6, faults=Faults(failures_per_hour=30, straggler_share=0.2)),
    )
    c = cluster(run.reader)
    assert c is not None
    costs = [trial.result.cost for trial in run.trials() if trial.result is not None]
    spent = sum(cost.seconds + cost.lost_seconds for cost in costs)
    assert c.lost > 0
    assert c.workers == 6
    assert c.busy + c.lost == pytest.approx(spent)
    assert spent < 0.7 * 60 * 90, "most were stopped early"
    assert sum(c.in_use) / MOMENTS * 6 * c.seconds == pytest.approx(spent, rel=0.02)
    assert c.busy + c.lost + c.waiting + c.ending == pytest.approx(6 * c.seconds)


def test_by_the_wall_an_evaluator_without_times_was_busy_while_it_ran() -> None:
    assert told(5, [(0.0, 8.0, Cost(0.0, 1.0), 0.5)]).busy == 8.0
    assert told(5, [(0.0, 8.0, Cost(6.0, 1.0), 0.5)]).busy == 6.0, "the rest is work between children"
    assert told(5, [(0.0, 8.0, Cost(0.0, 1.0), 0.5)], clock={"seconds": None}).busy == 0.0


@pytest.mark.parametrize("workers", [1, 4, 0, -3, None, "800", True, 1e9, 10**12, [8]])
def test_of_few_workers_or_a_record_that_makes_no_sense_nothing_is_told(workers: Any) -> None:
    assert told(workers, [(0.0, 8.0, Cost(8.0, 1.0), 0.5)]) is None


def test_of_no_finished_trial_or_no_time_nothing_is_told() -> None:
    assert told(5, []) is None
    assert told(5, [(0.0, 0.0, Cost(), 0.5)]) is None


@settings(max_examples=25, deadline=None)
@given(
    st.integers(5, 12),
    st.integers(1, 60),
    st.floats(0, 400),
    st.floats(0, 1),
    st.one_of(st.none(), st.floats(3, 60)),
    st.integers(0, 99),
)
@example(workers=5, trials=1, failures=0.0, slow=0.0, lifetime=3.0, seed=0)  # all machines are lost
def test_the_parts_add_up_on_any_simulated_cluster(
    workers: int, trials: int, failures: float, slow: float, lifetime: float | None, seed: int
) -> None:
    faults = Faults(failures, slow, spot_lifetime_seconds=lifetime, spot_return_seconds=3, seed=seed)
    executor = Simulated(workers, faults=faults)
    store = MemoryStore()
    with suppress(AllTrialsFailed):  # every machine may be lost; its seconds must add up all the same
        smith.search(
            number, EVALUATOR, searcher=Random(), trials=trials, store=store, name="r", executor=executor, seed=seed
        )
    run = smith.open_run(store, "r", space=as_space(number), evaluator=EVALUATOR)
    c = cluster(run.reader)
    assert c is not None
    assert c.busy + c.lost + c.waiting + c.ending == pytest.approx(workers * run.summary.seconds)
    assert c.waiting == pytest.approx(0, abs=1e-6 * workers * run.summary.seconds), "random search makes nobody wait"
    assert c.attempts - c.again == trials
    span = sum((t.finished_at or 0.0) - t.proposed_at for t in run.trials())
    assert c.busy + c.lost == pytest.approx(span)
    assert sum(c.in_use) / MOMENTS * workers * run.summary.seconds == pytest.approx(span)


def test_the_page_and_the_terminal_tell_of_many_workers(tmp_path: Path) -> None:
    faults = Faults(failures_per_hour=300, seed=1)
    searched = RegularizedEvolution(population=6, sample=3)

    def page(workers: int, name: str) -> tuple[smith.Run, str]:
        run = smith.search(
            as_space(number),
            EVALUATOR,
            searcher=searched,
            trials=60,
            store=open_store(f"sqlite:///{tmp_path / 'runs.db'}"),
            name=name,
            executor=Simulated(workers, faults=faults),
        )
        return run, run.report(tmp_path / f"{name}.html").read_text()

    run, many = page(9, "many")
    assert 'id="cluster"' in many
    assert "simulated workers" in many
    assert "lost with machines" in many
    c = cluster(run.reader)
    assert c is not None
    assert f"{100 * c.share(c.busy):.1f} %" in many
    lines = dict(c.lines())
    assert lines["workers"].startswith("9 for ")
    assert "attempts" in lines["again"]
    assert c.again > 0
    _, few = page(3, "few")
    assert 'id="cluster"' not in few
