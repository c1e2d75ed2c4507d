"""The page in a real browser: it shows its parts, runs nothing, and asks the network for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from archsmith.report import write_report
from test_report import HOSTILE, a_run, done, failed

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def browser() -> str:
    """The path of a browser."""
    return next(found for name in BROWSERS if (found := shutil.which(name)))


def browse(page: Path, folder: Path) -> tuple[str, list[str], list[str]]:
    """The page's elements after loading, what it wrote to the console, and the URLs that it asked for.

    The browser's own errands have no page as their origin; names lead nowhere, so nothing leaves the machine.
    """
    network = folder / "network.json"
    command = [browser(), *QUIET, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0"]
    command += [f"--log-net-log={network}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    events = [event.get("params", {}) for event in json.loads(network.read_text())["events"]]
    asked = [e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked


def test_a_browser_shows_the_page_and_loads_and_runs_nothing(tmp_path: Path) -> None:
    outcomes = [done(0.5 + 0.01 * k, parameters=1e4 * (k + 1)) for k in range(12)]
    run = a_run([*outcomes, failed("error", HOSTILE, HOSTILE)], name="digits & <b>more", learned={"entropy": 2.0})
    page = write_report(run, tmp_path / "page.html")
    dom, console, asked = browse(page, tmp_path)
    for part in ("progress", "learning", "architectures", "choices", "failures", "trials", "record", "words"):
        assert f'<section id="{part}">' in dom
    assert "digits &amp; &lt;b&gt;more" in dom
    assert dom.count("<svg") >= 9
    assert not re.search(r"<script|<img|onerror=\"", dom)
    assert console == []  # neither errors nor refusals by the page's own policy
    assert asked == []


def test_the_check_sees_a_page_that_runs_and_loads(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<title>x</title><script>console.error("ran")</script><img src="http://127.0.0.1:9/x.png">')
    _, console, asked = browse(page, tmp_path)
    assert any("ran" in line for line in console)
    assert asked == ["http://127.0.0.1:9/x.png"]
