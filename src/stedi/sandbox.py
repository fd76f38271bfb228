"""The process in which a query runs: a job on stdin, Arrow on stdout, one line of JSON on stderr if it fails.

A process of its own, because DuckDB's memory limit does not count what a single value takes (`repeat('x', 4e9)`) and
its interrupt does not reach into one: only the system's limits and a kill bound every statement. `query` starts this
file by its path, without the caller's environment, so it imports nothing of the package. What it is given has been
read and judged by `query`; here the engine itself is closed: no file but the tables', no network, no settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import duckdb

SCHEMA = "stedi"
ROWS_A_BATCH = 8_192
HEADROOM = 256 << 20
"""What the interpreter, Arrow and the engine's own uncounted buffers may take beyond the query's memory, in bytes."""


class Failure(Exception):
    """A query that fails, in one line that holds no value of any row."""


def literal(text: str) -> str:
    """Returns `text` as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Returns `name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def connect(job: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """Returns an engine that holds the job's relations and can reach nothing else.

    Args:
        job: `relations` (name, files, columns, and which of them are masked), `reach` (statements after which objects
            of S3 can be read), `memory` in bytes, `threads` or null,
            `temporary` (a folder of this query alone) and `spill`, the bytes that may be written there.

    Raises:
        Failure: A file of a relation is missing, is not Parquet or has other columns.
    """
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        "python_enable_replacements": False,
        "memory_limit": f"{job['memory']}B",
        "temp_directory": job["temporary"],
        "max_temp_directory_size": f"{job['spill']}B",
    }
    if job["threads"] is not None:
        config["threads"] = job["threads"]
    con = duckdb.connect(":memory:", config=config)
    for statement in job["reach"]:
        con.execute(statement)
    con.execute(
        f"set parquet_metadata_cache = true; set timezone = 'UTC'; create schema {SCHEMA}; set search_path = '{SCHEMA}'"
    )
    files = [path for relation in job["relations"] for path in relation["files"]]
    for relation in job["relations"]:
        try:
            con.execute(f"create view {SCHEMA}.{identifier(relation['name'])} as {_select(relation)}")
        except duckdb.Error as error:
            raise Failure(_unreadable(error, relation)) from None
    con.execute(f"set allowed_paths = [{', '.join(map(literal, files))}]")
    con.execute("set enable_external_access = false; set lock_configuration = true")
    return con


def _select(relation: dict[str, Any]) -> str:
    columns = [(identifier(name), kind) for name, kind in relation["columns"]]
    if not relation["files"]:
        return f"select {', '.join(f'null::{kind} as {name}' for name, kind in columns)} where false"
    files = ", ".join(map(literal, relation["files"]))
    masked = set(map(identifier, relation["masked"]))
    values = [(name, kind, "null" if name in masked else name) for name, kind in columns]
    return (
        f"select {', '.join(f'{value}::{kind} as {name}' for name, kind, value in values)} "
        f"from read_parquet([{files}], hive_partitioning = false)"
    )


def _unreadable(error: Exception, relation: dict[str, Any]) -> str:
    text = str(error)
    named = next((path for path in relation["files"] if path in text), None)
    where = f"{relation['name']}, file {named}" if named else f"{relation['name']}"
    return (
        f"Cannot read {where}: expected a Parquet file with the table's columns, "
        f"found {_kind(error)}. Run `stedi audit`."
    )


def _kind(error: Exception) -> str:
    """Returns what went wrong, in words that hold nothing of DuckDB's message."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removesuffix("Exception")).lower()
    return f"an error of kind {words}" if words != "error" else "an error"


_HINTS = {
    "OutOfMemoryException": "it needs more memory than it may have ({memory}). Read fewer rows, or raise the limit.",
    "ConversionException": "a value could not be converted{target}. Use try_cast, or leave such rows out with a where.",
    "OutOfRangeException": "a number left the range of its type. Cast to a wider type first.",
    "InterruptException": "it was interrupted.",
    "PermissionException": "a query has no reach beyond the lake's tables.",
}


def run_time_failure(error: Exception, job: dict[str, Any]) -> str:
    """Returns one line for an error that came while rows were read.

    DuckDB's own words show the value that it stumbled over, so nothing of them is kept but the name of a type.
    """
    text = str(error)
    found = re.search(
        r"(?:to|type) ((?:U?INT|FLOAT|DOUBLE|BOOL|DATE|TIME|DECIMAL|INTERVAL|UUID|BIT)[A-Z0-9]*)\b(?!')", text
    )
    target = f" to {found[1]}" if found else ""
    hint = _HINTS.get(type(error).__name__)
    if isinstance(error, MemoryError) or "llocation failure" in text:
        hint = _HINTS["OutOfMemoryException"]
    if hint is not None:
        return "The query failed: " + hint.format(memory=f"{job['memory'] // 1_000_000:,} MB", target=target)
    for relation in job["relations"]:
        for path in relation["files"]:
            if path in text:
                return f"The query failed: {relation['name']}: cannot read {path}. Run `stedi audit`."
    return f"The query failed while it ran, with {_kind(error)}; its words may hold data and are left out."


def bind_failure(error: Exception) -> str:
    """Returns one line for an error found before any row was read, in DuckDB's own words."""
    words = re.split(r"\n\s*LINE \d+:|\n\s*Candidate functions:", str(error))[0]
    words = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in words)).strip()
    return "The query cannot run: " + (words if len(words) <= 400 else words[:399] + "…")


def execute(job: dict[str, Any], out: BinaryIO) -> None:
    """Writes the rows of the job's statement to `out` as one Arrow stream.

    Raises:
        Failure: The statement does not bind, or fails while it runs.
    """
    import duckdb
    import pyarrow as pa

    con = connect(job)
    try:
        # Binding reads no rows, so the words of its errors hold none; every later error is replaced by our own.
        try:
            relation = con.sql(job["sql"])
        except duckdb.Error as error:
            raise Failure(bind_failure(error)) from None
        try:
            reader = relation.to_arrow_reader(ROWS_A_BATCH)
            with pa.ipc.new_stream(out, reader.schema) as stream:
                for batch in reader:
                    stream.write_batch(batch)
        except (duckdb.Error, pa.ArrowException, MemoryError, OSError, RuntimeError) as error:
            if isinstance(error, BrokenPipeError):
                return
            raise Failure(run_time_failure(_cause(error), job)) from None
    finally:
        with contextlib.suppress(duckdb.Error):
            con.close()


def _cause(error: Exception) -> Exception:
    """Returns the engine's error under one that Arrow has wrapped: `OSError: Conversion Error: ...`."""
    import duckdb

    words = {
        "Out of Memory": "OutOfMemory",
        "Conversion": "Conversion",
        "Out of Range": "OutOfRange",
        "INTERRUPT": "Interrupt",
    }
    for start, name in words.items():
        if not isinstance(error, duckdb.Error) and f"{start} Error:" in str(error)[:200]:
            kind: type[Exception] = getattr(duckdb, f"{name}Exception")
            return kind(str(error))
    return error


def limit(job: dict[str, Any]) -> None:
    """Sets the system's own limits on this process: memory, processor seconds, no core file.

    Linux counts private memory (`RLIMIT_DATA`); macOS does not, there the engine's own limit stands alone.
    """
    threads = job["threads"] or os.cpu_count() or 1
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
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


def main(source: BinaryIO, out: BinaryIO) -> int:
    """Runs the job that `source` holds and returns the exit code: 0 all rows are written, 1 the query failed."""
    job = json.loads(source.read())
    sys.path[:] = job["path"]
    try:
        limit(job)
        execute(job, out)
    except Exception as error:
        words = str(error) if isinstance(error, Failure) else run_time_failure(error, job)
        sys.stderr.write(json.dumps({"failure": words}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Stdout belongs to the Arrow stream alone: whatever else prints goes to stderr.
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    code = main(sys.stdin.buffer, stream)
    sys.stderr.flush()
    # Threads of the engine need no farewell, and a big result no freeing.
    os._exit(code)
