"""What runs searches elsewhere: the container file, Kubernetes' manifests, and Slurm's script against a stand-in of Slurm."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import Draft202012Validator

import archsmith as smith
from archsmith.cli.main import app
from archsmith.core.errors import StoreError
from archsmith.store import open_store
from postgres_server import Server

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "deploy" / "slurm.sh"
JOB = str(os.getpid())  # of Slurm: no other run of these tests has it


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pinned.items()}


# --- the container ----------------------------------------------------------------------------------------------------


def steps() -> list[tuple[str, str]]:
    """The container file's instructions in order, with lines that go on joined, and without comments."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in whole.splitlines() if line.strip()]


def values(instruction: str) -> list[str]:
    return [rest for name, rest in steps() if name == instruction]


def test_what_the_container_copies_is_there_and_nothing_else_is_sent_to_the_builder() -> None:
    copied = {source for rest in values("COPY") if "--from=" not in rest for source in rest.split()[:-1]}
    assert copied == {"pyproject.toml", "requirements.lock", "README.md", "LICENSE", "src"}
    assert all((ROOT / source).exists() for source in copied)
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line[0] == "!"} == copied
    packed = (ROOT / "pyproject.toml").read_text()
    assert 'packages = ["src/archsmith"]' in packed  # what hatchling needs is what is copied


