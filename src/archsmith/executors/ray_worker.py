"""What runs on the workers of a Ray cluster: a child as a Ray task. What it says before it ends goes by `ray_mail`."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from archsmith.core import loaded
from archsmith.core.artifacts import SUFFIX, is_digest
from archsmith.core.executor import Completed, Job, Progress
from archsmith.core.trial import Failure, Result, TrialState
from archsmith.executors.ray_folder import own_folder
from archsmith.executors.ray_mail import Began, Message, Reported, TooLarge
from archsmith.executors.run_job import JobContext, failure_of, resident_bytes, run_job
from archsmith.executors.worker import OWN, SHARED, adopt_orphans, end_descendants, flush, reset_threads
from archsmith.executors.worker_process import THREADS, with_printed

_OUTPUT = 8_192  # bytes kept of what a child printed
_LOOK = 0.5  # seconds between two looks at a child's memory
_ANSWER = 60.0  # seconds until a child goes on without an answer to an epoch


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
    pid = os.getpid()
    _prepare(threads, paths)
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
            context = JobContext(job, device=device, threads=threads, tell=_teller(task, mailbox, pid))
            stack.enter_context(_Watch(task, job.limits.memory_bytes, mailbox))
        except BaseException as error:  # such as a module that only the driver can import
            trial = own[OWN.index("trial")]
            return Outcome(Completed(trial, TrialState.FAILED, Result(failure=failure_of(error))), [])
        completed = run_job(job, context)
        if os.getpid() != pid:
            os._exit(0)  # the child forked, and its fork came back from the evaluator
        end_descendants()
        completed, kept = _collected(completed, folder)
    if completed.result.failure is not None:
        completed = replace(completed, result=with_printed(completed.result, read_output(output)))
    return Outcome(completed, context.curve, kept)


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


def _prepare(threads: int, paths: Sequence[str]) -> None:
    """The process as a child finds it, whatever ran in it before."""
    sys.path += [path for path in paths if path not in sys.path]
    os.environ.update(dict.fromkeys(THREADS, str(threads)))  # for libraries that are loaded from here on
    reset_threads(threads)
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


def _teller(task: int, mailbox: Any, pid: int) -> Any:
    """What tells the driver of an epoch, and hears whether to go on."""

    def tell(progress: Progress) -> bool:
        if os.getpid() != pid:  # a fork of the child has no voice
            return True
        import ray

        flush()
        try:
            return bool(ray.get(mailbox.post.remote(Reported(task, progress)), timeout=_ANSWER))
        except ray.exceptions.RayError:  # the driver sees to it that a child which is cancelled ends
            return True

    return tell


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


class _Watch:
    """Looks at the memory of this process and of those it started while a child runs, and tells when it is too much."""

    def __init__(self, task: int, limit: int | None, mailbox: Any) -> None:
        self._task, self._limit, self._mailbox = task, limit, mailbox
        self._done = threading.Event()

    def __enter__(self) -> None:
        if self._limit is not None:
            threading.Thread(target=self._look, args=(self._limit, resident_bytes()), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _look(self, limit: int, before: int) -> None:
        while not self._done.wait(_LOOK):
            used = resident_bytes() - before
            if used <= limit:
                used += _of_descendants()
            if used > limit:
                self._mailbox.post.remote(TooLarge(self._task, used))
                return


def _of_descendants() -> int:
    """The bytes that nothing but the processes a child started hold: forks share the rest with their parent."""
    import psutil

    total = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            total += int(process.memory_full_info().uss)
    return total
