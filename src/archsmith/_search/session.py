"""Starts and resumes searches: checks the arguments, records them, and runs the loop."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from archsmith._search.collecting import collect
from archsmith._search.data_check import check_same_data
from archsmith._search.default_executor import default_executor, recorded_clock, warn_of_limits
from archsmith._search.known_points import KnownPoint, genotypes_of, recorded_first
from archsmith._search.loop import Loop, Watch, replay
from archsmith._search.rewarding import missing_rewards, record_rewards, reward_for, reward_to_go_on_with
from archsmith._search.run import Run
from archsmith._search.space_check import check_same_space
from archsmith._search.start_phase import cannot_learn, random_trials
from archsmith.core import data_records, loaded
from archsmith.core.artifacts import open_artifacts
from archsmith.core.budget import Budget
from archsmith.core.checks import whole_number
from archsmith.core.child import AnyTask, Task
from archsmith.core.config import same_config, to_config
from archsmith.core.data_changes import DOCUMENT, contents_of
from archsmith.core.data_records import data_record
from archsmith.core.errors import DataError, RunExists, RunLocked, StoreError, StoreLost, UsageError
from archsmith.core.evaluator import (
    ChecksSpace,
    DescribesData,
    Evaluator,
    FunctionEvaluator,
    IdentifiesData,
    Limits,
    as_evaluator,
    counts_epochs,
    epoch_cost,
    epochs_of,
    with_data,
    without_data,
)
from archsmith.core.executor import Executor, HasClock, Reward, TrainsInCompleted, derive_seed
from archsmith.core.finish import Finishable, measure_of, missing_of
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.global_state import generators_kept
from archsmith.core.hosting import HasHost
from archsmith.core.questions import DOCUMENT as QUESTIONS
from archsmith.core.questions import questions_of
from archsmith.core.searcher import ClosableSearcher, HostedSearcher, LiveSearcher, Searcher
from archsmith.core.shown import without_passwords
from archsmith.core.space import FunctionSpace, Space, as_space, default_task, sample
from archsmith.core.space import build as build_child
from archsmith.core.stopping import LiveRule, Rule
from archsmith.core.store import Registered, RunWriter, Store
from archsmith.core.walk import Choose
from archsmith.searchers.random import Random
from archsmith.spaces import Backbone
from archsmith.spaces.backbone import with_module
from archsmith.store import open_store
from archsmith.store.snapshot import dump_state

if TYPE_CHECKING:
    import torch

DEFAULT_STORE = "sqlite:///runs.db"
SAME_DATA = "A run goes on with the data it began with; name the right place with --data, or begin a new run"


@generators_kept()
def search(
    space: Space | Callable[[Choose], Architecture],
    evaluator: Evaluator | Callable[[Architecture], Any],
    *,
    searcher: Searcher | None = None,
    reward: Reward | None = None,
    trials: int | None = 200,
    seconds: float | None = None,
    epochs: float | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | Store = DEFAULT_STORE,
    name: str | None = None,
    seed: int = 0,
    build: Callable[[Architecture, Task], Any] | None = None,
    limits: Limits | None = None,
    stopping: Rule | None = None,
    first: Iterable[KnownPoint] = (),
    note: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Run:
    """Search a space: propose, train, reward, tell, until the budget ends; gives the run.

    The global generators of `random`, numpy and torch are restored at the end, also if it raises.

    Args:
        space: one of `archsmith.spaces`, or a plain function of `choose`.
        evaluator: one of `archsmith.training`, or a callable of an architecture that returns a number or a dict.
        searcher: what proposes (default: `Random`, the control of every comparison).
        reward: what is made of a result (default: the evaluator's own).
        trials, seconds, epochs: the budget; whichever ends first.
        workers: how many children are trained side by side; more than one is a pool of processes, one thread each.
        executor: where children are trained, in place of `workers`.
        store: where the run is kept: a URL, the path of an SQLite file, or "memory://".
        name: the run's name there (default: made from the space and the searcher).
        seed: all randomness of the run comes from it.
        build: for a space that is a function: from architecture and task to a child.
        limits: what one child may use. A plain function with limits on seconds or memory runs in a worker process, even
            with workers=1: there it can be killed, and it does not change objects of this process. A warning says if it
            cannot be sent there, or if `executor=InProcess()` is given.
        stopping: one of `archsmith.stopping`, which ends hopeless children early (default: all are trained to their end).
        first: known points of the space, which are proposed first, in this order. The searcher learns from their results.
            They are genotypes, architectures, networks of `archsmith.discovered`, trials, or runs (their best trial).
        note: further JSON to keep with the run's configuration, such as the recipe's name.
        watch: called with each trial that changes state, and with each epoch.

    Raises:
        UsageError: an argument does not fit; nothing has been recorded.
        RunExists: the store has a run of that name.
        AllTrialsFailed: the first ten trials failed, or all trials of the budget. Correct the cause and resume.
        NoReward: the results lack a metric that the reward needs. `resume(reward=...)` computes their rewards.
        KeyboardInterrupt: Ctrl-C; the run is closed, and `open_run(store, name).resume()` goes on.
    """
    space = as_space(space, build)
    evaluator = as_evaluator(evaluator)
    searcher = _checked_searcher(searcher)
    reward = reward_for(evaluator, reward)
    budget = Budget(trials=trials, seconds=seconds, epochs=epochs)
    _check_epochs(budget, evaluator)
    limits = limits if limits is not None else Limits()
    rule = _rule(stopping, evaluator)
    seed = whole_number(seed, "seed")
    live = searcher.start(space, derive_seed(seed, "searcher"))
    _check(space, evaluator)
    questions = questions_of(space)
    known = genotypes_of(space, first)
    start_phase = random_trials(searcher, space)
    child_epochs = epochs_of(evaluator)
    child_cost = None if child_epochs is None else child_epochs * epoch_cost(evaluator)
    if (remark := cannot_learn(type(searcher).__name__, start_phase, budget, child_cost)) is not None:
        warnings.warn(remark, stacklevel=3)  # one more for generators_kept
    config = {
        "space": to_config(space),
        "evaluator": to_config(evaluator),
        "searcher": to_config(searcher),
        "reward": to_config(reward),
        "budget": vars(budget) | {},
        "limits": vars(limits) | {},
        "stopping": to_config(stopping),
        "first": [genotype.to_json() for genotype in known],
        "child_epochs": child_epochs,
        **({} if epoch_cost(evaluator) == 1 else {"epoch_cost": epoch_cost(evaluator)}),
        "random_trials": start_phase,
        "seed": seed,
        "measure": measure_of(evaluator).to_json() if hasattr(evaluator, "measure") else None,
        "finishable": missing_of(evaluator) is None,
        "versions": versions(),
        "command": _command(),
        "note": dict(note or {}),
    }
    _check_executor(executor)
    if executor is None:
        executor = default_executor(workers, space=space, evaluator=evaluator, reward=reward, limits=limits)
    warn_of_limits(limits, evaluator, executor)
    with closing(executor), loaded.pinned(evaluator):
        config |= {"workers": executor.slots, **recorded_clock(executor), **_data_of(evaluator)}
        documents = {
            QUESTIONS: questions,
            DOCUMENT: contents_of(evaluator),
            data_records.DOCUMENT: data_record(evaluator),
        }
        opened = open_store(store)
        _check_artifacts(opened)
        _place(live, executor)
        dump_state(live.state_dict())  # a state that cannot be stored is refused before anything is trained
        name, run = _created(opened, name, config, space, searcher)
        try:
            for key, document in documents.items():
                if document:
                    run.put_document(key, document)
            _keep_time(run, executor)
        except BaseException:
            run.close()
            raise
        loop = Loop(
            space=space,
            evaluator=evaluator,
            reward=reward,
            searcher=live,
            executor=executor,
            run=run,
            budget=budget,
            seed=seed,
            limits=limits,
            artifacts=opened.artifacts,
            watch=watch,
            collect=partial(collect, opened),
            rule=rule,
            first=known,
        )
        _session(loop)
    return Run(opened, name, space=space, evaluator=evaluator, reward=reward)


@generators_kept()
def resume(
    run: Run,
    *,
    trials: int | None,
    seconds: float | None,
    epochs: float | None,
    workers: int | None,
    executor: Executor | None,
    data: Any,
    space: Space | Callable[[Choose], Architecture] | None,
    evaluator: Evaluator | Callable[[Architecture], Any] | None,
    searcher: Searcher | None,
    reward: Reward | None,
    stopping: Rule | None,
    build: Callable[[Architecture, Task], Any] | None,
    watch: Watch | None,
) -> Run:
    """Go on with a run; see `Run.resume`."""
    config = run.config
    space = _given_space(run, space, build) if space is not None else run.space
    evaluator = as_evaluator(evaluator) if evaluator is not None else run.evaluator
    if data is not None:
        moved = with_data(evaluator, os.fspath(data) if isinstance(data, os.PathLike) else data)
        if moved is None:
            raise UsageError(f"data= relocates a data set, and the evaluator of run {run.name!r} has none")
        evaluator = moved
    check_same_data(run, evaluator, SAME_DATA)
    check_same_space(run, space, trials=True)
    searcher = searcher if searcher is not None else run.made("searcher", config["searcher"])
    reward = reward_to_go_on_with(run, evaluator, reward)
    if stopping is None:
        stopping = run.made("stopping", config.get("stopping"))
    for part, given in (("space", space), ("searcher", searcher), ("stopping", stopping)):
        recorded = config.get(part)  # runs from before there were rules have none
        if not (
            _is_space(recorded, space) if part == "space" else same_config(recorded, to_config(given), any_module=True)
        ):
            raise _another(run, part, recorded, given)
    rule = _rule(stopping, evaluator)
    old = Budget(**config["budget"])
    budget = old
    if trials is not None or seconds is not None or epochs is not None:
        budget = Budget(trials=trials, seconds=seconds, epochs=epochs)
        made = sum(run.summary.counts.values())
        if trials is not None and trials < made:
            raise UsageError(f"run {run.name!r} has {made} trials already; a budget of {trials} is less than that")
    _check_epochs(budget, evaluator)
    rewards = missing_rewards(run, reward)
    # Where its budget was used up, a session would only add to its clock.
    if budget == old and run.summary.status == "finished" and not rewards:
        return Run(run.store, run.name, space=space, evaluator=evaluator, reward=reward)
    simulated, limits = config.get("clock"), Limits(**config["limits"])
    _check_executor(executor)
    if executor is None:
        executor = default_executor(
            workers or config["workers"],
            space=space,
            evaluator=evaluator,
            reward=reward,
            limits=limits,
            simulated=simulated,
        )
    with closing(executor) as used, loaded.pinned(evaluator):
        if (simulated is not None) is not isinstance(used, HasClock):
            kept, other = ("the wall's", "a simulated one") if simulated is None else ("a simulated one", "the wall's")
            raise UsageError(
                f"the clock of run {run.name!r} is {kept}, and {type(used).__name__} goes by {other}; "
                "a run goes on by the clock that it began with"
            )
        _check_artifacts(run.store)
        writer = run.store.write(run.name)
        _keep_time(writer, used)
        try:
            if budget != old:
                writer.configure({"budget": vars(budget) | {}})
            if not same_config(config["reward"], to_config(reward), any_module=True):
                writer.configure({"reward": to_config(reward)})
            live = _checked_searcher(searcher).start(space, derive_seed(config["seed"], "searcher"))
            _place(live, used)
            known = recorded_first(config)
            replay(writer, live, len(known))
            if rewards:
                record_rewards(writer, live, rewards)
        except BaseException:
            writer.close()
            raise
        loop = Loop(
            space=space,
            evaluator=evaluator,
            reward=reward,
            searcher=live,
            executor=used,
            run=writer,
            budget=budget,
            seed=config["seed"],
            limits=limits,
            artifacts=run.store.artifacts,
            watch=watch,
            collect=partial(collect, run.store),
            rule=rule,
            first=known,
        )
        _session(loop)
    return Run(run.store, run.name, space=space, evaluator=evaluator, reward=reward)


def open_run(
    store: str | os.PathLike[str] | Store,
    name: str,
    *,
    space: Space | Callable[[Choose], Architecture] | None = None,
    build: Callable[[Architecture, Any], Any] | None = None,
    evaluator: Evaluator | Callable[[Architecture], Any] | None = None,
) -> Run:
    """A run that is in a store.

    Args:
        store, name: where it is.
        space, build, evaluator: as for `search`, if they are your own. Those that archsmith ships are made again from the
            record, and those of a FILE.py are loaded from it, so that you need not give them. A `spaces.Backbone` is enough also
            where it is a part of the run's space.

    Raises:
        UnknownName: the store has no such run; the message has the nearest names.
        UsageError: the space or the evaluator differs from the recorded one.
    """
    run = Run(open_store(store), name)
    if build is not None and space is None:
        raise UsageError("build= is for a space that is a plain function; give space= as well")
    given_space = None if space is None else _given_space(run, space, build)
    given_evaluator = None if evaluator is None else as_evaluator(evaluator)
    recorded = run.config
    if given_space is not None and not _is_space(recorded["space"], given_space):
        raise _another(run, "space", recorded["space"], given_space)
    if given_space is not None:
        check_same_space(run, given_space)
    if given_evaluator is not None and not _is_evaluator(recorded["evaluator"], given_evaluator):
        raise _another(run, "evaluator", recorded["evaluator"], given_evaluator)
    return Run(run.store, name, space=given_space, evaluator=given_evaluator)


def _given_space(
    run: Run, space: Space | Callable[[Choose], Architecture], build: Callable[[Architecture, Any], Any] | None
) -> Space:
    """The space that was given for a run. Where it is a backbone, the run's own space, with the module of that."""
    given = as_space(space, build)
    return with_module(Run(run.store, run.name).space, given) if isinstance(given, Backbone) else given


def _is_space(recorded: Any, space: Space) -> bool:
    """Whether a space is the recorded one. A function may have got a builder since."""
    config = to_config(space)
    if isinstance(space, FunctionSpace) and isinstance(recorded, Mapping) and recorded.get("builder") is None:
        config = {**config, "builder": None}
    return same_config(recorded, config, any_module=True)


def _is_evaluator(recorded: Any, evaluator: Evaluator) -> bool:
    """Whether an evaluator is the recorded one. The place of its data does not matter; their content is compared elsewhere."""
    return same_config(without_data(recorded), without_data(to_config(evaluator)), any_module=True)


def _another(run: Run, part: str, recorded: Any, given: Any) -> UsageError:
    return UsageError(
        f"run {run.name!r} was begun with another {part}: recorded {recorded}, given {to_config(given)}; "
        "begin a new run for another configuration"
    )


def build(
    space: Space | Callable[[Choose], Architecture],
    genotype_or_architecture: Genotype | Architecture,
    *,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    task: AnyTask | None = None,
    build: Callable[[Architecture, Any], Any] | None = None,
) -> torch.nn.Module:
    """The network of a genotype or an architecture, freshly initialised, as layers of torch are: from torch's generator.

    Args:
        space: one of `archsmith.spaces`, or a plain function of `choose`, with `build`.
        genotype_or_architecture: a genotype may be its JSON as well.
        input_shape, num_classes: for images: (channels, height, width), and the classes (default: 3x32x32 and 10).
        task: for anything else, such as `TextTask(vocabulary=10_000, hidden=650)`. Without any of these the network is
            built for the task of the space: a language model of recurrent cells, for one.
        build: for a space that is a function: from architecture and task to a child.
    """
    thing = genotype_or_architecture
    if isinstance(thing, Mapping) and set(thing) == {"space", "answers"}:
        thing = Genotype.from_json(thing)
    space = as_space(space, build)
    if input_shape is not None or num_classes is not None:
        if task is not None:
            raise UsageError(
                f"give either a task or input_shape and num_classes, which are the task of images, got {task}"
            )
        task = Task(
            input_shape if input_shape is not None else (3, 32, 32), num_classes if num_classes is not None else 10
        )
    return build_child(space, thing, default_task(space) if task is None else task).model


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("archsmith", "torch", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _command() -> str:
    """The command line without the path of archsmith, since exports carry it to other machines."""
    typed = ["archsmith" if _is_ours(part) else part for part in sys.argv[:1]]
    return without_passwords(shlex.join([*typed, *sys.argv[1:]]))


def _is_ours(program: str) -> bool:
    """Whether a program's path is that of the command line, also where that was begun by `python -m archsmith`."""
    folder, name = os.path.split(program)
    return name == "archsmith" or (name == "__main__.py" and os.path.basename(folder) == "archsmith")


def _session(loop: Loop) -> None:
    """Run the loop, and close its run in any case."""
    if isinstance(loop.executor, TrainsInCompleted):
        loop.executor.on_progress = loop.progress
    status = "interrupted"
    try:
        loop.go()
        status = "finished"
    finally:
        if isinstance(loop.searcher, ClosableSearcher):
            loop.searcher.close()
        try:
            loop.run.close(status)
        except StoreLost:
            raise  # it says where all that was recorded is now
        except StoreError:
            if status == "finished":
                raise


def _check_artifacts(store: Store) -> None:
    """Raise StoreError if weights cannot be kept, before a child is trained whose weights would be lost."""
    if store.artifacts is not None:
        artifacts = open_artifacts(store.artifacts)
        artifacts.check()
        if isinstance(store, Registered) and artifacts.size():  # they may be this store's, and older than the registry
            store.register()


def _place(searcher: LiveSearcher, executor: Executor) -> None:
    """Start the parts of a searcher on the executor's host, if it has one."""
    if isinstance(executor, HasHost) and isinstance(searcher, HostedSearcher):
        searcher.place(executor.host)


def _keep_time(run: RunWriter, executor: Executor) -> None:
    """Use the executor's clock, if it has one, before anything is recorded."""
    if isinstance(executor, HasClock):
        run.keep_time(executor.clock)


def _data_of(evaluator: Evaluator) -> dict[str, Any]:
    """The fingerprint and the description of the data, from evaluators that have them."""
    return {
        "data": evaluator.fingerprint() if isinstance(evaluator, IdentifiesData) else None,
        "dataset": evaluator.describe_data() if isinstance(evaluator, DescribesData) else None,
    }


def _check_executor(executor: Executor | None) -> None:
    if executor is not None and not isinstance(executor, Executor):
        raise UsageError(
            f"executor must be one of archsmith.executors, such as InProcess() or ProcessPool(2), got {executor!r}"
        )


def _checked_searcher(searcher: Searcher | None) -> Searcher:
    if searcher is None:
        return Random()
    if isinstance(searcher, type) or not isinstance(searcher, Searcher):
        raise UsageError(f"searcher must be one of archsmith.searchers, such as Reinforce(), got {searcher!r}")
    return searcher


def _rule(stopping: Rule | None, evaluator: Evaluator) -> LiveRule | None:
    if stopping is None:
        return None
    if isinstance(stopping, type) or not isinstance(stopping, Rule):
        raise UsageError(f"stopping must be one of archsmith.stopping, such as ASHA(), got {stopping!r}")
    says = hasattr(evaluator, "measure") or isinstance(evaluator, Finishable)  # others report what they like
    return stopping.start(measure_of(evaluator) if says else None, epochs_of(evaluator))


def _check_epochs(budget: Budget, evaluator: Evaluator) -> None:
    """Raise UsageError for a budget in epochs if the evaluator reports none, since it would never be used up."""
    if budget.epochs is not None and counts_epochs(evaluator) is False:
        said = "a plain function" if isinstance(evaluator, FunctionEvaluator) else type(evaluator).__name__
        raise UsageError(
            f"a budget of {budget.epochs:g} epochs would never be used up: {said} reports no epochs; give a "
            "budget in trials or seconds, or an evaluator that calls context.report(epoch, metrics) after each epoch"
        )


def _check(space: Space, evaluator: Evaluator) -> None:
    """Walk the space once with all checks, so that a mistake in it is found before anything is recorded."""
    from random import Random as Rng

    from archsmith.core.space import decode, trace

    if isinstance(space, FunctionSpace) and space.builder is None and hasattr(evaluator, "task"):
        raise UsageError(
            f"{type(evaluator).__name__} trains children, and nothing builds those of a space that is a function; "
            "give search(..., build=...): from architecture and task to a torch.nn.Module"
        )
    check_enough(evaluator)
    genotype = sample(space, Rng(0))
    trace(space, genotype.answers)
    decode(space, Genotype.from_json(genotype.canonical))
    if isinstance(evaluator, ChecksSpace):
        evaluator.check_space(space)


def check_enough(evaluator: Any) -> None:
    """Raise DataError if the data do not fill a single step of training: every child would fail."""
    if hasattr(evaluator, "steps_per_epoch") and evaluator.steps_per_epoch() < 1:
        described = evaluator.describe_data()
        raise DataError(
            f"{described['name']} is too small: the {described['train']:,} that there are to train with do not fill one "
            "step of training, so every child would fail; give more data"
        )


def _created(
    store: Store, name: str | None, config: Mapping[str, Any], space: Space, searcher: Searcher
) -> tuple[str, RunWriter]:
    """A new run. Without a name it gets a free one, also if several runs begin at the same moment."""
    from archsmith.core.space import identity

    if name is not None:
        return name, store.create(name, config)
    stem = f"{identity(space)['name']}-{type(searcher).__name__}".lower()
    taken = {run.name for run in store.runs()}
    for i in itertools.count(1):
        if f"{stem}-{i}" not in taken:
            with suppress(RunExists, RunLocked):  # another process was faster
                return f"{stem}-{i}", store.create(f"{stem}-{i}", config)
    raise AssertionError("numbers do not end")
