"""A process that runs the command line under odd conditions, each run in its own child process.

As a program it imports everything once, reads jobs as JSON lines from stdin, forks for each, and answers with the
child's exit code and output. Starting a new Python for each of hundreds of runs would take minutes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import sweep_mutants


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    if os.path.isfile(job["lake"]):
        os.remove(job["lake"])
    shutil.rmtree(job["lake"], ignore_errors=True)
    shutil.copytree(job["template"], job["lake"])
    for command in job["before"]:
        os.system(command)
    out, errors = folder / "out", folder / "err"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = _child(job, out, errors)
        except BaseException:
            errors.write_text(errors.read_text() + "driver: " + traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    for command in job["after"]:
        os.system(command)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": out.read_text(errors="replace"),
        "err": errors.read_text(errors="replace"),
    }


def _child(job: dict[str, Any], out: Path, errors: Path) -> int:
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, str(out), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, str(errors), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        descriptor = os.open(name, flags, 0o666)
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    if job["unlisted"]:
        import pwd

        def unknown(_: object) -> None:
            raise KeyError("no such user")

        pwd.getpwuid = unknown  # type: ignore[assignment]
    if job["user"]:
        os.setgroups([])
        os.setgid(job["user"])
        os.setuid(job["user"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        how = job["streams"].get(name)
        if how == "closed":
            os.close(number)
            setattr(sys, name, None)
            continue
        if how == "full":
            os.dup2(os.open("/dev/full", os.O_RDWR), number)
        elif how == "gone":
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, number)
            os.close(write)
        stream = open(number, mode, encoding=job["encoding"], errors="strict", closefd=False)  # noqa: SIM115
        if name == "stderr":
            stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[attr-defined]
        setattr(sys, name, stream)
    for module in job["missing"]:
        for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            del sys.modules[name]
        sys.modules[module] = None  # type: ignore[assignment]
    sys.argv = ["stedi", *job["words"]]
    from stedi import cli

    code = cli.script()
    # as the interpreter does at exit
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            return 120
    return code


_KNOWN = ("duckdb", "fastavro", "pyarrow.parquet", "pyiceberg.catalog.sql", "pyiceberg.io.pyarrow", "sqlglot")
_OWN = (
    *("audit.integrity", "audit.proof", "cli.tables", "context.seen", "datasets.card", "datasets.croissant"),
    *("datasets.options", "datasets.quality", "datasets.seal", "datasets.staleness", "erasure", "lake", "landing"),
    *("operations.maintenance.compaction", "query.execution", "query.withdrawn", "schema.descriptions"),
    "transform.planning",
)
"""Modules that most runs import; none of them imports at load time a module that a run removes."""


def main() -> None:
    for name in (*_KNOWN, *(f"stedi.{name}" for name in _OWN)):
        importlib.import_module(name)
    sweep_mutants.apply()
    gc.freeze()  # otherwise each fork copies memory that it only reads
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        answer = run(json.loads(line), folder)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
