"""Jobs as tasks of Ray (Moritz et al. 2018): on one machine, or on a cluster of hundreds.

Scheduling, processes, shared memory and what becomes of lost machines are Ray's; here is what makes a search of it: how
many children run at once, their limits, who begins again, and what the search hears of it. Why tasks, and what is
Ray's and what ours: docs/decisions/0022-ray.md.
"""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from archsmith.core import loaded
from archsmith.core.checks import whole_number
from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.executor import Completed, Event, Job, Progress, Started
from archsmith.core.hosting import Host
from archsmith.core.trial import Cost, Failure, Result, TrialState
from archsmith.executors.attempt import with_printed
from archsmith.executors.process_pool import physical_cores
from archsmith.executors.ray_cluster import Connection, user_paths
from archsmith.executors.ray_host import RayHost
from archsmith.executors.ray_mail import Began, Mail, Message, Reported
from archsmith.executors.ray_room import Room
from archsmith.executors.ray_task import DEATHS, Task, printed_by
from archsmith.executors.ray_weights import check_kept, is_folder, read_for
from archsmith.executors.ray_worker import ChildDied, Outcome, Shared, run_child
from archsmith.executors.sending import fields_of, pickled
from archsmith.executors.worker import OWN, SHARED

log = logging.getLogger(__name__)

_TICK = 2.0  # seconds between two looks at the room there is, and at children that do not end


