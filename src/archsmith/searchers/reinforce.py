"""REINFORCE with an LSTM controller (Zoph and Le 2017, "Neural Architecture Search with Reinforcement Learning", 3.2).

The gradient of the expected reward is estimated from m architectures at a time:

    (1/m) sum_k sum_t grad log P(a_t | a_<t) (R_k - b)

Details, and where this departs from the paper:

- b, the baseline, is an exponential moving average of earlier rewards. It starts as the first reward seen, and moves after
  each minibatch, once it has been used: b <- decay * b + (1 - decay) * (mean reward of the minibatch). The paper gives no decay;
  0.95 is that of the NASNet paper.
- In the paper a replica samples m architectures and waits for all of them. Here any m results make an update, in
  whatever order they come, so that one that never comes holds nothing up. They are scored again under the current parameters: an
  asynchronous gradient, as stale as the paper's.
- Proposals are drawn m at a time, and what was drawn but not yet asked for when the parameters change is drawn anew.
- A failed trial counts as the worst reward seen so far, so that what fails is avoided; before any reward was seen it is passed
  over. A trial that was stopped, or failed because its worker died, says nothing of its genotype and is passed over.
- An entropy weight, which the paper does not have, may keep the policy from settling early.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsmith.core.errors import UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.searcher import State
from archsmith.core.space import Space, identity, next_question
from archsmith.core.trial import Proposal, Trial, TrialState
from archsmith.searchers.depth_schedule import DepthSchedule

if TYPE_CHECKING:
    from archsmith.searchers.traces import Trace

__all__ = ["Reinforce"]


@dataclass(frozen=True)
class Reinforce:
    """A controller that learns by REINFORCE. The defaults are the paper's (section 4.1).

    Args:
        learning_rate: of Adam.
        minibatch: m, how many results make one update.
        baseline_decay: how much of the baseline stays at each update; 0 is the last minibatch's mean alone.
        entropy_weight: how much the policy's entropy, summed over its decisions in nats, counts beside the reward.
        hidden: units of each layer of the LSTM.
        layers: how many layers it has.
        embedding: the size of the vectors it reads.
        init: all its parameters start uniform in [-init, init].
        anchor_input: what it reads after choosing among earlier steps: "answers", the mean of their learned
            embeddings, or "hidden", the mean of their hidden states as in the paper, which is several times slower.
        depth_schedule: forces the depth, or None.
    """

    learning_rate: float = 6e-4
    minibatch: int = 8
    baseline_decay: float = 0.95
    entropy_weight: float = 0.0
    hidden: int = 35
    layers: int = 2
    embedding: int = 35
    init: float = 0.08
    anchor_input: str = "answers"
    depth_schedule: DepthSchedule | None = None

    def __post_init__(self) -> None:
        for name in ("minibatch", "hidden", "layers", "embedding"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} of Reinforce must be a whole number of at least 1, got {value!r}")
        for name in ("learning_rate", "init"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise UsageError(f"{name} of Reinforce must be above 0 and finite, got {value!r}")
        if not _is_number(self.baseline_decay) or not 0 <= self.baseline_decay < 1:
            raise UsageError(f"baseline_decay of Reinforce must be at least 0 and below 1, got {self.baseline_decay!r}")
        if not _is_number(self.entropy_weight) or not 0 <= self.entropy_weight < math.inf:
            raise UsageError(f"entropy_weight of Reinforce must be at least 0 and finite, got {self.entropy_weight!r}")
        if self.anchor_input not in ("answers", "hidden"):
            raise UsageError(f'anchor_input of Reinforce must be "answers" or "hidden", got {self.anchor_input!r}')
        if self.anchor_input == "hidden" and self.hidden != self.embedding:
            raise UsageError(
                f'anchor_input="hidden" feeds hidden states as inputs, so embedding must equal hidden={self.hidden}, '
                f"got {self.embedding}"
            )

    def start(self, space: Space, seed: int) -> LiveReinforce:
        """A live controller. Raises UsageError when the space asks nothing, or lacks the schedule's choice."""
        if next_question(space, [])[0] is None:
            raise UsageError(f"the space {identity(space)['name']!r} asks no choices, so there is nothing to learn")
        return LiveReinforce(self, space, seed)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class LiveReinforce:
    """The controller at work. What it proposes depends on the seed and on what it was told, not on how asks are grouped."""

    def __init__(self, config: Reinforce, space: Space, seed: int) -> None:
        from archsmith.searchers.lstm_controller import Controller  # torch loads here: recipes are listed without it

        self._config = config
        self._space = space
        self._seed = seed
        self._controller = Controller(
            space,
            derive_seed(seed, "controller"),
            hidden=config.hidden,
            layers=config.layers,
            embedding=config.embedding,
            init=config.init,
            anchor_input=config.anchor_input,
            schedule=config.depth_schedule,
        )
        self._version = 0
        self._asked = 0  # proposals given out
        self._batches = 0  # batches drawn; each has a generator of its own
        self._queue: deque[Genotype] = deque()  # drawn from the current parameters and not yet given out
        self._buffer: list[tuple[Genotype, float, Trace]] = []  # told and not yet learned from
        self._baseline: float | None = None
        self._worst: float | None = None
        self._shown: dict[str, float] = {}

    @property
    def version(self) -> int:
        return self._version

    def ask(self, n: int) -> list[Proposal]:
        proposals = []
        for _ in range(n):
            if not self._queue:
                seed = derive_seed(self._seed, "batch", self._batches)
                self._queue.extend(self._controller.sample(self._asked, self._config.minibatch, seed)[0])
                self._batches += 1
            proposals.append(Proposal(self._queue.popleft()))
            self._asked += 1
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            reward = self._reward(trial)
            if reward is None:
                continue
            trace = self._controller.reader.trace(trial.genotype)  # refuses a genotype of another space
            self._worst = reward if self._worst is None else min(self._worst, reward)
            if self._baseline is None:
                self._baseline = reward
            self._buffer.append((trial.genotype, reward, trace))
            if len(self._buffer) == self._config.minibatch:
                self._update()

    def _reward(self, trial: Trial) -> float | None:
        """What there is to learn from the trial, or None."""
        if trial.state is TrialState.FAILED:
            failure = trial.result.failure if trial.result else None
            return None if failure and failure.reason == "worker" else self._worst
        return trial.reward if trial.state is TrialState.DONE else None

    def _update(self) -> None:
        rewards = [reward for _, reward, _ in self._buffer]
        norm, entropy = self._learn([trace for _, _, trace in self._buffer], rewards)
        mean, baseline = sum(rewards) / len(rewards), self._baseline
        assert baseline is not None
        self._version += 1
        self._buffer.clear()
        self._queue.clear()
        self._shown = {
            "mean_reward": mean,
            "baseline": baseline,
            "entropy": entropy,
            "gradient_norm": norm,
            "updates": float(self._version),
        }
        decay = self._config.baseline_decay
        self._baseline = decay * baseline + (1 - decay) * mean

    def _learn(self, traces: Sequence[Trace], rewards: Sequence[float]) -> tuple[float, float]:
        """One step up the estimated gradient; gives its norm, and the entropy per decision in nats."""
        import torch

        from archsmith.searchers.lstm_controller import one_thread

        assert self._baseline is not None
        with one_thread():
            score = self._controller.score(traces)
            advantage = torch.tensor([reward - self._baseline for reward in rewards])  # R_k - b
            objective = (score.log_prob.sum(1) * advantage).mean()
            if self._config.entropy_weight:
                objective = objective + self._config.entropy_weight * score.entropy.sum(1).mean()
            norm = self._controller.descend(-objective, self._config.learning_rate)
            return norm, float(score.entropy.detach().sum()) / max(score.decisions, 1)

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
            "baseline": self._baseline,
            "worst": self._worst,
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
        self._baseline, self._worst = state["baseline"], state["worst"]
        self._shown = dict(state["shown"])
        self._controller.load_state_dict(state["controller"])
        told = [(Genotype(space, entry["answers"]), float(entry["reward"])) for entry in state["buffer"]]
        self._buffer = [(genotype, reward, self._controller.reader.trace(genotype)) for genotype, reward in told]
