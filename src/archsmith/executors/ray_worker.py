"""Runs on the workers of a Ray cluster: a child is a Ray task, in a process that Ray's worker forks for it.

Ray's worker runs none of the child's code, and lives on for the next child. A child's messages go through `ray_mail`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from archsmith.core import loaded
from archsmith.core.artifacts import SUFFIX, is_digest
from archsmith.core.executor import Completed, Job, Progress
from archsmith.core.trial import Cost, Failure, Result, TrialState
from archsmith.executors.attempt import how_it_ended, with_printed
from archsmith.executors.child_process import THREADS, flush, fork_child, set_threads
from archsmith.executors.child_report import ChildReport
from archsmith.executors.processes import adopt_orphans, descendants, end_descendants, memory_used
from archsmith.executors.ray_folder import own_folder
from archsmith.executors.ray_mail import Began, Message, Reported
from archsmith.executors.run_job import failure_of, memory_message
from archsmith.executors.worker import OWN, SHARED

_OUTPUT = 8_192  # bytes kept of what a child printed
_LOOK = 0.5  # seconds between two checks of a child
_ANSWER = 60.0  # seconds until a child goes on without an answer to an epoch


class ChildDied(Exception):
    """The process of a child ended without a result; the text says how."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Args:
        completed: what the job came to.
        curve: the epochs that it reported.
        kept: the artifacts that its result names, as bytes by digest; none where it could write them to their place.
    """

    completed: Completed
    curve: Sequence[Mapping[str, float]]
    kept: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shared:
    """What jobs have in common, put into the object store once; its arrays are shared by all processes of a machine.

    Args:
        fields: a job's space, evaluator and reward.
        loaded: what the evaluator read from files.
    """

    fields: tuple[Any, ...]
    loaded: Mapping[Any, Any]


_bound: tuple[str, tuple[Any, ...]] | None = None  # the name of the last `Shared`, and its fields
_here: tuple[str, str] | None = None  # the machine's address, and Ray's name of it


def run_child(
    task: int,
    shared: Any,
    own: tuple[Any, ...],
    carried: Mapping[str, bytes] | None,
    device: str,
    threads: int,
    paths: Sequence[str],
    mailbox: Any,
) -> Outcome:
    """One job from start to end, as a Ray task.

    Args:
        task: its number.
        shared: a reference to the `Shared`.
        own: the fields of the job that no other has.
        carried: the artifacts that the job may read, as bytes by digest; what it keeps is then carried back. None: it
            sees the place where they are kept.
        device: of the child, or "auto".
        threads: of torch, OpenMP and BLAS.
        paths: where the driver finds modules of its user's; they come last.
        mailbox: the handle of the mailbox.
    """
    pid, trial = os.getpid(), own[OWN.index("trial")]
    _prepare(paths)
    output = _output()
    _say(mailbox, Began(task, *_machine(), pid, output))
    with ExitStack() as stack:
        try:
            job = Job(**dict(zip(SHARED, _bind(shared), strict=True)), **dict(zip(OWN, own, strict=True)))
            folder = None
            if carried is not None:
                folder = stack.enter_context(own_folder())
                for digest, content in carried.items():
                    Path(folder, digest + SUFFIX).write_bytes(content)
                job = replace(job, artifacts=folder)
        except BaseException as error:  # such as a module that only the driver can import
            return Outcome(Completed(trial, TrialState.FAILED, Result(failure=failure_of(error))), [])
        child = _Child(job, task, mailbox, device, threads)
        completed, kept = _collected(child.run(), folder)
    if completed.result.failure is not None:
        completed = replace(completed, result=with_printed(completed.result, read_output(output)))
    return Outcome(completed, child.report.curve, kept)


class _Child:
    """A child in its own process, controlled by Ray's worker."""

    def __init__(self, job: Job, task: int, mailbox: Any, device: str, threads: int) -> None:
        self._job, self._task, self._mailbox = job, task, mailbox
        self._device, self._threads = device, threads
        self._looked_at = 0.0

    def run(self) -> Completed:
        """Train it. Raises ChildDied."""
        ours, theirs = socket.socketpair()
        set_threads(1)
        flush()
        child = fork_child(
            lambda: self._job,
            self._job.trial,
            theirs,
            None,
            device=self._device,
            threads=self._threads,
            own_session=False,  # what Ray ends with its worker is known by its group
            close=ours.close,
        )
        theirs.close()
        report, began = ChildReport(self._job.trial, ours), time.monotonic()
        self.report = report
        status: int | None = None
        verdict: Failure | None = None
        try:
            while verdict is None and (status := _ended(child)) is None:
                wait([ours], _LOOK) if not report.messages.ended else time.sleep(_LOOK / 10)
                for progress in report.take():
                    if not self._tell(progress):
                        with suppress(OSError):
                            ours.send(b"c")
                verdict = report.broken or self._over_memory(child)
        finally:  # also by what Ray raises here
            if status is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            end_descendants()
        for progress in report.take(everything=True):
            self._tell(progress)
        ours.close()
        verdict = verdict or report.broken
        if verdict is not None:
            cost = Cost(time.monotonic() - began, float(len(report.curve)))
            return Completed(self._job.trial, TrialState.FAILED, Result({}, report.curve, cost, verdict))
        if report.completed is None:
            raise ChildDied(how_it_ended(status))
        return report.completed

    def _over_memory(self, child: int) -> Failure | None:
        limit, before, now = self._job.limits.memory_bytes, self.report.memory_before, time.monotonic()
        if limit is None or before is None or now < self._looked_at + _LOOK:
            return None
        self._looked_at = now
        used = memory_used(child, before, descendants(os.getpid()), limit)
        return Failure("memory", memory_message(used, limit) + " and was killed") if used > limit else None

    def _tell(self, progress: Progress) -> bool:
        """Tell the driver of an epoch; whether the child is to go on."""
        import ray

        try:
            return bool(ray.get(self._mailbox.post.remote(Reported(self._task, progress)), timeout=_ANSWER))
        except ray.exceptions.RayError:  # the driver sees to it that a child which is cancelled ends
            return True


