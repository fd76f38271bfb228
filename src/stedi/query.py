"""Read-only SQL over the lake's tables, in a closed sandbox.

`statement` judges what is asked; the caller resolves the tables to fixed files; a process of its own (`sandbox`), in
which the engine is closed and the system bounds memory and time, runs it. Rows come back as a stream of Arrow
batches through a pipe. A query that is dropped, stopped or done leaves no process and no file.
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
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi import durable, isolation, s3, sandbox
from stedi.errors import QueryFailed, QueryRefused
from stedi.statement import judged, referenced, shown

__all__ = ["Limits", "Relation", "Result", "referenced", "run", "size"]

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import pyarrow as pa

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
        masked: Names of the columns that are null in every row.
    """

    name: str
    files: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    masked: frozenset[str] = frozenset()


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
        raise QueryRefused(f"A size: expected a number with a unit, as in 512MB or 2GiB, found {shown(text)}.")
    return int(float(found[1]) * _UNITS[found[2]])


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
    used = [given[name] for name in sorted(judged(sql, given))]
    worker = _Worker(sql, used, limits, temporary)
    try:
        return Result(worker, worker.open())
    except BaseException:
        worker.close()
        raise


class Result:
    """The rows of a query, read once, as they come. Close it, or use it in a `with`."""

    __slots__ = ("_reader", "_worker")

    def __init__(self, worker: _Worker, reader: pa.RecordBatchReader) -> None:
        self._worker = worker
        self._reader = reader

    @property
    def schema(self) -> pa.Schema:
        """The columns' names and Arrow types."""
        return self._reader.schema

    def reader(self) -> pa.RecordBatchReader:
        """Returns the rows batch by batch; reading them raises `QueryFailed` when the query fails."""
        return self._reader

    def arrow(self) -> pa.Table:
        """Returns the rows that have not been read yet as one table, and closes the result.

        Raises:
            QueryFailed: The query fails on the way.
        """
        with self:
            return self._reader.read_all()

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
        return iter(self._reader)


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
        folder = _folder(temporary)
        held = durable.hold(Path(folder))  # maintenance leaves it alone while this process lives
        job = {
            "sql": sql,
            "relations": [
                {
                    "name": relation.name.lower(),
                    "files": relation.files,
                    "columns": relation.columns,
                    "masked": sorted(relation.masked),
                }
                for relation in relations
            ],
            "reach": s3.engine_statements() if any(s3.is_remote(file) for r in relations for file in r.files) else [],
            "memory": size(limits.memory),
            "spill": size(limits.spill),
            "seconds": limits.seconds,
            "threads": limits.threads,
            "temporary": folder,
            "path": isolation.folders(),
        }
        try:
            # The words of the engine's last breath may hold data, so stderr is a file that nobody else reads.
            self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            self._process = isolation.start([sandbox.__file__], folder, errors=self._errors, alone=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)
            raise
        self._end = weakref.finalize(self, _end, self._process, self._errors, folder, held)
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


def _folder(temporary: Path | None) -> str:
    """Makes a folder that only its owner may enter, in `temporary` or, where nothing can be written, the system's."""
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
            return tempfile.mkdtemp(prefix="query-", dir=temporary.absolute())
    return tempfile.mkdtemp(prefix="stedi-query-")


def _end(process: subprocess.Popen[bytes], errors: Any, folder: str, held: int) -> None:
    """Ends a worker, which may have ended already, and removes what it left."""
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    errors.close()
    shutil.rmtree(folder, ignore_errors=True)
    os.close(held)
