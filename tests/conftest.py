"""What every test runs under, what is left out where something is missing, and a guard against an empty suite."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

import postgres_server
from postgres_server import postgres  # noqa: F401  # one server for all tests of a session

MINIMUM_TESTS = 5800  # raised as the suite grows: fewer collected than this is a failure

os.environ.setdefault("ARCHSMITH_CACHE_GB", "0")  # tests leave no pictures in the user's cache
os.environ.setdefault("OMP_NUM_THREADS", "1")  # children of a test are small, and tests run beside each other

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _missing() -> dict[str, str]:
    """What a marker needs and this machine has not."""
    import torch

    torch.set_num_threads(1)
    missing = {}
    if not os.environ.get("ARCHSMITH_DATA"):
        missing["data"] = "set ARCHSMITH_DATA to the folder of data sets"
    if not any(shutil.which(b) for b in BROWSERS):
        missing["browser"] = "install Chromium"
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        missing["compiler"] = "install a C++ compiler"
    if reason := postgres_server.missing():
        missing["postgres"] = reason
    if not torch.cuda.is_available():
        missing["cuda"] = "needs a CUDA device"
    return missing


_left_out: Counter[str] = Counter()
_reasons: dict[str, str] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    whole = not config.option.keyword and not config.option.markexpr and config.args == config.getini("testpaths")
    if whole and len(items) < MINIMUM_TESTS:
        raise pytest.UsageError(
            f"{len(items)} tests collected, at least {MINIMUM_TESTS} expected: has a file been lost?"
        )
    _reasons.update(_missing())
    kept = []
    for item in items:
        if item.get_closest_marker("campaign") and "campaign" not in config.option.markexpr:
            _left_out["campaign"] += 1
            continue
        for marker, reason in _reasons.items():
            if item.get_closest_marker(marker):
                _left_out[marker] += 1
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))
                break
        kept.append(item)
    items[:] = kept
    _reasons["campaign"] = "`make campaign` runs them"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    others = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
        and not report.longrepr[2].startswith(tuple(f"Skipped: {m}: " for m in _reasons))
    )
    if not _left_out and not others:
        terminalreporter.write_line("left out: nothing")
    for reason, count in sorted(others.items()):
        terminalreporter.write_line(f"left out: {count} that do not apply ({reason})")
    for marker, count in sorted(_left_out.items()):
        terminalreporter.write_line(f"left out: {count} marked {marker} ({_reasons[marker]})")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    required = os.environ.get("ARCHSMITH_REQUIRED", "").split()
    wanting = [marker for marker in required if _left_out.get(marker)]
    if wanting and exitstatus == 0:
        print(f"\nleft out although required: {', '.join(wanting)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets; only for tests marked `data`."""
    return Path(os.environ["ARCHSMITH_DATA"])
