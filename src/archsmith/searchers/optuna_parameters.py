"""Questions of a space as Optuna's parameters, and back (`archsmith.searchers.optuna`).

- A choice is a categorical parameter, and a subset one for each of its options. Options that are three or more rising or
  falling numbers are one whole number, their place in the list: a sampler then knows that 48 lies between 36 and 64.
- CMA-ES knows numbers only, so to it every choice is its place in the list. Measured against a score for each option, of which the
  highest is the answer: no worse where the order means nothing, and better elsewhere.
- Questions that depend on answers: TPE is told which were asked, in groups of those asked together. The others need the same
  parameters in every trial, so they have all that 100 random genotypes ask; what is not asked is carried along unused, as
  dormant genes are. A question that was not among them is answered at random.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsmith.core.genotype import canonical_json
from archsmith.core.space import Space, sample, script, trace
from archsmith.core.walk import Question, option_index

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

_WALKS = 100  # random genotypes that the parameters are gathered from, where questions depend on answers


def parameters(question: Question, numbers: bool) -> dict[str, BaseDistribution]:
    """The parameters that a question comes to, by name; `numbers` where the sampler knows no others.

    A name tells questions apart that differ in their options: Optuna refuses one that changes its options.
    """
    from optuna.distributions import CategoricalDistribution, IntDistribution

    size = len(question.options)
    if question.subset:
        member: BaseDistribution = IntDistribution(0, 1) if numbers else CategoricalDistribution((0, 1))
        return {f"{question.name} {canonical_json(option)}": member for option in question.options}
    if size == 1:
        return {}
    places: BaseDistribution = CategoricalDistribution(tuple(range(size)))
    if numbers or _ordered(question.options):
        places = IntDistribution(0, size - 1)
    return {_key(question): places}


def every(space: Space, rng: random.Random, numbers: bool) -> dict[str, BaseDistribution]:
    """All parameters that the space's questions come to, by name; of what depends on answers, those that were met."""
    questions = script(space)
    if questions is None:
        walks = (trace(space, sample(space, rng).answers) for _ in range(_WALKS))
        questions = tuple({_key(question): question for walk in walks for question in walk}.values())
    found = {name: d for question in questions for name, d in parameters(question, numbers).items()}
    return dict(sorted(found.items()))


def read(question: Question, drawn: Mapping[str, Any], numbers: bool) -> int | list[int]:
    """The answer that parameters mean: the place of an option, or the places of a subset's."""
    values = [drawn[name] for name in parameters(question, numbers)]
    if question.subset:
        return [i for i, taken in enumerate(values) if taken]
    return int(values[0]) if values else 0


def write(question: Question, answer: Any, numbers: bool) -> dict[str, int]:
    """The parameters that mean an answer."""
    names = list(parameters(question, numbers))
    if question.subset:
        taken = {option_index(question.options, member) for member in answer}
        return {name: int(i in taken) for i, name in enumerate(names)}
    return dict.fromkeys(names, option_index(question.options, answer))


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """What Optuna draws for a parameter that it did not know before it was asked."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def at_random(distribution: BaseDistribution, rng: random.Random) -> Any:
    """Any value of a parameter, all alike."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, IntDistribution):
        return rng.randint(distribution.low, distribution.high)
    assert isinstance(distribution, CategoricalDistribution)
    return rng.choice(distribution.choices)


def _key(question: Question) -> str:
    """One text for each question that differs in name, options or kind of answer."""
    return f"{question.name} {canonical_json(question.options)}{'*' if question.subset else ''}"


def _ordered(options: Sequence[Any]) -> bool:
    """Whether options are three or more numbers that rise or fall."""
    if len(options) < 3 or any(type(option) not in (int, float) for option in options):
        return False
    return list(options) in (sorted(options), sorted(options, reverse=True))
