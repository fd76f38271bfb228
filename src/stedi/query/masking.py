"""Masking: a second process reads tables with masked columns or rows and passes on only the rest.

A query that may not see a column, or somebody's rows, must not have access to their file: an engine that may open a
file can read all of it. So its process forks before its engine exists. The fork opens the files, and for each scan of
the query streams the columns and rows that may be seen as Arrow through a pipe of that scan's own; the query's process
knows the streams alone. A scan costs what it reads and is not read ahead; nothing is copied to a disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stedi.query import scans

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_ROWS_A_BATCH = 61_440
_WHOLE = b"whole"
"""The mark after a complete stream: a truncated one would end like a complete one."""


class Reader:
    """The query's end of the connection to the reading process.

    Args:
        line: A socket for requests, each with the pipe for its rows.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lock = threading.Lock()

    def relation(self, relation: dict[str, Any]) -> Masked:
        """Returns a substitute of a relation that an engine may scan repeatedly."""
        return Masked(self, relation["number"], _schema(relation))

    def rows(self, number: int) -> Iterator[pa.RecordBatch]:
        """Yields the visible columns of a relation.

        Raises:
            OSError: They could not be read to their end; the reading process has reported why.
        """
        import pyarrow as pa

        reading, writing = os.pipe()
        with open(reading, "rb", buffering=1 << 20) as source:
            try:
                with self._lock:
                    socket.send_fds(self._line, [bytes([number])], [writing])
            finally:
                # the other process has a copy: as long as this one is open, the stream has no end
                os.close(writing)
            yield from pa.ipc.open_stream(source)
            if source.read(len(_WHOLE)) != _WHOLE:
                raise OSError("a scan ended early")


class Masked:
    """A relation without masked data, as Arrow streams.

    Args:
        reader: The connection to the reading process.
        number: Its place among the job's relations.
        schema: Its visible columns.
    """

    def __init__(self, reader: Reader, number: int, schema: pa.Schema) -> None:
        self._reader, self._number, self._schema = reader, number, schema

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        import pyarrow as pa

        # an engine opens more streams than it reads: an unread one sends no request
        return pa.RecordBatchReader.from_batches(self._schema, self._reader.rows(self._number)).__arrow_c_stream__()


def start(job: dict[str, Any]) -> Reader:
    """Starts the process that reads the masked relations of a job, and returns the line to it.

    It ends when the line is closed, so with the process that asks. Call it while this process has one thread.
    """
    ours, theirs = socket.socketpair()
    # before there is an engine: its threads would not exist in the fork, but their locks would
    if os.fork():
        theirs.close()
        return Reader(ours)
    code = 1
    try:
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):  # the query's rows end when their writer does, not when this process does
            os.dup2(nothing, stream)
        _serve(theirs, job)
        code = 0
    except scans.Failure as failure:
        _say(str(failure))
    except Exception as error:
        _say(scans.run_time_failure(error, job))
    finally:
        # a fork must not run what its parent has registered for the end
        os._exit(code)


def _serve(line: socket.socket, job: dict[str, Any]) -> None:
    """Opens a job's masked relations and streams them on request, until the connection is closed."""
    import duckdb

    con = duckdb.connect(":memory:", config=scans.settings(job))
    for statement in job["reach"]:
        con.execute(statement)
    con.execute("set global parquet_metadata_cache = true; set global timezone = 'UTC'")
    while True:
        message, pipes, _, _ = socket.recv_fds(line, 1, 1)
        if not message or not pipes:
            return
        arguments = (con.cursor(), job["relations"][message[0]], pipes[0], job)
        # one for each scan: an engine that joins two of them needs rows of both by turns
        threading.Thread(target=_stream, args=arguments, daemon=True).start()


def _stream(con: duckdb.DuckDBPyConnection, relation: dict[str, Any], pipe: int, job: dict[str, Any]) -> None:
    """Writes the visible columns of a relation into a pipe; errors are reported before the pipe is closed."""
    import duckdb
    import pyarrow as pa

    with open(pipe, "wb", buffering=1 << 20) as out, contextlib.suppress(BrokenPipeError):
        try:
            batches = con.sql(f"select {_listed(relation)} from {scans.allowed(relation)}").to_arrow_reader(
                _ROWS_A_BATCH
            )
            with pa.ipc.new_stream(out, _schema(relation)) as stream:
                for batch in batches:
                    stream.write_batch(batch)
            out.write(_WHOLE)
        except BrokenPipeError:
            pass
        except duckdb.Error as error:
            _say(scans.unreadable(error, relation))
        except Exception as error:
            _say(scans.run_time_failure(error, job))


def _say(words: str) -> None:
    sys.stderr.write(json.dumps({"failure": words}) + "\n")
    sys.stderr.flush()


def _listed(relation: dict[str, Any], *, empty: bool = False) -> str:
    columns = [(scans.identifier(name), name, kind) for name, kind in scans.visible(relation)]
    if relation.get("places"):
        columns += [(scans.FILE, scans.FILE, "VARCHAR"), (scans.ROW, scans.ROW, "BIGINT")]
    # a row without a column is still a row
    columns = columns or [("true", "nothing", "BOOLEAN")]
    return ", ".join(f"{'null' if empty else what}::{kind} as {scans.identifier(n)}" for what, n, kind in columns)


def _schema(relation: dict[str, Any]) -> pa.Schema:
    """Returns the Arrow schema of a relation's visible columns, as the engine writes it."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {"threads": 1, "enable_external_access": False}
    with duckdb.connect(":memory:", config=config) as con:
        con.execute("set timezone = 'UTC'")
        found: pa.Schema = con.sql(f"select {_listed(relation, empty=True)} limit 0").to_arrow_table().schema
    return found
