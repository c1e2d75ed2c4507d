"""Optuna's samplers as searchers (Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter Optimization Framework",
KDD): TPE, NSGA-II, CMA-ES and a Gaussian process. A thin adapter: Optuna proposes, archsmith keeps what happened.

Needs the extra: pip install 'archsmith[optuna]'.

Details:

- How questions become parameters: `archsmith.searchers.optuna_parameters`.
- A child that failed by itself, or was stopped on its way, counts as the worst reward so far: Optuna would ignore it, and
  a process that is never told would propose it for ever. Before any reward was seen, or where a worker died or training
  never began, it says nothing.
- Each proposal has a sampler of its own, seeded by the proposal's number, so what is proposed follows from the trials
  alone, and a search resumes by the trials: nothing of Optuna is kept. A Gaussian process therefore fits its kernel from
  its priors each time, where Optuna's begins at the last fit. CMA-ES has a state of its own, which is made again by repeating
  its proposals.
- The Gaussian process is told rewards that were clipped as `archsmith.searchers.reward_range` says; rewards from -10 to 100
  never are. The other samplers compare rewards, and are told them as they are.
- With `objectives`, TPE and NSGA-II are told several numbers and search a front. Without, NSGA-II is told the reward alone, so of
  its two sorts only the sort by dominance does anything.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.errors import ReplayMismatch, UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.pareto import check_objectives, objectives_of, signed_metric
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, next_question, script, trace
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.core.walk import Question, RecordingWalk
from archsmith.searchers.blas import one_blas_thread
from archsmith.searchers.optuna_parameters import at_random, every, parameters, read, suggest, write
from archsmith.searchers.reward_range import is_usual, range_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

__all__ = ["Optuna"]

Sampler = Literal["tpe", "nsga2", "cmaes", "gp"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
STARTUP, CMAES_STARTUP, NSGA2_POPULATION = 10, 1, 50  # Optuna's own


@dataclass(frozen=True)
class Optuna:
    """One of Optuna's samplers over a space's choices, with Optuna's own settings.

    Args:
        sampler: "tpe" (tree-structured Parzen estimator, multivariate), "nsga2", "cmaes", or "gp" (Gaussian process with
            expected improvement).
        n_startup_trials: how many are random before the sampler begins; of "tpe", "gp" and "cmaes". None is Optuna's: 10,
            10 and 1.
        population_size: of "nsga2" and "cmaes". None is Optuna's: 50, and 4 + 3 ln(parameters).
        objectives: of "tpe" and "nsga2": two metrics or more that are searched for together, as of `NSGA2`. None: the reward.
    """

    sampler: Sampler = "tpe"
    n_startup_trials: int | None = None
    population_size: int | None = None
    objectives: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.sampler not in SAMPLERS:
            raise UsageError(f"sampler of Optuna must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        for name, least, without in (("n_startup_trials", 1, ("nsga2",)), ("population_size", 2, ("tpe", "gp"))):
            value = getattr(self, name)
            if value is None:
                continue
            if self.sampler in without:
                raise UsageError(f"the sampler {self.sampler!r} of Optuna has no {name}; leave it out")
            whole_number(value, f"{name} of Optuna", least)
        if self.objectives is not None:
            if self.sampler not in ("tpe", "nsga2"):
                raise UsageError(f"the sampler {self.sampler!r} of Optuna has no objectives here; leave them out")
            object.__setattr__(self, "objectives", check_objectives("Optuna", self.objectives))

    def random_trials(self, space: Space) -> int:
        """The trials of the start-up, and of a first population that is drawn at random."""
        match self.sampler:
            case "nsga2":
                return self.population_size or NSGA2_POPULATION
            case "cmaes":
                size = max(1, len(every(space, random.Random(0), True)))
                return (self.n_startup_trials or CMAES_STARTUP) + (self.population_size or 4 + int(3 * math.log(size)))
            case _:
                return self.n_startup_trials or STARTUP

    def start(self, space: Space, seed: int) -> LiveOptuna:
        """A live one that was told nothing yet. Raises UsageError when the space asks nothing, or Optuna is not there."""
        if not hasattr(space, "architecture"):
            raise UsageError(
                f"Optuna answers the choices of a space, and {type(space).__name__} asks none; evolution fits it: "
                "RegularizedEvolution"
            )
        if next_question(space, [])[0] is None:
            raise UsageError(f"the space {identity(space)['name']!r} asks no choices, so there is nothing to choose")
        try:
            import cmaes  # noqa: F401
            import optuna  # noqa: F401
        except ImportError:
            raise UsageError("the searcher Optuna needs optuna and cmaes: pip install 'archsmith[optuna]'") from None
        return LiveOptuna(self, space, seed)


class LiveOptuna:
    """The search at work: a study in memory that is asked and told."""

    def __init__(self, config: Optuna, space: Space, seed: int) -> None:
        self._config = config
        self._space = space
        self._seed = seed
        self._objectives = None if config.objectives is None else [signed_metric(each) for each in config.objectives]
        self._begin()

    def _begin(self) -> None:
        import optuna

        with _quiet():
            self._storage = optuna.storages.InMemoryStorage()
            directions: list[Literal["minimize", "maximize"]] = ["maximize"]
            if self._objectives is not None:
                directions = ["minimize"] * len(self._objectives)
            self._study = optuna.create_study(storage=self._storage, directions=directions)
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._asked = self._told = 0
        self._worst: list[float] | None = None  # of each number
        self._rewards: dict[int, float] = {}  # of the study's trials that were told one
        self._answers: list[Mapping[str, Any]] = []  # of each of the study's trials
        self._running: dict[str, list[int]] = {}  # the study's trials by their genotypes' canonical texts
        self._order: list[int] = []  # what happened: _ASKED, _ADDED, or the number of the trial that was told
        self._numbers = self._config.sampler == "cmaes"
        self._box = self._gather()

    def _gather(self) -> dict[str, BaseDistribution] | None:
        """All parameters that the space's questions come to, or None where only those are suggested that are asked."""
        grouped = self._config.sampler == "tpe" and script(self._space) is None
        return (
            None if grouped else every(self._space, random.Random(derive_seed(self._seed, "parameters")), self._numbers)
        )

    @property
    def version(self) -> int:
        return self._told

    # --- proposing

    def ask(self, n: int) -> list[Proposal]:
        with one_blas_thread(), _quiet():
            return [Proposal(self._propose()) for _ in range(n)]

    def _propose(self) -> Genotype:
        """What a sampler with this proposal's seed answers, recorded as running."""
        number, self._asked = self._asked, self._asked + 1
        sampler = self._sampler(derive_seed(self._seed, "proposal", number) % 2**32)
        if (
            box := self._box
        ) is not None:  # Optuna would gather it from all trials each time, which is most of the time
            sampler.infer_relative_search_space = lambda study, trial: box  # type: ignore[method-assign]
        self._study.sampler = sampler
        trial = self._study.ask(self._box)
        drawn = dict(trial.params)
        rng = random.Random(derive_seed(self._seed, "unknown question", number))

        def answer(question: Question) -> int | list[int]:
            for name, distribution in parameters(question, self._numbers).items():
                if name not in drawn:
                    drawn[name] = (
                        suggest(trial, name, distribution) if self._box is None else at_random(distribution, rng)
                    )
            return read(question, drawn, self._numbers)

        walk = RecordingWalk(answer)
        self._space.architecture(walk)
        genotype = Genotype(identity(self._space), walk.answers)
        self._answers.append(walk.answers)
        self._running.setdefault(genotype.canonical, []).append(trial.number)
        self._order.append(-1)
        return genotype

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, TPESampler

        startup, population = self._config.n_startup_trials, self._config.population_size
        match self._config.sampler:
            case "tpe":
                return TPESampler(
                    seed=seed,
                    n_startup_trials=startup or STARTUP,
                    multivariate=True,
                    group=self._box is None,
                    constant_liar=True,
                )
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=population or NSGA2_POPULATION)
            case "cmaes":
                return CmaEsSampler(
                    seed=seed,
                    n_startup_trials=startup or CMAES_STARTUP,
                    popsize=population,
                    warn_independent_sampling=False,
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=startup or STARTUP, warn_independent_sampling=False)

    # --- learning

    def tell(self, trials: Sequence[Trial]) -> None:
        with _quiet():
            for trial in trials:
                self._told += 1
                values, failure = self._worst, trial.result.failure if trial.result else None
                if trial.state is TrialState.DONE and (self._objectives is not None or trial.reward is not None):
                    values = self._values(trial)
                    worse = min if self._objectives is None else max
                    self._worst = values if self._worst is None else list(map(worse, self._worst, values))
                elif trial.result is None or (failure and failure.reason == "worker"):
                    values = None
                number = self._number_of(trial.genotype)
                if number is None and values is not None:
                    number = self._add(trial.genotype.answers, self._known(trial.genotype.answers), {})
                    self._order.append(_ADDED)
                if number is not None:
                    if values is not None:
                        self._rewards[number] = values[0]
                    self._finish(number, values)
            self._clip()

    def _values(self, trial: Trial) -> list[float]:
        """What the study is told of a trial that is done: the reward, or the objectives, smaller where they are better."""
        if self._objectives is None:
            assert trial.reward is not None
            return [float(trial.reward)]
        return list(objectives_of("Optuna", trial, self._objectives))

    def _clip(self) -> None:
        """Have the Gaussian process learn from rewards clipped by the rule of `reward_range`: it computes with them, where the
        other samplers compare. What a reward counts as may change as others come, and a study cannot be told anew."""
        if self._config.sampler != "gp" or is_usual(self._rewards.values()):
            return
        clip = range_of(list(self._rewards.values())).clip
        values = {number: clip(reward) for number, reward in self._rewards.items()}
        told = {
            trial.number: trial.values[0]
            for trial in self._study.get_trials(deepcopy=False)
            if trial.values is not None
        }
        if values != told:
            state = self.state_dict()
            rows = [
                {**row, "values": [values[i]] if i in values else row["values"]}
                for i, row in enumerate(state["trials"])
            ]
            self._restore({**state, "trials": rows})

    def _number_of(self, genotype: Genotype) -> int | None:
        """Which of the study's running trials it is, the first of equal ones; None where it is none of them."""
        running = self._running.get(genotype.canonical)
        if running is None:
            return None
        number = running.pop(0)
        if not running:
            del self._running[genotype.canonical]
        return number

    def _finish(self, number: int, values: Sequence[float] | None) -> None:
        from optuna.trial import TrialState as Optunas

        self._study.tell(number, values, Optunas.FAIL if values is None else Optunas.COMPLETE)
        self._order.append(number)

    def _known(self, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters that mean a genotype's answers, and of questions that were not asked the first options."""
        said = {n: v for q in trace(self._space, answers) for n, v in write(q, answers[q.name], self._numbers).items()}
        if self._box is None:
            return said
        return {name: said.get(name, distribution.to_external_repr(0.0)) for name, distribution in self._box.items()}

    def _add(self, answers: Mapping[str, Any], params: Mapping[str, Any], attributes: Mapping[str, Any]) -> int:
        """A running trial that the study did not draw, or drew before it was made again; gives its number."""
        from optuna.trial import TrialState as Optunas
        from optuna.trial import create_trial

        known = self._box
        if known is None:
            known = {n: d for q in trace(self._space, answers) for n, d in parameters(q, self._numbers).items()}
        self._study.add_trial(
            create_trial(
                state=Optunas.RUNNING,
                params=dict(params),
                distributions={name: known[name] for name in params},
                system_attrs=dict(attributes),
            )
        )
        self._answers.append(answers)
        return len(self._answers) - 1

    def diagnostics(self) -> Mapping[str, float]:
        """How many trials Optuna was told of, and how many are running to it; its samplers show nothing of themselves."""
        running = sum(map(len, self._running.values()))
        return {"told": float(self._told), "running": float(running)}

    # --- state

    def state_dict(self) -> State:
        hidden = self._numbers  # what CMA-ES keeps beside its trials are pickles: made again by repeating
        study = self._study.get_trials(deepcopy=False)
        unfinished = {number for numbers in self._running.values() for number in numbers}
        kept = {"cmaes": set(), "nsga2": set(range(len(study)))}.get(self._config.sampler, unfinished)
        return {
            "seed": self._seed,
            "asked": self._asked,
            "told": self._told,
            "worst": self._worst,
            "trials": [
                {
                    "answers": dict(answers),
                    "params": {} if hidden else dict(trial.params),
                    "attributes": dict(trial.system_attrs) if trial.number in kept else {},
                    "running": not trial.state.is_finished(),
                    "values": trial.values,
                    "reward": self._rewards.get(trial.number),
                }
                for answers, trial in zip(self._answers, study, strict=True)
            ],
            "order": list(self._order),
            "study": {} if hidden else dict(self._storage.get_study_system_attrs(self._study_id)),
        }

    def load_state_dict(self, state: State) -> None:
        self._seed = int(state["seed"])
        self._restore(state)

    def _restore(self, state: State) -> None:
        self._begin()
        trials, space = [_with_values(row) for row in state["trials"]], identity(self._space)
        told = [(number, row.get("reward", (row["values"] or [None])[0])) for number, row in enumerate(trials)]
        self._rewards = {number: float(reward) for number, reward in told if reward is not None}
        with one_blas_thread(), _quiet():
            if self._config.sampler == "cmaes":
                self._repeat(state["order"], trials)
            else:
                for row in trials:
                    number = self._add(row["answers"], row["params"], row["attributes"])
                    if row["running"]:
                        text = Genotype(space, row["answers"]).canonical
                        self._running.setdefault(text, []).append(number)
                    else:
                        self._finish(number, row["values"])
                for key, value in state["study"].items():
                    self._storage.set_study_system_attr(self._study_id, key, value)
        self._order = [int(event) for event in state["order"]]
        self._asked, self._told, worst = int(state["asked"]), int(state["told"]), state["worst"]
        self._worst = [worst] if isinstance(worst, int | float) else worst

    def _repeat(self, order: Sequence[int], trials: Sequence[Mapping[str, Any]]) -> None:
        """Ask and tell in the order in which it was done."""
        for event in order:
            row = trials[event if event >= 0 else len(self._answers)]
            if event == _ASKED:
                if self._propose().answers != row["answers"]:
                    raise ReplayMismatch(
                        "CMA-ES did not propose again what it had proposed; resume with the versions of optuna and cmaes "
                        "that the search began with"
                    )
            elif event == _ADDED:
                self._add(row["answers"], self._known(row["answers"]), {})
            else:
                self._number_of(Genotype(identity(self._space), row["answers"]))
                self._finish(event, row["values"])


_ASKED, _ADDED = -1, -2  # events beside the numbers of trials that were told


def _with_values(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial of a state. Those of earlier versions have one value."""
    if "values" in row:
        return row
    return {**row, "values": None if row["value"] is None else [row["value"]]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing meanwhile: neither its log lines nor that a setting is experimental."""
    from optuna import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
