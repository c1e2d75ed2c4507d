"""What the store costs, as a run grows: python benchmarks/store.py [--trials 100000] [--postgres [URL]] [--json FILE]

For a genotype of 60 choices and a constant result, per trial: propose, start, finish; with SQLite that is three commits
(WAL, synchronous=NORMAL, one commit for each event), with a snapshot of a random search's state every 256 events. The
cost is given by how many trials the run has already: flat is the claim. Then what reading costs at the end: the list of
runs, the best ten, one trial, all of them.

With --postgres the same in a PostgreSQL database; without a URL in a server of its own, made in a temporary folder on
this machine and reached by a Unix socket, which waits for the disk at each commit as a server should (fsync on).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from archsmith.core.genotype import Genotype
from archsmith.core.store import Store
from archsmith.core.trial import Cost, Proposal, Result, TrialState
from archsmith.store import MemoryStore, SQLStore

POINTS = (100, 1_000, 10_000, 100_000, 1_000_000)
SPACE = {
    "name": "ConvChain",
    "version": 1,
    "options": {"layers": 12, "filters": [24, 36, 48, 64], "sizes": [1, 3, 5, 7]},
}
RESULT = Result(
    {"accuracy": 0.9, "loss": 0.3, "parameters": 50_000.0},
    [{"epoch": i, "accuracy": 0.9, "loss": 0.3} for i in range(1, 6)],
    Cost(1.0, 5.0),
)


def genotypes(n: int) -> list[Genotype]:
    """Answers to 60 questions: twelve layers of five."""
    rng, made = random.Random(0), []
    for _ in range(n):
        answers: dict[str, Any] = {}
        for layer in range(12):
            for name in ("filter_height", "filter_width", "stride"):
                answers[f"{layer}.{name}"] = rng.choice((1, 3, 5, 7))
            answers[f"{layer}.filters"] = rng.choice((24, 36, 48, 64))
            answers[f"{layer}.inputs"] = [i for i in range(layer) if rng.random() < 0.5]
        made.append(Genotype(SPACE, answers))
    return made


def writing(store: Store, trials: int) -> list[dict[str, float]]:
    """The cost of a trial around each of the points, in microseconds."""
    pool, rng, rows = genotypes(1000), random.Random(1), []
    state = {"rng": random.Random(2).getstate()[1]}
    rewards = [rng.random() for _ in range(trials)]
    run, times = store.create("bench", {"seed": 0}), []
    busy = [time.process_time()]  # of this process alone: what others do on the machine does not count
    for i in range(trials):
        proposal = Proposal(pool[i % 1000])
        began = time.perf_counter()
        [trial] = run.propose([proposal])
        run.start(i)
        snapshot = state if i % 128 == 127 else None  # an ask and a tell are two events
        run.finish([replace(trial, state=TrialState.DONE, reward=rewards[i], result=RESULT)], snapshot=snapshot)
        times.append(time.perf_counter() - began)
        busy.append(time.process_time())
        if i + 1 in POINTS or i + 1 == trials:
            last = min(1000, max(50, i // 2))
            row = {"trials": i + 1, "mean_us": 1e6 * statistics.mean(times[-last:])}
            row["median_us"] = 1e6 * statistics.median(times[-last:])
            row["cpu_us"] = 1e6 * (busy[-1] - busy[-1 - last]) / last
            rows.append(row)
            costs = ", ".join(f"{name} {row[f'{name}_us']:6.1f}" for name in ("mean", "median", "cpu"))
            print(f"  {i + 1:>9,} trials: us a trial: {costs}", flush=True)
    run.close("finished")
    print(
        f"  {'all':>9}: mean {1e6 * statistics.mean(times):6.1f} us a trial, {3 / statistics.mean(times):,.0f} events a second"
    )
    return rows


def reading(store: Store, trials: int) -> dict[str, float]:
    """The cost of looking at a run of so many trials, in milliseconds."""

    def took(act: Callable[[], object], times: int = 20) -> float:
        spent = []
        for _ in range(times):
            began = time.perf_counter()
            act()
            spent.append(time.perf_counter() - began)
        return 1e3 * statistics.median(spent)

    run = store.read("bench")
    costs = {
        "list runs": took(store.runs),
        "best ten": took(lambda: run.top(10)),
        "one trial": took(lambda: run.trial(trials // 2)),
        "all trials": took(lambda: sum(1 for _ in run.trials()), times=1),
    }
    for name, cost in costs.items():
        print(f"  {name:>10}: {cost:10.3f} ms")
    return costs


def events(store: Store, trials: int, batch: int) -> float:
    """The cost of a trial when the searcher is asked for many at once, as with a pool of workers."""
    pool = genotypes(1000)
    run = store.create(f"batch {batch}", {})
    began = time.perf_counter()
    for _ in range(trials // batch):
        proposed = run.propose([Proposal(g) for g in pool[:batch]])
        for trial in proposed:
            run.start(trial.number)
        run.finish([replace(t, state=TrialState.DONE, reward=0.5, result=RESULT) for t in proposed])
    spent = time.perf_counter() - began
    run.close()
    print(f"  batches of {batch:>4}: {1e6 * spent / trials:6.1f} us a trial")
    return 1e6 * spent / trials


@contextmanager
def server() -> Iterator[str]:
    """The URL of a database of a server of its own."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from postgres_server import running

    with running(durable=True) as started:
        version = started.execute("SHOW server_version")[0][0]
        print(f"PostgreSQL {version}, fsync on, by a Unix socket")
        yield started.database()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    parser.add_argument("--postgres", nargs="?", const="", metavar="URL", help="a database, or a server of its own")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}")
    found: dict[str, Any] = {"machine": machine}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, ExitStack() as stack:
        folder = Path(temporary)
        stores: dict[str, Store] = {"memory": MemoryStore(), "sqlite": SQLStore(folder / "runs.db")}
        if options.postgres is not None:
            stores["postgresql"] = SQLStore(options.postgres or stack.enter_context(server()))
        for name, store in stores.items():
            print(name)
            found[name] = {"writing": writing(store, options.trials), "reading": reading(store, options.trials)}
        size = (folder / "runs.db").stat().st_size
        print(f"  file: {size / 2**20:.0f} MiB, {size / options.trials:.0f} bytes a trial")
        found["bytes_a_trial"] = size / options.trials
        for name in list(stores)[1:]:
            print(f"{name}, asked and told in batches")
            key = "batches" if name == "sqlite" else f"batches in {name}"
            found[key] = {n: events(stores[name], min(options.trials, 5000), n) for n in (1, 8, 64)}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
