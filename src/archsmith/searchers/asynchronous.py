"""Asynchronous training of the controller (Zoph and Le 2017, section 3.2 and figure 3): S shards, K replicas, m children each.

A parameter server of S shards holds the controller. Each of K replicas pulls the parameters, samples m architectures, waits
until all m are trained, computes REINFORCE's gradient under the parameters that it pulled, and pushes it; the server
applies what it gets, after every n gradients where it accumulates (10 for Penn Treebank). The others have pushed meanwhile:
a gradient is as stale as the versions that the server went on since it was pulled for, which is measured.

One process, the run's, orders all calls: a replica begins when a proposal of it is asked for, the one that waits longest
first, and pushes when the last of its m is told. Shards and replicas carry out their calls in that order wherever they live. So
what is proposed depends on the seed and on what is asked and told, not on how fast they are, nor on whether one of them
died: what dies is started again from the last state that was taken, and what was asked and told since is repeated.

Where the paper is silent: the mean of n gradients is applied, by Adam; the baseline is the server's and moves with each push;
a child that says nothing of its architecture (it was stopped, or its worker died) is left out of its replica's mean. See
`docs/decisions/0023-asynchronous.md`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from archsmith.core.checks import plain_fields
from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.hosting import Host, PartLost, Pending
from archsmith.core.searcher import State
from archsmith.core.space import Space, decode, identity
from archsmith.core.trial import Proposal, Trial
from archsmith.searchers import policy
from archsmith.searchers.reinforce import Reinforce

if TYPE_CHECKING:
    from archsmith.searchers.hosted import Hosted

__all__ = ["Asynchronous"]

T = TypeVar("T")
PUSHES_PER_STATE = 64
"""After how many pushes the state is taken from which parts that died are started again."""
MOST_LOSSES = 10
"""How often in a row parts may die before the search gives up."""


@dataclass(frozen=True)
class Asynchronous:
    """REINFORCE with a parameter server and replicas. The defaults are the paper's for CIFAR-10.

    At most `replicas * learner.minibatch` trials run at once. With fewer workers fewer replicas are at work, and the
    gradients are less stale.

    Args:
        learner: the controller and how it learns; its `minibatch` is m, the children of a replica.
        shards: S, how many slices of the parameters there are; results do not depend on it.
        replicas: K.
        accumulate: n, how many gradients the server waits for before it applies their mean.
        processes: where an executor can host them, how many processes the replicas share, and how many the shards. A
            process of replicas needs some 300 MB; one of two serves thousands of children. As many as replicas give each its own.
    """

    learner: Reinforce = Reinforce()
    shards: int = 20
    replicas: int = 100
    accumulate: int = 1
    processes: int = 2

    def __post_init__(self) -> None:
        plain_fields(self)
        if not isinstance(self.learner, Reinforce):
            raise UsageError(
                f"learner of Asynchronous must be a Reinforce, got {type(self.learner).__name__}: a replica pushes one gradient "
                "of its minibatch, and only REINFORCE learns by such; PPO takes several steps of its own from it"
            )
        for name in ("shards", "replicas", "accumulate", "processes"):
            policy.whole(self, name)

    def random_trials(self, space: Space) -> int:
        """The trials of the minibatches before the first update."""
        return self.learner.minibatch * self.accumulate

    def start(self, space: Space, seed: int) -> LiveAsynchronous:
        """A live controller. Raises UsageError when the space asks nothing, or lacks the schedule's choice."""
        policy.check_space(space)
        if self.learner.depth_schedule is not None:
            self.learner.depth_schedule.options(space)
        return LiveAsynchronous(self, space, seed)


@dataclass
class _Batch:
    """What a replica has drawn and learns from when it is complete."""

    replica: int
    version: int  # of the parameters that it pulled
    first: int  # the number of its first proposal
    drawn: Pending | None = None
    genotypes: list[Genotype] = field(default_factory=list)
    given: int = 0  # how many were given out,
    ended: int = 0  # how many were told,
    learned: list[tuple[int, float]] = field(default_factory=list)  # and what is learned from which


@dataclass
class _Push:
    """A gradient that was pushed: what there is to show of it."""

    version: int  # of the parameters that it was computed with
    mean: float
    baseline: float
    entropy: float | Pending


