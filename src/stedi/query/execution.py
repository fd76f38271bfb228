"""Runs a query in a process of its own and returns its rows.

The process validates the statement (`sandbox`, `statement`) and returns the names of its tables. The caller resolves
the names to fixed files. The process then runs the statement and returns its rows as a stream of Arrow batches through
a pipe, or a row of counts as JSON. When a query is done, stopped or dropped, no process and no file is left.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi._frozen import dataclass, field
from stedi.engines import isolation
from stedi.errors import QueryFailed, QueryRefused, UsageError
from stedi.query.result import Few, LeftOut, Result
from stedi.query.statement import Judgement, folded, shown
from stedi.storage import config, durable, s3

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class QueryTable:
    """A table of the lake as a query sees it, with fixed files and fixed columns.

    Attributes:
        name: The table's name in SQL.
        files: Absolute paths of Parquet files; if there are none, the table is empty.
        columns: Name and DuckDB type of each column, in order.
        masked: Names of the columns that are null in every row.
        places: Whether each row also has its file and its row number in that file (`scans.FILE`, `scans.ROW`).
        without: The pseudonyms of people whose rows are left out, and how many rows each has; only for a table with a
            column `customer_id`.
    """

    name: str
    files: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    masked: frozenset[str] = frozenset()
    places: bool = False
    without: Mapping[str, int] = field(default_factory=dict)


Value = None | bool | int | float | str | datetime | date
"""The value of a statement's parameter; a `datetime` without a time zone is in UTC."""
Parameters = Sequence[Value] | Mapping[str, Value]
"""The values of a statement's parameters: a sequence for `?`, a mapping for `$name`."""
Resolve = Callable[[frozenset[str]], Iterable[QueryTable]]
"""Returns the tables with these lower-case names; unknown names are skipped."""
Ended = Callable[[str, int], None]
"""Called once, with how a query ended (`done`, `stopped`, `failed` or `refused`) and its number of rows."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one query.

    Attributes:
        memory: Memory of the engine, such as `512MB` or `2GiB`; rows that do not fit go to a temporary folder.
        seconds: Seconds of wall time that the query may run; time in which its reader requests no rows does not count.
        threads: Threads of the engine; None for one per core.
        spill: Bytes that may be written to the temporary folder, in the format of `memory`.
    """

    memory: str = "512MB"
    seconds: float = 300.0
    threads: int | None = None
    spill: str = "10GB"

    def __post_init__(self) -> None:
        # `not ... > 0` refuses NaN, too
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
    found = config.size(text)
    if found is None:
        raise QueryRefused(f"A size: expected a number with a unit, as in 512MB or 2GiB, found {shown(text)}.")
    return found


def run(
    sql: str,
    relations: Iterable[QueryTable] | Resolve,
    limits: Limits | None = None,
    temporary: Path | None = None,
    *,
    condition: bool = False,
    parameters: Parameters | None = None,
    ended: Ended = lambda how, rows: None,
) -> Result:
    """Starts a query and returns its rows as a stream.

    Args:
        sql: One SELECT in DuckDB's dialect; `timestamptz` is shown in UTC.
        relations: The tables that it may read, as `<name>` or `stedi.<name>`; or a function that returns them for
            the names in the statement.
        limits: The query's limits; they include validation.
        temporary: A folder in which the query makes its own folder, which is removed at the end; the system's
            temporary folder if None.
        condition: Whether the statement must be exactly one that `statement.condition` has made.
        parameters: The values of its parameters: a sequence for `?`, a mapping for `$name`.
        ended: Called with how the query ended, whether its result is read, closed or dropped.

    Returns:
        The open result: close it, or use it in a `with`.

    Raises:
        QueryRefused: The sandbox does not run such a statement; nothing was done.
        QueryFailed: The statement does not bind, or fails before its first row.
        UsageError: A parameter is not a valid value.
    """
    values = None if parameters is None else plain(parameters)
    tally = _Tally(ended)
    worker = _Worker({"sql": sql, "condition": condition, "parameters": values}, limits or Limits(), temporary, tally)
    try:
        judged = worker.judgement()
        named = _named(judged.tables, relations(judged.tables) if callable(relations) else relations)
        # only what the statement names: the process is told of no other file
        given = [named[name] for name in sorted(judged.tables)]
        worker.give(given, judged.columns)
        left_out = LeftOut(
            sum(sum(relation.without.values()) for relation in given),
            len({person for relation in given for person in relation.without}),
        )
        return Result(worker, worker.open(), _masked(given, judged.columns), left_out)
    except BaseException as error:
        tally.fails(error)
        worker.close()
        raise