class Ray:
    """Runs jobs as tasks of a Ray cluster, each in a worker process with the CPUs and GPUs that it is given.

    Without an address it starts a Ray of its own on this machine, which listens on loopback only and ends with `close`,
    or with this process. A cluster is joined by its address; archsmith's code goes there with the job, and with it the
    modules beside the script, but what they import must be installed there. A job's space, evaluator and reward, and
    the data that the evaluator has read, are put into Ray's object store once: the processes of a machine share them,
    and no machine needs to see the files. Weights that children keep travel with their results, unless they are kept at
    an address of fsspec's, which workers write to themselves.

    A child whose worker dies (a crash, a machine that is lost) begins again elsewhere, `retries` times; then it has failed
    with the reason "worker". Each of these is logged as a warning, and counted in `retried`. A child that raises has
    failed. Children over their seconds or memory, or that do not end within `kill_grace` seconds of being cancelled, are
    killed from outside. What children print is in the traceback of one that failed.

    Use it from one thread.

    Args:
        address: "auto" (the cluster of this machine), "host:port", or "ray://host:port" (Ray's client). None: what the
            environment variable RAY_ADDRESS says, else Ray on this machine alone.
        workers: how many children at once. None: as many as there is room for, machines that come and go included. More
            than there is room for wait with Ray, which is what makes an autoscaling cluster grow.
        cpus: CPUs of each child.
        gpus: GPUs of each child; below 1 it shares one.
        resources: custom resources of each child, by name.
        threads: of torch, OpenMP and BLAS in each child. None: its CPUs, at least one.
        device: "auto" (the first of the child's GPUs, else the CPU) or a torch device.
        retries: how often a child begins again when its worker died under it.
        runtime_env: Ray's runtime environment of the workers, such as `{"pip": ["scipy"]}`, in place of that with the
            code; see Ray's documentation.
        start_timeout: seconds until a cluster on which no machine could hold a child is given up; one that scales
            itself may need minutes.
        kill_grace: seconds for a child that is over its time, or cancelled, to end by itself before it is killed.

    Raises:
        UsageError: no Ray installed, or what a child needs is more than the machine has where Ray is started.
        ArchsmithError: no cluster at the address, or one of another version.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        resources: Mapping[str, float] | None = None,
        threads: int | None = None,
        device: str = "auto",
        retries: int = 3,
        runtime_env: Mapping[str, Any] | None = None,
        start_timeout: float = 600.0,
        kill_grace: float = 5.0,
    ) -> None:
        if not isinstance(address, str | None):
            raise UsageError(
                f"the address of a Ray cluster is auto, HOST:PORT or ray://HOST:PORT, got {address!r}; "
                "the number of workers is workers=..."
            )
        for name, count, least in (("workers", workers, 1), ("threads", threads, 1), ("retries", retries, 0)):
            if count is not None:
                whole_number(count, name, least)
        amounts = {"cpus": cpus, "gpus": gpus, "start_timeout": start_timeout, "kill_grace": kill_grace}
        for name, amount in (amounts | dict(resources or {})).items():
            if not isinstance(amount, int | float) or isinstance(amount, bool) or not 0 <= amount < math.inf:
                raise UsageError(f"{name} must be a number of at least 0, got {amount!r}")
        needs = {"CPU": float(cpus), "GPU": float(gpus)} | {k: float(v) for k, v in (resources or {}).items()}
        if not any(needs.values()):
            raise UsageError(
                "a child must need something, or there is no end to how many run at once; give cpus above 0"
            )
        self.threads = threads if threads is not None else max(1, int(cpus))
        self.device = device if device != "auto" or gpus > 0 else "cpu"
        self.retries = retries
        self.start_timeout = start_timeout
        self.kill_grace = kill_grace
        self.retried: dict[int, int] = {}
        """How often each trial began again because its worker had died; the trials that did, alone."""
        cores = max(physical_cores(), math.ceil((workers or 1) * cpus))
        self._connection = Connection(address, cores, runtime_env)
        self._workers = workers
        self._room = Room(needs, own=self._connection.is_own)
        self._made = 0
        self._queue: deque[Task] = deque()
        self._running: dict[Any, Task] = {}  # by reference
        self._events: list[Event] = []
        self._sent: tuple[Job, Any] | None = None  # the last job whose shared fields were put, and the reference
        self._host = RayHost()
        self._mail: Mail | None = None
        self._run: Any = None
        self._end = weakref.finalize(self, _end_all, self._running, self._host, self._connection, os.getpid())
        try:
            if self._connection.is_own and self._room.look() == 0:
                raise UsageError(f"{self._room.wanting()}; give it less, or join a cluster")
            self._mail = Mail()
            self._make_task()
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """How many children there may be at once: `workers`, or what there is room for now; never none."""
        if self._end.alive:
            self._room.look()
        return self._workers if self._workers is not None else max(1, self._room.places)

    @property
    def host(self) -> Host:
        """Where parts of a searcher live: actors of the cluster."""
        return self._host

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises UsageError for a trial that is queued or running already, for a job that cannot be sent to another
        process, and after `close`.
        """
        if not self._end.alive:
            raise UsageError("this executor is closed; make a new one")
        if any(task.job.trial == job.trial for task in self._unfinished()):
            raise UsageError(f"trial {job.trial} was submitted and is not finished; a trial runs once")
        self._queue.append(self._task(job, 1, self._shared(job)))
        self._dispatch()

    def cancel(self, trial: int) -> None:
        """End a job: a queued one never begins, a running one is told by `report` and killed after `kill_grace`."""
        for task in self._unfinished():
            if task.job.trial != trial or task.cancelled:
                continue
            task.cancelled = True
            if task.reference is None:
                self._queue.remove(task)
                self._events.append(Completed(trial, TrialState.STOPPED, Result()))
            elif task.began is None:
                self._kill(task)
            else:
                self._mail_now.cancel(self._cancelled())
                task.kill_at = min(task.kill_at, time.monotonic() + self.kill_grace)

    def completed(self, timeout: float | None = None) -> Sequence[Event]:
        """What happened since the last call, in order; waits for it. Nothing as well when there is room for more.

        Raises ArchsmithError when no machine could hold a child for `start_timeout` seconds, or when workers cannot run
        archsmith at all.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        slots = self.slots
        while True:
            self._dispatch()
            if self._events or not self._unfinished() or self.slots > slots:
                break
            now = time.monotonic()
            self._wait(max(0.0, min(deadline - now, _TICK, *(t.kill_at - now for t in self._running.values()))))
            self._enforce()
            if not self._events and time.monotonic() >= deadline:
                break
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End all children and parts, and the Ray that was started for them. What was not finished is forgotten."""
        self._queue.clear()
        self._events.clear()
        if self._mail is not None and self._end.alive:
            self._mail.close()
        self._end()

    # --- to Ray -------------------------------------------------------------------------------------------------------

    @property
    def _mail_now(self) -> Mail:
        assert self._mail is not None
        return self._mail

    def _make_task(self) -> None:
        import ray

        mailbox, device, threads, paths = self._mail_now.handle, self.device, self.threads, user_paths()

        def child(number: int, shared: list[Any], own: tuple[Any, ...], carried: Mapping[str, bytes] | None) -> Outcome:
            return run_child(number, shared[0], own, carried, device, threads, paths, mailbox)

        # Sent to each worker once, with the handle of the mailbox: what goes with every job is small.
        self._run = ray.remote(child).options(
            num_cpus=self._room.needs["CPU"],
            num_gpus=self._room.needs["GPU"],
            resources={name: need for name, need in self._room.needs.items() if name not in ("CPU", "GPU")},
            max_retries=0,  # they are counted and told here
        )

    def _unfinished(self) -> list[Task]:
        return [*self._queue, *self._running.values()]

    def _cancelled(self) -> frozenset[int]:
        return frozenset(task.number for task in self._running.values() if task.cancelled)

    def _task(self, job: Job, attempt: int, shared: Any) -> Task:
        self._made += 1
        return Task(self._made, job, attempt, shared=shared)

    def _shared(self, job: Job) -> Any:
        """A reference to what jobs have in common; the same as long as they are the same objects."""
        import ray

        if self._sent is None or any(getattr(self._sent[0], name) is not getattr(job, name) for name in SHARED):
            shared = Shared(tuple(getattr(job, name) for name in SHARED), loaded.of(job.evaluator))
            try:
                self._sent = job, ray.put(shared)
            except Exception:
                pickled(fields_of(job, SHARED))  # which tells what it is that cannot be sent
                raise
        return self._sent[1]

    def _dispatch(self) -> None:
        """Give queued jobs to Ray, as far as there are slots: what it is not given can be taken back at once."""
        while self._queue and len(self._running) < self.slots:
            task = self._queue.popleft()
            own = tuple(getattr(task.job, name) for name in OWN)
            carried = not self._connection.is_own and is_folder(task.job.artifacts)
            task.reference = self._run.remote(task.number, [task.shared], own, read_for(task.job) if carried else None)
            self._running[task.reference] = task

    # --- from Ray -----------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Wait for messages and outcomes, and take note."""
        import ray

        asked = self._mail_now.ask(self._cancelled())
        waiting = [asked, *self._running]
        ready, _ = ray.wait(waiting, timeout=seconds)
        if ready:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        if asked in ready:  # first: what a child said is older than its outcome
            self._read_mail()
        for reference in ready:
            if reference in self._running:
                self._outcome(self._running[reference])
                del self._running[reference]

    def _read_mail(self) -> None:
        """Hear the messages that have come."""
        messages = self._mail_now.read()
        if messages is None:
            self._make_task()  # which has the handle of the new mailbox
        tasks = {task.number: task for task in self._running.values()}
        for message in messages or ():
            if message.task in tasks:
                self._hear(tasks[message.task], message)

    def _hear(self, task: Task, message: Message) -> None:
        match message:
            case Began():
                self._began(task, message)
            case Reported(progress=progress):
                self._progress(task, progress)

    def _began(self, task: Task, message: Began | None) -> None:
        if task.began_at == 0.0:
            task.began_at = time.monotonic()
            self._events.append(Started(task.job.trial, task.attempt))
        if message is not None and task.began is None:
            task.began = message
            if task.job.limits.seconds is not None and not task.cancelled:
                task.kill_at = time.monotonic() + task.job.limits.seconds + self.kill_grace

    def _progress(self, task: Task, progress: Progress) -> None:
        self._began(task, None)
        task.curve.append({"epoch": progress.epoch, **progress.metrics})
        self._events.append(progress)

    def _outcome(self, task: Task) -> None:
        """Take what a task came to."""
        import ray

        try:
            outcome: Outcome = ray.get(task.reference)
        except ray.exceptions.TaskCancelledError:
            self._ended(task, "was ended")
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise ArchsmithError(f"Ray cannot make the runtime environment of the workers: {error}") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ImportError):
                raise ArchsmithError(
                    f"a worker of the cluster cannot run archsmith: {error.cause}; install there what is installed here, "
                    'or give runtime_env={"pip": [...]}'
                ) from error
            self._ended(task, str(error.cause) if isinstance(error.cause, ChildDied) else f"ended with {error.cause!r}")
        except ray.exceptions.RayError as error:
            self._ended(task, DEATHS.get(type(error).__name__, f"is lost ({type(error).__name__}: {error})"))
        else:
            self._began(task, None)
            for row in list(outcome.curve)[len(task.curve) :]:  # their messages are on the way, or were lost
                metrics = {name: value for name, value in row.items() if name != "epoch"}
                self._progress(task, Progress(task.job.trial, int(row["epoch"]), metrics))
            self._events.append(check_kept(task.job, outcome))

    def _ended(self, task: Task, how: str) -> None:
        """Decide about a task that gave no outcome."""
        if task.began is None and self._mail_now.hurry():  # it may have said that it began just before it died
            self._read_mail()
        trial, began = task.job.trial, task.began
        took = time.monotonic() - task.began_at if task.began_at else 0.0
        so_far = Result(curve=task.curve, cost=Cost(took, float(len(task.curve))))
        where = f" on {began.node} (process {began.pid})" if began is not None else ""
        if task.cancelled:
            self._events.append(Completed(trial, TrialState.STOPPED, so_far))
        elif task.verdict is None and task.attempt <= self.retries:
            self.retried[trial] = self.retried.get(trial, 0) + 1
            log.warning("trial %d begins again: its worker%s %s", trial, where, how)
            self._queue.appendleft(self._task(task.job, task.attempt + 1, task.shared))
        else:
            self._began(task, None)
            times = "" if task.attempt == 1 else f", {task.attempt} times in a row"
            failure = task.verdict or Failure("worker", f"the child's worker{where} {how}{times}")
            failed = Result(curve=so_far.curve, cost=so_far.cost, failure=failure)
            self._events.append(Completed(trial, TrialState.FAILED, with_printed(failed, printed_by(began))))

    # --- limits and deaths --------------------------------------------------------------------------------------------

    def _enforce(self) -> None:
        """End children that are over their time, and the wait for machines that never come."""
        now = time.monotonic()
        for task in list(self._running.values()):
            if now >= task.kill_at:
                limit = task.job.limits.seconds  # None for a child that was only cancelled, which is no failure
                if not task.cancelled and task.verdict is None:
                    task.verdict = Failure(
                        "seconds", f"the child took longer than its limit of {limit} seconds and was killed"
                    )
                self._kill(task)
        if self._room.none_for() >= self.start_timeout and not any(task.began for task in self._running.values()):
            raise ArchsmithError(
                f"no machine of the cluster could hold a child for {self.start_timeout:g} seconds (start_timeout): "
                f"{self._room.wanting()}; add such a machine, or let a child need less"
            )

    def _kill(self, task: Task) -> None:
        import ray

        task.kill_at = time.monotonic() + _TICK  # again, should it get lost
        with suppress(Exception):
            ray.cancel(task.reference, force=True)


def _end_all(running: dict[Any, Task], host: RayHost, connection: Connection, owner: int) -> None:
    """End everything, in the process that started it: a fork of that has no say."""
    if os.getpid() != owner:
        return
    import ray

    if not connection.is_own:  # else they end with their Ray
        for reference in running:
            with suppress(Exception):
                ray.cancel(reference, force=True)
    running.clear()
    host.close()
    connection.close()
