"""From the best trials of a search to one trained network and an honest number (Zoph and Le 2017, sections 4.1, 4.2).

Three rounds of training, then one look at the test set:

    choosing    the search's best architectures once more, from another seed; the best by validation goes on
    tuning      its settings at each point of the plan, by validation: learning rate, epoch of decay and others
    final       as chosen, for longer, from several seeds
    testing     all final models at once, when nothing is left to choose

The first known point of the search, else a hand-designed network of the same size (a residual network, an LSTM), and the best
of random search go through the same rounds, from the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from statistics import median
from typing import Any

from archsmith._finish.contenders import (
    ANEW,
    FOUND,
    Contender,
    as_trained,
    baselines,
    best_of,
    control_of,
    finishable,
    label_of,
    note_stacked,
)
from archsmith._finish.look import look
from archsmith._finish.published import EPOCHS, evaluator_for, plan_for, published_run
from archsmith._finish.result import Finished
from archsmith._finish.training import Network, Trained, Trainings, Wanted, writing
from archsmith._search import Run
from archsmith._search.session import DEFAULT_STORE
from archsmith._search.trainings import Watch
from archsmith.core import loaded
from archsmith.core.checks import whole_number
from archsmith.core.config import to_config
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Executor, Reward, derive_seed
from archsmith.core.finish import Finishable, FinishPlan
from archsmith.core.global_state import generators_kept
from archsmith.discovered import NETWORKS, Published
from archsmith.executors import InProcess, ProcessPool
from archsmith.rewards import LatencyWeighted
from archsmith.store import open_store


@generators_kept()
def finish(
    run: Run | Published | str,
    *,
    data: str | None = None,
    store: str = DEFAULT_STORE,
    seed: int = 0,
    plan: FinishPlan | None = None,
    top: int | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    control: Run | str | None = None,
    executor: Executor | None = None,
    workers: int = 1,
    again: bool = False,
    watch: Watch | None = None,
) -> Finished:
    """Train the best of a run for longer, beside what a person would have picked and random search's best; test once.

    Every training is recorded as it ends: after Ctrl-C or a kill, the same call goes on. A second call gives the
    stored result and looks at nothing.

    Args:
        run: the search, or its name in `store`; it must be on disk, and not running. Or a published network, by its name among
            `archsmith.discovered.NETWORKS` or as `discovered.Published` in another size: it is trained on `data`.
        data: of a published network: images, as of `ImageClassification`.
        store: where a run is that is given by name, and where a published network is recorded, as the run NAME-DATA.
        seed: of a published network: what it is seeded from.
        plan: what is trained (default: the desk preset that suits the evaluator, `FinishPlan.for_evaluator`).
        top, grid, epochs, seeds: in place of the plan's own; `grid` in place of its `scale` as well.
        control: the run of random search beside it, or its name (default: `<name>-random` of the same store, if there).
        executor: where it trains, in place of `workers`.
        workers: trainings side by side; more than one is a pool of processes, one thread each.
        again: whether to look at the test set once more although it was looked at; this is recorded and said.
        watch: called with what it is doing.

    Raises:
        UnknownName: the store has no run of that name.
        UsageError: the run has nothing to finish, or was finished by another plan and `again` is not set.
        RunLocked: another process writes the run.
        ChildFailed: no training of the found network came to its end.
    """
    if isinstance(run, str) and data is None and run not in NETWORKS:
        run = Run(open_store(store), run)
    if not isinstance(run, Run):
        run, plan = _published(run, data, store, seed, plan, epochs, seeds)
    elif data is not None:
        raise UsageError("data is of a published network; a search is finished with the data it was made on")
    evaluator = finishable(run)
    given = {"top": top, "grid": grid, "epochs": epochs, "seeds": seeds}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if grid is not None:
        changes["scale"] = {}
    document = None if again else run.reader.document("finish")
    stored = Finished.from_json(document) if document is not None else None
    if plan is None:
        plan = FinishPlan.for_evaluator(evaluator)
        if stored is not None and not changes:
            plan = _plan_of(stored)
    plan = replace(plan, **changes)
    points = plan.points(evaluator)
    found, notes = best_of(run, plan, FOUND), list[str]()
    beside = control_of(run, control, notes)
    note_stacked(run.space, plan, notes)
    trained = None
    if plan.trained:
        trained = as_trained(run, evaluator, notes)
        found.name, found.candidates = ANEW, found.candidates[:1]
    contenders = [found] + ([best_of(beside, plan, label_of(beside))] if beside is not None else [])
    candidates = {c.name: [network.genotype.key for _, network in c.candidates] for c in contenders}
    if stored is not None:
        _check_same(stored, plan, candidates)
        return stored
    with writing(run):
        pass  # refuses a run that is being searched, before anything is trained

    config = run.config
    limits = replace(Limits(**config["limits"]), seconds=None)  # a final training takes longer than a trial may
    with loaded.pinned(evaluator):
        with closing(executor if executor is not None else _executor(workers)) as used:
            trainings = Trainings(run, evaluator, _reward(run, evaluator, notes), used, limits, watch)
            _choose(contenders, trainings, plan, config["seed"])
            if trained is not None and trained.network is not None:
                trained.parameters = _parameters(trained.network, evaluator)
                # None of the plan's was used.
                trained.settings = {name: getattr(evaluator, name) for name in plan.final}
            by_hand = baselines(run, plan, found.parameters, evaluator, notes)
            for hand in by_hand:
                assert hand.network is not None
                hand.parameters = _parameters(hand.network, evaluator)
            contenders[1:1] = by_hand
            _note_twins(contenders, notes)
            _tune(contenders, trainings, plan, points, config["seed"], notes)
            _train_finals(contenders, trainings, plan, config["seed"], notes)
        if trained is not None:
            contenders.insert(0, trained)
        return look(run, evaluator, trainings, contenders, plan, candidates, notes)


def _published(
    network: Published | str,
    data: str | None,
    store: str,
    seed: int,
    plan: FinishPlan | None,
    epochs: int | None,
    seeds: int | None,
) -> tuple[Run, FinishPlan]:
    """The run of a published network, and its plan."""
    space = Published(network) if isinstance(network, str) else network
    if data is None:
        raise UsageError(
            f"{space.network} is trained on your data: give data, a folder of images or the name of a data set"
        )
    plan = plan or plan_for(space, epochs=epochs or EPOCHS, seeds=seeds or 3)
    evaluator = evaluator_for(space, data, epochs=plan.epochs or EPOCHS)
    return published_run(space, evaluator, store=store, seed=seed, plan=plan), plan


# --- before anything is trained ----------------------------------------------------------------------------------------


def _check_same(stored: Finished, plan: FinishPlan, candidates: Mapping[str, Sequence[str]]) -> None:
    if to_config(_plan_of(stored)) != to_config(plan):
        changed = "by another plan"
    elif stored.candidates != candidates:
        changed = "from other candidates than it, and the run beside it, have now"
    else:
        return
    raise UsageError(
        f"run {stored.run!r} was finished {changed}, and the test set was looked at; "
        "again=True (--again) trains what is new and looks once more, which is recorded and said"
    )


def _plan_of(stored: Finished) -> FinishPlan:
    return FinishPlan(**{k: v for k, v in stored.plan.items() if k != "type"})


def _reward(run: Run, evaluator: Finishable, notes: list[str]) -> Reward:
    """The run's reward; if it is the user's own and cannot be found, the evaluator's, with a note."""
    try:
        return run.reward
    except UsageError:
        own: Reward | None = getattr(evaluator, "default_reward", None)
        if own is None:
            raise
        notes.append("The finish used the evaluator's own reward, because the search's reward could not be found.")
        return own


