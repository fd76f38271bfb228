"""The process in which a query runs: a job on stdin, JSON and Arrow on stdout, a line of JSON on stderr if it fails.

It is a separate process because DuckDB's memory limit does not count single values (`repeat('x', 4e9)`) and its
interrupt does not stop their computation: only the system's limits and a kill bound every statement. `query` starts
this file by its path, without the caller's environment. The job comes in two lines: the statement, which is judged
here, under the same bounds as it will run, and answered with what it reads; then the files of just these tables.

The engine in which it runs is closed: no settings, no network, no file but those of tables that the caller's role may
see whole. Files of a table with masked columns or rows are read by a further process (`masking`), which hands over the
others alone: whatever the statement is, what is masked is nowhere within its reach.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import resource
import signal
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

if __name__ == "__main__" and len(sys.argv) > 1:
    sys.path.insert(0, sys.argv[1])  # an isolated process needs the package's path
    gc.set_threshold(50_000)  # it finds nothing among imported modules

from stedi._startup import bind_lazily, without_dataframes
from stedi.errors import QueryRefused, printable
from stedi.query import masking, scans, statement
from stedi.query.masking import Reader

if TYPE_CHECKING:
    import duckdb

ROWS_A_BATCH = 8_192
HEADROOM = 256 << 20
"""What the interpreter, Arrow and the engine's own uncounted buffers may take beyond the query's memory, in bytes."""


def connect(job: dict[str, Any], reader: Reader | None = None) -> duckdb.DuckDBPyConnection:
    """Returns an engine that holds the job's relations and can reach nothing else.

    Args:
        job: `relations` (name, files, columns, which of them are masked or left out), `reach` (statements after which
            objects of S3 can be read), `memory` in bytes, `threads` or null, `temporary` (a folder of this query
            alone) and `spill`, the bytes that may be written there.
        reader: Who reads the relations with masked columns.

    Raises:
        Failure: A file of a relation is missing, is not Parquet or has other columns.
    """
    import duckdb

    con = duckdb.connect(":memory:", config=scans.settings(job))
    plain = [relation for relation in job["relations"] if not scans.hides(relation)]
    files = [path for relation in plain for path in relation["files"]]
    for reaching in job["reach"] if files else ():
        con.execute(reaching)
    con.execute("set parquet_metadata_cache = true; set timezone = 'UTC'")
    con.execute(f"create schema {scans.SCHEMA}; set search_path = '{scans.SCHEMA}'")
    for number, relation in enumerate(job["relations"]):
        name = f"{scans.SCHEMA}.{scans.identifier(relation['name'])}"
        source = scans.read(relation)
        if reader is not None and scans.apart(relation):
            source = scans.identifier(f"masked {relation['name']}")
            con.register(f"masked {relation['name']}", reader.relation(relation | {"number": number}))
        try:
            con.execute(f"create view {name} as {scans.select(relation, source)}")
        except duckdb.Error as error:
            raise scans.Failure(scans.unreadable(error, relation)) from None
    # after the views, which open their files while they are made: a damaged one is named then
    con.execute(f"set allowed_paths = [{', '.join(map(scans.literal, files))}]")
    # last, since nothing can be set afterwards, not even by this program
    con.execute("set enable_external_access = false; set lock_configuration = true")
    return con


_EXCESS = re.compile(r"identifiers of the excess parameters: ([^,\s]+)")
_MISSING = re.compile(r"Values were not provided for the following prepared statement parameters: ([^,\s]+)")
_NO_COLUMN = re.compile(r'Referenced column "([^"]+)" not found|does not have a column named "([^"]+)"')


def bind_failure(error: Exception, job: dict[str, Any]) -> str:
    """Returns one line for an error found before any row was read, in DuckDB's own words unless a column is unknown.

    DuckDB knows only the columns that the statement names: it could not say which one was meant.
    """
    if unknown := _NO_COLUMN.search(str(error)):
        import difflib

        name = unknown[1] or unknown[2]
        tables = ", ".join(relation["name"] for relation in job["relations"])
        columns = {column.lower(): column for relation in job["relations"] for column, _ in relation["columns"]}
        near = difflib.get_close_matches(name.lower(), columns, n=1)
        meant = f": did you mean {columns[near[0]]}?" if near else "; `stedi describe TABLE` lists a table's columns"
        return printable(f"The query cannot run: no column {name}{f' in {tables}' if tables else ''}{meant}")
    if excess := _EXCESS.search(str(error)):
        return printable(
            f"The query cannot run: found a value for ${excess[1]}, but the statement has no such parameter"
        )
    if missing := _MISSING.search(str(error)):
        return printable(
            f"The query cannot run: found no value for ${missing[1]}: give it with --parameter NAME=VALUE, or with "
            "parameters= in Python"
        )
    words = re.split(r"\n\s*LINE \d+:|\n\s*Candidate functions:", str(error))[0]
    words = printable(re.sub(r"\s+", " ", words)).strip()
    return "The query cannot run: " + (words if len(words) <= 400 else words[:399] + "…")


def execute(job: dict[str, Any], out: BinaryIO, *, one_row: bool = False) -> None:
    """Writes the rows of the job's statement to `out`: a line of JSON, and one Arrow stream unless the line has them.

    Args:
        job: The job.
        out: A pipe.
        one_row: Whether the statement has one row at most. One of whole numbers is written without Arrow, whose import
            takes longer than it takes to count.

    Raises:
        Failure: The statement does not bind, or fails while it runs.
    """
    import duckdb

    reader = masking.start(job) if any(scans.apart(relation) for relation in job["relations"]) else None
    con = connect(job, reader)
    try:
        # Binding reads no rows, so its errors contain none; every later error is replaced by our own.
        values = given(job)
        try:
            if values is None:
                found: duckdb.DuckDBPyRelation | duckdb.DuckDBPyConnection = con.sql(job["sql"])
            else:  # a relation with values would keep every row in memory
                con.execute(f"explain {job['sql']}", values)
        except duckdb.Error as error:
            raise scans.Failure(bind_failure(error, job)) from None
        try:
            if values is not None:
                found = con.execute(job["sql"], values)
            columns = [(name, str(kind)) for name, kind, *_ in found.description]
            if one_row and all(kind in scans.WHOLE for _, kind in columns):
                out.write(json.dumps({"columns": columns, "rows": found.fetchall()}).encode() + b"\n")
                return
            out.write(b"null\n")
            import pyarrow as pa

            batches = found.to_arrow_reader(ROWS_A_BATCH)
            with pa.ipc.new_stream(out, batches.schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
        except Exception as error:
            # the reader has had enough
            if isinstance(error, BrokenPipeError):
                return
            raise scans.Failure(scans.run_time_failure(_cause(error), job)) from None
    finally:
        with contextlib.suppress(duckdb.Error):
            con.close()


def given(job: dict[str, Any]) -> list[Any] | dict[str, Any] | None:
    """Returns the values of the statement's parameters, by place or by name; None if it may have none."""
    values = job.get("parameters")
    if isinstance(values, dict):
        return {name: _value(value) for name, value in values.items()}
    return None if values is None else [_value(value) for value in values]


