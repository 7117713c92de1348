"""The command line: `asa-adapter label`, `train`, `evaluate`, `generate`, `explain`, `verify`, `diagnose`, `serve`,
`inspect`, `push`.

What the commands do is in `commands`, which is imported when one runs: help and usage errors need no torch, nor does
`inspection`.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asa_adapter.cli.option_parser import command_parser
from asa_adapter.cli.terminal import painted, printable, printable_logs
from asa_adapter.errors import visible

_STAGES = "stages"  # where the trainer keeps what is finished
_LABELS = "labels.json"  # beside the splits that are labelled


class _Stopped(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); whatever cleans up after Ctrl-C cleans up after this."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after `asa-adapter`; those of the process where None.

    Returns:
        0 on success, and where the help is printed since no command is named; 1 where `verify` finds a difference; 2
        on bad usage or bad input, 130 when interrupted, 141 when the pipe that takes the output was closed, 143 when
        stopped by SIGTERM.
    """
    parser = command_parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    if options.command is None:
        return _print_result(parser.format_help().rstrip("\n"))
    try:
        with _stop_signal_raised(), warnings.catch_warnings(), printable_logs():
            warnings.showwarning = _show_warning
            result, text, is_main = _run_command(options)
    except KeyboardInterrupt as stop:
        what, status = ("stopped", 143) if isinstance(stop, _Stopped) else ("interrupted", 130)
        kept = _how_to_go_on(getattr(options, "output", None))
        print(printable(f"asa-adapter: {what}; {kept}", sys.stderr), file=sys.stderr)
        return status
    # Whatever went wrong, in our code or in a library's, a shell wants one line; --debug shows the rest.
    except Exception as error:
        if options.debug:
            print(printable(traceback.format_exc(), sys.stderr), end="", file=sys.stderr)
        label = painted("error:", "red", sys.stderr)
        print(printable(f"asa-adapter: {label} {_error_line(error)}", sys.stderr), file=sys.stderr)
        return 2
    status = _print_result(_json_text(result) if options.json else text) if is_main else 0
    return status or int(options.command == "verify" and not result["equal"])


def _run_command(options: argparse.Namespace) -> tuple[Any, str, bool]:
    """The result of a command, as JSON types and in words, and whether this process prints it."""
    if options.command == "inspect":  # which needs no torch
        import asa_adapter.cli.inspect_command as inspection

        return *inspection.inspect(options), True
    if options.command == "diagnose" and options.url is not None:  # nor does this
        import asa_adapter.cli.diagnose_url_command as remote

        return *remote.diagnose(options), True
    if options.command == "diagnose" and options.model is None:
        raise ValueError("diagnose what? --model names a model to load, --url a server to ask")
    if options.command == "serve":
        import asa_adapter.cli.serve_command as service

        return *service.serve(options), True
    from asa_adapter.modeling.processes import launched_processes

    where = "verify_command" if options.command == "verify" else "commands"
    commands = importlib.import_module(f"asa_adapter.cli.{where}")
    with launched_processes() as processes:
        return *getattr(commands, options.command)(options), processes.is_main


@contextlib.contextmanager
def _stop_signal_raised() -> Iterator[None]:
    """Inside the `with` block SIGTERM, which batch systems send before they kill, raises `_Stopped`."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return

    def stop(*_: Any) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _how_to_go_on(output: str | None) -> str:
    """What is left of a command that was broken off, and how to go on."""
    if output is not None and (Path(output) / _LABELS).is_file():
        return f"finished splits are kept in {output}: run the same command to go on"
    stages = None if output is None else Path(output) / _STAGES
    if stages is None or not stages.is_dir():
        return "nothing was saved"
    return f"finished stages are kept in {stages}: run the same command to go on"


def _print_result(text: str) -> int:
    """Prints a command's result; the exit status, which tells of a closed pipe."""
    try:
        print(printable(text, sys.stdout), flush=True)
    except BrokenPipeError:  # as in `asa-adapter ... | head`; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Shows a warning of a command on stderr, in one line."""
    label = painted("warning:", "yellow", sys.stderr)
    print(printable(f"asa-adapter: {label} {' '.join(str(message).split())}", sys.stderr), file=sys.stderr)


def _json_text(result: Any) -> str:
    # Half a surrogate pair, which UTF-8 cannot encode, and what a terminal would obey are escapes of JSON here.
    return visible(json.dumps(result, ensure_ascii=False, allow_nan=False))


def _error_line(error: BaseException) -> str:
    """An error that ends a command, in one line."""
    text = " ".join(str(error).split())[:500]
    known = isinstance(error, ValueError | TypeError | OSError)
    return text if known and text else f"{type(error).__name__}: {text}"
