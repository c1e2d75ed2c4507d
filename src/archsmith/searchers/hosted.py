"""A parameter server and replicas where they live, as the searcher calls them: in this process, or on a host.

Shards are divided among some processes and replicas among others. Each version of the parameters is pulled once, however
many replicas have it, and what was pulled is handed on to replicas as it is, whether it is there yet or not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from archsmith.core.errors import UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.hosting import Here, Host, Part, PartLost, Pending
from archsmith.core.searcher import State
from archsmith.core.space import Space
from archsmith.searchers.parameter_server import Held, Server, Shards, joined
from archsmith.searchers.parameters import Layout, Pulled, trunk, whole
from archsmith.searchers.reinforce import Reinforce


class Hosted:
    """Shards and replicas on a host; in this process until `place`.

    Calls are carried out in the order in which they are made here. What they raise, and `PartLost`, comes with their results.

    Args:
        learner, space, seed: what the replicas are started with.
        shards, replicas: how many there are of each.
        accumulate: how many gradients make an update.
        processes: how many processes the shards share on a host, and how many the replicas.
    """

    def __init__(
        self,
        learner: Reinforce,
        space: Space,
        seed: int,
        *,
        shards: int,
        replicas: int,
        accumulate: int,
        processes: int,
    ) -> None:
        self._server = Server(
            layout=Layout.of({}, trunk(learner.hidden, learner.layers, learner.embedding)),
            seed=derive_seed(seed, "controller"),
            init=learner.init,
            shards=shards,
            accumulate=accumulate,
            learning_rate=learner.learning_rate,
        )
        self._replica = learner, space, seed
        self._count = replicas
        self._processes = processes
        self.host: Host = Here()
        self._shards: list[Part] = []
        self._replicas: list[Part] = []
        self._closed = False
        self._pulled: dict[int, list[Any]] = {}  # by version: what each process of shards gave, or will give
        self.pushes = 0

    @property
    def may_lose_parts(self) -> bool:
        """Whether a part can die without this process."""
        return not isinstance(self.host, Here)

    def place(self, host: Host) -> None:
        """Start them there. Raises UsageError when they were started elsewhere."""
        if self._replicas:
            raise UsageError("the replicas of this searcher have begun; place them before the first ask")
        self.host = host
        self._start()

    def close(self) -> None:
        """End them. Safe to call twice."""
        self._closed = True
        for part in (*self._replicas, *self._shards):
            part.end()

    def _start(self) -> None:
        if self._closed:
            raise UsageError("this searcher was closed; start another one, and load the state that this one gave")
        if not self._replicas:
            p = self._processes if self.may_lose_parts else 1
            self._shards = [self._start_shards(p, first) for first in range(min(p, self._server.shards))]
            self._replicas = [self._start_replicas() for _ in range(min(p, self._count))]

    def _start_shards(self, processes: int, first: int) -> Part:
        return self.host.start(Shards, self._server, tuple(range(first, self._server.shards, processes)))

    def _start_replicas(self) -> Part:
        return self.host.start(_replicas, *self._replica)

    def processes(self) -> list[int]:
        """The ids of the processes of shards and replicas, each on its machine; waits until they have started."""
        self._start()
        answers = [part.call("here") for part in (*self._shards, *self._replicas)]
        return [int(answer.result()) for answer in answers]

    def replace_lost(self) -> None:
        """Start again what died; `load` has to follow. The others have done by then all that they were called for."""
        self._start()

        def replaced(parts: list[Part], start: Callable[[int], Part]) -> list[Part]:
            asked = [part.call("here") for part in parts]
            return [
                part if _lives(answer) else start(n) for n, (part, answer) in enumerate(zip(parts, asked, strict=True))
            ]

        count = len(self._shards)
        self._shards = replaced(self._shards, lambda number: self._start_shards(count, number))
        self._replicas = replaced(self._replicas, lambda _: self._start_replicas())

    # --- what replicas do

    def pull(self, version: int) -> None:
        """Have the parameters at hand as that version, which they are now."""
        if version not in self._pulled:
            self._start()
            self._pulled[version] = [part.call("pull", self.pushes) for part in self._shards]

    def keep(self, versions: Collection[int]) -> None:
        """Forget all versions but these."""
        self._pulled = {version: pulled for version, pulled in self._pulled.items() if version in versions}

    def sample(self, replica: int, version: int, first: int, count: int, seed: int) -> Pending:
        """Have a replica draw genotypes under a version that was pulled, for the proposals numbered from `first`."""
        part = self._replicas[replica % len(self._replicas)]
        return part.call("sample", first, count, seed, *self._pulled[version])

    def push(self, replica: int, version: int, told: Sequence[Genotype], advantages: Sequence[float]) -> list[Pending]:
        """Have a replica push its gradient under that version; gives what each process of shards says of it."""
        part = self._replicas[replica % len(self._replicas)]
        gradient = part.call("gradient", list(told), list(advantages), *self._pulled[version])
        pushed = [part.call("push", self.pushes, gradient) for part in self._shards]
        self.pushes += 1
        return pushed

    # --- state

    def state_dict(self) -> State:
        """Plain data: what the shards hold, and the parameters of each version that is at hand, once."""
        self._start()
        asked = [part.call("state", self.pushes) for part in self._shards]
        found = [answer.result() for answer in asked]
        layouts: list[Layout] = [found[0][0]]
        held = joined(layouts[0], self._server.shards, [one for _, slices in found for one in slices])
        versions = []
        for version, pulled in self._pulled.items():
            layout, values = whole([part if isinstance(part, Pulled) else part.result() for part in pulled])
            if layout not in layouts:
                layouts.append(layout)
            versions.append({"version": version, "layout": layouts.index(layout), "values": values})
        return {
            "pushes": self.pushes,
            "server": vars(held) | {},
            "layouts": [_layout_to_plain(layout) for layout in layouts],
            "versions": versions,
        }

    def load_state_dict(self, state: State | None) -> None:
        """Go on from what `state_dict` gave, with any number of shards; None: begin anew."""
        self._pulled, self.pushes, held = {}, 0, None
        if state is not None:
            layouts = [_layout_from_plain(layout) for layout in state["layouts"]]
            held, self.pushes = (layouts[0], Held(**state["server"])), int(state["pushes"])
            for entry in state["versions"]:
                pulled = Pulled(layouts[entry["layout"]], 1, ((0, entry["values"]),))
                self._pulled[int(entry["version"])] = [pulled]
        self._start()
        for part in self._shards:
            part.call("load", held, self.pushes)


def _replicas(learner: Reinforce, space: Space, seed: int) -> Any:
    from archsmith.searchers.replicas import Replicas  # torch loads there: recipes are listed without it

    return Replicas(learner, space, seed)


def _lives(answer: Pending) -> bool:
    try:
        answer.result()
    except PartLost:
        return False
    return True


def _layout_to_plain(layout: Layout) -> dict[str, Any]:
    heads = [{"form": form, "kind": kind, "width": width} for (form, kind), width in layout.widths]
    return {"heads": heads, "shapes": [{"name": name, "shape": list(shape)} for name, shape in layout.shapes]}


def _layout_from_plain(plain: Mapping[str, Any]) -> Layout:
    widths = {(head["form"], head["kind"]): int(head["width"]) for head in plain["heads"]}
    return Layout.of(widths, {entry["name"]: tuple(entry["shape"]) for entry in plain["shapes"]})
