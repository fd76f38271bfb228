"""The result of a query: its rows as a stream, or all of them as Arrow, pandas, Polars or tuples.

A result is read once. Small results are kept after they were read completely; rows that are no longer there raise an
error instead of looking like no rows.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stedi._frozen import dataclass
from stedi.errors import UsageError, many, needing, printable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import pandas as pd
    import polars as pl
    import pyarrow as pa

KEPT = 64 << 20
"""So many bytes of rows a result keeps, to be read again."""
SHOWN = 20
"""So many rows a notebook shows of a result."""


class Worker(Protocol):
    """What runs a query."""

    def close(self) -> None:
        """Ends it if it still runs; more than once does no harm."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that a query with `at` leaves out, since their people do not consent now.

    Attributes:
        rows: Rows of the tables that the statement names.
        people: The number of people.
    """

    rows: int
    people: int


class Few:
    """Rows that came without Arrow: few, and of whole numbers.

    Args:
        columns: Name and DuckDB type of each column.
        rows: A value for each column.
        taken: Called when the rows are read; raises the error of a query that failed after its last row.
    """

    def __init__(
        self, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[int | None]], taken: Callable[[], None]
    ) -> None:
        self.columns, self._rows, self._taken = columns, rows, taken

    def rows(self) -> Sequence[Sequence[int | None]]:
        """Returns the rows.

        Raises:
            QueryFailed: The query failed after all.
        """
        self._taken()
        return self._rows

    def reader(self) -> pa.RecordBatchReader:
        """Returns the rows as Arrow, as the engine would have."""
        import pyarrow as pa

        schema = pa.schema([(name, getattr(pa, _ARROW[kind])()) for name, kind in self.columns])

        def batches() -> Iterator[pa.RecordBatch]:
            if rows := self.rows():
                values = zip(*rows, strict=True)
                columns = [_array(column, field.type) for column, field in zip(values, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())


def _array(values: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    """Returns whole numbers as Arrow, made of bits: of values Arrow would import pandas first."""
    import pyarrow as pa

    wide = kind.bit_width
    valid = sum(1 << place for place, value in enumerate(values) if value is not None)
    bits = sum(((value or 0) & ((1 << wide) - 1)) << wide * place for place, value in enumerate(values))
    count = len(values)
    buffers = [valid.to_bytes((count + 7) // 8, "little"), bits.to_bytes((wide * count + 7) // 8, "little")]
    return pa.Array.from_buffers(kind, count, [pa.py_buffer(buffer) for buffer in buffers])


_ARROW = {
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "BOOLEAN": "bool_",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
}
"""Arrow's types by DuckDB's."""


class Result:
    """The rows of a query: all of them at once, or batch by batch, as they come.

    `arrow()`, `df()`, `pl()` and `fetchall()` give all rows, again and again while the result keeps them: up to 64 MB,
    and more for as long as the Arrow table is in use. `reader()`, or a loop over the result, gives Arrow record batches
    of a result of any size in little memory, once. Close a result that was not read to its end, or use it in a `with`.

    Args:
        worker: Runs the query.
        rows: Gives the rows.
        masked: Columns that the statement reads and that are null for its role.
        left_out: What the tables as they were lack of what was published.
    """

    def __init__(
        self,
        worker: Worker,
        rows: pa.RecordBatchReader | Few,
        masked: Sequence[str] = (),
        left_out: LeftOut | None = None,
    ) -> None:
        self._worker, self._rows = worker, rows
        self.masked = tuple(masked)
        """Columns, as `table.column`, that the statement reads and that are null for the role that it was run as."""
        self.left_out = left_out or LeftOut(0, 0)
        """What the tables as they were lack of what was published."""
        self._ahead: deque[pa.RecordBatch] = deque()
        self._reader: pa.RecordBatchReader | None = None
        self._ended = False
        self._table: pa.Table | None = None
        self._seen: weakref.ref[pa.Table] | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns' names and Arrow types."""
        return self._source.schema

    @property
    def _source(self) -> pa.RecordBatchReader:
        """The rows as Arrow."""
        if isinstance(self._rows, Few):
            self._rows = self._rows.reader()
        return self._rows

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return list(self.schema.names)

    def reader(self) -> pa.RecordBatchReader:
        """Returns the rows batch by batch; reading them raises `QueryFailed` when the query fails.

        Raises:
            UsageError: The rows were read before, and are not kept.
        """
        import pyarrow as pa

        if (table := self._known()) is not None:
            return table.to_reader()
        if self._ended:
            raise _gone("batch by batch")
        if self._reader is None:
            self._reader = pa.RecordBatchReader.from_batches(self.schema, self._batches())
        return self._reader

    def arrow(self) -> pa.Table:
        """Returns all rows as one Arrow table, and closes the query.

        Raises:
            QueryFailed: The query fails on the way.
            UsageError: Rows were read before, and are not kept.
        """
        if (table := self._known()) is not None:
            return table
        if self._reader is not None:
            raise _gone("batch by batch")
        with self:
            table = self.reader().read_all()
        # beyond that only as long as the caller holds it
        self._table = table if table.nbytes <= KEPT else None
        self._seen = weakref.ref(table)
        return table

    def df(self) -> pd.DataFrame:
        """Returns all rows as a pandas frame.

        Raises:
            MissingExtra: pandas is not installed.
            QueryFailed: As for `arrow`.
            UsageError: As for `arrow`.
        """
        with needing("pandas", "readers"):
            import pandas as pd  # noqa: F401
        return self.arrow().to_pandas()

    def pl(self) -> pl.DataFrame:
        """Returns all rows as a Polars frame.

        Raises:
            MissingExtra: Polars is not installed.
            QueryFailed: As for `arrow`.
            UsageError: As for `arrow`.
        """
        with needing("polars", "readers"):
            import polars as pl
        found = pl.from_arrow(self.arrow())
        assert isinstance(found, pl.DataFrame)
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Returns all rows as tuples of Python's values; instants are `datetime` in UTC.

        Raises:
            QueryFailed: As for `arrow`.
            UsageError: As for `arrow`.
        """
        columns = [column.to_pylist() for column in self.arrow().columns]
        return list(zip(*columns, strict=True))

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
        if self._known() is None and self._reader is not None:
            raise _gone("batch by batch")
        return iter(self.reader())

    def __repr__(self) -> str:
        listed = ", ".join(f"{printable(field.name)} {field.type}" for field in self.schema)
        if (table := self._known(strict=False)) is not None:
            return f"<stedi.Result: {many(table.num_rows, 'row')} of {listed}>"
        state = "not read yet" if self._reader is None and self._seen is None else "read, and not kept"
        return f"<stedi.Result: rows of {listed}; {state}>"

    def _repr_html_(self) -> str:
        """Returns the first rows as HTML, and reads no more than those."""
        from stedi.query import notebook

        if (table := self._known(strict=False)) is not None:
            batches, more = table.slice(0, SHOWN).to_batches(), table.num_rows > SHOWN
        elif self._reader is None and self._seen is None:
            batches, more = self._first()
        else:
            return notebook.paragraph(repr(self))
        rows = [row for batch in batches for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)][:SHOWN]
        return notebook.table(self.columns, rows, f"{'the first ' if more else ''}{many(len(rows), 'row')}")

    def _first(self) -> tuple[list[pa.RecordBatch], bool]:
        """Returns batches with the first rows, which readers still get, and whether there are more."""
        held = sum(batch.num_rows for batch in self._ahead)
        # one row more than is shown tells that there are more
        while held <= SHOWN:
            try:
                batch = self._source.read_next_batch()
            except StopIteration:
                return list(self._ahead), False
            self._ahead.append(batch)
            held += batch.num_rows
        return list(self._ahead), True

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            while self._ahead:
                yield self._ahead.popleft()
            yield from self._source
        finally:
            # also after a failure: what reads on finds no more rows, and must not take that for all
            self._ended = True

    def _known(self, *, strict: bool = True) -> pa.Table | None:
        """Returns the rows, if they were read completely and are still there.

        Raises:
            UsageError: They are no longer there, and `strict` is True.
        """
        table = self._table if self._table is not None else self._seen() if self._seen is not None else None
        if table is None and self._seen is not None and strict:
            raise _gone("whole")
        return table


def few(result: Result) -> Few | None:
    """Returns a result's rows if they came without Arrow and nobody has asked for them; for use instead of `reader`."""
    return result._rows if isinstance(result._rows, Few) else None


def _gone(how: str) -> UsageError:
    return UsageError(
        f"a result: expected rows that are unread, or kept because they are few, found that they were read {how} "
        "before; run the query again, or keep the table that `arrow()` returns"
    )
