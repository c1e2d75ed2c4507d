"""Saves and restores the global state of a process around code that may change it.

Libraries are used only if they are loaded, and never imported here. A library that is loaded meanwhile gets its default
state. Not restored are threads and processes that were started, replaced attributes of modules, and lowered priorities.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # CPython's own, below `signal`
import builtins
import functools
import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

_BUILTINS = vars(builtins)


@dataclass(frozen=True)
class GeneratorStates:
    """The states of the global generators of `random`, numpy (the legacy one) and torch (CPU, and CUDA if it is in use).
    None for a library that is not loaded."""

    python: Any
    numpy: Any
    torch: Any
    cuda: Any

    @classmethod
    def now(cls) -> GeneratorStates:
        """The current states."""
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        return cls(
            random.getstate(),
            numpy.random.get_state() if numpy is not None else None,
            torch.default_generator.get_state() if torch is not None else None,
            torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None,
        )

    def restore(self) -> None:
        """Put them back. A library that was loaded since is seeded at random, as a new one is."""
        random.setstate(self.python)
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.set_state(self.numpy) if self.numpy is not None else numpy.random.seed()
        if (torch := sys.modules.get("torch")) is not None:
            if self.torch is not None:
                torch.default_generator.set_state(self.torch)
            else:
                torch.default_generator.seed()
            if torch.cuda.is_initialized():
                if self.cuda is not None:
                    torch.cuda.set_rng_state_all(self.cuda)
                else:
                    torch.cuda.seed_all()


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the global generators after the body, also if it raises."""
    states = GeneratorStates.now()
    try:
        yield
    finally:
        states.restore()


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Restore the global state of the process after the body, also if it raises; all but the generators.

    That is: the working directory, environment variables and umask; `sys.path`, the import hooks and the loaded modules;
    argv, the standard streams, builtins, tracing and hooks; signal handlers and timers, resource limits, the garbage
    collector, warnings, logging, the locale, socket timeouts; numpy's error handling and printing; torch's threads, default
    dtype and device, grad mode, determinism, precision, autocast and anomaly detection.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    settings = _settings(threading.current_thread() is threading.main_thread(), numpy, torch)
    before = [get() for _, get, _ in settings]
    trace, profile = sys.gettrace(), sys.getprofile()
    names, modules = _BUILTINS.copy(), sys.modules.copy()
    try:
        yield
    finally:
        if sys.gettrace() is not trace:
            sys.settrace(trace)
        if sys.getprofile() is not profile:
            sys.setprofile(profile)
        _BUILTINS.update(names)
        for name in _BUILTINS.keys() - names.keys() - {"_"}:  # "_" is the console's
            del _BUILTINS[name]
        sys.modules.update(modules)  # those that were taken away or replaced; later ones stay
        for (_, get, put), value in zip(settings, before, strict=True):
            try:
                if get() != value:
                    put(value)
            except Exception:  # one that cannot be put back; suppress() takes longer, for each trial
                pass
        if torch is None and sys.modules.get("torch") is not None:
            with suppress(Exception):
                _restore_fresh_torch(sys.modules["torch"])


@contextmanager
def process_kept() -> Iterator[None]:
    """Restore the global generators and the other global state of the process after the body."""
    with generators_kept(), global_state_kept():
        yield


_Setting = tuple[str, Callable[[], Any], Callable[[Any], object]]
"""A name, a function that reads the value and one that sets it."""


@functools.cache
def _settings(in_main_thread: bool, numpy: Any, torch: Any) -> list[_Setting]:
    """The settings of Python and of the loaded libraries."""
    settings = [*_PYTHON]
    if in_main_thread:
        settings += [("signal handlers", _handlers, _put_handlers)]
    if sys.platform != "win32":
        settings += _unix()
    if numpy is not None:
        settings += [
            ("numpy.err", numpy.geterr, lambda value: numpy.seterr(**value)),
            ("numpy.printoptions", numpy.get_printoptions, lambda value: numpy.set_printoptions(**value)),
        ]
    if torch is not None:
        settings += _torch(torch)
    return settings


def _environment() -> dict[Any, Any]:
    """The variables as `os.environ` stores them. To decode all of them takes longer than many an evaluation."""
    return dict(os.environ._data)  # type: ignore[attr-defined]


def _put_environment(value: dict[Any, Any]) -> None:
    before = {os.environ.decodekey(name): os.environ.decodevalue(content) for name, content in value.items()}
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _put_list(owner: Any, name: str, value: tuple[list[Any], list[Any]]) -> None:
    same, content = value
    same[:] = content
    setattr(owner, name, same)


def _list(owner: Any, name: str) -> _Setting:
    """An attribute that is a list: which one, and what is in it."""

    def get() -> tuple[list[Any], list[Any]]:
        now = getattr(owner, name)
        return now, list(now)

    return name, get, lambda value: _put_list(owner, name, value)


def _attribute(owner: Any, name: str) -> _Setting:
    return name, lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def _put_filters(value: tuple[list[Any], list[Any]]) -> None:
    _put_list(warnings, "filters", value)
    warnings._filters_mutated()  # type: ignore[attr-defined]  # as warnings.catch_warnings does


