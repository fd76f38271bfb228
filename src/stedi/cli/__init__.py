"""The command line: parse, call one function, print.

Results go to stdout, messages and progress to stderr; docs/operations.md lists the exit codes. With
`--json` every command prints one JSON document on stdout, errors included.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from stedi._startup import bind_lazily, without_dataframes
from stedi.cli import hooks, pipeline, terminal
from stedi.cli.commands import asked_for_help, named, parser
from stedi.errors import MissingExtra, StediError, UsageError, unnamed

__all__ = ["main", "parser", "run", "script"]

_OBJECTS = 50_000
"""How many new objects start a garbage collection: it finds nothing among imported modules."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_INTERRUPTED = 130  # as in a shell, for processes ended by SIGINT
_EXTRAS = {
    **dict.fromkeys(("boto3", "botocore", "s3transfer", "duckdb_extension_httpfs"), "aws"),
    **dict.fromkeys(("pyspark", "py4j"), "spark"),
    **dict.fromkeys(("psycopg2", "sqlalchemy"), "postgres"),
}
"""The extra with each optional module."""
_OPTIONS = {"name": "NAME", "handle": "--show", "named": "--verify"}
"""What the command line calls those arguments that are no option of the same name."""
_FILES = {
    "output": "--output",
    "target": "DST",
    "rejects": "--rejects",
    "report": "--report",
    "letter": "--letter",
    "metrics_file": "--metrics-file",
}
"""The arguments that name a file to write."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = asked_for_help(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parser(named(words)).parse_args(words)
    except SystemExit as stop:
        if stop.code == 2 and "--json" in words:
            message = "wrong usage: see the message on stderr, or --help"
            terminal.document({"error": {"type": "UsageError", "message": message, "exit": 2}})
        raise
    terminal.colour(getattr(options, "color", "auto"))
    os.umask(0o077)  # files of a lake are private to its owner
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a letter that the locale lacks is no failure
    try:
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        _refuse_places(options)
        code = hooks.run(options)
        return terminal.finished(code)
    except UsageError as error:
        option = _OPTIONS.get(error.argument, f"--{error.argument.replace('_', '-')}")
        return _fail(options, error.on_command_line(option), error.exit_code, type(error).__name__)
    except StediError as error:
        return _fail(options, str(error), error.exit_code, type(error).__name__)
    except KeyboardInterrupt:
        return _fail(options, f"interrupted: {pipeline.after_interrupt(options)}", _INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output has gone; Python must not complain again at exit
        terminal.redirect_to_null(sys.stdout)
        return terminal.UNREAD
    except terminal.StdoutLost:
        return terminal.finished(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(options, f"{where}{error.strerror or type(error).__name__}; nothing half-written is visible", 1)
    except Exception as error:
        if os.environ.get("STEDI_DEBUG"):
            raise
        if isinstance(error, ModuleNotFoundError) and (needed := _EXTRAS.get((error.name or "").partition(".")[0])):
            package = (error.name or "").partition(".")[0].replace("botocore", "boto3")
            missing = MissingExtra(f"this needs {package}, which is not installed: pip install 'stedi[{needed}]'")
            return _fail(options, str(missing), missing.exit_code, type(missing).__name__)
        # its text and traceback could hold a customer's data
        import traceback

        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return _fail(options, f"unforeseen {type(error).__name__} at {place}; set STEDI_DEBUG=1 to see all of it", 1)
    finally:
        hooks.close()


def script() -> int:
    """Runs one command as the whole process, and returns its exit code."""
    gc.set_threshold(_OBJECTS)
    bind_lazily()
    without_dataframes()
    argparse._ = str  # type: ignore[attr-defined] # else it looks for a translation of each of its words on disk
    terminal.open_streams()
    terminal.patient_stderr()
    try:
        code = main()
    except SystemExit as stop:  # help, the version, or bad usage
        code = stop.code if isinstance(stop.code, int) else 0
    code = terminal.finished(code)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the work is done: the exit code says how
    return code


def run() -> NoReturn:
    """Runs `script` and ends the process, as `multiprocessing` ends its own: without taking Python apart.

    That would take a third of a second, and has to free what DuckDB keeps of Python before Python itself is gone:
    otherwise 3.14 aborts.
    """
    code = script()
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads; multiprocessing calls it, too
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # what could not be written is in the exit code
            stream.flush()
    os._exit(code)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, but not while a module is imported: then the signal is repeated a moment later.

    An interrupted import can leave Python's import lock held, so that other threads wait forever, and its caller can
    take the interrupt for a missing module, or lose it.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _refuse_places(options: argparse.Namespace) -> None:
    """Refuses output files of a command in a lake or in a bucket."""
    files = {what: path for name, what in _FILES.items() if (path := getattr(options, name, None)) is not None}
    if files:
        from stedi.context import places  # reads catalogs: `--help` does without
        from stedi.storage import s3

        for what, path in files.items():
            if s3.is_remote(path):
                raise UsageError(f"{what}: expected a file on this machine, found {s3.at(path)}; nothing was done")
            places.refuse_into_lake(path)


def _fail(options: argparse.Namespace, message: str, code: int, kind: str = "") -> int:
    message = terminal.worded(unnamed(message))
    terminal.say(f"stedi: {message}")
    if pipeline.wants_json(options):
        terminal.document({"error": {"type": kind, "message": message, "exit": code}})
    return code
