"""The fault campaign: python benchmarks/faults.py [--only WORDS] [--out benchmarks/results/faults.md]

200 processes killed by SIGKILL at random moments of a run (the driver in one process, the driver and the workers of a
pool, drivers, workers and machines of a Ray cluster), on SQLite and PostgreSQL; then servers, disks, locks and clocks
that fail, and children that do what no child should. After each fault the tables are read without archsmith and held
against their log and against what was there before: nothing finished is lost, changed or there twice. Every search then
ends; where children run in the driver's process, every genotype and reward and the searcher's next proposals are those of
a search that nothing happened to. An assertion that fails ends the script.

The scenarios and their seeds are in tests/fault_campaign.py. What a seed fixes is the order and the length of the waits;
which statement is being executed as they end, the machine decides. Needs PostgreSQL (initdb, pg_ctl) and Ray. With
--only the rows whose name contains the words are done again, and the others are kept from the file.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from machine import machine, tell

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

HEAD = """# The fault campaign

`python benchmarks/faults.py`; {machine}, shared with other work. {kills} kills and {others} other faults; nothing finished was
lost, changed or there twice, and every search ended. "Looks" counts the finished trials that were there before a fault and
were held against the record after it. "Again": trials that were begun more than once.

| what happened | store | seeds | faults | trials | again | looks | seconds |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="The fault campaign: kills, lost servers, children that misbehave.")
    parser.add_argument("--only", default="", help="only rows whose name contains these words")
    parser.add_argument("--out", type=Path, default=None, help="a file for the table; its other rows are kept")
    options = parser.parse_args()
    from fault_campaign import CAMPAIGN, Stage

    kept = options.out.read_text().splitlines() if options.out is not None and options.out.exists() else []
    rows = {tuple(re.split(r" *\| *", line.strip("| "))[:2]): line for line in kept if line.startswith("| ")}
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        for scenario in CAMPAIGN:
            if options.only not in f"{scenario.name} {scenario.store}":
                continue
            print(f"{scenario.name}, {scenario.store} ...", file=sys.stderr, flush=True)
            tally = scenario.run(stage)
            seeds = ", ".join(map(str, scenario.seeds))
            cells = (tally.faults, tally.trials, tally.again, f"{tally.kept:,}", f"{tally.seconds:.0f}")
            row = (scenario.name, scenario.store, seeds, *cells)
            rows[scenario.name, scenario.store] = "| " + " | ".join(map(str, row)) + " |"
            print(rows[scenario.name, scenario.store], file=sys.stderr, flush=True)
    done = [(scenario, rows[key]) for scenario in CAMPAIGN if (key := (scenario.name, scenario.store)) in rows]
    faults = [(scenario.kills, int(row.split("|")[4])) for scenario, row in done]
    head = HEAD.format(
        machine=machine(),
        kills=sum(number for kills, number in faults if kills),
        others=sum(number for kills, number in faults if not kills),
    )
    tell(head + "\n".join(row for _, row in done) + "\n", options.out)


if __name__ == "__main__":
    main()
