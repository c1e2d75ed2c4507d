"""Seeds the global generators for a child."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of `random`, numpy and torch. Libraries that the body imports are seeded on import.

    So the numbers that a child draws do not depend on earlier imports.
    """
    seeds = {"numpy": _seed_numpy, "torch": _seed_torch}
    random.seed(seed)
    for name in seeds.keys() & sys.modules.keys():
        seeds[name](seed)
    later = _SeedsImports({name: partial(seeds[name], seed) for name in seeds.keys() - sys.modules.keys()})
    sys.meta_path.insert(0, later)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.meta_path.remove(later)


def _seed_numpy(seed: int) -> None:
    sys.modules["numpy"].random.seed(seed & 0xFFFF_FFFF)


def _seed_torch(seed: int) -> None:
    from archsmith.nn.seeding import seed_torch

    seed_torch(seed)


class _SeedsImports(MetaPathFinder):
    """Calls a function after the import of a module."""

    def __init__(self, then: dict[str, Callable[[], None]]) -> None:
        self._then = then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of the other finders, for a module in `then` whose function is still to be called."""
        then = self._then.pop(name, None)
        spec = find_spec(name) if then is not None else None
        if then is None or spec is None or spec.loader is None:
            return None
        execute, loader = spec.loader.exec_module, spec.loader

        def exec_module(module: ModuleType) -> None:
            execute(module)
            then()

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
