"""How many trainings do other libraries need? The same table and the same measure as `benchmarks/search_efficiency.py`.

    python benchmarks/peers/search_efficiency.py optuna-tpe plain-evolution --table nb201.npz --budget 500 --seeds 10

Needs numpy and the library, in an environment of its own, and nothing of archsmith: the README of this folder says how.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from asktell import PEERS

MARGINS = (1.0, 0.3, 0.1)


def curve(name: str, rewards: dict[tuple[int, ...], float], tests: dict[tuple[int, ...], float], seed: int, n: int):
    """The test accuracy of the best by reward after each of n evaluations."""
    peer, best, shown, found = PEERS[name]([5] * 6, seed=seed), -np.inf, 0.0, []
    for _ in range(n):
        answers = tuple(peer.ask())
        peer.tell(rewards[answers])
        if rewards[answers] > best:
            best, shown = rewards[answers], tests[answers]
        found.append(shown)
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--table", default=os.path.join(os.environ.get("ARCHSMITH_DATA", "."), "nb201.npz"))
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    with np.load(arguments.table, allow_pickle=False) as table:
        cells = [tuple(int(op) for op in row) for row in table["ops"]]
        rewards = dict(zip(cells, table["acc200_val"][:, 0].tolist(), strict=True))
        tests = dict(zip(cells, table["acc200_test"][:, 0].tolist(), strict=True))
    optimum = max(tests.values())
    print(
        f"| peer | {' | '.join(f'{m} for good' for m in MARGINS)} | {' | '.join(f'{m} first' for m in MARGINS)} | s |"
    )
    print("|---" * 8 + "|")
    for name in arguments.names:
        began = time.process_time()
        runs = [curve(name, rewards, tests, seed, arguments.budget) for seed in range(arguments.seeds)]
        cells_shown = []
        for good in (True, False):
            for margin in MARGINS:
                counts = []
                for run in runs:
                    inside = run >= optimum - margin - 1e-9
                    at = np.flatnonzero(~inside)[-1] + 2 if good and not inside.all() else inside.argmax() + 1
                    counts.append(min(int(at), arguments.budget + 1) if inside.any() else arguments.budget + 1)
                share = np.mean([count <= arguments.budget for count in counts])
                cells_shown.append(f"{np.median(np.minimum(counts, arguments.budget)):.0f} ({share:.0%})")
        print(f"| {name} | {' | '.join(cells_shown)} | {(time.process_time() - began) / len(runs):.1f} |", flush=True)


if __name__ == "__main__":
    main()
