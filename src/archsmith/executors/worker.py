"""The main function of a worker process: binds evaluators, reads their data, and forks a process for each child.

A worker leads a session, so that Ctrl-C in a terminal does not reach it. It has one socket, `control`, to the process that
started it. There it receives jobs, each with the socket and the output of its child, and reports that a child's process and
all its descendants have ended. When the other side closes the socket, the worker ends everything at once.

It runs no child itself and has one thread, also of OpenMP, so that a fork is safe. CUDA is not initialised before the
fork, since it does not survive one.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

import cloudpickle

from archsmith.core import loaded
from archsmith.core.executor import Job
from archsmith.core.finish import Finishable
from archsmith.executors.child_process import flush, fork_child, keep_memory_shared, set_threads
from archsmith.executors.messages import framed
from archsmith.executors.processes import adopt_orphans, end_descendants

RUN, KILL = b"r", b"k"
"""The commands to a worker: run a job, with two file descriptors and a pickle; kill the running child."""

LENGTH = struct.Struct("!Q")
"""The length of the pickle."""

SHARED = ("space", "evaluator", "reward")
"""The fields of a job that are sent again only when they change, since an evaluator may hold a data set."""

OWN = tuple(field.name for field in fields(Job) if field.name not in SHARED)
"""The fields that are sent with each job."""


def main(control_fd: str, index: str, device: str, threads: str) -> None:
    """Run jobs until the other side closes the socket."""
    del sys.argv[1:]  # they differ from worker to worker
    faulthandler.enable()  # a segfault says where, on stderr, which the pool keeps
    os.nice(5)  # the searcher and the person at the machine come first
    adopt_orphans()
    try:
        _Worker(socket.socket(fileno=int(control_fd)), int(index), device, int(threads)).serve()
    except BaseException:  # the pool has closed the socket, or a signal came: either way there is nothing more to do
        with suppress(BaseException):  # the pipe of stderr may be closed as well: everything must still be ended
            traceback.print_exc()
    finally:
        _end()


class _Worker:
    """A worker, between its pool and its child."""

    def __init__(self, control: socket.socket, index: int, device: str, threads: int) -> None:
        self._control, self._index, self._device, self._threads = control, index, device, threads
        self._shared: bytes = b""
        self._bound: dict[str, Any] | Exception | None = None
        os.set_inheritable(control.fileno(), False)
        self._woken, self._waking = os.pipe()  # written to when a child process ends
        for end in (self._woken, self._waking):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waking)

    def serve(self) -> NoReturn:
        """Take jobs, one after the other."""
        self._control.sendall(framed({"kind": "ready"}))
        while True:
            command, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
            if command == RUN:
                self._run(descriptors)
            elif command != KILL:  # the child that was to be killed has ended by itself
                _end()

    def _run(self, descriptors: Sequence[int]) -> None:
        """Run one job until its process and all descendants of that have ended."""
        channel, output = socket.socket(fileno=descriptors[0]), descriptors[1]
        trial, shared, own, imports = pickle.loads(self._receive(*LENGTH.unpack(self._receive(LENGTH.size))))
        for name in imports:
            with suppress(BaseException):
                importlib.import_module(name)
        if shared is not None:
            with self._ending_with_owner():
                self._bind(shared)
        set_threads(1)
        keep_memory_shared()
        flush()

        def job() -> Job:
            if isinstance(self._bound, Exception):
                raise self._bound
            return Job(**(self._bound or {}), **dict(zip(OWN, cloudpickle.loads(own), strict=True)))

        child = fork_child(
            job,
            trial,
            channel,
            output,
            device=self._device,
            threads=self._threads,
            index=self._index,
            close=self._close,
        )
        channel.close()
        os.close(output)
        self._control.sendall(framed({"kind": "forked", "pid": child}))
        status = self._wait(child)
        end_descendants()
        self._control.sendall(framed({"kind": "ended", "status": status}))

    def _close(self) -> None:
        """Close the descriptors that a child must not have."""
        signal.set_wakeup_fd(-1)
        self._control.close()
        os.close(self._woken)
        os.close(self._waking)

    def _bind(self, shared: bytes) -> None:
        """Unpickle the shared fields of jobs, and have the evaluator read its data, before children are forked."""
        self._bound = None
        try:
            self._bound = dict(zip(SHARED, cloudpickle.loads(shared), strict=True))
        except BaseException as error:  # each child fails with it
            self._bound = error if isinstance(error, Exception) else RuntimeError(repr(error))
        else:
            with suppress(BaseException):  # the child meets the same error
                if _trains_networks(self._bound["evaluator"]):
                    for name in ("torch", "torch._dynamo"):  # the second is imported by torch's optimizers
                        importlib.import_module(name)
                loaded.give(loaded.of(self._bound["evaluator"]))

    def _wait(self, child: int) -> int:
        """Wait for the child's process, and kill it on command; returns its exit code, negative for a signal."""
        ends = select.poll()
        for end in (self._control, self._woken):
            ends.register(end, select.POLLIN)
        while True:
            with suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    if ended[0] == child:
                        return os.waitstatus_to_exitcode(ended[1])
            for end, _ in ends.poll():
                if end == self._woken:
                    with suppress(BlockingIOError):
                        os.read(self._woken, 1_024)
                elif self._control.recv(1) == KILL:
                    os.kill(child, signal.SIGKILL)
                else:
                    _end()

    def _receive(self, count: int) -> bytes:
        """Read so many bytes from the pool. Ends everything if the pool is gone."""
        content = bytearray()
        while len(content) < count:
            part = self._control.recv(min(count - len(content), 2**20))
            if not part:
                _end()
            content += part
        return bytes(content)

    @contextmanager
    def _ending_with_owner(self) -> Iterator[None]:
        """End everything if the pool goes away while the body runs, which may take long, since it runs a user's code."""
        done, stop = os.pipe()

        def watch() -> None:
            ends = select.poll()
            ends.register(done, select.POLLIN)
            ends.register(self._control, getattr(select, "POLLRDHUP", select.POLLHUP))
            for end, _ in ends.poll():
                if end == self._control.fileno():
                    _end()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.write(stop, b".")
            thread.join()  # there is one thread again
            os.close(done)
            os.close(stop)


def _trains_networks(evaluator: object) -> bool:
    """Whether an evaluator, or one in its fields, trains modules of torch."""
    parts = [getattr(evaluator, field.name) for field in fields(evaluator)] if is_dataclass(evaluator) else []
    return any(isinstance(each, Finishable) for each in (evaluator, *parts))


def _end() -> NoReturn:
    """Kill all descendants, and this process with its group."""
    with suppress(BaseException):
        end_descendants()
    os.killpg(0, signal.SIGKILL)
    os._exit(1)