_PYTHON: list[_Setting] = [
    ("folder", _folder, lambda value: None if value is None else os.chdir(value)),
    ("environment", _environment, _put_environment),
    *(_list(sys, name) for name in ("path", "argv", "meta_path", "path_hooks")),
    *(_attribute(sys, name) for name in ("stdin", "stdout", "stderr", "excepthook", "displayhook")),
    _attribute(threading, "excepthook"),
    ("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    ("gc", gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
    ("gc threshold", gc.get_threshold, lambda value: gc.set_threshold(*value)),
    ("filters", _list(warnings, "filters")[1], _put_filters),
    _attribute(warnings, "showwarning"),
    _list(logging.root, "handlers"),
    ("logging level", lambda: logging.root.level, logging.root.setLevel),
    ("logging disabled", lambda: logging.root.manager.disable, logging.disable),
    ("locale", lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)),
    ("socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
]


_HANDLED = [
    getattr(signal, name)
    for name in (
        *("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGABRT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF"),
        *("SIGCHLD", "SIGPIPE", "SIGCONT", "SIGTSTP", "SIGWINCH", "SIGSEGV", "SIGFPE", "SIGBUS", "SIGILL", "SIGIO"),
    )
    if hasattr(signal, name)
]


def _handlers() -> dict[int, Any]:
    return {number: _signal.getsignal(number) for number in _HANDLED}  # `signal` makes an enum of each


def _put_handlers(value: dict[int, Any]) -> None:
    for number, handler in value.items():
        if handler is not None and _signal.getsignal(number) is not handler:
            with suppress(OSError, ValueError):
                signal.signal(number, handler)


def _unix() -> list[_Setting]:
    import resource

    def stop_timer(which: int) -> _Setting:
        """A timer that did not run is stopped; one that did has gone on."""
        return (
            "timer",
            lambda: signal.getitimer(which) != (0.0, 0.0),
            lambda running: None if running else signal.setitimer(which, 0),
        )

    def put_limits(value: list[tuple[int, int]]) -> None:
        for which, limit in zip(kinds, value, strict=True):
            with suppress(ValueError, OSError):
                resource.setrlimit(which, limit)

    timers = [stop_timer(which) for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)]
    kinds = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    limits = [("limits", lambda: [*map(resource.getrlimit, kinds)], put_limits)]
    masks = [("blocked signals", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), _put_mask)]
    return [*timers, *limits, *masks, ("umask", _umask, lambda value: None if value is None else os.umask(value))]


def _put_mask(value: set[signal.Signals]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, value)


def _umask() -> int | None:
    """The umask. If other threads run, Linux tells it without changing it for a moment; elsewhere it is None then."""
    if threading.active_count() > 1:
        with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), None)
        return None
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _torch(torch: Any) -> list[_Setting]:
    autocast = [
        setting
        for device in ("cpu", "cuda")
        for setting in (
            (
                f"torch.autocast {device}",
                lambda d=device: torch.is_autocast_enabled(d),
                lambda value, d=device: torch.set_autocast_enabled(d, value),
            ),
            (
                f"torch.autocast dtype {device}",
                lambda d=device: torch.get_autocast_dtype(d),
                lambda value, d=device: torch.set_autocast_dtype(d, value),
            ),
        )
    ]
    return [
        ("torch.threads", torch.get_num_threads, torch.set_num_threads),
        ("torch.dtype", torch.get_default_dtype, torch.set_default_dtype),
        ("torch.device", torch.get_default_device, torch.set_default_device),
        ("torch.grad", torch.is_grad_enabled, torch.set_grad_enabled),
        (
            "torch.deterministic",
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
        ),
        ("torch.matmul", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        *(
            (f"torch.{name}", _attribute(torch.backends.cudnn, name)[1], _attribute(torch.backends.cudnn, name)[2])
            for name in ("enabled", "benchmark", "deterministic")
        ),
        (
            "torch.anomaly",
            lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            lambda value: torch.set_anomaly_enabled(*value),
        ),
        *autocast,
        ("torch.autocast cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        ("torch.denormal", lambda: _flushes_denormals(torch), torch.set_flush_denormal),
    ]


def _flushes_denormals(torch: Any) -> bool:
    return bool((torch.full((1,), 1e-300, dtype=torch.float64, device="cpu") * 1e-20).item() == 0.0)


_FRESH_TORCH: dict[str, Any] = {
    "torch.grad": True,
    "torch.deterministic": (False, False),
    "torch.matmul": "highest",
    "torch.anomaly": (False, True),
    "torch.autocast cpu": False,
    "torch.autocast cuda": False,
    "torch.denormal": False,
}


def _restore_fresh_torch(torch: Any) -> None:
    """Reset the settings of a torch that was loaded since."""
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    for name, get, put in _torch(torch):
        if name in _FRESH_TORCH and get() != _FRESH_TORCH[name]:
            put(_FRESH_TORCH[name])
