"""Evaluators for the fault campaign: children that take a moment, and children that do whatever a child should not."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from archsmith.core.evaluator import Context
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.core.trial import Cost, Result
from archsmith.rewards import value
from archsmith.training import Landscape

HEIGHTS = Landscape(noise=0.01)


@dataclass(frozen=True)
class Steps:
    """A landscape that is climbed in epochs, and may be put aside after any of them.

    Args:
        epochs: how many.
        seconds: each takes.
        keep: whether weights are kept at the end, which name the child.
        busy: a folder where a file, while the child is trained, names the process that does it.
    """

    epochs: int = 1
    seconds: float = 0.0
    keep: bool = False
    busy: str = ""

    @property
    def default_reward(self) -> Callable[[Result], float]:
        return value

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        height = HEIGHTS.evaluate(space, genotype, context).metrics["value"]
        curve = []
        if self.busy:
            os.makedirs(self.busy, exist_ok=True)
            Path(self.busy, str(os.getpid())).touch()
        for epoch in range(context.epochs_done + 1, self.epochs + 1):
            time.sleep(self.seconds)
            curve.append({"epoch": epoch, "value": height * (1 - 4.0**-epoch)})
            if not context.report(epoch, {"value": curve[-1]["value"]}):
                if context.paused:
                    context.pause({})
                break
        if self.busy:
            Path(self.busy, str(os.getpid())).unlink(missing_ok=True)
        kept = context.checkpoint({"height": _array(height)}) if self.keep else None
        return Result({"value": curve[-1]["value"]}, curve, Cost(0.0, float(len(curve))), artifact=kept)


def _array(height: float) -> Any:
    import numpy as np

    return np.array([height])


# --- children that do what they should not ------------------------------------------------------------------------------


def hang(_: Context) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def fork(_: Context) -> None:
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


def flood(_: Context) -> None:
    for _ in range(2000):
        os.write(1, b"x" * 4096)
        sys.stderr.write("y" * 512)


def eat_memory(context: Context) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(16 * 2**20))
        context.check()


def eat_memory_silently(_: Context) -> None:
    hoard = []
    while len(hoard) < 60:
        hoard.append(bytes([7]) * (16 * 2**20))
    time.sleep(600)


def segfault(_: Context) -> None:
    ctypes.string_at(0)


def exit_at_once(_: Context) -> None:
    os._exit(0)


def kill_itself(_: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def close_descriptors(_: Context) -> None:
    os.closerange(0, 2**16)


def go_elsewhere(_: Context) -> None:
    os.chdir("/")
    os.umask(0o777)


def leave_threads(_: Context) -> None:
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(600,), daemon=False).start()


def leave_a_process(_: Context) -> None:
    subprocess.Popen(["sleep", "600"])


def change_signals(_: Context) -> None:
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(each, signal.SIG_IGN)


def raise_anything(_: Context) -> None:
    raise BaseException("not even an Exception")


def leave(_: Context) -> None:
    sys.exit(3)


def interrupt(_: Context) -> None:
    raise KeyboardInterrupt


def recurse(_: Context) -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    deeper(0)


def spoil_the_interpreter(_: Context) -> None:
    Random.seed(Random(), 1)
    os.environ["OMP_NUM_THREADS"] = "64"
    sys.stdout = None  # type: ignore[assignment]
    time.time = lambda: 0.0  # type: ignore[assignment]


# What each does, and how the trial then ends: None where the child goes on to its end as if nothing had been.
DEEDS: dict[str, tuple[Callable[[Context], None], str | None]] = {
    "hang": (hang, "seconds"),
    "fork": (fork, None),
    "flood": (flood, None),
    "eat memory": (eat_memory, "memory"),
    "eat memory silently": (eat_memory_silently, "memory"),
    "segfault": (segfault, "worker"),
    "exit at once": (exit_at_once, "worker"),
    "kill itself": (kill_itself, "worker"),
    "close descriptors": (close_descriptors, "worker"),
    "go elsewhere": (go_elsewhere, None),
    "leave threads": (leave_threads, None),
    "leave a process": (leave_a_process, None),
    "change signals": (change_signals, None),
    "raise anything": (raise_anything, "error"),
    "leave": (leave, "error"),
    "interrupt": (interrupt, "error"),
    "recurse": (recurse, "error"),
    "spoil the interpreter": (spoil_the_interpreter, None),
}

HARMLESS_IN_PROCESS = ("flood", "go elsewhere", "leave a process", "raise anything", "leave", "recurse")


@dataclass(frozen=True)
class Misbehaving:
    """A landscape whose children do one deed each before, in the order of their numbers, and then every second is good.

    Args:
        deeds: names of `DEEDS`; the child of trial 2k does the k-th, and that of 2k + 1 none.
    """

    deeds: tuple[str, ...] = tuple(DEEDS)

    @property
    def default_reward(self) -> Callable[[Result], float]:
        return value

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        index = int(genotype.answers["trial"])  # type: ignore[call-overload]
        if index % 2 == 0:
            DEEDS[self.deeds[index // 2]][0](context)
        return HEIGHTS.evaluate(space, genotype, context)


def trial_numbers(count: int) -> Any:
    """A space with a single question, of so many answers: what the child is to do."""
    return Numbers(count)


@dataclass(frozen=True)
class Numbers:
    """One choice among so many numbers."""

    count: int

    def architecture(self, choose: Any) -> Any:
        return choose("trial", range(self.count))

    def build(self, architecture: Any, task: Any) -> Any:
        raise NotImplementedError
