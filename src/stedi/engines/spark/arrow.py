"""Runs Python functions over the rows of a DataFrame, on the executors, one Arrow batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Rows = Callable[[Iterator[tuple[Any, ...]]], Iterable[tuple[Any, ...]]]
"""Makes new rows from the rows of a partition; it runs on the executor, in a separate process."""
_BATCH = 1 << 14
_ARROW = {"bigint": "int64", "int": "int32", "boolean": "bool", "date": "date32"}
"""Arrow's names for Spark's types, where the two differ."""


def mapped(frame: DataFrame, function: Rows, schema: str) -> DataFrame:
    """Returns the rows that a function makes from each partition's rows.

    The function is sent to the executors as bytes, so what it holds, such as a key, is in no plan, log or event.

    Args:
        frame: The rows.
        function: Called once for each partition; it must be picklable, and so must everything that it holds.
        schema: Names and Spark types of the columns that it yields, such as `a string, b bigint`.
    """
    columns = tuple((name, kind) for name, kind in (column.split() for column in schema.split(", ")))
    return _map_in_arrow(frame, _Batches(function, columns), schema)


class _Batches:
    """Turns a function of rows into a function of Arrow batches."""

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

        # Spark cannot read every type that Arrow infers: Arrow would give an int eight bytes
        types = {name: pa.type_for_alias(_ARROW.get(kind, kind)) for name, kind in self._columns}
        values = zip(zip(*rows, strict=True), types.values(), strict=True)
        return pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in values], list(types))


def _map_in_arrow(frame: DataFrame, function: Callable[[Iterator[Any]], Iterator[Any]], schema: str) -> DataFrame:
    """Does what `mapInArrow` does, without its check that pandas is installed: pandas is not used here."""
    from pyspark.sql.udf import _create_udf
    from pyspark.util import PythonEvalType

    mapper: Any = _create_udf(function, schema, PythonEvalType.SQL_MAP_ARROW_ITER_UDF)
    column = mapper(*[frame[name] for name in frame.columns])
    made: Any = frame._jdf.mapInArrow(column._jc, False, None)
    return type(frame)(made, frame.sparkSession)
