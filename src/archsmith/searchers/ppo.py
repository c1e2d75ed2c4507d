"""Proximal policy optimization with NASNet's controller (Schulman et al. 2017; Zoph et al. 2018, appendix A.2 and A.3).

As `reinforce.py`, but each minibatch of m architectures is learned from several times, and no step moves the policy
far from the one that it began with. With r_t the ratio of an answer's probability under the policy to that under the
policy at the beginning of the update, and A_k = R_k - b, the objective is

    (1/m) sum_k sum_t min(r_t A_k, clip(r_t, 1 - epsilon, 1 + epsilon) A_k) + entropy_weight * entropy

whose gradient at r_t = 1, in the first epoch, is that of REINFORCE.

The paper gives the controller (one layer of 100 units), its learning rate, minibatch, baseline and entropy weight, and
neither epsilon nor the epochs of an update nor the optimizer: 0.2, 10 and Adam are ours. The policy at the beginning of an update
stands for the one that sampled: they are the same where nothing is in flight when the parameters change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UsageError
from archsmith.core.space import Space
from archsmith.searchers import policy
from archsmith.searchers.depth_schedule import DepthSchedule

if TYPE_CHECKING:
    from archsmith.searchers.lstm_controller import Controller
    from archsmith.searchers.traces import Trace

__all__ = ["PPO"]


@dataclass(frozen=True)
class PPO:
    """A controller that learns by PPO. The defaults are the NASNet paper's.

    Args:
        learning_rate: of Adam.
        minibatch: m, how many results make one update.
        clip: epsilon, how far a ratio counts.
        epochs: steps of each update, all on the whole minibatch.
        baseline_decay: how much of the baseline stays at each update; 0 is the last minibatch's mean alone.
        entropy_weight: how much the policy's entropy, summed over its decisions in nats, counts beside the reward.
        ranks: 0 learns from rewards, as the paper; n from a reward's rank among the last n, from 0 to 1.
        unique: whether proposals that were made before are drawn again.
        hidden: units of each layer of the LSTM.
        layers: how many layers it has.
        embedding: the size of the vectors it reads.
        init: all its parameters start uniform in [-init, init].
        anchor_input: what it reads after choosing among earlier steps: "answers" or "hidden", as in `Reinforce`.
        depth_schedule: forces the depth, or None.
    """

    learning_rate: float = 3.5e-4
    minibatch: int = 20
    clip: float = 0.2
    epochs: int = 10
    baseline_decay: float = 0.95
    entropy_weight: float = 1e-5
    ranks: int = 0
    unique: bool = False
    hidden: int = 100
    layers: int = 1
    embedding: int = 100
    init: float = 0.1
    anchor_input: str = "answers"
    depth_schedule: DepthSchedule | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        policy.check(self)
        policy.whole(self, "epochs")
        if not policy.is_number(self.clip) or not 0 < self.clip < math.inf:
            raise UsageError(f"clip of PPO must be above 0 and finite, got {self.clip!r}")

    @classmethod
    def small(cls) -> PPO:
        """Settings for some hundred trials, tuned on NAS-Bench-201's columns of CIFAR-100 and ImageNet16-120."""
        return cls(learning_rate=3e-3, minibatch=10, entropy_weight=0.05, ranks=100, unique=True)

    def random_trials(self, space: Space) -> int:
        """The trials of the first minibatch."""
        return self.minibatch

    def start(self, space: Space, seed: int) -> policy.LivePolicy:
        """A live controller. Raises UsageError when the space asks nothing, or lacks the schedule's choice."""
        return policy.start(self, space, seed, self._learn)

    def _learn(self, controller: Controller, traces: Sequence[Trace], advantages: Sequence[float]) -> dict[str, float]:
        """One update; shows the first step's gradient norm, the entropy per decision in nats before it, and which part
        of the ratios lay outside of the clip at the last step."""
        import torch

        advantage = torch.tensor(advantages)[:, None]
        plan = controller.plan(traces)
        shown: dict[str, float] = {}
        old = None
        for _ in range(self.epochs):
            score = controller.score(plan)
            if old is None:
                old = score.log_prob.detach()
                shown["entropy"] = float(score.entropy.detach().sum()) / max(score.decisions, 1)
            # The gradient of min(r A, clip(r) A) by log P is r A where r counts, and nothing where the clip is less. A
            # trace that has ended has a log-probability of 0, which has no gradient.
            with torch.no_grad():
                ratio = (score.log_prob - old).exp()
                clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
                push = torch.where(ratio * advantage <= clipped * advantage, ratio * advantage, 0.0)
            objective = ((push * score.log_prob).sum() + self.entropy_weight * score.entropy.sum()) / len(traces)
            first = "gradient_norm" not in shown
            norm = controller.descend(-objective, self.learning_rate, measured=first)
            shown.setdefault("gradient_norm", norm)
        shown["clipped"] = float((ratio != clipped).float().mean())
        return shown
