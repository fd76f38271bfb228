"""Read-only SQL over the lake's tables, in a closed sandbox.

A statement is parsed by DuckDB's own parser and judged on its tree: one SELECT, over tables that the caller
resolved to files, with functions that reach nothing else. It then runs in a process of its own (`sandbox`), where the
engine is closed as well and the system bounds memory and time. Rows come back as a stream of Arrow batches.
What the sandbox promises is section 9 of the design.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi import sandbox
from stedi.errors import QueryFailed, QueryRefused

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import pyarrow as pa

MAX_SQL = 1_000_000
"""The longest statement that is read, in characters."""

_ALLOWED = "A query is one SELECT over the lake's tables"

_TABLE_FUNCTIONS = frozenset(
    {"generate_series", "json_each", "json_tree", "pg_timezone_names", "range", "repeat", "repeat_row", "unnest"}
)

_FORBIDDEN_FUNCTION = re.compile(
    r"(__internal.*|arrow_scan.*|combine|current_setting|currval|duckdb_.*|finalize|format_type|get_block_size|getenv"
    r"|getvariable|glob|json_execute.*|json_serialize_plan|nextval|parquet_.*|pg_get_.*|pg_sleep|pragma_.*|query.*"
    r"|read_.*|sleep_ms|sniff_.*|stats|vector_type|which_secret|write_log|.*_scan)"
)

_FROM = frozenset(
    {"BASE_TABLE", "EMPTY", "EMPTY_FROM", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)

_LIBRARIES = {name: value for name, value in os.environ.items() if name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")}
"""All that the worker sees of the caller's environment: where an interpreter may need to find its libraries."""

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


@dataclass(frozen=True, slots=True)
class Relation:
    """A table of the lake as a query sees it: fixed files, fixed columns.

    Attributes:
        name: The table's name in SQL.
        files: Absolute paths of Parquet files; none make an empty table.
        columns: Name and DuckDB type of each column, in order.
    """

    name: str
    files: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take.

    Attributes:
        memory: Memory of the engine, as in `512MB` or `2GiB`; beyond it, rows go to a temporary folder.
        seconds: Wall seconds that the query may work; the time in which its reader does not ask for rows is free.
        threads: Threads of the engine; None for one a core.
        spill: Bytes that may be written to the temporary folder, as `memory`.
    """

    memory: str = "512MB"
    seconds: float = 300.0
    threads: int | None = None
    spill: str = "10GB"

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.seconds > 1e6:
            raise QueryRefused(f"A query's seconds: expected more than 0 and at most 1,000,000, found {self.seconds}.")
        if self.threads is not None and not 0 < self.threads <= 1024:
            raise QueryRefused(f"A query's threads: expected 1 to 1,024, found {self.threads}.")
        if size(self.memory) < 16 << 20:
            raise QueryRefused(f"A query's memory: expected at least 16 MiB, found {self.memory}.")
        size(self.spill)


def size(text: str) -> int:
    """Returns a size such as `512MB` or `2 GiB` in bytes.

    Raises:
        QueryRefused: It is not a number with a unit.
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise QueryRefused(f"A size: expected a number with a unit, as in 512MB or 2GiB, found {_shown(text)}.")
    return int(float(found[1]) * _UNITS[found[2]])


def referenced(sql: str) -> frozenset[str]:
    """Returns the lower-case names of the tables that a statement may read, those of its own CTEs included.

    Args:
        sql: One SELECT in DuckDB's dialect.

    Returns:
        Names; one that is no table of the lake may be among them.

    Raises:
        QueryRefused: The statement is not one that the sandbox runs.
    """
    return frozenset(name for _, name in _judge(_parse(sql)))


def run(sql: str, relations: Iterable[Relation], limits: Limits | None = None, temporary: Path | None = None) -> Result:
    """Starts a query and returns its rows as they come.

    Args:
        sql: One SELECT in DuckDB's dialect; `timestamptz` is shown in UTC.
        relations: The tables that it may read, under their names or `stedi.<name>`.
        limits: What it may take.
        temporary: A folder in which a folder of this query's own is made, and removed in the end; the system's
            temporary folder if None.

    Returns:
        The open result: close it, or use it in a `with`.

    Raises:
        QueryRefused: The statement is not one that the sandbox runs; nothing was done.
        QueryFailed: It does not bind, or fails before its first row.
    """
    limits = limits or Limits()
    given = {relation.name.lower(): relation for relation in relations}
    reads = _judge(_parse(sql), frozenset(given))
    used = [given[name] for name in sorted({name for _, name in reads} & given.keys())]
    worker = _Worker(sql, used, limits, temporary)
    try:
        return Result(worker, worker.open())
    except BaseException:
        worker.close()
        raise


