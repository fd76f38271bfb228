"""Reads the rows of some people from Parquet files, with `pages.c`, without decoding the other rows.

The dictionary of one column tells which row groups can have rows of them, and its indices which rows; only the pages
with these rows are decoded. Files that `engines.parquet` does not support are left to the engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

from stedi.engines.parquet import (
    DAMAGED,
    MOST_BYTES,
    Buffers,
    RowGroup,
    RowRanges,
    StoredBytes,
    Unsupported,
    library,
    read_footer,
    row_groups,
    selected_integers,
    selected_texts,
    selected_values,
)
from stedi.schema.tables import ALL_COLUMNS
from stedi.storage import s3

MOST_TEXTS = 1_000
"""The largest number of texts to look for: an engine finds the rows of more people faster."""
_MOST_FOUND = 1 << 17
"""The largest number of rows of a row group that are held as Python's values."""

Rows = dict[tuple[str, ...], tuple[list[int], ...]]
"""Rows of a file: for each combination of texts, the values of each column of integers."""


class Selection:
    """Selects the rows of a table that have one of some texts in a column.

    Args:
        table: The table.
        column: A column of texts.
        texts: The texts; more than `MOST_TEXTS` are left to the engine.
        also: Another column of texts.
        integers: Columns of integers or instants.
    """

    def __init__(
        self, table: str, column: str, texts: Collection[str], also: str = "", integers: Sequence[str] = ()
    ) -> None:
        self._columns = ALL_COLUMNS[table]
        self._key, self._also, self._integers = column, also, integers
        self._texts = frozenset(texts)

    def count(self, path: str) -> int | None:
        """Returns how many rows of a file have one of the texts; None if an engine must count them."""
        found = self._groups(path)
        return None if found is None else sum(count for count, _ in found)

    def counts(self, paths: Iterable[str]) -> tuple[dict[str, int], list[str]]:
        """Returns how many rows with one of the texts files have, if any, and the files that an engine must read."""
        found = {path: self.count(path) for path in paths}
        return {path: count for path, count in found.items() if count}, [
            p for p, count in found.items() if count is None
        ]

    def rows(self, path: str) -> Rows | None:
        """Returns the rows of a file that have one of the texts; None if an engine must read them."""
        found = self._groups(path)
        if found is None:
            return None
        merged: Rows = {}
        for _, rows in found:
            for texts, values in rows.items():
                for to, more in zip(merged.setdefault(texts, tuple([] for _ in values)), values, strict=True):
                    to += more
        return merged

    def _groups(self, path: str) -> list[tuple[int, Rows]] | None:
        """Returns the number of rows, and the rows, of each row group that has any."""
        if library() is None or s3.is_remote(path) or len(self._texts) > MOST_TEXTS:
            return None
        try:
            with open(path, "rb") as file:
                source = StoredBytes(file)  # of most files only the footer and a few chunks are read
                if len(source) > MOST_BYTES:
                    return None
                groups = row_groups(source, read_footer(source), self._columns)
                return [found for group in groups if (found := self._group(group))]
        except (OSError, *DAMAGED):
            return None

    def _group(self, group: RowGroup) -> tuple[int, Rows] | None:
        """Returns the rows of a row group, or None if it has none."""
        key = group.chunk(self._key)
        # a row whose text is not in the dictionary could be theirs: this raises
        texts = key.texts()
        flags = bytearray(map(self._texts.__contains__, texts))
        if not any(flags):
            return None
        buffers = Buffers()
        marks = key.marks(flags, buffers)
        count = marks.count(1)
        if not count:
            return None
        rows: Rows = {}
        if self._integers:
            if count > _MOST_FOUND:
                raise Unsupported
            asked = RowRanges(marks, 1)
            columns: list[list[Any]] = [selected_values(key, texts, buffers, asked)]
            if self._also:
                columns.append(selected_texts(group.chunk(self._also), buffers, asked))
            columns += [selected_integers(group.chunk(name), buffers, asked) for name in self._integers]
            if any(len(column) != count for column in columns):
                raise Unsupported  # some values are missing
            width, at = len(columns) - len(self._integers), 0
            # somebody's rows mostly stand together, so lists grow by runs
            for told, same in groupby(zip(*columns[:width], strict=True)):
                held = rows.setdefault(told, tuple([] for _ in self._integers))
                end = at + sum(1 for _ in same)
                for to, values in zip(held, columns[width:], strict=True):
                    to += values[at:end]
                at = end
        return count, rows
