"""Python over the rows of a DataFrame, on the executors, a batch of Arrow at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Rows = Callable[[Iterator[tuple[Any, ...]]], Iterable[tuple[Any, ...]]]
"""Makes rows of the rows of a partition; it runs where they are, in a process of its own."""
_BATCH = 1 << 14
_ARROW = {"bigint": "int64", "int": "int32", "boolean": "bool", "date": "date32"}
"""Arrow's names for Spark's types, where they differ."""


def mapped(frame: DataFrame, function: Rows, schema: str) -> DataFrame:
    """Returns what a function makes of each partition's rows.

    The function travels to the executors as bytes: what it holds, a key say, stands in no plan, log or event.

    Args:
        frame: The rows.
        function: Called once a partition; it, and what it holds, can be pickled.
        schema: Names and Spark types of what it yields, such as `a string, b bigint`.
    """
    columns = tuple((name, kind) for name, kind in (column.split() for column in schema.split(", ")))
    return _map_in_arrow(frame, _Batches(function, columns), schema)


class _Batches:
    """A function of rows, as one of Arrow's batches."""

    def __init__(self, function: Rows, columns: tuple[tuple[str, str], ...]) -> None:
        self._function, self._columns = function, columns

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        rows = (row for batch in batches for row in zip(*(c.to_pylist() for c in batch.columns), strict=True))
        some: list[tuple[Any, ...]] = []
        for row in self._function(rows):
            some.append(row)
            if len(some) == _BATCH:
                yield self._batch(some)
                some = []
        if some:
            yield self._batch(some)

    def _batch(self, rows: list[tuple[Any, ...]]) -> Any:
        import pyarrow as pa

        # what Arrow makes of them by itself Spark does not read everywhere: an int would have eight bytes
        types = {name: pa.type_for_alias(_ARROW.get(kind, kind)) for name, kind in self._columns}
        values = zip(zip(*rows, strict=True), types.values(), strict=True)
        return pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in values], list(types))


def _map_in_arrow(frame: DataFrame, function: Callable[[Iterator[Any]], Iterator[Any]], schema: str) -> DataFrame:
    """Calls `mapInArrow`, which asks for pandas on its way although none of it is used."""
    from pyspark.sql.udf import _create_udf
    from pyspark.util import PythonEvalType

    mapper: Any = _create_udf(function, schema, PythonEvalType.SQL_MAP_ARROW_ITER_UDF)
    column = mapper(*[frame[name] for name in frame.columns])
    made: Any = frame._jdf.mapInArrow(column._jc, False, None)
    return type(frame)(made, frame.sparkSession)
