"""A controller at work, whatever the rule by which it learns: what REINFORCE and PPO have in common.

Both hold each reward against a baseline b, an exponential moving average of earlier rewards. It starts as the first
reward seen, and moves after each minibatch, once it has been used: b <- decay * b + (1 - decay) * (mean reward of the minibatch).

- In the papers a replica samples m architectures and waits for all of them. Here any m results make an update, in
  whatever order they come, so that one that never comes holds nothing up. They are scored again under the current
  parameters: an asynchronous gradient, as stale as the paper's.
- Proposals are drawn m at a time, and what was drawn but not yet asked for when the parameters change is drawn anew.
- A failed trial counts as the worst reward seen so far, so that what fails is avoided; before any reward was seen it is passed
  over. A trial that was stopped, or failed because its worker died, says nothing of its genotype and is passed over.
- A reward far from all others, such as a penalty of -1e100, is clipped as `archsmith.searchers.reward_range` says, and the
  baseline with it. Rewards from -10 to 100 never are.

Two things that the papers do not have are for budgets of hundreds of trials, where 20,000 are not to be had. `ranks=n` learns
from a reward's rank among the last n (fitness shaping, Wierstra et al. 2014): what good architectures differ by is small
beside what separates them from bad ones, and a step as large for the one as for the other learns both. `unique=True`
draws again what was proposed before, since its reward is known; up to 10 minibatches a proposal.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from archsmith.core.checks import whole_number
from archsmith.core.errors import SearcherDiverged, UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, next_question
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.searchers.depth_schedule import DepthSchedule
from archsmith.searchers.reward_range import WINDOW, is_usual, range_of

if TYPE_CHECKING:
    from archsmith.searchers.lstm_controller import Controller
    from archsmith.searchers.traces import Trace

Learn: TypeAlias = "Callable[[Controller, Sequence[Trace], Sequence[float]], dict[str, float]]"
"""One update from traces and their advantages R_k - b; gives what there is to show of it."""

MOST_DRAWS = 10


class PolicyConfig(Protocol):
    """The settings that every controller has; see `Reinforce` for what they are."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def minibatch(self) -> int: ...
    @property
    def baseline_decay(self) -> float: ...
    @property
    def entropy_weight(self) -> float: ...
    @property
    def ranks(self) -> int: ...
    @property
    def unique(self) -> bool: ...
    @property
    def hidden(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def embedding(self) -> int: ...
    @property
    def init(self) -> float: ...
    @property
    def anchor_input(self) -> str: ...
    @property
    def depth_schedule(self) -> DepthSchedule | None: ...


def check(config: PolicyConfig) -> None:
    """Raise UsageError, naming the setting, when one of them makes no sense."""
    of = type(config).__name__
    for name in ("minibatch", "hidden", "layers", "embedding"):
        whole(config, name)
    for name in ("learning_rate", "init"):
        value = getattr(config, name)
        if not is_number(value) or not 0 < value < math.inf:
            raise UsageError(f"{name} of {of} must be above 0 and finite, got {value!r}")
    if not is_number(config.baseline_decay) or not 0 <= config.baseline_decay < 1:
        raise UsageError(f"baseline_decay of {of} must be at least 0 and below 1, got {config.baseline_decay!r}")
    if not is_number(config.entropy_weight) or not 0 <= config.entropy_weight < math.inf:
        raise UsageError(f"entropy_weight of {of} must be at least 0 and finite, got {config.entropy_weight!r}")
    whole_number(config.ranks, f"ranks of {of}", 0)
    if not isinstance(config.unique, bool):
        raise UsageError(f"unique of {of} must be True or False, got {config.unique!r}")
    if config.anchor_input not in ("answers", "hidden"):
        raise UsageError(f'anchor_input of {of} must be "answers" or "hidden", got {config.anchor_input!r}')
    if config.anchor_input == "hidden" and config.hidden != config.embedding:
        raise UsageError(
            f'anchor_input="hidden" feeds hidden states as inputs, so embedding must equal hidden={config.hidden}, '
            f"got {config.embedding}"
        )


def whole(config: Any, name: str) -> None:
    """Raise UsageError unless that setting is a whole number of at least 1."""
    whole_number(getattr(config, name), f"{name} of {type(config).__name__}", 1)


def is_number(value: object) -> bool:
    """Whether that is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_space(space: Space) -> None:
    """Raise UsageError when the space asks nothing."""
    if next_question(space, [])[0] is None:
        raise UsageError(f"the space {identity(space)['name']!r} asks no choices, so there is nothing to learn")


def start(config: PolicyConfig, space: Space, seed: int, learn: Learn) -> LivePolicy:
    """A live controller. Raises UsageError when the space asks nothing, or lacks the schedule's choice."""
    check_space(space)
    return LivePolicy(config, space, seed, learn)


def controller(config: PolicyConfig, space: Space, seed: int) -> Controller:
    """The network that these settings ask for."""
    from archsmith.searchers.lstm_controller import Controller  # torch loads here: recipes are listed without it

    return Controller(
        space,
        derive_seed(seed, "controller"),
        hidden=config.hidden,
        layers=config.layers,
        embedding=config.embedding,
        init=config.init,
        anchor_input=config.anchor_input,
        schedule=config.depth_schedule,
    )


class Rewards:
    """What the results of trials mean to a controller: rewards, or their ranks, and the baseline b to hold them against."""

    def __init__(self, config: PolicyConfig) -> None:
        self._decay = config.baseline_decay
        self._recent: deque[float] = deque(maxlen=config.ranks)  # rewards, where their ranks are learned from
        self._told: deque[float] = deque(maxlen=WINDOW)  # rewards, where they are learned from as they are
        self._worst: float | None = None
        self.baseline: float | None = None

    def found(self, trial: Trial) -> float | None:
        """The trial's reward, the worst one so far where it failed, or None where there is nothing to learn."""
        if trial.state is TrialState.FAILED:
            failure = trial.result.failure if trial.result else None
            return None if failure and failure.reason == "worker" else self._worst
        return trial.reward if trial.state is TrialState.DONE else None

    def taken(self, reward: float) -> float:
        """What is learned from a reward that was found, which counts from now on."""
        self._worst = reward if self._worst is None else min(self._worst, reward)
        if self._recent.maxlen:
            self._recent.append(reward)
            below = sum(other < reward for other in self._recent)
            above = sum(other > reward for other in self._recent)
            reward = 0.5 + 0.5 * (below - above) / len(self._recent)
        else:
            self._told.append(reward)
        if self.baseline is None:
            self.baseline = reward
        return reward

    def held(self, rewards: Sequence[float]) -> tuple[list[float], float, float]:
        """The advantages R_k - b of a minibatch, its mean reward, and b, which moves after."""
        baseline = self.baseline
        assert baseline is not None
        if not is_usual((*rewards, baseline)):
            clip = range_of(list(self._told)).clip
            rewards, baseline = [clip(reward) for reward in rewards], clip(baseline)
        mean = sum(rewards) / len(rewards)
        self.baseline = self._decay * baseline + (1 - self._decay) * mean
        return [reward - baseline for reward in rewards], mean, baseline

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "recent": list(self._recent),
            "told_rewards": list(self._told),
            "baseline": self.baseline,
            "worst": self._worst,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from what `state_dict` gave."""
        self._recent = deque(state["recent"], maxlen=self._recent.maxlen)
        self._told = deque(state.get("told_rewards", ()), maxlen=WINDOW)  # a state of earlier versions has none
        self.baseline, self._worst = state["baseline"], state["worst"]


class LivePolicy:
    """The controller at work. What it proposes depends on the seed and on what it was told, not on how asks are grouped."""

    def __init__(self, config: PolicyConfig, space: Space, seed: int, learn: Learn) -> None:
        self._config = config
        self._space = space
        self._seed = seed
        self._learn = learn
        self._controller = controller(config, space, seed)
        self._version = 0
        self._asked = 0  # proposals given out
        self._batches = 0  # batches drawn; each has a generator of its own
        self._queue: deque[Genotype] = deque()  # drawn from the current parameters and not yet given out
        self._buffer: list[tuple[Genotype, float, Trace]] = []  # told and not yet learned from
        self._seen: set[str] = set()  # keys of what was proposed, where that matters
        self._rewards = Rewards(config)
        self._shown: dict[str, float] = {}

    @property
    def version(self) -> int:
        return self._version

    def ask(self, n: int) -> list[Proposal]:
        proposals = []
        for _ in range(n):
            proposals.append(Proposal(self._draw()))
            self._asked += 1
        return proposals

    def _draw(self) -> Genotype:
        drawn = 0
        while True:
            if not self._queue:
                seed = derive_seed(self._seed, "batch", self._batches)
                self._queue.extend(self._controller.sample(self._asked, self._config.minibatch, seed)[0])
                self._batches += 1
                drawn += 1
            genotype = self._queue.popleft()
            if not self._config.unique:
                return genotype
            if genotype.key not in self._seen or (drawn > MOST_DRAWS and not self._queue):
                self._seen.add(genotype.key)
                return genotype

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            reward = self._rewards.found(trial)
            if reward is None:
                continue
            if self._config.unique:
                self._seen.add(trial.genotype.key)  # also of what others proposed
            trace = self._controller.reader.trace(trial.genotype)  # refuses a genotype of another space
            self._buffer.append((trial.genotype, self._rewards.taken(reward), trace))
            if len(self._buffer) == self._config.minibatch:
                self._update()

    def _update(self) -> None:
        from archsmith.searchers.lstm_controller import one_thread

        advantages, mean, baseline = self._rewards.held([reward for _, reward, _ in self._buffer])
        with one_thread():
            learned = self._learn(self._controller, [trace for _, _, trace in self._buffer], advantages)
        self._version += 1
        self._check()
        self._buffer.clear()
        self._queue.clear()
        self._shown = {
            "mean_reward": mean,
            "baseline": baseline,
            **learned,
            "updates": float(self._version),
        }

    def _check(self) -> None:
        """Raise SearcherDiverged if a weight of the policy is not finite."""
        if not self._controller.is_finite():
            raise SearcherDiverged(type(self._config).__name__, self._version, self._config.learning_rate)

    def diagnostics(self) -> Mapping[str, float]:
        """Of the last update: the minibatch's mean reward, the baseline it was held against, the entropy per decision
        in nats, the norm of the gradient, and how many updates there were; empty before the first."""
        return dict(self._shown)

    def state_dict(self) -> State:
        return {
            "seed": self._seed,
            "version": self._version,
            "asked": self._asked,
            "batches": self._batches,
            "queue": [dict(genotype.answers) for genotype in self._queue],
            "buffer": [{"answers": dict(genotype.answers), "reward": reward} for genotype, reward, _ in self._buffer],
            "seen": sorted(self._seen),
            **self._rewards.state_dict(),
            "shown": dict(self._shown),
            "controller": self._controller.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        space = identity(self._space)
        self._seed = int(state["seed"])
        self._version = int(state["version"])
        self._asked = int(state["asked"])
        self._batches = int(state["batches"])
        self._queue = deque(Genotype(space, answers) for answers in state["queue"])
        self._seen = set(state["seen"])
        self._rewards.load_state_dict(state)
        self._shown = dict(state["shown"])
        self._controller.load_state_dict(state["controller"])
        self._check()
        told = [(Genotype(space, entry["answers"]), float(entry["reward"])) for entry in state["buffer"]]
        self._buffer = [(genotype, reward, self._controller.reader.trace(genotype)) for genotype, reward in told]
