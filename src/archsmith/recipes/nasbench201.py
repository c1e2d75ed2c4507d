"""Searches over NAS-Bench-201 (Dong and Yang 2020), and what the papers claim of searchers, run on it.

Each of its 15,625 cells was trained, so a search of a thousand trials takes a second, and fifty seeds are no luxury. What
a searcher is told is the validation accuracy; how it is judged besides is regret by test accuracy, which it never sees.
"""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.recipes.claim import Claim, Expected
from archsmith.recipes.images import QUICK_CONTROLLER
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import latency_weighted
from archsmith.searchers import PPO, Random, RegularizedEvolution, Reinforce
from archsmith.spaces import NASBench201
from archsmith.training import Tabular

TABLE = "nb201.npz"

# The table has no times. A training is reckoned by its multiply-adds: three for each one forward (forward, and backward
# to the inputs and to the weights), 25,000 images an epoch, 3e11 a second: some 15 s for an epoch of the mean cell. How
# much longer one cell takes than another follows from the table; the scale is ours.
SECONDS_PER_MULTIPLY_ADD = 3 * 25_000 / 3e11

PIXEL3_TARGET = 10.0  # milliseconds


def table(epochs: int = 200) -> Tabular:
    """CIFAR-10 after so many epochs (200 or 12): validation accuracy to search by, test accuracy after 200 to judge by."""
    return Tabular(
        TABLE,
        f"acc{epochs}_val/cifar10",
        scale=0.01,
        called="accuracy",
        metrics=(("multiply_adds_cifar10", "multiply_adds"),),
        seconds="multiply_adds_cifar10",
        seconds_scale=epochs * SECONDS_PER_MULTIPLY_ADD,
        epochs=float(epochs),
        judge="acc200_test/cifar10",
    )


def nasbench201() -> Recipe:
    """A search whose children are looked up: seconds on any machine, with the numbers of real trainings."""
    return Recipe(
        name="nasbench201",
        summary=f"the cells of NAS-Bench-201, looked up in {TABLE} (--data): seconds for a thousand real trainings",
        space=NASBench201(),
        evaluator=table(),
        searcher=RegularizedEvolution(),
        budget=Budget(trials=1000),
        workers=1,
    )


def _with(**searchers: object) -> dict[str, Recipe]:
    """The recipe with each of these searchers; `_` in a name is said as `-`."""
    recipe = replace(nasbench201(), control=False)
    return {name.replace("_", "-"): replace(recipe, searcher=searcher) for name, searcher in searchers.items()}  # type: ignore[arg-type]


SMALL = "The papers searched spaces of 1e15 cells and more with 12,800 to 20,000 trials; here are 15,625 cells, and fewer trials"


def rl_against_random() -> Claim:
    """Zoph and Le 2017, figure 6; Zoph et al. 2018, section 4.4."""
    return Claim(
        name="rl-against-random",
        summary="a controller finds better models than random search: the best, the top 5 and the top 15",
        paper="Zoph and Le (2017), section 4.2 and figure 6; Zoph et al. (2018), section 4.4: not only the best model of "
        "the controller is better than that of random search, the means of its best 5, 15 or 25 are too.",
        arms=_with(random=Random(), reinforce=Reinforce(), ppo=PPO(), reinforce_quick=QUICK_CONTROLLER),
        expected=tuple(
            Expected(arm, "random", outcome)
            for arm in ("reinforce", "ppo", "reinforce-quick")
            for outcome in ("best", "mean of top 5", "mean of top 15")
        ),
        limits=f"{SMALL}. The papers' controllers take steps for long searches; reinforce-quick has the larger ones of "
        "our desk recipes.",
    )


def evolution_against_rl() -> Claim:
    """Real et al. 2019, results and discussion."""
    return Claim(
        name="evolution-against-rl",
        summary="evolution rises faster than reinforcement learning, both beat random search, and evolved models are smaller",
        paper="Real et al. (2019): evolution is faster than reinforcement learning in the earlier stages of the search and "
        "comes to as accurate models of fewer multiply-adds; reinforcement learning beats random search.",
        arms=_with(random=Random(), reinforce=Reinforce(), ppo=PPO(), evolution=RegularizedEvolution()),
        expected=(
            *(Expected("evolution", arm, "mean of the best so far") for arm in ("reinforce", "ppo", "random")),
            *(Expected(arm, "random", "best") for arm in ("evolution", "reinforce", "ppo")),
            *(Expected("evolution", arm, "multiply-adds of the best") for arm in ("reinforce", "ppo")),
        ),
        limits=SMALL + ".",
    )


