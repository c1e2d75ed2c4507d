"""What room the machines of a Ray cluster have for children; they come and go."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

_TICK = 2.0  # seconds between two looks


class Room:
    """How many children fit, looked at again from time to time.

    Args:
        needs: of one child, by Ray's names of resources.
        own: whether the cluster is this process's own, and stays as it is.
    """

    def __init__(self, needs: Mapping[str, float], *, own: bool) -> None:
        self.needs = needs
        self.places = 0
        self._own = own
        self._looked_at = -math.inf
        self._none_since = math.inf

    def look(self) -> int:
        """How many children fit on the machines that there are, all else aside. Says so once when no machine holds one."""
        now = time.monotonic()
        if now >= self._looked_at + _TICK:
            self._looked_at, self.places = now, places(self.needs)
            if self.places:
                self._none_since = math.inf
            elif self._none_since == math.inf:
                self._none_since = now
                if not self._own:
                    log.warning("%s; waiting for a machine that has it", self.wanting())
        return self.places

    def none_for(self) -> float:
        """For how many seconds there has been room for none."""
        return max(0.0, time.monotonic() - self._none_since)

    def wanting(self) -> str:
        """What a child needs, and what the machines have, in words."""
        wanted = ", ".join(f"{need:g} {name}" for name, need in self.needs.items() if need)
        return f"a child needs {wanted}, and {described()}"


def places(needs: Mapping[str, float]) -> int:
    """How many children that need so much fit on the machines of the cluster, all else aside."""
    import ray

    total = 0
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            has = node["Resources"]
            # Ray counts in ten-thousandths, and a third three times is one.
            fit = [math.floor(has.get(name, 0.0) / need + 1e-3) for name, need in needs.items() if need > 0]
            total += min(fit, default=0)
    return total


def described() -> str:
    """The machines of the cluster, for a message: "10.0.0.1 has 8 CPU, 1 GPU"."""
    import ray

    found = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            has = {
                k: v
                for k, v in node["Resources"].items()
                if ":" not in k and k not in ("memory", "object_store_memory")
            }
            listed = ", ".join(f"{count:g} {name}" for name, count in sorted(has.items())) or "nothing"
            found.append(f"{node['NodeManagerAddress']} has {listed}")
    return "; ".join(found) or "there are no machines"
