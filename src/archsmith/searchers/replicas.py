"""Where controller replicas compute (Zoph and Le 2017, section 3.2): samples and gradients under the parameters they pulled.

Nothing is kept between calls: the parameters that a replica pulled are handed to it with each call. So replicas that
share a process share one network, and one that is gone is replaced by starting it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.searchers import policy
from archsmith.searchers.lstm_controller import one_thread
from archsmith.searchers.parameter_server import Gradient
from archsmith.searchers.parameters import Pulled, whole
from archsmith.searchers.reinforce import Reinforce


class Replicas:
    """Some of the K replicas, side by side in one process: a part that lives on a host."""

    def __init__(self, learner: Reinforce, space: Space, seed: int) -> None:
        self._learner = learner
        self._controller = policy.controller(learner, space, seed)

    def here(self) -> int:
        """The process it is in; that it answers shows that it lives."""
        return os.getpid()

    def sample(self, first: int, count: int, seed: int, *pulled: Pulled) -> list[Genotype]:
        """Genotypes for the proposals numbered from `first`."""
        self._controller.take(*whole(pulled))
        return self._controller.sample(first, count, seed)[0]

    def gradient(self, genotypes: Sequence[Genotype], advantages: Sequence[float], *pulled: Pulled) -> Gradient:
        """(1/m) sum_k sum_t grad log P(a_t | a_<t) (R_k - b), to be descended; under the parameters that sampled."""
        policy, learner = self._controller, self._learner
        policy.take(*whole(pulled))
        with one_thread():
            loss, entropy = learner.loss(policy, [policy.reader.trace(g) for g in genotypes], advantages)
            gradients = policy.gradient(loss)
        layout, values = policy.layout(), None
        if gradients is not None:
            found = dict(zip(policy.parameters, gradients, strict=True))
            values = np.concatenate([found[name].numpy().ravel() for name, _ in layout.shapes])
        return Gradient(layout, values, entropy)