SETTINGS = ((100, 2), (100, 50), (20, 20), (100, 25), (64, 16))  # P and S: section 7.2 of our facts on the paper


def _aging(epochs: int, outcome: str) -> tuple[dict[str, Recipe], tuple[Expected, ...]]:
    arms, expected = {}, []
    for population, sample in SETTINGS:
        for aging in (True, False):
            name = f"{'aging' if aging else 'non-aging'}-{population}-{sample}"
            searcher = RegularizedEvolution(population, sample, aging=aging)
            arms[name] = replace(nasbench201(), control=False, evaluator=table(epochs), searcher=searcher)
        expected.append(Expected(f"aging-{population}-{sample}", f"non-aging-{population}-{sample}", outcome))
    return arms, tuple(expected)


def aging_against_non_aging() -> Claim:
    """Real et al. 2019, figure on aging and non-aging evolution."""
    arms, expected = _aging(200, "best")
    return Claim(
        name="aging-against-non-aging",
        summary="evolution that removes the oldest beats evolution that removes the worst, for most sizes of population",
        paper="Real et al. (2019): aging evolution beats the non-aging one for most of the populations and samples tried.",
        arms=arms,
        expected=expected,
        limits=f"{SMALL}. One value stands for a cell, so no model is ever better by luck when it is trained again.",
    )


def aging_under_noise() -> Claim:
    """Real et al. 2019, discussion: aging as a defence against noise."""
    arms, expected = _aging(12, "regret")
    return Claim(
        name="aging-under-noise",
        summary="where rewards are noisy (12 epochs, one seed), aging evolution ends with better networks (200 epochs, test)",
        paper="Real et al. (2019), discussion: with noisy evaluations a model may live long by luck; under aging an "
        "architecture stays only if it does well each time it is trained again.",
        arms=arms,
        expected=expected,
        limits=f"{SMALL}. The noise is that of one training of 12 epochs, and it is frozen: the table has the same number "
        "whenever the cell comes up again, so a lucky one is lucky each time, and training again cannot undo it.",
    )


def latency_aware() -> Claim:
    """Tan et al. 2019, sections 3 and 5."""
    recipe = replace(nasbench201(), control=False)
    plain = replace(table(), metrics=(*table().metrics, ("hw/cifar10/pixel3_latency", "latency")))
    soft, hard = latency_weighted(PIXEL3_TARGET), latency_weighted(PIXEL3_TARGET, alpha=0, beta=-1)
    arms = {
        "accuracy-alone": replace(recipe, evaluator=plain),
        "soft-target": replace(recipe, evaluator=plain, reward=soft),
        "hard-target": replace(recipe, evaluator=plain, reward=hard),
    }
    return Claim(
        name="latency-aware",
        summary=f"a reward with latency in it finds better networks of at most {PIXEL3_TARGET:g} ms on a Pixel 3",
        paper="Tan et al. (2019): searching for accuracy and latency at once finds better networks for a device than "
        "searching for accuracy, and the soft target explores the trade-off where the hard one keeps below it.",
        arms=arms,
        expected=tuple(Expected(arm, "accuracy-alone", "best") for arm in ("soft-target", "hard-target")),
        limits="Aging evolution searches, where the paper has a controller; latencies are HW-NAS-Bench's of a Pixel 3. Of all "
        "models found only those within the target count, also of the search that did not know it.",
        within=("latency", PIXEL3_TARGET),
    )


CLAIMS = {
    "rl-against-random": rl_against_random,
    "evolution-against-rl": evolution_against_rl,
    "aging-against-non-aging": aging_against_non_aging,
    "aging-under-noise": aging_under_noise,
    "latency-aware": latency_aware,
}
"""The claims by name, as functions."""