def _executor(workers: int) -> Executor:
    workers = whole_number(workers, "workers", 1)
    return InProcess() if workers == 1 else ProcessPool(workers)


# --- the rounds -------------------------------------------------------------------------------------------------------


def _choose(contenders: Sequence[Contender], trainings: Trainings, plan: FinishPlan, seed: int) -> None:
    """The best architecture of each, by validation after another training: the search's own was its luckiest."""
    wanted, whose = [], []
    for contender in contenders:
        for origin, network in contender.candidates:
            if len(contender.candidates) > 1:
                wanted.append(
                    _tuning(trainings, plan, seed, f"{contender.name}, {origin.partition(' of ')[0]}", network)
                )
                whose.append((contender, origin))
    outcomes = list(zip(whose, trainings.train("choosing", wanted), strict=True)) if wanted else []
    for contender in contenders:
        mine = [(origin, t) for (c, origin), t in outcomes if c is contender]
        contender.tried |= {trainings.key(t.wanted): t for _, t in mine}
        contender.origin, contender.network = contender.candidates[0]
        if mine:
            best = _best([t for _, t in mine])
            if best is None and contender.name == FOUND:
                failure = mine[0][1].result.failure
                raise ChildFailed(
                    f"none of the {len(mine)} best architectures could be trained again; the first: "
                    f"{failure.message if failure else 'stopped'}"
                )
            if best is not None:
                contender.origin, contender.network = next((o, t.wanted.network) for o, t in mine if t is best)
        contender.parameters = _parameters(contender.network, trainings.evaluator)


def _note_twins(contenders: Sequence[Contender], notes: list[str]) -> None:
    found = contenders[0]
    for other in contenders[1:]:
        assert found.network is not None
        assert other.network is not None
        if other.network.genotype == found.network.genotype:
            notes.append(f"{other.called[0].upper()}{other.called[1:]} is the found network itself.")


