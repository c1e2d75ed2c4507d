"""REINFORCE with an LSTM controller (Zoph and Le 2017, "Neural Architecture Search with Reinforcement Learning", 3.2).

The gradient of the expected reward is estimated from m architectures at a time:

    (1/m) sum_k sum_t grad log P(a_t | a_<t) (R_k - b)

Where this departs from the paper: it gives no decay for the baseline b; 0.95 is that of the NASNet paper. An entropy
weight, which the paper does not have, may keep the policy from settling early. Minibatches are of whatever results
come first: `archsmith.searchers.policy` has that, and how the baseline moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsmith.core.checks import plain_fields
from archsmith.core.space import Space
from archsmith.searchers import policy
from archsmith.searchers.depth_schedule import DepthSchedule

if TYPE_CHECKING:
    import torch

    from archsmith.searchers.lstm_controller import Controller
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
        ranks: 0 learns from rewards, as the paper; n from a reward's rank among the last n, from 0 to 1.
        unique: whether proposals that were made before are drawn again.
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
    ranks: int = 0
    unique: bool = False
    hidden: int = 35
    layers: int = 2
    embedding: int = 35
    init: float = 0.08
    anchor_input: str = "answers"
    depth_schedule: DepthSchedule | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        policy.check(self)

    @classmethod
    def small(cls) -> Reinforce:
        """Settings for some hundred trials, tuned on NAS-Bench-201's columns of CIFAR-100 and ImageNet16-120."""
        return cls(learning_rate=1e-2, entropy_weight=0.05, ranks=50, unique=True)

    def random_trials(self, space: Space) -> int:
        """The trials of the first minibatch."""
        return self.minibatch

    def start(self, space: Space, seed: int) -> policy.LivePolicy:
        """A live controller. Raises UsageError when the space asks nothing, or lacks the schedule's choice."""
        return policy.start(self, space, seed, self._learn)

    def loss(
        self, controller: Controller, traces: Sequence[Trace], advantages: Sequence[float]
    ) -> tuple[torch.Tensor, float]:
        """What to descend, minus the objective; and the entropy per decision in nats."""
        import torch

        score = controller.score(traces)
        objective = (score.log_prob.sum(1) * torch.tensor(advantages)).mean()
        if self.entropy_weight:
            objective = objective + self.entropy_weight * score.entropy.sum(1).mean()
        return -objective, float(score.entropy.detach().sum()) / max(score.decisions, 1)

    def _learn(self, controller: Controller, traces: Sequence[Trace], advantages: Sequence[float]) -> dict[str, float]:
        """One step up the estimated gradient; shows its norm, and the entropy per decision in nats."""
        loss, entropy = self.loss(controller, traces, advantages)
        norm = controller.descend(loss, self.learning_rate)
        return {"entropy": entropy, "gradient_norm": norm}
