"""Which files of a table can have rows of some time, so that a statement opens no others.

To open a hundred files takes as long as to read ten thousand rows of one. The numbers of a file are bounded by its
manifest, its timestamps by its footer, which is read once a session: DuckDB skips row groups by footers as well, but
opens every file in every statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from stedi.engines.literals import literal, path_literal
from stedi.schema.tables import Column, DataFile

_MICROSECONDS = 1000
"""In a millisecond."""
_FEW = 4
"""So many files are opened as soon as their footers alone are read."""


class Ranges:
    """The range of an instant in each file of a session.

    Args:
        rows: Returns the rows of a SELECT of DuckDB.
    """

    def __init__(self, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self._rows = rows
        self._known: dict[tuple[str, str], tuple[int, int] | None] = {}

    def holding(self, files: Iterable[DataFile], column: Column, low: int, high: int) -> tuple[DataFile, ...]:
        """Returns the files that can have a row with an instant from `low` to `high`, epoch milliseconds."""
        given, name = tuple(files), column.name
        if column.type == "timestamptz":
            self._read(name, [file.path for file in given if (file.path, name) not in self._known])
            ranges = [self._known.get((file.path, name)) for file in given]
            low, high = low * _MICROSECONDS, high * _MICROSECONDS
        else:
            bounds = [file.bounds.get(name) for file in given]
            ranges = [(int(found[0]), int(found[1])) if found else None for found in bounds]
        return tuple(
            file
            for file, found in zip(given, ranges, strict=True)
            # if nothing is known of a file, it can have any
            if not found or (found[0] <= high and low <= found[1])
        )

    def _read(self, column: str, paths: list[str]) -> None:
        """Reads the range of a timestamp in each file from its footer; files without statistics have none."""
        if len(paths) <= _FEW:
            return
        self._known.update(((path, column), None) for path in paths)
        listed = ", ".join(map(path_literal, paths))
        low, high = "stats_min_value", "stats_max_value"
        for path, first, last in self._rows(
            f"select file_name, epoch_us(min({low}::timestamptz)), epoch_us(max({high}::timestamptz)) "
            f"from parquet_metadata([{listed}]) where path_in_schema = {literal(column)} "
            # a row group without a value has no statistics either, and that the file's range is known must be certain
            f"group by file_name having count(*) = count({low}) and count(*) = count({high})"
        ):
            self._known[path, column] = first, last
