"""Q-learning over the choices of a space (Baker et al. 2017, "Designing Neural Network Architectures using Reinforcement
Learning", sections 3 and 4.3).

Answering one question is one transition: in a state s the agent takes an action u and comes to a state s'. It acts by
an epsilon-greedy policy, and what it has seen is learned from again and again: after each result, past models are drawn
at random, and along each one's transitions, the last one first,

    Q(s, u) <- (1 - alpha) Q(s, u) + alpha (r + gamma max_u' Q(s', u'))        (equation 3)

where r is the model's reward at the last transition and 0 before. Epsilon falls in steps, by how many different models
were proposed.

Details, and where this departs from the paper:

- The state is what the space says: a space may have a method `state(answers)` that gives, from the answers so far, the
  state in which the next question is asked, as a tuple of JSON scalars. A space without one is taken to ask in the
  state of all its earlier answers; `memory=1` keeps the last of them alone, which is coarser and learns faster.
  A question's options are always part of its state.
- The members of a subset are taken or left one after the other: each is a transition with two actions.
- A model that is drawn again is not trained again: as in the authors' code its known reward is presented once more,
  which is one more entry among the past models and one more round of learning, and the next one is drawn. One that is still
  being trained counts as often as it was drawn when its result comes. After 100 draws of known models, 100 are made at
  random; only when these are known as well is a model proposed again.
- Rounds follow results in whatever order they come.
- A failed trial counts as the worst reward seen so far, so that what fails is avoided; before any reward was seen it is
  passed over. A trial that was stopped, or failed because its worker died, says nothing of its genotype.
- A reward far from all others is clipped, as `archsmith.searchers.reward_range` says; rewards from -10 to 100 never are.
- The paper's Q(0) is 0.5 for rewards that are accuracies: "around the performance of an average model; it is better
  to undershoot this" (authors' code). Above all rewards it would make the agent try everything, and learn nothing.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.errors import UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype, Scalar
from archsmith.core.searcher import State
from archsmith.core.space import Space, decode, identity, next_question
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.core.walk import Question, RecordingWalk, option_index
from archsmith.searchers.q_table import Path, QTable, StatedSpace, Transitions
from archsmith.searchers.reward_range import WINDOW, RewardRange, is_usual, range_of

__all__ = ["QLearning", "StatedSpace"]

PAPER_SCHEDULE = (
    (1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100),
    (0.6, 150), (0.5, 150), (0.4, 150), (0.3, 150), (0.2, 150), (0.1, 150),
)  # fmt: skip
"""Table 2: epsilon, and how many different models are proposed at it; 2,700 together."""

_DRAWS = 100


@dataclass(frozen=True)
class QLearning:
    """Tabular Q-learning with experience replay. The defaults are the paper's.

    Args:
        learning_rate: alpha.
        discount: gamma.
        initial: Q(0) of every action, about the reward of an average model or below it.
        schedule: epsilon, and how many different models are proposed at it, step by step; the last stays.
        replay: how many past models are learned from after each result.
        backwards: whether a model's last transition is learned from first, as in the paper; otherwise its first.
        memory: how many earlier answers make the state, where the space does not say. None: all of them.
    """

    learning_rate: float = 0.01
    discount: float = 1.0
    initial: float = 0.5
    schedule: tuple[tuple[float, int], ...] = PAPER_SCHEDULE
    replay: int = 100
    backwards: bool = True
    memory: int | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        _check(self)

    @classmethod
    def for_models(cls, models: int, learning_rate: float = 0.01) -> QLearning:
        """The paper's settings with its schedule shrunk to so many models, in proportion."""
        whole = sum(count for _, count in PAPER_SCHEDULE)
        models = whole_number(models, "models of QLearning.for_models", 1)
        ends, before = [], 0
        for epsilon, count in PAPER_SCHEDULE:
            ends.append((epsilon, (before + count) * models // whole))
            before += count
        starts = [0, *(end for _, end in ends)]
        steps = [(epsilon, end - start) for (epsilon, end), start in zip(ends, starts, strict=False) if end > start]
        return cls(learning_rate=learning_rate, schedule=tuple(steps))

    def epsilon(self, models: int) -> float:
        """Epsilon of the next model after so many different ones."""
        for epsilon, count in self.schedule:
            if models < count:
                return epsilon
            models -= count
        return self.schedule[-1][0]

    def random_trials(self, space: Space) -> int:
        """The trials that are proposed at an epsilon of 1."""
        return sum(count for _, count in itertools.takewhile(lambda step: step[0] == 1, self.schedule))

    def start(self, space: Space, seed: int) -> LiveQLearning:
        """A live agent that knows nothing. Raises UsageError when the space asks nothing."""
        if not hasattr(space, "architecture"):
            raise UsageError(
                f"QLearning answers the choices of a space, and {type(space).__name__} asks none; evolution fits it: "
                "RegularizedEvolution, LargeScaleEvolution"
            )
        if next_question(space, [])[0] is None:
            raise UsageError(f"the space {identity(space)['name']!r} asks no choices, so there is nothing to learn")
        return LiveQLearning(self, space, seed)


# --- the agent --------------------------------------------------------------------------------------------------------


class LiveQLearning:
    """The agent at work. What it proposes depends on the seed, on what it proposed, and on what it was told."""

    def __init__(self, config: QLearning, space: Space, seed: int) -> None:
        self._config = config
        self._space = space
        self._stated = space if isinstance(space, StatedSpace) else None
        self._seed = seed
        self._rng = random.Random()
        self._table = QTable(config.learning_rate, config.discount, config.initial, backwards=config.backwards)
        self._asked = 0
        self._models = 0  # different ones proposed
        self._again = 0  # how often a known model was drawn
        self._rounds = 0  # of learning
        self._results: list[tuple[Genotype, float, Path]] = []
        self._known: dict[str, int] = {}  # the last result of each model, by its key
        self._running: dict[str, int] = {}  # how often models that are being trained were drawn since
        self._past: list[int] = []  # the replay memory: results, by number, as often as they were presented
        self._worst: float | None = None
        self._usual = True  # whether no reward needs to be clipped,
        self._range = RewardRange()  # and what they are clipped to, if one does

    @property
    def version(self) -> int:
        return self._rounds

    def ask(self, n: int) -> list[Proposal]:
        return [Proposal(self._propose()) for _ in range(n)]

    def _propose(self) -> Genotype:
        # One generator for each proposal: what is proposed does not depend on how asks are grouped.
        rng = random.Random(derive_seed(self._seed, "proposal", self._asked))
        self._asked += 1
        epsilon = self._config.epsilon(self._models)
        for draw in range(2 * _DRAWS):
            genotype = self._draw(epsilon if draw < _DRAWS else 1.0, rng)
            key = genotype.key
            if key not in self._known and key not in self._running:
                self._models += 1
                self._running[key] = 1
                return genotype
            if draw < _DRAWS:
                self._again += 1
                if key in self._running:
                    self._running[key] += 1
                else:
                    self._present(self._known[key])
        return genotype  # the space is used up, or as good as

    def _draw(self, epsilon: float, rng: random.Random) -> Genotype:
        def act(row: int, actions: int) -> int:
            if rng.random() < epsilon:
                return int(rng.random() * actions)
            return self._table.greedy(row, rng)

        walk = Transitions(self._table, self._stated, self._config.memory)
        recording = RecordingWalk(lambda question: walk.answer(question, recording.answers, act))
        self._space.architecture(recording)
        return Genotype(identity(self._space), recording.answers)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            reward = self._reward(trial)
            drawn = self._running.pop(trial.genotype.key, 1)
            if reward is None:
                continue
            decode(self._space, trial.genotype)  # refuses a genotype of another space
            self._worst = reward if self._worst is None else min(self._worst, reward)
            self._known[trial.genotype.key] = len(self._results)
            self._results.append((trial.genotype, reward, self._path(trial.genotype)))
            self._measure()
            for _ in range(drawn):
                self._present(len(self._results) - 1)

    def _reward(self, trial: Trial) -> float | None:
        """What there is to learn from the trial, or None."""
        if trial.state is TrialState.FAILED:
            failure = trial.result.failure if trial.result else None
            return None if failure and failure.reason == "worker" else self._worst
        return trial.reward if trial.state is TrialState.DONE else None

    def _present(self, result: int) -> None:
        """One more entry of the replay memory, and one round of learning."""
        self._past.append(result)
        rng = self._rng
        rng.seed(derive_seed(self._seed, "replay", self._rounds))
        past, results, learn = self._past, self._results, self._table.learn
        for _ in range(self._config.replay):
            _, reward, path = results[past[int(rng.random() * len(past))]]
            learn(path, reward if self._usual else self._range.clip(reward))
        self._rounds += 1

    def _measure(self) -> None:
        """Take the last result into the range that rewards are clipped to."""
        self._usual = self._usual and is_usual([self._results[-1][1]])
        if not self._usual:
            self._range = range_of([reward for _, reward, _ in self._results[-WINDOW:]])

    def _path(self, genotype: Genotype) -> Path:
        """The transitions of a genotype of this space."""
        walk = Transitions(self._table, self._stated, self._config.memory)

        def answer(question: Question) -> int | list[int]:
            given = genotype.answers[question.name]
            members = cast(list[Scalar], given) if question.subset else [given]
            taken = {option_index(question.options, member) for member in members}
            coins = iter([k in taken for k in range(len(question.options))])
            only = min(taken, default=0)
            return walk.answer(question, recording.answers, lambda _r, _n: next(coins) if question.subset else only)

        recording = RecordingWalk(answer)
        self._space.architecture(recording)
        return walk.path

    # --- what is shown and kept ---------------------------------------------------------------------------------------

    def diagnostics(self) -> Mapping[str, float]:
        """Epsilon of the next proposal, different models proposed, draws of known ones, states in the table, and the
        reward that the best first action promises."""
        shown = {
            "epsilon": self._config.epsilon(self._models),
            "models": float(self._models),
            "known_draws": float(self._again),
            "states": float(len(self._table.rows)),
        }
        if self._rounds:
            shown["promised_reward"] = max(self._table.rows[0])
        return shown

    def state_dict(self) -> State:
        return {
            "seed": self._seed,
            "asked": self._asked,
            "models": self._models,
            "again": self._again,
            "rounds": self._rounds,
            "results": [{"answers": dict(genotype.answers), "reward": reward} for genotype, reward, _ in self._results],
            "running": dict(self._running),
            "past": list(self._past),
            "worst": self._worst,
            "states": list(self._table.row_of),
            "values": [list(row) for row in self._table.rows],
        }

    def load_state_dict(self, state: State) -> None:
        space = identity(self._space)
        self._seed, self._asked = int(state["seed"]), int(state["asked"])
        self._models, self._again, self._rounds = int(state["models"]), int(state["again"]), int(state["rounds"])
        self._table.rows = [[float(value) for value in row] for row in state["values"]]
        self._table.row_of = {text: row for row, text in enumerate(state["states"])}
        told = [(Genotype(space, entry["answers"]), float(entry["reward"])) for entry in state["results"]]
        self._results = [(genotype, reward, self._path(genotype)) for genotype, reward in told]
        self._known = {genotype.key: number for number, (genotype, _) in enumerate(told)}
        self._running = {key: int(drawn) for key, drawn in state["running"].items()}
        self._past = [int(result) for result in state["past"]]
        self._worst = None if state["worst"] is None else float(state["worst"])
        self._usual = is_usual(reward for _, reward, _ in self._results)
        if not self._usual:
            self._measure()


# --- settings that make no sense --------------------------------------------------------------------------------------


def _check(config: QLearning) -> None:
    for name, low, rule in (
        ("learning_rate", 0.0, "above 0 and at most 1"),
        ("discount", -1.0, "from 0 to 1"),
    ):
        value = getattr(config, name)
        if not _is_number(value) or not low < value <= 1 or value < 0:
            raise UsageError(f"{name} of QLearning must be a number {rule}, got {value!r}")
    if not _is_number(config.initial) or not math.isfinite(config.initial):
        raise UsageError(f"initial of QLearning must be a finite number, got {config.initial!r}")
    whole_number(config.replay, "replay of QLearning", 1)
    if config.memory is not None:
        whole_number(config.memory, "memory of QLearning", 1)
    if not isinstance(config.backwards, bool):
        raise UsageError(f"backwards of QLearning must be True or False, got {config.backwards!r}")
    steps = config.schedule
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise UsageError(f"schedule of QLearning must be steps such as ((1.0, 10), (0.1, 5)), got {steps!r}")
    for step in steps:
        if not isinstance(step, Sequence) or isinstance(step, str) or len(step) != 2:
            raise UsageError(f"a step of QLearning's schedule must be epsilon and a number of models, got {step!r}")
        epsilon, count = step
        if not _is_number(epsilon) or not 0 <= epsilon <= 1:
            raise UsageError(f"an epsilon of QLearning's schedule must be from 0 to 1, got {epsilon!r}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"a step of QLearning's schedule must be of at least 1 model, got {count!r}")
    object.__setattr__(config, "schedule", tuple((epsilon, count) for epsilon, count in steps))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
