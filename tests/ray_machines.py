"""A Ray cluster of several machines on this one, for the tests: machines come, and are lost as by a cut cable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SOON = {  # a lost machine is noticed in two seconds, not in half a minute
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_process_group_cleanup_enabled": "1",
}


class Machines:
    """Machines of one CPU each, but the head, which has none. Its address is `address`."""

    def __init__(self, number: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.nodes: list[Any] = []
        for _ in range(number):
            self.add()

    def add(self, gpus: int = 0, **resources: float) -> Any:
        """One more machine."""
        options = {
            "num_cpus": 1,
            "num_gpus": gpus,
            "object_store_memory": 100_000_000,
            "resources": resources,
            "wait": True,
        }
        self.nodes.append(self._cluster.add_node(**options))
        return self.nodes[-1]

    def lose(self, node: Any) -> None:
        """All its processes end at once."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def leave(self, node: Any) -> None:
        """It says that it goes."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=True)

    def close(self) -> None:
        """End them all."""
        self._cluster.shutdown()


@contextmanager
def machines(number: int) -> Iterator[Machines]:
    """A cluster, ended with the block; what lost machines leave behind in the environment as well."""
    before = {name: os.environ.get(name) for name in SOON}
    os.environ.update(SOON)
    try:
        cluster = Machines(number)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    try:
        yield cluster
    finally:
        cluster.close()