def _ended(child: int) -> int | None:
    """The exit code of a process that has ended, negative for a signal; None of one that runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def _say(mailbox: Any, message: Message) -> None:
    """Leave a message, and wait until it is there: a child may end this process a moment later."""
    import ray

    with suppress(ray.exceptions.RayError):
        ray.get(mailbox.post.remote(message), timeout=_ANSWER)


def read_output(output: Sequence[tuple[str, int]]) -> str:
    """The end of what was printed into files since they had those lengths."""
    flush()
    parts = []
    for path, begin in output:
        with suppress(OSError), open(path, "rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(begin, length - _OUTPUT))
            lines = file.read().decode(errors="replace").splitlines()
            parts += [line for line in lines if not line.startswith((":job_id:", ":task_name:", ":actor_name:"))]
    return "\n".join(parts).strip()


def _prepare(paths: Sequence[str]) -> None:
    """The process as children find it."""
    sys.path += [path for path in paths if path not in sys.path]
    # One thread, and no look at CUDA's runtime, before children are forked; they have the threads that they may use.
    os.environ.update({**dict.fromkeys(THREADS, "1"), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"})
    # What is shared by processes cannot be written to, and torch says so of each array that it is handed.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    adopt_orphans()


def _machine() -> tuple[str, str]:
    global _here
    if _here is None:
        import ray

        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        _here = str(address), ray.get_runtime_context().get_node_id()
    return _here


def _output() -> tuple[tuple[str, int], ...]:
    """The files that this process prints into, and how long they are."""
    found = []
    for descriptor in (1, 2):
        with suppress(OSError):  # elsewhere than on Linux nothing tells the file
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if os.path.isfile(path):
                found.append((path, os.fstat(descriptor).st_size))
    return tuple(found)


def _bind(reference: Any) -> tuple[Any, ...]:
    """The fields that jobs share, fetched when they change: an evaluator's own caches then last as long as it does."""
    global _bound
    name = reference.hex()
    if _bound is None or _bound[0] != name:
        import ray

        _bound = None
        shared = ray.get(reference)
        loaded.give(shared.loaded)
        _bound = name, shared.fields
    return _bound[1]


def _collected(completed: Completed, folder: str | None) -> tuple[Completed, dict[str, bytes]]:
    """What a child kept in a folder that goes away, as bytes."""
    result = completed.result
    kept = {}
    for digest in filter(None, {result.artifact, result.checkpoint}) if folder is not None else ():
        if not is_digest(digest):  # a checkpoint that needs no file
            continue
        try:
            kept[digest] = Path(str(folder), digest + SUFFIX).read_bytes()
        except OSError as error:
            failure = Failure("error", f"the result names the artifact {digest}, and there is none: {error.strerror}")
            result = replace(result, failure=failure, artifact=None, checkpoint=None)
            return Completed(completed.trial, TrialState.FAILED, result), {}
    return completed, kept
