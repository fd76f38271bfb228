"""Writes Parquet files of a table from Arrow arrays, with Iceberg's field ids, and describes them for the catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from stedi.schema.tables import Column, DataFile
from stedi.storage import durable

GROUP = 122_880
"""The number of rows in a row group."""


class Writer:
    """Writes one Parquet file whose columns have no nulls.

    Args:
        path: A new file.
        columns: The table's columns.
        types: Their Arrow types.
    """

    def __init__(self, path: Path, columns: Sequence[Column], types: Sequence[Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa, self._path, self._columns = pa, path, columns
        self._metadata: list[Any] = []
        self._schema = pa.schema(
            pa.field(column.name, kind, nullable=False, metadata={"PARQUET:field_id": str(place)})
            for place, (column, kind) in enumerate(zip(columns, types, strict=True), start=1)
        )
        # PyArrow would overwrite a file of that name
        path.touch(exist_ok=False)
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            compression_level=1,
            # Arrow's own schema would be a field of the footer that `engines.parquet` does not know, and so refuses
            store_schema=False,
            write_batch_size=GROUP,  # the default of about a thousand takes a fifth longer
            use_dictionary=[column.name for column in columns if column.type != "timestamptz"],
            metadata_collector=self._metadata,
        )

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # PyArrow fails to read the metadata of the unfinished file; the earlier error is reported instead
        with suppress(OSError, RuntimeError) if kind else nullcontext():
            self._writer.close()

    def write(self, arrays: Sequence[Any]) -> None:
        """Writes rows, a row group at a time."""
        self._writer.write_table(self._pa.Table.from_arrays(list(arrays), schema=self._schema), row_group_size=GROUP)

    def data_file(self) -> DataFile:
        """Syncs the closed file to disk and returns its description from its metadata."""
        durable.settle([self._path])
        durable.sync(self._path)
        return described(self._path, self._metadata[0], self._columns)


def described(path: Path, metadata: Any, columns: Sequence[Column], nulls: Mapping[str, int] | None = None) -> DataFile:
    """Returns a file's description from its Parquet metadata.

    Args:
        path: The file.
        metadata: PyArrow's metadata of it.
        columns: Its columns.
        nulls: The nulls of each column, if texts have no statistics; else they are taken from these.
    """
    counted: Counter[str] = Counter()
    bounds: dict[str, tuple[Any, Any]] = {}
    for group in range(metadata.num_row_groups):
        for place, column in enumerate(columns):
            found = metadata.row_group(group).column(place).statistics
            if nulls is None:
                counted[column.name] += found.null_count
            # no bounds of texts, which could be addresses
            if column.type in ("long", "double") and found.has_min_max:
                low, high = bounds.get(column.name, (found.min, found.max))
                bounds[column.name] = min(low, found.min), max(high, found.max)
    texts = {name: (str(low), str(high)) for name, (low, high) in bounds.items()}
    return DataFile(str(path), metadata.num_rows, path.stat().st_size, dict(counted if nulls is None else nulls), texts)
