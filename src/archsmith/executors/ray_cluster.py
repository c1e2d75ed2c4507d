"""Reaching a Ray cluster: one that is there already, or one of this process's own on this machine.

Ray has one connection a process, so all executors of a process share it; the last to close it ends it, and with it the Ray
that it started. A connection that somebody else opened (`ray.init` in a notebook) is used, and left as it is.

A Ray that is started here listens on loopback alone, and asks for the token that Ray keeps for this user.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from archsmith.core.errors import ArchsmithError, UsageError

_ANSWER = 10.0  # seconds for something to answer at the address of a cluster

_users = 0  # executors that use a connection which was opened here


class Connection:
    """This process's connection to Ray, for one executor.

    Args:
        address: "auto", "host:port" or "ray://host:port"; "local" starts a Ray here; None: what RAY_ADDRESS says, else
            the one there is in this process, else "local".
        cores: what a Ray that is started here has.
        runtime_env: of Ray; None: archsmith and what lies beside the script, where the cluster is not this process's own.
    """

    def __init__(self, address: str | None, cores: int, runtime_env: Mapping[str, Any] | None) -> None:
        global _users
        ray = import_ray()
        self.is_own = False  # whether the cluster was started here, for this process
        self._counts = False
        if ray.is_initialized() and (_users or address in (None, "auto")):
            _check_same(ray, address)
            self._counts = _users > 0
            self.is_own = self._counts and _started_here
        else:
            _open(ray, _address(address), cores, runtime_env)
            self._counts = True
            self.is_own = _started_here
        _users += self._counts

    def close(self) -> None:
        """End the connection when no other executor uses it. Safe to call twice."""
        global _users, _started_here
        if not self._counts:
            return
        self._counts = False
        _users -= 1
        if _users == 0:
            import ray

            _started_here = False
            ray.shutdown()
            _restore()


_started_here = False
_changed: list[tuple[Any, str, object]] = []  # what was set inside Ray, and how it was


def import_ray() -> Any:
    """The package. Raises UsageError, with what to install, where there is none."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"running on Ray needs a package more ({error}): pip install 'archsmith[ray]'") from None
    return ray


def _address(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _check_same(ray: Any, address: str | None) -> None:
    there = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", there):
        raise UsageError(
            f"this process is connected to the Ray cluster at {there}, and a process has one connection; close that one, "
            f"or give no other address, got {address!r}"
        )


def _open(ray: Any, address: str, cores: int, runtime_env: Mapping[str, Any] | None) -> None:
    global _started_here
    options: dict[str, Any] = {}
    own = address == "local"
    if own:
        # A child's own processes end with it. Read by the processes that Ray starts.
        os.environ.setdefault("RAY_process_group_cleanup_enabled", "1")
        options = {"num_cpus": cores, "include_dashboard": False}
        if runtime_env is not None:
            options["runtime_env"] = dict(runtime_env)
    else:
        address = _check_answers(address)
        options = {"runtime_env": dict(runtime_env) if runtime_env is not None else code_here()}
    try:
        with _undisturbed(own):
            ray.init(address, log_to_driver=False, configure_logging=False, **options)
    except (Exception, SystemExit) as error:  # Ray ends the process where it does not reach what it was told to
        with contextlib.suppress(Exception):
            ray.shutdown()
        _restore()
        raise _in_words(address, error) from error
    _started_here = own


def _check_answers(address: str) -> str:
    """The address, with "auto" looked up; raises ArchsmithError where nothing listens there, as Ray itself would try for
    two minutes."""
    if address == "auto":
        from ray._private import utils

        # Without this Ray would also take any that it finds among the processes, such as one of another search's own.
        found = utils.read_ray_address() if hasattr(utils, "read_ray_address") else address
        if found is None:
            raise ArchsmithError(
                "there is no Ray cluster on this machine to join; start one with `ray start --head`, or leave the address "
                "out, and archsmith starts one"
            )
        if found == address:
            return address
        address = found
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        raise UsageError(f"the address of a Ray cluster is auto, HOST:PORT or ray://HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ArchsmithError(
            f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or look whether the "
            "address and the port (6379, or 10001 behind ray://) are right"
        ) from None
    return address


def _in_words(address: str, error: BaseException) -> ArchsmithError:
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError | ValueError) and "ray[client]" in str(error):
        return UsageError(
            f"the address {address} is of Ray's client, which is a package more: pip install 'ray[client]'"
        )
    if isinstance(error, ConnectionError) and address == "auto":
        return ArchsmithError(
            "there is no Ray cluster on this machine to join; start one with `ray start --head`, or leave the address out, "
            "and archsmith starts one"
        )
    if "ersion mismatch" in str(error):
        return ArchsmithError(f"the Ray cluster at {address} runs other versions than this process: {error}")
    if type(error).__name__ == "AuthenticationError" or "uthentication" in str(error):
        return ArchsmithError(
            f"the Ray cluster at {address} asks for its token, and this process has not got it; give it in RAY_AUTH_TOKEN, "
            f"or in the file that RAY_AUTH_TOKEN_PATH names ({what})"
        )
    if isinstance(error, SystemExit):
        what = "nothing that is Ray answers there, or it wants another token or version"
    did = "cannot start Ray on this machine" if address == "local" else f"cannot join the Ray cluster at {address}"
    return ArchsmithError(f"{did}: {what}")


@contextlib.contextmanager
def _undisturbed(own: bool) -> Iterator[None]:
    """Ray prints to the terminal, and takes SIGTERM for itself: neither is its to do in another's program."""
    if own or sys.platform == "linux":
        # Ray has it for macOS and Windows: a machine that is no part of a cluster uses loopback and no outer address.
        _set_inner("ray._private.ray_constants", "ENABLE_RAY_CLUSTER", not own)
    _set_inner("ray._private.worker", "_worker_logs_enabled", False)  # "A worker died ...": the executor tells it
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _set_inner(module: str, name: str, value: object) -> None:
    """Set what Ray has no setting for, as long as its name stays what it is, until the connection ends."""
    there = sys.modules.get(module)
    if hasattr(there, name):
        _changed.append((there, name, getattr(there, name)))
        setattr(there, name, value)


def _restore() -> None:
    while _changed:
        setattr(*_changed.pop())


def code_here() -> dict[str, Any]:
    """A runtime environment that brings the code of this process to workers that do not see its files: archsmith, and
    the modules beside the script that were imported so far."""
    import archsmith

    return {"py_modules": [str(Path(archsmith.__file__).parent), *map(str, sorted(_beside_the_script()))]}


def _beside_the_script() -> set[Path]:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None:
        return set()
    folder = Path(script).resolve().parent
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or name in ("__main__", "archsmith") or not file:
            continue
        path = Path(file).resolve()
        top = path.parent if path.name == "__init__.py" else path
        # The command line's script has no suffix, and is a module of its own name to some.
        if top.parent == folder and (top.is_dir() or top.suffix == ".py"):
            found.add(top)
    return found


def user_paths() -> list[str]:
    """The folders in which this process finds modules, but those of Python and of what is installed."""
    ours = [os.path.abspath(path) for path in sys.path]
    installed = tuple({str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)})
    return [path for path in ours if os.path.isdir(path) and not str(Path(path).resolve()).startswith(installed)]