def _masked(relations: Iterable[QueryTable], columns: frozenset[str] | None) -> tuple[str, ...]:
    """Returns the masked columns that a statement reads, each as `table.column`."""
    return tuple(
        f"{relation.name}.{name}"
        for relation in relations
        for name, _ in relation.columns
        if name in relation.masked and (columns is None or name.lower() in columns)
    )


def plain(parameters: Parameters) -> list[object] | dict[str, object]:
    """Returns the values of parameters in a form that JSON can represent, for the query's process.

    Raises:
        UsageError: A parameter is not a valid value; the message names only its type.
    """
    if isinstance(parameters, Mapping):
        return {str(name): _plain(value) for name, value in parameters.items()}
    if isinstance(parameters, Sequence) and not isinstance(parameters, str | bytes):
        return [_plain(value) for value in parameters]
    raise UsageError(
        f"expected a list of values or a mapping of names to values, found {type(parameters).__name__}",
        argument="parameters",
    )


def _plain(value: object) -> object:
    match value:
        case None | bool() | str():
            return value
        case Integral():  # NumPy's integers, too
            return int(value)
        case Real():
            return float(value)
        case datetime():
            return ["instant", (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()]
        case date():
            return ["date", value.isoformat()]
    raise UsageError(
        f"expected None, a bool, a number, a text, a datetime or a date, found {type(value).__name__}",
        argument="parameters",
    )


def _named(names: frozenset[str], given: Iterable[QueryTable]) -> dict[str, QueryTable]:
    """Returns the relations by their names in a statement.

    Raises:
        QueryRefused: A name is unknown.
    """
    found = {folded(relation.name): relation for relation in given}
    for name in sorted(names - found.keys()):
        import difflib

        from stedi.schema.tables import ALL_ZONES

        near = difflib.get_close_matches(name, {folded(table) for table in ALL_ZONES} - {name}, n=1, cutoff=0.7)
        meant = f"did you mean {near[0]}?" if near else "`stedi tables` lists them."
        raise QueryRefused(
            f"A query is one SELECT over the lake's tables; {shown(name)} is not one of them, and files are not read; "
            f"{meant}"
        )
    return found


def referenced_tables(sql: str, limits: Limits | None = None, temporary: Path | None = None) -> frozenset[str]:
    """Returns the lower-case names of the tables that a statement reads, except those that it defines itself.

    Raises:
        QueryRefused: The sandbox does not run such a statement.
        QueryFailed: Validation exceeds its limits.
    """
    worker = _Worker({"sql": sql}, limits or Limits(), temporary)
    try:
        return worker.judgement().tables
    finally:
        worker.close()


def bounded(call: str, *arguments: object, limits: Limits | None = None) -> Any:
    """Calls a function with plain values in a process with the limits of a query, and returns its result.

    Args:
        call: The function, as `stedi.module:name`.
        arguments: Values that JSON can represent.
        limits: The limits of the process.

    Raises:
        QueryRefused: The function refuses its arguments.
        QueryFailed: The function exceeds its limits, or fails.
    """
    worker = _Worker({"call": call, "args": arguments}, limits or Limits(), None)
    try:
        return worker.answer()
    finally:
        worker.close()


class _Pipe(io.RawIOBase):
    """The worker's output; reading it raises TimeoutError when the query's time is used up."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor = descriptor
        self._left = seconds
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN | select.POLLHUP)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        start = time.monotonic()
        # poll takes milliseconds as a C integer, so it waits one day at most, and the loop polls again
        while not self._poll.poll(min(max(self._left, 0.0) * 1000, 86_400_000)):
            self._left -= time.monotonic() - start
            start = time.monotonic()
            if self._left <= 0:
                raise TimeoutError
        self._left -= time.monotonic() - start
        return os.readv(self._descriptor, [buffer])


class _Tally:
    """Counts the rows of a query, and records how it ended.

    Args:
        ended: Called once, with how the query ended and its number of rows.
    """

    def __init__(self, ended: Ended = lambda how, rows: None) -> None:
        self._ended = ended
        self.rows = 0
        # what it is unless something else is known: an interrupt, or a reader that was dropped
        self.how = "stopped"

    def fails(self, error: BaseException) -> None:
        """Records how a query ended, if the error shows it."""
        if isinstance(error, QueryRefused | UsageError):
            self.how = "refused"
        elif isinstance(error, Exception):
            self.how = "failed"

    def end(self) -> None:
        """Reports how the query ended and its number of rows."""
        self._ended(self.how, self.rows)


class _Worker:
    """The process of one query, its pipes and its temporary folder.

    Args:
        task: A statement to validate and run, or a function to call.
        limits: The limits of the process.
        temporary: The parent of its folder.
        tally: Counts its rows.
    """

    def __init__(
        self, task: Mapping[str, object], limits: Limits, temporary: Path | None, tally: _Tally | None = None
    ) -> None:
        self._limits, self._tally = limits, tally or _Tally()
        sandbox = Path(__file__).with_name("sandbox.py")
        if not sandbox.is_file():
            raise QueryFailed(
                f"{sandbox.parents[2]}: expected the package's files in a folder, found an archive: a query runs in an "
                "isolated process of its own, which starts from a file. Install the package with pip."
            )
        folder = _folder(temporary)
        held = durable.hold(Path(folder))  # maintenance does not remove it while this process runs
        job = {
            **task,
            "memory": size(limits.memory),
            "spill": size(limits.spill),
            "seconds": limits.seconds,
            "threads": limits.threads,
            "temporary": folder,
            "path": isolation.folders(),
        }
        try:
            # The engine's error output may contain data, so stderr is a file that nobody else reads.
            self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            # not through the pipe with the rest: the process needs it before it can read a job
            words = [str(sandbox), str(sandbox.parents[2])]
            self._process = isolation.start(words, folder, errors=self._errors, alone=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)
            raise
        # a reader that is dropped half-way ends its process, too
        self._end = weakref.finalize(self, _end, self._process, self._errors, folder, held, self._tally)
        assert self._process.stdout is not None
        self._pipe = io.BufferedReader(_Pipe(self._process.stdout.fileno(), limits.seconds), 1 << 20)
        self._tell(job)

    def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        # the process has ended already; its error comes with the next line that is read
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()

    def judgement(self) -> Judgement:
        """Returns the tables and columns that the statement reads, as the process has found them."""
        said = self._line()
        columns = said["columns"]
        return Judgement(frozenset(said["tables"]), None if columns is None else frozenset(columns))

    def _line(self) -> Any:
        """Returns the next line of the process, which is JSON."""
        with self._translated():
            line = self._pipe.readline()
        # a process that was killed leaves half a line, which could be JSON all the same
        if not line.endswith(b"\n"):
            self._finish()
            raise QueryFailed("The query was stopped before its first row. Run it again.")
        return json.loads(line)

    def answer(self) -> Any:
        """Returns the result of the function that the process has called."""
        with self._translated():
            said = self._pipe.read()
        self._finish()
        return json.loads(said)

    def give(self, relations: list[QueryTable], columns: frozenset[str] | None) -> None:
        """Sends the process the tables that the statement reads, and which of their columns it reads."""
        remote = any(s3.is_remote(file) for relation in relations for file in relation.files)
        given = [
            {
                "name": folded(relation.name),
                "files": relation.files,
                "columns": relation.columns,
                "masked": sorted(relation.masked),
                # for other tables, the engine itself reads only the columns that it needs
                "wanted": sorted(columns) if (relation.masked or relation.without) and columns is not None else None,
                "places": relation.places,
                "without": sorted(relation.without),
            }
            for relation in relations
        ]
        self._tell({"relations": given, "reach": s3.engine_statements() if remote else []})
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def open(self) -> pa.RecordBatchReader | Few:
        """Returns the process's rows, or a reader as soon as their columns are known."""
        if (said := self._line()) is not None:
            return Few(said["columns"], said["rows"], partial(self._few, len(said["rows"])))
        import pyarrow as pa

        with self._translated():
            stream = pa.ipc.open_stream(pa.PythonFile(self._pipe, "r"))
        return pa.RecordBatchReader.from_batches(stream.schema, self._batches(stream))

    def _few(self, rows: int) -> None:
        self._tally.rows = rows
        self._finish()

    def _batches(self, stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while True:
            with self._translated():
                try:
                    batch = stream.read_next_batch()
                except StopIteration:
                    # A truncated stream ends like a complete one; only the exit code tells them apart.
                    self._finish()
                    return
            self._tally.rows += batch.num_rows
            yield batch

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self._tally.how = "failed"
            self.close()
            raise QueryFailed(
                f"The query was stopped: it exceeded its time limit ({self._limits.seconds:,g} s). Read fewer rows, "
                "or raise the limit."
            ) from None
        except _broken():
            self._finish()
            raise QueryFailed("The query was stopped before its last row. Run it again.") from None

    def _finish(self) -> None:
        """Waits until the worker has ended and raises its error if it has not written every row."""
        if not self._end.alive:
            raise QueryFailed("The query was closed before its last row.")
        # until its exit code is known
        self._tally.how = "failed"
        try:
            # it has closed its output, so that it has no more to do than to end
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.close()
            raise QueryFailed(
                "The query was stopped: its process did not end after the last row. Run it again."
            ) from None
        self._errors.seek(0)
        # a query that fills its errors must not fill this process
        said = self._errors.read(100_000).decode("utf-8", "replace")
        error = _said(said) if code else None
        self._tally.how = "done" if code == 0 else "refused" if isinstance(error, QueryRefused) else "failed"
        self.close()
        if code == 0:
            return
        if error is not None:
            raise error
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        raise QueryFailed(
            f"The query was stopped: its process ended with {how}, probably because it ran out of memory "
            f"({self._limits.memory}). Read fewer rows or columns, or raise the limit."
        )

    def close(self) -> None:
        self._end()


def _said(words: str) -> QueryRefused | QueryFailed | None:
    """Returns the error that a worker has written, or None."""
    for line in words.splitlines():
        with contextlib.suppress(ValueError):
            said_so = json.loads(line)
            if isinstance(said_so, dict) and "refused" in said_so:
                return QueryRefused(str(said_so["refused"]))
            if isinstance(said_so, dict) and "failure" in said_so:
                return QueryFailed(str(said_so["failure"]))
    return None


def _broken() -> tuple[type[Exception], ...]:
    """Returns the types of error that a truncated or invalid stream raises."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, ValueError, AttributeError)


def _folder(temporary: Path | None) -> str:
    """Makes a folder that only its owner may enter, in `temporary` or, if that is not writable, the system's folder."""
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
            return tempfile.mkdtemp(prefix="query-", dir=temporary.absolute())
    return tempfile.mkdtemp(prefix="stedi-query-")


def _end(process: subprocess.Popen[bytes], errors: Any, folder: str, held: int, tally: _Tally) -> None:
    """Ends a worker, which may have ended already, and removes its files."""
    # killed, not asked: an engine in the middle of a value does not notice a request
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    if process.stdout is not None:
        process.stdout.close()
    errors.close()
    shutil.rmtree(folder, ignore_errors=True)
    # after the folder: as long as it is held, maintenance does not remove it as well
    os.close(held)
    # last: what the callback raises leaves neither a process nor a file
    tally.end()