class Result:
    """The rows of a query, read once, as they come.

    Attributes:
        reader: The rows as a `pyarrow.RecordBatchReader`; reading raises `QueryFailed` when the query fails.
    """

    __slots__ = ("_worker", "reader")

    def __init__(self, worker: _Worker, reader: pa.RecordBatchReader) -> None:
        self._worker = worker
        self.reader = reader

    @property
    def schema(self) -> pa.Schema:
        """The columns' names and Arrow types."""
        return self.reader.schema

    def to_arrow(self) -> pa.Table:
        """Returns the rows that have not been read yet as one table, and closes the result.

        Raises:
            QueryFailed: The query fails on the way.
        """
        with self:
            return self.reader.read_all()

    def close(self) -> None:
        """Ends the query if it still runs, and removes its temporary folder; more than once does no harm."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return iter(self.reader)


def _shown(text: str) -> str:
    """Returns the caller's own words, short and safe to print."""
    safe = "".join(c if c.isprintable() else "?" for c in text)
    return f"'{safe}'" if len(safe) <= 60 else f"'{safe[:59]}…'"


def _parse(sql: str) -> dict[str, Any]:
    """Returns the tree of the one SELECT that `sql` is, as DuckDB's parser writes it in JSON.

    The parser runs alone: nothing is bound or looked up, and the connection could reach no file if it were.
    """
    if len(sql) > MAX_SQL:
        raise QueryRefused(f"The statement is too long: expected at most {MAX_SQL:,} characters, found {len(sql):,}.")
    if "\0" in sql or not _is_unicode(sql):
        raise QueryRefused("The statement holds characters that are not text: expected UTF-8 without NUL.")
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "lock_configuration": True,
        "python_enable_replacements": False,
        "threads": 1,
    }
    with duckdb.connect(":memory:", config=config) as con:
        row = con.execute(
            "select json_serialize_sql(?::varchar, skip_null := true, skip_empty := true, skip_default := true)", [sql]
        ).fetchone()
    assert row is not None
    try:
        tree = json.loads(row[0])
    except RecursionError:
        raise QueryRefused("The statement is nested too deeply. Split it with WITH.") from None
    if tree["error"]:
        if tree.get("error_type") == "not implemented":
            raise QueryRefused(f"{_ALLOWED}, found another kind of statement (or PIVOT without IN). Nothing was run.")
        words = re.sub(r"\s+", " ", str(tree.get("error_message", "")))
        raise QueryRefused(f"The statement is not SQL that can be read: {words[:300]}")
    statements = tree["statements"]
    if len(statements) != 1:
        found = "several statements" if statements else "no statement"
        raise QueryRefused(f"{_ALLOWED}, found {found}. Nothing was run.")
    first: dict[str, Any] = statements[0]
    return first


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _judge(tree: dict[str, Any], tables: frozenset[str] | None = None) -> frozenset[tuple[str, str]]:
    """Returns the (schema, table) pairs that a tree reads, lower-case.

    Args:
        tree: A SELECT as `_parse` gives it.
        tables: The tables that it may read; None to read any.

    Raises:
        QueryRefused: The tree reaches beyond the lake's tables.
    """
    reads: set[tuple[str, str]] = set()
    todo: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while todo:
        node, scope = todo.pop()
        if isinstance(node, list):
            todo.extend((child, scope) for child in node)
        if not isinstance(node, dict):
            continue
        scope |= _defined(node)
        match node.get("type"):
            case "BASE_TABLE":
                reads.add(_table(node, scope, tables))
            case "TABLE_FUNCTION":
                name = str(node.get("function", {}).get("function_name", "")).lower()
                if name not in _TABLE_FUNCTIONS:
                    raise QueryRefused(
                        f"{_ALLOWED}; the table function {_shown(name)} is not run: no files, no network, no settings."
                    )
            case "SHOW_REF" if "query" not in node:
                raise QueryRefused(f"{_ALLOWED}; SHOW is not run. `stedi tables` lists the tables.")
        if node.get("class") in ("FUNCTION", "WINDOW"):
            name = str(node.get("function_name", "")).lower()
            if _FORBIDDEN_FUNCTION.fullmatch(name):
                raise QueryRefused(
                    f"{_ALLOWED}; the function {_shown(name)} is not run: no files, no network, no settings."
                )
        if node.get("class") == "PARAMETER":
            raise QueryRefused(f"{_ALLOWED}; parameters such as ? or $1 have no value here.")
        source = node.get("from_table")
        if isinstance(source, dict) and source.get("type") not in _FROM:
            raise QueryRefused(f"{_ALLOWED}; its FROM holds something else.")
        todo.extend((child, scope) for child in node.values())
    return frozenset(reads)


def _defined(node: dict[str, Any]) -> frozenset[str]:
    """Returns the names that a node gives to its own WITH parts."""
    ctes = node.get("cte_map")
    names = [entry.get("key") for entry in ctes.get("map", ())] if isinstance(ctes, dict) else []
    if str(node.get("type", "")).endswith("CTE_NODE"):
        names += [node.get("cte_name"), node.get("ctename")]
    return frozenset(str(name).lower() for name in names if name)