def _tune(
    contenders: Sequence[Contender],
    trainings: Trainings,
    plan: FinishPlan,
    points: Sequence[Mapping[str, Any]],
    seed: int,
    notes: list[str],
) -> None:
    """The best settings of each, by validation. The evaluator's own are among them, and win a tie."""
    if len(points) < 2:
        return
    wanted, whose = [], []
    for contender in contenders:
        assert contender.network is not None
        for point in _undecided(contender, points, trainings.evaluator, notes):
            label = f"{contender.name}, " + (", ".join(f"{k}={v}" for k, v in point.items()) or "as searched")
            wanted.append(_tuning(trainings, plan, seed, label, contender.network, point))
            whose.append(contender)
    outcomes = list(zip(whose, trainings.train("tuning", wanted), strict=True))
    for contender in contenders:
        mine = [t for c, t in outcomes if c is contender]
        contender.tried |= {trainings.key(t.wanted): t for t in mine}
        best = _best(mine)
        if best is not None:
            contender.settings = best.wanted.settings
        failed = [t for t in mine if t.reward is None]
        if failed:
            reasons = ", ".join(sorted({t.result.failure.reason if t.result.failure else "stopped" for t in failed}))
            notes.append(f"{len(failed)} of {len(mine)} settings of {contender.called} failed: {reasons}.")


def _undecided(
    contender: Contender, points: Sequence[Mapping[str, Any]], evaluator: Finishable, notes: list[str]
) -> list[Mapping[str, Any]]:
    """The points without the settings that the network's genotype decides, each once: it has priority over a plan."""
    assert contender.network is not None
    decided = contender.network.build(evaluator).settings
    names = sorted({name for point in points for name in point if name in decided})
    if names:
        notes.append(
            f"The genotype of {contender.called} decides {', '.join(names)}, so the plan's values were not tried."
        )
    left: list[Mapping[str, Any]] = []
    for point in points:
        own = {name: value for name, value in point.items() if name not in decided}
        if own not in left:
            left.append(own)
    return left


def _tuning(
    trainings: Trainings,
    plan: FinishPlan,
    seed: int,
    label: str,
    network: Network,
    settings: Mapping[str, Any] | None = None,
) -> Wanted:
    epochs = plan.tuning_epochs if plan.tuning_epochs is not None else trainings.evaluator.epochs
    return Wanted(label, network, settings or {}, epochs, derive_seed(seed, "finish", "tune"))


def _best(trained: Sequence[Trained]) -> Trained | None:
    """The highest validation reward; of equals the first."""
    done = [t for t in trained if t.reward is not None]
    return max(done, key=lambda t: t.reward if t.reward is not None else 0.0) if done else None


def _train_finals(
    contenders: Sequence[Contender], trainings: Trainings, plan: FinishPlan, seed: int, notes: list[str]
) -> None:
    """Each network from the same seeds, so that they are compared in pairs."""
    epochs = plan.epochs if plan.epochs is not None else 3 * trainings.evaluator.epochs
    for contender in contenders:
        contender.settings = _stretched(contender.settings, trainings.evaluator, plan, epochs)
    wanted = [
        Wanted(
            label=f"{contender.name}, seed {i + 1} of {plan.seeds}",
            network=contender.network,  # type: ignore[arg-type]
            settings={**plan.final, **contender.settings},
            epochs=epochs,
            seed=derive_seed(seed, "finish", "final", i),
            all_data=plan.all_data,
            keep=True,
        )
        for contender in contenders
        for i in range(plan.seeds)
    ]
    outcomes = trainings.train("final training", wanted)
    for k, contender in enumerate(contenders):
        contender.finals = outcomes[k * plan.seeds : (k + 1) * plan.seeds]
        failed = [t for t in contender.finals if t.reward is None]
        if failed and contender.name == FOUND and len(failed) == plan.seeds:
            failure = failed[0].result.failure
            raise ChildFailed(
                f"no final training of the found network came to its end: {failure.message if failure else 'stopped'}. "
                "The test set was not looked at"
            )
        if failed:
            notes.append(f"{len(failed)} of {plan.seeds} final trainings of {contender.called} failed.")
    _note_latencies(contenders, trainings.reward, notes)


def _note_latencies(contenders: Sequence[Contender], reward: Reward, notes: list[str]) -> None:
    """How fast each is, where the search judged that too: the test does not."""
    if not isinstance(reward, LatencyWeighted):
        return
    said = []
    for contender in contenders:
        measured = [t.result.metrics[reward.latency] for t in contender.finals if reward.latency in t.result.metrics]
        if measured:
            said.append(f"{contender.name} {median(measured):.3g} ms")
    if said:
        notes.append(
            f"Latency, which the search judged too (target {reward.target:g} ms) and the test does not: {', '.join(said)}."
        )


def _stretched(settings: Mapping[str, Any], evaluator: Finishable, plan: FinishPlan, epochs: int) -> Mapping[str, Any]:
    """The settings with those that count epochs grown from a tuning's length to a final training's."""
    tuned = plan.tuning_epochs if plan.tuning_epochs is not None else evaluator.epochs
    grown = dict(settings)
    for name in plan.stretch:
        own = getattr(evaluator, name)
        value = settings.get(name, plan.final.get(name, own))
        if isinstance(value, int) and not isinstance(value, bool) and epochs != tuned:
            grown[name] = max(1, round(value * epochs / tuned))
    return grown


def _parameters(network: Network, evaluator: Finishable) -> int:
    from archsmith.nn.count import count_parameters

    return count_parameters(network.build(evaluator).model)
