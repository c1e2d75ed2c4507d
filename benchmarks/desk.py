"""What the desk recipes take from end to end: search with its random control, finish, report.

    python benchmarks/desk.py nasnet-desk amoebanet-desk          some of them
    python benchmarks/desk.py --out benchmarks/results/desk.md    all

Each command runs as a person types it. Beside the wall's time stands the processor's, over the number of cores: what an idle machine
of so many cores takes at least.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from archsmith.recipes import RECIPES

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

DESK = [name for name in RECIPES if name.endswith("-desk") and not name.startswith("ptb")]


def processor_seconds() -> float:
    """Of all commands so far, their workers included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def whole(name: str, folder: Path) -> list[tuple[str, int, float, float]]:
    """Each command with its exit status, and the seconds of the wall and of the processor that it took."""
    store = f"sqlite:///{folder / name}.db"
    rows = []
    for command in (["search", name], ["finish", name], ["report", name, "--output", str(folder / f"{name}.html")]):
        began, used = time.monotonic(), processor_seconds()
        with (folder / f"{name}.log").open("a") as log:
            status = subprocess.call(
                [sys.executable, "-m", "archsmith", *command, "--store", store], stdout=log, stderr=log
            )
        rows.append((command[0], status, time.monotonic() - began, processor_seconds() - used))
        if status:
            break
    return rows


def main() -> None:
    """Run the recipes one after the other and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=DESK, help="which ones (default: all)")
    parser.add_argument("--out", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    cores, folder = os.cpu_count() or 1, Path(tempfile.mkdtemp(prefix="desk-"))
    lines = [
        "# Desk recipes from end to end",
        "",
        f"`python benchmarks/desk.py`; {machine()}. Logs and pages were in a folder of their own.",
        "",
        f"| recipe | search and control, s | finish, s | report, s | in all, min | processor / {cores} cores, min |",
        "|---|---|---|---|---|---|",
    ]
    for name in arguments.recipes:
        rows = whole(name, folder)
        took = [f"{wall:.0f}" if status == 0 else f"exit status {status}" for _, status, wall, _ in rows]
        took += ["not run"] * (3 - len(took))
        wall, used = sum(row[2] for row in rows) / 60, sum(row[3] for row in rows) / 60
        lines.append(f"| {name} | {' | '.join(took)} | {wall:.1f} | {used / cores:.1f} |")
        print(lines[-1], f"(load {os.getloadavg()[0]:.1f}; {folder})", flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