class LiveAsynchronous:
    """Parameter server and replicas at work, in this process or on a host.

    Deterministic, as every searcher; what it proposes does not depend on how asks are grouped either.
    """

    def __init__(self, config: Asynchronous, space: Space, seed: int) -> None:
        self._config = config
        self._space = space
        self._seed = seed
        self._hosted = self._made()
        self._kept: State | None = None  # where to go on from when a part dies; None is the beginning,
        self._since: list[int | list[Trial]] = []  # and what was asked and told since then
        self._kept_pushes = 0
        self._begin()

    def _made(self) -> Hosted:
        from archsmith.searchers.hosted import Hosted  # numpy loads there: recipes are listed without it

        config = self._config
        return Hosted(
            config.learner,
            self._space,
            self._seed,
            shards=config.shards,
            replicas=config.replicas,
            accumulate=config.accumulate,
            processes=config.processes,
        )

    def _begin(self) -> None:
        config = self._config
        self._asked = 0  # proposals given out
        self._batches = 0
        self._draws = [0] * config.replicas  # of each replica; each draw has a generator of its own
        self._idle = deque(range(config.replicas))
        self._open: deque[_Batch] = deque()  # begun, and not all given out
        self._running: dict[int, _Batch] = {}  # by the proposal's number: given out and not told
        self._busy: dict[int, _Batch] = {}  # by replica
        self._version = 0
        self._waiting: list[_Push] = []  # pushed and not applied
        self._applied: tuple[list[_Push], list[Pending]] | None = None  # the last update, and what its shards say
        self._shown: dict[str, float] = {}
        self._rewards = policy.Rewards(config.learner)
        self._seen: set[str] = set()  # keys of what was proposed, where that matters
        self._foreign: list[tuple[Genotype, float]] = []  # told, proposed by no replica, and not learned from yet

    # --- the searcher's verbs

    @property
    def version(self) -> int:
        """How many updates there were."""
        return self._version

    def capacity(self) -> int:
        """How many proposals the replicas can make before one of them is complete: K m, less those that it waits for."""
        m = self._config.learner.minibatch
        return m * self._config.replicas - sum(batch.given for batch in self._busy.values())

    def ask(self, n: int) -> list[Proposal]:
        """Exactly `n` proposals. Raises UsageError where that is more than `capacity()`."""
        if n > self.capacity():
            raise UsageError(
                f"{n} proposals were asked for, and {self._config.replicas} replicas of {self._config.learner.minibatch} "
                f"children can make {self.capacity()} before they are told more results: ask for no more than capacity()"
            )
        return self._surely(lambda: self._ask(n), n)

    def tell(self, trials: Sequence[Trial]) -> None:
        """A trial that no replica proposed, such as a known point, is learned from with the next gradient that is pushed."""
        for trial in trials:
            if self._batch_of(trial) is None:
                decode(self._space, trial.genotype)  # refuses one of another space
        self._surely(lambda: self._tell(trials), list(trials))

    def diagnostics(self) -> Mapping[str, float]:
        """Of the last update; empty before the first.

        The mean reward and the entropy per decision in nats, over all that it learned from; the baseline that its last
        gradient was held against; the norm of the gradient applied; mean and largest staleness, the version at which a
        gradient was applied less the one that sampled; and how many updates and pushes there were.
        """
        return dict(self._surely(self._show))

    def place(self, host: Host) -> None:
        """Start shards and replicas on that host. Before the first `ask`, or before `load_state_dict`."""
        self._hosted.place(host)

    def close(self) -> None:
        """End shards and replicas. Safe to call twice."""
        self._hosted.close()

    # --- asking

    def _ask(self, n: int) -> list[Proposal]:
        m, proposals = self._config.learner.minibatch, list[Proposal]()
        short = n - sum(m - batch.given for batch in self._open)
        while short > 0:  # they all draw at the same time, before the first of them is waited for
            self._open.append(self._pull_and_sample())
            short -= m
        while len(proposals) < n:
            batch = self._open[0]
            if not batch.genotypes:
                self._receive(batch)
            self._running[self._asked] = batch
            self._asked += 1
            proposals.append(Proposal(batch.genotypes[batch.given], replica=batch.replica, version=batch.version))
            batch.given += 1
            if batch.given == m:
                self._open.popleft()
        return proposals

    def _pull_and_sample(self) -> _Batch:
        replica, m = self._idle.popleft(), self._config.learner.minibatch
        self._hosted.pull(self._version)
        batch = _Batch(replica, self._version, self._batches * m)
        batch.drawn = self._draw(batch, batch.first)
        self._batches += 1
        self._busy[replica] = batch
        return batch

    def _draw(self, batch: _Batch, first: int) -> Pending:
        replica = batch.replica
        seed = self._seed if replica == 0 else derive_seed(self._seed, "replica", replica)
        seed = derive_seed(seed, "batch", self._draws[replica])
        self._draws[replica] += 1
        return self._hosted.sample(replica, batch.version, first, self._config.learner.minibatch, seed)

    def _receive(self, batch: _Batch) -> None:
        """Wait for what the replica has drawn; where proposals are to be unique, have it draw again what is known."""
        assert batch.drawn is not None
        learner, queue, drawn = self._config.learner, deque[Genotype](batch.drawn.result()), 1
        batch.drawn, space = None, identity(self._space)
        while len(batch.genotypes) < learner.minibatch:
            if not queue:
                queue.extend(self._draw(batch, batch.first + len(batch.genotypes)).result())
                drawn += 1
            genotype = Genotype(space, queue.popleft().answers)
            if not learner.unique or genotype.key not in self._seen or (drawn > policy.MOST_DRAWS and not queue):
                batch.genotypes.append(genotype)
                if learner.unique:
                    self._seen.add(genotype.key)
                drawn = 0

    # --- telling

    def _batch_of(self, trial: Trial) -> tuple[int, _Batch] | None:
        """Whose proposal the trial is: by its number, or else the oldest such genotype; None for one of nobody's."""

        def is_it(number: int) -> bool:
            batch = self._running[number]
            genotype = batch.genotypes[number - batch.first]
            return genotype is trial.genotype or genotype == trial.genotype

        if trial.number in self._running and is_it(trial.number):
            return trial.number, self._running[trial.number]
        number = next(filter(is_it, self._running), None)
        return None if number is None else (number, self._running[number])

    def _tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            found = self._batch_of(trial)
            reward = self._rewards.found(trial)
            if found is None:
                if reward is not None:
                    self._foreign.append((trial.genotype, self._rewards.taken(reward)))
                    if self._config.learner.unique:
                        self._seen.add(trial.genotype.key)
                continue
            number, batch = found
            del self._running[number]
            batch.ended += 1
            if reward is not None:
                batch.learned.append((number - batch.first, self._rewards.taken(reward)))
            if batch.ended == self._config.learner.minibatch:
                self._complete(batch)

    def _complete(self, batch: _Batch) -> None:
        """All m are told: the replica pushes its gradient, and is free to pull and sample again."""
        if batch.learned:
            self._push(batch)
        del self._busy[batch.replica]
        self._idle.append(batch.replica)
        self._hosted.keep({other.version for other in self._busy.values()} | {self._version})

    def _push(self, batch: _Batch) -> None:
        learned = [(batch.genotypes[place], reward) for place, reward in batch.learned] + self._foreign
        self._foreign = []
        advantages, mean, baseline = self._rewards.held([reward for _, reward in learned])
        genotypes = [genotype for genotype, _ in learned]
        pushed = self._hosted.push(batch.replica, batch.version, genotypes, advantages)
        self._waiting.append(_Push(batch.version, mean, baseline, pushed[0]))
        if len(self._waiting) == self._config.accumulate:
            self._version += 1
            self._applied, self._waiting = (self._waiting, pushed), []

    def _show(self) -> dict[str, float]:
        if self._applied is not None:
            pushes, pushed = self._applied
            count, before = len(pushes), self._version - 1
            self._shown = {
                "mean_reward": math.fsum(push.mean for push in pushes) / count,
                "baseline": pushes[-1].baseline,
                "entropy": math.fsum(_entropy(push) for push in pushes) / count,
                "gradient_norm": math.sqrt(math.fsum(square for part in pushed for square in part.result().squares)),
                "mean_staleness": math.fsum(before - push.version for push in pushes) / count,
                "largest_staleness": float(max(before - push.version for push in pushes)),
                "updates": float(self._version),
                "pushes": float(self._version * self._config.accumulate),
            }
            self._applied = None
        return self._shown

    # --- what dies

    def _surely(self, do: Callable[[], T], entry: int | list[Trial] | None = None) -> T:
        """What `do` gives, whatever dies meanwhile. It is noted as `entry`, to be repeated when parts die later."""
        hosted = self._hosted
        for loss in range(MOST_LOSSES):
            try:
                if loss:
                    self._rebuild()
                elif hosted.may_lose_parts and hosted.pushes >= self._kept_pushes + PUSHES_PER_STATE:
                    self._keep(self._state())
                given = do()
            except PartLost as error:
                self._look_for_errors()
                lost = error
                continue
            if entry is not None and hosted.may_lose_parts:
                self._since.append(entry)
            return given
        raise ArchsmithError(
            f"shards or replicas of the controller died {MOST_LOSSES} times in a row, the last time: {lost}. "
            "All finished trials are kept; look at the executor's logs, for example for processes that lack memory, and resume"
        ) from lost

    def _look_for_errors(self) -> None:
        """Raise what a replica raised: its gradient never came to the shards then, which say no more than that."""
        for push in (*self._waiting, *(self._applied[0] if self._applied is not None else ())):
            with contextlib.suppress(PartLost):
                _entropy(push)

    def _keep(self, state: State | None) -> None:
        self._kept, self._kept_pushes = state, self._hosted.pushes
        self._since.clear()

    def _rebuild(self) -> None:
        """Start again what died, and come to where it was: from the state that was kept, by what was asked and told since."""
        self._hosted.replace_lost()
        self._restore(self._kept)
        for entry in self._since:
            if isinstance(entry, int):
                self._ask(entry)
            else:
                self._tell(entry)

    # --- state

    def state_dict(self) -> State:
        """Plain data: the parameters that replicas have among it, each version once."""
        state = self._surely(self._state)
        self._keep(state)
        return state

    def load_state_dict(self, state: State) -> None:
        """Go on from what `state_dict` gave, with any number of shards."""
        if int(state["seed"]) != self._seed:  # parameters that are yet to be met start by it
            self._seed, other = int(state["seed"]), self._hosted
            other.close()
            self._hosted = self._made()
            self._hosted.place(other.host)
        self._restore(state)
        self._keep(state)

    def _state(self) -> State:
        return {
            "seed": self._seed,
            "asked": self._asked,
            "batches": self._batches,
            "draws": list(self._draws),
            "idle": list(self._idle),
            "busy": [_batch_to_plain(batch) for batch in self._busy.values()],
            "running": list(self._running),
            "version": self._version,
            "waiting": [{**vars(push), "entropy": _entropy(push)} for push in self._waiting],
            "shown": dict(self._show()),
            "seen": sorted(self._seen),
            "foreign": [{"answers": dict(genotype.answers), "reward": reward} for genotype, reward in self._foreign],
            "rewards": self._rewards.state_dict(),
            "hosted": self._hosted.state_dict(),
        }

    def _restore(self, state: State | None) -> None:
        self._begin()
        self._hosted.load_state_dict(state and state["hosted"])
        if state is None:
            return
        space = identity(self._space)
        self._asked, self._batches = int(state["asked"]), int(state["batches"])
        self._draws, self._idle = list(state["draws"]), deque(state["idle"])
        self._busy = {entry["replica"]: _batch_from_plain(entry, space) for entry in state["busy"]}
        begun = sorted(self._busy.values(), key=lambda batch: batch.first)
        m = self._config.learner.minibatch
        self._open = deque(batch for batch in begun if batch.given < m)
        owners = {number: batch for batch in begun for number in range(batch.first, batch.first + batch.given)}
        self._running = {number: owners[number] for number in state["running"]}
        self._version = int(state["version"])
        self._waiting = [_Push(**push) for push in state["waiting"]]
        self._shown, self._seen = dict(state["shown"]), set(state["seen"])
        foreign = state.get("foreign") or []  # older states have none
        self._foreign = [(Genotype(space, entry["answers"]), float(entry["reward"])) for entry in foreign]
        self._rewards.load_state_dict(state["rewards"])


def _entropy(push: _Push) -> float:
    return push.entropy if isinstance(push.entropy, float) else float(push.entropy.result().entropy)


def _batch_to_plain(batch: _Batch) -> dict[str, Any]:
    plain = {name: getattr(batch, name) for name in ("replica", "version", "first", "given", "ended")}
    # As one text: a snapshot walks through every list, and 100 replicas of 8 children have tens of thousands of answers.
    answers = json.dumps([dict(genotype.answers) for genotype in batch.genotypes])
    return plain | {"answers": answers, "learned": [list(pair) for pair in batch.learned]}


def _batch_from_plain(plain: Mapping[str, Any], space: Mapping[str, Any]) -> _Batch:
    batch = _Batch(plain["replica"], plain["version"], plain["first"])
    batch.genotypes = [Genotype(space, answers) for answers in json.loads(plain["answers"])]
    batch.given, batch.ended = plain["given"], plain["ended"]
    batch.learned = [(place, reward) for place, reward in plain["learned"]]
    return batch