def _value(plain: Any) -> Any:
    """Returns a value as `query.plain` has made it fit for JSON."""
    if not isinstance(plain, list):
        return plain
    kind, text = plain
    return (datetime if kind == "instant" else date).fromisoformat(text)


def _cause(error: Exception) -> Exception:
    """Returns the engine's error inside one of Arrow: `OSError: Conversion Error: ...`."""
    import duckdb

    words = {
        "Out of Memory": "OutOfMemory",
        "Conversion": "Conversion",
        "Out of Range": "OutOfRange",
        "INTERRUPT": "Interrupt",
    }
    found = _WRAPPED.match(str(error))
    if found is None or isinstance(error, duckdb.Error):
        return error
    kind: type[Exception] = getattr(duckdb, f"{words[found[1]]}Exception")
    return kind(str(error))


_WRAPPED = re.compile(r"(?:[\w ]{1,40}: )?(Out of Memory|Conversion|Out of Range|INTERRUPT) Error:")


def limit(job: dict[str, Any]) -> None:
    """Sets the system's limits for this process: memory, processor seconds, no core file.

    Linux counts private memory (`RLIMIT_DATA`); macOS does not, so only the engine's limit applies there.
    """
    threads = job["threads"] or os.cpu_count() or 1
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    # the system counts the stacks of all threads as the process's memory
    stacks = threads * (stack if 0 < stack < 64 << 20 else 8 << 20)
    memory = job["memory"] + job["memory"] // 2 + stacks + HEADROOM
    wanted = {
        resource.RLIMIT_DATA: memory,
        # The parent kills on time; this ends a query whose parent has died.
        resource.RLIMIT_CPU: int(job["seconds"] * threads) + 60,
        resource.RLIMIT_CORE: 0,
    }
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(which, (bound, bound))


def call(job: dict[str, Any]) -> Any:
    """Returns a function's result for the job's arguments, within the job's limits."""
    module, _, name = job["call"].partition(":")
    return getattr(importlib.import_module(module), name)(*job["args"])


def judge(job: dict[str, Any]) -> statement.Judgement:
    """Returns what the job's statement reads."""
    if job.get("condition"):
        return statement.judge_condition(job["sql"])
    return statement.judge(job["sql"], parameters=job.get("parameters") is not None)


def told(judged: statement.Judgement) -> bytes:
    """Returns a line with the names of the tables and columns that a statement reads, with null for all columns."""
    columns = None if judged.columns is None else sorted(judged.columns)
    return json.dumps({"tables": sorted(judged.tables), "columns": columns}).encode() + b"\n"


def main(source: BinaryIO, out: BinaryIO) -> int:
    """Does the job that `source` holds and returns the exit code: 0 all is written, 1 it failed or was refused."""
    job = json.loads(source.readline())
    sys.path[:] = job["path"]
    try:
        limit(job)
        if "call" in job:
            out.write(json.dumps(call(job)).encode())
            return 0
        judged = judge(job)
        out.write(told(judged))
        # without it, only the judgement was asked for, or the caller has refused the tables
        if more := source.readline():
            execute(job | json.loads(more), out, one_row=judged.one_row)
    except Exception as error:
        refused = isinstance(error, QueryRefused)
        words = str(error) if refused or isinstance(error, scans.Failure) else scans.run_time_failure(error, job)
        sys.stderr.write(json.dumps({"refused" if refused else "failure": words}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    bind_lazily()
    without_dataframes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Stdout is for the Arrow stream only: all other output goes to stderr.
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    code = main(sys.stdin.buffer, stream)
    sys.stderr.flush()
    # Threads of the engine need no farewell, and a big result no freeing.
    os._exit(code)