def test_the_container_has_the_locked_versions() -> None:
    arguments = dict(rest.split("=") for rest in values("ARG") if "=" in rest)
    torch = re.search(r"^TORCH := torch==(\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch
    assert arguments["TORCH"] == torch[1] == locked()["torch"]
    assert f'requires-python = ">={arguments["PYTHON"]}"' in (ROOT / "pyproject.toml").read_text()
    assert all(rest.startswith("python:${PYTHON}-slim") for rest in values("FROM"))
    install = next(rest for rest in values("RUN") if "needs.txt" in rest)
    assert "--constraint requirements.lock" in install


def test_the_container_installs_what_the_project_and_its_extras_need_each_in_the_lock() -> None:
    install = next(rest for rest in values("RUN") if "needs.txt" in rest)
    code = next(word for word in shlex.split(install) if word.startswith("import tomllib"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    needs = {re.split(r"[\[<>=~ ]", line)[0].lower() for line in done.stdout.split()}
    assert {"torch", "sqlalchemy", "ray", "psycopg", "fsspec", "s3fs"} <= needs
    assert not {"pytest", "ruff", "mypy", "moto", "onnx"} & needs
    assert needs <= set(locked())


def test_the_container_runs_as_nobody_special_and_opens_no_port() -> None:
    assert values("EXPOSE") == []
    assert values("USER") == ["1000"]
    assert [json.loads(rest) for rest in values("ENTRYPOINT")] == [["archsmith"]]
    names = [name for name, _ in steps()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    for rest in values("RUN"):  # caches would be a layer's dead weight
        assert "pip" not in rest or "--no-cache-dir" in rest
        assert "apt-get install" not in rest or "rm -rf /var/lib/apt/lists/*" in rest


@pytest.mark.parametrize("rest", values("RUN"), ids=lambda rest: rest.split()[0])
def test_each_step_of_the_container_is_sound_shell(rest: str) -> None:
    done = subprocess.run(["sh", "-n"], input=rest, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- Kubernetes -------------------------------------------------------------------------------------------------------

SCHEMAS = json.loads((ROOT / "tests" / "golden" / "kubernetes.json").read_text())


def manifests() -> dict[str, Any]:
    return {m["kind"]: m for m in yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text())}


def wrong(manifest: dict[str, Any]) -> list[str]:
    schema = {"$ref": f"#/$defs/{manifest['kind']}", "$defs": SCHEMAS["$defs"]}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(manifest)]


def containers() -> dict[str, dict[str, Any]]:
    found = manifests()
    spec = found["RayCluster"]["spec"]
    templates = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    templates.append(found["Job"]["spec"]["template"])
    return {c["name"]: c for template in templates for c in template["spec"]["containers"]}


@pytest.mark.parametrize("kind", manifests())
def test_manifests_are_as_kubernetes_and_kuberay_have_them(kind: str) -> None:
    assert wrong(manifests()[kind]) == []


def test_the_schemas_refuse_what_kubernetes_would() -> None:
    cluster, job = manifests()["RayCluster"], manifests()["Job"]
    broken = deepcopy(cluster)
    broken["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    assert any("maxReplica" in line for line in wrong(broken))
    broken = deepcopy(cluster)
    broken["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert any("not of type 'string'" in line for line in wrong(broken))
    broken = deepcopy(cluster)
    broken["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "4 GB"
    assert any("4 GB" in line for line in wrong(broken))
    broken = deepcopy(job)
    del broken["spec"]["template"]["spec"]["containers"]
    assert any("'containers' is a required property" in line for line in wrong(broken))


def test_the_cluster_is_of_the_locked_ray_and_one_image() -> None:
    spec = manifests()["RayCluster"]["spec"]
    assert spec["rayVersion"] == locked()["ray"]
    assert len({c["image"] for c in containers().values()}) == 1
    assert set(containers()) == {"ray-head", "ray-worker", "driver"}


def test_the_driver_finds_the_cluster_and_its_token() -> None:
    cluster, driver = manifests()["RayCluster"], containers()["driver"]
    name = cluster["metadata"]["name"]
    given = {one["name"]: one for one in driver["env"]}
    assert given["RAY_ADDRESS"]["value"] == f"{name}-head-svc:6379"  # the service that KubeRay makes
    assert f"--address={given['RAY_ADDRESS']['value']}" in driver["args"]
    assert cluster["spec"]["authOptions"]["mode"] == given["RAY_AUTH_MODE"]["value"] == "token"
    assert given["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token"}


def test_no_secret_is_in_the_manifests_and_only_the_driver_knows_the_store() -> None:
    for container in containers().values():
        for one in container.get("env", ()):
            assert "valueFrom" in one or not re.search("TOKEN|PASSWORD|SECRET|KEY|STORE", one["name"])
    knows = {
        name: {source["secretRef"]["name"] for source in container.get("envFrom", ())}
        for name, container in containers().items()
    }
    assert knows == {
        "ray-head": set(),
        "ray-worker": {"archsmith-weights"},
        "driver": {"archsmith-store", "archsmith-weights"},
    }


def test_the_drivers_command_is_one_that_the_command_line_takes_and_that_may_be_run_again() -> None:
    driver = containers()["driver"]
    assert driver["command"] == ["bash", "-c"]
    script, *arguments = driver["args"]
    assert script.rstrip().endswith('exec archsmith search "$0" "$@"')  # exec: signals reach archsmith itself
    search = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    given = search.make_context("search", list(arguments)).params
    assert given["recipe"] == "digits"
    assert given["name"] == "digits"
    assert given["go_on_with"] is True
    assert given["executor"] == "ray"
    assert given["workers"] == 100
    assert given["artifacts"].startswith("s3://")


def test_kubernetes_tries_again_what_may_be_and_not_what_was_wrong() -> None:
    spec = manifests()["Job"]["spec"]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # as a podFailurePolicy needs
    actions = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"]}
    assert actions["FailJob"]["onExitCodes"] == {"containerName": "driver", "operator": "In", "values": [2]}
    assert actions["Ignore"]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["backoffLimit"] >= 10


def test_every_pod_runs_as_the_containers_user_without_rights_and_with_limits() -> None:
    spec = manifests()["RayCluster"]["spec"]
    pods = [spec["headGroupSpec"]["template"]["spec"], *(g["template"]["spec"] for g in spec["workerGroupSpecs"])]
    pods.append(manifests()["Job"]["spec"]["template"]["spec"])
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert str(pod["securityContext"]["runAsUser"]) == values("USER")[0]
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    policy, head = manifests()["NetworkPolicy"]["spec"], spec["headGroupSpec"]["template"]
    assert head["metadata"]["labels"] == policy["podSelector"]["matchLabels"]
    assert policy["ingress"][0]["from"] == [{"podSelector": policy["podSelector"]}]


# --- PostgreSQL's roles ---------------------------------------------------------------------------------------------------


def guide_sql() -> list[list[str]]:
    """The statements of the guide's blocks, without comments."""
    page = (ROOT / "docs" / "guides" / "running-elsewhere.md").read_text()
    blocks = [re.sub(r"--.*", "", body) for body in re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    return [[statement.strip() for statement in body.split(";") if statement.strip()] for body in blocks]


@pytest.mark.postgres
def test_a_team_made_as_the_guide_says_writes_together_and_readers_only_read(postgres: Server) -> None:
    roles, rights = guide_sql()
    postgres.execute(*roles, "CREATE ROLE bob LOGIN IN ROLE archsmith", "ALTER ROLE bob SET role TO archsmith")
    postgres.execute(*rights, "GRANT CONNECT ON DATABASE archsmith TO bob", url=postgres.at("archsmith"))
    postgres.execute("CREATE ROLE stranger LOGIN")
    anna, bob, reader, stranger = (
        postgres.at("archsmith", user=name, tcp=True) for name in ("anna", "bob", "onlooker", "stranger")
    )

    def space(choose: Any) -> int:
        return int(choose("n", range(9)))

    def reward(n: int) -> float:
        return float(n)

    assert open_store(reader).runs() == []  # also before anything is there
    run = smith.search(space, reward, trials=3, store=anna, name="a")
    again = smith.open_run(bob, "a").resume(trials=5, space=space, evaluator=reward)
    assert [trial.number for trial in again.trials()] == [0, 1, 2, 3, 4]
    assert [summary.name for summary in open_store(reader).runs()] == [run.name]
    assert smith.open_run(reader, "a").best is not None
    with pytest.raises(StoreError, match="permission denied"):
        smith.open_run(reader, "a").resume(trials=6, space=space, evaluator=reward)
    with pytest.raises(StoreError):
        open_store(stranger).runs()


# --- Slurm ------------------------------------------------------------------------------------------------------------

# A stand-in for Slurm's commands on one machine: srun runs its command once, scancel ends what srun started, scontrol notes.
STAND_INS = {
    "srun": """
        while [ "$1" != bash ]; do echo "$1" >>"$TRY/srun"; shift; done
        echo $$ >>"$TRY/pids"
        set -m  # a process group for the step: all in it are signalled, as by Slurm
        "$@" & child=$!
        trap 'kill -TERM -- -$child' TERM
        wait $child; wait $child
    """,
    "scancel": 'echo "$@" >>"$TRY/scancel"; for p in $(cat "$TRY/pids"); do kill -TERM "$p" 2>/dev/null; done; exit 0',
    "scontrol": 'echo "$@" >>"$TRY/scontrol"',
    "ray": """
        echo "$@" >>"$TRY/ray"; echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >>"$TRY/token"
        [ "$1" = health-check ] && exit "${RAY_IS_UP:-0}"
        mkdir -p "$RAY_TMPDIR"
        [ "${RAY_IS_UP:-0}" = 0 ] || exit 1
        exec sleep 60
    """,
    "archsmith": """
        echo "$@" >"$TRY/archsmith"
        trap 'sleep 0.2; exit 130' TERM
        while [ -e "$TRY/hold" ]; do sleep 0.05; done
        exit "${STATUS:-0}"
    """,
}


class Slurm:
    """deploy/slurm.sh as a job of a Slurm that is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "pids").touch()
        for name, body in STAND_INS.items():
            path = folder / "bin" / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)
        self.environment = {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "TRY": str(folder),
            "SLURM_JOB_ID": JOB,
            "SLURM_JOB_NUM_NODES": "3",
            "SLURM_CPUS_PER_TASK": "8",
            "SLURMD_NODENAME": "n1",
            "SLURM_SUBMIT_DIR": str(folder),
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=self.folder,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self.process

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        process = self.start(*arguments, **more)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def noted(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def until_it_searches(self) -> None:
        deadline = time.monotonic() + 60
        while not self.noted("archsmith"):
            assert time.monotonic() < deadline, "the search was never begun"
            time.sleep(0.02)

    def close(self) -> None:
        if self.process is not None:
            # Not by the program `kill`: some versions of it read -1234 as -1, which is every process there is.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        shutil.rmtree(f"/tmp/ray-{JOB}", ignore_errors=True)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    made = Slurm(tmp_path)
    yield made
    made.close()


def test_slurms_script_is_sound() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    assert os.access(SCRIPT, os.X_OK)
    options = re.findall(r"^#SBATCH --(\S+)", SCRIPT.read_text(), re.MULTILINE)
    assert {"requeue", "no-kill", "open-mode=append", "ntasks-per-node=1"} <= set(options)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_slurms_script_passes_shellcheck() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_search_on_slurm_is_driven_from_the_first_node_with_ray_on_all_and_leaves_nothing(slurm: Slurm) -> None:
    (slurm.folder / "hold").touch()  # a search that is over at once may be so before the workers have come
    process = slurm.start("images", "--name", "a name", "--data", "/shared/two words")
    deadline = time.monotonic() + 60
    while sum(line.startswith("start") for line in slurm.noted("ray")) < 2:
        assert time.monotonic() < deadline, slurm.noted("ray")
        time.sleep(0.02)
    (slurm.folder / "hold").unlink()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    (search,) = slurm.noted("archsmith")
    assert search.startswith("search images --name a name --data /shared/two words --resume --executor ray --address ")
    address = search.split()[-1]
    assert address.endswith(f":{20_000 + int(JOB) % 10_000}")  # a port of the job's own
    assert not address.startswith("127.")
    started = [line for line in slurm.noted("ray") if line.startswith("start")]
    head = next(line for line in started if "--head" in line)
    worker = next(line for line in started if "--head" not in line)
    assert "--num-cpus=7" in head
    assert "--include-dashboard=false" in head
    assert f"--address={address}" in worker
    assert "--num-cpus=8" in worker
    srun = slurm.noted("srun")
    assert "--nodelist=n1" in srun
    assert "--exclude=n1" in srun
    assert "--nodes=2" in srun  # the two others
    assert srun.count("--no-kill") == 2
    assert slurm.noted("scontrol") == []
    assert not Path(f"/tmp/ray-{JOB}").exists()
    for pid in slurm.noted("pids"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_token_of_the_jobs_own_guards_ray_and_is_told_to_nobody(slurm: Slurm) -> None:
    _, output = slurm.run("images", "--name=a")
    (mode, token), *others = [line.split() for line in set(slurm.noted("token"))]
    assert others == []
    assert mode == "token"
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert token not in output + " ".join(slurm.noted("ray") + slurm.noted("srun") + slurm.noted("archsmith"))


def test_without_a_name_there_is_nothing_to_go_on_with(slurm: Slurm) -> None:
    status, output = slurm.run("images", "--trials", "3")
    assert status == 2
    assert "--name" in output
    assert slurm.noted("ray") == []


@pytest.mark.parametrize(
    ("status", "starts", "requeued"),
    [("1", "0", True), ("137", "2", True), ("1", "3", False), ("2", "0", False), ("0", "0", False)],
)
def test_a_driver_that_died_is_started_again_but_not_for_ever_nor_for_wrong_use(
    slurm: Slurm, status: str, starts: str, requeued: bool
) -> None:
    ended, output = slurm.run("images", "--name", "a", STATUS=status, SLURM_RESTART_COUNT=starts)
    assert ended == int(status), output
    assert slurm.noted("scontrol") == ([f"requeue {JOB}"] if requeued else [])


@pytest.mark.parametrize(("sent", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_the_driver_ends_in_good_order_near_the_time_limit_and_goes_on_in_another_job(
    slurm: Slurm, sent: signal.Signals, requeued: bool
) -> None:
    (slurm.folder / "hold").touch()
    process = slurm.start("images", "--name", "a", SLURM_RESTART_COUNT="7")
    slurm.until_it_searches()
    process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output  # the driver's own: its end was waited for
    assert "ended with status 130" in output
    assert slurm.noted("scontrol") == ([f"requeue {JOB}"] if requeued else [])
    assert not Path(f"/tmp/ray-{JOB}").exists()


def test_a_head_that_does_not_come_up_is_told(slurm: Slurm) -> None:
    status, output = slurm.run("images", "--name", "a", RAY_IS_UP="1")
    assert status == 1
    assert "Ray's head did not come up" in output
    assert slurm.noted("archsmith") == []
