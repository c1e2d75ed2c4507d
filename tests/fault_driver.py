"""The driver of a search that is to be killed: `python fault_driver.py` reads what to run, a line of JSON each, and forks.

Everything is imported once, before the fork, so that a killed search costs milliseconds and not seconds. For each line
it prints the process's number, and its exit status once it has ended: 0 for a search that is finished, 1 for one that
was ended by an error of archsmith's, whose message is in the file `said`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import archsmith as smith
import fault_children
from archsmith._search.loop import replay
from archsmith._search.run import Run
from archsmith.core.errors import ArchsmithError
from archsmith.core.executor import Executor, derive_seed
from archsmith.executors import InProcess, ProcessPool
from archsmith.searchers import PPO, QLearning, Random, RegularizedEvolution, Reinforce
from archsmith.stopping import ASHA
from archsmith.store import open_store

SPACE = smith.spaces.ConvChain(layers=4)
SEARCHERS: dict[str, Any] = {
    "reinforce": Reinforce(learning_rate=1e-2),
    "ppo": PPO(),
    "evolution": RegularizedEvolution(population=20, sample=5),
    "q-learning": QLearning(),
    "random": Random(),
    "asha": Random(),
}
SPACES = {"q-learning": smith.spaces.QNet()}


def parts(spec: dict[str, Any]) -> dict[str, Any]:
    """What a line says, as the arguments of `search`."""
    searcher = spec["searcher"]
    epochs, seconds = 9 if searcher == "asha" else 1, spec.get("seconds", 0.0)
    steps = fault_children.Steps(epochs, seconds, spec.get("keep", False), spec.get("busy", ""))
    return {
        "space": SPACES.get(searcher, SPACE),
        "evaluator": steps if spec.get("steps") or searcher == "asha" else fault_children.HEIGHTS,
        "searcher": SEARCHERS[searcher],
        "stopping": ASHA() if searcher == "asha" else None,
    }


def executor(spec: dict[str, Any]) -> Executor:
    if spec["executor"] == "pool":
        return ProcessPool(2, retries=spec.get("retries", 100))
    if spec["executor"] == "ray":
        from archsmith.executors import Ray

        return Ray(spec["address"], workers=spec["workers"], retries=100, start_timeout=120)
    return InProcess()


def session(spec: dict[str, Any]) -> None:
    """Begin the search or go on with it."""
    store = open_store(spec["store"], artifacts=spec.get("artifacts"))
    given = parts(spec)
    if "r" in [run.name for run in store.runs()]:
        Run(store, "r").resume(**given, executor=executor(spec))
    else:
        space, evaluator = given.pop("space"), given.pop("evaluator")
        smith.search(
            space,
            evaluator,
            **given,
            executor=executor(spec),
            store=store,
            name="r",
            seed=spec["seed"],
            trials=spec["trials"],
        )


def proposals(spec: dict[str, Any]) -> list[str]:
    """What the searcher of a finished run would propose next, from the record alone."""
    store, given = open_store(spec["store"]), parts(spec)
    live = given["searcher"].start(given["space"], derive_seed(spec["seed"], "searcher"))
    writer = store.write("r")
    try:
        replay(writer, live)
        return [proposal.genotype.canonical for proposal in live.ask(3)]
    finally:
        writer.close()


def child(spec: dict[str, Any]) -> int:
    os.chdir(spec["folder"])
    os.dup2(os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 1)  # ours is for the lines of `main`
    if spec.get("clock"):
        jumping_clock(spec["clock"])
    if spec.get("file_size"):
        small_files(spec["file_size"])
    try:
        if spec.get("peek"):
            Path("proposals.json").write_text(json.dumps(proposals(spec)))
        else:
            session(spec)
    except ArchsmithError as error:
        Path("said").write_text(f"{type(error).__name__}: {error}")
        return 1
    except BaseException:
        Path("said").write_text(traceback.format_exc())
        return 2
    return 0


def jumping_clock(seed: int) -> None:
    """Have the wall clock jump by up to ten days, forth and back, at every look."""
    import random
    import time

    wall, draws = time.time, random.Random(seed)
    time.time = lambda: wall() + draws.uniform(-864_000, 864_000)


def small_files(limit: int) -> None:
    """Have the kernel refuse to let any file grow beyond this."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def main() -> None:
    for module in ("numpy", "torch", "psycopg", "sqlalchemy.dialects.postgresql.psycopg", "archsmith.store.sql"):
        importlib.import_module(module)
    for searcher in SEARCHERS:  # what is imported late
        spec = {"searcher": searcher, "executor": "here", "store": None, "seed": 0, "trials": 3}
        session(spec)
    assert threading.active_count() == 1
    print("ready", flush=True)
    for line in sys.stdin:
        spec = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os._exit(child(spec))
        print(pid, flush=True)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # its number is not given to another before it was killed
        print("ended", flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
