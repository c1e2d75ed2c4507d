"""Make the store file of the current version: python tests/golden/make_store.py

Run once for each version of the store that is released, and keep what it writes: every released version's file must
still open (tests/test_store.py). It refuses to replace a file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from archsmith.core.genotype import Genotype
from archsmith.core.trial import Cost, Failure, Proposal, Result, TrialState
from archsmith.store import SQLStore
from archsmith.store.tables import SCHEMA

SPACE = {"name": "Golden", "version": 1, "options": {"layers": 2, "sizes": [1, 3, 5]}}
CONFIG = {"space": {"type": "spaces.Golden", "layers": 2}, "seed": 7, "budget": {"trials": 6, "seconds": None}}
STATE = {"baseline": 0.5, "rng": [3, [2**31, 2**70], None], "w": np.arange(6, dtype=np.float32).reshape(2, 3)}


def genotype(i: int) -> Genotype:
    return Genotype(SPACE, {"0.size": i, "1.size": 5, "1.inputs": [0], "1.name": "größe"})


def result(i: int) -> Result:
    curve = [{"epoch": 1, "accuracy": 0.1 * i}, {"epoch": 2, "accuracy": 0.15 * i}]
    return Result({"accuracy": 0.15 * i, "parameters": 1000 + i}, curve, Cost(1.5, 2.0), artifact="ab" * 32)


def make(path: Path) -> None:
    if path.exists():
        raise SystemExit(f"{path} is there already, and a released file is never made again")
    store = SQLStore(path)
    run = store.create("golden", CONFIG)
    first = run.propose([Proposal(genotype(i)) for i in range(4)])
    for number in (0, 1, 2):
        run.start(number)
    done = [replace(first[i], state=TrialState.DONE, reward=0.15 * i, result=result(i)) for i in (1, 0)]
    run.finish(done, snapshot=STATE, learned={"entropy": 1.25, "baseline": float("nan")})
    failure = Failure("diverged", "the loss became NaN in epoch 2", "Traceback ...")
    run.finish([replace(first[2], state=TrialState.FAILED, result=Result({"loss": float("inf")}, failure=failure))])
    run.propose([Proposal(genotype(9), parent=1)])
    run.start(4)
    run.put_document("finish", {"winner": 1, "test_accuracy": [0.9, 0.91]})
    run.close()
    store.create("empty", {}).close("finished")
    run = store.create("paused", CONFIG)  # since version 2
    trials = run.propose([Proposal(genotype(i), replica=i, version=7 + i) for i in range(3)])
    for number in (0, 1):
        run.start(number)
        run.pause(replace(trials[number], result=replace(result(number), checkpoint="cd" * 32)))
    run.start(1)
    run.close()
    for leftover in path.parent.glob(path.name + ".*.lock"):
        leftover.unlink()


if __name__ == "__main__":
    make(Path(__file__).parent / f"store-v{SCHEMA}.db")
