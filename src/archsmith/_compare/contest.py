"""Many searches in one go: each searcher with each seed, what the store has not yet, under names that find them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from archsmith.core.budget import Budget
from archsmith.core.checks import Array, python_scalar
from archsmith.core.config import same_config, to_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.evaluator import without_data
from archsmith.core.executor import HasClock
from archsmith.core.searcher import Searcher
from archsmith.recipes.claim import Claim
from archsmith.recipes.recipe import Recipe

if TYPE_CHECKING:
    from archsmith._search.run import Run
    from archsmith.core.executor import Executor

MOST_SEEDS = 10_000


def arms_of(what: Recipe | Claim, searchers: Mapping[str, Searcher] | None, trials: int | None) -> dict[str, Recipe]:
    """What is to be run, by name, with equal budgets. Raises UsageError when that is no comparison."""
    if isinstance(what, Claim):
        if searchers is not None:
            raise UsageError(f"the claim {what.name!r} has searchers of its own; compare others by a recipe")
        arms = dict(what.arms)
    else:
        if not searchers:
            raise UsageError(
                f"name the searchers that are to run the recipe {what.name!r}: compare(..., searchers={{...}})"
            )
        arms = {str(name): replace(what, searcher=searcher) for name, searcher in searchers.items()}
    if trials is not None:
        arms = {name: replace(recipe, budget=Budget(trials=trials)) for name, recipe in arms.items()}
    names = list(arms)
    configs = [_parts(recipe) for recipe in arms.values()]
    for i, config in enumerate(configs):
        if (first := configs.index(config)) != i:
            raise UsageError(f"{names[first]} and {names[i]} are the same search; name each once")
    return arms


def searcher_of(name: str, recipe: Recipe) -> Searcher:
    """The searcher of that name with its paper's settings ("random", "reinforce", "regularized_evolution", ...), one of
    Optuna's samplers ("tpe", "nsga2", "cmaes", "gp"), or the recipe's own ("recipe"). Raises UnknownName."""
    import archsmith.searchers
    from archsmith.searchers.optuna import SAMPLERS

    if name == "recipe":
        return recipe.searcher
    if name in SAMPLERS:
        return archsmith.searchers.Optuna(name)
    classes = {snake(name): getattr(archsmith.searchers, name) for name in archsmith.searchers.__all__}
    # "nsga2" is Optuna's, of one reward: what is compared here has one. Ours is of several objectives.
    known = {n: cls for n, cls in classes.items() if callable(getattr(cls, "start", None)) and n not in SAMPLERS}
    if name not in known:
        raise UnknownName("searcher", name, [*known, *SAMPLERS, "recipe"])
    made: Searcher = known[name]()
    return made


def snake(name: str) -> str:
    """RegularizedEvolution -> "regularized_evolution"; PPO -> "ppo"."""
    if name.isupper():
        return name.lower()
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def contest(
    stem: str,
    arms: Mapping[str, Recipe],
    seeds: int | Sequence[int],
    *,
    store: str,
    workers: int = 1,
    executor: Callable[[], Executor] | None = None,
    told: Callable[[Run, int, int], None] | None = None,
) -> list[Run]:
    """A finished run of every arm with every seed, by arms. Those that are there are gone on with, or taken as they are.

    Seed by seed, so that one that is interrupted has all arms alike.
    """
    from archsmith.store import open_store

    chosen = _chosen(seeds)
    opened = open_store(store)
    there = {run.name for run in opened.runs()}
    made: dict[tuple[str, int], Run] = {}
    for seed in chosen:
        for arm, recipe in arms.items():
            name = f"{stem}-{arm}-{seed}"
            run = _run(opened, name, arm, recipe, seed, name in there, workers, executor() if executor else None)
            made[arm, seed] = run
            if told is not None:
                told(run, len(made), len(arms) * len(chosen))
    return [made[arm, seed] for arm in arms for seed in chosen]


def _run(
    store: Any,
    name: str,
    arm: str,
    recipe: Recipe,
    seed: int,
    there: bool,
    workers: int,
    executor: Executor | None,
) -> Run:
    from archsmith._search.run import Run
    from archsmith._search.session import search
    from archsmith._search.space_check import check_same_space

    if not there:
        return search(
            recipe.space,
            recipe.evaluator,
            searcher=recipe.searcher,
            reward=recipe.reward,
            **vars(recipe.budget),
            workers=workers,
            executor=executor,
            store=store,
            name=name,
            seed=seed,
            limits=recipe.limits,
            note={"recipe": recipe.name, "scale": recipe.scale, "arm": arm, **_origin(recipe)},
        )
    run = Run(store, name, space=recipe.space, evaluator=recipe.evaluator)
    config = run.config
    recorded = {**_parts(recipe), "seed": seed}
    different = [part for part in recorded if not same_config(_placeless(config.get(part)), recorded[part])]
    kept, clock = config.get("clock"), executor.clock if isinstance(executor, HasClock) else None
    if (kept is None) != (clock is None) or (executor is not None and kept and executor.slots != config["workers"]):
        raise UsageError(
            f"the store has a run {name!r} already, and its workers are {_workers(config['workers'], kept)}, where "
            f"{_workers(executor.slots if executor else workers, clock)} are wanted; take another store"
        )
    if different:
        raise UsageError(
            f"the store has a run {name!r} already, and its {different[0]} is another: recorded "
            f"{config.get(different[0])}, wanted {recorded[different[0]]}; take another store, or give the recipe another name"
        )
    check_same_space(run, recipe.space)
    budget = recipe.budget
    if run.summary.status == "finished" and (budget == Budget(**config["budget"]) or _has(run, budget)):
        return run
    return run.resume(
        **{**vars(budget), "trials": max(budget.trials, sum(run.summary.counts.values())) if budget.trials else None},
        workers=workers if executor is None and config.get("clock") is None else None,
        executor=executor,
        searcher=recipe.searcher,
        reward=recipe.reward,
    )


def _origin(recipe: Recipe) -> dict[str, Any]:
    """The recipe file that the recipe came from, if any."""
    return {"file": dict(recipe.file)} if recipe.file is not None else {}


def _workers(number: int, clock: object) -> str:
    return f"{number} simulated ones" if clock is not None else "real ones"


def _has(run: Run, budget: Budget) -> bool:
    return budget.trials is not None and sum(run.summary.counts.values()) >= budget.trials


def _parts(recipe: Recipe) -> dict[str, Any]:
    """What a run of the recipe is, as its record has it, but for where its data lie."""
    from archsmith.rewards import default_reward

    reward = recipe.reward if recipe.reward is not None else default_reward(recipe.evaluator)
    parts = {"space": recipe.space, "evaluator": recipe.evaluator, "searcher": recipe.searcher, "reward": reward}
    return {name: _placeless(to_config(part)) for name, part in parts.items()} | {"limits": vars(recipe.limits) | {}}


def _placeless(config: Any) -> Any:
    """Without the path of the data: a run tells those by their content."""
    if isinstance(config, Mapping) and str(config.get("type", "")).startswith("training."):
        return without_data(config)
    return config


def _chosen(seeds: int | Sequence[int]) -> list[int]:
    seeds = python_scalar(seeds)
    chosen = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1 else seeds
    if isinstance(chosen, Array | Sequence):
        chosen = [python_scalar(seed) for seed in chosen]
    if (
        not isinstance(chosen, Sequence)
        or not 1 <= len(chosen) <= MOST_SEEDS
        or len(set(chosen)) < len(chosen)
        or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in chosen)
    ):
        raise UsageError(
            f"seeds must be how many (1 to {MOST_SEEDS:,}), or different whole numbers from 0 on, got {seeds!r}"
        )
    return list(chosen)