def _table(node: dict[str, Any], scope: frozenset[str], tables: frozenset[str] | None) -> tuple[str, str]:
    catalog, schema, name = (str(node.get(key, "")).lower() for key in ("catalog_name", "schema_name", "table_name"))
    if "at_clause" in node:
        raise QueryRefused(f"{_ALLOWED}; AT is not run. `stedi query --at` reads the lake as it was.")
    if catalog or schema not in ("", sandbox.SCHEMA, "recurring"):
        raise QueryRefused(f"{_ALLOWED}; there is no schema beside {_shown(sandbox.SCHEMA)}.")
    known = schema != sandbox.SCHEMA and name in scope
    if not known and tables is not None and (name not in tables or schema == "recurring"):
        raise QueryRefused(
            f"{_ALLOWED}; {_shown(name)} is none of them, and files are not read. `stedi tables` lists them."
        )
    return schema, name


class _Pipe(io.RawIOBase):
    """The worker's output, read against the query's budget of time."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor = descriptor
        self._left = seconds
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN | select.POLLHUP)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        start = time.monotonic()
        # Milliseconds as a C integer: a day at a time is enough, the loop asks again.
        while not self._poll.poll(min(max(self._left, 0.0) * 1000, 86_400_000)):
            self._left -= time.monotonic() - start
            start = time.monotonic()
            if self._left <= 0:
                raise TimeoutError
        self._left -= time.monotonic() - start
        return os.readv(self._descriptor, [buffer])


class _Worker:
    """The process of one query, its pipes and its temporary folder."""

    def __init__(self, sql: str, relations: list[Relation], limits: Limits, temporary: Path | None) -> None:
        self._limits = limits
        folder = tempfile.mkdtemp(prefix="stedi-query-", dir=temporary)
        job = {
            "sql": sql,
            "relations": [
                {"name": relation.name.lower(), "files": relation.files, "columns": relation.columns}
                for relation in relations
            ],
            "memory": size(limits.memory),
            "spill": size(limits.spill),
            "seconds": limits.seconds,
            "threads": limits.threads,
            "temporary": folder,
            "path": sys.path,
        }
        try:
            # The words of the engine's last breath may hold data, so stderr is a file that nobody else reads.
            self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-W", "ignore", sandbox.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=folder,
                env=_LIBRARIES | {"HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._end = weakref.finalize(self, _end, self._process, self._errors, folder)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(json.dumps(job).encode())

    def open(self) -> pa.RecordBatchReader:
        """Returns the worker's rows once it has said which columns they have."""
        import pyarrow as pa

        assert self._process.stdout is not None
        pipe = io.BufferedReader(_Pipe(self._process.stdout.fileno(), self._limits.seconds), 1 << 20)
        with self._translated():
            stream = pa.ipc.open_stream(pa.PythonFile(pipe, "r"))
        return pa.RecordBatchReader.from_batches(stream.schema, self._batches(stream))

    def _batches(self, stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while True:
            with self._translated():
                try:
                    batch = stream.read_next_batch()
                except StopIteration:
                    # A stream that was cut ends like one that is whole: only the exit code tells them apart.
                    self._finish()
                    return
            yield batch

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except TimeoutError:
            self.close()
            raise QueryFailed(
                f"The query was stopped: it worked longer than it may ({self._limits.seconds:,g} s). "
                "Read fewer rows, or raise the limit."
            ) from None
        except (pa.ArrowException, OSError, ValueError, AttributeError):
            self._finish()
            raise QueryFailed("The query was stopped before its last row. Run it again.") from None

    def _finish(self) -> None:
        """Waits for the worker's end and raises what it says, if it has not written every row."""
        if not self._end.alive:
            raise QueryFailed("The query was closed before its last row.")
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.close()
            raise QueryFailed("The query was stopped: it did not end after its last row. Run it again.") from None
        self._errors.seek(0)
        said = self._errors.read(100_000).decode("utf-8", "replace")
        self.close()
        if code == 0:
            return
        for line in said.splitlines():
            with contextlib.suppress(ValueError):
                said_so = json.loads(line)
                if isinstance(said_so, dict) and "failure" in said_so:
                    raise QueryFailed(str(said_so["failure"]))
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        raise QueryFailed(
            f"The query was stopped: its process ended with {how}, most likely for want of memory "
            f"({self._limits.memory}). Read fewer rows or columns, or raise the limit."
        )

    def close(self) -> None:
        self._end()


def _end(process: subprocess.Popen[bytes], errors: Any, folder: str) -> None:
    """Ends a worker, which may have ended already, and removes what it left."""
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    errors.close()
    shutil.rmtree(folder, ignore_errors=True)
