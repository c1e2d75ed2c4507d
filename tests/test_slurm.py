"""deploy/slurm.sh on a real Slurm of two nodes on this machine: a node killed, the driver killed, the time limit. Some minutes.

Needs Debian's slurm-wlm and munge (slurmctld, slurmd, munged) and root. Everything is in a temporary folder, on free ports.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import archsmith as smith
from archsmith.core.trial import TrialState

ROOT = Path(__file__).parent.parent
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol")
SETTINGS = """
ClusterName=try
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdTimeout=30
KillWait=10
SchedulerParameters=batch_sched_delay=1,sched_interval=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=2 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=2 RealMemory=1000
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=60 State=UP
"""

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="slurm: install slurm-wlm and munge"),
    pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="slurm: its daemons run as root"),
]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def until(what: Callable[[], bool], message: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, message
        time.sleep(0.5)


class Cluster:
    """Slurm with two nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("munge", "state", "n1", "n2", "work"):
            (folder / name).mkdir()
        self.work = folder / "work"
        (self.work / "environment").write_text(f"export PATH={Path(sys.executable).parent}:$PATH OMP_NUM_THREADS=1\n")
        port, n1, n2 = free_ports(3)
        settings = SETTINGS.format(folder=folder, host=socket.gethostname(), port=port, n1=n1, n2=n2)
        (folder / "slurm.conf").write_text(settings)
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "ARCHSMITH_ENV": str(self.work / "environment"),
            "ARCHSMITH_STORE": f"sqlite:///{self.work}/runs.db",
        }
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.call("munged", "--force", *(f"--{option}={key.with_name(name)}" for option, name in names.items()))
        until(key.with_name("socket").exists, "munged did not come up", 30)
        self.call("slurmctld")
        self.start_node("n1")
        self.start_node("n2")
        until(lambda: self.call("sinfo", "-h", "-o", "%T") == "idle", "the nodes did not come up", 60)

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, cwd=self.work, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def start_node(self, name: str) -> None:
        self.call("slurmd", "-N", name)

    def submit(self, *arguments: str) -> str:
        options = ("--parsable", "--cpus-per-task=2", "--time=20")
        return self.call("sbatch", *options, str(ROOT / "deploy" / "slurm.sh"), *arguments)

    def said(self, job: str) -> str:
        path = self.work / f"archsmith-{job}.log"
        return path.read_text() if path.exists() else ""

    def begin_now(self, job: str, start: int) -> None:
        """Have a job that was queued again begin; Slurm itself would wait for two minutes."""

        def begun() -> bool:
            if f"(start {start} of job" in self.said(job):
                return True
            if self.state(job) == "PENDING":
                self.call("scontrol", "update", f"JobId={job}", "StartTime=now")
            return False

        until(
            begun, f"start {start} did not come: {self.call('scontrol', 'show', 'job', job)} {self.call('sinfo')}", 200
        )

    def state(self, job: str) -> str:
        facts = self.call("scontrol", "show", "job", job)
        return facts.split("JobState=")[1].split()[0]

    def processes(self, *entries: str) -> list[int]:
        """Those whose environment has all of these."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                environment = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if all(entry.encode() in environment for entry in entries):
                found.append(int(path.parent.name))
        return found

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def close(self) -> None:
        for name in ("n1", "n2", "slurmctld", "munge/pid"):
            path = self.folder / (name if "/" in name else f"{name}.pid")
            if path.exists():
                try:
                    os.kill(int(path.read_text()), signal.SIGTERM)
                except ProcessLookupError:
                    continue


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        yield made
    finally:
        made.close()


def driver(name: str) -> list[int]:
    """The processes that search for the run of that name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "search" in words and name in words and any(word.endswith("/archsmith") for word in words[:2]):
            found.append(int(path.parent.name))
    return found


def assert_each_trial_once(cluster: Cluster, name: str, trials: int) -> None:
    run = smith.open_run(cluster.environment["ARCHSMITH_STORE"], name)
    assert run.summary.status == "finished"
    assert [trial.number for trial in run.trials()] == list(range(trials))
    assert all(trial.state is TrialState.DONE for trial in run.trials())


def assert_nothing_is_left(cluster: Cluster, job: str) -> None:
    until(lambda: not cluster.processes(f"SLURM_JOB_ID={job}"), "processes of the job are left", 60)
    assert not Path(f"/tmp/ray-{job}").exists()


OPTIONS = ("--searcher", "random", "--no-control")


def test_a_search_outlives_a_node(cluster: Cluster) -> None:
    job = cluster.submit("digits", "--name", "node", "--trials", "30", *OPTIONS)
    until(lambda: "of 30 trials, best" in cluster.said(job), cluster.said(job) + "no trial was done")
    on_the_node = cluster.processes(f"SLURM_JOB_ID={job}", "SLURMD_NODENAME=n2")
    assert on_the_node
    os.kill(cluster.pid("n2"), signal.SIGKILL)
    for pid in on_the_node:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    until(lambda: cluster.state(job) not in ("RUNNING", "COMPLETING"), "the job did not end")
    assert cluster.state(job) == "COMPLETED", cluster.said(job)
    assert "(start 0 of job" in cluster.said(job)  # it was not begun again
    assert "(start 1 of job" not in cluster.said(job)
    assert_each_trial_once(cluster, "node", 30)
    assert_nothing_is_left(cluster, job)
    cluster.start_node("n2")
    until(lambda: cluster.call("sinfo", "-h", "-o", "%T") == "idle", "the node did not come back", 120)


def test_a_driver_that_was_killed_and_one_at_its_time_limit_go_on(cluster: Cluster) -> None:
    job = cluster.submit("digits", "--name", "driver", "--trials", "60", *OPTIONS)
    until(lambda: "of 60 trials, best" in cluster.said(job), cluster.said(job) + "no trial was done")
    for pid in driver("driver"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: cluster.state(job) == "PENDING", "the job was not queued again")
    assert "the search ended with status 137" in cluster.said(job)
    cluster.begin_now(job, 1)
    until(lambda: " a minute" in cluster.said(job).split("(start 1 of job")[-1], "no trial was done")
    cluster.call("scancel", "--batch", "--signal=USR1", job)  # as Slurm does before the time limit
    until(lambda: cluster.state(job) == "PENDING", "the job was not queued again")
    assert "the search ended with status 130" in cluster.said(job)
    cluster.begin_now(job, 2)
    until(lambda: cluster.state(job) == "COMPLETED", "the job did not end")
    assert "(start 2 of job" in cluster.said(job)
    assert_each_trial_once(cluster, "driver", 60)
    assert_nothing_is_left(cluster, job)
