"""`archsmith`: the commands, in the order one meets them. Each file beside this one holds the commands of one kind."""

from __future__ import annotations

import signal
import sys
import warnings
from types import FrameType
from typing import Any

import typer

from archsmith import __version__
from archsmith.cli import auto, compare, looking, models, searching, transfer
from archsmith.cli.plain import plain_streams
from archsmith.core.errors import ArchsmithError, UsageError
from archsmith.core.shown import plain

app = typer.Typer(
    name="archsmith",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"archsmith {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Neural architecture search: a controller proposes networks, their validation reward teaches it better ones.

    First:      archsmith auto digits --time 2m    search, train, test, report and export in two minutes
    Your data:  archsmith auto PATH --time 20m     a folder with one folder of images a class, or a text file
    Step by step: search, then show, finish, report, export, predict.
    """


for _module in (auto, searching, looking, compare, models, transfer):
    _module.register(app)


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _warn(
    message: Warning | str, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Of a warning, what is for the person, without the line of archsmith's that gave it."""
    print(f"warning: {plain(str(message))}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and give its exit status. Bad input is one sentence on stderr, never a traceback."""
    with plain_streams():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, _terminated)  # a polite kill ends as cleanly as Ctrl-C
    warnings.showwarning = _warn
    try:
        result = app(args=arguments, standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except UsageError as error:
        print(f"error: {plain(str(error))}", file=sys.stderr)
        return 2
    except ArchsmithError as error:
        print(f"error: {plain(str(error))}", file=sys.stderr)
        return 1
    except Exception as error:
        if error.__class__.__module__.startswith(("click", "typer")):  # wrong use of a command's arguments
            error.show() if hasattr(error, "show") else print(f"error: {plain(str(error))}", file=sys.stderr)
            return 2
        if isinstance(error, OSError):
            print(f"error: {plain(str(error))}", file=sys.stderr)
            return 1
        raise
    return result if isinstance(result, int) else 0
